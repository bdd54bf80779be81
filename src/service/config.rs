//! The configuration: the vaults, the sources and the vaults that each goes to, the intervals, and the notifications.
//!
//! [`parse`] turns text into settings, and finds every mistake with its position · [`starter`] writes the text of a new
//! file.

pub mod parse;
pub mod starter;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::patterns::exclude::ExcludeOptions;
use crate::store::place::Place;
use crate::text;
use crate::write::trust::VerifyOthers;

use crate::failure::Failure;
use crate::failure::quoted;
use crate::ownfile;
use crate::service::keep::Keep;

/// The maximum length of a configuration file in bytes.
const LEN_MAX: u64 = 1 << 20;
/// The number of mistakes shown by commands that only use the configuration.
const MISTAKES_SHOWN: usize = 3;

/// The content of the configuration file.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The name of the default vault.
    pub default_vault: Option<String>,
    /// The sources of secrets, in the order of the file.
    pub credentials: Vec<CredentialsConfig>,
    /// The vaults, in the order of the file.
    pub vaults: Vec<VaultConfig>,
    /// The sources, in the order of the file.
    pub sources: Vec<SourceConfig>,
    /// Settings of `vault run`.
    pub run: RunConfig,
    /// Notification settings.
    pub notify: NotifyConfig,
}

/// The settings of a vault.
#[derive(Debug, Clone, PartialEq)]
pub struct VaultConfig {
    /// The vault's name in this configuration.
    pub name: String,
    /// Its folder, absolute, or its address.
    pub place: Place,
    /// The source of its password, if the file names one.
    pub password: Option<PasswordFrom>,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// How packs of other machines are verified before new data relies on them.
    pub others: VerifyOthers,
    /// Whether the vault may be away, such as a disk that is not always connected. That is no failure until a source is
    /// overdue.
    pub removable: bool,
    /// The interval of checks by `vault run`; `None`: never.
    pub check_every: Option<Duration>,
    /// The part (0 to 1) of the bytes that each such check reads.
    pub check_sample: f64,
    /// The time limit for reading in each such check.
    pub check_max_time: Option<Duration>,
    /// The interval of restore drills by `vault run`; `None`: never.
    pub drill_every: Option<Duration>,
    /// The vault's id, or the start of it. A vault with another id is not opened.
    pub id: Option<String>,
    /// The time without a record after which `vault run` retires a client; `None`: never.
    pub retire_after: Option<Duration>,
    /// The vault from which `vault run` copies the snapshots that it has just taken there, instead of reading the disk
    /// again.
    pub copy_from: Option<String>,
    /// The size of full packs; `None`: what the size of the vault wants.
    pub pack_size: Option<u64>,
    /// The settings of the line, if the vault is at an address.
    pub far: FarConfig,
}

/// The settings of a vault on another machine. Those that are missing have the usual value for its kind of place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FarConfig {
    /// The maximum number of requests under way.
    pub connections: Option<usize>,
    /// A request that makes no progress for this long has failed.
    pub timeout: Option<Duration>,
    /// A request is repeated until the store has been silent for this long.
    pub retry_for: Option<Duration>,
    /// The storage class of packs.
    pub storage_class: Option<String>,
    /// A file with certificates of authorities that the server's certificate may come from.
    pub ca_file: Option<PathBuf>,
    /// The maximum size in bytes of the local copies of trees; 0: none are kept.
    pub cache: Option<u64>,
    /// The source of secrets; `None`: the environment, and what its tools have.
    pub credentials: Option<CredentialsConfig>,
}

/// A source of secrets for stores on other machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialsConfig {
    /// Its name in this configuration.
    pub name: String,
    /// The place where the secrets are.
    pub from: CredentialsFrom,
}

/// The place of secrets. Command and file give lines `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialsFrom {
    /// The output of a command.
    Command(OsString),
    /// A file that only its owner may read.
    File(PathBuf),
    /// Variables of the environment whose names begin with this.
    Environment(String),
}

impl VaultConfig {
    /// A vault in this place with the default settings.
    pub fn new(name: impl Into<String>, place: Place) -> Self {
        Self {
            name: name.into(),
            place,
            password: None,
            level: 3,
            others: VerifyOthers::Sample,
            removable: false,
            check_every: Some(Duration::from_secs(7 * 86_400)),
            check_sample: 0.02,
            check_max_time: Some(Duration::from_secs(600)),
            drill_every: None,
            id: None,
            retire_after: None,
            copy_from: None,
            pack_size: None,
            far: FarConfig::default(),
        }
    }
}

/// The source of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordFrom {
    /// The first line of a file.
    File(PathBuf),
    /// The first line that a command prints.
    Command(OsString),
    /// The system's keyring, in which the entry has the service `vault` and the vault's name.
    Keyring(String),
}

/// The settings of a source: files that are kept together.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// The source's name, which its snapshots carry.
    pub name: String,
    /// The files and folders, absolute.
    pub paths: Vec<PathBuf>,
    /// The names of the vaults that it goes to.
    pub vaults: Vec<String>,
    /// The source is due when its last snapshot is older than this.
    pub every: Duration,
    /// The source is overdue when its last snapshot is older than this.
    pub overdue: Duration,
    /// The exclusions, without the patterns in files.
    pub exclude: ExcludeOptions,
    /// Files with patterns to exclude.
    pub exclude_from: Vec<PathBuf>,
    /// The rules for the snapshots to keep; `None`: all of them.
    pub keep: Option<Keep>,
    /// Tags of its snapshots.
    pub tags: Vec<String>,
    /// Whether to take no snapshot if nothing changed.
    pub skip_if_unchanged: bool,
    /// The commands that run with the source.
    pub hooks: Hooks,
}

/// The commands that run with a source, in the system's shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Runs before the source's first snapshot.
    pub before: Option<String>,
    /// Runs after the source's last snapshot, whatever the result.
    pub after: Option<String>,
    /// Runs after the source's last snapshot if something failed.
    pub on_failure: Option<String>,
    /// Whether the source is taken even if `before` fails.
    pub go_on: bool,
    /// The time limit for a command. A command that exceeds it is ended, and counts as failed.
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { before: None, after: None, on_failure: None, go_on: false, timeout: Duration::from_secs(3600) }
    }
}

/// The order in which sources are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The order of the file.
    #[default]
    Listed,
    /// The sources with the fewest bytes first.
    SmallFirst,
}

/// The settings of `vault run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunConfig {
    /// The order of the sources.
    pub order: Order,
    /// The maximum number of snapshots taken at the same time, as far as they do not share a disk.
    pub parallel: usize,
    /// Whether scheduled runs work on battery, too.
    pub on_battery: bool,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self { order: Order::Listed, parallel: 2, on_battery: true }
    }
}

/// When a notice is shown on the desktop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Desktop {
    /// Never.
    Never,
    /// When something failed or is overdue.
    #[default]
    Failure,
    /// After every run that did something.
    Always,
}

/// Notification settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NotifyConfig {
    /// When notices are shown on the desktop.
    pub desktop: Desktop,
    /// An address that is called after each run; with `/start` appended before a run, and with `/fail` after a failed
    /// one.
    pub ping: Option<String>,
    /// A text file with figures for Prometheus.
    pub prometheus: Option<PathBuf>,
}

impl Config {
    /// The vault of this name.
    pub fn vault(&self, name: &str) -> Option<&VaultConfig> {
        self.vaults.iter().find(|vault| vault.name == name)
    }

    /// The vault that is used when none is named: the default one, or the only one.
    pub fn default_vault(&self) -> Option<&VaultConfig> {
        match (&self.default_vault, self.vaults.as_slice()) {
            (Some(name), _) => self.vault(name),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

/// The name of files in folders that list what is excluded from the folder.
pub const IGNORE_FILE: &[u8] = b".vaultignore";

/// The beginnings of a path that means the same in whatever folder the program is started.
pub const WHOLE_PATH: &str = if cfg!(windows) { "a drive (C:/) or ~/" } else { "/ or ~/" };

/// The text of a configuration; `None` if there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, Failure> {
    let failed =
        |error: io::Error| Failure::caused(format!("cannot read the configuration {}", path.display()), &error);
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(_) => {}
    }
    let bytes = ownfile::read_given(path, LEN_MAX).map_err(failed)?;
    let bytes = text::content(&bytes).map_err(|error| failed(io::Error::other(error)))?.to_vec();
    String::from_utf8(bytes).map(Some).map_err(|_| failed(io::Error::other("it is not UTF-8")))
}

/// Loads a configuration; `None` if there is no such file.
///
/// # Errors
/// If it cannot be read, or there is any mistake in it.
pub fn load(path: &Path, home: Option<&Path>) -> Result<Option<Config>, Failure> {
    let Some(text) = read(path)? else { return Ok(None) };
    let (config, mistakes) = parse::parse(&text, home);
    if mistakes.is_empty() {
        return Ok(Some(config));
    }
    let shown: Vec<String> = mistakes.iter().take(MISTAKES_SHOWN).map(|mistake| format!("\n  {mistake}")).collect();
    let more = mistakes.len().saturating_sub(MISTAKES_SHOWN);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    Err(Failure::usage(format!("the configuration {} has mistakes:{}{more}", path.display(), shown.concat()))
        .hint(format!("See all of them with: vault config check --config {}", quoted(&path.display().to_string()))))
}
