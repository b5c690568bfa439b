//! Discovery documents of the authority, as MSAL and the Azure SDKs ask for them.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Deserialize;
use serde_json::json;

use super::{Entra, base, json, refusal::Refusal};
use crate::sandbox::tokens;

#[derive(Deserialize)]
pub(super) struct Instance {
    authorization_endpoint: Option<String>,
}

/// `GET /common/discovery/instance`: names this authority and the tenant's discovery document.
pub(super) async fn instance(
    State(entra): State<Arc<Entra>>,
    headers: HeaderMap,
    Query(query): Query<Instance>,
) -> Response {
    let base = base(&headers, entra.ctx.endpoints.url(|bound| bound.authority));
    let host = base.trim_start_matches("https://").to_owned();
    let tenant = query
        .authorization_endpoint
        .and_then(|endpoint| url::Url::parse(&endpoint).ok())
        .and_then(|endpoint| Some(endpoint.path_segments()?.next()?.to_owned()))
        .unwrap_or_else(|| "common".to_owned());
    json(
        StatusCode::OK,
        &json!({
            "tenant_discovery_endpoint":
                format!("{base}/{tenant}/v2.0/.well-known/openid-configuration"),
            "api-version": "1.1",
            "metadata": [{
                "preferred_network": host, "preferred_cache": host, "aliases": [host],
            }],
        }),
    )
}

/// `GET /{tenant}[/v2.0]/.well-known/openid-configuration`.
pub(super) async fn configuration(
    State(entra): State<Arc<Entra>>,
    headers: HeaderMap,
    Path(tenant): Path<String>,
) -> Response {
    let any = ["common", "organizations", "consumers"].contains(&tenant.as_str());
    if !any && !entra.is_tenant(&tenant) {
        return Refusal::tenant(&tenant).into_response(&entra.ctx, None);
    }
    let base = base(&headers, entra.ctx.endpoints.url(|bound| bound.authority));
    let shown = if any { tenant.clone() } else { entra.ctx.settings.tenant.to_string() };
    let issuer = if any { "{tenantid}".to_owned() } else { shown.clone() };
    json(
        StatusCode::OK,
        &json!({
            "token_endpoint": format!("{base}/{shown}/oauth2/v2.0/token"),
            "token_endpoint_auth_methods_supported":
                ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": format!("{base}/{shown}/discovery/v2.0/keys"),
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": format!("{base}/{issuer}/v2.0"),
            "request_uri_parameter_supported": false,
            "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
            "authorization_endpoint": format!("{base}/{shown}/oauth2/v2.0/authorize"),
            "device_authorization_endpoint": format!("{base}/{shown}/oauth2/v2.0/devicecode"),
            "http_logout_supported": true,
            "frontchannel_logout_supported": true,
            "end_session_endpoint": format!("{base}/{shown}/oauth2/v2.0/logout"),
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nonce", "tid", "ver"],
            "tenant_region_scope": "EU",
            "cloud_instance_name": base.trim_start_matches("https://"),
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": "graph.microsoft.com",
            "rbac_url": "https://pas.windows.net",
        }),
    )
}

/// `GET /{tenant}/discovery[/v2.0]/keys`: the key that signs access tokens.
pub(super) async fn keys(State(entra): State<Arc<Entra>>) -> Response {
    match tokens::entra_key(&entra.ctx) {
        Ok(key) => json(StatusCode::OK, &json!({ "keys": [key.jwk()] })),
        Err(_) => Refusal::internal().into_response(&entra.ctx, None),
    }
}

/// `GET /common/userrealm/{user}`: no user of this tenant is federated.
pub(super) async fn user_realm(Path(user): Path<String>) -> Response {
    json(
        StatusCode::OK,
        &json!({ "ver": "1.0", "account_type": "Managed", "domain_name": user.split('@').nth(1) }),
    )
}
