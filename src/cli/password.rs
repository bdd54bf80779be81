//! Passwords for commands: from their sources ([`crate::service::password`]), or else from a person at the terminal.

use std::io;
use std::io::IsTerminal;

pub use crate::service::password::Password;
pub use crate::service::password::Sources;
use zeroize::Zeroizing;

use crate::cli::error::Failure;
use crate::cli::error::chain;
use crate::cli::interrupt;
use crate::cli::machine::Here;
use crate::cli::note;

/// The number of characters below which a password gets a remark.
const SHORT: usize = 12;

/// The password from the options or the environment; `None` if they have none.
pub fn given(sources: Sources<'_>) -> Result<Option<Password>, Failure> {
    crate::service::password::given(sources, &Here)
}

/// The password from any source that needs no prompt.
pub fn unasked(sources: Sources<'_>) -> Result<Option<Password>, Failure> {
    crate::service::password::unasked(sources, &Here)
}

/// The password of an existing vault.
pub fn existing(sources: Sources<'_>, place: &str) -> Result<Password, Failure> {
    if let Some(known) = unasked(sources)? {
        return Ok(known);
    }
    let question = format!("Password of the vault {place}: ");
    at_terminal(sources, || prompt(sources, &question)).map(Password::typed)
}

/// A new password. On a terminal it is asked for twice.
pub fn new(sources: Sources<'_>, place: &str) -> Result<Password, Failure> {
    if let Some(known) = unasked(sources)? {
        return Ok(known);
    }
    at_terminal(sources, || ask_twice(sources, place)).map(Password::typed)
}

fn ask_twice(sources: Sources<'_>, place: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let text = prompt(sources, &format!("New password for the vault {place}: "))?;
    if String::from_utf8_lossy(&text).chars().count() < SHORT {
        note("This password is short. Whoever gets hold of the vault can try many; five random words are strong.");
    }
    let again = prompt(sources, "The same again: ")?;
    if *again != *text {
        return Err(Failure::new("the two passwords differ").hint("Nothing was done."));
    }
    Ok(text)
}

/// Asks without showing the typed text. Without a terminal for the question, none is touched: the system would stop a
/// background program that did so.
fn at_terminal<T>(sources: Sources<'_>, ask: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let Sources { option, variable, .. } = sources;
    if !io::stdin().is_terminal() && !io::stderr().is_terminal() {
        return Err(Failure::new("a password is needed, and there is no terminal to ask for it").hint(format!(
            "Give --{option}-file or --{option}-command, or set {variable}, {variable}_FILE or {variable}_COMMAND."
        )));
    }
    interrupt::while_hidden(ask)
}

fn prompt(sources: Sources<'_>, question: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let Sources { option, variable, .. } = sources;
    let text = rpassword::prompt_password(question).map_err(|error| {
        // At the end of the input nobody is present.
        if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::UnexpectedEof) {
            // The message then begins on a new line.
            note("");
            return Failure::interrupted();
        }
        Failure::new(format!("cannot ask for the password: {}", chain(&error)))
            .hint(format!("Give --{option}-file or --{option}-command, or set {variable}."))
    })?;
    let text = Zeroizing::new(text.into_bytes());
    if text.is_empty() {
        return Err(Failure::new("the password is empty").hint("Nothing was done."));
    }
    Ok(text)
}
