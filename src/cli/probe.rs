//! `vault doctor ADDRESS`: tests how a place on another machine behaves.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::id::ObjectName;
use crate::path::Shown;
use crate::seal;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::place::Address;
use crate::store::probe::Findings;
use crate::store::probe::Listings;
use crate::store::probe::Means;
use crate::store::probe::ROUNDS;
use crate::store::probe::look_at_listings;
use crate::store::probe::try_out;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::local::unknown_address;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::units;

/// The number of seconds by which clocks may differ: S3 refuses requests beyond a quarter of an hour.
const CLOCKS_APART: u64 = 60;

#[derive(Serialize)]
struct PlaceJson {
    place: String,
    fit: bool,
    reads_back: bool,
    reads_parts: bool,
    exclusive: bool,
    lists_puts: bool,
    /// Null if deletion is not allowed.
    lists_deletions: Option<bool>,
    deletes: bool,
    round_trip_ms: f64,
    bytes_per_s_up: u64,
    bytes_per_s_down: u64,
    /// How far the clock there is ahead of this machine's, in seconds; null if the place does not tell.
    clock_offset_s: Option<i64>,
    /// The server's name for itself. This and what follows is null if the place does not tell.
    server: Option<String>,
    /// Whether it refuses what does not match its digest.
    verifies_digests: Option<bool>,
    keeps_versions: Option<bool>,
    locked: Option<String>,
}

/// New names for test objects.
fn names() -> Result<Vec<ObjectName>, Failure> {
    let names = (0..4 * ROUNDS).map(|_| seal::random_name());
    names.collect::<Result<_, _>>().map_err(|error| Failure::new(error.to_string()))
}

/// Opens the store for the tests. The folder that it is in must exist.
fn store_beside(context: &Context, address: &Address) -> Result<Arc<dyn Store>, Failure> {
    let beside = address.beside();
    context.prepare(&beside)?;
    context.far(&beside)
}

/// Whether a place lists at once what is put and deleted there. For a new vault, the vault's folder must exist.
pub(super) fn listings(context: &Context, address: &Address) -> Result<Listings, Failure> {
    let mut names = names()?.into_iter();
    let store = store_beside(context, address)?;
    Ok(look_at_listings(store.as_ref(), ROUNDS, &mut || names.next().unwrap_or(ObjectName::new([0; 16])))?)
}

/// Tests a place.
pub(super) fn run(context: &Context, text: &str) -> Result<Exit, Failure> {
    let address = match Address::parse(text) {
        Some(Ok(address)) => address,
        Some(Err(error)) => return Err(Failure::usage(format!("{}: {error}", quoted(text))).hint(error.hint())),
        None => return Err(unknown_address(text)),
    };
    context.screen.watch_interrupts();
    context.prepare(&address)?;
    let store = store_beside(context, &address)?;
    let found = examine(store.as_ref())?;
    context.screen.clear();
    let offset = found.time.map(|time| time - dates::now().secs);
    let fit = found.is_kept && found.gives_parts && found.listings.are_current();
    let mut out = Output::new();
    if context.global.json {
        out.json(&PlaceJson {
            place: address.to_string(),
            fit,
            reads_back: found.is_kept,
            reads_parts: found.gives_parts,
            exclusive: found.is_exclusive,
            lists_puts: found.listings.show_puts,
            lists_deletions: found.listings.show_deletions,
            deletes: found.listings.show_deletions.is_some(),
            round_trip_ms: found.round_trip.as_secs_f64() * 1000.0,
            bytes_per_s_up: rate(found.up),
            bytes_per_s_down: rate(found.down),
            clock_offset_s: offset,
            server: found.told.server,
            verifies_digests: found.told.verifies_digests,
            keeps_versions: found.told.keeps_versions,
            locked: found.told.locked,
        })?;
    } else {
        tell(&address, &found, offset, fit, &mut out)?;
    }
    out.finish()?;
    Ok(if fit { Exit::Done } else { Exit::Skipped })
}

fn examine(store: &dyn Store) -> Result<Findings, Failure> {
    let mut names = names()?.into_iter();
    let begun = Instant::now();
    let mut means =
        Means { name: &mut || names.next().unwrap_or(ObjectName::new([0; 16])), clock: &|| begun.elapsed() };
    let tried: Result<Findings, StoreError> = try_out(store, &mut means);
    Ok(tried?)
}

/// The number of bytes per second.
fn rate((bytes, time): (u64, Duration)) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000_000 / time.as_nanos().max(1)).unwrap_or(u64::MAX)
}

fn tell(address: &Address, found: &Findings, offset: Option<i64>, fit: bool, out: &mut Output) -> Result<(), Failure> {
    let verdict = if fit { "can hold a vault." } else { "should not be used for a vault as it is:" };
    out.styled(Style::Bold, &format!("{address} {verdict}"))?;
    for (is_good, good, bad) in [
        (
            found.is_kept,
            "What is put is kept, and read back whole.",
            "What was put was not read back as it was put: nothing must be trusted to this place.",
        ),
        (
            found.gives_parts,
            "A part of an object can be read alone.",
            "A part of an object is not given as it was asked for.",
        ),
        (
            found.is_exclusive,
            "What is there is not replaced by a second put of its name.",
            "A second put of a name replaces what is there. Names are random, so no vault is harmed by it; but \
             whoever has the credentials can replace objects.",
        ),
        (
            found.listings.show_puts,
            "A list shows at once what was put.",
            "A list does not show at once what was put: make the vault with --delivery synced.",
        ),
    ] {
        line(is_good, if is_good { good } else { bad }, out)?;
    }
    match found.listings.show_deletions {
        Some(true) => line(true, "A list shows at once what was deleted.", out)?,
        Some(false) => {
            line(false, "A list still shows what was deleted: make the vault with --delivery synced.", out)?;
        }
        None => line(
            true,
            "Nothing may be deleted with these credentials: snapshots work, and prune from another \
             machine. A few small objects of this command stay below 'doctor'.",
            out,
        )?,
    }
    let speed = |sum| units::size(rate(sum));
    let trip = found.round_trip.as_secs_f64() * 1000.0;
    let speeds = format!("A request takes {trip:.0} ms; {}/s up, {}/s down.", speed(found.up), speed(found.down));
    line(true, &speeds, out)?;
    tell_told(found, offset, out)
}

/// A line about one property of a place.
fn line(is_good: bool, text: &str, out: &mut Output) -> Result<(), Failure> {
    if is_good { out.line(format!("  ✓ {text}")) } else { out.styled(Style::Warning, &format!("  ! {text}")) }
}

/// Shows what the place tells about itself.
fn tell_told(found: &Findings, offset: Option<i64>, out: &mut Output) -> Result<(), Failure> {
    match found.told.verifies_digests {
        Some(true) => line(true, "What is damaged on its way is refused there.", out)?,
        Some(false) => line(
            false,
            "What is damaged on its way is accepted there: vault compares what the server says it got, and the list, \
             before it relies on it.",
            out,
        )?,
        None => {}
    }
    match found.told.keeps_versions {
        Some(true) => line(
            true,
            "Deleted and replaced objects are kept as versions: they take room, and can be brought back, until a rule \
             of the place removes them.",
            out,
        )?,
        Some(false) => line(true, "Deleted objects are gone: the place keeps no versions.", out)?,
        None => {}
    }
    if let Some(locked) = &found.told.locked {
        let text = format!("New objects are locked ({locked}): nobody deletes them for good before that.");
        line(true, &text, out)?;
    }
    if let Some(server) = &found.told.server {
        line(true, &format!("The server calls itself {}.", Shown(server.as_bytes())), out)?;
    }
    match offset {
        Some(offset) if offset.unsigned_abs() > CLOCKS_APART => {
            let way = if offset > 0 { "before" } else { "behind" };
            line(false, &format!("The clock there is {} s {way} this machine's.", offset.unsigned_abs()), out)
        }
        Some(_) => line(true, "The clocks agree.", out),
        None => Ok(()),
    }
}
