//! Suggestions for the first minutes: folders that are worth keeping, and places where a vault may be created.

use std::path::{Path, PathBuf};

use crate::fs::Dir;
use crate::ownfile;
use crate::service::{delivery, local};
use crate::store::Delivery;
use crate::store::dir::DirStore;

/// Folders of a home in which people keep their own files.
const FOLDERS: &[&str] =
    &["Documents", "Pictures", "Desktop", "Music", "Videos", "Movies", "Projects", "projects", "src", "Code"];
/// Folders of a home that a program syncs to other machines.
const SYNCED: &[&str] = &[
    "Dropbox",
    "OneDrive",
    "Google Drive",
    "GoogleDrive",
    "Nextcloud",
    "ownCloud",
    "Sync",
    "Seafile",
    "pCloudDrive",
    "Library/Mobile Documents/com~apple~CloudDocs",
];
/// Folders in which systems mount other disks.
const DISKS: &[&str] = &["/media/", "/run/media/", "/mnt/"];
/// File systems that are not disks.
const NO_DISKS: &[&str] = &["tmpfs", "devtmpfs", "proc", "sysfs", "overlay", "squashfs", "autofs", "fuse.portal", "9p"];

/// A place where a vault may be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub path: PathBuf,
    /// Whether a program syncs it to other machines.
    pub synced: bool,
    /// Whether it may be disconnected at times.
    pub removable: bool,
}

impl Place {
    /// A folder that the user named.
    pub fn folder(path: PathBuf) -> Self {
        let synced = delivery::guess(&path) == Delivery::Synced;
        let removable = DISKS.iter().any(|disks| path.starts_with(disks)) || path.starts_with("/Volumes");
        Self { path, synced, removable }
    }

    /// The free bytes there, if that is known.
    pub fn free(&self) -> Option<u64> {
        DirStore::open(&self.path).ok().and_then(|store| store.free_space().ok().flatten())
    }

    /// A name for the vault in the configuration.
    pub fn name(&self) -> String {
        if self.synced {
            "cloud".to_owned()
        } else if self.removable {
            "disk".to_owned()
        } else {
            "main".to_owned()
        }
    }
}

/// Folders of a home that are worth keeping, if they exist and are not empty: those with the usual English names, and
/// those that the desktop's settings name.
pub fn sources(home: &Path) -> Vec<PathBuf> {
    let named = ownfile::read_text(&home.join(".config/user-dirs.dirs")).unwrap_or_default();
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(|name| home.join(name)).collect();
    folders.extend(user_folders(&named, home));
    let is_full = |path: &PathBuf| crate::folder::entries(path).is_ok_and(|mut entries| entries.next().is_some());
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in folders.into_iter().filter(is_full) {
        if !found.contains(&folder) {
            found.push(folder);
        }
    }
    if found.is_empty() && is_full(&home.to_owned()) {
        found.push(home.to_owned());
    }
    found
}

/// The folders in the desktop's settings, except downloads, templates and the like.
fn user_folders(text: &str, home: &Path) -> Vec<PathBuf> {
    let wanted = ["XDG_DESKTOP_DIR", "XDG_DOCUMENTS_DIR", "XDG_PICTURES_DIR", "XDG_MUSIC_DIR", "XDG_VIDEOS_DIR"];
    let folder = |line: &str| {
        let (key, value) = line.trim().split_once('=')?;
        let value = value.trim().trim_matches('"');
        let path = match value.strip_prefix("$HOME/") {
            Some(below) if !below.is_empty() => home.join(below),
            _ => PathBuf::from(value),
        };
        (wanted.contains(&key) && path.is_absolute() && path != home).then_some(path)
    };
    text.lines().filter_map(folder).collect()
}

/// Places where a vault may be created: other disks first, then synced folders.
pub fn destinations(home: Option<&Path>) -> Vec<Place> {
    let mut places: Vec<Place> =
        disks().into_iter().map(|path| Place { path, synced: false, removable: true }).collect();
    for name in SYNCED {
        if let Some(path) = home.map(|home| home.join(name)).filter(|path| path.is_dir()) {
            places.push(Place { path, synced: true, removable: false });
        }
    }
    places
}

fn disks() -> Vec<PathBuf> {
    if cfg!(windows) {
        let drives = ('D'..='Z').map(|letter| PathBuf::from(format!("{letter}:\\")));
        drives.filter(|path| path.is_dir()).collect()
    } else if cfg!(target_os = "macos") {
        let entries = crate::folder::entries("/Volumes").into_iter().flatten().flatten();
        // A symbolic link here leads to the system's own disk.
        entries
            .filter(|entry| entry.file_type().is_ok_and(crate::folder::Type::is_dir))
            .map(|entry| entry.path())
            .collect()
    } else {
        mounted(&ownfile::read_text(Path::new("/proc/self/mounts")).unwrap_or_default())
    }
}

/// The mount points of disks in the kernel's list that are in the usual folders for users' disks.
fn mounted(text: &str) -> Vec<PathBuf> {
    let disk = |line: &str| {
        let mut words = line.split(' ');
        let (point, kind, options) = (words.nth(1)?, words.next()?, words.next()?);
        let is_there = DISKS.iter().any(|disks| point.starts_with(disks)) && !NO_DISKS.contains(&kind);
        (is_there && options.split(',').any(|option| option == "rw")).then(|| PathBuf::from(unescaped(point)))
    };
    text.lines().filter_map(disk).collect()
}

/// Decodes the kernel's escapes, such as `\040` for a space.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| bytes[at] == b'\\');
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether a folder is the top of a disk or of a synced folder. A vault must not share it with the user's own files.
pub fn is_top(path: &Path) -> bool {
    let of = |path: &Path| Dir::open(path).and_then(|folder| folder.stat()).ok().map(|stat| stat.dev);
    let is_mount = path.parent().is_none_or(|above| of(path).is_some() && of(path) != of(above));
    is_mount || SYNCED.iter().any(|name| path.ends_with(name))
}

/// Whether a vault in this place would be on the same file system as one of its sources.
pub fn same_disk(place: &Path, sources: &[PathBuf]) -> bool {
    let device = |path: &Path| {
        path.ancestors().find_map(|path| Dir::open(path).and_then(|folder| folder.stat()).ok()).map(|stat| stat.dev)
    };
    let own = device(place);
    own.is_some() && sources.iter().any(|source| device(source) == own)
}

/// The folder for a vault in a place: the named folder if it is new, or empty and not the top of a disk or synced
/// folder; otherwise a folder inside it. So files that the user adds to a disk or synced folder later are not among the
/// files of the vault.
pub fn usable(place: Place) -> Result<Place, String> {
    let is_empty = |path: &Path| crate::folder::entries(path).is_ok_and(|mut entries| entries.next().is_none());
    let is_top = is_top(&place.path);
    let path = if place.path.is_dir() && (is_top || !is_empty(&place.path)) {
        place.path.join("vault")
    } else {
        place.path.clone()
    };
    for folder in [&place.path, &path] {
        if local::has_vault_in(folder).map_err(|failure| failure.what)? {
            return Ok(Place { path: folder.clone(), ..place });
        }
    }
    if path.exists() && !is_empty(&path) {
        return Err(format!("{} is not empty", path.display()));
    }
    match path.parent() {
        Some(parent) if parent.is_dir() => Ok(Place { path, ..place }),
        _ => Err(format!("there is no folder {}", path.parent().unwrap_or(&path).display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn folders_worth_keeping_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        for name in ["Documents/x", "Pictures", "Bilder/x", ".config"] {
            fs::create_dir_all(home.join(name)).unwrap();
        }
        let dirs = "# a remark\nXDG_PICTURES_DIR=\"$HOME/Bilder\"\nXDG_DOWNLOAD_DIR=\"$HOME/Downloads\"\n\
                    XDG_MUSIC_DIR=\"$HOME/\"\n";
        fs::write(home.join(".config/user-dirs.dirs"), dirs).unwrap();
        assert_eq!(sources(home), [home.join("Documents"), home.join("Bilder")]);
        fs::remove_dir_all(home.join("Documents")).unwrap();
        fs::remove_dir_all(home.join("Bilder")).unwrap();
        assert_eq!(sources(home), [home], "where there is nothing better");
    }

    #[test]
    fn disks_are_found_among_what_is_mounted() {
        let text = "proc /proc proc rw 0 0\n/dev/sda1 / ext4 rw 0 0\n/dev/sdb1 /media/me/my\\040disk exfat rw,nosuid 0 0\n\
                    /dev/sdc1 /run/media/me/old ext4 ro 0 0\ntmpfs /mnt/memory tmpfs rw 0 0\nnas:/x /mnt/nas nfs4 rw 0 0\n";
        assert_eq!(mounted(text), [Path::new("/media/me/my disk"), Path::new("/mnt/nas")]);
        assert_eq!(unescaped("a\\134b\\9"), "a\\b\\9");
    }

    #[test]
    fn places_have_names() {
        let name = |path: &str| Place::folder(PathBuf::from(path)).name();
        let names = ["/home/me/Dropbox/x", "/media/me/usb", "/srv/vault"].map(name);
        assert_eq!(names, ["cloud", "disk", "main"]);
    }

    #[test]
    fn a_vault_goes_into_an_empty_folder_or_one_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        fs::create_dir_all(top.join("full/vault")).unwrap();
        fs::create_dir(top.join("empty")).unwrap();
        let place = |name: &str| usable(Place::folder(top.join(name))).map(|place| place.path);
        assert_eq!(place("empty"), Ok(top.join("empty")));
        assert_eq!(place("new"), Ok(top.join("new")));
        assert_eq!(place("full"), Ok(top.join("full/vault")));
        fs::write(top.join("full/vault/x"), "x").unwrap();
        assert!(place("full").is_err() && place("no/where").is_err());
    }
}
