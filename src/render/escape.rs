//! Text from the world is data: it may not move the cursor, recolour a line, reorder letters,
//! start a line of its own or end a code fence.

use std::{borrow::Cow, fmt::Write as _};

/// Whether a character would be invisible, move the cursor or reorder its neighbours.
///
/// Covers C0 and C1 controls, line and paragraph separators, the bidirectional controls of
/// Unicode Standard Annex 9, zero-width and other default-ignorable format characters, variation
/// selectors and tag characters.
fn treacherous(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{00ad}'
                | '\u{034f}'
                | '\u{061c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Makes text safe for one line of a terminal. What is hidden becomes visible: `\n`, `\t`,
/// `\u{202e}`.
pub fn terminal(text: &str) -> Cow<'_, str> {
    if !text.chars().any(treacherous) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        push_terminal(&mut safe, c);
    }
    Cow::Owned(safe)
}

/// Appends one character as [`terminal`] writes it.
pub(super) fn push_terminal(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if treacherous(c) => {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
        c => out.push(c),
    }
}

/// The longest run of backticks in a text: a fence or code span must be longer.
fn longest_backticks(text: &str) -> usize {
    let mut longest = 0;
    let mut run = 0;
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// A Markdown code span that is safe inside a table cell. Nothing inside it is markup: no link,
/// no mention, no HTML.
pub fn code(text: &str) -> String {
    let safe = terminal(text).replace('|', "\\|");
    let ticks = "`".repeat(longest_backticks(&safe) + 1);
    // A span that begins or ends with a backtick needs a space, which renderers strip again.
    let pad = if safe.starts_with('`') || safe.ends_with('`') { " " } else { "" };
    if safe.is_empty() { String::new() } else { format!("{ticks}{pad}{safe}{pad}{ticks}") }
}

/// A Markdown fence of the given language around lines that are already safe for a terminal.
pub fn fence(language: &str, body: &str) -> String {
    let ticks = "`".repeat(longest_backticks(body).max(2) + 1);
    let newline = if body.ends_with('\n') { "" } else { "\n" };
    format!("{ticks}{language}\n{body}{newline}{ticks}\n")
}

/// Plain prose in Markdown: every character that could be markup is escaped.
pub fn markdown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    for c in terminal(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            // An entity alone would still be read as a mention; the joiner splits the word.
            '@' => safe.push_str("@&#8203;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '|' | '~' | '!' => {
                safe.push('\\');
                safe.push(c);
            }
            c => safe.push(c),
        }
    }
    safe
}

/// Text inside an HTML element such as `<summary>`.
pub fn html(text: &str) -> String {
    let safe = terminal(text);
    safe.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_hides_is_shown() {
        assert_eq!(terminal("\u{1b}[31mred\u{7}"), "\\u{1b}[31mred\\u{7}");
        assert_eq!(terminal("a\nPlan: 0 to add"), "a\\nPlan: 0 to add");
        assert_eq!(terminal("ad\u{202e}nim"), "ad\\u{202e}nim");
        assert_eq!(terminal("pay\u{200b}ments"), "pay\\u{200b}ments");
        assert_eq!(terminal("\u{9b}2J"), "\\u{9b}2J");
        assert!(matches!(terminal("Zahlungen-äöü 支払い"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_code_span_cannot_be_closed_from_inside() {
        assert_eq!(code("a`b"), "``a`b``");
        assert_eq!(code("`"), "`` ` ``");
        assert_eq!(code("a|b"), "`a\\|b`");
        assert_eq!(code("x\n```"), "```` x\\n``` ````");
    }

    #[test]
    fn a_fence_is_longer_than_any_in_its_body() {
        assert!(fence("diff", "```\n@here").starts_with("````diff\n"));
        assert!(fence("diff", "x").ends_with("\n```\n"));
    }

    #[test]
    fn prose_and_html_carry_no_markup() {
        assert_eq!(markdown("<b>@team [x](y)"), "&lt;b&gt;@&#8203;team \\[x\\]\\(y\\)");
        assert_eq!(html("</summary><img>"), "&lt;/summary&gt;&lt;img&gt;");
    }
}
