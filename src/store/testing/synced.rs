//! A folder that a sync client carries from machine to machine, simulated: each machine has its own view, and changes
//! travel between the views only when they are delivered, one by one, in any order. Nothing happens by itself, so that
//! a schedule can be replayed from the numbers that drove it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use bytes::Bytes;

use crate::id::ObjectName;
use crate::store::Kind;
use crate::store::Listed;
use crate::store::ObjectKey;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::StoreLimits;
use crate::store::testing::mem::MemStore;

/// A change that travels.
#[derive(Debug, Clone)]
enum Change {
    Put(ObjectKey, Bytes),
    Delete(ObjectKey),
}

/// A change on its way from one view to another.
#[derive(Debug, Clone)]
struct Travelling {
    from: usize,
    to: usize,
    change: Change,
}

#[derive(Debug)]
struct World {
    views: Vec<MemStore>,
    travelling: Vec<Travelling>,
    /// For each view, the objects whose deletion was delivered: a put that arrives later is ignored.
    deleted: Vec<std::collections::BTreeSet<ObjectKey>>,
}

/// Several views of one synced folder.
#[derive(Debug, Clone)]
pub struct SyncedWorld {
    world: Arc<Mutex<World>>,
}

/// The folder as one machine sees it. Clones share the view.
#[derive(Debug, Clone)]
pub struct SyncedView {
    world: SyncedWorld,
    number: usize,
    objects: MemStore,
}

impl SyncedWorld {
    /// A world of this many empty views.
    pub fn new(views: usize) -> Self {
        let world = World {
            views: (0..views).map(|_| MemStore::new()).collect(),
            travelling: Vec::new(),
            deleted: vec![std::collections::BTreeSet::new(); views],
        };
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// One of the views; `None` if the number is too large.
    pub fn view(&self, number: usize) -> Option<SyncedView> {
        let objects = self.world().views.get(number).cloned()?;
        Some(SyncedView { world: self.clone(), number, objects })
    }

    /// Adds a view: a new machine, which has received everything that the view `like` holds.
    pub fn join(&self, like: usize) -> Option<SyncedView> {
        let number = {
            let mut world = self.world();
            let objects = world.views.get(like)?.deep_copy();
            let deleted = world.deleted.get(like)?.clone();
            let number = world.views.len();
            // Changes on their way to the other machine travel to this one as well.
            let also: Vec<_> = world.travelling.iter().filter(|t| t.to == like).cloned().collect();
            world.travelling.extend(also.into_iter().map(|t| Travelling { to: number, ..t }));
            world.views.push(objects);
            world.deleted.push(deleted);
            number
        };
        self.view(number)
    }

    /// The number of changes on their way.
    pub fn travelling(&self) -> usize {
        self.world().travelling.len()
    }

    /// Delivers one change on its way, chosen by `dice`; returns whether there was one.
    pub fn deliver(&self, dice: u64) -> bool {
        self.deliver_where(dice, |_, _| true)
    }

    /// Delivers one change, chosen by `dice` among those whose way (from, to) is open; returns whether there was one.
    /// A machine that sleeps or is offline has only closed ways.
    pub fn deliver_where(&self, dice: u64, is_open: impl Fn(usize, usize) -> bool) -> bool {
        self.deliver_one(dice, is_open, false)
    }

    /// As [`SyncedWorld::deliver_where`], but the change stays on its way, and arrives again later.
    pub fn deliver_twice_where(&self, dice: u64, is_open: impl Fn(usize, usize) -> bool) -> bool {
        self.deliver_one(dice, is_open, true)
    }

    fn deliver_one(&self, dice: u64, is_open: impl Fn(usize, usize) -> bool, twice: bool) -> bool {
        let mut world = self.world();
        let open: Vec<usize> = (0..world.travelling.len())
            .filter(|&at| is_open(world.travelling[at].from, world.travelling[at].to))
            .collect();
        if open.is_empty() {
            return false;
        }
        let at = open[(dice % open.len() as u64) as usize];
        let travelling = world.travelling.remove(at);
        if twice {
            world.travelling.push(travelling.clone());
        }
        world.apply(travelling);
        true
    }

    /// Delivers everything, oldest first.
    pub fn deliver_all(&self) {
        while self.deliver(0) {}
    }

    /// The machine of a view is lost. Its deletions arrive everywhere, but none of its puts arrives any more.
    pub fn lose(&self, view: usize) {
        let mut world = self.world();
        let all = std::mem::take(&mut world.travelling);
        let (of_it, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|travelling| travelling.from == view);
        world.travelling = others;
        of_it.into_iter().filter(|it| matches!(it.change, Change::Delete(_))).for_each(|it| world.apply(it));
    }

    /// Makes a view show a second copy of one of its objects under a foreign name, as confused sync clients do;
    /// `dice` chooses the object. Returns whether there was any.
    pub fn duplicate(&self, view: usize, dice: u64) -> bool {
        let world = self.world();
        let Some(objects) = world.views.get(view) else { return false };
        let named: Vec<_> = objects
            .objects()
            .into_iter()
            .filter_map(|(key, _)| if let ObjectKey::Named(kind, name) = key { Some((kind, name)) } else { None })
            .collect();
        if named.is_empty() {
            return false;
        }
        let (kind, name) = named[(dice % named.len() as u64) as usize];
        objects.add_foreign(kind, &conflicted(kind, name));
        true
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// Sends a change from a view to all others.
    fn send(&mut self, from: usize, change: &Change) {
        let others = (0..self.views.len()).filter(|&to| to != from);
        self.travelling.extend(others.map(|to| Travelling { from, to, change: change.clone() }));
    }

    fn apply(&mut self, Travelling { to, change, .. }: Travelling) {
        let view = &self.views[to];
        match change {
            Change::Put(key, _) if self.deleted[to].contains(&key) => {}
            Change::Put(key, bytes) => match (view.replace(key, bytes.clone()), key) {
                // Both machines made the object: each keeps its own, and gets the other's under another name.
                (Some(own), ObjectKey::Named(kind, name)) if own != bytes => {
                    view.add_foreign(kind, &conflicted(kind, name));
                    view.replace(key, own);
                }
                (Some(own), ObjectKey::Vault) => {
                    view.replace(key, own);
                }
                _ => {}
            },
            Change::Delete(key) => {
                view.remove(&key);
                self.deleted[to].insert(key);
            }
        }
    }
}

impl SyncedView {
    /// The number of the view.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The objects that this machine sees, so that tests can look at them and damage them.
    pub fn objects(&self) -> &MemStore {
        &self.objects
    }
}

/// The path below its kind's folder that a sync client gives to the second copy of an object.
fn conflicted(kind: Kind, name: ObjectName) -> String {
    let path = format!("{} (conflicted copy)", ObjectKey::Named(kind, name));
    path.trim_start_matches(kind.folder()).trim_start_matches('/').to_owned()
}

impl Store for SyncedView {
    fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        let mut world = self.world.world();
        self.objects.put(key, bytes.clone())?;
        world.send(self.number, &Change::Put(*key, Bytes::copy_from_slice(&bytes)));
        Ok(())
    }

    fn get_range(&self, key: &ObjectKey, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.objects.get_range(key, offset, len)
    }

    fn get(&self, key: &ObjectKey, max: u64) -> Result<Bytes, StoreError> {
        self.objects.get(key, max)
    }

    fn len(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        self.objects.len(key)
    }

    fn list(&self, kind: Kind, found: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.objects.list(kind, found)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let mut world = self.world.world();
        if self.objects.remove(key).is_some() {
            world.send(self.number, &Change::Delete(*key));
        }
        Ok(())
    }

    fn delete_durably(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.delete(key)
    }

    /// The others see the object disappear, because no machine lists the folder to which it moves.
    fn quarantine(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let mut world = self.world.world();
        self.objects.quarantine(key)?;
        world.send(self.number, &Change::Delete(*key));
        Ok(())
    }

    fn limits(&self) -> StoreLimits {
        self.objects.limits()
    }

    fn place(&self) -> String {
        format!("view {} of a synced folder in memory", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::conformance::check_foreign;
    use crate::store::testing::conformance::check_store;

    fn key(number: u8) -> ObjectKey {
        ObjectKey::Named(Kind::Log, ObjectName::new([number; 16]))
    }

    fn names(view: &SyncedView) -> Vec<u8> {
        let mut names = Vec::new();
        view.list(Kind::Log, &mut |entry| match entry {
            Listed::Object { name, .. } => names.push(name.as_bytes()[0]),
            Listed::Foreign(_) => names.push(255),
        })
        .unwrap();
        names
    }

    fn two() -> (SyncedWorld, SyncedView, SyncedView) {
        let world = SyncedWorld::new(2);
        let (a, b) = (world.view(0).unwrap(), world.view(1).unwrap());
        (world, a, b)
    }

    #[test]
    fn one_view_conforms() {
        check_store(|| two().1);
        check_foreign(|| two().1, |view, kind, name| view.objects().add_foreign(kind, name));
    }

    #[test]
    fn changes_arrive_when_delivered_in_any_order() {
        let (world, a, b) = two();
        (1..=3).for_each(|n| a.put(&key(n), Bytes::copy_from_slice(&[n])).unwrap());
        assert_eq!((names(&a), names(&b)), (vec![1, 2, 3], vec![]));
        assert!(world.deliver(2), "the newest first");
        assert_eq!(names(&b), [3]);
        assert!(!world.deliver_where(0, |_, to| to == 0), "nothing travels to the writer");
        world.deliver_all();
        assert_eq!(names(&b), [1, 2, 3]);
        assert_eq!(world.travelling(), 0);
    }

    #[test]
    fn a_deletion_that_overtakes_its_put_wins() {
        let (world, a, b) = two();
        a.put(&key(1), Bytes::from_static(b"1")).unwrap();
        a.delete(&key(1)).unwrap();
        a.delete(&key(1)).unwrap();
        assert_eq!(world.travelling(), 2, "deleting nothing changes nothing");
        world.deliver(1);
        world.deliver(0);
        assert!(names(&b).is_empty());
    }

    #[test]
    fn what_arrives_twice_does_not_bring_back_what_was_deleted() {
        let (world, a, b) = two();
        a.put(&key(1), Bytes::from_static(b"1")).unwrap();
        assert!(world.deliver_twice_where(0, |_, _| true));
        assert_eq!((names(&b), world.travelling()), (vec![1], 1));
        a.delete(&key(1)).unwrap();
        world.deliver(1);
        assert!(names(&b).is_empty());
        world.deliver_all();
        assert_eq!((names(&b), world.travelling()), (vec![], 0));
    }

    #[test]
    fn two_writers_of_one_name_keep_their_own() {
        let (world, a, b) = two();
        a.put(&key(1), Bytes::from_static(b"a")).unwrap();
        b.put(&key(1), Bytes::from_static(b"b")).unwrap();
        a.put(&key(2), Bytes::from_static(b"same")).unwrap();
        b.put(&key(2), Bytes::from_static(b"same")).unwrap();
        world.deliver_all();
        assert_eq!(a.get(&key(1), 9).unwrap(), b"a"[..]);
        assert_eq!(b.get(&key(1), 9).unwrap(), b"b"[..]);
        assert_eq!(names(&a), [1, 2, 255]);
        assert!(world.duplicate(0, 0));
        assert!(!SyncedWorld::new(1).duplicate(0, 0));
    }

    #[test]
    fn a_new_machine_gets_what_was_on_its_way() {
        let (world, a, b) = two();
        a.put(&key(1), Bytes::from_static(b"1")).unwrap();
        world.deliver_all();
        a.put(&key(2), Bytes::from_static(b"2")).unwrap();
        let c = world.join(b.number()).unwrap();
        assert_eq!(names(&c), [1]);
        world.deliver_all();
        assert_eq!(names(&c), [1, 2]);
    }
}
