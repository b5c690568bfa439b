//! What is read of Azure, once a subscription.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::Mutex;

use super::SEARCHED;
use crate::{
    azure::{Arm, ArmError},
    diagnose::{Evidence, evidence::Target, resolve},
    model::{
        ArmId, Issuer, RemoteFailure, SubscriptionId,
        snapshot::{
            Assignments, Observation, ObservedCluster, ObservedCredential, ObservedIdentity,
        },
    },
};

type Credentials = Observation<Vec<ObservedCredential>>;

/// Azure's side of every question.
pub(super) struct AzureRead {
    arm: Result<Arm, RemoteFailure>,
    identities: BTreeMap<SubscriptionId, Observation<Vec<ObservedIdentity>>>,
    clusters: Vec<ObservedCluster>,
    assignments: Assignments,
    targets: BTreeMap<ArmId, Observation<Target>>,
    credentials: Mutex<BTreeMap<ArmId, Credentials>>,
}

/// ARM's record of a cluster.
pub(super) async fn cluster(arm: &Arm, id: &ArmId) -> Observation<ObservedCluster> {
    match arm.cluster(id).await {
        Ok(Some(record)) => Observation::Present(record),
        Ok(None) => Observation::Absent,
        Err(error) => Observation::Unknown(error.failure(format!("read cluster {}", id.name()))),
    }
}

fn subscriptions(evidence: &Evidence) -> BTreeSet<SubscriptionId> {
    let of_cluster = evidence.asked.cluster_id.as_ref();
    let of_identity = evidence.wanted.identity.as_ref();
    of_cluster.into_iter().chain(of_identity).filter_map(ArmId::subscription).collect()
}

fn of_grants(evidence: &Evidence) -> BTreeSet<SubscriptionId> {
    match &evidence.wanted.grants {
        Some(grants) => grants.iter().filter_map(|grant| grant.scope.subscription()).collect(),
        None => subscriptions(evidence),
    }
}

/// The vault that a scope is or lies in.
fn vault(scope: &ArmId) -> Option<ArmId> {
    let kind = scope.resource_type()?;
    kind.starts_with("microsoft.keyvault/vaults").then(|| {
        let words: Vec<&str> = scope.as_str().split('/').take(9).collect();
        ArmId::new(words.join("/"))
    })
}

fn answer<T>(result: Result<T, ArmError>, tried: impl Into<String>) -> Observation<T> {
    match result {
        Ok(value) => Observation::Present(value),
        Err(error) => Observation::Unknown(error.failure(tried)),
    }
}

impl AzureRead {
    /// Reads what these questions need.
    pub(super) async fn read(arm: &Result<Arm, RemoteFailure>, all: &[&Evidence]) -> Self {
        let mut read = Self {
            arm: arm.clone(),
            identities: BTreeMap::new(),
            clusters: Vec::new(),
            assignments: Assignments::default(),
            targets: BTreeMap::new(),
            credentials: Mutex::new(BTreeMap::new()),
        };
        let Ok(arm) = arm else { return read };
        let of: BTreeSet<SubscriptionId> = all.iter().flat_map(|e| subscriptions(e)).collect();
        let identities = of.iter().map(|subscription| async move {
            let tried = format!("list identities in subscription {subscription}");
            (*subscription, answer(arm.identities_in(*subscription).await, tried))
        });
        // Other clusters only help to say whose issuer a credential names.
        let clusters = of.iter().map(|subscription| arm.clusters_in(*subscription));
        let scopes: BTreeSet<SubscriptionId> = all.iter().flat_map(|e| of_grants(e)).collect();
        let roles = scopes.iter().map(|subscription| async move {
            let scope = ArmId::of_subscription(*subscription);
            let tried = format!("list role assignments in subscription {subscription}");
            let found = answer(arm.assignments_at(&scope, None).await, tried);
            (scope, found)
        });
        let grants = all.iter().flat_map(|e| e.wanted.grants.iter().flatten());
        let vaults: BTreeSet<ArmId> = grants.filter_map(|grant| vault(&grant.scope)).collect();
        let targets = vaults.into_iter().map(|id| async move {
            let found = match arm.target(&id).await {
                Ok(Some(target)) => {
                    Observation::Present(Target { rbac: target.rbac, policies: Vec::new() })
                }
                Ok(None) => Observation::Absent,
                Err(error) => Observation::Unknown(error.failure(format!("read {}", id.name()))),
            };
            (id, found)
        });
        let (identities, clusters, roles, targets) = futures::join!(
            futures::future::join_all(identities),
            futures::future::join_all(clusters),
            futures::future::join_all(roles),
            futures::future::join_all(targets),
        );
        read.identities = identities.into_iter().collect();
        read.clusters = clusters.into_iter().flatten().flatten().collect();
        for (scope, found) in roles {
            let how = match found {
                Observation::Present(list) => {
                    read.assignments.seen.extend(list);
                    Observation::Present(())
                }
                Observation::Absent => Observation::Absent,
                Observation::Unknown(failure) => Observation::Unknown(failure),
            };
            read.assignments.looked.push((scope, how));
        }
        read.targets = targets.into_iter().collect();
        read
    }

    /// Fills what does not depend on the account.
    pub(super) fn fill(&self, evidence: &mut Evidence) {
        if let Err(failure) = &self.arm {
            evidence.identities = Observation::Unknown(failure.clone());
            return;
        }
        let of = subscriptions(evidence);
        let mut found = Vec::new();
        let mut failed = None;
        for subscription in of {
            match self.identities.get(&subscription) {
                Some(Observation::Present(list)) => found.extend(list.iter().cloned()),
                Some(Observation::Unknown(failure)) => failed = Some(failure.clone()),
                Some(Observation::Absent) | None => {}
            }
        }
        evidence.identities = match failed {
            // What was seen of another subscription is not everything.
            Some(failure) if found.is_empty() => Observation::Unknown(failure),
            _ => Observation::Present(found),
        };
        let own = evidence.asked.cluster_id.as_ref();
        let named = |cluster: &ObservedCluster| -> Option<(String, Issuer)> {
            (Some(&cluster.id) != own).then_some(())?;
            Some((cluster.id.name().to_owned(), cluster.issuer.clone()?))
        };
        evidence.other_issuers = self.clusters.iter().filter_map(named).collect();
        evidence.assignments = self.assignments.clone();
        evidence.targets = self.targets.clone();
    }

    /// Reads credentials of the identity in question, or of `all` that were listed. Whether
    /// anything was added.
    pub(super) async fn credentials(&self, evidence: &mut Evidence, all: bool) -> bool {
        let Ok(arm) = &self.arm else { return false };
        let mut ids: BTreeSet<ArmId> = BTreeSet::new();
        ids.extend(resolve(evidence).identity.map(|identity| identity.id));
        if let Some(wanted) = &evidence.wanted.identity
            && evidence.identity_at(wanted).is_some()
        {
            ids.insert(wanted.clone());
        }
        if all {
            let listed = evidence.identities.present().map_or(&[][..], Vec::as_slice);
            ids.extend(listed.iter().take(SEARCHED).map(|identity| identity.id.clone()));
        }
        let mut added = false;
        for id in ids {
            if evidence.credentials.contains_key(&id) {
                continue;
            }
            let known = self.credentials.lock().await.get(&id).cloned();
            let found = if let Some(found) = known {
                found
            } else {
                let tried = format!("list federated credentials of {}", id.name());
                let found = match arm.credentials(&id).await {
                    Ok(Some(list)) => Observation::Present(list),
                    Ok(None) => Observation::Absent,
                    Err(error) => Observation::Unknown(error.failure(tried)),
                };
                self.credentials.lock().await.insert(id.clone(), found.clone());
                found
            };
            evidence.credentials.insert(id, found);
            added = true;
        }
        added
    }
}
