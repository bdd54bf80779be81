//! Completion at the prompt: answers the shells that ask, by the options that are already on the line. It asks for no
//! password, reads no store and prints no message.

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::panic;
use std::path::PathBuf;

use clap::CommandFactory;
use clap::Parser;
use clap_complete::CompleteEnv;
use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::cli::args::Cli;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::offer;
use crate::cli::offer::Line;

/// The variable by which a shell asks for completions. It holds the shell's name.
const VARIABLE: &str = "VAULT_COMPLETE";
/// The end of the script for zsh. If packages put the script into a folder of functions, zsh runs it for the first
/// completion, and that completion would only define the function.
const ZSH_FIRST: &[u8] = b"[[ ${funcstack[1]} != _vault ]] || ${_comps[vault]} \"$@\"\n";
/// The options that choose the vault or its state.
const CHOOSING: [&str; 4] = ["--repo", "--config", "--state", "--vault"];

/// Answers a shell that completes a command line, if one asks. On any failure it gets no answer.
pub(super) fn answer(args: &[OsString]) -> bool {
    if env::var_os(VARIABLE).is_none_or(|shell| shell.is_empty() || shell == "0") {
        return false;
    }
    offer::answer_by(Line { state, sources, vaults });
    panic::set_hook(Box::new(|_| {}));
    let folder = env::current_dir().ok();
    let asked = || CompleteEnv::with_factory(Cli::command).var(VARIABLE).try_complete(args, folder.as_deref());
    // An error would be shown in the middle of the line that is being typed.
    let _ = panic::catch_unwind(asked);
    true
}

/// The script by which a shell asks this program for completions.
pub(super) fn script(shell: Shell) -> Result<Vec<u8>, Failure> {
    let (name, mut script) = (shell.to_string(), Vec::new());
    let unknown = || Failure::usage(format!("{name} cannot ask while a line is typed")).hint("Leave --dynamic out.");
    let shells = Shells::builtins();
    let completer = shells.completer(&name).ok_or_else(unknown)?;
    let written = completer.write_registration(VARIABLE, "vault", "vault", "vault", &mut script);
    written.map_err(|error| Failure::output(&error))?;
    if shell == Shell::Zsh {
        script.extend_from_slice(ZSH_FIRST);
    }
    script.flush().map_err(|error| Failure::output(&error))?;
    Ok(script)
}

/// The words that are being completed.
fn words() -> Vec<OsString> {
    env::args_os().skip_while(|word| word != "--").skip(1).collect()
}

/// The context of the options that are already on the line.
fn context() -> Option<Context> {
    let mut line: Vec<OsString> = ["vault", "--quiet", "--no-progress"].map(OsString::from).to_vec();
    let mut words = words().into_iter().peekable();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let name = if text == "-r" { "--repo" } else { text.split('=').next().unwrap_or_default() };
        if !CHOOSING.contains(&name) {
            continue;
        }
        match text.split_once('=') {
            Some(_) => line.push(word),
            None if words.peek().is_some() => {
                line.push(name.into());
                line.extend(words.next());
            }
            None => {}
        }
    }
    // If an option on the line is still incomplete, the options are ignored.
    let cli = Cli::try_parse_from(&line).or_else(|_| Cli::try_parse_from(&line[..3])).ok()?;
    Some(Context::new(cli.global))
}

/// The state folder of the vault that the line chooses, if this machine knows it.
fn state() -> Option<PathBuf> {
    let context = context()?;
    let id = context.known_in(&context.chosen().ok()?.place)?;
    Some(context.state_folder().ok()?.join(id.to_string()))
}

fn sources() -> Vec<String> {
    let context = context();
    let config = context.as_ref().and_then(|context| context.config().ok().flatten());
    config.map(|config| config.sources.iter().map(|source| source.name.clone()).collect()).unwrap_or_default()
}

fn vaults() -> Vec<(String, String)> {
    let context = context();
    let config = context.as_ref().and_then(|context| context.config().ok().flatten());
    let vaults = config.into_iter().flat_map(|config| &config.vaults);
    vaults.map(|vault| (vault.name.clone(), vault.place.to_string())).collect()
}
