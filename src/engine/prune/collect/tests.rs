//! Simulates the pruning protocol with the real code: several clients with states of their own over a folder that delivers late, twice
//! and in any order, or over one that all see at the same time. They take snapshots, remove files from snapshots, and prune, in one
//! process or two, repair packs whose footer is damaged (where all see the same), fall asleep for days in the middle of any operation of
//! the store, crash, and lose their state or have it reset. No retained snapshot may lose a chunk.
//!
//! Runs 300 schedules of each kind by default; `VAULT_CAMPAIGN=n` makes it n thousand of each, from number `VAULT_SEED` on.
//! `VAULT_TRACE=1` shows the events of a schedule that loses something, `VAULT_TRACE=all` those of all. A number repeats the same
//! actions, but names are random, and results that depend on their order may differ. With a rule weakened, the same simulation loses
//! data: so it can fail.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "tests may read the environment and print")]

mod sim;

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use crate::engine::check::{self, CheckOptions};
use crate::engine::prune::say;
use crate::engine::repair;
use crate::id::ObjectName;
use crate::log::{RecordBody, SweepRules};
use crate::seal::ObjectKind;
use crate::store::{Delivery, Kind, Listed, ObjectKey, Store as _};
use crate::vault::{Lost, Vault};

use sim::{Counts, Machines, Pools, Sim, content};

/// All rules hold.
fn sound() -> SweepRules {
    SweepRules::default()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn schedules() -> u64 {
    number("VAULT_CAMPAIGN").map_or(300, |thousands| thousands * 1000)
}

/// Runs schedules; with a weakened rule, until one loses something. Returns the events of all of them.
fn campaign(delivery: Delivery, machines: Machines, rules: SweepRules, count: u64) -> Counts {
    let (first, pools, begun) = (number("VAULT_SEED").unwrap_or(1), Pools::new(), Instant::now());
    let (mut all, mut done, is_sound) = (Counts::default(), 0, rules == sound());
    for seed in first..first + count {
        let short = if delivery == Delivery::Direct { 8 } else { 20 };
        let steps = if !is_sound || seed % 20 == 0 { 90 } else { short + seed as usize % 21 };
        let sim = Sim::new(seed, 2 + (seed % 3) as usize, delivery, steps, &pools, rules, machines);
        if !is_sound || seed % 2 == 0 {
            sim.meet_all();
        }
        sim.run();
        let counts = sim.finish();
        all.add(&counts);
        done += 1;
        if counts.lost > 0 || is_sound && counts.undone > 0 {
            let Counts { lost, undone, .. } = counts;
            println!("schedule {seed} ({delivery:?}, {machines:?}) loses {lost} snapshots and {undone} changes");
            if !is_sound {
                break;
            }
        }
        if done % 100 == 0 && is_sound {
            println!("{done} schedules of {delivery:?}, {machines:?}: {all:?}");
        }
    }
    println!(
        "{delivery:?}, {machines:?}, {rules:?}, {done} schedules, {:.0} s: {all:?}",
        begun.elapsed().as_secs_f64()
    );
    all
}

/// Runs this many schedules for each kind of delivery. None of them loses anything, and together they contain all kinds of events that
/// could lose something.
fn go_through(machines: Machines, deliveries: &[(Delivery, u64)]) {
    let mut all = Counts::default();
    for &(delivery, count) in deliveries {
        let counts = campaign(delivery, machines, sound(), count);
        assert_eq!((counts.lost, counts.undone), (0, 0));
        all.add(&counts);
    }
    let Counts {
        snapshots, imports, rewrites, prunes, deleted, crashes, slept, second, states, retired, retained, ..
    } = all;
    let Counts { damaged, repairs, live_states, merged, merged_deleted, past, .. } = all;
    // The simulation damages objects, and changes states during a run, only where all see the same.
    let is_direct = deliveries.iter().any(|(delivery, _)| *delivery == Delivery::Direct);
    assert!(!is_direct || damaged > 0 && repairs > 0 && live_states > 0, "{all:?}");
    let merges = [merged, merged_deleted, past];
    for happened in [snapshots, imports, rewrites, prunes, deleted, crashes, slept, second, states, retired, retained]
        .into_iter()
        .chain(merges)
    {
        assert!(happened > 0, "nothing is proven by schedules in which this does not happen: {all:?}");
    }
}

#[test]
fn no_retained_snapshot_loses_a_chunk_where_all_is_seen_at_once() {
    go_through(Machines::Apart, &[(Delivery::Direct, schedules())]);
}

#[test]
fn no_retained_snapshot_loses_a_chunk_where_things_arrive_late() {
    go_through(Machines::Apart, &[(Delivery::Synced, schedules())]);
}

#[test]
fn no_reported_snapshot_of_machines_that_are_copies_of_one_loses_a_chunk() {
    go_through(Machines::Alike, &[(Delivery::Direct, schedules() / 2), (Delivery::Synced, schedules() / 5)]);
}

#[test]
fn no_reported_snapshot_of_machines_from_one_template_loses_a_chunk() {
    go_through(Machines::Template, &[(Delivery::Direct, schedules() / 5)]);
}

#[test]
fn without_waiting_for_acknowledgements_data_is_lost() {
    let rules = SweepRules { acknowledged: false, ..sound() };
    assert!(campaign(Delivery::Synced, Machines::Apart, rules, 1000).lost > 0);
}

/// Three machines, two of which are copies of each other. The third has a pack that it will condemn; the first is working on a snapshot
/// that relies on it.
fn alike(rules: SweepRules) -> Arc<Sim> {
    let sim = Sim::new(1, 3, Delivery::Direct, 0, &Pools::new(), rules, Machines::Alike);
    set_source(&sim, 2, &[1, 2]);
    set_source(&sim, 0, &[3]);
    set_source(&sim, 1, &[4]);
    sim.set_apart(2);
    for client in [2, 0, 2, 0] {
        sim.take(client);
    }
    set_source(&sim, 0, &[1]);
    sim
}

/// The other copy joins, so that nobody waits for the first one any more, and the third machine condemns its pack, and deletes it if it
/// may.
fn another_takes_its_place(sim: &Arc<Sim>) {
    sim.take(1);
    set_source(sim, 2, &[2]);
    sim.take(2);
    sim.keep(2, 1, 0.0);
}

fn and_what_it_relied_on_is_deleted(sim: &Arc<Sim>) {
    for _ in 0..2 {
        sim.take(1);
        sim.take(2);
        sim.keep(2, 9, 0.0);
    }
    assert!(sim.counts().deleted > 0);
}

/// A machine is retired by its copy just before it puts the record of its snapshot, and data that the snapshot needs is deleted.
fn retired_when_the_record_is_put(rules: SweepRules) -> Counts {
    let sim = alike(rules);
    sim.when(0, 0, |sim| {
        another_takes_its_place(sim);
        and_what_it_relied_on_is_deleted(sim);
    });
    sim.take(0);
    let counts = sim.finish();
    assert!(counts.deleted > 0);
    counts
}

#[test]
fn success_is_said_only_after_a_look_behind_the_record() {
    assert_eq!(retired_when_the_record_is_put(sound()).lost, 0);
    let weak = SweepRules { looked_behind: false, ..sound() };
    assert!(retired_when_the_record_is_put(weak).lost > 0, "without looking after the record, data is lost");
}

/// A machine is retired by its copy just before it puts the replacements of all snapshots. The data stored for them is deleted, and so
/// are the old snapshots, which were forgotten.
#[test]
fn what_is_changed_as_a_machine_is_retired_is_whole_or_forgotten() {
    for (number, after) in [(1, 0), (1, 1), (3, 0), (3, 1), (9, 0)] {
        let sim = alike(sound());
        sim.when(0, after, |sim| {
            another_takes_its_place(sim);
            and_what_it_relied_on_is_deleted(sim);
        });
        sim.take_out(0, number, |_| true);
        let counts = sim.finish();
        assert!(counts.deleted > 0 && counts.lost == 0, "{number} {after}: {counts:?}");
    }
}

/// As above, but the machine has joined again and listed the log, and not yet the meta packs: it knows nothing of what was forgotten, and
/// sees none of the packs that were deleted with it.
#[test]
fn nothing_takes_the_place_of_what_was_forgotten_between_two_listings() {
    let mut forgotten = 0;
    for (number, after) in (0..4).flat_map(|after| [(1, after), (3, after), (9, after)]) {
        let sim = alike(sound());
        fs::remove_dir_all(sim.path("state", 0)).unwrap();
        sim.when_listing_meta(0, after, |sim| {
            another_takes_its_place(sim);
            and_what_it_relied_on_is_deleted(sim);
        });
        sim.take_out(0, number, |_| true);
        let counts = sim.finish();
        assert_eq!((counts.lost, counts.undone), (0, 0), "{number} {after}: {counts:?}");
        forgotten += counts.deleted;
    }
    assert!(forgotten > 0);
}

/// As above. Of the record that retires the machine only a merge is left: when it looks behind its records, or when it reads what it
/// has listed.
#[test]
fn a_look_behind_records_sees_what_was_merged_meanwhile() {
    let merge = |sim: &Arc<Sim>| {
        sim.merge_from(2);
        and_what_it_relied_on_is_deleted(sim);
    };
    for (is_listed, number) in [(false, 1), (true, 1), (false, 3), (true, 3)] {
        let sim = alike(sound());
        sim.when(0, 0, move |sim| {
            another_takes_its_place(sim);
            and_what_it_relied_on_is_deleted(sim);
            if is_listed { sim.when_reading(0, merge) } else { merge(sim) }
        });
        sim.take_out(0, number, |_| true);
        let counts = sim.finish();
        assert!(counts.merged_deleted > 0 && counts.deleted > 0, "{counts:?}");
        assert_eq!((counts.lost, counts.undone), (0, 0), "listed before: {is_listed}, {number}");
    }
}

/// A machine is retired by its copy while its snapshot puts the last pack: data that the snapshot needs is condemned, and deleted just
/// before the record is put.
fn retired_while_it_stores(rules: SweepRules) -> Counts {
    let sim = alike(rules);
    set_source(&sim, 0, &[1, 5]);
    sim.when_pack(0, another_takes_its_place);
    // The first record is that of joining again, which retires the other copy.
    sim.when(0, 1, |sim| {
        sim.take(2);
        sim.keep(2, 9, 0.0);
    });
    sim.take(0);
    sim.finish()
}

#[test]
fn what_is_condemned_counts_as_absent_for_a_client_that_takes_another_ones_place() {
    assert_eq!(retired_while_it_stores(sound()).lost, 0);
    let weak = SweepRules { bound: false, ..sound() };
    assert!(retired_while_it_stores(weak).lost > 0, "if work is not bound to its client, data is lost");
}

/// A listing shows that a machine was retired, but not the record that it had put before, which its copy had not seen either.
/// The record is a snapshot of its own, or the changed form of another one.
fn a_listing_shows_the_later_record_alone(rules: SweepRules, changes: bool) -> Counts {
    let sim = alike(rules);
    let silent = crate::progress::Silent::default();
    sim.take(0);
    let vault = sim.open(0).unwrap();
    let mut relying = vault.snapshots().into_iter().find(|info| info.body.description == "1").unwrap();
    let changed = vault.snapshots().into_iter().rfind(|info| info.body.description == "3").unwrap();
    if changes {
        relying.body.replaces = vec![changed.id];
        relying.body.tags = vec!["5".to_owned()];
    }
    say(&vault, RecordBody::Forget(vec![relying.id]), sim.clock(0), &silent).unwrap();
    // Running work that relies on the pack, and the data that it relies on.
    let session = vault.begin_writing(sim.clock(0), &silent).unwrap();
    let needed = vault.pack_names().into_iter().collect();
    set_source(&sim, 2, &[2]);
    sim.take(2);
    let put = Arc::new(std::sync::Mutex::new(None));
    let name = put.clone();
    let retire = move |sim: &Arc<Sim>| {
        sim.when(1, 0, move |sim| {
            let (body, time) = (RecordBody::Snapshot(Box::new(relying.body)), sim.clock(0));
            let id = vault.publish_relying(&body, &needed, time, &session, &crate::progress::Silent::default());
            let id = id.unwrap().unwrap();
            sim.report(id);
            *sim::lock(&put) = Some(id);
        });
        let other = sim.open(1).unwrap();
        drop(other.begin_writing(sim.clock(1), &crate::progress::Silent::default()).unwrap());
        let id = *sim::lock(&name);
        id.unwrap()
    };
    // After the needed chunks of the pack were copied, the log is listed before the condemning record, after it, and before the pack is
    // deleted: the last of these listings is incomplete.
    sim.when_pack(2, move |sim| sim.when_listing(2, 2, retire));
    sim.keep(2, 1, 0.0);
    sim.keep(2, 9, 0.0);
    sim.finish()
}

#[test]
fn what_allows_a_deletion_is_known_before_the_last_look() {
    let weak = SweepRules { read_before: false, ..sound() };
    for changes in [false, true] {
        let counts = a_listing_shows_the_later_record_alone(sound(), changes);
        assert_eq!((counts.lost, counts.undone), (0, 0), "{changes}");
    }
    assert!(a_listing_shows_the_later_record_alone(weak, false).lost > 0, "with one listing alone, data is lost");
    // The machine that retired its client had not seen it, but it was reported.
    let weak = SweepRules { doubted: false, ..sound() };
    assert!(a_listing_shows_the_later_record_alone(weak, true).undone > 0, "a change that was reported is lost");
}

/// The only machine retires itself. Of two machines that join then, unknown to each other, one relies on the packs it has left, and the
/// other deletes these.
fn the_only_machine_retires_itself(rules: SweepRules) -> Counts {
    let sim = Sim::new(1, 3, Delivery::Synced, 0, &Pools::new(), rules, Machines::Apart);
    for numbers in [[1], [2]] {
        set_source(&sim, 0, &numbers);
        sim.take(0);
    }
    sim.throw_away(0);
    sim.world.deliver_all();
    set_source(&sim, 1, &[1]);
    sim.take(1);
    (0..2).for_each(|_| sim.keep(2, 1, 0.0));
    assert_eq!(sim.counts().deleted > 0, !rules.one_stays, "{:?}", sim.counts());
    sim.finish()
}

#[test]
fn where_things_arrive_late_one_stays_who_knows_all_that_come() {
    assert_eq!(the_only_machine_retires_itself(sound()).lost, 0);
    let weak = SweepRules { one_stays: false, ..sound() };
    assert!(the_only_machine_retires_itself(weak).lost > 0, "two that do not know each other lose data");
}

/// A log that two machines know, and that the first one merges.
fn merging(rules: SweepRules) -> Arc<Sim> {
    let sim = Sim::new(1, 2, Delivery::Synced, 0, &Pools::new(), rules, Machines::Apart);
    set_source(&sim, 0, &[1, 2]);
    set_source(&sim, 1, &[3]);
    for _ in 0..3 {
        for client in 0..2 {
            sim.take(client);
            sim.world.deliver_all();
        }
    }
    sim.merge_from(4);
    sim.keep(0, 9, 0.0);
    assert!(sim.counts().merged >= 8, "{:?}", sim.counts());
    sim
}

/// A machine merges the log, and is lost when its deletions have been delivered, and its new objects have not.
fn the_machine_that_merged_is_lost(rules: SweepRules) -> Counts {
    let sim = merging(rules);
    sim.lose(0);
    sim.finish()
}

#[test]
fn what_a_merge_holds_stays_until_all_have_the_merge() {
    assert_eq!(the_machine_that_merged_is_lost(sound()).lost, 0);
    let weak = SweepRules { merged: false, ..sound() };
    assert!(the_machine_that_merged_is_lost(weak).lost > 0, "without waiting the log is lost");
}

/// The only machine merges the log, deletes the merged objects, and is lost before anyone has the merge.
fn the_only_machine_is_lost(rules: SweepRules) -> Counts {
    let sim = Sim::new(1, 2, Delivery::Synced, 0, &Pools::new(), rules, Machines::Apart);
    set_source(&sim, 0, &[1, 2]);
    (0..3).for_each(|_| sim.take(0));
    sim.world.deliver_all();
    sim.merge_from(4);
    (0..2).for_each(|_| sim.keep(0, 9, 0.0));
    assert_eq!(sim.counts().merged_deleted > 0, !rules.not_alone);
    sim.lose(0);
    sim.finish()
}

#[test]
fn a_machine_that_is_alone_merges_nothing_where_things_arrive_late() {
    assert_eq!(the_only_machine_is_lost(sound()).lost, 0);
    let weak = SweepRules { not_alone: false, ..sound() };
    assert!(the_only_machine_is_lost(weak).lost > 0, "the log goes with the machine");
}

/// Two machines merge the records that they both know, and delete objects that they know to be merged, without knowing what the other one
/// does meanwhile.
#[test]
fn two_clients_that_merge_at_the_same_time_lose_nothing() {
    let sim = Sim::new(1, 2, Delivery::Direct, 0, &Pools::new(), sound(), Machines::Apart);
    set_source(&sim, 0, &[1, 2]);
    set_source(&sim, 1, &[3]);
    sim.merge_from(3);
    let silent = crate::progress::Silent::default();
    let (mut merged, mut deleted) = (0, 0);
    for _ in 0..6 {
        (0..2).for_each(|client| sim.take(client));
        let vaults = [0, 1].map(|client| sim.open(client).unwrap());
        for (client, vault) in vaults.iter().enumerate() {
            let clock = || sim.clock(client);
            let session = vault.begin_writing(clock(), &silent).unwrap();
            vault.look_at_log(&silent).unwrap();
            let report = super::merge::merge_log(vault, &session, &clock, &silent).unwrap();
            (merged, deleted) = (merged + report.merged, deleted + report.deleted);
        }
        let vault = sim.open(0).unwrap();
        assert_eq!((vault.findings(), vault.missing_records().unwrap()), (Vec::new(), Lost::default()));
    }
    assert!(merged > 10 && deleted > 10, "{merged} {deleted}");
    assert_eq!(sim.finish().lost, 0);
}

/// A merge that can no longer be read is not relied on, though all have read it once.
#[test]
fn what_a_merge_holds_stays_where_the_merge_is_damaged() {
    let sim = Sim::new(1, 1, Delivery::Direct, 0, &Pools::new(), sound(), Machines::Apart);
    set_source(&sim, 0, &[1]);
    (0..3).for_each(|_| sim.take(0));
    sim.merge_from(2);
    sim.keep(0, 9, 0.0);
    let counts = sim.counts();
    assert!(counts.merged > 2 && counts.merged_deleted == 0, "{counts:?}");
    let vault = sim.open(0).unwrap();
    let (merge, _) = vault.log_objects().into_iter().max_by_key(|(_, len)| *len).unwrap();
    let objects = sim.world.view(0).unwrap();
    assert!(objects.objects().mutate(&ObjectKey::Named(Kind::Log, merge), |bytes| bytes[300] ^= 1));
    sim.keep(0, 9, 0.0);
    assert_eq!(sim.counts().merged_deleted, 0);
    assert_eq!(sim.open(0).unwrap().log_objects().len(), vault.log_objects().len());
}

#[test]
fn what_a_merge_holds_goes_when_all_have_the_merge() {
    let sim = merging(sound());
    let objects = |client| sim.open(client).unwrap().log_objects().len();
    let (before, snapshots) = (objects(0), sim.open(0).unwrap().snapshots());
    // The other machine does not know of it.
    sim.keep(0, 9, 0.0);
    assert_eq!(sim.counts().merged_deleted, 0);
    sim.world.deliver_all();
    sim.take(1);
    sim.world.deliver_all();
    sim.keep(0, 9, 0.0);
    assert!(sim.counts().merged_deleted >= 8, "{:?}", sim.counts());
    // The deletions are delivered before the last record.
    while sim.world.travelling() > 0 {
        sim.world.deliver(sim.world.travelling() as u64 - 1);
        let vault = sim.open(1).unwrap();
        assert_eq!((vault.findings(), vault.missing_records().unwrap()), (Vec::new(), Lost::default()));
    }
    assert!(objects(1) < before);
    let vault = sim.open(1).unwrap();
    assert!(vault.lost_records().unwrap() == Lost::default());
    for (info, other) in snapshots.iter().zip(vault.snapshots()) {
        assert_eq!((info.id, info.number, info.date, &info.body), (other.id, other.number, other.date, &other.body));
        assert!(vault.has_all_before(&info.id));
    }
    assert_eq!(sim.finish().lost, 0);
}

#[test]
fn a_damaged_merge_is_put_again_with_all_that_it_held() {
    let sim = Sim::new(1, 1, Delivery::Direct, 0, &Pools::new(), sound(), Machines::Apart);
    set_source(&sim, 0, &[1]);
    (0..3).for_each(|_| sim.take(0));
    sim.merge_from(2);
    (0..3).for_each(|_| sim.keep(0, 9, 0.0));
    assert!(sim.counts().merged_deleted > 4, "{:?}", sim.counts());
    let vault = sim.open(0).unwrap();
    let (merge, _) = vault.log_objects().into_iter().max_by_key(|(_, len)| *len).unwrap();
    let before: Vec<_> = vault.snapshots().into_iter().map(|info| info.id).collect();
    assert!(sim.world.view(0).unwrap().objects().mutate(&ObjectKey::Named(Kind::Log, merge), |bytes| bytes[300] ^= 1));
    let (clock, silent) = (|| sim.clock(0), crate::progress::Silent::default());
    let options = repair::RepairOptions { read_data: false, of_others: true, clock: &clock, threads: 1, from: None };
    let plan = repair::plan(&vault, &options, &silent).unwrap();
    assert!(plan.found.len() > 4 && plan.lost_records.is_empty(), "{:?}", plan.found);
    repair::execute(&vault, plan, &options, &silent).unwrap();
    drop(vault);
    fs::remove_dir_all(sim.path("state", 0)).unwrap();
    let fresh = sim.open(0).unwrap();
    assert!(fresh.log_objects().keys().all(|name| *name != merge));
    assert_eq!(fresh.snapshots().into_iter().map(|info| info.id).collect::<Vec<_>>(), before);
    assert_eq!(fresh.findings(), []);
    assert_eq!(sim.finish().lost, 0);
}

/// If it were left out, the number of a snapshot that can no longer be restored would be missing for ever and block every deletion.
#[test]
fn a_deleted_merge_is_put_again_with_what_cannot_be_restored_and_what_nobody_needs() {
    let (sim, all) = mostly_forgotten();
    sim.take(0);
    let vault = sim.open(0).unwrap();
    let ids = |vault: &Vault| vault.snapshots().into_iter().map(|info| info.id).collect::<Vec<_>>();
    let (before, count) = (ids(&vault), past(&vault));
    let holders: Vec<ObjectName> =
        vault.log_objects().into_keys().filter(|name| vault.chains().is_holder(name)).collect();
    assert!(before.iter().any(|id| vault.chains().held(id).is_some()) && count > 8, "{count}");
    drop(vault);
    let objects = sim.world.view(0).unwrap();
    for merge in &holders {
        objects.delete(&ObjectKey::Named(Kind::Log, *merge)).unwrap();
    }
    for kind in [Kind::Pack, Kind::Meta] {
        let mut packs = Vec::new();
        let mut add = |listed| match listed {
            Listed::Object { name, .. } => packs.push(ObjectKey::Named(kind, name)),
            Listed::Foreign(path) => panic!("{path}"),
        };
        objects.list(kind, &mut add).unwrap();
        packs.iter().for_each(|key| objects.delete(key).unwrap());
    }
    let vault = sim.open(0).unwrap();
    let (clock, silent) = (|| sim.clock(0), crate::progress::Silent::default());
    let options = repair::RepairOptions { read_data: false, of_others: true, clock: &clock, threads: 1, from: None };
    let plan = repair::plan(&vault, &options, &silent).unwrap();
    assert!(!plan.found.is_empty() && !plan.past.is_empty() && plan.lost_records.is_empty(), "{:?}", plan.lost_records);
    repair::execute(&vault, plan, &options, &silent).unwrap();
    let missing = vault.missing_records().unwrap();
    assert!(missing.records.is_empty() && missing.past.is_empty(), "{missing:?}");
    drop(vault);
    fs::remove_dir_all(sim.path("state", 1)).ok();
    let fresh = sim.open(1).unwrap();
    assert_eq!((ids(&fresh), past(&fresh), fresh.findings()), (before, count, Vec::new()));
    assert!(all.iter().all(|id| fresh.has_all_before(id)));
}

/// A log of which most was forgotten and merged, so that mostly past records are left of it: by one machine, where all see the same.
fn mostly_forgotten() -> (Arc<Sim>, Vec<ObjectName>) {
    let sim = Sim::new(1, 2, Delivery::Direct, 0, &Pools::new(), sound(), Machines::Apart);
    for number in 1..9 {
        set_source(&sim, 0, &[number]);
        sim.take(0);
    }
    let all: Vec<ObjectName> = sim.open(0).unwrap().snapshots().into_iter().map(|info| info.id).collect();
    sim.merge_from(2);
    for _ in 0..3 {
        sim.keep(0, 1, 0.0);
        // The sweep is acknowledged.
        set_source(&sim, 0, &[20]);
        sim.take(0);
    }
    (0..2).for_each(|_| sim.keep(0, 2, 0.0));
    (sim, all)
}

fn past(vault: &Vault) -> usize {
    vault.chains().past().map(|past| past.records.len()).sum()
}

#[test]
fn of_what_was_forgotten_no_more_is_left_than_its_place() {
    let (sim, all) = mostly_forgotten();
    let vault = sim.open(0).unwrap();
    let chains = vault.chains();
    assert!(past(&vault) > 8, "{} of {} records", past(&vault), chains.links().count());
    assert!(all.iter().all(|id| chains.is_past(id) && vault.has_all_before(id)));
    assert!(!vault.has_all_before(&ObjectName::new([9; 16])));
    assert_eq!((vault.findings(), vault.missing_records().unwrap()), (Vec::new(), Lost::default()));
    let before: Vec<_> = vault.snapshots().into_iter().map(|info| (info.id, info.number, info.date)).collect();
    assert_eq!(before.len(), 2);
    // A machine that knows nothing sees the same, and one that loses its state continues.
    for client in [1, 0] {
        fs::remove_dir_all(sim.path("state", client)).ok();
        let fresh = sim.open(client).unwrap();
        let now: Vec<_> = fresh.snapshots().into_iter().map(|info| (info.id, info.number, info.date)).collect();
        assert_eq!((now, past(&fresh), fresh.findings()), (before.clone(), past(&vault), Vec::new()));
        assert!(all.iter().all(|id| fresh.has_all_before(id)));
    }
    sim.take(0);
    assert_eq!(sim.finish().lost, 0);
}

#[test]
fn a_merge_that_says_what_nobody_needs_is_checked_and_put_again() {
    let (sim, all) = mostly_forgotten();
    // A record outside of the merges names those before it.
    sim.take(0);
    let vault = sim.open(0).unwrap();
    // The other machine does not know the vault yet.
    let other = sim.open(1).unwrap();
    let (clock, silent) = (|| sim.clock(0), crate::progress::Silent::default());
    let plain = CheckOptions { read_data: false, sample: None, max_time: None, clock: &clock, threads: 1 };
    let problems = |vault: &Vault| check::check(vault, &plain, &silent).unwrap().problems.len();
    assert_eq!(problems(&vault), 0);
    let (before, count) = (vault.snapshots().len(), past(&vault));
    let holders: Vec<ObjectName> =
        vault.log_objects().into_keys().filter(|name| vault.chains().is_holder(name)).collect();
    assert!(!holders.is_empty());
    for merge in &holders {
        let harm = |bytes: &mut Vec<u8>| bytes[300] ^= 1;
        assert!(sim.world.view(0).unwrap().objects().mutate(&ObjectKey::Named(Kind::Log, *merge), harm));
    }
    assert_eq!(problems(&vault), holders.len(), "a merge is read even if its records are remembered");
    // A machine that does not remember the merge cannot say what was in it, only that records are missing.
    drop(other);
    fs::remove_dir_all(sim.path("state", 1)).unwrap();
    let other = sim.open(1).unwrap();
    assert!(problems(&other) > 0 && !other.findings().is_empty());
    let options = repair::RepairOptions { read_data: false, of_others: true, clock: &clock, threads: 1, from: None };
    let plan = repair::plan(&other, &options, &silent).unwrap();
    assert!(plan.past.is_empty() && plan.lost_records.len() == holders.len(), "{:?}", plan.lost_records);
    drop(other);
    let plan = repair::plan(&vault, &options, &silent).unwrap();
    assert!(!plan.past.is_empty() && plan.lost_records.is_empty(), "{:?}", plan.lost_records);
    repair::execute(&vault, plan, &options, &silent).unwrap();
    drop(vault);
    fs::remove_dir_all(sim.path("state", 1)).unwrap();
    let fresh = sim.open(1).unwrap();
    assert_eq!((fresh.snapshots().len(), past(&fresh), problems(&fresh)), (before, count, 0));
    assert!(all.iter().all(|id| fresh.has_all_before(id)));
    assert_eq!(fresh.findings(), []);
    drop(fresh);
    assert_eq!(sim.finish().lost, 0);
}

/// Forgets snapshots whose packs a later one needs, and merges the log. Returns the number of snapshots listed.
fn listed_when_merged(rules: SweepRules) -> usize {
    let sim = Sim::new(1, 1, Delivery::Direct, 0, &Pools::new(), rules, Machines::Apart);
    for number in 1..5 {
        set_source(&sim, 0, &(1..=number).collect::<Vec<u64>>());
        sim.take(0);
    }
    sim.merge_from(2);
    for _ in 0..3 {
        sim.keep(0, 1, 1.0);
        set_source(&sim, 0, &(1..10).collect::<Vec<u64>>());
        sim.take(0);
    }
    sim.keep(0, 1, 1.0);
    sim.keep(0, 1, 1.0);
    let vault = sim.open(0).unwrap();
    vault.snapshots().len()
}

#[test]
fn what_forgets_snapshots_is_needed_as_long_as_they_are() {
    assert_eq!(listed_when_merged(sound()), 1);
    let weak = SweepRules { forgotten_together: false, ..sound() };
    assert!(listed_when_merged(weak) > 1, "without this rule they come back");
}

/// Sets the files of a client's source from now on.
fn set_source(sim: &Sim, client: usize, files: &[u64]) {
    let source = sim.path("source", client);
    fs::remove_dir_all(&source).unwrap();
    fs::create_dir(&source).unwrap();
    for number in files {
        fs::write(source.join(number.to_string()), content(*number)).unwrap();
    }
}

/// Two clients that know each other. Client 0 condemns the pack with file 1 while client 1, which does not know of it yet, relies on it;
/// then client 1 acknowledges, and only that later record reaches client 0.
fn a_record_overtakes_the_one_before(rules: SweepRules) -> Counts {
    let sim = Sim::new(1, 2, Delivery::Synced, 0, &Pools::new(), rules, Machines::Apart);
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
    assert_eq!(a_record_overtakes_the_one_before(sound()).lost, 0);
    assert!(
        a_record_overtakes_the_one_before(SweepRules { whole_chains: false, ..sound() }).lost > 0,
        "without whole chains data is lost"
    );
}

/// A client that nobody knows takes its first snapshot while the only known one condemns a pack.
fn a_new_client_is_not_known_yet(rules: SweepRules) -> Counts {
    let sim = Sim::new(1, 2, Delivery::Synced, 0, &Pools::new(), rules, Machines::Apart);
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
    assert_eq!(a_new_client_is_not_known_yet(sound()).lost, 0);
    assert!(
        a_new_client_is_not_known_yet(SweepRules { joined: false, ..sound() }).lost > 0,
        "without waiting data is lost"
    );
}

/// A client's running work relies on a pack that another process of the same client condemns; the other client would delete the pack.
/// Returns the number of packs that it deletes during that work, and after it.
fn who_condemns_has_other_work(rules: SweepRules) -> (u64, u64) {
    let sim = Sim::new(1, 2, Delivery::Direct, 0, &Pools::new(), rules, Machines::Apart);
    set_source(&sim, 0, &[1]);
    set_source(&sim, 1, &[3]);
    sim.take(0);
    sim.take(1);
    sim.take(0);
    let vault = sim.open(0).unwrap();
    let session = vault.begin_writing(sim.clock(0), &crate::progress::Silent::default()).unwrap();
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
    let (during, after) = who_condemns_has_other_work(sound());
    assert!(during == 0 && after > 0, "{during} during, {after} after");
    assert!(
        who_condemns_has_other_work(SweepRules { answered: false, ..sound() }).0 > 0,
        "without waiting it is deleted at once"
    );
}

/// Somebody deletes the state folder of a client while work of it begins, and other work joins as a new client. Returns the number of packs
/// that are deleted while the first work goes on.
fn the_state_goes_while_work_begins(rules: SweepRules) -> u64 {
    let sim = Sim::new(1, 2, Delivery::Direct, 0, &Pools::new(), rules, Machines::Apart);
    set_source(&sim, 0, &[1]);
    set_source(&sim, 1, &[3]);
    (0..4).for_each(|round| sim.take(round % 2));
    let vault = sim.open(0).unwrap();
    sim.when_listing(0, 0, |sim| {
        fs::remove_dir_all(sim.path("state", 0)).unwrap();
        sim.take(0);
        ObjectName::new([0; 16])
    });
    let session = vault.begin_writing(sim.clock(0), &crate::progress::Silent::default()).unwrap();
    set_source(&sim, 0, &[2]);
    sim.take(0);
    sim.keep(0, 1, 0.0);
    for client in [1, 0, 1] {
        sim.take(client);
    }
    sim.keep(1, 9, 0.0);
    drop(session);
    sim.counts().deleted
}

#[test]
fn work_of_which_its_client_does_not_know_begins_anew() {
    assert_eq!(the_state_goes_while_work_begins(sound()), 0);
    let weak = SweepRules { bound: false, ..sound() };
    assert!(the_state_goes_while_work_begins(weak) > 0, "nobody waits for it");
}

/// Number of packs that no record claims.
fn unclaimed(sim: &std::sync::Arc<Sim>) -> usize {
    let vault = sim.open(0).unwrap();
    let claimed = vault.chains().claimed();
    vault.pack_names().iter().filter(|name| !claimed.contains(name)).count()
}

/// A client puts packs, and loses its record before anyone reads it, and its state.
#[test]
fn what_a_client_left_that_lost_its_state_goes_when_all_others_have_gone_on() {
    let sim = Sim::new(1, 2, Delivery::Direct, 0, &Pools::new(), sound(), Machines::Apart);
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
    // As far as anyone knows, the other client is still working on them.
    sim.keep(0, 9, 0.0);
    assert!(unclaimed(&sim) > 0 && sim.open(0).unwrap().condemned().is_empty());
    for _ in 0..4 {
        (0..2).for_each(|client| sim.take(client));
        sim.keep(0, 9, 0.0);
    }
    assert_eq!(unclaimed(&sim), 0);
    assert_eq!(sim.finish().lost, 1, "the snapshot whose record was removed");
}

/// More packs than one record can claim.
#[test]
fn records_of_any_run_can_be_written() {
    let sim = Sim::new(1, 1, Delivery::Direct, 0, &Pools::new(), sound(), Machines::Apart);
    set_source(&sim, 0, &[1]);
    sim.take(0);
    let vault = sim.open(0).unwrap();
    let silent = crate::progress::Silent::default();
    let name = |number: u8| crate::id::ObjectName::new([number; 16]);
    // A run in progress.
    let session = vault.begin_writing(sim.clock(0), &silent).unwrap();
    for number in 0..8 {
        vault.publish_claims(&session, &|| sim.clock(0), &silent).unwrap();
        session.note_pack(&name(number), ObjectKind::Pack, 1).unwrap();
    }
    let parts = vault.chains().unfinished(&vault.client().unwrap());
    assert_eq!(parts.len(), 6);
    // It is interrupted, and so was another one that claimed nothing.
    drop(session);
    let session = vault.begin_writing(sim.clock(0), &silent).unwrap();
    (8..20).for_each(|number| session.note_pack(&name(number), ObjectKind::Pack, 1).unwrap());
    drop((session, vault));
    sim.take(0);
    let chains = sim.open(0).unwrap().chains();
    assert!(chains.links().all(|link| link.record.claims.len() <= 3));
    let claimed = chains.claimed();
    assert!((0..20).all(|number| claimed.contains(&name(number))));
    assert_eq!(chains.findings(&std::collections::BTreeMap::new()), []);
    assert_eq!(sim.finish().lost, 0);
}
