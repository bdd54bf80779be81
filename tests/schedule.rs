//! `vault schedule`, with a `systemctl` that only records its arguments.

use std::fs;
use std::process::Command;

use crate::run::Home;

/// Puts a `systemctl` into the path that knows whether the timer is enabled.
pub fn fake_systemctl(home: &Home) {
    home.program(
        "systemctl",
        r#"echo "$@" >> ~/systemctl.log
case "$*" in
*"show vault-run.timer"*)
    if [ -e ~/enabled ]; then
        printf 'LoadState=loaded\nUnitFileState=enabled\nActiveState=active\n'
        printf 'LastTriggerUSec=Sun 2026-11-22 08:15:00 UTC\nNextElapseUSecRealtime=Sun 2026-11-22 08:30:00 UTC\n'
    elif [ -e ~/.config/systemd/user/vault-run.timer ]; then
        printf 'LoadState=loaded\nUnitFileState=disabled\nActiveState=inactive\n'
    else
        printf 'LoadState=not-found\nActiveState=inactive\n'
    fi ;;
*"show vault-run.service"*) printf 'LoadState=loaded\nResult=success\nExecMainStatus=0\n' ;;
*reenable*) if [ -e ~/refuse ]; then echo 'Failed to connect to bus' >&2; exit 1; fi; touch ~/enabled ;;
*disable*) rm -f ~/enabled ;;
esac"#,
    );
}

fn home() -> Home {
    let home = Home::new();
    home.configure("[vaults.disk]\npath = \"HOME/disk\"\n[sources.a]\npaths = [\"~/a\"]\n[run]\non-battery = false\n");
    home
}

const FILES: [&str; 2] = [".config/systemd/user/vault-run.service", ".config/systemd/user/vault-run.timer"];

#[test]
#[cfg(target_os = "linux")]
fn a_schedule_is_installed_proven_and_removed() {
    let home = home();
    fake_systemctl(&home);
    assert!(home.expect(1, &["schedule", "status"]).contains("No schedule is installed."));
    let said = home.expect(0, &["schedule", "install", "--every", "1h"]);
    assert!(said.contains("every 1h") && said.contains("vault key add --device --repo disk"), "{said}");
    assert!(home.read(FILES[1]).contains("OnCalendar=0/1:00\n"));
    assert!(home.read(FILES[0]).contains("ConditionACPower=true\n"), "as the configuration says");
    let state = format!("--state {}", home.text("state/vault"));
    assert!(home.read(FILES[0]).contains(&state), "from a variable that the schedule will not have");
    assert!(home.read("systemctl.log").contains("--user daemon-reload\n--user reenable vault-run.timer\n"));
    let said = home.expect(0, &["schedule", "status"]);
    for part in ["installed and active", "looks every: 1h", "2026-11-22 08:15", "starts next", "by it: never"] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    home.expect(0, &["init"]);
    home.expect(0, &["run", "--background"]);
    let json = home.json(0, &["schedule", "status"]);
    assert_eq!((json["installed"].as_bool(), json["active"].as_bool()), (Some(true), Some(true)));
    assert!(json["last_background_run"].as_str().unwrap().starts_with("20"), "{json}");
    // Outdated units are reported.
    home.configure("[vaults.disk]\npath = \"HOME/disk\"\n[sources.a]\npaths = [\"~/a\"]\n");
    assert!(home.expect(0, &["schedule", "status"]).contains("not what would be installed now"));
    fs::remove_file(home.path("enabled")).unwrap();
    assert!(home.expect(1, &["schedule", "status"]).contains("NOT active"));
    assert!(home.expect(0, &["schedule", "remove"]).contains("removed"));
    assert!(FILES.iter().all(|file| !home.path(file).exists()));
    assert!(home.expect(0, &["schedule", "remove"]).contains("There was no schedule."));
}

#[test]
#[cfg(target_os = "linux")]
fn a_schedule_that_cannot_be_installed_leaves_nothing() {
    let home = home();
    fake_systemctl(&home);
    fs::write(home.path("refuse"), "").unwrap();
    let said = home.expect(1, &["schedule", "install"]);
    assert!(said.contains("Failed to connect to bus") && said.contains("run --background"), "{said}");
    assert!(FILES.iter().all(|file| !home.path(file).exists()), "nothing is left behind");
    // An existing one stays as it was.
    fs::remove_file(home.path("refuse")).unwrap();
    home.expect(0, &["schedule", "install"]);
    let before = FILES.map(|file| home.read(file));
    fs::write(home.path("refuse"), "").unwrap();
    home.expect(1, &["schedule", "install", "--every", "1d"]);
    assert_eq!(FILES.map(|file| home.read(file)), before);
}

/// Root's own schedule names its places, as the system's manager has no home folder; and cron gets a line that a shell
/// can read.
#[test]
#[cfg(target_os = "linux")]
fn a_schedule_of_the_system_and_a_line_for_cron() {
    let home = home();
    fake_systemctl(&home);
    let text = home.expect(0, &["schedule", "install", "--system", "--print", "--every", "2h"]);
    let places = format!("--config {} --state {}", home.text(".config/vault/vault.toml"), home.text("state/vault"));
    assert!(text.contains(&places) && text.contains("OnBootSec=2min") && text.contains("OnCalendar=0/2:00"), "{text}");
    assert!(home.expect(1, &["schedule", "status", "--system"]).contains("vault schedule install --system"));
    assert!(home.read("systemctl.log").contains("--system show vault-run.timer"));
    assert!(home.expect(0, &["schedule", "remove", "--system"]).contains("There was no schedule."));

    let line = home.expect(0, &["schedule", "install", "--print", "--for", "cron", "--every", "1h"]);
    let command = line.strip_prefix("0 * * * * ").unwrap().trim_end();
    home.expect(0, &["init"]);
    let done = Command::new("/bin/sh")
        .args(["-c", command])
        .env_clear()
        .envs([("HOME", home.text("")), ("VAULT_PASSWORD", "password".to_owned())])
        .status()
        .unwrap();
    assert!(done.success(), "{command}");
    assert!(home.json(1, &["schedule", "status"])["last_background_run"].is_string());
}

#[test]
fn a_schedule_needs_a_configuration() {
    let home = Home::new();
    assert!(home.expect(1, &["schedule", "install"]).contains("vault config"));
}

/// The units pass systemd's own examination, if it is installed.
#[test]
fn systemd_takes_the_units() {
    let home = home();
    let text = home.expect(0, &["schedule", "install", "--print", "--for", "systemd"]);
    let (service, timer) = text.split_once("# vault-run.timer\n").unwrap();
    let folder = home.path("units");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("vault-run.service"), service).unwrap();
    fs::write(folder.join("vault-run.timer"), timer).unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--user"]).args([folder.join("vault-run.service"), folder.join("vault-run.timer")]);
    match command.env("XDG_RUNTIME_DIR", home.path("")).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!said.contains("vault-run"), "{said}");
            if !output.status.success() {
                eprintln!("NOTICE: the units were not verified: {said}");
            }
        }
        Err(_) => eprintln!("NOTICE: the units were not verified: systemd-analyze is not here"),
    }
}

/// Other programs read the files for launchd and the Task Scheduler as intended.
#[test]
fn property_lists_and_tasks_are_read_by_other_programs() {
    let home = home();
    let script = r#"
import plistlib, sys, xml.etree.ElementTree as tree
plist = plistlib.loads(open(sys.argv[1], "rb").read())
assert plist["Label"] == "vault.run" and plist["RunAtLoad"] is True and plist["StartInterval"] == 1800, plist
assert plist["ProgramArguments"][1:3] == ["run", "--background"], plist
assert plist["ProcessType"] == "Background" and plist["LowPriorityIO"] is True, plist
text = open(sys.argv[2], encoding="utf-8").read().replace('encoding="UTF-16"', 'encoding="UTF-8"')
task = tree.fromstring(text.encode("utf-8"))
space = {"t": "http://schemas.microsoft.com/windows/2004/02/mit/task"}
assert task.find("t:Triggers/t:TimeTrigger/t:Repetition/t:Interval", space).text == "PT30M"
assert task.find("t:Settings/t:DisallowStartIfOnBatteries", space).text == "true"
assert task.find("t:Actions/t:Exec/t:Arguments", space).text.startswith("run --background")
assert [part.tag.split("}")[1] for part in task] == ["RegistrationInfo", "Triggers", "Principals", "Settings", "Actions"]
"#;
    fs::write(home.path("check.py"), script).unwrap();
    for (scheduler, file) in [("launchd", "run.plist"), ("task-scheduler", "run.xml")] {
        let text = home.expect(0, &["schedule", "install", "--every", "30m", "--print", "--for", scheduler]);
        fs::write(home.path(file), text).unwrap();
    }
    let python = Command::new("python3")
        .arg(home.path("check.py"))
        .args([home.path("run.plist"), home.path("run.xml")])
        .output();
    match python {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => eprintln!("NOTICE: the property list and the task were not read: python3 is not here"),
    }
}
