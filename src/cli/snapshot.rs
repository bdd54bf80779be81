//! `vault snapshot`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Stdio;
use std::time::Duration;

use crate::engine::patterns::exclude::ExcludeOptions;
use crate::engine::patterns::exclude::check;
use crate::engine::patterns::gitignore::ANY_CASE;
use crate::engine::prune::{OwnRetirement, retire_self};
use crate::engine::snapshot::Empty;
use crate::engine::snapshot::Input;
use crate::engine::snapshot::SnapshotOptions;
use crate::engine::snapshot::SnapshotReport;
use crate::path::Shown;
use crate::path::check_name;
use crate::progress::Progress;
use crate::progress::plain;
use crate::tree::Verdict;
use crate::vault::Vault;
use serde::Serialize;

use crate::cli::args::ExcludeArgs;
use crate::cli::args::SnapshotArgs;
use crate::cli::context::Context;
use crate::cli::context::current_folder;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::init;
use crate::cli::init::Created;
use crate::cli::init::CreatedJson;
use crate::cli::key;
use crate::cli::machine::shell;
use crate::cli::note;
use crate::cli::offer;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::roots;
use crate::cli::units;
use crate::cli::usual;
use crate::json::Name;
use crate::json::SkippedJson;
use crate::json::SnapshotJson;
use crate::service::ahead::count_beside;
use crate::service::ahead::is_first;
use crate::service::sources;
use crate::service::sources::absolute;
use crate::service::sources::existing;
use crate::service::sources::refuse_special;
use crate::service::sources::shown;
use crate::service::sources::special_kind;
use crate::service::sources::text_of;

/// The reason for what `-x` leaves out.
const ELSEWHERE: &str = "another file system";
/// The number of skipped files shown.
const SKIPPED_SHOWN: usize = 20;

/// Runs `vault snapshot`.
pub(super) fn run(context: &Context, args: &SnapshotArgs) -> Result<Exit, Failure> {
    // All mistakes in the command line are found before a password is asked for.
    let exclude = exclude_options(context, &args.exclude)?;
    let sources = Sources::from_args(args)?;
    let mut out = Output::new();
    let (vault, created) = open(context, args, &mut out)?;
    context.screen.watch_interrupts();
    let source = source_name(context, args, &sources)?;
    // A list of files already gives their number, and input from elsewhere cannot be counted.
    let counted = sources.roots.iter().filter(|_| sources.is_plain());
    let roots: Vec<PathBuf> = counted.map(|root| root.path.clone()).collect();
    let options = SnapshotOptions {
        source,
        inputs: sources.into_inputs(args)?,
        time: args.time.unwrap_or_else(dates::now),
        given: args.time.is_some(),
        clock: &dates::now,
        tags: sorted(&args.tag),
        description: args.description.clone().unwrap_or_default(),
        exclude,
        skip_if_unchanged: args.skip_if_unchanged,
        empty: if args.allow_empty { Empty::Accepted } else { Empty::IfItWasFull },
        dry_run: args.dry_run,
        level: args.level,
        verify: !args.no_verify,
        others: context.verify_others(args.verify_others),
        read_all: args.read_all,
        read_special: args.read_special,
        threads: context.threads(),
    };
    let exclude = options.exclude.clone();
    let counts = context.screen.draws() && is_first(&vault, &options.source);
    let report = count_beside(context.screen.counters(), counts, &roots, &exclude, || {
        crate::engine::snapshot::snapshot(&vault, options, &context.screen)
    });
    context.screen.clear();
    let report = report?;
    offer::note_snapshots(&vault, &vault.snapshots(), &context.zone);
    if args.retire_after_run && !args.dry_run {
        retire(context, &vault)?;
    }
    let exit = if report.snapshot.verdict == Verdict::Partial { Exit::Skipped } else { Exit::Done };
    let told = if context.global.json {
        out.json(&json(&report, args.dry_run, created.as_ref()))
    } else {
        tell(context, args, &report, &mut out)
    };
    // The snapshot is taken whether or not somebody reads the output, so the exit code stays.
    let told = told.and_then(|()| match &created {
        Some(created) if context.global.json => created.handed_out(&mut out),
        _ => out.flush(),
    });
    key::settle(context, &vault);
    match (told, &created) {
        // The JSON output contained a recovery key, and it could not be printed.
        (Err(failure), Some(created)) if context.global.json && created.has_recovery_key() => {
            Err(created.take_back_recorded(&vault, context, failure))
        }
        (Err(failure), _) if failure.exit != Exit::Done => Err(failure),
        _ => Ok(exit),
    }
}

/// Opens the vault. With `--init` it is made, and shown, if there is none.
fn open(context: &Context, args: &SnapshotArgs, out: &mut Output) -> Result<(Vault, Option<Created>), Failure> {
    let chosen = context.chosen()?;
    if !args.init || context.has_vault(&chosen.place)? && !init::is_begun(context, &chosen.place)? {
        return Ok((context.open_chosen(&chosen, args.host.as_deref(), &context.screen)?.0, None));
    }
    let created = init::create(context, &args.new)?;
    if !context.global.json {
        init::tell(context, &created, out)?;
        out.flush()?;
    }
    let vault = context.open_with(created.store.clone(), &created.password, args.host.as_deref())?;
    Ok((vault, Some(created)))
}

/// Retires the client that took the snapshot.
fn retire(context: &Context, vault: &Vault) -> Result<(), Failure> {
    match retire_self(vault, dates::now(), &context.screen)? {
        OwnRetirement::Done => {}
        OwnRetirement::Busy => context.screen.warn("this client is not retired: other work of it is under way"),
        OwnRetirement::Last => context.screen.warn(
            "this client is not retired: it is the only one of a vault in a synced folder, and another must stay",
        ),
    }
    Ok(())
}

/// The `--json` output.
fn json<'a>(report: &'a SnapshotReport, dry_run: bool, created: Option<&Created>) -> ReportJson<'a> {
    let left_out = report.left_out.first.iter();
    ReportJson {
        snapshot: (report.id.is_some() || dry_run).then(|| SnapshotJson::new(report.id, &report.snapshot)),
        dry_run,
        unchanged: report.same.is_some(),
        skipped: report.skipped.iter().map(SkippedJson::from).collect(),
        left_out: left_out.map(|path| LeftOutJson { path: Name(path), why: ELSEWHERE }).collect(),
        init: created.map(CreatedJson::from),
    }
}

/// The name of the source: the given one; or the name of the configured source with exactly these paths; or the paths.
fn source_name(context: &Context, args: &SnapshotArgs, sources: &Sources) -> Result<String, Failure> {
    if let Some(name) = &args.source {
        return Ok(name.clone());
    }
    let paths: BTreeSet<&Path> = sources.roots.iter().map(|root| root.path.as_path()).collect();
    let config = context.config()?.filter(|_| sources.is_plain());
    let same = config
        .into_iter()
        .flat_map(|config| &config.sources)
        .find(|source| source.paths.iter().map(PathBuf::as_path).collect::<BTreeSet<_>>() == paths);
    let Some(same) = same else { return Ok(sources.default_name.clone()) };
    if !context.global.quiet && !context.global.json {
        note(&format!("This is the source {} of the configuration.", Shown(same.name.as_bytes())));
    }
    Ok(same.name.clone())
}

#[derive(Serialize)]
struct ReportJson<'a> {
    snapshot: Option<SnapshotJson<'a>>,
    dry_run: bool,
    unchanged: bool,
    skipped: Vec<SkippedJson<'a>>,
    left_out: Vec<LeftOutJson<'a>>,
    init: Option<CreatedJson>,
}

/// A folder whose content was excluded.
#[derive(Serialize)]
struct LeftOutJson<'a> {
    path: Name<'a>,
    why: &'static str,
}

fn sorted(tags: &[String]) -> Vec<String> {
    let mut tags = tags.to_vec();
    tags.sort();
    tags.dedup();
    tags
}

/// The files to be saved, checked but not yet opened.
struct Sources {
    roots: Vec<roots::NamedRoot>,
    /// Pipes and devices, which are read to their end.
    special: Vec<roots::NamedRoot>,
    group: Option<(Vec<u8>, roots::Group)>,
    stdin: Option<Vec<u8>>,
    default_name: String,
}

impl Sources {
    fn from_args(args: &SnapshotArgs) -> Result<Self, Failure> {
        let current = current_folder()?;
        let mut taken = BTreeSet::new();
        let paths = args.paths.iter().map(|path| existing(&current, path)).collect::<Result<Vec<_>, _>>()?;
        for path in paths.iter().filter(|_| !args.read_special) {
            refuse_special(path)?;
        }
        let roots = roots::name_roots(&paths, &mut taken);
        let mut names: Vec<String> = roots.iter().map(|root| shown(&root.path)).collect();
        let mut group = None;
        if let Some(file) = &args.files_from {
            let bytes = read_list(file)?;
            // Names separated by zero bytes are taken as they are.
            let bytes = if args.from0 { &bytes[..] } else { text_of(file, &bytes)? };
            let list = roots::split_list(bytes, args.from0);
            let list = list.iter().map(|path| absolute(&current, path)).collect::<Result<Vec<_>, _>>()?;
            let Some(found) = roots::group(&list) else {
                return Err(Failure::new(format!("the list {} names no files", file.display())));
            };
            names.push(shown(&found.folder));
            let root = roots::name_roots(std::slice::from_ref(&found.folder), &mut taken);
            group = root.into_iter().next().map(|root| (root.name, found));
        }
        let stdin = args.stdin.as_deref().map(roots::bytes_of);
        if let Some(name) = &stdin {
            check_name(name).map_err(|error| Failure::usage(format!("--stdin {}: {error}", Shown(name))))?;
            if !taken.insert(name.clone()) {
                return Err(Failure::usage(format!("--stdin {}: a path has this name already", Shown(name))));
            }
            names.push(Shown(name).to_string());
        }
        let is_special = |root: &roots::NamedRoot| special_kind(&root.path).is_some();
        let (special, roots) = roots.into_iter().partition(is_special);
        Ok(Self { roots, special, group, stdin, default_name: names.join(", ") })
    }

    /// Whether there is nothing but paths of the command line.
    fn is_plain(&self) -> bool {
        self.group.is_none() && self.stdin.is_none() && self.special.is_empty()
    }

    /// Starts the command, if there is one, and opens pipes and devices.
    fn into_inputs(self, args: &SnapshotArgs) -> Result<Vec<Input>, Failure> {
        let may_be_empty = args.allow_empty;
        let path = |root: roots::NamedRoot| Input::Path { name: root.name, path: root.path, only: None };
        let mut inputs: Vec<Input> = self.roots.into_iter().map(path).collect();
        if let Some((name, group)) = self.group {
            inputs.push(Input::Path { name, path: group.folder, only: group.only });
        }
        for roots::NamedRoot { name, path } in self.special {
            let opened = fs::File::open(&path);
            let file = opened.map_err(|error| Failure::caused(format!("cannot read {}", shown(&path)), &error))?;
            inputs.push(Input::Reader { name, reader: Box::new(file), finish: Box::new(|| Ok(())), may_be_empty });
        }
        if let Some(name) = self.stdin {
            inputs.push(match args.command.as_deref() {
                Some(command) => command_input(name, command, may_be_empty)?,
                None => {
                    Input::Reader { name, reader: Box::new(io::stdin()), finish: Box::new(|| Ok(())), may_be_empty }
                }
            });
        }
        Ok(inputs)
    }
}

/// The output of a command as a file. If the command fails, so does the snapshot, because half a dump is useless.
fn command_input(name: Vec<u8>, command: &OsStr, may_be_empty: bool) -> Result<Input, Failure> {
    let text = command.display().to_string();
    let spawned = shell(command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child: Child =
        spawned.map_err(|error| Failure::caused(format!("cannot start the command '{text}'"), &error))?;
    let Some(stdout) = child.stdout.take() else {
        return Err(Failure::new(format!("the command '{text}' has no output")));
    };
    let finish = move || match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the command '{text}' failed: {status}")),
        Err(error) => Err(format!("the command '{text}' is lost: {}", plain(&error))),
    };
    Ok(Input::Reader { name, reader: Box::new(stdout), finish: Box::new(finish), may_be_empty })
}

fn read_list(path: &Path) -> Result<Vec<u8>, Failure> {
    if path == Path::new("-") { sources::read_list_from(io::stdin(), path) } else { sources::read_list(path) }
}

/// Reads the exclusions, with the files of patterns.
pub(super) fn exclude_options(context: &Context, args: &ExcludeArgs) -> Result<ExcludeOptions, Failure> {
    let mut patterns = args.exclude.clone();
    for file in &args.exclude_from {
        patterns.extend(sources::patterns(file, &read_list(file)?)?);
    }
    patterns.extend(args.iexclude.iter().map(|pattern| format!("{ANY_CASE}{pattern}")));
    for pattern in &patterns {
        if let Err(error) = check(pattern) {
            context.screen.warn(&error.to_string());
        }
    }
    for pattern in patterns.iter().filter(|pattern| pattern.starts_with("~/")) {
        context
            .screen
            .warn(&format!("the pattern '{pattern}' is not about your home folder: patterns start at the kept paths"));
    }
    Ok(ExcludeOptions {
        patterns: usual::before(args.exclude_usual, patterns),
        ignore_file: (!args.no_vaultignore).then(|| crate::service::config::IGNORE_FILE.to_vec()),
        caches: args.exclude_caches,
        if_present: args.exclude_if_present.iter().map(|name| roots::bytes_of(name)).collect(),
        larger_than: args.exclude_larger_than,
        one_file_system: args.one_file_system,
        nodump: args.exclude_nodump,
    })
}

/// Reports the snapshot in plain words.
fn tell(context: &Context, args: &SnapshotArgs, report: &SnapshotReport, out: &mut Output) -> Result<(), Failure> {
    let body = &report.snapshot;
    let source = Shown(body.source.as_bytes());
    if !context.global.quiet {
        let title = match &report.id {
            Some(id) if body.verdict == Verdict::Complete => {
                format!("Snapshot {} of {source} is complete.", id.short())
            }
            Some(id) => format!("Snapshot {} of {source} is taken, but not all could be saved.", id.short()),
            None if args.dry_run => format!("Dry run: nothing was stored. A snapshot of {source} would be:"),
            None => format!("Nothing changed in {source} since its last snapshot, so no new one was made."),
        };
        out.styled(Style::Bold, &title)?;
        let took = units::took(Duration::from_millis(body.duration_ms));
        out.say(format_args!(
            "  looked at  {} in {}, {}, in {took}",
            units::counted(body.files, "file", "files"),
            units::counted(body.folders, "folder", "folders"),
            units::size(body.bytes)
        ))?;
        out.say(format_args!(
            "  found      {} new, {} changed, {} unchanged",
            units::count(body.files_new),
            units::count(body.files_changed),
            units::count(body.files_unchanged)
        ))?;
        out.say(format_args!("  read       {}", units::size(body.bytes_read)))?;
        if !args.dry_run {
            out.say(format_args!(
                "  stored     {} of new data; the vault grew by {}",
                units::size(body.bytes_new),
                units::size(body.bytes_stored)
            ))?;
        }
        if report.same.is_some() && report.id.is_some() {
            out.say("  All is as in the last snapshot.")?;
        }
    }
    for path in &report.left_out.first {
        out.say(format_args!("  left out, {ELSEWHERE}: {}", Shown(path)))?;
    }
    let more = report.left_out.count.saturating_sub(report.left_out.first.len() as u64);
    if more > 0 {
        out.say(format_args!("  left out, {ELSEWHERE}: {} more", units::count(more)))?;
    }
    if body.skipped > 0 {
        let title = format!(
            "  not saved as it should be: {}",
            units::counted(body.skipped, "file or folder", "files or folders")
        );
        out.styled(Style::Warning, &title)?;
        for skipped in report.skipped.iter().take(SKIPPED_SHOWN) {
            let stored = if skipped.stored { " (it is stored nevertheless)" } else { "" };
            out.say(format_args!("    {skipped}{stored}"))?;
        }
        let more = body.skipped.saturating_sub(report.skipped.len().min(SKIPPED_SHOWN) as u64);
        if more > 0 {
            let all = report.id.map_or_else(String::new, |id| format!(": vault ls --skipped {}", id.short()));
            out.say(format_args!("    and {} more{all}", units::count(more)))?;
        }
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_failing_command_fails_the_input() {
        let finish = |command: &str| match command_input(b"x".to_vec(), OsStr::new(command), false).unwrap() {
            Input::Reader { mut reader, finish, .. } => {
                let mut text = String::new();
                reader.read_to_string(&mut text).unwrap();
                (text, finish())
            }
            Input::Path { .. } => unreachable!(),
        };
        assert_eq!(finish("echo hello"), ("hello\n".to_owned(), Ok(())));
        let (text, result) = finish("echo half; exit 5");
        assert_eq!(text, "half\n");
        assert_eq!(result.unwrap_err(), "the command 'echo half; exit 5' failed: exit status: 5");
    }
}
