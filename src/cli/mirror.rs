//! `vault mirror` and `vault promote`.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::mirror;
use crate::engine::mirror::Judge;
use crate::engine::mirror::MirrorReport;
use crate::engine::mirror::compare;
use crate::engine::mirror::compare::{Comparison, Difference};
use crate::id::VaultId;
use crate::service::delivery;
use crate::store::Delivery;
use crate::store::Store;
use crate::store::dir::DirStore;
use crate::store::place::Place;
use crate::vault::Vault;
use crate::vault::Wanted;
use crate::vault::findings::is_known_synced;
use serde::Serialize;

use crate::cli::args::MirrorArgs;
use crate::cli::args::PromoteArgs;
use crate::cli::consent::Consent;
use crate::cli::context;
use crate::cli::context::Chosen;
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
    /// Whether it may just not have arrived whole in the mirror's place.
    late: bool,
}

#[derive(Serialize)]
struct CompareJson<'a> {
    to: String,
    compared: u64,
    bytes: u64,
    missing: Vec<String>,
    different: Vec<DifferenceJson<'a>>,
    damaged_in_vault: Vec<String>,
    late: Vec<String>,
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
    if args.verify || args.mend {
        return run_compare(context, &from, &to, args.mend);
    }
    let (source, wanted) = source(context, &from)?;
    let target = target(context, &to, args.another)?;
    let mut report = mirror::mirror(source.as_ref(), target.as_ref(), &wanted, &context.screen)?;
    if let Some(id) = report.vault {
        context.met(&context::place_name(&to), id, false, &BTreeSet::new());
    }
    let mut opened = None;
    if args.delete {
        let (vault, _) = context.open()?;
        report.deleted = mirror::delete_given_up(&vault, target.as_ref())?;
        opened = Some(vault);
    } else if !report.damaged.is_empty() {
        opened = context.open_unasked();
    }
    let judge = judge(context, opened.as_ref(), &from.place, report.vault);
    report.judge(judge)?;
    context.screen.clear();
    tell(context, &to, &report, matches!(judge, Judge::Synced))?;
    Ok(match (report.damaged.is_empty(), report.late.is_empty()) {
        (true, true) => Exit::Done,
        (true, false) => Exit::Skipped,
        (false, _) => Exit::Damage,
    })
}

/// The store of the vault that is mirrored, and the vault that is wanted in it.
fn source(context: &Context, from: &Chosen) -> Result<(Arc<dyn Store>, Wanted), Failure> {
    let store = context.paced(context.store(&from.place)?);
    Ok((store, context.wanted(&context::place_name(&from.place), from.config.as_ref())))
}

/// The store of the mirror, which is made if it is new. If a vault or a mirror is remembered there and has gone, only
/// `another` makes a new one.
fn target(context: &Context, to: &Place, another: bool) -> Result<Arc<dyn Store>, Failure> {
    local::refuse_around(to, "a mirror")?;
    if !another && !matches!(context.remembered_in(to), Ok(None)) && !context.has_vault(to)? {
        let anyway = "To make a new mirror there all the same: --another";
        init::refuse_where_one_is_known(context, to, anyway)?;
    }
    let target: Arc<dyn Store> = match to {
        Place::Folder(folder) if folder.join("VAULT").exists() => Arc::new(DirStore::open(folder)?),
        Place::Folder(folder) => Arc::new(DirStore::create(folder)?),
        Place::Far(address) => {
            context.prepare(address)?;
            context.far(address)?
        }
    };
    Ok(context.paced(target))
}

/// Compares the mirror with the vault, byte by byte, and mends it if wanted.
fn run_compare(context: &Context, from: &Chosen, to: &Place, mend: bool) -> Result<Exit, Failure> {
    let (source, wanted) = source(context, from)?;
    let target = context.paced(context.store(to)?);
    let found = compare::compare(source.as_ref(), target.as_ref(), &wanted, mend, &context.screen);
    context.screen.clear();
    let mut found = found?;
    let opened = if found.needs_judge() { context.open_unasked() } else { None };
    let judge = judge(context, opened.as_ref(), &from.place, found.vault);
    found.judge(judge)?;
    tell_compared(context, &to.to_string(), &found, matches!(judge, Judge::Synced))
}

/// Reports what was copied. `is_unsure`: the vault was not opened, so what may be late may be damaged, too.
fn tell(context: &Context, to: &Place, report: &MirrorReport, is_unsure: bool) -> Result<(), Failure> {
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
                out.say(format!("{surplus} there that the vault does not have; --delete deletes what was given up."))?;
            }
            (_, deleted) => {
                let (one, many) = ("object that was given up was", "objects that were given up were");
                out.say(format!("{} deleted.", units::counted(deleted, one, many)))?;
            }
        }
    }
    for key in &report.damaged {
        context.screen.clear();
        crate::cli::note(&format!("warning: {key} is damaged in the vault, and was not copied (see: vault check)"));
    }
    for key in &report.late {
        let late = late_words(is_unsure);
        crate::cli::note(&format!("warning: {key} {late}, and comes with the next mirror"));
    }
    out.finish()
}

/// The judge of late and damaged objects: the opened vault, or else whether things are known to arrive late in it.
fn judge<'v>(context: &Context, opened: Option<&'v Vault>, place: &Place, id: Option<VaultId>) -> Judge<'v> {
    let is_synced = |id: VaultId| {
        let state = context.state_folder().is_ok_and(|state| is_known_synced(&state.join(id.to_string())));
        state || matches!(place, Place::Folder(folder) if delivery::guess(folder) == Delivery::Synced)
    };
    match (opened, id.is_some_and(is_synced)) {
        (Some(vault), _) => Judge::Vault(vault),
        (None, true) => Judge::Synced,
        (None, false) => Judge::Direct,
    }
}

/// The state of a late object in words. Where the vault is not opened, it may as well be damaged.
const fn late_words(is_unsure: bool) -> &'static str {
    if is_unsure {
        "has not arrived whole yet, or is damaged (which of them: vault check)"
    } else {
        "has not arrived yet"
    }
}

/// Reports a comparison. The exit code is that of a check: 4 if anything is damaged, 3 if the mirror is only behind or
/// something has not arrived. `is_unsure`: the vault was not opened, so what may be late may be damaged, too.
fn tell_compared(context: &Context, to: &str, found: &Comparison, is_unsure: bool) -> Result<Exit, Failure> {
    let mut out = Output::new();
    let left = || found.different.iter().filter(|different| !different.is_mended);
    let (late, unmended) = (left().any(|different| different.is_late), left().any(|different| !different.is_late));
    if context.global.json {
        let different = found.different.iter().map(|different| DifferenceJson {
            object: different.key.to_string(),
            what: &different.what,
            mended: different.is_mended,
            late: different.is_late,
        });
        out.json(&CompareJson {
            to: to.to_owned(),
            compared: found.compared,
            bytes: found.bytes,
            missing: found.missing.iter().map(ToString::to_string).collect(),
            different: different.collect(),
            damaged_in_vault: found.damaged_in_vault.iter().map(ToString::to_string).collect(),
            late: found.late.iter().map(ToString::to_string).collect(),
            surplus: found.surplus,
        })?;
    } else {
        for Difference { key, what, is_mended, is_late, .. } in &found.different {
            let why = if *is_late { format!(" {}", late_words(is_unsure)) } else { format!(": {what}") };
            let then = if *is_mended { "; it was put anew" } else { "" };
            out.styled(Style::Warning, &format!("{key} in the mirror{why}{then}"))?;
        }
        let is_different = |key| found.different.iter().any(|different| different.key == key);
        for key in &found.damaged_in_vault {
            let there = if is_different(*key) { "" } else { ", and whole in the mirror" };
            out.styled(Style::Warning, &format!("{key} is damaged in the vault{there}"))?;
        }
        for key in &found.late {
            out.styled(Style::Warning, &format!("{key} in the vault {}", late_words(is_unsure)))?;
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
            if found.is_alike() {
                out.say("The mirror has all that the vault has, as it is there.")?;
            }
        }
        if unmended {
            out.say("What is damaged in the mirror is put anew with: vault mirror --to PLACE --mend")?;
        }
        if late {
            out.say("What no sync brings to the mirror is put anew with: vault mirror --to PLACE --mend")?;
        }
        if !found.missing.is_empty() {
            out.say("What it does not have is copied with: vault mirror --to PLACE")?;
        }
        if !found.damaged_in_vault.is_empty() {
            out.say("The vault is mended out of the mirror with: vault repair --from PLACE")?;
        }
    }
    out.finish()?;
    let is_behind = late || !found.late.is_empty() || !found.missing.is_empty();
    Ok(match (unmended || !found.damaged_in_vault.is_empty(), is_behind) {
        (true, _) => Exit::Damage,
        (false, true) => Exit::Skipped,
        (false, false) => Exit::Done,
    })
}

/// Turns a mirror into a vault.
pub(super) fn promote(context: &Context, args: &PromoteArgs) -> Result<Exit, Failure> {
    let hint = "Give --yes to do it.";
    let consent = Consent::new(context, args.yes, "the mirror shall become a vault", hint)?;
    let (vault, _) = context.open()?;
    let place = vault.store().place();
    if !mirror::can_be_promoted(&vault)? {
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
