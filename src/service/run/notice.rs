//! Notifications about a run: to the user's desktop, to a service that watches over runs, and to Prometheus.
//!
//! A failed notification is only a warning. It never changes how a run ends.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use crate::failure::{Failure, chain};
use crate::service::config::Desktop;
use crate::service::drill::Last;
use crate::service::local;
use crate::service::machine::Machine;
use crate::service::report::{Report, State};
use crate::service::status::{Pair, Status};

/// Gets one figure from the result of a drill.
type OfDrill = fn(&Last) -> i64;

/// The time after which the known findings of a vault are shown again, in seconds.
const KNOWN_AGAIN: i64 = 7 * 86_400;
/// The time after which a lasting failure is shown again, in seconds.
const AGAIN: i64 = 86_400;
/// The time limit for a notice or a ping.
const PATIENCE: Duration = Duration::from_secs(10);
/// The maximum length of a text sent to the watching service, in characters.
const BODY_LEN_MAX: usize = 10_000;

/// The kind of a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ping {
    /// A run begins.
    Start,
    /// The run succeeded.
    Good,
    /// Something failed.
    Bad,
}

/// Sends a ping to the watching service.
pub(super) fn ping(address: &str, what: Ping, text: &str) -> Result<(), String> {
    let base = address.trim_end_matches('/');
    let address = match what {
        Ping::Start => format!("{base}/start"),
        Ping::Good => base.to_owned(),
        Ping::Bad => format!("{base}/fail"),
    };
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    let text: String = text.chars().take(BODY_LEN_MAX).collect();
    let sent = agent.post(&address).content_type("text/plain; charset=utf-8").send(text);
    sent.map(|_| ()).map_err(|error| format!("{address} could not be called: {}", chain(&error)))
}

/// The notice for the desktop, as a title and a text; `None` if there is nothing to tell, or nothing new. Records in
/// `status` what is told.
pub(super) fn desktop_text(wish: Desktop, report: &Report, status: &mut Status, now: i64) -> Option<(String, String)> {
    let mut news = report.hooks.iter().any(|hook| hook.hook != "on-failure")
        || report
            .cares
            .iter()
            .any(|care| care.trouble.is_some() || care.checked.is_some_and(|checked| checked.damaged));
    for outcome in &report.outcomes {
        let bad = outcome.state == State::Failed || (outcome.state == State::Away && outcome.overdue);
        let pair = status.pair_mut(&outcome.source, &outcome.vault, &outcome.place);
        if bad && pair.told.is_none_or(|told| !(told..told + AGAIN).contains(&now)) {
            pair.told = Some(now);
            news = true;
        } else if outcome.state.is_taken() {
            pair.told = None;
        }
    }
    // A vault's known findings are shown when they change, and again each week.
    status.told_known.retain(|place, _| report.known.iter().any(|known| known.place == *place));
    for known in &report.known {
        let told = status.told_known.get(&known.place);
        let is_told = told
            .is_some_and(|(findings, time)| *findings == known.findings && (*time..*time + KNOWN_AGAIN).contains(&now));
        if !is_told {
            status.told_known.insert(known.place.clone(), (known.findings.clone(), now));
            news = true;
        }
    }
    let troubles = report.troubles();
    let did_something = report.outcomes.iter().any(|outcome| !matches!(outcome.state, State::NotDue | State::Away));
    match wish {
        Desktop::Failure | Desktop::Always if news => {
            Some(("vault: not everything is kept".to_owned(), troubles.join("\n")))
        }
        Desktop::Always if troubles.is_empty() && did_something => {
            let taken = report.outcomes.iter().filter(|outcome| outcome.state.is_taken()).count();
            Some(("vault: all is kept".to_owned(), format!("{taken} taken")))
        }
        _ => None,
    }
}

/// Shows a notice on the desktop.
pub(super) fn show(title: &str, text: &str, machine: &dyn Machine) -> Result<(), String> {
    let mut command = if cfg!(target_os = "macos") {
        let mut command = machine.program("osascript");
        let script = "display notification (item 2 of argv) with title (item 1 of argv)";
        command.args(["-e", "on run argv", "-e", script, "-e", "end run", title, text]);
        command
    } else if cfg!(windows) {
        let mut command = machine.program("powershell");
        command.args(["-NoProfile", "-NonInteractive", "-Command", BALLOON]);
        command.env("VAULT_NOTICE_TITLE", title).env("VAULT_NOTICE_TEXT", text);
        command
    } else {
        let mut command = machine.program("notify-send");
        command.args(["--app-name=vault", "--icon=dialog-information", "--", title, text]);
        command
    };
    let shown = command.get_program().to_string_lossy().into_owned();
    let failed = |what: String| format!("no notice could be shown: {shown}: {what}");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| failed(chain(&error)))?;
    let begun = machine.elapsed();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(failed(status.to_string())),
            Ok(None) if machine.elapsed().saturating_sub(begun) < PATIENCE => sleep(Duration::from_millis(20)),
            Ok(None) => {
                let _ = child.kill(); // its end is not awaited
                let _ = child.wait();
                return Err(failed("it does not end".to_owned()));
            }
            Err(error) => return Err(failed(chain(&error))),
        }
    }
}

const BALLOON: &str = "Add-Type -AssemblyName System.Windows.Forms; \
    $n = New-Object System.Windows.Forms.NotifyIcon; $n.Icon = [System.Drawing.SystemIcons]::Information; \
    $n.Visible = $true; $n.ShowBalloonTip(8000, $env:VAULT_NOTICE_TITLE, $env:VAULT_NOTICE_TEXT, 'Info'); \
    Start-Sleep -Seconds 8; $n.Dispose()";

/// Gets one figure of a source in a vault; `None` if there is none yet.
type Figure = fn(&Pair) -> Option<f64>;

#[allow(clippy::cast_precision_loss)] // figures are shown, not counted with
const FIGURES: &[(&str, &str, Figure)] = &[
    ("vault_last_snapshot_timestamp_seconds", "When the last snapshot was taken.", |pair| Some(pair.taken? as f64)),
    ("vault_last_try_timestamp_seconds", "When a snapshot was last tried.", |pair| Some(pair.tried as f64)),
    ("vault_last_try_success", "Whether that was a success (1) or not (0).", |pair| {
        Some(f64::from(u8::from(!matches!(pair.result.as_str(), "failed" | "away" | "interrupted"))))
    }),
    ("vault_last_try_complete", "Whether everything could be saved then.", |pair| {
        Some(f64::from(u8::from(matches!(pair.result.as_str(), "complete" | "unchanged"))))
    }),
    ("vault_snapshot_files", "Files in the last snapshot.", |pair| Some(pair.files as f64)),
    ("vault_snapshot_bytes", "Their sizes.", |pair| Some(pair.bytes as f64)),
    ("vault_snapshot_stored_bytes", "What the last snapshot added to the vault.", |pair| {
        Some(pair.bytes_stored as f64)
    }),
    ("vault_snapshot_duration_seconds", "How long it took.", |pair| Some(pair.duration_ms as f64 / 1000.0)),
];

/// The figures of all sources in Prometheus's text format.
pub(super) fn metrics(status: &Status, report: &Report) -> String {
    let mut text = String::new();
    for (name, help, figure) in FIGURES {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for pair in status.pairs() {
            if let Some(value) = figure(pair) {
                let (source, vault) = (label(&pair.source), label(&pair.vault));
                let _ = writeln!(text, "{name}{{source=\"{source}\",vault=\"{vault}\"}} {value}");
            }
        }
    }
    let name = "vault_last_check_timestamp_seconds";
    let _ = write!(text, "# HELP {name} When a vault was last checked.\n# TYPE {name} gauge\n");
    for (place, time) in &status.checked {
        let _ = writeln!(text, "{name}{{place=\"{}\"}} {time}", label(place));
    }
    let figures: [(&str, &str, OfDrill); 3] = [
        ("vault_last_drill_timestamp_seconds", "When a restore was last tried.", |last| last.secs),
        ("vault_last_drill_files", "How many files were restored then.", |last| last.files.cast_signed()),
        ("vault_last_drill_failed", "How many did not come back.", |last| last.failed.cast_signed()),
    ];
    for (name, help, figure) in figures {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for (place, last) in &report.drills {
            let _ = writeln!(text, "{name}{{place=\"{}\"}} {}", label(place), figure(last));
        }
    }
    let name = "vault_known_findings";
    let _ = write!(text, "# HELP {name} How much is known to be wrong with a vault.\n# TYPE {name} gauge\n");
    for known in &report.known {
        let place = label(&known.place);
        let _ = writeln!(text, "{name}{{place=\"{place}\",code=\"{}\"}} {}", known.exit as u8, known.findings.len());
    }
    if let Some(time) = status.last_run {
        let name = "vault_last_run_timestamp_seconds";
        let _ = write!(text, "# HELP {name} When a run last ended.\n# TYPE {name} gauge\n{name} {time}\n");
    }
    text
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Replaces a file that others read, so that they find either the old or the new content. Nothing is written into a vault.
pub(super) fn replace_file(path: &Path, text: &str) -> Result<(), Failure> {
    local::refuse_in_vault(path, "a report")?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let write = || -> io::Result<()> {
        fs::write(&temporary, text)?;
        crate::ownfile::hand_over(Path::new(&temporary));
        fs::rename(&temporary, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&temporary); // there may be none
    }
    written.map_err(|error| Failure::caused(format!("cannot write {}", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A service that answers once. The handle returns the request that it got.
    fn service(answer: &'static str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/abc/", listener.local_addr().unwrap());
        let heard = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut text = Vec::new();
            let mut block = [0; 1024];
            while !String::from_utf8_lossy(&text).contains("the text") {
                let n = stream.read(&mut block).unwrap();
                text.extend_from_slice(&block[..n]);
                if n == 0 {
                    break;
                }
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(text).unwrap()
        });
        (address, heard)
    }

    #[test]
    fn a_service_is_called() {
        let good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
        for (what, line) in [
            (Ping::Start, "POST /abc/start HTTP/1.1"),
            (Ping::Good, "POST /abc HTTP/1.1"),
            (Ping::Bad, "POST /abc/fail HTTP/1.1"),
        ] {
            let (address, heard) = service(good);
            ping(&address, what, "the text").unwrap();
            let heard = heard.join().unwrap();
            assert!(heard.starts_with(line) && heard.ends_with("the text"), "{heard}");
        }
        let (address, heard) = service("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        let error = ping(&address, Ping::Good, "the text").unwrap_err();
        assert!(error.contains("404"), "{error}");
        heard.join().unwrap();
        assert!(ping("http://127.0.0.1:1/x", Ping::Good, "").is_err());
    }

    #[test]
    fn a_trouble_is_told_once_a_day() {
        let mut status = Status::default();
        let report = |state| Report {
            outcomes: vec![crate::service::report::Outcome::new(
                "a",
                "disk",
                "/v".to_owned(),
                crate::tree::Time::default(),
                state,
            )],
            ..Report::default()
        };
        let (failed, good) = (report(State::Failed), report(State::Complete));
        let mut told = |wish, report: &Report, now| desktop_text(wish, report, &mut status, now).is_some();
        assert!(told(Desktop::Failure, &failed, 1000));
        assert!(!told(Desktop::Failure, &failed, 2000));
        assert!(told(Desktop::Failure, &failed, 1000 + AGAIN));
        assert!(!told(Desktop::Failure, &good, 90_000));
        assert!(told(Desktop::Failure, &failed, 90_001), "it was good in between");
        assert!(told(Desktop::Always, &good, 90_002));
        assert!(!told(Desktop::Never, &failed, 90_003));
        let idle = Report {
            outcomes: vec![crate::service::report::Outcome::new(
                "a",
                "disk",
                "/v".to_owned(),
                crate::tree::Time::default(),
                State::NotDue,
            )],
            ..Report::default()
        };
        assert!(!told(Desktop::Always, &idle, 90_004));
    }

    #[test]
    fn figures_are_written_as_prometheus_reads_them() {
        let mut status = Status::default();
        status.last_run = Some(9);
        let pair = status.pair_mut("a \"b\"\\", "disk", "/v");
        *pair = Pair { taken: Some(5), duration_ms: 1500, result: "partial".into(), ..pair.clone() };
        status.checked.insert("/v".into(), 7);
        let known = crate::service::report::Known {
            vault: "v".into(),
            place: "/v".into(),
            exit: crate::failure::Exit::Damage,
            findings: vec!["lost".into()],
        };
        let drills = vec![("/v".to_owned(), Last { secs: 8, files: 12, bytes: 99, failed: 1 })];
        let report = Report { known: vec![known], drills, ..Report::default() };
        let text = metrics(&status, &report);
        let labels = "{source=\"a \\\"b\\\"\\\\\",vault=\"disk\"}";
        for line in [
            format!("vault_last_snapshot_timestamp_seconds{labels} 5"),
            format!("vault_last_try_success{labels} 1"),
            format!("vault_last_try_complete{labels} 0"),
            format!("vault_snapshot_duration_seconds{labels} 1.5"),
            "vault_last_check_timestamp_seconds{place=\"/v\"} 7".to_owned(),
            "vault_last_drill_timestamp_seconds{place=\"/v\"} 8".to_owned(),
            "vault_last_drill_files{place=\"/v\"} 12".to_owned(),
            "vault_last_drill_failed{place=\"/v\"} 1".to_owned(),
            "vault_known_findings{place=\"/v\",code=\"4\"} 1".to_owned(),
            "vault_last_run_timestamp_seconds 9".to_owned(),
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
