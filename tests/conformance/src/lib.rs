//! Lets the clients of two retired `azure_core` versions send their requests with one reqwest
//! client that trusts the sandbox's certificate authority.
//!
//! Their own transports are left out: the clients are built for their models, URLs and error
//! parsing. As the api-versions of `azure_mgmt_containerservice` 0.10 are switched off, [`Bridge`]
//! can send its requests with another one.

use std::sync::Arc;

/// Forwards requests to reqwest.
#[derive(Debug, Clone)]
pub struct Bridge {
    client: reqwest::Client,
    /// The api-version instead of the one that the crate asks for.
    api_version: Option<&'static str>,
}

/// Why a request got no answer.
#[derive(Debug)]
struct Unanswered(String);

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unanswered {}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Bridge {
    /// A bridge that trusts the certificate authority in `ca_pem` and no other.
    pub fn new(ca_pem: &[u8]) -> reqwest::Result<Self> {
        let ca = reqwest::Certificate::from_pem(ca_pem)?;
        let client = reqwest::Client::builder()
            .tls_certs_only([ca])
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { client, api_version: None })
    }

    /// The same bridge, which sends `api_version` whatever the crate asks for.
    pub fn with_api_version(&self, api_version: &'static str) -> Self {
        Self { api_version: Some(api_version), ..self.clone() }
    }

    /// The client itself, for requests beside the crates'.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    async fn forward(
        &self,
        method: &str,
        url: &str,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    ) -> Result<Answer, Unanswered> {
        let failed = |error: &dyn std::fmt::Display| Unanswered(error.to_string());
        let mut url = reqwest::Url::parse(url).map_err(|error| failed(&error))?;
        if let Some(version) = self.api_version {
            let kept: Vec<(String, String)> = url
                .query_pairs()
                .filter(|(name, _)| name != "api-version")
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect();
            url.query_pairs_mut().clear().extend_pairs(kept).append_pair("api-version", version);
        }
        let method: reqwest::Method = method.parse().map_err(|_| failed(&"method"))?;
        let mut request = self.client.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.map_err(|error| failed(&error))?;
        let text = |value: &reqwest::header::HeaderValue| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        Ok(Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().iter().map(|(n, v)| (n.to_string(), text(v))).collect(),
            body: answer.bytes().await.map_err(|error| failed(&error))?.to_vec(),
        })
    }
}

macro_rules! http_client {
    ($core:ident) => {
        #[async_trait::async_trait]
        impl $core::HttpClient for Bridge {
            async fn execute_request(
                &self,
                request: &$core::Request,
            ) -> $core::Result<$core::Response> {
                use $core::error::{Error, ErrorKind};
                let body = match request.body() {
                    $core::Body::Bytes(bytes) => bytes.to_vec(),
                    // The management crates send JSON only.
                    $core::Body::SeekableStream(_) => {
                        let error = Unanswered("streams are not sent".to_owned());
                        return Err(Error::new(ErrorKind::Io, error));
                    }
                };
                let header = |name: &$core::headers::HeaderName,
                              value: &$core::headers::HeaderValue| {
                    (name.as_str().to_owned(), value.as_str().to_owned())
                };
                let headers = request.headers().iter().map(|(n, v)| header(n, v)).collect();
                let method = request.method().to_string();
                let answer = self
                    .forward(&method, request.url().as_str(), headers, body)
                    .await
                    .map_err(|error| Error::new(ErrorKind::Io, error))?;
                let mut headers = $core::headers::Headers::new();
                for (name, value) in answer.headers {
                    headers.insert(name, value);
                }
                let status = $core::StatusCode::try_from(answer.status)
                    .map_err(|_| Error::new(ErrorKind::Io, Unanswered("status".to_owned())))?;
                let body = $core::BytesStream::new(answer.body);
                Ok($core::Response::new(status, headers, Box::pin(body)))
            }
        }
    };
}

http_client!(azure_core_010);
http_client!(azure_core_021);

/// A token that was fetched before, as the credential of either version.
pub struct Fixed(pub String);

impl std::fmt::Debug for Fixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fixed")
    }
}

fn tomorrow() -> time::OffsetDateTime {
    time::OffsetDateTime::now_utc() + time::Duration::DAY
}

#[async_trait::async_trait]
impl azure_core_010::auth::TokenCredential for Fixed {
    async fn get_token(
        &self,
        _resource: &str,
    ) -> azure_core_010::Result<azure_core_010::auth::TokenResponse> {
        let token = azure_core_010::auth::AccessToken::new(self.0.clone());
        Ok(azure_core_010::auth::TokenResponse::new(token, tomorrow()))
    }
}

#[async_trait::async_trait]
impl azure_core_021::auth::TokenCredential for Fixed {
    async fn get_token(
        &self,
        _scopes: &[&str],
    ) -> azure_core_021::Result<azure_core_021::auth::AccessToken> {
        Ok(azure_core_021::auth::AccessToken::new(self.0.clone(), tomorrow()))
    }

    async fn clear_cache(&self) -> azure_core_021::Result<()> {
        Ok(())
    }
}

/// The three management clients over one bridge.
pub struct Clients {
    /// Managed identities and their federated credentials.
    pub msi: azure_mgmt_msi::Client,
    /// Role assignments and definitions.
    pub authorization: azure_mgmt_authorization::Client,
    /// Managed clusters, with a current api-version.
    pub clusters: azure_mgmt_containerservice::Client,
    /// Managed clusters, with the api-version that the crate asks for.
    pub retired: azure_mgmt_containerservice::Client,
}

impl Clients {
    /// Clients of the Azure Resource Manager at `endpoint`, with `token`.
    pub fn new(endpoint: &str, token: &str, bridge: &Bridge) -> azure_core_021::Result<Self> {
        let credential = Arc::new(Fixed(token.to_owned()));
        let url = azure_core_021::Url::parse(endpoint)
            .map_err(|error| azure_core_021::Error::new(azure_core_021::error::ErrorKind::Io, error))?;
        let scopes = [&*format!("{endpoint}/.default")];
        let transport = || azure_core_021::TransportOptions::new(Arc::new(bridge.clone()));
        let clusters = |bridge: Bridge| {
            azure_mgmt_containerservice::Client::builder(credential.clone())
                .endpoint(endpoint.trim_end_matches('/'))
                .scopes(&scopes)
                .retry(azure_core_010::RetryOptions::none())
                .transport(azure_core_010::TransportOptions::new(Arc::new(bridge)))
                .build()
        };
        Ok(Self {
            msi: azure_mgmt_msi::Client::builder(credential.clone())
                .endpoint(url.clone())
                .scopes(&scopes)
                .retry(azure_core_021::RetryOptions::none())
                .transport(transport())
                .build()?,
            authorization: azure_mgmt_authorization::Client::builder(credential.clone())
                .endpoint(url)
                .scopes(&scopes)
                .retry(azure_core_021::RetryOptions::none())
                .transport(transport())
                .build()?,
            clusters: clusters(bridge.with_api_version("2025-10-01")),
            retired: clusters(bridge.clone()),
        })
    }
}
