//! Tests with real files of every kind, read and restored.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;

use tempfile::TempDir;

use crate::fs::{Dir, Names, raise_file_limit};
use crate::tree::FileKind;

/// A scratch folder on the disk and one in memory, if there is one.
fn scratch() -> Vec<TempDir> {
    let mut dirs = vec![tempfile::tempdir().unwrap()];
    dirs.extend(tempfile::tempdir_in("/dev/shm"));
    dirs
}

fn name(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

mod target;

mod source {
    use super::*;

    #[test]
    fn every_name_is_listed_in_order_with_its_kind() {
        for dir in scratch() {
            let long = vec![b'x'; 255];
            let wanted = [&b"\n"[..], b" ", b"a", b"a\xff\xfe", b"b", b"link", &long, "\u{1f980}".as_bytes()];
            for file in wanted {
                match file {
                    b"b" => fs::create_dir(dir.path().join("b")).unwrap(),
                    b"link" => symlink("nowhere", dir.path().join("link")).unwrap(),
                    _ => drop(File::create(dir.path().join(name(file))).unwrap()),
                }
            }
            let source = Dir::open(dir.path()).unwrap();
            let mut names = Names::new();
            // Twice, since the handle has a position.
            for _ in 0..2 {
                source.names(&mut names).unwrap();
                assert!(names.iter().eq(wanted));
            }
            for (index, &file) in wanted.iter().enumerate() {
                let kind = source.stat_at(file).unwrap().kind;
                assert_eq!(names.kind_hint(index), Some(kind));
                assert_eq!(kind == FileKind::Directory, file == b"b");
            }
            assert_eq!(source.read_link(b"link").unwrap(), b"nowhere");
            assert!(source.may_contain(b"link") && !source.may_contain(b"nowhere"));
            assert!(source.open_dir(b"link").is_err() && source.open_file(b"link").is_err());
            assert!(source.open_dir(b"..").is_err() && source.open_file(b"b/c").is_err());
            assert_eq!(source.open_dir(b"b").unwrap().stat().unwrap(), source.stat_at(b"b").unwrap());
            assert!(source.is_local());
        }
        assert!(!Dir::open(Path::new("/proc")).unwrap().is_local());
    }

    #[test]
    fn links_in_the_given_path_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        let real = Dir::open(&dir.path().join("real")).unwrap().stat().unwrap();
        assert_eq!(Dir::open(&dir.path().join("link")).unwrap().stat().unwrap(), real);
    }

    #[test]
    fn special_files_say_what_they_are() {
        let dev = Dir::open(Path::new("/dev")).unwrap();
        let stat = dev.stat_at(b"null").unwrap();
        assert_eq!((stat.kind, stat.device, stat.size), (FileKind::CharDevice, (1, 3), 0));
        assert!(Dir::open(Path::new("/proc")).unwrap().stat().unwrap().mount_root);
        assert_eq!(dev.xattrs_at(b"null").unwrap(), []);
    }

    #[test]
    fn small_files_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ignore"), "*.o\n").unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        let source = Dir::open(dir.path()).unwrap();
        assert_eq!(source.read_small(b"ignore", 4).unwrap().as_deref(), Some(&b"*.o\n"[..]));
        assert!(source.read_small(b"ignore", 3).is_err());
        assert_eq!(source.read_small(b"missing", 9).unwrap(), None);
        assert_eq!(source.read_small(b"folder", 9).unwrap(), None);
    }

    #[test]
    fn caches_are_known_by_their_tag() {
        let dir = tempfile::tempdir().unwrap();
        let source = Dir::open(dir.path()).unwrap();
        assert!(!source.is_cachedir_tagged());
        let tag = dir.path().join("CACHEDIR.TAG");
        fs::write(&tag, "Signature: 8a477f597d28d172789f06886806bc5").unwrap();
        assert!(!source.is_cachedir_tagged());
        fs::write(&tag, "Signature: 8a477f597d28d172789f06886806bc55\n# more").unwrap();
        assert!(source.is_cachedir_tagged());
        fs::rename(&tag, dir.path().join("tag")).unwrap();
        symlink("tag", &tag).unwrap();
        assert!(!source.is_cachedir_tagged());
    }

    #[test]
    fn holes_are_told_apart_from_data() {
        for dir in scratch() {
            let extents = |len: u64, data: &[u64]| {
                let file = File::create(dir.path().join("file")).unwrap();
                file.set_len(len).unwrap();
                for &at in data {
                    file.write_all_at(&vec![7; 65536], at).unwrap();
                }
                let source = Dir::open(dir.path()).unwrap().open_file(b"file").unwrap();
                assert_eq!(source.stat().unwrap().size, len);
                source.extents(len).unwrap()
            };
            assert_eq!(extents(0, &[]), None);
            assert_eq!(extents(65536, &[0]), None);
            assert_eq!(extents(1 << 20, &[]), Some(vec![]));
            assert_eq!(extents(1 << 40, &[1 << 20]), Some(vec![(1 << 20, (1 << 20) + 65536)]));
            assert_eq!(extents((1 << 20) + 65536, &[0, 1 << 20]), Some(vec![(0, 65536), (1 << 20, (1 << 20) + 65536)]));
        }
    }

    #[test]
    fn windows_show_any_part_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        fs::write(dir.path().join("file"), &content).unwrap();
        let file = Dir::open(dir.path()).unwrap().open_file(b"file").unwrap();
        for (offset, len) in [(0, 100_000), (1, 99_999), (4096, 4096), (5000, 1)] {
            let window = file.map(offset as u64, len).unwrap();
            assert_eq!(window.bytes(), &content[offset..offset + len]);
            let mut copy = vec![1];
            window.copy_to(0..len, &mut copy);
            assert_eq!(copy[1..], content[offset..offset + len]);
            assert!(!window.torn());
        }
        assert!(file.map(0, 0).is_err());
        let mut buf = vec![0; 10];
        assert_eq!(file.read_full_at(&mut buf, 99_995).unwrap(), 5);
        assert_eq!(file.read_all(100_000).unwrap(), content);
    }

    #[test]
    fn a_file_cut_off_under_a_window_is_noticed_and_harmless() {
        for dir in scratch() {
            let path = dir.path().join("file");
            let source = Dir::open(dir.path()).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..4_u8 {
                    let path = path.with_extension(thread.to_string());
                    let source = &source;
                    scope.spawn(move || {
                        for round in 0..50 {
                            fs::write(&path, vec![9; 1 << 18]).unwrap();
                            let file = source.open_file(path.file_name().unwrap().as_bytes()).unwrap();
                            let (torn, whole) = (file.map(4096, (1 << 18) - 4096).unwrap(), file.map(0, 4096).unwrap());
                            let kept = if round % 2 == 0 { 3 * 4096 } else { 4096 };
                            File::options().write(true).open(&path).unwrap().set_len(kept).unwrap();
                            let mut copy = Vec::new();
                            torn.copy_to(0..torn.len(), &mut copy);
                            let kept = kept as usize - 4096;
                            assert!(copy[..kept].iter().all(|&byte| byte == 9), "the rest is read");
                            assert!(copy[kept..].iter().all(|&byte| byte == 0), "the missing part is zero");
                            assert!(torn.torn());
                            whole.copy_to(0..4096, &mut copy);
                            assert!(!whole.torn());
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn the_way_up_is_taken_only_to_the_same_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        let a = Dir::open(&dir.path().join("a")).unwrap();
        let id = a.stat().map(|stat| (stat.dev, stat.ino)).unwrap();
        let b = a.open_dir(b"b").unwrap();
        assert_eq!(b.open_parent(id).unwrap().stat().unwrap().ino, id.1);
        fs::rename(dir.path().join("a/b"), dir.path().join("c/b")).unwrap();
        assert_eq!(b.open_parent(id).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_file_limit_only_rises() {
        let limit = raise_file_limit();
        assert!(limit >= 256 && raise_file_limit() == limit);
    }
}
