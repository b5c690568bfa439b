//! `migrate status` and `migrate plan` as text, JSON, Markdown and TOML.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    Palette, escape,
    findings::{counted, failure_line},
    head::{Head, Headed},
    style::Style,
    text::SANDBOX,
};
use crate::{
    execute::exit::ExitCode,
    migrate::{Phase, Survey, Verdict, Workload, toml},
    model::desired::DesiredState,
    ops::migrate::{Overview, PutBack},
};

/// What is said where there is nothing to leave.
pub const FREE: &str = "No AAD Pod Identity: nothing to migrate.";

/// The phases of the burn-down, in order.
const PHASES: [Phase; 12] = [
    Phase::Discovered,
    Phase::IdentityFederated,
    Phase::TokenProved,
    Phase::Switched,
    Phase::Soaking,
    Phase::Soaked,
    Phase::BindingRemoved,
    Phase::Cleaned,
    Phase::Masked,
    Phase::HalfDone,
    Phase::Broken,
    Phase::RolledBack,
];

fn line(text: &mut String, line: impl AsRef<str>) {
    text.push_str(line.as_ref());
    text.push('\n');
}

fn workloads(overview: &Overview) -> impl Iterator<Item = (&Survey, &Workload)> {
    let surveys = overview.clusters.iter().map(|cluster| &cluster.survey);
    surveys.flat_map(|survey| survey.workloads.iter().map(move |workload| (survey, workload)))
}

/// `Migration: 3 of 5 workloads moved, 1 ready, 1 needs a decision, 0 cannot.`
pub fn last_line(overview: &Overview) -> String {
    if overview.is_free() {
        return FREE.to_owned();
    }
    let all = workloads(overview).count();
    let moved = workloads(overview)
        .filter(|(_, w)| w.phase.is_switched() && w.phase != Phase::Switched)
        .count();
    let switched = workloads(overview).filter(|(_, w)| w.phase == Phase::Switched).count();
    let mut text = format!("Migration: {moved} of {} moved", counted(all, "workload"));
    if switched > 0 {
        let _ = write!(text, ", {switched} not proved yet");
    }
    let _ = write!(
        text,
        ", {} ready, {} to decide, {} cannot.",
        overview.count(Verdict::Ready),
        overview.count(Verdict::NeedsDecision),
        overview.count(Verdict::Cannot),
    );
    text
}

fn burn_down(overview: &Overview) -> Vec<(Phase, usize)> {
    let count = |phase| workloads(overview).filter(|(_, w)| w.phase == phase).count();
    PHASES.iter().map(|phase| (*phase, count(*phase))).filter(|(_, n)| *n > 0).collect()
}

/// The burn-down of the estate; with `steps` also what comes next for each workload.
pub fn text(overview: &Overview, steps: bool, palette: Palette) -> String {
    let mut out = String::new();
    if overview.sandbox {
        line(&mut out, SANDBOX);
    }
    for cluster in &overview.clusters {
        let survey = &cluster.survey;
        if !survey.found && survey.unseen.is_empty() {
            continue;
        }
        let name = escape::terminal(survey.cluster.as_str()).into_owned();
        line(&mut out, palette.paint(Style::Heading, format!("# cluster {name}")));
        if survey.found {
            let estate = &cluster.estate;
            line(
                &mut out,
                format!(
                    "{}, {}, {}, {}{}",
                    identities(estate.identities.len()),
                    counted(estate.bindings.len(), "binding"),
                    counted(estate.assigned.len(), "assignment"),
                    counted(estate.exceptions.len(), "exception"),
                    if estate.add_on.is_some() { ", AKS add-on" } else { "" },
                ),
            );
        }
        for workload in &survey.workloads {
            one(&mut out, workload, steps, palette);
        }
        for note in &survey.notes {
            let message = escape::terminal(&note.message);
            line(&mut out, format!("  note ({}): {message}", note.code));
        }
        for failure in &survey.unseen {
            let mark = palette.paint(Style::Alarm, "not seen:");
            line(&mut out, format!("  {mark} {}", failure_line(failure)));
        }
        line(&mut out, "");
    }
    let phases = burn_down(overview);
    if !phases.is_empty() {
        let words: Vec<String> =
            phases.iter().map(|(phase, n)| format!("{n} {}", phase.as_str())).collect();
        line(&mut out, format!("Phases: {}", words.join(", ")));
    }
    line(&mut out, last_line(overview));
    if overview.sandbox {
        line(&mut out, SANDBOX);
    }
    out
}

fn identities(count: usize) -> String {
    if count == 1 { "1 identity".to_owned() } else { format!("{count} identities") }
}

fn one(out: &mut String, workload: &Workload, steps: bool, palette: Palette) {
    let style = match (workload.verdict, workload.phase) {
        (_, Phase::Broken) | (Verdict::Cannot, _) => Style::Alarm,
        (Verdict::NeedsDecision, _) => Style::Change,
        (Verdict::Ready, _) => Style::Add,
    };
    let verdict = if workload.phase.is_switched() && workload.reasons.is_empty() {
        String::new()
    } else {
        format!(", {}", palette.paint(style, workload.verdict.as_str()))
    };
    let name = escape::terminal(&workload.name()).into_owned();
    let identity = workload
        .identity
        .as_ref()
        .map_or(String::new(), |acts| format!(" as {}", escape::terminal(acts.id.name())));
    let pods = format!("{} of {} proved", workload.proved, counted(workload.pods, "pod"));
    line(out, format!("  {name}{identity}: {}{verdict}; {pods}", workload.phase.as_str()));
    match workload.phase {
        Phase::Masked => line(
            out,
            "      masked: it carries both labels, so what works may work through Pod Identity",
        ),
        Phase::HalfDone => line(
            out,
            format!(
                "      half-done: it answers through Pod Identity because its workload identity is \
                 incomplete: {}",
                workload.lacks.join("; ")
            ),
        ),
        Phase::Broken => line(
            out,
            format!(
                "      broken: it left Pod Identity and its workload identity is incomplete: {}",
                workload.lacks.join("; ")
            ),
        ),
        Phase::RolledBack if workload.left_alone => line(
            out,
            format!(
                "      left alone since it was put back: `widentity migrate apply` tries again when \
                 its pod template changes, or with --only {name}"
            ),
        ),
        Phase::Switched if workload.left_alone => line(
            out,
            format!(
                "      half-way back: `widentity migrate rollback {name}` goes on, `widentity migrate \
                 apply` leaves it alone"
            ),
        ),
        Phase::Switched => line(
            out,
            format!(
                "      half-way: its roll was begun; `widentity migrate apply` goes on, `widentity \
                 migrate rollback {name}` puts it back"
            ),
        ),
        Phase::Discovered
        | Phase::IdentityFederated
        | Phase::TokenProved
        | Phase::Soaking
        | Phase::Soaked
        | Phase::BindingRemoved
        | Phase::Cleaned
        | Phase::RolledBack => {}
    }
    for template in &workload.unrun {
        let template = escape::terminal(template);
        line(
            out,
            format!(
                "      not run yet: no pod of {template} has shown since the switch that it works"
            ),
        );
    }
    if workload.proxied {
        line(
            out,
            "      debt: it uses the migration sidecar; with a current Azure Identity SDK take \
             `proxy` out of the file, or the annotation out of its manifest",
        );
    }
    for reason in &workload.reasons {
        line(out, format!("      {}: {}", reason.code, escape::terminal(&reason.message)));
        line(out, format!("        decide: {}", escape::terminal(&reason.decide)));
    }
    if steps && workload.reasons.is_empty() {
        for step in &workload.next {
            line(out, format!("      next: {}", escape::terminal(step)));
        }
    }
}

fn said(what: &[String]) -> String {
    let what: Vec<_> = what.iter().map(|text| escape::terminal(text)).collect();
    what.join("; ")
}

/// How putting a workload back went, in one line.
pub fn put_back(how: &PutBack) -> String {
    match how {
        PutBack::Done => "it is as it was".to_owned(),
        PutBack::Kept(what) => format!("it is as it was, but: {}", said(what)),
        PutBack::Late(what) => {
            format!("its fields are as they were, its pods are not yet: {}", said(what))
        }
        PutBack::Partly(what) => format!("done in part, this stands in the way: {}", said(what)),
        PutBack::Hindered(what) => format!("not done, this stands in the way: {}", said(what)),
        PutBack::Failed(failure) => format!("failed: {}", failure_line(failure)),
    }
}

/// The overview for a pull request or an issue.
pub fn markdown(overview: &Overview) -> String {
    let mut out = String::new();
    let project = escape::markdown(overview.project.as_str());
    line(&mut out, format!("<!-- widentity:migrate {project} -->"));
    if overview.sandbox {
        line(&mut out, "**SANDBOX**\n");
    }
    line(&mut out, format!("**{}**\n", escape::markdown(&last_line(overview))));
    if workloads(overview).next().is_some() {
        line(&mut out, "| workload | cluster | phase | verdict | pods proved | next |");
        line(&mut out, "|---|---|---|---|---|---|");
    }
    for (survey, workload) in workloads(overview) {
        let next = escape::markdown(&workload.next.join("; ")).replace('|', "\\|");
        line(
            &mut out,
            format!(
                "| {} | {} | {} | {} | {} of {} | {next} |",
                escape::code(&workload.name()),
                escape::markdown(survey.cluster.as_str()),
                workload.phase.as_str(),
                workload.verdict.as_str(),
                workload.proved,
                workload.pods,
            ),
        );
    }
    for (_, workload) in workloads(overview) {
        for reason in &workload.reasons {
            let message = escape::markdown(&reason.message);
            let name = escape::code(&workload.name());
            line(
                &mut out,
                format!("- {name} {}, {}: {message}", workload.verdict.as_str(), reason.code),
            );
        }
    }
    for cluster in &overview.clusters {
        for note in &cluster.survey.notes {
            line(&mut out, format!("- {}", escape::markdown(&note.message)));
        }
        for failure in &cluster.survey.unseen {
            line(&mut out, format!("- not seen: {}", escape::markdown(&failure.to_string())));
        }
    }
    out
}

/// The overview for programs, as a document.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    found: bool,
    phases: std::collections::BTreeMap<&'static str, usize>,
    clusters: Vec<&'a Survey>,
}

/// The overview for programs, as a document.
pub fn document<'a>(
    overview: &'a Overview,
    command: &'static str,
    exit: ExitCode,
) -> Headed<Document<'a>> {
    let (project, sandbox) = (overview.project.as_str(), overview.sandbox);
    let document = Document {
        found: !overview.is_free(),
        phases: burn_down(overview).into_iter().map(|(p, n)| (p.as_str(), n)).collect(),
        clusters: overview.clusters.iter().map(|cluster| &cluster.survey).collect(),
    };
    Head { command, project, sandbox, exit }.over(last_line(overview), document)
}

/// The overview for programs, as text.
pub fn json(overview: &Overview, command: &'static str, exit: ExitCode) -> String {
    super::json::to_text(&document(overview, command, exit))
}

/// The `[[workloads]]` that the file lacks.
pub fn workloads_toml(overview: &Overview, file: &DesiredState) -> String {
    toml::workloads(&overview.surveys(), file)
}
