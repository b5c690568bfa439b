//! What the documents of all commands of `migrate` begin with.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::execute::exit::ExitCode;

/// The version of the documents of `migrate`.
const FORMAT_VERSION: &str = "1.0";

/// Whose document it is and how the run ends.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// For example `migrate finish`.
    pub command: &'static str,
    /// The project.
    pub project: &'a str,
    /// Whether the world is the sandbox's.
    pub sandbox: bool,
    /// How the run ends.
    pub exit: ExitCode,
}

impl Head<'_> {
    /// The document: what is said in one sentence, and the members of the command's own.
    pub fn over<T>(self, summary: String, of: T) -> Headed<T> {
        Headed {
            format_version: FORMAT_VERSION.to_owned(),
            command: self.command.to_owned(),
            project: self.project.to_owned(),
            sandbox: self.sandbox,
            exit_code: self.exit.code(),
            summary,
            of,
        }
    }
}

/// A document of a command of `migrate`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "MigrateDocument")]
pub struct Headed<T> {
    /// The version of this format.
    pub format_version: String,
    /// The command that wrote it, for example `migrate finish`.
    pub command: String,
    /// The project.
    pub project: String,
    /// Whether the world is the sandbox's.
    pub sandbox: bool,
    /// The exit code, and with it the verdict.
    pub exit_code: u8,
    /// The verdict in one sentence, as the last line of text.
    pub summary: String,
    /// The members of the command's own.
    #[serde(flatten)]
    pub of: T,
}

/// The members of any command's own.
pub type Any = Map<String, Value>;
