//! The care for vaults after their snapshots: old ones go, and a part of the data is checked.

use std::collections::BTreeSet;

use vault::engine::check;
use vault::engine::check::CheckOptions;
use vault::engine::prune;
use vault::engine::retention;
use vault::progress::Progress;
use vault::tree::Time;
use vault::vault::SnapshotInfo;
use vault::vault::Vault;

use super::plan::waits_for_clock;
use super::report;
use super::report::Care;
use super::report::Checked;
use super::report::Trouble;
use super::work::Crew;
use super::work::Opened;
use super::work::lock;
use crate::cli::args::CollectArgs;
use crate::cli::config::VaultConfig;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::key;
use crate::cli::machine::Here;
use crate::cli::progress::Lane;
use crate::cli::progress::Of;
use crate::cli::prune as prune_command;
use crate::cli::select::Filter;
use vault::service::drill;
use vault::service::drill::Last;
use vault::service::drill::Wish;
use vault::service::keep;

/// How much of a vault may stay occupied by what nobody needs.
const MAX_UNUSED: f64 = 0.05;

impl Crew<'_> {
    /// Cares for each vault that was opened.
    pub fn care_all(&self) {
        let used = |at: &usize| matches!(*lock(&self.sites[*at].opened), Opened::Yes(_));
        let pieces: Vec<(BTreeSet<u64>, usize)> =
            (0..self.sites.len()).filter(used).map(|at| (BTreeSet::from([self.sites[at].device]), at)).collect();
        self.spread(&pieces, |at| {
            let care = self.care(*at);
            self.journal.care(&care);
            if let Some(line) = report::care_line(&care).filter(|_| !self.context.global.json) {
                let is_bad = care.trouble.is_some() || care.checked.is_some_and(|checked| checked.damaged);
                let is_hurt = care.drilled.as_ref().is_some_and(|last| last.failed > 0);
                let is_bad = is_bad || is_hurt || !care.held.is_empty();
                if is_bad || !self.context.global.quiet {
                    let hint = care.trouble.as_ref().and_then(|trouble| trouble.hint.clone());
                    let damaged = is_hurt || care.checked.is_some_and(|checked| checked.damaged);
                    let repo = quoted(&care.vault);
                    let hint = hint.or_else(|| {
                        let of = "They are in the next run, unless that is earlier. By hand: vault prune";
                        (!care.held.is_empty()).then(|| of.to_owned())
                    });
                    let hint = hint.or(damaged.then(|| format!("See what is hurt with: vault check --repo {repo}")));
                    self.say(&line, hint.as_deref(), is_bad);
                }
            }
            lock(&self.report).cares.push(care);
        });
    }

    /// Drops old snapshots of a vault, and checks a part of it.
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
        let lane = self.context.screen.lane(Of::vault(&config.name));
        let done = self.prune(at, config, vault, &lane, &mut care).and_then(|()| {
            let is_due = self.wishes.check.contains(&care.place);
            if is_due && !self.context.screen.stopped() { self.check(config, vault, &lane, &mut care) } else { Ok(()) }
        });
        let done = done.and_then(|()| self.drill(config, vault, &lane, &mut care));
        drop(lane);
        key::settle(self.context, vault);
        // What is known is kept for the report and for runs that do not open the vault.
        let known = vault.known_findings(dates::now()).map_err(Failure::from).map(drop);
        let done = done.and(known);
        care.trouble = done.err().map(Trouble::from).filter(|trouble| trouble.exit != Exit::Interrupted);
        care
    }

    fn prune(
        &self,
        at: usize,
        config: &VaultConfig,
        vault: &Vault,
        lane: &Lane,
        care: &mut Care,
    ) -> Result<(), Failure> {
        if !self.wishes.prune {
            return Ok(());
        }
        let taken = lock(&self.sites[at].taken).clone();
        let host = &vault.identity().host;
        let (now, new) = (dates::now(), self.taken_now());
        let snapshots = vault.snapshots();
        let mut decisions = Vec::new();
        for job in self.plan.jobs.iter().filter(|job| taken.contains_key(&job.source.name)) {
            let target = job.targets.iter().find(|target| target.vault == at);
            let Some((rules, target)) = job.source.keep.as_ref().zip(target) else { continue };
            let own = keep::of_source(&snapshots, &job.source.name, host);
            // The last one that a clock dated, and not in this run: now must fit it.
            let counts =
                |info: &&SnapshotInfo| !info.is_outlier && !info.body.given && !new.contains(&info.id.to_string());
            let last = own.iter().rfind(counts).map(|info| info.date.secs);
            if waits_for_clock(last, now.secs, job.source.every, target.held) {
                care.held.push(job.source.name.clone());
                continue;
            }
            care.pruned.push(job.source.name.clone());
            let period = |time, length| keep::period(&self.context.zone, time, length);
            decisions.extend(retention::plan(&own, &rules.rules(dates::now()), &period));
        }
        decisions.retain(|decision| !decision.keep());
        if let Some(age) = config.retire_after {
            let before = Time { secs: dates::now().secs.saturating_sub_unsigned(age.as_secs()), nanos: 0 };
            for client in prune::retire_unseen(vault, before, dates::now(), lane)? {
                lane.detail(&format!("client {client} wrote nothing for a long time: it is retired"));
            }
        }
        if decisions.is_empty() && vault.condemned().is_empty() {
            return Ok(());
        }
        let args = CollectArgs { max_unused: MAX_UNUSED, max_repack_size: None, no_verify: false };
        let options = prune_command::collect_options(self.context, &args);
        let report = prune::prune(vault, &decisions, &options, lane)?;
        care.forgotten = decisions.len() as u64;
        care.bytes_freed = report.bytes_deleted.saturating_sub(report.bytes_stored);
        Ok(())
    }

    /// Tries a restore of a few files, if that is due.
    fn drill(&self, config: &VaultConfig, vault: &Vault, lane: &Lane, care: &mut Care) -> Result<(), Failure> {
        let last = Last::load(vault);
        let is_due = |every| Last::is_due(last.as_ref(), every, dates::now().secs);
        let is_wanted = self.wishes.drill && config.drill_every.is_some_and(is_due) && !vault.snapshots().is_empty();
        if !is_wanted || self.context.screen.stopped() {
            return Ok(());
        }
        let filter = Filter::default();
        let wish = Wish { files: drill::FILES_OF_RUN, len_max: drill::LEN_MAX_OF_RUN, filter: &filter };
        drill::perform(vault, &wish, self.context.threads(), &Here, lane)?;
        care.drilled = Last::load(vault);
        Ok(())
    }

    /// The ids of the snapshots that this run took.
    fn taken_now(&self) -> BTreeSet<String> {
        lock(&self.report).outcomes.iter().filter_map(|outcome| outcome.snapshot.clone()).collect()
    }

    fn check(&self, config: &VaultConfig, vault: &Vault, lane: &Lane, care: &mut Care) -> Result<(), Failure> {
        let options = CheckOptions {
            read_data: false,
            sample: (config.check_sample > 0.0).then_some(config.check_sample),
            max_time: config.check_max_time,
            clock: &dates::now,
            threads: self.context.threads(),
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
