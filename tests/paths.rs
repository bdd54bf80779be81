//! Vaults with far more paths than folders: each of forty folders names the next one twice, so that there are 2⁴⁰ paths
//! in 41 folders. No backup of a disk looks like this, but somebody who has the keys can write it. Commands that need
//! an answer get it from the folders, each read once; commands that would list more paths than they can say so;
//! commands that print all of them can be stopped.
//!
//! The length of a walk is measured by how often it asks whether to stop.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use vault::engine::check::drill::{DrillOptions, drill};
use vault::engine::patterns::glob::Pattern;
use vault::engine::query::browse::{BrowseError, find_entry};
use vault::engine::query::diff::{Difference, Sums, Visitor, diff};
use vault::engine::query::find::{Search, find};
use vault::engine::query::index::IndexError;
use vault::engine::query::usage::{News, usage};
use vault::engine::restore::{RestoreError, RestoreOptions, Target, restore};
use vault::engine::rewrite::{Change, Why, plan};
use vault::id::{ChunkId, ClientId, Digest};
use vault::log::{Record, RecordBody};
use vault::progress::{Counters, Phase, Progress, Silent};
use vault::seal::{Keys, Secret};
use vault::store::dir::DirStore;
use vault::tree::entry::LISTING_VERSION;
use vault::tree::{ChunkSink, Entry, FileKind, Stream, StreamWriter, Time, encode_entry};
use vault::vault::open::open;
use vault::vault::{OpenOptions, SnapshotInfo, Vault};

use crate::support::binary::{Desk, said};
use crate::support::{RAW, identity};

/// Folders that name the next one twice.
const LEVELS: u32 = 40;
/// Paths of the file at the bottom.
const PATHS: u64 = 1 << LEVELS;
/// A walk that reads each folder a few times asks at most this often.
const FEW: u64 = 1000;

/// Counts the questions whether the work should stop. From `max` on the answer is yes.
struct Steps {
    counters: Counters,
    asked: AtomicU64,
    max: u64,
}

impl Steps {
    fn new(max: u64) -> Self {
        Self { counters: Counters::default(), asked: AtomicU64::new(0), max }
    }
}

impl Progress for Steps {
    fn phase(&self, _: Phase) {}

    fn warn(&self, _: &str) {}

    fn detail(&self, _: &str) {}

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn stopped(&self) -> bool {
        self.asked.fetch_add(1, Relaxed) >= self.max
    }
}

/// Computes the ids of chunks, and keeps nothing.
struct Ids<'k>(&'k Keys);

impl ChunkSink for Ids<'_> {
    type Error = io::Error;

    fn put_chunk(&mut self, bytes: &[u8]) -> Result<ChunkId, io::Error> {
        Ok(self.0.chunk_id(bytes))
    }
}

/// A vault with such snapshots.
struct Web {
    desk: Desk,
    vault: Vault,
    /// The packs with the files at the bottom.
    contents: Vec<PathBuf>,
    /// A snapshot of plain files.
    plain: SnapshotInfo,
    /// Forty levels, and a file at the bottom.
    deep: SnapshotInfo,
    /// The same, but with another time of the folder at the bottom.
    later: SnapshotInfo,
    /// The same with another file at the bottom.
    other: SnapshotInfo,
}

impl Web {
    fn new() -> Self {
        let desk = Desk::new();
        let store = Arc::new(DirStore::open(&desk.path("store")).unwrap());
        let options = OpenOptions::new(desk.path("crafting"), identity("crafter"));
        let vault = open(store, &Secret::raw(&RAW), options, &Silent::default()).unwrap();
        desk.write("plain", "plain");
        desk.write("one", "the one");
        desk.write("two", "the other one");
        desk.take("2026-01-01 12:00");
        let contents = desk.packs().into_iter().filter(|path| path.starts_with(desk.path("store/packs"))).collect();
        vault.refresh(&Silent::default()).unwrap();
        let plain = vault.snapshots().pop().unwrap();
        let file = |name: &str| find_entry(&vault, &plain, format!("source/{name}").as_bytes()).unwrap();
        let mut number = 0;
        let mut tops = Vec::new();
        for (content, time) in [("one", 1), ("one", 2), ("two", 1)] {
            let bottom = Entry { name: b"deep.txt".to_vec(), ..file(content) };
            let mut listing = store_listing(&desk, vault.keys(), &[bottom], &mut number);
            for level in 0..LEVELS {
                let secs = if level == 0 { time } else { 1 };
                let folder = |name: &str| folder(name, &listing, secs);
                let listing_of_both = [folder("a"), folder("b")];
                listing = store_listing(&desk, vault.keys(), &listing_of_both, &mut number);
            }
            tops.push(store_listing(&desk, vault.keys(), &[folder("source", &listing, 1)], &mut number));
        }
        desk.take("2026-01-01 13:00");
        vault.refresh(&Silent::default()).unwrap();
        for (client, tree) in (0xf0..).zip(tops) {
            let mut body = plain.body.clone();
            body.tree = tree;
            body.time.secs += i64::from(client) * 86_400;
            let record = Record {
                client: ClientId::new([client; 16]),
                number: 1,
                previous: Digest::new([0; 32]),
                seen: Vec::new(),
                time: body.time,
                claims: Vec::new(),
                closed: Vec::new(),
                body: RecordBody::Snapshot(Box::new(body)),
            };
            let sealed = record.seal(vault.keys()).unwrap();
            fs::write(desk.path("store/log").join(sealed.name.to_string()), sealed.bytes).unwrap();
        }
        for entry in fs::read_dir(desk.source()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        vault.refresh(&Silent::default()).unwrap();
        let mut snapshots = vault.snapshots().into_iter().rev();
        let [other, later, deep] = [(); 3].map(|()| snapshots.next().unwrap());
        assert_ne!(deep.body.tree, later.body.tree);
        Self { desk, vault, contents, plain, deep, later, other }
    }

    /// A snapshot as the command line names it.
    fn name(info: &SnapshotInfo) -> String {
        info.id.to_string()
    }

    /// Compares two snapshots. Returns the sums, and the length of the walk.
    fn compare(&self, old: &SnapshotInfo, new: &SnapshotInfo, visitor: &mut dyn Visitor) -> (Sums, u64) {
        let steps = Steps::new(FEW);
        let top = |info: &SnapshotInfo| find_entry(&self.vault, info, b"").unwrap();
        let [mut a, mut b] = [(); 2].map(|()| self.vault.tree_reader().unwrap());
        let compared = diff(b"", (top(old), &mut a), (top(new), &mut b), &[], &steps, visitor).unwrap();
        (compared.sums, steps.asked.into_inner())
    }
}

fn folder(name: &str, listing: &Stream, secs: i64) -> Entry {
    let mut entry = Entry::new(name, FileKind::Directory);
    (entry.mode, entry.mtime) = (0o755, Time { secs, nanos: 0 });
    entry.content = Some(listing.clone());
    entry
}

/// Writes a listing as a file of the source, so that the next snapshot stores its content.
fn store_listing(desk: &Desk, keys: &Keys, entries: &[Entry], number: &mut u32) -> Stream {
    let mut bytes = vec![LISTING_VERSION];
    entries.iter().for_each(|entry| encode_entry(entry, &mut bytes).unwrap());
    let mut writer = StreamWriter::default();
    writer.write(&bytes, keys.cutter(), &mut Ids(keys)).unwrap();
    *number += 1;
    desk.write(&format!("listing-{number}"), bytes);
    writer.finish(keys.cutter(), &mut Ids(keys)).unwrap()
}

/// Only counts.
struct Counter;

impl Visitor for Counter {
    fn differs(&mut self, _: Difference) -> bool {
        true
    }

    fn again(&mut self, _: &[u8], _: &Sums) -> bool {
        false
    }
}

#[test]
fn a_search_goes_only_where_something_may_be_found() {
    let web = Web::new();
    let search = |pattern: &str, wanted: usize| {
        let (steps, mut found) = (Steps::new(FEW), 0);
        let pattern = Pattern::new(pattern.as_bytes(), false);
        let search = Search { pattern: &pattern, all: false, otherwise: None };
        find(&web.vault, &[&web.deep, &web.other], &search, 1, &steps, &mut |_| {
            found += 1;
            found < wanted
        })
        .unwrap();
        (found, steps.asked.into_inner())
    };
    for pattern in ["nothing", "x/deep.txt", "a/x/**/deep.txt", "/a/**/deep.txt", "/source/b/**/a/x*/deep.txt", "x/**"]
    {
        assert_eq!(search(pattern, 1).0, 0, "{pattern}");
    }
    // One path of that name, and the two folders at each level.
    let way = ["a", "b"].repeat(20).join("/");
    assert_eq!(search(&format!("/source/{way}/deep.txt"), usize::MAX).0, 1);
    let all_in_a = ["a"; LEVELS as usize].join("/");
    assert_eq!(search(&format!("{all_in_a}/*.txt"), usize::MAX).0, 1);
    // As many as are wanted, and not many more folders than these.
    assert_eq!(search("deep.txt", 100).0, 100);
    assert_eq!(search("source/**/b/deep.txt", 100).0, 100);
}

#[test]
fn a_drill_chooses_by_what_folders_weigh() {
    let web = Web::new();
    let scratch = web.desk.path("scratch");
    fs::create_dir(&scratch).unwrap();
    let mut options = DrillOptions::new(scratch, 5);
    options.files = 7;
    options.len_max = 1 << 20;
    let steps = Steps::new(FEW);
    let report = drill(&web.vault, &[&web.deep], &options, &steps).unwrap();
    assert_eq!((report.files, report.verified, report.failed.len()), (7, 7, 0));
    // If a snapshot has fewer files, all of them are tried.
    let steps = Steps::new(FEW);
    let plain = drill(&web.vault, &[&web.plain], &options, &steps).unwrap();
    assert_eq!((plain.files, plain.failed.len()), (3, 0));
}

#[test]
fn folders_are_compared_once() {
    let web = Web::new();
    // The two at the bottom differ, but nothing in them counts as a difference.
    let mut none = |difference: Difference| panic!("{difference:?}");
    let (sums, _) = web.compare(&web.deep, &web.later, &mut none);
    assert!(sums.is_nothing());
    // Enough to know how much differs.
    let (sums, _) = web.compare(&web.deep, &web.other, &mut Counter);
    assert_eq!((sums.changed, sums.added, sums.removed, sums.metadata, sums.kind), (PATHS, 0, 0, 0, 0));
    let size = |name: &str| find_entry(&web.vault, &web.plain, name.as_bytes()).unwrap().size;
    assert_eq!(sums.bytes_old, size("source/one") << LEVELS);
    assert_eq!(sums.bytes_new, size("source/two") << LEVELS);
    let (sums, _) = web.compare(&web.plain, &web.deep, &mut Counter);
    let below = 2 * (PATHS - 1) + PATHS;
    assert_eq!((sums.added, sums.removed), (below, 3));
    // A visitor who wants to see them gets each one, and can end the walk.
    let mut seen = Vec::new();
    let mut first = |difference: Difference| {
        seen.push(difference.path);
        seen.len() < 100
    };
    web.compare(&web.deep, &web.other, &mut first);
    assert!(seen.len() == 100 && seen.is_sorted() && seen[0].ends_with(b"a/a/deep.txt"), "{seen:?}");
}

#[test]
fn sizes_are_added_up_once() {
    let web = Web::new();
    let of = |depth: u32| usage(&web.vault, &web.deep.body.tree, b"", depth, 1, &Steps::new(u64::MAX));
    let sums = of(3).unwrap();
    assert_eq!((sums.total.files, sums.total.folders, sums.lines.len()), (PATHS, 1 + 2 * (PATHS - 1), 1 + 2 + 4));
    assert_eq!(sums.lines[1].usage.files, PATHS / 2);
    let error = of(60).unwrap_err();
    assert!(matches!(&error, IndexError::TooMany { path } if path == "the snapshot"), "{error}");
    // The same for data that is new since a snapshot.
    let mut news = News::new(b"", 3);
    web.compare(&web.plain, &web.deep, &mut news);
    let news = news.finish().unwrap();
    let plain = |lines: &[vault::engine::query::usage::Line]| -> Vec<(Vec<u8>, u64, u64)> {
        lines.iter().map(|line| (line.path.clone(), line.usage.files, line.usage.folders)).collect()
    };
    assert_eq!(news.total.files, PATHS);
    let mut found = plain(&news.lines);
    found.sort();
    let mut expected = plain(&sums.lines);
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn what_goes_is_found_out_once_for_what_counts_of_a_path() {
    let web = Web::new();
    let look = |patterns: &[&str]| {
        let exclude = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let change = Change { exclude, ..Change::default() };
        let plan = plan(&web.vault, std::slice::from_ref(&web.deep), &change, 1, &Steps::new(10 * FEW)).unwrap();
        assert!(plan.trees.looked_into < FEW, "{patterns:?}: {}", plan.trees.looked_into);
        plan
    };
    for patterns in [
        &["nothing"][..],
        &["x/deep.txt", "*.o", "/b/x"],
        &["a/**/x/deep.txt", "**/x/b", ":(icase)**/A/*/Xb/**"],
        &["/*/*/x*/**/deep.txt"],
    ] {
        let plan = look(patterns);
        assert!(plan.changes.is_empty() && plan.unread.is_empty(), "{patterns:?}");
    }
    // The second of each two folders is taken out; the rest has forty levels, and one path to the bottom.
    let plan = look(&["b"]);
    let thinned = plan.changes[0].thinned.as_ref().unwrap();
    assert_eq!((thinned.count, thinned.sum.files), (u64::from(LEVELS), PATHS - 1));
    let plan = look(&["a/b/**/a/deep.txt", "!a/a/**"]);
    assert_eq!(plan.unread.len(), 1);
    // More would be taken out than can be listed: nothing is, and the message says where.
    let plan = look(&["deep.txt"]);
    assert!(plan.changes.is_empty());
    let (_, unread) = &plan.unread[0];
    assert_eq!((unread.why, unread.path.len()), (Why::TooLong, 0));
    let first = format!("{PATHS} things in it would go, the first is source/a/a/a");
    assert!(unread.what.starts_with(&first), "{}", unread.what);
    let told = web.desk.run(&["rewrite", "--exclude", "deep.txt", "--yes", &Web::name(&web.deep)]);
    assert_eq!(told.code, 3, "{}{}", told.out, told.err);
    assert!(told.out.contains("it is too much to list"), "{}", told.out);
    web.desk.ok(&["rewrite", "--exclude", "b", "--yes", &Web::name(&web.deep)]);
    let left = web.desk.ok(&["ls", "-R", &Web::name(&web.deep)]);
    assert_eq!(left.lines().count(), LEVELS as usize + 2, "{left}");
}

#[test]
fn what_prints_or_writes_all_paths_can_be_stopped() {
    let web = Web::new();
    let mut out = Vec::new();
    let steps = Steps::new(FEW);
    let ended = vault::engine::archive::export::export(&web.vault, &web.deep, b"", &mut out, &steps);
    assert!(matches!(ended, Err(BrowseError::Interrupted)));
    let options = |to: &str, include: &[&str]| {
        let mut options = RestoreOptions::new(web.deep.id, Target::Folder(web.desk.path(to)));
        options.include = include.iter().map(|&pattern| pattern.to_owned()).collect();
        options.threads = 1;
        options
    };
    let ended = restore(&web.vault, &options("all", &[]), &Steps::new(FEW));
    assert!(matches!(ended, Err(RestoreError::Interrupted)));
    // Files to restore are searched only where they may be.
    for pattern in ["nothing", "/source/a/x/**/deep.txt", "b/x*/deep.txt"] {
        let ended = restore(&web.vault, &options("out", &[pattern]), &Steps::new(10 * FEW));
        assert!(matches!(ended, Err(RestoreError::NothingSelected { .. })), "{pattern}");
    }
    let way = format!("/source/{}/deep.txt", ["b"; LEVELS as usize].join("/"));
    let done = restore(&web.vault, &options("out", &[&way]), &Steps::new(10 * FEW)).unwrap();
    assert_eq!(done.files, 1);
    assert_eq!(fs::read(web.desk.path("out").join(&way[1..])).unwrap(), b"the one");
    // Ctrl-C ends endless printing.
    for args in [&["ls", "-R"][..], &["find", "deep.txt"], &["diff", "2026-01-01"], &["export", "--tar", "-"]] {
        let mut command = web.desk.command(&[args, &[&Web::name(&web.deep)]].concat());
        if args[0] == "find" {
            command = web.desk.command(args);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut printed = child.stdout.take().unwrap();
        let mut start = vec![0; 64 << 10];
        io::Read::read_exact(&mut printed, &mut start).unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        // The output must be read, so that the program can end.
        let rest = std::thread::spawn(move || io::copy(&mut printed, &mut io::sink()));
        assert_eq!(child.wait().unwrap().code(), Some(130), "{args:?}");
        rest.join().unwrap().unwrap();
    }
}

#[test]
fn every_other_command_looks_at_each_folder_once() {
    let web = Web::new();
    let deep = Web::name(&web.deep);
    let run = |args: &[&str]| {
        let child = web.desk.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let waits = std::thread::spawn(move || said(&child.wait_with_output().unwrap()));
        let start = Instant::now();
        while !waits.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            if start.elapsed() > Duration::from_secs(120) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
                panic!("{args:?} does not end");
            }
        }
        waits.join().unwrap()
    };
    let (later, other) = (Web::name(&web.later), Web::name(&web.other));
    let at_the_bottom = format!("source/{}/deep.txt", ["a"; LEVELS as usize].join("/"));
    for (args, code) in [
        (&["history", &at_the_bottom][..], 0),
        (&["find", "x/deep.txt"], 0),
        (&["diff", &deep, &later], 0),
        (&["diff", "-s", &deep, &other], 0),
        (&["du", &deep, "--depth", "3"], 0),
        (&["du", &deep, "--since", &later], 0),
        (&["drill", "--files", "3"], 0),
        (&["rewrite", "-n", "--exclude", "x/deep.txt"], 0),
        (&["ls", "--digest", &deep], 0),
        (&["stats"], 0),
        (&["check", "--read-data"], 0),
        (&["prune", "--keep", "9"], 0),
        (&["repair", "--dry-run"], 0),
    ] {
        let told = run(args);
        assert_eq!(told.code, code, "{args:?}: {}{}", told.out, told.err);
    }
    let place = web.desk.path("copies");
    let place = place.to_str().unwrap();
    web.desk.ok(&["init", "--repo", place]);
    assert_eq!(run(&["copy", "--to", place]).code, 0);
    let copied = web.desk.ok(&["cat", "--repo", place, &format!("{}:{at_the_bottom}", "2026-08-29")]);
    assert_eq!(copied, "the one");
    // The file at the bottom is lost, at each of its paths.
    web.contents.iter().for_each(|path| fs::remove_file(path).unwrap());
    let told = run(&["check", "--json"]);
    assert_eq!(told.code, 4, "{}{}", told.out, told.err);
    let told: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    let hurt = told["hurt"].as_array().unwrap().iter().find(|hurt| hurt["snapshot"] == deep.as_str()).unwrap();
    assert_eq!((hurt["count"].as_u64(), hurt["paths"].as_array().unwrap().len()), (Some(PATHS), 100), "{hurt}");
}

/// The page answers with the first paths, and with their number.
#[cfg(feature = "ui")]
#[test]
fn the_page_answers() {
    let web = Web::new();
    let page = crate::ui::Page::attempt_to_enter(&web.desk, &["ui", "--no-open", "--read-only"]);
    let page = page.unwrap_or_else(|said| panic!("{}", said.err));
    assert_eq!(page.told("find?pattern=x/deep.txt")["matches"].as_array().unwrap().len(), 0);
    let found = page.told("find?pattern=deep.txt&count=5");
    assert_eq!((found["matches"].as_array().unwrap().len(), &found["more"]), (5, &true.into()));
    let (old, new) = (Web::name(&web.deep), Web::name(&web.other));
    let told = page.told(&format!("diff?old={old}&new={new}&count=5"));
    let counted = &told["summary"]["changed"];
    assert_eq!((told["differences"].as_array().unwrap().len(), counted.as_u64()), (5, Some(PATHS)), "{told}");
    assert_eq!(page.end().0, 0);
}

/// Looking at one path of a mount reads only the folders on it.
#[cfg(target_os = "linux")]
#[test]
fn a_mount_shows_each_path() {
    if !crate::mount::can_mount() {
        return;
    }
    let web = Web::new();
    let at = web.desk.path("mnt");
    fs::create_dir(&at).unwrap();
    let command = web.desk.command(&["mount", at.to_str().unwrap()]);
    let mut mount = crate::mount::Mount::attempt(command, &at).unwrap_or_else(|said| panic!("{}", said.err));
    let snapshot = at.join("all").join(web.deep.id.short()).join("source");
    for names in [["a", "b"], ["b", "b"]] {
        let bottom = snapshot.join(names.join("/")).join(["a"; LEVELS as usize - 2].join("/"));
        assert_eq!(fs::read(bottom.join("deep.txt")).unwrap(), b"the one");
    }
    assert_eq!(mount.end(rustix::process::Signal::INT).0, 0);
}
