//! Standard output: text for people, JSON for programs. It falls silent when its reader has gone, or when it takes nothing
//! more, such as a log file on a full disk: the work goes on, and the program's end tells of it.

use std::env;
use std::fmt::Display;
use std::io;
use std::io::BufWriter;
use std::io::IsTerminal;
use std::io::Stdout;
use std::io::Write;
use std::sync::OnceLock;

use serde::Serialize;

use crate::cli::error::Failure;
use crate::cli::table;

/// The width that is assumed if a terminal does not report its own.
const WIDTH_DEFAULT: usize = 80;

/// The first error of writing, other than that the reader has gone.
static FAULT: OnceLock<Failure> = OnceLock::new();

/// Why standard output lacks something, if it does. This makes the exit code [`Exit::Failed`] unless that is worse.
///
/// [`Exit::Failed`]: crate::cli::error::Exit::Failed
pub(super) fn fault() -> Option<&'static Failure> {
    FAULT.get()
}

/// Fails if something could not be written. A person who is asked must have been able to read what it is about.
pub(super) fn shown() -> Result<(), Failure> {
    fault().map_or(Ok(()), |failure| Err(Failure::new(failure.what.as_str())))
}

/// Standard output.
pub(super) struct Output {
    out: BufWriter<Stdout>,
    /// Whether the reader has gone, as in `vault list | head`, which is legitimate and changes no exit code; or whether
    /// there was a [`fault`].
    closed: bool,
    /// The number of columns of the terminal; `None` if there is no terminal, so that nothing is cut.
    pub width: Option<usize>,
    color: bool,
}

/// The style of a piece of text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Style {
    /// Titles.
    Bold,
    /// Text that asks for attention.
    Warning,
}

impl Output {
    /// Standard output with the settings of its terminal.
    pub(super) fn new() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self {
            width: terminal.then(|| terminal_width(&stdout)),
            color: terminal && colors(),
            out: BufWriter::new(stdout),
            closed: false,
        }
    }

    /// Whether nothing more is written, so that it is useless to go on for the output alone.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes to standard output, unless that is closed. Fails only for a value that is not to be written as JSON.
    fn attempt(&mut self, write: impl FnOnce(&mut BufWriter<Stdout>) -> io::Result<()>) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        match write(&mut self.out) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(Failure::output(&error)),
            Err(error) => {
                self.closed = true;
                if error.kind() != io::ErrorKind::BrokenPipe {
                    FAULT.get_or_init(|| Failure::output(&error));
                }
            }
            Ok(()) => {}
        }
        Ok(())
    }

    /// Prints one line.
    pub(super) fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        self.attempt(|out| writeln!(out, "{line}"))
    }

    /// Prints a sentence, wrapped to the width of the terminal.
    pub(super) fn say(&mut self, text: impl Display) -> Result<(), Failure> {
        let text = wrapped(&text.to_string(), self.width);
        self.line(text)
    }

    /// Prints a sentence in a style, wrapped to the width of the terminal.
    pub(super) fn styled(&mut self, style: Style, text: &str) -> Result<(), Failure> {
        let text = wrapped(text, self.width);
        let text = self.paint(style, &text);
        self.line(text)
    }

    /// Prints a heading without wrapping it: the titles of columns, or a path, which stays whole.
    pub(super) fn head(&mut self, line: &str) -> Result<(), Failure> {
        let line = self.paint(Style::Bold, line);
        self.line(line)
    }

    /// The text in a style, if colours are wanted.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        paint(self.color, style, text)
    }

    /// Prints these bytes and nothing else.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.attempt(|out| out.write_all(bytes))
    }

    /// Prints a value as JSON in one line.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        self.attempt(|out| serde_json::to_writer(&mut *out, value).map_err(io::Error::from))?;
        self.bytes(b"\n")
    }

    /// Prints a value as JSON without a newline.
    pub(super) fn json_inline(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        self.attempt(|out| serde_json::to_writer(out, value).map_err(io::Error::from))
    }

    /// Writes out buffered output.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.attempt(BufWriter::flush)
    }

    /// As [`Self::flush`], for output that is shown only once: fails if it cannot be written, if its reader has gone, or
    /// if there cannot be one.
    pub(super) fn hand_out(&mut self) -> Result<(), Failure> {
        self.flush()?;
        shown()?;
        if leads_nowhere(self.out.get_ref()) {
            Err(Failure::new("standard output is closed, or leads to where nobody reads it"))
        } else if self.closed {
            Err(Failure::new("nobody reads the output"))
        } else {
            Ok(())
        }
    }

    /// Writes out everything that is still buffered.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.flush()
    }

    /// The writer behind standard output.
    pub(super) fn writer(&mut self) -> &mut dyn Write {
        &mut self.out
    }
}

/// Whether everything that is written there is thrown away. If standard output was closed, the runtime of the language has
/// opened `/dev/null` in its place before `main`, which cannot be told from a choice of the user. Nobody reads either.
#[cfg(unix)]
fn leads_nowhere(out: &Stdout) -> bool {
    use rustix::fs::{FileType, fstat, stat};
    let Ok(out) = fstat(out) else { return true };
    FileType::from_raw_mode(out.st_mode) == FileType::CharacterDevice
        && stat("/dev/null").is_ok_and(|nowhere| nowhere.st_rdev == out.st_rdev)
}

/// Whether everything that is written there is thrown away: a program without standard output has a handle of nothing.
#[cfg(windows)]
fn leads_nowhere(out: &Stdout) -> bool {
    std::os::windows::io::AsRawHandle::as_raw_handle(out).is_null()
}

/// The beginnings of a command at the end of a sentence.
const COMMANDS: [&str; 4] = [": vault ", ": sudo ", ": loginctl ", ": ssh "];

/// Wraps a sentence to at most this many columns; longer words stay whole. Lines after the first are indented by two
/// more columns. A command at the end is never broken, so that it can be copied.
pub(super) fn wrapped(text: &str, max: Option<usize>) -> String {
    let Some(max) = max.filter(|max| table::width(text) > *max) else { return text.to_owned() };
    let lines: Vec<String> = text.split('\n').map(|line| wrapped_line(line, max, 2)).collect();
    lines.join("\n")
}

/// Wraps a text that was laid out for 80 columns to this many. If a line is too long, the lines of each paragraph are
/// joined and wrapped. Indented lines stay as they are: lists, keys, commands.
pub(super) fn filled(text: &str, max: Option<usize>) -> String {
    let Some(max) = max.filter(|max| text.lines().any(|line| table::width(line) > *max)) else {
        return text.to_owned();
    };
    let mut lines: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in text.split('\n') {
        let is_prose = !line.is_empty() && !line.starts_with(' ');
        match lines.last_mut().filter(|_| is_prose && is_open) {
            Some(last) => {
                last.push(' ');
                last.push_str(line);
            }
            None => lines.push(line.to_owned()),
        }
        is_open = is_prose;
    }
    let fit = |line: &String| if line.starts_with(' ') { line.clone() } else { wrapped_line(line, max, 0) };
    let lines: Vec<String> = lines.iter().map(fit).collect();
    lines.join("\n")
}

/// Wraps a line to this many columns, and indents the lines after the first by `hanging` more.
fn wrapped_line(line: &str, max: usize, hanging: usize) -> String {
    if table::width(line) <= max {
        return line.to_owned();
    }
    let indent = line.len() - line.trim_start_matches(' ').len();
    let further = " ".repeat(indent + hanging);
    // Text after these words belongs to a command only if the sentence does not go on behind it.
    let ends = |at: &usize| [", ", "; ", ". "].iter().all(|more| !line[*at..].contains(more));
    let command = COMMANDS.iter().filter_map(|begin| line.find(begin)).min().filter(ends);
    let command = command.map_or(line.len(), |at| at + 1);
    let words = line[indent..command].split(' ');
    let command = line[command..].trim_start();
    let mut out = " ".repeat(indent);
    let mut used = indent;
    // Multiple blanks are kept, because they align text in columns.
    let (mut is_first, mut blanks) = (true, 0);
    for word in words.chain(Some(command).filter(|command| !command.is_empty())) {
        let len = table::width(word);
        if len == 0 {
            blanks += 1;
            continue;
        }
        if !is_first && used + blanks + 1 + len > max {
            out.push('\n');
            out.push_str(&further);
            used = further.len();
        } else if !is_first {
            out.push_str(&" ".repeat(blanks + 1));
            used += blanks + 1;
        }
        out.push_str(word);
        used += len;
        (is_first, blanks) = (false, 0);
    }
    out
}

/// The number of columns of the terminal on standard error; `None` if that is not a terminal.
pub(super) fn error_width() -> Option<usize> {
    let stderr = io::stderr();
    stderr.is_terminal().then(|| terminal_width(&stderr))
}

/// The text in a style, if `color`.
pub(super) fn paint(color: bool, style: Style, text: &str) -> String {
    let code = match style {
        Style::Bold => "1",
        Style::Warning => "33",
    };
    if color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Whether colours are wanted: <https://no-color.org>.
pub(super) fn colors() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The number of columns of a terminal.
#[cfg(unix)]
pub(super) fn terminal_width(terminal: impl std::os::fd::AsFd) -> usize {
    rustix::termios::tcgetwinsize(terminal)
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|&columns| columns > 0)
        .unwrap_or(WIDTH_DEFAULT)
}

/// The number of columns of a terminal.
#[cfg(not(unix))]
pub fn terminal_width<T>(_: T) -> usize {
    env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(WIDTH_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_broken_between_words_and_commands_never() {
        let text = "vault: there is no such place\n  See what is there with: vault list --repo '/a b'";
        assert_eq!(wrapped(text, None), text);
        assert_eq!(wrapped(text, Some(200)), text);
        let narrow = "vault: there is no\n  such place\n  See what is there\n    with:\n    vault list --repo '/a b'";
        assert_eq!(wrapped(text, Some(20)), narrow);
        assert_eq!(wrapped("a-word-that-is-longer-than-that", Some(10)), "a-word-that-is-longer-than-that");
        assert_eq!(wrapped("ひまわり ひまわり", Some(10)), "ひまわり\n  ひまわり");
        assert_eq!(wrapped("ends with: vault repair, or a check", Some(20)), "ends with: vault\n  repair, or a check");
        assert_eq!(wrapped("  files    3 in one folder", Some(20)), "  files    3 in one\n    folder");
    }

    #[test]
    fn paragraphs_are_filled_anew_where_a_line_is_too_long() {
        let text = "\nOne two three four.\nFive six.\n\n    key here\n\nSeven eight\nnine.\n";
        assert_eq!(filled(text, None), text);
        assert_eq!(filled(text, Some(19)), text);
        let narrow = "\nOne two three\nfour. Five six.\n\n    key here\n\nSeven eight\nnine.\n";
        assert_eq!(filled(text, Some(15)), narrow);
        assert_eq!(filled("Later, with: vault run --now", Some(15)), "Later, with:\nvault run --now");
    }
}
