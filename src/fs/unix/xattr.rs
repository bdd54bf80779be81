//! Extended attributes. ACLs and capabilities are attributes, too, and are kept byte for byte.

use std::ffi::CString;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd as _;
#[cfg(target_os = "linux")]
use std::sync::OnceLock;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, getxattr, lgetxattr, listxattr, llistxattr,
    removexattr, setxattr,
};
use rustix::io::Errno;

/// Names with values, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The file whose attributes are read or set.
#[derive(Clone)]
pub enum Node<'a> {
    /// Open for reading or writing.
    Open(BorrowedFd<'a>),
    /// A path whose last component is not followed.
    Link(CString),
    /// A path that is followed: the system's own link to an open file.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))] // only Linux has such links
    Magic(CString),
}

/// A path to an open file or, with a name, to a file in an open directory; `None` if the system offers none. It is
/// short, however deep the directory is.
#[cfg(target_os = "linux")]
pub fn fd_path(fd: impl AsFd, name: Option<&[u8]>) -> Option<CString> {
    static MOUNTED: OnceLock<bool> = OnceLock::new();
    if !MOUNTED.get_or_init(|| rustix::fs::access(c"/proc/self/fd", rustix::fs::Access::EXISTS).is_ok()) {
        return None;
    }
    let mut path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into_bytes();
    if let Some(name) = name {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    CString::new(path).ok()
}

/// Always `None`: other systems have no such path.
#[cfg(not(target_os = "linux"))]
pub fn fd_path(_fd: impl AsFd, _name: Option<&[u8]>) -> Option<CString> {
    None
}

impl Node<'_> {
    /// All attributes. One that vanishes meanwhile is left out; a file system without attributes has none.
    pub fn all(&self) -> io::Result<Xattrs> {
        let mut xattrs = Vec::new();
        for name in self.names()? {
            if let Some(value) = self.get(&name)? {
                xattrs.push((name, value));
            }
        }
        Ok(xattrs)
    }

    /// The names of all attributes, sorted.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let list = read_growing(|buf| match self {
            Self::Open(fd) => flistxattr(fd, buf),
            Self::Link(path) => llistxattr(path, buf),
            Self::Magic(path) => listxattr(path, buf),
        });
        let list = match list {
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            list => list?,
        };
        let mut names: Vec<_> = list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(Vec::from).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The value of an attribute, if it exists.
    pub fn get(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let value = read_growing(|buf| match self {
            Self::Open(fd) => fgetxattr(fd, name, buf),
            Self::Link(path) => lgetxattr(path, name, buf),
            Self::Magic(path) => getxattr(path, name, buf),
        });
        match value {
            // `ENODATA`, or its equivalent on other systems; some attributes are listed but cannot be read.
            Err(NO_ATTRIBUTE | Errno::OPNOTSUPP) => Ok(None),
            value => Ok(Some(value?)),
        }
    }

    /// Asks for an attribute and returns the system's answer.
    pub fn ask(&self, name: &[u8]) -> rustix::io::Result<()> {
        let buf = &mut [0_u8; 0][..];
        match self {
            Self::Open(fd) => fgetxattr(fd, name, buf),
            Self::Link(path) => lgetxattr(path, name, buf),
            Self::Magic(path) => getxattr(path, name, buf),
        }
        .map(|_| ())
    }

    /// Sets an attribute.
    pub fn set(&self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Link(path) => rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()),
            Self::Magic(path) => setxattr(path, name, value, XattrFlags::empty()),
        }
    }

    /// Removes an attribute.
    pub fn remove(&self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fremovexattr(fd, name),
            Self::Link(path) => rustix::fs::lremovexattr(path, name),
            Self::Magic(path) => removexattr(path, name),
        }
    }
}

/// The system's error for a missing attribute.
#[cfg(target_os = "linux")]
pub const NO_ATTRIBUTE: Errno = Errno::NODATA;
/// The system's error for a missing attribute.
#[cfg(target_os = "macos")]
pub const NO_ATTRIBUTE: Errno = Errno::NOATTR;
/// A stand-in: the error of other systems for a missing attribute is not known here.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub const NO_ATTRIBUTE: Errno = Errno::NOENT;

/// Calls with a small buffer, and with larger ones until the answer fits.
fn read_growing(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    // Linux never has more than 64 KiB; macOS keeps whole resource forks as attributes.
    const LEN_MAX: usize = 256 << 20;
    let mut small = [0; 512];
    match read(&mut small) {
        Ok(len) => return Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut len = 64 << 10;
    loop {
        let mut buf = vec![0; len];
        match read(&mut buf) {
            Ok(used) => {
                buf.truncate(used);
                buf.shrink_to_fit();
                return Ok(buf);
            }
            Err(Errno::RANGE) if len < LEN_MAX => len *= 4,
            Err(error) => return Err(error),
        }
    }
}
