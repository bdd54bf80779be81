//! A mount while it lasts.

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
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use jiff::tz::TimeZone;
use serde::Serialize;
use vault::mount::Tree;
use vault::mount::TreeOptions;
use vault::mount::fuse;
use vault::mount::fuse::MountOptions;
use vault::mount::fuse::Mounted;
use vault::mount::fuse::Owners;
use vault::path::Shown;
use vault::progress::Progress;
use vault::tree::Time;
use vault::vault::View;

use crate::cli::args::MountArgs;
use crate::cli::args::OwnerArg;
use crate::cli::child;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::chain;
use crate::cli::error::quoted;
use crate::cli::mount::point;
use crate::cli::mount::point::Point;
use crate::cli::output::Output;
use crate::cli::select;
use crate::cli::select::Aim;
use crate::cli::select::Wanted;

/// Bytes of listings that are kept.
const LISTINGS: usize = 12 << 20;
/// Threads that answer the system: more than processors, since they wait for the store.
const THREADS: usize = 4;
/// How often is looked whether it should end.
const TICK: Duration = Duration::from_millis(100);
/// How long a mount that was ended goes on to serve what is open.
const SERVED: Duration = Duration::from_secs(10);
/// Set for the process in the background.
const IN_BACKGROUND: &str = "VAULT_MOUNT_IN_BACKGROUND";
/// The log of mounts in the background begins anew when it is longer.
const LOG_MAX: u64 = 1 << 20;

#[derive(Serialize)]
struct MountJson {
    mounted: String,
    snapshots: usize,
    background: bool,
}

/// Runs `vault mount`.
pub fn mount(context: &Context, args: &MountArgs) -> Result<Exit, Failure> {
    let (snapshot, folder) = meant(args);
    let wanted = snapshot.map(|text| Wanted::parse(text, &context.zone)).transpose()?;
    let is_child = args.background && env::var_os(IN_BACKGROUND).is_some();
    let chosen = context.chosen()?;
    let name = chosen.config.as_ref().map(|vault| OsString::from(&vault.name));
    let name =
        name.or_else(|| chosen.place.folder()?.file_name().map(OsStr::to_owned)).unwrap_or_else(|| "vault".into());
    let point = point::prepare(folder, &name.to_string_lossy(), chosen.place.folder())?;
    if args.background && !is_child {
        return in_background(context, point);
    }
    let (vault, _) = context.open()?;
    let log = vault.state().join("mount.log");
    let snapshots = vault.snapshots();
    let aim = match &wanted {
        Some(wanted) => {
            let info = wanted.find(context, &vault, &snapshots, &args.filter, Aim::Read)?;
            let path = select::inside(&info.body.roots, wanted.path.as_deref().unwrap_or_default());
            Some((info.id, path))
        }
        None => None,
    };
    let cache = usize::try_from(args.cache).unwrap_or(usize::MAX);
    let view = View::new(Arc::new(vault), cache, &context.screen)?;
    context.screen.clear();
    let zone = context.zone.clone();
    let dates = Box::new(move |time| name_of(time, &zone));
    let options = TreeOptions { dates, readme: readme(&point.folder), listings: LISTINGS };
    let mut tree = Tree::new(Arc::new(view), options);
    if let Some((id, path)) = &aim {
        let shown = format!("{}:{}", id.short(), Shown(path));
        let only = tree.only(id, path);
        let only = only.map_err(|error| Failure::caused(format!("cannot read {shown}"), &error))?;
        tree = only.ok_or_else(|| {
            Failure::new(format!("there is no folder {shown}")).hint("See what is in it with: vault ls SNAPSHOT")
        })?;
    }
    let count = tree.count();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let report = {
        let told = Arc::clone(&told);
        move |at: &str, error: &vault::vault::ReadError| {
            let next = if error.is_damage() { "; what to do: vault doctor" } else { "" };
            told.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(format!("cannot read {at}: {}{next}", chain(error)));
        }
    };
    let begun = Instant::now();
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
        renew: args.renew,
        now: Box::new(move || begun.elapsed()),
        report: Box::new(report),
    };
    // From now on whatever ends the program ends the mount first.
    context.screen.watch_interrupts_quietly();
    let mounted =
        fuse::mount(Arc::new(tree), &point.folder, options).map_err(|error| refused(&point.folder, &error))?;
    let said = announce(context, args, &point.folder, count, is_child);
    let left = said.and_then(|()| if is_child { leave_terminal(&log) } else { Ok(()) });
    if args.open && left.is_ok() {
        show(&point.folder);
    }
    if left.is_ok() {
        wait(context, &mounted, &told);
    }
    finish(context, &mounted, &point.folder);
    left?;
    Ok(if mounted.damaged() > 0 { Exit::Damage } else { Exit::Done })
}

/// Which argument is the snapshot, and which the folder.
fn meant(args: &MountArgs) -> (Option<&OsStr>, Option<&Path>) {
    match (args.snapshot.as_deref(), args.folder.as_deref()) {
        (Some(only), None) if is_folder(only) => (None, Some(Path::new(only))),
        (snapshot, folder) => (snapshot, folder),
    }
}

/// Whether an argument alone is a folder: it is one, or it has a slash and no colon before it.
fn is_folder(text: &OsStr) -> bool {
    let bytes = text.as_encoded_bytes();
    let first = bytes.iter().find(|byte| matches!(byte, b'/' | b':'));
    first == Some(&b'/')
        || bytes == b"."
        || bytes == b".."
        || Path::new(text).is_dir()
        || point::is_dead(Path::new(text))
}

/// The name of a snapshot's folder: local date and minute, without a colon, which other systems do not allow in names.
fn name_of(time: Time, zone: &TimeZone) -> String {
    dates::shown(time, zone).replace(':', ".")
}

fn readme(folder: &Path) -> String {
    format!(
        "This is a vault, mounted to be looked into. Nothing here can be changed.\n\
         \n\
         SOURCE/DATE/     a snapshot of a source, by the time when it was taken\n\
         SOURCE/latest    the last one\n\
         all/ID           each snapshot by its id\n\
         \n\
         Every folder in a snapshot also has a folder .versions, which is not listed.\n\
         In it lie the versions of each file that is or was there:\n\
         \n\
             ls .versions/letter.odt/\n\
         \n\
         To bring something back, copy it. To leave, close what you have opened here, and\n\
         \n\
             vault umount {}\n",
        quoted(&folder.display().to_string())
    )
}

/// Says that it is mounted.
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
        out.line(format_args!("{what} in {shown}; {end}."))?;
    }
    out.finish()
}

/// Waits until it should end, or was ended.
fn wait(context: &Context, mounted: &Mounted, told: &Mutex<Vec<String>>) {
    let mut ticked = Instant::now();
    while !mounted.is_ended() && !context.screen.stopped() {
        thread::sleep(TICK);
        if ticked.elapsed() >= Duration::from_secs(1) {
            mounted.tick();
            ticked = Instant::now();
        }
        for message in std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner)) {
            context.screen.warn(&message);
        }
    }
}

/// Unmounts, if that was not done already. What programs have open is served for a while.
fn finish(context: &Context, mounted: &Mounted, folder: &Path) {
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
                    context.screen.warn(&format!("cannot unmount {}: {error}", folder.display()));
                }
            }
            Err(error) => context.screen.warn(&format!("cannot unmount {}: {error}", folder.display())),
        }
    }
    let begun = Instant::now();
    while !mounted.is_ended() && begun.elapsed() < SERVED {
        thread::sleep(Duration::from_millis(20));
    }
    mounted.rest();
}

/// Why the system refused to mount.
fn refused(folder: &Path, error: &io::Error) -> Failure {
    let text = error.to_string();
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
    let mut command = child::program("xdg-open");
    command.arg(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(mut started) = command.spawn() {
        thread::spawn(move || started.wait());
    }
}

/// Starts the same command in the background, and waits until it has mounted. It asks for the password at this terminal.
fn in_background(context: &Context, mut point: Point) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::caused("cannot go on in the background", &error);
    let program = env::current_exe().map_err(failed)?;
    // Not by way of `child`: this is the same program, and needs the password.
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
        // It has said why.
        return Err(Failure::new("").exit(exit.unwrap_or(Exit::Failed)));
    }
    // From now on it is the other process that removes it.
    point.keep();
    let mut out = Output::new();
    if !context.global.quiet {
        out.bytes(line.as_bytes())?;
    }
    out.finish().map(|()| Exit::Done)
}

/// Lets go of the terminal, and writes what there is to say into a file.
fn leave_terminal(log: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::caused(format!("cannot write {}", log.display()), &error);
    let is_long = fs::metadata(log).is_ok_and(|log| log.len() > LOG_MAX);
    let mut options = fs::File::options();
    let mut file = options.create(true).write(true).truncate(is_long).append(!is_long).open(log).map_err(failed)?;
    let _ = writeln!(file, "{} mounted by process {}", dates::exact(dates::now()), std::process::id());
    let null = fs::File::open("/dev/null").map_err(failed)?;
    // It fails only for the first process of a group, which has no terminal to leave.
    let _ = rustix::process::setsid();
    let _ = env::set_current_dir("/");
    rustix::stdio::dup2_stdin(&null).map_err(io::Error::from).map_err(failed)?;
    rustix::stdio::dup2_stderr(&file).map_err(io::Error::from).map_err(failed)?;
    rustix::stdio::dup2_stdout(&file).map_err(io::Error::from).map_err(failed)
}
