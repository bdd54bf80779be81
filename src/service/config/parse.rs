//! Parses the text of a configuration into settings. It finds all mistakes at once, each with its position.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::patterns::exclude::ExcludeOptions;
use crate::engine::patterns::exclude::check;
use crate::engine::patterns::exclude::given;
use crate::store::place::Address;
use crate::store::place::Place;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use super::Config;
use super::CredentialsConfig;
use super::CredentialsFrom;
use super::Desktop;
use super::FarConfig;
use super::Hooks;
use super::NotifyConfig;
use super::Order;
use super::PasswordFrom;
use super::RunConfig;
use super::SourceConfig;
use super::VaultConfig;
use super::WHOLE_PATH;
use crate::service::config::IGNORE_FILE;
use crate::service::keep::Keep;
use crate::service::local;
use crate::service::suggest::nearest;
use crate::service::units;
use crate::service::usual;
use crate::service::values::parse_duration;
use crate::service::values::parse_id_start;
use crate::service::values::parse_level;
use crate::service::values::parse_pack_size;
use crate::service::values::parse_part;
use crate::service::values::parse_storage_class;
use crate::service::values::parse_verify_others;

/// The default interval between snapshots.
const EVERY: Duration = Duration::from_secs(86_400);
/// By default, a source is overdue after this many intervals.
const OVERDUE_TIMES: u32 = 3;
/// The maximum for the number of snapshots taken at the same time.
const PARALLEL_MAX: u64 = 16;
/// The maximum for the number of requests under way.
const CONNECTIONS_MAX: u64 = 64;

/// A mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The mistake, and the correct form.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.what)
    }
}

/// Parses a configuration. Wrong settings are left out of the result, so use it only if there are no mistakes.
pub fn parse(text: &str, home: Option<&Path>) -> (Config, Vec<Mistake>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text, home, wrong: Vec::new() };
    for error in &errors {
        reader.wrong(error.span().unwrap_or(0..0), error.message().to_owned());
    }
    let config = if errors.is_empty() { reader.config(&table) } else { Config::default() };
    let mut wrong = reader.wrong;
    wrong.sort();
    let mistake = |(at, what): (usize, String)| {
        let (line, column) = line_and_column(text, at);
        Mistake { line, column, what }
    };
    (config, wrong.into_iter().map(mistake).collect())
}

/// The line and column of a byte offset in a text.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

struct Reader<'t> {
    text: &'t str,
    home: Option<&'t Path>,
    /// The mistakes, each with its byte offset.
    wrong: Vec<(usize, String)>,
}

/// A table, and those of its keys that were asked for.
struct Section<'r, 't, 'v> {
    reader: &'r mut Reader<'t>,
    table: &'v DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'t> Reader<'t> {
    fn wrong(&mut self, at: Range<usize>, what: impl Into<String>) {
        self.wrong.push((at.start, what.into()));
    }

    fn config(&mut self, table: &Spanned<DeTable<'t>>) -> Config {
        let mut config = Config::default();
        let mut top = Section { reader: self, table: table.get_ref(), known: Vec::new() };
        let default_vault = top.string("default-vault");
        let credentials = top.named("credentials");
        let vaults = top.named("vaults");
        let sources = top.named("sources");
        let (run, notify) = (top.table("run"), top.table("notify"));
        top.finish();
        for (name, at, table) in credentials {
            self.check_name(&name, at, "source of secrets");
            let given = self.credentials(name, table);
            config.credentials.extend(given);
        }
        for (name, at, table) in vaults {
            self.check_name(&name, at, "vault");
            let vault = self.vault(name, table, &config);
            config.vaults.extend(vault);
        }
        if let Some((name, at)) = default_vault {
            self.vault_name(&config, &name, at);
            config.default_vault = Some(name);
        }
        for (name, at, table) in sources {
            self.check_name(&name, at, "source");
            let source = self.source(name, table, &config);
            config.sources.extend(source);
        }
        config.run = run.map(|table| self.run(table)).unwrap_or_default();
        config.notify = notify.map(|table| self.notify(table)).unwrap_or_default();
        config
    }

    /// Checks a name, which users type and see. A vault's name must not look like a path.
    fn check_name(&mut self, name: &str, at: Range<usize>, what: &str) {
        let odd = |c: char| c.is_control() || (what == "vault" && (c == '/' || c == '\\'));
        if name.is_empty() || name.chars().any(odd) || name.starts_with(['-', '~', '.']) {
            self.wrong(at, format!("'{}' cannot be the name of a {what}", name.escape_debug()));
        }
    }

    fn vault_name(&mut self, config: &Config, name: &str, at: Range<usize>) {
        if config.vault(name).is_none() {
            let names = config.vaults.iter().map(|vault| vault.name.as_str());
            let meant = nearest(name, names.clone()).map(|name| format!("; did you mean '{name}'?"));
            let all: Vec<&str> = names.collect();
            let all = if all.is_empty() {
                "; there is none in this file".to_owned()
            } else {
                format!("; there is {}", all.join(", "))
            };
            self.wrong(at, format!("there is no vault '{name}'{}", meant.unwrap_or(all)));
        }
    }

    fn credentials(&mut self, name: String, table: &Spanned<DeValue<'t>>) -> Option<CredentialsConfig> {
        let mut section = Section::new(self, table)?;
        let ways = [
            section.string("command").map(|(command, _)| CredentialsFrom::Command(OsString::from(command))),
            section.path("file").map(|(file, _)| CredentialsFrom::File(file)),
            section.string("environment").map(|(start, _)| CredentialsFrom::Environment(start)),
        ];
        let mut ways = ways.into_iter().flatten();
        let way = ways.next();
        if way.is_none() || ways.next().is_some() {
            section.missing(table, "give one of command, file and environment");
        }
        section.finish();
        way.map(|from| CredentialsConfig { name, from })
    }

    fn vault(&mut self, name: String, table: &Spanned<DeValue<'t>>, config: &Config) -> Option<VaultConfig> {
        let mut section = Section::new(self, table)?;
        let path = section.place("path");
        if !section.table.contains_key("path") {
            section.missing(table, &format!("the vault '{name}' needs a path, such as path = \"/mnt/disk/vault\""));
        }
        if let Some((path, at)) = &path
            && let Some(other) = config.vaults.iter().find(|other| other.place == *path)
        {
            section.reader.wrong(at.clone(), format!("the vault '{}' lies there already", other.name));
        }
        let mut vault = VaultConfig::new(name.clone(), path.map(|(path, _)| path).unwrap_or_default());
        let file = section.path("password-file");
        let command = section.string("password-command");
        let keyring = section.flag("keyring");
        if [file.is_some(), command.is_some(), keyring == Some(true)].iter().filter(|given| **given).count() > 1 {
            section.missing(table, "give one of password-file, password-command and keyring, not several");
        }
        vault.password = match (file, command, keyring) {
            (Some((file, _)), _, _) => Some(PasswordFrom::File(file)),
            (_, Some((command, _)), _) => Some(PasswordFrom::Command(OsString::from(command))),
            (_, _, Some(true)) => Some(PasswordFrom::Keyring(name)),
            _ => None,
        };
        if let Some(level) = section.level("compression") {
            vault.level = level;
        }
        if let Some(others) = section.parsed("verify-others", parse_verify_others) {
            vault.others = others;
        }
        vault.id = section.parsed("id", parse_id_start);
        vault.removable = section.flag("removable").unwrap_or(false);
        vault.check_every = section.duration_or_never("check-every", vault.check_every);
        if let Some(sample) = section.parsed("check-sample", parse_part) {
            vault.check_sample = sample;
        }
        vault.check_max_time = section.duration_or_never("check-max-time", vault.check_max_time);
        vault.drill_every = section.duration_or_never("drill-every", vault.drill_every);
        vault.retire_after = section.duration_or_never("retire-after", vault.retire_after);
        let copy_from = section.string("copy-from");
        vault.pack_size = section.parsed("pack-size", parse_pack_size);
        vault.far = section.far(&vault.place, config);
        section.finish();
        if let Some((first, at)) = copy_from {
            // Only a vault earlier in the file is accepted, so there is no cycle.
            if config.vault(&first).is_none() {
                self.wrong(at, format!("copy-from names a vault that stands before this one, and '{first}' does not"));
            }
            vault.copy_from = Some(first);
        }
        Some(vault)
    }

    fn source(&mut self, name: String, table: &Spanned<DeValue<'t>>, config: &Config) -> Option<SourceConfig> {
        let mut section = Section::new(self, table)?;
        let paths = section.source_paths(&name, table);
        let every = section.parsed("every", parse_duration).unwrap_or(EVERY);
        let overdue = section.parsed("overdue", parse_duration).unwrap_or(every.saturating_mul(OVERDUE_TIMES));
        let patterns = section.strings("exclude").unwrap_or_default();
        let exclude_from =
            section.paths("exclude-from").unwrap_or_default().into_iter().map(|(path, _)| path).collect();
        let caches = section.flag("exclude-caches").unwrap_or(false);
        let usual = section.flag("exclude-usual").unwrap_or(false);
        let if_present = section.strings("exclude-if-present").unwrap_or_default();
        let larger_than = section.parsed("exclude-larger-than", units::parse_size);
        let nodump = section.flag("exclude-nodump").unwrap_or(false);
        let one_file_system = section.flag("one-file-system").unwrap_or(false);
        let vaultignore = section.flag("vaultignore").unwrap_or(true);
        let tags = section.strings("tags").unwrap_or_default().into_iter().map(|(tag, _)| tag).collect();
        let skip_if_unchanged = section.flag("skip-if-unchanged").unwrap_or(false);
        let vaults = section.strings("vaults");
        let keep = section.table("keep");
        let hooks = section.hooks();
        section.finish();
        let all = || config.vaults.iter().map(|vault| vault.name.clone()).collect();
        let vaults = match vaults {
            Some(vaults) => self.vault_names(config, vaults),
            None => all(),
        };
        if vaults.is_empty() {
            let what = format!("the source '{name}' goes to no vault; name one in [vaults.NAME]");
            self.wrong(table.span(), what);
        }
        for (pattern, at) in &patterns {
            if let Err(error) = check(pattern) {
                self.wrong(at.clone(), error.to_string());
            }
        }
        Some(SourceConfig {
            name,
            paths,
            vaults,
            every,
            overdue,
            exclude: ExcludeOptions {
                patterns: usual::before(usual, patterns.iter().map(|(pattern, _)| given(pattern)).collect()),
                ignore_file: vaultignore.then(|| IGNORE_FILE.to_vec()),
                caches,
                if_present: if_present.into_iter().map(|(name, _)| name.into_bytes()).collect(),
                larger_than,
                one_file_system,
                nodump,
            },
            exclude_from,
            keep: keep.and_then(|table| self.keep(table)),
            tags,
            skip_if_unchanged,
            hooks,
        })
    }

    fn vault_names(&mut self, config: &Config, names: Vec<(String, Range<usize>)>) -> Vec<String> {
        let mut seen = HashSet::new();
        for (name, at) in &names {
            self.vault_name(config, name, at.clone());
            if !seen.insert(name) {
                self.wrong(at.clone(), format!("the vault '{name}' is named twice"));
            }
        }
        names.iter().map(|(name, _)| name.clone()).collect()
    }

    fn keep(&mut self, table: &Spanned<DeValue<'t>>) -> Option<Keep> {
        let mut section = Section::new(self, table)?;
        let keep = Keep {
            keep: section.number("last", u64::MAX),
            keep_hourly: section.number("hourly", u64::MAX),
            keep_daily: section.number("daily", u64::MAX),
            keep_weekly: section.number("weekly", u64::MAX),
            keep_monthly: section.number("monthly", u64::MAX),
            keep_yearly: section.number("yearly", u64::MAX),
            keep_within: section.parsed("within", parse_duration),
            keep_tag: section.strings("tags").unwrap_or_default().into_iter().map(|(tag, _)| tag).collect(),
        };
        if section.table.is_empty() {
            section.missing(table, "keep has no rule; without keep every snapshot stays");
        }
        section.finish();
        Some(keep)
    }

    fn run(&mut self, table: &Spanned<DeValue<'t>>) -> RunConfig {
        let Some(mut section) = Section::new(self, table) else { return RunConfig::default() };
        let order = section.choice("order", &[("listed", Order::Listed), ("small-first", Order::SmallFirst)]);
        let parallel = section.number("parallel", PARALLEL_MAX);
        if parallel == Some(0) {
            section.missing(table, "parallel is 1 at least");
        }
        let on_battery = section.flag("on-battery");
        section.finish();
        let default = RunConfig::default();
        RunConfig {
            order: order.unwrap_or_default(),
            parallel: parallel.map_or(default.parallel, |number| number as usize),
            on_battery: on_battery.unwrap_or(default.on_battery),
        }
    }

    fn notify(&mut self, table: &Spanned<DeValue<'t>>) -> NotifyConfig {
        let Some(mut section) = Section::new(self, table) else { return NotifyConfig::default() };
        let desktop = section.choice(
            "desktop",
            &[("never", Desktop::Never), ("failure", Desktop::Failure), ("always", Desktop::Always)],
        );
        let ping = section.string("ping");
        if let Some((address, at)) = &ping
            && !(address.starts_with("https://") || address.starts_with("http://"))
        {
            section.reader.wrong(at.clone(), "ping is an address that begins with https:// or http://");
        }
        let prometheus = section.path("prometheus");
        section.finish();
        NotifyConfig {
            desktop: desktop.unwrap_or_default(),
            ping: ping.map(|(address, _)| address),
            prometheus: prometheus.map(|(path, _)| path),
        }
    }
}

impl<'r, 't, 'v> Section<'r, 't, 'v> {
    fn new(reader: &'r mut Reader<'t>, value: &'v Spanned<DeValue<'t>>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Self { reader, table, known: Vec::new() }),
            other => {
                let what = format!("a table is wanted here, not {}", shown_type(other));
                reader.wrong(value.span(), what);
                None
            }
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'v Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// Adds a mistake about the table as a whole.
    fn missing(&mut self, table: &Spanned<DeValue<'t>>, what: &str) {
        self.reader.wrong(table.span(), what);
    }

    fn unlike(&mut self, key: &str, value: &Spanned<DeValue<'t>>, wanted: &str) {
        let what = format!("{key} is {wanted}, not {}", shown_type(value.get_ref()));
        self.reader.wrong(value.span(), what);
    }

    fn string(&mut self, key: &'static str) -> Option<(String, Range<usize>)> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => Some((text.to_string(), value.span())),
            DeValue::String(_) => {
                self.reader.wrong(value.span(), format!("{key} is empty"));
                None
            }
            _ => {
                self.unlike(key, value, "a text in quotes");
                None
            }
        }
    }

    fn strings(&mut self, key: &'static str) -> Option<Vec<(String, Range<usize>)>> {
        let value = self.get(key)?;
        let DeValue::Array(list) = value.get_ref() else {
            self.unlike(key, value, "a list, such as [\"a\", \"b\"]");
            return None;
        };
        let mut texts = Vec::new();
        for item in list {
            match item.get_ref() {
                DeValue::String(text) if !text.is_empty() => texts.push((text.to_string(), item.span())),
                DeValue::String(_) => self.reader.wrong(item.span(), format!("a text in {key} is empty")),
                _ => self.unlike(&format!("each of {key}"), item, "a text in quotes"),
            }
        }
        Some(texts)
    }

    fn absolute(&mut self, text: &str, at: &Range<usize>) -> Option<PathBuf> {
        let below_home = text.strip_prefix("~/").or((text == "~").then_some(""));
        let path = match (below_home, self.reader.home) {
            (Some(rest), Some(home)) => home.join(rest),
            (Some(_), None) => {
                self.reader.wrong(at.clone(), "~ means nothing here, as there is no home folder");
                return None;
            }
            (None, _) => PathBuf::from(text),
        };
        if path.is_absolute() {
            return Some(crate::service::roots::absolute(Path::new(""), &path));
        }
        self.reader.wrong(
            at.clone(),
            if local::looks_remote(text) {
                local::remote(text, "it").what
            } else {
                format!("'{text}' is not a whole path: begin it with {WHOLE_PATH}")
            },
        );
        None
    }

    /// The settings of the line to a vault. Adds a mistake for each that has no effect in this place.
    fn far(&mut self, place: &Place, config: &Config) -> FarConfig {
        let address = place.address();
        let is_bucket = matches!(address, Some(Address::S3(_) | Address::Azure { .. } | Address::Google { .. }));
        let has_certificates = is_bucket || matches!(address, Some(Address::Rest(_)));
        for (key, fits, wanted) in [
            ("connections", address.is_some(), "a vault at an address"),
            ("timeout", address.is_some(), "a vault at an address"),
            ("retry-for", address.is_some(), "a vault at an address"),
            ("cache", address.is_some(), "a vault at an address"),
            ("storage-class", is_bucket, "a vault at s3://, azure:// or gs://"),
            ("ca-file", has_certificates, "a vault at s3://, azure://, gs:// or rest+https://"),
            ("credentials", has_certificates, "a vault at s3://, azure://, gs:// or rest+https://"),
        ] {
            if let Some(value) = self.table.get(key)
                && !fits
            {
                self.reader.wrong(value.span(), format!("{key} is for {wanted}"));
            }
        }
        let connections = self.number("connections", CONNECTIONS_MAX);
        if connections == Some(0) {
            self.at("connections", "connections is 1 at least");
        }
        let timeout = self.parsed("timeout", parse_duration);
        if timeout == Some(Duration::ZERO) {
            self.at("timeout", "timeout is 1s at least");
        }
        FarConfig {
            connections: connections.map(|number| number as usize),
            timeout,
            retry_for: self.parsed("retry-for", parse_duration),
            storage_class: self.parsed("storage-class", parse_storage_class),
            ca_file: self.path("ca-file").map(|(path, _)| path),
            cache: self.parsed("cache", units::parse_size),
            credentials: self.credentials_named(address, config),
        }
    }

    /// The section `[credentials.NAME]` that a vault names.
    fn credentials_named(&mut self, address: Option<&Address>, config: &Config) -> Option<CredentialsConfig> {
        let (name, at) = self.string("credentials")?;
        if matches!(address, Some(Address::S3(s3)) if s3.profile.is_some()) {
            self.reader.wrong(at, "give credentials or the profile in the address, not both");
            return None;
        }
        let found = config.credentials.iter().find(|given| given.name == name).cloned();
        if found.is_none() {
            let meant = nearest(&name, config.credentials.iter().map(|given| given.name.as_str()));
            let hint = meant.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default();
            self.reader.wrong(at, format!("there is no section [credentials.{name}]{hint}"));
        }
        found
    }

    /// Adds a mistake about a value.
    fn at(&mut self, key: &str, what: &str) {
        if let Some(value) = self.table.get(key) {
            self.reader.wrong(value.span(), what);
        }
    }

    /// The place of a vault: a folder or an address.
    fn place(&mut self, key: &'static str) -> Option<(Place, Range<usize>)> {
        let (text, at) = self.string(key)?;
        match Address::parse(&text) {
            None => Some((Place::Folder(self.absolute(&text, &at)?), at)),
            Some(Ok(address)) => Some((Place::Far(address), at)),
            Some(Err(error)) => {
                self.reader.wrong(at, format!("{error}. {}", error.hint()));
                None
            }
        }
    }

    fn path(&mut self, key: &'static str) -> Option<(PathBuf, Range<usize>)> {
        let (text, at) = self.string(key)?;
        Some((self.absolute(&text, &at)?, at))
    }

    fn paths(&mut self, key: &'static str) -> Option<Vec<(PathBuf, Range<usize>)>> {
        let texts = self.strings(key)?;
        Some(texts.into_iter().filter_map(|(text, at)| Some((self.absolute(&text, &at)?, at))).collect())
    }

    fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.unlike(key, value, "true or false");
        }
        flag
    }

    fn number(&mut self, key: &'static str, max: u64) -> Option<u64> {
        let value = self.get(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            self.unlike(key, value, "a number");
            return None;
        };
        let number = u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| *number <= max);
        if number.is_none() {
            let upto = if max == u64::MAX { String::new() } else { format!(" to {max}") };
            self.reader.wrong(value.span(), format!("{key} is a number from 0{upto}"));
        }
        number
    }

    /// A text that `parse` accepts. If it does not, its error is the mistake.
    fn parsed<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (text, at) = self.string(key)?;
        parse(&text).map_err(|what| self.reader.wrong(at, format!("{key}: {what}"))).ok()
    }

    /// A duration, or `None` for `never`; `default` if the key is missing.
    fn duration_or_never(&mut self, key: &'static str, default: Option<Duration>) -> Option<Duration> {
        let parse = |text: &str| if text == "never" { Ok(None) } else { parse_duration(text).map(Some) };
        self.parsed(key, parse).unwrap_or(default)
    }

    fn level(&mut self, key: &'static str) -> Option<i32> {
        match self.table.get(key).map(Spanned::get_ref) {
            Some(DeValue::Integer(_)) => {
                let level = self.number(key, 19)?;
                if level == 0 {
                    self.reader.wrong(self.table.get(key)?.span(), format!("{key} is 1 at least"));
                    return None;
                }
                Some(level as i32)
            }
            _ => self.parsed(key, parse_level),
        }
    }

    fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let (text, at) = self.string(key)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.reader.wrong(at, format!("{key} is one of {}, not \"{text}\"", words.join(", ")));
        }
        found
    }

    fn table(&mut self, key: &'static str) -> Option<&'v Spanned<DeValue<'t>>> {
        self.get(key)
    }

    /// The tables in a table, in the order of the file: each with its name, its position and its content.
    fn named(&mut self, key: &'static str) -> Vec<(String, Range<usize>, &'v Spanned<DeValue<'t>>)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            self.unlike(key, value, &format!("made of tables, such as [{key}.NAME]"));
            return Vec::new();
        };
        let mut named: Vec<_> =
            table.iter().map(|(name, value)| (name.get_ref().to_string(), name.span(), value)).collect();
        named.sort_by_key(|(_, at, _)| at.start);
        named
    }

    /// The paths of a source, which needs at least one.
    fn source_paths(&mut self, name: &str, table: &Spanned<DeValue<'t>>) -> Vec<PathBuf> {
        let paths = self.paths("paths").unwrap_or_default().into_iter().map(|(path, _)| path).collect();
        match self.table.get("paths").map(Spanned::get_ref) {
            None => {
                self.missing(table, &format!("the source '{name}' needs paths, such as paths = [\"~/Documents\"]"));
            }
            Some(DeValue::Array(list)) if list.is_empty() => {
                self.missing(table, &format!("the source '{name}' has no paths"));
            }
            Some(_) => {}
        }
        paths
    }

    /// The commands around the snapshots of a source.
    fn hooks(&mut self) -> Hooks {
        let mut hooks = Hooks {
            before: self.string("before").map(|(command, _)| command),
            after: self.string("after").map(|(command, _)| command),
            on_failure: self.string("on-failure").map(|(command, _)| command),
            go_on: self.choice("if-before-fails", &[("stop", false), ("go-on", true)]).unwrap_or(false),
            ..Hooks::default()
        };
        if let Some(timeout) = self.parsed("hook-timeout", parse_duration) {
            hooks.timeout = timeout;
        }
        hooks
    }

    /// Adds a mistake for every key that was never asked for.
    fn finish(self) {
        for key in self.table.keys() {
            if self.known.contains(&key.get_ref().as_ref()) {
                continue;
            }
            let meant = nearest(key.get_ref(), self.known.iter().copied());
            let hint = meant.map_or_else(
                || format!("; known here: {}", self.known.join(", ")),
                |meant| format!("; did you mean '{meant}'?"),
            );
            self.reader.wrong(key.span(), format!("'{}' is not known{hint}", key.get_ref().escape_debug()));
        }
        debug_assert!(self.table.keys().all(|key| self.reader.text.is_char_boundary(key.span().start)));
    }
}

fn shown_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::write::trust::VerifyOthers;

    /// The mistakes in a text, each as `line:column what`.
    fn mistakes(text: &str) -> Vec<String> {
        let (_, mistakes) = parse(text, Some(Path::new("/home/me")));
        mistakes.iter().map(|mistake| format!("{}:{} {}", mistake.line, mistake.column, mistake.what)).collect()
    }

    const GOOD: &str = r#"
default-vault = "disk"
[vaults.disk]
path = "/mnt/disk/vault"
password-file = "~/secret"
compression = "high"
check-every = "never"
[vaults."my cloud"]
path = "~/Dropbox/../Dropbox/vault"
removable = true
keyring = true
compression = 5
pack-size = "32M"
verify-others = "all"
check-sample = "10%"
[sources.zeta]
paths = ["~/Documents", "/etc"]
every = "12h"
exclude = ["*.tmp", "/cache"]
exclude-larger-than = "1G"
keep = { last = 0, daily = 0x7, within = "30d", tags = ["x"] }
vaults = ["my cloud"]
before = "true"
if-before-fails = "go-on"
hook-timeout = "5m"
[sources.alpha]
paths = ["/a"]
overdue = "2d"
vaultignore = false
[run]
order = "small-first"
parallel = 1
[notify]
desktop = "always"
ping = "https://example.org/x"
"#;

    #[test]
    fn a_good_file_is_understood() {
        let (config, mistakes) = parse(GOOD, Some(Path::new("/home/me")));
        assert_eq!(mistakes, []);
        assert_eq!(config.default_vault().unwrap().name, "disk");
        let disk = &config.vaults[0];
        assert_eq!((disk.level, disk.check_every), (9, None));
        assert_eq!(disk.password, Some(PasswordFrom::File("/home/me/secret".into())));
        let cloud = &config.vaults[1];
        assert_eq!((cloud.place.folder().unwrap(), cloud.level), (Path::new("/home/me/Dropbox/vault"), 5));
        assert_eq!(cloud.password, Some(PasswordFrom::Keyring("my cloud".into())));
        assert!(cloud.removable && cloud.check_sample > 0.09);
        assert_eq!((disk.pack_size, cloud.pack_size), (None, Some(32 << 20)));
        assert_eq!((disk.others, cloud.others), (VerifyOthers::Sample, VerifyOthers::All));
        let names: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["zeta", "alpha"], "in the order of the file");
        let zeta = &config.sources[0];
        assert_eq!(zeta.paths, [Path::new("/home/me/Documents"), Path::new("/etc")]);
        assert_eq!((zeta.every.as_secs(), zeta.overdue.as_secs()), (43_200, 3 * 43_200));
        assert_eq!(zeta.vaults, ["my cloud"]);
        assert_eq!(zeta.exclude.larger_than, Some(1 << 30));
        assert!(zeta.exclude.ignore_file.is_some() && zeta.hooks.go_on);
        assert_eq!(zeta.hooks.timeout.as_secs(), 300);
        let keep = zeta.keep.as_ref().unwrap();
        assert_eq!((keep.keep, keep.keep_daily, keep.keep_weekly), (Some(0), Some(7), None));
        let alpha = &config.sources[1];
        assert_eq!(alpha.vaults, ["disk", "my cloud"]);
        assert!(alpha.exclude.ignore_file.is_none() && alpha.keep.is_none());
        assert_eq!(config.run, RunConfig { order: Order::SmallFirst, parallel: 1, on_battery: true });
        assert_eq!(config.notify.desktop, Desktop::Always);
    }

    #[test]
    fn settings_of_the_line_are_understood() {
        let text = "[vaults.far]\npath = \"s3://bucket/x\"\nconnections = 3\ntimeout = \"5s\"\nretry-for = \"0s\"\n\
                    storage-class = \"STANDARD_IA\"\nca-file = \"~/ca.pem\"\ncache = \"2G\"\ncredentials = \"c\"\n\
                    [vaults.disk]\npath = \"/x\"\n[credentials.c]\nfile = \"~/c\"\n";
        let (config, mistakes) = parse(text, Some(Path::new("/home/me")));
        assert_eq!(mistakes, []);
        let expected = FarConfig {
            connections: Some(3),
            timeout: Some(Duration::from_secs(5)),
            retry_for: Some(Duration::ZERO),
            storage_class: Some("STANDARD_IA".to_owned()),
            ca_file: Some("/home/me/ca.pem".into()),
            cache: Some(2 << 30),
            credentials: Some(CredentialsConfig {
                name: "c".to_owned(),
                from: CredentialsFrom::File("/home/me/c".into()),
            }),
        };
        assert_eq!((&config.vaults[0].far, &config.vaults[1].far), (&expected, &FarConfig::default()));
    }

    #[test]
    fn every_mistake_has_its_place() {
        let text = r#"colour = "red"
[vaults.disk]
paht = "/mnt"
keyring = "yes"
compression = 20
[sources.a]
paths = ["Documents", 5]
every = "1 day"
vaults = ["dsik"]
exclude = ["[z-a]", "b"]
keep = { lst = 3 }
"é x" = 1
[run]
parallel = 99
order = "small"
[notify]
ping = "hc-ping.com"
"#;
        assert_eq!(
            mistakes(text),
            [
                "1:1 'colour' is not known; known here: default-vault, credentials, vaults, sources, run, notify",
                "2:1 the vault 'disk' needs a path, such as path = \"/mnt/disk/vault\"",
                "3:1 'paht' is not known; did you mean 'path'?",
                "4:11 keyring is true or false, not a text",
                "5:15 compression is a number from 0 to 19",
                "7:10 'Documents' is not a whole path: begin it with / or ~/",
                "7:23 each of paths is a text in quotes, not a number",
                "8:9 every: '1 day' is not a duration; write it like 90s, 10m, 12h, 30d, 8w or 2y",
                "9:11 there is no vault 'dsik'; did you mean 'disk'?",
                "10:12 the exclude pattern \"[z-a]\" is not valid: a range in it runs backwards",
                "11:10 'lst' is not known; did you mean 'last'?",
                "12:1 'é x' is not known; known here: paths, every, overdue, exclude, exclude-from, exclude-caches, \
                 exclude-usual, exclude-if-present, exclude-larger-than, exclude-nodump, one-file-system, vaultignore, tags, \
                 skip-if-unchanged, vaults, keep, before, after, on-failure, if-before-fails, hook-timeout",
                "14:12 parallel is a number from 0 to 16",
                "15:9 order is one of \"listed\", \"small-first\", not \"small\"",
                "17:8 ping is an address that begins with https:// or http://",
            ]
        );
    }

    #[test]
    fn mistakes_of_the_language_are_all_found() {
        let found = mistakes("a = \nb = \"x\nvaults = 3\n[run\n");
        assert!(found.len() >= 3, "{found:?}");
        assert!(found[0].starts_with("1:") && found[1].starts_with("2:"), "{found:?}");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (text, expected) in [
            ("vaults = 3", "vaults is made of tables"),
            ("[vaults]\nx = 3", "a table is wanted here, not a number"),
            ("[vaults.\"a/b\"]\npath = \"/x\"", "cannot be the name of a vault"),
            ("[vaults.a]\npath = \"/x\"\nkeyring = true\npassword-command = \"x\"", "not several"),
            ("[vaults.a]\npath = \"\"", "path is empty"),
            ("[vaults.a]\npath = \"/x\"\n[vaults.b]\npath = \"/y/../x\"", "'a' lies there already"),
            ("[vaults.a]\npath = \"/x\"\nconnections = 3", "connections is for a vault at an address"),
            ("[vaults.a]\npath = \"/x\"\ntimeout = \"5s\"", "timeout is for a vault at an address"),
            ("[vaults.a]\npath = \"/x\"\nretry-for = \"5s\"", "retry-for is for a vault at an address"),
            (
                "[credentials.c]\nfile = \"/c\"\n[vaults.a]\npath = \"sftp://h/x\"\ncredentials = \"c\"",
                "credentials is for a vault at s3://",
            ),
            ("[vaults.a]\npath = \"s3://b/x\"\ncredentials = \"c\"", "there is no section [credentials.c]"),
            ("[credentials.c]\nfile = \"/c\"\ncommand = \"c\"", "give one of command, file and environment"),
            ("[credentials.c]", "give one of command, file and environment"),
            (
                "[credentials.c]\nfile = \"/c\"\n[vaults.a]\npath = \"s3://b/x?profile=p\"\ncredentials = \"c\"",
                "not both",
            ),
            ("[vaults.a]\npath = \"/x\"\ncache = \"5G\"", "cache is for a vault at an address"),
            ("[vaults.a]\npath = \"sftp://h/x\"\nstorage-class = \"X\"", "storage-class is for a vault at s3://"),
            ("[vaults.a]\npath = \"sftp://h/x\"\nca-file = \"/x\"", "ca-file is for a vault at s3://"),
            ("[vaults.a]\npath = \"/x\"\npack-size = \"15M\"", "a size of packs from 16M to 128M"),
            ("[vaults.a]\npath = \"/x\"\npack-size = \"129M\"", "a size of packs from 16M to 128M"),
            ("[vaults.a]\npath = \"s3://b/x\"\nconnections = 0", "1 at least"),
            ("[vaults.a]\npath = \"s3://b/x\"\nconnections = 65", "from 0 to 64"),
            ("[vaults.a]\npath = \"s3://b/x\"\ntimeout = \"0s\"", "timeout is 1s at least"),
            ("[vaults.a]\npath = \"s3://b/x\"\nstorage-class = \"DEEP_ARCHIVE\"", "cannot be read at once"),
            ("[vaults.a]\npath = \"s3://b/x\"\nstorage-class = \"a b\"", "not the name of a storage class"),
            ("default-vault = \"x\"", "there is none in this file"),
            ("[vaults.a]\npath = \"/x\"\n[sources.s]\npaths = []", "has no paths"),
            ("[vaults.a]\npath = \"/x\"\n[sources.s]\npaths = [\"/x\"]\nvaults = [\"a\", \"a\"]", "named twice"),
            ("[vaults.a]\npath = \"/x\"\n[sources.s]\npaths = [\"/x\"]\nkeep = {}", "keep has no rule"),
            ("[vaults.a]\npath = \"/x\"\n[sources.s]\nevery = \"1d\"", "needs paths"),
            ("[run]\nparallel = 0", "1 at least"),
            ("[sources.s]\npaths = [\"/x\"]", "goes to no vault"),
            ("[vaults.a]\npath = \"/x\"\n[sources.s]\npaths = [\"/x\"]\nvaults = []", "goes to no vault"),
        ] {
            let found = mistakes(text);
            assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:?}");
        }
    }
}
