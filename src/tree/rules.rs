//! The paths that a snapshot left out, and the rules for it (SPEC §8.3): a restore must not treat excluded files as
//! absent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::stream::{ChunkSink, ChunkSource, Stream, StreamError, StreamWriter, read_stream};
use crate::chunk::Cutter;
use crate::msgpack;

/// Longest rules that are read. With longer ones a restore deletes nothing, as if there were none.
const RULES_LEN_MAX: u64 = 256 << 20;

/// The rules that the user gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleOptions {
    /// gitignore patterns in their order, including those of pattern files.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<String>,
    /// The name of ignore files, if they were obeyed.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub ignore_file: Option<ByteBuf>,
    /// Whether the content of folders with a CACHEDIR.TAG was left out.
    #[serde(rename = "c", default, skip_serializing_if = "std::ops::Not::not")]
    pub caches: bool,
    /// The content of folders that contain a file of one of these names was left out.
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    pub if_present: Vec<ByteBuf>,
    /// Larger files were left out.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub larger_than: Option<u64>,
    /// Whether other file systems were left out.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub one_file_system: bool,
    /// Whether files with the nodump flag were left out.
    #[serde(rename = "d", default, skip_serializing_if = "std::ops::Not::not")]
    pub nodump: bool,
}

/// Everything that is known about the paths that a snapshot left out. Paths are those inside the snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// The rules that the user gave.
    pub options: RuleOptions,
    /// The ignore files that applied: their content, by their folder.
    pub ignore_files: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Paths that were left out for a property (their size, a flag), not for their name.
    pub left_out: BTreeSet<Vec<u8>>,
    /// Folders whose content was left out: caches, other file systems.
    pub emptied: BTreeSet<Vec<u8>>,
    /// The program's own folders: the vault, its state.
    pub own: BTreeSet<Vec<u8>>,
    /// Roots of which only listed paths were included.
    pub listed: BTreeSet<Vec<u8>>,
}

/// Kinds of items.
mod kind {
    pub(super) const OPTIONS: u64 = 1;
    pub(super) const IGNORE_FILE: u64 = 2;
    pub(super) const LEFT_OUT: u64 = 3;
    pub(super) const EMPTIED: u64 = 4;
    pub(super) const OWN: u64 = 5;
    pub(super) const LISTED: u64 = 6;
}

/// One item as stored.
#[derive(Default, Serialize, Deserialize)]
struct Item {
    #[serde(rename = "k")]
    kind: u64,
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty", with = "serde_bytes")]
    path: Vec<u8>,
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty", with = "serde_bytes")]
    content: Vec<u8>,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    options: Option<RuleOptions>,
}

impl RuleSet {
    /// Stores the rules. Equal rules give equal streams.
    ///
    /// # Errors
    /// If a chunk cannot be stored.
    pub fn write<S: ChunkSink>(&self, cutter: &Cutter, sink: &mut S) -> Result<Stream, S::Error> {
        let at = |kind: u64, path: &Vec<u8>| Item { kind, path: path.clone(), ..Item::default() };
        let mut items = vec![Item { kind: kind::OPTIONS, options: Some(self.options.clone()), ..Item::default() }];
        let file = |(path, content): (_, &Vec<u8>)| Item { content: content.clone(), ..at(kind::IGNORE_FILE, path) };
        items.extend(self.ignore_files.iter().map(file));
        items.extend(self.left_out.iter().map(|path| at(kind::LEFT_OUT, path)));
        items.extend(self.emptied.iter().map(|path| at(kind::EMPTIED, path)));
        items.extend(self.own.iter().map(|path| at(kind::OWN, path)));
        items.extend(self.listed.iter().map(|path| at(kind::LISTED, path)));
        let mut stream = StreamWriter::default();
        // Strings, bytes, numbers and flags always have an encoding. If encoding failed, there would be no rules, which
        // is safe.
        if let Ok(bytes) = msgpack::encode(&items) {
            stream.write(&bytes, cutter, sink)?;
        }
        stream.finish(cutter, sink)
    }

    /// Reads the rules of a snapshot; `None` if it has none, or some that this program does not know in full.
    ///
    /// # Errors
    /// If the stream cannot be read, or is no list of rules.
    pub fn read<S: ChunkSource>(stream: &Stream, source: &mut S) -> Result<Option<Self>, S::Error> {
        if stream.is_empty() || stream.len > RULES_LEN_MAX {
            return Ok(None);
        }
        let bytes = read_stream(stream, RULES_LEN_MAX, source)?;
        let malformed = |_| StreamError::Malformed("the list of rules is malformed");
        if msgpack::critical_key(&bytes).map_err(malformed)?.is_some() {
            return Ok(None);
        }
        let mut set = Self::default();
        for item in msgpack::decode::<Vec<Item>>(&bytes).map_err(malformed)? {
            let paths = match (item.kind, item.options) {
                (kind::OPTIONS, Some(options)) => {
                    set.options = options;
                    continue;
                }
                (kind::IGNORE_FILE, _) => {
                    set.ignore_files.insert(item.path, item.content);
                    continue;
                }
                (kind::LEFT_OUT, _) => &mut set.left_out,
                (kind::EMPTIED, _) => &mut set.emptied,
                (kind::OWN, _) => &mut set.own,
                (kind::LISTED, _) => &mut set.listed,
                _ => return Ok(None),
            };
            paths.insert(item.path);
        }
        Ok(Some(set))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::chunk::{ChunkParams, Gear};
    use crate::id::ChunkId;

    #[derive(Default)]
    struct Memory(HashMap<ChunkId, Vec<u8>>);

    impl ChunkSink for Memory {
        type Error = StreamError;

        fn put_chunk(&mut self, bytes: &[u8]) -> Result<ChunkId, StreamError> {
            let id = ChunkId::from_slice(&blake3::hash(bytes).as_bytes()[..16]).unwrap();
            self.0.insert(id, bytes.to_vec());
            Ok(id)
        }
    }

    impl ChunkSource for Memory {
        type Error = StreamError;

        fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, StreamError> {
            self.0.get(id).cloned().ok_or(StreamError::Malformed("missing"))
        }
    }

    fn cutter() -> Cutter {
        Cutter::new(ChunkParams::new(256, 512, 1024).unwrap(), Gear::from_bytes(&[7; 2048]))
    }

    fn store(memory: &mut Memory, bytes: &[u8]) -> Stream {
        let mut writer = StreamWriter::default();
        writer.write(bytes, &cutter(), memory).unwrap();
        writer.finish(&cutter(), memory).unwrap()
    }

    #[test]
    fn rules_read_back_as_they_were() {
        let mut memory = Memory::default();
        let paths = |names: &[&[u8]]| names.iter().map(|name| name.to_vec()).collect();
        let set = RuleSet {
            options: RuleOptions {
                patterns: vec!["*.tmp".to_owned(), "!keep.tmp".to_owned()],
                ignore_file: Some(ByteBuf::from(*b".vaultignore")),
                caches: true,
                if_present: vec![ByteBuf::from(*b"\xff")],
                larger_than: Some(1 << 40),
                one_file_system: true,
                nodump: true,
            },
            ignore_files: BTreeMap::from([(b"s/a".to_vec(), vec![b'#'; 5000])]),
            left_out: paths(&[b"s/large", b"s/\xff"]),
            emptied: paths(&[b"s/mount"]),
            own: paths(&[b"s/vault"]),
            listed: paths(&[b"s"]),
        };
        let stream = set.write(&cutter(), &mut memory).unwrap();
        assert_eq!(set.write(&cutter(), &mut memory).unwrap(), stream);
        assert_eq!(RuleSet::read(&stream, &mut memory).unwrap(), Some(set));
        let none = RuleSet::default().write(&cutter(), &mut memory).unwrap();
        assert!(!none.is_empty(), "it is known that nothing was left out");
        assert_eq!(RuleSet::read(&none, &mut memory).unwrap(), Some(RuleSet::default()));
    }

    #[test]
    fn rules_that_are_not_known_in_full_count_as_none() {
        let mut memory = Memory::default();
        assert_eq!(RuleSet::read(&Stream::EMPTY, &mut memory).unwrap(), None);
        let unknown = store(&mut memory, &msgpack::encode(&[Item { kind: 99, ..Item::default() }]).unwrap());
        assert_eq!(RuleSet::read(&unknown, &mut memory).unwrap(), None);
        // [{"k": 1, "o": {"!y": true}}]
        let critical = store(&mut memory, b"\x91\x82\xa1k\x01\xa1o\x81\xa2!y\xc3");
        assert_eq!(RuleSet::read(&critical, &mut memory).unwrap(), None);
        let broken = store(&mut memory, b"\x91\x82\xa1k");
        assert!(RuleSet::read(&broken, &mut memory).is_err());
    }
}
