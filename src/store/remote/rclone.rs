//! rclone as a child of this process, which serves a path of its own to this process alone: on a port of this machine that the
//! system chooses, with a password that nobody else knows.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::progress::plain;
use crate::store::remote::line::Line;
use crate::store::remote::rest::authorization;
use crate::store::{StoreError, Subject};
use crate::sync::lock;

/// The program, unless another one is named.
const PROGRAM: &str = "rclone";
/// What rclone says when it is ready, before the address.
const READY: &str = "http://127.0.0.1:";
/// How much of what it complains of is kept.
const COMPLAINTS: usize = 4;
/// How often it is looked whether it is ready, and the work is to stop.
const LOOK: Duration = Duration::from_millis(100);
/// The user's name for it.
const USER: &str = "vault";
/// What it need not know.
const SECRETS: &[&str] = &[
    "VAULT_PASSWORD",
    "VAULT_NEW_PASSWORD",
    "VAULT_LIKE_PASSWORD",
    "VAULT_FROM_PASSWORD",
    "VAULT_TO_PASSWORD",
    "VAULT_REST_PASSWORD",
];
/// Ends it as soon as this process is gone, however that came: then the pipe closes.
#[cfg(unix)]
const KEEPER: &str = "\"$@\" </dev/null & child=$!; exec 2>/dev/null; cat >/dev/null; kill \"$child\" 2>/dev/null";

/// A path of rclone's, and who serves it.
#[derive(Debug)]
pub(super) struct Rclone {
    program: String,
    path: String,
    running: Mutex<Option<Running>>,
    /// It has answered before: if it is gone, it is begun again.
    was_ready: AtomicBool,
}

/// The child. It ends when this is dropped.
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
        // The one that keeps it ends it then; where there is none, it is ended here.
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
    /// Serves this path, as soon as it is asked for.
    pub fn new(program: Option<String>, path: &str) -> Self {
        let program = program.unwrap_or_else(|| PROGRAM.to_owned());
        Self { program, path: path.to_owned(), running: Mutex::default(), was_ready: AtomicBool::new(false) }
    }

    /// Where it is served, and what tells it who asks. It is begun if need be.
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
            // Ctrl-C of the terminal ends the work in good order, and that needs the line.
            command.process_group(0);
            command
        };
        #[cfg(not(unix))]
        let mut command = Command::new(&self.program);
        // What it says in other ways (`RCLONE_LOG_LEVEL`, a log file) would hide where it serves.
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
                    // Nobody may wait any more.
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

/// The port on which it serves, if a line says so.
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
