//! The page itself: a few files, which are part of the program.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};

/// A file of the page.
#[derive(Debug)]
pub struct Asset {
    /// Its path in the address.
    pub path: &'static str,
    /// Its type.
    pub kind: &'static str,
    /// Its bytes.
    pub body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";

macro_rules! asset {
    ($path:literal, $kind:expr, $file:literal) => {
        Asset { path: $path, kind: $kind, body: include_str!(concat!("assets/", $file)) }
    };
}

/// All of them.
pub const ALL: &[Asset] = &[
    asset!("/", HTML, "index.html"),
    asset!("/page.css", CSS, "page.css"),
    asset!("/icon.svg", SVG, "icon.svg"),
    asset!("/words.en.json", JSON, "words.en.json"),
    asset!("/page.js", SCRIPT, "page.js"),
    asset!("/base.js", SCRIPT, "base.js"),
    asset!("/overview.js", SCRIPT, "overview.js"),
    asset!("/files.js", SCRIPT, "files.js"),
    asset!("/restore.js", SCRIPT, "restore.js"),
    asset!("/activity.js", SCRIPT, "activity.js"),
    asset!("/space.js", SCRIPT, "space.js"),
    asset!("/more.js", SCRIPT, "more.js"),
];

/// The answer with a file; a browser that has it already is told so.
pub fn send(asset: &Asset, headers: &HeaderMap) -> Response<Body> {
    let tag = format!("\"{}\"", &blake3::hash(asset.body.as_bytes()).to_hex()[..16]);
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = Response::new(if is_known { Body::empty() } else { Body::from(asset.body) });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page has to be there at once, also over a slow tunnel.
    const SIZE_MAX: usize = 120 << 10;

    #[test]
    fn the_page_is_small_and_asks_for_nothing_from_elsewhere() {
        let size: usize = ALL.iter().map(|asset| asset.body.len()).sum();
        assert!(size <= SIZE_MAX, "{size} bytes");
        for asset in ALL {
            for start in
                ["http://", "https://", "url(//", "@import", "eval(", "innerHTML", "insertAdjacentHTML", " style="]
            {
                let body = asset.body.replace("http://www.w3.org/2000/svg", "");
                assert!(!body.contains(start), "{}: {start}", asset.path);
            }
        }
    }

    #[test]
    fn all_words_are_there_and_all_are_said() {
        let words = ALL.iter().find(|asset| asset.path == "/words.en.json").unwrap().body;
        let words: std::collections::BTreeMap<String, String> = serde_json::from_str(words).unwrap();
        let scripts: String = ALL.iter().filter(|asset| asset.kind == SCRIPT).map(|asset| asset.body).collect();
        let behind = |start: &str| {
            let parts: Vec<String> = scripts.split(start).skip(1).map(str::to_owned).collect();
            parts
        };
        let literal = behind("say('").into_iter().map(|rest| rest.split('\'').next().unwrap().to_owned());
        for key in literal {
            assert!(words.contains_key(&key) || words.contains_key(&format!("{key}.other")), "{key}");
        }
        let starts: Vec<String> =
            behind("say(`").into_iter().map(|rest| rest.split(['`', '$']).next().unwrap().to_owned()).collect();
        for key in words.keys() {
            let bare = key.trim_end_matches(".one").trim_end_matches(".other");
            let is_said = scripts.contains(&format!("'{bare}'")) || starts.iter().any(|start| bare.starts_with(start));
            assert!(is_said, "nobody says {key}");
        }
    }

    #[test]
    fn every_file_of_the_page_is_sent() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/assets");
        let mut there: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name()).collect();
        let mut sent: Vec<std::ffi::OsString> = ALL
            .iter()
            .map(|asset| if asset.path == "/" { "index.html".into() } else { asset.path[1..].into() })
            .collect();
        there.sort();
        sent.sort();
        assert_eq!(there, sent);
    }
}
