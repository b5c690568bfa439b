//! Admission: namespaces, service accounts, pod defaults of plugins, the workload identity webhook.

use serde_json::{Value, json};

use super::{
    controllers::CONFIGURATION,
    defaults,
    error::{Outcome, Status},
    kinds::Kind,
    objects::{meta, suffix},
    selectors::LabelSelector,
    storage::{Key, Tx},
    webhook::{WEBHOOK_NAME, WebhookConfig, mutate_pod},
};

/// Objects are created only in namespaces that exist and are not on their way out.
pub(super) fn namespace(tx: &Tx<'_>, kind: &Kind, namespace: &str, name: &str) -> Outcome<()> {
    if !kind.namespaced {
        return Ok(());
    }
    let found = tx.get_key(&Key::of("core/namespaces/", "", namespace));
    let Some(found) = found else {
        return Err(Status::not_found(&Kind::reference("", "namespaces"), namespace));
    };
    if found["metadata"].get("deletionTimestamp").is_some() {
        let mut status = Status::forbidden(
            &kind.group,
            &kind.plural,
            name,
            &format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            ),
        );
        status.details["causes"] = json!([{"reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace"}]);
        return Err(status);
    }
    Ok(())
}

/// Mutating admission of a new object.
pub(super) fn create(tx: &Tx<'_>, kind: &Kind, namespace: &str, object: &mut Value) -> Outcome<()> {
    if !kind.group.is_empty() || kind.plural != "pods" {
        return Ok(());
    }
    let name = meta(object, "name").to_owned();
    service_account(tx, kind, namespace, &name, object)?;
    tolerations(object);
    let spec = &mut object["spec"];
    if spec["priority"].is_null() {
        spec["priority"] = 0.into();
    }
    if spec["preemptionPolicy"].is_null() {
        spec["preemptionPolicy"] = "PreemptLowerPriority".into();
    }
    workload_identity(tx, namespace, object)?;
    defaults::fill(kind, object, tx.facts.minor);
    object["status"] = json!({"phase": "Pending", "qosClass": quality(object)});
    Ok(())
}

/// The `ServiceAccount` plugin: the account exists, and its token is mounted.
fn service_account(
    tx: &Tx<'_>,
    kind: &Kind,
    namespace: &str,
    name: &str,
    pod: &mut Value,
) -> Outcome<()> {
    let spec = &mut pod["spec"];
    if spec["serviceAccountName"].as_str().is_none_or(str::is_empty) {
        spec["serviceAccountName"] = "default".into();
    }
    spec["serviceAccount"] = spec["serviceAccountName"].clone();
    let account_name = spec["serviceAccountName"].as_str().unwrap_or_default().to_owned();
    let key = Key::of("core/serviceaccounts/", namespace, &account_name);
    let Some(account) = tx.get_key(&key) else {
        return Err(Status::forbidden(
            &kind.group,
            &kind.plural,
            name,
            &format!(
                "error looking up service account {namespace}/{account_name}: serviceaccount \"{account_name}\" not found"
            ),
        ));
    };
    let mounted = spec["automountServiceAccountToken"]
        .as_bool()
        .or(account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if spec["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
        && let Some(secrets) = account["imagePullSecrets"].as_array().filter(|s| !s.is_empty())
    {
        spec["imagePullSecrets"] = secrets.clone().into();
    }
    // Before 1.21 the token came from a secret, which the sandbox does not make.
    if mounted && tx.facts.minor >= 21 {
        mount_token(tx, spec);
    }
    Ok(())
}

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn mount_token(tx: &Tx<'_>, spec: &mut Value) {
    let volume = format!("kube-api-access-{}", suffix(&tx.kube.ctx.ids.guid().into_bytes()));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = &mut container["volumeMounts"];
            if mounts.as_array().into_iter().flatten().any(|m| m["mountPath"] == TOKEN_PATH) {
                continue;
            }
            let mount = json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH});
            match mounts.as_array_mut() {
                Some(mounts) => mounts.push(mount),
                None => *mounts = json!([mount]),
            }
            used = true;
        }
    }
    if !used {
        return;
    }
    let source = json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}});
    match spec["volumes"].as_array_mut() {
        Some(volumes) => volumes.push(source),
        None => spec["volumes"] = json!([source]),
    }
}

/// The `DefaultTolerationSeconds` plugin.
fn tolerations(pod: &mut Value) {
    let spec = &mut pod["spec"];
    for condition in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let there = spec["tolerations"].as_array().into_iter().flatten().any(|t| {
            (t["key"] == condition || t["key"].as_str().is_none_or(str::is_empty))
                && (t["effect"] == "NoExecute" || t["effect"].as_str().is_none_or(str::is_empty))
        });
        if there {
            continue;
        }
        let added = json!({"effect": "NoExecute", "key": condition, "operator": "Exists",
            "tolerationSeconds": 300});
        match spec["tolerations"].as_array_mut() {
            Some(list) => list.push(added),
            None => spec["tolerations"] = json!([added]),
        }
    }
}

/// Quality of service by requests and limits of cpu and memory.
fn quality(pod: &Value) -> &'static str {
    let containers = || {
        ["initContainers", "containers"]
            .into_iter()
            .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
    };
    let has =
        |c: &Value, part: &str| c["resources"][part].as_object().is_some_and(|r| !r.is_empty());
    if !containers().any(|c| has(c, "requests") || has(c, "limits")) {
        return "BestEffort";
    }
    let guaranteed = containers().all(|c| {
        ["cpu", "memory"].into_iter().all(|r| {
            let limit = &c["resources"]["limits"][r];
            !limit.is_null() && *limit == c["resources"]["requests"][r]
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

/// The webhook as it is configured, if its selectors take this pod in.
fn called(tx: &Tx<'_>, namespace: &str, pod: &Value) -> Option<Value> {
    let stem = "admissionregistration.k8s.io/mutatingwebhookconfigurations/";
    let configuration = tx.get_key(&Key::of(stem, "", CONFIGURATION))?;
    let hook = configuration["webhooks"].get(0)?;
    let takes = |selector: &Value, labels: &Value| {
        selector.is_null() || LabelSelector::from_object(selector).matches(labels)
    };
    let place = tx.get_key(&Key::of("core/namespaces/", "", namespace))?;
    (takes(&hook["namespaceSelector"], &place["metadata"]["labels"])
        && takes(&hook["objectSelector"], &pod["metadata"]["labels"]))
    .then(|| hook.clone())
}

/// The webhook of the add-on, as its configuration says.
fn workload_identity(tx: &Tx<'_>, namespace: &str, pod: &mut Value) -> Outcome<()> {
    // Dry runs are mutated too: the webhook has no side effects.
    if !tx.facts.workload_identity
        || pod["metadata"]["labels"]["azure.workload.identity/use"] != "true"
    {
        return Ok(());
    }
    let Some(hook) = called(tx, namespace, pod) else { return Ok(()) };
    let options: super::Options = tx
        .note("~options")
        .and_then(|doc| serde_json::from_value((*doc).clone()).ok())
        .unwrap_or_default();
    if options.webhook_down && hook["failurePolicy"] == "Ignore" {
        return Ok(());
    }
    if options.webhook_down {
        return Err(Status::internal(format!(
            "failed calling webhook \"{WEBHOOK_NAME}\": failed to call webhook: Post \"https://azure-wi-webhook-webhook-service.kube-system.svc:443/mutate-v1-pod?timeout=10s\": no endpoints available for service \"azure-wi-webhook-webhook-service\""
        )));
    }
    let settings = &tx.kube.ctx.settings;
    let own = tx.get_key(&Key::of("core/configmaps/", "kube-system", "azure-wi-webhook-config"));
    let tenant = own.as_ref().and_then(|own| own["data"]["AZURE_TENANT_ID"].as_str());
    let config = WebhookConfig {
        tenant: tenant.map_or_else(|| settings.tenant.to_string(), str::to_owned),
        authority_host: "https://login.microsoftonline.com/".to_owned(),
        audience: "api://AzureADTokenExchange".to_owned(),
        layout: settings.webhook_layout,
        kubernetes_minor: tx.facts.minor,
    };
    let name = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    let account = tx.get_key(&Key::of("core/serviceaccounts/", namespace, name));
    // The name is generated before admission here; the webhook of a real cluster sees it absent.
    let generated = pod["metadata"]["generateName"].is_string();
    let pod_name = pod["metadata"]["name"].take();
    if !generated {
        pod["metadata"]["name"] = pod_name.clone();
    }
    let result = mutate_pod(pod, account.as_deref(), &config);
    pod["metadata"]["name"] = pod_name;
    result.map_err(|text| {
        // The webhook sets a code and a message, no reason.
        Status::plain(
            400,
            format!("admission webhook \"{WEBHOOK_NAME}\" denied the request: {text}"),
        )
    })
}
