//! Problems of a configuration: what, where, and what to do.

use std::fmt;

use serde::Serialize;

use super::{
    code::{Code, Severity},
    source::{Sources, Span},
};

/// One problem.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// What kind of problem.
    pub code: Code,
    /// The sentence: a lower-case fragment.
    pub message: String,
    /// The places, the offending one first. Empty where no text could be read.
    pub labels: Vec<Label>,
    /// What to do, one action each.
    pub help: Vec<String>,
}

/// A place with a word about it.
#[derive(Debug, Clone)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// The word; may be empty.
    pub text: String,
}

impl Diagnostic {
    /// A problem at a place.
    pub fn at(code: Code, span: Span, message: impl Into<String>) -> Self {
        let labels = vec![Label { span, text: String::new() }];
        Self { code, message: message.into(), labels, help: Vec::new() }
    }

    /// A problem with a file of which there is no text to show.
    pub fn unplaced(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), labels: Vec::new(), help: Vec::new() }
    }

    /// The word under the offending place.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        if let Some(first) = self.labels.first_mut() {
            first.text = text.into();
        }
        self
    }

    /// Another place that belongs to the problem.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// What to do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// "Did you mean", where something similar is known.
    #[must_use]
    pub fn suggest(self, similar: Option<&str>) -> Self {
        match similar {
            Some(word) => self.help(format!("did you mean `{word}`?")),
            None => self,
        }
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}

/// The problems of a configuration, in the order of the text, and the text.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    /// The files.
    pub sources: Sources,
    /// The problems, ordered by file, place and severity.
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Orders the problems as the files are read.
    pub fn new(sources: Sources, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by_key(|problem| {
            let place = problem.labels.first().map(|label| label.span);
            (place, problem.severity(), problem.code)
        });
        Self { sources, list }
    }

    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|problem| problem.severity() == Severity::Error).count()
    }

    /// How many are warnings.
    pub fn warnings(&self) -> usize {
        self.list.len() - self.errors()
    }

    /// The machine form, for `validate -o json`.
    pub fn records(&self) -> Vec<Record> {
        self.list.iter().map(|problem| Record::of(problem, &self.sources)).collect()
    }
}

impl fmt::Display for Diagnostics {
    /// The count, for example `2 errors, 1 warning`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        match (self.errors(), self.warnings()) {
            (errors, 0) => f.write_str(&count(errors, "error")),
            (0, warnings) => f.write_str(&count(warnings, "warning")),
            (errors, warnings) => {
                write!(f, "{}, {}", count(errors, "error"), count(warnings, "warning"))
            }
        }
    }
}

impl std::error::Error for Diagnostics {}

/// A problem for machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// The stable code.
    pub code: &'static str,
    /// `error` or `warning`.
    pub severity: Severity,
    /// The sentence.
    pub message: String,
    /// The offending place; absent where no text could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<PlaceRecord>,
    /// Other places that belong to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<PlaceRecord>,
    /// What to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub help: Vec<String>,
}

/// A place for machines. Lines and columns count from one, columns in characters; the end is the
/// position after the last character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlaceRecord {
    /// The file.
    pub file: String,
    /// First line.
    pub line: usize,
    /// First column.
    pub column: usize,
    /// Last line.
    pub end_line: usize,
    /// Column after the last character.
    pub end_column: usize,
    /// The word about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
}

impl Record {
    fn of(problem: &Diagnostic, sources: &Sources) -> Self {
        let place = |label: &Label| {
            let file = sources.file(label.span.file);
            let (start, end) = (file.position(label.span.start), file.position(label.span.end));
            PlaceRecord {
                file: file.name.clone(),
                line: start.line,
                column: start.column,
                end_line: end.line,
                end_column: end.column,
                label: label.text.clone(),
            }
        };
        let mut places = problem.labels.iter().map(place);
        Self {
            code: problem.code.as_str(),
            severity: problem.severity(),
            message: problem.message.clone(),
            place: places.next(),
            related: places.collect(),
            help: problem.help.clone(),
        }
    }
}
