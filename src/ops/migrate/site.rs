//! What an uninstallation reads of each cluster before it decides: the installation, what Azure
//! holds of it, and whether the API server is the cluster at all.

use futures::{StreamExt as _, stream};

use super::{super::Connected, Overview, Surveyed};
use crate::{
    azure::Arm,
    migrate::uninstall::{self, Given, Uninstall, Wishes, asked_for},
    model::{
        AccountName, ArmId, ClusterName, FailureKind, Namespace, PrincipalId, RemoteFailure,
        desired::DesiredState,
        footprint::{AzureSide, Footprint},
        names::SHORTEST_TOKEN,
        snapshot::ObservedAssignment,
    },
    prove::TokenSource,
};

/// Lists of role assignments read at once.
const AT_ONCE: usize = 4;

/// One cluster with everything that decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Site<'a> {
    /// Its estate and survey.
    pub read: &'a Surveyed,
    /// Its ARM id.
    pub id: ArmId,
    /// What its installation consists of.
    pub footprint: Footprint,
    /// What Azure holds.
    pub azure: AzureSide,
}

impl Site<'_> {
    /// What would be done.
    pub fn decide(&self, wishes: Wishes) -> Uninstall {
        uninstall::decide(Given {
            estate: &self.read.estate,
            survey: &self.read.survey,
            footprint: &self.footprint,
            azure: &self.azure,
            wishes,
        })
    }
}

/// Reads the installation in each cluster of the overview, which are all of the file: what those
/// that are not chosen share with the others stays. The chosen ones are given back.
pub async fn sites<'a>(
    desired: &DesiredState,
    overview: &'a Overview,
    connected: &Connected,
    chosen: impl Fn(&ClusterName) -> bool,
) -> Vec<Site<'a>> {
    let mut sites = Vec::new();
    for read in &overview.clusters {
        let name = &read.survey.cluster;
        let Some(cluster) = desired.clusters.get(name) else { continue };
        let footprint = async {
            match connected.client(name).await {
                Ok(client) => client.footprint().await,
                // The same failure is among what the estate lacks.
                Err(failure) => Footprint { unseen: vec![failure], ..Footprint::default() },
            }
        };
        let azure = side(&connected.arm, &cluster.id, read);
        let (footprint, azure) = futures::join!(footprint, azure);
        sites.push(Site { read, id: cluster.id.clone(), footprint, azure });
    }
    elsewhere(&mut sites);
    sites.retain(|site| chosen(&site.read.survey.cluster));
    sites
}

/// Says of each cluster which of its principals act for another one, too, that has Pod Identity.
fn elsewhere(sites: &mut [Site<'_>]) {
    // A survey also finds backups, which outlive Pod Identity.
    let has = |site: &Site<'_>| {
        let (estate, footprint) = (&site.read.estate, &site.footprint);
        estate.installed
            || estate.add_on.is_some()
            || !footprint.components.is_empty()
            || !footprint.definitions.is_empty()
            || !footprint.unseen.is_empty()
            || !estate.unseen.is_empty()
    };
    let all: Vec<(ClusterName, bool, Vec<PrincipalId>)> = sites
        .iter()
        .map(|site| {
            let principals = site.azure.principals.keys().copied().collect();
            (site.read.survey.cluster.clone(), has(site), principals)
        })
        .collect();
    for site in sites {
        let name = &site.read.survey.cluster;
        let others = all.iter().filter(|(other, has, _)| *has && other != name);
        let pairs = others.flat_map(|(other, _, theirs)| theirs.iter().map(move |p| (*p, other)));
        let own = &site.azure.principals;
        let shared = pairs.filter(|(principal, _)| own.contains_key(principal));
        site.azure.elsewhere =
            shared.map(|(principal, other)| (principal, other.clone())).collect();
    }
}

async fn side(arm: &Arm, id: &ArmId, read: &Surveyed) -> AzureSide {
    let mut side = match arm.cluster_side(id).await {
        // Without the record the estate is incomplete, too, and nothing is done.
        Ok(side) => side.unwrap_or_default(),
        Err(error) => {
            let failure = error.failure(format!("read cluster {}", id.name()));
            return AzureSide { unseen: vec![failure], ..AzureSide::default() };
        }
    };
    if let Some(group) = &side.node_group {
        match arm.scale_sets(group).await {
            Ok(sets) => side.scale_sets = sets,
            // The group of the nodes is often closed to others: then there is only less to list.
            Err(error) => {
                let tried = format!("list the scale sets of {}", group.name());
                side.unseen.push(error.failure(tried));
            }
        }
    }
    let identities = read.estate.azure.keys().filter_map(ArmId::subscription);
    let mut subscriptions: Vec<_> = id.subscription().into_iter().chain(identities).collect();
    subscriptions.sort_unstable();
    subscriptions.dedup();
    let pairs = subscriptions.iter().flat_map(|subscription| {
        let scope = ArmId::of_subscription(*subscription);
        side.principals.keys().map(move |principal| (scope.clone(), *principal))
    });
    let lists = pairs.map(|(scope, principal)| assignments(arm, scope, principal));
    let lists: Vec<_> = stream::iter(lists).buffer_unordered(AT_ONCE).collect().await;
    for list in lists {
        match list {
            Ok(list) => side.assignments.extend(list),
            Err(failure) => side.unseen.push(failure),
        }
    }
    side.assignments.sort_by(|a, b| a.id.cmp(&b.id));
    side.assignments.dedup_by(|a, b| a.id == b.id);
    side.unseen.sort();
    side
}

async fn assignments(
    arm: &Arm,
    scope: ArmId,
    principal: PrincipalId,
) -> Result<Vec<ObservedAssignment>, RemoteFailure> {
    let mut list = arm.assignments_at(&scope, Some(principal)).await.map_err(|error| {
        error.failure(format!("list role assignments of principal {principal} at {scope}"))
    })?;
    list.retain(|assignment| {
        assignment.principal_id == principal && asked_for().any(|role| role == assignment.role)
    });
    Ok(list)
}

/// A cluster that neither its host nor its discovery document tells apart is told by the issuer of
/// a token for one of its accounts, as before anything else is written to a cluster. Asking for
/// one is impersonation: only who is about to write asks.
pub async fn confirm(sites: &mut [Site<'_>], desired: &DesiredState, connected: &Connected) {
    for site in sites {
        let Surveyed { estate, survey } = site.read;
        let Some(cluster) = desired.clusters.get(&survey.cluster) else { continue };
        if !uninstall::needs_token(estate, &site.footprint, &site.azure) {
            continue;
        }
        // Whoever may migrate may ask for the tokens of workloads, perhaps for no others.
        let workloads = survey.workloads.iter().map(|w| (&w.namespace, &w.account));
        let all = estate.accounts.iter().map(|account| (&account.namespace, &account.name));
        let exists = |at: &(&Namespace, &AccountName)| {
            estate.accounts.iter().any(|a| (&a.namespace, &a.name) == *at)
        };
        let issuer = async {
            let client = connected.client(&survey.cluster).await?;
            let Some((namespace, account)) = workloads.chain(all).find(exists) else {
                return Err(RemoteFailure::new(
                    FailureKind::NotReached,
                    "request a token of a service account",
                    "no account could be read",
                ));
            };
            let token =
                TokenSource::token(&client, namespace, account, &cluster.audience, SHORTEST_TOKEN)
                    .await?;
            Ok(token.iss)
        };
        match issuer.await {
            Ok(issuer) => site.footprint.token_issuer = Some(issuer),
            Err(failure) => site.footprint.no_token = Some(failure),
        }
    }
}
