//! `migrate status` and `migrate plan`: reads what Pod Identity is made of in each cluster and
//! says where each workload stands. Nothing is written.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, future::join_all, stream};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{super::Connected, Shelf};
use crate::{
    azure::{self, Arm},
    migrate::{
        self, Phase, Survey, Verdict, Waived, matching,
        next::{self, Command},
        survey::{Given, Places},
    },
    model::{
        ArmId, ClusterName, FailureKind, Project, RemoteFailure,
        desired::{Access, DesiredCluster, DesiredState, Feature},
        pod_identity::{AzureIdentityState, Backup, Estate},
    },
};

/// Managed identities read at once.
const AT_ONCE: usize = 8;

/// What a survey is made of.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What the file asks for: clusters, and decisions about workloads.
    pub desired: &'a DesiredState,
    /// Whether the world is the sandbox's.
    pub sandbox: bool,
    /// The wall time.
    pub now: Timestamp,
    /// How long proved pods must have run.
    pub soak: SignedDuration,
    /// What somebody decided against the usual gates.
    pub waived: Waived,
    /// Backups beside those in the clusters.
    pub shelf: &'a dyn Shelf,
}

impl<'a> Request<'a> {
    /// A cluster of the file.
    pub(super) fn cluster(&self, name: &ClusterName) -> Result<&'a DesiredCluster, RemoteFailure> {
        self.desired.clusters.get(name).ok_or_else(|| {
            let tried = format!("connect to cluster {name}");
            RemoteFailure::new(FailureKind::NotReached, tried, "the file does not name it")
        })
    }
}

/// One cluster, read and judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Surveyed {
    /// What was read.
    pub estate: Estate,
    /// What it means.
    pub survey: Survey,
}

/// Every cluster of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Overview {
    /// The project.
    pub project: Project,
    /// Whether the world is the sandbox's.
    pub sandbox: bool,
    /// The wall time by which everything was judged.
    pub now: Timestamp,
    /// The clusters, by name. Those with `access = "none"` are missing.
    pub clusters: Vec<Surveyed>,
}

/// Workloads by what is to be said of them first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All of them.
    pub workloads: usize,
    /// Switched and proved.
    pub moved: usize,
    /// Switched, and not every pod is proved.
    pub not_proved: usize,
    /// Nothing answers them.
    pub broken: usize,
    /// They answer through Pod Identity only, with both labels.
    pub half_done: usize,
    /// Put back, and left alone.
    pub left_alone: usize,
    /// `apply` takes them on.
    pub ready: usize,
    /// Somebody has to decide.
    pub to_decide: usize,
    /// They cannot be migrated as they are.
    pub cannot: usize,
}

impl Overview {
    /// The surveys alone.
    pub fn surveys(&self) -> Vec<Survey> {
        self.clusters.iter().map(|cluster| cluster.survey.clone()).collect()
    }

    /// Whether Pod Identity is nowhere, and everything was seen.
    pub fn is_free(&self) -> bool {
        self.clusters.iter().all(|c| !c.survey.found && c.survey.unseen.is_empty())
    }

    /// What could not be read.
    pub fn unseen(&self) -> impl Iterator<Item = &RemoteFailure> {
        self.clusters.iter().flat_map(|cluster| &cluster.survey.unseen)
    }

    /// What to type next.
    pub fn next(&self) -> Vec<Command> {
        let all: Vec<_> = self.clusters.iter().map(|c| (&c.estate, &c.survey)).collect();
        next::commands(&all, self.now)
    }

    /// The workloads, each counted once.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for workload in self.clusters.iter().flat_map(|cluster| &cluster.survey.workloads) {
            counts.workloads += 1;
            *match (workload.phase, workload.verdict) {
                (Phase::Broken, _) => &mut counts.broken,
                (Phase::HalfDone, _) => &mut counts.half_done,
                (Phase::Switched, _) => &mut counts.not_proved,
                (phase, _) if phase.is_switched() => &mut counts.moved,
                (_, Verdict::LeftAlone) => &mut counts.left_alone,
                (_, Verdict::NeedsDecision) => &mut counts.to_decide,
                (_, Verdict::Cannot) => &mut counts.cannot,
                (_, Verdict::Ready | Verdict::ToMend | Verdict::Switched) => &mut counts.ready,
            } += 1;
        }
        counts
    }

    /// How many workloads have this verdict and are not switched yet.
    pub fn count(&self, verdict: Verdict) -> usize {
        let all = self.clusters.iter().flat_map(|cluster| &cluster.survey.workloads);
        all.filter(|w| w.verdict == verdict && !w.phase.is_switched()).count()
    }

    /// Whether anything waits for an operation on its cluster to end.
    pub fn is_busy(&self) -> bool {
        let waits = |cluster: &Surveyed| {
            let busy = cluster.estate.busy.is_some();
            busy && cluster.survey.workloads.iter().any(|w| !w.phase.is_switched())
        };
        self.clusters.iter().any(waits)
    }

    /// Takes up again what was put back, because somebody named it.
    pub fn take_up(&mut self) {
        let surveys = self.clusters.iter_mut().map(|cluster| &mut cluster.survey);
        surveys.flat_map(|survey| &mut survey.workloads).for_each(migrate::Workload::take_up);
    }

    /// How many workloads are not switched and not ready either.
    pub fn not_ready(&self) -> usize {
        [Verdict::NeedsDecision, Verdict::Cannot].map(|verdict| self.count(verdict)).iter().sum()
    }

    /// Keeps the workloads that `which` chooses, by cluster name and workload.
    pub fn retain(&mut self, which: impl Fn(&str, &migrate::Workload) -> bool) {
        for Surveyed { survey, .. } in &mut self.clusters {
            let cluster = survey.cluster.clone();
            survey.workloads.retain(|workload| which(cluster.as_str(), workload));
        }
    }
}

/// Reads and judges every cluster.
pub async fn overview(request: Request<'_>, connected: &Connected) -> Overview {
    let desired = request.desired;
    let reachable = desired.clusters.values().filter(|c| c.access != Access::None);
    let estates =
        reachable.map(async |cluster| (cluster, estate(request, cluster, connected).await));
    let mut places = Places::new();
    let mut clusters = Vec::new();
    for (cluster, estate) in join_all(estates).await {
        let judged = judge(request, cluster, estate, &places);
        places.clone_from(&judged.survey.places);
        clusters.push(judged);
    }
    let Request { sandbox, now, .. } = request;
    Overview { project: desired.project.clone(), sandbox, now, clusters }
}

/// Reads and judges one cluster anew, of its managed identities only `these`: the others are as they
/// were `before`. One that appeared since was not seen, and its workload stays as it is.
pub(super) async fn surveyed(
    request: Request<'_>,
    cluster: &DesiredCluster,
    connected: &Connected,
    before: &Estate,
    these: BTreeSet<ArmId>,
) -> Surveyed {
    let mut estate = here(request, cluster, connected).await;
    estate.azure.clone_from(&before.azure);
    estate.azure.extend(identities(&connected.arm, these).await);
    judge(request, cluster, estate, &Places::new())
}

/// Reads one cluster, its backups and its managed identities.
async fn estate(request: Request<'_>, cluster: &DesiredCluster, connected: &Connected) -> Estate {
    let mut estate = here(request, cluster, connected).await;
    let named = estate.identities.iter().filter_map(matching::resource_id);
    let backed = estate.backups.iter().map(|backup| ArmId::new(backup.identity.clone()));
    let all = named.chain(backed).collect();
    estate.azure = identities(&connected.arm, all).await;
    estate
}

/// Reads one cluster and its backups.
async fn here(request: Request<'_>, cluster: &DesiredCluster, connected: &Connected) -> Estate {
    let mut estate = read(cluster, connected).await;
    for backup in request.shelf.of(&cluster.name) {
        let same = |b: &Backup| (&b.namespace, &b.account) == (&backup.namespace, &backup.account);
        if !estate.backups.iter().any(same) {
            estate.backups.push(backup);
        }
    }
    estate
}

fn judge(
    request: Request<'_>,
    cluster: &DesiredCluster,
    mut estate: Estate,
    places: &Places,
) -> Surveyed {
    if request.waived.kinds {
        estate.unlooked.clear();
    }
    let here: Vec<_> = request
        .desired
        .workloads
        .iter()
        .filter(|workload| workload.clusters.contains(&cluster.name))
        .cloned()
        .collect();
    let both = [Feature::OidcIssuer, Feature::WorkloadIdentity];
    let survey = migrate::survey(
        &estate,
        Given {
            workloads: &here,
            may_enable: both.iter().all(|feature| cluster.enable.contains(feature)),
            audience: &cluster.audience,
            now: request.now,
            soak: request.soak,
            waived: request.waived,
            places,
        },
    );
    Surveyed { estate, survey }
}

/// The estate of one cluster, with what ARM says of the cluster and the identities.
pub(super) async fn read(cluster: &DesiredCluster, connected: &Connected) -> Estate {
    let name = &cluster.name;
    let record = connected.arm.cluster(&cluster.id);
    // Its state is large: on the heap it is no part of the stack of whoever waits for it.
    let kubernetes = Box::pin(async { Ok(connected.client(name).await?.estate().await) });
    let (record, kubernetes) = futures::join!(record, kubernetes);
    let mut estate =
        kubernetes.unwrap_or_else(|failure| Estate { unseen: vec![failure], ..Estate::default() });
    estate.cluster = name.clone();
    estate.id = Some(cluster.id.clone());
    match record {
        Ok(Some(record)) => {
            estate.issuer = record.issuer;
            // Without the add-on the webhook that was installed by hand does its work.
            estate.workload_identity |= record.workload_identity;
            estate.busy = under_way(record.provisioning_state);
            let profile = record.pod_identity.filter(|profile| profile.enabled);
            estate.add_on = profile.map(|profile| profile.identities);
        }
        Ok(None) => estate.unseen.push(RemoteFailure::new(
            FailureKind::Refused,
            format!("read cluster {name}"),
            "it does not exist in Azure",
        )),
        Err(error) => estate.unseen.push(error.failure(format!("read cluster {name}"))),
    }
    estate
}

/// The state of a cluster, if an operation on it has not ended. One that failed has ended: its
/// pods run, and it takes the next update.
fn under_way(state: String) -> Option<String> {
    (!azure::is_terminal(&state)).then_some(state)
}

async fn identities(arm: &Arm, ids: BTreeSet<ArmId>) -> BTreeMap<ArmId, AzureIdentityState> {
    let each = ids.into_iter().map(|id| async move {
        let state = identity(arm, &id).await;
        (id, state)
    });
    stream::iter(each).buffer_unordered(AT_ONCE).collect().await
}

async fn identity(arm: &Arm, id: &ArmId) -> AzureIdentityState {
    let seen = match arm.identity(id).await {
        Ok(Some(seen)) => seen,
        Ok(None) => return AzureIdentityState::Gone,
        Err(error) => {
            let failure = error.failure(format!("read identity {}", id.name()));
            return AzureIdentityState::Unknown(failure);
        }
    };
    match arm.credentials(id).await {
        Ok(Some(credentials)) => AzureIdentityState::Present(seen, credentials),
        Ok(None) => AzureIdentityState::Gone,
        Err(error) => {
            let tried = format!("list federated credentials of identity {}", id.name());
            AzureIdentityState::Unknown(error.failure(tried))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_failed_is_not_under_way() {
        for state in ["Succeeded", "succeeded", "Failed", "Canceled"] {
            assert_eq!(under_way(state.to_owned()), None, "{state}");
        }
        for state in ["Updating", "Upgrading", "Deleting", "Starting"] {
            assert_eq!(under_way(state.to_owned()).as_deref(), Some(state));
        }
    }
}
