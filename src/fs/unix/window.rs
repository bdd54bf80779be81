//! A mapped part of a file.

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::sigbus::Guard;

/// A mapped part of a file, for reading only. If the file is truncated meanwhile, the missing part reads as zeros and
/// [`Window::torn`] returns true.
#[derive(Debug)]
pub struct Window {
    // Before the mapping, since fields are dropped in order: a range must not be guarded after it was unmapped.
    guard: Guard,
    map: MmapRaw,
}

impl Window {
    pub(super) fn new(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        if len == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty range cannot be mapped"));
        }
        let map = MmapOptions::new().offset(offset).len(len).map_raw_read_only(file)?;
        let guard = Guard::new(map.as_ptr() as usize, len)?;
        // Only advice: the pages are read in order and once.
        let _ = map.advise(Advice::Sequential);
        Ok(Self { guard, map })
    }

    /// Number of mapped bytes.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Always false: an empty range cannot be mapped.
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// Appends a copy of a part to `out`. Only the copy is reliable: it does not change under the reader.
    ///
    /// # Panics
    /// If the range exceeds the window.
    pub fn copy_to(&self, range: Range<usize>, out: &mut Vec<u8>) {
        assert!(range.start <= range.end && range.end <= self.map.len(), "the range exceeds the window");
        let len = range.end - range.start;
        out.reserve(len);
        // SAFETY: the source lies in the mapping, which lives as long as `self` and is readable throughout (a page
        // that is gone is replaced by the guard); the destination is reserved above and cannot overlap it. Raw
        // pointers claim nothing about bytes that another program may change.
        unsafe {
            std::ptr::copy_nonoverlapping(self.map.as_ptr().add(range.start), out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }

    /// The bytes as they are now, for finding cut points. They may change at any moment if someone writes to the file:
    /// nothing may be stored or hashed from here, see [`Window::copy_to`].
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the range is mapped and readable as long as `self` lives. Another program may change the bytes; the
        // only user, the search for cut points, reads each byte once as an index of a table with 256 places, so that
        // any value gives a valid, if meaningless, cut point.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.map.len()) }
    }

    /// Whether bytes were missing: the file became shorter, or its disk could not be read. Everything read from this
    /// window is then worthless; [`super::SourceFile::read_at`] tells the cause.
    pub fn torn(&self) -> bool {
        self.guard.torn()
    }
}
