//! `vault repair`.

use std::path::Path;

use crate::engine::repair;
use crate::engine::repair::RepairOptions;
use crate::engine::repair::RepairPlan;
use crate::engine::repair::RepairReport;
use crate::engine::repair::packs::BrokenPack;
use crate::engine::repair::small::LostRecord;
use crate::path::Shown;
use crate::store::Delivery;
use crate::vault::ObjectState;
use crate::vault::Vault;
use crate::vault::findings::exit_of;
use serde::Serialize;

use crate::cli::accept;
use crate::cli::args::RepairArgs;
use crate::cli::check;
use crate::cli::check::HurtJson;
use crate::cli::check::ProblemJson;
use crate::cli::companion;
use crate::cli::consent::Consent;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::key;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::password::Password;
use crate::cli::password::Sources;
use crate::cli::units;

/// The number of items shown of each kind.
const SHOWN: usize = 20;

#[derive(Serialize)]
struct PackJson {
    object: String,
    what: String,
    segments: u64,
    segments_lost: u64,
    bytes_copied: u64,
}

#[derive(Serialize)]
struct AsideJson<'a> {
    object: String,
    what: &'a str,
}

#[derive(Serialize)]
struct RecordJson {
    object: String,
    client: Option<String>,
    number: Option<u64>,
    is_snapshot: Option<bool>,
}

#[derive(Serialize)]
struct RepairJson<'a> {
    dry_run: bool,
    vault_file: Option<&'a str>,
    key_slots_copied: Vec<String>,
    records_found: Vec<RecordJson>,
    records_lost: Vec<RecordJson>,
    aside: Vec<AsideJson<'a>>,
    catalogue_packs: u64,
    packs: Vec<PackJson>,
    chunks_lent: u64,
    bytes_lent: u64,
    /// The number of objects that may still return when everything in the place of `--from` has arrived.
    late: u64,
    files_copied: u64,
    hurt: Vec<HurtJson<'a>>,
    left: Vec<ProblemJson<'a>>,
    findings: Vec<String>,
    snapshots_marked: u64,
    moved_aside: u64,
    bytes_stored: u64,
    packs_left: Vec<String>,
    chunks_brought: u64,
    chunks_not_brought: u64,
    files_brought: u64,
    hurt_left: u64,
    /// The fault of RESTORE.txt, if it has one.
    restore_text: Option<&'a str>,
}

/// Runs `vault repair`.
pub(super) fn run(context: &Context, args: &RepairArgs) -> Result<Exit, Failure> {
    let hint = "Give --yes to do it, or --dry-run to see first what would be done.";
    let consent = Consent::new(context, args.dry_run || args.yes, "the repair shall be done", hint)?;
    let (vault, password) = context.open()?;
    context.screen.watch_interrupts();
    let donor = args.from.as_deref().map(|from| open_donor(context, args, from, (&vault, &password))).transpose()?;
    let options = RepairOptions {
        read_data: !args.quick,
        of_others: args.of_others,
        clock: &dates::now,
        threads: context.threads(),
        from: donor.as_ref(),
    };
    let plan = repair::plan(&vault, &options, &context.screen);
    context.screen.clear();
    let plan = plan?;
    let mut out = Output::new();
    // The report needs these facts of the plan, which is consumed by the repair.
    let (is_empty, mut has_losses, has_remarks) = (plan.is_empty(), plan.has_losses(), plan.has_remarks());
    let is_spare = plan.restores_redundancy_only();
    let late = plan.lent.late;
    // It is no part of the vault, so it decides no exit code.
    let text = companion::fault(&vault).filter(|_| !vault.is_mirror());
    let has_nothing = is_empty && text.is_none();
    let mut json = context.global.json.then(|| json_text(args.dry_run, &vault, &plan, text.as_deref())).transpose()?;
    if !context.global.json {
        tell(context, &vault, &plan, text.as_deref(), &mut out)?;
        out.flush()?;
    }
    let mut report = RepairReport::default();
    if args.dry_run || has_nothing {
        if !context.global.json && !context.global.quiet && !has_nothing {
            out.say("Dry run: nothing was changed. To do it: vault repair")?;
        }
    } else {
        consent.ask(context, "Do this?")?;
        report = carry_out(context, &vault, plan, &options, text.is_some())?;
        if !is_empty {
            has_losses = report.has_losses;
        }
        if !context.global.json && !context.global.quiet {
            tell_report(&report, &mut out)?;
        }
    }
    if let Some(json) = &mut json {
        add_done(json, &report, late);
        if !args.dry_run && !is_empty {
            json["hurt_left"] = report.hurt_left.into();
        }
        out.json(json)?;
    }
    key::settle(context, &vault);
    let known = vault.known_findings(dates::now())?;
    if !context.global.json && !args.dry_run {
        accept::tell(&known, &context.zone, &mut out)?;
    }
    out.finish()?;
    let is_due = args.dry_run && !is_empty;
    let is_left = has_losses || !report.packs_left.is_empty() || report.chunks_not_brought > 0 || is_due && !is_spare;
    let exit = match (is_left, is_due) {
        (true, _) => Exit::Damage,
        (false, true) => Exit::Skipped,
        (false, false) => Exit::Done,
    };
    Ok(exit.worse(if has_remarks { Exit::Skipped } else { Exit::Done }).worse(exit_of(&known)))
}

/// Does what is planned, and replaces RESTORE.txt if that is due.
fn carry_out(
    context: &Context,
    vault: &Vault,
    plan: RepairPlan,
    options: &RepairOptions<'_>,
    is_text_due: bool,
) -> Result<RepairReport, Failure> {
    let mut report = RepairReport::default();
    if !plan.is_empty() {
        let done = repair::execute(vault, plan, options, &context.screen);
        context.screen.clear();
        report = done?;
    }
    if is_text_due {
        companion::mend(vault)?;
        report.moved_aside += 1;
    }
    Ok(report)
}

/// Adds to the JSON form of a plan what was done. `late` is the number of objects that the plan found still under way.
fn add_done(json: &mut serde_json::Value, report: &RepairReport, late: u64) {
    json["moved_aside"] = report.moved_aside.into();
    json["bytes_stored"] = report.bytes_stored.into();
    json["chunks_brought"] = report.chunks_brought.into();
    json["chunks_not_brought"] = report.chunks_not_brought.into();
    json["files_brought"] = report.files_brought.into();
    json["late"] = report.late.max(late).into();
    json["packs_left"] = report.packs_left.iter().map(ToString::to_string).collect::<Vec<_>>().into();
}

/// Opens the vault at the place from which lost data may be fetched.
fn open_donor(context: &Context, args: &RepairArgs, from: &Path, vault: (&Vault, &Password)) -> Result<Vault, Failure> {
    let chosen = context.chosen_by(Some(from))?;
    let sources = Sources {
        file: args.from_password_file.as_deref(),
        command: args.from_password_command.as_deref(),
        option: "from-password",
        variable: "VAULT_FROM_PASSWORD",
        config: chosen.config.as_ref().and_then(|vault| vault.password.as_ref()),
    };
    context.open_other(&chosen, sources, vault, true)
}

fn record_json(lost: &LostRecord) -> RecordJson {
    RecordJson {
        object: format!("log/{}", lost.name),
        client: lost.place.map(|(client, _)| client.to_string()),
        number: lost.place.map(|(_, number)| number),
        is_snapshot: lost.is_snapshot,
    }
}

fn json_text(
    dry_run: bool,
    vault: &Vault,
    plan: &RepairPlan,
    restore_text: Option<&str>,
) -> Result<serde_json::Value, Failure> {
    let json = RepairJson {
        dry_run,
        vault_file: plan.vault_file.as_deref(),
        key_slots_copied: plan.slot_copies.iter().map(|copy| copy.id.to_string()).collect(),
        records_found: plan.found.iter().map(|(lost, _)| record_json(lost)).collect(),
        records_lost: plan.lost_records.iter().map(record_json).collect(),
        aside: plan.aside.iter().map(|aside| AsideJson { object: aside.key.to_string(), what: &aside.what }).collect(),
        catalogue_packs: plan.catalogue,
        packs: plan
            .packs
            .iter()
            .map(|pack| PackJson {
                object: pack.key().to_string(),
                what: pack.what.clone(),
                segments: pack.footer.segments.len() as u64,
                segments_lost: pack.segments_lost(),
                bytes_copied: pack.bytes_saved,
            })
            .collect(),
        chunks_lent: plan.lent.count(),
        bytes_lent: plan.lent.bytes,
        late: plan.lent.late,
        files_copied: plan.copies.count(),
        hurt: plan.hurt.iter().map(HurtJson::new).collect(),
        left: plan.left.iter().map(ProblemJson::new).collect(),
        findings: vault.findings().iter().map(ToString::to_string).collect(),
        snapshots_marked: plan.marks.as_ref().map_or(0, |marks| marks.snapshots.len() as u64),
        moved_aside: 0,
        bytes_stored: 0,
        packs_left: Vec::new(),
        chunks_brought: 0,
        chunks_not_brought: 0,
        files_brought: 0,
        hurt_left: plan.hurt.len() as u64,
        restore_text,
    };
    serde_json::to_value(json).map_err(|error| Failure::output(&error.into()))
}

/// Shows the first of these lines.
fn tell_some<T>(things: &[T], line: impl Fn(&T) -> String, out: &mut Output) -> Result<(), Failure> {
    things.iter().take(SHOWN).try_for_each(|thing| out.say(line(thing)))?;
    if things.len() > SHOWN {
        out.say(format_args!("  and {} more", units::count((things.len() - SHOWN) as u64)))?;
    }
    Ok(())
}

fn record_line(lost: &LostRecord) -> String {
    let sort = match lost.is_snapshot {
        Some(true) => ", a snapshot",
        Some(false) => "",
        None => ", perhaps a snapshot",
    };
    let place = lost.place.map_or_else(String::new, |(client, number)| {
        format!(" (number {number} of client {})", &client.to_string()[..8])
    });
    format!("record {}{place}{sort}", &lost.name.to_string()[..8])
}

fn pack_line(pack: &BrokenPack) -> String {
    let copied = if pack.bytes_saved > 0 {
        format!("{} of it copied first", units::size(pack.bytes_saved))
    } else {
        "nothing in it has to be copied".to_owned()
    };
    format!("move aside   {}: {}; {copied}", pack.key(), pack.what)
}

/// Explains what the objects that may still return are waiting for.
fn late_line(count: u64) -> String {
    let count = units::counted(count, "piece of what is lost is", "pieces of what is lost are");
    format!("{count} not there yet: when the sync has brought all of that place, run vault repair --from again")
}

fn tell(
    context: &Context,
    vault: &Vault,
    plan: &RepairPlan,
    text: Option<&str>,
    out: &mut Output,
) -> Result<(), Failure> {
    for finding in vault.findings() {
        out.styled(Style::Warning, &format!("log: {finding}"))?;
    }
    if plan.catalogue > 0 {
        out.say("catalogue    it was wrong, and was built anew from the vault")?;
    }
    if let Some(what) = &plan.vault_file {
        out.say(format_args!("make again   VAULT: {what}"))?;
    }
    if let Some(what) = text {
        out.say(format_args!("make again   {}: {what}", companion::NAME))?;
    }
    tell_some(&plan.slot_copies, |copy| format!("copy         key slot {}: one copy is left", copy.id), out)?;
    tell_some(
        &plan.found,
        |(lost, _)| format!("put again    {}: it is remembered on this machine", record_line(lost)),
        out,
    )?;
    tell_some(&plan.aside, |aside| format!("move aside   {}: {}", aside.key, aside.what), out)?;
    tell_some(&plan.lost_records, |lost| format!("lost         {}", record_line(lost)), out)?;
    tell_some(&plan.packs, pack_line, out)?;
    tell_back(plan, out)?;
    for problem in &plan.left {
        let why = match problem.state {
            ObjectState::Newer => "it was written by a newer vault; update this one",
            ObjectState::NotArrived => "it has not arrived yet; the sync brings it",
            _ => "it is left as it is",
        };
        out.styled(Style::Warning, &format!("left         {}: {} ({why})", problem.subject, problem.what))?;
    }
    check::tell_hurt(context, &plan.hurt, &vault.snapshots(), out)?;
    if !plan.hurt.is_empty() {
        out.say("Of these, the next snapshot stores again what it still finds on the disk.")?;
    }
    if (!plan.is_empty() || text.is_some()) && vault.delivery() == Delivery::Synced {
        out.styled(Style::Warning, "The vault is in a synced folder: go on only when all of it has arrived.")?;
    }
    if plan.is_empty() && text.is_none() && !context.global.quiet {
        out.styled(Style::Bold, why_nothing(vault, plan))?;
    }
    Ok(())
}

/// Why an empty plan is empty.
fn why_nothing(vault: &Vault, plan: &RepairPlan) -> &'static str {
    if plan.has_losses() {
        "Nothing more can be repaired here."
    } else if !plan.lost_records.is_empty() {
        "What is lost cannot be brought back from here: another machine may remember it, or it is accepted with vault accept."
    } else if plan.left.is_empty() && vault.findings().is_empty() {
        "Nothing is damaged."
    } else {
        "There is nothing to repair."
    }
}

/// Shows what comes back from elsewhere, and how that changes the snapshots.
fn tell_back(plan: &RepairPlan, out: &mut Output) -> Result<(), Failure> {
    if plan.lent.count() > 0 {
        let chunks = units::counted(plan.lent.count(), "piece of files and folders", "pieces of files and folders");
        out.say(format_args!("bring back   {chunks} ({})", units::size(plan.lent.bytes)))?;
    }
    if plan.lent.late > 0 {
        out.styled(Style::Warning, &format!("wait         {}", late_line(plan.lent.late)))?;
    }
    if plan.copies.count() > 0 {
        let files = units::counted(plan.copies.count(), "lost file or folder", "lost files and folders");
        out.say(format_args!("store again  {files}, as far as the copies have them"))?;
    }
    if let Some(marks) = &plan.marks {
        let whole = marks.snapshots.iter().filter(|snapshot| snapshot.count == 0).count() as u64;
        let hurt = marks.snapshots.len() as u64 - whole;
        if hurt > 0 {
            let count = units::counted(hurt, "snapshot has", "snapshots have");
            out.say(format_args!("mark         {count} lost something"))?;
        }
        if whole > 0 {
            let count = units::counted(whole, "snapshot is", "snapshots are");
            out.say(format_args!("unmark       {count} whole again"))?;
        }
    }
    Ok(())
}

fn tell_report(report: &RepairReport, out: &mut Output) -> Result<(), Failure> {
    for name in &report.packs_left {
        let name = Shown(name.to_string().as_bytes()).to_string();
        out.styled(Style::Warning, &format!("pack {name} could not be copied, and stays: run vault repair again"))?;
    }
    if report.chunks_not_brought > 0 {
        let chunks = units::counted(report.chunks_not_brought, "piece", "pieces");
        out.styled(Style::Warning, &format!("{chunks} could not be brought back: they are damaged there, too"))?;
    }
    if report.late > 0 {
        out.styled(Style::Warning, &late_line(report.late))?;
    }
    if report.files_brought > 0 {
        let files = units::counted(report.files_brought, "file or folder", "files and folders");
        let left = match report.hurt_left {
            0 => String::new(),
            left => {
                format!("; {} still", units::counted(left, "snapshot lacks something", "snapshots lack something"))
            }
        };
        out.say(format_args!("{files} came back from the copies{left}."))?;
    }
    let stored =
        if report.bytes_stored > 0 { format!(", {} written", units::size(report.bytes_stored)) } else { String::new() };
    if report.moved_aside == 0 {
        return out.styled(Style::Bold, &format!("Repaired: nothing had to be moved aside{stored}."));
    }
    let aside = units::counted(report.moved_aside, "object", "objects");
    out.styled(Style::Bold, &format!("Repaired: {aside} moved to quarantine/{stored}."))?;
    out.say("What is there can be deleted by hand when all is well: vault check --read-data")
}
