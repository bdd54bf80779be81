//! Data of a later version of vault: it is never called damage, never moved or deleted, and every command does what it
//! can. The bytes are made here, field by field, as SPEC says.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use vault::id::{ClientId, Digest, ObjectName};
use vault::log::record::ValidSlot;
use vault::log::{Record, RecordBody, SlotChange};
use vault::progress::Silent;
use vault::seal::{IndexSection, ObjectKind, Purpose, Secret, SlotFile};
use vault::store::dir::DirStore;
use vault::tree::Stream;
use vault::vault::locked::Slots;
use vault::vault::open::open;
use vault::vault::{OpenOptions, Vault};

use crate::support::binary::{Desk, Said};
use crate::support::{PASSWORD, RAW, cheap, copy_folder, create_vault, identity, now, scratch, small_chunks};

/// A vault with two snapshots, and crafted objects in it.
struct Future {
    desk: Desk,
    vault: Vault,
    /// The other machine, which has put a snapshot.
    client: String,
    /// Its snapshot.
    first: String,
}

/// A msgpack map with text keys.
#[derive(Default, Clone)]
struct Map(Vec<(String, Vec<u8>)>);

impl Map {
    fn with(mut self, key: &str, value: Vec<u8>) -> Self {
        self.0.push((key.to_owned(), value));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0xde, 0, u8::try_from(self.0.len()).unwrap()];
        for (key, value) in &self.0 {
            out.push(0xa0 | u8::try_from(key.len()).unwrap());
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(value);
        }
        out
    }
}

fn int(number: u64) -> Vec<u8> {
    [&[0xcf][..], &number.to_be_bytes()].concat()
}

fn bin(bytes: &[u8]) -> Vec<u8> {
    [&[0xc6][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// The message of the first record of client 16 × 0xf0. Its time is before that of everything else, so that its clock
/// contradicts nobody's.
fn message(version: u64, kind: u64, body: &[u8]) -> Map {
    numbered(1, &[0; 32], vec![0x90], version, kind, body)
}

/// The message of the record of this number, whose writer had seen `seen`.
fn numbered(number: u64, previous: &[u8], seen: Vec<u8>, version: u64, kind: u64, body: &[u8]) -> Map {
    Map::default()
        .with("v", int(version))
        .with("c", bin(&[0xf0; 16]))
        .with("n", int(number))
        .with("p", bin(previous))
        .with("s", seen)
        .with("t", vec![0x92, 0xce, 0x60, 0, 0, 0, 0])
        .with("k", int(kind))
        .with("b", bin(body))
}

/// A desk with two snapshots, one by another machine, an empty vault beside it, copies to import, and a configuration.
fn template() -> &'static Desk {
    static TEMPLATE: OnceLock<Desk> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let desk = Desk::new();
        desk.write("a", "one");
        desk.write("folder/b", vec![7; 5000]);
        desk.take("2026-01-01 12:00");
        desk.write("folder/c", "three");
        desk.take("2026-01-02 12:00");
        desk.write("../copies/2025-05-05/x", "x");
        desk.write("../password", "another password\n");
        let mut other = desk.command(&["snapshot", "../copies", "--source", "other", "--time", "2025-12-01"]);
        assert!(other.env("VAULT_STATE_DIR", desk.path("other-state")).output().unwrap().status.success());
        fs::create_dir(desk.path("other")).unwrap();
        create_vault(&DirStore::open(&desk.path("other")).unwrap(), small_chunks()).unwrap();
        desk
    })
}

impl Future {
    /// A vault of one machine.
    fn alone() -> Self {
        let desk = Desk::new();
        desk.write("a", "one");
        desk.take("2026-01-01 12:00");
        Self::on(desk)
    }

    fn new() -> Self {
        let template = template();
        let desk = Desk { folder: scratch() };
        for folder in ["store", "state", "source", "copies", "other"] {
            copy_folder(&template.path(folder), &desk.path(folder));
        }
        fs::copy(template.path("password"), desk.path("password")).unwrap();
        let configuration = format!(
            "[vaults.store]\npath = {:?}\n[sources.run]\npaths = [{:?}]\nvaults = [\"store\"]\n",
            desk.path("store"),
            desk.path("copies")
        );
        fs::write(desk.path("vault.toml"), configuration).unwrap();
        Self::on(desk)
    }

    fn on(desk: Desk) -> Self {
        let store = std::sync::Arc::new(DirStore::open(&desk.path("store")).unwrap());
        let options = OpenOptions::new(desk.path("crafting"), identity("crafter"));
        let vault = open(store, &Secret::raw(&RAW), options, &Silent::default()).unwrap();
        let first = &vault.snapshots()[0];
        let (client, first) = (first.client.to_string(), first.id.to_string());
        Self { desk, vault, client, first }
    }

    fn put(&self, folder: &str, name: ObjectName, bytes: &[u8]) -> PathBuf {
        let name = name.to_string();
        let below = if matches!(folder, "packs" | "meta") { format!("{}/{name}", &name[..2]) } else { name };
        let path = self.desk.path("store").join(folder).join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Puts a record with this message.
    fn record(&self, message: &Map) -> PathBuf {
        let message = message.bytes();
        let mut plain = u32::try_from(message.len()).unwrap().to_le_bytes().to_vec();
        plain.extend_from_slice(&message);
        plain.resize(plain.len().next_multiple_of(1024), 0);
        let sealer = self.vault.keys().create_object(ObjectKind::Record).unwrap();
        let mut bytes = sealer.header().to_vec();
        sealer.seal_record(&plain, &mut bytes).unwrap();
        bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
        self.put("log", sealer.name(), &bytes)
    }

    /// Puts a pack of one segment with these bytes in clear as its footer and as the body of the segment.
    fn pack(&self, footer: &[u8], body: &[u8]) -> PathBuf {
        let sealer = self.vault.keys().create_object(ObjectKind::Pack).unwrap();
        let mut bytes = sealer.header().to_vec();
        sealer.seal_segment(0, &[], body, &mut bytes).unwrap();
        let end = bytes.len() as u64;
        bytes.resize(64 << 10, 0);
        let at = bytes.len() as u64;
        let index = self.vault.keys().index_seal(ObjectKind::Pack, sealer.name());
        index.seal(IndexSection::Footer, footer, &mut bytes).unwrap();
        let len = u32::try_from(bytes.len() as u64 - at).unwrap();
        let locator = [&at.to_le_bytes()[..], &len.to_le_bytes(), &end.to_le_bytes(), &1_u32.to_le_bytes()].concat();
        index.seal(IndexSection::Locator, &locator, &mut bytes).unwrap();
        bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
        self.put("packs", sealer.name(), &bytes)
    }

    /// Puts an object after `change` has changed its bytes; its trailer fits again.
    fn changed(&self, folder: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let kind = match folder {
            "log" => ObjectKind::Record,
            "packs" => ObjectKind::Pack,
            _ => ObjectKind::Meta,
        };
        let sealer = self.vault.keys().create_object(kind).unwrap();
        let mut bytes = sealer.header().to_vec();
        sealer.seal_record(&vec![1; 70_000], &mut bytes).unwrap();
        change(&mut bytes);
        bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
        self.put(folder, sealer.name(), &bytes)
    }

    /// Puts a snapshot's record whose top folder is this listing.
    fn snapshot(&self, listing: &[u8]) -> PathBuf {
        // The listing is first stored as the content of a file.
        self.desk.write("listing", listing);
        self.desk.take("2026-01-03 12:00");
        fs::remove_file(self.desk.source().join("listing")).unwrap();
        self.vault.refresh(&Silent::default()).unwrap();
        let info = self.vault.snapshots().pop().unwrap();
        let top = vault::engine::query::browse::find_entry(&self.vault, &info, b"source/listing").unwrap();
        let stream: Stream = top.content.unwrap();
        let mut body = info.body;
        body.tree = stream;
        body.time.secs += 60;
        let record = Record {
            client: ClientId::new([0xf0; 16]),
            number: 1,
            previous: vault::id::Digest::new([0; 32]),
            seen: Vec::new(),
            time: body.time,
            claims: Vec::new(),
            closed: Vec::new(),
            body: RecordBody::Snapshot(Box::new(body)),
        };
        let sealed = record.seal(self.vault.keys()).unwrap();
        self.put("log", sealed.name, &sealed.bytes)
    }
}

/// A slot that opens with another password, whose keyring has these features, and whose bytes `change` has changed; its
/// checksum fits again.
fn slot_with(future: &Future, features: u64, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let slots = Slots::read(future.vault.store()).unwrap();
    let mut keyring = slots.copies.iter().find_map(|(_, slot)| slot.unlock(&Secret::raw(&RAW)).ok()).unwrap();
    keyring.features = features;
    let kdf = cheap();
    let slot =
        SlotFile::create(&keyring, &Secret::password("later"), Purpose::Password, "later", 1_700_000_000, kdf).unwrap();
    let mut bytes = slot.as_bytes().to_vec();
    change(&mut bytes);
    let end = bytes.len() - 32;
    let checksum = *blake3::hash(&bytes[..end]).as_bytes();
    bytes[end..].copy_from_slice(&checksum);
    bytes
}

/// The password's slot with its keyring changed, sealed again as SPEC §4.2 says; only its info no longer opens.
fn with_keyring(slot: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let u32_at = |at: usize| u32::from_le_bytes(slot[at..at + 4].try_into().unwrap());
    let costs = argon2::Params::new(u32_at(12), u32_at(16), u32::from(slot[11]), Some(32)).unwrap();
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, costs);
    let mut stretched = [0; 32];
    argon2.hash_password_into(PASSWORD.as_bytes(), &slot[56..88], &mut stretched).unwrap();
    let cipher = XChaCha20Poly1305::new(&blake3::derive_key("vault 2026 slot kek", &stretched).into());
    let nonce: [u8; 24] = slot[120..144].try_into().unwrap();
    let tag: [u8; 16] = slot[400..416].try_into().unwrap();
    let mut bytes = slot.to_vec();
    let mut ring = slot[144..400].to_vec();
    cipher.decrypt_inout_detached(&nonce.into(), &slot[..120], ring.as_mut_slice().into(), &tag.into()).unwrap();
    change(&mut ring);
    let tag = cipher.encrypt_inout_detached(&nonce.into(), &slot[..120], ring.as_mut_slice().into()).unwrap();
    bytes[144..400].copy_from_slice(&ring);
    bytes[400..416].copy_from_slice(&tag);
    let checksum = blake3::hash(&bytes[..560]);
    bytes[560..].copy_from_slice(checksum.as_bytes());
    bytes
}

/// Replaces the slots that the password opens by slots with a changed keyring.
fn keyrings(future: &Future, change: fn(&mut [u8])) -> Vec<PathBuf> {
    let folder = future.desk.path("store/keys");
    let slots = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let passwords: Vec<PathBuf> = slots.filter(|path| fs::read(path).unwrap()[10] == 1).collect();
    assert_eq!(passwords.len(), 2);
    for path in &passwords {
        let bytes = with_keyring(&fs::read(path).unwrap(), change);
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    }
    passwords
}

/// Subject of a command, which decides how it ends when something is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// It shows what it knows of snapshots, keys and machines, whatever else there is.
    Known,
    /// The vault as a whole: it reports that something is unknown.
    Whole,
    /// It adds a record.
    Writing,
    /// It adds a record, and then reports the state of the vault as a whole.
    Running,
    /// It frees space.
    Collecting,
    /// It needs no keys, and reads only names and bytes.
    Bytes,
}

/// Every command that concerns a vault, in an order in which each still finds something to do. `{}` stands for the
/// folder of the desk, `{origin}` for the folder of the snapshots, `{client}` for another machine, `{first}` for its
/// snapshot, `{slot}` for the slot that was added.
const COMMANDS: &[(About, &[&str])] = &[
    (About::Whole, &["list"]),
    (About::Known, &["ls", "2026-01-02"]),
    (About::Known, &["cat", "2026-01-02:source/a"]),
    (About::Known, &["find", "b"]),
    (About::Known, &["history", "source/a"]),
    (About::Known, &["why", "{origin}/a"]),
    (About::Known, &["why", "--json", "{}/source/a"]),
    (About::Known, &["diff", "2026-01-01", "2026-01-02"]),
    (About::Known, &["diff", "2026-01-02", "live", "--source", "source"]),
    (About::Known, &["du", "2026-01-02"]),
    (About::Known, &["restore", "2026-01-02", "--to", "{}/out"]),
    (About::Known, &["export", "2026-01-02", "--tar", "{}/out.tar"]),
    (About::Known, &["drill"]),
    (About::Known, &["mount", "{}/mnt"]),
    (About::Known, &["ui", "--no-open", "--read-only"]),
    (About::Whole, &["stats"]),
    (About::Whole, &["doctor"]),
    (About::Known, &["key", "list"]),
    (About::Known, &["client", "list"]),
    (About::Known, &["delivery"]),
    (About::Whole, &["accept"]),
    (About::Whole, &["check"]),
    (About::Whole, &["check", "--read-data"]),
    (About::Whole, &["repair", "--dry-run"]),
    (About::Whole, &["repair", "--yes"]),
    (About::Bytes, &["mirror", "--to", "{}/mirror"]),
    (About::Writing, &["promote", "--repo", "{}/mirror", "--yes"]),
    (About::Known, &["copy", "--to", "{}/other"]),
    (About::Writing, &["snapshot", ".", "--source", "source"]),
    (About::Writing, &["import", "--dirs", "{}/copies"]),
    (About::Running, &["run", "--config", "{}/vault.toml", "--now", "--no-prune", "--no-check"]),
    (About::Writing, &["tag", "add", "new", "2026-01-02", "--source", "source"]),
    (About::Writing, &["tag", "remove", "new", "2026-01-02", "--source", "source"]),
    (About::Writing, &["amend", "{first}", "--description", "amended"]),
    (About::Writing, &["rewrite", "--exclude", "c", "--source", "source", "--yes"]),
    (About::Writing, &["pin", "2026-01-01", "--source", "source"]),
    (About::Writing, &["unpin", "2026-01-01", "--source", "source"]),
    (About::Writing, &["forget", "2026-01-01", "--source", "source"]),
    (About::Writing, &["client", "retire", "{client}"]),
    (About::Writing, &["key", "add", "--recovery-key", "--label", "added"]),
    (About::Writing, &["key", "remove", "{slot}", "--yes"]),
    (About::Collecting, &["prune", "--keep", "1", "--yes"]),
    (About::Whole, &["list"]),
    (About::Writing, &["delivery", "synced"]),
    (About::Writing, &["key", "passwd", "--new-password-file", "{}/password"]),
];

/// Commands that do not concern an existing vault, with the reasons.
const APART: &[(&str, &str)] = &[
    ("init", "makes a new vault, and leaves one that is there as it is without opening it"),
    ("umount", "ends the mount of another process"),
    ("completions", "prints a script"),
    ("man", "writes pages"),
    ("config", "is about the configuration"),
    ("config init", "is about the configuration"),
    ("config check", "is about the configuration"),
    ("schedule install", "is about the scheduler of the system"),
    ("schedule status", "is about the scheduler of the system"),
    ("schedule remove", "is about the scheduler of the system"),
    ("version", "is about the program"),
];

#[test]
fn every_command_is_tried() {
    let mut commands = Vec::new();
    crate::options::tree(&[], &mut commands);
    let words: Vec<String> = commands.iter().map(|(words, _)| words.join(" ")).collect();
    let has_others = |name: &str| name != "config" && words.iter().any(|other| other.starts_with(&format!("{name} ")));
    for name in words.iter().filter(|name| !name.is_empty() && !has_others(name)) {
        let tried = COMMANDS.iter().any(|(_, args)| format!("{} ", args.join(" ")).starts_with(&format!("{name} ")));
        let apart = APART.iter().any(|(other, _)| other == name);
        assert!(tried != apart, "vault {name} is in one of the two tables, and only in one");
    }
    for (name, _) in APART {
        assert!(words.iter().any(|other| other == name), "there is no command {name}");
    }
}

/// Expected exit codes of commands when something is unknown.
#[derive(Debug, Clone, Default)]
struct Expected {
    known: i32,
    whole: i32,
    writing: i32,
    collecting: i32,
    bytes: i32,
    /// Commands, by their first words, that end otherwise.
    but: Vec<(&'static str, i32)>,
}

impl Expected {
    fn but(mut self, other: &[(&'static str, i32)]) -> Self {
        self.but.extend_from_slice(other);
        self
    }

    fn of(&self, about: About, command: &str) -> i32 {
        if let Some((_, code)) = self.but.iter().rev().find(|(start, _)| command.starts_with(start)) {
            return *code;
        }
        match about {
            About::Known => self.known,
            // A vault without a recovery key, of which nothing was ever verified, is never quite well.
            About::Whole if command == "doctor" && self.whole == 0 => 3,
            About::Whole => self.whole,
            About::Writing => self.writing,
            About::Running => self.writing.max(self.whole),
            About::Collecting => self.collecting,
            About::Bytes => self.bytes,
        }
    }
}

/// Nothing is reported.
fn silent() -> Expected {
    Expected::default()
}

/// Commands that know the whole vault report newer objects.
fn reported() -> Expected {
    Expected { whole: 3, ..silent() }
}

/// As [`reported`], for a record: it may be a snapshot, so copies of all snapshots report it too.
fn unread() -> Expected {
    reported().but(&[("copy", 3)])
}

/// As [`unread`], for a record that may need something: nothing is deleted.
fn held() -> Expected {
    Expected { collecting: 3, ..unread() }
}

/// As [`held`], for a record that another one holds: it is no object that is judged by itself.
fn held_inside() -> Expected {
    held()
}

/// The vault cannot be opened by this version.
fn refused() -> Expected {
    Expected { known: 1, whole: 1, writing: 1, collecting: 1, bytes: 0, but: Vec::new() }
}

/// Runs a command. A mount and the page are read from, and ended; `None` if that cannot be done here.
fn run(desk: &Desk, args: &[&str]) -> Option<Said> {
    match args[0] {
        #[cfg(target_os = "linux")]
        "mount" => {
            if !crate::mount::can_mount() {
                return None;
            }
            let at = desk.path("mnt");
            fs::create_dir_all(&at).unwrap();
            let mut mount = match crate::mount::Mount::attempt(desk.command(args), &at) {
                Ok(mount) => mount,
                Err(said) => return Some(said),
            };
            let dates = fs::read_dir(mount.at.join("source")).unwrap().map(|entry| entry.unwrap().path());
            let known = dates.into_iter().find(|path| path.to_str().unwrap().contains("2026-01-02")).unwrap();
            assert_eq!(fs::read_dir(known.join("source")).unwrap().count(), 2);
            let (code, err) = mount.end(rustix::process::Signal::INT);
            Some(Said { code, out: String::new(), err })
        }
        #[cfg(feature = "ui")]
        "ui" => {
            let page = match crate::ui::Page::attempt_to_enter(desk, args) {
                Ok(page) => page,
                Err(said) => return Some(said),
            };
            let snapshots = page.told("snapshots");
            let first = snapshots["snapshots"][0]["id"].as_str().unwrap();
            let listed = page.told(&format!("ls?snapshot={first}"));
            assert_eq!(listed["entries"].as_array().unwrap().len(), 1);
            let (code, err) = page.end();
            Some(Said { code, out: String::new(), err })
        }
        #[cfg(not(target_os = "linux"))]
        "mount" => None,
        #[cfg(not(feature = "ui"))]
        "ui" => None,
        // Without a mirror there is nothing to promote.
        "promote" if !desk.path("mirror/VAULT").exists() => None,
        _ => Some(desk.run(args)),
    }
}

/// Tries every command. Returns all violations.
fn try_all(what: &str, future: &Future, crafted: &[PathBuf], expected: &Expected) -> Vec<String> {
    let before: Vec<Vec<u8>> = crafted.iter().map(|path| fs::read(path).unwrap()).collect();
    let mut wrong = Vec::new();
    let desk = &future.desk;
    let folder = desk.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    for (about, args) in COMMANDS {
        let slot = || {
            let said = desk.run(&["key", "list", "--json"]).out;
            let listed: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
            let slots = listed["slots"].as_array().cloned().unwrap_or_default();
            let added =
                slots.iter().find(|slot| slot["label"] == "added").map(|slot| slot["id"].as_str().unwrap().to_owned());
            // If none may be added, none may be removed either.
            let any = slots.first().map(|slot| slot["id"].as_str().unwrap().to_owned());
            added.or(any).unwrap_or_else(|| "0123abcd".to_owned())
        };
        let args: Vec<String> = args
            .iter()
            .map(|arg| match *arg {
                "{client}" => future.client.clone(),
                "{first}" => future.first.clone(),
                "{slot}" => slot(),
                arg => arg.replace("{}", &folder).replace("{origin}", template().source().to_str().unwrap()),
            })
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let Some(said) = run(desk, &args) else { continue };
        let (command, text) = (args.join(" "), format!("{}{}", said.out, said.err));
        let mut blame =
            |problem: &str| wrong.push(format!("{what}: vault {command}: {problem} ({})\n{text}", said.code));
        let harmless = [
            "not damaged",
            "no damage",
            "undamaged",
            "nothing is damaged",
            "nothing is known to be damaged",
            "0 are damaged",
        ];
        let lower = harmless.iter().fold(text.to_lowercase(), |text, words| text.replace(words, ""));
        if lower.contains("damage") || lower.contains("corrupt") || lower.contains("panic") {
            blame("speaks of damage");
        }
        let wanted = expected.of(*about, &command);
        if said.code != wanted {
            blame(&format!("should end with {wanted}"));
        }
        let ways_out = ["newer", "later version", "pre-release", "update vault"];
        if wanted == 1 && !ways_out.iter().any(|words| lower.contains(words)) {
            blame("does not say why, and what to do");
        }
        for (path, bytes) in crafted.iter().zip(&before) {
            if fs::read(path).ok().as_ref() != Some(bytes) {
                blame(&format!("changed {}", path.display()));
            }
        }
    }
    if future.desk.path("store/quarantine").exists() {
        wrong.push(format!("{what}: something was moved aside"));
    }
    wrong
}

/// Checks commands that see something newer and can still do their work.
#[track_caller]
fn check(what: &str, crafted: impl FnOnce(&Future) -> Vec<PathBuf>, expected: Expected) {
    let future = Future::new();
    let crafted = crafted(&future);
    let wrong = try_all(what, &future, &crafted, &expected);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn log_file(future: &Future, message: &Map) -> Vec<PathBuf> {
    vec![future.record(message)]
}

#[test]
fn a_record_of_an_unknown_kind() {
    for kind in [100, 127] {
        check(&format!("kind {kind}"), |future| log_file(future, &message(1, kind, &[0xc0])), held());
    }
    for kind in [128, 256, 300, u64::MAX] {
        check(&format!("kind {kind}"), |future| log_file(future, &message(1, kind, &[0xc0])), unread());
    }
}

#[test]
fn a_record_of_a_later_version() {
    for version in [2, 300] {
        check(&format!("version {version}"), |future| log_file(future, &message(version, 3, &[0x90])), held());
    }
    let other = Map::default().with("v", int(2)).with("other", vec![0xc3]);
    check("a record without the keys of this version", |future| log_file(future, &other), held());
    // The fields of every version are enough to count in a chain.
    let chained = |number: u64, previous: &[u8], version: u64| {
        let map = Map::default().with("v", int(version)).with("c", bin(&[0xf0; 16])).with("n", int(number));
        map.with("p", bin(previous)).with("s", vec![0x90])
    };
    check(
        "records of a later version in a chain",
        |future| {
            let first = future.record(&chained(1, &[0; 32], 2));
            let digest = blake3::hash(&fs::read(&first).unwrap());
            vec![first, future.record(&numbered(2, digest.as_bytes(), vec![0x90], 1, 3, &[0x90]))]
        },
        held(),
    );
}

/// A readable record mentions one of which nothing is known.
#[test]
fn a_number_that_may_be_that_of_a_newer_object_is_not_missing() {
    let later = |bytes: &mut Vec<u8>| bytes[8] = 7;
    check(
        "a newer object in the middle of a chain",
        |future| vec![future.changed("log", later), future.record(&numbered(2, &[9; 32], vec![0x90], 1, 3, &[0x90]))],
        held(),
    );
    let seen = [&[0x91, 0x92][..], &bin(&[0xf1; 16]), &int(1)].concat();
    check(
        "a newer object that was acknowledged",
        |future| vec![future.changed("log", later), future.record(&numbered(1, &[0; 32], seen.clone(), 1, 3, &[0x90]))],
        held(),
    );
    // Two are missing, and one cannot be read.
    let future = Future::new();
    future.changed("log", later);
    future.record(&numbered(3, &[9; 32], vec![0x90], 1, 3, &[0x90]));
    assert_eq!(future.desk.run(&["check"]).code, 4);
}

#[test]
fn unknown_keys_in_records() {
    check("key", |future| log_file(future, &message(1, 3, &[0x90]).with("new", int(1))), silent());
    check("critical key", |future| log_file(future, &message(1, 3, &[0x90]).with("!new", int(1))), held());
    let body = Map::default().with("synced", vec![0xc2]).with("!new", int(1)).bytes();
    check("critical key in a body", |future| log_file(future, &message(1, 10, &body)), held());
}

/// A record that holds these: the names, and the messages.
fn holding(held: &[(ObjectName, Vec<u8>)]) -> Map {
    let mut records = vec![0x90 | u8::try_from(held.len()).unwrap()];
    for (name, message) in held {
        let plain = [&u32::try_from(message.len()).unwrap().to_le_bytes()[..], message].concat();
        let found = Map::default().with("n", bin(name.as_bytes())).with("h", bin(&[5; 32])).with("r", bin(&plain));
        records.extend(found.bytes());
    }
    message(1, 8, &Map::default().with("r", records).bytes())
}

/// The past entry of a record of another client, with this name, the time of the crafted records, and depth 1.
fn past(name: ObjectName) -> Map {
    let mut left = vec![1];
    left.extend_from_slice(name.as_bytes());
    left.extend([0x80, 0x80, 0x80, 0x80, 0x0c, 0, 2]);
    Map::default().with("c", bin(&[0xf1; 16])).with("x", bin(&left))
}

/// A record that has these past entries of a client.
fn burying(past: &Map) -> Map {
    message(1, 8, &Map::default().with("d", [&[0x91][..], &past.bytes()].concat()).bytes())
}

/// A message of another client.
fn of(client: u8, mut message: Map) -> Vec<u8> {
    message.0[1].1 = bin(&[client; 16]);
    message.bytes()
}

#[test]
fn records_in_records_that_hold_others() {
    let name = |number: u8| ObjectName::new([number; 16]);
    let one = |message: Vec<u8>| holding(&[(name(1), message)]);
    let later = Map::default().with("v", int(2)).with("other", vec![0xc3]).bytes();
    check("held, of a later version", |future| log_file(future, &one(later)), held_inside());
    let unknown = of(0xf1, message(1, 100, &[0xc0]));
    check("held, of an unknown kind", |future| log_file(future, &one(unknown)), held_inside());
    // Records inside a held record do not count.
    let inner = of(0xf2, message(300, 3, &[0x90]));
    let nested = of(0xf1, one(inner));
    check("nested", |future| log_file(future, &one(nested)), silent());
    let cut = of(0xf1, message(1, 3, &[0x90]));
    check("cut short", |future| log_file(future, &one(cut[..cut.len() / 2].to_vec())), silent());
    // A client that nobody knows.
    let foreign = of(0xf1, message(1, 3, &[0x90]));
    check("of a foreign client", |future| log_file(future, &one(foreign)), silent());
    // If the object of a record exists, the object counts.
    let another = |future: &Future| {
        let id = future.vault.snapshots()[1].id;
        let forget = [&[0x91, 0xc4, 16][..], id.as_bytes()].concat();
        log_file(future, &holding(&[(id, of(0xf1, message(1, 3, &forget)))]))
    };
    check("another content", another, silent());
}

#[test]
fn records_that_say_that_nobody_needs_others() {
    let name = ObjectName::new([1; 16]);
    let put = |record: Map| move |future: &Future| log_file(future, &record);
    check("of a foreign client", put(burying(&past(name))), silent());
    check("with an unknown key", put(burying(&past(name).with("new", int(1)))), silent());
    check("with a critical key", put(burying(&past(name).with("!new", int(1)))), held());
    let body = |key: &str| Map::default().with("d", vec![0x90]).with(key, int(1)).bytes();
    check("beside an unknown key", put(message(1, 8, &body("new"))), silent());
    check("beside a critical key", put(message(1, 8, &body("!new"))), held());
    check("of nothing", put(message(1, 8, &[0x80])), silent());
    // A later version may hold records in another way.
    let mut later = burying(&past(name));
    later.0[0].1 = int(2);
    check("of a later version", put(later), held());
    check("of a later version, with another body", put(message(2, 8, &[0xc3])), held());
    // Statements of a held record about others do not count.
    let inner = of(0xf3, burying(&past(name)));
    check("held", put(holding(&[(ObjectName::new([2; 16]), inner)])), silent());
}

#[test]
fn features_in_the_log() {
    let format = |mask: &str| message(1, 10, &Map::default().with(mask, int(1 << 40)).bytes());
    check("collect", |future| log_file(future, &format("collect")), Expected { collecting: 3, ..silent() });
    let no_writing = Expected { writing: 1, collecting: 1, ..silent() };
    check("write", |future| log_file(future, &format("write")), no_writing);
    check("read", |future| log_file(future, &format("read")), refused());
}

#[test]
fn objects_of_a_later_version() {
    for (at, what) in [(8, "version"), (11, "way of wrapping"), (14, "flags")] {
        for folder in ["log", "packs", "meta"] {
            let later = |bytes: &mut Vec<u8>| bytes[at] = 7;
            let expected = if folder == "log" { held() } else { reported() };
            check(&format!("{what} in {folder}"), |future| vec![future.changed(folder, later)], expected);
        }
    }
}

#[test]
fn packs_of_a_later_version() {
    check("footer", |future| vec![future.pack(&[2, 1, 9, 9], b"\x00\x01\x01\x01a")], reported());
    // One segment of method 7, with one chunk of one byte.
    let sealed = 24 + 20 + 5 + 16;
    let footer = [&[1, 1, sealed, 7, 1, 1, 1][..], &[9; 16]].concat();
    check("method", |future| vec![future.pack(&footer, b"\x07\x01\x01\x01a")], reported());
}

/// A snapshot with data that is only in a pack of a later version.
#[test]
fn what_lies_in_packs_of_a_later_version_is_not_lost() {
    let crafted = |future: &Future| {
        future.desk.write("new", crate::support::source::bytes(3, 20_000));
        let before = future.desk.packs();
        future.desk.take("2026-01-03 12:00");
        let fresh: Vec<PathBuf> = future.desk.packs().difference(&before).cloned().collect();
        // Only the pack of content is removed; a newer one is there instead.
        let pack = fresh.into_iter().find(|path| path.starts_with(future.desk.path("store/packs"))).unwrap();
        fs::remove_file(pack).unwrap();
        fs::remove_file(future.desk.source().join("new")).unwrap();
        vec![future.pack(&[2, 1, 9, 9], b"\x00\x01\x01\x01a")]
    };
    check("content in a newer pack", crafted, reported().but(&[("drill", 3), ("copy", 3)]));
    let future = Future::new();
    crafted(&future);
    for (args, code) in [
        (&["cat", "2026-01-03:source/new"][..], 1),
        (&["restore", "2026-01-03", "--to", "../out"], 3),
        (&["export", "2026-01-03", "--tar", "../out.tar"], 3),
        (&["check"], 3),
        (&["drill"], 3),
    ] {
        let said = future.desk.run(args);
        assert_eq!(said.code, code, "{args:?}: {}{}", said.out, said.err);
        assert!(
            !format!("{}{}", said.out, said.err).contains("vault is damaged"),
            "{args:?}: {}{}",
            said.out,
            said.err
        );
    }
}

#[test]
fn listings_and_entries_of_a_later_version() {
    let entry = |further: &[(&str, Vec<u8>)], kind: u64| {
        let mut map = Map::default().with("n", bin(b"x")).with("k", int(kind)).with("p", int(0o644));
        map = map.with("m", vec![0x92, 0, 0]);
        for (key, value) in further {
            map = map.with(key, value.clone());
        }
        [&[1][..], &map.bytes()].concat()
    };
    for (what, listing) in [
        ("listing", b"\x02later".to_vec()),
        ("kind of file", entry(&[], 9)),
        ("kind of file beyond 255", entry(&[], 300)),
        ("critical key", entry(&[("!new", int(1))], 3)),
        ("user beyond 32 bits", entry(&[("u", int(1 << 40))], 3)),
        ("critical key and another sort of size", entry(&[("!new", int(1)), ("s", bin(b"x"))], 3)),
        ("kind of file with another sort of content", entry(&[("c", int(7))], 9)),
        ("kind of file and nothing else", [&[1][..], &Map::default().with("k", int(9)).bytes()].concat()),
    ] {
        // Commands that read all snapshots meet it. Only they know that a snapshot has it.
        let into_all =
            ["find b", "history source/a", "why --json", "drill", "rewrite", "copy"].map(|command| (command, 3));
        let known_later = ["list", "accept", "run"].map(|command| (command, 0));
        // It may say that something is needed.
        let expected = Expected { collecting: 3, ..reported() }.but(&into_all).but(&known_later);
        check(what, |future| vec![future.snapshot(&listing)], expected);
    }
    check("key", |future| vec![future.snapshot(&entry(&[("new", int(1))], 3))], silent());
}

/// A copy waits for a version that knows everything in a snapshot; the others are copied.
#[test]
fn what_a_later_version_wrote_is_not_copied() {
    let future = Future::new();
    future.snapshot(b"\x02later");
    let other = future.desk.path("empty");
    let other = other.to_str().unwrap();
    future.desk.ok(&["init", "--repo", other]);
    let told = future.desk.run(&["copy", "--to", other]);
    assert_eq!(told.code, 3, "{}{}", told.out, told.err);
    assert!(told.out.contains("since a newer version of vault wrote a part of it"), "{}", told.out);
    assert!(told.out.contains("4 snapshots copied") && told.out.contains("Update vault"), "{}", told.out);
    assert!(!told.out.contains("damaged,"), "{}", told.out);
}

#[test]
fn key_slots_of_a_later_version() {
    for (at, what) in [(8, "version"), (10, "way of stretching"), (20, "flags")] {
        let put = |future: &Future| {
            let bytes = slot_with(future, 0, |bytes| bytes[at] = 9);
            (0..2).map(|copy| future.put("keys", ObjectName::new([0xe0 + copy; 16]), &bytes)).collect()
        };
        check(what, put, reported());
    }
    // Opening another slot does not show its keyring; a record says that it is valid.
    let put = |future: &Future| {
        let bytes = slot_with(future, 1 << 40, |_| {});
        let digest = Digest::new(*blake3::hash(&bytes).as_bytes());
        let add = vec![ValidSlot { id: SlotFile::parse(&bytes).unwrap().id(), digest, device: false }];
        let record = Record {
            client: ClientId::new([0xf0; 16]),
            number: 1,
            previous: Digest::new([0; 32]),
            seen: Vec::new(),
            time: now(),
            claims: Vec::new(),
            closed: Vec::new(),
            body: RecordBody::Slots(SlotChange { add, remove: Vec::new() }),
        };
        let record = record.seal(future.vault.keys()).unwrap();
        let mut paths = vec![future.put("log", record.name, &record.bytes)];
        paths.extend((0..2).map(|copy| future.put("keys", ObjectName::new([0xe0 + copy; 16]), &bytes)));
        paths
    };
    check("features in a keyring", put, silent());
}

#[test]
fn vaults_of_other_keyrings() {
    let newer = |future: &Future| keyrings(future, |ring| ring[0] = 3);
    check("a keyring of a later version", newer, refused());
    let delivery = |future: &Future| keyrings(future, |ring| ring[85] = 7);
    check("another way of delivery", delivery, refused());
    let features = |future: &Future| keyrings(future, |ring| ring[93] = 1);
    check("features in every keyring", features, refused());
    // These had master key, chunk sizes, time, delivery and features, one after the other.
    let before = |ring: &mut [u8]| {
        ring.copy_within(65..94, 33);
        ring[62..94].fill(0);
        ring[0] = 1;
    };
    check("a keyring of a pre-release", |future| keyrings(future, before), refused());
    let future = Future::new();
    keyrings(&future, before);
    let said = future.desk.run(&["list"]);
    assert!(said.err.contains("made by a pre-release") && !said.err.contains("newer"), "{}", said.err);
}

/// The header of an object of a write-only client (SPEC §4.7), whose object key is 32 × 7. The part for the public keys
/// is noise: this program has the other half of no such key.
fn header_of_writer(future: &Future, kind: ObjectKind, name: ObjectName) -> Vec<u8> {
    let mut header = b"vaultobj".to_vec();
    header.extend_from_slice(&1_u16.to_le_bytes());
    header.extend_from_slice(&[kind as u8, 2]);
    header.extend_from_slice(&1192_u16.to_le_bytes());
    header.extend_from_slice(&[0; 2 + 32]);
    let mut wrapped = [0; 1192];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut wrapped);
    header.extend_from_slice(&wrapped);
    let commitment_key = blake3::derive_key("vault 2026 object commitment", &[7; 32]);
    let mut committed = blake3::Hasher::new_keyed(&commitment_key);
    committed.update(&header[..16]).update(future.vault.id().as_bytes());
    committed.update(name.as_bytes()).update(&header[48..]);
    header[16..48].copy_from_slice(committed.finalize().as_bytes());
    header
}

/// Puts a record of wrap 2 with this message.
fn record_of_writer(future: &Future, message: &Map) -> PathBuf {
    let message = message.bytes();
    let name = ObjectName::new(blake3::hash(&message).as_bytes()[..16].try_into().unwrap());
    let mut plain = u32::try_from(message.len()).unwrap().to_le_bytes().to_vec();
    plain.extend_from_slice(&message);
    plain.resize(plain.len().next_multiple_of(1024), 0);
    let aad = [&future.vault.id().as_bytes()[..], &[3], name.as_bytes(), &[5], &[0; 4]].concat();
    let cipher = XChaCha20Poly1305::new(&blake3::derive_key("vault 2026 section record", &[7; 32]).into());
    let nonce = [9; 24];
    let tag = cipher.encrypt_inout_detached(&nonce.into(), &aad, plain.as_mut_slice().into()).unwrap();
    let mut bytes = header_of_writer(future, ObjectKind::Record, name);
    for part in [&nonce[..], &plain, &tag] {
        bytes.extend_from_slice(part);
    }
    bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
    future.put("log", name, &bytes)
}

/// Puts a pack of wrap 2 whose footer lists this chunk.
fn pack_of_writer(future: &Future, folder: &str, chunk: &[u8]) -> PathBuf {
    let kind = if folder == "meta" { ObjectKind::Meta } else { ObjectKind::Pack };
    let keys = future.vault.keys();
    let name = ObjectName::new(*blake3::hash(folder.as_bytes()).as_bytes().first_chunk().unwrap());
    let mut bytes = header_of_writer(future, kind, name);
    let sealed = 44 + 4 + chunk.len() + 16;
    bytes.extend(std::iter::repeat_n(3, sealed));
    let end = bytes.len() as u64;
    let mut footer = vec![2, 1];
    let lengths = [sealed, 0, chunk.len(), 1, chunk.len()];
    lengths.iter().for_each(|len| vault::varint::put(&mut footer, *len as u64));
    footer.extend_from_slice(keys.chunk_id(chunk).as_bytes());
    bytes.resize(64 << 10, 0);
    let at = bytes.len() as u64;
    let index = keys.index_seal(kind, name);
    index.seal(IndexSection::Footer, &footer, &mut bytes).unwrap();
    let len = u32::try_from(bytes.len() as u64 - at).unwrap();
    let locator = [&at.to_le_bytes()[..], &len.to_le_bytes(), &end.to_le_bytes(), &1_u32.to_le_bytes()].concat();
    index.seal(IndexSection::Locator, &locator, &mut bytes).unwrap();
    bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
    future.put(folder, name, &bytes)
}

/// The slot of a write-only client; its keyring and its info are noise.
fn slot_of_writer(future: &Future) -> Vec<PathBuf> {
    let mut slot = b"vaultkey".to_vec();
    slot.extend_from_slice(&2_u16.to_le_bytes());
    slot.resize(24, 0);
    slot[10] = 2;
    slot.extend_from_slice(future.vault.id().as_bytes());
    slot.extend_from_slice(&[0xe5; 16]);
    slot.resize(1712, 0x5e);
    slot.extend_from_slice(blake3::hash(&slot).as_bytes());
    assert_eq!(slot.len(), 1744);
    (0..2).map(|copy| future.put("keys", ObjectName::new([0xe0 + copy; 16]), &slot)).collect()
}

/// The body of the join of a write-only client.
fn join_of_writer() -> Vec<u8> {
    let text = |text: &str| [&[0xa0 | u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    let body = Map::default().with("host", text("server")).with("user", text("root"));
    body.with("place", bin(&[0xf1; 16])).with("own", vec![0xc3]).bytes()
}

/// Ids of one kind in a list, as the body of a record.
fn ids(ids: &[&[u8]]) -> Vec<u8> {
    let count = 0x90 | u8::try_from(ids.len()).unwrap();
    ids.iter().fold(vec![count], |list, id| [list, bin(id)].concat())
}

/// The names of the objects in a folder.
fn names(future: &Future, folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for xx in fs::read_dir(future.desk.path("store").join(folder)).unwrap() {
        for entry in fs::read_dir(xx.unwrap().path()).unwrap() {
            found.push(entry.unwrap().file_name().into_string().unwrap());
        }
    }
    found.sort();
    found
}

#[test]
fn what_a_write_only_client_puts() {
    check(
        "its packs",
        |future| ["packs", "meta"].map(|folder| pack_of_writer(future, folder, b"x")).into(),
        reported(),
    );
    check("its key slot", slot_of_writer, reported());

    // Whatever its records say: they forget, condemn, retire or delete nothing, and nobody deletes anything.
    let records = |future: &Future| {
        let snapshots = future.vault.snapshots();
        let log = fs::read_dir(future.desk.path("store/log")).unwrap().next().unwrap().unwrap().file_name();
        let opened = Record::read(future.vault.store(), future.vault.keys(), log.to_str().unwrap().parse().unwrap());
        let client = *opened.unwrap().record.client.as_bytes();
        let pack = names(future, "packs").remove(0).parse::<ObjectName>().unwrap();
        let condemned = Map::default().with("m", vec![0xc2]).with("n", bin(pack.as_bytes())).bytes();
        [
            (1, join_of_writer()),
            (3, vec![0x90]),
            (3, ids(&snapshots.iter().map(|info| &info.id.as_bytes()[..]).collect::<Vec<_>>())),
            (4, [vec![0x91], condemned].concat()),
            (6, ids(&[&client])),
            (128, vec![0xc0]),
        ]
        .iter()
        .map(|(kind, body)| record_of_writer(future, &message(1, *kind, body)))
        .collect()
    };
    check("its records", records, held());
    let future = Future::new();
    records(&future);
    let before = (names(&future, "packs"), names(&future, "meta"));
    future.vault.refresh(&Silent::default()).unwrap();
    assert_eq!(future.vault.snapshots().len(), 3);
    future.desk.run(&["prune", "--keep", "1"]);
    assert_eq!((names(&future, "packs"), names(&future, "meta")), before);
}

#[test]
fn nobody_relies_on_the_packs_of_a_write_only_client() {
    let future = Future::new();
    let content = b"a file that a pack claims to hold";
    let path = pack_of_writer(&future, "packs", content);
    future.desk.write("claimed", content);
    future.desk.take("2026-01-03 12:00");
    fs::remove_file(path).unwrap();
    future.desk.ok(&["restore", "latest", "--to", "../out"]);
    assert_eq!(fs::read(future.desk.path("out/source/claimed")).unwrap(), content);
}

/// A join that says `own` in the wrap of this version: its client may be at work, and is waited for.
#[test]
fn a_client_that_relies_on_nothing_but_its_own_packs_is_waited_for() {
    let prune = |own: bool| {
        let future = Future::alone();
        future.desk.write("large", blake3::hash(b"large").as_bytes().repeat(9000));
        future.desk.write("noise", {
            let mut noise = vec![0; 300_000];
            blake3::Hasher::new().finalize_xof().fill(&mut noise);
            noise
        });
        future.desk.take("2026-01-03 12:00");
        fs::remove_file(future.desk.source().join("noise")).unwrap();
        future.desk.take("2026-01-04 12:00");
        if own {
            future.record(&message(1, 1, &join_of_writer()));
        }
        let before = names(&future, "packs");
        for _ in 0..2 {
            let said = future.desk.run(&["prune", "--keep", "1", "--yes"]);
            assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        }
        let after = names(&future, "packs");
        assert_eq!(future.desk.run(&["check", "--read-data"]).code, 0);
        before.iter().filter(|name| !after.contains(name)).count()
    };
    assert!(prune(false) > 0);
    assert_eq!(prune(true), 0);
}

#[test]
fn unknown_folders_of_the_store() {
    let put = |future: &Future| {
        let mut paths = Vec::new();
        for path in ["later/ab/abcdef", "index/ab/abcdef", "parity/ab/abcdef", "hold/abcdef", "later.txt"] {
            let path = future.desk.path("store").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "later").unwrap();
            paths.push(path);
        }
        paths
    };
    check("folders", put, silent());
}

#[test]
fn a_vault_of_a_later_format() {
    let vault_file = |future: &Future, change: &dyn Fn(&str) -> String| {
        let path = future.desk.path("store/VAULT");
        let text = change(&fs::read_to_string(&path).unwrap());
        let body = &text[..text.rfind("blake3 ").unwrap()];
        fs::remove_file(&path).unwrap();
        fs::write(&path, format!("{body}blake3 {}\n", blake3::hash(body.as_bytes()))).unwrap();
        vec![path]
    };
    let format = |future: &Future| vault_file(future, &|text| text.replace("format 1", "format 2"));
    check("format 2", format, Expected { bytes: 1, ..refused() });
    let beyond = |future: &Future| vault_file(future, &|text| text.replace("format 1", "format 18446744073709551616"));
    check("format beyond 64 bits", beyond, Expected { bytes: 1, ..refused() });
    let features = |future: &Future| vault_file(future, &|text| text.replace("features 0", "features 8"));
    check("features", features, Expected { bytes: 1, ..refused() });
}
