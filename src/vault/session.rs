//! Work under way (SPEC §8.5): the records that it had seen when it began, and the packs that it has put.
//!
//! A session is a file that stays locked as long as the work lives, with a list beside it of the packs that the work
//! puts. So the other processes of its client know of it, and a record can claim the packs of interrupted work.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Serialize;

use crate::id::{ClientId, ObjectName};
use crate::ownfile;
use crate::progress::Progress;
use crate::seal::{ObjectKind, random};
use crate::store::ObjectKey;
use crate::store::proof::is_kept;
use crate::sync::lock;
use crate::tree::Time;
use crate::vault::files::{make_private_folder, state_error};
use crate::vault::{Vault, VaultError};

/// Work that relies on data in the store, such as a snapshot under way. As long as it lives, no record of this client
/// acknowledges more than this work had seen when it began; so nothing that it relies on is swept. It remembers the
/// client that it began with: the acknowledgements of one client say nothing about another (SPEC §8.5).
#[derive(Debug)]
pub struct Session {
    bound: Mutex<Bound>,
    /// Packs that this work puts, so that a record claims them even if the work is interrupted.
    packs: Mutex<Packs>,
}

/// The part of a session that makes it known to the other processes of its client.
#[derive(Debug)]
struct Bound {
    /// `None` if no client has joined: such work only reads.
    client: Option<ClientId>,
    path: PathBuf,
    /// Locked as long as the session lives. Empty until the records that the work has seen are known.
    file: File,
}

/// Packs that no record claims yet, and the file that lists them.
#[derive(Debug, Default)]
struct Packs {
    names: Vec<ObjectName>,
    file: Option<File>,
    /// Kind and length of each pack that this work has put, claimed or not. If the store lists another length, it has
    /// not kept the pack.
    lens: HashMap<ObjectName, (ObjectKind, u64)>,
    /// Number of times that the store had not kept one of them.
    losses: u32,
}

impl Drop for Bound {
    fn drop(&mut self) {
        // A leftover file is no longer locked, and the writer of the next record removes it. The same holds for the
        // list of packs, once a record has claimed them.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Number of times that work begins again because the state folder was changed under it.
const ATTEMPTS: usize = 3;

/// Names of packs begin with this in the folder of sessions.
const PACKS: &str = "packs";
/// The number of times that packs are stored again because the store has not kept them.
const LOSSES_BORNE: u32 = 2;

impl Session {
    fn packs_path(path: &Path) -> PathBuf {
        path.with_extension(PACKS)
    }

    fn path(&self) -> PathBuf {
        lock(&self.bound).path.clone()
    }

    /// The client that the work began with.
    pub(crate) fn client(&self) -> Option<ClientId> {
        lock(&self.bound).client
    }

    /// Whether the other processes of the client know of the session. They do not if the state folder was deleted
    /// meanwhile, or replaced by an older one: then nobody waits for the packs that this work relies on.
    pub(crate) fn is_known(&self) -> bool {
        ownfile::open(&self.path()).is_ok_and(|file| file.try_lock_shared().is_err())
    }

    /// Notes that a pack of this length is about to be put.
    ///
    /// # Errors
    /// If the state folder cannot be written.
    pub fn note_pack(&self, name: &ObjectName, kind: ObjectKind, len: u64) -> Result<(), VaultError> {
        let path = Self::packs_path(&self.path());
        let mut packs = lock(&self.packs);
        packs.names.push(*name);
        packs.lens.insert(*name, (kind, len));
        let note = |packs: &mut Packs| -> std::io::Result<()> {
            let file = if let Some(file) = &mut packs.file {
                file
            } else {
                let file = File::options().create(true).append(true).open(&path)?;
                ownfile::hand_over(&path);
                packs.file.insert(file)
            };
            file.write_all(name.as_bytes())
        };
        // The state folder may have been deleted meanwhile.
        path.parent().map_or(Ok(()), make_private_folder)?;
        note(&mut packs).map_err(state_error("write", &path))
    }

    /// Whether a pack that the store lists with this length may be as this work has put it. True for packs of others.
    pub(crate) fn may_be_as_put(&self, name: &ObjectName, len: u64) -> bool {
        lock(&self.packs).lens.get(name).is_none_or(|(_, put)| is_kept(*put, Some(len)))
    }

    /// The first of these packs that this work has put and that the store has not kept, once that has happened so
    /// often that storing them again is of no use. Returns the pack, the length that was put, and the length in the
    /// store.
    pub(super) fn lost_again<'p>(
        &self,
        mut packs: impl Iterator<Item = &'p ObjectName>,
        listed: &HashMap<ObjectName, (ObjectKind, u64)>,
    ) -> Option<(ObjectKey, u64, Option<u64>)> {
        let mut noted = lock(&self.packs);
        let lost = packs.find_map(|name| {
            let (kind, need) = *noted.lens.get(name)?;
            let have = listed.get(name).map(|(_, len)| *len);
            (!is_kept(need, have)).then(|| (ObjectKey::Named(kind.store_kind(), *name), need, have))
        })?;
        noted.losses += 1;
        (noted.losses > LOSSES_BORNE).then_some(lost)
    }

    /// The packs that this work has put and of which the store lists only a part. Another reader could take them for
    /// damaged.
    pub(super) fn parts(&self, listed: &HashMap<ObjectName, (ObjectKind, u64)>) -> Vec<ObjectKey> {
        let packs = lock(&self.packs);
        let is_part = |(name, (_, len)): &(&ObjectName, &(ObjectKind, u64))| {
            packs.lens.get(*name).is_some_and(|(_, put)| !is_kept(*put, Some(*len)))
        };
        let parts = listed.iter().filter(is_part);
        parts.map(|(name, (kind, _))| ObjectKey::Named(kind.store_kind(), *name)).collect()
    }

    /// Number of packs that no record claims yet.
    pub(crate) fn unclaimed(&self) -> usize {
        lock(&self.packs).names.len()
    }

    /// Removes packs from the list that a record claims now. If the list cannot be written, they are claimed again
    /// later, which does no harm.
    pub(super) fn claimed(&self, claims: &HashSet<ObjectName>) {
        let path = Self::packs_path(&self.path());
        let mut packs = lock(&self.packs);
        packs.names.retain(|name| !claims.contains(name));
        packs.file = None;
        let _ = if packs.names.is_empty() { std::fs::remove_file(&path) } else { write_names(&path, &packs.names) };
    }

    fn noted(path: &Path) -> std::io::Result<Vec<ObjectName>> {
        let bytes = ownfile::read(&Self::packs_path(path))?;
        Ok(bytes.as_chunks::<{ ObjectName::LEN }>().0.iter().map(|name| ObjectName::new(*name)).collect())
    }
}

pub(super) fn write_names(path: &Path, names: &[ObjectName]) -> std::io::Result<()> {
    std::fs::write(path, names.iter().flat_map(|name| *name.as_bytes()).collect::<Vec<u8>>())
}

/// Packs that the sessions of this client have put.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Packs of this session, and of those that have ended: the next records claim them.
    pub(crate) claimable: Vec<ObjectName>,
    /// Packs of other sessions that are under way.
    pub(crate) under_way: HashSet<ObjectName>,
    /// Lists of sessions that have ended, with their packs.
    pub(super) ended: Vec<(PathBuf, Vec<ObjectName>)>,
    /// Some lists could not be read.
    is_partial: bool,
}

impl Noted {
    /// Whether a session of this client put the pack, as far as no record claims it.
    pub(crate) fn contains(&self, pack: &ObjectName) -> bool {
        self.under_way.contains(pack) || self.claimable.contains(pack)
    }

    /// As [`Self::contains`], also if that cannot be found out.
    pub(crate) fn may_contain(&self, pack: &ObjectName) -> bool {
        self.is_partial || self.contains(pack)
    }

    /// Whether another session that is under way put the pack, or that cannot be found out.
    pub(crate) fn may_be_under_way(&self, pack: &ObjectName) -> bool {
        self.is_partial || self.under_way.contains(pack)
    }
}

impl Vault {
    /// Begins work that relies on the present state of the log.
    ///
    /// # Errors
    /// If the state folder cannot be written.
    pub fn begin_session(&self) -> Result<Session, VaultError> {
        self.begin_with(|| Ok(()))
    }

    /// Begins work that only reads the present state of the store: looks at it first, if it has changed since the last
    /// look. If this client has joined, nothing that exists now is deleted as long as the session lives. If it has not,
    /// packs may be deleted after their chunks were copied elsewhere.
    ///
    /// # Errors
    /// If the store or the catalogue fails; [`VaultError::State`] if the state folder cannot be written.
    pub fn begin_reading(&self, progress: &dyn Progress) -> Result<Session, VaultError> {
        self.begin_with(|| self.refresh_if_changed(progress))
    }

    /// As [`Self::begin_session`], after a look at the store, as in [`Self::begin_writing`].
    fn begin_with(&self, look: impl FnOnce() -> Result<(), VaultError>) -> Result<Session, VaultError> {
        let mut bound = self.open_session()?;
        look()?;
        bound.client = self.client();
        self.settle(&bound)?;
        Ok(Session { bound: Mutex::new(bound), packs: Mutex::default() })
    }

    /// Begins work that has seen nothing yet.
    fn open_session(&self) -> Result<Bound, VaultError> {
        let folder = self.state().join("sessions");
        make_private_folder(&folder)?;
        let mut name = [0; 16];
        random(&mut name)?;
        let path = folder.join(ObjectName::new(name).to_string());
        let begin = || -> std::io::Result<File> {
            // The file gets its name only when it is locked, or it would be taken for a leftover.
            let new = path.with_extension("new");
            let file = File::options().create_new(true).read(true).write(true).open(&new)?;
            ownfile::hand_over(&new);
            file.lock()?;
            std::fs::rename(&new, &path)?;
            Ok(file)
        };
        let file = begin().map_err(state_error("write", &path))?;
        Ok(Bound { client: None, path, file })
    }

    /// Records that this work relies on the present state of the log.
    fn settle(&self, bound: &Bound) -> Result<(), VaultError> {
        let seen = self.log().chains.seen();
        let mut body = Vec::new();
        let encoded = seen.serialize(&mut rmp_serde::Serializer::new(&mut body));
        encoded.map_err(|error| state_error("write", &bound.path)(std::io::Error::other(error.to_string())))?;
        (&bound.file).write_all(&body).map_err(state_error("write", &bound.path))
    }

    /// Begins work that will publish a record: looks at the store, joins if this client has not, and looks again. So
    /// every client that deletes anything from now on knows this client.
    ///
    /// # Errors
    /// If the store or the state folder fails.
    pub fn begin_writing(&self, time: Time, progress: &dyn Progress) -> Result<Session, VaultError> {
        let mut session = self.begin_to_write(time, progress)?;
        // The state folder may have been changed under the session. Every use of the session checks again.
        for _ in 0..ATTEMPTS {
            if session.is_known() || !self.rules.bound {
                break;
            }
            session = self.begin_to_write(time, progress)?;
        }
        Ok(session)
    }

    fn begin_to_write(&self, time: Time, progress: &dyn Progress) -> Result<Session, VaultError> {
        // Before the look: otherwise another process could acknowledge in between what this work has not seen.
        let session = Session { bound: Mutex::new(self.open_session()?), packs: Mutex::default() };
        self.know_all(progress)?;
        self.refresh_if_changed(progress)?;
        self.may_write()?;
        let client = if let Some(client) = self.client() {
            client
        } else {
            let _lock = self.lock_client()?;
            self.writing_client(Some(&session), time, progress)?.client
        };
        let mut bound = lock(&session.bound);
        bound.client = Some(client);
        self.settle(&bound)?;
        drop(bound);
        Ok(session)
    }

    /// Binds work that starts again to the client that now writes from here, if that is a different one.
    ///
    /// # Errors
    /// As [`Self::begin_writing`].
    pub(crate) fn begin_again(&self, session: &Session, time: Time, progress: &dyn Progress) -> Result<(), VaultError> {
        if self.is_bound(session) || !self.rules.bound {
            return Ok(());
        }
        let _lock = self.lock_client()?;
        let client = self.writing_client(Some(session), time, progress)?.client;
        self.rebind(session, client, progress)
    }

    /// Whether the client that the work began with can continue, as far as the log was read.
    pub(crate) fn is_bound(&self, session: &Session) -> bool {
        session.client().is_some() && session.client() == self.client() && session.is_known()
    }

    /// Binds work to another client than it began with: as if it began now, and found the chunks that it has stored.
    pub(super) fn rebind(
        &self,
        session: &Session,
        client: ClientId,
        progress: &dyn Progress,
    ) -> Result<(), VaultError> {
        // A session that has seen nothing, before the look.
        let mut bound = self.open_session()?;
        bound.client = Some(client);
        {
            let mut packs = lock(&session.packs);
            packs.file = None;
            if !packs.names.is_empty() {
                let path = Session::packs_path(&bound.path);
                write_names(&path, &packs.names).map_err(state_error("write", &path))?;
            }
        }
        self.refresh(progress)?;
        self.settle(&bound)?;
        let before = std::mem::replace(&mut *lock(&session.bound), bound);
        let _ = std::fs::remove_file(Session::packs_path(&before.path));
        Ok(())
    }

    /// Packs that the sessions of this client have put and that no record may have claimed yet.
    pub(crate) fn noted(&self, own: Option<&Session>) -> Noted {
        let mut noted = Noted::default();
        if let Some(own) = own {
            noted.claimable.clone_from(&lock(&own.packs).names);
        }
        let own = own.map(Session::path);
        let Ok(files) = self.session_files() else { return Noted { is_partial: true, ..noted } };
        for list in files.into_iter().filter(|path| path.extension().is_some_and(|end| end == PACKS)) {
            let session = list.with_extension("");
            if own.as_ref() == Some(&session) {
                continue;
            }
            let names = match Session::noted(&session) {
                Ok(names) => names,
                // The session has ended since, or it is none.
                Err(error) if is_none(&error) => continue,
                Err(_) => return Noted { is_partial: true, ..noted },
            };
            if matches!(Life::of(&session), Life::Continues(_)) {
                noted.under_way.extend(names);
            } else {
                noted.claimable.extend(&names);
                noted.ended.push((list, names));
            }
        }
        noted
    }

    /// Whether other work of this client is or may be under way.
    pub(crate) fn has_other_work(&self, own: Option<&Session>) -> bool {
        let others = self.other_sessions(own);
        others.is_none_or(|others| others.iter().any(|(life, _)| matches!(life, Life::Continues(_))))
    }

    /// Records that a new record may acknowledge: no more than every session that is or may be under way, other than
    /// `own`, had seen.
    pub(crate) fn acknowledged(&self, own: Option<&Session>) -> Vec<(ClientId, u64)> {
        let mut seen: BTreeMap<ClientId, u64> = self.log().chains.seen().into_iter().collect();
        let Some(others) = self.other_sessions(own) else { return Vec::new() };
        for (life, path) in others {
            let file = match life {
                Life::Continues(file) => file,
                Life::Ended => {
                    let _ = std::fs::remove_file(&path);
                    continue;
                }
            };
            // A file that is just being written, or cannot be read, means that nothing was seen yet.
            let bytes = file.and_then(|file| ownfile::bounded(file, ownfile::LEN_MAX).ok()).unwrap_or_default();
            let theirs: Vec<(ClientId, u64)> = rmp_serde::from_slice(&bytes).unwrap_or_default();
            let theirs: BTreeMap<ClientId, u64> = theirs.into_iter().collect();
            for (client, number) in &mut seen {
                *number = (*number).min(theirs.get(client).copied().unwrap_or(0));
            }
        }
        seen.into_iter().filter(|(_, number)| *number > 0).collect()
    }

    /// The other sessions of this client. `None`: they cannot be listed.
    fn other_sessions(&self, own: Option<&Session>) -> Option<Vec<(Life, PathBuf)>> {
        let own = own.map(Session::path);
        let files = self.session_files().ok()?;
        let others = files.into_iter().filter(|path| path.extension().is_none() && own.as_ref() != Some(path));
        Some(others.map(|path| (Life::of(&path), path)).collect())
    }

    fn session_files(&self) -> std::io::Result<Vec<PathBuf>> {
        match crate::folder::entries(self.state().join("sessions")) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Whether a session continues, which its file shows.
enum Life {
    /// Its process holds the lock, or that cannot be found out. With the file, if it can be read.
    Continues(Option<File>),
    /// Nobody holds the lock, or there is no such file.
    Ended,
}

impl Life {
    fn of(session: &Path) -> Self {
        match ownfile::open(session) {
            Ok(file) => match file.try_lock_shared() {
                Ok(()) => Self::Ended,
                Err(_) => Self::Continues(Some(file)),
            },
            Err(error) if is_none(&error) => Self::Ended,
            Err(_) => Self::Continues(None),
        }
    }
}

/// Whether there is no such file of the program: nothing, or anything but a regular file.
fn is_none(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidInput)
}

#[cfg(all(test, unix))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::progress::Silent;
    use crate::seal::{KdfParams, Secret};
    use crate::store::Store;
    use crate::store::testing::mem::MemStore;
    use crate::vault::create::create;
    use crate::vault::open::open;
    use crate::vault::{CreateOptions, Identity, OpenOptions};

    #[test]
    fn a_session_that_cannot_be_looked_at_counts_as_under_way() {
        let (store, state): (Arc<dyn Store>, _) = (Arc::new(MemStore::default()), tempfile::tempdir().unwrap());
        let mut options = CreateOptions::new(Secret::raw(&[1; 32]), 0);
        options.kdf = KdfParams::Explicit { memory_kib: 19 << 10, passes: 1, lanes: 1 };
        create(&*store, &options).unwrap();
        let identity = Identity { host: "h".into(), user: "u".into(), machine: "m".into(), program: "p".into() };
        let options = OpenOptions::new(state.path().to_owned(), identity);
        let vault = open(store, &Secret::raw(&[1; 32]), options, &Silent::default()).unwrap();
        let own = vault.begin_writing(Time::default(), &Silent::default()).unwrap();
        let other = ObjectName::new([7; 16]);
        let is_free = || {
            let noted = vault.noted(Some(&own));
            let known = !vault.acknowledged(Some(&own)).is_empty();
            let free = [known, !vault.has_other_work(Some(&own)), !noted.may_be_under_way(&other)];
            (free, noted.may_contain(&other))
        };
        assert_eq!(is_free(), ([true; 3], false), "it can all be looked at");
        // A link to itself is a file that cannot be opened.
        let sessions = own.path().parent().unwrap().to_owned();
        let closed = sessions.join(ObjectName::new([3; 16]).to_string());
        std::os::unix::fs::symlink(&closed, &closed).unwrap();
        assert_eq!(is_free(), ([false, false, true], false));
        std::fs::remove_file(&closed).unwrap();
        let list = Session::packs_path(&closed);
        std::os::unix::fs::symlink(&list, &list).unwrap();
        assert_eq!(is_free(), ([true, true, false], true));
        std::fs::remove_file(&list).unwrap();
        // The packs of work that has ended can be claimed.
        write_names(&list, &[other]).unwrap();
        assert!(vault.noted(Some(&own)).claimable.contains(&other));
        std::fs::remove_file(&list).unwrap();
        assert_eq!(is_free(), ([true; 3], false));
        // Nothing is known of a folder that cannot be listed.
        std::fs::rename(&sessions, state.path().join("aside")).unwrap();
        std::fs::write(&sessions, "").unwrap();
        assert_eq!(is_free(), ([false; 3], true));
        std::fs::remove_file(&sessions).unwrap();
        assert_eq!(is_free(), ([true; 3], false), "without a folder, there is no session");
    }
}
