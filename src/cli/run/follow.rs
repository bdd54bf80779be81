//! `vault run --follow` and `--stop`: following a run of another process.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use crate::progress::Phase;
use crate::progress::Progress;
use crate::service::report::Report;
use serde_json::Value;
use serde_json::json;

use super::folder;
use super::history;
use super::now;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::progress::Lane;
use crate::cli::progress::Of;

/// The interval at which the watcher looks at the run.
const LOOK: Duration = Duration::from_millis(200);
/// The number of looks within which a new run must give its id.
const PATIENCE: u32 = 50;

/// Runs `vault run --follow` and `--stop`.
pub fn run(context: &Context, stop: bool, follow: bool) -> Result<Exit, Failure> {
    let folder = folder(context)?;
    let Some(run) = begun(&folder)? else { return none(context) };
    if stop {
        now::ask_to_stop(&folder, &run)?;
        if !follow {
            let mut out = Output::new();
            if context.global.json {
                out.json(&json!({ "stopping": run }))?;
            } else if !context.global.quiet {
                out.say("It was asked to stop. What it has stored stays.")?;
            }
            return out.finish().map(|()| Exit::Done);
        }
    }
    let mut watcher = Watcher { context, out: Output::new(), lanes: Vec::new(), read: 0, at: Value::Null, exit: None };
    while let Some(told) = now::look(&folder) {
        if !told.is_null() && told["run"] != *run {
            break;
        }
        watcher.lines(&folder, &run)?;
        watcher.draw(&told)?;
        thread::sleep(LOOK);
    }
    watcher.end(&folder, &run)
}

/// Reports that no run is going on.
fn none(context: &Context) -> Result<Exit, Failure> {
    let mut out = Output::new();
    if context.global.json {
        out.json(&Report::default().json(dates::now(), dates::now()))?;
    } else if !context.global.quiet {
        out.say("No vault run is going on.")?;
    }
    out.finish().map(|()| Exit::Done)
}

/// The id of the run that is going on; `None` if there is none.
fn begun(folder: &Path) -> Result<Option<String>, Failure> {
    for _ in 0..PATIENCE {
        match now::look(folder) {
            None => return Ok(None),
            Some(told) => match told["run"].as_str() {
                Some(run) => return Ok(Some(run.to_owned())),
                None => thread::sleep(LOOK),
            },
        }
    }
    Err(Failure::new("a vault run is going on, but does not say what it does")
        .hint("It may be of another version of vault, or waits for a password."))
}

/// The watcher of a run.
struct Watcher<'a> {
    context: &'a Context,
    out: Output,
    /// The work under way, each piece with a bar.
    lanes: Vec<(Of, Lane, Option<Phase>)>,
    /// The number of bytes of the log read.
    read: u64,
    /// The time stamp of the `now.json` read last.
    at: Value,
    exit: Option<u64>,
}

impl Watcher<'_> {
    /// Prints new lines of the log.
    fn lines(&mut self, folder: &Path, run: &str) -> Result<(), Failure> {
        let (lines, read) = now::log_from(folder, run, self.read);
        self.read = read;
        for line in lines {
            self.exit = line["exit_code"].as_u64().or(self.exit);
            let global = &self.context.global;
            let text = line["text"].as_str().or(line["error"].as_str());
            let Some(text) = text.filter(|_| !global.json) else { continue };
            let event = line["event"].as_str().unwrap_or_default();
            if event == "warning" {
                self.context.screen.warn(text);
                continue;
            }
            let is_bad = matches!(event, "hook" | "ended")
                || matches!(line["state"].as_str(), Some("partial" | "failed" | "away" | "interrupted"));
            if global.quiet && !is_bad {
                continue;
            }
            let out = &mut self.out;
            let printed = self.context.screen.aside(|| {
                match (event, is_bad) {
                    ("summary", _) => out.styled(Style::Bold, text)?,
                    (_, true) => out.styled(Style::Warning, text)?,
                    (_, false) => out.line(text)?,
                }
                if let Some(hint) = line["hint"].as_str() {
                    out.line(format_args!("    {hint}"))?;
                }
                out.flush()
            });
            printed?;
        }
        Ok(())
    }

    /// Draws the work under way, or prints it for programs.
    fn draw(&mut self, told: &Value) -> Result<(), Failure> {
        if told.is_null() || told["at"] == self.at {
            return Ok(());
        }
        self.at = told["at"].clone();
        if self.context.global.json {
            self.out.json(told)?;
            return self.out.flush();
        }
        let works: Vec<&Value> = told["works"].as_array().into_iter().flatten().collect();
        let of = |work: &Value| Of {
            source: work["source"].as_str().map(str::to_owned),
            vault: work["vault"].as_str().unwrap_or_default().to_owned(),
        };
        self.lanes.retain(|(own, ..)| works.iter().any(|work| of(work) == *own));
        for work in works {
            let own = of(work);
            if !self.lanes.iter().any(|(other, ..)| *other == own) {
                let lane = self.context.screen.lane(own.clone());
                self.lanes.push((own.clone(), lane, None));
            }
            let Some((_, lane, before)) = self.lanes.iter_mut().find(|(other, ..)| *other == own) else { continue };
            let number = |name: &str| work[name].as_u64().unwrap_or(0);
            let counters = lane.counters();
            for (counter, name) in [
                (&counters.files, "files"),
                (&counters.bytes, "bytes"),
                (&counters.files_unchanged, "files_unchanged"),
                (&counters.bytes_read, "bytes_read"),
                (&counters.files_goal, "files_goal"),
                (&counters.bytes_goal, "bytes_goal"),
            ] {
                counter.store(number(name), Relaxed);
            }
            let phase = Phase::ALL.into_iter().find(|phase| work["phase"] == phase.word());
            if let Some(phase) = phase.filter(|_| phase != *before) {
                lane.phase(phase);
                *before = Some(phase);
            }
        }
        Ok(())
    }

    /// Ends with the exit code of the run.
    fn end(mut self, folder: &Path, run: &str) -> Result<Exit, Failure> {
        self.lanes.clear();
        self.lines(folder, run)?;
        let exit = Exit::ALL.into_iter().map(|(exit, _)| exit).find(|exit| Some(*exit as u64) == self.exit);
        if self.context.global.json {
            self.out
                .json(&history::report(folder, run).unwrap_or_else(|| json!({ "run": run, "exit_code": self.exit })))?;
        }
        self.out.finish()?;
        exit.ok_or_else(|| {
            Failure::new("the run ended without a word: it was killed, or did not come to its end")
                .hint("What it has stored stays, and is not stored again. Go on with: vault run")
        })
    }
}
