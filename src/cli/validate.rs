//! `validate`: every problem of the file at once, offline.

use serde_json::json;

use super::{args::Format, error::CliError, main::Context};
use crate::{
    config::{self, Config, Diagnostics},
    execute::exit::ExitCode,
    render::{escape, findings::counted, json::to_text},
};

pub(super) fn run(context: &Context) -> Result<ExitCode, CliError> {
    let path = &context.global.config;
    let loaded = config::load(path, &config::Disk);
    let (found, valid): (&Diagnostics, Option<&Config>) = match &loaded {
        Ok(config) => (config.warnings(), Some(config)),
        Err(found) => (found, None),
    };
    let shown = path.display().to_string();
    let shown = escape::terminal(&shown);
    match context.global.output {
        Format::Json => {
            let document = json!({
                "format_version": "1.0",
                "file": path.display().to_string(),
                "valid": valid.is_some(),
                "errors": found.errors(),
                "warnings": found.warnings(),
                "diagnostics": found.records(),
            });
            context.output.data(&to_text(&document));
        }
        Format::Markdown | Format::Toml => {
            return Err(CliError::usage("validate writes text or json"));
        }
        Format::Text => {
            let mut text = found.render(context.output.out.coloured);
            let verdict = match valid {
                Some(config) => summary(config, found),
                None => found.to_string(),
            };
            text.push_str(&shown);
            text.push_str(": ");
            text.push_str(&verdict);
            text.push('\n');
            context.output.data(&text);
        }
    }
    Ok(if valid.is_some() { ExitCode::Done } else { ExitCode::Failed })
}

fn summary(config: &Config, found: &Diagnostics) -> String {
    let warnings = match found.warnings() {
        0 => String::new(),
        _ => format!("; {found}"),
    };
    format!(
        "valid: {}, {}{warnings}",
        counted(config.workloads.len(), "workload"),
        counted(config.clusters.len(), "cluster"),
    )
}
