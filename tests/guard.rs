//! Files that a restore removes and overwrites, and those that it never does: with the program, and on random trees.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use vault::engine::patterns::exclude::ExcludeOptions;
use vault::engine::query::browse;
use vault::engine::restore::{Change, Kept, Mark, Overwrite, RestoreOptions, RestoreReport, Target, restore_telling};
use vault::engine::snapshot::snapshot;
use vault::progress::Silent;
use vault::store::Store;
use vault::store::dir::DirStore;
use vault::vault::Vault;

use crate::support::binary::{Desk, Said, said};
use crate::support::source::bytes;
use crate::support::terminal::{Terminal, can_drive};
use crate::support::{campaign, create_vault, now, open_vault, options, scratch, small_chunks};

/// Arguments of a restore that deletes.
const DELETE: &[&str] = &["restore", "latest", "--in-place", "--delete", "--yes"];

/// A mounted file system, unmounted when this is dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts with these arguments; `None` if that is not allowed.
    pub fn new(args: &[&str], folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let mounted = Command::new("mount").args(args).arg(folder).stderr(Stdio::null()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder.to_owned()));
        }
        eprintln!("NOTICE: not tried: only root may mount");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// The reason why each path was kept.
fn kept(desk: &Desk, args: &[&str]) -> BTreeMap<String, String> {
    let report = desk.json(args).pop().unwrap();
    let kept = report["kept"].as_array().unwrap().iter();
    kept.map(|kept| (kept["path"].as_str().unwrap().to_owned(), kept["why"].as_str().unwrap().to_owned())).collect()
}

fn reasons(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(path, why)| (format!("source/{path}"), (*why).to_owned())).collect()
}

#[test]
fn the_vault_and_the_state_below_their_source_stay() {
    let desk = Desk::new();
    desk.write("a", "a");
    desk.write("d/e", "e");
    let (store, state) = (desk.source().join("d/v"), desk.source().join("st"));
    fs::rename(desk.path("store"), &store).unwrap();
    let run = |args: &[&str]| {
        let mut command = desk.command(args);
        said(&command.env("VAULT_REPO", &store).env("VAULT_STATE_DIR", &state).output().unwrap())
    };
    assert_eq!(run(&["snapshot", ".", "--source", "source"]).code, 0);
    desk.write("d/extra", "x");
    let done = run(DELETE);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("source/d/v: it is the vault itself"), "{}", done.out);
    assert!(done.out.contains("source/st") && !desk.source().join("d/extra").exists());
    assert_eq!(run(&["check"]).code, 0);
    // Also if the snapshot is older than the vault's place, and a folder in it became the vault.
    fs::rename(&store, desk.path("store")).unwrap();
    fs::create_dir(&store).unwrap();
    fs::write(store.join("file"), "x").unwrap();
    fs::rename(&state, desk.path("state")).unwrap();
    desk.ok(&["snapshot", ".", "--source", "source"]);
    fs::remove_dir_all(&store).unwrap();
    fs::rename(desk.path("store"), &store).unwrap();
    let done = said(&desk.command(DELETE).env("VAULT_REPO", &store).output().unwrap());
    assert_eq!(done.code, 3, "{}{}", done.out, done.err);
    assert!(store.join("VAULT").exists() && !store.join("file").exists());
    // A link to it stays as well, since the vault is opened through it.
    let link = desk.source().join("link");
    symlink(&store, &link).unwrap();
    said(&desk.command(DELETE).env("VAULT_REPO", &link).output().unwrap());
    assert!(link.exists());
}

/// A disk that was mounted below a source, and no longer is: its files are not taken for deleted ones.
#[test]
fn a_disk_below_a_source_that_is_not_mounted_is_not_taken_for_empty() {
    let desk = Desk::new();
    desk.write("a", "a");
    let disk = desk.source().join("home/disk");
    fs::create_dir_all(&disk).unwrap();
    let Some(mounted) = Mounted::new(&["-t", "tmpfs", "tmpfs"], &disk) else { return };
    fs::write(disk.join("photo"), "x").unwrap();
    desk.ok(&["snapshot", "."]);
    drop(mounted);
    for _ in 0..2 {
        let taken = desk.run(&["snapshot", "."]);
        assert!(taken.code == 3 && taken.err.contains("home/disk: it was a mount point"), "{}{}", taken.out, taken.err);
    }
    // The last complete snapshot stays, and files that appear there later are not deleted because the partial one does
    // not have them.
    desk.ok(&["prune", "--keep", "1", "--yes"]);
    desk.ok(&["cat", "latest:source/home/disk/photo"]);
    let listed: serde_json::Value = serde_json::from_str(&desk.run(&["list", "--json"]).out).unwrap();
    let all = listed["snapshots"].as_array().unwrap();
    let partial: Vec<_> = all.iter().filter(|one| one["verdict"] == "partial").collect();
    assert!(all.len() == 2 && partial.len() == 1, "{listed}");
    fs::write(disk.join("new"), "x").unwrap();
    let id = partial[0]["id"].as_str().unwrap();
    desk.run(&["restore", id, "--in-place", "--delete", "--yes"]);
    assert!(disk.join("new").exists());
    fs::remove_file(disk.join("new")).unwrap();
    // If other file systems are left out, or the change is accepted, there is no warning.
    desk.ok(&["snapshot", ".", "--one-file-system", "--source", "other"]);
    desk.ok(&["snapshot", ".", "--allow-empty"]);
    desk.ok(&["snapshot", "."]);
}

/// Systems remove the folder of a removable disk with the disk.
#[test]
fn a_removable_disk_that_is_taken_out_is_not_taken_for_deleted() {
    let desk = Desk::new();
    // A user who exists on no system.
    let user = Path::new("/media/vault test of removable disks");
    let disk = user.join("disk");
    if fs::create_dir_all(&disk).is_err() {
        return eprintln!("NOTICE: not tried: only root may write into /media");
    }
    fs::write(user.join("a"), "a").unwrap();
    let Some(mounted) = Mounted::new(&["-t", "tmpfs", "tmpfs"], &disk) else { return };
    fs::write(disk.join("photo"), "x").unwrap();
    let take = |more: &[&str]| desk.run(&[&["snapshot", "--source", "disks", user.to_str().unwrap()], more].concat());
    assert_eq!(take(&[]).code, 0);
    drop(mounted);
    fs::remove_dir(&disk).unwrap();
    for _ in 0..2 {
        let taken = take(&[]);
        assert!(taken.code == 3 && taken.err.contains("disk: a disk was mounted here"), "{}{}", taken.out, taken.err);
    }
    // Snapshots without the disk take no slot.
    desk.ok(&["prune", "--keep", "1", "--yes"]);
    desk.ok(&["cat", "latest:vault test of removable disks/disk/photo", "--source", "disks"]);
    // It comes back, and goes for good.
    fs::create_dir(&disk).unwrap();
    let Some(mounted) = Mounted::new(&["-t", "tmpfs", "tmpfs"], &disk) else { return };
    assert_eq!(take(&[]).code, 0);
    drop(mounted);
    fs::remove_dir(&disk).unwrap();
    assert_eq!(take(&["--allow-empty"]).code, 0);
    assert_eq!(take(&[]).code, 0);
    fs::remove_dir_all(user).unwrap();
}

#[test]
fn a_root_that_leads_elsewhere_today_loses_nothing() {
    let desk = Desk::new();
    desk.write("a", "a");
    desk.take("2026-01-01");
    let (away, source) = (desk.path("away"), desk.source());
    fs::rename(&source, &away).unwrap();
    symlink(&away, &source).unwrap();
    fs::write(away.join("of another place"), "x").unwrap();
    fs::write(away.join("a"), "changed").unwrap();
    let delete =
        |more: &[&str]| said(&desk.command(&[DELETE, more].concat()).current_dir(desk.path("")).output().unwrap());
    let done = delete(&[]);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    assert!(away.join("of another place").exists() && done.out.contains("a link leads here"), "{}", done.out);
    assert_eq!(fs::read(away.join("a")).unwrap(), b"a");
    // A source that is named by a link is kept as the folder behind it. Files in that folder are deleted as long as the
    // link leads there.
    desk.ok(&["snapshot", source.to_str().unwrap(), "--source", "link"]);
    fs::write(away.join("new"), "x").unwrap();
    let done = delete(&["--source", "link"]);
    assert!(done.code == 0 && !away.join("new").exists(), "{}{}", done.out, done.err);
    let other = desk.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("mine"), "x").unwrap();
    fs::remove_file(&source).unwrap();
    symlink(&other, &source).unwrap();
    let done = delete(&["--source", "link"]);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    assert!(other.join("mine").exists() && other.join("a").exists());
}

#[test]
fn folders_of_other_vaults_stay_as_they_are() {
    let desk = Desk::new();
    desk.write("a", "a");
    desk.write("inner/VAULT", "vault archive, format 1\nold");
    desk.write("inner/packs/00/old", "old");
    desk.write("inner/keys/removed", "a key that was removed since");
    desk.take("2026-01-01");
    fs::remove_file(desk.source().join("inner/keys/removed")).unwrap();
    desk.write("inner/VAULT", "vault archive, format 1\nnew");
    desk.write("inner/packs/00/new", "new");
    desk.write("other/deep/VAULT", "vault archive, format 7\n");
    desk.write("other/deep/packs/x", "x");
    desk.write("other/beside", "x");
    let done = desk.run(DELETE);
    assert_eq!(done.code, 3, "{}", done.out);
    let text = |path: &str| fs::read_to_string(desk.source().join(path)).unwrap();
    assert!(text("inner/VAULT").ends_with("new"), "nothing in it is set back");
    assert_eq!((text("inner/packs/00/new"), text("other/deep/packs/x")), ("new".to_owned(), "x".to_owned()));
    assert!(!desk.source().join("other/beside").exists());
    assert!(!desk.source().join("inner/keys/removed").exists(), "nothing is added to it");
    // It is restored whole into an empty place.
    desk.ok(&["restore", "latest", "--to", "../back"]);
    assert!(fs::read_to_string(desk.path("back/source/inner/VAULT")).unwrap().ends_with("old"));
    // A file does not replace a folder with a vault in it.
    fs::remove_dir_all(desk.source().join("other")).unwrap();
    desk.write("other", "a file");
    desk.take("2026-01-02");
    fs::remove_file(desk.source().join("other")).unwrap();
    desk.write("other/deep/VAULT", "vault archive, format 1\n");
    desk.write("other/beside", "x");
    assert_eq!(desk.run(DELETE).code, 3);
    assert!(desk.source().join("other/deep/VAULT").exists() && desk.source().join("other/beside").exists());
}

#[test]
fn part_of_another_vault_stays_too() {
    let desk = Desk::new();
    desk.write("a", "a");
    desk.take("2026-01-01");
    let name = "0123456789abcdef0123456789abcdef";
    let parts = [
        format!("keys/{name}"),
        format!("log/{name}"),
        format!("packs/01/{name}"),
        format!("meta/01/{name}"),
        format!("index/01/{name}"),
    ];
    for (at, part) in parts.iter().enumerate() {
        desk.write(&format!("cloud {at}/{part}"), "it arrived first");
    }
    let alike = ["plain/log/today", "plain/packs/01/x", "plain/packs/other/0123456789abcdef0123456789abcdef"];
    for path in alike {
        desk.write(path, "x");
    }
    let expected: Vec<_> = (0..parts.len()).map(|at| format!("cloud {at}")).collect();
    let expected: Vec<_> = expected.iter().map(|path| (path.as_str(), "other-vault")).collect();
    assert_eq!(kept(&desk, &[DELETE, &["--dry-run"]].concat()), reasons(&expected));
    assert_eq!(kept(&desk, DELETE), reasons(&expected));
    for (at, part) in parts.iter().enumerate() {
        assert!(desk.source().join(format!("cloud {at}/{part}")).exists(), "{part}");
    }
    assert!(!desk.source().join("plain").exists(), "such names alone are no vault");
}

#[test]
fn what_was_left_out_stays_unless_it_is_asked_for() {
    let desk = Desk::new();
    desk.write("a", "a");
    desk.write("tagged/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55");
    desk.write("tagged/x", "x");
    desk.write("marked/.skip", "");
    desk.write("marked/x", "x");
    desk.write("sub/.vaultignore", "/anchored\n");
    desk.write("sub/anchored", "x");
    desk.write("x.tmp", "x");
    desk.write("listed", "x");
    desk.write("large", vec![1; 5000]);
    desk.write("shrunk", vec![1; 5000]);
    fs::write(desk.path("patterns"), "listed\n").unwrap();
    let take = ["snapshot", ".", "--source", "source", "--exclude", "*.tmp", "--exclude-from", "../patterns"];
    let more = ["--exclude-caches", "--exclude-if-present", ".skip", "--exclude-larger-than", "4000"];
    desk.ok(&[&take[..], &more].concat());
    // Neither a smaller size nor a missing mark makes it superfluous.
    desk.write("shrunk", "x");
    fs::remove_file(desk.source().join("tagged/CACHEDIR.TAG")).unwrap();
    fs::remove_file(desk.source().join("sub/.vaultignore")).unwrap();
    desk.write("anchored", "not the one that was left out");
    desk.write("new/x.tmp", "x");
    desk.write("new/y", "x");
    let expected = ["large", "listed", "marked/x", "new/x.tmp", "shrunk", "sub/anchored", "tagged/x", "x.tmp"];
    let expected: Vec<_> = expected.iter().map(|path| (*path, "left-out")).collect();
    assert_eq!(kept(&desk, &[DELETE, &["--dry-run"]].concat()), reasons(&expected));
    assert_eq!(kept(&desk, DELETE), reasons(&expected));
    assert!(!desk.source().join("anchored").exists() && !desk.source().join("new/y").exists());
    let done = desk.json(&[DELETE, &["--delete-excluded"]].concat());
    assert_eq!(done[0]["deleted"], 9);
    assert!(!desk.source().join("tagged/x").exists() && !desk.source().join("x.tmp").exists());
}

#[test]
fn rules_of_today_and_options_of_the_restore_protect_too() {
    let desk = Desk::new();
    desk.write("a", "a");
    desk.write("gives-way", "file");
    desk.take("2026-01-01");
    desk.write(".vaultignore", "*.own\n");
    desk.write("x.own", "x");
    desk.write("y.keep", "y");
    fs::remove_file(desk.source().join("gives-way")).unwrap();
    desk.write("gives-way/deep/z.keep", "z");
    desk.write("gives-way/other", "z");
    let found = kept_with(&desk, 3, &[DELETE, &["--exclude", "*.keep"]].concat());
    let expected = [("gives-way/deep/z.keep", "excluded"), ("x.own", "left-out-today"), ("y.keep", "excluded")];
    assert_eq!(found, reasons(&expected));
    assert!(desk.source().join("gives-way/other").exists(), "a folder with something protected in it stays whole");
    // The same with the options in the configuration.
    desk.write("z.conf", "z");
    let config = format!(
        "[vaults.one]\npath = {:?}\n[sources.source]\npaths = [{:?}]\nexclude = [\"*.conf\"]\n",
        desk.path("store"),
        desk.source()
    );
    fs::write(desk.path("own.toml"), config).unwrap();
    let found = kept_with(&desk, 3, &[DELETE, &["--exclude", "*.keep", "--config", "../own.toml"]].concat());
    assert_eq!(found.get("source/z.conf").map(String::as_str), Some("left-out-today"));
    // A configuration in the source is not deleted.
    fs::copy(desk.path("own.toml"), desk.source().join("here.toml")).unwrap();
    let found = kept_with(&desk, 3, &[DELETE, &["--exclude", "*.keep", "--config", "here.toml"]].concat());
    assert_eq!(found.get("source/here.toml").map(String::as_str), Some("configuration"));
}

/// As [`kept`], with this exit code.
#[track_caller]
fn kept_with(desk: &Desk, code: i32, args: &[&str]) -> BTreeMap<String, String> {
    let said = desk.run(&[args, &["--json"]].concat());
    assert_eq!(said.code, code, "{}{}", said.out, said.err);
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let kept = report["kept"].as_array().unwrap().iter();
    kept.map(|kept| (kept["path"].as_str().unwrap().to_owned(), kept["why"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn a_snapshot_that_does_not_say_what_it_left_out_deletes_nothing_by_itself() {
    let desk = Desk::new();
    desk.write("a", "a");
    let tar = desk.path("old-2026-01-01.tar");
    let packed = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(desk.path("")).arg("source").status();
    assert!(packed.unwrap().success());
    desk.ok(&["import", "--tar", tar.to_str().unwrap()]);
    let to = |more: &[&str]| {
        let args = ["restore", "latest", "--to", "../back", "--overwrite", "if-changed"];
        kept(&desk, &[&args[..], more].concat())
    };
    to(&[]);
    fs::write(desk.path("back/source/extra"), "x").unwrap();
    assert_eq!(to(&["--delete", "--yes"]), reasons(&[("extra", "rules-unknown")]));
    assert_eq!(to(&["--delete", "--yes", "--delete-excluded"]), BTreeMap::new());
    assert!(!desk.path("back/source/extra").exists());
    // Nor does a snapshot of certain paths only.
    desk.write("other", "x");
    fs::write(desk.path("list"), format!("{}\n", desk.source().join("a").display())).unwrap();
    desk.ok(&["snapshot", "--files-from", "../list", "--source", "source"]);
    desk.ok(&[DELETE, &["--source", "source"]].concat());
    assert!(desk.source().join("other").exists());
}

#[test]
fn nothing_is_deleted_on_another_file_system() {
    let desk = Desk::new();
    desk.write("a", "a");
    desk.write("known/below", "x");
    let Some(mounted) = Mounted::new(&["-t", "tmpfs", "tmpfs"], &desk.source().join("known")) else { return };
    desk.write("known/inner", "x");
    desk.ok(&["snapshot", ".", "-x", "--source", "source"]);
    let Some(_other) = Mounted::new(&["-t", "tmpfs", "tmpfs"], &desk.source().join("unknown/deep")) else { return };
    desk.write("unknown/deep/x", "x");
    desk.write("unknown/beside", "x");
    // A folder of the same file system that is mounted a second time.
    fs::create_dir(desk.path("far")).unwrap();
    fs::write(desk.path("far/x"), "x").unwrap();
    let far = desk.path("far");
    let Some(_bound) = Mounted::new(&["--bind", far.to_str().unwrap()], &desk.source().join("bound")) else { return };
    let found = kept(&desk, DELETE);
    assert_eq!(found, reasons(&[("bound", "mount"), ("known/inner", "mount"), ("unknown/deep", "mount")]));
    assert!(desk.source().join("unknown/deep/x").exists() && far.join("x").exists());
    assert!(!desk.source().join("unknown/beside").exists());
    // Files hidden below the mount are not known to be absent either.
    drop(mounted);
    desk.ok(DELETE);
    assert!(desk.source().join("known/below").exists());
    // The folder in which the selection begins may be a mount.
    let root = desk.path("root");
    let Some(_root) = Mounted::new(&["-t", "tmpfs", "tmpfs"], &root) else { return };
    fs::write(root.join("a"), "a").unwrap();
    desk.ok(&["snapshot", "../root", "--source", "root"]);
    fs::write(root.join("extra"), "x").unwrap();
    desk.ok(&["restore", "latest", "--source", "root", "--in-place", "--delete", "--yes"]);
    assert!(!root.join("extra").exists() && root.join("a").exists());
}

#[test]
fn nothing_is_restored_into_a_vault_and_no_whole_system_is_cleaned() {
    let desk = Desk::new();
    desk.write("a", "a");
    desk.take("2026-01-01");
    for to in ["../store", "../store/packs", "../store/new/deeper"] {
        let said = desk.run(&["restore", "latest", "--to", to, "--overwrite", "always"]);
        assert!(said.code == 1 && said.err.contains("nothing is restored into a vault"), "{to}: {}", said.err);
    }
    assert!(!desk.path("store/new").exists() && !desk.path("store/source").exists());
    symlink(desk.path("store"), desk.path("link")).unwrap();
    assert_eq!(desk.run(&["restore", "latest", "--to", "../link", "--overwrite", "always"]).code, 1);
    // For the whole system, the paths to delete must be named.
    fs::write(desk.path("list"), format!("{}\n/etc/passwd\n", desk.source().join("a").display())).unwrap();
    desk.ok(&["snapshot", "--files-from", "../list", "--source", "all"]);
    let all = ["restore", "latest", "--source", "all", "--in-place", "--delete", "--dry-run"];
    let said = desk.run(&all);
    assert!(said.code == 2 && said.err.contains("--include"), "{} {}", said.code, said.err);
    let to = ["restore", "latest", "--to", "/", "--delete", "--dry-run", "--source", "source"];
    assert_eq!(desk.run(&to).code, 2);
    assert_eq!(desk.run(&[&all[..], &["--include", "/root/nothing/a", "--include", "a"]].concat()).code, 0);
}

#[test]
fn deleting_needs_a_yes_and_a_terminal_asks() {
    let desk = Desk::new();
    desk.write("a", "a");
    desk.take("2026-01-01");
    desk.write("extra/x", "x");
    let said = desk.run(&["restore", "latest", "--in-place", "--delete"]);
    assert!(said.code == 2 && said.err.contains("--yes") && desk.source().join("extra/x").exists(), "{}", said.err);
    desk.ok(&["restore", "latest", "--in-place", "--delete", "--dry-run"]);
    assert!(desk.source().join("extra/x").exists());
    if !can_drive() {
        return;
    }
    for (answer, code) in [("n", 130), ("y", 0)] {
        let mut terminal = Terminal::start(&desk.command(&[]), "restore latest --in-place --delete");
        let shown = terminal.wait("[y/N] ");
        assert!(shown.contains("source/extra/x") && shown.contains("(source on "), "{shown}");
        assert!(desk.source().join("extra/x").exists());
        terminal.enter(answer);
        assert_eq!(terminal.end(), code);
    }
    assert!(!desk.source().join("extra").exists());
}

#[test]
fn a_result_names_its_snapshot() {
    let desk = Desk::new();
    desk.write("a", "a");
    let id = desk.take("2026-01-01");
    let text = desk.ok(&["restore", "latest", "--to", "../one"]);
    for part in [&id[..8], "2026-01-01", "(source on "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let report = desk.json(&["restore", "latest", "--to", "../two"]).pop().unwrap();
    assert_eq!((report["snapshot"].as_str(), report["source"].as_str()), (Some(id.as_str()), Some("source")));
    assert!(report["host"].is_string() && report["time"].as_str().unwrap().starts_with("2026-01-01"));
}

#[test]
fn a_dry_run_lists_what_would_be_done() {
    let desk = Desk::new();
    for (path, content) in [("changed", "a"), ("missing", "b"), ("same", "c"), ("rights", "d"), ("folder/inner", "e")] {
        desk.write(path, content);
    }
    desk.take("2026-01-01");
    desk.write("changed", "X");
    desk.write("extra/x", "x");
    fs::remove_file(desk.source().join("missing")).unwrap();
    fs::remove_dir_all(desk.source().join("folder")).unwrap();
    let mode = fs::metadata(desk.source().join("rights")).unwrap().mode() ^ 0o100;
    fs::set_permissions(desk.source().join("rights"), fs::Permissions::from_mode(mode)).unwrap();
    let args = ["restore", "latest", "--in-place", "--delete"];
    let expected = [
        "M  source/changed",
        "-  source/extra/x",
        "-  source/extra/",
        "+  source/folder/",
        "+  source/folder/inner",
        "+  source/missing",
        "M  source/rights",
    ];
    let text = desk.ok(&[&args[..], &["--dry-run"]].concat());
    let lines: Vec<&str> = text.lines().take(expected.len()).collect();
    assert_eq!(lines, expected);
    let mut dry = desk.json(&[&args[..], &["--dry-run"]].concat()).pop().unwrap();
    let listed = dry["changes"].as_array().unwrap().iter();
    let listed: Vec<_> =
        listed.map(|change| (change["change"].as_str().unwrap(), change["path"].as_str().unwrap())).collect();
    assert_eq!((listed.len(), listed[1]), (expected.len(), ("-", "source/extra/x")));
    let mut real = desk.json(&[&args[..], &["--yes"]].concat()).pop().unwrap();
    for report in [&mut dry, &mut real] {
        let report = report.as_object_mut().unwrap();
        report.remove("changes");
        report.remove("dry_run");
    }
    assert_eq!(dry, real);
    // Then there is nothing more to do.
    let again = desk.json(&[&args[..], &["--dry-run"]].concat()).pop().unwrap();
    assert_eq!((again["changes"].as_array().unwrap().len(), again["files_unchanged"].as_u64()), (0, Some(5)));
}

#[test]
fn one_file_system_that_cannot_be_written_costs_its_files_only() {
    let desk = Desk::new();
    for path in ["a", "z", "full/one", "full/two", "full/three"] {
        desk.write(path, path.repeat(1000));
    }
    let Some(_mounted) = Mounted::new(&["-t", "tmpfs", "tmpfs"], &desk.source().join("full")) else { return };
    desk.write("full/one", "one");
    desk.take("2026-01-01");
    for path in ["a", "z", "full/one"] {
        desk.write(path, "changed");
    }
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(desk.source().join("full")).status();
    assert!(remounted.unwrap().success());
    let args = ["restore", "latest", "--in-place"];
    let dry = desk.run(&[&args[..], &["--dry-run"]].concat());
    let real = desk.run(&args);
    assert_eq!((dry.code, real.code), (3, 3), "{}", real.err);
    for path in ["a", "z"] {
        assert_eq!(fs::read_to_string(desk.source().join(path)).unwrap(), path.repeat(1000));
    }
    // The whole target is read-only: an error.
    let args = ["restore", "latest:source/full/one", "--in-place", "--overwrite", "always"];
    let said = desk.run(&args);
    assert!(said.code == 1 && said.err.contains("cannot write"), "{} {}", said.code, said.err);
}

#[test]
fn other_names_of_a_file_outside_of_what_is_restored_do_not_change() {
    let desk = Desk::new();
    desk.write("a", "old");
    fs::hard_link(desk.source().join("a"), desk.source().join("b")).unwrap();
    desk.take("2026-01-01");
    for overwrite in ["if-changed", "always", "keep-newer-copy"] {
        fs::write(desk.source().join("a"), "new").unwrap();
        desk.ok(&["restore", "latest:source/b", "--in-place", "--overwrite", overwrite]);
        let text = |path: &str| fs::read_to_string(desk.source().join(path)).unwrap();
        assert_eq!((text("a"), text("b")), ("new".to_owned(), "old".to_owned()), "{overwrite}");
        fs::remove_file(desk.source().join("b")).unwrap();
        fs::hard_link(desk.source().join("a"), desk.source().join("b")).unwrap();
    }
    // If both names are restored, they are still changed as one.
    desk.ok(&["restore", "latest", "--in-place"]);
    let inode = |path: &str| fs::metadata(desk.source().join(path)).unwrap().ino();
    assert_eq!((inode("a"), fs::read_to_string(desk.source().join("b")).unwrap()), (inode("b"), "old".to_owned()));
}

#[test]
fn a_file_is_restored_beside_others() {
    let desk = Desk::new();
    desk.write("letter", "Dear");
    desk.take("2026-01-01");
    let full = desk.path("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("other"), "other").unwrap();
    desk.ok(&["restore", "latest:source/letter", "--to", "../full"]);
    assert_eq!(fs::read_to_string(full.join("letter")).unwrap(), "Dear");
    let said = desk.run(&["restore", "latest:source/letter", "--to", "../full"]);
    assert!(said.code == 1 && said.err.contains("full/letter is there already"), "{}", said.err);
    desk.ok(&["restore", "latest", "--to", "../full"]);
    assert_eq!(desk.run(&["restore", "latest", "--to", "../full"]).code, 1);
}

#[test]
fn a_newer_file_stays_as_a_copy() {
    let desk = Desk::new();
    desk.write("file", "old");
    desk.write("same", "same");
    desk.take("2026-01-01");
    desk.write("file", "newer");
    desk.write("same", "same");
    let args = ["restore", "latest", "--in-place", "--overwrite", "keep-newer-copy"];
    let dry = desk.json(&[&args[..], &["--dry-run"]].concat()).pop().unwrap();
    let real = desk.json(&args).pop().unwrap();
    assert_eq!((dry["copies"].as_u64(), real["copies"].as_u64()), (Some(1), Some(1)));
    let text = |path: &str| fs::read_to_string(desk.source().join(path)).unwrap();
    assert_eq!((text("file"), text("file.newer"), text("same")), ("old".into(), "newer".into(), "same".into()));
    desk.write("file", "newest");
    desk.ok(&args);
    assert_eq!(
        (text("file"), text("file.newer"), text("file.newer~2")),
        ("old".into(), "newer".into(), "newest".into())
    );
}

#[test]
fn a_newer_file_stays_as_a_copy_where_the_snapshot_has_a_folder() {
    let desk = Desk::new();
    desk.write("folder/file", "old");
    desk.take("2026-01-01");
    fs::remove_dir_all(desk.source().join("folder")).unwrap();
    desk.write("folder", "newer");
    let args = ["restore", "latest", "--in-place", "--overwrite", "keep-newer-copy"];
    let dry = desk.json(&[&args[..], &["--dry-run"]].concat()).pop().unwrap();
    let real = desk.json(&args).pop().unwrap();
    for report in [&dry, &real] {
        assert_eq!((report["copies"].as_u64(), report["deleted"].as_u64()), (Some(1), Some(0)), "{report}");
    }
    let text = |path: &str| fs::read_to_string(desk.source().join(path)).unwrap();
    assert_eq!((text("folder/file"), text("folder.newer")), ("old".into(), "newer".into()));
}

#[test]
fn an_unchanged_source_has_the_same_rules_and_costs_nothing() {
    let desk = Desk::new();
    desk.write("a", "a");
    desk.write(".vaultignore", "*.tmp\n");
    let take = ["snapshot", ".", "--source", "source", "--exclude", "x"];
    desk.ok(&take);
    let second = desk.json(&take).pop().unwrap();
    assert_eq!(second["snapshot"]["bytes_stored"], 0);
    assert!(desk.ok(&[&take[..], &["--skip-if-unchanged"]].concat()).contains("Nothing changed"));
}

/// Runs the program as a user without rights; `None` if that is not possible here.
fn as_nobody(desk: &Desk, args: &[&str]) -> Option<Said> {
    if !rustix::process::geteuid().is_root() {
        return Some(desk.run(args));
    }
    let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(desk.path("")).status();
    if !owned.is_ok_and(|status| status.success()) {
        return None;
    }
    desk.command(args).uid(65534).gid(65534).output().ok().map(|output| said(&output))
}

#[test]
fn what_the_snapshot_could_not_read_stays() {
    let desk = Desk::new();
    desk.write("a", "a");
    desk.write("file", "secret");
    desk.write("closed/inner", "secret");
    let close = |mode: u32| {
        for path in ["file", "closed"] {
            fs::set_permissions(desk.source().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    close(0);
    let Some(taken) = as_nobody(&desk, &["snapshot", ".", "--source", "source"]) else {
        eprintln!("NOTICE: not tried: there is nobody to be");
        return;
    };
    if taken.code != 3 {
        eprintln!("NOTICE: not tried: a normal user cannot run this: {}", taken.err);
        return;
    }
    let dry = as_nobody(&desk, &["restore", "latest", "--in-place", "--delete", "--dry-run"]).unwrap();
    let done = as_nobody(&desk, DELETE).unwrap();
    assert_eq!((dry.code, done.code), (0, 0), "{}{}", done.out, done.err);
    assert!(done.out.contains("source/file: the snapshot could not read it"), "{}", done.out);
    assert_eq!(fs::metadata(desk.source().join("closed")).unwrap().mode() & 0o777, 0, "it was not made accessible");
    assert!(desk.source().join("closed/inner").exists());
    // A folder that was closed later costs the same exit code in both.
    close(0o700);
    assert_eq!(as_nobody(&desk, &["snapshot", ".", "--source", "source"]).unwrap().code, 0);
    close(0);
    let dry = as_nobody(&desk, &["restore", "latest", "--in-place", "--dry-run"]).unwrap();
    let done = as_nobody(&desk, &["restore", "latest", "--in-place"]).unwrap();
    assert_eq!(dry.code, done.code, "{}{}", dry.err, done.err);
    assert_eq!(done.code, 0, "{}", done.err);
    // One that the snapshot does not have, and that cannot be looked into, is not deleted: that is a problem, in both.
    desk.write("new/inner", "x");
    let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(desk.source()).status().unwrap();
    assert!(owned.success());
    fs::set_permissions(desk.source().join("new"), fs::Permissions::from_mode(0o000)).unwrap();
    for options in [&["--dry-run"][..], &[]] {
        let said = as_nobody(&desk, &[DELETE, options].concat()).unwrap();
        assert_eq!(said.code, 3, "{}{}", said.out, said.err);
        assert!(said.err.contains("source/new: cannot delete"), "{}", said.err);
    }
    assert!(desk.source().join("new/inner").exists());
}

/// The counts of a restore, with its exit code.
fn counted(said: &Said) -> (i32, serde_json::Value) {
    let mut report: serde_json::Value =
        serde_json::from_str(said.out.lines().last().unwrap_or("null")).unwrap_or(serde_json::Value::Null);
    if let Some(report) = report.as_object_mut() {
        report.remove("changes");
        report.remove("dry_run");
    }
    (said.code, report)
}

/// The paths that a restore names, each with its change.
fn named(text: &str) -> Vec<String> {
    let marks = ["+  ", "M  ", "-  "];
    text.lines().filter(|line| marks.iter().any(|mark| line.starts_with(mark))).map(str::to_owned).collect()
}

/// A dry run, and then the real one, which must report the same: `prepare` makes the state for each, `run` runs the
/// program. Returns the number of problems.
#[track_caller]
fn foretold(prepare: &dyn Fn(), run: &dyn Fn(&[&str]) -> Said, args: &[&str]) -> u64 {
    prepare();
    let (dry, listed) = (run(&[args, &["--dry-run", "--json"]].concat()), run(&[args, &["--dry-run"]].concat()));
    let real = run(&[args, &["--json"]].concat());
    let (foretold, done) = (counted(&dry), counted(&real));
    assert_eq!(foretold, done, "{args:?}: {}{}", dry.err, real.err);
    prepare();
    let real = run(&[args, &["-v"]].concat());
    assert_eq!((named(&listed.out), listed.code), (named(&real.err), real.code), "{args:?}: {}", real.err);
    foretold.1["problem_count"].as_u64().unwrap_or(0)
}

/// Removes the copies of newer files.
fn without_copies(desk: &Desk, folders: &[&str]) {
    for folder in folders {
        for entry in fs::read_dir(desk.source().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains(".newer") {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

/// Refusals of the system are foreseen, and reported in the same words.
#[test]
fn a_dry_run_foretells_what_will_be_refused() {
    let desk = Desk::new();
    for path in ["ro/a", "ro/b", "ro/sub/c", "rw/d", "file", "bound", "closed/in", "closed/sub/deep"] {
        desk.write(path, path.repeat(20));
    }
    symlink("a", desk.source().join("ro/link")).unwrap();
    desk.take("2026-01-01");
    let (source, other) = (desk.source(), desk.path("other"));
    let run = |args: &[&str]| desk.run(args);
    let change = |paths: &[&str]| paths.iter().for_each(|path| desk.write(path, "changed"));
    let ways: [&[&str]; 4] = [
        &["restore", "latest", "--in-place"],
        &["restore", "latest", "--in-place", "--overwrite", "always"],
        &["restore", "latest", "--in-place", "--overwrite", "keep-newer-copy"],
        DELETE,
    ];
    for way in ways {
        // A read-only mount of a part of the same file system: files beside it are restored.
        change(&["ro/a", "rw/d", "file"]);
        desk.write("ro/extra", "x");
        fs::remove_file(source.join("ro/sub/c")).unwrap();
        let ro = source.join("ro");
        let Some(mounted) = Mounted::new(&["--bind", ro.to_str().unwrap()], &ro) else { return };
        let remount = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&ro).status();
        assert!(remount.unwrap().success());
        let prepare = || {
            without_copies(&desk, &["", "rw"]);
            change(&["rw/d", "file"]);
        };
        assert!(foretold(&prepare, &run, way) > 0, "{way:?}");
        assert_eq!(fs::read_to_string(source.join("rw/d")).unwrap(), "rw/d".repeat(20));
        drop(mounted);
        desk.ok(DELETE);
        // A file that is itself a mount point: it is changed in place, and never replaced.
        for options in ["remount,bind,rw", "remount,bind,ro"] {
            fs::write(&other, "mounted").unwrap();
            let bound = source.join("bound");
            let status = Command::new("mount").args(["--bind", other.to_str().unwrap()]).arg(&bound).status();
            assert!(status.unwrap().success());
            let mounted = Mounted(bound.clone());
            assert!(Command::new("mount").args(["-o", options]).arg(&bound).status().unwrap().success());
            let prepare = || {
                without_copies(&desk, &["", "rw"]);
                change(&["file", "rw/d"]);
                fs::write(&other, "mounted").unwrap();
            };
            let problems = foretold(&prepare, &run, way);
            assert_eq!(problems > 0, options.ends_with("ro") || way.contains(&"--overwrite"), "{way:?} {options}");
            assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "file".repeat(20), "{way:?} {options}");
            drop(mounted);
        }
    }
}

/// Files and folders that may not be changed, or may only grow: a restore lifts that where the user may, and a dry run
/// knows where it cannot.
#[test]
fn a_dry_run_foretells_what_flags_forbid() {
    let desk = Desk::new();
    for path in ["d/changed", "d/gone", "d/sub/x", "d/same", "e", "other", "first"] {
        desk.write(path, path.repeat(20));
    }
    symlink("e", desk.source().join("d/link")).unwrap();
    fs::hard_link(desk.source().join("first"), desk.source().join("d/first")).unwrap();
    if !rustix::process::geteuid().is_root() {
        return eprintln!("NOTICE: not tried: only root may set these flags");
    }
    if as_nobody(&desk, &["snapshot", ".", "--source", "source"]).is_none_or(|taken| taken.code != 0) {
        return eprintln!("NOTICE: not tried: a normal user cannot run this");
    }
    let source = desk.source();
    let flag = |flags: &[&str], path: &str| {
        let done = Command::new("chattr").args(flags).arg(source.join(path)).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    };
    if !flag(&["+i"], "e") || !flag(&["-i"], "e") {
        return eprintln!("NOTICE: not tried: the file system has no such flags");
    }
    let as_root = |args: &[&str]| desk.run(args);
    let as_user = |args: &[&str]| said(&desk.command(args).uid(65534).gid(65534).output().unwrap());
    let ways: [&[&str]; 6] = [
        &["restore", "latest", "--in-place"],
        &["restore", "latest", "--in-place", "--overwrite", "always"],
        &["restore", "latest", "--in-place", "--overwrite", "keep-newer-copy"],
        &["restore", "latest", "--in-place", "--overwrite", "never"],
        &["restore", "latest:d/changed", "--in-place", "--overwrite", "always"],
        DELETE,
    ];
    let clear = || {
        // It says that links have no flags.
        flag(&["-R", "-ia"], "");
    };
    let places = ["d", "d/changed", "d/sub", "d/extra", "d/link-place", "first", "e", ""];
    let cases = places.iter().flat_map(|path| ["+i", "+a"].map(|mark| (*path, mark)));
    for (case, (flagged, mark)) in cases.enumerate() {
        let prepare = || {
            clear();
            without_copies(&desk, &["", "d", "d/sub"]);
            for path in ["d/gone", "d/link", "d/first", "d/extra", "d/sub/x"] {
                let _ = fs::remove_file(source.join(path));
            }
            for path in ["d/changed", "e", "d/extra", "d/sub/more", "d/link"] {
                desk.write(path, "changed");
            }
            if flagged == "d/link-place" {
                fs::remove_file(source.join("d/link")).unwrap();
                symlink("elsewhere", source.join("d/link")).unwrap();
            }
            Command::new("chown").args(["-hR", "65534:65534"]).arg(desk.path("")).status().unwrap();
            assert!(flag(&[mark], flagged.strip_suffix("/link-place").unwrap_or(flagged)), "{flagged}");
        };
        for (number, way) in ways.iter().enumerate() {
            for (user, run) in [&as_root as &dyn Fn(&[&str]) -> Said, &as_user].into_iter().enumerate() {
                // Each way, each flag and each user in the ordinary run, but not all of them with each other.
                if campaign() == 0 && !(case + number + user).is_multiple_of(8) {
                    continue;
                }
                eprintln!("{flagged} {mark}: {way:?}, user {user}");
                foretold(&prepare, run, way);
                let left = walk(&source).into_iter().find(|path| path.to_string_lossy().contains(".vault-"));
                assert_eq!(left, None, "{flagged} {mark}: {way:?}");
            }
        }
    }
    // Root's restore makes everything right, and a copy keeps its flags.
    clear();
    desk.ok(&[DELETE, &["--quiet"]].concat());
    desk.write("e", "newer");
    assert!(flag(&["+i"], "e"));
    desk.ok(ways[2]);
    assert_eq!(fs::read_to_string(source.join("e")).unwrap(), "e".repeat(20));
    assert_eq!(fs::read_to_string(source.join("e.newer")).unwrap(), "newer");
    assert!(fs::write(source.join("e.newer"), "x").is_err(), "it is as it was");
    clear();
}

/// All paths below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    below
        .flat_map(|path| {
            let inner = if path.is_dir() && !path.is_symlink() { walk(&path) } else { Vec::new() };
            [vec![path], inner].concat()
        })
        .collect()
}

#[test]
fn a_dry_run_tells_that_the_target_has_no_room() {
    let desk = Desk::new();
    desk.write("large", bytes(1, 3 << 20));
    desk.take("2026-01-01");
    let target = desk.path("disk");
    let Some(_mounted) = Mounted::new(&["-t", "tmpfs", "-o", "size=2M", "tmpfs"], &target) else { return };
    for to in ["../disk", "../disk/new/deep"] {
        let said = desk.run(&["restore", "latest", "--to", to, "--dry-run"]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(said.err.contains("3.0 MiB would be written, and 2.0 MiB are free in"), "{}", said.err);
    }
    let said = desk.run(&["restore", "latest", "--to", "../elsewhere", "--dry-run"]);
    assert!(said.code == 0 && !said.err.contains("are free"), "{}", said.err);
}

/// The same for a user without rights: folders of others, closed ones, and such in which everybody owns what he has made.
#[test]
fn a_dry_run_foretells_what_a_user_may_not_do() {
    let desk = Desk::new();
    for path in ["a", "own/one", "own/two", "theirs/x", "sticky/mine", "sticky/theirs", "sticky/gone", "plain"] {
        desk.write(path, path.repeat(20));
    }
    fs::hard_link(desk.source().join("plain"), desk.source().join("theirs/plain")).unwrap();
    let mode = |path: &str, mode: u32| {
        fs::set_permissions(desk.source().join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    let own = |path: &str, user: &str| {
        Command::new("chown").arg("-h").arg(user).arg(desk.source().join(path)).status().unwrap();
    };
    let run = |args: &[&str]| said(&desk.command(args).uid(65534).gid(65534).output().unwrap());
    if !rustix::process::geteuid().is_root() {
        return eprintln!("NOTICE: not tried: only root may be somebody else");
    }
    if as_nobody(&desk, &["snapshot", ".", "--source", "source"]).is_none_or(|taken| taken.code != 0) {
        return eprintln!("NOTICE: not tried: a normal user cannot run this");
    }
    let ways: [&[&str]; 5] = [
        &["restore", "latest", "--in-place"],
        &["restore", "latest", "--in-place", "--overwrite", "always"],
        &["restore", "latest", "--in-place", "--overwrite", "keep-newer-copy"],
        &["restore", "latest", "--in-place", "--overwrite", "never"],
        DELETE,
    ];
    let prepare = || {
        Command::new("chown").args(["-R", "65534:65534"]).arg(desk.source()).status().unwrap();
        without_copies(&desk, &["", "own", "sticky"]);
        ["own", "theirs", "sticky"].iter().for_each(|path| mode(path, 0o755));
        for path in ["a", "own/one", "theirs/x", "sticky/mine", "sticky/theirs"] {
            desk.write(path, "changed");
            own(path, "65534:65534");
        }
        for path in ["own/two", "sticky/gone", "theirs/plain"] {
            let _ = fs::remove_file(desk.source().join(path));
        }
        for path in ["own/extra", "theirs/extra", "sticky/extra"] {
            desk.write(path, "x");
            own(path, "root:root");
        }
        // The user's own closed folder is opened; a closed one of somebody else stays closed; in the last one each has
        // his own files.
        mode("own", 0o555);
        own("own", "65534:65534");
        mode("theirs", 0o555);
        own("theirs", "root:root");
        mode("sticky/theirs", 0o666);
        own("sticky/theirs", "root:root");
        mode("sticky", 0o1777);
        own("sticky", "root:root");
    };
    for way in ways {
        assert!(foretold(&prepare, &run, way) > 0, "{way:?}");
        if !way.contains(&"never") {
            assert_eq!(fs::read_to_string(desk.source().join("own/one")).unwrap(), "own/one".repeat(20));
        }
        assert!(desk.source().join("theirs/extra").exists() && desk.source().join("sticky/extra").exists());
    }
    // Into a folder of somebody else, and below one.
    fs::create_dir(desk.path("shut")).unwrap();
    for to in ["../shut", "../shut/new"] {
        let said = |more: &[&str]| run(&[&["restore", "latest", "--to", to], more].concat());
        let (dry, real) = (said(&["--dry-run"]), said(&[]));
        assert_eq!((dry.code, dry.err), (real.code, real.err), "{to}");
        assert_eq!(real.code, 1);
    }
}

/// Random numbers from a seed.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(b"guard").update(&seed.to_le_bytes()).finalize_xof())
    }

    fn below(&mut self, count: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % count
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}

const NAMES: &[&str] = &["a", "b", "c", "d", "x.tmp", "y.keep", "big", "z.ign"];

/// Creates a random file somewhere.
fn grow(dice: &mut Dice, top: &Path) {
    let mut path = top.to_owned();
    for _ in 0..=dice.below(3) {
        if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_dir()) {
            return;
        }
        fs::create_dir_all(&path).unwrap();
        path.push(dice.pick(NAMES));
    }
    let free = fs::symlink_metadata(&path).is_err();
    let text = format!("{}", dice.below(1000)).repeat(if path.ends_with("big") { 500 } else { 1 });
    match dice.below(12) {
        0 if free => symlink("a", &path).unwrap(),
        1 if free => fs::create_dir(&path).unwrap(),
        2 if free => {
            fs::create_dir(&path).unwrap();
            fs::write(path.join(dice.pick(&["CACHEDIR.TAG", ".skip"])), "Signature: 8a477f597d28d172789f06886806bc55")
                .unwrap();
            fs::write(path.join("inner"), text).unwrap();
        }
        3 if free => {
            let other = top.join(dice.pick(NAMES));
            if other.is_file() && !other.is_symlink() {
                fs::hard_link(other, &path).unwrap();
            }
        }
        4 if free => {
            fs::create_dir(&path).unwrap();
            fs::write(path.join(".vaultignore"), "*.ign\n").unwrap();
        }
        _ if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir() || meta.is_symlink()) => {}
        _ => fs::write(&path, text).unwrap(),
    }
}

/// Changes the kind of a random file, or removes it.
fn disturb(dice: &mut Dice, top: &Path) {
    let path = top.join(dice.pick(NAMES));
    let Ok(meta) = fs::symlink_metadata(&path) else { return };
    if meta.is_dir() {
        if dice.below(2) == 0 {
            return disturb(dice, &path);
        }
        // Not a folder that may have something protected in it, so that nothing is lost before the restore.
        let _ = fs::remove_dir(&path);
    } else {
        fs::remove_file(&path).unwrap();
        match dice.below(3) {
            0 => fs::create_dir(&path).unwrap(),
            1 => {
                fs::create_dir(&path).unwrap();
                fs::write(path.join("inside"), "inside").unwrap();
            }
            _ => {}
        }
    }
}

/// Everything below a folder, with its kind and content; the program's own folders are skipped.
fn survey(top: &Path, pass: &[&Path]) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let what = if meta.is_dir() {
                if !pass.contains(&path.as_path()) {
                    folders.push(path.clone());
                }
                "folder".to_owned()
            } else if meta.is_symlink() {
                format!("{:?}", fs::read_link(&path).unwrap())
            } else {
                fs::read_to_string(&path).unwrap()
            };
            found.insert(path.strip_prefix(top).unwrap().to_owned(), what);
        }
    }
    found
}

/// Whether a folder exists, or could be made.
fn can_hold(folder: &Path) -> bool {
    fs::symlink_metadata(folder).map_or(true, |meta| meta.is_dir())
}

type Outcome = (Vec<Change>, RestoreReport);

fn restored(vault: &Vault, options: &RestoreOptions) -> Outcome {
    let changes = Mutex::new(Vec::new());
    let tell = |change: &Change| changes.lock().unwrap().push(change.clone());
    let report = restore_telling(vault, options, &Silent::default(), Some(&tell)).unwrap();
    (changes.into_inner().unwrap(), report)
}

#[test]
fn what_is_protected_is_still_there_whatever_the_options_and_a_dry_run_says_what_is_done() {
    let cases = 30 * (1 + 20 * campaign());
    let seed = std::env::var("VAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (mut deleted, mut kept, mut mounts) = (0, 0, 0);
    for case in 0..cases {
        let dice = &mut Dice::new(seed * 1_000_000 + case);
        let scratch = scratch();
        let top = scratch.path().join("top");
        fs::create_dir(&top).unwrap();
        let (own, state) = (top.join("own vault"), top.join("own state"));
        fs::create_dir_all(&own).unwrap();
        let store: Arc<dyn Store> = Arc::new(DirStore::open(&own).unwrap());
        create_vault(store.as_ref(), small_chunks()).unwrap();
        let vault = open_vault(&store, &state).unwrap();
        (0..dice.below(25)).for_each(|_| grow(dice, &top));
        let mut left_out = ExcludeOptions::default();
        if dice.below(2) == 0 {
            left_out.patterns = vec!["*.tmp".to_owned(), "/c/d".to_owned()];
        }
        left_out.caches = dice.below(2) == 0;
        left_out.larger_than = (dice.below(2) == 0).then_some(700);
        left_out.one_file_system = dice.below(2) == 0;
        left_out.if_present = if dice.below(2) == 0 { vec![b".skip".to_vec()] } else { Vec::new() };
        left_out.ignore_file = (dice.below(2) == 0).then(|| b".vaultignore".to_vec());
        let mut taking = options(&top, &now);
        taking.exclude = left_out;
        let report = snapshot(&vault, taking, &Silent::default()).unwrap();
        let info = vault.snapshot(&report.id.unwrap()).unwrap();
        let mut known = BTreeSet::new();
        browse::list(&vault, &info, b"", true, &mut |path, _| {
            known.insert(PathBuf::from(String::from_utf8(path.to_vec()).unwrap()).components().skip(1).collect());
            true
        })
        .unwrap();
        let known: BTreeSet<PathBuf> = known;
        let own_folders = [own.as_path(), state.as_path()];
        let at_first = survey(&top, &own_folders);
        // Life goes on.
        (0..dice.below(15)).for_each(|_| grow(dice, &top));
        (0..dice.below(8)).for_each(|_| disturb(dice, &top));
        let mut guarded = Vec::new();
        if dice.below(2) == 0 {
            let nested = top.join(dice.pick(NAMES)).join("nested");
            if nested.parent().is_some_and(can_hold) {
                fs::create_dir_all(nested.join("packs")).unwrap();
                fs::write(nested.join("VAULT"), "vault archive, format 1\n").unwrap();
                fs::write(nested.join("packs/pack"), "pack").unwrap();
                guarded.push(nested);
            }
        }
        let place = top.join(dice.pick(NAMES)).join("mount");
        let can_be = place.parent().is_some_and(can_hold);
        let mounted = (dice.below(3) == 0 && can_be).then(|| Mounted::new(&["-t", "tmpfs", "tmpfs"], &place)).flatten();
        if mounted.is_some() {
            fs::write(place.join("far"), "far").unwrap();
            guarded.push(place.clone());
            mounts += 1;
        }
        let before = survey(&top, &own_folders);
        let mut options = RestoreOptions::new(info.id, Target::InPlace);
        options.overwrite = *dice.pick(&[Overwrite::Always, Overwrite::IfChanged, Overwrite::KeepNewer]);
        options.delete = dice.below(4) > 0;
        options.exclude = if dice.below(2) == 0 { vec!["*.keep".to_owned()] } else { Vec::new() };
        options.threads = 2;
        let dry = restored(&vault, &{
            let mut options = options.clone();
            options.dry_run = true;
            options
        });
        assert_eq!(survey(&top, &own_folders), before, "case {case}: a dry run changes nothing");
        let real = restored(&vault, &options);
        let after = survey(&top, &own_folders);
        let told = |outcome: &Outcome| {
            let report = &outcome.1;
            let problems: BTreeSet<_> = report.problems.iter().map(|problem| problem.path.clone()).collect();
            let counts = [report.files, report.folders, report.bytes, report.bytes_written, report.files_unchanged];
            (outcome.0.clone(), counts, report.deleted, report.copies, report.kept.clone(), problems)
        };
        assert_eq!(told(&dry), told(&real), "case {case}");
        // Everything that is gone was reported as deleted, and everything reported as deleted is gone.
        let said: BTreeSet<PathBuf> = real.0.iter().filter(|change| change.mark == Mark::Deleted).map(inside).collect();
        let replaced: BTreeSet<PathBuf> =
            real.0.iter().filter(|change| change.mark != Mark::Deleted).map(inside).collect();
        let gone: BTreeSet<PathBuf> = before.keys().filter(|path| !after.contains_key(*path)).cloned().collect();
        assert!(gone.is_subset(&said), "case {case}: {:?}", gone.difference(&said).collect::<Vec<_>>());
        assert!(said.iter().all(|path| !after.contains_key(path) || replaced.contains(path)), "case {case}");
        assert_eq!(real.1.deleted, said.len() as u64);
        // Nothing changes without a report.
        for (path, what) in &after {
            assert!(before.get(path) == Some(what) || replaced.contains(path), "case {case}: {}", path.display());
        }
        // A file that existed, and is not in the snapshot, was left out: it stays, if it is unchanged.
        for (path, what) in at_first.iter().filter(|(path, _)| !known.contains(*path)) {
            if before.get(path) == Some(what) {
                assert_eq!(after.get(path), Some(what), "case {case}: {} was left out", path.display());
            }
        }
        for folder in guarded {
            let below = folder.strip_prefix(&top).unwrap();
            for (path, what) in before.iter().filter(|(path, _)| path.starts_with(below)) {
                assert_eq!(after.get(path), Some(what), "case {case}: {}", path.display());
            }
        }
        if !options.exclude.is_empty() {
            for (path, what) in before
                .iter()
                .filter(|(path, _)| path.components().any(|name| name.as_os_str().to_string_lossy().ends_with(".keep")))
            {
                assert_eq!(after.get(path), Some(what), "case {case}: {} is excluded", path.display());
            }
        }
        assert!(own.join("VAULT").exists() && state.exists());
        deleted += real.1.deleted;
        kept += real.1.kept.iter().filter(|kept| !matches!(kept.why, Kept::Vault | Kept::State)).count();
    }
    println!("{cases} restores: {deleted} things deleted, {kept} kept beside the vault, {mounts} mounts");
    assert!(deleted > 0 && kept > 0);
}

/// The path of a change below the root.
fn inside(change: &Change) -> PathBuf {
    PathBuf::from(String::from_utf8(change.path.clone()).unwrap()).components().skip(1).collect()
}

#[test]
fn nothing_is_restored_into_the_state_folder() {
    let desk = Desk::new();
    desk.write("a", "content");
    desk.take("2026-01-01");
    for to in ["../state", "../state/new/folder"] {
        for more in [&[][..], &["--overwrite", "always"], &["--dry-run"]] {
            let given = desk.run(&[&["restore", "latest", "--to", to], more].concat());
            assert_eq!(given.code, 1, "{to} {more:?}: {}{}", given.out, given.err);
            assert!(given.err.contains("the state that vault keeps"), "{}", given.err);
        }
    }
    assert!(!desk.path("state/new").exists());
}

#[test]
fn every_folder_of_state_and_every_file_with_a_password_stays() {
    let desk = Desk::new();
    desk.write("a", "one");
    desk.take("2026-01-01 12:00");
    // The source is the home, which has the usual state folder, and passwords beside it.
    let (home, config) = (desk.source(), desk.path("vault.toml"));
    let kept = [".local/state/vault/device", "set/device", "given/device", "password of disk", "password given"];
    kept.iter().for_each(|path| desk.write(path, "secret"));
    desk.write("password given", crate::support::PASSWORD);
    desk.write("surplus", "goes");
    let password = home.join("password of disk");
    fs::write(&config, format!("[vaults.other]\npath = '/nowhere'\npassword-file = {password:?}\n")).unwrap();
    let said = said(
        &desk
            .command(&[
                "--state",
                home.join("given").to_str().unwrap(),
                "restore",
                "latest",
                "--in-place",
                "--delete",
                "--yes",
            ])
            .args([
                "--config",
                config.to_str().unwrap(),
                "--password-file",
                home.join("password given").to_str().unwrap(),
            ])
            .env("HOME", &home)
            .env("VAULT_STATE_DIR", home.join("set"))
            .env_remove("VAULT_PASSWORD")
            .env_remove("XDG_STATE_HOME")
            .output()
            .unwrap(),
    );
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    for path in kept {
        assert!(home.join(path).exists(), "{path}: {}{}", said.out, said.err);
    }
    assert!(!home.join("surplus").exists(), "{}{}", said.out, said.err);
}
