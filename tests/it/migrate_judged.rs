//! What a user reads of the judgement: who is given what, what is missing, what comes next; in text,
//! JSON and TOML alike.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use serde_json::Value;
use widentity::{
    migrate::{Phase, Verdict, rollback, toml},
    model::{
        FailureKind, Origin, RemoteFailure,
        desired::{DesiredWorkload, ManagedBy, PodSelection, RolloutMode},
        pod_identity::{
            AzureIdentityState, BINDING_LABEL, Backup, Binding, EstatePod, EstateTemplate, Field,
            Install, PodIdentity, TemplateBackup,
        },
    },
    ops::migrate::{Overview, Surveyed},
    render::{
        Palette,
        migrate::{self as shown, Told},
    },
};

use crate::{
    migrate::{Fixture, fixture},
    support::worlds,
};

fn overview(fixtures: Vec<Fixture>) -> Overview {
    let now = "2026-02-01T00:00:00Z".parse().unwrap();
    let read = |fixture: Fixture| Surveyed { survey: fixture.survey(), estate: fixture.estate };
    let clusters = fixtures.into_iter().map(read).collect();
    Overview { project: "shop".into(), sandbox: false, now, clusters }
}

fn status(fixture: Fixture) -> String {
    shown::text(&overview(vec![fixture]), Told::Status, Palette::PLAIN)
}

/// The workload of a fixture, as the file would have it.
fn in_the_file(fixture: &Fixture, pods: &[&str]) -> DesiredWorkload {
    let workload = fixture.survey().workloads.remove(0);
    let named: BTreeSet<String> = pods.iter().map(|pod| (*pod).to_owned()).collect();
    DesiredWorkload {
        namespace: workload.namespace,
        account: workload.account,
        clusters: vec!["prod".into()],
        identity: workload.reaches[0].clone(),
        tenant: worlds::tenant(),
        token_expiration: None,
        pods: if named.is_empty() { PodSelection::All } else { PodSelection::Named(named) },
        rollout: RolloutMode::Auto,
        managed_by: ManagedBy::Auto,
        adopt: false,
        probe: None,
        proxy: false,
        chained: None,
        origin: Origin { file: "w.toml".to_owned(), line: 1, column: 1 },
        selected: ["prod".into()].into(),
    }
}

/// Another Deployment of the same account, whose label no binding selects.
fn with_a_label_for_nothing() -> Fixture {
    let mut fixture = fixture("plain-deployment");
    let labels = BTreeMap::from([(BINDING_LABEL.to_owned(), "nothing".to_owned())]);
    let none = EstateTemplate {
        name: "none".to_owned(),
        labels: labels.clone(),
        ..fixture.estate.templates[0].clone()
    };
    fixture.estate.pods.push(EstatePod {
        namespace: none.namespace.clone(),
        name: "none-7-x".to_owned(),
        account: none.account.clone(),
        controller: Some("replicaset/none-7".to_owned()),
        labels,
        ..EstatePod::default()
    });
    fixture.estate.templates.push(none);
    fixture
}

#[test]
fn what_has_no_identity_today_is_given_none() {
    let mut fixture = with_a_label_for_nothing();
    for binding_to_nothing in [false, true] {
        if binding_to_nothing {
            fixture.estate.bindings.push(Binding {
                name: "nothing".to_owned(),
                uid: "nothing".to_owned(),
                identity: "not-there".to_owned(),
                selector: "nothing".to_owned(),
                ..fixture.estate.bindings[0].clone()
            });
        }
        let survey = fixture.survey();
        let [workload] = survey.workloads.as_slice() else { panic!("{survey:#?}") };
        assert_eq!(workload.templates, ["deployment/api".to_owned()].into(), "{workload:#?}");
        assert_eq!(workload.selectors, ["api".to_owned()].into());
        assert_eq!((workload.pods, workload.whole), (0, false));
        let [reason] = workload.reasons.as_slice() else { panic!("{workload:#?}") };
        assert_eq!(reason.code, "shared-account");
        assert_eq!(reason.decide, "pods = [\"deployment/api\"]");
        let told: Vec<_> = survey.notes.iter().filter(|n| n.code == "label-unanswered").collect();
        assert!(told[0].message.starts_with("deployment/none of shop/api has no identity today"));
        assert!(!told[0].message.contains("`pods` in the file"), "{told:?}");
    }
    // Whoever names it by hand reads what that would do, and `migrate` does not do it.
    let named = in_the_file(&fixture, &["deployment/api", "deployment/none"]);
    let survey = fixture.survey_of(&[named]);
    assert_eq!(survey.workloads[0].verdict, Verdict::Ready);
    assert_eq!(survey.workloads[0].templates, ["deployment/api".to_owned()].into());
    let told = survey.notes.iter().find(|note| note.code == "label-unanswered").unwrap();
    assert!(told.message.contains("`widentity apply`, not `migrate`"), "{told:?}");
    // A binding that was not seen may be there.
    let denied = RemoteFailure::new(FailureKind::Denied, "list bindings", "no");
    fixture.estate.unseen = vec![denied];
    assert_eq!(fixture.survey().workloads[0].templates.len(), 1);
    fixture.estate.bindings.clear();
    assert_eq!(fixture.survey().workloads[0].templates.len(), 2);
}

#[test]
fn what_nothing_answered_before_does_not_hold_a_rollback() {
    let fixture = with_a_label_for_nothing();
    let field = Field { before: Some("nothing".to_owned()), after: None };
    let kept = |unanswered: bool| TemplateBackup {
        key: "deployment/none".to_owned(),
        labels: BTreeMap::from([(BINDING_LABEL.to_owned(), field.clone())]),
        unanswered,
        ..TemplateBackup::default()
    };
    let hinders = |unanswered: bool| {
        let backup = Backup {
            namespace: "shop".into(),
            account: "api".into(),
            templates: vec![kept(unanswered)],
            ..Backup::default()
        };
        rollback::obstacles(&fixture.estate, &backup, false)
    };
    assert_eq!(hinders(false), ["no binding selects aadpodidbinding=nothing"]);
    assert_eq!(hinders(true), [""; 0]);
}

#[test]
fn what_is_broken_comes_first_is_counted_and_says_what_is_missing() {
    let mut broken = fixture("broken-credential-deleted");
    let healthy = fixture("plain-deployment").estate;
    let labels = healthy.templates[0].labels.clone();
    let before = |name: &str| EstateTemplate {
        name: name.to_owned(),
        account: name.into(),
        labels: labels.clone(),
        ..healthy.templates[0].clone()
    };
    broken.estate.templates.push(before("aaa"));
    let survey = broken.survey();
    assert_eq!(survey.workloads[1].phase, Phase::Broken);
    assert_eq!(survey.workloads[1].verdict, Verdict::ToMend);
    assert_eq!(survey.workloads[1].next, ["federate the identity", "prove a token"]);
    let all = overview(vec![broken]);
    let text = shown::text(&all, Told::Status, Palette::PLAIN);
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
    assert!(at("shop/api as api: broken, to mend;") < at("shop/aaa as api: discovered, ready;"));
    assert!(text.contains("0 of 2 workloads moved, 1 broken, 1 ready, 0 to decide"), "{text}");
    assert!(text.contains("next: federate the identity"), "{text}");
    let red = shown::text(&all, Told::Status, Palette { coloured: true });
    assert!(red.contains("\u{1b}[31;1mbroken\u{1b}[0m"), "{red}");
}

#[test]
fn an_annotation_that_names_another_client_is_to_be_corrected() {
    let other = "c0000000-0000-4000-8000-000000000009";
    let mut fixture = fixture("half-done-without-annotation");
    fixture.estate.accounts[0].client_id = Some(other.to_owned());
    let workload = fixture.survey().workloads.remove(0);
    let acts = workload.identity.clone().unwrap();
    let [reason] = workload.reasons.as_slice() else { panic!("{workload:#?}") };
    assert_eq!(reason.code, "account-acts-as");
    let what = format!("from {other} to {}", acts.client);
    assert!(reason.decide.starts_with("identity = \"") && reason.decide.ends_with(&what));
    let decided = fixture.survey_of(&[in_the_file(&fixture, &[])]).workloads.remove(0);
    assert_eq!(decided.verdict, Verdict::ToMend, "{decided:#?}");
    assert!(decided.lacks[0].contains(other), "{:?}", decided.lacks);
    assert_eq!(decided.next[0], "prove a token");
    assert!(decided.next[1].starts_with("correct annotation azure.workload.identity/client-id"));
    assert!(decided.next[1].contains(other), "{:?}", decided.next);
    // Where somebody else uses the other client, it is theirs.
    let labels = fixture.estate.templates[0].labels.clone();
    let labels = labels.into_iter().filter(|(key, _)| key != BINDING_LABEL).collect();
    let user =
        EstateTemplate { name: "user".to_owned(), labels, ..fixture.estate.templates[0].clone() };
    fixture.estate.templates.push(user);
    let file = in_the_file(&fixture, &["deployment/api"]);
    let theirs = fixture.survey_of(&[file]).workloads.remove(0);
    assert!(theirs.reasons[0].decide.starts_with("a service account of its own"), "{theirs:#?}");
}

/// Neither text nor TOML takes one of several for the user.
#[test]
fn nobody_is_chosen_among_several_identities() {
    let fixture = fixture("several-identities");
    let workload = fixture.survey().workloads.remove(0);
    let reason = workload.reasons.iter().find(|r| r.code == "several-identities").unwrap();
    assert!(workload.reaches.len() > 1);
    for id in &workload.reaches {
        assert!(reason.decide.contains(id.as_str()), "{reason:?}");
    }
    assert!(!reason.decide.starts_with("identity"), "{reason:?}");
    let text = toml::workloads(&[fixture.survey()], &worlds::desired(&["prod"]));
    let keys = text.lines().filter(|line| line.starts_with("# # identity = ")).count();
    assert_eq!(keys, workload.reaches.len(), "{text}");
    assert!(!text.contains("\n# identity"), "{text}");
}

/// An identity that does not exist is on no node, and an obstacle is nothing to decide.
#[test]
fn what_is_gone_is_told_once() {
    let mut fixture = fixture("pods-on-the-nodes-identity-with-mic");
    let codes = |fixture: &Fixture| -> Vec<String> {
        fixture.survey().workloads[0].reasons.iter().map(|reason| reason.code.clone()).collect()
    };
    assert_eq!(codes(&fixture), ["node-identity"]);
    for state in fixture.estate.azure.values_mut() {
        *state = AzureIdentityState::Gone;
    }
    assert_eq!(codes(&fixture), ["identity-gone"]);
    let text = toml::workloads(&[fixture.survey()], &worlds::desired(&["prod"]));
    assert!(text.contains("#   to do: make it again") && !text.contains("decide"), "{text}");
    fixture.estate.identities[0].resource_id = "nothing".to_owned();
    let text = toml::workloads(&[fixture.survey()], &worlds::desired(&["prod"]));
    assert!(!text.contains("identity = "), "{text}");
}

#[test]
fn text_and_json_count_the_same() {
    let mut counted = BTreeMap::new();
    for (name, verdict, word) in [
        ("cleaned", Verdict::Switched, "1 of 1 workload moved, 0 ready"),
        ("rolled-back", Verdict::LeftAlone, "1 put back and left alone, 0 ready"),
        ("half-done-without-credential", Verdict::ToMend, "1 half-done, 0 ready"),
        ("switched-pods-not-ready", Verdict::Switched, "1 not proved yet, 0 ready"),
        ("plain-deployment", Verdict::Ready, "0 of 1 workload moved, 1 ready"),
    ] {
        let mut fixture = fixture(name);
        if name == "rolled-back" {
            let [backup] = fixture.estate.backups.as_mut_slice() else { panic!("{name}") };
            backup.rolled_back = true;
        }
        let all = overview(vec![fixture]);
        assert!(shown::last_line(&all).contains(word), "{name}: {}", shown::last_line(&all));
        let json: Value = serde_json::from_str(&shown::json(
            &all,
            "migrate status",
            widentity::execute::exit::ExitCode::Done,
        ))
        .unwrap();
        let told: Verdict =
            serde_json::from_value(json["clusters"][0]["workloads"][0]["verdict"].clone()).unwrap();
        assert_eq!(told, verdict, "{name}");
        for (what, count) in json["counts"].as_object().unwrap() {
            *counted.entry(what.clone()).or_insert(0) += count.as_u64().unwrap();
        }
    }
    let one = ["half_done", "left_alone", "moved", "not_proved", "ready"];
    assert!(one.iter().all(|what| counted[*what] == 1), "{counted:?}");
    assert_eq!(counted["workloads"], 5);
}

/// Whoever names what was put back reads its steps, not the command they have just typed.
#[test]
fn a_workload_that_is_taken_up_has_steps() {
    let mut all = overview(vec![fixture("rolled-back")]);
    let workload = |all: &Overview| all.clusters[0].survey.workloads[0].clone();
    assert!(workload(&all).next[0].contains("widentity migrate apply --only shop/api"));
    assert_eq!(all.next(), []);
    all.take_up();
    let taken = workload(&all);
    assert_eq!((taken.verdict, taken.left_alone), (Verdict::Ready, false));
    assert!(taken.next.iter().any(|step| step.starts_with("switch deployment/api")), "{taken:#?}");
    assert_eq!(all.next()[0].command, "widentity migrate apply");
}

#[test]
fn a_status_ends_with_what_to_type() {
    let ends = |name: &str| status(fixture(name)).lines().last().unwrap().to_owned();
    assert_eq!(ends("plain-deployment"), "Next: widentity migrate apply (moves 1 workload)");
    assert_eq!(
        ends("broken-credential-deleted"),
        "Next: widentity migrate apply (completes 1 workload)"
    );
    let soaked = "Next: widentity migrate finish (removes the bindings of 1 workload)";
    assert_eq!(ends("soaked"), soaked);
    let mut soaking = fixture("soaked");
    let now = "2026-02-01T00:00:00Z".parse().unwrap();
    let begun = SignedDuration::from_hours(1);
    soaking.estate.backups[0].arrived = Some(jiff::Timestamp::checked_sub(now, begun).unwrap());
    let text = status(soaking);
    assert!(text.contains("soaking until 2026-02-01T23:00:00Z, 23h from now; "), "{text}");
    let last = text.lines().last().unwrap();
    let wanted = "Next: widentity migrate finish (from 2026-02-01T23:00:00Z on, 23h from now)";
    assert_eq!(last, wanted);
    // What an uninstallation has left of the installation is told.
    let mut cleaned = fixture("cleaned");
    let mic = Install { component: "mic".to_owned(), ..Install::default() };
    cleaned.estate.installs.push(mic);
    let both = status(cleaned);
    assert!(both.contains(", MIC, NMI\n"), "{both}");
    let begun = status(fixture("cleaned"));
    assert!(begun.contains(", NMI\n") && !begun.contains("MIC"), "{begun}");
    let uninstall =
        "Next: widentity migrate uninstall (takes the installation of Pod Identity away)";
    assert_eq!([both, begun].map(|text| text.lines().last().unwrap().to_owned()), [uninstall; 2]);
}

/// That a CronJob never ran is not forgotten with its binding.
#[test]
fn what_never_ran_is_told_after_its_binding_went() {
    let mut fixture = fixture("cron-job-switched-and-not-run");
    fixture.estate.bindings.clear();
    fixture.estate.identities.clear();
    let now = fixture.survey().workloads.remove(0);
    assert_eq!((now.phase, now.unrun), (Phase::Cleaned, Vec::<String>::new()));
    let key = fixture.estate.templates[0].key();
    fixture.estate.backups[0].unrun = vec![key.clone()];
    assert_eq!(fixture.survey().workloads[0].unrun, vec![key]);
    let text = status(fixture);
    assert!(text.contains("never run: its bindings went before a pod of cronjob/"), "{text}");
}

#[test]
fn a_cluster_that_was_not_seen_is_not_empty() {
    let mut down = fixture("nothing-installed");
    down.estate.installed = true;
    let failed = |tried: &str| {
        RemoteFailure::new(FailureKind::Unreachable, tried, "aks-prod does not answer")
            .with_hint("kubectl cluster-info")
    };
    down.estate.unseen = vec![failed("list pods"), failed("list jobs"), failed("list backups")];
    down.estate.installs.clear();
    let text = status(down);
    assert!(!text.contains("0 identities") && !text.contains("0 of 0"), "{text}");
    assert!(text.contains("Pod Identity: not seen"), "{text}");
    let line = "not seen: list pods, jobs, backups: aks-prod does not answer; kubectl cluster-info";
    assert_eq!(text.matches(line).count(), 1, "{text}");
    assert_eq!(text.matches("not seen:").count(), 1, "{text}");
    assert!(text.ends_with("nothing is known of its workloads.\n"), "{text}");
    // What was seen is counted all the same.
    let mut half = fixture("plain-deployment");
    half.estate.unseen = vec![failed("list pods")];
    half.estate.identities.push(PodIdentity::default());
    let text = status(half);
    assert!(text.contains("2 identities, 1 binding, NMI; not everything was seen"), "{text}");
    assert!(text.contains("1 cannot; cluster prod was not seen, or not all of it."), "{text}");
}
