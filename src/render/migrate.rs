//! `migrate status` and `migrate plan` as text, JSON, Markdown and TOML.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Palette, escape,
    findings::{counted, failure_line},
    head::{Head, Headed},
    style::Style,
    text::SANDBOX,
    unseen,
};
use crate::{
    execute::exit::ExitCode,
    migrate::{
        Phase, Survey, Verdict, Workload,
        next::{self, Command},
        toml,
    },
    model::desired::DesiredState,
    ops::migrate::{Counts, Overview, PutBack, Surveyed},
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

/// `Migration: 3 of 5 workloads moved, 1 broken, 1 ready, 0 to decide, 0 cannot.` What a cluster that was
/// not seen holds is not counted as nothing.
pub fn last_line(overview: &Overview) -> String {
    if overview.is_free() {
        return FREE.to_owned();
    }
    let hidden: Vec<&str> = overview
        .clusters
        .iter()
        .filter(|cluster| !cluster.survey.unseen.is_empty())
        .map(|cluster| cluster.survey.cluster.as_str())
        .collect();
    let hidden = match hidden.as_slice() {
        [] => None,
        [one] => Some(format!("cluster {one} was not seen, or not all of it")),
        several => {
            Some(format!("clusters {} were not seen, or not all of them", several.join(", ")))
        }
    };
    let Counts {
        workloads,
        moved,
        not_proved,
        broken,
        half_done,
        left_alone,
        ready,
        to_decide,
        cannot,
    } = overview.counts();
    if let Some(hidden) = hidden.as_ref().filter(|_| workloads == 0) {
        return format!("Migration: {hidden}: nothing is known of its workloads.");
    }
    let mut text = format!("Migration: {moved} of {} moved", counted(workloads, "workload"));
    for (count, what) in [
        (broken, "broken"),
        (half_done, "half-done"),
        (not_proved, "not proved yet"),
        (left_alone, "put back and left alone"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    let _ = write!(text, ", {ready} ready, {to_decide} to decide, {cannot} cannot");
    if let Some(hidden) = hidden {
        let _ = write!(text, "; {hidden}");
    }
    text.push('.');
    text
}

fn burn_down(overview: &Overview) -> Vec<(Phase, usize)> {
    let count = |phase| workloads(overview).filter(|(_, w)| w.phase == phase).count();
    PHASES.iter().map(|phase| (*phase, count(*phase))).filter(|(_, n)| *n > 0).collect()
}

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Where each workload stands, and what to type next.
    Status,
    /// The same with the steps of each workload.
    Plan,
    /// The steps without what to type: the question comes next.
    Question,
}

/// The burn-down of the estate.
pub fn text(overview: &Overview, told: Told, palette: Palette) -> String {
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
        line(&mut out, installation(cluster));
        for workload in in_order(survey) {
            one(&mut out, workload, overview.now, told, palette);
        }
        for note in &survey.notes {
            let message = escape::terminal(&note.message);
            line(&mut out, format!("  note ({}): {message}", note.code));
        }
        for text in unseen::lines(&survey.unseen) {
            line(&mut out, format!("  {} {text}", palette.paint(Style::Alarm, "not seen:")));
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
    if told != Told::Question {
        for Command { command, why } in overview.next() {
            line(&mut out, format!("Next: {command} ({why})"));
        }
    }
    if overview.sandbox {
        line(&mut out, SANDBOX);
    }
    out
}

/// What is broken first, then what is half-done.
fn in_order(survey: &Survey) -> Vec<&Workload> {
    let mut all: Vec<&Workload> = survey.workloads.iter().collect();
    all.sort_by_key(|w| (w.phase != Phase::Broken, w.phase != Phase::HalfDone));
    all
}

/// The objects of Pod Identity. Where anything was not seen, no count is a zero.
fn installation(Surveyed { estate, survey }: &Surveyed) -> String {
    let hidden = !estate.is_seen();
    let counts = [
        (estate.identities.len(), identities(estate.identities.len())),
        (estate.bindings.len(), counted(estate.bindings.len(), "binding")),
        (estate.assigned.len(), counted(estate.assigned.len(), "assignment")),
        (estate.exceptions.len(), counted(estate.exceptions.len(), "exception")),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0 || !hidden);
    let mut words: Vec<String> = counts.map(|(_, words)| words).collect();
    if estate.add_on.is_some() {
        words.push("AKS add-on".to_owned());
    }
    words.extend(survey.components.iter().map(|component| component.to_uppercase()));
    match (hidden, words.is_empty()) {
        (true, true) => "Pod Identity: not seen".to_owned(),
        (true, false) => format!("{}; not everything was seen", words.join(", ")),
        (false, _) => words.join(", "),
    }
}

fn identities(count: usize) -> String {
    if count == 1 { "1 identity".to_owned() } else { format!("{count} identities") }
}

fn one(out: &mut String, workload: &Workload, now: Timestamp, told: Told, palette: Palette) {
    let style = match workload.verdict {
        Verdict::Cannot => Style::Alarm,
        Verdict::NeedsDecision | Verdict::LeftAlone | Verdict::ToMend => Style::Change,
        Verdict::Ready | Verdict::Switched => Style::Add,
    };
    let verdict = if workload.verdict == Verdict::Switched {
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
    let phase = if workload.phase.is_incomplete() {
        palette.paint(Style::Alarm, workload.phase.as_str())
    } else {
        workload.phase.as_str().to_owned()
    };
    let until = workload.soaked_at.filter(|end| workload.phase == Phase::Soaking && *end > now);
    let until = until.map(|end| format!(" until {end:.0}, {} from now", next::left(end, now)));
    line(out, format!("  {name}{identity}: {phase}{}{verdict}; {pods}", until.unwrap_or_default()));
    if let Some(text) = standing(workload, &name) {
        line(out, format!("      {text}"));
    }
    for template in &workload.unrun {
        let template = escape::terminal(template);
        line(out, format!("      {}", unrun(workload.phase, &template)));
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
        let remedy = reason.remedy();
        line(out, format!("        {remedy}: {}", escape::terminal(&reason.decide)));
    }
    let mends = workload.verdict == Verdict::ToMend;
    if (told != Told::Status || mends) && workload.reasons.is_empty() {
        for step in &workload.next {
            line(out, format!("      next: {}", escape::terminal(step)));
        }
    }
}

/// What a phase means that is not the usual way.
fn standing(workload: &Workload, name: &str) -> Option<String> {
    let lacks = || escape::terminal(&workload.lacks.join("; ")).into_owned();
    match workload.phase {
        Phase::Masked => Some(
            "masked: it carries both labels, so what works may work through Pod Identity"
                .to_owned(),
        ),
        Phase::HalfDone => Some(format!(
            "half-done: it answers through Pod Identity because its workload identity is incomplete: \
             {}",
            lacks()
        )),
        Phase::Broken => Some(format!(
            "broken: it left Pod Identity and its workload identity is incomplete: {}",
            lacks()
        )),
        Phase::RolledBack if workload.left_alone => Some(format!(
            "left alone since it was put back: `widentity migrate apply` tries again when its pod \
             template changes, or with --only {name}"
        )),
        Phase::Switched if workload.left_alone => Some(format!(
            "half-way back: `widentity migrate rollback {name}` goes on, `widentity migrate apply` \
             leaves it alone"
        )),
        Phase::Switched => Some(format!(
            "half-way: its roll was begun; `widentity migrate apply` goes on, `widentity migrate \
             rollback {name}` puts it back"
        )),
        Phase::Discovered
        | Phase::IdentityFederated
        | Phase::TokenProved
        | Phase::Soaking
        | Phase::Soaked
        | Phase::BindingRemoved
        | Phase::Cleaned
        | Phase::RolledBack => None,
    }
}

/// What nothing has shown of a template.
fn unrun(phase: Phase, template: &str) -> String {
    if matches!(phase, Phase::BindingRemoved | Phase::Cleaned) {
        return format!(
            "never run: its bindings went before a pod of {template} had shown that it works, and \
             none shows it now"
        );
    }
    format!(
        "not run yet: no pod of {template} has shown since the switch that it works; start it once, \
         or let it go unproved: `widentity migrate finish --allow-unrun`"
    )
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
    let ordered = overview.clusters.iter().map(|cluster| &cluster.survey);
    let ordered = ordered.flat_map(|survey| in_order(survey).into_iter().map(move |w| (survey, w)));
    for (survey, workload) in ordered {
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
        for text in unseen::lines(&cluster.survey.unseen) {
            line(&mut out, format!("- not seen: {}", escape::markdown(&text)));
        }
    }
    for Command { command, why } in overview.next() {
        line(&mut out, format!("- next: {}: {}", escape::code(&command), escape::markdown(&why)));
    }
    out
}

/// The overview for programs, as a document.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    found: bool,
    phases: std::collections::BTreeMap<&'static str, usize>,
    counts: Counts,
    clusters: Vec<&'a Survey>,
    next: Vec<Command>,
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
        counts: overview.counts(),
        clusters: overview.clusters.iter().map(|cluster| &cluster.survey).collect(),
        next: overview.next(),
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
