//! The selection of snapshots for commands ([`crate::service::select`]). It also remembers the names seen for
//! completion, and makes missing records decide the exit code.

use std::ffi::OsStr;
use std::ffi::OsString;

use crate::progress::Progress;
pub(super) use crate::service::select::*;
pub(super) use crate::service::spot::Spot;
use crate::vault::SnapshotInfo;
use crate::vault::Vault;

use crate::cli::args::FilterArgs;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Failure;
use crate::cli::offer;

impl From<&FilterArgs> for Filter {
    fn from(args: &FilterArgs) -> Self {
        Self { source: args.source.clone(), host: args.host.clone() }
    }
}

/// Reads `SNAPSHOT[:PATH]`.
pub(super) fn parse(context: &Context, text: &OsStr) -> Result<Wanted, Failure> {
    Wanted::parse(text, &context.zone, dates::now())
}

/// The snapshots in which a name is looked up.
pub(super) fn among<'a>(
    context: &'a Context,
    vault: &'a Vault,
    snapshots: &'a [SnapshotInfo],
    filter: impl Into<Filter>,
) -> Among<'a> {
    offer::note_snapshots(vault, snapshots, &context.zone);
    Among { vault, snapshots, filter: filter.into(), zone: &context.zone }
}

/// The snapshot found, after its least exit code is passed to the context.
pub(super) fn ending<T>(context: &Context, found: Found<T>) -> T {
    context.end_with(found.exit);
    found.info
}

/// All snapshots, the oldest first, for a command about all of them. Warns if there may be others: records that are
/// missing, or cannot be read.
pub(super) fn all(context: &Context, vault: &Vault) -> Result<Vec<SnapshotInfo>, Failure> {
    for unread in vault.unread_records()? {
        context.screen.warn(&more_than_known(&unread));
        context.end_with(unread.exit());
    }
    Ok(vault.snapshots())
}

/// Finds the selected snapshot among those of a vault, which are sorted oldest first.
pub(super) fn find<'a>(
    context: &'a Context,
    vault: &'a Vault,
    snapshots: &'a [SnapshotInfo],
    filter: impl Into<Filter>,
    wanted: &Wanted,
    aim: Aim,
) -> Result<&'a SnapshotInfo, Failure> {
    Ok(ending(context, wanted.find(&among(context, vault, snapshots, filter), aim, &context.screen)?))
}

/// Finds all the snapshots that were named.
pub(super) fn find_all(
    context: &Context,
    vault: &Vault,
    snapshots: &[SnapshotInfo],
    filter: impl Into<Filter>,
    names: &[OsString],
    aim: Aim,
) -> Result<Vec<SnapshotInfo>, Failure> {
    let among = among(context, vault, snapshots, filter);
    let found = crate::service::select::find_all(names, &among, dates::now(), aim, &context.screen)?;
    Ok(ending(context, found))
}

/// Finds the selected snapshot, and the path inside it.
pub(super) fn spot<'a>(
    context: &'a Context,
    vault: &'a Vault,
    snapshots: &'a [SnapshotInfo],
    filter: impl Into<Filter>,
    wanted: &'a Wanted,
    aim: Aim,
) -> Result<Spot<'a>, Failure> {
    let among = among(context, vault, snapshots, filter);
    let info = ending(context, wanted.find_to_read(&among, aim, &context.screen)?);
    Ok(Spot::of(among, (wanted, aim), info))
}
