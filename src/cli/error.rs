//! What ends a command early: a message, what to do, an exit code.

use std::fmt::Write as _;

use crate::{
    execute::exit::{self, ExitCode},
    model::RemoteFailure,
    render::{Palette, escape, findings, style::Style},
};

/// An error at the edge. The message is complete; nothing else is printed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CliError {
    /// How the process ends.
    pub(super) exit: ExitCode,
    /// What is wrong, one or more lines, already safe for a terminal.
    message: String,
    /// What to do.
    hints: Vec<String>,
    /// Printed as it is, for diagnostics that have a form of their own.
    verbatim: bool,
}

impl CliError {
    /// An error with this exit code.
    pub(super) fn new(exit: ExitCode, message: impl AsRef<str>) -> Self {
        let message = escape::terminal(message.as_ref()).into_owned();
        Self { exit, message, hints: Vec::new(), verbatim: false }
    }

    /// A wrong command line.
    pub(super) fn usage(message: impl AsRef<str>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// Something that failed before anything was changed.
    pub(super) fn failed(message: impl AsRef<str>) -> Self {
        Self::new(ExitCode::Failed, message)
    }

    /// Rendered diagnostics.
    pub(super) fn verbatim(exit: ExitCode, text: String) -> Self {
        Self { exit, message: text, hints: Vec::new(), verbatim: true }
    }

    /// A failed call.
    pub(super) fn remote(failure: &RemoteFailure) -> Self {
        let exit = exit::of_failure(failure);
        let mut error = Self::new(exit, format!("cannot {}: {}", failure.tried, failure.message));
        if let Some(details) = findings::failure_details(failure) {
            // Writing to a string cannot fail.
            let _ = write!(error.message, " ({details})");
        }
        error.hints.extend(failure.hint.as_deref().map(|hint| escape::terminal(hint).into_owned()));
        error
    }

    /// The same error with something to do.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hints.push(escape::terminal(hint.as_ref()).into_owned());
        self
    }

    /// The same error with another exit code.
    #[must_use]
    pub(super) fn with_exit(mut self, exit: ExitCode) -> Self {
        self.exit = exit;
        self
    }

    /// The error as text for standard error.
    pub(super) fn render(&self, palette: Palette) -> String {
        if self.verbatim {
            return self.message.clone();
        }
        let mut text = format!("{} {}\n", palette.paint(Style::Alarm, "error:"), self.message);
        for hint in &self.hints {
            let _ = writeln!(text, "{} {hint}", palette.paint(Style::Add, "hint:"));
        }
        text
    }
}
