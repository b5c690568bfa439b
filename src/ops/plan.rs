//! `plan`: read, compare. Nothing is written.

use jiff::Timestamp;

use super::{Connected, Planned, Scope};
use crate::{
    model::desired::DesiredState,
    observe::observe,
    plan::{self, PlanOptions},
};

/// What a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What the file asks for.
    pub desired: &'a DesiredState,
    /// The file as the user named it.
    pub config: &'a str,
    /// Whether the world is the sandbox's.
    pub sandbox: bool,
    /// The wall time.
    pub now: Timestamp,
    /// What the caller decides about planning.
    pub options: PlanOptions,
}

/// Reads the world and compares it with the file.
pub async fn plan(request: Request<'_>, connected: &Connected) -> Planned {
    let Request { desired, config, sandbox, now, options } = request;
    let snapshot = observe(desired, &connected.arm, &connected.clusters, now).await;
    let (plan, report) = plan::plan(desired, &snapshot, options);
    let scope = Scope::of(desired, config, sandbox, now);
    Planned { scope, plan, report }
}
