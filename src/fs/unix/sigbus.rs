//! Survives the signal that a mapped file sends when it becomes shorter.
//!
//! The handler may only do what is allowed in a signal handler: it reads atomics, maps pages, and sets a flag. All
//! windows are in a fixed table. A slot is guarded by a version number, odd while the slot changes, so that the handler
//! never acts on half of an old and half of a new range.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Most windows that may be open at once.
const SLOTS: usize = 1024;

struct Slot {
    taken: AtomicBool,
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    torn: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        version: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        torn: AtomicBool::new(false),
    }
}; SLOTS];

/// The previous handler of the signal, and the size of a page.
static BEFORE: OnceLock<(libc::sigaction, usize)> = OnceLock::new();

/// A range of mapped memory in the table, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Guard(usize);

impl Guard {
    /// Guards the pages of the `len` bytes from `start` on.
    pub(super) fn new(start: usize, len: usize) -> io::Result<Self> {
        let page = install()?;
        let index = TABLE
            .iter()
            .position(|slot| !slot.taken.swap(true, Ordering::SeqCst))
            .ok_or_else(|| io::Error::new(io::ErrorKind::ResourceBusy, "too many files are mapped"))?;
        let guard = Self(index);
        TABLE[index].torn.store(false, Ordering::SeqCst);
        TABLE[index].set(start - start % page, (start + len).next_multiple_of(page));
        Ok(guard)
    }

    /// Whether the signal occurred in this range.
    pub(super) fn torn(&self) -> bool {
        TABLE[self.0].torn.load(Ordering::SeqCst)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        TABLE[self.0].set(0, 0);
        TABLE[self.0].taken.store(false, Ordering::SeqCst);
    }
}

impl Slot {
    fn set(&self, start: usize, end: usize) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
        self.end.store(end, Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// The end of the range if `address` is in it. A slot that is changing belongs to another thread's window, never to
    /// the one that is being read.
    fn end_if_contains(&self, address: usize) -> Option<usize> {
        let version = self.version.load(Ordering::SeqCst);
        let (start, end) = (self.start.load(Ordering::SeqCst), self.end.load(Ordering::SeqCst));
        let stable = version.is_multiple_of(2) && version == self.version.load(Ordering::SeqCst);
        (stable && (start..end).contains(&address)).then_some(end)
    }
}

/// Installs the handler once. Returns the size of a page.
fn install() -> io::Result<usize> {
    static INSTALLED: OnceLock<Result<usize, i32>> = OnceLock::new();
    let result = INSTALLED.get_or_init(|| {
        let failed = || io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
        // SAFETY: the structures are valid as zeros, and the first is filled by the call. The handler is installed
        // after what it needs is in place.
        unsafe {
            let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).map_err(|_| failed())?;
            let mut before: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before) != 0 {
                return Err(failed());
            }
            let (before, _) = BEFORE.get_or_init(|| (before, page));
            let mut action = *before;
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            if libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) != 0 {
                return Err(failed());
            }
            Ok(page)
        }
    });
    result.map_err(io::Error::from_raw_os_error)
}

/// Puts zeros in place of the rest of the window. For any other address the former handler is restored.
extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let Some((before, page)) = BEFORE.get() else { return };
    // SAFETY: the system passes a valid `info`; sent by a program it has no address, hence the test of its code. The
    // pages mapped over lie between the failed address and the end of one live window, which its owner alone unmaps,
    // and not before the read that brought us here has returned. `mmap`, `sigaction` and `raise` are plain system
    // calls; `errno` is left as it was found.
    unsafe {
        let errno = errno();
        let saved = *errno;
        // macOS gives no code for a failed access.
        let sent = cfg!(target_os = "linux") && (*info).si_code <= 0;
        let address = (*info).si_addr() as usize;
        let hit = TABLE.iter().find_map(|slot| slot.end_if_contains(address).map(|end| (slot, end)));
        let replaced = match hit {
            Some((slot, end)) if !sent => {
                let start = address - address % page;
                let zeros = libc::mmap(
                    start as *mut libc::c_void,
                    end - start,
                    libc::PROT_READ,
                    libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                );
                slot.torn.store(true, Ordering::SeqCst);
                zeros != libc::MAP_FAILED
            }
            _ => false,
        };
        if !replaced {
            libc::sigaction(signal, std::ptr::from_ref(before), std::ptr::null_mut());
            // A failed access fails again after the return; a signal that was sent must be sent again.
            if sent {
                libc::raise(signal);
            }
        }
        *errno = saved;
    }
}

/// Address of this thread's error number.
///
/// # Safety
/// None needed but that of a call into the system's library.
unsafe fn errno() -> *mut libc::c_int {
    #[cfg(target_os = "linux")]
    // SAFETY: no preconditions.
    return unsafe { libc::__errno_location() };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: no preconditions.
    return unsafe { libc::__error() };
}
