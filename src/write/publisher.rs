//! Puts finished packs into the store, several at a time, and tells of each once it is durable.
//!
//! Packs come through a channel without room, so a pack is passed on only after the one before has been taken: together
//! with those that are being filled, that limits the memory for packs in progress.

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

use crate::catalogue::packs::NewPack;
use crate::pack::FinishedPack;
use crate::progress::Progress;
use crate::store::{ObjectKey, StoreError, Upload, Uploads};
use crate::sync::{lock, spawn};
use crate::tree::Time;
use crate::vault::session::Session;
use crate::vault::{Vault, VaultError};

/// Number of packs that the store has received and that may wait to become durable.
const PENDING_MAX: usize = 8;

/// The first failure of work that several threads do; everything after it is only a consequence.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    first: Mutex<Option<VaultError>>,
    is_over: AtomicBool,
}

impl Failure {
    /// Records a failure. The work ends soon.
    pub(crate) fn record(&self, error: VaultError) {
        lock(&self.first).get_or_insert(error);
        self.end();
    }

    /// Ends the work: nothing of it will be used.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// Whether the work has failed or was ended.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    /// The failure, for the first who asks.
    pub(crate) fn take(&self) -> Option<VaultError> {
        lock(&self.first).take()
    }
}

/// Something for the thread that publishes.
pub(crate) enum Message<R> {
    /// A pack to be put.
    Pack(FinishedPack),
    /// Rows for the catalogue, which keep their place behind the packs before them.
    Rows(R),
}

/// Something that can be entered in the catalogue.
pub(crate) enum Durable<R> {
    /// A pack that the store has.
    Pack(NewPack),
    /// Rows, with all packs before them.
    Rows(R),
}

/// The two ends of the way to the thread that publishes.
pub(crate) fn channel<R>() -> (SyncSender<Message<R>>, Receiver<Message<R>>) {
    sync_channel(0)
}

/// Hands on the packs of one writer; returns `false` once nobody receives them.
pub(crate) fn hand_on<R>(messages: &SyncSender<Message<R>>) -> impl Fn(FinishedPack) -> bool + use<R> {
    let messages = messages.clone();
    move |pack| messages.send(Message::Pack(pack)).is_ok()
}

/// Puts packs for one piece of work.
pub(crate) struct Publisher<'p> {
    pub(crate) vault: &'p Vault,
    /// Notes the packs, if there is one.
    pub(crate) session: Option<&'p Session>,
    /// The clock for records that claim packs during the work, if it may take long.
    pub(crate) clock: Option<&'p (dyn Fn() -> Time + Sync)>,
    pub(crate) failure: &'p Failure,
    pub(crate) progress: &'p dyn Progress,
}

impl Publisher<'_> {
    /// Works until nothing can arrive any more. Calls `enter` for everything that is durable, in the order in which it came.
    /// After a failure, which is recorded, everything is discarded, so that no sender waits.
    pub(crate) fn run<R: Send>(
        &self,
        received: Receiver<Message<R>>,
        mut enter: impl FnMut(Durable<R>) -> Result<(), VaultError>,
    ) {
        let uploads = Uploads::new(self.vault.store());
        let uploads = &uploads;
        std::thread::scope(|scope| {
            let (written, arriving) = sync_channel(PENDING_MAX.max(uploads.most()));
            // One thread starts the puts, so that no sender waits for the store; this one waits for them to finish, in order.
            let taking = spawn(scope, move || {
                for message in received {
                    if self.failure.is_over() {
                        continue;
                    }
                    let put = |key: &ObjectKey, bytes| uploads.begin(scope, key, bytes);
                    match self.begin(message, put) {
                        Ok(begun) => drop(written.send(begun)),
                        Err(error) => self.failure.record(error),
                    }
                }
            });
            for begun in arriving {
                if self.failure.is_over() {
                    continue;
                }
                if let Err(error) = self.finish(begun).and_then(&mut enter) {
                    self.failure.record(error);
                }
            }
            taking.join().unwrap_or_else(|panic| resume_unwind(panic));
        });
    }

    /// Starts to put a pack into the store.
    fn begin<'s, R>(
        &self,
        message: Message<R>,
        put: impl FnOnce(&ObjectKey, Bytes) -> Result<Upload<'s>, StoreError>,
    ) -> Result<Begun<'s, R>, VaultError> {
        let pack = match message {
            Message::Pack(pack) => pack,
            Message::Rows(rows) => return Ok(Begun::Rows(rows)),
        };
        let key = ObjectKey::Named(pack.kind.store_kind(), pack.name);
        let len = pack.bytes.len() as u64;
        if let Some(session) = self.session {
            if let Some(clock) = self.clock {
                self.vault.publish_claims(session, clock, self.progress)?;
            }
            session.note_pack(&pack.name, pack.kind, len)?;
        }
        let kept = self.vault.keeps(pack.kind).then(|| pack.bytes.clone());
        let upload = put(&key, pack.bytes)?;
        Ok(Begun::Pack(upload, NewPack { kind: pack.kind, name: pack.name, len, footer: pack.footer }, kept))
    }

    /// Waits until a pack is durable.
    fn finish<R>(&self, begun: Begun<'_, R>) -> Result<Durable<R>, VaultError> {
        match begun {
            Begun::Pack(upload, pack, kept) => {
                upload.finish()?;
                if let Some(bytes) = kept {
                    self.vault.keep_meta_pack(&pack.name, &bytes, &pack.footer);
                }
                self.progress.counters().bytes_stored.fetch_add(pack.len, Relaxed);
                Ok(Durable::Pack(pack))
            }
            Begun::Rows(rows) => Ok(Durable::Rows(rows)),
        }
    }
}

/// A put that has started.
enum Begun<'s, R> {
    /// With the pack's bytes, if parts of them are to be kept on this machine once the store has them.
    Pack(Upload<'s>, NewPack, Option<Bytes>),
    Rows(R),
}
