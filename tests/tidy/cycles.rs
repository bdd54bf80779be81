//! A rule about the source itself: modules beside each other do not use each other in a circle.
//!
//! A module that is a folder counts as one towards the modules beside it, and its own are looked at in turn. A parent
//! and the modules in it may name each other. A name that a parent only passes on leads to the module that it is from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{code, is_tests, lines_without_tests, root, sources};

/// A module or an item as the names on the way to it from the crate's root.
type Path = Vec<String>;

/// The modules of the source, by their names.
#[derive(Default)]
struct Modules {
    /// The paths that each module's code mentions.
    mentioned: BTreeMap<Path, BTreeSet<Path>>,
    /// Imports of each module, by the name that they have there.
    imported: BTreeMap<Path, BTreeMap<String, Path>>,
}

/// The module that a source file is, or `None` for the program's root and for tests.
fn module_of(file: &str) -> Option<Path> {
    let below = file.strip_prefix("src/")?.strip_suffix(".rs")?;
    if is_tests(file) || below == "main" {
        return None;
    }
    let mut names: Path = below.split('/').map(str::to_owned).collect();
    names.pop_if(|last| *last == "mod" || *last == "lib");
    Some(names)
}

/// The code of a file without comments and tests.
fn code_of(file: &str, text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let code: Vec<&str> = lines[..lines_without_tests(file, &lines)].iter().map(|line| code(line)).collect();
    code.join("\n")
}

/// Takes a tree of imports such as `a::{b, c::d as e}` apart, into paths and the names that they get.
fn expand(before: &[String], tree: &str, all: &mut Vec<(Path, String)>) {
    if let Some((prefix, group)) = tree.split_once('{') {
        let before: Path = before.iter().cloned().chain(names(prefix)).collect();
        let group = group.strip_suffix('}').unwrap_or(group);
        let mut depth = 0;
        let parts = group.split(|c| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            c == ',' && depth == 0
        });
        for part in parts.filter(|part| !part.trim().is_empty()) {
            expand(&before, part.trim(), all);
        }
        return;
    }
    let (path, name) = tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name.trim())));
    let mut path: Path = before.iter().cloned().chain(names(path)).collect();
    path.pop_if(|last| last == "self" && !before.is_empty());
    let name = name.map_or_else(|| path.last().cloned().unwrap_or_default(), str::to_owned);
    all.push((path, name));
}

/// The names in a path.
fn names(path: &str) -> impl Iterator<Item = String> {
    path.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned)
}

impl Modules {
    /// Reads the sources, given as their files' paths and their texts.
    fn read<'a>(files: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        let mut modules = Self::default();
        for (file, _) in files.clone() {
            if let Some(module) = module_of(file) {
                modules.mentioned.entry(module).or_default();
            }
        }
        for (file, text) in files {
            if let Some(module) = module_of(file) {
                modules.read_file(&module, &code_of(file, text));
            }
        }
        modules
    }

    fn read_file(&mut self, module: &Path, code: &str) {
        let mut imports = Vec::new();
        let mut rest = String::new();
        let mut after = code;
        while let Some(at) = after.find("use ") {
            let (before, from) = after.split_at(at);
            rest.push_str(before);
            // Not within a text.
            let line = before.rsplit('\n').next().unwrap_or("").trim();
            let is_import = line.is_empty() || line.ends_with(';') || line.starts_with("pub");
            let end = from.find(';').filter(|_| is_import).unwrap_or("use ".len());
            if end > "use ".len() {
                expand(&[], &from["use ".len()..end].split_whitespace().collect::<Vec<_>>().join(" "), &mut imports);
            }
            after = &from[end..];
        }
        rest.push_str(after);
        for start in ["crate::", "super::", "self::"] {
            for (at, _) in rest.match_indices(start) {
                let is_inside = rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
                let path = rest[at..].split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next();
                if let Some(path) = path.filter(|_| !is_inside) {
                    imports.push((names(path).collect(), String::new()));
                }
            }
        }
        for (path, name) in imports {
            let Some(path) = self.absolute(module, &path) else { continue };
            self.mentioned.entry(module.clone()).or_default().insert(path.clone());
            if !name.is_empty() {
                self.imported.entry(module.clone()).or_default().insert(name, path);
            }
        }
    }

    /// The path from the crate's root; `None` for one of another crate.
    fn absolute(&self, module: &Path, path: &[String]) -> Option<Path> {
        let mut base = module.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            child => {
                base.push(child.to_owned());
                if !self.mentioned.contains_key(&base) {
                    return None;
                }
                rest = &path[1..];
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The module that what is at the path is from.
    fn origin(&self, path: &Path) -> Path {
        let mut path = path.clone();
        // A name is passed on a few times at most; a circle of imports is none of real ones.
        for _ in 0..8 {
            let known = (0..=path.len()).rev().find(|&len| self.mentioned.contains_key(&path[..len])).unwrap_or(0);
            let next = path.get(known).and_then(|name| self.imported.get(&path[..known])?.get(name));
            let Some(next) = next.filter(|next| **next != path[..=known]) else {
                path.truncate(known);
                break;
            };
            path = next.iter().chain(&path[known + 1..]).cloned().collect();
        }
        path
    }

    /// For each parent, who uses whom among the modules in it, and a mention that shows it.
    fn arrows(&self) -> BTreeMap<Path, BTreeMap<(String, String), String>> {
        let mut arrows: BTreeMap<Path, BTreeMap<_, _>> = BTreeMap::new();
        for (module, mentioned) in &self.mentioned {
            for path in mentioned {
                let used = self.origin(path);
                let shared = module.iter().zip(&used).take_while(|(a, b)| a == b).count();
                if let (Some(user), Some(used)) = (module.get(shared), used.get(shared)) {
                    let example = format!("{} names {}", module.join("::"), path.join("::"));
                    arrows
                        .entry(module[..shared].to_vec())
                        .or_default()
                        .entry((user.clone(), used.clone()))
                        .or_insert(example);
                }
            }
        }
        arrows
    }
}

/// The circles among the modules, each in words.
fn circles<'a>(files: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Vec<String> {
    let mut found = Vec::new();
    for (parent, arrows) in Modules::read(files).arrows() {
        let mut reached: BTreeSet<(&str, &str)> = arrows.keys().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        loop {
            let further = reached.iter().flat_map(|(a, b)| {
                let after = arrows.keys().filter(move |(from, _)| from == b);
                after.map(move |(_, to)| (*a, to.as_str()))
            });
            let more: BTreeSet<_> = further.chain(reached.iter().copied()).collect();
            if more.len() == reached.len() {
                break;
            }
            reached = more;
        }
        let mut told = BTreeSet::new();
        for &(module, _) in reached.iter().filter(|(a, b)| a == b) {
            let around: BTreeSet<&str> =
                reached.iter().filter(|(a, b)| *a == module && reached.contains(&(b, a))).map(|(_, b)| *b).collect();
            if !told.insert(around.clone()) {
                continue;
            }
            let inside = arrows.iter().filter(|((a, b), _)| around.contains(a.as_str()) && around.contains(b.as_str()));
            let examples: Vec<_> = inside.map(|(_, example)| format!("    {example}")).collect();
            let parent = if parent.is_empty() { "crate".to_owned() } else { parent.join("::") };
            let around: Vec<_> = around.into_iter().collect();
            found.push(format!("{parent}: {} use each other:\n{}", around.join(", "), examples.join("\n")));
        }
    }
    found
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let read = |path: std::path::PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        (name, fs::read_to_string(path).unwrap())
    };
    let files: Vec<(String, String)> = sources().into_iter().map(read).collect();
    let files = || files.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    assert!(Modules::read(files()).arrows()[&vec!["engine".to_owned()]].len() > 20, "the source is understood");
    let found = circles(files());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// Checks made-up files; `expected` are the beginnings of what is found.
#[track_caller]
fn check(files: &[(&str, &str)], expected: &[&str]) {
    let found = circles(files.iter().copied());
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let (a, b) = ("src/x/a.rs", "src/x/b.rs");
    check(&[(a, "use crate::x::b::B;"), (b, "use std::fmt;")], &[]);
    for back in [
        "use crate::x::a::A;",
        "use crate::x::{a::A, c};",
        "use crate::x::{\n    c::{self, C},\n    a as other,\n};",
        "use super::a::A;",
        "use super::a;",
        "pub use crate::x::a::A;",
        "fn f() -> crate::x::a::A {}",
        "fn f() { super::a::A::new() }",
        "use crate::x::A;",
        "use super::A;",
        "fn f() { crate::x::A::new() }",
    ] {
        let top = ("src/x/mod.rs", "mod a;\nmod b;\nmod c;\npub use crate::x::a::A;");
        let c = ("src/x/c.rs", "");
        check(&[top, (a, "use crate::x::b::B;"), (b, back), c], &["x: a, b use each other"]);
        check(&[top, (a, "use crate::x::c::C;"), (b, back), c], &[]);
    }
    check(&[(a, "use crate::x::b;"), (b, "// use crate::x::a;")], &[]);
    check(&[(a, "use crate::x::b;"), (b, "#[cfg(test)]\nmod tests {\n    use crate::x::a;\n}")], &[]);
    check(&[("src/x/tests.rs", "use crate::x::b;"), (b, "use crate::x::tests;")], &[]);
}

#[test]
fn circles_of_three_of_folders_and_of_the_top_are_found() {
    let (a, b, c) = ("src/a.rs", "src/b/mod.rs", "src/c/in.rs");
    check(&[(a, "use crate::b::X;"), (b, "use crate::c::in::Y;"), (c, "use crate::a::Z;")], &["crate: a, b, c use"]);
    check(&[(a, "use crate::b::X;"), (b, "use crate::c::in::Y;"), (c, "")], &[]);
    // A folder counts as one towards those beside it, and its own are looked at apart.
    let two = [("src/x/a/one.rs", "use crate::x::b;"), ("src/x/a/two.rs", ""), ("src/x/b.rs", "use crate::x::a::two;")];
    check(&two, &["x: a, b use"]);
    let inner =
        [("src/x/a/one.rs", "use crate::x::a::two;"), ("src/x/a/two.rs", "use super::one;"), ("src/x/b.rs", "")];
    check(&inner, &["x::a: one, two use"]);
    // A parent and a child are one room and a part of it.
    check(&[("src/x/mod.rs", "mod a;\nuse crate::x::a::A;\npub struct X;"), ("src/x/a.rs", "use crate::x::X;")], &[]);
    // Two circles are two.
    let four = [
        ("src/x/a.rs", "use super::b;"),
        ("src/x/b.rs", "use super::a;"),
        ("src/x/c.rs", "use super::d; use super::a;"),
        ("src/x/d.rs", "use super::c;"),
    ];
    check(&four, &["x: a, b use", "x: c, d use"]);
}
