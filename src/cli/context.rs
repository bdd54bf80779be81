//! What every command works with: the vault's place, the state folder, who and when we are.

use std::env;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use jiff::tz::TimeZone;
use vault::progress::Progress;
use vault::store::ObjectKey;
use vault::store::Store;
use vault::store::StoreError;
use vault::store::dir::DirStore;
use vault::store::paced::PacedStore;
use vault::vault::Identity;
use vault::vault::OpenOptions;
use vault::vault::Vault;

use crate::cli::args::GlobalArgs;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::password;
use crate::cli::password::Password;
use crate::cli::password::Sources;
use crate::cli::progress::Manner;
use crate::cli::progress::Screen;
use crate::cli::roots;

/// What every command works with.
pub struct Context {
    /// The options of every command.
    pub global: GlobalArgs,
    /// The local time zone.
    pub zone: TimeZone,
    /// Progress and warnings.
    pub screen: Screen,
}

impl Context {
    /// As the options and the environment say.
    pub fn new(global: GlobalArgs) -> Self {
        let manner =
            Manner { json: global.json, verbose: global.verbose > 0, bar: !global.quiet && !global.no_progress };
        Self { screen: Screen::new(manner), zone: TimeZone::system(), global }
    }

    /// Where the vault is, absolute.
    pub fn place(&self) -> Result<PathBuf, Failure> {
        let Some(repo) = self.global.repo.as_deref().filter(|repo| !repo.as_os_str().is_empty()) else {
            return Err(Failure::usage("which vault?").hint("Give --repo PATH, or set VAULT_REPO."));
        };
        if repo.starts_with("~") {
            let shown = quoted(&repo.display().to_string());
            return Err(Failure::usage(format!("{shown}: the shell did not replace the ~"))
                .hint("Write $HOME instead, or ./~ for a folder of that name."));
        }
        Ok(roots::absolute(&current_folder()?, repo))
    }

    /// The store at this place, which must be there.
    pub fn store(place: &Path) -> Result<Arc<dyn Store>, Failure> {
        match DirStore::open(place) {
            Ok(store) => Ok(Arc::new(store)),
            Err(StoreError::Gone { .. }) => {
                let shown = place.display().to_string();
                Err(Failure::new(format!("there is no folder {shown}")).hint(format!(
                    "Is the path right, and the disk connected? A new vault is made with: vault init --repo {}",
                    quoted(&shown)
                )))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there is a vault at this place (or what is left of one).
    pub fn has_vault(place: &Path) -> Result<bool, Failure> {
        let store = match DirStore::open(place) {
            Ok(store) => store,
            Err(StoreError::Gone { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        match store.len(&ObjectKey::Vault) {
            Ok(_) => Ok(true),
            Err(StoreError::Missing { .. }) => {
                let mut found = false;
                store.list(vault::store::Kind::Key, &mut |_| found = true)?;
                Ok(found)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where the options and the environment say that the password of the vault is.
    pub fn password_sources(&self) -> Sources<'_> {
        Sources {
            file: self.global.password_file.as_deref(),
            command: self.global.password_command.as_deref(),
            option: "password",
            variable: "VAULT_PASSWORD",
        }
    }

    /// Opens the vault. The password is asked for if need be.
    pub fn open(&self) -> Result<(Vault, Password), Failure> {
        let place = self.place()?;
        let store = Self::store(&place)?;
        if !Self::has_vault(&place)? {
            // Said before anyone types a password.
            return Err(vault::vault::VaultError::NoVault { place: store.place() }.into());
        }
        let password = password::existing(self.password_sources(), &place.display().to_string())?;
        let vault = self.open_with(store, &password, None)?;
        Ok((vault, password))
    }

    /// The store, not written to faster than `--limit-upload` says.
    fn paced(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        let Some(rate) = self.global.limit_upload else { return store };
        let begun = Instant::now();
        Arc::new(PacedStore::new(store, rate, move || begun.elapsed(), self.screen.waiter()))
    }

    /// Opens the vault in this store with this password, as a machine of this name.
    pub fn open_with(&self, store: Arc<dyn Store>, password: &Password, host: Option<&str>) -> Result<Vault, Failure> {
        let options = OpenOptions { state: self.state_folder()?, identity: identity(host) };
        let store = self.paced(store);
        let vault = vault::vault::open::open(store, &password.secret(), options, &self.screen);
        self.screen.clear();
        let vault = vault?;
        for bad in vault.bad_objects() {
            let hint = if bad.newer { "it was written by a newer vault" } else { "all else can still be used" };
            let what = if bad.what.contains(&bad.object) { bad.what } else { format!("{}: {}", bad.object, bad.what) };
            self.screen.warn(&format!("{what} ({hint})"));
        }
        for path in vault.foreign() {
            self.screen.detail(&format!("{path} lies in the vault's folder, but is not part of it"));
        }
        Ok(vault)
    }

    /// How many threads work.
    pub fn threads(&self) -> usize {
        self.global.threads.map_or_else(|| thread::available_parallelism().map_or(1, usize::from), usize::from)
    }

    fn state_folder(&self) -> Result<PathBuf, Failure> {
        if let Some(state) = &self.global.state {
            return Ok(roots::absolute(&current_folder()?, state));
        }
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || env::home_dir().filter(|home| home.is_absolute());
        let folder = if cfg!(windows) {
            absolute("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            home().map(|home| home.join("Library/Application Support"))
        } else {
            absolute("XDG_STATE_HOME").or_else(|| home().map(|home| home.join(".local/state")))
        };
        folder.map(|folder| folder.join("vault")).ok_or_else(|| {
            Failure::new("there is no home folder to keep the catalogue in")
                .hint("Give --state DIR, or set VAULT_STATE_DIR.")
        })
    }
}

/// The folder that relative paths start from.
pub fn current_folder() -> Result<PathBuf, Failure> {
    env::current_dir().map_err(|error| Failure::caused("cannot find the current folder", &error))
}

/// `USER@HOST`, as a label for a key slot.
pub fn user_at_host() -> String {
    let Identity { user, host, .. } = identity(None);
    format!("{user}@{host}")
}

/// Who we are, as it is recorded in snapshots. `machine` tells machines and users apart even if their names are equal.
#[cfg(unix)]
fn identity(host: Option<&str>) -> Identity {
    let own_host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let uid = rustix::process::getuid().as_raw();
    let user = uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned());
    let machine = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty());
    Identity {
        machine: format!("{} {uid}", machine.unwrap_or_else(|| own_host.clone())),
        host: host.map_or(own_host, str::to_owned),
        user: user.unwrap_or_else(|| uid.to_string()),
        program: program(),
    }
}

/// Who we are, as it is recorded in snapshots. `machine` tells machines and users apart even if their names are equal.
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
