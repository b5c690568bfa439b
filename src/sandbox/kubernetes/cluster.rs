//! What ARM says about the cluster, and what every cluster has from the start.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Kubernetes, objects::Writer, storage::Key};

/// The issuer of a cluster whose OIDC issuer is off.
pub(super) const INTERNAL_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What ARM says about the cluster at the moment.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The `iss` of tokens.
    pub issuer: String,
    /// Whether the workload identity webhook is installed.
    pub workload_identity: bool,
    /// Version of the API server, such as `1.33.5`.
    pub version: String,
    /// Minor version.
    pub minor: u32,
}

/// Switches of one emulated cluster, kept in the store at `kube/<cluster key>/~options`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The webhook is installed and does not answer.
    pub webhook_down: bool,
    /// Milliseconds from the creation of a pod to Ready.
    pub pod_start_ms: u64,
    /// Whether new pods get events and start by themselves; `false` leaves them Pending, as a
    /// cluster without kubelets does.
    pub kubelets: bool,
    /// Nodes that the cluster has at the start.
    pub nodes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { webhook_down: false, pod_start_ms: 300, kubelets: true, nodes: 2 }
    }
}

impl Kubernetes {
    /// What ARM says now. Takes the store's lock for a moment.
    pub(super) fn facts(&self) -> Facts {
        let record = self.ctx.store.get(&format!("arm/{}", self.cluster.key()));
        let record = record.as_deref().unwrap_or(&Value::Null);
        let properties = &record["properties"];
        let issuer = match record["issuer"].as_str() {
            Some(issuer) if properties["oidcIssuerProfile"]["enabled"] == true => issuer,
            _ => INTERNAL_ISSUER,
        };
        let now = self.now().as_millisecond();
        let operation = &record["operation"];
        let updating = operation["end_ms"].as_i64().is_some_and(|end| end > now);
        // An update that switches the webhook on has not installed it before it ends.
        let installed = !updating || operation["had_webhook"] == true;
        let version = properties["currentKubernetesVersion"]
            .as_str()
            .or(properties["kubernetesVersion"].as_str())
            .unwrap_or(&self.ctx.settings.kubernetes_version)
            .to_owned();
        let minor = version.split('.').nth(1).and_then(|m| m.parse().ok()).unwrap_or(33);
        Facts {
            issuer: issuer.to_owned(),
            workload_identity: installed
                && properties["securityProfile"]["workloadIdentity"]["enabled"] == true,
            version,
            minor,
        }
    }

    /// The switches of this cluster.
    pub fn options(&self) -> Options {
        self.ctx
            .store
            .get(&format!("{}~options", self.prefix))
            .and_then(|doc| serde_json::from_value((*doc).clone()).ok())
            .unwrap_or_default()
    }

    /// Changes the switches of this cluster.
    pub fn set_options(&self, options: &Options) -> std::io::Result<()> {
        let doc = serde_json::to_value(options)?;
        let write = super::super::store::Write::put(format!("{}~options", self.prefix), doc);
        self.ctx.store.commit(vec![write]).map(drop)
    }

    /// Makes what every cluster has, if it is absent.
    pub(super) fn bootstrap(&self) {
        let options = self.options();
        let system = Writer::system("kube-apiserver");
        for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            self.ensure(
                &json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": namespace}}),
                &system,
            );
        }
        for node in 0..options.nodes {
            let name = format!("aks-nodepool1-{:08}-vmss{node:06}", 12_345_678);
            let provider = self.provider_id(node);
            self.ensure(&node_object(&name, &provider, &self.facts().version, self.now()), &system);
        }
        self.ensure(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "cluster-admin", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
                "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
                {"nonResourceURLs": ["*"], "verbs": ["*"]}]}), &system);
        self.ensure(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "cluster-admin", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
                "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:masters"}]}), &system);
        self.ensure(&json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "https", "port": 443, "targetPort": 443}]}}), &system);
    }

    /// What the cloud provider writes into a node: the virtual machine in the cluster's node
    /// resource group.
    fn provider_id(&self, node: u32) -> String {
        let record = self.ctx.store.get(&format!("arm/{}", self.cluster.key()));
        let record = record.as_deref().unwrap_or(&Value::Null);
        let group = record["properties"]["nodeResourceGroup"].as_str().unwrap_or_default();
        let subscription = self.cluster.id.split('/').nth(2).unwrap_or_default();
        format!(
            "azure:///subscriptions/{subscription}/resourceGroups/{}/providers/Microsoft.Compute/\
             virtualMachineScaleSets/aks-nodepool1-12345678-vmss/virtualMachines/{node}",
            group.to_lowercase()
        )
    }

    /// Creates `object` if it is absent; a refusal other than "exists" would be a wrong table here
    /// and shows in the tests of this module.
    pub(super) fn ensure(&self, object: &Value, writer: &Writer<'_>) {
        let kinds = self.kinds();
        let Some(kind) = kinds.of(
            object["apiVersion"].as_str().unwrap_or_default(),
            object["kind"].as_str().unwrap_or_default(),
        ) else {
            return;
        };
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let mut tx = self.begin();
        if tx.get_key(&Key::new(kind, namespace, name)).is_none() {
            let result = tx.create(kind, namespace, object.clone(), writer);
            debug_assert!(result.is_ok(), "{result:?}");
        }
    }
}

fn node_object(name: &str, provider: &str, version: &str, now: Timestamp) -> Value {
    let now = super::objects::stamp(now);
    let resources = json!({"cpu": "4", "memory": "16393244Ki", "pods": "250",
        "ephemeral-storage": "129886128Ki"});
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "kubernetes.azure.com/mode": "system", "agentpool": "nodepool1", "kubernetes.io/role": "agent"}},
        "spec": {"providerID": provider},
        "status": {"capacity": resources, "allocatable": resources,
            "addresses": [{"type": "InternalIP", "address": "10.224.0.4"}, {"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "message": "kubelet is posting ready status", "lastHeartbeatTime": now, "lastTransitionTime": now}],
            "nodeInfo": {"architecture": "amd64", "bootID": "", "containerRuntimeVersion": "containerd://1.7.27",
                "kernelVersion": "5.15.0-1089-azure", "kubeProxyVersion": format!("v{version}"),
                "kubeletVersion": format!("v{version}"), "machineID": "", "operatingSystem": "linux",
                "osImage": "Ubuntu 22.04.5 LTS", "systemUUID": ""}}})
}
