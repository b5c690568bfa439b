//! The resulting `[[workloads]]`: what the file must hold so that `plan` is empty afterwards.

use std::fmt::Write as _;

use super::{Survey, Workload};
use crate::model::desired::DesiredWorkload;

/// TOML for every workload that is or can be migrated and that the file does not have. Those that
/// cannot are comments with the reason.
pub fn workloads(surveys: &[Survey], have: &[DesiredWorkload], several: bool) -> String {
    let mut text = String::new();
    for survey in surveys {
        for workload in &survey.workloads {
            let known = |d: &DesiredWorkload| {
                d.namespace == workload.namespace && d.account == workload.account
            };
            if have.iter().any(known) {
                continue;
            }
            if !text.is_empty() {
                text.push('\n');
            }
            entry(&mut text, workload, several.then_some(survey.cluster.as_str()));
        }
    }
    text
}

// Writing to a string cannot fail: the results are dropped on purpose.
fn entry(text: &mut String, workload: &Workload, cluster: Option<&str>) {
    for reason in &workload.reasons {
        let line = format!("{}: {}", reason.code, reason.message).replace(['\n', '\r'], " ");
        let _ = writeln!(text, "# {line}");
        let decide = reason.decide.replace(['\n', '\r'], " ");
        let _ = writeln!(text, "#   decide with: {decide}");
    }
    let identity = workload.identity.as_ref().map(|acts| acts.id.as_str());
    let mark = if identity.is_none() { "# " } else { "" };
    let _ = writeln!(text, "{mark}[[workloads]]");
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{mark}{key} = {value}");
    };
    line("namespace", quoted(workload.namespace.as_str()));
    line("service_account", quoted(workload.account.as_str()));
    if let Some(cluster) = cluster {
        line("clusters", format!("[{}]", quoted(cluster)));
    }
    let reaches = || workload.reaches.first().map_or("", |id| id.as_str());
    line("identity", quoted(identity.unwrap_or_else(reaches)));
    line("grants", "[]".to_owned());
    if !workload.whole || workload.account.as_str() == "default" {
        let keys: Vec<String> = workload.templates.iter().map(|key| quoted(key)).collect();
        line("pods", format!("[{}]", keys.join(", ")));
    }
}

/// A basic string: control characters, quotes and backslashes are escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
