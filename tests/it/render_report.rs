//! Rendered reports of runs that went wrong in every way at once.

use std::time::Duration;

use widentity::{
    execute::{
        ApplyReport,
        event::{Cancelled, Event, Evidence, Outcome, StepClass, StepInfo},
        exit::{self, ExitCode},
    },
    model::{Address, FailureKind, RemoteFailure, address::Part},
    plan::{Action, ObjectKind, StepId},
    render::{Palette, json, report, report_json, schema},
};

use crate::support::plans;

fn info(id: usize, verb: &str, address: Address, class: StepClass, change: usize) -> StepInfo {
    StepInfo {
        id: StepId(id),
        verb: verb.to_owned(),
        class,
        exchanges_token: verb == "prove",
        change: (class == StepClass::Write).then_some(change),
        object: (class == StepClass::Write)
            .then_some((ObjectKind::AzureUserAssignedIdentity, Action::Create)),
        workloads: vec![],
        address,
    }
}

fn run() -> ApplyReport {
    let at = plans::workload("payments", "payments-api").at(&plans::prod());
    let worker = plans::workload("payments", "worker").at(&plans::prod());
    let part = |part| at.clone().part(part);
    let identity = Address::Identity("wi_a".to_owned());
    let rollout = Part::PodTemplate("deployment/payments-api".to_owned());
    let steps = vec![
        info(0, "create identity", identity.clone(), StepClass::Write, 0),
        info(1, "tag identity", identity, StepClass::Write, 1),
        info(
            2,
            "create federated credential",
            part(Part::FederatedCredential),
            StepClass::Write,
            2,
        ),
        info(3, "prove", part(Part::Proof), StepClass::Proof, 0),
        info(4, "annotate service account", part(Part::ServiceAccount), StepClass::Write, 4),
        info(5, "roll", part(rollout), StepClass::Rollout, 5),
        info(6, "prove", worker.part(Part::Proof), StepClass::Proof, 0),
    ];
    let failure = RemoteFailure {
        kind: FailureKind::Denied,
        tried: "create federated credential wi-1 of identity wi_a".to_owned(),
        message: "the client has no authorization\u{1b}[2J\nApply complete!".to_owned(),
        status: Some(403),
        code: Some("AuthorizationFailed".to_owned()),
        correlation_id: Some("c0ffee".to_owned()),
        hint: Some("az role assignment create --role 'Managed Identity Contributor'".to_owned()),
    };
    let evidence = Evidence::Token {
        issuer: "https://issuer/".into(),
        subject: "system:serviceaccount:payments:worker".into(),
        audience: "api://AzureADTokenExchange".into(),
        principal: "33333333-3333-3333-3333-333333333333".parse().unwrap(),
        attempts: 3,
        answers: 1,
        method: "token".to_owned(),
        probed: true,
        probe_unseen: None,
    };
    let outcomes = [
        Outcome::Done { detail: None, evidence: None },
        Outcome::Unchanged { detail: None },
        Outcome::Failed { failure, written: true },
        Outcome::Skipped { because: StepId(2) },
        Outcome::Stale { what: "its client id is another one by now".to_owned(), written: false },
        Outcome::Cancelled { why: Cancelled::Breaker, written: false },
        Outcome::Done { detail: None, evidence: Some(evidence) },
    ];
    let mut events = vec![Event::RunStarted { steps }];
    events.extend(outcomes.into_iter().enumerate().map(|(id, outcome)| Event::StepFinished {
        id: StepId(id),
        outcome,
        elapsed: Duration::from_millis(400),
    }));
    ApplyReport::fold(&events)
}

#[test]
fn a_report_says_what_was_done_and_what_was_not_and_because_of_what() {
    let mut planned = plans::full();
    planned.report = plans::empty().report;
    let run = run();
    let exit = exit::of_apply(&planned.report, &run);
    assert_eq!(exit, ExitCode::Partial);
    let text = report::apply(report::Of::Apply, &planned, &run, exit, Palette::PLAIN);
    assert!(!text.lines().any(|line| line.starts_with("Apply complete!")), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_report_is_json_of_its_schema() {
    let planned = plans::full();
    let document = report_json::report("apply", &planned, &run(), ExitCode::Partial);
    let schema: serde_json::Value = serde_json::from_str(&schema::report()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let value = serde_json::to_value(&document).unwrap();
    let problems: Vec<String> =
        validator.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{problems:#?}");
    insta::assert_snapshot!(json::to_text(&document));
}

#[test]
fn a_verification_shows_what_is_not_proved() {
    let planned = plans::full();
    insta::assert_snapshot!(report::verify(report::Of::Apply, &planned, &run(), Palette::PLAIN));
}
