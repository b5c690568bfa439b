//! An installation of AAD Pod Identity as its manifests make it, for real and emulated clusters.

use serde_json::{Value, json};

use super::kube_apiserver::Admin;

pub(crate) const GROUP: &str = "aadpodidentity.k8s.io";
pub(crate) const FINALIZER: &str = "azureassignedidentity.finalizers.aadpodidentity.k8s.io";
const MIC: &str = "aad-pod-id-mic-service-account";
const NMI: &str = "aad-pod-id-nmi-service-account";

/// An object with the collection that it is made in.
pub(crate) type Made = (String, Value);

pub(crate) fn definition(kind: &str, plural: &str) -> Made {
    let object = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}"),
            "annotations": {"api-approved.kubernetes.io": "unapproved"}},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(),
                "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {},
                "schema": {"openAPIV3Schema": schema(kind)}}],
        },
    });
    ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions".to_owned(), object)
}

/// What a server of version 1.8 keeps of an object; everything else is pruned.
///
/// Source: Azure/aad-pod-identity at v1.8, `config/crd/aadpodidentity.k8s.io.yaml`.
fn schema(kind: &str) -> Value {
    let (text, number, object) =
        (json!({"type": "string"}), json!({"type": "integer"}), json!({"type": "object"}));
    let count = json!({"type": "integer", "format": "int32", "nullable": true});
    let identity = json!({
        "adEndpoint": text, "adResourceID": text, "clientID": text, "resourceID": text,
        "tenantID": text, "type": number, "replicas": count, "metadata": object,
        "auxiliaryTenantIDs": {"type": "array", "nullable": true, "items": text},
        "clientPassword": {"type": "object", "properties": {"name": text, "namespace": text}},
    });
    let binding =
        json!({"azureIdentity": text, "selector": text, "weight": number, "metadata": object});
    let whole = |spec: &Value, of_status: Value| {
        json!({"type": "object", "properties": {
            "apiVersion": text, "kind": text, "metadata": object,
            "spec": {"type": "object", "properties": spec},
            "status": {"type": "object", "properties": of_status},
        }})
    };
    let status = || json!({"availableReplicas": count, "metadata": object});
    let embedded = |spec: &Value| {
        let mut whole = whole(spec, status());
        whole["x-kubernetes-embedded-resource"] = true.into();
        whole
    };
    match kind {
        "AzureIdentity" => whole(&identity, status()),
        "AzureIdentityBinding" => whole(&binding, status()),
        "AzureAssignedIdentity" => whole(
            &json!({
                "azureBindingRef": embedded(&binding), "azureIdentityRef": embedded(&identity),
                "metadata": object, "nodename": text, "pod": text, "podNamespace": text,
                "replicas": count,
            }),
            json!({"availableReplicas": count, "metadata": object, "status": text}),
        ),
        "AzurePodIdentityException" => whole(
            &json!({"metadata": object,
                "podLabels": {"type": "object", "additionalProperties": text}}),
            status(),
        ),
        kind => panic!("{kind} is no kind of Pod Identity"),
    }
}

/// The same before 1.6, for servers before 1.22: without a schema, so that objects keep whatever
/// they have, in the spelling they have it.
pub(crate) fn old_definition(kind: &str, plural: &str) -> Made {
    let (_, mut object) = definition(kind, plural);
    object["apiVersion"] = "apiextensions.k8s.io/v1beta1".into();
    object["spec"]["version"] = "v1".into();
    object["spec"]["preserveUnknownFields"] = true.into();
    object["spec"]["versions"] = json!([{"name": "v1", "served": true, "storage": true}]);
    ("/apis/apiextensions.k8s.io/v1beta1/customresourcedefinitions".to_owned(), object)
}

/// An object of the group.
pub(crate) fn custom(kind: &str, plural: &str, at: (&str, &str), spec: Value) -> Made {
    let (namespace, name) = at;
    let object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec});
    (format!("/apis/{GROUP}/v1/namespaces/{namespace}/{plural}"), object)
}

/// What MIC makes for a pod, with its finalizer.
pub(crate) fn assigned(namespace: &str, name: &str) -> Made {
    let (at, mut object) = custom(
        "AzureAssignedIdentity",
        "azureassignedidentities",
        (namespace, name),
        json!({"pod": "p", "podNamespace": namespace}),
    );
    object["metadata"]["finalizers"] = json!([FINALIZER]);
    (at, object)
}

fn component(kind: &str, name: &str, namespace: &str, account: &str) -> Made {
    let labels = json!({"component": name, "app": name, "k8s-app": "aad-pod-id"});
    let mut spec = json!({
        "selector": {"matchLabels": {"component": name, "app": name}},
        "template": {"metadata": {"labels": labels}, "spec": {
            "serviceAccountName": account,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": name, "image": format!("registry.example/{name}:v1.8.17"),
                "args": ["--cloudconfig=/etc/kubernetes/azure.json", "--logtostderr"]}]}},
    });
    if kind == "Deployment" {
        spec["replicas"] = 2.into();
    } else {
        spec["template"]["spec"]["hostNetwork"] = true.into();
    }
    let object = json!({"apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec});
    (format!("/apis/apps/v1/namespaces/{namespace}/{}s", kind.to_lowercase()), object)
}

fn rights(of: &str, namespace: &str, account: &str) -> [Made; 3] {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = format!("aad-pod-id-{of}-role");
    [
        (
            format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": account, "namespace": namespace}}),
        ),
        (
            format!("{rbac}/clusterroles"),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": role}, "rules": [
                    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
                    {"apiGroups": [GROUP], "resources": ["azureidentities"], "verbs": ["get"]}]}),
        ),
        (
            format!("{rbac}/clusterrolebindings"),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": {"name": format!("aad-pod-id-{of}-binding")},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                    "name": role},
                "subjects": [{"kind": "ServiceAccount", "name": account,
                    "namespace": namespace}]}),
        ),
    ]
}

/// Everything that the manifests of the project make in a namespace, in an order in which it can
/// be made; MIC's `ConfigMap` included.
pub(crate) fn manifests(namespace: &str) -> Vec<Made> {
    let mut all = vec![
        definition("AzureAssignedIdentity", "azureassignedidentities"),
        definition("AzureIdentityBinding", "azureidentitybindings"),
        definition("AzureIdentity", "azureidentities"),
        definition("AzurePodIdentityException", "azurepodidentityexceptions"),
    ];
    all.extend(rights("mic", namespace, MIC));
    all.extend(rights("nmi", namespace, NMI));
    all.push(component("Deployment", "mic", namespace, MIC));
    all.push(component("DaemonSet", "nmi", namespace, NMI));
    all.push(custom(
        "AzurePodIdentityException",
        "azurepodidentityexceptions",
        (namespace, "mic-exception"),
        json!({"podLabels": {"app": "mic", "component": "mic"}}),
    ));
    all.push((
        format!("/api/v1/namespaces/{namespace}/configmaps"),
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "aad-pod-identity-config", "namespace": namespace}}),
    ));
    all
}

/// Makes objects, each as soon as its kind is served.
pub(crate) async fn make(admin: &Admin, objects: &[Made]) {
    for (collection, object) in objects {
        let made = async {
            while !admin.exists(collection).await {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        let served = tokio::time::timeout(std::time::Duration::from_secs(60), made).await;
        assert!(served.is_ok(), "{collection} is not served");
        admin.create(collection, object).await;
    }
}

/// What is left of an installation, as paths.
pub(crate) async fn left(admin: &Admin, objects: &[Made]) -> Vec<String> {
    let mut left = Vec::new();
    for (collection, object) in objects {
        let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap());
        if admin.exists(&path).await {
            left.push(path);
        }
    }
    left
}
