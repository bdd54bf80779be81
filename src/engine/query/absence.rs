//! Why a snapshot does not have a path. A path that is not in the tree may still have existed: a rule may have left it out, or it could
//! not be read. Code that reports a path as gone asks here first; a restore decides what to remove by the same facts
//! (`engine/restore/guard`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::engine::patterns::exclude::{ExcludeOptions, Rules};
use crate::engine::query::browse::{BrowseError, read_skipped};
use crate::engine::query::diff::{Absence, Change, Difference, Sums, Visitor};
use crate::id::StreamKey;
use crate::path::{components, join, to_path};
use crate::read::mark::stream_key;
use crate::tree::{ChunkSource, FileKind, Root, RuleSet, Snapshot, Stream};
use crate::vault::ReadError;

/// The paths that a snapshot lists as not included.
#[derive(Debug, Default)]
pub struct Omitted {
    /// Paths that could not be read; `None` if not known.
    pub(crate) skipped: Option<BTreeSet<Vec<u8>>>,
    /// The rules, and the paths that they left out; `None` if not known.
    pub(crate) rules: Option<(RuleSet, ExcludeOptions)>,
}

impl Omitted {
    /// From lists that have been read.
    pub(crate) fn new(skipped: Option<BTreeSet<Vec<u8>>>, rules: Option<RuleSet>) -> Self {
        let rules = rules.map(|rules| {
            let options = ExcludeOptions::from_rules(&rules.options);
            (rules, options)
        });
        Self { skipped, rules }
    }

    /// Reads the lists. A list that is damaged, or was written by a later version, counts as not known.
    ///
    /// # Errors
    /// If the store or the catalogue fails as a whole.
    pub fn read<S: ChunkSource<Error = ReadError>>(body: &Snapshot, source: &mut S) -> Result<Self, ReadError> {
        let skipped = match skipped_paths(&body.skipped_list, body.skipped, source) {
            Err(error) if error.is_contained() => None,
            skipped => skipped?,
        };
        let rules = match RuleSet::read(&body.rules, source) {
            Err(error) if error.is_contained() => None,
            rules => rules?,
        };
        Ok(Self::new(skipped, rules))
    }

    /// Whether the snapshot lists this path itself as unreadable.
    pub(crate) fn is_skipped(&self, path: &[u8]) -> bool {
        self.skipped.as_ref().is_some_and(|skipped| skipped.contains(path))
    }

    /// Whether this path was one of the program's own.
    pub(crate) fn is_own(&self, path: &[u8]) -> bool {
        self.rules.as_ref().is_some_and(|(rules, _)| rules.own.contains(path))
    }

    /// Whether this path itself was left out because of its kind or size, or was removed later.
    pub(crate) fn is_left_out(&self, path: &[u8]) -> bool {
        self.rules.as_ref().is_some_and(|(rules, _)| rules.left_out.contains(path))
    }

    /// Whether the content of this folder was left out.
    pub(crate) fn is_emptied(&self, path: &[u8]) -> bool {
        self.rules.as_ref().is_some_and(|(rules, _)| rules.emptied.contains(path))
    }

    /// Whether only listed paths of this root were included.
    pub(crate) fn is_listed(&self, root: &[u8]) -> bool {
        self.rules.as_ref().is_some_and(|(rules, _)| rules.listed.contains(root))
    }

    /// Why a path that is not in the tree is missing. `kind`: its kind in another snapshot, if known.
    pub fn why(&self, roots: &[Root], path: &[u8], kind: Option<FileKind>) -> Absence {
        let Some(root) = components(path).next().and_then(|name| roots.iter().find(|root| root.name == name)) else {
            return Absence::Gone;
        };
        if root.lost {
            return Absence::NotMounted;
        }
        let mut is_known = self.skipped.is_some() && self.rules.is_some();
        let patterns = self.rules.as_ref().map_or(&[][..], |(_, options)| options.patterns.as_slice());
        let mut rules = Rules::new(patterns, &to_path(&root.path)).unwrap_or_else(|_| {
            is_known = false;
            Rules::default()
        });
        let mut at = Vec::new();
        for name in components(path) {
            at = join(&at, name);
            let is_last = at.len() == path.len();
            if self.is_skipped(&at) {
                return Absence::Unread;
            }
            let below = at.get(root.name.len() + 1..).unwrap_or_default();
            let matches = |is_folder| !below.is_empty() && rules.exclude(below, is_folder);
            let is_out = match kind.filter(|_| is_last) {
                Some(kind) => matches(kind == FileKind::Directory),
                None => matches(true) || is_last && matches(false),
            };
            let is_own = self.is_own(&at) || self.is_left_out(&at);
            if is_out || is_own || !is_last && self.is_emptied(&at) {
                return Absence::LeftOut;
            }
            if let Some(content) = self.rules.as_ref().and_then(|(rules, _)| rules.ignore_files.get(&at)) {
                match rules.with_file(content, below) {
                    Ok(inner) => rules = inner,
                    // The rules were valid for the program that took the snapshot.
                    Err(_) => is_known = false,
                }
            }
        }
        if self.is_listed(&root.name) {
            return Absence::LeftOut;
        }
        if is_known { Absence::Gone } else { Absence::Unknown }
    }
}

/// The paths that could not be saved at all; `None` if the list is too long to read completely.
pub(crate) fn skipped_paths<S: ChunkSource<Error = ReadError>>(
    list: &Stream,
    count: u64,
    source: &mut S,
) -> Result<Option<BTreeSet<Vec<u8>>>, ReadError> {
    match read_skipped(list, source) {
        Ok(list) if list.len() as u64 >= count => {
            Ok(Some(list.into_iter().filter(|skipped| !skipped.stored).map(|skipped| skipped.path).collect()))
        }
        Err(BrowseError::Read { source, .. } | BrowseError::Partial { source, .. }) => Err(source),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// The sentence about a root that was lost, wherever anything is read out of it.
pub(crate) const WAS_NOT_MOUNTED: &str = "it, or a disk below it, held nothing when the snapshot was taken: its disk was \
                                          probably not mounted. Another snapshot may have it: vault list";

/// The lists of several snapshots. Most snapshots share the same lists, which are read once.
#[derive(Debug, Default)]
pub(crate) struct Sayings(HashMap<(StreamKey, StreamKey), Arc<Omitted>>);

impl Sayings {
    /// The lists of this snapshot.
    pub(crate) fn of<S: ChunkSource<Error = ReadError>>(
        &mut self,
        body: &Snapshot,
        source: &mut S,
    ) -> Result<Arc<Omitted>, ReadError> {
        let key = (stream_key(&body.rules), stream_key(&body.skipped_list));
        if let Some(known) = self.0.get(&key) {
            return Ok(known.clone());
        }
        let read = Arc::new(Omitted::read(body, source)?);
        self.0.insert(key, read.clone());
        Ok(read)
    }
}

/// One of two trees that are compared.
#[derive(Debug)]
pub struct Side<'s> {
    /// The paths that it lists as not included.
    pub omitted: Omitted,
    /// Its roots.
    pub roots: &'s [Root],
    /// The path at which the comparison begins.
    pub start: &'s [u8],
}

/// Explains why one of two trees lacks a path.
#[derive(Debug)]
pub struct Judge<'s> {
    old: Side<'s>,
    new: Side<'s>,
    /// The path that is reported for the start of both.
    base: &'s [u8],
    /// The last path that one of them left out or could not read: nothing inside it is reported.
    last: Option<Vec<u8>>,
}

impl<'s> Judge<'s> {
    /// For a comparison of two trees whose start is reported as `base`.
    pub fn new(base: &'s [u8], old: Side<'s>, new: Side<'s>) -> Self {
        Self { old, new, base, last: None }
    }

    /// The difference as it is to be reported; `None` if it is inside something already reported.
    pub fn judge(&mut self, difference: Difference) -> Option<Difference> {
        let (side, entry) = match difference.change {
            Change::Removed => (&self.new, difference.old.as_ref()),
            Change::Added => (&self.old, difference.new.as_ref()),
            _ => return Some(difference),
        };
        let is_inside = |folder: &Vec<u8>| {
            difference.path.strip_prefix(folder.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
        };
        if self.last.as_ref().is_some_and(is_inside) {
            return None;
        }
        let below = difference.path.strip_prefix(self.base).unwrap_or(&difference.path);
        let path = components(below).fold(side.start.to_vec(), |path, name| join(&path, name));
        match side.omitted.why(side.roots, &path, entry.map(|entry| entry.kind)) {
            Absence::Gone | Absence::Unknown => Some(difference),
            absence => {
                self.last = Some(difference.path.clone());
                Some(Difference { change: Change::Omitted(absence), ..difference })
            }
        }
    }
}

impl Side<'_> {
    /// Whether every path that it lacks can only be gone.
    fn says_nothing(&self) -> bool {
        let has_rules = self.omitted.rules.as_ref().is_some_and(|(rules, _)| *rules != RuleSet::default());
        let has_skipped = self.omitted.skipped.as_ref().is_some_and(|skipped| !skipped.is_empty());
        !has_rules && !has_skipped && self.roots.iter().all(|root| !root.lost)
    }
}

/// Passes differences through a judge before they are reported.
pub struct Judged<'v, 's> {
    judge: Judge<'s>,
    visitor: &'v mut dyn Visitor,
}

impl<'v, 's> Judged<'v, 's> {
    /// Reports to `visitor` the differences that the judge leaves.
    pub fn new(judge: Judge<'s>, visitor: &'v mut dyn Visitor) -> Self {
        Self { judge, visitor }
    }
}

impl Visitor for Judged<'_, '_> {
    fn differs(&mut self, difference: Difference) -> bool {
        self.visitor.differs(difference)
    }

    fn judge(&mut self, difference: Difference) -> Option<Difference> {
        self.judge.judge(difference)
    }

    fn judges_by_path(&self) -> bool {
        !(self.judge.old.says_nothing() && self.judge.new.says_nothing())
    }

    fn again(&mut self, path: &[u8], sums: &Sums) -> bool {
        self.visitor.again(path, sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::RuleOptions;

    fn omitted(rules: Option<RuleSet>) -> Omitted {
        let skipped = [b"root/closed".to_vec(), b"root/file".to_vec()];
        Omitted::new(Some(skipped.into()), rules)
    }

    #[test]
    fn what_is_absent_is_gone_only_if_nothing_says_otherwise() {
        let paths = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let rules = RuleSet {
            options: RuleOptions { patterns: vec!["*.tmp".to_owned(), "build/".to_owned()], ..RuleOptions::default() },
            ignore_files: [(b"root/sub".to_vec(), b"/here\n!keep.tmp\n".to_vec())].into(),
            left_out: paths(&["root/large"]),
            emptied: paths(&["root/cache"]),
            own: paths(&["root/vault"]),
            listed: paths(&["list"]),
        };
        let root = |name: &str| Root::new(name.as_bytes().to_vec(), format!("/{name}").into_bytes());
        let roots = [root("root"), root("list"), Root { lost: true, ..root("disk") }];
        let known = omitted(Some(rules));
        let file = Some(FileKind::File);
        for (path, kind, expected) in [
            ("root/a", file, Absence::Gone),
            ("root/a/b/c", None, Absence::Gone),
            ("root/x.tmp", file, Absence::LeftOut),
            ("root/a.tmp/b", file, Absence::LeftOut),
            ("root/sub/keep.tmp", file, Absence::Gone),
            ("root/sub/here", file, Absence::LeftOut),
            ("root/here", file, Absence::Gone),
            ("root/build", file, Absence::Gone),
            ("root/build", Some(FileKind::Directory), Absence::LeftOut),
            ("root/build", None, Absence::LeftOut),
            ("root/large", file, Absence::LeftOut),
            ("root/cache/x", file, Absence::LeftOut),
            ("root/cache", Some(FileKind::Directory), Absence::Gone),
            ("root/vault/VAULT", file, Absence::LeftOut),
            ("root/file", file, Absence::Unread),
            ("root/closed/in/it", file, Absence::Unread),
            ("list/other", file, Absence::LeftOut),
            ("disk/photo", file, Absence::NotMounted),
            ("nowhere/x", file, Absence::Gone),
        ] {
            assert_eq!(known.why(&roots, path.as_bytes(), kind), expected, "{path}");
        }
        let unknown = omitted(None);
        assert_eq!(unknown.why(&roots, b"root/a", file), Absence::Unknown);
        assert_eq!(unknown.why(&roots, b"root/file", file), Absence::Unread);
    }
}
