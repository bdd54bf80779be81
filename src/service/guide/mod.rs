//! Discovery on a machine on which nothing is configured: folders that are worth keeping, what is usually excluded from
//! them, places where a vault may be created, and a trial of it all.
//!
//! [`places`] finds folders and places · [`unwanted`] measures them, and what may be excluded · [`trial`] saves and
//! restores a few files

pub mod places;
pub mod trial;
pub mod unwanted;

use std::path::PathBuf;

/// A name for the source made of these folders.
pub fn source_name(sources: &[PathBuf]) -> String {
    match sources {
        [only] => only.file_name().map_or_else(|| "all".to_owned(), |name| name.to_string_lossy().to_lowercase()),
        _ => "home".to_owned(),
    }
}
