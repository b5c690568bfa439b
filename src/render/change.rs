//! One change as lines of text: symbol, kind, address, id, fields with old and new values, why.

use serde_json::Value as Json;

use super::{
    difference, escape,
    style::{Palette, Style},
};
use crate::plan::{Action, Change, FieldChange, ObjectKind, Planned, Reason};

/// The symbols of a plan, ASCII only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Symbol {
    /// An object is made.
    Create,
    /// Fields of an object are set.
    Update,
    /// Pods are replaced.
    Rollout,
    /// An existing object that somebody else made is taken over.
    Adopt,
    /// Something to look at first.
    Risk,
}

impl Symbol {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "+",
            Self::Update => "~",
            Self::Rollout => "@",
            Self::Adopt => "i",
            Self::Risk => "!",
        }
    }

    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update in place",
            Self::Rollout => "roll pods",
            Self::Adopt => "take over what exists",
            Self::Risk => "risk, read first",
        }
    }

    pub(super) fn style(self) -> Style {
        match self {
            Self::Create => Style::Add,
            Self::Update | Self::Adopt => Style::Change,
            Self::Rollout => Style::Rollout,
            Self::Risk => Style::Alarm,
        }
    }

    /// The symbol of a change; `adopted` says that a risk tells of a takeover of this object.
    pub(super) fn of(change: &Change, adopted: bool) -> Self {
        match (change.kind, change.action) {
            (ObjectKind::KubernetesRollout, _) => Self::Rollout,
            (_, Action::Create) => Self::Create,
            (_, Action::Update) if adopted => Self::Adopt,
            (_, Action::Update) => Self::Update,
        }
    }
}

/// The words for a kind of object.
pub(super) fn kind_words(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::AzureKubernetesCluster => "cluster",
        ObjectKind::AzureUserAssignedIdentity => "identity",
        ObjectKind::AzureFederatedIdentityCredential => "federated credential",
        ObjectKind::AzureRoleAssignment => "role assignment",
        ObjectKind::KubernetesServiceAccount => "service account",
        ObjectKind::KubernetesPodTemplate => "pod template",
        ObjectKind::KubernetesRollout => "rollout",
    }
}

/// The lines of one change, without indentation of their own beyond the second level.
pub(super) fn lines(change: &Change, symbol: Symbol, palette: Palette) -> Vec<String> {
    let mark = palette.paint(symbol.style(), symbol.as_str());
    let address = change.address.to_string();
    let mut lines = vec![format!(
        "{mark} {:<20} {}",
        kind_words(change.kind),
        palette.paint(Style::Heading, escape::terminal(&address)),
    )];
    let id = escape::terminal(&change.id);
    lines.push(format!("    {}", palette.paint(Style::Dim, id)));
    let fields = change.fields.iter().map(|field| field.field.as_str());
    let width = fields.map(|field| field.chars().count()).max().unwrap_or(0);
    for field in &change.fields {
        push_field(&mut lines, field, width, palette);
    }
    for reason in &change.reasons {
        lines.extend(reason_line(reason, change).map(|text| format!("    because {text}")));
    }
    lines
}

fn push_field(lines: &mut Vec<String>, field: &FieldChange, width: usize, palette: Palette) {
    let name = escape::terminal(&field.field);
    let near = match (&field.before, &field.after) {
        (Some(Json::String(before)), Planned::Known(Json::String(after))) => {
            difference::near(before, after)
        }
        _ => None,
    };
    if let Some(near) = near {
        // Nearly equal values stand under each other, the differing characters marked.
        lines.push(format!("    ~ {name}: {}", palette.paint(Style::Change, &near.words)));
        lines.push(format!("        have \"{}\"", near.before));
        if !near.before_marks.is_empty() {
            lines
                .push(format!("              {}", palette.paint(Style::Alarm, &near.before_marks)));
        }
        lines.push(format!("        want \"{}\"", near.after));
        if !near.after_marks.is_empty() {
            lines.push(format!("              {}", palette.paint(Style::Add, &near.after_marks)));
        }
        return;
    }
    let after = match &field.after {
        Planned::Known(value) => json(value),
        Planned::AfterApply(formula) => {
            format!("(known after apply: {})", escape::terminal(formula))
        }
    };
    let line = match &field.before {
        Some(before) => format!("~ {name:<width$} = {} -> {after}", json(before)),
        None => format!("+ {name:<width$} = {after}"),
    };
    lines.push(format!("    {line}"));
}

/// A value as JSON writes it, on one line, safe for a terminal.
fn json(value: &Json) -> String {
    escape::terminal(&value.to_string()).into_owned()
}

/// A reason in words; nothing where the fields above already tell it.
fn reason_line(reason: &Reason, change: &Change) -> Option<String> {
    let text = match reason {
        Reason::Differs { field, have: _, want: _, near }
            if change.fields.iter().any(|shown| shown.field == *field) =>
        {
            format!("{field}: {}", near.as_ref()?)
        }
        Reason::Differs { .. }
        | Reason::Missing
        | Reason::FeatureOff { .. }
        | Reason::PodsStale { .. }
        | Reason::Follows { .. } => reason_words(reason),
    };
    Some(escape::terminal(&text).into_owned())
}

/// A reason in words, not yet escaped.
pub(super) fn reason_words(reason: &Reason) -> String {
    match reason {
        Reason::Missing => "it does not exist".to_owned(),
        Reason::Differs { field, have, want, near } => {
            let have = have.as_deref().map_or("not set".to_owned(), |have| format!("`{have}`"));
            let near = near.as_deref().map(|near| format!(" ({near})")).unwrap_or_default();
            format!("{field} is {have}, wanted `{want}`{near}")
        }
        Reason::FeatureOff { feature } => format!("{feature} is off and the file says enable"),
        Reason::PodsStale { pods: 1, why } => format!("1 pod is stale: {why}"),
        Reason::PodsStale { pods, why } => format!("{pods} pods are stale: {why}"),
        Reason::Follows { of } => format!("{of} changes"),
    }
}
