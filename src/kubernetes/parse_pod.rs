//! Pods into [`ObservedPod`], with what the workload identity webhook put into them.
//!
//! The webhook's volume name and mount path changed in 1.6 and change again after it, so neither
//! is looked at. Source: Azure/azure-workload-identity, `pkg/webhook` at v1.5.1 and v1.6.0, and
//! the documentation page "Service Account Labels and Annotations".

use std::path::Path;

use super::{
    parse_template::account_of,
    wire::{Container, EnvVar, Pod, PodSpec, TokenProjection},
};
use crate::model::{
    Audience,
    names::{PROXY_CONTAINER, asks_for_injection},
    snapshot::{Injected, ObservedPod},
};

/// Containers that the webhook is told to leave alone, separated by semicolons.
pub(super) const SKIP_ANNOTATION: &str = "azure.workload.identity/skip-containers";
const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
/// Labels that tell pods of one template from pods of another.
const REVISION_LABELS: [&str; 3] =
    ["pod-template-hash", "controller-revision-hash", "rollouts-pod-template-hash"];

/// A live pod.
pub(super) fn pod(object: Pod) -> ObservedPod {
    let injected = injected(&object);
    let Pod { metadata, spec, status } = object;
    let revision = REVISION_LABELS.iter().find_map(|label| metadata.labels.get(*label)).cloned();
    let ready = status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True");
    let controller = metadata.owner_references.into_iter().find(|owner| owner.controller);
    ObservedPod {
        labelled: asks_for_injection(&metadata.labels),
        name: metadata.name,
        uid: metadata.uid,
        account: account_of(&spec),
        controller: controller.map(|owner| (owner.kind, owner.name)),
        revision,
        phase: status.phase,
        ready,
        deleting: metadata.deletion_timestamp.is_some(),
        created: metadata.creation_timestamp.and_then(|text| text.parse().ok()),
        injected,
    }
}

/// What the webhook put into a pod: the variables of every container it should have changed, and
/// the projected token that the named file lies in. `present` is false as soon as one of these
/// containers lacks it.
pub(super) fn injected(object: &Pod) -> Injected {
    let skipped = object.metadata.annotations.get(SKIP_ANNOTATION);
    let skipped: Vec<&str> =
        skipped.map(|names| names.split(';').map(str::trim).collect()).unwrap_or_default();
    let spec = &object.spec;
    let containers = || {
        let all = spec.init_containers.iter().chain(&spec.containers);
        all.filter(|container| !skipped.contains(&container.name.as_str()))
    };
    let mut found = Injected::default();
    let mut tokens = Vec::new();
    for container in containers() {
        for (name, values) in [
            ("AZURE_CLIENT_ID", &mut found.client_ids),
            ("AZURE_TENANT_ID", &mut found.tenant_ids),
            ("AZURE_AUTHORITY_HOST", &mut found.authority_hosts),
        ] {
            match variable(container, name) {
                Some(EnvVar { value_from: Some(_), .. }) => {
                    found.by_reference.insert(name.to_owned());
                }
                Some(set) if !set.value.is_empty() => {
                    values.insert(set.value.clone());
                }
                Some(_) | None => {}
            }
        }
        tokens.push(token(spec, container));
    }
    let mut all = spec.init_containers.iter().chain(&spec.containers);
    found.proxied = all.any(|container| container.name == PROXY_CONTAINER);
    found.present = !tokens.is_empty() && tokens.iter().all(Option::is_some);
    if let Some(token) = tokens.into_iter().flatten().next() {
        found.audience = Some(Audience::from(token.audience.as_str()));
        // The API server writes its default of an hour into the pod.
        found.expiration = Some(token.expiration_seconds.unwrap_or(3600));
    }
    found
}

fn variable<'a>(container: &'a Container, name: &str) -> Option<&'a EnvVar> {
    // The last of several with one name is the one that counts.
    container.env.iter().rfind(|variable| variable.name == name)
}

/// The projected token that the container's `AZURE_FEDERATED_TOKEN_FILE` lies in.
fn token<'a>(spec: &'a PodSpec, container: &Container) -> Option<&'a TokenProjection> {
    let file = &variable(container, TOKEN_FILE)?.value;
    if file.is_empty() {
        return None;
    }
    let file = Path::new(file);
    // Mounts may nest: the longest that covers the file is the one it lies in.
    let covering = container.volume_mounts.iter().filter_map(|mount| {
        let below = file.strip_prefix(&mount.mount_path).ok()?;
        Some((mount.mount_path.len(), mount, below))
    });
    let (_, mount, below) = covering.max_by_key(|(length, ..)| *length)?;
    let inside = Path::new(&mount.sub_path).join(below);
    let volume = spec.volumes.iter().find(|volume| volume.name == mount.name)?;
    let sources = volume.projected.as_ref()?.sources.iter();
    let mut tokens = sources.filter_map(|source| source.service_account_token.as_ref());
    tokens.find(|token| Path::new(&token.path) == inside)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DEFAULT: &str = "api://AzureADTokenExchange";

    /// A pod as the webhook leaves it: mount path, token path within the volume, audience.
    fn mutated(mount: &str, path: &str, audience: &str) -> Value {
        json!({"metadata": {"name": "p", "uid": "u", "labels": {"azure.workload.identity/use": "true",
                "pod-template-hash": "h"}, "creationTimestamp": "2026-01-02T03:04:05Z",
                "ownerReferences": [{"kind": "ReplicaSet", "name": "api-h", "controller": true}]},
            "spec": {"serviceAccountName": "api", "containers": [{"name": "c",
                "env": [{"name": "AZURE_CLIENT_ID", "value": "client"},
                    {"name": "AZURE_TENANT_ID", "value": "tenant"},
                    {"name": TOKEN_FILE, "value": format!("{mount}/{path}")},
                    {"name": "AZURE_AUTHORITY_HOST", "value": "https://login.example/"}],
                "volumeMounts": [{"name": "v", "mountPath": mount, "readOnly": true},
                    {"name": "other", "mountPath": "/var"}]}],
                "volumes": [{"name": "other", "emptyDir": {}}, {"name": "v", "projected": {"sources": [
                    {"serviceAccountToken": {"audience": audience, "expirationSeconds": 7200,
                        "path": path}}]}}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    fn read(object: Value) -> ObservedPod {
        pod(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_variable_by_reference_is_told_from_one_that_is_missing() {
        let mut object = mutated("/m", "t", DEFAULT);
        let source = json!({"configMapKeyRef": {"name": "azure", "key": "client"}});
        object["spec"]["containers"][0]["env"][0] =
            json!({"name": "AZURE_CLIENT_ID", "valueFrom": source});
        let injected = read(object).injected;
        assert!(injected.present && injected.client_ids.is_empty());
        assert_eq!(injected.by_reference, ["AZURE_CLIENT_ID".to_owned()].into());
    }

    #[test]
    fn every_layout_of_the_webhook_is_found() {
        for (version, mount, path) in [
            ("1.5", "/var/run/secrets/azure/tokens", "azure-identity-token"),
            ("1.6", "/var/run/secrets/azure/wi", "token/azure-identity-token"),
            ("after 1.6", "/var/run/secrets/azure/wi/0af1", "token/azure-identity-token"),
        ] {
            let observed = read(mutated(mount, path, DEFAULT));
            assert!(observed.injected.present, "{version}");
            assert_eq!(observed.injected.audience, Some(Audience::default()), "{version}");
            assert_eq!(observed.injected.expiration, Some(7200), "{version}");
            assert_eq!(observed.injected.client_ids.first().unwrap(), "client");
            assert!(observed.labelled && observed.ready && observed.live());
            assert_eq!(observed.revision.as_deref(), Some("h"));
            assert_eq!(observed.controller.unwrap().1, "api-h");
            assert!(observed.created.is_some());
        }
    }

    #[test]
    fn an_identity_binding_has_another_audience() {
        let observed = read(mutated("/m", "t", "api://AKSIdentityBinding"));
        assert!(observed.injected.present);
        assert_ne!(observed.injected.audience, Some(Audience::default()));
    }

    #[test]
    fn a_variable_without_a_token_behind_it_is_not_an_injection() {
        for (what, change) in [
            ("no mount", json!({"path": "/spec/containers/0/volumeMounts", "value": []})),
            ("no volume", json!({"path": "/spec/volumes", "value": []})),
            ("another file", json!({"path": "/spec/containers/0/env/2/value", "value": "/m/x"})),
            ("no variable", json!({"path": "/spec/containers/0/env", "value": []})),
        ] {
            let mut object = mutated("/m", "t", DEFAULT);
            *object.pointer_mut(change["path"].as_str().unwrap()).unwrap() =
                change["value"].clone();
            assert!(!read(object).injected.present, "{what}");
        }
    }

    #[test]
    fn a_container_is_only_missed_where_it_is_not_skipped() {
        let mut object = mutated("/m", "t", DEFAULT);
        object["spec"]["initContainers"] = json!([{"name": "sidecar"}]);
        assert!(!read(object.clone()).injected.present);
        object["metadata"]["annotations"] = json!({SKIP_ANNOTATION: "x; sidecar"});
        assert!(read(object).injected.present);
    }

    #[test]
    fn containers_that_differ_show_all_their_values() {
        let mut object = mutated("/m", "t", DEFAULT);
        let mut second = object["spec"]["containers"][0].clone();
        second["name"] = json!("d");
        second["env"][0]["value"] = json!("stale");
        object["spec"]["containers"].as_array_mut().unwrap().push(second);
        let observed = read(object);
        assert!(observed.injected.present);
        assert_eq!(observed.injected.client_ids.len(), 2);
    }

    #[test]
    fn a_plain_pod_has_nothing() {
        let observed =
            read(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c",
            "env": null}]}, "status": {"phase": "Pending"}}));
        assert_eq!(observed.injected, Injected::default());
        assert!(!observed.ready && !observed.labelled);
        assert_eq!(observed.account.as_str(), "default");
    }
}
