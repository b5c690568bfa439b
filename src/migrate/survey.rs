//! The inventory: every workload that answers, or answered, through Pod Identity, with where it
//! stands, what may be done with it and what comes next.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    chained,
    matching::{self, Reached},
    notes,
    phase::{self, Facts, Phase},
    reasons, rollback,
    surroundings::{self, Place},
    verdict::{self, Reason, Verdict},
};
use crate::model::{
    AccountName, ArmId, Audience, ClientId, ClusterName, Namespace, PrincipalId, RemoteFailure,
    Subject, TenantId,
    desired::DesiredWorkload,
    names::MOST_CREDENTIALS,
    pod_identity::{
        Backup, Binding, Estate, EstateAccount, EstatePod, EstateTemplate, PodIdentity,
    },
};

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
    /// What somebody decided against the usual gates.
    pub waived: Waived,
    /// The [`Survey::places`] of the clusters that come before this one.
    pub places: &'a Places,
}

/// How many federated credentials each managed identity has, counting those that moves will add.
pub type Places = BTreeMap<ArmId, usize>;

/// Gates that somebody opens by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waived {
    /// Identities may be taken from the nodes although other pods may live on them there.
    pub nodes: bool,
    /// What has not run since its switch may soak all the same.
    pub run: bool,
    /// Bindings may go although some kinds of objects could not be looked through for their label.
    pub kinds: bool,
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
    /// The places that are taken once everything that may move here has moved: an identity that
    /// several clusters share has them once.
    #[serde(skip)]
    pub places: Places,
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
    /// The tools that keep its account or its templates, as [`crate::model::keeper`] names them.
    pub kept_by: BTreeSet<String>,
    /// Where it stands.
    pub phase: Phase,
    /// When its soak ends.
    pub soaked_at: Option<Timestamp>,
    /// Switched pod templates of which no pod has shown anything yet, `kind/name`: they are scaled
    /// to zero, suspended, or wait for their schedule.
    pub unrun: Vec<String>,
    /// What its workload identity lacks, where it is half-done or broken.
    pub lacks: Vec<String>,
    /// What may be done with it.
    pub verdict: Verdict,
    /// Why, where it is not ready.
    pub reasons: Vec<Reason>,
    /// Whether `apply` leaves it alone: it was put back, or somebody began to, and its pod
    /// templates are those that were tried.
    pub left_alone: bool,
    /// What comes next.
    pub next: Vec<String>,
}

impl Workload {
    /// `namespace/account`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.account)
    }

    /// Takes it up again although it was put back, because somebody named it.
    pub fn take_up(&mut self) {
        self.left_alone = false;
    }

    /// Whether it may be moved: it is ready, or nothing stands in its way but that Git keeps it.
    /// Then its identity is federated and proved, and what Git keeps waits for Git.
    pub fn may_move(&self) -> bool {
        verdict::may_move(&self.reasons, &self.kept_by)
    }
}

pub(super) type Key<'a> = (&'a Namespace, &'a AccountName);

#[derive(Default)]
pub(super) struct Group<'a> {
    pub(super) templates: Vec<&'a EstateTemplate>,
    pub(super) pods: Vec<&'a EstatePod>,
}

/// Finds every workload of the estate and says where it stands. Pure: equal arguments give equal
/// results.
pub fn survey(estate: &Estate, given: Given<'_>) -> Survey {
    let mut places = given.places.clone();
    let groups = groups(estate);
    let workloads: Vec<Workload> =
        groups.iter().map(|(key, group)| judge(estate, given, *key, group, &mut places)).collect();
    let found = estate.installed
        || estate.add_on.is_some()
        || !estate.installs.is_empty()
        || !estate.identities.is_empty()
        || !workloads.is_empty();
    Survey {
        cluster: estate.cluster.clone(),
        found,
        notes: notes::notes(estate, given, &workloads),
        workloads,
        unseen: estate.unseen.clone(),
        places,
    }
}

fn backup_of<'a>(estate: &'a Estate, (namespace, account): Key<'_>) -> Option<&'a Backup> {
    estate.backups.iter().find(|b| b.namespace == *namespace && b.account == *account)
}

pub(super) fn account_of<'a>(
    estate: &'a Estate,
    (namespace, account): Key<'_>,
) -> Option<&'a EstateAccount> {
    estate.accounts.iter().find(|a| a.namespace == *namespace && a.name == *account)
}

/// Templates and pods of every account that Pod Identity answers or answered for.
fn groups(estate: &Estate) -> BTreeMap<Key<'_>, Group<'_>> {
    let mut groups: BTreeMap<Key<'_>, Group<'_>> = BTreeMap::new();
    let live = || estate.pods.iter().filter(|pod| !pod.gone);
    for template in &estate.templates {
        let key = (&template.namespace, &template.account);
        let backed = || {
            let of = |b: &Backup| b.templates.iter().any(|t| t.key == template.key());
            backup_of(estate, key).is_some_and(of)
        };
        // A running pod may carry a label that its template has lost.
        let lives = || {
            let of = |pod: &&EstatePod| (&pod.namespace, &pod.account) == key;
            live().filter(of).any(|pod| pod.selector().is_some() && template.stamps(pod))
        };
        let pointed = || template.labelled() && is_pointed(estate, key);
        if template.selector().is_some() || backed() || pointed() || lives() {
            groups.entry(key).or_default().templates.push(template);
        }
    }
    for pod in live() {
        let key = (&pod.namespace, &pod.account);
        let stamped = estate.templates.iter().any(|template| template.stamps(pod));
        if pod.selector().is_some() && !stamped {
            groups.entry(key).or_default().pods.push(pod);
        } else if let Some(group) = groups.get_mut(&key)
            && group.templates.iter().any(|template| template.stamps(pod))
        {
            group.pods.push(pod);
        }
    }
    groups
}

/// Whether the account is annotated with the client id of an `AzureIdentity`: of any, or, while a
/// template of the account still carries the old label, of one that this label reaches.
fn is_pointed(estate: &Estate, key: Key<'_>) -> bool {
    let Some(client) = account_of(estate, key).and_then(|a| a.client_id.as_deref()) else {
        return false;
    };
    let is = |identity: &PodIdentity| identity.client_id.trim().eq_ignore_ascii_case(client);
    let labelled = estate.templates.iter().filter(|t| (&t.namespace, &t.account) == key);
    let selectors: BTreeSet<&str> = labelled.filter_map(EstateTemplate::selector).collect();
    if selectors.is_empty() {
        return estate.identities.iter().any(is);
    }
    let reached = selectors.iter().flat_map(|s| matching::reached(estate, key.0, s));
    reached.filter_map(|reached| reached.identity).any(is)
}

fn judge(
    estate: &Estate,
    given: Given<'_>,
    key: Key<'_>,
    group: &Group<'_>,
    places: &mut Places,
) -> Workload {
    let (namespace, account) = key;
    let decided =
        given.workloads.iter().find(|w| w.namespace == *namespace && w.account == *account);
    let backup = backup_of(estate, key);
    let templates: Vec<&EstateTemplate> =
        group.templates.iter().copied().filter(|t| t.writable()).collect();
    let labelled = group.templates.iter().filter_map(|t| t.selector());
    let selectors: BTreeSet<&str> =
        labelled.chain(group.pods.iter().filter_map(|p| p.selector())).collect();
    let reached: Vec<Reached<'_>> =
        selectors.iter().flat_map(|s| matching::reached(estate, namespace, s)).collect();
    let mut reasons: Vec<Reason> = reasons::not_seen(estate).into_iter().collect();
    let annotated = account_of(estate, key).and_then(|a| a.client_id.as_deref());
    let mut reaches = reasons::identities(estate, &reached, backup, &selectors, &mut reasons);
    if reaches.is_empty() && selectors.is_empty() {
        // Switched without a backup: the account says whom it acts as.
        let named = estate.identities.iter().find(|identity| {
            annotated.is_some_and(|have| have.eq_ignore_ascii_case(identity.client_id.trim()))
        });
        reaches.extend(named.and_then(matching::resource_id));
    }
    let chosen = reasons::choose(estate, &reaches, decided, &mut reasons);
    let seen = chosen.and_then(|id| reasons::azure(estate, id, &reached, &mut reasons));
    let (identity, credentials) = match seen {
        Some((acts, credentials)) => (Some(acts), credentials),
        None => (None, &[][..]),
    };
    let stamped = |pod: &&&EstatePod| group.templates.iter().any(|t| t.writable() && t.stamps(pod));
    let subject = Subject::of(namespace, account);
    let mut bindings: BTreeSet<String> = reached
        .iter()
        .map(|r| format!("{}/{}", r.binding.namespace, r.binding.name))
        .chain(backup.into_iter().flat_map(|b| b.bindings.clone()))
        .collect();
    if backup.is_none() && selectors.is_empty() {
        bindings.extend(chosen.into_iter().flat_map(|id| of_identity(estate, namespace, id)));
    }
    let standing = phase::stand(&Facts {
        estate,
        subject: subject.clone(),
        audience: given.audience,
        identity: identity.as_ref().map(|acts| (acts.client, credentials)),
        annotated,
        templates: templates.clone(),
        pods: group.pods.iter().filter(stamped).copied().collect(),
        backup,
        bindings: &bindings,
        answered_as: chosen,
        now: given.now,
        soak: given.soak,
        unrun: given.waived.run,
    });
    let whole = estate
        .templates
        .iter()
        .filter(|t| (&t.namespace, &t.account) == key && t.writable())
        .all(|t| group.templates.iter().any(|known| known.key() == t.key()));
    let mut workload = Workload {
        namespace: namespace.clone(),
        account: account.clone(),
        selectors: selectors.iter().map(|s| (*s).to_owned()).collect(),
        reaches,
        identity,
        bindings,
        templates: templates.iter().map(|t| t.key()).collect(),
        whole,
        pods: group.pods.len(),
        proved: standing.proved,
        proxied: templates.iter().any(|t| t.proxied()),
        kept_by: templates
            .iter()
            .filter_map(|t| t.kept_by.clone())
            .chain(account_of(estate, key).and_then(|a| a.kept_by.clone()))
            .collect(),
        phase: standing.phase,
        soaked_at: standing.until,
        unrun: standing.unrun,
        lacks: Vec::new(),
        verdict: Verdict::Ready,
        reasons: Vec::new(),
        left_alone: backup.is_some_and(|backup| {
            let waits = matches!(
                standing.phase,
                Phase::RolledBack | Phase::Switched | Phase::Masked | Phase::HalfDone
            );
            let tried = backup.rolled_back && !backup.blameless;
            waits && tried && !rollback::changed(backup, &templates)
        }),
        next: Vec::new(),
    };
    let federated =
        phase::is_federated(credentials, estate.issuer.as_ref(), &subject, given.audience);
    if matches!(workload.phase, Phase::HalfDone | Phase::Broken) {
        let client = workload.identity.as_ref().map(|acts| acts.client.to_string());
        let points = |have: &str| client.as_deref().is_some_and(|c| c.eq_ignore_ascii_case(have));
        let bare = templates.iter().any(|t| t.is_bare());
        let lacks = [
            (federated, "no federated credential of its identity trusts its account"),
            (annotated.is_some_and(points), "its account does not name its client id"),
            (estate.workload_identity, "the cluster has no workload identity webhook"),
            (!bare, "a pod template of it carries neither label"),
        ];
        let lacks = lacks.into_iter().filter(|(has, _)| !has);
        workload.lacks = lacks.map(|(_, what)| what.to_owned()).collect();
    }
    if !workload.phase.is_switched() {
        let acts = workload.identity.as_ref();
        reasons.extend(chained::reason(estate, acts, &group.templates, decided));
        reasons.extend(surroundings::surroundings(&Place {
            estate,
            given,
            key,
            group,
            decided,
            acts,
        }));
        reasons.extend(reasons::node_identity(estate, given, group, &workload.reaches));
        if let Some(acts) = acts.filter(|_| !federated) {
            let used = places.entry(acts.id.clone()).or_insert(credentials.len());
            if *used >= MOST_CREDENTIALS {
                reasons.push(reasons::no_room(acts, MOST_CREDENTIALS));
            } else {
                // What cannot move takes no place from what can.
                *used += usize::from(verdict::may_move(&reasons, &workload.kept_by));
            }
        }
    }
    reasons.sort();
    reasons.dedup();
    workload.verdict = verdict::of(&reasons);
    workload.reasons = reasons;
    workload.next = next(&workload, given);
    let off = estate.issuer.is_none() || !estate.workload_identity;
    if off && workload.reasons.is_empty() && !workload.phase.is_switched() {
        let what = "enable the OIDC issuer and the webhook of the cluster, which cannot be undone";
        workload.next.insert(0, what.to_owned());
    }
    workload
}

/// The bindings that name an identity. Where a workload was switched without a backup, by hand or by
/// another tool, one of them answered for it.
fn of_identity(estate: &Estate, namespace: &Namespace, id: &ArmId) -> Vec<String> {
    let confined = matching::namespaced(estate);
    let of = |binding: &&Binding| {
        let Some(identity) = matching::identity_of(estate, binding) else { return false };
        let within = !(confined || identity.namespaced) || binding.namespace == *namespace;
        within && matching::resource_id(identity).as_ref() == Some(id)
    };
    let bindings = estate.bindings.iter().filter(of);
    bindings.map(|binding| format!("{}/{}", binding.namespace, binding.name)).collect()
}

fn next(workload: &Workload, given: Given<'_>) -> Vec<String> {
    if !workload.reasons.is_empty() {
        return workload.reasons.iter().map(|reason| reason.decide.clone()).collect();
    }
    let name = workload.name();
    let sidecar = given
        .workloads
        .iter()
        .any(|w| w.proxy && (&w.namespace, &w.account) == (&workload.namespace, &workload.account));
    let switch = format!(
        "switch {} in one roll (label added, aadpodidbinding dropped{})",
        workload.templates.iter().cloned().collect::<Vec<_>>().join(", "),
        if sidecar && !workload.proxied {
            ", migration sidecar added: its init container is privileged"
        } else {
            ""
        }
    );
    let (federate, prove) = ("federate the identity".to_owned(), "prove a token".to_owned());
    if workload.left_alone {
        let again = format!("widentity migrate apply --only {name}");
        return vec![if workload.phase == Phase::Switched {
            format!(
                "finish putting it back: widentity migrate rollback {name}; or move it after all: \
                 {again}"
            )
        } else {
            format!(
                "change its pod template, its image for one, and `apply` tries again; or as it is: \
                 {again}"
            )
        }];
    }
    match workload.phase {
        Phase::Discovered | Phase::RolledBack => {
            vec![federate, prove, "annotate the account".to_owned(), switch]
        }
        Phase::IdentityFederated => vec![prove, "annotate the account".to_owned(), switch],
        Phase::TokenProved => vec![prove, switch],
        Phase::HalfDone | Phase::Masked => {
            let lacks = !workload.lacks.is_empty();
            let complete = [federate, "annotate the account".to_owned()].into_iter();
            let mut steps: Vec<String> = complete.filter(|_| lacks).collect();
            steps.extend([prove, "drop aadpodidbinding in one roll".to_owned()]);
            steps
        }
        Phase::Broken => vec![federate, prove, "complete the account".to_owned()],
        Phase::Switched => vec![
            "wait for its pods and prove them: widentity migrate apply".to_owned(),
            format!("or put it back: widentity migrate rollback {name}"),
        ],
        Phase::Soaking => {
            let soak = match workload.soaked_at {
                Some(until) if until <= given.now => None,
                Some(until) => Some(format!("soak until {until:.0}")),
                None => Some(format!("soak for {:#}", given.soak)),
            };
            let run = (!workload.unrun.is_empty()).then(|| {
                let what = workload.unrun.join(", ");
                format!("let {what} run once, or waive it: widentity migrate finish --allow-unrun")
            });
            soak.into_iter().chain(run).collect()
        }
        Phase::Soaked => {
            let bindings: Vec<&str> = workload.bindings.iter().map(String::as_str).collect();
            let bindings = bindings.join(", ");
            vec![format!("remove its bindings ({bindings}): widentity migrate finish")]
        }
        Phase::BindingRemoved => {
            vec![format!("remove the AzureIdentity of {name}: widentity migrate finish")]
        }
        Phase::Cleaned => Vec::new(),
    }
}
