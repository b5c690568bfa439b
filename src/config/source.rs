//! The text of the files that were read, and places in it.

use std::ops::Range;

use crate::model::Origin;

/// One of the files of a configuration: the root file is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(usize);

/// A stretch of a file, in bytes. Never splits a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// A stretch of a file.
    pub fn new(file: FileId, range: Range<usize>) -> Self {
        Self { file, start: range.start, end: range.end.max(range.start) }
    }
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Span,
}

impl<T> Located<T> {
    /// Another value at the same place.
    pub fn with<U>(&self, value: U) -> Located<U> {
        Located { value, span: self.span }
    }
}

/// A file that was read.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Its path as the user named it, or as an include resolved it.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The byte at which each line starts.
    lines: Vec<usize>,
}

/// Every file that was read.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

/// A line and a column, both from one; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line, from one.
    pub line: usize,
    /// Column in characters, from one.
    pub column: usize,
}

impl Sources {
    /// Adds a file.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> FileId {
        let (name, text) = (name.into(), text.into());
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
        let lines = lines.collect();
        self.files.push(SourceFile { name, text, lines });
        FileId(self.files.len() - 1)
    }

    /// A file that was added here.
    pub fn file(&self, id: FileId) -> &SourceFile {
        &self.files[id.0]
    }

    /// The text of a place.
    pub fn text(&self, span: Span) -> &str {
        self.file(span.file).text.get(span.start..span.end).unwrap_or_default()
    }

    /// Where a place begins, as messages and plans name it.
    pub fn origin(&self, span: Span) -> Origin {
        let file = self.file(span.file);
        let position = file.position(span.start);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Origin {
            file: file.name.clone(),
            line: count(position.line),
            column: count(position.column),
        }
    }
}

impl SourceFile {
    /// The line and column of a byte.
    pub fn position(&self, byte: usize) -> Position {
        let line = self.lines.partition_point(|start| *start <= byte).max(1);
        let start = self.lines[line - 1];
        let before = self.text.get(start..byte).unwrap_or_default();
        Position { line, column: before.chars().count() + 1 }
    }

    /// The bytes of the lines `first..=last`, counted from one; lines beyond the end are left out.
    pub fn line_range(&self, first: usize, last: usize) -> Range<usize> {
        let start = self.lines.get(first.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let end = self.lines.get(last).copied().unwrap_or(self.text.len());
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let mut sources = Sources::default();
        let id = sources.add("a.toml", "ab\nä = \"ö\"\n");
        let origin = sources.origin(Span::new(id, 8..10));
        assert_eq!(origin.to_string(), "a.toml:2:5");
        assert_eq!(sources.text(Span::new(id, 3..5)), "ä");
        assert_eq!(sources.file(id).line_range(2, 2), 3..13);
        assert_eq!(sources.file(id).position(0), Position { line: 1, column: 1 });
    }
}
