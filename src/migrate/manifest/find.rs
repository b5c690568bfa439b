//! Which manifest is whose: by kind, name and namespace, as an API server would tell them apart.

use super::{
    Fields, File, Spot,
    tree::{self, Node, Value},
};
use crate::model::{Namespace, pod_identity::BINDING_LABEL, snapshot::TemplateKind};

/// What an object must say.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The kind in lower case.
    pub(super) kind: &'static str,
    pub(super) namespace: Namespace,
    pub(super) name: String,
    /// The map that changes.
    pub(super) path: &'static [&'static str],
    pub(super) fields: Fields,
    /// The tool that keeps the live object.
    pub(super) kept_by: Option<String>,
}

impl Wanted {
    pub(super) fn object(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// An object in a file.
#[derive(Debug, Clone)]
pub(super) struct Object {
    /// The position of its file.
    pub(super) file: usize,
    pub(super) spot: Spot,
    line: usize,
    kind: String,
    name: String,
    namespace: Option<String>,
    /// Whether the pod template has its containers: a patch of kustomize has none.
    whole: bool,
    /// Whether the pod template has the old label.
    old: bool,
    /// Whether it is annotated for workload identity.
    pointed: bool,
}

impl Object {
    pub(super) fn at(&self, files: &[File]) -> String {
        format!("{}:{}", files[self.file].path, self.line)
    }
}

/// Why the manifest of an object cannot be told.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) why: String,
    pub(super) at: Vec<String>,
}

/// Everything under the directory.
#[derive(Debug, Default)]
pub(super) struct Found {
    objects: Vec<Object>,
    paths: Vec<String>,
    /// Kustomizations that put the old label on everything.
    labelling: Vec<String>,
}

/// Where the labels of the pod template stand.
pub(super) fn labels(kind: TemplateKind) -> &'static [&'static str] {
    match kind {
        TemplateKind::CronJob => &["spec", "jobTemplate", "spec", "template", "metadata", "labels"],
        TemplateKind::Pod => &["metadata", "labels"],
        TemplateKind::Deployment
        | TemplateKind::StatefulSet
        | TemplateKind::DaemonSet
        | TemplateKind::Rollout
        | TemplateKind::ReplicaSet
        | TemplateKind::ReplicationController
        | TemplateKind::Job => &["spec", "template", "metadata", "labels"],
    }
}

/// The kinds that change, with the API group of each.
const KINDS: [(&str, &str, &str); 6] = [
    ("ServiceAccount", "", "serviceaccount"),
    ("Deployment", "apps", "deployment"),
    ("StatefulSet", "apps", "statefulset"),
    ("DaemonSet", "apps", "daemonset"),
    ("CronJob", "batch", "cronjob"),
    ("Rollout", "argoproj.io", "rollout"),
];

impl Found {
    /// Reads every file. What is not YAML is named: a Helm template is not guessed at.
    pub(super) fn read(files: &[File], unread: &mut Vec<(String, String)>) -> Self {
        let mut found = Self::default();
        for (n, file) in files.iter().enumerate() {
            found.paths.push(file.path.clone());
            let documents = match tree::documents(&file.text) {
                Ok(documents) => documents,
                Err(error) => {
                    let why = if file.text.contains("{{") {
                        format!("a template, not YAML ({error})")
                    } else {
                        format!("not YAML: {error}")
                    };
                    unread.push((file.path.clone(), why));
                    continue;
                }
            };
            for (document, root) in documents.iter().enumerate() {
                if labels_everything(root) {
                    found.labelling.push(file.path.clone());
                }
                let items = match root.get("items").map(|items| &items.value) {
                    Some(Value::List(items)) => items.as_slice(),
                    _ => &[],
                };
                let spot = |item| Spot { document, item };
                found.objects.extend(object(n, spot(None), root));
                let items = items.iter().enumerate();
                found.objects.extend(items.filter_map(|(i, item)| object(n, spot(Some(i)), item)));
            }
        }
        found
    }

    /// The manifests of an object that are to change; none where there is no manifest of it.
    /// `namespaces` are those in which the cluster has an object of this kind and name.
    pub(super) fn of(&self, want: &Wanted, namespaces: &[String]) -> Result<Vec<&Object>, Refusal> {
        let same = |o: &&Object| o.kind == want.kind && o.name == want.name;
        let (with, without): (Vec<&Object>, Vec<&Object>) =
            self.objects.iter().filter(same).partition(|o| o.namespace.is_some());
        let mut here: Vec<&Object> = with
            .into_iter()
            .filter(|o| o.namespace.as_deref() == Some(want.namespace.as_str()))
            .collect();
        let at = |objects: &[&Object]| -> Vec<String> {
            objects.iter().map(|o| format!("{}:{}", self.paths[o.file], o.line)).collect()
        };
        if namespaces.len() < 2 {
            here.extend(without);
        } else if here.is_empty() && !without.is_empty() {
            let why = format!(
                "its manifest names no namespace, and there is one in each of {}",
                namespaces.join(", ")
            );
            return Err(Refusal { why, at: at(&without) });
        }
        if want.kind == "serviceaccount" {
            let pointed: Vec<&Object> = here.iter().copied().filter(|o| o.pointed).collect();
            if here.len() > 1 && pointed.len() == 1 {
                return Ok(pointed);
            }
            return one_of(here, at);
        }
        let whole: Vec<&Object> = here.iter().copied().filter(|o| o.whole).collect();
        if whole.len() > 1 {
            return one_of(whole, at);
        }
        let old: Vec<&Object> = here.iter().copied().filter(|o| o.old).collect();
        if !old.is_empty() {
            return Ok(old);
        }
        if let Some(by) = self.labelling.first().filter(|_| !here.is_empty()) {
            let why = format!("{by} puts {BINDING_LABEL} on everything it holds");
            return Err(Refusal { why, at: at(&here) });
        }
        if whole.is_empty() && !here.is_empty() {
            let why = "only patches of it are under the directory".to_owned();
            return Err(Refusal { why, at: at(&here) });
        }
        Ok(whole)
    }
}

fn one_of(
    objects: Vec<&Object>,
    at: impl Fn(&[&Object]) -> Vec<String>,
) -> Result<Vec<&Object>, Refusal> {
    if objects.len() < 2 {
        return Ok(objects);
    }
    let why = "several manifests of it are under the directory: choose a narrower one".to_owned();
    Err(Refusal { why, at: at(&objects) })
}

/// Whether a kustomization puts the old label on what it holds, selectors or not.
fn labels_everything(root: &Node) -> bool {
    let has = |node: Option<&Node>| node.is_some_and(|map| map.get(BINDING_LABEL).is_some());
    let listed = match root.get("labels").map(|node| &node.value) {
        Some(Value::List(items)) => items.iter().any(|item| has(item.get("pairs"))),
        _ => false,
    };
    has(root.get("commonLabels")) || listed
}

fn object(file: usize, spot: Spot, root: &Node) -> Option<Object> {
    let version = root.text_at(&["apiVersion"])?;
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let written = root.text_at(&["kind"])?;
    let (_, _, kind) = KINDS.iter().find(|(kind, of, _)| *kind == written && *of == group)?;
    let template: &[&str] = match *kind {
        "cronjob" => &["spec", "jobTemplate", "spec", "template"],
        _ => &["spec", "template"],
    };
    let template = root.at(template);
    Some(Object {
        file,
        spot,
        line: root.line,
        kind: (*kind).to_owned(),
        name: root.text_at(&["metadata", "name"])?.to_owned(),
        namespace: root.text_at(&["metadata", "namespace"]).map(str::to_owned),
        whole: template.is_some_and(|t| t.at(&["spec", "containers"]).is_some()),
        old: template.is_some_and(|t| t.at(&["metadata", "labels", BINDING_LABEL]).is_some()),
        pointed: root
            .at(&["metadata", "annotations"])
            .is_some_and(|a| a.get(crate::model::names::CLIENT_ID_ANNOTATION).is_some()),
    })
}
