//! Commands of ours that are printed, with the options that brought this run to its world: one that
//! is pasted without them would act on another world. No stage knows these options, so that they
//! are put in where text is written.

use std::borrow::Cow;

use clap::CommandFactory as _;

use super::args::{Cli, Format, Global};
use crate::model::kubectl::quoted;

const PROGRAM: &str = "widentity ";
const SANDBOX: &str = "--sandbox ";
/// The beginning of a line that programs compare: it is the same in every run.
const STABLE: &str = "Proof: not run (";
/// Commands that no world is behind.
const WORLDLESS: [&str; 4] = ["explain", "schema", "completions", "help"];

/// The options of this run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Carried {
    /// `--sandbox`.
    sandbox: bool,
    /// The others, as a shell reads them, each with a blank after it.
    text: String,
    /// The same inside of a JSON string.
    json: String,
    /// Whether standard output is JSON.
    is_json: bool,
    /// The commands that need them.
    commands: Vec<String>,
}

impl Carried {
    /// What the command line says.
    pub(super) fn of(global: &Global) -> Self {
        let Global { config, sandbox, sandbox_state, output, .. } = global;
        let mut words = Vec::new();
        if config.as_os_str() != "workloads.toml" {
            words.extend(["-c".to_owned(), quoted(&config.display().to_string())]);
        }
        if let Some(path) = sandbox_state {
            words.extend(["--sandbox-state".to_owned(), quoted(&path.display().to_string())]);
        }
        let text: String = words.iter().flat_map(|word| [word.as_str(), " "]).collect();
        let json = serde_json::Value::from(text.as_str()).to_string();
        let commands = Cli::command();
        let commands = commands.get_subcommands().map(|command| command.get_name().to_owned());
        Self {
            sandbox: *sandbox,
            text,
            json: json.trim_matches('"').to_owned(),
            is_json: *output == Format::Json,
            commands: commands.filter(|name| !WORLDLESS.contains(&name.as_str())).collect(),
        }
    }

    /// What goes to standard output.
    pub(super) fn data<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.into(text, if self.is_json { &self.json } else { &self.text })
    }

    /// What goes to standard error.
    pub(super) fn message<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.into(text, &self.text)
    }

    fn into<'t>(&self, text: &'t str, options: &str) -> Cow<'t, str> {
        if !self.sandbox && options.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(PROGRAM) {
            let (before, found) = rest.split_at(at + PROGRAM.len());
            out.push_str(before);
            rest = found;
            // A heading names the program, and a longer word is another one.
            let before = &before[..at];
            let is_word = before.ends_with(|c: char| c.is_alphanumeric() || "-_./".contains(c));
            if is_word || before.ends_with("## ") || before.ends_with(STABLE) {
                continue;
            }
            let said = rest.strip_prefix(SANDBOX);
            let Some(command) = self.command(said.unwrap_or(rest)) else { continue };
            out.push_str(options);
            // `sandbox` acts on no other world.
            if self.sandbox && said.is_none() && command != "sandbox" {
                out.push_str(SANDBOX);
            }
        }
        out.push_str(rest);
        Cow::Owned(out)
    }

    /// The command at the beginning of a text.
    fn command(&self, text: &str) -> Option<&str> {
        let end = text.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(text.len());
        let (word, after) = text.split_at(end);
        let ends = after.is_empty() || after.starts_with(|c: char| " \n`'\",;.)\\".contains(c));
        let known = self.commands.iter().find(|command| *command == word);
        known.filter(|_| ends).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn said(line: &str, text: &str) -> String {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        Carried::of(&cli.global).data(text).into_owned()
    }

    #[test]
    fn a_command_carries_the_options_of_the_run() {
        let next = "next: widentity migrate apply --only shop/cart; `widentity plan`";
        assert_eq!(said("widentity migrate", next), next);
        assert_eq!(
            said("widentity --sandbox migrate", next),
            "next: widentity --sandbox migrate apply --only shop/cart; `widentity --sandbox plan`"
        );
        assert_eq!(
            said(
                "widentity -c o.toml --sandbox-state x.json sandbox reset",
                "widentity --sandbox migrate"
            ),
            "widentity -c o.toml --sandbox-state x.json --sandbox migrate"
        );
        assert_eq!(
            said("widentity -c o.toml --sandbox plan", "widentity sandbox reset"),
            "widentity -c o.toml sandbox reset"
        );
    }

    #[test]
    fn what_is_no_command_stays() {
        for text in [
            "widentity plan: project shop",
            "Proof: not run (widentity verify)",
            "### widentity plan (SANDBOX)",
            "<!-- widentity:plan shop -->",
            "widentity explain AADSTS700016",
            "what widentity writes",
            "/usr/bin/widentity plan",
        ] {
            assert_eq!(said("widentity --sandbox -c o.toml plan", text), text);
        }
    }

    #[test]
    fn json_stays_json() {
        let mut cli = Cli::try_parse_from(["widentity", "-o", "json", "plan"]).unwrap();
        cli.global.config = r#"it's "a" file.toml"#.into();
        let carried = Carried::of(&cli.global);
        let document = serde_json::json!({"fix": "widentity plan"}).to_string();
        let read: serde_json::Value = serde_json::from_str(&carried.data(&document)).unwrap();
        assert_eq!(read["fix"], r#"widentity -c 'it'\''s "a" file.toml' plan"#);
    }
}
