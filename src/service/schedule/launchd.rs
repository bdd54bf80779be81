//! launchd's agents (macOS).

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::service::machine::Machine;
use crate::service::schedule::scheduler::{Job, Scheduler, State, Unit, ask, check_text, order, xml};

const LABEL: &str = "vault.run";

/// launchd.
pub(super) struct Launchd<'a> {
    /// The machine.
    pub machine: &'a dyn Machine,
}

fn file() -> String {
    format!("{LABEL}.plist")
}

/// The user's session, in launchctl's notation.
fn domain(machine: &dyn Machine) -> Result<String, String> {
    order(machine, "id", &["-u"]).map(|uid| format!("gui/{uid}"))
}

impl Scheduler for Launchd<'_> {
    fn name(&self) -> &'static str {
        "launchd"
    }

    fn units(&self, job: &Job) -> Result<Vec<Unit>, String> {
        Ok(vec![Unit { name: file(), text: plist(job)? }])
    }

    fn folder(&self) -> Result<PathBuf, Failure> {
        let failed = || Failure::new("there is no home folder to install a schedule in");
        self.machine.home().map(|home| home.join("Library/LaunchAgents")).ok_or_else(failed)
    }

    fn load(&self, folder: &Path) -> Result<(), String> {
        let domain = domain(self.machine)?;
        // A loaded agent keeps running with its old text.
        let _ = ask(self.machine, "launchctl", &["bootout", &format!("{domain}/{LABEL}")]);
        order(self.machine, "launchctl", &["bootstrap", &domain, &folder.join(file()).to_string_lossy()]).map(|_| ())
    }

    fn unload(&self, _: &Path) -> Result<(), String> {
        order(self.machine, "launchctl", &["bootout", &format!("{}/{LABEL}", domain(self.machine)?)]).map(|_| ())
    }

    fn state(&self, folder: &Path) -> Result<State, String> {
        let (known, text) = ask(self.machine, "launchctl", &["print", &format!("{}/{LABEL}", domain(self.machine)?)])?;
        let problem = last_exit(&text).filter(|_| known);
        Ok(State { installed: folder.join(file()).exists(), active: known, last: None, next: None, problem })
    }
}

/// The exit status of the last run, if it failed.
fn last_exit(text: &str) -> Option<String> {
    let code = text.lines().find_map(|line| line.trim().strip_prefix("last exit code = "))?;
    (!matches!(code, "0" | "3" | "(never exited)")).then(|| format!("the last run ended with exit code {code}"))
}

fn plist(job: &Job) -> Result<String, String> {
    let mut words = format!("    <string>{}</string>\n", xml(check_text(job.program_text()?)?));
    for arg in &job.args {
        let _ = writeln!(words, "    <string>{}</string>", xml(check_text(arg)?));
    }
    let log = xml(check_text(&job.log.to_string_lossy())?);
    let seconds = job.every.as_secs();
    // After a sleep, the next start finds what is due. Vault itself finds out whether the machine runs on battery.
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n\
         <dict>\n\
         \x20 <key>Label</key>\n  <string>{LABEL}</string>\n\
         \x20 <key>ProgramArguments</key>\n  <array>\n{words}  </array>\n\
         \x20 <key>RunAtLoad</key>\n  <true/>\n\
         \x20 <key>StartInterval</key>\n  <integer>{seconds}</integer>\n\
         \x20 <key>ProcessType</key>\n  <string>Background</string>\n\
         \x20 <key>LowPriorityIO</key>\n  <true/>\n\
         \x20 <key>Nice</key>\n  <integer>10</integer>\n\
         \x20 <key>StandardErrorPath</key>\n  <string>{log}</string>\n\
         </dict>\n\
         </plist>\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::schedule::scheduler::tests::odd_job;

    #[test]
    fn the_property_list_is_as_expected() {
        assert_eq!(
            plist(&odd_job()).unwrap(),
            r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>vault.run</string>
  <key>ProgramArguments</key>
  <array>
    <string>/opt/my tools/vault</string>
    <string>run</string>
    <string>--config</string>
    <string>/home/me/50% &amp; &quot;more&quot;/$x\y.toml</string>
  </array>
  <key>RunAtLoad</key>
  <true/>
  <key>StartInterval</key>
  <integer>900</integer>
  <key>ProcessType</key>
  <string>Background</string>
  <key>LowPriorityIO</key>
  <true/>
  <key>Nice</key>
  <integer>10</integer>
  <key>StandardErrorPath</key>
  <string>/home/me/log &lt;1&gt;</string>
</dict>
</plist>
"#
        );
    }

    #[test]
    fn what_it_says_is_understood() {
        assert_eq!(last_exit("gui/501/vault.run = {\n\tlast exit code = 0\n}"), None);
        assert_eq!(last_exit("\tlast exit code = (never exited)\n"), None);
        assert!(last_exit("\tlast exit code = 1\n").unwrap().ends_with("exit code 1"));
    }
}
