//! What a run came to, as text: on every path, also where it failed at once.

use std::collections::BTreeMap;

use super::{
    escape,
    findings::{self, Section},
    style::{Palette, Style},
    text::SANDBOX,
};
use crate::{
    execute::{
        event::{Cancelled, Evidence, Outcome, StepInfo},
        exit::ExitCode,
        report::{ApplyReport, StepReport},
    },
    model::{Address, RemoteFailure},
    ops::Planned,
};

const MAYBE_WRITTEN: &str = "      it may have been written all the same";
/// How many steps that went well are listed one by one.
const DONE_SHOWN: usize = 60;

/// The command whose words a report uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// `apply`, `verify`.
    Apply,
    /// `migrate apply`, `migrate finish`: its steps are no changes that a plan counts.
    Migrate,
}

impl Of {
    /// What is typed to read anew.
    fn plan(self) -> &'static str {
        match self {
            Self::Apply => "widentity plan",
            Self::Migrate => "widentity migrate plan",
        }
    }

    /// What is typed to try again.
    fn again(self) -> &'static str {
        match self {
            Self::Apply => "widentity apply, when the cause is gone",
            Self::Migrate => "widentity migrate apply, when the cause is gone",
        }
    }
}

/// The report of `apply`, which follows the plan's preview. The caller has computed the exit code,
/// which decides the last line.
pub fn apply(
    of: Of,
    planned: &Planned,
    report: &ApplyReport,
    exit: ExitCode,
    palette: Palette,
) -> String {
    let mut text = String::new();
    let mut sections = steps(of, planned, report);
    sections.extend(findings::sections(&planned.report));
    sections.extend(proofs(report));
    push_all(&mut text, &sections, palette);
    text.push_str(&proof_line(report));
    text.push('\n');
    text.push_str(&palette.paint(Style::Heading, last_line(of, planned, report, exit)));
    text.push('\n');
    if planned.scope.sandbox {
        text.push_str(SANDBOX);
        text.push('\n');
    }
    text
}

/// The report of proofs alone.
pub fn verify(of: Of, planned: &Planned, report: &ApplyReport, palette: Palette) -> String {
    let mut text = String::new();
    let mut sections = steps(of, planned, report);
    sections.retain(|section| section.alarm);
    sections.extend(findings::sections(&planned.report));
    sections.extend(proofs(report));
    if planned.scope.sandbox {
        text.push_str(SANDBOX);
        text.push('\n');
    }
    push_all(&mut text, &sections, palette);
    text.push_str(&palette.paint(Style::Heading, proof_line(report)));
    text.push('\n');
    if planned.scope.sandbox {
        text.push_str(SANDBOX);
        text.push('\n');
    }
    text
}

fn push_all(text: &mut String, sections: &[Section], palette: Palette) {
    for section in sections {
        text.push_str(&section.text(palette));
        text.push('\n');
    }
}

/// `Proof: 8 of 8 proved`.
pub fn proof_line(report: &ApplyReport) -> String {
    format!("Proof: {} of {} proved", report.proofs.good, report.proofs.of)
}

/// The last line of a report; that of `apply` is frozen.
pub fn last_line(of: Of, planned: &Planned, report: &ApplyReport, exit: ExitCode) -> String {
    let done = exit == ExitCode::Done;
    let word = if done { "complete" } else { "incomplete" };
    match of {
        Of::Apply if done && planned.matches() => {
            "No changes. Your infrastructure matches the configuration.".to_owned()
        }
        Of::Apply => {
            let objects = report.objects;
            format!(
                "Apply {word}! Resources: {} added, {} changed, 0 destroyed.",
                objects.added, objects.changed
            )
        }
        Of::Migrate => {
            let went_well = |step: &&StepReport| {
                matches!(step.outcome, Some(Outcome::Done { .. } | Outcome::Unchanged { .. }))
            };
            let good = report.steps.iter().filter(went_well).count();
            let steps = findings::counted(report.steps.len(), "step");
            format!("Migrate {word}! {good} of {steps} done, nothing of Pod Identity removed.")
        }
    }
}

/// What an exit code means, whichever the command.
pub fn exit_words(exit: ExitCode) -> &'static str {
    match exit {
        ExitCode::Done => "done",
        ExitCode::Failed => "failed, nothing was changed",
        ExitCode::Changes => "changes are present",
        ExitCode::Partial => "done in part; when the cause is gone, run the same command again",
        ExitCode::Stale => {
            "stale: the world, or the plan, is not what was expected; nothing was changed"
        }
        ExitCode::Refused => "refused",
        ExitCode::Denied => "not signed in, not allowed, or not seen",
        ExitCode::NotProved => "not proved: a proof, a rollout or a link of the chain failed",
        ExitCode::Interrupted => "interrupted; no step was left half done",
        ExitCode::TimedOut => "timed out",
        ExitCode::Usage => "usage",
        ExitCode::Internal => "internal error",
    }
}

/// The steps by how they ended; what went well first, what must be read last.
fn steps(of: Of, planned: &Planned, report: &ApplyReport) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut add = |title: String, alarm: bool, lines: Vec<String>| {
        if !lines.is_empty() {
            sections.push(Section { title, alarm, lines });
        }
    };
    let mut done: BTreeMap<Address, Vec<String>> = BTreeMap::new();
    let (mut all_done, mut unchanged) = (0, Vec::new());
    let (mut skipped, mut withheld, mut cancelled) = (Vec::new(), Vec::new(), Vec::new());
    let (mut stale, mut failures) = (Vec::new(), Vec::new());
    for step in &report.steps {
        let name = escape::terminal(&name(&step.info)).into_owned();
        match &step.outcome {
            Some(Outcome::Done { detail, evidence: _ }) => {
                all_done += 1;
                let detail = detail.as_ref().map(|text| format!(" ({})", escape::terminal(text)));
                let what = format!("{}{}", step.info.verb, detail.unwrap_or_default());
                done.entry(step.info.address.whole()).or_default().push(what);
            }
            Some(Outcome::Unchanged { detail }) => {
                let detail = detail.as_ref().map(|text| format!(": {}", escape::terminal(text)));
                unchanged.push(format!("  {name}{}", detail.unwrap_or_default()));
            }
            Some(Outcome::Skipped { because }) => {
                let root = report.step(*because);
                let root = root.map_or_else(|| "another step".to_owned(), cause);
                skipped.push(format!("  - {name}, because {}", escape::terminal(&root)));
            }
            Some(Outcome::Cancelled { why: Cancelled::NoRollout, .. }) => {
                withheld.push(format!("  - {name}"));
            }
            Some(Outcome::Cancelled { why, written }) => {
                let begun = if *written { " (begun; may have been written)" } else { "" };
                cancelled.push(format!("  - {name}: {}{begun}", cancelled_words(*why)));
            }
            Some(Outcome::Stale { what, written }) => {
                stale.push(format!(
                    "  ! {name}: {} ({})",
                    escape::terminal(what),
                    at(planned, step)
                ));
                stale.extend(written.then(|| MAYBE_WRITTEN.to_owned()));
                stale.push(format!("      next: {}", of.plan()));
            }
            Some(Outcome::Failed { failure, written }) => {
                failures.push(Failed { step, failure, written: *written });
            }
            None => cancelled.push(format!("  - {name}: not begun")),
        }
    }
    let title = |word: &str, count: usize| format!("{word}: {}", findings::counted(count, "step"));
    let done = done.into_iter().map(|(address, what)| {
        format!("  {:<40} {}", escape::terminal(&address.to_string()), what.join(", "))
    });
    add(title("Done", all_done), false, cut(done.collect()));
    add(title("Unchanged", unchanged.len()), false, cut(unchanged));
    let title_withheld = title("Left for a later rollout (--no-rollout)", withheld.len());
    add(title_withheld, false, cut(withheld));
    add(title("Not begun", cancelled.len()), true, cancelled);
    add(title("Skipped", skipped.len()), true, skipped);
    add(title("Stale", report.counts.stale), true, stale);
    let lines =
        alike(&failures).iter().flat_map(|alike| failed_lines(of, planned, alike)).collect();
    add(title("Failed", failures.len()), true, lines);
    sections
}

fn cut(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > DONE_SHOWN {
        let more = lines.len() - DONE_SHOWN;
        lines.truncate(DONE_SHOWN);
        lines.push(format!("  ... and {more} more, see -o json"));
    }
    lines
}

fn name(info: &StepInfo) -> String {
    format!("{} {}", info.verb, info.address)
}

/// What the step at the root of a skipped one came to.
fn cause(root: &StepReport) -> String {
    let word = match &root.outcome {
        Some(Outcome::Stale { .. }) => "was stale",
        Some(Outcome::Cancelled { .. }) => "was not begun",
        Some(
            Outcome::Failed { .. }
            | Outcome::Skipped { .. }
            | Outcome::Done { .. }
            | Outcome::Unchanged { .. },
        )
        | None => "failed",
    };
    format!("{} {word}", name(&root.info))
}

fn cancelled_words(why: Cancelled) -> &'static str {
    match why {
        Cancelled::Interrupted => "interrupted",
        Cancelled::TimedOut => "out of time (--timeout)",
        Cancelled::Breaker => "a rollout failed before, or its pods were not proved",
        Cancelled::NoRollout => "--no-rollout",
    }
}

/// `workloads.toml:12` of the step.
fn at(planned: &Planned, step: &StepReport) -> String {
    match planned.plan.steps.get(step.info.id.0) {
        Some(planned) => {
            format!("{}:{}", escape::terminal(&planned.origin.file), planned.origin.line)
        }
        None => escape::terminal(&planned.scope.config).into_owned(),
    }
}

/// A step that failed.
struct Failed<'a> {
    step: &'a StepReport,
    failure: &'a RemoteFailure,
    written: bool,
}

/// The failures by what came back: one cause, such as a credential that is no longer valid, is told
/// once with all that it stopped.
fn alike<'a>(failures: &'a [Failed<'a>]) -> Vec<Vec<&'a Failed<'a>>> {
    let mut groups: Vec<Vec<&Failed<'_>>> = Vec::new();
    let mut at = BTreeMap::new();
    for failed in failures {
        let RemoteFailure { kind, tried: _, message, status, code, correlation_id: _, hint } =
            failed.failure;
        let message = without_names(message, &failed.step.info.address);
        let position = *at.entry((kind, message, status, code, hint)).or_insert(groups.len());
        if position == groups.len() {
            groups.push(Vec::new());
        }
        groups[position].push(failed);
    }
    groups
}

/// A message without the names of its workload, which API servers put into quotes.
fn without_names(message: &str, address: &Address) -> String {
    match address {
        Address::Workload { namespace, account, cluster: _, part: _ } => {
            let quoted = |name: &str| format!("\"{name}\"");
            let plain = message.replace(&quoted(namespace.as_str()), "\"namespace\"");
            plain.replace(&quoted(account.as_str()), "\"account\"")
        }
        Address::Cluster(_) | Address::Identity(_) => message.to_owned(),
    }
}

fn failed_lines(of: Of, planned: &Planned, alike: &[&Failed<'_>]) -> Vec<String> {
    let Some(Failed { step, failure, written }) = alike.first() else { return Vec::new() };
    let RemoteFailure { kind: _, tried, message, status: _, code: _, correlation_id: _, hint } =
        failure;
    let several = alike.len() > 1;
    let mut lines = Vec::new();
    if several {
        lines.push(format!("  ! {} failed alike", findings::counted(alike.len(), "step")));
    } else {
        let name = name(&step.info);
        lines.push(format!("  ! {} failed ({})", escape::terminal(&name), at(planned, step)));
        let change = step.info.change.and_then(|index| planned.plan.changes.get(index));
        lines.extend(change.map(|change| format!("      id:    {}", escape::terminal(&change.id))));
        lines.push(format!("      tried: {}", escape::terminal(tried)));
    }
    lines.push(format!("      got:   {}", escape::terminal(message)));
    lines.extend(
        findings::failure_details(failure).map(|details| format!("             {details}")),
    );
    if *written && !several {
        lines.push(MAYBE_WRITTEN.to_owned());
    }
    let next = hint.as_deref().unwrap_or(of.again());
    for (index, line) in next.lines().enumerate() {
        let label = if index == 0 { "next: " } else { "      " };
        lines.push(format!("      {label} {}", escape::terminal(line)));
    }
    for Failed { step, failure: _, written } in alike.iter().filter(|_| several) {
        let name = name(&step.info);
        lines.push(format!("      for    {} ({})", escape::terminal(&name), at(planned, step)));
        lines.extend(written.then(|| MAYBE_WRITTEN.to_owned()));
    }
    lines
}

/// What was proved, a line for each workload in each cluster, and what that does not say.
fn proofs(report: &ApplyReport) -> Option<Section> {
    let mut lines: BTreeMap<Address, Vec<String>> = BTreeMap::new();
    for step in &report.steps {
        if let Some(word) = proof(step) {
            lines.entry(step.info.address.whole()).or_default().push(word);
        }
    }
    if lines.is_empty() {
        return None;
    }
    let lines = lines.into_iter().map(|(address, words)| {
        format!("  {:<40} {}", escape::terminal(&address.to_string()), words.join("; "))
    });
    let mut lines: Vec<String> = lines.collect();
    lines.push(
        "  A proof shows issuer, keys, subject, audience, identity and credential, and that pods \
         carry them;"
            .to_owned(),
    );
    if report.steps.iter().any(by_job) {
        let more =
            "  one by job the webhook's environment and the way from the cluster to Entra, too;";
        lines.push(more.to_owned());
    }
    lines.push("  not what the application's SDK does with them.".to_owned());
    Some(Section { title: "Proofs".to_owned(), alarm: false, lines })
}

fn by_job(step: &StepReport) -> bool {
    matches!(
        &step.outcome,
        Some(Outcome::Done { evidence: Some(Evidence::Token { method, .. }), .. })
            if method.as_str() == "job"
    )
}

/// What one proof step says; nothing for other steps.
fn proof(step: &StepReport) -> Option<String> {
    let word = match &step.outcome {
        Some(Outcome::Done { evidence: Some(evidence), detail }) => {
            let more = detail.as_ref().map(|detail| format!("; {}", escape::terminal(detail)));
            evidence_words(evidence) + &more.unwrap_or_default()
        }
        Some(Outcome::Failed { failure, .. }) if step.info.exchanges_token => match &failure.code {
            Some(code) => format!("NOT PROVED ({})", escape::terminal(code)),
            None => "NOT PROVED".to_owned(),
        },
        Some(Outcome::Skipped { .. } | Outcome::Stale { .. } | Outcome::Cancelled { .. })
        | None
            if step.info.exchanges_token =>
        {
            "not tried".to_owned()
        }
        Some(
            Outcome::Done { .. }
            | Outcome::Unchanged { .. }
            | Outcome::Failed { .. }
            | Outcome::Skipped { .. }
            | Outcome::Stale { .. }
            | Outcome::Cancelled { .. },
        )
        | None => return None,
    };
    Some(word)
}

/// Issuer, subject and principal are in the JSON; people need to know that it was done, and how.
fn evidence_words(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Token {
            issuer: _,
            subject: _,
            audience: _,
            principal: _,
            attempts,
            answers,
            method,
            probed,
            probe_unseen,
        } => {
            let mut details = vec![findings::counted(*attempts as usize, "attempt")];
            if *answers > 1 {
                details.push(format!("{answers} answers in a row"));
            }
            if *probed {
                details.push("probe answered".to_owned());
            }
            if let Some(why) = probe_unseen {
                details.push(format!("probe not seen: {}", escape::terminal(why)));
            }
            format!("proved by {} ({})", escape::terminal(method), details.join(", "))
        }
        Evidence::Pods { pods } => {
            format!("{} with today's values", findings::counted(*pods, "pod"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        execute::event::StepClass,
        model::{AccountName, FailureKind, Namespace},
        plan::StepId,
    };

    fn step(id: usize, account: &str) -> StepReport {
        let info = StepInfo {
            id: StepId(id),
            address: Address::workload(&Namespace::from("shop"), &AccountName::from(account)),
            verb: "prove".to_owned(),
            class: StepClass::Proof,
            exchanges_token: true,
            change: None,
            object: None,
            workloads: Vec::new(),
        };
        StepReport { info, outcome: None, elapsed: Duration::ZERO }
    }

    #[test]
    fn one_cause_over_many_workloads_is_one_group() {
        let names = ["api", "job", "web"];
        let steps: Vec<StepReport> =
            names.iter().enumerate().map(|(id, name)| step(id, name)).collect();
        let of = |name: &str, code: &str| {
            let message = format!("serviceaccounts \"{name}\" is forbidden in \"shop\"");
            let tried = format!("request a token of {name}");
            let mut failure = RemoteFailure::new(FailureKind::Denied, tried, message);
            failure.code = Some(code.to_owned());
            failure.correlation_id = Some(format!("id of {name}"));
            failure
        };
        let failures = [of("api", "Forbidden"), of("job", "Other"), of("web", "Forbidden")];
        let failed: Vec<Failed<'_>> = steps
            .iter()
            .zip(&failures)
            .map(|(step, failure)| Failed { step, failure, written: false })
            .collect();
        let groups = alike(&failed);
        let ids = |group: &[&Failed<'_>]| -> Vec<usize> {
            group.iter().map(|failed| failed.step.info.id.0).collect()
        };
        assert_eq!(
            groups.iter().map(|group| ids(group)).collect::<Vec<_>>(),
            [vec![0, 2], vec![1]]
        );
    }
}
