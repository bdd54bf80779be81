//! The rules for the snapshots to keep, as users give them in commands, in the configuration and in lists.

use std::time::Duration;

use crate::engine::prune::retention::{Period, Rules};
use crate::tree::Time;

/// The rules of retention.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// The number of latest snapshots to keep; 0 explicitly allows the rules to keep none.
    pub keep: Option<u64>,
    /// The number of latest hours with snapshots; the last snapshot of each is kept.
    pub keep_hourly: Option<u64>,
    /// The number of latest days with snapshots; the last snapshot of each is kept.
    pub keep_daily: Option<u64>,
    /// The number of latest weeks with snapshots, beginning on Monday; the last snapshot of each is kept.
    pub keep_weekly: Option<u64>,
    /// The number of latest months with snapshots; the last snapshot of each is kept.
    pub keep_monthly: Option<u64>,
    /// The number of latest years with snapshots; the last snapshot of each is kept.
    pub keep_yearly: Option<u64>,
    /// The age relative to the last snapshot below which all snapshots are kept.
    pub keep_within: Option<Duration>,
    /// The tags whose snapshots are all kept.
    pub keep_tag: Vec<String>,
}

impl Keep {
    /// The library's rules at this time.
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
