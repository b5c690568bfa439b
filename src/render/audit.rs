//! Audit findings for people and programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Palette, escape::terminal, style::Style};
use crate::diagnose::audit::{Audit, Severity};

const ALL: [Severity; 4] = [Severity::High, Severity::Medium, Severity::Low, Severity::Info];

/// Findings, worst first, and a last line that counts them.
pub fn text(audit: &Audit, palette: Palette) -> String {
    let mut out = String::new();
    for finding in &audit.findings {
        let style = match finding.severity {
            Severity::High => Style::Alarm,
            Severity::Medium => Style::Change,
            Severity::Low | Severity::Info => Style::Dim,
        };
        let word = palette.paint(style, format!("{:<6}", finding.severity.as_str()));
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{word} {}  {}\n       {}\n       fix: {}",
            finding.code,
            terminal(&finding.object),
            terminal(&finding.message),
            terminal(&finding.fix)
        );
    }
    if !audit.unseen.is_empty() {
        out.push_str("Could not be seen:\n");
        for line in &audit.unseen {
            let _ = writeln!(out, "  {}", terminal(line));
        }
    }
    let count = |severity| audit.findings.iter().filter(|f| f.severity == severity).count();
    let counts: Vec<String> = ALL.iter().map(|s| format!("{} {}", count(*s), s.as_str())).collect();
    let noun = if audit.findings.len() == 1 { "finding" } else { "findings" };
    let _ = writeln!(out, "Audit: {} {noun} ({}).", audit.findings.len(), counts.join(", "));
    out
}

/// The same for programs.
pub fn json(audit: &Audit, sandbox: bool) -> Value {
    json!({
        "format_version": "1.0",
        "command": "audit",
        "sandbox": sandbox,
        "findings": audit.findings,
        "unseen": audit.unseen,
    })
}
