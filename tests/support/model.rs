//! A tree as a map from paths to everything that a snapshot must keep of a file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::UNIX_EPOCH;

use vault::id::ChunkId;
use vault::read::Listing;
use vault::read::TreeReader;
use vault::tree::{ChunkSource, Entry, FileKind, Holes, Snapshot, Stream, StreamReader, Time, read_stream};
use vault::varint;
use vault::vault::{ReadError, Vault};

use super::os::{Facts, facts};

/// One file of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Kind of the file.
    pub kind: FileKind,
    /// Permissions and the bits above them.
    pub mode: u32,
    /// Numbers of user and group.
    pub owner: (u32, u32),
    /// Time of its last change.
    pub mtime: Time,
    /// Length of a regular file.
    pub size: u64,
    /// BLAKE3 of the content of a regular file, holes read as zeros.
    pub content: Option<blake3::Hash>,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// Numbers of a device.
    pub device: Option<(u32, u32)>,
    /// Extended attributes, sorted.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first of its names, if it has several.
    pub first_name: Option<Vec<u8>>,
}

/// A tree.
pub type Model = BTreeMap<Vec<u8>, Node>;

/// The readable part of a snapshot.
#[derive(Debug, Default)]
pub struct ReadBack {
    /// The files that were read.
    pub nodes: Model,
    /// The unreadable paths, with the reasons.
    pub errors: Vec<(Vec<u8>, ReadError)>,
    /// The chunks that were read.
    pub chunks: BTreeSet<ChunkId>,
}

/// Reads chunks, and notes their ids.
struct Source<'a> {
    reader: TreeReader<'a>,
    asked: BTreeSet<ChunkId>,
}

impl ChunkSource for Source<'_> {
    type Error = ReadError;

    fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        self.asked.insert(*id);
        self.reader.chunk(id)
    }
}

/// Compares two trees, and lists their differences instead of showing them whole.
#[track_caller]
pub fn assert_same(expected: &Model, found: &Model, what: &str) {
    let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let differences: Vec<String> = expected
        .keys()
        .chain(found.keys())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .filter(|path| expected.get(*path) != found.get(*path))
        .map(|path| {
            format!("{}\n    expected {:?}\n    found    {:?}", shown(path), expected.get(path), found.get(path))
        })
        .collect();
    let first = &differences[..differences.len().min(5)];
    assert!(differences.is_empty(), "{what}: {} differences\n{}", differences.len(), first.join("\n"));
}

/// Gives each file with several names the first of them.
fn name_groups(model: &mut Model, groups: impl IntoIterator<Item = Vec<Vec<u8>>>) {
    for mut group in groups {
        group.sort();
        if group.len() > 1 {
            for path in &group {
                if let Some(node) = model.get_mut(path) {
                    node.first_name = Some(group[0].clone());
                }
            }
        }
    }
}

/// The tree on the disk below `folder`, as if it were named `name`.
pub fn of_disk(folder: &Path, name: &[u8]) -> Model {
    let mut model = Model::new();
    let mut inodes: HashMap<(u64, u64), Vec<Vec<u8>>> = HashMap::new();
    add_from_disk(folder, name.to_vec(), &mut model, &mut inodes);
    name_groups(&mut model, inodes.into_values());
    model
}

fn add_from_disk(path: &Path, name: Vec<u8>, model: &mut Model, inodes: &mut HashMap<(u64, u64), Vec<Vec<u8>>>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let Facts { kind, mode, owner, device, xattrs, target, file } = facts(path, &meta);
    let mtime = meta.modified().unwrap();
    let mtime = match mtime.duration_since(UNIX_EPOCH) {
        Ok(since) => Time { secs: since.as_secs().cast_signed(), nanos: since.subsec_nanos() },
        Err(before) => {
            let nanos = before.duration().as_nanos().cast_signed();
            let secs = i64::try_from((-nanos).div_euclid(1_000_000_000)).unwrap();
            Time { secs, nanos: u32::try_from((-nanos).rem_euclid(1_000_000_000)).unwrap() }
        }
    };
    model.insert(
        name.clone(),
        Node {
            kind,
            mode,
            owner,
            mtime,
            size: if kind == FileKind::File { meta.len() } else { 0 },
            content: (kind == FileKind::File).then(|| hash_file(path)),
            target,
            device,
            xattrs,
            first_name: None,
        },
    );
    if kind == FileKind::Directory {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let below = [&name[..], b"/", &vault::path::from_os(&entry.file_name())].concat();
            add_from_disk(&entry.path(), below, model, inodes);
        }
    } else if let Some(file) = file {
        inodes.entry(file).or_default().push(name);
    }
}

fn hash_file(path: &Path) -> blake3::Hash {
    let mut file = File::open(path).unwrap();
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).unwrap() {
            0 => return hasher.finalize(),
            count => hasher.update(&block[..count]),
        };
    }
}

/// The content of a snapshot, read through the catalogue and the store. Damaged files are listed, the rest is read.
pub fn of_snapshot(vault: &Vault, snapshot: &Snapshot) -> ReadBack {
    let mut out = ReadBack::default();
    let mut reader = match vault.tree_reader() {
        Ok(reader) => Source { reader, asked: BTreeSet::new() },
        Err(error) => {
            out.errors.push((Vec::new(), error));
            return out;
        }
    };
    read_listing(&mut reader, &snapshot.tree, b"", &mut out);
    match read_stream(&snapshot.links, 64 << 20, &mut reader) {
        Ok(bytes) => name_groups(&mut out.nodes, link_groups(&bytes)),
        Err(error) => out.errors.push((b"(links)".to_vec(), error)),
    }
    for (list, name) in [(&snapshot.skipped_list, &b"(skipped)"[..]), (&snapshot.rules, b"(rules)")] {
        if let Err(error) = read_stream(list, 64 << 20, &mut reader) {
            out.errors.push((name.to_vec(), error));
        }
    }
    out.chunks = reader.asked;
    out
}

fn link_groups(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut reader = varint::Reader::new(bytes);
    let mut groups = Vec::new();
    while !reader.rest().is_empty() {
        let count = reader.number().unwrap();
        let path = |reader: &mut varint::Reader<'_>| {
            let len = usize::try_from(reader.number().unwrap()).unwrap();
            reader.bytes(len).unwrap().to_vec()
        };
        groups.push((0..count).map(|_| path(&mut reader)).collect());
    }
    groups
}

fn read_listing(reader: &mut Source<'_>, listing: &Stream, path: &[u8], out: &mut ReadBack) {
    let mut entries = Vec::new();
    // Entries before a damaged chunk are still good.
    let mut listed = Listing::new(listing);
    loop {
        match listed.next(reader) {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => break,
            Err(error) => {
                out.errors.push((path.to_vec(), error));
                break;
            }
        }
    }
    for entry in entries {
        let below = if path.is_empty() { entry.name.clone() } else { [path, b"/", &entry.name].concat() };
        if entry.kind == FileKind::Directory {
            out.nodes.insert(below.clone(), node(&entry, None));
            read_listing(reader, entry.content.as_ref().unwrap(), &below, out);
        } else if entry.kind == FileKind::File {
            match hash_content(reader, &entry) {
                Ok(hash) => {
                    out.nodes.insert(below, node(&entry, Some(hash)));
                }
                Err(error) => out.errors.push((below, error)),
            }
        } else {
            out.nodes.insert(below, node(&entry, None));
        }
    }
}

fn node(entry: &Entry, content: Option<blake3::Hash>) -> Node {
    Node {
        kind: entry.kind,
        mode: entry.mode,
        owner: (entry.owner.uid, entry.owner.gid),
        mtime: entry.mtime,
        size: entry.size,
        content,
        target: entry.target.clone(),
        device: entry.device,
        xattrs: entry.xattrs.clone(),
        first_name: None,
    }
}

/// Lengths of data and holes in turn, beginning with data.
fn layout(reader: &mut Source<'_>, entry: &Entry) -> Result<Vec<u64>, ReadError> {
    let bytes = match &entry.holes {
        None => Vec::new(),
        Some(Holes::Inline(bytes)) => bytes.clone(),
        Some(Holes::Stream(stream)) => read_stream(stream, 64 << 20, reader)?,
    };
    let mut numbers = varint::Reader::new(&bytes);
    let mut out = Vec::new();
    while !numbers.rest().is_empty() {
        out.push(numbers.number().unwrap());
    }
    Ok(out)
}

fn hash_content(reader: &mut Source<'_>, entry: &Entry) -> Result<blake3::Hash, ReadError> {
    let mut runs = layout(reader, entry)?;
    let described: u64 = runs.iter().sum();
    runs.push(entry.size - described);
    let mut stream = StreamReader::new(entry.content.as_ref().unwrap());
    let mut hasher = blake3::Hasher::new();
    let mut waiting = Vec::new();
    for (index, mut run) in runs.into_iter().enumerate() {
        if index % 2 == 1 {
            let zeros = [0; 4096];
            while run > 0 {
                let step = run.min(4096);
                hasher.update(&zeros[..usize::try_from(step).unwrap()]);
                run -= step;
            }
            continue;
        }
        while run > 0 {
            if waiting.is_empty() {
                // The reader itself notices a stream that is too short; here it would be a wrong layout.
                waiting = stream.next(reader)?.expect("the content is as long as its layout says");
            }
            let step = waiting.len().min(usize::try_from(run).unwrap_or(usize::MAX));
            hasher.update(&waiting[..step]);
            waiting.drain(..step);
            run -= step as u64;
        }
    }
    assert!(waiting.is_empty() && stream.next(reader)?.is_none(), "the content is no longer than its layout says");
    Ok(hasher.finalize())
}
