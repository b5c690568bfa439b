//! What is asked about: the workloads of a file, or one object of a cluster.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    diagnose::{
        Evidence, Kubectl,
        evidence::{Asked, Grant, Wanted},
        resolve,
    },
    kubernetes::{Connect, Connection},
    model::{
        AccountName, ArmId, ClusterName, Namespace,
        desired::{
            Access, DesiredCluster, DesiredState, Feature, ManagedBy, Probe, Role, RolloutMode,
        },
        roles,
        snapshot::TemplateKind,
    },
};

/// Questions and how the clusters are reached.
#[derive(Debug, Clone, Default)]
pub struct Questions {
    pub(super) list: Vec<Question>,
    pub(super) connections: BTreeMap<Option<String>, Connection>,
}

/// One question.
#[derive(Debug, Clone)]
pub struct Question {
    pub(super) asked: Asked,
    /// What the command line says is wanted.
    pub(super) wanted: Option<Wanted>,
}

/// An object on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A service account.
    Account(AccountName),
    /// A controller or pod, as `kind/name`.
    Template(String),
}

/// Reads `KIND/NAME` with kubectl's short names; none for kinds that are not known.
pub fn object(text: &str) -> Option<Object> {
    let (kind, name) = text.split_once('/')?;
    let kind = kind.to_lowercase();
    let kind = kind.split('.').next().unwrap_or_default();
    if name.is_empty() {
        return None;
    }
    let long = match kind {
        "sa" | "serviceaccount" | "serviceaccounts" => {
            return Some(Object::Account(AccountName::from(name)));
        }
        "deploy" | "deployment" | "deployments" => "deployment",
        "sts" | "statefulset" | "statefulsets" => "statefulset",
        "ds" | "daemonset" | "daemonsets" => "daemonset",
        "cj" | "cronjob" | "cronjobs" => "cronjob",
        "ro" | "rollout" | "rollouts" => "rollout",
        "job" | "jobs" => "job",
        "rs" | "replicaset" | "replicasets" => "replicaset",
        "rc" | "replicationcontroller" | "replicationcontrollers" => "replicationcontroller",
        "po" | "pod" | "pods" => "pod",
        _ => return None,
    };
    Some(Object::Template(format!("{long}/{name}")))
}

impl Question {
    /// The connection it is asked through.
    pub(super) fn cluster(&self) -> Option<String> {
        self.asked.cluster.as_ref().map(ToString::to_string)
    }

    /// A Job or `ReplicaSet` that only this question asks about.
    pub(super) fn also(&self) -> Option<(TemplateKind, &str)> {
        let (kind, name) = self.asked.object.as_deref()?.split_once('/')?;
        match kind {
            "job" => Some((TemplateKind::Job, name)),
            "replicaset" => Some((TemplateKind::ReplicaSet, name)),
            "replicationcontroller" => Some((TemplateKind::ReplicationController, name)),
            _ => None,
        }
    }
}

fn asked(namespace: Namespace, object: Option<&Object>) -> Asked {
    let mut asked = Asked {
        namespace,
        account: None,
        object: None,
        cluster: None,
        cluster_id: None,
        kubectl: Kubectl::default(),
        options: Vec::new(),
    };
    match object {
        Some(Object::Account(account)) => asked.account = Some(account.clone()),
        Some(Object::Template(key)) => asked.object = Some(key.clone()),
        None => {}
    }
    asked
}

/// How commands reach a cluster of the file.
pub(in crate::ops) fn kubectl(cluster: &DesiredCluster) -> Kubectl {
    match &cluster.access {
        Access::Context { context, kubeconfig } => {
            Kubectl { kubeconfig: kubeconfig.clone(), context: context.clone(), fetch: None }
        }
        // `az aks get-credentials` names the context after the cluster.
        Access::Azure | Access::None => Kubectl {
            kubeconfig: None,
            context: Some(cluster.id.name().to_owned()),
            fetch: Some(cluster.id.clone()),
        },
    }
}

/// Every chosen workload of a file, or one object in every chosen cluster of it. `options` are
/// those our own commands need again.
pub fn of_file(
    desired: &DesiredState,
    connections: &BTreeMap<ClusterName, Connection>,
    about: Option<(Namespace, Object)>,
    options: &[String],
) -> Questions {
    let in_cluster = |mut asked: Asked, name: &ClusterName| {
        let cluster = desired.clusters.get(name);
        asked.options = options.to_vec();
        asked.cluster = Some(name.clone());
        asked.cluster_id = cluster.map(|cluster| cluster.id.clone());
        asked.kubectl = cluster.map(kubectl).unwrap_or_default();
        Question { asked, wanted: None }
    };
    let list = match about {
        Some((namespace, object)) => connections
            .keys()
            .map(|name| in_cluster(asked(namespace.clone(), Some(&object)), name))
            .collect(),
        None => desired
            .placements()
            .map(|(workload, cluster)| {
                let account = Object::Account(workload.account.clone());
                in_cluster(asked(workload.namespace.clone(), Some(&account)), &cluster.name)
            })
            .collect(),
    };
    let connections =
        connections.iter().map(|(name, to)| (Some(name.to_string()), to.clone())).collect();
    Questions { list, connections }
}

/// What the command line says is needed.
fn needed(scope: ArmId, role: Option<&str>) -> Wanted {
    let name = role.unwrap_or_default().to_owned();
    let role = roles::by_name(&name).map(|role| role.id);
    let grant = Grant { role, name, scope, unresolved: None };
    Wanted { grants: Some(vec![grant]), ..Wanted::default() }
}

impl Questions {
    /// The same questions about workloads that need this target; any role that opens its data if
    /// none is named.
    #[must_use]
    pub fn needing(mut self, target: ArmId, role: Option<&str>) -> Self {
        for question in &mut self.list {
            question.wanted = Some(needed(target.clone(), role));
        }
        self
    }
}

/// What the command line says where there is no file.
#[derive(Debug, Clone, Default)]
pub struct Bare {
    /// The kubeconfig; the user's own if absent.
    pub kubeconfig: Option<PathBuf>,
    /// Its context; the current one if absent.
    pub context: Option<String>,
    /// The cluster's ARM id; found by its nodes if absent.
    pub cluster_id: Option<ArmId>,
    /// The resource that the workload needs.
    pub target: Option<ArmId>,
    /// The role that it needs there; any that opens data if absent.
    pub role: Option<String>,
    /// Options that our own commands need again.
    pub options: Vec<String>,
}

/// One object of the cluster of a kubeconfig context, without a file.
pub fn bare(namespace: Namespace, object: &Object, said: Bare) -> Questions {
    let Bare { kubeconfig, context, cluster_id, target, role, options } = said;
    let mut asked = asked(namespace, Some(object));
    asked.kubectl = Kubectl {
        kubeconfig: kubeconfig.as_ref().map(|path| path.display().to_string()),
        context: context.clone(),
        fetch: None,
    };
    asked.cluster_id = cluster_id;
    asked.options = options;
    let wanted = target.map(|scope| needed(scope, role.as_deref()));
    let tried = "connect to the cluster";
    let connection = Connection::to(Connect::Kubeconfig { path: kubeconfig, context }, tried);
    Questions {
        list: vec![Question { asked, wanted }],
        connections: BTreeMap::from([(None, connection)]),
    }
}

/// What the file says about the workload of this evidence; nothing where it does not know it.
pub(super) fn wanted(desired: &DesiredState, evidence: &Evidence) -> (Wanted, Option<Probe>) {
    let account = resolve(evidence).account;
    let asked = &evidence.asked;
    let Some(cluster) = asked.cluster.as_ref().and_then(|name| desired.clusters.get(name)) else {
        return (Wanted::default(), None);
    };
    let enable = cluster.enable.iter().map(|feature: &Feature| feature.as_str().to_owned());
    let mut wanted = Wanted {
        audience: Some(cluster.audience.clone()),
        enable: enable.collect(),
        ..Wanted::default()
    };
    let found = desired.workloads.iter().enumerate().find(|(_, workload)| {
        workload.namespace == asked.namespace
            && workload.account == account
            && workload.clusters.contains(&cluster.name)
    });
    let Some((index, workload)) = found else { return (wanted, None) };
    wanted.origin = Some(workload.origin.clone());
    wanted.identity = Some(workload.identity.clone());
    wanted.tenant = Some(workload.tenant);
    wanted.expiration = Some(workload.expiration());
    wanted.pods = Some(workload.pods.clone());
    wanted.git = workload.managed_by == ManagedBy::Git;
    wanted.later = workload.rollout != RolloutMode::Auto;
    let grants = desired.assignments.iter().filter(|grant| grant.workloads.contains(&index));
    let grants = grants.map(|grant| Grant {
        role: match &grant.role {
            Role::Known { id, .. } => Some(*id),
            Role::Named { .. } => None,
        },
        name: grant.role.label(),
        scope: grant.scope.clone(),
        unresolved: None,
    });
    wanted.grants = Some(grants.collect());
    (wanted, workload.probe.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_read_as_kubectl_reads_them() {
        let template = |text: &str| Some(Object::Template(text.to_owned()));
        assert_eq!(object("deploy/api"), template("deployment/api"));
        assert_eq!(object("deployments.apps/api"), template("deployment/api"));
        assert_eq!(object("po/api-1"), template("pod/api-1"));
        assert_eq!(object("sa/x"), Some(Object::Account(AccountName::from("x"))));
        assert!(
            object("api").is_none() && object("svc/api").is_none() && object("deploy/").is_none()
        );
    }
}
