//! The options of the commands that look into snapshots.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::write::trust::VerifyOthers;
use clap::Args;
use clap::ValueEnum;
use clap_complete::engine::ArgValueCompleter;

use super::ExcludeArgs;
use super::FilterArgs;
use super::parse_duration;
use crate::cli::offer;
use crate::cli::units;

/// `vault find`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault find letter                any name that contains it, in all snapshots
  vault find '*.odt' -l            with every snapshot that holds each version
  vault find 'src/*.rs'            the last parts of the path
  vault find '/Documents/**/*.odt' the whole path, from the snapshot's top
  vault find -i LETTER --json

* stands for any text, ? for one character, [a-z] for one of several, ** for any
folders. Versions that differ only in owner or permissions count as one. Bring
one back with: vault restore SNAPSHOT:PATH --to .")]
pub(crate) struct FindArgs {
    /// Part of a name, or a pattern with * ? [ ] and /
    pub pattern: OsString,

    /// Take capital and small letters as the same
    #[arg(short, long)]
    pub ignore_case: bool,

    /// List every snapshot of each version
    #[arg(short, long)]
    pub long: bool,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// To whom files in a mount seem to belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OwnerArg {
    /// The users of this machine with the stored names, else the stored numbers
    Names,
    /// The stored numbers
    Numbers,
    /// Whoever mounts
    Me,
}

/// `vault mount`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault mount                             all snapshots, in a folder made for it
  vault mount ~/old                       in this folder, which is empty
  vault mount latest:Documents ~/old      one folder of one snapshot
  vault mount ~/old --background          goes on by itself until: vault umount
  vault mount --webdav                    as a share, for Windows and macOS

  Documents/2026-11-20 18.30/             a snapshot, by source and local time
  Documents/latest                        the last one
  all/1f2e3d4c                            each one by its id
  .versions/letter.odt/                   in every folder, though not listed:
                                          the versions of a file

Ctrl-C ends it. Nothing in it can be changed. New snapshots appear by
themselves. An argument alone is the folder if it is one or holds a slash, else
the snapshot. Others than whoever mounts see nothing of it, root included,
without --allow-other. updatedb and other programs that read every file should
leave it out: put fuse.vault into PRUNEFS in /etc/updatedb.conf.")]
#[cfg_attr(
    not(all(feature = "mount", any(target_os = "linux", target_os = "freebsd"))),
    allow(dead_code, reason = "it is understood everywhere, and done where the system can")
)]
pub(crate) struct MountArgs {
    /// The snapshot, and a folder in it [default: all snapshots]
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT[:PATH]")]
    pub snapshot: Option<OsString>,

    /// The folder in which it appears [default: one that is made for it]
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,

    /// Go on in the background
    #[arg(short, long)]
    pub background: bool,

    /// Show it in the file manager
    #[arg(long)]
    pub open: bool,

    /// Share it on this computer instead (WebDAV), for systems that cannot mount [default port: any]
    #[arg(
        long,
        value_name = "PORT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "0",
        conflicts_with_all = ["folder", "background", "open", "owner", "allow_other", "no_preview"]
    )]
    pub webdav: Option<u16>,

    /// To whom files seem to belong [default: names; for another machine's files, if you are not root: me]
    #[arg(long, value_name = "WHO")]
    pub owner: Option<OwnerArg>,

    /// Let other users look into it too, as the modes of the files allow; closed folders above a source do not protect it
    #[arg(long)]
    pub allow_other: bool,

    /// Refuse long files to programs that only read them for a preview or an index
    #[arg(long)]
    pub no_preview: bool,

    /// How much of what was read is kept in memory
    #[arg(long, value_name = "SIZE", default_value = "48M", value_parser = units::parse_size)]
    pub cache: u64,

    /// How long it relies on what it has seen of the vault, before it looks again and space can be given back
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub renew: Duration,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `vault umount`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault umount            the only mount there is
  vault umount ~/old      that in this folder, also if its program was killed

If a program still uses it, it goes as soon as that program lets go of it.")]
#[cfg_attr(
    not(all(feature = "mount", any(target_os = "linux", target_os = "freebsd"))),
    allow(dead_code, reason = "it is understood everywhere, and done where the system can")
)]
pub(crate) struct UmountArgs {
    /// The folder in which it was mounted [default: the only one]
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

/// `vault drill`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault drill               50 files of the last snapshot of each source
  vault drill --files 500 --max-size 10G

Files are chosen at random, large ones more often, restored to a scratch folder,
read back, and compared with the disk where it still has them unchanged. What
came of it is remembered on this machine, and told by vault doctor.")]
pub(crate) struct DrillArgs {
    /// How many files of each source
    #[arg(long, value_name = "N", default_value = "50")]
    pub files: u16,

    /// No longer files than this; so much space is needed for scratch
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = units::parse_size)]
    pub max_size: u64,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `vault history`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault history Documents/letter.odt
  vault history /home/me/Documents/letter.odt    as it is on the disk
  vault history letter.odt                       from the current folder

Each line is a version, the newest first, with the first snapshot that has it.
Bring one back with: vault restore SNAPSHOT:PATH --to .")]
pub(crate) struct HistoryArgs {
    /// The file or folder: its path in the snapshots, or on the disk
    pub path: OsString,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `vault why`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault why Documents/letter.odt      is it kept, and since when?
  vault why ~/.cache                  which rule leaves it out?

The rules are those of the configuration; where no source of it has the path,
those of the last snapshot of this machine that has it.")]
pub(crate) struct WhyArgs {
    /// The file or folder on the disk
    pub path: PathBuf,
}

/// `vault diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault diff latest~1 latest              what the last snapshot brought
  vault diff 2026-11-01:Documents latest:Documents
  vault diff latest                       what changed on the disk since then
  vault diff latest:Documents live -s

  +  added                M  other content
  -  removed              U  other metadata: owner, permissions, times, ...
                          T  another kind of file

The disk is compared without reading files that look as they did when they were
last kept. What was left out of the snapshot is to be left out here too. The
time of a folder does not count: it changes with whatever is in it.")]
pub(crate) struct DiffArgs {
    /// The older one: a snapshot, and a path in it
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT[:PATH]")]
    pub old: OsString,

    /// The newer one; live is the disk as it is now
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT[:PATH]|live", default_value = "live")]
    pub new: OsString,

    /// Print only the sums
    #[arg(short, long)]
    pub summary: bool,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// What to leave out of the disk.
    #[command(flatten)]
    pub exclude: ExcludeArgs,
}

/// `vault du`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault du                              the last snapshot, largest first
  vault du latest:Documents --depth 2
  vault du --since 2026-11-01           only what is new or changed since then
  vault du -n 10 --depth 5

Sizes are those of the files, not what they take up in the vault.")]
pub(crate) struct DuArgs {
    /// The snapshot, and a folder in it
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT[:PATH]", default_value = "latest")]
    pub snapshot: OsString,

    /// Count only files that are not in this snapshot, or have another content there
    #[arg(add = ArgValueCompleter::new(offer::snapshots), long, value_name = "SNAPSHOT")]
    pub since: Option<OsString>,

    /// How far to go down
    #[arg(short, long, value_name = "LEVELS", default_value_t = 1)]
    pub depth: u32,

    /// Print only so many lines, the largest
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `vault export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault export latest --tar backup.tar
  vault export latest:Documents --tar documents.tar.zst
  vault export 2026-11-20 --tar - | ssh host tar -xf - -C /restore
  vault export latest --tar - | gzip > backup.tar.gz

Owners, permissions, times, links, devices, holes and extended attributes are in
the archive; sockets, file flags and times of birth are not. What is damaged in
the vault is left out or filled with zeros, and listed.")]
pub(crate) struct ExportArgs {
    /// The snapshot, and a path in it
    #[arg(add = ArgValueCompleter::new(offer::snapshots), value_name = "SNAPSHOT[:PATH]")]
    pub snapshot: OsString,

    /// Write a tar archive; .zst at the end of the name compresses it (-: standard output)
    #[arg(long, value_name = "FILE")]
    pub tar: PathBuf,

    /// Replace a file that is there
    #[arg(long)]
    pub overwrite: bool,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `vault import`.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("from").required(true).args(["tar", "dirs"])),
    after_help = "\
Examples:
  vault import --tar backup-2024-05-31.tar.gz backup-2024-06-30.tar.gz
  vault import --tar /mnt/old/archives           all archives in the folder
  vault import --dirs /mnt/old/copies            copies/2024-05-31, ...
  vault import --dirs /mnt/old/copies --dry-run

The date comes from the name: 2024-05-31, 20240531, 2024-05-31_12-30-00; for an
archive without one, from its time of change. What is there already of the same
source and date is passed over, so an import can be repeated. Archives may be
compressed with zstd, or with gzip, bzip2 or xz if those programs are there.
What is imported takes its place among the snapshots by its date: latest stays
the newest one. vault prune counts imports and snapshots of this machine apart."
)]
pub(crate) struct ImportArgs {
    /// Tar archives, or folders of them: each becomes a snapshot
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub tar: Vec<PathBuf>,

    /// A folder of dated copies: each becomes a snapshot
    #[arg(long, value_name = "DIR")]
    pub dirs: Option<PathBuf>,

    /// Name of the source [default: the name of the archive or folder, without the date]
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,

    /// Take so many folders from the start of each path in an archive
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "dirs")]
    pub strip_components: usize,

    /// Add a tag (can be given again)
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,

    /// How hard to compress: fast, default, high, max, or 1 to 19
    #[arg(long, value_name = "LEVEL", value_parser = super::parse_level, default_value = "default")]
    pub level: i32,

    /// How to look at packs that other machines put, before relying on them: none, sample (a part of each) or all
    #[arg(long, value_name = "HOW", value_parser = super::parse_verify_others)]
    pub verify_others: Option<VerifyOthers>,

    /// Say what would be imported, and store nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// `vault completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault completions bash > ~/.local/share/bash-completion/completions/vault
  vault completions zsh > ~/.zfunc/_vault          with fpath+=(~/.zfunc)
  vault completions fish > ~/.config/fish/completions/vault.fish
  vault completions bash --dynamic       with snapshots and sources, see below

With --dynamic the shell asks vault itself while a line is typed: it offers
vaults and sources of the configuration, and snapshots, tags, machines and
findings that this machine saw when it opened the vault last. It asks for no
password, and looks at no vault.")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub shell: clap_complete::Shell,

    /// Complete snapshots, sources and vaults, too
    #[arg(long)]
    pub dynamic: bool,
}

/// `vault man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault man ~/.local/share/man/man1       then: man vault-snapshot
  vault man | man -l -                    the first page at once")]
pub(crate) struct ManArgs {
    /// Write a page for each command to this folder, instead of printing the first
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}
