//! Stores on other machines: the policy that all of them share, whatever protocol they speak, and the protocols.
//!
//! A client of a protocol is a [`Store`](crate::store::Store) that makes each request once. It says
//! A client of a protocol is a [`Store`](crate::store::Store) that makes each request once. It returns
//! [`Unreachable`](crate::store::StoreError::Unreachable) whenever it is not sure of the answer, and asks a [`Watch`]
//! while it waits. [`FarStore`] around it decides the rest: when a request is tried again, what a lost answer means,
//! how long a request may make no progress, and how many requests may be under way.

#[cfg(feature = "remote")]
mod aws;
mod call;
#[cfg(feature = "remote")]
mod http;
mod line;
#[cfg(feature = "remote")]
mod object;
#[cfg(feature = "remote")]
mod open;
#[cfg(feature = "remote")]
mod rclone;
#[cfg(feature = "remote")]
mod rest;
#[cfg(feature = "remote")]
mod runtime;
mod settings;
#[cfg(feature = "remote")]
mod sftp;

pub use crate::store::remote::call::FarStore;
pub use crate::store::remote::line::{Line, Policy, Surroundings, Watch};
#[cfg(feature = "remote")]
pub use crate::store::remote::open::{open, prepare};
pub use crate::store::remote::settings::Settings;
#[cfg(not(feature = "remote"))]
pub use without::{open, prepare};

/// The error in builds without any protocol.
#[cfg(not(feature = "remote"))]
mod without {
    use std::sync::Arc;

    use crate::store::place::Address;
    use crate::store::remote::{Line, Settings, Surroundings};
    use crate::store::{Store, StoreError};

    /// Creates nothing, as [`open`] opens nothing.
    ///
    /// # Errors
    /// Always.
    pub fn prepare(
        address: &Address,
        settings: &Settings,
        surroundings: Arc<dyn Surroundings>,
    ) -> Result<(), StoreError> {
        open(address, settings, surroundings).map(drop)
    }

    /// Opens no store on another machine: this program was built without them.
    ///
    /// # Errors
    /// Always.
    pub fn open(
        address: &Address,
        settings: &Settings,
        surroundings: Arc<dyn Surroundings>,
    ) -> Result<Arc<dyn Store>, StoreError> {
        let line = Line::new(address.to_string(), 1, settings.policy, surroundings);
        Err(line.unusable("this program was built without the feature `remote`"))
    }
}
