//! Suggestions for a mistyped word.

use std::sync::Mutex;
use std::sync::PoisonError;

/// The candidate that is most similar to the word; `None` if none is similar.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = Word::new(word);
    let near = candidates.into_iter().filter_map(|candidate| Some((word.distance(candidate)?, candidate)));
    near.min_by_key(|(distance, _)| *distance).map(|(_, found)| found)
}

/// A word that names are compared with.
struct Word {
    lower: String,
    len: usize,
}

impl Word {
    fn new(word: &str) -> Self {
        let lower = word.to_lowercase().replace('_', "-");
        Self { len: lower.chars().count(), lower }
    }

    /// The distance of a name from the word; `None` if they are not similar.
    fn distance(&self, candidate: &str) -> Option<usize> {
        let candidate = candidate.to_lowercase().replace('_', "-");
        let longest = (1 + self.len / 3).min(self.len.saturating_sub(1));
        let is_near = candidate.chars().count().abs_diff(self.len) <= longest;
        is_near.then(|| distance(&self.lower, &candidate)).filter(|distance| *distance <= longest)
    }
}

/// The most similar of many names, which several threads may supply.
pub struct Nearest {
    word: Word,
    best: Mutex<Option<(usize, String)>>,
}

impl Nearest {
    /// Looks for names similar to this one.
    pub fn new(word: &str) -> Self {
        Self { word: Word::new(word), best: Mutex::new(None) }
    }

    /// Compares a name. A word without an extension is also compared with the name without its extension.
    pub fn see(&self, name: &str) {
        let stem = name.rsplit_once('.').map(|(stem, _)| stem).filter(|_| !self.word.lower.contains('.'));
        let far = [Some(name), stem].into_iter().flatten().filter_map(|name| self.word.distance(name)).min();
        let Some(far) = far else { return };
        let mut best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        // Of equally similar names, the alphabetically first is taken, so that the result does not depend on the
        // threads' timing.
        if best.as_ref().is_none_or(|(known, other)| (far, name) < (*known, other.as_str())) {
            *best = Some((far, name.to_owned()));
        }
    }

    /// The most similar name seen.
    pub fn found(self) -> Option<String> {
        crate::sync::into_inner(self.best).map(|(_, name)| name)
    }
}

/// The number of letters to add, remove, replace, or swap with a neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found() {
        let keys = ["path", "password-file", "password-command", "every", "exclude", "x"];
        for (word, expected) in [
            ("paht", Some("path")),
            ("pasword-file", Some("password-file")),
            ("password_file", Some("password-file")),
            ("Every", Some("every")),
            ("excludes", Some("exclude")),
            ("X", Some("x")),
            ("colour", None),
            ("y", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, keys), expected, "{word}");
        }
    }

    #[test]
    fn the_nearest_of_many_names_is_found() {
        for (word, expected) in [
            ("a.jpeg", Some("a.jpg")),
            ("A.JPG", Some("a.jpg")),
            ("leter", Some("letter.odt")),
            ("leter.txt", Some("letter.odt")),
            ("music", None),
            ("README.md", Some("READ_ME.md")),
        ] {
            let nearest = Nearest::new(word);
            ["b.jpg", "letter.odt", "a.jpg", "READ_ME.md", ""].into_iter().for_each(|name| nearest.see(name));
            assert_eq!(nearest.found().as_deref(), expected, "{word}");
        }
    }
}
