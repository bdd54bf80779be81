//! The policy that all far stores share, whatever protocol they speak: when a request is tried again, what a lost answer means,
//! how long nothing may happen, and how many requests may be under way.
//!
//! A client of a protocol is a [`Store`](crate::store::Store) that makes each request once. It says
//! [`Unreachable`](crate::store::StoreError::Unreachable) whenever it is not sure of the answer, and asks a [`Watch`] while it
//! waits. [`FarStore`] around it does all else.

mod call;
mod line;

pub use crate::store::remote::call::FarStore;
pub use crate::store::remote::line::{Line, Policy, Surroundings, Watch};
