//! Entra: discovery, and the token endpoint that exchanges federated tokens.

mod assertion;
mod claims;
mod graph;
mod issuers;
mod metadata;
mod refusal;
mod token;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
pub use graph::router as graph_router;
pub(super) use issuers::http_get;
pub use issuers::{Issuers, router as issuer_router};
use serde_json::Value;
pub(super) use token::operator_secret;

use super::context::Context;

/// What the token endpoint works with.
pub struct Entra {
    ctx: Arc<Context>,
    issuers: Issuers,
    /// Mismatches that are remembered, with the time until which, in milliseconds.
    refused: Mutex<BTreeMap<String, (i64, refusal::Refusal)>>,
}

impl Entra {
    /// An Entra over the world of `ctx`, which fetches the keys of token issuers by `issuers`.
    pub fn new(ctx: Arc<Context>, issuers: Issuers) -> Arc<Self> {
        Arc::new(Self { ctx, issuers, refused: Mutex::default() })
    }

    /// The authority as an axum router.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/common/discovery/instance", get(metadata::instance))
            .route("/{tenant}/v2.0/.well-known/openid-configuration", get(metadata::configuration))
            .route("/{tenant}/.well-known/openid-configuration", get(metadata::configuration))
            .route("/{tenant}/discovery/v2.0/keys", get(metadata::keys))
            .route("/{tenant}/discovery/keys", get(metadata::keys))
            .route("/common/userrealm/{user}", get(metadata::user_realm))
            .route("/{tenant}/oauth2/v2.0/token", post(token::v2))
            .route("/{tenant}/oauth2/token", post(token::v1))
            .with_state(Arc::clone(&self))
            .layer(axum::middleware::map_response_with_state(self, headers))
    }

    /// Whether a path's tenant is this world's: its id or its domain.
    fn is_tenant(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case(&self.ctx.settings.tenant.to_string())
            || name.eq_ignore_ascii_case("sandbox.onmicrosoft.com")
    }
}

/// Headers that every answer of the token service carries (recorded).
async fn headers(State(entra): State<Arc<Entra>>, mut response: Response) -> Response {
    let id = entra.ctx.ids.guid().to_string();
    let fixed = [
        ("cache-control", "no-store, no-cache"),
        ("pragma", "no-cache"),
        ("expires", "-1"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
        ("x-content-type-options", "nosniff"),
        ("x-ms-ests-server", "2.1.22214.5 - WEULR1 ProdSlices"),
        ("x-ms-clitelem", "1,0,0,,"),
        ("x-ms-srs", "1.P"),
        ("x-ms-request-id", id.as_str()),
    ];
    for (name, value) in fixed {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// `https://` and the authority that the client used.
fn base(headers: &HeaderMap, otherwise: String) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.map_or(otherwise, |host| format!("https://{host}"))
}

fn json(status: StatusCode, value: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (status, kind, value.to_string()).into_response()
}

/// The body of a request, up to 1 MB; longer ones read as empty.
async fn text(request: Request<Body>) -> String {
    let bytes = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
