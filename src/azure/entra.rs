//! Entra's token endpoint: a federated token in, a token of the identity out.

use std::sync::Arc;

use azure_core::http::{
    Context, Method, Pipeline, PipelineSendOptions, Request, Url, headers::HeaderName,
};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::{
    address::address,
    arm::retry_after,
    claims::TokenClaims,
    endpoints::Endpoints,
    http::{self, TransportError, innermost},
};
use crate::model::{ClientId, PrincipalId, TenantId, Token};

/// The grant that presents a JSON Web Token in place of a secret (RFC 7523).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// Exchanges in flight. Requests are bounded here, not the proofs that make them: most of a proof's
/// time is waiting.
const AT_ONCE: usize = 8;

/// A client of Entra's token endpoint. Clones share connections and the bound on requests.
#[derive(Debug, Clone)]
pub struct Entra {
    pipeline: Pipeline,
    authority: Url,
    permits: Arc<Semaphore>,
}

/// The identity's token.
#[derive(Debug, Clone)]
pub struct Exchanged {
    /// The token.
    pub token: Token,
    /// The object id in it: the principal that Entra says it is for.
    pub oid: Option<PrincipalId>,
    /// The tenant in it.
    pub tenant: Option<TenantId>,
    /// Its lifetime in seconds.
    pub expires_in: u64,
}

/// No token came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// Entra refused.
    #[error("{}", .0.description)]
    Refused(Box<Refusal>),
    /// No answer came.
    #[error("no answer from Entra: {message}")]
    Unreachable {
        /// The transport's words.
        message: String,
    },
    /// The answer is neither a token nor an error.
    #[error("unusable answer from Entra (status {status})")]
    Body {
        /// The HTTP status.
        status: u16,
    },
}

/// Entra's error answer.
///
/// Source: Microsoft documentation on the identity platform's error responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The OAuth error, for example `invalid_client`.
    pub error: String,
    /// The AADSTS codes; texts change, codes do not.
    pub codes: Vec<u32>,
    /// The first line of the description, without ids and time.
    pub description: String,
    /// The trace id.
    pub trace_id: Option<String>,
    /// The correlation id.
    pub correlation_id: Option<String>,
    /// When Entra answered.
    pub timestamp: Option<String>,
    /// `Retry-After` in seconds.
    pub retry_after: Option<u64>,
}

#[derive(Deserialize)]
struct Failure {
    error: String,
    error_description: Option<String>,
    #[serde(default)]
    error_codes: Vec<u32>,
    timestamp: Option<String>,
    trace_id: Option<String>,
    correlation_id: Option<String>,
}

#[derive(Deserialize)]
struct Success {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

/// The words of a description before its ids: they stand in members of their own.
fn words(description: &str) -> String {
    let end = [" Trace ID:", "\r\n", "\n"].iter().filter_map(|mark| description.find(mark)).min();
    description[..end.unwrap_or(description.len())].trim().to_owned()
}

/// The `AADSTS` code that a description begins with, for answers without `error_codes`.
fn leading_code(description: &str) -> Option<u32> {
    let digits = description.strip_prefix("AADSTS")?;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn refusal(status: u16, body: &[u8]) -> ExchangeError {
    let Ok(failure) = serde_json::from_slice::<Failure>(body) else {
        return ExchangeError::Body { status };
    };
    let description = failure.error_description.unwrap_or_default();
    let mut codes = failure.error_codes;
    if codes.is_empty() {
        codes.extend(leading_code(&description));
    }
    let words = words(&description);
    ExchangeError::Refused(Box::new(Refusal {
        status,
        description: if words.is_empty() { failure.error.clone() } else { words },
        error: failure.error,
        codes,
        trace_id: failure.trace_id,
        correlation_id: failure.correlation_id,
        timestamp: failure.timestamp,
        retry_after: None,
    }))
}

fn form(client: ClientId, assertion: &Token, scope: &str) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", &client.to_string())
        .append_pair("scope", scope)
        .append_pair("client_assertion_type", ASSERTION_TYPE)
        .append_pair("client_assertion", assertion.expose())
        .finish()
}

impl Entra {
    /// A client for these endpoints.
    pub fn new(endpoints: &Endpoints) -> Result<Self, TransportError> {
        let transport = http::transport(endpoints)?;
        let pipeline = http::pipeline(endpoints, &transport, None);
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        Ok(Self { pipeline, authority: endpoints.authority.clone(), permits })
    }

    /// Presents `assertion` as `client` and asks for a token for `scope`. Asks once: whether to
    /// ask again is for whoever knows what may still be on its way.
    pub async fn exchange(
        &self,
        tenant: TenantId,
        client: ClientId,
        assertion: &Token,
        scope: &str,
    ) -> Result<Exchanged, ExchangeError> {
        let unreachable = |message: String| ExchangeError::Unreachable { message };
        let url = address(&self.authority, &format!("{tenant}/oauth2/v2.0/token"), &[])
            .map_err(|error| unreachable(error.to_string()))?;
        let mut request = Request::new(url, Method::Post);
        request.insert_header("content-type", "application/x-www-form-urlencoded");
        request.insert_header("accept", "application/json");
        request.set_body(form(client, assertion, scope));
        let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
        let permit = self.permits.acquire().await;
        let sent = self.pipeline.send(&Context::new(), &mut request, Some(options)).await;
        drop(permit);
        let response = sent.map_err(|error| unreachable(innermost(&error)))?;
        let (status, headers, body) = response.deconstruct();
        let status = u16::from(status);
        tracing::debug!(status, %client, "exchange");
        if status != 200 {
            let mut error = refusal(status, body.as_ref());
            if let ExchangeError::Refused(refusal) = &mut error {
                refusal.retry_after = retry_after(&headers).map(|wait| wait.as_secs());
                let request_id = headers.get_optional_str(&REQUEST_ID).map(str::to_owned);
                refusal.trace_id = refusal.trace_id.take().or(request_id);
            }
            return Err(error);
        }
        let success: Success =
            serde_json::from_slice(body.as_ref()).map_err(|_| ExchangeError::Body { status })?;
        let token = Token::new(success.access_token);
        let claims = TokenClaims::read(&token).unwrap_or_default();
        Ok(Exchanged { token, oid: claims.oid, tenant: claims.tid, expires_in: success.expires_in })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_the_documented_one() {
        let client = "00000000-0000-0000-0000-000000000003".parse().unwrap();
        assert_eq!(
            form(client, &Token::new("a.b.c"), "https://management.azure.com/.default"),
            "grant_type=client_credentials&client_id=00000000-0000-0000-0000-000000000003\
             &scope=https%3A%2F%2Fmanagement.azure.com%2F.default\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
             &client_assertion=a.b.c"
        );
    }

    #[test]
    fn codes_and_ids_are_read_and_the_description_is_shortened() {
        let body = br#"{"error":"invalid_client","error_description":"AADSTS700213: No matching federated identity record found for presented assertion subject 'system:serviceaccount:a:b'. Trace ID: t Correlation ID: c Timestamp: 2026-01-18 00:16:16Z","error_codes":[700213],"timestamp":"2026-01-18 00:16:16Z","trace_id":"t","correlation_id":"c","error_uri":"https://login.microsoftonline.com/error?code=700213"}"#;
        let ExchangeError::Refused(refusal) = refusal(401, body) else { panic!("not refused") };
        assert_eq!(refusal.codes, [700_213]);
        assert!(refusal.description.ends_with("'system:serviceaccount:a:b'."));
        assert_eq!(refusal.correlation_id.as_deref(), Some("c"));
    }

    #[test]
    fn an_older_answer_without_codes_still_gives_one() {
        let body = b"{\"error\":\"invalid_request\",\"error_description\":\"AADSTS70021: No matching.\\r\\nTrace ID: t\"}";
        let ExchangeError::Refused(refusal) = refusal(400, body) else { panic!("not refused") };
        assert_eq!(
            (refusal.codes.as_slice(), refusal.description.as_str()),
            (&[70_021][..], "AADSTS70021: No matching.")
        );
    }

    #[test]
    fn a_page_that_is_no_error_is_said_to_be_none() {
        assert_eq!(refusal(502, b"<html>"), ExchangeError::Body { status: 502 });
    }
}
