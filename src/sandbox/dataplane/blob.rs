//! Blob storage: `GET /?comp=list` of an account.

use std::fmt::Write as _;

use axum::{
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use super::{Call, Caller};
use crate::sandbox::roles;

/// Listing containers is an action of the control plane that data roles carry.
const ACTION: &str = "Microsoft.Storage/storageAccounts/blobServices/containers/read";

pub(super) fn answer(call: &Call<'_>, account: &str, rest: &[&str]) -> Response {
    let Some(doc) = call.resource("microsoft.storage/storageaccounts", account) else {
        return error(
            call,
            StatusCode::NOT_FOUND,
            "ResourceNotFound",
            "The specified resource does not exist.",
        );
    };
    let own = format!("https://{account}.blob.core.windows.net");
    let Some(Ok(claims)) = call.claims(&["https://storage.azure.com", &own]) else {
        return unauthenticated(call);
    };
    let caller = Caller::of(call.ctx, &claims);
    if call.headers.get("x-ms-version").is_none() {
        return error(
            call,
            StatusCode::BAD_REQUEST,
            "MissingRequiredHeader",
            "An HTTP header that's mandatory for this request is not specified.",
        );
    }
    if call.method != Method::GET || !rest.is_empty() || call.query("comp") != Some("list") {
        return error(
            call,
            StatusCode::BAD_REQUEST,
            "UnsupportedQueryParameter",
            "The sandbox lists containers only.",
        );
    }
    let id = doc["id"].as_str().unwrap_or_default();
    if !caller.operator && !roles::allowed(call.ctx, &caller.oid, ACTION, id, false) {
        return error(
            call,
            StatusCode::FORBIDDEN,
            "AuthorizationPermissionMismatch",
            "This request is not authorized to perform this operation using this permission.",
        );
    }
    let data = call.ctx.endpoints.url(|bound| bound.data_plane);
    let mut body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults \
         ServiceEndpoint=\"{data}/blob/{account}/\"><Containers>"
    );
    for name in doc["containers"].as_array().into_iter().flatten().filter_map(|name| name.as_str())
    {
        let name = name.replace('&', "&amp;").replace('<', "&lt;");
        // Writing to a string cannot fail.
        _ = write!(body, "<Container><Name>{name}</Name></Container>");
    }
    body.push_str("</Containers><NextMarker /></EnumerationResults>");
    xml(call, StatusCode::OK, body)
}

fn xml(call: &Call<'_>, status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/xml".to_owned()),
        ("x-ms-request-id", call.ctx.ids.guid().to_string()),
        ("x-ms-version", "2023-11-03".to_owned()),
    ];
    (status, headers, body).into_response()
}

fn error(call: &Call<'_>, status: StatusCode, code: &'static str, message: &str) -> Response {
    let id = call.ctx.ids.guid();
    let time = call.ctx.clock.now();
    let body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code>\
         <Message>{message}\nRequestId:{id}\nTime:{time}</Message></Error>"
    );
    let mut response = xml(call, status, body);
    response.headers_mut().insert("x-ms-error-code", HeaderValue::from_static(code));
    response
}

/// 401 with the challenge that bearer clients follow.
fn unauthenticated(call: &Call<'_>) -> Response {
    let authority = call.ctx.endpoints.url(|bound| bound.authority);
    let challenge = format!(
        "Bearer authorization_uri={authority}/{}/oauth2/authorize resource_id=https://storage.azure.com",
        call.ctx.settings.tenant
    );
    let mut response = error(
        call,
        StatusCode::UNAUTHORIZED,
        "InvalidAuthenticationInfo",
        "Authentication information is not given in the correct format. Check the value of \
         Authorization header.",
    );
    if let Ok(challenge) = challenge.parse() {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
