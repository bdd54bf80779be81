//! Files and folders, for saving and never for showing.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use tokio::sync::mpsc::{Sender, channel};

use crate::engine::archive::export::export;
use crate::progress::Silent;
use crate::read::StoredFile;
use crate::tree::FileKind;
use crate::vault::SnapshotInfo;
use crate::web::answer::{Problem, SANDBOX};
use crate::web::desk::Desk;
use crate::web::look;
use crate::web::query::Query;

/// Files are sent in pieces of this many bytes.
const PIECE: usize = 1 << 20;
/// The number of pieces that may wait for the browser.
const WAITING: usize = 2;

/// The header with the file name for a download: without characters that would end the header, hide the type, or lead
/// elsewhere.
pub fn disposition(name: &[u8]) -> String {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '"' | '\\' | '/' | ':' | '*' | '?' | '<' | '>' | '|' | '%')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let text = String::from_utf8_lossy(name);
    let plain: String = text.chars().map(|c| if is_odd(c) { '_' } else { c }).collect();
    let plain = plain.trim_matches(['.', ' ']);
    let plain = if plain.is_empty() { "file" } else { plain };
    let simple: String = plain.chars().map(|c| if c.is_ascii() { c } else { '_' }).collect();
    let mut encoded = String::new();
    for byte in plain.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    format!("attachment; filename=\"{simple}\"; filename*=UTF-8''{encoded}")
}

/// `GET file`: a file, or a folder as a tar archive.
///
/// # Errors
/// If there is neither, or the first part of the file cannot be read.
pub fn file(desk: &Arc<Desk>, query: &Query) -> Result<Response<Body>, Problem> {
    let info = desk.snapshot(query.text("snapshot")?)?;
    let at = query.path();
    let entry = look::find(desk, &info, &at)?;
    if entry.kind == FileKind::Directory {
        return folder(desk, info, at);
    }
    let file = StoredFile::new(&entry).ok_or_else(|| Problem::usage("only regular files have content"))?;
    let size = file.size();
    let view = desk.view().clone();
    // An error at the start gets an answer of its own; later, the connection can only break off.
    let mut first = vec![0; size.min(PIECE as u64) as usize];
    file.read_at(view.as_ref(), 0, &mut first).map_err(|error| desk.unread(&info, error))?;
    sent(&disposition(&entry.name), Some(size), move |out| {
        let mut at = first.len() as u64;
        out.send(first)?;
        while at < size {
            let mut piece = vec![0; (size - at).min(PIECE as u64) as usize];
            file.read_at(view.as_ref(), at, &mut piece).map_err(io::Error::other)?;
            at += piece.len() as u64;
            out.send(piece)?;
        }
        Ok(())
    })
}

/// A folder as `vault export` writes it. If anything in it cannot be read, the connection breaks off: an archive that lacks something
/// must not look whole.
fn folder(desk: &Arc<Desk>, info: SnapshotInfo, at: Vec<u8>) -> Result<Response<Body>, Problem> {
    let whole = if at.is_empty() { info.body.source.as_bytes() } else { &at };
    let name = whole.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty());
    let name = [name.unwrap_or(b"snapshot"), b".tar"].concat();
    let view = desk.view().clone();
    sent(&disposition(&name), None, move |out| {
        let mut out = BufWriter::with_capacity(PIECE, out);
        let report = export(view.vault(), &info, &at, &mut out, &Silent::default()).map_err(io::Error::other)?;
        out.flush()?;
        let first = report.problems.into_iter().next();
        first.map_or(Ok(()), |problem| Err(io::Error::other(problem.what)))
    })
}

/// The way to the browser.
struct Out(Sender<io::Result<Bytes>>);

impl Out {
    /// Sends a piece.
    ///
    /// # Errors
    /// If the browser has gone.
    fn send(&self, piece: Vec<u8>) -> io::Result<()> {
        self.0.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes.to_vec())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A response whose body is written meanwhile, by a thread of its own. If that fails, the connection breaks off.
fn sent(
    disposition: &str,
    len: Option<u64>,
    write: impl FnOnce(Out) -> io::Result<()> + Send + 'static,
) -> Result<Response<Body>, Problem> {
    let (sender, receiver) = channel::<io::Result<Bytes>>(WAITING);
    let write = move || {
        if let Err(error) = write(Out(sender.clone())) {
            // A browser that has gone hears no error.
            let _ = sender.blocking_send(Err(error));
        }
    };
    tokio::runtime::Handle::try_current()
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
        .spawn_blocking(write);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    if let Some(len) = len {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    }
    if let Ok(value) = HeaderValue::from_str(disposition) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads_are_harmless() {
        for (name, expected) in [
            (&b"letter.odt"[..], "attachment; filename=\"letter.odt\"; filename*=UTF-8''letter.odt"),
            ("é.txt".as_bytes(), "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt"),
            (
                b"a\r\nSet-Cookie: x=y",
                "attachment; filename=\"a__Set-Cookie_ x=y\"; filename*=UTF-8''a__Set-Cookie_%20x%3Dy",
            ),
            (
                b"\"; filename=evil.exe",
                "attachment; filename=\"_; filename=evil.exe\"; filename*=UTF-8''_%3B%20filename%3Devil.exe",
            ),
            ("gpj\u{202e}.exe".as_bytes(), "attachment; filename=\"gpj_.exe\"; filename*=UTF-8''gpj_.exe"),
            (b"../../x", "attachment; filename=\"_.._x\"; filename*=UTF-8''_.._x"),
            (b"..", "attachment; filename=\"file\"; filename*=UTF-8''file"),
            (b"a\xff", "attachment; filename=\"a_\"; filename*=UTF-8''a%EF%BF%BD"),
        ] {
            let made = disposition(name);
            assert_eq!(made, expected);
            assert!(HeaderValue::from_str(&made).is_ok());
        }
    }
}
