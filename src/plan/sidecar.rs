//! The annotation that asks for the migration sidecar: who set it, whether it may be set, and what
//! becomes of it in a roll.

use super::{
    FieldChange, Reason,
    draft::{Draft, differs, finding, known},
    planner::Place,
    step::Sidecar,
};
use crate::model::{
    Project,
    address::Part,
    names,
    sidecar::{self, Surroundings},
    snapshot::{KubernetesSnapshot, ObservedTemplate, OwnedField},
};

const PATH: &str =
    "spec.template.metadata.annotations[\"azure.workload.identity/inject-proxy-sidecar\"]";

/// What the file wants of the sidecar in one template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing of ours: it is not wanted and not ours, or somebody else asks for it already.
    None,
    /// We set it, and it stays.
    Keep,
    /// It is set.
    Set,
    /// We set it, with this value, and it goes.
    Drop(String),
}

impl Wish {
    /// Compares the file with a template. Its presence counts, whatever the value.
    pub(super) fn of(wanted: bool, template: &ObservedTemplate, project: &Project) -> Self {
        let Some(value) = template.annotations.get(names::PROXY_ANNOTATION) else {
            return if wanted { Self::Set } else { Self::None };
        };
        let manager = names::field_manager(project);
        let field = OwnedField::TemplateAnnotation(names::PROXY_ANNOTATION.to_owned());
        let owners = template.meta.owners.get(&field);
        let ours = owners.is_some_and(|owners| owners.iter().any(|o| o.name == manager));
        let alone = owners.is_some_and(|owners| owners.iter().all(|o| o.name == manager));
        match (wanted, ours) {
            (true, true) => Self::Keep,
            (false, true) if alone => Self::Drop(value.clone()),
            (true | false, _) => Self::None,
        }
    }

    /// Whether the template is written for it.
    pub(super) fn changes(&self) -> bool {
        matches!(self, Self::Set | Self::Drop(_))
    }

    /// Whether pods of the template, as it is now, must have the sidecar.
    pub(super) fn expects(&self, template: &ObservedTemplate) -> bool {
        match self {
            Self::Keep => true,
            Self::Set | Self::Drop(_) => false,
            Self::None => template.annotations.contains_key(names::PROXY_ANNOTATION),
        }
    }

    /// What the roll does about it.
    pub(super) fn step(&self) -> Sidecar {
        match self {
            Self::None => Sidecar::NotOurs,
            Self::Keep | Self::Set => Sidecar::Set,
            Self::Drop(value) => Sidecar::Dropped { value: value.clone() },
        }
    }

    /// What Git must hold, a line.
    pub(super) fn line(&self, path: impl Fn(&str) -> String) -> Option<String> {
        match self {
            Self::Set => Some(format!("{}: \"true\"", path(PATH))),
            Self::Drop(_) => Some(format!("{} taken away", path(PATH))),
            Self::None | Self::Keep => None,
        }
    }

    /// The field and why it changes.
    pub(super) fn change(&self, path: impl Fn(&str) -> String) -> Option<(FieldChange, Reason)> {
        let path = path(PATH);
        match self {
            Self::Set => Some((known(path.clone(), None, "true"), differs(&path, None, "true"))),
            Self::Drop(value) => {
                let change = known(path.clone(), Some(value), serde_json::Value::Null);
                Some((change, differs(&path, Some(value), "not set")))
            }
            Self::None | Self::Keep => None,
        }
    }
}

/// Refuses a template in which the sidecar is wanted and cannot work.
pub(super) fn refused(
    draft: &mut Draft,
    place: &Place<'_>,
    kubernetes: &KubernetesSnapshot,
    template: &ObservedTemplate,
) -> bool {
    let workload = place.workload;
    let found = sidecar::hindrance(Surroundings {
        kind: template.kind,
        host_network: template.host_network,
        windows: template.windows,
        enforced: kubernetes.pod_security.get(&workload.namespace).map(String::as_str),
        version: &kubernetes.version,
    });
    let Some(hindrance) = found else { return false };
    draft.report.refused.push(finding(
        place.address.clone().part(Part::PodTemplate(template.key())),
        hindrance.code(),
        format!("`proxy = true`, and {} {hindrance}", template.key()),
        "take `proxy` out of the file and use a current Azure Identity SDK".to_owned(),
        &workload.origin,
    ));
    true
}

/// Says what the sidecar is when it is set.
pub(super) fn warn(draft: &mut Draft, place: &Place<'_>, template: &ObservedTemplate) {
    draft.report.risks.push(finding(
        place.address.clone().part(Part::PodTemplate(template.key())),
        "migration-sidecar",
        format!(
            "{} gets the migration sidecar: its init container is privileged, and Microsoft does \
             not support it in production",
            template.key()
        ),
        "take `proxy` out of the file as soon as the application uses a current SDK".to_owned(),
        &place.workload.origin,
    ));
}
