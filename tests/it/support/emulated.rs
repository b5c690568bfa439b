//! A world of the corpus in a served sandbox: what the evidence shows becomes ARM documents and
//! Kubernetes objects, so that the same first cause must be found by really looking.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use widentity::{
    config,
    model::{ArmId, Namespace},
    ops::{
        connect::{self, Target},
        doctor::{self, Bare, Examined, Options},
    },
    sandbox::{
        ClusterRef, Options as Start, Place, Running, Sandbox, Seed, SeedCluster,
        clock::Clock,
        context::Delays,
        store::{Store, Write},
    },
};

use super::signed_in;

const USE: &str = "azure.workload.identity/use";
const TENANT: &str = "7e0c4f52-0000-4000-8000-00000000000a";
const SUBSCRIPTION: &str = "5b0a1c9e-0000-4000-8000-000000000001";
const CLUSTER: &str = "/subscriptions/5b0a1c9e-0000-4000-8000-000000000001/resourceGroups/rg-aks-prod/providers/Microsoft.ContainerService/managedClusters/aks-prod";
/// A cluster that nobody asked about and whose context is the current one.
const BYSTANDER: &str = "bystander";
const BYSTANDER_ID: &str = "/subscriptions/5b0a1c9e-0000-4000-8000-000000000001/resourceGroups/rg-other/providers/Microsoft.ContainerService/managedClusters/bystander";
/// What the webhook adds to a container.
const INJECTED: [&str; 4] =
    ["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"];

/// A served world.
pub(crate) struct Emulated {
    pub(crate) running: Running,
    pub(crate) directory: TempDir,
    world: Value,
    /// The name of the cluster and of its kubeconfig context.
    pub(crate) cluster: String,
    ticker: tokio::task::JoinHandle<()>,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn millis(value: &Value) -> i64 {
    value.as_str().map_or(0, |t| t.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

impl Emulated {
    /// Serves a world.
    pub(crate) async fn start(world: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let arm = &world["cluster"]["present"];
        let cluster = world["asked"]["cluster"].as_str().unwrap_or("aks-prod").to_owned();
        let id = world["asked"]["cluster_id"].as_str().unwrap_or(CLUSTER).to_owned();
        let grants = items(&world["wanted"]["grants"]).map(|grant| text(&grant["scope"]));
        let targets = grants.chain(members(&world["targets"]).map(|(id, _)| id.as_str()));
        let seed = Seed {
            clusters: vec![
                SeedCluster {
                    cluster: ClusterRef { name: cluster.clone(), id: id.clone() },
                    location: text(&arm["location"]).to_owned(),
                    oidc_issuer: arm["issuer"].is_string(),
                    workload_identity: arm["workload_identity"] == true,
                    entra: false,
                    namespaces: Vec::new(),
                    deployments: Vec::new(),
                    objects: objects(world),
                },
                SeedCluster {
                    cluster: ClusterRef { name: BYSTANDER.to_owned(), id: BYSTANDER_ID.to_owned() },
                    location: "westeurope".to_owned(),
                    oidc_issuer: true,
                    workload_identity: true,
                    entra: false,
                    namespaces: vec![text(&world["asked"]["namespace"]).to_owned()],
                    deployments: Vec::new(),
                    objects: Vec::new(),
                },
            ],
            resource_groups: vec![format!(
                "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-identities"
            )],
            targets: targets.map(str::to_owned).collect(),
            ..Seed::default()
        };
        let clock = Clock::manual(text(&world["now"]).parse().unwrap());
        let mut options = Start::new(Place::Memory(directory.path().to_owned()), seed);
        options.clock = clock.clone();
        options.settings.tenant = TENANT.parse().unwrap();
        options.settings.subscription = SUBSCRIPTION.parse().unwrap();
        options.settings.delays = Delays::none();
        let running = Sandbox::start(options).await.unwrap();
        let store = &running.context().store;
        azure(store, world, &id);
        // Pods start, and what is asked later finds a world that goes on.
        clock.advance(Duration::from_secs(5));
        let ticker = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                clock.advance(Duration::from_millis(100));
            }
        });
        let emulated = Self { running, directory, world: world.clone(), cluster, ticker };
        emulated.settle().await;
        emulated.history(&id);
        emulated
    }

    /// Waits until no controller has anything left to do.
    pub(crate) async fn settle(&self) {
        let Some(path) = self.running.ready().kubeconfigs.get(&self.cluster) else { return };
        let file = kube::config::Kubeconfig::read_from(path).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let mut quiet = 0;
        for _ in 0..200 {
            let request = hyper::Request::get("/api/v1/pods").body(Vec::new()).unwrap();
            // A connection that the busy server drops is made again.
            let Ok(pods) = client.request::<Value>(request).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let moving = items(&pods["items"]).any(|pod| {
                let waits =
                    pod["spec"]["nodeName"].is_string() && pod["status"]["phase"] == "Pending";
                waits || pod["metadata"]["deletionTimestamp"].is_string()
            });
            quiet = if moving { 0 } else { quiet + 1 };
            if quiet > 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the pods do not come to rest");
    }

    /// Gives accounts and pods the state that the world shows, which may come from other times:
    /// accounts that were changed or removed since, pods from before.
    fn history(&self, id: &str) {
        let store = &self.running.context().store;
        let prefix = format!("kube/{}/core/", id.to_lowercase().trim_start_matches('/'));
        let namespace = text(&self.world["asked"]["namespace"]);
        let mut writes = Vec::new();
        let accounts = &self.world["accounts"]["present"];
        for (key, doc) in store.list(&format!("{prefix}serviceaccounts/{namespace}/")) {
            let name = key.rsplit('/').next().unwrap();
            let Some(seen) = accounts.get(name) else {
                if name != "default" {
                    writes.push(Write::remove(key));
                }
                continue;
            };
            let mut doc = (*doc).clone();
            let fields: serde_json::Map<String, Value> = members(&seen["meta"]["annotations"])
                .map(|(key, _)| (format!("f:{key}"), json!({})))
                .collect();
            doc["metadata"]["managedFields"] = json!([{"manager": "kubectl-client-side-apply",
                "operation": "Update", "apiVersion": "v1", "time": self.world["now"],
                "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:annotations": fields}}}]);
            for part in ["annotations", "labels"] {
                doc["metadata"][part] = seen["meta"].get(part).cloned().unwrap_or(json!({}));
            }
            writes.push(Write::put(key, doc));
        }
        let hooks = "admissionregistration.k8s.io/mutatingwebhookconfigurations/-/";
        let prefix_of_hooks = prefix.replace("/core/", &format!("/{hooks}"));
        for (key, doc) in store.list(&prefix_of_hooks) {
            let seen = &self.world["webhook"]["present"]["configurations"][0];
            let mut doc = (*doc).clone();
            if seen["namespace_selector"].is_object() {
                doc["webhooks"][0]["namespaceSelector"] = seen["namespace_selector"].clone();
            }
            writes.push(Write::put(key, doc));
        }
        let stem = |controller: &str| {
            controller.rsplit_once('-').map_or(controller.to_owned(), |(stem, _)| stem.to_owned())
        };
        for (key, doc) in store.list(&format!("{prefix}pods/{namespace}/")) {
            let owner = text(&doc["metadata"]["ownerReferences"][0]["name"]);
            let seen = items(&self.world["pods"]["present"]).find(|pod| {
                let of = text(&pod["controller"][1]);
                stem(of) == stem(owner) || of == owner
            });
            if let Some(seen) = seen {
                let mut doc = (*doc).clone();
                rewrite(&mut doc, seen);
                writes.push(Write::put(key, doc));
            }
        }
        store.commit(writes).unwrap();
    }

    fn target(&self) -> Target {
        signed_in::with_issuers(self.running.ready())
    }

    /// A kubeconfig of all clusters, whose current context is the bystander's.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.directory.path().join("kubeconfig");
        let files = self.running.ready().kubeconfigs.values();
        let all = files.map(|file| kube::config::Kubeconfig::read_from(file).unwrap());
        let mut all = all.reduce(|all, one| all.merge(one).unwrap()).unwrap();
        all.current_context = Some(BYSTANDER.to_owned());
        std::fs::write(&path, serde_json::to_vec(&all).unwrap()).unwrap();
        path
    }

    /// What a fix for this cluster must not touch: everything in the bystander, and the credentials
    /// that other clusters' pods depend on.
    pub(crate) fn untouchable(&self) -> BTreeMap<String, Value> {
        let store = &self.running.context().store;
        let kube = format!("kube/{}/", BYSTANDER_ID.to_lowercase().trim_start_matches('/'));
        let mut kept: BTreeMap<String, Value> =
            store.list(&kube).into_iter().map(|(key, doc)| (key, (*doc).clone())).collect();
        let others: Vec<&Value> = members(&self.world["other_issuers"]).map(|(_, i)| i).collect();
        for (key, doc) in store.list("arm/") {
            let issuer = &doc["issuer"];
            if key.contains("/federatedidentitycredentials/") && others.contains(&issuer) {
                kept.insert(key, (*doc).clone());
            }
        }
        kept
    }

    /// The file, where the world has one.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let path = self.directory.path().join("workloads.toml");
        if !path.exists() {
            self.world["wanted"]["origin"].as_object()?;
            std::fs::write(&path, self.toml()).unwrap();
        }
        Some(path)
    }

    fn toml(&self) -> String {
        let (ready, world) = (self.running.ready(), &self.world);
        let (asked, wanted) = (&world["asked"], &world["wanted"]);
        let identity = text(&wanted["identity"]).rsplit('/').next().unwrap();
        let grants: Vec<String> = items(&wanted["grants"])
            .map(|g| format!("{{ role = {}, target = {} }}", g["name"], g["scope"]))
            .collect();
        let account = items(&world["templates"]["present"]).next().map(|t| &t["account"]);
        let account = asked.get("account").filter(|a| a.is_string()).or(account).unwrap();
        let enable = wanted.get("enable").cloned().unwrap_or(json!([]));
        format!(
            "version = 1\nproject = \"corpus\"\n[azure]\ntenant = \"{TENANT}\"\n\
             subscription = \"{SUBSCRIPTION}\"\nresource_group = \"rg-identities\"\n\
             location = \"westeurope\"\ncloud = {{ resource_manager = {:?}, authority = {:?}, \
             ca_file = {:?} }}\n[clusters.{}]\nid = {}\ncontext = {:?}\nkubeconfig = {:?}\n\
             enable = {enable}\n[[workloads]]\nnamespace = {}\nservice_account = {account}\n\
             identity = {identity:?}\ngrants = [{}]\n",
            ready.resource_manager,
            ready.authority,
            ready.ca_file.to_str().unwrap(),
            self.cluster,
            asked.get("cluster_id").cloned().unwrap_or(CLUSTER.into()),
            self.cluster,
            self.kubeconfig().to_str().unwrap(),
            asked["namespace"],
            grants.join(", "),
        )
    }

    /// Asks the doctor what the world asks: over HTTP, reading everything.
    pub(crate) async fn doctor(&self, token: bool) -> Examined {
        let options = Options { token, now: self.running.context().clock.now() };
        let waits = Arc::new(|_: &str| {});
        let examined = if let Some(file) = self.file() {
            let config = config::load(&file, &config::Disk).unwrap();
            let desired = config::compile(&config, &config::Selection::default()).unwrap();
            let connected = connect::connect(&desired, self.target(), waits).await.unwrap();
            let questions = doctor::of_file(&desired, &connected.clusters, None);
            doctor::doctor(connected.reach(), questions, Some(&desired), options).await
        } else {
            let asked = &self.world["asked"];
            let account = format!("sa/{}", text(&asked["account"]));
            let object = asked["object"].as_str().unwrap_or(&account);
            let grant = &self.world["wanted"]["grants"][0];
            let said = Bare {
                kubeconfig: Some(self.kubeconfig()),
                context: Some(self.cluster.clone()),
                target: grant["scope"].as_str().map(ArmId::new),
                role: grant["name"].as_str().map(str::to_owned),
                ..Bare::default()
            };
            let object = doctor::object(object).unwrap();
            let namespace = Namespace::from(text(&asked["namespace"]));
            let questions = doctor::bare(namespace, &object, said);
            let reach = connect::without_file(self.target(), waits).await;
            doctor::doctor(reach, questions, None, options).await
        };
        let mut examined = examined.unwrap();
        assert_eq!(examined.len(), 1, "one question");
        examined.remove(0)
    }

    pub(crate) async fn stop(self) {
        self.ticker.abort();
        self.running.stop().await.unwrap();
    }
}

/// Issuer, other clusters, identities, credentials, role assignments and targets.
fn azure(store: &Store, world: &Value, cluster: &str) {
    let mut writes = Vec::new();
    let key = |id: &str| format!("arm/{}", id.to_lowercase().trim_start_matches('/'));
    let record = store.get(&key(cluster)).unwrap();
    let clone = |id: &str, issuer: &str, on: bool| {
        let mut doc = (*record).clone();
        doc["id"] = id.into();
        doc["name"] = id.rsplit('/').next().into();
        doc["issuer"] = issuer.into();
        if on {
            doc["properties"]["oidcIssuerProfile"] = json!({"enabled": true, "issuerURL": issuer});
        }
        let guid = issuer.trim_end_matches('/').rsplit('/').next().unwrap().to_owned();
        let stands_for = json!({ "cluster": id });
        [Write::put(key(id), doc), Write::put(format!("issuers/{guid}"), stands_for)]
    };
    let mut trusted = members(&world["credentials"]).flat_map(|(_, l)| items(&l["present"]));
    match (world["cluster"]["present"]["issuer"].as_str(), trusted.next()) {
        (Some(issuer), _) => writes.extend(clone(cluster, issuer, true)),
        // The issuer that the cluster has as soon as it is switched on.
        (None, Some(credential)) => {
            writes.extend(clone(cluster, text(&credential["issuer"]), false));
        }
        (None, None) => {}
    }
    let home = cluster.rsplit_once('/').unwrap().0;
    for (name, issuer) in members(&world["other_issuers"]) {
        writes.extend(clone(&format!("{home}/{name}"), text(issuer), true));
    }
    for seen in items(&world["identities"]["present"]) {
        let (id, client, principal) =
            (text(&seen["id"]), text(&seen["client_id"]), text(&seen["principal_id"]));
        let name = id.rsplit('/').next().unwrap();
        let mut tags = seen["tags"].clone();
        if world["wanted"]["identity"] == id {
            tags["widentity-project"] = "corpus".into();
        }
        writes.push(Write::put(
            key(id),
            json!({"id": id, "name": name, "location": seen["location"], "tags": tags,
                "created_ms": 0, "tenantId": seen["tenant_id"], "principalId": principal,
                "clientId": client}),
        ));
        writes.push(Write::put(
            format!("principals/{principal}"),
            json!({"type": "ServicePrincipal", "name": name, "client_id": client,
                "identity": id, "created_ms": 0}),
        ));
        let app = json!({"principal": principal, "name": name, "identity": id});
        writes.push(Write::put(format!("apps/{client}"), app));
    }
    let exists = |id: &str| {
        items(&world["identities"]["present"])
            .any(|seen| text(&seen["id"]).eq_ignore_ascii_case(id))
    };
    for (id, listed) in members(&world["credentials"]).filter(|(id, _)| exists(id)) {
        for seen in items(&listed["present"]) {
            let name = text(&seen["name"]);
            let full = format!("{id}/federatedIdentityCredentials/{name}");
            let doc = json!({"id": full, "name": name, "issuer": seen["issuer"],
                "subject": seen["subject"], "audiences": seen["audiences"], "since_ms": 0});
            writes.push(Write::put(key(&full), doc));
        }
    }
    for seen in items(&world["assignments"]["seen"]) {
        let made = millis(&seen["created_on"]);
        let doc = json!({"name": seen["name"], "scope": text(&seen["scope"]).trim_matches('/'),
            "role": seen["role"], "principalId": seen["principal_id"],
            "principalType": "ServicePrincipal", "created_ms": made, "updated_ms": made,
            "since_ms": made, "createdBy": null, "updatedBy": null,
            "condition": seen.get("condition")});
        writes.push(Write::put(format!("roles/{}", text(&seen["name"])), doc));
    }
    for (id, seen) in members(&world["targets"]) {
        let Some(doc) = store.get(&key(id)) else { continue };
        let mut doc = (*doc).clone();
        let seen = &seen["present"];
        if let Some(rbac) = seen["rbac"].as_bool() {
            doc["properties"]["enableRbacAuthorization"] = rbac.into();
        }
        let policies = items(&seen["policies"]).map(|principal| {
            json!({"tenantId": TENANT, "objectId": principal, "permissions": {"secrets": ["get", "list"]}})
        });
        doc["properties"]["accessPolicies"] = policies.collect();
        writes.push(Write::put(key(id), doc));
    }
    store.commit(writes).unwrap();
}

/// Namespace, accounts, controllers and provider classes, in the order in which they can be made.
fn objects(world: &Value) -> Vec<Value> {
    let name = &world["asked"]["namespace"];
    if world["namespace"] == "absent" {
        return Vec::new();
    }
    let labels = &world["namespace"]["present"]["labels"];
    let mut all = vec![json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": labels}})];
    let plain = json!({"scope": "Namespaced", "group": "secrets-store.csi.x-k8s.io",
        "names": {"plural": "secretproviderclasses", "singular": "secretproviderclass",
            "kind": "SecretProviderClass"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
            {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]});
    all.push(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "secretproviderclasses.secrets-store.csi.x-k8s.io"}, "spec": plain}));
    for (class, seen) in members(&world["provider_classes"]) {
        let mut parameters = json!({
            "usePodIdentity": seen["use_pod_identity"].as_bool().unwrap_or(false).to_string(),
            "useVMManagedIdentity": seen["use_vm_identity"].as_bool().unwrap_or(false).to_string(),
        });
        if seen["client_id"].is_string() {
            parameters["clientID"] = seen["client_id"].clone();
        }
        all.push(json!({"apiVersion": "secrets-store.csi.x-k8s.io/v1",
            "kind": "SecretProviderClass", "metadata": {"name": class, "namespace": name},
            "spec": {"provider": "azure", "parameters": parameters}}));
    }
    for of in items(&world["templates"]["present"]).flat_map(|t| items(&t["references"])) {
        if of["value"].is_string() {
            all.push(json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": of["name"], "namespace": name},
                "data": {text(&of["key"]): of["value"]}}));
        }
    }
    // Accounts that are gone today were there when the pods were made.
    let users = items(&world["templates"]["present"]).map(|template| text(&template["account"]));
    let known = members(&world["accounts"]["present"]).map(|(name, _)| name.as_str());
    let accounts: std::collections::BTreeSet<&str> = users.chain(known).collect();
    for account in accounts.into_iter().filter(|account| *account != "default") {
        all.push(json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": name}}));
    }
    all.extend(items(&world["templates"]["present"]).map(|seen| {
        // What has no pods in this world shall make none here.
        let idle = !items(&world["pods"]["present"]).any(|pod| made_by(pod, text(&seen["name"])));
        controller(seen, name, idle)
    }));
    all
}

/// Whether a pod of the world comes from the template of this name.
fn made_by(pod: &Value, template: &str) -> bool {
    let of = text(&pod["controller"][1]);
    of == template || of.rsplit_once('-').is_some_and(|(stem, _)| stem == template)
}

fn controller(seen: &Value, namespace: &Value, idle: bool) -> Value {
    let name = text(&seen["name"]);
    let or = |value: &Value| if value.is_null() { json!({}) } else { value.clone() };
    let mut labels = or(&seen["labels"]);
    labels["of"] = name.into();
    let mut containers: Vec<Value> = items(&seen["containers"])
        .map(|name| json!({"name": name, "image": "registry.example/app:1", "env": []}))
        .collect();
    for literal in items(&seen["literal_env"]) {
        let variable = match &literal[2] {
            Value::Null => {
                let of = items(&seen["references"]).find(|r| r["variable"] == literal[1]).unwrap();
                let kind = if of["kind"] == "Secret" { "secretKeyRef" } else { "configMapKeyRef" };
                json!({"name": literal[1], "valueFrom":
                    {kind: {"name": of["name"], "key": of["key"]}}})
            }
            value => json!({"name": literal[1], "value": value}),
        };
        let container = containers.iter_mut().find(|c| c["name"] == literal[0]).unwrap();
        container["env"].as_array_mut().unwrap().push(variable);
    }
    if let Some(first) = containers.first_mut() {
        first["args"] = seen.get("token_paths").cloned().unwrap_or(json!([]));
    }
    let mut volumes: Vec<Value> = items(&seen["provider_classes"])
        .map(|class| {
            json!({"name": class, "csi": {"driver": "secrets-store.csi.k8s.io",
            "readOnly": true, "volumeAttributes": {"secretProviderClass": class}}})
        })
        .collect();
    for (at, audience) in items(&seen["projected"]).enumerate() {
        let source = json!({"serviceAccountToken": {"audience": audience, "path": "azure"}});
        volumes.push(json!({"name": format!("own-{at}"), "projected": {"sources": [source]}}));
        for container in &mut containers {
            container["volumeMounts"] =
                json!([{"name": format!("own-{at}"), "mountPath": "/var/run/secrets/tokens"}]);
        }
    }
    let mut spec = json!({"serviceAccountName": seen["account"], "containers": containers,
        "volumes": volumes, "hostNetwork": seen["host_network"].as_bool().unwrap_or(false),
        "nodeSelector": or(&seen["node_selector"])});
    if seen["os"].is_string() {
        spec["os"] = json!({"name": seen["os"]});
    }
    let mut template = json!({
        "metadata": {"labels": labels, "annotations": or(&seen["annotations"])}, "spec": spec});
    let selector = json!({"matchLabels": {"of": name}});
    let replicas = if idle { 0 } else { seen["progress"]["desired"].as_u64().unwrap_or(1) };
    let (kind, spec) = match text(&seen["kind"]) {
        "deployment" => (
            "Deployment",
            json!({"selector": selector, "replicas": replicas, "template": template}),
        ),
        "statefulset" => (
            "StatefulSet",
            json!({"selector": selector, "serviceName": name,
            "replicas": replicas, "template": template}),
        ),
        "daemonset" => ("DaemonSet", json!({"selector": selector, "template": template})),
        "cronjob" => {
            template["spec"]["restartPolicy"] = "Never".into();
            (
                "CronJob",
                json!({"schedule": "0 3 * * *",
                "jobTemplate": {"spec": {"template": template}}}),
            )
        }
        other => panic!("a world with a {other}"),
    };
    let version = if kind == "CronJob" { "batch/v1" } else { "apps/v1" };
    json!({"apiVersion": version, "kind": kind, "spec": spec,
        "metadata": {"name": name, "namespace": namespace, "labels": or(&seen["meta"]["labels"]),
            "annotations": or(&seen["meta"]["annotations"])}})
}

/// Gives a pod what the world shows in it.
fn rewrite(pod: &mut Value, seen: &Value) {
    if seen["labelled"] == true {
        pod["metadata"]["labels"][USE] = "true".into();
    } else if let Some(labels) = pod["metadata"]["labels"].as_object_mut() {
        labels.remove(USE);
    }
    let injected = &seen["injected"];
    let ours = |volume: &Value| {
        items(&volume["projected"]["sources"]).any(|source| {
            text(&source["serviceAccountToken"]["path"]).ends_with("azure-identity-token")
        })
    };
    let volumes = pod["spec"]["volumes"].as_array_mut();
    let mut dropped = Vec::new();
    if let Some(volumes) = volumes {
        dropped.extend(volumes.iter().filter(|v| ours(v)).map(|v| text(&v["name"]).to_owned()));
        volumes.retain(|volume| !ours(volume));
        if injected["present"] == true {
            volumes.push(json!({"name": "token", "projected": {"sources": [{"serviceAccountToken":
                {"audience": injected["audience"], "path": "azure-identity-token",
                    "expirationSeconds": injected["expiration"]}}]}}));
        }
    }
    let first = |part: &str| injected[part][0].as_str();
    let values = [
        first("client_ids"),
        first("tenant_ids"),
        Some("/var/run/secrets/azure/tokens/azure-identity-token"),
        first("authority_hosts"),
    ];
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            if !container["env"].is_array() {
                container["env"] = json!([]);
            }
            let env = container["env"].as_array_mut().unwrap();
            env.retain(|variable| !INJECTED.contains(&text(&variable["name"])));
            if injected["present"] == true {
                for (name, value) in INJECTED.iter().zip(values) {
                    env.extend(value.map(|value| json!({"name": name, "value": value})));
                }
            }
            if !container["volumeMounts"].is_array() {
                container["volumeMounts"] = json!([]);
            }
            let mounts = container["volumeMounts"].as_array_mut().unwrap();
            mounts.retain(|mount| !dropped.contains(&text(&mount["name"]).to_owned()));
            if injected["present"] == true {
                mounts.push(json!({"name": "token", "mountPath": "/var/run/secrets/azure/tokens"}));
            }
        }
    }
}
