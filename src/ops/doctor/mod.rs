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
        parse::{provider_class, with_details},
    };
}

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;

pub use self::question::{Object, Question, Questions, bare, object, of_file};
use self::{
    azure::AzureRead,
    cluster::{ClusterRead, NamespaceRead},
};
use crate::{
    azure::{Arm, Endpoints, Entra, Issuers, Prober, TransportError},
    diagnose::{
        self, Diagnosis, Evidence, State, Verdict,
        evidence::{Wanted, not_asked},
    },
    execute::exit::ExitCode,
    kubernetes::Client,
    model::{
        ArmId, Issuer, Namespace, RemoteFailure,
        desired::{DesiredState, Probe},
        snapshot::{Assignments, Observation, ObservedCluster},
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

/// A workload with what was seen and what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// What was seen.
    pub evidence: Evidence,
    /// What it means.
    pub diagnosis: Diagnosis,
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
    let connected = connections.into_iter().map(|(name, connection)| async move {
        let client = connection.client().await;
        let read = match &client {
            Ok(client) => Some(cluster::cluster(client).await),
            Err(_) => None,
        };
        (name, (client, read))
    });
    let connected: BTreeMap<_, _> =
        futures::future::join_all(connected).await.into_iter().collect();

    let mut namespaces: BTreeMap<(Option<String>, Namespace, Option<String>), NamespaceRead> =
        BTreeMap::new();
    let mut records: BTreeMap<ArmId, Observation<ObservedCluster>> = BTreeMap::new();
    let mut evidences = Vec::new();
    for question in list {
        let key = question.asked.cluster.as_ref().map(ToString::to_string);
        let (client, read) = match connected.get(&key) {
            Some((client, read)) => (client, read.as_ref()),
            None => continue,
        };
        let also = question.also();
        let place = (key, question.asked.namespace.clone(), also.map(|(_, name)| name.to_owned()));
        if !namespaces.contains_key(&place) {
            let found = match client {
                Ok(client) => {
                    Box::pin(cluster::namespace(client, &question.asked.namespace, also)).await
                }
                Err(failure) => NamespaceRead::unreachable(failure),
            };
            namespaces.insert(place.clone(), found);
        }
        let Some(in_namespace) = namespaces.get(&place) else { continue };
        let mut evidence = assemble(&question, read, client, in_namespace, options.now);
        find_cluster(&clients, client, &mut evidence, &mut records).await;
        let mut probe = None;
        if let Some(desired) = desired {
            (evidence.wanted, probe) = question::wanted(desired, &evidence);
        }
        if let Some(named) = question.wanted {
            evidence.wanted.grants = named.grants.or(evidence.wanted.grants.take());
        }
        evidences.push((evidence, client.as_ref().ok().cloned(), probe));
    }
    let all: Vec<&Evidence> = evidences.iter().map(|(evidence, _, _)| evidence).collect();
    let shared = AzureRead::read(&clients.arm, &all).await;
    let documents = documents(&clients, &all).await;
    let tried = evidences.into_iter().map(|(mut evidence, client, probe)| {
        let (clients, shared, documents) = (&clients, &shared, &documents);
        async move {
            shared.fill(&mut evidence);
            if let Some(issuer) = issuer_of(&evidence) {
                evidence.discovery = documents.get(&issuer).cloned().unwrap_or_else(not_asked);
            }
            examine(clients, shared, evidence, client, probe, options).await
        }
    });
    Ok(stream::iter(tried).buffered(AT_ONCE).collect().await)
}

fn assemble(
    question: &Question,
    read: Option<&ClusterRead>,
    client: &Result<Client, RemoteFailure>,
    namespace: &NamespaceRead,
    now: Timestamp,
) -> Evidence {
    let unreachable = client.as_ref().err();
    let failed = || unreachable.cloned();
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
        webhook: read.map_or_else(
            || failed().map_or_else(not_asked, Observation::Unknown),
            |read| read.webhook.clone(),
        ),
        dry_run: not_asked(),
        namespace: namespace.namespace.clone(),
        accounts: namespace.accounts.clone(),
        templates: namespace.templates.clone(),
        pods: namespace.pods.clone(),
        events: namespace.events.clone(),
        provider_classes: namespace.provider_classes.clone(),
        identities: not_asked(),
        credentials: BTreeMap::new(),
        assignments: Assignments::default(),
        gone_principals: Vec::new(),
        targets: BTreeMap::new(),
        token: not_asked(),
        exchange: not_asked(),
        probe: not_asked(),
    }
}

/// ARM's record of the cluster; where nobody named it, the one that a node's provider id leads to
/// and whose issuer or host is the API server's.
async fn find_cluster(
    clients: &Clients,
    client: &Result<Client, RemoteFailure>,
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
    let Ok(client) = client else { return };
    let candidates = cluster::arm_ids(client).await;
    let server = evidence.server.present();
    let host = server.map(|server| server.host.split(':').next().unwrap_or_default().to_owned());
    let issuer = server.and_then(|server| server.issuer.present().cloned());
    for candidate in candidates.into_iter().map(ArmId::new) {
        let record = azure::cluster(arm, &candidate).await;
        let ours = record.present().is_some_and(|record| {
            let names = [record.fqdn.as_deref(), record.private_fqdn.as_deref()];
            (issuer.is_some() && record.issuer == issuer)
                || names.into_iter().flatten().any(|name| Some(name) == host.as_deref())
        });
        if ours {
            evidence.asked.cluster_id = Some(candidate);
            evidence.cluster = record;
            return;
        }
        if record.failure().is_some() {
            evidence.cluster = record;
        }
    }
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
    // Issuers of the sandbox are names that only its own Entra resolves.
    let reachable = all.iter().filter(|_| !clients.endpoints.loopback_only);
    let issuers: BTreeSet<Issuer> = reachable.filter_map(|evidence| issuer_of(evidence)).collect();
    let fetched = issuers.into_iter().map(|issuer| async {
        let found = cluster::discovery(&clients.issuers, &issuer).await;
        (issuer, found)
    });
    futures::future::join_all(fetched).await.into_iter().collect()
}

async fn examine(
    clients: &Clients,
    shared: &AzureRead,
    mut evidence: Evidence,
    client: Option<Client>,
    probe: Option<Probe>,
    options: Options,
) -> Examined {
    if let Some(client) = &client {
        trial::dry_run(client, &mut evidence).await;
    }
    shared.credentials(&mut evidence, false).await;
    if options.token
        && let Some(client) = &client
    {
        trial::token(clients, client, probe.as_ref(), &mut evidence).await;
    }
    let diagnosis = diagnose::chain(&evidence);
    // Only a broken chain is worth the search for an identity that would fit.
    let search = diagnosis.links.iter().any(|checked| {
        matches!(&checked.state, State::Broken(found)
            if found.code.starts_with("credential-") || found.code.starts_with("client-id-")
                || found.code.starts_with("annotation-"))
    });
    if search && shared.credentials(&mut evidence, true).await {
        let diagnosis = diagnose::chain(&evidence);
        return Examined { evidence, diagnosis };
    }
    Examined { evidence, diagnosis }
}

/// How `doctor` ends: 7 if a chain is broken, 6 if a link that matters could not be seen.
pub fn exit(examined: &[Examined]) -> ExitCode {
    match examined.iter().map(|one| one.diagnosis.verdict()).max() {
        Some(Verdict::Broken) => ExitCode::NotProved,
        Some(Verdict::NotSeen) => ExitCode::Denied,
        Some(Verdict::Healthy) | None => ExitCode::Done,
    }
}
