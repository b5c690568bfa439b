//! App Configuration: `GET /keys` and `GET /kv` of a store.
//!
//! From Microsoft's REST reference of App Configuration: "Keys", "Microsoft Entra authentication",
//! "Microsoft Entra authorization". What a store whose public access is off answers is not in it;
//! the title is the one that people quote.

use axum::{
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

use super::{Call, Caller};
use crate::sandbox::roles;

const ACTION: &str = "Microsoft.AppConfiguration/configurationStores/keyValues/read";

pub(super) fn answer(call: &Call<'_>, store: &str, rest: &[&str]) -> Response {
    let Some(doc) = call.resource("microsoft.appconfiguration/configurationstores", store) else {
        // The name of a store that is not there does not resolve; 404 is the nearest thing.
        return problem(StatusCode::NOT_FOUND, "Store not found");
    };
    let own = format!("https://{store}.azconfig.io");
    let audiences = ["https://appconfig.azure.com", "https://azconfig.io", &own];
    let caller = match call.claims(&audiences) {
        Some(Ok(claims)) => Caller::of(call.ctx, &claims),
        Some(Err(_)) => return unauthorized("Bearer error=\"invalid_token\""),
        None => return unauthorized("HMAC-SHA256, Bearer"),
    };
    if call.query("api-version").is_none() {
        return problem(StatusCode::BAD_REQUEST, "API version is not specified");
    }
    if doc["properties"]["publicNetworkAccess"] == "Disabled" {
        return problem(StatusCode::FORBIDDEN, "Public network access is disabled for this store");
    }
    let id = doc["id"].as_str().unwrap_or_default();
    if !caller.operator && !roles::allowed(call.ctx, &caller.oid, ACTION, id, true) {
        return problem(StatusCode::FORBIDDEN, "Forbidden");
    }
    let keys = doc["keys"].as_object().cloned().unwrap_or_default();
    let (media, items): (_, Vec<Value>) = match (call.method, rest) {
        (&Method::GET, ["keys"]) => {
            ("keyset", keys.keys().map(|name| json!({ "name": name })).collect())
        }
        (&Method::GET, ["kv"]) => {
            let pair = |(key, value)| json!({ "key": key, "value": value, "label": null });
            ("kvset", keys.iter().map(pair).collect())
        }
        _ => return problem(StatusCode::METHOD_NOT_ALLOWED, "The sandbox lists keys only"),
    };
    let kind = format!("application/vnd.microsoft.appconfig.{media}+json; charset=utf-8");
    let body = json!({ "items": items }).to_string();
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], body).into_response()
}

fn problem(status: StatusCode, title: &str) -> Response {
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16() });
    let kind = [(header::CONTENT_TYPE, "application/problem+json; charset=utf-8")];
    (status, kind, body.to_string()).into_response()
}

fn unauthorized(challenge: &'static str) -> Response {
    let mut response = StatusCode::UNAUTHORIZED.into_response();
    let challenge = HeaderValue::from_static(challenge);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}
