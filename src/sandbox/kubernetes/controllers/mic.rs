//! MIC, the controller of AAD Pod Identity in standard mode, where it is installed and runs: an
//! `AzureAssignedIdentity` for each identity that a pod reaches, taken back when it does not any
//! more. Nodes are not emulated, so only the objects tell.
//!
//! Source: Azure/aad-pod-identity at v1.8.17, `pkg/mic/mic.go` (`createDesiredAssignedIdentityList`,
//! `makeAssignedIDs`) and `pkg/crd/crd.go` (the finalizer).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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

/// MIC acts in passes over everything, as the real one does in its sync loop. This far apart, so
/// that a thousand changes are not a thousand passes.
const PASSES_APART_MS: i64 = 1000;
/// What the passes are queued as; no object has this key.
const PASS: &str = "mic/";

/// Lets the next pass see a changed object, or runs the pass that is due. Called for objects that
/// are gone, too.
pub(super) fn sync(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let watched = ["core/pods/", "apps/deployments/", BINDINGS, IDENTITIES, ASSIGNED];
    if key.stem == PASS {
        return pass(tx);
    }
    let installed = tx.state.kinds.find(GROUP, "v1", "azureassignedidentities").is_some();
    let relevant = key.stem != "apps/deployments/" || key.name.contains("mic");
    if installed && relevant && watched.contains(&key.stem.as_str()) {
        let now = tx.now;
        pass_after(tx, now);
    }
    Ok(())
}

/// Queues the first pass after `at`. All of one stretch of time are one entry.
fn pass_after(tx: &mut Tx<'_>, at: Timestamp) {
    let next = (at.as_millisecond() / PASSES_APART_MS + 1) * PASSES_APART_MS;
    let next = Timestamp::from_millisecond(next).unwrap_or(at);
    tx.enqueue_at(next, Key::of(PASS, "", "pass"));
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

/// What pods reach. Bindings match by label; in namespaced mode only within their namespace.
fn wanted(tx: &Tx<'_>, confined: bool) -> Vec<(Arc<Value>, Wanted)> {
    let bindings = tx.list(BINDINGS, None);
    let mut by_selector: BTreeMap<&str, Vec<&(Key, Arc<Value>)>> = BTreeMap::new();
    for binding in &bindings {
        by_selector.entry(field(&binding.1, "selector")).or_default().push(binding);
    }
    let mut found = Vec::new();
    for (_, pod) in tx.list("core/pods/", None) {
        let selector = pod["metadata"]["labels"][LABEL].as_str().filter(|s| !s.is_empty());
        let Some(bindings) = selector.and_then(|selector| by_selector.get(selector)) else {
            continue;
        };
        if !is_active(&pod) || !pod["spec"]["nodeName"].is_string() {
            continue;
        }
        let (namespace, name) = (meta(&pod, "namespace"), meta(&pod, "name"));
        for (at, binding) in bindings {
            let identity = Key::of(IDENTITIES, &at.namespace, field(binding, "azureIdentity"));
            let Some(identity) = tx.get_key(&identity) else { continue };
            let behavior = &identity["metadata"]["annotations"]["aadpodidentity.k8s.io/Behavior"];
            let own = behavior.as_str().is_some_and(|v| v.eq_ignore_ascii_case("namespaced"));
            if (confined || own) && at.namespace != namespace {
                continue;
            }
            let place = if confined { at.namespace.as_str() } else { "default" };
            let called = format!("{name}-{namespace}-{}", meta(&identity, "name"));
            let key = Key::of(ASSIGNED, place, &called);
            found.push((pod.clone(), Wanted { key, identity, binding: binding.clone() }));
        }
    }
    found
}

/// Assigns what pods reach and takes back what they do not reach any more.
fn pass(tx: &mut Tx<'_>) -> Outcome<()> {
    let Some(confined) = running(tx) else { return Ok(()) };
    let Some(kind) = tx.state.kinds.find(GROUP, "v1", "azureassignedidentities").cloned() else {
        return Ok(());
    };
    let wanted = wanted(tx, confined);
    let there = tx.list(ASSIGNED, None);
    let known: BTreeSet<&Key> = there.iter().map(|(key, _)| key).collect();
    for (pod, Wanted { key, identity, binding }) in &wanted {
        if known.contains(key) {
            continue;
        }
        let node = pod["spec"]["nodeName"].clone();
        let object = json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "AzureAssignedIdentity",
            "metadata": {"name": key.name, "namespace": key.namespace,
                "labels": {"nodename": node}, "finalizers": [FINALIZER]},
            "spec": {"azureIdentityRef": **identity, "azureBindingRef": **binding,
                "pod": meta(pod, "name"), "podNamespace": meta(pod, "namespace"),
                "nodename": node, "replicas": 0},
            "status": {"status": "Assigned"},
        });
        // Another pod may have made it a moment ago: two bindings may name one identity.
        drop(tx.create(&kind, &key.namespace, object, &writer()));
    }
    let wanted: BTreeSet<&Key> = wanted.iter().map(|(_, wanted)| &wanted.key).collect();
    for (key, object) in there.iter().filter(|(key, _)| !wanted.contains(key)) {
        release(tx, key, object)?;
    }
    Ok(())
}

fn writer() -> Writer<'static> {
    Writer::system("mic")
}

/// Takes an assignment back that nothing wants: deletes it, and lets it go a while later.
fn release(tx: &mut Tx<'_>, key: &Key, object: &Arc<Value>) -> Outcome<()> {
    let Some(kind) = tx.kind_of(key) else { return Ok(()) };
    let Some(since) = object["metadata"]["deletionTimestamp"].as_str() else {
        return tx.delete(key, &Deletion::default()).map(drop);
    };
    let since: Timestamp = since.parse().unwrap_or(tx.now);
    let due = since.checked_add(UNASSIGNS_WITHIN).unwrap_or(tx.now);
    if due > tx.now {
        pass_after(tx, due);
        return Ok(());
    }
    let free = |object: &mut Value| {
        if let Some(all) = object["metadata"]["finalizers"].as_array_mut() {
            all.retain(|finalizer| finalizer != FINALIZER);
        }
    };
    tx.modify(&kind, object, &writer(), free).map(drop)
}
