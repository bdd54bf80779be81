//! What a snapshot leaves out: patterns, tags of caches, mount points, large files.

/// What to leave out.
#[derive(Debug, Clone, Default)]
pub struct ExcludeOptions {
    /// gitignore patterns, matched against the path below each root.
    pub patterns: Vec<String>,
    /// Honour a file of gitignore patterns with this name in any folder (`.vaultignore`).
    pub ignore_file: Option<Vec<u8>>,
    /// Leave out the content of folders with a valid CACHEDIR.TAG.
    pub caches: bool,
    /// Leave out the content of folders that contain a file of one of these names.
    pub if_present: Vec<Vec<u8>>,
    /// Leave out regular files larger than this, in bytes.
    pub larger_than: Option<u64>,
    /// Do not descend into other file systems.
    pub one_file_system: bool,
    /// Leave out files with the nodump flag.
    pub nodump: bool,
}
