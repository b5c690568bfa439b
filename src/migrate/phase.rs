//! Where a workload stands, read off the world.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::matching;
use crate::model::{
    ArmId, Audience, ClientId, Issuer, Subject,
    pod_identity::{Backup, Binding, Estate, EstatePod, EstateTemplate},
    snapshot::ObservedCredential,
};

/// The way of a workload, in order; what stands beside it comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It answers through Pod Identity.
    Discovered,
    /// Its managed identity trusts its service account.
    IdentityFederated,
    /// Its service account is annotated, which happens only after a token was proved.
    TokenProved,
    /// Its pod templates are switched; not every live pod is proved.
    Switched,
    /// Every live pod is proved; the soak is not over.
    Soaking,
    /// The soak is over: `finish` may remove the binding.
    Soaked,
    /// Its binding is gone, its `AzureIdentity` is not.
    BindingRemoved,
    /// Nothing of Pod Identity is left for it.
    Cleaned,
    /// It carries both labels: what works may work through Pod Identity, success proves nothing.
    Masked,
    /// It carries both labels and its workload identity is incomplete: it answers through Pod
    /// Identity only.
    HalfDone,
    /// It carries only the new label and its workload identity is incomplete: nothing answers.
    Broken,
    /// It was put back.
    RolledBack,
}

impl Phase {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discovered => "discovered",
            Self::IdentityFederated => "identity-federated",
            Self::TokenProved => "token-proved",
            Self::Switched => "switched",
            Self::Soaking => "soaking",
            Self::Soaked => "soaked",
            Self::BindingRemoved => "binding-removed",
            Self::Cleaned => "cleaned",
            Self::Masked => "masked",
            Self::HalfDone => "half-done",
            Self::Broken => "broken",
            Self::RolledBack => "rolled-back",
        }
    }

    /// Whether it has the new label and its workload identity is incomplete.
    pub fn is_incomplete(self) -> bool {
        matches!(self, Self::Broken | Self::HalfDone)
    }

    /// Whether the pod templates are switched.
    pub fn is_switched(self) -> bool {
        matches!(
            self,
            Self::Switched | Self::Soaking | Self::Soaked | Self::BindingRemoved | Self::Cleaned
        )
    }
}

/// What the phase is judged by.
pub(super) struct Facts<'a> {
    pub(super) estate: &'a Estate,
    pub(super) subject: Subject,
    pub(super) audience: &'a Audience,
    /// The managed identity's client id and credentials, where they were seen.
    pub(super) identity: Option<(ClientId, &'a [ObservedCredential])>,
    /// The client id that the account is annotated with.
    pub(super) annotated: Option<&'a str>,
    /// The workload's writable templates.
    pub(super) templates: Vec<&'a EstateTemplate>,
    /// Live pods of the account that these templates stamp, and labelled ones without a template.
    pub(super) pods: Vec<&'a EstatePod>,
    pub(super) backup: Option<&'a Backup>,
    /// The bindings that answer, or answered, for it: `namespace/name`.
    pub(super) bindings: &'a BTreeSet<String>,
    /// The managed identity that it answered as.
    pub(super) answered_as: Option<&'a ArmId>,
    pub(super) now: Timestamp,
    pub(super) soak: SignedDuration,
    /// Whether a template that has not run since its switch may have soaked.
    pub(super) unrun: bool,
}

/// A phase, when the soak ends, and what the phase is made of.
pub(super) struct Standing {
    pub(super) phase: Phase,
    pub(super) until: Option<Timestamp>,
    pub(super) proved: usize,
    pub(super) unrun: Vec<String>,
}

/// Whether a credential trusts this account of this cluster.
pub fn is_federated(
    credentials: &[ObservedCredential],
    issuer: Option<&Issuer>,
    subject: &Subject,
    audience: &Audience,
) -> bool {
    credentials.iter().any(|credential| {
        Some(&credential.issuer) == issuer
            && credential.subject.as_ref() == Some(subject)
            && credential.audiences.contains(audience)
    })
}

/// Whether a pod carries the identity's client id and no Pod Identity can answer it.
pub fn is_proved(pod: &EstatePod, client: ClientId) -> bool {
    let client = client.to_string();
    pod.ready
        && pod.selector().is_none()
        && pod.client_ids.len() == 1
        && pod.client_ids.iter().all(|have| have.eq_ignore_ascii_case(&client))
}

pub(super) fn stand(facts: &Facts<'_>) -> Standing {
    let Facts { estate, subject, audience, identity, annotated, templates, pods, .. } = facts;
    let at = |phase| Standing { phase, until: None, proved: 0, unrun: Vec::new() };
    let federated = identity.is_some_and(|(_, credentials)| {
        is_federated(credentials, estate.issuer.as_ref(), subject, audience)
    });
    let pointed = match (identity, annotated) {
        (Some((client, _)), Some(have)) => have.eq_ignore_ascii_case(&client.to_string()),
        _ => false,
    };
    let whole = federated && pointed && estate.workload_identity;
    let switched = |t: &&&EstateTemplate| t.labelled() && t.selector().is_none();
    let count = templates.iter().filter(switched).count();
    // What was put back stays so, whoever else uses the account by the new path.
    let is_back = |backup: &&Backup| {
        let kept = |t: &&EstateTemplate| backup.templates.iter().any(|kept| kept.key == t.key());
        let mut kept = templates.iter().filter(|t| kept(t)).peekable();
        backup.rolled_back && kept.peek().is_some() && kept.all(|t| !t.labelled())
    };
    if facts.backup.is_some_and(|backup| is_back(&backup)) {
        return at(Phase::RolledBack);
    }
    // It was switched, and somebody wrote a template over it that knows neither path.
    let went = facts.backup.is_some_and(|backup| !backup.rolled_back && backup.switched());
    if went && templates.iter().any(|t| t.is_bare()) {
        return at(Phase::Broken);
    }
    if count == 0 {
        if templates.iter().any(|t| t.labelled()) {
            let lacks = !whole && estate.is_seen();
            return at(if lacks { Phase::HalfDone } else { Phase::Masked });
        }
        if facts.backup.is_some_and(|backup| backup.rolled_back) {
            return at(Phase::RolledBack);
        }
        return at(match (federated, pointed) {
            (true, true) => Phase::TokenProved,
            (true, false) => Phase::IdentityFederated,
            (false, _) => Phase::Discovered,
        });
    }
    if !whole {
        return at(if estate.is_seen() { Phase::Broken } else { Phase::Switched });
    }
    let client = identity.map(|(client, _)| client);
    let sidecar = |pod: &EstatePod| {
        let asking = templates.iter().any(|t| t.proxied() && t.stamps(pod));
        pod.proxied || !asking
    };
    let proves = |pod: &&&EstatePod| client.is_some_and(|c| is_proved(pod, c)) && sidecar(pod);
    let proved = pods.iter().filter(proves).count();
    let at = |phase| Standing { phase, until: None, proved, unrun: Vec::new() };
    let finished = templates.iter().all(|t| t.complete);
    if count < templates.len() {
        return at(Phase::Switched);
    }
    // What answered is gone: it has arrived, whatever becomes of its pods.
    let unrun = templates.iter().filter(|t| !has_run(t, facts, &proves)).map(|t| t.key());
    let unrun: Vec<String> = unrun.collect();
    if let Some(phase) = removed(facts).filter(|_| estate.is_seen()) {
        // What has run and is scaled to zero now is not told from what never ran: the backup tells.
        let noted = facts.backup.map(|backup| backup.unrun.as_slice()).unwrap_or_default();
        let unrun = unrun.into_iter().filter(|key| noted.contains(key)).collect();
        return Standing { unrun, ..at(phase) };
    }
    if proved < pods.len() || !finished {
        return at(Phase::Switched);
    }
    let until = proved_since(facts, &proves).and_then(|since| since.checked_add(facts.soak).ok());
    let soaked = facts.soak.is_zero() || until.is_some_and(|until| until <= facts.now);
    let over = soaked && (facts.unrun || unrun.is_empty());
    Standing { phase: if over { Phase::Soaked } else { Phase::Soaking }, until, proved, unrun }
}

/// Since when every template has had a proved pod. `apply` notes when it proved them, and pods that
/// take their places later do not begin the soak anew. Where it did not see them (Git brought them,
/// or it was interrupted), or somebody has switched again since, the oldest proved pods tell.
fn proved_since(facts: &Facts<'_>, proves: &impl Fn(&&&EstatePod) -> bool) -> Option<Timestamp> {
    let written = facts.templates.iter().filter_map(|t| t.written).max();
    let noted = facts.backup.and_then(|backup| backup.arrived);
    if let Some(noted) = noted.filter(|noted| written.is_none_or(|written| written <= *noted)) {
        return Some(noted);
    }
    let each = facts.templates.iter().map(|template| {
        let pods = facts.pods.iter().filter(|pod| template.stamps(pod) && proves(pod));
        template.written.max(pods.filter_map(|pod| pod.created).min())
    });
    each.max().flatten()
}

/// Whether any pod of a switched template has lived on the new path: one is proved, or a run that
/// began after the switch ended well. What is scaled to zero, suspended, or waits for its schedule
/// has shown nothing yet.
fn has_run(
    template: &EstateTemplate,
    facts: &Facts<'_>,
    proves: &impl Fn(&&&EstatePod) -> bool,
) -> bool {
    let after = |time: Option<Timestamp>| time >= template.written;
    let ended = |pod: &EstatePod| {
        let client = facts.identity.map(|(client, _)| client.to_string());
        let ours = pod.client_ids.iter().any(|have| client.as_ref() == Some(have));
        pod.succeeded && ours && pod.selector().is_none() && after(pod.created)
    };
    facts.pods.iter().any(|pod| template.stamps(pod) && proves(&pod))
        || (template.written.is_some() && template.ran.is_some() && after(template.ran))
        || facts.estate.pods.iter().any(|pod| ended(pod) && template.stamps(pod))
}

/// What is left of Pod Identity for a workload that is switched: none while a binding is there.
fn removed(facts: &Facts<'_>) -> Option<Phase> {
    let Facts { estate, bindings, .. } = facts;
    let there = |b: &Binding| bindings.contains(&format!("{}/{}", b.namespace, b.name));
    if estate.bindings.iter().any(there) {
        return None;
    }
    let id = match facts.backup {
        Some(backup) => ArmId::new(backup.identity.clone()),
        None => facts.answered_as?.clone(),
    };
    let named = estate.identities.iter().filter_map(matching::resource_id).any(|i| i == id);
    Some(if named { Phase::BindingRemoved } else { Phase::Cleaned })
}
