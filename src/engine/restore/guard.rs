//! Decides what a restore never removes and never overwrites. Everything that a restore removes is checked here first.
//!
//! A path that is not in the snapshot may still have existed: it may have been left out, or could not be read. Only what was certainly
//! absent is removed.
//!
//! | item | is it removed? | may its content be overwritten? |
//! |---|---|---|
//! | the opened vault, by device and inode, through whatever mount or link | never | never, and nothing is added |
//! | part of another vault: `keys`, `log`, `packs`, `meta` or `index` with an object in it | never | as the snapshot has it |
//! | a folder with a `VAULT` file or all folders of a vault: another vault | never | never; missing items are added, but not in place |
//! | the state folder | never | never, and nothing is added |
//! | the configuration | never | as the snapshot has it |
//! | an item on another mount than its folder | never | as the snapshot has it |
//! | an item that the snapshot lists as skipped, with its content | never | as the snapshot has it |
//! | everything in a root whose disk was probably not mounted | never | as the snapshot has it, but never with nothing |
//! | everything in a root whose path leads to another place than it did, through a link | never | as the snapshot has it |
//! | an item that `--exclude` of this restore names | never | never |
//! | an item that the plan of this restore does not delete | never | as the snapshot has it |
//! | a folder that cannot be read | never, and that is a problem | after its owner got the rights to it back |
//! | an item that the snapshot's rules left out, with its content | with `--delete-excluded` | as the snapshot has it |
//! | an item that today's rules leave out, with its content | with `--delete-excluded` | as the snapshot has it |
//! | an item that a snapshot without rules does not have | with `--delete-excluded` | as the snapshot has it |
//! | any other item that the snapshot does not have | with `--delete` | |
//!
//! Nothing at all is restored into a vault or into the state folder. The folder in which the selection begins may be a mount itself. An
//! item that has to be replaced by one of another kind is removed by the same rules, with everything in it; if part of it must stay, the
//! whole item stays, and that is a problem of the restored file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::patterns::exclude::{ExcludeOptions, Rules};
use crate::engine::query::absence::Omitted;
use crate::engine::restore::attributes::Identity;
use crate::engine::snapshot::walk::IGNORE_FILE_MAX;
use crate::fs::{CACHEDIR_TAG, Names, Stat, TargetDir};
use crate::id::ObjectName;
use crate::store::Kind;
use crate::tree::FileKind;
use crate::tree::entry::flags;

/// The beginning of every `VAULT` file.
const VAULT_MARK: &[u8] = b"vault archive, format ";
/// Name of the `VAULT` file.
const VAULT_NAME: &[u8] = b"VAULT";
/// Why an item is kept that the snapshot does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// It is the vault itself.
    Vault,
    /// It is, or is inside, a folder of another vault.
    OtherVault,
    /// It is the program's state folder.
    State,
    /// It is the program's configuration.
    Configuration,
    /// It is on another file system or another mount.
    Mount,
    /// The snapshot could not read it.
    Skipped,
    /// Its disk was probably not mounted when the snapshot was taken.
    Lost,
    /// Through a link, the path of its root leads to another place than it did for the snapshot.
    Elsewhere,
    /// The options of this restore exclude it.
    Excluded,
    /// It was not there when the restore was planned.
    Unplanned,
    /// It cannot be read.
    Closed,
    /// The rules of the snapshot left it out.
    LeftOut,
    /// Today's rules leave it out.
    LeftOutToday,
    /// The snapshot does not say what was left out.
    Unknown,
}

impl Kept {
    /// Key in the JSON output.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::OtherVault => "other-vault",
            Self::State => "state",
            Self::Configuration => "configuration",
            Self::Mount => "mount",
            Self::Skipped => "skipped",
            Self::Lost => "lost-root",
            Self::Elsewhere => "elsewhere",
            Self::Excluded => "excluded",
            Self::Unplanned => "unplanned",
            Self::Closed => "closed",
            Self::LeftOut => "left-out",
            Self::LeftOutToday => "left-out-today",
            Self::Unknown => "rules-unknown",
        }
    }

    /// Whether `--delete-excluded` removes it all the same.
    pub const fn is_of_rules(self) -> bool {
        matches!(self, Self::LeftOut | Self::LeftOutToday | Self::Unknown)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vault => "it is the vault itself",
            Self::OtherVault => "it belongs to another vault",
            Self::State => "it is the state that vault keeps",
            Self::Configuration => "it is the configuration of vault",
            Self::Mount => "it lies on another file system",
            Self::Skipped => "the snapshot could not read it",
            Self::Lost => "its disk was probably not mounted when the snapshot was taken",
            Self::Elsewhere => "a link leads here, and did not when the snapshot was taken",
            Self::Excluded => "it is excluded from this restore",
            Self::Unplanned => "it was not there when the restore was planned",
            Self::Closed => "it cannot be looked into",
            Self::LeftOut => "the snapshot left it out",
            Self::LeftOutToday => "the rules of today leave it out",
            Self::Unknown => "the snapshot does not say what it left out",
        })
    }
}

/// The rules for removing and overwriting in one folder.
#[derive(Debug, Clone)]
pub(super) struct Ward {
    /// Nothing in it is removed, for this reason.
    shield: Option<Kept>,
    /// Nothing in it is overwritten.
    frozen: bool,
    /// The snapshot's rules for leaving out.
    stored: Rules,
    /// Today's rules for leaving out.
    today: Rules,
    /// Length in bytes of the root's name in paths, including the slash; 0 above the roots.
    root_len: usize,
    /// Device number and mount number, once known.
    mount: Option<(u64, u64)>,
}

impl Ward {
    /// Why nothing in this folder is removed.
    pub(super) const fn shield(&self) -> Option<Kept> {
        self.shield
    }

    /// Whether nothing in this folder is overwritten.
    pub(super) const fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// For a folder that cannot be looked into: it may be anything.
    pub(super) const fn close(&mut self) {
        self.shield = Some(Kept::Closed);
        self.frozen = true;
    }

    fn protect(&mut self, why: Option<Kept>) {
        // A reason that holds whatever the options say is more useful.
        if self.shield.is_none_or(|shield| shield.is_of_rules() && why.is_some_and(|why| !why.is_of_rules())) {
            self.shield = why;
        }
    }
}

/// Decides what stays.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) own: Vec<(Identity, Kept)>,
    /// The paths that the snapshot could not read, and those that it left out.
    pub(super) omitted: Omitted,
    pub(super) today: ExcludeOptions,
    /// Name and path of each root, and why nothing in it is removed, if so.
    pub(super) roots: Vec<(Vec<u8>, PathBuf, Option<Kept>)>,
    pub(super) delete_excluded: bool,
}

impl Guard {
    /// The rules for the folder at this path inside the snapshot, before the folder in the target is known.
    pub(super) fn ward(&self, path: &[u8]) -> Ward {
        let mut ward = Ward {
            shield: if self.omitted.skipped.is_none() { Some(Kept::Skipped) } else { None },
            frozen: false,
            stored: Rules::default(),
            today: Rules::default(),
            root_len: 0,
            mount: None,
        };
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        if !path.is_empty() {
            for end in ends.chain([path.len()]) {
                ward = self.below(&ward, &path[..end]);
            }
        }
        ward
    }

    /// The rules for a folder, given by its path inside the snapshot, whose parent's rules are `above`.
    pub(super) fn below(&self, above: &Ward, path: &[u8]) -> Ward {
        let mut ward = above.clone();
        let is_root = above.root_len == 0;
        if is_root {
            let why = self.enter_root(&mut ward, path);
            ward.protect(why);
            ward.root_len = path.len() + 1;
        }
        let below = path.get(ward.root_len..).unwrap_or_default();
        ward.protect(self.named(path));
        if let Some((rules, _)) = &self.omitted.rules {
            let is_out = self.omitted.is_emptied(path) || self.omitted.is_left_out(path);
            ward.protect(self.unless_told(is_out.then_some(Kept::LeftOut)));
            if let Some(content) = rules.ignore_files.get(path) {
                match ward.stored.with_file(content, below) {
                    Ok(inner) => ward.stored = inner,
                    // The rules were valid for the program that took the snapshot.
                    Err(_) => ward.protect(self.unless_told(Some(Kept::Unknown))),
                }
            }
        }
        if !is_root {
            ward.protect(self.unless_told(by_pattern(above, below, true)));
        }
        ward
    }

    /// Starts with the rules of a root. Returns why nothing in it is removed, if so.
    fn enter_root(&self, ward: &mut Ward, name: &[u8]) -> Option<Kept> {
        let root = self.roots.iter().find(|(root, ..)| root == name);
        let path = root.map_or(Path::new(""), |(_, path, _)| path.as_path());
        if let Some((.., Some(why))) = root {
            return Some(*why);
        }
        // Invalid rules of today were refused before.
        ward.today = Rules::new(&self.today.patterns, path).unwrap_or_default();
        let Some((_, options)) = &self.omitted.rules else { return self.unless_told(Some(Kept::Unknown)) };
        match Rules::new(&options.patterns, path) {
            Ok(rules) => ward.stored = rules,
            Err(_) => return self.unless_told(Some(Kept::Unknown)),
        }
        self.unless_told(self.omitted.is_listed(name).then_some(Kept::LeftOut))
    }

    /// Adds what can only be seen in the folder itself. `is_start`: the selection begins with this folder, so it may be a mount.
    ///
    /// # Errors
    /// If the folder cannot be looked into.
    pub(super) fn enter(&self, ward: &mut Ward, dir: &TargetDir, stat: &Stat, is_start: bool) -> io::Result<()> {
        let mount = (stat.dev, stat.mount);
        if !is_start && ward.mount.is_some_and(|above| is_elsewhere(above, mount)) {
            ward.protect(Some(Kept::Mount));
        }
        ward.mount = Some(mount);
        if let Some(own) = self.own(stat) {
            ward.protect(Some(own));
            ward.frozen |= matches!(own, Kept::Vault | Kept::State);
        }
        if stat.flags & flags::NODUMP != 0 {
            let stored =
                self.omitted.rules.as_ref().is_some_and(|(_, options)| options.nodump).then_some(Kept::LeftOut);
            let today = self.today.nodump.then_some(Kept::LeftOutToday);
            ward.protect(self.unless_told(stored.or(today)));
        }
        let signs = signs_of_vault(dir)?;
        if signs != Signs::None {
            ward.protect(Some(Kept::OtherVault));
            ward.frozen |= signs == Signs::Vault;
        }
        Ok(())
    }

    /// Adds the rules that follow from the names and marker files in a folder. `below` is its path below the root.
    pub(super) fn enter_rules(&self, ward: &mut Ward, dir: &TargetDir, path: &[u8], has: &dyn Fn(&[u8]) -> bool) {
        let below = path.get(ward.root_len..).unwrap_or_default();
        let marked = |options: &ExcludeOptions| {
            options.caches && has(CACHEDIR_TAG.0) && may_be_cache(dir)
                || options.if_present.iter().any(|name| has(name))
        };
        let stored = self.omitted.rules.as_ref().is_some_and(|(_, options)| marked(options));
        ward.protect(self.unless_told(stored.then_some(Kept::LeftOut)));
        ward.protect(self.unless_told(marked(&self.today).then_some(Kept::LeftOutToday)));
        let Some(file) = self.today.ignore_file.as_ref().filter(|file| ward.root_len > 0 && has(file)) else { return };
        match dir.as_source().read_small(file, IGNORE_FILE_MAX) {
            Ok(Some(content)) => match ward.today.with_file(&content, below) {
                Ok(inner) => ward.today = inner,
                Err(_) => ward.protect(self.unless_told(Some(Kept::LeftOutToday))),
            },
            Ok(None) => {}
            Err(_) => ward.protect(self.unless_told(Some(Kept::LeftOutToday))),
        }
    }

    /// As [`Guard::enter_rules`], for a folder whose names are all known.
    pub(super) fn enter_names(&self, ward: &mut Ward, dir: &TargetDir, path: &[u8], names: &Names) {
        self.enter_rules(ward, dir, path, &|name| names.iter().any(|other| other == name));
    }

    /// Why an item that the snapshot does not have is kept, if it is. `ward` belongs to its folder.
    pub(super) fn keeps(&self, ward: &Ward, path: &[u8], stat: &Stat) -> Option<Kept> {
        let unknown = || if self.omitted.rules.is_none() { self.unless_told(Some(Kept::Unknown)) } else { None };
        self.own(stat).or(ward.shield).or_else(|| self.keeps_itself(ward, path, stat)).or_else(unknown)
    }

    /// Why an item cannot be replaced by the snapshot's item of another kind, if it cannot. The content of a folder is checked by
    /// [`Guard::keeps`].
    pub(super) fn keeps_from_change(&self, ward: &Ward, path: &[u8], stat: &Stat) -> Option<Kept> {
        let shield = ward.shield.filter(|why| matches!(why, Kept::Vault | Kept::OtherVault | Kept::State));
        self.own(stat).or(shield).or_else(|| self.keeps_itself(ward, path, stat))
    }

    fn keeps_itself(&self, ward: &Ward, path: &[u8], stat: &Stat) -> Option<Kept> {
        let mount = (stat.dev, stat.mount);
        let is_folder = stat.kind == FileKind::Directory;
        // On some file systems, the device number of a file differs from that of its folder.
        let elsewhere =
            ward.mount.is_some_and(|above| is_elsewhere(if is_folder { above } else { (stat.dev, above.1) }, mount));
        if stat.mount_root || elsewhere {
            return Some(Kept::Mount);
        }
        self.named(path).or_else(|| self.unless_told(self.left_out(ward, path, stat)))
    }

    /// Why an item is kept because of its path in the snapshot.
    fn named(&self, path: &[u8]) -> Option<Kept> {
        if self.omitted.skipped.is_none() || self.omitted.is_skipped(path) {
            return Some(Kept::Skipped);
        }
        self.omitted.is_own(path).then_some(Kept::State)
    }

    fn left_out(&self, ward: &Ward, path: &[u8], stat: &Stat) -> Option<Kept> {
        let below = path.get(ward.root_len..).unwrap_or_default();
        let by_nature = |options: &ExcludeOptions| {
            options.larger_than.is_some_and(|most| stat.kind == FileKind::File && stat.size > most)
                || options.nodump && stat.flags & flags::NODUMP != 0
        };
        if let Some((_, options)) = &self.omitted.rules
            && (self.omitted.is_left_out(path) || self.omitted.is_emptied(path) || by_nature(options))
        {
            return Some(Kept::LeftOut);
        }
        let today = by_nature(&self.today).then_some(Kept::LeftOutToday);
        by_pattern(ward, below, stat.kind == FileKind::Directory).or(today)
    }

    /// `--delete-excluded` lifts the rules.
    fn unless_told(&self, why: Option<Kept>) -> Option<Kept> {
        why.filter(|_| !self.delete_excluded)
    }

    /// Whether this is a root that was probably not there when the snapshot was taken.
    pub(super) fn is_lost(&self, path: &[u8]) -> bool {
        let is_it = |(name, _, why): &(Vec<u8>, PathBuf, Option<Kept>)| name == path && *why == Some(Kept::Lost);
        self.roots.iter().any(is_it) && self.omitted.skipped.as_ref().is_none_or(|skipped| skipped.contains(path))
    }

    /// Whether the snapshot lists this path as skipped.
    pub(super) fn is_skipped(&self, path: &[u8]) -> bool {
        self.omitted.is_skipped(path)
    }

    /// Which of the program's own places this is, if any.
    pub(super) fn own(&self, stat: &Stat) -> Option<Kept> {
        // Without an inode number, files cannot be told apart.
        let identity = Identity::of(stat);
        let own = self.own.iter().find(|(own, _)| stat.ino != 0 && *own == identity);
        own.map(|(_, kept)| *kept)
    }

    /// The vault or state folder that contains the folder (or is it), and what it is; searched from the folder upwards.
    pub(super) fn own_around(&self, folder: &Path) -> Option<(PathBuf, Kept)> {
        around(folder, |dir| {
            let own = dir.stat().ok().and_then(|stat| self.own(&stat));
            let own = own.filter(|own| matches!(own, Kept::Vault | Kept::State));
            own.or_else(|| is_vault(dir).then_some(Kept::OtherVault))
        })
    }
}

/// The folder of a vault, whichever it is, that contains this path or is it; searched from the path upwards.
pub fn vault_around(path: &Path) -> Option<PathBuf> {
    around(path, |dir| is_vault(dir).then_some(())).map(|(folder, ())| folder)
}

/// The first folder from this path upwards of which `what` says something. Links in the path are resolved.
fn around<T>(path: &Path, what: impl Fn(&TargetDir) -> Option<T>) -> Option<(PathBuf, T)> {
    // A folder that does not exist yet will be in the first existing one above it.
    let path = if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) };
    let there = path.ancestors().find_map(|path| std::fs::canonicalize(path).ok())?;
    there.ancestors().find_map(|path| {
        let dir = TargetDir::open_root(path, false).ok()?;
        Some((path.to_owned(), what(&dir)?))
    })
}

/// Which rules leave out something in the folder of `ward`. `below` is its path below the root.
fn by_pattern(ward: &Ward, below: &[u8], is_folder: bool) -> Option<Kept> {
    if below.is_empty() {
        return None;
    }
    let stored = ward.stored.exclude(below, is_folder).then_some(Kept::LeftOut);
    stored.or_else(|| ward.today.exclude(below, is_folder).then_some(Kept::LeftOutToday))
}

/// Whether two mounts, each a device number and a mount number, differ.
const fn is_elsewhere(above: (u64, u64), here: (u64, u64)) -> bool {
    above.0 != here.0 || above.1 != 0 && here.1 != 0 && above.1 != here.1
}

/// Whether a folder is marked as a cache, or that cannot be found out.
fn may_be_cache(dir: &TargetDir) -> bool {
    let (name, signature) = CACHEDIR_TAG;
    let mut start = vec![0; signature.len()];
    match dir.stat_at(name) {
        Ok(Some(stat)) if stat.kind == FileKind::File => {
            let read = dir.as_source().open_file(name).and_then(|file| file.read_full_at(&mut start, 0));
            read.is_err() || start == signature
        }
        Ok(_) => false,
        Err(_) => true,
    }
}

/// Whether a folder is that of a vault, or that cannot be found out.
fn is_vault(dir: &TargetDir) -> bool {
    signs_of_vault(dir).map_or(true, |signs| signs == Signs::Vault)
}

/// Signs of a vault in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signs {
    /// It is or may be a vault: its `VAULT` file begins with the mark or cannot be read, or all folders that a vault has are there.
    Vault,
    /// Part of a vault: one of its folders has an object in it. Its other files may be lost, or may not have arrived yet.
    Part,
    None,
}

/// Looks in a folder for signs of a vault.
fn signs_of_vault(dir: &TargetDir) -> io::Result<Signs> {
    let is = |name: &[u8], kind| io::Result::Ok(dir.stat_at(name)?.is_some_and(|stat| stat.kind == kind));
    if is(VAULT_NAME, FileKind::File)? {
        let mut start = vec![0; VAULT_MARK.len()];
        let read = dir.as_source().open_file(VAULT_NAME).and_then(|file| file.read_full_at(&mut start, 0));
        if read.is_err() || start == VAULT_MARK {
            return Ok(Signs::Vault);
        }
    }
    let mut there = Vec::new();
    for kind in Kind::ALL {
        if is(kind.folder().as_bytes(), FileKind::Directory)? {
            there.push(kind);
        }
    }
    if Kind::ALL.iter().all(|kind| *kind == Kind::Index || there.contains(kind)) {
        return Ok(Signs::Vault);
    }
    Ok(if there.iter().any(|kind| has_object(dir, *kind)) { Signs::Part } else { Signs::None })
}

/// Whether the folder of this kind, in a folder that may be a vault, has an object in it.
fn has_object(dir: &TargetDir, kind: Kind) -> bool {
    let in_folder = |dir: &TargetDir, name: &[u8], is: &dyn Fn(&TargetDir, &[u8]) -> bool| {
        let opened = dir.open_dir(name).and_then(|dir| Ok((dir.names()?, dir)));
        opened.is_ok_and(|(names, dir)| names.iter().any(|name| is(&dir, name)))
    };
    let is_object = |name: &[u8]| std::str::from_utf8(name).is_ok_and(|name| name.parse::<ObjectName>().is_ok());
    in_folder(dir, kind.folder().as_bytes(), &|dir, name| {
        if !kind.fans_out() {
            return is_object(name);
        }
        let is_object_of = |_: &TargetDir, object: &[u8]| object.starts_with(name) && is_object(object);
        name.len() == 2 && in_folder(dir, name, &is_object_of)
    })
}
