//! Putting a workload back: what stands in the way, what must come back, who else needs what is
//! taken away, and what is left behind on purpose.

use super::matching;
use crate::model::{
    ArmId, Subject,
    pod_identity::{
        AzureIdentityState, BINDING_LABEL, Backup, Estate, EstatePod, EstateTemplate, Field,
        Install, TemplateBackup,
    },
    snapshot::{ObservedTemplate, Strategy, TemplateKind},
};

/// What keeps Pod Identity from answering the workload again, so that it must not be put back.
/// The old path is gone where its definitions are, where nobody serves it, or where the add-on
/// dropped the identity. `served`: somebody knows that NMI runs, although none was found.
pub fn obstacles(estate: &Estate, backup: &Backup, served: bool) -> Vec<String> {
    if !estate.installed {
        return vec![
            "Pod Identity is not installed in the cluster any more: nothing would answer its pods"
                .to_owned(),
        ];
    }
    // What could not be read is not taken for gone.
    let seen = estate.unseen.is_empty();
    let mut found = if seen { unanswered(estate, backup) } else { Vec::new() };
    if seen && !served && !matching::answers(estate) {
        found.push(match estate.installs.iter().find(|install| install.component == "nmi") {
            Some(nmi) => format!(
                "no pod of NMI is ready ({} {}/{}): nothing would answer its pods; where one does \
                 all the same: --nmi-runs",
                nmi.kind, nmi.namespace, nmi.name
            ),
            None => "no NMI was found in the cluster: nothing would answer its pods; where it \
                     runs under another name: --nmi-runs"
                .to_owned(),
        });
    }
    let mic = |install: &&Install| install.component == "mic" && !install.managed && install.stuck;
    if let Some(mic) = estate.installs.iter().find(mic).filter(|_| seen && !served) {
        found.push(format!(
            "MIC is scaled to zero ({} {}/{}): nobody would assign the identity to its pods; where \
             somebody does: --nmi-runs",
            mic.kind, mic.namespace, mic.name
        ));
    }
    for entry in &backup.add_on {
        if add_on_has(estate, entry) {
            continue;
        }
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let id = entry["identity"]["resourceId"].as_str().unwrap_or_default();
        let selector = entry["bindingSelector"].as_str().filter(|s| !s.is_empty());
        let selector = selector.map(|s| format!(" --binding-selector {s}")).unwrap_or_default();
        let cluster = estate.id.as_ref();
        let group = cluster.and_then(ArmId::resource_group).unwrap_or("GROUP");
        let cluster = cluster.map_or("CLUSTER", ArmId::name);
        found.push(format!(
            "the AKS add-on has no identity {namespace}/{name} any more: az aks pod-identity add \
             --resource-group {group} --cluster-name {cluster} --namespace {namespace} \
             --name {name} --identity-resource-id {id}{selector}"
        ));
    }
    found
}

/// Whether the add-on has this entry of a backup.
fn add_on_has(estate: &Estate, entry: &serde_json::Value) -> bool {
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    let name = format!("{}/{}", text("namespace"), text("name"));
    estate.add_on.iter().flatten().any(|known| *known == name)
}

/// A template that is put back, as it is and as it was.
pub type Pair<'a> = (&'a EstateTemplate, &'a TemplateBackup);

/// The templates that have something to give back, or all that stands in the way of any of them: a
/// workload goes back whole or not at all. One that is gone has nothing to give back, and neither
/// has one that was made again without our label.
pub fn templates<'a>(estate: &'a Estate, backup: &'a Backup) -> Result<Vec<Pair<'a>>, Vec<String>> {
    let (mut pairs, mut hindrances) = (Vec::new(), Vec::new());
    for kept in &backup.templates {
        let mut here = estate.templates.iter().filter(|t| t.namespace == backup.namespace);
        match here.find(|template| template.key() == kept.key) {
            Some(template) if template.uid == kept.uid => {
                hindrances.extend(foreign(template, kept));
                pairs.push((template, kept));
            }
            Some(template) if template.labelled() => hindrances.push(format!(
                "{} was made again with the new label: change its manifest",
                kept.key
            )),
            Some(_) => {}
            // What was not seen may be there.
            None if !estate.unseen.is_empty() => {
                hindrances.push(format!("{} was not seen: {}", kept.key, estate.unseen[0]));
            }
            None => {}
        }
    }
    if hindrances.is_empty() { Ok(pairs) } else { Err(hindrances) }
}

/// Fields of a template whose value is neither ours nor the one before: they are somebody else's.
fn foreign(template: &EstateTemplate, kept: &TemplateBackup) -> Vec<String> {
    let mut found = Vec::new();
    let parts = [
        ("label", &template.labels, &kept.labels),
        ("annotation", &template.annotations, &kept.annotations),
    ];
    for (what, have, fields) in parts {
        for (key, field) in fields {
            let have = have.get(key);
            let ours = template.own.contains(key);
            if have != field.after.as_ref() && have != field.before.as_ref() && !ours {
                let have = have.map_or("not set", String::as_str);
                found.push(format!("{}: {what} {key} is {have} now", kept.key));
            }
        }
    }
    found
}

/// What is still to come of a template that was put back.
#[derive(Debug, Clone, PartialEq)]
pub struct Late {
    /// What, with the object.
    pub what: String,
    /// A pod of the failed roll that its controller will not replace by itself.
    pub stuck: Option<EstatePod>,
}

/// Whether the pods of a template that was put back are all back; none where they are, or where
/// nobody replaces them by itself.
///
/// A `StatefulSet` never replaces a pod that is not ready once its template has changed, not even
/// back (Kubernetes documentation, "`StatefulSets`: Forced rollback"): such a pod of the failed roll
/// must be deleted, the lowest first, as they are made in this order.
pub fn late(
    templates: &[ObservedTemplate],
    pods: &[EstatePod],
    kept: &TemplateBackup,
) -> Option<Late> {
    let template =
        templates.iter().find(|template| template.key() == kept.key && template.uid == kept.uid)?;
    let partition = matches!(template.strategy, Strategy::Partition(_));
    if !template.strategy.rolls_by_itself() && !partition {
        return None;
    }
    let progress = &template.progress;
    let key = &kept.key;
    if progress.observed_generation < progress.generation {
        let what = format!("{key}: its controller has not seen it yet");
        return Some(Late { what, stuck: None });
    }
    let made = |pod: &&EstatePod| {
        let owner = pod.controller.as_deref().and_then(|owner| owner.split_once('/'));
        owner.is_some_and(|owner| template.kind.stamps(&template.name, owner))
    };
    let ours = pods.iter().filter(made).filter(|pod| kept.gave(&pod.labels));
    let ours: Vec<&EstatePod> = ours.filter(|pod| !pod.gone || pod.ending).collect();
    let ordinal = |pod: &EstatePod| {
        let number = pod.name.rsplit_once('-').and_then(|(_, number)| number.parse::<u64>().ok());
        (number.unwrap_or(u64::MAX), pod.name.clone())
    };
    let stuck = ours
        .iter()
        .filter(|pod| template.kind == TemplateKind::StatefulSet && !pod.ready && !pod.ending)
        .min_by_key(|pod| ordinal(pod));
    if let Some(first) = stuck.or(ours.first()) {
        let what = format!("{key}: pod {} of the switched template is still there", first.name);
        return Some(Late { what, stuck: stuck.map(|pod| (*pod).clone()) });
    }
    // With a partition some pods may be of another revision, as they were before.
    let complete =
        if partition { progress.available >= progress.desired } else { progress.complete() };
    (!complete).then(|| Late {
        what: format!(
            "{key}: {} of {} pods are back, {} available",
            progress.updated.min(progress.desired),
            progress.desired,
            progress.available
        ),
        stuck: None,
    })
}

/// Whoever else gets the client id through the account's annotations: templates with the label
/// that are not among those put back, and pods that were injected and are not replaced. Empty where
/// nothing would be taken away.
pub fn needed(
    (templates, pods): (&[ObservedTemplate], &[EstatePod]),
    estate: &Estate,
    backup: &Backup,
    back: &[Pair<'_>],
) -> Vec<String> {
    let changes = |field: &Field| field.before != field.after;
    if !backup.annotations.values().any(changes) {
        return Vec::new();
    }
    let is_back = |key: &str| back.iter().any(|(_, kept)| kept.key == key);
    let mut found: Vec<String> = templates
        .iter()
        .filter(|t| t.account == backup.account && t.labelled() && !is_back(&t.key()))
        .map(ObservedTemplate::key)
        .collect();
    // Jobs and ReplicaSets of nobody are no templates that may be written.
    let others = estate.templates.iter().filter(|t| {
        let same = t.namespace == backup.namespace && t.account == backup.account;
        same && !t.kind.writable() && t.kind != TemplateKind::Pod && t.labelled()
    });
    let ended = |t: &&EstateTemplate| t.kind == TemplateKind::Job && t.idle;
    found.extend(others.filter(|t| !ended(t)).map(EstateTemplate::key));
    let client = backup.client_id.to_lowercase();
    let uses = |pod: &&EstatePod| {
        let injected = pod.client_ids.iter().any(|id| id.to_lowercase() == client);
        !pod.gone && pod.account == backup.account && injected
    };
    let of = |pod: &EstatePod| match &pod.controller {
        Some(owner) => format!("pod {} of {owner}", pod.name),
        None => format!("pod {}", pod.name),
    };
    // Pods of templates that are named already add nothing.
    let known = |pod: &&EstatePod| {
        let owner = pod.controller.as_deref().and_then(|owner| owner.split_once('/'));
        templates
            .iter()
            .any(|t| found.contains(&t.key()) && owner.is_some_and(|o| t.kind.stamps(&t.name, o)))
    };
    let pods: Vec<String> = pods.iter().filter(uses).filter(|pod| !known(pod)).map(of).collect();
    found.extend(pods);
    found.sort();
    found.dedup();
    found
}

/// Whether an application was changed since its switch was tried and put back: by another pod
/// template, by one made again, or by one more.
pub fn changed(backup: &Backup, templates: &[&EstateTemplate]) -> bool {
    templates.iter().any(|template| {
        let known = backup.templates.iter().find(|kept| kept.key == template.key());
        // One that left Pod Identity in another way was not tried.
        let Some(known) = known else { return template.selector().is_some() };
        let noted = !known.shape.is_empty() && !template.shape.is_empty();
        known.uid != template.uid || (noted && known.shape != template.shape)
    })
}

/// The backup of a workload that goes back: `apply` leaves it alone from now on, until its pod
/// templates are other ones than they are now. One that fails without a fault of its own
/// (`blameless`) is tried again.
pub fn noted(backup: &Backup, estate: &Estate, blameless: bool) -> Backup {
    let mut noted = Backup { rolled_back: true, blameless, ..backup.clone() };
    for kept in &mut noted.templates {
        let mut here = estate.templates.iter().filter(|t| t.namespace == backup.namespace);
        if let Some(template) = here.find(|t| t.uid == kept.uid) {
            kept.shape.clone_from(&template.shape);
        }
    }
    noted
}

/// Whether a switch that an earlier run began is still under way: nothing was removed, nobody
/// changed the application since, and, where its controller has not given up by itself
/// (`gave_up`), a pod of before still lives. What has arrived has none.
pub fn is_under_way(estate: &Estate, backup: &Backup, gave_up: bool) -> bool {
    if backup.rolled_back || !backup.removed.is_empty() || !backup.add_on.is_empty() {
        return false;
    }
    let Ok(pairs) = templates(estate, backup) else { return false };
    let own: Vec<&EstateTemplate> = pairs.iter().map(|(template, _)| *template).collect();
    let old = |(template, kept): &Pair<'_>| {
        let mut live = estate.pods.iter().filter(|pod| !pod.gone && template.stamps(pod));
        live.any(|pod| kept.had(&pod.labels))
    };
    // Its controller ended all old pods first.
    let recreates = |(template, _): &Pair<'_>| template.strategy == Strategy::Recreate;
    let gone = backup.arrived.is_none() && pairs.iter().any(recreates);
    !changed(backup, &own) && (gave_up || gone || pairs.iter().any(old))
}

/// Federated credentials that trust the account and stay: they give nobody anything that the
/// service account's owner does not have, and the next attempt needs them.
pub fn left(estate: &Estate, backup: &Backup) -> Vec<(ArmId, String)> {
    let id = ArmId::new(backup.identity.clone());
    let subject = Subject::of(&backup.namespace, &backup.account);
    let Some(AzureIdentityState::Present(_, credentials)) = estate.azure.get(&id) else {
        return Vec::new();
    };
    let trusts = credentials.iter().filter(|credential| {
        Some(&credential.issuer) == estate.issuer.as_ref()
            && credential.subject.as_ref() == Some(&subject)
    });
    trusts.map(|credential| (id.clone(), credential.name.clone())).collect()
}

/// Label values that the workload gets back and that no binding selects.
fn unanswered(estate: &Estate, backup: &Backup) -> Vec<String> {
    let mut found = Vec::new();
    for template in &backup.templates {
        // What is gone, or was made again, gets no label back; what nothing answered before misses
        // nothing.
        let same = |t: &EstateTemplate| {
            t.namespace == backup.namespace && t.key() == template.key && t.uid == template.uid
        };
        if template.unanswered || !estate.templates.iter().any(same) {
            continue;
        }
        let Some(field) = template.labels.get(BINDING_LABEL) else {
            continue;
        };
        let Some(selector) = &field.before else { continue };
        let made = backup.removed.iter().any(|object| object["spec"]["selector"] == **selector);
        let made = made || backup.removed.iter().any(|o| o["spec"]["Selector"] == **selector);
        if made || !matching::reached(estate, &backup.namespace, selector).is_empty() {
            continue;
        }
        let no_binding = format!("no binding selects aadpodidbinding={selector}");
        match backup.add_on.iter().map(|entry| add_on_has(estate, entry)).min() {
            None => found.push(no_binding),
            // The entry is added again first: that is said with its command.
            Some(false) => {}
            Some(true) => {
                found.push(format!("{no_binding} yet: AKS makes it while it updates the cluster"));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}
