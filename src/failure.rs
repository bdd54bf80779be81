//! Failures: the exit code, the text, and what to do next. The command line and the page say the same.

use std::fmt::Write;
use std::io;

use crate::catalogue::CatalogueError;
use crate::chunk::ChunkParamsError;
use crate::engine::check::CheckError;
use crate::engine::check::drill::DrillError;
use crate::engine::copy::{CopyError, Left};
use crate::engine::keys::KeyError;
use crate::engine::mirror::MirrorError;
use crate::engine::prune::collect::CollectError;
use crate::engine::query::browse::BrowseError;
use crate::engine::query::index::IndexError;
use crate::engine::repair::RepairError;
use crate::engine::restore::RestoreError;
use crate::engine::rewrite::{RewriteError, Unread, Why};
use crate::engine::snapshot::SnapshotError;
use crate::engine::snapshot::live::LiveError;
pub use crate::exit::Exit;
use crate::log::RecordError;
use crate::pack::PackError;
use crate::path::Shown;
use crate::progress::plain;
use crate::read::mark::MarkError;
use crate::seal::{SealError, SlotError};
use crate::store::StoreError;
use crate::store::place::Address;
use crate::vault::Gone;
use crate::vault::ReadError;
use crate::vault::VaultError;

/// Exit code of a command that could not read some of the stored data: damage is worse than data of a later version.
pub fn exit_of_unread<'e>(errors: impl IntoIterator<Item = &'e ReadError>) -> Exit {
    // Nothing is amiss with a snapshot that was dropped meanwhile.
    let errors = errors.into_iter().filter(|error| error.gone().is_none());
    let exit = |error: &ReadError| if error.is_newer() || error.is_late() { Exit::Skipped } else { Exit::Damage };
    errors.fold(Exit::Done, |worst, error| worst.worse(exit(error)))
}

/// The message for lack of memory, when nothing more can be done: for people, and for `--json`.
pub const NO_MEMORY: [&str; 2] = [
    "\nvault: there is not enough memory\n  Nothing that was stored is lost. Allow more memory (ulimit -v, or the limit of \
     the container), end other programs, or use fewer threads: --threads 1\n",
    "\n{\"error\":\"there is not enough memory\",\"hint\":\"Nothing that was stored is lost. Allow more memory (ulimit -v, or the \
     limit of the container), end other programs, or use fewer threads: --threads 1\",\"code\":1}\n",
];

/// A failed action.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The action that failed, and its object. If empty, nothing is printed.
    pub what: String,
    /// The next thing to do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn new(what: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, what: what.into(), hint: None }
    }

    /// A wrong command line or configuration.
    pub fn usage(what: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(what) }
    }

    /// A failure with the cause `error`.
    pub fn caused(what: impl AsRef<str>, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(format!("{}: {}", what.as_ref(), chain(error)))
    }

    /// Adds a line that says what to do next.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Sets the exit code.
    #[must_use]
    pub fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// The user stopped the work.
    pub fn interrupted() -> Self {
        Self::new("interrupted").exit(Exit::Interrupted)
    }

    /// The system provides no further thread.
    pub fn no_thread() -> Self {
        Self::new("the system gives this program no more threads").hint(THREADS)
    }

    /// Writing to standard output failed. It is no failure if the reader has closed the pipe (`vault list | head`).
    pub fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self { exit: Exit::Done, what: String::new(), hint: None }
        } else {
            Self::caused("cannot write the output", error)
        }
    }
}

impl Failure {
    /// The same failure at a mirror: damage there is no damage of the vault.
    fn of_mirror(self, what: String) -> Self {
        let hint = match self.exit {
            Exit::Damage => Some(
                "The vault itself is not concerned. What is wrong there: vault mirror --to PLACE --verify".to_owned(),
            ),
            _ => self.hint,
        };
        Self { what, hint, ..self }
    }
}

/// An error with its causes, in one line. Causes that the text already contains are not repeated.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = plain(error);
    let mut source = error.source();
    while let Some(cause) = source {
        let said = plain(cause);
        if !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        source = cause.source();
    }
    text
}

const CHECK: &str =
    "All else can still be listed and restored. What is damaged, what that costs, and what to do: vault check";
const PRE_RELEASE: &str =
    "It is not damaged. Get the files back with the pre-release that made it, and snapshot them into a new vault.";
const LATE: &str = "Nothing is lost. Run the same command again when the sync has brought the rest.";
const NEWER: &str = "It is not damaged. Use the newest version of vault to read it.";
const MEMORY: &str = "Nothing that was stored is lost. Allow more memory (ulimit -v, or the limit of the container), end other programs, or \
                      use fewer threads: --threads 1";
const THREADS: &str = "Nothing that was stored is lost. Ask for fewer (--threads 1), or allow more: ulimit -u, ulimit -v, or the limits \
                       of the container.";
const LOOK: &str = "See what is in it with: vault ls SNAPSHOT";

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Self::new(chain(&error));
        match error {
            StoreError::Missing { .. } | StoreError::Short { .. } | StoreError::Long { .. } => {
                failure.exit(Exit::Damage).hint(CHECK)
            }
            StoreError::Full { .. } => {
                failure.hint("Nothing that was stored is lost. Make room and run the same command again: it continues.")
            }
            StoreError::ReadOnly { .. } => {
                failure.hint("Listing and restoring work; to add to it, make its folder writable.")
            }
            StoreError::Denied { action, path, .. } if Address::parse(&path).is_some() => {
                let instead = match action {
                    "delete" | "quarantine" => "Prune and repair from a machine whose credentials may delete.",
                    _ => "See what a machine must be allowed to do: docs/remote.md",
                };
                failure.hint(format!("The credentials of this machine may not do that. {instead}"))
            }
            StoreError::Unusable { .. } => failure
                .exit(Exit::Unreachable)
                .hint("Nothing that was stored is lost. How each kind of address is used: docs/remote.md"),
            StoreError::Denied { path, owner, .. } => {
                let path = quoted(&path);
                let whose = owner.map_or_else(
                    || "Run vault as the user that it belongs to".to_owned(),
                    |owner| format!("It belongs to the user with the number {owner}: run vault as that user"),
                );
                failure.hint(format!("{whose}, or give it to this one: sudo chown -R \"$(id -u)\" {path}"))
            }
            StoreError::TooLarge { .. } => failure.hint(
                "Raise the limit (ulimit -f), or use a file system that takes larger files. Nothing that was stored is lost.",
            ),
            StoreError::Exhausted { source, .. } if source.kind() == io::ErrorKind::OutOfMemory => failure.hint(MEMORY),
            StoreError::Exhausted { .. } => failure
                .hint("Allow more open files (ulimit -n), or end other programs. Nothing that was stored is lost."),
            StoreError::NotKept { .. } => failure.hint(
                "Trust nothing to this place before it is known why. What is in the vault: vault check --read-data. What a place on \
                 another machine does with what is put there: vault doctor ADDRESS",
            ),
            StoreError::Stopped => Self::interrupted(),
            StoreError::Unreachable { .. } | StoreError::Throttled { .. } => failure
                .exit(Exit::Unreachable)
                .hint("Nothing that was stored is lost, and nothing follows for what could not be read. Try again later."),
            StoreError::Gone { .. } => {
                failure.exit(Exit::Unreachable).hint("Is the disk or the share connected? Is the path right?")
            }
            StoreError::Io { object, source, .. } if source.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Self { what: format!("{object}: {source}"), ..failure }.hint("Choose a new folder, or an empty one. Nothing was changed.")
            }
            StoreError::Exists { .. } | StoreError::Io { .. } => failure,
        }
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        let failure = Self::new(chain(&error));
        match error {
            VaultError::NoVault { place } => failure
                .exit(Exit::Unreachable)
                .hint(format!("Is the path right? A new vault is made with: vault init --repo {}", quoted(&place))),
            VaultError::Exists { place } => failure
                .hint(format!("Nothing was changed. See what is in it with: vault list --repo {}", quoted(&place))),
            VaultError::Begun { .. } => failure.hint(
                "Nothing was changed. Give the same password and options as then: it goes on. Or choose another place.",
            ),
            VaultError::MadeAtOnce { .. } => failure
                .hint("What was put for it was taken back. Make it from one machine, and use it from the others."),
            VaultError::WrongSecret { mistyped: true, .. } => {
                failure.exit(Exit::WrongPassword).hint("If it is meant as a recovery key: it has a typing mistake.")
            }
            VaultError::WrongSecret { others, .. } if !others.is_empty() => {
                let ids: Vec<String> = others.iter().map(|id| format!("--vault {}", &id.to_string()[..8])).collect();
                failure
                    .exit(Exit::WrongPassword)
                    .hint(format!("The folder holds another vault too, on which it was not tried: {}", ids.join(", ")))
            }
            VaultError::WrongSecret { .. } => {
                failure.exit(Exit::WrongPassword).hint("A recovery key is accepted in place of the password.")
            }
            VaultError::OtherVault { found, .. } => match found.as_slice() {
                [found] => failure.exit(Exit::Unreachable).hint(format!(
                    "Is the right disk mounted? If this vault is meant from now on, say so once: --vault {}",
                    &found.to_string()[..8]
                )),
                _ => failure
                    .exit(Exit::Unreachable)
                    .hint("Is the right disk mounted? If one of these is meant, say so once: --vault ID"),
            },
            VaultError::NotThatVault { .. } => {
                failure.exit(Exit::Unreachable).hint("Is the right disk mounted? Is the id right?")
            }
            VaultError::Ambiguous { .. } => failure.hint("Give more digits of the id."),
            VaultError::NoSuchSlot { .. } => failure.hint("Without --slot the password is tried on all of them."),
            VaultError::NoSlot { .. } => failure.exit(Exit::Damage).hint(
                "Without a key slot nobody can open the vault. Copies of the folder 'keys' from another place help.",
            ),
            VaultError::Newer { .. } | VaultError::NewerToWrite { .. } => failure.hint(NEWER),
            VaultError::Unfinished { place } => failure.exit(Exit::Skipped).hint(format!(
                "Copy the rest of the vault to it, with the vault's own --repo: vault mirror --to {}",
                quoted(&place)
            )),
            VaultError::Mirror { place } => failure.hint(format!(
                "Write to the vault itself. If that is lost, this becomes the vault with: vault promote --repo {}",
                quoted(&place)
            )),
            VaultError::PreRelease { .. } => failure.hint(PRE_RELEASE),
            VaultError::Store(error)
            | VaultError::Record(RecordError::Store(error))
            | VaultError::Pack(PackError::Store(error)) => error.into(),
            VaultError::Record(RecordError::Newer { .. }) | VaultError::Pack(PackError::Newer { .. }) => {
                failure.hint(NEWER)
            }
            VaultError::Record(RecordError::Damaged { .. }) | VaultError::Pack(PackError::Damaged { .. }) => {
                failure.exit(Exit::Damage).hint(CHECK)
            }
            VaultError::Catalogue(CatalogueError::Unusable { .. }) => failure.hint(
                "Another folder for it can be given with --state DIR, or VAULT_STATE_DIR. It is only a cache, and may be \
                 deleted.",
            ),
            VaultError::State { .. } => {
                failure.hint("Another folder for it can be given with --state DIR, or VAULT_STATE_DIR.")
            }
            VaultError::Seal(SealError::Zstd) | VaultError::Slot(SlotError::Memory { .. }) => failure.hint(MEMORY),
            VaultError::Catalogue(_)
            | VaultError::Record(_)
            | VaultError::Pack(_)
            | VaultError::Seal(_)
            | VaultError::Slot(_)
            | VaultError::Unexplained => failure,
            VaultError::Interrupted => Self::interrupted(),
        }
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        let failure = Self::new(chain(&error));
        // The text tells which vault it concerns; the rest is the same as for that vault alone.
        let of = |inner: Self| match inner.exit {
            Exit::Interrupted => inner,
            _ => Self { what: failure.what.clone(), ..inner },
        };
        match error {
            CopyError::Interrupted => {
                Self::interrupted().hint("What was copied stays. The same command goes on from there.")
            }
            CopyError::From(error) | CopyError::There(error) => of(error.into()),
            CopyError::To(error) => of(error.into()),
            CopyError::Same { .. } => failure.exit(Exit::Usage),
            CopyError::Entry { .. } => failure.hint("What was copied before stays."),
            CopyError::Unsettled => {
                failure.hint("What was copied before stays. Another machine may be collecting there: try again.")
            }
            CopyError::Threads(_) => failure.hint(THREADS),
        }
    }
}

impl From<MirrorError> for Failure {
    fn from(error: MirrorError) -> Self {
        let failure = Self::new(chain(&error));
        match error {
            MirrorError::Vault(error) => error.into(),
            MirrorError::To { source, .. } => Self::from(source).of_mirror(failure.what),
            MirrorError::NoVault { .. } => failure.exit(Exit::Unreachable).hint("Mend it first: vault repair"),
            MirrorError::Unknown { place } => failure.hint(format!(
                "Nothing was changed. A mirror is made in an empty place. If vault promote was interrupted there, it goes \
                 on: vault promote --repo {}",
                quoted(&place)
            )),
            MirrorError::Other { .. } => {
                failure.hint("Nothing was changed. A mirror is made in an empty place, and kept up to date there.")
            }
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let failure = Self::new(chain(&error));
        match error {
            ReadError::Pack(PackError::Store(error)) => error.into(),
            // It ends as that vault's trouble does, in words that say whose it is.
            ReadError::Lender { source, .. } => Self { what: failure.what, ..Self::from(*source) },
            ReadError::Seal(SealError::Zstd) => failure.hint(MEMORY),
            ReadError::Gone(gone) => gone.into(),
            error if error.is_newer() => failure.hint(NEWER),
            error if error.is_late() => failure.exit(Exit::Skipped).hint(LATE),
            error if error.is_damage() => failure.exit(Exit::Damage).hint(CHECK),
            _ => failure,
        }
    }
}

impl From<Gone> for Failure {
    fn from(gone: Gone) -> Self {
        let hint = match gone {
            Gone::Dropped(_) => "Nothing is damaged. What there is now: vault list",
            Gone::Changed { .. } => "Nothing is damaged. Run the same command again.",
        };
        Self::new(gone.to_string()).hint(hint)
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        let failure = Self::new(chain(&error));
        match error {
            SnapshotError::Vault(VaultError::Interrupted) | SnapshotError::Interrupted => {
                Self::interrupted().hint("What was stored so far is kept: the next snapshot does not store it again.")
            }
            SnapshotError::Vault(error) => error.into(),
            SnapshotError::Read(error) => error.into(),
            SnapshotError::Root { .. } => {
                failure.hint("No snapshot was made: a missing path is never taken for an empty one.")
            }
            SnapshotError::Inputs(_) | SnapshotError::Pattern(_) => failure.exit(Exit::Usage),
            SnapshotError::Future => failure
                .exit(Exit::Usage)
                .hint("It says what the content is of, so it is never later than now. No snapshot was made."),
            SnapshotError::Feed { .. } => failure.hint("No snapshot was made."),
            SnapshotError::Unsettled => {
                failure.hint("No snapshot was made. Another machine may be collecting: try again.")
            }
            SnapshotError::Threads(_) => failure.hint(THREADS),
        }
    }
}

impl From<RewriteError> for Failure {
    fn from(error: RewriteError) -> Self {
        const AGAIN: &str =
            "Nothing is lost: each snapshot is as it was, or as it was to be. The same command does the rest.";
        let failure = Self::new(chain(&error));
        match error {
            RewriteError::Vault(VaultError::Interrupted)
            | RewriteError::Mark(MarkError::Vault(VaultError::Interrupted))
            | RewriteError::Interrupted => Self::interrupted().hint(AGAIN),
            RewriteError::Vault(error) => error.into(),
            RewriteError::Browse(error) => error.into(),
            RewriteError::Read(error) => error.into(),
            RewriteError::Mark(error) => error.into(),
            RewriteError::Index(error) => error.into(),
            RewriteError::Pattern(_) => failure.exit(Exit::Usage),
            RewriteError::Future => failure
                .exit(Exit::Usage)
                .hint("It says what the content is of, so it is never later than now. Nothing was changed."),
            RewriteError::GivenUp => {
                failure.hint("Another machine may have forgotten them, or does not know this one yet: again when all has arrived, or after vault prune")
            }
            RewriteError::Unsettled => failure.hint(AGAIN),
            RewriteError::Partly { source, .. } => {
                let inner = Self::from(*source);
                let then = "The same command goes on with the others.";
                let hint =
                    inner.hint.filter(|hint| hint != AGAIN).map_or(then.to_owned(), |hint| format!("{hint} {then}"));
                Self { exit: inner.exit, what: failure.what, hint: Some(hint) }
            }
        }
    }
}

/// Exit code, reason (to follow "since") and advice for a snapshot that was not copied.
pub const fn of_left(why: Left) -> (Exit, &'static str, &'static str) {
    match why {
        Left::Damaged => (Exit::Damage, "nothing of it can be read", "What is damaged is told by: vault check"),
        Left::Partial => (Exit::Damage, "a part of it is damaged", "What is damaged is told by: vault check"),
        Left::NotArrived => (Exit::Skipped, "not all of it has arrived here yet", LATE),
        Left::Newer => (
            Exit::Skipped,
            "a newer version of vault wrote a part of it",
            "It is not damaged. Update vault, and run the same command again.",
        ),
        Left::Gone => (
            Exit::Done,
            "another machine has dropped or changed it meanwhile",
            "Nothing is damaged. What there is now: vault list",
        ),
        Left::Future => (
            Exit::Skipped,
            "its date lies in the future",
            "Put the date right, and run the same command again: vault amend SNAPSHOT --time DATE",
        ),
    }
}

/// Exit code and reason (to follow "since") for an object that was left as it is, since it could not be read.
pub fn of_unread(unread: &Unread) -> (Exit, String) {
    let what = &unread.what;
    match unread.why {
        Why::Damaged => (Exit::Damage, format!("it cannot be read: {what}")),
        Why::Newer => (Exit::Skipped, format!("a later version of vault wrote it: {what}")),
        Why::NotArrived => (Exit::Skipped, "it has not arrived yet; the sync brings it".to_owned()),
        Why::TooLong => (Exit::Skipped, format!("it is too much to list: {what}")),
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let failure = Self::new(chain(&error));
        match error {
            RestoreError::Interrupted => {
                Self::interrupted().hint("The same command with --overwrite if-changed continues where it stopped.")
            }
            RestoreError::Store(error) => error.into(),
            RestoreError::Catalogue(error) => VaultError::Catalogue(error).into(),
            RestoreError::Gone(gone) => {
                let failure = Self::from(gone);
                let hint = failure.hint.map(|hint| format!("What was restored before stays. {hint}"));
                Self { hint, ..failure }
            }
            error if error.is_damage() => failure.exit(Exit::Damage).hint(CHECK),
            RestoreError::Read { source, .. } if source.is_newer() => failure.hint(NEWER),
            RestoreError::Read { source, .. } if source.is_late() => failure.exit(Exit::Skipped).hint(LATE),
            RestoreError::Read { .. } | RestoreError::OwnPlace { .. } => failure,
            RestoreError::Target { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failure
                    .hint("Make room there, and run the same command again with --overwrite if-changed: it continues."),
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                    failure.hint("Choose a folder that can be written to: --to DIR")
                }
                _ if is_exhausted(&source) => {
                    failure.hint("Allow more open files (ulimit -n), or end other programs. Nothing that was stored is lost.")
                }
                _ => failure,
            },
            RestoreError::NoSuchSnapshot { .. }
            | RestoreError::NoSuchPath { .. }
            | RestoreError::NothingSelected { .. } => failure.hint(LOOK),
            RestoreError::NoPlace { .. } => failure.hint("Restore it to a folder: --to DIR"),
            RestoreError::NotEmpty { .. } => failure.hint(
                "Choose another folder, or say what happens to what is there: --overwrite always|if-changed|keep-newer-copy|never",
            ),
            RestoreError::InOwn { .. } => failure.hint("Choose another folder: --to DIR"),
            RestoreError::WholeSystem { .. } => failure.exit(Exit::Usage).hint(
                "Say with --include what is to be restored, or restore it without --delete. Nothing was changed.",
            ),
            RestoreError::Pattern { .. } => failure.exit(Exit::Usage),
        }
    }
}

/// Whether too many files are open.
#[cfg(unix)]
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether too many files are open.
#[cfg(not(unix))]
fn is_exhausted(_: &io::Error) -> bool {
    false
}

impl From<BrowseError> for Failure {
    fn from(error: BrowseError) -> Self {
        let failure = Self::new(chain(&error));
        match error {
            error if error.is_damage() => failure.exit(Exit::Damage).hint(CHECK),
            BrowseError::Read { source: ReadError::Gone(gone), .. }
            | BrowseError::Partial { source: ReadError::Gone(gone), .. } => gone.into(),
            BrowseError::Read { source, .. } if source.is_newer() => failure.hint(NEWER),
            BrowseError::Read { source, .. } | BrowseError::Partial { source, .. } if source.is_late() => {
                failure.exit(Exit::Skipped).hint(LATE)
            }
            BrowseError::Read { source, .. } => source.into(),
            BrowseError::Partial { source, .. } if source.is_newer() => failure.exit(Exit::Skipped).hint(NEWER),
            BrowseError::Partial { .. } => failure,
            BrowseError::Interrupted => Self::interrupted(),
            BrowseError::Output(error) => Self::output(&error),
            BrowseError::NotFound { .. } => failure.hint(LOOK),
            BrowseError::NotAFile { .. } => failure.hint("Only regular files have content to print. See: vault ls"),
        }
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Read(error) => error.into(),
            IndexError::Threads(_) => Self::new(chain(&error)).hint(THREADS),
            IndexError::TooMany { .. } => Self::new(chain(&error))
                .hint("Ask for fewer levels with --depth, or for a folder in it: vault du SNAPSHOT:PATH"),
            IndexError::Interrupted => Self::interrupted(),
        }
    }
}

impl From<MarkError> for Failure {
    fn from(error: MarkError) -> Self {
        match error {
            MarkError::Vault(error) => error.into(),
            MarkError::Catalogue(error) => VaultError::Catalogue(error).into(),
            MarkError::Read(error) => error.into(),
        }
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Vault(error) => error.into(),
            CheckError::Mark(error) => error.into(),
            CheckError::Threads(_) => Self::new(chain(&error)).hint(THREADS),
        }
    }
}

impl From<RepairError> for Failure {
    fn from(error: RepairError) -> Self {
        match error {
            RepairError::Vault(
                VaultError::Store(StoreError::Full { .. })
                | VaultError::Record(RecordError::Store(StoreError::Full { .. }))
                | VaultError::Pack(PackError::Store(StoreError::Full { .. })),
            ) => Self::new(chain(&error))
                .hint("Free as much space as the plan copies, and run it again: it goes on from there."),
            RepairError::Vault(VaultError::Interrupted) => {
                Self::interrupted().hint("What was done stays done: the next vault repair goes on.")
            }
            RepairError::Vault(error) => error.into(),
            RepairError::Mark(error) => error.into(),
            RepairError::Changed => {
                Self::new(chain(&error)).hint("What was done until then stays. Run vault repair again.")
            }
            RepairError::Lender { place, source } => ReadError::Lender { place, source: Box::new(source) }.into(),
            RepairError::Entry { .. } => Self::new(chain(&error)),
            RepairError::Threads(_) => Self::new(chain(&error)).hint(THREADS),
        }
    }
}

impl From<CollectError> for Failure {
    fn from(error: CollectError) -> Self {
        match error {
            CollectError::Vault(
                VaultError::Store(StoreError::Full { .. })
                | VaultError::Record(RecordError::Store(StoreError::Full { .. }))
                | VaultError::Pack(PackError::Store(StoreError::Full { .. })),
            ) => Self::new(chain(&error)).hint(
                "Nothing that is needed is lost. Free a little space (some 100 KB for a record, 64 MB to copy) and run it again; \
                 vault prune --max-repack-size 0 copies nothing.",
            ),
            CollectError::NoRoom { .. } => Self::new(chain(&error)).hint(
                "Nothing that is needed is lost, and what could be deleted without copying is. Free that much and run it \
                 again, or forget more snapshots: a pack in which nothing is needed is deleted as it is.",
            ),
            CollectError::Vault(VaultError::Interrupted) => {
                Self::interrupted().hint("What was done stays done: the next prune continues.")
            }
            CollectError::Vault(error) => error.into(),
            CollectError::Mark(error) => error.into(),
            CollectError::RecordsMissing { late, .. } => Self::new(chain(&error))
                .exit(if late { Exit::Skipped } else { Exit::Damage })
                .hint(
                    "Nothing was forgotten or deleted. vault repair puts again what this machine remembers; what is lost for \
                     good is given up with vault accept.",
                ),
            CollectError::NotArrived => Self::new(chain(&error)).exit(Exit::Skipped).hint(LATE),
            CollectError::Newer { .. } => Self::new(chain(&error)).exit(Exit::Skipped).hint(NEWER),
            CollectError::Refused(_) => {
                Self::new(chain(&error)).exit(Exit::Damage).hint("See what is hurt with: vault check")
            }
            CollectError::Threads(_) => Self::new(chain(&error)).hint(THREADS),
        }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let failure = Self::new(chain(&error));
        match error {
            KeyError::Vault(error) => error.into(),
            KeyError::Store(error) => error.into(),
            KeyError::Last(_) => failure.hint("Add another first: vault key add"),
            KeyError::NoSuchSlot(_) | KeyError::Full => failure.hint("See which there are with: vault key list"),
            KeyError::Crossed(_) => failure.hint("See which are left with: vault key list"),
            KeyError::Busy(_) => {
                failure.hint("Try again when it has ended, and all records have arrived. Nothing was changed.")
            }
            KeyError::WrongSecret => {
                failure.hint("If a recovery key was given in place of a lost password: vault key add makes a new one.")
            }
            KeyError::Slot(SlotError::Memory { .. }) | KeyError::Seal(SealError::Zstd) => failure.hint(MEMORY),
            KeyError::Slot(_) | KeyError::Seal(_) | KeyError::Device { .. } => failure,
        }
    }
}

impl From<LiveError> for Failure {
    fn from(error: LiveError) -> Self {
        match error {
            LiveError::Source(SnapshotError::Root { path, source }) => {
                Self::caused(format!("cannot read {}", Shown(path.as_bytes())), &source)
                    .hint("Is the disk connected? A missing folder is never taken for an empty one.")
            }
            LiveError::Source(error) => error.into(),
            LiveError::Browse(error) => error.into(),
        }
    }
}

impl From<DrillError> for Failure {
    fn from(error: DrillError) -> Self {
        match error {
            DrillError::Vault(error) => error.into(),
            DrillError::Read(error) => error.into(),
            DrillError::Index(error) => error.into(),
            DrillError::Restore(error) => error.into(),
            DrillError::Interrupted => Self::interrupted(),
            error @ DrillError::Scratch { .. } => Self::caused("the drill was not finished", &error),
        }
    }
}

impl From<ChunkParamsError> for Failure {
    fn from(error: ChunkParamsError) -> Self {
        Self::usage(chain(&error))
    }
}

/// A word, quoted for a shell if necessary.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:,@%=~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_chained_once_and_without_numbers() {
        let source = io::Error::from_raw_os_error(if cfg!(windows) { 5 } else { 13 });
        let error = StoreError::Io { action: "read", object: "VAULT".to_owned().into(), source };
        let said = chain(&error);
        assert!(said.starts_with("cannot read VAULT: ") && said.ends_with("denied"), "{said}");
        let alone = Failure::caused("cannot mount", &io::Error::from_raw_os_error(if cfg!(windows) { 5 } else { 13 }));
        assert!(alone.what.starts_with("cannot mount: ") && alone.what.ends_with("denied"), "{}", alone.what);
    }

    #[test]
    fn each_failure_has_its_exit_code() {
        let exit = |failure: Failure| failure.exit;
        let wrong = VaultError::WrongSecret { place: "x".into(), mistyped: false, others: Vec::new() };
        assert_eq!(exit(wrong.into()), Exit::WrongPassword);
        assert_eq!(exit(VaultError::NoVault { place: "x".into() }.into()), Exit::Unreachable);
        assert_eq!(exit(StoreError::Missing { object: "x".to_owned().into() }.into()), Exit::Damage);
        assert_eq!(exit(SnapshotError::Interrupted.into()), Exit::Interrupted);
        assert_eq!(exit(Failure::usage("x")), Exit::Usage);
        assert_eq!(exit(Failure::output(&io::ErrorKind::BrokenPipe.into())), Exit::Done);
    }

    #[test]
    fn hints_can_be_pasted_into_a_shell() {
        for (word, expected) in [("/a/b", "/a/b"), ("/my disk", "'/my disk'"), ("it's", "'it'\\''s'"), ("", "''")] {
            assert_eq!(quoted(word), expected);
        }
    }
}
