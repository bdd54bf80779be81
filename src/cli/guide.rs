//! The guide through the first minutes: `vault` without a command, on a terminal, where nothing is configured.
//!
//! All questions come first. If the guide is interrupted before the configuration is written, everything made so far is
//! removed; from then on everything that exists is complete. [`crate::service::guide`] finds the sources and places to
//! offer · [`unwanted`] asks what to exclude.

mod unwanted;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::io::IsTerminal;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::chunk::ChunkParams;
use crate::engine::keys;
use crate::id::VaultId;
use crate::path::Shown;
use crate::progress::Progress;
use crate::seal::KdfParams;
use crate::seal::RecoveryKey;
use crate::seal::random_array;
use crate::service::ahead::measure;
use crate::service::delivery;
use crate::service::guide::places;
use crate::service::guide::places::Place;
use crate::service::guide::source_name;
use crate::service::guide::trial::Step;
use crate::service::guide::trial::perform as perform_trial;
use crate::store::place::Place as At;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;
use clap::Parser;

use crate::cli::again;
use crate::cli::args::Cli;
use crate::cli::args::RunArgs;
use crate::cli::ask;
use crate::cli::config::starter;
use crate::cli::config::starter::Filled;
use crate::cli::config::write_new;
use crate::cli::confirm;
use crate::cli::context;
use crate::cli::context::Chosen;
use crate::cli::context::Context;
use crate::cli::context::current_folder;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::init;
use crate::cli::interrupt;
use crate::cli::local;
use crate::cli::machine::Here;
use crate::cli::machine::Machine;
use crate::cli::note;
use crate::cli::password;
use crate::cli::password::Password;
use crate::cli::perform;
use crate::cli::roots;
use crate::cli::run::run as run_what_is_due;
use crate::cli::schedule;
use crate::cli::sheet;
use crate::cli::units;

/// The number of attempts to answer a question.
const TRIES: usize = 5;

/// Whether there is a person at a terminal, and nothing is configured.
pub(super) fn is_wanted(context: &Context) -> bool {
    let global = &context.global;
    let people = io::stdin().is_terminal() && io::stderr().is_terminal() && !global.json && !global.quiet;
    let place = context.config_place().ok();
    people && global.repo.is_none() && place.is_some_and(|place| !place.exists())
}

/// The files to be backed up.
struct Wanted {
    paths: Vec<PathBuf>,
    /// Whether to exclude files that are usually excluded.
    exclude_usual: bool,
}

/// The answers to all questions.
struct Answers {
    wanted: Wanted,
    place: Place,
    password: Password,
    recovery: RecoveryKey,
}

/// A vault that was made, and is removed again unless `finished` is set.
struct Unfinished {
    folder: PathBuf,
    /// Whether the folder existed before.
    was_there: bool,
    /// This user's state folder, the vault's place and its id.
    made: Option<(PathBuf, String, VaultId)>,
    finished: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // The folder was empty or missing when the vault was made in it, so everything in it is ours.
        let _ = fs::remove_dir_all(&self.folder);
        if self.was_there {
            let _ = fs::create_dir(&self.folder);
        }
        if let Some((state, place, id)) = &self.made {
            let _ = fs::remove_dir_all(state.join(id.to_string()));
            crate::engine::place::forget(state, place, *id);
        }
    }
}

/// Guides the user to the first snapshot.
pub(super) fn run(context: &Context) -> Result<Exit, Failure> {
    note(
        "\
Welcome to vault. It makes encrypted backups of your folders, in a place of
your choice. A few questions, and the first one is made. At each question ?
explains, back goes to the question before, and q or Ctrl-C ends it. Nothing is
made before all questions are answered.
",
    );
    let answers = match questions(context)? {
        Start::New(answers) => *answers,
        Start::There(wanted, place) => return adopt(context, &wanted, &place),
    };
    // From here on, Ctrl-C undoes everything made so far, until the configuration is written.
    context.screen.watch_interrupts_patiently();
    let folder = answers.place.path.clone();
    let chosen = Chosen { place: At::Folder(folder.clone()), config: None };
    let was_there = folder.exists();
    let delivery = delivery::guess(&folder);
    let mut unfinished = Unfinished { folder, was_there, made: None, finished: false };
    let how = init::How {
        label: context::user_at_host(),
        kdf: KdfParams::Standard,
        params: ChunkParams::default(),
        delivery,
        like: None,
    };
    let (made, store) = init::make(context, &chosen.place, &answers.password, Some(&answers.recovery), how)?;
    unfinished.made = Some((context.state_folder()?, store.place(), made.id));
    note(&format!("\nMade a vault in {}.", chosen.shown()));
    let vault = context.open_with(store, &answers.password, None)?;
    stop_if_asked(context)?;
    trial(context, &vault, &answers.wanted.paths)?;
    drop(vault);
    stop_if_asked(context)?;
    let config = write_config(context, &answers.wanted, &answers.place)?;
    unfinished.finished = true;
    interrupt::end_at_once();
    note(&format!("\nWrote the configuration: {}", config.display()));
    context.remember(&chosen.place, answers.password.again());
    go_on(context, &chosen, &answers.wanted, &answers.place)?;
    sheet::offer(context, &chosen.place, &answers.recovery, made.slots.last().copied());
    farewell();
    Ok(Exit::Done)
}

fn write_config(context: &Context, wanted: &Wanted, place: &Place) -> Result<PathBuf, Failure> {
    let config = context.config_place()?;
    let (vault_name, source_name) = (place.name(), source_name(&wanted.paths));
    let paths: Vec<&Path> = wanted.paths.iter().map(PathBuf::as_path).collect();
    let text = starter::text(&Filled {
        vault: Some((&vault_name, &place.path)),
        removable: place.removable,
        source: Some((&source_name, &paths)),
        exclude_usual: wanted.exclude_usual,
    });
    write_new(&config, &text)?;
    Ok(config)
}

/// The steps after the configuration is written.
fn go_on(context: &Context, chosen: &Chosen, wanted: &Wanted, place: &Place) -> Result<(), Failure> {
    first_run(context, &source_name(&wanted.paths), &place.name())?;
    offer_schedule(context, chosen)
}

/// Tells the user what to know from now on.
fn farewell() {
    note(
        "
That is all. From now on:
  vault                            shows what is backed up, and when
  vault run                        does what is due
  vault list                       shows the backups (snapshots)
  vault restore latest --to DIR    brings the last one back",
    );
}

/// The number of latest snapshots of an existing vault that are offered for a restore.
const OFFERED: usize = 20;

/// Uses an existing vault, as on a new computer: restores its files, or continues its backups on this computer.
fn adopt(context: &Context, wanted: &Wanted, place: &Place) -> Result<Exit, Failure> {
    let chosen = Chosen { place: At::Folder(place.path.clone()), config: None };
    note("\nIts password, or its recovery key, opens it.");
    let (vault, password) = context.open_chosen(&chosen, None, &context.screen)?;
    context.screen.clear();
    context.remember(&chosen.place, password.again());
    let mut snapshots = vault.snapshots();
    drop(vault);
    snapshots.reverse();
    note(&format!("It has {}.", units::counted(snapshots.len() as u64, "snapshot", "snapshots")));
    for (number, info) in snapshots.iter().take(OFFERED).enumerate() {
        let (time, source) = (dates::shown(info.body.time, &context.zone), Shown(info.body.source.as_bytes()));
        note(&format!("  {}  {time}  {source} of {}", number + 1, Shown(info.body.host.as_bytes())));
    }
    if !snapshots.is_empty() && confirm("Bring files of one back now? [Y/n] ", true) {
        return bring_back(&chosen, &snapshots, &password);
    }
    if !yes("Back up this computer's folders to this vault from now on?") {
        note(&format!("Nothing was changed. To look into it: vault list --repo {}", chosen.shown()));
        return Ok(Exit::Done);
    }
    let config = write_config(context, wanted, place)?;
    interrupt::end_at_once();
    note(&format!("\nWrote the configuration: {}", config.display()));
    go_on(context, &chosen, wanted, place)?;
    farewell();
    Ok(Exit::Done)
}

/// Restores one of the offered snapshots as `vault restore` does.
fn bring_back(chosen: &Chosen, snapshots: &[SnapshotInfo], password: &Password) -> Result<Exit, Failure> {
    let offered = &snapshots[..snapshots.len().min(OFFERED)];
    let mut snapshot = None;
    for _ in 0..TRIES {
        let text = answer("Which one? [1] ")?;
        match numbered(if text.is_empty() { "1" } else { &text }, offered) {
            Ok(Some(info)) => {
                snapshot = Some(info);
                break;
            }
            Ok(None) => note("Please give its number."),
            Err(failure) => again(&failure.what),
        }
    }
    let snapshot = snapshot.ok_or_else(|| gave_up("which snapshot"))?;
    let default = current_folder()?.join("restored");
    let text = answer(&format!("Into which folder? [{}] ", default.display()))?;
    let folder = if text.is_empty() { default } else { typed_path(&text, Here.home().as_deref())? };
    let (id, folder) = (snapshot.id.to_string(), folder.into_os_string());
    let words = [OsString::from("vault"), "restore".into(), id.into(), "--to".into(), folder, "--repo".into()];
    let words = words
        .into_iter()
        .chain([chosen.place.folder().map_or_else(|| chosen.shown().into(), |folder| folder.as_os_str().to_owned())]);
    let cli = Cli::try_parse_from(words).map_err(|error| Failure::new(error.to_string()))?;
    let context = Context::new(cli.global);
    context.remember(&chosen.place, password.again());
    cli.command.map_or(Ok(Exit::Done), |command| perform(&context, command))
}

fn stop_if_asked(context: &Context) -> Result<(), Failure> {
    if context.screen.stopped() {
        return Err(Failure::interrupted().hint("Nothing was kept, and nothing is left behind."));
    }
    Ok(())
}

/// The user's answer. The end of the input ends the guide.
fn answer(question: &str) -> Result<String, Failure> {
    match ask(question) {
        Some(text) if text == "q" || text == "quit" => Err(Failure::interrupted().hint("Nothing was made.")),
        Some(text) => Ok(text),
        None => {
            note("");
            Err(Failure::interrupted().hint("Nothing was made."))
        }
    }
}

/// The answer to a question that has another one before it.
enum Turn<T> {
    /// An answer.
    Answer(T),
    /// The previous question is to be asked again.
    Back,
}

/// Explains a question if the text asks for that. Returns whether it did.
fn explained(text: &str, explanation: &str) -> bool {
    let asked = text == "?" || text == "help";
    if asked {
        note(explanation);
    }
    asked
}

const ABOUT_SOURCES: &str = "\
Name the folders that hold what you made yourself: documents, pictures,
projects. Numbers choose what is offered (1,3 or 1-3); any other folder is named
by its path. Programs and the system need no backup, as they can be installed
again.";
const ABOUT_PLACE: &str = "\
The vault is a folder of its own that holds all backups, encrypted. On another
disk it survives the loss of this one. In a synced folder it also gets to
another place. If there is a vault already, name it, and its files can be brought
back. A file server is named by the folder where it is mounted.";

fn yes(question: &str) -> bool {
    confirm(&format!("{question} [Y/n] "), true)
}

fn gave_up(what: &str) -> Failure {
    Failure::new(format!("{what} was not answered")).hint("Nothing was made. Begin again with: vault")
}

/// The way in which the guide continues after its questions.
enum Start {
    /// With a new vault.
    New(Box<Answers>),
    /// With an existing vault, and the files to back up to it.
    There(Wanted, Place),
}

fn questions(context: &Context) -> Result<Start, Failure> {
    let home = Here.home();
    let (wanted, place) = loop {
        let wanted = ask_sources(home.as_deref())?;
        match ask_place(home.as_deref(), &wanted.paths)? {
            Turn::Answer(place) => break (wanted, place),
            Turn::Back => note(""),
        }
    };
    if local::has_vault_in(&place.path)? {
        return Ok(Start::There(wanted, place));
    }
    init::refuse_where_known(context, &At::Folder(place.path.clone()))?;
    note(
        "
The password seals everything. Without it, or the recovery key that comes next,
nobody can read the vault, and nobody can help.",
    );
    let chosen = Chosen { place: At::Folder(place.path.clone()), config: None };
    let password = ask_password(context, &chosen)?;
    let recovery = RecoveryKey::generate()
        .map_err(|error| Failure::caused("cannot make a recovery key", &error).hint("Nothing was made."))?;
    ask_recovery(&recovery)?;
    Ok(Start::New(Box::new(Answers { wanted, place, password, recovery })))
}

/// The offered item with this number; `None` if the text is not a number. A number never means a folder of that name.
fn numbered<'o, T>(text: &str, offered: &'o [T]) -> Result<Option<&'o T>, Failure> {
    let Ok(number) = text.trim().parse::<u64>() else { return Ok(None) };
    let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    match at.and_then(|at| offered.get(at)) {
        Some(offer) => Ok(Some(offer)),
        None if offered.is_empty() => Err(Failure::usage(format!("nothing has the number {number} here"))),
        None => Err(Failure::usage(format!("the numbers go from 1 to {}", offered.len()))),
    }
}

/// The offered items from one number to another, as in `2-4`; `None` if the text is not such a range.
fn range<'o, T>(text: &str, offered: &'o [T]) -> Result<Option<&'o [T]>, Failure> {
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = text.split_once('-').map(|(from, to)| (from.trim(), to.trim()));
    let Some((from, to)) = parts.filter(|(from, to)| is_number(from) && is_number(to)) else { return Ok(None) };
    numbered(from, offered)?;
    numbered(to, offered)?;
    let (from, to): (usize, usize) = (from.parse().unwrap_or(1), to.parse().unwrap_or(0));
    match offered.get(from.saturating_sub(1)..to) {
        Some(some) if !some.is_empty() => Ok(Some(some)),
        _ => Err(Failure::usage(format!("{from}-{to} runs backwards"))),
    }
}

/// The path for a text that a person typed.
fn typed_path(text: &str, home: Option<&Path>) -> Result<PathBuf, Failure> {
    let text = text.trim().trim_matches(['\'', '"']);
    let below_home = text.strip_prefix("~/").or((text == "~").then_some(""));
    let path = if let (Some(rest), Some(home)) = (below_home, home) {
        home.join(rest)
    } else {
        if local::looks_remote(text) {
            return Err(Failure::usage(
                "this is on another machine; a vault there is made with: vault init --repo ADDRESS (docs/remote.md)",
            ));
        }
        local::refuse_remote(Path::new(text), "this")?;
        PathBuf::from(text)
    };
    Ok(roots::absolute(&current_folder()?, &path))
}

fn ask_sources(home: Option<&Path>) -> Result<Wanted, Failure> {
    let offered = home.map(places::sources).unwrap_or_default();
    note("What is to be backed up?");
    for (number, path) in offered.iter().enumerate() {
        note(&format!(
            "  {}  {}  {}",
            number + 1,
            path.display(),
            sized(measure(std::slice::from_ref(path), MEASURE_EACH, &Here))
        ));
    }
    let all: Vec<String> = (1..=offered.len()).map(|number| number.to_string()).collect();
    let default = if all.is_empty() { String::new() } else { format!(" [{}]", all.join(",")) };
    for _ in 0..TRIES {
        let text = answer(&format!("Numbers, or other folders, separated by commas{default}: "))?;
        if explained(&text, ABOUT_SOURCES) {
            continue;
        }
        if text == "back" {
            note("This is the first question.");
            continue;
        }
        let text = if text.is_empty() { all.join(",") } else { text };
        match chosen_sources(&text, &offered, home) {
            Ok(paths) if paths.is_empty() => note("Name one folder at least."),
            Ok(paths) => {
                let is_all = paths.iter().any(|path| path.parent().is_none());
                let question = "That is everything on this computer, with the system and all programs. Really? [y/N] ";
                if is_all && !confirm(question, false) {
                    continue;
                }
                match unwanted::ask(&paths, home)? {
                    Turn::Answer(exclude_usual) => return Ok(Wanted { paths, exclude_usual }),
                    Turn::Back => note(""),
                }
            }
            Err(failure) => again(&failure.what),
        }
    }
    Err(gave_up("what is to be backed up"))
}

/// The time limit for measuring one folder. The size of a larger one is shown as a minimum.
const MEASURE_EACH: Duration = Duration::from_millis(700);
/// A measured size in words. `is_all` is false if it is a minimum.
fn sized((bytes, is_all): (u64, bool)) -> String {
    let more = if is_all { "" } else { "more than " };
    format!("({more}{})", units::size(bytes))
}

fn chosen_sources(text: &str, offered: &[PathBuf], home: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
    let mut sources = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let some = match (range(part, offered)?, numbered(part, offered)?) {
            (Some(some), _) => some.to_vec(),
            (None, Some(path)) => vec![path.clone()],
            (None, None) => vec![typed_path(part, home)?],
        };
        for path in some {
            if !path.exists() {
                return Err(Failure::new(format!("there is no {}", path.display())));
            }
            if !sources.contains(&path) {
                sources.push(path);
            }
        }
    }
    Ok(sources)
}

fn ask_place(home: Option<&Path>, sources: &[PathBuf]) -> Result<Turn<Place>, Failure> {
    let offered = places::destinations(home);
    note(
        "\nWhere are the backups to go? Best is another disk; good is a folder that a\nprogram carries to other machines.",
    );
    for (number, place) in offered.iter().enumerate() {
        note(&format!("  {}  {}", number + 1, described(place)));
    }
    let (question, default) =
        if offered.is_empty() { ("A folder: ", "") } else { ("A number, or another folder [1]: ", "1") };
    for _ in 0..TRIES {
        let text = answer(question)?;
        if explained(&text, ABOUT_PLACE) {
            continue;
        }
        if text == "back" {
            return Ok(Turn::Back);
        }
        let text = if text.is_empty() { default.to_owned() } else { text };
        if text.is_empty() {
            continue;
        }
        let chosen = numbered(&text, &offered).and_then(|offer| match offer {
            Some(place) => Ok(place.clone()),
            None => typed_path(&text, home).map(Place::folder),
        });
        let outside =
            |place: Place| local::refuse_around(&At::Folder(place.path.clone()), "another vault").map(|()| place);
        match chosen.and_then(outside).map_err(|failure| failure.what).and_then(places::usable) {
            Ok(place) if local::has_vault_in(&place.path)? => {
                note(&format!("There is a vault in {} already.", place.path.display()));
                if yes("Use that one?") {
                    return Ok(Turn::Answer(place));
                }
            }
            Ok(place) => {
                note(&format!("The vault will be {}", place.path.display()));
                // A typed folder may be a mistake; an offered one exists.
                let is_new = !place.path.exists()
                    && !place.path.parent().is_some_and(|above| offered.iter().any(|offer| offer.path == above));
                if is_new && !yes("There is no such folder yet. Make it?") {
                    continue;
                }
                if places::same_disk(&place.path, sources) {
                    note(
                        "It lies on the same disk as what is kept: that helps if a file is lost, not if\nthe disk is.",
                    );
                }
                return Ok(Turn::Answer(place));
            }
            Err(what) => again(&what),
        }
    }
    Err(gave_up("where the backups go"))
}

fn ask_password(context: &Context, chosen: &Chosen) -> Result<Password, Failure> {
    for _ in 0..TRIES {
        match password::new(context.password_sources(chosen), &chosen.shown()) {
            Ok(password) => return Ok(password),
            Err(failure) if failure.exit == Exit::Interrupted => return Err(failure.hint("Nothing was made.")),
            Err(failure) => again(&failure.what),
        }
    }
    Err(gave_up("the password"))
}

/// Shows the recovery key until the user has typed back two of its groups.
fn ask_recovery(key: &RecoveryKey) -> Result<(), Failure> {
    let text = key.to_text();
    let groups: Vec<&str> = text.split('-').collect();
    let random: [u8; 2] = random_array().map_err(|error| Failure::caused("no random numbers", &error))?;
    let first = usize::from(random[0]) % groups.len();
    let second = (first + 1 + usize::from(random[1]) % (groups.len() - 1)) % groups.len();
    note(&format!(
        "
This is the recovery key. It opens the vault if the password is lost, for you
and for anyone who finds it. Write it down or print it, and keep it away from
this machine; it is shown only now.

    {}
",
        *text
    ));
    for group in [first.min(second), first.max(second)] {
        let mut right = false;
        for _ in 0..TRIES {
            let question = format!("To see that it is written down: what is its {} of 6 groups? ", ordinal(group + 1));
            let typed = answer(&question)?;
            if explained(&typed, "It has six groups of five characters, with a - between them. Type that one.") {
                continue;
            }
            right = same_group(&typed, groups[group]);
            if right {
                break;
            }
            note("That is not it.");
        }
        if !right {
            return Err(gave_up("the recovery key"));
        }
    }
    note("Right.");
    Ok(())
}

/// `1st`, `2nd`, ... for small numbers.
fn ordinal(number: usize) -> String {
    let end = match number {
        1 => "st",
        2 => "nd",
        3 => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}

/// Whether the user typed this group of the recovery key, in upper or lower case, O for 0, I and L for 1.
fn same_group(typed: &str, group: &str) -> bool {
    let plain = |text: &str| -> String {
        let upper = text.trim().to_uppercase();
        upper
            .chars()
            .map(|c| {
                if c == 'O' {
                    '0'
                } else if matches!(c, 'I' | 'L') {
                    '1'
                } else {
                    c
                }
            })
            .collect()
    };
    plain(typed) == plain(group)
}

/// Saves, restores and compares a few small files, so that the user sees that it works before relying on it.
fn trial(context: &Context, vault: &Vault, sources: &[PathBuf]) -> Result<(), Failure> {
    let scratch = context.state_folder()?.join(format!("trial-{}", std::process::id()));
    let tell = |step: Step| {
        context.screen.clear();
        match step {
            Step::Begun => note("\nA trial first, with a few small files:"),
            Step::Kept { files, bytes } => {
                note(&format!("  kept       {}, {}", units::counted(files, "file", "files"), units::size(bytes)));
            }
            Step::Restored { files } => note(&format!("  restored   {}", units::counted(files, "file", "files"))),
            Step::Compared { changed: 0 } => note("  compared   byte for byte the same"),
            Step::Compared { changed } => note(&format!(
                "  compared   {} changed while this went on, the others are the same",
                units::counted(changed, "file", "files")
            )),
        }
    };
    let told = (&context.screen as &dyn Progress, &tell as &dyn Fn(Step));
    let tried = perform_trial(vault, sources, &scratch, context.threads(), &Here, told);
    context.screen.clear();
    if !tried? {
        note("There are no small files to try it with.");
    }
    Ok(())
}

/// A line that describes a place.
fn described(place: &Place) -> String {
    let free = place.free().map_or_else(String::new, |free| format!(", {} free", units::size(free)));
    let kind = if place.synced { "carried to other machines" } else { "a disk" };
    format!("{} ({kind}{free})", place.path.display())
}

fn first_run(context: &Context, source: &str, vault: &str) -> Result<(), Failure> {
    if !yes("\nBack up everything now?") {
        note("Later, then, with: vault run");
        return Ok(());
    }
    let args = RunArgs { now: true, ..RunArgs::default() };
    match run_what_is_due(context, &args) {
        Ok(Exit::Interrupted) => Err(Failure::interrupted().hint("What was stored is kept; go on with: vault run")),
        Ok(_) => {
            interrupt::end_at_once();
            note(&format!("({source} stands for your folders, {vault} for the vault; the configuration says so.)"));
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

fn offer_schedule(context: &Context, chosen: &Chosen) -> Result<(), Failure> {
    note(
        "\nIt can do so by itself: it looks every 15 minutes for what is due. For that this\nmachine gets a key of its own, so that no password need be stored.",
    );
    if !yes("Install that?") {
        note("Later, if you like, with: vault schedule install");
        return Ok(());
    }
    let (vault, _) = context.open_chosen(chosen, None, &context.screen)?;
    let device = keys::add_device(&vault, &context::user_at_host(), dates::now(), &context.screen)?;
    if let Err(failure) = schedule::install_every(context, Duration::from_secs(15 * 60)) {
        // Without the schedule, nothing needs this machine's device key.
        let gone = keys::remove(&vault, device, keys::When::Now, dates::now(), &context.screen);
        if let Err(error) = gone.map(drop).and_then(|()| keys::DeviceKey::discard(vault.state())) {
            note(&format!("The key of this machine could not be taken back: {error}. See: vault key list"));
        }
        note(&format!("{}.", failure.what));
        if let Some(hint) = failure.hint {
            note(&format!("  {hint}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_typed_as_people_type() {
        assert!(same_group(" ab0i1 ", "AB011") && same_group("ABOLL", "AB011"));
        assert!(!same_group("AB012", "AB011") && !same_group("", "AB011"));
    }

    #[test]
    fn answers_are_numbers_and_paths() {
        let folder = tempfile::tempdir().unwrap();
        let top = crate::path::plain(fs::canonicalize(folder.path()).unwrap());
        for name in ["a", "b", "c d"] {
            fs::create_dir(top.join(name)).unwrap();
        }
        let offered = [top.join("a"), top.join("b")];
        let check = |text: &str, expected: Option<&[&str]>| {
            let found = chosen_sources(text, &offered, Some(&top)).ok();
            let expected: Option<Vec<PathBuf>> =
                expected.map(|names| names.iter().map(|name| top.join(name)).collect());
            assert_eq!(found, expected, "{text}");
        };
        check("1,2", Some(&["a", "b"]));
        check(" 2 , ~/c d,2", Some(&["b", "c d"]));
        check("1-2", Some(&["a", "b"]));
        check("2-1", None);
        check("1-3", None);
        check("3", None);
        check("~/gone", None);
        check("", Some(&[]));
    }

    #[test]
    fn what_was_not_finished_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        for (name, was_there) in [("new", false), ("empty", true)] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.join("keys")).unwrap();
            drop(Unfinished { folder: path.clone(), was_there, made: None, finished: false });
            assert_eq!(path.exists(), was_there);
            assert!(!path.join("keys").exists());
        }
    }
}
