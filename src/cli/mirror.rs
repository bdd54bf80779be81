//! `vault mirror` and `vault promote`.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::mirror;
use crate::engine::mirror::compare;
use crate::engine::mirror::compare::{Comparison, Difference};
use crate::store::Store;
use crate::store::dir::DirStore;
use crate::store::place::Place;
use serde::Serialize;

use crate::cli::args::MirrorArgs;
use crate::cli::args::PromoteArgs;
use crate::cli::consent::Consent;
use crate::cli::context;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::init;
use crate::cli::local;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::units;

/// The number of items shown of each kind.
const SHOWN: usize = 20;

#[derive(Serialize)]
struct MirrorJson {
    to: String,
    copied: u64,
    bytes: u64,
    there: u64,
    mended: u64,
    damaged: Vec<String>,
    late: Vec<String>,
    surplus: u64,
    deleted: u64,
}

#[derive(Serialize)]
struct DifferenceJson<'a> {
    object: String,
    what: &'a str,
    mended: bool,
}

#[derive(Serialize)]
struct CompareJson<'a> {
    to: String,
    compared: u64,
    bytes: u64,
    missing: Vec<String>,
    different: Vec<DifferenceJson<'a>>,
    damaged_in_vault: Vec<String>,
    surplus: u64,
}

#[derive(Serialize)]
struct PromoteJson {
    promoted: bool,
}

/// Brings a mirror up to date.
pub(super) fn run(context: &Context, args: &MirrorArgs) -> Result<Exit, Failure> {
    let from = context.chosen()?;
    let to = context.chosen_by(Some(&args.to))?.place;
    if from.place == to {
        return Err(Failure::usage("a vault is no mirror of itself: --to is where it lies"));
    }
    context.screen.watch_interrupts();
    let source = context.paced(context.store(&from.place)?);
    let wanted = context.wanted(&context::place_name(&from.place), from.config.as_ref());
    if args.verify || args.mend {
        let target = context.paced(context.store(&to)?);
        let found = compare::compare(source.as_ref(), target.as_ref(), &wanted, args.mend, &context.screen);
        context.screen.clear();
        return tell_compared(context, &to.to_string(), &found?);
    }
    local::refuse_around(&to, "a mirror")?;
    if !args.another && context.known_in(&to).is_some() && !context.has_vault(&to)? {
        let anyway = "To make a new mirror there all the same: --another";
        init::refuse_where_one_is_known(context, &to, anyway)?;
    }
    let target: Arc<dyn Store> = match &to {
        Place::Folder(folder) if folder.join("VAULT").exists() => Arc::new(DirStore::open(folder)?),
        Place::Folder(folder) => Arc::new(DirStore::create(folder)?),
        Place::Far(address) => {
            context.prepare(address)?;
            context.far(address)?
        }
    };
    let target = context.paced(target);
    let mut report = mirror::mirror(source.as_ref(), target.as_ref(), &wanted, &context.screen)?;
    if let Some(id) = report.vault {
        context.met(&context::place_name(&to), id, false, &BTreeSet::new());
    }
    if args.delete {
        let (vault, _) = context.open()?;
        report.deleted = mirror::delete_given_up(&vault, target.as_ref())?;
    }
    // Only an opened vault tells what is on its way from what is damaged.
    if !report.damaged.is_empty()
        && let Ok((vault, _)) = context.open()
    {
        report.judge(&vault)?;
    }
    context.screen.clear();
    let mut out = Output::new();
    if context.global.json {
        out.json(&MirrorJson {
            to: to.to_string(),
            copied: report.copied,
            bytes: report.bytes,
            there: report.there,
            mended: report.mended,
            damaged: report.damaged.iter().map(ToString::to_string).collect(),
            late: report.late.iter().map(ToString::to_string).collect(),
            surplus: report.surplus,
            deleted: report.deleted,
        })?;
    } else if !context.global.quiet {
        let copied = units::counted(report.copied, "object", "objects");
        out.say(format!("{copied} copied to {to} ({}); {} there before.", units::size(report.bytes), report.there))?;
        if report.mended > 0 {
            let mended = units::counted(report.mended, "object", "objects");
            out.say(format!("Of these, {mended} had been cut short there, and were moved aside."))?;
        }
        match (report.surplus, report.deleted) {
            (0, _) => {}
            (surplus, 0) => {
                let surplus = units::counted(surplus, "object", "objects");
                out.say(format!("{surplus} there that the vault has no more; --delete deletes what was given up."))?;
            }
            (_, deleted) => {
                out.say(format!("{} that were given up deleted.", units::counted(deleted, "object", "objects")))?;
            }
        }
    }
    for key in &report.damaged {
        context.screen.clear();
        crate::cli::note(&format!("warning: {key} is damaged in the vault, and was not copied (see: vault check)"));
    }
    for key in &report.late {
        crate::cli::note(&format!("warning: {key} has not arrived yet, and comes with the next mirror"));
    }
    out.finish()?;
    Ok(match (report.damaged.is_empty(), report.late.is_empty()) {
        (true, true) => Exit::Done,
        (true, false) => Exit::Skipped,
        (false, _) => Exit::Damage,
    })
}

/// Reports a comparison. The exit code is that of a check: 4 if anything is damaged, 3 if the mirror is only behind.
fn tell_compared(context: &Context, to: &str, found: &Comparison) -> Result<Exit, Failure> {
    let mut out = Output::new();
    let unmended = found.different.iter().filter(|different| !different.is_mended).count() as u64;
    if context.global.json {
        let different = found.different.iter().map(|Difference { key, what, is_mended }| DifferenceJson {
            object: key.to_string(),
            what,
            mended: *is_mended,
        });
        out.json(&CompareJson {
            to: to.to_owned(),
            compared: found.compared,
            bytes: found.bytes,
            missing: found.missing.iter().map(ToString::to_string).collect(),
            different: different.collect(),
            damaged_in_vault: found.damaged_in_vault.iter().map(ToString::to_string).collect(),
            surplus: found.surplus,
        })?;
    } else {
        for Difference { key, what, is_mended } in &found.different {
            let then = if *is_mended { "; it was put anew" } else { "" };
            out.styled(Style::Warning, &format!("{key} in the mirror: {what}{then}"))?;
        }
        for key in &found.damaged_in_vault {
            out.styled(Style::Warning, &format!("{key} is damaged in the vault, and whole in the mirror"))?;
        }
        for key in found.missing.iter().take(SHOWN) {
            out.styled(Style::Warning, &format!("{key} is not in the mirror"))?;
        }
        if found.missing.len() > SHOWN {
            out.say(format!("and {} more", units::count((found.missing.len() - SHOWN) as u64)))?;
        }
        if !context.global.quiet {
            let compared = units::counted(found.compared, "object", "objects");
            out.say(format!("{compared} read in {to} ({}).", units::size(found.bytes)))?;
            if found.different.is_empty() && found.missing.is_empty() && found.damaged_in_vault.is_empty() {
                out.say("The mirror has all that the vault has, as it is there.")?;
            }
        }
        if unmended > 0 {
            out.say("What is damaged in the mirror is put anew with: vault mirror --to PLACE --mend")?;
        }
        if !found.missing.is_empty() {
            out.say("What it does not have is copied with: vault mirror --to PLACE")?;
        }
        if !found.damaged_in_vault.is_empty() {
            out.say("The vault is mended out of the mirror with: vault repair --from PLACE")?;
        }
    }
    out.finish()?;
    let is_damaged = unmended > 0 || !found.damaged_in_vault.is_empty();
    let exit = if found.missing.is_empty() { Exit::Done } else { Exit::Skipped };
    Ok(if is_damaged { Exit::Damage } else { exit })
}

/// Turns a mirror into a vault.
pub(super) fn promote(context: &Context, args: &PromoteArgs) -> Result<Exit, Failure> {
    let hint = "Give --yes to do it.";
    let consent = Consent::new(context, args.yes, "the mirror shall become a vault", hint)?;
    let (vault, _) = context.open()?;
    let place = vault.store().place();
    if !vault.is_mirror() {
        return Err(Failure::new(format!("{place} is a vault already")).hint("Nothing was changed."));
    }
    consent.ask(context, &format!("Write to {place} from now on, and mirror to it no more?"))?;
    let promoted = mirror::promote(&vault)?;
    context.screen.clear();
    let mut out = Output::new();
    if context.global.json {
        out.json(&PromoteJson { promoted })?;
    } else if !context.global.quiet {
        out.say(format!("{place} is a vault of its own now."))?;
    }
    out.finish().map(|()| Exit::Done)
}
