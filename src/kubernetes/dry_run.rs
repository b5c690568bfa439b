//! Dry runs of pods: what comes back shows whether the webhook works in a namespace.
//!
//! The request makes nothing (`dryRun=All`) and passes every admission plugin and webhook, so a pod
//! of the workload's own template meets no rule that its running pods do not meet.

use hyper::Method;
use serde_json::{Value, json};

use super::{
    Client, KubeError,
    client::{Ask, Repeat},
    parse_pod,
    versions::{collection, kind_name, plural},
    wire::Pod,
    write::strict,
};
use crate::model::{
    AccountName, Namespace,
    names::{PROXY_ANNOTATION, USE_LABEL},
    snapshot::{Injected, TemplateKind},
};

impl Client {
    /// Asks the server what would become of a labelled pod of this account, without making one.
    /// The pod satisfies the `restricted` Pod Security Standard; with `proxy` it asks for the
    /// migration sidecar, whose init container does not.
    pub async fn dry_run_pod(
        &self,
        namespace: &Namespace,
        account: &AccountName,
        proxy: bool,
        manager: &str,
    ) -> Result<Injected, KubeError> {
        let mut body = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": "widentity-check-",
                "namespace": namespace.as_str(),
                "labels": {USE_LABEL: "true"},
            },
            "spec": {
                "serviceAccountName": account.as_str(),
                "restartPolicy": "Never",
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": 65535,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "check",
                    "image": "registry.k8s.io/pause:3.10",
                    "resources": small(),
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": true,
                        "runAsNonRoot": true,
                    },
                }],
            },
        });
        if proxy {
            body["metadata"]["annotations"] = json!({PROXY_ANNOTATION: "true"});
        }
        self.dry_run(namespace, body, manager).await
    }

    /// Asks the same for a pod of a controller's template, with the label on it; none where the
    /// controller does not exist. Where a quota has no room for one more such pod, a small one is
    /// asked for.
    pub async fn dry_run_like(
        &self,
        kind: TemplateKind,
        api_version: &str,
        namespace: &Namespace,
        name: &str,
        proxy: bool,
        manager: &str,
    ) -> Result<Option<Injected>, KubeError> {
        let place = Some(namespace.as_str());
        let found = self.object(api_version, place, plural(kind), name).await?;
        let Some(controller) = found else { return Ok(None) };
        let mut body = pod_of(kind, api_version, &controller, proxy);
        match self.dry_run(namespace, body.clone(), manager).await {
            Err(full) if full.is_over_quota() => {
                shrink(&mut body);
                self.dry_run(namespace, body, manager).await.map_err(|_| full).map(Some)
            }
            injected => injected.map(Some),
        }
    }

    async fn dry_run(
        &self,
        namespace: &Namespace,
        body: Value,
        manager: &str,
    ) -> Result<Injected, KubeError> {
        let mut query = strict(manager);
        query.push(("dryRun", "All".to_owned()));
        let answer: Pod = self
            .ask(&Ask {
                method: Method::POST,
                path: collection("v1", Some(namespace.as_str()), "pods"),
                query,
                body: Some(("application/json", body)),
                repeat: Repeat::Safe,
            })
            .await?;
        Ok(parse_pod::injected(&answer))
    }
}

/// What a quota in the namespace may demand, and little of it.
fn small() -> Value {
    json!({
        "requests": {"cpu": "1m", "memory": "8Mi"},
        "limits": {"cpu": "10m", "memory": "8Mi"},
    })
}

/// A pod as the controller would make it from its template, once the template has the label.
fn pod_of(kind: TemplateKind, version: &str, controller: &Value, proxy: bool) -> Value {
    let template = controller.pointer(&kind.template_pointer()).unwrap_or(&Value::Null);
    let own = &controller["metadata"];
    let mut metadata = json!({
        "generateName": "widentity-check-",
        "namespace": own["namespace"],
        "labels": template["metadata"]["labels"],
        "annotations": template["metadata"]["annotations"],
        // Policies refuse pods that nobody controls.
        "ownerReferences": [{
            "apiVersion": version,
            "kind": kind_name(kind),
            "name": own["name"],
            "uid": own["uid"],
            "controller": true,
        }],
    });
    metadata["labels"][USE_LABEL] = json!("true");
    if proxy && metadata["annotations"][PROXY_ANNOTATION].is_null() {
        metadata["annotations"][PROXY_ANNOTATION] = json!("true");
    }
    let mut spec = template["spec"].clone();
    // Volumes of claims stand beside the template, and a pod that mounts them must have them.
    let claims = controller["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
    let mut volumes: Vec<Value> = spec["volumes"].as_array().cloned().unwrap_or_default();
    for claim in claims {
        let name = &claim["metadata"]["name"];
        volumes.retain(|volume| volume["name"] != *name);
        volumes.push(json!({"name": name, "emptyDir": {}}));
    }
    if !volumes.is_empty() {
        spec["volumes"] = Value::Array(volumes);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// The same pod with as little as possible of what quotas count.
fn shrink(pod: &mut Value) {
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            container["resources"] = small();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_what_its_controller_would_make_of_the_labelled_template() {
        let set = json!({"metadata": {"name": "db", "namespace": "n", "uid": "u"}, "spec": {
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            "template": {"metadata": {"labels": {"app": "db"}, "creationTimestamp": null},
                "spec": {"serviceAccountName": "db", "volumes": [{"name": "tmp", "emptyDir": {}}],
                    "containers": [{"name": "c", "image": "own.test/db", "resources":
                        {"limits": {"memory": "8Gi"}}}]}}}});
        let mut pod = pod_of(TemplateKind::StatefulSet, "apps/v1", &set, false);
        assert_eq!(pod["metadata"]["labels"], json!({"app": "db", USE_LABEL: "true"}));
        assert_eq!(pod["metadata"]["annotations"], Value::Null);
        assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "StatefulSet");
        assert_eq!(pod["spec"]["containers"][0]["image"], "own.test/db");
        let volumes = json!([{"name": "tmp", "emptyDir": {}}, {"name": "data", "emptyDir": {}}]);
        assert_eq!(pod["spec"]["volumes"], volumes);
        shrink(&mut pod);
        assert_eq!(pod["spec"]["containers"][0]["resources"], small());

        let job = json!({"metadata": {"name": "j"}, "spec": {"jobTemplate": {"spec": {"template":
            {"spec": {"restartPolicy": "OnFailure", "containers": []}}}}}});
        let pod = pod_of(TemplateKind::CronJob, "batch/v1", &job, true);
        assert_eq!(pod["spec"]["restartPolicy"], "OnFailure");
        assert_eq!(pod["metadata"]["annotations"], json!({PROXY_ANNOTATION: "true"}));
    }
}
