//! A line for cron, for systems without a scheduler that vault can install a schedule in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Failure;
use crate::service::schedule::scheduler::{Job, Scheduler, State, Unit, check_text};

/// cron. Its table belongs to the user, so its line is only printed.
pub(super) struct Cron;

impl Scheduler for Cron {
    fn name(&self) -> &'static str {
        "cron"
    }

    fn units(&self, job: &Job) -> Result<Vec<Unit>, String> {
        Ok(vec![Unit { name: "crontab".to_owned(), text: format!("{}\n", line(job)?) }])
    }

    fn folder(&self) -> Result<PathBuf, Failure> {
        Err(Failure::new("vault does not change cron's table").hint("Add the line with: crontab -e"))
    }

    fn load(&self, _: &Path) -> Result<(), String> {
        Err("its table is changed with: crontab -e".to_owned())
    }

    fn unload(&self, folder: &Path) -> Result<(), String> {
        self.load(folder)
    }

    fn state(&self, _: &Path) -> Result<State, String> {
        Ok(State::default())
    }
}

/// The line that starts the job.
pub(super) fn line(job: &Job) -> Result<String, String> {
    let mut command = word(check_text(job.program_text()?)?);
    for arg in &job.args {
        command.push(' ');
        command.push_str(&word(check_text(arg)?));
    }
    Ok(format!("{} {command}", calendar(job.every)))
}

/// An interval in cron's five fields.
fn calendar(every: Duration) -> String {
    let minutes = every.as_secs() / 60;
    match minutes {
        0..60 => format!("*/{} * * * *", minutes.max(1)),
        60 => "0 * * * *".to_owned(),
        61..1440 => format!("0 */{} * * *", minutes / 60),
        _ => "0 0 * * *".to_owned(),
    }
}

/// A word for the shell that cron uses. A percent sign would end the command, quoted or not.
fn word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''").replace('%', r"'\%'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::schedule::scheduler::tests::odd_job;

    #[test]
    fn the_line_is_as_expected() {
        let every = |minutes: u64| calendar(Duration::from_secs(minutes * 60));
        assert_eq!([15, 60, 120, 1440].map(every), ["*/15 * * * *", "0 * * * *", "0 */2 * * *", "0 0 * * *"]);
        let text = line(&odd_job()).unwrap();
        assert!(text.contains(r#"'/opt/my tools/vault' run --config '/home/me/50'\%' & "more"/$x\y.toml'"#), "{text}");
    }
}
