//! Values that are nearly equal: which characters differ. A trailing slash of an issuer or one
//! capital letter of a subject breaks a chain, and nobody sees it in two long lines.

use similar::{ChangeTag, TextDiff};

use super::escape;

/// Shorter texts are taken in at a glance.
const SHORTEST: usize = 8;
/// Character differences of longer texts cost more than they tell.
const LONGEST: usize = 512;
/// The share of common characters from which two texts look the same at a glance.
const ALIKE: f32 = 0.75;

/// Two nearly equal texts, safe for a terminal, with the differing characters marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// The present text.
    pub before: String,
    /// Carets under the characters of `before` that `after` lacks; empty where there are none.
    pub before_marks: String,
    /// The wanted text.
    pub after: String,
    /// Carets under the characters of `after` that `before` lacks; empty where there are none.
    pub after_marks: String,
    /// What differs, in words.
    pub words: String,
}

/// Compares two texts character by character; nothing where they are equal or so different that
/// the difference is plain.
pub fn near(before: &str, after: &str) -> Option<Near> {
    let fits = |text: &str| (SHORTEST..=LONGEST).contains(&text.chars().count());
    if before == after || !fits(before) || !fits(after) {
        return None;
    }
    let diff = TextDiff::from_chars(before, after);
    if diff.ratio() < ALIKE {
        return None;
    }
    let (mut old, mut new) = (Marked::default(), Marked::default());
    for change in diff.iter_all_changes() {
        let text = change.value();
        match change.tag() {
            ChangeTag::Equal => {
                old.push(text, ' ');
                new.push(text, ' ');
            }
            ChangeTag::Delete => old.push(text, '^'),
            ChangeTag::Insert => new.push(text, '^'),
        }
    }
    let words = words(before, after, &old, &new);
    Some(Near {
        before: old.text,
        before_marks: trimmed(&old.marks),
        after: new.text,
        after_marks: trimmed(&new.marks),
        words,
    })
}

#[derive(Default)]
struct Marked {
    text: String,
    marks: String,
    /// Characters marked, before escaping.
    count: usize,
}

impl Marked {
    fn push(&mut self, text: &str, mark: char) {
        for c in text.chars() {
            let start = self.text.chars().count();
            escape::push_terminal(&mut self.text, c);
            // An escaped character takes several columns; the mark covers all of them.
            let columns = self.text.chars().count() - start;
            self.marks.extend(std::iter::repeat_n(mark, columns));
            self.count += usize::from(mark == '^');
        }
    }
}

fn trimmed(marks: &str) -> String {
    marks.trim_end().to_owned()
}

fn words(before: &str, after: &str, old: &Marked, new: &Marked) -> String {
    if before.strip_suffix('/') == Some(after) || after.strip_suffix('/') == Some(before) {
        return "only the trailing slash differs".to_owned();
    }
    if before.trim() == after.trim() {
        return "only white space at the ends differs".to_owned();
    }
    if before.to_lowercase() == after.to_lowercase() {
        return "only upper and lower case differ".to_owned();
    }
    match old.count.max(new.count) {
        1 => "one character differs".to_owned(),
        many => format!("{many} characters differ"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_slash_is_marked_and_named() {
        let near = near("https://oidc.example/t/c", "https://oidc.example/t/c/").unwrap();
        assert_eq!(near.words, "only the trailing slash differs");
        assert_eq!(near.before_marks, "");
        assert_eq!(near.after_marks.len(), near.after.len());
        assert!(near.after_marks.ends_with(" ^"));
    }

    #[test]
    fn case_and_hidden_characters_are_marked() {
        let a = near("system:serviceaccount:pay:api", "system:serviceaccount:pay:Api").unwrap();
        assert_eq!(a.words, "only upper and lower case differ");
        let b = near("system:serviceaccount:pay:api", "system:serviceaccount:pay:api\u{200b}");
        assert!(b.unwrap().after_marks.ends_with("^^^^^^^^"));
    }

    #[test]
    fn plainly_different_texts_are_left_alone() {
        assert_eq!(near("aaaaaaaaaaaa", "bbbbbbbbbbbb"), None);
        assert_eq!(near("true", "True"), None);
        assert_eq!(near("same-same-same", "same-same-same"), None);
    }
}
