//! The log: what each client did, as sealed records in chains without gaps (SPEC §8).
//!
//! [`record`] one record and its codec · [`chain`] all clients' records put together, and what is missing from them · [`sweep`]
//! when a condemned pack may be deleted.

pub mod record;
pub mod chain;
pub mod sweep;

pub use chain::{Chains, Finding, Link};
pub use record::{Damage, Format, FoundRecord, Record, RecordBody, RecordError, SlotChange, Unknown, ValidSlot};
pub use sweep::{Acknowledgements, Obstacle};
