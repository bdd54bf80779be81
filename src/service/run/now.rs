//! The files by which other processes follow a run and stop it, in the state folder. The run replaces `now.json` about
//! once a second and removes it at the end. It also appends to a log of its own. A file `stop` that holds the run's id
//! asks it to end.
//!
//! These files never decide whether a run goes on. Only the lock does, and the system releases it when the process
//! ends.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::failure::{Exit, Failure};
use crate::json::{exact, time_text};
use crate::path::Shown;
use crate::progress::Phase;
use crate::service::report::{self, Care, Outcome, State};
use crate::service::run::observer::{Hear, Numbers, Of, Watch};
use crate::service::status;
use crate::sync::lock;
use crate::tree::Time;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

/// The version of the format of `now.json`.
const VERSION: u64 = 1;
/// The interval at which a run looks whether it was asked to stop.
const TICK: Duration = Duration::from_millis(200);
/// `now.json` is written once in this many ticks.
const TICKS: u32 = 4;
/// The maximum length of a log in bytes; a line that would exceed it is left out.
const LOG_MAX: u64 = 1 << 20;
/// The maximum length of a text in the log, in characters.
const TEXT_MAX: usize = 2000;
/// The number of logs kept.
const LOGS_KEPT: usize = 50;

/// The content of `now.json`.
#[derive(Serialize)]
struct NowJson<'a> {
    version: u64,
    /// The run's id, by which it can be asked to stop.
    run: &'a str,
    process: u32,
    #[serde(serialize_with = "exact")]
    started: Time,
    /// When this file was written.
    #[serde(serialize_with = "exact")]
    at: Time,
    /// Whether a schedule started it.
    background: bool,
    /// Whether the run has been asked to stop.
    stopping: bool,
    /// The number of sources that are due, each counted once for each of its vaults.
    due: usize,
    works: Vec<WorkJson<'a>>,
    results: &'a [ResultJson],
}

/// A piece of work under way.
#[derive(Serialize)]
struct WorkJson<'a> {
    /// Null for a vault's maintenance.
    source: Option<&'a str>,
    vault: &'a str,
    /// Null while the vault is being opened.
    phase: Option<&'static str>,
    #[serde(serialize_with = "exact")]
    since: Time,
    #[serde(flatten)]
    numbers: Numbers,
}

/// A result so far.
#[derive(Clone, Serialize)]
struct ResultJson {
    source: String,
    vault: String,
    state: State,
}

/// The writer of `now.json` and of the log while a run goes on.
pub struct Journal {
    desk: Arc<Desk>,
    writer: Option<JoinHandle<()>>,
}

struct Desk {
    folder: PathBuf,
    run: String,
    started: Time,
    background: bool,
    due: usize,
    watch: Arc<dyn Watch>,
    clock: fn() -> Time,
    log: Mutex<Log>,
    results: Mutex<Vec<ResultJson>>,
    /// Whether the run has been asked to stop, and whether it is over.
    state: Mutex<(bool, bool)>,
    over: Condvar,
}

/// The log, as long as it can be written.
struct Log {
    file: Option<File>,
    len: u64,
    is_cut: bool,
    clock: fn() -> Time,
}

impl Log {
    fn line(&mut self, line: &Value, is_last: bool) {
        let text = format!("{line}\n");
        let len = text.len() as u64;
        if self.len + len > LOG_MAX && !is_last {
            if !self.is_cut {
                self.is_cut = true;
                self.line(&json!({ "time": time_text((self.clock)()), "event": "cut" }), true);
            }
            return;
        }
        self.len += len;
        if self.file.as_mut().is_some_and(|file| file.write_all(text.as_bytes()).is_err()) {
            self.file = None;
        }
    }
}

impl Journal {
    /// Begins the journal of a run that holds the lock. Errors in writing are ignored: the run matters more.
    pub fn begin(
        watch: Arc<dyn Watch>,
        folder: &Path,
        (started, clock): (Time, fn() -> Time),
        background: bool,
        due: usize,
    ) -> Self {
        let run = name(started);
        // These files remain if an earlier run was killed.
        let _ = fs::remove_file(now_path(folder));
        let _ = fs::remove_file(stop_path(folder));
        let file = open_log(folder, &run).ok();
        let desk = Arc::new(Desk {
            folder: folder.to_owned(),
            run,
            started,
            background,
            due,
            watch,
            clock,
            log: Mutex::new(Log { file, len: 0, is_cut: false, clock }),
            results: Mutex::default(),
            state: Mutex::default(),
            over: Condvar::new(),
        });
        desk.say("begun", json!({ "run": desk.run, "process": process::id(), "background": background, "due": due }));
        desk.write();
        desk.watch.let_hear(Some(Arc::clone(&desk) as Arc<dyn Hear>));
        let own = Arc::clone(&desk);
        let writer = thread::Builder::new().name("vault-journal".to_owned()).spawn(move || own.tell()).ok();
        Self { desk, writer }
    }

    /// Records the result for a source in a vault.
    pub fn result(&self, outcome: &Outcome) {
        if outcome.state == State::NotDue {
            return;
        }
        let (source, vault, state) = (outcome.source.clone(), outcome.vault.clone(), outcome.state);
        let (text, hint) = report::line(outcome);
        let told = json!({ "source": source, "vault": vault, "state": state, "text": cut(&text), "hint": hint });
        self.desk.say("result", told);
        lock(&self.desk.results).push(ResultJson { source, vault, state });
    }

    /// Records the result of a vault's maintenance.
    pub fn care(&self, care: &Care) {
        if let Some(text) = report::care_line(care) {
            self.desk.say("vault", json!({ "vault": care.vault, "text": cut(&text) }));
        }
    }

    /// Records a hook that failed.
    pub fn hook(&self, source: &str, hook: &str, what: &str) {
        let text = format!("{}: the command {hook}: {what}", Shown(source.as_bytes()));
        self.desk.say("hook", json!({ "source": source, "hook": hook, "text": cut(&text) }));
    }

    /// Records the run's summary line.
    pub fn summary(&self, text: &str) {
        self.desk.say("summary", json!({ "text": cut(text) }));
    }

    /// Records the end of the run.
    pub fn end(mut self, done: &Result<Exit, Failure>) {
        let (exit, text) = match done {
            Ok(exit) => (*exit, None),
            Err(failure) => (failure.exit, Some(cut(&failure.what))),
        };
        self.finish(exit, text.as_deref());
    }

    fn finish(&mut self, exit: Exit, error: Option<&str>) {
        let Some(writer) = self.writer.take() else { return };
        self.desk.watch.let_hear(None);
        lock(&self.desk.state).1 = true;
        self.desk.over.notify_all();
        let _ = writer.join(); // the writer only reports: its failure is not one of the run
        let line = json!({
            "time": time_text((self.desk.clock)()), "event": "ended", "exit_code": exit as u8, "error": error,
        });
        lock(&self.desk.log).line(&line, true);
        let _ = fs::remove_file(now_path(&self.desk.folder));
        let _ = fs::remove_file(stop_path(&self.desk.folder));
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Only a defect leads here before `end` was called.
        self.finish(Exit::Panic, None);
    }
}

impl Hear for Desk {
    fn warning(&self, text: &str) {
        self.say("warning", json!({ "text": cut(text) }));
    }

    fn phase(&self, of: &Of, phase: Phase) {
        self.say("phase", json!({ "source": of.source, "vault": of.vault, "phase": phase.word() }));
    }
}

impl Desk {
    fn say(&self, event: &str, mut told: Value) {
        if let Value::Object(fields) = &mut told {
            fields.insert("time".to_owned(), time_text((self.clock)()).into());
            fields.insert("event".to_owned(), event.into());
        }
        lock(&self.log).line(&told, false);
    }

    /// Writes `now.json` until the run is over, and passes on a request to stop.
    fn tell(&self) {
        let mut ticks = 0;
        loop {
            let state = lock(&self.state);
            let (mut state, _) = self.over.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner);
            if state.1 {
                return;
            }
            let asked = !state.0 && is_asked(&self.folder, &self.run);
            state.0 |= asked;
            drop(state);
            if asked {
                self.watch.stop();
                self.say("stopping", json!({}));
            }
            ticks = (ticks + 1) % TICKS;
            if ticks == 0 || asked {
                self.write();
            }
        }
    }

    fn write(&self) {
        let works = self.watch.at_work();
        let works = works.iter().map(|one| WorkJson {
            source: one.of.source.as_deref(),
            vault: &one.of.vault,
            phase: one.phase.map(Phase::word),
            since: one.since,
            numbers: one.numbers,
        });
        let results = lock(&self.results).clone();
        let now = NowJson {
            version: VERSION,
            run: &self.run,
            process: process::id(),
            started: self.started,
            at: (self.clock)(),
            background: self.background,
            stopping: self.watch.is_stopped(),
            due: self.due,
            works: works.collect(),
            results: &results,
        };
        let _ = serde_json::to_vec(&now).map_err(io::Error::from).and_then(|bytes| replace(&self.folder, &bytes));
    }
}

fn now_path(folder: &Path) -> PathBuf {
    folder.join("now.json")
}

fn stop_path(folder: &Path) -> PathBuf {
    folder.join("stop")
}

fn log_path(folder: &Path, run: &str) -> PathBuf {
    folder.join("log").join(format!("{run}.ndjson"))
}

/// The name of a run in its log and its report, made of its start time. All names have the same length, so they sort by
/// time.
pub fn name(started: Time) -> String {
    format!("{:020}-{:09}", started.secs.max(0), started.nanos)
}

/// Shortens a text to the log's limit.
fn cut(text: &str) -> String {
    text.char_indices().nth(TEXT_MAX).map_or_else(|| text.to_owned(), |(at, _)| format!("{}…", &text[..at]))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Replaces `now.json`. The file need not survive a crash, so it is not synced.
fn replace(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let (path, temporary) = (now_path(folder), folder.join("now.new"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    private().write(true).open(&temporary)?.write_all(bytes)?;
    fs::rename(&temporary, path)
}

/// Creates the log of a run, and deletes the oldest logs.
fn open_log(folder: &Path, run: &str) -> io::Result<File> {
    let path = log_path(folder, run);
    let folder = folder.join("log");
    crate::ownfile::make_private_folder(&folder)?;
    let found = crate::folder::entries(&folder)?.filter_map(|found| Some(found.ok()?.path()));
    let mut logs: Vec<PathBuf> = found.filter(|path| path.extension().is_some_and(|end| end == "ndjson")).collect();
    logs.sort();
    let surplus = (logs.len() + 1).saturating_sub(LOGS_KEPT);
    logs.iter().take(surplus).try_for_each(fs::remove_file)?;
    private().append(true).open(path)
}

/// Whether this run has been asked to stop.
fn is_asked(folder: &Path, run: &str) -> bool {
    crate::ownfile::read(&stop_path(folder)).is_ok_and(|asked| asked == run.as_bytes())
}

/// Asks a run to stop. The run notices this within a second, and ends as it does after Ctrl-C.
pub fn ask_to_stop(folder: &Path, run: &str) -> Result<(), Failure> {
    let path = stop_path(folder);
    let failed = |error: io::Error| Failure::caused(format!("cannot write {}", path.display()), &error);
    crate::ownfile::replace_private_file(&path, run.as_bytes()).map_err(failed)
}

/// The content of `now.json`: null if the run has not written it (yet), `None` if no run goes on.
pub fn look(folder: &Path) -> Option<Value> {
    if !status::is_locked(folder) {
        return None;
    }
    let bytes = crate::ownfile::read(&now_path(folder)).unwrap_or_default();
    let told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    Some(if told["version"] == VERSION { told } else { Value::Null })
}

/// The complete lines of a run's log from this byte offset on, and the offset after them.
pub fn log_from(folder: &Path, run: &str, from: u64) -> (Vec<Value>, u64) {
    let is_name = run.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let read = || -> io::Result<Vec<u8>> {
        let mut file = crate::ownfile::open(&log_path(folder, run))?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(2 * LOG_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = if is_name { read().unwrap_or_default() } else { Vec::new() };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let lines = bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    (lines.filter_map(|line| serde_json::from_slice(line).ok()).collect(), from + whole as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "tests may read the clock")]

    use super::*;
    use crate::service::run::observer::AtWork;

    /// A [`Watch`] whose work stays at one point.
    #[derive(Default)]
    struct Fixed {
        works: Mutex<Vec<AtWork>>,
        is_stopped: Mutex<bool>,
        hearer: Mutex<Option<Arc<dyn Hear>>>,
    }

    impl Watch for Fixed {
        fn at_work(&self) -> Vec<AtWork> {
            lock(&self.works).clone()
        }

        fn stop(&self) {
            *lock(&self.is_stopped) = true;
        }

        fn is_stopped(&self) -> bool {
            *lock(&self.is_stopped)
        }

        fn let_hear(&self, hearer: Option<Arc<dyn Hear>>) {
            *lock(&self.hearer) = hearer;
        }
    }

    fn begin(watch: &Arc<Fixed>, folder: &Path, started: Time, background: bool, due: usize) -> Journal {
        Journal::begin(Arc::clone(watch) as Arc<dyn Watch>, folder, (started, Time::default), background, due)
    }

    fn events(folder: &Path, run: &str) -> Vec<String> {
        let (lines, _) = log_from(folder, run, 0);
        lines.iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_run_is_told_of_while_it_goes_on_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(look(folder), None);
        let held = status::lock(folder).unwrap();
        assert_eq!(look(folder), Some(Value::Null));
        let (watch, started) = (Arc::<Fixed>::default(), Time { secs: 7, nanos: 5 });
        let journal = begin(&watch, folder, started, true, 2);
        let of = Of::source("documents", "disk");
        let numbers = Numbers { files: 3, bytes: 30, files_goal: 10, bytes_goal: 100, ..Numbers::default() };
        let work = AtWork { of: of.clone(), phase: Some(Phase::Snapshot), since: started, numbers };
        lock(&watch.works).push(work);
        let hearer = lock(&watch.hearer).clone().unwrap();
        hearer.phase(&of, Phase::Snapshot);
        hearer.warning("a file cannot be read");
        journal.result(&Outcome::new("pictures", "disk", "/v".to_owned(), Time::default(), State::Complete));
        journal.desk.write();
        let now = look(folder).unwrap();
        assert_eq!(
            (&now["process"], &now["due"], &now["background"]),
            (&json!(process::id()), &json!(2), &json!(true))
        );
        let work = &now["works"][0];
        let told = (&work["source"], &work["vault"], &work["phase"], &work["files"], &work["bytes_goal"]);
        assert_eq!(told, (&json!("documents"), &json!("disk"), &json!("snapshot"), &json!(3), &json!(100)));
        assert_eq!(now["results"][0]["state"], "complete");
        drop(hearer);
        // A request meant for another run has no effect.
        ask_to_stop(folder, "another").unwrap();
        thread::sleep(3 * TICK);
        assert!(!watch.is_stopped());
        ask_to_stop(folder, now["run"].as_str().unwrap()).unwrap();
        let since = std::time::Instant::now();
        while !watch.is_stopped() {
            assert!(since.elapsed() < Duration::from_secs(30), "it does not hear");
            thread::sleep(Duration::from_millis(5));
        }
        journal.end(&Ok(Exit::Interrupted));
        assert!(lock(&watch.hearer).is_none());
        assert!(!now_path(folder).exists() && !stop_path(folder).exists());
        let run = name(started);
        assert_eq!(events(folder, &run), ["begun", "phase", "warning", "result", "stopping", "ended"]);
        assert_eq!(log_from(folder, &run, 0).0[5]["exit_code"], 130);
        assert_eq!(log_from(folder, "../status", 0).0, Vec::<Value>::new());
        drop(held);
        assert_eq!(look(folder), None);
    }

    #[test]
    fn what_a_killed_run_left_is_no_run() {
        let folder = tempfile::tempdir().unwrap();
        drop(status::lock(folder.path()).unwrap());
        fs::write(now_path(folder.path()), json!({ "version": 1, "run": "0-0" }).to_string()).unwrap();
        assert_eq!(look(folder.path()), None);
        let _held = status::lock(folder.path()).unwrap();
        assert!(look(folder.path()).is_some());
        drop(begin(&Arc::default(), folder.path(), Time { secs: 9, nanos: 0 }, false, 0));
        let (lines, _) = log_from(folder.path(), &name(Time { secs: 9, nanos: 0 }), 0);
        assert_eq!(lines.last().unwrap()["exit_code"], 101, "it did not come to its end");
        fs::write(now_path(folder.path()), "{").unwrap();
        assert_eq!(look(folder.path()), Some(Value::Null));
    }

    #[test]
    fn logs_are_bounded_in_length_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Arc::default();
        let last = LOGS_KEPT.cast_signed() as i64;
        for secs in 0..=last {
            let journal = begin(&watch, folder.path(), Time { secs, nanos: 0 }, false, 0);
            if secs == last {
                (0..2000).for_each(|_| journal.desk.warning(&"x".repeat(3000)));
            }
            journal.end(&Ok(Exit::Done));
        }
        assert_eq!(fs::read_dir(folder.path().join("log")).unwrap().count(), LOGS_KEPT);
        let run = name(Time { secs: last, nanos: 0 });
        let len = fs::metadata(log_path(folder.path(), &run)).unwrap().len();
        assert!(len > LOG_MAX / 2 && len < LOG_MAX + 1000, "{len}");
        let events = events(folder.path(), &run);
        assert_eq!(events[events.len() - 2..], ["cut", "ended"]);
    }
}
