//! The client of Azure Resource Manager: one request at a time, retried by the table, and lists.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use azure_core::{
    credentials::TokenCredential,
    http::{
        Context as PipelineContext, Method, Pipeline, PipelineSendOptions, Request,
        headers::{HeaderName, Headers, IF_MATCH, RETRY_AFTER},
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;
use tracing::Instrument as _;
use url::Url;

use super::{
    address::{address, on_endpoint},
    disposition::{Asked, Context, Disposition},
    endpoints::Endpoints,
    error::{ArmError, ServerError},
    http::{self, TransportError, innermost, is_of_credential, is_transport, of_credential},
    pace::{Jitter, Pace, Sleep, real_sleep},
};
use crate::model::{ArmId, PrincipalId, Token};

/// Called before every wait with what is waited for, as a fragment after "waiting for".
pub type Waits = Arc<dyn Fn(&str) + Send + Sync>;

/// Waits that nobody hears about.
pub fn silent() -> Waits {
    Arc::new(|_| {})
}

/// The scope of tokens for the API server of any AKS cluster with Entra authentication: the fixed
/// application "Azure Kubernetes Service AAD Server", the same in every cloud.
const AKS_SCOPE: &str = "6dae42f8-4368-4678-94ff-3960e28e3630/.default";

/// A list of more pages than this is a server gone wrong.
const MAX_PAGES: usize = 1000;
/// Tries of a request whose answer never came.
const MAX_UNANSWERED: u32 = 4;

pub(super) const ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");
pub(super) const LOCATION: HeaderName = HeaderName::from_static("location");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-ms-correlation-request-id");
const DATE: HeaderName = HeaderName::from_static("date");

/// A client of Azure Resource Manager. Clones share the connection pool, the token and the memory
/// of what this run has made.
#[derive(Clone)]
pub struct Arm {
    pipeline: Pipeline,
    endpoints: Arc<Endpoints>,
    credential: Arc<dyn TokenCredential>,
    waits: Waits,
    jitter: Jitter,
    sleep: Sleep,
    made: Arc<Mutex<Made>>,
}

/// What this run has made: only for these does "not found" mean "not yet".
#[derive(Debug, Default)]
struct Made {
    identities: BTreeSet<ArmId>,
    principals: BTreeSet<PrincipalId>,
}

impl fmt::Debug for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arm")
            .field("resource_manager", &self.endpoints.resource_manager.as_str())
            .finish_non_exhaustive()
    }
}

/// One request.
pub(super) struct Call {
    pub method: Method,
    pub url: Url,
    pub body: Option<Value>,
    pub if_match: Option<String>,
    pub context: Context,
}

impl Call {
    pub(super) fn get(url: Url) -> Self {
        Self { method: Method::Get, url, body: None, if_match: None, context: Context::default() }
    }

    pub(super) fn write(method: Method, url: Url, body: Value, asked: Asked) -> Self {
        let context = Context { asked, ..Context::default() };
        Self { method, url, body: Some(body), if_match: None, context }
    }
}

/// A successful answer.
pub(super) struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Answer {
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ArmError> {
        serde_json::from_slice(&self.body).map_err(|error| ArmError::Body {
            // The error names members and positions, never a value that could be secret.
            message: format!(
                "line {}, column {}: not the documented shape",
                error.line(),
                error.column()
            ),
        })
    }

    pub(super) fn header(&self, name: &HeaderName) -> Option<String> {
        self.headers.get_optional_str(name).map(str::to_owned)
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers)
    }
}

/// `Retry-After` in seconds, or as a date against the server's own clock.
pub(super) fn retry_after(headers: &Headers) -> Option<Duration> {
    let text = headers.get_optional_str(&RETRY_AFTER)?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let parse = |text: &str| azure_core::time::parse_rfc7231(text).ok();
    let now = parse(headers.get_optional_str(&DATE)?)?;
    let seconds = (parse(text)? - now).whole_seconds();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

impl Arm {
    /// A client for these endpoints. `waits` hears what every wait is for.
    pub fn new(
        endpoints: &Endpoints,
        credential: Arc<dyn TokenCredential>,
        waits: Waits,
    ) -> Result<Self, TransportError> {
        let transport = http::transport(endpoints)?;
        let bearer = Some((Arc::clone(&credential), endpoints.arm_scope.as_str()));
        Ok(Self {
            pipeline: http::pipeline(endpoints, &transport, bearer),
            endpoints: Arc::new(endpoints.clone()),
            credential,
            waits,
            jitter: Jitter::random(),
            sleep: real_sleep(),
            made: Arc::default(),
        })
    }

    /// The same client, announcing its waits elsewhere: one for each step that runs.
    #[must_use]
    pub fn with_waits(&self, waits: Waits) -> Self {
        Self { waits, ..self.clone() }
    }

    /// The same client with a repeatable spread of waits.
    #[must_use]
    pub fn with_jitter(&self, jitter: Jitter) -> Self {
        Self { jitter, ..self.clone() }
    }

    /// The same client on another clock.
    #[must_use]
    pub fn with_sleep(&self, sleep: Sleep) -> Self {
        Self { sleep, ..self.clone() }
    }

    /// The endpoints it talks to.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// A token for the API server of an AKS cluster with Entra authentication.
    ///
    /// Source: Microsoft documentation on `kubelogin`, which asks for the same application.
    pub async fn kubernetes_token(&self) -> Result<Token, ArmError> {
        let token = self.credential.get_token(&[AKS_SCOPE], None).await;
        token.map(|token| Token::new(token.token.secret())).map_err(|error| unanswered(&error))
    }

    pub(super) fn remember(&self, identity: &ArmId, principal: PrincipalId) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.identities.insert(identity.clone());
        made.principals.insert(principal);
    }

    pub(super) fn made_identity(&self, identity: &ArmId) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).identities.contains(identity)
    }

    pub(super) fn made_principal(&self, principal: PrincipalId) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).principals.contains(&principal)
    }

    pub(super) fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<Url, ArmError> {
        address(&self.endpoints.resource_manager, path, query)
    }

    pub(super) fn link(&self, link: &str, what: &'static str) -> Result<Url, ArmError> {
        on_endpoint(&self.endpoints.resource_manager, link, what)
    }

    /// Announces a wait and waits.
    pub(super) async fn wait(&self, how_long: Duration, what: &str) {
        if !how_long.is_zero() {
            (self.waits)(what);
            tracing::debug!(seconds = how_long.as_secs_f32(), what, "waiting");
            (self.sleep)(how_long).await;
        }
    }

    /// Sends a request until it succeeds or the table says that asking again is no use.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, ArmError> {
        let span = tracing::debug_span!("arm", method = %call.method, path = call.url.path());
        self.send_in_span(call).instrument(span).await
    }

    async fn send_in_span(&self, call: &Call) -> Result<Answer, ArmError> {
        let began = Instant::now();
        let mut waited = Duration::ZERO;
        let (mut attempt, mut unanswered, mut renewed) = (0, 0, false);
        loop {
            attempt += 1;
            let answer = match self.once(call).await {
                Ok(answer) => answer,
                Err(error @ ArmError::Unreachable { .. }) if unanswered + 1 < MAX_UNANSWERED => {
                    unanswered += 1;
                    tracing::debug!(%error, unanswered, "no answer");
                    let pause = Pace::Backoff.wait(unanswered, None, &self.jitter);
                    self.wait(pause.min(Duration::from_secs(5)), "an answer from Azure").await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if (200..300).contains(&answer.status) {
                return Ok(answer);
            }
            let error = Self::refusal(&answer, call.context);
            let Disposition::Retry { pace, limit, what } = error.disposition() else {
                return Err(ArmError::Answer(Box::new(error)));
            };
            let pause = pace.wait(attempt, error.retry_after, &self.jitter);
            // A server that takes its time to refuse has used up its limit, too.
            let spent = if pace == Pace::Once {
                std::mem::replace(&mut renewed, true)
            } else {
                waited.max(began.elapsed()) + pause > limit
            };
            if spent {
                return Err(ArmError::Answer(Box::new(error)));
            }
            self.wait(pause, what).await;
            waited += pause;
        }
    }

    fn refusal(answer: &Answer, context: Context) -> ServerError {
        let mut error = ServerError::parse(answer.status, &answer.body);
        error.request_id = answer.header(&REQUEST_ID);
        error.correlation_id = answer.header(&CORRELATION_ID);
        error.retry_after = answer.retry_after();
        error.context = context;
        if error.code.is_none() && (300..400).contains(&answer.status) {
            "the server redirects elsewhere, which is not followed".clone_into(&mut error.message);
        }
        tracing::debug!(
            status = error.status,
            code = error.code.as_deref(),
            correlation_id = error.correlation_id.as_deref(),
            "refused"
        );
        error
    }

    async fn once(&self, call: &Call) -> Result<Answer, ArmError> {
        let mut request = Request::new(call.url.clone(), call.method);
        if let Some(body) = &call.body {
            request.insert_header("content-type", "application/json");
            request.set_json(body).map_err(|error| unanswered(&error))?;
        } else if call.method == Method::Post {
            // Resource Manager refuses a POST without a length (411).
            request.insert_header("content-length", "0");
        }
        request.insert_header("accept", "application/json");
        if let Some(etag) = &call.if_match {
            request.insert_header(IF_MATCH, etag.clone());
        }
        let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
        let sent = self.pipeline.send(&PipelineContext::new(), &mut request, Some(options)).await;
        let response = sent.map_err(|error| unanswered(&error))?;
        let (status, headers, body) = response.deconstruct();
        let answer = Answer { status: u16::from(status), headers, body: body.as_ref().to_vec() };
        tracing::debug!(status = answer.status, bytes = answer.body.len(), "answered");
        Ok(answer)
    }

    /// Reads a whole list, following next links on the endpoint's own host.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        first: Url,
        context: Context,
    ) -> Result<Vec<T>, ArmError> {
        #[derive(serde::Deserialize)]
        struct Page<T> {
            value: Vec<T>,
            #[serde(rename = "nextLink")]
            next_link: Option<String>,
        }
        let mut all = Vec::new();
        let mut url = first;
        for _ in 0..MAX_PAGES {
            let answer = self.send(&Call { context, ..Call::get(url) }).await?;
            let page: Page<T> = answer.json()?;
            all.extend(page.value);
            match page.next_link.filter(|link| !link.is_empty()) {
                Some(link) => url = self.link(&link, "next link")?,
                None => return Ok(all),
            }
        }
        Err(ArmError::Pages { pages: MAX_PAGES })
    }
}

/// An error of the pipeline: the credential, the network, or an answer that cannot be used.
pub(super) fn unanswered(error: &azure_core::Error) -> ArmError {
    use azure_core::error::ErrorKind;
    let message = innermost(error);
    if is_transport(error) && !is_of_credential(error) {
        return ArmError::Unreachable { message };
    }
    match error.kind() {
        ErrorKind::Credential | ErrorKind::HttpResponse { .. } => {
            ArmError::Credential { message, why: of_credential(error) }
        }
        ErrorKind::DataConversion => ArmError::Body { message },
        ErrorKind::Connection | ErrorKind::Io => ArmError::Unreachable { message },
        ErrorKind::Other => ArmError::Refused { message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in pairs {
            headers.insert(*name, *value);
        }
        headers
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date_of_the_servers_clock() {
        assert_eq!(retry_after(&headers(&[("retry-after", "10")])), Some(Duration::from_secs(10)));
        let dated = headers(&[
            ("date", "Fri, 01 Jan 2027 00:00:00 GMT"),
            ("retry-after", "Fri, 01 Jan 2027 00:00:25 GMT"),
        ]);
        assert_eq!(retry_after(&dated), Some(Duration::from_secs(25)));
        assert_eq!(retry_after(&headers(&[("retry-after", "soon")])), None);
        assert_eq!(retry_after(&headers(&[])), None);
    }
}
