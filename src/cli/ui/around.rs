//! The page's access to the program: the configuration, the clock and runs. Every request reads them again, because the
//! page may run for weeks.

use std::env;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use crate::engine::prune::retention::Period;
use crate::engine::prune::retention::Rules;
use crate::ownfile;
use crate::ownfile::replace_private_file;
use crate::progress::Progress;
use crate::service::drill;
use crate::service::drill::DrillJson;
use crate::service::drill::FILES;
use crate::service::drill::LEN_MAX;
use crate::service::drill::Wish;
use crate::service::select::Filter;
use crate::store::place::Place;
use crate::sync::lock;
use crate::tree::Time;
use crate::vault::Vault;
use crate::web::Home;
use crate::web::Problem;
use crate::web::Question;
use crate::web::desk;
use serde_json::Value;
use serde_json::json;

use super::keys;
use super::save;
use crate::cli::args::GlobalArgs;
use crate::cli::check;
use crate::cli::config;
use crate::cli::context::Chosen;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::doctor;
use crate::cli::error::Failure;
use crate::cli::local;
use crate::cli::machine::Here;
use crate::cli::password::Password;
use crate::cli::prune;
use crate::cli::restore;
use crate::cli::run;
use crate::cli::stats;

/// The page's access to the program.
pub(super) struct Around {
    global: GlobalArgs,
    place: Place,
    password: Mutex<Password>,
    begun: Instant,
    threads: usize,
    /// The folder that holds the records of runs.
    runs: Option<PathBuf>,
    usage: stats::Last,
}

impl Around {
    /// The program as the command was called.
    pub(super) fn new(context: &Context, chosen: &Chosen, password: Password, begun: Instant) -> Self {
        Self {
            global: context.global.clone(),
            place: chosen.place.clone(),
            password: Mutex::new(password),
            begun,
            threads: context.threads(),
            runs: run::folder(context).ok(),
            usage: stats::Last::default(),
        }
    }

    /// The context of the same command, as if it began now. It prints nothing.
    fn context(&self) -> Context {
        let mut global = self.global.clone();
        (global.json, global.quiet, global.verbose, global.no_progress) = (false, true, 0, true);
        Context::new(global).reading(true)
    }

    fn told(&self, question: &Question, vault: &Vault, progress: &dyn Progress) -> Result<Value, Failure> {
        let context = self.context();
        match question {
            Question::Overview => Ok(json!({
                "state": doctor::first(&context, vault)?,
                "plan": run::overview::told(&context)?,
                "running": self.running().is_some(),
                "drill": drill::Last::load(vault).map(|last| {
                    json!({ "time": dates::exact(last.time()), "files": last.files, "bytes": last.bytes, "failed": last.failed })
                }),
            })),
            Question::Doctor => doctor::told(&context, vault, progress).map(|health| json!(health)),
            Question::Stats => self.usage.told(&context, &self.place, vault, progress),
            Question::Keep(wish) => {
                let estimate = wish.get("estimate").and_then(Value::as_bool) != Some(false);
                prune::told(&context, vault, &rules_of(wish), estimate, progress)
            }
            Question::Settings => settings(&context),
            Question::Configure(wish) => configure(&context, wish),
            Question::Runs => Ok(json!(run::history::runs(&run::folder(&context)?))),
            Question::Save(wish) => {
                let password = lock(&self.password).again();
                save::run(&self.global, &context, vault, &password, wish, progress)
            }
            Question::Check(wish) => {
                let percent = wish.get("sample").and_then(Value::as_f64).filter(|part| (0.0..=100.0).contains(part));
                check::told(&context, vault, percent.map(|percent| percent / 100.0), progress)
            }
            Question::Drill(_) => {
                let wish = Wish { files: FILES, len_max: LEN_MAX, filter: &Filter::default() };
                let (snapshots, report) = drill::perform(vault, &wish, self.threads, &Here, progress)?;
                Ok(json!(DrillJson::new(&snapshots, &report, dates::now())))
            }
            Question::Run => Ok(json!(run::history::running(&run::folder(&context)?))),
            Question::AddKey(wish) => keys::add(&context, vault, wish),
            Question::ChangeKey(wish) => keys::change(&context, vault, wish, &self.password),
            Question::RemoveKey(wish) => keys::remove(&context, vault, wish),
            Question::StopRun(wish) => {
                let id = wish.get("run").and_then(Value::as_str).unwrap_or_default();
                run::history::stop(&run::folder(&context)?, id).map(|()| json!({ "stopping": id }))
            }
        }
    }
}

impl Home for Around {
    fn now(&self) -> Time {
        dates::now()
    }

    fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    fn folder(&self) -> Option<PathBuf> {
        env::home_dir().filter(|home| home.is_absolute())
    }

    fn place(&self) -> String {
        self.place.to_string()
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn answer(&self, question: &Question, vault: &Vault, progress: &dyn Progress) -> Result<Value, Problem> {
        Ok(self.told(question, vault, progress)?)
    }

    fn around(&self, source: &str, delete: bool) -> Result<desk::Around, Problem> {
        let context = self.context();
        Ok(desk::Around {
            today: restore::rules_of_today(&context, delete, source)?,
            state: context.state_folders()?,
            configuration: restore::configuration(&context),
        })
    }

    fn running(&self) -> Option<Value> {
        run::now::look(self.runs.as_ref()?)
    }

    fn log(&self, text: &str) {
        if self.global.verbose > 0 {
            crate::cli::note(text);
        }
    }
}

/// The library's rules from those of the page.
fn rules_of(given: &Value) -> Rules {
    let given = given.get("rules").unwrap_or(given);
    let count = |name: &str| given.get(name).and_then(Value::as_u64);
    let periods = [
        (Period::Hour, "hourly"),
        (Period::Day, "daily"),
        (Period::Week, "weekly"),
        (Period::Month, "monthly"),
        (Period::Year, "yearly"),
    ];
    Rules {
        last: count("last"),
        periods: periods.into_iter().filter_map(|(period, name)| Some((period, count(name)?))).collect(),
        now: Some(dates::now()),
        ..Rules::default()
    }
}

/// The hash by which a text of the configuration is recognized.
fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

fn described(context: &Context, text: &str) -> Result<Value, Failure> {
    let path = context.config_place()?;
    let mut told = config::told(context, &path, text);
    if let Value::Object(told) = &mut told {
        told.insert("text".to_owned(), text.into());
        told.insert("hash".to_owned(), hash(text).into());
    }
    Ok(told)
}

/// The current configuration. It is empty if there is no file.
fn settings(context: &Context) -> Result<Value, Failure> {
    let text = config::read(&context.config_place()?)?.unwrap_or_default();
    described(context, &text)
}

/// Checks a text of the configuration. Writes it if that is wanted and it has no mistakes, and keeps the previous file
/// beside it.
fn configure(context: &Context, wish: &Value) -> Result<Value, Failure> {
    let text = wish.get("text").and_then(Value::as_str).ok_or_else(|| Failure::usage("there is no text"))?;
    let told = described(context, text)?;
    let is_sound = told.get("mistakes").and_then(Value::as_array).is_some_and(Vec::is_empty);
    if !is_sound || wish.get("write").and_then(Value::as_bool) != Some(true) {
        return Ok(told);
    }
    let path = context.config_place()?;
    let before = config::read(&path)?;
    let seen = wish.get("hash").and_then(Value::as_str).unwrap_or_default();
    if hash(before.as_deref().unwrap_or_default()) != seen {
        return Err(Failure::usage("the configuration was changed meanwhile").hint("Look at it again before you save."));
    }
    let failed = |error: std::io::Error| Failure::caused(format!("cannot write {}", path.display()), &error);
    if before.is_none() {
        local::refuse_in_vault(&path, "a configuration")?;
    }
    if let Some(folder) = path.parent() {
        ownfile::make_folder(folder).map_err(failed)?;
    }
    if let Some(before) = before {
        replace_private_file(&path.with_extension("toml~"), before.as_bytes()).map_err(failed)?;
    }
    replace_private_file(&path, text.as_bytes()).map_err(failed)?;
    Ok(told)
}
