//! The only reader of the environment, the clock and the terminal's nature.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, IsTerminal as _},
};

use jiff::Timestamp;

/// The environment of the process, read once. It may hold secrets: no `Debug`.
pub(super) struct Environment {
    variables: BTreeMap<OsString, OsString>,
    /// Whether standard input is a terminal.
    pub(super) stdin_is_terminal: bool,
    /// Whether standard output is a terminal.
    pub(super) stdout_is_terminal: bool,
    /// Whether standard error is a terminal.
    pub(super) stderr_is_terminal: bool,
}

impl Environment {
    /// Reads the process's environment.
    pub(super) fn read() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            stdin_is_terminal: io::stdin().is_terminal(),
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
        }
    }

    /// An environment for tests: these variables, no terminal.
    pub(super) fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables = variables.into_iter().map(|(key, value)| (key.into(), value.into()));
        Self {
            variables: variables.collect(),
            stdin_is_terminal: false,
            stdout_is_terminal: false,
            stderr_is_terminal: false,
        }
    }

    /// Whether a person can be asked: standard input and standard error are a terminal.
    pub(super) fn can_ask(&self) -> bool {
        self.stdin_is_terminal && self.stderr_is_terminal
    }

    /// A variable that is set, not empty and Unicode.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(&OsString::from(name))?.to_str()?;
        (!value.is_empty()).then_some(value)
    }

    /// The arguments of the process.
    pub(super) fn arguments() -> Vec<OsString> {
        std::env::args_os().collect()
    }

    /// The wall time.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    #[expect(clippy::unused_self, reason = "whoever reads the clock holds the environment")]
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
