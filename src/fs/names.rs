//! The names in one directory.

use std::io;

use crate::tree::FileKind;

/// Value of a kind that is unknown until the file itself is examined.
const UNKNOWN: u8 = u8::MAX;

/// The names in one directory. They are stored end to end in one buffer: a million names cost little more than their
/// bytes.
#[derive(Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    entries: Vec<Range>,
}

/// Range of one name in the buffer, and the kind of its file if the directory tells.
#[derive(Debug, Clone, Copy)]
struct Range {
    start: u32,
    len: u16,
    kind: u8,
}

impl Names {
    /// No names, with room for those of most directories.
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(1 << 10), entries: Vec::with_capacity(64) }
    }

    /// Removes all names and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Adds a name. Fails only for a directory whose names are longer than 4 GiB altogether.
    pub fn push(&mut self, name: &[u8], kind: Option<FileKind>) -> io::Result<()> {
        let too_many = || io::Error::new(io::ErrorKind::OutOfMemory, "the directory has too many names");
        let start = u32::try_from(self.bytes.len()).map_err(|_| too_many())?;
        let len = u16::try_from(name.len()).map_err(|_| too_many())?;
        self.bytes.extend_from_slice(name);
        self.entries.push(Range { start, len, kind: kind.map_or(UNKNOWN, u8::from) });
        Ok(())
    }

    /// Sorts the names bytewise. A name that a changing directory listed twice is kept once.
    pub fn sort(&mut self) {
        let Self { bytes, entries } = self;
        entries.sort_unstable_by(|a, b| a.of(bytes).cmp(b.of(bytes)));
        entries.dedup_by(|a, b| a.of(bytes) == b.of(bytes));
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Name number `index`.
    ///
    /// # Panics
    /// If there are fewer names.
    pub fn get(&self, index: usize) -> &[u8] {
        self.entries[index].of(&self.bytes)
    }

    /// The kind of file number `index`, if the directory tells. It may have changed since.
    ///
    /// # Panics
    /// If there are fewer names.
    pub fn kind_hint(&self, index: usize) -> Option<FileKind> {
        FileKind::try_from(self.entries[index].kind).ok()
    }

    /// The names in their order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|range| range.of(&self.bytes))
    }
}

impl Range {
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..][..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_bytewise_and_unique() {
        let mut names = Names::new();
        for (name, kind) in [
            (&b"b"[..], Some(FileKind::File)),
            (b"\xff", None),
            (b"a\n", None),
            (b"b", None),
            (b"a", None),
            (b"B", None),
        ] {
            names.push(name, kind).unwrap();
        }
        names.push(b"dir", Some(FileKind::Directory)).unwrap();
        names.sort();
        assert_eq!(names.iter().collect::<Vec<_>>(), [&b"B"[..], b"a", b"a\n", b"b", b"dir", b"\xff"]);
        assert_eq!((names.kind_hint(4), names.kind_hint(5)), (Some(FileKind::Directory), None));
        assert_eq!(size_of::<Range>(), 8);
        names.clear();
        assert!(names.is_empty());
    }
}
