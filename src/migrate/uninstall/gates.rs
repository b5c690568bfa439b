//! What stands in the way of an uninstallation.

use std::collections::BTreeSet;

use super::{Class, Exposed, Given, NOT_SEEN, Obstacle, Step};
use crate::{
    migrate::{Phase, Workload},
    model::{
        AccountName, Issuer, Namespace, RemoteFailure, SameCluster,
        footprint::{AzureSide, Footprint, PartKind},
        pod_identity::{Carrier, Estate, EstatePod, EstateTemplate},
        same_cluster,
    },
};

fn obstacle(
    class: Class,
    code: &str,
    message: impl Into<String>,
    fix: impl Into<String>,
) -> Obstacle {
    Obstacle { class, code: code.to_owned(), message: message.into(), fix: fix.into() }
}

/// Everything that stands in the way, worst first.
pub(super) fn obstacles(
    given: Given<'_>,
    steps: &[Step],
    exposed: Option<&Exposed>,
) -> Vec<Obstacle> {
    let mut found = Vec::new();
    unseen(given, &mut found);
    if steps.is_empty() {
        // Nothing is touched, so that nothing else stands in the way.
        found.sort();
        found.dedup();
        return found;
    }
    unlooked(given, &mut found);
    if let Some(wrong) = another_cluster(given) {
        found.push(wrong);
    }
    workloads(given, &mut found);
    others(given.estate, &mut found);
    if is_seen(given) {
        assigned(given, &mut found);
    }
    if given.estate.add_on.is_some() {
        add_on(given, &mut found);
    }
    if let Some(exposed) = exposed.filter(|_| !given.wishes.open_metadata) {
        found.push(obstacle(
            Class::Refused,
            "open-metadata",
            format!(
                "without NMI the metadata endpoint of the nodes is open to every pod, {} at present",
                exposed.pods
            ),
            format!(
                "{}close the endpoint with a NetworkPolicy on 169.254.169.254/32, or accept it: \
                 --allow-open-metadata",
                if exposed.users.is_empty() { "" } else { "look at the pods below; " }
            ),
        ));
    }
    found.sort();
    found.dedup();
    found
}

/// Whether everything of the cluster that decides was read. What was not is not absent.
pub(super) fn is_seen(given: Given<'_>) -> bool {
    given.estate.unseen.is_empty() && given.footprint.unseen.is_empty()
}

fn unseen(given: Given<'_>, found: &mut Vec<Obstacle>) {
    let seen = given.estate.unseen.iter().chain(&given.footprint.unseen);
    found.extend(seen.map(not_seen));
}

fn unlooked(given: Given<'_>, found: &mut Vec<Obstacle>) {
    let unlooked = given.estate.unlooked.iter().map(|failure| {
        let hint = "nothing tells whether its objects make pods with the label: grant the list, \
                    delete the APIService if nothing serves it any more, or waive it with \
                    --allow-unseen-kinds";
        not_seen(&failure.clone().with_hint(hint))
    });
    found.extend(unlooked);
}

fn not_seen(failure: &RemoteFailure) -> Obstacle {
    let hint = failure.hint.as_deref().unwrap_or("nothing is removed while this is not seen");
    let class = if failure.kind.is_denied() { Class::Denied } else { Class::Unseen };
    obstacle(class, NOT_SEEN, failure.to_string(), hint)
}

/// Whether only the issuer of a token can tell whether this is the cluster.
pub fn needs_token(estate: &Estate, footprint: &Footprint, azure: &AzureSide) -> bool {
    let issuers = footprint.issuer.is_none() && estate.issuer.is_some();
    issuers && same(estate, footprint, azure) == SameCluster::Unsaid
}

fn same(estate: &Estate, footprint: &Footprint, azure: &AzureSide) -> SameCluster {
    let hosts = azure.hosts.iter().map(String::as_str);
    let shown = footprint.issuer.as_ref().or(footprint.token_issuer.as_ref());
    same_cluster(&footprint.host, hosts, shown, estate.issuer.as_ref())
}

/// The API server must be the one of ARM's record: its host, the issuer of its discovery document
/// or that of a token says so.
fn another_cluster(given: Given<'_>) -> Option<Obstacle> {
    let Given { estate, footprint, azure, .. } = given;
    let (name, host) = (&estate.cluster, &footprint.host);
    let fix = format!("correct `context` in [clusters.{name}], or pass --context {name}=NAME");
    match same(estate, footprint, azure) {
        SameCluster::Yes => None,
        SameCluster::No => {
            let shown = footprint.issuer.as_ref().or(footprint.token_issuer.as_ref());
            let text =
                |issuer: Option<&Issuer>| issuer.map(ToString::to_string).unwrap_or_default();
            Some(obstacle(
                Class::Refused,
                "cluster-context-mismatch",
                format!(
                    "the API server {host} is not cluster {name}: its issuer is {}, ARM's record \
                     says {}",
                    text(shown),
                    text(estate.issuer.as_ref())
                ),
                fix,
            ))
        }
        SameCluster::Unsaid => {
            let why = match (&footprint.no_token, &estate.issuer, &footprint.issuer) {
                (Some(failure), _, _) => {
                    format!("its issuer cannot be read, and no token tells it: {failure}")
                }
                (None, Some(_), None) => "its issuer cannot be read; the issuer of a token tells, \
                                          which a run asks for and --plan does not"
                    .to_owned(),
                (None, _, _) => "no two issuers can be compared".to_owned(),
            };
            let on = "; a cluster with its OIDC issuer on can be told by that: widentity apply";
            Some(obstacle(
                Class::Denied,
                "cluster-not-confirmed",
                format!(
                    "nothing shows that the API server {host} is cluster {name}: its host is not \
                     in ARM's record; {why}"
                ),
                if estate.issuer.is_none() { format!("{fix}{on}") } else { fix },
            ))
        }
    }
}

/// Whether nothing of a workload needs Pod Identity any more. One that left it without widentity
/// has no backup that says so: then no binding may be left that answers for it.
fn is_clear(estate: &Estate, workload: &Workload) -> bool {
    let bound = || {
        let mut at = estate.bindings.iter().map(|b| format!("{}/{}", b.namespace, b.name));
        at.any(|at| workload.bindings.contains(&at))
    };
    // Nothing of it can be switched, and what carries the label has ended: a Job.
    let over = || workload.templates.is_empty() && !carries(estate, workload);
    workload.phase == Phase::Cleaned || (workload.phase == Phase::Soaked && !bound()) || over()
}

/// Whether anything of a workload that runs, or will, carries the label.
fn carries(estate: &Estate, workload: &Workload) -> bool {
    let same = |namespace: &Namespace, account: &AccountName| {
        (namespace, account) == (&workload.namespace, &workload.account)
    };
    labelled(estate).any(|t| same(&t.namespace, &t.account))
        || labelled_pods(estate).any(|pod| same(&pod.namespace, &pod.account))
}

/// Pod templates with the label, but for those of finished Jobs.
fn labelled(estate: &Estate) -> impl Iterator<Item = &EstateTemplate> {
    let runs = |t: &&EstateTemplate| t.selector().is_some() && (!t.idle || t.kind.writable());
    estate.templates.iter().filter(runs)
}

fn labelled_pods(estate: &Estate) -> impl Iterator<Item = &EstatePod> {
    estate.pods.iter().filter(|pod| !pod.gone && pod.selector().is_some())
}

fn workloads(given: Given<'_>, found: &mut Vec<Obstacle>) {
    let Given { estate, survey, .. } = given;
    let mut told: BTreeSet<(&Namespace, &AccountName)> = BTreeSet::new();
    for workload in survey.workloads.iter().filter(|workload| !is_clear(estate, workload)) {
        told.insert((&workload.namespace, &workload.account));
        let until = workload.soaked_at.filter(|_| workload.phase == Phase::Soaking);
        let until = until.map(|at| format!(" until {at:.0}")).unwrap_or_default();
        let fix = match workload.phase {
            Phase::Soaking | Phase::Soaked | Phase::BindingRemoved => "widentity migrate finish",
            Phase::Discovered
            | Phase::IdentityFederated
            | Phase::TokenProved
            | Phase::Switched
            | Phase::Cleaned
            | Phase::Masked
            | Phase::HalfDone
            | Phase::Broken
            | Phase::RolledBack => {
                "widentity migrate plan says what comes next; then: widentity migrate apply, widentity \
                 migrate finish"
            }
        };
        let message = format!("{} is {}{until}", workload.name(), workload.phase.as_str());
        found.push(obstacle(Class::Blocked, "workload-not-cleaned", message, fix));
    }
    let mut left = BTreeSet::new();
    for template in labelled(estate) {
        if !told.contains(&(&template.namespace, &template.account)) {
            left.insert(format!("{} in {}", template.key(), template.namespace));
        }
    }
    for pod in labelled_pods(estate) {
        if !told.contains(&(&pod.namespace, &pod.account)) {
            left.insert(format!("pod {}/{}", pod.namespace, pod.name));
        }
    }
    left.extend(estate.carriers.iter().map(Carrier::text));
    for who in left {
        found.push(obstacle(
            Class::Blocked,
            "label-left",
            format!("{who} carries the label aadpodidbinding"),
            "take the label away: nothing will answer for it",
        ));
    }
}

/// Objects of other tools that get their tokens through Pod Identity.
fn others(estate: &Estate, found: &mut Vec<Obstacle>) {
    for class in &estate.secret_classes {
        found.push(obstacle(
            Class::Blocked,
            "secret-provider-class",
            format!("SecretProviderClass {} uses Pod Identity", class.at()),
            "set usePodIdentity: \"false\" and clientID in it",
        ));
    }
    for trigger in &estate.triggers {
        found.push(obstacle(
            Class::Blocked,
            "keda-trigger",
            format!("{} uses Pod Identity", trigger.trigger()),
            "use provider azure-workload, with a federated credential for KEDA's own account",
        ));
    }
}

/// `AzureAssignedIdentity` objects without MIC: nobody removes their finalizers, so that their
/// definition could never be deleted.
fn assigned(given: Given<'_>, found: &mut Vec<Obstacle>) {
    let mut components = given.footprint.components.iter();
    if components.any(|component| component.part.kind == PartKind::Mic) {
        return;
    }
    let objects = given.footprint.definitions.iter().flat_map(|definition| &definition.objects);
    for part in objects.filter(|part| part.kind == PartKind::Assigned) {
        let at = part.namespace.as_ref().map_or("", Namespace::as_str);
        found.push(obstacle(
            Class::Blocked,
            "assigned-without-mic",
            format!(
                "AzureAssignedIdentity {} is left, and MIC, which would take the identity from the \
                 node, is gone",
                part.at()
            ),
            format!(
                "kubectl patch azureassignedidentity {name} -n {at} --type merge -p \
                 '{{\"metadata\":{{\"finalizers\":null}}}}', then kubectl delete \
                 azureassignedidentity {name} -n {at}",
                name = part.name
            ),
        ));
    }
}

fn add_on(given: Given<'_>, found: &mut Vec<Obstacle>) {
    if let Some(state) = &given.estate.busy {
        found.push(obstacle(
            Class::Blocked,
            "cluster-busy",
            format!("cluster {} is {state}", given.estate.cluster),
            "wait for the operation to end: az aks operation show-latest",
        ));
    }
    if !given.wishes.disable_add_on {
        found.push(obstacle(
            Class::Refused,
            "add-on-enabled",
            "the AKS add-on keeps Pod Identity in the cluster; it is out of support since September \
             2025, so that it may not be possible to switch it on again",
            "--disable-add-on switches it off with one update of the cluster",
        ));
    }
}
