//! The first minutes, in a terminal that a program drives: the screens are as kept in `golden`, and Ctrl-C at any
//! question leaves nothing behind.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::run::Home;
use crate::support::terminal::{Terminal, can_drive};

const PASSWORD: &str = "correct horse battery";

impl Terminal {
    /// Answers up to the password.
    fn begin(&mut self) {
        self.wait("separated by commas");
        self.wait(": ");
        self.enter("");
        self.wait("another folder");
        self.wait(": ");
        self.enter("~/disk");
        self.wait("Make it? [Y/n] ");
        self.enter("");
        self.wait("New password for the vault");
        self.wait(": ");
    }

    /// Declines the page with the recovery key.
    fn decline_page(&mut self) {
        self.wait("Write that page to a file, to be printed? [Y/n] ");
        self.enter("n");
        self.wait("vault key add --recovery-key");
    }

    /// Types the password, and two groups of the recovery key.
    fn secrets(&mut self) {
        self.enter(PASSWORD);
        self.wait("The same again: ");
        self.enter(PASSWORD);
        self.wait("shown only now.");
        assert!(!self.text().contains(PASSWORD), "the password is shown:\n{}", self.text());
        let shown = self.wait("To see that it is written down");
        let key = shown.lines().map(str::trim).find(|line| line.len() == 35 && line.matches('-').count() == 5).unwrap();
        let groups: Vec<String> = key.split('-').map(str::to_owned).collect();
        for round in 0..2 {
            let question = self.wait("? ");
            let number = question.rsplit("what is its ").next().unwrap();
            let number: usize = number.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
            if round == 0 {
                self.enter("WRONG");
                self.wait("That is not it.");
                self.wait("? ");
            }
            self.enter(&groups[number - 1].to_lowercase());
        }
    }
}

/// Starts the program alone in this home.
fn start(home: &Home) -> Terminal {
    let mut template = home.command(&[]);
    template.env_remove("VAULT_PASSWORD");
    Terminal::start(&template, "--no-progress")
}

fn home() -> Home {
    let home = Home::new();
    for (name, text) in
        [("Documents/letter.txt", "Dear"), ("Documents/old/note.txt", "a note"), ("Pictures/p.jpg", "jpg")]
    {
        fs::create_dir_all(home.path(name).parent().unwrap()).unwrap();
        fs::write(home.path(name), text).unwrap();
    }
    fs::create_dir(home.path("Dropbox")).unwrap();
    // Ignores the printers of this machine.
    home.program("lpstat", "echo 'no system default destination'");
    home
}

/// The screen without the parts that differ from run to run.
fn plain(text: &str, home: &Home) -> String {
    let mut out = String::new();
    let mut key = String::new();
    for line in text.replace(home.text("").trim_end_matches('/'), "HOME").lines() {
        let trimmed = line.trim();
        if trimmed.len() == 35 && trimmed.matches('-').count() == 5 {
            trimmed.clone_into(&mut key);
            out.push_str("    KEY\n");
        } else if line.starts_with("  ") && line.ends_with("free)") {
            // The list of disks depends on the machine.
        } else if let Some((question, typed)) = line.split_once("what is its ") {
            let typed =
                typed.split_once("? ").map_or("", |(_, typed)| if typed == "WRONG" { "WRONG" } else { "GROUP" });
            let _ = writeln!(out, "{question}what is its Nth of 6 groups? {typed}");
        } else if let Some((before, _)) = line.split_once(" stored, ") {
            let _ = writeln!(out, "{}, SIZE stored, TIME", before.rsplit_once(", ").unwrap().0);
        } else if let Some((before, _)) = line.split_once(", in ").filter(|(_, rest)| rest.ends_with(" s.")) {
            let _ = writeln!(out, "{before}, in TIME.");
        } else if let Some((before, _)) = line.split_once("checked, ") {
            let _ = writeln!(out, "{before}checked, SIZE read and verified");
        } else {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out
}

/// `VAULT_GOLDEN=write` writes the screens again; look at the changes.
#[track_caller]
fn check_golden(name: &str, screen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("VAULT_GOLDEN").is_some() {
        fs::write(&path, screen).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    for line in expected.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(screen == expected, "the screen is not that of {}:\n{screen}", path.display());
}

#[test]
fn the_first_minutes_lead_to_the_first_snapshot() {
    if !can_drive() {
        return;
    }
    let home = home();
    let mut terminal = start(&home);
    terminal.begin();
    terminal.secrets();
    terminal.wait("byte for byte the same");
    terminal.wait("Back up everything now? [Y/n] ");
    terminal.enter("");
    terminal.wait("Install that? [Y/n] ");
    terminal.enter("n");
    terminal.wait("Write that page to a file, to be printed? [Y/n] ");
    terminal.enter("");
    terminal.wait("Into which file?");
    terminal.wait("] ");
    terminal.enter("~/disk/key.txt");
    terminal.wait("Please try again.");
    terminal.wait("] ");
    terminal.enter("");
    terminal.wait("brings the last one back");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    let page = home.read("vault-recovery-key.txt");
    let key = page.lines().map(str::trim).find(|line| line.len() == 35 && line.matches('-').count() == 5).unwrap();
    let opened = home.command(&["list", "--repo", &home.text("disk")]).env("VAULT_PASSWORD", key).status().unwrap();
    assert!(opened.success(), "{page}");
    check_golden("first-minutes.txt", &plain(&terminal.text(), &home));

    // All files are there, and nothing else: the trial is forgotten.
    let run = |args: &[&str]| {
        let output = home.command(args).env("VAULT_PASSWORD", PASSWORD).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let list: serde_json::Value = serde_json::from_str(&run(&["list", "--json"])).unwrap();
    let snapshots = list["snapshots"].as_array().unwrap();
    assert_eq!((snapshots.len(), snapshots[0]["source"].as_str()), (1, Some("home")));
    run(&["restore", "latest", "--to", &home.text("back")]);
    assert_eq!(home.read("back/Documents/old/note.txt"), "a note");
    assert!(run(&["run"]).starts_with("Nothing is due."));
    // Work that the schedule will do by itself is no advice in the first days.
    let doctor = home.command(&["doctor"]).env("VAULT_PASSWORD", PASSWORD).output().unwrap();
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("✓ The vault is new: vault run reads") && !doctor.contains("never read"), "{doctor}");
    // With a configuration there is nothing to guide: the state is shown, without a password.
    let mut terminal = start(&home);
    terminal.wait("do what is due");
    assert_eq!(terminal.end(), 0);
    let shown = terminal.text();
    assert!(shown.lines().next().unwrap().starts_with("Source"), "{shown}");
    assert!(shown.contains("home") && shown.contains("complete") && shown.contains("in 1 d"), "{shown}");
}

#[test]
fn a_schedule_is_offered_and_needs_no_password() {
    if !can_drive() || !cfg!(target_os = "linux") {
        return;
    }
    let home = home();
    crate::schedule::fake_systemctl(&home);
    let mut terminal = start(&home);
    terminal.begin();
    terminal.secrets();
    terminal.wait("Back up everything now? [Y/n] ");
    terminal.enter("n");
    terminal.wait("Install that? [Y/n] ");
    terminal.enter("y");
    terminal.decline_page();
    terminal.wait("That is all.");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    let unit = home.read(".config/systemd/user/vault-run.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    // The schedule's command does what is due.
    let mut words = line.split(' ');
    assert_eq!(words.next().unwrap(), fs::canonicalize(env!("CARGO_BIN_EXE_vault")).unwrap().to_str().unwrap());
    let status = home.command(&words.collect::<Vec<_>>()).env_remove("VAULT_PASSWORD").status().unwrap();
    assert_eq!(status.code(), Some(0));
    let list = home.command(&["list", "--json"]).env_remove("VAULT_PASSWORD").output().unwrap();
    assert!(String::from_utf8_lossy(&list.stdout).contains("\"source\":\"home\""));
}

/// An interrupted run leaves nothing behind.
#[track_caller]
fn assert_nothing_is_left(home: &Home, when: &str) {
    for path in ["disk", ".config", "state"] {
        let left = fs::read_dir(home.path(path)).map(|entries| entries.flatten().map(|e| e.path()).collect::<Vec<_>>());
        assert!(left.as_ref().is_ok_and(Vec::is_empty) || left.is_err(), "{when}: {path} is left with {left:?}");
    }
}

#[test]
fn ctrl_c_at_any_question_leaves_nothing() {
    if !can_drive() {
        return;
    }
    for stage in 0..7 {
        let home = home();
        let mut terminal = start(&home);
        let waits = [
            "separated by commas",
            "another folder",
            "Make it?",
            "New password",
            "The same again",
            "of 6 groups",
            "That is not it.",
        ];
        for (at, wait) in waits.iter().enumerate().take(stage + 1) {
            terminal.wait(wait);
            terminal.wait([": ", ": ", "[Y/n] ", ": ", ": ", "? ", "? "][at]);
            if at == stage {
                break;
            }
            terminal.enter(["", "~/disk", "", PASSWORD, PASSWORD, "WRONG"][at]);
        }
        terminal.type_in("\x03");
        assert_eq!(terminal.end(), 130, "{}", terminal.text());
        // The shell's next output begins on a line of its own.
        assert!(terminal.text().ends_with('\n'), "{:?}", terminal.text());
        assert_nothing_is_left(&home, waits[stage]);
    }
}

#[test]
fn ctrl_c_while_the_vault_is_made_leaves_all_or_nothing() {
    if !can_drive() {
        return;
    }
    let mut nothing = 0;
    for delay in [0, 60, 150, 300, 500] {
        let home = home();
        let mut terminal = start(&home);
        terminal.begin();
        terminal.secrets();
        sleep(Duration::from_millis(delay));
        terminal.type_in("\x03");
        assert_eq!(terminal.end(), 130, "{}", terminal.text());
        if home.path(".config/vault/vault.toml").exists() {
            let output = home.command(&["run"]).env("VAULT_PASSWORD", PASSWORD).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        } else {
            assert!(!home.path("disk").exists(), "after {delay} ms: {}", terminal.text());
            nothing += 1;
        }
    }
    assert!(nothing > 0, "at least the first interrupt comes before the vault is made");
}

#[test]
fn wrong_answers_are_asked_again() {
    if !can_drive() {
        return;
    }
    let home = home();
    let mut terminal = start(&home);
    terminal.wait("separated by commas");
    terminal.wait(": ");
    terminal.enter("~/gone");
    terminal.wait("Please try again.");
    terminal.wait(": ");
    terminal.enter("?");
    terminal.wait("need no backup");
    terminal.wait(": ");
    terminal.enter("1");
    terminal.wait("Together 10 B.");
    terminal.wait("another folder");
    terminal.wait(": ");
    terminal.enter("back");
    terminal.wait("separated by commas");
    terminal.wait(": ");
    terminal.enter("1-2, ~/a");
    terminal.wait("another folder");
    terminal.wait(": ");
    terminal.enter("9");
    terminal.wait("number");
    terminal.wait(": ");
    terminal.enter("~/typo");
    terminal.wait("Make it? [Y/n] ");
    terminal.enter("n");
    terminal.wait("another folder");
    terminal.wait(": ");
    terminal.enter("~/no/where");
    terminal.wait("there is no folder");
    terminal.wait(": ");
    terminal.enter("~/Dropbox");
    // The folder is empty, but other things will be put into it as well.
    terminal.wait("Dropbox/vault");
    terminal.wait("New password");
    terminal.wait(": ");
    terminal.enter(PASSWORD);
    terminal.wait("The same again: ");
    terminal.enter("something else");
    terminal.wait("the two passwords differ.");
    terminal.wait("Please try again.");
    terminal.wait(": ");
    terminal.secrets();
    terminal.wait("Back up everything now?");
    terminal.enter("");
    terminal.wait("Install that?");
    terminal.enter("n");
    terminal.decline_page();
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    let config = home.read(".config/vault/vault.toml");
    assert!(config.contains("[vaults.cloud]") && config.contains("[sources.home]"), "{config}");
    assert!(terminal.text().contains("home → cloud: complete, 5 files"), "{}", terminal.text());
}

/// A typing mistake costs nothing: three tries, as elsewhere.
#[test]
fn a_mistyped_password_is_asked_for_again() {
    if !can_drive() {
        return;
    }
    let home = Home::new();
    let vault = home.text("disk");
    home.expect(0, &["init", "--repo", &vault]);
    let mut template = home.command(&[]);
    template.env_remove("VAULT_PASSWORD");
    let words = format!("list --no-progress --repo '{vault}'");
    let ask = |typed: &[&str]| {
        let mut terminal = Terminal::start(&template, &words);
        for (at, typed) in typed.iter().enumerate() {
            if at > 0 {
                terminal.wait("Please try again.");
            }
            terminal.wait("Password of the vault");
            terminal.wait(": ");
            terminal.enter(typed);
        }
        (terminal.end(), terminal.text().matches("Please try again.").count())
    };
    assert_eq!(ask(&["wrong", "wrong too", "password"]), (0, 2));
    assert_eq!(ask(&["wrong", "wrong too", "and again"]), (12, 2));
    // The end of the input is no answer.
    let mut terminal = Terminal::start(&template, &words);
    terminal.wait("Password of the vault");
    terminal.wait(": ");
    terminal.type_in("\x04");
    assert_eq!(terminal.end(), 130, "{}", terminal.text());
}

/// Usually unwanted files are named with their size, and left out from then on.
#[test]
fn what_is_usually_not_wanted_is_left_out_if_that_is_wanted() {
    if !can_drive() {
        return;
    }
    for (word, is_left_out) in [("", true), ("n", false)] {
        let home = home();
        for (name, len) in [("Documents/.cache/deep/a", 3000), ("Documents/.cache/b", 96), ("Pictures/Thumbs.db", 24)] {
            fs::create_dir_all(home.path(name).parent().unwrap()).unwrap();
            fs::write(home.path(name), vec![b'x'; len]).unwrap();
        }
        let mut terminal = start(&home);
        terminal.wait("separated by commas");
        terminal.wait(": ");
        terminal.enter("");
        terminal.wait("Together 3.1 KiB. Of that, 3.0 KiB is usually not wanted: caches,");
        terminal.wait("  ~/Documents/.cache  (3.0 KiB)");
        terminal.wait("  ~/Pictures/Thumbs.db  (24 B)");
        terminal.wait("Leave that out, and all of that kind later? [Y/n] ");
        terminal.enter("?");
        terminal.wait("docs/backup.md");
        terminal.wait("[Y/n] ");
        terminal.enter("perhaps");
        terminal.wait("Please answer");
        terminal.wait("[Y/n] ");
        terminal.enter("back");
        terminal.wait("separated by commas");
        terminal.wait(": ");
        terminal.enter("");
        terminal.wait("[Y/n] ");
        terminal.enter(word);
        terminal.wait(if is_left_out { "That makes 13 B." } else { "That makes 3.1 KiB." });
        terminal.wait("another folder");
        terminal.wait(": ");
        terminal.enter("~/disk");
        terminal.wait("Make it? [Y/n] ");
        terminal.enter("");
        terminal.wait("New password for the vault");
        terminal.wait(": ");
        terminal.secrets();
        terminal.wait("Back up everything now? [Y/n] ");
        terminal.enter("");
        terminal.wait("Install that? [Y/n] ");
        terminal.enter("n");
        terminal.decline_page();
        assert_eq!(terminal.end(), 0, "{}", terminal.text());
        for line in terminal.text().lines() {
            assert!(line.chars().count() <= 80 || line.contains(&home.text("")), "{line}");
        }
        let config = home.read(".config/vault/vault.toml");
        let is_set = config.lines().any(|line| line.starts_with("exclude-usual = true"));
        assert_eq!(is_set, is_left_out, "{config}");
        let listed = home.command(&["ls", "latest", "--recursive"]).env("VAULT_PASSWORD", PASSWORD).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("letter.txt") && listed.contains("p.jpg"), "{listed}");
        assert_eq!(listed.contains("Thumbs.db") || listed.contains(".cache"), !is_left_out, "{listed}");
    }
}

/// A new computer, and the vault of the old one.
#[test]
fn a_vault_that_is_there_is_restored_from_or_gone_on_with() {
    if !can_drive() {
        return;
    }
    let home = home();
    let (disk, old) = (home.text("disk"), home.text("old-computer"));
    for args in [&["init", "--repo", &disk][..], &["snapshot", &home.text("Documents"), "--repo", &disk]] {
        let done = home.command(args).env("VAULT_PASSWORD", PASSWORD).env("VAULT_STATE_DIR", &old).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let open = || {
        let mut terminal = start(&home);
        terminal.wait("separated by commas");
        terminal.wait(": ");
        terminal.enter("");
        terminal.wait("another folder");
        terminal.wait(": ");
        terminal.enter("~/disk");
        terminal.wait("There is a vault in");
        terminal.wait("Use that one? [Y/n] ");
        terminal.enter("");
        terminal.wait("opens it.");
        terminal.wait(": ");
        terminal.enter(PASSWORD);
        terminal.wait("It has 1 snapshot.");
        terminal.wait("Bring files of one back now? [Y/n] ");
        terminal
    };
    let mut terminal = open();
    terminal.enter("");
    terminal.wait("Which one? [1] ");
    terminal.enter("");
    terminal.wait("Into which folder?");
    terminal.wait("] ");
    terminal.enter("~/back");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    assert_eq!(home.read("back/Documents/old/note.txt"), "a note");
    let mut terminal = open();
    terminal.enter("n");
    terminal.wait("from now on? [Y/n] ");
    terminal.enter("n");
    terminal.wait("Nothing was changed.");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    assert!(!home.path(".config/vault/vault.toml").exists());
}

/// The page with the recovery key is offered when the key is made, and printed if there is a printer; a script is not
/// asked.
#[test]
fn the_page_with_the_recovery_key_is_printed_or_not_asked_about() {
    if !can_drive() {
        return;
    }
    let home = home();
    home.program("lpstat", "echo 'system default destination: paper'");
    home.program("lp", "cat > ~/printed; [ ! -e ~/jammed ]");
    let disk = home.text("disk");
    let mut template = home.command(&[]);
    template.env_remove("VAULT_PASSWORD");
    let mut terminal = Terminal::start(&template, &format!("init --no-progress --repo '{disk}'"));
    for question in ["New password", "The same again"] {
        terminal.wait(question);
        terminal.wait(": ");
        terminal.enter(PASSWORD);
    }
    terminal.wait("Make a recovery key to print, too? [Y/n] ");
    terminal.enter("");
    terminal.wait("Press Enter when that is done. ");
    terminal.enter("");
    terminal.wait("Print that page now? [Y/n] ");
    terminal.enter("");
    terminal.wait("It is sent to the printer.");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    let page = home.read("printed");
    assert!(page.contains("RECOVERY KEY") && page.contains(&format!("--repo {disk}")), "{page}");
    assert!(page.lines().all(|line| line.chars().count() <= 80 || line.contains(&disk)), "{page}");
    // A printer that fails does not end the guide.
    fs::write(home.path("jammed"), "").unwrap();
    let mut terminal = Terminal::start(&template, &format!("key add --recovery-key --no-progress --repo '{disk}'"));
    terminal.wait("Password of the vault");
    terminal.wait(": ");
    terminal.enter(PASSWORD);
    terminal.wait("Press Enter when that is done. ");
    terminal.enter("");
    terminal.wait("Print that page now? [Y/n] ");
    terminal.enter("y");
    terminal.wait("It could not be printed");
    terminal.wait("Write that page to a file, to be printed? [Y/n] ");
    terminal.enter("n");
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    // If the password comes from elsewhere, nobody is asked.
    let mut terminal =
        Terminal::start(&home.command(&[]), &format!("init --recovery-key --repo '{}'", home.text("d2")));
    assert_eq!(terminal.end(), 0, "{}", terminal.text());
    let text = terminal.text();
    assert!(text.contains("Recovery key:") && !text.contains("page"), "{text}");
}
