//! Walks the chain from desired state and snapshot to plan and report.
//!
//! What is looked at in which order, and why:
//! 1. clusters: without an issuer there is no credential, and the wrong API server stops here;
//! 2. namespaces: a workload without one is blocked before anything is made for it;
//! 3. identities and role assignments, once for all workloads that share them;
//! 4. for each workload in each cluster: credential, bare account, proof, annotations, templates.
//!    No live pod is pointed at an identity that was not proved.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use super::{
    Operation, Plan, PlanReport, StepId, account, assignment,
    assignment::Grants,
    cluster::{self, ClusterState},
    credential::{self, Counts},
    draft::{Draft, NewStep, finding},
    identity::{self, IdentityState},
    leftover,
    ownership::Conflict,
    step::Claim,
    template::{self, Rolling},
};
use crate::model::{
    Address, ArmId, ClusterName, FailureKind, RemoteFailure,
    address::Part,
    desired::{DesiredState, DesiredWorkload},
    names,
    snapshot::{KubernetesSnapshot, Observation, Snapshot},
};

/// What the caller decides about planning.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlanOptions {
    /// `--no-rollout`: no pod template is written.
    pub no_rollout: bool,
    /// Whether workloads that AAD Pod Identity answers are moved: `migrate apply`. Else they are left
    /// alone, also what was put back.
    pub leaves_pod_identity: bool,
}

/// Compares what is wanted with what was read. Pure: equal arguments give equal bytes.
///
/// # Guarantees
/// No step rests on something that could not be seen; every step stands after all it needs; no
/// step deletes anything; what was refused, blocked or unseen is in the report.
pub fn plan(
    desired: &DesiredState,
    snapshot: &Snapshot,
    options: PlanOptions,
) -> (Plan, PlanReport) {
    let world = World { desired, snapshot, options };
    let mut draft = Draft::default();
    let clusters = clusters(&world, &mut draft);
    let places = places(&world, &mut draft, &clusters);

    let usable: BTreeSet<usize> = places.iter().map(|place| place.index).collect();
    let mut users: BTreeMap<&ArmId, Vec<&DesiredWorkload>> = BTreeMap::new();
    for index in &usable {
        let workload = desired.workload(*index);
        users.entry(&workload.identity).or_default().push(workload);
    }
    let mut identities = BTreeMap::new();
    for (id, workloads) in &users {
        let Some(identity) = desired.identities.get(*id) else { continue };
        if let Some(state) = identity::plan(&world, &mut draft, identity, workloads) {
            identities.insert(*id, state);
        }
    }
    let grants = assignment::plan(&world, &mut draft, &identities, &usable);
    let none = Grants::default();
    let mut counts = Counts::new();
    for place in &places {
        if let Some(identity) = identities.get(&place.workload.identity) {
            let grants = grants.get(&place.index).unwrap_or(&none);
            // An error was told where it was found; the next workload does not depend on it.
            let _held = one(&world, &mut draft, &mut counts, place, identity, grants);
        }
    }
    leftover::find(&world, &mut draft);
    draft.finish()
}

/// The arguments of planning, and small questions about them.
pub(super) struct World<'a> {
    pub(super) desired: &'a DesiredState,
    pub(super) snapshot: &'a Snapshot,
    pub(super) options: PlanOptions,
}

/// The failure of something that should have been read and was not.
pub(super) fn not_read(what: &dyn Display) -> RemoteFailure {
    RemoteFailure::new(FailureKind::NotReached, format!("read {what}"), "it was not read")
}

/// A workload in one cluster in which something can be done.
pub(super) struct Place<'a> {
    pub(super) index: usize,
    pub(super) workload: &'a DesiredWorkload,
    pub(super) cluster: &'a ClusterState<'a>,
    /// `<namespace>/<service account>@<cluster>`.
    pub(super) address: Address,
}

impl Place<'_> {
    /// An object as a person would look for it.
    pub(super) fn object(&self, kind: &str, name: &str) -> String {
        format!("{}: {kind} {}/{name}", self.cluster.cluster.name, self.workload.namespace)
    }

    /// The beginning of a command for this place.
    pub(super) fn kubectl(&self) -> String {
        let kubectl = self.cluster.cluster.access.kubectl();
        format!("{kubectl} -n {}", self.workload.namespace)
    }
}

/// Whether fields that others own may be set, and whether by force. People's tools and the
/// tool we replace are taken over and shown; Helm, other projects and unknown managers only
/// with `adopt`.
pub(super) fn take_over(
    draft: &mut Draft,
    place: &Place<'_>,
    address: &Address,
    conflicts: &[Conflict],
) -> Result<bool, ()> {
    let origin = &place.workload.origin;
    let adopt = place.workload.adopt;
    let (taken, foreign): (Vec<&Conflict>, Vec<&Conflict>) =
        conflicts.iter().partition(|conflict| conflict.may_be_taken || adopt);
    if let Some(first) = foreign.first() {
        draft.report.refused.push(finding(
            address.clone(),
            "field-manager-conflict",
            format!("{} is owned by field manager {}", first.field, first.manager),
            "let that tool set it, or write `adopt = true` for this workload".to_owned(),
            origin,
        ));
        return Err(());
    }
    for conflict in &taken {
        draft.report.risks.push(finding(
            address.clone(),
            "field-taken-over",
            format!("{} is taken over from {}", conflict.field, conflict.manager),
            None,
            origin,
        ));
    }
    Ok(!taken.is_empty())
}

fn clusters<'a>(
    world: &World<'a>,
    draft: &mut Draft,
) -> BTreeMap<&'a ClusterName, ClusterState<'a>> {
    let mut workloads: BTreeMap<&ClusterName, Vec<&DesiredWorkload>> = BTreeMap::new();
    for (workload, cluster) in world.desired.placements() {
        workloads.entry(&cluster.name).or_default().push(workload);
    }
    let planned = workloads.into_iter().filter_map(|(name, workloads)| {
        let cluster = world.desired.clusters.get(name)?;
        Some((name, cluster::plan(world, draft, cluster, &workloads)?))
    });
    planned.collect()
}

/// The placements in which something can be done: cluster usable, namespace there.
fn places<'a>(
    world: &World<'a>,
    draft: &mut Draft,
    clusters: &'a BTreeMap<&'a ClusterName, ClusterState<'a>>,
) -> Vec<Place<'a>> {
    let mut places = Vec::new();
    for (index, workload) in world.desired.workloads.iter().enumerate() {
        for name in &workload.selected {
            let Some(cluster) = clusters.get(name) else { continue };
            let place = Place { index, workload, cluster, address: workload.address().at(name) };
            if namespace_is_there(draft, &place) {
                places.push(place);
            }
        }
    }
    places
}

fn namespace_is_there(draft: &mut Draft, place: &Place<'_>) -> bool {
    let workload = place.workload;
    let Some(kubernetes) = place.cluster.kubernetes else {
        draft.report.unmanaged.push(place.address.clone());
        return true;
    };
    match kubernetes.namespaces.get(&workload.namespace) {
        Some(Observation::Present(())) => true,
        Some(Observation::Absent) => {
            let kubectl = place.cluster.cluster.access.kubectl();
            draft.report.blocked.push(finding(
                place.address.clone(),
                "namespace-missing",
                format!(
                    "namespace {} does not exist in cluster {}",
                    workload.namespace, place.cluster.cluster.name
                ),
                format!("{kubectl} create namespace {}", workload.namespace),
                &workload.origin,
            ));
            false
        }
        Some(Observation::Unknown(failure)) => {
            draft.unseen(place.address.clone(), failure, &workload.origin);
            false
        }
        None => {
            draft.unseen(place.address.clone(), &not_read(&workload.namespace), &workload.origin);
            false
        }
    }
}

/// The chain of one workload in one cluster, from the credential on.
fn one<'a>(
    world: &World<'a>,
    draft: &mut Draft,
    counts: &mut Counts<'a>,
    place: &Place<'a>,
    identity: &IdentityState<'a>,
    grants: &Grants,
) -> Result<(), ()> {
    let credential =
        credential::plan(world, draft, counts, place.workload, place.cluster, identity)?;
    let Some(kubernetes) = place.cluster.kubernetes else { return Ok(()) };
    let left = template::left_to_migrate(world, place, kubernetes);
    let frozen = grants.held || left;
    let account = account::plan(world, draft, place, kubernetes, identity, frozen)?;
    if !account.exists {
        return Ok(());
    }
    let mut needs = place.cluster.confirmed.clone();
    needs.extend(&identity.needs);
    needs.extend(credential);
    needs.extend(account.made);
    let probe = place.workload.probe.clone().filter(|_| !grants.held);
    if probe.is_some() {
        needs.extend(&grants.steps);
    }
    let proof = draft.step(NewStep {
        address: place.address.clone().part(Part::Proof),
        operation: Operation::Prove {
            namespace: place.workload.namespace.clone(),
            account: place.workload.account.clone(),
            claim: Claim {
                identity: identity.identity.id.clone(),
                client: identity.client.clone(),
                principal: identity.principal.clone(),
                tenant: place.workload.tenant,
                issuer: place.cluster.issuer.clone(),
                audience: place.cluster.cluster.audience.clone(),
                grants: if probe.is_some() { grants.labels.clone() } else { Vec::new() },
            },
            probe,
        },
        needs,
        locks: BTreeSet::new(),
        workloads: vec![place.address.clone()],
        origin: place.workload.origin.clone(),
        change: None,
    });
    let mut needs = place.cluster.confirmed.clone();
    needs.push(proof);
    needs.extend(&grants.steps);
    if replaces_identity(place, &account, kubernetes, identity) {
        needs.push(settle(draft, place, identity, grants, proof));
    }
    let annotated = account.annotate.as_ref().map(|annotate| {
        account::annotate(draft, place, &account, annotate, identity, needs.clone())
    });
    let hindrance = match (grants.held, account.held) {
        (true, _) => Some("its role assignments are not settled"),
        (false, true) if left => Some(template::ON_POD_IDENTITY),
        (false, true) => Some("the service account is not as wanted"),
        (false, false) => None,
    };
    let rolling = Rolling {
        place,
        kubernetes,
        identity,
        account: &account,
        annotated,
        needs,
        hindrance,
        injection: Cell::new(None),
    };
    template::plan(world, draft, &rolling).ok_or(())
}

/// Whether live pods use another identity through this account, which this run replaces.
fn replaces_identity(
    place: &Place<'_>,
    account: &account::AccountPlan<'_>,
    kubernetes: &KubernetesSnapshot,
    identity: &IdentityState<'_>,
) -> bool {
    let Some(seen) = account.seen.filter(|_| account.annotate.is_some()) else { return false };
    let before = seen.meta.annotations.get(names::CLIENT_ID_ANNOTATION);
    let other = before.is_some_and(|before| match &identity.client {
        super::Value::Known(client) => !before.eq_ignore_ascii_case(&client.to_string()),
        super::Value::AfterApply(_) => true,
    });
    let pods = kubernetes.pods.get(&place.workload.namespace).and_then(Observation::present);
    other
        && pods
            .into_iter()
            .flatten()
            .any(|pod| pod.account == place.workload.account && pod.live() && pod.injected.present)
}

fn settle(
    draft: &mut Draft,
    place: &Place<'_>,
    identity: &IdentityState<'_>,
    grants: &Grants,
    proof: StepId,
) -> StepId {
    let mut needs = grants.steps.clone();
    needs.push(proof);
    draft.step(NewStep {
        address: place.address.clone().part(Part::Proof),
        operation: Operation::SettleRoles {
            identity: identity.identity.id.clone(),
            principal: identity.principal.clone(),
            assignments: grants.wanted.clone(),
        },
        needs,
        locks: BTreeSet::new(),
        workloads: vec![place.address.clone()],
        origin: place.workload.origin.clone(),
        change: None,
    })
}
