//! What there is to find on a machine on which nothing is configured: folders that are worth keeping, and what of them is usually not
//! wanted; places where a vault may lie; and whether it all works.
//!
//! [`places`] folders and places · [`unwanted`] sizes, and what may be left out · [`trial`] a few files there and back

pub mod places;
pub mod trial;
pub mod unwanted;

use std::path::PathBuf;

/// A name for what is kept of these folders.
pub fn source_name(sources: &[PathBuf]) -> String {
    match sources {
        [only] => only.file_name().map_or_else(|| "all".to_owned(), |name| name.to_string_lossy().to_lowercase()),
        _ => "home".to_owned(),
    }
}
