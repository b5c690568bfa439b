//! What is read of Azure, once a subscription.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::{Mutex, OnceCell};

use super::SEARCHED;
use crate::{
    azure::{Arm, ArmError},
    diagnose::{Evidence, evidence::Grant, resolve},
    model::{
        ArmId, FailureKind, Issuer, RemoteFailure, RoleId, SubscriptionId,
        snapshot::{
            Assignments, Observation, ObservedCluster, ObservedCredential, ObservedIdentity,
            ObservedTarget,
        },
    },
};

type Credentials = Observation<Vec<ObservedCredential>>;
type Identities = Observation<Vec<ObservedIdentity>>;

/// A client id that is of no identity near the cluster is looked for in at most so many other
/// subscriptions.
const ELSEWHERE: usize = 20;
/// From so many vaults of one subscription on they are listed.
const LISTED: usize = 4;

/// Azure's side of every question.
pub(super) struct AzureRead {
    arm: Result<Arm, RemoteFailure>,
    identities: BTreeMap<SubscriptionId, Identities>,
    assignments: Arc<Assignments>,
    targets: Arc<BTreeMap<ArmId, Observation<ObservedTarget>>>,
    /// The subscriptions of all questions.
    near: BTreeSet<SubscriptionId>,
    /// Clusters of every subscription that can be listed, and a list that failed.
    clusters: OnceCell<(Vec<ObservedCluster>, Option<RemoteFailure>)>,
    elsewhere: OnceCell<Vec<ObservedIdentity>>,
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

/// Vaults of one subscription: one by one, or by its list where there are many.
async fn targets(
    arm: &Arm,
    subscription: Option<SubscriptionId>,
    mut ids: BTreeSet<ArmId>,
) -> Vec<(ArmId, Observation<ObservedTarget>)> {
    let mut found = Vec::new();
    if let Some(subscription) = subscription.filter(|_| ids.len() >= LISTED)
        && let Ok(mut listed) = arm.targets_in(subscription).await
    {
        ids.retain(|id| match listed.remove(id) {
            Some(target) => {
                found.push((id.clone(), Observation::Present(target)));
                false
            }
            // Only the vault's own 404 proves that it is not there.
            None => true,
        });
    }
    let each = ids.into_iter().map(|id| async move {
        let seen = match arm.target(&id).await {
            Ok(Some(target)) => Observation::Present(target),
            Ok(None) => Observation::Absent,
            Err(error) => Observation::Unknown(error.failure(format!("read {}", id.name()))),
        };
        (id, seen)
    });
    found.extend(futures::future::join_all(each).await);
    found
}

fn add(identities: &mut Identities, identity: ObservedIdentity) {
    match identities {
        Observation::Present(list) => list.push(identity),
        unseen @ (Observation::Absent | Observation::Unknown(_)) => {
            *unseen = Observation::Present(vec![identity]);
        }
    }
}

/// Finds the definitions of roles that are wanted by a name that is no built-in role's.
pub(super) async fn name_roles(
    arm: &Result<Arm, RemoteFailure>,
    grants: impl Iterator<Item = &mut Grant>,
) {
    let mut known: BTreeMap<(ArmId, String), Result<Option<RoleId>, RemoteFailure>> =
        BTreeMap::new();
    for grant in grants.filter(|grant| grant.role.is_none() && !grant.name.is_empty()) {
        let key = (grant.scope.clone(), grant.name.clone());
        if !known.contains_key(&key) {
            let found = match arm {
                Ok(arm) => match arm.role_definitions(&grant.scope, &grant.name).await {
                    // Two custom roles of one name are not told apart by it.
                    Ok(all) => Ok(all.first().copied().filter(|_| all.len() == 1)),
                    Err(error) => Err(error.failure(format!("look up role {}", grant.name))),
                },
                Err(failure) => Err(failure.clone()),
            };
            known.insert(key.clone(), found);
        }
        match known.get(&key) {
            Some(Ok(role)) => grant.role = *role,
            Some(Err(failure)) => grant.unresolved = Some(failure.clone()),
            None => {}
        }
    }
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
            assignments: Arc::default(),
            targets: Arc::default(),
            near: all.iter().flat_map(|e| subscriptions(e)).collect(),
            clusters: OnceCell::new(),
            elsewhere: OnceCell::new(),
            credentials: Mutex::new(BTreeMap::new()),
        };
        let Ok(arm) = arm else { return read };
        let identities = read.near.iter().map(|subscription| async move {
            let tried = format!("list identities in subscription {subscription}");
            (*subscription, answer(arm.identities_in(*subscription).await, tried))
        });
        let scopes: BTreeSet<SubscriptionId> = all.iter().flat_map(|e| of_grants(e)).collect();
        let roles = scopes.iter().map(|subscription| async move {
            let scope = ArmId::of_subscription(*subscription);
            let tried = format!("list role assignments in subscription {subscription}");
            let found = answer(arm.assignments_at(&scope, None).await, tried);
            (scope, found)
        });
        let grants = all.iter().flat_map(|e| e.wanted.grants.iter().flatten());
        let mut vaults: BTreeMap<Option<SubscriptionId>, BTreeSet<ArmId>> = BTreeMap::new();
        for id in grants.filter_map(|grant| vault(&grant.scope)) {
            vaults.entry(id.subscription()).or_default().insert(id);
        }
        let targets = vaults.into_iter().map(|(subscription, ids)| targets(arm, subscription, ids));
        let (identities, roles, targets) = futures::join!(
            futures::future::join_all(identities),
            futures::future::join_all(roles),
            futures::future::join_all(targets),
        );
        read.identities = identities.into_iter().collect();
        let mut assignments = Assignments::default();
        for (scope, found) in roles {
            let how = match found {
                Observation::Present(list) => {
                    assignments.seen.extend(list);
                    Observation::Present(())
                }
                Observation::Absent => Observation::Absent,
                Observation::Unknown(failure) => Observation::Unknown(failure),
            };
            assignments.looked.push((scope, how));
        }
        read.assignments = Arc::new(assignments);
        read.targets = Arc::new(targets.into_iter().flatten().collect());
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
        evidence.identities = match &failed {
            Some(failure) if found.is_empty() => Observation::Unknown(failure.clone()),
            _ => Observation::Present(found),
        };
        // What was seen of another subscription is not everything.
        evidence.identities_unseen = failed;
        evidence.assignments = Arc::clone(&self.assignments);
        evidence.targets = Arc::clone(&self.targets);
    }

    /// Reads the identity that is wanted by itself where a list failed that it could be in.
    pub(super) async fn wanted_identity(&self, evidence: &mut Evidence) {
        let (Ok(arm), Some(id)) = (&self.arm, evidence.wanted.identity.clone()) else { return };
        if evidence.identities_unseen.is_none() || evidence.identity_at(&id).is_some() {
            return;
        }
        match arm.identity(&id).await {
            Ok(Some(identity)) => add(&mut evidence.identities, identity),
            // Its own 404: then no list could have held it.
            Ok(None) => {
                evidence.identities_unseen = None;
                if evidence.identities.present().is_none() {
                    evidence.identities = Observation::Present(Vec::new());
                }
            }
            Err(error) => {
                evidence.identities_unseen = Some(error.failure(format!("read identity {id}")));
            }
        }
    }

    /// Looks in every other subscription for an identity whose client id the account names and
    /// that none near the cluster has: platform teams keep identities apart.
    pub(super) async fn find_identity(&self, evidence: &mut Evidence) {
        let (Ok(arm), resolved) = (&self.arm, resolve(evidence)) else { return };
        let Some(client) = resolved.client.filter(|_| resolved.identity.is_none()) else { return };
        let search = async || {
            // Nobody says where to look: what may not be read is not missed.
            let all = arm.subscriptions().await.unwrap_or_default();
            let others = all.into_iter().filter(|id| !self.near.contains(id)).take(ELSEWHERE);
            let lists = others.map(|id| async move { arm.identities_in(id).await });
            let found = futures::future::join_all(lists).await;
            found.into_iter().flatten().flatten().collect()
        };
        let found = self.elsewhere.get_or_init(search).await;
        let Some(identity) = found.iter().find(|identity| identity.client_id == client) else {
            return;
        };
        add(&mut evidence.identities, identity.clone());
    }

    /// Reads the assignments of the principal alone at each scope of a grant where the list of the
    /// subscription is denied.
    pub(super) async fn assignments(&self, evidence: &mut Evidence) {
        let (Ok(arm), Some(identity)) = (&self.arm, resolve(evidence).identity) else { return };
        let denied = |scope: &ArmId| {
            let mut above =
                evidence.assignments.looked.iter().filter(|(at, _)| scope.is_within(at));
            above.all(|(_, how)| how.failure().is_some_and(|f| f.kind == FailureKind::Denied))
        };
        let grants = evidence.wanted.grants.iter().flatten();
        let scopes: BTreeSet<ArmId> =
            grants.map(|grant| grant.scope.clone()).filter(denied).collect();
        for scope in scopes {
            let tried = format!("list role assignments at {scope}");
            let list = arm.assignments_at(&scope, Some(identity.principal_id)).await;
            let assignments = Arc::make_mut(&mut evidence.assignments);
            let how = answer(list, tried).map(|list| assignments.seen.extend(list));
            assignments.looked.push((scope, how));
        }
    }

    /// Reads whose issuers other clusters have, which only helps to say whose a credential names.
    pub(super) async fn other_clusters(&self, evidence: &mut Evidence) {
        let Ok(arm) = &self.arm else { return };
        let read = async || {
            let (mut found, mut failed) = (Vec::new(), None);
            let mut places = self.near.clone();
            match arm.subscriptions().await {
                Ok(all) => {
                    let others = all.into_iter().filter(|id| !self.near.contains(id));
                    places.extend(others.take(ELSEWHERE));
                }
                Err(error) => failed = Some(error.failure("list subscriptions")),
            }
            let lists = places.iter().map(|id| async move {
                let tried = format!("list clusters in subscription {id}");
                arm.clusters_in(*id).await.map_err(|error| error.failure(tried))
            });
            for list in futures::future::join_all(lists).await {
                match list {
                    Ok(list) => found.extend(list),
                    Err(failure) => failed = Some(failure),
                }
            }
            (found, failed)
        };
        let own = evidence.asked.cluster_id.as_ref();
        let named = |cluster: &ObservedCluster| -> Option<(String, Issuer)> {
            (Some(&cluster.id) != own).then_some(())?;
            Some((cluster.id.name().to_owned(), cluster.issuer.clone()?))
        };
        let (clusters, failed) = self.clusters.get_or_init(read).await;
        evidence.clusters_unseen.clone_from(failed);
        evidence.other_issuers = clusters.iter().filter_map(named).collect();
    }

    /// Reads credentials of the identity in question, or of `all` that were listed.
    pub(super) async fn credentials(&self, evidence: &mut Evidence, all: bool) {
        let Ok(arm) = &self.arm else { return };
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
        }
    }
}
