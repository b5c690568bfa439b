//! Diagnostics for people: the line, the offending text underlined, what to do.

use annotate_snippets::{
    AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str as escape,
};

use super::{
    code::Severity,
    diagnostic::{Diagnostic, Diagnostics},
    source::{FileId, Sources},
};

impl Diagnostics {
    /// Every problem, one after the other, each followed by an empty line. Never shortened: what
    /// is left out would be found one run at a time.
    pub fn render(&self, coloured: bool) -> String {
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for problem in &self.list {
            text.push_str(&renderer.render(&[group(problem, &self.sources)]));
            text.push_str("\n\n");
        }
        text
    }
}

fn group<'a>(problem: &'a Diagnostic, sources: &'a Sources) -> Group<'a> {
    let level = match problem.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(problem.message.as_str()).id(problem.code.as_str());
    let mut group = Group::with_title(title);
    let mut shown: Vec<FileId> = Vec::new();
    for label in &problem.labels {
        if !shown.contains(&label.span.file) {
            shown.push(label.span.file);
            for snippet in snippets(problem, sources, label.span.file) {
                group = group.element(snippet);
            }
        }
    }
    for help in &problem.help {
        group = group.element(Level::HELP.message(escape(help)));
    }
    group
}

/// The snippets of one file. Each gets only the lines it needs: the renderer goes through all the
/// text it is given, which for a long file with many problems would take minutes.
fn snippets<'a>(
    problem: &'a Diagnostic,
    sources: &'a Sources,
    file: FileId,
) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
    let source = sources.file(file);
    let first = problem.labels.first().map(|label| label.span);
    let here = || problem.labels.iter().filter(|label| label.span.file == file);
    let mut blocks: Vec<(usize, usize)> = here()
        .map(|label| {
            let (start, end) = (label.span.start, label.span.end.max(label.span.start));
            (source.position(start).line, source.position(end).line)
        })
        .collect();
    blocks.sort_unstable();
    // Near places share one snippet, so that they read as one piece of text.
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (start, end) in blocks {
        match merged.last_mut() {
            Some(last) if start <= last.1 + 30 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    // The piece with the offending place first: its path line names the place.
    merged.sort_by_key(|(from, to)| {
        let offending = first.filter(|span| span.file == file);
        let line = offending.map(|span| source.position(span.start).line);
        !line.is_some_and(|line| (*from..=*to).contains(&line))
    });
    let build = |(from, to): (usize, usize)| {
        let lines = source.line_range(from, to);
        let mut snippet = Snippet::source(&source.text[lines.clone()])
            .line_start(from)
            .path(source.name.as_str());
        for label in here() {
            let span = label.span;
            if !(lines.start..=lines.end).contains(&span.start) || span.end > lines.end {
                continue;
            }
            let kind =
                if Some(span) == first { AnnotationKind::Primary } else { AnnotationKind::Context };
            let range = span.start - lines.start..span.end - lines.start;
            let mut annotation = kind.span(range);
            if !label.text.is_empty() {
                annotation = annotation.label(escape(&label.text));
            }
            snippet = snippet.annotation(annotation);
        }
        snippet
    };
    merged.into_iter().map(build).collect()
}
