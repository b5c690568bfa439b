//! One request to ARM, and the answers it can get.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, response},
    response::Response,
};
use base64::{
    Engine as _,
    engine::general_purpose::{GeneralPurpose, URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::sandbox::{context::Context, doc::is_too_deep, store::Guard};

/// How the last key of a page is written in a skip token.
const SKIP: GeneralPurpose = URL_SAFE_NO_PAD;

/// Who sends a request, from the claims of its verified access token.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Object id of the principal.
    pub(super) oid: String,
    /// Application id of the principal.
    pub(super) appid: String,
    /// Whether it is the world's operator, who may do everything.
    pub(super) operator: bool,
}

/// A request whose token and path were understood.
pub(super) struct Call {
    pub(super) ctx: Arc<Context>,
    pub(super) method: Method,
    /// Decoded path segments as the client wrote them.
    pub(super) segments: Vec<String>,
    /// The same in lower case: ARM compares paths without case.
    pub(super) lower: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) caller: Caller,
}

impl Call {
    /// A query parameter; its name is compared without case, as ARM does.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The api-version; the dispatcher has checked that it is there.
    pub(super) fn api_version(&self) -> &str {
        self.query("api-version").unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as a JSON object whose `properties` are one, too.
    pub(super) fn object(&self) -> Result<Value, Refusal> {
        let fits = |value: &Value| {
            let properties = value.get("properties").unwrap_or(&Value::Null);
            value.is_object() && (properties.is_object() || properties.is_null())
        };
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(value) if fits(&value) && !is_too_deep(&value) => Ok(value),
            // Code and text as the ARM gateway answers unreadable content.
            Ok(_) | Err(_) => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "InvalidRequestContent",
                "The request content was invalid and could not be deserialized: 'Error converting \
                 value to type 'ResourceDefinition'.'.",
            )),
        }
    }

    /// The scheme and authority that the client used, for links that ARM sends back.
    pub(super) fn base(&self) -> String {
        self.header("host").map_or_else(
            || self.ctx.endpoints.url(|bound| bound.resource_manager),
            |host| format!("https://{host}"),
        )
    }

    /// The subscription of the path, as written.
    pub(super) fn subscription(&self) -> Option<&str> {
        (self.lower.first()? == "subscriptions").then(|| self.segments.get(1))?.map(String::as_str)
    }

    /// The present, in milliseconds since the epoch.
    pub(super) fn now_ms(&self) -> i64 {
        self.ctx.clock.now().as_millisecond()
    }

    /// The last key of the page before, from the skip token of a next link.
    fn after(&self) -> Option<String> {
        let token = SKIP.decode(self.query("$skiptoken")?).ok()?;
        String::from_utf8(token).ok()
    }

    /// A test for what lists show already of what was made at a time in milliseconds.
    pub(super) fn listed(&self) -> impl Fn(&Value) -> bool + use<> {
        let lag = i64::try_from(self.ctx.settings.delays.list.as_millis()).unwrap_or(i64::MAX);
        let now = self.now_ms();
        move |made| lag == 0 || made.as_i64().unwrap_or(0).saturating_add(lag) <= now
    }
}

/// A successful answer.
pub(super) struct Reply {
    status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: Content,
}

enum Content {
    Empty,
    /// As the ARM gateway and most providers write JSON: compact, with a charset.
    Json(Value),
    /// As the container service writes JSON: indented, without a charset.
    Pretty(Value),
}

impl Reply {
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Content::Empty }
    }

    pub(super) fn json(status: StatusCode, value: Value) -> Self {
        Self { status, headers: Vec::new(), body: Content::Json(value) }
    }

    pub(super) fn pretty(status: StatusCode, value: Value) -> Self {
        Self { status, headers: Vec::new(), body: Content::Pretty(value) }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn into_response(self) -> Response {
        let mut builder = Response::builder().status(self.status);
        builder = put_headers(builder, self.headers);
        let (kind, bytes) = match self.body {
            Content::Empty => (None, Vec::new()),
            Content::Json(value) => {
                // Every value can be written; this is faster than its `Display`.
                let text = serde_json::to_vec(&value).unwrap_or_default();
                (Some("application/json; charset=utf-8"), text)
            }
            Content::Pretty(value) => (Some("application/json"), {
                serde_json::to_vec_pretty(&value).unwrap_or_default()
            }),
        };
        if let Some(kind) = kind {
            builder = builder.header(header::CONTENT_TYPE, kind);
        }
        finish(builder, bytes)
    }
}

/// An error answer.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    message: String,
    /// `Some(target)`: the flat shape of the container service instead of `{"error": …}`.
    flat: Option<String>,
    headers: Vec<(&'static str, String)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), flat: None, headers: Vec::new() }
    }

    /// The shape that the container service's own errors have: not wrapped in `error`.
    pub(super) fn flat(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        target: &str,
    ) -> Self {
        Self { flat: Some(target.to_owned()), ..Self::new(status, code, message) }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The 404 that the ARM gateway gives for a resource that is in no provider's books.
    pub(super) fn resource_not_found(kind: &str, name: &str, group: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "ResourceNotFound",
            format!(
                "The Resource '{kind}/{name}' under resource group '{group}' was not found. For \
                 more details please go to https://aka.ms/ARMResourceNotFoundFix"
            ),
        )
        .with("x-ms-failure-cause", "gateway")
    }

    /// The 404 of the ARM gateway for a resource group.
    pub(super) fn group_not_found(group: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "ResourceGroupNotFound",
            format!("Resource group '{group}' could not be found."),
        )
        .with("x-ms-failure-cause", "gateway")
    }

    /// The answer when the world's file cannot be written: nothing was changed.
    pub(super) fn storage(error: &std::io::Error) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            format!("The sandbox could not write its file: {error}"),
        )
    }

    pub(super) fn into_response(self) -> Response {
        let builder = put_headers(Response::builder().status(self.status), self.headers);
        match self.flat {
            Some(target) => finish(
                builder.header(header::CONTENT_TYPE, "application/json"),
                serde_json::to_vec_pretty(&json!({
                    "code": self.code, "details": null, "message": self.message,
                    "subcode": "", "target": target,
                }))
                .unwrap_or_default(),
            ),
            None => finish(
                builder.header(header::CONTENT_TYPE, "application/json; charset=utf-8"),
                json!({ "error": { "code": self.code, "message": self.message } })
                    .to_string()
                    .into_bytes(),
            ),
        }
    }
}

fn put_headers(
    mut builder: response::Builder,
    headers: Vec<(&'static str, String)>,
) -> response::Builder {
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    builder
}

fn finish(builder: response::Builder, bytes: Vec<u8>) -> Response {
    let length = HeaderValue::from(bytes.len());
    builder.header(header::CONTENT_LENGTH, length).body(Body::from(bytes)).unwrap_or_else(|_| {
        // A header value that HTTP cannot carry, which only a client's own text can cause.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response
    })
}

/// A path segment with its percent escapes resolved; what is no escape stays as it is.
pub(in crate::sandbox) fn percent_decoded(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| segment.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(escape.unwrap_or(bytes[at]));
        at += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A time as Azure writes it: seven fraction digits.
pub(super) fn stamp(ms: i64) -> String {
    let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S.%3f0000Z").to_string()
}

/// The documents below `prefix` that come after the page before the one that was asked for and
/// whose key is `wanted`. They are parsed as the page takes them.
pub(super) fn items<'a, F: Fn(&str) -> bool>(
    call: &Call,
    world: &'a Guard<'_>,
    prefix: &'a str,
    wanted: F,
) -> impl Iterator<Item = (&'a str, Value)> + use<'a, F> {
    let after = call.after().unwrap_or_default();
    world
        .range(prefix, &after)
        .filter(move |(key, _)| wanted(key))
        .map(|(key, doc)| (key, doc.value()))
}

/// One page of `items` (which must be sorted by their key) as `{"value": […], "nextLink"?}`.
///
/// The next link is absolute and carries the query of the first request plus a skip token that
/// names the last key, so a page is right even if the list changed meanwhile. Only what is on the page is rendered.
pub(super) fn page<K: AsRef<str>, T>(
    call: &Call,
    items: impl IntoIterator<Item = (K, T)>,
    default_size: usize,
    render: impl Fn(&str, T) -> Value,
) -> Reply {
    let size = call.query("$top").and_then(|top| top.parse().ok()).unwrap_or(default_size).max(1);
    let after = call.after().unwrap_or_default();
    let mut rest = items.into_iter().filter(|(key, _)| key.as_ref() > after.as_str());
    let mut values = Vec::new();
    let mut last = String::new();
    for (key, value) in rest.by_ref().take(size) {
        values.push(render(key.as_ref(), value));
        key.as_ref().clone_into(&mut last);
    }
    let mut body = json!({ "value": values });
    if rest.next().is_some() {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in &call.query {
            if !name.eq_ignore_ascii_case("$skiptoken") {
                query.append_pair(name, value);
            }
        }
        query.append_pair("$skiptoken", &SKIP.encode(last));
        let path = call.segments.iter().fold(String::new(), |mut path, segment| {
            path.push('/');
            path.push_str(&segment.replace('%', "%25").replace(' ', "%20").replace('?', "%3F"));
            path
        });
        body["nextLink"] = format!("{}{path}?{}", call.base(), query.finish()).into();
    }
    Reply::json(StatusCode::OK, body)
}
