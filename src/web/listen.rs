//! Listening for browsers: only on this computer, on a port or on a socket in a folder that belongs to the user.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::web::gate::Names;

/// The largest number of connections at once; others wait.
const CONNECTIONS_MAX: usize = 64;
/// The pause after the system fails to accept a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A port of this computer; 0 for any that is free.
    Port(u16),
    /// A socket, which is created.
    Socket(PathBuf),
}

/// A place that is bound.
#[derive(Debug)]
pub struct Bound {
    names: Names,
    listener: Any,
}

#[derive(Debug)]
enum Any {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener, Rubbish),
}

/// A socket's file, which is removed at the end.
#[cfg(unix)]
#[derive(Debug)]
struct Rubbish(PathBuf);

#[cfg(unix)]
impl Drop for Rubbish {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Bound {
    /// Binds the place.
    ///
    /// # Errors
    /// The system's error; [`io::ErrorKind::PermissionDenied`] for a socket in a folder that others can look into,
    /// [`io::ErrorKind::AddrInUse`] if another program listens there.
    pub fn new(place: &Place) -> io::Result<Self> {
        match place {
            Place::Port(port) => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port))?;
                listener.set_nonblocking(true)?;
                Ok(Self { names: Names::Port(listener.local_addr()?.port()), listener: Any::Tcp(listener) })
            }
            #[cfg(unix)]
            Place::Socket(path) => {
                use std::os::unix::fs::{MetadataExt, PermissionsExt};
                use std::os::unix::net::{UnixListener, UnixStream};
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let found = std::fs::metadata(folder.unwrap_or_else(|| std::path::Path::new(".")))?;
                if found.mode() & 0o077 != 0 || found.uid() != rustix::process::geteuid().as_raw() {
                    return Err(io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        "its folder is not only for you (chmod 700)",
                    ));
                }
                // Remove the socket that a killed server left behind.
                if std::fs::symlink_metadata(path).is_ok_and(|found| is_socket(&found)) {
                    if UnixStream::connect(path).is_ok() {
                        return Err(io::ErrorKind::AddrInUse.into());
                    }
                    std::fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                let rubbish = Rubbish(path.clone());
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                listener.set_nonblocking(true)?;
                Ok(Self { names: Names::Tunnel, listener: Any::Unix(listener, rubbish) })
            }
            #[cfg(not(unix))]
            Place::Socket(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "there are no such sockets here")),
        }
    }

    /// The host names under which the page answers.
    pub const fn names(&self) -> &Names {
        &self.names
    }
}

#[cfg(unix)]
fn is_socket(found: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())
}

/// Starts answering.
pub(super) fn start(runtime: &tokio::runtime::Runtime, bound: Bound, router: Router) -> io::Result<()> {
    let _inside = runtime.enter();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    match bound.listener {
        Any::Tcp(listener) => {
            let own = listener.local_addr()?;
            let listener = Door { inner: tokio::net::TcpListener::from_std(listener)?, own, room };
            runtime.spawn(async move { axum::serve(listener, router).await });
        }
        #[cfg(unix)]
        Any::Unix(listener, rubbish) => {
            let listener = Door { inner: tokio::net::UnixListener::from_std(listener)?, own: rubbish, room };
            runtime.spawn(async move { axum::serve(listener, router).await });
        }
    }
    Ok(())
}

/// Accepts connections while there is room, and only those of this user where the system tells whose they are.
struct Door<L, O> {
    inner: L,
    own: O,
    room: Arc<Semaphore>,
}

/// A connection, with the room that it takes.
struct Line<S> {
    inner: S,
    _room: Option<OwnedSemaphorePermit>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Accepts the next connection that is allowed.
async fn next<S, A, F: Future<Output = io::Result<(S, A)>>>(
    room: &Arc<Semaphore>,
    accept: impl Fn() -> F,
    is_own: impl Fn(&S, &A) -> bool,
) -> (Line<S>, A) {
    // The semaphore is never closed.
    let room = room.clone().acquire_owned().await.ok();
    loop {
        match accept().await {
            Ok((inner, address)) if is_own(&inner, &address) => return (Line { inner, _room: room }, address),
            Ok(_) => {}
            // For example, too many files are open.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

impl Listener for Door<tokio::net::TcpListener, SocketAddr> {
    type Io = Line<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        next(&self.room, || self.inner.accept(), |_, peer| is_of_this_user(*peer, self.own)).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.own)
    }
}

#[cfg(unix)]
impl Listener for Door<tokio::net::UnixListener, Rubbish> {
    type Io = Line<tokio::net::UnixStream>;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, ()) {
        let accept = || async { self.inner.accept().await.map(|(line, _)| (line, ())) };
        let is_own = |line: &tokio::net::UnixStream, (): &()| {
            line.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw() || peer.uid() == 0)
        };
        next(&self.room, accept, is_own).await
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a connection belongs to this user, or to root. Where the system does not tell, it is let in: the token and
/// the cookie decide.
#[cfg(target_os = "linux")]
fn is_of_this_user(peer: SocketAddr, own: SocketAddr) -> bool {
    let table = crate::ownfile::read_text(std::path::Path::new("/proc/net/tcp")).unwrap_or_default();
    owner_in(&table, peer, own).is_none_or(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw())
}

#[cfg(not(target_os = "linux"))]
fn is_of_this_user(_: SocketAddr, _: SocketAddr) -> bool {
    true
}

/// The user at the other end of a connection, from the system's table of connections.
#[cfg(any(target_os = "linux", test))]
fn owner_in(table: &str, peer: SocketAddr, own: SocketAddr) -> Option<u32> {
    let written = |address: SocketAddr| match address {
        SocketAddr::V4(address) => {
            Some(format!("{:08X}:{:04X}", u32::from_le_bytes(address.ip().octets()), address.port()))
        }
        SocketAddr::V6(_) => None,
    };
    let (peer, own) = (written(peer)?, written(own)?);
    table.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        if words.next()? != peer || words.next()? != own {
            return None;
        }
        words.nth(4)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_connection_is_found_in_the_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n\
            1: 0100007F:1F90 0100007F:B0C2 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1\n\
            2: 0100007F:B0C2 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 20 4 30 10 -1\n";
        let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_eq!(owner_in(table, at(0xB0C2), at(8080)), Some(1000));
        assert_eq!(owner_in(table, at(0xB0C3), at(8080)), None);
        assert_eq!(owner_in(table, at(0xB0C2), at(8081)), None);
        assert_eq!(owner_in("", at(0xB0C2), at(8080)), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_lies_in_a_folder_of_ones_own_and_goes_in_the_end() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let open = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let place = Place::Socket(folder.path().join("s"));
        open(0o750);
        assert_eq!(Bound::new(&place).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        open(0o700);
        let bound = Bound::new(&place).unwrap();
        assert_eq!(*bound.names(), Names::Tunnel);
        let mode = std::fs::metadata(folder.path().join("s")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Bound::new(&place).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(bound);
        assert!(!folder.path().join("s").exists());
        // A socket left behind by another server.
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap());
        assert!(Bound::new(&place).is_ok());
        std::fs::write(folder.path().join("file"), "x").unwrap();
        assert!(Bound::new(&Place::Socket(folder.path().join("file"))).is_err(), "what is no socket stays");
    }
}
