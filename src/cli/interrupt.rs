//! Ctrl-C, and the other signals that ask a program to end.
//!
//! At first these signals end the program at once. During long work, the first signal asks the work to end in good
//! order, and only the second one ends the program at once. While a password is typed, the terminal does not echo; the
//! program restores the echo before it ends.

use std::io;
use std::io::Write;
use std::process;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

#[cfg(unix)]
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::cli::error::Exit;

/// The function that asks long work to end. It returns whether this was the first time.
type Stop = Box<dyn Fn() -> bool + Send>;

struct State {
    stop: Option<Stop>,
    terminal: Option<Terminal>,
    /// The cursor is on the line of a question.
    asks: bool,
}

static STATE: Mutex<State> = Mutex::new(State { stop: None, terminal: None, asks: false });

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs the handlers of the signals. A script starts background programs with Ctrl-C ignored, but anyone who still
/// sends that signal wants the program to end. Only the loss of the terminal stays ignored if it was (`nohup`).
pub fn install() {
    crate::fs::leaving_hangups(take_over);
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

/// From now on, the first signal calls this function instead of ending the program.
pub fn end_gently(stop: impl Fn() -> bool + Send + 'static) {
    state().stop = Some(Box::new(stop));
}

/// From now on, the first signal ends the program again.
pub fn end_at_once() {
    state().stop = None;
}

/// Runs a function that asks a question. If the program ends meanwhile, its message begins on a new line.
pub fn while_asking<T>(ask: impl FnOnce() -> T) -> T {
    state().asks = true;
    let result = ask();
    state().asks = false;
    result
}

/// Runs a function that asks for passwords. The terminal does not echo from before the first question until after the
/// last answer. So it shows neither text typed early nor the second line of a pasted text.
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

/// On other systems the terminal restores itself.
#[cfg(not(unix))]
struct Terminal;

#[cfg(not(unix))]
impl Terminal {
    fn hide() -> Option<Self> {
        Some(Self)
    }

    fn restore(self) {}
}
