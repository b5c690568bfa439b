//! The token endpoint: client credentials with a secret or with a federated assertion.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
    response::Response,
};
use serde_json::{Value, json};

use super::{Entra, assertion, claims, json, refusal::Refusal, text};
use crate::sandbox::{context::Context, tokens};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// `POST /{tenant}/oauth2/v2.0/token`.
pub(super) async fn v2(
    State(entra): State<Arc<Entra>>,
    Path(tenant): Path<String>,
    request: Request<Body>,
) -> Response {
    respond(&entra, &tenant, request, false).await
}

/// `POST /{tenant}/oauth2/token`: the older form, with `resource` instead of `scope`.
pub(super) async fn v1(
    State(entra): State<Arc<Entra>>,
    Path(tenant): Path<String>,
    request: Request<Body>,
) -> Response {
    respond(&entra, &tenant, request, true).await
}

async fn respond(entra: &Entra, tenant: &str, request: Request<Body>, old: bool) -> Response {
    let correlation = request
        .headers()
        .get("client-request-id")
        .and_then(|id| Some(id.to_str().ok()?.to_owned()));
    let body = text(request).await;
    let form: BTreeMap<String, String> =
        url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let mut response = match issue(entra, tenant, &form, old).await {
        Ok(body) => json(StatusCode::OK, &body),
        Err(refusal) => refusal.into_response(&entra.ctx, correlation.as_deref()),
    };
    if let Some(id) = correlation.and_then(|id| id.parse().ok()) {
        response.headers_mut().insert("client-request-id", id);
    }
    response
}

async fn issue(
    entra: &Entra,
    tenant: &str,
    form: &BTreeMap<String, String>,
    old: bool,
) -> Result<Value, Refusal> {
    let ctx = &entra.ctx;
    let get = |name: &str| form.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if !entra.is_tenant(tenant) {
        return Err(Refusal::tenant(tenant));
    }
    let grant = get("grant_type").ok_or_else(|| Refusal::missing("grant_type"))?;
    if grant != "client_credentials" {
        return Err(Refusal::grant(grant));
    }
    let client = get("client_id").ok_or_else(|| Refusal::missing("client_id"))?.to_lowercase();
    let resource = if old {
        get("resource").ok_or_else(|| Refusal::missing("resource"))?.to_owned()
    } else {
        resource_of(get("scope").ok_or_else(|| Refusal::missing("scope"))?)?
    };
    let app = ctx
        .store
        .get(&format!("apps/{client}"))
        .ok_or_else(|| Refusal::unknown_client(&client, &ctx.settings.tenant.to_string()))?;
    let by_assertion = match (get("client_assertion"), get("client_secret")) {
        (Some(jwt), _) => {
            if get("client_assertion_type") != Some(JWT_BEARER) {
                return Err(Refusal::assertion_type());
            }
            assertion::check(entra, &client, &app, jwt).await?;
            true
        }
        (None, Some(secret)) => {
            let known = app["operator"] == true
                && operator_secret(ctx).map_err(|_| Refusal::internal())? == secret;
            if !known {
                return Err(Refusal::secret(&client));
            }
            false
        }
        (None, None) => return Err(Refusal::no_credential()),
    };
    if !known_resource(ctx, &resource) {
        return Err(Refusal::resource(&resource, "Sandbox"));
    }
    let managed = app["identity"].is_string();
    let lifetime: i64 = if managed { 86_399 } else { 3_599 };
    let token = claims::access_token(ctx, &client, &app, &resource, by_assertion, lifetime)
        .map_err(|_| Refusal::internal())?;
    Ok(if old {
        let now = ctx.clock.now().as_second();
        json!({
            "token_type": "Bearer", "expires_in": lifetime.to_string(),
            "ext_expires_in": lifetime.to_string(),
            "expires_on": (now + lifetime + 1).to_string(), "not_before": (now - 300).to_string(),
            "resource": resource, "access_token": token,
        })
    } else {
        json!({
            "token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime,
            "access_token": token,
        })
    })
}

/// The secret of the world's operator, made with the world.
pub(in crate::sandbox) fn operator_secret(ctx: &Context) -> Result<String, tokens::KeyError> {
    tokens::secret(ctx, "keys/operator-secret")
}

/// The resource of a scope, which must end in `/.default`. MSAL may add OIDC scopes.
fn resource_of(scope: &str) -> Result<String, Refusal> {
    let mut wanted = scope
        .split_whitespace()
        .filter(|part| !["openid", "offline_access", "profile", "email"].contains(part));
    match (wanted.next().and_then(|part| part.strip_suffix("/.default")), wanted.next()) {
        (Some(resource), None) if !resource.is_empty() => Ok(resource.to_owned()),
        _ => Err(Refusal::scope(scope)),
    }
}

/// Resources that have a service principal in every tenant, and this sandbox's own endpoints.
fn known_resource(ctx: &Context, resource: &str) -> bool {
    const KNOWN: &[&str] = &[
        "https://management.azure.com",
        "https://management.core.windows.net",
        "797f4846-ba00-4fd7-ba43-dac1f8f63013",
        "https://vault.azure.net",
        "https://storage.azure.com",
        "https://graph.microsoft.com",
        "00000003-0000-0000-c000-000000000000",
        "https://database.windows.net",
        "https://ossrdbms-aad.database.windows.net",
        "https://servicebus.azure.net",
        "https://eventhubs.azure.net",
        "https://cognitiveservices.azure.com",
        "https://search.azure.com",
        "https://appconfig.azure.com",
        "https://azconfig.io",
        "https://cosmos.azure.com",
        "https://containerregistry.azure.net",
        "api://AzureADTokenExchange",
        tokens::AKS_SERVER,
    ];
    let plain = resource.trim_end_matches('/');
    let own = [
        ctx.endpoints.url(|bound| bound.resource_manager),
        ctx.endpoints.url(|bound| bound.graph),
        ctx.endpoints.url(|bound| bound.data_plane),
    ];
    KNOWN.iter().any(|known| known.eq_ignore_ascii_case(plain))
        || own.iter().any(|url| url == plain || url.replace("localhost", "127.0.0.1") == plain)
        || plain.strip_prefix("https://").is_some_and(|host| {
            [".blob.core.windows.net", ".vault.azure.net", ".documents.azure.com"]
                .iter()
                .any(|suffix| host.ends_with(suffix))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_names_one_resource() {
        let resource = |scope: &str| resource_of(scope).ok();
        assert_eq!(
            resource("https://management.azure.com//.default openid profile").as_deref(),
            Some("https://management.azure.com/")
        );
        assert_eq!(resource("https://management.azure.com/user_impersonation"), None);
        assert_eq!(resource("a/.default b/.default"), None);
    }
}
