//! The layout of a mount: sources, their snapshots by date, and the content of snapshots.
//!
//! ```text
//! README.txt
//! Documents/2026-11-20 18.30/…     a snapshot, by its local time
//! Documents/latest                 a link to the last one
//! all/1f2e3d4c                     a link to each snapshot, by its id
//! …/.versions/letter.odt/2026-11-18 09.31.odt
//! ```
//!
//! `.versions` exists in every folder of a snapshot. It is in no listing, so that programs that walk a tree do not enter it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::id::{NodeKey, ObjectName};
use crate::limits::PATH_DEPTH_MAX;
use crate::lru::Lru;
use crate::path;
use crate::progress::Progress;
use crate::read::Folders;
use crate::read::View;
use crate::read::links::GroupReader;
use crate::read::path::{top, way};
use crate::read::view::Moment;
use crate::sync::lock;
use crate::tree::{ChunkSource, Entry, FileKind, Stream, Time, encode_entry};
use crate::vault::{ReadError, SnapshotInfo, VaultError};

/// The folder of versions, in every folder of a snapshot.
pub const VERSIONS: &[u8] = b".versions";
/// The link to the last snapshot.
pub const LATEST: &[u8] = b"latest";
/// The folder of links by id.
pub const ALL: &[u8] = b"all";
/// The file that explains the mount.
pub const README: &[u8] = b"README.txt";

/// Maximum number of names of hard links to remember, for all snapshots together.
const LINKS_KEPT: usize = 256 << 10;
/// Smaller numbers belong to the tree's own nodes.
pub const NUMBERS_OWN: u64 = 1024;

/// Maximum length of a folder name made from a source's name, in bytes.
const NAME_LEN: usize = 200;

/// Options of the layout.
pub struct TreeOptions {
    /// The name of a folder for this date, such as `2026-11-20 18.30`.
    pub dates: Box<dyn Fn(Time) -> String + Send + Sync>,
    /// The text of `README.txt`.
    pub readme: String,
    /// Bytes of listings to keep.
    pub listings: usize,
    /// Which snapshots are shown.
    pub shown: Box<dyn Fn(&SnapshotInfo) -> bool + Send + Sync>,
}

/// A snapshot in a tree.
#[derive(Debug)]
pub struct Snap {
    /// The snapshot's record and date.
    pub info: SnapshotInfo,
    /// The key from which those of its files are derived.
    key: NodeKey,
}

/// An item in a snapshot.
#[derive(Debug)]
pub struct Item {
    /// The snapshot.
    pub snap: Arc<Snap>,
    /// Its folder; `None` for the snapshot's top folder.
    pub parent: Option<Arc<Self>>,
    /// Its entry in the snapshot.
    pub entry: Arc<Entry>,
    key: NodeKey,
    /// Number of its names in the snapshot.
    pub names: u32,
    /// If it has several names: the key that those of the same file share.
    shared: Option<NodeKey>,
}

impl Item {
    /// The path in the snapshot.
    pub fn path(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(at.entry.name.as_slice());
            at = parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    fn depth(&self) -> usize {
        std::iter::successors(self.parent.as_ref(), |item| item.parent.as_ref()).count()
    }

    /// The listing of a folder; `None` for other items, and for a folder nested too deeply.
    pub fn listing(&self) -> Option<&Stream> {
        let listing = self.entry.content.as_ref().filter(|_| self.entry.kind == FileKind::Directory);
        listing.filter(|_| self.depth() < PATH_DEPTH_MAX)
    }
}

/// A node of a tree.
#[derive(Debug)]
pub enum Node {
    /// The top of the tree.
    Top,
    /// `README.txt`.
    Readme,
    /// The folder of links by id.
    All,
    /// The folder of a source, by its name here.
    Source(Vec<u8>),
    /// A link to a snapshot, with the snapshot's date. If the link leads elsewhere later, it is another node, since the system remembers
    /// where a link leads.
    Link(Vec<u8>, Time),
    /// An item in a snapshot.
    Item(Arc<Item>),
    /// The folder of versions for the files of a folder.
    Versions(Arc<Item>),
    /// The versions of one file, each with its name.
    VersionsOf(NodeKey, Vec<(Vec<u8>, Arc<Self>)>),
}

impl Node {
    /// The item in a snapshot; `None` for nodes that only the tree has.
    pub fn item(&self) -> Option<&Arc<Item>> {
        match self {
            Self::Item(item) => Some(item),
            _ => None,
        }
    }

    /// The kind of file.
    pub fn kind(&self) -> FileKind {
        match self {
            Self::Readme => FileKind::File,
            Self::Link(..) => FileKind::Symlink,
            Self::Item(item) => item.entry.kind,
            Self::Top | Self::All | Self::Source(_) | Self::Versions(_) | Self::VersionsOf(..) => FileKind::Directory,
        }
    }

    /// Whether it never changes, like everything in a snapshot.
    pub const fn is_lasting(&self) -> bool {
        matches!(self, Self::Item(_) | Self::Readme)
    }
}

/// A snapshot under its name.
type Named = (Vec<u8>, Arc<Snap>);

/// The snapshots and their names.
#[derive(Debug, Default)]
struct Names {
    sources: BTreeMap<Vec<u8>, Vec<Named>>,
    /// For each snapshot, the name of its source here, and its own.
    by_id: HashMap<ObjectName, (Vec<u8>, Vec<u8>)>,
    /// The names of the links by id.
    ids: BTreeMap<Vec<u8>, ObjectName>,
}

impl Names {
    fn link_to(&self, id: &ObjectName) -> Option<Node> {
        let (source, name) = self.by_id.get(id)?;
        let (_, snap) = self.sources.get(source)?.iter().find(|(other, _)| other == name)?;
        Some(Node::Link([b"../", &source[..], b"/", name].concat(), snap.info.date))
    }

    fn latest(&self, source: &[u8]) -> Option<Node> {
        let (name, snap) = self.sources.get(source)?.last()?;
        Some(Node::Link(name.clone(), snap.info.date))
    }
}

/// A vault as a tree of folders, usable from many threads.
pub struct Tree {
    view: Arc<View>,
    folders: Folders,
    options: TreeOptions,
    key: [u8; 32],
    names: RwLock<Arc<Names>>,
    /// The records from which the present names were made. Locked while names are made.
    named: Mutex<Arc<HashSet<ObjectName>>>,
    /// For each snapshot, which of its paths are names of one file.
    links: Mutex<Lru<ObjectName, Arc<Links>>>,
    /// Locked while such a list is read.
    linking: Mutex<()>,
    /// The top, if the tree consists of one folder.
    only: Option<Arc<Node>>,
}

/// For each path with several names, by its key: the key of the first name, and the number of names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Links(HashMap<NodeKey, (NodeKey, u32)>);

impl Links {
    /// Reads a list, by the keys of its paths. The result ends where the list is damaged, without the incomplete group.
    fn read<S: ChunkSource<Error = ReadError>>(
        list: &Stream,
        source: &mut S,
        key_of: impl Fn(&[u8]) -> NodeKey,
    ) -> Result<Self, ReadError> {
        let mut links = Self::default();
        let mut groups = GroupReader::new(list);
        let mut group: Vec<NodeKey> = Vec::new();
        loop {
            let next = match groups.next(source) {
                Err(error) if error.is_contained() => return Ok(links),
                next => next?,
            };
            if next.as_ref().is_none_or(|(is_first, _)| *is_first) {
                let names = u32::try_from(group.len()).unwrap_or(u32::MAX);
                let first = group.first().copied();
                links.0.extend(group.drain(..).filter_map(|key| Some((key, (first?, names)))));
            }
            let Some((_, at)) = next else { return Ok(links) };
            group.push(key_of(&at));
        }
    }
}

/// The key that the names of one file share. A file may have changed between the visits to two of its names: then their entries differ,
/// and they become two files.
fn shared_key(first: &NodeKey, entry: &Entry) -> Option<NodeKey> {
    let mut bytes = Vec::new();
    encode_entry(&Entry { name: b"any".to_vec(), torn: false, ..entry.clone() }, &mut bytes).ok()?;
    let mut key = [0; 16];
    blake3::Hasher::new_derive_key("vault names of one file")
        .update(first.as_bytes())
        .update(&bytes)
        .finalize_xof()
        .fill(&mut key);
    Some(NodeKey::new(key))
}

impl Tree {
    /// The tree of all snapshots.
    pub fn new(view: Arc<View>, options: TreeOptions) -> Self {
        let key = view.vault().keys().derive_local("numbers of files in a mount");
        let folders = Folders::new(options.listings);
        let links = Mutex::new(Lru::new(LINKS_KEPT));
        let moment = view.moment();
        let tree = Self {
            view,
            folders,
            options,
            key,
            names: RwLock::default(),
            named: Mutex::new(moment.records().clone()),
            links,
            linking: Mutex::default(),
            only: None,
        };
        tree.name_all(&moment);
        tree
    }

    /// A tree of one folder of one snapshot. `None` if there is no such folder.
    ///
    /// # Errors
    /// If a folder on the way cannot be read.
    pub fn only(mut self, snapshot: &ObjectName, at: &[u8]) -> Result<Option<Self>, ReadError> {
        let Some(snap) = self.snap(snapshot) else { return Ok(None) };
        let item = self.walk(&snap, at)?.filter(|item| item.listing().is_some());
        self.only = item.map(|item| Arc::new(Node::Item(item)));
        Ok(Some(self).filter(|tree| tree.only.is_some()))
    }

    /// The view that it reads from.
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Number of snapshots.
    pub fn count(&self) -> usize {
        self.names().by_id.len()
    }

    fn names(&self) -> Arc<Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The top node.
    pub fn top(&self) -> Arc<Node> {
        self.only.clone().unwrap_or_else(|| Arc::new(Node::Top))
    }

    /// The text of `README.txt`.
    pub fn readme(&self) -> &[u8] {
        self.options.readme.as_bytes()
    }

    /// Updates the list of snapshots.
    ///
    /// # Errors
    /// If the store or the catalogue fails; then nothing changes.
    pub fn refresh(&self, progress: &dyn Progress) -> Result<(), VaultError> {
        let renewed = self.view.renew(progress);
        // A reader that missed a chunk may also have renewed the view.
        let mut named = lock(&self.named);
        let moment = self.view.moment();
        if moment.records() != &*named {
            self.name_all(&moment);
            named.clone_from(moment.records());
        }
        renewed
    }

    fn snap(&self, snapshot: &ObjectName) -> Option<Arc<Snap>> {
        let names = self.names();
        let (source, name) = names.by_id.get(snapshot)?;
        let found = names.sources.get(source)?.iter().find(|(other, _)| other == name);
        found.map(|(_, snap)| snap.clone())
    }

    fn hash(&self, what: &str, parts: &[&[u8]]) -> NodeKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(what.as_bytes());
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        NodeKey::new(key)
    }

    /// Gives every snapshot its names.
    fn name_all(&self, moment: &Moment) {
        let before = self.names();
        let mut hosts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for info in moment.snapshots().iter().filter(|info| (self.options.shown)(info)) {
            hosts.entry(&info.body.source).or_default().insert(&info.body.host);
        }
        let mut taken: HashSet<Vec<u8>> = [ALL, README, VERSIONS].iter().map(|name| name.to_vec()).collect();
        let mut folders: HashMap<(&str, &str), Vec<u8>> = HashMap::new();
        for (source, hosts) in &hosts {
            for host in hosts {
                let base = if hosts.len() > 1 { format!("{source}@{host}") } else { (*source).to_owned() };
                folders.insert((source, host), free_name(&plain(&base), &mut taken));
            }
        }
        let mut names = Names::default();
        let mut dates: HashMap<&[u8], HashSet<Vec<u8>>> = HashMap::new();
        for info in moment.snapshots().iter().filter(|info| (self.options.shown)(info)) {
            let Some(folder) = folders.get(&(info.body.source.as_str(), info.body.host.as_str())) else { continue };
            let taken = dates.entry(folder).or_insert_with(|| HashSet::from([LATEST.to_vec()]));
            let name = free_name(&plain(&(self.options.dates)(info.date)), taken);
            let known = before.by_id.get(&info.id).and_then(|(source, name)| {
                before.sources.get(source)?.iter().find(|(other, _)| other == name).map(|(_, snap)| snap.clone())
            });
            let known = known.filter(|snap| snap.info.date == info.date);
            let snap = known.unwrap_or_else(|| {
                Arc::new(Snap { key: self.hash("snapshot", &[info.id.as_bytes()]), info: info.clone() })
            });
            names.by_id.insert(info.id, (folder.clone(), name.clone()));
            names.sources.entry(folder.clone()).or_default().push((name, snap));
        }
        let mut ids = HashSet::new();
        for id in names.by_id.keys().copied().collect::<BTreeSet<_>>() {
            names.ids.insert(free_name(id.short().as_bytes(), &mut ids), id);
        }
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    /// The top folder of a snapshot.
    fn root(snap: &Arc<Snap>) -> Arc<Item> {
        let mut entry = top(&snap.info.body.tree);
        entry.mode = 0o555;
        entry.mtime = snap.info.date;
        Arc::new(Item {
            snap: snap.clone(),
            parent: None,
            entry: Arc::new(entry),
            key: snap.key,
            names: 1,
            shared: None,
        })
    }

    fn child(&self, parent: &Arc<Item>, entry: Arc<Entry>) -> Result<Arc<Item>, ReadError> {
        let known = if entry.kind == FileKind::Directory { None } else { self.links(&parent.snap)? };
        Ok(self.child_with(parent, entry, known.as_deref()))
    }

    fn child_with(&self, parent: &Arc<Item>, entry: Arc<Entry>, links: Option<&Links>) -> Arc<Item> {
        let key = self.hash("child", &[parent.key.as_bytes(), &entry.name]);
        let link = links.and_then(|links| links.0.get(&key));
        let shared = link.and_then(|(first, _)| shared_key(first, &entry));
        let names = link.map_or(1, |(_, names)| *names);
        Arc::new(Item { snap: parent.snap.clone(), parent: Some(parent.clone()), entry, key, names, shared })
    }

    /// Which paths of a snapshot are names of one file; `None` if none are.
    fn links(&self, snap: &Snap) -> Result<Option<Arc<Links>>, ReadError> {
        if snap.info.body.links.is_empty() {
            return Ok(None);
        }
        let kept = || lock(&self.links).get(&snap.info.id);
        if let Some(links) = kept() {
            return Ok(Some(links));
        }
        let _linking = lock(&self.linking);
        // Another thread may have read the list meanwhile.
        if let Some(links) = kept() {
            return Ok(Some(links));
        }
        let key_of =
            |at: &[u8]| path::components(at).fold(snap.key, |key, name| self.hash("child", &[key.as_bytes(), name]));
        let links = Arc::new(Links::read(&snap.info.body.links, &mut self.view.as_ref(), key_of)?);
        lock(&self.links).insert(snap.info.id, links.clone(), links.0.len());
        Ok(Some(links))
    }

    /// The item at a path of a snapshot, without regard to its other names.
    fn walk(&self, snap: &Arc<Snap>, at: &[u8]) -> Result<Option<Arc<Item>>, ReadError> {
        let root = Self::root(snap);
        let entry = |listing: &Stream, name: &[u8]| self.folders.entry(self.view.as_ref(), listing, name);
        let way = way(root.entry.clone(), at, entry).map_err(|unread| unread.error)?;
        Ok(way.map(|way| way.into_iter().skip(1).fold(root, |item, entry| self.child_with(&item, entry, None))))
    }

    /// The number of an item in a snapshot.
    pub fn number_of(&self, item: &Item) -> u64 {
        number(&item.shared.unwrap_or(item.key))
    }

    /// The number of a node, the same in every mount. Numbers below 1024 are reserved for the tree's own nodes.
    pub fn number(&self, node: &Node) -> u64 {
        match node {
            Node::Top => 1,
            Node::Readme => 2,
            Node::All => 3,
            _ => number(&self.key_of(node)),
        }
    }

    /// The key of a node; names of one file share it.
    pub fn key_of(&self, node: &Node) -> NodeKey {
        match node {
            Node::Top | Node::Readme | Node::All => NodeKey::new([0; 16]),
            Node::Source(name) => self.hash("source", &[name]),
            Node::Link(target, _) => self.hash("link", &[target]),
            Node::Item(item) => item.shared.unwrap_or(item.key),
            Node::Versions(item) => self.hash("versions", &[item.key.as_bytes()]),
            Node::VersionsOf(key, _) => *key,
        }
    }

    /// The node with this name in a folder.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn lookup(&self, folder: &Node, name: &[u8]) -> Result<Option<Arc<Node>>, ReadError> {
        let names = self.names();
        Ok(match folder {
            Node::Top if name == ALL => Some(Node::All),
            Node::Top if name == README => Some(Node::Readme),
            Node::Top => names.sources.contains_key(name).then(|| Node::Source(name.to_vec())),
            Node::All => names.ids.get(name).and_then(|id| names.link_to(id)),
            Node::Source(source) if name == LATEST => names.latest(source),
            Node::Source(source) => {
                let snapshots = names.sources.get(source).map(Vec::as_slice).unwrap_or_default();
                snapshots.iter().find(|(other, _)| other == name).map(|(_, snap)| Node::Item(Self::root(snap)))
            }
            Node::Item(item) => {
                let Some(listing) = item.listing() else { return Ok(None) };
                match self.folders.entry(self.view.as_ref(), listing, name)? {
                    Some(entry) => Some(Node::Item(self.child(item, entry)?)),
                    None if name == VERSIONS => Some(Node::Versions(item.clone())),
                    _ => None,
                }
            }
            Node::Versions(item) => self.versions(item, name)?,
            Node::VersionsOf(_, versions) => {
                return Ok(versions.iter().find(|(other, _)| other == name).map(|(_, node)| node.clone()));
            }
            Node::Readme | Node::Link(..) => None,
        }
        .map(Arc::new))
    }

    /// The versions of a file in the snapshots of its source: each once, by the date of the first snapshot that has it. Snapshots in
    /// which a folder on the way cannot be read are skipped.
    fn versions(&self, folder: &Arc<Item>, name: &[u8]) -> Result<Option<Node>, ReadError> {
        let at = path::join(&folder.path(), name);
        let body = &folder.snap.info.body;
        let names = self.names();
        let mut found = Vec::new();
        let mut taken = HashSet::new();
        let mut last: Option<Entry> = None;
        let of_source = names.sources.values().flatten().map(|(_, snap)| snap);
        for snap in of_source.filter(|snap| snap.info.body.source == body.source && snap.info.body.host == body.host) {
            let item = match self.walk(snap, &at) {
                Ok(item) => item.filter(|item| item.entry.kind != FileKind::Directory),
                Err(error) if error.is_contained() => continue,
                Err(error) => return Err(error),
            };
            let entry = item.as_ref().map(|item| Entry { btime: None, torn: false, ..Entry::clone(&item.entry) });
            // A file that was merely left out for a while, or could not be read, is not a new version when it returns.
            if let Some(item) = item.filter(|_| entry != last) {
                let date = (self.options.dates)(snap.info.date);
                let end =
                    name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0).map_or(&b""[..], |at| &name[at..]);
                found.push((free_name_before(&plain(&date), end, &mut taken), Arc::new(Node::Item(item))));
            }
            last = entry.or(last);
        }
        let key = self.hash("versions of", &[folder.key.as_bytes(), name]);
        Ok((!found.is_empty()).then_some(Node::VersionsOf(key, found)))
    }

    /// Calls `each` for the entries of a folder, from this number on, until it returns `false`.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn list(
        &self,
        folder: &Node,
        from: u64,
        each: &mut dyn FnMut(&[u8], Arc<Node>) -> bool,
    ) -> Result<(), ReadError> {
        let names = self.names();
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        let mut give = |entries: &mut dyn Iterator<Item = (&[u8], Node)>| {
            entries.skip(skip).all(|(name, node)| each(name, Arc::new(node)));
        };
        match folder {
            Node::Top => {
                let sources = names.sources.keys().map(|name| (name.as_slice(), Node::Source(name.clone())));
                give(&mut [(README, Node::Readme), (ALL, Node::All)].into_iter().chain(sources));
            }
            Node::All => {
                let links = names.ids.iter().filter_map(|(name, id)| Some((name.as_slice(), names.link_to(id)?)));
                give(&mut links.into_iter());
            }
            Node::Source(source) => {
                let snapshots = names.sources.get(source).map(Vec::as_slice).unwrap_or_default();
                let latest = names.latest(source).map(|latest| (LATEST, latest));
                let snapshots = snapshots.iter().map(|(name, snap)| (name.as_slice(), Node::Item(Self::root(snap))));
                give(&mut latest.into_iter().chain(snapshots));
            }
            Node::Item(item) => {
                let Some(listing) = item.listing() else { return Ok(()) };
                let mut at = from;
                while let Some(page) = self.folders.page_with(self.view.as_ref(), listing, at)? {
                    let skip = usize::try_from(at - page.first).unwrap_or(usize::MAX);
                    for entry in page.entries.iter().skip(skip) {
                        if !each(&entry.name, Arc::new(Node::Item(self.child(item, entry.clone())?))) {
                            return Ok(());
                        }
                    }
                    at = page.first + page.entries.len() as u64;
                }
            }
            // The names in these are not known, so none are listed.
            Node::Versions(_) | Node::Readme | Node::Link(..) => {}
            Node::VersionsOf(_, versions) => {
                let mut versions = versions.iter().skip(skip);
                versions.all(|(name, node)| each(name, node.clone()));
            }
        }
        Ok(())
    }

    /// Where a link leads; `None` if it is not a link.
    pub fn target(node: &Node) -> Option<&[u8]> {
        match node {
            Node::Link(target, _) => Some(target),
            Node::Item(item) if item.entry.kind == FileKind::Symlink => Some(&item.entry.target),
            _ => None,
        }
    }

    /// The date of the last snapshot in a folder of the tree.
    pub fn time(&self, node: &Node) -> Time {
        let names = self.names();
        let last = |snapshots: &Vec<Named>| snapshots.last().map(|(_, snap)| snap.info.date);
        let found = match node {
            Node::Item(item) | Node::Versions(item) => Some(item.entry.mtime),
            Node::Source(source) => names.sources.get(source).and_then(last),
            Node::Link(_, time) => Some(*time),
            Node::Top | Node::All | Node::Readme => names.sources.values().filter_map(last).max(),
            Node::VersionsOf(_, versions) => versions.last().map(|(_, node)| self.time(node)),
        };
        found.unwrap_or_default()
    }

    /// The place of a node, for people: the snapshot's id and the path in it.
    pub fn shown(&self, node: &Node) -> String {
        match node.item() {
            Some(item) => format!("{}:{}", item.snap.info.id.short(), path::Shown(&item.path())),
            None => "the top".to_owned(),
        }
    }
}

/// The number for a key.
fn number(key: &NodeKey) -> u64 {
    let number = u64::from_le_bytes(*key.as_bytes().first_chunk().unwrap_or(&[0; 8]));
    if number < NUMBERS_OWN { number + NUMBERS_OWN } else { number }
}

/// A name without characters that systems have trouble with: separators, colons, control characters.
fn plain(name: &str) -> Vec<u8> {
    let trimmed = name.trim_matches(['/', '\\']);
    let mut out = String::new();
    for c in trimmed.chars().map(|c| if matches!(c, '/' | '\\' | ':') || c.is_control() { '-' } else { c }) {
        if out.len() + c.len_utf8() > NAME_LEN {
            break;
        }
        out.push(c);
    }
    match out.as_str() {
        "" => b"files".to_vec(),
        "." | ".." => b"_".to_vec(),
        name => name.as_bytes().to_vec(),
    }
}

fn free_name(base: &[u8], taken: &mut HashSet<Vec<u8>>) -> Vec<u8> {
    free_name_before(base, b"", taken)
}

/// `base` and `end`, with the first number between them that makes a free name, if needed.
fn free_name_before(base: &[u8], end: &[u8], taken: &mut HashSet<Vec<u8>>) -> Vec<u8> {
    let mut name = [base, end].concat();
    let mut number = 2;
    while !taken.insert(name.clone()) {
        name = [base, format!(" ({number})").as_bytes(), end].concat();
        number += 1;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::CatalogueError;
    use crate::id::ChunkId;
    use crate::varint;

    #[test]
    fn names_of_one_file_are_alike() {
        let mut entry = Entry::new(*b"a", FileKind::File);
        entry.content = Some(Stream { len: 7, depth: 0, ids: vec![ChunkId::from_slice(&[1; 16]).unwrap()] });
        entry.size = 7;
        let key = |entry: &Entry| shared_key(&NodeKey::new([3; 16]), entry).unwrap();
        let other = Entry { name: b"b".to_vec(), torn: true, ..entry.clone() };
        assert_eq!(key(&entry), key(&other), "the name does not matter");
        assert_ne!(Some(key(&entry)), shared_key(&NodeKey::new([4; 16]), &entry), "another group");
        let later = Entry { mtime: Time { secs: 1, nanos: 0 }, ..entry.clone() };
        let content = Some(Stream { len: 7, depth: 0, ids: vec![ChunkId::from_slice(&[2; 16]).unwrap()] });
        let written = Entry { content, ..entry.clone() };
        let opened = Entry { mode: 0o644, ..entry.clone() };
        let marked = Entry { xattrs: vec![(b"user.x".to_vec(), b"y".to_vec())], ..entry.clone() };
        for changed in [later, written, opened, marked] {
            assert_ne!(key(&entry), key(&changed), "{changed:?}");
        }
    }

    /// Provides one chunk, then fails.
    struct Failing(Option<Vec<u8>>, Option<ReadError>);

    impl ChunkSource for &mut Failing {
        type Error = ReadError;

        fn chunk(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
            match self.0.take() {
                Some(bytes) => Ok(bytes),
                None => Err(self.1.take().unwrap_or(ReadError::Lost(*id))),
            }
        }
    }

    #[test]
    fn links_are_remembered_as_far_as_they_are_sound() {
        let mut list = Vec::new();
        for group in [&["a", "b"][..], &["c", "d", "e"]] {
            varint::put(&mut list, group.len() as u64);
            for path in group {
                varint::put(&mut list, path.len() as u64);
                list.extend_from_slice(path.as_bytes());
            }
        }
        // The last path is in another chunk.
        let first = list[..list.len() - 2].to_vec();
        let ids = [1, 2].map(|number| ChunkId::from_slice(&[number; 16]).unwrap()).to_vec();
        let stream = Stream { len: list.len() as u64, depth: 0, ids };
        let read = |error: Option<ReadError>| {
            let mut source = Failing(Some(first.clone()), error);
            Links::read(&stream, &mut &mut source, |at| NodeKey::new([at[0]; 16]))
        };
        let [a, b] = [b'a', b'b'].map(|byte| NodeKey::new([byte; 16]));
        let pair = (a, 2);
        let sound = Links(HashMap::from([(a, pair), (b, pair)]));
        assert_eq!(read(None).unwrap(), sound, "damage costs the group that has it");
        let passing = read(Some(CatalogueError::Database("x".to_owned()).into()));
        assert!(passing.is_err(), "a failure that may pass is an error");
    }

    #[test]
    fn names_are_such_that_every_system_takes_them() {
        let check = |name: &str, expected: &str| assert_eq!(String::from_utf8(plain(name)).unwrap(), expected);
        check("Documents", "Documents");
        check("/home/me/Documents/", "home-me-Documents");
        check("C:\\Users\\me", "C--Users-me");
        check("a\nb", "a-b");
        check("/", "files");
        check("..", "_");
        check(&"ä".repeat(150), &"ä".repeat(100));
    }

    #[test]
    fn equal_names_are_told_apart() {
        let mut taken = HashSet::from([b"all".to_vec()]);
        let mut free = |base: &str, end: &str| {
            String::from_utf8(free_name_before(base.as_bytes(), end.as_bytes(), &mut taken)).unwrap()
        };
        assert_eq!(
            [free("all", ""), free("a", ".odt"), free("a", ".odt"), free("a", ".odt")],
            ["all (2)", "a.odt", "a (2).odt", "a (3).odt"]
        );
    }
}
