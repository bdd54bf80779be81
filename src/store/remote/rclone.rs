//! rclone as a child of this process. It serves its path to this process alone: on a port of this machine that the
//! system chooses, with a random password.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::progress::plain;
use crate::store::remote::http::authorization;
use crate::store::remote::line::Line;
use crate::store::{StoreError, Subject};
use crate::sync::lock;

/// The program, unless the user names another one.
const PROGRAM: &str = "rclone";
/// The text before the port in the message by which rclone says that it is ready.
const READY: &str = "http://127.0.0.1:";
/// The number of rclone's error messages that are kept.
const COMPLAINTS: usize = 4;
/// The interval at which a waiting thread checks whether rclone is ready, and whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// The user name for the server.
const USER: &str = "vault";
/// Variables with secrets of vault, which are not passed on to rclone.
const SECRETS: &[&str] = &[
    "VAULT_PASSWORD",
    "VAULT_NEW_PASSWORD",
    "VAULT_LIKE_PASSWORD",
    "VAULT_FROM_PASSWORD",
    "VAULT_TO_PASSWORD",
    "VAULT_REST_PASSWORD",
];
/// Ends rclone as soon as this process ends, in whatever way: the pipe closes then.
#[cfg(unix)]
const KEEPER: &str = "\"$@\" </dev/null & child=$!; exec 2>/dev/null; cat >/dev/null; kill \"$child\" 2>/dev/null";

/// A path of rclone's, and the child that serves it.
#[derive(Debug)]
pub(super) struct Rclone {
    program: String,
    path: String,
    running: Mutex<Option<Running>>,
    /// Whether the child has ever answered: if it is gone, it is started again.
    was_ready: AtomicBool,
}

/// The child. It is ended when this is dropped.
#[derive(Debug)]
struct Running {
    child: Child,
    keeps: Option<ChildStdin>,
    has_ended: Arc<AtomicBool>,
    url: String,
    authorization: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Closing the pipe makes the keeper end rclone. Without a keeper, it is ended below.
        drop(self.keeps.take());
        if !cfg!(unix) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// A password that nobody can guess.
fn password() -> Result<String, String> {
    let mut bytes = [0; 24];
    let provider = rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

impl Rclone {
    /// Prepares to serve this path. The child starts when the address is first needed.
    pub fn new(program: Option<String>, path: &str) -> Self {
        let program = program.unwrap_or_else(|| PROGRAM.to_owned());
        Self { program, path: path.to_owned(), running: Mutex::default(), was_ready: AtomicBool::new(false) }
    }

    /// The URL of the server, and the header field that authorizes us. Starts the child if necessary.
    pub fn address(&self, line: &Line, action: &'static str, object: &Subject) -> Result<(String, String), StoreError> {
        let mut running = lock(&self.running);
        if running.as_ref().is_none_or(|running| running.has_ended.load(Relaxed)) {
            *running = None;
            *running = Some(self.start(line, action, object)?);
        }
        let there = running.as_ref().map(|running| (running.url.clone(), running.authorization.clone()));
        there.ok_or_else(|| line.unusable("rclone is not there"))
    }

    fn command(&self, password: &str) -> Command {
        let args = ["serve", "restic", "--addr", "127.0.0.1:0", "--cache-objects=false", "--ask-password=false"];
        #[cfg(unix)]
        let mut command = {
            use std::os::unix::process::CommandExt;
            let mut command = Command::new("sh");
            command.args(["-c", KEEPER, "sh"]).arg(&self.program);
            // Ctrl-C in the terminal stops the work in good order, which needs the connection.
            command.process_group(0);
            command
        };
        #[cfg(not(unix))]
        let mut command = Command::new(&self.program);
        // Other log settings (`RCLONE_LOG_LEVEL`, a log file) would hide the address from us.
        command.args(args).args(["--log-level", "NOTICE", "--log-file", "", "--", &self.path]);
        command.env("RCLONE_USER", USER).env("RCLONE_PASS", password);
        for name in SECRETS {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn start(&self, line: &Line, action: &'static str, object: &Subject) -> Result<Running, StoreError> {
        let password = password().map_err(|what| line.unusable(what))?;
        let mut child = self.command(&password).spawn().map_err(|error| {
            line.unusable(format!("rclone cannot be started ({}: {})", self.program, plain(&error)))
        })?;
        let (keeps, errors) = (child.stdin.take(), child.stderr.take());
        let has_ended: Arc<AtomicBool> = Arc::default();
        let complaints: Arc<Mutex<Vec<String>>> = Arc::default();
        let (ready, told) = sync_channel(1);
        let (kept, ended) = (complaints.clone(), has_ended.clone());
        crate::sync::detach(move || {
            for text in errors.into_iter().flat_map(|errors| BufReader::new(errors).lines()).map_while(Result::ok) {
                if let Some(port) = port_of(&text) {
                    // The receiver may be gone.
                    let _ = ready.try_send(port);
                }
                let mut kept = lock(&kept);
                kept.push(text);
                let surplus = kept.len().saturating_sub(COMPLAINTS);
                kept.drain(..surplus);
            }
            ended.store(true, Relaxed);
        });
        let mut running =
            Running { child, keeps, has_ended, url: String::new(), authorization: authorization(USER, &password) };
        let watch = line.watch(action, object.clone());
        loop {
            match told.recv_timeout(LOOK) {
                Ok(port) => {
                    running.url = format!("{READY}{port}/");
                    self.was_ready.store(true, Relaxed);
                    return Ok(running);
                }
                Err(RecvTimeoutError::Timeout) => watch.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    let said = lock(&complaints).join("; ");
                    let said = if said.is_empty() {
                        "it says nothing (is it installed? VAULT_RCLONE names it)".to_owned()
                    } else {
                        said
                    };
                    return Err(if self.was_ready.load(Relaxed) {
                        watch.failed(&format!("rclone ends: {said}"))
                    } else {
                        line.unusable(format!("rclone ends: {said}"))
                    });
                }
            }
        }
    }
}

/// The port on which rclone serves, if this line names it.
fn port_of(line: &str) -> Option<u16> {
    let (_, behind) = line.split_once(READY)?;
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_however_it_is_said() {
        for (line, port) in [
            ("2026/11/29 08:47:08 NOTICE: x: Serving restic REST API on http://127.0.0.1:45995/", Some(45995)),
            ("NOTICE: x: Serving restic REST API on [http://127.0.0.1:41429/]", Some(41429)),
            ("Serving on http://127.0.0.1:99999/", None),
            ("CRITICAL: Failed to create file system", None),
        ] {
            assert_eq!(port_of(line), port, "{line}");
        }
        assert_ne!(password(), password());
    }
}
