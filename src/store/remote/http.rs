//! One transport for all protocols over HTTP: it counts the bytes of a request that get through, and keeps the
//! details of the answer.

use std::error::Error;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_RANGE, DATE, RANGE, RETRY_AFTER};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

use crate::store::remote::runtime::Tally;
use crate::sync::lock;

/// We close an idle connection after this time, before the server or something in between does.
const IDLE: Duration = Duration::from_secs(15);
/// The longest time that making a connection may take.
const CONNECT: Duration = Duration::from_secs(20);
/// The number of bytes handed to the system at once. Small pieces show how far a request has got.
const PIECE: usize = 64 << 10;
/// The number of bytes read of an answer that explains a failure.
const REASON_MAX: usize = 64 << 10;

/// The header field that passes a user and a password.
pub(super) fn authorization(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// The request's action, for any kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Read,
    List,
    Put,
    Delete,
    Quarantine,
}

impl Asked {
    /// The word that errors use for it.
    pub(super) const fn action(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Put => "write",
            Self::Delete => "delete",
            Self::Quarantine => "quarantine",
        }
    }

    /// Whether it changes the store.
    pub(super) const fn writes(self) -> bool {
        matches!(self, Self::Put | Self::Delete | Self::Quarantine)
    }
}

/// The details of an answer, without its body.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    /// The status; `None` if there was no answer.
    pub status: Option<u16>,
    /// The error code, as the protocol names it.
    pub code: Option<String>,
    /// The server's explanation of the error.
    pub message: Option<String>,
    /// The time that the server asks us to wait.
    pub retry_after: Option<Duration>,
    /// The server's date, and the date that we sent.
    pub dates: Option<(String, String)>,
    /// The region of the bucket.
    pub region: Option<String>,
    /// The server's name for itself.
    pub server: Option<String>,
    /// How, and until when, the object is locked.
    pub locked: Option<String>,
    /// Whether the answer shows that the object's tag is not its MD5.
    pub has_other_tag: bool,
    /// The reason why there was no answer.
    pub fault: Option<(io::ErrorKind, String)>,
}

impl Answer {
    /// The details in the head of an answer to a request that was sent with this date.
    fn of(head: &http::response::Parts, said: Option<String>) -> Self {
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self {
            status: Some(head.status.as_u16()),
            code: text("x-ms-error-code"),
            message: None,
            retry_after: text(RETRY_AFTER.as_str()).as_deref().and_then(seconds),
            dates: text(DATE.as_str()).zip(said),
            region: text("x-amz-bucket-region"),
            server: text("server"),
            locked: text("x-amz-object-lock-mode").map(|mode| {
                let until = text("x-amz-object-lock-retain-until-date").map(|date| format!(" until {date}"));
                mode + &until.unwrap_or_default()
            }),
            has_other_tag: text("x-amz-server-side-encryption").is_some_and(|how| how.starts_with("aws:kms"))
                || text("x-amz-server-side-encryption-customer-algorithm").is_some(),
            fault: None,
        }
    }

    /// The same, with the reason in the body.
    fn with_reason(self, reason: &str) -> Self {
        Self {
            code: element(reason, "Code").or(self.code),
            message: element(reason, "Message"),
            region: self.region.or_else(|| element(reason, "Region")),
            ..self
        }
    }
}

/// One request: its progress, and the answer.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// The progress of the request.
    pub tally: Arc<Tally>,
    /// The last answer.
    answer: Mutex<Answer>,
    /// Header fields sent with the request.
    pub headers: HeaderMap,
}

impl Call {
    /// A request with these header fields.
    pub(super) fn with(headers: HeaderMap) -> Self {
        Self { headers, ..Self::default() }
    }

    /// The last answer.
    pub(super) fn answer(&self) -> Answer {
        lock(&self.answer).clone()
    }

    fn note(&self, answer: Answer) {
        *lock(&self.answer) = answer;
    }
}

tokio::task_local! {
    /// The request that a task works on.
    pub(super) static CALL: Arc<Call>;
}

/// The transport.
#[derive(Debug, Clone)]
pub(super) struct Transport(reqwest::Client);

impl Transport {
    /// A transport that trusts the system's authorities, and those in a file.
    pub(super) fn new(ca_file: Option<&Path>, is_here: bool) -> Result<Self, String> {
        // Another library in this process may have chosen its cryptography before; that is fine as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("vault/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE);
        if is_here {
            builder = builder.no_proxy();
        }
        if let Some(path) = ca_file {
            let told = |error: &(dyn Error + 'static)| {
                format!("the certificates in {} cannot be used: {}", path.display(), crate::progress::plain(error))
            };
            let pem = crate::ownfile::read_given(path, crate::ownfile::LEN_MAX).map_err(|error| told(&error))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| told(&error))?;
            builder = builder.tls_certs_merge(certificates);
        }
        builder.build().map(Self).map_err(|error| deepest(&error))
    }

    /// Sends a request, and keeps the details of the answer in the task's call.
    pub(super) async fn send<B>(&self, request: http::Request<B>) -> Result<HttpResponse, HttpError>
    where
        B: Body<Data = Bytes> + Send + Sync + Unpin + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let call = CALL.try_with(Arc::clone).unwrap_or_default();
        let (parts, body) = request.into_parts();
        let url =
            parts.uri.to_string().parse().map_err(|error| failed(&call, HttpErrorKind::Unknown, Box::new(error)))?;
        let is_ranged = parts.headers.contains_key(RANGE);
        let said = parts.headers.get("x-amz-date").or_else(|| parts.headers.get("x-ms-date")).cloned();
        let is_batch = parts.method == http::Method::POST;
        let is_put = parts.method == http::Method::PUT;
        let is_list =
            parts.uri.query().is_some_and(|query| query.contains("list-type=2") || query.contains("comp=list"));
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        if is_put {
            request.headers_mut().extend(call.headers.clone());
        }
        if body.size_hint().exact() != Some(0) {
            let body = Counted { body, tally: call.tally.clone(), is_out: true, rest: Bytes::new() };
            *request.body_mut() = Some(reqwest::Body::wrap(body));
        }
        let response = self.0.execute(request).await.map_err(|error| lost(&call, error))?;
        call.tally.received.fetch_add(1, Relaxed);
        let (mut parts, body) = http::Response::<reqwest::Body>::from(response).into_parts();
        let answer = Answer::of(&parts, said.and_then(|said| said.to_str().ok().map(str::to_owned)));
        let mut body = Counted { body, tally: call.tally.clone(), is_out: false, rest: Bytes::new() };
        let is_success = parts.status.is_success();
        if is_success && !is_batch && !is_list {
            call.note(answer);
            let body = HttpResponseBody::new(body.map_err(move |error| lost(&call, error)));
            // Some servers return the requested range without the status that says so.
            if is_ranged && parts.status == http::StatusCode::OK && parts.headers.contains_key(CONTENT_RANGE) {
                parts.status = http::StatusCode::PARTIAL_CONTENT;
            }
            return Ok(HttpResponse::from_parts(parts, body));
        }
        // Read the bodies of failures and of batches, which hold reasons, and check a list before it is trusted.
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| lost(&call, error))?;
            if let Ok(data) = frame.into_data()
                && (is_success || bytes.len() < REASON_MAX)
            {
                bytes.extend_from_slice(&data);
            }
        }
        if is_list && is_success {
            call.note(answer);
            let list = sound_list(bytes).map_err(|what| failed(&call, HttpErrorKind::Decode, what.into()))?;
            return Ok(HttpResponse::from_parts(parts, list.into()));
        }
        call.note(answer.with_reason(&String::from_utf8_lossy(&bytes)));
        Ok(HttpResponse::from_parts(parts, bytes.into()))
    }
}

/// The list that a server answered, without names that cannot be ours.
///
/// # Errors
/// If it is not a whole list, or does not tell where the next one starts.
fn sound_list(bytes: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    let text = String::from_utf8_lossy(&bytes);
    if !["ListBucketResult>", "EnumerationResults>"].iter().any(|end| text.trim_end().ends_with(end)) {
        return Err("something that is no list was answered");
    }
    // A server that speaks an older protocol says that there is more, but not where the next page starts.
    let is_cut = element(&text, "IsTruncated").is_some_and(|cut| cut.eq_ignore_ascii_case("true"))
        && element(&text, "NextContinuationToken").is_none_or(|token| token.is_empty());
    if is_cut {
        return Err("the list was cut, and does not say where it goes on");
    }
    let fit = without_unfit(&text, ("<Contents>", "</Contents>"), "Key")
        .or_else(|| without_unfit(&text, ("<Blob>", "</Blob>"), "Name"));
    Ok(fit.map_or(bytes, String::into_bytes))
}

#[async_trait::async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.send(request).await
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// Notes that there was no answer, or only a part of one.
fn failed(call: &Call, kind: HttpErrorKind, error: Box<dyn Error + Send + Sync>) -> HttpError {
    let mut answer = call.answer();
    answer.fault = Some((io_kind(error.as_ref()), deepest(error.as_ref())));
    call.note(answer);
    HttpError::new_boxed(kind, error)
}

fn lost(call: &Call, error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() { HttpErrorKind::Timeout } else { HttpErrorKind::Interrupted };
    failed(call, kind, Box::new(error.without_url()))
}

/// The text of the innermost cause of an error.
fn deepest(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn io_kind(error: &(dyn Error + 'static)) -> io::ErrorKind {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() != io::ErrorKind::Other
        {
            return error.kind();
        }
        next = error.source();
    }
    io::ErrorKind::Other
}

/// Parses the seconds of a `Retry-After`. A date is ignored; the usual waits apply then.
fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

/// Parses a server's `Date` into seconds since 1970: `Sat, 28 Nov 2026 18:00:00 GMT`.
pub(super) fn time_of(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let mut words = date.split(' ');
    let day: i64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = words.next()?;
    let (month, _) = (1_i64..).zip(MONTHS).find(|(_, name)| *name == month)?;
    let year: i64 = words.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let mut parts =
        words.next()?.split(':').map(|part| part.parse::<i64>().ok().filter(|part| (0..=60).contains(part)));
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if words.next() != Some("GMT") {
        return None;
    }
    // In years that begin in March, the leap day is the last day.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469;
    Some(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
}

/// The text of the first element of this name, still escaped.
fn written<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (_, behind) = xml.split_once(&format!("<{name}>"))?;
    behind.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

/// Decodes XML entities.
fn plain(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}

/// The text of the first element of this name.
pub(super) fn element(xml: &str, name: &str) -> Option<String> {
    let text = plain(written(xml, name)?);
    Some(text.chars().filter(|c| !c.is_control()).take(300).collect())
}

/// Removes from a page of a list those objects whose names the library rejects or changes: names with a component
/// that is empty or a dot, with a `/` at either end, or with characters written as numbers. Other users of a bucket
/// may have put such objects, and one of them would spoil the page. Returns `None` if there are none.
fn without_unfit(xml: &str, (begin, end): (&str, &str), name: &str) -> Option<String> {
    let is_fit = |entry: &str| {
        let text = written(entry, name).unwrap_or_default();
        let key = plain(text);
        !key.is_empty()
            && !text.contains("&#")
            && object_store::path::Path::parse(&key).is_ok_and(|path| path.as_ref() == key)
    };
    let mut kept: Option<String> = None;
    let mut at = 0;
    while let Some(from) = xml[at..].find(begin).map(|found| at + found) {
        let to = xml[from..].find(end).map_or(xml.len(), |found| from + found + end.len());
        let entry = &xml[from..to];
        if !is_fit(entry) {
            kept.get_or_insert_with(|| xml[..at].to_owned()).push_str(&xml[at..from]);
        } else if let Some(kept) = &mut kept {
            kept.push_str(&xml[at..to]);
        }
        at = to;
    }
    kept.map(|kept| kept + &xml[at..])
}

/// A body that counts its bytes, piece by piece.
struct Counted<B> {
    body: B,
    tally: Arc<Tally>,
    /// Whether the body is sent; otherwise it is received.
    is_out: bool,
    rest: Bytes,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return other,
            }
        }
        let len = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(len);
        let count = if self.is_out { &self.tally.sent } else { &self.tally.received };
        count.fetch_add(len as u64, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(exact) = hint.exact() {
            hint.set_exact(exact + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_read() {
        let xml =
            "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>a &amp;lt; &lt;b&gt;\n</Message></Error>";
        assert_eq!(element(xml, "Code").as_deref(), Some("SlowDown"));
        assert_eq!(element(xml, "Message").as_deref(), Some("a &lt; <b>"));
        assert_eq!(element(xml, "Region"), None);
        assert_eq!(element("<Code>", "Code"), None);
        let page = |keys: &[&str]| {
            let entries: Vec<String> =
                keys.iter().map(|key| format!("<Contents><Key>{key}</Key></Contents>")).collect();
            format!("<L><A>x</A>{}<Z>y</Z></L>", entries.concat())
        };
        let unfit = |text: &str| without_unfit(text, ("<Contents>", "</Contents>"), "Key");
        assert_eq!(unfit(&page(&["a", "b &amp; c/d"])), None);
        assert_eq!(unfit(&page(&[])), None);
        for other in ["a//b", "/a", "a/", "a/../b", "./a", "a&#10;b", ""] {
            assert_eq!(unfit(&page(&[other, "a", other, other, "b", other])), Some(page(&["a", "b"])), "{other}");
            assert_eq!(unfit(&page(&["a", other, "b"])), Some(page(&["a", "b"])), "{other}");
            assert_eq!(unfit(&page(&[other])), Some(page(&[])), "{other}");
        }
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sat, 28 Nov 2026 18:00:00 GMT", Some(1_795_888_800)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Sat, 28 Nov 2026 18:00:00 CET", None),
            ("Sat, 28 Nov", None),
            ("", None),
        ] {
            assert_eq!(time_of(text), expected, "{text}");
        }
        assert_eq!(seconds(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), None);
    }
}
