//! The objects of the Pod Identity add-on, as ARM's record says: NMI in managed mode, and an
//! identity and a binding for each entry of the profile. What somebody deletes in the cluster
//! comes back with the next change of the record; what the record drops goes. The definitions stay.
//!
//! Source: Microsoft documentation, "Use Microsoft Entra pod-managed identities in AKS". The marks
//! of AKS's objects are not documented; the label here is the sandbox's own choice.

use serde_json::{Value, json};

use super::super::{Kubernetes, delete::Deletion, objects::Writer, storage::Key};

const GROUP: &str = "aadpodidentity.k8s.io";
const NAMESPACE: &str = "kube-system";
const STEMS: [&str; 4] = [
    "apps/daemonsets/",
    "aadpodidentity.k8s.io/azurepodidentityexceptions/",
    "aadpodidentity.k8s.io/azureidentitybindings/",
    "aadpodidentity.k8s.io/azureidentities/",
];

fn labels() -> Value {
    json!({"kubernetes.azure.com/managedby": "aks", "component": "nmi"})
}

impl Kubernetes {
    /// Makes and removes the add-on's objects when ARM's record has changed.
    pub(super) fn install_pod_identity(&self) {
        let Some(profile) = self.pod_identity_profile() else { return };
        {
            let mut state = self.lock_state();
            if state.pod_identity.as_ref() == Some(&profile) {
                return;
            }
            state.pod_identity = Some(profile.clone());
        }
        let wanted = if profile.is_null() { Vec::new() } else { objects(&profile) };
        let writer = Writer::system("aks-pod-identity-addon");
        for object in &wanted {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            let there = namespace.is_empty() || {
                let key = Key::of("core/namespaces/", "", namespace);
                self.begin().get_key(&key).is_some()
            };
            if there {
                self.ensure(object, &writer);
            }
        }
        let mut tx = self.begin();
        for stem in STEMS {
            for (key, object) in tx.list(stem, None) {
                let ours = object["metadata"]["labels"] == labels();
                let kept = wanted.iter().any(|wanted| {
                    let (old, new) = (&object["metadata"], &wanted["metadata"]);
                    wanted["kind"] == object["kind"]
                        && (&old["namespace"], &old["name"]) == (&new["namespace"], &new["name"])
                });
                if ours && !kept {
                    // Nothing holds these objects; there is nobody to tell about a failure.
                    drop(tx.delete(&key, &Deletion::default()));
                }
            }
        }
    }

    /// The profile that is in effect, null where the add-on is off; none while an update of the
    /// cluster is under way.
    fn pod_identity_profile(&self) -> Option<Value> {
        let record = self.ctx.store.get(&format!("arm/{}", self.cluster.key()))?;
        let end = record["operation"]["end_ms"].as_i64();
        if end.is_some_and(|end| end > self.now().as_millisecond()) {
            return None;
        }
        let profile = &record["properties"]["podIdentityProfile"];
        Some(if profile["enabled"] == true { profile.clone() } else { Value::Null })
    }
}

fn objects(profile: &Value) -> Vec<Value> {
    let definition = |kind: &str, plural: &str| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{GROUP}")},
            "spec": {"group": GROUP, "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(),
                    "listKind": format!("{kind}List")},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema":
                    {"openAPIV3Schema": {"type": "object",
                        "x-kubernetes-preserve-unknown-fields": true}}}]}})
    };
    let object = |kind: &str, namespace: &str, name: &str, spec: Value| {
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "labels": labels()}, "spec": spec})
    };
    let mut all = vec![
        definition("AzureIdentity", "azureidentities"),
        definition("AzureIdentityBinding", "azureidentitybindings"),
        definition("AzureAssignedIdentity", "azureassignedidentities"),
        definition("AzurePodIdentityException", "azurepodidentityexceptions"),
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "nmi", "namespace": NAMESPACE, "labels": labels()},
            "spec": {"selector": {"matchLabels": {"component": "nmi"}},
                "template": {"metadata": {"labels": labels()}, "spec": {
                    "hostNetwork": true,
                    "containers": [{"name": "nmi", "image": "mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17",
                        "args": ["--node=$(NODE_NAME)", "--operation-mode=managed", "--forceNamespaced"]}]}}}}),
        object(
            "AzurePodIdentityException",
            NAMESPACE,
            "aks-addon-exception",
            json!({"podLabels": {"kubernetes.azure.com/managedby": "aks"}}),
        ),
    ];
    let list = |name: &str| profile[name].as_array().cloned().unwrap_or_default();
    for entry in list("userAssignedIdentityExceptions") {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let spec = json!({"podLabels": entry["podLabels"]});
        all.push(object("AzurePodIdentityException", &text("namespace"), &text("name"), spec));
    }
    for entry in list("userAssignedIdentities") {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let selector = entry["bindingSelector"].as_str().unwrap_or(&name);
        let identity = &entry["identity"];
        let spec = json!({"type": 0, "resourceID": identity["resourceId"],
            "clientID": identity["clientId"]});
        all.push(object("AzureIdentity", &namespace, &name, spec));
        let spec = json!({"azureIdentity": name, "selector": selector});
        let binding = format!("{name}-binding");
        all.push(object("AzureIdentityBinding", &namespace, &binding, spec));
    }
    all
}
