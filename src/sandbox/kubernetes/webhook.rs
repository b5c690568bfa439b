//! What the workload identity webhook does to a pod.
//!
//! Written after the documented behaviour of azure-workload-identity
//! (<https://azure.github.io/azure-workload-identity/docs/installation/mutating-admission-webhook.html>,
//! <https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html>)
//! and of its releases 1.5.1 and 1.6.0.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::super::context::WebhookLayout;

/// Name of the webhook in its configuration and in error messages.
pub const WEBHOOK_NAME: &str = "mutation.azure-workload-identity.io";

const PREFIX: &str = "azure.workload.identity/";

/// How the webhook is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// `AZURE_TENANT_ID` of its configuration, used for accounts that name no tenant.
    pub tenant: String,
    /// With a trailing slash, such as `https://login.microsoftonline.com/`.
    pub authority_host: String,
    /// Audience of the projected token.
    pub audience: String,
    /// Volume and path names of a release.
    pub layout: WebhookLayout,
    /// Minor version of the API server; from 32 on the proxy is a native sidecar.
    pub kubernetes_minor: u32,
}

/// Changes a labelled pod as the webhook would.
///
/// `service_account` is the account that the pod names, `None` if it does not exist. The error is
/// the text with which the webhook denies the pod.
pub fn mutate_pod(
    pod: &mut Value,
    service_account: Option<&Value>,
    config: &WebhookConfig,
) -> Result<(), String> {
    let proxy = annotation(pod, "inject-proxy-sidecar").is_some();
    if proxy && pod["spec"]["hostNetwork"] == true {
        return Err("hostNetwork is set to true, cannot inject proxy sidecar".to_owned());
    }
    let Some(account) = service_account else {
        let name = pod["spec"]["serviceAccountName"].as_str().filter(|n| !n.is_empty());
        return Err(format!("serviceaccounts \"{}\" not found", name.unwrap_or("default")));
    };
    let expiration = expiration(pod, account)?;
    if proxy {
        let port = proxy_port(pod)?;
        inject_proxy(pod, port, config);
    }
    let volume = volume_name(pod, config.layout);
    let variables = variables(account, config);
    let skipped: Vec<String> = annotation(pod, "skip-containers")
        .map(|list| list.split(';').map(|name| name.trim().to_owned()).collect())
        .unwrap_or_default();
    for list in ["initContainers", "containers"] {
        for container in
            pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
        {
            let name = container["name"].as_str().unwrap_or_default();
            if skipped.iter().any(|s| s == name) {
                continue;
            }
            add_variables(container, &variables);
            add_mount(container, &volume, config.layout);
        }
    }
    add_volume(pod, &volume, expiration, config);
    Ok(())
}

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(format!("{PREFIX}{name}"))?.as_str()
}

/// Seconds that the projected token lives: the pod's annotation wins over the account's.
fn expiration(pod: &Value, account: &Value) -> Result<i64, String> {
    const NAME: &str = "service-account-token-expiration";
    let Some(text) = annotation(pod, NAME).or_else(|| annotation(account, NAME)) else {
        return Ok(3600);
    };
    let seconds: i64 =
        text.parse().map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))?;
    if (3600..=86_400).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(format!(
            "token expiration {seconds} not valid. Expected value to be between 3600 and 86400"
        ))
    }
}

fn proxy_port(pod: &Value) -> Result<i32, String> {
    match annotation(pod, "proxy-sidecar-port") {
        None => Ok(8000),
        Some(text) => text.parse().map_err(|_| {
            format!(
                "failed to parse proxy sidecar port: strconv.ParseInt: parsing {text:?}: invalid \
                 syntax"
            )
        }),
    }
}

/// Name and value of each variable, in the order in which they are appended; empty ones are left
/// out since release 1.5.1.
fn variables(account: &Value, config: &WebhookConfig) -> Vec<(&'static str, String)> {
    let client = annotation(account, "client-id").unwrap_or_default().to_owned();
    // An empty tenant annotation counts: it hides the configured tenant.
    let tenant = annotation(account, "tenant-id").unwrap_or(&config.tenant).to_owned();
    let (mount, file) = paths(config.layout);
    [
        ("AZURE_CLIENT_ID", client),
        ("AZURE_TENANT_ID", tenant),
        ("AZURE_FEDERATED_TOKEN_FILE", format!("{mount}/{file}")),
        ("AZURE_AUTHORITY_HOST", config.authority_host.clone()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .collect()
}

/// Mount path, and path of the token below it.
fn paths(layout: WebhookLayout) -> (&'static str, &'static str) {
    match layout {
        WebhookLayout::V1_5 => ("/var/run/secrets/azure/tokens", "azure-identity-token"),
        WebhookLayout::V1_6 => ("/var/run/secrets/azure/wi", "token/azure-identity-token"),
    }
}

fn volume_name(pod: &Value, layout: WebhookLayout) -> String {
    match layout {
        WebhookLayout::V1_5 => "azure-identity-token".to_owned(),
        WebhookLayout::V1_6 => {
            // Controllers create pods without a name; then the prefix stands for it.
            let name =
                if let Some(name) = pod["metadata"]["name"].as_str().filter(|n| !n.is_empty()) {
                    name.to_owned()
                } else {
                    let prefix = pod["metadata"]["generateName"].as_str().unwrap_or_default();
                    format!("{prefix} (prefix)")
                };
            let mut hash = String::new();
            for byte in Sha256::digest(name).iter().take(15) {
                // Writing to a string cannot fail.
                let _ = write!(hash, "{byte:02x}");
            }
            format!("azure-workload-identity-reserved-{hash}")
        }
    }
}

fn list<'a>(object: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    if !object[key].is_array() {
        object[key] = Value::Array(Vec::new());
    }
    match &mut object[key] {
        Value::Array(items) => items,
        // Made an array two lines above.
        _ => unreachable!("a list"),
    }
}

fn add_variables(container: &mut Value, variables: &[(&'static str, String)]) {
    let env = list(container, "env");
    for (name, value) in variables {
        if !env.iter().any(|e| e["name"] == *name) {
            env.push(json!({"name": name, "value": value}));
        }
    }
}

fn add_mount(container: &mut Value, volume: &str, layout: WebhookLayout) {
    let (path, _) = paths(layout);
    let mounts = list(container, "volumeMounts");
    if !mounts.iter().any(|m| m["name"] == volume) {
        mounts.push(json!({"name": volume, "mountPath": path, "readOnly": true}));
    }
}

fn add_volume(pod: &mut Value, name: &str, expiration: i64, config: &WebhookConfig) {
    let (_, file) = paths(config.layout);
    let volumes = list(&mut pod["spec"], "volumes");
    match config.layout {
        WebhookLayout::V1_5 => {
            // A projected volume that already has the token stays as it is.
            let has = |v: &Value| {
                v["projected"]["sources"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|s| s["serviceAccountToken"]["path"] == file)
            };
            if volumes.iter().any(|v| v["name"] == name || has(v)) {
                return;
            }
        }
        WebhookLayout::V1_6 => volumes.retain(|v| v["name"] != name),
    }
    volumes.push(json!({"name": name, "projected": {"sources": [{"serviceAccountToken": {
        "audience": config.audience, "expirationSeconds": expiration, "path": file}}]}}));
}

fn inject_proxy(pod: &mut Value, port: i32, config: &WebhookConfig) {
    let version = match config.layout {
        WebhookLayout::V1_5 => "v1.5.1",
        WebhookLayout::V1_6 => "v1.6.0",
    };
    let image =
        |name: &str| format!("mcr.microsoft.com/oss/v2/azure/workload-identity/{name}:{version}");
    let init = json!({"name": "azwi-proxy-init", "image": image("proxy-init"),
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "PROXY_PORT", "value": port.to_string()}],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
            "privileged": true, "runAsNonRoot": false, "runAsUser": 0}});
    let mut proxy = Map::new();
    proxy.insert("name".into(), "azwi-proxy".into());
    proxy.insert("image".into(), image("proxy").into());
    proxy.insert("imagePullPolicy".into(), "IfNotPresent".into());
    proxy.insert("args".into(), json!([format!("--proxy-port={port}"), "--log-level=info"]));
    proxy.insert("ports".into(), json!([{"containerPort": port}]));
    proxy.insert(
        "lifecycle".into(),
        json!({"postStart": {"exec": {"command": ["/proxy", format!("--proxy-port={port}"), "--probe", "--log-level=info"]}}}),
    );
    proxy.insert(
        "securityContext".into(),
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            "privileged": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true}),
    );
    let spec = &mut pod["spec"];
    let known = |items: &[Value], name: &str| items.iter().any(|c| c["name"] == name);
    if !known(list(spec, "initContainers"), "azwi-proxy-init") {
        list(spec, "initContainers").push(init);
    }
    if config.kubernetes_minor >= 32 {
        if !known(list(spec, "initContainers"), "azwi-proxy") {
            proxy.insert("restartPolicy".into(), "Always".into());
            list(spec, "initContainers").insert(0, Value::Object(proxy));
        }
    } else if !known(list(spec, "containers"), "azwi-proxy") {
        list(spec, "containers").insert(0, Value::Object(proxy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(layout: WebhookLayout) -> WebhookConfig {
        WebhookConfig {
            tenant: "22222222-2222-2222-2222-222222222222".into(),
            authority_host: "https://login.microsoftonline.com/".into(),
            audience: "api://AzureADTokenExchange".into(),
            layout,
            kubernetes_minor: 33,
        }
    }

    fn account(annotations: &Value) -> Value {
        json!({"metadata": {"name": "workload-identity-sa", "annotations": annotations}})
    }

    fn pod(annotations: &Value) -> Value {
        json!({"metadata": {"name": "quick-start", "namespace": "default", "annotations": annotations},
            "spec": {"serviceAccountName": "workload-identity-sa", "containers": [
                {"name": "oidc", "env": [{"name": "KEYVAULT_URL", "value": "https://kv.vault.azure.net/"}]}]}})
    }

    #[test]
    fn release_1_6_names_the_volume_after_the_pod() {
        let mut pod = pod(&json!({}));
        let account = account(&json!({"azure.workload.identity/client-id": "1111"}));
        mutate_pod(&mut pod, Some(&account), &config(WebhookLayout::V1_6)).unwrap();
        let container = &pod["spec"]["containers"][0];
        assert_eq!(
            container["env"],
            json!([{"name": "KEYVAULT_URL", "value": "https://kv.vault.azure.net/"},
                {"name": "AZURE_CLIENT_ID", "value": "1111"},
                {"name": "AZURE_TENANT_ID", "value": "22222222-2222-2222-2222-222222222222"},
                {"name": "AZURE_FEDERATED_TOKEN_FILE", "value": "/var/run/secrets/azure/wi/token/azure-identity-token"},
                {"name": "AZURE_AUTHORITY_HOST", "value": "https://login.microsoftonline.com/"}])
        );
        let name = "azure-workload-identity-reserved-a94beddb35177ade9c5d04f292b481";
        assert_eq!(
            container["volumeMounts"],
            json!([{"name": name, "mountPath": "/var/run/secrets/azure/wi", "readOnly": true}])
        );
        assert_eq!(
            pod["spec"]["volumes"],
            json!([{"name": name, "projected": {"sources": [{"serviceAccountToken": {
                "audience": "api://AzureADTokenExchange", "expirationSeconds": 3600,
                "path": "token/azure-identity-token"}}]}}])
        );
    }

    #[test]
    fn a_pod_without_a_name_is_named_by_its_prefix() {
        let mut pod = pod(&json!({}));
        pod["metadata"] = json!({"generateName": "web-7d9c6b5f4-"});
        mutate_pod(&mut pod, Some(&account(&json!({}))), &config(WebhookLayout::V1_6)).unwrap();
        assert_eq!(
            pod["spec"]["volumes"][0]["name"],
            "azure-workload-identity-reserved-fc1525256625c68247c9c6fb47a577"
        );
    }

    #[test]
    fn release_1_5_keeps_what_is_there() {
        let mut pod = pod(&json!({"azure.workload.identity/skip-containers": "side; other"}));
        pod["spec"]["containers"][0]["env"] =
            json!([{"name": "AZURE_CLIENT_ID", "value": "stale"}]);
        pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "side"}));
        pod["spec"]["initContainers"] = json!([{"name": "setup"}]);
        let account = account(&json!({"azure.workload.identity/client-id": "new",
            "azure.workload.identity/tenant-id": "",
            "azure.workload.identity/service-account-token-expiration": "7200"}));
        mutate_pod(&mut pod, Some(&account), &config(WebhookLayout::V1_5)).unwrap();
        let env = &pod["spec"]["containers"][0]["env"];
        assert_eq!(env[0], json!({"name": "AZURE_CLIENT_ID", "value": "stale"}));
        assert_eq!(env[1]["name"], "AZURE_FEDERATED_TOKEN_FILE");
        assert_eq!(env.as_array().unwrap().len(), 3);
        assert_eq!(pod["spec"]["containers"][1], json!({"name": "side"}));
        assert_eq!(pod["spec"]["initContainers"][0]["env"][0]["value"], "new");
        let source = &pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
        assert_eq!(source["expirationSeconds"], 7200);
        assert_eq!(source["path"], "azure-identity-token");
    }

    #[test]
    fn denials() {
        let layout = config(WebhookLayout::V1_6);
        let denied = |pod: Value, account: Option<&Value>| {
            mutate_pod(&mut pod.clone(), account, &layout).unwrap_err()
        };
        assert_eq!(
            denied(pod(&json!({})), None),
            "serviceaccounts \"workload-identity-sa\" not found"
        );
        let plain = account(&json!({}));
        let expiration =
            |v: &str| pod(&json!({"azure.workload.identity/service-account-token-expiration": v}));
        assert_eq!(
            denied(expiration("600"), Some(&plain)),
            "token expiration 600 not valid. Expected value to be between 3600 and 86400"
        );
        assert_eq!(
            denied(expiration("x"), Some(&plain)),
            "strconv.ParseInt: parsing \"x\": invalid syntax"
        );
        let mut host = pod(&json!({"azure.workload.identity/inject-proxy-sidecar": "false"}));
        host["spec"]["hostNetwork"] = true.into();
        assert_eq!(
            denied(host, Some(&plain)),
            "hostNetwork is set to true, cannot inject proxy sidecar"
        );
    }

    #[test]
    fn the_proxy_is_a_native_sidecar_from_1_32_on() {
        let annotations = json!({"azure.workload.identity/inject-proxy-sidecar": "true",
            "azure.workload.identity/proxy-sidecar-port": "8080"});
        let mut new = pod(&annotations);
        new["spec"]["initContainers"] = json!([{"name": "setup"}]);
        mutate_pod(&mut new, Some(&account(&json!({}))), &config(WebhookLayout::V1_6)).unwrap();
        let names = |list: &Value| -> Vec<String> {
            list.as_array()
                .unwrap()
                .iter()
                .map(|c| c["name"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            names(&new["spec"]["initContainers"]),
            ["azwi-proxy", "setup", "azwi-proxy-init"]
        );
        assert_eq!(new["spec"]["initContainers"][0]["restartPolicy"], "Always");
        assert_eq!(new["spec"]["initContainers"][0]["env"][0]["name"], "AZURE_TENANT_ID");
        let mut old = pod(&annotations);
        let before = WebhookConfig { kubernetes_minor: 31, ..config(WebhookLayout::V1_6) };
        mutate_pod(&mut old, Some(&account(&json!({}))), &before).unwrap();
        assert_eq!(names(&old["spec"]["containers"]), ["azwi-proxy", "oidc"]);
        assert_eq!(names(&old["spec"]["initContainers"]), ["azwi-proxy-init"]);
    }
}
