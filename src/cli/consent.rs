//! The confirmation before an irreversible action, by one rule for all commands. On a terminal, the consequences are
//! shown, and a person is asked. Elsewhere `--yes` is required. Without it nothing is done, and the command says so
//! before it asks for a password.

use std::io;
use std::io::IsTerminal;

use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::output;

/// The message after a refusal.
const UNCHANGED: &str = "Nothing was changed.";

/// Whether a person can be asked.
pub(super) fn can_ask(context: &Context) -> bool {
    !context.global.json && io::stdin().is_terminal()
}

/// Asks for confirmation. Any answer but yes ends the command.
pub(super) fn ask(context: &Context, question: &str) -> Result<(), Failure> {
    output::shown().map_err(|failure| failure.hint(UNCHANGED))?;
    let _hidden = context.screen.hide();
    if confirm(&format!("{question} [y/N] "), false) { Ok(()) } else { Err(Failure::interrupted().hint(UNCHANGED)) }
}

/// A person's consent, which a command needs.
#[derive(Debug)]
#[must_use]
pub(super) struct Consent {
    is_given: bool,
}

impl Consent {
    /// Consent that was given on the command line or is not needed; otherwise a person must be present to be asked.
    /// `whether` names the question, and `hint` is the advice if nobody is present.
    pub(super) fn new(context: &Context, is_given: bool, whether: &str, hint: &str) -> Result<Self, Failure> {
        if is_given || can_ask(context) {
            Ok(Self { is_given })
        } else {
            Err(Failure::usage(format!("nobody is there to be asked whether {whether}")).hint(hint))
        }
    }

    /// Whether consent is already given, so that nobody is asked.
    pub(super) const fn is_given(&self) -> bool {
        self.is_given
    }

    /// Asks for consent, unless it was given.
    pub(super) fn ask(&self, context: &Context, question: &str) -> Result<(), Failure> {
        if self.is_given { Ok(()) } else { ask(context, question) }
    }
}
