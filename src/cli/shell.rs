//! `vault completions` and `vault man`, generated from the same definitions as `--help`.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap::CommandFactory;
use clap_mangen::Man;
use serde::Serialize;

use crate::cli::args::Cli;
use crate::cli::args::CompletionsArgs;
use crate::cli::args::ManArgs;
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::local;
use crate::cli::output::Output;
use crate::cli::roots;
use crate::cli::units;
use crate::json::Name;
use crate::ownfile;

/// Runs `vault completions`.
pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let script = if args.dynamic {
        complete::script(args.shell)?
    } else {
        let mut script = Vec::new();
        clap_complete::generate(args.shell, &mut Cli::command(), "vault", &mut script);
        script
    };
    let mut out = Output::new();
    out.bytes(&script)?;
    out.finish().map(|()| Exit::Done)
}

#[derive(Serialize)]
struct ManJson<'a> {
    folder: Name<'a>,
    pages: u64,
}

/// Runs `vault man`.
pub(super) fn man(context: &Context, args: &ManArgs) -> Result<Exit, Failure> {
    let mut out = Output::new();
    let Some(folder) = &args.folder else {
        let page = page(&whole(Cli::command())).map_err(|error| Failure::caused("cannot make the page", &error))?;
        out.bytes(&page)?;
        return out.finish().map(|()| Exit::Done);
    };
    local::refuse_remote(folder, "the folder of the pages")?;
    local::refuse_in_vault(folder, "a manual")?;
    let pages = pages_in(folder)
        .map_err(|error| Failure::caused(format!("cannot write the pages to {}", folder.display()), &error))?;
    if context.global.json {
        out.json(&ManJson { folder: Name(&roots::bytes_of(folder.as_os_str())), pages })?;
    } else if !context.global.quiet {
        let many = units::counted(pages, "page", "pages");
        out.say(format_args!(
            "Wrote {many} to {}. Read one with: man -l {}",
            folder.display(),
            folder.join("vault.1").display()
        ))?;
    }
    out.finish().map(|()| Exit::Done)
}

/// Writes all pages. Returns their number.
fn pages_in(folder: &Path) -> io::Result<u64> {
    ownfile::make_folder(folder)?;
    let mut command = whole(Cli::command()).disable_help_subcommand(true);
    command.build();
    write_page(&command, folder)
}

fn write_page(command: &Command, folder: &Path) -> io::Result<u64> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let file = folder.join(format!("{name}.1"));
    fs::write(&file, page(command)?)?;
    ownfile::hand_over(&file);
    let mut pages = 1;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages += write_page(below, folder)?;
    }
    Ok(pages)
}

/// The command with all its options, because a page also shows those that the short help leaves out.
fn whole(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| arg.hide_short_help(false));
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, whole))
}

/// The page of a command: clap's part, then examples, exit codes, files and variables.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let text = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string).unwrap_or_default();
    let plain = command.clone().after_help("").after_long_help("");
    let name = command.get_display_name().unwrap_or(command.get_name()).to_uppercase();
    let man = Man::new(plain);
    // There is no date, so that the page of a version is always the same. clap_mangen would leave an empty date out,
    // and put the version in its place.
    let mut page = format!(".TH {name} 1 \"\" \"vault {}\"\n", env!("CARGO_PKG_VERSION")).into_bytes();
    man.render_name_section(&mut page)?;
    section(&mut page, "SYNOPSIS", &usage(command));
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let (examples, notes) = parted(&text);
    section(&mut page, "EXAMPLES", &examples);
    section(&mut page, "NOTES", &notes);
    let codes = Exit::ALL.iter().fold(String::new(), |text, (exit, what)| format!("{text}{:<5}{what}\n", *exit as u8));
    section(&mut page, "EXIT STATUS", &codes);
    section(&mut page, "FILES", FILES);
    section(&mut page, "ENVIRONMENT", ENVIRONMENT);
    if command.get_version().is_some() {
        man.render_version_section(&mut page)?;
    }
    Ok(page)
}

const FILES: &str = "\
~/.config/vault/vault.toml   the configuration (XDG_CONFIG_HOME)
~/.local/state/vault         catalogues, device keys, what runs did (XDG_STATE_HOME)
.vaultignore                 in any folder: what to leave out there, as in .gitignore
";

const ENVIRONMENT: &str = "\
VAULT_REPO               the vault, as --repo
VAULT_CONFIG             the configuration, as --config
VAULT_STATE_DIR          the state folder, as --state
VAULT_PASSWORD           the password
VAULT_PASSWORD_FILE      a file whose first line is the password
VAULT_PASSWORD_COMMAND   a command whose first line of output is the password
NO_COLOR                 if set, no colours
";

/// The command's usage line, as in its help.
fn usage(command: &Command) -> String {
    let text = command.clone().render_usage().to_string();
    let lines = text.lines().map(|line| line.trim().trim_start_matches("Usage: "));
    lines.filter(|line| !line.is_empty()).fold(String::new(), |text, line| format!("{text}{line}\n"))
}

/// Splits a help text into its examples and the rest.
fn parted(text: &str) -> (String, String) {
    let (mut examples, mut notes) = (String::new(), String::new());
    for paragraph in text.split("\n\n").map(|paragraph| paragraph.trim_matches('\n')).filter(|text| !text.is_empty()) {
        let (to, lines) = match paragraph.strip_prefix("Examples:\n").or(paragraph.strip_prefix("Example:\n")) {
            Some(lines) => (&mut examples, lines),
            None => (&mut notes, paragraph),
        };
        if !to.is_empty() {
            to.push('\n');
        }
        to.push_str(lines);
        to.push('\n');
    }
    (examples, notes)
}

/// Adds a section whose lines stay as they are.
fn section(page: &mut Vec<u8>, title: &str, text: &str) {
    if text.is_empty() {
        return;
    }
    page.extend_from_slice(format!(".SH {title}\n.nf\n").as_bytes());
    for line in text.lines() {
        let line = line.replace('\\', "\\\\").replace('-', "\\-");
        // A line that begins with a dot or an apostrophe would be read as a request.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        page.extend_from_slice(format!("{guard}{line}\n").as_bytes());
    }
    page.extend_from_slice(b".fi\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_of_every_page_has_text() {
        let folder = tempfile::tempdir().unwrap();
        let pages = pages_in(folder.path()).unwrap();
        assert!(pages > 30, "{pages}");
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for (at, _) in lines.iter().enumerate().filter(|(_, line)| **line == ".TP") {
                let described = lines.get(at + 2).is_some_and(|line| !line.trim().is_empty() && !line.starts_with('.'));
                assert!(described, "{}: {:?} has no text", path.display(), lines.get(at + 1));
            }
            // The name is the one in the help, and the foot shows the program and its version.
            let file = path.file_stem().unwrap().to_str().unwrap();
            let name = file.replace('-', " ");
            let called =
                lines.iter().position(|line| *line == ".SH SYNOPSIS").and_then(|at| lines.get(at + 2)).unwrap();
            assert!(called.starts_with(&name), "{}: {called}", path.display());
            let head = format!(".TH {} 1 \"\" \"vault {}\"", file.to_uppercase(), env!("CARGO_PKG_VERSION"));
            assert_eq!(lines[0], head, "{}", path.display());
            for title in ["EXIT STATUS", "FILES", "ENVIRONMENT"] {
                assert!(text.contains(&format!(".SH {title}")), "{}: {title}", path.display());
            }
            assert!(!text.contains(".SH EXTRA"), "{}", path.display());
        }
    }

    #[test]
    fn examples_are_told_from_the_rest() {
        let (examples, notes) = parted("Examples:\n  vault a\n  vault b\n\nText.\nMore.\n\nLast.");
        assert_eq!((examples.as_str(), notes.as_str()), ("  vault a\n  vault b\n", "Text.\nMore.\n\nLast.\n"));
    }
}
