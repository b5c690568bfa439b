//! `audit`: reads identities, credentials, role assignments and clusters together.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use serde_json::Value;

use super::{
    Connected,
    doctor::{cluster_facts, kubectl},
};
pub use crate::diagnose::audit::Severity;
use crate::{
    azure::{Arm, ArmError},
    diagnose::{
        Kubectl,
        audit::{
            self, Audit, AuditCluster, AuditIdentity, Estate, KubernetesFacts, PodIdentityObject,
        },
        evidence::{ProviderClass, not_asked},
    },
    kubernetes::{Client, KubeError},
    model::{
        ArmId, Issuer, Namespace, PrincipalId, RemoteFailure, SubscriptionId,
        desired::DesiredState,
        pod_identity::Named,
        snapshot::{Assignments, Observation, ObservedCluster, ObservedTarget},
    },
};

/// Identities whose credentials are listed at once.
const AT_ONCE: usize = 4;

/// Audits what the file's subscriptions and clusters hold.
pub async fn audit(connected: &Connected, desired: &DesiredState) -> Audit {
    let arm = &connected.arm;
    let mut subscriptions = BTreeSet::from([desired.home.subscription]);
    subscriptions.extend(desired.clusters.values().filter_map(|c| c.id.subscription()));
    let mut scopes = subscriptions.clone();
    scopes.extend(desired.assignments.iter().filter_map(|grant| grant.scope.subscription()));

    let mut unseen = Vec::new();
    let (identities, clusters, assignments) = futures::join!(
        identities(arm, &subscriptions),
        clusters(arm, &subscriptions),
        assignments(arm, &scopes),
    );
    let (identities, failed) = identities;
    let all_identities = failed.is_empty();
    unseen.extend(failed);
    let (records, failed) = clusters;
    let all_clusters = failed.is_empty();
    unseen.extend(failed);
    let (assignments, counted) = assignments;
    let (other_principals, other_issuers, failed) = elsewhere(arm, &subscriptions).await;
    let all_identities = all_identities && failed.is_empty();
    let all_clusters = all_clusters && failed.is_empty();
    unseen.extend(failed);
    let (vaults, failed) = vaults(arm, &assignments).await;
    unseen.extend(failed);
    let clusters = Box::pin(joined(connected, desired, records, &mut unseen)).await;
    let estate = Estate {
        project: Some(desired.project.clone()),
        clusters,
        other_issuers,
        all_clusters,
        identities,
        assignments,
        other_principals,
        all_identities,
        wanted: desired.identities.keys().cloned().collect(),
        targets: desired.assignments.iter().map(|grant| grant.scope.clone()).collect(),
        vaults,
        counted,
    };
    let mut found = audit::audit(&estate);
    found.unseen.extend(unseen);
    found
}

async fn identities(
    arm: &Arm,
    subscriptions: &BTreeSet<SubscriptionId>,
) -> (Vec<AuditIdentity>, Vec<String>) {
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for subscription in subscriptions {
        match arm.identities_in(*subscription).await {
            Ok(list) => found.extend(list),
            Err(error) => {
                let tried = format!("list identities in subscription {subscription}");
                failed.push(error.failure(tried).to_string());
            }
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    let read = found.into_iter().map(|identity| async move {
        let credentials = match arm.credentials(&identity.id).await {
            Ok(Some(list)) => Observation::Present(list),
            Ok(None) => Observation::Absent,
            Err(error) => Observation::Unknown(error.failure("list federated credentials")),
        };
        AuditIdentity { identity, credentials }
    });
    (stream::iter(read).buffered(AT_ONCE).collect().await, failed)
}

/// Principals of the identities and issuers of the clusters in every other subscription that can be
/// read: an assignment or a credential that the file's own do not explain may be of one of these.
async fn elsewhere(
    arm: &Arm,
    near: &BTreeSet<SubscriptionId>,
) -> (BTreeSet<PrincipalId>, BTreeSet<Issuer>, Vec<String>) {
    let (mut principals, mut issuers) = (BTreeSet::new(), BTreeSet::new());
    let all = match arm.subscriptions().await {
        Ok(all) => all,
        Err(error) => {
            let failed = vec![error.failure("list subscriptions").to_string()];
            return (principals, issuers, failed);
        }
    };
    let others = all.into_iter().filter(|id| !near.contains(id)).map(|id| async move {
        let words = |kind: &str| format!("list {kind} in subscription {id}");
        let (identities, clusters) = futures::join!(arm.identities_in(id), arm.clusters_in(id));
        (
            identities.map_err(|error| error.failure(words("identities")).to_string()),
            clusters.map_err(|error| error.failure(words("clusters")).to_string()),
        )
    });
    let mut failed = Vec::new();
    let lists: Vec<_> = stream::iter(others).buffered(AT_ONCE).collect().await;
    for (identities, clusters) in lists {
        match identities {
            Ok(list) => principals.extend(list.iter().map(|identity| identity.principal_id)),
            Err(why) => failed.push(why),
        }
        match clusters {
            Ok(list) => issuers.extend(list.into_iter().filter_map(|cluster| cluster.issuer)),
            Err(why) => failed.push(why),
        }
    }
    (principals, issuers, failed)
}

/// The Key Vaults that the assignments are on.
async fn vaults(
    arm: &Arm,
    assignments: &Assignments,
) -> (BTreeMap<ArmId, ObservedTarget>, Vec<String>) {
    let on_vaults = assignments.seen.iter().filter(|held| {
        held.scope.resource_type().is_some_and(|kind| kind.starts_with("microsoft.keyvault/vaults"))
    });
    let subscriptions: BTreeSet<SubscriptionId> =
        on_vaults.filter_map(|held| held.scope.subscription()).collect();
    let (mut found, mut failed) = (BTreeMap::new(), Vec::new());
    for subscription in subscriptions {
        match arm.targets_in(subscription).await {
            Ok(vaults) => found.extend(vaults),
            Err(error) => {
                let tried = format!("list vaults in subscription {subscription}");
                failed.push(error.failure(tried).to_string());
            }
        }
    }
    (found, failed)
}

async fn clusters(
    arm: &Arm,
    subscriptions: &BTreeSet<SubscriptionId>,
) -> (Vec<ObservedCluster>, Vec<String>) {
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for subscription in subscriptions {
        match arm.clusters_in(*subscription).await {
            Ok(list) => found.extend(list),
            Err(error) => {
                let tried = format!("list clusters in subscription {subscription}");
                failed.push(error.failure(tried).to_string());
            }
        }
    }
    (found, failed)
}

async fn assignments(
    arm: &Arm,
    subscriptions: &BTreeSet<SubscriptionId>,
) -> (Assignments, BTreeMap<SubscriptionId, u32>) {
    let (mut read, mut counted) = (Assignments::default(), BTreeMap::new());
    for subscription in subscriptions {
        let scope = ArmId::of_subscription(*subscription);
        let answer: Result<_, ArmError> = arm.assignments_at(&scope, None).await;
        let how = match answer {
            Ok(list) => {
                let own = list.iter().filter(|held| held.scope.is_within(&scope)).count();
                counted.insert(*subscription, u32::try_from(own).unwrap_or(u32::MAX));
                read.seen.extend(list);
                Observation::Present(())
            }
            Err(error) => Observation::Unknown(error.failure("list role assignments")),
        };
        read.looked.push((scope, how));
    }
    (read, counted)
}

/// The file's clusters with what their API servers say, and the others of the subscriptions.
async fn joined(
    connected: &Connected,
    desired: &DesiredState,
    records: Vec<ObservedCluster>,
    unseen: &mut Vec<String>,
) -> Vec<AuditCluster> {
    let mut found = Vec::new();
    for cluster in desired.clusters.values() {
        let record = records.iter().find(|record| record.id == cluster.id);
        let kubernetes = match connected.clusters.get(&cluster.name) {
            Some(connection) => match connection.client().await {
                Ok(client) => {
                    let mut refused = Vec::new();
                    let facts = Box::pin(facts(&client, &mut refused)).await;
                    let at = &cluster.name;
                    unseen.extend(refused.iter().map(|failure| format!("cluster {at}: {failure}")));
                    facts.map_or_else(Observation::Unknown, Observation::Present)
                }
                Err(failure) => Observation::Unknown(failure),
            },
            None => not_asked(),
        };
        found.push(AuditCluster {
            name: cluster.name.to_string(),
            id: Some(cluster.id.clone()),
            kubectl: kubectl(cluster),
            issuer: record.and_then(|record| record.issuer.clone()),
            pod_identity_add_on: add_on(record),
            kubernetes,
        });
    }
    let ours: BTreeSet<&ArmId> = desired.clusters.values().map(|cluster| &cluster.id).collect();
    found.extend(records.iter().filter(|record| !ours.contains(&record.id)).map(|record| {
        AuditCluster {
            name: record.id.name().to_owned(),
            id: Some(record.id.clone()),
            kubectl: Kubectl::default(),
            issuer: record.issuer.clone(),
            pod_identity_add_on: add_on(Some(record)),
            kubernetes: not_asked(),
        }
    }));
    found
}

fn add_on(record: Option<&ObservedCluster>) -> bool {
    record.and_then(|record| record.pod_identity.as_ref()).is_some_and(|profile| profile.enabled)
}

/// What one API server says. Without the lists of the first kinds nothing can be judged; what else
/// was refused goes to `unseen`.
async fn facts(
    client: &Client,
    unseen: &mut Vec<RemoteFailure>,
) -> Result<KubernetesFacts, RemoteFailure> {
    let failed = |what: &'static str| {
        move |error: KubeError| error.failure(format!("list {what} of the cluster"))
    };
    let (namespaces, accounts, templates, pods, webhook, others) = futures::join!(
        client.namespaces(),
        client.accounts(None),
        client.templates_with(None, cluster_facts::details),
        client.pods(None),
        cluster_facts::webhook(client),
        others(client, unseen),
    );
    let Others { pod_identity, pod_identity_unseen, provider_classes, keda } = others;
    unseen.extend(webhook.failure().cloned());
    let templates =
        templates.map_err(failed("pod templates"))?.into_iter().map(|(namespace, templates)| {
            let whole = templates.into_iter().map(|(seen, details)| details.of(seen));
            (namespace, whole.collect())
        });
    Ok(KubernetesFacts {
        namespaces: namespaces.map_err(failed("namespaces"))?.into_keys().collect(),
        accounts: accounts.map_err(failed("service accounts"))?,
        templates: templates.collect(),
        pods: pods.map_err(failed("pods"))?,
        webhook: webhook.present().cloned(),
        pod_identity,
        pod_identity_unseen,
        provider_classes,
        keda_pod_identity: keda,
    })
}

/// Objects whose kinds may not be served at all.
struct Others {
    pod_identity: Vec<PodIdentityObject>,
    pod_identity_unseen: bool,
    provider_classes: BTreeMap<String, ProviderClass>,
    keda: Vec<Named>,
}

/// The managed identity of an `AzureIdentity`, in either spelling.
fn resource_id(object: &Value) -> Option<ArmId> {
    let text = ["resourceID", "ResourceID"].iter().find_map(|key| object["spec"][key].as_str());
    text.map(|text| ArmId::new(text.trim()))
}

/// Reads them. Refused is not absent.
async fn others(client: &Client, unseen: &mut Vec<RemoteFailure>) -> Others {
    const KINDS: [(&str, &str); 3] = [
        ("AzureIdentity", "azureidentities"),
        ("AzureIdentityBinding", "azureidentitybindings"),
        ("AzurePodIdentityException", "azurepodidentityexceptions"),
    ];
    const KEDA: [&str; 2] = ["triggerauthentications", "clustertriggerauthentications"];
    let word =
        |object: &Value, key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    let mut list = async |version: &str, plural: &str| {
        let found = client.objects(version, None, plural).await;
        let found = found.map_err(|error| unseen.push(error.failure(format!("list {plural}"))));
        found.ok().map(Option::unwrap_or_default)
    };
    let (mut pod_identity, mut pod_identity_unseen) = (Vec::new(), false);
    for (kind, plural) in KINDS {
        let found = list("aadpodidentity.k8s.io/v1", plural).await;
        pod_identity_unseen |= found.is_none();
        for object in found.unwrap_or_default() {
            pod_identity.push(PodIdentityObject {
                kind: kind.to_owned(),
                namespace: Namespace(word(&object, "namespace")),
                name: word(&object, "name"),
                identity: resource_id(&object),
            });
        }
    }
    let classes = list("secrets-store.csi.x-k8s.io/v1", "secretproviderclasses").await;
    let provider_classes = classes.iter().flatten().filter_map(|object| {
        let (name, class) = cluster_facts::provider_class(object)?;
        Some((format!("{}/{name}", word(object, "namespace")), class))
    });
    let provider_classes = provider_classes.collect();
    let mut keda = Vec::new();
    for plural in KEDA {
        let mut triggers = list("keda.sh/v1alpha1", plural).await.unwrap_or_default();
        triggers.retain(|trigger| trigger["spec"]["podIdentity"]["provider"] == "azure");
        keda.extend(triggers.iter().map(|trigger| Named {
            namespace: Namespace(word(trigger, "namespace")),
            name: word(trigger, "name"),
            uid: word(trigger, "uid"),
        }));
    }
    Others { pod_identity, pod_identity_unseen, provider_classes, keda }
}
