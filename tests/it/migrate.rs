//! Leaving Pod Identity, judged: each file of `tests/migrate` is a world, the decisions of a file,
//! and where each workload must stand in it.

use std::{collections::BTreeMap, fs, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use widentity::{
    migrate::{
        self, Phase, Survey, Verdict,
        survey::{Given, Note},
        toml,
    },
    model::{
        ArmId, Audience, Origin,
        desired::{DesiredWorkload, ManagedBy, PodSelection, RolloutMode},
        pod_identity::Estate,
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    estate: Estate,
    #[serde(default)]
    file: Vec<Decision>,
    expect: BTreeMap<String, Expected>,
    notes: Option<Vec<String>>,
    #[serde(default = "yes")]
    found: bool,
    #[serde(default)]
    may_enable: bool,
    #[serde(default = "later")]
    now: Timestamp,
    #[serde(default)]
    unseen: usize,
}

fn yes() -> bool {
    true
}

fn later() -> Timestamp {
    "2026-02-01T00:00:00Z".parse().unwrap()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    phase: Phase,
    verdict: Verdict,
    reasons: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    namespace: String,
    account: String,
    identity: ArmId,
    #[serde(default)]
    pods: Vec<String>,
    #[serde(default)]
    adopt: bool,
}

impl Decision {
    fn workload(&self) -> DesiredWorkload {
        let pods = self.pods.iter().cloned().collect();
        DesiredWorkload {
            namespace: self.namespace.as_str().into(),
            account: self.account.as_str().into(),
            clusters: vec!["prod".into()],
            identity: self.identity.clone(),
            tenant: "5d1f0c2e-7a44-4c1b-9e37-2f8a6b90c451".parse().unwrap(),
            token_expiration: None,
            pods: if self.pods.is_empty() { PodSelection::All } else { PodSelection::Named(pods) },
            rollout: RolloutMode::Auto,
            managed_by: ManagedBy::Auto,
            adopt: self.adopt,
            probe: None,
            origin: Origin { file: "w.toml".to_owned(), line: 1, column: 1 },
            selected: ["prod".into()].into(),
        }
    }
}

impl Fixture {
    fn survey(&self) -> Survey {
        let workloads: Vec<DesiredWorkload> = self.file.iter().map(Decision::workload).collect();
        migrate::survey(
            &self.estate,
            Given {
                workloads: &workloads,
                may_enable: self.may_enable,
                audience: &Audience::default(),
                now: self.now,
                soak: SignedDuration::from_hours(24),
            },
        )
    }
}

fn fixtures() -> Vec<(String, Fixture)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/migrate");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let fixture = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        found.push((name, fixture));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn every_shape_stands_where_it_should() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 40, "{} fixtures", fixtures.len());
    let mut wrong = Vec::new();
    for (name, fixture) in &fixtures {
        let survey = fixture.survey();
        let shown = |phase: Phase, verdict: Verdict, reasons: Vec<&str>| {
            format!("{}, {}, {reasons:?}", phase.as_str(), verdict.as_str())
        };
        let have: BTreeMap<String, String> = survey
            .workloads
            .iter()
            .map(|w| {
                let reasons = w.reasons.iter().map(|r| r.code.as_str()).collect();
                (w.name(), shown(w.phase, w.verdict, reasons))
            })
            .collect();
        let want: BTreeMap<String, String> = fixture
            .expect
            .iter()
            .map(|(name, e)| {
                let reasons = e.reasons.iter().map(String::as_str).collect();
                (name.clone(), shown(e.phase, e.verdict, reasons))
            })
            .collect();
        if have != want {
            wrong.push(format!("{name}: have {have:#?}, want {want:#?}"));
        }
        let notes: Vec<&str> = survey.notes.iter().map(|note: &Note| note.code.as_str()).collect();
        if let Some(want) = &fixture.notes
            && notes != *want
        {
            wrong.push(format!("{name}: notes {notes:?}, want {want:?}"));
        }
        if survey.found != fixture.found || survey.unseen.len() != fixture.unseen {
            wrong.push(format!("{name}: found {}, unseen {}", survey.found, survey.unseen.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn whatever_is_not_ready_says_why_and_what_to_write() {
    for (name, fixture) in fixtures() {
        for workload in fixture.survey().workloads {
            let open = workload.verdict != Verdict::Ready;
            assert_eq!(open, !workload.reasons.is_empty(), "{name}");
            let told =
                workload.reasons.iter().all(|r| !r.message.is_empty() && !r.decide.is_empty());
            assert!(told, "{name}");
            assert!(workload.phase == Phase::Cleaned || !workload.next.is_empty(), "{name}");
        }
    }
}

#[test]
fn the_resulting_workloads_are_toml_and_leave_out_what_the_file_has() {
    for (name, fixture) in fixtures() {
        let survey = fixture.survey();
        let text = toml::workloads(std::slice::from_ref(&survey), &[], false);
        let parsed: ::toml::Table = text.parse().unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
        let entries = parsed.get("workloads").and_then(|w| w.as_array()).map_or(0, Vec::len);
        let known = survey.workloads.iter().filter(|w| w.identity.is_some()).count();
        assert_eq!(entries, known, "{name}\n{text}");
        let have: Vec<DesiredWorkload> = fixture.file.iter().map(Decision::workload).collect();
        let rest = toml::workloads(&[survey], &have, false);
        assert!(have.is_empty() || rest.is_empty(), "{name}\n{rest}");
    }
}

#[test]
fn a_survey_does_not_depend_on_the_order_of_what_was_read() {
    for (name, fixture) in fixtures() {
        let mut turned = fixture.estate.clone();
        turned.identities.reverse();
        turned.bindings.reverse();
        turned.templates.reverse();
        turned.pods.reverse();
        turned.accounts.reverse();
        let other = Fixture { estate: turned, ..fixture };
        let again = other.survey();
        let mut estate = other.estate.clone();
        estate.identities.reverse();
        estate.bindings.reverse();
        estate.templates.reverse();
        estate.pods.reverse();
        estate.accounts.reverse();
        let first = Fixture { estate, ..other }.survey();
        let facts = |s: &Survey| -> Vec<_> {
            let of = |w: &migrate::Workload| (w.name(), w.phase, w.verdict, w.templates.clone());
            s.workloads.iter().map(of).collect()
        };
        assert_eq!(facts(&first), facts(&again), "{name}");
    }
}
