//! The first link: issuer, add-on, and whether this is the right cluster.

use std::collections::BTreeSet;

use super::{
    Action, Lock, ObjectKind, Operation, Reason, StepId, Value,
    draft::{Draft, NewChange, NewStep, finding, known},
    planner::World,
};
use crate::model::{
    AccountName, Address, FailureKind, Issuer, Namespace, RemoteFailure, SameCluster,
    desired::{Access, DesiredCluster, DesiredWorkload, Feature},
    same_cluster,
    snapshot::{Evidence, KubernetesSnapshot, Observation, ObservedCluster},
};

/// What later links need to know of a cluster.
pub(super) struct ClusterState<'a> {
    pub(super) cluster: &'a DesiredCluster,
    pub(super) issuer: Value<Issuer>,
    /// The API server; none with `access = "none"`.
    pub(super) kubernetes: Option<&'a KubernetesSnapshot>,
    /// Steps before anything that needs issuer or add-on.
    pub(super) enabled: Vec<StepId>,
    /// Steps before the first write to the API server, the above included.
    pub(super) confirmed: Vec<StepId>,
}

/// Why nothing can be done in a cluster.
enum Held {
    /// Somebody has to do something first: code, message, hint.
    Blocked(&'static str, String, String),
    /// It must not be done.
    Refused(&'static str, String, String),
    /// It could not be seen.
    Unknown(RemoteFailure),
}

/// Judges one cluster; plans its features and its confirmation. None: its workloads are held, and
/// the report says why.
pub(super) fn plan<'a>(
    world: &World<'a>,
    draft: &mut Draft,
    cluster: &'a DesiredCluster,
    workloads: &[&'a DesiredWorkload],
) -> Option<ClusterState<'a>> {
    match judge(world, draft, cluster, workloads) {
        Ok(state) => Some(state),
        Err(Held::Blocked(code, message, hint)) => {
            for workload in workloads {
                let address = workload.address().at(&cluster.name);
                let origin = &workload.origin;
                draft.report.blocked.push(finding(
                    address,
                    code,
                    message.clone(),
                    hint.clone(),
                    origin,
                ));
            }
            None
        }
        Err(Held::Refused(code, message, hint)) => {
            let address = Address::Cluster(cluster.name.clone());
            draft.report.refused.push(finding(address, code, message, hint, &cluster.origin));
            None
        }
        Err(Held::Unknown(failure)) => {
            draft.unseen(Address::Cluster(cluster.name.clone()), &failure, &cluster.origin);
            None
        }
    }
}

fn judge<'a>(
    world: &World<'a>,
    draft: &mut Draft,
    cluster: &'a DesiredCluster,
    workloads: &[&'a DesiredWorkload],
) -> Result<ClusterState<'a>, Held> {
    let name = &cluster.name;
    let Some(seen) = world.snapshot.clusters.get(name) else {
        return Err(Held::Unknown(RemoteFailure::new(
            FailureKind::NotReached,
            format!("read cluster {name}"),
            "it was not read",
        )));
    };
    let arm = match &seen.arm {
        Observation::Present(arm) => arm,
        Observation::Absent => {
            return Err(Held::Blocked(
                "cluster-not-found",
                format!("cluster {} does not exist", cluster.id),
                format!("correct `id` in [clusters.{name}]: az aks list --query \"[].id\" -o tsv"),
            ));
        }
        Observation::Unknown(failure) => return Err(Held::Unknown(failure.clone())),
    };
    let kubernetes = match (&cluster.access, &seen.kubernetes) {
        (Access::None, _) => None,
        (_, Observation::Present(kubernetes)) => Some(kubernetes),
        (_, Observation::Absent) => {
            return Err(Held::Unknown(RemoteFailure::new(
                FailureKind::NotReached,
                format!("read the API server of cluster {name}"),
                "it was not read",
            )));
        }
        (_, Observation::Unknown(failure)) => return Err(Held::Unknown(failure.clone())),
    };
    let wanted = missing_features(cluster, arm, kubernetes)?;
    let guard = match kubernetes {
        Some(kubernetes) => {
            let enabling = wanted.contains(&Feature::OidcIssuer);
            guard(cluster, arm, &kubernetes.evidence, enabling)?
        }
        None => Shown::Evident,
    };
    let account = match (&guard, kubernetes) {
        (Shown::ByToken, Some(kubernetes)) => {
            Some(some_account(kubernetes, workloads).ok_or(Held::Unknown(RemoteFailure::new(
                FailureKind::NotReached,
                format!("confirm that the API server is cluster {name}"),
                "its discovery document cannot be read, its host is not the cluster's, and there \
                 is no service account to ask a token for",
            )))?)
        }
        _ => None,
    };
    let enabled: Vec<StepId> =
        enable(draft, cluster, arm, &wanted, workloads).into_iter().collect();
    let issuer = match &arm.issuer {
        Some(issuer) => Value::Known(issuer.clone()),
        None => Value::AfterApply(Address::Cluster(name.clone())),
    };
    let mut confirmed = enabled.clone();
    if let Some((namespace, account)) = account {
        confirmed.push(draft.step(NewStep {
            address: Address::Cluster(name.clone()),
            operation: Operation::ConfirmCluster {
                issuer: issuer.clone(),
                namespace,
                account,
                audience: cluster.audience.clone(),
            },
            needs: enabled.clone(),
            locks: BTreeSet::new(),
            workloads: addresses(cluster, workloads),
            origin: cluster.origin.clone(),
            change: None,
        }));
    }
    if let Some(webhook) = kubernetes.and_then(|kubernetes| kubernetes.webhook.present())
        && webhook.configurations.len() > 1
    {
        draft.report.risks.push(finding(
            Address::Cluster(name.clone()),
            "webhook-installed-twice",
            format!(
                "{} webhook configurations mutate labelled pods: {}",
                webhook.configurations.len(),
                webhook.configurations.join(", ")
            ),
            "remove the self-installed one: helm uninstall workload-identity-webhook".to_owned(),
            &cluster.origin,
        ));
    }
    Ok(ClusterState { cluster, issuer, kubernetes, enabled, confirmed })
}

fn addresses(cluster: &DesiredCluster, workloads: &[&DesiredWorkload]) -> Vec<Address> {
    workloads.iter().map(|workload| workload.address().at(&cluster.name)).collect()
}

/// The features that must be switched on; an error where the file does not allow it.
fn missing_features(
    cluster: &DesiredCluster,
    arm: &ObservedCluster,
    kubernetes: Option<&KubernetesSnapshot>,
) -> Result<BTreeSet<Feature>, Held> {
    let name = &cluster.name;
    let mut wanted = BTreeSet::new();
    if arm.issuer.is_none() {
        wanted.insert(Feature::OidcIssuer);
    }
    // A self-installed webhook does the add-on's work. Where the API server is not ours to read
    // its owner answers for it.
    let installed = match kubernetes.map(|kubernetes| &kubernetes.webhook) {
        None => true,
        Some(Observation::Present(webhook)) => !webhook.configurations.is_empty(),
        Some(Observation::Absent) => false,
        // Enabled beside one that cannot be seen, the add-on would be a second.
        Some(Observation::Unknown(failure)) if !arm.workload_identity => {
            return Err(Held::Unknown(failure.clone()));
        }
        Some(Observation::Unknown(_)) => true,
    };
    if !arm.workload_identity && (!installed || cluster.enable.contains(&Feature::WorkloadIdentity))
    {
        wanted.insert(Feature::WorkloadIdentity);
    }
    let refused: Vec<Feature> = wanted.difference(&cluster.enable).copied().collect();
    if let Some(feature) = refused.first() {
        let (code, what) = match feature {
            Feature::OidcIssuer => ("issuer-off", "the OIDC issuer is off"),
            Feature::WorkloadIdentity => {
                ("add-on-off", "no workload identity webhook is installed")
            }
        };
        let words: Vec<String> = cluster
            .enable
            .iter()
            .chain(&refused)
            .map(|feature| format!("\"{}\"", feature.as_str()))
            .collect();
        return Err(Held::Blocked(
            code,
            format!("{what} on cluster {name}; enabling it cannot be undone"),
            format!("to allow it write `enable = [{}]` in [clusters.{name}]", words.join(", ")),
        ));
    }
    Ok(wanted)
}

/// How it is shown that an API server is the cluster of ARM's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// By its issuer, which is equal to the byte, or by its host.
    Evident,
    /// Only the issuer of a token can tell.
    ByToken,
}

/// Whether an API server is the cluster of ARM's record, for those who write without a plan. An
/// error says that it is another one ([`FailureKind::Refused`] with the code
/// `cluster-context-mismatch`) or that nothing shows it.
pub fn shown(
    cluster: &DesiredCluster,
    arm: &ObservedCluster,
    evidence: &Evidence,
) -> Result<Shown, RemoteFailure> {
    guard(cluster, arm, evidence, false).map_err(|held| match held {
        Held::Unknown(failure) => failure,
        Held::Refused(code, message, hint) | Held::Blocked(code, message, hint) => {
            let tried = format!("confirm that the API server is cluster {}", cluster.name);
            let mut failure = RemoteFailure::new(FailureKind::Refused, tried, message);
            failure.code = Some(code.to_owned());
            failure.with_hint(hint)
        }
    })
}

/// Whether the API server is that of ARM's record: issuer equal to the byte, or host equal.
fn guard(
    cluster: &DesiredCluster,
    arm: &ObservedCluster,
    evidence: &Evidence,
    enabling: bool,
) -> Result<Shown, Held> {
    let hosts = [arm.fqdn.as_deref(), arm.private_fqdn.as_deref()].into_iter().flatten();
    let discovered = evidence.issuer.present();
    let same = same_cluster(&evidence.host, hosts, discovered, arm.issuer.as_ref());
    if same == SameCluster::Yes {
        return Ok(Shown::Evident);
    }
    match (discovered, &arm.issuer) {
        (Some(discovered), Some(issuer)) => Err(Held::Refused(
            "cluster-context-mismatch",
            format!(
                "the API server {} is not cluster {}: its issuer is {discovered}, ARM's record \
                 says {issuer}",
                evidence.host,
                cluster.id.name(),
            ),
            format!(
                "correct `context` in [clusters.{}], or pass --context {}=NAME",
                cluster.name, cluster.name
            ),
        )),
        // With the issuer off a token can only tell once it has been switched on.
        (None, _) => Ok(Shown::ByToken),
        (Some(_), None) if enabling => Ok(Shown::ByToken),
        (Some(discovered), None) => Err(Held::Unknown(RemoteFailure::new(
            FailureKind::NotReached,
            format!("confirm that {} is cluster {}", evidence.host, cluster.id.name()),
            format!("its issuer is {discovered} and ARM's record has none"),
        ))),
    }
}

/// An account that exists, to ask a token for.
fn some_account(
    kubernetes: &KubernetesSnapshot,
    workloads: &[&DesiredWorkload],
) -> Option<(Namespace, AccountName)> {
    let exists = |namespace: &Namespace, account: &AccountName| {
        let accounts = kubernetes.accounts.get(namespace).and_then(Observation::present);
        accounts.is_some_and(|accounts| accounts.contains_key(account))
    };
    let default = AccountName::from("default");
    let own = workloads.iter().map(|workload| (&workload.namespace, &workload.account));
    let others = workloads.iter().map(|workload| (&workload.namespace, &default));
    own.chain(others)
        .find(|(namespace, account)| exists(namespace, account))
        .map(|(namespace, account)| (namespace.clone(), account.clone()))
}

fn enable(
    draft: &mut Draft,
    cluster: &DesiredCluster,
    arm: &ObservedCluster,
    wanted: &BTreeSet<Feature>,
    workloads: &[&DesiredWorkload],
) -> Option<StepId> {
    if wanted.is_empty() {
        return None;
    }
    let address = Address::Cluster(cluster.name.clone());
    let fields = wanted.iter().map(|feature| {
        let field = match feature {
            Feature::OidcIssuer => "properties.oidcIssuerProfile.enabled",
            Feature::WorkloadIdentity => "properties.securityProfile.workloadIdentity.enabled",
        };
        known(field, Some("false"), "true")
    });
    let fields = fields.collect();
    let words: Vec<&str> = wanted.iter().map(|feature| feature.as_str()).collect();
    draft.report.risks.push(finding(
        address.clone(),
        "enables-cluster-feature",
        format!(
            "switches {} on in cluster {}: the API server restarts, and it cannot be undone",
            words.join(" and "),
            cluster.id.name()
        ),
        None,
        &cluster.origin,
    ));
    let change = draft.change(NewChange {
        address: address.clone(),
        kind: ObjectKind::AzureKubernetesCluster,
        action: Action::Update,
        id: arm.id.to_string(),
        fields,
        reasons: words
            .iter()
            .map(|word| Reason::FeatureOff { feature: (*word).to_owned() })
            .collect(),
        workloads: addresses(cluster, workloads),
        origin: cluster.origin.clone(),
    });
    Some(draft.step(NewStep {
        address,
        operation: Operation::EnableFeatures { id: cluster.id.clone(), features: wanted.clone() },
        needs: Vec::new(),
        locks: BTreeSet::from([Lock::Cluster(cluster.id.clone())]),
        workloads: addresses(cluster, workloads),
        origin: cluster.origin.clone(),
        change: Some(change),
    }))
}
