//! What must hold for every plan, over random files and worlds.

use std::collections::BTreeSet;

use proptest::prelude::*;
use widentity::{
    model::{
        ClusterName, FailureKind, RemoteFailure,
        desired::{DesiredState, Feature, RolloutMode},
        snapshot::{Observation, ObservedCredential, Snapshot, Strategy as RolloutStrategy},
    },
    plan::{self, Lock, Operation, Plan, PlanOptions, PlanReport, StepId},
};

use crate::support::worlds::{self, add_workload, bare_world};

/// A random file and world, in small choices that shrink well.
#[derive(Debug, Clone)]
struct Case {
    clusters: usize,
    workloads: Vec<WorkloadCase>,
    issuer_off: Vec<bool>,
    may_enable: bool,
}

#[derive(Debug, Clone)]
struct WorkloadCase {
    namespace: u8,
    clusters: u8,
    shared: Option<u8>,
    vaults: u8,
    expiration: Option<u32>,
    rollout: u8,
    strategy: u8,
    namespace_missing: bool,
    foreign_credential: bool,
}

fn workload() -> impl Strategy<Value = WorkloadCase> {
    (
        0u8..3,
        1u8..8,
        proptest::option::weighted(0.3, 0u8..2),
        0u8..4,
        proptest::option::weighted(0.2, Just(7200u32)),
        0u8..6,
        0u8..6,
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.2),
    )
        .prop_map(
            |(
                namespace,
                clusters,
                shared,
                vaults,
                expiration,
                rollout,
                strategy,
                namespace_missing,
                foreign_credential,
            )| WorkloadCase {
                namespace,
                clusters,
                shared,
                vaults,
                expiration,
                rollout,
                strategy,
                namespace_missing,
                foreign_credential,
            },
        )
}

fn case() -> impl Strategy<Value = Case> {
    (
        1usize..4,
        proptest::collection::vec(workload(), 1..7),
        proptest::collection::vec(proptest::bool::weighted(0.2), 3),
        any::<bool>(),
    )
        .prop_map(|(clusters, workloads, issuer_off, may_enable)| Case {
            clusters,
            workloads,
            issuer_off,
            may_enable,
        })
}

const CLUSTERS: [&str; 3] = ["aks-a", "aks-b", "aks-c"];

fn build(case: &Case) -> (DesiredState, Snapshot) {
    let clusters = &CLUSTERS[..case.clusters];
    let mut desired = worlds::desired(clusters);
    for (n, workload) in case.workloads.iter().enumerate() {
        let chosen: Vec<&str> = clusters
            .iter()
            .enumerate()
            .filter(|(bit, _)| workload.clusters >> bit & 1 == 1 || *bit == 0)
            .map(|(_, name)| *name)
            .collect();
        let shared = workload.shared.map(|n| format!("shared-{n}"));
        let vaults: Vec<&str> = ["kv-a", "kv-b"]
            .into_iter()
            .enumerate()
            .filter(|(bit, _)| workload.vaults >> bit & 1 == 1)
            .map(|(_, name)| name)
            .collect();
        let namespace = format!("ns-{}", workload.namespace);
        add_workload(
            &mut desired,
            &namespace,
            &format!("sa-{n}"),
            &chosen,
            shared.as_deref(),
            &vaults,
        );
        let last = desired.workloads.last_mut().unwrap();
        last.token_expiration = workload.expiration;
        last.rollout = match workload.rollout {
            0 => RolloutMode::NextDeploy,
            1 => RolloutMode::Never,
            _ => RolloutMode::Auto,
        };
    }
    let mut world = bare_world(&desired);
    for (n, name) in clusters.iter().enumerate() {
        let name = ClusterName::from(*name);
        if case.may_enable {
            let enable = &mut desired.clusters.get_mut(&name).unwrap().enable;
            enable.extend([Feature::OidcIssuer, Feature::WorkloadIdentity]);
        }
        let seen = world.clusters.get_mut(&name).unwrap();
        if case.issuer_off[n] {
            let Observation::Present(arm) = &mut seen.arm else { unreachable!() };
            arm.issuer = None;
        }
        let Observation::Present(kubernetes) = &mut seen.kubernetes else { unreachable!() };
        for (workload, spec) in desired.workloads.iter().zip(&case.workloads) {
            if spec.namespace_missing {
                kubernetes.namespaces.insert(workload.namespace.clone(), Observation::Absent);
            }
            let templates = kubernetes.templates.get_mut(&workload.namespace);
            let Some(Observation::Present(templates)) = templates else { continue };
            for template in templates.iter_mut().filter(|t| t.account == workload.account) {
                template.strategy = match spec.strategy {
                    0 => RolloutStrategy::OnDelete,
                    1 => RolloutStrategy::Paused,
                    2 => RolloutStrategy::Recreate,
                    _ => RolloutStrategy::RollingUpdate,
                };
            }
        }
    }
    // Credentials that somebody else made for the very pair, on identities that exist already.
    for (workload, spec) in desired.workloads.iter().zip(&case.workloads) {
        // An issuer that is yet to be switched on is in no credential: Azure invents it.
        if !spec.foreign_credential || spec.shared.is_none() || case.issuer_off[0] {
            continue;
        }
        let (made, _) = plan_of(&desired, &world);
        let create = made.steps.iter().find(|step| {
            matches!(&step.operation, Operation::CreateIdentity { id, .. } if *id == workload.identity)
        });
        if let Some(step) = create {
            world = worlds::apply(&desired, &world, &made, &BTreeSet::from([step.id]));
        }
        if let Some(Observation::Present(list)) = world.credentials.get_mut(&workload.identity) {
            let credential = ObservedCredential {
                name: format!("by-hand-{}", workload.account),
                issuer: worlds::issuer(CLUSTERS[0]),
                subject: Some(workload.subject()),
                audiences: vec!["api://Other".into()],
            };
            if !list.iter().any(|have| have.name == credential.name) {
                list.push(credential);
            }
        }
    }
    (desired, world)
}

fn plan_of(desired: &DesiredState, world: &Snapshot) -> (Plan, PlanReport) {
    plan::plan(desired, world, PlanOptions::default())
}

fn closure(plan: &Plan, of: StepId) -> BTreeSet<StepId> {
    let mut found = BTreeSet::new();
    let mut todo = vec![of];
    while let Some(id) = todo.pop() {
        for need in &plan.steps[id.0].needs {
            if found.insert(*need) {
                todo.push(*need);
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_second_plan_is_empty(case in case()) {
        let (desired, world) = build(&case);
        let (plan, _) = plan_of(&desired, &world);
        let after = worlds::apply(&desired, &world, &plan, &worlds::all(&plan));
        let (second, report) = plan_of(&desired, &after);
        prop_assert!(second.changes.is_empty(), "{:#?}", second.changes);
        prop_assert!(report.not_proved.is_empty(), "{:#?}", report.not_proved);
    }

    #[test]
    fn any_failed_subset_then_a_re_run_reaches_the_same_world(
        case in case(),
        failing in proptest::collection::btree_set(0usize..60, 0..8),
    ) {
        let (desired, world) = build(&case);
        let (plan, _) = plan_of(&desired, &world);
        let undisturbed = worlds::apply(&desired, &world, &plan, &worlds::all(&plan));
        let failing = failing.into_iter().map(StepId).collect();
        let partly = worlds::apply(&desired, &world, &plan, &worlds::without(&plan, &failing));
        let (again, _) = plan_of(&desired, &partly);
        let mut repaired = worlds::apply(&desired, &partly, &again, &worlds::all(&again));
        let mut undisturbed = undisturbed;
        for world in [&mut repaired, &mut undisturbed] {
            world.assignments.seen.sort_by(|a, b| a.name.cmp(&b.name));
            for list in world.credentials.values_mut() {
                if let Observation::Present(list) = list {
                    list.sort_by(|a, b| a.name.cmp(&b.name));
                }
            }
            // The order in which pods were replaced is no property of the world.
            for cluster in world.clusters.values_mut() {
                if let Observation::Present(kubernetes) = &mut cluster.kubernetes {
                    for pods in kubernetes.pods.values_mut() {
                        if let Observation::Present(pods) = pods {
                            pods.sort_by(|a, b| a.name.cmp(&b.name));
                        }
                    }
                }
            }
        }
        prop_assert_eq!(repaired, undisturbed);
        // What is left to do was approved with the first plan.
        let approved: BTreeSet<&String> = plan.digests.iter().collect();
        let left: Vec<&String> = again.changes.iter().map(|c| &c.digest).collect();
        for digest in left.into_iter().filter(|digest| !digest.is_empty()) {
            prop_assert!(approved.contains(digest), "{:#?}", again.changes);
        }
    }

    #[test]
    fn equal_input_gives_equal_bytes_and_order_does_not_matter(case in case()) {
        let (desired, world) = build(&case);
        let (plan, report) = plan_of(&desired, &world);
        let mut shuffled = world.clone();
        for cluster in shuffled.clusters.values_mut() {
            if let Observation::Present(kubernetes) = &mut cluster.kubernetes {
                for list in kubernetes.templates.values_mut() {
                    if let Observation::Present(list) = list { list.reverse(); }
                }
                for list in kubernetes.pods.values_mut() {
                    if let Observation::Present(list) = list { list.reverse(); }
                }
            }
        }
        shuffled.assignments.seen.reverse();
        let (again, report_again) = plan_of(&desired, &shuffled);
        prop_assert_eq!(&plan.digest, &again.digest);
        prop_assert_eq!(plan.steps.len(), again.steps.len());
        prop_assert_eq!(report.risks, report_again.risks);
    }

    #[test]
    fn steps_stand_after_what_they_need_and_pods_after_proofs(case in case()) {
        let (desired, world) = build(&case);
        let (plan, _) = plan_of(&desired, &world);
        for step in &plan.steps {
            prop_assert!(step.needs.iter().all(|need| *need < step.id));
            let before = closure(&plan, step.id);
            let proved = || before.iter().any(|id| {
                let earlier = &plan.steps[id.0];
                matches!(earlier.operation, Operation::Prove { .. })
                    && earlier.workloads == step.workloads
            });
            match &step.operation {
                Operation::AnnotateAccount { .. } | Operation::RollTemplate { .. } => {
                    prop_assert!(proved(), "{} is not after its proof", step.address);
                }
                Operation::PutCredential { identity, .. } => {
                    prop_assert!(step.locks.contains(&Lock::Identity(identity.clone())));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn unknown_never_acts(case in case(), which in 0usize..6) {
        let (desired, mut world) = build(&case);
        let failure = RemoteFailure::new(FailureKind::Denied, "read", "forbidden");
        let cluster = ClusterName::from(CLUSTERS[0]);
        match which {
            0 => for seen in world.identities.values_mut() {
                *seen = Observation::Unknown(failure.clone());
            },
            1 => world.clusters.get_mut(&cluster).unwrap().arm = Observation::Unknown(failure),
            2 => world.clusters.get_mut(&cluster).unwrap().kubernetes = Observation::Unknown(failure),
            3 => world.assignments.looked = vec![],
            4 => world.home = Observation::Unknown(failure),
            _ => {
                let seen = world.clusters.get_mut(&cluster).unwrap();
                let Observation::Present(kubernetes) = &mut seen.kubernetes else { unreachable!() };
                for accounts in kubernetes.accounts.values_mut() {
                    *accounts = Observation::Unknown(failure.clone());
                }
            }
        }
        let (plan, report) = plan_of(&desired, &world);
        for step in &plan.steps {
            let in_cluster = step.workloads.iter().all(|w| w.to_string().ends_with(CLUSTERS[0]));
            match which {
                0 => prop_assert!(
                    matches!(step.operation, Operation::EnableFeatures { .. }),
                    "{:?}", step.operation
                ),
                1 | 2 => prop_assert!(
                    !in_cluster || !step.address.to_string().contains(CLUSTERS[0]),
                    "{:?}", step.operation
                ),
                4 => {
                    let makes = matches!(step.operation, Operation::CreateIdentity { .. });
                    prop_assert!(!makes);
                }
                5 => {
                    let account = matches!(
                        &step.operation,
                        Operation::CreateAccount { .. }
                            | Operation::Prove { .. }
                            | Operation::AnnotateAccount { .. }
                            | Operation::RollTemplate { .. }
                    );
                    prop_assert!(!account || !step.address.to_string().contains(CLUSTERS[0]));
                }
                _ => {}
            }
        }
        if which != 3 && which != 4 && report.blocked.is_empty() {
            prop_assert!(!report.unknown.is_empty());
        }
    }
}
