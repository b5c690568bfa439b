//! Key Vault: `GET /secrets` and `GET /secrets/{name}`.
//!
//! Error texts as the service words them (Microsoft documentation on troubleshooting Key Vault
//! access, and messages seen in the field).

use axum::{
    http::{Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

use super::{Call, Caller};
use crate::sandbox::{roles, tokens::TokenError};

const RESOURCE: &str = "https://vault.azure.net";

pub(super) fn answer(call: &Call<'_>, vault: &str, rest: &[&str]) -> Response {
    let Some(doc) = call.resource("microsoft.keyvault/vaults", vault) else {
        // The name of a vault that is not there does not resolve; 404 is the nearest thing.
        return error(
            StatusCode::NOT_FOUND,
            "VaultNotFound",
            &format!("Vault '{vault}' was not found."),
            None,
        );
    };
    let own = format!("https://{vault}.vault.azure.net");
    let caller = match call.claims(&[RESOURCE, &own]) {
        None => return challenge(call, "AKV10000: Request is missing a Bearer or PoP token."),
        Some(Err(TokenError::Invalid)) => {
            return challenge(
                call,
                "AKV10032: Invalid issuer or signature of the presented token.",
            );
        }
        Some(Err(TokenError::Expired { .. })) => {
            return challenge(
                call,
                "[BearerReadAccessTokenFailed] Error validating token: IDX10223: token expired.",
            );
        }
        Some(Err(TokenError::Audience)) => {
            return challenge(
                call,
                "AKV10022: Invalid audience. Expected https://vault.azure.net.",
            );
        }
        Some(Ok(claims)) => Caller::of(call.ctx, &claims),
    };
    if call.query("api-version").is_none() {
        return error(
            StatusCode::BAD_REQUEST,
            "BadParameter",
            "AKV10046: Unable to determine the api-version: the parameter is missing.",
            None,
        );
    }
    let (permission, action) = match (call.method, rest) {
        (&Method::GET, ["secrets"]) => {
            ("list", "Microsoft.KeyVault/vaults/secrets/readMetadata/action")
        }
        (&Method::GET, ["secrets", _] | ["secrets", _, _]) => {
            ("get", "Microsoft.KeyVault/vaults/secrets/getSecret/action")
        }
        _ => {
            return error(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "The sandbox lists and reads secrets only.",
                None,
            );
        }
    };
    if let Some(refused) = forbidden(call, &caller, &doc, permission, action, rest) {
        return refused;
    }
    // Ids name the real host: SDKs take them apart and expect nothing before `/secrets`.
    let base = &own;
    let secrets = doc["secrets"].as_object().cloned().unwrap_or_default();
    let Some(name) = rest.get(1) else {
        let value: Vec<Value> = secrets
            .keys()
            .map(|name| {
                json!({
                    "id": format!("{base}/secrets/{name}"), "attributes": { "enabled": true },
                })
            })
            .collect();
        return ok(&json!({ "value": value, "nextLink": null }));
    };
    let Some(value) = secrets.get(*name) else {
        let message = format!(
            "A secret with (name/id) {name} was not found in this key vault. If you recently \
             deleted this secret you may be able to recover it using the correct recovery \
             command. For help resolving this issue, please see \
             https://go.microsoft.com/fwlink/?linkid=2125182"
        );
        return error(StatusCode::NOT_FOUND, "SecretNotFound", &message, None);
    };
    ok(&json!({
        "value": value, "id": format!("{base}/secrets/{name}/1"), "attributes": { "enabled": true },
    }))
}

/// The 403 that the vault's permission model gives, if any.
fn forbidden(
    call: &Call<'_>,
    caller: &Caller,
    doc: &Value,
    permission: &str,
    action: &str,
    rest: &[&str],
) -> Option<Response> {
    let id = doc["id"].as_str().unwrap_or_default();
    let name = doc["name"].as_str().unwrap_or_default();
    let place = format!("{name};location={}", doc["location"].as_str().unwrap_or_default());
    let who = format!(
        "appid={};oid={};iss=https://sts.windows.net/{}/",
        caller.appid, caller.oid, call.ctx.settings.tenant
    );
    if caller.operator {
        return None;
    }
    if doc["properties"]["enableRbacAuthorization"] == true {
        let scope =
            rest.iter().take(2).fold(id.to_owned(), |scope, part| format!("{scope}/{part}"));
        if roles::allowed(call.ctx, &caller.oid, action, &scope, true) {
            return None;
        }
        let message = format!(
            "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny \
             assignments or role definitions were changed recently, please observe propagation \
             time.\r\nCaller: {who}\r\nAction: '{action}'\r\nResource: '{}'\r\nAssignment: (not \
             found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\nVault: {place}\r\n",
            id.to_lowercase()
        );
        return Some(error(StatusCode::FORBIDDEN, "Forbidden", &message, Some("ForbiddenByRbac")));
    }
    let granted =
        doc["properties"]["accessPolicies"].as_array().into_iter().flatten().any(|policy| {
            let mine =
                policy["objectId"].as_str().is_some_and(|id| id.eq_ignore_ascii_case(&caller.oid));
            let secrets = policy["permissions"]["secrets"].as_array();
            mine && secrets.into_iter().flatten().any(|granted| {
                granted.as_str().is_some_and(|granted| {
                    granted.eq_ignore_ascii_case(permission) || granted.eq_ignore_ascii_case("all")
                })
            })
        });
    if granted {
        return None;
    }
    let message = format!(
        "The user, group or application '{who}' does not have secrets {permission} permission on \
         key vault '{place}'. For help resolving this issue, please see \
         https://go.microsoft.com/fwlink/?linkid=2125287"
    );
    Some(error(StatusCode::FORBIDDEN, "Forbidden", &message, Some("ForbiddenByPolicy")))
}

fn ok(body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (StatusCode::OK, kind, body.to_string()).into_response()
}

fn error(status: StatusCode, code: &str, message: &str, inner: Option<&str>) -> Response {
    let mut body = json!({ "error": { "code": code, "message": message } });
    if let Some(inner) = inner {
        body["error"]["innererror"] = json!({ "code": inner });
    }
    let kind = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (status, kind, body.to_string()).into_response()
}

/// 401 with the challenge by which the vault's SDKs learn tenant and resource.
fn challenge(call: &Call<'_>, message: &str) -> Response {
    let authority = call.ctx.endpoints.url(|bound| bound.authority);
    let value = format!(
        "Bearer authorization=\"{authority}/{}\", resource=\"{RESOURCE}\"",
        call.ctx.settings.tenant
    );
    let mut response = error(StatusCode::UNAUTHORIZED, "Unauthorized", message, None);
    if let Ok(value) = value.parse() {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}
