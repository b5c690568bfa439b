//! The errors of the token endpoint: codes, statuses and texts as Entra words them.

use axum::{http::StatusCode, response::Response};
use serde_json::json;

use crate::sandbox::context::Context;

/// One refused token request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    error: &'static str,
    pub(super) code: u32,
    text: String,
}

const CHECK: &str = "Check your federated identity credential Subject, Audience and Issuer against \
                     the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation";

impl Refusal {
    fn new(status: u16, error: &'static str, code: u32, text: String) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        Self { status, error, code, text }
    }

    /// The body has no such parameter.
    pub(super) fn missing(parameter: &str) -> Self {
        let text = format!("The request body must contain the following parameter: '{parameter}'.");
        Self::new(400, "invalid_request", 900_144, text)
    }

    pub(super) fn grant(grant: &str) -> Self {
        let text = format!("The app requested an unsupported grant type '{grant}'.");
        Self::new(400, "unsupported_grant_type", 70_003, text)
    }

    pub(super) fn tenant(tenant: &str) -> Self {
        let domain = tenant.split('.').count() > 1
            && tenant.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
        if !domain && uuid::Uuid::try_parse(tenant).is_err() {
            let text = format!(
                "Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid \
                 external domain."
            );
            return Self::new(400, "invalid_request", 900_023, text);
        }
        let text = format!(
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and \
             are signing into the correct cloud. Check with your subscription administrator, this \
             may happen if there are no active subscriptions for the tenant."
        );
        Self::new(400, "invalid_request", 90_002, text)
    }

    pub(super) fn unknown_client(client: &str, tenant: &str) -> Self {
        let text = format!(
            "Application with identifier '{client}' was not found in the directory '{tenant}'. \
             This can happen if the application has not been installed by the administrator of \
             the tenant or consented to by any user in the tenant. You may have sent your \
             authentication request to the wrong tenant."
        );
        Self::new(400, "unauthorized_client", 700_016, text)
    }

    pub(super) fn secret(client: &str) -> Self {
        let text = format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the \
             client secret value, not the client secret ID, for a secret added to app '{client}'."
        );
        Self::new(401, "invalid_client", 7_000_215, text)
    }

    pub(super) fn no_credential() -> Self {
        let text = "The request body must contain the following parameter: 'client_assertion' or \
                    'client_secret'.";
        Self::new(401, "invalid_client", 7_000_218, text.into())
    }

    pub(super) fn scope(scope: &str) -> Self {
        let text = format!(
            "The provided request must include a 'scope' input parameter. The provided value for \
             the input parameter 'scope' is not valid. The scope {scope} is not valid."
        );
        Self::new(400, "invalid_scope", 70_011, text)
    }

    pub(super) fn resource(resource: &str, tenant: &str) -> Self {
        let text = format!(
            "The resource principal named {resource} was not found in the tenant named {tenant}. \
             This can happen if the application has not been installed by the administrator of \
             the tenant or consented to by any user in the tenant. You might have sent your \
             authentication request to the wrong tenant."
        );
        Self::new(400, "invalid_resource", 500_011, text)
    }

    pub(super) fn malformed_assertion() -> Self {
        Self::new(400, "invalid_request", 50_027, "JWT token is invalid or malformed.".into())
    }

    pub(super) fn assertion_type() -> Self {
        let text = "The value of 'client_assertion_type' must be \
                    'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'.";
        Self::new(400, "invalid_request", 90_023, text.into())
    }

    pub(super) fn no_federation(client: &str, name: &str) -> Self {
        let text = format!(
            "The client '{client}'({name}) has no configured federated identity credentials."
        );
        Self::new(401, "invalid_client", 70_025, text)
    }

    pub(super) fn issuer(issuer: &str) -> Self {
        Self::unmatched(700_211, "issuer", issuer)
    }

    pub(super) fn audience(audience: &str) -> Self {
        Self::unmatched(700_212, "audience", audience)
    }

    pub(super) fn subject(subject: &str) -> Self {
        Self::unmatched(700_213, "subject", subject)
    }

    fn unmatched(code: u32, what: &str, value: &str) -> Self {
        let text = format!(
            "No matching federated identity record found for presented assertion {what} \
             '{value}'. {CHECK}"
        );
        Self::new(401, "invalid_client", code, text)
    }

    /// Only the case differs.
    pub(super) fn case(what: &str) -> Self {
        let text = format!(
            "The {what} matches with case-insensitive comparison, but not with case-sensitive \
             comparison. {CHECK}"
        );
        Self::new(401, "invalid_client", 7_002_138, text)
    }

    pub(super) fn time_range(now: &str, from: &str, to: &str) -> Self {
        let text = format!(
            "Client assertion is not within its valid time range. Current time: {now}, assertion \
             valid from {from}, expiry time of assertion {to}. Review the documentation at \
             https://docs.microsoft.com/azure/active-directory/develop/active-directory-certificate-credentials ."
        );
        Self::new(401, "invalid_client", 700_024, text)
    }

    /// The signature does not verify with any key of the issuer. The code is the one that is
    /// documented for client assertions in general.
    pub(super) fn signature() -> Self {
        let text = "Client assertion failed signature validation.";
        Self::new(401, "invalid_client", 700_027, text.into())
    }

    /// The issuer's discovery document or key set could not be had.
    pub(super) fn unreachable() -> Self {
        let text = "Request to External OIDC endpoint failed.";
        Self::new(400, "invalid_request", 90_061, text.into())
    }

    pub(super) fn internal() -> Self {
        Self::new(
            500,
            "server_error",
            90_033,
            "A transient error has occurred. Please try again.".into(),
        )
    }

    /// The answer. `correlation` is the client's own request id if it sent one.
    pub(super) fn into_response(self, ctx: &Context, correlation: Option<&str>) -> Response {
        let trace = ctx.ids.guid();
        let own = ctx.ids.guid().to_string();
        let correlation = correlation.unwrap_or(&own);
        let time = ctx.clock.now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let code = self.code;
        let body = json!({
            "error": self.error,
            "error_description": format!(
                "AADSTS{code}: {} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}",
                self.text
            ),
            "error_codes": [code],
            "timestamp": time,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
        });
        super::json(self.status, &body)
    }
}
