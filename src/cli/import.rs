//! `vault import`.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Stdio;
use std::time::UNIX_EPOCH;

use crate::engine::archive::import::ImportError;
use crate::engine::archive::import::ImportOptions;
use crate::engine::archive::import::import;
use crate::engine::patterns::exclude::ExcludeOptions;
use crate::engine::snapshot::Empty;
use crate::engine::snapshot::Input;
use crate::engine::snapshot::SnapshotError;
use crate::engine::snapshot::SnapshotOptions;
use crate::engine::snapshot::SnapshotReport;
use crate::engine::snapshot::presence::holds_nothing;
use crate::path::Shown;
use crate::progress::Progress;
use crate::tree::Time;
use crate::tree::Verdict;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;
use crate::vault::VaultError;
use serde::Serialize;

use crate::cli::args::ImportArgs;
use crate::cli::context::Context;
use crate::cli::context::current_folder;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::chain;
use crate::cli::local;
use crate::cli::machine;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::roots;
use crate::cli::units;
use crate::json;
use crate::json::Name;
use crate::json::SnapshotJson;

/// An archive or folder to import.
struct Item {
    path: PathBuf,
    source: String,
    time: Time,
    /// The name of the root for a copy of a folder; `None` for an archive.
    root: Option<Vec<u8>>,
    /// The meaning of an empty one.
    empty: Empty,
}

/// The result for an item.
enum Became {
    Taken(Box<SnapshotReport>),
    /// The item was imported before, as the snapshot with this id.
    There(String),
    /// The item would be imported, but this is a dry run.
    Would,
    Failed(Failure),
}

#[derive(Serialize)]
struct ItemJson<'a> {
    path: Name<'a>,
    source: &'a str,
    #[serde(serialize_with = "json::exact")]
    time: Time,
    /// `imported`, `there`, `would` or `failed`.
    became: &'static str,
    snapshot: Option<SnapshotJson<'a>>,
    /// The snapshot as which the item was imported before.
    there: Option<&'a str>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct PassedJson<'a> {
    path: Name<'a>,
    why: &'static str,
}

#[derive(Serialize)]
struct ImportJson<'a> {
    dry_run: bool,
    items: Vec<ItemJson<'a>>,
    /// Folders without a date in their names.
    passed_over: Vec<PassedJson<'a>>,
}

/// Runs `vault import`.
pub(super) fn run(context: &Context, args: &ImportArgs) -> Result<Exit, Failure> {
    let (mut items, passed) = match &args.dirs {
        Some(folder) => copies(context, args, folder)?,
        None => (archives(context, args)?, Vec::new()),
    };
    items.sort_by(|a, b| (a.time, &a.path).cmp(&(b.time, &b.path)));
    refuse_doubles(&items, context)?;
    let (vault, _) = context.open()?;
    expect_content(&vault, &mut items);
    context.screen.watch_interrupts();
    let mut became = Vec::new();
    for item in &items {
        let there =
            vault.snapshots().into_iter().find(|info| info.body.source == item.source && info.body.time == item.time);
        let result = match there {
            Some(info) => Became::There(info.id.to_string()),
            None if args.dry_run => Became::Would,
            None => match take(context, args, &vault, item) {
                Ok(report) => Became::Taken(Box::new(report)),
                Err(failure) if failure.exit == Exit::Interrupted => {
                    return Err(failure.hint("What was imported stays. The same command goes on from there."));
                }
                Err(failure) => Became::Failed(failure),
            },
        };
        context.screen.clear();
        if !context.global.json {
            tell(context, item, &result)?;
        }
        became.push(result);
    }
    for path in &passed {
        context.screen.warn(&format!("{}: its name has no date, so it is passed over", path.display()));
    }
    finish(context, args, &items, &became, &passed)
}

/// The archives that were named, or are in named folders.
fn archives(context: &Context, args: &ImportArgs) -> Result<Vec<Item>, Failure> {
    let mut items = Vec::new();
    for path in &args.tar {
        // The name of an archive may contain a time of day with colons, so only a missing file is checked for being an
        // address.
        if path.symlink_metadata().is_err() {
            local::refuse_remote(path, "an archive")?;
        }
        let failed = |error: io::Error| Failure::caused(format!("cannot read {}", path.display()), &error);
        if fs::metadata(path).map_err(failed)?.is_dir() {
            let before = items.len();
            for entry in crate::folder::entries(path).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if path.is_file() && stem(&name_of(&path)).is_some() {
                    items.push(archive(context, args, path)?);
                }
            }
            if items.len() == before {
                return Err(Failure::new(format!("there is no tar archive in {}", path.display()))
                    .hint("Archives are known by their names: .tar, .tar.gz, .tgz, .tar.zst, .tar.xz, .tar.bz2"));
            }
        } else {
            items.push(archive(context, args, path.clone())?);
        }
    }
    Ok(items)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The name of an archive without its extension; `None` if it has no extension of archives.
fn stem(name: &str) -> Option<&str> {
    const ENDINGS: &[&str] =
        &[".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz"];
    let lower = name.to_ascii_lowercase();
    let ending = ENDINGS.iter().filter(|ending| lower.ends_with(*ending)).max_by_key(|ending| ending.len())?;
    name.get(..name.len() - ending.len())
}

fn archive(context: &Context, args: &ImportArgs, path: PathBuf) -> Result<Item, Failure> {
    let name = name_of(&path);
    let stem = stem(&name).unwrap_or(&name);
    let (time, bare) = if let Some((time, range)) = dates::in_name(stem, &context.zone) {
        (time, format!("{}{}", &stem[..range.start], &stem[range.end..]))
    } else {
        let failed = |error: io::Error| Failure::caused(format!("cannot read {}", path.display()), &error);
        let changed = fs::metadata(&path).and_then(|meta| meta.modified()).map_err(failed)?;
        let since = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
        // A file's modification time may be wrong, but its content cannot be from the future.
        (dates::from_secs(since.as_secs()).min(dates::now()), stem.to_owned())
    };
    let bare = bare.trim_matches(|c: char| !c.is_alphanumeric());
    let source = if bare.is_empty() { "import" } else { bare };
    Ok(Item {
        source: args.source.clone().unwrap_or_else(|| source.to_owned()),
        path,
        time,
        root: None,
        empty: Empty::Accepted,
    })
}

/// The dated copies in a folder, and the folders in it that have no date.
fn copies(context: &Context, args: &ImportArgs, folder: &Path) -> Result<(Vec<Item>, Vec<PathBuf>), Failure> {
    let folder = roots::absolute(&current_folder()?, folder);
    let failed = |error: io::Error| Failure::caused(format!("cannot read {}", folder.display()), &error);
    let name = folder.file_name().map_or_else(|| b"root".to_vec(), roots::bytes_of);
    let source = args.source.clone().unwrap_or_else(|| Shown(&name).to_string());
    let (mut items, mut passed) = (Vec::new(), Vec::new());
    for entry in crate::folder::entries(&folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // A link, such as `latest`, is another name of one of the copies.
        if !entry.file_type().map_err(failed)?.is_dir() {
            continue;
        }
        match dates::in_name(&name_of(&entry.path()), &context.zone) {
            Some((time, _)) => {
                let (path, source, root) = (entry.path(), source.clone(), Some(name.clone()));
                items.push(Item { path, source, time, root, empty: Empty::IfItWasFull });
            }
            None => passed.push(entry.path()),
        }
    }
    if items.is_empty() {
        return Err(Failure::new(format!("there is no folder with a date in its name in {}", folder.display()))
            .hint("Dates are understood like 2024-05-31, 20240531 and 2024-05-31_12-30-00."));
    }
    passed.sort();
    Ok((items, passed))
}

/// Where any of the copies of a folder holds something, or an earlier snapshot of it does, an empty copy is one whose disk was not
/// mounted, or that failed.
fn expect_content(vault: &Vault, items: &mut [Item]) {
    let host = &vault.identity().host;
    let before = vault.snapshots();
    let is_full = |item: &Item| {
        let is_same = |info: &SnapshotInfo| info.body.source == item.source && info.body.host == *host;
        !holds_nothing(&item.path, false) || before.iter().any(|info| is_same(info) && info.body.files > 0)
    };
    let mut copies: Vec<&mut Item> = items.iter_mut().filter(|item| item.root.is_some()).collect();
    if copies.iter().any(|item| is_full(item)) {
        copies.iter_mut().for_each(|item| item.empty = Empty::IsLost);
    }
}

/// Refuses two items with the same source and date, because only one of them could be imported.
fn refuse_doubles(items: &[Item], context: &Context) -> Result<(), Failure> {
    let mut seen: BTreeMap<(Time, &str), &Path> = BTreeMap::new();
    for item in items {
        if let Some(other) = seen.insert((item.time, &item.source), &item.path) {
            let date = dates::shown(item.time, &context.zone);
            let what = format!("{} and {} are both {} of {date}", other.display(), item.path.display(), item.source);
            return Err(Failure::new(what).hint("Import them one after the other, each with another --source NAME."));
        }
    }
    Ok(())
}

fn take(context: &Context, args: &ImportArgs, vault: &Vault, item: &Item) -> Result<SnapshotReport, Failure> {
    let description = format!("imported from {}", Shown(&roots::bytes_of(item.path.as_os_str())));
    let mut tags = args.tag.clone();
    tags.sort();
    tags.dedup();
    let (source, time, clock, level) = (item.source.clone(), item.time, &dates::now, args.level);
    let (threads, others) = (context.threads(), context.verify_others(args.verify_others));
    if let Some(name) = &item.root {
        let input = Input::Path { name: name.clone(), path: item.path.clone(), only: None };
        let options = SnapshotOptions {
            source,
            inputs: vec![input],
            time,
            given: true,
            clock,
            tags,
            description,
            exclude: ExcludeOptions::default(),
            skip_if_unchanged: false,
            empty: item.empty,
            dry_run: false,
            level,
            verify: true,
            others,
            read_all: false,
            read_special: false,
            threads,
        };
        return Ok(crate::engine::snapshot::snapshot(vault, options, &context.screen)?);
    }
    let strip = args.strip_components;
    let options = ImportOptions { source, time, clock, tags, description, strip, level, verify: true, others, threads };
    let mut input = open(&item.path)?;
    import(vault, input.as_mut(), &options, &context.screen).map_err(|error| match error {
        ImportError::Snapshot(SnapshotError::Interrupted | SnapshotError::Vault(VaultError::Interrupted)) => {
            Failure::interrupted()
        }
        ImportError::Snapshot(error) => error.into(),
        error => Failure::new(chain(&error)),
    })
}

/// Opens an archive for reading, decompressed.
fn open(path: &Path) -> Result<Box<dyn Read + Send>, Failure> {
    let failed = |error: io::Error| Failure::caused("it cannot be read", &error);
    let mut file = File::open(path).map_err(failed)?;
    let mut start = Vec::new();
    file.by_ref().take(6).read_to_end(&mut start).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let program = match start.as_slice() {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::new(file).map_err(failed)?;
            decoder.window_log_max(31).map_err(failed)?;
            return Ok(Box::new(decoder));
        }
        [0x1f, 0x8b, ..] => "gzip",
        [b'B', b'Z', b'h', ..] => "bzip2",
        [0xfd, b'7', b'z', b'X', b'Z', 0] => "xz",
        _ => return Ok(Box::new(io::BufReader::with_capacity(1 << 20, file))),
    };
    let spawned =
        machine::program(program).arg("-dc").stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = spawned.map_err(|error| {
        Failure::caused(format!("it is compressed, and the program {program} cannot be started"), &error)
            .hint(format!("Install {program}, or unpack the archive first."))
    })?;
    Ok(Box::new(Unpacked { child, program }))
}

/// The output of a decompression program. If the program fails, so does the reading, because half an archive is
/// useless.
struct Unpacked {
    child: Child,
    program: &'static str,
}

impl Read for Unpacked {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.child.stdout.as_mut().map_or(Ok(0), |stdout| stdout.read(out))?;
        if got > 0 || out.is_empty() {
            return Ok(got);
        }
        let status = self.child.wait()?;
        if status.success() {
            return Ok(0);
        }
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.as_mut() {
            stderr.take(1000).read_to_string(&mut said)?;
        }
        Err(io::Error::other(format!("{} failed: {}", self.program, Shown(said.trim().as_bytes()))))
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // The program may still be writing to a reader that has stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tell(context: &Context, item: &Item, became: &Became) -> Result<(), Failure> {
    let mut out = Output::new();
    let date = dates::shown(item.time, &context.zone);
    let path = Shown(&roots::bytes_of(item.path.as_os_str())).to_string();
    let source = Shown(item.source.as_bytes());
    match became {
        Became::Failed(failure) => {
            out.styled(Style::Warning, &format!("{date}  {path}: {}", failure.what))?;
            failure.hint.iter().try_for_each(|hint| out.line(format_args!("  {hint}")))?;
        }
        _ if context.global.quiet => {}
        Became::There(id) => out.say(format_args!("{date}  {path}: it is there already, as {}", &id[..8]))?,
        Became::Would => out.say(format_args!("{date}  {path}: would become a snapshot of {source}"))?,
        Became::Taken(report) => {
            let id = report.id.map(|id| id.short()).unwrap_or_default();
            let body = &report.snapshot;
            let (files, stored) = (units::counted(body.files, "file", "files"), units::size(body.bytes_stored));
            out.say(format_args!("{date}  {path}: snapshot {id} of {source}, {files}, stored {stored}"))?;
            if body.skipped > 0 {
                let many = units::counted(body.skipped, "thing", "things");
                out.styled(Style::Warning, &format!("  not saved as it should be: {many} (vault ls --skipped {id})"))?;
            }
        }
    }
    out.finish()
}

fn finish(
    context: &Context,
    args: &ImportArgs,
    items: &[Item],
    became: &[Became],
    passed: &[PathBuf],
) -> Result<Exit, Failure> {
    let paths: Vec<Vec<u8>> = items.iter().map(|item| roots::bytes_of(item.path.as_os_str())).collect();
    let passed_paths: Vec<Vec<u8>> = passed.iter().map(|path| roots::bytes_of(path.as_os_str())).collect();
    if context.global.json {
        let mut out = Output::new();
        let items = items.iter().zip(&paths).zip(became).map(|((item, path), became)| {
            let (word, snapshot, there, error) = match became {
                Became::Taken(report) => ("imported", Some(SnapshotJson::new(report.id, &report.snapshot)), None, None),
                Became::There(id) => ("there", None, Some(id.as_str()), None),
                Became::Would => ("would", None, None, None),
                Became::Failed(failure) => ("failed", None, None, Some(failure.what.as_str())),
            };
            let (source, time) = (item.source.as_str(), item.time);
            ItemJson { path: Name(path), source, time, became: word, snapshot, there, error }
        });
        let passed_over = passed_paths.iter().map(|path| PassedJson { path: Name(path), why: "no date in its name" });
        out.json(&ImportJson { dry_run: args.dry_run, items: items.collect(), passed_over: passed_over.collect() })?;
        out.finish()?;
    }
    let failed = became.iter().filter(|became| matches!(became, Became::Failed(_))).count();
    let partial = became
        .iter()
        .any(|became| matches!(became, Became::Taken(report) if report.snapshot.verdict == Verdict::Partial));
    Ok(match failed {
        0 if passed.is_empty() && !partial => Exit::Done,
        all if all == became.len() => Exit::Failed,
        _ => Exit::Skipped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_endings() {
        for (name, expected) in [
            ("a-2024-05-31.tar", Some("a-2024-05-31")),
            ("A.TAR.GZ", Some("A")),
            ("b.tgz", Some("b")),
            ("c.tar.zst", Some("c")),
            ("d.txt", None),
            ("tar", None),
        ] {
            assert_eq!(stem(name), expected, "{name}");
        }
    }
}
