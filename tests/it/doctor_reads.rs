//! What `doctor` reads: a hundred workloads with the requests of a plan, and what is said where
//! something may not be read.

use std::{fmt::Write as _, path::Path, sync::Arc};

use serde_json::{Value, json};
use widentity::{
    config,
    diagnose::{Link, State, Verdict},
    model::desired::DesiredState,
    observe::observe,
    ops::{
        Connected, connect,
        doctor::{self, Examined, Options},
    },
    sandbox::{
        ClusterRef, Options as Start, Place, Running, Sandbox, Seed, SeedCluster,
        context::Delays,
        faults::{Action, Rule},
        store::Write,
    },
};

use crate::support::signed_in;

const TENANT: &str = "7e0c4f52-0000-4000-8000-00000000000a";
const SUB: &str = "5b0a1c9e-0000-4000-8000-000000000001";
const CLUSTER: &str = "/subscriptions/5b0a1c9e-0000-4000-8000-000000000001/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks";
const VAULT: &str = "/subscriptions/5b0a1c9e-0000-4000-8000-000000000001/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv";
const SECRETS_USER: &str = "4633458b-17de-408a-b874-0445c86b69e6";

/// `count` workloads, ten a namespace, whose chains are whole.
async fn estate(directory: &Path, count: usize) -> (Running, DesiredState, Connected) {
    let client = |at: usize| format!("c11e0000-0000-4000-8000-{at:012}");
    let mut objects = Vec::new();
    for at in 0..count {
        let (namespace, name) = (format!("ns-{}", at / 10), format!("app-{at}"));
        if at % 10 == 0 {
            objects.push(
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
            );
        }
        objects.push(json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": namespace, "annotations": {
                "azure.workload.identity/client-id": client(at),
                "azure.workload.identity/tenant-id": TENANT}}}));
        let labels = json!({"app": name, "azure.workload.identity/use": "true"});
        objects.push(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": labels}, "spec": {"serviceAccountName": name,
                    "containers": [{"name": "app", "image": "registry.example/app:1"}]}}}}));
    }
    let seed = Seed {
        clusters: vec![SeedCluster {
            cluster: ClusterRef { name: "prod".to_owned(), id: CLUSTER.to_owned() },
            location: String::new(),
            oidc_issuer: true,
            workload_identity: true,
            entra: false,
            namespaces: Vec::new(),
            deployments: Vec::new(),
            objects,
        }],
        resource_groups: vec![format!("/subscriptions/{SUB}/resourceGroups/rg-identities")],
        targets: vec![VAULT.to_owned()],
        ..Seed::default()
    };
    let mut start = Start::new(Place::Memory(directory.to_owned()), seed);
    start.settings.tenant = TENANT.parse().unwrap();
    start.settings.subscription = SUB.parse().unwrap();
    start.settings.delays = Delays::none();
    start.request_log = Some(directory.join("requests.log"));
    let running = Sandbox::start(start).await.unwrap();
    let store = &running.context().store;
    let record = store.get(&format!("arm{}", CLUSTER.to_lowercase())).unwrap();
    let issuer = record["properties"]["oidcIssuerProfile"]["issuerURL"].clone();
    let mut writes = Vec::new();
    let mut text = format!(
        "version = 1\nproject = \"many\"\n[azure]\ntenant = \"{TENANT}\"\nsubscription = \"{SUB}\"\n\
         resource_group = \"rg-identities\"\nlocation = \"westeurope\"\n[clusters.prod]\n\
         id = \"{CLUSTER}\"\nkubeconfig = {:?}\n",
        running.ready().kubeconfigs["prod"].to_str().unwrap()
    );
    for at in 0..count {
        let (namespace, name) = (format!("ns-{}", at / 10), format!("app-{at}"));
        let principal = format!("0b1ec700-0000-4000-8000-{at:012}");
        let id = format!(
            "/subscriptions/{SUB}/resourceGroups/rg-identities/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-{at}"
        );
        let key = format!("arm{}", id.to_lowercase());
        let tags = json!({"widentity-project": "many"});
        writes.push(Write::put(
            key.clone(),
            json!({"id": id, "name": format!("id-{at}"),
            "location": "westeurope", "tags": tags, "created_ms": 0, "tenantId": TENANT,
            "principalId": principal, "clientId": client(at)}),
        ));
        writes.push(Write::put(
            format!("{key}/federatedidentitycredentials/fic"),
            json!({
            "id": format!("{id}/federatedIdentityCredentials/fic"), "name": "fic",
            "issuer": issuer, "subject": format!("system:serviceaccount:{namespace}:{name}"),
            "audiences": ["api://AzureADTokenExchange"], "since_ms": 0}),
        ));
        writes.push(Write::put(
            format!("principals/{principal}"),
            json!({
            "type": "ServicePrincipal", "name": name, "client_id": client(at), "identity": id,
            "created_ms": 0}),
        ));
        writes.push(Write::put(
            format!("apps/{}", client(at)),
            json!({"principal": principal, "name": name, "identity": id}),
        ));
        let guid = format!("aa000000-0000-4000-8000-{at:012}");
        writes.push(Write::put(
            format!("roles/{guid}"),
            json!({"name": guid,
            "scope": VAULT.trim_start_matches('/'), "role": SECRETS_USER, "principalId": principal,
            "principalType": "ServicePrincipal", "created_ms": 0, "updated_ms": 0, "since_ms": 0}),
        ));
        write!(
            text,
            "[[workloads]]\nnamespace = \"{namespace}\"\nservice_account = \"{name}\"\n\
            identity = \"id-{at}\"\ntarget = \"{VAULT}\"\nrole = \"Key Vault Secrets User\"\n"
        )
        .unwrap();
    }
    store.commit(writes).unwrap();
    let file = directory.join("workloads.toml");
    std::fs::write(&file, text).unwrap();
    let config = config::load(&file, &config::Disk).unwrap();
    let desired = config::compile(&config, &config::Selection::default()).unwrap();
    let connected = connect::connect(
        &desired,
        signed_in::with_issuers(running.ready()),
        Arc::new(|_: &str| {}),
    )
    .await;
    (running, desired, connected.unwrap())
}

async fn ask(running: &Running, desired: &DesiredState, connected: &Connected) -> Vec<Examined> {
    let questions = doctor::of_file(desired, &connected.clusters, None);
    let options = Options { token: true, now: running.context().clock.now() };
    doctor::doctor(connected.reach(), questions, Some(desired), options).await.unwrap()
}

/// Requests since the last call, as `METHOD path`.
fn requests(directory: &Path) -> Vec<String> {
    let path = directory.join("requests.log");
    let text = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
    std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        // The emulated Entra fetches the issuer's documents itself, at each exchange.
        (line["service"] != "issuers").then(|| {
            format!("{} {}", line["method"].as_str().unwrap(), line["path"].as_str().unwrap())
        })
    };
    text.lines().filter_map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_workloads_cost_a_plan_and_an_exchange_each() {
    let directory = tempfile::tempdir().unwrap();
    let (running, desired, connected) = estate(directory.path(), 100).await;
    requests(directory.path());
    let now = running.context().clock.now();
    let snapshot = observe(&desired, &connected.arm, &connected.clusters, now).await;
    assert_eq!(snapshot.identities.len(), 100);
    let plan = requests(directory.path());
    let examined = ask(&running, &desired, &connected).await;
    for one in &examined {
        assert_eq!(one.diagnosis.verdict(), Verdict::Healthy, "{:?}", one.diagnosis);
    }
    let doctor = requests(directory.path());
    // A token of the account and its exchange for each, and one dry run a namespace.
    let tried = |request: &&String| {
        request.ends_with("/token") || request.starts_with("POST ") && request.ends_with("/pods")
    };
    let reads: Vec<&String> = doctor.iter().filter(|request| !tried(request)).collect();
    assert!(
        reads.len() <= plan.len(),
        "{} reads, a plan has {}:\n{reads:#?}\n{plan:#?}",
        reads.len(),
        plan.len()
    );
    assert!(doctor.len() - reads.len() <= 100 * 2 + 10, "{}", doctor.len() - reads.len());
    running.stop().await.unwrap();
}

fn refuse(service: &str, method: &str, path: &str) -> Rule {
    Rule {
        service: service.to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        nth: 1,
        times: 0,
        action: Action::Answer {
            status: 403,
            code: "Forbidden".to_owned(),
            message: "you may not: cannot create resource".to_owned(),
            retry_after: None,
        },
    }
}

/// What may not be read is said, what can be judged is judged, and nothing is called broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_read_is_not_broken() {
    let directory = tempfile::tempdir().unwrap();
    let (running, desired, connected) = estate(directory.path(), 1).await;
    let faults = &running.context().faults;
    for (rules, unseen, verdict) in [
        (vec![refuse("cluster/*", "POST", "*/token")], Link::Token, Verdict::NotSeen),
        (vec![refuse("cluster/*", "GET", "*/pods")], Link::Pods, Verdict::NotSeen),
        (vec![refuse("arm", "GET", "*roleAssignments*")], Link::Role, Verdict::NotSeen),
        (
            vec![refuse("arm", "GET", "*federatedIdentityCredentials*")],
            // Entra's word is enough.
            Link::Probe,
            Verdict::Healthy,
        ),
        (vec![refuse("arm", "GET", "*managedClusters*")], Link::Cluster, Verdict::NotSeen),
        (
            vec![
                refuse("cluster/*", "GET", "*mutatingwebhookconfigurations*"),
                refuse("cluster/*", "POST", "*/pods"),
            ],
            Link::Webhook,
            Verdict::NotSeen,
        ),
    ] {
        faults.clear();
        for rule in rules {
            faults.add(rule);
        }
        let examined = ask(&running, &desired, &connected).await;
        let diagnosis = &examined[0].diagnosis;
        assert_eq!(diagnosis.verdict(), verdict, "{unseen:?}: {diagnosis:#?}");
        let state = diagnosis.links.iter().find(|checked| checked.link == unseen).unwrap();
        assert!(
            matches!(&state.state, State::CouldNotSee { why, .. } if !why.is_empty()),
            "{unseen:?}: {state:?}"
        );
        let holds = diagnosis.links.iter().filter(|c| matches!(c.state, State::Holds { .. }));
        assert!(holds.count() >= 8, "{unseen:?}: {diagnosis:#?}");
    }
    running.stop().await.unwrap();
}
