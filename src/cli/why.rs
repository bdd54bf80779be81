//! `vault why`: the rule that excludes a file, or the snapshots that hold it.

use std::path::Path;
use std::path::PathBuf;

use crate::engine::patterns::exclude::ExcludeOptions;
use crate::engine::query::history;
use crate::engine::snapshot::own_folders;
use crate::engine::snapshot::why::Why;
use crate::engine::snapshot::why::why;
use crate::path::Shown;
use crate::path::components;
use crate::progress::Progress;
use crate::service::sources::exclude_of;
use crate::tree::RuleSet;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;
use serde::Serialize;

use crate::cli::args::WhyArgs;
use crate::cli::context::Context;
use crate::cli::context::current_folder;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::chain;
use crate::cli::error::exit_of_unread;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::roots;
use crate::cli::select;
use crate::cli::units;
use crate::json::Name;

#[derive(Serialize)]
struct WhyJson<'a> {
    path: Name<'a>,
    sources: Vec<SourceJson>,
    snapshots: HeldJson,
}

#[derive(Serialize)]
struct SourceJson {
    source: String,
    taken: bool,
    why: &'static str,
    pattern: Option<String>,
    said: String,
}

#[derive(Serialize, Default)]
struct HeldJson {
    count: u64,
    first: Option<String>,
    last: Option<String>,
}

/// A source that has the path, with its exclusions.
struct Source {
    name: String,
    root: PathBuf,
    exclude: ExcludeOptions,
}

/// Runs `vault why`.
pub(super) fn run(context: &Context, args: &WhyArgs) -> Result<Exit, Failure> {
    let path = roots::absolute(&current_folder()?, &args.path);
    let typed = roots::bytes_of(path.as_os_str());
    let vault = context.open_to_read()?;
    let all = select::all(context, &vault)?;
    let mut covering: Vec<&SnapshotInfo> = all.iter().filter(|info| select::covers(info, &typed)).collect();
    (covering, _) = select::of_this_machine(&vault, covering);
    let mut sources = configured(context, &path)?;
    if sources.is_empty() {
        sources = recorded(&vault, &covering, &typed)?;
    }
    let own = own_folders(&vault);
    let mut told = Vec::new();
    for source in &sources {
        let below = below(&source.root, &path);
        let found = why(&source.root, &below, &source.exclude, &own)
            .map_err(|error| Failure::caused(format!("cannot look at {}", path.display()), &error))?;
        told.push(describe(source, &found));
    }
    let inside = |info: &SnapshotInfo| select::inside(&info.body.roots, &typed);
    let mut broken = Vec::new();
    let spells = history::history(&vault, &covering, &inside, &mut broken, &context.screen)?;
    let mut holding: Vec<&SnapshotInfo> = spells
        .iter()
        .filter(|spell| spell.entry.is_some())
        .flat_map(|spell| spell.snapshots.iter().map(|at| covering[*at]))
        .collect();
    holding.sort_by_key(|info| (info.date, info.id));
    let mut out = Output::new();
    if context.global.json {
        let held = HeldJson {
            count: holding.len() as u64,
            first: holding.first().map(|info| info.id.to_string()),
            last: holding.last().map(|info| info.id.to_string()),
        };
        out.json(&WhyJson { path: Name(&typed), sources: told, snapshots: held })?;
    } else {
        for source in &told {
            if source.taken { out.line(&source.said)? } else { out.styled(Style::Warning, &source.said)? }
        }
        if told.is_empty() {
            out.styled(Style::Warning, "No source of the configuration has it, nor has any snapshot of this machine.")?;
        }
        match (holding.first(), holding.last()) {
            (Some(first), Some(last)) => {
                let many = units::counted(holding.len() as u64, "snapshot holds", "snapshots hold");
                let shown =
                    |info: &SnapshotInfo| format!("{} of {}", info.id.short(), dates::shown(info.date, &context.zone));
                let span = if first.id == last.id {
                    shown(first)
                } else {
                    format!("the first {}, the last {}", shown(first), shown(last))
                };
                out.say(format_args!("{many} it: {span}."))?;
                out.say("Its versions: vault history PATH")?;
            }
            _ if broken.is_empty() => out.say("No snapshot of this machine holds it.")?,
            _ => out.say("No snapshot of this machine that can be read holds it.")?,
        }
    }
    for error in &broken {
        context.screen.warn(&format!("a snapshot was passed over: {}", chain(error)));
    }
    out.finish().map(|()| exit_of_unread(&broken))
}

/// The path of a file below a root.
fn below(root: &Path, path: &Path) -> Vec<u8> {
    path.strip_prefix(root).map(|rest| roots::bytes_of(rest.as_os_str())).unwrap_or_default()
}

/// The sources of the configuration that have the path.
fn configured(context: &Context, path: &Path) -> Result<Vec<Source>, Failure> {
    let Some(config) = context.config()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for source in &config.sources {
        // Paths may contain one another: a file is read at least from its deepest root.
        let roots = source.paths.iter().filter(|root| path.starts_with(root));
        let Some(root) = roots.max_by_key(|root| root.components().count()) else { continue };
        let exclude = exclude_of(source)?;
        found.push(Source { name: source.name.clone(), root: root.clone(), exclude });
    }
    Ok(found)
}

/// The sources of snapshots that have the path, with the rules of the last one of each.
fn recorded(vault: &Vault, covering: &[&SnapshotInfo], typed: &[u8]) -> Result<Vec<Source>, Failure> {
    let mut found: Vec<Source> = Vec::new();
    let mut trees = vault.tree_reader()?;
    for info in covering.iter().rev() {
        let body = &info.body;
        if found.iter().any(|source| source.name == body.source) {
            continue;
        }
        let path = roots::path_of(typed);
        let roots = body.roots.iter().map(|root| roots::path_of(&root.path)).filter(|root| path.starts_with(root));
        let Some(root) = roots.max_by_key(|root| components(&roots::bytes_of(root.as_os_str())).count()) else {
            continue;
        };
        let rules = RuleSet::read(&body.rules, &mut trees)?;
        let exclude = rules.map(|rules| ExcludeOptions::from_rules(&rules.options)).unwrap_or_default();
        found.push(Source { name: body.source.clone(), root, exclude });
    }
    Ok(found)
}

/// The decision on the path in a source, as JSON and in words.
fn describe(source: &Source, found: &Why) -> SourceJson {
    let name = Shown(source.name.as_bytes());
    let shown = |below: &[u8]| Shown(&roots::bytes_of(source.root.join(roots::path_of(below)).as_os_str())).to_string();
    let out = |because: String| format!("{name} leaves it out: {because}");
    let (why, said, pattern) = match found {
        Why::Taken => ("taken", format!("{name} keeps it."), None),
        Why::Absent => ("absent", format!("{name} would keep it, but it is not there."), None),
        Why::Pattern { pattern, file_in, matched } => {
            let place = file_in.as_ref().map_or_else(
                || "its rules".to_owned(),
                |folder| shown(&crate::path::join(folder, crate::service::config::IGNORE_FILE)),
            );
            let matched = shown(matched);
            (
                "pattern",
                out(format!("the pattern {} in {place} matches {matched}", Shown(pattern.as_bytes()))),
                Some(pattern.clone()),
            )
        }
        Why::Marked { folder, marker } => ("marked", out(format!("{} holds {}", shown(folder), Shown(marker))), None),
        Why::Large(limit) => ("large", out(format!("it is larger than {}", units::size(*limit))), None),
        Why::NoDump { matched } => ("nodump", out(format!("{} has the nodump flag", shown(matched))), None),
        Why::OtherFileSystem { folder } => {
            ("other_file_system", out(format!("{} lies on another file system", shown(folder))), None)
        }
        Why::OfVault { folder } => ("of_vault", out(format!("{} belongs to the vault itself", shown(folder))), None),
    };
    SourceJson { source: source.name.clone(), taken: matches!(found, Why::Taken), why, pattern, said }
}
