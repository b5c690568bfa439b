//! Reading identities, federated credentials, roles, targets and cluster records from ARM.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use futures::{future::join_all, stream, stream::StreamExt as _};
use tokio::sync::Semaphore;

use super::need::Need;
use crate::{
    azure::{Arm, ArmError},
    model::{
        ArmId, FailureKind, PrincipalId, RemoteFailure, RoleId, SubscriptionId,
        desired::DesiredState,
        names::PROJECT_TAG,
        snapshot::{
            Observation, ObservedCluster, ObservedCredential, ObservedIdentity, ObservedTarget,
        },
    },
};

/// Requests to ARM at once.
const AT_ONCE: usize = 16;
/// More of a kind in one subscription are listed, not asked for one by one.
const ONE_BY_ONE: usize = 3;
/// Identities that a list may have forgotten; where it lacks more they were never made.
const MOST_MISSING: usize = 50;

/// Asks ARM, a bounded number of questions at once.
pub(super) struct Reader<'a> {
    pub arm: &'a Arm,
    permits: Semaphore,
}

/// What was read of identities.
pub(super) struct Identities {
    pub home: Observation<()>,
    pub seen: BTreeMap<ArmId, Observation<ObservedIdentity>>,
    pub others: Vec<ObservedIdentity>,
}

/// What was read of one resource group's identities.
struct Group {
    exists: Observation<()>,
    seen: BTreeMap<ArmId, Observation<ObservedIdentity>>,
    /// The whole group, as far as it was listed.
    list: Vec<ObservedIdentity>,
}

impl Identities {
    /// The principals of a set of identities, as far as these exist.
    pub(super) fn principals<'a>(
        &self,
        of: impl IntoIterator<Item = &'a ArmId>,
    ) -> BTreeSet<PrincipalId> {
        let present = of.into_iter().filter_map(|id| self.seen.get(id)?.present());
        present.map(|identity| identity.principal_id).collect()
    }
}

/// Present or absent, as an `Option` says.
fn found<T>(answer: Result<Option<T>, RemoteFailure>) -> Observation<T> {
    match answer {
        Ok(Some(value)) => Observation::Present(value),
        Ok(None) => Observation::Absent,
        Err(failure) => Observation::Unknown(failure),
    }
}

/// Whether a list that failed is worth asking for one by one: who may not list may still read, and
/// not every resource provider has the list. Without an answer or a credential it is not.
fn worth_single_reads(failure: &RemoteFailure) -> bool {
    matches!(failure.kind, FailureKind::Denied | FailureKind::Refused)
}

impl<'a> Reader<'a> {
    pub(super) fn new(arm: &'a Arm) -> Self {
        Self { arm, permits: Semaphore::new(AT_ONCE) }
    }

    /// Waits for its turn, asks, and turns an error into data.
    pub(super) async fn ask<T>(
        &self,
        tried: impl Display,
        request: impl Future<Output = Result<T, ArmError>>,
    ) -> Result<T, RemoteFailure> {
        let _turn = self.permits.acquire().await;
        request.await.map_err(|error| error.failure(tried.to_string()))
    }

    /// Identities of the home group by one list, external ones by a list per group where there are
    /// several, otherwise one by one.
    pub(super) async fn identities(&self, desired: &DesiredState, need: &Need) -> Identities {
        let home = &desired.home;
        let group_of = |id: &ArmId| {
            let group = id.resource_group().unwrap_or_default().to_lowercase();
            id.subscription().map(|subscription| (subscription, group))
        };
        let home_key = Some((home.subscription, home.resource_group.to_lowercase()));
        let mut elsewhere: BTreeMap<_, Vec<ArmId>> = BTreeMap::new();
        let mut at_home = Vec::new();
        for id in desired.identities.keys() {
            let group = group_of(id);
            if group == home_key {
                at_home.push(id.clone());
            } else if need.identities.contains(id) {
                elsewhere.entry(group).or_default().push(id.clone());
            }
        }
        let others = elsewhere.into_iter().map(|(group, ids)| async move {
            match group {
                Some((subscription, name)) if ids.len() > 1 => {
                    self.group(subscription, &name, ids, need).await.seen
                }
                _ => self.each_identity(ids).await,
            }
        });
        let at_home = self.group(home.subscription, &home.resource_group, at_home, need);
        let (at_home, others) = futures::join!(at_home, join_all(others));
        let Group { exists, mut seen, list } = at_home;
        seen.extend(others.into_iter().flatten());
        let home = if exists.failure().is_some_and(worth_single_reads) {
            // Who may not list identities may still see the group.
            let ask = self.arm.resource_group_exists(home.subscription, &home.resource_group);
            let tried = format!("read resource group {}", home.resource_group);
            found(self.ask(tried, ask).await.map(|there| there.then_some(())))
        } else {
            exists
        };
        let ours = |identity: &ObservedIdentity| {
            identity.tags.get(PROJECT_TAG).map(String::as_str) == Some(desired.project.as_str())
                && !desired.identities.contains_key(&identity.id)
        };
        Identities { home, seen, others: list.into_iter().filter(ours).collect() }
    }

    /// The identities `ids` of one group by its list; where that fails for want of a right, those
    /// of chosen workloads one by one.
    async fn group(
        &self,
        subscription: SubscriptionId,
        group: &str,
        ids: Vec<ArmId>,
        need: &Need,
    ) -> Group {
        let request = self.arm.identities_in_group(subscription, group);
        match self.ask(format!("list identities of resource group {group}"), request).await {
            Ok(Some(list)) => {
                let (mut seen, missing) = sorted(ids, &list);
                seen.extend(self.each_identity(missing).await);
                Group { exists: Observation::Present(()), seen, list }
            }
            Ok(None) => {
                let seen = ids.into_iter().map(|id| (id, Observation::Absent)).collect();
                Group { exists: Observation::Absent, seen, list: Vec::new() }
            }
            Err(failure) => {
                let seen = if worth_single_reads(&failure) {
                    let needed = ids.into_iter().filter(|id| need.identities.contains(id));
                    self.each_identity(needed.collect()).await
                } else {
                    let unknown = |id| (id, Observation::Unknown(failure.clone()));
                    ids.into_iter().map(unknown).collect()
                };
                Group { exists: Observation::Unknown(failure), seen, list: Vec::new() }
            }
        }
    }

    async fn each_identity(
        &self,
        ids: Vec<ArmId>,
    ) -> BTreeMap<ArmId, Observation<ObservedIdentity>> {
        let each = ids.into_iter().map(|id| async move {
            let tried = format!("read identity {}", id.name());
            let seen = found(self.ask(tried, self.arm.identity(&id)).await);
            (id, seen)
        });
        join_all(each).await.into_iter().collect()
    }

    /// Federated credentials of the identities of chosen workloads and of all that bear our mark,
    /// as far as they exist.
    pub(super) async fn credentials(
        &self,
        desired: &DesiredState,
        need: &Need,
        identities: &Identities,
    ) -> BTreeMap<ArmId, Observation<Vec<ObservedCredential>>> {
        let project = desired.project.as_str();
        let named = identities.seen.iter().filter_map(|(id, seen)| {
            let tag = seen.present()?.tags.get(PROJECT_TAG).map(String::as_str);
            (need.identities.contains(id) || tag == Some(project)).then_some(id)
        });
        let all = named.chain(identities.others.iter().map(|identity| &identity.id));
        let each = all.map(|id| async move {
            let tried = format!("list federated credentials of identity {}", id.name());
            let seen = found(self.ask(tried, self.arm.credentials(id)).await);
            (id.clone(), seen)
        });
        // A hundred identities are usual: begin only as many as may run.
        stream::iter(each).buffer_unordered(AT_ONCE).collect().await
    }

    /// Custom roles, by lower-cased name.
    pub(super) async fn roles(&self, need: &Need) -> BTreeMap<String, Observation<Vec<RoleId>>> {
        let asked = need.roles.iter().flat_map(|(name, scopes)| {
            scopes.values().map(move |scope| async move {
                let tried = format!("look up role `{name}` at {scope}");
                let found = self.ask(tried, self.arm.role_definitions(scope, name)).await;
                (name.to_lowercase(), found)
            })
        });
        let mut roles = BTreeMap::new();
        for (name, answer) in join_all(asked).await {
            let entry = roles.entry(name).or_insert_with(|| Observation::Present(Vec::new()));
            match (answer, &mut *entry) {
                (Ok(ids), Observation::Present(known)) => {
                    known.extend(ids);
                    known.sort();
                    known.dedup();
                }
                (Err(failure), _) => *entry = Observation::Unknown(failure),
                (Ok(_), _) => {}
            }
        }
        roles
    }

    /// Vaults among the scopes; a scope inside a vault shows the vault's settings.
    pub(super) async fn targets(
        &self,
        need: &Need,
    ) -> BTreeMap<ArmId, Observation<ObservedTarget>> {
        let read = |id: ArmId| async move {
            let tried = format!("read vault {}", id.name());
            let seen = found(self.ask(tried, self.arm.target(&id)).await);
            (id, seen)
        };
        let list = |subscription| async move {
            let tried = format!("list vaults of subscription {subscription}");
            self.ask(tried, self.arm.targets_in(subscription)).await
        };
        let seen = by_subscription(need.vaults.keys().cloned(), list, read).await;
        let mut targets = BTreeMap::new();
        for (vault, seen) in seen {
            for scope in need.vaults.get(&vault).into_iter().flatten() {
                targets.insert(scope.clone(), seen.clone());
            }
            targets.insert(vault, seen);
        }
        targets
    }

    /// Cluster records, by id.
    pub(super) async fn clusters(
        &self,
        ids: impl Iterator<Item = ArmId>,
    ) -> BTreeMap<ArmId, Observation<ObservedCluster>> {
        let read = |id: ArmId| async move {
            let tried = format!("read cluster {}", id.name());
            let seen = found(self.ask(tried, self.arm.cluster(&id)).await);
            (id, seen)
        };
        let list = |subscription| async move {
            let tried = format!("list clusters of subscription {subscription}");
            let list = self.ask(tried, self.arm.clusters_in(subscription)).await?;
            Ok(list.into_iter().map(|cluster| (cluster.id.clone(), cluster)).collect())
        };
        by_subscription(ids, list, read).await
    }
}

/// Sorts the wanted identities out of a whole group's list; the second part is what it does not
/// show. A list may lag behind, so that only ARM's own 404 proves absence: that is asked for one by
/// one, unless it is a whole new estate, which no list forgets.
fn sorted(
    ids: Vec<ArmId>,
    list: &[ObservedIdentity],
) -> (BTreeMap<ArmId, Observation<ObservedIdentity>>, Vec<ArmId>) {
    let by_id: BTreeMap<&ArmId, &ObservedIdentity> = list.iter().map(|i| (&i.id, i)).collect();
    let mut seen = BTreeMap::new();
    let mut missing = Vec::new();
    for id in ids {
        match by_id.get(&id) {
            Some(identity) => {
                seen.insert(id, Observation::Present((*identity).clone()));
            }
            None => missing.push(id),
        }
    }
    if missing.len() > MOST_MISSING {
        seen.extend(missing.drain(..).map(|id| (id, Observation::Absent)));
    }
    (seen, missing)
}

/// Reads resources one by one where a subscription holds few of them, by its list where it holds
/// many. What a list does not show is asked for by id: only ARM's own 404 proves absence.
async fn by_subscription<T, L, LF, R, RF>(
    ids: impl Iterator<Item = ArmId>,
    list: L,
    read: R,
) -> BTreeMap<ArmId, Observation<T>>
where
    L: Fn(SubscriptionId) -> LF,
    LF: Future<Output = Result<BTreeMap<ArmId, T>, RemoteFailure>>,
    R: Fn(ArmId) -> RF,
    RF: Future<Output = (ArmId, Observation<T>)>,
{
    let mut groups: BTreeMap<Option<SubscriptionId>, Vec<ArmId>> = BTreeMap::new();
    for id in ids {
        groups.entry(id.subscription()).or_default().push(id);
    }
    let (list, read) = (&list, &read);
    let each = groups.into_iter().map(|(subscription, ids)| async move {
        let mut seen = BTreeMap::new();
        let mut single = ids;
        if let Some(subscription) = subscription
            && single.len() > ONE_BY_ONE
        {
            match list(subscription).await {
                Ok(mut listed) => single.retain(|id| match listed.remove(id) {
                    Some(value) => seen.insert(id.clone(), Observation::Present(value)).is_some(),
                    None => true,
                }),
                Err(failure) if worth_single_reads(&failure) => {}
                Err(failure) => {
                    let unknown = |id| (id, Observation::Unknown(failure.clone()));
                    return single.into_iter().map(unknown).collect();
                }
            }
        }
        seen.extend(join_all(single.into_iter().map(read)).await);
        seen
    });
    join_all(each).await.into_iter().flatten().collect()
}
