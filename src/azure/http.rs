//! The transport below every pipeline: one `reqwest` client with the right trust, no redirects,
//! and a bound on what it reads.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::{
    credentials::TokenCredential,
    error::ErrorKind,
    http::{
        AsyncRawResponse, ClientOptions, Context, HttpClient, LoggingOptions, Pipeline, Request,
        RetryOptions, Transport, UserAgentOptions,
        headers::AUTHORIZATION,
        policies::{Policy, PolicyResult, auth::BearerTokenAuthorizationPolicy},
    },
};
use futures::StreamExt as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use super::endpoints::{Endpoints, Trust, is_loopback};
use crate::model::FailureKind;

/// More than any answer of these APIs: Resource Manager limits its own to 8 MB.
///
/// Source: Azure Resource Manager RPC, "Common API details".
const MAX_BODY: usize = 16 << 20;

/// No HTTP client could be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The text that was given as certificates is none.
    #[error("the certificate authority file holds no readable PEM certificate")]
    Certificates(#[source] reqwest::Error),
    /// The client itself.
    #[error("cannot make an HTTPS client")]
    Client(#[source] reqwest::Error),
}

/// The client of all requests to these endpoints.
pub(super) fn transport(endpoints: &Endpoints) -> Result<Transport, TransportError> {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(20))
        .read_timeout(Duration::from_mins(1))
        .timeout(Duration::from_mins(3));
    let certificates = |pem: &str| {
        reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(TransportError::Certificates)
    };
    builder = match &endpoints.trust {
        Trust::System => builder,
        Trust::SystemAnd(pem) => builder.tls_certs_merge(certificates(pem)?),
        Trust::Only(pem) => builder.tls_certs_only(certificates(pem)?),
    };
    if endpoints.is_local() {
        builder = builder.no_proxy();
    }
    if endpoints.loopback_only || !endpoints.resolve.is_empty() {
        builder = builder.dns_resolver(Arc::new(Resolver(endpoints.clone())));
    }
    let client = builder.build().map_err(TransportError::Client)?;
    Ok(Transport::new(Arc::new(Guarded { client, endpoints: endpoints.clone() })))
}

/// Options of a pipeline on this transport. Retrying is the caller's: the table of
/// [`super::disposition`] decides, and every wait is announced.
pub(super) fn options(transport: &Transport) -> ClientOptions {
    ClientOptions {
        transport: Some(transport.clone()),
        retry: RetryOptions::none(),
        user_agent: UserAgentOptions { application_id: Some("widentity".into()) },
        logging: LoggingOptions {
            additional_allowed_header_names: vec!["x-ms-correlation-request-id".into()],
            ..LoggingOptions::default()
        },
        ..ClientOptions::default()
    }
}

/// A pipeline, with a bearer token of this credential and scope where given.
pub(super) fn pipeline(
    endpoints: &Endpoints,
    transport: &Transport,
    bearer: Option<(Arc<dyn TokenCredential>, &str)>,
) -> Pipeline {
    let bearer: Option<Arc<dyn Policy>> = bearer.map(|(credential, scope)| {
        if endpoints.resource_manager.scheme() == "https" {
            Arc::new(BearerTokenAuthorizationPolicy::new(credential, [scope])) as Arc<dyn Policy>
        } else {
            Arc::new(LoopbackBearer { credential, scope: scope.to_owned() })
        }
    });
    let crate_name = Some(env!("CARGO_PKG_NAME"));
    let version = Some(env!("CARGO_PKG_VERSION"));
    let per_try = bearer.into_iter().collect();
    Pipeline::new(crate_name, version, options(transport), Vec::new(), per_try, None)
}

#[derive(Debug)]
struct Guarded {
    client: reqwest::Client,
    endpoints: Endpoints,
}

impl Guarded {
    fn refusal(&self, request: &Request) -> Option<&'static str> {
        let url = request.url();
        let local = is_loopback(url);
        let fixed = url.host_str().is_some_and(|host| self.endpoints.resolved(host).is_some());
        if url.scheme() != "https" && !local {
            Some("plain http is spoken only to loopback")
        } else if self.endpoints.loopback_only && !local && !fixed {
            Some("the sandbox reaches only loopback")
        } else {
            None
        }
    }
}

/// A request for an authority on this machine that the file gives as plain http: credentials ask
/// for it by https, because `azure_identity` knows nothing else.
fn as_in_the_file(endpoints: &Endpoints, request: &Request) -> Option<Request> {
    let (authority, url) = (&endpoints.authority, request.url());
    let place = |url: &Url| (url.host_str().map(str::to_owned), url.port());
    let meant = authority.scheme() == "http" && url.scheme() == "https";
    if !meant || place(authority) != place(url) {
        return None;
    }
    let mut plain = request.clone();
    plain.url_mut().set_scheme("http").ok()?;
    Some(plain)
}

#[async_trait]
impl HttpClient for Guarded {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let plain = as_in_the_file(&self.endpoints, request);
        let request = plain.as_ref().unwrap_or(request);
        if let Some(why) = self.refusal(request) {
            return Err(azure_core::Error::with_message(ErrorKind::Other, why));
        }
        let response = self.client.execute_request(request).await?;
        let (status, headers, mut stream) = response.deconstruct();
        let mut body = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            if body.len() + chunk.len() > MAX_BODY {
                let message = format!("the answer is longer than {} MB", MAX_BODY >> 20);
                return Err(azure_core::Error::with_message(ErrorKind::DataConversion, message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(AsyncRawResponse::from_bytes(status, headers, body))
    }
}

struct Resolver(Endpoints);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let fixed = self.0.resolved(&host);
        let loopback_only = self.0.loopback_only;
        Box::pin(async move {
            if let Some(address) = fixed {
                return Ok(Box::new([address].into_iter()) as Addrs);
            }
            if loopback_only && host != "localhost" && !host.ends_with(".localhost") {
                return Err(io::Error::other("the sandbox reaches only loopback").into());
            }
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Attaches a token to plain http requests to loopback, which the policy of `azure_core` refuses
/// without exception.
#[derive(Debug)]
struct LoopbackBearer {
    credential: Arc<dyn TokenCredential>,
    scope: String,
}

#[async_trait]
impl Policy for LoopbackBearer {
    async fn send(
        &self,
        context: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        if !is_loopback(request.url()) {
            let why = "a token is sent over plain http only to loopback";
            return Err(azure_core::Error::with_message(ErrorKind::Other, why));
        }
        let token = self.credential.get_token(&[&self.scope], None).await?;
        request.insert_header(AUTHORIZATION, format!("Bearer {}", token.token.secret()));
        match next {
            [first, rest @ ..] => first.send(context, request, rest).await,
            [] => Err(azure_core::Error::with_message(ErrorKind::Other, "no transport")),
        }
    }
}

/// What the libraries below say of any failure: it tells nobody anything.
const NOISE: [&str; 2] = [
    "retry policy expired and the request will no longer be retried",
    "failed to execute `reqwest` request",
];

/// One level of an error in its own words, without [`NOISE`] and links to other programs' help.
fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let text = error.to_string();
    let lines = text.lines().filter(|line| !line.starts_with("To troubleshoot"));
    let text = lines.collect::<Vec<_>>().join("\n");
    // The TLS library adds a link to its own manual.
    let text = text.split(": https://docs.rs/").next().unwrap_or_default().to_owned();
    let text = NOISE.iter().fold(text, |text, noise| text.replace(noise, ""));
    text.trim().trim_end_matches('.').to_owned()
}

/// Who failed and why: the outermost words, the host that was not reached, the innermost words.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut host = None;
    let mut next = Some(error);
    while let Some(current) = next {
        let text = said(current);
        let known = |last: &String| last.contains(&text);
        if !text.is_empty() && !texts.last().is_some_and(known) {
            texts.push(text);
        }
        let url = current.downcast_ref::<reqwest::Error>().and_then(reqwest::Error::url);
        host = host.or(url.and_then(Url::host_str).map(str::to_owned));
        next = current.source();
    }
    let Some(why) = texts.pop() else { return error.to_string() };
    // Between the two, each level only says that a request failed.
    let who = texts.into_iter().next().filter(|who| !who.contains(&why));
    let who = who.filter(|who| host.is_none() || !who.contains("error sending request"));
    let parts = [who, host.filter(|host| !why.contains(host)), Some(why)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(": ")
}

/// What a credential's failure was: nobody answered, the authority cannot serve now, or it refused.
pub(super) fn of_credential(error: &azure_core::Error) -> FailureKind {
    if is_transport(error) {
        return FailureKind::Unreachable;
    }
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = next {
        let kind = current.downcast_ref::<azure_core::Error>().map(azure_core::Error::kind);
        match kind {
            Some(ErrorKind::HttpResponse { status, .. })
                if status.is_server_error() || u16::from(*status) == 429 =>
            {
                return FailureKind::Unavailable;
            }
            // Entra answers JSON, also when it refuses: this is a gateway's page.
            Some(ErrorKind::DataConversion) => return FailureKind::Unavailable,
            _ => {}
        }
        next = current.source();
    }
    FailureKind::Unauthenticated
}

/// Whether it came from the credential, so that nothing was sent to where it was to go.
pub(super) fn is_of_credential(error: &azure_core::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = next {
        let kind = current.downcast_ref::<azure_core::Error>().map(azure_core::Error::kind);
        if matches!(kind, Some(ErrorKind::Credential)) {
            return true;
        }
        next = current.source();
    }
    false
}

/// Whether the network is to blame, anywhere down the chain.
pub(super) fn is_transport(error: &azure_core::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(error) = current.downcast_ref::<azure_core::Error>()
            && matches!(error.kind(), ErrorKind::Connection | ErrorKind::Io)
        {
            return true;
        }
        if current.is::<reqwest::Error>() {
            return true;
        }
        next = current.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_who_and_why_without_what_lies_between() {
        let why = io::Error::other("Connection refused (os error 111)");
        let retried = azure_core::Error::with_error(
            ErrorKind::Io,
            why,
            "retry policy expired and the request will no longer be retried",
        );
        let text = format!("X authentication failed. {retried}\nTo troubleshoot, visit https://y");
        let error = azure_core::Error::with_error(ErrorKind::Credential, retried, text);
        assert_eq!(innermost(&error), "X authentication failed: Connection refused (os error 111)");
    }

    #[test]
    fn an_authority_that_cannot_serve_has_not_refused() {
        let answer = |status: u16| {
            let kind = ErrorKind::HttpResponse {
                status: status.into(),
                error_code: None,
                raw_response: None,
            };
            let inner = azure_core::Error::new(kind, "words");
            let outer = azure_core::Error::with_error(ErrorKind::Credential, inner, "failed");
            of_credential(&outer)
        };
        assert_eq!(answer(500), FailureKind::Unavailable);
        assert_eq!(answer(429), FailureKind::Unavailable);
        assert_eq!(answer(401), FailureKind::Unauthenticated);
        let page = azure_core::Error::with_message(ErrorKind::DataConversion, "expected value");
        let outer = azure_core::Error::with_error(ErrorKind::Credential, page, "failed");
        assert_eq!(of_credential(&outer), FailureKind::Unavailable);
        let lost = azure_core::Error::with_message(ErrorKind::Io, "reset");
        let outer = azure_core::Error::with_error(ErrorKind::Credential, lost, "failed");
        assert_eq!(of_credential(&outer), FailureKind::Unreachable);
    }
}
