//! The options of the commands that look into snapshots.

use std::ffi::OsString;

use clap::Args;

use super::ExcludeArgs;
use super::FilterArgs;

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
pub struct FindArgs {
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

/// `vault history`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vault history Documents/letter.odt
  vault history /home/me/Documents/letter.odt    as it is on the disk
  vault history letter.odt                       from the current folder

Each line is a version, the newest first, with the first snapshot that has it.
Bring one back with: vault restore SNAPSHOT:PATH --to .")]
pub struct HistoryArgs {
    /// The file or folder: its path in the snapshots, or on the disk
    pub path: OsString,

    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
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
pub struct DiffArgs {
    /// The older one: a snapshot, and a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    pub old: OsString,

    /// The newer one; live is the disk as it is now
    #[arg(value_name = "SNAPSHOT[:PATH]|live", default_value = "live")]
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
pub struct DuArgs {
    /// The snapshot, and a folder in it
    #[arg(value_name = "SNAPSHOT[:PATH]", default_value = "latest")]
    pub snapshot: OsString,

    /// Count only files that are not in this snapshot, or have another content there
    #[arg(long, value_name = "SNAPSHOT")]
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
