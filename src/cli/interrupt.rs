//! Ctrl-C, and the other signals that ask a program to end.
//!
//! At first they end the program at once. When long work begins, the first one asks it to end in good order, and only
//! the second ends it at once. While a password is typed the terminal does not show what is typed, and must be told to
//! do so again before the program ends.

use std::io;
use std::io::Write;
use std::process;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

#[cfg(unix)]
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::cli::error::Exit;

/// What long work does when it is asked to end; it says whether it was asked for the first time.
type Stop = Box<dyn Fn() -> bool + Send>;

struct State {
    stop: Option<Stop>,
    terminal: Option<Terminal>,
    /// A question stands on the line where the cursor is.
    asks: bool,
}

static STATE: Mutex<State> = Mutex::new(State { stop: None, terminal: None, asks: false });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to handle the signals. A program in the background of a script is started deaf to Ctrl-C; who sends it that
/// signal nevertheless wants it to end. Only the loss of the terminal stays ignored where it was (`nohup`).
pub fn install() {
    vault::fs::leaving_hangups(take_over);
}

fn take_over() {
    let _ = ctrlc::set_handler(|| {
        let mut state = state();
        if let Some(terminal) = state.terminal.take() {
            terminal.restore();
            let _ = writeln!(io::stderr());
        } else if state.stop.as_ref().is_some_and(|stop| stop()) {
            return;
        } else if state.asks {
            let _ = writeln!(io::stderr(), "\nvault: interrupted");
        }
        process::exit(i32::from(Exit::Interrupted as u8));
    });
}

/// From now on, the first signal calls this instead of ending the program.
pub fn end_gently(stop: impl Fn() -> bool + Send + 'static) {
    state().stop = Some(Box::new(stop));
}

/// From now on, the first signal ends the program again.
pub fn end_at_once() {
    state().stop = None;
}

/// Runs something that asks a question: if the program ends meanwhile, what comes after it begins a line of its own.
pub fn while_asking<T>(ask: impl FnOnce() -> T) -> T {
    state().asks = true;
    let result = ask();
    state().asks = false;
    result
}

/// Runs something that asks for passwords. From before the first question until after the last answer the terminal does
/// not show what is typed: who types at once is not shown either, nor the second line of what is pasted.
pub fn while_hidden<T>(ask: impl FnOnce() -> T) -> T {
    state().terminal = Terminal::hide();
    let result = ask();
    if let Some(terminal) = state().terminal.take() {
        terminal.restore();
    }
    result
}

/// The settings of the terminal.
#[cfg(unix)]
struct Terminal {
    file: std::fs::File,
    settings: rustix::termios::Termios,
}

#[cfg(unix)]
impl Terminal {
    fn hide() -> Option<Self> {
        let file = std::fs::File::open("/dev/tty").ok()?;
        let settings = tcgetattr(&file).ok()?;
        let mut hidden = settings.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&file, OptionalActions::Now, &hidden).ok()?;
        Some(Self { file, settings })
    }

    fn restore(self) {
        // If the terminal has gone, there is nothing to restore.
        let _ = tcsetattr(&self.file, OptionalActions::Now, &self.settings);
    }
}

/// Elsewhere the terminal restores itself.
#[cfg(not(unix))]
struct Terminal;

#[cfg(not(unix))]
impl Terminal {
    fn hide() -> Option<Self> {
        Some(Self)
    }

    fn restore(self) {}
}
