//! Which link does not fit: a token's claims compared with the credentials of an identity. Pure.

use crate::model::{Audience, Issuer, Subject, TenantId, snapshot::ObservedCredential};

/// How the credentials of an identity stand to a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// One fits issuer, subject and audience.
    Fits {
        /// Its name.
        name: String,
    },
    /// None does; the first reason on the nearest one.
    Misses(Miss),
}

/// Why no credential fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// There are none.
    #[error("the identity has no federated credentials")]
    NoCredentials,
    /// No credential is for this issuer and none for this subject.
    #[error(
        "none of the identity's {count} federated credentials is for issuer `{issuer}` and subject `{subject}`"
    )]
    Nothing {
        /// How many there are.
        count: usize,
        /// The token's issuer.
        issuer: Issuer,
        /// The token's subject.
        subject: Subject,
    },
    /// Subject fits, issuer does not.
    #[error("credential `{name}` has issuer `{has}`, the token has `{token}`{}", slash(has, token))]
    Issuer {
        /// The credential.
        name: String,
        /// Its issuer.
        has: Issuer,
        /// The token's.
        token: Issuer,
    },
    /// Issuer fits, subject does not.
    #[error("credential `{name}` has subject `{has}`, the token has `{token}`{}", case(has, token))]
    Subject {
        /// The credential.
        name: String,
        /// Its subject.
        has: Subject,
        /// The token's.
        token: Subject,
    },
    /// Issuer and subject fit, the audience does not.
    #[error("credential `{name}` has audience `{has}`, the token has `{token}`")]
    Audience {
        /// The credential.
        name: String,
        /// Its audiences.
        has: String,
        /// The token's.
        token: Audience,
    },
}

fn slash(has: &Issuer, token: &Issuer) -> &'static str {
    let same = has.as_str().trim_end_matches('/') == token.as_str().trim_end_matches('/');
    if same { ": they differ in the trailing slash" } else { "" }
}

fn case(has: &Subject, token: &Subject) -> &'static str {
    let same = has.as_str().eq_ignore_ascii_case(token.as_str());
    if same { ": they differ in upper and lower case" } else { "" }
}

/// Compares a token's claims with the credentials, byte for byte as Entra does.
pub fn compare(
    issuer: &Issuer,
    subject: &Subject,
    audience: &Audience,
    credentials: &[ObservedCredential],
) -> Match {
    let near_subject = |c: &&ObservedCredential| {
        c.subject.as_ref().is_some_and(|s| s.as_str().eq_ignore_ascii_case(subject.as_str()))
    };
    let of_issuer = |c: &&ObservedCredential| c.issuer == *issuer;
    let of_subject = |c: &&ObservedCredential| c.subject.as_ref() == Some(subject);
    let pair = |c: &&ObservedCredential| of_issuer(c) && of_subject(c);

    if let Some(found) = credentials.iter().find(|c| pair(c) && c.audiences.contains(audience)) {
        return Match::Fits { name: found.name.clone() };
    }
    let miss = if let Some(found) = credentials.iter().find(pair) {
        let has: Vec<&str> = found.audiences.iter().map(Audience::as_str).collect();
        let (name, has) = (found.name.clone(), has.join(", "));
        Miss::Audience { name, has, token: audience.clone() }
    } else if let Some((found, has)) = credentials
        .iter()
        .filter(|c| of_issuer(c) && near_subject(c))
        .find_map(|c| Some((c, c.subject.clone()?)))
    {
        Miss::Subject { name: found.name.clone(), has, token: subject.clone() }
    } else if let Some(found) = credentials.iter().find(of_subject) {
        let (name, has) = (found.name.clone(), found.issuer.clone());
        Miss::Issuer { name, has, token: issuer.clone() }
    } else if let [only] = credentials
        && of_issuer(&only)
        && let Some(has) = only.subject.clone()
    {
        Miss::Subject { name: only.name.clone(), has, token: subject.clone() }
    } else if credentials.is_empty() {
        Miss::NoCredentials
    } else {
        let (issuer, subject) = (issuer.clone(), subject.clone());
        Miss::Nothing { count: credentials.len(), issuer, subject }
    };
    Match::Misses(miss)
}

/// What a code says that no credential can explain: the tenant or the cloud is another one.
///
/// Source: Microsoft documentation, "Microsoft Entra authentication and authorization error codes".
pub fn of_code(code: u32, tenant: TenantId, scope: &str) -> Option<String> {
    match code {
        90_002 | 900_023 => Some(format!(
            "this authority does not know tenant {tenant}: is `tenant` right, and is `cloud` the \
             tenant's?"
        )),
        500_011 => {
            let resource = scope.trim_end_matches("/.default");
            Some(format!(
                "tenant {tenant} does not know {resource}: is `cloud` the tenant's, and the service \
                 one that it uses?"
            ))
        }
        700_016 => Some(format!(
            "the identity is not one of tenant {tenant}: write its own as the workload's `tenant`"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_no_credential_explains_name_tenant_and_cloud() {
        let tenant: TenantId = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        let of = |code| of_code(code, tenant, "https://management.chinacloudapi.cn/.default");
        assert!(
            of(500_011).unwrap().contains("does not know https://management.chinacloudapi.cn:")
        );
        assert!(of(90_002).unwrap().contains("00000000-0000-0000-0000-000000000001"));
        assert!(of(700_016).unwrap().contains("`tenant`"));
        assert_eq!(of(700_213), None);
    }

    const ISSUER: &str = "https://westeurope.oic.prod-aks.azure.com/t/u/";
    const SUBJECT: &str = "system:serviceaccount:payments:api";

    fn credential(issuer: &str, subject: &str, audience: &str) -> ObservedCredential {
        ObservedCredential {
            name: "c".into(),
            issuer: issuer.into(),
            subject: Some(subject.into()),
            audiences: vec![audience.into()],
        }
    }

    fn of(credentials: &[ObservedCredential]) -> Match {
        compare(&ISSUER.into(), &SUBJECT.into(), &Audience::default(), credentials)
    }

    fn words(credentials: &[ObservedCredential]) -> String {
        match of(credentials) {
            Match::Fits { name } => format!("fits {name}"),
            Match::Misses(miss) => miss.to_string(),
        }
    }

    #[test]
    fn the_first_link_that_does_not_fit_is_named() {
        let audience = Audience::DEFAULT;
        assert_eq!(words(&[credential(ISSUER, SUBJECT, audience)]), "fits c");
        assert_eq!(words(&[]), "the identity has no federated credentials");
        assert!(
            words(&[credential(ISSUER.trim_end_matches('/'), SUBJECT, audience)])
                .ends_with("they differ in the trailing slash")
        );
        assert!(
            words(&[credential(ISSUER, "system:serviceaccount:payments:API", audience)])
                .ends_with("they differ in upper and lower case")
        );
        assert!(words(&[credential(ISSUER, SUBJECT, "api://other")]).contains("`api://other`"));
        assert!(
            words(&[credential("https://other/", "system:serviceaccount:x:y", audience)])
                .starts_with("none of the identity's 1")
        );
    }

    #[test]
    fn a_flexible_credential_is_passed_over() {
        let mut flexible = credential(ISSUER, SUBJECT, Audience::DEFAULT);
        flexible.subject = None;
        assert!(matches!(of(&[flexible]), Match::Misses(Miss::Nothing { .. })));
    }
}
