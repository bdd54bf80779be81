//! A list of sources and their destinations: lines of `source,destination[,keep,exclude]`.
//!
//! Every line is checked before any work begins, and all mistakes are reported together.

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::patterns::exclude::ExcludeOptions;
use crate::engine::patterns::exclude::check;
use crate::engine::patterns::exclude::given;
use crate::store::place::Address;
use crate::store::place::Place;
use csv::ReaderBuilder;
use csv::StringRecord;
use csv::Trim;

use crate::failure::Failure;
use crate::service::config::Config;
use crate::service::config::Hooks;
use crate::service::config::IGNORE_FILE;
use crate::service::config::SourceConfig;
use crate::service::config::VaultConfig;
use crate::service::config::WHOLE_PATH;
use crate::service::keep::Keep;
use crate::service::local;
use crate::service::plan::Due;
use crate::service::plan::Job;
use crate::service::plan::Plan;
use crate::service::plan::Target;
use crate::service::roots;
use crate::service::sources;
use crate::service::values::parse_duration;

/// The number of mistakes shown.
const MISTAKES_SHOWN: usize = 50;

/// Reads and checks a list.
///
/// # Errors
/// If the list cannot be read, or any line has a mistake. The error names all mistakes.
pub fn read(path: &Path, config: Option<&Config>, home: Option<&Path>) -> Result<Plan, Failure> {
    let bytes = sources::read_list(path)?;
    let bytes = sources::text_of(path, &bytes)?;
    let (plan, mistakes) = parse(bytes, config, home);
    if mistakes.is_empty() {
        return Ok(plan);
    }
    let mut text = format!("the list {} has mistakes:", path.display());
    for mistake in mistakes.iter().take(MISTAKES_SHOWN) {
        text.push_str("\n  ");
        text.push_str(mistake);
    }
    if mistakes.len() > MISTAKES_SHOWN {
        let _ = write!(text, "\n  and {} more", mistakes.len() - MISTAKES_SHOWN);
    }
    Err(Failure::usage(text).hint("Nothing was done. Each line is: source,destination[,keep,exclude]"))
}

fn parse(bytes: &[u8], config: Option<&Config>, home: Option<&Path>) -> (Plan, Vec<String>) {
    let mut lines = Lines { plan: Plan::default(), mistakes: Vec::new(), seen: HashSet::new(), config, home };
    let delimiter = delimiter(bytes);
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        .comment(Some(b'#'))
        .from_reader(bytes);
    let mut first = true;
    for record in reader.records() {
        match record {
            Ok(record) => {
                let is_title = std::mem::take(&mut first) && record.get(0).is_some_and(is_title);
                let line = record.position().map_or(0, csv::Position::line);
                if !is_title && !record.iter().all(str::is_empty) {
                    lines.add(line, &record);
                }
            }
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                let what = match error.kind() {
                    csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
                    _ => "it cannot be read as fields; one with a quote in it must be in quotes".to_owned(),
                };
                lines.mistakes.push(format!("line {line}: {what}"));
            }
        }
    }
    if lines.mistakes.is_empty() && lines.plan.jobs.is_empty() {
        lines.mistakes.push("there is no line with a source and a destination in it".to_owned());
    }
    (lines.plan, lines.mistakes)
}

/// The separator of the fields: the first comma, semicolon or tab outside quotes.
fn delimiter(bytes: &[u8]) -> u8 {
    let mut lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let line = lines.find(|line| !line.is_empty() && !line.starts_with(b"#")).unwrap_or_default();
    let mut quoted = false;
    let found = line.iter().copied().find(|byte| {
        quoted ^= *byte == b'"';
        !quoted && b",;\t".contains(byte)
    });
    found.unwrap_or(b',')
}

/// Whether the first field of the first line is a column title.
fn is_title(field: &str) -> bool {
    ["source", "src", "path", "folder", "from"].iter().any(|title| field.eq_ignore_ascii_case(title))
}

/// Reads the rules for the snapshots to keep: a number of snapshots, or rules such as `daily=7 weekly=4`.
fn keep(text: &str) -> Result<Keep, String> {
    if let Ok(count) = text.parse() {
        return Ok(Keep { keep: Some(count), ..Keep::default() });
    }
    let bad = |rule: &str| {
        format!(
            "'{rule}' says not what to keep: write a number of snapshots, or rules like daily=7 weekly=4 within=30d"
        )
    };
    let mut keep = Keep::default();
    for rule in text.split_whitespace() {
        let (name, value) = rule.split_once('=').ok_or_else(|| bad(rule))?;
        let count = || value.parse().map(Some).map_err(|_| bad(rule));
        match name {
            "last" => keep.keep = count()?,
            "hourly" => keep.keep_hourly = count()?,
            "daily" => keep.keep_daily = count()?,
            "weekly" => keep.keep_weekly = count()?,
            "monthly" => keep.keep_monthly = count()?,
            "yearly" => keep.keep_yearly = count()?,
            "within" => keep.keep_within = Some(parse_duration(value)?),
            "tag" => keep.keep_tag.push(value.to_owned()),
            _ => return Err(bad(rule)),
        }
    }
    Ok(keep)
}

struct Lines<'a> {
    plan: Plan,
    mistakes: Vec<String>,
    /// The pairs of source and destination read so far.
    seen: HashSet<(PathBuf, Place)>,
    config: Option<&'a Config>,
    home: Option<&'a Path>,
}

impl Lines<'_> {
    fn add(&mut self, line: u64, record: &StringRecord) {
        let mut wrong: Vec<String> = Vec::new();
        let field = |at: usize| record.get(at).unwrap_or_default();
        let source = self.source(field(0), &mut wrong);
        let vault = self.destination(field(1), &mut wrong);
        let keep = match field(2) {
            "" => None,
            text => keep(text).map_err(|what| wrong.push(what)).ok(),
        };
        let patterns: Vec<String> =
            field(3).split(';').map(str::trim).filter(|pattern| !pattern.is_empty()).map(given).collect();
        if let Err(error) = patterns.iter().try_for_each(|pattern| check(pattern)) {
            wrong.push(error.to_string());
        }
        if record.len() > 4 {
            wrong.push("there are more than four fields; one with a comma in it must be in quotes".to_owned());
        }
        if let (Some(source), Some(vault)) = (&source, &vault)
            && !self.seen.insert((source.clone(), vault.place.clone()))
        {
            wrong.push("the same source and destination stand in an earlier line".to_owned());
        }
        let (Some(source), Some(vault), true) = (source, vault, wrong.is_empty()) else {
            self.mistakes.extend(wrong.into_iter().map(|what| format!("line {line}: {what}")));
            return;
        };
        let vaults = &mut self.plan.vaults;
        let at = vaults.iter().position(|other| other.place == vault.place).unwrap_or_else(|| {
            vaults.push(vault);
            vaults.len() - 1
        });
        let vault = &vaults[at].name;
        // A source of the configuration keeps its name in a list.
        let sources = self.config.into_iter().flat_map(|config| &config.sources);
        let same = sources.into_iter().find(|other| other.paths == [source.clone()]);
        let name = same.map_or_else(|| source.display().to_string(), |same| same.name.clone());
        self.plan.jobs.push(Job {
            source: source_config(name, source, patterns, keep, vault),
            targets: vec![Target { vault: at, due: Due::Now, overdue: false, held: None }],
        });
    }

    fn absolute(&self, text: &str, what: &str, wrong: &mut Vec<String>) -> Option<PathBuf> {
        if text.is_empty() {
            wrong.push(format!("there is no {what}"));
            return None;
        }
        let below_home = text.strip_prefix("~/").or((text == "~").then_some(""));
        let path = match (below_home, self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(text),
        };
        if path.is_absolute() {
            return Some(roots::absolute(Path::new(""), &path));
        }
        if local::looks_remote(text) {
            wrong.push(local::remote(text, &format!("the {what}")).what);
        } else {
            wrong.push(format!("the {what} '{text}' is not a whole path: begin it with {WHOLE_PATH}"));
        }
        None
    }

    fn source(&self, text: &str, wrong: &mut Vec<String>) -> Option<PathBuf> {
        let path = self.absolute(text, "source", wrong)?;
        match fs::metadata(&path) {
            Ok(_) => Some(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                wrong.push(format!("there is no source {}", path.display()));
                None
            }
            Err(error) => {
                wrong.push(Failure::caused(format!("cannot read the source {}", path.display()), &error).what);
                None
            }
        }
    }

    /// The vault of a destination, which exists or can be created.
    fn destination(&self, text: &str, wrong: &mut Vec<String>) -> Option<VaultConfig> {
        if let Some(vault) = self.config.and_then(|config| config.vault(text)) {
            return Some(vault.clone());
        }
        let place = match Address::parse(text) {
            None => Place::Folder(self.absolute(text, "destination", wrong)?),
            Some(Ok(address)) => Place::Far(address),
            Some(Err(error)) => {
                wrong.push(format!("the destination is no address: {error}. {}", error.hint()));
                return None;
            }
        };
        if let Some(vault) = self.config.and_then(|config| config.vaults.iter().find(|vault| vault.place == place)) {
            return Some(vault.clone());
        }
        // Whether an address has a vault is found out when it is opened.
        let Some(path) = place.folder().map(Path::to_owned) else {
            return Some(VaultConfig::new(place.to_string(), place));
        };
        match local::has_vault_in(&path) {
            Ok(true) => {}
            Ok(false) if path.is_dir() => {
                if crate::folder::entries(&path).is_ok_and(|mut entries| entries.next().is_some()) {
                    wrong.push(format!("the destination {} is not empty, and is no vault", path.display()));
                    return None;
                }
            }
            Ok(false) if path.parent().is_some_and(Path::is_dir) => {}
            Ok(false) => {
                let parent = path.parent().unwrap_or(&path);
                wrong.push(format!(
                    "the destination {} cannot be made: there is no folder {}; is the disk connected?",
                    path.display(),
                    parent.display()
                ));
                return None;
            }
            Err(failure) => {
                wrong.push(failure.what);
                return None;
            }
        }
        Some(VaultConfig::new(place.to_string(), place))
    }
}

fn source_config(name: String, path: PathBuf, patterns: Vec<String>, keep: Option<Keep>, vault: &str) -> SourceConfig {
    SourceConfig {
        name,
        paths: vec![path],
        vaults: vec![vault.to_owned()],
        every: Duration::ZERO,
        overdue: Duration::MAX,
        exclude: ExcludeOptions { patterns, ignore_file: Some(IGNORE_FILE.to_vec()), ..ExcludeOptions::default() },
        exclude_from: Vec::new(),
        keep,
        tags: Vec::new(),
        skip_if_unchanged: false,
        hooks: Hooks::default(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn good_lines_become_a_plan() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().to_str().unwrap();
        fs::create_dir_all(folder.path().join("a b")).unwrap();
        fs::create_dir_all(folder.path().join("c,d")).unwrap();
        let text = format!(
            "source,destination,keep,exclude\n# a remark\n\n{top}/a b, {top}/vault ,5,*.tmp; /cache\n\
             \"{top}/c,d\",{top}/vault\n~/a b,{top}/./other\n"
        );
        let (plan, mistakes) = parse(text.as_bytes(), None, Some(folder.path()));
        assert_eq!(mistakes, Vec::<String>::new());
        assert_eq!((plan.vaults.len(), plan.jobs.len()), (2, 3));
        let first = &plan.jobs[0].source;
        assert_eq!(first.paths, [folder.path().join("a b")]);
        assert_eq!(first.exclude.patterns, ["*.tmp", "/cache"]);
        assert_eq!(first.keep.as_ref().unwrap().keep, Some(5));
        assert_eq!(plan.jobs[1].source.keep.as_ref().map(|keep| keep.keep), None);
        assert_eq!(plan.jobs[1].targets[0].vault, 0);
        assert_eq!(plan.vaults[1].place.folder(), Some(folder.path().join("other").as_path()));
    }

    #[test]
    fn fields_are_apart_as_spreadsheets_write_them() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().to_str().unwrap();
        for name in ["a", "b,c"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        for gap in [",", ";", "\t"] {
            let text = format!(
                "Source{gap}destination{gap}keep\n{top}/a{gap}{top}/v{gap}daily=7 weekly=4 within=30d\n\
                 \"{top}/b,c\"{gap}{top}/v{gap}5{gap}\"*.tmp;*.o\"\n"
            );
            let (plan, mistakes) = parse(text.as_bytes(), None, None);
            assert_eq!(mistakes, Vec::<String>::new(), "{gap:?}");
            let keep = plan.jobs[0].source.keep.as_ref().unwrap();
            assert_eq!((keep.keep, keep.keep_daily, keep.keep_weekly), (None, Some(7), Some(4)));
            assert_eq!(keep.keep_within, Some(Duration::from_secs(30 * 86_400)));
            assert_eq!(plan.jobs[1].source.exclude.patterns, ["*.tmp", "*.o"]);
        }
        for bad in ["daily", "daily=x", "sometimes=3", "5 daily=7"] {
            assert!(keep(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_bad_lines_are_told_together() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().to_str().unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        let text = format!(
            "{top}/gone,{top}/vault\n{top},{top}/no/vault\nrelative,{top}/vault,many\n{top},{top}/vault\n\
             {top},{top}/vault\n{top}\n{top},{top}\n{top}/file,{top}/w,,[z-a],more\n"
        );
        let (_, mistakes) = parse(text.as_bytes(), None, None);
        let mistakes: Vec<String> = mistakes.iter().map(|mistake| mistake.replace(top, "TOP")).collect();
        assert_eq!(
            mistakes,
            [
                "line 1: there is no source TOP/gone",
                "line 2: the destination TOP/no/vault cannot be made: there is no folder TOP/no; is the disk connected?",
                "line 3: the source 'relative' is not a whole path: begin it with / or ~/",
                "line 3: 'many' says not what to keep: write a number of snapshots, or rules like daily=7 weekly=4 within=30d",
                "line 5: the same source and destination stand in an earlier line",
                "line 6: there is no destination",
                "line 7: the destination TOP is not empty, and is no vault",
                "line 8: the exclude pattern \"[z-a]\" is not valid: a range in it runs backwards",
                "line 8: there are more than four fields; one with a comma in it must be in quotes",
            ]
        );
        let (_, mistakes) = parse(b"source,destination\n", None, None);
        assert_eq!(mistakes.len(), 1);
        let (_, mistakes) = parse(b"\xff,b\n", None, None);
        assert!(mistakes[0].contains("not UTF-8"), "{mistakes:?}");
    }
}
