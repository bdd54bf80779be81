//! Patterns of names for searching: `*`, `?`, `[a-z]`, and `**` for any number of folders. Names are bytes; in UTF-8 names, `?` and
//! `[...]` match one character.

/// A piece of a pattern for one name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    One,
    /// `*`
    Any,
    /// `[...]`, or `[!...]` if true.
    Class(bool, Vec<(char, char)>),
}

/// A pattern for one component of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Name(Vec<Token>),
    /// `**`
    Folders,
}

/// A search pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    parts: Vec<Part>,
    ignore_case: bool,
}

impl Pattern {
    /// Reads a pattern. Without `*`, `?` and `[` it matches any part of a name; with them, the whole name. With slashes it is compared
    /// with the last components of the path; with a slash at the start, with all of them, from the snapshot's top.
    pub fn new(text: &[u8], ignore_case: bool) -> Self {
        let lowered = if ignore_case { lower(text) } else { text.to_vec() };
        let (anchored, text) = match lowered.strip_prefix(b"/") {
            Some(rest) => (true, rest),
            None => (false, lowered.as_slice()),
        };
        let has_wildcards = text.iter().any(|byte| b"*?[".contains(byte));
        let mut parts: Vec<Part> = Vec::new();
        if !anchored {
            parts.push(Part::Folders);
        }
        let components: Vec<&[u8]> = text.split(|byte| *byte == b'/').collect();
        let last = components.len() - 1;
        for (index, component) in components.into_iter().enumerate() {
            if has_wildcards && component == b"**" {
                parts.push(Part::Folders);
                continue;
            }
            let mut tokens = if has_wildcards { tokens(component) } else { literal(component) };
            if !has_wildcards && index == 0 && !anchored {
                tokens.insert(0, Token::Any);
            }
            if !has_wildcards && index == last {
                tokens.push(Token::Any);
            }
            parts.push(Part::Name(tokens));
        }
        Self { parts, ignore_case }
    }

    /// Whether a path that ends with this name may match.
    pub fn may_match(&self, name: &[u8]) -> bool {
        match self.parts.last() {
            Some(Part::Name(tokens)) if self.ignore_case => matches(tokens, &lower(name)),
            Some(Part::Name(tokens)) => matches(tokens, name),
            _ => true,
        }
    }

    /// The parts of the pattern that a name in the top folder may match.
    pub fn start(&self) -> Places {
        let mut places = Places(vec![false; self.parts.len() + 1]);
        self.enter(&mut places, 0);
        places
    }

    /// The same for a folder of this name, given that of its parent: this is all of a path that matters for the folder's content.
    pub fn below(&self, places: &Places, name: &[u8]) -> Places {
        let lowered = self.ignore_case.then(|| lower(name));
        let name = lowered.as_deref().unwrap_or(name);
        let mut below = Places(vec![false; self.parts.len() + 1]);
        for (at, part) in self.parts.iter().enumerate().filter(|(at, _)| places.0[*at]) {
            match part {
                Part::Folders => self.enter(&mut below, at),
                Part::Name(tokens) if matches(tokens, name) => self.enter(&mut below, at + 1),
                Part::Name(_) => {}
            }
        }
        // Whether the folder itself matches does not matter for its content.
        below.0[self.parts.len()] = false;
        below
    }

    fn enter(&self, places: &mut Places, at: usize) {
        for at in at..=self.parts.len() {
            places.0[at] = true;
            if self.parts.get(at) != Some(&Part::Folders) {
                break;
            }
        }
    }

    /// Whether only the name matters, not the folders above it.
    fn is_name_only(&self) -> bool {
        matches!(self.parts.as_slice(), [Part::Folders, Part::Name(_)])
    }

    /// Whether the path `folder/name` matches.
    pub fn matches(&self, folder: &[u8], name: &[u8]) -> bool {
        if !self.may_match(name) || self.is_name_only() {
            return self.may_match(name);
        }
        let path = crate::path::components(folder).chain([name]);
        if self.ignore_case {
            let path: Vec<Vec<u8>> = path.map(lower).collect();
            return matches_path(&self.parts, &path.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
        let path: Vec<&[u8]> = path.collect();
        matches_path(&self.parts, &path)
    }
}

/// Parts of a pattern, by number, that may match next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Places(Vec<bool>);

impl Places {
    /// Whether nothing in the folder or below it can match.
    pub fn is_empty(&self) -> bool {
        !self.0.contains(&true)
    }
}

/// The text in lower case; only ASCII letters are changed if it is not UTF-8.
pub(crate) fn lower(text: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(text) {
        Ok(text) if !text.is_ascii() => text.to_lowercase().into_bytes(),
        _ => text.to_ascii_lowercase(),
    }
}

fn literal(text: &[u8]) -> Vec<Token> {
    text.iter().map(|byte| Token::Byte(*byte)).collect()
}

fn tokens(text: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        tokens.push(match first {
            b'*' if tokens.last() == Some(&Token::Any) => continue,
            b'*' => Token::Any,
            b'?' => Token::One,
            b'\\' if !rest.is_empty() => {
                let byte = rest[0];
                rest = &rest[1..];
                Token::Byte(byte)
            }
            b'[' => match class(rest) {
                Some((token, len)) => {
                    rest = &rest[len..];
                    token
                }
                None => Token::Byte(b'['),
            },
            byte => Token::Byte(*byte),
        });
    }
    tokens
}

/// Reads a class after its `[`; returns also its length including the `]`. `None` if there is no class: then the `[` is an ordinary
/// character.
fn class(text: &[u8]) -> Option<(Token, usize)> {
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    // A `]` right at the start is one of the characters.
    let end = start + 1 + text.get(start + 1..)?.iter().position(|byte| *byte == b']')?;
    let chars: Vec<char> = std::str::from_utf8(&text[start..end]).ok()?.chars().collect();
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(low) = chars.get(at) {
        if let (Some('-'), Some(high)) = (chars.get(at + 1), chars.get(at + 2)) {
            ranges.push((*low, *high));
            at += 3;
        } else {
            ranges.push((*low, *low));
            at += 1;
        }
    }
    Some((Token::Class(negated, ranges), end + 1))
}

/// The character at the start of a name and its length; a byte that is not UTF-8 becomes a replacement character of length 1.
fn first_char(name: &[u8]) -> Option<(char, usize)> {
    let first = *name.first()?;
    if first.is_ascii() {
        return Some((char::from(first), 1));
    }
    let valid = name.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
    Some(valid.map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, c.len_utf8())))
}

/// Number of bytes that a token other than `*` matches at the start of a name.
fn take(token: &Token, name: &[u8]) -> Option<usize> {
    match token {
        Token::Byte(byte) => (name.first() == Some(byte)).then_some(1),
        Token::One => first_char(name).map(|(_, len)| len),
        Token::Class(negated, ranges) => {
            let (c, len) = first_char(name)?;
            (ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated).then_some(len)
        }
        Token::Any => None,
    }
}

/// Whether a whole name matches. Only the last `*` is ever tried again, so time is limited by the product of the lengths.
fn matches(tokens: &[Token], name: &[u8]) -> bool {
    // Most names can be ruled out by their first byte, or by that of the text to find.
    match tokens {
        [Token::Byte(first), ..] if name.first() != Some(first) => return false,
        [Token::Any, Token::Byte(first), ..] if !name.contains(first) => return false,
        _ => {}
    }
    let (mut token, mut at) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    loop {
        match tokens.get(token) {
            Some(Token::Any) => {
                again = Some((token, at));
                token += 1;
                if token == tokens.len() {
                    return true;
                }
                continue;
            }
            Some(one) => {
                if let Some(len) = take(one, &name[at..]) {
                    token += 1;
                    at += len;
                    continue;
                }
            }
            None if at == name.len() => return true,
            None => {}
        }
        match again {
            Some((star, from)) if from < name.len() => {
                again = Some((star, from + 1));
                (token, at) = (star + 1, from + 1);
            }
            _ => return false,
        }
    }
}

/// The same for components of paths, with `**` in place of `*`.
fn matches_path(parts: &[Part], path: &[&[u8]]) -> bool {
    let (mut part, mut at) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    loop {
        match parts.get(part) {
            Some(Part::Folders) => {
                again = Some((part, at));
                part += 1;
                continue;
            }
            Some(Part::Name(tokens)) if path.get(at).is_some_and(|name| matches(tokens, name)) => {
                part += 1;
                at += 1;
                continue;
            }
            None if at == path.len() => return true,
            _ => {}
        }
        match again {
            Some((star, from)) if from < path.len() => {
                again = Some((star, from + 1));
                (part, at) = (star + 1, from + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Pattern {
        fn may_match_part(&self, tokens: &[Token], name: &[u8]) -> bool {
            if self.ignore_case { matches(tokens, &lower(name)) } else { matches(tokens, name) }
        }
    }

    fn check(pattern: &str, hits: &[&str], misses: &[&str]) {
        let matches = |ignore_case, path: &str| {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            Pattern::new(pattern.as_bytes(), ignore_case).matches(folder.as_bytes(), name.as_bytes())
        };
        for hit in hits {
            assert!(matches(false, hit), "{pattern} should match {hit}");
            assert!(matches(true, &hit.to_uppercase()), "{pattern} should match {hit} whatever the case");
        }
        for miss in misses {
            assert!(!matches(false, miss), "{pattern} should not match {miss}");
        }
    }

    #[test]
    fn names_match() {
        check("letter", &["letter", "a/letter.odt", "loveletter2"], &["Letter", "letter.d/x", "lette"]);
        check("*.jpg", &[".jpg", "a/b/c.jpg"], &["a.jpg2", "a.jpg/b"]);
        check("a?c", &["abc", "a\u{e9}c"], &["ac", "abbc"]);
        check("[a-c]*[!0-9]", &["ax", "cc"], &["dx", "a1", "a"]);
        check("[]]x", &["]x"], &["x"]);
        check("a[b", &["a[b"], &["ab"]);
        check("*a*b*", &["ab", "xaxbx", "aab"], &["ba"]);
        check("**", &["a", "a/b"], &[]);
        check(r"*\**", &["a*b"], &["ab"]);
        check("", &["a", "a/b"], &[]);
    }

    #[test]
    fn paths_match_from_the_end_or_as_a_whole() {
        check("src/*.c", &["src/a.c", "x/src/a.c"], &["src/x/a.c", "a.c", "xsrc/a.c"]);
        check("/src/*.c", &["src/a.c"], &["x/src/a.c"]);
        check("src/**/*.c", &["src/a.c", "x/src/y/z/a.c"], &["a.c", "src"]);
        check("/**/b", &["b", "a/b"], &["a/b/c"]);
        check("docs/let", &["my docs/letter", "docs/let"], &["docs/x/letter", "docs2/let", "docs"]);
        check("/docs/let", &["docs/letter"], &["x/docs/letter"]);
    }

    /// The places of the parent folder lead to the same result as the whole path.
    #[test]
    fn places_say_what_the_path_says() {
        let names = ["a", "b", "ab", "B"];
        let mut paths: Vec<Vec<&str>> = vec![Vec::new()];
        for depth in 0..4 {
            let above: Vec<_> = paths.iter().filter(|path| path.len() == depth).cloned().collect();
            paths.extend(above.iter().flat_map(|path| names.map(|name| [path, &[name][..]].concat())));
        }
        let mut hits = 0;
        for text in ["a", "*b", "a/b", "/a/b", "/a/*", "a/**/b", "**/a/**", "/**/b", "/**", "a/*/b", "/b/**/a*/**/b"] {
            for ignore_case in [false, true] {
                let pattern = Pattern::new(text.as_bytes(), ignore_case);
                for path in paths.iter().filter(|path| !path.is_empty()) {
                    let (name, above) = path.split_last().unwrap();
                    let places =
                        above.iter().fold(pattern.start(), |places, name| pattern.below(&places, name.as_bytes()));
                    let end = pattern.parts.len();
                    let mut matching = Places(vec![false; end + 1]);
                    for at in (0..end).filter(|at| places.0[*at]) {
                        match &pattern.parts[at] {
                            Part::Folders => pattern.enter(&mut matching, at),
                            Part::Name(tokens) if pattern.may_match_part(tokens, name.as_bytes()) => {
                                pattern.enter(&mut matching, at + 1);
                            }
                            Part::Name(_) => {}
                        }
                    }
                    let matches = pattern.matches(above.join("/").as_bytes(), name.as_bytes());
                    assert_eq!(matching.0[end], matches, "{text} {path:?}");
                    assert!(!matches || !places.is_empty(), "{text} {path:?}");
                    hits += usize::from(matches);
                }
            }
        }
        assert!(hits > 1000, "{hits}");
    }

    #[test]
    fn bytes_that_are_no_text_match_too() {
        let pattern = Pattern::new(b"\xff?[!a]", false);
        assert!(pattern.matches(b"", b"\xffx\xfe"));
        assert!(!pattern.matches(b"", b"\xffxa"));
        assert!(Pattern::new(b"\xff", true).matches(b"", b"X\xff"));
    }
}
