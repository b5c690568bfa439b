//! Colour, which never carries meaning alone: every coloured word is also a symbol or a word.

use std::fmt;

/// What a piece of text is; the palette knows how that looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A heading.
    Heading,
    /// Something new, or done.
    Add,
    /// Something that changes, or waits.
    Change,
    /// A risk, a refusal or a failure.
    Alarm,
    /// A rollout.
    Rollout,
    /// Context that may be skipped.
    Dim,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Heading => "1",
            Self::Add => "32",
            Self::Change => "33",
            Self::Alarm => "31;1",
            Self::Rollout => "36",
            Self::Dim => "2",
        }
    }
}

/// Whether one stream is coloured. Standard output and standard error are decided apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Palette {
    /// Whether escape sequences are written.
    pub coloured: bool,
}

impl Palette {
    /// No colour.
    pub const PLAIN: Self = Self { coloured: false };

    /// Text in a style. The text must already be safe for a terminal.
    pub fn paint(self, style: Style, text: impl fmt::Display) -> String {
        if self.coloured {
            format!("\u{1b}[{}m{text}\u{1b}[0m", style.code())
        } else {
            text.to_string()
        }
    }
}
