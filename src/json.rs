//! The JSON that `--json` prints, and that the page of `vault ui` gets. These shapes are stable: fields are added, never renamed or removed.
//!
//! | command | prints |
//! |---|---|
//! | `init` | `{vault, repo, delivery, recovery_key}` |
//! | `snapshot` | `{snapshot, dry_run, unchanged, skipped}`: [`SnapshotJson`] or null if none was made; a list of [`SkippedJson`] |
//! | `list` | `{vault, snapshots, damaged, late, findings}`: a list of [`SnapshotJson`], oldest first; `damaged` and `late` each `{snapshot, count, paths}`; findings as of `accept` |
//! | `ls` | one [`EntryJson`] in each line |
//! | `ls --skipped` | `{snapshot, skipped}`: the id, a list of [`SkippedJson`] |
//! | `ls --digest` | the same with `digest`; the first line is the folder itself |
//! | `cat` | the file itself |
//! | `ui` | `{address, vault, read_only}`, once the page can be opened |
//! | `find` | one `{path, versions}` in each line, each version `{kind, size, mtime, digest, snapshots, sources}`: ids, newest first; what they are of, each `{source, host}` |
//! | `history` | one `{snapshots, change, entry, source, host}` in each line, newest first |
//! | `why` | `{path, sources, snapshots}`: of each source that has the path `{source, taken, why, pattern, said}`, and how many snapshots hold it, the first and the last |
//! | `diff` | one `{path, change, fields, old, new}` in each line, at last `{summary, old, new}`: the sums, and the ids of the snapshots (`new`: null for the disk) |
//! | `du` | `{snapshot, since, path, bytes, files, folders, entries}` |
//! | `export` | `{snapshot, tar, files, folders, bytes, written, problem_count, problems}` |
//! | `import` | `{dry_run, items, passed_over}` |
//! | `man DIR` | `{folder, pages}` |
//! | `restore` | [`RestoreJson`] |
//! | `drill` | `{time, snapshots, files, bytes, verified, compared, broken, newer, late, failed, failures}`: `broken` folders cannot be read, `newer` things need a newer version of vault, `late` ones have not arrived yet; each failure `{path, what}` |
//! | `prune` | `{dry_run, snapshots, forgotten, packs_deleted, bytes_deleted, bytes_moved, bytes_stored, bytes_unused, packs_waiting, bytes_waiting, packs_unclaimed, bytes_unclaimed, waiting_for, held_up}` |
//! | `forget`, `pin`, `unpin` | `{snapshots, named}`: a list of ids; the same, each `{id, time, source, host}` |
//! | `tag add`, `tag remove`, `amend` | `{changed, unchanged, forgotten, broken}`: a list of `{id, replaces, time, source, host}`; ids; ids; as for `rewrite` |
//! | `rewrite` | `{dry_run, changed, snapshots, gone, whole, broken, bytes_stored}`: as for `amend`; ids; `{path, folder, files, bytes, snapshots}`; ids; `{snapshot, path, state, why}` |
//! | `client list` | `{clients}` |
//! | `client retire` | `{retired}` |
//! | `check` | `{damaged, snapshots, folders, files, packs, bytes, packs_read, bytes_read, packs_sampled, packs_unseen, chunks_lost, problems, hurt, findings, log, at_least, foreign, returned_slots, other_vaults, verified_since, never_verified, out_of_time}` |
//! | `accept` | `{findings}`, each `{id, about, what, since, snapshots, files, ends, code}`; with names also `accepted` |
//! | `repair` | `{dry_run, vault_file, key_slots_copied, records_found, records_lost, aside, catalogue_packs, packs, hurt, left, findings, snapshots_marked, moved_aside, bytes_stored, packs_left}` |
//! | `doctor` | `{well, findings}`, each `{level, about, text, command}` |
//! | `doctor ADDRESS` | `{place, fit, reads_back, reads_parts, exclusive, lists_puts, lists_deletions, deletes, round_trip_ms, bytes_per_s_up, bytes_per_s_down, clock_offset_s}` |
//! | `stats` | `{packs, bytes_packs, bytes_meta, records, bytes_records, bytes_raw, bytes_unique, bytes_needed, bytes_dead, bytes_unclaimed, bytes_shared, chunks, bytes_free, unreadable, late, sources, snapshots, growth}` |
//! | `mirror` | `{to, copied, bytes, there, mended, damaged, late, surplus, deleted}` |
//! | `promote` | `{promoted}` |
//! | `key list` | `{slots}`: a list of [`SlotJson`] |
//! | `key add`, `key passwd` | `{slot, recovery_key}` |
//! | `key remove` | `{removed, waiting}` |
//! | `delivery` | `{delivery, changed}` |
//! | `config`, `config init` | `{config, written, vaults, sources}`, each vault `{name, path, removable}`, each source `{name, paths, vaults, every_s}` |
//! | `config check` | `{config, mistakes, warnings}`, each mistake `{line, column, what}` |
//! | `run` | `{started, finished, verdict, exit_code, results, vaults, known, hooks}`: see `service/report.rs` |
//! | `schedule install`, `schedule status` | `{scheduler, installed, active, up_to_date, files, last_started, next_start, last_background_run, problem}` |
//! | `schedule remove` | `{removed}` |
//! | `version` | `{version, format, target, features}` |
//!
//! An error is `{error, hint, code}` on standard error, where `code` is the exit code; a warning is `{warning}`. Times
//! are RFC 3339 in UTC; sizes are in bytes. Names and paths are strings if they are UTF-8, otherwise
//! `{text, bytes}`: something to show, and the exact bytes in hexadecimal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::engine::keys::{SlotInfo, SlotState};
use crate::engine::query::diff::{Change, Difference, Sums, compare};
use crate::engine::query::find::{Match, Version};
use crate::engine::query::history::{self, Spell};
use crate::engine::restore::RestoreReport;
use crate::id::{ObjectName, TreeDigest};
use crate::seal::Purpose;
use crate::tree::{Entry, FileKind, Origin, Root, Skipped, Snapshot, Time, Verdict};
use crate::vault::findings::{About, KnownFinding};
use crate::vault::{SnapshotDamage, SnapshotInfo};

/// Bytes that are text, or nearly so.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a>(
    /// The bytes.
    pub &'a [u8],
);

#[derive(Serialize)]
struct NotText<'a> {
    text: &'a str,
    bytes: String,
}

impl Serialize for Name<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(self.0) {
            return serializer.serialize_str(text);
        }
        let mut bytes = String::with_capacity(self.0.len() * 2);
        for byte in self.0 {
            let _ = write!(bytes, "{byte:02x}");
        }
        NotText { text: &String::from_utf8_lossy(self.0), bytes }.serialize(serializer)
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: [u8; 16]) -> String {
    bytes.iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A time as RFC 3339 in UTC, with nanoseconds; a time outside the calendar as seconds since 1970, after `@`.
pub fn time_text(time: Time) -> String {
    let nanos = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    Timestamp::from_nanosecond(nanos).map_or_else(|_| format!("@{}", time.secs), |time| format!("{time:.9}"))
}

/// A time as RFC 3339 in UTC.
#[allow(clippy::trivially_copy_pass_by_ref)] // the signature is serde's
pub fn exact<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time_text(*time))
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Complete => "complete",
        Verdict::Partial => "partial",
    }
}

/// A path that was snapshotted.
#[derive(Serialize)]
pub struct RootJson<'a> {
    name: Name<'a>,
    /// Null for content from standard input or a command.
    path: Option<Name<'a>>,
    /// Whether it was empty, and had not been so before: its disk was probably not mounted.
    lost: bool,
}

/// Sizes of a snapshot, and costs of taking it.
#[derive(Default, Serialize)]
pub struct CountsJson {
    files: u64,
    folders: u64,
    bytes: u64,
    files_new: u64,
    files_changed: u64,
    files_unchanged: u64,
    bytes_read: u64,
    bytes_new: u64,
    bytes_stored: u64,
    duration_ms: u64,
}

impl From<&Snapshot> for CountsJson {
    fn from(body: &Snapshot) -> Self {
        Self {
            files: body.files,
            folders: body.folders,
            bytes: body.bytes,
            files_new: body.files_new,
            files_changed: body.files_changed,
            files_unchanged: body.files_unchanged,
            bytes_read: body.bytes_read,
            bytes_new: body.bytes_new,
            bytes_stored: body.bytes_stored,
            duration_ms: body.duration_ms,
        }
    }
}

/// A snapshot.
#[derive(Serialize)]
pub struct SnapshotJson<'a> {
    /// Null for a dry run.
    id: Option<String>,
    #[serde(serialize_with = "exact")]
    time: Time,
    source: &'a str,
    host: &'a str,
    user: &'a str,
    roots: Vec<RootJson<'a>>,
    #[serde(flatten)]
    counts: CountsJson,
    program: &'a str,
    tags: &'a [String],
    description: &'a str,
    /// `complete` or `partial`.
    verdict: &'static str,
    skipped: u64,
    /// Whether retention must keep it.
    pinned: bool,
    /// Whether the time was given, by `--time` or by an archive.
    given: bool,
    /// The time of the clock if that was wrong, so that `time` is an estimate; else null.
    clock: Option<String>,
    /// Its ids before `tag`, `amend` or `rewrite` changed it.
    replaces: Vec<String>,
    /// The original, if it was copied from another vault; else null.
    origin: Option<OriginJson>,
}

/// The original of a copied snapshot.
#[derive(Serialize)]
pub struct OriginJson {
    vault: String,
    snapshot: String,
    /// Whether some of it was damaged there when it was copied.
    partial: bool,
}

impl From<&Origin> for OriginJson {
    fn from(origin: &Origin) -> Self {
        let (vault, snapshot) = (origin.vault.to_string(), origin.snapshot.to_string());
        Self { vault, snapshot, partial: origin.partial }
    }
}

impl<'a> SnapshotJson<'a> {
    /// The snapshot of this id.
    pub fn new(id: Option<ObjectName>, body: &'a Snapshot) -> Self {
        let root = |root: &'a Root| RootJson {
            name: Name(&root.name),
            path: (!root.path.is_empty()).then_some(Name(&root.path)),
            lost: root.lost,
        };
        Self {
            id: id.map(|id| id.to_string()),
            time: body.time,
            source: &body.source,
            host: &body.host,
            user: &body.user,
            roots: body.roots.iter().map(root).collect(),
            counts: CountsJson::from(body),
            program: &body.program,
            tags: &body.tags,
            description: &body.description,
            verdict: verdict(body.verdict),
            skipped: body.skipped,
            pinned: false,
            given: body.given,
            clock: None,
            replaces: Vec::new(),
            origin: body.origin.as_ref().map(OriginJson::from),
        }
    }

    /// A snapshot as it is in the vault, among others.
    pub fn of(info: &'a SnapshotInfo) -> Self {
        Self {
            time: info.date,
            pinned: info.pinned,
            clock: info.is_outlier.then(|| time_text(info.body.time)),
            replaces: info.replaced.iter().map(ToString::to_string).collect(),
            ..Self::new(Some(info.id), &info.body)
        }
    }
}

/// A file that could not be saved properly.
#[derive(Serialize)]
pub struct SkippedJson<'a> {
    path: Name<'a>,
    why: &'a str,
    /// True if it is in the snapshot, but changed while it was read.
    stored: bool,
}

impl<'a> From<&'a Skipped> for SkippedJson<'a> {
    fn from(skipped: &'a Skipped) -> Self {
        Self { path: Name(&skipped.path), why: &skipped.why, stored: skipped.stored }
    }
}

/// A file in a snapshot.
#[derive(Serialize)]
pub struct EntryJson<'a> {
    path: Name<'a>,
    /// `file`, `directory`, `symlink`, `fifo`, `socket`, `char-device` or `block-device`.
    kind: &'static str,
    /// The mode's low twelve bits, octal.
    mode: String,
    uid: u32,
    gid: u32,
    user: Name<'a>,
    group: Name<'a>,
    #[serde(serialize_with = "exact")]
    mtime: Time,
    size: u64,
    /// Target of a symbolic link, else null.
    target: Option<Name<'a>>,
    /// Major and minor number of a device, else null.
    device: Option<(u32, u32)>,
    /// Whether the file changed while it was read.
    torn: bool,
    /// With `ls --digest`: the digest of the content, or of the folder with everything below it; null if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<serde_json::Value>,
}

impl<'a> EntryJson<'a> {
    /// The entry at this path.
    pub fn new(path: &'a [u8], entry: &'a Entry) -> Self {
        Self {
            path: Name(path),
            kind: kind(entry.kind),
            mode: format!("{:04o}", entry.mode),
            uid: entry.owner.uid,
            gid: entry.owner.gid,
            user: Name(&entry.owner.user),
            group: Name(&entry.owner.group),
            mtime: entry.mtime,
            size: entry.size,
            target: (entry.kind == FileKind::Symlink).then_some(Name(&entry.target)),
            device: entry.device,
            torn: entry.torn,
            digest: None,
        }
    }

    /// Adds the digest.
    #[must_use]
    pub fn with_digest(self, digest: Option<TreeDigest>) -> Self {
        Self { digest: Some(digest.map_or(serde_json::Value::Null, |digest| digest.to_string().into())), ..self }
    }
}

/// The word for a kind of file.
pub fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "char-device",
        FileKind::BlockDevice => "block-device",
    }
}

/// A file that could not be restored as it was.
#[derive(Serialize)]
pub struct ProblemJson<'a> {
    path: Name<'a>,
    what: &'a str,
    /// True if it is because of damage in the vault.
    damage: bool,
}

impl<'a> ProblemJson<'a> {
    /// The problem of a path, and whether damage causes it.
    pub const fn new(path: &'a [u8], what: &'a str, damage: bool) -> Self {
        Self { path: Name(path), what, damage }
    }
}

/// One path that a restore would change.
#[derive(Serialize)]
pub struct ChangeJson<'a> {
    /// `+`, `M` or `-`.
    change: &'static str,
    path: Name<'a>,
    folder: bool,
}

impl<'a> ChangeJson<'a> {
    /// The change of a path.
    pub const fn new(change: &'static str, path: &'a [u8], folder: bool) -> Self {
        Self { change, path: Name(path), folder }
    }
}

/// A file that a restore did not delete.
#[derive(Serialize)]
struct KeptJson<'a> {
    path: Name<'a>,
    why: &'static str,
}

/// Result of a restore.
#[derive(Serialize)]
pub struct RestoreJson<'a> {
    snapshot: String,
    #[serde(serialize_with = "exact")]
    time: Time,
    source: &'a str,
    host: &'a str,
    dry_run: bool,
    files: u64,
    folders: u64,
    bytes: u64,
    bytes_written: u64,
    files_unchanged: u64,
    files_kept: u64,
    files_verified: u64,
    deleted: u64,
    /// Newer files that stay as copies.
    copies: u64,
    /// Number of files that the snapshot does not have and that were not deleted.
    kept_count: u64,
    /// The first thousand.
    kept: Vec<KeptJson<'a>>,
    problem_count: u64,
    /// The first thousand.
    problems: Vec<ProblemJson<'a>>,
    /// Properties that a normal user may not set, and the number of files that have them.
    not_permitted: &'a BTreeMap<String, u64>,
}

impl<'a> RestoreJson<'a> {
    /// The report about this snapshot.
    pub fn new(info: &'a SnapshotInfo, dry_run: bool, report: &'a RestoreReport) -> Self {
        let problems = report.problems.iter();
        let kept = report.kept.iter();
        Self {
            snapshot: info.id.to_string(),
            time: info.date,
            source: &info.body.source,
            host: &info.body.host,
            dry_run,
            files: report.files,
            folders: report.folders,
            bytes: report.bytes,
            bytes_written: report.bytes_written,
            files_unchanged: report.files_unchanged,
            files_kept: report.files_kept,
            files_verified: report.files_verified,
            deleted: report.deleted,
            copies: report.copies,
            kept_count: report.kept_count,
            kept: kept.map(|kept| KeptJson { path: Name(&kept.path), why: kept.why.key() }).collect(),
            problem_count: report.problem_count,
            problems: problems.map(|p| ProblemJson { path: Name(&p.path), what: &p.what, damage: p.damage }).collect(),
            not_permitted: &report.not_permitted,
        }
    }
}

/// The output of `vault list`.
#[derive(Serialize)]
pub struct ListJson<'a> {
    vault: String,
    /// Oldest first.
    snapshots: Vec<SnapshotJson<'a>>,
    damaged: Vec<DamagedJson<'a>>,
    /// Snapshots of which files have not arrived yet, by the last check on this machine.
    late: Vec<DamagedJson<'a>>,
    findings: Vec<FindingJson>,
}

/// A snapshot with losses, as far as they are recorded, or with files that have not arrived yet.
#[derive(Serialize)]
struct DamagedJson<'a> {
    snapshot: String,
    count: u64,
    /// The first ones.
    paths: Vec<Name<'a>>,
}

impl<'a> ListJson<'a> {
    /// These snapshots of a vault, the losses of those among them, what of them has not arrived yet, and the known
    /// findings.
    pub fn new(
        vault: String,
        snapshots: &'a [SnapshotInfo],
        damage: &'a BTreeMap<ObjectName, SnapshotDamage>,
        late: &'a BTreeMap<ObjectName, SnapshotDamage>,
        findings: &[KnownFinding],
    ) -> Self {
        let lacking = |(id, lacking): (&ObjectName, &'a SnapshotDamage)| DamagedJson {
            snapshot: id.to_string(),
            count: lacking.count,
            paths: lacking.files.iter().map(|(path, _)| Name(shown_path(path))).collect(),
        };
        Self {
            vault,
            snapshots: snapshots.iter().map(SnapshotJson::of).collect(),
            damaged: damage.iter().map(lacking).collect(),
            late: late.iter().map(lacking).collect(),
            findings: findings.iter().map(FindingJson::new).collect(),
        }
    }
}

/// The path of a snapshot's top folder is empty, and shown as a slash.
pub fn shown_path(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"/" } else { path }
}

/// A finding.
#[derive(Serialize)]
pub struct FindingJson {
    id: String,
    /// `object`, `records`, `files`, `unexamined`, `late`, `source`, `slot`, `vault`, `change`, `clocks` or `note`.
    about: &'static str,
    what: String,
    #[serde(serialize_with = "exact")]
    since: Time,
    snapshots: u64,
    files: u64,
    ends: &'static str,
    code: u8,
}

impl FindingJson {
    /// The finding as it is shown.
    pub fn new(finding: &KnownFinding) -> Self {
        Self {
            id: finding.id.to_string(),
            about: match finding.about {
                About::Object { .. } => "object",
                About::Records { .. } => "records",
                About::Files { .. } => "files",
                About::Unexamined { .. } => "unexamined",
                About::Late { .. } => "late",
                About::Source { .. } => "source",
                About::Slot(_) => "slot",
                About::OtherVault(_) => "vault",
                About::Change { .. } => "change",
                About::Clocks { .. } => "clocks",
                About::Note(_) => "note",
            },
            what: finding.text(),
            since: finding.since,
            snapshots: finding.snapshots,
            files: finding.files,
            ends: finding.ends(),
            code: finding.exit() as u8,
        }
    }
}

/// A version of a path that was found.
#[derive(Serialize)]
struct VersionJson<'a> {
    kind: &'static str,
    size: u64,
    #[serde(serialize_with = "exact")]
    mtime: Time,
    /// Null for a folder.
    digest: Option<String>,
    /// Newest first.
    snapshots: Vec<String>,
    /// Sources of these snapshots.
    sources: Vec<SourceJson<'a>>,
}

/// Source and host of a snapshot.
#[derive(Serialize)]
struct SourceJson<'a> {
    source: &'a str,
    host: &'a str,
}

/// A path that was found.
#[derive(Serialize)]
pub struct MatchJson<'a> {
    path: Name<'a>,
    versions: Vec<VersionJson<'a>>,
}

impl<'a> MatchJson<'a> {
    /// The versions that were found in these snapshots.
    pub fn new(found: &'a Match, snapshots: &[&'a SnapshotInfo]) -> Self {
        let ids = |version: &Version| version.snapshots.iter().map(|at| snapshots[*at].id.to_string()).collect();
        let sources = |version: &Version| {
            let of = version.snapshots.iter().map(|at| &snapshots[*at].body);
            let of: BTreeSet<(&str, &str)> = of.map(|body| (body.source.as_str(), body.host.as_str())).collect();
            of.into_iter().map(|(source, host)| SourceJson { source, host }).collect()
        };
        let versions = found.versions.iter().map(|version| VersionJson {
            kind: kind(version.kind),
            size: version.size,
            mtime: version.mtime,
            digest: version.digest.map(|digest| digest.to_string()),
            snapshots: ids(version),
            sources: sources(version),
        });
        Self { path: Name(&found.path), versions: versions.collect() }
    }
}

/// A version of a path over a run of snapshots.
#[derive(Serialize)]
pub struct SpellJson<'a> {
    /// Newest first.
    snapshots: Vec<String>,
    /// The change since the version before: `new`, `content`, `metadata`, `kind`, `same` or `gone`; or the reason why
    /// the path is absent although it may still exist: `left_out`, `unread`, `not_mounted`, `unknown`.
    change: &'static str,
    /// Null if the path is absent.
    entry: Option<EntryJson<'a>>,
    source: &'a str,
    host: &'a str,
}

impl<'a> SpellJson<'a> {
    /// The versions of a path in these snapshots of one source, newest first.
    pub fn all(path: &'a [u8], spells: &'a [Spell], snapshots: &[&'a SnapshotInfo]) -> Vec<Self> {
        let of = |(at, spell): (usize, &'a Spell)| {
            let first = spell.snapshots.first().map(|at| &snapshots[*at].body);
            Self {
                snapshots: spell.snapshots.iter().map(|at| snapshots[*at].id.to_string()).collect(),
                change: change_of(history::before(spells, at), spell).0,
                entry: spell.entry.as_ref().map(|entry| EntryJson::new(path, entry)),
                source: first.map_or("", |body| &body.source),
                host: first.map_or("", |body| &body.host),
            }
        };
        spells.iter().enumerate().map(of).collect()
    }
}

/// The change since the version before: its word, and the fields that differ.
pub fn change_of(before: Option<&Spell>, now: &Spell) -> (&'static str, Vec<&'static str>) {
    match (before.and_then(|spell| spell.entry.as_ref()), now.entry.as_ref()) {
        (_, None) => (now.absence.key(), Vec::new()),
        (None, Some(_)) => ("new", Vec::new()),
        (Some(old), Some(new)) => match compare(old, new) {
            Some((Change::Kind, _)) => ("kind", Vec::new()),
            Some((Change::Metadata, fields)) if old.content == new.content => ("metadata", fields),
            None if old.content == new.content => ("same", Vec::new()),
            _ => ("content", Vec::new()),
        },
    }
}

/// The last line of the output of `vault diff`.
#[derive(Serialize)]
pub struct SumsJson<'a> {
    /// Sums of the differences.
    pub summary: &'a Sums,
    /// The first of the two compared snapshots.
    pub old: String,
    /// The second one; null for the disk.
    pub new: Option<String>,
}

/// A path that differs.
#[derive(Serialize)]
pub struct DifferenceJson<'a> {
    path: Name<'a>,
    /// `added`, `removed`, `content`, `metadata` or `kind`; or the reason why only one has it, with everything in it:
    /// `left_out`, `unread`, `not_mounted`.
    change: &'static str,
    /// Names of the fields that differ.
    fields: &'a [&'static str],
    old: Option<EntryJson<'a>>,
    new: Option<EntryJson<'a>>,
}

impl<'a> DifferenceJson<'a> {
    /// The difference of a path.
    pub fn new(difference: &'a Difference) -> Self {
        let entry = |entry: &'a Option<Entry>| entry.as_ref().map(|entry| EntryJson::new(&difference.path, entry));
        Self {
            path: Name(&difference.path),
            change: match difference.change {
                Change::Added => "added",
                Change::Removed => "removed",
                Change::Content => "content",
                Change::Metadata => "metadata",
                Change::Kind => "kind",
                Change::Omitted(absence) => absence.key(),
            },
            fields: &difference.fields,
            old: entry(&difference.old),
            new: entry(&difference.new),
        }
    }
}

/// The slots that `vault key list` prints.
#[derive(Serialize)]
pub struct SlotsJson<'a> {
    slots: Vec<SlotJson<'a>>,
}

impl<'a> SlotsJson<'a> {
    /// All slots of a vault.
    pub fn new(slots: &'a [SlotInfo]) -> Self {
        Self { slots: slots.iter().map(SlotJson::new).collect() }
    }
}

/// The word for the purpose of a slot.
pub const fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Password => "password",
        Purpose::Recovery => "recovery",
        Purpose::Device => "device",
    }
}

/// A key slot.
#[derive(Serialize)]
pub struct SlotJson<'a> {
    id: String,
    /// `password`, `recovery` or `device`.
    purpose: &'static str,
    label: &'a str,
    #[serde(serialize_with = "exact")]
    created: Time,
    /// Number of its whole copies; there should be two.
    copies: u64,
    /// `valid`, `pending` (no record mentions it), `removed` (but still there) or `missing`.
    state: &'static str,
}

impl<'a> SlotJson<'a> {
    /// The slot.
    pub fn new(slot: &'a SlotInfo) -> Self {
        Self {
            id: slot.id.to_string(),
            purpose: purpose(slot.purpose),
            label: &slot.label,
            created: Time { secs: i64::try_from(slot.created).unwrap_or(i64::MAX), nanos: 0 },
            copies: slot.copies,
            state: match slot.state {
                SlotState::Valid => "valid",
                SlotState::Pending => "pending",
                SlotState::Removed => "removed",
                SlotState::Missing => "missing",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_exact_bytes() {
        let json = |name: &[u8]| serde_json::to_string(&Name(name)).unwrap();
        assert_eq!(json("dé\n".as_bytes()), "\"dé\\n\"");
        assert_eq!(json(b"a\xff"), "{\"text\":\"a\u{fffd}\",\"bytes\":\"61ff\"}");
    }

    #[test]
    fn entries_have_a_stable_shape() {
        let mut entry = Entry::new(*b"link", FileKind::Symlink);
        entry.mode = 0o777;
        entry.target = b"../x".to_vec();
        let json = serde_json::to_string(&EntryJson::new(b"a/link", &entry)).unwrap();
        let expected = "{\"path\":\"a/link\",\"kind\":\"symlink\",\"mode\":\"0777\",\"uid\":0,\"gid\":0,\"user\":\"\",\
             \"group\":\"\",\"mtime\":\"1970-01-01T00:00:00.000000000Z\",\"size\":0,\"target\":\"../x\",\"device\":null,\
             \"torn\":false}";
        assert_eq!(json, expected);
    }
}
