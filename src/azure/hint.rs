//! The next command to type after a failed request, where one is likely to help.

use super::error::{ArmError, ServerError};
use crate::model::FailureKind;

/// What a 403 of Azure's authorization says is missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing<'a> {
    /// The object id of the caller.
    pub object_id: &'a str,
    /// The action, for example `Microsoft.Authorization/roleAssignments/write`.
    pub action: &'a str,
    /// The scope.
    pub scope: &'a str,
}

fn quoted<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let rest = &text[start..];
    rest.find('\'').map(|end| &rest[..end])
}

/// Reads action and scope out of `AuthorizationFailed` and `LinkedAuthorizationFailed`.
///
/// Source: Microsoft documentation on troubleshooting Azure RBAC, which quotes these messages.
pub(super) fn missing(message: &str) -> Option<Missing<'_>> {
    let object_id = quoted(message, "with object id '")?;
    let (action, scope) = match quoted(message, "permission to perform action '") {
        Some(action) if message.contains("linked scope(s) '") => {
            // "has permission to perform action 'X' …; does not have permission to perform action 'Y'"
            let second = message.rsplit("permission to perform action '").next()?;
            let linked = second.split('\'').next().unwrap_or(action);
            (linked, quoted(message, "linked scope(s) '")?)
        }
        _ => (quoted(message, "perform action '")?, quoted(message, "over scope '")?),
    };
    let plain = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.()*, ".contains(c))
    };
    // The command is pasted into a shell: nothing a server made up may reach it.
    [object_id, action, scope].into_iter().all(plain).then_some(Missing {
        object_id,
        action,
        scope,
    })
}

/// The least built-in role that holds an action which widentity needs.
fn role(action: &str) -> Option<&'static str> {
    let action = action.to_lowercase();
    let rest = |prefix: &str| action.strip_prefix(prefix);
    if rest("microsoft.authorization/roleassignments/").is_some_and(|verb| verb != "read") {
        Some("Role Based Access Control Administrator")
    } else if action.ends_with("/read") {
        Some("Reader")
    } else if action == "microsoft.managedidentity/userassignedidentities/assign/action" {
        Some("Managed Identity Operator")
    } else if rest("microsoft.managedidentity/").is_some() {
        Some("Managed Identity Contributor")
    } else if rest("microsoft.containerservice/managedclusters/listclusterusercredential").is_some()
    {
        Some("Azure Kubernetes Service Cluster User Role")
    } else if rest("microsoft.containerservice/").is_some() {
        Some("Azure Kubernetes Service Contributor Role")
    } else if rest("microsoft.compute/virtualmachinescalesets/").is_some() {
        Some("Virtual Machine Contributor")
    } else {
        None
    }
}

/// What to look at where nobody answers.
pub(super) const THE_WAY: &str = "check the way there: network, HTTPS_PROXY, `cloud` in the file";

/// What to do where Entra cannot serve.
pub(super) const NOT_NOW: &str = "Entra, or something before it, cannot serve now: run again later";

pub(super) fn hint(error: &ArmError) -> Option<String> {
    match error {
        ArmError::Answer(error) | ArmError::Operation { error, .. } => of_server(error),
        ArmError::Followed { error } => hint(error),
        ArmError::Credential { why: FailureKind::Unavailable, .. } => Some(NOT_NOW.to_owned()),
        ArmError::Credential { why, .. } if why.is_unanswered() => Some(THE_WAY.to_owned()),
        ArmError::Credential { .. } => {
            Some("az login, or choose a credential with --auth".to_owned())
        }
        ArmError::Unreachable { .. } => Some(THE_WAY.to_owned()),
        ArmError::Body { .. }
        | ArmError::ForeignLink { .. }
        | ArmError::Pages { .. }
        | ArmError::BadPath { .. }
        | ArmError::TimedOut { .. }
        | ArmError::Refused { .. } => None,
    }
}

fn of_server(error: &ServerError) -> Option<String> {
    if error.status == 401 {
        return Some("az login, or choose a credential with --auth".to_owned());
    }
    if error.has_code("MissingSubscriptionRegistration") {
        let namespace = quoted(&error.message, "namespace '")?;
        let plain = namespace.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
        return plain.then(|| format!("az provider register --namespace {namespace}"));
    }
    if error.has_code("ScopeLocked") {
        return Some("somebody locked it on purpose: az lock list --output table".to_owned());
    }
    if error.has_code("DenyAssignmentAuthorizationFailed") {
        // Source: Microsoft documentation, "Fully managed resource group with node resource group
        // lockdown".
        return Some(
            "a deny assignment stands on it, for example the lockdown of AKS's node resource \
             group: az aks show --query nodeResourceGroupProfile"
                .to_owned(),
        );
    }
    let missing = (error.status == 403).then(|| missing(&error.message)).flatten()?;
    let Missing { object_id, action, scope } = missing;
    Some(match role(action) {
        Some(role) => format!(
            "az role assignment create --assignee-object-id {object_id} --role \"{role}\" \
             --scope \"{scope}\"   # {action}"
        ),
        None => format!("grant {action} on {scope} to {object_id}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: &str = "/subscriptions/0/resourceGroups/rg";

    #[test]
    fn a_403_names_the_missing_action_and_a_command() {
        let message = format!(
            "The client 'ci' with object id '5a7' does not have authorization to perform action \
             'Microsoft.Authorization/roleAssignments/write' over scope '{SCOPE}' or the scope is \
             invalid. If access was recently granted, please refresh your credentials."
        );
        let error = ServerError { status: 403, message, ..ServerError::default() };
        assert_eq!(
            of_server(&error).unwrap(),
            format!(
                "az role assignment create --assignee-object-id 5a7 --role \"Role Based Access \
                 Control Administrator\" --scope \"{SCOPE}\"   # \
                 Microsoft.Authorization/roleAssignments/write"
            )
        );
    }

    #[test]
    fn the_condition_variant_and_the_linked_one_are_read() {
        let condition = "The client 'a' with object id 'b' does not have authorization or an ABAC \
                         condition not fulfilled to perform action 'X/write' over scope '/s' or";
        assert_eq!(missing(condition).unwrap().action, "X/write");
        let linked = "The client 'a' with object id 'b' has permission to perform action 'X/write' \
                      on scope '/s'; however, it does not have permission to perform action \
                      'Y/assign/action' on the linked scope(s) '/linked' or the linked scope(s) are \
                      invalid.";
        let missing = missing(linked).unwrap();
        assert_eq!((missing.action, missing.scope), ("Y/assign/action", "/linked"));
    }

    #[test]
    fn a_lock_and_a_deny_assignment_are_told_apart_from_a_missing_role() {
        let error = |status, code: &str| ServerError {
            status,
            code: Some(code.to_owned()),
            ..ServerError::default()
        };
        assert!(of_server(&error(409, "ScopeLocked")).unwrap().contains("az lock list"));
        let denied = of_server(&error(403, "DenyAssignmentAuthorizationFailed")).unwrap();
        assert!(denied.contains("nodeResourceGroupProfile"), "{denied}");
    }

    #[test]
    fn nothing_a_server_made_up_reaches_the_command() {
        let evil = "The client 'a' with object id 'b' does not have authorization to perform action \
                    'X/write' over scope '/s\"; rm -rf ~; \"' or";
        assert_eq!(missing(evil), None);
    }
}
