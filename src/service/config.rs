//! The configuration: which vaults there are, what is kept in which of them, how often, and who is told.
//!
//! [`parse`] from text to settings, with every mistake and its place · [`starter`] the text that a new file begins with.

pub mod parse;
pub mod starter;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::exclude::ExcludeOptions;
use crate::engine::text;
use crate::engine::trust::VerifyOthers;
use crate::store::place::Place;

use crate::failure::Failure;
use crate::failure::quoted;
use crate::service::keep::Keep;

/// A longer file is no configuration.
const LEN_MAX: u64 = 1 << 20;
/// How many mistakes a command names that only wanted to use the configuration.
const MISTAKES_SHOWN: usize = 3;

/// Everything that the file says.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The vault that is meant where none is named.
    pub default_vault: Option<String>,
    /// The vaults, in the order of the file.
    pub vaults: Vec<VaultConfig>,
    /// The sources, in the order of the file.
    pub sources: Vec<SourceConfig>,
    /// How `vault run` works.
    pub run: RunConfig,
    /// Who is told.
    pub notify: NotifyConfig,
}

/// A vault.
#[derive(Debug, Clone, PartialEq)]
pub struct VaultConfig {
    /// Its name here.
    pub name: String,
    /// Its folder, absolute, or its address.
    pub place: Place,
    /// Where its password comes from, if the file says so.
    pub password: Option<PasswordFrom>,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// How packs that other machines put are looked at before something new relies on them.
    pub others: VerifyOthers,
    /// It may be away, such as a disk that is not always connected: that is no failure until a source is overdue.
    pub removable: bool,
    /// How often `vault run` checks it; `None`: never.
    pub check_every: Option<Duration>,
    /// The part (0 to 1) of the bytes that each such check reads.
    pub check_sample: f64,
    /// How long each such check may read.
    pub check_max_time: Option<Duration>,
    /// How often `vault run` tries a restore of a sample out of it; `None`: never.
    pub drill_every: Option<Duration>,
    /// The id that the vault has, or the start of it: another one is not opened.
    pub id: Option<String>,
    /// After how long without a record a client is retired by `vault run`; `None`: never.
    pub retire_after: Option<Duration>,
    /// The vault out of which `vault run` copies what it has just taken there, instead of reading the disk once more.
    pub copy_from: Option<String>,
}

impl VaultConfig {
    /// A vault in this place, with the default settings.
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
        }
    }
}

/// Where a password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordFrom {
    /// The first line of a file.
    File(PathBuf),
    /// The first line that a command prints.
    Command(OsString),
    /// The keyring of the system, asked for `vault` and the name of the vault.
    Keyring(String),
}

/// What is kept together.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Its name, which its snapshots carry.
    pub name: String,
    /// The files and folders, absolute.
    pub paths: Vec<PathBuf>,
    /// Names of the vaults that it goes to.
    pub vaults: Vec<String>,
    /// It is due when its last snapshot is older than this.
    pub every: Duration,
    /// It is overdue when its last snapshot is older than this.
    pub overdue: Duration,
    /// What is left out, but for the patterns in files.
    pub exclude: ExcludeOptions,
    /// Files of patterns.
    pub exclude_from: Vec<PathBuf>,
    /// Which of its snapshots stay; `None`: all.
    pub keep: Option<Keep>,
    /// Tags of its snapshots.
    pub tags: Vec<String>,
    /// Make no snapshot if nothing changed.
    pub skip_if_unchanged: bool,
    /// Commands that run with it.
    pub hooks: Hooks,
}

/// Commands that run with a source, by the system's shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Runs before its first snapshot.
    pub before: Option<String>,
    /// Runs after its last one, whatever became of it.
    pub after: Option<String>,
    /// Runs then if something failed.
    pub on_failure: Option<String>,
    /// Whether the source is taken although `before` failed.
    pub go_on: bool,
    /// A command that takes longer is ended, and has failed.
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { before: None, after: None, on_failure: None, go_on: false, timeout: Duration::from_secs(3600) }
    }
}

/// In which order sources are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As they stand in the file.
    #[default]
    Listed,
    /// The ones with the fewest bytes first.
    SmallFirst,
}

/// How `vault run` works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunConfig {
    /// The order of the sources.
    pub order: Order,
    /// How many snapshots are taken at once, if they do not share a disk.
    pub parallel: usize,
    /// Whether what a schedule starts runs on battery too.
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

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NotifyConfig {
    /// Notices on the desktop.
    pub desktop: Desktop,
    /// An address that is called after each run, and with `/start` and `/fail` behind it.
    pub ping: Option<String>,
    /// A text file with figures for Prometheus.
    pub prometheus: Option<PathBuf>,
}

impl Config {
    /// The vault of this name.
    pub fn vault(&self, name: &str) -> Option<&VaultConfig> {
        self.vaults.iter().find(|vault| vault.name == name)
    }

    /// The vault that is meant where none is named: the default one, or the only one.
    pub fn default_vault(&self) -> Option<&VaultConfig> {
        match (&self.default_vault, self.vaults.as_slice()) {
            (Some(name), _) => self.vault(name),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

/// The name of the files in folders that say what is left out of them.
pub const IGNORE_FILE: &[u8] = b".vaultignore";

/// How a path begins that means the same wherever the program is started.
pub const WHOLE_PATH: &str = if cfg!(windows) { "a drive (C:/) or ~/" } else { "/ or ~/" };

/// The text of a configuration; `None` if there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, Failure> {
    let failed =
        |error: io::Error| Failure::caused(format!("cannot read the configuration {}", path.display()), &error);
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(found) if found.len() > LEN_MAX => return Err(failed(io::Error::other("it is too long"))),
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(failed)?;
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
