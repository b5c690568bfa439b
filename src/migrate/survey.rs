//! The inventory: every workload that answers, or answered, through Pod Identity, with where it
//! stands, what may be done with it and what comes next.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    chained,
    groups::{self, Group, Key, backup_of},
    matching::{self, Reached},
    next, notes,
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
    pod_identity::{Binding, Estate, EstateAccount, EstatePod, EstateTemplate},
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
    /// The parts of the installation that are there: `mic`, `nmi`.
    #[serde(default)]
    pub components: BTreeSet<String>,
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
    /// What comes next once somebody has named it.
    #[serde(skip)]
    pub(super) steps: Vec<String>,
}

impl Workload {
    /// `namespace/account`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.account)
    }

    /// Takes it up again although it was put back, because somebody named it.
    pub fn take_up(&mut self) {
        self.left_alone = false;
        self.conclude();
    }

    /// Verdict and next steps, which follow from everything else.
    fn conclude(&mut self) {
        self.verdict = if !self.reasons.is_empty() {
            verdict::of(&self.reasons)
        } else if self.left_alone {
            Verdict::LeftAlone
        } else if self.phase.is_incomplete() {
            Verdict::ToMend
        } else if self.phase.is_switched() {
            Verdict::Switched
        } else {
            Verdict::Ready
        };
        self.next = if !self.reasons.is_empty() {
            self.reasons.iter().map(|reason| reason.decide.clone()).collect()
        } else if self.left_alone {
            vec![next::again(self)]
        } else {
            self.steps.clone()
        };
    }

    /// Whether it may be moved: it is ready, or nothing stands in its way but that Git keeps it.
    /// Then its identity is federated and proved, and what Git keeps waits for Git.
    pub fn may_move(&self) -> bool {
        verdict::may_move(&self.reasons, &self.kept_by)
    }
}

/// Finds every workload of the estate and says where it stands. Pure: equal arguments give equal
/// results.
pub fn survey(estate: &Estate, given: Given<'_>) -> Survey {
    let mut places = given.places.clone();
    let groups = groups::groups(estate);
    let each = groups.all.iter();
    let workloads: Vec<Workload> =
        each.map(|(key, group)| judge(estate, given, *key, group, &mut places)).collect();
    let found = estate.installed
        || estate.add_on.is_some()
        || !estate.installs.is_empty()
        || !estate.identities.is_empty()
        || !workloads.is_empty();
    Survey {
        cluster: estate.cluster.clone(),
        found,
        notes: notes::notes(estate, given, &workloads, &groups.left_out),
        workloads,
        components: estate.installs.iter().map(|install| install.component.clone()).collect(),
        unseen: estate.unseen.clone(),
        places,
    }
}

pub(super) fn account_of<'a>(
    estate: &'a Estate,
    (namespace, account): Key<'_>,
) -> Option<&'a EstateAccount> {
    estate.accounts.iter().find(|a| a.namespace == *namespace && a.name == *account)
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
        steps: Vec::new(),
    };
    let federated =
        phase::is_federated(credentials, estate.issuer.as_ref(), &subject, given.audience);
    let mut lacks = Vec::new();
    if workload.phase.is_incomplete() {
        let webhook = estate.workload_identity;
        lacks = next::lacks(&workload, federated, annotated, webhook, &templates);
        workload.lacks = lacks.iter().map(next::Lack::what).collect();
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
    workload.reasons = reasons;
    workload.steps = next::steps(&workload, &lacks, federated, given);
    let off = estate.issuer.is_none() || !estate.workload_identity;
    if off && !workload.phase.is_switched() {
        let what = "enable the OIDC issuer and the webhook of the cluster, which cannot be undone";
        workload.steps.insert(0, what.to_owned());
    }
    workload.conclude();
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
