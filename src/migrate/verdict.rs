//! Whether a workload may be migrated: ready, in need of a decision, or not at all; each reason
//! with what to write in TOML to decide.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::surroundings::KEPT_BY;
use crate::model::{
    keeper,
    pod_identity::{Estate, EstateTemplate},
    sidecar::{self, Surroundings},
    snapshot::{Strategy, TemplateKind},
};

/// What may be done with a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// `apply` takes it on.
    Ready,
    /// It is half-done or broken, and `apply` completes it.
    ToMend,
    /// It was put back, and `apply` leaves it alone until it is changed or somebody names it.
    LeftAlone,
    /// It is switched: its phase says the rest.
    Switched,
    /// Somebody has to decide first.
    NeedsDecision,
    /// It cannot be migrated as it is.
    Cannot,
}

impl Verdict {
    /// The words in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::ToMend => "to mend",
            Self::LeftAlone => "left alone",
            Self::Switched => "switched",
            Self::NeedsDecision => "needs a decision",
            Self::Cannot => "cannot",
        }
    }
}

/// Why a workload is not ready.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reason {
    /// Whether a decision helps.
    pub verdict: Verdict,
    /// A stable kebab-case code.
    pub code: String,
    /// What is the case, one sentence without a full stop.
    pub message: String,
    /// The line of `[[workloads]]` that decides, or what else to do.
    pub decide: String,
}

impl Reason {
    /// What stands before [`Reason::decide`]: a line of the file decides, an obstacle is taken away.
    pub fn remedy(&self) -> &'static str {
        if self.verdict == Verdict::Cannot { "to do" } else { "decide" }
    }

    /// A decision to be taken.
    pub(super) fn decision(
        code: &str,
        message: impl Into<String>,
        decide: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::NeedsDecision,
            code: code.to_owned(),
            message: message.into(),
            decide: decide.into(),
        }
    }

    /// An obstacle.
    pub(super) fn obstacle(
        code: &str,
        message: impl Into<String>,
        decide: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Cannot, ..Self::decision(code, message, decide) }
    }
}

/// Why old pods of a template do not keep serving while it rolls; none if they do or there are
/// none.
pub(super) fn gap(template: &EstateTemplate) -> Option<String> {
    if template.replicas == Some(0) {
        return None;
    }
    let key = template.key();
    let says = |what: &str| Some(format!("{key} {what}"));
    match (template.kind, template.strategy) {
        (TemplateKind::CronJob, _) => {
            return says("has no pods that keep serving: its next run is the experiment");
        }
        (_, Strategy::Recreate) => {
            return says("ends its pods before it makes new ones (Recreate)");
        }
        (_, Strategy::OnDelete) => {
            return says("replaces pods only when they are deleted (OnDelete)");
        }
        (_, Strategy::Paused) => return says("is paused"),
        (_, Strategy::Partition(n)) => {
            return Some(format!("{key} keeps ordinals below {n} as they are (partition)"));
        }
        (TemplateKind::StatefulSet, _) if template.replicas == Some(1) => {
            return says("has one replica, which ends before its successor begins");
        }
        _ if template.gaps => {
            return says("may take a pod away before its successor is ready (maxUnavailable)");
        }
        _ => {}
    }
    (!template.readiness).then(|| {
        format!(
            "{key} has no readiness probe, or not in every container: a pod that cannot sign in may \
             count as ready"
        )
    })
}

/// Why the migration sidecar cannot work in a template that asks for it, or for which the file
/// does.
pub(super) fn sidecar_obstacle(
    estate: &Estate,
    template: &EstateTemplate,
    wanted: bool,
) -> Option<Reason> {
    if !template.proxied() && !wanted {
        return None;
    }
    let found = sidecar::hindrance(Surroundings {
        kind: template.kind,
        host_network: template.host_network,
        windows: template.windows,
        enforced: estate.pod_security.get(&template.namespace).map(String::as_str),
        version: &estate.version,
    })?;
    let fix = if template.proxied() {
        "use a current Azure Identity SDK, without annotation \
         azure.workload.identity/inject-proxy-sidecar"
    } else {
        "use a current Azure Identity SDK, without `proxy` in the file"
    };
    let message = format!("{} is to have the migration sidecar and {found}", template.key());
    Some(Reason::obstacle(found.code(), message, fix))
}

/// The verdict that a list of reasons comes to.
pub(super) fn of(reasons: &[Reason]) -> Verdict {
    let worst: BTreeSet<Verdict> = reasons.iter().map(|reason| reason.verdict).collect();
    worst.last().copied().unwrap_or(Verdict::Ready)
}

/// Whether a workload may go as far as its gates allow: nothing stands in its way, or nothing but
/// that Git keeps it.
pub(super) fn may_move(reasons: &[Reason], kept_by: &BTreeSet<String>) -> bool {
    let held = reasons.iter().all(|reason| reason.code == KEPT_BY);
    of(reasons) == Verdict::Ready || (held && kept_by.iter().all(|by| keeper::puts_back(by)))
}
