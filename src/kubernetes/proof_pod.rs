//! Pods that are made to prove a chain: created, looked at, removed by uid.

use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Client, KubeError,
    client::{Ask, Repeat, segment},
    parse_pod,
    versions::collection,
    wire::Pod,
    write::strict,
};
use crate::model::{
    AccountName, Namespace,
    names::{PROJECT_ANNOTATION, PROOF_LABEL},
    snapshot::Injected,
};

/// A pod of ours, as far as a proof looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofPod {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The account that it runs as.
    pub account: AccountName,
    /// The project that it says it belongs to.
    pub project: Option<String>,
    /// When the server made it.
    pub created: Option<Timestamp>,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// What the webhook put into it.
    pub injected: Injected,
    /// Why it does not run yet, as the kubelet or the scheduler says: a reason and a message.
    pub waiting: Option<(String, String)>,
    /// How its container ended.
    pub ended: Option<Ended>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub exit_code: i64,
    /// The kubelet's word, for example `Completed` or `OOMKilled`.
    pub reason: String,
    /// What it wrote to its termination log.
    pub message: String,
}

impl ProofPod {
    /// Whether nothing of it runs any more.
    pub fn is_over(&self) -> bool {
        self.ended.is_some() || matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    fn read(object: Value) -> Result<Self, KubeError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let status = &object["status"]["containerStatuses"][0]["state"];
        let ended = status["terminated"].as_object().map(|ended| Ended {
            exit_code: ended.get("exitCode").and_then(Value::as_i64).unwrap_or(-1),
            reason: ended.get("reason").map(text).unwrap_or_default(),
            message: ended.get("message").map(text).unwrap_or_default(),
        });
        let unscheduled = object["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["type"] == "PodScheduled" && c["status"] == "False");
        let why = |value: &Value| (text(&value["reason"]), text(&value["message"]));
        let waiting = Some(&status["waiting"]).filter(|waiting| waiting.is_object());
        let waiting = waiting.or(unscheduled).map(why);
        let project = object["metadata"]["annotations"][PROJECT_ANNOTATION].as_str();
        let project = project.map(str::to_owned);
        let account = text(&object["spec"]["serviceAccountName"]);
        let pod: Pod = serde_json::from_value(object)
            .map_err(|error| KubeError::Body { message: error.to_string() })?;
        Ok(Self {
            injected: parse_pod::injected(&pod),
            name: pod.metadata.name,
            uid: pod.metadata.uid,
            account: AccountName::from(account.as_str()),
            project,
            created: pod.metadata.creation_timestamp.and_then(|text| text.parse().ok()),
            phase: pod.status.phase,
            waiting,
            ended,
        })
    }
}

impl Client {
    /// Makes a pod, once: whether one was made where no answer came is for the caller to look.
    pub async fn create_proof_pod(
        &self,
        namespace: &Namespace,
        body: &Value,
        manager: &str,
    ) -> Result<ProofPod, KubeError> {
        let made: Value = self
            .ask(&Ask {
                method: Method::POST,
                path: collection("v1", Some(namespace.as_str()), "pods"),
                query: strict(manager),
                body: Some(("application/json", body.clone())),
                repeat: Repeat::Unsafe,
            })
            .await?;
        ProofPod::read(made)
    }

    /// A proof pod; none where it is gone.
    pub async fn proof_pod(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<ProofPod>, KubeError> {
        let path = collection("v1", Some(namespace.as_str()), "pods");
        let found: Option<Value> = self.find(format!("{path}/{}", segment(name))).await?;
        found.map(ProofPod::read).transpose()
    }

    /// The pods of a namespace that bear this mark.
    pub async fn proof_pods(
        &self,
        namespace: &Namespace,
        mark: &str,
    ) -> Result<Vec<ProofPod>, KubeError> {
        let path = collection("v1", Some(namespace.as_str()), "pods");
        let query = [("labelSelector", format!("{PROOF_LABEL}={mark}"))];
        let found: Vec<Value> =
            self.list_where(&path, &query, |found: &mut Vec<Value>, pod| found.push(pod)).await?;
        found.into_iter().map(ProofPod::read).collect()
    }

    /// Removes a proof pod, unless it was made again since. One that is gone is well.
    pub async fn delete_proof_pod(
        &self,
        namespace: &Namespace,
        pod: &ProofPod,
    ) -> Result<(), KubeError> {
        let path = collection("v1", Some(namespace.as_str()), "pods");
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": {"uid": pod.uid}});
        let asked: Result<Value, KubeError> = self
            .ask(&Ask {
                method: Method::DELETE,
                path: format!("{path}/{}", segment(&pod.name)),
                query: Vec::new(),
                body: Some(("application/json", body)),
                // The uid makes it safe: a second request finds nothing, or another pod.
                repeat: Repeat::Safe,
            })
            .await;
        match asked {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            asked => asked.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_a_pod_up_and_how_it_ended_are_read() {
        let pod = |status: Value| {
            ProofPod::read(json!({
                "metadata": {"name": "p", "uid": "u", "creationTimestamp": "2026-11-22T02:00:00Z",
                    "annotations": {PROJECT_ANNOTATION: "shop"}},
                "spec": {"serviceAccountName": "api", "containers": [{"name": "proof"}]},
                "status": status,
            }))
            .unwrap()
        };
        let unscheduled = pod(json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/3 nodes are available"}]}));
        assert_eq!(unscheduled.waiting.unwrap().0, "Unschedulable");
        assert_eq!(unscheduled.project.as_deref(), Some("shop"));
        let pulling = pod(json!({"phase": "Pending", "containerStatuses": [
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}}]}));
        assert_eq!(pulling.waiting.as_ref().unwrap().0, "ImagePullBackOff");
        assert!(!pulling.is_over());
        let done = pod(json!({"phase": "Succeeded", "containerStatuses": [
            {"state": {"terminated": {"exitCode": 0, "reason": "Completed", "message": "{}"}}}]}));
        assert!(done.is_over());
        assert_eq!(done.ended.unwrap().message, "{}");
    }
}
