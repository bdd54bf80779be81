//! `vault key`.

use std::io;
use std::io::IsTerminal;

use crate::engine::keys;
use crate::engine::keys::Changed;
use crate::engine::keys::DeviceKey;
use crate::engine::keys::Removal;
use crate::engine::keys::SlotInfo;
use crate::engine::keys::SlotState;
use crate::engine::keys::When;
use crate::id::SlotId;
use crate::path::Shown;
use crate::seal::Purpose;
use crate::vault::Vault;
use serde::Serialize;

use crate::cli::args::Kdf;
use crate::cli::args::KeyCommand;
use crate::cli::args::NewPasswordArgs;
use crate::cli::consent::Consent;
use crate::cli::context;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::init;
use crate::cli::note;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::password;
use crate::cli::password::Password;
use crate::cli::password::Sources;
use crate::cli::select::ID_DIGITS_MIN;
use crate::cli::sheet;
use crate::cli::table;
use crate::cli::table::Column;
use crate::cli::units;
use crate::json::SlotsJson;
use crate::json::purpose;

/// The number of copies of each slot.
const COPIES: u64 = 2;

const COLUMNS: &[Column] = &[
    Column::left("Id"),
    Column::left("Kind"),
    Column::left("Label").min(8),
    Column::left("Made").drop(1),
    Column::left("State"),
];

/// A slot that was added or changed, as JSON.
#[derive(Serialize)]
pub(super) struct AddedJson {
    slot: String,
    recovery_key: Option<String>,
}

impl AddedJson {
    /// The JSON form of a password's slot.
    pub(super) fn password(slot: SlotId) -> Self {
        Self { slot: slot.to_string(), recovery_key: None }
    }
}

/// A slot that was removed, as JSON.
#[derive(Serialize)]
pub(super) struct RemovedJson {
    removed: String,
    /// The machines that do not know of the removal yet. Until they do, the slot stays.
    waiting: Vec<String>,
}

impl RemovedJson {
    /// The JSON form of a removal.
    pub(super) fn new(id: SlotId, removal: &Removal) -> Self {
        let waiting = match removal {
            Removal::Gone => Vec::new(),
            Removal::Waiting(clients) => clients.iter().map(ToString::to_string).collect(),
        };
        Self { removed: id.to_string(), waiting }
    }
}

/// Runs `vault key ...`.
pub(super) fn run(context: &Context, command: KeyCommand) -> Result<Exit, Failure> {
    match command {
        KeyCommand::List => list(context),
        KeyCommand::Add { recovery_key: true, label, .. } => add_recovery_key(context, label.as_deref()),
        KeyCommand::Add { device: true, label, .. } => add_device_key(context, label),
        KeyCommand::Add { new, label, .. } => add(context, &new, label),
        KeyCommand::Remove { id, yes, now } => remove(context, &id, yes, when(now)),
        KeyCommand::Passwd { new, now } => passwd(context, &new, when(now)),
    }
}

const fn when(now: bool) -> When {
    if now { When::Now } else { When::Known }
}

/// Publishes this machine's findings, and deletes key slots whose removal all machines know of.
pub(super) fn settle(context: &Context, vault: &Vault) {
    crate::service::settle::settle(vault, dates::now(), &context.screen);
    context.screen.clear();
}

fn state(slot: &SlotInfo) -> &'static str {
    match slot.state {
        SlotState::Valid if slot.copies < COPIES => "one copy is damaged",
        SlotState::Valid => "good",
        SlotState::Pending => "not recorded",
        SlotState::Removed => "removed, but still there",
        SlotState::Missing => "missing",
    }
}

fn list(context: &Context) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    let (slots, forged) = keys::list_all(&vault)?;
    let mut out = Output::new();
    if context.global.json {
        out.json(&SlotsJson::new(&slots))?;
    } else {
        let row = |slot: &SlotInfo| {
            vec![
                short(slot.id),
                purpose(slot.purpose).to_owned(),
                Shown(slot.label.as_bytes()).to_string(),
                dates::shown(dates::from_secs(slot.created), &context.zone),
                state(slot).to_owned(),
            ]
        };
        let mut lines = table::render(COLUMNS, &slots.iter().map(row).collect::<Vec<_>>(), out.width).into_iter();
        if let Some(titles) = lines.next() {
            out.head(&titles)?;
        }
        lines.try_for_each(|line| out.line(line))?;
        tell_states(context, &slots, forged, &mut out)?;
    }
    out.finish().map(|()| Exit::Done)
}

/// Explains every slot whose state is not simply good.
fn tell_states(context: &Context, slots: &[SlotInfo], forged: u64, out: &mut Output) -> Result<(), Failure> {
    let is_there = |state: SlotState| slots.iter().any(|slot| slot.state == state);
    if is_there(SlotState::Removed) {
        out.styled(
            Style::Warning,
            "A slot that was removed still opens the vault. In a synced folder it goes when all machines know of it; \
             otherwise its file was put back: vault repair",
        )?;
    }
    if is_there(SlotState::Pending) && !context.global.quiet {
        out.say(
            "A slot that is not recorded opens the vault: its record has not arrived yet, or its maker was cut off.",
        )?;
    }
    if is_there(SlotState::Missing) {
        out.styled(
            Style::Warning,
            "A slot that is missing opens nothing: its file was deleted, or has not arrived yet.",
        )?;
    }
    if forged > 0 {
        let count = units::counted(forged, "file looks", "files look");
        out.styled(
            Style::Warning,
            &format!("{count} like a key slot of this vault, but were not made with its key: they open nothing."),
        )?;
    }
    Ok(())
}

fn short(id: SlotId) -> String {
    id.to_string()[..8].to_owned()
}

fn add(context: &Context, new: &NewPasswordArgs, label: Option<String>) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    let password = new_password(context, new)?;
    let slot = add_password(context, &vault, &password, label, new.kdf)?;
    added(context, slot, &format!("Added the password as key slot {}; the others stay valid.", short(slot)))
}

/// Adds a password to an opened vault.
pub(super) fn add_password(
    context: &Context,
    vault: &Vault,
    password: &Password,
    label: Option<String>,
    kdf: Kdf,
) -> Result<SlotId, Failure> {
    let label = label.unwrap_or_else(context::user_at_host);
    let (secret, kdf, screen) = (password.secret(), init::kdf_params(kdf), &context.screen);
    let slot = keys::add(vault, &secret, Purpose::Password, &label, kdf, dates::now(), screen)?;
    settle(context, vault);
    Ok(slot)
}

/// Changes a password of an opened vault.
pub(super) fn change_password(
    context: &Context,
    vault: &Vault,
    (old, new): (&Password, &Password),
    kdf: Kdf,
    when: When,
) -> Result<Changed, Failure> {
    let kdf = init::kdf_params(kdf);
    let changed = keys::change(vault, &old.secret(), &new.secret(), kdf, when, dates::now(), &context.screen);
    context.screen.clear();
    Ok(changed?)
}

fn passwd(context: &Context, new: &NewPasswordArgs, when: When) -> Result<Exit, Failure> {
    // The password itself changes, so this machine's device key does not suffice.
    let (vault, old) = context.open_by_password()?;
    let password = new_password(context, new)?;
    let changed = change_password(context, &vault, (&old, &password), new.kdf, when)?;
    let text = match &changed.old {
        Removal::Gone => "The password is changed. Other passwords and recovery keys stay valid.".to_owned(),
        Removal::Waiting(clients) => {
            format!("The password is changed. The old one opens the vault until {}.", waiting_for(clients.len()))
        }
    };
    added(context, changed.slot, &text)
}

/// When a slot is deleted that was removed in a synced folder, in words.
fn waiting_for(machines: usize) -> String {
    format!(
        "{} know of it: it goes with a later snapshot or prune of this machine",
        units::counted(machines as u64, "other machine", "other machines")
    )
}

fn added(context: &Context, slot: SlotId, text: &str) -> Result<Exit, Failure> {
    let mut out = Output::new();
    if context.global.json {
        out.json(&AddedJson::password(slot))?;
    } else if !context.global.quiet {
        out.line(text)?;
    }
    out.finish().map(|()| Exit::Done)
}

fn add_recovery_key(context: &Context, label: Option<&str>) -> Result<Exit, Failure> {
    let (vault, password) = context.open()?;
    let (key, slot) = init::add_recovery_key(context, &vault, label.unwrap_or("recovery key"))?;
    let mut out = Output::new();
    let told = if context.global.json {
        out.json(&AddedJson { slot: slot.to_string(), recovery_key: Some(key.to_text().to_string()) })
    } else {
        init::tell_recovery_key(&key, Some(slot), password.typed && io::stdout().is_terminal(), &mut out)
    };
    if let Err(failure) = told.and_then(|()| out.hand_out()) {
        // A slot for a key that nobody has would only look like a way to open the vault.
        let gone = keys::remove(&vault, slot, When::Now, dates::now(), &context.screen);
        return Err(init::not_printed(failure, gone.map(drop).map_err(Failure::from)));
    }
    if password.typed {
        sheet::offer(context, &context.chosen()?.place, &key, Some(slot));
    }
    Ok(Exit::Done)
}

fn add_device_key(context: &Context, label: Option<String>) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    if let Some(key) = DeviceKey::load(vault.state())
        && keys::list(&vault)?.iter().any(|slot| slot.id == key.slot())
    {
        return Err(Failure::new(format!("this machine has a device key already: key slot {}", short(key.slot())))
            .hint("It is used by itself where no password is given. Remove it with: vault key remove"));
    }
    let label = label.unwrap_or_else(context::user_at_host);
    let slot = keys::add_device(&vault, &label, dates::now(), &context.screen)?;
    let text = format!(
        "Added a key of this machine as key slot {}; {} opens the vault without a password now.",
        short(slot),
        context::user_at_host()
    );
    added(context, slot, &text)
}

/// The start of a slot's id.
fn prefix_of(id: &str) -> Result<String, Failure> {
    let prefix = id.to_ascii_lowercase();
    if prefix.len() < ID_DIGITS_MIN || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!("'{id}' is not the id of a key slot: give {ID_DIGITS_MIN} digits or more"))
            .hint("See which there are with: vault key list"));
    }
    Ok(prefix)
}

fn remove(context: &Context, id: &str, yes: bool, when: When) -> Result<Exit, Failure> {
    prefix_of(id)?;
    let hint = "Give --yes to remove it. See which there are with: vault key list";
    let consent = Consent::new(context, yes, "the key slot shall be removed", hint)?;
    let (vault, _) = context.open()?;
    let agree = |slot: &SlotInfo| {
        if !consent.is_given() {
            warn_of(slot);
        }
        consent.ask(context, "Remove it?")
    };
    let (slot, label, removal) = remove_slot(context, &vault, id, when, &agree)?;
    removed(context, slot, &label, &removal)
}

/// Removes a slot of an opened vault, found by the start of its id, if `agree` agrees. Returns its id, its label and
/// the result.
pub(super) fn remove_slot(
    context: &Context,
    vault: &Vault,
    id: &str,
    when: When,
    agree: &dyn Fn(&SlotInfo) -> Result<(), Failure>,
) -> Result<(SlotId, String, Removal), Failure> {
    let prefix = prefix_of(id)?;
    // First finish earlier removals.
    let settled = keys::settle(vault, dates::now(), &context.screen)?;
    if let Some(gone) = settled.iter().find(|slot| slot.to_string().starts_with(&prefix)) {
        return Ok((*gone, String::new(), Removal::Gone));
    }
    let slots = keys::list(vault)?;
    let mut fitting = slots.iter().filter(|slot| slot.id.to_string().starts_with(&prefix));
    let slot = match (fitting.next(), fitting.next()) {
        (Some(slot), None) => slot,
        (None, _) => {
            return Err(
                Failure::new(format!("there is no key slot {id}")).hint("See which there are with: vault key list")
            );
        }
        (Some(_), Some(_)) => {
            return Err(Failure::new(format!("{id} is the start of several key slots' ids")).hint("Give more digits."));
        }
    };
    agree(slot)?;
    let removal = keys::remove(vault, slot.id, when, dates::now(), &context.screen);
    context.screen.clear();
    let removal = removal?;
    if DeviceKey::load(vault.state()).is_some_and(|key| key.slot() == slot.id) {
        DeviceKey::discard(vault.state())?;
    }
    Ok((slot.id, slot.label.clone(), removal))
}

/// Warns of the consequences of removing a slot.
fn warn_of(slot: &SlotInfo) {
    let what = match slot.purpose {
        Purpose::Password => "This password",
        Purpose::Recovery => "This recovery key",
        Purpose::Device => "This machine's key",
    };
    note(&format!(
        "{what} opens the vault no more: {} ({}). Whoever had it and has a copy of the vault from before can still read that copy.",
        short(slot.id),
        Shown(slot.label.as_bytes())
    ));
}

fn removed(context: &Context, id: SlotId, label: &str, removal: &Removal) -> Result<Exit, Failure> {
    let mut out = Output::new();
    if context.global.json {
        out.json(&RemovedJson::new(id, removal))?;
    } else if !context.global.quiet {
        let label = if label.is_empty() { String::new() } else { format!(" ({})", Shown(label.as_bytes())) };
        match removal {
            Removal::Gone => out.say(format_args!("Removed key slot {}{label}.", short(id)))?,
            Removal::Waiting(clients) => {
                let until = waiting_for(clients.len());
                out.say(format_args!("Removed key slot {}{label}. It opens the vault until {until}.", short(id)))?;
                out.say("If its password was stolen: vault key remove --now deletes it at once (see its help).")?;
            }
        }
    }
    out.finish().map(|()| Exit::Done)
}

fn new_password(context: &Context, new: &NewPasswordArgs) -> Result<Password, Failure> {
    let sources = Sources {
        file: new.new_password_file.as_deref(),
        command: new.new_password_command.as_deref(),
        option: "new-password",
        variable: "VAULT_NEW_PASSWORD",
        config: None,
    };
    password::new(sources, &context.chosen()?.shown())
}
