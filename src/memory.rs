//! Memory in large pages, where the system has them: what is filled as a whole is there in few steps, instead of a
//! fault for each 4 KiB. And what happens when there is none.
//!
//! What needs much is asked for with [`room`], and its lack is an error. For all else the language knows no answer but to abort,
//! which looks like a defect: a program that has [`Allocator`] ends with words of its own instead. What it stored is as safe then as when it
//! is killed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::TryReserveError;
use std::sync::OnceLock;

/// What the program says at its end, and its exit code.
static LAST_WORDS: OnceLock<(&str, u8)> = OnceLock::new();

thread_local! {
    /// Whoever asks for memory now has an answer if there is none.
    static IS_ASKED: Cell<bool> = const { Cell::new(false) };
}

/// From now on the program ends like this when there is no memory.
pub fn end_without(words: &'static str, code: u8) {
    let _ = LAST_WORDS.set((words, code)); // the first words count
}

/// The system's allocator, for programs that end with words of their own when it has nothing to give.
#[derive(Debug, Clone, Copy)]
pub struct Allocator;

// SAFETY: all is left to the system's allocator; what it gives is handed on as it is.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the same rules.
        given(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the same rules.
        given(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the same rules.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps to the same rules.
        given(unsafe { System.realloc(memory, layout, size) })
    }
}

fn given(memory: *mut u8) -> *mut u8 {
    if memory.is_null() && !IS_ASKED.try_with(Cell::get).unwrap_or(false) {
        end();
    }
    memory
}

/// Ends the program at once, by nothing that needs memory. Without words it aborts, as ever.
#[cfg(unix)]
#[cold]
fn end() {
    let Some((words, code)) = LAST_WORDS.get() else { return };
    // SAFETY: the range is that of a text that lasts. Where nobody listens, the exit code still speaks.
    unsafe { libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len()) };
    // SAFETY: this runs no code of ours any more.
    unsafe { libc::_exit(i32::from(*code)) }
}

/// Elsewhere it aborts.
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

/// Only a hint: where it fails, the pages are small.
#[cfg(target_os = "linux")]
fn in_large_pages<T>(room: &mut [T]) {
    // Bounds of pages of any size that there is today; what is outside of them stays as it is.
    const PAGE: usize = 64 << 10;
    let bounds = room.as_mut_ptr_range();
    let start = bounds.start.addr().next_multiple_of(PAGE);
    let len = (bounds.end.addr() / PAGE * PAGE).saturating_sub(start);
    let first = bounds.start.cast::<libc::c_void>().with_addr(start);
    // SAFETY: the range lies within memory that is borrowed, and its content does not change.
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
