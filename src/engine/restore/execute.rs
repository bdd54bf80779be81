//! Executes a restore: reads each segment of a window once and writes its chunks to all their places.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::catalogue::PackInfo;
use crate::engine::restore::RestoreError;
use crate::engine::restore::attributes::Identity;
use crate::engine::restore::links::Links;
use crate::engine::restore::run::{Halt, Loss, Mark, Run, UNCHANGED, lock};
use crate::engine::restore::special::{copy_content, put_in_place, temporary_name};
use crate::engine::restore::task::{Action, Arrived, FileState, FileTask, FinishError, First, Piece, Window};
use crate::fs::{Stat, TargetDir, TargetFile};
use crate::pack::PackReader;
use crate::pack::segment::{ChunkSpan, Segment};
use crate::seal::Decompressor;
use crate::sync::{spawn, try_spawn};
use crate::tree::FileKind;
use crate::vault::{Lookup, ReadError};

/// Maximum number of files to keep open that are written by several threads or from several segments.
const FILES_OPEN_MAX: usize = 256;
/// Space for files of at least this length, in bytes, is allocated before they are written.
const PREALLOCATE_MIN: u64 = 16 << 20;
/// Number of empty files to create at a time.
const ENDING_AT_ONCE: usize = 64;

/// Executes the windows of one restore.
pub(super) struct Executor<'r, 'a> {
    pub(super) run: &'r Run<'a>,
    links: &'r Links,
    pub(super) lookup: Arc<Lookup<'a>>,
    pub(super) packs: PackReader<'a>,
    workers: Vec<Mutex<Worker>>,
    open: AtomicUsize,
    /// The file in whose middle the last window ended, and the files of the current one.
    unfinished: Mutex<Vec<Arc<FileTask>>>,
}

/// State of one thread.
pub(super) struct Worker {
    decompressor: Decompressor,
    pack: Option<(u32, PackInfo)>,
    pub(super) buffer: Vec<u8>,
}

/// A window while it is executed.
pub(super) struct Batch {
    pub(super) files: Vec<Arc<FileTask>>,
    /// All pieces in the order of the files, if they are to be read back.
    by_file: Vec<Piece>,
}

impl Batch {
    pub(super) fn file(&self, index: u32) -> &Arc<FileTask> {
        &self.files[index as usize]
    }

    fn pieces_of(&self, index: u32) -> &[Piece] {
        let start = self.by_file.partition_point(|piece| piece.file < index);
        let len = self.by_file[start..].partition_point(|piece| piece.file == index);
        &self.by_file[start..start + len]
    }
}

/// Pieces that could not be read from the expected place, each with the reason.
pub(super) type Failed = Mutex<Vec<(Piece, Loss)>>;

impl<'r, 'a> Executor<'r, 'a> {
    /// An executor that uses `lookup` to find packs and other copies of chunks.
    pub(super) fn new(run: &'r Run<'a>, links: &'r Links, lookup: Arc<Lookup<'a>>) -> Result<Self, ReadError> {
        let worker = || Ok(Mutex::new(Worker { decompressor: Decompressor::new()?, pack: None, buffer: Vec::new() }));
        Ok(Self {
            run,
            links,
            lookup,
            packs: run.vault.tree_packs(),
            workers: (0..run.options.threads.max(1)).map(|_| worker()).collect::<Result<_, ReadError>>()?,
            open: AtomicUsize::new(0),
            unfinished: Mutex::default(),
        })
    }

    /// Executes all windows that `plan` sends.
    pub(super) fn execute_all(
        &self,
        planned: Receiver<Window>,
        plan: impl FnOnce() -> Result<(), Halt> + Send,
    ) -> Result<(), Halt> {
        if self.reads_ahead() {
            return self.execute_ahead(planned, plan);
        }
        std::thread::scope(|scope| {
            let planner = spawn(scope, plan);
            // At an error, the planner notices that its windows are no longer received.
            let executed = planned.into_iter().try_for_each(|window| self.execute(window, None));
            let planned = planner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            executed.and(planned)
        })
    }

    /// Executes one window to its end; `arrived` are its segments if they are being read already.
    pub(super) fn execute(&self, window: Window, mut arrived: Option<Receiver<Arrived<'_>>>) -> Result<(), Halt> {
        let Window { files, mut pieces, holes, ending, place } = window;
        lock(&self.unfinished).extend(files.iter().cloned());
        let mut batch = Batch { files, by_file: Vec::new() };
        if batch.files.iter().any(|task| matches!(task.action, Action::Update { .. })) {
            self.compare(&batch, &mut pieces, &holes)?;
        }
        if self.run.options.dry_run {
            self.pretend(&batch, &pieces, &ending)?;
            self.run.tell_up_to(place);
            return Ok(());
        }
        if self.run.options.verify {
            batch.by_file.clone_from(&pieces);
        }
        while !pieces.is_empty() {
            pieces.sort_unstable_by_key(Piece::store_order);
            let failed = Failed::default();
            let groups = groups(&pieces);
            if let Some(arrived) = arrived.take() {
                self.open_arrived(&batch, &pieces, &groups, arrived, &failed)?;
            } else if self.run.vault.store().is_far() {
                self.fetch(&batch, &pieces, &groups, &failed)?;
            } else {
                self.parallel(&groups, |worker, group| {
                    self.segment(&batch, worker, &pieces[group.clone()], None, &failed)
                })?;
            }
            pieces = self.elsewhere(&batch, failed.into_inner().unwrap_or_default())?;
        }
        let ending: Vec<&[u32]> = ending.chunks(ENDING_AT_ONCE).collect();
        self.parallel(&ending, |worker, files| {
            files.iter().try_for_each(|index| {
                self.run.check()?;
                self.complete(&batch, worker, *index, 1)
            })
        })?;
        if self.run.options.verify {
            self.verify_begun(&batch)?;
        }
        self.settle(&batch);
        self.run.tell_up_to(place);
        Ok(())
    }

    /// Drops finished files from `unfinished`.
    fn settle(&self, batch: &Batch) {
        let mut unfinished = lock(&self.unfinished);
        unfinished.clear();
        unfinished.extend(batch.files.last().filter(|task| task.pending.load(Acquire) > 0).cloned());
    }

    /// Counts what would be done.
    fn pretend(&self, batch: &Batch, pieces: &[Piece], ending: &[u32]) -> Result<(), Halt> {
        let worker = &mut *lock(&self.workers[0]);
        for piece in pieces {
            let task = batch.file(piece.file);
            let begun = self.begin(task, &mut lock(&task.state));
            match begun {
                Ok(true) => {
                    self.run.tally.bytes_written.fetch_add(u64::from(piece.len), Relaxed);
                }
                Ok(false) => {}
                Err(error) => self.fail_task(task, "cannot write it", error)?,
            }
            self.complete(batch, worker, piece.file, 1)?;
        }
        ending.iter().try_for_each(|index| self.complete(batch, worker, *index, 1))?;
        self.settle(batch);
        Ok(())
    }

    /// For a dry run: checks that the file could be written. Returns `false` if it has failed before.
    pub(super) fn begin(&self, task: &FileTask, state: &mut FileState) -> io::Result<bool> {
        if state.begun || state.failed.is_some() {
            return Ok(state.failed.is_none());
        }
        match task.action {
            Action::Update { .. } if task.frozen => return Err(of_another_vault()),
            Action::Update { .. } if !task.keeps_copy => {
                self.run.handles.open(&task.folder)?.may_change(&task.name)?;
            }
            Action::Create => self.run.may_write(&task.folder)?,
            Action::Replace | Action::Update { .. } => self.run.may_take(&task.folder, &task.name)?,
        }
        state.begun = true;
        Ok(true)
    }

    /// Calls `each` for all items, from all threads. Items are started in order.
    pub(super) fn parallel<T: Sync>(
        &self,
        items: &[T],
        each: impl Fn(&mut Worker, &T) -> Result<(), Halt> + Sync,
    ) -> Result<(), Halt> {
        let next = AtomicUsize::new(0);
        let work = |worker: &Mutex<Worker>| -> Result<(), Halt> {
            let worker = &mut *lock(worker);
            while let Some(item) = items.get(next.fetch_add(1, Relaxed)) {
                self.run.check()?;
                each(worker, item)?;
            }
            Ok(())
        };
        let count = self.workers.len().min(items.len());
        if count <= 1 {
            return work(&self.workers[0]);
        }
        std::thread::scope(|scope| {
            let others: Vec<_> =
                self.workers[1..count].iter().map_while(|worker| try_spawn(scope, || work(worker)).ok()).collect();
            let mut done = work(&self.workers[0]);
            for other in others {
                done = done.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            done
        })
    }

    /// Number of threads that open and write.
    pub(super) const fn threads(&self) -> usize {
        self.workers.len()
    }

    /// Opens a segment, which is read unless its sealed bytes have been, and writes the pieces that are in it.
    pub(super) fn segment(
        &self,
        batch: &Batch,
        worker: &mut Worker,
        group: &[Piece],
        sealed: Option<Bytes>,
        failed: &Failed,
    ) -> Result<(), Halt> {
        let segment = match self.open_segment(worker, group, sealed) {
            Ok(segment) => segment,
            Err(error) => {
                let chunks = group.iter().map(|piece| (piece.id, piece.place));
                let error = match self.lookup.has_moved(&error, chunks) {
                    Ok(true) => error,
                    Ok(false) => self.lookup.judged(error),
                    Err(error) => error,
                };
                let loss = self.run.read(error)?;
                lock(failed).extend(group.iter().map(|piece| (*piece, loss.clone())));
                return Ok(());
            }
        };
        for pieces in group.chunk_by(|a, b| a.file == b.file) {
            self.write_pieces(batch, worker, &segment, pieces, failed)?;
        }
        Ok(())
    }

    fn open_segment(&self, worker: &mut Worker, group: &[Piece], sealed: Option<Bytes>) -> Result<Segment, ReadError> {
        let place = group[0].place;
        if worker.pack.as_ref().is_none_or(|(number, _)| *number != place.pack) {
            worker.pack = self.lookup.pack(place.pack)?.map(|info| (place.pack, info));
        }
        let segment = worker.pack.as_ref().and_then(|(_, info)| info.place(place.segment));
        let segment = segment.ok_or(ReadError::Lost(group[0].id))?;
        self.run.progress.counters().bytes_read.fetch_add(u64::from(segment.len), Relaxed);
        let opened = match sealed {
            Some(sealed) => self.packs.open_read(&segment, sealed, &mut worker.decompressor),
            None => self.packs.segment(&segment, None, &mut worker.decompressor),
        };
        Ok(opened?)
    }

    /// Writes pieces of one file from an opened segment.
    fn write_pieces(
        &self,
        batch: &Batch,
        worker: &mut Worker,
        segment: &Segment,
        pieces: &[Piece],
        failed: &Failed,
    ) -> Result<(), Halt> {
        let index = pieces[0].file;
        let task = batch.file(index);
        let mut runs = Vec::with_capacity(1);
        let mut good = 0;
        for piece in pieces {
            let Some(range) = find(segment, piece) else {
                let what = format!("chunk {} is not where the catalogue says", piece.id);
                lock(failed).push((*piece, Loss::damage(what)));
                continue;
            };
            good += 1;
            add_run(&mut runs, piece.at, range);
        }
        if good == 0 {
            return Ok(());
        }
        let bytes: usize = runs.iter().map(|(_, range): &(u64, Range<usize>)| range.len()).sum();
        let written = self.open_task(task, &mut lock(&task.state)).and_then(|file| {
            let Some(file) = file else { return Ok(()) };
            for (at, range) in runs {
                file.write_at(&segment.raw[range], at)?;
            }
            self.run.tally.bytes_written.fetch_add(bytes as u64, Relaxed);
            Ok(())
        });
        if let Err(error) = written {
            self.fail_task(task, "cannot write it", error)?;
        }
        self.run.progress.counters().add(0, bytes as u64);
        self.complete(batch, worker, index, good)
    }

    /// The file, opened for writing; created if it does not exist. `None` if it has failed.
    pub(super) fn open_task(&self, task: &FileTask, state: &mut FileState) -> io::Result<Option<Arc<TargetFile>>> {
        if state.failed.is_some() {
            return Ok(None);
        }
        if let Some(file) = &state.handle {
            return Ok(Some(file.clone()));
        }
        let dir = self.run.handles.open(&task.folder)?;
        let file = if state.begun {
            let file = dir.open_existing(state.temporary.as_deref().unwrap_or(&task.name))?;
            same_file(&file.stat()?, state.identity)?;
            file
        } else {
            let file = match task.action {
                Action::Create => dir.create_file(&task.name, task.attributes.mode)?,
                Action::Replace => {
                    // Nothing is written for a file that could not take its place.
                    dir.may_take(&task.name, self.run.sets_metadata(&task.folder, false))?;
                    let name = temporary_name()?;
                    let file = dir.create_file(&name, task.attributes.mode)?;
                    state.temporary = Some(name);
                    file
                }
                Action::Update { .. } if task.frozen => return Err(of_another_vault()),
                Action::Update { identity, .. } => match open_to_change(&dir, task) {
                    Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                        // The existing file stays as it is; a changed copy replaces it.
                        let from = dir.as_source().open_file(&task.name)?;
                        same_file(&from.stat()?, Some(identity))?;
                        dir.may_take(&task.name, self.run.sets_metadata(&task.folder, false))?;
                        let name = temporary_name()?;
                        let file = dir.create_file(&name, task.attributes.mode)?;
                        state.temporary = Some(name);
                        state.begun = true;
                        copy_content(&from, &file)?;
                        file
                    }
                    opened => {
                        let file = opened?;
                        same_file(&file.stat()?, Some(identity))?;
                        file
                    }
                },
            };
            state.begun = true;
            file
        };
        let file = Arc::new(file);
        self.open.fetch_add(1, Relaxed);
        let fresh = state.handle.insert(file.clone());
        if state.identity.is_none() && !matches!(task.action, Action::Update { .. }) {
            if task.sparse {
                fresh.set_len(task.size)?;
            } else if task.size >= PREALLOCATE_MIN {
                fresh.preallocate(task.size)?;
            }
        }
        Ok(Some(file))
    }

    /// Closes a file between two pieces if too many are open.
    fn relieve(&self, task: &FileTask) {
        if self.open.load(Relaxed) <= FILES_OPEN_MAX {
            return;
        }
        let mut state = lock(&task.state);
        let idle = state.handle.take_if(|file| Arc::strong_count(file) == 1);
        if let Some(file) = idle {
            match file.stat() {
                Ok(stat) => {
                    state.identity = Some(Identity::of(&stat));
                    self.open.fetch_sub(1, Relaxed);
                }
                // The file stays open.
                Err(_) => state.handle = Some(file),
            }
        }
    }

    /// Records that a file cannot be restored.
    pub(super) fn fail_task(&self, task: &FileTask, action: &str, error: io::Error) -> Result<(), Halt> {
        let what = self.run.target(&task.path(), task.place_of_errors(), action, error)?;
        lock(&task.state).failed.get_or_insert(Loss::other(what));
        Ok(())
    }

    /// Counts parts of a file as written. The thread that writes the last part finishes the file.
    pub(super) fn complete(&self, batch: &Batch, worker: &mut Worker, index: u32, parts: usize) -> Result<(), Halt> {
        let task = batch.file(index);
        if task.pending.fetch_sub(parts, AcqRel) > parts {
            self.relieve(task);
            return Ok(());
        }
        let mut state = lock(&task.state);
        if state.failed.is_none()
            && let Err(error) = self.finish(batch, worker, index, &mut state)
        {
            let what = match error {
                FinishError::Target(error) => {
                    self.run.target(&task.path(), task.place_of_errors(), "cannot finish it", error)?
                }
                FinishError::Differs(what) => what,
                FinishError::Halt => return Err(Halt),
            };
            state.failed = Some(Loss::other(what));
        }
        if let Some(Loss { what, is_damage }) = state.failed.take() {
            let what = match self.discard(task, &mut state) {
                None => what,
                Some(note) => format!("{what}; {note}"),
            };
            self.run.problem(task.path(), what, is_damage);
        }
        state.finished = true;
        if state.handle.take().is_some() {
            self.open.fetch_sub(1, Relaxed);
        }
        drop(state);
        self.run.folder_done(&task.folder)
    }

    /// Does the last steps of a file whose content is written.
    fn finish(&self, batch: &Batch, worker: &mut Worker, index: u32, state: &mut FileState) -> Result<(), FinishError> {
        let (run, task) = (self.run, batch.file(index));
        let unchanged = match task.action {
            Action::Update { size, .. } => !state.begun && size == task.size,
            _ => false,
        };
        if run.options.dry_run {
            if !unchanged && !self.begin(task, state)? {
                return Ok(());
            }
            self.foresee(task, unchanged)?;
            self.count(task, unchanged);
            return Ok(());
        }
        let meta = task.attributes.meta(FileKind::File, &run.names, run.meta);
        let dir = run.handles.open(&task.folder)?;
        let problems = if unchanged {
            dir.set_metadata(&task.name, &meta)
        } else {
            let Some(file) = self.open_task(task, state)? else { return Ok(()) };
            if let Action::Update { size, .. } = task.action
                && size != task.size
            {
                file.set_len(task.size)?;
            }
            if run.options.verify {
                run.read_back(&file, batch.pieces_of(index), &mut worker.buffer)?;
                run.tally.files_verified.fetch_add(1, Relaxed);
            }
            if let Some(name) = &state.temporary {
                if task.keeps_copy {
                    run.keep_copy(&dir, &task.name, &task.folder.path(), Some(task.place))?;
                }
                put_in_place(&dir, name, &task.name)?;
                state.temporary = None;
            }
            if let Some(group) = task.group {
                let identity = Some(Identity::of(&file.stat()?));
                self.links.made(group, First { identity, size: task.size, changed: true });
            }
            file.set_metadata(&meta)
        };
        if let (true, Some(group), Action::Update { identity, .. }) = (unchanged, task.group, task.action) {
            self.links.made(group, First { identity: Some(identity), size: task.size, changed: task.differs.any() });
        }
        run.metadata(|| task.path(), problems).map_err(|Halt| FinishError::Halt)?;
        self.count(task, unchanged);
        Ok(())
    }

    /// For a dry run: finds out what the last steps of a file would meet.
    fn foresee(&self, task: &FileTask, unchanged: bool) -> Result<(), FinishError> {
        let run = self.run;
        if task.keeps_copy && !unchanged {
            run.keep_copy(&*run.handles.open(&task.folder)?, &task.name, &task.folder.path(), Some(task.place))?;
        }
        let identity = match task.action {
            Action::Update { identity, .. } if unchanged || !task.keeps_copy => Some(identity),
            _ => None,
        };
        let meta = task.attributes.meta(FileKind::File, &run.names, run.meta);
        let problems = match identity {
            Some(_) => run.handles.open(&task.folder)?.foresee_metadata(&task.name, &meta, !unchanged),
            None => run.foresee_new(&task.folder, &meta),
        };
        run.metadata(|| task.path(), problems).map_err(|Halt| FinishError::Halt)?;
        if let Some(group) = task.group {
            self.links.made(group, First { identity, size: task.size, changed: !unchanged || task.differs.any() });
        }
        Ok(())
    }

    /// Counts a finished file, and tells how it changed.
    fn count(&self, task: &FileTask, unchanged: bool) {
        let run = self.run;
        if unchanged {
            run.tally.files_unchanged.fetch_add(1, Relaxed);
            run.progress.counters().files_unchanged.fetch_add(1, Relaxed);
        }
        run.count_file(task.size);
        run.progress.counters().add(1, task.holes_len);
        let (mark, why): (_, Cow<'static, str>) = match task.action {
            Action::Create => (Mark::Added, "it is not there".into()),
            Action::Replace => (Mark::Changed, task.replaced.into()),
            Action::Update { .. } if unchanged && !task.differs.any() => (Mark::Same, UNCHANGED.into()),
            Action::Update { size, .. } => {
                let content = if size == task.size { "content" } else { "size" };
                let words = if unchanged { Vec::new() } else { vec![content] };
                (Mark::Changed, task.differs.after(words).into())
            }
        };
        if run.tells(mark) {
            run.change(mark, task.path(), false, why, Some(task.place));
        }
    }

    /// Removes the written part of a file that cannot be restored. Returns what to report about it.
    fn discard(&self, task: &FileTask, state: &mut FileState) -> Option<&'static str> {
        if !state.begun || self.run.options.dry_run {
            return match task.action {
                Action::Create => None,
                _ => Some("what was there is left as it is"),
            };
        }
        let name = match (&task.action, state.temporary.take()) {
            (_, Some(name)) => name.into(),
            (Action::Create, None) => task.name.clone(),
            (Action::Update { .. }, None) => return Some("what was there has been overwritten in part"),
            // It has taken its place already; only its metadata could not be set.
            (Action::Replace, None) => return None,
        };
        let removed = self.run.handles.open(&task.folder).and_then(|dir| dir.remove_file(&name));
        match (removed, task.action) {
            (Err(_), _) => Some("what was written of it could not be removed"),
            (Ok(()), Action::Create) => None,
            (Ok(()), _) => Some("what was there is left as it is"),
        }
    }

    /// Other places of chunks that could not be read from the expected place. A chunk that has no other place is lost, and so are the
    /// files that need it.
    fn elsewhere(&self, batch: &Batch, failed: Vec<(Piece, Loss)>) -> Result<Vec<Piece>, Halt> {
        let mut again = Vec::new();
        let mut lost = BTreeSet::new();
        for (piece, Loss { what, is_damage }) in failed {
            let tried = piece.tried + 1;
            // The first place may be the one that was tried first: trying it twice does no harm.
            let after = (piece.tried > 0).then_some(piece.place);
            let place = match self.lookup.next_place(&piece.id, after) {
                Ok(place) => place,
                Err(error) => {
                    self.run.read(error)?;
                    None
                }
            };
            if let Some(place) = place.filter(|place| place.len == piece.place.len) {
                again.push(Piece { place, tried, ..piece });
                continue;
            }
            let reader = self.lookup.reader();
            reader.distrust();
            let places = reader.locate_all(&piece.id).map_err(|error| self.run.fail(RestoreError::Catalogue(error)))?;
            let what = if places.iter().any(|place| place.len != piece.place.len) {
                let more = "another pack says another length of it; vault check --read-data finds out which one is wrong, and \
                            then it can be restored";
                format!("{what}; {more}")
            } else {
                what
            };
            if lost.insert(piece.file) {
                lock(&batch.file(piece.file).state).failed.get_or_insert(Loss { what, is_damage });
            }
            self.complete(batch, &mut lock(&self.workers[0]), piece.file, 1)?;
        }
        Ok(again)
    }

    /// Reads back the written part of a file that continues in the next window.
    fn verify_begun(&self, batch: &Batch) -> Result<(), Halt> {
        let Some(task) = batch.files.last().filter(|task| task.pending.load(Acquire) > 0) else { return Ok(()) };
        let pieces = batch.pieces_of(batch.files.len() as u32 - 1);
        if pieces.is_empty() {
            return Ok(());
        }
        let mut state = lock(&task.state);
        let read = match self.open_task(task, &mut state) {
            Ok(Some(file)) => self.run.read_back(&file, pieces, &mut lock(&self.workers[0]).buffer),
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        let what = match read {
            Ok(()) => return Ok(()),
            Err(FinishError::Target(error)) => {
                self.run.target(&task.path(), Some(&task.folder), "cannot read it back", error)?
            }
            Err(FinishError::Differs(what)) => what,
            Err(FinishError::Halt) => return Err(Halt),
        };
        state.failed.get_or_insert(Loss::other(what));
        Ok(())
    }

    /// After a restore that ended early: removes unfinished files, so that no incomplete file looks complete.
    pub(super) fn clean_up(&self) {
        for task in lock(&self.unfinished).drain(..) {
            let mut state = lock(&task.state);
            if !state.finished {
                self.discard(&task, &mut state);
            }
        }
    }
}

/// Opens a file to change it in place. A file that must be kept as a copy is reported as busy.
fn open_to_change(dir: &TargetDir, task: &FileTask) -> io::Result<TargetFile> {
    if task.keeps_copy { Err(io::ErrorKind::ExecutableFileBusy.into()) } else { dir.open_existing(&task.name) }
}

fn of_another_vault() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "what lies there belongs to another vault")
}

/// The ranges of pieces that are in one segment each.
fn groups(pieces: &[Piece]) -> Vec<Range<usize>> {
    let mut start = 0;
    pieces
        .chunk_by(|a, b| a.place.segment_ref() == b.place.segment_ref())
        .map(|group| {
            let range = start..start + group.len();
            start = range.end;
            range
        })
        .collect()
}

/// The range of a piece in an opened segment.
fn find(segment: &Segment, piece: &Piece) -> Option<Range<usize>> {
    let is_it = |chunk: &&ChunkSpan| chunk.id == piece.id && chunk.len == piece.place.len;
    let at = segment.chunks.binary_search_by_key(&piece.place.offset, |chunk| chunk.offset);
    let chunk = at.ok().map(|at| &segment.chunks[at]).filter(is_it).or_else(|| segment.chunks.iter().find(is_it))?;
    let start = (chunk.offset + piece.skip) as usize;
    Some(start..start + piece.len as usize)
}

/// Adds bytes to write; bytes that continue the last run are added to it.
fn add_run(runs: &mut Vec<(u64, Range<usize>)>, at: u64, range: Range<usize>) {
    match runs.last_mut() {
        Some((start, last)) if last.end == range.start && *start + last.len() as u64 == at => last.end = range.end,
        _ => runs.push((at, range)),
    }
}

/// Refuses a file that is not the one opened before.
fn same_file(stat: &Stat, expected: Option<Identity>) -> io::Result<()> {
    match expected {
        Some(expected) if Identity::of(stat) != expected => {
            Err(io::Error::other("someone put another file in its place meanwhile"))
        }
        _ => Ok(()),
    }
}
