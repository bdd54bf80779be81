//! What vault does by itself, day after day, and what people say of it: between what a person meets (the command line, the page) and the
//! engine. Nothing here prints, asks, or reads the clock or the environment.
//!
//! What is kept where: [`config`], and [`list`] as a list of lines · [`sources`], [`usual`] what is kept, and what is usually not wanted ·
//! [`guide`] what there is to find where nothing is configured · [`ahead`] how much there is.
//!
//! What is done by itself: [`plan`] what is due, by [`status`] · [`run`] doing it · [`report`] what a run did · [`schedule`] what starts one ·
//! [`keep`], [`forget`] which snapshots stay, and which may go · [`drill`] a restore that is tried · [`settle`] what follows work ·
//! [`health`] how a vault is.
//!
//! What people say: [`select`], [`spot`] which snapshot is meant, and where in it · [`local`], [`roots`] which folder · [`password`] where a
//! password comes from · [`delivery`] how a vault reaches other machines · [`values`], [`dates`], [`units`], [`suggest`] words and numbers.
//!
//! What is taken from outside: [`machine`] environment and clock · [`folders`], [`temporary`] where vault's own files lie.

pub mod ahead;
pub mod config;
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
pub mod usual;
pub mod values;
