//! The protocol of collecting, simulated with the real code: several clients with states of their own over a folder that
//! delivers late, twice and in any order, or over one that all see at once. They snapshot and prune, by one process or two,
//! repair packs whose index is damaged (where all see the same), fall asleep for days in the middle of any operation of the
//! store, crash, lose their state or have it set back. No snapshot that is retained may lose a chunk.
//!
//! 1,000 schedules of each kind by default; `VAULT_CAMPAIGN=n` makes it n thousand of each, from number `VAULT_SEED` on.
//! `VAULT_TRACE=1` shows what happens in one that loses something. A number repeats what is done, but names are random, and
//! what depends on their order may differ. With a rule weakened, the same simulation loses data: so it can fail.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "tests may read the environment and print")]

mod sim;

use std::fs;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use crate::log::sweep::{WEAKENED, Weakness};
use crate::store::{Delivery, Kind, ObjectKey};

use sim::{Counts, Pools, Sim, content};

/// Whoever weakens the rules must be alone.
static RULES: RwLock<()> = RwLock::new(());

/// Does something while the rules are weakened.
fn with<T>(weakness: Weakness, work: impl FnOnce() -> T) -> T {
    if weakness == Weakness::None {
        let _others = RULES.read().unwrap_or_else(PoisonError::into_inner);
        return work();
    }
    let _alone = RULES.write().unwrap_or_else(PoisonError::into_inner);
    WEAKENED.store(weakness as u8, Relaxed);
    let done = work();
    WEAKENED.store(Weakness::None as u8, Relaxed);
    done
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn schedules() -> u64 {
    number("VAULT_CAMPAIGN").map_or(1000, |thousands| thousands * 1000)
}

/// Runs schedules, with a weakened rule until one loses something. Returns what happened in all of them.
fn campaign(delivery: Delivery, weakness: Weakness, count: u64) -> Counts {
    let (first, pools, begun) = (number("VAULT_SEED").unwrap_or(1), Pools::new(), Instant::now());
    let (mut all, mut done) = (Counts::default(), 0);
    for seed in first..first + count {
        let counts = with(weakness, || {
            let short = if delivery == Delivery::Direct { 8 } else { 20 };
            let steps = if weakness != Weakness::None || seed % 20 == 0 { 90 } else { short + seed as usize % 21 };
            let sim = Sim::new(seed, 2 + (seed % 3) as usize, delivery, steps, &pools);
            if weakness != Weakness::None || seed % 2 == 0 {
                sim.meet_all();
            }
            sim.run();
            sim.finish()
        });
        all.add(&counts);
        done += 1;
        if counts.lost > 0 {
            println!("schedule {seed} ({delivery:?}, {weakness:?}) loses {} snapshots", counts.lost);
            if weakness != Weakness::None {
                break;
            }
        }
        if done % 250 == 0 && weakness == Weakness::None {
            println!("{done} schedules of {delivery:?}: {all:?}");
        }
    }
    println!("{delivery:?}, {weakness:?}, {done} schedules, {:.0} s: {all:?}", begun.elapsed().as_secs_f64());
    all
}

fn check(delivery: Delivery) {
    let counts = campaign(delivery, Weakness::None, schedules());
    assert_eq!(counts.lost, 0);
    let Counts { snapshots, prunes, deleted, crashes, slept, second, states, retained, damaged, repairs, .. } = counts;
    assert!(delivery == Delivery::Synced || damaged > 0 && repairs > 0, "{counts:?}");
    for happened in [snapshots, prunes, deleted, crashes, slept, second, states, retained] {
        assert!(happened > 0, "nothing is proven by schedules in which this does not happen: {counts:?}");
    }
}

#[test]
fn no_retained_snapshot_loses_a_chunk_where_all_is_seen_at_once() {
    check(Delivery::Direct);
}

#[test]
fn no_retained_snapshot_loses_a_chunk_where_things_arrive_late() {
    check(Delivery::Synced);
}

#[test]
fn without_waiting_for_acknowledgements_data_is_lost() {
    assert!(campaign(Delivery::Synced, Weakness::NoAcknowledgement, 1000).lost > 0);
    assert!(campaign(Delivery::Synced, Weakness::TimeWindow, 1000).lost > 0);
}

/// What a client keeps from now on.
fn set_source(sim: &Sim, client: usize, files: &[u64]) {
    let source = sim.path("source", client);
    fs::remove_dir_all(&source).unwrap();
    fs::create_dir(&source).unwrap();
    for number in files {
        fs::write(source.join(number.to_string()), content(*number)).unwrap();
    }
}

/// Two clients that know each other. Client 0 gives up the pack with file 1 while client 1, which has not heard of it yet,
/// relies on it; then client 1 acknowledges, and only that later record reaches client 0.
fn a_record_overtakes_the_one_before() -> Counts {
    let sim = Sim::new(1, 2, Delivery::Synced, 0, &Pools::new());
    set_source(&sim, 0, &[1, 2]);
    set_source(&sim, 1, &[3]);
    for _ in 0..3 {
        for client in 0..2 {
            sim.take(client);
            sim.world.deliver_all();
        }
    }
    set_source(&sim, 0, &[2]);
    sim.take(0);
    sim.keep(0, 1, 0.0);
    let condemning = sim.world.travelling();
    assert!(condemning > 0);
    set_source(&sim, 1, &[1, 3]);
    sim.take(1);
    let relying = sim.world.travelling() - condemning;
    (0..condemning).for_each(|_| assert!(sim.world.deliver_where(0, |from, _| from == 0)));
    set_source(&sim, 1, &[3, 4]);
    sim.take(1);
    while sim.world.travelling() > relying {
        sim.world.deliver(sim.world.travelling() as u64 - 1);
    }
    sim.keep(0, 9, 0.0);
    sim.finish()
}

#[test]
fn a_later_record_does_not_speak_for_one_that_has_not_arrived() {
    assert_eq!(with(Weakness::None, a_record_overtakes_the_one_before).lost, 0);
    assert!(with(Weakness::Gaps, a_record_overtakes_the_one_before).lost > 0, "without whole chains data is lost");
}

/// A client that nobody has heard of takes its first snapshot while the only one that is known gives up a pack.
fn a_new_client_is_not_known_yet() -> Counts {
    let sim = Sim::new(1, 2, Delivery::Synced, 0, &Pools::new());
    set_source(&sim, 0, &[1, 2]);
    sim.take(0);
    sim.world.deliver_all();
    set_source(&sim, 1, &[1]);
    sim.take(1);
    set_source(&sim, 0, &[5]);
    sim.take(0);
    sim.keep(0, 1, 0.0);
    assert!(sim.counts().deleted > 0);
    sim.finish()
}

#[test]
fn a_new_client_relies_on_nothing_before_all_know_of_it() {
    assert_eq!(with(Weakness::None, a_new_client_is_not_known_yet).lost, 0);
    assert!(with(Weakness::NoJoining, a_new_client_is_not_known_yet).lost > 0, "without waiting data is lost");
}

/// A client has work under way that relies on what another process of it condemns; the other client would delete that.
/// Returns how many packs it deletes while that work goes on, and after.
fn who_condemns_has_other_work() -> (u64, u64) {
    let sim = Sim::new(1, 2, Delivery::Direct, 0, &Pools::new());
    set_source(&sim, 0, &[1]);
    set_source(&sim, 1, &[3]);
    sim.take(0);
    sim.take(1);
    sim.take(0);
    let vault = sim.open(0).unwrap();
    let session = vault.begin_writing(sim.clock(), &crate::progress::Silent::default()).unwrap();
    set_source(&sim, 0, &[2]);
    sim.take(0);
    sim.keep(0, 1, 0.0);
    sim.take(1);
    sim.keep(1, 9, 0.0);
    let during = sim.counts().deleted;
    drop(session);
    sim.take(0);
    sim.keep(1, 9, 0.0);
    (during, sim.counts().deleted - during)
}

#[test]
fn what_a_client_condemns_waits_for_its_other_work() {
    let (during, after) = with(Weakness::None, who_condemns_has_other_work);
    assert!(during == 0 && after > 0, "{during} during, {after} after");
    assert!(with(Weakness::NoAnswer, who_condemns_has_other_work).0 > 0, "without waiting it is deleted at once");
}

/// How many packs are there that no record claims.
fn unclaimed(sim: &std::sync::Arc<Sim>) -> usize {
    let vault = sim.open(0).unwrap();
    let claimed = vault.chains().claimed();
    vault.pack_names().iter().filter(|name| !claimed.contains(name)).count()
}

/// A client puts packs, and loses its record, before anyone reads it, and its state.
#[test]
fn what_a_client_left_that_lost_its_state_goes_when_all_others_have_gone_on() {
    let sim = Sim::new(1, 2, Delivery::Direct, 0, &Pools::new());
    set_source(&sim, 0, &[1]);
    set_source(&sim, 1, &[3]);
    (0..4).for_each(|round| sim.take(round % 2));
    let records = || sim.open(0).unwrap().chains().links().map(|link| link.name).collect::<Vec<_>>();
    let before = records();
    set_source(&sim, 1, &[4]);
    sim.take(1);
    for name in records().iter().filter(|name| !before.contains(name)) {
        assert!(sim.world.view(0).unwrap().objects().remove(&ObjectKey::Named(Kind::Log, *name)).is_some());
    }
    fs::remove_dir_all(sim.path("state", 0)).unwrap();
    fs::remove_dir_all(sim.path("state", 1)).unwrap();
    assert!(unclaimed(&sim) > 0);
    set_source(&sim, 1, &[5]);
    // The other one is at work on them, for all that is known.
    sim.keep(0, 9, 0.0);
    assert!(unclaimed(&sim) > 0 && sim.open(0).unwrap().condemned().is_empty());
    for _ in 0..4 {
        (0..2).for_each(|client| sim.take(client));
        sim.keep(0, 9, 0.0);
    }
    assert_eq!(unclaimed(&sim), 0);
    assert_eq!(sim.finish().lost, 1, "the one whose record was taken away");
}
