//! A plan for a pull request: what a reviewer needs without opening anything, the rest folded.

use std::fmt::Write as _;

use super::{
    change, escape, findings,
    findings::Section,
    style::Palette,
    text::{self, Group},
};
use crate::{
    ops::planned::{Planned, Tally},
    plan::ObjectKind,
};

/// GitHub refuses comments above 65,536 characters; the rest is left for what a bot adds.
const LIMIT: usize = 60_000;

/// A plan as Markdown. The first line is a marker by which a bot finds its comment again. Details
/// go first when the text would not fit a comment; risks, refusals and the last line never do.
pub fn plan(planned: &Planned) -> String {
    let full = document(planned, true);
    if full.len() <= LIMIT { full } else { document(planned, false) }
}

fn document(planned: &Planned, details: bool) -> String {
    let Planned { scope, plan, report } = planned;
    let mut out = String::new();
    // A project is [a-z0-9-]: it cannot end the comment. Escaped all the same.
    let project = escape::html(scope.project.as_str()).replace("--", "-\u{2010}");
    line(&mut out, format_args!("<!-- widentity:plan {project} -->"));
    let title = if scope.sandbox { "widentity plan (SANDBOX)" } else { "widentity plan" };
    let verdict = text::last_line(planned);
    line(&mut out, format_args!("### {title}: {}\n", escape::code(scope.project.as_str())));
    line(&mut out, format_args!("**{verdict}**\n"));
    if let Some(risks) = findings::risks(report) {
        push_section(&mut out, &risks);
    }
    for section in findings::sections(report).iter().filter(|section| section.alarm) {
        push_section(&mut out, section);
    }
    let groups = text::groups(&plan.changes);
    push_table(&mut out, &groups);
    if details {
        for group in &groups {
            push_details(&mut out, group, planned);
        }
    } else {
        line(&mut out, format_args!("_The details do not fit here; run `widentity plan`._\n"));
    }
    for section in findings::sections(report).iter().filter(|section| !section.alarm) {
        push_folded(&mut out, section);
    }
    if planned.has_changes() {
        line(&mut out, format_args!("Digest: {}\n", escape::code(&plan.digest)));
    }
    line(&mut out, format_args!("Proof: not run (`widentity verify`)\n"));
    line(&mut out, format_args!("{verdict}"));
    out
}

fn line(out: &mut String, args: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(args);
    out.push('\n');
}

fn title_of(group: &Group<'_>) -> String {
    match &group.workload {
        Some(workload) => workload.to_string(),
        None => "clusters and shared identities".to_owned(),
    }
}

fn push_table(out: &mut String, groups: &[Group<'_>]) {
    if groups.is_empty() {
        return;
    }
    line(out, format_args!("| workload | add | change | roll |\n| --- | ---: | ---: | ---: |"));
    for group in groups {
        let mut tally = Tally::default();
        let mut rolls = 0;
        for change in &group.changes {
            if change.kind == ObjectKind::KubernetesRollout {
                rolls += 1;
            } else {
                tally.count(change.action);
            }
            rolls += usize::from(change.kind == ObjectKind::KubernetesPodTemplate);
        }
        let title = escape::code(&title_of(group));
        line(out, format_args!("| {title} | {} | {} | {rolls} |", tally.add, tally.change));
    }
    out.push('\n');
}

fn push_details(out: &mut String, group: &Group<'_>, planned: &Planned) {
    let mut body = String::new();
    for change in &group.changes {
        let symbol = text::symbol(change, planned);
        for (index, text) in change::lines(change, symbol, Palette::PLAIN).iter().enumerate() {
            body.push_str(&coloured_by_diff(text, index == 0));
            body.push('\n');
        }
    }
    let title = escape::html(&title_of(group));
    line(out, format_args!("<details><summary><code>{title}</code></summary>\n"));
    out.push_str(&escape::fence("diff", &body));
    line(out, format_args!("\n</details>\n"));
}

/// Diff highlighting looks at column 0 and knows `+`, `-` and `!`: the symbol moves there.
fn coloured_by_diff(text: &str, first: bool) -> String {
    let trimmed = text.trim_start();
    let indent = " ".repeat(text.len() - trimmed.len());
    let (symbol, rest) = trimmed.split_at(trimmed.chars().next().map_or(0, char::len_utf8));
    let rest_is_marked = rest.starts_with(' ');
    match symbol {
        "+" if rest_is_marked => format!("+{indent}{rest}"),
        "~" | "@" | "i" if rest_is_marked && (first || symbol == "~") => format!("!{indent}{rest}"),
        _ => format!(" {text}"),
    }
}

fn push_section(out: &mut String, section: &Section) {
    line(out, format_args!("**{}**\n", escape::markdown(&section.title)));
    out.push_str(&escape::fence("text", &section.lines.join("\n")));
    out.push('\n');
}

fn push_folded(out: &mut String, section: &Section) {
    let title = escape::html(&section.title);
    line(out, format_args!("<details><summary>{title}</summary>\n"));
    out.push_str(&escape::fence("text", &section.lines.join("\n")));
    line(out, format_args!("\n</details>\n"));
}
