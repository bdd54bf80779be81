//! A mount while it exists.

use std::env;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::mount::Serving;
use crate::mount::fuse;
use crate::mount::fuse::MountOptions;
use crate::mount::fuse::Mounted;
use crate::mount::fuse::Owners;
use crate::progress::Progress;
use crate::progress::plain;
use crate::service::machine::IN_BACKGROUND;
use serde::Serialize;

use crate::cli::args::MountArgs;
use crate::cli::args::OwnerArg;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::machine;
use crate::cli::mount::laid;
use crate::cli::mount::laid::Laid;
use crate::cli::mount::point;
use crate::cli::mount::point::Point;
use crate::cli::output::Output;
use crate::cli::select;

/// The number of threads that answer the system. There may be more than processors, because they wait for the store.
const THREADS: usize = 4;
/// The interval at which the end of the mount is checked.
const TICK: Duration = Duration::from_millis(100);
/// The time for which open files are served after the mount was ended.
const SERVED: Duration = Duration::from_secs(10);
/// The length in bytes beyond which the log of background mounts is emptied.
const LOG_MAX: u64 = 1 << 20;

#[derive(Serialize)]
struct MountJson {
    mounted: String,
    snapshots: usize,
    background: bool,
}

/// Runs `vault mount`.
pub(super) fn mount(context: &Context, args: &MountArgs) -> Result<Exit, Failure> {
    let (snapshot, folder) = meant(args);
    let wanted = snapshot.map(|text| select::parse(context, text)).transpose()?;
    let is_child = args.background && env::var_os(IN_BACKGROUND).is_some();
    let chosen = context.chosen()?;
    let name = chosen.config.as_ref().map(|vault| OsString::from(&vault.name));
    let name =
        name.or_else(|| chosen.place.folder()?.file_name().map(OsStr::to_owned)).unwrap_or_else(|| "vault".into());
    let point = point::prepare(folder, &name.to_string_lossy())?;
    if args.background && !is_child {
        return in_background(context, point);
    }
    let laid = laid::lay(context, args, wanted.as_ref(), &readme(&point.folder))?;
    let is_root = rustix::process::geteuid().is_root();
    let options = MountOptions {
        owners: match args.owner {
            None | Some(OwnerArg::Names) => Owners::Names,
            Some(OwnerArg::Numbers) => Owners::Numbers,
            Some(OwnerArg::Me) => Owners::Me,
        },
        others_are_mine: args.owner.is_none() && !is_root,
        allow_other: args.allow_other,
        no_preview: args.no_preview,
        threads: THREADS.max(context.threads()),
    };
    // From now on, anything that ends the program ends the mount first.
    context.screen.watch_interrupts_quietly();
    let mounted = fuse::mount(Arc::clone(&laid.serving), &point.folder, options)
        .map_err(|error| refused(&point.folder, &error))?;
    let said = announce(context, args, &point.folder, laid.count, is_child);
    let left = said.and_then(|()| if is_child { leave_terminal(&laid.log) } else { Ok(()) });
    if args.open && left.is_ok() {
        show(&point.folder);
    }
    if left.is_ok() {
        wait(context, &mounted, &laid);
    }
    finish(context, &mounted, &laid.serving, &point.folder);
    left?;
    Ok(laid.exit())
}

/// Tells which argument is the snapshot, and which is the folder.
fn meant(args: &MountArgs) -> (Option<&OsStr>, Option<&Path>) {
    match (args.snapshot.as_deref(), args.folder.as_deref()) {
        (Some(only), None) if is_folder(only) => (None, Some(Path::new(only))),
        (snapshot, folder) => (snapshot, folder),
    }
}

/// Whether a single argument is a folder: it exists as one, or it has a slash and no colon before it.
fn is_folder(text: &OsStr) -> bool {
    let bytes = text.as_encoded_bytes();
    let first = bytes.iter().find(|byte| matches!(byte, b'/' | b':'));
    first == Some(&b'/')
        || bytes == b"."
        || bytes == b".."
        || Path::new(text).is_dir()
        || point::is_dead(Path::new(text))
}

/// The text of `README.txt`, with the way to leave.
fn readme(folder: &Path) -> String {
    format!("close what you have opened here, and\n\n    vault umount {}\n", quoted(&folder.display().to_string()))
}

/// Reports that the vault is mounted.
fn announce(context: &Context, args: &MountArgs, folder: &Path, count: usize, is_child: bool) -> Result<(), Failure> {
    let mut out = Output::new();
    let shown = folder.display().to_string();
    if context.global.json {
        out.json(&MountJson { mounted: shown, snapshots: count, background: is_child })?;
    } else if !context.global.quiet || is_child {
        let end =
            if is_child { format!("vault umount {} ends it", quoted(&shown)) } else { "Ctrl-C ends it".to_owned() };
        let what =
            if args.snapshot.is_some() && args.folder.is_some() { "Mounted" } else { "The snapshots are mounted" };
        out.say(format_args!("{what} in {shown}; {end}."))?;
    }
    out.finish()
}

/// Waits until the mount should end, or was ended.
fn wait(context: &Context, mounted: &Mounted, laid: &Laid) {
    while !mounted.is_ended() && !context.screen.stopped() {
        thread::sleep(TICK);
        laid.tell(context);
    }
}

/// Unmounts, if that was not done already. Files that programs have open are served for a while.
fn finish(context: &Context, mounted: &Mounted, serving: &Serving, folder: &Path) {
    if !mounted.is_ended() {
        match point::end(folder, false) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let users = point::users(folder);
                context.screen.warn(&format!(
                    "{}; what is open stays readable for {} s",
                    point::told(&users),
                    SERVED.as_secs()
                ));
                if let Err(error) = point::end(folder, true) {
                    context.screen.warn(&format!("cannot unmount {}: {}", folder.display(), plain(&error)));
                }
            }
            Err(error) => context.screen.warn(&format!("cannot unmount {}: {}", folder.display(), plain(&error))),
        }
    }
    let begun = Instant::now();
    while !mounted.is_ended() && begun.elapsed() < SERVED {
        thread::sleep(Duration::from_millis(20));
    }
    // The folder itself is not queried, because this very program might have to answer.
    if mounted.is_ended() && point::all().iter().any(|other| other == folder) {
        // The mount ended by itself, and nobody answers there any more.
        if let Err(error) = point::end(folder, true) {
            context.screen.warn(&format!("cannot end the dead mount in {}: {}", folder.display(), plain(&error)));
        }
    }
    serving.end();
}

/// The failure for a mount that the system refused.
fn refused(folder: &Path, error: &io::Error) -> Failure {
    let text = plain(error);
    let failure = Failure::new(format!("cannot mount in {}: {}", folder.display(), text.trim()));
    if text.contains("user_allow_other") {
        failure.hint("For --allow-other the line user_allow_other must stand in /etc/fuse.conf, or be root.")
    } else if error.kind() == io::ErrorKind::NotFound {
        failure.hint(
            "It needs /dev/fuse (modprobe fuse) and, without root, the program fusermount3 (Debian: apt-get install fuse3).",
        )
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        failure.hint("May this user open /dev/fuse? In a container it must be handed in: --device /dev/fuse")
    } else {
        failure
    }
}

/// Opens the folder in the file manager.
fn show(folder: &Path) {
    let mut command = machine::program("xdg-open");
    command.arg(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(mut started) = command.spawn() {
        // If no thread can be started, nobody waits for the file manager to end.
        let _ = thread::Builder::new().spawn(move || started.wait());
    }
}

/// Starts the same command in the background, and waits until it has mounted. It asks for the password at this
/// terminal.
fn in_background(context: &Context, mut point: Point) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::caused("cannot go on in the background", &error);
    let program = env::current_exe().map_err(failed)?;
    // This does not use `child`, because the same program is started, and it needs the password.
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1)).env(IN_BACKGROUND, "1").stdout(Stdio::piped());
    let mut started = command.spawn().map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = started.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    if line.is_empty() {
        let code = started.wait().map_err(failed)?.code();
        let exit = Exit::ALL.iter().map(|(exit, _)| *exit).find(|exit| Some(*exit as i32) == code);
        // The other process has already reported the reason.
        return Err(Failure::new("").exit(exit.unwrap_or(Exit::Failed)));
    }
    // From now on, the other process removes the folder.
    point.keep();
    let mut out = Output::new();
    if !context.global.quiet {
        out.bytes(line.as_bytes())?;
    }
    out.finish().map(|()| Exit::Done)
}

/// Detaches from the terminal, and sends further messages to a file.
fn leave_terminal(log: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::caused(format!("cannot write {}", log.display()), &error);
    let is_long = fs::metadata(log).is_ok_and(|log| log.len() > LOG_MAX);
    let mut options = fs::File::options();
    let mut file = options.create(true).write(true).truncate(is_long).append(!is_long).open(log).map_err(failed)?;
    let _ = writeln!(file, "{} mounted by process {}", dates::exact(dates::now()), std::process::id());
    let null = fs::File::open("/dev/null").map_err(failed)?;
    // This only fails for the leader of a process group, which has no terminal to leave.
    let _ = rustix::process::setsid();
    let _ = env::set_current_dir("/");
    rustix::stdio::dup2_stdin(&null).map_err(io::Error::from).map_err(failed)?;
    rustix::stdio::dup2_stderr(&file).map_err(io::Error::from).map_err(failed)?;
    rustix::stdio::dup2_stdout(&file).map_err(io::Error::from).map_err(failed)
}
