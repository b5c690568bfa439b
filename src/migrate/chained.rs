//! Chained federation: a program that presents its identity's token as a credential of something
//! else. Entra refuses that of a token which was itself got by federation (AADSTS700231), so that
//! what works through Pod Identity fails after the switch, and perhaps long after its readiness.
//!
//! The trust stands, as a rule, on an application in Entra, which only Microsoft Graph shows. What
//! can be seen: credentials of the managed identities that were read, and settings of the pod
//! template. For what cannot, the file decides.

use super::{survey::Acts, verdict::Reason};
use crate::model::{
    Issuer,
    desired::DesiredWorkload,
    pod_identity::{AzureIdentityState, Estate, EstateTemplate},
};

const CODE: &str = "chained-federation";
const FEDERATE: &str = "federate the application with the service account itself; or chained = \
                        false, if nothing uses it so";

/// Hosts under which Entra issues tokens, in all clouds.
///
/// Source: Microsoft documentation, "Microsoft Entra authentication endpoints" of the national
/// clouds; version 1 tokens name `sts.windows.net`.
const ENTRA: [&str; 7] = [
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
    "login.chinacloudapi.cn",
    "login.windows.net",
    "sts.windows.net",
    "sts.chinacloudapi.cn",
];

fn is_entra(issuer: &Issuer) -> bool {
    let rest = issuer.as_str().strip_prefix("https://").unwrap_or_default();
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    ENTRA.iter().any(|known| known.eq_ignore_ascii_case(host))
}

/// Why a workload is not ready, if its federation would be chained.
pub(super) fn reason(
    estate: &Estate,
    acts: Option<&Acts>,
    templates: &[&EstateTemplate],
    decided: Option<&DesiredWorkload>,
) -> Option<Reason> {
    match decided.and_then(|decided| decided.chained) {
        Some(false) => return None,
        Some(true) => {
            return Some(Reason::obstacle(
                CODE,
                "the file says that its identity's token is a credential of something else, which \
                 Entra refuses of a federated identity (AADSTS700231)",
                FEDERATE,
            ));
        }
        None => {}
    }
    for template in templates {
        if let Some(variable) = &template.asserts {
            return Some(Reason::obstacle(
                CODE,
                format!(
                    "{} says so by {variable}: its program presents its identity's token as \
                     a credential of an application, which Entra refuses of a federated identity \
                     (AADSTS700231)",
                    template.key()
                ),
                FEDERATE,
            ));
        }
    }
    let principal = acts?.principal.to_string();
    for (id, state) in &estate.azure {
        let AzureIdentityState::Present(_, credentials) = state else { continue };
        let trusts = credentials.iter().find(|credential| {
            let subject = credential.subject.as_ref();
            is_entra(&credential.issuer)
                && subject.is_some_and(|subject| subject.as_str().eq_ignore_ascii_case(&principal))
        });
        if let Some(credential) = trusts {
            return Some(Reason::decision(
                CODE,
                format!(
                    "federated credential {} of identity {} trusts tokens of its identity; if it \
                     presents them, Entra refuses that once it is federated itself (AADSTS700231)",
                    credential.name,
                    id.name()
                ),
                "chained = false, if nothing uses it so; else chained = true",
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_entra_are_entras() {
        let of = |text: &str| is_entra(&Issuer(text.to_owned()));
        for issuer in [
            "https://login.microsoftonline.com/t/v2.0",
            "https://login.microsoftonline.us/t/v2.0",
            "https://sts.windows.net/t/",
            "https://LOGIN.partner.microsoftonline.cn/t/v2.0",
        ] {
            assert!(of(issuer), "{issuer}");
        }
        for issuer in [
            "https://westeurope.oic.prod-aks.azure.com/t/c/",
            "https://login.microsoftonline.com.example/t",
            "https://token.actions.githubusercontent.com",
            "",
        ] {
            assert!(!of(issuer), "{issuer}");
        }
    }
}
