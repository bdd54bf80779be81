//! What this process may do, and how much of it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, geteuid, getrlimit, kill_process_group, setpriority_process, setrlimit,
};

/// What is freed at the end of the heap stays there up to this size, and what is larger is never taken from it, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAP_KEPT: libc::c_int = 8 << 20;

/// How many bytes this user may still write to the file system that an absolute path lies on, or would lie on.
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

/// Keeps the memory of all threads in one heap, where the system's allocator would give each thread one of its own: what
/// one has freed serves the others. And what was freed stays for what comes next, up to a few segments, where the
/// allocator would give it back and have it cleared anew for each. It must be called before there are threads.
pub fn share_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (what, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, HEAP_KEPT), (libc::M_TRIM_THRESHOLD, HEAP_KEPT)]
    {
        // SAFETY: this only sets a number of the allocator's. Where it fails, more memory or time is used.
        let _ = unsafe { libc::mallopt(what, value) };
    }
}

/// Keeps what is in memory, keys and passwords among it, from files that are left behind by a crash (core dumps) and from
/// other processes of the same user. Commands that are started may raise the limit again.
pub fn keep_to_itself() {
    let limit = getrlimit(Resource::Core);
    // Where the system refuses, the work is done all the same.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: limit.maximum });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// A file that grows beyond the limit of this process (`ulimit -f`) is an error of that write, not the end of the process.
pub fn survive_file_size_limit() {
    // SAFETY: ignoring a signal runs no code of ours, and nothing else here handles this one.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Lets other programs go first. On Linux the priority for the disk follows that for the processor.
pub fn low_priority() {
    // A refusal changes nothing about the result of our work.
    let _ = setpriority_process(None, 10);
}

/// Runs what takes over the signals of this process, but leaves it deaf to the loss of its terminal if it was started so
/// (`nohup`).
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

/// Makes a command the head of a group of processes, so that it can be ended with all that it starts.
pub fn own_group(command: &mut Command) {
    command.process_group(0);
}

/// A command as the shell runs it.
pub fn shell(command: &std::ffi::OsStr) -> Command {
    let mut process = Command::new("sh");
    process.arg("-c").arg(command);
    process
}

/// Ends a command that heads a group, with all that it started: asks it to, if `gently`, else does not ask.
pub fn end_group(child: &mut Child, gently: bool) {
    let signal = if gently { Signal::TERM } else { Signal::KILL };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // What has ended already need not be ended.
    let _ = pid.map(|pid| kill_process_group(pid, signal));
}

/// Whether the user may do what only an administrator may: change owners, make devices.
pub fn privileged() -> bool {
    geteuid().is_root()
}
