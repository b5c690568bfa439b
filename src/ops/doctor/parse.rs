//! Kubernetes objects into what a diagnosis looks at. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    diagnose::evidence::{
        Event, NamespaceFacts, ProviderClass, Reference, Selector, Template, TokenClaims,
        WebhookConfiguration,
    },
    kubernetes::IssuedToken,
    model::{
        AccountName, ArmId, Audience, SubscriptionId, names,
        snapshot::{ObjectMeta, ObservedTemplate, Progress, Strategy, TemplateKind},
    },
};

const WEBHOOK: &str = "mutation.azure-workload-identity.io";

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A part as it is, or nothing where it has another shape.
fn part<T: DeserializeOwned + Default>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

/// The workload identity webhooks among mutating webhook configurations.
pub(super) fn webhooks(objects: &[Value]) -> Vec<WebhookConfiguration> {
    let mut found = Vec::new();
    for object in objects {
        for webhook in items(&object["webhooks"]) {
            let labels: BTreeMap<String, String> = part(&webhook["objectSelector"]["matchLabels"]);
            if webhook["name"] != WEBHOOK && !labels.contains_key(names::USE_LABEL) {
                continue;
            }
            let selector = |value: &Value| {
                let selector: Selector = part(value);
                (selector != Selector::default()).then_some(selector)
            };
            let client = &webhook["clientConfig"];
            found.push(WebhookConfiguration {
                name: text(&object["metadata"]["name"]).unwrap_or_default(),
                service_namespace: text(&client["service"]["namespace"]),
                // Without a CA bundle the API server trusts the system's roots only.
                ca_bundle: client["caBundle"].as_str().is_some_and(|ca| !ca.is_empty()),
                failure_policy: text(&webhook["failurePolicy"]),
                namespace_selector: selector(&webhook["namespaceSelector"]),
                object_selector: selector(&webhook["objectSelector"]),
            });
        }
    }
    found
}

/// Ready and wanted replicas of a Deployment, and its first image.
pub(super) fn deployment(object: &Value) -> ((u32, u32), Option<String>) {
    let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    let wanted = number(&object["spec"]["replicas"]).unwrap_or(1);
    let ready = number(&object["status"]["readyReplicas"]).unwrap_or(0);
    let image = items(&object["spec"]["template"]["spec"]["containers"]).first();
    ((ready, wanted), image.and_then(|container| text(&container["image"])))
}

/// A namespace.
pub(super) fn namespace(object: &Value) -> NamespaceFacts {
    NamespaceFacts {
        labels: part(&object["metadata"]["labels"]),
        deleting: !object["metadata"]["deletionTimestamp"].is_null(),
    }
}

/// A warning; none for other events.
pub(super) fn event(object: &Value) -> Option<Event> {
    if object["type"] != "Warning" {
        return None;
    }
    let involved = &object["involvedObject"];
    let kind = text(&involved["kind"])?.to_lowercase();
    Some(Event {
        object: format!("{kind}/{}", text(&involved["name"])?),
        reason: text(&object["reason"]).unwrap_or_default(),
        message: text(&object["message"]).unwrap_or_default(),
        last: ["lastTimestamp", "eventTime", "firstTimestamp"]
            .iter()
            .find_map(|time| object[*time].as_str()?.parse().ok()),
    })
}

/// A `SecretProviderClass` of the Azure provider, with its name; none for other providers.
///
/// Source: Azure Key Vault provider for Secrets Store CSI driver documentation, "Workload
/// Identity".
pub(in crate::ops) fn provider_class(object: &Value) -> Option<(String, ProviderClass)> {
    if object["spec"]["provider"] != "azure" {
        return None;
    }
    let parameters = &object["spec"]["parameters"];
    let on = |key: &str| parameters[key].as_str().is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let class = ProviderClass {
        use_pod_identity: on("usePodIdentity"),
        use_vm_identity: on("useVMManagedIdentity"),
        client_id: text(&parameters["clientID"]),
    };
    Some((text(&object["metadata"]["name"])?, class))
}

/// The pod template of a controller, or a pod itself.
fn pod_part(kind: TemplateKind, object: &Value) -> &Value {
    kind.template_path().iter().fold(object, |part, key| &part[*key])
}

/// What only diagnosis looks at in a controller.
#[derive(Debug, Default)]
pub(in crate::ops) struct Details {
    containers: Vec<String>,
    host_network: bool,
    os: Option<String>,
    node_selector: BTreeMap<String, String>,
    token_paths: Vec<String>,
    projected: Vec<Audience>,
    provider_classes: Vec<String>,
    references: Vec<Reference>,
    job_labels: BTreeMap<String, String>,
}

impl Details {
    /// With the template that they belong to.
    pub(in crate::ops) fn of(self, seen: ObservedTemplate) -> Template {
        let Self {
            containers,
            host_network,
            os,
            node_selector,
            token_paths,
            projected,
            provider_classes,
            references,
            job_labels,
        } = self;
        Template {
            seen,
            containers,
            host_network,
            os,
            node_selector,
            token_paths,
            projected,
            provider_classes,
            references,
            job_labels,
        }
    }
}

/// Reads them from a controller as the server sent it.
pub(in crate::ops) fn details(kind: TemplateKind, object: &Value) -> Details {
    let spec = &pod_part(kind, object)["spec"];
    let mut containers: Vec<&Value> = items(&spec["initContainers"]).iter().collect();
    containers.extend(items(&spec["containers"]));
    let volumes = items(&spec["volumes"]);
    let sources = volumes.iter().flat_map(|volume| items(&volume["projected"]["sources"]));
    let audiences = sources.filter_map(|source| text(&source["serviceAccountToken"]["audience"]));
    let csi = volumes.iter().filter(|v| v["csi"]["driver"] == "secrets-store.csi.k8s.io");
    let mut token_paths = Vec::new();
    for container in &containers {
        for value in [&container["command"], &container["args"], &container["env"]] {
            paths(value, &mut token_paths);
        }
    }
    token_paths.sort();
    token_paths.dedup();
    Details {
        containers: containers.iter().filter_map(|container| text(&container["name"])).collect(),
        host_network: spec["hostNetwork"].as_bool().unwrap_or(false),
        os: text(&spec["os"]["name"]),
        node_selector: part(&spec["nodeSelector"]),
        token_paths,
        projected: audiences.map(Audience).collect(),
        provider_classes: csi
            .filter_map(|v| text(&v["csi"]["volumeAttributes"]["secretProviderClass"]))
            .collect(),
        references: containers.iter().flat_map(|container| references(container)).collect(),
        job_labels: match kind {
            TemplateKind::CronJob => part(&object["spec"]["jobTemplate"]["metadata"]["labels"]),
            TemplateKind::Deployment
            | TemplateKind::StatefulSet
            | TemplateKind::DaemonSet
            | TemplateKind::Rollout
            | TemplateKind::ReplicaSet
            | TemplateKind::ReplicationController
            | TemplateKind::Job
            | TemplateKind::Pod => BTreeMap::new(),
        },
    }
}

/// Azure's variables of a container whose values stand elsewhere.
fn references(container: &Value) -> Vec<Reference> {
    let of_azure = items(&container["env"]).iter().filter(|variable| {
        variable["name"].as_str().is_some_and(|name| name.starts_with("AZURE_"))
            && variable["valueFrom"].is_object()
    });
    let read = |variable: &Value| {
        let from = &variable["valueFrom"];
        let word = |value: &Value| text(value).unwrap_or_default();
        let (kind, source) = match (&from["configMapKeyRef"], &from["secretKeyRef"]) {
            (Value::Null, Value::Null) => ("field", &Value::Null),
            (Value::Null, secret) => ("Secret", secret),
            (map, _) => ("ConfigMap", map),
        };
        Reference {
            container: word(&container["name"]),
            variable: word(&variable["name"]),
            kind: kind.to_owned(),
            name: word(&source["name"]),
            key: word(&source["key"]),
            value: None,
        }
    };
    of_azure.map(read).collect()
}

/// Paths below `/var/run/secrets/azure` in any text of a value.
fn paths(value: &Value, into: &mut Vec<String>) {
    const ROOT: &str = "/var/run/secrets/azure/";
    match value {
        Value::String(text) => {
            for (at, _) in text.match_indices(ROOT) {
                let rest = &text[at..];
                let end = rest.find(|c: char| c.is_whitespace() || "\"';,)|".contains(c));
                into.push(rest[..end.unwrap_or(rest.len())].to_owned());
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, into)),
        Value::Object(members) => members.values().for_each(|member| paths(member, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A Job or `ReplicaSet`, which nothing else reads, as a template.
pub(super) fn template(kind: TemplateKind, object: &Value) -> Option<Template> {
    let meta = &object["metadata"];
    let pod = pod_part(kind, object);
    let mut literal_env = Vec::new();
    for container in items(&pod["spec"]["containers"]) {
        let name = text(&container["name"]).unwrap_or_default();
        for variable in items(&container["env"]) {
            let Some(key) = text(&variable["name"]).filter(|key| key.starts_with("AZURE_")) else {
                continue;
            };
            literal_env.push((name.clone(), key, text(&variable["value"])));
        }
    }
    let owner = items(&meta["ownerReferences"]).iter().find(|owner| owner["controller"] == true);
    let seen = ObservedTemplate {
        kind,
        api_version: text(&object["apiVersion"]).unwrap_or_default(),
        name: text(&meta["name"])?,
        uid: text(&meta["uid"]).unwrap_or_default(),
        meta: ObjectMeta {
            labels: part(&meta["labels"]),
            annotations: part(&meta["annotations"]),
            ..ObjectMeta::default()
        },
        owned_by: owner.map(|owner| {
            let word = |key: &str| owner[key].as_str().unwrap_or_default();
            format!("{}/{}", word("kind").to_lowercase(), word("name"))
        }),
        account: AccountName(
            text(&pod["spec"]["serviceAccountName"]).unwrap_or_else(|| "default".to_owned()),
        ),
        labels: part(&pod["metadata"]["labels"]),
        annotations: part(&pod["metadata"]["annotations"]),
        literal_env,
        host_network: false,
        windows: false,
        strategy: Strategy::NextRun,
        progress: Progress::default(),
    };
    Some(details(kind, object).of(seen))
}

/// The claims of an issued token with the key that signed it. The token is not kept.
pub(super) fn claims(issued: &IssuedToken) -> TokenClaims {
    let decoded = |index: usize| -> Option<Value> {
        let piece = issued.token.expose().split('.').nth(index)?;
        let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        serde_json::from_slice(&engine.decode(piece.trim_end_matches('=')).ok()?).ok()
    };
    let issued_at = decoded(1).and_then(|claims| claims["iat"].as_i64());
    TokenClaims {
        iss: issued.iss.clone(),
        sub: issued.sub.clone(),
        aud: issued.aud.clone(),
        kid: decoded(0).and_then(|header| text(&header["kid"])),
        issued_at: issued_at.and_then(|second| Timestamp::from_second(second).ok()),
    }
}

/// Where a node says that its cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodePlace {
    /// The subscription.
    pub(super) subscription: SubscriptionId,
    /// Ids that the name of the node resource group allows: `MC_<group>_<cluster>_<region>` leaves
    /// open where the group ends if there is a `_` in it, and says nothing where it was chosen.
    pub(super) candidates: Vec<ArmId>,
}

/// Reads a node's provider id:
/// `azure:///subscriptions/<s>/resourceGroups/<node resource group>/providers/…`.
pub(super) fn node_place(provider_id: &str) -> Option<NodePlace> {
    let mut words = provider_id.strip_prefix("azure://")?.split('/').filter(|w| !w.is_empty());
    let mut after = |key: &str| words.by_ref().skip_while(|w| !w.eq_ignore_ascii_case(key)).nth(1);
    let subscription: SubscriptionId = after("subscriptions")?.parse().ok()?;
    let group = after("resourceGroups")?;
    let usual = group.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("mc_"));
    let middle = usual.then(|| group[3..].rsplit_once('_')).flatten().map_or("", |(m, _)| m);
    let candidate = |(at, _)| {
        ArmId::new(format!(
            "/subscriptions/{subscription}/resourceGroups/{}/providers/\
             Microsoft.ContainerService/managedClusters/{}",
            &middle[..at],
            &middle[at + 1..]
        ))
    };
    let candidates = middle.match_indices('_').map(candidate).collect();
    Some(NodePlace { subscription, candidates })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_cluster_is_found_from_a_node() {
        let subscription = "a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813";
        let id = format!(
            "azure:///subscriptions/{subscription}/resourceGroups/mc_rg-a_aks-b_westeurope/providers/Microsoft.Compute/virtualMachineScaleSets/x/virtualMachines/0"
        );
        let place = node_place(&id).unwrap();
        assert_eq!(place.subscription.to_string(), subscription);
        assert_eq!(place.candidates.len(), 1);
        assert!(place.candidates[0].as_str().ends_with("managedClusters/aks-b"));
        assert_eq!(place.candidates[0].resource_group(), Some("rg-a"));
        assert_eq!(node_place(&id.replace("rg-a_", "rg_x_")).unwrap().candidates.len(), 2);
        assert!(node_place(&id.replace("mc_rg-a_", "own-")).unwrap().candidates.is_empty());
        assert!(node_place("gce://p/z/n").is_none() && node_place("azure:///x").is_none());
    }

    #[test]
    fn webhook_configurations_are_read_with_their_selectors() {
        let found = webhooks(&[json!({
            "metadata": {"name": "w"},
            "webhooks": [{
                "name": WEBHOOK, "failurePolicy": "Ignore",
                "clientConfig": {"caBundle": "", "service": {"namespace": "n"}},
                "namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}
            }, {"name": "other"}]
        })]);
        assert_eq!(found.len(), 1);
        assert!(!found[0].ca_bundle && found[0].namespace_selector.is_some());
        assert_eq!(found[0].failure_policy.as_deref(), Some("Ignore"));
    }

    #[test]
    fn details_of_a_template() {
        let object = json!({"metadata": {"name": "j"}, "spec": {"template": {
            "metadata": {"labels": {"azure.workload.identity/use": "true"}},
            "spec": {"serviceAccountName": "a", "hostNetwork": true,
                "containers": [{"name": "c", "args": ["--token", "/var/run/secrets/azure/tokens/azure-identity-token;x"],
                    "env": [{"name": "AZURE_CLIENT_ID", "value": "v"}, {"name": "X", "value": "y"}]}],
                "volumes": [
                    {"csi": {"driver": "secrets-store.csi.k8s.io", "volumeAttributes": {"secretProviderClass": "kv"}}},
                    {"projected": {"sources": [{"serviceAccountToken": {"audience": "aud"}}]}}]}}}});
        let template = template(TemplateKind::Job, &object).unwrap();
        assert_eq!(template.token_paths, ["/var/run/secrets/azure/tokens/azure-identity-token"]);
        assert_eq!(template.provider_classes, ["kv"]);
        assert_eq!(template.projected, [Audience::from("aud")]);
        assert!(template.host_network);
        assert_eq!(template.seen.literal_env.len(), 1);
        assert_eq!(template.seen.account.as_str(), "a");
    }
}
