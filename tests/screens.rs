//! Screens of commands in terminals of 60, 80 and 120 columns, compared with `tests/golden/screens-*.txt`.
//! `VAULT_GOLDEN=write` writes the screens again; look at the changes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::support::binary::Desk;
use crate::support::terminal::{Terminal, can_drive};

const WIDTHS: [usize; 3] = [60, 80, 120];

/// Exit codes and commands.
const COMMANDS: &[(i32, &str)] = &[
    (0, "list"),
    (0, "list --last 1"),
    (0, "ls latest:source/documents"),
    (0, "find '*.odt'"),
    (0, "history documents/letter.odt"),
    (0, "diff latest~1 latest"),
    (0, "du latest"),
    (0, "check --read-data"),
    (0, "prune --keep 1 --dry-run"),
    (2, "restore nosuch --to x"),
    (1, "ls latest:nosuch"),
    (2, "snapshot"),
    (2, "restore latest --target x"),
    (2, "juggle"),
];

/// A vault with three snapshots of a few folders with long and wide names.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("documents/letter.odt", "Dear reader");
    desk.write("documents/a report of the year with a name that is longer than most.odt", "much");
    desk.write("pictures/2024 夏休み/ひまわり.jpg", "sun");
    desk.write("pictures/one.jpg", vec![7; 40_000]);
    for (time, text) in [("2026-01-05 08:00", "one"), ("2026-02-05 09:30", "two"), ("2026-03-05 10:45", "three")] {
        desk.write("documents/letter.odt", format!("Dear reader, {text}"));
        desk.ok(&["snapshot", ".", "--source", "home", "--host", "desk", "--time", time, "--quiet", "--threads", "1"]);
    }
    desk
}

/// Whether a word is a day on which no snapshot of the desk was taken: the day of the test.
fn is_today(word: &str) -> bool {
    let is_day = word.len() == 10 && word.split('-').map(str::len).eq([4, 2, 2]);
    is_day && !word.starts_with("2026-0") && !word.starts_with("2023-")
}

/// The screen without the parts that differ each time: names of objects, and today.
fn plain(text: &str, desk: &Desk) -> String {
    let folder = desk.folder.path().to_str().unwrap();
    let mut out = String::new();
    for line in text.replace(folder, "DESK").lines() {
        let (mut words, mut after_today) = (Vec::new(), false);
        for word in line.trim_end().split(' ') {
            if is_today(word) || after_today {
                let rest = if after_today { word.get(5..).unwrap_or_default() } else { "" };
                words.push(if after_today { "hh:mm" } else { "today-----" }.to_owned() + rest);
                after_today = !after_today;
                continue;
            }
            // The number of copied bytes depends on names, which are random.
            if let Some(number) = words.last_mut().filter(|last: &&mut String| word == "B" && last.len() == 3) {
                "nnn".clone_into(number);
            }
            let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            let is_id = bare.len() == 8 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
            words.push(if is_id { word.replace(bare, "xxxxxxxx") } else { word.to_owned() });
        }
        let _ = writeln!(out, "{}", words.join(" "));
    }
    out
}

#[test]
fn screens_are_as_they_were_looked_at() {
    if !can_drive() {
        return;
    }
    let desk = desk();
    let template = desk.command(&[]);
    for width in WIDTHS {
        let mut screens = String::new();
        for (code, words) in COMMANDS {
            let mut terminal = Terminal::of_width(&template, words, width);
            assert_eq!(terminal.end(), *code, "{words}: {}", terminal.text());
            let screen = plain(&terminal.text(), &desk);
            let _ = writeln!(screens, "$ vault {words}\n{screen}");
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/screens-{width}.txt"));
        if std::env::var_os("VAULT_GOLDEN").is_some() {
            fs::write(&path, &screens).unwrap();
        }
        // A file's name and the text beside it are one line, however narrow the screen is.
        let mut is_prose = true;
        for line in screens.lines() {
            if let Some(command) = line.strip_prefix("$ vault ") {
                is_prose = !["ls", "find", "diff"].iter().any(|lister| command.starts_with(lister));
            } else {
                assert!(!is_prose || columns(line) <= width, "{width}: {line}");
            }
        }
        let expected = fs::read_to_string(&path).unwrap();
        assert!(screens == expected, "the screens are not those of {}:\n{screens}", path.display());
    }
}

/// Columns of a line: characters of east Asia take two.
fn columns(line: &str) -> usize {
    line.chars()
        .map(|c| if ('\u{1100}'..='\u{115f}').contains(&c) || ('\u{2e80}'..='\u{ffdc}').contains(&c) { 2 } else { 1 })
        .sum()
}
