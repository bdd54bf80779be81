//! Messages for command lines that cannot be parsed, in the style of all other failures. They also answer the words of
//! other backup programs.

use std::error::Error;
use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::ContextKind;
use clap::error::ContextValue;
use clap::error::ErrorKind;

use crate::cli::args::Cli;
use crate::cli::error::Failure;
use crate::cli::suggest::nearest;

const LOCKS: &str = "There are no locks: nothing has to be unlocked, not even after a crash.";

/// Commands of other programs, with their counterparts here.
const COMMANDS: &[(&str, &str)] = &[
    ("create", "It is called: vault snapshot"),
    ("save", "It is called: vault snapshot"),
    ("extract", "It is called: vault restore"),
    ("dump", "A file is printed by: vault cat. An archive is written by: vault export"),
    ("get", "It is called: vault restore"),
    ("unlock", LOCKS),
    ("break-lock", LOCKS),
    ("browse", "Look into snapshots with: vault ls, vault find, vault history"),
    ("transfer", "It is called: vault copy"),
    ("compact", "vault prune gives space back."),
    ("gc", "vault prune gives space back."),
    ("delete", "Single snapshots are forgotten by: vault forget"),
    ("remove", "Single snapshots are forgotten by: vault forget"),
    ("rm", "Single snapshots are forgotten by: vault forget"),
    ("rename", "Description and machine are changed by: vault amend"),
    ("recreate", "What should never have been kept is taken out by: vault rewrite --exclude"),
    ("verify", "It is called: vault check --read-data"),
    ("scrub", "It is called: vault check --read-data"),
    ("recover", "It is called: vault repair"),
    ("rebuild-index", "There is no index to rebuild. What is damaged is mended by: vault repair"),
    ("info", "vault list shows snapshots, vault stats what takes the space."),
    ("status", "vault alone shows what is kept, vault doctor whether all is well."),
    ("versions", "It is called: vault history"),
    ("log", "It is called: vault list"),
    ("passwd", "It is called: vault key passwd"),
    ("password", "It is called: vault key passwd"),
    ("cache", "The catalogue in the state folder may be deleted at any time; it is made anew."),
    ("repo-create", "It is called: vault init"),
    ("rcreate", "It is called: vault init"),
    ("sync", "A vault may lie in a synced folder. See: vault help delivery"),
];

/// Options of other programs, with their counterparts here.
const OPTIONS: &[(&str, &str)] = &[
    ("--target", "It is called: --to"),
    ("--destination", "It is called: --to"),
    ("--keep-last", "It is called: --keep"),
    ("--exclude-file", "It is called: --exclude-from"),
    ("--patterns-from", "It is called: --exclude-from"),
    ("--exclude-larger", "It is called: --exclude-larger-than"),
    ("--exclude-cache", "It is called: --exclude-caches"),
    ("--files-from-raw", "It is called: --files-from, with --from0"),
    ("--comment", "It is called: --description"),
    ("--message", "It is called: --description"),
    ("--timestamp", "It is called: --time"),
    ("--compression", "It is called: --level"),
    ("--verify-data", "It is called: --read-data"),
    ("--read-data-subset", "It is called: --sample, as in --sample 5%"),
    ("--repository", "It is called: --repo"),
    ("--max-repack", "It is called: --max-repack-size"),
    ("--group-by", "Rules always count for each source and machine separately."),
    ("--prune", "vault prune forgets by rules and gives the space back at once."),
    ("--no-lock", "There are no locks."),
    ("--no-cache", "The catalogue is kept in the state folder; --state chooses another one."),
    ("--force", "What cannot be undone asks, unless --yes is given."),
    ("--progress", "A bar is drawn on a terminal, unless --no-progress is given."),
    ("--stats", "They are always printed. See also: vault stats"),
    ("--list", "-v lists each new and changed file."),
    ("--insecure-no-password", "Every vault has a password. vault key add --device lets this machine open it without."),
];

/// The failure for a command line that cannot be parsed.
pub(super) fn explain(error: &clap::Error, args: &[OsString]) -> Failure {
    let top = Cli::command();
    let (name, command) = called(&top, args);
    let help = if name.is_empty() { "All commands: vault --help".to_owned() } else { format!("See: vault help{name}") };
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) if !texts.is_empty() => Some(texts.join(" and ")),
        _ => None,
    };
    let (arg, value) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue));
    match (error.kind(), arg, value) {
        (ErrorKind::InvalidSubcommand, ..) => {
            let word = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            let names = command.get_subcommands().flat_map(clap::Command::get_name_and_visible_aliases);
            let hint = match COMMANDS.iter().find(|(other, _)| *other == word && name.is_empty()) {
                Some((_, answer)) => (*answer).to_owned(),
                None => nearest(&word, names).map_or(help, |meant| format!("Did you mean: vault{name} {meant}")),
            };
            Failure::usage(format!("there is no command 'vault{name} {word}'")).hint(hint)
        }
        (ErrorKind::MissingSubcommand, ..) => {
            let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
            Failure::usage(format!("vault{name} needs one of: {}", names.join(", "))).hint(help)
        }
        (ErrorKind::UnknownArgument, Some(arg), _) => {
            if !arg.starts_with('-') {
                return Failure::usage(format!("'{arg}' is one word more than vault{name} takes")).hint(help);
            }
            let options: Vec<String> =
                command.get_arguments().filter_map(|arg| arg.get_long().map(|long| format!("--{long}"))).collect();
            let hint = match OPTIONS.iter().find(|(other, _)| *other == arg) {
                Some((_, answer)) => (*answer).to_owned(),
                None => nearest(&arg, options.iter().map(String::as_str))
                    .map_or(help, |meant| format!("Did you mean: {meant}")),
            };
            Failure::usage(format!("vault{name} has no option {arg}")).hint(hint)
        }
        (ErrorKind::MissingRequiredArgument, Some(arg), _) => {
            Failure::usage(format!("vault{name} needs {arg}")).hint(help)
        }
        (ErrorKind::ArgumentConflict, Some(arg), _) => {
            let what = match text(ContextKind::PriorArg) {
                Some(prior) if prior == arg => format!("{arg} can be given only once"),
                Some(prior) => format!("{arg} and {prior} cannot be used together"),
                None => format!("{arg} cannot be used with the other options"),
            };
            Failure::usage(what).hint(help)
        }
        (ErrorKind::InvalidValue, Some(arg), value) => {
            let value = value.unwrap_or_default();
            let what = if value.is_empty() {
                format!("{arg} needs a value")
            } else {
                format!("'{value}' is no value of {arg}")
            };
            let possible = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(values)) if !values.is_empty() => {
                    format!("Write one of: {}", values.join(", "))
                }
                _ => help,
            };
            Failure::usage(what).hint(possible)
        }
        (ErrorKind::ValueValidation, Some(arg), Some(value)) => {
            let why = error.source().map(|source| in_plain_words(&source.to_string(), &value)).unwrap_or_default();
            Failure::usage(format!("{arg}: {why}")).hint(help)
        }
        _ => {
            let rendered = error.render().to_string();
            let what = rendered.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
            Failure::usage(what.lines().map(str::trim).collect::<Vec<_>>().join(" ")).hint(help)
        }
    }
}

/// The called command: its names with a blank before each, and its definition.
fn called<'c>(top: &'c clap::Command, args: &[OsString]) -> (String, &'c clap::Command) {
    let (mut name, mut command) = (String::new(), top);
    let mut is_value = false;
    for word in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        if std::mem::take(&mut is_value) {
            continue;
        }
        if let Some(inner) = command.find_subcommand(word) {
            name += " ";
            name += inner.get_name();
            command = inner;
        }
        is_value = [top, command].iter().any(|command| takes_value(command, word));
    }
    (name, command)
}

/// Whether a word is an option of this command whose value is the next word.
fn takes_value(command: &clap::Command, word: &str) -> bool {
    let is_meant = |arg: &&clap::Arg| match word.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => word.strip_prefix('-').is_some_and(|short| arg.get_short().is_some_and(|name| short.ends_with(name))),
    };
    command.get_arguments().find(is_meant).is_some_and(|arg| arg.get_action().takes_values())
}

/// Rewords a message of the number parser, so that it says what to write.
fn in_plain_words(why: &str, value: &str) -> String {
    if let Some((_, range)) = why.split_once(" is not in ") {
        let (from, to) = range.split_once("..").unwrap_or((range, ""));
        return format!("'{value}' is not between {from} and {}", to.trim_start_matches('='));
    }
    let is_of_numbers =
        ["invalid digit", "cannot parse integer", "number too"].iter().any(|start| why.starts_with(start));
    if is_of_numbers { format!("'{value}' is not a whole number, or too large") } else { why.to_owned() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn explained(line: &str) -> (String, String) {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let failure = explain(&Cli::try_parse_from(&args).unwrap_err(), &args);
        assert_eq!(failure.exit, crate::cli::error::Exit::Usage);
        (failure.what, failure.hint.unwrap_or_default())
    }

    #[test]
    fn every_mistake_is_told_in_one_style() {
        let check = |line: &str, what: &str, hint: &str| {
            assert_eq!(explained(line), (what.to_owned(), hint.to_owned()), "{line}");
        };
        check("vault unlock", "there is no command 'vault unlock'", LOCKS);
        check("vault snapsot a", "there is no command 'vault snapsot'", "Did you mean: vault snapshot");
        check("vault xyzzy", "there is no command 'vault xyzzy'", "All commands: vault --help");
        check("vault key ad", "there is no command 'vault key ad'", "Did you mean: vault key add");
        check("vault restore latest --target x", "vault restore has no option --target", "It is called: --to");
        check("vault restore latest --dry-rum", "vault restore has no option --dry-rum", "Did you mean: --dry-run");
        check("vault prune --keep-last 5", "vault prune has no option --keep-last", "It is called: --keep");
        check("vault check x", "'x' is one word more than vault check takes", "See: vault help check");
        check("vault cat", "vault cat needs <SNAPSHOT:PATH>", "See: vault help cat");
        check("vault ls -q -v", "--quiet and --verbose... cannot be used together", "See: vault help ls");
        check("vault prune --keep x", "--keep <N>: 'x' is not a whole number, or too large", "See: vault help prune");
        check("vault ls --threads 0", "--threads <N>: '0' is not between 1 and 256", "See: vault help ls");
        check("vault init --kdf hard", "'hard' is no value of --kdf <KDF>", "Write one of: standard, strong");
        check("vault prune --keep", "--keep <N> needs a value", "See: vault help prune");
        check("vault --repo list snapshot --bogus", "vault snapshot has no option --bogus", "See: vault help snapshot");
        check("vault -r key ls -q --bogus", "vault ls has no option --bogus", "See: vault help ls");
        check("vault key -q", "vault key needs one of: add, list, remove, passwd", "See: vault help key");
    }

    #[test]
    fn the_answers_name_what_there_is() {
        let top = Cli::command();
        let every = || top.get_subcommands().chain(top.get_subcommands().flat_map(clap::Command::get_subcommands));
        for (word, answer) in COMMANDS.iter().chain(OPTIONS) {
            assert!(answer.len() <= 100 && !answer.is_empty(), "{word}");
            assert!(top.find_subcommand(word).is_none(), "{word} is a command");
            for call in answer.split("vault ").skip(1) {
                let name: String = call.chars().take_while(char::is_ascii_lowercase).collect();
                let is_word =
                    ["alone", "may", "can", "that", "has", "help"].contains(&name.as_str()) || name.is_empty();
                assert!(is_word || top.find_subcommand(&name).is_some(), "{word}: {answer}");
            }
            for option in answer.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
                let option = option.trim_end_matches([',', '.']);
                let has = |command: &clap::Command| command.get_arguments().any(|arg| arg.get_long() == Some(option));
                assert!(has(&top) || every().any(has), "{word}: --{option}");
            }
        }
    }
}
