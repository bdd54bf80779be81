//! The Task Scheduler (Windows).

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::service::machine::Machine;
use crate::service::schedule::scheduler::{Job, Scheduler, State, Unit, ask, check_text, order, xml};

const TASK: &str = "vault run";
const FILE: &str = "vault-run.xml";

/// The Task Scheduler.
pub(super) struct Tasks<'a> {
    /// The machine.
    pub machine: &'a dyn Machine,
    /// The folder that holds the records of runs.
    pub runs: &'a Path,
}

impl Scheduler for Tasks<'_> {
    fn name(&self) -> &'static str {
        "Task Scheduler"
    }

    fn units(&self, job: &Job) -> Result<Vec<Unit>, String> {
        Ok(vec![Unit { name: FILE.to_owned(), text: task(job)? }])
    }

    fn folder(&self) -> Result<PathBuf, Failure> {
        Ok(self.runs.to_owned())
    }

    /// UTF-16 with a byte order mark, as the text itself declares.
    fn encode(&self, text: &str) -> Vec<u8> {
        let lines = text.replace('\n', "\r\n");
        std::iter::once(0xfeff).chain(lines.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    }

    fn load(&self, folder: &Path) -> Result<(), String> {
        let file = folder.join(FILE);
        order(self.machine, "schtasks", &["/Create", "/TN", TASK, "/XML", &file.to_string_lossy(), "/F"]).map(|_| ())
    }

    fn unload(&self, _: &Path) -> Result<(), String> {
        order(self.machine, "schtasks", &["/Delete", "/TN", TASK, "/F"]).map(|_| ())
    }

    fn state(&self, _: &Path) -> Result<State, String> {
        let (known, text) = ask(self.machine, "schtasks", &["/Query", "/TN", TASK, "/FO", "CSV", "/NH", "/V"])?;
        Ok(if known { read_state(&text) } else { State::default() })
    }
}

/// Reads the output of `schtasks /Query /FO CSV /V`. Its fields have a fixed order in every language of the system.
fn read_state(text: &str) -> State {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let Some(Ok(record)) = reader.records().next() else { return State::default() };
    let field = |at: usize| record.get(at).filter(|text| !text.is_empty() && *text != "N/A").map(str::to_owned);
    let result = field(6).filter(|code| !matches!(code.as_str(), "0" | "3" | "267009" | "267011"));
    State {
        installed: true,
        active: field(2).is_some(),
        last: field(5),
        next: field(2),
        problem: result.map(|code| format!("the last run ended with {code}")),
    }
}

fn task(job: &Job) -> Result<String, String> {
    let program = xml(check_text(job.program_text()?)?);
    let words: Vec<String> = job.args.iter().map(|arg| check_text(arg).map(quoted)).collect::<Result<_, _>>()?;
    let args = xml(&words.join(" "));
    let minutes = job.every.as_secs() / 60;
    let waits = !job.on_battery;
    // The order of the elements is that of the published schema.
    Ok(format!(
        r#"<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>Do what is due in the vaults (vault run). Written by vault schedule install.</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>
      <Delay>PT2M</Delay>
    </LogonTrigger>
    <TimeTrigger>
      <Enabled>true</Enabled>
      <StartBoundary>2026-01-01T00:00:00</StartBoundary>
      <Repetition>
        <Interval>PT{minutes}M</Interval>
        <StopAtDurationEnd>false</StopAtDurationEnd>
      </Repetition>
    </TimeTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>{waits}</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <StartWhenAvailable>true</StartWhenAvailable>
    <RunOnlyIfNetworkAvailable>false</RunOnlyIfNetworkAvailable>
    <Enabled>true</Enabled>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <Priority>8</Priority>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{program}</Command>
      <Arguments>{args}</Arguments>
    </Exec>
  </Actions>
</Task>
"#
    ))
}

/// Quotes a word of a command line as programs on Windows parse it.
fn quoted(word: &str) -> String {
    if !word.is_empty() && !word.contains([' ', '\t', '"']) {
        return word.to_owned();
    }
    let mut out = String::from("\"");
    let mut slashes = 0;
    for c in word.chars() {
        if c == '\\' {
            slashes += 1;
        } else {
            // Each backslash before a quote counts twice.
            out.push_str(&"\\".repeat(if c == '"' { 2 * slashes + 1 } else { slashes }));
            slashes = 0;
            out.push(c);
        }
    }
    out.push_str(&"\\".repeat(2 * slashes));
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::machine::tests::Still;
    use crate::service::schedule::scheduler::tests::odd_job;

    #[test]
    fn the_task_is_as_expected() {
        let text = task(&odd_job()).unwrap();
        for line in [
            "<Interval>PT15M</Interval>",
            "<DisallowStartIfOnBatteries>true</DisallowStartIfOnBatteries>",
            "<StartWhenAvailable>true</StartWhenAvailable>",
            "<Command>/opt/my tools/vault</Command>",
            "<Arguments>run --config &quot;/home/me/50% &amp; \\&quot;more\\&quot;/$x\\y.toml&quot;</Arguments>",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let bytes = Tasks { machine: &Still(&[]), runs: Path::new("") }.encode(&text);
        assert_eq!(bytes[..6], [0xff, 0xfe, b'<', 0, b'?', 0]);
    }

    /// Elements of a sequence stand in the order of the schema (MS-TSCH 2.5).
    #[test]
    fn the_task_keeps_the_order_of_the_schema() {
        let text = task(&odd_job()).unwrap();
        for sequence in [
            &["<Triggers>", "<LogonTrigger>", "<Enabled>", "<Delay>", "<TimeTrigger>"][..],
            &["<TimeTrigger>", "<Enabled>", "<StartBoundary>", "<Repetition>", "</TimeTrigger>"],
        ] {
            let mut at = text.find(sequence[0]).unwrap();
            for element in &sequence[1..] {
                at += text[at..].find(element).unwrap_or_else(|| panic!("{element} in {sequence:?}"));
            }
        }
    }

    #[test]
    fn words_are_quoted_as_windows_takes_them() {
        for (word, expected) in [
            ("run", "run"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("C:\\x y\\", "\"C:\\x y\\\\\""),
            ("a\\\"b", "\"a\\\\\\\"b\""),
            ("C:\\x\\y", "C:\\x\\y"),
        ] {
            assert_eq!(quoted(word), expected, "{word}");
        }
    }

    #[test]
    fn what_it_says_is_understood() {
        let line = "\"PC\",\"\\vault run\",\"11/22/2026 8:30:00 AM\",\"Ready\",\"Interactive only\",\
                    \"11/22/2026 8:15:00 AM\",\"0\",\"N/A\"\r\n";
        let state = read_state(line);
        assert!(state.active && state.problem.is_none());
        assert_eq!(state.next.as_deref(), Some("11/22/2026 8:30:00 AM"));
        assert!(read_state(&line.replace("\"0\"", "\"1\"")).problem.is_some());
        assert!(!read_state(&line.replace("11/22/2026 8:30:00 AM", "N/A")).active);
        assert_eq!(read_state(""), State::default());
    }
}
