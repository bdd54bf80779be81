//! Which snapshot is meant: `latest~2`, the start of an id, a date; and the path inside it.

use std::ffi::OsStr;
use std::fmt::Write;

use jiff::tz::TimeZone;
use vault::path::Shown;
use vault::path::components;
use vault::tree::Root;
use vault::vault::SnapshotInfo;

use crate::cli::args::FilterArgs;
use crate::cli::dates;
use crate::cli::dates::Span;
use crate::cli::error::Failure;
use crate::cli::roots::bytes_of;

/// Fewest digits of an id that are taken for one.
pub const ID_DIGITS_MIN: usize = 4;
/// How many snapshots are listed where an id is ambiguous.
const AMBIGUOUS_SHOWN: usize = 10;

/// How a snapshot was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// So many before the last one.
    Latest(usize),
    /// The start of an id, lower case.
    Id(String),
    /// A date, or a date and time.
    Date(Span),
}

/// A snapshot, and perhaps a path inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The snapshot, as it was typed.
    text: String,
    which: Which,
    /// The path as it was typed; `None` if there was no colon.
    pub path: Option<Vec<u8>>,
}

impl Wanted {
    /// Reads `SNAPSHOT[:PATH]`.
    pub fn parse(text: &OsStr, zone: &TimeZone) -> Result<Self, Failure> {
        let bytes = bytes_of(text);
        let name_len = dates::prefix_len(&bytes).filter(|&len| matches!(bytes.get(len), None | Some(b':')));
        let name_len = name_len.or_else(|| bytes.iter().position(|&byte| byte == b':')).unwrap_or(bytes.len());
        let name = Shown(&bytes[..name_len]).to_string();
        let which = which(&name, zone).map_err(Failure::usage)?;
        Ok(Self { text: name, which, path: bytes.get(name_len + 1..).map(<[u8]>::to_vec) })
    }

    /// Finds the snapshot among these, oldest first. The filter narrows what `latest` and dates mean; an id is an id.
    pub fn find<'a>(
        &self,
        snapshots: &'a [SnapshotInfo],
        filter: &FilterArgs,
        zone: &TimeZone,
    ) -> Result<&'a SnapshotInfo, Failure> {
        let mut newest_first = snapshots.iter().rev().filter(|info| matches(info, filter));
        let found = match &self.which {
            Which::Latest(before) => newest_first.nth(*before),
            Which::Date(span) => {
                newest_first.find(|info| info.body.time < span.until && (!span.day || info.body.time >= span.from))
            }
            Which::Id(prefix) => {
                let fitting: Vec<_> = snapshots.iter().filter(|info| info.id.to_string().starts_with(prefix)).collect();
                if fitting.len() > 1 {
                    return Err(ambiguous(prefix, &fitting, zone));
                }
                fitting.first().copied()
            }
        };
        found.ok_or_else(|| self.not_found(snapshots, filter))
    }

    fn not_found(&self, snapshots: &[SnapshotInfo], filter: &FilterArgs) -> Failure {
        let of = [("source", &filter.source), ("host", &filter.host)];
        let of = of.iter().filter_map(|(what, name)| name.as_ref().map(|name| format!(" of {what} {name}")));
        let of: String = of.collect();
        let failure = match &self.which {
            _ if snapshots.is_empty() => Failure::new("there is no snapshot in this vault yet"),
            Which::Id(prefix) => Failure::new(format!("there is no snapshot {prefix}")),
            _ if !snapshots.iter().any(|info| matches(info, filter)) => {
                Failure::new(format!("there is no snapshot{of}"))
            }
            Which::Latest(_) => {
                Failure::new(format!("there is no {}{of}: the snapshots do not go back so far", self.text))
            }
            Which::Date(span) if span.day => Failure::new(format!("there is no snapshot{of} of {}", self.text)),
            Which::Date(_) => Failure::new(format!("there is no snapshot{of} from before {}", self.text)),
        };
        failure.hint(if snapshots.is_empty() {
            "Take one with: vault snapshot PATH"
        } else {
            "See which there are with: vault list"
        })
    }
}

/// Whether a snapshot is of the source and host that were asked for.
pub fn matches(info: &SnapshotInfo, filter: &FilterArgs) -> bool {
    filter.source.as_ref().is_none_or(|source| *source == info.body.source)
        && filter.host.as_ref().is_none_or(|host| *host == info.body.host)
}

fn which(name: &str, zone: &TimeZone) -> Result<Which, String> {
    if let Some(rest) = name.strip_prefix("latest") {
        let before = if rest.is_empty() { Some(0) } else { rest.strip_prefix('~').and_then(|n| n.parse().ok()) };
        return before
            .map(Which::Latest)
            .ok_or_else(|| format!("'{name}': write latest, or latest~1 for the one before"));
    }
    if dates::prefix_len(name.as_bytes()).is_some() {
        return dates::parse(name, zone).map(Which::Date);
    }
    if !name.is_empty() && name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        if name.len() < ID_DIGITS_MIN {
            return Err(format!("'{name}' is too short for an id: give {ID_DIGITS_MIN} digits or more"));
        }
        return Ok(Which::Id(name.to_ascii_lowercase()));
    }
    Err(format!("'{name}' names no snapshot: write latest, latest~1, an id from vault list, or a date (2026-11-20)"))
}

fn ambiguous(prefix: &str, fitting: &[&SnapshotInfo], zone: &TimeZone) -> Failure {
    let mut what = format!("{prefix} is the start of {} ids:", fitting.len());
    for info in fitting.iter().take(AMBIGUOUS_SHOWN) {
        let (date, source) = (dates::shown(info.body.time, zone), Shown(info.body.source.as_bytes()));
        let _ = write!(what, "\n  {}  {date}  {source}", info.id);
    }
    if fitting.len() > AMBIGUOUS_SHOWN {
        what += "\n  ...";
    }
    Failure::new(what).hint("Give more digits.")
}

/// A path inside a snapshot as it may be typed: below the top folder (`Documents/a`), or as it is on the disk
/// (`/home/me/Documents/a`) if one of the roots holds it.
pub fn inside(roots: &[Root], typed: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = components(typed).collect();
    let is_absolute = matches!(typed, [b'/', ..] | [b'A'..=b'Z' | b'a'..=b'z', b':', b'/', ..]);
    if is_absolute {
        let below = |root: &Root| {
            let of_root: Vec<&[u8]> = components(&root.path).collect();
            let holds = !root.path.is_empty() && parts.starts_with(&of_root);
            holds.then(|| (of_root.len(), root.name.clone()))
        };
        // Roots may lie in each other: the deepest is nearest to what was typed.
        if let Some((depth, name)) = roots.iter().filter_map(below).max_by_key(|(depth, _)| *depth) {
            return std::iter::once(name.as_slice())
                .chain(parts[depth..].iter().copied())
                .collect::<Vec<_>>()
                .join(&b'/');
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
pub mod tests {
    use vault::id::ClientId;
    use vault::id::ObjectName;
    use vault::tree::Snapshot;
    use vault::tree::Stream;
    use vault::tree::Time;
    use vault::tree::Verdict;

    use super::*;

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
                roots: Vec::new(),
                tree: Stream::EMPTY,
                links: Stream::EMPTY,
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
                tags: Vec::new(),
                description: String::new(),
                verdict: Verdict::Complete,
                skipped: 0,
                skipped_list: Stream::EMPTY,
                given: false,
                rules: Stream::EMPTY,
                replaces: Vec::new(),
            },
        )
    }

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

    fn find(text: &str, filter: &FilterArgs) -> Result<String, Failure> {
        let wanted = Wanted::parse(OsStr::new(text), &TimeZone::UTC)?;
        wanted.find(&some(), filter, &TimeZone::UTC).map(|info| info.id.to_string()[..4].to_owned())
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
            assert_eq!(find(text, &FilterArgs::default()).ok().as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_filter_narrows_latest_and_dates_but_not_ids() {
        let filter = FilterArgs { source: Some("docs".into()), host: Some("laptop".into()) };
        for (text, expected) in [("latest~1", "1f2f"), ("2026-11-20", "1f2f"), ("3a00", "3a00")] {
            assert_eq!(find(text, &filter).ok().as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_found_is_said_plainly() {
        let says = |text: &str| find(text, &FilterArgs::default()).unwrap_err().what;
        assert!(says("latest~5").contains("do not go back so far"));
        assert!(says("abcd").contains("no snapshot abcd"));
        assert!(says("2026-11-22").contains("no snapshot of 2026-11-22"));
        assert!(says("2026-11-18T10:00").contains("from before"));
        assert!(says("abc").contains("too short"));
        assert!(says("newest").contains("names no snapshot"));
        assert!(says("latest~x").contains("latest~1"));
        assert!(says("2026-02-30").contains("not a date"));
        let many = vec![info([0x1f, 0x2e], 0, "docs", "h"), info([0x1f, 0x2e], 1, "docs", "h")];
        let wanted = Wanted::parse(OsStr::new("1f2e"), &TimeZone::UTC).unwrap();
        let failure = wanted.find(&many, &FilterArgs::default(), &TimeZone::UTC).unwrap_err();
        assert!(failure.what.contains("start of 2 ids:\n  1f2e"), "{}", failure.what);
    }

    #[test]
    fn a_colon_begins_the_path() {
        let path = |text: &str| Wanted::parse(OsStr::new(text), &TimeZone::UTC).unwrap().path;
        assert_eq!(path("latest"), None);
        assert_eq!(path("latest:"), Some(vec![]));
        assert_eq!(path("latest:a:b"), Some(b"a:b".to_vec()));
        assert_eq!(path("2026-11-20T18:30:a"), Some(b"a".to_vec()));
        assert_eq!(path("2026-11-20T18:30"), None);
        assert_eq!(path("2026-11-20:18:30"), Some(b"18:30".to_vec()));
    }

    #[test]
    fn paths_are_taken_as_in_the_snapshot_or_as_on_the_disk() {
        let root = |name: &str, path: &str| Root { name: name.into(), path: path.into(), lost: false };
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
