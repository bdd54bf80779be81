//! Standard output: lines for people, JSON for programs, and an end without noise where the reader has gone.

use std::env;
use std::fmt::Display;
use std::io;
use std::io::BufWriter;
use std::io::IsTerminal;
use std::io::Stdout;
use std::io::Write;

use serde::Serialize;

use crate::cli::error::Failure;

/// Width that is assumed where a terminal does not tell its own.
const WIDTH_DEFAULT: usize = 80;

/// Standard output.
pub struct Output {
    out: BufWriter<Stdout>,
    /// The reader has gone, as in `vault list | head`. That is its good right, and changes no verdict.
    closed: bool,
    /// Columns of the terminal; `None` where there is no terminal, and nothing is cut.
    pub width: Option<usize>,
    color: bool,
}

/// How a piece of text stands out.
#[derive(Debug, Clone, Copy)]
pub enum Style {
    /// Titles.
    Bold,
    /// What asks for attention.
    Warning,
}

impl Output {
    /// Standard output as it is.
    pub fn new() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self {
            width: terminal.then(|| terminal_width(&stdout)),
            color: terminal && colors(),
            out: BufWriter::new(stdout),
            closed: false,
        }
    }

    /// Whether the reader has gone, so that there is no use in going on for it alone.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Does something to standard output as long as somebody reads it.
    fn attempt(&mut self, write: impl FnOnce(&mut BufWriter<Stdout>) -> io::Result<()>) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        match write(&mut self.out) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            written => written.map_err(|error| Failure::output(&error)),
        }
    }

    /// Prints one line.
    pub fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        self.attempt(|out| writeln!(out, "{line}"))
    }

    /// Prints one line in a style.
    pub fn styled(&mut self, style: Style, line: &str) -> Result<(), Failure> {
        let line = self.paint(style, line);
        self.line(line)
    }

    /// The text in a style, if colours are wanted.
    pub fn paint(&self, style: Style, text: &str) -> String {
        paint(self.color, style, text)
    }

    /// Prints these bytes and nothing else.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.attempt(|out| out.write_all(bytes))
    }

    /// Prints a value as JSON in one line.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        self.attempt(|out| serde_json::to_writer(&mut *out, value).map_err(io::Error::from))?;
        self.bytes(b"\n")
    }

    /// Prints a value as JSON, with no end of the line.
    pub fn json_inline(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        self.attempt(|out| serde_json::to_writer(out, value).map_err(io::Error::from))
    }

    /// Writes out what is held back, before something is asked.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.attempt(BufWriter::flush)
    }

    /// Sees that everything is written.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.flush()
    }

    /// Where bytes are written to.
    pub fn writer(&mut self) -> &mut dyn Write {
        &mut self.out
    }
}

/// The text in a style, if `color`.
pub fn paint(color: bool, style: Style, text: &str) -> String {
    let code = match style {
        Style::Bold => "1",
        Style::Warning => "33",
    };
    if color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Whether colours are wanted: <https://no-color.org>.
pub fn colors() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Columns of a terminal.
#[cfg(unix)]
pub fn terminal_width(terminal: impl std::os::fd::AsFd) -> usize {
    rustix::termios::tcgetwinsize(terminal)
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|&columns| columns > 0)
        .unwrap_or(WIDTH_DEFAULT)
}

/// Columns of a terminal.
#[cfg(not(unix))]
pub fn terminal_width<T>(_: T) -> usize {
    env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(WIDTH_DEFAULT)
}
