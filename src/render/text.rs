//! A plan as text, grouped by workload: reviewers think in workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{
    change::{self, Symbol},
    escape, findings,
    style::{Palette, Style},
};
use crate::{
    model::{Address, ClusterName},
    ops::planned::{self, Planned, Tally},
    plan::Change,
};

/// How many workloads are shown with their changes; the rest is counted.
const WORKLOADS_SHOWN: usize = 40;

/// The words of the sandbox, first and last line of its output.
pub const SANDBOX: &str = "SANDBOX: emulated Azure, Entra and clusters; nothing real is touched";

/// A plan for a terminal.
pub fn plan(planned: &Planned, palette: Palette) -> String {
    let mut text = body(planned, palette);
    push(&mut text, "Proof: not run (widentity verify)");
    push(&mut text, &palette.paint(Style::Heading, last_line(planned)));
    if planned.scope.sandbox {
        push(&mut text, SANDBOX);
    }
    text
}

/// A plan that is about to be applied: the report follows, with proofs and the verdict.
pub fn preview(planned: &Planned, palette: Palette) -> String {
    let mut text = body(planned, palette);
    if planned.has_changes() {
        push(&mut text, &palette.paint(Style::Heading, last_line(planned)));
        text.push('\n');
    }
    text
}

fn body(planned: &Planned, palette: Palette) -> String {
    let Planned { scope, plan, report } = planned;
    let mut text = String::new();
    if scope.sandbox {
        push(&mut text, SANDBOX);
    }
    push(&mut text, &headline(planned));
    let symbols = symbols(planned);
    if !symbols.is_empty() {
        let legend: Vec<String> = symbols
            .iter()
            .map(|symbol| {
                format!("{} {}", palette.paint(symbol.style(), symbol.as_str()), symbol.meaning())
            })
            .collect();
        push(&mut text, &legend.join("   "));
    }
    if let Some(risks) = findings::risks(report) {
        text.push('\n');
        text.push_str(&risks.text(palette));
    }
    let groups = groups(&plan.changes);
    // The group of shared changes is not counted against the limit.
    let shared = usize::from(groups.first().is_some_and(|group| group.workload.is_none()));
    let shown = WORKLOADS_SHOWN + shared;
    for group in groups.iter().take(shown) {
        text.push('\n');
        push_group(&mut text, group, planned, palette);
    }
    if groups.len() > shown {
        let more = findings::counted(groups.len() - shown, "more workload");
        push(&mut text, &format!("\n... and {more} with changes, see -o json"));
    }
    for section in findings::sections(report) {
        text.push('\n');
        text.push_str(&section.text(palette));
    }
    text.push('\n');
    if planned.has_changes() {
        push(&mut text, &format!("Digest: {}", plan.digest));
    }
    text
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// The frozen last line of a plan.
pub fn last_line(planned: &Planned) -> String {
    if planned.matches() {
        return "No changes. Your infrastructure matches the configuration.".to_owned();
    }
    let Tally { add, change, destroy } = planned.tally();
    format!("Plan: {add} to add, {change} to change, {destroy} to destroy.")
}

fn headline(planned: &Planned) -> String {
    let scope = &planned.scope;
    let mut line = format!(
        "widentity plan: project {} ({}), {}",
        escape::terminal(scope.project.as_str()),
        escape::terminal(&scope.config),
        findings::counted(scope.workloads.len(), "workload"),
    );
    let clusters: Vec<&str> = scope.clusters.iter().map(ClusterName::as_str).collect();
    if !clusters.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(line, " in {}", escape::terminal(&clusters.join(", ")));
    }
    if scope.not_selected > 0 {
        let _ = write!(line, ", {} not selected", scope.not_selected);
    }
    line
}

/// Changes under one heading.
pub(super) struct Group<'a> {
    /// The workload; none for what several share.
    pub(super) workload: Option<Address>,
    /// Its changes, in the order in which they depend on each other.
    pub(super) changes: Vec<&'a Change>,
}

/// Shared changes first, then workload by workload.
pub(super) fn groups(changes: &[Change]) -> Vec<Group<'_>> {
    let mut by_home: BTreeMap<Option<Address>, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        by_home.entry(planned::home_of(change)).or_default().push(change);
    }
    let ordered = by_home.into_iter().map(|(workload, mut changes)| {
        changes.sort_by(|a, b| (a.kind, &a.address).cmp(&(b.kind, &b.address)));
        Group { workload, changes }
    });
    ordered.collect()
}

fn push_group(text: &mut String, group: &Group<'_>, planned: &Planned, palette: Palette) {
    let title = match &group.workload {
        Some(workload) => escape::terminal(&workload.to_string()).into_owned(),
        None => "Clusters and shared identities".to_owned(),
    };
    push(text, &palette.paint(Style::Heading, format!("# {title}")));
    for change in &group.changes {
        for line in change::lines(change, symbol(change, planned), palette) {
            push(text, &format!("  {line}"));
        }
        let sharing = sharing(change);
        if !sharing.is_empty() {
            push(text, &format!("      for {sharing}"));
        }
    }
}

/// The other workloads that need a change, where it is shown under one or under none.
fn sharing(change: &Change) -> String {
    let home = planned::home_of(change);
    let all: BTreeSet<Address> = change.workloads.iter().filter_map(planned::workload_of).collect();
    let others: Vec<String> = all
        .iter()
        .filter(|address| Some(*address) != home.as_ref())
        .map(Address::to_string)
        .collect();
    let shown = others.len().min(5);
    let more = if others.len() > shown {
        format!(" and {} more", others.len() - shown)
    } else {
        String::new()
    };
    format!("{}{more}", escape::terminal(&others[..shown].join(", ")))
}

/// The symbol of a change: a takeover is told by a risk on the same address.
pub(super) fn symbol(change: &Change, planned: &Planned) -> Symbol {
    let takeover =
        |code: &str| code.ends_with("taken-over") || code == "foreign-credential-changed";
    let adopted = planned
        .report
        .risks
        .iter()
        .any(|risk| risk.address == change.address && takeover(&risk.code));
    Symbol::of(change, adopted)
}

fn symbols(planned: &Planned) -> BTreeSet<Symbol> {
    let mut used: BTreeSet<Symbol> =
        planned.plan.changes.iter().map(|change| symbol(change, planned)).collect();
    if !planned.report.risks.is_empty() {
        used.insert(Symbol::Risk);
    }
    used
}
