//! The pod templates of all controllers, as far as they matter for leaving AAD Pod Identity: how a
//! roll replaces pods, where they run, what they mount, and whose template it is.

use std::collections::BTreeSet;

use serde::Deserialize as _;
use serde_json::Value;

use super::{
    parse_meta::only_ours,
    parse_pod::SKIP_ANNOTATION,
    parse_template::{
        Steering, account_of, literal_env, owned_by, progress, strategy, template_path,
    },
    pod_identity::{kept_by, map, named, text},
    wire::{Controller, PodSpec},
};
use crate::model::{
    Project,
    names::{self, PROJECT_ANNOTATION, field_manager},
    pod_identity::{BINDING_LABEL, EstateTemplate, Named},
    snapshot::TemplateKind,
};

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
        | TemplateKind::ReplicationController
        | TemplateKind::Job
        | TemplateKind::Pod => false,
    }
}

/// A Deployment whose pods a Rollout makes: their number and how they are replaced are the
/// Rollout's.
pub(super) fn steered(template: &mut EstateTemplate, deployment: &Value, by: &Steering) {
    let seen = by.observed >= deployment["metadata"]["generation"].as_i64().unwrap_or_default();
    template.complete = seen && by.progress.complete();
    template.replicas = Some(by.progress.desired);
    template.strategy = by.strategy;
    template.gaps = false;
}

/// The groups of the kinds that are read themselves.
const STAMPING: [(&str, &str); 7] = [
    ("Deployment", "apps/"),
    ("StatefulSet", "apps/"),
    ("DaemonSet", "apps/"),
    ("ReplicaSet", "apps/"),
    ("CronJob", "batch/"),
    ("Job", "batch/"),
    ("Rollout", "argoproj.io/"),
];

/// A controller and its pod template; none where a controller that is read itself stamps it, as a
/// Deployment does its `ReplicaSet`, for a pod that any controller made, and for a Rollout that
/// refers to a Deployment's.
pub(super) fn template(
    kind: TemplateKind,
    version: &str,
    object: &Value,
) -> Option<EstateTemplate> {
    let (meta, spec) = (&object["metadata"], &object["spec"]);
    let mut owners = meta["ownerReferences"].as_array().into_iter().flatten();
    let owner = owners.find(|owner| owner["controller"] == true);
    let stamped = owner.is_some_and(|owner| {
        let version = owner["apiVersion"].as_str().unwrap_or_default();
        STAMPING.iter().any(|(kind, group)| owner["kind"] == *kind && version.starts_with(group))
    });
    // A Rollout may have no template of its own.
    let refers = kind == TemplateKind::Rollout && spec["workloadRef"]["kind"] == "Deployment";
    if stamped || refers || (kind == TemplateKind::Pod && owner.is_some()) {
        return None;
    }
    let template = object.pointer(&kind.template_pointer()).unwrap_or(&Value::Null);
    let pod = &template["spec"];
    let containers = || pod["containers"].as_array().into_iter().flatten();
    let volumes = pod["volumes"].as_array().into_iter().flatten();
    let mounted = volumes.filter(|v| v["csi"]["driver"] == "secrets-store.csi.k8s.io");
    let class =
        |v: &Value| v["csi"]["volumeAttributes"]["secretProviderClass"].as_str().map(str::to_owned);
    let secret_classes = mounted.filter_map(class).collect();
    let controller = Controller::deserialize(object).unwrap_or_default();
    let typed = PodSpec::deserialize(pod).unwrap_or_default();
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
    let Named { namespace, name, uid } = named(object);
    Some(EstateTemplate {
        namespace,
        kind,
        api_version: version.to_owned(),
        name,
        uid,
        account: account_of(&typed),
        labels: map(&template["metadata"]["labels"]),
        annotations: map(&template["metadata"]["annotations"]),
        kept_by: kept_by(meta),
        owned_by: owned_by(&controller.metadata.owner_references),
        replicas,
        idle: spec["suspend"] == true || (kind == TemplateKind::Job && finished),
        strategy: strategy(kind, &controller),
        readiness: containers().all(|c| c["readinessProbe"].is_object()),
        gaps: gaps(kind, spec, replicas.unwrap_or(1)),
        selector_holds: spec["selector"]["matchLabels"].get(BINDING_LABEL).is_some(),
        host_network: typed.host_network,
        // A toleration alone sends nobody there.
        virtual_node: pod["nodeSelector"]["type"] == "virtual-kubelet",
        secret_classes,
        windows: typed.is_windows(),
        asserts: asserts(pod),
        literal_env: set_by_itself(template, &typed),
        complete: progress(kind, &controller).complete(),
        written: written(meta),
        project: meta["annotations"][PROJECT_ANNOTATION].as_str().map(str::to_owned),
        own: own(object, kind),
        shape: shape(template),
        ran: ran(spec, &object["status"]),
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

/// `AZURE_*` variables of the containers that the webhook changes.
fn set_by_itself(template: &Value, pod: &PodSpec) -> Vec<(String, String, Option<String>)> {
    let skipped = template["metadata"]["annotations"][SKIP_ANNOTATION].as_str().unwrap_or_default();
    let mut found = literal_env(pod);
    found.retain(|(container, ..)| !skipped.split(';').any(|name| name.trim() == container));
    found
}

/// When the last run of a `CronJob` began, if one has succeeded since.
/// Where runs may overlap, which is the default, the one that succeeded may be an older one: there
/// only its pods tell.
fn ran(spec: &Value, status: &Value) -> Option<jiff::Timestamp> {
    if !matches!(spec["concurrencyPolicy"].as_str(), Some("Forbid" | "Replace")) {
        return None;
    }
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

/// The labels and annotations of the pod template that only the project of its mark manages.
fn own(object: &Value, kind: TemplateKind) -> BTreeSet<String> {
    let meta = &object["metadata"];
    let Some(project) = meta["annotations"][PROJECT_ANNOTATION].as_str() else {
        return BTreeSet::new();
    };
    let manager = field_manager(&Project::from(project));
    let mut found = BTreeSet::new();
    for part in ["labels", "annotations"] {
        let at = format!("{}/metadata/{part}", kind.template_pointer());
        let fields = format!("f:{part}");
        let path = [template_path(kind), &["f:metadata", fields.as_str()]].concat();
        let keys = object.pointer(&at).and_then(Value::as_object).into_iter().flatten();
        let ours = keys.map(|(key, _)| key).filter(|key| only_ours(meta, &path, key, &manager));
        found.extend(ours.cloned());
    }
    found
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::parse_template::{Parsed, controller},
        *,
    };

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
        let forbid = json!({"concurrencyPolicy": "Forbid"});
        let later = status(json!("2026-01-01T03:01:00Z"));
        assert_eq!(ran(&forbid, &later), "2026-01-01T03:00:00Z".parse().ok());
        assert_eq!(ran(&forbid, &status(json!("2026-01-01T02:01:00Z"))), None);
        assert_eq!(ran(&forbid, &status(Value::Null)), None);
        // An older run may have succeeded while the last one goes on.
        assert_eq!(ran(&json!({}), &later), None);
        assert_eq!(ran(&json!({"concurrencyPolicy": "Allow"}), &later), None);
    }

    /// What an operator makes is a workload like any other, only not one that anybody else may
    /// write; what our own kinds stamp is told by them.
    #[test]
    fn an_owner_hides_a_controller_only_where_it_is_read_itself() {
        let owned = |kind: &str, version: &str, at: &str| {
            let owner =
                json!({"apiVersion": version, "kind": kind, "name": at, "controller": true});
            json!({"metadata": {"name": "x", "ownerReferences": [owner]}, "spec": {"template": {}}})
        };
        let of = |kind, object: &Value| template(kind, "v", object).map(|t| t.owned_by);
        let replica_set = owned("Deployment", "apps/v1", "web");
        assert_eq!(of(TemplateKind::ReplicaSet, &replica_set), None);
        let job = owned("CronJob", "batch/v1beta1", "nightly");
        assert_eq!(of(TemplateKind::Job, &job), None);
        let operated = owned("Prometheus", "monitoring.coreos.com/v1", "k8s");
        let by = Some(Some("prometheus/k8s".to_owned()));
        assert_eq!(of(TemplateKind::StatefulSet, &operated), by);
        assert!(!template(TemplateKind::StatefulSet, "v", &operated).unwrap().writable());
        assert_eq!(of(TemplateKind::Pod, &operated), None);
        // A kind of another group that happens to have one of our names.
        let foreign = owned("Deployment", "example.com/v1", "web");
        assert_eq!(of(TemplateKind::ReplicaSet, &foreign), Some(Some("deployment/web".to_owned())));
    }

    /// What a plan waits for and what a migration decides by is the same.
    #[test]
    fn a_controller_is_read_as_a_plan_reads_it() {
        use TemplateKind as K;
        let rolled = json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1});
        let pod = |spec: Value| json!({"template": {"spec": spec}});
        for (kind, spec, status) in [
            (K::Rollout, json!({"strategy": {"canary": {}}}), json!({"phase": "Paused"})),
            (K::Rollout, json!({"paused": true}), json!({"observedGeneration": "2"})),
            (
                K::DaemonSet,
                json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}}),
                json!({"observedGeneration": 2}),
            ),
            (
                K::StatefulSet,
                json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}}),
                rolled.clone(),
            ),
            (K::StatefulSet, json!({"updateStrategy": {"type": "OnDelete"}}), rolled.clone()),
            (K::Deployment, json!({"strategy": {"type": "Recreate"}}), rolled.clone()),
            // It runs, and nothing of it is available.
            (K::Deployment, pod(json!({"hostNetwork": true})), rolled),
            (K::Deployment, pod(json!({"serviceAccountName": "api"})), json!({})),
            (K::Deployment, pod(json!({"os": {"name": "windows"}})), json!({})),
            (
                K::Deployment,
                pod(json!({"nodeSelector": {"beta.kubernetes.io/os": "windows"}})),
                json!({}),
            ),
            (K::CronJob, json!({}), json!({})),
        ] {
            let owner = json!({"kind": "Shop", "name": "x", "controller": true});
            let meta = json!({"name": "x", "generation": 2, "ownerReferences": [owner]});
            let object = json!({"metadata": meta, "spec": spec, "status": status});
            let have = template(kind, "v", &object).unwrap();
            let typed = Controller::deserialize(&object).unwrap();
            let Parsed::Template(want) = controller(kind, "v", typed) else { panic!("{object}") };
            assert_eq!(have.strategy, want.strategy, "{object}");
            assert_eq!(have.complete, want.progress.complete(), "{object}");
            assert_eq!((have.account, have.owned_by), (want.account, want.owned_by), "{object}");
            assert_eq!(have.windows, want.windows, "{object}");
            assert_eq!(have.host_network, want.host_network, "{object}");
        }
    }

    #[test]
    fn mounted_secrets_and_virtual_nodes_are_read_off_the_template() {
        let object = json!({"metadata": {"name": "x"}, "spec": {"template": {"spec": {
            "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "csi": {
                "driver": "secrets-store.csi.k8s.io",
                "volumeAttributes": {"secretProviderClass": "kv"}}}]}}}});
        let found = template(TemplateKind::Deployment, "v", &object).unwrap();
        assert_eq!(found.secret_classes.into_iter().collect::<Vec<_>>(), ["kv"]);
        assert!(!found.virtual_node, "a toleration places nothing");
    }

    #[test]
    fn variables_that_a_template_sets_itself_are_read_where_the_webhook_would_set_them() {
        let object = json!({"metadata": {"name": "x"}, "spec": {"jobTemplate": {"spec": {"template": {
            "metadata": {"annotations": {SKIP_ANNOTATION: "other; side"}},
            "spec": {
                "initContainers": [{"name": "init", "env": [
                    {"name": "AZURE_CLIENT_ID", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}],
                "containers": [
                    {"name": "main", "env": [{"name": "AZURE_CLIENT_ID", "value": "c"}]},
                    {"name": "side", "env": [{"name": "AZURE_CLIENT_ID", "value": "own"}]}]}}}}}});
        let found = template(TemplateKind::CronJob, "v", &object).unwrap().literal_env;
        let set = |container: &str, value: Option<&str>| {
            (container.to_owned(), "AZURE_CLIENT_ID".to_owned(), value.map(str::to_owned))
        };
        assert_eq!(found, [set("init", None), set("main", Some("c"))]);
    }
}
