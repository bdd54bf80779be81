//! The snapshot that a name selects: `latest~2`, the start of an id, a date; and the path inside it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;

use jiff::tz::TimeZone;

use crate::engine::rewrite::as_it_was;
use crate::failure::{Exit, Failure, quoted};
use crate::id::{ClientId, ObjectName};
use crate::path::{Shown, components};
use crate::progress::Progress;
use crate::service::dates::{self, Span};
use crate::service::roots::bytes_of;
use crate::service::suggest::nearest;
use crate::tree::{Root, Time};
use crate::vault::finding::About;
use crate::vault::{SnapshotInfo, Vault};

/// The minimum number of digits in the start of an id.
pub const ID_DIGITS_MIN: usize = 4;
/// The number of snapshots listed when an id is ambiguous.
const AMBIGUOUS_SHOWN: usize = 10;

/// The way in which a snapshot was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The last snapshot but this many.
    Latest(usize),
    /// The start of an id, lower case.
    Id(String),
    /// A date, or a date and time.
    Date(Span),
}

/// The filter for the snapshots that a name such as `latest` can mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only snapshots of this source.
    pub source: Option<String>,
    /// Only snapshots of this machine.
    pub host: Option<String>,
}

/// The snapshots in which a name is looked up.
#[derive(Clone)]
pub struct Among<'a> {
    /// The vault.
    pub vault: &'a Vault,
    /// All its snapshots, the oldest first.
    pub snapshots: &'a [SnapshotInfo],
    /// The filter for `latest` and dates.
    pub filter: Filter,
    /// The local time zone.
    pub zone: &'a TimeZone,
}

/// A snapshot that was found.
#[derive(Debug, Clone, Copy)]
pub struct Found<T> {
    /// The snapshot.
    pub info: T,
    /// The least exit code of a command that reads this snapshot. It is not 0 if the snapshot that was meant may be
    /// missing.
    pub exit: Exit,
}

/// The name of a snapshot, and perhaps a path inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The snapshot's name as it was typed.
    text: String,
    which: Which,
    /// The path as it was typed; `None` if there was no colon.
    pub path: Option<Vec<u8>>,
}

impl Wanted {
    /// Reads `SNAPSHOT[:PATH]`. Ages such as `3d` count back from `now`.
    pub fn parse(text: &OsStr, zone: &TimeZone, now: Time) -> Result<Self, Failure> {
        let bytes = bytes_of(text);
        let name_len = dates::prefix_len(&bytes).filter(|&len| matches!(bytes.get(len), None | Some(b':')));
        let name_len = name_len.or_else(|| bytes.iter().position(|&byte| byte == b':')).unwrap_or(bytes.len());
        let name = Shown(&bytes[..name_len]).to_string();
        let which = which(&name, zone, now).map_err(Failure::usage)?;
        Ok(Self { text: name, which, path: bytes.get(name_len + 1..).map(<[u8]>::to_vec) })
    }

    /// The snapshot's name as it was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same snapshot with another path.
    #[must_use]
    pub fn with_path(&self, path: &[u8]) -> Self {
        Self { path: Some(path.to_vec()), ..self.clone() }
    }

    /// Whether the name selects this snapshot.
    pub fn leads_to(&self, among: &Among<'_>, aim: Aim, info: &SnapshotInfo) -> bool {
        let own = Own::of(among.vault);
        let chosen = self.choose(among.snapshots, &among.filter, &own, aim, among.zone);
        chosen.is_ok_and(|(found, _)| found.id == info.id)
    }

    /// Finds the selected snapshot, and warns if it was taken by another machine.
    pub fn find<'a>(
        &self,
        among: &Among<'a>,
        aim: Aim,
        progress: &dyn Progress,
    ) -> Result<Found<&'a SnapshotInfo>, Failure> {
        let own = Own::of(among.vault);
        let chosen = self.choose(among.snapshots, &among.filter, &own, aim, among.zone);
        let mut exit = Exit::Done;
        // An id of one that is here means that one, whatever else it may be the start of.
        let is_certain = matches!(self.which, Which::Id(_)) && chosen.is_ok();
        let missing = if is_certain { None } else { self.missing(among, &own, aim)? };
        if let Some(missing) = missing {
            let what = format!(
                "{} is snapshot {}, whose record is missing from the store",
                self.text,
                named(&missing, among.zone)
            );
            let Some((info, _)) = chosen.as_ref().ok().filter(|_| aim == Aim::Read) else {
                return Err(Failure::new(what).exit(Exit::Damage).hint(
                    "Name another one by its id. What is missing, and what to do: vault repair --dry-run, or vault accept",
                ));
            };
            progress.warn(&format!("{what}: {} is taken (see: vault repair --dry-run)", info.id.short()));
            exit = Exit::Damage;
        }
        let unread = self.unread(among, &own)?;
        let (info, note) = chosen.map_err(|failure| match &unread {
            Some(unread) => {
                progress.warn(&more_than_known(unread));
                failure.exit(unread.exit())
            }
            None => failure,
        })?;
        if let Some(unread) = unread {
            let what = format!("{} may be another snapshot than {}: {}", self.text, info.id.short(), unread.text());
            if aim != Aim::Read {
                return Err(Failure::new(what).exit(unread.exit()).hint("Name it by its id: vault list"));
            }
            progress.warn(&what);
            exit = exit.worse(unread.exit());
        }
        if let Some(note) = note {
            progress.warn(&note);
        }
        if info.has_lost_root() && !matches!(self.which, Which::Id(_)) {
            progress.warn(&self.hollow(among, info));
        }
        Ok(Found { info, exit })
    }

    /// The snapshot that would be selected if no record were missing from the store; `None` if that snapshot is
    /// present.
    fn missing(&self, among: &Among<'_>, own: &Own, aim: Aim) -> Result<Option<SnapshotInfo>, Failure> {
        let Some(all) = among.vault.remembered_snapshots()? else { return Ok(None) };
        let meant = self.choose(&all, &among.filter, own, aim, among.zone).ok().map(|(meant, _)| meant);
        Ok(meant.filter(|meant| among.snapshots.iter().all(|info| info.id != meant.id)).cloned())
    }

    /// A warning that the snapshot which is chosen lacks what was not mounted when it was taken.
    fn hollow(&self, among: &Among<'_>, info: &SnapshotInfo) -> String {
        let is_same = |other: &&SnapshotInfo| {
            other.body.source == info.body.source && other.body.host == info.body.host && !other.has_lost_root()
        };
        let earlier = among.snapshots.iter().take_while(|other| other.id != info.id).filter(is_same).last();
        let earlier = earlier.map(|other| format!("; the last one before it: {}", named(other, among.zone)));
        format!(
            "{} is snapshot {}, of which a disk was probably not mounted when it was taken{}",
            self.text,
            info.id.short(),
            earlier.unwrap_or_default()
        )
    }

    /// The reason why another snapshot may be meant than the one that is chosen: a record that cannot be read, or is not
    /// here, of the machine whose snapshots are meant.
    fn unread(&self, among: &Among<'_>, own: &Own) -> Result<Option<About>, Failure> {
        if matches!(self.which, Which::Id(_)) {
            return Ok(None);
        }
        let host = among.filter.host.as_deref().unwrap_or(&own.host);
        Ok(among.vault.unread_of(host)?.into_iter().next())
    }

    /// Finds the selected snapshot in order to read its contents. An id from before a change selects the state before
    /// that change, as long as the changed snapshot has not arrived completely.
    pub fn find_to_read(
        &self,
        among: &Among<'_>,
        aim: Aim,
        progress: &dyn Progress,
    ) -> Result<Found<SnapshotInfo>, Failure> {
        let Found { info, exit } = self.find(among, aim, progress)?;
        let as_now = || Ok(Found { info: info.clone(), exit });
        let Which::Id(prefix) = &self.which else { return as_now() };
        let is_meant = |id: &&ObjectName| id.to_string().starts_with(prefix);
        let Some(id) = info.replaced.iter().find(is_meant).filter(|_| !is_meant(&&info.id)) else {
            return as_now();
        };
        let Some(before) = as_it_was(among.vault, info, id, progress)? else { return as_now() };
        let now = info.id.short();
        progress.warn(&format!("not all of {now} has arrived here yet, so it is read as it was before that change"));
        Ok(Found { info: before, exit })
    }

    /// Finds the selected snapshot, with a note on the choice. An id selects by id alone. `latest` and dates select
    /// among those of this machine's snapshots that pass the filter; if there is a path, among those that cover it.
    fn choose<'a>(
        &self,
        snapshots: &'a [SnapshotInfo],
        filter: &Filter,
        own: &Own,
        aim: Aim,
        zone: &TimeZone,
    ) -> Result<(&'a SnapshotInfo, Option<String>), Failure> {
        if let Which::Id(prefix) = &self.which {
            return self.choose_by_id(prefix, snapshots, filter, zone);
        }
        let fitting: Vec<&SnapshotInfo> = snapshots.iter().filter(|info| filter.matches(info)).collect();
        let (mut chosen, is_own) = if filter.host.is_some() { (fitting, true) } else { own.only(fitting) };
        let is_foreign = !is_own && !chosen.is_empty();
        if is_foreign && aim != Aim::Read {
            let host = Shown(own.host.as_bytes());
            return Err(Failure::usage(format!(
                "there is no snapshot of this machine, {host}, for {} to mean",
                self.text
            ))
            .hint(match aim {
                Aim::Name => BY_ID.to_owned(),
                _ => format!("Say whose it is: {}", options("--host", hosts(&chosen))),
            }));
        }
        if let Some(path) = self.path.as_deref().filter(|path| components(path).next().is_some()) {
            let covering: Vec<_> = chosen.iter().copied().filter(|info| covers(info, path)).collect();
            chosen = if covering.is_empty() { chosen } else { covering };
        } else if aim != Aim::Read {
            self.require_one_row(&chosen, aim)?;
        }
        let mut newest_first = chosen.iter().rev().copied();
        let found = match &self.which {
            Which::Latest(before) => newest_first.nth(*before),
            Which::Date(span) => {
                newest_first.find(|info| info.date < span.until && (!span.day || info.date >= span.from))
            }
            Which::Id(_) => None,
        };
        let info = found.ok_or_else(|| {
            let failure = self.not_found(snapshots, filter);
            match &self.which {
                Which::Date(span) => match neighbours(&chosen, *span, zone) {
                    Some(nearest) => failure.hint(nearest),
                    None => failure,
                },
                _ => failure,
            }
        })?;
        let note = is_foreign.then(|| {
            let (own, host) = (Shown(own.host.as_bytes()), Shown(info.body.host.as_bytes()));
            format!("there is no snapshot of this machine, {own}: {} is one of {host} (--host chooses)", self.text)
        });
        Ok((info, note))
    }

    /// Finds the snapshot whose id begins so. An id that it had before tag, amend or rewrite also selects it.
    fn choose_by_id<'a>(
        &self,
        prefix: &str,
        snapshots: &'a [SnapshotInfo],
        filter: &Filter,
        zone: &TimeZone,
    ) -> Result<(&'a SnapshotInfo, Option<String>), Failure> {
        let is_meant = |id: &ObjectName| id.to_string().starts_with(prefix);
        let fits = |info: &&SnapshotInfo| is_meant(&info.id) || info.replaced.iter().any(is_meant);
        let fitting: Vec<_> = snapshots.iter().filter(fits).collect();
        match fitting[..] {
            [info] if is_meant(&info.id) => Ok((info, None)),
            [info] => Ok((info, Some(format!("snapshot {prefix} was changed, and is {} now", info.id.short())))),
            [] => Err(self.not_found(snapshots, filter)),
            _ => Err(ambiguous(prefix, &fitting, zone)),
        }
    }

    /// Refuses a name that could be of several machines or sources.
    fn require_one_row(&self, chosen: &[&SnapshotInfo], aim: Aim) -> Result<(), Failure> {
        for (option, what, names) in [("--host", "machines", hosts(chosen)), ("--source", "sources", sources(chosen))] {
            if names.len() > 1 {
                let all: Vec<String> = names.iter().map(|name| Shown(name.as_bytes()).to_string()).collect();
                let (text, count, all) = (&self.text, all.len(), all.join(", "));
                let failure = Failure::usage(format!("{text} could be of {count} {what}: {all}"));
                return Err(failure.hint(match aim {
                    Aim::Name => BY_ID.to_owned(),
                    _ => format!("Say which: {}", options(option, names)),
                }));
            }
        }
        Ok(())
    }

    fn not_found(&self, snapshots: &[SnapshotInfo], filter: &Filter) -> Failure {
        let of = filter.words();
        let failure = match &self.which {
            _ if snapshots.is_empty() => return filter.none_of(snapshots),
            Which::Id(prefix) => Failure::new(format!("there is no snapshot {prefix}")),
            _ if !snapshots.iter().any(|info| filter.matches(info)) => return filter.none_of(snapshots),
            Which::Latest(_) => {
                Failure::new(format!("there is no {}{of}: the snapshots do not go back so far", self.text))
            }
            Which::Date(span) if span.day => Failure::new(format!("there is no snapshot{of} of {}", self.text)),
            Which::Date(_) if self.text.ends_with("ago") || self.text.len() < 6 => Failure::new(format!(
                "there is no snapshot{of} that is older than {}",
                self.text.trim_end_matches(" ago")
            )),
            Which::Date(_) => Failure::new(format!("there is no snapshot{of} from before {}", self.text)),
        };
        hinted(failure, snapshots, filter)
    }
}

/// A warning that there may be snapshots which this machine does not list.
pub fn more_than_known(unread: &About) -> String {
    format!("there may be more snapshots than are known here: {}", unread.text())
}

/// Finds all snapshots that were named, each once.
pub fn find_all(
    names: &[OsString],
    among: &Among<'_>,
    now: Time,
    aim: Aim,
    progress: &dyn Progress,
) -> Result<Found<Vec<SnapshotInfo>>, Failure> {
    let mut all = Found { info: Vec::new(), exit: Exit::Done };
    for name in names {
        let wanted = Wanted::parse(name, among.zone, now)?;
        if wanted.path.is_some() {
            return Err(Failure::usage(format!("'{}': name a snapshot, without a path in it", name.display())));
        }
        let Found { info, exit } = wanted.find(among, aim, progress)?;
        all.exit = all.exit.worse(exit);
        if !all.info.iter().any(|other: &SnapshotInfo| other.id == info.id) {
            all.info.push(info.clone());
        }
    }
    Ok(all)
}

impl Filter {
    /// Whether a snapshot has the wanted source and host.
    pub fn matches(&self, info: &SnapshotInfo) -> bool {
        self.source.as_ref().is_none_or(|source| *source == info.body.source)
            && self.host.as_ref().is_none_or(|host| *host == info.body.host)
    }

    /// Whether the filter excludes anything.
    pub const fn is_chosen(&self) -> bool {
        self.source.is_some() || self.host.is_some()
    }

    /// The filter in words that follow "snapshot".
    fn words(&self) -> String {
        let of = [("source", &self.source), ("host", &self.host)];
        of.iter().filter_map(|(what, name)| name.as_ref().map(|name| format!(" of {what} {name}"))).collect()
    }

    /// The failure for a filter that no snapshot passes.
    pub fn none_of(&self, snapshots: &[SnapshotInfo]) -> Failure {
        let failure = if snapshots.is_empty() {
            Failure::new("there is no snapshot in this vault yet")
        } else {
            Failure::new(format!("there is no snapshot{}", self.words()))
        };
        hinted(failure, snapshots, self)
    }

    /// A suggestion for a source or host that no snapshot has; `None` if every wanted name exists.
    pub fn meant(&self, snapshots: &[SnapshotInfo]) -> Option<String> {
        let all: Vec<&SnapshotInfo> = snapshots.iter().collect();
        let asked = [("--source", &self.source, sources(&all)), ("--host", &self.host, hosts(&all))];
        asked.into_iter().find_map(|(option, word, names)| {
            let word = word.as_ref().filter(|word| !names.is_empty() && !names.contains(word.as_str()))?;
            // People often use the last part of a path as its name.
            let same_end = |name: &&str| name.rsplit(['/', '\\']).next() == Some(word.as_str());
            let near = names.iter().copied().find(same_end).or_else(|| nearest(word, names.iter().copied()));
            Some(match near {
                Some(near) => format!("Did you mean {option} {}?", quoted(near)),
                None => format!("There is: {}", options(option, names)),
            })
        })
    }
}

fn hinted(failure: Failure, snapshots: &[SnapshotInfo], filter: &Filter) -> Failure {
    match filter.meant(snapshots) {
        _ if snapshots.is_empty() => failure.hint("Take one with: vault snapshot PATH"),
        Some(meant) => failure.hint(meant),
        None => failure.hint("See which there are with: vault list"),
    }
}

/// The snapshots right before and after a time, in words; `None` if there are none.
fn neighbours(snapshots: &[&SnapshotInfo], span: Span, zone: &TimeZone) -> Option<String> {
    let before = snapshots.iter().rfind(|info| info.date < span.from);
    let after = snapshots.iter().find(|info| info.date >= span.until);
    let said = [("before", before), ("after", after)];
    let said =
        said.into_iter().filter_map(|(word, info)| Some(format!("the next one {word} it is {}", named(info?, zone))));
    let said: Vec<String> = said.collect();
    let text = said.join("; ");
    (!text.is_empty()).then(|| format!("T{}. See all with: vault list", &text[1..]))
}

/// The purpose for which a snapshot is selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The snapshot is looked at, or written elsewhere.
    Read,
    /// The choice decides what is overwritten, deleted or forgotten, so nothing is guessed.
    Write,
    /// As [`Self::Write`], for a command whose options do not narrow the choice.
    Name,
}

/// The hint if an id is the only way to name the snapshot.
const BY_ID: &str = "Name it by its id. See which there are with: vault list";

/// The names by which this machine's snapshots are recognised.
struct Own {
    /// The machine's current name.
    host: String,
    /// The ids of the clients that this machine is or was.
    clients: BTreeSet<ClientId>,
}

impl Own {
    /// The names that a vault knows of this machine.
    fn of(vault: &Vault) -> Self {
        Self { host: vault.identity().host.clone(), clients: vault.own_clients() }
    }

    /// The snapshots with this machine's name; if there are none, those that this machine took under other names; if
    /// there are none either, all of them, with `false`.
    fn only<'a>(&self, all: Vec<&'a SnapshotInfo>) -> (Vec<&'a SnapshotInfo>, bool) {
        let of_name = |info: &&SnapshotInfo| info.body.host == self.host;
        let of_client = |info: &&SnapshotInfo| self.clients.contains(&info.client);
        for is_own in [&of_name as &dyn Fn(&&SnapshotInfo) -> bool, &of_client] {
            let own: Vec<_> = all.iter().copied().filter(|info| is_own(info)).collect();
            if !own.is_empty() {
                return (own, true);
            }
        }
        (all, false)
    }
}

/// The snapshots of this machine, or all of them if it has none; and whether they are its own.
pub fn of_this_machine<'a>(vault: &Vault, all: Vec<&'a SnapshotInfo>) -> (Vec<&'a SnapshotInfo>, bool) {
    Own::of(vault).only(all)
}

fn hosts<'a>(snapshots: &[&'a SnapshotInfo]) -> BTreeSet<&'a str> {
    snapshots.iter().map(|info| info.body.host.as_str()).collect()
}

fn sources<'a>(snapshots: &[&'a SnapshotInfo]) -> BTreeSet<&'a str> {
    snapshots.iter().map(|info| info.body.source.as_str()).collect()
}

/// An option with each of its possible values, up to a limit.
fn options(option: &str, names: BTreeSet<&str>) -> String {
    let shown: Vec<String> =
        names.iter().take(AMBIGUOUS_SHOWN).map(|name| format!("{option} {}", quoted(name))).collect();
    shown.join(", or ")
}

/// A snapshot in words: its id, date, source and host.
pub fn named(info: &SnapshotInfo, zone: &TimeZone) -> String {
    let (source, host) = (Shown(info.body.source.as_bytes()), Shown(info.body.host.as_bytes()));
    format!("{} of {} ({source} on {host})", info.id.short(), dates::shown(info.date, zone))
}

/// Whether a typed path is in one of the folders that a snapshot was taken of.
pub fn covers(info: &SnapshotInfo, typed: &[u8]) -> bool {
    info.covers(&inside(&info.body.roots, typed))
}

fn which(name: &str, zone: &TimeZone, now: Time) -> Result<Which, String> {
    if let Some(rest) = name.strip_prefix("latest") {
        let before = if rest.is_empty() { Some(0) } else { rest.strip_prefix('~').and_then(|n| n.parse().ok()) };
        return before
            .map(Which::Latest)
            .ok_or_else(|| format!("'{name}': write latest, or latest~1 for the one before"));
    }
    if dates::prefix_len(name.as_bytes()).is_some() {
        return dates::parse(name, zone).map(Which::Date);
    }
    let is_hex = !name.is_empty() && name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if (!is_hex || name.len() < ID_DIGITS_MIN)
        && let Some(span) = dates::parse_spoken(name, now, zone)
    {
        return Ok(Which::Date(span));
    }
    if is_hex {
        if name.len() < ID_DIGITS_MIN {
            return Err(format!("'{name}' is too short for an id: give {ID_DIGITS_MIN} digits or more"));
        }
        return Ok(Which::Id(name.to_ascii_lowercase()));
    }
    Err(format!(
        "'{name}' names no snapshot: write latest, latest~1, an id from vault list, or a date (2026-11-20, yesterday, 3d)"
    ))
}

fn ambiguous(prefix: &str, fitting: &[&SnapshotInfo], zone: &TimeZone) -> Failure {
    let mut what = format!("{prefix} is the start of {} ids:", fitting.len());
    for info in fitting.iter().take(AMBIGUOUS_SHOWN) {
        let (date, source) = (dates::shown(info.date, zone), Shown(info.body.source.as_bytes()));
        let _ = write!(what, "\n  {}  {date}  {source}", info.id);
    }
    if fitting.len() > AMBIGUOUS_SHOWN {
        what += "\n  ...";
    }
    Failure::new(what).hint("Give more digits.")
}

/// The path inside a snapshot for a typed path. It may be typed from the snapshot's top folder (`Documents/a`), or as
/// on the disk (`/home/me/Documents/a`) if one of the roots contains it.
pub fn inside(roots: &[Root], typed: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = components(typed).collect();
    let is_absolute = matches!(typed, [b'/', ..] | [b'A'..=b'Z' | b'a'..=b'z', b':', b'/', ..]);
    if is_absolute {
        let below = |root: &Root| {
            let of_root: Vec<&[u8]> = components(&root.path).collect();
            let holds = !root.path.is_empty() && parts.starts_with(&of_root);
            holds.then(|| (of_root.len(), root.name.clone()))
        };
        // Roots may contain one another; the deepest is nearest to the typed path.
        if let Some((depth, name)) = roots.iter().filter_map(below).max_by_key(|(depth, _)| *depth) {
            return std::iter::once(name.as_slice())
                .chain(parts[depth..].iter().copied())
                .collect::<Vec<_>>()
                .join(&b'/');
        }
    }
    parts.join(&b'/')
}

/// Snapshots for tests.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use super::{ClientId, ObjectName, SnapshotInfo, Time};
    use crate::tree::Snapshot;

    /// A snapshot for tests.
    pub fn info(id: [u8; 2], secs: i64, source: &str, host: &str) -> SnapshotInfo {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&id);
        let (id, client) = (ObjectName::new(bytes), ClientId::new([9; 16]));
        SnapshotInfo::new(
            id,
            client,
            1,
            Snapshot {
                time: Time { secs, nanos: 0 },
                source: source.into(),
                host: host.into(),
                user: "me".into(),
                files: 2000,
                folders: 3,
                bytes: 5 << 20,
                files_new: 1,
                files_changed: 2,
                files_unchanged: 1997,
                bytes_read: 1 << 20,
                bytes_new: 1 << 19,
                bytes_stored: 1 << 18,
                duration_ms: 1500,
                program: "vault 0".into(),
                ..crate::tree::snapshot::testing::empty()
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::testing::info;
    use super::*;

    /// 2026-11-29T00:00Z.
    const NOW: Time = Time { secs: NOV_20 + 9 * DAY, nanos: 0 };
    const DAY: i64 = 86_400;
    /// 2026-11-20T00:00Z.
    const NOV_20: i64 = 1_795_132_800;

    fn some() -> Vec<SnapshotInfo> {
        vec![
            info([0x1f, 0x2e], NOV_20 - DAY, "docs", "laptop"),
            info([0x1f, 0x2f], NOV_20 + 3600, "docs", "laptop"),
            info([0x20, 0x26], NOV_20 + 7200, "pics", "laptop"),
            info([0x3a, 0x00], NOV_20 + 7230, "docs", "desk"),
            info([0x4b, 0x00], NOV_20 + DAY, "docs", "laptop"),
        ]
    }

    fn own(host: &str) -> Own {
        Own { host: host.to_owned(), clients: BTreeSet::new() }
    }

    /// On a machine that took all of the snapshots, under several names.
    fn find(text: &str, filter: &Filter) -> Result<String, Failure> {
        let own = Own { host: "new".to_owned(), clients: BTreeSet::from([ClientId::new([9; 16])]) };
        let wanted = Wanted::parse(OsStr::new(text), &TimeZone::UTC, NOW)?;
        let some = some();
        let (info, note) = wanted.choose(&some, filter, &own, Aim::Read, &TimeZone::UTC)?;
        assert_eq!(note, None);
        Ok(info.id.to_string()[..4].to_owned())
    }

    #[test]
    fn latest_and_dates_mean_this_machine() {
        let choose = |text: &str, host: &str, aim: Aim, filter: &Filter| {
            let wanted = Wanted::parse(OsStr::new(text), &TimeZone::UTC, NOW).unwrap();
            let some = some();
            let found = wanted.choose(&some, filter, &own(host), aim, &TimeZone::UTC);
            found.map(|(info, note)| (info.id.to_string()[..4].to_owned(), note)).map_err(|failure| failure.hint)
        };
        let none = Filter::default();
        assert_eq!(choose("latest", "desk", Aim::Read, &none), Ok(("3a00".to_owned(), None)));
        assert_eq!(choose("latest", "desk", Aim::Write, &none), Ok(("3a00".to_owned(), None)));
        assert_eq!(choose("2026-11-20", "laptop", Aim::Read, &none), Ok(("2026".to_owned(), None)));
        // A machine without any snapshot: a read says whose the snapshot is, a write asks.
        let (id, note) = choose("latest", "new", Aim::Read, &none).unwrap();
        assert_eq!((id.as_str(), note.unwrap().contains("is one of laptop")), ("4b00", true));
        let hint = choose("latest", "new", Aim::Write, &none).unwrap_err().unwrap();
        assert!(hint.contains("--host desk, or --host laptop"), "{hint}");
        assert_eq!(choose("1f2e", "new", Aim::Write, &none).unwrap().0, "1f2e", "an id is an id");
        let other = Filter { host: Some("laptop".into()), source: Some("docs".into()) };
        assert_eq!(choose("latest", "desk", Aim::Write, &other), Ok(("4b00".to_owned(), None)));
    }

    #[test]
    fn what_is_written_is_of_one_source() {
        let choose = |text: &str, aim: Aim, source: Option<&str>| {
            let filter = Filter { host: None, source: source.map(str::to_owned) };
            let wanted = Wanted::parse(OsStr::new(text), &TimeZone::UTC, NOW).unwrap();
            let mut some = some();
            for (info, name) in some.iter_mut().zip(["docs", "docs", "pics", "docs", "docs"]) {
                let (name, path) = (name.as_bytes().to_vec(), [b"/home/me/", name.as_bytes()].concat());
                info.body.roots = vec![Root::new(name, path)];
            }
            let found = wanted.choose(&some, &filter, &own("laptop"), aim, &TimeZone::UTC);
            found
                .map(|(info, _)| info.id.to_string()[..4].to_owned())
                .map_err(|failure| failure.hint.unwrap_or_default())
        };
        assert_eq!(choose("latest", Aim::Read, None).unwrap(), "4b00");
        assert_eq!(choose("latest", Aim::Write, None).unwrap_err(), "Say which: --source docs, or --source pics");
        assert_eq!(choose("latest", Aim::Write, Some("pics")).unwrap(), "2026");
        // A path selects, too: the newest snapshot that covers it.
        assert_eq!(choose("latest:pics/a", Aim::Write, None).unwrap(), "2026");
        assert_eq!(choose("latest:/home/me/pics/a", Aim::Read, None).unwrap(), "2026");
        assert_eq!(choose("latest~1:docs", Aim::Read, None).unwrap(), "1f2f");
        assert_eq!(choose("latest:none", Aim::Read, None).unwrap(), "4b00");
    }

    #[test]
    fn snapshots_are_found_by_name() {
        for (text, expected) in [
            ("latest", "4b00"),
            ("latest~0", "4b00"),
            ("latest~4", "1f2e"),
            ("1f2e", "1f2e"),
            ("1F2E00", "1f2e"),
            ("2026", "2026"),
            ("2026-11-20", "3a00"),
            ("2026-11-21", "4b00"),
            ("2026-11-20T02:00", "3a00"), // the minute is not over at 02:00:30
            ("2026-11-20T02:00:29", "2026"),
            ("2026-11-20 01:30", "1f2f"),
            ("2027-01-01T00:00", "4b00"),
        ] {
            assert_eq!(find(text, &Filter::default()).ok().as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn an_id_that_a_snapshot_had_leads_to_it() {
        let mut some = some();
        let mut near = [0; 16];
        near[..3].copy_from_slice(&[0x3a, 0x00, 0x01]);
        some[1].replaced = vec![some[0].id, info([0x77, 0x01], 0, "docs", "laptop").id, ObjectName::new(near)];
        some.remove(0);
        let choose = |text: &str| {
            let wanted = Wanted::parse(OsStr::new(text), &TimeZone::UTC, NOW).unwrap();
            let found = wanted.choose(&some, &Filter::default(), &own("laptop"), Aim::Write, &TimeZone::UTC);
            found.map(|(info, note)| (info.id.to_string()[..4].to_owned(), note))
        };
        assert_eq!(choose("1f2f").unwrap(), ("1f2f".to_owned(), None));
        let (id, note) = choose("7701").unwrap();
        assert_eq!((id.as_str(), note.unwrap().as_str()), ("1f2f", "snapshot 7701 was changed, and is 1f2f0000 now"));
        assert_eq!(choose("1f2e").unwrap().0, "1f2f");
        // One snapshot has this id now, another one had it before.
        let unclear = choose("3a00").unwrap_err();
        assert!(unclear.what.contains("3a00"), "{unclear:?}");
        assert_eq!((choose("3a0000").unwrap().0, choose("3a0001").unwrap().0), ("3a00".to_owned(), "1f2f".to_owned()));
        assert!(choose("abcd").is_err());
    }

    #[test]
    fn a_filter_narrows_latest_and_dates_but_not_ids() {
        let filter = Filter { source: Some("docs".into()), host: Some("laptop".into()) };
        for (text, expected) in [("latest~1", "1f2f"), ("2026-11-20", "1f2f"), ("3a00", "3a00")] {
            assert_eq!(find(text, &filter).ok().as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_found_is_said_plainly() {
        let says = |text: &str| find(text, &Filter::default()).unwrap_err().what;
        assert!(says("latest~5").contains("do not go back so far"));
        assert!(says("abcd").contains("no snapshot abcd"));
        assert!(says("2026-11-22").contains("no snapshot of 2026-11-22"));
        assert!(says("2026-11-18T10:00").contains("from before"));
        assert!(says("abc").contains("too short"));
        assert!(says("newest").contains("names no snapshot"));
        assert!(says("latest~x").contains("latest~1"));
        assert!(says("2026-02-30").contains("not a date"));
        assert!(says("9y ago").contains("older than 9y") || find("9y ago", &Filter::default()).is_ok());
        let hint = |text: &str, source: Option<&str>| {
            let filter = Filter { source: source.map(str::to_owned), host: None };
            find(text, &filter).unwrap_err().hint.unwrap()
        };
        let nearest = hint("2026-11-22", None);
        assert!(nearest.starts_with("The next one before it is 4b000000 of 2026-11-21 00:00 (docs on"), "{nearest}");
        assert!(hint("2026-11-18", None).starts_with("The next one after it is 1f2e0000"));
        assert_eq!(hint("latest", Some("dosc")), "Did you mean --source docs?");
        assert_eq!(hint("latest", Some("x")), "There is: --source docs, or --source pics");
        let many = vec![info([0x1f, 0x2e], 0, "docs", "h"), info([0x1f, 0x2e], 1, "docs", "h")];
        let wanted = Wanted::parse(OsStr::new("1f2e"), &TimeZone::UTC, NOW).unwrap();
        let found = wanted.choose(&many, &Filter::default(), &own("h"), Aim::Read, &TimeZone::UTC);
        let failure = found.map(|_| ()).unwrap_err();
        assert!(failure.what.contains("start of 2 ids:\n  1f2e"), "{}", failure.what);
    }

    #[test]
    fn a_colon_begins_the_path() {
        let path = |text: &str| Wanted::parse(OsStr::new(text), &TimeZone::UTC, NOW).unwrap().path;
        assert_eq!(path("latest"), None);
        assert_eq!(path("latest:"), Some(vec![]));
        assert_eq!(path("latest:a:b"), Some(b"a:b".to_vec()));
        assert_eq!(path("2026-11-20T18:30:a"), Some(b"a".to_vec()));
        assert_eq!(path("2026-11-20T18:30"), None);
        assert_eq!(path("2026-11-20:18:30"), Some(b"18:30".to_vec()));
    }

    #[test]
    fn paths_are_taken_as_in_the_snapshot_or_as_on_the_disk() {
        let root = |name: &str, path: &str| Root::new(name.into(), path.into());
        let roots = [
            root("docs", "/home/me/docs"),
            root("old", "/home/me/docs/old"),
            root("db.sql", ""),
            root("win", "C:/Users/me"),
        ];
        for (typed, expected) in [
            ("", ""),
            ("docs//a/", "docs/a"),
            ("/docs/a", "docs/a"),
            ("/home/me/docs", "docs"),
            ("/home/me/docs/a/b", "docs/a/b"),
            ("/home/me/docs/old/b", "old/b"),
            ("/home/me/docs2", "home/me/docs2"),
            ("home/me/docs", "home/me/docs"),
            ("/db.sql", "db.sql"),
            ("C:/Users/me/a", "win/a"),
            ("C:/Users/you", "C:/Users/you"),
            ("C:a", "C:a"),
        ] {
            assert_eq!(inside(&roots, typed.as_bytes()), expected.as_bytes(), "{typed}");
        }
        assert_eq!(inside(&[root("root", "/")], b"/etc/x"), b"root/etc/x");
    }
}
