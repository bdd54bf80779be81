//! Memory in large pages, where the system has them, so that filling a large block does not fault for each 4 KiB; and
//! the handling of lack of memory.
//!
//! Large amounts are requested with [`room`], which returns an error if there is not enough. For all other requests
//! Rust can only abort, which looks like a defect: a program with [`Allocator`] prints a message of its own and exits
//! instead. Stored data is then as safe as after a kill.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::TryReserveError;
use std::sync::OnceLock;

/// The program's last message, and its exit code.
static LAST_WORDS: OnceLock<(&str, u8)> = OnceLock::new();

thread_local! {
    /// Whether the present request handles lack of memory itself.
    static IS_ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Makes the program end with this message and exit code when there is no memory.
pub fn end_without(words: &'static str, code: u8) {
    let _ = LAST_WORDS.set((words, code)); // the first words count
}

/// The system's allocator, for programs that end with a message of their own when memory runs out.
#[derive(Debug, Clone, Copy)]
pub struct Allocator;

// SAFETY: the system's allocator does everything; its results are passed on unchanged.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same rules.
        given(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same rules.
        given(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the same rules.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the same rules.
        given(unsafe { System.realloc(memory, layout, size) })
    }
}

fn given(memory: *mut u8) -> *mut u8 {
    if memory.is_null() && !IS_ASKED.try_with(Cell::get).unwrap_or(false) {
        end();
    }
    memory
}

/// Ends the program at once, without allocating. Aborts as usual if no message was set.
#[cfg(unix)]
#[cold]
fn end() {
    let Some((words, code)) = LAST_WORDS.get() else { return };
    // SAFETY: the range is that of a static text. If nobody reads it, there is still the exit code.
    unsafe { libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len()) };
    // SAFETY: no more code of ours runs after this.
    unsafe { libc::_exit(i32::from(*code)) }
}

/// On other systems the program aborts.
#[cfg(not(unix))]
fn end() {}

/// Room for exactly `len` values, all of which will be filled.
///
/// # Errors
/// If there is not that much memory.
pub fn room<T>(len: usize) -> Result<Vec<T>, TryReserveError> {
    let mut room = Vec::new();
    IS_ASKED.set(true);
    let asked = room.try_reserve_exact(len);
    IS_ASKED.set(false);
    asked?;
    #[cfg(target_os = "linux")]
    in_large_pages(room.spare_capacity_mut());
    Ok(room)
}

/// Gives freed memory back to the system, which the allocator keeps in each thread's part of the heap: for a program that
/// works hard now and then, and rests for weeks.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back() {
    // SAFETY: it only returns pages that hold nothing.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do this by themselves, or not at all.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn give_back() {}

/// Requests large pages. Only a hint: if it fails, the pages are small.
#[cfg(target_os = "linux")]
fn in_large_pages<T>(room: &mut [T]) {
    // Large enough for all page sizes of today; memory outside these bounds stays as it is.
    const PAGE: usize = 64 << 10;
    let bounds = room.as_mut_ptr_range();
    let start = bounds.start.addr().next_multiple_of(PAGE);
    let len = (bounds.end.addr() / PAGE * PAGE).saturating_sub(start);
    let first = bounds.start.cast::<libc::c_void>().with_addr(start);
    // SAFETY: the range is within borrowed memory, and its content does not change.
    unsafe { libc::madvise(first, len, libc::MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_have_the_size_that_was_asked_for() {
        for len in [0, 1, 100, 10 << 20] {
            let mut room = room::<u32>(len).unwrap();
            assert!(room.capacity() >= len);
            room.resize(len, 7);
            assert!(room.iter().all(|&value| value == 7));
        }
        assert!(room::<u64>(usize::MAX / 16).is_err());
    }
}
