//! An SSH server on this machine, with keys of its own and for this user alone.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The server. It ends when it is dropped.
pub struct Sshd {
    folder: TempDir,
    child: Child,
    port: u16,
}

fn found(name: &str, places: &[&str]) -> Option<PathBuf> {
    places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists())
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

impl Sshd {
    /// Starts one.
    ///
    /// # Errors
    /// The reason why it cannot be started here.
    pub fn start() -> Result<Self, String> {
        let program = found("sshd", &["/usr/sbin", "/usr/local/sbin", "/usr/bin"]).ok_or("sshd is not installed")?;
        found("ssh", &["/usr/bin", "/usr/local/bin"]).ok_or("ssh is not installed")?;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["host", "user"] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path(name)]).status();
            made.ok().filter(std::process::ExitStatus::success).ok_or("ssh-keygen fails")?;
        }
        std::fs::copy(path("user.pub"), path("authorized")).unwrap();
        if rustix::process::getuid().is_root() {
            // The folder of its unprivileged parts.
            std::fs::create_dir_all("/run/sshd").map_err(|error| error.to_string())?;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\nPermitRootLogin yes\n\
             Subsystem sftp internal-sftp\nMaxStartups 100\n",
            path("host"),
            path("authorized")
        );
        write(Path::new(&path("sshd_config")), &config, 0o600);
        let client = format!(
            "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  StrictHostKeyChecking accept-new\n",
            path("user"),
            path("known")
        );
        write(Path::new(&path("ssh_config")), &client, 0o600);
        write(Path::new(&path("ssh")), &format!("#!/bin/sh\nexec ssh -F {} \"$@\"\n", path("ssh_config")), 0o700);
        let mut child = Command::new(program)
            .args(["-D", "-e", "-f", &path("sshd_config")])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap_or(0) == 0 {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("sshd ends: {said}"));
            }
            said.push_str(&line);
            if line.contains("listening on") {
                break;
            }
        }
        std::thread::spawn(move || lines.lines().for_each(drop));
        Ok(Self { folder, child, port })
    }

    /// An address of a vault in an existing folder.
    pub fn vault(&self, name: &str) -> String {
        let top = self.folder.path().join("vaults");
        std::fs::create_dir_all(&top).unwrap();
        format!("sftp://127.0.0.1:{}{}/{name}", self.port, top.display())
    }

    /// The folder behind such an address.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join("vaults").join(name)
    }

    /// The program that connects to it.
    pub fn program(&self) -> String {
        self.folder.path().join("ssh").display().to_string()
    }

    /// Another program in its place, run by a shell.
    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        write(&path, &format!("#!/bin/sh\n{text}\n"), 0o700);
        path.display().to_string()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
