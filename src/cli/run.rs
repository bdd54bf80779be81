//! The command `vault run`, which takes everything that is due ([`crate::service::run`]) · [`follow`] shows a run of
//! another process · [`overview`] shows all sources and vaults.

mod follow;
pub(super) mod overview;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use crate::id::VaultId;
use crate::progress::Progress;
use crate::service::list;
use crate::service::plan::Plan;
use crate::service::report;
use crate::service::report::Care;
use crate::service::report::HookTrouble;
use crate::service::report::Outcome;
use crate::service::report::State;
use crate::service::run;
use crate::service::run::Doors;
use crate::service::run::Observer;
use crate::service::run::Of;
use crate::service::run::Ran;
use crate::service::run::Setting;
use crate::service::run::Watch;
use crate::service::run::Way;
use crate::service::run::Wish;
pub(super) use crate::service::run::history;
pub(super) use crate::service::run::now;
use crate::store::place::Place;
use crate::sync::lock;
use crate::vault::Vault;

use crate::cli::args::Kdf;
use crate::cli::args::NewVaultArgs;
use crate::cli::args::RunArgs;
use crate::cli::config::VaultConfig;
use crate::cli::context::Chosen;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::init;
use crate::cli::local;
use crate::cli::machine::Here;
use crate::cli::machine::Machine;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::units;

/// The folder that holds the records of runs.
pub(super) fn folder(context: &Context) -> Result<PathBuf, Failure> {
    Ok(context.state_folder()?.join("run"))
}

/// Runs `vault run`.
pub(super) fn run(context: &Context, args: &RunArgs) -> Result<Exit, Failure> {
    if args.follow || args.stop {
        return follow::run(context, args.stop, args.follow);
    }
    if args.background {
        crate::fs::low_priority();
    }
    if let Some(report) = &args.report {
        local::refuse_remote(report, "the report")?;
        local::refuse_in_vault(report, "a report")?;
    }
    let config = context.config()?;
    let (mut plan, settings, notify) = match (&args.list, config) {
        (Some(list), config) => {
            let plan = list::read(list, config, Here.home().as_deref())?;
            let (run, notify) = config.map(|config| (config.run.clone(), config.notify.clone())).unwrap_or_default();
            (plan, run, notify)
        }
        (None, Some(config)) => {
            if config.sources.is_empty() {
                return Err(Failure::usage("the configuration has no source: there is nothing to do")
                    .hint(format!("Add one to {}", context.config_place()?.display())));
            }
            (Plan::new(config, &args.names)?, config.run.clone(), config.notify.clone())
        }
        (None, None) => {
            return Err(Failure::usage(format!("there is no configuration {}", context.config_place()?.display()))
                .hint("Write one with vault config init, or give a list: vault run --list FILE"));
        }
    };
    let wants_more = !args.names.is_empty() || args.now || args.list.is_some();
    let wish = Wish {
        background: args.background,
        dry_run: args.dry_run,
        force: args.now || args.list.is_some(),
        makes_vaults: args.list.is_some(),
        prune: !args.no_prune,
        check: !args.no_check,
        digests: context.global.json || args.report.is_some(),
        own: wants_more || args.report.is_some() || args.then.is_some(),
        report: args.report.as_deref(),
        then: args.then.as_deref().map(|action| (action, args.then_always)),
    };
    let setting = Setting {
        machine: &Here,
        zone: &context.zone,
        threads: context.threads(),
        runs: &folder(context)?,
        doors: context,
        observer: &Teller { context, out: Mutex::new(Output::new()) },
    };
    run::run(&setting, &mut plan, (&settings, &notify), &wish)
}

impl Doors for Context {
    fn state(&self) -> Option<PathBuf> {
        self.state_folder().ok()
    }

    fn known_in(&self, place: &Place) -> Option<VaultId> {
        Self::known_in(self, place)
    }

    fn id_in(&self, place: &Place) -> Option<VaultId> {
        Self::id_in(self, place)
    }

    fn has_vault(&self, place: &Place) -> Result<bool, Failure> {
        Self::has_vault(self, place)
    }

    fn open(&self, config: &VaultConfig, progress: &dyn Progress) -> Result<Vault, Failure> {
        let chosen = Chosen { place: config.place.clone(), config: Some(config.clone()) };
        Ok(self.open_chosen(&chosen, None, progress)?.0)
    }

    fn make(&self, config: &VaultConfig) -> Result<(), Failure> {
        let new = NewVaultArgs {
            recovery_key: false,
            kdf: Kdf::Standard,
            delivery: None,
            label: None,
            another: false,
            chunk_avg: 64 << 10,
        };
        let chosen = Chosen { place: config.place.clone(), config: Some(config.clone()) };
        let created = init::create_at(self, &chosen, &new)?;
        self.remember(&config.place, created.password.again());
        if !self.global.json {
            let mut out = Output::new();
            init::tell(self, &created, &mut out)?;
            out.finish()?;
        }
        Ok(())
    }
}

/// The observer that reports a run to a person or a program.
struct Teller<'a> {
    context: &'a Context,
    out: Mutex<Output>,
}

impl Teller<'_> {
    fn say(&self, text: &str, hint: Option<&str>, is_bad: bool) {
        self.context.screen.aside(|| {
            let mut out = lock(&self.out);
            let line = if is_bad { out.paint(Style::Warning, text) } else { text.to_owned() };
            // If nobody reads the output any more, the work goes on.
            let _ = out.line(line);
            if let Some(hint) = hint {
                let _ = out.line(format_args!("    {hint}"));
            }
            let _ = out.flush();
        });
    }
}

impl Observer for Teller<'_> {
    fn progress(&self) -> &dyn Progress {
        &self.context.screen
    }

    fn lane(&self, of: Of) -> Box<dyn Progress + '_> {
        Box::new(self.context.screen.lane(of))
    }

    fn watch(&self) -> Arc<dyn Watch> {
        self.context.screen.watch()
    }

    fn draws(&self) -> bool {
        self.context.screen.draws()
    }

    fn begin(&self) {
        self.context.screen.watch_interrupts();
    }

    fn result(&self, outcome: &Outcome) {
        let global = &self.context.global;
        let is_news = outcome.state != State::NotDue || global.verbose > 0;
        let is_bad = !matches!(outcome.state, State::Complete | State::Unchanged | State::NotDue);
        if !global.json && is_news && (is_bad || !global.quiet) {
            let (text, hint) = report::line(outcome);
            self.say(&text, hint.as_deref(), is_bad);
        }
    }

    fn care(&self, care: &Care) {
        let Some(line) = report::care_line(care).filter(|_| !self.context.global.json) else { return };
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

    fn hook(&self, trouble: &HookTrouble) {
        if !self.context.global.json {
            let HookTrouble { source, hook, what } = trouble;
            self.say(&format!("{source}: the command {hook}: {what}"), None, true);
        }
    }

    fn flush(&self) -> Result<(), Failure> {
        lock(&self.out).flush()
    }

    fn left_undone(&self, action: &str) {
        if !self.context.global.quiet {
            let text = format!("not done, as not all went well: --then {action} (see --then-always)");
            self.context.screen.warn(&text);
        }
    }

    fn done(&self, ran: &Ran<'_>) -> Result<(), Failure> {
        let Ran { way, plan, report, summary, begun, ended } = *ran;
        let global = &self.context.global;
        let mut out = Output::new();
        if global.json {
            out.json(&report.json(begun, ended))?;
            return out.finish();
        }
        match way {
            Way::Trial => {
                for outcome in &report.outcomes {
                    out.line(report::line(outcome).0)?;
                }
                out.styled(Style::Bold, "Dry run: nothing was done.")?;
            }
            _ if global.quiet => {}
            Way::Another => out.say("Another vault run is going on: it does what is due.")?,
            Way::OnBattery => {
                out.say("On battery: it waits for the mains (on-battery = false in the configuration).")?;
            }
            Way::Idle => {
                let next = plan.next().map_or_else(String::new, |(source, vault, time)| {
                    format!(" Next: {source} → {vault} in {}.", units::about(time))
                });
                out.say(format_args!("Nothing is due.{next}"))?;
            }
            Way::Worked => out.styled(Style::Bold, summary)?,
        }
        out.finish()
    }
}
