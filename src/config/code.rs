//! The stable codes of configuration problems.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, and is probably not what was meant.
    Warning,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $severity:ident, $description:literal;)*) => {
        /// What kind of problem it is. The text form is stable: scripts and `explain` rely on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $description] $name,)*
        }

        impl Code {
            /// Every code, in the order of this page.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as it is printed, in kebab case.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What it means, in a sentence or two.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)* }
            }
        }
    };
}

codes! {
    FileNotFound = "file-not-found", Error,
        "The configuration file, or a file that it includes, does not exist.";
    FileUnreadable = "file-unreadable", Error,
        "The file exists and cannot be read: it is a directory, or the system refused.";
    FileTooLarge = "file-too-large", Error,
        "A file of the configuration is larger than 4 MiB.";
    FileNotUtf8 = "file-not-utf8", Error,
        "The file is not valid UTF-8, which TOML requires.";
    Syntax = "toml-syntax", Error,
        "The text is not valid TOML.";
    DuplicateKey = "duplicate-key", Error,
        "A key is written twice in one table, which TOML forbids.";
    UnknownKey = "unknown-key", Error,
        "The key means nothing here. A typo that silently drops an access rule would be worse than an error.";
    WrongType = "wrong-type", Error,
        "The value has another type than the key takes.";
    MissingKey = "missing-key", Error,
        "A required key is not there.";
    UnsupportedVersion = "unsupported-version", Error,
        "The file asks for a version of the format that this program does not know.";
    IncludeLoop = "include-loop", Error,
        "A file includes itself, or an included file includes others.";
    IncludeDuplicate = "include-duplicate", Error,
        "One file is included twice.";
    IncludeEmpty = "include-empty", Warning,
        "A pattern in `include` matches no file.";
    NotInInclude = "not-in-include", Error,
        "An included file holds something else than `[[workloads]]` and `[targets]`.";
    DuplicateTarget = "duplicate-target", Error,
        "Two files give the same key of `[targets]`.";
    InvalidProject = "invalid-project", Error,
        "The project is not 1 to 40 of a-z, 0-9 and `-`.";
    InvalidGuid = "invalid-guid", Error,
        "The value is not a GUID in its hyphenated form.";
    InvalidArmId = "invalid-arm-id", Error,
        "The value is not the id of an Azure resource, or of one of the wrong type.";
    InvalidName = "invalid-name", Error,
        "Kubernetes or Azure would refuse the name.";
    InvalidIdentityName = "invalid-identity-name", Error,
        "Azure would refuse the name of the identity: 3 to 128 letters, digits, `-` and `_`, the first a letter or digit.";
    InvalidIdentityTemplate = "invalid-identity-template", Error,
        "`identity_name` has a placeholder other than `{project}`, `{namespace}` and `{service_account}`.";
    InvalidTag = "invalid-tag", Error,
        "Azure would refuse the tag, or it is one of widentity's own.";
    InvalidLocation = "invalid-location", Error,
        "The location is not written as Azure names regions, for example `westeurope`.";
    UnsupportedLocation = "unsupported-location", Warning,
        "Azure documents that identities of this region cannot have federated credentials.";
    InvalidUrl = "invalid-url", Error,
        "The value is not a URL that can be used here.";
    InsecureEndpoint = "insecure-endpoint", Error,
        "Plain http would send tokens in the clear; it is allowed to a loopback address only.";
    InvalidValue = "invalid-value", Error,
        "The value is none of those that the key takes.";
    DuplicateValue = "duplicate-value", Error,
        "A list names the same thing twice.";
    InvalidAudience = "invalid-audience", Error,
        "The audience is empty, longer than 600 characters or holds white space.";
    UnusualAudience = "unusual-audience", Warning,
        "The tokens of the AKS webhook carry `api://AzureADTokenExchange` in every cloud; credentials for another audience match only where the cluster was set up for it.";
    DuplicateCluster = "duplicate-cluster", Error,
        "Two `[clusters]` entries have the same id; issuer and subject may exist once per identity.";
    ContextWithoutAccess = "context-without-access", Error,
        "A cluster says access = \"none\" and how to reach it.";
    NoClusters = "no-clusters", Error,
        "The file has workloads and no cluster.";
    ClustersNotChosen = "clusters-not-chosen", Error,
        "With more than one cluster, a workload must say in which it runs.";
    UnknownCluster = "unknown-cluster", Error,
        "The cluster is not in `[clusters]`.";
    UnknownTarget = "unknown-target", Error,
        "The key is not in `[targets]`.";
    UnknownRole = "unknown-role", Error,
        "The role is not a built-in one that widentity knows, and so near to one that it is probably misspelt.";
    GrantIncomplete = "grant-incomplete", Error,
        "A grant needs a role and a target.";
    GrantAmbiguous = "grant-ambiguous", Error,
        "A workload has both `target`/`role` and `grants`.";
    GrantMissing = "grant-missing", Error,
        "A workload grants nothing and does not say so with grants = [].";
    GrantDuplicate = "grant-duplicate", Error,
        "A workload has the same role on the same target twice.";
    GrantConditionConflict = "grant-condition-conflict", Error,
        "One identity is given the same role on the same target with different conditions. Azure keeps one assignment of identity, role and target.";
    GrantCannotWork = "grant-cannot-work", Error,
        "The role assignment would succeed and give the workload nothing: the service does not ask ARM roles, the role belongs to another service, or it manages the resource without opening its data. A management role written as its GUID is taken as meant.";
    PrivilegedRole = "privileged-role", Warning,
        "The role lets the workload give itself every other role.";
    WideScope = "wide-scope", Warning,
        "The target is a whole subscription, a management group or everything.";
    DuplicateWorkload = "duplicate-workload", Error,
        "Two workloads have the same namespace and service account.";
    IdentityShared = "identity-shared", Error,
        "Workloads share an identity, and not all of them say so with `identity`.";
    IdentityControlConflict = "identity-control-conflict", Error,
        "One identity is named both by its name (made and tagged) and by its full id (never touched).";
    TooManyCredentials = "too-many-credentials", Error,
        "Azure allows 20 federated credentials on one identity, over all clusters.";
    DefaultServiceAccount = "default-service-account", Warning,
        "Every pod of the namespace that names no service account would get the identity.";
    SystemNamespace = "system-namespace", Warning,
        "AKS keeps admission webhooks out of this namespace, so pods may not be injected.";
    InvalidExpiration = "invalid-expiration", Error,
        "The webhook takes token lifetimes from 3600 to 86400 seconds.";
    InvalidPods = "invalid-pods", Error,
        "An entry of `pods` is not kind/name of something that stamps pods.";
    ProbeUnclear = "probe-unclear", Error,
        "A probe needs a kind and a URL, or exactly one grant that they follow from.";
    NoWorkloads = "no-workloads", Warning,
        "The file has no workloads, so there is nothing to do.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// No configuration problem has this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a code of a configuration problem")]
pub struct UnknownCode;

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(UnknownCode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_kebab_case_and_read_back() {
        for code in Code::ALL {
            let text = code.as_str();
            assert!(text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            assert_eq!(text.parse(), Ok(*code));
        }
    }
}
