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

use super::endpoints::{Endpoints, Trust, is_loopback};

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

#[async_trait]
impl HttpClient for Guarded {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
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

/// The innermost words of an error: the outer ones only say that a request failed.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if texts.last().is_some_and(|last| !last.contains(&text)) {
            texts.push(text);
        }
        source = inner.source();
    }
    // The outermost says who, the innermost says why.
    let last = texts.pop().unwrap_or_default();
    match texts.first() {
        Some(first) if !first.contains(&last) => format!("{first}: {last}"),
        Some(_) | None => last,
    }
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
