//! The services between the user interfaces (the command line, the page) and the engine: unattended work, and the
//! interpretation of user input. Nothing here prints, asks the user, or reads the clock or the environment.
//!
//! Configuration and sources: [`config`] holds the configuration, and [`list`] its form as a list of lines ·
//! [`sources`] prepares the input of a snapshot, and [`usual`] knows what is usually excluded · [`guide`] finds sources
//! and places where nothing is configured · [`ahead`] measures sources.
//!
//! Unattended work: [`plan`] decides what is due, from the record in [`status`] · [`run`] does it · [`report`] holds
//! the results · [`schedule`] starts runs · [`keep`] and [`forget`] decide which snapshots stay · [`drill`] tries a
//! restore · [`settle`] follows each piece of work · [`health`] examines a vault · [`usage`] adds up folders.
//!
//! User input and output: [`select`] finds a snapshot, and [`spot`] a path in it · [`local`] and [`roots`] find a
//! folder · [`password`] gets a password, and [`credentials`] the secrets of a store · [`delivery`] tells how a vault reaches other machines · [`values`],
//! [`dates`], [`units`] and [`suggest`] deal with words and numbers.
//!
//! Surroundings: [`machine`] provides the environment and the clock · [`folders`] and [`temporary`] know where vault's
//! own files are.

pub mod ahead;
pub mod config;
pub mod credentials;
pub mod dates;
pub mod delivery;
pub mod drill;
pub mod folders;
pub mod forget;
pub mod guide;
pub mod health;
pub mod keep;
pub mod list;
pub mod local;
pub mod machine;
pub mod password;
pub mod plan;
pub mod report;
pub mod roots;
pub mod run;
pub mod schedule;
pub mod select;
pub mod settle;
pub mod sources;
pub mod spot;
pub mod status;
pub mod suggest;
pub mod temporary;
pub mod units;
pub mod usage;
pub mod usual;
pub mod values;
