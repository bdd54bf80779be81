//! Which snapshots stay: what people say of it, as a command, the configuration and lists do.

use std::time::Duration;

use crate::engine::retention::{Period, Rules};
use crate::tree::Time;

/// The rules of retention.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// The last so many; 0 says outright that a rule may leave none.
    pub keep: Option<u64>,
    /// The last one of each of the last so many hours that have any.
    pub keep_hourly: Option<u64>,
    /// The same of days.
    pub keep_daily: Option<u64>,
    /// The same of weeks, which begin on Monday.
    pub keep_weekly: Option<u64>,
    /// The same of months.
    pub keep_monthly: Option<u64>,
    /// The same of years.
    pub keep_yearly: Option<u64>,
    /// All that are less than this much older than the last one.
    pub keep_within: Option<Duration>,
    /// All with one of these tags.
    pub keep_tag: Vec<String>,
}

impl Keep {
    /// The rules of the library, at this time.
    pub fn rules(&self, now: Time) -> Rules {
        let periods = [
            (Period::Hour, self.keep_hourly),
            (Period::Day, self.keep_daily),
            (Period::Week, self.keep_weekly),
            (Period::Month, self.keep_monthly),
            (Period::Year, self.keep_yearly),
        ];
        Rules {
            last: self.keep,
            periods: periods.into_iter().filter_map(|(period, count)| Some((period, count?))).collect(),
            within: self.keep_within,
            tags: self.keep_tag.clone(),
            now: Some(now),
        }
    }
}
