//! Why a workload is not ready, as far as it lies in the cluster, its account and its pod templates:
//! one function a reason.

use std::collections::BTreeSet;

use super::{
    environment,
    groups::{Group, Key},
    matching,
    survey::{Acts, Given, account_of},
    verdict::{self, Reason},
};
use crate::model::{
    ArmId,
    desired::{DesiredWorkload, ManagedBy, PodSelection},
    keeper,
    names::CLIENT_ID_ANNOTATION,
    pod_identity::{Estate, EstatePod, EstateTemplate},
    snapshot::{Strategy, TemplateKind},
};

/// The code for what another tool keeps.
pub(super) const KEPT_BY: &str = "kept-by";

/// What the reasons are found in.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) estate: &'a Estate,
    pub(super) given: Given<'a>,
    pub(super) key: Key<'a>,
    pub(super) group: &'a Group<'a>,
    /// What the file says of the workload.
    pub(super) decided: Option<&'a DesiredWorkload>,
    /// The identity it will act as, where that is decided and it exists.
    pub(super) acts: Option<&'a Acts>,
}

/// Every reason that lies in the cluster, the account and the templates.
pub(super) fn surroundings(place: &Place<'_>) -> Vec<Reason> {
    let each: [fn(&Place<'_>) -> Vec<Reason>; 17] = [
        system_namespace,
        cluster_off,
        cluster_busy,
        default_account,
        shared_account,
        acts_as,
        kept,
        sidecar,
        selector_holds,
        virtual_node,
        no_overlap,
        not_ready,
        lost_label,
        on_node,
        secret_class,
        keda,
        environment::reasons,
    ];
    let mut reasons: Vec<Reason> = each.iter().flat_map(|find| find(place)).collect();
    reasons.extend(cannot_be_changed(place));
    reasons
}

impl<'a> Place<'a> {
    pub(super) fn writable(&self) -> impl Iterator<Item = &'a EstateTemplate> + use<'a> {
        self.group.templates.iter().copied().filter(|t| t.writable())
    }

    /// Whether the file names a template: whoever does has looked at it.
    fn is_named(&self, template: &EstateTemplate) -> bool {
        match self.decided.map(|decided| &decided.pods) {
            Some(PodSelection::Named(named)) => named.contains(&template.key()),
            Some(PodSelection::All) | None => false,
        }
    }

    fn all_named(&self) -> bool {
        self.writable().next().is_some() && self.writable().all(|t| self.is_named(t))
    }

    /// What to write to name every template.
    fn naming(&self) -> String {
        let keys: Vec<String> = self.writable().map(|t| format!("\"{}\"", t.key())).collect();
        format!("pods = [{}]", keys.join(", "))
    }

    /// A decision for each template, taken by naming it.
    fn unless_named(
        &self,
        code: &str,
        what: impl Fn(&EstateTemplate) -> Option<String>,
    ) -> Vec<Reason> {
        let open = self.writable().filter(|t| !self.is_named(t));
        open.filter_map(|t| Some(Reason::decision(code, what(t)?, self.naming()))).collect()
    }

    fn live(&self, template: &'a EstateTemplate) -> impl Iterator<Item = &'a EstatePod> + use<'a> {
        self.group.pods.iter().copied().filter(move |pod| template.stamps(pod))
    }
}

fn system_namespace(place: &Place<'_>) -> Vec<Reason> {
    let (namespace, _) = place.key;
    let reason = || {
        Reason::obstacle(
            "system-namespace",
            format!("pods of namespace {namespace} are never mutated by the webhook on AKS"),
            "move the workload to a namespace of its own",
        )
    };
    namespace.is_kept_from_webhooks().then(reason).into_iter().collect()
}

fn cluster_off(place: &Place<'_>) -> Vec<Reason> {
    let estate = place.estate;
    let on = estate.issuer.is_some() && estate.workload_identity;
    if on || place.given.may_enable || !estate.is_seen() {
        return Vec::new();
    }
    let what = if estate.issuer.is_none() { "OIDC issuer" } else { "workload identity add-on" };
    vec![Reason::decision(
        "cluster-not-ready",
        format!("the {what} of cluster {} is off; enabling cannot be undone", estate.cluster),
        format!("[clusters.{}] enable = [\"oidc-issuer\", \"workload-identity\"]", estate.cluster),
    )]
}

fn cluster_busy(place: &Place<'_>) -> Vec<Reason> {
    let cluster = &place.estate.cluster;
    let reason = |state: &String| {
        Reason::obstacle(
            "cluster-busy",
            format!("an operation on cluster {cluster} is under way ({state})"),
            "run again when it has ended",
        )
    };
    place.estate.busy.iter().map(reason).collect()
}

fn default_account(place: &Place<'_>) -> Vec<Reason> {
    let (namespace, account) = place.key;
    if account.as_str() != "default" || place.all_named() || place.writable().next().is_none() {
        return Vec::new();
    }
    let message = format!(
        "it runs as the default account: every labelled pod of {namespace} gets the identity"
    );
    vec![Reason::decision("default-account", message, place.naming())]
}

fn shared_account(place: &Place<'_>) -> Vec<Reason> {
    let (_, account) = place.key;
    let nothing = place.writable().next().is_none();
    if account.as_str() == "default" || place.all_named() || nothing {
        return Vec::new();
    }
    let known = &place.group.templates;
    let others: Vec<String> = of_account(place)
        .filter(|t| !(t.kind == TemplateKind::Job && t.idle))
        .filter(|t| !known.iter().any(|known| known.key() == t.key()))
        .map(EstateTemplate::key)
        .collect();
    let selectors: BTreeSet<Option<&str>> = known.iter().map(|t| t.selector()).collect();
    let message = if !others.is_empty() {
        format!("{} use the account without Pod Identity", others.join(", "))
    } else if selectors.len() > 1 {
        "its templates have different selectors".to_owned()
    } else {
        return Vec::new();
    };
    vec![Reason::decision("shared-account", message, place.naming())]
}

fn of_account<'a>(place: &Place<'a>) -> impl Iterator<Item = &'a EstateTemplate> + use<'a> {
    let key = place.key;
    place.estate.templates.iter().filter(move |t| (&t.namespace, &t.account) == key)
}

/// An account acts as one identity: whoever uses it by the new path, or reaches another identity by
/// the old one, would be given this one.
fn acts_as(place: &Place<'_>) -> Vec<Reason> {
    let Some(acts) = place.acts else { return Vec::new() };
    let (namespace, account) = place.key;
    let own = format!("a service account of its own, beside {account}");
    let mut reasons = Vec::new();
    let annotated = account_of(place.estate, place.key).and_then(|a| a.client_id.as_deref());
    let client = acts.client.to_string();
    let other = annotated.map(str::trim).filter(|have| !have.is_empty());
    if let Some(other) = other.filter(|have| !have.eq_ignore_ascii_case(&client)) {
        // Its own templates are given what the account is to name: only others would miss this one.
        let is_own = |t: &EstateTemplate| place.writable().any(|own| own.key() == t.key());
        let users: Vec<String> = of_account(place)
            .filter(|t| t.labelled() && !is_own(t))
            .map(EstateTemplate::key)
            .collect();
        let name = acts.id.name();
        if !users.is_empty() {
            let users = users.join(", ");
            let message = format!(
                "its account acts as client {other} for {users}, Pod Identity answers as {name}"
            );
            reasons.push(Reason::decision("account-acts-as", message, own.clone()));
        } else if place.decided.is_none() {
            reasons.push(Reason::decision(
                "account-acts-as",
                format!(
                    "its account is annotated with client {other}, Pod Identity answers as {name} \
                     ({client})"
                ),
                format!(
                    "identity = \"{}\", if that is what it is to be: `widentity migrate apply` then \
                     corrects annotation {CLIENT_ID_ANNOTATION} from {other} to {client}",
                    acts.id
                ),
            ));
        }
    }
    for template in place.writable() {
        let Some(selector) = template.selector() else { continue };
        let reached = matching::reached(place.estate, namespace, selector);
        let ids: BTreeSet<_> =
            reached.iter().filter_map(|r| r.identity.and_then(matching::resource_id)).collect();
        if !ids.is_empty() && !ids.contains(&acts.id) {
            let names: Vec<&str> = ids.iter().map(ArmId::name).collect();
            let message = format!(
                "{} answers as {}, and an account acts as one identity",
                template.key(),
                names.join(", ")
            );
            reasons.push(Reason::decision("account-acts-as", message, own.clone()));
        }
    }
    reasons
}

fn kept(place: &Place<'_>) -> Vec<Reason> {
    let (_, account) = place.key;
    if place.decided.is_some_and(|d| d.adopt || d.managed_by == ManagedBy::Widentity) {
        return Vec::new();
    }
    let keepers = place.group.templates.iter().filter_map(|t| Some((t.key(), t.kept_by.clone()?)));
    let of_account = account_of(place.estate, place.key).and_then(|a| a.kept_by.clone());
    let keepers = keepers.chain(of_account.map(|by| (format!("serviceaccount/{account}"), by)));
    let reason = |(what, by): (String, String)| {
        let decide = if keeper::puts_back(&by) {
            "`widentity migrate apply` federates its identity, then `widentity migrate render DIR` \
             changes its manifests; or managed_by = \"widentity\""
        } else {
            "adopt = true, or change it there"
        };
        let message = format!("{what} is kept by {by}, which puts the old label back");
        Reason::decision(KEPT_BY, message, decide)
    };
    keepers.map(reason).collect()
}

fn sidecar(place: &Place<'_>) -> Vec<Reason> {
    let wanted = place.decided.is_some_and(|decided| decided.proxy);
    let templates = place.group.templates.iter();
    templates.filter_map(|t| verdict::sidecar_obstacle(place.estate, t, wanted)).collect()
}

fn selector_holds(place: &Place<'_>) -> Vec<Reason> {
    let held = place.group.templates.iter().filter(|t| t.selector_holds);
    let reason = |t: &&EstateTemplate| {
        Reason::obstacle(
            "selector-holds-label",
            format!(
                "{} selects its pods by aadpodidbinding, and a selector cannot be changed",
                t.key()
            ),
            "make it again with another selector",
        )
    };
    held.map(reason).collect()
}

fn virtual_node(place: &Place<'_>) -> Vec<Reason> {
    let there = |t: &&&EstateTemplate| t.virtual_node || place.live(t).any(|pod| pod.virtual_node);
    let reason = |t: &&EstateTemplate| {
        Reason::obstacle(
            "virtual-node",
            format!("{} runs on a virtual node, which has no projected tokens", t.key()),
            "run it on a node pool",
        )
    };
    place.group.templates.iter().filter(there).map(reason).collect()
}

fn no_overlap(place: &Place<'_>) -> Vec<Reason> {
    place.unless_named("no-overlap", verdict::gap)
}

/// The controller of a `StatefulSet` replaces no pod before all others are ready: with one that is
/// not, the roll does not end, and going back would not either.
///
/// Source: Kubernetes documentation, "`StatefulSets`: Rolling Updates" and "Forced rollback".
fn not_ready(place: &Place<'_>) -> Vec<Reason> {
    let sets = place.writable().filter(|t| t.kind == TemplateKind::StatefulSet);
    let open = sets.filter(|t| t.strategy != Strategy::OnDelete && !place.is_named(t));
    let reason = |template: &EstateTemplate| {
        let templates = &place.group.templates;
        let template = templates.iter().find(|known| known.key() == template.key())?;
        let waiting: Vec<&str> =
            place.live(template).filter(|pod| !pod.ready).map(|pod| pod.name.as_str()).collect();
        (!waiting.is_empty()).then(|| {
            Reason::decision(
                "pods-not-ready",
                format!(
                    "{} of {} not ready, and a StatefulSet replaces no pod before the others are \
                     ready: its roll would not end",
                    waiting.join(", "),
                    template.key()
                ),
                format!("mend it first; or, if you end such pods by hand, {}", place.naming()),
            )
        })
    };
    open.filter_map(reason).collect()
}

/// Running pods may carry a label that their template has lost: a paused roll, a half-made edit.
fn lost_label(place: &Place<'_>) -> Vec<Reason> {
    let lost = |t: &EstateTemplate| {
        let templates = &place.group.templates;
        let template = templates.iter().find(|known| known.key() == t.key())?;
        let label = place.live(template).find_map(|pod| pod.selector())?;
        (t.selector().is_none() && !t.labelled()).then(|| {
            format!(
                "running pods of {} carry aadpodidbinding={label}, its template does not: its next \
                 pods have no identity",
                t.key()
            )
        })
    };
    place.unless_named("label-lost", lost)
}

/// Where Pod Identity does not stand between a pod and its node, a failed sign-in falls back to the
/// node's identities: the new pods succeed and prove nothing.
fn on_node(place: &Place<'_>) -> Vec<Reason> {
    let (namespace, _) = place.key;
    let how = |t: &EstateTemplate| {
        if t.host_network {
            Some("is on its node's network (hostNetwork)")
        } else if t.windows {
            Some("runs on Windows, where NMI does not run")
        } else if matching::excepted(place.estate, namespace, &t.labels) {
            Some("matches an AzurePodIdentityException")
        } else {
            None
        }
    };
    place.unless_named("falls-back-to-node", |t| {
        let how = how(t)?;
        Some(format!(
            "{} {how}: it lives on its node's identities, and would go on to if it cannot use \
             workload identity, until its binding goes",
            t.key()
        ))
    })
}

/// The driver asks Pod Identity on behalf of the pod, by the pod's label.
///
/// Source: Azure Key Vault provider for the Secrets Store CSI driver, "Pod Identity" mode.
fn secret_class(place: &Place<'_>) -> Vec<Reason> {
    let (namespace, _) = place.key;
    let uses = |name: &&String| {
        let classes = &place.estate.secret_classes;
        classes.iter().any(|class| class.namespace == *namespace && class.name == **name)
    };
    let reason = |template: &EstateTemplate| {
        let used: Vec<&str> =
            template.secret_classes.iter().filter(uses).map(String::as_str).collect();
        let client = place.acts.map_or("...".to_owned(), |acts| acts.client.to_string());
        (!used.is_empty()).then(|| {
            Reason::decision(
                "secret-provider-class",
                format!(
                    "{} mounts SecretProviderClass {}, which uses Pod Identity: without the label \
                     its pods cannot mount it",
                    template.key(),
                    used.join(", ")
                ),
                format!(
                    "federate first (`widentity apply --no-rollout`), then in it: usePodIdentity: \
                     \"false\", clientID: \"{client}\""
                ),
            )
        })
    };
    place.writable().filter_map(reason).collect()
}

/// KEDA's operator asks for the tokens of every trigger whose provider is Pod Identity.
///
/// Source: KEDA documentation, "Authentication: Azure Pod Identity".
fn keda(place: &Place<'_>) -> Vec<Reason> {
    let triggers = &place.estate.triggers;
    let Some(first) = triggers.first() else { return Vec::new() };
    let is_operator = |t: &EstateTemplate| {
        let labels = ["app", "app.kubernetes.io/name", "name"];
        let says = |key: &&str| t.labels.get(*key).is_some_and(|value| value == "keda-operator");
        t.name == "keda-operator" || labels.iter().any(says)
    };
    place.unless_named("keda-trigger", |t| {
        is_operator(t).then(|| {
            let trigger = first.trigger();
            let more = match triggers.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!(
                "{} asks for the tokens of {trigger}{more}, which end with its switch: set \
                 provider azure-workload at once",
                t.key()
            )
        })
    })
}

/// What nobody but its maker can change: reported where nothing of the workload can be.
fn cannot_be_changed(place: &Place<'_>) -> Option<Reason> {
    if place.writable().next().is_some() || !place.estate.is_seen() {
        return None;
    }
    let (templates, pods) = (&place.group.templates, &place.group.pods);
    let decide =
        "in its manifest: label azure.workload.identity/use: \"true\", without aadpodidbinding";
    let stamped = |pod: &EstatePod| templates.iter().any(|t| t.stamps(pod));
    let makers = pods.iter().filter(|pod| !stamped(pod)).map(|pod| maker(pod));
    let running = templates.iter().filter(|t| !t.idle);
    let (operated, fixed): (Vec<&EstateTemplate>, Vec<&EstateTemplate>) =
        running.copied().partition(|t| t.owned_by.is_some());
    let fixed: BTreeSet<String> = fixed.iter().map(|t| t.key()).chain(makers).collect();
    let operated: BTreeSet<String> = operated
        .iter()
        .map(|t| format!("{} of {}", t.key(), t.owned_by.as_deref().unwrap_or_default()))
        .collect();
    if fixed.is_empty() && operated.is_empty() {
        let ended: Vec<String> = templates.iter().map(|t| t.key()).collect();
        let message =
            format!("{} has ended: nothing runs that could be migrated", ended.join(", "));
        return Some(Reason::obstacle("ended", message, decide));
    }
    let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
    let fixed = (!fixed.is_empty())
        .then(|| format!("{} cannot be changed: whoever made it must make it again", list(fixed)));
    let operated = (!operated.is_empty())
        .then(|| format!("{}, which writes its template: set the labels there", list(operated)));
    let message: Vec<String> = fixed.into_iter().chain(operated).collect();
    Some(Reason::obstacle("must-be-recreated", message.join("; "), decide))
}

/// What made a pod, `kind/name`; a bare pod made itself.
pub(super) fn maker(pod: &EstatePod) -> String {
    pod.controller.clone().unwrap_or_else(|| format!("pod/{}", pod.name))
}
