//! What is read of a cluster and of a namespace, once for all workloads in it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::parse;
use crate::{
    azure::Issuers,
    diagnose::evidence::{
        Discovery, Event, NamespaceFacts, ProviderClass, Server, Template, Webhook,
    },
    kubernetes::{Client, KubeError},
    model::{
        AccountName, Issuer, Namespace, RemoteFailure,
        snapshot::{Observation, ObservedAccount, ObservedPod, TemplateKind},
    },
};

/// An answer as an observation; not found is absence only where the caller knows it is.
pub(super) fn seen<T>(result: Result<T, KubeError>, tried: impl Into<String>) -> Observation<T> {
    match result {
        Ok(value) => Observation::Present(value),
        Err(error) => Observation::Unknown(error.failure(tried)),
    }
}

fn maybe<T>(result: Result<Option<T>, KubeError>, tried: impl Into<String>) -> Observation<T> {
    match result {
        Ok(Some(value)) => Observation::Present(value),
        Ok(None) => Observation::Absent,
        Err(error) => Observation::Unknown(error.failure(tried)),
    }
}

/// One API server.
#[derive(Debug, Clone)]
pub(super) struct ClusterRead {
    pub(super) server: Observation<Server>,
    pub(super) webhook: Observation<Webhook>,
}

/// One namespace.
#[derive(Debug, Clone)]
pub(super) struct NamespaceRead {
    pub(super) namespace: Observation<NamespaceFacts>,
    pub(super) accounts: Observation<BTreeMap<AccountName, ObservedAccount>>,
    pub(super) templates: Observation<Vec<Template>>,
    pub(super) pods: Observation<Vec<ObservedPod>>,
    pub(super) events: Vec<Event>,
    pub(super) provider_classes: BTreeMap<String, ProviderClass>,
}

impl NamespaceRead {
    /// A namespace of a cluster that cannot be reached.
    pub(super) fn unreachable(failure: &RemoteFailure) -> Self {
        Self {
            namespace: Observation::Unknown(failure.clone()),
            accounts: Observation::Unknown(failure.clone()),
            templates: Observation::Unknown(failure.clone()),
            pods: Observation::Unknown(failure.clone()),
            events: Vec::new(),
            provider_classes: BTreeMap::new(),
        }
    }
}

/// Reads what belongs to no namespace.
pub(super) async fn cluster(client: &Client) -> ClusterRead {
    let (version, issuer, webhook) =
        futures::join!(client.version(), client.discovery_issuer(), webhook(client));
    let server = match version {
        Ok(version) => Observation::Present(Server {
            host: client.host().to_owned(),
            version,
            issuer: seen(issuer, "read the API server's discovery document"),
        }),
        Err(error) => Observation::Unknown(error.failure("ask the API server's version")),
    };
    ClusterRead { server, webhook }
}

/// Reads the webhook and what stands behind it.
pub(in crate::ops) async fn webhook(client: &Client) -> Observation<Webhook> {
    let tried = "list mutating webhook configurations";
    let version = "admissionregistration.k8s.io/v1";
    let objects = client.objects(version, None, "mutatingwebhookconfigurations").await;
    let objects = match objects {
        Ok(objects) => objects.unwrap_or_default(),
        Err(error) => return Observation::Unknown(error.failure(tried)),
    };
    let configurations = parse::webhooks(&objects);
    let Some(first) = configurations.first() else { return Observation::Absent };
    let home = first.service_namespace.clone();
    let mut webhook = Webhook { configurations, ..Webhook::default() };
    let Some(home) = home else { return Observation::Present(webhook) };
    // What stands behind it is worth a look and no failure: the dry run says more.
    let (deployment, settings) = futures::join!(
        client.object("apps/v1", Some(&home), "deployments", "azure-wi-webhook-controller-manager"),
        client.object("v1", Some(&home), "configmaps", "azure-wi-webhook-config"),
    );
    if let Ok(Some(object)) = deployment {
        let (replicas, image) = parse::deployment(&object);
        webhook.replicas = Some(replicas);
        webhook.image = image;
    }
    if let Ok(Some(object)) = settings {
        let word = |key: &str| object["data"][key].as_str().map(str::to_owned);
        webhook.tenant = word("AZURE_TENANT_ID");
        webhook.environment = word("AZURE_ENVIRONMENT");
    }
    Observation::Present(webhook)
}

/// Fetches the issuer's documents.
pub(super) async fn discovery(issuers: &Issuers, issuer: &Issuer) -> Observation<Discovery> {
    match issuers.documents(issuer).await {
        Ok(Some(found)) => {
            Observation::Present(Discovery { issuer: found.issuer, kids: found.kids })
        }
        Ok(None) => Observation::Absent,
        Err(failure) => Observation::Unknown(failure),
    }
}

/// Reads a namespace. `also`: a Job or `ReplicaSet` that was asked about.
pub(super) async fn namespace(
    client: &Client,
    namespace: &Namespace,
    also: Option<(TemplateKind, &str)>,
) -> NamespaceRead {
    let place = Some(namespace.as_str());
    let (object, accounts, pods, templates, events, classes) = futures::join!(
        client.object("v1", None, "namespaces", namespace.as_str()),
        client.accounts(Some(namespace)),
        client.pods(Some(namespace)),
        templates(client, namespace, also),
        client.objects("v1", place, "events"),
        client.objects("secrets-store.csi.x-k8s.io/v1", place, "secretproviderclasses"),
    );
    let object = maybe(object, format!("read namespace {namespace}"));
    let accounts = seen(accounts, format!("list service accounts in {namespace}"));
    let pods = seen(pods, format!("list pods in {namespace}"));
    NamespaceRead {
        namespace: object.map(|object| parse::namespace(&object)),
        accounts: accounts.map(|mut all| all.remove(namespace).unwrap_or_default()),
        templates,
        pods: pods.map(|mut all| all.remove(namespace).unwrap_or_default()),
        events: events.ok().flatten().iter().flatten().filter_map(parse::event).collect(),
        provider_classes: classes
            .ok()
            .flatten()
            .iter()
            .flatten()
            .filter_map(parse::provider_class)
            .collect(),
    }
}

async fn templates(
    client: &Client,
    namespace: &Namespace,
    also: Option<(TemplateKind, &str)>,
) -> Observation<Vec<Template>> {
    let tried = format!("list pod templates in {namespace}");
    let read = match client.templates(Some(namespace)).await {
        Ok(mut read) => read.remove(namespace).unwrap_or_default(),
        Err(error) => return Observation::Unknown(error.failure(tried)),
    };
    // Fields that only diagnosis looks at, in one list a kind that is there.
    let mut objects: BTreeMap<(TemplateKind, String), Value> = BTreeMap::new();
    let mut kinds: Vec<(TemplateKind, String)> =
        read.iter().map(|t| (t.kind, t.api_version.clone())).collect();
    kinds.sort();
    kinds.dedup();
    let place = Some(namespace.as_str());
    for (kind, version) in kinds {
        let plural = format!("{}s", kind.as_str());
        let Ok(Some(list)) = client.objects(&version, place, &plural).await else { continue };
        for object in list {
            let Some(name) = object["metadata"]["name"].as_str() else { continue };
            objects.insert((kind, name.to_owned()), object);
        }
    }
    let mut found: Vec<Template> = read
        .into_iter()
        .map(|seen| {
            let object = objects.get(&(seen.kind, seen.name.clone()));
            parse::with_details(seen, object)
        })
        .collect();
    if let Some((kind, name)) = also {
        let (version, plural) = match kind {
            TemplateKind::Job => ("batch/v1", "jobs"),
            TemplateKind::ReplicaSet => ("apps/v1", "replicasets"),
            TemplateKind::Deployment
            | TemplateKind::StatefulSet
            | TemplateKind::DaemonSet
            | TemplateKind::CronJob
            | TemplateKind::Rollout
            | TemplateKind::Pod => return Observation::Present(found),
        };
        match client.object(version, place, plural, name).await {
            Ok(object) => found.extend(object.and_then(|object| parse::template(kind, &object))),
            Err(error) => return Observation::Unknown(error.failure(tried)),
        }
    }
    Observation::Present(found)
}

/// The cluster's possible ARM ids, from a node; empty where no node may be read.
pub(super) async fn arm_ids(client: &Client) -> Vec<String> {
    let nodes = client.objects("v1", None, "nodes").await.ok().flatten().unwrap_or_default();
    let provider = |node: &Value| node["spec"]["providerID"].as_str().map(parse::cluster_ids);
    nodes.iter().find_map(provider).unwrap_or_default()
}
