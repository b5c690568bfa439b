//! GUIDs and ARM ids: what is wrong with one, said so that it can be mended.

use std::str::FromStr;

use uuid::Uuid;

use super::Problems;
use crate::{
    config::{code::Code, diagnostic::Diagnostic, source::Located},
    model::ArmId,
};

/// A GUID of any meaning.
pub(super) fn guid<T: FromStr>(
    text: &Located<String>,
    name: &str,
    problems: &mut Problems,
) -> Option<T> {
    let parsed = text.value.parse().ok();
    if parsed.is_none() {
        let written = &text.value;
        let mut problem = Diagnostic::at(
            Code::InvalidGuid,
            text.span,
            format!("`{name}` is not a GUID: {}", guid_fault(written)),
        );
        if let Ok(guid) = Uuid::try_parse(written.trim()) {
            problem = problem.help(format!("write it as `{}`", guid.hyphenated()));
        }
        problems.push(problem);
    }
    parsed
}

fn guid_fault(text: &str) -> String {
    if text.is_empty() {
        return "it is empty".to_owned();
    }
    if text.trim() != text {
        return "it has white space around it".to_owned();
    }
    if text.starts_with('/') {
        return "it is an id; only the GUID is wanted".to_owned();
    }
    if text.starts_with('<') || text.contains('…') {
        return "it is a placeholder".to_owned();
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_hexdigit() && *c != '-') {
        if text.contains('.') {
            return "it looks like a domain name".to_owned();
        }
        return format!("{c:?} is not a hexadecimal digit");
    }
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    if groups != [8, 4, 4, 4, 12] {
        let shown: Vec<String> = groups.iter().map(ToString::to_string).collect();
        return format!("its groups have {} digits, not 8-4-4-4-12", shown.join("-"));
    }
    "it is not hyphenated as 8-4-4-4-12".to_owned()
}

/// What is wrong with an ARM id or scope, as a fragment; the id if nothing is.
pub(super) fn scope(text: &str) -> Result<ArmId, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.chars().any(char::is_control) || text.trim() != text {
        return Err("it has white space or control characters".to_owned());
    }
    if text.contains("://") {
        return Err(match text.find("/subscriptions/") {
            Some(at) if text.contains("portal.azure") => {
                let rest = text[at..].split(['?', '#']).next().unwrap_or_default();
                format!("it is an address of the portal; the id begins at `{rest}`")
            }
            _ => "it is a URL; an id begins with `/subscriptions/`".to_owned(),
        });
    }
    if text.contains(['?', '#', '%', '\\', '<', '>', '…', '*']) {
        return Err("it has a character that no id has".to_owned());
    }
    let Some(path) = text.strip_prefix('/') else {
        return Err("it does not begin with `/`".to_owned());
    };
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Ok(ArmId::new("/"));
    }
    let mut segments = path.split('/');
    let mut rest = segments.clone();
    if segments.any(str::is_empty) {
        return Err("it has an empty segment (`//`)".to_owned());
    }
    let mut next = rest.next();
    if is(next, "subscriptions") {
        let subscription = rest.next().ok_or("it ends before the subscription's GUID")?;
        if subscription.len() != 36 || Uuid::try_parse(subscription).is_err() {
            return Err(format!(
                "`{subscription}` is not a subscription's GUID: {}",
                guid_fault(subscription)
            ));
        }
        next = rest.next();
        if is(next, "resourcegroups") {
            let group = rest.next().ok_or("it ends before the resource group's name")?;
            super::names::resource_group(group)
                .map_err(|refused| format!("the resource group `{group}` {}", refused.reason))?;
            next = rest.next();
        }
    }
    while let Some(segment) = next {
        if !segment.eq_ignore_ascii_case("providers") {
            return Err(format!("`{segment}` stands where `{}` belongs", expected(text)));
        }
        let provider = rest.next().ok_or("it ends before the resource provider")?;
        if !provider.contains('.') {
            return Err(format!(
                "`{provider}` is not a resource provider such as Microsoft.KeyVault"
            ));
        }
        let mut kind = rest.next().ok_or("it ends before the resource type")?;
        loop {
            rest.next().ok_or_else(|| format!("it ends at `{kind}`, before the name"))?;
            next = rest.next();
            match next {
                Some(segment) if !segment.eq_ignore_ascii_case("providers") => kind = segment,
                _ => break,
            }
        }
    }
    Ok(ArmId::new(text))
}

fn is(segment: Option<&str>, word: &str) -> bool {
    segment.is_some_and(|segment| segment.eq_ignore_ascii_case(word))
}

fn expected(text: &str) -> &'static str {
    let lower = text.to_ascii_lowercase();
    if !lower.starts_with("/subscriptions/") {
        "subscriptions"
    } else if lower.contains("/resourcegroups/") {
        "providers"
    } else {
        "resourceGroups"
    }
}

/// A resource of one type, in a resource group.
pub(super) fn resource(text: &str, wanted: &str, what: &str) -> Result<ArmId, String> {
    let id = scope(text)?;
    let found = id.resource_type();
    if found.as_deref() == Some(&wanted.to_lowercase()) && id.resource_group().is_some() {
        return Ok(id);
    }
    Err(match found.as_deref() {
        None => format!("it ends before the resource; {what} is a `{wanted}`"),
        Some("microsoft.kubernetes/connectedclusters") => {
            format!("it is an Arc-enabled cluster; {what} is a `{wanted}`")
        }
        Some(found) if found.starts_with(&format!("{}/", wanted.to_lowercase())) => {
            format!("it names a part of {what} (`{found}`)")
        }
        Some(found) if found == wanted.to_lowercase() => "it has no resource group".to_owned(),
        Some(found) => format!("it is a `{found}`; {what} is a `{wanted}`"),
    })
}

/// A scope or resource of the file; what is wrong is reported.
pub(super) fn checked(
    text: &Located<String>,
    name: &str,
    help: &str,
    check: impl FnOnce(&str) -> Result<ArmId, String>,
    problems: &mut Problems,
) -> Option<ArmId> {
    match check(&text.value) {
        Ok(id) => Some(id),
        Err(fault) => {
            problems.push(
                Diagnostic::at(
                    Code::InvalidArmId,
                    text.span,
                    format!("`{name}` is not an id that can be used"),
                )
                .label(fault)
                .help(help),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg";

    #[test]
    fn scopes_of_every_level_are_taken() {
        for good in [
            "/",
            "/subscriptions/11111111-1111-1111-1111-111111111111",
            GROUP,
            "/providers/Microsoft.Management/managementGroups/m",
            &format!("{GROUP}/providers/Microsoft.KeyVault/vaults/kv/secrets/s"),
            &format!("{}/PROVIDERS/microsoft.storage/storageaccounts/s/", GROUP.to_uppercase()),
            &format!("{GROUP}/providers/A.B/c/d/providers/E.F/g/h"),
        ] {
            assert!(scope(good).is_ok(), "{good}: {:?}", scope(good));
        }
    }

    #[test]
    fn faults_are_named() {
        for (wrong, fault) in [
            (&GROUP[1..], "does not begin with `/`"),
            ("/subscriptions/prod/resourceGroups/rg", "not a subscription's GUID"),
            ("/resourceGroups/rg", "where `subscriptions` belongs"),
            (&format!("{GROUP}/Microsoft.KeyVault/vaults/kv"), "where `providers` belongs"),
            (&format!("{GROUP}/providers/Microsoft.KeyVault/vaults"), "before the name"),
            (&format!("{GROUP}//providers"), "empty segment"),
            (
                &format!("https://portal.azure.com/#@contoso/resource{GROUP}/overview"),
                "begins at `/subscriptions/",
            ),
            (" /subscriptions", "white space"),
        ] {
            let found = scope(wrong).unwrap_err();
            assert!(found.contains(fault), "{wrong}: {found}");
        }
    }

    #[test]
    fn a_wrong_type_is_named() {
        let wanted = "Microsoft.ContainerService/managedClusters";
        let check = |rest: &str| resource(&format!("{GROUP}{rest}"), wanted, "a cluster");
        assert!(check("/providers/microsoft.containerservice/MANAGEDCLUSTERS/c").is_ok());
        for (rest, fault) in [
            ("", "ends before the resource"),
            ("/providers/Microsoft.KeyVault/vaults/kv", "is a `microsoft.keyvault/vaults`"),
            ("/providers/Microsoft.Kubernetes/connectedClusters/c", "Arc-enabled"),
            (
                "/providers/Microsoft.ContainerService/managedClusters/c/agentPools/p",
                "a part of a cluster",
            ),
        ] {
            let found = check(rest).unwrap_err();
            assert!(found.contains(fault), "{rest}: {found}");
        }
    }
}
