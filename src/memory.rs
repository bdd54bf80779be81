//! Memory in large pages, where the system has them: what is filled as a whole is there in few steps, instead of a
//! fault for each 4 KiB.

use std::collections::TryReserveError;

/// Room for exactly `len` values, all of which will be filled.
///
/// # Errors
/// If there is not that much memory.
pub fn room<T>(len: usize) -> Result<Vec<T>, TryReserveError> {
    let mut room = Vec::new();
    room.try_reserve_exact(len)?;
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
