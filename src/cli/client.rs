//! `vault client`.

use crate::engine::prune;
use crate::engine::prune::ClientInfo;
use crate::id::ClientId;
use crate::log::RecordBody;
use crate::path::Shown;
use serde::Serialize;

use crate::cli::args::ClientCommand;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::output::Output;
use crate::cli::select::ID_DIGITS_MIN;
use crate::cli::table;
use crate::cli::table::Column;
use crate::cli::units;

const COLUMNS: &[Column] = &[
    Column::left("Id"),
    Column::left("Who").min(8),
    Column::left("Last seen"),
    Column::right("Records").drop(1),
    Column::left("State"),
];

#[derive(Serialize)]
struct ClientJson<'a> {
    id: String,
    host: &'a str,
    user: &'a str,
    records: u64,
    missing: u64,
    last: Option<String>,
    retired: bool,
    own: bool,
    holds_up: u64,
}

#[derive(Serialize)]
struct ListJson<'a> {
    clients: Vec<ClientJson<'a>>,
}

#[derive(Serialize)]
struct RetiredJson {
    retired: Vec<String>,
}

/// Runs `vault client ...`.
pub fn run(context: &Context, command: ClientCommand) -> Result<Exit, Failure> {
    match command {
        ClientCommand::List => list(context),
        ClientCommand::Retire { clients } => retire(context, &clients),
    }
}

fn short(id: &ClientId) -> String {
    id.to_string()[..8].to_owned()
}

fn state(info: &ClientInfo) -> String {
    let mut words = Vec::new();
    if info.own {
        words.push("this machine".to_owned());
    }
    if info.retired {
        words.push("retired".to_owned());
    }
    if info.missing > 0 {
        words.push(format!("{} missing", units::counted(info.missing, "record", "records")));
    }
    if info.holds_up > 0 {
        words.push(format!("{} wait for it", units::counted(info.holds_up, "pack", "packs")));
    }
    words.join(", ")
}

fn list(context: &Context) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    let clients = prune::clients(&vault);
    let mut out = Output::new();
    if context.global.json {
        let clients = clients.iter().map(|info| ClientJson {
            id: info.id.to_string(),
            host: &info.host,
            user: &info.user,
            records: info.records,
            missing: info.missing,
            last: info.last.map(dates::exact),
            retired: info.retired,
            own: info.own,
            holds_up: info.holds_up,
        });
        out.json(&ListJson { clients: clients.collect() })?;
    } else {
        let row = |info: &ClientInfo| {
            vec![
                short(&info.id),
                Shown(format!("{}@{}", info.user, info.host).as_bytes()).to_string(),
                info.last.map_or_else(|| "never".to_owned(), |time| dates::shown(time, &context.zone)),
                units::count(info.records),
                state(info),
            ]
        };
        let mut lines = table::render(COLUMNS, &clients.iter().map(row).collect::<Vec<_>>(), out.width).into_iter();
        if let Some(titles) = lines.next() {
            out.head(&titles)?;
        }
        lines.try_for_each(|line| out.line(line))?;
    }
    out.finish().map(|()| Exit::Done)
}

fn retire(context: &Context, ids: &[String]) -> Result<Exit, Failure> {
    let (vault, _) = context.open()?;
    let clients = prune::clients(&vault);
    let mut found = Vec::new();
    for id in ids {
        let prefix = id.to_ascii_lowercase();
        if prefix.len() < ID_DIGITS_MIN {
            return Err(Failure::usage(format!("'{id}' is too short for an id: give {ID_DIGITS_MIN} digits or more")));
        }
        let mut fitting = clients.iter().filter(|info| info.id.to_string().starts_with(&prefix));
        match (fitting.next(), fitting.next()) {
            (Some(info), None) if info.own => {
                return Err(Failure::new(format!("{} is this machine itself", short(&info.id)))
                    .hint("It can be retired from another machine, when it is gone for good."));
            }
            (Some(info), None) => found.push(info.id),
            (None, _) => {
                return Err(Failure::new(format!("there is no client {id}"))
                    .hint("See which there are with: vault client list"));
            }
            (Some(_), Some(_)) => {
                return Err(Failure::new(format!("{id} is the start of several ids")).hint("Give more digits."));
            }
        }
    }
    prune::say(&vault, RecordBody::Retire(found.clone()), dates::now(), &context.screen)?;
    let mut out = Output::new();
    if context.global.json {
        out.json(&RetiredJson { retired: found.iter().map(ToString::to_string).collect() })?;
    } else if !context.global.quiet {
        let count = units::counted(found.len() as u64, "client", "clients");
        out.say(format_args!("Retired {count}: freeing space waits for them no longer. Their snapshots stay."))?;
    }
    out.finish().map(|()| Exit::Done)
}
