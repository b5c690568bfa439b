//! MIC, the controller of AAD Pod Identity in standard mode, where it is installed and runs: an
//! `AzureAssignedIdentity` for each identity that a pod reaches, taken back when it does not any
//! more. Nodes are not emulated, so only the objects tell.
//!
//! Source: Azure/aad-pod-identity at v1.8.17, `pkg/mic/mic.go` (`createDesiredAssignedIdentityList`,
//! `makeAssignedIDs`) and `pkg/crd/crd.go` (the finalizer).

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    super::{
        delete::Deletion,
        error::Outcome,
        objects::{Writer, meta},
        storage::{Key, Tx},
    },
    rolling::is_active,
};

const GROUP: &str = "aadpodidentity.k8s.io";
const BINDINGS: &str = "aadpodidentity.k8s.io/azureidentitybindings/";
const IDENTITIES: &str = "aadpodidentity.k8s.io/azureidentities/";
const ASSIGNED: &str = "aadpodidentity.k8s.io/azureassignedidentities/";
const FINALIZER: &str = "azureassignedidentity.finalizers.aadpodidentity.k8s.io";
const LABEL: &str = "aadpodidbinding";
/// MIC needs 10 to 60 s to take an identity from its nodes; the sandbox takes this.
const UNASSIGNS_WITHIN: SignedDuration = SignedDuration::from_secs(1);

/// Looks at what a changed object means for assignments. Called for objects that are gone, too.
pub(super) fn sync(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let watched = ["core/pods/", "apps/deployments/", BINDINGS, IDENTITIES, ASSIGNED];
    if !watched.contains(&key.stem.as_str())
        || tx.state.kinds.find(GROUP, "v1", "azureassignedidentities").is_none()
    {
        return Ok(());
    }
    match key.stem.as_str() {
        "core/pods/" => pod(tx, key),
        ASSIGNED => release(tx, key),
        "apps/deployments/" if !key.name.contains("mic") => Ok(()),
        _ => all(tx),
    }
}

/// Whether MIC runs, and whether it matches within a namespace only.
fn running(tx: &Tx<'_>) -> Option<bool> {
    let is_mic = |object: &Value| {
        let labels = &object["spec"]["template"]["metadata"]["labels"];
        ["component", "app.kubernetes.io/component"].iter().any(|key| labels[*key] == "mic")
    };
    let all = tx.list("apps/deployments/", None);
    let (_, mic) = all.iter().find(|(_, object)| {
        is_mic(object) && object["status"]["availableReplicas"].as_i64().is_some_and(|n| n > 0)
    })?;
    let containers = mic["spec"]["template"]["spec"]["containers"].as_array();
    let confined = containers.into_iter().flatten().any(|container| {
        let words = container["args"].as_array().into_iter().flatten();
        let flag = words.filter_map(Value::as_str).any(|word| {
            let word = word.trim_start_matches('-').to_ascii_lowercase();
            word == "forcenamespaced" || word == "forcenamespaced=true"
        });
        let mut env = container["env"].as_array().into_iter().flatten();
        flag || env.any(|v| v["name"] == "FORCENAMESPACED" && v["value"] == "true")
    });
    Some(confined)
}

/// An assignment that should be there.
struct Wanted {
    key: Key,
    identity: Arc<Value>,
    binding: Arc<Value>,
}

fn field<'a>(object: &'a Value, name: &str) -> &'a str {
    // Old manifests have `AzureIdentity` and `Selector`.
    let old = name[..1].to_uppercase() + &name[1..];
    let spec = &object["spec"];
    spec[name].as_str().or_else(|| spec[&old].as_str()).unwrap_or_default()
}

fn wanted(tx: &Tx<'_>, pod: &Value, confined: bool) -> Vec<Wanted> {
    let Some(selector) = pod["metadata"]["labels"][LABEL].as_str().filter(|s| !s.is_empty()) else {
        return Vec::new();
    };
    if !is_active(pod) || !pod["spec"]["nodeName"].is_string() {
        return Vec::new();
    }
    let (namespace, name) = (meta(pod, "namespace"), meta(pod, "name"));
    let mut found = Vec::new();
    for (at, binding) in tx.list(BINDINGS, None) {
        if field(&binding, "selector") != selector {
            continue;
        }
        let identity = Key::of(IDENTITIES, &at.namespace, field(&binding, "azureIdentity"));
        let Some(identity) = tx.get_key(&identity) else { continue };
        let behavior = &identity["metadata"]["annotations"]["aadpodidentity.k8s.io/Behavior"];
        let own = behavior.as_str().is_some_and(|value| value.eq_ignore_ascii_case("namespaced"));
        if (confined || own) && at.namespace != namespace {
            continue;
        }
        let place = if confined { at.namespace.as_str() } else { "default" };
        let called = format!("{name}-{namespace}-{}", meta(&identity, "name"));
        found.push(Wanted { key: Key::of(ASSIGNED, place, &called), identity, binding });
    }
    found
}

/// Assigns what a pod reaches; what it does not reach any more is released.
fn pod(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let pod = tx.get_key(key);
    let labelled =
        pod.as_ref().is_some_and(|pod| pod["metadata"]["labels"][LABEL].as_str().is_some());
    let begins = format!("{}-{}-", key.name, key.namespace);
    let known: Vec<Key> = tx
        .list(ASSIGNED, None)
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| key.name.starts_with(&begins))
        .collect();
    if known.is_empty() && !labelled {
        return Ok(());
    }
    let Some(confined) = running(tx) else { return Ok(()) };
    if let Some(pod) = &pod {
        assign(tx, pod, confined)?;
    }
    for key in known {
        tx.enqueue(key);
    }
    Ok(())
}

fn all(tx: &mut Tx<'_>) -> Outcome<()> {
    let Some(confined) = running(tx) else { return Ok(()) };
    for (_, pod) in tx.list("core/pods/", None) {
        assign(tx, &pod, confined)?;
    }
    for (key, _) in tx.list(ASSIGNED, None) {
        tx.enqueue(key);
    }
    Ok(())
}

fn writer() -> Writer<'static> {
    Writer::system("mic")
}

fn assign(tx: &mut Tx<'_>, pod: &Value, confined: bool) -> Outcome<()> {
    let Some(kind) = tx.state.kinds.find(GROUP, "v1", "azureassignedidentities").cloned() else {
        return Ok(());
    };
    for Wanted { key, identity, binding } in wanted(tx, pod, confined) {
        if tx.get_key(&key).is_some() {
            continue;
        }
        let node = pod["spec"]["nodeName"].clone();
        let object = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "AzureAssignedIdentity",
            "metadata": {"name": key.name, "namespace": key.namespace,
                "labels": {"nodename": node}, "finalizers": [FINALIZER]},
            "spec": {"azureIdentityRef": *identity, "azureBindingRef": *binding,
                "pod": meta(pod, "name"), "podNamespace": meta(pod, "namespace"),
                "nodename": node, "replicas": 0},
            "status": {"status": "Assigned"},
        });
        tx.create(&kind, &key.namespace, object, &writer())?;
    }
    Ok(())
}

/// Takes an assignment back that nothing wants: deletes it, and lets it go a while later.
fn release(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let (Some(object), Some(kind)) = (tx.get_key(key), tx.kind_of(key)) else { return Ok(()) };
    let Some(confined) = running(tx) else { return Ok(()) };
    let text = |name: &str| object["spec"][name].as_str().unwrap_or_default();
    let pod = tx.get_key(&Key::of("core/pods/", text("podNamespace"), text("pod")));
    if pod.is_some_and(|pod| wanted(tx, &pod, confined).iter().any(|w| w.key == *key)) {
        return Ok(());
    }
    let Some(since) = object["metadata"]["deletionTimestamp"].as_str() else {
        return tx.delete(key, &Deletion::default()).map(drop);
    };
    let since: Timestamp = since.parse().unwrap_or(tx.now);
    let due = since.checked_add(UNASSIGNS_WITHIN).unwrap_or(tx.now);
    if due > tx.now {
        tx.enqueue_at(due, key.clone());
        return Ok(());
    }
    let free = |object: &mut Value| {
        if let Some(all) = object["metadata"]["finalizers"].as_array_mut() {
            all.retain(|finalizer| finalizer != FINALIZER);
        }
    };
    tx.modify(&kind, &object, &writer(), free).map(drop)
}
