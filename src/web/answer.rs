//! The form of answers and refusals: the same as the output of `--json`.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY};
use axum::http::header::{X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::catalogue::CatalogueError;
use crate::engine::keys::KeyError;
use crate::engine::query::browse::BrowseError;
use crate::engine::query::index::IndexError;
use crate::engine::restore::RestoreError;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::vault::{ReadError, VaultError};

/// The policy for browsers: the page loads nothing from elsewhere, runs only its own scripts, and cannot be embedded
/// in another page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
     connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";
/// The policy for content of snapshots: a browser must not run or load any of it.
pub const SANDBOX: &str = "sandbox; default-src 'none'";

/// The reason why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The error in words.
    #[serde(rename = "error")]
    pub what: String,
    /// The next thing for the user to do.
    pub hint: Option<String>,
    /// The exit code that a command would have had.
    pub code: u8,
    /// The HTTP status of the answer.
    #[serde(skip)]
    pub status: StatusCode,
}

/// The body of an answer, or the reason for a refusal.
pub type Told = Result<Vec<u8>, Problem>;

impl Problem {
    /// A failure with this status.
    pub fn new(status: StatusCode, what: impl Into<String>) -> Self {
        let code = if status.is_client_error() { Exit::Usage } else { Exit::Failed };
        Self { what: what.into(), hint: None, code: code as u8, status }
    }

    /// A request that makes no sense.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, what)
    }

    /// A request for something that does not exist.
    pub fn missing(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    /// A failure for which a command would have ended with this code.
    pub fn of_exit(exit: Exit, what: impl Into<String>) -> Self {
        let status = match exit {
            Exit::Usage => StatusCode::BAD_REQUEST,
            Exit::WrongPassword => StatusCode::FORBIDDEN,
            Exit::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { code: exit as u8, ..Self::new(status, what) }
    }

    /// Adds a hint: the next thing for the user to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let problem = Self::of_exit(failure.exit, failure.what);
        Self { hint: failure.hint, ..problem }
    }
}

/// Failures with which a command would have ended.
macro_rules! from_failures {
    ($($error:ty),*) => {
        $(impl From<$error> for Problem {
            fn from(error: $error) -> Self {
                Failure::from(error).into()
            }
        })*
    };
}
from_failures!(VaultError, KeyError, IndexError, ReadError, RestoreError);

impl From<CatalogueError> for Problem {
    fn from(error: CatalogueError) -> Self {
        VaultError::Catalogue(error).into()
    }
}

impl From<BrowseError> for Problem {
    fn from(error: BrowseError) -> Self {
        let is_missing = matches!(error, BrowseError::NotFound { .. } | BrowseError::NotAFile { .. });
        let problem = Self::from(Failure::from(error));
        if is_missing { Self { status: StatusCode::NOT_FOUND, ..problem } } else { problem }
    }
}

/// Encodes a value as JSON.
///
/// # Errors
/// Never, as long as all keys are strings.
pub fn encode(value: &impl Serialize) -> Told {
    serde_json::to_vec(value).map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// An answer with a JSON body.
pub fn json(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer that refuses the request.
pub fn refuse(problem: &Problem) -> Response<Body> {
    json(problem.status, encode(problem).unwrap_or_default())
}

/// Sets the headers that protect the browser in all answers.
pub fn protect(headers: &mut HeaderMap) {
    let policy = HeaderValue::from_static(POLICY);
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(policy);
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
