//! The options of the commands that put snapshots in the place of others: tag, amend, rewrite.

use std::ffi::OsString;

use crate::tree::Time;
use clap::Args;
use clap::Subcommand;
use clap_complete::engine::ArgValueCompleter;

use crate::cli::args::FilterArgs;
use crate::cli::args::snapshot::pattern;
use crate::cli::args::snapshot::time;
use crate::cli::offer;

/// `vault tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TagCommand,
}

/// The commands about tags.
#[derive(Debug, Subcommand)]
pub(crate) enum TagCommand {
    /// Add tags to snapshots
    #[command(after_help = "\
Examples:
  vault tag add important latest
  vault tag add important,2026 1f2e3d4c 5a6b7c8d

A snapshot gets a new id by this. The old one still leads to it.")]
    Add(TagChangeArgs),
    /// Take tags off snapshots
    #[command(after_help = "\
Example:
  vault tag remove important 1f2e3d4c")]
    Remove(TagChangeArgs),
}

/// Which tags, of which snapshots.
#[derive(Debug, Args)]
pub(crate) struct TagChangeArgs {
    /// The tags, with commas between them
    #[arg(add = ArgValueCompleter::new(offer::tags), value_name = "TAG[,TAG]")]
    pub tags: String,

    /// The snapshots
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT", required = true)]
    pub snapshots: Vec<OsString>,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `vault amend`.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("change").required(true).multiple(true).args(["description", "host", "time"])),
    after_help = "\
Examples:
  vault amend latest --description 'before the move'
  vault amend 1f2e3d4c --time 2019-05-31
  vault amend 1f2e3d4c 5a6b7c8d --host newname

Each snapshot keeps its files, its place among the others (but for --time) and
its pin. It gets a new id; the old one still leads to it. What was said before
stays in the records of the vault. Rules of prune count for each machine apart,
and there for given dates apart: so --host and --time may change what they keep."
)]
pub(crate) struct AmendArgs {
    /// The snapshots
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT", required = true)]
    pub snapshots: Vec<OsString>,

    /// Describe it like this; an empty text takes the description off
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,

    /// Say that it is of this machine
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,

    /// Date and time of what is in it, not in the future
    #[arg(long, value_name = "DATE", value_parser = time)]
    pub time: Option<Time>,
}

/// `vault rewrite`.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("patterns").required(true).multiple(true).args(["exclude", "iexclude"])),
    after_help = "\
Examples:
  vault rewrite --exclude '*.iso' --dry-run     what would go, from where
  vault rewrite --exclude /home/me/secret       from all snapshots, asking first
  vault rewrite --exclude '*.iso' 1f2e3d4c latest~1
  vault rewrite --exclude '*.iso' --source Documents --yes

Takes out of snapshots what should never have been in them. Patterns are those
of vault snapshot --exclude. Each snapshot keeps its date, its place, its tags
and its pin, and gets a new id; the old one leads to it.

What goes is gone for good with: vault prune --max-unused 0%. Until then whoever
has the password can get at it, for the usual prune leaves some of what nobody
needs for later. What another machine may still rely on waits for it, which
prune tells; what repair has put into the folder quarantine stays there, and
copies of the vault elsewhere have it all. That something of this name was left
out stays written in the snapshots. The next snapshot takes it again, unless it
excludes it, too.

A snapshot of which all would go stays as it is: vault forget is for these."
)]
pub(crate) struct RewriteArgs {
    /// The snapshots [default: all]
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT")]
    pub snapshots: Vec<OsString>,

    /// Take out what matches (can be given again)
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub exclude: Vec<String>,

    /// The same, upper and lower case alike
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub iexclude: Vec<String>,

    /// Say what would go, and change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}
