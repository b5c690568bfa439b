//! What the documentation of Pod Identity makes people set up in Azure, and what becomes of it:
//! taken away on request, left to its owner, or needed by AKS itself.
//!
//! Nothing in Azure marks a role or an identity as made for Pod Identity. What may go on request is
//! therefore what the documentation asks for to the letter: one of two roles, of the identity that
//! Pod Identity acts as, on one of the scopes that its commands name; and on the nodes an identity
//! that an `AzureIdentity` or a backup names. Anything wider is somebody else's decision.

use super::{CleanUp, Flag, Given, Kept, Step, surroundings};
use crate::model::{
    ArmId, RoleId,
    footprint::{AzureSide, ClusterPrincipal, ScaleSet},
    snapshot::ObservedAssignment,
};

/// What is left in Azure.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// What goes, as it was asked for.
    pub(super) steps: Vec<Step>,
    /// What may be lost with that.
    pub(super) risks: Vec<String>,
    /// What does not go.
    pub(super) clean_up: Vec<CleanUp>,
    /// What AKS itself needs, told where its like was asked for.
    pub(super) kept: Vec<Kept>,
}

/// Source: Azure/aad-pod-identity, documentation page "Role assignment"; the GUIDs: Microsoft
/// documentation, "Azure built-in roles".
const WANTED: [(Role, &str); 2] = [
    (Role::Operator, "f1a07417-d97a-45cb-824c-7a7467783830"),
    (Role::Contributor, "9980e02c-c2be-4d73-94e8-173b1dc7cf3c"),
];

const IDENTITY: &str = "microsoft.managedidentity/userassignedidentities";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It may put identities on machines.
    Operator,
    /// It may change machines.
    Contributor,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "Managed Identity Operator",
            Self::Contributor => "Virtual Machine Contributor",
        }
    }
}

/// The roles that Pod Identity's documentation asks for.
pub fn asked_for() -> impl Iterator<Item = RoleId> {
    WANTED.iter().filter_map(|(_, guid)| guid.parse().ok())
}

fn wanted(role: RoleId) -> Option<Role> {
    let known = WANTED.iter().find(|(_, guid)| guid.parse().ok() == Some(role));
    known.map(|(role, _)| *role)
}

/// What may become of something.
enum Fate {
    /// It may go on request; what may be lost.
    MayGo(String),
    /// Somebody else decides; why.
    Unsure(String),
    /// AKS needs it; why.
    Needed(String),
}

/// Sorts what is left into what goes, what is listed and what AKS needs.
pub(super) fn left(given: Given<'_>) -> Left {
    let mut left = Left::default();
    nodes(given, &mut left);
    let mut assignments: Vec<&ObservedAssignment> = given.azure.assignments.iter().collect();
    assignments.sort_by(|a, b| (&a.scope, a.role, &a.id).cmp(&(&b.scope, b.role, &b.id)));
    for assignment in assignments {
        one_role(given, assignment, &mut left);
    }
    left.clean_up.sort();
    left.clean_up.dedup();
    left.kept.sort();
    left
}

fn one_role(given: Given<'_>, assignment: &ObservedAssignment, left: &mut Left) {
    let principal = given.azure.principals.get(&assignment.principal_id).copied();
    let (Some(principal), Some(role)) = (principal, wanted(assignment.role)) else { return };
    let name = role.as_str();
    let what = format!("role {name} of {} on {}", principal.as_str(), assignment.scope);
    let command = delete(assignment);
    let asked = given.wishes.azure.roles;
    match fate(given, assignment, principal, role) {
        Fate::MayGo(risk) if asked => {
            left.risks.push(format!("{what}: {risk}"));
            left.steps.push(Step::RemoveRole { assignment: assignment.clone(), what });
        }
        Fate::MayGo(note) => {
            left.clean_up.push(CleanUp { what, command, flag: Some(Flag::RemoveRoles), note });
        }
        Fate::Unsure(note) => left.clean_up.push(CleanUp { what, command, flag: None, note }),
        Fate::Needed(why) if asked => left.kept.push(Kept { what, why }),
        Fate::Needed(_) => {}
    }
}

/// Whether the nodes' identity was brought along: AKS makes its own in the nodes' group.
fn brought_along(azure: &AzureSide) -> bool {
    let outside = |kubelet: &ArmId| azure.node_group.as_ref().is_none_or(|g| !kubelet.is_within(g));
    azure.kubelet.as_ref().is_some_and(outside)
}

fn fate(
    given: Given<'_>,
    assignment: &ObservedAssignment,
    principal: ClusterPrincipal,
    role: Role,
) -> Fate {
    let Given { estate, azure, .. } = given;
    let scope = &assignment.scope;
    // Source: Microsoft documentation, "Use a pre-created kubelet managed identity": the control
    // plane puts that identity on nodes, which takes this role over it, by whatever scope.
    let covers = azure.kubelet.as_ref().is_some_and(|kubelet| kubelet.is_within(scope));
    if azure.kubelet.as_ref() == Some(scope)
        || (covers
            && brought_along(azure)
            && (principal, role) == (ClusterPrincipal::ControlPlane, Role::Operator))
    {
        return Fate::Needed(
            "AKS itself needs it, to put the identity of the nodes on new ones".to_owned(),
        );
    }
    if let Some(at) = azure.placed.get(scope) {
        return Fate::Needed(format!("the record of the cluster names that identity ({at})"));
    }
    if let Some(other) = azure.elsewhere.get(&assignment.principal_id) {
        return Fate::Unsure(format!("cluster {other} acts as it, too, and has Pod Identity"));
    }
    let known = estate.azure.keys().any(|id| id == scope);
    let is_group = scope.resource_group().is_some() && scope.resource_type().is_none();
    let holds_known = is_group && estate.azure.keys().any(|id| id.is_within(scope));
    let on_nodes = azure.node_group.as_ref() == Some(scope);
    match (role, principal) {
        // The AKS add-on gives the role to the cluster identity, on each identity alone.
        (Role::Operator, _) if known => Fate::MayGo(lost_identity(azure, principal, scope)),
        (Role::Operator, ClusterPrincipal::Kubelet) if on_nodes || holds_known => {
            Fate::MayGo(lost_group(azure, scope))
        }
        (Role::Contributor, ClusterPrincipal::Kubelet) if on_nodes => {
            Fate::MayGo(lost_machines(azure))
        }
        (Role::Operator, ClusterPrincipal::Kubelet) => Fate::Unsure(if is_group {
            "nothing that was read says that Pod Identity used an identity of that group".to_owned()
        } else if scope.resource_type().as_deref() == Some(IDENTITY) {
            "nothing that was read says that Pod Identity used that identity".to_owned()
        } else {
            "its scope is wider than Pod Identity's documentation asks for".to_owned()
        }),
        (Role::Contributor, ClusterPrincipal::Kubelet) => Fate::Unsure(
            "Pod Identity's documentation asks for it on the nodes' resource group only".to_owned(),
        ),
        (Role::Operator | Role::Contributor, ClusterPrincipal::ControlPlane) => {
            Fate::Unsure("AKS or an add-on of it may act by this role".to_owned())
        }
    }
}

/// Who else acts as the nodes' identity cannot be read where it was brought along.
fn others(azure: &AzureSide) -> &'static str {
    if brought_along(azure) {
        "; the identity was brought along, so that another cluster that acts as it loses it, too"
    } else {
        ""
    }
}

fn lost_identity(azure: &AzureSide, principal: ClusterPrincipal, scope: &ArmId) -> String {
    let others = match principal {
        ClusterPrincipal::Kubelet => others(azure),
        ClusterPrincipal::ControlPlane => "",
    };
    format!("the cluster can put {} on no machine any more{others}", scope.name())
}

fn lost_group(azure: &AzureSide, scope: &ArmId) -> String {
    let (group, others) = (scope.name(), others(azure));
    format!("the nodes can put no identity of {group} on a machine any more{others}")
}

fn lost_machines(azure: &AzureSide) -> String {
    format!(
        "what you installed that changes nodes or disks as the kubelet identity, such as a cluster \
         autoscaler or a CSI driver of your own, fails{}",
        others(azure)
    )
}

/// Identities of Pod Identity on the scale sets. One that neither an `AzureIdentity` nor a backup
/// names is not even listed: it may be anybody's.
fn nodes(given: Given<'_>, left: &mut Left) {
    let Given { estate, azure, .. } = given;
    let asked = given.wishes.azure.node_identities;
    let mut sets: Vec<&ScaleSet> = azure.scale_sets.iter().collect();
    sets.sort_by(|a, b| a.id.cmp(&b.id));
    for set in sets {
        let mut going = Vec::new();
        for identity in set.identities.iter().filter(|id| estate.azure.contains_key(*id)) {
            let what = format!("identity {} on scale set {}", identity.name(), set.id.name());
            let kubelet = azure.kubelet.as_ref() == Some(identity);
            let placed = azure.placed.get(identity).map(String::as_str);
            match placed.or(kubelet.then_some("the nodes' identity")) {
                Some(at) if asked => {
                    let why = format!("the record of the cluster names it ({at})");
                    left.kept.push(Kept { what, why });
                }
                Some(_) => {}
                None if asked => going.push(identity.clone()),
                None => left.clean_up.push(CleanUp {
                    what,
                    command: unassign(&set.id, std::slice::from_ref(identity)),
                    flag: Some(Flag::RemoveNodeIdentities),
                    note: unassigned(given, set),
                }),
            }
        }
        if !going.is_empty() {
            let names: Vec<&str> = going.iter().map(ArmId::name).collect();
            let at = format!("{} on scale set {}", names.join(", "), set.id.name());
            left.risks.push(format!("{at}: {}", unassigned(given, set)));
            left.steps.push(Step::Unassign { set: set.id.clone(), identities: going });
        }
    }
}

/// Takes identities from a scale set by hand.
pub(super) fn unassign(set: &ArmId, identities: &[ArmId]) -> String {
    let ids: Vec<&str> = identities.iter().map(ArmId::as_str).collect();
    format!(
        "az vmss identity remove --resource-group {} --name {} --identities {}",
        set.resource_group().unwrap_or_default(),
        set.name(),
        ids.join(" ")
    )
}

/// Deletes a role assignment by hand.
pub(super) fn delete(assignment: &ObservedAssignment) -> String {
    format!("az role assignment delete --ids {}", assignment.id)
}

/// What may be lost with an identity of the nodes, and what a scale set does about its instances.
fn unassigned(given: Given<'_>, set: &ScaleSet) -> String {
    let users = surroundings::users(given).len();
    let mut risk = match users {
        0 => "what asks the metadata endpoint of these nodes for it is refused".to_owned(),
        1 => "a pod that may live on the nodes' identities is refused if it asks for it".to_owned(),
        _ => {
            "pods that may live on the nodes' identities are refused if they ask for it".to_owned()
        }
    };
    if set.manual {
        // Source: Microsoft documentation, "Upgrade policy modes for Virtual Machine Scale Sets".
        risk.push_str(
            "; its upgrade policy is Manual: an instance may keep it until its image is renewed \
             (az aks nodepool upgrade --node-image-only)",
        );
    }
    risk
}
