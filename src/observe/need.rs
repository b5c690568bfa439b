//! What the chosen workloads need to be known: pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    ArmId, ClusterName, Namespace, SubscriptionId,
    desired::{DesiredState, Role},
};

/// The type whose settings decide whether a role assignment means anything.
const VAULT: &str = "microsoft.keyvault/vaults";

/// What is to be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    /// Clusters of chosen workloads, with the namespaces of these.
    pub clusters: BTreeMap<ClusterName, BTreeSet<Namespace>>,
    /// Identities of chosen workloads.
    pub identities: BTreeSet<ArmId>,
    /// Scopes of role assignments, with the identities that want one there.
    pub scopes: BTreeMap<ArmId, BTreeSet<ArmId>>,
    /// Where role assignments are listed whole: subscriptions, and scopes outside any.
    pub listed: BTreeSet<ArmId>,
    /// Custom roles by name, each with the scopes it is looked up at: one per subscription.
    pub roles: BTreeMap<String, BTreeMap<Option<SubscriptionId>, ArmId>>,
    /// Vaults, with the scopes that are or lie in them.
    pub vaults: BTreeMap<ArmId, BTreeSet<ArmId>>,
}

impl Need {
    pub(super) fn of(desired: &DesiredState) -> Self {
        let mut need = Self::default();
        for (workload, cluster) in desired.placements() {
            let namespaces = need.clusters.entry(cluster.name.clone()).or_default();
            namespaces.insert(workload.namespace.clone());
            need.identities.insert(workload.identity.clone());
        }
        let chosen = desired.assignments.iter().filter(|assignment| {
            assignment.workloads.iter().any(|index| desired.workload(*index).is_selected())
        });
        for assignment in chosen {
            let scope = &assignment.scope;
            let identity = assignment.identity.clone();
            need.scopes.entry(scope.clone()).or_default().insert(identity);
            need.listed.insert(listing(scope));
            if let Role::Named { name } = &assignment.role {
                let scopes = need.roles.entry(name.clone()).or_default();
                scopes.entry(scope.subscription()).or_insert_with(|| scope.clone());
            }
            if let Some(vault) = vault_of(scope) {
                need.vaults.entry(vault).or_default().insert(scope.clone());
            }
        }
        // Marks of ours may be left where the file's own identities live.
        need.listed.insert(ArmId::of_subscription(desired.home.subscription));
        need
    }
}

/// Where the role assignments of a scope are listed: its subscription, or the scope itself for a
/// management group and the root.
pub(super) fn listing(scope: &ArmId) -> ArmId {
    scope.subscription().map_or_else(|| scope.clone(), ArmId::of_subscription)
}

/// The vault that a scope is or lies in.
fn vault_of(scope: &ArmId) -> Option<ArmId> {
    let kind = scope.resource_type()?;
    if kind != VAULT && !kind.starts_with(&format!("{VAULT}/")) {
        return None;
    }
    let segments: Vec<&str> = scope.as_str().split('/').collect();
    let provider = segments.iter().rposition(|s| s.eq_ignore_ascii_case("providers"))?;
    Some(ArmId::new(segments.get(..provider + 4)?.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_is_found_from_what_lies_in_it() {
        let vault = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/g/providers/\
                     Microsoft.KeyVault/vaults/kv";
        assert_eq!(vault_of(&ArmId::new(vault)), Some(ArmId::new(vault)));
        assert_eq!(vault_of(&ArmId::new(format!("{vault}/secrets/s"))), Some(ArmId::new(vault)));
        assert_eq!(vault_of(&ArmId::new("/subscriptions/x")), None);
        assert_eq!(vault_of(&ArmId::new(vault.replace("vaults", "vaultsandmore"))), None);
    }

    #[test]
    fn assignments_are_listed_by_subscription_or_where_there_is_none() {
        let subscription = "/subscriptions/00000000-0000-0000-0000-000000000001";
        let group = "/providers/Microsoft.Management/managementGroups/mg";
        assert_eq!(
            listing(&ArmId::new(format!("{subscription}/resourceGroups/g"))),
            ArmId::new(subscription)
        );
        assert_eq!(listing(&ArmId::new(group)), ArmId::new(group));
    }
}
