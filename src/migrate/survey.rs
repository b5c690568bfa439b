//! The inventory: every workload that answers, or answered, through Pod Identity, with where it
//! stands, what may be done with it and what comes next.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    matching::{self, Reached},
    phase::{self, Facts, Phase},
    verdict::{self, Reason, Verdict},
};
use crate::model::{
    AccountName, ArmId, Audience, ClientId, ClusterName, Namespace, PrincipalId, RemoteFailure,
    Subject, TenantId,
    desired::{DesiredWorkload, ManagedBy, PodSelection},
    pod_identity::{
        AzureIdentityState, Backup, Estate, EstateAccount, EstatePod, EstateTemplate, Named,
    },
    snapshot::{ObservedCredential, TemplateKind},
};

/// Azure takes no more federated credentials on one identity.
///
/// Source: Microsoft Entra documentation, "Workload identity federation considerations".
const MOST_CREDENTIALS: usize = 20;

/// What is known beside the estate.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The workloads of the file: decisions.
    pub workloads: &'a [DesiredWorkload],
    /// Whether the file lets issuer and webhook be enabled in this cluster.
    pub may_enable: bool,
    /// The audience of the cluster's webhook.
    pub audience: &'a Audience,
    /// The wall time.
    pub now: Timestamp,
    /// How long proved pods must have run before their binding may go.
    pub soak: SignedDuration,
}

/// What was found in one cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// The cluster.
    pub cluster: ClusterName,
    /// Whether anything of Pod Identity is or was there.
    pub found: bool,
    /// The workloads, by namespace and account.
    pub workloads: Vec<Workload>,
    /// What else matters.
    pub notes: Vec<Note>,
    /// What could not be read. Nothing is changed while this is not empty.
    pub unseen: Vec<RemoteFailure>,
}

/// Something beside the workloads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Note {
    /// A stable kebab-case code.
    pub code: String,
    /// What is the case, one sentence without a full stop.
    pub message: String,
}

/// The managed identity of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acts {
    /// Its ARM id.
    pub id: ArmId,
    /// Its client id.
    pub client: ClientId,
    /// Its principal.
    pub principal: PrincipalId,
    /// Its tenant.
    pub tenant: TenantId,
}

/// A workload on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The namespace.
    pub namespace: Namespace,
    /// The account.
    pub account: AccountName,
    /// The values of the pod label that it is selected by.
    pub selectors: BTreeSet<String>,
    /// The managed identities it reaches, by id.
    pub reaches: Vec<ArmId>,
    /// The one it will act as, where that is decided and it exists.
    pub identity: Option<Acts>,
    /// The bindings that answer for it, `namespace/name`.
    pub bindings: BTreeSet<String>,
    /// Its writable pod templates, `kind/name`.
    pub templates: BTreeSet<String>,
    /// Whether these are all templates of the account.
    pub whole: bool,
    /// Its live pods.
    pub pods: usize,
    /// Those that carry the identity and that Pod Identity cannot answer.
    pub proved: usize,
    /// Whether it uses the migration sidecar, which is a debt.
    pub proxied: bool,
    /// Where it stands.
    pub phase: Phase,
    /// When its soak ends.
    pub soaked_at: Option<Timestamp>,
    /// What may be done with it.
    pub verdict: Verdict,
    /// Why, where it is not ready.
    pub reasons: Vec<Reason>,
    /// What comes next.
    pub next: Vec<String>,
}

impl Workload {
    /// `namespace/account`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.account)
    }
}

/// Whether the controller of a template made a pod, as its owner reference says.
pub fn stamps(template: &EstateTemplate, pod: &EstatePod) -> bool {
    if template.namespace != pod.namespace {
        return false;
    }
    let Some(controller) = pod.controller.as_deref() else {
        return template.kind == TemplateKind::Pod && template.name == pod.name;
    };
    let Some((kind, name)) = controller.split_once('/') else { return false };
    let stem = name.rsplit_once('-').map_or(name, |(stem, _)| stem);
    match template.kind {
        TemplateKind::Deployment | TemplateKind::Rollout => {
            kind == "replicaset" && stem == template.name
        }
        TemplateKind::CronJob => kind == "job" && stem == template.name,
        other => kind == other.as_str() && name == template.name,
    }
}

type Key<'a> = (&'a Namespace, &'a AccountName);

#[derive(Default)]
struct Group<'a> {
    templates: Vec<&'a EstateTemplate>,
    pods: Vec<&'a EstatePod>,
}

/// Finds every workload of the estate and says where it stands. Pure: equal arguments give equal
/// results.
pub fn survey(estate: &Estate, given: Given<'_>) -> Survey {
    let mut room = BTreeMap::new();
    let groups = groups(estate);
    let workloads: Vec<Workload> =
        groups.iter().map(|(key, group)| judge(estate, given, *key, group, &mut room)).collect();
    let found = estate.installed
        || estate.add_on.is_some()
        || !estate.installs.is_empty()
        || !estate.identities.is_empty()
        || !workloads.is_empty();
    Survey {
        cluster: estate.cluster.clone(),
        found,
        workloads,
        notes: notes(estate, given),
        unseen: estate.unseen.clone(),
    }
}

fn backup_of<'a>(estate: &'a Estate, (namespace, account): Key<'_>) -> Option<&'a Backup> {
    estate.backups.iter().find(|b| b.namespace == *namespace && b.account == *account)
}

fn account_of<'a>(estate: &'a Estate, (namespace, account): Key<'_>) -> Option<&'a EstateAccount> {
    estate.accounts.iter().find(|a| a.namespace == *namespace && a.name == *account)
}

/// Templates and pods of every account that Pod Identity answers or answered for.
fn groups(estate: &Estate) -> BTreeMap<Key<'_>, Group<'_>> {
    let clients: BTreeSet<String> =
        estate.identities.iter().map(|i| i.client_id.trim().to_lowercase()).collect();
    let mut groups: BTreeMap<Key<'_>, Group<'_>> = BTreeMap::new();
    for template in &estate.templates {
        let key = (&template.namespace, &template.account);
        let backed = || {
            let of = |b: &Backup| b.templates.iter().any(|t| t.key == template.key());
            backup_of(estate, key).is_some_and(of)
        };
        let pointed = || {
            let client = account_of(estate, key).and_then(|a| a.client_id.as_ref());
            client.is_some_and(|client| clients.contains(&client.to_lowercase()))
        };
        if template.selector().is_some() || backed() || (template.labelled() && pointed()) {
            groups.entry(key).or_default().templates.push(template);
        }
    }
    for pod in estate.pods.iter().filter(|pod| !pod.gone) {
        let key = (&pod.namespace, &pod.account);
        let stamped = estate.templates.iter().any(|template| stamps(template, pod));
        if pod.selector().is_some() && !stamped {
            groups.entry(key).or_default().pods.push(pod);
        } else if let Some(group) = groups.get_mut(&key)
            && group.templates.iter().any(|template| stamps(template, pod))
        {
            group.pods.push(pod);
        }
    }
    groups
}

fn judge(
    estate: &Estate,
    given: Given<'_>,
    key: Key<'_>,
    group: &Group<'_>,
    room: &mut BTreeMap<ArmId, usize>,
) -> Workload {
    let (namespace, account) = key;
    let decided =
        given.workloads.iter().find(|w| w.namespace == *namespace && w.account == *account);
    let backup = backup_of(estate, key);
    let templates: Vec<&EstateTemplate> =
        group.templates.iter().copied().filter(|t| t.kind.writable()).collect();
    let labelled = group.templates.iter().filter_map(|t| t.selector());
    let selectors: BTreeSet<&str> =
        labelled.chain(group.pods.iter().filter_map(|p| p.selector())).collect();
    let reached: Vec<Reached<'_>> =
        selectors.iter().flat_map(|s| matching::reached(estate, namespace, s)).collect();
    let mut reasons = Vec::new();
    let annotated = account_of(estate, key).and_then(|a| a.client_id.as_deref());
    let mut reaches = identities(&reached, backup, &selectors, &mut reasons);
    if reaches.is_empty() && selectors.is_empty() {
        // Switched without a backup: the account says whom it acts as.
        let named = estate.identities.iter().find(|identity| {
            annotated.is_some_and(|have| have.eq_ignore_ascii_case(identity.client_id.trim()))
        });
        reaches.extend(named.and_then(matching::resource_id));
    }
    let chosen = choose(&reaches, decided, &mut reasons);
    let seen = chosen.and_then(|id| azure(estate, id, &reached, &mut reasons));
    let (identity, credentials) = match seen {
        Some((acts, credentials)) => (Some(acts), credentials),
        None => (None, &[][..]),
    };
    let stamped =
        |pod: &&&EstatePod| group.templates.iter().any(|t| t.kind.writable() && stamps(t, pod));
    let subject = Subject::of(namespace, account);
    let standing = phase::stand(&Facts {
        estate,
        subject: subject.clone(),
        audience: given.audience,
        identity: identity.as_ref().map(|acts| (acts.client, credentials)),
        annotated,
        templates: templates.clone(),
        pods: group.pods.iter().filter(stamped).copied().collect(),
        backup,
        now: given.now,
        soak: given.soak,
    });
    let whole = estate
        .templates
        .iter()
        .filter(|t| (&t.namespace, &t.account) == key && t.kind.writable())
        .all(|t| group.templates.iter().any(|known| known.key() == t.key()));
    let mut workload = Workload {
        namespace: namespace.clone(),
        account: account.clone(),
        selectors: selectors.iter().map(|s| (*s).to_owned()).collect(),
        reaches,
        identity,
        bindings: reached
            .iter()
            .map(|r| format!("{}/{}", r.binding.namespace, r.binding.name))
            .chain(backup.into_iter().flat_map(|b| b.bindings.clone()))
            .collect(),
        templates: templates.iter().map(|t| t.key()).collect(),
        whole,
        pods: group.pods.len(),
        proved: standing.proved,
        proxied: templates.iter().any(|t| t.proxied()),
        phase: standing.phase,
        soaked_at: standing.until,
        verdict: Verdict::Ready,
        reasons: Vec::new(),
        next: Vec::new(),
    };
    if !workload.phase.is_switched() {
        let federated =
            phase::is_federated(credentials, estate.issuer.as_ref(), &subject, given.audience);
        if let Some(acts) = &workload.identity
            && !federated
        {
            let used = room.entry(acts.id.clone()).or_insert(credentials.len());
            if *used >= MOST_CREDENTIALS {
                reasons.push(Reason::obstacle(
                    "twenty-credentials",
                    format!(
                        "identity {} has no room for another federated credential: Azure allows \
                         {MOST_CREDENTIALS}",
                        acts.id.name()
                    ),
                    "give some of its workloads an identity of their own, with the same roles: \
                     `identity = \"NAME\"` and `grants`",
                ));
            } else {
                *used += 1;
            }
        }
        surroundings(estate, given, key, group, decided, &mut reasons);
    }
    reasons.sort();
    reasons.dedup();
    workload.verdict = verdict::of(&reasons);
    workload.reasons = reasons;
    workload.next = next(&workload, given);
    workload
}

/// The distinct managed identities behind the bindings, and what is wrong with the others.
fn identities(
    reached: &[Reached<'_>],
    backup: Option<&Backup>,
    selectors: &BTreeSet<&str>,
    reasons: &mut Vec<Reason>,
) -> Vec<ArmId> {
    let mut ids: BTreeSet<ArmId> = BTreeSet::new();
    for Reached { binding, identity } in reached {
        let at = format!("{}/{}", binding.namespace, binding.name);
        let Some(identity) = identity else {
            reasons.push(Reason::obstacle(
                "binding-to-nothing",
                format!(
                    "binding {at} names AzureIdentity {}, which does not exist in its namespace",
                    binding.identity
                ),
                "delete the binding, or make the AzureIdentity again",
            ));
            continue;
        };
        let name = format!("{}/{}", identity.namespace, identity.name);
        match identity.kind {
            0 => match matching::resource_id(identity) {
                Some(id) => {
                    ids.insert(id);
                }
                None => reasons.push(Reason::obstacle(
                    "identity-without-id",
                    format!(
                        "AzureIdentity {name} has resourceID `{}`, which MIC ignores",
                        identity.resource_id
                    ),
                    "correct its resourceID",
                )),
            },
            kind => reasons.push(Reason::obstacle(
                "service-principal",
                format!(
                    "AzureIdentity {name} is a service principal (type {kind}); its application \
                     needs a federated credential of its own, which widentity does not make"
                ),
                "give the workload a managed identity, or federate the application through \
                 Microsoft Graph",
            )),
        }
    }
    if ids.is_empty()
        && let Some(backup) = backup
    {
        ids.insert(ArmId::new(backup.identity.clone()));
    }
    if ids.is_empty() && reasons.is_empty() && !selectors.is_empty() {
        let selectors: Vec<&str> = selectors.iter().copied().collect();
        reasons.push(Reason::obstacle(
            "no-binding",
            format!("no binding selects aadpodidbinding={}", selectors.join(", ")),
            "remove the label, or make the binding",
        ));
    }
    ids.into_iter().collect()
}

fn choose<'a>(
    reaches: &'a [ArmId],
    decided: Option<&DesiredWorkload>,
    reasons: &mut Vec<Reason>,
) -> Option<&'a ArmId> {
    let written = decided.and_then(|d| reaches.iter().find(|id| **id == d.identity));
    match reaches {
        [] => None,
        [one] => {
            if let Some(other) = decided.filter(|_| written.is_none()) {
                reasons.push(Reason::obstacle(
                    "another-identity",
                    format!(
                        "the file gives it identity {}, it answers as {}",
                        other.identity.name(),
                        one.name()
                    ),
                    format!("identity = \"{one}\""),
                ));
            }
            Some(one)
        }
        several => {
            if written.is_none() {
                let names: Vec<&str> = several.iter().map(ArmId::name).collect();
                reasons.push(Reason::decision(
                    "several-identities",
                    format!(
                        "it reaches {} identities ({}); a service account has one",
                        several.len(),
                        names.join(", ")
                    ),
                    format!("identity = \"{}\"", several[0]),
                ));
            }
            written
        }
    }
}

/// What Azure says of the identity, checked against what the cluster says.
fn azure<'a>(
    estate: &'a Estate,
    id: &ArmId,
    reached: &[Reached<'_>],
    reasons: &mut Vec<Reason>,
) -> Option<(Acts, &'a [ObservedCredential])> {
    match estate.azure.get(id) {
        Some(AzureIdentityState::Present(seen, credentials)) => {
            for identity in reached.iter().filter_map(|r| r.identity) {
                let same = matching::resource_id(identity).as_ref() == Some(id);
                if same && matching::client_id(identity) != Some(seen.client_id) {
                    reasons.push(Reason::obstacle(
                        "identity-recreated",
                        format!(
                            "AzureIdentity {}/{} has client id {}, Azure says {}: the managed \
                             identity was made again and may have other roles",
                            identity.namespace, identity.name, identity.client_id, seen.client_id
                        ),
                        "check its roles and correct clientID of the AzureIdentity",
                    ));
                }
            }
            let acts = Acts {
                id: id.clone(),
                client: seen.client_id,
                principal: seen.principal_id,
                tenant: seen.tenant_id,
            };
            Some((acts, credentials))
        }
        Some(AzureIdentityState::Gone) => {
            reasons.push(Reason::obstacle(
                "identity-gone",
                format!("managed identity {} does not exist any more", id.name()),
                "make it again with its roles, or declare a new one in `[[workloads]]`",
            ));
            None
        }
        Some(AzureIdentityState::Unknown(failure)) => {
            let message = format!("managed identity {} cannot be seen: {failure}", id.name());
            reasons.push(Reason::obstacle("identity-unseen", message, "run again with access"));
            None
        }
        None => {
            let message = format!("managed identity {} was not read", id.name());
            reasons.push(Reason::obstacle("identity-unseen", message, "run again with access"));
            None
        }
    }
}

/// Reasons that lie in the cluster, the account and the templates.
fn surroundings(
    estate: &Estate,
    given: Given<'_>,
    key: Key<'_>,
    group: &Group<'_>,
    decided: Option<&DesiredWorkload>,
    reasons: &mut Vec<Reason>,
) {
    let (namespace, account) = key;
    if verdict::never_mutated(namespace) {
        reasons.push(Reason::obstacle(
            "system-namespace",
            format!("pods of namespace {namespace} are never mutated by the webhook on AKS"),
            "move the workload to a namespace of its own",
        ));
    }
    if (estate.issuer.is_none() || !estate.workload_identity) && !given.may_enable {
        let what = if estate.issuer.is_none() { "OIDC issuer" } else { "workload identity add-on" };
        reasons.push(Reason::decision(
            "cluster-not-ready",
            format!("the {what} of cluster {} is off; enabling cannot be undone", estate.cluster),
            format!(
                "[clusters.{}] enable = [\"oidc-issuer\", \"workload-identity\"]",
                estate.cluster
            ),
        ));
    }
    let named = match decided.map(|d| &d.pods) {
        Some(PodSelection::Named(named)) => named.clone(),
        Some(PodSelection::All) | None => BTreeSet::new(),
    };
    let quoted = |keys: &[String]| {
        let keys: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
        format!("pods = [{}]", keys.join(", "))
    };
    let writable: Vec<String> =
        group.templates.iter().filter(|t| t.kind.writable()).map(|t| t.key()).collect();
    let all_named = !writable.is_empty() && writable.iter().all(|key| named.contains(key));
    if account.as_str() == "default" && !all_named {
        reasons.push(Reason::decision(
            "default-account",
            format!(
                "it runs as the default account: every labelled pod of {namespace} gets the identity"
            ),
            quoted(&writable),
        ));
    }
    let others: Vec<String> = estate
        .templates
        .iter()
        .filter(|t| (&t.namespace, &t.account) == key && !(t.kind == TemplateKind::Job && t.idle))
        .filter(|t| !group.templates.iter().any(|known| known.key() == t.key()))
        .map(EstateTemplate::key)
        .collect();
    let selectors: BTreeSet<Option<&str>> = group.templates.iter().map(|t| t.selector()).collect();
    if account.as_str() != "default" && !all_named && (!others.is_empty() || selectors.len() > 1) {
        let with = if others.is_empty() {
            "its templates have different selectors".to_owned()
        } else {
            format!("{} use the account without Pod Identity", others.join(", "))
        };
        reasons.push(Reason::decision("shared-account", with, quoted(&writable)));
    }
    let adopted = decided.is_some_and(|d| d.adopt || d.managed_by == ManagedBy::Widentity);
    let keepers = group.templates.iter().filter_map(|t| Some((t.key(), t.kept_by.clone()?)));
    let account_kept = account_of(estate, key).and_then(|a| a.kept_by.clone());
    let keepers = keepers.chain(account_kept.map(|by| (format!("serviceaccount/{account}"), by)));
    for (what, by) in keepers.filter(|_| !adopted) {
        let decide = if by == "Helm" { "adopt = true" } else { "managed_by = \"widentity\"" };
        reasons.push(Reason::decision(
            "kept-by",
            format!("{what} is kept by {by}, which puts the old label back"),
            format!("{decide}, or change it there"),
        ));
    }
    let mut alone = true;
    for template in &group.templates {
        reasons.extend(verdict::proxy_obstacle(template));
        if template.selector_holds {
            reasons.push(Reason::obstacle(
                "selector-holds-label",
                format!(
                    "{} selects its pods by aadpodidbinding, and a selector cannot be changed",
                    template.key()
                ),
                "make it again with another selector",
            ));
        }
        if template.virtual_node {
            reasons.push(Reason::obstacle(
                "virtual-node",
                format!("{} runs on a virtual node, which has no projected tokens", template.key()),
                "run it on a node pool",
            ));
        }
        if template.kind.writable() {
            alone = false;
            if let Some(gap) = verdict::gap(template).filter(|_| !named.contains(&template.key())) {
                reasons.push(Reason::decision("no-overlap", gap, quoted(&writable)));
            }
        }
    }
    if alone {
        let what = group.templates.first().map_or_else(
            || {
                let pod = group.pods.first();
                pod.map_or("a pod".to_owned(), |pod| {
                    pod.controller.clone().unwrap_or_else(|| format!("pod/{}", pod.name))
                })
            },
            |template| template.key(),
        );
        let ended = group.templates.iter().all(|t| t.idle) && group.pods.is_empty();
        let message = if ended {
            format!("{what} has ended: nothing runs that could be migrated")
        } else {
            format!("{what} cannot be changed: whoever made it must make it again")
        };
        reasons.push(Reason::obstacle(
            if ended { "ended" } else { "must-be-recreated" },
            message,
            "in its manifest: label azure.workload.identity/use: \"true\", without aadpodidbinding",
        ));
    }
    if let Some(state) = &estate.busy {
        reasons.push(Reason::obstacle(
            "cluster-busy",
            format!("an operation on cluster {} is under way ({state})", estate.cluster),
            "run again when it has ended",
        ));
    }
}

fn next(workload: &Workload, given: Given<'_>) -> Vec<String> {
    if !workload.reasons.is_empty() {
        return workload.reasons.iter().map(|reason| reason.decide.clone()).collect();
    }
    let name = workload.name();
    let switch = format!(
        "switch {} in one roll (label added, aadpodidbinding dropped)",
        workload.templates.iter().cloned().collect::<Vec<_>>().join(", ")
    );
    let (federate, prove) = ("federate the identity".to_owned(), "prove a token".to_owned());
    match workload.phase {
        Phase::Discovered | Phase::RolledBack => {
            vec![federate, prove, "annotate the account".to_owned(), switch]
        }
        Phase::IdentityFederated => vec![prove, "annotate the account".to_owned(), switch],
        Phase::TokenProved => vec![prove, switch],
        Phase::HalfDone | Phase::Masked => {
            vec![prove, "drop aadpodidbinding in one roll".to_owned()]
        }
        Phase::Broken => vec![federate, prove, "complete the account".to_owned()],
        Phase::Switched => vec!["wait for its pods and prove them".to_owned()],
        Phase::Soaking => vec![match workload.soaked_at {
            Some(until) => format!("soak until {until:.0}"),
            None => format!("soak for {:#}", given.soak),
        }],
        Phase::Soaked => vec![format!("remove its bindings: {}", {
            let bindings: Vec<&str> = workload.bindings.iter().map(String::as_str).collect();
            bindings.join(", ")
        })],
        Phase::BindingRemoved => vec![format!("remove the AzureIdentity of {name}")],
        Phase::Cleaned => Vec::new(),
    }
}

/// What matters beside the workloads.
fn notes(estate: &Estate, given: Given<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut note = |code: &str, message: String| {
        notes.push(Note { code: code.to_owned(), message });
    };
    for Named { namespace, name, .. } in &estate.secret_classes {
        note(
            "secret-provider-class",
            format!(
                "SecretProviderClass {namespace}/{name} uses Pod Identity: set usePodIdentity: \
                 \"false\" and clientID in it"
            ),
        );
    }
    for Named { namespace, name, .. } in &estate.triggers {
        note(
            "keda-trigger",
            format!(
                "TriggerAuthentication {namespace}/{name} uses Pod Identity: provider \
                 azure-workload and a federated credential for KEDA's own account"
            ),
        );
    }
    for binding in &estate.bindings {
        let at = format!("{}/{}", binding.namespace, binding.name);
        if matching::identity_of(estate, binding).is_none() {
            note(
                "binding-to-nothing",
                format!(
                    "binding {at} names AzureIdentity {}, which does not exist",
                    binding.identity
                ),
            );
        }
        let templates = estate.templates.iter().filter_map(|t| Some((&t.namespace, t.selector()?)));
        let pods = estate.pods.iter().filter(|p| !p.gone);
        let pods = pods.filter_map(|p| Some((&p.namespace, p.selector()?)));
        let used = templates.chain(pods).any(|(n, s)| matching::selects(estate, binding, n, s));
        let known = estate.backups.iter().any(|b| b.bindings.contains(&at));
        if !used && !known {
            note("binding-unused", format!("binding {at} selects no template and no live pod"));
        }
    }
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for identity in &estate.identities {
        *names.entry(&identity.name).or_default() += 1;
    }
    if !matching::namespaced(estate) {
        for (name, _) in names.into_iter().filter(|(_, count)| *count > 1) {
            note(
                "same-name",
                format!("AzureIdentity {name} exists in several namespaces, which MIC confuses"),
            );
        }
    }
    let on_node = matching::on_node_identity(estate);
    if !on_node.is_empty() {
        let names: Vec<String> =
            on_node.iter().take(5).map(|p| format!("{}/{}", p.namespace, p.name)).collect();
        let more = on_node.len().saturating_sub(names.len());
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        note(
            "node-identity",
            format!("these pods may live on the node's identity: {}{more}", names.join(", ")),
        );
    }
    if estate.add_on.is_some() {
        note(
            "add-on",
            "the AKS add-on keeps its identities in ARM: they are removed there, not in the cluster"
                .to_owned(),
        );
    }
    let named = |w: &&DesiredWorkload| {
        let of = |t: &&EstateTemplate| (&t.namespace, &t.account) == (&w.namespace, &w.account);
        !estate.templates.iter().any(|t| of(&t))
            && estate
                .backups
                .iter()
                .any(|b| (&b.namespace, &b.account) == (&w.namespace, &w.account))
    };
    for workload in given.workloads.iter().filter(named) {
        note(
            "no-template",
            format!("{}/{} has no pod template any more", workload.namespace, workload.account),
        );
    }
    notes.sort();
    notes
}
