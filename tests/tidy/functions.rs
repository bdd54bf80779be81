//! A rule about the source itself: functions fit on a screen.

use std::fs;

use super::{code, is_tests, lines_without_tests, root, sources};

/// Most lines of a function, from its name to its last brace.
const LINES_MAX: usize = 70;

/// Functions that are one long table, in which each line stands for itself: the file, the name and the reason.
const TABLES: &[(&str, &str, &str)] = &[
    ("src/failure.rs", "from", "an arm for each kind of error"),
    ("src/vault/finding.rs", "text", "an arm for each kind of finding"),
    ("src/engine/rewrite/thin.rs", "snapshot", "a line for each field of a snapshot"),
    ("src/cli/words.rs", "explain", "an arm for each word that is not understood"),
];

/// Functions that are longer and may only become shorter: the file, the name and the lines.
const LONG: &[(&str, &str, usize)] = &[];

/// Each function's name and the number of its lines.
fn functions(lines: &[&str]) -> Vec<(String, usize)> {
    let indent_of = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (at, first) in lines.iter().enumerate() {
        let Some(name) = name_of(code(first).trim_start()) else { continue };
        let indent = indent_of(first);
        let goes_on = |line: &&&str| {
            let text = line.trim();
            let is_end = text.starts_with('}') || text.starts_with(')') && text.ends_with(';');
            text.is_empty() || indent_of(line) > indent || indent_of(line) == indent && !is_end
        };
        let is_one_line = first.trim_end().ends_with(['}', ';']);
        let len = if is_one_line { 1 } else { lines[at + 1..].iter().take_while(goes_on).count() + 2 };
        found.push((name, len));
    }
    found
}

/// The name of the function that begins in this line.
fn name_of(line: &str) -> Option<String> {
    let (before, after) = line.split_once("fn ")?;
    let is_start = before.split_whitespace().all(|word| {
        ["pub", "const", "unsafe", "async", "extern"].contains(&word)
            || word.starts_with("pub(")
            || word.starts_with("\"C\"")
    });
    let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (is_start && !name.is_empty()).then_some(name)
}

/// The functions of a source file that are too long, each with its lines, and the reason why that is wrong.
fn check_functions(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut wrong = Vec::new();
    for (name, len) in functions(&lines[..lines_without_tests(path, &lines)]) {
        let is_it = |file: &str, other: &str| file == path && other == name;
        if len <= LINES_MAX || TABLES.iter().any(|(file, other, _)| is_it(file, other)) {
            continue;
        }
        let known = LONG.iter().filter(|(file, other, _)| is_it(file, other)).map(|(.., lines)| *lines).max();
        if known.is_none_or(|known| len > known) {
            let most = known.unwrap_or(LINES_MAX);
            wrong.push(format!("`{name}` has {len} lines, more than {most}"));
        }
    }
    wrong
}

#[test]
fn functions_fit_on_a_screen() {
    let mut wrong = Vec::new();
    let mut long = Vec::new();
    for file in sources() {
        let path = file.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        if !path.starts_with("src/") || is_tests(&path) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        wrong.extend(check_functions(&path, &text).into_iter().map(|what| format!("{path}: {what}")));
        let lines: Vec<&str> = text.lines().collect();
        let found = functions(&lines[..lines_without_tests(&path, &lines)]).into_iter();
        long.extend(found.filter(|(_, len)| *len > LINES_MAX).map(|(name, _)| (path.clone(), name)));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let listed =
        LONG.iter().map(|(file, name, _)| (file, name)).chain(TABLES.iter().map(|(file, name, _)| (file, name)));
    for (file, name) in listed {
        let is_it = |(path, other): &(String, String)| path == file && other == name;
        assert!(long.iter().any(is_it), "{file}: `{name}` is short now, and need not be listed");
    }
}

#[test]
fn a_long_function_is_found() {
    let with = |body: usize| {
        format!(
            "impl X {{\n    /// Its purpose.\n    pub(crate) const fn work(\n        a: u8,\n    ) -> u8 {{\n{}    }}\n}}\n",
            "        call();\n".repeat(body)
        )
    };
    assert_eq!(check_functions("src/pack/mod.rs", &with(LINES_MAX - 4)), Vec::<String>::new());
    assert_eq!(check_functions("src/pack/mod.rs", &with(LINES_MAX - 3)), ["`work` has 71 lines, more than 70"]);
    let tested = format!("//! Long.\n#[cfg(test)]\nmod tests {{\n{}}}\n", with(LINES_MAX));
    assert_eq!(check_functions("src/pack/mod.rs", &tested), Vec::<String>::new());
    let short = format!(
        "trait Y {{\n    fn work(&self);\n{}    fn other(&self) {{}}\n}}\n",
        "    // A line.\n".repeat(LINES_MAX)
    );
    assert_eq!(check_functions("src/pack/mod.rs", &short), Vec::<String>::new());
}
