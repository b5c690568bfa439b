//! Every failure that is known, in one table.

use serde::Serialize;

use super::{arm, entra, messages, migration, own};
use crate::diagnose::link::Link;

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Entra's token endpoint.
    Entra,
    /// An Azure Identity library or a program that uses one.
    Library,
    /// Kubernetes or its admission.
    Kubernetes,
    /// Azure Resource Manager.
    Arm,
    /// AAD Pod Identity or the instance metadata service.
    PodIdentity,
    /// widentity.
    Widentity,
}

/// A known failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// `AADSTS…`, or a stable name of ours.
    pub code: &'static str,
    /// Who says it.
    pub family: Family,
    /// Phrases it is recognised by, without regard to case. Entra's codes need none.
    pub phrases: &'static [&'static str],
    /// What it is, in a few words.
    pub title: &'static str,
    /// What is the case. `{issuer}`, `{subject}`, `{audience}`, `{client}`, `{tenant}`,
    /// `{namespace}`, `{account}` and `{scope}` stand for values found in the text.
    pub cause: &'static str,
    /// What to type or do next, with the same placeholders.
    pub next: &'static str,
    /// The link of the chain it is about.
    pub link: Option<Link>,
}

/// All entries.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    let ours = own::ENTRIES.iter().chain(migration::ENTRIES);
    entra::ENTRIES.iter().chain(messages::ENTRIES).chain(arm::ENTRIES).chain(ours)
}

/// The entry of a code, in any case, with or without `AADSTS`.
pub fn lookup(code: &str) -> Option<&'static Entry> {
    let code = code.trim().trim_end_matches([':', '.', ',']);
    let numeric = !code.is_empty() && code.chars().all(|c| c.is_ascii_digit());
    let code = if numeric { format!("AADSTS{code}") } else { code.to_owned() };
    all().find(|entry| entry.code.eq_ignore_ascii_case(&code))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_every_entry_says_something() {
        let mut seen = BTreeSet::new();
        for entry in all() {
            assert!(seen.insert(entry.code.to_lowercase()), "{} twice", entry.code);
            assert!(!entry.cause.is_empty() && !entry.title.is_empty(), "{}", entry.code);
            assert!(!entry.next.is_empty(), "{}", entry.code);
            assert!(
                entry.phrases.iter().all(|phrase| phrase.len() >= 12),
                "{}: a short phrase finds too much",
                entry.code
            );
        }
        assert!(seen.len() > 150, "{}", seen.len());
    }

    #[test]
    fn a_code_is_found_however_it_is_written() {
        for code in ["AADSTS700213", "aadsts700213:", "700213", " 700213 "] {
            assert_eq!(lookup(code).unwrap().code, "AADSTS700213");
        }
        assert_eq!(lookup("issuer-off").unwrap().family, Family::Widentity);
        assert!(lookup("AADSTS1").is_none() && lookup("").is_none());
    }
}
