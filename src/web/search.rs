//! Finding names in all snapshots, comparing two snapshots, adding up folders, listing key slots.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Serialize;

use crate::engine::keys;
use crate::engine::patterns::glob::Pattern;
use crate::engine::query::absence::{Judge, Judged, Omitted, Side};
use crate::engine::query::browse::entry_at;
use crate::engine::query::diff::{Difference, Sums, Visitor, bring, diff};
use crate::engine::query::find::{Search, find};
use crate::json::{DifferenceJson, MatchJson, SlotsJson, SumsJson};
use crate::progress::Silent;
use crate::service::usage::{UsageJson, Wish, sums};
use crate::tree::Entry;
use crate::vault::SnapshotInfo;
use crate::web::answer::{Problem, Told, encode};
use crate::web::desk::Desk;
use crate::web::look;
use crate::web::query::Query;

/// The largest number of paths in an answer.
const FOUND_MAX: u64 = 2000;
/// The largest number of levels of folders that are listed with their sizes.
const DEPTH_MAX: u64 = 6;

/// `GET find`: `{matches, more, broken}`, each match as `vault find --json` prints it.
///
/// # Errors
/// If the vault cannot be read.
pub fn matches(desk: &Arc<Desk>, query: &Query) -> Told {
    let wanted = query.bytes("pattern").filter(|pattern| !pattern.is_empty());
    let wanted = wanted.ok_or_else(|| Problem::usage("nothing is looked for"))?;
    let count = query.number("count", 200)?.clamp(1, FOUND_MAX) as usize;
    // A plain word matches anywhere in a name.
    let is_pattern = wanted.iter().any(|byte| b"*?[]{}\\/".contains(byte));
    let wanted = if is_pattern { wanted.to_vec() } else { [b"*", wanted, b"*"].concat() };
    let pattern = Pattern::new(&wanted, true);
    let source = query.text("source").ok();
    let view = desk.view();
    let moment = view.moment();
    let is_wanted = |info: &&SnapshotInfo| source.is_none_or(|source| info.body.source == source);
    let snapshots: Vec<&SnapshotInfo> = moment.snapshots().iter().rev().filter(is_wanted).collect();
    let (mut found, mut more) = (Vec::new(), false);
    let search = Search { pattern: &pattern, all: source.is_none(), otherwise: None };
    let threads = desk.home().threads();
    let searched = find(view.vault(), &snapshots, &search, threads, &Silent::default(), &mut |one| {
        more = found.len() == count;
        if !more {
            found.push(one);
        }
        !more
    })?;
    let matches: Vec<_> = found.iter().map(|one| MatchJson::new(one, &snapshots)).collect();
    encode(&serde_json::json!({ "matches": matches, "more": more, "broken": searched.broken.len() }))
}

#[derive(Serialize)]
struct ComparedJson<'a> {
    differences: Vec<DifferenceJson<'a>>,
    /// Whether there are more matches than these; they were only counted.
    more: bool,
    #[serde(flatten)]
    sums: SumsJson<'a>,
}

/// The first differences: up to `count`, and one more.
struct First {
    found: Vec<Difference>,
    count: usize,
}

impl Visitor for First {
    fn differs(&mut self, difference: Difference) -> bool {
        if self.found.len() <= self.count {
            self.found.push(difference);
        }
        true
    }

    fn again(&mut self, _: &[u8], _: &Sums) -> bool {
        self.found.len() <= self.count
    }
}

/// `GET diff`: the differences between two snapshots, each path and the sums as `vault diff --json` prints them.
///
/// # Errors
/// If the vault cannot be read.
pub fn compare(desk: &Arc<Desk>, query: &Query) -> Told {
    let (old, new) = (desk.snapshot(query.text("old")?)?, desk.snapshot(query.text("new")?)?);
    let (at, count) = (query.path(), query.number("count", 1000)?.clamp(1, FOUND_MAX) as usize);
    let vault = desk.view().vault();
    let (mut old_trees, mut new_trees) = (vault.tree_reader_of([old.id])?, vault.tree_reader_of([new.id])?);
    let first = entry_at(&old.body.tree, &at, &mut old_trees)?;
    let second = entry_at(&new.body.tree, &at, &mut new_trees)?;
    let (left, right) = (Omitted::read(&old.body, &mut old_trees)?, Omitted::read(&new.body, &mut new_trees)?);
    let judge = Judge::new(
        &at,
        Side { omitted: left, roots: &old.body.roots, start: &at },
        Side { omitted: right, roots: &new.body.roots, start: &at },
    );
    let mut first_ones = First { found: Vec::new(), count };
    let mut judged = Judged::new(judge, &mut first_ones);
    let progress = Silent::default();
    bring(&first, &second, &new_trees, &progress);
    let compared = diff(&at, (first, &mut old_trees), (second, &mut new_trees), &[], &progress, &mut judged)?;
    let (found, mut sums) = (first_ones.found, compared.sums);
    sums.unknown += compared.broken.len() as u64;
    encode(&ComparedJson {
        differences: found.iter().take(count).map(DifferenceJson::new).collect(),
        more: found.len() > count,
        sums: SumsJson { summary: &sums, old: old.id.to_string(), new: Some(new.id.to_string()) },
    })
}

#[derive(Serialize)]
struct AddedUpJson<'a> {
    #[serde(flatten)]
    usage: UsageJson<'a>,
    /// Whether there are more entries than these.
    more: bool,
    /// The number of folders that could not be read.
    broken: u64,
}

/// `GET usage`: as `vault du --json`, with the largest entries.
///
/// # Errors
/// If there is no such path, or it cannot be read.
pub fn usage(desk: &Arc<Desk>, query: &Query) -> Told {
    let info = desk.snapshot(query.text("snapshot")?)?;
    let since = query.bytes("since").map(|_| desk.snapshot(query.text("since")?)).transpose()?;
    let (at, count) = (query.path(), query.number("count", 200)?.clamp(1, FOUND_MAX) as usize);
    let depth = query.number("depth", 1)?.clamp(1, DEPTH_MAX) as u32;
    let view = desk.view();
    let entry = Entry::clone(&*look::find(desk, &info, &at)?);
    let wish = Wish { info: &info, path: &at, since: since.as_ref(), depth };
    let mut sums = sums(view.vault(), &wish, entry, desk.home().threads(), &Silent::default())?;
    let broken = match sums.broken.take() {
        None => 0,
        Some((count, error)) => {
            // What has not arrived yet is noted.
            let problem = desk.unread(&info, error);
            if problem.status == StatusCode::GONE {
                return Err(problem);
            }
            count
        }
    };
    let more = sums.lines.len() > count;
    encode(&AddedUpJson { usage: UsageJson::new(&info, since.as_ref(), &at, &sums, count), more, broken })
}

/// `GET keys`: as `vault key list --json`.
///
/// # Errors
/// If the vault cannot be read.
pub fn slots(desk: &Arc<Desk>, _: &Query) -> Told {
    let slots = keys::list(desk.view().vault())?;
    encode(&SlotsJson::new(&slots))
}
