//! Data-plane probes: does the identity reach what its role should let it reach?

use azure_core::http::{
    Context, Method, Pipeline, PipelineSendOptions, Request, headers::AUTHORIZATION,
};
use url::Url;

use super::{
    endpoints::{Endpoints, is_loopback},
    error::ServerError,
    http::{self, TransportError, innermost},
};
use crate::model::{
    Token,
    desired::{Probe, ProbeKind},
};

/// Source: Azure Key Vault REST documentation, "Get Secrets".
const KEY_VAULT_API: &str = "7.4";
/// Source: Azure Storage REST documentation, "List Containers".
const STORAGE_VERSION: &str = "2023-11-03";

/// Sends data-plane probes.
#[derive(Debug, Clone)]
pub struct Prober {
    pipeline: Pipeline,
    endpoints: Endpoints,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The service answered as one who may.
    Passed,
    /// The service knows the identity and refuses it: the role is missing, wrong, or not yet
    /// known there.
    Denied {
        /// The HTTP status.
        status: u16,
        /// The service's code or words.
        message: String,
    },
    /// The service cannot be reached from here: a private endpoint, a firewall, a wrong name.
    /// Says nothing about the role.
    Unreachable {
        /// Why.
        message: String,
    },
    /// The probe makes no sense: its address, or what answered there.
    Unusable {
        /// Why.
        message: String,
    },
}

impl Prober {
    /// A prober for this cloud.
    pub fn new(endpoints: &Endpoints) -> Result<Self, TransportError> {
        let transport = http::transport(endpoints)?;
        let pipeline = http::pipeline(endpoints, &transport, None);
        Ok(Self { pipeline, endpoints: endpoints.clone() })
    }

    /// The scope of the token that this kind of probe presents.
    pub fn scope(&self, kind: ProbeKind) -> String {
        match kind {
            ProbeKind::KeyVault => format!("https://{}/.default", self.endpoints.key_vault_suffix),
            // One audience in every cloud.
            ProbeKind::Blob => "https://storage.azure.com/.default".to_owned(),
        }
    }

    /// The address that is asked, if the probe's URL lies in this cloud: the identity's token goes
    /// nowhere else.
    fn target(&self, probe: &Probe) -> Result<Url, String> {
        let url = Url::parse(&probe.url).map_err(|_| format!("`{}` is not a URL", probe.url))?;
        let suffix = match probe.kind {
            ProbeKind::KeyVault => &self.endpoints.key_vault_suffix,
            ProbeKind::Blob => &self.endpoints.blob_suffix,
        };
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let in_cloud = url.scheme() == "https" && host.ends_with(&format!(".{suffix}"));
        if !in_cloud && !is_loopback(&url) {
            return Err(format!("`{}` is not an https address below {suffix}", probe.url));
        }
        let mut target = url;
        let query = match probe.kind {
            ProbeKind::KeyVault => {
                if let Ok(mut segments) = target.path_segments_mut() {
                    segments.pop_if_empty().push("secrets");
                }
                format!("api-version={KEY_VAULT_API}&maxresults=1")
            }
            ProbeKind::Blob => {
                if let Ok(mut segments) = target.path_segments_mut() {
                    segments.pop_if_empty().push("");
                }
                "comp=list&maxresults=1".to_owned()
            }
        };
        target.set_query(Some(&query));
        target.set_fragment(None);
        Ok(target)
    }

    /// Lists one secret or one container with the identity's token; what is listed is not looked
    /// at.
    pub async fn probe(&self, probe: &Probe, token: &Token) -> ProbeOutcome {
        let url = match self.target(probe) {
            Ok(url) => url,
            Err(message) => return ProbeOutcome::Unusable { message },
        };
        let mut request = Request::new(url, Method::Get);
        request.insert_header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        if probe.kind == ProbeKind::Blob {
            request.insert_header("x-ms-version", STORAGE_VERSION);
        }
        let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
        match self.pipeline.send(&Context::new(), &mut request, Some(options)).await {
            Ok(response) => judge(u16::from(response.status()), response.body().as_ref()),
            Err(error) => ProbeOutcome::Unreachable { message: innermost(&error) },
        }
    }
}

/// The code of Storage's XML errors.
fn xml_code(body: &str) -> Option<&str> {
    body.split_once("<Code>")?.1.split_once("</Code>").map(|(code, _)| code)
}

fn judge(status: u16, body: &[u8]) -> ProbeOutcome {
    if (200..300).contains(&status) {
        return ProbeOutcome::Passed;
    }
    let words = String::from_utf8_lossy(body);
    let error = ServerError::parse(status, body);
    let message = match xml_code(&words) {
        Some(code) => code.to_owned(),
        None => error.to_string(),
    };
    // A firewall answers 403 too. Key Vault says so in an inner code; Storage's general code stands
    // for its network rules, a missing role has a code of its own.
    let firewall = words.contains("ForbiddenByFirewall")
        || words.contains("ForbiddenByConnection")
        || xml_code(&words) == Some("AuthorizationFailure");
    match status {
        403 if firewall => ProbeOutcome::Unreachable { message },
        401 | 403 => ProbeOutcome::Denied { status, message },
        408 | 429 | 500.. => ProbeOutcome::Unreachable { message },
        _ => ProbeOutcome::Unusable { message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Origin;

    fn probe(kind: ProbeKind, url: &str) -> Probe {
        Probe {
            kind,
            url: url.to_owned(),
            origin: Origin { file: "workloads.toml".into(), line: 1, column: 1 },
        }
    }

    fn prober() -> Prober {
        Prober::new(&Endpoints::public()).unwrap()
    }

    #[test]
    fn the_list_endpoints_are_asked_for_one_entry() {
        let target = |kind, url| prober().target(&probe(kind, url)).unwrap().to_string();
        assert_eq!(
            target(ProbeKind::KeyVault, "https://kv.vault.azure.net"),
            "https://kv.vault.azure.net/secrets?api-version=7.4&maxresults=1"
        );
        assert_eq!(
            target(ProbeKind::Blob, "https://st.blob.core.windows.net/"),
            "https://st.blob.core.windows.net/?comp=list&maxresults=1"
        );
    }

    #[test]
    fn the_token_goes_to_no_other_host() {
        for url in [
            "https://evil.example/",
            "https://kv.vault.azure.net.evil.example/",
            "https://evilvault.azure.net/",
            "http://kv.vault.azure.net/",
        ] {
            assert!(prober().target(&probe(ProbeKind::KeyVault, url)).is_err(), "{url}");
        }
    }

    #[test]
    fn a_firewall_is_told_from_a_missing_role() {
        let vault = br#"{"error":{"code":"Forbidden","message":"Client address is not authorized","innererror":{"code":"ForbiddenByFirewall"}}}"#;
        assert!(matches!(judge(403, vault), ProbeOutcome::Unreachable { .. }));
        let role = br#"{"error":{"code":"Forbidden","message":"Caller is not authorized","innererror":{"code":"ForbiddenByRbac"}}}"#;
        assert!(matches!(judge(403, role), ProbeOutcome::Denied { status: 403, .. }));
        let storage =
            b"<?xml version=\"1.0\"?><Error><Code>AuthorizationPermissionMismatch</Code></Error>";
        assert_eq!(
            judge(403, storage),
            ProbeOutcome::Denied { status: 403, message: "AuthorizationPermissionMismatch".into() }
        );
        let network = b"<Error><Code>AuthorizationFailure</Code></Error>";
        assert!(matches!(judge(403, network), ProbeOutcome::Unreachable { .. }));
        assert_eq!(judge(200, b""), ProbeOutcome::Passed);
    }
}
