//! `vault config`.

use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use crate::path::Shown;
use crate::store::place::Place;
use serde::Serialize;

pub(super) use crate::service::config::*;

use crate::cli::args::ConfigCommand;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::local;
use crate::cli::machine::Here;
use crate::cli::machine::Machine;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::units;
use crate::json::Name;
use crate::ownfile;

#[derive(Serialize)]
struct ConfigJson<'a> {
    config: &'a str,
    written: bool,
    vaults: Vec<VaultJson<'a>>,
    sources: Vec<SourceJson<'a>>,
}

#[derive(Serialize)]
struct VaultJson<'a> {
    name: &'a str,
    path: PlaceJson<'a>,
    removable: bool,
    pack_size: Option<u64>,
    line: LineJson<'a>,
}

/// The settings of the line to a vault on another machine; null where the usual value applies.
#[derive(Serialize)]
struct LineJson<'a> {
    connections: Option<usize>,
    timeout_s: Option<u64>,
    retry_for_s: Option<u64>,
    storage_class: Option<&'a str>,
    ca_file: Option<Name<'a>>,
    cache: Option<u64>,
    credentials: Option<&'a str>,
}

impl<'a> LineJson<'a> {
    fn new(far: &'a FarConfig) -> Self {
        Self {
            connections: far.connections,
            timeout_s: far.timeout.map(|time| time.as_secs()),
            retry_for_s: far.retry_for.map(|time| time.as_secs()),
            storage_class: far.storage_class.as_deref(),
            ca_file: far.ca_file.as_ref().map(|path| Name(path.as_os_str().as_encoded_bytes())),
            cache: far.cache,
            credentials: far.credentials.as_ref().map(|given| given.name.as_str()),
        }
    }
}

/// The place of a vault.
#[derive(Serialize)]
#[serde(untagged)]
enum PlaceJson<'a> {
    Folder(Name<'a>),
    Far(String),
}

#[derive(Serialize)]
struct SourceJson<'a> {
    name: &'a str,
    paths: Vec<Name<'a>>,
    vaults: &'a [String],
    every_s: u64,
}

impl<'a> ConfigJson<'a> {
    fn new(shown: &'a str, written: bool, config: Option<&'a Config>) -> Self {
        let name = |path: &'a PathBuf| Name(path.as_os_str().as_encoded_bytes());
        let vault = |vault: &'a VaultConfig| VaultJson {
            name: &vault.name,
            path: match &vault.place {
                Place::Folder(path) => PlaceJson::Folder(name(path)),
                Place::Far(address) => PlaceJson::Far(address.to_string()),
            },
            removable: vault.removable,
            pack_size: vault.pack_size,
            line: LineJson::new(&vault.far),
        };
        let source = |source: &'a SourceConfig| SourceJson {
            name: &source.name,
            paths: source.paths.iter().map(name).collect(),
            vaults: &source.vaults,
            every_s: source.every.as_secs(),
        };
        Self {
            config: shown,
            written,
            vaults: config.map(|config| config.vaults.iter().map(vault).collect()).unwrap_or_default(),
            sources: config.map(|config| config.sources.iter().map(source).collect()).unwrap_or_default(),
        }
    }
}

#[derive(Serialize)]
struct MistakeJson<'a> {
    line: usize,
    column: usize,
    what: &'a str,
}

#[derive(Serialize)]
struct CheckJson<'a> {
    config: &'a str,
    mistakes: Vec<MistakeJson<'a>>,
    warnings: &'a [String],
}

/// Runs `vault config ...`.
pub(super) fn run(context: &Context, command: Option<&ConfigCommand>) -> Result<Exit, Failure> {
    let path = context.config_place()?;
    match command {
        Some(ConfigCommand::Check) => check(context, &path),
        Some(ConfigCommand::Init) => init(context, &path),
        None if path.exists() => show(context, &path),
        None => Err(none(&path)),
    }
}

/// Writes a new configuration, completely or not at all.
///
/// # Errors
/// If there is a configuration already, it would lie in a vault, or it cannot be written.
pub(super) fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    local::refuse_in_vault(path, "a configuration")?;
    let failed =
        |error: io::Error| Failure::caused(format!("cannot write the configuration {}", path.display()), &error);
    if let Some(folder) = path.parent() {
        ownfile::make_folder(folder).map_err(failed)?;
    }
    // The text is written to a file with another name, which is then linked in one step. An existing file is never
    // overwritten.
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        ownfile::hand_over(&temporary);
        fs::hard_link(&temporary, path).or_else(|error| match error.kind() {
            // Not every file system has hard links.
            io::ErrorKind::AlreadyExists => Err(error),
            _ if path.exists() => Err(io::ErrorKind::AlreadyExists.into()),
            _ => fs::rename(&temporary, path),
        })
    };
    let written = write();
    let _ = fs::remove_file(&temporary); // it may have become the file
    written.map_err(failed)
}

fn init(context: &Context, path: &Path) -> Result<Exit, Failure> {
    let shown = path.display().to_string();
    if path.exists() {
        return Err(Failure::new(format!("there is a configuration already: {shown}"))
            .hint("Nothing was changed. See whether it is right with: vault config check"));
    }
    write_new(path, &starter::text(&starter::Filled::default()))?;
    let mut out = Output::new();
    if context.global.json {
        out.json(&ConfigJson::new(&shown, true, None))?;
    } else if !context.global.quiet {
        out.say(format_args!("Wrote a configuration to begin with: {}", quoted(&shown)))?;
        out.say("Say in it what is to be kept, and where, with any editor. Then:")?;
        out.line("  vault config check    whether all is right")?;
        out.line("  vault run             does what is due")?;
    }
    out.finish().map(|()| Exit::Done)
}

fn show(context: &Context, path: &Path) -> Result<Exit, Failure> {
    let shown = path.display().to_string();
    let mut out = Output::new();
    let Some(config) = load(path, Here.home().as_deref())? else { return Err(none(path)) };
    if context.global.json {
        out.json(&ConfigJson::new(&shown, false, Some(&config)))?;
        return out.finish().map(|()| Exit::Done);
    }
    out.line(format_args!("The configuration is {}", quoted(&shown)))?;
    for vault in &config.vaults {
        let default = config.default_vault().is_some_and(|default| default.name == vault.name);
        let default = if default { " (default)" } else { "" };
        out.line(format_args!("  vault {}{default}: {}", Shown(vault.name.as_bytes()), vault.place))?;
    }
    for source in &config.sources {
        let paths: Vec<String> = source.paths.iter().map(|path| path.display().to_string()).collect();
        let every = units::every(source.every);
        let to = source.vaults.join(", ");
        out.line(format_args!(
            "  source {}: {} → {}, every {every}",
            Shown(source.name.as_bytes()),
            paths.join(", "),
            Shown(to.as_bytes())
        ))?;
    }
    out.say("See whether it is right with: vault config check")?;
    out.finish().map(|()| Exit::Done)
}

fn none(path: &Path) -> Failure {
    Failure::new(format!("there is no configuration {}", quoted(&path.display().to_string())))
        .hint("Write one to begin with: vault config init")
}

fn check(context: &Context, path: &Path) -> Result<Exit, Failure> {
    let shown = path.display().to_string();
    let Some(text) = read(path)? else {
        return Err(none(path));
    };
    let (config, mistakes) = parse::parse(&text, Here.home().as_deref());
    let warnings = if mistakes.is_empty() { warnings(context, &config) } else { Vec::new() };
    let mut out = Output::new();
    if context.global.json {
        let list = mistakes.iter();
        let list = list.map(|m| MistakeJson { line: m.line, column: m.column, what: &m.what }).collect();
        out.json(&CheckJson { config: &shown, mistakes: list, warnings: &warnings })?;
    } else {
        for mistake in &mistakes {
            out.styled(Style::Warning, &format!("{shown}:{}:{}: {}", mistake.line, mistake.column, mistake.what))?;
            let line = text.lines().nth(mistake.line - 1).unwrap_or_default();
            out.line(format_args!("    {}", Shown(line.as_bytes())))?;
            let before: String = line.chars().take(mistake.column - 1).collect();
            let before = Shown(before.as_bytes()).to_string();
            out.line(format_args!("    {}^", " ".repeat(crate::cli::table::width(&before))))?;
        }
        for warning in &warnings {
            out.styled(Style::Warning, &format!("note: {warning}"))?;
        }
        if !mistakes.is_empty() {
            let count = units::counted(mistakes.len() as u64, "mistake", "mistakes");
            out.styled(Style::Bold, &format!("{count} in {shown}"))?;
        } else if !context.global.quiet {
            let vaults = units::counted(config.vaults.len() as u64, "vault", "vaults");
            let sources = units::counted(config.sources.len() as u64, "source", "sources");
            out.styled(Style::Bold, &format!("No mistakes: {vaults}, {sources}."))?;
        }
    }
    out.finish()?;
    Ok(if mistakes.is_empty() { Exit::Done } else { Exit::Usage })
}

/// The settings in a text of the configuration, and its mistakes.
#[cfg(feature = "ui")]
pub(super) fn told(context: &Context, path: &Path, text: &str) -> serde_json::Value {
    let (config, mistakes) = parse::parse(text, Here.home().as_deref());
    let warnings = if mistakes.is_empty() { warnings(context, &config) } else { Vec::new() };
    let list = mistakes.iter().map(|m| MistakeJson { line: m.line, column: m.column, what: &m.what }).collect();
    let shown = path.display().to_string();
    serde_json::json!(CheckJson { config: &shown, mistakes: list, warnings: &warnings })
}

/// Problems that are not mistakes in the file, but prevent parts of `vault run` at present.
fn warnings(context: &Context, config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for vault in &config.vaults {
        let away = if vault.removable { " (it is removable)" } else { "" };
        match context.has_vault(&vault.place) {
            Ok(true) => {}
            Ok(false) if local::is_there(&vault.place) => {
                let name = quoted(&vault.name);
                warnings.push(format!("there is no vault in {} yet{away}: vault init --repo {name}", vault.place));
            }
            Ok(false) => warnings.push(format!("there is no folder {} now{away}", vault.place)),
            Err(failure) => warnings.push(failure.what),
        }
        if let Some(PasswordFrom::File(file)) = &vault.password
            && !file.exists()
        {
            warnings.push(format!("the password file {} of vault {} is missing", file.display(), vault.name));
        }
    }
    for source in &config.sources {
        let missing = source.paths.iter().chain(&source.exclude_from).filter(|path| !path.exists());
        warnings.extend(missing.map(|path| format!("source {}: there is no {}", source.name, path.display())));
    }
    if config.vaults.is_empty() {
        warnings.push("there is no vault in it: nothing can be kept anywhere".to_owned());
    }
    if config.sources.is_empty() {
        warnings.push("there is no source in it: vault run has nothing to do".to_owned());
    }
    warnings
}
