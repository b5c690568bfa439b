//! Keys that almost are those of workload identity.

use super::difference::edits;
use crate::model::names;

/// What the webhook's namespace of keys is, normalised: separators and case taken away.
fn normal(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether `key` was probably meant to be `right`: the same but for separators and case
/// (`azure.workload-identity/client-id`, `azure.workload.identity/client_id`), a slip of two
/// letters, or the bare name (`client-id`, `azure-client-id`).
pub(super) fn meant(key: &str, right: &str) -> bool {
    if key == right {
        return false;
    }
    let (have, want) = (normal(key), normal(right));
    let bare = right.rsplit('/').next().map(normal).unwrap_or_default();
    let name = key.rsplit('/').next().map(normal).unwrap_or_default();
    have == want
        || edits(&have, &want, 2) <= 2 && name == bare
        || edits(&have, &want, 1) <= 1
        || (have == bare && right != names::USE_LABEL)
        || have == format!("azure{bare}")
        || (key.contains("azure") && key.contains("identity") && name == bare)
}

/// The first key of `keys` that was probably meant to be `right`.
pub(super) fn near<'a>(keys: impl IntoIterator<Item = &'a String>, right: &str) -> Option<&'a str> {
    keys.into_iter().map(String::as_str).find(|key| meant(key, right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_keys_of_public_guides_are_recognised() {
        for key in [
            "azure.workload-identity/client-id",
            "azure.workload.identity/client_id",
            "azure.workload.identity/clientId",
            "azure.workload.identity/clientid",
            "azure-workload-identity/client-id",
            "azure.workload.identty/client-id",
            "azure.identity.workload/client-id",
            "client-id",
        ] {
            assert!(meant(key, names::CLIENT_ID_ANNOTATION), "{key}");
        }
        for key in [
            "azure.workload.identity/client-id",
            "azure.workload.identity/tenant-id",
            "eks.amazonaws.com/role-arn",
            "app.kubernetes.io/name",
        ] {
            assert!(!meant(key, names::CLIENT_ID_ANNOTATION), "{key}");
        }
        assert!(meant("azure.workload-identity/use", names::USE_LABEL));
        assert!(!meant("use", names::USE_LABEL));
    }
}
