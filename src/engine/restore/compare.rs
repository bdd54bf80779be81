//! Compares files with the ids of their chunks: existing content that is right is not written again, and written content is read back on
//! request.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::engine::restore::attributes::Identity;
use crate::engine::restore::execute::{Batch, Executor, Worker};
use crate::engine::restore::run::{Halt, Run, lock};
use crate::engine::restore::task::{Action, FinishError, Hole, Piece};
use crate::fs::{SourceFile, TargetFile};
use crate::tree::FileKind;

/// Number of chunks of one file to compare at a time.
const CHUNKS_AT_ONCE: usize = 64;

/// Whether the second piece belongs to the same chunk as the first, which precedes it.
const fn continues(_: &Piece, second: &Piece) -> bool {
    second.skip > 0
}

impl Executor<'_, '_> {
    /// Removes the pieces that are already in place, and makes the holes of existing files.
    pub(super) fn compare(&self, batch: &Batch, pieces: &mut Vec<Piece>, holes: &[Hole]) -> Result<(), Halt> {
        let right: Vec<AtomicBool> = pieces.iter().map(|_| AtomicBool::new(false)).collect();
        let updates = |file: u32| matches!(batch.file(file).action, Action::Update { .. });
        // Each unit is a range of pieces of one file that divides no chunk.
        let mut units = Vec::new();
        let (mut start, mut chunks) = (0, 0);
        for at in 1..=pieces.len() {
            let ends = at == pieces.len()
                || pieces[at].file != pieces[start].file
                || chunks >= CHUNKS_AT_ONCE && !continues(&pieces[at - 1], &pieces[at]);
            chunks += 1;
            if ends {
                if updates(pieces[start].file) {
                    units.push(start..at);
                }
                (start, chunks) = (at, 0);
            }
        }
        self.parallel(&units, |worker, unit| {
            let same = compare_unit(self, batch, worker, &pieces[unit.clone()], &right[unit.clone()])?;
            if same == 0 {
                return Ok(());
            }
            let bytes = pieces[unit.clone()].iter().zip(&right[unit.clone()]).filter(|(_, right)| right.load(Relaxed));
            self.run.progress.counters().add(0, bytes.map(|(piece, _)| u64::from(piece.len)).sum());
            self.complete(batch, worker, pieces[unit.start].file, same)
        })?;
        let files: Vec<&[Hole]> = holes.chunk_by(|a, b| a.file == b.file).collect();
        self.parallel(&files, |worker, holes| {
            make_holes(self, batch, holes)?;
            self.complete(batch, worker, holes[0].file, holes.len())
        })?;
        let mut right = right.into_iter();
        pieces.retain(|_| !right.next().is_some_and(AtomicBool::into_inner));
        Ok(())
    }
}

/// Compares some pieces of a file with its present content. Returns how many are right.
fn compare_unit(
    executor: &Executor<'_, '_>,
    batch: &Batch,
    worker: &mut Worker,
    pieces: &[Piece],
    right: &[AtomicBool],
) -> Result<usize, Halt> {
    // A file that cannot be read is written as if it were empty: whatever is wrong shows then.
    let Some(file) = open(executor, batch, pieces[0].file) else { return Ok(0) };
    let (mut at, mut same) = (0, 0);
    for chunk in pieces.chunk_by(continues) {
        executor.run.check()?;
        let read = |buffer: &mut [u8], offset| file.read_full_at(buffer, offset);
        if matches!(is_chunk(executor.run, chunk, read, &mut worker.buffer), Ok(true)) {
            right[at..at + chunk.len()].iter().for_each(|right| right.store(true, Relaxed));
            same += chunk.len();
        }
        at += chunk.len();
    }
    Ok(same)
}

fn open(executor: &Executor<'_, '_>, batch: &Batch, index: u32) -> Option<SourceFile> {
    let task = batch.file(index);
    let Action::Update { identity, .. } = task.action else { return None };
    let dir = executor.run.handles.open(&task.folder).ok()?;
    let file = dir.as_source().open_file(&task.name).ok()?;
    let stat = file.stat().ok()?;
    (stat.kind == FileKind::File && Identity::of(&stat) == identity).then_some(file)
}

/// Whether the file contains a chunk, given by its pieces, at the right places.
fn is_chunk(
    run: &Run<'_>,
    chunk: &[Piece],
    read: impl Fn(&mut [u8], u64) -> std::io::Result<usize>,
    buffer: &mut Vec<u8>,
) -> std::io::Result<bool> {
    let len: usize = chunk.iter().map(|piece| piece.len as usize).sum();
    // The buffer only grows, so it need not be cleared for each chunk.
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    let mut start = 0;
    for piece in chunk {
        let end = start + piece.len as usize;
        if read(&mut buffer[start..end], piece.at)? < end - start {
            return Ok(false);
        }
        start = end;
    }
    Ok(run.vault.keys().chunk_id(&buffer[..len]) == chunk[0].id)
}

/// Punches the holes of a file where it has data.
fn make_holes(executor: &Executor<'_, '_>, batch: &Batch, holes: &[Hole]) -> Result<(), Halt> {
    let task = batch.file(holes[0].file);
    let Action::Update { size, .. } = task.action else { return Ok(()) };
    let extents = open(executor, batch, holes[0].file).and_then(|file| file.extents(size).ok()?);
    let has_data = |hole: &Hole| match &extents {
        // No holes at all, or the file system does not tell.
        None => hole.at < size,
        Some(extents) => {
            let first = extents.partition_point(|(_, end)| *end <= hole.at);
            extents.get(first).is_some_and(|(start, _)| *start < hole.at + hole.len)
        }
    };
    for hole in holes.iter().filter(|hole| has_data(hole)) {
        executor.run.check()?;
        if executor.run.options.dry_run {
            let begun = executor.begin(task, &mut lock(&task.state));
            if let Err(error) = begun {
                executor.fail_task(task, "cannot make its holes", error)?;
            }
            continue;
        }
        let punched = executor
            .open_task(task, &mut lock(&task.state))
            .and_then(|file| file.map_or(Ok(()), |file| file.punch_hole(hole.at, hole.len)));
        if let Err(error) = punched {
            executor.fail_task(task, "cannot make its holes", error)?;
        }
    }
    Ok(())
}

impl Run<'_> {
    /// Reads pieces of a file back and compares them with their chunk.
    pub(super) fn read_back(
        &self,
        file: &TargetFile,
        pieces: &[Piece],
        buffer: &mut Vec<u8>,
    ) -> Result<(), FinishError> {
        for chunk in pieces.chunk_by(continues) {
            self.check().map_err(|Halt| FinishError::Halt)?;
            if !is_chunk(self, chunk, |buffer, offset| file.read_at(buffer, offset), buffer)? {
                let what = format!("what was written reads back differently (at byte {})", chunk[0].at);
                return Err(FinishError::Differs(what));
            }
        }
        Ok(())
    }
}
