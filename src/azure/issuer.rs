//! An issuer's documents, fetched as Entra fetches them: over the public network, without a
//! credential.
//!
//! Source: `OpenID` Connect Discovery 1.0, §4.

use azure_core::http::{Context, Method, Pipeline, PipelineSendOptions, Request, Url};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    endpoints::Endpoints,
    http::{self, TransportError, innermost},
};
use crate::model::{FailureKind, Issuer, RemoteFailure};

/// What an issuer publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerDocuments {
    /// The `issuer` member of its discovery document.
    pub issuer: Issuer,
    /// The ids of its keys; none where the key set cannot be fetched.
    pub kids: Option<Vec<String>>,
}

/// Fetches issuers' documents.
#[derive(Debug, Clone)]
pub struct Issuers {
    pipeline: Pipeline,
}

#[derive(Deserialize)]
struct Document {
    issuer: Issuer,
    jwks_uri: Option<String>,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kid: Option<String>,
}

impl Issuers {
    /// A client for this cloud.
    pub fn new(endpoints: &Endpoints) -> Result<Self, TransportError> {
        let transport = http::transport(endpoints)?;
        Ok(Self { pipeline: http::pipeline(endpoints, &transport, None) })
    }

    /// The documents of an issuer; none where it answers that it has none.
    pub async fn documents(
        &self,
        issuer: &Issuer,
    ) -> Result<Option<IssuerDocuments>, RemoteFailure> {
        let base = issuer.as_str().trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let Some(document) = self.get::<Document>(&url).await? else { return Ok(None) };
        let keys = match &document.jwks_uri {
            // The key set of another host would be that host's word.
            Some(uri) if same_host(uri, &url) => self.get::<Keys>(uri).await.unwrap_or(None),
            Some(_) | None => None,
        };
        let kids = keys.map(|keys| keys.keys.into_iter().filter_map(|key| key.kid).collect());
        Ok(Some(IssuerDocuments { issuer: document.issuer, kids }))
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<Option<T>, RemoteFailure> {
        let tried = format!("fetch {url}");
        let failure = |kind, message: String| RemoteFailure::new(kind, tried.clone(), message);
        let parsed =
            Url::parse(url).map_err(|error| failure(FailureKind::Refused, error.to_string()))?;
        let mut request = Request::new(parsed, Method::Get);
        request.insert_header("accept", "application/json");
        let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
        let sent = self.pipeline.send(&Context::new(), &mut request, Some(options)).await;
        let response =
            sent.map_err(|error| failure(FailureKind::Unreachable, innermost(&error)))?;
        let (status, _, body) = response.deconstruct();
        match u16::from(status) {
            200 => serde_json::from_slice(body.as_ref()).map(Some).map_err(|_| {
                failure(FailureKind::Refused, "the answer is not such a document".to_owned())
            }),
            404 | 410 => Ok(None),
            status => Err(RemoteFailure {
                status: Some(status),
                ..failure(FailureKind::Refused, format!("status {status}"))
            }),
        }
    }
}

fn same_host(a: &str, b: &str) -> bool {
    let host = |url: &str| {
        let url = Url::parse(url).ok()?;
        Some((url.scheme().to_owned(), url.host_str()?.to_owned(), url.port_or_known_default()))
    };
    host(a).is_some() && host(a) == host(b)
}

#[cfg(test)]
mod tests {
    use super::same_host;

    #[test]
    fn keys_come_from_the_issuers_own_host() {
        assert!(same_host("https://a/x", "https://a:443/y"));
        assert!(!same_host("https://a/x", "http://a/x"));
        assert!(!same_host("https://b/x", "https://a/x"));
        assert!(!same_host("nonsense", "nonsense"));
    }
}
