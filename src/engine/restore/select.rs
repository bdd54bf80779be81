//! Selects the part of a snapshot that is restored.

use std::collections::HashMap;

use crate::engine::patterns::gitignore::{Patterns, flaw};
use crate::engine::restore::{RestoreError, RestoreOptions};
use crate::id::StreamKey;
use crate::path::Shown;
use crate::tree::stream::stream_key;
use crate::tree::{Entry, FileKind, Stream};

/// The user's patterns for the paths to restore.
#[derive(Debug)]
pub(super) struct Selection {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
    /// The only roots in which anything can be selected, if the patterns name them.
    roots: Option<Vec<Vec<u8>>>,
}

/// Whether a path is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Picked {
    /// It is, and so is everything below it, unless excluded.
    Yes,
    /// It is not, but something below it may be.
    Perhaps,
    /// Neither it nor anything below it.
    No,
}

impl Selection {
    /// The selection of these options.
    pub(super) fn new(options: &RestoreOptions) -> Result<Self, RestoreError> {
        let roots: Option<Vec<Vec<u8>>> = options.include.iter().map(|pattern| root_of(pattern)).collect();
        let roots = roots.filter(|_| !options.include.is_empty());
        Ok(Self { include: compile(&options.include)?, exclude: compile(&options.exclude)?, roots })
    }

    /// Whether everything is selected.
    pub(super) fn is_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// The decision for the folder in which the walk begins: it need not match a pattern itself, unless only certain paths are wanted.
    pub(super) fn start(&self) -> Picked {
        if self.include.is_some() { Picked::Perhaps } else { Picked::Yes }
    }

    /// The decision for a path, given the decision `above` for its folder.
    pub(super) fn pick(&self, above: Picked, path: &[u8], is_folder: bool) -> Picked {
        if self.is_all() || above == Picked::No {
            return above;
        }
        let is_meant = |patterns: &Patterns| patterns.decide(path, is_folder).is_some_and(|found| found.excluded);
        if self.exclude.as_ref().is_some_and(is_meant) {
            return Picked::No;
        }
        match &self.include {
            Some(patterns) if above == Picked::Perhaps && !is_meant(patterns) => {
                if is_folder {
                    Picked::Perhaps
                } else {
                    Picked::No
                }
            }
            _ => Picked::Yes,
        }
    }

    /// Whether anything in this root may be selected.
    pub(super) fn may_be_in(&self, root: &[u8]) -> bool {
        self.roots.as_ref().is_none_or(|roots| roots.iter().any(|named| named == root))
            && self.pick_path(root, true) != Picked::No
    }

    /// The decision for a path inside the snapshot, taking the folders above it into account.
    pub(super) fn pick_path(&self, path: &[u8], is_folder: bool) -> Picked {
        let mut picked = self.start();
        if self.is_all() || path.is_empty() {
            return picked;
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            picked = self.pick(picked, &path[..end], end < path.len() || is_folder);
        }
        picked
    }
}

/// The root that a pattern names, if it can match in no other one.
fn root_of(pattern: &str) -> Option<Vec<u8>> {
    let inner = pattern.strip_prefix('/');
    let whole = inner.unwrap_or(pattern);
    let (first, below) = whole.split_once('/').unwrap_or((whole, ""));
    let is_anchored = inner.is_some() || !below.is_empty();
    let is_plain = !first.is_empty() && !first.contains(['*', '?', '[', '\\', '!', '#']);
    (is_anchored && is_plain).then(|| first.as_bytes().to_vec())
}

/// Number and size of selected files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    /// Number of files of all kinds except folders.
    pub(super) files: u64,
    /// Their total size.
    pub(super) bytes: u64,
    /// Whether anything is selected, perhaps only a folder, or something that cannot be read.
    pub(super) anything: bool,
}

impl Amount {
    pub(super) fn add(&mut self, other: Self) {
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.anything |= other.anything;
    }

    /// Adds a selected entry.
    pub(super) fn add_entry(&mut self, entry: &Entry) {
        let files = u64::from(entry.kind != FileKind::Directory);
        self.add(Self { files, bytes: entry.size, anything: true });
    }
}

/// Everything that determines which content of a folder is selected: equal spots have equal selections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Spot {
    listing: StreamKey,
    picked: Picked,
    ahead: Vec<u8>,
}

/// The amounts selected in the folders counted so far, as a vault can contain one folder at any number of places.
#[derive(Debug, Default)]
pub(super) struct Counted(HashMap<Spot, Amount>);

impl Counted {
    pub(super) fn get(&self, spot: &Spot) -> Option<Amount> {
        self.0.get(spot).copied()
    }

    pub(super) fn put(&mut self, spot: Spot, amount: Amount) {
        self.0.insert(spot, amount);
    }
}

impl Selection {
    /// The spot of a folder at this path, for which `picked` was decided.
    pub(super) fn spot(&self, listing: &Stream, picked: Picked, path: &[u8]) -> Spot {
        let mut ahead = Vec::new();
        for patterns in self.include.iter().chain(&self.exclude) {
            patterns.put_ahead(path, &mut ahead);
        }
        Spot { listing: stream_key(listing), picked, ahead }
    }
}

fn compile(lines: &[String]) -> Result<Option<Patterns>, RestoreError> {
    if lines.is_empty() {
        return Ok(None);
    }
    let mut patterns = Patterns::default();
    for line in lines {
        let added = patterns.add(line.as_bytes()).map_err(|error| error.what);
        // A pattern that would match nothing is an error here: more, or less, would be restored than was meant.
        if let Some(what) = added.err().or_else(|| flaw(line)) {
            let pattern = Shown(line.as_bytes()).to_string();
            return Err(RestoreError::Pattern { pattern, what: what.to_owned() });
        }
    }
    Ok(Some(patterns.ready()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(include: &[&str], exclude: &[&str]) -> Selection {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let roots = None;
        Selection { include: compile(&strings(include)).unwrap(), exclude: compile(&strings(exclude)).unwrap(), roots }
    }

    #[track_caller]
    fn check(include: &[&str], exclude: &[&str], path: &str, is_folder: bool, expected: Picked) {
        let picked = selection(include, exclude).pick_path(path.as_bytes(), is_folder);
        assert_eq!(picked, expected, "{path} with {include:?} without {exclude:?}");
    }

    #[test]
    fn globs_select() {
        use Picked::{No, Perhaps, Yes};
        check(&[], &[], "a/b", false, Yes);
        check(&["*.rs"], &[], "src/main.rs", false, Yes);
        check(&["*.rs"], &[], "src/main.py", false, No);
        check(&["*.rs"], &[], "src", true, Perhaps);
        check(&["src/"], &[], "a/src/main.py", false, Yes);
        check(&["/src"], &[], "a/src/main.py", false, No);
        check(&["a/b"], &[], "a/b/c", false, Yes);
        check(&["a/b"], &[], "x/a/b", false, No);
        check(&[], &["*.o"], "a/b.o", false, No);
        check(&[], &["*.o"], "a/b.c", false, Yes);
        check(&[], &["target/"], "a/target/b/c", false, No);
        check(&["src"], &["*.o"], "src/b.o", false, No);
        check(&["src"], &["*.o"], "src/b.c", false, Yes);
        check(&["*.rs", "!x.rs"], &[], "src/x.rs", false, No);
        check(&["{a,b}"], &[], "a", false, No);
        check(&["{a,b}"], &["x{"], "{a,b}", false, Yes);
    }

    #[test]
    fn a_malformed_glob_is_named() {
        let error = compile(&["a[z-b]".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("a[z-b]"), "{error}");
    }

    #[test]
    fn patterns_that_name_their_roots_select_in_no_other_one() {
        for (pattern, root) in [
            ("/home", Some("home")),
            ("/home/a*", Some("home")),
            ("home/docs/**", Some("home")),
            ("home/", None),
            ("*.jpg", None),
            ("/h*", None),
            ("**/docs/a", None),
            ("!/home", None),
        ] {
            assert_eq!(root_of(pattern).as_deref(), root.map(str::as_bytes), "{pattern}");
        }
    }
}
