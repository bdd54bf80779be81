//! Plans a restore: walks the trees, makes folders, and collects files with the places of their content in windows.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Release};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};

use crate::catalogue::ChunkPlace;
use crate::engine::query::browse::{Step, TreeWalk};
use crate::engine::restore::attributes::{Attributes, Identity};
use crate::engine::restore::folder::{Folder, Made};
use crate::engine::restore::guard::{Kept, Ward};
use crate::engine::restore::links::{Links, Member};
use crate::engine::restore::place::{Place, Places, What};
use crate::engine::restore::run::{Halt, Loss, Run, lock};
use crate::engine::restore::select::{Amount, Counted, Picked, Spot};
use crate::engine::restore::special::Decision;
use crate::engine::restore::task::{Action, FileState, FileTask, Hole, Piece, Window};
use crate::engine::restore::{RestoreError, Target};
use crate::fs::{Names, Stat};
use crate::id::ChunkId;
use crate::path::{Shown, join};
use crate::read::TreeReader;
use crate::read::sparse::Layout;
use crate::tree::{Entry, FileKind, IdReader, Owner, Stream};
use crate::vault::{Lookup, ReadError, SnapshotInfo};

/// Number of files in the first window. It is small, so that writing begins at once.
const FILES_FIRST: usize = 2 << 10;
/// Maximum number of files in a window; each window has twice as many as the one before, up to this number.
const FILES_MAX: usize = 32 << 10;
/// Maximum pieces in a window, per file that it may have: files of few chunks fill it by their number, others by this.
const PIECES_PER_FILE: usize = 4;
/// A window ends when this many changes wait to be reported.
const CHANGES_MAX: usize = 64 << 10;

/// The planner of one restore.
pub(super) struct Planner<'r, 'a> {
    run: &'r Run<'a>,
    links: &'r Links,
    trees: TreeReader<'a>,
    windows: SyncSender<Window>,
    window: Window,
    files_max: usize,
    levels: Vec<Level>,
    /// The depth of a folder that could not be made: its content is skipped.
    blocked: Option<usize>,
    owner: Arc<Owner>,
    /// Numbers of packs known to be damaged: other copies of their chunks are preferred.
    damaged: HashSet<u32>,
    /// The amount selected in each folder counted so far: folders in which nothing is selected are not entered.
    counted: Counted,
}

/// A folder on the way down.
struct Level {
    folder: Arc<Folder>,
    picked: Picked,
    /// The rules for removing in it, once it is made or found.
    ward: Option<Ward>,
    /// The names that were in the folder, and how many of them have been passed, if names missing in the snapshot are to be deleted.
    names: Option<(Names, usize)>,
    broken: bool,
}

impl Level {
    fn new(folder: Arc<Folder>, picked: Picked) -> Self {
        Self { folder, picked, ward: None, names: None, broken: false }
    }
}

/// How the pieces of a file were planned.
enum Planned {
    Whole,
    /// The file cannot be restored.
    Failed(Loss),
}

impl<'r, 'a> Planner<'r, 'a> {
    /// A planner that sends its windows to `windows`.
    pub(super) fn new(
        run: &'r Run<'a>,
        links: &'r Links,
        trees: TreeReader<'a>,
        damaged: HashSet<u32>,
        counted: Counted,
        windows: SyncSender<Window>,
    ) -> Self {
        Self {
            run,
            links,
            trees,
            windows,
            window: Window::default(),
            files_max: FILES_FIRST,
            levels: Vec::new(),
            blocked: None,
            owner: Arc::default(),
            damaged,
            counted,
        }
    }

    /// The place of a chunk, preferably in a pack not known to be damaged.
    fn locate(&self, lookup: &Lookup<'_>, id: &ChunkId) -> Result<Option<ChunkPlace>, ReadError> {
        let first = lookup.locate(id)?;
        match first {
            Some(place) if self.damaged.contains(&place.pack) => {
                let better =
                    lookup.reader().locate_all(id)?.into_iter().find(|other| !self.damaged.contains(&other.pack));
                Ok(better.or(first))
            }
            first => Ok(first),
        }
    }

    /// Plans everything.
    pub(super) fn plan(mut self, places: &Places) -> Result<(), Halt> {
        for place in &places.0 {
            self.place(place)?;
        }
        if self.window.files.is_empty() { Ok(()) } else { self.send() }
    }

    fn place(&mut self, place: &Place) -> Result<(), Halt> {
        let Some(base) = place.folder() else { return Ok(()) };
        let picked = self.run.selection.pick_path(&place.path, true);
        self.blocked = None;
        let mut ward = self.run.guard().ward(&place.path);
        self.look_around(&mut ward, base, &place.path, true)?;
        self.levels.push(Level { ward: Some(ward), ..Level::new(base.clone(), picked) });
        if picked == Picked::Yes {
            self.make()?;
        }
        let mut path = place.path.clone();
        for entry in &place.chain {
            let attributes = Attributes::take(&mut entry.clone(), &mut self.owner);
            let folder = Folder::child(&self.levels[self.levels.len() - 1].folder, &entry.name, attributes, false);
            path = join(&path, &entry.name);
            self.push(folder, self.run.selection.pick_path(&path, true))?;
        }
        match &place.what {
            What::Content(listing) => self.walk(&path, listing)?,
            What::One(entry, name) => {
                path = join(&path, &entry.name);
                let entry = Entry { name: name.clone(), ..Entry::clone(entry) };
                let listing = entry.content.clone().filter(|_| entry.kind == FileKind::Directory);
                let entered = self.entry(entry, &path)?;
                if let Some(listing) = listing.filter(|_| entered) {
                    self.walk(&path, &listing)?;
                }
            }
        }
        while !self.levels.is_empty() {
            self.pop()?;
        }
        Ok(())
    }

    /// Walks the folder entered last, and leaves it.
    fn walk(&mut self, path: &[u8], listing: &Stream) -> Result<(), Halt> {
        let mut walk = TreeWalk::new(path, listing);
        while let Some(step) = walk.next(&mut self.trees) {
            self.run.check()?;
            match step {
                Step::Enter(entry) => {
                    if !self.entry(entry, walk.path())? {
                        walk.skip();
                    }
                }
                Step::Other(entry) => {
                    self.entry(entry, walk.path())?;
                }
                Step::TooDeep(_) => self.run.problem(walk.path().to_vec(), "it lies too deep".to_owned(), false),
                Step::Broken(error) => {
                    let Loss { what, is_damage } = self.run.read(error)?;
                    let what = format!("not all that is in this folder can be read: {what}");
                    self.run.problem(walk.path().to_vec(), what, is_damage);
                    if let Some(level) = self.levels.last_mut() {
                        level.broken = true;
                    }
                }
                Step::Leave => self.pop()?,
            }
        }
        Ok(())
    }

    fn push(&mut self, folder: Arc<Folder>, picked: Picked) -> Result<(), Halt> {
        self.levels.push(Level::new(folder, picked));
        if picked == Picked::Yes { self.make().map(|_| ()) } else { Ok(()) }
    }

    /// Finishes planning the last folder.
    fn pop(&mut self) -> Result<(), Halt> {
        self.delete_up_to(None)?;
        let Some(level) = self.levels.pop() else { return Ok(()) };
        if self.blocked == Some(self.levels.len()) {
            self.blocked = None;
        }
        self.run.folder_done(&level.folder)
    }

    /// Adds to the rules of a folder what can be seen in it. `is_start`: the selection begins with it.
    fn look_around(&self, ward: &mut Ward, folder: &Arc<Folder>, path: &[u8], is_start: bool) -> Result<(), Halt> {
        let run = self.run;
        if folder.is_blank(run.options.dry_run)
            || folder.made() == Some(Made::Sealed)
            || !(run.options.delete || run.options.overwrite.changes())
        {
            return Ok(());
        }
        let looked = run.handles.open(folder).and_then(|dir| {
            run.guard().enter(ward, &dir, &dir.stat()?, is_start)?;
            Ok(dir)
        });
        match looked {
            Ok(dir) => {
                run.guard().enter_rules(ward, &dir, path, &|name| dir.as_source().may_contain(name));
                Ok(())
            }
            Err(error) => {
                ward.close();
                run.target_problem_in(path.to_vec(), Some(folder), "cannot look at the folder", error)
            }
        }
    }

    /// Makes the missing folders on the way down. Returns `false` if one cannot be made.
    fn make(&mut self) -> Result<bool, Halt> {
        if self.blocked.is_some() {
            return Ok(false);
        }
        let unmade = self.levels.iter().rposition(|level| level.folder.is_made()).map_or(0, |at| at + 1);
        for at in unmade..self.levels.len() {
            let folder = self.levels[at].folder.clone();
            let above = at.checked_sub(1).map(|above| &self.levels[above]);
            let Some((ward, is_start)) =
                above.and_then(|above| Some((above.ward.as_ref()?, !above.folder.is_selected())))
            else {
                continue;
            };
            if !self.run.make_folder(&folder, ward)? {
                self.blocked = Some(at);
                return Ok(false);
            }
            let path = folder.path();
            let mut ward = self.run.guard().below(ward, &path);
            self.look_around(&mut ward, &folder, &path, is_start)?;
            self.levels[at].ward = Some(ward);
        }
        if let Some(level) = self.levels.last_mut()
            && self.run.options.delete
            && level.names.is_none()
            && level.picked == Picked::Yes
            && level.folder.is_selected()
            && !level.folder.is_fresh()
        {
            let closed = match level.folder.made() {
                Some(Made::Closed) => Some(Kept::Closed),
                Some(Made::Sealed) => Some(Kept::Skipped),
                _ => None,
            };
            let names = match closed {
                Some(why) => {
                    // In a dry run its content cannot be known.
                    self.run.keep(level.folder.path(), why);
                    Ok(Names::new())
                }
                None => self.run.handles.open(&level.folder).and_then(|dir| dir.names()),
            };
            let names = match names {
                Ok(names) => names,
                Err(error) => {
                    let path = level.folder.path();
                    let action = "cannot list what lies in the folder";
                    self.run.target_problem_in(path, Some(&level.folder), action, error)?;
                    Names::new()
                }
            };
            level.names = Some((names, 0));
        }
        Ok(true)
    }

    /// Plans one entry of the last folder. Returns whether it is a folder that was entered.
    fn entry(&mut self, mut entry: Entry, path: &[u8]) -> Result<bool, Halt> {
        self.delete_up_to(Some(&entry.name))?;
        let Some(level) = self.levels.last().filter(|_| self.blocked.is_none()) else { return Ok(false) };
        let picked = self.run.selection.pick(level.picked, path, entry.kind == FileKind::Directory);
        if picked == Picked::No {
            return Ok(false);
        }
        if entry.kind == FileKind::Directory {
            if let (Picked::Perhaps, Some(listing)) = (picked, &entry.content)
                && let Some(amount) = self.counted.get(&self.run.selection.spot(listing, picked, path))
                && !amount.anything
            {
                return Ok(false);
            }
            let attributes = Attributes::take(&mut entry, &mut self.owner);
            let folder = Folder::child(&level.folder, &entry.name, attributes, picked == Picked::Yes);
            self.push(folder, picked)?;
            if self.blocked.is_some() {
                self.pop()?;
                return Ok(false);
            }
            return Ok(true);
        }
        if self.make()? {
            let folder = self.levels[self.levels.len() - 1].folder.clone();
            self.file(entry, path, folder)?;
        }
        Ok(false)
    }

    /// Why a place for a file stays as it is, although the file could be restored there.
    fn stays(&self, decision: &Decision, entry: &Entry, path: &[u8], frozen: bool) -> Option<Kept> {
        match decision {
            // Objects that a living vault has deleted, such as a removed key, must not come back to it.
            Decision::Free if frozen && matches!(self.run.options.target, Target::InPlace) => Some(Kept::OtherVault),
            // The file was not there when the snapshot was taken, so it is not replaced by nothing.
            Decision::Over(stat) if entry.size < stat.size && self.run.guard().is_lost(path) => Some(Kept::Lost),
            _ => None,
        }
    }

    fn file(&mut self, mut entry: Entry, path: &[u8], folder: Arc<Folder>) -> Result<(), Halt> {
        let ward = self.levels.last().and_then(|level| level.ward.as_ref());
        // Every folder that has been made or found has a ward.
        let Some(ward) = ward else { return Ok(()) };
        let frozen = ward.is_frozen();
        let decision = self.run.decide(&folder, &entry.name, path, entry.kind, ward)?;
        if let Some(why) = self.stays(&decision, &entry, path, frozen) {
            self.run.keep(path.to_vec(), why);
            self.run.progress.counters().add(1, entry.size);
            return Ok(());
        }
        let there = match decision {
            Decision::Free => None,
            Decision::Over(stat) => Some(stat),
            Decision::Done => {
                self.run.progress.counters().add(1, entry.size);
                return Ok(());
            }
        };
        if frozen && there.is_some() && self.links.knows(path) {
            let what = "what lies there belongs to another vault; it is left as it is".to_owned();
            self.run.problem(path.to_vec(), what, false);
            return Ok(());
        }
        let group = match self.links.meet(path) {
            Member::None => None,
            Member::First(group) => Some(group),
            Member::Other => return Ok(()),
        };
        let attributes = Attributes::take(&mut entry, &mut self.owner);
        if entry.kind != FileKind::File {
            let made = self.run.make_special(&folder, &entry, &attributes, there.as_ref())?;
            if let (Some(group), Some(made)) = (group, made) {
                self.links.made(group, made);
            }
            return self.send_if_full();
        }
        let action = self.action(there.as_ref(), group);
        if let Some(error) = self.run.dead(&folder).filter(|_| !matches!(action, Action::Update { .. })) {
            // So none of its content is read.
            self.run.target_problem_in(path.to_vec(), Some(&folder), "cannot write it", error)?;
            self.run.progress.counters().add(1, entry.size);
            return Ok(());
        }
        let task = FileTask {
            action,
            is_mount: there.as_ref().is_some_and(|stat| stat.mount_root),
            frozen,
            keeps_copy: there.as_ref().is_some_and(|stat| self.run.keeps_copy(&attributes, stat)),
            differs: there
                .as_ref()
                .map(|stat| attributes.differs(stat, &self.run.names, self.run.meta))
                .unwrap_or_default(),
            replaced: self.why_replaced(there.as_ref()),
            place: self.run.next_place(),
            folder,
            name: entry.name.as_slice().into(),
            attributes,
            size: entry.size,
            holes_len: entry.size - entry.content.as_ref().map_or(0, |content| content.len).min(entry.size),
            sparse: entry.holes.is_some(),
            group,
            pending: AtomicUsize::new(0),
            state: Mutex::new(FileState::default()),
        };
        self.content(&entry, Arc::new(task))
    }

    fn action(&self, there: Option<&Stat>, group: Option<u32>) -> Action {
        let Some(stat) = there else { return Action::Create };
        let identity = Identity::of(stat);
        // If the file has names that are not restored with it, it must not change.
        let ours = self.run.names_of(stat) == 1 || group.is_some_and(|group| self.links.covers(group, identity));
        if self.run.options.overwrite.compares() && stat.kind == FileKind::File && ours {
            Action::Update { size: stat.size, identity }
        } else {
            Action::Replace
        }
    }

    /// Why the existing item is replaced as a whole, if it is.
    fn why_replaced(&self, there: Option<&Stat>) -> &'static str {
        match there {
            Some(stat) if stat.kind != FileKind::File => "a thing of another kind is there",
            Some(_) if !self.run.options.overwrite.compares() => "all is written anew",
            _ => "it has other names, which stay as they are",
        }
    }

    /// Adds a file and the pieces of its content to the window. Sends full windows.
    fn content(&mut self, entry: &Entry, task: Arc<FileTask>) -> Result<(), Halt> {
        task.folder.hold();
        let (pieces, holes) = (self.window.pieces.len(), self.window.holes.len());
        self.window.files.push(task.clone());
        let mut sent = false;
        let planned = self.pieces(entry, &task, &mut sent)?;
        let index = self.window.files.len() - 1;
        if sent {
            // The window with its beginning is being executed already, so the file must end in this one, whether it failed or not.
            if let Planned::Failed(loss) = planned {
                lock(&task.state).failed.get_or_insert(loss);
            }
            task.pending.fetch_add(self.window.pieces.len() + self.window.holes.len(), AcqRel);
            self.window.ending.push(index as u32);
        } else if let Planned::Failed(loss) = planned {
            self.window.files.pop();
            self.window.pieces.truncate(pieces);
            self.window.holes.truncate(holes);
            self.run.problem(task.path(), loss.what, loss.is_damage);
            self.run.progress.counters().add(1, entry.size);
            self.run.folder_done(&task.folder)?;
        } else {
            let count = self.window.pieces.len() - pieces + self.window.holes.len() - holes;
            if count == 0 {
                self.window.ending.push(index as u32);
            }
            task.pending.store(count.max(1), Release);
        }
        self.send_if_full()
    }

    fn send_if_full(&mut self) -> Result<(), Halt> {
        let is_full = self.window.files.len() >= self.files_max || self.run.changes_waiting() >= CHANGES_MAX;
        if is_full { self.send() } else { Ok(()) }
    }

    fn pieces(&mut self, entry: &Entry, task: &Arc<FileTask>, sent: &mut bool) -> Result<Planned, Halt> {
        let Some(content) = &entry.content else { return Ok(Planned::Whole) };
        let lookup = self.trees.lookup().clone();
        let (mut ids, mut layout) = (IdReader::new(content), Layout::new(entry));
        let (mut rest, mut end) = (content.len, 0);
        let failed = |loss| Ok(Planned::Failed(loss));
        let contradiction = || {
            lookup.reader().distrust();
            Ok(Planned::Failed(Loss::damage("its chunks do not add up to its length")))
        };
        let updates = task.sparse && matches!(task.action, Action::Update { .. });
        loop {
            let id = match ids.next(&mut self.trees) {
                Ok(Some(id)) => id,
                Ok(None) => break,
                Err(error) => return failed(self.run.read(error)?),
            };
            let place = match self.locate(&lookup, &id) {
                Ok(Some(place)) if place.len > 0 => place,
                Ok(_) => {
                    lookup.reader().distrust();
                    return failed(self.run.read(lookup.lost(&id))?);
                }
                Err(error) => return failed(self.run.read(error)?),
            };
            match rest.checked_sub(u64::from(place.len)) {
                Some(less) => rest = less,
                None => return contradiction(),
            }
            let file = (self.window.files.len() - 1) as u32;
            let mut skip = 0;
            while skip < place.len {
                let (at, len) = match layout.next((place.len - skip) as usize, &mut self.trees) {
                    Ok(run) => run,
                    Err(error) => return failed(self.run.read(error)?),
                };
                if updates && at > end {
                    self.window.holes.push(Hole { file, at: end, len: at - end });
                }
                end = at + len as u64;
                self.window.pieces.push(Piece { id, place, skip, len: len as u32, file, tried: 0, at });
                skip += len as u32;
            }
            if self.window.pieces.len() + self.window.holes.len() >= PIECES_PER_FILE * self.files_max {
                self.run.check()?;
                self.send_within(task, std::mem::replace(sent, true))?;
            }
        }
        if rest > 0 {
            return contradiction();
        }
        if let Err(error) = layout.finish(&mut self.trees) {
            return failed(self.run.read(error)?);
        }
        if updates && entry.size > end {
            let file = (self.window.files.len() - 1) as u32;
            self.window.holes.push(Hole { file, at: end, len: entry.size - end });
        }
        Ok(Planned::Whole)
    }

    /// Sends the window in the middle of its last file, which continues in the next one.
    fn send_within(&mut self, task: &Arc<FileTask>, again: bool) -> Result<(), Halt> {
        let file = (self.window.files.len() - 1) as u32;
        let pieces = self.window.pieces.iter().rev().take_while(|piece| piece.file == file).count();
        let holes = self.window.holes.iter().rev().take_while(|hole| hole.file == file).count();
        // Until its end is planned, the planner itself counts as one pending part.
        task.pending.fetch_add(pieces + holes + usize::from(!again), AcqRel);
        self.send()?;
        self.window.files.push(task.clone());
        Ok(())
    }

    fn send(&mut self) -> Result<(), Halt> {
        self.files_max = (self.files_max * 2).min(FILES_MAX);
        self.window.place = self.run.next_place();
        // Sending fails only if the restore has failed.
        self.windows.send(std::mem::take(&mut self.window)).map_err(|_| Halt)
    }

    /// Deletes items of the last folder that sort before `name` (or all that remain) and are not in the snapshot.
    fn delete_up_to(&mut self, name: Option<&[u8]>) -> Result<(), Halt> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let Some((names, next)) = &mut level.names else { return Ok(()) };
        let mut extra = Vec::new();
        while *next < names.len() {
            let found = names.get(*next);
            match name {
                Some(name) if found == name => {
                    *next += 1;
                    break;
                }
                Some(name) if found > name => break,
                // A name missing in a damaged listing may still belong to the snapshot.
                None if level.broken => break,
                _ => extra.push(found.to_vec()),
            }
            *next += 1;
        }
        if extra.is_empty() {
            return Ok(());
        }
        let (folder, ward) = (level.folder.clone(), level.ward.clone());
        for name in extra {
            self.run.check()?;
            if let Some(ward) = &ward {
                self.run.delete_extra(&folder, &name, ward)?;
            }
            // A file whose end is still to be planned continues in the next window.
            self.send_if_full()?;
        }
        Ok(())
    }
}

/// Counts the files and bytes to restore, for the progress, and the amount in each folder. An error if there is nothing to restore at
/// all.
pub(super) fn totals(
    run: &Run<'_>,
    info: &SnapshotInfo,
    places: &Places,
    trees: &mut TreeReader<'_>,
) -> Result<(u64, u64, Counted), RestoreError> {
    let mut counted = Counted::default();
    if run.options.path.is_none() && run.selection.is_all() {
        return Ok((info.body.files, info.body.bytes, counted));
    }
    run.progress.counters().restart(0, 0);
    run.progress.phase(crate::progress::Phase::Plan);
    let mut total = Amount::default();
    for place in &places.0 {
        let mut path = place.path.clone();
        place.chain.iter().for_each(|entry| path = join(&path, &entry.name));
        let mut picked = run.selection.pick_path(&path, true);
        let listing = match &place.what {
            What::Content(listing) => Some(listing),
            What::One(entry, _) => {
                path = join(&path, &entry.name);
                picked = run.selection.pick(picked, &path, entry.kind == FileKind::Directory);
                if picked == Picked::Yes {
                    total.add_entry(entry);
                }
                entry.content.as_ref().filter(|_| entry.kind == FileKind::Directory)
            }
        };
        total.anything |= picked == Picked::Yes;
        if let Some(listing) = listing.filter(|_| picked != Picked::No) {
            total.add(count(run, &path, listing, picked, &mut counted, trees)?);
        }
    }
    if total.anything {
        return Ok((total.files, total.bytes, counted));
    }
    let shown = |list: &[String]| Shown(list.join(", ").as_bytes()).to_string();
    let mut patterns = shown(&run.options.include);
    if !run.options.exclude.is_empty() {
        let without = format!("anything but {}", shown(&run.options.exclude));
        patterns =
            if patterns.is_empty() { without } else { format!("{patterns} without {}", shown(&run.options.exclude)) };
    }
    Err(RestoreError::NothingSelected { patterns })
}

/// The amount selected in a folder for which `picked` was decided. Each folder is counted once, and again only where its path matters to
/// the patterns.
fn count(
    run: &Run<'_>,
    path: &[u8],
    listing: &Stream,
    picked: Picked,
    counted: &mut Counted,
    trees: &mut TreeReader<'_>,
) -> Result<Amount, RestoreError> {
    let mut walk = TreeWalk::new(path, listing);
    let mut levels: Vec<(Spot, Picked, Amount)> =
        vec![(run.selection.spot(listing, picked, path), picked, Amount::default())];
    let mut total = Amount::default();
    while let (Some(step), Some((_, above, amount))) = (walk.next(trees), levels.last_mut()) {
        run.check().map_err(|Halt| run.failure())?;
        match step {
            Step::Enter(_) => {
                let picked = run.selection.pick(*above, walk.path(), true);
                amount.anything |= picked == Picked::Yes;
                let spot = walk.listing().map(|listing| run.selection.spot(listing, picked, walk.path()));
                match spot.map(|spot| (counted.get(&spot), spot)) {
                    Some((None, spot)) if picked != Picked::No => levels.push((spot, picked, Amount::default())),
                    known => {
                        amount.add(known.and_then(|(known, _)| known).unwrap_or_default());
                        walk.skip();
                    }
                }
            }
            Step::Other(entry) => {
                if run.selection.pick(*above, walk.path(), false) == Picked::Yes {
                    amount.add_entry(&entry);
                    run.progress.counters().add(1, entry.size);
                }
            }
            Step::Leave => {
                if let Some((spot, _, amount)) = levels.pop() {
                    counted.put(spot, amount);
                    levels.last_mut().map_or(&mut total, |(_, _, above)| above).add(amount);
                }
            }
            // It is reported when it is met again during the restore; if nothing else is found, this is the reason.
            Step::Broken(error) => {
                amount.anything |= error.is_contained();
                run.read(error).map_err(|Halt| run.failure())?;
            }
            Step::TooDeep(_) => {}
        }
    }
    Ok(total)
}
