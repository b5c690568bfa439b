//! What Kubernetes and Azure take as names. Sources: Kubernetes documentation, "Object Names and
//! IDs"; Microsoft documentation, "Naming rules and restrictions for Azure resources".

/// Why a name is refused, and one that would be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// A fragment that follows the name, for example `has upper-case letters`.
    pub reason: String,
    /// The name as it could be.
    pub instead: Option<String>,
}

fn refused(reason: impl Into<String>, instead: Option<String>) -> Result<(), Refused> {
    Err(Refused { reason: reason.into(), instead })
}

/// An RFC 1123 label: a namespace.
pub(super) fn dns_label(text: &str) -> Result<(), Refused> {
    dns(text, 63, &|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-', "`-`")
}

/// An RFC 1123 subdomain: a service account, a workload.
pub(super) fn dns_subdomain(text: &str) -> Result<(), Refused> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    dns(text, 253, &allowed, "`-` and `.`")?;
    if text.split('.').any(|part| part.is_empty() || part.starts_with('-') || part.ends_with('-')) {
        return refused("has a part that begins or ends with `-`, or is empty", None);
    }
    Ok(())
}

fn dns(
    text: &str,
    longest: usize,
    allowed: &dyn Fn(char) -> bool,
    marks: &str,
) -> Result<(), Refused> {
    if text.is_empty() {
        return refused("is empty", None);
    }
    let count = text.chars().count();
    if count > longest {
        return refused(format!("has {count} characters; {longest} are allowed"), None);
    }
    if let Some(c) = text.chars().find(|c| !allowed(*c)) {
        let reason = if c.is_ascii_uppercase() {
            "has upper-case letters".to_owned()
        } else {
            format!("has {c:?}; a-z, 0-9, {marks} are allowed")
        };
        let lower = text.to_ascii_lowercase().replace(['_', ' '], "-");
        let likely = lower.chars().all(allowed)
            && lower.starts_with(|c: char| c.is_ascii_alphanumeric())
            && lower.ends_with(|c: char| c.is_ascii_alphanumeric());
        return refused(reason, likely.then_some(lower));
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !text.ends_with(|c: char| c.is_ascii_alphanumeric())
    {
        return refused("must begin and end with a letter or a digit", None);
    }
    Ok(())
}

/// A user-assigned identity.
pub(super) fn identity(text: &str) -> Result<(), Refused> {
    let count = text.chars().count();
    if !(3..=128).contains(&count) {
        return refused(format!("has {count} characters; 3 to 128 are allowed"), None);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if let Some(c) = text.chars().find(|c| !allowed(*c)) {
        return refused(format!("has {c:?}; letters, digits, `-` and `_` are allowed"), None);
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return refused("must begin with a letter or a digit", None);
    }
    Ok(())
}

/// A resource group. Letters and digits of any script are allowed.
pub(super) fn resource_group(text: &str) -> Result<(), Refused> {
    let count = text.chars().count();
    if !(1..=90).contains(&count) {
        return refused(format!("has {count} characters; 1 to 90 are allowed"), None);
    }
    if text.starts_with('/') {
        return refused("is an id; only the name is wanted", last_segment(text));
    }
    let allowed = |c: char| c.is_alphanumeric() || "_-.()".contains(c);
    if let Some(c) = text.chars().find(|c| !allowed(*c)) {
        let reason = format!("has {c:?}; letters, digits, `_`, `-`, `.` and brackets are allowed");
        return refused(reason, None);
    }
    if text.ends_with('.') { refused("ends with `.`", None) } else { Ok(()) }
}

fn last_segment(text: &str) -> Option<String> {
    text.rsplit('/').next().filter(|last| !last.is_empty()).map(str::to_owned)
}

/// The owner mark.
pub(super) fn project(text: &str) -> Result<(), Refused> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let count = text.chars().count();
    if !(1..=40).contains(&count) {
        return refused(format!("has {count} characters; 1 to 40 are allowed"), None);
    }
    if let Some(c) = text.chars().find(|c| !allowed(*c)) {
        let reason = if c.is_ascii_uppercase() {
            "has upper-case letters".to_owned()
        } else {
            format!("has {c:?}; a-z, 0-9 and `-` are allowed")
        };
        let lower = text.to_ascii_lowercase().replace(['_', ' ', '.', '/'], "-");
        return refused(reason, lower.chars().all(allowed).then_some(lower));
    }
    Ok(())
}

/// The key of a cluster: it stands behind `@` in addresses.
pub(super) fn cluster(text: &str) -> Result<(), Refused> {
    let count = text.chars().count();
    if !(1..=63).contains(&count) {
        return refused(format!("has {count} characters; 1 to 63 are allowed"), None);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if let Some(c) = text.chars().find(|c| !allowed(*c)) {
        return refused(format!("has {c:?}; letters, digits, `-`, `_` and `.` are allowed"), None);
    }
    Ok(())
}

/// A region, as ARM writes it. The display name (`West Europe`) would be taken by Azure too, and
/// then shown otherwise by every read.
pub(super) fn location(text: &str) -> Result<(), Refused> {
    let plain: String =
        text.chars().filter(|c| *c != ' ' && *c != '-').collect::<String>().to_lowercase();
    let good = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if good(text) {
        return Ok(());
    }
    refused("is not written as Azure names regions", good(&plain).then_some(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instead(found: Result<(), Refused>) -> Option<String> {
        found.unwrap_err().instead
    }

    #[test]
    fn dns_names_are_lower_case_and_begin_and_end_well() {
        assert_eq!(dns_label("payments"), Ok(()));
        assert_eq!(instead(dns_label("Payments_API")).as_deref(), Some("payments-api"));
        assert!(dns_label("a.b").is_err());
        assert_eq!(dns_subdomain("a.b-c.d"), Ok(()));
        for wrong in ["", "-a", "a-", "a..b", "a.-b", "ä", &"x".repeat(254)] {
            assert!(dns_subdomain(wrong).is_err(), "{wrong}");
        }
        assert!(dns_label(&"x".repeat(64)).is_err());
    }

    #[test]
    fn azure_names_follow_azure() {
        assert_eq!(identity("wi_p_n_a"), Ok(()));
        for wrong in ["ab", "_ab", "a b c", "a.b.c", &"x".repeat(129)] {
            assert!(identity(wrong).is_err(), "{wrong}");
        }
        assert_eq!(resource_group("rg-(prod)_1.é"), Ok(()));
        for wrong in ["", "rg.", "rg/x", "rg?", "/subscriptions/x"] {
            assert!(resource_group(wrong).is_err(), "{wrong}");
        }
        assert_eq!(location("westeurope"), Ok(()));
        assert_eq!(instead(location("West Europe")).as_deref(), Some("westeurope"));
        assert_eq!(instead(project("Payments_Prod")).as_deref(), Some("payments-prod"));
    }
}
