//! The rules for leaving files out of a snapshot: patterns, cache tags, mount points, large files.

use std::path::Path;
use std::sync::Arc;

use serde_bytes::ByteBuf;

use crate::engine::patterns::gitignore::{ANY_CASE, Decision, Patterns, flaw};
use crate::engine::patterns::glob::lower;
use crate::path::{from_path, slashed};
use crate::text;
use crate::tree::RuleOptions;

/// The rules for leaving out.
#[derive(Debug, Clone, Default)]
pub struct ExcludeOptions {
    /// gitignore patterns, matched against the path below each root. A pattern that begins with a root's absolute path is taken relative to
    /// it. The prefix `:(icase)` makes a pattern ignore case.
    pub patterns: Vec<String>,
    /// Honour a file of gitignore patterns with this name in any folder (`.vaultignore`).
    pub ignore_file: Option<Vec<u8>>,
    /// Leave out the content of folders with a valid CACHEDIR.TAG.
    pub caches: bool,
    /// Leave out the content of folders that contain a file of one of these names.
    pub if_present: Vec<Vec<u8>>,
    /// Leave out regular files larger than this, in bytes.
    pub larger_than: Option<u64>,
    /// Do not descend into other file systems.
    pub one_file_system: bool,
    /// Leave out files with the nodump flag.
    pub nodump: bool,
}

impl ExcludeOptions {
    /// The rules in the form in which a snapshot records them.
    pub fn to_rules(&self) -> RuleOptions {
        let Self { patterns, ignore_file, caches, if_present, larger_than, one_file_system, nodump } = self;
        RuleOptions {
            patterns: patterns.clone(),
            ignore_file: ignore_file.clone().map(ByteBuf::from),
            caches: *caches,
            if_present: if_present.iter().cloned().map(ByteBuf::from).collect(),
            larger_than: *larger_than,
            one_file_system: *one_file_system,
            nodump: *nodump,
        }
    }

    /// The rules that a snapshot has recorded.
    pub fn from_rules(rules: &RuleOptions) -> Self {
        let RuleOptions { patterns, ignore_file, caches, if_present, larger_than, one_file_system, nodump } = rules;
        Self {
            patterns: patterns.clone(),
            ignore_file: ignore_file.clone().map(ByteBuf::into_vec),
            caches: *caches,
            if_present: if_present.iter().cloned().map(ByteBuf::into_vec).collect(),
            larger_than: *larger_than,
            one_file_system: *one_file_system,
            nodump: *nodump,
        }
    }
}

/// A pattern that is not valid.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PatternError {
    /// An invalid pattern.
    #[error("the exclude pattern {pattern:?} is not valid: {what}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The mistake in it.
        what: String,
    },
    /// The text that contains the patterns is invalid.
    #[error("its patterns cannot be read: {0}")]
    Text(#[from] text::OtherEncoding),
}

/// Maximum number of characters of an invalid pattern to show.
const SHOWN: usize = 100;

fn bad(pattern: &[u8], what: &str) -> PatternError {
    let shown: String = String::from_utf8_lossy(pattern).chars().take(SHOWN).collect();
    PatternError::Pattern { pattern: shown, what: what.to_owned() }
}

/// The pattern of an option or a setting, as a line of an ignore file has it. Such a line may be a comment, and blanks at
/// its end do not count; what somebody gives as one pattern is meant in full.
pub fn given(text: &str) -> String {
    let words = text.trim_end_matches(' ');
    let blanks = text.len() - words.len();
    // A blank behind a backslash counts already.
    let is_escaped = words.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
    let end = match (blanks, is_escaped) {
        (0, _) => String::new(),
        (blanks, true) => format!(" {}", "\\ ".repeat(blanks - 1)),
        (blanks, false) => "\\ ".repeat(blanks),
    };
    let start = if words.starts_with('#') { "\\" } else { "" };
    format!("{start}{words}{end}")
}

/// Checks whether a pattern can match what its author meant: git silently ignores one with an unclosed bracket, and so does a snapshot.
///
/// # Errors
/// If it cannot match that.
pub fn check(pattern: &str) -> Result<(), PatternError> {
    Patterns::default().add(pattern.as_bytes()).map_err(|error| bad(pattern.as_bytes(), error.what))?;
    flaw(pattern).map_or(Ok(()), |what| Err(bad(pattern.as_bytes(), what)))
}

/// Whether patterns of the command line mean all of a root with this absolute path: by its name, by its path, or by the path of a folder
/// above it. A pattern is such a path if its first component, without wildcards, is that of the root's path: others are relative to the
/// root, and only concern its content.
///
/// # Errors
/// If a pattern is not valid.
pub fn means_root(patterns: &[String], root: &[u8], is_folder: bool) -> Result<bool, PatternError> {
    let start = root.iter().position(|byte| *byte != b'/').unwrap_or(root.len());
    let root = &root[start..];
    let ends: Vec<usize> = (1..root.len()).filter(|at| root[*at] == b'/').chain([root.len()]).collect();
    let first = String::from_utf8_lossy(&root[..ends[0]]).into_owned();
    let (mut paths, mut all) = (Vec::new(), Vec::new());
    for pattern in patterns {
        let (case, text) = pattern.strip_prefix(ANY_CASE).map_or(("", pattern.as_str()), |rest| (ANY_CASE, rest));
        let (negated, text) = text.strip_prefix('!').map_or(("", text), |rest| ("!", rest));
        let text = slashed(text);
        let (below, is_name) = (text.trim_start_matches('/'), !text.trim_end_matches('/').contains('/'));
        let begins = below
            .split('/')
            .next()
            .is_some_and(|part| part == first || !case.is_empty() && lower(part.as_bytes()) == lower(first.as_bytes()));
        if begins && !is_name && (text.starts_with('/') || first.ends_with(':')) {
            paths.push(format!("{case}{negated}/{below}"));
            all.push(format!("{case}{negated}/{below}"));
        } else if is_name || text.strip_prefix("**/").is_some_and(|name| !name.trim_end_matches('/').contains('/')) {
            all.push(pattern.clone());
        }
    }
    let (paths, all) = (build(paths.iter())?, build(all.iter())?);
    let excludes = |patterns: &Patterns, end: usize, is_folder| {
        patterns.decide(&root[..end], is_folder).is_some_and(|decision| decision.excluded)
    };
    let (last, above) = ends.split_last().map_or((0, &[][..]), |(last, above)| (*last, above));
    Ok(above.iter().any(|end| excludes(&paths, *end, true)) || last > 0 && excludes(&all, last, is_folder))
}

/// The rules in force in a folder: those of its `.vaultignore`, of those of its parents, and of the command line, in order of precedence.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    innermost: Option<Arc<Level>>,
}

#[derive(Debug)]
struct Level {
    patterns: Patterns,
    /// Length of the path, below the root, of the folder that these rules are relative to, including the slash.
    skip: usize,
    /// Whether they come from an ignore file in that folder.
    of_file: bool,
    outer: Option<Arc<Level>>,
}

fn build<P: AsRef<[u8]>>(lines: impl Iterator<Item = P>) -> Result<Patterns, PatternError> {
    let mut patterns = Patterns::default();
    for line in lines {
        patterns.add(line.as_ref()).map_err(|error| bad(line.as_ref(), error.what))?;
    }
    Ok(patterns.ready())
}

impl Rules {
    /// The rules of the command line for a root with this absolute path.
    ///
    /// # Errors
    /// If a pattern is not valid.
    pub fn new(patterns: &[String], root: &Path) -> Result<Self, PatternError> {
        let root = from_path(root);
        let root = String::from_utf8_lossy(&root);
        let root = root.trim_end_matches('/');
        let relative = |pattern: &String| {
            let (case, text) = pattern.strip_prefix(ANY_CASE).map_or(("", pattern.as_str()), |rest| (ANY_CASE, rest));
            let (negated, rest) = text.strip_prefix('!').map_or(("", text), |rest| ("!", rest));
            match slashed(rest).strip_prefix(root) {
                Some(rest) if !root.is_empty() && rest.starts_with('/') => format!("{case}{negated}{rest}"),
                _ => pattern.clone(),
            }
        };
        let level = Level { patterns: build(patterns.iter().map(relative))?, skip: 0, of_file: false, outer: None };
        Ok(Self { innermost: (!patterns.is_empty()).then(|| Arc::new(level)) })
    }

    /// The rules below a folder that has an ignore file with this content. `folder` is its path below the root.
    ///
    /// # Errors
    /// If a pattern in it is not valid, or it is not text.
    pub fn with_file(&self, content: &[u8], folder: &[u8]) -> Result<Self, PatternError> {
        let patterns = build(text::lines(text::content(content)?))?;
        if patterns.is_empty() {
            return Ok(self.clone());
        }
        let skip = if folder.is_empty() { 0 } else { folder.len() + 1 };
        Ok(Self { innermost: Some(Arc::new(Level { patterns, skip, of_file: true, outer: self.innermost.clone() })) })
    }

    /// Whether there are no rules.
    pub const fn is_empty(&self) -> bool {
        self.innermost.is_none()
    }

    /// Whether a path below the root is left out.
    pub fn exclude(&self, path: &[u8], is_folder: bool) -> bool {
        self.decide(path, is_folder).is_some_and(|(decision, _)| decision.excluded)
    }

    /// Appends the part of a folder's path below the root that matters for its content: if it is the same for two folders, the same is
    /// left out below both.
    pub fn put_ahead(&self, folder: &[u8], out: &mut Vec<u8>) {
        for level in std::iter::successors(self.innermost.as_deref(), |level| level.outer.as_deref()) {
            level.patterns.put_ahead(folder.get(level.skip..).unwrap_or_default(), out);
        }
    }

    /// The pattern that decides about a path below the root. If it is in an ignore file, also the length of the path of that file's
    /// folder.
    pub fn decide(&self, path: &[u8], is_folder: bool) -> Option<(Decision, Option<usize>)> {
        let levels = std::iter::successors(self.innermost.as_deref(), |level| level.outer.as_deref());
        let mut decisions = levels.map(|level| {
            let decision = level.patterns.decide(path.get(level.skip..).unwrap_or(path), is_folder);
            decision.map(|decision| (decision, level.of_file.then_some(level.skip)))
        });
        decisions.find_map(|decision| decision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_as_a_pattern_is_meant_in_full() {
        let cases = [
            ("#a", "\\#a"),
            ("a ", "a\\ "),
            ("a  ", "a\\ \\ "),
            ("a\\ ", "a\\ "),
            ("a\\  ", "a\\ \\ "),
            ("!a b", "!a b"),
        ];
        for (text, pattern) in cases {
            assert_eq!(given(text), pattern);
        }
        let patterns = ["#keep", "sp ", "*.tmp"].map(given);
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        decide(&patterns, &["#keep", "sp ", "a.tmp"], &["keep", "sp"]);
    }

    fn decide(patterns: &[&str], excluded: &[&str], kept: &[&str]) {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let rules = Rules::new(&patterns, Path::new("/home/me")).unwrap();
        let hit = |path: &&str| rules.exclude(path.trim_end_matches('/').as_bytes(), path.ends_with('/'));
        excluded.iter().for_each(|path| assert!(hit(path), "{path} should be left out by {patterns:?}"));
        kept.iter().for_each(|path| assert!(!hit(path), "{path} should be kept by {patterns:?}"));
    }

    #[test]
    fn patterns_are_those_of_gitignore() {
        decide(&["*.o"], &["a.o", "x/y/b.o"], &["a.c", "o"]);
        decide(&["/build"], &["build", "build/"], &["x/build"]);
        decide(&["target/"], &["target/", "x/target/"], &["target"]);
        decide(&["*.log", "!keep.log"], &["a.log"], &["keep.log", "x/keep.log"]);
        decide(&["a/**/z"], &["a/z", "a/b/c/z"], &["z"]);
        decide(&["/home/me/cache", "!/home/me/cache/x"], &["cache"], &["x/cache", "cache/x"]);
        decide(&[], &[], &["a"]);
    }

    #[test]
    fn inner_files_decide_before_outer_ones() {
        let outer = Rules::new(&["*.tmp".to_owned()], Path::new("/r")).unwrap();
        let inner = outer.with_file(b"# a comment\n!keep.tmp\n/only-here\n", b"sub").unwrap();
        assert!(outer.exclude(b"sub/keep.tmp", false));
        assert!(!inner.exclude(b"sub/keep.tmp", false));
        assert!(inner.exclude(b"sub/other.tmp", false));
        assert!(inner.exclude(b"sub/only-here", false));
        assert!(!inner.exclude(b"sub/deeper/only-here", false));
        assert!(inner.exclude(b"sub/\xff.tmp", false));
    }

    #[test]
    fn a_mark_in_front_of_a_file_and_other_line_ends_are_not_part_of_its_patterns() {
        let none = Rules::new(&[], Path::new("/r")).unwrap();
        let rules = none.with_file(b"\xef\xbb\xbf*.tmp\r\n/{a}\r\n", b"").unwrap();
        assert!(rules.exclude(b"x.tmp", false) && rules.exclude(b"{a}", false));
        assert!(!rules.exclude(b"a", false));
        assert!(none.with_file(b"\xff\xfea\0\n\0", b"").is_err());
    }

    #[test]
    fn a_hundred_thousand_patterns_are_looked_up() {
        let line = |number: u32| format!("name-{number}\n/a/{number}\n*.x{number}\n");
        let lines = (0..100_000).map(line).collect::<Vec<String>>().concat();
        let rules = Rules::new(&[], Path::new("/r")).unwrap().with_file(lines.as_bytes(), b"").unwrap();
        for number in [0, 7, 99_999] {
            assert!(rules.exclude(format!("name-{number}").as_bytes(), false));
            assert!(rules.exclude(format!("a/{number}").as_bytes(), false));
            assert!(rules.exclude(format!("b/c.x{number}").as_bytes(), false));
        }
        assert!(!rules.exclude(b"name-100000", false));
    }

    #[test]
    fn a_root_is_meant_by_its_name_and_by_its_path() {
        let means = |patterns: &[&str], root: &str| {
            let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
            means_root(&patterns, root.trim_end_matches('/').as_bytes(), root.ends_with('/')).unwrap()
        };
        for (pattern, root, expected) in [
            ("secret", "/home/me/secret/", true),
            ("secret/", "/home/me/secret/", true),
            ("secret/", "/home/me/secret", false),
            ("*.iso", "/home/me/x.iso", true),
            ("**/x.iso", "/home/me/x.iso", true),
            (":(icase)*.ISO", "/home/me/x.iso", true),
            (":(icase)/HOME/me", "/home/me/", true),
            ("/home/me/secret", "/home/me/secret/", true),
            ("/home/me", "/home/me/secret/", true),
            ("/home/*/secret", "/home/me/secret/x/", true),
            ("/home/", "/home/me/x", true),
            ("/", "/home/me/", false),
            // These patterns concern only the content of the root.
            ("me", "/home/me/secret/", false),
            ("**/me", "/home/me/secret/", false),
            ("/secret", "/home/me/secret/", false),
            ("me/secret", "/home/me/secret/", false),
            ("home/me/secret", "/home/me/secret/", false),
            ("/*/me", "/home/me/secret/", false),
            ("/h*", "/home/me/", false),
            ("/home/me/secret/x", "/home/me/secret/", false),
            ("/tmp", "/tmp/", true),
            ("/top", "/top/", true),
            ("x", "/", false),
        ] {
            assert_eq!(means(&[pattern], root), expected, "{pattern} {root}");
        }
        assert!(!means(&["*.iso", "!/home/me/x.iso"], "/home/me/x.iso"));
        assert!(means(&["!/home/me/x.iso", "*.iso"], "/home/me/x.iso"));
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_named() {
        let error = check("a[").unwrap_err();
        assert!(error.to_string().contains("a["), "{error}");
        check("a{").unwrap();
    }
}
