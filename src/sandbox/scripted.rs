//! The answer of a fault rule, in the words of the service that it speaks for.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

/// The answer to a request for `path` of `service`.
pub(super) fn response(
    service: &str,
    path: &str,
    status: u16,
    code: &str,
    message: &str,
    retry_after: Option<u64>,
) -> Response {
    let body = body(service, path, status, code, message).to_string();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = if service.starts_with("cluster/") {
        "application/json"
    } else {
        "application/json; charset=utf-8"
    };
    let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn body(service: &str, path: &str, status: u16, code: &str, message: &str) -> Value {
    if service.starts_with("cluster/") {
        return json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": code, "code": status,
        });
    }
    if service == "entra" {
        // `AADSTS50196: …` names its number; other texts have none.
        let number = message.strip_prefix("AADSTS").and_then(|rest| rest.split(':').next());
        let number = number.and_then(|digits| digits.parse::<u32>().ok());
        return json!({
            "error": code, "error_description": message,
            "error_codes": number.map_or_else(Vec::new, |number| vec![number]),
        });
    }
    if path.to_lowercase().contains("/microsoft.containerservice/") {
        return json!({ "code": code, "details": null, "message": message, "subcode": "" });
    }
    json!({ "error": { "code": code, "message": message } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_its_own_words() {
        let of = |service, path| body(service, path, 410, "Expired", "AADSTS7: gone");
        assert_eq!(of("arm", "/subscriptions")["error"]["code"], "Expired");
        let flat = "/subscriptions/s/providers/Microsoft.ContainerService/managedClusters";
        assert_eq!(of("arm", flat)["code"], "Expired");
        let gone = of("cluster/prod", "/api/v1/pods");
        assert_eq!((&gone["reason"], &gone["code"]), (&json!("Expired"), &json!(410)));
        assert_eq!(of("entra", "/t/oauth2/v2.0/token")["error_codes"], json!([7]));
    }
}
