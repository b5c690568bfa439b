//! The kubelet of a test: says that pods run, and runs the script of a proof pod for real, on this
//! machine.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::Method;
use serde_json::{Value, json};

use super::kube_apiserver::Admin;

/// How the applications of a cluster behave. One is known by the label `app` of its pods.
#[derive(Debug, Default)]
pub(crate) struct Habits {
    /// Namespaces in which nothing starts.
    pub(crate) held: BTreeSet<String>,
    /// Applications whose SDK knows Pod Identity only: without it they are never ready.
    pub(crate) old_sdk: BTreeSet<String>,
    /// Applications that are ready whether they can sign in or not.
    pub(crate) blind: BTreeSet<String>,
}

impl Habits {
    /// Whether a pod's application can sign in: Pod Identity answers who bears its label, and who
    /// bears the other one needs what the webhook injects.
    fn ready(&self, pod: &Value) -> bool {
        let labels = &pod["metadata"]["labels"];
        let app = labels["app"].as_str().unwrap_or_default();
        let moved = labels["azure.workload.identity/use"] == "true";
        let injected = || pod["spec"].to_string().contains("AZURE_FEDERATED_TOKEN_FILE");
        !labels["aadpodidbinding"].is_null()
            || self.blind.contains(app)
            || !moved
            || (injected() && !self.old_sdk.contains(app))
    }
}

/// Starts the pods of every namespace for as long as it lives.
pub(crate) struct Kubelet {
    pub(crate) habits: Arc<Mutex<Habits>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kubelet {
    pub(crate) fn start(admin: Admin) -> Self {
        let habits = Arc::new(Mutex::new(Habits::default()));
        let known = Arc::clone(&habits);
        let task = tokio::spawn(async move {
            for turn in 0_u32.. {
                if turn % 40 == 0 {
                    admin.keep_nodes().await;
                }
                admin.start_pods(&known).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self { habits, task }
    }
}

/// Where Entra is on this machine, and what vouches for it.
pub(crate) struct Authority {
    pub(crate) host: String,
    pub(crate) ca_file: String,
}

/// Whether this machine has what the script needs.
pub(crate) fn can_run(test: &str) -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok();
    if !found {
        // Not `eprintln`: the test harness hides what passing tests print through it.
        let line = format!("skipped {test}: there is no curl\n");
        drop(std::io::stderr().write_all(line.as_bytes()));
    }
    found
}

impl Admin {
    /// Says that every node is there: one that is silent for a minute is taken for lost.
    async fn keep_nodes(&self) {
        for node in self.items("/api/v1/nodes").await {
            let name = node["metadata"]["name"].as_str().unwrap();
            let now = format!("{:.0}", jiff::Timestamp::now());
            let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True",
                "reason": "KubeletReady", "lastHeartbeatTime": now}]}});
            let kind = "application/strategic-merge-patch+json";
            let path = format!("/api/v1/nodes/{name}/status");
            drop(self.attempt(Method::PATCH, &path, kind, &status).await);
        }
    }

    /// Looks at every pod once, and says that it runs and whether it is ready.
    async fn start_pods(&self, habits: &Mutex<Habits>) {
        for pod in &self.items("/api/v1/pods").await {
            let meta = &pod["metadata"];
            let namespace = meta["namespace"].as_str().unwrap();
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            let ready = {
                let habits = habits.lock().unwrap();
                let started = matches!(phase, "Pending" | "Running");
                if habits.held.contains(namespace) || !started {
                    continue;
                }
                if habits.ready(pod) { "True" } else { "False" }
            };
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let is = conditions.into_iter().find(|c| c["type"] == "Ready").map(|c| &c["status"]);
            if !meta["deletionTimestamp"].is_null() || is.is_some_and(|is| is == ready) {
                continue;
            }
            let now = jiff::Timestamp::now();
            let status = json!({"status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": format!("{now:.0}")}]}});
            let path = format!("/api/v1/namespaces/{namespace}/pods");
            let path = format!("{path}/{}/status", meta["name"].as_str().unwrap());
            // Its controller may have deleted it meanwhile.
            let kind = "application/strategic-merge-patch+json";
            drop(self.attempt(Method::PATCH, &path, kind, &status).await);
        }
    }

    /// Runs the proof pods of a namespace to their end, with their own environment, a token of
    /// their account and the authority at its loopback address; says how many there were.
    pub(crate) async fn run_proofs(&self, namespace: &str, authority: &Authority) -> usize {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let pods = self.get(&format!("{path}?labelSelector=widentity.dev%2Fproof")).await;
        let mut ran = 0;
        for pod in pods["items"].as_array().unwrap() {
            let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            if over || !pod["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            ran += 1;
            let (code, message) = self.script(namespace, pod, authority).await;
            let phase = if code == 0 { "Succeeded" } else { "Failed" };
            let status = json!({"status": {"phase": phase, "containerStatuses": [{
                "name": "proof", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "reason": "Completed",
                    "message": message}},
            }]}});
            let name = pod["metadata"]["name"].as_str().unwrap();
            let kind = "application/strategic-merge-patch+json";
            self.send(Method::PATCH, &format!("{path}/{name}/status"), kind, &status).await;
        }
        ran
    }

    async fn script(&self, namespace: &str, pod: &Value, authority: &Authority) -> (i32, String) {
        let desk = tempfile::tempdir().unwrap();
        let container = &pod["spec"]["containers"][0];
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        let source = volumes
            .iter()
            .flat_map(|v| v["projected"]["sources"].as_array().into_iter().flatten())
            .find(|s| s["serviceAccountToken"]["path"].as_str().unwrap_or("").contains("azure"))
            .expect("the webhook projected a token");
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap();
        let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [source["serviceAccountToken"]["audience"]],
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod",
                    "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}}});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let issued = self.create(&path, &asked).await;
        let (token, report) = (desk.path().join("token"), desk.path().join("report"));
        fs::write(&token, issued["status"]["token"].as_str().unwrap()).unwrap();
        let mut command = Command::new("/bin/sh");
        let arguments = container["command"].as_array().unwrap();
        command.args(arguments[1..].iter().map(|argument| argument.as_str().unwrap()));
        for variable in container["env"].as_array().unwrap() {
            let value = variable["value"].as_str().unwrap_or_default();
            command.env(variable["name"].as_str().unwrap(), value);
        }
        // What a pod has at these places is here elsewhere.
        let status = command
            .env("AZURE_FEDERATED_TOKEN_FILE", &token)
            .env("AZURE_AUTHORITY_HOST", &authority.host)
            .env("CURL_CA_BUNDLE", &authority.ca_file)
            .env("WIDENTITY_REPORT", &report)
            .status()
            .unwrap();
        let message = fs::read_to_string(&report).unwrap_or_default();
        let held = fs::read_to_string(&token).unwrap();
        assert!(!message.contains(&held) && !message.contains(&STANDARD.encode(&held)));
        (status.code().unwrap_or(-1), message)
    }
}
