//! Text that must never be shown.

use std::fmt;

/// A bearer token or assertion. Its `Debug` shows only that it is there; it has no `Display`.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Wraps a token as it came off the wire.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The token itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}
