//! `doctor`: collects what [`crate::diagnose`] judges, by reading and at most one token exchange a
//! workload. What belongs to a cluster, a namespace or a subscription is read once.

mod azure;
mod cluster;
mod parse;
mod question;
mod trial;

/// Reads and parsers that `audit` shares.
pub(super) mod cluster_facts {
    pub(in crate::ops) use super::{
        cluster::webhook,
        parse::{details, provider_class},
    };
}

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;

pub(super) use self::question::kubectl;
pub use self::question::{Bare, Object, Question, Questions, bare, object, of_file};
use self::{
    azure::AzureRead,
    cluster::{ClusterRead, NamespaceRead},
    parse::NodePlace,
};
use crate::{
    azure::{Arm, Endpoints, Entra, Issuers, Prober, TransportError},
    diagnose::{
        self, Diagnosis, Evidence, Verdict,
        evidence::{Wanted, not_asked},
    },
    execute::exit::ExitCode,
    kubernetes::{Client, Connection},
    model::{
        ArmId, ClusterName, FailureKind, Issuer, Namespace, RemoteFailure,
        desired::{DesiredState, Probe},
        snapshot::{Observation, ObservedCluster},
    },
};

/// Workloads that are tried at once.
const AT_ONCE: usize = 8;
/// Credentials of at most so many identities are read to find the one that matches.
const SEARCHED: usize = 40;

/// What is done.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether a token is asked for and exchanged.
    pub token: bool,
    /// The time.
    pub now: Timestamp,
}

/// Azure as `doctor` reaches it: Entra needs no credential, Resource Manager does.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Resource Manager, or why nobody may ask it.
    pub arm: Result<Arm, RemoteFailure>,
    /// The cloud.
    pub endpoints: Endpoints,
}

/// What a workload comes to. The evidence, which holds every role assignment, is gone by then.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// What it means.
    pub diagnosis: Diagnosis,
    /// Whether the file knows the workload.
    by_file: bool,
}

/// The clients of one run.
struct Clients {
    arm: Result<Arm, RemoteFailure>,
    endpoints: Endpoints,
    entra: Entra,
    prober: Prober,
    issuers: Issuers,
}

/// Diagnoses workloads. The order of the questions is kept.
pub async fn doctor(
    reach: Reach,
    questions: Questions,
    desired: Option<&DesiredState>,
    options: Options,
) -> Result<Vec<Examined>, TransportError> {
    let clients = Clients {
        entra: Entra::new(&reach.endpoints)?,
        prober: Prober::new(&reach.endpoints)?,
        issuers: Issuers::new(&reach.endpoints)?,
        arm: reach.arm,
        endpoints: reach.endpoints,
    };
    let Questions { list, connections } = questions;
    let connected = connections.into_iter().map(|(name, connection)| {
        let here = list.iter().filter(|question| question.cluster() == name);
        let namespaces = here.map(|question| question.asked.namespace.clone()).collect();
        async move {
            let place = Place::read(name.as_deref(), &connection, &namespaces).await;
            (name, place)
        }
    });
    let connected: BTreeMap<_, _> =
        futures::future::join_all(connected).await.into_iter().collect();

    let mut records: BTreeMap<ArmId, Observation<ObservedCluster>> = BTreeMap::new();
    let mut cases = Vec::new();
    for question in list {
        let Some(place) = connected.get(&question.cluster()) else { continue };
        let Some(namespace) = place.namespaces.get(&question.asked.namespace) else { continue };
        let mut evidence = assemble(&question, place, namespace, options.now);
        let client = place.client.as_ref().ok();
        if let (Some(client), Some(also)) = (client, question.also()) {
            let asked = &question.asked.namespace;
            let templates = Arc::make_mut(&mut evidence.templates);
            cluster::also(client, asked, also, templates).await;
        }
        find_cluster(&clients, client, &mut evidence, &mut records).await;
        let mut probe = None;
        if let Some(desired) = desired {
            (evidence.wanted, probe) = question::wanted(desired, &evidence);
        }
        if let Some(named) = question.wanted {
            evidence.wanted.grants = named.grants.or(evidence.wanted.grants.take());
        }
        cases.push(Case { evidence, namespace, client, probe });
    }
    let wanted = cases.iter_mut().map(|case| &mut case.evidence.wanted);
    azure::name_roles(&clients.arm, wanted.flat_map(|wanted| wanted.grants.iter_mut().flatten()))
        .await;
    let all: Vec<&Evidence> = cases.iter().map(|case| &case.evidence).collect();
    let shared = AzureRead::read(&clients.arm, &all).await;
    let documents = documents(&clients, &all).await;
    let examined = cases.into_iter().map(|mut case| {
        let (clients, shared, documents) = (&clients, &shared, &documents);
        async move {
            shared.fill(&mut case.evidence);
            if let Some(issuer) = issuer_of(&case.evidence) {
                case.evidence.discovery = documents.get(&issuer).cloned().unwrap_or_else(not_asked);
            }
            case.examine(clients, shared, options).await
        }
    });
    Ok(where_it_is(stream::iter(examined).buffered(AT_ONCE).collect().await))
}

/// One object asked about in several clusters is not missing from those where it never was.
fn where_it_is(examined: Vec<Examined>) -> Vec<Examined> {
    let (there, missing): (Vec<Examined>, Vec<Examined>) = examined.into_iter().partition(|one| {
        let first = one.diagnosis.headline().map(|(_, found)| found.code);
        let gone = ["namespace-missing", "template-not-found", "pod-not-found", "account-missing"];
        one.by_file || !first.is_some_and(|code| gone.contains(&code))
    });
    if there.is_empty() { missing } else { there }
}

/// One cluster as far as it could be reached.
struct Place {
    client: Result<Client, RemoteFailure>,
    read: Option<ClusterRead>,
    namespaces: BTreeMap<Namespace, NamespaceRead>,
}

impl Place {
    async fn read(
        name: Option<&str>,
        connection: &Connection,
        namespaces: &BTreeSet<Namespace>,
    ) -> Self {
        let client = match connection.client().await {
            Ok(client) => client,
            Err(failure) => {
                let unreachable =
                    |name: &Namespace| (name.clone(), NamespaceRead::unreachable(&failure));
                let namespaces = namespaces.iter().map(unreachable).collect();
                return Self { client: Err(failure), read: None, namespaces };
            }
        };
        let name = ClusterName::from(name.unwrap_or_else(|| client.host()));
        let (read, namespaces) = futures::join!(
            cluster::cluster(&client),
            cluster::namespaces(&client, &name, namespaces),
        );
        Self { client: Ok(client), read: Some(read), namespaces }
    }
}

fn assemble(
    question: &Question,
    place: &Place,
    namespace: &NamespaceRead,
    now: Timestamp,
) -> Evidence {
    let read = place.read.as_ref();
    let failed = || place.client.as_ref().err().cloned();
    Evidence {
        now,
        asked: question.asked.clone(),
        wanted: Wanted::default(),
        cluster: not_asked(),
        server: read.map_or_else(
            || failed().map_or_else(not_asked, Observation::Unknown),
            |read| read.server.clone(),
        ),
        discovery: not_asked(),
        other_issuers: BTreeMap::new(),
        clusters_unseen: None,
        webhook: read.map_or_else(
            || failed().map_or_else(not_asked, Observation::Unknown),
            |read| read.webhook.clone(),
        ),
        dry_run: not_asked(),
        namespace: namespace.namespace.clone(),
        accounts: Arc::clone(&namespace.accounts),
        templates: Arc::clone(&namespace.templates),
        pods: Arc::clone(&namespace.pods),
        events: Vec::new(),
        provider_classes: BTreeMap::new(),
        identities: not_asked(),
        identities_unseen: None,
        credentials: BTreeMap::new(),
        assignments: Arc::default(),
        targets: Arc::default(),
        token: not_asked(),
        exchange: not_asked(),
        probe: not_asked(),
    }
}

/// ARM's record of the cluster; where nobody named it, the one that a node's provider id leads to
/// and whose issuer or host is the API server's.
async fn find_cluster(
    clients: &Clients,
    client: Option<&Client>,
    evidence: &mut Evidence,
    records: &mut BTreeMap<ArmId, Observation<ObservedCluster>>,
) {
    let arm = match &clients.arm {
        Ok(arm) => arm,
        Err(failure) => {
            evidence.cluster = Observation::Unknown(failure.clone());
            return;
        }
    };
    if let Some(id) = evidence.asked.cluster_id.clone() {
        if !records.contains_key(&id) {
            records.insert(id.clone(), azure::cluster(arm, &id).await);
        }
        evidence.cluster = records.get(&id).cloned().unwrap_or_else(not_asked);
        return;
    }
    let Some(client) = client else { return };
    let found = match cluster::node_place(client).await {
        Some(place) => named_by_nodes(arm, &place, evidence).await,
        None => None,
    };
    if let Some(record) = found {
        evidence.asked.cluster_id = Some(record.id.clone());
        evidence.cluster = Observation::Present(record);
        return;
    }
    let why = "no node that may be read leads to its resource in Azure";
    let failure = RemoteFailure::new(FailureKind::NotReached, "find the cluster in Azure", why);
    evidence.cluster = Observation::Unknown(failure.with_hint("name it with --cluster-id"));
}

/// The cluster that a node's place allows and that is the one that was talked to: by its name, or
/// among all of the subscription.
async fn named_by_nodes(
    arm: &Arm,
    place: &NodePlace,
    evidence: &Evidence,
) -> Option<ObservedCluster> {
    let server = evidence.server.present()?;
    let host = server.host.split(':').next().unwrap_or_default();
    let ours = |record: &ObservedCluster| {
        let names = [record.fqdn.as_deref(), record.private_fqdn.as_deref()];
        let same_issuer =
            record.issuer.as_ref().is_some_and(|issuer| server.issuer.present() == Some(issuer));
        same_issuer || names.into_iter().flatten().any(|name| name.eq_ignore_ascii_case(host))
    };
    for candidate in &place.candidates {
        if let Observation::Present(record) = azure::cluster(arm, candidate).await
            && (ours(&record) || place.candidates.len() == 1)
        {
            return Some(record);
        }
    }
    arm.clusters_in(place.subscription).await.ok()?.into_iter().find(ours)
}

/// The issuer whose documents are looked at: ARM's, else the API server's own.
fn issuer_of(evidence: &Evidence) -> Option<Issuer> {
    let record = evidence.cluster.present().and_then(|arm| arm.issuer.clone());
    let served = || evidence.server.present()?.issuer.present().cloned();
    record.or_else(served)
}

async fn documents(
    clients: &Clients,
    all: &[&Evidence],
) -> BTreeMap<Issuer, Observation<diagnose::evidence::Discovery>> {
    // The sandbox asks nobody but itself.
    let reachable = |issuer: &Issuer| {
        issuer.as_str().parse().is_ok_and(|url| clients.endpoints.may_reach(&url))
    };
    let issuers: BTreeSet<Issuer> =
        all.iter().filter_map(|evidence| issuer_of(evidence)).filter(reachable).collect();
    let fetched = issuers.into_iter().map(|issuer| async {
        let found = cluster::discovery(&clients.issuers, &issuer).await;
        (issuer, found)
    });
    futures::future::join_all(fetched).await.into_iter().collect()
}

/// One question on its way to a diagnosis.
struct Case<'a> {
    evidence: Evidence,
    namespace: &'a NamespaceRead,
    client: Option<&'a Client>,
    probe: Option<Probe>,
}

impl Case<'_> {
    async fn examine(
        mut self,
        clients: &Clients,
        shared: &AzureRead,
        options: Options,
    ) -> Examined {
        if let Some(client) = self.client {
            trial::dry_run(client, self.namespace, &mut self.evidence).await;
            cluster::resolve_references(client, &mut self.evidence).await;
            let asked = &self.evidence.asked.namespace;
            self.evidence.provider_classes = self.namespace.classes(client, asked).await;
        }
        shared.wanted_identity(&mut self.evidence).await;
        shared.find_identity(&mut self.evidence).await;
        shared.credentials(&mut self.evidence, false).await;
        if options.token
            && let Some(client) = self.client
        {
            trial::token(clients, client, self.probe.as_ref(), &mut self.evidence).await;
        }
        shared.assignments(&mut self.evidence).await;
        let by_file = self.evidence.wanted.origin.is_some();
        let diagnosis = diagnose::chain(&self.evidence);
        if diagnosis.plainly_well() {
            return Examined { diagnosis, by_file };
        }
        // Only what is not well is worth looking for what would explain it.
        if let Some(client) = self.client {
            let asked = &self.evidence.asked.namespace;
            self.evidence.events = self.namespace.events(client, asked).await.to_vec();
        }
        shared.other_clusters(&mut self.evidence).await;
        shared.credentials(&mut self.evidence, true).await;
        let diagnosis = diagnose::chain(&self.evidence);
        Examined { diagnosis, by_file }
    }
}

/// How `doctor` ends: 7 if a chain is broken, 6 if a link that matters could not be seen.
pub fn exit(examined: &[Examined]) -> ExitCode {
    match examined.iter().map(|one| one.diagnosis.verdict()).max() {
        Some(Verdict::Broken) => ExitCode::NotProved,
        Some(Verdict::NotSeen) => ExitCode::Denied,
        Some(Verdict::Healthy) | None => ExitCode::Done,
    }
}
