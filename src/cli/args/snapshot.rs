//! The options of `vault snapshot`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::engine::patterns::exclude::given;
use crate::tree::Time;
use crate::write::trust::VerifyOthers;
use clap::Args;

use super::NewVaultArgs;
use crate::cli::dates;
use crate::cli::units;

const WHAT: &str = "What";
const LEAVE_OUT: &str = "What to leave out";
const RECORD: &str = "What is recorded";
const HOW: &str = "How";

/// What is left out when a source is read.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ExcludeArgs {
    /// Leave out what matches a gitignore pattern (can be given again)
    #[arg(long, value_name = "PATTERN", help_heading = LEAVE_OUT, value_parser = pattern)]
    pub exclude: Vec<String>,

    /// The same, whether letters are upper or lower case (can be given again)
    #[arg(long, value_name = "PATTERN", help_heading = LEAVE_OUT, value_parser = pattern)]
    pub iexclude: Vec<String>,

    /// Leave out what matches a pattern in this file (can be given again)
    #[arg(long, value_name = "FILE", help_heading = LEAVE_OUT)]
    pub exclude_from: Vec<PathBuf>,

    /// Leave out the content of folders that contain a file of this name (can be given again)
    #[arg(long, value_name = "NAME", help_heading = LEAVE_OUT)]
    pub exclude_if_present: Vec<OsString>,

    /// Leave out the content of folders with a CACHEDIR.TAG
    #[arg(long, help_heading = LEAVE_OUT)]
    pub exclude_caches: bool,

    /// Leave out what is usually not wanted: caches, trash, what a system makes again (listed in docs/backup.md)
    #[arg(long, help_heading = LEAVE_OUT)]
    pub exclude_usual: bool,

    /// Leave out files with the nodump flag (chattr +d)
    #[arg(long, help_heading = LEAVE_OUT)]
    pub exclude_nodump: bool,

    /// Leave out files larger than this
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, help_heading = LEAVE_OUT)]
    pub exclude_larger_than: Option<u64>,

    /// Do not go into other file systems
    #[arg(short = 'x', long, help_heading = LEAVE_OUT)]
    pub one_file_system: bool,

    /// Take no notice of .vaultignore files
    #[arg(long, help_heading = LEAVE_OUT)]
    pub no_vaultignore: bool,
}

/// `vault snapshot`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault snapshot ~/Documents ~/Pictures
  vault snapshot --init --repo /mnt/disk/vault ~/Documents
  vault snapshot ~ --exclude '*.tmp' --exclude /Downloads --exclude-caches -x
  vault snapshot /etc --tag weekly --source config --skip-if-unchanged
  pg_dump shop | vault snapshot --stdin shop.sql
  vault snapshot --stdin shop.sql --command 'pg_dump shop'
  find . -name '*.odt' -print0 | vault snapshot --files-from - --from0

Only what changed is read and stored. Files that cannot be read are listed, and
the exit code is 3; a path that is missing is an error. It can be interrupted at
any time, and the next one goes on from there. Patterns are those of gitignore;
a .vaultignore file in a folder holds patterns for it.")]
pub(crate) struct SnapshotArgs {
    /// Files and folders to keep
    #[arg(value_name = "PATH", required_unless_present_any = ["stdin", "files_from"])]
    pub paths: Vec<PathBuf>,

    /// Keep the files that a file lists, one on each line (-: standard input)
    #[arg(long, value_name = "FILE", help_heading = WHAT)]
    pub files_from: Option<PathBuf>,

    /// The list of --files-from is separated by zero bytes
    #[arg(long, requires = "files_from", help_heading = WHAT)]
    pub from0: bool,

    /// Keep what comes from standard input, as a file of this name
    #[arg(long, value_name = "NAME", help_heading = WHAT)]
    pub stdin: Option<OsString>,

    /// With --stdin: keep what this shell command prints; if it fails, there is no snapshot
    #[arg(long, value_name = "COMMAND", requires = "stdin", help_heading = WHAT)]
    pub command: Option<OsString>,

    /// Take what is empty as it is: standard input, or what was not empty before, or was a mount point
    #[arg(long, help_heading = WHAT)]
    pub allow_empty: bool,

    /// Read pipes and devices to their ends, and keep what they give as files
    #[arg(long, help_heading = WHAT)]
    pub read_special: bool,

    /// What to leave out.
    #[command(flatten)]
    pub exclude: ExcludeArgs,

    /// Name of what is kept, under which its snapshots belong together [default: the paths]
    #[arg(long, value_name = "NAME", help_heading = RECORD)]
    pub source: Option<String>,

    /// Add a tag (can be given again)
    #[arg(long, value_name = "TAG", help_heading = RECORD)]
    pub tag: Vec<String>,

    /// A line of your own
    #[arg(long, value_name = "TEXT", help_heading = RECORD)]
    pub description: Option<String>,

    /// Name of the machine [default: the one it has]
    #[arg(long, value_name = "NAME", help_heading = RECORD)]
    pub host: Option<String>,

    /// Date and time of what is in it, not in the future [default: now]
    #[arg(long, value_name = "DATE", value_parser = time, help_heading = RECORD)]
    pub time: Option<Time>,

    /// Say what would be done, and store nothing
    #[arg(short = 'n', long, help_heading = HOW)]
    pub dry_run: bool,

    /// Make no snapshot if nothing changed since the last one
    #[arg(long, help_heading = HOW)]
    pub skip_if_unchanged: bool,

    /// Retire this client when the run is done: for machines that keep no state, such as containers, so that
    /// freeing space never waits for them
    #[arg(long, help_heading = HOW)]
    pub retire_after_run: bool,

    /// How hard to compress: fast, default, high, max, or 1 to 19
    #[arg(long, value_name = "LEVEL", value_parser = super::parse_level, default_value = "default", help_heading = HOW)]
    pub level: i32,

    /// Do not verify what was sealed before it is stored
    #[arg(long, help_heading = HOW)]
    pub no_verify: bool,

    /// How to look at packs that other machines put, before relying on them: none, sample (a part of each) or all
    #[arg(long, value_name = "HOW", value_parser = super::parse_verify_others, help_heading = HOW)]
    pub verify_others: Option<VerifyOthers>,

    /// Read every file, even if it seems unchanged
    #[arg(long, help_heading = HOW)]
    pub read_all: bool,

    /// Make the vault first, if there is none
    #[arg(long, help_heading = "Options for the new vault")]
    pub init: bool,

    /// How it is made.
    #[command(flatten)]
    pub new: NewVaultArgs,
}

/// Reads a pattern.
#[expect(clippy::unnecessary_wraps, reason = "clap asks for a result")]
pub(super) fn pattern(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(given(text))
}

/// Reads a date and time.
pub(super) fn time(text: &str) -> Result<Time, String> {
    dates::parse(text, &jiff::tz::TimeZone::system()).map(|span| span.from)
}
