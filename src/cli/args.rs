//! The command line: every command, option and help text.

mod amend;
mod browse;
mod everyday;
mod snapshot;
mod upkeep;

use std::ffi::OsString;
use std::path::PathBuf;

pub(super) use crate::service::values::{parse_duration, parse_id_start, parse_level, parse_verify_others};
use crate::store::Delivery;
pub(super) use amend::AmendArgs;
pub(super) use amend::RewriteArgs;
pub(super) use amend::TagArgs;
pub(super) use amend::TagChangeArgs;
pub(super) use amend::TagCommand;
pub(super) use browse::CompletionsArgs;
pub(super) use browse::DiffArgs;
pub(super) use browse::DrillArgs;
pub(super) use browse::DuArgs;
pub(super) use browse::ExportArgs;
pub(super) use browse::FindArgs;
pub(super) use browse::HistoryArgs;
pub(super) use browse::ImportArgs;
pub(super) use browse::ManArgs;
pub(super) use browse::MountArgs;
#[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
pub(super) use browse::OwnerArg;
pub(super) use browse::UmountArgs;
pub(super) use browse::WhyArgs;
use clap::ArgAction;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use clap_complete::engine::ArgValueCompleter;
pub(super) use everyday::ConfigArgs;
pub(super) use everyday::ConfigCommand;
pub(super) use everyday::RunArgs;
pub(super) use everyday::ScheduleArgs;
pub(super) use everyday::ScheduleCommand;
pub(super) use everyday::SchedulerArg;
pub(super) use everyday::UiArgs;
pub(super) use snapshot::ExcludeArgs;
pub(super) use snapshot::SnapshotArgs;
pub(super) use upkeep::AcceptArgs;
pub(super) use upkeep::CheckArgs;
pub(super) use upkeep::ClientArgs;
pub(super) use upkeep::ClientCommand;
pub(super) use upkeep::CollectArgs;
pub(super) use upkeep::CopyArgs;
pub(super) use upkeep::DoctorArgs;
pub(super) use upkeep::ForgetArgs;
pub(super) use upkeep::MirrorArgs;
pub(super) use upkeep::PinArgs;
pub(super) use upkeep::PromoteArgs;
pub(super) use upkeep::PruneArgs;
pub(super) use upkeep::RepairArgs;
pub(super) use upkeep::StatsArgs;

use crate::cli::offer;
use crate::cli::units;

/// What `vault` says when it is called without a command.
pub(super) const FIRST_HELP: &str = "\
vault makes encrypted, deduplicated backups of your folders.

Back up a folder (--init makes the vault, the first time):
  vault snapshot --init --repo /mnt/disk/vault ~/Documents
See which backups (snapshots) there are:
  vault list --repo /mnt/disk/vault
Restore the last one, here to ~/back/Documents:
  vault restore --repo /mnt/disk/vault latest --to ~/back

Set VAULT_REPO, and --repo can be left out.
To have it done by itself: vault config init
All commands: vault --help. One in detail: vault help snapshot
";

const AFTER_HELP: &str = "\
A snapshot is named by its id or the start of it, or as:
  latest                the last one; latest~1 is the one before it
  2026-11-20            the last one of that day
  2026-11-20T18:30      the last one taken by then
  yesterday, 3d         the last one of yesterday, or as it was 3 days ago
and a path inside it by SNAPSHOT:PATH, as in latest:Documents/letter.odt

The password comes from the first of: --password-file, --password-command,
VAULT_PASSWORD, VAULT_PASSWORD_FILE, VAULT_PASSWORD_COMMAND, this machine's
device key, the configuration, the terminal. A recovery key is accepted in its
place.

Exit codes:
    0  done
    1  failed
    2  wrong command line, configuration or list
    3  done, but something was skipped, or asks for attention
    4  data is lost or damaged
   10  the place cannot be reached, or no vault is there
   12  the password is wrong
  101  a bug in vault
  130  interrupted";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "vault",
    version,
    about = "Encrypted, deduplicated backups of folders, as dated snapshots",
    after_help = AFTER_HELP,
    max_term_width = 100,
    disable_help_flag = true
)]
pub(super) struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct GlobalArgs {
    /// The vault: the folder that it lies in, or its name in the configuration
    #[arg(add = ArgValueCompleter::new(offer::repos), short, long, global = true, env = "VAULT_REPO", value_name = "PATH", hide_env_values = true)]
    pub repo: Option<PathBuf>,

    /// The configuration [default: ~/.config/vault/vault.toml]
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        env = "VAULT_CONFIG",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,

    /// Read the password from the first line of a file
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "password_command")]
    pub password_file: Option<PathBuf>,

    /// Read the password from the first line that a command prints
    #[arg(long, global = true, hide_short_help = true, value_name = "COMMAND")]
    pub password_command: Option<OsString>,

    /// The vault with this id (or the start of it), where a folder holds several, or another one than before
    #[arg(long, global = true, hide_short_help = true, value_name = "ID", value_parser = parse_id_start)]
    pub vault: Option<String>,

    /// Try the password only on this key slot
    #[arg(long, global = true, hide_short_help = true, value_name = "ID", value_parser = parse_id_start)]
    pub slot: Option<String>,

    /// Print JSON, and errors as JSON too
    #[arg(long, global = true)]
    pub json: bool,

    /// Print only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print details, such as each file that is new, changed or written, and each pack (twice: and why)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Show no progress bar
    #[arg(long, global = true, hide_short_help = true)]
    pub no_progress: bool,

    /// Where this machine keeps its catalogue of the vault [default: the state folder of the user]
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        env = "VAULT_STATE_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub state: Option<PathBuf>,

    /// How many threads work [default: one for each processor]
    #[arg(long, global = true, hide_short_help = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// Write at most so many bytes per second to the vault, such as 500K or 2M
    #[arg(long, global = true, hide_short_help = true, value_name = "RATE", value_parser = units::parse_rate)]
    pub limit_upload: Option<u64>,

    /// Read at most so many bytes per second from the vault
    #[arg(long, global = true, hide_short_help = true, value_name = "RATE", value_parser = units::parse_rate)]
    pub limit_download: Option<u64>,

    /// Print help; --help says more than -h
    #[arg(short, long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a new vault
    Init(InitArgs),
    /// Back up folders: take a snapshot of them as they are now
    #[command(visible_alias = "backup")]
    Snapshot(Box<SnapshotArgs>),
    /// Show the snapshots
    #[command(visible_alias = "snapshots")]
    List(ListArgs),
    /// Show the files in a snapshot
    Ls(LsArgs),
    /// Print a file of a snapshot
    Cat(CatArgs),
    /// Show snapshots as a folder of the system, for other programs to read
    Mount(MountArgs),
    /// End a mount
    Umount(UmountArgs),
    /// Open a page in the browser: how things stand, files of all dates, restoring
    Ui(UiArgs),
    /// Find files by name in all snapshots
    Find(FindArgs),
    /// Show the versions of a file over the snapshots
    History(HistoryArgs),
    /// Show which rule leaves a file out, or which snapshots hold it
    Why(WhyArgs),
    /// Show what differs between two snapshots, or a snapshot and the disk
    Diff(Box<DiffArgs>),
    /// Show what takes up the space in a snapshot
    Du(DuArgs),
    /// Bring a snapshot back, whole or in part
    Restore(RestoreArgs),
    /// Try a restore of some files, to see that it works
    Drill(DrillArgs),
    /// Write a snapshot as a tar archive
    Export(ExportArgs),
    /// Make snapshots of dated archives, or of dated copies of a folder
    Import(ImportArgs),
    /// Forget old snapshots, and give their space back
    Prune(PruneArgs),
    /// Forget single snapshots
    Forget(ForgetArgs),
    /// Keep snapshots whatever the rules of prune say
    Pin(PinArgs),
    /// Leave snapshots to the rules of prune again
    Unpin(PinArgs),
    /// Add tags to snapshots, or take them off
    Tag(TagArgs),
    /// Change what is said of snapshots: description, machine, date
    Amend(AmendArgs),
    /// Take files out of snapshots, for good
    Rewrite(RewriteArgs),
    /// List what is known to be wrong, or accept that it is lost
    Accept(AcceptArgs),
    /// Find what is missing or damaged
    Check(CheckArgs),
    /// Mend what is damaged, as far as it can be mended
    Repair(RepairArgs),
    /// Say in plain words whether the vault is well, and what to do next
    Doctor(DoctorArgs),
    /// Show what takes the space
    Stats(StatsArgs),
    /// Copy what a second place lacks of the vault, as it is
    Mirror(MirrorArgs),
    /// Copy snapshots into another vault, under its keys
    Copy(CopyArgs),
    /// Make a mirror a vault that can be written to
    Promote(PromoteArgs),
    /// The machines that write to the vault
    Client(ClientArgs),
    /// Passwords and recovery keys
    Key(KeyArgs),
    /// Show how the vault reaches other machines, or say that it lies in a synced folder now
    Delivery(DeliveryArgs),
    /// Print what a shell needs to complete command lines
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
    /// Show, write or check the configuration: which vaults and sources there are
    Config(ConfigArgs),
    /// Do all that is due: snapshots, pruning, checks
    Run(Box<RunArgs>),
    /// Start vault run by itself
    Schedule(ScheduleArgs),
    /// Show the version (with --verbose: how it was built)
    Version,
}

/// How hard a password is to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kdf {
    /// 64 MiB of memory for each try
    Standard,
    /// 1 GiB of memory for each try, which opening the vault then needs too
    Strong,
}

/// How what one machine stores reaches the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeliveryArg {
    /// At once: a disk, a file server
    Direct,
    /// Some time later, in any order: a folder of Dropbox, OneDrive, Syncthing and the like
    Synced,
}

impl From<DeliveryArg> for Delivery {
    fn from(arg: DeliveryArg) -> Self {
        match arg {
            DeliveryArg::Direct => Self::Direct,
            DeliveryArg::Synced => Self::Synced,
        }
    }
}

/// How a new vault is made.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options for the new vault")]
pub(super) struct NewVaultArgs {
    /// Print a recovery key too, which opens the vault if the password is lost
    #[arg(long)]
    pub recovery_key: bool,

    /// How hard the password is to guess
    #[arg(long, hide_short_help = true, value_enum, default_value = "standard")]
    pub kdf: Kdf,

    /// How the vault reaches other machines [default: synced in a known cloud folder, else direct]
    #[arg(long, hide_short_help = true, value_enum)]
    pub delivery: Option<DeliveryArg>,

    /// What `vault key list` calls the password [default: USER@HOST]
    #[arg(long, hide_short_help = true, value_name = "TEXT")]
    pub label: Option<String>,

    /// Make a new vault although this machine knows another one in this place
    #[arg(long, hide_short_help = true)]
    pub another: bool,

    /// Average size of a chunk, a power of two from 1K to 1M; it can never be changed
    #[arg(long, hide_short_help = true, value_name = "SIZE", value_parser = units::parse_size, default_value = "64K")]
    pub chunk_avg: u64,
}

/// `vault init`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault init --repo /mnt/disk/vault
  vault init --repo ~/Dropbox/vault --recovery-key
  VAULT_PASSWORD_FILE=/etc/vault.key vault init --repo /srv/vault --kdf strong

Without --repo it makes all vaults of the configuration that are not there yet.
On a terminal it asks for the password and offers a recovery key; otherwise it
asks nothing. A folder that holds a vault already is left as it is. Where this
machine knows a vault that is not there now, none is made: its disk may not be
mounted. With --another one is made all the same.

With --like REPO digests of both vaults can be compared, and copies between them
need not be cut anew. Keys and passwords are separate, but who opens one of them
can test whether the other holds a file that they have. The password of REPO is
VAULT_LIKE_PASSWORD (or _FILE, _COMMAND), or else found as that of any vault.")]
pub(super) struct InitArgs {
    /// How it is made.
    #[command(flatten)]
    pub new: NewVaultArgs,

    /// Cut files as this other vault does: equal content has equal ids in both
    #[arg(long, hide_short_help = true, value_name = "REPO", conflicts_with = "chunk_avg")]
    #[arg(help_heading = "Options for the new vault")]
    pub like: Option<PathBuf>,
}

/// Which snapshots a name such as `latest` means.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which snapshot")]
pub struct FilterArgs {
    /// Only snapshots of this source
    #[arg(add = ArgValueCompleter::new(offer::sources), long, value_name = "NAME")]
    pub source: Option<String>,

    /// Only snapshots of this machine
    #[arg(add = ArgValueCompleter::new(offer::hosts), long, value_name = "NAME")]
    pub host: Option<String>,
}

/// `vault list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault list
  vault list --source Documents --tag monthly
  vault list --last 5
  vault list --path ~/Documents/letter.odt      which were taken of its folder
  vault list --json

Stored is what a snapshot added to the vault. A snapshot is partial if something
could not be read; vault ls --skipped SNAPSHOT says what.")]
pub(super) struct ListArgs {
    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Only snapshots with this tag (given again: with any of them)
    #[arg(add = ArgValueCompleter::new(offer::tags), long, value_name = "TAG")]
    pub tag: Vec<String>,

    /// Only snapshots of a folder that this path lies in
    #[arg(long, value_name = "PATH")]
    pub path: Option<OsString>,

    /// Only the last N of them
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
}

/// `vault ls`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault ls                              the top of the last snapshot
  vault ls -l latest:Documents
  vault ls -R 2026-11-20:/home/me       a path as it is on the disk
  vault ls --digest latest:Documents    to compare folders, first itself
  vault ls --skipped latest             what could not be saved

Names are made safe for the terminal; --print0 and --json give the exact bytes.")]
pub(super) struct LsArgs {
    /// The snapshot, and a path in it
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT[:PATH]", default_value = "latest")]
    pub snapshot: OsString,

    /// Show mode, owner, size and time too
    #[arg(short, long)]
    pub long: bool,

    /// Show everything below, with paths
    #[arg(short = 'R', long)]
    pub recursive: bool,

    /// Print the exact bytes of the names, each ended by a zero byte
    #[arg(short = '0', long, conflicts_with_all = ["long", "json"])]
    pub print0: bool,

    /// Show digests: equal for equal contents, and for folders in which all names and contents are equal
    #[arg(long, conflicts_with_all = ["print0", "skipped"])]
    pub digest: bool,

    /// Show what could not be saved, and why
    #[arg(long, conflicts_with_all = ["long", "recursive"])]
    pub skipped: bool,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `vault cat`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault cat latest:Documents/letter.txt
  vault cat 2026-11-20:db.sql | psql")]
pub(super) struct CatArgs {
    /// The snapshot, and the file in it
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT:PATH")]
    pub snapshot: OsString,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// What happens to files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OverwriteArg {
    /// They are written anew
    Always,
    /// They are compared, and only what differs is written
    IfChanged,
    /// As if-changed; what is newer on the disk stays as a copy beside it, NAME.newer
    KeepNewerCopy,
    /// They are left as they are
    Never,
}

/// `vault restore`.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("target").required(true).args(["to", "in_place"])),
    after_help = "\
Examples:
  vault restore latest --to ~/back                 all, as ~/back/Documents
  vault restore latest:Documents/letter.odt --to . one file
  vault restore latest --to ~/back --include '*.jpg'
  vault restore 2026-11-20 --in-place --dry-run    what would change, and then
  vault restore 2026-11-20 --in-place              back to where it came from

Where something of the same name is there already, nothing is restored, unless
--overwrite says what happens to it. In place, only what differs is written.
Nothing outside of what is restored is touched, and no link is followed.

--delete removes from restored folders what the snapshot does not have. It
never removes a vault, the state and configuration of this program, anything on
another file system than the folder above it, what the snapshot could not read,
or what --exclude names. What the rules of the snapshot or of today leave out
stays as well, unless --delete-excluded is given. What stays is listed."
)]
pub(super) struct RestoreArgs {
    /// The snapshot, and a path in it
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT[:PATH]")]
    pub snapshot: OsString,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Restore below this folder
    #[arg(long, value_name = "DIR", help_heading = "Where to (one is needed)")]
    pub to: Option<PathBuf>,

    /// Restore to where it came from
    #[arg(long, help_heading = "Where to (one is needed)")]
    pub in_place: bool,

    /// Only what matches, and what is below it (can be given again)
    #[arg(long, value_name = "GLOB", help_heading = "What", value_parser = snapshot::pattern)]
    pub include: Vec<String>,

    /// Not what matches (can be given again)
    #[arg(long, value_name = "GLOB", help_heading = "What", value_parser = snapshot::pattern)]
    pub exclude: Vec<String>,

    /// What happens to files that are there already [default in place: if-changed]
    #[arg(long, value_enum, value_name = "WHEN", help_heading = "How")]
    pub overwrite: Option<OverwriteArg>,

    /// Delete from restored folders what is not in the snapshot; asks first
    #[arg(long, help_heading = "How")]
    pub delete: bool,

    /// With --delete: delete also what was left out of the snapshot, or would be today
    #[arg(long, requires = "delete", help_heading = "How")]
    pub delete_excluded: bool,

    /// Do not ask before anything is deleted
    #[arg(short = 'y', long, help_heading = "How")]
    pub yes: bool,

    /// List what would be written (+), changed (M) and deleted (-), and change nothing
    #[arg(short = 'n', long, help_heading = "How")]
    pub dry_run: bool,

    /// Read every written file back and compare it
    #[arg(long, help_heading = "How")]
    pub verify: bool,

    /// Do not restore owners
    #[arg(long, help_heading = "How")]
    pub no_owner: bool,

    /// Restore owners by number, not by name
    #[arg(long, help_heading = "How", conflicts_with = "no_owner")]
    pub numeric_owner: bool,
}

/// `vault delivery`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault delivery            how it is now
  vault delivery synced     it is carried by Dropbox, Syncthing and the like

In a synced folder what one machine stores reaches the others some time later,
in any order. So space is given back only when all machines have seen that it
is to be, and a removed key slot goes only then. A vault that was made on a disk
and lies in such a folder now must be told. It can never be taken back: machines
may have stored something that has not arrived yet.")]
pub(super) struct DeliveryArgs {
    /// How it is from now on
    #[arg(value_enum)]
    pub delivery: Option<DeliveryArg>,
}

/// `vault key`.
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// Where a new password comes from.
#[derive(Debug, Clone, Args)]
pub(super) struct NewPasswordArgs {
    /// Read the new password from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "new_password_command")]
    pub new_password_file: Option<PathBuf>,

    /// Read the new password from the first line that a command prints
    #[arg(long, value_name = "COMMAND")]
    pub new_password_command: Option<OsString>,

    /// How hard the new password is to guess
    #[arg(long, value_enum, default_value = "standard")]
    pub kdf: Kdf,
}

/// The commands about keys.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Add a password or a recovery key; those that are there stay valid
    #[command(after_help = "\
Examples:
  vault key add --label 'my sister'
  vault key add --recovery-key
  vault key add --device          this machine opens it without a password

The new password comes from the first of: --new-password-file,
--new-password-command, VAULT_NEW_PASSWORD, the terminal.")]
    Add {
        /// Where it comes from.
        #[command(flatten)]
        new: NewPasswordArgs,

        /// Make and print a recovery key instead
        #[arg(long, conflicts_with_all = ["new_password_file", "new_password_command"])]
        recovery_key: bool,

        /// Make a key for this machine and user instead, kept in the state folder
        #[arg(long, conflicts_with_all = ["new_password_file", "new_password_command", "recovery_key"])]
        device: bool,

        /// What `vault key list` calls it [default: USER@HOST]
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
    },
    /// Show the key slots
    List,
    /// Remove a key slot: its password or recovery key opens the vault no more
    #[command(after_help = "\
Examples:
  vault key remove 1f2e3d4c
  vault key remove 1f2e3d4c --yes        without a question, for scripts

The last password or recovery key cannot be removed; the key of a machine does
not count as one. Whoever had the password and has a copy of the vault from
before can read that copy for ever, and what is added later too if the copy of
the folder keys/ comes with it: the key that seals the data stays the same. If
a password was stolen together with the disk, make a new vault.

In a synced folder the slot goes when all machines know of the removal. --now
deletes it at once; if two machines did so with each other's slot at the same
time, nobody could open the vault any more.")]
    Remove {
        /// The id of the slot, or the start of it, from `vault key list`
        id: String,

        /// Do not ask
        #[arg(short, long)]
        yes: bool,

        /// In a synced folder, do not wait until all machines know of it
        #[arg(long)]
        now: bool,
    },
    /// Change the password that was given
    #[command(after_help = "\
The password that opens the vault is replaced by the new one; others stay valid.
Whoever had the old password and has a copy of the vault from before can read
that copy for ever.

The new password comes from the first of: --new-password-file,
--new-password-command, VAULT_NEW_PASSWORD, the terminal.")]
    Passwd {
        /// Where it comes from.
        #[command(flatten)]
        new: NewPasswordArgs,

        /// In a synced folder, do not wait until all machines know of it
        #[arg(long)]
        now: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn examples_fit_eighty_columns() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().chain(FIRST_HELP.lines()) {
                assert!(line.len() <= 80, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&<Cli as clap::CommandFactory>::command());
    }

    #[test]
    fn command_lines_are_understood_or_refused() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        for line in [
            "vault",
            "vault init --repo /x",
            "vault snapshot --repo /x /src",
            "vault restore --repo /x latest --to out",
            "vault snapshots --json",
            "vault ls",
            "vault -r /x ls -lR latest:a --source s",
            "vault snapshot --stdin db.sql --command pg_dump",
            "vault snapshot --files-from - --from0",
            "vault key list",
            "vault version --verbose",
            "vault config",
            "vault config check --config /x",
            "vault run a b --now --report r --then shutdown --then-always",
            "vault run --list l.csv",
            "vault key add --device",
            "vault schedule install --every 1h --print --for launchd",
            "vault schedule status",
        ] {
            assert!(parse(line), "{line}");
        }
        for line in [
            "vault restore latest",
            "vault restore latest --to a --in-place",
            "vault snapshot",
            "vault snapshot --command x a",
            "vault snapshot --from0 a",
            "vault snapshot a --level 20",
            "vault snapshot a --time yesterday",
            "vault snapshot a --exclude-larger-than x",
            "vault ls -q -v",
            "vault ls --limit-upload 0",
            "vault export latest",
            "vault completions",
            "vault find",
            "vault history",
            "vault diff",
            "vault --threads 0 ls",
            "vault key",
            "vault unlock",
            "vault run a --list l.csv",
            "vault run --then-always",
            "vault run -n --report x",
            "vault schedule install --every 7m",
            "vault schedule install --for launchd",
            "vault key add --device --recovery-key",
        ] {
            assert!(!parse(line), "{line}");
        }
    }
}
