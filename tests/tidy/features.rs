//! Rules about features: each optional dependency is used where it belongs, and only where a feature brings it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{code, has_word, is_tests, lines_without_tests, root, sources};

/// The optional dependencies, and the places in the source that use them.
const HOMES: &[(&str, &[&str])] = &[
    ("async-trait", &["src/store/remote/"]),
    ("axum", &["src/web/"]),
    ("base64", &["src/store/remote/"]),
    ("clap", &["src/cli/"]),
    ("clap_complete", &["src/cli/"]),
    ("clap_mangen", &["src/cli/"]),
    ("csv", &["src/service/"]),
    ("ctrlc", &["src/cli/interrupt.rs"]),
    ("dav-server", &["src/web/dav.rs"]),
    ("fuser", &["src/mount/fuse.rs"]),
    ("futures-util", &["src/store/remote/", "src/web/"]),
    ("http", &["src/store/remote/"]),
    ("http-body", &["src/store/remote/"]),
    ("http-body-util", &["src/store/remote/"]),
    ("indicatif", &["src/cli/progress.rs"]),
    ("jiff", &["src/cli/", "src/json.rs", "src/service/"]),
    ("md-5", &["src/store/remote/"]),
    ("object_store", &["src/store/remote/"]),
    ("reqwest", &["src/store/remote/"]),
    ("rpassword", &["src/cli/password.rs"]),
    ("russh-sftp", &["src/store/remote/"]),
    ("rustls", &["src/store/remote/"]),
    ("serde_json", &["src/cli/", "src/json.rs", "src/service/", "src/store/remote/", "src/web/"]),
    ("tokio", &["src/store/remote/", "src/web/"]),
    ("toml", &["src/service/config/"]),
    ("ureq", &["src/service/run/notice.rs"]),
];

/// The features that places in the source are behind.
const BEHIND: &[(&str, &str)] = &[
    ("src/cli/", "cli"),
    ("src/json.rs", "service"),
    ("src/mount/fuse.rs", "mount"),
    ("src/service/", "service"),
    ("src/store/remote/", "remote"),
    ("src/web/", "ui"),
];

/// The features of a manifest, each with what it brings.
fn features(manifest: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let section = manifest.split("\n[features]\n").nth(1).unwrap_or("").split("\n[").next().unwrap_or("");
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut own = "";
    for line in section.lines().map(|line| line.split(" #").next().unwrap_or("")) {
        let brought = match line.split_once(" = ") {
            Some((name, brought)) => {
                own = name;
                brought
            }
            None => line,
        };
        let brought = brought.split('"').skip(1).step_by(2);
        all.entry(own).or_default().extend(brought);
    }
    all.remove("");
    all
}

/// All that a feature brings, also by the features that it implies.
fn brought<'a>(features: &BTreeMap<&'a str, BTreeSet<&'a str>>, feature: &'a str) -> BTreeSet<&'a str> {
    let mut all = BTreeSet::new();
    let mut next = vec![feature];
    while let Some(feature) = next.pop() {
        for name in features.get(feature).into_iter().flatten() {
            if all.insert(*name) {
                next.push(name);
            }
        }
    }
    all
}

/// The optional dependencies of a manifest.
fn optional(manifest: &str) -> BTreeSet<&str> {
    let lines = manifest.lines().filter(|line| line.contains("optional = true"));
    lines.filter_map(|line| Some(line.split_once(" = ")?.0)).collect()
}

/// All that is wrong in a manifest, by the table of places.
fn check_features(manifest: &str, homes: &[(&str, &[&str])]) -> Vec<String> {
    let mut wrong = Vec::new();
    let features = features(manifest);
    let optional = optional(manifest);
    for (dependency, places) in homes {
        if !optional.contains(dependency) {
            wrong.push(format!("`{dependency}` is not optional"));
        }
        for place in *places {
            let feature =
                BEHIND.iter().find(|(behind, _)| place.starts_with(behind)).map_or("", |(_, feature)| feature);
            if !brought(&features, feature).contains(format!("dep:{dependency}").as_str()) {
                wrong.push(format!("{place} uses `{dependency}`, which its feature `{feature}` does not bring"));
            }
        }
    }
    for dependency in optional.iter().filter(|dependency| !homes.iter().any(|(known, _)| known == *dependency)) {
        wrong.push(format!("`{dependency}` is optional, and no place is allowed to use it"));
    }
    let default = brought(&features, "default");
    for feature in features.keys().filter(|feature| !matches!(**feature, "default" | "testing")) {
        if !default.contains(feature) {
            wrong.push(format!("`{feature}` is not in `default`"));
        }
    }
    wrong
}

/// The optional dependencies that a source file uses out of their place.
fn check_uses(path: &str, text: &str) -> Vec<String> {
    if is_tests(path) || !path.starts_with("src/") {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    let code = lines[..lines_without_tests(path, &lines)].iter().map(|line| code(line));
    let mut wrong = Vec::new();
    for (at, line) in code.enumerate() {
        for (dependency, places) in HOMES {
            let name = match *dependency {
                "md-5" => "md5".to_owned(),
                name => name.replace('-', "_"),
            };
            let is_used = line.match_indices(&format!("{name}::")).any(|(start, _)| {
                let before = &line[..start];
                // Not the end of a longer path, unless that begins there.
                !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
                    && (!before.ends_with("::") || before.ends_with(" ::"))
            }) || has_word(line, &format!("use {name};"));
            if is_used && !places.iter().any(|place| path.starts_with(place)) {
                wrong.push(format!("{path}:{}: `{dependency}` has no place here", at + 1));
            }
        }
    }
    wrong
}

/// The modules that lib.rs has not put behind the feature that brings what they use.
fn check_top(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut wrong = Vec::new();
    for (place, feature) in BEHIND {
        let name = place["src/".len()..].trim_end_matches('/').trim_end_matches(".rs");
        let Some(at) = lines.iter().position(|line| line.ends_with(&format!("mod {name};"))) else { continue };
        let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        if !attributes.into_iter().any(|line| *line == format!("#[cfg(feature = \"{feature}\")]")) {
            wrong.push(format!("`{name}` is not behind the feature `{feature}`"));
        }
    }
    wrong
}

#[test]
fn optional_dependencies_are_used_where_their_features_are() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let mut wrong = check_features(&read("Cargo.toml"), HOMES);
    wrong.extend(check_top(&read("src/lib.rs")));
    for file in sources() {
        let path = file.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        wrong.extend(check_uses(&path, &fs::read_to_string(&file).unwrap()));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_dependency_out_of_its_place_is_found() {
    for line in
        ["use clap::Parser;", "#[derive(clap::Args)]", "let x = ::clap::crate_name!();", "use jiff::{Timestamp};"]
    {
        assert_eq!(check_uses("src/engine/check.rs", line).len(), 1, "{line}");
        assert_eq!(check_uses("src/cli/args.rs", line), Vec::<String>::new(), "{line}");
        assert_eq!(check_uses("tests/tidy.rs", line), Vec::<String>::new(), "{line}");
        let tests = format!("#[cfg(test)]\nmod tests {{\n{line}\n}}");
        assert_eq!(check_uses("src/engine/check.rs", &tests), Vec::<String>::new(), "{line}");
    }
    for line in ["// like clap::Parser", "use crate::store::remote::http::send;", "let x = own_clap::x();"] {
        assert_eq!(check_uses("src/engine/check.rs", line), Vec::<String>::new(), "{line}");
    }
    assert_eq!(check_uses("src/cli/context.rs", "use rpassword::read;").len(), 1);
}

#[test]
fn features_that_do_not_fit_the_source_are_found() {
    let manifest = "[package]\n\n[features]\ndefault = [\"cli\", \"ui\"]\ncli = [ # why\n    \"dep:clap\",\n    \"service\",\n]\n\
                    service = [\"dep:jiff\"]\nui = [\"service\"]\ntesting = []\n\n[dependencies]\n\
                    clap = { version = \"4\", optional = true }\njiff = { version = \"0.2\", optional = true }\n";
    let homes: &[(&str, &[&str])] = &[("clap", &["src/cli/"]), ("jiff", &["src/cli/", "src/service/", "src/web/"])];
    assert_eq!(check_features(manifest, homes), Vec::<String>::new());
    for (from, to, expected) in [
        ("\"dep:clap\",\n", "", "src/cli/ uses `clap`, which its feature `cli` does not bring"),
        ("clap = { version = \"4\", optional = true }", "clap = \"4\"", "`clap` is not optional"),
        ("[\"cli\", \"ui\"]", "[\"cli\"]", "`ui` is not in `default`"),
        ("jiff = {", "ureq = { version = \"3\", optional = true }\njiff = {", "`ureq` is optional, and no place"),
        ("ui = [\"service\"]", "ui = []", "src/web/ uses `jiff`, which its feature `ui` does not bring"),
    ] {
        let found = check_features(&manifest.replacen(from, to, 1), homes);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    }
    assert_eq!(check_top("mod id;\n#[cfg(feature = \"ui\")]\n#[doc(hidden)]\npub mod web;\n"), Vec::<String>::new());
    assert_eq!(check_top("#[cfg(feature = \"ui\")]\nmod id;\npub mod web;\n").len(), 1);
}
