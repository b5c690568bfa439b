//! What of AAD Pod Identity's objects, of pod templates, pods and their marks counts for leaving it.
//!
//! Fields are looked up by path, because old manifests have them in another case (`ResourceID`
//! before Pod Identity 1.6) and a stored object may have either.

use serde::Deserialize as _;
use serde_json::Value;

use super::{parse_pod, wire::Pod};
use crate::model::{
    AccountName, FailureKind, Namespace, RemoteFailure, keeper, names,
    pod_identity::{
        Assigned, BEHAVIOR_ANNOTATION, Backup, Binding, EstateAccount, EstatePod, Install, Named,
        PodException, PodIdentity,
    },
    snapshot::TemplateKind,
};

pub(super) const GROUP: &str = "aadpodidentity.k8s.io/v1";
/// Marks the `ConfigMap` that holds a backup.
pub const BACKUP_LABEL: &str = "widentity.dev/migrate";
/// Its value.
pub const BACKUP_MARK: &str = "backup";
/// The key under which the backup stands as JSON.
pub const BACKUP_KEY: &str = "backup.json";

/// The first of several spellings of a field that is there.
fn either<'a>(object: &'a Value, keys: &[&str]) -> &'a Value {
    keys.iter().find_map(|key| object.get(key)).unwrap_or(&Value::Null)
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(super) fn map(value: &Value) -> std::collections::BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

pub(super) fn named(object: &Value) -> Named {
    let meta = &object["metadata"];
    Named {
        namespace: Namespace(text(&meta["namespace"])),
        name: text(&meta["name"]),
        uid: text(&meta["uid"]),
    }
}

/// An `AzureIdentity` in either spelling.
pub(super) fn identity(object: &Value) -> PodIdentity {
    let Named { namespace, name, uid } = named(object);
    let spec = &object["spec"];
    let behavior = object["metadata"]["annotations"][BEHAVIOR_ANNOTATION].as_str();
    PodIdentity {
        namespace,
        name,
        uid,
        resource_version: text(&object["metadata"]["resourceVersion"]),
        kind: either(spec, &["type", "Type"]).as_i64().unwrap_or_default(),
        resource_id: text(either(spec, &["resourceID", "ResourceID"])),
        client_id: text(either(spec, &["clientID", "ClientID"])),
        // Byte for byte, as MIC compares: `Namespaced` confines nothing.
        namespaced: behavior == Some("namespaced"),
        kept_by: kept_by(&object["metadata"]),
    }
}

/// An `AzureIdentityBinding` in either spelling.
pub(super) fn binding(object: &Value) -> Binding {
    let Named { namespace, name, uid } = named(object);
    let spec = &object["spec"];
    Binding {
        namespace,
        name,
        uid,
        resource_version: text(&object["metadata"]["resourceVersion"]),
        identity: text(either(spec, &["azureIdentity", "AzureIdentity"])),
        selector: text(either(spec, &["selector", "Selector"])),
        kept_by: kept_by(&object["metadata"]),
    }
}

/// An `AzureAssignedIdentity`: it holds its binding whole.
pub(super) fn assigned(object: &Value) -> Assigned {
    let Named { namespace, name, uid } = named(object);
    let of = &object["spec"]["azureBindingRef"]["metadata"];
    let binding = match (of["namespace"].as_str(), of["name"].as_str()) {
        (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
        (None | Some(_), _) => None,
    };
    Assigned { namespace, name, uid, binding }
}

/// An `AzurePodIdentityException` in either spelling.
pub(super) fn exception(object: &Value) -> PodException {
    let Named { namespace, name, uid } = named(object);
    let pod_labels = map(either(&object["spec"], &["podLabels", "PodLabels"]));
    PodException { namespace, name, uid, pod_labels }
}

/// The tool whose marks an object bears.
pub(super) fn kept_by(meta: &Value) -> Option<String> {
    let managers = meta["managedFields"].as_array().into_iter().flatten();
    let managers = managers.filter_map(|entry| entry["manager"].as_str());
    let (labels, annotations) = (map(&meta["labels"]), map(&meta["annotations"]));
    keeper::keeper(&labels, &annotations, managers).map(|keeper| keeper.tool.to_owned())
}

/// A pod, with what the workload identity webhook put into it.
pub(super) fn pod(object: &Value) -> EstatePod {
    let Named { namespace, name, uid } = named(object);
    let meta = &object["metadata"];
    let owners = meta["ownerReferences"].as_array().into_iter().flatten();
    let controller = owners
        .into_iter()
        .find(|owner| owner["controller"] == true)
        .map(|owner| format!("{}/{}", text(&owner["kind"]).to_lowercase(), text(&owner["name"])));
    let typed: Pod = Pod::deserialize(object).unwrap_or_default();
    let injected = parse_pod::injected(&typed);
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    let ended = matches!(phase, "Succeeded" | "Failed");
    let deleted = meta["deletionTimestamp"].is_string();
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let account = object["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty());
    EstatePod {
        namespace,
        name,
        uid,
        resource_version: text(&meta["resourceVersion"]),
        account: AccountName::from(account.unwrap_or("default")),
        labels: map(&meta["labels"]),
        controller,
        gone: deleted || ended,
        ending: deleted && !ended,
        succeeded: phase == "Succeeded",
        proxied: injected.proxied,
        ready: conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True"),
        host_network: object["spec"]["hostNetwork"] == true,
        // The names that virtual-kubelet's chart and the AKS add-on give their nodes.
        virtual_node: object["spec"]["nodeName"]
            .as_str()
            .is_some_and(|name| name.starts_with("virtual-node-") || name == "virtual-kubelet"),
        client_ids: if injected.present {
            injected.client_ids
        } else {
            std::collections::BTreeSet::default()
        },
        created: meta["creationTimestamp"].as_str().and_then(|text| text.parse().ok()),
    }
}

/// MIC or NMI, in any of its three installs.
///
/// Source: Azure/aad-pod-identity, `deploy/infra/deployment-rbac.yaml` and
/// `charts/aad-pod-identity/templates`.
pub(super) fn install(kind: TemplateKind, object: &Value) -> Option<Install> {
    let meta = &object["metadata"];
    let spec = &object["spec"]["template"]["spec"];
    let labels = [&meta["labels"], &object["spec"]["template"]["metadata"]["labels"]];
    let component = labels.iter().find_map(|labels| {
        let named = labels["app.kubernetes.io/component"].as_str();
        named.or(labels["component"].as_str()).filter(|c| matches!(*c, "mic" | "nmi"))
    });
    let Named { namespace, name, uid } = named(object);
    let by_name = (name == "nmi" && kind == TemplateKind::DaemonSet)
        || (name == "mic" && kind == TemplateKind::Deployment);
    let component = component.map(str::to_owned).or_else(|| by_name.then(|| name.clone()))?;
    let fits = (kind == TemplateKind::Deployment && component == "mic")
        || (kind == TemplateKind::DaemonSet && component == "nmi");
    if !fits {
        return None;
    }
    let mut words = Vec::new();
    let mut forced = false;
    for container in spec["containers"].as_array().into_iter().flatten() {
        for key in ["args", "command"] {
            words.extend(container[key].as_array().into_iter().flatten().map(text));
        }
        forced |= container["env"].as_array().into_iter().flatten().any(|v| {
            v["name"] == "FORCENAMESPACED"
                && v["value"].as_str().is_some_and(|value| value.eq_ignore_ascii_case("true"))
        });
    }
    let has = |flag: &str| {
        words.iter().any(|w| {
            let word = w.trim_start_matches('-');
            word.eq_ignore_ascii_case(flag) || word.eq_ignore_ascii_case(&format!("{flag}=true"))
        })
    };
    let managed = words.iter().any(|w| w.trim_start_matches('-') == "operation-mode=managed")
        || words
            .windows(2)
            .any(|w| w[0].trim_start_matches('-') == "operation-mode" && w[1] == "managed");
    Some(Install {
        stuck: if kind == TemplateKind::DaemonSet {
            object["status"]["numberReady"].as_i64().unwrap_or_default() == 0
        } else {
            object["spec"]["replicas"] == 0
        },
        component,
        kind: kind.as_str().to_owned(),
        namespace,
        name,
        uid,
        helm: kept_by(meta).as_deref() == Some(keeper::HELM),
        managed,
        namespaced: managed || forced || has("forceNamespaced"),
    })
}

/// A service account.
pub(super) fn account(object: &Value) -> EstateAccount {
    let Named { namespace, name, .. } = named(object);
    let client = &object["metadata"]["annotations"][names::CLIENT_ID_ANNOTATION];
    EstateAccount {
        namespace,
        name: AccountName(name),
        client_id: client.as_str().map(str::to_owned),
        kept_by: kept_by(&object["metadata"]),
    }
}

/// A `SecretProviderClass`, if it gets its tokens through Pod Identity.
pub(super) fn secret_class(object: &Value) -> Option<Named> {
    let flag = &object["spec"]["parameters"]["usePodIdentity"];
    let on = flag.as_bool().unwrap_or(false)
        || flag.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true"));
    on.then(|| named(object))
}

/// A `TriggerAuthentication` of KEDA, if it gets its tokens through Pod Identity.
pub(super) fn trigger(object: &Value) -> Option<Named> {
    (object["spec"]["podIdentity"]["provider"] == "azure").then(|| named(object))
}

/// What a `ConfigMap` of ours holds; an error where that cannot be read, which is not "no backup".
pub(super) fn backup(object: &Value) -> Result<Backup, RemoteFailure> {
    let failed = |why: String| {
        let tried = format!("read the backup in ConfigMap {}", named(object).at());
        let hint = "a newer widentity may have written it: go on with that one, nothing is changed \
                    while what it says is not known";
        RemoteFailure::new(FailureKind::Refused, tried, why).with_hint(hint)
    };
    let text = object["data"][BACKUP_KEY].as_str();
    let text = text.ok_or_else(|| failed(format!("it has no {BACKUP_KEY}")))?;
    serde_json::from_str(text).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_spellings_are_read() {
        let old = json!({"metadata": {"namespace": "n", "name": "i", "uid": "u",
            "annotations": {"aadpodidentity.k8s.io/Behavior": "namespaced"}},
            "spec": {"type": 0, "ResourceID": "/r", "ClientID": "c"}});
        let found = identity(&old);
        assert_eq!((found.resource_id.as_str(), found.client_id.as_str()), ("/r", "c"));
        assert!(found.namespaced);
        let old = json!({"metadata": {"namespace": "n", "name": "b"},
            "spec": {"AzureIdentity": "i", "Selector": "s"}});
        assert_eq!(binding(&old).selector, "s");
        let new = json!({"metadata": {}, "spec": {"azureIdentity": "i", "selector": "t"}});
        assert_eq!(binding(&new).selector, "t");
    }

    #[test]
    fn components_are_found_in_their_three_installs() {
        let yaml = json!({"metadata": {"name": "mic", "namespace": "default"}, "spec": {"template":
            {"metadata": {"labels": {"component": "mic"}}, "spec": {"containers": [
                {"args": ["--cloudconfig=/etc/kubernetes/azure.json"],
                 "env": [{"name": "FORCENAMESPACED", "value": "true"}]}]}}}});
        let found = install(TemplateKind::Deployment, &yaml).unwrap();
        assert!(found.namespaced && !found.managed);
        let chart = json!({"metadata": {"name": "aad-pod-identity-nmi", "namespace": "kube-system",
            "labels": {"app.kubernetes.io/component": "nmi", "app.kubernetes.io/managed-by": "Helm"}},
            "spec": {"template": {"spec": {"containers": [
                {"args": ["--operation-mode=managed", "--forceNamespaced"]}]}}}});
        let found = install(TemplateKind::DaemonSet, &chart).unwrap();
        assert!(found.helm && found.managed && found.namespaced);
        let add_on = json!({"metadata": {"name": "nmi", "namespace": "kube-system"}});
        assert_eq!(install(TemplateKind::DaemonSet, &add_on).unwrap().component, "nmi");
        assert_eq!(install(TemplateKind::Deployment, &add_on), None);
    }
}
