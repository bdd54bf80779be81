//! Findings: the subject of each, its cost, and the action that ends it, in words and as an exit code.

use crate::exit::Exit;
use crate::id::{ClientId, ObjectName, VaultId};
use crate::store::ObjectKey;
use crate::tree::Time;
use crate::vault::ObjectState;
use crate::vault::notes::Note;
use crate::vault::slots::{OddSlot, SlotFault};

/// Id of a finding: the first eight digits of the hash of its subject. So the same problem has the same id on every
/// machine, and accepting it accepts exactly that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FindingId(String);

impl FindingId {
    pub(super) fn of(kind: &str, parts: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(kind.as_bytes());
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(&part);
        }
        Self(hasher.finalize().to_hex().chars().take(8).collect())
    }
}

impl std::fmt::Display for FindingId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Subject of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// An object that is not as it was put.
    Object {
        /// The object.
        key: ObjectKey,
        /// Its state.
        state: ObjectState,
        /// The damage, in words.
        what: String,
    },
    /// Records of a client that this machine or others have seen, and that the store does not have.
    Records {
        /// The client.
        client: ClientId,
        /// Their numbers; the first ones, if there are many.
        numbers: Vec<u64>,
        /// Those of them that are known to be snapshots.
        snapshots: Vec<ObjectName>,
        /// Whether they may just not have arrived yet.
        late: bool,
    },
    /// Files of a snapshot are lost.
    Files {
        /// The snapshot.
        snapshot: ObjectName,
        /// Number of lost files.
        count: u64,
    },
    /// A command met a loss in a snapshot, and no check has found out since what else it lacks.
    Unexamined {
        /// The snapshot.
        snapshot: ObjectName,
    },
    /// Files of a snapshot have not arrived on this machine yet. This ends by itself when their data is here.
    Late {
        /// The snapshot.
        snapshot: ObjectName,
        /// Number of files, and of folders with everything in them.
        count: u64,
    },
    /// In the last snapshot of a source a root was empty, or on another device, and had not been so before.
    Source {
        /// The source.
        source: String,
        /// The root's path.
        path: Vec<u8>,
        /// The snapshot that found it.
        snapshot: ObjectName,
    },
    /// A key slot of this vault that no record calls valid, or a valid one that lacks copies.
    Slot(OddSlot),
    /// Another vault lies in the same place. It is not examined.
    OtherVault(VaultId),
    /// A change of a snapshot has no effect, since another machine changed the same snapshot at the same time.
    Change {
        /// The snapshot as it is.
        snapshot: ObjectName,
        /// The record with the change.
        change: ObjectName,
        /// The machine whose change has no effect.
        host: String,
    },
    /// The dates of two machines contradict each other: the last record of the first has a date long before that of a
    /// record of the second, which its writer had seen. Which clock is wrong is unknown, and no date is moved.
    Clocks {
        /// The client with the earlier date.
        early: ClientId,
        /// Name of its machine.
        early_host: String,
        /// The client whose record was seen.
        late: ClientId,
        /// Name of its machine.
        late_host: String,
        /// Difference of the dates in seconds.
        apart: i64,
    },
    /// A note of this machine that could not be read.
    Note(Note),
}

impl About {
    /// Exit code of a command that knows of it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Object { state, .. } if state.is_loss() => Exit::Damage,
            Self::Records { late: false, .. }
            | Self::Files { .. }
            | Self::Unexamined { .. }
            | Self::Slot(OddSlot { fault: SlotFault::Missing, .. }) => Exit::Damage,
            Self::Object { .. }
            | Self::Records { .. }
            | Self::Late { .. }
            | Self::Source { .. }
            | Self::Slot(_)
            | Self::OtherVault(_)
            | Self::Change { .. }
            | Self::Clocks { .. }
            | Self::Note(_) => Exit::Skipped,
        }
    }

    /// The problem in one sentence without a full stop.
    pub fn text(&self) -> String {
        let more = |count: usize| if count > 5 { ", …" } else { "" };
        match self {
            Self::Object { key, state, what } => format!("{key} is {}: {what}", state.word()),
            Self::Records { client, numbers, snapshots, late } => {
                let shown: Vec<String> = numbers.iter().take(5).map(u64::to_string).collect();
                let of = match snapshots.len() {
                    0 => String::new(),
                    1 => ", one of them a snapshot".to_owned(),
                    many => format!(", {many} of them snapshots"),
                };
                let client = &client.to_string()[..8];
                let (shown, more) = (shown.join(", "), more(numbers.len()));
                if *late {
                    format!("records of client {client} have not arrived yet (number {shown}{more}{of})")
                } else {
                    format!("records of client {client} are missing from the log (number {shown}{more}{of})")
                }
            }
            Self::Files { snapshot, count } => {
                format!("snapshot {} has lost {count} {}", snapshot.short(), if *count == 1 { "file" } else { "files" })
            }
            Self::Unexamined { snapshot } => {
                format!("snapshot {} has lost data, and no check has found out yet which files", snapshot.short())
            }
            Self::Late { snapshot, count } => {
                let have = if *count == 1 { "file or folder has" } else { "files and folders have" };
                format!("snapshot {}: {count} {have} not arrived yet", snapshot.short())
            }
            Self::Source { source, path, snapshot } => format!(
                "the source {source}: {}, or a mount point below it, was empty or another device when snapshot {} was taken, and was \
                 not before",
                crate::path::Shown(path),
                snapshot.short()
            ),
            Self::Slot(OddSlot { slot, fault }) => {
                let id = &slot.id.to_string()[..8];
                match fault {
                    SlotFault::Returned => {
                        format!("key slot {id} was removed, and its file is here again: it opens the vault")
                    }
                    SlotFault::Unlisted => {
                        format!("key slot {id} opens the vault, and no record of the vault says that it is valid")
                    }
                    SlotFault::Forged => format!(
                        "key slot {id} was made without the key of this vault: it opens nothing, and somebody put it here"
                    ),
                    SlotFault::OnlyCopy => format!("key slot {id} has one copy, where there should be two"),
                    SlotFault::Missing => {
                        format!("key slot {id} is gone from the store: what it was made for opens the vault no more")
                    }
                    SlotFault::Late => format!("key slot {id} has not arrived yet"),
                }
            }
            Self::OtherVault(vault) => {
                format!(
                    "the vault {vault} lies in the same place, and is not looked at: --vault {}",
                    &vault.to_string()[..8]
                )
            }
            Self::Change { snapshot, host, .. } => format!(
                "what {} changed of snapshot {} does not count, since another machine changed it at the same time",
                crate::path::Shown(host.as_bytes()),
                snapshot.short()
            ),
            Self::Clocks { early_host, late_host, apart, .. } => {
                let hours = apart / 3600;
                let apart = if hours < 72 { format!("{hours} hours") } else { format!("{} days", hours / 24) };
                format!(
                    "the clocks of {} and {} contradict each other by {apart}",
                    crate::path::Shown(early_host.as_bytes()),
                    crate::path::Shown(late_host.as_bytes())
                )
            }
            Self::Note(note) => note.text().to_owned(),
        }
    }
}

/// A known problem of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFinding {
    /// Its id, as used by `vault accept`.
    pub id: FindingId,
    /// Its subject.
    pub about: About,
    /// When this machine first noticed it, or the date in the log.
    pub since: Time,
    /// Number of snapshots that it costs something, as far as that is known.
    pub snapshots: u64,
    /// Number of files that it costs in them.
    pub files: u64,
}

impl KnownFinding {
    /// That a command met a loss in this snapshot, which is to be examined.
    pub(super) fn unexamined(snapshot: ObjectName) -> Self {
        Self {
            id: FindingId::of("unexamined", [snapshot.as_bytes().to_vec()]),
            about: About::Unexamined { snapshot },
            since: Time::default(),
            snapshots: 1,
            files: 0,
        }
    }

    /// Exit code of a command that knows of it.
    pub const fn exit(&self) -> Exit {
        self.about.exit()
    }

    /// Whether a person can accept it: nothing else can end it.
    pub const fn can_be_accepted(&self) -> bool {
        match &self.about {
            About::Object { state, .. } => state.is_loss(),
            About::Records { .. } | About::Files { .. } | About::Change { .. } | About::Note(_) => true,
            About::Slot(odd) => matches!(odd.fault, SlotFault::Unlisted | SlotFault::Missing | SlotFault::Late),
            // Of one that is unexamined, it is not known what would be accepted.
            About::Unexamined { .. }
            | About::Late { .. }
            | About::Source { .. }
            | About::OtherVault(_)
            | About::Clocks { .. } => false,
        }
    }

    /// The problem in one sentence without a full stop.
    pub fn text(&self) -> String {
        self.about.text()
    }

    /// The event or command that ends it.
    pub const fn ends(&self) -> &'static str {
        match &self.about {
            About::Object { state: ObjectState::NotArrived, .. } | About::Records { late: true, .. } => {
                "when the sync has brought the rest"
            }
            About::Object { state: ObjectState::Newer, .. } => "with a newer version of vault",
            About::Object { .. } => "vault repair, or a check that reads it and finds it sound",
            About::Records { .. } => "vault repair on a machine that remembers them, or accepting that they are lost",
            About::Unexamined { .. } => "vault check, which finds out what is lost, or that nothing is",
            About::Late { .. } => "when the sync has brought the rest, or vault forget of the snapshot",
            About::Files { .. } => "a snapshot that stores the files again, or accepting that they are lost",
            About::Source { .. } => "a snapshot that finds the files again",
            About::Slot(odd) => match odd.fault {
                SlotFault::Returned | SlotFault::Forged => "vault repair, which moves its file aside",
                SlotFault::Unlisted => "vault key remove, or accepting it, which makes it a valid one",
                SlotFault::OnlyCopy => "vault repair, which makes the second copy",
                SlotFault::Missing => {
                    "its file being there again, or accepting that it is gone: vault key add makes another"
                }
                SlotFault::Late => "when the sync has brought it, or accepting that it is gone",
            },
            About::OtherVault(_) => "that vault being moved to a folder of its own",
            About::Change { .. } => {
                "the next change of that snapshot (vault tag, amend or rewrite), which takes this one over"
            }
            About::Clocks { .. } => {
                "the next records of these machines with the right time, or vault client retire for one that is gone"
            }
            About::Note(note) => note.ends(),
        }
    }
}

/// Exit code of a command that knows of these findings.
pub fn exit_of(findings: &[KnownFinding]) -> Exit {
    findings.iter().fold(Exit::Done, |exit, finding| exit.worse(finding.exit()))
}
