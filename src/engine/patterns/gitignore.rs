//! Patterns as in gitignore files, exactly: they match what git ignores, byte for byte. All code that accepts such patterns compiles them
//! here.
//!
//! There may be hundreds of thousands of patterns. Those without wildcards, and those like `*.o`, are looked up; the others are tried one
//! after the other, starting with the last, in time limited by the lengths of pattern and path.

use std::ops::Range;

use crate::engine::patterns::glob::lower;

/// Prefix of a pattern that ignores case, as in git's pathspecs.
pub const ANY_CASE: &str = ":(icase)";
/// Maximum length of a pattern, in bytes.
const LEN_MAX: usize = 64 << 10;
/// Maximum length of all patterns together, in bytes.
const TOTAL_MAX: usize = 1 << 30;

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Unusable {
    /// The reason.
    pub what: &'static str,
}

/// Patterns, of which the last one that matches decides.
#[derive(Debug, Default)]
pub struct Patterns {
    exact: Group,
    folded: Group,
    count: u32,
    total: usize,
}

/// The case-sensitive patterns, or the others.
#[derive(Debug, Default)]
struct Group {
    /// The bytes of all literals.
    text: Vec<u8>,
    /// Names without wildcards.
    names: Vec<Literal>,
    /// Ends of names: `*.o`.
    ends: Vec<Literal>,
    /// The lengths of these, each once.
    end_lens: Vec<usize>,
    /// Paths without wildcards.
    paths: Vec<Literal>,
    wild: Vec<Wild>,
    tokens: Vec<Token>,
    sets: Vec<Set>,
}

/// The properties of a matching pattern.
#[derive(Debug, Clone, Copy)]
struct Rule {
    /// The number of the pattern.
    rank: u32,
    /// Whether it begins with `!`.
    keeps: bool,
    /// Whether it ends with `/`.
    folders: bool,
}

#[derive(Debug, Clone, Copy)]
struct Literal {
    start: u32,
    len: u32,
    rule: Rule,
}

#[derive(Debug, Clone)]
struct Wild {
    rule: Rule,
    /// Whether it is compared with the whole path instead of the name.
    whole: bool,
    /// The beginning of the path: a part of the text.
    prefix: (u32, u32),
    /// The rest: some of the tokens.
    tokens: (u32, u32),
}

/// The bytes of a class.
type Set = [u64; 4];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    One,
    /// A class, by its number.
    Class(u32),
    /// `*`: any bytes but `/`.
    Star,
    /// `**` at the end: any bytes.
    Deep,
    /// `**/`: nothing, or any bytes that end with `/`.
    Folders,
    /// Nothing matches.
    Never,
}

fn is_special(byte: u8) -> bool {
    b"*?[\\".contains(&byte)
}

/// A pattern without the blanks at its end, unless they are escaped.
fn trimmed(line: &[u8]) -> &[u8] {
    let (mut end, mut at) = (0, 0);
    while let Some(byte) = line.get(at) {
        at += if *byte == b'\\' { 2 } else { 1 };
        if *byte != b' ' {
            end = at.min(line.len());
        }
    }
    &line[..end]
}

/// A pattern split into its parts.
struct Parsed<'p> {
    keeps: bool,
    folders: bool,
    /// Whether it is compared with the name alone.
    name_only: bool,
    text: &'p [u8],
    /// Number of bytes at its start that are not wildcards.
    plain: usize,
}

/// `None` for a comment and for an empty line.
fn parse(line: &[u8]) -> Option<Parsed<'_>> {
    if line.first() == Some(&b'#') {
        return None;
    }
    let line = trimmed(line);
    let (keeps, text) = line.strip_prefix(b"!").map_or((false, line), |rest| (true, rest));
    let (folders, text) = text.strip_suffix(b"/").map_or((false, text), |rest| (true, rest));
    let name_only = !text.contains(&b'/');
    let text = if name_only { text } else { text.strip_prefix(b"/").unwrap_or(text) };
    let plain = text.iter().position(|byte| is_special(*byte)).unwrap_or(text.len());
    (!text.is_empty()).then_some(Parsed { keeps, folders, name_only, text, plain })
}

/// The flaw of a pattern that cannot match what its author meant, if there is one: an unclosed bracket, say. Git does not report it, and
/// neither do [`Patterns`].
pub fn flaw(pattern: &str) -> Option<&'static str> {
    let text = pattern.strip_prefix(ANY_CASE).unwrap_or(pattern);
    let parsed = parse(text.as_bytes())?;
    let (mut tokens, mut sets) = (Vec::new(), Vec::new());
    let backwards = compile(&parsed.text[parsed.plain..], !parsed.name_only, &mut tokens, &mut sets);
    if tokens.contains(&Token::Never) {
        let ends = parsed.text.ends_with(b"\\");
        return Some(if ends { "it ends with a backslash" } else { "a bracket in it is not closed or malformed" });
    }
    backwards.then_some("a range in it runs backwards")
}

impl Patterns {
    /// Adds a pattern, which takes precedence over those before it. A comment or an empty line adds nothing.
    ///
    /// # Errors
    /// If it is too long, or all of them are.
    pub fn add(&mut self, line: &[u8]) -> Result<(), Unusable> {
        self.total = self.total.saturating_add(line.len());
        if line.len() > LEN_MAX {
            return Err(Unusable { what: "it is longer than 64 KiB" });
        }
        if self.total > TOTAL_MAX {
            return Err(Unusable { what: "the patterns are longer than 1 GiB" });
        }
        let (group, lowered) = match line.strip_prefix(ANY_CASE.as_bytes()) {
            Some(rest) => (&mut self.folded, Some(lower(rest))),
            None => (&mut self.exact, None),
        };
        if let Some(parsed) = parse(lowered.as_deref().unwrap_or(line)) {
            let rule = Rule { rank: self.count, keeps: parsed.keeps, folders: parsed.folders };
            group.add(&parsed, rule);
            self.count += 1;
        }
        Ok(())
    }

    /// Sorts the added patterns. Must be called once all are added.
    #[must_use]
    pub fn ready(mut self) -> Self {
        self.exact.ready();
        self.folded.ready();
        self
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The decision of the last pattern that matches a path. `None` if no pattern matches. Folders above the path are not considered.
    pub fn decide(&self, path: &[u8], is_folder: bool) -> Option<Decision> {
        let mut best = None;
        self.exact.find(path, is_folder, &mut best);
        if !self.folded.is_empty() {
            self.folded.find(&lower(path), is_folder, &mut best);
        }
        best.map(|rule: Rule| Decision { excluded: !rule.keeps, number: rule.rank })
    }

    /// Appends the part of a folder's path that matters to patterns for its content. If it is the same for two folders, each pattern
    /// means the same in both, at any depth. Patterns for names alone add nothing.
    pub fn put_ahead(&self, folder: &[u8], out: &mut Vec<u8>) {
        self.exact.put_ahead(folder, out);
        if !self.folded.is_empty() {
            // The rest of a path determines whether all of it is valid text, and so how its letters are folded.
            let (whole, ascii) = (lower(folder), folder.to_ascii_lowercase());
            self.folded.put_ahead(&whole, out);
            if ascii != whole {
                self.folded.put_ahead(&ascii, out);
            }
        }
    }
}

/// The decision about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is excluded; `false` for a pattern with `!`.
    pub excluded: bool,
    /// The number of the pattern, from 0, among the lines that are patterns.
    pub number: u32,
}

/// The pattern with a number, among the added lines.
pub fn numbered<P: AsRef<[u8]>>(lines: impl IntoIterator<Item = P>, number: u32) -> Option<P> {
    let is_pattern = |line: &P| {
        let line = line.as_ref();
        parse(line.strip_prefix(ANY_CASE.as_bytes()).unwrap_or(line)).is_some()
    };
    lines.into_iter().filter(is_pattern).nth(number as usize)
}

impl Group {
    const fn is_empty(&self) -> bool {
        self.names.is_empty() && self.ends.is_empty() && self.paths.is_empty() && self.wild.is_empty()
    }

    fn put(&mut self, bytes: &[u8]) -> (u32, u32) {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(bytes);
        (start, bytes.len() as u32)
    }

    fn add(&mut self, parsed: &Parsed<'_>, rule: Rule) {
        let Parsed { name_only, text, plain, .. } = *parsed;
        if plain == text.len() {
            let (start, len) = self.put(text);
            let literals = if name_only { &mut self.names } else { &mut self.paths };
            return literals.push(Literal { start, len, rule });
        }
        if name_only && text[0] == b'*' && !text[1..].iter().any(|byte| is_special(*byte)) {
            let (start, len) = self.put(&text[1..]);
            return self.ends.push(Literal { start, len, rule });
        }
        let first = self.tokens.len() as u32;
        let plain = if name_only { 0 } else { plain };
        let prefix = self.put(&text[..plain]);
        compile(&text[plain..], !name_only, &mut self.tokens, &mut self.sets);
        let tokens = (first, self.tokens.len() as u32);
        self.wild.push(Wild { rule, whole: !name_only, prefix, tokens });
    }

    fn ready(&mut self) {
        let text = &self.text;
        for literals in [&mut self.names, &mut self.ends, &mut self.paths] {
            literals.sort_unstable_by(|a, b| {
                let key = |literal: &Literal| (literal.rule.folders, std::cmp::Reverse(literal.rule.rank));
                a.bytes(text).cmp(b.bytes(text)).then_with(|| key(a).cmp(&key(b)))
            });
            // Of equal patterns, the last counts.
            literals.dedup_by(|a, b| a.rule.folders == b.rule.folders && a.bytes(text) == b.bytes(text));
            literals.shrink_to_fit();
        }
        self.end_lens = self.ends.iter().map(|literal| literal.len as usize).collect();
        self.end_lens.sort_unstable();
        self.end_lens.dedup();
        self.text.shrink_to_fit();
        self.tokens.shrink_to_fit();
        self.wild.shrink_to_fit();
    }

    fn find(&self, path: &[u8], is_folder: bool, best: &mut Option<Rule>) {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        self.look_up(&self.names, name, is_folder, best);
        self.look_up(&self.paths, path, is_folder, best);
        for len in self.end_lens.iter().take_while(|len| **len <= name.len()) {
            self.look_up(&self.ends, &name[name.len() - len..], is_folder, best);
        }
        for wild in self.wild.iter().rev() {
            if best.is_some_and(|best| best.rank > wild.rule.rank) {
                break;
            }
            if (is_folder || !wild.rule.folders) && self.fits(wild, path, name) {
                *best = Some(wild.rule);
                break;
            }
        }
    }

    fn look_up(&self, literals: &[Literal], text: &[u8], is_folder: bool, best: &mut Option<Rule>) {
        let first = literals.partition_point(|literal| literal.bytes(&self.text) < text);
        let same = literals[first..].iter().take_while(|literal| literal.bytes(&self.text) == text);
        for literal in same.filter(|literal| is_folder || !literal.rule.folders) {
            if best.is_none_or(|best| best.rank < literal.rule.rank) {
                *best = Some(literal.rule);
            }
        }
    }

    fn fits(&self, wild: &Wild, path: &[u8], name: &[u8]) -> bool {
        let tokens = &self.tokens[range(wild.tokens)];
        if !wild.whole {
            return matches(tokens, &self.sets, name);
        }
        let (start, len) = wild.prefix;
        let prefix = &self.text[range((start, start + len))];
        path.strip_prefix(prefix).is_some_and(|rest| matches(tokens, &self.sets, rest))
    }
}

impl Group {
    fn put_ahead(&self, folder: &[u8], out: &mut Vec<u8>) {
        let mut start = folder.to_vec();
        if !start.is_empty() {
            start.push(b'/');
        }
        let first = self.paths.partition_point(|literal| literal.bytes(&self.text) < start.as_slice());
        let mut counts = self.paths.get(first).is_some_and(|literal| literal.bytes(&self.text).starts_with(&start));
        for (number, wild) in self.wild.iter().enumerate().filter(|(_, wild)| wild.whole) {
            let (from, len) = wild.prefix;
            let prefix = &self.text[range((from, from + len))];
            if let Some(rest) = start.strip_prefix(prefix) {
                let places = places_behind(&self.tokens[range(wild.tokens)], &self.sets, rest);
                if !places.is_empty() {
                    put_part(out, 1, &[&(number as u64).to_le_bytes()[..], &places].concat());
                }
            } else {
                counts |= prefix.starts_with(&start);
            }
        }
        // If patterns may begin with the path, the whole path matters.
        if counts {
            put_part(out, 2, &start);
        } else {
            put_part(out, 3, &[]);
        }
    }
}

fn put_part(out: &mut Vec<u8>, kind: u8, part: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(part.len() as u64).to_le_bytes());
    out.extend_from_slice(part);
}

/// The positions in these tokens that a text may lead to: they determine what can match after it. Empty if nothing can.
fn places_behind(tokens: &[Token], sets: &[Set], text: &[u8]) -> Vec<u8> {
    let mut places = Places::new(tokens.len());
    places.enter(tokens, 0);
    for byte in text {
        let mut next = Places::new(tokens.len());
        for (at, token) in tokens.iter().enumerate() {
            if places.inside[at] {
                next.inside[at] = true;
                if *byte == b'/' {
                    next.enter(tokens, at + 1);
                }
            }
            if !places.before[at] {
                continue;
            }
            match token {
                Token::Byte(wanted) if wanted == byte => next.enter(tokens, at + 1),
                Token::One if *byte != b'/' => next.enter(tokens, at + 1),
                Token::Class(number) if sets[*number as usize][usize::from(byte >> 6)] & (1 << (byte & 63)) != 0 => {
                    next.enter(tokens, at + 1);
                }
                Token::Star if *byte != b'/' => next.enter(tokens, at),
                Token::Deep => next.enter(tokens, at),
                _ => {}
            }
        }
        places = next;
    }
    let found = places.before.iter().zip(&places.inside).enumerate();
    found
        .filter(|(at, (before, inside))| (**before || **inside) && *at < tokens.len())
        .flat_map(|(at, (before, inside))| {
            let mark = u8::from(*before) | u8::from(*inside) << 1;
            (at as u32).to_le_bytes().into_iter().chain([mark])
        })
        .collect()
}

/// Positions in a row of tokens that a text may lead to.
struct Places {
    /// Before the token of this number; the last stands for the end.
    before: Vec<bool>,
    /// Inside the folders that `**/` stands for.
    inside: Vec<bool>,
}

impl Places {
    fn new(len: usize) -> Self {
        Self { before: vec![false; len + 1], inside: vec![false; len + 1] }
    }

    /// Adds a position, and those that can be reached from it without another byte.
    fn enter(&mut self, tokens: &[Token], at: usize) {
        for at in at..=tokens.len() {
            self.before[at] = true;
            match tokens.get(at) {
                Some(Token::Folders) => self.inside[at] = true,
                Some(Token::Star | Token::Deep) => {}
                _ => break,
            }
        }
    }
}

fn range((start, end): (u32, u32)) -> Range<usize> {
    start as usize..end as usize
}

impl Literal {
    fn bytes<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        &text[range((self.start, self.start + self.len))]
    }
}

/// Compiles a pattern into tokens. In a pattern for whole paths, `**` between slashes stands for any number of folders. Returns whether a
/// range in it runs backwards.
fn compile(text: &[u8], whole: bool, tokens: &mut Vec<Token>, sets: &mut Vec<Set>) -> bool {
    let (mut at, mut backwards) = (0, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'*' => {
                let end = at + text[at..].iter().take_while(|byte| **byte == b'*').count();
                let begins = at == 0 || text[at - 1] == b'/';
                let rest = &text[end..];
                let ends = rest.is_empty() || rest[0] == b'/' || rest.starts_with(b"\\/");
                let deep = whole && end - at > 1 && begins && ends;
                at = end;
                match (deep, rest.first()) {
                    (false, _) => tokens.push(Token::Star),
                    (true, None) => tokens.push(Token::Deep),
                    (true, Some(b'/')) => {
                        tokens.push(Token::Folders);
                        at += 1;
                    }
                    // An escaped slash: at least one folder.
                    (true, Some(_)) => {
                        tokens.extend([Token::Star, Token::Byte(b'/'), Token::Folders]);
                        at += 2;
                    }
                }
            }
            b'?' => {
                tokens.push(Token::One);
                at += 1;
            }
            b'\\' => {
                tokens.push(text.get(at + 1).map_or(Token::Never, |byte| Token::Byte(*byte)));
                at += 2;
            }
            b'[' => {
                let Some(class) = class(&text[at + 1..]) else {
                    tokens.push(Token::Never);
                    return backwards;
                };
                tokens.push(Token::Class(sets.len() as u32));
                sets.push(class.set);
                backwards |= class.backwards;
                at += 1 + class.len;
            }
            byte => {
                tokens.push(Token::Byte(*byte));
                at += 1;
            }
        }
    }
    backwards
}

/// `[...]`
struct Class {
    set: Set,
    /// Its length, without the opening bracket.
    len: usize,
    /// Whether a range in it runs backwards, so that only its first character counts.
    backwards: bool,
}

/// Reads a class after its `[`. `None` if it is not closed or malformed.
fn class(text: &[u8]) -> Option<Class> {
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let (mut set, mut backwards): (Set, bool) = ([0; 4], false);
    let mut put = |byte: u8| set[usize::from(byte >> 6)] |= 1 << (byte & 63);
    // The preceding character, if a range may begin with it.
    let mut low: Option<u8> = None;
    loop {
        let byte = *text.get(at)?;
        if byte == b'\\' {
            at += 1;
            let escaped = *text.get(at)?;
            put(escaped);
            low = Some(escaped);
        } else if let (b'-', Some(from), Some(next)) = (byte, low, text.get(at + 1).filter(|next| **next != b']')) {
            at += 1;
            let mut until = *next;
            if until == b'\\' {
                at += 1;
                until = *text.get(at)?;
            }
            (from..=until).for_each(&mut put);
            backwards |= from > until;
            low = None;
        } else if byte == b'[' && text.get(at + 1) == Some(&b':') {
            let start = at + 2;
            let end = start + text.get(start..)?.iter().position(|byte| *byte == b']')?;
            if end > start && text[end - 1] == b':' {
                let is_member = named_class(&text[start..end - 1])?;
                (0..=255).filter(|byte: &u8| is_member(byte)).for_each(&mut put);
                at = end;
                low = None;
            } else {
                put(b'[');
                low = Some(b'[');
            }
        } else {
            put(byte);
            low = Some(byte);
        }
        at += 1;
        // A closing bracket right at the start is one of the characters.
        if *text.get(at)? == b']' {
            break;
        }
    }
    if negated {
        set.iter_mut().for_each(|part| *part = !*part);
    }
    // No wildcard matches a slash.
    set[usize::from(b'/' >> 6)] &= !(1 << (b'/' & 63));
    Some(Class { set, len: at + 1, backwards })
}

fn named_class(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

/// Whether the whole text matches. Only the last `*` is ever tried again, and only the last `**`: what earlier ones match does not change
/// what can follow.
fn matches(tokens: &[Token], sets: &[Set], text: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    let mut deep: Option<(usize, usize)> = None;
    loop {
        let fits = match (tokens.get(token), text.get(at)) {
            (Some(Token::Star), _) => {
                token += 1;
                star = Some((token, at));
                continue;
            }
            (Some(Token::Deep), _) | (None, None) => return true,
            (Some(Token::Folders), _) => {
                token += 1;
                (star, deep) = (None, Some((token, at)));
                continue;
            }
            (Some(Token::Byte(wanted)), Some(byte)) => wanted == byte,
            (Some(Token::One), Some(byte)) => *byte != b'/',
            (Some(Token::Class(number)), Some(byte)) => {
                sets[*number as usize][usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
            }
            (Some(Token::Never), _) => return false,
            _ => false,
        };
        if fits {
            (token, at) = (token + 1, at + 1);
            continue;
        }
        if let Some((next, from)) = star
            && text.get(from).is_some_and(|byte| *byte != b'/')
        {
            star = Some((next, from + 1));
            (token, at) = (next, from + 1);
            continue;
        }
        // The next folder down.
        let Some((next, from)) = deep else { return false };
        let Some(step) = text[from..].iter().position(|byte| *byte == b'/') else { return false };
        (star, deep) = (None, Some((next, from + step + 1)));
        (token, at) = (next, from + step + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(lines: &[&[u8]]) -> Patterns {
        let mut patterns = Patterns::default();
        lines.iter().for_each(|line| patterns.add(line).unwrap());
        patterns.ready()
    }

    #[track_caller]
    fn check(lines: &[&str], hits: &[&str], misses: &[&str]) {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        let patterns = patterns(&lines);
        let hit = |path: &str| {
            patterns
                .decide(path.trim_end_matches('/').as_bytes(), path.ends_with('/'))
                .is_some_and(|found| found.excluded)
        };
        hits.iter().for_each(|path| assert!(hit(path), "{path} should match"));
        misses.iter().for_each(|path| assert!(!hit(path), "{path} should not match"));
    }

    /// Everything below two folders with equal results is decided alike: tried with short paths of few letters, and patterns of all
    /// kinds.
    #[test]
    fn what_counts_of_a_folder_decides_what_is_below() {
        let pieces: [&[u8]; 14] =
            [b"a", b"b", b"ab", b"*", b"a*", b"*b", b"?", b"[!a]", b"**", b"a**b", b"\\a", b"\xc3\x84", b"A", b"b\xff"];
        let names: [&[u8]; 7] = [b"a", b"b", b"ab", b"ba", "\u{e4}".as_bytes(), b"B", b"b\xff"];
        let mut paths: Vec<Vec<u8>> = vec![Vec::new()];
        for depth in 0..3 {
            let above: Vec<Vec<u8>> =
                paths.iter().filter(|path| crate::path::components(path).count() == depth).cloned().collect();
            paths.extend(above.iter().flat_map(|path| names.map(|name| crate::path::join(path, name))));
        }
        let mut dice = 7_u64;
        let mut next = move |below: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) as usize % below
        };
        let (mut shared, mut told) = (0, 0);
        for _ in 0..400 {
            let mut set = Patterns::default();
            for _ in 0..=next(3) {
                let mut line = [&b""[..], b"/", b"!", b":(icase)", b"**/"][next(5)].to_vec();
                for part in 0..=next(3) {
                    line.extend_from_slice(if part > 0 { b"/" } else { b"" });
                    line.extend_from_slice(pieces[next(pieces.len())]);
                }
                line.extend_from_slice([&b""[..], b"/", b"/**"][next(3)]);
                set.add(&line).unwrap();
            }
            let set = set.ready();
            let mut known: std::collections::HashMap<Vec<u8>, Vec<Option<Decision>>> = std::collections::HashMap::new();
            for folder in paths.iter().filter(|path| crate::path::components(path).count() < 3) {
                let mut key = Vec::new();
                set.put_ahead(folder, &mut key);
                let below = paths.iter().filter(|path| !path.is_empty());
                let decided: Vec<Option<Decision>> =
                    below.map(|path| set.decide(&crate::path::join(folder, path), path.len() % 2 == 0)).collect();
                told += usize::from(decided.iter().any(Option::is_some));
                if let Some(same) = known.get(&key) {
                    shared += 1;
                    assert_eq!(*same, decided, "{folder:?} {set:?}");
                }
                known.insert(key, decided);
            }
        }
        assert!(shared > 10_000 && told > 5_000, "{shared} folders with equal results, {told} with a decision");
    }

    #[test]
    fn braces_are_characters() {
        check(&["{x}"], &["{x}", "a/{x}"], &["x"]);
        check(&["*.{c,h}"], &["a.{c,h}"], &["a.c", "a.h"]);
        check(&["/a{"], &["a{"], &["a", "b/a{"]);
    }

    #[test]
    fn blanks_at_the_end_count_only_if_escaped() {
        check(&["a  ", "b\\ ", "c\t", "d\\  "], &["a", "b ", "c\t", "d "], &["a  ", "b", "c", "d", "d  "]);
        check(&["   "], &[], &["   "]);
    }

    #[test]
    fn brackets_hold_what_they_do_in_git() {
        check(&["[]-]x"], &["]x", "-x"], &["ax"]);
        check(&["[[:digit:][:upper:]]"], &["1", "A"], &["a", ":"]);
        check(&["[\\]a-c]"], &["]", "b"], &["\\", "d"]);
        check(&["[!a-c]z", "[^d]y"], &["dz", "ay"], &["az", "dy"]);
        check(&["a/[!b]c"], &["a/xc"], &["a/bc", "a//c"]);
        check(&["[z-a]", "x[", "y[[:no:]]", "w\\"], &["z"], &["a", "x[", "yn", "w\\", "w"]);
        check(&["a/**\\/b"], &["a/x/b", "a/x/y/b"], &["a/b"]);
        check(&["[[:x]"], &["[", ":", "x"], &["a"]);
    }

    #[test]
    fn two_stars_between_slashes_are_any_folders() {
        check(&["**/foo"], &["foo", "a/b/foo"], &["xfoo"]);
        check(&["foo/**"], &["foo/a", "foo/a/b"], &["foo", "x/foo/a"]);
        check(&["a/**/b"], &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb", "x/a/b"]);
        check(&["a/**/*/c/**/d"], &["a/b/c/d", "a/b/c/c/x/d"], &["a/c/d"]);
        check(&["a**z"], &["az", "abz", "x/abz"], &["a/z"]);
        check(&["/**"], &["a", "a/b"], &[]);
        check(&["x/a*b*c/d"], &["x/abc/d", "x/aXbYc/d"], &["x/ab/c/d"]);
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        check(&["*.log", "!keep.log", "k*.log/"], &["a.log", "keep.log/"], &["keep.log"]);
        check(&["a", "!a", "a/"], &["a/"], &["a"]);
        check(&["!a", "a", "#a", "\\#a", "\\!b", ""], &["a", "#a", "!b"], &["b"]);
        check(&["a/", "!a"], &[], &["a", "a/"]);
    }

    #[test]
    fn case_counts_unless_it_is_said_not_to() {
        check(&["*.JPG"], &["a.JPG"], &["a.jpg"]);
        check(&[":(icase)*.Jpg", ":(icase)/Ärger"], &["a.jpg", "A.JPG", "ÄRGER", "ärger"], &["x/ärger"]);
        check(&[":(icase)*.jpg", "!keep.JPG"], &["keep.jpg"], &["keep.JPG"]);
        check(&[":(icase)!a", "A"], &["A"], &["a"]);
    }

    #[test]
    fn bytes_that_are_no_text_match_too() {
        let patterns = patterns(&[b"\xff*", b"/x/\xfe"]);
        assert_eq!(patterns.decide(b"a/\xffb", false).map(|found| found.excluded), Some(true));
        assert_eq!(patterns.decide(b"x/\xfe", false).map(|found| found.excluded), Some(true));
        assert_eq!(patterns.decide(b"x/y", false), None);
    }

    #[test]
    fn patterns_that_never_match_are_told() {
        for bad in ["a[", "a[z-b]", "[!z-a]", "a\\", ":(icase)[[:x:]]"] {
            assert!(flaw(bad).is_some(), "{bad}");
        }
        for good in ["a", "{a", "[a]", "", "# [", "[!a-z]", "a\\ "] {
            assert_eq!(flaw(good), None, "{good}");
        }
        assert!(Patterns::default().add(&vec![b'a'; LEN_MAX + 1]).is_err());
    }

    #[test]
    fn no_pattern_takes_long() {
        let line = b"a/**/".repeat(2000);
        let path = b"a/".repeat(4000);
        let patterns = patterns(&[&line, &b"*a".repeat(5000), b"x"]);
        assert_eq!(patterns.decide(&[&path[..], b"b"].concat(), false), None);
        assert_eq!(patterns.decide(&b"a".repeat(4999), false), None);
    }
}
