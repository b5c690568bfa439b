//! Finds every known failure in a stream of bytes: bounded memory, whatever the bytes are.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::{AhoCorasick, MatchKind};
use serde::Serialize;

use super::{
    catalogue::{self, Entry},
    values::{Values, extract},
};

/// What Entra's codes begin with.
const ENTRA: &str = "AADSTS";
/// A line is looked at in pieces of this many bytes.
const PIECE: usize = 64 * 1024;
/// Pieces of one line share this many bytes, so that nothing is cut in two. Longer than every
/// phrase.
const SHARED: usize = 512;
/// Entra's codes have fewer digits than this.
const DIGITS: usize = 10;
/// What a line must hold besides the phrase, where the phrase alone says too little.
const ALSO: [(&str, &str); 2] =
    [("account-not-found", "not found"), ("selector-immutable", "immutable")];
/// After so many lines with the same failure no more values are read: they repeat.
const READ: u64 = 1000;
/// At most this many codes that are not in the catalogue are kept.
const UNKNOWN: usize = 64;

/// A failure that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The code.
    pub code: String,
    /// What is known about it; none for a code of Entra that the catalogue does not hold.
    pub entry: Option<&'static Entry>,
    /// On how many lines it stands.
    pub lines: u64,
    /// The first of them, from one.
    pub first_line: u64,
    /// Values that stand beside it.
    pub values: Values,
}

/// What a whole stream held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scan {
    /// Failures, by first line.
    pub found: Vec<Found>,
    /// Lines read.
    pub lines: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Takes bytes as they come.
pub struct Scanner {
    automaton: AhoCorasick,
    /// The entry of each pattern; none for [`ENTRA`].
    patterns: Vec<Option<&'static Entry>>,
    line: Vec<u8>,
    /// Whether the present line holds anything.
    open: bool,
    number: u64,
    bytes: u64,
    /// Codes found on the present line already.
    here: BTreeSet<String>,
    found: BTreeMap<String, Found>,
}

impl Scanner {
    /// A scanner of everything in the catalogue. `None` cannot happen with the catalogue as it is:
    /// the phrases are few and short.
    pub fn new() -> Option<Self> {
        let mut phrases = vec![ENTRA];
        let mut patterns = vec![None];
        for entry in catalogue::all() {
            for phrase in entry.phrases {
                phrases.push(phrase);
                patterns.push(Some(entry));
            }
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(phrases)
            .ok()?;
        Some(Self {
            automaton,
            patterns,
            line: Vec::with_capacity(PIECE),
            open: false,
            number: 1,
            bytes: 0,
            here: BTreeSet::new(),
            found: BTreeMap::new(),
        })
    }

    /// Takes the next bytes. Zero bytes are dropped, so that UTF-16 text is read too.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, ends) = match part.strip_suffix(b"\n") {
                Some(part) => (part, true),
                None => (part, false),
            };
            for piece in part.chunks(PIECE) {
                let before = self.line.len();
                self.line.extend(piece.iter().filter(|byte| **byte != 0));
                self.open |= self.line.len() > before;
                if self.line.len() >= PIECE {
                    self.look(false);
                    let keep = self.line.len().saturating_sub(SHARED);
                    self.line.drain(..keep);
                }
            }
            if ends {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        self.look(true);
        self.line.clear();
        self.open = false;
        self.here.clear();
        self.number += 1;
    }

    /// Looks at what is held of the line; `whole`: nothing follows on it.
    fn look(&mut self, whole: bool) {
        let mut hits: Vec<(String, Option<&'static Entry>)> = Vec::new();
        for hit in self.automaton.find_overlapping_iter(&self.line) {
            if let Some(entry) = self.patterns.get(hit.pattern().as_usize()).copied().flatten() {
                hits.push((entry.code.to_owned(), Some(entry)));
            } else {
                // A number that may go on in the next piece is seen there.
                if !whole && hit.end() + DIGITS > self.line.len() {
                    continue;
                }
                let digits = self.line[hit.end()..].iter();
                let digits: String = digits
                    .take(DIGITS)
                    .map(|b| char::from(*b))
                    .take_while(char::is_ascii_digit)
                    .collect();
                if digits.len() > 3 {
                    let code = format!("{ENTRA}{digits}");
                    let entry = catalogue::lookup(&code);
                    hits.push((code, entry));
                }
            }
        }
        if hits.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&self.line).into_owned();
        for (code, entry) in hits {
            if ALSO.iter().any(|(of, also)| *of == code && !text.contains(also)) {
                continue;
            }
            // Before anything is kept: a line may hold any number of codes.
            if entry.is_none() && !self.found.contains_key(&code) {
                let strange = self.found.values().filter(|found| found.entry.is_none()).count();
                if strange >= UNKNOWN {
                    continue;
                }
            }
            if !self.here.insert(code.clone()) {
                continue;
            }
            let found = self.found.entry(code.clone()).or_insert_with(|| Found {
                code,
                entry,
                lines: 0,
                first_line: self.number,
                values: Values::default(),
            });
            found.lines += 1;
            if found.lines <= READ {
                extract(&text, &mut found.values);
            }
        }
    }

    /// Ends the stream.
    pub fn finish(mut self) -> Scan {
        self.look(true);
        let lines = self.number - u64::from(!self.open);
        let mut found: Vec<Found> = self.found.into_values().collect();
        drop_general(&mut found);
        found.sort_by(|a, b| (a.first_line, &a.code).cmp(&(b.first_line, &b.code)));
        Scan { found, lines, bytes: self.bytes }
    }
}

/// A text that belongs to several codes (`Request to External OIDC endpoint failed`) is counted
/// for its own entry even where the code stands beside it; the code says more.
fn drop_general(found: &mut Vec<Found>) {
    const SAME_TEXT: [(&str, &[&str]); 4] = [
        ("AADSTS90061", &["AADSTS50166", "AADSTS501661"]),
        ("AADSTS700213", &["AADSTS7002138"]),
        ("AADSTS700016", &["AADSTS700011"]),
        ("authorization-failed", &["linked-authorization-failed"]),
    ];
    for (general, special) in SAME_TEXT {
        let lines: u64 = found
            .iter()
            .filter(|found| special.contains(&found.code.as_str()))
            .map(|found| found.lines)
            .sum();
        if let Some(at) = found.iter().position(|found| found.code == general) {
            found[at].lines = found[at].lines.saturating_sub(lines);
            if found[at].lines == 0 {
                found.remove(at);
            }
        }
    }
}

/// Scans a text at once.
pub fn scan(text: &[u8]) -> Option<Scan> {
    let mut scanner = Scanner::new()?;
    scanner.feed(text);
    Some(scanner.finish())
}

#[cfg(test)]
mod tests {
    use super::{super::values::Kind, *};

    fn codes(text: &[u8]) -> Vec<(String, u64, u64)> {
        let found = scan(text).unwrap().found;
        found.into_iter().map(|found| (found.code, found.lines, found.first_line)).collect()
    }

    #[test]
    fn each_failure_is_found_once_with_count_and_first_line() {
        let log = "start\nAADSTS700213: no … assertion subject 'system:serviceaccount:a:b'\nok\n\
                   aadsts700213: again\nno client ID specified. Check pod configuration\nAADSTS123456: what\n";
        assert_eq!(
            codes(log.as_bytes()),
            [
                ("AADSTS700213".to_owned(), 2, 2),
                ("sdk-no-client-id".to_owned(), 1, 5),
                ("AADSTS123456".to_owned(), 1, 6)
            ]
        );
        let scan = scan(log.as_bytes()).unwrap();
        assert_eq!(scan.lines, 6);
        assert_eq!(scan.found[0].values.first(Kind::Subject), Some("system:serviceaccount:a:b"));
        assert!(scan.found[2].entry.is_none());
    }

    #[test]
    fn chunks_long_lines_and_binary_change_nothing() {
        let mut log = vec![0xff, 0xfe, 0x00, 0x80, b'\n'];
        log.extend(std::iter::repeat_n(b'x', PIECE * 3 - 7));
        log.extend_from_slice(b" AADSTS70021: nothing \n");
        log.extend(std::iter::repeat_n(0xc3, 100));
        let whole = scan(&log).unwrap();
        assert_eq!((whole.found.len(), whole.found[0].first_line, whole.found[0].lines), (1, 2, 1));
        for size in [1, 7, 4096] {
            let mut scanner = Scanner::new().unwrap();
            log.chunks(size).for_each(|chunk| scanner.feed(chunk));
            assert_eq!(scanner.finish(), whole, "chunks of {size}");
        }
    }

    #[test]
    fn utf_16_is_read() {
        let text = "one\nAADSTS700016: Application with identifier 'x' was not found\n";
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(codes(&bytes), [("AADSTS700016".to_owned(), 1, 2)]);
    }

    #[test]
    fn what_says_more_stands_alone() {
        let linked = "{\"code\":\"LinkedAuthorizationFailed\",\"message\":\"The client 'x' does not have authorization to perform action 'y' on the linked scope\"}";
        assert_eq!(codes(linked.as_bytes()), [("linked-authorization-failed".to_owned(), 1, 1)]);
        let both = "AADSTS700011: Application with identifier 'x' was not found in the directory";
        assert_eq!(codes(both.as_bytes()), [("AADSTS700011".to_owned(), 1, 1)]);
    }

    #[test]
    fn strange_codes_on_one_line_are_bounded() {
        let mut scanner = Scanner::new().unwrap();
        for number in 0..5000 {
            scanner.feed(format!("AADSTS{:09} ", 900_000_000 + number).as_bytes());
        }
        scanner.look(true);
        assert_eq!((scanner.here.len(), scanner.found.len()), (UNKNOWN, UNKNOWN));
    }

    #[test]
    fn memory_does_not_grow_with_the_stream() {
        let mut scanner = Scanner::new().unwrap();
        let block = vec![b'a'; 1 << 20];
        for _ in 0..8 {
            scanner.feed(&block);
            assert!(scanner.line.capacity() <= 4 * PIECE);
        }
        assert_eq!(scanner.finish().lines, 1);
    }
}
