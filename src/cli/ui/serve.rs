//! The page while it runs.

use std::env;
use std::io;
use std::io::BufRead;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::progress::Progress;
use crate::web;
use crate::web::Bound;
use crate::web::Desk;
use crate::web::Place;
use crate::web::gate::Names;
use serde::Serialize;

use super::around::Around;
use super::browser;
use crate::cli::args::UiArgs;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::local;
use crate::cli::output::Output;

/// The port in the example of a tunnel.
const TUNNEL: u16 = 8484;

#[derive(Serialize)]
struct UiJson {
    address: String,
    vault: String,
    read_only: bool,
}

/// Runs `vault ui`.
pub(super) fn run(context: &Context, args: &UiArgs) -> Result<Exit, Failure> {
    let place = match &args.socket {
        Some(path) => {
            local::refuse_remote(path, "the socket")?;
            local::refuse_in_vault(path, "a socket")?;
            Place::Socket(path.clone())
        }
        None => Place::Port(args.port.unwrap_or(0)),
    };
    let chosen = context.chosen()?;
    // If the page cannot be served, this fails before a password is asked for.
    let bound = Bound::new(&place).map_err(|error| refused(&place, &error))?;
    let (vault, password) = context.open()?;
    let id = vault.id();
    let state = vault.state().to_owned();
    let names = bound.names().clone();
    let around = Around::new(context, &chosen, password, Instant::now());
    let desk = Desk::new(Arc::new(vault), Box::new(around), names.clone(), args.read_only)?;
    let desk = Arc::new(desk);
    context.screen.clear();
    let first = address(&desk)?;
    tell(context, args, &chosen.shown(), &first, id.to_string())?;
    let opened = (!args.no_open && args.socket.is_none() && !context.global.json)
        .then(|| browser::open(&first, &state))
        .flatten();
    if io::stdin().is_terminal() {
        let desk = Arc::clone(&desk);
        crate::sync::detach(move || offer_more(&desk));
    }
    context.screen.watch_interrupts_quietly();
    let served = web::serve(&desk, bound, &|| context.screen.stopped());
    drop(opened);
    served.map_err(|error| Failure::caused("cannot serve the page", &error))?;
    Ok(Exit::Done)
}

/// An address that can be used once.
fn address(desk: &Desk) -> Result<String, Failure> {
    let token = desk.sessions().token(desk.home().elapsed());
    let token = token.map_err(|error| Failure::caused("the system has no random numbers", &error))?;
    let port = match desk.names() {
        Names::Port(port) => *port,
        Names::Tunnel => TUNNEL,
    };
    let host = if *desk.names() == Names::Tunnel { "localhost" } else { "127.0.0.1" };
    Ok(format!("http://{host}:{port}/#token={token}"))
}

fn tell(context: &Context, args: &UiArgs, place: &str, address: &str, vault: String) -> Result<(), Failure> {
    let mut out = Output::new();
    if context.global.json {
        out.json(&UiJson { address: address.to_owned(), vault, read_only: args.read_only })?;
        return out.finish();
    }
    out.say(format_args!("The page of {place}, for you alone on this computer:"))?;
    out.line(format_args!("  {address}"))?;
    if !context.global.quiet {
        if let Some(socket) = &args.socket {
            let socket = env::current_dir().map_or_else(|_| socket.clone(), |folder| folder.join(socket));
            let socket = quoted(&socket.display().to_string());
            out.say(format_args!("On the other computer first: ssh -L {TUNNEL}:{socket} USER@HOST"))?;
        }
        out.say("It is good once, for ten minutes. Enter makes another one, Ctrl-C ends it.")?;
    }
    out.finish()
}

/// Prints another address whenever Enter is pressed.
fn offer_more(desk: &Desk) {
    for line in io::stdin().lock().lines() {
        let Ok(_) = line else { return };
        match address(desk) {
            Ok(address) => crate::cli::note(&format!("  {address}")),
            Err(failure) => crate::cli::note(&failure.what),
        }
    }
}

/// The failure for an address that cannot be listened on.
fn refused(place: &Place, error: &io::Error) -> Failure {
    match place {
        Place::Port(port) => Failure::caused(format!("cannot listen on 127.0.0.1, port {port}"), error)
            .hint("Without --port it takes any that is free."),
        Place::Socket(path) => {
            let failure = Failure::caused(format!("cannot listen at {}", path.display()), error);
            let folder = path.parent().unwrap_or_else(|| Path::new(".")).display().to_string();
            match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => {
                    let folder = quoted(&folder);
                    failure.hint(format!("Make a folder for it that is yours alone: mkdir -p -m 700 {folder}"))
                }
                io::ErrorKind::AddrInUse => failure.hint("Another vault ui listens there."),
                _ => failure,
            }
        }
    }
}
