//! Campaigns over real servers: nodes of a cluster are killed while a vault is at work there, and a vault lives in
//! places that the ordinary tests do not start.
//!
//! They run only with `VAULT_CAMPAIGN=n`, n times, where the servers are installed.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::far::live;
use crate::support::binary::{Desk, Said, said};
use crate::support::campaign;
use crate::support::cluster::{Cluster, Server};
use crate::support::source::bytes;
use crate::support::weed::{KEYS, program};

/// The size of a file, and the number of files in a source: five full packs.
const FILE: usize = 4 << 20;
const FILES: u64 = 20;
/// The speed of the work during which nodes are killed, so that it takes some seconds.
const RATE: &str = "10M";

/// The server, or `None` if this is no campaign or the server is not here.
fn started<S>(start: impl Fn() -> Result<S, String>) -> Option<S> {
    if campaign() == 0 {
        eprintln!("skipped: runs with VAULT_CAMPAIGN=1");
        return None;
    }
    start().inspect_err(|why| eprintln!("skipped: {why}")).ok()
}

/// A desk whose vault is in the cluster.
struct Far {
    desk: Desk,
    repo: String,
}

impl Far {
    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.desk.command(args);
        command.env("VAULT_REPO", &self.repo).envs(KEYS);
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Said {
        let said = said(&self.command(args).output().unwrap());
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said
    }

    fn begin(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The vault is whole, and the last snapshot is what the source is.
    #[track_caller]
    fn is_sound(&self, name: &str) {
        assert!(self.run(&["check", "--read-data"]).out.contains("No damage was found."), "{name}");
        let to = self.desk.path(&format!("restored {name}"));
        self.run(&["restore", "latest", "--to", to.to_str().unwrap()]);
        let names = |folder: &Path| {
            let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let (source, restored) = (self.desk.source(), to.join("source"));
        assert_eq!(names(&source), names(&restored), "{name}");
        for file in names(&source) {
            assert!(
                fs::read(source.join(&file)).unwrap() == fs::read(restored.join(&file)).unwrap(),
                "{name} {file:?}"
            );
        }
        fs::remove_dir_all(to).unwrap();
    }
}

/// Waits for a command that had begun.
#[track_caller]
fn ended(child: Child, name: &str) -> Said {
    let said = said(&child.wait_with_output().unwrap());
    assert_eq!(said.code, 0, "{name}: {}{}", said.out, said.err);
    said
}

/// A node that dies at half of a snapshot or of a prune costs nothing: the command finishes, nothing is damaged, and
/// what is restored is what was saved.
#[test]
fn a_node_that_dies_costs_nothing() {
    let Some(mut cluster) = started(Cluster::start) else { return };
    for round in 0..campaign() {
        for kind in ["volume server", "leading master", "front"] {
            let far = Far { desk: Desk::new(), repo: cluster.vault(&format!("{round} {kind}")) };
            for number in 0..FILES {
                far.desk.write(&format!("file {number}"), bytes(round << 8 | number, FILE));
            }
            far.run(&["init"]);
            let mut dies = |command: Child, work: &str| {
                let mut command = command;
                std::thread::sleep(Duration::from_secs(3));
                assert!(command.try_wait().unwrap().is_none(), "{work} ended before the {kind} died");
                let victim = match kind {
                    "volume server" => format!("v{}", round % 3),
                    "leading master" => cluster.leader().unwrap(),
                    _ => "front".to_owned(),
                };
                let begun = Instant::now();
                cluster.kill(&victim);
                // Without the front, there is no store.
                if kind == "front" {
                    std::thread::sleep(Duration::from_secs(4));
                    cluster.again(&victim).unwrap();
                }
                let said = ended(command, &format!("{work}, {kind}"));
                let waits = said.err.lines().filter(|line| line.contains("waiting for")).count();
                far.is_sound(&format!("{work} without the {kind}"));
                if kind != "front" {
                    cluster.again(&victim).unwrap();
                }
                far.is_sound(&format!("{work} with the {kind} again"));
                println!("{work}: {victim} ({kind}) killed, ended {:.0?} later, {waits} waits told", begun.elapsed());
            };
            dies(far.begin(&["snapshot", ".", "--limit-upload", RATE, "--no-progress"]), "snapshot");
            // Half of each pack becomes unneeded, so prune reads and writes the other half.
            for number in (0..FILES).step_by(2) {
                fs::remove_file(far.desk.source().join(format!("file {number}"))).unwrap();
            }
            far.run(&["snapshot", "."]);
            let prune =
                ["prune", "--keep", "1", "--yes", "--max-unused", "0%", "--limit-upload", RATE, "--no-progress"];
            dies(far.begin(&prune), "prune");
            assert_eq!(far.run(&["list", "--json"]).out.lines().count(), 1, "one snapshot is left");
        }
    }
}

/// The variables of rclone's remote `dav`.
fn remote(port: u16) -> Vec<(&'static str, String)> {
    vec![
        ("RCLONE_CONFIG_DAV_TYPE", "webdav".to_owned()),
        ("RCLONE_CONFIG_DAV_URL", format!("http://127.0.0.1:{port}/")),
        ("RCLONE_CONFIG_DAV_VENDOR", "other".to_owned()),
    ]
}

/// A function that starts a server, or tells why it cannot be.
type Start = fn() -> Result<Server, String>;

#[test]
fn a_vault_lives_in_servers_of_webdav() {
    let starts: [(&str, Start); 2] = [("wsgidav", Server::wsgidav), ("apache2", Server::apache)];
    for (name, start) in starts {
        let Some(server) = started(start) else { continue };
        if program("rclone").is_none() {
            eprintln!("skipped: rclone is not installed");
            return;
        }
        let begun = Instant::now();
        live("rclone:dav:vault".to_owned(), remote(server.port));
        println!("{name}: the life of a vault through rclone in {:.0?}", begun.elapsed());
    }
}

/// The account and key that Azure's emulator has for everyone.
const AZURE: (&str, &str) =
    ("devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==");

/// Makes a container, by a request that is signed as Azure wants it.
const MAKE_CONTAINER: &str = r#"
import base64, email.utils, hashlib, hmac, sys, urllib.request
endpoint, account, key = sys.argv[1:]
date = email.utils.formatdate(usegmt=True)
headers = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
text = "PUT" + "\n" * 12 + headers + f"/{account}/{account}/container\nrestype:container"
signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
request = urllib.request.Request(f"{endpoint}/{account}/container?restype=container", method="PUT", headers={
    "x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {account}:{signature}"})
urllib.request.urlopen(request)
"#;

#[test]
fn a_vault_lives_in_azures_emulator() {
    let Some(server) = started(Server::azure) else { return };
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    // A vault needs its container to be there.
    let made = std::process::Command::new("python3").args(["-c", MAKE_CONTAINER, &endpoint, AZURE.0, AZURE.1]).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}{}", String::from_utf8_lossy(&made.stderr), server.log());
    let begun = Instant::now();
    let place = format!("azure://{}/container/vault?endpoint={endpoint}", AZURE.0);
    let variables = vec![("AZURE_STORAGE_ACCOUNT_KEY", AZURE.1.to_owned())];
    live(place.clone(), variables.clone());
    let desk = Desk::new();
    let mut command = desk.command(&["doctor", &place.replace("/vault?", "/tried?"), "--json"]);
    let said = said(&command.envs(variables).output().unwrap());
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    println!("azurite: the life of a vault in {:.0?}; doctor: {}", begun.elapsed(), said.out.trim());
}
