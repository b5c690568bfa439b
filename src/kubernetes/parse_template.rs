//! Controllers into [`ObservedTemplate`]: where each kind keeps its pod template, how it replaces
//! pods, and how far it has come.
//!
//! Progress is judged as `kubectl rollout status` does it. Source: Kubernetes documentation on the
//! status of a Deployment and on the update strategies of `StatefulSet` and `DaemonSet`; Argo
//! Rollouts documentation, "Migrating to Rollouts: Reference Deployment From Rollout".

use serde_json::Value;

use super::{
    parse_meta::meta,
    wire::{Condition, Controller, ControllerStatus, Meta, OwnerReference, PodSpec, WorkloadRef},
};
use crate::model::{
    AccountName,
    snapshot::{ObservedPod, ObservedTemplate, Progress, Strategy, TemplateKind},
};

/// A controller as it was read. A Rollout may keep its template in a Deployment.
pub(super) enum Parsed {
    /// It has a template of its own.
    Template(Box<ObservedTemplate>),
    /// A Rollout whose template stands in a Deployment.
    Steers(Box<Steering>),
}

/// A Rollout with a `workloadRef`: the Deployment's template is the one to write, the Rollout
/// tells how far its pods are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Steering {
    /// The Rollout.
    pub rollout: String,
    /// The Deployment.
    pub deployment: String,
    /// The generation of the Deployment that the Rollout has observed.
    pub observed: i64,
    /// Progress and strategy of the Rollout itself.
    pub progress: Progress,
    pub strategy: Strategy,
}

impl Steering {
    /// Names the controller of a pod of the Rollout as if the Deployment had made it, whose
    /// template it was stamped from.
    pub(super) fn claim(&self, pod: &mut ObservedPod) {
        if let Some((kind, name)) = &mut pod.controller
            && kind == "ReplicaSet"
            && let Some(as_if) = self.renamed(name, pod.revision.as_deref())
        {
            *name = as_if;
        }
    }

    /// What a `ReplicaSet` of the Rollout were called if the Deployment had made it; none where it
    /// is another's.
    pub(super) fn renamed(&self, replica_set: &str, revision: Option<&str>) -> Option<String> {
        let hash = replica_set.strip_prefix(&self.rollout)?.strip_prefix('-')?;
        (revision == Some(hash)).then(|| format!("{}-{hash}", self.deployment))
    }

    /// The Deployment's own pods are gone or going: its progress is the Rollout's.
    pub(super) fn steer(&self, template: &mut ObservedTemplate) {
        let own = template.progress.generation;
        template.strategy = self.strategy;
        template.progress = Progress {
            generation: own,
            // The Rollout must have seen both its own spec and the Deployment's.
            observed_generation: if self.progress.observed_generation >= self.progress.generation {
                self.observed
            } else {
                self.observed.min(own - 1)
            },
            ..self.progress.clone()
        };
    }
}

/// Where the pod template's own metadata stands in managed fields, from the top, without the last
/// step `f:metadata`.
pub(super) fn template_path(kind: TemplateKind) -> &'static [&'static str] {
    if kind == TemplateKind::CronJob {
        &["f:spec", "f:jobTemplate", "f:spec", "f:template"]
    } else {
        &["f:spec", "f:template"]
    }
}

/// The account of a pod spec; `default` where it names none.
pub(super) fn account_of(spec: &PodSpec) -> AccountName {
    if spec.service_account_name.is_empty() {
        AccountName::from("default")
    } else {
        AccountName::from(spec.service_account_name.as_str())
    }
}

/// The owner that controls an object, as `kind/name` in lower case.
pub(super) fn owned_by(owners: &[OwnerReference]) -> Option<String> {
    let owner = owners.iter().find(|owner| owner.controller)?;
    Some(format!("{}/{}", owner.kind.to_lowercase(), owner.name))
}

/// `AZURE_*` variables of a manifest: container, variable, literal value.
pub(super) fn literal_env(spec: &PodSpec) -> Vec<(String, String, Option<String>)> {
    let mut found = Vec::new();
    for container in spec.init_containers.iter().chain(&spec.containers) {
        for variable in container.env.iter().filter(|v| v.name.starts_with("AZURE_")) {
            let literal = variable.value_from.is_none().then(|| variable.value.clone());
            found.push((container.name.clone(), variable.name.clone(), literal));
        }
    }
    found
}

/// A controller of `kind`, read at `api_version`.
pub(super) fn controller(kind: TemplateKind, api_version: &str, object: Controller) -> Parsed {
    let progress = progress(kind, &object);
    let strategy = strategy(kind, &object);
    let Controller { metadata, spec, status } = object;
    if let Some(WorkloadRef { kind: of, name }) = spec.workload_ref
        && of == "Deployment"
        && kind == TemplateKind::Rollout
    {
        let observed = number(&status.workload_observed_generation).unwrap_or_default();
        return Parsed::Steers(Box::new(Steering {
            rollout: metadata.name,
            deployment: name,
            observed,
            progress,
            strategy,
        }));
    }
    let template = match spec.job_template {
        Some(job) => job.spec.template,
        None => spec.template.unwrap_or_default(),
    };
    let (name, uid) = (metadata.name.clone(), metadata.uid.clone());
    let owned_by = owned_by(&metadata.owner_references);
    let meta = meta(metadata, Some((template_path(kind), &template.metadata)));
    let account = account_of(&template.spec);
    let literal_env = literal_env(&template.spec);
    let (host_network, windows) = (template.spec.host_network, template.spec.is_windows());
    let Meta { labels, annotations, .. } = template.metadata;
    Parsed::Template(Box::new(ObservedTemplate {
        kind,
        api_version: api_version.to_owned(),
        name,
        uid,
        meta,
        owned_by,
        account,
        labels,
        annotations,
        literal_env,
        host_network,
        windows,
        strategy,
        progress,
    }))
}

/// How a controller replaces its pods.
pub(super) fn strategy(kind: TemplateKind, object: &Controller) -> Strategy {
    let spec = &object.spec;
    match kind {
        TemplateKind::Deployment if spec.paused => Strategy::Paused,
        TemplateKind::Deployment if spec.strategy.kind == "Recreate" => Strategy::Recreate,
        // A canary that waits for somebody to promote it is as good as paused.
        TemplateKind::Rollout if spec.paused || object.status.phase == "Paused" => Strategy::Paused,
        TemplateKind::Deployment | TemplateKind::Rollout => Strategy::RollingUpdate,
        TemplateKind::StatefulSet | TemplateKind::DaemonSet => {
            match (
                spec.update_strategy.kind.as_str(),
                spec.update_strategy.rolling_update.partition,
            ) {
                ("OnDelete", _) => Strategy::OnDelete,
                (_, Some(partition)) if partition > 0 && kind == TemplateKind::StatefulSet => {
                    Strategy::Partition(partition)
                }
                _ => Strategy::RollingUpdate,
            }
        }
        TemplateKind::CronJob
        | TemplateKind::ReplicaSet
        | TemplateKind::ReplicationController
        | TemplateKind::Job
        | TemplateKind::Pod => Strategy::NextRun,
    }
}

/// An integer, or one written as text.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// How far a controller has come.
pub(super) fn progress(kind: TemplateKind, object: &Controller) -> Progress {
    let generation = object.metadata.generation.unwrap_or_default();
    let status = &object.status;
    let or_zero = |count: Option<i64>| count.unwrap_or_default();
    // The API server's default for everything that has replicas.
    let replicas = object.spec.replicas.unwrap_or(1);
    let observed = number(&status.observed_generation).unwrap_or_default();
    let (desired, updated, total, available) = match kind {
        TemplateKind::Deployment | TemplateKind::Rollout => (
            replicas,
            or_zero(status.updated_replicas),
            or_zero(status.replicas),
            or_zero(status.available_replicas),
        ),
        TemplateKind::StatefulSet => (
            replicas,
            or_zero(status.updated_replicas),
            or_zero(status.replicas),
            // Servers before 1.22 do not count available ones.
            or_zero(status.available_replicas.or(status.ready_replicas)),
        ),
        TemplateKind::DaemonSet => (
            or_zero(status.desired_number_scheduled),
            or_zero(status.updated_number_scheduled),
            or_zero(status.current_number_scheduled),
            or_zero(status.number_available),
        ),
        // Done when the template is written: the next run uses it.
        TemplateKind::CronJob
        | TemplateKind::ReplicaSet
        | TemplateKind::ReplicationController
        | TemplateKind::Job
        | TemplateKind::Pod => {
            return Progress { generation, observed_generation: generation, ..Progress::default() };
        }
    };
    // What an earlier template met says nothing about this one.
    let failed = if observed >= generation { failed(kind, status) } else { None };
    Progress {
        generation,
        observed_generation: observed,
        desired,
        updated,
        total,
        available,
        failed,
        hindered: hindered(status),
    }
}

/// The controllers of other kinds than Deployments tell this in events only.
fn hindered(status: &ControllerStatus) -> Option<String> {
    let of = |c: &&Condition| c.kind == "ReplicaFailure" && c.status == "True";
    let condition = status.conditions.iter().find(of)?;
    let says = if condition.message.is_empty() { &condition.reason } else { &condition.message };
    Some(says.clone())
}

fn failed(kind: TemplateKind, status: &ControllerStatus) -> Option<String> {
    let progressing = status.conditions.iter().find(|condition| condition.kind == "Progressing");
    let gave_up = progressing.filter(|condition| condition.status == "False");
    if kind == TemplateKind::Rollout {
        let degraded = || gave_up.map_or_else(|| "Degraded".to_owned(), |c| c.reason.clone());
        let aborted = status.abort.then(|| "RolloutAborted".to_owned());
        return aborted.or_else(|| (status.phase == "Degraded").then(degraded));
    }
    // StatefulSets and DaemonSets have no deadline and no such condition.
    gave_up.filter(|_| kind == TemplateKind::Deployment).map(|condition| condition.reason.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::snapshot::OwnedField;

    fn read(kind: TemplateKind, object: Value) -> ObservedTemplate {
        match controller(kind, "x/v1", serde_json::from_value(object).unwrap()) {
            Parsed::Template(template) => *template,
            Parsed::Steers(_) => panic!("the template stands elsewhere"),
        }
    }

    #[test]
    fn every_kind_keeps_its_template_somewhere() {
        let template = json!({"metadata": {"labels": {"azure.workload.identity/use": "true"}},
            "spec": {"serviceAccountName": "api", "containers": [
                {"name": "c", "env": [{"name": "AZURE_CLIENT_ID", "value": "old"},
                    {"name": "AZURE_TENANT_ID", "valueFrom": {"secretKeyRef": {"name": "s"}}},
                    {"name": "OTHER", "value": "x"}]}]}});
        let f_meta = json!({"f:metadata": {"f:labels": {"f:azure.workload.identity/use": {}}}});
        for kind in [
            TemplateKind::Deployment,
            TemplateKind::StatefulSet,
            TemplateKind::DaemonSet,
            TemplateKind::Rollout,
            TemplateKind::CronJob,
        ] {
            let cron = kind == TemplateKind::CronJob;
            let spec = if cron {
                json!({"jobTemplate": {"spec": {"template": template}}})
            } else {
                json!({"template": template})
            };
            let fields = if cron {
                json!({"f:spec": {"f:jobTemplate": {"f:spec": {"f:template": f_meta}}}})
            } else {
                json!({"f:spec": {"f:template": f_meta}})
            };
            let observed = read(
                kind,
                json!({"metadata": {"name": "n", "uid": "u", "generation": 1, "managedFields":
                    [{"manager": "kubectl", "operation": "Update", "fieldsV1": fields}]},
                    "spec": spec}),
            );
            assert_eq!(observed.account.as_str(), "api", "{kind:?}");
            assert_eq!(observed.labels.len(), 1, "{kind:?}");
            let field = OwnedField::TemplateLabel("azure.workload.identity/use".to_owned());
            assert_eq!(observed.meta.owners[&field].len(), 1, "{kind:?}");
            let env = [
                ("c".to_owned(), "AZURE_CLIENT_ID".to_owned(), Some("old".to_owned())),
                ("c".to_owned(), "AZURE_TENANT_ID".to_owned(), None),
            ];
            assert_eq!(observed.literal_env, env, "{kind:?}");
        }
    }

    #[test]
    fn a_controller_owner_is_named_and_the_account_defaults() {
        let observed = read(
            TemplateKind::StatefulSet,
            json!({"metadata": {"name": "pg", "ownerReferences": [
                {"kind": "Other", "name": "no"},
                {"kind": "PostgresCluster", "name": "pg", "controller": true}]},
                "spec": {"template": {"spec": {}}}}),
        );
        assert_eq!(observed.owned_by.as_deref(), Some("postgrescluster/pg"));
        assert_eq!(observed.account.as_str(), "default");
    }

    #[test]
    fn strategies() {
        use TemplateKind as K;
        for (kind, spec, strategy) in [
            (K::Deployment, json!({}), Strategy::RollingUpdate),
            (K::Deployment, json!({"strategy": {"type": "Recreate"}}), Strategy::Recreate),
            (K::Deployment, json!({"paused": true}), Strategy::Paused),
            (K::StatefulSet, json!({"updateStrategy": {"type": "OnDelete"}}), Strategy::OnDelete),
            (
                K::StatefulSet,
                json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}}),
                Strategy::Partition(2),
            ),
            (
                K::StatefulSet,
                json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}),
                Strategy::RollingUpdate,
            ),
            (K::DaemonSet, json!({"updateStrategy": {"type": "OnDelete"}}), Strategy::OnDelete),
            (
                K::DaemonSet,
                json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "10%"}}}),
                Strategy::RollingUpdate,
            ),
            (K::CronJob, json!({}), Strategy::NextRun),
            (K::Rollout, json!({"strategy": {"canary": {}}}), Strategy::RollingUpdate),
            (K::Rollout, json!({"paused": true}), Strategy::Paused),
        ] {
            assert_eq!(read(kind, json!({"spec": spec})).strategy, strategy, "{kind:?} {spec}");
        }
    }

    #[test]
    fn progress_is_complete_when_kubectl_would_say_so() {
        use TemplateKind as K;
        let done = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2,
            "availableReplicas": 2, "readyReplicas": 2});
        let daemons = json!({"observedGeneration": 2, "desiredNumberScheduled": 3,
            "currentNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 3});
        let with = |status: &Value, key: &str, value: Value| {
            let mut status = status.clone();
            status[key] = value;
            status
        };
        for (kind, status, complete) in [
            (K::Deployment, done.clone(), true),
            (K::Deployment, with(&done, "observedGeneration", json!(1)), false),
            (K::Deployment, with(&done, "updatedReplicas", json!(1)), false),
            (K::Deployment, with(&done, "replicas", json!(3)), false),
            (K::Deployment, with(&done, "availableReplicas", json!(1)), false),
            (K::Deployment, json!({}), false),
            (K::StatefulSet, done.clone(), true),
            (K::StatefulSet, with(&done, "availableReplicas", Value::Null), true),
            (K::StatefulSet, with(&done, "updatedReplicas", json!(1)), false),
            (K::DaemonSet, daemons.clone(), true),
            (K::DaemonSet, with(&daemons, "updatedNumberScheduled", json!(2)), false),
            (K::DaemonSet, with(&daemons, "numberAvailable", json!(2)), false),
            (K::CronJob, json!({}), true),
            (K::Rollout, with(&done, "observedGeneration", json!("2")), true),
            (K::Rollout, with(&done, "observedGeneration", json!("7d9c")), false),
        ] {
            let object = json!({"metadata": {"generation": 2}, "spec": {"replicas": 2},
                "status": status});
            let observed = read(kind, object);
            assert_eq!(observed.progress.complete(), complete, "{kind:?} {status}");
        }
    }

    #[test]
    fn a_deployment_gave_up_when_its_present_generation_did() {
        let deployment = |observed: i64| {
            let status = json!({"observedGeneration": observed, "conditions": [
                {"type": "Available", "status": "True"},
                {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]});
            read(TemplateKind::Deployment, json!({"metadata": {"generation": 2}, "status": status}))
        };
        assert_eq!(deployment(2).progress.failed.as_deref(), Some("ProgressDeadlineExceeded"));
        assert_eq!(deployment(1).progress.failed, None);
    }

    #[test]
    fn a_controller_that_can_make_no_pod_says_why() {
        let status = |status: &str| {
            let status = json!({"observedGeneration": 2, "conditions": [
                {"type": "ReplicaFailure", "status": status, "reason": "FailedCreate",
                    "message": "pods \"a\" is forbidden: exceeded quota"}]});
            read(TemplateKind::Deployment, json!({"metadata": {"generation": 2}, "status": status}))
        };
        let stuck = status("True").progress.hindered;
        assert_eq!(stuck.as_deref(), Some("pods \"a\" is forbidden: exceeded quota"));
        assert_eq!(status("False").progress.hindered, None);
    }

    #[test]
    fn a_rollout_that_refers_to_a_deployment_steers_it() {
        let rollout = json!({"metadata": {"name": "r", "generation": 4},
            "spec": {"replicas": 2, "workloadRef": {"apiVersion": "apps/v1",
                "kind": "Deployment", "name": "web"}},
            "status": {"observedGeneration": "4", "workloadObservedGeneration": "7",
                "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}});
        let parsed =
            controller(TemplateKind::Rollout, "v", serde_json::from_value(rollout).unwrap());
        let Parsed::Steers(steering) = parsed else { panic!("it has no template of its own") };
        assert_eq!(steering.deployment, "web");
        let mut web = read(
            TemplateKind::Deployment,
            json!({"metadata": {"generation": 7}, "spec": {"replicas": 0}}),
        );
        steering.steer(&mut web);
        assert!(web.progress.complete());
        assert_eq!(web.progress.desired, 2);
        web.progress.generation = 8;
        steering.steer(&mut web);
        assert!(!web.progress.complete());
    }
}
