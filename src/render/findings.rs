//! The sections beside the changes: what stands in the way, what waits, what was not seen.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    escape,
    style::{Palette, Style},
};
use crate::{
    model::{Address, Origin, RemoteFailure},
    ops::planned::workload_of,
    plan::{
        PlanReport,
        report::{Finding, LeftOver, Pending, Unseen},
    },
};

/// How many entries a list shows that may be cut: never risks, refusals, what is blocked or was
/// not seen.
const SHOWN: usize = 25;

/// `1 workload`, `2 workloads`.
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// How many workloads, or objects where none of the addresses is a workload's.
pub fn workloads<'a>(addresses: impl IntoIterator<Item = &'a Address>) -> String {
    let (mut distinct, mut all) = (BTreeSet::new(), 0);
    for address in addresses {
        all += 1;
        distinct.extend(workload_of(address));
    }
    if distinct.is_empty() { counted(all, "object") } else { counted(distinct.len(), "workload") }
}

/// `unauthenticated`-like details of a failed call: status, code, correlation id.
pub fn failure_details(failure: &RemoteFailure) -> Option<String> {
    let mut details = Vec::new();
    match (failure.status, failure.code.as_deref()) {
        (Some(status), Some(code)) => details.push(format!("HTTP {status} {code}")),
        (Some(status), None) => details.push(format!("HTTP {status}")),
        (None, Some(code)) => details.push(code.to_owned()),
        (None, None) => {}
    }
    if let Some(id) = &failure.correlation_id {
        details.push(format!("correlation id {id}"));
    }
    (!details.is_empty()).then(|| escape::terminal(&details.join(", ")).into_owned())
}

/// A failed call on one line, with its details and what to type next.
pub fn failure_line(failure: &RemoteFailure) -> String {
    let details = failure_details(failure).map(|details| format!(" ({details})"));
    let hint = failure.hint.as_ref().map(|hint| format!("; {}", escape::terminal(hint)));
    let said = failure.to_string();
    let said = escape::terminal(&said);
    format!("{said}{}{}", details.unwrap_or_default(), hint.unwrap_or_default())
}

/// One section: its title and its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// For example `Blocked: 1 workload`.
    pub title: String,
    /// Whether it must be read.
    pub alarm: bool,
    /// Its lines, safe for a terminal, uncoloured, indented by two.
    pub lines: Vec<String>,
}

impl Section {
    /// Title and lines as text.
    pub fn text(&self, palette: Palette) -> String {
        let style = if self.alarm { Style::Alarm } else { Style::Heading };
        let mut text = palette.paint(style, &self.title);
        text.push('\n');
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// The risks, which come before everything else.
pub fn risks(report: &PlanReport) -> Option<Section> {
    if report.risks.is_empty() {
        return None;
    }
    let title = format!("{} to look at", counted(report.risks.len(), "risk"));
    let lines = report.risks.iter().flat_map(|risk| finding_lines("!", risk)).collect();
    Some(Section { title, alarm: true, lines })
}

/// Every other section that has entries, in the order of urgency.
pub fn sections(report: &PlanReport) -> Vec<Section> {
    let PlanReport {
        risks: _,
        refused,
        blocked,
        unknown,
        pending_git,
        pending_rollout,
        recreate,
        left_over,
        not_proved,
        unmanaged,
    } = report;
    let mut sections = Vec::new();
    let mut add = |title: String, alarm: bool, lines: Vec<String>| {
        if !lines.is_empty() {
            sections.push(Section { title, alarm, lines });
        }
    };
    let of_findings = |list: &[Finding]| workloads(list.iter().map(|finding| &finding.address));
    let of_pending = |list: &[Pending]| workloads(list.iter().map(|pending| &pending.workload));
    let lines_of = |list: &[Finding]| {
        list.iter().flat_map(|finding| finding_lines("-", finding)).collect::<Vec<_>>()
    };
    add(format!("Refused: {}", of_findings(refused)), true, lines_of(refused));
    add(format!("Blocked: {}", of_findings(blocked)), true, lines_of(blocked));
    let reads = reads(unknown);
    let title = format!("Not seen: {}", counted(reads.len(), "read"));
    add(title, true, reads.iter().flat_map(|read| unseen_lines(read)).collect());
    let not_proved_lines = lines_of(not_proved);
    add(format!("Not proved: {}", of_findings(not_proved)), true, not_proved_lines);
    add(format!("Waiting for Git: {}", of_pending(pending_git)), false, pending(pending_git));
    add(
        format!("Waiting for rollout: {}", of_pending(pending_rollout)),
        false,
        pending(pending_rollout),
    );
    let recreated = counted(recreate.len(), "object");
    add(format!("Must be recreated: {recreated}"), false, pending(recreate));
    let left = counted(left_over.len(), "object");
    add(format!("Left over: {left}"), false, cut(left_over.iter().map(left_over_line)));
    let lines = cut(unmanaged.iter().map(|address| {
        format!("  - {} (access = \"none\")", escape::terminal(&address.to_string()))
    }));
    add(format!("Not managed, not proved: {}", workloads(unmanaged)), false, lines);
    sections
}

fn at(origin: &Origin) -> String {
    format!("{}:{}", escape::terminal(&origin.file), origin.line)
}

fn finding_lines(mark: &str, finding: &Finding) -> Vec<String> {
    let Finding { address, code, message, hint, origin } = finding;
    let address = address.to_string();
    let mut lines = vec![format!(
        "  {mark} {}: {} [{}] ({})",
        escape::terminal(&address),
        escape::terminal(message),
        escape::terminal(code),
        at(origin),
    )];
    // A hint may have several lines of our own; each is escaped by itself.
    let hints = hint.iter().flat_map(|hint| hint.lines());
    lines.extend(hints.enumerate().map(|(index, hint)| {
        let label = if index == 0 { "hint:" } else { "     " };
        format!("      {label} {}", escape::terminal(hint))
    }));
    lines
}

/// What was not seen, by the read that failed: one read may serve many workloads.
fn reads(unknown: &[Unseen]) -> Vec<Vec<&Unseen>> {
    let mut at: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut reads: Vec<Vec<&Unseen>> = Vec::new();
    for unseen in unknown {
        let read = (unseen.failure.tried.as_str(), unseen.failure.message.as_str());
        let position = *at.entry(read).or_insert(reads.len());
        if position == reads.len() {
            reads.push(Vec::new());
        }
        reads[position].push(unseen);
    }
    reads
}

fn unseen_lines(read: &[&Unseen]) -> Vec<String> {
    let Some(Unseen { failure, .. }) = read.first() else { return Vec::new() };
    let mut lines = vec![
        format!("  - cannot {}", escape::terminal(&failure.tried)),
        format!("      {}", escape::terminal(&failure.message)),
    ];
    lines.extend(failure_details(failure).map(|details| format!("      {details}")));
    if let Some(hint) = &failure.hint {
        lines.push(format!("      hint: {}", escape::terminal(hint)));
    }
    lines.extend(read.iter().map(|Unseen { address, origin, .. }| {
        format!("      for {} ({})", escape::terminal(&address.to_string()), at(origin))
    }));
    lines
}

fn pending(list: &[Pending]) -> Vec<String> {
    let shown = list.iter().take(SHOWN).flat_map(|pending| {
        let Pending { workload, object, why, wanted } = pending;
        let workload = workload.to_string();
        let head = format!(
            "  - {}: {}, {}",
            escape::terminal(&workload),
            escape::terminal(object),
            escape::terminal(why),
        );
        let wanted = wanted.iter().map(|line| format!("      {}", escape::terminal(line)));
        std::iter::once(head).chain(wanted).collect::<Vec<_>>()
    });
    let mut lines: Vec<String> = shown.collect();
    push_rest(&mut lines, list.len());
    lines
}

fn left_over_line(left: &LeftOver) -> String {
    let LeftOver { kind, id, name } = left;
    let id = id.as_ref().map(|id| format!("  {}", escape::terminal(id.as_str())));
    let id = id.unwrap_or_default();
    format!("  - {} {}{id}", escape::terminal(kind), escape::terminal(name))
}

fn cut(lines: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let all = lines.len();
    let mut shown: Vec<String> = lines.take(SHOWN).collect();
    push_rest(&mut shown, all);
    shown
}

fn push_rest(lines: &mut Vec<String>, all: usize) {
    if all > SHOWN {
        lines.push(format!("  ... and {} more, see -o json", all - SHOWN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AccountName, FailureKind, Namespace};

    #[test]
    fn one_read_that_failed_is_told_once_for_all_who_need_it() {
        let unseen = |account: &str, tried: &str| Unseen {
            address: Address::workload(&Namespace::from("shop"), &AccountName::from(account)),
            failure: RemoteFailure::new(FailureKind::Denied, tried, "forbidden"),
            origin: Origin { file: "workloads.toml".to_owned(), line: 7, column: 1 },
        };
        let report = PlanReport {
            unknown: vec![
                unseen("api", "list service accounts"),
                unseen("job", "list pods"),
                unseen("web", "list service accounts"),
            ],
            ..PlanReport::default()
        };
        let [section] = &sections(&report)[..] else { panic!("{report:?}") };
        assert_eq!(section.title, "Not seen: 2 reads");
        assert_eq!(
            section.lines,
            [
                "  - cannot list service accounts",
                "      forbidden",
                "      for shop/api (workloads.toml:7)",
                "      for shop/web (workloads.toml:7)",
                "  - cannot list pods",
                "      forbidden",
                "      for shop/job (workloads.toml:7)",
            ]
        );
    }
}
