//! A plan as JSON in the shape of Terraform's plan document, so that the gates written for it
//! (`jq`, conftest, tf-summarize) read this one too, plus a `widentity` object.
//!
//! The shape: OpenTofu's documentation "JSON Output Format", format version 1.2. A new key is a
//! minor change; consumers ignore what they do not know.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

use super::change;
use crate::{
    model::{Address, Origin, RemoteFailure},
    ops::planned::{Planned, Scope, workload_of},
    plan::{
        Action, Change, ObjectKind, PlanReport, Planned as PlannedValue, Reason,
        report::{Finding, LeftOver, Pending, Unseen},
    },
};

/// The version of the plan document.
pub const FORMAT_VERSION: &str = "1.2";

/// A plan document.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PlanDocument {
    /// The version of this format.
    pub format_version: String,
    /// When the world was read, RFC 3339.
    pub timestamp: String,
    /// Whether the plan is incomplete: something could not be seen. Such a document cannot be
    /// applied or approved.
    pub errored: bool,
    /// One entry for each change, ordered by address.
    pub resource_changes: Vec<ResourceChange>,
    /// What has no place in Terraform's shape.
    pub widentity: Extras,
}

/// A change of one object.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ResourceChange {
    /// The object's address.
    pub address: String,
    /// Always `managed`.
    pub mode: String,
    /// The object's type, for example `azure_role_assignment`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The object's name: its id, or `<cluster>: <kind> <namespace>/<name>`.
    pub name: String,
    /// Always `widentity`.
    pub provider_name: String,
    /// What changes.
    pub change: ChangeBody,
    /// Why, as one of a growing set of words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action_reason: Option<String>,
}

/// The difference itself.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ChangeBody {
    /// `["create"]` or `["update"]`.
    pub actions: Vec<String>,
    /// The present values of the fields that change; null for a new object.
    pub before: Option<BTreeMap<String, Json>>,
    /// The values afterwards, as far as they are known.
    pub after: BTreeMap<String, Json>,
    /// `true` for each field that is known only after apply.
    pub after_unknown: BTreeMap<String, bool>,
}

/// The part that is widentity's own.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Extras {
    /// The project.
    pub project: String,
    /// The configuration file as the user named it.
    pub config: String,
    /// The tenant.
    pub tenant: String,
    /// Whether the world is the sandbox's.
    pub sandbox: bool,
    /// The digest over changes and risks: `apply --expect-digest`.
    pub digest: String,
    /// The digests of the single changes and risks, sorted: `apply --approved`.
    pub digests: Vec<String>,
    /// Each change with its reasons.
    pub changes: Vec<ChangeDetails>,
    /// Addresses of the selected workloads, with what the plan does for them.
    pub workloads: Vec<WorkloadSummary>,
    /// Rollouts that the plan starts: addresses.
    pub rollouts: Vec<String>,
    /// What a reviewer should look at first.
    pub risks: Vec<FindingDocument>,
    /// What must not be done.
    pub refused: Vec<FindingDocument>,
    /// What cannot go on until somebody does something.
    pub blocked: Vec<FindingDocument>,
    /// What could not be read.
    pub unknown: Vec<UnseenDocument>,
    /// What Git must change.
    pub pending_git: Vec<PendingDocument>,
    /// What a later rollout must replace.
    pub pending_rollout: Vec<PendingDocument>,
    /// What its owner must recreate.
    pub recreate: Vec<PendingDocument>,
    /// Objects with our marks that the file no longer explains.
    pub left_over: Vec<LeftOverDocument>,
    /// Workloads whose pods do not carry today's values although nothing is planned for them.
    pub not_proved: Vec<FindingDocument>,
    /// Workloads on clusters with `access = "none"`.
    pub unmanaged: Vec<String>,
}

/// What a change has beside Terraform's shape.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ChangeDetails {
    /// The object's address.
    pub address: String,
    /// The digest; empty for a rollout that only re-triggers stale pods.
    pub digest: String,
    /// Why the change is needed, in words.
    pub reasons: Vec<String>,
    /// The formulas of fields known only after apply.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub formulas: BTreeMap<String, String>,
    /// The workloads that need it.
    pub workloads: Vec<String>,
    /// The configuration line behind it.
    pub origin: OriginDocument,
}

/// A workload and how many objects the plan touches for it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct WorkloadSummary {
    /// The address.
    pub address: String,
    /// Objects made, including shared ones.
    pub add: usize,
    /// Objects changed, including shared ones.
    pub change: usize,
}

/// A place in a configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct OriginDocument {
    /// The file.
    pub file: String,
    /// The line, from one.
    pub line: u32,
    /// The column, from one.
    pub column: u32,
}

/// Something found about an object.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FindingDocument {
    /// The object or workload.
    pub address: String,
    /// A stable kebab-case code.
    pub code: String,
    /// What is the case.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The configuration line behind it.
    pub origin: OriginDocument,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FailureDocument {
    /// The class: `denied`, `unreachable`, ...
    pub kind: String,
    /// What was tried.
    pub tried: String,
    /// What came back.
    pub message: String,
    /// The HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The correlation id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// What to type next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct UnseenDocument {
    /// The object or workload.
    pub address: String,
    /// What was tried and what came back.
    pub failure: FailureDocument,
    /// The configuration line behind it.
    pub origin: OriginDocument,
}

/// Something that waits for somebody else.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PendingDocument {
    /// The workload, in its cluster.
    pub workload: String,
    /// The object.
    pub object: String,
    /// Why it waits.
    pub why: String,
    /// What Git must hold, or what to type.
    pub wanted: Vec<String>,
}

/// An object with our marks that the file does not explain.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct LeftOverDocument {
    /// What it is.
    pub kind: String,
    /// Its ARM id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    pub name: String,
}

/// The document of a plan.
pub fn plan(planned: &Planned) -> PlanDocument {
    let Planned { scope, plan, report } = planned;
    PlanDocument {
        format_version: FORMAT_VERSION.to_owned(),
        timestamp: whole_seconds(scope.taken_at),
        errored: !report.unknown.is_empty(),
        resource_changes: plan.changes.iter().map(resource_change).collect(),
        widentity: extras(scope, planned, report),
    }
}

/// A document as indented JSON with a final newline.
pub fn to_text<T: Serialize>(document: &T) -> String {
    let text = serde_json::to_string_pretty(document);
    // Every document has string keys and finite numbers only: serialising cannot fail.
    format!("{}\n", text.expect("documents have string keys and no foreign types"))
}

fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

fn resource_change(change: &Change) -> ResourceChange {
    let mut before = BTreeMap::new();
    let mut after = BTreeMap::new();
    let mut after_unknown = BTreeMap::new();
    for field in &change.fields {
        if let Some(value) = &field.before {
            before.insert(field.field.clone(), value.clone());
        }
        match &field.after {
            PlannedValue::Known(value) => {
                after.insert(field.field.clone(), value.clone());
            }
            PlannedValue::AfterApply(_) => {
                after_unknown.insert(field.field.clone(), true);
            }
        }
    }
    let (action, before) = match change.action {
        Action::Create => ("create", None),
        Action::Update => ("update", Some(before)),
    };
    ResourceChange {
        address: change.address.to_string(),
        mode: "managed".to_owned(),
        kind: change.kind.as_str().to_owned(),
        name: change.id.clone(),
        provider_name: "widentity".to_owned(),
        change: ChangeBody { actions: vec![action.to_owned()], before, after, after_unknown },
        action_reason: change.reasons.first().map(|reason| reason_word(reason).to_owned()),
    }
}

fn reason_word(reason: &Reason) -> &'static str {
    match reason {
        Reason::Missing => "create_because_missing",
        Reason::Differs { .. } => "update_because_differs",
        Reason::FeatureOff { .. } => "update_because_feature_off",
        Reason::PodsStale { .. } => "roll_because_pods_stale",
        Reason::Follows { .. } => "update_because_input_changes",
    }
}

fn extras(scope: &Scope, planned: &Planned, report: &PlanReport) -> Extras {
    let changes = &planned.plan.changes;
    let PlanReport {
        risks,
        refused,
        blocked,
        unknown,
        pending_git,
        pending_rollout,
        recreate,
        left_over,
        not_proved,
        unmanaged,
    } = report;
    let rolls = |change: &&Change| change.kind == ObjectKind::KubernetesRollout;
    Extras {
        project: scope.project.to_string(),
        config: scope.config.clone(),
        tenant: scope.tenant.to_string(),
        sandbox: scope.sandbox,
        digest: planned.plan.digest.clone(),
        digests: planned.plan.digests.clone(),
        changes: changes.iter().map(change_details).collect(),
        workloads: scope.workloads.iter().map(|address| summary(address, changes)).collect(),
        rollouts: changes.iter().filter(rolls).map(|change| change.address.to_string()).collect(),
        risks: risks.iter().map(finding).collect(),
        refused: refused.iter().map(finding).collect(),
        blocked: blocked.iter().map(finding).collect(),
        unknown: unknown.iter().map(unseen).collect(),
        pending_git: pending_git.iter().map(pending).collect(),
        pending_rollout: pending_rollout.iter().map(pending).collect(),
        recreate: recreate.iter().map(pending).collect(),
        left_over: left_over.iter().map(left).collect(),
        not_proved: not_proved.iter().map(finding).collect(),
        unmanaged: unmanaged.iter().map(Address::to_string).collect(),
    }
}

fn change_details(change: &Change) -> ChangeDetails {
    let formulas = change.fields.iter().filter_map(|field| match &field.after {
        PlannedValue::AfterApply(formula) => Some((field.field.clone(), formula.clone())),
        PlannedValue::Known(_) => None,
    });
    ChangeDetails {
        address: change.address.to_string(),
        digest: change.digest.clone(),
        reasons: change.reasons.iter().map(change::reason_words).collect(),
        formulas: formulas.collect(),
        workloads: change.workloads.iter().map(Address::to_string).collect(),
        origin: origin(&change.origin),
    }
}

fn summary(workload: &Address, changes: &[Change]) -> WorkloadSummary {
    let needs = |change: &&Change| {
        let needing: BTreeSet<Address> = change.workloads.iter().filter_map(workload_of).collect();
        change.kind.counted()
            && (needing.contains(workload)
                || workload_of(&change.address).as_ref() == Some(workload))
    };
    let count = |action| changes.iter().filter(needs).filter(|c| c.action == action).count();
    WorkloadSummary {
        address: workload.to_string(),
        add: count(Action::Create),
        change: count(Action::Update),
    }
}

pub(super) fn origin(origin: &Origin) -> OriginDocument {
    let Origin { file, line, column } = origin;
    OriginDocument { file: file.clone(), line: *line, column: *column }
}

pub(super) fn finding(finding: &Finding) -> FindingDocument {
    let Finding { address, code, message, hint, origin: at } = finding;
    FindingDocument {
        address: address.to_string(),
        code: code.clone(),
        message: message.clone(),
        hint: hint.clone(),
        origin: origin(at),
    }
}

pub(super) fn failure(failure: &RemoteFailure) -> FailureDocument {
    let RemoteFailure { kind, tried, message, status, code, correlation_id, hint } = failure;
    let kind = serde_json::to_value(kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
    FailureDocument {
        kind: kind.unwrap_or_default(),
        tried: tried.clone(),
        message: message.clone(),
        status: *status,
        code: code.clone(),
        correlation_id: correlation_id.clone(),
        hint: hint.clone(),
    }
}

pub(super) fn unseen(unseen: &Unseen) -> UnseenDocument {
    let Unseen { address, failure: why, origin: at } = unseen;
    UnseenDocument { address: address.to_string(), failure: failure(why), origin: origin(at) }
}

pub(super) fn pending(pending: &Pending) -> PendingDocument {
    let Pending { workload, object, why, wanted } = pending;
    PendingDocument {
        workload: workload.to_string(),
        object: object.clone(),
        why: why.clone(),
        wanted: wanted.clone(),
    }
}

pub(super) fn left(left: &LeftOver) -> LeftOverDocument {
    let LeftOver { kind, id, name } = left;
    let id = id.as_ref().map(|id| id.as_str().to_owned());
    LeftOverDocument { kind: kind.clone(), id, name: name.clone() }
}
