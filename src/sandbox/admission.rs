//! The workload identity webhook for a real API server, served on loopback.
//!
//! The pod is changed by the same code as in emulated clusters; here are the admission protocol
//! (`admission.k8s.io/v1` in the Kubernetes API reference) and the registration, which is that of
//! azure-workload-identity's deployment manifest with a URL instead of a service.

use std::{net::SocketAddr, sync::Arc};

use axum::{Json, Router, extract::State, http::Request, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use super::{
    context::Context,
    kubernetes::webhook::{WEBHOOK_NAME, WebhookConfig, mutate_pod},
    tls::{self, TlsError},
};

const PATH: &str = "/mutate-v1-pod";
const CONFIGURATION: &str = "azure-wi-webhook-mutating-webhook-configuration";

/// The webhook could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The certificate authority.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The API server refused it.
    #[error("registering the workload identity webhook")]
    Request(#[source] Box<kube::Error>),
}

/// What the webhook of one real cluster works with.
pub(super) struct Webhook {
    client: kube::Client,
    config: WebhookConfig,
}

impl Webhook {
    pub(super) fn new(ctx: &Context, client: kube::Client, kubernetes_minor: u32) -> Self {
        let config = WebhookConfig {
            tenant: ctx.settings.tenant.to_string(),
            authority_host: "https://login.microsoftonline.com/".to_owned(),
            audience: "api://AzureADTokenExchange".to_owned(),
            layout: ctx.settings.webhook_layout,
            kubernetes_minor,
        };
        Self { client, config }
    }

    /// The webhook as an axum router.
    pub(super) fn router(self) -> Router {
        Router::new().route(PATH, post(review)).with_state(Arc::new(self))
    }

    /// The service account of a pod, as the API server has it.
    async fn account(&self, namespace: &str, name: &str) -> Result<Option<Value>, kube::Error> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}");
        let request = Request::get(path).body(Vec::new()).unwrap_or_default();
        match self.client.request::<Value>(request).await {
            Ok(account) => Ok(Some(account)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

async fn review(State(webhook): State<Arc<Webhook>>, Json(review): Json<Value>) -> Json<Value> {
    let request = &review["request"];
    let mut pod = request["object"].clone();
    let name = pod["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty());
    let namespace = request["namespace"].as_str().unwrap_or("default");
    let account = webhook.account(namespace, name.unwrap_or("default")).await;
    let changed = account
        .map_err(|error| error.to_string())
        .and_then(|account| mutate_pod(&mut pod, account.as_ref(), &webhook.config));
    let mut response = json!({ "uid": request["uid"], "allowed": changed.is_ok() });
    match changed {
        Ok(()) => {
            let mut patch = Vec::new();
            differences("", &request["object"], &pod, &mut patch);
            if !patch.is_empty() {
                response["patchType"] = "JSONPatch".into();
                response["patch"] = BASE64.encode(Value::from(patch).to_string()).into();
            }
        }
        Err(message) => response["status"] = json!({ "code": 400, "message": message }),
    }
    let version = review["apiVersion"].as_str().unwrap_or("admission.k8s.io/v1");
    Json(json!({ "apiVersion": version, "kind": "AdmissionReview", "response": response }))
}

/// The JSON patch (RFC 6902) that makes `new` of `old`, appended to `steps`.
fn differences(path: &str, old: &Value, new: &Value, steps: &mut Vec<Value>) {
    match (old, new) {
        (Value::Object(had), Value::Object(has)) => {
            for name in had.keys().filter(|name| !has.contains_key(*name)) {
                steps.push(json!({ "op": "remove", "path": format!("{path}/{}", escaped(name)) }));
            }
            for (name, value) in has {
                let path = format!("{path}/{}", escaped(name));
                match had.get(name) {
                    Some(old) => differences(&path, old, value, steps),
                    None => steps.push(json!({ "op": "add", "path": path, "value": value })),
                }
            }
        }
        (Value::Array(had), Value::Array(has)) if had.len() <= has.len() => {
            for (index, (old, new)) in had.iter().zip(has).enumerate() {
                differences(&format!("{path}/{index}"), old, new, steps);
            }
            for value in &has[had.len()..] {
                steps.push(json!({ "op": "add", "path": format!("{path}/-"), "value": value }));
            }
        }
        (old, new) if old == new => {}
        (_, new) => steps.push(json!({ "op": "replace", "path": path, "value": new })),
    }
}

/// A member name in a JSON pointer (RFC 6901).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Registers the webhook at `address` with the API server.
pub(super) async fn register(
    ctx: &Context,
    client: &kube::Client,
    address: SocketAddr,
) -> Result<(), RegistrationError> {
    let body = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": CONFIGURATION, "labels": { "azure-workload-identity.io/system": "true" },
        },
        "webhooks": [{
            "name": WEBHOOK_NAME,
            "admissionReviewVersions": ["v1", "v1beta1"],
            "clientConfig": {
                "url": format!("https://{address}{PATH}"),
                "caBundle": BASE64.encode(tls::ca_pem(ctx)?),
            },
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "objectSelector": { "matchLabels": { "azure.workload.identity/use": "true" } },
            "reinvocationPolicy": "IfNeeded",
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["pods"],
            }],
            "sideEffects": "None",
        }],
    });
    let path = format!("{}?fieldManager=widentity-sandbox&force=true", collection());
    let request = Request::patch(path)
        .header("content-type", "application/apply-patch+yaml")
        .body(body.to_string().into_bytes())
        .unwrap_or_default();
    let sent = client.request::<Value>(request).await;
    sent.map(drop).map_err(|error| RegistrationError::Request(Box::new(error)))
}

/// Takes the registration back: with its policy `Fail`, no labelled pod could start without us.
pub(super) async fn withdraw(client: &kube::Client) {
    let request = Request::delete(collection()).body(Vec::new()).unwrap_or_default();
    // The server may be gone already, and then there is nothing to take back.
    drop(client.request::<Value>(request).await);
}

fn collection() -> String {
    format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{CONFIGURATION}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_holds_only_what_differs() {
        let old = json!({ "a/b": 1, "gone": 1, "list": [{ "x": 1 }], "same": [1] });
        let new = json!({ "a/b": 2, "list": [{ "x": 1, "y": 2 }, 3], "same": [1] });
        let mut patch = Vec::new();
        differences("", &old, &new, &mut patch);
        assert_eq!(
            Value::from(patch),
            json!([
                { "op": "remove", "path": "/gone" },
                { "op": "replace", "path": "/a~1b", "value": 2 },
                { "op": "add", "path": "/list/0/y", "value": 2 },
                { "op": "add", "path": "/list/-", "value": 3 },
            ])
        );
    }
}
