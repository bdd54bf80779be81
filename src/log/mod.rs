//! The log: the actions of each client, as sealed records in chains without gaps (SPEC §8).
//!
//! [`record`] one record and its codec · [`chain`] all clients' records put together, and the missing ones · [`order`]
//! order and dates of records · [`close`] clients that are retired and complete · [`merge`] many records in one object
//! · [`past`] short entries of records that nobody needs · [`numbers`] sets of their numbers · [`sweep`] when a
//! condemned pack may be deleted · [`slots`] which key slots are valid.

pub mod record;
pub mod chain;
pub mod order;
pub mod close;
pub mod merge;
pub mod numbers;
pub mod past;
pub mod sweep;
pub mod slots;

pub use chain::{Chains, Finding};
pub use close::Sight;
pub use order::{Dated, Order};
pub use past::Closed;
pub use record::{
    Damage, Findings, Format, FoundRecord, Held, Link, Record, RecordBody, RecordError, SlotChange, Unknown, ValidSlot,
};
pub use slots::{SlotSet, Standing};
pub use sweep::{Acknowledgements, Obstacle, SweepRules};
