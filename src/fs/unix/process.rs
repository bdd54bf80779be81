//! Rights, limits and signals of this process, and of commands that it starts.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, geteuid, getrlimit, kill_process_group, setpriority_process, setrlimit,
};

/// Most bytes of free memory that stay at the end of the heap; larger blocks are never taken from the heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAP_KEPT: libc::c_int = 8 << 20;

/// Number of bytes that this user may still write to the file system on which an absolute path lies, or would lie.
pub fn free_space(path: &Path) -> Option<u64> {
    let found = path.ancestors().find_map(|above| rustix::fs::statvfs(above).ok())?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Raises the number of files that may be open at once as far as the system allows. Returns that number.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // macOS refuses "unlimited" here, and more than this is not needed anywhere.
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(1 << 20);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    [wanted, 10_240]
        .into_iter()
        .filter(|&number| number > current)
        .find(|&number| setrlimit(Resource::Nofile, Rlimit { current: Some(number), maximum: limit.maximum }).is_ok())
        .unwrap_or(current)
}

/// Keeps the memory of all threads in one heap, where the system's allocator would give each thread its own: memory
/// that one thread frees serves the others. Up to a few segments of free memory stay in the heap; the allocator would
/// return them to the system, and each new block would have to be cleared again. Must be called before other threads
/// start.
pub fn share_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (what, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, HEAP_KEPT), (libc::M_TRIM_THRESHOLD, HEAP_KEPT)]
    {
        // SAFETY: this only sets a number of the allocator's. Where it fails, more memory or time is used.
        let _ = unsafe { libc::mallopt(what, value) };
    }
}

/// Keeps the memory, with its keys and passwords, out of crash dumps (core files) and away from other processes of the
/// same user. Commands that are started may raise the limit again.
pub fn keep_to_itself() {
    let limit = getrlimit(Resource::Core);
    // If the system refuses, the work is done nevertheless.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: limit.maximum });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Turns a file that grows beyond the limit of this process (`ulimit -f`) into an error of that write, instead of
/// ending the process.
pub fn survive_file_size_limit() {
    // SAFETY: ignoring a signal runs no code of ours, and nothing else here handles this one.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Lets other programs go first. On Linux the priority for the disk follows that for the processor.
pub fn low_priority() {
    // A refusal changes nothing about the result of our work.
    let _ = setpriority_process(None, 10);
    // On Linux each thread has a priority of its own.
    #[cfg(target_os = "linux")]
    for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let id = thread.file_name().to_str().and_then(|id| Pid::from_raw(id.parse().ok()?));
        let _ = id.map(|id| setpriority_process(Some(id), 10));
    }
}

/// Lets all others go before this thread and those that it will start, where threads have priorities of their own.
pub fn low_priority_thread() {
    #[cfg(target_os = "linux")]
    let _ = setpriority_process(None, 19);
}

/// Calls `take_over`, which installs the handlers for this process's signals. If the process was started deaf to the
/// loss of its terminal (`nohup`), it stays so.
pub fn leaving_hangups(take_over: impl FnOnce()) {
    // SAFETY: all bytes zero are a valid value of this plain struct.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set; what is there is written to a local.
    let known = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut before) } == 0;
    take_over();
    if known && before.sa_sigaction == libc::SIG_IGN {
        // SAFETY: this is what the system itself said.
        unsafe { libc::sigaction(libc::SIGHUP, &raw const before, std::ptr::null_mut()) };
    }
}

/// Makes a command the head of a process group, so that it can be ended with everything that it starts.
pub fn own_group(command: &mut Command) {
    command.process_group(0);
}

/// A command that runs in the shell.
pub fn shell(command: &std::ffi::OsStr) -> Command {
    let mut process = Command::new("sh");
    process.arg("-c").arg(command);
    process
}

/// Ends a command that heads a process group, with everything that it started: asks the processes to end if `gently`,
/// else kills them.
pub fn end_group(child: &mut Child, gently: bool) {
    let signal = if gently { Signal::TERM } else { Signal::KILL };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // A command that has ended already need not be ended.
    let _ = pid.map(|pid| kill_process_group(pid, signal));
}

/// Whether this user may clear and set the flags that keep everyone from changing a file. In most containers root may not.
#[cfg(target_os = "linux")]
pub(super) fn clears_locks() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::LINUX_IMMUTABLE))
}

/// No system but Linux has such flags here.
#[cfg(not(target_os = "linux"))]
pub(super) const fn clears_locks() -> bool {
    false
}

/// Whether the user has an administrator's rights: to change owners, to make devices.
pub fn privileged() -> bool {
    geteuid().is_root()
}
