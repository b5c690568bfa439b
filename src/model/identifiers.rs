//! Identifiers as types: a client id cannot land where a principal id belongs.

use std::{cmp::Ordering, fmt, hash, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A GUID that Azure gave or the user wrote is not of the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a GUID")]
pub struct NotAGuid {
    /// What was written.
    pub text: String,
}

macro_rules! guid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = NotAGuid;

            /// Accepts the hyphenated form only, in any case: other forms are typos here.
            fn from_str(text: &str) -> Result<Self, NotAGuid> {
                let guid = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
                guid.map(Self).ok_or_else(|| NotAGuid { text: text.to_owned() })
            }
        }
    };
}

guid!(
    /// The client (application) id of an identity: what the service account is annotated with and
    /// what a token request names.
    ClientId
);
guid!(
    /// The principal (object) id of an identity: what a role is assigned to.
    PrincipalId
);
guid!(
    /// An Entra tenant.
    TenantId
);
guid!(
    /// An Azure subscription.
    SubscriptionId
);
guid!(
    /// The GUID of a role definition. Comparing roles by anything longer is wrong: Azure renders
    /// the definition's id under whichever subscription was asked.
    RoleId
);

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The text as it is.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }
    };
}

text!(
    /// The owner mark, `[a-z0-9-]{1,40}`, unique per subscription.
    Project
);
text!(
    /// A cluster's name in the file: the key of `[clusters.<name>]`.
    ClusterName
);
text!(
    /// A Kubernetes namespace.
    Namespace
);
text!(
    /// A Kubernetes service account's name.
    AccountName
);
text!(
    /// An OIDC issuer URL, compared byte for byte, trailing slash included. Entra stopped
    /// forgiving a missing slash (Azure/azure-workload-identity#1700).
    Issuer
);
text!(
    /// A token's subject, `system:serviceaccount:<namespace>:<service account>`. Compared with case.
    Subject
);
text!(
    /// A federated token's audience, `api://AzureADTokenExchange` unless a cloud says otherwise.
    Audience
);

impl Namespace {
    /// Whether the admissions enforcer of AKS keeps third-party webhooks away from it, so that no
    /// pod in it is ever injected.
    ///
    /// Source: Azure Workload Identity documentation, "Known issues";
    /// Azure/azure-workload-identity#525, ratify-project/ratify#1121.
    pub fn is_kept_from_webhooks(&self) -> bool {
        matches!(self.as_str(), "kube-system" | "gatekeeper-system" | "aks-command")
    }
}

impl Subject {
    /// The subject of every token that Kubernetes issues for this account.
    pub fn of(namespace: &Namespace, account: &AccountName) -> Self {
        Self(format!("system:serviceaccount:{namespace}:{account}"))
    }
}

impl Audience {
    /// The audience that the workload identity webhook asks tokens for, in every cloud.
    pub const DEFAULT: &'static str = "api://AzureADTokenExchange";
}

macro_rules! empty_by_default {
    ($($name:ident),*) => {$(
        impl Default for $name {
            /// The empty text, for records that leave it out.
            fn default() -> Self {
                Self(String::new())
            }
        }
    )*};
}

empty_by_default!(ClusterName, Namespace, AccountName);

impl Default for Audience {
    fn default() -> Self {
        Self::from(Self::DEFAULT)
    }
}

/// An ARM id or scope, shown as written and compared without case, as ARM does.
///
/// Source: Azure Resource Manager RPC, "Case insensitivity for requests".
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ArmId {
    text: String,
    key: String,
}

impl ArmId {
    /// Takes an id as it is written; trailing slashes are dropped.
    pub fn new(text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        while text.len() > 1 && text.ends_with('/') {
            text.pop();
        }
        let key = text.to_lowercase();
        Self { text, key }
    }

    /// The id as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The lower-cased id: what is compared and hashed.
    pub fn key(&self) -> &str {
        &self.key
    }

    fn after(&self, segment: &str) -> Option<&str> {
        let mut rest = self.text.split('/').zip(self.key.split('/'));
        rest.find(|(_, key)| *key == segment)?;
        rest.next().map(|(text, _)| text)
    }

    /// The subscription, if the id lies in one.
    pub fn subscription(&self) -> Option<SubscriptionId> {
        self.after("subscriptions")?.parse().ok()
    }

    /// The resource group's name, if the id lies in one.
    pub fn resource_group(&self) -> Option<&str> {
        self.after("resourcegroups")
    }

    /// The last segment: a resource's name, a resource group's name or a subscription.
    pub fn name(&self) -> &str {
        self.text.rsplit('/').next().unwrap_or_default()
    }

    /// The full type in lower case, for example `microsoft.keyvault/vaults`; none for a
    /// subscription or a resource group.
    pub fn resource_type(&self) -> Option<String> {
        let provider = self.key.rfind("/providers/")? + "/providers/".len();
        let mut segments = self.key[provider..].split('/');
        let namespace = segments.next()?;
        let types: Vec<&str> = segments.step_by(2).collect();
        (!types.is_empty()).then(|| format!("{namespace}/{}", types.join("/")))
    }

    /// Whether this id is `scope` or lies below it. The root `/` contains everything.
    pub fn is_within(&self, scope: &Self) -> bool {
        scope.key == "/"
            || self.key == scope.key
            || self.key.strip_prefix(&scope.key).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The id of a child: `kind` and `name` appended as two segments.
    #[must_use]
    pub fn child(&self, kind: &str, name: &str) -> Self {
        Self::new(format!("{}/{kind}/{name}", self.text.trim_end_matches('/')))
    }

    /// The id of a subscription.
    pub fn of_subscription(subscription: SubscriptionId) -> Self {
        Self::new(format!("/subscriptions/{subscription}"))
    }

    /// The id of a user-assigned identity.
    pub fn of_identity(subscription: SubscriptionId, resource_group: &str, name: &str) -> Self {
        Self::new(format!(
            "/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/\
             Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        ))
    }
}

impl From<String> for ArmId {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for ArmId {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<ArmId> for String {
    fn from(id: ArmId) -> Self {
        id.text
    }
}

impl fmt::Debug for ArmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for ArmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for ArmId {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for ArmId {}

impl PartialOrd for ArmId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ArmId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl hash::Hash for ArmId {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAULT: &str = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-A/\
                         providers/Microsoft.KeyVault/vaults/kv-Payments";

    #[test]
    fn an_arm_id_compares_without_case_and_shows_as_written() {
        let id = ArmId::new(VAULT);
        assert_eq!(id, ArmId::new(VAULT.to_uppercase()));
        assert_eq!(id.as_str(), VAULT);
        assert_eq!(id.name(), "kv-Payments");
        assert_eq!(id.resource_group(), Some("rg-A"));
        assert_eq!(id.resource_type().as_deref(), Some("microsoft.keyvault/vaults"));
    }

    #[test]
    fn a_scope_contains_itself_and_what_lies_below_but_not_a_longer_name() {
        let group = ArmId::new(VAULT.split("/providers").next().unwrap());
        assert!(ArmId::new(VAULT).is_within(&group));
        assert!(group.is_within(&group));
        assert!(group.is_within(&ArmId::new("/")));
        assert!(!ArmId::new(format!("{group}-longer")).is_within(&group));
    }

    #[test]
    fn a_guid_is_hyphenated_or_refused() {
        assert!("8e3af657-a8ff-443c-a75c-2fe8c4bcb635".parse::<RoleId>().is_ok());
        assert!("8e3af657a8ff443ca75c2fe8c4bcb635".parse::<RoleId>().is_err());
    }
}
