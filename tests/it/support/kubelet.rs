//! The kubelet of a test: runs the script of a proof pod for real, on this machine.

use std::{fs, io::Write as _, process::Command};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::Method;
use serde_json::{Value, json};

use super::kube_apiserver::Admin;

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
