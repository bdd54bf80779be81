//! The page: what `vault ui` shows in a browser on this computer, to the user who runs it and to nobody else.
//!
//! [`gate`] judges who may make requests, and [`session`] keeps the tokens and cookies that prove it · [`listen`]
//! binds the port or socket · [`assets`] holds the page itself · [`routes`] has all routes in one table, from which
//! the description for programs is made · [`desk`] is the shared state · [`look`] reads snapshots, folders, versions,
//! files · [`search`] finds and compares · [`jobs`] runs long work, [`restore`] among it · [`events`] tells the page
//! of changes · [`answer`] forms answers and refusals · [`dav`] serves snapshots as a share, for
//! `vault mount --webdav`.
//!
//! The async runtime stays inside this module. Reading the vault happens on threads that may block.

pub mod answer;
pub mod session;
pub mod gate;
pub mod assets;
pub mod jobs;
pub mod desk;
pub mod look;
pub mod search;
pub mod restore;
pub mod save;
pub mod events;
pub mod query;
pub mod shape;
pub mod routes;
pub mod listen;
pub mod dav;

use std::io;
use std::thread;
use std::time::Duration;

pub use crate::web::answer::Problem;
pub use crate::web::desk::{Desk, Home, Question};
pub use crate::web::listen::{Bound, Place};

/// Threads that speak with browsers; other threads do the long work.
const THREADS: usize = 2;
/// The largest number of threads that read for requests.
const READERS: usize = 16;
/// The interval at which the server checks whether to end.
const TICK: Duration = Duration::from_millis(100);
/// Ticks in a second.
const TICKS: u32 = 10;
/// Ticks between two looks at the current run.
const WATCH: u32 = 2;
/// The time that stopped work may take to end in good order.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves the page until `stopped` returns true. Work that is still running is asked to stop, and waited for.
///
/// # Errors
/// The system's error.
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
    desk.end();
    let mut left = PATIENCE;
    while (desk.jobs().is_busy() || desk.is_preparing()) && !left.is_zero() {
        thread::sleep(TICK);
        left = left.saturating_sub(TICK);
    }
    desk.rest();
    runtime.shutdown_timeout(TICK);
    Ok(())
}
