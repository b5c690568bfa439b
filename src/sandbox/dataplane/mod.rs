//! The data plane: listing secrets of a Key Vault, containers of a storage account, keys of an App
//! Configuration store.
//!
//! Names such as `kv.vault.azure.net` do not resolve to loopback, so each of them has a path,
//! `/keyvault/<vault>/…`, `/blob/<account>/…` and `/appconfig/<store>/…`, and ARM shows these as its
//! `vaultUri` and endpoints. A request whose `Host` is the real name is served without the path.

mod appconfig;
mod blob;
mod keyvault;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, Request, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value};

use super::{
    arm::percent_decoded,
    context::Context,
    tokens::{self, TokenError},
};

/// The data plane as an axum router.
pub fn router(ctx: Arc<Context>) -> Router {
    Router::new().fallback(handle).with_state(ctx)
}

async fn handle(State(ctx): State<Arc<Context>>, request: Request<Body>) -> Response {
    let (parts, _) = request.into_parts();
    let mut path: Vec<String> = parts
        .uri
        .path()
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(percent_decoded)
        .collect();
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let host = host.split(':').next().unwrap_or_default().to_lowercase();
    for (suffix, service) in [
        (".vault.azure.net", "keyvault"),
        (".blob.core.windows.net", "blob"),
        (".azconfig.io", "appconfig"),
    ] {
        if let Some(name) = host.strip_suffix(suffix) {
            path.splice(0..0, [service.to_owned(), name.to_owned()]);
        }
    }
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let call = Call { ctx: &ctx, method: &parts.method, headers: &parts.headers, query: &query };
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["keyvault", vault, rest @ ..] => keyvault::answer(&call, vault, rest),
        ["blob", account, rest @ ..] => blob::answer(&call, account, rest),
        ["appconfig", store, rest @ ..] => appconfig::answer(&call, store, rest),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// One request.
struct Call<'a> {
    ctx: &'a Context,
    method: &'a Method,
    headers: &'a HeaderMap,
    query: &'a [(String, String)],
}

impl Call<'_> {
    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// The claims of the bearer token; `None` without one.
    fn claims(&self, audiences: &[&str]) -> Option<Result<Map<String, Value>, TokenError>> {
        let value = self.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let token = value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer "))?;
        Some(tokens::verify_access_token(self.ctx, token.trim(), audiences))
    }

    /// The record of a resource by its type and globally unique name.
    fn resource(&self, kind: &str, name: &str) -> Option<Arc<Value>> {
        let end = format!("/providers/{kind}/{}", name.to_lowercase());
        let found = self.ctx.store.select("arm/subscriptions/", |key, _| key.ends_with(&end));
        found.into_iter().next().map(|(_, doc)| doc)
    }
}

/// Who a token speaks for.
struct Caller {
    oid: String,
    appid: String,
    operator: bool,
}

impl Caller {
    fn of(ctx: &Context, claims: &Map<String, Value>) -> Self {
        let text =
            |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let appid = text("appid");
        let operator = appid == ctx.settings.operator.to_string();
        Self { oid: text("oid"), appid, operator }
    }
}
