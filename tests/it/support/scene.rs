//! An estate on AAD Pod Identity in a real cluster, with the sandbox as Azure before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use reqwest::Client as Http;
use serde_json::{Value, json};

use super::{
    arm,
    cli::{Desk, Ran},
    kube_apiserver::{Admin, ApiServer},
    kubelet::Kubelet,
    pod_identity::{GROUP, custom, make},
};
use crate::real_cluster::Azure;

const SUBSCRIPTION: &str = "a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813";
/// What Azure needs to take up changes costs a test seconds.
const AT_ONCE: &str =
    "--delay fic=0s --delay fic-write=0s --delay parent=0s --delay negative-cache=0s";

/// A cluster with Pod Identity, Azure before it, and a desk.
pub(crate) struct Scene {
    pub(crate) desk: Desk,
    pub(crate) admin: Admin,
    pub(crate) kubelet: Kubelet,
    azure: Azure,
    http: Http,
    token: String,
    kubeconfig: String,
}

impl Scene {
    pub(crate) async fn new(server: &ApiServer) -> Self {
        let admin = Admin::of(server).await;
        let desk = Desk::new();
        desk.write("workloads.toml", file("", ""));
        let azure = tokio::task::block_in_place(|| Azure::serve(&desk, server, AT_ONCE));
        let pem = std::fs::read(azure.text("ca_file")).unwrap();
        let certificate = reqwest::Certificate::from_pem(&pem).unwrap();
        let http = Http::builder().tls_certs_only([certificate]).build().unwrap();
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}\
             &scope=https://management.azure.com/.default",
            azure.text("client_id"),
            azure.text("client_secret")
        );
        let url = format!("{}/{}/oauth2/v2.0/token", azure.text("authority"), azure.text("tenant"));
        let request = http.post(url).header("content-type", "application/x-www-form-urlencoded");
        let (_, answer) = arm::answered(request.body(form)).await.unwrap();
        let token = answer["access_token"].as_str().unwrap().to_owned();
        let kubelet = Kubelet::start(Admin::of(server).await);
        let kubeconfig = server.kubeconfig.display().to_string();
        let scene = Self { desk, admin, kubelet, azure, http, token, kubeconfig };
        scene.decide("");
        scene
    }

    /// Writes the file of the real cluster, with these `[[workloads]]`.
    pub(crate) fn decide(&self, workloads: &str) {
        self.desk.write("real.toml", self.file_by(&self.kubeconfig, workloads));
    }

    /// The file for a cluster that is reached with a kubeconfig.
    pub(crate) fn file_by(&self, kubeconfig: &str, workloads: &str) -> String {
        let cloud = format!(
            "cloud = {{ resource_manager = \"{}\", authority = \"{}\", ca_file = \"{}\" }}",
            self.azure.text("resource_manager"),
            self.azure.text("authority"),
            self.azure.text("ca_file"),
        );
        let access = format!("context = \"admin\"\nkubeconfig = \"{kubeconfig}\"");
        file(&cloud, &access) + workloads
    }

    /// Starts the program, signed in.
    pub(crate) fn command(&self, line: &str) -> std::process::Command {
        let mut command = self.desk.command(line);
        self.azure.sign_in(&mut command);
        command
    }

    /// Runs `widentity -c real.toml`.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.run_by("real.toml", line)
    }

    /// The same with another file.
    pub(crate) fn run_by(&self, file: &str, line: &str) -> Ran {
        let mut command = self.command(&format!("-c {file} {line}"));
        tokio::task::block_in_place(|| self.desk.finish(&mut command))
    }

    /// Makes a managed identity, and an `AzureIdentity` with a binding for it.
    pub(crate) async fn bind(&self, namespace: &str, name: &str, old: bool) {
        let id = identity(namespace, name);
        let client = self.identity(&id).await;
        let (identity, binding) = if old {
            (
                json!({"type": 0, "ResourceID": id, "ClientID": client}),
                json!({"AzureIdentity": name, "Selector": name}),
            )
        } else {
            (
                json!({"type": 0, "resourceID": id, "clientID": client}),
                json!({"azureIdentity": name, "selector": name}),
            )
        };
        let objects = [
            custom("AzureIdentity", "azureidentities", (namespace, name), identity),
            custom("AzureIdentityBinding", "azureidentitybindings", (namespace, name), binding),
        ];
        make(&self.admin, &objects).await;
    }

    /// Makes a managed identity; its client id.
    async fn identity(&self, id: &str) -> String {
        let url = format!(
            "{}{id}?api-version=2023-01-31",
            self.azure.text("resource_manager").trim_end_matches('/')
        );
        let request = self.http.put(url).bearer_auth(&self.token);
        let request = arm::json(request, &json!({"location": "westeurope"}));
        let (status, answer) = arm::answered(request).await.unwrap();
        assert!(status < 300, "{status} {answer}");
        answer["properties"]["clientId"].as_str().unwrap().to_owned()
    }

    /// Makes a controller with an account of its own name.
    pub(crate) async fn controller(&self, namespace: &str, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name}});
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.admin.create(&accounts, &account).await;
        self.admin.create(&collection(namespace, object), object).await;
    }

    /// The phase and verdict of each workload, by `namespace/account`.
    pub(crate) fn standing(&self, line: &str) -> BTreeMap<String, (String, String)> {
        let ran = self.run(&format!("-o json migrate status {line}")).exits(0);
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        let workloads = document["clusters"][0]["workloads"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        workloads
            .iter()
            .map(|w| {
                let name = format!("{}/{}", text(&w["namespace"]), text(&w["account"]));
                (name, (text(&w["phase"]), text(&w["verdict"])))
            })
            .collect()
    }

    /// The phase of one.
    pub(crate) fn phase(&self, namespace: &str, account: &str) -> String {
        self.standing("")[&format!("{namespace}/{account}")].0.clone()
    }

    /// Waits until every Deployment and `StatefulSet` of a namespace has its pods.
    pub(crate) async fn settled(&self, namespace: &str) {
        let settled = async {
            loop {
                let mut open = Vec::new();
                for plural in ["deployments", "statefulsets", "daemonsets"] {
                    let path = format!("/apis/apps/v1/namespaces/{namespace}/{plural}");
                    let list = self.admin.get(&path).await;
                    let all = list["items"].as_array().unwrap().clone();
                    open.extend(all.into_iter().filter(|object| !is_settled(object)));
                }
                if open.is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let settled = tokio::time::timeout(Duration::from_secs(60), settled).await;
        assert!(settled.is_ok(), "the controllers of {namespace} do not settle");
    }

    /// Everything of a namespace that somebody made: by path, without what the server keeps.
    pub(crate) async fn everything(&self, namespace: &str) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for (root, plurals) in [
            ("/apis/apps/v1", &["deployments", "statefulsets", "daemonsets", "replicasets"][..]),
            ("/apis/batch/v1beta1", &["cronjobs"]),
            ("/apis/batch/v1", &["jobs"]),
            ("/api/v1", &["serviceaccounts", "configmaps", "services"]),
            (&format!("/apis/{GROUP}/v1"), &["azureidentities", "azureidentitybindings"]),
        ] {
            for plural in plurals {
                let path = format!("{root}/namespaces/{namespace}/{plural}");
                let list = self.admin.get(&path).await;
                for object in list["items"].as_array().unwrap() {
                    if !object["metadata"]["ownerReferences"].is_null() {
                        continue;
                    }
                    let name = object["metadata"]["name"].as_str().unwrap();
                    all.insert(format!("{plural}/{name}"), bare(object.clone()));
                }
            }
        }
        all
    }
}

fn is_settled(object: &Value) -> bool {
    let status = &object["status"];
    let count = |key: &str| status[key].as_i64().unwrap_or_default();
    let seen = count("observedGeneration") >= object["metadata"]["generation"].as_i64().unwrap();
    let wanted = object["spec"]["replicas"].as_i64();
    seen && match wanted {
        Some(wanted) => {
            let ready = count("readyReplicas");
            ready == wanted && count("replicas") == wanted && count("updatedReplicas") == wanted
        }
        None => count("numberReady") > 0 && count("numberReady") == count("desiredNumberScheduled"),
    }
}

/// An object without what the server and its controllers write.
pub(crate) fn bare(mut object: Value) -> Value {
    object.as_object_mut().unwrap().remove("status");
    let meta = object["metadata"].as_object_mut().unwrap();
    for key in ["resourceVersion", "generation", "managedFields", "selfLink"] {
        meta.remove(key);
    }
    let revision = "deployment.kubernetes.io/revision";
    if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(revision);
        annotations.remove("deprecated.daemonset.template.generation");
        if annotations.is_empty() {
            meta.remove("annotations");
        }
    }
    object
}

/// The file: with nothing more it is the sandbox's, which knows the cluster's name only.
fn file(cloud: &str, access: &str) -> String {
    format!(
        r#"
version = 1
project = "real"

[azure]
tenant = "5d1f0c2e-7a44-4c1b-9e37-2f8a6b90c451"
subscription = "{SUBSCRIPTION}"
resource_group = "rg-identities"
location = "westeurope"
{cloud}

[clusters.prod]
id = "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks-real"
{access}
"#
    )
}

pub(crate) fn identity(namespace: &str, name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-identities/providers\
         /Microsoft.ManagedIdentity/userAssignedIdentities/id-{namespace}-{name}"
    )
}

pub(crate) fn collection(namespace: &str, object: &Value) -> String {
    let version = object["apiVersion"].as_str().unwrap();
    let kind = object["kind"].as_str().unwrap().to_lowercase();
    let root = if version.contains('/') { "/apis" } else { "/api" };
    format!("{root}/{version}/namespaces/{namespace}/{kind}s")
}

/// A pod template that Pod Identity selects by the name of its application.
pub(crate) fn template(name: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name, "aadpodidbinding": name}},
        "spec": {
            "serviceAccountName": name,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "app", "image": "example.test/app:1",
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}}}],
        },
    })
}

/// A controller that selects its pods by the name of its application.
pub(crate) fn controller(version: &str, kind: &str, name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["template"] = template(name);
    spec["selector"] = json!({"matchLabels": {"app": name}});
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

pub(crate) fn deployment(name: &str, replicas: usize) -> Value {
    controller("apps/v1", "Deployment", name, json!({"replicas": replicas}))
}

/// A workload of the file that decides for these templates.
pub(crate) fn decided(namespace: &str, account: &str, pods: &str) -> String {
    format!(
        "\n[[workloads]]\nnamespace = \"{namespace}\"\nservice_account = \"{account}\"\n\
         identity = \"{}\"\ngrants = []\npods = [{pods}]\n",
        identity(namespace, account)
    )
}

/// What the managers of widentity own of an object, as paths.
pub(crate) fn owned(object: &Value) -> BTreeSet<String> {
    fn leaves(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        let fields = value.as_object().unwrap();
        let inner: Vec<_> = fields.iter().filter(|(key, _)| key.starts_with("f:")).collect();
        if inner.is_empty() {
            into.insert(path.to_owned());
        }
        for (key, value) in inner {
            leaves(value, &format!("{path}/{}", &key[2..]), into);
        }
    }
    let mut found = BTreeSet::new();
    for entry in object["metadata"]["managedFields"].as_array().unwrap() {
        if entry["manager"].as_str().unwrap().starts_with("widentity") {
            leaves(&entry["fieldsV1"], "", &mut found);
        }
    }
    found
}
