//! Probes: does the identity reach what its role should let it reach? Each lists or reads one
//! thing; what comes back is not looked at.

use azure_core::http::{
    Context, Method, Pipeline, PipelineSendOptions, Request, headers::AUTHORIZATION,
};
use url::Url;

use super::{
    address::address,
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
/// Source: Azure App Configuration REST documentation, "Keys".
const APP_CONFIGURATION_API: &str = "1.0";
/// The version by which any resource is asked first. A type that does not have it names those that
/// it has, and the newest of these is asked.
const RESOURCE_API: &str = "2021-04-01";

/// Sends probes.
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

/// An answer.
struct Answer {
    status: u16,
    body: Vec<u8>,
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
        let endpoints = &self.endpoints;
        match kind {
            ProbeKind::KeyVault => format!("https://{}/.default", endpoints.key_vault_suffix),
            // One audience in every cloud.
            ProbeKind::Blob => "https://storage.azure.com/.default".to_owned(),
            ProbeKind::AppConfiguration => endpoints.app_configuration_scope.clone(),
            ProbeKind::ResourceManager => endpoints.arm_scope.clone(),
        }
    }

    /// The address that is asked, if it lies in this cloud: the identity's token goes nowhere else.
    fn target(&self, probe: &Probe) -> Result<Url, String> {
        let endpoints = &self.endpoints;
        let (suffix, path, query) = match probe.kind {
            ProbeKind::KeyVault => (
                &endpoints.key_vault_suffix,
                "secrets",
                format!("api-version={KEY_VAULT_API}&maxresults=1"),
            ),
            ProbeKind::Blob => (&endpoints.blob_suffix, "", "comp=list&maxresults=1".to_owned()),
            ProbeKind::AppConfiguration => (
                &endpoints.app_configuration_suffix,
                "keys",
                format!("api-version={APP_CONFIGURATION_API}"),
            ),
            ProbeKind::ResourceManager => return self.resource(&probe.url, RESOURCE_API),
        };
        let mut url =
            Url::parse(&probe.url).map_err(|_| format!("`{}` is not a URL", probe.url))?;
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let in_cloud = url.scheme() == "https" && host.ends_with(&format!(".{suffix}"));
        if !in_cloud && !is_loopback(&url) {
            return Err(format!("`{}` is not an https address below {suffix}", probe.url));
        }
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(path);
        }
        url.set_query(Some(&query));
        url.set_fragment(None);
        Ok(url)
    }

    fn resource(&self, id: &str, version: &str) -> Result<Url, String> {
        address(&self.endpoints.resource_manager, id, &[("api-version", version)])
            .map_err(|error| error.to_string())
    }

    /// Lists one thing of the service with the identity's token, or reads the resource.
    pub async fn probe(&self, probe: &Probe, token: &Token) -> ProbeOutcome {
        let answer = match self.target(probe) {
            Ok(url) => self.ask(url, probe.kind, token).await,
            Err(message) => return ProbeOutcome::Unusable { message },
        };
        let newest = match &answer {
            Ok(answer) if probe.kind == ProbeKind::ResourceManager => newest_version(answer),
            Ok(_) | Err(_) => None,
        };
        let answer = match newest.map(|version| self.resource(&probe.url, &version)) {
            Some(Ok(url)) => self.ask(url, probe.kind, token).await,
            Some(Err(_)) | None => answer,
        };
        match answer {
            Ok(answer) => judge(probe.kind, &answer),
            Err(message) => ProbeOutcome::Unreachable { message },
        }
    }

    async fn ask(&self, url: Url, kind: ProbeKind, token: &Token) -> Result<Answer, String> {
        let mut request = Request::new(url, Method::Get);
        request.insert_header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        if kind == ProbeKind::Blob {
            request.insert_header("x-ms-version", STORAGE_VERSION);
        }
        let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
        let sent = self.pipeline.send(&Context::new(), &mut request, Some(options)).await;
        let response = sent.map_err(|error| innermost(&error))?;
        let (status, body) = (u16::from(response.status()), response.body().as_ref().to_vec());
        Ok(Answer { status, body })
    }
}

/// The newest general version that a refusal of a version lists.
///
/// Source: Microsoft documentation on `NoRegisteredProviderFound`, which quotes the message: "The
/// supported api-versions are '…, …'".
fn newest_version(answer: &Answer) -> Option<String> {
    if answer.status != 400 {
        return None;
    }
    let error = ServerError::parse(answer.status, &answer.body);
    let listed = error.message.split_once("supported api-versions are '")?.1;
    let listed = listed.split_once('\'')?.0.split(',').map(str::trim);
    let general = |version: &&str| {
        version.len() == 10 && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    };
    listed.filter(general).max().map(str::to_owned)
}

/// The code of Storage's XML errors.
fn xml_code(body: &str) -> Option<&str> {
    body.split_once("<Code>")?.1.split_once("</Code>").map(|(code, _)| code)
}

/// The title of a problem document (RFC 9457), as App Configuration answers.
fn problem_title(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Problem {
        title: String,
    }
    let problem: Problem = serde_json::from_slice(body).ok()?;
    Some(problem.title.chars().take(200).collect())
}

/// Whether a 403 is a firewall's, which says nothing about roles.
///
/// Key Vault says so in an inner code. Storage's general code stands for its network rules; a
/// missing role has a code of its own. App Configuration does not document the body of its refusal;
/// its words are looked at.
fn is_firewall(kind: ProbeKind, words: &str) -> bool {
    match kind {
        ProbeKind::KeyVault => {
            words.contains("ForbiddenByFirewall") || words.contains("ForbiddenByConnection")
        }
        ProbeKind::Blob => {
            matches!(xml_code(words), Some("AuthorizationFailure" | "PublicAccessNotPermitted"))
        }
        ProbeKind::AppConfiguration => {
            let words = words.to_ascii_lowercase();
            ["public network access", "public access is disabled", "private endpoint", "ip address"]
                .iter()
                .any(|sign| words.contains(sign))
        }
        ProbeKind::ResourceManager => false,
    }
}

fn judge(kind: ProbeKind, answer: &Answer) -> ProbeOutcome {
    let status = answer.status;
    if (200..300).contains(&status) {
        return ProbeOutcome::Passed;
    }
    let words = String::from_utf8_lossy(&answer.body);
    let message = match (xml_code(&words), problem_title(&answer.body)) {
        (Some(code), _) => code.to_owned(),
        (None, Some(title)) => title,
        (None, None) => ServerError::parse(status, &answer.body).to_string(),
    };
    match status {
        403 if is_firewall(kind, &words) => ProbeOutcome::Unreachable { message },
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

    fn judged(kind: ProbeKind, status: u16, body: &[u8]) -> ProbeOutcome {
        judge(kind, &Answer { status, body: body.to_vec() })
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
        assert_eq!(
            target(ProbeKind::AppConfiguration, "https://store.azconfig.io"),
            "https://store.azconfig.io/keys?api-version=1.0"
        );
        assert_eq!(
            target(ProbeKind::ResourceManager, "/subscriptions/s/resourceGroups/rg"),
            "https://management.azure.com/subscriptions/s/resourceGroups/rg?api-version=2021-04-01"
        );
    }

    #[test]
    fn each_cloud_has_its_own_audiences() {
        let scopes = |endpoints: &Endpoints| {
            use ProbeKind::{AppConfiguration, Blob, KeyVault, ResourceManager};
            let prober = Prober::new(endpoints).unwrap();
            [KeyVault, Blob, AppConfiguration, ResourceManager].map(|kind| prober.scope(kind))
        };
        assert_eq!(
            scopes(&Endpoints::us_government()),
            [
                "https://vault.usgovcloudapi.net/.default",
                "https://storage.azure.com/.default",
                "https://appconfig.azure.us/.default",
                "https://management.usgovcloudapi.net/.default",
            ]
        );
        assert_eq!(
            scopes(&Endpoints::china()),
            [
                "https://vault.azure.cn/.default",
                "https://storage.azure.com/.default",
                "https://appconfig.azure.cn/.default",
                "https://management.chinacloudapi.cn/.default",
            ]
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
        for id in ["https://evil.example/subscriptions/s", "//evil.example/subscriptions/s"] {
            let target = prober().target(&probe(ProbeKind::ResourceManager, id));
            let ours = |url: &Url| url.host_str() == Some("management.azure.com");
            assert!(target.as_ref().is_ok_and(ours) || target.is_err(), "{id}: {target:?}");
        }
    }

    #[test]
    fn a_firewall_is_told_from_a_missing_role() {
        let vault = br#"{"error":{"code":"Forbidden","message":"Client address is not authorized","innererror":{"code":"ForbiddenByFirewall"}}}"#;
        let vault = judged(ProbeKind::KeyVault, 403, vault);
        assert!(matches!(vault, ProbeOutcome::Unreachable { .. }));
        let role = br#"{"error":{"code":"Forbidden","message":"Caller is not authorized","innererror":{"code":"ForbiddenByRbac"}}}"#;
        let role = judged(ProbeKind::KeyVault, 403, role);
        assert!(matches!(role, ProbeOutcome::Denied { status: 403, .. }));
        let storage =
            b"<?xml version=\"1.0\"?><Error><Code>AuthorizationPermissionMismatch</Code></Error>";
        assert_eq!(
            judged(ProbeKind::Blob, 403, storage),
            ProbeOutcome::Denied { status: 403, message: "AuthorizationPermissionMismatch".into() }
        );
        let network = b"<Error><Code>AuthorizationFailure</Code></Error>";
        let network = judged(ProbeKind::Blob, 403, network);
        assert!(matches!(network, ProbeOutcome::Unreachable { .. }));
        let private =
            br#"{"title":"Forbidden","detail":"Public access is disabled for your store"}"#;
        let private = judged(ProbeKind::AppConfiguration, 403, private);
        assert!(matches!(private, ProbeOutcome::Unreachable { .. }));
        let empty = judged(ProbeKind::AppConfiguration, 403, b"");
        assert!(matches!(empty, ProbeOutcome::Denied { .. }));
        // The code of Storage's network rules is not a firewall's elsewhere.
        let arm = br#"{"error":{"code":"AuthorizationFailed","message":"no"}}"#;
        let arm = judged(ProbeKind::ResourceManager, 403, arm);
        assert!(matches!(arm, ProbeOutcome::Denied { .. }));
        assert_eq!(judged(ProbeKind::Blob, 200, b""), ProbeOutcome::Passed);
        assert!(matches!(judged(ProbeKind::Blob, 404, b""), ProbeOutcome::Unusable { .. }));
    }

    #[test]
    fn the_newest_general_version_of_a_refusal_is_taken() {
        let body = br#"{"error":{"code":"NoRegisteredProviderFound","message":"No registered resource provider found for location 'westeurope' and API version '2021-04-01' for type 'vaults'. The supported api-versions are '2016-10-01, 2023-07-01, 2024-12-01-preview, 2022-07-01'. The supported locations are 'westeurope'."}}"#;
        let answer = |status| Answer { status, body: body.to_vec() };
        assert_eq!(newest_version(&answer(400)).as_deref(), Some("2023-07-01"));
        assert_eq!(newest_version(&answer(403)), None);
        assert_eq!(newest_version(&Answer { status: 400, body: Vec::new() }), None);
    }
}
