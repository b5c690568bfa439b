//! Planner cases: one world each, one thing wrong with it.

use std::collections::BTreeSet;

use widentity::{
    model::{
        AccountName, ArmId, Audience, ClusterName, FailureKind, Issuer, Namespace, RemoteFailure,
        TenantId,
        desired::{
            Access, DesiredAssignment, DesiredState, Feature, IdentityControl, ManagedBy,
            PodSelection, Probe, ProbeKind, Role, RolloutMode,
        },
        names,
        snapshot::{
            Injected, KubernetesSnapshot, Manager, Observation, ObservedAccount,
            ObservedCredential, ObservedPod, ObservedTemplate, OwnedField, Snapshot, Strategy,
        },
    },
    plan::{
        self, Action, ObjectKind, Operation, Plan, PlanOptions, PlanReport, Reason, report::Finding,
    },
};

use crate::support::worlds::{self, add_workload, bare_world};

const NS: &str = "payments";
const SA: &str = "payments-api";

/// One workload in one cluster, nothing of the chain there.
fn fresh() -> (DesiredState, Snapshot) {
    let mut desired = worlds::desired(&["prod"]);
    add_workload(&mut desired, NS, SA, &["prod"], None, &["kv-payments"]);
    let world = bare_world(&desired);
    (desired, world)
}

/// The same after a complete run.
fn proved() -> (DesiredState, Snapshot) {
    let (desired, world) = fresh();
    let (plan, _) = make(&desired, &world);
    let after = worlds::apply(&desired, &world, &plan, &worlds::all(&plan));
    (desired, after)
}

fn make(desired: &DesiredState, world: &Snapshot) -> (Plan, PlanReport) {
    plan::plan(desired, world, PlanOptions::default())
}

fn prod(world: &mut Snapshot) -> &mut KubernetesSnapshot {
    let cluster = world.clusters.get_mut(&ClusterName::from("prod")).unwrap();
    let Observation::Present(kubernetes) = &mut cluster.kubernetes else { panic!("no cluster") };
    kubernetes
}

fn account(world: &mut Snapshot) -> &mut ObservedAccount {
    let accounts = prod(world).accounts.get_mut(&Namespace::from(NS)).unwrap();
    let Observation::Present(accounts) = accounts else { panic!("no accounts") };
    accounts.entry(AccountName::from(SA)).or_insert_with(|| ObservedAccount {
        uid: "uid".to_owned(),
        meta: widentity::model::snapshot::ObjectMeta::default(),
    })
}

fn template(world: &mut Snapshot) -> &mut ObservedTemplate {
    let templates = prod(world).templates.get_mut(&Namespace::from(NS)).unwrap();
    let Observation::Present(templates) = templates else { panic!("no templates") };
    &mut templates[0]
}

fn pods(world: &mut Snapshot) -> &mut Vec<ObservedPod> {
    let pods = prod(world).pods.get_mut(&Namespace::from(NS)).unwrap();
    let Observation::Present(pods) = pods else { panic!("no pods") };
    pods
}

fn inject(world: &mut Snapshot, injected: &Injected) {
    for pod in pods(world) {
        pod.injected = injected.clone();
    }
}

fn injected(world: &mut Snapshot) -> Injected {
    let pods = &prod(world).pods[&Namespace::from(NS)];
    pods.present().unwrap()[0].injected.clone()
}

fn credentials<'a>(
    desired: &DesiredState,
    world: &'a mut Snapshot,
) -> &'a mut Vec<ObservedCredential> {
    let identity = &desired.workloads[0].identity;
    let seen = world.credentials.get_mut(identity).unwrap();
    let Observation::Present(seen) = seen else { panic!("no credentials") };
    seen
}

fn codes(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.code.as_str()).collect()
}

fn verbs(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.operation.verb()).collect()
}

fn denied() -> RemoteFailure {
    RemoteFailure::new(FailureKind::Denied, "read", "forbidden")
}

/// Nothing is written: the only steps are proofs.
fn assert_only_proves(plan: &Plan) {
    assert!(plan.changes.is_empty(), "{:#?}", plan.changes);
    let writes = |verb: &&&str| !matches!(**verb, "prove" | "await rollout" | "prove pods");
    assert!(!verbs(plan).iter().any(|verb| writes(&verb)), "{:?}", verbs(plan));
}

#[test]
fn a_fresh_workload_is_built_in_the_order_of_the_chain() {
    let (desired, world) = fresh();
    let (plan, report) = make(&desired, &world);
    assert_eq!(
        verbs(&plan),
        [
            "create identity",
            "assign role",
            "create federated credential",
            "create service account",
            "prove",
            "annotate service account",
            "check webhook",
            "roll",
            "prove pods",
        ]
    );
    assert_eq!(plan.counts(), (4, 1));
    assert!(report.is_clear());
    assert_eq!(codes(&report.risks), ["restarts-pods"]);
}

#[test]
fn a_proved_workload_needs_nothing_but_its_proof() {
    let (desired, world) = proved();
    let (plan, report) = make(&desired, &world);
    assert_only_proves(&plan);
    assert_eq!(verbs(&plan), ["prove"]);
    assert!(report.is_clear() && report.left_over.is_empty());
}

#[test]
fn an_issuer_that_is_off_blocks_unless_the_file_says_enable() {
    let (mut desired, mut world) = fresh();
    let cluster = world.clusters.get_mut(&ClusterName::from("prod")).unwrap();
    let Observation::Present(arm) = &mut cluster.arm else { panic!("no record") };
    (arm.issuer, arm.workload_identity) = (None, false);
    prod(&mut world).webhook = Observation::Absent;
    let (plan, report) = make(&desired, &world);
    assert!(plan.steps.is_empty());
    assert_eq!(codes(&report.blocked), ["issuer-off"]);
    let hint = report.blocked[0].hint.as_deref().unwrap();
    assert!(hint.contains("enable = [\"oidc-issuer\", \"workload-identity\"]"), "{hint}");

    let enable = &mut desired.clusters.get_mut(&ClusterName::from("prod")).unwrap().enable;
    enable.extend([Feature::OidcIssuer, Feature::WorkloadIdentity]);
    let (plan, report) = make(&desired, &world);
    assert_eq!(verbs(&plan)[0], "enable");
    assert!(codes(&report.risks).contains(&"enables-cluster-feature"));
    let put = plan.steps.iter().find(|s| s.operation.verb() == "create federated credential");
    assert!(put.unwrap().needs.contains(&plan.steps[0].id), "the credential waits for the issuer");
}

/// Enabled beside a webhook that cannot be seen, the add-on would be a second.
#[test]
fn a_webhook_that_cannot_be_seen_is_not_taken_for_none() {
    let (mut desired, mut world) = fresh();
    prod(&mut world).webhook = Observation::Unknown(denied());
    let cluster = world.clusters.get_mut(&ClusterName::from("prod")).unwrap();
    let Observation::Present(arm) = &mut cluster.arm else { panic!("no record") };
    arm.workload_identity = false;
    let enable = &mut desired.clusters.get_mut(&ClusterName::from("prod")).unwrap().enable;
    enable.insert(Feature::WorkloadIdentity);
    let (plan, report) = make(&desired, &world);
    assert!(plan.steps.is_empty() && report.blocked.is_empty(), "{report:#?}");
    assert_eq!(report.unknown.len(), 1, "{report:#?}");
}

#[test]
fn a_target_that_does_not_exist_blocks_before_anything_is_written() {
    let (desired, mut world) = fresh();
    let scope = desired.assignments[0].scope.clone();
    world.targets.insert(scope, Observation::Absent);
    let (plan, report) = make(&desired, &world);
    assert_eq!(codes(&report.blocked), ["target-not-found"]);
    assert!(!verbs(&plan).contains(&"create role assignment"), "{:?}", verbs(&plan));
}

#[test]
fn a_missing_namespace_blocks_only_its_workload_and_makes_nothing_for_it() {
    let (mut desired, _) = fresh();
    add_workload(&mut desired, "other", "worker", &["prod"], None, &[]);
    let mut world = bare_world(&desired);
    prod(&mut world).namespaces.insert(Namespace::from(NS), Observation::Absent);
    let (plan, report) = make(&desired, &world);
    assert_eq!(codes(&report.blocked), ["namespace-missing"]);
    assert_eq!(
        report.blocked[0].hint.as_deref(),
        Some("kubectl --context prod create namespace payments")
    );
    assert!(plan.changes.iter().all(|change| !change.address.to_string().contains(SA)));
    assert!(!plan.changes.is_empty());
}

#[test]
fn another_cluster_behind_the_context_is_refused() {
    let (desired, mut world) = fresh();
    let evidence = &mut prod(&mut world).evidence;
    evidence.host = "elsewhere.example.test".to_owned();
    evidence.issuer = Observation::Present(Issuer::from("https://other.example.test/"));
    let (plan, report) = make(&desired, &world);
    assert!(plan.steps.is_empty());
    assert_eq!(codes(&report.refused), ["cluster-context-mismatch"]);
}

#[test]
fn an_issuer_that_differs_by_its_slash_is_another_cluster() {
    let (desired, mut world) = fresh();
    let evidence = &mut prod(&mut world).evidence;
    evidence.host = "elsewhere.example.test".to_owned();
    let without = worlds::issuer("prod").as_str().trim_end_matches('/').to_owned();
    evidence.issuer = Observation::Present(Issuer(without));
    let (_, report) = make(&desired, &world);
    assert_eq!(codes(&report.refused), ["cluster-context-mismatch"]);
}

#[test]
fn a_cluster_behind_another_host_is_confirmed_by_a_token_before_any_write() {
    let (desired, mut world) = fresh();
    account(&mut world);
    let evidence = &mut prod(&mut world).evidence;
    evidence.host = "10.0.0.4".to_owned();
    evidence.issuer = Observation::Unknown(denied());
    let (plan, _) = make(&desired, &world);
    let confirm = plan.steps.iter().find(|s| s.operation.verb() == "confirm cluster").unwrap();
    for step in &plan.steps {
        let writes = matches!(
            step.operation,
            Operation::AnnotateAccount { .. }
                | Operation::RollTemplate { .. }
                | Operation::Prove { .. }
        );
        assert!(!writes || step.needs.contains(&confirm.id), "{}", step.address);
    }
}

#[test]
fn a_cluster_that_nothing_can_confirm_is_unknown() {
    let (desired, mut world) = fresh();
    let evidence = &mut prod(&mut world).evidence;
    evidence.host = "10.0.0.4".to_owned();
    evidence.issuer = Observation::Unknown(denied());
    let (plan, report) = make(&desired, &world);
    assert!(plan.steps.is_empty());
    assert_eq!(report.unknown.len(), 1);
}

#[test]
fn a_rollout_waits_for_role_assignments_that_were_not_seen_and_says_so() {
    let (desired, mut world) = proved();
    template(&mut world).labels.clear();
    world.assignments.seen.clear();
    for (_, look) in &mut world.assignments.looked {
        *look = Observation::Unknown(denied());
    }
    let (plan, report) = make(&desired, &world);
    assert_only_proves(&plan);
    let [waits] = &report.pending_rollout[..] else { panic!("{report:?}") };
    assert_eq!(waits.why, "its role assignments are not settled");
}

#[test]
fn a_lifetime_that_the_webhook_refuses_blocks_its_workload() {
    let (mut desired, mut world) = proved();
    let key = names::EXPIRATION_ANNOTATION.to_owned();
    account(&mut world).meta.annotations.insert(key, "1h".to_owned());
    let (plan, report) = make(&desired, &world);
    assert!(plan.steps.is_empty(), "{:?}", verbs(&plan));
    assert_eq!(codes(&report.blocked), ["token-expiration-invalid"]);

    desired.workloads[0].token_expiration = Some(7200);
    let (plan, report) = make(&desired, &world);
    assert!(report.blocked.is_empty());
    assert!(verbs(&plan).contains(&"annotate service account"));
}

#[test]
fn an_existing_identity_without_our_tag_is_refused_unless_adopted() {
    let (mut desired, mut world) = proved();
    let id = desired.workloads[0].identity.clone();
    let Some(Observation::Present(seen)) = world.identities.get_mut(&id) else { panic!("none") };
    seen.tags.clear();
    let (plan, report) = make(&desired, &world);
    assert!(plan.steps.is_empty());
    assert_eq!(codes(&report.refused), ["identity-not-ours"]);

    desired.identities.get_mut(&id).unwrap().adopt = true;
    let (plan, report) = make(&desired, &world);
    assert_eq!(verbs(&plan)[0], "tag identity");
    assert!(codes(&report.risks).contains(&"identity-taken-over"));
}

#[test]
fn another_projects_objects_are_refused_by_name() {
    let (desired, mut world) = proved();
    let annotations = &mut account(&mut world).meta.annotations;
    annotations.insert(names::PROJECT_ANNOTATION.to_owned(), "rival".to_owned());
    let (plan, report) = make(&desired, &world);
    assert!(plan.changes.is_empty());
    assert_eq!(codes(&report.refused), ["other-project"]);
    assert!(report.refused[0].message.contains("rival"));

    let (mut desired, mut world) = proved();
    let id = desired.workloads[0].identity.clone();
    let Some(Observation::Present(seen)) = world.identities.get_mut(&id) else { panic!("none") };
    seen.tags.insert(names::PROJECT_TAG.to_owned(), "rival".to_owned());
    desired.identities.get_mut(&id).unwrap().adopt = true;
    let (plan, report) = make(&desired, &world);
    assert!(plan.steps.is_empty(), "not even adopt takes another project's identity");
    assert_eq!(codes(&report.refused), ["other-project"]);
}

#[test]
fn a_role_by_name_and_by_guid_is_one_object() {
    let (mut desired, mut world) = fresh();
    let first = desired.assignments[0].clone();
    let Role::Known { id, .. } = first.role else { panic!("a known role") };
    world.roles.insert("custom".to_owned(), Observation::Present(vec![id]));
    let named = Role::Named { name: "Custom".to_owned() };
    desired.assignments.push(DesiredAssignment { role: named, ..first });
    let assigned = |plan: &Plan| {
        let makes = |step: &&plan::Step| matches!(step.operation, Operation::PutAssignment { .. });
        plan.steps.iter().filter(makes).count()
    };
    let (plan, report) = make(&desired, &world);
    assert_eq!(assigned(&plan), 1);
    assert!(report.blocked.is_empty(), "{:?}", report.blocked);

    desired.assignments[1].condition = Some("@Resource[a] StringEquals 'b'".to_owned());
    let (plan, report) = make(&desired, &world);
    assert_eq!(assigned(&plan), 1);
    assert_eq!(codes(&report.blocked), ["grants-contradict"]);
}

#[test]
fn where_the_file_lay_when_it_was_applied_is_no_difference() {
    let (desired, mut world) = proved();
    let id = desired.workloads[0].identity.clone();
    let mut tagged = |source: &str| {
        let Some(Observation::Present(seen)) = world.identities.get_mut(&id) else {
            panic!("no identity")
        };
        seen.tags.insert(names::SOURCE_TAG.to_owned(), source.to_owned());
        make(&desired, &world).0.changes.len()
    };
    let same = ["workloads.toml", "teams/shop/workloads.toml"].map(&mut tagged);
    assert_eq!(same, [0, 0]);
    assert_eq!(["other.toml", "my-workloads.toml"].map(&mut tagged), [1, 1]);
}

#[test]
fn an_identity_named_by_its_id_is_never_made_and_never_tagged() {
    let (mut desired, mut world) = fresh();
    let id = desired.workloads[0].identity.clone();
    let identity = desired.identities.get_mut(&id).unwrap();
    identity.control = IdentityControl::External;
    let (plan, report) = make(&desired, &world);
    assert!(plan.steps.is_empty());
    assert_eq!(codes(&report.blocked), ["identity-not-found"]);

    let (_, after) = proved();
    world.identities = after.identities;
    world.credentials.insert(id.clone(), Observation::Present(Vec::new()));
    let Some(Observation::Present(seen)) = world.identities.get_mut(&id) else { panic!("none") };
    seen.tags.clear();
    let (plan, _) = make(&desired, &world);
    assert!(!verbs(&plan).contains(&"tag identity"));
    assert!(verbs(&plan).contains(&"create federated credential"));
}

#[test]
fn an_identity_of_another_tenant_is_proved_and_annotated_there() {
    let elsewhere: TenantId = "99999999-9999-4999-8999-999999999999".parse().unwrap();
    let (mut desired, mut world) = fresh();
    let (_, after) = proved();
    world.identities = after.identities;
    let id = desired.workloads[0].identity.clone();
    world.credentials.insert(id.clone(), Observation::Present(Vec::new()));
    desired.identities.get_mut(&id).unwrap().control = IdentityControl::External;
    let Some(Observation::Present(seen)) = world.identities.get_mut(&id) else { panic!("none") };
    seen.tenant_id = elsewhere;
    // Of another tenant than the file says: refused, with the line to write.
    let (plan, report) = make(&desired, &world);
    assert_eq!(codes(&report.refused), ["tenant-mismatch"]);
    assert!(plan.steps.iter().all(|step| !matches!(step.operation, Operation::Prove { .. })));
    let hint = report.refused[0].hint.as_ref().unwrap();
    assert_eq!(*hint, format!("write `tenant = \"{elsewhere}\"` for this workload"));

    desired.workloads[0].tenant = elsewhere;
    let (plan, report) = make(&desired, &world);
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    let mut seen = (false, false);
    for step in &plan.steps {
        match &step.operation {
            Operation::Prove { claim, .. } => {
                seen.0 = true;
                assert_eq!(claim.tenant, elsewhere, "exchanged at that tenant's authority");
            }
            Operation::AnnotateAccount { tenant, .. } => {
                seen.1 = true;
                assert_eq!(*tenant, elsewhere);
            }
            _ => {}
        }
    }
    assert_eq!(seen, (true, true));
}

#[test]
fn a_clusters_audience_is_that_of_credential_token_and_pods() {
    let (mut desired, world) = fresh();
    let sovereign = Audience::from("api://AzureADTokenExchangeUSGov");
    for cluster in desired.clusters.values_mut() {
        cluster.audience = sovereign.clone();
    }
    let (plan, _) = make(&desired, &world);
    let mut seen = 0;
    for step in &plan.steps {
        let audience = match &step.operation {
            Operation::PutCredential { audience, .. }
            | Operation::CheckInjection { audience, .. }
            | Operation::RollTemplate { audience, .. }
            | Operation::ProvePods { audience, .. } => audience,
            Operation::Prove { claim, .. } => &claim.audience,
            _ => continue,
        };
        seen += 1;
        assert_eq!(*audience, sovereign, "{}", step.operation.verb());
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn a_probe_knows_what_it_may_be_refused_for_the_lack_of() {
    let (mut desired, world) = fresh();
    desired.workloads[0].probe = Some(Probe {
        kind: ProbeKind::KeyVault,
        url: "https://kv.vault.azure.net".to_owned(),
        origin: desired.workloads[0].origin.clone(),
    });
    let (plan, _) = make(&desired, &world);
    let grants = plan.steps.iter().find_map(|step| match &step.operation {
        Operation::Prove { claim, .. } => Some(&claim.grants),
        _ => None,
    });
    let grants = grants.unwrap();
    assert!(grants[0].starts_with("Key Vault Secrets User on /subscriptions/"), "{grants:?}");
}

#[test]
fn a_credential_found_by_issuer_and_subject_is_used_under_its_name() {
    let (desired, mut world) = proved();
    credentials(&desired, &mut world)[0].name = "made-by-hand".to_owned();
    let (plan, _) = make(&desired, &world);
    assert_only_proves(&plan);

    credentials(&desired, &mut world)[0].audiences = vec![Audience::from("api://Other")];
    let (plan, report) = make(&desired, &world);
    assert_eq!(verbs(&plan)[0], "update federated credential");
    assert!(plan.changes[0].id.ends_with("/made-by-hand"));
    assert!(codes(&report.risks).contains(&"foreign-credential-changed"));
}

#[test]
fn an_issuer_without_its_slash_is_updated_in_place_and_the_reason_says_so() {
    let (desired, mut world) = proved();
    let credential = &mut credentials(&desired, &mut world)[0];
    credential.issuer = Issuer(credential.issuer.as_str().trim_end_matches('/').to_owned());
    let (plan, _) = make(&desired, &world);
    assert_eq!(plan.changes.len(), 1);
    assert_eq!(plan.changes[0].action, Action::Update);
    let Reason::Differs { near, .. } = &plan.changes[0].reasons[0] else { panic!("no reason") };
    assert_eq!(near.as_deref(), Some("only the trailing slash differs"));
}

#[test]
fn the_twenty_first_credential_is_blocked_before_anything_is_written_for_it() {
    let mut desired = worlds::desired(&["prod"]);
    for n in 0..21 {
        add_workload(&mut desired, NS, &format!("sa-{n:02}"), &["prod"], Some("shared"), &[]);
    }
    let world = bare_world(&desired);
    let (plan, report) = make(&desired, &world);
    assert_eq!(codes(&report.blocked), ["twenty-credentials"]);
    let put = verbs(&plan).into_iter().filter(|v| *v == "create federated credential").count();
    assert_eq!(put, 20);
    let blocked = report.blocked[0].address.to_string();
    assert!(plan.steps.iter().all(|step| !step.address.to_string().starts_with(&blocked)));
}

#[test]
fn fields_of_kubectl_are_taken_over_and_shown_those_of_helm_are_refused() {
    let own = |manager: &str| {
        let (mut desired, mut world) = proved();
        let meta = &mut account(&mut world).meta;
        meta.annotations.insert(
            names::CLIENT_ID_ANNOTATION.to_owned(),
            "99999999-9999-9999-9999-999999999999".to_owned(),
        );
        let field = OwnedField::Annotation(names::CLIENT_ID_ANNOTATION.to_owned());
        let manager = Manager { name: manager.to_owned(), operation: "Update".to_owned() };
        meta.owners.insert(field, BTreeSet::from([manager]));
        desired.workloads[0].rollout = RolloutMode::Never;
        (desired, world)
    };
    let (desired, world) = own("kubectl-client-side-apply");
    let (plan, report) = make(&desired, &world);
    assert!(codes(&report.risks).contains(&"field-taken-over"));
    let forced = plan
        .steps
        .iter()
        .any(|step| matches!(step.operation, Operation::AnnotateAccount { force: true, .. }));
    assert!(forced);

    let (mut desired, world) = own("helm");
    let (plan, report) = make(&desired, &world);
    assert!(plan.changes.is_empty());
    assert_eq!(codes(&report.refused), ["field-manager-conflict"]);
    desired.workloads[0].adopt = true;
    let (plan, report) = make(&desired, &world);
    assert!(report.refused.is_empty() && plan.changes.len() == 1);
}

#[test]
fn what_argo_cd_keeps_is_left_alone_and_waits_for_git() {
    let (desired, mut world) = fresh();
    let meta = &mut account(&mut world).meta;
    meta.annotations.insert("argocd.argoproj.io/tracking-id".to_owned(), "shop".to_owned());
    let mark = ("argocd.argoproj.io/instance".to_owned(), "shop".to_owned());
    template(&mut world).meta.labels.extend([mark]);
    let (plan, report) = make(&desired, &world);
    assert!(plan.changes.iter().all(|c| c.kind != ObjectKind::KubernetesServiceAccount));
    assert!(plan.changes.iter().all(|c| c.kind != ObjectKind::KubernetesPodTemplate));
    assert!(verbs(&plan).contains(&"prove"), "the Azure side is built and proved all the same");
    assert_eq!(report.pending_git.len(), 2);
    assert!(report.is_clear());
    let (mut desired, world) = (desired, world);
    desired.workloads[0].managed_by = ManagedBy::Widentity;
    let (plan, report) = make(&desired, &world);
    assert!(report.pending_git.is_empty());
    assert!(verbs(&plan).contains(&"roll"));
}

#[test]
fn pods_decide_about_rollouts_not_annotations() {
    let (desired, mut world) = proved();
    template(&mut world).annotations.remove(names::CHAIN_ANNOTATION);
    let (plan, _) = make(&desired, &world);
    assert_only_proves(&plan);

    let (desired, mut world) = proved();
    inject(&mut world, &Injected::default());
    let (plan, _) = make(&desired, &world);
    assert_eq!(plan.counts(), (0, 0), "a re-trigger is no object");
    assert_eq!(plan.changes[0].kind, ObjectKind::KubernetesRollout);
    let round = plan.steps.iter().find_map(|step| match step.operation {
        Operation::RollTemplate { round, .. } => Some(round),
        _ => None,
    });
    assert_eq!(round, Some(1), "the same chain must roll again");
    let (proved_plan, _) = make(&proved().0, &proved().1);
    assert_eq!(
        plan.digest,
        proved_plan.digest.clone(),
        "re-triggers are not digested but risks are"
    );
}

#[test]
fn an_unfinished_controller_is_waited_for_and_not_rolled_again() {
    let (desired, mut world) = proved();
    let old = Injected { client_ids: BTreeSet::from(["old".to_owned()]), ..injected(&mut world) };
    inject(&mut world, &old);
    let progress = &mut template(&mut world).progress;
    (progress.updated, progress.total) = (1, 3);
    let (plan, _) = make(&desired, &world);
    assert!(plan.changes.is_empty());
    assert_eq!(verbs(&plan), ["prove", "await rollout", "prove pods"]);
}

#[test]
fn a_rollout_that_left_no_pod_is_waited_for() {
    let (desired, mut world) = proved();
    let controller = template(&mut world);
    let progress = &mut controller.progress;
    (progress.updated, progress.total, progress.available) = (0, 0, 0);
    for strategy in [Strategy::RollingUpdate, Strategy::Recreate] {
        template(&mut world).strategy = strategy;
        pods(&mut world).clear();
        let (plan, _) = make(&desired, &world);
        assert!(plan.changes.is_empty());
        assert_eq!(verbs(&plan), ["prove", "await rollout", "prove pods"], "{strategy:?}");
    }
    // Scaled to nothing, it is complete.
    template(&mut world).progress.desired = 0;
    assert_only_proves(&make(&desired, &world).0);
}

#[test]
fn a_failed_rollout_that_nobody_asked_us_for_is_a_failure_too() {
    let (desired, mut world) = proved();
    let controller = template(&mut world);
    controller.annotations.remove(names::CHAIN_ANNOTATION);
    controller.progress.failed = Some("ProgressDeadlineExceeded".to_owned());
    let (plan, report) = make(&desired, &world);
    assert_only_proves(&plan);
    assert_eq!(codes(&report.not_proved), ["rollout-failed"]);
}

#[test]
fn a_client_id_by_reference_is_not_seen_and_no_reason_to_roll() {
    let (desired, mut world) = proved();
    let by_reference = BTreeSet::from(["AZURE_CLIENT_ID".to_owned()]);
    let unseen = Injected { client_ids: BTreeSet::new(), by_reference, ..injected(&mut world) };
    inject(&mut world, &unseen);
    let (plan, report) = make(&desired, &world);
    assert_only_proves(&plan);
    assert!(report.is_clear());

    let other = Injected { client_ids: BTreeSet::from(["other".to_owned()]), ..unseen };
    inject(&mut world, &other);
    assert!(verbs(&make(&desired, &world).0).contains(&"roll"));
}

#[test]
fn a_failed_rollout_stays_a_failure_until_its_cause_is_gone() {
    let (desired, mut world) = proved();
    template(&mut world).progress.failed = Some("ProgressDeadlineExceeded".to_owned());
    let (plan, report) = make(&desired, &world);
    assert!(plan.changes.is_empty());
    assert_eq!(codes(&report.not_proved), ["rollout-failed"]);
    let hint = report.not_proved[0].hint.as_deref().unwrap();
    assert_eq!(hint, "kubectl --context prod -n payments rollout undo deployment/payments-api");
}

#[test]
fn rollouts_that_are_withheld_wait_and_are_no_change() {
    for (mode, no_rollout) in
        [(RolloutMode::NextDeploy, false), (RolloutMode::Never, false), (RolloutMode::Auto, true)]
    {
        let (mut desired, world) = fresh();
        desired.workloads[0].rollout = mode;
        let (plan, report) =
            plan::plan(&desired, &world, PlanOptions { no_rollout, ..PlanOptions::default() });
        assert!(!verbs(&plan).contains(&"roll"));
        assert_eq!(report.pending_rollout.len(), 1);
        assert!(report.is_clear());
    }
    for strategy in [Strategy::OnDelete, Strategy::Paused] {
        let (desired, mut world) = proved();
        inject(&mut world, &Injected::default());
        template(&mut world).strategy = strategy;
        let (plan, report) = make(&desired, &world);
        assert_only_proves(&plan);
        assert_eq!(report.pending_rollout.len(), 1);
    }
}

#[test]
fn a_variable_that_the_manifest_sets_is_named_and_not_rolled_over() {
    let (desired, mut world) = proved();
    let literal = ("app".to_owned(), "AZURE_CLIENT_ID".to_owned(), Some("old".to_owned()));
    template(&mut world).literal_env.push(literal);
    let old = Injected { client_ids: BTreeSet::from(["old".to_owned()]), ..injected(&mut world) };
    inject(&mut world, &old);
    let (plan, report) = make(&desired, &world);
    assert_only_proves(&plan);
    assert_eq!(codes(&report.not_proved), ["literal-environment"]);
}

#[test]
fn a_replaced_identity_settles_before_pods_move_to_it() {
    let (desired, mut world) = proved();
    let old = "99999999-9999-9999-9999-999999999999".to_owned();
    let annotations = &mut account(&mut world).meta.annotations;
    annotations.insert(names::CLIENT_ID_ANNOTATION.to_owned(), old.clone());
    let before = Injected { client_ids: BTreeSet::from([old]), ..injected(&mut world) };
    inject(&mut world, &before);
    let (plan, _) = make(&desired, &world);
    assert_eq!(
        verbs(&plan),
        [
            "prove",
            "let roles settle",
            "annotate service account",
            "check webhook",
            "roll",
            "prove pods"
        ]
    );
    let settle = plan.steps[1].id;
    assert!(plan.steps[2].needs.contains(&settle));
}

#[test]
fn bare_pods_and_jobs_are_reported_for_their_owner() {
    let (mut desired, mut world) = proved();
    let pods = prod(&mut world).pods.get_mut(&Namespace::from(NS)).unwrap();
    let Observation::Present(pods) = pods else { panic!("no pods") };
    let mut bare = pods[0].clone();
    (bare.name, bare.controller) = ("debug".to_owned(), None);
    bare.injected = Injected::default();
    pods.push(bare);
    let (plan, report) = make(&desired, &world);
    assert_only_proves(&plan);
    assert_eq!(report.recreate.len(), 1);
    assert_eq!(report.recreate[0].object, "prod: pod payments/debug");
    desired.workloads[0].pods =
        PodSelection::Named(BTreeSet::from(["deployment/payments-api".to_owned()]));
    assert!(make(&desired, &world).1.recreate.is_empty());
}

#[test]
fn what_the_file_no_longer_explains_is_listed_and_never_deleted() {
    let (mut desired, world) = proved();
    let kept = desired.clone();
    desired.workloads.clear();
    desired.assignments.clear();
    desired.identities.clear();
    let mut world = world;
    let orphan = world.identities.values().find_map(Observation::present).unwrap().clone();
    world.other_identities.push(orphan);
    let (plan, report) = make(&desired, &world);
    assert!(plan.steps.is_empty() && plan.changes.is_empty());
    let kinds: Vec<&str> = report.left_over.iter().map(|left| left.kind.as_str()).collect();
    assert!(kinds.contains(&"identity") && kinds.contains(&"service account"), "{kinds:?}");

    // What --only leaves out is still explained.
    let mut unselected = kept;
    unselected.workloads[0].selected.clear();
    let (_, report) = make(&unselected, &world);
    assert!(report.left_over.iter().all(|left| left.kind != "service account"));
}

#[test]
fn a_credential_of_ours_that_serves_nobody_is_left_over() {
    let (desired, mut world) = proved();
    let prefix = names::federated_credential_prefix(&desired.project);
    let list = credentials(&desired, &mut world);
    let mut stray = list[0].clone();
    stray.name = format!("{prefix}0123456789abcdef");
    stray.subject = Some("system:serviceaccount:gone:gone".into());
    list.push(stray);
    let mut binding = list[0].clone();
    binding.name = names::IDENTITY_BINDING_CREDENTIAL.to_owned();
    binding.subject = Some("other".into());
    list.push(binding);
    let (plan, report) = make(&desired, &world);
    assert_only_proves(&plan);
    assert_eq!(report.left_over.len(), 1);
}

#[test]
fn a_cluster_without_access_gets_its_azure_side_and_says_not_managed() {
    let (mut desired, mut world) = fresh();
    desired.clusters.get_mut(&ClusterName::from("prod")).unwrap().access = Access::None;
    world.clusters.get_mut(&ClusterName::from("prod")).unwrap().kubernetes = Observation::Absent;
    let (plan, report) = make(&desired, &world);
    assert_eq!(verbs(&plan), ["create identity", "assign role", "create federated credential"]);
    assert_eq!(report.unmanaged.len(), 1);
}

#[test]
fn roles_that_could_not_be_seen_keep_pods_where_they_are() {
    let (desired, mut world) = fresh();
    let (plan, _) = make(&desired, &world);
    let made = plan.steps[0].id;
    world = worlds::apply(&desired, &world, &plan, &BTreeSet::from([made]));
    let subscription = ArmId::of_subscription(worlds::subscription());
    world.assignments.looked = vec![(subscription, Observation::Unknown(denied()))];
    let (plan, report) = make(&desired, &world);
    assert_eq!(verbs(&plan), ["create federated credential"]);
    assert_eq!(report.unknown.len(), 1);
}
