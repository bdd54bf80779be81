//! Failures of ordinary life: each time one clear message that says what to do, the right exit code, and no harm to
//! existing data.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::PASSWORD;
use crate::support::binary::{Desk, said};
use crate::support::source::bytes;

/// A desk with a file of 2 MB and a snapshot of it.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("letter", "Dear");
    desk.write("large", bytes(1, 2_000_000));
    desk.take("2026-01-01");
    desk
}

/// Checks that the command ends with this code, and prints all of these texts.
#[track_caller]
fn check(desk: &Desk, code: i32, args: &[&str], expected: &[&str]) {
    let said = desk.run(args);
    assert_eq!(said.code, code, "{args:?}: {}{}", said.out, said.err);
    for text in expected {
        assert!(said.err.contains(text), "{args:?} does not say {text:?}: {}", said.err);
    }
    let lines = said.err.lines().filter(|line| line.starts_with("vault: ")).count();
    assert_eq!(lines, 1, "one message: {}", said.err);
}

#[test]
fn a_wrong_password_or_path_is_told_with_the_way_out() {
    let desk = desk();
    let wrong = said(&desk.command(&["list"]).env("VAULT_PASSWORD", "wrong").output().unwrap());
    assert_eq!(wrong.code, 12);
    assert!(
        wrong.err.contains("the password is wrong") && wrong.err.contains("A recovery key is accepted"),
        "{}",
        wrong.err
    );
    check(&desk, 1, &["snapshot", "not there"], &["there is no", "not there", "No snapshot was made"]);
    check(&desk, 1, &["cat", "latest:source/none"], &["there is no source/none", "vault ls"]);
    check(&desk, 1, &["restore", "latest:none", "--to", "x"], &["there is no none", "vault find none"]);
    check(&desk, 1, &["restore", "2020-01-01", "--to", "x"], &["vault list"]);
    check(
        &desk,
        10,
        &["list", "--repo", "/not/there"],
        &["there is no folder /not/there", "vault init --repo /not/there"],
    );
    let source = desk.source();
    check(&desk, 10, &["list", "--repo", source.to_str().unwrap()], &["there is no vault in", "vault init --repo"]);
    assert_eq!(desk.json(&["list"])[0]["snapshots"].as_array().unwrap().len(), 1);
}

#[test]
fn a_folder_with_something_in_it_is_left_as_it_is() {
    let desk = desk();
    let full = desk.path("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("own"), "own").unwrap();
    let to = full.to_str().unwrap();
    fs::create_dir(full.join("source")).unwrap();
    fs::write(full.join("source/own"), "own").unwrap();
    let told = ["full/source is there already and is not empty", "--overwrite always|if-changed|keep-newer-copy|never"];
    check(&desk, 1, &["restore", "latest", "--to", to], &told);
    fs::remove_dir_all(full.join("source")).unwrap();
    check(&desk, 1, &["init", "--repo", to], &["not empty", "Nothing was changed"]);
    check(&desk, 1, &["init"], &["there is a vault in", "Nothing was changed"]);
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
}

/// The paths below a folder, and the bytes of its files.
fn everything(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found.insert(path.clone(), fs::read(&path).unwrap_or_default());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

#[test]
fn nothing_but_its_own_objects_is_written_into_a_vault() {
    let desk = desk();
    let (own, other) = (desk.path("store"), desk.path("other"));
    desk.ok(&["init", "--repo", other.to_str().unwrap()]);
    #[cfg(unix)]
    std::os::unix::fs::symlink(&own, desk.path("link")).unwrap();
    #[cfg(not(unix))]
    fs::create_dir(desk.path("link")).unwrap();
    let list = desk.path("list.csv");
    fs::write(&list, format!("path,vault\n{},{}\n", desk.source().display(), own.display())).unwrap();
    let before = (everything(&own), everything(&other));
    let mut places = vec![own.clone(), own.join("packs"), other.clone(), other.join("keys/deep/er")];
    if cfg!(unix) {
        places.push(desk.path("link"));
        places.push(desk.path("link/log"));
    }
    for place in &places {
        let at = |name: &str| place.join(name).to_str().unwrap().to_owned();
        let (list, new) = (list.to_str().unwrap(), at("new"));
        for args in [
            &["export", "latest", "--tar", &new][..],
            &["man", &new],
            &["config", "init", "--config", &new],
            &["run", "--list", list, "--report", &new],
            &["mirror", "--to", &new],
            &["init", "--repo", &new],
            &["snapshot", ".", "--init", "--repo", &new],
            &["copy", "--to", &new],
            &["restore", "latest", "--to", &new],
            &["ui", "--no-open", "--socket", &new],
        ] {
            check(&desk, 1, args, &[" is a vault, and ", " into a vault"]);
        }
    }
    // What a command keeps for the next one goes elsewhere.
    let said = desk.run(&["list", "--state", own.join("state").to_str().unwrap()]);
    assert!(said.code == 0 && said.err.contains("into a vault"), "{}{}", said.out, said.err);
    assert_eq!((everything(&own), everything(&other)), before);
    // Beside a vault all of it is as before, and a vault in a vault from before can be read.
    let inner = own.join("inner");
    desk.ok(&["mirror", "--to", desk.path("mirror").to_str().unwrap()]);
    fs::rename(desk.path("mirror"), &inner).unwrap();
    desk.ok(&["list", "--repo", inner.to_str().unwrap()]);
    desk.ok(&["mirror", "--verify", "--to", inner.to_str().unwrap()]);
    check(&desk, 1, &["mirror", "--to", inner.to_str().unwrap()], &["into a vault"]);
    for args in [&["man", desk.path("pages").to_str().unwrap()][..], &["export", "latest", "--tar", "x.tar"]] {
        desk.ok(args);
    }
}

#[test]
fn a_damaged_text_beside_the_vault_is_told_and_written_anew() {
    let desk = desk();
    let vault = desk.path("vault");
    let repo = ["--repo", vault.to_str().unwrap()];
    let path = vault.join("RESTORE.txt");
    desk.ok(&[&["init"], &repo[..]].concat());
    desk.ok(&[&["snapshot", "."], &repo[..]].concat());
    let text = fs::read_to_string(&path).unwrap();
    let warns = |expected: bool| {
        let said = desk.run(&[&["check"], &repo[..]].concat());
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        assert_eq!(said.err.contains("RESTORE.txt") && said.err.contains("vault repair"), expected, "{}", said.err);
        assert_eq!(desk.json(&[&["check"], &repo[..]].concat())[0]["restore_text"].is_string(), expected);
    };
    let repair = |option| desk.ok(&[&["repair", option], &repo[..]].concat());
    warns(false);
    // It may be missing, and nobody writes it unasked.
    fs::remove_file(&path).unwrap();
    warns(false);
    assert!(repair("--yes").contains("Nothing is damaged.") && !path.exists());
    let damaged = vec![0; text.len()];
    fs::write(&path, &damaged).unwrap();
    warns(true);
    assert!(repair("--dry-run").contains("make again   RESTORE.txt: it is no text"));
    assert_eq!(fs::read(&path).unwrap(), damaged);
    assert!(repair("--yes").contains("1 object moved to quarantine/"));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(fs::read(vault.join("quarantine/RESTORE.txt")).unwrap(), damaged);
    warns(false);
    // A mirror is only read.
    let mirror = desk.path("mirror");
    desk.ok(&[&["mirror", "--to", mirror.to_str().unwrap()], &repo[..]].concat());
    fs::write(mirror.join("RESTORE.txt"), "").unwrap();
    let said = desk.run(&["check", "--repo", mirror.to_str().unwrap()]);
    assert!(said.code == 0 && said.err.contains("it may be deleted"), "{}{}", said.out, said.err);
    desk.run(&["repair", "--yes", "--repo", mirror.to_str().unwrap()]);
    assert_eq!(fs::read(mirror.join("RESTORE.txt")).unwrap(), b"");
}

#[test]
fn a_vault_of_a_newer_version_is_not_touched() {
    let desk = desk();
    let path = desk.path("store/VAULT");
    let text = fs::read_to_string(&path).unwrap().replace("format 1\n", "format 2\n");
    let before = &text[..text.rfind("blake3 ").unwrap()];
    fs::write(&path, format!("{before}blake3 {}\n", blake3::hash(before.as_bytes()))).unwrap();
    for args in
        [&["list"][..], &["snapshot", "."], &["check"], &["restore", "latest", "--to", "x"], &["repair", "--yes"]]
    {
        check(&desk, 1, args, &["newer"]);
    }
    assert!(fs::read_to_string(&path).unwrap().contains("format 2\n"), "it is unchanged");
}

/// Runs `mount`; `false` if that is not allowed.
fn mount(args: &[&str], folder: &Path) -> bool {
    let mounted = Command::new("mount").args(args).arg(folder).stderr(Stdio::null()).status();
    let mounted = mounted.is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("NOTICE: not tried: only root may mount");
    }
    mounted
}

/// Unmounts a folder when it is dropped, even if a check fails.
struct Mounted<'p>(&'p Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_costs_nothing_that_was_stored() {
    let desk = desk();
    let small = desk.path("small");
    fs::create_dir(&small).unwrap();
    if !mount(&["-t", "tmpfs", "-o", "size=600k", "tmpfs"], &small) {
        return;
    }
    let _mounted = Mounted(&small);
    let back = small.join("back");
    let back = back.to_str().unwrap();
    check(&desk, 1, &["restore", "latest", "--to", back], &["No space left", "--overwrite if-changed"]);
    // As the message says: with room, it continues.
    let remounted = Command::new("mount").args(["-o", "remount,size=8m"]).arg(&small).status().unwrap();
    assert!(remounted.success());
    desk.ok(&["restore", "latest", "--to", back, "--overwrite", "if-changed"]);
    assert_eq!(fs::read(small.join("back/source/large")).unwrap(), bytes(1, 2_000_000));
    // The vault's own disk.
    let store = small.join("store");
    let store = store.to_str().unwrap();
    desk.ok(&["init", "--repo", store]);
    desk.ok(&["snapshot", "--repo", store, ".", "--exclude", "large"]);
    fs::write(small.join("filler"), vec![7; (5 << 20) + 400_000]).unwrap();
    check(
        &desk,
        1,
        &["snapshot", "--repo", store, "."],
        &["no space is left in the store", "run the same command again"],
    );
    desk.ok(&["check", "--read-data", "--repo", store]);
    assert_eq!(desk.json(&["list", "--repo", store])[0]["snapshots"].as_array().unwrap().len(), 1);
    fs::remove_file(small.join("filler")).unwrap();
    desk.ok(&["snapshot", "--repo", store, "."]);
    desk.ok(&["check", "--read-data", "--repo", store]);
}

/// The state folder is on a disk that becomes full at any moment: before there is a catalogue, while it grows, or
/// afterwards.
#[test]
fn a_full_disk_under_the_state_folder_stops_no_reader() {
    let desk = desk();
    for number in 0..200 {
        fs::write(desk.source().join(format!("f{number}")), bytes(number, 3000)).unwrap();
    }
    desk.take("2026-01-02");
    let (disk, temporary) = (desk.path("disk"), desk.path("temporary"));
    fs::create_dir(&disk).unwrap();
    fs::create_dir(&temporary).unwrap();
    if !mount(&["-t", "tmpfs", "-o", "size=1500k", "tmpfs"], &disk) {
        return;
    }
    let _mounted = Mounted(&disk);
    let state = disk.join("state");
    let at = |args: &[&str]| {
        let mut command = desk.command(args);
        said(&command.env("VAULT_STATE_DIR", &state).env("TMPDIR", &temporary).output().unwrap())
    };
    let readers = [
        &["list"][..],
        &["check"],
        &["stats"],
        &["find", "f1*"],
        &["cat", "latest:source/letter"],
        &["drill", "--files", "2"],
        &["key", "list"],
        &["client", "list"],
        &["repair", "--dry-run"],
        &["prune", "--keep", "1", "--dry-run"],
    ];
    let mut warned = 0;
    for (first, free) in [("list", 0), ("cat", 130), ("check", 900)] {
        let _ = fs::remove_dir_all(&state);
        fs::write(disk.join("fill"), vec![7; (1500 - free) << 10]).unwrap_or(());
        let first = readers.iter().find(|args| args[0] == first).unwrap();
        assert_eq!(at(first).code, 0, "{free}: {first:?}");
        // The rest of the disk.
        let _ = fs::write(disk.join("rest"), vec![7; 2 << 20]);
        for args in readers {
            let told = at(args);
            assert_eq!(told.code, 0, "{free}: {args:?}: {}", told.err);
            assert!(!told.err.contains("damage"), "{free}: {args:?}: {}", told.err);
            // Only a drill has a result that is worth remembering.
            for line in told.err.lines().filter(|line| !line.contains("what came of this")) {
                assert!(line.contains("No space left") && line.contains("a temporary folder is used"), "{line}");
                warned += 1;
            }
        }
        let told = at(&["snapshot", "."]);
        let state = state.to_str().unwrap();
        assert!(told.code == 1 && told.err.contains(state), "{free}: {}", told.err);
        assert!(told.err.contains("No space left") && told.err.contains("--state DIR"), "{free}: {}", told.err);
        assert_eq!(told.err.lines().count(), 2, "{free}: {}", told.err);
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
        fs::remove_file(disk.join("rest")).unwrap();
        fs::remove_file(disk.join("fill")).unwrap();
        for args in [&["list"][..], &["snapshot", "."], &["check"]] {
            let told = at(args);
            assert!(told.code == 0 && told.err.is_empty(), "{free}: {args:?}: {}", told.err);
        }
    }
    assert!(warned > 10, "{warned} warnings: the disk was hardly ever full");
}

/// A file of the state folder, or one that the user names, is longer than any memory.
#[test]
fn no_file_that_has_grown_is_read_whole() {
    let desk = desk();
    desk.ok(&["check"]);
    desk.ok(&["drill", "--files", "2"]);
    let grow = |path: &Path| fs::File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
    let files = |folder: &Path| {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_file() && path.file_name().unwrap() != "catalogue.redb").collect::<Vec<_>>()
    };
    let known = fs::read_dir(desk.path("state")).unwrap().map(|entry| entry.unwrap().path());
    let known: Vec<_> = known.filter(|path| path.is_dir()).flat_map(|path| files(&path)).collect();
    assert!(["client", "seen", "drill"].iter().all(|name| known.iter().any(|path| path.ends_with(name))), "{known:?}");
    for path in known {
        let before = fs::read(&path).unwrap();
        grow(&path);
        // What the machine knew and no longer does is told until it is accepted.
        let is_told = ["findings", "seen"].iter().any(|name| path.ends_with(name));
        assert_eq!(desk.run(&["list"]).code, if is_told { 3 } else { 0 }, "{path:?}");
        desk.ok(&["snapshot", ".", "--skip-if-unchanged"]);
        desk.accept_all();
        fs::write(&path, before).unwrap();
    }
    let long = desk.path("long");
    fs::write(&long, "").unwrap();
    grow(&long);
    let long = long.to_str().unwrap();
    for args in [
        &["config", "check", "--config", long][..],
        &["run", "--list", long, "--now"],
        &["snapshot", ".", "--exclude-from", long],
        &["snapshot", "--files-from", long],
        &["key", "add", "--new-password-file", long],
    ] {
        check(&desk, 1, args, &["it is too long"]);
    }
    let opened = desk.command(&["list", "--password-file", long]).env_remove("VAULT_PASSWORD").output().unwrap();
    assert!(said(&opened).err.contains("it is too long"), "{}", said(&opened).err);
}

#[test]
fn a_disk_that_is_read_only_can_still_be_read() {
    let desk = desk();
    desk.take("2026-01-02"); // so that there is something to forget
    let (store, view) = (desk.path("store"), desk.path("view"));
    fs::create_dir(&view).unwrap();
    if !mount(&["--bind", store.to_str().unwrap()], &view) {
        return;
    }
    let _mounted = Mounted(&view);
    let remounted = Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&view).status().unwrap();
    assert!(remounted.success());
    let view = view.to_str().unwrap();
    for args in [&["list"][..], &["find", "letter"], &["check", "--read-data"], &["stats"], &["du"], &["key", "list"]] {
        desk.ok(&[args, &["--repo", view][..]].concat());
    }
    let back = desk.path("back");
    desk.ok(&["restore", "latest", "--to", back.to_str().unwrap(), "--repo", view]);
    assert_eq!(fs::read_to_string(back.join("source/letter")).unwrap(), "Dear");
    let told = ["the store is read-only", "make its folder writable"];
    for args in [&["snapshot", "."][..], &["prune", "--keep", "1"], &["forget", "latest"], &["pin", "latest"]] {
        check(&desk, 1, &[args, &["--repo", view][..]].concat(), &told);
    }
    let added = desk.command(&["key", "add", "--repo", view]).env("VAULT_NEW_PASSWORD", PASSWORD).output().unwrap();
    let added = said(&added);
    assert!(added.code == 1 && added.err.contains(told[0]), "{}", added.err);
}

/// Even with the highest possible limit of open files, a restore may not get far, but its messages name the limit: it
/// ends if the store met it, and continues, naming the failed files, if the target did. Which comes first is chance.
#[test]
fn too_few_open_files_are_not_called_damage() {
    let desk = Desk::new();
    let mut deep = desk.source();
    for number in 0..40 {
        deep.push("d");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f"), bytes(number, 3000)).unwrap();
    }
    desk.take("2026-01-01");
    let mut stopped = 0;
    for most in [9, 12, 20, 40] {
        let args = ["restore", "latest", "--to", &format!("out{most}")];
        let said = said(&desk.limited(&format!("-n {most}"), &args).output().unwrap());
        assert!(matches!(said.code, 1 | 3), "{most}: {} {}", said.code, said.err);
        assert!(said.err.to_lowercase().contains("open files"), "{most}: {}", said.err);
        assert!(!said.err.contains("damage"), "{most}: {}", said.err);
        stopped += u64::from(said.err.contains("ulimit -n"));
    }
    assert!(stopped > 0, "none met it in the store");
    desk.ok(&["restore", "latest", "--to", "whole"]);
    desk.ok(&["check", "--read-data"]);
}

/// Runs the program with a limit that `prlimit` sets; as a normal user if `user` is set. `None` if that is not
/// possible.
#[cfg(target_os = "linux")]
fn limited(desk: &Desk, limit: &str, user: bool, args: &[&str]) -> Option<crate::support::binary::Said> {
    let command = desk.command(args);
    let mut limited = std::process::Command::new("prlimit");
    limited.arg(limit).arg(command.get_program()).args(command.get_args()).current_dir(desk.source());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    if user {
        std::os::unix::process::CommandExt::uid(&mut limited, NOBODY);
        std::os::unix::process::CommandExt::gid(&mut limited, NOBODY);
    }
    limited.output().ok().map(|output| crate::support::binary::said(&output))
}

/// A user as whom nothing else runs.
#[cfg(target_os = "linux")]
const NOBODY: u32 = 64_321;

/// Commands that need much, and do no harm.
#[cfg(target_os = "linux")]
const DEMANDING: [&[&str]; 5] = [
    &["list"],
    &["snapshot", ".", "--threads", "4"],
    &["restore", "latest", "--to", "../back", "--overwrite", "if-changed", "--threads", "4"],
    &["check", "--read-data", "--threads", "4"],
    &["prune", "--keep", "100", "--threads", "4"],
];

/// The lack is named, with the way out, in every step from nothing to enough; it is never called damage, nor a bug.
#[cfg(target_os = "linux")]
#[test]
fn a_lack_of_memory_is_called_that() {
    let desk = Desk::new();
    desk.write("large", bytes(1, 3 << 20));
    desk.take("2026-01-01");
    let version = |kib: u64| limited(&desk, &format!("--as={}", kib << 10), false, &["version"]);
    if version(4 << 20).is_none_or(|said| said.code != 0) {
        return eprintln!("NOTICE: not tried: there is no prlimit");
    }
    // Below that the system cannot even load the program.
    let least =
        (1_u64..1 << 12).map(|step| step << 12).find(|kib| version(*kib).is_some_and(|said| said.code == 0)).unwrap();
    let (mut lacking, mut enough) = (0, 0);
    for step in 0..5 {
        let kib = least + (step << 15);
        for args in DEMANDING {
            desk.write("large", bytes(step, 3 << 20));
            let said = limited(&desk, &format!("--as={}", kib << 10), false, args).unwrap();
            if said.code == 0 {
                enough += 1;
                continue;
            }
            lacking += 1;
            assert_eq!(said.code, 1, "{kib} KiB {args:?}: {}{}", said.out, said.err);
            let is_named = ["memory", "threads"].iter().any(|word| said.err.contains(word));
            assert!(
                is_named && said.err.contains("Nothing that was stored is lost"),
                "{kib} KiB {args:?}: {}",
                said.err
            );
        }
    }
    assert!(lacking > 0 && enough > 0, "{lacking} {enough}");
    desk.ok(&["check", "--read-data"]);
}

/// The same for threads.
#[cfg(target_os = "linux")]
#[test]
fn a_lack_of_threads_is_called_that() {
    let desk = Desk::new();
    desk.write("file", bytes(1, 1 << 20));
    desk.take("2026-01-01");
    if !rustix::process::geteuid().is_root() {
        return eprintln!("NOTICE: not tried: only root may be a user who runs nothing else");
    }
    let owned =
        std::process::Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(desk.path("")).status();
    assert!(owned.unwrap().success());
    if limited(&desk, "--nproc=1000", true, &["list"]).is_none_or(|said| said.code != 0) {
        return eprintln!("NOTICE: not tried: a normal user cannot run this");
    }
    let (mut lacking, mut enough) = (0, 0);
    for most in [1, 2, 3, 4, 6, 12] {
        for args in DEMANDING {
            let said = limited(&desk, &format!("--nproc={most}"), true, args).unwrap();
            if said.code == 0 {
                enough += 1;
                continue;
            }
            lacking += 1;
            assert_eq!(said.code, 1, "{most} {args:?}: {}{}", said.out, said.err);
            assert!(said.err.contains("threads"), "{most} {args:?}: {}", said.err);
        }
    }
    assert!(lacking > 0 && enough > 0, "{lacking} {enough}");
}

#[test]
fn an_init_that_was_interrupted_goes_on_and_the_vault_is_sound() {
    let desk = Desk::new();
    let place = desk.path("begun");
    let repo = place.to_str().unwrap();
    desk.ok(&["init", "--repo", repo]);
    let cut = |copies: usize| {
        // The texts beside the vault come last, too.
        let at_top = fs::read_dir(&place).unwrap().flatten().filter(|entry| entry.path().is_file());
        at_top.for_each(|entry| fs::remove_file(entry.path()).unwrap());
        let keys: Vec<PathBuf> = everything(&place.join("keys")).into_keys().collect();
        keys.iter().skip(copies).for_each(|key| fs::remove_file(place.join("keys").join(key)).unwrap());
    };
    cut(1);
    let said = said(&desk.command(&["init", "--repo", repo]).env("VAULT_PASSWORD", "another").output().unwrap());
    assert!(said.code == 1 && said.err.contains("was interrupted"), "{}{}", said.out, said.err);
    for init in [&["init"][..], &["snapshot", "--init", "."]] {
        // Someone looked into it meanwhile.
        desk.run(&["list", "--repo", repo]);
        desk.ok(&[init, &["--repo", repo]].concat());
        desk.ok(&["check", "--repo", repo]);
        if init == ["init"] {
            cut(2);
        }
    }
    check(&desk, 1, &["init", "--repo", repo], &["there is a vault in", "already"]);
}

#[test]
fn a_dash_is_no_place() {
    let desk = desk();
    for args in [
        &["init", "--repo", "-"][..],
        &["list", "--repo", "-"],
        &["mirror", "--to", "-"],
        &["copy", "--to", "-"],
        &["init", "--repo", "elsewhere", "--like", "-"],
        &["restore", "latest", "--to", "-"],
        &["list", "--state", "-"],
    ] {
        check(&desk, 2, args, &["'-' is no place for", "./-"]);
    }
    assert!(!desk.source().join("-").exists() && !desk.source().join("elsewhere").exists());
}

#[test]
fn a_folder_for_temporary_files_that_is_not_there_is_told_and_not_made() {
    let desk = desk();
    let missing = desk.path("not/there");
    let said = said(&desk.command(&["drill"]).env("TMPDIR", &missing).output().unwrap());
    assert!(said.code == 1 && said.err.contains("cannot make a scratch folder in"), "{}{}", said.out, said.err);
    assert!(!desk.path("not").exists());
}
