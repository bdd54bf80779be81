//! All routes in one table, from which the server and its description (`docs/openapi.json`) are made.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderValue, Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};

use crate::web::answer::{self, Problem, Told, encode, refuse};
use crate::web::desk::{Desk, Question};
use crate::web::gate::{self, API};
use crate::web::jobs::{Job, Jobs};
use crate::web::query::Query;
use crate::web::shape::{self, Parameter};
use crate::web::{assets, events, look, restore, save, search};

/// The largest body of a request, in bytes.
const BODY_MAX: usize = 1 << 20;

/// The handler of a route.
enum Handler {
    /// Reads something.
    Get(fn(&Arc<Desk>, &Query) -> Told),
    /// Sends a file.
    File,
    /// Streams changes.
    Events,
    /// Carries out an action.
    Post(fn(&Arc<Desk>, &Value) -> Told),
    /// Signs a browser in.
    Enter,
    /// Signs a browser out.
    Leave,
}

/// A route.
struct Route {
    /// The path after `/api/v1/`.
    path: &'static str,
    /// A short description.
    summary: &'static str,
    /// The parameters' names and descriptions; names that end with `?` are optional.
    parameters: &'static [Parameter],
    /// Whether it changes anything but this server's own memory: such routes do not exist with `--read-only`.
    changes: bool,
    handler: Handler,
}

const SNAPSHOT: Parameter = ("snapshot", "the id of a snapshot");
const PASSWORD: Parameter = ("password", "one that opens the vault: to know it is asked for with each change");
const PATH: Parameter = ("path?", "a path in the snapshot, percent-encoded byte by byte; nothing for its top");

const fn read(
    path: &'static str,
    summary: &'static str,
    parameters: &'static [Parameter],
    handler: fn(&Arc<Desk>, &Query) -> Told,
) -> Route {
    Route { path, summary, parameters, changes: false, handler: Handler::Get(handler) }
}

const fn act(
    path: &'static str,
    summary: &'static str,
    parameters: &'static [Parameter],
    handler: fn(&Arc<Desk>, &Value) -> Told,
) -> Route {
    Route { path, summary, parameters, changes: true, handler: Handler::Post(handler) }
}

const ROUTES: &[Route] = &[
    Route {
        path: "session",
        summary: "Exchanges the token of the printed address for the cookie that all else needs",
        parameters: &[("token", "the token, which is good once")],
        changes: false,
        handler: Handler::Enter,
    },
    Route { path: "leave", summary: "Forgets this browser", parameters: &[], changes: false, handler: Handler::Leave },
    read("status", "Which vault this is, on which machine, and what may be done", &[], look::status),
    read("overview", "How things stand: sources, places, what is known to be wrong", &[], |desk, _| {
        ask(desk, &Question::Overview)
    }),
    read("snapshots", "As vault list --json", &[], look::snapshots),
    read(
        "ls",
        "Some entries of a folder: {snapshot, path, entries, next}, each entry as vault ls --json",
        &[SNAPSHOT, PATH, ("from?", "the number of the first entry"), ("count?", "most entries, up to 10000")],
        look::ls,
    ),
    read("entry", "One entry, as vault ls --json", &[SNAPSHOT, PATH], look::entry),
    read("skipped", "As vault ls --skipped --json", &[SNAPSHOT], look::skipped),
    read(
        "history",
        "The versions of a path: {versions, broken}, each version as vault history --json",
        &[("source", "the name of a source"), ("host", "its machine"), PATH],
        look::versions,
    ),
    read(
        "preview",
        "The start of a text ({kind: text, text, whole}), the type of a picture, or {kind: none}",
        &[SNAPSHOT, PATH],
        look::preview,
    ),
    Route {
        path: "file",
        summary: "A file, to be saved; a folder as a tar archive, which breaks off if anything in it cannot be read",
        parameters: &[SNAPSHOT, PATH],
        changes: false,
        handler: Handler::File,
    },
    read(
        "find",
        "Names in all snapshots: {matches, more, broken}, each match as vault find --json",
        &[
            ("pattern", "a name, a part of one, or a pattern"),
            ("source?", "one source only"),
            ("count?", "most matches"),
        ],
        search::matches,
    ),
    read(
        "diff",
        "What differs: {differences, more, summary, old, new}, as vault diff --json",
        &[("old", "the id of a snapshot"), ("new", "the id of another"), PATH, ("count?", "most paths")],
        search::compare,
    ),
    read(
        "usage",
        "As vault du --json, with {more, broken}",
        &[
            SNAPSHOT,
            PATH,
            ("since?", "the id of a snapshot: only what is new since then"),
            ("depth?", "levels of folders, up to 6"),
            ("count?", "most entries, up to 2000"),
        ],
        search::usage,
    ),
    read("keys", "As vault key list --json", &[], search::slots),
    read("doctor", "As vault doctor --json", &[], |desk, _| ask(desk, &Question::Doctor)),
    read("stats", "As vault stats --json", &[], |desk, _| ask(desk, &Question::Stats)),
    read("settings", "The configuration: {config, text, hash, mistakes, warnings}", &[], |desk, _| {
        ask(desk, &Question::Settings)
    }),
    read("runs", "What earlier runs did: {runs}, each as vault run --json", &[], |desk, _| ask(desk, &Question::Runs)),
    read(
        "run",
        "The run that goes on, whoever started it: {running, now, log}; now as vault run --follow --json",
        &[],
        |desk, _| ask(desk, &Question::Run),
    ),
    read("jobs", "All jobs, the newest first: {jobs}", &[], |desk, _| {
        let now = desk.home().elapsed();
        Ok(list_jobs(&desk.jobs().all(), now))
    }),
    read("job", "A job with what came of it", &[("id", "its number")], |desk, query| {
        let job = desk.jobs().get(query.number("id", 0)?)?;
        Ok(job.told(desk.home().elapsed(), true))
    }),
    Route {
        path: "events",
        summary: "A stream of events: job (as in jobs), changed, run (begun or ended), now (as in run)",
        parameters: &[],
        changes: false,
        handler: Handler::Events,
    },
    Route {
        path: "keep",
        summary: "What rules would keep: as vault prune --dry-run --json, and each snapshot with the reasons",
        parameters: &[
            ("rules", "{last, daily, weekly, monthly, yearly}, each a number"),
            ("estimate?", "false: only the snapshots, by the damage that is known"),
        ],
        changes: false,
        handler: Handler::Post(|desk, request| ask(desk, &Question::Keep(request.clone()))),
    },
    act(
        "restore",
        "Begins a restore, or a dry run of one: a job, whose result is as of vault restore --json",
        &[
            ("snapshot", "the id of a snapshot"),
            ("path?", "a path in it"),
            ("to", "in-place, or {folder}"),
            ("overwrite?", "refuse, if-changed, keep-newer-copy, always or never"),
            ("delete?", "whether to delete what the snapshot does not have"),
            ("verify?", "whether to read back what was written"),
            ("dry_run?", "whether nothing is written"),
            ("plan?", "the number of a dry run of the same: only what it listed is done; delete needs it"),
        ],
        |desk, request| restore::begin(desk, request).and_then(|job| begun(&job)),
    ),
    act(
        "folders",
        "The folders in a folder, to choose from: {path, parent, folders, free}",
        &[("path?", "a folder")],
        restore::folders,
    ),
    act(
        "save",
        "Takes snapshots now: a job, whose result is as of vault run --json, or of vault snapshot --json",
        &[
            ("names?", "sources of the configuration"),
            ("source?", "a source that was saved before"),
            ("host?", "its machine"),
            (
                "then?",
                "what follows if all goes well: eject, suspend or shutdown; only after sources of the configuration",
            ),
        ],
        |desk, request| begin(desk, "save", request, Question::Save),
    ),
    act(
        "check",
        "Looks for damage: a job, whose result is as of vault check --json",
        &[("sample?", "percent of the data")],
        |desk, request| begin(desk, "check", request, Question::Check),
    ),
    act(
        "drill",
        "Restores a sample, and compares it: a job, whose result is as of vault drill --json",
        &[],
        |desk, request| begin(desk, "drill", request, Question::Drill),
    ),
    act("stop", "Tells a job to stop", &[("id", "its number")], |desk, request| {
        let job = desk.jobs().get(request.get("id").and_then(Value::as_u64).unwrap_or(0))?;
        job.stop();
        begun(&job)
    }),
    act(
        "key-add",
        "Adds a password, as vault key add --json",
        &[PASSWORD, ("new", "the password to add"), ("label?", "what it is called; else who and where")],
        |desk, request| change_keys(desk, &Question::AddKey(request.clone())),
    ),
    act(
        "key-passwd",
        "Changes a password, as vault key passwd --json",
        &[PASSWORD, ("new", "the one that takes its place")],
        |desk, request| change_keys(desk, &Question::ChangeKey(request.clone())),
    ),
    act(
        "key-remove",
        "Removes a key slot, as vault key remove --json; never the last one that a person can use",
        &[PASSWORD, ("id", "the id of the slot, or its start")],
        |desk, request| change_keys(desk, &Question::RemoveKey(request.clone())),
    ),
    act("stop-run", "Asks the run that goes on to stop", &[("run", "its id")], |desk, request| {
        ask(desk, &Question::StopRun(request.clone()))
    }),
    act(
        "configure",
        "Checks a text of the configuration and, unless it has mistakes, writes it: {config, text, hash, mistakes, warnings}",
        &[("text", "the text"), ("hash?", "that of the text that it replaces"), ("write?", "whether to write it")],
        |desk, request| ask(desk, &Question::Configure(request.clone())),
    ),
];

fn ask(desk: &Arc<Desk>, question: &Question) -> Told {
    let told = desk.home().answer(question, desk.fresh().vault(), &crate::progress::Silent::default());
    desk.worked();
    encode(&told?)
}

/// Changes the key slots, and brings the view of the store up to date.
fn change_keys(desk: &Arc<Desk>, question: &Question) -> Told {
    let told = ask(desk, question);
    desk.changed();
    told
}

fn begin(desk: &Arc<Desk>, kind: &'static str, request: &Value, question: fn(Value) -> Question) -> Told {
    let question = question(request.clone());
    let job = Jobs::begin(desk, kind, request.clone(), move |desk, watcher| {
        let done = desk.home().answer(&question, desk.view().vault(), watcher);
        desk.changed();
        done
    })?;
    begun(&job)
}

fn begun(job: &Arc<Job>) -> Told {
    encode(&json!({ "id": job.id(), "kind": job.kind() }))
}

fn list_jobs(jobs: &[Arc<Job>], now: std::time::Duration) -> Vec<u8> {
    let mut text = b"{\"jobs\":[".to_vec();
    for (number, job) in jobs.iter().enumerate() {
        text.extend_from_slice(if number == 0 { b"" } else { b"," });
        text.extend_from_slice(&job.told(now, false));
    }
    text.extend_from_slice(b"]}");
    text
}

/// The description of all routes, as OpenAPI 3.1.
pub fn openapi() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let is_post = matches!(route.handler, Handler::Post(_) | Handler::Enter | Handler::Leave);
        let (kind, status) = match route.handler {
            Handler::File => ("application/octet-stream", "200"),
            Handler::Events => ("text/event-stream", "200"),
            _ => ("application/json", "200"),
        };
        let mut operation = json!({
            "operationId": route.path,
            "summary": route.summary,
            "responses": {
                status: { "description": "what was asked for", "content": { kind: {} } },
                "default": { "$ref": "#/components/responses/Problem" },
            },
        });
        if route.changes {
            operation["x-changes"] = true.into();
        }
        if is_post {
            operation["requestBody"] = shape::body(route.path, route.parameters);
        } else {
            operation["parameters"] = shape::query(route.path, route.parameters);
        }
        let method = if is_post { "post" } else { "get" };
        paths.insert(format!("{API}{}", route.path), json!({ method: operation }));
    }
    let fields = json!({
        "error": { "type": "string" }, "hint": { "type": ["string", "null"] }, "code": { "type": "integer" },
    });
    let schema = json!({ "type": "object", "properties": fields, "required": ["error", "hint", "code"] });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "vault ui",
            "version": "1",
            "description": "What the page of vault ui asks. Shapes are those of --json (docs/json.md).",
        },
        "paths": paths,
        "components": {
            "responses": {
                "Problem": {
                    "description": "why not; code is the exit code that a command would have ended with",
                    "content": { "application/json": { "schema": schema } },
                },
            },
            "securitySchemes": { "browser": { "type": "apiKey", "in": "cookie", "name": "vault_PORT" } },
        },
        "security": [{ "browser": [] }],
    })
}

/// The router for all routes.
pub fn router(desk: &Arc<Desk>) -> Router {
    let mut router = Router::new();
    for asset in assets::ALL {
        let send = move |request: Request| async move { assets::send(asset, request.headers()) };
        router = router.route(asset.path, get(send));
    }
    for route in ROUTES.iter().filter(|route| !(route.changes && desk.is_read_only())) {
        let desk = desk.clone();
        let serve = move |request: Request| respond(desk.clone(), route, request);
        let is_get = matches!(route.handler, Handler::Get(_) | Handler::File | Handler::Events);
        let method = if is_get { get(serve) } else { post(serve) };
        router = router.route(&format!("{API}{}", route.path), method);
    }
    router = router.fallback(|| async { refuse(&Problem::missing("there is nothing of this name")) });
    let other = || async { refuse(&Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this is asked by another method")) };
    router = router.method_not_allowed_fallback(other);
    router.layer(from_fn_with_state(desk.clone(), guard))
}

/// Judges a request before anything else sees it, and adds the protecting headers to every answer.
async fn guard(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response<Body> {
    let holds = |cookie: &str| desk.sessions().holds(cookie, desk.home().elapsed());
    let judged = gate::judge(desk.names(), request.method(), request.uri().path(), request.headers(), &holds);
    let mut response = match judged {
        Ok(()) => next.run(request).await,
        Err(problem) => refuse(&problem),
    };
    answer::protect(response.headers_mut());
    response
}

async fn respond(desk: Arc<Desk>, route: &'static Route, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let query = Query::read(head.uri.query().unwrap_or_default());
    let sent = async {
        let bytes = to_bytes(body, BODY_MAX).await;
        let bytes = bytes.map_err(|_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long"))?;
        let request = serde_json::from_slice::<Value>(&bytes)
            .map_err(|error| Problem::usage(format!("the request is no JSON: {error}")))?;
        shape::check(route.path, route.parameters, &request).map(|()| request)
    };
    let told = match route.handler {
        Handler::Events => return events::stream(desk),
        Handler::File => {
            return match aside(move || save::file(&desk, &query)).await {
                Ok(response) => response,
                Err(problem) => refuse(&problem),
            };
        }
        Handler::Get(read) => aside(move || read(&desk, &query)).await,
        Handler::Post(act) => match sent.await {
            Ok(request) => aside(move || act(&desk, &request)).await,
            Err(problem) => Err(problem),
        },
        Handler::Enter => match sent.await.and_then(|request| enter(&desk, &request)) {
            Ok(cookie) => return with_cookie(&cookie),
            Err(problem) => Err(problem),
        },
        Handler::Leave => {
            gate::cookies(&head.headers, &desk.names().cookie()).for_each(|cookie| desk.sessions().forget(cookie));
            Ok(b"{}".to_vec())
        }
    };
    match told {
        Ok(body) => answer::json(StatusCode::OK, body),
        Err(problem) => refuse(&problem),
    }
}

/// Runs work that may block, on a thread for such work.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    let defect = |_| Err(Problem::of_exit(crate::exit::Exit::Panic, "a bug in vault ended this"));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(defect)
}

/// Exchanges a token for the header that sets the cookie.
fn enter(desk: &Desk, request: &Value) -> Result<String, Problem> {
    let token = request.get("token").and_then(Value::as_str).unwrap_or_default();
    let failed = |error: crate::seal::SealError| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let cookie = desk.sessions().exchange(token, desk.home().elapsed()).map_err(failed)?;
    let cookie = cookie.ok_or_else(|| {
        Problem::new(StatusCode::UNAUTHORIZED, "this address is good once, and for ten minutes")
            .hint("Press Enter where vault ui runs for a new one.")
    })?;
    desk.home().log("a browser was let in");
    Ok(format!("{}={cookie}; Path=/; HttpOnly; SameSite=Strict", desk.names().cookie()))
}

fn with_cookie(cookie: &str) -> Response<Body> {
    let mut response = answer::json(StatusCode::OK, b"{}".to_vec());
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_carry_any_bytes() {
        let query = Query::read("path=/a%2Fb//%ff+c&from=7&x&%70=1&from=8");
        assert_eq!(query.path(), b"a/b/\xff c");
        assert_eq!((query.number("from", 0), query.number("to", 3)), (Ok(7), Ok(3)));
        assert!(query.number("path", 0).is_err() && query.text("path").is_err(), "no text");
        assert_eq!((query.bytes("x"), query.bytes("p"), query.bytes("y")), (Some(&b""[..]), Some(&b"1"[..]), None));
        assert_eq!(Query::read("path=%").path(), b"%");
        assert_eq!(Query::read("path=%4").path(), b"%4");
        assert_eq!(Query::read("path=%é").path(), "%é".as_bytes());
    }

    #[test]
    fn whatever_is_got_changes_nothing() {
        for route in ROUTES {
            let is_get = matches!(route.handler, Handler::Get(_) | Handler::File | Handler::Events);
            assert!(!(is_get && route.changes), "{}", route.path);
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "tests may read the environment")]
    fn the_description_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        let now = serde_json::to_string_pretty(&openapi()).unwrap() + "\n";
        if std::env::var_os("VAULT_GOLDEN").is_some_and(|wish| wish == "write") {
            std::fs::write(&path, &now).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(kept, now, "to be written by: VAULT_GOLDEN=write cargo test --lib web::routes");
    }
}
