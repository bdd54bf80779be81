//! Two machines, each with a copy of a store that a sync carries to the other: late, in any order, and for a while only
//! the first half of a file under its final name. Files that one of them moves aside, deletes or repairs are carried,
//! too.
//!
//! A few lives by default; `VAULT_CAMPAIGN=n` makes it 20 times n of each kind, from `VAULT_SEED` on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use vault::store::dir::DirStore;

use crate::support::binary::{Said, said};
use crate::support::source::{Rng, bytes};
use crate::support::{PASSWORD, campaign, copy_folder, create_vault, scratch, small_chunks};

/// A file on its way to a machine: the path, and its content unless it is a deletion.
#[derive(Debug)]
struct Parcel {
    to: usize,
    path: PathBuf,
    content: Option<Vec<u8>>,
    /// Number of bytes that have arrived.
    is_half: bool,
}

/// Two machines, and a sync between them.
struct Pair {
    folder: tempfile::TempDir,
    /// Each copy as the sync last saw it: path, length and time of each file.
    seen: [BTreeMap<PathBuf, (u64, std::time::SystemTime)>; 2],
    underway: Vec<Parcel>,
    rng: Rng,
    /// Snapshots that were reported: the machine, and the content of the file in it.
    taken: Vec<(usize, String, Vec<u8>)>,
    /// The events so far.
    trace: Vec<String>,
}

fn walk(folder: &Path, below: &Path, found: &mut BTreeMap<PathBuf, (u64, std::time::SystemTime)>) {
    for entry in fs::read_dir(folder.join(below)).into_iter().flatten().flatten() {
        let path = below.join(entry.file_name());
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            walk(folder, &path, found);
        } else {
            found.insert(path, (meta.len(), meta.modified().unwrap()));
        }
    }
}

impl Pair {
    fn new(seed: u64) -> Self {
        let folder = scratch();
        for machine in 0..2 {
            for place in ["store", "source"] {
                fs::create_dir_all(folder.path().join(format!("{machine}/{place}"))).unwrap();
            }
        }
        Self {
            folder,
            seen: Default::default(),
            underway: Vec::new(),
            rng: Rng(seed),
            taken: Vec::new(),
            trace: vec![format!("seed {seed}")],
        }
    }

    fn path(&self, machine: usize, below: &str) -> PathBuf {
        self.folder.path().join(machine.to_string()).join(below)
    }

    fn with(&mut self, machine: usize, password: &str, args: &[&str]) -> Said {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vault"));
        command
            .args(args)
            .env("VAULT_PASSWORD", password)
            .env("VAULT_STATE_DIR", self.path(machine, "state"))
            .env("VAULT_REPO", self.path(machine, "store"))
            .env("HOME", self.path(machine, ""))
            .env_remove("VAULT_CONFIG")
            .current_dir(self.path(machine, "source"))
            .stdin(std::process::Stdio::null());
        let said = said(&command.output().unwrap());
        self.trace.push(format!("machine {machine}: {args:?}: {}", said.code));
        said
    }

    fn run(&mut self, machine: usize, args: &[&str]) -> Said {
        self.with(machine, PASSWORD, args)
    }

    #[track_caller]
    fn ends(&mut self, machine: usize, args: &[&str], codes: &[i32]) -> Said {
        let said = self.run(machine, args);
        assert!(codes.contains(&said.code), "{}\n{}{}", self.trace.join("\n"), said.out, said.err);
        said
    }

    /// A vault whose password is cheap to try, in this machine's copy.
    fn init(&mut self, machine: usize) {
        create_vault(&DirStore::create(&self.path(machine, "store")).unwrap(), small_chunks()).unwrap();
        self.ends(machine, &["delivery", "synced"], &[0]);
    }

    /// A snapshot of a new file.
    fn take(&mut self, machine: usize, options: &[&str]) {
        let content = bytes(self.rng.next(), 3000 + self.rng.below(60_000) as usize);
        fs::write(self.path(machine, "source/file"), &content).unwrap();
        let source = format!("source {machine}");
        let args = [&["snapshot", ".", "--json", "--source", source.as_str()], options].concat();
        let said = self.ends(machine, &args, &[0]);
        let id = said.out.lines().find_map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["snapshot"]["id"].as_str().map(str::to_owned)
        });
        self.taken.push((machine, id.unwrap(), content));
    }

    /// The sync examines both copies: changes in one of them are sent to the other.
    fn look(&mut self) {
        for from in 0..2 {
            let to = 1 - from;
            let mut there = BTreeMap::new();
            walk(&self.path(from, "store"), Path::new(""), &mut there);
            for (path, state) in &there {
                // Names with a dot are unfinished files.
                let is_unfinished = path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."));
                if self.seen[from].get(path) == Some(state) || is_unfinished {
                    continue;
                }
                let content = fs::read(self.path(from, "store").join(path)).unwrap();
                self.underway.push(Parcel { to, path: path.clone(), content: Some(content), is_half: false });
            }
            for path in self.seen[from].keys().filter(|path| !there.contains_key(*path)) {
                // A file that is missing because it was still on its way here was not deleted here.
                self.underway.push(Parcel { to, path: path.clone(), content: None, is_half: false });
            }
            self.seen[from] = there;
        }
    }

    /// A file arrives, perhaps only its first half.
    fn deliver(&mut self) {
        self.look();
        if self.underway.is_empty() {
            return;
        }
        let at = self.rng.below(self.underway.len() as u64) as usize;
        let halves = self.rng.below(3) == 0;
        self.bring(at, halves);
    }

    fn bring(&mut self, at: usize, halves: bool) {
        let Parcel { to, path, content, is_half } = &mut self.underway[at];
        let (to, at_disk) = (*to, self.folder.path().join(to.to_string()).join("store").join(&*path));
        let here = fs::read(&at_disk).ok();
        let mut is_done = true;
        match content {
            None => drop(fs::remove_file(&at_disk)),
            Some(content) if here.as_ref() == Some(content) => {}
            // Both have a file of that name: the sync puts the other one beside it.
            Some(content) if here.is_some() && !*is_half => {
                let conflict = at_disk.with_extension("sync-conflict");
                fs::write(conflict, content).unwrap();
            }
            Some(content) => {
                fs::create_dir_all(at_disk.parent().unwrap()).unwrap();
                let _ = fs::remove_file(&at_disk);
                is_done = *is_half || !halves;
                let len = if is_done { content.len() } else { content.len() / 2 };
                fs::write(&at_disk, &content[..len]).unwrap();
                *is_half = true;
            }
        }
        let path = path.clone();
        self.trace.push(format!("to {to}: {} {}", path.display(), if is_done { "" } else { "(half)" }));
        // The sync does not carry back its own changes.
        match fs::metadata(&at_disk) {
            Ok(meta) => drop(self.seen[to].insert(path, (meta.len(), meta.modified().unwrap()))),
            Err(_) => drop(self.seen[to].remove(&path)),
        }
        if is_done {
            self.underway.remove(at);
        }
    }

    fn deliver_some(&mut self, most: u64) {
        for _ in 0..self.rng.below(most + 1) {
            self.deliver();
        }
    }

    fn deliver_all(&mut self) {
        for _ in 0..4 {
            self.look();
            while !self.underway.is_empty() {
                self.bring(0, false);
            }
        }
    }

    fn quarantined(&self, machine: usize) -> BTreeSet<PathBuf> {
        let mut found = BTreeMap::new();
        walk(&self.path(machine, "store"), Path::new("quarantine"), &mut found);
        found.into_keys().collect()
    }

    /// The snapshots that both machines reported read back from a copy.
    #[track_caller]
    fn reads_all_back(&mut self, from: usize, password: &str) {
        for of in 0..2 {
            self.reads_back(from, of, password, &[]);
        }
    }

    /// Every snapshot that a machine reported reads back from a copy, with further options for its vault.
    #[track_caller]
    fn reads_back(&mut self, from: usize, of: usize, password: &str, options: &[&str]) {
        for (machine, id, content) in self.taken.clone() {
            if machine == of {
                let said = self.with(from, password, &[&["cat", &format!("{id}:source/file")], options].concat());
                let got = said.out.into_bytes();
                let expected = String::from_utf8_lossy(&content).into_owned().into_bytes();
                assert!(got == expected, "{}\nsnapshot {id} is lost: {}", self.trace.join("\n"), said.err);
            }
        }
    }

    fn vault_id(&mut self, machine: usize) -> String {
        let said = self.run(machine, &["list", "--json"]);
        let list: serde_json::Value = serde_json::from_str(said.out.lines().next().unwrap()).unwrap();
        list["vault"].as_str().unwrap().to_owned()
    }
}

fn lives(few: u64) -> std::ops::Range<u64> {
    let first = std::env::var("VAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    first..first + if campaign() > 0 { 20 * campaign() } else { few }
}

/// Both make a vault in the same folder before anything has arrived.
fn two_inits(seed: u64) {
    let mut pair = Pair::new(seed);
    for machine in 0..2 {
        pair.init(machine);
        pair.take(machine, &[]);
    }
    let ids = [pair.vault_id(0), pair.vault_id(1)];
    assert_ne!(ids[0], ids[1]);
    let vault = |machine: usize| ["--vault".to_owned(), ids[machine].clone()];
    for _ in 0..12 {
        pair.deliver_some(6);
        let machine = pair.rng.below(2) as usize;
        let own = vault(machine);
        let own = [own[0].as_str(), own[1].as_str()];
        match pair.rng.below(6) {
            0 | 1 => pair.take(machine, &own),
            2 => drop(pair.ends(machine, &[&["check"], &own[..]].concat(), &[0, 3])),
            3 => drop(pair.ends(machine, &[&["repair", "--yes"], &own[..]].concat(), &[0, 3])),
            4 => drop(pair.ends(machine, &[&["prune", "--keep", "9"], &own[..]].concat(), &[0, 3])),
            _ => drop(pair.ends(machine, &["list"], &[0, 3])),
        }
        for machine in 0..2 {
            assert!(pair.quarantined(machine).is_empty(), "{}", pair.trace.join("\n"));
        }
    }
    pair.deliver_all();
    for machine in 0..2 {
        let known = pair.ends(machine, &["check", "--read-data"], &[3]);
        assert!(known.out.contains(&ids[1 - machine]), "{}{}", known.out, known.err);
        for (of, id) in ids.iter().enumerate() {
            pair.reads_back(machine, of, PASSWORD, &["--vault", id]);
            pair.ends(machine, &["check", "--read-data", "--vault", id], &[3]);
        }
        assert!(pair.quarantined(machine).is_empty());
    }
}

#[test]
fn two_vaults_that_meet_in_a_synced_folder_stay_whole() {
    lives(2).for_each(two_inits);
}

/// A vault that both know.
fn shared(seed: u64) -> Pair {
    let mut pair = Pair::new(seed);
    pair.init(0);
    pair.deliver_all();
    for machine in [0, 1, 0, 1] {
        pair.take(machine, &[]);
        pair.deliver_all();
    }
    pair
}

/// Half files under final names, while both work.
fn halves(seed: u64) {
    let mut pair = shared(seed);
    for _ in 0..16 {
        pair.deliver_some(8);
        let machine = pair.rng.below(2) as usize;
        match pair.rng.below(7) {
            0..3 => pair.take(machine, &[]),
            3 => drop(pair.ends(machine, &["check"], &[0, 3])),
            4 => drop(pair.ends(machine, &["repair", "--yes"], &[0, 3])),
            5 => drop(pair.ends(machine, &["prune", "--keep", "99", "--max-unused", "0%"], &[0, 3])),
            _ => drop(pair.ends(machine, &["list"], &[0, 3])),
        }
    }
    pair.deliver_all();
    for machine in 0..2 {
        pair.ends(machine, &["check", "--read-data"], &[0]);
        assert!(pair.quarantined(machine).is_empty(), "{}", pair.trace.join("\n"));
        pair.reads_all_back(machine, PASSWORD);
    }
}

#[test]
fn what_half_arrives_while_both_work_is_neither_damaged_nor_moved() {
    lives(2).for_each(halves);
}

/// Each adds a password and removes one that the other may be removing too.
fn slots(seed: u64) {
    let mut pair = shared(seed);
    let passwords = [PASSWORD, "first", "second"];
    for (machine, command) in [(0, "echo first"), (1, "echo second")] {
        pair.ends(machine, &["key", "add", "--new-password-command", command], &[0]);
        pair.deliver_all();
    }
    let list = pair.ends(0, &["key", "list", "--json"], &[0]);
    let list: serde_json::Value = serde_json::from_str(list.out.lines().next().unwrap()).unwrap();
    let slots = |purpose: &str| -> Vec<String> {
        let slots = list["slots"].as_array().unwrap().iter().filter(|slot| slot["purpose"] == purpose);
        slots.map(|slot| slot["id"].as_str().unwrap().to_owned()).collect()
    };
    let ids = slots("password");
    assert_eq!(ids.len(), 3);
    for id in slots("recovery") {
        pair.ends(0, &["key", "remove", &id, "--yes"], &[0, 3]);
    }
    pair.deliver_all();
    // Each machine removes some of them, in an order of its own, while the other's records are still on their way.
    for _ in 0..5 {
        let machine = pair.rng.below(2) as usize;
        let id = ids[pair.rng.below(3) as usize].clone();
        let opening = passwords.iter().find(|password| pair.with(machine, password, &["list"]).code == 0);
        let opening = *opening.unwrap_or_else(|| panic!("{}\nnothing opens", pair.trace.join("\n")));
        let removed = pair.with(machine, opening, &["key", "remove", &id, "--yes"]);
        assert!(matches!(removed.code, 0 | 1 | 3), "{}\n{}{}", pair.trace.join("\n"), removed.out, removed.err);
        pair.deliver_some(5);
    }
    pair.deliver_all();
    for machine in [0, 1, 0, 1] {
        let opening = passwords.iter().find(|password| pair.with(machine, password, &["list"]).code == 0);
        let opening = *opening.unwrap_or_else(|| panic!("{}\nnothing opens", pair.trace.join("\n")));
        let taken = pair.with(machine, opening, &["snapshot", ".", "--source", "later"]);
        assert_eq!(taken.code, 0, "{}\n{}", pair.trace.join("\n"), taken.err);
        pair.deliver_all();
    }
    let opens = |pair: &mut Pair, machine: usize| -> Vec<bool> {
        passwords.iter().map(|password| pair.with(machine, password, &["list"]).code == 0).collect()
    };
    let (here, there) = (opens(&mut pair, 0), opens(&mut pair, 1));
    assert!(here.contains(&true), "{}\nnothing opens", pair.trace.join("\n"));
    assert_eq!(here, there, "{}", pair.trace.join("\n"));
    let opening = passwords[here.iter().position(|opens| *opens).unwrap()];
    for machine in 0..2 {
        pair.reads_all_back(machine, opening);
    }
}

#[test]
fn of_slots_that_both_machines_remove_one_opens_on_both() {
    lives(1).for_each(slots);
}

/// A pack rots in one copy. The repair there is carried to the other.
fn repair_is_carried(seed: u64) {
    let mut pair = shared(seed);
    let whole = |pair: &Pair, machine: usize| {
        let mut found = BTreeMap::new();
        walk(&pair.path(machine, "store"), Path::new("packs"), &mut found);
        found.into_keys().collect::<Vec<_>>()
    };
    let packs = whole(&pair, 0);
    let machine = pair.rng.below(2) as usize;
    let path = packs[pair.rng.below(packs.len() as u64) as usize].clone();
    let at = pair.path(machine, "store").join(&path);
    let mut content = fs::read(&at).unwrap();
    let sound = content.clone();
    content[sound.len() / 3] ^= 4;
    fs::remove_file(&at).unwrap();
    fs::write(&at, &content).unwrap();
    // The sync ignores rot: no program wrote.
    let meta = fs::metadata(&at).unwrap();
    pair.seen[machine].insert(path.clone(), (meta.len(), meta.modified().unwrap()));
    // A pack of another machine may look as if it had not fully arrived.
    pair.ends(machine, &["check", "--read-data"], &[3, 4]);
    let repaired = pair.ends(machine, &["repair", "--yes"], &[0, 3, 4]);
    let moved = !at.exists();
    pair.deliver_some(4);
    for other in 0..2 {
        pair.run(other, &["check"]);
        pair.run(other, &["prune", "--keep", "99"]);
    }
    pair.deliver_all();
    if !moved {
        // It belongs to the other machine, whose copy is whole: it stays, and nothing is lost there.
        assert_eq!(fs::read(pair.path(1 - machine, "store").join(&path)).unwrap(), sound, "{}", repaired.out);
        for of in 0..2 {
            pair.reads_back(1 - machine, of, PASSWORD, &[]);
        }
        return;
    }
    // The machine that put it moved it aside, and both know the losses from now on.
    let lost = |pair: &mut Pair, from: usize| -> Vec<String> {
        let mut lost = Vec::new();
        for (_, id, content) in pair.taken.clone() {
            let said = pair.run(from, &["cat", &format!("{id}:source/file")]);
            if said.code != 0 || said.out != String::from_utf8_lossy(&content) {
                lost.push(id);
            }
        }
        lost
    };
    let (here, there) = (lost(&mut pair, machine), lost(&mut pair, 1 - machine));
    assert_eq!(here, there, "{}", pair.trace.join("\n"));
    for machine in 0..2 {
        let check = pair.run(machine, &["check"]);
        assert_eq!(check.code == 4, !here.is_empty(), "{}\n{}{}", pair.trace.join("\n"), check.out, check.err);
        for other in 0..2 {
            pair.take(other, &[]);
        }
        pair.deliver_all();
        pair.run(machine, &["check", "--read-data"]);
    }
    // Only that pack was moved.
    let aside = pair.quarantined(machine);
    assert!(aside.len() <= 2, "{aside:?}");
}

#[test]
fn a_repair_that_is_carried_costs_the_other_copy_nothing_that_is_not_said() {
    lives(3).for_each(repair_is_carried);
}

/// How objects are harmed that another machine put.
const HARMS: [&str; 3] = ["missing", "empty", "cut"];

/// The commands that read a vault, each with the snapshots before it and after it as `OLD` and `NEW`, and whether it
/// meets data that is not there; all of them meet trees that are not there.
const READS: [(&str, bool); 18] = [
    ("restore NEW --to ../out", true),
    ("restore NEW --to ../dry --dry-run", true),
    ("export NEW --tar ../out.tar", true),
    ("cat NEW:source/deep/new", true),
    ("ls NEW:source/deep", false),
    ("ls NEW --recursive", false),
    ("ls NEW --digest", false),
    ("find new", false),
    ("du NEW", false),
    ("du NEW --since OLD", false),
    ("diff OLD NEW", false),
    ("history source/deep/new", false),
    ("stats", true),
    ("drill", true),
    ("prune --keep 9", false),
    ("mirror --to ../mirror", false),
    ("check", true),
    ("doctor", true),
];

/// The commands that say what is known, once a check has found it.
const KNOWING: [&str; 5] = ["list", "accept", "stats", "doctor", "run --now"];

/// Two machines that both have the vault of the first one, with a snapshot.
fn alike(is_synced: bool) -> Pair {
    let mut pair = Pair::new(1);
    create_vault(&DirStore::create(&pair.path(0, "store")).unwrap(), small_chunks()).unwrap();
    if is_synced {
        pair.ends(0, &["delivery", "synced"], &[0]);
    }
    pair.take(0, &[]);
    copy_folder(&pair.path(0, "store"), &pair.path(1, "store"));
    pair.ends(1, &["list"], &[0]);
    pair
}

/// A machine lacks what another one put in this folder of the store. All commands agree about what that means.
fn lacks(is_synced: bool, folder: &str, how: &str) {
    let mut pair = alike(is_synced);
    let mut before = BTreeMap::new();
    walk(&pair.path(0, "store"), Path::new(folder), &mut before);
    fs::create_dir(pair.path(0, "source/deep")).unwrap();
    fs::write(pair.path(0, "source/deep/new"), bytes(7, 90_000)).unwrap();
    pair.take(0, &[]);
    let mut after = BTreeMap::new();
    walk(&pair.path(0, "store"), Path::new(""), &mut after);
    for path in after.keys() {
        let is_harmed = path.starts_with(folder) && !before.contains_key(path);
        let content = fs::read(pair.path(0, "store").join(path)).unwrap();
        let content = match how {
            _ if !is_harmed => &content[..],
            "missing" => continue,
            "empty" => &[],
            _ => &content[..content.len() / 2],
        };
        let to = pair.path(1, "store").join(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        if !to.exists() {
            fs::write(to, content).unwrap();
        }
    }
    let (old, new) = (pair.taken[0].1.clone(), pair.taken[1].1.clone());
    let config = format!(
        "[vaults.there]\npath = {:?}\ncheck-every = \"never\"\n[sources.own]\npaths = [{:?}]\n[notify]\ndesktop = \"never\"\n",
        pair.path(1, "store"),
        pair.path(1, "source")
    );
    fs::create_dir_all(pair.path(1, ".config/vault")).unwrap();
    fs::write(pair.path(1, ".config/vault/vault.toml"), config).unwrap();
    fs::write(pair.path(1, "source/own"), "own").unwrap();
    let knowing = KNOWING.map(|command| (command, true));
    for (at, (command, meets_data)) in READS.into_iter().chain(knowing).enumerate() {
        let args: Vec<String> = command.split(' ').map(|word| word.replace("OLD", &old).replace("NEW", &new)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let meets = match command {
            // What is not there is not copied either.
            "mirror --to ../mirror" => how != "missing",
            // It has met the loss before, in the order of these commands.
            "prune --keep 9" if !is_synced => true,
            _ => meets_data || folder == "meta",
        };
        let code = match (meets, is_synced) {
            (false, _) => 0,
            (true, true) => 3,
            (true, false) => 4,
        };
        let said = pair.ends(1, &args, &[code]);
        let text = format!("{}{}", said.out, said.err);
        let harm = text.to_lowercase().replace("no damage was found", "").replace("nothing is lost", "");
        let harm = harm.replace("the password is lost", "").replace("password that is lost", "");
        if code == 3 {
            assert!(text.contains("arrived"), "{how} {folder}: {command}: {text}");
            assert!(!["damage", "lost", "no difference."].iter().any(|word| harm.contains(word)), "{command}: {text}");
        }
        assert!(is_synced || !text.contains("arrived"), "{how} {folder}: {command}: {text}");
        if at == 0 {
            // Before any check, what one command has met is known to the others.
            pair.ends(1, &["list"], &[code]);
        }
    }
    // When the rest is here, nobody has to check again.
    for (path, arrived) in after.keys().map(|path| (path, pair.path(1, "store").join(path))) {
        fs::create_dir_all(arrived.parent().unwrap()).unwrap();
        fs::copy(pair.path(0, "store").join(path), arrived).unwrap();
    }
    if is_synced {
        ["list", "accept", "stats", "check"].iter().for_each(|command| drop(pair.ends(1, &[command], &[0])));
    }
}

#[test]
fn what_has_not_arrived_is_called_so_by_every_command() {
    for how in HARMS {
        lacks(true, "packs", how);
    }
}

#[test]
fn trees_that_have_not_arrived_are_called_so_by_every_command() {
    for how in HARMS {
        lacks(true, "meta", how);
    }
}

#[test]
fn where_nothing_arrives_late_what_is_not_there_is_lost() {
    for (folder, how) in [("packs", "missing"), ("packs", "cut"), ("meta", "missing"), ("meta", "empty")] {
        lacks(false, folder, how);
    }
}

/// Both copies of a new key slot have arrived in part, at a machine that the slot does not concern.
#[test]
fn a_key_slot_that_has_arrived_in_part_is_not_damaged() {
    for how in ["empty", "cut"] {
        let mut pair = Pair::new(1);
        pair.init(0);
        pair.take(0, &[]);
        copy_folder(&pair.path(0, "store"), &pair.path(1, "store"));
        pair.ends(1, &["list"], &[0]);
        pair.ends(0, &["key", "add", "--recovery-key"], &[0]);
        let mut keys = BTreeMap::new();
        walk(&pair.path(0, "store"), Path::new("keys"), &mut keys);
        for path in keys.keys().filter(|path| !pair.path(1, "store").join(path).exists()) {
            let content = fs::read(pair.path(0, "store").join(path)).unwrap();
            let arrived = if how == "cut" { &content[..content.len() - 50] } else { &[] };
            fs::write(pair.path(1, "store").join(path), arrived).unwrap();
        }
        copy_folder(&pair.path(0, "store/log"), &pair.path(1, "store/log"));
        for command in ["list", "check", "doctor", "stats", "repair --dry-run", "repair --yes", "list"] {
            let args: Vec<&str> = command.split(' ').collect();
            let said = pair.ends(1, &args, &[3]);
            let text = format!("{}{}", said.out, said.err).to_lowercase().replace("no damage was found", "");
            assert!(!text.contains("damage"), "{how}: {command}: {text}");
        }
    }
}

/// Machine 1 has the vault and a mirror of it. Of what machine 0 put last into `folder`, `side` of these has only a half.
/// Returns the machines, and the objects that are not whole.
fn half_mirrored(is_synced: bool, folder: &str, side: &str) -> (Pair, Vec<PathBuf>) {
    let mut pair = alike(is_synced);
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    walk(&pair.path(0, "store"), Path::new(folder), &mut before);
    pair.take(0, &[]);
    pair.ends(0, &["key", "add", "--recovery-key"], &[0]);
    pair.ends(0, &["mirror", "--to", "../mirror"], &[0]);
    walk(&pair.path(0, "store"), Path::new(folder), &mut after);
    for place in ["store", "mirror"] {
        copy_folder(&pair.path(0, place), &pair.path(1, place));
    }
    let new: Vec<PathBuf> = after.into_keys().filter(|path| !before.contains_key(path)).collect();
    assert!(!new.is_empty(), "{folder}");
    for path in &new {
        let at = pair.path(1, side).join(path);
        let content = fs::read(&at).unwrap();
        fs::remove_file(&at).unwrap();
        fs::write(&at, &content[..content.len() / 2]).unwrap();
    }
    (pair, new)
}

/// A command about a mirror at machine 1, with the password or without any, and no terminal.
#[track_caller]
fn mirrors(pair: &Pair, options: &[&str], has_password: bool, code: i32) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vault"));
    command
        .args([&["mirror", "--to", "../mirror"], options].concat())
        .env("VAULT_STATE_DIR", pair.path(1, "state"))
        .env("VAULT_REPO", pair.path(1, "store"))
        .env("HOME", pair.path(1, ""))
        .env_remove("VAULT_CONFIG")
        .env_remove("VAULT_PASSWORD")
        .current_dir(pair.path(1, "source"))
        .stdin(std::process::Stdio::null());
    if has_password {
        command.env("VAULT_PASSWORD", PASSWORD);
    }
    let said = said(&command.output().unwrap());
    assert_eq!(said.code, code, "{options:?} {has_password}: {}{}", said.out, said.err);
    format!("{}{}", said.out, said.err)
}

/// The kinds of objects, by their folders.
const FOLDERS: [&str; 5] = ["packs", "meta", "log", "index", "keys"];

/// An object that has not arrived whole in a vault is late for its mirror, with and without the password. Whole objects
/// of the mirror stay.
#[test]
fn a_mirror_waits_for_what_has_not_arrived_in_the_vault() {
    for folder in FOLDERS {
        let (pair, new) = half_mirrored(true, folder, "store");
        for options in [&["--verify"][..], &["--mend"], &[]] {
            let text = mirrors(&pair, options, true, 3);
            assert!(text.contains("has not arrived yet"), "{folder} {options:?}: {text}");
            assert!(!text.contains("damage"), "{folder} {options:?}: {text}");
            let unsure = mirrors(&pair, options, false, 3);
            assert!(unsure.contains("has not arrived whole yet, or is damaged"), "{folder} {options:?}: {unsure}");
        }
        for path in new {
            let whole = fs::read(pair.path(0, "store").join(&path)).unwrap();
            assert_eq!(fs::read(pair.path(1, "mirror").join(&path)).unwrap(), whole, "{}", path.display());
            fs::write(pair.path(1, "store").join(&path), whole).unwrap();
        }
        for options in [&["--verify"][..], &[]] {
            mirrors(&pair, options, false, 0);
        }
    }
}

/// An object that has not arrived whole in the place of a mirror is late, too; it is replaced on request.
#[test]
fn what_has_not_arrived_in_a_mirror_is_not_damaged() {
    for folder in FOLDERS {
        let (pair, new) = half_mirrored(true, folder, "mirror");
        let text = mirrors(&pair, &["--verify"], true, 3);
        assert!(text.contains("in the mirror has not arrived yet") && !text.contains("damage"), "{folder}: {text}");
        let unsure = mirrors(&pair, &["--verify"], false, 3);
        assert!(unsure.contains("has not arrived whole yet, or is damaged"), "{folder}: {unsure}");
        mirrors(&pair, &["--mend"], true, 0);
        mirrors(&pair, &["--verify"], true, 0);
        for path in new {
            let whole = fs::read(pair.path(0, "store").join(&path)).unwrap();
            assert_eq!(fs::read(pair.path(1, "mirror").join(&path)).unwrap(), whole, "{}", path.display());
        }
    }
}

/// Where nothing arrives late, the same is damage: of the vault, or of the mirror.
#[test]
fn where_nothing_arrives_late_what_is_not_whole_is_damaged_for_a_mirror() {
    for folder in FOLDERS {
        let (pair, new) = half_mirrored(false, folder, "store");
        for (options, has_password) in [(&["--verify"][..], true), (&["--mend"], false), (&[], true), (&[], false)] {
            let text = mirrors(&pair, options, has_password, 4);
            assert!(text.contains("damaged in the vault") && !text.contains("arrived"), "{folder} {options:?}: {text}");
        }
        for path in new {
            let whole = fs::read(pair.path(0, "store").join(&path)).unwrap();
            assert_eq!(fs::read(pair.path(1, "mirror").join(&path)).unwrap(), whole, "{}", path.display());
        }
        let (pair, _) = half_mirrored(false, folder, "mirror");
        for has_password in [true, false] {
            let text = mirrors(&pair, &["--verify"], has_password, 4);
            assert!(text.contains("--mend") && !text.contains("arrived"), "{folder}: {text}");
        }
        mirrors(&pair, &["--mend"], false, 0);
    }
}

/// On a synced store, data that this machine itself put does not arrive: it was here.
#[test]
fn what_this_machine_put_itself_is_not_on_its_way() {
    for folder in ["packs", "meta"] {
        let mut pair = Pair::new(1);
        pair.init(0);
        pair.take(0, &[]);
        let mut packs = BTreeMap::new();
        walk(&pair.path(0, "store"), Path::new(folder), &mut packs);
        packs.keys().for_each(|path| fs::remove_file(pair.path(0, "store").join(path)).unwrap());
        for args in [&["restore", "latest", "--to", "../out"][..], &["cat", "latest:source/file"], &["check"]] {
            let said = pair.ends(0, args, &[4]);
            assert!(!said.err.contains("arrived"), "{folder}: {args:?}: {}", said.err);
        }
    }
}
