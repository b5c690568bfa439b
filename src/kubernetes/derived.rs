//! What stamps live pods although it was not listed: Jobs, ReplicaSets without a Deployment, bare
//! pods. Clusters keep thousands of finished ReplicaSets and Jobs; the pods that live say enough.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    names::USE_LABEL,
    snapshot::{ObjectMeta, ObservedPod, ObservedTemplate, Progress, Strategy, TemplateKind},
};

/// One template for everything that stamps live pods of a namespace and is none of `templates`.
/// These are read only; they carry the account and the label, no managed fields and no environment.
pub fn recreated_by_owner(
    templates: &[ObservedTemplate],
    pods: &[ObservedPod],
) -> Vec<ObservedTemplate> {
    let known: BTreeSet<(TemplateKind, &str)> =
        templates.iter().map(|template| (template.kind, template.name.as_str())).collect();
    let mut derived: BTreeMap<(TemplateKind, String), ObservedTemplate> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.live()) {
        let Some((kind, name, owned_by)) = stamped_by(pod, &known) else { continue };
        derived
            .entry((kind, name.to_owned()))
            .or_insert_with(|| template(kind, name, owned_by, pod));
    }
    derived.into_values().collect()
}

/// What to show for a pod, or none where a listed template stamped it.
fn stamped_by<'a>(
    pod: &'a ObservedPod,
    known: &BTreeSet<(TemplateKind, &str)>,
) -> Option<(TemplateKind, &'a str, Option<String>)> {
    let Some((kind, name)) = &pod.controller else {
        return Some((TemplateKind::Pod, &pod.name, None));
    };
    let listed = |kind, name| known.contains(&(kind, name));
    match kind.as_str() {
        "ReplicaSet" => {
            // A Deployment or Rollout calls its ReplicaSets by the revision label of their pods; one
            // without that is nobody's.
            let revision = pod.revision.as_deref().unwrap_or_default();
            let stamped = !revision.is_empty()
                && name.strip_suffix(revision).is_some_and(|parent| parent.ends_with('-'));
            (!stamped).then_some((TemplateKind::ReplicaSet, name, None))
        }
        "Job" => {
            // A CronJob calls its Jobs by its own name and the minute they were due.
            let scheduled = name.rsplit_once('-').is_some_and(|(parent, minute)| {
                minute.bytes().all(|b| b.is_ascii_digit()) && listed(TemplateKind::CronJob, parent)
            });
            (!scheduled).then_some((TemplateKind::Job, name, None))
        }
        "StatefulSet" if listed(TemplateKind::StatefulSet, name) => None,
        "DaemonSet" if listed(TemplateKind::DaemonSet, name) => None,
        // A mirror of a static pod: it lives in a file on the node.
        "Node" => None,
        other => {
            Some((TemplateKind::Pod, &pod.name, Some(format!("{}/{name}", other.to_lowercase()))))
        }
    }
}

fn template(
    kind: TemplateKind,
    name: &str,
    owned_by: Option<String>,
    pod: &ObservedPod,
) -> ObservedTemplate {
    let label = pod.labelled.then(|| (USE_LABEL.to_owned(), "true".to_owned()));
    ObservedTemplate {
        kind,
        api_version: match kind {
            TemplateKind::Job => "batch/v1",
            TemplateKind::Pod => "v1",
            _ => "apps/v1",
        }
        .to_owned(),
        name: name.to_owned(),
        uid: if kind == TemplateKind::Pod { pod.uid.clone() } else { String::new() },
        meta: ObjectMeta::default(),
        owned_by,
        account: pod.account.clone(),
        labels: label.into_iter().collect(),
        annotations: BTreeMap::new(),
        literal_env: Vec::new(),
        strategy: Strategy::NextRun,
        progress: Progress::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AccountName, snapshot::Injected};

    fn pod(name: &str, controller: Option<(&str, &str)>, revision: Option<&str>) -> ObservedPod {
        ObservedPod {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            account: AccountName::from("api"),
            controller: controller.map(|(kind, name)| (kind.to_owned(), name.to_owned())),
            revision: revision.map(str::to_owned),
            labelled: name == "bare",
            phase: "Running".to_owned(),
            ready: true,
            deleting: false,
            created: None,
            injected: Injected::default(),
        }
    }

    #[test]
    fn only_what_no_listed_template_stamped_is_derived() {
        let listed = |kind, name: &str| template(kind, name, None, &pod("x", None, None));
        let templates =
            [listed(TemplateKind::CronJob, "nightly"), listed(TemplateKind::StatefulSet, "pg")];
        let mut finished = pod("done", Some(("Job", "old")), None);
        finished.phase = "Succeeded".to_owned();
        let pods = [
            pod("bare", None, None),
            pod("api-6d4-x", Some(("ReplicaSet", "api-6d4")), Some("6d4")),
            pod("rs-a", Some(("ReplicaSet", "rs")), None),
            pod("rs-b", Some(("ReplicaSet", "rs")), None),
            pod("nightly-27000000-x", Some(("Job", "nightly-27000000")), None),
            pod("nightly-manual-x", Some(("Job", "nightly-manual")), None),
            pod("pg-0", Some(("StatefulSet", "pg")), Some("pg-5f")),
            pod("flow-1", Some(("Workflow", "flow")), None),
            pod("kube-proxy-node", Some(("Node", "node")), None),
            finished,
        ];
        let derived = recreated_by_owner(&templates, &pods);
        let keys: Vec<String> = derived.iter().map(ObservedTemplate::key).collect();
        assert_eq!(keys, ["replicaset/rs", "job/nightly-manual", "pod/bare", "pod/flow-1"]);
        assert!(derived.iter().all(|template| !template.kind.writable()));
        assert_eq!(derived[2].labels[USE_LABEL], "true");
        assert_eq!(derived[3].owned_by.as_deref(), Some("workflow/flow"));
    }
}
