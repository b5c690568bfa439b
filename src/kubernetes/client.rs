//! Requests: one way out, with a bound on time, on retries and on how many run at once.

use std::{collections::BTreeSet, error::Error as _, fmt, sync::Arc, time::Duration};

use hyper::{Method, Request, Response, header, http};
use kube::client::{AuthError, Body};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{sync::Semaphore, time};
use url::form_urlencoded;

use super::{
    Cause, Connect, KubeError, TokenSource,
    connect::{self, Settings},
    patience::{Patience, Waits},
    versions::Versions,
};
use crate::model::{Namespace, Token};

/// One request and its answer take at most this long.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The plugin that gets a user's credential may open a browser.
const CREDENTIAL_TIMEOUT: Duration = Duration::from_mins(5);
/// Requests in flight per API server.
const AT_ONCE: usize = 8;
/// Tries of a request that was throttled or met a server in trouble.
const TRIES: u32 = 5;
/// Tries of a request that got no answer.
const TRANSPORT_TRIES: u32 = 2;
/// A server that asks for more patience than this is waited for no longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Objects per page of a list.
const PAGE: usize = 500;
/// A list whose continue token expired is begun again this often.
const RESTARTS: u32 = 3;

/// A client of one API server. Clones share the connection and the bound on requests in flight.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    patience: Arc<Patience>,
}

struct Inner {
    kube: kube::Client,
    host: String,
    token: Option<TokenSource>,
    who: String,
    install: Option<String>,
    permits: Semaphore,
    versions: tokio::sync::OnceCell<Versions>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("host", &self.inner.host).finish_non_exhaustive()
    }
}

/// Where a list looks.
#[derive(Debug, Clone, Copy)]
pub enum Within<'a> {
    /// In every namespace.
    Everywhere,
    /// In every namespace with one request, keeping these; accounts and templates that bear a
    /// project's mark are kept from the others, too.
    Among(&'a BTreeSet<Namespace>),
    /// In one namespace.
    Namespace(&'a Namespace),
}

impl<'a> From<Option<&'a Namespace>> for Within<'a> {
    fn from(namespace: Option<&'a Namespace>) -> Self {
        namespace.map_or(Self::Everywhere, Self::Namespace)
    }
}

impl Within<'_> {
    pub(super) fn keeps(self, namespace: &Namespace) -> bool {
        match self {
            Self::Everywhere | Self::Namespace(_) => true,
            Self::Among(these) => these.contains(namespace),
        }
    }
}

/// Whether a request may be sent again when nobody knows whether it was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Reading, server-side apply, tokens, dry runs, deleting by uid.
    Safe,
    /// Making an object.
    Unsafe,
}

/// A request without its host.
pub(super) struct Ask {
    pub method: Method,
    pub path: String,
    pub query: Vec<(&'static str, String)>,
    pub body: Option<(&'static str, Value)>,
    pub repeat: Repeat,
}

impl Ask {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            query: Vec::new(),
            body: None,
            repeat: Repeat::Safe,
        }
    }

    fn request(&self) -> Result<Request<Body>, KubeError> {
        let mut uri = self.path.clone();
        if !self.query.is_empty() {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(&self.query);
            uri = format!("{uri}?{}", query.finish());
        }
        let agent = concat!("widentity/", env!("CARGO_PKG_VERSION"));
        let mut request = Request::builder()
            .method(&self.method)
            .uri(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, agent);
        let body = match &self.body {
            Some((content_type, body)) => {
                request = request.header(header::CONTENT_TYPE, *content_type);
                Body::from(body.to_string().into_bytes())
            }
            None => Body::empty(),
        };
        request.body(body).map_err(|e| KubeError::Body { message: e.to_string() })
    }
}

/// A path segment that came from a file or another server.
pub(super) fn segment(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[derive(Deserialize)]
struct ListPage<T> {
    #[serde(default)]
    metadata: ListMeta,
    // A server may write an empty list as null.
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

#[derive(Default, Deserialize)]
struct StatusBody {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: StatusDetails,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusDetails {
    #[serde(default)]
    causes: Vec<Cause>,
    #[serde(default)]
    retry_after_seconds: Option<u64>,
}

impl Client {
    /// Connects. For a user with an exec plugin this runs the plugin; nothing is sent to the
    /// server yet.
    pub async fn connect(connect: Connect) -> Result<Self, KubeError> {
        let Settings { mut config, token, who, install } = connect::settings(connect).await?;
        // kube's own policy retries 15 times, POST included, as long as a server asks.
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(10));
        config.read_timeout = Some(TIMEOUT);
        config.reset_reader_on_write = true;
        let server = config.cluster_url.to_string();
        let host = config.cluster_url.host().unwrap_or_default().to_owned();
        // An exec plugin is run while the client is made, and blocks. The runtime is entered
        // because the client spawns its worker.
        let runtime = tokio::runtime::Handle::current();
        let made = tokio::task::spawn_blocking(move || {
            let _entered = runtime.enter();
            kube::Client::try_from(config)
        });
        let credential = |message: String| KubeError::Credential {
            who: who.clone(),
            message,
            install: install.clone(),
        };
        let kube = match time::timeout(CREDENTIAL_TIMEOUT, made).await {
            Err(_) => {
                let seconds = CREDENTIAL_TIMEOUT.as_secs();
                return Err(credential(format!("no answer within {seconds} s")));
            }
            Ok(Err(join)) => return Err(credential(join.to_string())),
            Ok(Ok(Err(kube::Error::Auth(auth)))) => return Err(credential(auth_message(&auth))),
            Ok(Ok(Err(other))) => {
                return Err(KubeError::BadServer { server, message: chain(&other) });
            }
            Ok(Ok(Ok(kube))) => kube,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                kube,
                host,
                token,
                who,
                install,
                permits: Semaphore::new(AT_ONCE),
                versions: tokio::sync::OnceCell::new(),
            }),
            patience: Arc::new(Patience::silent()),
        })
    }

    /// The host that is talked to, without the port.
    pub fn host(&self) -> &str {
        &self.inner.host
    }

    /// The same client, telling once that its server takes long.
    #[must_use]
    pub fn telling(self, waits: Waits) -> Self {
        Self { patience: Arc::new(Patience::new(waits)), ..self }
    }

    pub(super) async fn versions(&self) -> Result<&Versions, KubeError> {
        self.inner.versions.get_or_try_init(|| Versions::discover(self)).await
    }

    /// Sends a request, again if that is safe and promises to help, and reads the answer.
    pub(super) async fn ask<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T, KubeError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let permit = self.inner.permits.acquire().await;
            let (error, retry_after) = match self.once(ask).await {
                Ok(body) => {
                    return serde_json::from_slice(&body)
                        .map_err(|e| KubeError::Body { message: e.to_string() });
                }
                Err(failed) => failed,
            };
            drop(permit);
            let repeatable = ask.repeat == Repeat::Safe;
            let again = match error.status() {
                // The server says that it did not begin: any request may be repeated.
                Some(429) => tries < TRIES,
                // Whoever asks knows how long a webhook is worth waiting for.
                Some(500..) if error.is_webhook_down() && retry_after.is_none() => false,
                // A server that restarts, a leader that changes, a fresh account's token on old
                // servers.
                Some(500..) => repeatable && tries < TRIES,
                Some(_) => false,
                None => {
                    let unanswered =
                        matches!(error, KubeError::Unreachable { .. } | KubeError::TimedOut { .. });
                    repeatable && unanswered && tries < TRANSPORT_TRIES
                }
            };
            let wait = retry_after.unwrap_or(Duration::from_millis(250 << tries.min(5)));
            if !again || wait > MAX_RETRY_AFTER {
                return Err(error);
            }
            tracing::debug!(path = ask.path, tries, %error, "asking again");
            if tries > 1 {
                self.patience.tell(self.host(), &error.to_string());
            }
            time::sleep(wait).await;
        }
    }

    async fn once(&self, ask: &Ask) -> Result<Vec<u8>, (KubeError, Option<Duration>)> {
        let mut request = ask.request().map_err(|e| (e, None))?;
        if let Some(source) = &self.inner.token {
            let token = source().await.map_err(|e| (KubeError::NoToken(Box::new(e)), None))?;
            let value = bearer(&token).map_err(|e| (e, None))?;
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let answer = async {
            let response = self.inner.kube.send(request).await?;
            let (parts, body) = response.into_parts();
            Ok(Response::from_parts(parts, body.collect_bytes().await?))
        };
        let answer = time::timeout(TIMEOUT, self.patience.with(self.host(), answer)).await;
        let response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err((self.transport(&error), None)),
            Err(_) => {
                let (server, seconds) = (self.inner.host.clone(), TIMEOUT.as_secs());
                return Err((KubeError::TimedOut { server, seconds }, None));
            }
        };
        let (parts, body) = response.into_parts();
        if parts.status.is_success() {
            self.patience.over();
            return Ok(body.to_vec());
        }
        Err(refusal(&parts, &body))
    }

    fn transport(&self, error: &kube::Error) -> KubeError {
        // A plugin that is run again for a new token fails below the connection.
        let auth = if let kube::Error::Auth(auth) = error {
            Some(auth)
        } else if let kube::Error::Service(service) = error {
            service.downcast_ref::<AuthError>()
        } else {
            None
        };
        if let Some(auth) = auth {
            return KubeError::Credential {
                who: self.inner.who.clone(),
                message: auth_message(auth),
                install: self.inner.install.clone(),
            };
        }
        KubeError::Unreachable { server: self.inner.host.clone(), message: chain(error) }
    }

    /// Reads a list page by page and folds each object into the result; what `each` does not keep
    /// is dropped before the next page is asked for. A list whose continue token expired (410) is
    /// begun anew, with a new result.
    pub(super) async fn list<T: DeserializeOwned, S: Default>(
        &self,
        path: &str,
        each: impl FnMut(&mut S, T),
    ) -> Result<S, KubeError> {
        self.list_where(path, &[], each).await
    }

    /// The same, of those objects that further parameters choose.
    pub(super) async fn list_where<T: DeserializeOwned, S: Default>(
        &self,
        path: &str,
        query: &[(&'static str, String)],
        mut each: impl FnMut(&mut S, T),
    ) -> Result<S, KubeError> {
        let mut restarts = 0;
        let mut next: Option<String> = None;
        let mut found = S::default();
        loop {
            let mut ask = Ask::get(path);
            ask.query.push(("limit", PAGE.to_string()));
            ask.query.extend(query.iter().cloned());
            if let Some(token) = &next {
                ask.query.push(("continue", token.clone()));
            }
            let page: ListPage<T> = match self.ask(&ask).await {
                Err(error) if error.is_gone() && next.is_some() && restarts < RESTARTS => {
                    restarts += 1;
                    next = None;
                    found = S::default();
                    continue;
                }
                page => page?,
            };
            page.items.into_iter().flatten().for_each(|object| each(&mut found, object));
            let before = next.take();
            next = page.metadata.next.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(found);
            }
            if next == before {
                let message = "the list goes on at the page that was just read".to_owned();
                return Err(KubeError::Body { message });
            }
        }
    }

    /// An object, or none where the server says it does not exist.
    pub(super) async fn find<T: DeserializeOwned>(
        &self,
        path: impl Into<String>,
    ) -> Result<Option<T>, KubeError> {
        match self.ask(&Ask::get(path)).await {
            Err(error) if error.is_not_found() => Ok(None),
            found => found.map(Some),
        }
    }
}

fn bearer(token: &Token) -> Result<header::HeaderValue, KubeError> {
    let mut value = header::HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .map_err(|_| KubeError::Body { message: "the token is not a header value".to_owned() })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A refusal and how long the server asks to wait.
fn refusal(parts: &http::response::Parts, body: &[u8]) -> (KubeError, Option<Duration>) {
    let header = |name: &str| parts.headers.get(name)?.to_str().ok();
    let status = parts.status;
    let parsed: StatusBody = serde_json::from_slice(body).unwrap_or_default();
    let after = header("retry-after").and_then(|text| text.trim().parse().ok());
    let after = after.or(parsed.details.retry_after_seconds).map(Duration::from_secs);
    let message = if !parsed.message.is_empty() {
        parsed.message
    } else if body.is_empty() || parsed.kind == "Status" {
        format!("the server answered {status}")
    } else {
        // Not the API server's own words: a proxy in between, or a plain-text refusal.
        String::from_utf8_lossy(body).trim().chars().take(200).collect()
    };
    let error = KubeError::Status {
        status: status.as_u16(),
        reason: parsed.reason,
        message,
        causes: parsed.details.causes,
        audit_id: header("audit-id").map(str::to_owned),
    };
    (error, after)
}

/// An error with its causes: hyper's own words say little.
fn chain(error: &kube::Error) -> String {
    let wraps = matches!(error, kube::Error::HyperError(_) | kube::Error::Service(_));
    let mut text = if wraps { String::new() } else { error.to_string() };
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        // The TLS library adds a link to its own manual, which says nothing of this server.
        let words = words.split(": https://docs.rs/").next().unwrap_or_default();
        if !text.contains(words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(words);
        }
        source = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

/// What an exec plugin says. Never its standard output, where a credential would stand, nor its
/// environment.
fn auth_message(error: &AuthError) -> String {
    if let AuthError::AuthExecRun { out, .. } = error {
        let said = String::from_utf8_lossy(&out.stderr);
        let said: String = said.trim().chars().take(500).collect();
        return if said.is_empty() {
            out.status.to_string()
        } else {
            format!("{}: {said}", out.status)
        };
    }
    if let AuthError::AuthExecStart(io) = error {
        return format!("it cannot be started: {io}");
    }
    if let AuthError::AuthExecParse(_) = error {
        return "its answer is not an ExecCredential".to_owned();
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(status: u16, headers: &[(&str, &str)]) -> http::response::Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_status_body_is_read_with_its_causes() {
        let body =
            br#"{"kind":"Status","reason":"Conflict","message":"Apply failed with 1 conflict",
            "details":{"causes":[{"reason":"FieldManagerConflict",
            "message":"conflict with \"helm\" using v1","field":".metadata.labels.x"}]}}"#;
        let (error, after) = refusal(&parts(409, &[("audit-id", "a1")]), body);
        assert!(error.is_conflict());
        assert_eq!(error.causes()[0].manager(), Some("helm"));
        assert_eq!(error.failure("t").correlation_id.as_deref(), Some("a1"));
        assert_eq!(after, None);
    }

    #[test]
    fn the_header_says_how_long_to_wait_before_the_body_does() {
        let body = br#"{"details":{"retryAfterSeconds":7}}"#;
        assert_eq!(
            refusal(&parts(429, &[("retry-after", "2")]), body).1,
            Some(Duration::from_secs(2))
        );
        assert_eq!(refusal(&parts(429, &[]), body).1, Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_refusal_that_is_not_a_status_keeps_its_words() {
        let (error, _) = refusal(&parts(502, &[]), b"bad gateway");
        assert_eq!(error.to_string(), "bad gateway");
        assert_eq!(
            refusal(&parts(502, &[]), b"").0.to_string(),
            "the server answered 502 Bad Gateway"
        );
    }

    #[test]
    fn segments_are_escaped() {
        assert_eq!(segment("a/b c?"), "a%2Fb%20c%3F");
    }
}
