//! Telling the page what changed, as it happens: one stream for each open page.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};

use crate::web::desk::Desk;

/// How often it is looked whether anything changed.
const LOOK: Duration = Duration::from_millis(250);
/// How often a silent stream says that it is there.
const ALIVE: Duration = Duration::from_secs(15);

/// What a page has been told.
struct Told {
    desk: Arc<Desk>,
    jobs: HashMap<u64, Vec<u8>>,
    records: Arc<std::collections::HashSet<crate::id::ObjectName>>,
    running: bool,
    waiting: Vec<Event>,
}

impl Told {
    fn look(&mut self) {
        let now = self.desk.home().elapsed();
        for job in self.desk.jobs().all() {
            let told = job.told(now, false);
            let before = self.jobs.insert(job.id(), told.clone());
            if before.as_ref() != Some(&told) {
                let text = String::from_utf8_lossy(&told).into_owned();
                self.waiting.push(Event::default().event("job").data(text));
            }
        }
        let records = self.desk.records();
        if !Arc::ptr_eq(&records, &self.records) {
            if records != self.records {
                self.waiting.push(Event::default().event("changed").data("snapshots"));
            }
            self.records = records;
        }
        let running = self.desk.is_running();
        if running != self.running {
            self.running = running;
            self.waiting.push(Event::default().event("run").data(if running { "begun" } else { "ended" }));
        }
    }
}

/// `GET events`.
pub fn stream(desk: Arc<Desk>) -> Response {
    let (records, running) = (desk.records(), desk.is_running());
    let told = Told { desk, jobs: HashMap::new(), records, running, waiting: Vec::new() };
    let events = futures_util::stream::unfold(told, |mut told| async move {
        loop {
            if !told.waiting.is_empty() {
                let event = told.waiting.remove(0);
                return Some((Ok::<_, Infallible>(event), told));
            }
            tokio::time::sleep(LOOK).await;
            told.look();
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response()
}
