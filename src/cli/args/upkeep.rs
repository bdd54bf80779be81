//! The options of the commands that keep a vault well: check, prune and their like.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::id::ObjectName;

use clap::Args;
use clap::Subcommand;
use clap_complete::engine::ArgValueCompleter;

use crate::cli::args::FilterArgs;
use crate::service::keep::Keep;
use crate::service::values::parse_duration;
use crate::service::values::parse_part;

use crate::cli::offer;
use crate::cli::units;

/// `vault check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault check                      all that is needed is there: fast
  vault check --read-data          and every byte is what it was
  vault check --sample 5%          the part not read for the longest time
  vault check --max-time 10m       as much of it as can be read in ten minutes

What was read when is remembered on this machine. Nothing is changed in the
vault, and its disk may be read-only. The exit code is 4 if there is damage.")]
pub struct CheckArgs {
    /// Read and verify every byte
    #[arg(long, conflicts_with = "sample")]
    pub read_data: bool,

    /// Read and verify a part of it: what was not read for the longest time
    #[arg(long, value_name = "PERCENT", value_parser = parse_part)]
    pub sample: Option<f64>,

    /// Begin to read nothing more after this time (alone: with --read-data)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub max_time: Option<Duration>,

    /// Prove that the vault is not older than this snapshot, by its whole id
    #[arg(long, value_name = "ID")]
    pub at_least: Option<ObjectName>,
}

/// `vault accept`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault accept             what is known to be wrong, and what would end it
  vault accept 1a2b3c4d    give up what this finding says is lost, asking first

What is known to be wrong stays known until it is seen to be right again, is
repaired, or is accepted here. Accepting changes nothing in what is stored: it
says that you know of the loss. New damage is a new finding.")]
pub struct AcceptArgs {
    /// Findings, as vault accept, list, check and doctor name them
    #[arg(add = ArgValueCompleter::new(offer::findings), value_name = "FINDING")]
    pub findings: Vec<String>,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `vault repair`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault repair --dry-run     what is damaged, and what would be done about it
  vault repair               the same, and after a question it is done
  vault repair --yes         without a question, for scripts
  vault repair --from /mnt/second/mirror    and bring back what is lost

Nothing is deleted: what cannot be used any more is moved to the folder
quarantine/ of the vault, when all of it that can still be read has been copied.
Snapshots that have lost something are marked (vault list shows them), and the
next snapshot of the same files stores again what it still finds, which mends
the old snapshots too. If the disk itself fails, copy the vault to another one
first, and repair it there. If the vault lies in a synced folder, wait until
all of it has arrived. The exit code is 4 if something is lost or left damaged.

With --from, what is lost here is brought back from a mirror of the vault, from
a vault that was made like it (vault init --like), or from one that has copies
of its snapshots (vault copy), as far as it is whole there. A mirror has the
password of the vault. That of another vault comes from the first of:
--from-password-file, --from-password-command, VAULT_FROM_PASSWORD (or _FILE,
_COMMAND), the configuration, the key of this machine, the terminal.")]
pub struct RepairArgs {
    /// Say what would be done, and change nothing in the vault
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// Look only at indexes, records and keys, and do not read all data
    #[arg(long)]
    pub quick: bool,

    /// Move aside broken packs that another machine has put, and would repair itself
    #[arg(long)]
    pub of_others: bool,

    /// Bring back what is lost from this mirror, or vault that has copies
    #[arg(long, value_name = "PLACE")]
    pub from: Option<PathBuf>,

    /// Read the password of that place from the first line of a file
    #[arg(long, value_name = "FILE", requires = "from", conflicts_with = "from_password_command")]
    pub from_password_file: Option<PathBuf>,

    /// Read it from the first line that a command prints
    #[arg(long, value_name = "COMMAND", requires = "from")]
    pub from_password_command: Option<OsString>,
}

/// `vault stats`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault stats             what takes the space
  vault stats --json      the same, for programs

What a snapshot holds alone is what forgetting it and then
vault prune --max-unused 0% give back, within about one part in a hundred and
some 100 KB of random padding. To know it, part of the data is compressed as the
prune would do it. (With the usual 5 %, prune leaves some of it for later.)
What several snapshots share is in no figure of a single one. Growth counts the
snapshots that are still there.")]
pub struct StatsArgs {
    /// Show all snapshots, not only the last twenty
    #[arg(short, long)]
    pub all: bool,
}

/// `vault doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault doctor                     is all well, and what is to be done
  vault doctor --overdue 2d        a source is overdue after two days
  vault doctor s3://bucket/vault   what this place does, before it is trusted

It reads little, and changes nothing. Without --overdue a source is overdue
when nothing came for three times as long as is usual for it (a week at least
if there are fewer than three snapshots of it). The exit code is 3 if something
should be done, 4 if there is damage.

With an address it tries out the place itself, and needs no vault there: it puts
objects of its own, reads, lists and deletes them, and says what that showed.
The code is 3 if the place should not be used as it is.")]
pub struct DoctorArgs {
    /// The address of a place on another machine that is tried out
    #[arg(value_name = "ADDRESS")]
    pub place: Option<String>,

    /// A source is overdue when its last snapshot is older than this
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub overdue: Option<Duration>,
}

/// `vault mirror`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault mirror --to /mnt/disk/vault      the vault's objects on a second disk
  vault mirror --to sftp://nas/vault     … and on another machine
  vault mirror --to /mnt/disk/vault --delete    … without what was pruned
  vault mirror --to /mnt/disk/vault --verify    read and compare all of it

No password is needed to add what is missing. Each object is verified before it
is copied. A mirror can be listed, restored from and checked like a vault, with
the same passwords, and nobody writes to it; when the vault is lost, vault
promote makes it one. Without --delete nothing ever goes from a mirror. Where
this machine knows a mirror that is not there, its disk may not be mounted:
nothing is copied then.")]
pub struct MirrorArgs {
    /// The folder or address of the mirror; it is empty the first time
    #[arg(long, value_name = "PLACE")]
    pub to: PathBuf,

    /// Delete there what the vault's records say was given up (asks for the password)
    #[arg(long)]
    pub delete: bool,

    /// Copy nothing: read each object of the mirror and name what is not as in the vault
    #[arg(long, conflicts_with_all = ["delete", "another"])]
    pub verify: bool,

    /// The same, and put what is damaged in the mirror anew
    #[arg(long, conflicts_with_all = ["delete", "another", "verify"])]
    pub mend: bool,

    /// Make a new mirror in a place where this machine knows one that is not there
    #[arg(long)]
    pub another: bool,
}

/// `vault copy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault copy --to /mnt/disk/vault           all snapshots that are not there yet
  vault copy latest --to s3://bucket/vault  one of them
  vault copy --source Documents --to offsite --dry-run

The other vault has keys of its own, so what opens one of them does not open the
other. Copies keep dates, machines, sources, tags and pins. What is there is not
stored again, a snapshot that is there is passed over, and a copy that is
interrupted goes on from there. Files that are damaged here are missing in the
copy, which is then partial (the exit code is 4); once they are mended, the next
copy takes its place. A snapshot waits for a later time (exit code 3) if not all
of it has arrived here, if a newer vault wrote some of it, or if its date lies
in the future.

The password of the other vault comes from the first of: --to-password-file,
--to-password-command, VAULT_TO_PASSWORD (or _FILE, _COMMAND), what the
configuration says, the key of this machine, the password of this vault, the
terminal.")]
pub struct CopyArgs {
    /// Snapshots, by id, date or latest; all if none is named
    #[arg(value_name = "SNAPSHOT")]
    pub snapshots: Vec<OsString>,

    /// The folder or address of the other vault, or its name in the configuration
    #[arg(long, value_name = "VAULT")]
    pub to: PathBuf,

    /// Say what would be copied, and copy nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Read the password of the other vault from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "to_password_command")]
    pub to_password_file: Option<PathBuf>,

    /// Read it from the first line that a command prints
    #[arg(long, value_name = "COMMAND")]
    pub to_password_command: Option<OsString>,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `vault promote`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  vault promote --repo /mnt/disk/vault --yes    go on with the mirror

What was stored in the vault since it was mirrored last is not here. Where the
old vault may come back, do not use both: they have gone different ways.")]
pub struct PromoteArgs {
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// The rules of retention.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What to keep [default: the rules of the configuration]")]
pub struct KeepArgs {
    /// The last N snapshots; 0 says outright that a rule may leave none
    #[arg(long, value_name = "N")]
    pub keep: Option<u64>,

    /// The last one of each of the last N hours that have any
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u64>,

    /// The last one of each of the last N days
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u64>,

    /// The last one of each of the last N weeks (which begin on Monday)
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u64>,

    /// The last one of each of the last N months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u64>,

    /// The last one of each of the last N years
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u64>,

    /// All that are less than this much older than the last one: 12h, 30d, 8w, 2y
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub keep_within: Option<Duration>,

    /// All with this tag (can be given again)
    #[arg(long, value_name = "TAG")]
    pub keep_tag: Vec<String>,
}

impl From<&KeepArgs> for Keep {
    fn from(args: &KeepArgs) -> Self {
        let KeepArgs { keep, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, keep_within, keep_tag } =
            args.clone();
        Self { keep, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, keep_within, keep_tag }
    }
}

/// How space is given back.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "How space is given back")]
pub struct CollectArgs {
    /// How much of the vault may stay occupied by what nobody needs
    #[arg(long, value_name = "PERCENT", value_parser = parse_part, default_value = "5%")]
    pub max_unused: f64,

    /// Copy no more data than this; the rest waits for the next time. 0 copies nothing, for a disk that is full
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub max_repack_size: Option<u64>,

    /// Do not verify what is copied before it is stored
    #[arg(long, hide_short_help = true)]
    pub no_verify: bool,
}

/// `vault prune`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault prune --keep 5 --dry-run     what would happen, and then
  vault prune --keep 5               the last five of each source stay
  vault prune --keep-daily 7 --keep-weekly 5 --keep-monthly 12
  vault prune --keep-within 30d --keep-tag important
  vault prune                        by the keep rules of the configuration

The rules count for each source and machine apart, and there for imports and
snapshots with --time apart; a snapshot stays if any rule keeps it. On a
terminal it shows what goes, and asks. Elsewhere it asks nothing, but needs
--yes for --keep 0, and to drop more than half of the snapshots of a source.

It never drops pinned snapshots (vault pin), nor the last complete snapshot of a
source (only --keep 0 lets it go), nor one whose date is not certain because a
clock was wrong: that stays in addition, and so does what --keep-within would
keep but for a pause of more than a month, which may be a clock that jumped. It
never deletes data that a snapshot needs. What it dropped does not come back.
Snapshots can be taken meanwhile.

On a full disk it deletes first what needs no copying, then copies pack by pack,
so that each makes room for the next. It writes a record of some 100 KB before;
if not even that fits, it says so and changes nothing: free so much elsewhere on
the disk, but never by deleting files of the vault.")]
pub struct PruneArgs {
    /// What to keep.
    #[command(flatten)]
    pub keep: KeepArgs,

    /// How.
    #[command(flatten)]
    pub collect: CollectArgs,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Say what would be done, and change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Do not ask, and drop more than half of a source if the rules say so
    #[arg(short, long)]
    pub yes: bool,
}

/// `vault forget`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault forget 1f2e3d4c
  vault forget 2026-11-20 latest~3

The space is given back by the next vault prune. Pinned snapshots are not
forgotten. latest and dates mean snapshots of this machine; of several sources
one is to be named with --source. On a terminal it asks before it forgets the
last complete snapshot of a source.")]
pub struct ForgetArgs {
    /// The snapshots
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT", required = true)]
    pub snapshots: Vec<OsString>,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `vault pin` and `vault unpin`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault pin latest
  vault unpin 1f2e3d4c")]
pub struct PinArgs {
    /// The snapshots
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT", required = true)]
    pub snapshots: Vec<OsString>,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `vault client`.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ClientCommand,
}

/// The commands about clients.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Show the machines that write to the vault, and which of them holds up freeing space
    List,
    /// Wait no longer for a machine that is gone for good
    #[command(after_help = "\
Example:
  vault client retire 5a6b7c8d

Its snapshots stay. If it does come back, it goes on as a new client; only a
snapshot that it was just taking when it was retired could be hurt.")]
    Retire {
        /// The id of the client, or the start of it, from `vault client list`
        #[arg(required = true)]
        clients: Vec<String>,
    },
}
