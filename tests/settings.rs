//! Tests of the settings of a vault on another machine: each key of the configuration has its effect on the requests
//! that a server gets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use vault::store::Kind;
use vault::store::place::Address;
use vault::store::remote::{Settings, open};

use crate::far::Quick;
use crate::support::binary::{Desk, Said, said};
use crate::support::s3::{FakeS3, Fault, KEY, Op};
use crate::support::source::bytes;

/// A desk whose configuration names a vault `far` on a server.
struct Configured {
    desk: Desk,
    server: FakeS3,
}

impl Configured {
    fn new() -> Self {
        Self { desk: Desk::new(), server: FakeS3::start(1000) }
    }

    /// Runs a command with these settings of the vault.
    fn say(&self, settings: &str, args: &[&str]) -> Said {
        let config = format!("[vaults.far]\npath = \"{}\"\n{settings}\n", self.server.vault("v"));
        let path = self.desk.path("vault.toml");
        std::fs::write(&path, config).unwrap();
        let mut command = self.desk.command(args);
        command.env("VAULT_CONFIG", path).env_remove("VAULT_REPO");
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", "secret");
        said(&command.output().unwrap())
    }

    #[track_caller]
    fn run(&self, settings: &str, args: &[&str]) -> String {
        let said = self.say(settings, args);
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out + &said.err
    }

    /// The number of objects fetched by a command, without VAULT, which each command reads.
    #[track_caller]
    fn fetched(&self, settings: &str, args: &[&str]) -> usize {
        self.server.asked();
        self.run(settings, args);
        self.server.asked().iter().filter(|(op, name)| *op == Op::Get && name != "v/VAULT").count()
    }
}

/// Packs get the storage class; what is small and read often stays in the bucket's.
#[test]
fn packs_alone_get_the_storage_class() {
    let far = Configured::new();
    far.desk.write("one", bytes(1, 300_000));
    let class = "storage-class = \"STANDARD_IA\"";
    far.run("", &["init"]);
    far.run("", &["snapshot", "."]);
    assert!(far.server.classes().is_empty());
    far.desk.write("two", bytes(2, 300_000));
    // The address leads to the same settings as the name.
    far.run(class, &["snapshot", ".", "--repo", &far.server.vault("v")]);
    let classes = far.server.classes();
    assert_eq!(classes.len(), 1, "{classes:?}");
    assert!(classes.iter().all(|(name, class)| name.starts_with("v/packs/") && class == "STANDARD_IA"), "{classes:?}");
    far.run("", &["check", "--read-data"]);
    // A server that does not know the class is quoted, and what it has stays as it was.
    far.desk.write("three", bytes(3, 300_000));
    let before = far.server.names();
    far.server.fail(Op::Put, Fault::Status(400, "InvalidStorageClass"));
    let said = far.say("storage-class = \"NONE_SUCH\"", &["snapshot", "."]);
    assert_eq!(said.code, 10, "{}", said.err);
    assert!(said.err.contains("InvalidStorageClass"), "{}", said.err);
    far.server.heal();
    assert!(before.iter().all(|name| far.server.names().contains(name)));
    let refused = far.say("storage-class = \"GLACIER\"", &["list", "--repo", "far"]);
    assert!(refused.code == 2 && refused.err.contains("cannot be read at once"), "{}", refused.err);
}

/// No more requests are under way than the configuration allows, and no fewer.
#[test]
fn requests_under_way_are_as_many_as_configured() {
    let far = Configured::new();
    far.server.take_time(Duration::from_millis(60));
    let place = far.server.vault("v");
    let most = |settings: &str| {
        far.server.most_under_way();
        far.run(settings, &["doctor", &place]);
        far.server.most_under_way()
    };
    assert_eq!(most("connections = 1"), 1);
    assert_eq!(most("connections = 2"), 2);
    let usual = most("");
    assert!(usual > 2, "{usual}");
    let threads = |connections: Option<usize>| {
        let variables = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", "secret")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let settings = Settings { variables, connections, ..Settings::default() };
        let address = Address::parse(&far.server.vault("w")).unwrap().unwrap();
        let store = open(&address, &settings, Quick::new()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| store.list(Kind::Pack, &mut |_| {}).unwrap());
            }
        });
        (far.server.most_under_way(), store.limits().reads)
    };
    assert_eq!(threads(Some(20)), (20, 20));
    assert_eq!(threads(None), (32, 16));
    far.desk.write("one", bytes(1, 300_000));
    far.run("connections = 1", &["init"]);
    far.run("connections = 1", &["snapshot", "."]);
    far.run("connections = 1", &["check", "--read-data"]);
    assert_eq!(far.server.most_under_way(), 1);
}

/// A request is repeated for as long as configured, and waits for progress as long as configured.
#[test]
fn patience_is_as_long_as_configured() {
    let far = Configured::new();
    far.run("", &["init"]);
    let ended = |settings: &str| {
        let begun = Instant::now();
        let said = far.say(settings, &["list"]);
        assert_eq!(said.code, 10, "{}", said.err);
        begun.elapsed()
    };
    // Usually, the program waits 30 seconds for a store that has never answered.
    far.server.always(Op::Get, Fault::Status(500, "InternalError"));
    let took = ended("retry-for = \"0s\"");
    assert!(took < Duration::from_secs(25), "{took:?}");
    // Usually, it waits a minute for progress.
    far.server.always(Op::Get, Fault::Hang);
    let took = ended("retry-for = \"0s\"\ntimeout = \"1s\"");
    assert!(Duration::from_secs(1) <= took && took < Duration::from_secs(25), "{took:?}");
    // With patience, a server that recovers is waited for.
    far.server.heal();
    far.server.script(Op::Get, (0..4).map(|_| Some(Fault::Status(500, "InternalError"))));
    far.run("retry-for = \"10m\"", &["list"]);
}

/// Full packs have the configured size. Those of another size stay as they are, and all are read.
#[test]
fn packs_are_as_large_as_configured() {
    let desk = Desk::new();
    let place = desk.path("store");
    let say = |settings: &str, args: &[&str]| {
        let config = format!("[vaults.disk]\npath = '{}'\n{settings}\n", place.display());
        std::fs::write(desk.path("vault.toml"), config).unwrap();
        let mut command = desk.command(args);
        let said = said(&command.env("VAULT_CONFIG", desk.path("vault.toml")).output().unwrap());
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out
    };
    let packs = || {
        let packs = desk.packs().into_iter().filter(|path| path.starts_with(place.join("packs")));
        packs.map(|path| (path.clone(), path.metadata().unwrap().len())).collect::<BTreeMap<PathBuf, u64>>()
    };
    let write = |numbers: std::ops::Range<u64>| {
        numbers.for_each(|number| desk.write(&format!("file {number}"), bytes(number, 4 << 20)));
    };
    let full = |packs: &BTreeMap<PathBuf, u64>, mib: u64| packs.values().max() == Some(&(mib << 20));
    write(0..7);
    say("pack-size = \"20M\"", &["snapshot", "."]);
    let large = packs();
    assert!(full(&large, 20), "{large:?}");
    write(7..13);
    say("", &["snapshot", "."]);
    let mut new = packs();
    assert!(large.iter().all(|(path, len)| new.remove(path) == Some(*len)), "{large:?} {new:?}");
    assert!(full(&new, 16), "{new:?}");
    // What a prune copies fills packs of the configured size, too.
    for number in (1..13).step_by(2) {
        std::fs::remove_file(desk.source().join(format!("file {number}"))).unwrap();
    }
    say("", &["snapshot", "."]);
    say("pack-size = \"18M\"", &["prune", "--keep", "1", "--yes", "--max-unused", "0%"]);
    let moved = packs();
    assert!(full(&moved, 18), "{moved:?}");
    say("", &["check", "--read-data"]);
    say("", &["restore", "latest", "--to", desk.path("restored").to_str().unwrap()]);
    assert!(std::fs::read(desk.path("restored/source/file 12")).unwrap() == bytes(12, 4 << 20));
}

/// Trees are kept on this machine within the configured size; 0 keeps none.
#[test]
fn the_cache_is_as_large_as_configured() {
    let far = Configured::new();
    for number in 0..20 {
        far.desk.write(&format!("folder {}/file {number}", number % 4), bytes(number, 5000));
    }
    far.run("", &["init"]);
    far.run("", &["snapshot", "."]);
    assert_eq!(far.fetched("", &["ls"]), 0);
    let state = far.desk.path("state");
    std::fs::remove_dir_all(&state).unwrap();
    let none = "cache = \"0\"";
    far.run(none, &["ls"]);
    assert!(far.fetched(none, &["ls"]) > 0, "something was kept");
    far.run("", &["ls"]);
    assert_eq!(far.fetched("", &["ls"]), 0);
    // Less than any part needs.
    std::fs::remove_dir_all(&state).unwrap();
    far.run("cache = \"100B\"", &["ls"]);
    assert!(far.fetched("cache = \"100B\"", &["ls"]) > 0, "more was kept than configured");
}

/// The authorities are read from the configured file, before any request.
#[test]
fn the_file_of_authorities_is_the_configured_one() {
    let far = Configured::new();
    let path = far.desk.path("none.pem");
    let said = far.say(&format!("ca-file = '{}'", path.display()), &["list"]);
    assert_eq!(said.code, 10, "{}", said.err);
    assert!(said.err.contains("none.pem cannot be used"), "{}", said.err);
    assert!(far.server.asked().is_empty());
}

/// Secrets come from where the named section says, and the environment's do not count; no message shows one.
#[cfg(unix)]
#[test]
fn credentials_come_from_the_section_that_a_vault_names() {
    use std::os::unix::fs::PermissionsExt;
    let far = Configured::new();
    let file = far.desk.path("secrets");
    let lines = format!("# of the bucket\nAWS_ACCESS_KEY_ID={KEY}\nAWS_SECRET_ACCESS_KEY=hush\n");
    let may_read = |mode: u32| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::write(&file, &lines).unwrap();
    may_read(0o600);
    let say = |section: &str, args: &[&str]| {
        let config = format!(
            "[vaults.far]\npath = \"{}\"\ncredentials = \"c\"\n[credentials.c]\n{section}\n",
            far.server.vault("v")
        );
        let path = far.desk.path("vault.toml");
        std::fs::write(&path, config).unwrap();
        let mut command = far.desk.command(args);
        command.env("VAULT_CONFIG", path).env_remove("VAULT_REPO");
        // The environment has another account, and a token that would spoil this one.
        command.env("AWS_ACCESS_KEY_ID", "AKOTHER").env("AWS_SECRET_ACCESS_KEY", "other").env("AWS_PROFILE", "other");
        command.env("BUCKET_AWS_ACCESS_KEY_ID", KEY).env("BUCKET_AWS_SECRET_ACCESS_KEY", "hush");
        let said = said(&command.output().unwrap());
        assert!(!said.out.contains("hush") && !said.err.contains("hush"), "{}{}", said.out, said.err);
        said
    };
    let of_file = format!("file = \"{}\"", file.display());
    let said = say(&of_file, &["init"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let of_command = format!("command = \"cat '{}'\"", file.display());
    for section in [&*of_file, &of_command, "environment = \"BUCKET_\""] {
        let said = say(section, &["list"]);
        assert_eq!(said.code, 0, "{section}: {}", said.err);
    }
    let shown: serde_json::Value = serde_json::from_str(&say(&of_file, &["config", "--json"]).out).unwrap();
    assert_eq!(shown["vaults"][0]["line"]["credentials"], "c");
    // What gives none is told before any request.
    far.server.asked();
    for (section, expected) in [
        ("environment = \"NONE_\"", "there is nothing in them"),
        ("command = \"printf 'hu%s' sh\"", "line 1 is no variable of a store"),
        ("command = \"exit 3\"", "exit status: 3"),
        ("file = \"/no/such\"", "cannot read the file /no/such"),
    ] {
        let said = say(section, &["list"]);
        assert!(said.code == 1 && said.err.contains(expected), "{section}: {} {}", said.code, said.err);
    }
    may_read(0o644);
    let said = say(&of_file, &["list"]);
    assert!(said.code == 1 && said.err.contains("others may read") && said.err.contains("chmod 600"), "{}", said.err);
    assert!(far.server.asked().is_empty());
}

#[test]
fn the_settings_are_shown() {
    let far = Configured::new();
    let settings = "connections = 3\ntimeout = \"5s\"\nretry-for = \"2m\"\nstorage-class = \"STANDARD_IA\"\n\
                    ca-file = \"/ca.pem\"\ncache = \"2G\"";
    let shown: serde_json::Value = serde_json::from_str(&far.run(settings, &["config", "--json"])).unwrap();
    let expected = serde_json::json!({
        "connections": 3, "timeout_s": 5, "retry_for_s": 120, "storage_class": "STANDARD_IA", "ca_file": "/ca.pem",
        "cache": 2_u64 << 30, "credentials": null
    });
    assert_eq!(shown["vaults"][0]["line"], expected);
    let shown: serde_json::Value = serde_json::from_str(&far.run("", &["config", "--json"])).unwrap();
    assert_eq!(shown["vaults"][0]["line"]["connections"], serde_json::Value::Null);
}
