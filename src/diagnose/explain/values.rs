//! Values that a message carries: issuer, subject, client id and so on.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The issuer of a token.
    Issuer,
    /// Its subject.
    Subject,
    /// Its audience.
    Audience,
    /// A client id, or what stands in its place.
    Client,
    /// A tenant.
    Tenant,
    /// A service account's name.
    Account,
    /// An ARM scope.
    Scope,
    /// What support asks for.
    Correlation,
}

/// At most this many different values of a kind are kept: a log may hold any number.
const KEPT: usize = 8;
/// At most this many characters of a value.
const LONGEST: usize = 300;

/// Values by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Values(pub BTreeMap<Kind, BTreeSet<String>>);

impl Values {
    /// The first value of a kind.
    pub fn first(&self, kind: Kind) -> Option<&str> {
        self.0.get(&kind)?.iter().next().map(String::as_str)
    }

    /// Whether no kind has room for more.
    pub(super) fn add(&mut self, kind: Kind, value: &str) {
        let kept = self.0.entry(kind).or_default();
        if kept.len() < KEPT {
            kept.insert(value.chars().take(LONGEST).collect());
        }
    }
}

/// What stands before a value.
const MARKERS: [(&str, Kind); 24] = [
    ("assertion issuer", Kind::Issuer),
    ("assertion subject", Kind::Subject),
    ("assertion audience", Kind::Audience),
    ("application with identifier", Kind::Client),
    ("in the directory", Kind::Tenant),
    ("the client '", Kind::Client),
    ("tenant identifier", Kind::Tenant),
    ("tenant '", Kind::Tenant),
    ("azure_client_id=", Kind::Client),
    ("azure_tenant_id=", Kind::Tenant),
    ("\"client_id\":", Kind::Client),
    ("\"clientid\":", Kind::Client),
    ("\"tenantid\":", Kind::Tenant),
    ("client_id=", Kind::Client),
    ("clientid ", Kind::Client),
    ("\"iss\":", Kind::Issuer),
    ("\"sub\":", Kind::Subject),
    ("\"aud\":", Kind::Audience),
    ("serviceaccounts \"", Kind::Account),
    ("serviceaccount \"", Kind::Account),
    ("over scope", Kind::Scope),
    ("correlation id:", Kind::Correlation),
    ("correlation_id\":", Kind::Correlation),
    ("login.microsoftonline.com/", Kind::Tenant),
];

/// The value after a marker: in quotes of any kind, or up to the next blank.
fn value(rest: &str) -> Option<&str> {
    let rest = rest.trim_start_matches([' ', ':', '=', '\\', '[', '{']);
    let quote = rest.chars().next()?;
    let value = if matches!(quote, '\'' | '"' | '`') {
        rest[1..].split(quote).next()?.trim_end_matches('\\')
    } else {
        let ends = [' ', ',', ';', '\'', '"', '`', ')', '&', '}', ']', '\t', '\r', '\n', '|', '/'];
        // A URL or an id may hold slashes; what follows the host's name does not.
        let keep_slash = rest.starts_with("http") || rest.starts_with('/');
        let end = rest.find(|c| ends.contains(&c) && !(c == '/' && keep_slash));
        rest[..end.unwrap_or(rest.len())].trim_end_matches(['.', ':'])
    };
    (!value.is_empty() && !value.starts_with("eyJ")).then_some(value)
}

/// Reads the values of one line.
pub(super) fn extract(line: &str, into: &mut Values) {
    let line = line.replace("\\u0027", "'").replace("\\\"", "\"").replace(['‘', '’'], "'");
    let lower = line.to_ascii_lowercase();
    for (marker, kind) in MARKERS {
        for (at, _) in lower.match_indices(marker) {
            // A marker that ends in the opening quote leaves it to `value`.
            let quoted = marker.ends_with(['\'', '"']);
            let start = at + marker.len() - usize::from(quoted);
            let Some(found) = line.get(start..).and_then(value) else { continue };
            let id = matches!(kind, Kind::Tenant) && marker.contains('/');
            if !id || found.len() == 36 {
                into.add(kind, found);
            }
        }
    }
    for (at, _) in lower.match_indices("system:serviceaccount:") {
        let rest = &line[at..];
        let of_subject = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        let end = rest.find(|c| !of_subject(c)).unwrap_or(rest.len());
        let subject = rest[..end].trim_end_matches(['.', ':']);
        if subject.matches(':').count() == 3 {
            into.add(Kind::Subject, subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(line: &str, kind: Kind) -> Option<String> {
        let mut values = Values::default();
        extract(line, &mut values);
        values.first(kind).map(str::to_owned)
    }

    #[test]
    fn values_are_read_in_every_spelling() {
        let sub = "system:serviceaccount:payments:payments-sa";
        for line in [
            "AADSTS700213: No matching federated identity record found for presented assertion subject 'system:serviceaccount:payments:payments-sa'. Check",
            r#"{"error":"AADSTS700213: … presented assertion subject \u0027system:serviceaccount:payments:payments-sa\u0027."}"#,
            r#"msg="assertion subject \"system:serviceaccount:payments:payments-sa\". Check""#,
            "Assertion Subject: 'system:serviceaccount:payments:payments-sa'. Assertion Audience: 'x'",
            "sub is system:serviceaccount:payments:payments-sa.",
        ] {
            assert_eq!(first(line, Kind::Subject).as_deref(), Some(sub), "{line}");
        }
        let line = "AADSTS700016: Application with identifier '/subscriptions/s/x' was not found in the directory 'Contoso'.";
        assert_eq!(first(line, Kind::Client).as_deref(), Some("/subscriptions/s/x"));
        assert_eq!(first(line, Kind::Tenant).as_deref(), Some("Contoso"));
        let line = "POST https://login.microsoftonline.com/7e0c4f52-0000-4000-8000-00000000000a/oauth2/v2.0/token";
        assert_eq!(
            first(line, Kind::Tenant).as_deref(),
            Some("7e0c4f52-0000-4000-8000-00000000000a")
        );
    }

    #[test]
    fn tokens_are_not_values() {
        assert_eq!(first("client_id=eyJhbGciOi.x.y", Kind::Client), None);
    }

    #[test]
    fn what_is_not_ascii_breaks_nothing() {
        let mut values = Values::default();
        extract("assertion issuer 'ä\u{fffd}ß' İ assertion subject 'ö", &mut values);
        assert_eq!(values.first(Kind::Issuer), Some("ä\u{fffd}ß"));
    }
}
