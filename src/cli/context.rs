//! The context of a command: the options, the chosen vault, the state folder and the identity of this machine and user.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::env;
use std::error::Error as _;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::catalogue::CatalogueError;
use crate::catalogue::Spare;
use crate::engine::keys::DeviceKey;
use crate::engine::keys::returned;
use crate::engine::place;
use crate::id::VaultId;
use crate::progress::Progress;
use crate::service::config;
use crate::service::config::Config;
use crate::service::config::FarConfig;
use crate::service::config::VaultConfig;
use crate::service::credentials;
use crate::service::folders;
use crate::service::temporary::Temporary;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::dir::DirStore;
use crate::store::paced::paced;
use crate::store::paced::paced_reads;
use crate::store::place::Address;
use crate::store::place::Place;
use crate::store::remote;
use crate::vault::Identity;
use crate::vault::LockedVault;
use crate::vault::ObjectState;
use crate::vault::OpenOptions;
use crate::vault::Vault;
use crate::vault::VaultError;
use crate::vault::Wanted;
use crate::vault::findings::note_away;
use crate::vault::open;
use crate::vault::slots::SlotFault;
use crate::write::trust::VerifyOthers;
use jiff::tz::TimeZone;

use crate::cli::again;
use crate::cli::args::GlobalArgs;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::chain;
use crate::cli::error::quoted;
use crate::cli::local;
use crate::cli::machine::Here;
use crate::cli::machine::Machine;
use crate::cli::password;
use crate::cli::password::Password;
use crate::cli::password::Sources;
use crate::cli::progress::Manner;
use crate::cli::progress::Screen;
use crate::cli::roots;
use crate::cli::suggest::nearest;

/// The maximum size in bytes of the local copies of a remote vault's trees, unless the configuration says otherwise.
const TREES_KEPT: u64 = 1 << 30;
/// The number of attempts for a typed password.
const PASSWORD_TRIES: usize = 3;

/// The vault that a command works on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    /// The vault's folder, absolute, or its address.
    pub place: Place,
    /// The vault's configuration, if it has one.
    pub config: Option<VaultConfig>,
}

impl Chosen {
    /// The folder or address in the form that is shown.
    pub(super) fn shown(&self) -> String {
        self.place.to_string()
    }

    /// Makes the opened vault follow its configuration.
    fn settle(&self, vault: &Vault) {
        if let Some(len) = self.config.as_ref().and_then(|config| config.pack_size) {
            vault.fix_pack_len(len);
        }
    }
}

/// The context of a command.
pub(super) struct Context {
    /// The options of every command.
    pub global: GlobalArgs,
    /// The local time zone.
    pub zone: TimeZone,
    /// Progress and warnings.
    pub screen: Screen,
    /// The configuration, once it is loaded.
    config: OnceLock<Option<Config>>,
    /// Passwords that were given before, by the vault's place.
    known: Mutex<HashMap<Place, Password>>,
    /// Stores on other machines that were opened before. All users of a store share its connection.
    far: Mutex<HashMap<Address, Arc<dyn Store>>>,
    /// Whether the command only reads, so that it needs no lasting state.
    reads_only: bool,
    /// The state of this command, if the user's own folder cannot be written.
    temporary: Mutex<Option<Temporary>>,
    /// Whether this command only looks into snapshots, and stores nothing.
    only_looks: AtomicBool,
    /// Whether nobody is asked for a password now.
    asks_nobody: AtomicBool,
    /// The least exit code of the command, whatever it returns itself.
    end: Mutex<Exit>,
}

impl Context {
    /// Makes a context from the options and the environment.
    pub(super) fn new(global: GlobalArgs) -> Self {
        let manner = Manner {
            json: global.json,
            verbose: global.verbose > 0,
            reasons: global.verbose > 1,
            bar: !global.quiet && !global.no_progress,
        };
        Self {
            screen: Screen::new(manner),
            zone: TimeZone::system(),
            config: OnceLock::new(),
            known: Mutex::default(),
            far: Mutex::default(),
            reads_only: false,
            temporary: Mutex::default(),
            only_looks: AtomicBool::default(),
            asks_nobody: AtomicBool::default(),
            end: Mutex::new(Exit::Done),
            global,
        }
    }

    /// The same context, for a command that only reads or one that does not.
    pub(super) fn reading(self, reads_only: bool) -> Self {
        Self { reads_only, ..self }
    }

    /// Makes the command end with this exit code or a worse one.
    pub(super) fn end_with(&self, exit: Exit) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        *end = end.worse(exit);
    }

    /// The exit code of a command that itself returns this one.
    pub(super) fn ended(&self, exit: Exit) -> Exit {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).worse(exit)
    }

    /// Remembers the password of this vault, so that it is not asked for again.
    pub(super) fn remember(&self, place: &Place, password: Password) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone(), password);
    }

    /// The path of the configuration, whether or not the file exists.
    pub(super) fn config_place(&self) -> Result<PathBuf, Failure> {
        if let Some(config) = &self.global.config {
            local::refuse_remote(config, "the configuration")?;
        }
        folders::config(self.global.config.as_deref(), &current_folder()?, &Here)
    }

    /// The configuration; `None` if there is no file. A file that an option names must exist.
    pub(super) fn config(&self) -> Result<Option<&Config>, Failure> {
        if let Some(config) = self.config.get() {
            return Ok(config.as_ref());
        }
        let loaded = match self.config_place() {
            Ok(path) => {
                let loaded = config::load(&path, Here.home().as_deref())?;
                if loaded.is_none() && self.global.config.is_some() {
                    return Err(Failure::new(format!("there is no configuration {}", path.display()))
                        .hint("Is the path right? One to begin with is written by: vault config init"));
                }
                loaded
            }
            Err(failure) if self.global.config.is_some() => return Err(failure),
            Err(_) => None, // without a home folder there is none
        };
        Ok(self.config.get_or_init(|| loaded).as_ref())
    }

    /// The chosen vault: a folder, or a name in the configuration; without either, the configuration's default.
    pub(super) fn chosen(&self) -> Result<Chosen, Failure> {
        self.chosen_by(self.global.repo.as_deref())
    }

    /// The vault with this folder, address or name.
    pub(super) fn chosen_by(&self, repo: Option<&std::path::Path>) -> Result<Chosen, Failure> {
        if let Some(state) = &self.global.state {
            local::refuse_remote(state, "the state folder")?;
        }
        let Some(repo) = repo.filter(|repo| !repo.as_os_str().is_empty()) else {
            let config = self.config()?;
            if let Some(vault) = config.and_then(Config::default_vault) {
                return Ok(Chosen { place: vault.place.clone(), config: Some(vault.clone()) });
            }
            let names: Vec<String> =
                config.map(|config| &config.vaults).into_iter().flatten().map(|vault| quoted(&vault.name)).collect();
            let hint = if names.is_empty() {
                "Give --repo PATH, or set VAULT_REPO, or name one in the configuration: vault config init".to_owned()
            } else {
                format!("Give --repo NAME with one of: {} (or set default-vault)", names.join(", "))
            };
            return Err(Failure::usage("which vault?").hint(hint));
        };
        let is_named = |config: &Config| repo.to_str().is_some_and(|name| config.vault(name).is_some());
        let mut far = None;
        if !self.config().ok().flatten().is_some_and(is_named) {
            far = local::address(repo)?;
            if far.is_none() {
                if let Some(text) = repo.to_str().filter(|text| local::looks_remote(text)) {
                    return Err(local::unknown_address(text));
                }
                local::refuse_remote(repo, "a vault")?;
            }
        }
        if let Some(address) = far {
            let place = Place::Far(address);
            let config = self.config().ok().flatten();
            let config = config.and_then(|config| config.vaults.iter().find(|vault| vault.place == place).cloned());
            return Ok(Chosen { place, config });
        }
        let place = roots::absolute(&current_folder()?, repo);
        // A single word may be a name; `./word` is always a folder.
        if let Some(word) = repo.to_str().filter(|word| !word.contains(['/', '\\'])) {
            match self.config() {
                Ok(Some(config)) => {
                    if let Some(vault) = config.vault(word) {
                        return Ok(Chosen { place: vault.place.clone(), config: Some(vault.clone()) });
                    }
                    if !place.exists()
                        && let Some(name) = nearest(word, config.vaults.iter().map(|vault| vault.name.as_str()))
                    {
                        self.screen.detail(&format!("the configuration has no vault '{word}', but '{name}'"));
                    }
                }
                Err(failure) if !place.exists() => return Err(failure),
                Ok(None) | Err(_) => {}
            }
        }
        // The folder may belong to a vault in the configuration, whose settings then apply.
        let config = self.config().ok().flatten();
        let place = Place::Folder(place);
        let config = config.and_then(|config| config.vaults.iter().find(|vault| vault.place == place).cloned());
        Ok(Chosen { place, config })
    }

    /// The store at this place, which must exist.
    pub(super) fn store(&self, place: &Place) -> Result<Arc<dyn Store>, Failure> {
        let folder = match place {
            Place::Folder(folder) => folder,
            Place::Far(address) => return self.far(address),
        };
        match DirStore::open(folder) {
            Ok(store) => Ok(Arc::new(store)),
            Err(StoreError::Gone { .. }) => {
                let shown = place.to_string();
                let hint = self.away(place).unwrap_or_else(|| {
                    let place = quoted(&shown);
                    format!(
                        "Is the path right, and the disk connected? A new vault is made with: vault init --repo {place}"
                    )
                });
                Err(Failure::new(format!("there is no folder {shown}")).exit(Exit::Unreachable).hint(hint))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The hint where nothing is found in a place in which this machine knows a vault.
    fn away(&self, place: &Place) -> Option<String> {
        self.known_in(place).map(|id| format!("This machine knows the vault {id} there. Is its disk mounted?"))
    }

    /// The store at an address. Only the first request shows whether it exists.
    pub(super) fn far(&self, address: &Address) -> Result<Arc<dyn Store>, Failure> {
        let mut far = self.far.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = far.get(address) {
            return Ok(store.clone());
        }
        let store = remote::open(address, &self.far_settings(address)?, self.screen.surroundings())?;
        far.insert(address.clone(), store.clone());
        Ok(store)
    }

    /// Creates the folder of a new vault at an address, if that kind of store has folders.
    pub(super) fn prepare(&self, address: &Address) -> Result<(), Failure> {
        Ok(remote::prepare(address, &self.far_settings(address)?, self.screen.surroundings())?)
    }

    /// The settings of the line to an address in the configuration.
    fn far_config(&self, address: &Address) -> FarConfig {
        let config = self.config().ok().flatten();
        // A place is tried out in a folder of its own.
        let is_there = |place: &Address| place == address || place.beside() == *address;
        let vault =
            config.and_then(|config| config.vaults.iter().find(|vault| vault.place.address().is_some_and(is_there)));
        vault.map(|vault| vault.far.clone()).unwrap_or_default()
    }

    /// The settings that a store on another machine takes from this one.
    fn far_settings(&self, address: &Address) -> Result<remote::Settings, Failure> {
        let far = self.far_config(address);
        let wanted = |name: &str| remote::Settings::VARIABLES.iter().any(|start| name.starts_with(start));
        let variables =
            env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let variables = credentials::variables(far.credentials.as_ref(), variables.collect(), &Here)?;
        let usual = remote::Policy::default();
        Ok(remote::Settings {
            variables: variables.into_iter().filter(|(name, _)| wanted(name)).collect(),
            home: env::home_dir(),
            // An address that never answered may be wrong, so the first wait is shorter.
            policy: remote::Policy {
                patience_first: Duration::from_secs(30),
                patience: far.retry_for.unwrap_or(usual.patience),
                timeout: far.timeout.unwrap_or(usual.timeout),
                ..usual
            },
            connections: far.connections,
            ca_file: far.ca_file,
            storage_class: far.storage_class,
        })
    }

    /// The vault expected in this place. `name` is the place's name in the record of places.
    pub(super) fn wanted(&self, name: &str, config: Option<&VaultConfig>) -> Wanted {
        let id = config.and_then(|config| config.id.clone());
        let known = self.state_folder().ok().and_then(|state| place::known(&state, name).ok()).unwrap_or_default();
        Wanted { vault: self.global.vault.clone().or(id), known, slot: self.global.slot.clone() }
    }

    /// The vault that this machine remembers in this place.
    pub(super) fn known_in(&self, place: &Place) -> Option<VaultId> {
        self.remembered_in(place).ok().flatten()
    }

    /// The same, for those who must not take what cannot be read for unknown.
    ///
    /// # Errors
    /// If there may be a memory of the place, and it cannot be read.
    pub(super) fn remembered_in(&self, place: &Place) -> io::Result<Option<VaultId>> {
        let Ok(state) = self.state_folder() else { return Ok(None) };
        Ok(place::known(&state, &place_name(place))?.first().copied())
    }

    /// The id of the vault in a place, if it can be known without opening the vault. A store on another machine is not
    /// asked; this machine's record tells what was there.
    pub(super) fn id_in(&self, place: &Place) -> Option<VaultId> {
        let Place::Folder(folder) = place else { return self.known_in(place) };
        let store = DirStore::open(folder).ok()?;
        LockedVault::read(&store).ok()?.claimed_id(&self.wanted(&store.place(), None))
    }

    /// Records that this vault is in this place.
    pub(super) fn met(&self, name: &str, id: VaultId, is_said: bool, others: &BTreeSet<VaultId>) {
        let met = self.state_folder().map(|state| place::met(&state, name, id, is_said, others));
        if let Ok(Err(error)) = met {
            self.screen.detail(&format!("it cannot be remembered which vault lies here: {error}"));
        }
    }

    /// Whether there is a vault at this place, or the remains of one.
    pub(super) fn has_vault(&self, place: &Place) -> Result<bool, Failure> {
        match place {
            Place::Folder(folder) => local::has_vault_in(folder),
            Place::Far(address) => match local::holds_vault(self.far(address)?.as_ref()) {
                Err(StoreError::Gone { .. }) => Ok(false),
                found => Ok(found?),
            },
        }
    }

    /// The sources of the vault's password: the options, the environment and the configuration.
    pub(super) fn password_sources<'a>(&'a self, chosen: &'a Chosen) -> Sources<'a> {
        Sources {
            file: self.global.password_file.as_deref(),
            command: self.global.password_command.as_deref(),
            option: "password",
            variable: "VAULT_PASSWORD",
            config: chosen.config.as_ref().and_then(|vault| vault.password.as_ref()),
        }
    }

    /// Opens the vault, and asks for the password if need be.
    pub(super) fn open(&self) -> Result<(Vault, Password), Failure> {
        self.open_chosen(&self.chosen()?, None, &self.screen)
    }

    /// Opens the vault if that needs nobody at the keyboard, for work that needs no key unless something is not whole.
    pub(super) fn open_unasked(&self) -> Option<Vault> {
        self.asks_nobody.store(true, Ordering::Relaxed);
        let opened = self.open();
        self.asks_nobody.store(false, Ordering::Relaxed);
        opened.ok().map(|(vault, _)| vault)
    }

    /// Opens the vault to look into snapshots. The positions of chunks in packs are looked up only when needed.
    pub(super) fn open_to_read(&self) -> Result<Vault, Failure> {
        self.only_looks.store(true, Ordering::Relaxed);
        Ok(self.open()?.0)
    }

    /// Opens the vault with a password, never with this machine's device key.
    pub(super) fn open_by_password(&self) -> Result<(Vault, Password), Failure> {
        let chosen = self.chosen()?;
        let (store, locked) = self.existing_store(&chosen)?;
        let password = password::existing(self.password_sources(&chosen), &chosen.shown())?;
        let wanted = self.wanted(&store.place(), chosen.config.as_ref());
        let vault = self.try_open(store, &locked, &password, &wanted, None, &self.screen)?;
        Ok((vault, password))
    }

    /// The store, limited to the speeds of `--limit-upload` and `--limit-download`.
    pub(super) fn paced(&self, mut store: Arc<dyn Store>) -> Arc<dyn Store> {
        let begun = Instant::now();
        if let Some(rate) = self.global.limit_upload {
            store = Arc::new(paced(store, rate, move || begun.elapsed(), self.screen.waiter()));
        }
        if let Some(rate) = self.global.limit_download {
            store = Arc::new(paced_reads(store, rate, move || begun.elapsed(), self.screen.waiter()));
        }
        store
    }

    /// The store of a vault, which must exist.
    fn existing_store(&self, chosen: &Chosen) -> Result<(Arc<dyn Store>, LockedVault), Failure> {
        let store = self.store(&chosen.place)?;
        let locked = match (chosen.place.address(), self.state_folder()) {
            (Some(address), Ok(state)) => LockedVault::read_keeping(store.as_ref(), &slots_folder(&state, address))?,
            _ => LockedVault::read(store.as_ref())?,
        };
        if locked.is_empty() {
            // This failure comes before anyone types a password.
            let failure = Failure::from(VaultError::NoVault { place: store.place() });
            return Err(if let Some(hint) = self.away(&chosen.place) { failure.hint(hint) } else { failure });
        }
        locked.require_finished(&|| store.place())?;
        Ok((store, locked))
    }

    /// Opens this vault as a machine of this name, and reports to `progress`.
    pub(super) fn open_chosen(
        &self,
        chosen: &Chosen,
        host: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<(Vault, Password), Failure> {
        let opened =
            self.open_by(chosen, self.existing_store(chosen)?, self.password_sources(chosen), None, host, progress)?;
        chosen.settle(&opened.0);
        Ok(opened)
    }

    /// Opens a vault that another one is compared with or copied to. Its password has sources of its own. If they have
    /// none and this machine has no device key, the other vault's password is tried.
    pub(super) fn open_other(
        &self,
        chosen: &Chosen,
        sources: Sources<'_>,
        (vault, password): (&Vault, &Password),
        only_looks: bool,
    ) -> Result<Vault, Failure> {
        let (store, locked) = self.existing_store(chosen)?;
        let wanted = self.wanted(&store.place(), chosen.config.as_ref());
        if !locked.is_mirror() && locked.claimed_id(&wanted) == Some(vault.id()) {
            let shown = quoted(&chosen.shown());
            return Err(Failure::usage(format!("{} holds the vault itself, and no mirror of it", chosen.shown()))
                .hint(format!(
                    "What is a mirror can be read beside the vault: vault mirror --repo {shown} --to ELSEWHERE"
                )));
        }
        let before = self.only_looks.fetch_or(only_looks, Ordering::Relaxed);
        let opened = self.open_by(chosen, (store, locked), sources, Some(password), None, &self.screen);
        self.only_looks.store(before, Ordering::Relaxed);
        let vault = opened?.0;
        chosen.settle(&vault);
        Ok(vault)
    }

    /// Opens a vault with the first of these that exists: its remembered or given password, this machine's device key,
    /// the password of the other vault, a typed password.
    fn open_by(
        &self,
        chosen: &Chosen,
        (store, locked): (Arc<dyn Store>, LockedVault),
        sources: Sources<'_>,
        other: Option<&Password>,
        host: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<(Vault, Password), Failure> {
        let wanted = self.wanted(&store.place(), chosen.config.as_ref());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&chosen.place).map(Password::again);
        let given = match known {
            Some(known) => Some(known),
            None => password::given(sources)?,
        };
        if given.is_none()
            && wanted.slot.is_none()
            && let Some(id) = locked.claimed_id(&wanted)
            && let Ok(state) = self.state_folder()
            && let Some(key) = DeviceKey::load(&state.join(id.to_string()))
        {
            let password = Password::device(&key);
            match self.try_open(store.clone(), &locked, &password, &wanted, host, progress) {
                Ok(vault) => return Ok((vault, password)),
                Err(VaultError::WrongSecret { .. }) => progress
                    .warn("the key of this machine opens the vault no more; make another with: vault key add --device"),
                Err(error) => return Err(error.into()),
            }
        }
        let given = if given.is_none() { password::unasked(sources)? } else { given };
        let mut refused = None;
        if given.is_none()
            && let Some(other) = other
        {
            match self.try_open(store.clone(), &locked, other, &wanted, host, progress) {
                Err(error @ VaultError::WrongSecret { .. }) => refused = Some(error),
                opened => return Ok((opened?, other.again())),
            }
        }
        let ask = || {
            if self.asks_nobody.load(Ordering::Relaxed) {
                return Err(Failure::new("a password is needed, and nobody is asked for it"));
            }
            let _hidden = self.screen.hide();
            password::existing(sources, &chosen.shown())
        };
        // If nobody can be asked, the other vault's password was the only one to try.
        let mut password = given.map_or_else(ask, Ok).map_err(|failure| refused.map_or(failure, Failure::from))?;
        for _ in 1..PASSWORD_TRIES {
            match self.try_open(store.clone(), &locked, &password, &wanted, host, progress) {
                Err(error @ VaultError::WrongSecret { .. }) if password.typed && !self.global.json => {
                    self.screen.aside(|| again(&chain(&error)));
                    password = ask()?;
                }
                opened => return Ok((opened?, password)),
            }
        }
        let vault = self.try_open(store, &locked, &password, &wanted, host, progress)?;
        Ok((vault, password))
    }

    /// Opens the vault in this store with this password, as a machine of this name.
    pub(super) fn open_with(
        &self,
        store: Arc<dyn Store>,
        password: &Password,
        host: Option<&str>,
    ) -> Result<Vault, Failure> {
        let wanted = self.wanted(&store.place(), None);
        let locked = LockedVault::read(store.as_ref())?;
        self.try_open(store, &locked, password, &wanted, host, &self.screen).map_err(Failure::from)
    }

    fn try_open(
        &self,
        store: Arc<dyn Store>,
        locked: &LockedVault,
        password: &Password,
        wanted: &Wanted,
        host: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Vault, VaultError> {
        let is_far = store.folder().is_none();
        let store = self.paced(store);
        let place = store.place();
        let open = |state: PathBuf| {
            let options = OpenOptions::new(state, identity(host)).with_spare(self.spare());
            let open =
                if self.only_looks.load(Ordering::Relaxed) { open::open_locked_to_read } else { open::open_locked };
            open(store.clone(), locked, &password.secret(), options, wanted, progress)
        };
        let state = self.state_folder().map_err(|failure| VaultError::State {
            action: "find",
            path: "the state folder".to_owned(),
            source: std::io::Error::other(failure.what),
        });
        let mut vault = state.and_then(open);
        if let (Err(error @ VaultError::OtherVault { known, .. }), Ok(state)) = (&vault, self.state_folder()) {
            note_away(&state.join(known.to_string()), &error.to_string());
        }
        if let Err(error) = &vault
            && self.reads_only
            && matches!(error, VaultError::State { .. } | VaultError::Catalogue(CatalogueError::Unusable { .. }))
        {
            let reason = error
                .source()
                .map_or_else(|| error.to_string(), |source| Failure::caused(error.to_string(), source).what);
            self.screen.clear();
            progress.warn(&in_temporary_folder(&reason));
            vault = self.temporary_state(locked, wanted).and_then(open);
        }
        self.screen.clear();
        let vault = vault?;
        if is_far {
            let address = Address::parse(&place).and_then(Result::ok);
            let max = address.and_then(|address| self.far_config(&address).cache).unwrap_or(TREES_KEPT);
            if max > 0 {
                vault.keep_trees(max);
            }
        }
        self.met(&place, vault.id(), wanted.vault.is_some(), &vault.others());
        tell_of_keys(&vault, progress);
        for bad in vault.bad_objects() {
            let (key, what) = (bad.key, &bad.what);
            progress.warn(&match bad.state {
                ObjectState::Newer => format!("{key}: {what} (it was written by a newer vault)"),
                ObjectState::NotArrived => format!("{key}: {what} (it has not arrived yet; all else can be used)"),
                ObjectState::Damaged => {
                    format!("{key} is damaged: {what} (all else can still be used; what to do: vault check)")
                }
                _ => format!("{key}: {what} (all else can still be used)"),
            });
        }
        for path in vault.foreign() {
            progress.detail(&format!("{path} lies in the vault's folder, but is not part of it"));
        }
        Ok(vault)
    }

    /// Where the catalogue of a command that only reads goes on if the state folder has no more room.
    fn spare(&self) -> Option<Spare> {
        let warn = self.screen.warner();
        self.reads_only
            .then(|| Spare::new(Here.temporary(), move |error| warn(&in_temporary_folder(&error.to_string()))))
    }

    /// A state folder that is removed at the end of this command.
    fn temporary_state(&self, locked: &LockedVault, wanted: &Wanted) -> Result<PathBuf, VaultError> {
        let state = self.state_folder().ok();
        let vault = locked.claimed_id(wanted).map(|id| id.to_string());
        let made = Temporary::new(&Here.temporary(), state.as_deref(), vault.as_deref()).map_err(|source| {
            VaultError::State { action: "make a folder in", path: Here.temporary().display().to_string(), source }
        })?;
        let path = made.path().to_owned();
        *self.temporary.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        Ok(path)
    }

    /// How packs of other machines are verified: as the command line says, or else the configuration.
    pub(super) fn verify_others(&self, given: Option<VerifyOthers>) -> VerifyOthers {
        let configured = || self.chosen().ok()?.config.map(|vault| vault.others);
        given.or_else(configured).unwrap_or_default()
    }

    /// The number of threads.
    pub(super) fn threads(&self) -> usize {
        self.global.threads.map_or_else(|| thread::available_parallelism().map_or(1, usize::from), usize::from)
    }

    /// If the user is root, gives new files in another user's state folder to that user.
    pub(super) fn give_back(&self) {
        if let Ok(state) = self.state_folder() {
            crate::fs::give_to_owner(&state);
        }
    }

    /// The folder for this user's state of all vaults.
    pub(super) fn state_folder(&self) -> Result<PathBuf, Failure> {
        if let Some(state) = &self.global.state {
            local::refuse_remote(state, "the state folder")?;
            local::refuse_in_vault(state, "what this machine keeps")?;
            return Ok(roots::absolute(&current_folder()?, state));
        }
        folders::state(&Here).ok_or_else(|| {
            Failure::new("there is no home folder to keep the catalogue in")
                .hint("Give --state DIR, or set VAULT_STATE_DIR.")
        })
    }

    /// Every folder that may hold state of this user's vaults: the one of this command, and the one that commands
    /// without its options use.
    pub(super) fn state_folders(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut folders = vec![self.state_folder()?];
        let set = env::var_os("VAULT_STATE_DIR").filter(|folder| !folder.is_empty());
        let set =
            set.map(|folder| Ok::<_, Failure>(roots::absolute(&current_folder()?, std::path::Path::new(&folder))));
        folders.extend(set.transpose()?.into_iter().chain(folders::state(&Here)));
        folders.sort_unstable();
        folders.dedup();
        Ok(folders)
    }
}

/// The warning of a command that only reads and cannot write to the user's state folder.
fn in_temporary_folder(reason: &str) -> String {
    format!("{reason}: a temporary folder is used for this command, and nothing is remembered")
}

/// The name of a place in the record of places.
pub(super) fn place_name(place: &Place) -> String {
    match place {
        Place::Folder(folder) => place::name_of(folder),
        Place::Far(address) => address.to_string(),
    }
}

/// The folder with the copies of a remote vault's key slots.
fn slots_folder(state: &Path, address: &Address) -> PathBuf {
    let hash = blake3::hash(address.to_string().as_bytes()).to_hex();
    state.join("slots").join(&hash[..16])
}

/// Warns of oddities in the ways to open a vault.
fn tell_of_keys(vault: &Vault, progress: &dyn Progress) {
    let short = |id: &dyn ToString| id.to_string()[..8].to_owned();
    let others: Vec<String> = vault.others().iter().map(|id| short(id)).collect();
    if !others.is_empty() {
        progress.warn(&format!(
            "the folder holds {} vaults; this is {}. To open another one: --vault {}",
            others.len() + 1,
            short(&vault.id()),
            others.join(", --vault ")
        ));
    }
    let opened_by = vault.opened_by();
    if vault.odd_slots().iter().any(|odd| odd.slot.id == opened_by && odd.fault == SlotFault::Unlisted) {
        progress.warn(&format!(
            "key slot {}, which opened the vault, is in no record of it: if nobody is just adding it, somebody put it there \
             (vault key list)",
            short(&opened_by)
        ));
    }
    for slot in returned(vault) {
        let opened =
            if slot == vault.opened_by() { "the password that was given opens it" } else { "it opens the vault" };
        progress.warn(&format!(
            "key slot {} was removed, and {opened} all the same: its file is still there, or was put back (vault key list)",
            short(&slot)
        ));
    }
}

/// The folder to which relative paths refer.
pub(super) fn current_folder() -> Result<PathBuf, Failure> {
    env::current_dir().map_err(|error| Failure::caused("cannot find the current folder", &error))
}

/// `USER@HOST`, as a label for a key slot.
pub(super) fn user_at_host() -> String {
    let Identity { user, host, .. } = identity(None);
    format!("{user}@{host}")
}

/// The identity that snapshots record. `machine` distinguishes machines and users even if their names are equal. It
/// contains the machine's own host name rather than the one that a snapshot shows, because machines made from one image
/// have one id but different names.
#[cfg(unix)]
fn identity(host: Option<&str>) -> Identity {
    let own_host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let uid = rustix::process::getuid().as_raw();
    let user = uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned());
    let machine = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .find_map(|path| crate::ownfile::read_text(Path::new(path)).ok())
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty());
    Identity {
        machine: format!("{} {uid} {own_host}", machine.unwrap_or_default()),
        host: host.map_or(own_host, str::to_owned),
        user: user.unwrap_or_else(|| uid.to_string()),
        program: program(),
    }
}

/// The identity that snapshots record. `machine` distinguishes machines and users even if their names are equal.
#[cfg(not(unix))]
fn identity(host: Option<&str>) -> Identity {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let own_host = variable("COMPUTERNAME").unwrap_or_else(|| "unknown".to_owned());
    let user = variable("USERNAME").unwrap_or_else(|| "unknown".to_owned());
    Identity {
        machine: format!("{own_host} {user}"),
        host: host.map_or(own_host, str::to_owned),
        user,
        program: program(),
    }
}

fn program() -> String {
    format!("vault {}", env!("CARGO_PKG_VERSION"))
}
