//! Leaving Pod Identity, judged: each file of `tests/migrate` is a world, the decisions of a file,
//! and where each workload must stand in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;
use widentity::{
    migrate::{
        self, Phase, Survey, Verdict, Waived, Workload,
        matching::{reached, selects},
        removal::{Allowed, removal},
        rollback,
        survey::{Given, Note, Places},
        toml,
    },
    model::{
        AccountName, ArmId, Audience, FailureKind, Namespace, Origin, RemoteFailure, Subject,
        desired::{DesiredWorkload, ManagedBy, PodSelection, RolloutMode},
        names,
        pod_identity::{
            AzureIdentityState, BINDING_LABEL, Backup, Binding, Carrier, Estate, EstateAccount,
            EstatePod, EstateTemplate, Field, Install, PodIdentity,
        },
        snapshot::{self, ObservedCredential},
    },
};

use crate::support::worlds;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fixture {
    pub(crate) estate: Estate,
    #[serde(default)]
    file: Vec<Decision>,
    pub(crate) expect: BTreeMap<String, Expected>,
    notes: Option<Vec<String>>,
    #[serde(default = "yes")]
    found: bool,
    #[serde(default)]
    pub(crate) may_enable: bool,
    #[serde(default = "later")]
    now: Timestamp,
    #[serde(default)]
    unseen: usize,
    /// Whether NMI runs, where the world does not say so itself.
    #[serde(default = "yes")]
    nmi: bool,
}

fn yes() -> bool {
    true
}

fn later() -> Timestamp {
    "2026-02-01T00:00:00Z".parse().unwrap()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    pub(crate) phase: Phase,
    pub(crate) verdict: Verdict,
    pub(crate) reasons: Vec<String>,
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
    #[serde(default)]
    proxy: bool,
    #[serde(default)]
    chained: Option<bool>,
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
            proxy: self.proxy,
            chained: self.chained,
            origin: Origin { file: "w.toml".to_owned(), line: 1, column: 1 },
            selected: ["prod".into()].into(),
        }
    }
}

impl Fixture {
    /// The workloads of its file.
    pub(crate) fn workloads(&self) -> Vec<DesiredWorkload> {
        self.file.iter().map(Decision::workload).collect()
    }

    pub(crate) fn survey(&self) -> Survey {
        self.survey_with(SignedDuration::from_hours(24), Waived::default())
    }

    fn survey_with(&self, soak: SignedDuration, waived: Waived) -> Survey {
        self.survey_after(&Places::new(), soak, waived)
    }

    fn survey_after(&self, places: &Places, soak: SignedDuration, waived: Waived) -> Survey {
        let workloads = self.workloads();
        let audience = Audience::default();
        let given = Given { soak, waived, ..self.given(&workloads, &audience, places) };
        migrate::survey(&self.estate, given)
    }

    /// With another file.
    pub(crate) fn survey_of(&self, workloads: &[DesiredWorkload]) -> Survey {
        let (audience, places) = (Audience::default(), Places::new());
        migrate::survey(&self.estate, self.given(workloads, &audience, &places))
    }

    fn given<'a>(
        &self,
        workloads: &'a [DesiredWorkload],
        audience: &'a Audience,
        places: &'a Places,
    ) -> Given<'a> {
        Given {
            workloads,
            may_enable: self.may_enable,
            audience,
            now: self.now,
            soak: SignedDuration::from_hours(24),
            waived: Waived::default(),
            places,
        }
    }
}

pub(crate) fn fixtures() -> Vec<(String, Fixture)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/migrate");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let mut fixture: Fixture =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let nmi = |install: &Install| install.component == "nmi";
        if fixture.nmi && !fixture.estate.installs.iter().any(nmi) {
            let (component, kind) = ("nmi".to_owned(), "daemonset".to_owned());
            fixture.estate.installs.push(Install { component, kind, ..Install::default() });
        }
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
            let open = matches!(workload.verdict, Verdict::NeedsDecision | Verdict::Cannot);
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
        let mut file = worlds::desired(&["prod"]);
        let text = toml::workloads(std::slice::from_ref(&survey), &file);
        let read = worlds::of_file(&file, &text).unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
        let known = |w: &&Workload| w.identity.is_some() && w.may_move();
        let known = survey.workloads.iter().filter(known).count();
        assert_eq!(read.workloads.len(), known, "{name}\n{text}");
        file.workloads = fixture.workloads();
        let rest = toml::workloads(&[survey], &file);
        assert!(file.workloads.is_empty() || rest.is_empty(), "{name}\n{rest}");
    }
}

/// Whoever pastes it has decided nothing: nothing is ready by it that was not.
#[test]
fn pasting_the_resulting_workloads_takes_no_decision() {
    let mut open = 0;
    for (name, fixture) in fixtures() {
        let fixture = Fixture { file: Vec::new(), ..fixture };
        let before = fixture.survey();
        let file = worlds::desired(&["prod"]);
        let text = toml::workloads(std::slice::from_ref(&before), &file);
        let pasted = worlds::of_file(&file, &text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let after = fixture.survey_of(&pasted.workloads);
        let judged = |survey: &Survey| -> Vec<_> {
            survey.workloads.iter().map(|w| (w.name(), w.verdict, w.reasons.clone())).collect()
        };
        assert_eq!(judged(&before), judged(&after), "{name}\n{text}");
        open += before.workloads.iter().filter(|w| !w.may_move()).count();
    }
    assert!(open > 20, "{open} needed a decision or could not");
}

/// A workload has one table, whatever its clusters, and one identity.
#[test]
fn a_workload_in_two_clusters_is_one_table() {
    let (_, fixture) = fixtures().into_iter().find(|(name, _)| name == "plain-deployment").unwrap();
    let here = |cluster: &str| Survey { cluster: cluster.into(), ..fixture.survey() };
    let mut file = worlds::desired(&["blue", "prod"]);
    let text = toml::workloads(&[here("blue"), here("prod")], &file);
    let read = worlds::of_file(&file, &text).unwrap();
    assert_eq!(read.workloads.len(), 1, "{text}");
    assert_eq!(read.workloads[0].clusters, ["blue".into(), "prod".into()]);

    // The file that knows it in one of them is told of the other.
    file.workloads = read.workloads;
    file.workloads[0].clusters.retain(|cluster| cluster.as_str() == "blue");
    let text = toml::workloads(&[here("blue"), here("prod")], &file);
    assert!(text.starts_with("# shop/api is in the file"), "{text}");
    assert!(text.ends_with("add \"prod\" to its `clusters`\n"), "{text}");

    // Another identity there cannot be written.
    file.workloads.clear();
    let mut other = here("prod");
    other.workloads[0].identity.as_mut().unwrap().id = worlds::vault("not-this-one");
    let text = toml::workloads(&[here("blue"), other], &file);
    let read = worlds::of_file(&file, &text).unwrap();
    assert_eq!(read.workloads[0].clusters, ["blue".into()], "{text}");
    assert!(text.contains("one workload is one identity"), "{text}");
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
            let of = |w: &Workload| (w.name(), w.phase, w.verdict, w.templates.clone());
            s.workloads.iter().map(of).collect()
        };
        assert_eq!(facts(&first), facts(&again), "{name}");
    }
}

/// The fixtures in which something may be removed.
const GO: [&str; 8] = [
    "binding-removed",
    "cron-job-pod-ended-well",
    "cron-job-ran-since-its-switch",
    "soaked",
    "soaked-beside-pods-of-aks",
    "soaked-with-sidecar",
    "switched-without-backup",
    "switched-without-backup-binding-gone",
];

fn everybody(survey: &Survey) -> BTreeSet<String> {
    survey.workloads.iter().map(Workload::name).collect()
}

/// A binding never goes while anything still lives by it.
#[test]
fn no_binding_goes_while_anything_lives_by_it() {
    for (name, fixture) in fixtures() {
        let survey = fixture.survey();
        let all = everybody(&survey);
        let allowed = Allowed { chosen: &all, proved: &all, unassign: true };
        let what = removal(&fixture.estate, &survey, allowed);
        let estate = &fixture.estate;
        for binding in &what.bindings {
            let live = estate.pods.iter().filter(|pod| !pod.gone);
            let live = live.filter_map(|pod| Some((&pod.namespace, pod.selector()?)));
            let stamped = estate.templates.iter().filter(|t| t.writable());
            let stamped = stamped.filter_map(|t| Some((&t.namespace, t.selector()?)));
            let used = live.chain(stamped).any(|(n, s)| selects(estate, binding, n, s));
            assert!(!used, "{name}: {binding:?}");
            let at = format!("{}/{}", binding.namespace, binding.name);
            let users = survey.workloads.iter().filter(|w| w.bindings.contains(&at));
            let arrived = |p| matches!(p, Phase::Soaked | Phase::BindingRemoved | Phase::Cleaned);
            assert!(users.clone().count() > 0, "{name}");
            assert!(users.clone().all(|w| arrived(w.phase)), "{name}");
        }
        let stays = !GO.contains(&name.as_str());
        assert_eq!(what.bindings.is_empty() && what.identities.is_empty(), stays, "{name}");
    }
}

pub(crate) fn fixture(wanted: &str) -> Fixture {
    let found = fixtures().into_iter().find(|(name, _)| name == wanted);
    found.map(|(_, fixture)| fixture).unwrap()
}

/// A pod on the node's network that is the user's.
fn agent(fixture: &Fixture) -> EstatePod {
    EstatePod {
        name: "agent-1".to_owned(),
        controller: Some("daemonset/agent".to_owned()),
        ..fixture.estate.pods.last().unwrap().clone()
    }
}

/// The add-on's identities leave the nodes with their entries: whoever may live on one of them there
/// is asked about. AKS and Pod Identity are not.
#[test]
fn only_pods_of_the_users_need_the_decision_about_nodes() {
    let decided = |fixture: &Fixture, unassign: bool| {
        let survey = fixture.survey();
        let all = everybody(&survey);
        let allowed = Allowed { chosen: &all, proved: &all, unassign };
        removal(&fixture.estate, &survey, allowed)
    };
    let mut fixture = fixture("soaked-beside-pods-of-aks");
    let identity = fixture.estate.identities[0].clone();
    let entry = |identity: &PodIdentity| format!("{}/{}", identity.namespace, identity.name);
    fixture.estate.add_on = Some(vec![entry(&identity)]);
    let what = decided(&fixture, false);
    assert_eq!((what.add_on.len(), what.unassigned.len()), (1, 1), "{what:#?}");
    let agent = agent(&fixture);
    fixture.estate.pods.push(agent);
    let what = decided(&fixture, false);
    assert_eq!(what.count(), 0, "{what:#?}");
    assert!(what.kept[0].1.contains("pod default/agent-1"), "{what:#?}");
    let what = decided(&fixture, true);
    assert_eq!((what.add_on.len(), what.unassigned.len()), (1, 1), "{what:#?}");
    // Another entry of the same managed identity holds it on the nodes.
    let other = PodIdentity { name: "other".into(), uid: "other".into(), ..identity };
    fixture.estate.add_on.as_mut().unwrap().push(entry(&other));
    let bound = Binding {
        name: "other".into(),
        uid: "other".into(),
        identity: "other".into(),
        selector: "other".into(),
        ..fixture.estate.bindings[0].clone()
    };
    fixture.estate.identities.push(other);
    fixture.estate.bindings.push(bound);
    let what = decided(&fixture, false);
    assert_eq!((what.add_on.len(), what.unassigned.len()), (1, 0), "{what:#?}");
}

/// Where a roll ends all old pods first, none of them tells that it is still under way.
#[test]
fn a_switch_by_recreation_is_under_way_until_it_arrived() {
    let mut fixture = fixture("soaked");
    let template = &mut fixture.estate.templates[0];
    template.uid = "u".to_owned();
    let mut backup = fixture.estate.backups[0].clone();
    backup.templates[0].uid = "u".to_owned();
    let under_way =
        |estate: &Estate, backup: &Backup| rollback::is_under_way(estate, backup, false);
    assert!(!under_way(&fixture.estate, &backup));
    fixture.estate.templates[0].strategy = snapshot::Strategy::Recreate;
    assert!(under_way(&fixture.estate, &backup));
    backup.arrived = Some(later());
    assert!(!under_way(&fixture.estate, &backup));
}

/// Nothing is put back onto a Pod Identity that does not answer.
#[test]
fn a_rollback_wants_nmi_and_mic_at_work() {
    let fixture = fixture("soaked");
    let backup = fixture.estate.backups[0].clone();
    let install = |component: &str, stuck: bool| Install {
        component: component.to_owned(),
        kind: if component == "nmi" { "daemonset" } else { "deployment" }.to_owned(),
        name: component.to_owned(),
        stuck,
        ..Install::default()
    };
    let found = |installs: Vec<Install>, served: bool| {
        let estate = Estate { installs, ..fixture.estate.clone() };
        rollback::obstacles(&estate, &backup, served)
    };
    assert_eq!(found(vec![install("nmi", false), install("mic", false)], false), [""; 0]);
    let stuck = found(vec![install("nmi", true)], false);
    assert!(stuck[0].starts_with("no pod of NMI is ready (daemonset /nmi)"), "{stuck:?}");
    let none = found(vec![install("nmi", false), install("mic", true)], false);
    assert!(none[0].starts_with("MIC is scaled to zero (deployment /mic)"), "{none:?}");
    let managed = Install { managed: true, ..install("mic", true) };
    assert_eq!(found(vec![install("nmi", false), managed], false), [""; 0]);
    assert_eq!(found(vec![install("nmi", true), install("mic", true)], true), [""; 0]);
    // What would be typed names the cluster.
    let id = "/subscriptions/s/resourceGroups/rg-aks/providers/Microsoft.ContainerService/\
              managedClusters/aks-prod";
    let entry = json!({"namespace": "shop", "name": "cart", "identity": {"resourceId": "/id"}});
    let backup = Backup { add_on: vec![entry], ..backup.clone() };
    let estate = Estate {
        id: Some(ArmId::new(id)),
        installs: vec![install("nmi", false)],
        ..fixture.estate.clone()
    };
    let said = rollback::obstacles(&estate, &backup, false).join("\n");
    assert!(said.contains("--resource-group rg-aks --cluster-name aks-prod "), "{said}");
    assert!(!said.contains("no binding"), "{said}");
    // The entry is there again, and AKS has not made its binding yet.
    let mut estate = Estate { add_on: Some(vec!["shop/cart".to_owned()]), ..estate };
    let bindings = std::mem::take(&mut estate.bindings);
    let mut backup = Backup { removed: Vec::new(), ..backup };
    let old = Field { before: Some("api".to_owned()), after: None };
    backup.templates[0].labels.insert(BINDING_LABEL.to_owned(), old);
    let said = rollback::obstacles(&estate, &backup, false).join("\n");
    assert!(said.starts_with("no binding selects aadpodidbinding=api yet: "), "{said}");
    // With the add-on a binding is of its own namespace.
    estate.bindings = bindings;
    for binding in &mut estate.bindings {
        binding.namespace = "shop".into();
    }
    assert_eq!(rollback::obstacles(&estate, &backup, false), [""; 0]);
}

/// What an operator will make pods of holds a binding, and so does what nobody could look through.
#[test]
fn what_is_elsewhere_and_what_was_not_looked_through_hold_a_binding() {
    let mut fixture = fixture("soaked");
    let decided = |fixture: &Fixture| {
        let survey = fixture.survey();
        let all = everybody(&survey);
        let allowed = Allowed { chosen: &all, proved: &all, unassign: false };
        removal(&fixture.estate, &survey, allowed)
    };
    let free = decided(&fixture);
    assert_eq!(free.kept, []);
    let binding = free.bindings[0].clone();
    let carrier = Carrier {
        namespace: binding.namespace.clone(),
        what: "clonesets.apps.kruise.io/cart".to_owned(),
        at: "spec.template.metadata.labels".to_owned(),
        selector: binding.selector.clone(),
    };
    fixture.estate.carriers = vec![Carrier { selector: "other".to_owned(), ..carrier.clone() }];
    assert_eq!(decided(&fixture), free);
    // Of a kind without namespaces it may make its pods anywhere.
    let wide = Carrier { namespace: Namespace::from(""), ..carrier.clone() };
    for carrier in [carrier, wide] {
        fixture.estate.carriers = vec![carrier];
        let what = decided(&fixture);
        assert_eq!(what.bindings, []);
        let why = &what.kept[0].1;
        assert!(why.starts_with("it still selects what clonesets.apps.kruise.io/cart"), "{why}");
    }
    fixture.estate.carriers.clear();
    let denied = RemoteFailure::new(FailureKind::Denied, "list clonesets.apps.kruise.io", "no");
    fixture.estate.unlooked = vec![denied];
    let what = decided(&fixture);
    assert_eq!(what.bindings, []);
    assert!(what.kept[0].1.ends_with("waive it with --allow-unseen-kinds"), "{what:#?}");
}

/// The soak is of pods: it begins with their proof, not when their template was written.
#[test]
fn the_soak_counts_from_the_proof() {
    let mut fixture = fixture("soaked");
    let phase = |fixture: &Fixture| fixture.survey().workloads.remove(0).phase;
    let ago = |hours: i64| Some(later().checked_sub(SignedDuration::from_hours(hours)).unwrap());
    assert_eq!(phase(&fixture), Phase::Soaked);
    // The roll was stuck for weeks.
    fixture.estate.pods.iter_mut().for_each(|pod| pod.created = ago(1));
    assert_eq!(phase(&fixture), Phase::Soaking);
    // One proved pod shows that it works; others may come and go.
    let oldest =
        EstatePod { name: "oldest".to_owned(), created: ago(25), ..fixture.estate.pods[0].clone() };
    fixture.estate.pods.push(oldest);
    assert_eq!(phase(&fixture), Phase::Soaked);
    fixture.estate.pods.pop();
    // So does the run that proved their predecessors, unless somebody has switched again since.
    fixture.estate.backups[0].arrived = ago(30);
    assert_eq!(phase(&fixture), Phase::Soaked);
    fixture.estate.templates[0].written = ago(29);
    assert_eq!(phase(&fixture), Phase::Soaking);
}

/// Whoever does not wait has not seen a run, and whoever needs no run still waits.
#[test]
fn the_soak_and_the_run_are_two_gates() {
    let fixture = fixture("cron-job-switched-and-not-run");
    let phase = |soak: SignedDuration, run: bool| {
        let waived = Waived { run, ..Waived::default() };
        fixture.survey_with(soak, waived).workloads.remove(0).phase
    };
    let (none, day) = (SignedDuration::ZERO, SignedDuration::from_hours(24));
    let years = SignedDuration::from_hours(24 * 365 * 100);
    assert_eq!([phase(none, false), phase(day, false)], [Phase::Soaking; 2]);
    assert_eq!([phase(none, true), phase(day, true)], [Phase::Soaked; 2]);
    assert_eq!(phase(years, true), Phase::Soaking);
}

/// MIC takes its identities from the nodes when the last labelled pod goes, which is the switch.
#[test]
fn a_switch_that_takes_an_identity_from_the_nodes_needs_a_decision() {
    let reasons = |fixture: &Fixture, waived: Waived| {
        let day = SignedDuration::from_hours(24);
        fixture.survey_with(day, waived).workloads.remove(0).reasons
    };
    let mut fixture = fixture("pods-on-the-nodes-identity-with-mic");
    let found = reasons(&fixture, Waived::default());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].message.contains("takes identity api from the nodes"), "{found:?}");
    assert!(found[0].message.contains("pod ops/agent "), "{found:?}");
    assert_eq!(reasons(&fixture, Waived { nodes: true, ..Waived::default() }), []);
    // In managed mode nobody takes anything.
    fixture.estate.installs[0].managed = true;
    assert_eq!(reasons(&fixture, Waived::default()), []);
    fixture.estate.installs[0].managed = false;
    // What has no labelled pod holds nothing on a node.
    fixture.estate.pods.retain(|pod| pod.selector().is_none());
    assert_eq!(reasons(&fixture, Waived::default()), []);
}

/// A toleration sends nobody to a virtual node, but where a pod runs on one its template cannot move.
#[test]
fn a_pod_on_a_virtual_node_stops_its_template() {
    let (_, mut fixture) =
        fixtures().into_iter().find(|(name, _)| name == "plain-deployment").unwrap();
    assert_eq!(fixture.survey().workloads[0].verdict, Verdict::Ready);
    fixture.estate.pods.push(EstatePod {
        namespace: "shop".into(),
        name: "api-77-x".to_owned(),
        account: "api".into(),
        labels: BTreeMap::from([(BINDING_LABEL.to_owned(), "api".to_owned())]),
        controller: Some("replicaset/api-77".to_owned()),
        virtual_node: true,
        ..EstatePod::default()
    });
    let workload = &fixture.survey().workloads[0];
    assert_eq!(workload.verdict, Verdict::Cannot);
    assert_eq!(workload.reasons[0].code, "virtual-node");
}

/// A bare pod beside a Deployment does not stop it, but it is named: it holds the binding.
#[test]
fn what_runs_beside_a_workload_and_cannot_be_changed_is_noted() {
    let (_, mut fixture) =
        fixtures().into_iter().find(|(name, _)| name == "plain-deployment").unwrap();
    fixture.estate.pods.push(EstatePod {
        namespace: "shop".into(),
        name: "debug".to_owned(),
        account: "api".into(),
        labels: BTreeMap::from([(BINDING_LABEL.to_owned(), "api".to_owned())]),
        ..EstatePod::default()
    });
    let survey = fixture.survey();
    assert_eq!(survey.workloads[0].verdict, Verdict::Ready);
    let note = &survey.notes[0];
    assert_eq!(note.code, "left-behind");
    assert!(note.message.contains("pod/debug"), "{note:?}");
}

/// Every maker of a pod that nobody can change is named, and what has ended is not.
#[test]
fn what_must_be_made_again_is_named_by_its_maker() {
    let message = |wanted: &str| {
        let (_, fixture) = fixtures().into_iter().find(|(name, _)| name == wanted).unwrap();
        fixture.survey().workloads[0].reasons[0].message.clone()
    };
    let operated = message("owned-by-an-operator-scaled-to-zero");
    assert!(operated.contains("deployment/api of prometheus/k8s"), "{operated}");
    let job = message("running-job-beside-a-finished-one");
    assert!(job.contains("job/runs") && !job.contains("job/done"), "{job}");
}

/// What a template sets itself is named with its container, and what to do about it.
#[test]
fn a_variable_that_the_webhook_would_not_change_is_named() {
    let reasons = |wanted: &str| fixture(wanted).survey().workloads.remove(0).reasons;
    let literal = reasons("environment-of-another-client");
    assert!(literal[0].message.starts_with("container main of deployment/api sets"), "{literal:?}");
    assert!(
        literal[0].decide.contains("value: c0000000-0000-4000-8000-000000000636"),
        "{literal:?}"
    );
    for reason in reasons("environment-by-reference") {
        assert!(reason.message.contains("from elsewhere (valueFrom)"), "{reason:?}");
        assert!(reason.decide.starts_with("take AZURE_"), "{reason:?}");
    }
    let mut fixture = fixture("environment-of-its-own-client");
    // The authority of another cloud, and a path.
    for (variable, value) in [
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/"),
        ("AZURE_AUTHORITY_HOST", "https://login.example/"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/secrets/azure/tokens/azure-identity-token"),
        ("AZURE_CLIENT_ID", ""),
        ("AZURE_CLIENT_ID", "c0000000-0000-4000-8000-000000000636\n"),
        ("AZURE_TENANT_ID", "common"),
    ] {
        let set = ("init".to_owned(), variable.to_owned(), Some(value.to_owned()));
        fixture.estate.templates[0].literal_env = vec![set];
        let workload = fixture.survey().workloads.remove(0);
        assert_eq!(workload.verdict, Verdict::Cannot, "{variable}={value}");
        assert_eq!(workload.reasons[0].code, "literal-environment");
    }
}

/// What could not be read is not absent: nobody is told to take away what may only be hidden.
#[test]
fn what_could_not_be_read_decides_nothing() {
    for name in ["bindings-not-seen", "controllers-not-seen", "switched-bindings-not-seen"] {
        let fixture = fixture(name);
        for workload in fixture.survey().workloads {
            assert!(workload.next[0].starts_with("grant whoever runs this to list "), "{name}");
            assert_eq!(workload.next.len(), 1, "{name}: {workload:?}");
        }
    }
    let mut fixture = fixture("plain-deployment");
    let slow = RemoteFailure::new(FailureKind::NotReached, "list pods", "timed out");
    fixture.estate.unseen = vec![slow.clone(), slow];
    let workload = fixture.survey().workloads.remove(0);
    assert_eq!(workload.next, ["run again when it answers"]);
    assert!(workload.reasons[0].message.ends_with("list pods: timed out (and 1 more)"));
}

/// Whoever does what a full identity's workload is told can move it.
#[test]
fn the_proposal_for_a_full_identity_leads_somewhere() {
    let mut fixture = fixture("twenty-credentials");
    let full = fixture.survey().workloads.remove(0);
    assert_eq!(full.reasons[0].code, "twenty-credentials");
    assert!(full.reasons[0].decide.contains("a binding with a selector of its own"));
    let estate = &mut fixture.estate;
    let AzureIdentityState::Present(mut seen, _) = estate.azure.values().next().unwrap().clone()
    else {
        panic!("it is there");
    };
    let of_all = estate.identities[0].clone();
    seen.id = ArmId::new(
        of_all.resource_id.replace("userAssignedIdentities/api", "userAssignedIdentities/own"),
    );
    seen.client_id = "c0000000-0000-4000-8000-000000000777".parse().unwrap();
    estate.identities.push(PodIdentity {
        name: "own".into(),
        uid: "own".into(),
        resource_id: seen.id.to_string(),
        client_id: seen.client_id.to_string(),
        ..of_all
    });
    estate.azure.insert(seen.id.clone(), AzureIdentityState::Present(seen, Vec::new()));
    estate.bindings.push(Binding {
        name: "own".into(),
        uid: "own".into(),
        identity: "own".into(),
        selector: "own".into(),
        ..estate.bindings[0].clone()
    });
    estate.templates[0].labels.insert(BINDING_LABEL.to_owned(), "own".to_owned());
    let workload = fixture.survey().workloads.remove(0);
    assert_eq!((workload.verdict, workload.reasons), (Verdict::Ready, Vec::new()));
}

/// What a chart or a repository holds comes back: it is left to that, with the reason.
#[test]
fn what_another_tool_keeps_is_left_to_it() {
    let decided = |fixture: &Fixture| {
        let survey = fixture.survey();
        let all = everybody(&survey);
        let allowed = Allowed { chosen: &all, proved: &all, unassign: false };
        removal(&fixture.estate, &survey, allowed)
    };
    let helm = Some("Helm".to_owned());
    let why = "Helm keeps it: take it out of what Helm applies";
    let mut soaked = fixture("soaked");
    assert_eq!(decided(&soaked).count(), 2);
    soaked.estate.identities[0].kept_by.clone_from(&helm);
    let what = decided(&soaked);
    assert_eq!((what.bindings.len(), what.identities.len()), (1, 0), "{what:#?}");
    assert_eq!(what.kept.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>(), [why]);
    soaked.estate.bindings[0].kept_by.clone_from(&helm);
    let what = decided(&soaked);
    assert_eq!(what.count(), 0, "{what:#?}");
    assert_eq!(what.kept[0].1, why);
    let mut last = fixture("binding-removed");
    last.estate.identities[0].kept_by = helm;
    let what = decided(&last);
    assert_eq!((what.count(), what.kept[0].1.as_str()), (0, why), "{what:#?}");
}

/// How far one workload of a random estate has come.
#[derive(Debug, Clone, Copy)]
enum Way {
    Old,
    Federated,
    Masked,
    Switched { ready: bool },
}

fn random_estate() -> impl Strategy<Value = Estate> {
    let way = prop_oneof![
        Just(Way::Old),
        Just(Way::Federated),
        Just(Way::Masked),
        any::<bool>().prop_map(|ready| Way::Switched { ready }),
    ];
    let workload = (0..3usize, 0..4usize, way, any::<bool>());
    let binding = (0..3usize, 0..4usize, 0..3usize);
    (prop::collection::vec(workload, 1..200), prop::collection::vec(binding, 1..12), any::<bool>())
        .prop_map(|(workloads, bindings, namespaced)| estate(&workloads, &bindings, namespaced))
}

fn estate(
    workloads: &[(usize, usize, Way, bool)],
    bindings: &[(usize, usize, usize)],
    namespaced: bool,
) -> Estate {
    let fixtures = fixtures();
    let known = |wanted: &str| {
        let found = fixtures.iter().find(|(name, _)| name == wanted);
        found.map(|(_, fixture)| fixture.estate.clone()).unwrap()
    };
    let mut estate = known("soaked");
    let (seen, trusted) = match estate.azure.values().next().unwrap() {
        AzureIdentityState::Present(seen, trusted) => (seen.clone(), trusted[0].clone()),
        other => panic!("{other:?}"),
    };
    let template = estate.templates[0].clone();
    let pod = estate.pods[0].clone();
    let identity = estate.identities[0].clone();
    estate.templates.clear();
    estate.pods.clear();
    estate.accounts.clear();
    estate.identities.clear();
    estate.bindings.clear();
    estate.backups.clear();
    let space = |n: usize| Namespace(format!("ns{n}"));
    for n in 0..3 {
        for i in 0..3 {
            estate.identities.push(PodIdentity {
                namespace: space(n),
                name: format!("id{i}"),
                uid: format!("i{n}{i}"),
                ..identity.clone()
            });
        }
    }
    for (at, (n, selector, i)) in bindings.iter().enumerate() {
        estate.bindings.push(Binding {
            namespace: space(*n),
            name: format!("b{at}"),
            uid: format!("b{at}"),
            identity: format!("id{i}"),
            selector: format!("s{selector}"),
            ..Binding::default()
        });
    }
    estate.installs = vec![Install {
        component: "mic".to_owned(),
        kind: "deployment".to_owned(),
        namespaced,
        ..Install::default()
    }];
    let mut credentials = Vec::new();
    for (at, (n, selector, way, straggler)) in workloads.iter().enumerate() {
        let (namespace, name) = (space(*n), format!("w{at}"));
        let selector = format!("s{selector}");
        let labels = match way {
            Way::Old | Way::Federated => vec![(BINDING_LABEL, selector.as_str())],
            Way::Masked => vec![(BINDING_LABEL, selector.as_str()), (names::USE_LABEL, "true")],
            Way::Switched { .. } => vec![(names::USE_LABEL, "true")],
        };
        let labels: BTreeMap<String, String> =
            labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let account = AccountName(name.clone());
        let switched = matches!(way, Way::Switched { .. });
        estate.templates.push(EstateTemplate {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: name.clone(),
            account: account.clone(),
            labels: labels.clone(),
            ..template.clone()
        });
        let mut live = EstatePod {
            namespace: namespace.clone(),
            name: format!("{name}-x-1"),
            account: account.clone(),
            labels,
            controller: Some(format!("replicaset/{name}-x")),
            ..pod.clone()
        };
        live.ready = !matches!(way, Way::Switched { ready: false });
        estate.pods.push(live.clone());
        if *straggler {
            // A pod of the old template that is still there.
            live.labels = [(BINDING_LABEL.to_owned(), selector.clone())].into();
            live.client_ids.clear();
            live.controller = Some(format!("replicaset/{name}-o"));
            estate.pods.push(live);
        }
        if !matches!(way, Way::Old) {
            credentials.push(ObservedCredential {
                name: name.clone(),
                subject: Some(Subject::of(&namespace, &account)),
                ..trusted.clone()
            });
        }
        estate.accounts.push(EstateAccount {
            namespace: namespace.clone(),
            name: account.clone(),
            client_id: (!matches!(way, Way::Old)).then(|| seen.client_id.to_string()),
            kept_by: None,
        });
        if switched {
            let reached = reached(&estate, &namespace, &selector);
            let bindings =
                reached.iter().map(|r| format!("{}/{}", r.binding.namespace, r.binding.name));
            let bindings = bindings.collect();
            estate.backups.push(Backup {
                namespace,
                account,
                identity: seen.id.to_string(),
                client_id: seen.client_id.to_string(),
                bindings,
                ..Backup::default()
            });
        }
    }
    estate.azure =
        BTreeMap::from([(seen.id.clone(), AzureIdentityState::Present(seen, credentials))]);
    estate
}

/// What another cluster's moves will add counts, and what cannot move adds nothing.
#[test]
fn the_twenty_places_of_an_identity_are_those_of_all_clusters() {
    let fixture = || {
        let name = "nineteen-credentials-two-workloads";
        fixtures().into_iter().find(|(known, _)| known == name).unwrap().1
    };
    let blocked = |survey: &Survey| -> Vec<String> {
        let full = |w: &&Workload| w.reasons.iter().any(|r| r.code == "twenty-credentials");
        survey.workloads.iter().filter(full).map(Workload::name).collect()
    };
    let first = fixture().survey();
    assert_eq!(blocked(&first), ["shop/web"]);
    let day = SignedDuration::from_hours(24);
    let second = fixture().survey_after(&first.places, day, Waived::default());
    assert_eq!(blocked(&second), ["shop/api", "shop/web"]);
    let mut undecided = fixture();
    undecided.estate.templates[0].strategy = snapshot::Strategy::Recreate;
    let survey = undecided.survey();
    assert_eq!(survey.workloads[0].verdict, Verdict::NeedsDecision);
    assert_eq!(blocked(&survey), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is removed, every live pod that Pod Identity answered is answered by the same
    /// identities afterwards, and every pod that it does not answer carries its own proof.
    #[test]
    fn nothing_that_lives_loses_its_path(estate in random_estate()) {
        let survey = migrate::survey(&estate, Given {
            workloads: &[],
            may_enable: false,
            audience: &Audience::default(),
            now: later(),
            soak: SignedDuration::ZERO,
            waived: Waived::default(),
            places: &Places::new(),
        });
        let all = everybody(&survey);
        let allowed = Allowed { chosen: &all, proved: &all, unassign: true };
        let what = removal(&estate, &survey, allowed);
        let mut after = estate.clone();
        after.bindings.retain(|b| !what.bindings.iter().any(|gone| gone.uid == b.uid));
        after.identities.retain(|i| !what.identities.iter().any(|gone| gone.uid == i.uid));
        let path = |estate: &Estate, pod: &EstatePod| -> Vec<String> {
            let found = pod.selector().map(|s| reached(estate, &pod.namespace, s));
            let found = found.into_iter().flatten();
            found.filter_map(|r| Some(format!("{} {}", r.binding.uid, r.identity?.uid))).collect()
        };
        for pod in estate.pods.iter().filter(|pod| !pod.gone) {
            prop_assert_eq!(path(&estate, pod), path(&after, pod), "{}", pod.name);
        }
        for name in &what.workloads {
            let workload = survey.workloads.iter().find(|w| w.name() == *name).unwrap();
            prop_assert_eq!(workload.proved, workload.pods);
        }
    }
}
