//! Rules about the source itself, as tests: layers point down, the library is silent, nothing is left half done.
//!
//! The checks are string searches on purpose. Tests are free to do anything; they are at the end of a file, after
//! `#[cfg(test)]` and `mod`, or in a file of their own.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

mod cycles;
mod features;
mod functions;

/// The modules of the library in their order; those in one line may use each other.
const LAYERS: &[&[&str]] = &[
    &["id", "limits", "path", "folder", "varint", "exit", "msgpack", "sync", "memory", "ownfile", "lru", "text"],
    &["progress"],
    &["store"],
    &["chunk"],
    &["seal"],
    &["tree"],
    &["pack"],
    &["log"],
    &["catalogue"],
    &["vault"],
    &["read"],
    &["fs"],
    &["write"],
    &["engine"],
    &["failure"],
    &["mount"],
    &["json"],
    &["service"],
    &["web"],
];

/// Most lines of a file without its tests.
const LINES_MAX: usize = 800;

/// Marker of a line that explains why something that could panic never does.
const ALWAYS: &str = "// always: ";

/// Calls that the library may not make, and the exempt files.
const BANNED: &[(&str, &[&str])] = &[
    ("println!", &[]),
    ("eprintln!", &[]),
    ("print!", &[]),
    ("eprint!", &[]),
    ("std::env", &[]),
    ("SystemTime::now", &[]),
    ("Instant::now", &[]),
    ("Timestamp::now", &[]),
    ("Zoned::now", &[]),
    ("getrandom", &["src/seal/", "src/seal.rs", "src/store/dir.rs"]),
    ("unsafe", &["src/fs/", "src/memory.rs"]),
];

/// Calls that panic, unless the line explains why they never do.
const PANICS: &[&str] = &[".unwrap()", ".expect(\"", ".unwrap_err()", ".expect_err(\"", "panic!(", "unreachable!("];

/// Marks of unfinished work. In two parts, so that this file can be checked as well.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
];

/// The module of the library that a file belongs to, or `None` for the crate's roots and the binary's modules.
fn module(path: &str) -> Option<&str> {
    let below = path.strip_prefix("src/")?;
    let module = below.split('/').next()?.trim_end_matches(".rs");
    (!matches!(module, "lib" | "main" | "cli")).then_some(module)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Whether the text has this word, not as a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word).any(|(at, _)| {
        let starts_inside = word.starts_with(char::is_alphanumeric) && is_part(text[..at].chars().next_back());
        let ends_inside = word.ends_with(char::is_alphanumeric) && is_part(text[at + word.len()..].chars().next());
        !starts_inside && !ends_inside
    })
}

/// The line without its comment (a string with `//` in it is cut as well, which only hides the rest of the line).
fn code(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

/// Whether the whole file is tests.
fn is_tests(path: &str) -> bool {
    path.starts_with("tests/")
        || path.contains("/tests/")
        || path.ends_with("/tests.rs")
        || path == "src/store/testing/conformance.rs"
}

/// Number of lines before the tests.
fn lines_without_tests(path: &str, lines: &[&str]) -> usize {
    if is_tests(path) {
        return 0;
    }
    let is_start =
        |pair: &[&str]| pair[0].starts_with("#[cfg(") && has_word(pair[0], "test") && pair[1].starts_with("mod tests");
    lines.windows(2).position(is_start).unwrap_or(lines.len())
}

/// Calls that read a file whole, however long it has become.
const WHOLE: [&str; 3] = ["fs::read(", "fs::read_to_string(", "fs::copy("];

/// All violations in a source file, each as `line: what`.
fn check_source(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    let code_lines = lines_without_tests(path, &lines);
    let is_library = path.starts_with("src/") && module(path).is_some() || path == "src/lib.rs";
    if !text.starts_with("//! ") {
        wrong.push("1: a file begins with `//!` and what it is for".to_owned());
    }
    if code_lines > LINES_MAX {
        wrong.push(format!("{code_lines}: more than {LINES_MAX} lines without the tests"));
    }
    if let Some(module) = module(path)
        && layer(module).is_none()
    {
        wrong.push(format!("1: the module `{module}` is in no layer"));
    }
    for (at, line) in lines.iter().enumerate() {
        let mut report = |what: &str| wrong.push(format!("{}: {what}", at + 1));
        for word in UNFINISHED.iter().filter(|word| has_word(line, word)) {
            report(&format!("`{word}`: nothing is left half done"));
        }
        let line_code = code(line);
        // Help is made of these, and is looked at on screens.
        if !path.starts_with("src/cli/args") {
            check_prose(line.trim_start(), &mut report);
        }
        if !path.starts_with("src/") {
            continue;
        }
        let near = &lines[at.saturating_sub(8)..=at];
        if has_word(line_code, "unsafe")
            && !near.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
        {
            report("`unsafe` without a comment that begins with `SAFETY:`");
        }
        check_layers(path, line_code, at < code_lines, &mut report);
        if at < code_lines && path != "src/ownfile.rs" && WHOLE.iter().any(|call| line_code.contains(call)) {
            report("a file is read whole without a bound: `ownfile` reads them");
        }
        if !is_library || at >= code_lines {
            continue;
        }
        for (word, exempt) in BANNED {
            if has_word(line_code, word) && !exempt.iter().any(|prefix| path.starts_with(prefix)) {
                report(&format!("`{word}` has no place here"));
            }
        }
        let says_why = [at.saturating_sub(1), at].iter().any(|&near| lines[near].contains(ALWAYS));
        for word in PANICS.iter().filter(|word| line_code.contains(**word) && !says_why) {
            report(&format!("`{word}` in library code; where it cannot happen, say why with `{ALWAYS}...`"));
        }
    }
    wrong
}

/// Finds uses of a module above the file's own, and the spellings that would hide them from this search.
fn check_layers(path: &str, line: &str, is_code: bool, report: &mut impl FnMut(&str)) {
    for hidden in ["use crate::{", "use crate::*", "super::super", "use crate as"] {
        if line.contains(hidden) {
            report(&format!("`{hidden}` hides what is used"));
        }
    }
    let Some(own) = module(path) else { return };
    let is_top = path.ends_with("/mod.rs") || path.matches('/').count() == 1;
    if is_top && is_code && line.contains("super::") {
        report("`super::` at the top of a module is the crate itself: say `crate::`");
    }
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        let used: &str = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
        if let (Some(own_layer), Some(used_layer)) = (layer(own), layer(used))
            && used != own
            && used_layer > own_layer
        {
            report(&format!("`{own}` uses `{used}`, which is a layer above it"));
        }
        if used == "cli" {
            report("the library uses the command line");
        }
    }
}

/// Dependencies in Cargo.toml without a comment on their line.
fn check_manifest(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut in_dependencies = false;
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            in_dependencies = line.trim_end().ends_with("dependencies]");
        } else if in_dependencies && line.contains('=') && !line.starts_with('#') && !line.contains(" # ") {
            wrong.push(format!("{}: a dependency without its reason beside it", at + 1));
        }
    }
    wrong
}

/// Words that are shorter or plainer otherwise: a number, "again", "anyone who".
const UNUSUAL: &[&str] = &["so many", "anew", "whoever", "Whoever"];

/// Checks a line of a comment: the first words of documentation name the thing, and the words are the usual ones.
fn check_prose(line: &str, report: &mut impl FnMut(&str)) {
    if line.starts_with("/// What ") || line.starts_with("//! What ") {
        report("documentation begins with what the thing is, not with `What`");
    }
    for word in UNUSUAL.iter().filter(|word| line.starts_with("//") && has_word(line, word)) {
        report(&format!("`{word}`: there is a more usual word"));
    }
}

/// Whether the modules in lib.rs stand in the order of the layers.
fn check_order(text: &str) -> Vec<String> {
    let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let places: Vec<_> = modules.map(|module| (layer(module), module)).collect();
    let wrong = places.windows(2).filter(|pair| pair[0].0 > pair[1].0);
    wrong.map(|pair| format!("`{}` stands before `{}`, a layer below it", pair[0].1, pair[1].1)).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All source files of the project, as paths below its root.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<_> = ["src", "tests", "benches", "fuzz/fuzz_targets"].map(|name| root().join(name)).to_vec();
    while let Some(folder) = folders.pop() {
        // Some of these folders may be missing.
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

#[test]
fn the_source_keeps_the_rules() {
    let mut wrong = Vec::new();
    let files = sources();
    assert!(files.iter().any(|path| path.ends_with("src/store/mod.rs")), "the source was found");
    for file in files {
        let path = file.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        let found = check_source(&path, &fs::read_to_string(&file).unwrap());
        wrong.extend(found.into_iter().map(|what| format!("{path}:{what}")));
    }
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    wrong.extend(check_manifest(&read("Cargo.toml")).into_iter().map(|what| format!("Cargo.toml:{what}")));
    wrong.extend(check_order(&read("src/lib.rs")).into_iter().map(|what| format!("src/lib.rs: {what}")));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Checks a file of one line after the opening; `expected` is a part of the only complaint, or empty for none.
#[track_caller]
fn check(path: &str, line: &str, expected: &str) {
    let found = check_source(path, &format!("//! Its purpose.\n{line}\n"));
    if expected.is_empty() {
        assert_eq!(found, Vec::<String>::new(), "{path}: {line}");
    } else {
        assert!(found.len() == 1 && found[0].contains(expected), "{path}: {line}: {found:?}");
    }
}

#[test]
fn a_layer_that_points_up_is_found() {
    check("src/store/dir.rs", "use crate::id::ObjectName;", "");
    check("src/store/dir.rs", "use crate::store::Kind;", "");
    check("src/path.rs", "use crate::limits::NAME_LEN_MAX;", "");
    check("src/store/dir.rs", "use crate::seal::random;", "`store` uses `seal`");
    check("src/id.rs", "use crate::engine;", "`id` uses `engine`");
    check("src/chunk.rs", "    crate::pack::PackWriter::default();", "`chunk` uses `pack`");
    check("src/vault/mod.rs", "pub use crate::fs::Walk;", "`vault` uses `fs`");
    check("src/engine/plan.rs", "use crate::cli::Options;", "command line");
    check("src/store/dir.rs", "use crate::{id, seal};", "hides");
    check("src/cli/run.rs", "use crate::{id, seal};", "hides");
    check("src/store/dir/publish.rs", "use super::super::super::seal;", "hides");
    check("src/chunk.rs", "use super::pack;", "`crate::`");
    check("src/pack/mod.rs", "use super::log;", "`crate::`");
    check("src/pack/write.rs", "use super::Footer;", "");
    check("src/helpers.rs", "", "in no layer");
    check("src/store/dir.rs", "// Not like crate::seal::random.", "");
}

#[test]
fn what_the_library_may_not_do_is_found() {
    for line in ["println!(\"x\");", "eprint!(\"x\");", "let home = std::env::var_os(\"HOME\");", "SystemTime::now()"] {
        check("src/store/dir.rs", line, "has no place here");
        check("src/cli/run.rs", line, "");
        check("src/main.rs", line, "");
        check("src/store/dir.rs", &format!("#[cfg(test)]\nmod tests {{\n    {line}\n}}"), "");
    }
    check("src/lib.rs", "let now = std::time::Instant::now();", "`Instant::now`");
    for line in ["std::fs::read(path)", "fs::read_to_string(path)", "fs::copy(from, to)"] {
        check("src/cli/run.rs", line, "without a bound");
        check("src/ownfile.rs", line, "");
        check("src/cli/run.rs", &format!("#[cfg(test)]\nmod tests {{\n    {line}\n}}"), "");
    }
    check("src/pack/mod.rs", "getrandom::fill(&mut bytes)", "`getrandom`");
    check("src/store/dir/publish.rs", "getrandom::fill(&mut bytes)", "`getrandom`");
    check("src/store/dir.rs", "getrandom::fill(&mut bytes)", "");
    check("src/seal/mod.rs", "getrandom::fill(&mut bytes)", "");
    check("src/seal/mod.rs", "// SAFETY: none.\nunsafe {}", "`unsafe` has no place here");
    check("src/fs/guard.rs", "unsafe {}", "SAFETY");
    check("src/fs/guard.rs", "// SAFETY: the handler only writes to atomics.\nunsafe {}", "");
    check("src/fs/guard.rs", "/// # Safety\n/// None needed.\nunsafe fn errno() {}", "");
    check("src/fs/guard.rs", "#![deny(unsafe_op_in_unsafe_fn)]", "");
}

#[test]
fn what_panics_is_found() {
    for line in ["let x = y.unwrap();", "let x = y.expect(\"z\");", "panic!(\"z\")", "unreachable!()"] {
        check("src/pack/mod.rs", line, "say why");
        check("src/pack/mod.rs", &format!("{line} // always: the table has 256 entries"), "");
        check("src/pack/mod.rs", &format!("// always: the table has 256 entries\n{line}"), "");
        check("src/pack/mod.rs", &format!("#[cfg(test)]\nmod tests {{\n    {line}\n}}"), "");
        check("src/pack/tests.rs", line, "");
        check("src/pack/tests/read.rs", line, "");
        check("src/cli/run.rs", line, "");
    }
    check("src/pack/mod.rs", "let x = y.unwrap_or_default();", "");
    check("src/pack/mod.rs", "#[expect(dead_code)]", "");
    check("src/fs/mod.rs", "self.expect(name, FileKind::File)?;", "");
}

#[test]
fn what_is_not_finished_or_not_explained_is_found() {
    for word in UNFINISHED {
        check("src/pack/mod.rs", &format!("// {word} later"), "half done");
        check("tests/main.rs", word, "half done");
    }
    check("src/pack/mod.rs", "// A TODOS of no meaning.", "");
    let long = format!("//! Long.\n{}", "// A line.\n".repeat(LINES_MAX));
    assert_eq!(check_source("src/pack/mod.rs", &long).len(), 1);
    assert_eq!(check_source("src/pack/mod.rs", &long.replacen("// A line.\n", "", 1)).len(), 0);
    let tested = format!("//! Long.\n#[cfg(all(test, unix))]\nmod tests {{\n{}}}\n", "// A line.\n".repeat(LINES_MAX));
    assert_eq!(check_source("src/pack/mod.rs", &tested).len(), 0);
    assert_eq!(check_source("src/pack/mod.rs", "use std::fmt;\n").len(), 1);
}

#[test]
fn prose_that_reads_like_a_translation_is_found() {
    for line in [
        "/// What is there.",
        "    //! What is there.",
        "// It is made anew.",
        "/// Reads so many bytes.",
        "// Whoever asks.",
    ] {
        check("src/pack/mod.rs", line, "`");
        check("tests/main.rs", line, "`");
        check("src/cli/args.rs", line, "");
    }
    check("src/pack/mod.rs", "// What is there was put by this run.", "");
    check("src/pack/mod.rs", "print(\"so many\");", "");
}

#[test]
fn a_dependency_without_a_reason_is_found() {
    let text = "[package]\nname = \"x\"\n[dependencies]\n# Two.\na = \"1\" # why\nb = \"1\"\n[lints.rust]\nc = \"d\"\n";
    assert_eq!(check_manifest(text), ["6: a dependency without its reason beside it"]);
    assert_eq!(check_manifest("[target.'cfg(unix)'.dependencies]\nb = \"1\"\n").len(), 1);
    assert_eq!(check_manifest("[dev-dependencies]\nb = \"1\"\n").len(), 1);
}

#[test]
fn modules_out_of_order_are_found() {
    assert_eq!(check_order("pub mod path;\npub mod id;\npub mod store;\npub mod tree;\n"), Vec::<String>::new());
    assert_eq!(check_order("pub mod id;\npub mod tree;\npub mod store;\n").len(), 1);
}
