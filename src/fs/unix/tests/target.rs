//! Restores exactly what was read, and never outside the target.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use rustix::process::{Gid, Uid};

use super::*;
use crate::fs::{Meta, MetaOptions, OwnerNames, Problem, Stat, TargetDir, privileged};
use crate::tree::entry::flags;
use crate::tree::{Owner, Time};

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// An ACL in Linux's encoding: owner rw, user 7 r, group r, mask r, others none.
const ACL: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\x07\0\0\0\x04\0\x04\0\xff\xff\xff\xff\
    \x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
/// The capability to bind low ports, effective and permitted.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// The metadata that a test sets, by default that of a new file of this user.
struct Wanted {
    kind: FileKind,
    mode: u32,
    owner: Owner,
    mtime: Time,
    xattrs: Xattrs,
    flags: u32,
    options: MetaOptions,
}

impl Wanted {
    fn new(kind: FileKind, mode: u32) -> Self {
        Self {
            kind,
            mode,
            owner: OwnerNames::new().owner(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            mtime: Time { secs: -86_400, nanos: 999_999_999 },
            xattrs: Vec::new(),
            flags: 0,
            options: MetaOptions::default(),
        }
    }

    fn xattr(mut self, name: &[u8], value: &[u8]) -> Self {
        self.xattrs.push((name.to_vec(), value.to_vec()));
        self.xattrs.sort();
        self
    }

    fn with<T>(&self, act: impl FnOnce(&Meta) -> T) -> T {
        act(&Meta {
            kind: self.kind,
            mode: self.mode,
            owner: &self.owner,
            mtime: self.mtime,
            xattrs: &self.xattrs,
            flags: self.flags,
            options: self.options,
            names: &OwnerNames::new(),
        })
    }

    /// Sets the metadata, and checks that it reads back the same.
    fn check(&self, dir: &TargetDir, name: &[u8]) {
        let problems = self.with(|meta| dir.set_metadata(name, meta));
        assert!(problems.is_empty(), "{}: {problems:?}", name.escape_ascii());
        self.check_read(dir, name);
    }

    fn check_read(&self, dir: &TargetDir, name: &[u8]) {
        let stat = dir.stat_at(name).unwrap().unwrap();
        assert_eq!((stat.kind, stat.mtime, stat.flags), (self.kind, self.mtime, self.flags));
        assert_eq!((stat.uid, stat.gid), (self.owner.uid, self.owner.gid));
        if self.kind != FileKind::Symlink {
            assert_eq!(stat.mode, self.mode, "{:o} {:o}", stat.mode, self.mode);
        }
        assert_eq!(dir.as_source().xattrs_at(name).unwrap(), self.xattrs);
    }
}

/// Runs as a user without rights; only if the tests run as root. Linux keeps the user per thread.
fn as_nobody(act: impl FnOnce() + Send) {
    if !privileged() {
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            rustix::thread::set_thread_groups(&[]).unwrap();
            let (uid, gid) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            assert!(!privileged());
            act();
        });
    });
}

fn root(dir: &TempDir) -> TargetDir {
    TargetDir::open_root(dir.path(), false).unwrap()
}

/// Whether a file in this folder takes a flag; only root can tell, and only if the file system has flags.
fn has_flags(dir: &TargetDir) -> bool {
    drop(dir.create_file(b"probe", 0o644).unwrap());
    let wanted = Wanted { flags: flags::IMMUTABLE, ..Wanted::new(FileKind::File, 0o600) };
    let has = wanted.with(|meta| dir.set_metadata(b"probe", meta)).is_empty();
    dir.remove_file(b"probe").unwrap();
    has
}

#[test]
fn every_kind_of_file_is_brought_back() {
    for scratch in scratch() {
        let dir = root(&scratch);
        let odd = b"\n\xff odd";
        let long = [b'x'; 255];
        for name in [odd.as_slice(), &long] {
            let file = dir.create_file(name, 0o644).unwrap();
            file.write_at(b"content", 0).unwrap();
            let wanted = Wanted::new(FileKind::File, 0o4751).xattr(b"user.b", b"\0\xff").xattr(b"user.a", b"");
            assert!(wanted.with(|meta| file.set_metadata(meta)).is_empty());
            wanted.check_read(&dir, name);
            Wanted::new(FileKind::File, 0o400).xattr(b"user.b", b"other").check(&dir, name);
            Wanted::new(FileKind::File, 0o400).xattr(b"user.c", b"third").check(&dir, name);
            Wanted::new(FileKind::File, 0).check(&dir, name);
            Wanted::new(FileKind::File, 0o444).xattr(b"user.d", b"fourth").check(&dir, name);
        }
        dir.make_dir(b"dir").unwrap();
        Wanted::new(FileKind::Directory, 0o1555).xattr(b"user.a", &[7; 3000]).check(&dir, b"dir");
        dir.symlink(b"link", b"/nowhere/\xff", false).unwrap();
        Wanted::new(FileKind::Symlink, 0o777).check(&dir, b"link");
        assert_eq!(dir.as_source().read_link(b"link").unwrap(), b"/nowhere/\xff");
        dir.fifo(b"fifo").unwrap();
        Wanted::new(FileKind::Fifo, 0o640).check(&dir, b"fifo");
        dir.socket(b"socket").unwrap();
        Wanted::new(FileKind::Socket, 0o755).check(&dir, b"socket");
        for (kind, name) in [(FileKind::CharDevice, b"char"), (FileKind::BlockDevice, b"blok")] {
            match dir.device(name, kind, (7, 300)) {
                Ok(()) => {
                    Wanted::new(kind, 0o604).check(&dir, name);
                    assert_eq!(dir.stat_at(name).unwrap().unwrap().device, (7, 300));
                }
                Err(error) => assert!(crate::fs::is_expected(&error), "{error}"),
            }
        }
        dir.hard_link(b"again", &dir, odd).unwrap();
        assert_eq!(dir.stat_at(b"again").unwrap(), dir.stat_at(odd).unwrap());
        assert_eq!(dir.stat_at(b"again").unwrap().unwrap().nlink, 2);
        dir.rename(b"again", &long).unwrap();
        assert_eq!(dir.stat_at(b"again").unwrap(), None);
        dir.unlock_at(b"dir").unwrap();
        for name in dir.names().unwrap().iter() {
            remove_tree(&dir, name).unwrap();
        }
        assert!(dir.is_empty().unwrap());
    }
}

#[test]
fn what_only_root_may_set_is_set() {
    if !privileged() {
        return;
    }
    for scratch in scratch() {
        let dir = root(&scratch);
        for name in [&b"file"[..], b"link", b"fifo", b"dir"] {
            let kind = match name {
                b"file" => dir.create_file(name, 0o644).map(|_| FileKind::File),
                b"link" => dir.symlink(name, b"x", false).map(|()| FileKind::Symlink),
                b"fifo" => dir.fifo(name).map(|()| FileKind::Fifo),
                _ => dir.make_dir(name).map(|()| FileKind::Directory),
            };
            // The change of owner would clear the capability and the setuid bit.
            let mut wanted = Wanted::new(kind.unwrap(), 0o6755).xattr(b"trusted.x", b"1");
            wanted.owner = Owner { uid: 12_345, gid: 54_321, ..Owner::default() };
            if name == b"file" {
                wanted = wanted.xattr(b"security.capability", CAPABILITY);
            }
            wanted.check(&dir, name);
            // Everything is removed again.
            wanted.xattrs.clear();
            wanted.owner = Owner { uid: 7, gid: 7, user: b"root".to_vec(), group: b"root".to_vec() };
            wanted.options.numeric = true;
            wanted.check(&dir, name);
            wanted.options.numeric = false;
            wanted.with(|meta| assert!(dir.set_metadata(name, meta).is_empty()));
            assert_eq!(dir.stat_at(name).unwrap().map(|stat| (stat.uid, stat.gid)), Some((0, 0)));
        }
    }
}

#[test]
fn files_in_a_folder_of_ones_own_get_the_same_without_being_looked_at() {
    for scratch in scratch() {
        let top = root(&scratch);
        // Nothing is inherited; a group; an access list; a flag.
        for (number, wanted) in [
            Wanted::new(FileKind::Directory, 0o700),
            Wanted { owner: Owner { gid: 54_321, ..Owner::default() }, ..Wanted::new(FileKind::Directory, 0o2700) },
            Wanted::new(FileKind::Directory, 0o700).xattr(b"system.posix_acl_default", ACL),
            Wanted { flags: flags::NODUMP, ..Wanted::new(FileKind::Directory, 0o700) },
        ]
        .iter()
        .enumerate()
        {
            let above_name = format!("above {number}").into_bytes();
            top.make_dir(&above_name).unwrap();
            wanted.with(|meta| top.set_metadata(&above_name, meta));
            let above = top.open_dir(&above_name).unwrap();
            above.make_dir(b"own").unwrap();
            let mut dir = above.open_dir(b"own").unwrap();
            dir.claim().unwrap();
            let learned = || dir.newborn.as_ref().and_then(|family| family.get()).is_some();
            let mut kinds: Vec<_> =
                [0o600, 0o444, 0o755, 0o640, 0o6755, 0, 0o755].map(|mode| Wanted::new(FileKind::File, mode)).into();
            kinds.push(Wanted::new(FileKind::File, 0o600).xattr(b"user.a", b"value"));
            kinds.push(Wanted { flags: flags::NODUMP, ..Wanted::new(FileKind::File, 0o644) });
            if privileged() {
                let owner = Owner { uid: 12_345, gid: 7, ..Owner::default() };
                kinds.push(Wanted { owner, ..Wanted::new(FileKind::File, 0o4755) });
            }
            for (number, wanted) in kinds.iter().enumerate() {
                let name = format!("file {number}").into_bytes();
                let file = dir.create_file(&name, wanted.mode).unwrap();
                file.write_at(b"content", 0).unwrap();
                let problems = wanted.with(|meta| file.set_metadata(meta));
                // Few file systems in memory have flags.
                if problems.iter().all(|problem| problem.what == "flags") && wanted.flags == 0 {
                    wanted.check_read(&dir, &name);
                }
                assert!(problems.is_empty() || wanted.flags != 0, "{problems:?}");
            }
            assert_eq!(learned(), number != 2, "only inherited access lists must be searched for");
        }
        // A folder that others can enter is not private.
        top.make_dir(b"open").unwrap();
        Wanted::new(FileKind::Directory, 0o755).check(&top, b"open");
        let mut dir = top.open_dir(b"open").unwrap();
        dir.claim().unwrap();
        let file = dir.create_file(b"file", 0o644).unwrap();
        assert_eq!((dir.newborn.is_some(), file.stat().unwrap().mode), (false, 0o600));
    }
}

#[test]
fn access_lists_are_kept_to_the_byte() {
    for scratch in scratch() {
        let dir = root(&scratch);
        dir.make_dir(b"dir").unwrap();
        let wanted = Wanted::new(FileKind::Directory, 0o750).xattr(b"system.posix_acl_default", ACL);
        wanted.check(&dir, b"dir");
        // A new file inherits an access list, which was not saved with it and is therefore removed.
        let dir = dir.open_dir(b"dir").unwrap();
        drop(dir.create_file(b"file", 0o644).unwrap());
        assert_eq!(dir.as_source().xattrs_at(b"file").unwrap().len(), 1);
        Wanted::new(FileKind::File, 0o2664).check(&dir, b"file");
        Wanted::new(FileKind::File, 0o640).xattr(b"system.posix_acl_access", ACL).check(&dir, b"file");
    }
}

#[test]
fn flags_come_last_and_do_not_stand_in_the_way() {
    for scratch in scratch() {
        let dir = root(&scratch);
        if !privileged() || !has_flags(&dir) {
            continue;
        }
        drop(dir.create_file(b"file", 0o644).unwrap());
        dir.make_dir(b"dir").unwrap();
        for bits in [flags::NODUMP, flags::APPEND | flags::NODUMP, flags::IMMUTABLE, flags::IMMUTABLE | flags::APPEND] {
            Wanted { flags: bits, ..Wanted::new(FileKind::File, 0o640) }.check(&dir, b"file");
            Wanted { flags: bits, ..Wanted::new(FileKind::Directory, 0o750) }.check(&dir, b"dir");
        }
        assert!(File::options().write(true).open(scratch.path().join("file")).is_err());
        let file = dir.open_existing(b"file").unwrap();
        file.write_at(b"new", 0).unwrap();
        let wanted = Wanted { flags: flags::IMMUTABLE, ..Wanted::new(FileKind::File, 0o600) };
        assert!(wanted.with(|meta| file.set_metadata(meta)).is_empty());
        let below = dir.open_dir(b"dir").unwrap();
        assert!(below.make_dir(b"sub").is_err());
        below.unlock().unwrap();
        below.make_dir(b"sub").unwrap();
        let lock = |dir: &TargetDir, name: &[u8]| {
            Wanted { flags: flags::APPEND, ..Wanted::new(FileKind::Directory, 0o500) }.check(dir, name);
        };
        lock(&below, b"sub");
        lock(&dir, b"dir");
        remove_tree(&dir, b"dir").unwrap();
        remove_tree(&dir, b"file").unwrap();
        assert!(dir.is_empty().unwrap());
    }
}

#[test]
fn nothing_is_written_through_links_or_odd_names() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir_all(scratch.path().join("outside/dir")).unwrap();
    fs::write(scratch.path().join("outside/file"), "precious").unwrap();
    let before = fs::metadata(scratch.path().join("outside/file")).unwrap();
    let dir = TargetDir::open_root(&scratch.path().join("a/target"), true).unwrap();
    dir.symlink(b"file", b"../../outside/file", false).unwrap();
    dir.symlink(b"dir", b"../../outside/dir", false).unwrap();
    dir.symlink(b"new", b"../../outside/new", false).unwrap();
    for name in [&b"file"[..], b"dir", b"new"] {
        assert!(dir.create_file(name, 0o644).is_err());
        assert!(dir.open_existing(name).is_err());
        assert!(dir.open_dir(name).is_err());
        assert!(dir.make_dir(name).is_err());
        for kind in [FileKind::File, FileKind::Directory] {
            let problems = Wanted::new(kind, 0o777).with(|meta| dir.set_metadata(name, meta));
            assert_eq!(problems.len(), 1, "another kind of file lies there");
        }
        Wanted::new(FileKind::Symlink, 0o777).check(&dir, name);
        dir.unlock_at(name).unwrap();
    }
    for name in [&b".."[..], b".", b"", b"../x", b"/etc/x", b"a/b", b"a\0"] {
        assert!(dir.create_file(name, 0o644).is_err());
        assert!(dir.open_existing(name).is_err());
        assert!(dir.open_dir(name).is_err());
        assert!(dir.make_dir(name).is_err());
        assert!(dir.symlink(name, b"x", false).is_err());
        assert!(dir.fifo(name).is_err());
        assert!(dir.hard_link(name, &dir, b"file").is_err());
        assert!(dir.hard_link(b"x", &dir, name).is_err());
        assert!(dir.rename(b"file", name).is_err() && dir.rename(name, b"x").is_err());
        assert!(dir.remove_file(name).is_err() && remove_tree(&dir, name).is_err());
        assert!(dir.stat_at(name).is_err());
    }
    remove_tree(&dir, b"dir").unwrap();
    dir.hard_link(b"link", &dir, b"file").unwrap();
    assert_eq!(dir.stat_at(b"link").unwrap().unwrap().kind, FileKind::Symlink);
    assert!(scratch.path().join("outside/dir").exists() && !scratch.path().join("outside/new").exists());
    assert_eq!(fs::read_to_string(scratch.path().join("outside/file")).unwrap(), "precious");
    let after = fs::metadata(scratch.path().join("outside/file")).unwrap();
    assert_eq!((before.ctime_nsec(), before.nlink()), (after.ctime_nsec(), after.nlink()));
}

#[test]
fn paths_longer_than_any_call_takes_work_and_are_removed() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = root(&scratch);
    let name = [b'd'; 100];
    dir.make_dir(b"top").unwrap();
    let mut deepest = dir.open_dir(b"top").unwrap();
    for _ in 0..300 {
        deepest.make_dir(&name).unwrap();
        deepest.symlink(b"side", b"..", false).unwrap();
        deepest = deepest.open_dir(&name).unwrap();
    }
    let file = deepest.create_file(b"file", 0o644).unwrap();
    let wanted = Wanted::new(FileKind::File, 0o600).xattr(b"user.deep", b"yes");
    assert!(wanted.with(|meta| file.set_metadata(meta)).is_empty());
    wanted.check(&deepest, b"file");
    deepest.symlink(b"link", b"target", false).unwrap();
    Wanted::new(FileKind::Symlink, 0o777).check(&deepest, b"link");
    // Down again as a source, and up without keeping handles.
    let mut source = Dir::open(scratch.path()).unwrap().open_dir(b"top").unwrap();
    let mut above = Vec::new();
    for _ in 0..300 {
        above.push(source.stat().map(|stat| (stat.dev, stat.ino)).unwrap());
        source = source.open_dir(&name).unwrap();
    }
    assert_eq!(source.xattrs_at(b"file").unwrap(), wanted.xattrs);
    while let Some(id) = above.pop() {
        source = source.open_parent(id).unwrap();
    }
    assert!(source.may_contain(b"side"));
    remove_tree(&dir, b"top").unwrap();
    assert!(dir.is_empty().unwrap());
}

#[test]
fn holes_and_room_are_made() {
    for scratch in scratch() {
        let dir = root(&scratch);
        let file = dir.create_file(b"file", 0o644).unwrap();
        file.preallocate(1 << 20).unwrap();
        assert_eq!(file.stat().map(|stat| (stat.size, stat.blocks >= 2048)).unwrap(), (1 << 20, true));
        file.write_at(&vec![7; 1 << 20], 0).unwrap();
        file.punch_hole(65_536, 131_072).unwrap();
        file.set_len(1 << 30).unwrap();
        let source = dir.as_source().open_file(b"file").unwrap();
        assert_eq!(source.extents(1 << 30).unwrap().unwrap(), [(0, 65_536), (196_608, 1 << 20)]);
        let mut around = vec![1; 4];
        assert_eq!(file.read_at(&mut around, 65_534).unwrap(), 4);
        assert_eq!(around, [7, 7, 0, 0]);
        assert_eq!(file.read_at(&mut around, (1 << 30) - 1).unwrap(), 1);
        file.sync().unwrap();
    }
}

#[test]
fn a_normal_user_gets_what_he_may_have_and_is_told_the_rest() {
    for scratch in scratch() {
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
        as_nobody(|| {
            let dir = root(&scratch);
            let said = |problems: &[Problem]| {
                assert!(problems.iter().all(|problem| problem.expected), "{problems:?}");
                problems.iter().map(|problem| problem.what.to_string()).collect::<Vec<_>>()
            };
            let file = dir.create_file(b"file", 0o644).unwrap();
            let mut wanted = Wanted::new(FileKind::File, 0o6755)
                .xattr(b"user.a", b"mine")
                .xattr(b"trusted.t", b"1")
                .xattr(b"security.capability", CAPABILITY);
            wanted.check_own(&dir, b"file", &file);
            wanted.owner = Owner { uid: 0, gid: 0, ..Owner::default() };
            wanted.flags = flags::IMMUTABLE;
            let problems = wanted.with(|meta| file.set_metadata(meta));
            let mut expected = vec!["owner", "xattr security.capability", "xattr trusted.t"];
            if problems.iter().any(|problem| problem.expected && problem.what == "flags") {
                expected.push("flags");
            }
            let (flags, others): (Vec<_>, Vec<_>) = problems.into_iter().partition(|problem| problem.what == "flags");
            assert_eq!(flags.len(), 1);
            assert_eq!(said(&others), expected[..3]);
            let stat: Stat = dir.stat_at(b"file").unwrap().unwrap();
            assert_eq!((stat.mode, stat.uid), (0o755, 65_534), "not setuid for someone else");
            assert!(crate::fs::is_expected(&dir.device(b"null", FileKind::CharDevice, (1, 3)).unwrap_err()));

            // The user's own read-only files and folders are no obstacle.
            let mut wanted = Wanted::new(FileKind::File, 0);
            wanted.check(&dir, b"file");
            dir.open_existing(b"file").unwrap().write_at(b"x", 0).unwrap();
            dir.make_dir(b"dir").unwrap();
            let below = dir.open_dir(b"dir").unwrap();
            below.make_dir(b"sub").unwrap();
            wanted.kind = FileKind::Directory;
            wanted.check(&below, b"sub");
            wanted.check(&dir, b"dir");
            assert!(dir.open_dir(b"dir").is_err());
            remove_tree(&dir, b"dir").unwrap();
            // Files of others stay.
            assert!(TargetDir::open_root(Path::new("/"), false).unwrap().remove_file(b"etc").is_err());
        });
    }
}

impl Wanted {
    /// As the owner of everything: only settings that are reserved to root fail.
    fn check_own(&self, dir: &TargetDir, name: &[u8], file: &crate::fs::TargetFile) {
        let problems = self.with(|meta| file.set_metadata(meta));
        assert_eq!(problems.len(), 2, "{problems:?}");
        let stat = dir.stat_at(name).unwrap().unwrap();
        assert_eq!((stat.mode, stat.mtime), (self.mode, self.mtime));
    }
}

#[test]
fn a_number_that_is_no_owner_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = root(&scratch);
    drop(dir.create_file(b"file", 0o644).unwrap());
    let mut wanted = Wanted::new(FileKind::File, 0o600);
    wanted.owner = Owner { uid: u32::MAX, gid: u32::MAX, ..Owner::default() };
    let problems = wanted.with(|meta| dir.set_metadata(b"file", meta));
    assert_eq!(problems.len(), 1);
    wanted.options.owner = false;
    assert!(wanted.with(|meta| dir.set_metadata(b"file", meta)).is_empty());
}

/// Removes this name, with everything in it.
fn remove_tree(dir: &TargetDir, name: &[u8]) -> io::Result<()> {
    let stat = dir.stat_at(name)?.ok_or(io::ErrorKind::NotFound)?;
    if stat.kind != FileKind::Directory {
        return dir.remove_file(name);
    }
    dir.unlock_at(name)?;
    let below = dir.open_dir(name)?;
    below.names()?.iter().try_for_each(|name| remove_tree(&below, name))?;
    dir.remove_dir(name)
}
