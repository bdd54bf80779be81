//! `vault init`, and the first snapshot's `--init`.

use std::collections::BTreeSet;
use std::io;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use crate::chunk::ChunkParams;
use crate::engine::keys;
use crate::engine::keys::When;
use crate::id::SlotId;
use crate::id::VaultId;
use crate::progress::Progress;
use crate::seal::KdfParams;
use crate::seal::Purpose;
use crate::seal::RecoveryKey;
use crate::service::delivery;
use crate::store::Delivery;
use crate::store::Store;
use crate::store::dir::DirStore;
use crate::store::place::Place;
use crate::vault::CreateOptions;
use crate::vault::Vault;
use crate::vault::VaultError;
use crate::vault::create;
use serde::Serialize;

use crate::cli::args::InitArgs;
use crate::cli::args::Kdf;
use crate::cli::args::NewVaultArgs;
use crate::cli::ask;
use crate::cli::companion;
use crate::cli::confirm;
use crate::cli::context;
use crate::cli::context::Chosen;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::local;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::password;
use crate::cli::password::Password;
use crate::cli::password::Sources;
use crate::cli::probe;
use crate::cli::sheet;

/// A newly made vault.
pub(super) struct Created {
    id: VaultId,
    /// Its key slots; the recovery key's is the last.
    slots: Vec<SlotId>,
    place: String,
    delivery: Delivery,
    recovery_key: Option<RecoveryKey>,
    /// Its place.
    at: Place,
    /// Its password.
    pub password: Password,
    /// Its store.
    pub store: Arc<dyn Store>,
}

/// A newly made vault, for `--json`.
#[derive(Serialize)]
pub(super) struct CreatedJson {
    vault: String,
    repo: String,
    delivery: &'static str,
    recovery_key: Option<String>,
}

impl From<&Created> for CreatedJson {
    fn from(created: &Created) -> Self {
        Self {
            vault: created.id.to_string(),
            repo: created.place.clone(),
            delivery: delivery::word(created.delivery),
            recovery_key: created.recovery_key.as_ref().map(|key| key.to_text().to_string()),
        }
    }
}

/// Runs `vault init`.
pub(super) fn run(context: &Context, args: &InitArgs) -> Result<Exit, Failure> {
    let other = args.like.as_deref().map(|repo| open_other(context, repo)).transpose()?;
    let mut out = Output::new();
    let is_named = context.global.repo.as_deref().is_some_and(|repo| !repo.as_os_str().is_empty());
    // A vault that is named by its place needs no configuration, not even a valid one.
    let config = if is_named { None } else { context.config()? };
    let vaults = config.map(|config| &config.vaults[..]).unwrap_or_default();
    if vaults.is_empty() {
        return init_one(context, args, &context.chosen()?, other.as_ref(), &mut out);
    }
    let (mut made, mut exit) = (0, Exit::Done);
    for vault in vaults {
        let chosen = Chosen { place: vault.place.clone(), config: Some(vault.clone()) };
        if context.has_vault(&chosen.place)? && !is_begun(context, &chosen.place)? {
            continue;
        }
        if vault.removable && !local::is_there(&chosen.place) {
            context.screen.warn(&format!(
                "{} is not connected now: no vault was made in {}",
                vault.name,
                chosen.shown()
            ));
            exit = Exit::Skipped;
            continue;
        }
        init_one(context, args, &chosen, other.as_ref(), &mut out)?;
        made += 1;
    }
    if made == 0 && exit == Exit::Done && !context.global.json && !context.global.quiet {
        out.say("All vaults of the configuration are there.")?;
    }
    out.finish().map(|()| exit)
}

/// Makes one vault, and reports it.
fn init_one(
    context: &Context,
    args: &InitArgs,
    chosen: &Chosen,
    other: Option<&Vault>,
    out: &mut Output,
) -> Result<Exit, Failure> {
    let created = create_as(context, chosen, &args.new, other)?;
    if context.global.json {
        let told = out.json(&CreatedJson::from(&created)).and_then(|()| created.handed_out(out));
        told.map_err(|failure| created.take_back_recovery_key(failure))?;
    } else {
        tell(context, &created, out)?;
        if !context.global.quiet {
            let next = match &chosen.config {
                Some(_) => "Next: vault run".to_owned(),
                None => format!("Next: vault snapshot --repo {} PATH", quoted(&created.place)),
            };
            out.line(next)?;
        }
    }
    out.flush().map(|()| Exit::Done)
}

/// Opens the vault whose chunk boundaries the new one shares.
fn open_other(context: &Context, repo: &Path) -> Result<Vault, Failure> {
    let chosen = context.chosen_by(Some(repo))?;
    let sources =
        Sources { file: None, command: None, option: "like-password", variable: "VAULT_LIKE_PASSWORD", config: None };
    if let Some(password) = password::given(sources)? {
        context.remember(&chosen.place, password);
    }
    Ok(context.open_chosen(&chosen, None, &context.screen)?.0)
}

/// Makes a vault. A person at a terminal is asked for missing values.
pub(super) fn create(context: &Context, new: &NewVaultArgs) -> Result<Created, Failure> {
    create_at(context, &context.chosen()?, new)
}

/// Makes a vault in this place.
pub(super) fn create_at(context: &Context, chosen: &Chosen, new: &NewVaultArgs) -> Result<Created, Failure> {
    create_as(context, chosen, new, None)
}

fn create_as(context: &Context, chosen: &Chosen, new: &NewVaultArgs, like: Option<&Vault>) -> Result<Created, Failure> {
    let place = chosen.place.clone();
    let shown = chosen.shown();
    let params = chunk_params(new.chunk_avg)?;
    let is_begun = is_begun(context, &place)?;
    if !is_begun && context.has_vault(&place)? {
        return Err(VaultError::Exists { place: shown }.into());
    }
    local::refuse_around(&place, "another vault")?;
    if !new.another && !is_begun {
        refuse_where_known(context, &place)?;
    }
    let guessed = || place.folder().map_or(Delivery::Direct, delivery::guess);
    let delivery = new.delivery.map_or_else(guessed, Delivery::from);
    let password = password::new(context.password_sources(chosen), &shown)?;
    let wants_recovery_key = new.recovery_key || offered(&password);
    let recovery_key = if wants_recovery_key { Some(generate()?) } else { None };
    let label = new.label.clone().unwrap_or_else(context::user_at_host);
    let how = How { label, kdf: kdf_params(new.kdf), params, delivery, like };
    let (made, store) = make(context, &place, &password, recovery_key.as_ref(), how)?;
    Ok(Created { id: made.id, slots: made.slots, place: shown, delivery, recovery_key, at: place, password, store })
}

/// Refuses to make a vault where this machine remembers one that is not there now: its disk may not be mounted.
pub(super) fn refuse_where_known(context: &Context, place: &Place) -> Result<(), Failure> {
    let anyway =
        format!("To make a new vault there all the same: vault init --another --repo {}", quoted(&place.to_string()));
    refuse_where_one_is_known(context, place, &anyway)
}

/// Refuses a place where this machine remembers a vault, or a mirror of one, that is not there now. `anyway` is the
/// hint at how to use it all the same.
pub(super) fn refuse_where_one_is_known(context: &Context, place: &Place, anyway: &str) -> Result<(), Failure> {
    let remembered = context.remembered_in(place).map_err(|error| {
        Failure::caused(
            format!("this machine may know a vault in {place}, and its memory of it cannot be read"),
            &error,
        )
        .hint(format!("Its folder is given with --state DIR, or VAULT_STATE_DIR. {anyway}"))
    })?;
    let Some(id) = remembered else { return Ok(()) };
    Err(Failure::new(format!("this machine knows the vault {id} in {place}, and it is not there now"))
        .exit(Exit::Unreachable)
        .hint(format!("Is its disk mounted? {anyway}")))
}

/// The options of a new vault.
pub(super) struct How<'a> {
    /// The label of the password's slot.
    pub label: String,
    /// The parameters that make the password hard to guess.
    pub kdf: KdfParams,
    /// The sizes of chunks.
    pub params: ChunkParams,
    /// How the vault reaches other machines.
    pub delivery: Delivery,
    /// The vault whose chunk boundaries and chunk sizes the new one shares.
    pub like: Option<&'a Vault>,
}

/// Makes a vault in a place, once all options are known.
pub(super) fn make(
    context: &Context,
    place: &Place,
    password: &Password,
    recovery_key: Option<&RecoveryKey>,
    how: How<'_>,
) -> Result<(create::Created, Arc<dyn Store>), Failure> {
    let store: Arc<dyn Store> = match place {
        Place::Folder(folder) => Arc::new(DirStore::create(folder)?),
        Place::Far(address) => {
            context.prepare(address)?;
            if how.delivery == Delivery::Direct && !probe::listings(context, address)?.are_current() {
                let failure =
                    Failure::new(format!("a list of {address} does not show at once what was put or deleted there"));
                return Err(failure.hint(
                    "Machines would take what they do not see for missing. Make the vault with --delivery synced; \
                     vault doctor ADDRESS says more.",
                ));
            }
            context.far(address)?
        }
    };
    let options = CreateOptions {
        secret: password.secret(),
        label: how.label,
        kdf: how.kdf,
        params: how.params,
        delivery: how.delivery,
        now: dates::now_secs(),
        recovery: recovery_key.map(RecoveryKey::secret),
    };
    let made = match how.like {
        Some(other) => create::create_like(store.as_ref(), &options, other.keyring()),
        None => create::create(store.as_ref(), &options),
    }?;
    place.folder().into_iter().for_each(companion::write);
    context.met(&store.place(), made.id, true, &BTreeSet::new());
    Ok((made, store))
}

/// Reports a new vault. The recovery key is printed even with `--quiet`, because it is shown only once. If it cannot be
/// printed, its slot is removed, because nobody has the key.
pub(super) fn tell(context: &Context, created: &Created, out: &mut Output) -> Result<(), Failure> {
    tell_all(context, created, out).map_err(|failure| created.take_back_recovery_key(failure))
}

fn tell_all(context: &Context, created: &Created, out: &mut Output) -> Result<(), Failure> {
    if !context.global.quiet {
        out.say(format_args!("Made a vault in {}.", created.place))?;
        if created.delivery == Delivery::Synced {
            out.say("It is treated as a folder that a program carries to other machines (see --delivery).")?;
        }
    }
    if let Some(key) = &created.recovery_key {
        let slot = created.slots.last().copied();
        tell_recovery_key(key, slot, created.password.typed, out)?;
        out.hand_out()?;
        if created.password.typed {
            sheet::offer(context, &created.at, key, slot);
        }
    }
    Ok(())
}

impl Created {
    /// Removes the recovery key's slot, because the key could not be printed.
    pub(super) fn take_back_recovery_key(&self, failure: Failure) -> Failure {
        let (Some(_), Some(slot)) = (&self.recovery_key, self.slots.last()) else { return failure };
        let gone = keys::discard_unrecorded(self.store.as_ref(), *slot).map_err(Failure::from);
        not_printed(failure, gone)
    }
}

impl Created {
    /// Writes out what was printed about the vault. If there is a recovery key in it, somebody must read it.
    pub(super) fn handed_out(&self, out: &mut Output) -> Result<(), Failure> {
        if self.has_recovery_key() { out.hand_out() } else { out.flush() }
    }

    /// Whether there is a recovery key to be printed.
    pub(super) const fn has_recovery_key(&self) -> bool {
        self.recovery_key.is_some()
    }

    /// Removes the recovery key's slot when the vault's log already has records of it.
    pub(super) fn take_back_recorded(&self, vault: &Vault, context: &Context, failure: Failure) -> Failure {
        let (Some(_), Some(slot)) = (&self.recovery_key, self.slots.last()) else { return failure };
        let gone = keys::remove(vault, *slot, When::Now, dates::now(), &context.screen);
        not_printed(failure, gone.map(drop).map_err(Failure::from))
    }
}

/// The failure for a recovery key that could not be printed. `gone` is the result of removing its slot.
pub(super) fn not_printed(failure: Failure, gone: Result<(), Failure>) -> Failure {
    let why = if failure.what.is_empty() { "nobody reads the output".to_owned() } else { failure.what };
    match gone {
        Ok(()) => Failure::new(format!("the recovery key could not be printed, and was taken back: {why}"))
            .hint("Make another with: vault key add --recovery-key"),
        Err(gone) => {
            Failure::new(format!("the recovery key could not be printed ({why}), nor taken back: {}", gone.what))
                .hint("Remove it with: vault key remove; see which it is with: vault key list")
        }
    }
}

/// Shows a recovery key, and waits until a person has written it down.
pub(super) fn tell_recovery_key(
    key: &RecoveryKey,
    slot: Option<SlotId>,
    person: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    out.say("Recovery key:\n")?;
    out.styled(Style::Bold, &format!("    {}", *key.to_text()))?;
    if let Some(slot) = slot {
        out.say(format_args!("    (key slot {})", &slot.to_string()[..8]))?;
    }
    out.say("\nIt opens the vault if the password is lost, for you and for anyone who finds it.")?;
    out.say("It is shown only now: write it down, and keep it away from this machine.")?;
    if person && io::stdin().is_terminal() {
        out.flush()?;
        ask("Press Enter when that is done. ");
    }
    Ok(())
}

/// Makes a recovery key and its slot.
pub(super) fn add_recovery_key(
    context: &Context,
    vault: &Vault,
    label: &str,
) -> Result<(RecoveryKey, SlotId), Failure> {
    let key = generate()?;
    let (secret, now, screen) = (key.secret(), dates::now(), &context.screen);
    let slot = keys::add(vault, &secret, Purpose::Recovery, label, KdfParams::Standard, now, screen)?;
    context.screen.clear();
    Ok((key, slot))
}

fn generate() -> Result<RecoveryKey, Failure> {
    RecoveryKey::generate().map_err(|error| Failure::caused("cannot make a recovery key", &error))
}

/// The parameters with this name.
pub(super) fn kdf_params(kdf: Kdf) -> KdfParams {
    match kdf {
        Kdf::Standard => KdfParams::Standard,
        Kdf::Strong => KdfParams::Strong,
    }
}

/// Whether the person who typed the password also wants a recovery key.
fn offered(password: &Password) -> bool {
    if !password.typed || !io::stdin().is_terminal() {
        return false;
    }
    confirm("Without the password nobody can read the vault.\nMake a recovery key to print, too? [Y/n] ", true)
}

fn chunk_params(avg: u64) -> Result<ChunkParams, Failure> {
    let avg = u32::try_from(avg).ok().filter(|avg| avg.is_power_of_two() && (1 << 10..=1 << 20).contains(avg));
    let avg = avg.ok_or_else(|| Failure::usage("the average size of a chunk must be a power of two from 1K to 1M"))?;
    Ok(ChunkParams::new(avg / 4, avg, avg * 4)?)
}

/// Whether the making of a vault in a place was interrupted, so that it can go on.
pub(super) fn is_begun(context: &Context, place: &Place) -> Result<bool, Failure> {
    Ok(context.has_vault(place)? && create::is_begun(context.store(place)?.as_ref())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes_are_checked() {
        for (avg, good) in
            [(1 << 16, true), (1 << 10, true), (1 << 20, true), (1 << 9, false), (1 << 21, false), (50_000, false)]
        {
            assert_eq!(chunk_params(avg).is_ok(), good, "{avg}");
        }
    }
}
