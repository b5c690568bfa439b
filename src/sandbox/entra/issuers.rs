//! Token issuers: serving the documents of the emulated clusters, and fetching any issuer's keys.
//!
//! Issuer URLs of emulated clusters look like those of AKS. A resolver maps their hosts to the
//! loopback socket where the sandbox serves them, so the fetch is a real one: discovery document
//! over HTTPS, then the key set. The issuer of a real cluster is read from its API server.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    http::{Request, StatusCode},
    response::{IntoResponse as _, Response},
    routing::get,
};
use jsonwebtoken::{DecodingKey, jwk::JwkSet};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::Value;

use super::json;
use crate::sandbox::{
    context::Context,
    tls::{self, TlsError},
    tokens,
};

/// Hosts below this name are the sandbox's own issuers.
const AKS: &str = ".oic.prod-aks.azure.com";

/// An issuer's keys could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum IssuerError {
    /// The issuer is not one that a sandbox may reach: only loopback is.
    #[error("the issuer `{0}` is not on loopback")]
    NotLocal(String),
    /// Fetching a document.
    #[error("fetching `{url}`")]
    Fetch {
        /// The document.
        url: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A document that is not what OIDC discovery asks for.
    #[error("the document at `{0}` is not valid")]
    Document(String),
}

/// The public keys of one issuer.
pub(super) struct Keys(JwkSet);

impl Keys {
    /// Whether one of the keys made the token's RS256 signature.
    pub(super) fn verify(&self, jwt: &str) -> bool {
        let kid = jsonwebtoken::decode_header(jwt).ok().and_then(|header| header.kid);
        self.0
            .keys
            .iter()
            .filter(|key| kid.is_none() || key.common.key_id == kid)
            .filter_map(|key| DecodingKey::from_jwk(key).ok())
            .any(|key| tokens::verify_rs256(jwt, &key).is_some())
    }
}

/// Fetches issuers' documents.
pub struct Issuers {
    http: reqwest::Client,
    external: BTreeMap<String, kube::Client>,
}

struct Loopback(SocketAddr);

impl Resolve for Loopback {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str();
        let found = if name.ends_with(AKS) {
            Ok(self.0)
        } else if name == "localhost" {
            Ok(SocketAddr::from(([127, 0, 0, 1], 0)))
        } else {
            Err(IssuerError::NotLocal(name.to_owned()))
        };
        Box::pin(async move {
            let address = found?;
            Ok(Box::new(std::iter::once(address)) as Addrs)
        })
    }
}

impl Issuers {
    /// Issuers of the sandbox at the bound address of `ctx`, and of real clusters by issuer URL.
    ///
    /// # Errors
    /// When the sandbox's authority cannot be made or trusted.
    pub fn new(ctx: &Context, external: BTreeMap<String, kube::Client>) -> Result<Self, TlsError> {
        let ca = tls::ca_pem(ctx)?;
        let address = ctx.endpoints.get().map_or_else(|| ([127, 0, 0, 1], 0).into(), |b| b.issuers);
        let broken = |_| TlsError::Setup(rustls::Error::General("the issuer client".to_owned()));
        let ca = reqwest::Certificate::from_pem(ca.as_bytes()).map_err(broken)?;
        let http = reqwest::Client::builder()
            .tls_certs_only([ca])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(10))
            .dns_resolver(Arc::new(Loopback(address)))
            .build()
            .map_err(broken)?;
        Ok(Self { http, external })
    }

    /// The keys of an issuer, by its discovery document.
    pub(super) async fn keys(&self, issuer: &str) -> Result<Keys, IssuerError> {
        if let Some(client) = self.external.get(issuer) {
            return from_api_server(client, issuer).await;
        }
        local(issuer)?;
        let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document: Value = self.get(&place).await?;
        if document["issuer"] != issuer {
            return Err(IssuerError::Document(place));
        }
        let keys = document["jwks_uri"].as_str().ok_or(IssuerError::Document(place))?;
        local(keys)?;
        Ok(Keys(self.get(keys).await?))
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, IssuerError> {
        let failed = |source: reqwest::Error| IssuerError::Fetch {
            url: url.to_owned(),
            source: source.without_url().into(),
        };
        let answer = self.http.get(url).send().await.map_err(failed)?;
        let bytes = answer.error_for_status().map_err(failed)?.bytes().await.map_err(failed)?;
        serde_json::from_slice(&bytes).map_err(|_| IssuerError::Document(url.to_owned()))
    }
}

/// A sandbox reaches nothing but loopback.
fn local(address: &str) -> Result<(), IssuerError> {
    let refused = || IssuerError::NotLocal(address.to_owned());
    let parsed = url::Url::parse(address).map_err(|_| refused())?;
    let host = parsed.host_str().unwrap_or_default();
    let loopback = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let near =
        host == "localhost" || host.ends_with(AKS) || loopback.is_ok_and(|ip| ip.is_loopback());
    if near && parsed.scheme() == "https" { Ok(()) } else { Err(refused()) }
}

/// The key set of a real API server. Its `jwks_uri` may name an address that only pods reach, so
/// the server's own path is asked instead.
async fn from_api_server(client: &kube::Client, issuer: &str) -> Result<Keys, IssuerError> {
    let path = "/openid/v1/jwks";
    let url = format!("{issuer} ({path})");
    let request = http_get(path).ok_or_else(|| IssuerError::Document(url.clone()))?;
    let text = client
        .request_text(request)
        .await
        .map_err(|source| IssuerError::Fetch { url: url.clone(), source: source.into() })?;
    Ok(Keys(serde_json::from_str(&text).map_err(|_| IssuerError::Document(url))?))
}

pub(in crate::sandbox) fn http_get(path: &str) -> Option<Request<Vec<u8>>> {
    Request::get(path).body(Vec::new()).ok()
}

/// Serves the documents of the emulated clusters, as the public blobs behind AKS do.
pub fn router(ctx: Arc<Context>) -> Router {
    Router::new()
        .route("/{tenant}/{id}/.well-known/openid-configuration", get(configuration))
        .route("/{tenant}/{id}/openid/v1/jwks", get(jwks))
        .with_state(ctx)
}

/// The cluster whose issuer has this path, if its issuer is on.
fn cluster(ctx: &Context, tenant: &str, id: &str) -> Option<(String, String)> {
    let entry = ctx.store.get(&format!("issuers/{id}"))?;
    let cluster = entry["cluster"].as_str()?.to_owned();
    let record =
        ctx.store.get(&format!("arm/{}", cluster.to_lowercase().trim_start_matches('/')))?;
    let issuer = record["issuer"].as_str()?.to_owned();
    let here = issuer.ends_with(&format!("/{tenant}/{id}/"));
    let on = record["properties"]["oidcIssuerProfile"]["enabled"] == true;
    (here && on).then_some((cluster, issuer))
}

async fn configuration(
    State(ctx): State<Arc<Context>>,
    Path((tenant, id)): Path<(String, String)>,
) -> Response {
    match cluster(&ctx, &tenant, &id) {
        Some((_, issuer)) => json(StatusCode::OK, &tokens::discovery(&issuer)),
        None => missing(),
    }
}

async fn jwks(
    State(ctx): State<Arc<Context>>,
    Path((tenant, id)): Path<(String, String)>,
) -> Response {
    let keys = cluster(&ctx, &tenant, &id).map(|(cluster, _)| tokens::jwks(&ctx, &cluster));
    match keys {
        Some(Ok(keys)) => json(StatusCode::OK, &keys),
        Some(Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        None => missing(),
    }
}

/// What blob storage answers for a document that is not there.
fn missing() -> Response {
    let body = "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>BlobNotFound</Code>\
                <Message>The specified blob does not exist.</Message></Error>";
    (StatusCode::NOT_FOUND, [("content-type", "application/xml")], body).into_response()
}
