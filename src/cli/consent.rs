//! Asking before something is done that cannot be undone. It is one rule for all commands: on a terminal what would happen is shown, and
//! a person is asked; elsewhere `--yes` is needed, and without it nothing is done, which is said before a password is asked for.

use std::io;
use std::io::IsTerminal;

use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::error::Failure;

/// What is said where somebody said no.
const UNCHANGED: &str = "Nothing was changed.";

/// Whether somebody can be asked.
pub fn can_ask(context: &Context) -> bool {
    !context.global.json && io::stdin().is_terminal()
}

/// Asks. Whatever is not a yes ends the command.
pub fn ask(context: &Context, question: &str) -> Result<(), Failure> {
    let _hidden = context.screen.hide();
    if confirm(&format!("{question} [y/N] "), false) { Ok(()) } else { Err(Failure::interrupted().hint(UNCHANGED)) }
}

/// That of a person, which a command needs.
#[derive(Debug)]
#[must_use]
pub struct Consent {
    is_given: bool,
}

impl Consent {
    /// It was given on the command line, or is not needed; otherwise somebody must be there to be asked. `whether` says what is
    /// asked about, `hint` what can be done where nobody is there.
    pub fn new(context: &Context, is_given: bool, whether: &str, hint: &str) -> Result<Self, Failure> {
        if is_given || can_ask(context) {
            Ok(Self { is_given })
        } else {
            Err(Failure::usage(format!("nobody is there to be asked whether {whether}")).hint(hint))
        }
    }

    /// Whether nobody is asked.
    pub const fn is_given(&self) -> bool {
        self.is_given
    }

    /// Asks, unless it was given.
    pub fn ask(&self, context: &Context, question: &str) -> Result<(), Failure> {
        if self.is_given { Ok(()) } else { ask(context, question) }
    }
}
