//! The clock, and dates in the form in which they are read and shown ([`crate::service::dates`]).

pub use crate::service::dates::*;
use crate::tree::Time;
use jiff::Timestamp;

/// The current time.
pub fn now() -> Time {
    from_timestamp(Timestamp::now())
}

/// The current time in whole seconds since 1970.
pub fn now_secs() -> u64 {
    u64::try_from(now().secs).unwrap_or(0)
}
