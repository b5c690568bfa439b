//! Who else writes an object: marks of GitOps engines and of other projects, owners of fields.

use crate::model::{
    Project, keeper, names,
    snapshot::{ObjectMeta, OwnedField},
};

/// The GitOps engine that keeps this object, as its marks say; none for tools whose releases do not
/// put fields back by themselves.
pub(super) fn gitops(meta: &ObjectMeta) -> Option<String> {
    let managers = meta.managers.iter().map(String::as_str);
    let keeper = keeper::keeper(&meta.labels, &meta.annotations, managers)?;
    keeper::puts_back(keeper.tool).then(|| keeper.text())
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
