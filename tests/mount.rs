//! Mounted snapshots, read by the system's own programs while others write, forget and prune.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom as Seeking;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::binary::{Desk, Said, said};
use crate::support::model::{assert_same, of_disk};
use crate::support::source::{Size, bytes, plant};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(100);

/// Whether anything can be mounted here.
pub fn can_mount() -> bool {
    let opened = File::options().read(true).write(true).open("/dev/fuse");
    match opened {
        Ok(_) if rustix::process::geteuid().is_root() => true,
        Ok(_) => {
            eprintln!("skipped: only root mounts in the tests");
            false
        }
        Err(error) => {
            eprintln!("skipped: /dev/fuse cannot be used here: {error}");
            false
        }
    }
}

/// A mount in the foreground. It is gone when this is dropped, whatever happened.
pub struct Mount {
    child: Child,
    pub at: PathBuf,
    /// Its first line of output.
    line: String,
}

impl Mount {
    fn begin(command: Command, at: &Path) -> Self {
        Self::attempt(command, at).unwrap_or_else(|said| panic!("it does not mount: {}", said.err))
    }

    /// As `begin`; if it does not mount, returns its output instead.
    pub fn attempt(mut command: Command, at: &Path) -> Result<Self, Said> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        if line.is_empty() {
            return Err(said(&child.wait_with_output().unwrap()));
        }
        Ok(Self { child, at: at.to_owned(), line })
    }

    /// Mounts all snapshots in `mnt`, by this command without its folder.
    fn by(desk: &Desk, args: &[&str]) -> Self {
        let at = desk.path("mnt");
        fs::create_dir_all(&at).unwrap();
        Self::begin(desk.command(&[args, &[at.to_str().unwrap()]].concat()), &at)
    }

    fn all(desk: &Desk) -> Self {
        Self::by(desk, &["mount"])
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal, and returns the exit code and the last output.
    pub fn end(&mut self, signal: Signal) -> (i32, String) {
        kill_process(self.pid(), signal).unwrap();
        self.wait()
    }

    fn wait(&mut self) -> (i32, String) {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), err)
    }

    /// The only snapshot of a source, or the last one.
    fn latest(&self) -> PathBuf {
        self.at.join("source/latest")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Whether this process was started by `nohup` or the like: what it starts goes on when the terminal is gone.
fn ignores_hangups() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1
}

fn is_mounted(at: &Path) -> bool {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    text.lines().any(|line| line.split(' ').nth(4) == at.to_str())
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

fn files(count: usize) -> impl Iterator<Item = (String, usize)> {
    (0..count).map(|number| (format!("d{}/f{number}", number % 7), 3000 + 97 * number))
}

/// Writes a version of the files in which every second one is new; returns the content of each.
fn write_version(desk: &Desk, version: u64, count: usize) -> Vec<(String, Vec<u8>)> {
    files(count)
        .enumerate()
        .map(|(number, (name, len))| {
            let seed = if number % 2 == 0 { version } else { 0 } * 1000 + number as u64;
            let content = bytes(seed, len);
            desk.write(&name, &content);
            (name, content)
        })
        .collect()
}

/// First of all: kept snapshots are read without an error while the rest is forgotten and its space freed. Once with a
/// session of the mount that protects the data it has seen; once with an unknown mount, and packs that are deleted
/// under it.
#[test]
fn what_stays_is_read_while_the_rest_is_pruned() {
    if !can_mount() {
        return;
    }
    for is_known in [true, false] {
        let desk = Desk::new();
        write_version(&desk, 1, 48);
        let first = desk.take("2026-01-01");
        let kept = write_version(&desk, 2, 48);
        let second = desk.take("2026-01-02");
        write_version(&desk, 3, 48);
        desk.take("2026-01-03");
        let at = desk.path("mnt");
        fs::create_dir(&at).unwrap();
        // Only the last segment is cached, so that each read goes to the store.
        let mut command = desk.command(&["mount", at.to_str().unwrap(), "--cache", "1", "--renew", "1s"]);
        if !is_known {
            command.env("VAULT_STATE_DIR", desk.path("state of another machine"));
        }
        let mut mount = Mount::begin(command, &at);
        let folder = at.join("all").join(&second[..8]).join("source");
        let check = |part: &[(String, Vec<u8>)]| {
            for (name, content) in part {
                assert!(&fs::read(folder.join(name)).unwrap() == content, "{name}, known: {is_known}");
            }
        };
        check(&kept[..16]);
        let before = desk.packs();
        desk.ok(&["forget", &first]);
        let prune = || desk.run(&["prune", "--keep", "99", "--max-unused", "0%"]);
        let said = prune();
        assert!(matches!(said.code, 0 | 3), "{}", said.err);
        check(&kept[16..32]);
        // A renewed session has seen the condemned packs, and lets them go.
        eventually("packs go", || {
            let _ = fs::metadata(folder.join("d0/f0"));
            prune();
            before.difference(&desk.packs()).count() > 0
        });
        check(&kept);
        // Again, with programs that read all the time.
        let mut readers: Vec<Child> = (0..2)
            .map(|_| {
                let script = "for i in 1 2 3; do grep -r -q 'no such words' . ; [ $? = 1 ] || exit 1; done";
                Command::new("sh").args(["-c", script]).current_dir(&folder).spawn().unwrap()
            })
            .collect();
        for version in 4..6 {
            write_version(&desk, version, 48);
            let id = desk.take(&format!("2026-01-0{version}"));
            desk.ok(&["forget", &id]);
            assert!(matches!(prune().code, 0 | 3));
        }
        for reader in &mut readers {
            assert!(reader.wait().unwrap().success(), "grep met an error, known: {is_known}");
        }
        let (code, err) = mount.end(Signal::TERM);
        assert_eq!((code, err.as_str()), (0, ""), "known: {is_known}");
        assert_eq!(desk.run(&["check", "--read-data"]).code, 0);
    }
}

#[test]
fn a_mounted_tree_is_the_tree_that_was_kept() {
    if !can_mount() {
        return;
    }
    let desk = Desk::new();
    plant(&desk.source(), 5, Size::Small);
    desk.write("5 MiB", bytes(1, 5 << 20));
    desk.take("2026-01-01");
    let mount = Mount::all(&desk);
    let kept = mount.latest().join("source");
    assert_same(&of_disk(&desk.source(), b"x"), &of_disk(&kept, b"x"), "mounted");
    desk.ok(&["restore", "latest", "--to", desk.path("back").to_str().unwrap()]);
    assert_same(&of_disk(&desk.path("back/source"), b"x"), &of_disk(&kept, b"x"), "restored");

    // Properties that the model does not compare.
    let (ours, theirs) = (fs::metadata(kept.join("a third name")).unwrap(), fs::metadata(kept.join("pipe")).unwrap());
    assert_eq!((ours.nlink(), theirs.nlink()), (3, 1));
    assert!(fs::write(kept.join("new"), "x").is_err() && fs::remove_file(kept.join("pipe")).is_err());

    // Holes, and reads at any position.
    let (disk, held) = (File::open(desk.source().join("sparse")).unwrap(), File::open(kept.join("sparse")).unwrap());
    let len = disk.metadata().unwrap().len();
    let next = |file: &File, from: Seeking| rustix::fs::seek(file, from).ok();
    let hole = next(&held, Seeking::Hole(0)).unwrap();
    let data = next(&held, Seeking::Data(hole)).unwrap();
    assert!(hole < data && data < len, "a hole from {hole} to {data}");
    assert!(held.metadata().unwrap().blocks() * 512 < len / 2 + 4096);
    assert_eq!(next(&held, Seeking::Data(len)), None);
    let large = (File::open(desk.source().join("5 MiB")).unwrap(), File::open(kept.join("5 MiB")).unwrap());
    let files = [(&disk, &held), (&large.0, &large.1)];
    thread::scope(|scope| {
        for thread in 0..8_u64 {
            scope.spawn(move || {
                for step in 0..40_u64 {
                    let (disk, held) = files[step as usize % 2];
                    let len = disk.metadata().unwrap().len();
                    let offset = (thread * 7_919_333 + step * 104_729 * 31) % (len + 5000);
                    let mut expected = vec![0; 10_000];
                    let mut found = expected.clone();
                    let counts = (disk.read_at(&mut expected, offset), held.read_at(&mut found, offset));
                    assert_eq!(counts.0.unwrap(), counts.1.unwrap(), "at {offset}");
                    assert!(expected == found, "at {offset}");
                }
            });
        }
    });
    let mut end = String::new();
    let mut file = File::open(kept.join("folder 0/file 1.bin")).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    assert_eq!(file.read_to_string(&mut end).unwrap(), 0);

    // Inode numbers stay the same, so that the folder can be shared further.
    let number = |mount: &Mount| fs::metadata(mount.latest().join("source/5 MiB")).unwrap().ino();
    let before = number(&mount);
    drop(mount);
    assert_eq!(number(&Mount::all(&desk)), before);
}

#[test]
fn a_huge_folder_is_listed_in_parts() {
    if !can_mount() {
        return;
    }
    let desk = Desk::new();
    let count = 12_000;
    (0..count).for_each(|number| fs::write(desk.source().join(format!("{number:05}")), "").unwrap());
    desk.take("2026-01-01");
    let mount = Mount::all(&desk);
    let folder = mount.latest().join("source");
    assert_eq!(names(&folder).len(), count);
    for number in [0, 511, 512, 7000, count - 1] {
        assert!(fs::metadata(folder.join(format!("{number:05}"))).is_ok());
    }
    assert!(fs::metadata(folder.join(format!("{count:05}"))).is_err());
    // A folder that another program is in the middle of listing.
    let mut slow = fs::read_dir(&folder).unwrap();
    let some: BTreeSet<String> =
        slow.by_ref().take(3000).map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names(&folder).len(), count);
    let rest: BTreeSet<String> = slow.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(some.is_disjoint(&rest) && some.len() + rest.len() == count);
}

#[test]
fn snapshots_come_and_go_and_old_versions_are_found() {
    if !can_mount() {
        return;
    }
    let desk = Desk::new();
    desk.write("a/letter.txt", "one");
    desk.write("a/all of it.txt", "same");
    let first = desk.take("2026-01-01T10:00:00Z");
    let mount = Mount::all(&desk);
    assert_eq!(names(&mount.at), BTreeSet::from(["README.txt", "all", "source"].map(str::to_owned)));
    assert!(fs::read_to_string(mount.at.join("README.txt")).unwrap().contains("vault umount"));
    let dates = || names(&mount.at.join("source"));
    assert_eq!(dates(), BTreeSet::from(["2026-01-01 10.00", "latest"].map(str::to_owned)));
    desk.write("a/letter.txt", "two, longer");
    desk.take("2026-01-02T10:00:00Z");
    desk.write("other", "x");
    desk.take("2026-01-02T10:00:30Z");
    fs::remove_file(desk.source().join("a/letter.txt")).unwrap();
    desk.take("2026-01-03T10:00:00Z");
    let all = ["2026-01-01 10.00", "2026-01-02 10.00", "2026-01-02 10.00 (2)", "2026-01-03 10.00", "latest"];
    eventually("new snapshots appear", || dates() == BTreeSet::from(all.map(str::to_owned)));
    let latest = || fs::read_link(mount.latest()).unwrap();
    eventually("the last one is the last", || latest() == Path::new("2026-01-03 10.00"));
    let folder = mount.latest().join("source/a");
    assert!(!names(&folder).contains(".versions"), "no listing has it");
    let versions = folder.join(".versions/letter.txt");
    assert_eq!(names(&versions), BTreeSet::from(["2026-01-01 10.00.txt", "2026-01-02 10.00.txt"].map(str::to_owned)));
    assert_eq!(fs::read_to_string(versions.join("2026-01-01 10.00.txt")).unwrap(), "one");
    assert_eq!(fs::read_to_string(versions.join("2026-01-02 10.00.txt")).unwrap(), "two, longer");
    assert_eq!(names(&folder.join(".versions/all of it.txt")).len(), 1);
    assert!(fs::metadata(folder.join(".versions/never")).is_err());
    assert_eq!(fs::read_to_string(mount.at.join("all").join(&first[..8]).join("source/a/letter.txt")).unwrap(), "one");
    desk.ok(&["forget", &first]);
    eventually("a forgotten one goes", || !dates().contains("2026-01-01 10.00"));
    eventually("its link goes", || fs::metadata(mount.at.join("all").join(&first[..8])).is_err());
}

/// A missing chunk makes the mount look at the store again. The result counts for everything: which snapshots exist,
/// and that a file went with its snapshot and is not damaged.
#[test]
fn what_was_forgotten_is_not_called_damaged() {
    if !can_mount() {
        return;
    }
    let desk = Desk::new();
    let old = write_version(&desk, 1, 48);
    let first = desk.take("2026-01-01T10:00:00Z");
    fs::remove_dir_all(desk.source()).unwrap();
    fs::create_dir(desk.source()).unwrap();
    desk.write("other", bytes(9, 5000));
    desk.take("2026-01-02T10:00:00Z");
    let at = desk.path("mnt");
    fs::create_dir(&at).unwrap();
    let mut command = desk.command(&["mount", at.to_str().unwrap(), "--cache", "1"]);
    command.env("VAULT_STATE_DIR", desk.path("state of another machine"));
    let mut mount = Mount::begin(command, &at);
    let folder = File::open(at.join("source/2026-01-01 10.00/source")).unwrap();
    let open = |name: &str| {
        let flags = rustix::fs::OFlags::RDONLY;
        rustix::fs::openat(&folder, name, flags, rustix::fs::Mode::empty()).map(File::from)
    };
    // Names are known, content is not.
    let files: Vec<File> = old.iter().map(|(name, _)| open(name).unwrap()).collect();
    desk.ok(&["forget", &first]);
    let before = desk.packs();
    eventually("packs go", || {
        let said = desk.run(&["prune", "--keep", "99", "--max-unused", "0%"]);
        assert!(matches!(said.code, 0 | 3), "{}", said.err);
        before.difference(&desk.packs()).count() > 0
    });
    let mut gone = 0;
    for file in &files {
        // Only the folder's own files are read, so that nothing else makes the mount look at the store.
        if let Err(error) = file.read_at(&mut [0; 10], 0) {
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::STALE.raw_os_error()), "{error}");
            gone += 1;
        }
    }
    assert!(gone > 0);
    let left = BTreeSet::from(["2026-01-02 10.00", "latest"].map(str::to_owned));
    eventually("the forgotten one is in no listing", || names(&at.join("source")) == left);
    drop(files);
    drop(folder);
    let (code, err) = mount.end(Signal::TERM);
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn damage_costs_the_file_that_has_it_and_is_remembered() {
    if !can_mount() {
        return;
    }
    let desk = Desk::new();
    let mut before = desk.packs();
    let mut of_file = Vec::new();
    for name in ["a", "b", "c"] {
        desk.write(name, bytes(name.as_bytes()[0].into(), 150_000));
        desk.take(&format!("2026-01-0{}", of_file.len() + 1));
        let now = desk.packs();
        let new = now.difference(&before).max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap().clone();
        of_file.push(new);
        before = now;
    }
    let file = File::options().write(true).open(&of_file[1]).unwrap();
    file.write_all_at(&[0; 2000], 60_000).unwrap();
    let mut mount = Mount::all(&desk);
    let folder = mount.latest().join("source");
    for _ in 0..2 {
        let read = ["a", "b", "c"].map(|name| fs::read(folder.join(name)));
        assert!(read[0].is_ok() && read[2].is_ok());
        assert_eq!(read[1].as_ref().unwrap_err().raw_os_error(), Some(5), "an error of input");
    }
    assert_eq!(names(&folder).len(), 3, "it is still listed");
    let (code, err) = mount.end(Signal::INT);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("source/b") && err.contains("vault doctor") && err.lines().count() == 1, "{err}");
    let list = desk.run(&["list"]);
    assert_eq!(list.code, 4, "it is remembered: {}", list.err);
}

/// A file that waits for the sync is neither lost nor damaged, and is read as soon as it is there.
#[test]
fn a_mount_waits_for_what_has_not_arrived() {
    if !can_mount() {
        return;
    }
    let desk = Desk::new();
    desk.write("old", bytes(1, 50_000));
    desk.take("2026-01-01");
    let late = desk.await_another("packs");
    let mut mount = Mount::all(&desk);
    let folder = mount.at.join("other/latest/source");
    assert_eq!(fs::read(folder.join("new")).unwrap_err().raw_os_error(), Some(5), "an error of input");
    assert_eq!(fs::read(folder.join("old")).unwrap(), bytes(1, 50_000));
    late.iter().for_each(|(aside, path)| fs::rename(aside, path).unwrap());
    eventually("it has arrived", || fs::read(folder.join("new")).is_ok_and(|content| content == bytes(77, 150_000)));
    let (code, err) = mount.end(Signal::INT);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("source/new") && err.contains("has not arrived yet") && err.lines().count() == 1, "{err}");
    assert!(!err.contains("lost") && !err.contains("damage") && !err.contains("doctor"), "{err}");
}

#[test]
fn a_mount_ends_in_every_way() {
    if !can_mount() {
        return;
    }
    let desk = Desk::new();
    desk.write("a", bytes(1, 3 << 20));
    desk.take("2026-01-01");
    let at = desk.path("mnt");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        if signal == Signal::HUP && ignores_hangups() {
            continue;
        }
        let mut mount = Mount::all(&desk);
        assert_eq!(fs::metadata(mount.latest().join("source/a")).unwrap().len(), 3 << 20);
        assert_eq!(mount.end(signal), (0, String::new()), "{signal:?}");
        assert!(!is_mounted(&at));
    }
    // From outside.
    let mut mount = Mount::by(&desk, &["mount", "--json"]);
    assert!(mount.line.starts_with("{\"mounted\":") && mount.line.contains("\"snapshots\":1"), "{}", mount.line);
    assert_eq!(desk.json(&["umount", at.to_str().unwrap()])[0]["is_used"], false);
    assert_eq!(mount.wait().0, 0);
    // While a program has something open: it can still read, and is named.
    let mut mount = Mount::all(&desk);
    let mut open = File::open(mount.latest().join("source/a")).unwrap();
    kill_process(mount.pid(), Signal::INT).unwrap();
    eventually("it is out of the way", || !is_mounted(&at));
    let mut content = Vec::new();
    open.read_to_end(&mut content).unwrap();
    assert!(content == bytes(1, 3 << 20));
    drop(open);
    let (code, err) = mount.wait();
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("still used by") && err.contains(&format!("process {}", std::process::id())), "{err}");
    // Killed: the next mount takes its place, and umount removes it.
    for next in ["mount", "umount"] {
        let mut mount = Mount::all(&desk);
        mount.child.kill().unwrap();
        mount.child.wait().unwrap();
        assert!(is_mounted(&at) && fs::read_dir(&at).is_err(), "it is dead");
        if next == "mount" {
            let again = Mount::begin(desk.command(&["mount", at.to_str().unwrap()]), &at);
            assert_eq!(names(&again.at.join("source")).len(), 2);
        } else {
            desk.ok(&["umount", at.to_str().unwrap()]);
            assert!(!is_mounted(&at) && fs::read_dir(&at).is_ok());
        }
    }
}

#[test]
fn in_the_background_it_goes_on_by_itself() {
    if !can_mount() {
        return;
    }
    let desk = Desk::new();
    desk.write("a", "x");
    desk.take("2026-01-01");
    let run = desk.path("run");
    fs::create_dir(&run).unwrap();
    let begin = |args: &[&str]| {
        let mut command = desk.command(&[&["mount", "--background"], args].concat());
        said(&command.env("XDG_RUNTIME_DIR", &run).output().unwrap())
    };
    let said = begin(&[]);
    let at = run.join("vault/store");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    assert!(said.out.contains(at.to_str().unwrap()) && said.out.contains("vault umount"), "{}", said.out);
    assert_eq!(fs::read_to_string(at.join("source/latest/source/a")).unwrap(), "x");
    assert_eq!(fs::metadata(&at).unwrap().uid(), 0);
    let again = begin(&[]);
    assert!(again.code == 1 && again.err.contains("already"), "{}", again.err);
    desk.ok(&["umount", at.to_str().unwrap()]);
    eventually("its folder goes with it", || !at.exists());
    let wrong = said_with(&desk, "wrong", &["mount", "--background", desk.path("source").to_str().unwrap()]);
    assert!(wrong.code == 1 && wrong.err.contains("is not empty"), "{}", wrong.err);
    fs::create_dir(desk.path("mnt")).unwrap();
    let wrong = said_with(&desk, "wrong", &["mount", "--background", desk.path("mnt").to_str().unwrap()]);
    assert_eq!(wrong.code, 12, "{}", wrong.err);
    assert!(wrong.err.lines().filter(|line| line.contains("password")).count() == 2, "said once: {}", wrong.err);
}

fn said_with(desk: &Desk, password: &str, args: &[&str]) -> crate::support::binary::Said {
    said(&desk.command(args).env("VAULT_PASSWORD", password).output().unwrap())
}

#[test]
fn what_cannot_be_mounted_is_said() {
    if !can_mount() {
        return;
    }
    let desk = Desk::new();
    desk.write("a/b", "x");
    desk.take("2026-01-01");
    let path = |below: &str| desk.path(below).to_str().unwrap().to_owned();
    let check = |args: &[&str], code: i32, expected: &str| {
        let said = desk.run(&[&["mount"], args].concat());
        assert_eq!(said.code, code, "{args:?}: {}", said.err);
        assert!(said.err.contains(expected), "{args:?}: {}", said.err);
    };
    check(&[&path("source")], 1, "is not empty");
    check(&[&path("source/a/b")], 1, "cannot mount in");
    check(&[&path("nowhere")], 1, "mkdir -p");
    fs::create_dir(desk.path("store/mnt")).unwrap();
    check(&[&path("store/mnt")], 1, "a mount does not go into a vault");
    fs::create_dir(desk.path("mnt")).unwrap();
    check(&["latest:source/a/b", &path("mnt")], 1, "source/a/b is not a folder");
    check(&["latest:nothing", &path("mnt")], 1, "there is no nothing in snapshot ");
    check(&["latest:sorce/a", &path("mnt")], 1, "Did you mean latest:source/a?");
    check(&["2020-01-01", &path("mnt")], 1, "there is no snapshot");
    check(&["--owner", "nobody", &path("mnt")], 2, "nobody");
    let none = desk.run(&["umount", &path("mnt")]);
    assert!(none.code == 1 && none.err.contains("no vault is mounted in"), "{}", none.err);
    assert!(!is_mounted(&desk.path("mnt")));
    // One folder of one snapshot.
    let command = desk.command(&["mount", "latest:source/a", &path("mnt"), "--source", "source"]);
    let mut mount = Mount::begin(command, &desk.path("mnt"));
    assert_eq!(names(&mount.at), BTreeSet::from(["b".to_owned()]));
    assert_eq!(fs::read_to_string(mount.at.join(".versions/b/2026-01-01 00.00")).unwrap(), "x");
    assert_eq!(mount.end(Signal::TERM).0, 0);
}

#[test]
fn who_sees_what_is_chosen() {
    if !can_mount() {
        return;
    }
    let desk = Desk::new();
    desk.write("open", bytes(2, 2 << 20));
    desk.write("closed", "secret");
    let own = |name: &str, mode: u32| {
        let path = desk.source().join(name);
        std::os::unix::fs::chown(&path, Some(12_345), Some(12_346)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    own("open", 0o644);
    own("closed", 0o600);
    desk.take("2026-01-01");
    // Other users reach the mount only through folders that let them.
    fs::set_permissions(desk.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let read = |at: &Path, name: &str, user: u32| {
        let mut command = Command::new("cat");
        command.arg(at.join("source/latest/source").join(name)).uid(user).gid(user);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    let owner = |mount: &Mount| fs::metadata(mount.latest().join("source/open")).unwrap().uid();
    let mount = Mount::by(&desk, &["mount", "--owner", "numbers"]);
    assert_eq!(owner(&mount), 12_345);
    assert!(read(&mount.at, "open", 0) && !read(&mount.at, "open", 12_345), "nobody else sees anything");
    drop(mount);
    let mount = Mount::by(&desk, &["mount", "--owner", "me"]);
    assert_eq!(owner(&mount), 0);
    drop(mount);
    let mount = Mount::by(&desk, &["mount", "--allow-other"]);
    let seen = [("open", 12_345), ("closed", 12_345), ("open", 40_000), ("closed", 40_000)];
    assert_eq!(seen.map(|(name, user)| read(&mount.at, name, user)), [true, true, true, false]);
    assert!(!read(&mount.at, ".versions/closed/2026-01-01 00.00", 12_345), "other users see no old versions");
    assert!(read(&mount.at, ".versions/closed/2026-01-01 00.00", 0));
    drop(mount);
    // Programs that only want to preview files.
    let mount = Mount::by(&desk, &["mount", "--no-preview"]);
    let previewer = desk.path("tumblerd");
    fs::copy("/bin/cat", &previewer).unwrap();
    let preview = |name: &str| {
        let mut command = Command::new(&previewer);
        command.arg(mount.latest().join("source").join(name)).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    };
    assert!(!preview("open") && preview("closed"), "only long files are withheld");
    assert!(read(&mount.at, "open", 0));
    drop(mount);
    // Shown in the file manager.
    let bin = desk.path("bin");
    fs::create_dir(&bin).unwrap();
    let script = format!("#!/bin/sh\necho \"$1\" > {}/shown.new; mv {0}/shown.new {0}/shown\n", bin.display());
    fs::write(bin.join("xdg-open"), script).unwrap();
    fs::set_permissions(bin.join("xdg-open"), fs::Permissions::from_mode(0o755)).unwrap();
    let at = desk.path("mnt");
    let mut command = desk.command(&["mount", at.to_str().unwrap(), "--open"]);
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    let refused = desk.run(&["mount", at.to_str().unwrap(), "--host", "any"]);
    assert!(refused.code == 1 && refused.err.contains("no snapshot of host any"), "{}", refused.err);
    command.args(["--source", "source"]);
    let mount = Mount::begin(command, &at);
    eventually("it is shown", || {
        fs::read_to_string(bin.join("shown")).is_ok_and(|text| text.trim() == at.to_str().unwrap())
    });
    assert_eq!(names(&mount.at), BTreeSet::from(["README.txt", "all", "source"].map(str::to_owned)));
    // The small file that the mount itself makes has no holes, like others.
    let readme = File::open(mount.at.join("README.txt")).unwrap();
    let len = readme.metadata().unwrap().len();
    let seek = |from| rustix::fs::seek(&readme, from);
    assert_eq!((seek(Seeking::Data(3)), seek(Seeking::Hole(3))), (Ok(3), Ok(len)));
    assert_eq!(seek(Seeking::Data(len)), Err(rustix::io::Errno::NXIO));
}

/// Files of another machine in a mount that all users may read.
#[test]
fn numbers_of_another_machine_are_nobody_here() {
    if !can_mount() {
        return;
    }
    let desk = Desk::new();
    desk.write("theirs", "a secret of user 12345 there");
    let path = desk.source().join("theirs");
    std::os::unix::fs::chown(&path, Some(12_345), Some(12_346)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let taken = desk.run(&["snapshot", "--host", "elsewhere", ".", "--source", "source"]);
    assert_eq!(taken.code, 0, "{}", taken.err);
    fs::set_permissions(desk.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let read = |mount: &Mount, user: u32, group: u32| {
        let mut command = Command::new("cat");
        command.arg(mount.latest().join("source/theirs")).uid(user).gid(group);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    let mount = Mount::by(&desk, &["mount", "--allow-other"]);
    let shown = fs::metadata(mount.latest().join("source/theirs")).unwrap();
    assert_eq!((shown.uid(), shown.gid(), shown.mode() & 0o7777), (0, 0, 0o600));
    assert!(read(&mount, 0, 0) && !read(&mount, 12_345, 1) && !read(&mount, 1, 12_346));
    drop(mount);
    // An option keeps the original numbers.
    let mount = Mount::by(&desk, &["mount", "--allow-other", "--owner", "numbers"]);
    assert!(read(&mount, 12_345, 1) && read(&mount, 1, 12_346) && !read(&mount, 1, 1));
}
