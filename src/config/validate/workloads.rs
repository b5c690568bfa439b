//! `[[workloads]]` and `[defaults]`, one at a time.

use std::collections::BTreeSet;

use super::{Problems, Targets, azure::Azure, clusters::Clusters, grants, ids, names, probe};
use crate::{
    config::{
        checked::{Grant, Identity, Workload},
        code::Code,
        diagnostic::Diagnostic,
        raw,
        source::{Located, Sources, Span},
    },
    model::{
        AccountName, ArmId, ClusterName, Namespace, Origin, Project, TenantId,
        desired::{IdentityControl, ManagedBy, PodSelection, Probe, RolloutMode},
        names as marks, suggest,
    },
};

/// What a workload is checked against. Parts that have a problem are missing.
pub(super) struct Surroundings<'a> {
    pub sources: &'a Sources,
    pub project: Option<&'a Project>,
    pub azure: &'a Azure,
    pub clusters: &'a Clusters,
    pub targets: &'a Targets,
    pub defaults: Defaults,
    /// The template of identity names.
    pub template: Option<&'a str>,
}

/// `[defaults]`, checked.
#[derive(Debug)]
pub(super) struct Defaults {
    clusters: Choice,
    rollout: RolloutMode,
    managed_by: ManagedBy,
    token_expiration: Option<u32>,
}

/// The clusters that a list chooses.
#[derive(Debug)]
enum Choice {
    /// There is no list.
    NotWritten,
    /// The list has a problem, which was reported.
    Bad,
    Clusters(Vec<ClusterName>),
}

/// A workload on the way: what has a problem is missing.
#[derive(Debug)]
pub(super) struct Draft {
    pub span: Span,
    /// The place of namespace and service account, for messages.
    pub name_span: Span,
    pub namespace: Option<Namespace>,
    pub account: Option<AccountName>,
    pub clusters: Option<Vec<ClusterName>>,
    pub identity: Option<Identity>,
    /// The place of `identity`, where it is written.
    pub identity_span: Option<Span>,
    pub grants: Vec<(Span, Grant)>,
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    tenant: TenantId,
    token_expiration: Option<u32>,
    pods: PodSelection,
    rollout: RolloutMode,
    managed_by: ManagedBy,
    adopt: bool,
    protect: bool,
    probe: Option<Probe>,
    proxy: bool,
    chained: Option<bool>,
    origin: Origin,
}

impl Draft {
    /// The workload, if nothing is missing.
    pub(super) fn finish(self) -> Option<Workload> {
        let identity = self.identity?;
        let rest = self.rest?;
        Some(Workload {
            namespace: self.namespace?,
            account: self.account?,
            clusters: self.clusters?,
            tenant: rest.tenant,
            token_expiration: rest.token_expiration,
            pods: rest.pods,
            rollout: rest.rollout,
            managed_by: rest.managed_by,
            adopt: rest.adopt,
            protect: rest.protect,
            probe: rest.probe,
            proxy: rest.proxy,
            chained: rest.chained,
            grants: self.grants.into_iter().map(|(_, grant)| grant).collect(),
            origin: rest.origin,
            identity,
        })
    }
}

pub(super) fn defaults(
    raw: &raw::Defaults,
    clusters: &Clusters,
    problems: &mut Problems,
) -> Defaults {
    Defaults {
        clusters: choice(raw.clusters.as_ref(), clusters, problems),
        rollout: raw.rollout.as_ref().map(|mode| rollout(mode.value)).unwrap_or_default(),
        managed_by: raw.managed_by.as_ref().map(|by| managed_by(by.value)).unwrap_or_default(),
        token_expiration: raw
            .token_expiration
            .as_ref()
            .and_then(|seconds| expiration(seconds, problems)),
    }
}

pub(super) fn workload(
    raw: &raw::Workload,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Draft {
    let namespace = raw.namespace.as_ref().and_then(|text| namespace(text, problems));
    let account = raw.service_account.as_ref().and_then(|text| account(text, problems));
    let clusters = chosen(raw, around, problems);
    let identity = identity(raw, namespace.as_ref(), account.as_ref(), around, problems);
    let (grants, whole) = grants::grants(raw, around, problems);
    let rest = rest(raw, &grants, whole, around, problems);
    Draft {
        span: raw.span,
        name_span: raw
            .service_account
            .as_ref()
            .or(raw.namespace.as_ref())
            .map_or(raw.span, |text| text.span),
        namespace,
        account,
        clusters,
        identity,
        identity_span: raw.identity.as_ref().map(|text| text.span),
        grants,
        rest: if whole { rest } else { None },
    }
}

fn namespace(text: &Located<String>, problems: &mut Problems) -> Option<Namespace> {
    let name = super::name(text, "namespace", names::dns_label, Code::InvalidName, problems)?;
    let namespace = Namespace(name);
    if namespace.is_kept_from_webhooks() {
        problems.push(
            Diagnostic::at(
                Code::SystemNamespace,
                text.span,
                format!("AKS keeps admission webhooks out of `{namespace}`"),
            )
            .label("pods here may never be injected")
            .help("run the workload in a namespace of its own"),
        );
    }
    Some(namespace)
}

fn account(text: &Located<String>, problems: &mut Problems) -> Option<AccountName> {
    let check = names::dns_subdomain;
    let name = super::name(text, "service_account", check, Code::InvalidName, problems)?;
    if name == "default" {
        problems.push(
            Diagnostic::at(
                Code::DefaultServiceAccount,
                text.span,
                "every pod of the namespace that names no service account would get the identity",
            )
            .help("give the workload a service account of its own"),
        );
    }
    Some(AccountName(name))
}

fn chosen(
    raw: &raw::Workload,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<Vec<ClusterName>> {
    let own = choice(raw.clusters.as_ref(), around.clusters, problems);
    let choice = match &own {
        Choice::NotWritten => &around.defaults.clusters,
        Choice::Bad | Choice::Clusters(_) => &own,
    };
    match choice {
        Choice::Clusters(names) => Some(names.clone()),
        Choice::Bad => None,
        Choice::NotWritten => {
            let mut names = around.clusters.keys();
            match (names.next(), names.next()) {
                (Some(only), None) => Some(vec![only.clone()]),
                // No cluster at all is one problem of the file.
                (None, _) => None,
                (Some(_), Some(_)) => {
                    let all: Vec<String> =
                        around.clusters.keys().map(|name| format!("\"{name}\"")).collect();
                    problems.push(
                        Diagnostic::at(
                            Code::ClustersNotChosen,
                            raw.span,
                            "with more than one cluster, a workload says in which it runs",
                        )
                        .help(format!(
                            "add `clusters = [{}]`, or `clusters = [\"*\"]` for all, here or in \
                             [defaults]",
                            all.join(", ")
                        )),
                    );
                    None
                }
            }
        }
    }
}

fn choice(
    list: Option<&Located<Vec<Located<String>>>>,
    clusters: &Clusters,
    problems: &mut Problems,
) -> Choice {
    let Some(list) = list else { return Choice::NotWritten };
    if list.value.is_empty() {
        problems.push(
            Diagnostic::at(Code::InvalidValue, list.span, "`clusters` is empty")
                .help("name at least one, or `[\"*\"]` for all"),
        );
        return Choice::Bad;
    }
    let names = super::once(&list.value, problems);
    let mut good = names.len() == list.value.len();
    let mut chosen = BTreeSet::new();
    for name in &names {
        let cluster = ClusterName::from(name.value.as_str());
        if name.value == "*" {
            if names.len() > 1 {
                good = false;
                problems.push(
                    Diagnostic::at(Code::InvalidValue, name.span, "`*` stands beside a name")
                        .label("already means every cluster")
                        .help("write `clusters = [\"*\"]`"),
                );
            }
            chosen.extend(clusters.keys().cloned());
        } else if clusters.contains_key(&cluster) {
            chosen.insert(cluster);
        } else {
            good = false;
            let known = clusters.keys().map(ClusterName::as_str);
            let mut problem = Diagnostic::at(
                Code::UnknownCluster,
                name.span,
                format!("there is no cluster `{}`", name.value),
            );
            problem = match suggest::similar(&name.value, known.clone()) {
                Some(word) => problem.help(format!("did you mean `{word}`?")),
                None if clusters.is_empty() => problem,
                None => problem.help(format!("clusters: {}", known.collect::<Vec<_>>().join(", "))),
            };
            problems.push(problem);
        }
    }
    if good { Choice::Clusters(chosen.into_iter().collect()) } else { Choice::Bad }
}

const IDENTITY_ID: &str = "it has the form /subscriptions/<GUID>/resourceGroups/<group>/providers/\
                           Microsoft.ManagedIdentity/userAssignedIdentities/<name>: az identity \
                           show --query id";

fn identity(
    raw: &raw::Workload,
    namespace: Option<&Namespace>,
    account: Option<&AccountName>,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<Identity> {
    let ours = |name: &str| {
        let subscription = around.azure.subscription?;
        let group = around.azure.resource_group.as_ref()?;
        Some(ArmId::of_identity(subscription, group, name))
    };
    let Some(text) = &raw.identity else {
        let name = marks::identity(around.template?, around.project?, namespace?, account?);
        if let Err(refused) = names::identity(&name) {
            problems.push(
                Diagnostic::at(
                    Code::InvalidIdentityName,
                    raw.span,
                    format!("the identity's name `{name}` {}", refused.reason),
                )
                .help("change `identity_name` in [defaults], or write `identity` here"),
            );
            return None;
        }
        return Some(Identity {
            id: ours(&name)?,
            control: IdentityControl::Managed,
            written: false,
            origin: around.sources.origin(raw.span),
        });
    };
    // Whatever has a slash is meant as an id: no name has one.
    let (id, control) = if text.value.contains('/') {
        let check = |text: &str| ids::resource(text, IDENTITY_TYPE, "an identity");
        let id = ids::checked(text, "identity", IDENTITY_ID, check, problems)?;
        if let Err(refused) = names::identity(id.name()) {
            problems.push(Diagnostic::at(
                Code::InvalidIdentityName,
                text.span,
                format!("the identity's name `{}` {}", id.name(), refused.reason),
            ));
            return None;
        }
        (id, IdentityControl::External)
    } else {
        let check = names::identity;
        let name = super::name(text, "identity", check, Code::InvalidIdentityName, problems)?;
        (ours(&name)?, IdentityControl::Managed)
    };
    Some(Identity { id, control, written: true, origin: around.sources.origin(text.span) })
}

const IDENTITY_TYPE: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";

fn rest(
    raw: &raw::Workload,
    grants: &[(Span, Grant)],
    grants_are_whole: bool,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<Rest> {
    let tenant = match &raw.tenant {
        Some(text) => ids::guid(text, "tenant", problems),
        None => around.azure.tenant,
    };
    let token_expiration = match &raw.token_expiration {
        Some(seconds) => expiration(seconds, problems).map(Some),
        None => Some(around.defaults.token_expiration),
    };
    let pods = pods(raw.pods.as_ref(), problems);
    let probe = match &raw.probe {
        None => Some(None),
        Some(written) => {
            // A probe that follows from grants is not judged by half of them.
            let usable = grants_are_whole || matches!(written, raw::Probe::Full(_));
            usable.then(|| probe::probe(written, grants, around, problems)).flatten().map(Some)
        }
    };
    let own = &around.defaults;
    Some(Rest {
        tenant: tenant?,
        token_expiration: token_expiration?,
        pods: pods?,
        rollout: raw.rollout.as_ref().map_or(own.rollout, |mode| rollout(mode.value)),
        managed_by: raw.managed_by.as_ref().map_or(own.managed_by, |by| managed_by(by.value)),
        adopt: raw.adopt.as_ref().is_some_and(|adopt| adopt.value),
        protect: raw.protect.as_ref().is_some_and(|protect| protect.value),
        probe: probe?,
        proxy: raw.proxy.as_ref().is_some_and(|proxy| proxy.value),
        chained: raw.chained.as_ref().map(|chained| chained.value),
        origin: around.sources.origin(raw.span),
    })
}

fn rollout(mode: raw::Rollout) -> RolloutMode {
    match mode {
        raw::Rollout::Auto => RolloutMode::Auto,
        raw::Rollout::NextDeploy => RolloutMode::NextDeploy,
        raw::Rollout::Never => RolloutMode::Never,
    }
}

fn managed_by(by: raw::ManagedBy) -> ManagedBy {
    match by {
        raw::ManagedBy::Auto => ManagedBy::Auto,
        raw::ManagedBy::Widentity => ManagedBy::Widentity,
        raw::ManagedBy::Git => ManagedBy::Git,
    }
}

/// The webhook refuses lifetimes outside of these bounds. Source: Azure Workload Identity
/// documentation, "Service account labels and annotations".
fn expiration(seconds: &Located<i64>, problems: &mut Problems) -> Option<u32> {
    let good = u32::try_from(seconds.value).ok().filter(|n| marks::EXPIRATIONS.contains(n));
    if good.is_none() {
        problems.push(
            Diagnostic::at(
                Code::InvalidExpiration,
                seconds.span,
                format!("a token cannot live {} seconds", seconds.value),
            )
            .label("takes 3600 (an hour) to 86400 (a day)"),
        );
    }
    good
}

/// Kinds of pod templates that are written, with the names that kubectl takes for them.
const KINDS: &[(&str, &[&str])] = &[
    ("deployment", &["deployments", "deploy", "deployment.apps", "deployments.apps"]),
    ("statefulset", &["statefulsets", "sts", "statefulset.apps", "statefulsets.apps"]),
    ("daemonset", &["daemonsets", "ds", "daemonset.apps", "daemonsets.apps"]),
    ("cronjob", &["cronjobs", "cj", "cronjob.batch", "cronjobs.batch"]),
    ("rollout", &["rollouts", "ro", "rollout.argoproj.io", "rollouts.argoproj.io"]),
];

fn pods(
    list: Option<&Located<Vec<Located<String>>>>,
    problems: &mut Problems,
) -> Option<PodSelection> {
    let Some(list) = list else { return Some(PodSelection::All) };
    let mut named = BTreeSet::new();
    let mut good = true;
    for entry in super::once(&list.value, problems) {
        match pod_template(entry) {
            Ok(template) => {
                named.insert(template);
            }
            Err(problem) => {
                good = false;
                problems.push(problem);
            }
        }
    }
    good.then_some(PodSelection::Named(named))
}

fn pod_template(entry: &Located<String>) -> Result<String, Diagnostic> {
    let refuse = |message: String| Diagnostic::at(Code::InvalidPods, entry.span, message);
    let kinds = || KINDS.iter().map(|(kind, _)| *kind);
    let Some((kind, name)) = entry.value.split_once('/') else {
        return Err(refuse(format!("`{}` is not kind/name", entry.value))
            .help(format!("write for example `deployment/{}`", entry.value)));
    };
    let lower = kind.to_ascii_lowercase();
    let known = KINDS.iter().find(|(kind, others)| *kind == lower || others.contains(&&*lower));
    let Some((kind, _)) = known else {
        let problem = refuse(format!("`{kind}` is not a kind whose pod template is written"))
            .label(format!("takes {}", kinds().collect::<Vec<_>>().join(", ")));
        let hint = match lower.as_str() {
            "job" | "jobs" => {
                Some("a Job's template cannot change: name its CronJob, or recreate it")
            }
            "pod" | "pods" | "po" | "replicaset" | "replicasets" | "rs" => {
                Some("name what makes it, for example the Deployment")
            }
            "rc" | "replicationcontroller" | "replicationcontrollers" => {
                Some("a ReplicationController does not replace its pods: make it a Deployment")
            }
            _ => None,
        };
        return Err(match hint {
            Some(hint) => problem.help(hint),
            None => problem.suggest(suggest::similar(&lower, kinds())),
        });
    };
    names::dns_subdomain(name)
        .map_err(|refused| refuse(format!("the name in `{}` {}", entry.value, refused.reason)))?;
    Ok(format!("{kind}/{name}"))
}
