//! The page: what `vault ui` shows in a browser on this computer, to the user who runs it and to nobody else.
//!
//! [`gate`] who may ask, and [`session`] how a browser shows that it may · [`listen`] where it is listened · [`assets`] the page
//! itself · [`routes`] everything that can be asked, in one table, from which the description for programs is made · [`desk`] what
//! all answers work with · [`look`] snapshots, folders, versions, files · [`search`] finding, comparing · [`jobs`] what takes
//! long, [`restore`] among it · [`events`] telling the page what changed · [`answer`] how answers and refusals look · [`dav`]
//! snapshots as a share, for `vault mount --webdav`.
//!
//! The runtime that requests run on stays in here. Whatever reads the vault runs on threads that may wait.

pub mod answer;
pub mod session;
pub mod gate;
pub mod assets;
pub mod jobs;
pub mod desk;
pub mod look;
pub mod search;
pub mod restore;
pub mod events;
pub mod routes;
pub mod listen;
pub mod dav;

use std::io;
use std::thread;
use std::time::Duration;

pub use crate::web::answer::Problem;
pub use crate::web::desk::{Desk, Home, Question};
pub use crate::web::listen::{Bound, Place};

/// Threads that speak with browsers; what takes long is done by others.
const THREADS: usize = 2;
/// Most threads that read for requests at once.
const READERS: usize = 16;
/// How often is looked whether it should end.
const TICK: Duration = Duration::from_millis(100);
/// How many of these make a second.
const TICKS: u32 = 10;
/// In how many of these it is looked once what a run does.
const WATCH: u32 = 2;
/// How long work that was told to stop may take to end in good order.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves the page until `stopped` says so. Work that goes on then is told to stop, and waited for.
///
/// # Errors
/// What the system says.
pub fn serve(desk: &std::sync::Arc<Desk>, bound: Bound, stopped: &dyn Fn() -> bool) -> io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(THREADS).max_blocking_threads(READERS).thread_name("vault-page");
    let runtime = builder.enable_all().build()?;
    listen::start(&runtime, bound, routes::router(desk))?;
    let mut ticks = 0_u32;
    while !stopped() {
        thread::sleep(TICK);
        ticks = (ticks + 1) % TICKS;
        if ticks.is_multiple_of(WATCH) {
            desk.watch();
        }
        if ticks == 0 {
            desk.tick();
        }
    }
    desk.jobs().stop_all();
    let mut left = PATIENCE;
    while desk.jobs().is_busy() && !left.is_zero() {
        thread::sleep(TICK);
        left = left.saturating_sub(TICK);
    }
    desk.rest();
    runtime.shutdown_timeout(TICK);
    Ok(())
}
