//! Who else writes an object: marks of GitOps engines and of other projects, owners of fields.

use crate::model::{
    Project, names,
    snapshot::{ObjectMeta, OwnedField},
};

/// The GitOps engine that keeps this object, as its marks say; none for plain Helm, whose
/// releases do not put fields back by themselves.
///
/// Sources: Argo CD, "Resource tracking"; Flux, labels of kustomize-controller and
/// helm-controller.
pub(super) fn gitops(meta: &ObjectMeta) -> Option<String> {
    let marks = [
        (&meta.annotations, "argocd.argoproj.io/tracking-id", "Argo CD"),
        (&meta.labels, "argocd.argoproj.io/instance", "Argo CD"),
        (&meta.labels, "kustomize.toolkit.fluxcd.io/name", "Flux"),
        (&meta.labels, "helm.toolkit.fluxcd.io/name", "Flux"),
    ];
    for (map, key, engine) in marks {
        if let Some(value) = map.get(key) {
            return Some(format!("{engine} ({value})"));
        }
    }
    let by_manager = meta.managers.iter().find_map(|manager| match manager.as_str() {
        "argocd-controller" | "argocd-application-controller" => Some("Argo CD"),
        "kustomize-controller" | "helm-controller" => Some("Flux"),
        _ => None,
    });
    by_manager.map(str::to_owned)
}

/// The other project whose mark the object bears.
pub(super) fn other_project<'a>(meta: &'a ObjectMeta, project: &Project) -> Option<&'a str> {
    let mark = meta.annotations.get(names::PROJECT_ANNOTATION)?;
    (mark != project.as_str()).then_some(mark.as_str())
}

/// Another manager that owns a field which would change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) field: String,
    pub(super) manager: String,
    /// A person's tool (`kubectl`) or the tool we replace (`azwi`): taken over, and shown.
    pub(super) may_be_taken: bool,
}

/// The owners, other than us, of those `fields` that would change. What only we own, or nobody,
/// is no conflict; neither is a field that keeps its value.
pub(super) fn conflicts<'a>(
    meta: &ObjectMeta,
    project: &Project,
    fields: impl IntoIterator<Item = &'a OwnedField>,
) -> Vec<Conflict> {
    let ours = names::field_manager(project);
    let mut found = Vec::new();
    for field in fields {
        let name = match field {
            OwnedField::Annotation(key) => format!("annotation {key}"),
            OwnedField::TemplateLabel(key) => format!("pod template label {key}"),
            OwnedField::TemplateAnnotation(key) => format!("pod template annotation {key}"),
        };
        for manager in meta.owners.get(field).into_iter().flatten() {
            if manager.name != ours {
                found.push(Conflict {
                    field: name.clone(),
                    manager: manager.name.clone(),
                    may_be_taken: may_be_taken(&manager.name),
                });
            }
        }
    }
    found
}

fn may_be_taken(manager: &str) -> bool {
    manager.starts_with("kubectl") || manager == "azwi"
}
