//! The real program in a terminal that the test drives.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// A program in a terminal of its own.
pub struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    /// Length of the output that was already waited for.
    seen: usize,
}

/// Whether the program that offers terminals to other programs is installed.
pub fn can_drive() -> bool {
    let can = Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("NOTICE: no terminal was tried: the program `script` of util-linux is not here");
    }
    can
}

impl Terminal {
    /// Starts the program with these words, which a shell splits into arguments, with the settings of `template`.
    pub fn start(template: &Command, words: &str) -> Self {
        Self::of_width(template, words, 80)
    }

    /// The same in a terminal with this number of columns.
    pub fn of_width(template: &Command, words: &str, columns: usize) -> Self {
        // If tests run in the background, Ctrl-C is ignored, and child processes inherit that.
        let program =
            format!("stty cols {columns}; exec env --default-signal=INT {} {words}", env!("CARGO_BIN_EXE_vault"));
        let mut command = Command::new("script");
        for (name, value) in template.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(["--quiet", "--flush", "--return", "--command", &program, "/dev/null"]);
        if let Some(folder) = template.get_current_dir() {
            command.current_dir(folder);
        }
        command.env("NO_COLOR", "1").env("TZ", "UTC");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let keyboard = child.stdin.take().unwrap();
        let mut out = child.stdout.take().unwrap();
        let screen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let shared = Arc::clone(&screen);
        let reader = thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut block) {
                shared.lock().unwrap().extend_from_slice(&block[..n]);
            }
        });
        Self { child, keyboard, screen, reader: Some(reader), seen: 0 }
    }

    /// The output so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).replace('\r', "")
    }

    /// Waits until this is in the output, after the text that was waited for before. Returns the output up to there.
    #[track_caller]
    pub fn wait(&mut self, expected: &str) -> String {
        let begun = Instant::now();
        loop {
            let text = self.text();
            if let Some(at) = text[self.seen..].find(expected) {
                let end = self.seen + at + expected.len();
                let found = text[self.seen..end].to_owned();
                self.seen = end;
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "{expected:?} did not come:\n{text}");
            sleep(Duration::from_millis(5));
        }
    }

    /// Types this text.
    pub fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    /// Types a line.
    pub fn enter(&mut self, text: &str) {
        self.type_in(&format!("{text}\n"));
    }

    /// Waits for the end. Returns the exit code.
    pub fn end(&mut self) -> i32 {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "it does not end:\n{}", self.text());
            sleep(Duration::from_millis(5));
        };
        let code = status.code().unwrap_or(-1);
        self.reader.take().unwrap().join().unwrap();
        code
    }
}
