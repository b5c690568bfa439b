//! What of AAD Pod Identity's objects, of pod templates, pods and their marks counts for leaving it.
//!
//! Fields are looked up by path, because old manifests have them in another case (`ResourceID`
//! before Pod Identity 1.6) and a stored object may have either.

use serde_json::Value;

use super::{parse_pod, wire::Pod};
use crate::model::{
    AccountName, Namespace,
    names::{self, PROJECT_ANNOTATION},
    pod_identity::{
        Assigned, BEHAVIOR_ANNOTATION, BINDING_LABEL, Backup, Binding, EstateAccount, EstatePod,
        EstateTemplate, Install, Named, PodException, PodIdentity,
    },
    snapshot::{Strategy, TemplateKind},
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
        kind: either(spec, &["type", "Type"]).as_i64().unwrap_or_default(),
        resource_id: text(either(spec, &["resourceID", "ResourceID"])),
        client_id: text(either(spec, &["clientID", "ClientID"])),
        namespaced: behavior.is_some_and(|value| value.eq_ignore_ascii_case("namespaced")),
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
        identity: text(either(spec, &["azureIdentity", "AzureIdentity"])),
        selector: text(either(spec, &["selector", "Selector"])),
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
    let (labels, annotations) = (&meta["labels"], &meta["annotations"]);
    let managers = meta["managedFields"].as_array().into_iter().flatten();
    let managers: Vec<&str> = managers.filter_map(|entry| entry["manager"].as_str()).collect();
    let argo = !annotations["argocd.argoproj.io/tracking-id"].is_null()
        || !labels["argocd.argoproj.io/instance"].is_null()
        || managers.iter().any(|m| m.starts_with("argocd-"));
    let flux = !labels["kustomize.toolkit.fluxcd.io/name"].is_null()
        || !labels["helm.toolkit.fluxcd.io/name"].is_null()
        || managers.iter().any(|m| matches!(*m, "kustomize-controller" | "helm-controller"));
    let helm = labels["app.kubernetes.io/managed-by"] == "Helm";
    let by = if argo {
        "Argo CD"
    } else if flux {
        "Flux"
    } else if helm {
        "Helm"
    } else {
        return None;
    };
    Some(by.to_owned())
}

/// A number, or a percentage of `of`, rounded down or up as the field says.
fn portion(value: &Value, of: i64, up: bool) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let percent: i64 = value.as_str()?.strip_suffix('%')?.parse().ok()?;
    let all = of.saturating_mul(percent);
    Some(if up { all.saturating_add(99) / 100 } else { all / 100 })
}

/// Whether a roll may leave no old pod where one was before its successor is ready.
///
/// Source: Kubernetes documentation, "Deployments: Rolling Update Deployment" (25 % each; of
/// unavailable pods rounded down) and "Perform a Rolling Update on a `DaemonSet`" (1 and 0).
fn gaps(kind: TemplateKind, spec: &Value, replicas: i64) -> bool {
    match kind {
        TemplateKind::Deployment => {
            let rolling = &spec["strategy"]["rollingUpdate"];
            let unavailable = portion(&rolling["maxUnavailable"], replicas, false);
            unavailable.unwrap_or(replicas / 4) >= replicas && replicas > 0
        }
        TemplateKind::DaemonSet => {
            let rolling = &spec["updateStrategy"]["rollingUpdate"];
            let surge = portion(&rolling["maxSurge"], 100, true).unwrap_or(0);
            let unavailable = portion(&rolling["maxUnavailable"], 100, true);
            surge == 0 || unavailable.is_some_and(|n| n > 0)
        }
        TemplateKind::StatefulSet
        | TemplateKind::CronJob
        | TemplateKind::Rollout
        | TemplateKind::ReplicaSet
        | TemplateKind::Job
        | TemplateKind::Pod => false,
    }
}

fn strategy(kind: TemplateKind, spec: &Value) -> Strategy {
    match kind {
        TemplateKind::Deployment | TemplateKind::Rollout if spec["paused"] == true => {
            Strategy::Paused
        }
        TemplateKind::Deployment if spec["strategy"]["type"] == "Recreate" => Strategy::Recreate,
        TemplateKind::StatefulSet | TemplateKind::DaemonSet => {
            let update = &spec["updateStrategy"];
            let partition = update["rollingUpdate"]["partition"].as_u64().unwrap_or_default();
            match u32::try_from(partition) {
                _ if update["type"] == "OnDelete" => Strategy::OnDelete,
                Ok(partition) if partition > 0 => Strategy::Partition(partition),
                Ok(_) | Err(_) => Strategy::RollingUpdate,
            }
        }
        TemplateKind::Deployment | TemplateKind::Rollout => Strategy::RollingUpdate,
        TemplateKind::CronJob
        | TemplateKind::ReplicaSet
        | TemplateKind::Job
        | TemplateKind::Pod => Strategy::NextRun,
    }
}

fn complete(kind: TemplateKind, object: &Value) -> bool {
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |value: &Value| value.as_i64().unwrap_or_default();
    let observed = &status["observedGeneration"];
    let observed = observed.as_i64().or_else(|| observed.as_str()?.parse().ok()).unwrap_or(0);
    if observed < count(&object["metadata"]["generation"]) {
        return false;
    }
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    match kind {
        TemplateKind::Deployment | TemplateKind::StatefulSet | TemplateKind::Rollout => {
            let updated = count(&status["updatedReplicas"]);
            updated >= wanted && count(&status["replicas"]) <= updated
        }
        TemplateKind::DaemonSet => {
            count(&status["updatedNumberScheduled"]) >= count(&status["desiredNumberScheduled"])
        }
        TemplateKind::CronJob
        | TemplateKind::ReplicaSet
        | TemplateKind::Job
        | TemplateKind::Pod => true,
    }
}

/// A controller that no other controller owns; none for one that is owned.
pub(super) fn template(
    kind: TemplateKind,
    version: &str,
    object: &Value,
) -> Option<EstateTemplate> {
    let (meta, spec) = (&object["metadata"], &object["spec"]);
    let owners = meta["ownerReferences"].as_array().into_iter().flatten();
    if owners.into_iter().any(|owner| owner["controller"] == true) {
        return None;
    }
    let template = match kind {
        TemplateKind::CronJob => &spec["jobTemplate"]["spec"]["template"],
        TemplateKind::Pod => object,
        TemplateKind::Deployment
        | TemplateKind::StatefulSet
        | TemplateKind::DaemonSet
        | TemplateKind::Rollout
        | TemplateKind::ReplicaSet
        | TemplateKind::Job => &spec["template"],
    };
    let pod = &template["spec"];
    let containers = || pod["containers"].as_array().into_iter().flatten();
    let tolerated = pod["tolerations"].as_array().into_iter().flatten();
    let virtual_node = pod["nodeSelector"]["type"] == "virtual-kubelet"
        || tolerated.into_iter().any(|t| t["key"] == "virtual-kubelet.io/provider");
    let windows = pod["os"]["name"] == "windows"
        || pod["nodeSelector"]["kubernetes.io/os"] == "windows"
        || pod["nodeSelector"]["beta.kubernetes.io/os"] == "windows";
    let counts = matches!(
        kind,
        TemplateKind::Deployment | TemplateKind::StatefulSet | TemplateKind::Rollout
    );
    let replicas = counts.then(|| spec["replicas"].as_i64().unwrap_or(1));
    let ended = ["Complete", "Failed"];
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let finished = conditions
        .into_iter()
        .any(|c| c["status"] == "True" && c["type"].as_str().is_some_and(|t| ended.contains(&t)));
    let account = pod["serviceAccountName"].as_str().filter(|name| !name.is_empty());
    let Named { namespace, name, uid } = named(object);
    Some(EstateTemplate {
        namespace,
        kind,
        api_version: version.to_owned(),
        name,
        uid,
        account: AccountName::from(account.unwrap_or("default")),
        labels: map(&template["metadata"]["labels"]),
        annotations: map(&template["metadata"]["annotations"]),
        kept_by: kept_by(meta),
        replicas,
        idle: spec["suspend"] == true || (kind == TemplateKind::Job && finished),
        strategy: strategy(kind, spec),
        readiness: containers().all(|c| c["readinessProbe"].is_object()),
        gaps: gaps(kind, spec, replicas.unwrap_or(1)),
        selector_holds: spec["selector"]["matchLabels"].get(BINDING_LABEL).is_some(),
        host_network: pod["hostNetwork"] == true,
        virtual_node,
        windows,
        asserts: asserts(pod),
        complete: complete(kind, object),
        written: written(meta),
        project: meta["annotations"][PROJECT_ANNOTATION].as_str().map(str::to_owned),
        shape: shape(template),
        ran: ran(&object["status"]),
    })
}

/// The variable by which a pod's containers make a managed identity's token the assertion of an
/// application. What comes from a `ConfigMap` or a file is not seen.
///
/// Source: AzureAD/microsoft-identity-web wiki, "Federated Identity Credential (FIC) with a Managed
/// Service Identity (MSI)".
fn asserts(pod: &Value) -> Option<String> {
    const SETTING: &str = "SignedAssertionFromManagedIdentity";
    let lists = ["containers", "initContainers"].into_iter();
    let containers = lists.flat_map(|list| pod[list].as_array().into_iter().flatten());
    let mut variables = containers.flat_map(|c| c["env"].as_array().into_iter().flatten());
    let sets = |v: &&Value| v["value"].as_str().is_some_and(|v| v.eq_ignore_ascii_case(SETTING));
    variables.find(sets).map(|variable| text(&variable["name"]))
}

/// When the last run of a `CronJob` began, if one has succeeded since.
fn ran(status: &Value) -> Option<jiff::Timestamp> {
    let time = |name: &str| status[name].as_str()?.parse::<jiff::Timestamp>().ok();
    let began = time("lastScheduleTime")?;
    time("lastSuccessfulTime").filter(|succeeded| *succeeded >= began).map(|_| began)
}

/// A digest of a pod template without the labels and annotations that a migration changes.
fn shape(template: &Value) -> String {
    let mut rest = template.clone();
    let own: [(&str, &[&str]); 2] = [
        ("labels", &[BINDING_LABEL, names::USE_LABEL]),
        ("annotations", &[names::CHAIN_ANNOTATION, names::PROXY_ANNOTATION]),
    ];
    if let Some(meta) = rest["metadata"].as_object_mut() {
        for (of, keys) in own {
            let map = meta.get_mut(of).and_then(Value::as_object_mut);
            if let Some(map) = map {
                for key in keys {
                    map.remove(*key);
                }
            }
            let empty = |map: &Value| map.as_object().is_none_or(serde_json::Map::is_empty);
            if meta.get(of).is_some_and(empty) {
                meta.remove(of);
            }
        }
    }
    names::sha256_hex(&rest.to_string(), 16)
}

/// When widentity last wrote an object.
fn written(meta: &Value) -> Option<jiff::Timestamp> {
    meta["annotations"].get(PROJECT_ANNOTATION)?;
    let entries = meta["managedFields"].as_array().into_iter().flatten();
    let ours = entries.filter(|entry| {
        entry["manager"].as_str().is_some_and(|name| name.starts_with("widentity-"))
    });
    ours.filter_map(|entry| entry["time"].as_str()?.parse().ok()).max()
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
    let typed: Pod = serde_json::from_value(object.clone()).unwrap_or_default();
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
        component,
        kind: kind.as_str().to_owned(),
        namespace,
        name,
        uid,
        helm: kept_by(meta).as_deref() == Some("Helm"),
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

/// What a `ConfigMap` of ours holds; none where it is not a backup.
pub(super) fn backup(object: &Value) -> Option<Backup> {
    serde_json::from_str(object["data"][BACKUP_KEY].as_str()?).ok()
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
    fn a_roll_leaves_a_gap_only_where_no_old_pod_need_stay() {
        let deployment = |unavailable: Value| json!({"strategy": {"rollingUpdate": {"maxUnavailable": unavailable}}});
        let gap = |value, replicas| gaps(TemplateKind::Deployment, &deployment(value), replicas);
        assert!(!gap(Value::Null, 1) && !gap(json!("25%"), 3) && !gap(json!(1), 2));
        assert!(gap(json!(1), 1) && gap(json!("100%"), 4));
        assert!(gaps(TemplateKind::DaemonSet, &json!({}), 1));
        let surge = json!({"updateStrategy": {"rollingUpdate":
            {"maxSurge": 1, "maxUnavailable": 0}}});
        assert!(!gaps(TemplateKind::DaemonSet, &surge, 1));
    }

    #[test]
    fn a_shape_is_the_same_before_and_after_a_switch_and_another_with_another_image() {
        let pod = |labels: Value, annotations: Value, image: &str| {
            shape(&json!({"metadata": {"labels": labels, "annotations": annotations},
                "spec": {"containers": [{"image": image}]}}))
        };
        let before = pod(json!({"app": "x", "aadpodidbinding": "x"}), Value::Null, "a:1");
        let ours = json!({"app": "x", "azure.workload.identity/use": "true"});
        let chain = json!({"widentity.dev/chain": "c"});
        // What is left of the annotations after a switch and back is an empty map, or none.
        assert_eq!(pod(ours.clone(), chain.clone(), "a:1"), pod(ours.clone(), json!({}), "a:1"));
        assert_ne!(pod(ours.clone(), chain, "a:2"), before);
        let restarted = json!({"kubectl.kubernetes.io/restartedAt": "now"});
        assert_ne!(pod(ours.clone(), restarted, "a:1"), before);
        let none =
            json!({"metadata": {"labels": ours}, "spec": {"containers": [{"image": "a:1"}]}});
        let had = json!({"metadata": {"labels": {"app": "x", "aadpodidbinding": "x"}},
            "spec": {"containers": [{"image": "a:1"}]}});
        assert_eq!(shape(&none), shape(&had));
    }

    #[test]
    fn a_run_counts_by_when_it_began_and_only_once_one_succeeded() {
        let began = json!("2026-01-01T03:00:00Z");
        let status = |ended: Value| json!({"lastScheduleTime": began, "lastSuccessfulTime": ended});
        assert_eq!(
            ran(&status(json!("2026-01-01T03:01:00Z"))),
            "2026-01-01T03:00:00Z".parse().ok()
        );
        assert_eq!(ran(&status(json!("2026-01-01T02:01:00Z"))), None);
        assert_eq!(ran(&status(Value::Null)), None);
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
