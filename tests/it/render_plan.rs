//! Rendered plans, as people and machines read them.

use widentity::render::{Palette, json, markdown, text};

use crate::support::plans;

#[test]
fn a_plan_as_text() {
    insta::assert_snapshot!(text::plan(&plans::full(), Palette::PLAIN));
}

#[test]
fn a_plan_as_markdown() {
    insta::assert_snapshot!(markdown::plan(&plans::full()));
}

#[test]
fn a_plan_as_json() {
    insta::assert_snapshot!(json::to_text(&json::plan(&plans::full())));
}

#[test]
fn an_empty_plan_says_so_last() {
    insta::assert_snapshot!(text::plan(&plans::empty(), Palette::PLAIN));
}

#[test]
fn no_plan_with_something_unseen_blocked_refused_or_left_over_says_no_changes() {
    let full = plans::full().report;
    let mut reports = vec![plans::empty().report; 5];
    reports[0].unknown = full.unknown;
    reports[1].blocked = full.blocked;
    reports[2].refused = full.refused;
    reports[3].left_over = full.left_over;
    reports[4].not_proved = full.not_proved;
    for report in reports {
        let mut planned = plans::empty();
        planned.report = report;
        let text = text::plan(&planned, Palette::PLAIN);
        assert!(text.ends_with("Plan: 0 to add, 0 to change, 0 to destroy.\n"), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("No changes")), "{text}");
        assert!(!markdown::plan(&planned).lines().any(|line| line.starts_with("No changes")));
    }
}

#[test]
fn colour_changes_nothing_but_escape_sequences() {
    let coloured = text::plan(&plans::full(), Palette { coloured: true });
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    assert_eq!(plain, text::plan(&plans::full(), Palette::PLAIN));
}

#[test]
fn many_workloads_are_cut_but_risks_never() {
    let mut planned = plans::full();
    let change = planned.plan.changes.pop().unwrap();
    for index in 0..100 {
        let mut more = change.clone();
        more.address = plans::workload("many", &format!("w{index:03}"));
        more.workloads = vec![];
        planned.plan.changes.push(more);
        let mut risk = planned.report.risks[0].clone();
        risk.message = format!("risk number {index}.");
        planned.report.risks.push(risk);
    }
    let text = text::plan(&planned, Palette::PLAIN);
    assert!(text.contains("more workloads with changes, see -o json"), "{text}");
    assert!((0..100).all(|index| text.contains(&format!("risk number {index}."))));
    let markdown = markdown::plan(&planned);
    assert!(markdown.len() < 65_536, "{}", markdown.len());
    assert!((0..100).all(|index| markdown.contains(&format!("risk number {index}."))));
}
