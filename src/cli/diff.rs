//! `vault diff`.

use std::ffi::OsStr;

use crate::engine::query::absence::Judge;
use crate::engine::query::absence::Judged;
use crate::engine::query::absence::Omitted;
use crate::engine::query::absence::Side;
use crate::engine::query::browse;
use crate::engine::query::diff;
use crate::engine::query::diff::Change;
use crate::engine::query::diff::Compared;
use crate::engine::query::diff::Difference;
use crate::engine::query::diff::Sums;
use crate::engine::query::diff::Visitor;
use crate::engine::snapshot::Empty;
use crate::engine::snapshot::Input;
use crate::engine::snapshot::SnapshotOptions;
use crate::engine::snapshot::live::Live;
use crate::path::Shown;
use crate::path::called;
use crate::path::components;
use crate::path::join;
use crate::progress::Progress;
use crate::read::TreeReader;
use crate::tree::Entry;
use crate::tree::FileKind;
use crate::tree::Root;
use crate::vault::SnapshotInfo;
use crate::write::trust::VerifyOthers;

use crate::cli::args::DiffArgs;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::chain;
use crate::cli::error::exit_of_unread;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::roots;
use crate::cli::select;
use crate::cli::select::Aim;
use crate::cli::snapshot::exclude_options;
use crate::cli::units;
use crate::json;
use crate::json::DifferenceJson;
use crate::json::SumsJson;

/// The word for the disk in place of a snapshot.
const LIVE: &[u8] = b"live";

/// Runs `vault diff`.
pub(super) fn run(context: &Context, args: &DiffArgs) -> Result<Exit, Failure> {
    let exclude = exclude_options(context, &args.exclude)?;
    let is_live = |text: &[u8]| text == LIVE || text.starts_with(b"live:");
    if is_live(&roots::bytes_of(&args.old)) {
        return Err(Failure::usage("the disk can only be the second one").hint("Write: vault diff SNAPSHOT live"));
    }
    let wanted = select::parse(context, &args.old)?;
    let new_text = roots::bytes_of(&args.new);
    let vault = context.open_to_read()?;
    context.screen.watch_interrupts();
    let snapshots = vault.snapshots();
    // A comparison with the disk shows what a restore would do to the disk.
    let aim = if is_live(&new_text) { Aim::Write } else { Aim::Read };
    let spot = select::spot(context, &vault, &snapshots, &args.filter, &wanted, aim)?;
    let (info, old_path) = (&spot.info, spot.path.clone());
    let mut report = Report { context, args, out: Output::new(), failed: None, old: info.id.to_string(), new: None };
    let mut old_trees = vault.tree_reader_of([info.id])?;
    let old = browse::entry_at(&info.body.tree, &old_path, &mut old_trees);
    let mut old = old.map_err(|error| spot.failure(error))?;
    let mut unread = 0;
    let compared = if is_live(&new_text) {
        let new_path = match new_text.get(LIVE.len() + 1..) {
            Some(typed) => select::inside(&info.body.roots, typed),
            None => old_path.clone(),
        };
        let options = live_options(context, info, &new_path, exclude)?;
        let taken: Vec<Vec<u8>> = options.inputs.iter().filter_map(name_of).collect();
        let mut live = Live::look(&vault, options, &context.screen)?;
        context.screen.clear();
        let mut unknown = Vec::new();
        for skipped in &live.skipped {
            unread += 1;
            unknown.extend((!skipped.stored).then(|| skipped.path.clone()));
        }
        // Roots that did not come from the disk cannot be compared with it.
        let elsewhere = info.body.roots.iter().filter(|root| !taken.contains(&root.name));
        unknown.extend(elsewhere.map(|root| root.name.clone()));
        let tree = live.tree.clone();
        let mut new = match browse::entry_at(&tree, &new_path, &mut live) {
            Ok(entry) => entry,
            Err(browse::BrowseError::NotFound { path }) => {
                return Err(Failure::new(format!("there is no {path} on the disk any more"))
                    .hint("Bring it back with: vault restore SNAPSHOT:PATH --in-place"));
            }
            Err(error) => return Err(error.into()),
        };
        let base = base(&old_path, &new_path, &mut old, &mut new);
        let there: Vec<Root> = info.body.roots.iter().map(|root| Root { lost: false, ..root.clone() }).collect();
        let left = side(info, &old_path, &mut old_trees)?;
        let right = Side { omitted: std::mem::take(&mut live.omitted), roots: &there, start: &new_path };
        let mut judged = Judged::new(Judge::new(&base, left, right), &mut report);
        diff::diff(&base, (old, &mut old_trees), (new, &mut live), &unknown, &context.screen, &mut judged)
    } else {
        let wanted = select::parse(context, OsStr::new(&args.new))?;
        let other = select::spot(context, &vault, &snapshots, &args.filter, &wanted, Aim::Read)?;
        let other = if wanted.path.is_some() { other } else { other.at(old_path.clone()) };
        report.new = Some(other.info.id.to_string());
        let mut new_trees = vault.tree_reader_of([other.info.id])?;
        let new = browse::entry_at(&other.info.body.tree, &other.path, &mut new_trees);
        let mut new = new.map_err(|error| other.failure(error))?;
        let base = base(&old_path, &other.path, &mut old, &mut new);
        let sides = (side(info, &old_path, &mut old_trees)?, side(&other.info, &other.path, &mut new_trees)?);
        diff::bring(&old, &new, &new_trees, &context.screen);
        let mut judged = Judged::new(Judge::new(&base, sides.0, sides.1), &mut report);
        diff::diff(&base, (old, &mut old_trees), (new, &mut new_trees), &[], &context.screen, &mut judged)
    };
    context.screen.clear();
    report.finish(compared, unread)
}

/// A snapshot, for a comparison that starts at one of its paths.
fn side<'s>(info: &'s SnapshotInfo, start: &'s [u8], trees: &mut TreeReader<'_>) -> Result<Side<'s>, Failure> {
    Ok(Side { omitted: Omitted::read(&info.body, trees)?, roots: &info.body.roots, start })
}

/// The name of the compared paths: their own if they are equal; otherwise each path is the top of its side.
fn base(old_path: &[u8], new_path: &[u8], old: &mut Entry, new: &mut Entry) -> Vec<u8> {
    if old_path == new_path {
        return old_path.to_vec();
    }
    // Two files are compared under the name of the second.
    let both_folders = old.kind == FileKind::Directory && new.kind == FileKind::Directory;
    if both_folders { Vec::new() } else { new_path.to_vec() }
}

fn name_of(input: &Input) -> Option<Vec<u8>> {
    match input {
        Input::Path { name, .. } => Some(name.clone()),
        Input::Reader { .. } => None,
    }
}

/// The options for reading the disk: the folders that the snapshot was taken of, or only their compared part.
fn live_options<'a>(
    context: &Context,
    info: &SnapshotInfo,
    path: &[u8],
    exclude: crate::engine::patterns::exclude::ExcludeOptions,
) -> Result<SnapshotOptions<'a>, Failure> {
    let mut parts = components(path);
    let (first, below) = (parts.next(), parts.fold(Vec::new(), |path, name| join(&path, name)));
    let wanted = |name: &[u8]| first.is_none_or(|first| first == name);
    let mut inputs = Vec::new();
    for root in info.body.roots.iter().filter(|root| !root.path.is_empty() && wanted(&root.name)) {
        inputs.push(Input::Path {
            name: root.name.clone(),
            path: roots::path_of(&root.path),
            only: (!below.is_empty()).then(|| vec![below.clone()]),
        });
    }
    if inputs.is_empty() {
        return Err(Failure::new("this did not come from the disk, so it cannot be compared with it")
            .hint("Compare it with another snapshot: vault diff latest~1 latest"));
    }
    Ok(SnapshotOptions {
        source: info.body.source.clone(),
        inputs,
        time: dates::now(),
        given: false,
        clock: &dates::now,
        tags: Vec::new(),
        description: String::new(),
        exclude,
        skip_if_unchanged: false,
        empty: Empty::IfItWasFull,
        dry_run: true,
        level: 1,
        verify: false,
        others: VerifyOthers::None,
        read_all: false,
        read_special: false,
        threads: context.threads(),
    })
}

/// The report of a comparison.
struct Report<'a> {
    context: &'a Context,
    args: &'a DiffArgs,
    out: Output,
    failed: Option<Failure>,
    /// The compared snapshots; `new` is `None` for the disk.
    old: String,
    new: Option<String>,
}

impl Visitor for Report<'_> {
    fn differs(&mut self, difference: Difference) -> bool {
        if !self.args.summary {
            self.failed = self.print(&difference).err();
        }
        self.failed.is_none()
    }

    fn again(&mut self, _: &[u8], _: &Sums) -> bool {
        !self.args.summary
    }
}

impl Report<'_> {
    fn print(&mut self, difference: &Difference) -> Result<(), Failure> {
        let (old, new, path) = (difference.old.as_ref(), difference.new.as_ref(), difference.path.as_slice());
        self.context.screen.clear();
        if self.context.global.json {
            return self.out.json(&DifferenceJson::new(difference));
        }
        let mark = match difference.change {
            Change::Added => '+',
            Change::Removed => '-',
            Change::Content => 'M',
            Change::Metadata => 'U',
            Change::Kind => 'T',
            Change::Omitted(_) => '?',
        };
        let is_folder = new.or(old).is_some_and(|entry| entry.kind == FileKind::Directory);
        let shown = format!("{}{}", Shown(path), if is_folder { "/" } else { "" });
        let size = |entry: Option<&Entry>| match entry {
            Some(entry) if entry.kind == FileKind::File => units::size(entry.size),
            Some(entry) => json::kind(entry.kind).to_owned(),
            None => String::new(),
        };
        let more = match difference.change {
            Change::Omitted(absence) => format!("  ({})", absence.words()),
            Change::Added | Change::Removed if is_folder => String::new(),
            Change::Added => format!("  ({})", size(new)),
            Change::Removed => format!("  ({})", size(old)),
            Change::Metadata => format!("  ({})", difference.fields.join(", ")),
            Change::Content | Change::Kind if size(old) == size(new) => format!("  ({})", size(new)),
            Change::Content | Change::Kind => format!("  ({} -> {})", size(old), size(new)),
        };
        self.out.line(format_args!("{mark}  {shown}{more}"))
    }

    fn finish(mut self, compared: Result<Compared, browse::BrowseError>, unread: u64) -> Result<Exit, Failure> {
        if let Some(failure) = self.failed {
            return Err(failure);
        }
        let compared = compared?;
        for (path, error) in &compared.broken {
            self.context.screen.warn(&format!("{}: {}", called(path), chain(error)));
        }
        let found = &compared.sums;
        // Between snapshots, unreadable parts of either are already counted.
        let unread = unread + found.unknown;
        let sums = &Sums { unknown: unread + compared.broken.len() as u64, ..found.clone() };
        if self.context.global.json {
            self.out.json(&SumsJson { summary: sums, old: self.old.clone(), new: self.new.clone() })?;
        } else if !self.context.global.quiet {
            let title = if sums.is_nothing() {
                let is_all = sums.unknown == 0;
                if is_all { "No difference." } else { "No difference in what could be compared." }.to_owned()
            } else {
                let parts = [
                    (sums.added, "added"),
                    (sums.removed, "removed"),
                    (sums.changed, "changed"),
                    (sums.metadata, "with other metadata"),
                    (sums.kind, "of another kind"),
                ];
                let parts = parts.iter().filter(|(count, _)| *count > 0);
                let parts: Vec<_> = parts.map(|(count, what)| format!("{} {what}", units::count(*count))).collect();
                let (new, old) = (units::size(sums.bytes_new), units::size(sums.bytes_old));
                format!("{}: {new} that are new, {old} that are no more.", parts.join(", "))
            };
            self.out.styled(Style::Bold, &title)?;
            if sums.left_out > 0 {
                let many = units::counted(sums.left_out, "file or folder", "files or folders");
                self.out.line(format_args!("Left out on one side by a rule: {many}."))?;
            }
            if sums.unknown > 0 {
                let many = units::counted(sums.unknown, "file or folder", "files or folders");
                self.out.styled(Style::Warning, &format!("Could not be compared: {many}."))?;
            }
        }
        self.out.finish()?;
        Ok(match exit_of_unread(compared.broken.iter().map(|(_, error)| error)) {
            Exit::Done if unread > 0 => Exit::Skipped,
            exit => exit,
        })
    }
}
