//! Explanations for people and programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Palette, escape::terminal, style::Style};
use crate::ops::explain::Explained;

/// Explanations in the order of the text.
pub fn text(explained: &Explained, palette: Palette) -> String {
    let mut out = String::new();
    for found in &explained.answers {
        let answer = &found.answer;
        let code = palette.paint(Style::Heading, terminal(&answer.code));
        // Writing to a string cannot fail.
        let _ = write!(out, "{code}: {}", terminal(&answer.title));
        if let Some((lines, first)) = found.lines.filter(|_| explained.read.is_some()) {
            let noun = if lines == 1 { "line" } else { "lines" };
            let _ = write!(out, "  [{lines} {noun}, first: {first}]");
        }
        let _ = writeln!(out, "\n  {}", terminal(&answer.cause));
        for (kind, values) in &found.values.0 {
            let kind = serde_json::to_value(kind).unwrap_or_default();
            let values: Vec<String> = values.iter().map(|v| terminal(v).into_owned()).collect();
            let kind = kind.as_str().unwrap_or_default();
            let _ = writeln!(out, "  {kind}: {}", values.join(", "));
        }
        if let Some(link) = answer.link {
            let _ = writeln!(out, "  link: {}", link.title());
        }
        let _ = writeln!(out, "  next: {}", terminal(&answer.next));
        for context in &answer.context {
            let (workload, shows) = (terminal(&context.workload), terminal(&context.shows));
            let _ = writeln!(out, "  {workload}: {shows}");
        }
        out.push('\n');
    }
    let known = explained.answers.iter().filter(|found| found.answer.family.is_some()).count();
    if let Some((lines, bytes)) = explained.read {
        let noun = if known == 1 { "failure" } else { "failures" };
        let _ = writeln!(out, "Explain: {known} known {noun} in {lines} lines ({bytes} bytes).");
    } else if explained.answers.is_empty() {
        out.push_str("Not known: neither a code nor a message of this catalogue.\n");
    }
    out
}

/// The same for programs.
pub fn json(explained: &Explained) -> Value {
    let answers: Vec<Value> = explained
        .answers
        .iter()
        .map(|found| {
            json!({
                "answer": found.answer,
                "values": found.values,
                "lines": found.lines.map(|(lines, _)| lines),
                "first_line": found.lines.map(|(_, first)| first),
            })
        })
        .collect();
    json!({
        "format_version": "1.0",
        "command": "explain",
        "known": !explained.answers.is_empty(),
        "read_lines": explained.read.map(|(lines, _)| lines),
        "read_bytes": explained.read.map(|(_, bytes)| bytes),
        "found": answers,
    })
}
