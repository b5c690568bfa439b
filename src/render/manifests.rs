//! `migrate render` as text, JSON and Markdown.

use std::fmt::Write as _;

use serde::Serialize;
use similar::TextDiff;

use super::{Palette, escape, findings::counted, head::Head, style::Style, text::SANDBOX};
use crate::migrate::manifest::{Changed, Outcome, Piece, Rendered, Rendering};

/// How a rendering is shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// Whether the world is the sandbox's.
    pub sandbox: bool,
    /// Whether the files were written.
    pub written: bool,
}

/// The difference of one file, as `diff -u` writes it.
fn difference(changed: &Changed) -> String {
    let diff = TextDiff::from_lines(&changed.before, &changed.after);
    let (a, b) = (format!("a/{}", changed.path), format!("b/{}", changed.path));
    diff.unified_diff().context_radius(3).header(&a, &b).to_string()
}

/// `Render: 2 of 4 workloads rendered in 3 files, 1 as wanted, 1 cannot.`
pub fn last_line(rendering: &Rendering, shown: Shown) -> String {
    let count = |outcome| rendering.workloads.iter().filter(|w| w.outcome == outcome).count();
    let done = if shown.written { "rendered" } else { "to render" };
    let mut line = format!(
        "Render: {} of {} {done}",
        count(Outcome::Rendered),
        counted(rendering.workloads.len(), "workload"),
    );
    if !rendering.files.is_empty() {
        let _ = write!(line, " in {}", counted(rendering.files.len(), "file"));
    }
    for outcome in [Outcome::AsWanted, Outcome::NotHere, Outcome::NotYet, Outcome::Cannot] {
        if count(outcome) > 0 {
            let _ = write!(line, ", {} {}", count(outcome), outcome.as_str());
        }
    }
    line.push('.');
    line
}

fn style(outcome: Outcome) -> Style {
    match outcome {
        Outcome::Rendered => Style::Add,
        Outcome::AsWanted | Outcome::NotHere => Style::Dim,
        Outcome::NotYet => Style::Change,
        Outcome::Cannot => Style::Alarm,
    }
}

/// An outcome in words: without writing nothing is rendered.
fn word(outcome: Outcome, shown: Shown) -> &'static str {
    match outcome {
        Outcome::Rendered if !shown.written => "to render",
        Outcome::Rendered
        | Outcome::AsWanted
        | Outcome::NotHere
        | Outcome::NotYet
        | Outcome::Cannot => outcome.as_str(),
    }
}

fn words(piece: &Piece, shown: Shown) -> String {
    let mut words = if piece.outcome == Outcome::NotHere {
        let writes = if piece.why.is_none() { ": `widentity migrate apply` writes it" } else { "" };
        format!("no manifest here, and nobody keeps it{writes}")
    } else {
        word(piece.outcome, shown).to_owned()
    };
    if !piece.at.is_empty() {
        let _ = write!(words, " ({})", piece.at.join(", "));
    }
    if let Some(why) = &piece.why {
        let _ = write!(words, ": {why}");
    }
    words
}

/// Every workload with its objects, the differences where nothing was written, and the sum.
pub fn text(rendering: &Rendering, shown: Shown, palette: Palette) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    if shown.sandbox {
        line(SANDBOX);
    }
    for workload in &rendering.workloads {
        let Rendered { cluster, outcome, why, .. } = workload;
        let name = format!("{}@{cluster}", workload.workload);
        let word = palette.paint(style(*outcome), word(*outcome, shown));
        let why = why.as_ref().map(|why| format!(": {}", escape::terminal(why)));
        line(&format!("{}: {word}{}", escape::terminal(&name), why.unwrap_or_default()));
        for piece in &workload.objects {
            let object = escape::terminal(&piece.object).into_owned();
            line(&format!("    {object}: {}", escape::terminal(&words(piece, shown))));
            for by_hand in &piece.write {
                line(&format!("        {}", escape::terminal(by_hand)));
            }
        }
    }
    for (path, why) in &rendering.unread {
        line(&format!("not read: {}: {}", escape::terminal(path), escape::terminal(why)));
    }
    for changed in &rendering.files {
        if shown.written {
            line(&format!("wrote {}", escape::terminal(&changed.path)));
            continue;
        }
        line("");
        for text in difference(changed).lines() {
            let safe = escape::terminal(text).into_owned();
            let painted = match text.as_bytes().first() {
                Some(b'+') => palette.paint(Style::Add, safe),
                Some(b'-') => palette.paint(Style::Alarm, safe),
                _ => safe,
            };
            line(&painted);
        }
    }
    line(&last_line(rendering, shown));
    if shown.sandbox {
        line(SANDBOX);
    }
    out
}

#[derive(Serialize)]
struct Document<'a> {
    written: bool,
    workloads: &'a [Rendered],
    files: Vec<FileDocument<'a>>,
    not_read: Vec<NotRead<'a>>,
}

#[derive(Serialize)]
struct FileDocument<'a> {
    path: &'a str,
    diff: String,
}

#[derive(Serialize)]
struct NotRead<'a> {
    path: &'a str,
    why: &'a str,
}

/// The same for programs.
pub fn json(rendering: &Rendering, shown: Shown, head: Head<'_>) -> String {
    let document = Document {
        written: shown.written,
        workloads: &rendering.workloads,
        files: rendering
            .files
            .iter()
            .map(|changed| FileDocument { path: &changed.path, diff: difference(changed) })
            .collect(),
        not_read: rendering.unread.iter().map(|(path, why)| NotRead { path, why }).collect(),
    };
    super::json::to_text(&head.over(last_line(rendering, shown), document))
}

/// The same for a pull request.
pub fn markdown(rendering: &Rendering, shown: Shown) -> String {
    let mut out = String::from("<!-- widentity:migrate-render -->\n");
    if shown.sandbox {
        out.push_str("**SANDBOX**\n\n");
    }
    let _ = writeln!(out, "**{}**\n", escape::markdown(&last_line(rendering, shown)));
    if !rendering.workloads.is_empty() {
        out.push_str("| workload | cluster | outcome | objects |\n|---|---|---|---|\n");
    }
    for workload in &rendering.workloads {
        let mut cell: Vec<String> = workload.why.iter().map(|why| escape::markdown(why)).collect();
        cell.extend(workload.objects.iter().map(|piece| {
            format!("{} {}", escape::code(&piece.object), escape::markdown(&words(piece, shown)))
        }));
        let cell = cell.join("<br>").replace('|', "\\|");
        let name = escape::code(&workload.workload);
        let cluster = escape::markdown(&workload.cluster);
        let _ =
            writeln!(out, "| {name} | {cluster} | {} | {cell} |", word(workload.outcome, shown));
    }
    for piece in rendering.workloads.iter().flat_map(|w| &w.objects) {
        for by_hand in &piece.write {
            let object = escape::code(&piece.object);
            let _ = writeln!(out, "- {object}: {}", escape::code(by_hand));
        }
    }
    for (path, why) in &rendering.unread {
        let _ = writeln!(out, "- not read: {}: {}", escape::code(path), escape::markdown(why));
    }
    for changed in &rendering.files {
        let _ = write!(out, "\n{}\n", escape::fence("diff", &difference(changed)));
    }
    out
}
