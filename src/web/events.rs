//! Events that tell the page of changes as they happen: one stream for each open page.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::web::desk::{Desk, Watching};

/// The interval at which a stream looks for changes.
const LOOK: Duration = Duration::from_millis(250);
/// The interval at which a silent stream sends a sign of life.
const ALIVE: Duration = Duration::from_secs(15);

/// The state that a page was last told of.
struct Told {
    watching: Watching,
    jobs: HashMap<u64, Vec<u8>>,
    records: Arc<std::collections::HashSet<crate::id::ObjectName>>,
    running: Option<Arc<Value>>,
    waiting: Vec<Event>,
}

impl Told {
    fn look(&mut self) {
        let desk = self.watching.desk().clone();
        let now = desk.home().elapsed();
        for job in desk.jobs().all() {
            let told = job.told(now, false);
            let before = self.jobs.insert(job.id(), told.clone());
            if before.as_ref() != Some(&told) {
                let text = String::from_utf8_lossy(&told).into_owned();
                self.waiting.push(Event::default().event("job").data(text));
            }
        }
        let records = desk.records();
        if !Arc::ptr_eq(&records, &self.records) {
            if records != self.records {
                self.waiting.push(Event::default().event("changed").data("snapshots"));
            }
            self.records = records;
        }
        let running = desk.running();
        if running.is_some() != self.running.is_some() {
            self.waiting.push(Event::default().event("run").data(if running.is_some() { "begun" } else { "ended" }));
        }
        if let Some(now) = &running
            && self.running.as_ref().is_none_or(|before| !Arc::ptr_eq(before, now))
        {
            self.waiting.push(Event::default().event("now").data(now.to_string()));
        }
        self.running = running;
    }
}

/// `GET events`.
pub fn stream(desk: Arc<Desk>) -> Response {
    let (records, running) = (desk.records(), desk.running());
    let told = Told { watching: Watching::new(desk), jobs: HashMap::new(), records, running, waiting: Vec::new() };
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
