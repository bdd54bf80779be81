//! Stores snapshots without the removed files: each folder that changes once, and for each snapshot its lists without the removed paths.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::engine::patterns::exclude::{PatternError, Rules, means_root};
use crate::engine::query::browse::{BrowseError, read_skipped};
use crate::engine::rewrite::RewriteError;
use crate::engine::rewrite::plan::{Node, Thinned, TreePlan, Unread, Why, place_of};
use crate::engine::snapshot::Ended;
use crate::msgpack;
use crate::path::{components, join, to_path};
use crate::read::Listing;
use crate::read::TreeReader;
use crate::read::links::GroupReader;
use crate::tree::{Entry, EntryError, Root, RuleSet, Snapshot, Stream, Verdict};
use crate::write::depot::Depot;
use crate::write::tree::{ListingBuilder, SkippedList, store_links};

/// The key of a folder's listing in its entry (SPEC §7.2).
const LISTING_KEY: &str = "c";

/// Stores the trees that a plan leaves.
pub(super) struct Thinner<'t, 'a> {
    depot: &'t Depot<'a>,
    plan: &'t TreePlan,
    patterns: &'t [String],
    trees: TreeReader<'a>,
    /// The new listing of each folder that changes, by its number, or why the folder cannot be read.
    listings: Vec<Option<Result<Stream, Unread>>>,
}

/// The new body of a snapshot, or why it stays as it is.
pub(super) type Outcome = Result<Snapshot, Unread>;

/// Separates errors that concern only one part of the snapshot from those that end the work.
fn contained<T>(result: Result<T, Ended<RewriteError>>) -> Result<Result<T, Unread>, Ended<RewriteError>> {
    let error = match result {
        Ok(done) => return Ok(Ok(done)),
        Err(error) => error,
    };
    match &error {
        Ended::Why(
            RewriteError::Read(source)
            | RewriteError::Browse(BrowseError::Read { source, .. } | BrowseError::Partial { source, .. }),
        ) if source.is_contained() => Ok(Err(Unread::new(b"", source))),
        _ => Err(error),
    }
}

/// The paths removed from one snapshot.
struct Paths<'p> {
    gone: HashSet<Vec<u8>>,
    patterns: &'p [String],
    roots: &'p [Root],
    /// The rules for each root asked about, by its name, and whether the patterns mean the whole root.
    rules: HashMap<Vec<u8>, (Rules, bool)>,
}

/// All prefixes of a path that are paths, the shortest first, the path itself last.
pub(super) fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    ends.chain([path.len()]).map(|end| &path[..end])
}

impl Paths<'_> {
    /// Whether a path in the snapshot is removed or is inside something that is removed.
    fn covers(&self, path: &[u8]) -> bool {
        prefixes(path).any(|prefix| self.gone.contains(prefix))
    }

    /// Whether the patterns match a path, whether or not it is in the snapshot.
    fn are_about(&mut self, path: &[u8]) -> Result<bool, PatternError> {
        let Some(root) = components(path).next() else { return Ok(false) };
        if !self.rules.contains_key(root) {
            let place = place_of(self.roots, root);
            let is_meant = means_root(self.patterns, &place, true)? || means_root(self.patterns, &place, false)?;
            self.rules.insert(root.to_vec(), (Rules::new(self.patterns, &to_path(&place))?, is_meant));
        }
        let Some((rules, is_meant)) = self.rules.get(root) else { return Ok(false) };
        let below = path.get(root.len() + 1..).unwrap_or_default();
        let excludes = |prefix: &[u8]| rules.exclude(prefix, true) || (prefix == below && rules.exclude(prefix, false));
        Ok(*is_meant || !below.is_empty() && prefixes(below).any(excludes))
    }
}

impl<'t, 'a> Thinner<'t, 'a> {
    pub(super) fn new(depot: &'t Depot<'a>, plan: &'t TreePlan, patterns: &'t [String], trees: TreeReader<'a>) -> Self {
        Self { depot, plan, patterns, trees, listings: vec![None; plan.nodes.len()] }
    }

    /// Stores the changed folders of these snapshots.
    pub(super) fn store_folders<'s>(
        &mut self,
        snapshots: impl Iterator<Item = &'s Thinned>,
        stopped: impl Fn() -> bool,
    ) -> Result<(), Ended<RewriteError>> {
        let mut waiting: Vec<u32> = snapshots.map(|thinned| thinned.node).collect();
        let mut wanted = BTreeSet::new();
        while let Some(number) = waiting.pop() {
            if wanted.insert(number) {
                waiting.extend(self.plan.nodes[number as usize].below.iter().map(|(_, below)| *below));
            }
        }
        // A folder has a higher number than the folders in it.
        for number in wanted {
            if stopped() {
                return Err(RewriteError::Interrupted.into());
            }
            let listing = contained(self.folder(&self.plan.nodes[number as usize]))?;
            self.listings[number as usize] = Some(listing.flatten());
        }
        Ok(())
    }

    fn folder(&mut self, node: &Node) -> Result<Result<Stream, Unread>, Ended<RewriteError>> {
        let other = || RewriteError::from(EntryError::Malformed("a folder is not as its index says".to_owned()));
        let (mut old, mut new) = (Listing::new(&node.listing), ListingBuilder::default());
        let (mut gone, mut below) = (node.gone.iter().peekable(), node.below.iter().peekable());
        while let Some(Entry { name, .. }) = old.next(&mut self.trees).map_err(RewriteError::from)? {
            if gone.next_if(|gone| gone.name == name).is_some() {
                continue;
            }
            let Some((_, number)) = below.next_if(|(below, _)| *below == name) else {
                // Byte for byte, so that fields written by a later version are kept.
                new.push(old.last_bytes(), self.depot)?;
                continue;
            };
            let listing = match self.listings[*number as usize].as_ref().ok_or_else(other)? {
                Ok(listing) => listing,
                Err(why) => return Ok(Err(why.clone())),
            };
            let entry = msgpack::encode(listing)
                .and_then(|listing| msgpack::replace_value(old.last_bytes(), LISTING_KEY, &listing));
            let entry = entry.map_err(|what| RewriteError::from(EntryError::Malformed(what)))?;
            new.push(&entry, self.depot)?;
        }
        if gone.peek().is_some() || below.peek().is_some() {
            return Err(other().into());
        }
        Ok(Ok(new.finish(self.depot)?))
    }

    /// The snapshot without the removed files.
    pub(super) fn snapshot(&mut self, before: &Snapshot, thinned: &Thinned) -> Result<Outcome, Ended<RewriteError>> {
        let tree = match self.listings[thinned.node as usize].clone().ok_or(RewriteError::Unsettled)? {
            Ok(tree) => tree,
            Err(why) => return Ok(Err(why)),
        };
        let mut gone = HashSet::new();
        self.plan.for_each(thinned, |path, _| {
            gone.insert(path.to_vec());
            true
        });
        let mut paths = Paths { gone, patterns: self.patterns, roots: &before.roots, rules: HashMap::new() };
        let left = match contained(self.skipped(before, &mut paths))?.flatten() {
            Ok(left) => left,
            Err(why) => return Ok(Err(why)),
        };
        // An unreadable list is dropped: it may name a removed path, which somebody might be able to read one day.
        let links = contained(self.links(&before.links, &paths))?.unwrap_or(Stream::EMPTY);
        let rules = contained(self.rules(&before.rules, &paths))?.unwrap_or(Stream::EMPTY);
        // Field by field: anyone who adds a field has to decide here whether it still holds for the rest.
        let Snapshot {
            time,
            source,
            host,
            user,
            roots,
            tree: _,
            links: _,
            files,
            folders,
            bytes,
            files_new,
            files_changed,
            files_unchanged,
            bytes_read,
            bytes_new,
            bytes_stored,
            duration_ms,
            program,
            tags,
            description,
            verdict,
            skipped,
            skipped_list: _,
            given,
            rules: _,
            replaces,
            redated,
            origin: _,
        } = before.clone();
        // Without a list, it is partial for a reason that remains.
        let is_whole = skipped > 0 && left.count == 0;
        Ok(Ok(Snapshot {
            time,
            source,
            host,
            user,
            roots: roots.into_iter().filter(|root| !paths.gone.contains(&root.name)).collect(),
            tree,
            links,
            files: files.saturating_sub(thinned.sum.files),
            folders: folders.saturating_sub(thinned.sum.folders),
            bytes: bytes.saturating_sub(thinned.sum.bytes),
            files_new,
            files_changed,
            files_unchanged,
            bytes_read,
            bytes_new,
            bytes_stored,
            duration_ms,
            program,
            tags,
            description,
            verdict: if is_whole { Verdict::Complete } else { verdict },
            skipped: left.count,
            skipped_list: left.stream.finish(self.depot)?,
            given,
            rules,
            replaces,
            redated,
            // The original has files that this one does not have.
            origin: None,
        }))
    }

    /// The groups of hard links, without the removed paths.
    fn links(&mut self, before: &Stream, paths: &Paths<'_>) -> Result<Stream, Ended<RewriteError>> {
        let (mut groups, mut reader): (Vec<Vec<Vec<u8>>>, _) = (Vec::new(), GroupReader::new(before));
        while let Some((is_first, path)) = reader.next(&mut self.trees).map_err(RewriteError::from)? {
            if is_first {
                groups.push(Vec::new());
            }
            if let Some(group) = groups.last_mut().filter(|_| !paths.covers(&path)) {
                group.push(path);
            }
        }
        Ok(store_links(groups.into_iter(), self.depot)?)
    }

    /// The list of skipped files, without those that the patterns mean. These count as removed.
    fn skipped(
        &mut self,
        before: &Snapshot,
        paths: &mut Paths<'_>,
    ) -> Result<Result<SkippedList, Unread>, Ended<RewriteError>> {
        let list = read_skipped(&before.skipped_list, &mut self.trees).map_err(RewriteError::from)?;
        if (list.len() as u64) < before.skipped {
            let what = format!("it says of {} things that they could not be saved", before.skipped);
            return Ok(Err(Unread { path: Vec::new(), why: Why::TooLong, what }));
        }
        let mut left = SkippedList::default();
        for item in list {
            if paths.covers(&item.path) {
                continue;
            }
            if paths.are_about(&item.path).map_err(RewriteError::from)? {
                paths.gone.insert(item.path);
            } else {
                left.push(item, self.depot);
            }
        }
        Ok(Ok(left))
    }

    /// The rules: removed paths are recorded as left out, so that a restore does not take them for absent. If no rules were recorded, or
    /// some are unknown or cannot be read, none are written: then nothing is taken for absent, not even by a later version that knows
    /// them.
    fn rules(&mut self, before: &Stream, paths: &Paths<'_>) -> Result<Stream, Ended<RewriteError>> {
        let Some(mut rules) = RuleSet::read(before, &mut self.trees).map_err(RewriteError::from)? else {
            return Ok(Stream::EMPTY);
        };
        // A removed folder takes with it everything that its ignore file has left out. If only the ignore file is removed, what it left
        // out can no longer be explained.
        rules.ignore_files.retain(|folder, _| !paths.covers(folder));
        if let Some(name) = &rules.options.ignore_file
            && rules.ignore_files.keys().any(|folder| paths.covers(&join(folder, name)))
        {
            return Ok(Stream::EMPTY);
        }
        for list in [&mut rules.left_out, &mut rules.emptied, &mut rules.own, &mut rules.listed] {
            list.retain(|path| !paths.covers(path));
        }
        rules.left_out.extend(paths.gone.iter().cloned());
        Ok(rules.write(self.depot.keys().cutter(), &mut self.depot.meta_sink())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_what_goes_goes_too() {
        let patterns = ["/secret".to_owned(), "*.key".to_owned()];
        let gone = HashSet::from([b"me/a".to_vec()]);
        let roots = [Root::new(b"me".to_vec(), b"/home/me".to_vec()), Root::new(b"k".to_vec(), b"/k.key".to_vec())];
        let mut paths = Paths { gone, patterns: &patterns, roots: &roots, rules: HashMap::new() };
        for (path, covers, is_about) in [
            ("me/a", true, false),
            ("me/a/b/c", true, false),
            ("me/ab", false, false),
            ("me", false, false),
            ("", false, false),
            ("me/secret", false, true),
            ("me/secret/x", false, true),
            ("me/x/secret", false, false),
            ("me/x/y.key", false, true),
            ("other/y.key", false, true),
            ("other.key", false, true),
            ("secret/x", false, true),
            ("k", false, true),
            ("k/any", false, true),
        ] {
            let about = paths.are_about(path.as_bytes()).unwrap();
            assert_eq!((paths.covers(path.as_bytes()), about), (covers, is_about), "{path}");
        }
    }
}
