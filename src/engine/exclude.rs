//! What a snapshot leaves out: patterns, tags of caches, mount points, large files.

use std::path::Path;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::path::{from_path, slashed, to_path};

/// What to leave out.
#[derive(Debug, Clone, Default)]
pub struct ExcludeOptions {
    /// gitignore patterns, matched against the path below each root. A pattern that begins with a root's absolute path is
    /// taken relative to it.
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

/// A pattern that is not valid.
#[derive(Debug, thiserror::Error)]
#[error("the exclude pattern {pattern:?} is not valid: {what}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub what: String,
}

/// The rules in force in a folder: those of its `.vaultignore`, of its parents', and those of the command line, which
/// decide in this order.
#[derive(Debug, Clone)]
pub struct Rules {
    innermost: Option<Arc<Level>>,
}

#[derive(Debug)]
struct Level {
    matcher: Gitignore,
    /// How many bytes of a path below the root belong to the folder that these rules are relative to.
    skip: usize,
    outer: Option<Arc<Level>>,
}

fn build(lines: impl Iterator<Item = String>) -> Result<Gitignore, PatternError> {
    let mut builder = GitignoreBuilder::new("");
    for line in lines {
        let failed = |error: ignore::Error| PatternError { pattern: line.clone(), what: error.to_string() };
        builder.add_line(None, &line).map_err(failed)?;
    }
    builder.build().map_err(|error| PatternError { pattern: String::new(), what: error.to_string() })
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
            let (negated, rest) = pattern.strip_prefix('!').map_or(("", pattern.as_str()), |rest| ("!", rest));
            match slashed(rest).strip_prefix(root) {
                Some(rest) if !root.is_empty() && rest.starts_with('/') => format!("{negated}{rest}"),
                _ => pattern.clone(),
            }
        };
        let matcher = build(patterns.iter().map(relative))?;
        let level = Level { matcher, skip: 0, outer: None };
        Ok(Self { innermost: (!patterns.is_empty()).then(|| Arc::new(level)) })
    }

    /// The rules below a folder that has an ignore file with this content. `folder` is its path below the root.
    ///
    /// # Errors
    /// If a pattern in it is not valid.
    pub fn with_file(&self, content: &[u8], folder: &[u8]) -> Result<Self, PatternError> {
        let text = String::from_utf8_lossy(content);
        let matcher = build(text.lines().map(str::to_owned))?;
        let skip = if folder.is_empty() { 0 } else { folder.len() + 1 };
        Ok(Self { innermost: Some(Arc::new(Level { matcher, skip, outer: self.innermost.clone() })) })
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.innermost.is_none()
    }

    /// Whether a path below the root is left out.
    pub fn exclude(&self, path: &[u8], is_folder: bool) -> bool {
        let mut level = self.innermost.as_deref();
        while let Some(rules) = level {
            match rules.matcher.matched(to_path(path.get(rules.skip..).unwrap_or(path)).as_ref(), is_folder) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => level = rules.outer.as_deref(),
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str], excluded: &[&str], kept: &[&str]) {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let rules = Rules::new(&patterns, Path::new("/home/me")).unwrap();
        let hit = |path: &&str| rules.exclude(path.trim_end_matches('/').as_bytes(), path.ends_with('/'));
        excluded.iter().for_each(|path| assert!(hit(path), "{path} should be left out by {patterns:?}"));
        kept.iter().for_each(|path| assert!(!hit(path), "{path} should be kept by {patterns:?}"));
    }

    #[test]
    fn patterns_are_those_of_gitignore() {
        check(&["*.o"], &["a.o", "x/y/b.o"], &["a.c", "o"]);
        check(&["/build"], &["build", "build/"], &["x/build"]);
        check(&["target/"], &["target/", "x/target/"], &["target"]);
        check(&["*.log", "!keep.log"], &["a.log"], &["keep.log", "x/keep.log"]);
        check(&["a/**/z"], &["a/z", "a/b/c/z"], &["z"]);
        check(&["/home/me/cache", "!/home/me/cache/x"], &["cache"], &["x/cache", "cache/x"]);
        check(&[], &[], &["a"]);
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
    fn a_bad_pattern_is_named() {
        let error = Rules::new(&["a{".to_owned()], Path::new("/r")).unwrap_err();
        assert!(error.to_string().contains("a{"), "{error}");
    }
}
