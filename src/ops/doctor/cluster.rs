//! What is read of a cluster and of a namespace, once for all workloads in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use tokio::sync::OnceCell;

use super::parse::{self, Details, NodePlace};
use crate::{
    azure::Issuers,
    diagnose::{
        self, Evidence,
        evidence::{
            Discovery, DryRun, Event, NamespaceFacts, ProviderClass, Reference, Server, Template,
            Webhook, not_asked,
        },
    },
    kubernetes::{Client, KubeError, Within},
    model::{
        AccountName, ClusterName, Issuer, Namespace, RemoteFailure,
        snapshot::{Observation, ObservedAccount, ObservedPod, ObservedTemplate, TemplateKind},
    },
    observe::{NAMESPACES_ONE_BY_ONE, Reading},
};

/// An answer as an observation; not found is absence only where the caller knows it is.
pub(super) fn seen<T>(result: Result<T, KubeError>, tried: impl Into<String>) -> Observation<T> {
    match result {
        Ok(value) => Observation::Present(value),
        Err(error) => Observation::Unknown(error.failure(tried)),
    }
}

/// One API server.
#[derive(Debug, Clone)]
pub(super) struct ClusterRead {
    pub(super) server: Observation<Server>,
    pub(super) webhook: Observation<Webhook>,
}

/// A dry run that stands for a namespace.
#[derive(Debug, Clone)]
pub(super) struct FirstDryRun {
    pub(super) answer: Observation<DryRun>,
    /// Whether the tenant in it is the webhook's own: the account named none.
    pub(super) own_tenant: bool,
}

/// One namespace.
#[derive(Debug)]
pub(super) struct NamespaceRead {
    pub(super) namespace: Observation<NamespaceFacts>,
    pub(super) accounts: Arc<Observation<BTreeMap<AccountName, ObservedAccount>>>,
    pub(super) templates: Arc<Observation<Vec<Template>>>,
    pub(super) pods: Arc<Observation<Vec<ObservedPod>>>,
    /// Warnings; read only for a workload that is not plainly well.
    events: OnceCell<Vec<Event>>,
    /// Read only where a template mounts one.
    classes: OnceCell<BTreeMap<String, ProviderClass>>,
    /// A dry run, of the account that came first.
    pub(super) dry_run: OnceCell<FirstDryRun>,
}

impl NamespaceRead {
    /// A namespace of a cluster that cannot be reached.
    pub(super) fn unreachable(failure: &RemoteFailure) -> Self {
        Self::new(
            Observation::Unknown(failure.clone()),
            Observation::Unknown(failure.clone()),
            Observation::Unknown(failure.clone()),
            Observation::Unknown(failure.clone()),
        )
    }

    fn new(
        namespace: Observation<NamespaceFacts>,
        accounts: Observation<BTreeMap<AccountName, ObservedAccount>>,
        templates: Observation<Vec<Template>>,
        pods: Observation<Vec<ObservedPod>>,
    ) -> Self {
        Self {
            namespace,
            accounts: Arc::new(accounts),
            templates: Arc::new(templates),
            pods: Arc::new(pods),
            events: OnceCell::new(),
            classes: OnceCell::new(),
            dry_run: OnceCell::new(),
        }
    }

    /// Warnings about what is in the namespace. Worth a look and no failure.
    pub(super) async fn events(&self, client: &Client, namespace: &Namespace) -> &[Event] {
        let read = async || {
            let list = client.objects("v1", Some(namespace.as_str()), "events").await;
            list.ok().flatten().iter().flatten().filter_map(parse::event).collect()
        };
        self.events.get_or_init(read).await
    }

    /// `SecretProviderClass` objects, where a template mounts one.
    pub(super) async fn classes(
        &self,
        client: &Client,
        namespace: &Namespace,
    ) -> BTreeMap<String, ProviderClass> {
        let templates = self.templates.present().map_or(&[][..], Vec::as_slice);
        if templates.iter().all(|template| template.provider_classes.is_empty()) {
            return BTreeMap::new();
        }
        let read = async || {
            let version = "secrets-store.csi.x-k8s.io/v1";
            let place = Some(namespace.as_str());
            let list = client.objects(version, place, "secretproviderclasses").await;
            list.ok().flatten().iter().flatten().filter_map(parse::provider_class).collect()
        };
        self.classes.get_or_init(read).await.clone()
    }
}

/// Reads what variables of Azure's libraries are taken from, where that is a `ConfigMap`, for the
/// templates that are asked about.
pub(super) async fn resolve_references(client: &Client, evidence: &mut Evidence) {
    let from_map = |reference: &Reference| reference.kind == "ConfigMap";
    let wants = |template: &&Template| template.references.iter().any(from_map);
    let meant = diagnose::meant(evidence).into_iter().filter(wants);
    let keys: BTreeSet<String> = meant.map(|template| template.seen.key()).collect();
    if keys.is_empty() {
        return;
    }
    let place = Some(evidence.asked.namespace.as_str());
    let Observation::Present(templates) = Arc::make_mut(&mut evidence.templates) else { return };
    let these = templates.iter_mut().filter(|template| keys.contains(&template.seen.key()));
    let references = these.flat_map(|template| &mut template.references);
    for reference in references.filter(|reference| from_map(reference)) {
        let object = client.object("v1", place, "configmaps", &reference.name).await;
        if let Ok(Some(object)) = object {
            reference.value = object["data"][&reference.key].as_str().map(str::to_owned);
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

/// Reads namespaces: each kind of object with one list where there are several.
pub(super) async fn namespaces(
    client: &Client,
    cluster: &ClusterName,
    namespaces: &BTreeSet<Namespace>,
) -> BTreeMap<Namespace, NamespaceRead> {
    let reading = Reading { client, cluster, namespaces };
    let one = namespaces.len() == 1;
    let (objects, accounts, templates, pods) = futures::join!(
        reading.parts("namespaces", async |within| objects(client, within).await, one),
        reading.parts("service accounts", async |within| client.accounts(within).await, one),
        reading.parts(
            "pod templates",
            async |within| client.templates_with(within, parse::details).await,
            one,
        ),
        reading.parts(
            "pods",
            async |within| client.pods(within).await,
            namespaces.len() <= NAMESPACES_ONE_BY_ONE,
        ),
    );
    let (mut objects, mut accounts, mut templates, mut pods) = (objects, accounts, templates, pods);
    let read = |name: &Namespace| {
        let object = match objects.remove(name).unwrap_or_else(not_asked) {
            Observation::Present(Some(facts)) => Observation::Present(facts),
            Observation::Present(None) | Observation::Absent => Observation::Absent,
            Observation::Unknown(failure) => Observation::Unknown(failure),
        };
        let whole = |list: Vec<(ObservedTemplate, Details)>| {
            list.into_iter().map(|(seen, details)| details.of(seen)).collect()
        };
        let read = NamespaceRead::new(
            object,
            accounts.remove(name).unwrap_or_else(not_asked),
            templates.remove(name).unwrap_or_else(not_asked).map(whole),
            pods.remove(name).unwrap_or_else(not_asked),
        );
        (name.clone(), read)
    };
    namespaces.iter().map(read).collect()
}

/// Namespaces with their labels; none where one is not there.
async fn objects(
    client: &Client,
    within: Within<'_>,
) -> Result<BTreeMap<Namespace, Option<NamespaceFacts>>, KubeError> {
    if let Within::Namespace(name) = within {
        let object = client.object("v1", None, "namespaces", name.as_str()).await?;
        return Ok(BTreeMap::from([(name.clone(), object.as_ref().map(parse::namespace))]));
    }
    let list = client.objects("v1", None, "namespaces").await?.unwrap_or_default();
    let named = |object: &Value| {
        let name = object["metadata"]["name"].as_str()?;
        Some((Namespace::from(name), Some(parse::namespace(object))))
    };
    Ok(list.iter().filter_map(named).collect())
}

/// Adds a Job or `ReplicaSet` that was asked about, which no list of templates holds.
pub(super) async fn also(
    client: &Client,
    namespace: &Namespace,
    (kind, name): (TemplateKind, &str),
    templates: &mut Observation<Vec<Template>>,
) {
    let (version, plural) = match kind {
        TemplateKind::Job => ("batch/v1", "jobs"),
        TemplateKind::ReplicaSet => ("apps/v1", "replicasets"),
        TemplateKind::ReplicationController => ("v1", "replicationcontrollers"),
        TemplateKind::Deployment
        | TemplateKind::StatefulSet
        | TemplateKind::DaemonSet
        | TemplateKind::CronJob
        | TemplateKind::Rollout
        | TemplateKind::Pod => return,
    };
    match client.object(version, Some(namespace.as_str()), plural, name).await {
        Ok(object) => {
            let read = object.and_then(|object| parse::template(kind, &object));
            if let Observation::Present(all) = templates {
                all.extend(read);
            }
        }
        Err(error) => {
            let tried = format!("read {} {namespace}/{name}", kind.as_str());
            *templates = Observation::Unknown(error.failure(tried));
        }
    }
}

/// Where the cluster's nodes say that it is; none where no node may be read or none is of Azure.
pub(super) async fn node_place(client: &Client) -> Option<NodePlace> {
    let nodes = client.objects("v1", None, "nodes").await.ok().flatten().unwrap_or_default();
    nodes.iter().find_map(|node| parse::node_place(node["spec"]["providerID"].as_str()?))
}
