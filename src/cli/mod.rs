//! The command line: arguments, the environment, the clock, printing and exit codes. Everything else is in the library.
//!
//! Input: [`args`] defines the command line, and [`words`] explains one that cannot be parsed · [`select`] finds the
//! snapshot that a command names.
//!
//! Shared by commands: [`context`] holds the context of a command · [`password`], [`interrupt`], [`machine`],
//! [`progress`], [`consent`], [`output`], [`table`], [`dates`] · [`error`](crate::failure) determines how commands end.
//!
//! One file for each group of commands: [`init`], [`companion`], [`sheet`], [`snapshot`], [`list`], [`browse`], [`mount`], [`ui`],
//! [`find`], [`diff`], [`du`], [`restore`], [`drill`], [`export`], [`import`], [`prune`], [`amend`], [`check`],
//! [`repair`], [`doctor`], [`stats`], [`client`], [`key`], [`delivery`], [`config`], [`run`], [`schedule`], [`guide`],
//! [`shell`], [`complete`], [`version`].
#![allow(clippy::disallowed_methods, reason = "the library may not read the environment and the clock: this may")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "nor may it print: this speaks")]

mod dates;
mod words;
mod table;
mod accept;
mod complete;
mod offer;
mod args;
mod consent;
mod output;
mod select;
mod interrupt;
mod machine;
mod progress;
mod config;
mod password;
mod context;
mod companion;
mod init;
mod sheet;
mod snapshot;
mod list;
mod mount;
mod ui;
mod browse;
mod find;
mod diff;
mod du;
mod export;
mod import;
mod restore;
mod drill;
mod check;
mod repair;
mod doctor;
mod probe;
mod stats;
mod mirror;
mod copy;
mod prune;
mod amend;
mod client;
mod key;
mod delivery;
mod shell;
mod why;
mod run;
mod schedule;
mod guide;
mod version;

use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use crate::failure as error;
use crate::service::{local, roots, suggest, units, usual};
use args::Cli;
use args::ClientArgs;
use args::ClientCommand;
use args::Command;
use args::KeyArgs;
use args::KeyCommand;
use clap::Parser;
use clap::error::ErrorKind;
use context::Context;
use error::Exit;
use error::Failure;

/// Whether a panic was reported. Later panics, which follow from it, are not reported.
static REPORTED: AtomicBool = AtomicBool::new(false);

/// Runs the program.
pub fn main() -> ExitCode {
    crate::fs::keep_to_itself();
    crate::fs::survive_file_size_limit();
    crate::fs::share_heap();
    // Every folder on the path to the file being read is open, so a process needs many open files.
    crate::fs::raise_file_limit();
    let args: Vec<OsString> = std::env::args_os().collect();
    if complete::answer(&args) {
        return ExitCode::SUCCESS;
    }
    let json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    crate::memory::end_without(error::NO_MEMORY[usize::from(json)], Exit::Failed as u8);
    panic::set_hook(Box::new(move |info| {
        // The library catches panics of the catalogue's database and goes on.
        if !crate::sync::is_caught() && !REPORTED.swap(true, Relaxed) {
            report(&bug(&info.to_string()), json);
        }
    }));
    let work = || {
        crate::sync::start_shared().map_err(|_| Failure::no_thread())?;
        run(&args)
    };
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    let has_failed = !matches!(done, Ok(Ok(_)));
    let mut exit = end(done, json);
    if let Some(fault) = output::fault() {
        // The work was done, and its verdict stands; but the reader of the output misses something.
        exit = exit.worse(fault.exit);
        if !has_failed {
            report(&Failure { exit, ..Failure::new(fault.what.as_str()) }, json);
        }
    }
    ExitCode::from(exit as u8)
}

/// Reports why a command failed, and returns the program's exit code. A panic was already reported where it began.
fn end(done: thread::Result<Result<Exit, Failure>>, json: bool) -> Exit {
    match done {
        Ok(Ok(exit)) => exit,
        Ok(Err(failure)) => {
            report(&failure, json);
            failure.exit
        }
        Err(panic) if panic.is::<crate::sync::NoThread>() => {
            let failure = Failure::no_thread();
            report(&failure, json);
            failure.exit
        }
        Err(_) => Exit::Panic,
    }
}

/// The report of a panic, which is always a defect of the program.
fn bug(info: &str) -> Failure {
    let version = env!("CARGO_PKG_VERSION");
    let what = info.replace('\n', " ");
    Failure { exit: Exit::Panic, ..Failure::new(format!("this is a bug in vault {version}: {what}")) }
        .hint("Please report it with this line. Snapshots that were taken before are not affected.")
}

fn run(args: &[OsString]) -> Result<Exit, Failure> {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, args),
    };
    let Some(command) = cli.command else {
        interrupt::install();
        let context = Context::new(cli.global);
        if guide::is_wanted(&context) {
            return guide::run(&context);
        }
        if context.config()?.is_some_and(|config| !config.sources.is_empty()) {
            return run::overview::show(&context);
        }
        let mut out = output::Output::new();
        out.bytes(args::FIRST_HELP.as_bytes())?;
        return out.finish().map(|()| Exit::Done);
    };
    interrupt::install();
    let context = Context::new(cli.global).reading(reads_only(&command));
    let done = perform(&context, command);
    context.give_back();
    done.map(|exit| context.ended(exit))
}

/// Whether a command changes nothing in a vault, so that it needs no lasting state.
const fn reads_only(command: &Command) -> bool {
    match command {
        Command::List(_)
        | Command::Ls(_)
        | Command::Cat(_)
        | Command::Mount(_)
        | Command::Ui(_)
        | Command::Find(_)
        | Command::History(_)
        | Command::Why(_)
        | Command::Diff(_)
        | Command::Du(_)
        | Command::Restore(_)
        | Command::Export(_)
        | Command::Check(_)
        | Command::Doctor(_)
        | Command::Drill(_)
        | Command::Stats(_)
        | Command::Key(KeyArgs { command: KeyCommand::List })
        | Command::Client(ClientArgs { command: ClientCommand::List }) => true,
        Command::Accept(args) => args.findings.is_empty(),
        Command::Snapshot(args) => args.dry_run,
        Command::Prune(args) => args.dry_run,
        Command::Repair(args) => args.dry_run,
        Command::Rewrite(args) => args.dry_run,
        Command::Copy(args) => args.dry_run,
        _ => false,
    }
}

fn perform(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Init(args) => init::run(context, &args),
        Command::Snapshot(args) => snapshot::run(context, &args),
        Command::List(args) => list::run(context, &args),
        Command::Ls(args) => browse::ls(context, &args),
        Command::Cat(args) => browse::cat(context, &args),
        Command::Mount(args) => mount::mount(context, &args),
        Command::Ui(args) => ui::run(context, &args),
        Command::Umount(args) => mount::umount(context, &args),
        Command::Find(args) => find::find(context, &args),
        Command::History(args) => find::history(context, &args),
        Command::Why(args) => why::run(context, &args),
        Command::Diff(args) => diff::run(context, &args),
        Command::Du(args) => du::run(context, &args),
        Command::Restore(args) => restore::run(context, &args),
        Command::Drill(args) => drill::run(context, &args),
        Command::Export(args) => export::run(context, &args),
        Command::Import(args) => import::run(context, &args),
        Command::Prune(args) => prune::run(context, &args),
        Command::Forget(args) => prune::forget(context, &args),
        Command::Pin(args) => prune::pin(context, &args, true),
        Command::Unpin(args) => prune::pin(context, &args, false),
        Command::Tag(args) => amend::tag(context, args.command),
        Command::Amend(args) => amend::amend(context, &args),
        Command::Rewrite(args) => amend::rewrite(context, &args),
        Command::Client(args) => client::run(context, args.command),
        Command::Accept(args) => accept::run(context, &args),
        Command::Check(args) => check::run(context, &args),
        Command::Repair(args) => repair::run(context, &args),
        Command::Doctor(args) => doctor::run(context, &args),
        Command::Stats(args) => stats::run(context, &args),
        Command::Mirror(args) => mirror::run(context, &args),
        Command::Copy(args) => copy::run(context, &args),
        Command::Promote(args) => mirror::promote(context, &args),
        Command::Key(args) => key::run(context, args.command),
        Command::Delivery(args) => delivery::run(context, &args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(context, &args),
        Command::Config(args) => config::run(context, args.command.as_ref()),
        Command::Run(args) => run::run(context, &args),
        Command::Schedule(args) => schedule::run(context, &args.command),
        Command::Version => version::run(context),
    }
}

/// Prints the requested help, or the mistake in the command line.
fn usage(error: &clap::Error, args: &[OsString]) -> Result<Exit, Failure> {
    let exit = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Exit::Usage,
        _ => return Err(words::explain(error, args)),
    };
    error.print().map(|()| exit).map_err(|error| {
        let failure = Failure::output(&error);
        Failure { exit: exit.worse(failure.exit), ..failure }
    })
}

fn report(failure: &Failure, json: bool) {
    if failure.what.is_empty() {
        return;
    }
    let text = if json {
        serde_json::json!({ "error": failure.what, "hint": failure.hint, "code": failure.exit as u8 }).to_string()
    } else {
        let hint = failure.hint.iter().map(|hint| format!("\n  {hint}"));
        hint.fold(format!("vault: {}", failure.what), |text, hint| text + &hint)
    };
    let text = if json { text } else { output::wrapped(&text, output::error_width()) };
    let _ = writeln!(io::stderr(), "{text}"); // if nobody reads it, there is still the exit code
}

/// Prints a text for a person at the terminal.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", output::filled(text, output::error_width()));
}

/// Explains why an answer is not accepted, before the question is asked again.
fn again(what: &str) {
    note(&format!("{what}."));
    note("Please try again.");
}

/// Asks a person at the terminal; `None` at the end of the input.
fn ask(question: &str) -> Option<String> {
    let words = question.trim_end();
    let shown = output::filled(words, output::error_width().map(|width| width.saturating_sub(1)));
    let _ = write!(io::stderr(), "{shown}{}", &question[words.len()..]);
    let _ = io::stderr().flush();
    let mut answer = String::new();
    match interrupt::while_asking(|| io::stdin().read_line(&mut answer)) {
        Ok(length) if length > 0 => Some(answer.trim().to_owned()),
        _ => None,
    }
}

/// Asks a question until the answer is yes or no. An empty answer means `default`, and the end of the input means no.
fn confirm(question: &str, default: bool) -> bool {
    loop {
        let Some(answer) = ask(question) else { return false };
        match answer.to_lowercase().as_str() {
            "" => return default,
            "y" | "yes" => return true,
            "n" | "no" => return false,
            _ => note("Please answer y (yes) or n (no)."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_reported_as_a_bug_and_ends_with_its_own_code() {
        let panicked = panic::catch_unwind(|| -> Result<Exit, Failure> { panic!("x") });
        assert_eq!(end(panicked, false), Exit::Panic);
        assert_eq!(Exit::Panic as u8, 101);
        let bug = bug("panicked at src/x.rs:1:\nx");
        assert!(bug.what.contains("src/x.rs:1: x") && bug.exit == Exit::Panic, "{}", bug.what);
    }
}
