//! The rules for who may make requests. Other pages in the same browser may not: their requests come with a foreign
//! `Origin` or `Sec-Fetch-Site`, without the cookie, or under a foreign name of this host (DNS rebinding), and no
//! form can send JSON. Other users of the machine may not: they have neither token nor cookie, and where the system
//! tells whose a connection is, it is not even accepted (`listen`).

use axum::http::header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};

use crate::web::answer::Problem;

/// The path under which the program's interface begins.
pub const API: &str = "/api/v1/";
/// The path at which a token is exchanged for a cookie.
pub const ENTER: &str = "/api/v1/session";

/// The host names under which the page answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// This computer's names, with this port.
    Port(u16),
    /// This computer's names, with any port: that of a tunnel to a socket.
    Tunnel,
}

const OWN: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

impl Names {
    /// Whether a request with this `Host` is for the page.
    pub fn have(&self, host: &str) -> bool {
        OWN.iter().filter_map(|own| host.strip_prefix(own)).any(|rest| match (self, rest.strip_prefix(':')) {
            (Self::Port(port), Some(given)) => given == port.to_string(),
            (Self::Port(80) | Self::Tunnel, None) => rest.is_empty(),
            (Self::Port(_), None) => false,
            (Self::Tunnel, Some(given)) => {
                given.parse::<u16>().is_ok() && given.bytes().all(|byte| byte.is_ascii_digit())
            }
        })
    }

    /// The name of the cookie. It includes the port, because browsers share cookies between ports.
    pub fn cookie(&self) -> String {
        match self {
            Self::Port(port) => format!("vault_{port}"),
            Self::Tunnel => "vault_tunnel".to_owned(),
        }
    }
}

/// The single value of a header; `Err` if there are several, or it is not text.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// The values of a cookie of this name.
pub fn cookies<'h>(headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(move |pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

fn forbidden(what: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, what)
}

/// Refuses a request for another host name, or from another page.
///
/// # Errors
/// The reason for the refusal.
pub fn judge_origin(names: &Names, headers: &HeaderMap) -> Result<(), Problem> {
    let host = one(headers, HOST.as_str()).ok().flatten().filter(|host| names.have(host));
    let Some(host) = host else {
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "the page is not to be had under this name"));
    };
    match one(headers, ORIGIN.as_str()) {
        Ok(None) => Ok(()),
        Ok(Some(origin)) if origin.strip_prefix("http://") == Some(host) => Ok(()),
        _ => Err(forbidden("the request comes from another page")),
    }
}

/// Refuses a request that a browser makes for another page. Requests that only read may come from the address bar.
///
/// # Errors
/// The reason for the refusal.
pub fn judge_site(headers: &HeaderMap, is_read: bool) -> Result<(), Problem> {
    match one(headers, "sec-fetch-site") {
        Ok(None | Some("same-origin")) => Ok(()),
        Ok(Some("none")) if is_read => Ok(()),
        _ => Err(forbidden("the request comes from another page")),
    }
}

/// Decides whether to answer a request. `holds` tells whether a cookie is valid.
///
/// # Errors
/// The reason for the refusal.
pub fn judge(
    names: &Names,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    holds: &dyn Fn(&str) -> bool,
) -> Result<(), Problem> {
    judge_origin(names, headers)?;
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    if !path.starts_with(API) {
        // The page itself holds no secret, and other sites may link to it.
        return Ok(());
    }
    judge_site(headers, is_read)?;
    // No other method leads anywhere.
    if *method == Method::POST {
        let kind = one(headers, CONTENT_TYPE.as_str()).ok().flatten().unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some("application/json") {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the request is no JSON"));
        }
    }
    let is_entering = path == ENTER && *method == Method::POST;
    if !is_entering && !cookies(headers, &names.cookie()).any(holds) {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "this browser is not known here")
            .hint("Open the address that vault ui printed, or press Enter there for a new one."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn status(names: &Names, method: &Method, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let judged = judge(names, method, path, &map, &|cookie| cookie == "good");
        judged.map_or_else(|problem| problem.status.as_u16(), |()| 200)
    }

    const SELF: (&str, &str) = ("host", "127.0.0.1:8080");
    const COOKIE_GOOD: (&str, &str) = ("cookie", "a=b; vault_8080=good");

    fn get(path: &str, headers: &[(&str, &str)]) -> u16 {
        status(&Names::Port(8080), &Method::GET, path, headers)
    }

    #[test]
    fn only_own_names_are_answered() {
        for host in ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"] {
            assert_eq!(get("/", &[("host", host)]), 200, "{host}");
        }
        for host in [
            "127.0.0.1",
            "localhost",
            "127.0.0.1:80",
            "127.0.0.1:08080",
            "127.0.0.1:8080.evil.example",
            "evil.example:8080",
            "localhost.evil.example:8080",
            "evil.localhost:8080",
            "localhost:8080@evil.example",
            "127.0.0.2:8080",
            "0.0.0.0:8080",
            "::1:8080",
            "",
        ] {
            assert_eq!(get("/", &[("host", host)]), 421, "{host:?}");
        }
        assert_eq!(get("/", &[]), 421);
        assert_eq!(get("/", &[SELF, SELF]), 421, "two of them");
        let tunnel = |host| status(&Names::Tunnel, &Method::GET, "/", &[("host", host)]);
        assert_eq!((tunnel("localhost:8484"), tunnel("localhost"), tunnel("evil.example:8484")), (200, 200, 421));
        assert_eq!((tunnel("localhost:x"), tunnel("localhostx"), tunnel("localhost:+80")), (421, 421, 421));
    }

    #[test]
    fn other_pages_are_refused() {
        let ask = |more: &[(&str, &str)]| get("/api/v1/overview", &[&[SELF, COOKIE_GOOD], more].concat());
        assert_eq!(ask(&[]), 200);
        assert_eq!(ask(&[("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")]), 200);
        assert_eq!(ask(&[("sec-fetch-site", "none")]), 200);
        for origin in
            ["http://evil.example", "null", "https://127.0.0.1:8080", "http://localhost:8080", "http://127.0.0.1:9"]
        {
            assert_eq!(ask(&[("origin", origin)]), 403, "{origin}");
        }
        for site in ["cross-site", "same-site", "", "NONE"] {
            assert_eq!(ask(&[("sec-fetch-site", site)]), 403, "{site}");
        }
        assert_eq!(ask(&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]), 403);
        // Other sites may link to the page itself.
        assert_eq!(get("/", &[SELF, ("sec-fetch-site", "cross-site")]), 200);
        assert_eq!(get("/", &[SELF, ("origin", "http://evil.example")]), 403);
    }

    #[test]
    fn nothing_is_told_without_a_cookie() {
        assert_eq!(get("/api/v1/overview", &[SELF]), 401);
        for cookie in ["vault_8080=bad", "vault_80801=good", "vault_808=good", "vault_8080good", "xvault_8080=good"] {
            assert_eq!(get("/api/v1/overview", &[SELF, ("cookie", cookie)]), 401, "{cookie}");
        }
        let post = |path: &str, headers: &[(&str, &str)]| status(&Names::Port(8080), &Method::POST, path, headers);
        let kind = ("content-type", "application/json");
        assert_eq!(post(ENTER, &[SELF, kind]), 200);
        assert_eq!(post("/api/v1/jobs", &[SELF, kind]), 401);
        assert_eq!(post("/api/v1/jobs", &[SELF, kind, COOKIE_GOOD]), 200);
        assert_eq!(
            post("/api/v1/jobs", &[SELF, COOKIE_GOOD, ("content-type", "application/json; charset=utf-8")]),
            200
        );
        assert_eq!(post("/api/v1/jobs", &[SELF, kind, COOKIE_GOOD, ("sec-fetch-site", "none")]), 403);
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", ""]
        {
            assert_eq!(post("/api/v1/jobs", &[SELF, COOKIE_GOOD, ("content-type", kind)]), 415, "{kind}");
        }
        assert_eq!(status(&Names::Port(8080), &Method::GET, ENTER, &[SELF]), 401);
    }
}
