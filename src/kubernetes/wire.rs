//! The parts of Kubernetes objects that matter. Everything else of an answer is dropped while it
//! is parsed.
//!
//! Source: Kubernetes API reference, <https://kubernetes.io/docs/reference/kubernetes-api/>. A
//! field that Go writes as null or leaves out is taken for its zero value.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Takes null for the zero value, as Go does.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
    pub generation: Option<i64>,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub owner_references: Vec<OwnerReference>,
    #[serde(deserialize_with = "or_default")]
    pub managed_fields: Vec<ManagedFields>,
    pub deletion_timestamp: Option<String>,
    pub creation_timestamp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OwnerReference {
    pub kind: String,
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub controller: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ManagedFields {
    #[serde(deserialize_with = "or_default")]
    pub manager: String,
    #[serde(deserialize_with = "or_default")]
    pub operation: String,
    #[serde(rename = "fieldsV1")]
    pub fields: Value,
}

/// An object of which only the metadata matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Bare {
    pub metadata: Meta,
}

/// A controller of any kind with a pod template.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Controller {
    pub metadata: Meta,
    #[serde(deserialize_with = "or_default")]
    pub spec: ControllerSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: ControllerStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ControllerSpec {
    pub replicas: Option<i64>,
    #[serde(deserialize_with = "or_default")]
    pub paused: bool,
    /// Of a Deployment; a Rollout's is an object without a type.
    #[serde(deserialize_with = "or_default")]
    pub strategy: UpdateStrategy,
    #[serde(deserialize_with = "or_default")]
    pub update_strategy: UpdateStrategy,
    pub template: Option<PodTemplate>,
    pub job_template: Option<JobTemplate>,
    pub workload_ref: Option<WorkloadRef>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct UpdateStrategy {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub rolling_update: RollingUpdate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RollingUpdate {
    pub partition: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WorkloadRef {
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobTemplate {
    #[serde(deserialize_with = "or_default")]
    pub spec: JobSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobSpec {
    #[serde(deserialize_with = "or_default")]
    pub template: PodTemplate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodTemplate {
    #[serde(deserialize_with = "or_default")]
    pub metadata: Meta,
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ControllerStatus {
    /// An integer; Argo Rollouts writes it as text.
    pub observed_generation: Value,
    /// Argo Rollouts: the generation of the Deployment that its `workloadRef` names, as text.
    pub workload_observed_generation: Value,
    pub replicas: Option<i64>,
    pub updated_replicas: Option<i64>,
    pub available_replicas: Option<i64>,
    pub ready_replicas: Option<i64>,
    pub desired_number_scheduled: Option<i64>,
    pub current_number_scheduled: Option<i64>,
    pub updated_number_scheduled: Option<i64>,
    pub number_available: Option<i64>,
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<Condition>,
    /// Argo Rollouts: `Healthy`, `Progressing`, `Paused`, `Degraded`.
    #[serde(deserialize_with = "or_default")]
    pub phase: String,
    #[serde(deserialize_with = "or_default")]
    pub abort: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub status: String,
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    #[serde(deserialize_with = "or_default")]
    pub message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub metadata: PodMeta,
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: PodStatus,
}

/// A pod's metadata without its managed fields, which are its largest part.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodMeta {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub owner_references: Vec<OwnerReference>,
    pub deletion_timestamp: Option<String>,
    pub creation_timestamp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    #[serde(deserialize_with = "or_default")]
    pub service_account_name: String,
    #[serde(deserialize_with = "or_default")]
    pub init_containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    pub volumes: Vec<Volume>,
    #[serde(deserialize_with = "or_default")]
    pub host_network: bool,
    #[serde(deserialize_with = "or_default")]
    pub node_selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub os: PodOs,
}

impl PodSpec {
    /// Whether its nodes are Windows, as far as it says.
    pub(super) fn is_windows(&self) -> bool {
        let keys = ["kubernetes.io/os", "beta.kubernetes.io/os"];
        let selected = keys.iter().filter_map(|key| self.node_selector.get(*key));
        selected.chain([&self.os.name]).any(|os| os == "windows")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodOs {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<EnvVar>,
    #[serde(deserialize_with = "or_default")]
    pub volume_mounts: Vec<VolumeMount>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EnvVar {
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub value: String,
    pub value_from: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct VolumeMount {
    pub name: String,
    pub mount_path: String,
    #[serde(deserialize_with = "or_default")]
    pub sub_path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Volume {
    pub name: String,
    pub projected: Option<Projected>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Projected {
    #[serde(deserialize_with = "or_default")]
    pub sources: Vec<VolumeProjection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct VolumeProjection {
    pub service_account_token: Option<TokenProjection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TokenProjection {
    #[serde(deserialize_with = "or_default")]
    pub audience: String,
    pub expiration_seconds: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    pub path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodStatus {
    #[serde(deserialize_with = "or_default")]
    pub phase: String,
    #[serde(deserialize_with = "or_default")]
    pub conditions: Vec<Condition>,
}
