//! `vault key`.

use std::io;
use std::io::IsTerminal;

use serde::Serialize;
use vault::engine::keys;
use vault::engine::keys::DeviceKey;
use vault::engine::keys::SlotInfo;
use vault::id::SlotId;
use vault::path::Shown;
use vault::seal::Purpose;

use crate::cli::args::KeyCommand;
use crate::cli::args::NewPasswordArgs;
use crate::cli::context;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::init;
use crate::cli::json::SlotJson;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::password;
use crate::cli::password::Password;
use crate::cli::password::Sources;
use crate::cli::select::ID_DIGITS_MIN;
use crate::cli::table;
use crate::cli::table::Column;

/// Each slot is stored so many times.
const COPIES: u64 = 2;

const COLUMNS: &[Column] = &[
    Column::left("Id"),
    Column::left("Kind"),
    Column::left("Label").min(8),
    Column::left("Made").drop(1),
    Column::left("State"),
];

#[derive(Serialize)]
struct ListJson<'a> {
    slots: Vec<SlotJson<'a>>,
}

#[derive(Serialize)]
struct AddedJson {
    slot: String,
    recovery_key: Option<String>,
}

#[derive(Serialize)]
struct RemovedJson {
    removed: String,
}

/// Runs `vault key ...`.
pub fn run(context: &Context, command: KeyCommand) -> Result<Exit, Failure> {
    match command {
        KeyCommand::List => list(context),
        KeyCommand::Add { recovery_key: true, label, .. } => add_recovery_key(context, label.as_deref()),
        KeyCommand::Add { device: true, label, .. } => add_device_key(context, label),
        KeyCommand::Add { new, label, .. } => add(context, &new, label),
        KeyCommand::Remove { id } => remove(context, &id),
        KeyCommand::Passwd { new } => passwd(context, &new),
    }
}

fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Password => "password",
        Purpose::Recovery => "recovery",
        Purpose::Device => "device",
    }
}

fn list(context: &Context) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    let slots = keys::list(&vault)?;
    let mut out = Output::new();
    if context.global.json {
        out.json(&ListJson { slots: slots.iter().map(|slot| SlotJson::new(slot, purpose(slot.purpose))).collect() })?;
    } else {
        let row = |slot: &SlotInfo| {
            vec![
                short(slot.id),
                purpose(slot.purpose).to_owned(),
                Shown(slot.label.as_bytes()).to_string(),
                dates::shown(dates::from_secs(slot.created), &context.zone),
                if slot.copies < COPIES { "one copy is damaged".to_owned() } else { "good".to_owned() },
            ]
        };
        let mut lines = table::render(COLUMNS, &slots.iter().map(row).collect::<Vec<_>>(), out.width).into_iter();
        if let Some(titles) = lines.next() {
            out.styled(Style::Bold, &titles)?;
        }
        lines.try_for_each(|line| out.line(line))?;
    }
    out.finish().map(|()| Exit::Done)
}

fn short(id: SlotId) -> String {
    id.to_string()[..8].to_owned()
}

fn add(context: &Context, new: &NewPasswordArgs, label: Option<String>) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    let password = new_password(context, new)?;
    let label = label.unwrap_or_else(context::user_at_host);
    let slot =
        keys::add(&vault, &password.secret(), Purpose::Password, &label, init::kdf_params(new.kdf), dates::now_secs())?;
    added(context, slot, &format!("Added the password as key slot {}; the others stay valid.", short(slot)))
}

fn passwd(context: &Context, new: &NewPasswordArgs) -> Result<Exit, Failure> {
    // Not by the key of this machine: it is the password that changes.
    let (vault, old) = context.open_by_password()?;
    let password = new_password(context, new)?;
    let slot = keys::change(&vault, &old.secret(), &password.secret(), init::kdf_params(new.kdf), dates::now_secs())?;
    added(context, slot, "The password is changed. Other passwords and recovery keys stay valid.")
}

fn added(context: &Context, slot: SlotId, text: &str) -> Result<Exit, Failure> {
    let mut out = Output::new();
    if context.global.json {
        out.json(&AddedJson { slot: slot.to_string(), recovery_key: None })?;
    } else if !context.global.quiet {
        out.line(text)?;
    }
    out.finish().map(|()| Exit::Done)
}

fn add_recovery_key(context: &Context, label: Option<&str>) -> Result<Exit, Failure> {
    let (vault, password) = context.open()?;
    let (key, slot) = init::add_recovery_key(&vault, label.unwrap_or("recovery key"))?;
    let mut out = Output::new();
    if context.global.json {
        out.json(&AddedJson { slot: slot.to_string(), recovery_key: Some(key.to_text().to_string()) })?;
    } else {
        init::tell_recovery_key(&key, password.typed && io::stdout().is_terminal(), &mut out)?;
    }
    out.finish().map(|()| Exit::Done)
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
    let slot = keys::add_device(&vault, &label, dates::now_secs())?;
    let text = format!(
        "Added a key of this machine as key slot {}; {} opens the vault without a password now.",
        short(slot),
        context::user_at_host()
    );
    added(context, slot, &text)
}

fn remove(context: &Context, id: &str) -> Result<Exit, Failure> {
    let prefix = id.to_ascii_lowercase();
    if prefix.len() < ID_DIGITS_MIN || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!("'{id}' is not the id of a key slot: give {ID_DIGITS_MIN} digits or more"))
            .hint("See which there are with: vault key list"));
    }
    let (vault, _) = context.open()?;
    let slots = keys::list(&vault)?;
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
    keys::remove(&vault, slot.id)?;
    if DeviceKey::load(vault.state()).is_some_and(|key| key.slot() == slot.id) {
        DeviceKey::discard(vault.state())?;
    }
    let mut out = Output::new();
    if context.global.json {
        out.json(&RemovedJson { removed: slot.id.to_string() })?;
    } else if !context.global.quiet {
        out.line(format_args!("Removed key slot {} ({}).", short(slot.id), Shown(slot.label.as_bytes())))?;
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
