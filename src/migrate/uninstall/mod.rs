//! What `migrate uninstall` may take away, in which order, and what stands in the way. Pure: what
//! was read of a cluster in, an ordered list of steps or obstacles out.
//!
//! The order is that of the project's own documentation: pods off, bindings and identities,
//! MIC's assignments, MIC, NMI, exceptions, what surrounds them, and the definitions. What Azure
//! holds goes last and only on request: MIC takes identities from the nodes by the very roles that
//! go there, and a broken entry of the AKS add-on blocks every update of the cluster.
//! Instances of the scale sets are never touched.

mod gates;
mod installation;
mod left;
mod surroundings;

use serde::{Deserialize, Serialize};

pub use gates::needs_token;
pub use left::asked_for;

use super::Survey;
use crate::model::{
    ArmId,
    footprint::{AzureSide, Footprint, Owner, Part, PartKind},
    pod_identity::Estate,
    snapshot::ObservedAssignment,
};

/// What is known of one cluster.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// What Pod Identity is made of.
    pub estate: &'a Estate,
    /// Where its workloads stand: all of them.
    pub survey: &'a Survey,
    /// What its installation consists of.
    pub footprint: &'a Footprint,
    /// What Azure holds of it.
    pub azure: &'a AzureSide,
    /// What was asked for.
    pub wishes: Wishes,
}

/// What somebody asked for beyond the command itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wishes {
    /// The metadata endpoint of the nodes may be open to every pod afterwards.
    pub open_metadata: bool,
    /// The AKS add-on may be switched off.
    pub disable_add_on: bool,
    /// What of Azure may go.
    pub azure: AzureWishes,
}

/// What somebody asked for of what was set up in Azure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AzureWishes {
    /// Role assignments that Pod Identity's documentation asks for.
    pub roles: bool,
    /// Identities of Pod Identity on the scale sets of the nodes.
    pub node_identities: bool,
}

/// The code of what could not be read, and so may be there.
pub const NOT_SEEN: &str = "not-seen";

/// What is to be done in one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Uninstall {
    /// What stands in the way. While there is anything, no step is begun.
    pub obstacles: Vec<Obstacle>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What stays although it looks like the installation's.
    pub kept: Vec<Kept>,
    /// What a cluster without NMI means; none where this run does not change it.
    pub exposed: Option<Exposed>,
    /// What may be lost with the steps in Azure.
    pub risks: Vec<String>,
    /// What is left in Azure; nothing where the cluster was not seen whole.
    pub clean_up: Vec<CleanUp>,
    /// What of Azure could not be seen.
    pub not_seen: Vec<String>,
    /// What that is to the exit code, where something of Azure was asked for; else it only leaves
    /// `clean_up` incomplete.
    pub incomplete: Option<Class>,
}

/// Something that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Obstacle {
    /// What it is to the exit code.
    pub class: Class,
    /// A stable kebab-case code.
    pub code: String,
    /// What is the case, one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

/// Classes of obstacles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// It would be wrong, or needs somebody to ask for it.
    Refused,
    /// It may not be seen, or nothing vouches for it.
    Denied,
    /// It could not be seen.
    Unseen,
    /// Something has to be done first.
    Blocked,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Waits until MIC has taken back everything it assigned.
    AwaitUnassigned,
    /// Deletes one object by uid. For MIC and NMI also waits until their pods have ended; a
    /// definition only goes while it holds nothing.
    Remove {
        /// The object.
        part: Part,
    },
    /// Takes all identities out of the AKS add-on, through ARM.
    DropAddOnIdentities {
        /// `namespace/name` of each.
        identities: Vec<String>,
    },
    /// Switches the AKS add-on off, through ARM, and waits until its NMI is gone.
    DisableAddOn {
        /// Its NMI.
        nmi: Option<Part>,
    },
    /// What another tool keeps is taken away by that tool: this run ends here.
    HandOver {
        /// The tool.
        tool: String,
        /// What to type or do.
        command: String,
        /// What the tool keeps.
        parts: Vec<Part>,
    },
    /// Takes identities from a scale set of the nodes, through ARM.
    Unassign {
        /// The scale set.
        set: ArmId,
        /// The identities.
        identities: Vec<ArmId>,
    },
    /// Deletes a role assignment, through ARM, if it still is what was read.
    RemoveRole {
        /// As it was read.
        assignment: ObservedAssignment,
        /// In words: role, principal and scope.
        what: String,
    },
}

impl Step {
    /// What does the same by hand, for what Azure holds beside the installation.
    pub fn command(&self) -> Option<String> {
        match self {
            Self::Unassign { set, identities } => Some(left::unassign(set, identities)),
            Self::RemoveRole { assignment, .. } => Some(left::delete(assignment)),
            Self::AwaitUnassigned
            | Self::Remove { .. }
            | Self::DropAddOnIdentities { .. }
            | Self::DisableAddOn { .. }
            | Self::HandOver { .. } => None,
        }
    }

    /// Whether it takes away what Azure holds beside the installation. These steps come last, and
    /// none depends on another.
    pub fn is_clean_up(&self) -> bool {
        self.command().is_some()
    }
}

/// Something that stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Kept {
    /// The object.
    pub what: String,
    /// Why.
    pub why: String,
}

/// What pods can do once NMI does not stand before the metadata endpoint of the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Exposed {
    /// How many live pods can ask for tokens of their node's identities.
    pub pods: usize,
    /// The identities that are on the nodes, by name.
    pub identities: Vec<String>,
    /// Pods that may live on the node's identity today.
    pub users: Vec<NodeUser>,
}

/// A controller, or a bare pod, whose pods may live on the node's identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NodeUser {
    /// The namespace.
    pub namespace: String,
    /// `kind/name`.
    pub who: String,
    /// Why it may.
    pub why: String,
    /// How many live pods.
    pub pods: usize,
}

/// Something that Azure still holds and that nobody needs for Pod Identity any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CleanUp {
    /// What it is.
    pub what: String,
    /// The command that takes it away.
    pub command: String,
    /// What takes it away in this command; none where nothing does.
    pub flag: Option<Flag>,
    /// What may be lost with it; without a flag, why there is none.
    pub note: String,
}

/// The flags of `migrate uninstall` that take something of Azure away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Flag {
    /// As [`AzureWishes::roles`].
    #[serde(rename = "--remove-roles")]
    RemoveRoles,
    /// As [`AzureWishes::node_identities`].
    #[serde(rename = "--remove-node-identities")]
    RemoveNodeIdentities,
}

impl Flag {
    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RemoveRoles => "--remove-roles",
            Self::RemoveNodeIdentities => "--remove-node-identities",
        }
    }
}

/// Decides. Equal arguments give equal results.
pub fn decide(given: Given<'_>) -> Uninstall {
    // Nobody can say that what Azure holds serves nothing while the cluster was not seen whole.
    let left = if gates::is_seen(given) { left::left(given) } else { left::Left::default() };
    let mut steps = steps(given);
    steps.extend(left.steps);
    let exposed = takes_nmi(&steps).then(|| surroundings::exposed(given));
    let obstacles = gates::obstacles(given, &steps, exposed.as_ref());
    let mut kept = installation::kept(given);
    kept.extend(left.kept);
    Uninstall {
        obstacles,
        kept,
        exposed,
        risks: left.risks,
        clean_up: left.clean_up,
        not_seen: given.azure.unseen.iter().map(ToString::to_string).collect(),
        incomplete: incomplete(given),
        steps,
    }
}

/// What was asked for may be more than what was seen.
fn incomplete(given: Given<'_>) -> Option<Class> {
    let AzureWishes { roles, node_identities } = given.wishes.azure;
    let unseen = given.azure.unseen.iter().filter(|_| roles || node_identities);
    unseen.map(|failure| if failure.kind.is_denied() { Class::Denied } else { Class::Unseen }).min()
}

/// Whether NMI goes in these steps.
fn takes_nmi(steps: &[Step]) -> bool {
    steps.iter().any(|step| match step {
        Step::Remove { part } => part.kind == PartKind::Nmi,
        Step::DisableAddOn { .. } => true,
        Step::HandOver { parts, .. } => parts.iter().any(|part| part.kind == PartKind::Nmi),
        Step::AwaitUnassigned
        | Step::DropAddOnIdentities { .. }
        | Step::Unassign { .. }
        | Step::RemoveRole { .. } => false,
    })
}

fn steps(given: Given<'_>) -> Vec<Step> {
    let mut parts = installation::parts(given);
    parts.sort();
    let assigned = given.footprint.definitions.iter().flat_map(|d| &d.objects);
    let assigned = assigned.filter(|part| part.kind == PartKind::Assigned).count();
    let mut steps = Vec::new();
    let mut awaited = false;
    let mut add_on = given.estate.add_on.as_ref();
    for part in &parts {
        if part.kind >= PartKind::Mic && !awaited {
            // MIC may have taken everything back by now; then this costs one look.
            if part.kind == PartKind::Mic || assigned > 0 {
                steps.push(Step::AwaitUnassigned);
            }
            awaited = true;
        }
        if part.kind > PartKind::Nmi
            && let Some(identities) = add_on.take()
        {
            switch_off(given, identities, &mut steps);
        }
        remove(part, &parts, &mut steps);
    }
    if let Some(identities) = add_on {
        switch_off(given, identities, &mut steps);
    }
    steps
}

/// The add-on's identities first, as its documentation asks: a broken one blocks every later
/// change of the cluster.
fn switch_off(given: Given<'_>, identities: &[String], steps: &mut Vec<Step>) {
    if !identities.is_empty() {
        steps.push(Step::DropAddOnIdentities { identities: identities.to_vec() });
    }
    let mut nmi = given.footprint.components.iter().map(|component| &component.part);
    let nmi = nmi.find(|part| installation::of_add_on(given.estate, part)).cloned();
    steps.push(Step::DisableAddOn { nmi });
}

/// One object, or everything that a tool keeps at once where its first object would go.
fn remove(part: &Part, parts: &[Part], steps: &mut Vec<Step>) {
    let (tool, command) = match &part.owner {
        Owner::Nobody => {
            steps.push(Step::Remove { part: part.clone() });
            return;
        }
        Owner::Helm { release, namespace } => {
            ("Helm".to_owned(), format!("helm uninstall {release} --namespace {namespace}"))
        }
        Owner::Git { tool } => {
            (tool.clone(), format!("remove them from what {tool} applies, and let it prune them"))
        }
    };
    let told =
        |step: &Step| matches!(step, Step::HandOver { command: known, .. } if *known == command);
    if !steps.iter().any(told) {
        let same = parts.iter().filter(|other| other.owner == part.owner).cloned().collect();
        steps.push(Step::HandOver { tool, command, parts: same });
    }
}
