//! A store whose folders are links, and files that root creates in a user's folders: nothing is written, deleted or
//! moved through a link, and nothing becomes inaccessible to the owner of the folder. Also store objects that are not
//! regular files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::binary::{Desk, said};
use crate::support::os::fifo;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Number of files below a folder.
fn files_below(path: &Path) -> usize {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| if entry.file_type().unwrap().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

#[test]
fn nothing_is_written_through_a_link_in_the_store() {
    for folder in ["packs", "meta", "log", "fan-out"] {
        let desk = Desk::new();
        let elsewhere = desk.path("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        if folder == "fan-out" {
            for kind in ["packs", "meta"] {
                fs::create_dir_all(desk.path("store").join(kind)).unwrap();
                for number in 0..256 {
                    symlink(&elsewhere, desk.path("store").join(kind).join(format!("{number:02x}"))).unwrap();
                }
            }
        } else {
            let _ = fs::remove_dir_all(desk.path("store").join(folder));
            symlink(&elsewhere, desk.path("store").join(folder)).unwrap();
        }
        desk.write("a", vec![1; 3000]);
        let taken = desk.run(&["snapshot", "."]);
        assert_eq!(taken.code, 1, "{folder}: {}{}", taken.out, taken.err);
        assert!(taken.err.contains("link"), "{folder}: {}", taken.err);
        assert_eq!(files_below(&elsewhere), 0, "{folder}: something was written through the link");
    }
}

#[test]
fn nothing_is_moved_or_deleted_through_a_link_in_the_store() {
    let desk = Desk::new();
    desk.write("a", vec![1; 3000]);
    desk.take("2026-01-01 12:00");
    let elsewhere = desk.path("elsewhere");
    fs::rename(desk.path("store/packs"), &elsewhere).unwrap();
    symlink(&elsewhere, desk.path("store/packs")).unwrap();
    let before = files_below(&elsewhere);
    desk.run(&["forget", "latest"]);
    desk.run(&["prune"]);
    desk.run(&["repair", "--yes"]);
    assert_eq!(files_below(&elsewhere), before);
    // Moving aside does not go through a link either.
    let desk = Desk::new();
    desk.write("a", vec![1; 3000]);
    desk.take("2026-01-01 12:00");
    let elsewhere = desk.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, desk.path("store/quarantine")).unwrap();
    fs::write(desk.path("store/VAULT"), "damaged").unwrap_or_else(|_| {
        fs::remove_file(desk.path("store/VAULT")).unwrap();
        fs::write(desk.path("store/VAULT"), "damaged").unwrap();
    });
    desk.run(&["repair", "--yes"]);
    assert_eq!(files_below(&elsewhere), 0);
}

/// Replaces a file by a pipe, a link or a folder.
fn put_in_place_of(path: &Path, harm: &str) {
    fs::remove_file(path).unwrap();
    match harm {
        "fifo" => fifo(path),
        "link" => symlink("/etc/passwd", path).unwrap(),
        _ => fs::create_dir(path).unwrap(),
    }
}

#[test]
fn a_vault_file_that_is_no_file_counts_as_damaged() {
    for harm in ["fifo", "link", "folder"] {
        let desk = Desk::new();
        desk.write("a", vec![1; 3000]);
        desk.take("2026-01-01 12:00");
        let path = desk.path("store/VAULT");
        put_in_place_of(&path, harm);
        desk.ok(&["ls", "2026-01-01"]);
        desk.ok(&["restore", "2026-01-01", "--to", "../out"]);
        let taken = desk.run(&["snapshot", "."]);
        assert_eq!(taken.code, 0, "{harm}: {}{}", taken.out, taken.err);
        if harm != "folder" {
            assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{harm}");
        }
    }
}

#[test]
fn a_repair_makes_a_vault_file_again_that_is_no_file() {
    for harm in ["fifo", "link", "folder"] {
        let desk = Desk::new();
        desk.write("a", "content");
        desk.take("2026-01-01");
        let path = desk.path("store/VAULT");
        put_in_place_of(&path, harm);
        let dry = desk.run(&["repair", "--dry-run"]);
        assert!(dry.out.contains("make again"), "{harm}: {}{}", dry.out, dry.err);
        desk.run(&["repair", "--yes"]);
        if harm != "folder" {
            assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{harm}");
            desk.ok(&["check"]);
        }
    }
}

/// Small files of the state folder count as missing if something else has their names, and no command blocks for ever.
#[test]
fn a_state_folder_of_pipes_makes_nobody_wait() {
    let desk = Desk::new();
    desk.write("a", "content");
    desk.take("2026-01-01");
    let mut files = Vec::new();
    all(&desk.path("state"), &mut files);
    files.retain(|path| path.is_file() && !path.file_name().unwrap().to_string_lossy().starts_with("catalogue"));
    assert!(files.len() > 3, "{files:?}");
    for path in files {
        if !path.is_file() {
            continue;
        }
        let kept = desk.path("kept");
        fs::rename(&path, &kept).unwrap();
        fifo(&path);
        // What the machine knew and no longer does is told until it is accepted.
        let is_told = ["findings", "seen"].iter().any(|name| path.ends_with(name));
        let listed = if is_told { &[3] } else { &[0] };
        for (args, codes) in [(&["list"][..], &listed[..]), (&["snapshot", "."], &[0, 1])] {
            let mut child = desk.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut ended = None;
            for _ in 0..600 {
                ended = child.try_wait().unwrap();
                if ended.is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            let _ = child.kill();
            child.wait().unwrap();
            let code = ended.and_then(|status| status.code());
            assert!(code.is_some_and(|code| codes.contains(&code)), "{} {args:?}: {code:?}", path.display());
        }
        desk.accept_all();
        if path.is_file() {
            continue;
        }
        let _ = fs::remove_file(&path);
        fs::rename(&kept, &path).unwrap();
    }
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_no_signal() {
    let desk = Desk::new();
    desk.write("a", (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    // In blocks of 512 or 1024 bytes: the catalogue fits, a full pack does not.
    let limited = said(&desk.limited("-f 4000", &["snapshot", "."]).output().unwrap());
    assert_eq!(limited.code, 1, "{}{}", limited.out, limited.err);
    assert!(limited.err.contains("larger than"), "{}", limited.err);
    assert_eq!(desk.run(&["snapshot", "."]).code, 0);
}

#[cfg(unix)]
#[test]
fn a_vault_behind_a_link_to_a_disk_that_is_away_is_known() {
    let desk = Desk::new();
    desk.write("a", "a");
    fs::create_dir(desk.path("disk")).unwrap();
    std::os::unix::fs::symlink(desk.path("disk/vault"), desk.path("link")).unwrap();
    std::os::unix::fs::symlink("link", desk.path("chain")).unwrap();
    let (vault, link, chain) = (desk.path("disk/vault"), desk.path("link"), desk.path("chain"));
    let [vault, link, chain] = [&vault, &link, &chain].map(|path| path.to_str().unwrap());
    desk.ok(&["init", "--repo", vault]);
    desk.ok(&["snapshot", ".", "--repo", link]);
    fs::rename(desk.path("disk"), desk.path("away")).unwrap();
    let list = desk.path("list.csv");
    for is_mount_point_there in [false, true] {
        for place in [vault, link, chain] {
            fs::write(&list, format!("path,vault\n{},{place}\n", desk.source().display())).unwrap();
            for args in [
                &["init", "--repo", place][..],
                &["snapshot", ".", "--init", "--repo", place],
                &["mirror", "--to", place],
                &["copy", "--to", place],
                &["list", "--repo", place],
                &["run", "--list", list.to_str().unwrap()],
            ] {
                let said = desk.run(args);
                // A list says which line of it names what is not there.
                if args[0] == "run" && place == vault && !is_mount_point_there {
                    assert!(said.code == 2 && said.err.contains("is the disk connected?"), "{args:?}: {}", said.err);
                    continue;
                }
                assert_eq!(said.code, 10, "{args:?}: {}{}", said.out, said.err);
                let is_made = !matches!(args[0], "copy" | "list");
                let told = format!("{}{}", said.out, said.err);
                assert!(!is_made || told.contains("knows the vault"), "{args:?}: {told}");
            }
        }
        assert!(!desk.path("disk/vault").exists());
        let _ = fs::create_dir(desk.path("disk"));
        assert!(is_mount_point_there || desk.path("disk").is_dir());
    }
    fs::remove_dir(desk.path("disk")).unwrap();
    fs::rename(desk.path("away"), desk.path("disk")).unwrap();
    desk.ok(&["snapshot", ".", "--repo", chain]);
    // A link that leads to no known place is no place for a vault.
    std::os::unix::fs::symlink(desk.path("nowhere"), desk.path("new")).unwrap();
    let said = desk.run(&["init", "--repo", desk.path("new").to_str().unwrap()]);
    assert!(said.code == 1 && said.err.contains("it is a link"), "{} {}", said.code, said.err);
}

#[test]
fn addresses_of_other_machines_are_never_folders() {
    let desk = Desk::new();
    for repo in
        ["sftp:user@nas:/backup", "s3:bucket", "webdavs://host/dav", "user@host:path", "rest:http://host/", "b2:x"]
    {
        for args in [&["init"][..], &["snapshot", "--init", "."], &["list"]] {
            let given = said(&desk.command(args).env("VAULT_REPO", repo).output().unwrap());
            assert_eq!(given.code, 2, "{repo} {args:?}: {}{}", given.out, given.err);
            assert!(given.err.contains("another machine"), "{repo}: {}", given.err);
        }
        assert_eq!(desk.run(&["restore", "latest", "--to", repo]).code, 2, "{repo}");
        assert_eq!(desk.run(&["list", "--state", repo]).code, 2, "{repo}");
        for args in [&["config", "init", "--config", repo][..], &["man", repo], &["run", "--report", repo]] {
            assert_eq!(desk.run(args).code, 2, "{args:?}");
        }
    }
    for home in ["~", "~/x", "~user/x", "$HOME/x", "${HOME}"] {
        let given = said(&desk.command(&["snapshot", "--init", "."]).env("VAULT_REPO", home).output().unwrap());
        assert_eq!(given.code, 2, "{home}: {}{}", given.out, given.err);
        for args in [&["restore", "latest", "--to", home][..], &["list", "--state", home]] {
            let given = desk.run(args);
            assert_eq!(given.code, 2, "{args:?}: {}{}", given.out, given.err);
            assert!(given.err.contains("did not replace"), "{}", given.err);
        }
    }
    assert_eq!(fs::read_dir(desk.source()).unwrap().count(), 0, "a folder was made");
}

/// The user number of "nobody" on most systems.
const USER: u32 = 65_534;

fn all(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    found.push(path.to_owned());
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            all(&entry.unwrap().path(), found);
        }
    }
}

#[test]
fn what_root_writes_belongs_to_the_user_whose_folder_it_is() {
    if !is_root() {
        eprintln!("skipped: only root can write as root");
        return;
    }
    let desk = Desk::new();
    desk.write("a", vec![1; 3000]);
    let give = |path: &Path| std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    let below = |path: &Path| {
        let mut found = Vec::new();
        all(path, &mut found);
        found
    };
    fs::create_dir(desk.path("home")).unwrap();
    below(&desk.path("store")).iter().for_each(|path| give(path));
    give(&desk.path("home"));
    fs::set_permissions(desk.path("home"), fs::Permissions::from_mode(0o700)).unwrap();
    let state = desk.path("home/.local/state/vault");
    let taken = desk.command(&["snapshot", "."]).env("VAULT_STATE_DIR", &state).output().unwrap();
    assert_eq!(said(&taken).code, 0, "{}", said(&taken).err);
    // Whatever else is made in the user's folder.
    let home = |name: &str| desk.path("home").join(name).to_str().unwrap().to_owned();
    let (config, to, tar, pages) = (home("config/vault.toml"), home("out/restored"), home("a.tar"), home("man/pages"));
    let every: [&[&str]; 4] = [
        &["config", "init", "--config", &config],
        &["restore", "latest", "--to", &to],
        &["export", "latest", "--tar", &tar],
        &["man", &pages],
    ];
    for args in every {
        let made = said(&desk.command(args).env("VAULT_STATE_DIR", &state).output().unwrap());
        assert_eq!(made.code, 0, "{args:?}: {}", made.err);
    }
    // The files that were restored keep the owner of the source.
    fs::remove_dir_all(Path::new(&to).join("source")).unwrap();
    for path in below(&desk.path("store")).into_iter().chain(below(&desk.path("home"))) {
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (USER, USER), "{}", path.display());
    }
}
