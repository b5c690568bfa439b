//! Where two values that should be equal part, character by character, and what kind of slip it
//! is.

use serde::Serialize;

/// Two values that should be equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What they are, for example `issuer`.
    pub what: &'static str,
    /// The value that is there.
    pub have: String,
    /// The value it must be.
    pub want: String,
    /// How many characters agree from the start.
    pub at: usize,
    /// The kind of slip.
    pub slip: Slip,
    /// The first character that differs, spelled out where it cannot be seen: a blank, a control
    /// or a look-alike.
    pub unseen: Option<String>,
}

/// How two values differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slip {
    /// Only a `/` at the end.
    TrailingSlash,
    /// Only upper and lower case.
    Case,
    /// Only blanks or invisible characters.
    WhiteSpace,
    /// A few characters.
    Typo,
    /// More than that.
    Other,
}

/// Characters that a terminal shows as nothing or as a blank.
fn invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}')
}

fn strip(text: &str) -> String {
    text.chars().filter(|c| !invisible(*c)).collect()
}

/// Edits between two texts, counted up to `limit`.
pub(super) fn edits(a: &str, b: &str, limit: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > limit || a.len() > 600 {
        return limit + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()].min(limit + 1)
}

impl Difference {
    /// Compares two values; none if they are equal.
    pub fn between(what: &'static str, have: &str, want: &str) -> Option<Self> {
        if have == want {
            return None;
        }
        let slip = if have.trim_end_matches('/') == want.trim_end_matches('/') {
            Slip::TrailingSlash
        } else if strip(have) == strip(want) {
            Slip::WhiteSpace
        } else if have.to_lowercase() == want.to_lowercase() {
            Slip::Case
        } else if edits(have, want, 3) <= 3 {
            Slip::Typo
        } else {
            Slip::Other
        };
        let at = have.chars().zip(want.chars()).take_while(|(a, b)| a == b).count();
        let unseen = have.chars().nth(at).and_then(|c| {
            let hidden = invisible(c) || !c.is_ascii();
            hidden.then(|| format!("U+{:04X} at character {}", u32::from(c), at + 1))
        });
        Some(Self { what, have: have.to_owned(), want: want.to_owned(), at, slip, unseen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slip(have: &str, want: &str) -> Slip {
        Difference::between("issuer", have, want).unwrap().slip
    }

    #[test]
    fn slips_are_told_apart() {
        assert_eq!(slip("https://a/b", "https://a/b/"), Slip::TrailingSlash);
        assert_eq!(slip("https://a/B/", "https://a/b/"), Slip::Case);
        assert_eq!(slip(" https://a/b/", "https://a/b/"), Slip::WhiteSpace);
        assert_eq!(
            slip("system:serviceaccount:n:worker", "system:serviceaccount:n:workers"),
            Slip::Typo
        );
        assert_eq!(slip("https://a/b/", "https://other/c/d/e/"), Slip::Other);
        assert!(Difference::between("issuer", "x", "x").is_none());
    }

    #[test]
    fn a_character_that_cannot_be_seen_is_spelled_out() {
        let found = Difference::between("subject", "a\u{200b}b", "ab").unwrap();
        assert_eq!((found.at, found.unseen.as_deref()), (1, Some("U+200B at character 2")));
        assert_eq!(found.slip, Slip::WhiteSpace);
    }
}
