//! Saving now: `vault run` or `vault snapshot` in its own process, which goes on when the page is closed.

use std::env;
use std::ffi::OsString;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use crate::progress::Phase;
use crate::progress::Progress;
use crate::vault::Vault;
use serde_json::Value;

use crate::cli::args::GlobalArgs;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::password::Password;
use crate::cli::roots;
use crate::cli::run::folder as folder_of_runs;
use crate::cli::run::now;

/// The interval at which the process and a request to stop are checked.
const TICK: Duration = Duration::from_millis(50);
/// The number of ticks between looks at the progress of a run.
const LOOK: u32 = 8;

/// The actions allowed after a run.
const THEN: [&str; 3] = ["eject", "suspend", "shutdown"];

/// Runs the command for a request, and returns its output.
pub(super) fn run(
    global: &GlobalArgs,
    context: &Context,
    vault: &Vault,
    password: &Password,
    wish: &Value,
    progress: &dyn Progress,
) -> Result<Value, Failure> {
    let failed = |error: io::Error| Failure::caused("cannot start vault", &error);
    let mut command = Command::new(env::current_exe().map_err(failed)?);
    command.args(options(global));
    if password.typed {
        // The process belongs to this user, and no other user can see its environment. After a change on the page, the
        // password that the page was called with is the old one.
        command.env("VAULT_PASSWORD", password.for_child());
    } else {
        command.args(given("--password-file=", global.password_file.as_ref()));
        command.args(given("--password-command=", global.password_command.as_ref()));
    }
    command.args(arguments(context, vault, wish)?);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C in the terminal of the page is not meant for this process.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let folder = folder_of_runs(context)?;
    let mut child = command.spawn().map_err(failed)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut problem = None;
    let (ended, printed) = thread::scope(|scope| {
        let printed = scope.spawn(|| {
            let mut text = String::new();
            out.map(|mut out| out.read_to_string(&mut text));
            text
        });
        let said = scope.spawn(|| {
            let lines = err.into_iter().flat_map(|err| BufReader::new(err).lines().map_while(Result::ok));
            lines.filter_map(|line| heard(&line, progress)).last()
        });
        let ended = wait(&mut child, &folder, progress);
        problem = said.join().ok().flatten();
        (ended, printed.join().unwrap_or_default())
    });
    let status = ended.map_err(failed)?;
    match (problem, serde_json::from_str(printed.trim())) {
        (Some(failure), Err(_)) => Err(failure),
        (problem, Ok(told)) => {
            // The failure is about the action after the run, so everything before it was done.
            problem.into_iter().for_each(|failure| progress.warn(&failure.what));
            Ok(told)
        }
        (None, Err(_)) if progress.stopped() => Err(Failure::interrupted()),
        (None, Err(_)) => Err(Failure::new(format!("vault ended without a word: {status}"))),
    }
}

/// The arguments for a request: sources of the configuration, or the paths of the last snapshot of a source.
fn arguments(context: &Context, vault: &Vault, wish: &Value) -> Result<Vec<OsString>, Failure> {
    let word = |text: &str| OsString::from(text);
    let configured = context.config()?.map(|config| &config.sources).into_iter().flatten();
    let configured: Vec<&str> = configured.map(|source| source.name.as_str()).collect();
    let source = wish.get("source").and_then(Value::as_str);
    let names = wish.get("names").and_then(Value::as_array);
    let names: Vec<&str> = names.into_iter().flatten().filter_map(Value::as_str).chain(source).collect();
    if let Some(name) = names.iter().find(|name| name.starts_with('-')) {
        return Err(Failure::usage(format!("there is no source '{name}'")));
    }
    let then = wish.get("then").and_then(Value::as_str);
    // A page must not run shell commands.
    if let Some(then) = then.filter(|then| !THEN.contains(then)) {
        return Err(Failure::usage(format!("'{then}' is nothing that can follow")));
    }
    if !configured.is_empty() && names.iter().all(|name| configured.contains(name)) {
        let then = then.map(|then| ["--then", then]).into_iter().flatten();
        return Ok(["run", "--now"].into_iter().chain(then).chain(names).map(word).collect());
    }
    if then.is_some() {
        return Err(Failure::usage("something follows only what the configuration names"));
    }
    let host = wish.get("host").and_then(Value::as_str).unwrap_or(&vault.identity().host);
    let snapshots = vault.snapshots();
    let last = snapshots.iter().rev().find(|info| names == [info.body.source.as_str()] && info.body.host == host);
    let last =
        last.filter(|info| info.body.host == vault.identity().host || vault.own_clients().contains(&info.client));
    let Some(info) = last else {
        return Err(Failure::usage("it is not known what is to be saved")
            .hint("Name your sources in the configuration: vault config init"));
    };
    let paths = info.body.roots.iter().filter(|root| !root.path.is_empty());
    let paths: Vec<_> = paths.map(|root| roots::path_of(&root.path).into_os_string()).collect();
    if paths.is_empty() {
        return Err(Failure::usage("this source did not come from the disk"));
    }
    let start = [word("snapshot"), word("--source"), word(&info.body.source), word("--")];
    Ok(start.into_iter().chain(paths).collect())
}

/// An option with the value that the page was called with, if it was.
fn given(name: &str, value: Option<impl Into<OsString>>) -> Option<OsString> {
    value.map(|value| {
        let mut option = OsString::from(name);
        option.push(value.into());
        option
    })
}

/// The relevant options that the page was called with, but for the password.
fn options(global: &GlobalArgs) -> Vec<OsString> {
    let mut options = vec![OsString::from("--json"), OsString::from("--no-progress")];
    let mut add = |name: &str, value: Option<OsString>| options.extend(given(name, value));
    add("--repo=", global.repo.clone().map(Into::into));
    add("--config=", global.config.clone().map(Into::into));
    add("--state=", global.state.clone().map(Into::into));
    add("--vault=", global.vault.clone().map(Into::into));
    add("--limit-upload=", global.limit_upload.map(|rate| rate.to_string().into()));
    options
}

/// Passes on a message of the process, and returns the failure if it is one.
fn heard(line: &str, progress: &dyn Progress) -> Option<Failure> {
    let Ok(said) = serde_json::from_str::<Value>(line) else {
        progress.warn(line);
        return None;
    };
    if let Some(warning) = said.get("warning").and_then(Value::as_str) {
        progress.warn(warning);
        return None;
    }
    let what = said.get("error")?.as_str()?;
    let code = said.get("code").and_then(Value::as_u64);
    let exit = Exit::ALL.iter().map(|(exit, _)| *exit).find(|exit| Some(*exit as u64) == code);
    let failure = Failure::new(what).exit(exit.unwrap_or(Exit::Failed));
    Some(match said.get("hint").and_then(Value::as_str) {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

/// Passes on the progress of a run, if it is the run of this process.
fn pass_on(child: &Child, folder: &Path, progress: &dyn Progress) -> Option<()> {
    let now = now::look(folder)?;
    if now["process"] != child.id() {
        return None;
    }
    let works = now["works"].as_array()?;
    let counters = progress.counters();
    for (counter, name) in [
        (&counters.files, "files"),
        (&counters.bytes, "bytes"),
        (&counters.bytes_read, "bytes_read"),
        (&counters.files_goal, "files_goal"),
        (&counters.bytes_goal, "bytes_goal"),
    ] {
        counter.store(works.iter().filter_map(|work| work[name].as_u64()).sum(), Relaxed);
    }
    let phase = works.iter().find_map(|work| Phase::ALL.into_iter().find(|phase| work["phase"] == phase.word()));
    progress.phase(phase?);
    Some(())
}

fn wait(child: &mut Child, folder: &Path, progress: &dyn Progress) -> io::Result<std::process::ExitStatus> {
    let (mut told, mut ticks) = (false, 0);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if progress.stopped() && !told {
            told = true;
            stop(child)?;
        }
        ticks = (ticks + 1) % LOOK;
        if ticks == 0 {
            let _ = pass_on(child, folder, progress);
        }
        thread::sleep(TICK);
    }
}

/// Asks the process to end in good order. What it has stored stays.
#[cfg(unix)]
fn stop(child: &mut Child) -> io::Result<()> {
    let pid = rustix::process::Pid::from_child(child);
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::INT)?)
}

/// Ends the process. What it has stored stays.
#[cfg(not(unix))]
fn stop(child: &mut Child) -> io::Result<()> {
    child.kill()
}
