//! The objects of the workload identity add-on, visible while it is switched on.

use serde_json::{Value, json};

use super::super::{
    Kubernetes, delete::Deletion, objects::Writer, storage::Key, webhook::WEBHOOK_NAME,
};

const NAMESPACE: &str = "kube-system";
/// The configuration by which the API server calls the webhook.
pub(in crate::sandbox::kubernetes) const CONFIGURATION: &str =
    "azure-wi-webhook-mutating-webhook-configuration";
/// What the add-on's certificate controller writes; nothing here is called through it.
const CA_BUNDLE: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCi0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K";
const DEPLOYMENT: &str = "azure-wi-webhook-controller-manager";

impl Kubernetes {
    /// Makes or removes the add-on's objects when ARM's record has changed.
    pub(super) fn install_add_on(&self) {
        let wanted = self.facts().workload_identity;
        {
            let mut state = self.lock_state();
            if state.add_on == Some(wanted) {
                return;
            }
            state.add_on = Some(wanted);
        }
        if wanted {
            for object in objects(&self.ctx.settings.tenant.to_string()) {
                self.ensure(&object, &Writer::system("aks-managed-workload-identity"));
            }
            return;
        }
        let mut tx = self.begin();
        let keys = [
            Key::of(
                "admissionregistration.k8s.io/mutatingwebhookconfigurations/",
                "",
                CONFIGURATION,
            ),
            Key::of("apps/deployments/", NAMESPACE, DEPLOYMENT),
            Key::of("core/services/", NAMESPACE, "azure-wi-webhook-webhook-service"),
            Key::of("core/serviceaccounts/", NAMESPACE, "azure-wi-webhook-admin"),
            Key::of("core/configmaps/", NAMESPACE, "azure-wi-webhook-config"),
        ];
        for key in keys {
            if tx.get_key(&key).is_some() {
                // Nothing holds these objects; there is nobody to tell about a failure.
                drop(tx.delete(&key, &Deletion::default()));
            }
        }
    }
}

/// As the add-on installs them
/// (<https://github.com/Azure/azure-workload-identity/blob/main/deploy/azure-wi-webhook.yaml>).
fn objects(tenant: &str) -> Vec<Value> {
    let labels = json!({"app": "workload-identity-webhook", "azure-workload-identity.io/system": "true",
        "kubernetes.azure.com/managedby": "aks"});
    let meta = |name: &str| json!({"name": name, "namespace": NAMESPACE, "labels": labels});
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("azure-wi-webhook-admin")}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("azure-wi-webhook-config"),
            "data": {"AZURE_ENVIRONMENT": "AzurePublicCloud", "AZURE_TENANT_ID": tenant}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("azure-wi-webhook-webhook-service"),
            "spec": {"ports": [{"port": 443, "targetPort": 9443}],
                "selector": {"azure-workload-identity.io/system": "true"}}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(DEPLOYMENT),
            "spec": {"replicas": 2, "selector": {"matchLabels": {"azure-workload-identity.io/system": "true"}},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "serviceAccountName": "azure-wi-webhook-admin", "priorityClassName": "system-cluster-critical",
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "containers": [{"name": "manager", "command": ["/manager"],
                        "args": ["--log-level=info"],
                        "image": "mcr.microsoft.com/oss/v2/azure/workload-identity/webhook:v1.6.0",
                        "ports": [{"name": "webhook-server", "containerPort": 9443}],
                        "envFrom": [{"configMapRef": {"name": "azure-wi-webhook-config"}}],
                        "resources": {"limits": {"cpu": "100m", "memory": "30Mi"},
                            "requests": {"cpu": "100m", "memory": "20Mi"}}}]}}}}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": CONFIGURATION, "labels": labels},
            "webhooks": [{"name": WEBHOOK_NAME, "admissionReviewVersions": ["v1", "v1beta1"],
                "clientConfig": {"caBundle": CA_BUNDLE, "service": {"name": "azure-wi-webhook-webhook-service",
                    "namespace": NAMESPACE, "path": "/mutate-v1-pod"}},
                "failurePolicy": "Fail", "matchPolicy": "Equivalent", "reinvocationPolicy": "IfNeeded",
                "objectSelector": {"matchLabels": {"azure.workload.identity/use": "true"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                    "resources": ["pods"]}],
                "sideEffects": "None"}]}),
    ]
}
