//! What vault does by itself, day after day, and what people say of it: between what a person meets (the command line, the page) and the
//! engine. Nothing here prints, asks, or reads the clock or the environment.
//!
//! [`config`] what is kept where · [`list`] the same as a list of lines · [`plan`] what is due · [`status`] what earlier runs did ·
//! [`report`] what a run did · [`run`] doing it · [`schedule`] what starts it · [`keep`], [`forget`] which snapshots stay, and which may go · [`drill`] a restore that is tried · [`settle`] what follows work · [`health`] how a vault is · [`local`], [`roots`] which folder
//! is meant · [`select`], [`spot`] which snapshot is meant, and where in it · [`sources`], [`usual`] what is kept, and what is usually not wanted · [`ahead`] how much there is ·
//! [`guide`] what there is to find where nothing is configured · [`password`] where a password comes from · [`delivery`] how a vault reaches other machines ·
//! [`machine`], [`folders`], [`temporary`] what is taken from the machine, and where vault keeps its own files · [`values`], [`dates`], [`units`], [`suggest`] words and numbers.

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
