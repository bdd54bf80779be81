//! `vault ls` and `vault cat`.

use crate::engine::query::browse;
use crate::engine::query::digest::Digests;
use crate::engine::query::index::Index;
use crate::id::TreeDigest;
use crate::path::Shown;
use crate::tree::Entry;
use crate::tree::FileKind;
use crate::tree::digest::content_digest;
use crate::vault::ReadError;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::cli::args::CatArgs;
use crate::cli::args::LsArgs;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::exit_of_unread;
use crate::cli::output::Output;
use crate::cli::select;
use crate::cli::select::Aim;
use crate::cli::select::Spot;
use crate::cli::table;
use crate::cli::units;
use crate::json::EntryJson;
use crate::json::SkippedJson;

/// Runs `vault ls`.
pub(super) fn ls(context: &Context, args: &LsArgs) -> Result<Exit, Failure> {
    let wanted = select::parse(context, &args.snapshot)?;
    let vault = context.open_to_read()?;
    let snapshots = vault.snapshots();
    let spot = select::spot(context, &vault, &snapshots, &args.filter, &wanted, Aim::Read)?;
    let info = &spot.info;
    let mut out = Output::new();
    if args.skipped {
        skipped(context, args, &vault, info, &mut out)?;
        return out.finish().map(|()| Exit::Done);
    }
    let digests = if args.digest { Some(digests(context, &vault, &spot, &mut out)?) } else { None };
    let mut damaged = false;
    // Writing to standard output may fail at any line. This ends the listing, but is not a failure of the listing
    // itself.
    let mut failed = None;
    let listed = browse::list(&vault, info, &spot.path, args.recursive, &mut |path, entry| {
        let printed = if args.print0 {
            out.bytes(if args.recursive { path } else { &entry.name }).and_then(|()| out.bytes(b"\0"))
        } else {
            let digest = digests.as_ref().map(|digests| Known(digest_of(digests, entry)));
            damaged = damaged || digest.as_ref().is_some_and(|digest| digest.0.is_none());
            print(context, args, path, entry, digest, &mut out)
        };
        failed = printed.err();
        failed.is_none() && !out.is_closed()
    });
    match (failed, listed) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(spot.failure(error)),
        (None, Ok(())) => out.finish().map(|()| match digests.map(|digests| exit_of_unread(&digests.broken)) {
            _ if !damaged => Exit::Done,
            None | Some(Exit::Done) => Exit::Damage,
            Some(exit) => exit,
        }),
    }
}

/// A requested digest; `None` if something below the entry cannot be read.
struct Known(Option<TreeDigest>);

/// Prints an entry, with its digest if one is requested.
fn print(
    context: &Context,
    args: &LsArgs,
    path: &[u8],
    entry: &Entry,
    digest: Option<Known>,
    out: &mut Output,
) -> Result<(), Failure> {
    if context.global.json {
        let json = EntryJson::new(path, entry);
        return out.json(&match digest {
            Some(Known(digest)) => json.with_digest(digest),
            None => json,
        });
    }
    let name = if args.recursive { path } else { &entry.name };
    let shown = if args.long { long(name, entry, &context.zone) } else { short(name, entry) };
    match digest {
        Some(Known(digest)) => {
            out.line(format_args!("{}  {shown}", digest.map_or_else(|| "?".repeat(32), |digest| digest.to_string())))
        }
        None => out.line(shown),
    }
}

/// The digests of all folders below a path. Prints the digest of the folder itself, because it is not in its own
/// listing.
fn digests(context: &Context, vault: &Vault, spot: &Spot<'_>, out: &mut Output) -> Result<Digests, Failure> {
    let mut entry = spot.entry()?;
    let listing = entry.content.iter().filter(|_| entry.kind == FileKind::Directory).cloned();
    let listings: Vec<_> = listing.collect();
    let index = Index::looking_again(vault)?;
    let mut digests = Digests::of(&index, &listings, context.threads(), &context.screen)?;
    let of = std::iter::once((spot.info.id, vault.may_be_late([spot.info.id])));
    digests.broken = digests.broken.drain(..).map(|error| index.judged(error, of.clone())).collect();
    if let Some(gone) = digests.broken.iter().find_map(ReadError::gone) {
        return Err(gone.into());
    }
    index.finish(None)?;
    context.screen.clear();
    if entry.kind == FileKind::Directory {
        let digest = digest_of(&digests, &entry);
        if context.global.json {
            entry.name.clear();
            out.json(&EntryJson::new(&spot.path, &entry).with_digest(digest))?;
        } else {
            out.line(format_args!("{}  .", digest.map_or_else(|| "?".repeat(32), |digest| digest.to_string())))?;
        }
    }
    Ok(digests)
}

fn digest_of(digests: &Digests, entry: &Entry) -> Option<TreeDigest> {
    match &entry.content {
        Some(listing) if entry.kind == FileKind::Directory => digests.get(listing),
        _ => content_digest(entry).ok(),
    }
}

#[derive(Serialize)]
struct SkippedListJson<'a> {
    snapshot: String,
    skipped: Vec<SkippedJson<'a>>,
}

fn skipped(
    context: &Context,
    args: &LsArgs,
    vault: &Vault,
    info: &SnapshotInfo,
    out: &mut Output,
) -> Result<(), Failure> {
    let list = browse::skipped(vault, info)?;
    if context.global.json {
        let skipped = list.iter().map(SkippedJson::from).collect();
        return out.json(&SkippedListJson { snapshot: info.id.to_string(), skipped });
    }
    for skipped in &list {
        if args.print0 {
            out.bytes(&skipped.path)?;
            out.bytes(b"\0")?;
        } else {
            let stored = if skipped.stored { " (it is stored nevertheless)" } else { "" };
            out.line(format_args!("{skipped}{stored}"))?;
        }
    }
    if list.is_empty() && !args.print0 && !context.global.quiet {
        out.say(format_args!("Nothing was skipped in snapshot {}.", info.id.short()))?;
    }
    Ok(())
}

/// Runs `vault cat`.
pub(super) fn cat(context: &Context, args: &CatArgs) -> Result<Exit, Failure> {
    let wanted = select::parse(context, &args.snapshot)?;
    if wanted.path.is_none() {
        return Err(Failure::usage("which file?").hint("Give the path after a colon: vault cat latest:PATH"));
    }
    let vault = context.open_to_read()?;
    let snapshots = vault.snapshots();
    let spot = select::spot(context, &vault, &snapshots, &args.filter, &wanted, Aim::Read)?;
    let mut out = Output::new();
    let written = browse::cat(&vault, &spot.info, &spot.path, out.writer(), &context.screen);
    written.map_err(|error| spot.failure(error))?;
    out.finish().map(|()| Exit::Done)
}

/// The name, with `/` after the name of a folder.
fn short(name: &[u8], entry: &Entry) -> String {
    format!("{}{}", Shown(name), if entry.kind == FileKind::Directory { "/" } else { "" })
}

/// Mode, owner, size (or device numbers), time, name and target. The columns have fixed widths, because the listing is
/// printed while it is read.
fn long(name: &[u8], entry: &Entry, zone: &TimeZone) -> String {
    let owner = |name: &[u8], id: u32| if name.is_empty() { id.to_string() } else { Shown(name).to_string() };
    let pad = |text: String, to: usize| format!("{text}{}", " ".repeat(to.saturating_sub(table::width(&text))));
    let size = match entry.device {
        Some((major, minor)) => format!("{major}, {minor}"),
        None if entry.kind == FileKind::File => units::size(entry.size),
        None => "-".to_owned(),
    };
    let target = if entry.kind == FileKind::Symlink { format!(" -> {}", Shown(&entry.target)) } else { String::new() };
    format!(
        "{}  {}  {}  {size:>10}  {}  {}{target}",
        mode(entry),
        pad(owner(&entry.owner.user, entry.owner.uid), 8),
        pad(owner(&entry.owner.group, entry.owner.gid), 8),
        dates::shown(entry.mtime, zone),
        short(name, entry),
    )
}

/// The kind and the permissions, as `-rwxr-xr-x`.
fn mode(entry: &Entry) -> String {
    let kind = match entry.kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = entry.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (entry.mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::tree::Owner;
    use crate::tree::Time;

    use super::*;

    #[test]
    fn modes_are_shown_as_everywhere() {
        for (kind, bits, expected) in [
            (FileKind::File, 0o644, "-rw-r--r--"),
            (FileKind::File, 0o4755, "-rwsr-xr-x"),
            (FileKind::Directory, 0o1777, "drwxrwxrwt"),
            (FileKind::Fifo, 0o7000, "p--S--S--T"),
        ] {
            let mut entry = Entry::new(*b"a", kind);
            entry.mode = bits;
            assert_eq!(mode(&entry), expected);
        }
    }

    #[test]
    fn long_lines_say_all() {
        let mut entry = Entry::new(*b"li\nk", FileKind::Symlink);
        entry.mode = 0o777;
        entry.mtime = Time { secs: 1_795_132_800, nanos: 0 };
        entry.owner = Owner { uid: 1000, gid: 5, user: b"me".to_vec(), group: Vec::new() };
        entry.target = b"../x\x1b".to_vec();
        let expected = "lrwxrwxrwx  me        5                  -  2026-11-20 00:00  a/li\\nk -> ../x\\x1b";
        assert_eq!(long(b"a/li\nk", &entry, &TimeZone::UTC), expected);
    }
}
