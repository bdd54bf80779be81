//! The maintenance of vaults after their snapshots: old snapshots are dropped, a part of the data is checked, and
//! restores are drilled.

use std::collections::BTreeSet;

use crate::engine::check::{self, CheckOptions};
use crate::engine::prune;
use crate::engine::prune::collect::CollectOptions;
use crate::engine::prune::retention;
use crate::failure::{Exit, Failure};
use crate::progress::Progress;
use crate::service::config::VaultConfig;
use crate::service::drill::{self, Last, Wish};
use crate::service::forget;
use crate::service::plan::waits_for_clock;
use crate::service::report::{Care, Checked, Trouble};
use crate::service::run::observer::Of;
use crate::service::run::work::{Crew, Opened, lock};
use crate::service::select::Filter;
use crate::service::settle::settle;
use crate::tree::Time;
use crate::vault::{SnapshotInfo, Vault};

impl Crew<'_> {
    /// Maintains each vault that was opened.
    pub(super) fn care_all(&self) {
        let used = |at: &usize| matches!(*lock(&self.sites[*at].opened), Opened::Yes(_));
        let pieces: Vec<(BTreeSet<u64>, usize)> =
            (0..self.sites.len()).filter(used).map(|at| (BTreeSet::from([self.sites[at].device]), at)).collect();
        self.spread(&pieces, |at| {
            let care = self.care(*at);
            self.journal.care(&care);
            self.at.observer.care(&care);
            lock(&self.report).cares.push(care);
        });
    }

    /// Drops old snapshots of a vault, checks a part of it, and makes a restore drill, as far as these are due.
    fn care(&self, at: usize) -> Care {
        let config = &self.plan.vaults[at];
        let place = config.place.to_string();
        let mut care = Care {
            vault: config.name.clone(),
            place,
            forgotten: 0,
            bytes_freed: 0,
            held: vec![],
            pruned: vec![],
            checked: None,
            drilled: None,
            trouble: None,
        };
        let Opened::Yes(vault) = &*lock(&self.sites[at].opened) else { return care };
        let lane_of = self.at.observer.lane(Of::vault(&config.name));
        let lane = lane_of.as_ref();
        let done = self.prune(at, config, vault, lane, &mut care).and_then(|()| {
            let is_due = self.wishes.check.contains(&care.place);
            if is_due && !self.at.observer.progress().stopped() {
                self.check(config, vault, lane, &mut care)
            } else {
                Ok(())
            }
        });
        let done = done.and_then(|()| self.drill(config, vault, lane, &mut care));
        drop(lane_of);
        settle(vault, self.at.machine.now(), self.at.observer.progress());
        // The known findings are kept for the report and for runs that do not open the vault.
        let known = vault.known_findings(self.at.machine.now()).map_err(Failure::from).map(drop);
        let done = done.and(known);
        care.trouble = done.err().map(Trouble::from).filter(|trouble| trouble.exit != Exit::Interrupted);
        care
    }

    fn prune(
        &self,
        at: usize,
        config: &VaultConfig,
        vault: &Vault,
        lane: &dyn Progress,
        care: &mut Care,
    ) -> Result<(), Failure> {
        if !self.wishes.prune {
            return Ok(());
        }
        let taken = lock(&self.sites[at].taken).clone();
        let host = &vault.identity().host;
        let (now, new) = (self.at.machine.now(), self.taken_now());
        let snapshots = vault.snapshots();
        let mut decisions = Vec::new();
        for job in self.plan.jobs.iter().filter(|job| taken.contains_key(&job.source.name)) {
            let target = job.targets.iter().find(|target| target.vault == at);
            let Some((rules, target)) = job.source.keep.as_ref().zip(target) else { continue };
            let own = forget::of_source(&snapshots, &job.source.name, host);
            // The last snapshot dated by a clock and not taken by this run. The current time must fit its date.
            let counts =
                |info: &&SnapshotInfo| !info.is_outlier && !info.body.given && !new.contains(&info.id.to_string());
            let last = own.iter().rfind(counts).map(|info| info.date.secs);
            if waits_for_clock(last, now.secs, job.source.every, target.held) {
                care.held.push(job.source.name.clone());
                continue;
            }
            care.pruned.push(job.source.name.clone());
            let period = |time, length| forget::period(self.at.zone, time, length);
            decisions.extend(retention::plan_in(vault, &own, &rules.rules(self.at.machine.now()), &period, lane)?);
        }
        decisions.retain(|decision| !decision.keep());
        if let Some(age) = config.retire_after {
            let before = Time { secs: self.at.machine.now().secs.saturating_sub_unsigned(age.as_secs()), nanos: 0 };
            for client in prune::retire_unseen(vault, before, self.at.machine.now(), lane)? {
                lane.detail(&format!("client {client} wrote nothing for a long time: it is retired"));
            }
        }
        if decisions.is_empty() && vault.condemned().is_empty() {
            return Ok(());
        }
        let clock = self.at.machine.clock();
        let options = CollectOptions { threads: self.at.threads, ..CollectOptions::new(&clock) };
        let report = prune::prune(vault, &decisions, &options, lane)?;
        care.forgotten = decisions.len() as u64;
        care.bytes_freed = report.bytes_deleted.saturating_sub(report.bytes_stored);
        Ok(())
    }

    /// Restores a few files as a drill, if one is due.
    fn drill(&self, config: &VaultConfig, vault: &Vault, lane: &dyn Progress, care: &mut Care) -> Result<(), Failure> {
        let last = Last::load(vault);
        let is_due = |every| Last::is_due(last.as_ref(), every, self.at.machine.now().secs);
        let is_wanted = self.wishes.drill && config.drill_every.is_some_and(is_due) && !vault.snapshots().is_empty();
        if !is_wanted || self.at.observer.progress().stopped() {
            return Ok(());
        }
        let filter = Filter::default();
        let wish = Wish { files: drill::FILES_OF_RUN, len_max: drill::LEN_MAX_OF_RUN, filter: &filter };
        let (_, report) = drill::perform(vault, &wish, self.at.threads, self.at.machine, lane)?;
        care.drilled = Last::load(vault).filter(|_| !report.is_empty());
        Ok(())
    }

    /// The ids of the snapshots that this run took.
    fn taken_now(&self) -> BTreeSet<String> {
        lock(&self.report).outcomes.iter().filter_map(|outcome| outcome.snapshot.clone()).collect()
    }

    fn check(&self, config: &VaultConfig, vault: &Vault, lane: &dyn Progress, care: &mut Care) -> Result<(), Failure> {
        let clock = self.at.machine.clock();
        let options = CheckOptions {
            read_data: false,
            sample: (config.check_sample > 0.0).then_some(config.check_sample),
            max_time: config.check_max_time,
            clock: &clock,
            threads: self.at.threads,
        };
        let report = check::check(vault, &options, lane)?;
        care.checked = Some(Checked {
            damaged: report.is_damaged(),
            remarks: report.has_remarks(),
            packs_read: report.packs_read,
            bytes_read: report.bytes_read,
        });
        Ok(())
    }
}
