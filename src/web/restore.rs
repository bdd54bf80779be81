//! Restores: first a dry run that shows the changes, then the restore itself; and the folders that the user can
//! choose.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::engine::restore::{Change, Mark, Overwrite, Planned, RestoreOptions, Target, restore_telling};
use crate::folder::Type;
use crate::json::{ChangeJson, Name, RestoreJson};
use crate::path;
use crate::progress::{Hushed, plain};
use crate::sync::{into_inner, lock};
use crate::vault::{SnapshotInfo, Vault};
use crate::web::answer::{Problem, Told, encode};
use crate::web::desk::Desk;
use crate::web::jobs::{Job, Jobs, Watcher};
use crate::web::query::from_hex;

/// The number of changes of a dry run that are listed; all are counted.
const CHANGES_MAX: usize = 1000;
/// The time for which a dry run holds as the plan of a restore.
const PLAN_HOLDS: Duration = Duration::from_secs(3600);
/// The number of folders listed to choose from.
const FOLDERS_MAX: usize = 5000;

/// The bytes of a name from its JSON form: a string, or `{text, bytes}`.
pub fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Object(name) => from_hex(name.get("bytes")?.as_str()?),
        _ => None,
    }
}

/// A parsed request for a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    snapshot: String,
    path: Vec<u8>,
    /// `None` restores to where the snapshot was taken.
    folder: Option<PathBuf>,
    overwrite: Overwrite,
    delete: bool,
    verify: bool,
}

impl Wish {
    fn read(request: &Value) -> Result<Self, Problem> {
        let flag = |name: &str| match request.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(Problem::usage(format!("{name} is neither true nor false"))),
        };
        let snapshot = request.get("snapshot").and_then(Value::as_str);
        let at = request.get("path").filter(|at| !at.is_null());
        let at = at.map(|at| bytes_of(at).ok_or_else(|| Problem::usage("the path is no name")));
        let at = at.transpose()?.unwrap_or_default();
        if path::components(&at).any(|name| path::check_name(name).is_err()) {
            return Err(Problem::usage("there is no such path in a snapshot"));
        }
        let folder = match request.get("to") {
            Some(Value::String(word)) if word == "in-place" => None,
            Some(to) => {
                let folder = to.get("folder").and_then(bytes_of).map(|folder| path::to_path(&folder).into_owned());
                let folder = folder.filter(|folder| folder.is_absolute());
                Some(folder.ok_or_else(|| Problem::usage("the folder is not given by its whole path"))?)
            }
            None => return Err(Problem::usage("where to?")),
        };
        let overwrite = match request.get("overwrite").and_then(Value::as_str) {
            None => {
                if folder.is_none() {
                    Overwrite::IfChanged
                } else {
                    Overwrite::Refuse
                }
            }
            Some("refuse") => Overwrite::Refuse,
            Some("always") => Overwrite::Always,
            Some("if-changed") => Overwrite::IfChanged,
            Some("keep-newer-copy") => Overwrite::KeepNewer,
            Some("never") => Overwrite::Never,
            Some(_) => return Err(Problem::usage("overwrite is none of the words for it")),
        };
        Ok(Self {
            snapshot: snapshot.ok_or_else(|| Problem::usage("which snapshot?"))?.to_owned(),
            path: path::components(&at).collect::<Vec<_>>().join(&b'/'),
            folder,
            overwrite,
            delete: flag("delete")?,
            verify: flag("verify")?,
        })
    }

    /// The dry run that the request names as its plan. A restore that deletes must name one.
    fn plan(&self, desk: &Desk, request: &Value) -> Result<Option<Arc<Planned>>, Problem> {
        let named = request.get("plan").filter(|plan| !plan.is_null());
        if named.is_none() && !self.delete {
            return Ok(None);
        }
        let job = named.and_then(Value::as_u64).and_then(|id| desk.jobs().get(id).ok());
        let is_same = |job: &Arc<Job>| Self::read(job.request()).as_ref() == Ok(self);
        let planned = job.filter(is_same).and_then(|job| job.planned(desk.home().elapsed()));
        match planned {
            Some((planned, age)) if age <= PLAN_HOLDS => Ok(Some(planned)),
            Some(_) => Err(outdated("the plan of this restore is older than an hour")),
            None if self.delete => Err(Problem::new(
                StatusCode::CONFLICT,
                "what deletes files is tried first: name the dry run as its plan",
            )),
            None => Err(Problem::new(StatusCode::CONFLICT, "the plan is no dry run of this restore")),
        }
    }

    /// Checks that this restore may go to its folder.
    fn check(&self, desk: &Desk, info: &SnapshotInfo) -> Result<(), Problem> {
        let refused = |what: String| Problem::new(StatusCode::FORBIDDEN, what);
        match &self.folder {
            None if desk.is_own(info) => Ok(()),
            None => {
                let host = path::Shown(info.body.host.as_bytes());
                Err(refused(format!("this snapshot was taken on {host}: its files have no place here"))
                    .hint("Restore it into a folder of its own."))
            }
            Some(folder) => {
                let leads_up = folder.components().any(|part| matches!(part, std::path::Component::ParentDir));
                if leads_up || !desk.may_go(folder) {
                    let what = format!("the page may not write to {}", folder.display());
                    return Err(refused(what).hint("Choose a folder below your own, or look into it first."));
                }
                Ok(())
            }
        }
    }
}

const fn mark(change: &Change) -> &'static str {
    match change.mark {
        Mark::Added => "+",
        Mark::Changed => "M",
        Mark::Deleted => "-",
        Mark::Same => "=",
    }
}

/// The refusal of a plan that does not hold any more.
fn outdated(what: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, format!("{what}: nothing was restored"))
        .hint("Look again at what would change, and begin from there.")
}

/// Begins a restore, or a dry run of one. A restore that deletes must name the dry run of exactly the same restore.
///
/// # Errors
/// If the request makes no sense, or is not allowed.
pub fn begin(desk: &Arc<Desk>, request: &Value) -> Result<Arc<Job>, Problem> {
    let wish = Wish::read(request)?;
    let dry_run = request.get("dry_run").and_then(Value::as_bool).unwrap_or(false);
    let info = desk.snapshot(&wish.snapshot)?;
    wish.check(desk, &info)?;
    let planned = if dry_run { None } else { wish.plan(desk, request)? };
    let around = desk.home().around(&info.body.source, wish.delete)?;
    let target = wish.folder.clone().map_or(Target::InPlace, Target::Folder);
    let options = RestoreOptions {
        path: Some(wish.path.clone()).filter(|path| !path.is_empty()),
        overwrite: wish.overwrite,
        delete: wish.delete,
        today: around.today,
        state: around.state,
        configuration: around.configuration,
        dry_run,
        planned,
        verify: wish.verify,
        threads: desk.home().threads(),
        ..RestoreOptions::new(info.id, target)
    };
    Jobs::begin(desk, "restore", request.clone(), move |desk, watcher| run(desk, &info, &options, watcher))
}

/// Refuses a restore that would now do something else than its plan says.
fn hold_to(plan: &Planned, vault: &Vault, options: &RestoreOptions, watcher: &Watcher) -> Result<(), Problem> {
    let found = Mutex::new(Planned::default());
    let again = RestoreOptions { dry_run: true, planned: None, ..options.clone() };
    restore_telling(vault, &again, &Hushed(watcher), Some(&|change: &Change| lock(&found).add(change)))?;
    if into_inner(found) == *plan {
        Ok(())
    } else {
        Err(outdated("the files here, or what is to be done with them, have changed since this restore was planned"))
    }
}

fn run(desk: &Desk, info: &SnapshotInfo, options: &RestoreOptions, watcher: &Watcher) -> Result<Value, Problem> {
    let changes = Mutex::new((Vec::new(), 0_u64, Planned::default()));
    let tell = |change: &Change| {
        let (first, count, planned) = &mut *lock(&changes);
        *count += 1;
        if options.dry_run {
            planned.add(change);
        }
        if first.len() < CHANGES_MAX {
            first.push(change.clone());
        }
    };
    let view = desk.view();
    if let Some(plan) = &options.planned {
        hold_to(plan, view.vault(), options, watcher)?;
    }
    let report = restore_telling(view.vault(), options, watcher, Some(&tell))?;
    let (first, count, planned) = into_inner(changes);
    if options.dry_run {
        watcher.plan(planned);
    }
    let failed = |error: serde_json::Error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let mut told = serde_json::to_value(RestoreJson::new(info, options.dry_run, &report)).map_err(failed)?;
    let changes: Vec<_> =
        first.iter().map(|change| ChangeJson::new(mark(change), &change.path, change.is_folder)).collect();
    if let Value::Object(told) = &mut told {
        told.insert("changes".to_owned(), serde_json::to_value(changes).map_err(failed)?);
        told.insert("change_count".to_owned(), count.into());
    }
    Ok(told)
}

/// `POST folders`: the names of the folders in a folder, to choose from. Afterwards, a restore may go to that folder.
///
/// # Errors
/// If the folder cannot be listed.
pub fn folders(desk: &Arc<Desk>, request: &Value) -> Told {
    let given = request.get("path").and_then(bytes_of).map(|at| path::to_path(&at).into_owned());
    let folder = given.or_else(|| desk.home().folder()).unwrap_or_else(|| PathBuf::from("/"));
    if !folder.is_absolute() || folder.components().any(|part| matches!(part, std::path::Component::ParentDir)) {
        return Err(Problem::usage("the folder is not given by its whole path"));
    }
    let failed =
        |error: std::io::Error| Problem::usage(format!("cannot look into {}: {}", folder.display(), plain(&error)));
    let mut names = Vec::new();
    for found in crate::folder::entries(&folder).map_err(failed)? {
        let Ok(found) = found else { continue };
        if names.len() < FOLDERS_MAX && found.file_type().is_ok_and(Type::is_dir) {
            names.push(path::from_os(&found.file_name()));
        }
    }
    names.sort();
    desk.choose(folder.clone());
    let shown = path::from_path(&folder);
    let parent = folder.parent().map(path::from_path);
    let free = crate::fs::free_space(&folder);
    encode(&json!({
        "path": Name(&shown),
        "parent": parent.as_deref().map(Name),
        "folders": names.iter().map(|name| Name(name)).collect::<Vec<_>>(),
        "free": free,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_understood_or_refused() {
        let id = "00112233445566778899aabbccddeeff";
        let to = json!({ "folder": "/home/me/back" });
        let wish = Wish::read(&json!({ "snapshot": id, "path": "/a//b/", "to": to })).unwrap();
        assert_eq!((wish.path.as_slice(), wish.overwrite, wish.delete), (&b"a/b"[..], Overwrite::Refuse, false));
        let bytes = json!({ "text": "x", "bytes": "61ff" });
        let wish = Wish::read(&json!({ "snapshot": id, "path": bytes, "to": "in-place", "delete": true })).unwrap();
        assert_eq!((wish.path.as_slice(), wish.overwrite, wish.folder), (&b"a\xff"[..], Overwrite::IfChanged, None));
        for wrong in [
            json!({}),
            json!({ "snapshot": id }),
            json!({ "snapshot": id, "to": "elsewhere" }),
            json!({ "snapshot": id, "to": { "folder": "relative" } }),
            json!({ "snapshot": id, "to": { "folder": 7 } }),
            json!({ "snapshot": id, "to": to, "path": 7 }),
            json!({ "snapshot": id, "to": to, "path": "a/../../etc" }),
            json!({ "snapshot": id, "to": to, "path": "a\u{0}b" }),
            json!({ "snapshot": id, "to": to, "delete": "yes" }),
            json!({ "snapshot": id, "to": to, "overwrite": "all" }),
            json!({ "snapshot": 7, "to": to }),
        ] {
            let problem = Wish::read(&wrong).unwrap_err();
            assert_eq!(problem.status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }
}
