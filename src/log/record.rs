//! One record of a client's log (SPEC §8.1).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::id::{ChunkId, ClientId, Digest, ObjectName, SlotId};
use crate::limits::RECORD_LEN_MAX;
use crate::log::past::{Closed, Past};
use crate::msgpack;
use crate::pack::TRAILER_LEN;
use crate::seal::{HEADER_LEN, Keys, NONCE_LEN, ObjectKind, SealError, TAG_LEN, random_name};
use crate::store::{Kind, ObjectKey, Store, StoreError};
use crate::tree::{Root, Snapshot, Stream, Time};

/// Records are padded to a multiple of this many bytes before they are sealed, so that their length reveals little.
const PADDING: usize = 1 << 10;

/// Error of reading or writing a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object is not the one that was put.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// The object.
        object: ObjectKey,
        /// The damage.
        what: String,
    },
    /// The record was written by a later version.
    #[error("{object} was written by a newer vault: {what}")]
    Newer {
        /// The object.
        object: ObjectKey,
        /// The unknown part.
        what: String,
    },
    /// Sealing failed.
    #[error("a record could not be sealed: {0}")]
    Seal(String),
}

impl RecordError {
    /// The reason without the name of the object, for places that show the name beside it.
    pub fn reason(&self) -> String {
        match self {
            Self::Store(error) => error.reason(),
            Self::Damaged { what, .. } | Self::Newer { what, .. } => what.clone(),
            Self::Seal(_) => self.to_string(),
        }
    }
}

/// A pack as records name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackRef {
    /// Whether it is a meta pack.
    #[serde(rename = "m", default)]
    pub meta: bool,
    /// Its name.
    #[serde(rename = "n")]
    pub name: ObjectName,
}

/// The first record of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Name of the machine.
    pub host: String,
    /// Name of the user.
    pub user: String,
    /// A keyed hash of the machine's id, the user and the path of the state folder. It is the same for a client that
    /// lost its state and joins again.
    #[serde(with = "serde_bytes")]
    pub place: Vec<u8>,
    /// Earlier clients whose place this one takes.
    #[serde(default)]
    pub retires: Vec<ClientId>,
    /// Whether the store delivers late (a synced folder).
    #[serde(default)]
    pub synced: bool,
    /// Version of the program.
    #[serde(default)]
    pub program: String,
}

/// Body of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordBody {
    /// A client joined.
    Join(Join),
    /// A snapshot was taken; its id is the name of the record's object.
    Snapshot(Box<Snapshot>),
    /// Snapshots were forgotten.
    Forget(Vec<ObjectName>),
    /// Packs were condemned: their living chunks have been copied, and writers treat them as absent.
    Condemn(Vec<PackRef>),
    /// Condemned packs were deleted.
    Sweep(Vec<PackRef>),
    /// Clients were retired: they no longer hold up a sweep.
    Retire(Vec<ClientId>),
    /// Snapshots that retention must keep from now on, or need not keep any more.
    Pin {
        /// The snapshots.
        snapshots: Vec<ObjectName>,
        /// Whether they are pinned from now on.
        pinned: bool,
    },
    /// Records whose objects are lost, or may be absent: they count as if the objects were here.
    Found(Held),
    /// Files that snapshots have lost.
    Damage(Damage),
    /// Features that the vault uses from now on.
    Format(Format),
    /// Key slots that become valid, or stop being valid.
    Slots(SlotChange),
    /// Records that are lost for good, and that a person gave up: client and number. They count as if they were here.
    Lost(Vec<(ClientId, u64)>),
    /// Objects that were found damaged, seen sound, or accepted as lost.
    Findings(Findings),
    /// Something that this version does not know. The record still counts in its chain.
    Unknown(Unknown),
}

/// The part of a record that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// The version of the record.
    Version(u64),
    /// The kind of the record.
    Kind(u64),
    /// A critical key in it (SPEC §2).
    Key(String),
}

/// Kinds from this number on never say that a chunk is needed (SPEC §10).
const HARMLESS_KINDS: u64 = 128;

impl Unknown {
    /// Whether it may say that something is needed. Then nothing may be deleted.
    pub const fn may_need(&self) -> bool {
        match self {
            Self::Kind(kind) => *kind < HARMLESS_KINDS,
            Self::Version(_) | Self::Key(_) => true,
        }
    }
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(version) => write!(f, "version {version} of records is unknown"),
            Self::Kind(kind) => write!(f, "kind {kind} of records is unknown"),
            Self::Key(key) => write!(f, "the key {key:?} is unknown, and must not be passed over"),
        }
    }
}

/// A record whose object is lost, as a client remembered it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRecord {
    /// Name that its object had.
    #[serde(rename = "n")]
    pub name: ObjectName,
    /// BLAKE3 of that object.
    #[serde(rename = "h")]
    pub digest: Digest,
    /// Plaintext, as it was opened: a later version may have written keys that this one does not know.
    #[serde(rename = "r", with = "serde_bytes")]
    pub plain: Vec<u8>,
}

/// Records that a record holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Held {
    /// Records as they were sealed.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<FoundRecord>,
    /// Entries of past records, which nobody needs any more.
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Past>,
}

impl Held {
    /// Whether it is empty.
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty() && self.past.is_empty()
    }
}

impl From<Vec<FoundRecord>> for Held {
    fn from(records: Vec<FoundRecord>) -> Self {
        Self { records, past: Vec::new() }
    }
}

/// Losses of snapshots. For each snapshot listed, this record replaces all earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Damage {
    /// Snapshots that were examined.
    #[serde(rename = "s")]
    pub snapshots: Vec<DamagedSnapshot>,
    /// Files that are lost in any of them.
    #[serde(rename = "l")]
    pub lost: Vec<LostFile>,
}

/// Features of the vault (SPEC §10): those that programs must know to read, write, or collect it. The masks of all
/// records are combined with OR, so a feature can be gained and never lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Format {
    /// Features that a reader must know.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub read: u64,
    /// Features that a writer must know.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub write: u64,
    /// Features that a program must know to free space.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub collect: u64,
    /// Whether the store delivers late from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub synced: bool,
}

impl Format {
    /// Features that this version knows. None is defined yet.
    pub const KNOWN: Self = Self { read: 0, write: 0, collect: 0, synced: true };

    /// The features of this vault that this version does not know.
    #[must_use]
    pub const fn unknown(&self) -> Self {
        Self {
            read: self.read & !Self::KNOWN.read,
            write: self.write & !Self::KNOWN.write,
            collect: self.collect & !Self::KNOWN.collect,
            synced: false,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A change to the set of valid key slots (SPEC §8.4). A removal beats only additions that its writer had seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlotChange {
    /// Slots that are valid from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<ValidSlot>,
    /// Slots that are no longer valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<SlotId>,
}

/// Findings about objects of the store (SPEC §8.8).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Findings {
    /// Objects that were found damaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<FoundDamage>,
    /// Objects that were found damaged before, and have since been read completely and found sound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sound: Vec<ObjectRef>,
    /// Objects, and snapshots with lost files, whose loss a person accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<ObjectRef>,
}

/// An object that was found damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundDamage {
    /// The object.
    #[serde(rename = "o")]
    pub object: ObjectRef,
    /// The damage, in words.
    #[serde(rename = "w")]
    pub what: String,
    /// Number of snapshots that lose files by it.
    #[serde(rename = "s", default, skip_serializing_if = "is_zero")]
    pub snapshots: u64,
    /// Number of files lost in them.
    #[serde(rename = "f", default, skip_serializing_if = "is_zero")]
    pub files: u64,
}

/// An object as records of findings name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// 1 pack, 2 meta pack, 3 record, 4 index, 5 key slot. Other kinds are ignored.
    #[serde(rename = "k")]
    pub kind: u64,
    /// Its name.
    #[serde(rename = "n")]
    pub name: ObjectName,
}

impl ObjectRef {
    /// Refers to a record, which may be that of a snapshot.
    pub const fn record(name: ObjectName) -> Self {
        Self { kind: 3, name }
    }

    /// Refers to this object; `None` for the VAULT file, which records never name.
    pub const fn of(key: &ObjectKey) -> Option<Self> {
        let ObjectKey::Named(kind, name) = *key else { return None };
        let kind = match kind {
            Kind::Pack => 1,
            Kind::Meta => 2,
            Kind::Log => 3,
            Kind::Index => 4,
            Kind::Key => 5,
        };
        Some(Self { kind, name })
    }

    /// The object, if this version knows its kind.
    pub const fn key(&self) -> Option<ObjectKey> {
        let kind = match self.kind {
            1 => Kind::Pack,
            2 => Kind::Meta,
            3 => Kind::Log,
            4 => Kind::Index,
            5 => Kind::Key,
            _ => return None,
        };
        Some(ObjectKey::Named(kind, self.name))
    }
}

/// A valid key slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidSlot {
    /// Its id.
    #[serde(rename = "i")]
    pub id: SlotId,
    /// BLAKE3 of its bytes.
    #[serde(rename = "h")]
    pub digest: Digest,
    /// Whether it is the key of one machine, which no person can type.
    #[serde(rename = "d", default, skip_serializing_if = "std::ops::Not::not")]
    pub device: bool,
}

/// A snapshot that was examined for losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedSnapshot {
    /// Its id.
    #[serde(rename = "n")]
    pub id: ObjectName,
    /// Number of its files and folders that are lost; 0 if it is whole.
    #[serde(rename = "c")]
    pub count: u64,
}

/// A file, or a folder with all below it, that is lost as long as any of its chunks is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostFile {
    /// Path inside the snapshot; empty for the top folder.
    #[serde(rename = "p", with = "serde_bytes")]
    pub path: Vec<u8>,
    /// Ids of the lost chunks end to end: the first ones, if there are many.
    #[serde(rename = "i", with = "serde_bytes")]
    pub ids: Vec<u8>,
    /// The snapshots that lose it, by their positions in the list.
    #[serde(rename = "s")]
    pub of: Vec<u64>,
}

impl LostFile {
    /// The lost chunks.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.ids.as_chunks::<{ ChunkId::LEN }>().0.iter().map(|id| ChunkId::new(*id))
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The client that wrote it.
    pub client: ClientId,
    /// 1 for the client's first record, then without gaps.
    pub number: u64,
    /// BLAKE3 of the client's previous record (the object's bytes); zeros for the first.
    pub previous: Digest,
    /// For each other client, the number of its last record that had been read (with all before it) when this one was
    /// written. So every record is also an acknowledgement.
    pub seen: Vec<(ClientId, u64)>,
    /// Date of the client's clock. It never decides about deletions.
    pub time: Time,
    /// Packs and meta packs that the client claims as its own since its last record. A pack that no record claims may
    /// belong to work that is under way anywhere, so it is never condemned on a store that others write to as well.
    pub claims: Vec<ObjectName>,
    /// Retired clients that will send nothing more. Later records need not name them in `seen`.
    pub closed: Vec<Closed>,
    /// Body of the record.
    pub body: RecordBody,
}

/// A record as the chains keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The record's object.
    pub name: ObjectName,
    /// BLAKE3 of the object.
    pub digest: Digest,
    /// The record.
    pub record: Record,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "v")]
    version: u64,
    #[serde(rename = "c")]
    client: ClientId,
    #[serde(rename = "n")]
    number: u64,
    #[serde(rename = "p")]
    previous: Digest,
    #[serde(rename = "s")]
    seen: Vec<(ClientId, u64)>,
    #[serde(rename = "t")]
    time: Time,
    /// Names of packs end to end.
    #[serde(rename = "a", default)]
    claims: ByteBuf,
    #[serde(rename = "z", default, skip_serializing_if = "Vec::is_empty")]
    closed: Vec<Closed>,
    #[serde(rename = "k")]
    kind: u64,
    #[serde(rename = "b")]
    body: ByteBuf,
}

#[derive(Serialize, Deserialize)]
struct PinWire {
    snapshots: Vec<ObjectName>,
    pinned: bool,
}

const VERSION: u64 = 1;

/// The part of a record that every version has.
#[derive(Deserialize)]
struct Versioned {
    #[serde(rename = "v")]
    version: u64,
}

/// The fields that mean the same in every version. With them a record counts in its chain, and with its date.
#[derive(Deserialize)]
struct Place {
    #[serde(rename = "c")]
    client: ClientId,
    #[serde(rename = "n")]
    number: u64,
    #[serde(rename = "p")]
    previous: Digest,
    #[serde(rename = "s")]
    seen: Vec<(ClientId, u64)>,
    #[serde(rename = "t")]
    time: Time,
    #[serde(rename = "a", default)]
    claims: ByteBuf,
}

/// Error of decoding the plaintext of a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeRecordError {
    /// Not something that a vault writes.
    #[error("{0}")]
    Malformed(String),
    /// A version that this program does not know.
    #[error("version {0} of records is unknown")]
    Newer(u64),
}

impl From<String> for DecodeRecordError {
    fn from(what: String) -> Self {
        Self::Malformed(what)
    }
}

impl From<&str> for DecodeRecordError {
    fn from(what: &str) -> Self {
        Self::Malformed(what.to_owned())
    }
}

fn to_msgpack<T: Serialize>(value: &T) -> Result<Vec<u8>, RecordError> {
    msgpack::encode(value).map_err(RecordError::Seal)
}

/// The highest kind of record that this version knows.
const KINDS: u64 = 13;

impl RecordBody {
    fn encode(&self) -> Result<(u64, Vec<u8>), RecordError> {
        Ok(match self {
            Self::Join(join) => (1, to_msgpack(join)?),
            Self::Snapshot(snapshot) => (2, to_msgpack(snapshot)?),
            Self::Forget(snapshots) => (3, to_msgpack(snapshots)?),
            Self::Condemn(packs) => (4, to_msgpack(packs)?),
            Self::Sweep(packs) => (5, to_msgpack(packs)?),
            Self::Retire(clients) => (6, to_msgpack(clients)?),
            Self::Pin { snapshots, pinned } => {
                (7, to_msgpack(&PinWire { snapshots: snapshots.clone(), pinned: *pinned })?)
            }
            Self::Found(records) => (8, to_msgpack(records)?),
            Self::Damage(damage) => (9, to_msgpack(damage)?),
            Self::Format(format) => (10, to_msgpack(format)?),
            Self::Slots(change) => (11, to_msgpack(change)?),
            Self::Lost(records) => (12, to_msgpack(records)?),
            Self::Findings(findings) => (13, to_msgpack(findings)?),
            Self::Unknown(what) => return Err(RecordError::Seal(what.to_string())),
        })
    }

    fn decode(kind: u64, bytes: &[u8]) -> Result<Self, String> {
        if (1..=KINDS).contains(&kind)
            && let Some(key) = msgpack::critical_key(bytes)?
        {
            return Ok(Self::Unknown(Unknown::Key(key)));
        }
        Ok(match kind {
            1 => Self::Join(msgpack::decode(bytes)?),
            2 => Self::Snapshot(Box::new(msgpack::decode(bytes)?)),
            3 => Self::Forget(msgpack::decode(bytes)?),
            4 => Self::Condemn(msgpack::decode(bytes)?),
            5 => Self::Sweep(msgpack::decode(bytes)?),
            6 => Self::Retire(msgpack::decode(bytes)?),
            7 => {
                let PinWire { snapshots, pinned } = msgpack::decode(bytes)?;
                Self::Pin { snapshots, pinned }
            }
            8 => Self::Found(msgpack::decode(bytes)?),
            9 => Self::Damage(msgpack::decode(bytes)?),
            10 => Self::Format(msgpack::decode(bytes)?),
            11 => Self::Slots(msgpack::decode(bytes)?),
            12 => Self::Lost(msgpack::decode(bytes)?),
            13 => Self::Findings(msgpack::decode(bytes)?),
            _ => Self::Unknown(Unknown::Kind(kind)),
        })
    }
}

impl Record {
    /// The snapshots that it is put in the place of.
    pub fn replaces(&self) -> &[ObjectName] {
        match &self.body {
            RecordBody::Snapshot(body) => &body.replaces,
            _ => &[],
        }
    }

    /// The plaintext that is sealed: u32 length, msgpack, zero padding.
    ///
    /// # Errors
    /// If it is too long.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let (kind, body) = self.body.encode()?;
        let message = to_msgpack(&Wire {
            version: VERSION,
            client: self.client,
            number: self.number,
            previous: self.previous,
            seen: self.seen.clone(),
            time: self.time,
            claims: ByteBuf::from(self.claims.iter().flat_map(|name| *name.as_bytes()).collect::<Vec<u8>>()),
            closed: self.closed.clone(),
            kind,
            body: ByteBuf::from(body),
        })?;
        let mut plain = (message.len() as u32).to_le_bytes().to_vec();
        plain.extend_from_slice(&message);
        plain.resize(plain.len().next_multiple_of(PADDING), 0);
        if plain.len() > RECORD_LEN_MAX / 2 {
            return Err(RecordError::Seal("it is too long".to_owned()));
        }
        Ok(plain)
    }

    /// Decodes the plaintext of a record.
    ///
    /// # Errors
    /// If it is malformed, or from a newer version.
    pub fn decode(plain: &[u8]) -> Result<Self, DecodeRecordError> {
        let (len, rest) = plain.split_first_chunk().ok_or("it is too short")?;
        let len = u32::from_le_bytes(*len) as usize;
        let (message, padding) = rest.split_at_checked(len).ok_or("it is cut short")?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err("its padding is not zero".into());
        }
        let critical = msgpack::critical_key(message)?;
        // The version first. A later one has at least the keys by which a record counts in its chain; otherwise it is
        // no record that this version can place.
        let Versioned { version } = msgpack::decode(message)?;
        if version == 0 {
            return Err("there is no version 0 of records".into());
        }
        let wire = match msgpack::decode(message) {
            Err(_) if version > VERSION => {
                let place: Place = msgpack::decode(message).map_err(|_| DecodeRecordError::Newer(version))?;
                let Place { client, number, previous, seen, time, claims } = place;
                let (closed, kind, body) = Default::default();
                Wire { version, client, number, previous, seen, time, claims, closed, kind, body }
            }
            wire => wire?,
        };
        if wire.number == 0 {
            return Err("its number is zero".into());
        }
        let body = match critical {
            _ if version > VERSION => RecordBody::Unknown(Unknown::Version(version)),
            Some(key) => RecordBody::Unknown(Unknown::Key(key)),
            None => RecordBody::decode(wire.kind, &wire.body)?,
        };
        let (claims, []) = wire.claims.as_chunks::<{ ObjectName::LEN }>() else {
            return Err("its list of packs has a length that is no multiple of 16".into());
        };
        if let RecordBody::Snapshot(snapshot) = &body
            && !(snapshot.tree.is_valid() && snapshot.lists().iter().all(|(stream, _)| stream.is_valid()))
        {
            return Err("a stream in it is out of bounds".into());
        }
        Ok(Self {
            client: wire.client,
            number: wire.number,
            previous: wire.previous,
            seen: wire.seen,
            time: wire.time,
            claims: claims.iter().map(|name| ObjectName::new(*name)).collect(),
            closed: wire.closed,
            body,
        })
    }

    /// Whether a snapshot's record has keys in its body that this version does not know: a later version has said more
    /// about the snapshot than this one would keep.
    ///
    /// # Errors
    /// If it is no record.
    pub fn says_more(plain: &[u8]) -> Result<bool, DecodeRecordError> {
        let RecordBody::Snapshot(snapshot) = Self::decode(plain)?.body else { return Ok(false) };
        let len = plain.first_chunk().map_or(0, |len| u32::from_le_bytes(*len) as usize);
        let wire: Wire = msgpack::decode(plain.get(4..4 + len).unwrap_or_default())?;
        // With every optional key, even where it would be left out.
        let name = ObjectName::new([0; ObjectName::LEN]);
        let root = Root { real: vec![0], lost: true, ..Root::new(vec![0], Vec::new()) };
        let all = Snapshot {
            roots: vec![root],
            given: true,
            rules: Stream { len: 1, depth: 0, ids: vec![ChunkId::new([0; ChunkId::LEN])] },
            replaces: vec![name],
            redated: true,
            ..*snapshot
        };
        let known = msgpack::keys(&msgpack::encode(&all)?)?;
        Ok(!msgpack::keys(&wire.body)?.is_subset(&known))
    }

    /// Seals the record as a new object.
    ///
    /// # Errors
    /// If it is too long or sealing fails.
    pub fn seal(&self, keys: &Keys) -> Result<SealedRecord, RecordError> {
        self.seal_as(keys, random_name().map_err(|error| RecordError::Seal(error.to_string()))?)
    }

    /// Seals the record as a new object with this name, which was drawn for it.
    pub(crate) fn seal_as(&self, keys: &Keys, name: ObjectName) -> Result<SealedRecord, RecordError> {
        let failed = |error: SealError| RecordError::Seal(error.to_string());
        let plain = self.encode()?;
        let sealer = keys.create_object_named(ObjectKind::Record, name).map_err(failed)?;
        let mut bytes = sealer.header().to_vec();
        sealer.seal_record(&plain, &mut bytes).map_err(failed)?;
        let trailer = blake3::hash(&bytes);
        bytes.extend_from_slice(trailer.as_bytes());
        Ok(SealedRecord { name: sealer.name(), bytes: bytes.into(), plain })
    }

    /// Opens the bytes of a record's object.
    ///
    /// # Errors
    /// If they are damaged, from another vault, or from a newer version.
    pub fn open(keys: &Keys, name: ObjectName, bytes: &[u8]) -> Result<OpenedRecord, RecordError> {
        let object = ObjectKey::Named(Kind::Log, name);
        let failed = |error: SealError| match error {
            SealError::Newer { .. } => RecordError::Newer { object, what: error.to_string() },
            _ => RecordError::Damaged { object, what: error.to_string() },
        };
        let damaged = |what: &str| RecordError::Damaged { object, what: what.to_owned() };
        if bytes.len() < HEADER_LEN + NONCE_LEN + TAG_LEN + TRAILER_LEN {
            return Err(damaged("it is cut short"));
        }
        let (head, trailer) = bytes.split_at(bytes.len() - TRAILER_LEN);
        // Every version ends with the checksum: a header that is not as it was put is not believed.
        if blake3::hash(head) != *trailer {
            return Err(damaged("its checksum is wrong"));
        }
        let opener = keys.open_object(ObjectKind::Record, name, &head[..HEADER_LEN]).map_err(failed)?;
        let plain = opener.open_record(&head[HEADER_LEN..]).map_err(failed)?;
        let record = Self::decode(&plain).map_err(|error| match error {
            DecodeRecordError::Malformed(what) => damaged(&what),
            DecodeRecordError::Newer(_) => RecordError::Newer { object, what: error.to_string() },
        })?;
        Ok(OpenedRecord { record, digest: Digest::new(*blake3::hash(bytes).as_bytes()), plain })
    }

    /// Reads a record from the store.
    ///
    /// # Errors
    /// As [`Self::open`], or if the store fails.
    pub fn read(store: &dyn Store, keys: &Keys, name: ObjectName) -> Result<OpenedRecord, RecordError> {
        let bytes = store.get(&ObjectKey::Named(Kind::Log, name), RECORD_LEN_MAX as u64)?;
        Self::open(keys, name, &bytes)
    }
}

/// A record sealed as a new object.
#[derive(Debug)]
pub struct SealedRecord {
    /// The object's name.
    pub name: ObjectName,
    /// Its bytes.
    pub bytes: Bytes,
    /// The plaintext sealed in it.
    pub plain: Vec<u8>,
}

/// A record that was opened.
#[derive(Debug)]
pub struct OpenedRecord {
    /// The decoded record.
    pub record: Record,
    /// BLAKE3 of the object.
    pub digest: Digest,
    /// The plaintext sealed in it. It is kept as it is, since a later version may have written more than `record`
    /// holds.
    pub plain: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            client: ClientId::new([1; 16]),
            number: 2,
            previous: Digest::new([3; 32]),
            seen: vec![(ClientId::new([4; 16]), 5)],
            time: Time { secs: 1_800_000_000, nanos: 6 },
            claims: vec![ObjectName::new([8; 16])],
            closed: Vec::new(),
            body: RecordBody::Condemn(vec![PackRef { meta: true, name: ObjectName::new([7; 16]) }]),
        }
    }

    /// The plaintext of a record with this message.
    fn plain(message: &[u8]) -> Vec<u8> {
        [&(message.len() as u32).to_le_bytes(), message].concat()
    }

    /// In SPEC.
    #[test]
    fn the_encoding_is_pinned() {
        let bytes = record().encode().unwrap();
        assert_eq!(bytes.len(), PADDING);
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let hex = bytes[..end].iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(hex, VECTOR_RECORD_PLAIN);
    }

    #[test]
    fn found_records_and_damage_round_trip() {
        let found = FoundRecord {
            name: ObjectName::new([5; 16]),
            digest: Digest::new([6; 32]),
            plain: record().encode().unwrap(),
        };
        let damage = Damage {
            snapshots: vec![DamagedSnapshot { id: ObjectName::new([1; 16]), count: 2 }],
            lost: vec![LostFile { path: b"a\xff".to_vec(), ids: [[2; 16], [3; 16]].concat(), of: vec![0] }],
        };
        assert_eq!(damage.lost[0].chunks().collect::<Vec<_>>(), [ChunkId::new([2; 16]), ChunkId::new([3; 16])]);
        for body in [RecordBody::Found(vec![found].into()), RecordBody::Damage(damage)] {
            let record = Record { body, ..record() };
            assert_eq!(Record::decode(&record.encode().unwrap()), Ok(record));
        }
    }

    const VECTOR_RECORD_PLAIN: &str = "\
         9300000089a17601a163c41001010101010101010101010101010101a16e02a170c42003030303030303030303030303\
         03030303030303030303030303030303030303a1739192c4100404040404040404040404040404040405a17492ce6b49\
         d20006a161c41008080808080808080808080808080808a16b04a162c4199182a16dc3a16ec410070707070707070707\
         07070707070707";

    #[test]
    fn records_round_trip_and_nothing_may_follow() {
        let bytes = record().encode().unwrap();
        assert_eq!(Record::decode(&bytes), Ok(record()));
        let mut longer = bytes.clone();
        *longer.last_mut().unwrap() = 1;
        assert!(matches!(Record::decode(&longer), Err(DecodeRecordError::Malformed(_))));
        for end in 0..u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize + 4 {
            assert!(Record::decode(&bytes[..end]).is_err(), "prefix of {end} bytes");
        }
    }

    /// A message of client 1, number 2, with these further keys in msgpack (how many, and their bytes).
    fn message(version: u64, kind: u64, body: &[u8], further: (u8, &[u8])) -> Vec<u8> {
        let mut out = vec![0x88 + further.0];
        let mut field = |key: u8, value: &[u8]| out.extend([&[0xa1, key][..], value].concat());
        field(b'v', &msgpack::encode(&version).unwrap());
        field(b'c', &[&[0xc4, 16][..], &[1; 16]].concat());
        field(b'n', &[2]);
        field(b'p', &[&[0xc4, 32][..], &[3; 32]].concat());
        field(b's', &[0x90]);
        field(b't', &[0x92, 0, 0]);
        field(b'k', &msgpack::encode(&kind).unwrap());
        field(b'b', &[&[0xc4, body.len() as u8][..], body].concat());
        out.extend_from_slice(further.1);
        plain(&out)
    }

    #[test]
    fn numbers_of_later_versions_may_have_any_width() {
        let body = |version, kind, further| Record::decode(&message(version, kind, &[0x90], further)).unwrap().body;
        assert_eq!(body(1, 3, (0, b"")), RecordBody::Forget(Vec::new()));
        for kind in [100, 255, 256, 300, 1 << 40, u64::MAX] {
            assert_eq!(body(1, kind, (0, b"")), RecordBody::Unknown(Unknown::Kind(kind)));
        }
        for version in [2, 255, 256, u64::MAX] {
            assert_eq!(body(version, 3, (0, b"")), RecordBody::Unknown(Unknown::Version(version)));
        }
        assert!(Unknown::Kind(127).may_need() && Unknown::Version(2).may_need());
        assert!(!Unknown::Kind(128).may_need());
    }

    #[test]
    fn unknown_keys_are_passed_over_unless_they_are_critical() {
        let body =
            |kind, body: &[u8], further| Record::decode(&message(1, kind, body, further)).map(|record| record.body);
        assert_eq!(body(3, &[0x90], (1, b"\xa3new\x01")), Ok(RecordBody::Forget(Vec::new())));
        let critical = |key: &str| Ok(RecordBody::Unknown(Unknown::Key(key.to_owned())));
        assert_eq!(body(3, &[0x90], (1, b"\xa4!new\x01")), critical("!new"));
        let format = |key: &[u8]| [b"\x82\xa4read\x05", key, b"\x01"].concat();
        assert_eq!(
            body(10, &format(b"\xa1x"), (0, b"")),
            Ok(RecordBody::Format(Format { read: 5, ..Format::default() }))
        );
        assert_eq!(body(10, &format(b"\xa2!x"), (0, b"")), critical("!x"));
        // A key that occurs twice lets two readers see two things.
        assert!(matches!(body(3, &[0x90], (2, b"\xa1z\x01\xa1z\x02")), Err(DecodeRecordError::Malformed(_))));
        assert!(matches!(body(10, &format(b"\xa4read"), (0, b"")), Err(DecodeRecordError::Malformed(_))));
    }

    #[test]
    fn changes_of_slots_and_given_up_records_round_trip() {
        let change = SlotChange {
            add: [false, true]
                .map(|device| ValidSlot { id: SlotId::new([1; 16]), digest: Digest::new([2; 32]), device })
                .to_vec(),
            remove: vec![SlotId::new([3; 16])],
        };
        for body in [
            RecordBody::Slots(change),
            RecordBody::Slots(SlotChange::default()),
            RecordBody::Lost(vec![(ClientId::new([4; 16]), 5)]),
            RecordBody::Findings(Findings {
                found: vec![FoundDamage {
                    object: ObjectRef { kind: 1, name: ObjectName::new([7; 16]) },
                    what: "rotten".to_owned(),
                    snapshots: 2,
                    files: 0,
                }],
                sound: vec![ObjectRef { kind: 2, name: ObjectName::new([8; 16]) }],
                accepted: vec![ObjectRef::record(ObjectName::new([9; 16]))],
            }),
            RecordBody::Format(Format { read: 1, write: 2, collect: 1 << 63, synced: true }),
        ] {
            let record = Record { body, ..record() };
            assert_eq!(Record::decode(&record.encode().unwrap()), Ok(record));
        }
    }

    #[test]
    fn closed_clients_round_trip() {
        let closed = vec![Closed(ClientId::new([4; 16]), 5, Digest::new([6; 32]))];
        let record = Record { closed, ..record() };
        assert_eq!(Record::decode(&record.encode().unwrap()), Ok(record));
    }

    #[test]
    fn newer_is_not_damaged() {
        // The map {"v": 2, "other": true}, {"v": 0} and {}.
        assert_eq!(Record::decode(&plain(b"\x82\xa1v\x02\xa5other\xc3")), Err(DecodeRecordError::Newer(2)));
        assert!(matches!(Record::decode(&plain(b"\x81\xa1v\x00")), Err(DecodeRecordError::Malformed(_))));
        assert!(matches!(Record::decode(&plain(b"\x80")), Err(DecodeRecordError::Malformed(_))));
        // The fields that every version has are enough to count, with a date; fewer are not.
        let chain = [
            b"\x87\xa1v\x02\xa1c\xc4\x10",
            &[1; 16][..],
            b"\xa1n\x02\xa1p\xc4\x20",
            &[3; 32],
            b"\xa1s\x90\xa1t\x92\x07\x08\xa1b\x01",
        ]
        .concat();
        let read = Record::decode(&plain(&chain)).unwrap();
        assert_eq!(
            (read.number, read.time, read.body),
            (2, Time { secs: 7, nanos: 8 }, RecordBody::Unknown(Unknown::Version(2)))
        );
        let undated = chain.iter().map(|byte| if *byte == b't' { b'T' } else { *byte }).collect::<Vec<_>>();
        assert_eq!(Record::decode(&plain(&undated)), Err(DecodeRecordError::Newer(2)));
        let mut bytes = record().encode().unwrap();
        let kind = bytes.windows(3).position(|field| field == b"\xa1k\x04").unwrap() + 2;
        bytes[kind] = 99;
        assert_eq!(Record::decode(&bytes).unwrap().body, RecordBody::Unknown(Unknown::Kind(99)));
    }
}
