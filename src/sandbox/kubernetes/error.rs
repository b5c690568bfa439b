//! Refusals as `Status` objects, worded as a real API server words them.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>

use axum::{
    body::Body,
    http::{Response, StatusCode, header},
};
use serde_json::{Map, Value, json};

use super::kinds::Kind;

/// A refusal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Status {
    /// HTTP status.
    pub code: u16,
    /// Machine-readable reason; empty where the server gives none.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details`, or null.
    pub details: Value,
    /// Continue token for a list that expired.
    pub resume: Option<String>,
    /// Answered as plain text.
    pub text: bool,
}

/// The result of handling a request.
pub(super) type Outcome<T> = Result<T, Status>;

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
            resume: None,
            text: false,
        }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !kind.group.is_empty() {
            details.insert("group".into(), kind.group.clone().into());
        }
        details.insert("kind".into(), kind.plural.clone().into());
        self.details = Value::Object(details);
        self
    }

    /// 404 for an object.
    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", kind.qualified()))
            .about(kind, name)
    }

    /// 404 for a path that the server does not serve.
    pub(super) fn no_such_path() -> Self {
        let mut status =
            Self::new(404, "NotFound", "the server could not find the requested resource");
        status.details = json!({});
        status
    }

    /// 409 for a name that is taken.
    pub(super) fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", kind.qualified()))
            .about(kind, name)
    }

    /// 409 of optimistic locking and preconditions.
    pub(super) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// 409 for a `resourceVersion` that is not the present one.
    pub(super) fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 of server-side apply.
    pub(super) fn apply_conflict(message: String, causes: &[Value]) -> Self {
        let mut status = Self::new(409, "Conflict", message);
        status.details = json!({ "causes": causes });
        status
    }

    /// 400.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 by the authorizer.
    pub(super) fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let kind = Kind::reference(group, plural);
        let shown = if name.is_empty() {
            format!("{} is forbidden: {why}", kind.qualified())
        } else {
            format!("{} \"{name}\" is forbidden: {why}", kind.qualified())
        };
        Self::new(403, "Forbidden", shown).about(&kind, name)
    }

    /// 403 for a path that is no resource.
    pub(super) fn forbidden_path(message: String) -> Self {
        let mut status = Self::new(403, "Forbidden", message);
        status.details = json!({});
        status
    }

    /// 405.
    pub(super) fn method_not_allowed() -> Self {
        let mut status = Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        status.details = json!({});
        status
    }

    /// 406.
    pub(super) fn not_acceptable(accepted: &str) -> Self {
        Self::new(
            406,
            "NotAcceptable",
            format!("only the following media types are accepted: {accepted}"),
        )
    }

    /// 415.
    pub(super) fn unsupported_media(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 410 for a version that is no longer known.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 400 for a `resourceVersion` that is none.
    pub(super) fn invalid_version(given: &str) -> Self {
        Self::bad_request(format!(
            "Invalid value: \"{given}\": strconv.ParseUint: parsing \"{given}\": invalid syntax"
        ))
    }

    /// 413-like refusals and other errors without a reason.
    pub(super) fn plain(code: u16, message: impl Into<String>) -> Self {
        Self::new(code, "", message)
    }

    /// 429 of an eviction that a disruption budget forbids.
    pub(super) fn too_many_requests(message: impl Into<String>, causes: &Value) -> Self {
        let mut status = Self::new(429, "TooManyRequests", message);
        status.details = json!({ "causes": causes });
        status
    }

    /// 500.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        let mut status =
            Self::new(500, "InternalError", format!("Internal error occurred: {message}"));
        status.details = json!({ "causes": [{ "message": message }] });
        status
    }

    /// 422 with its causes: (cause reason, field, message).
    pub(super) fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_named(&kind.group, &kind.kind, name, errors)
    }

    /// 422 for a kind that is not stored.
    pub(super) fn invalid_named(
        group: &str,
        kind: &str,
        name: &str,
        errors: &[FieldError],
    ) -> Self {
        let texts: Vec<String> =
            errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        let joined = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut status =
            Self::new(422, "Invalid", format!("{qualified} \"{name}\" is invalid: {joined}"));
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !group.is_empty() {
            details.insert("group".into(), group.into());
        }
        details.insert("kind".into(), kind.into());
        let causes: Vec<Value> = errors
            .iter()
            .map(|e| json!({"reason": e.reason, "message": e.message, "field": e.field}))
            .collect();
        details.insert("causes".into(), causes.into());
        status.details = Value::Object(details);
        status
    }

    /// 422 of a JSON patch that does not apply; the server does not say why.
    pub(super) fn patch_failed() -> Self {
        let mut status = Self::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        );
        status.details = json!({});
        status
    }

    /// 404 of the router in front of the API, as text.
    pub(super) fn page_not_found() -> Self {
        let mut status = Self::new(404, "", "404 page not found");
        status.text = true;
        status
    }

    /// The body.
    pub(super) fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("kind".into(), "Status".into());
        body.insert("apiVersion".into(), "v1".into());
        let mut metadata = Map::new();
        if let Some(resume) = &self.resume {
            metadata.insert("continue".into(), resume.clone().into());
        }
        body.insert("metadata".into(), Value::Object(metadata));
        body.insert("status".into(), "Failure".into());
        body.insert("message".into(), self.message.clone().into());
        if !self.reason.is_empty() {
            body.insert("reason".into(), self.reason.into());
        }
        if !self.details.is_null() {
            body.insert("details".into(), self.details.clone());
        }
        body.insert("code".into(), self.code.into());
        Value::Object(body)
    }

    /// The answer.
    pub(super) fn response(&self) -> Response<Body> {
        if self.text {
            let mut response = Response::new(Body::from(format!("{}\n", self.message)));
            *response.status_mut() = StatusCode::NOT_FOUND;
            let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, plain);
            return response;
        }
        respond(self.code, &self.body())
    }
}

/// A JSON answer.
pub(super) fn respond(code: u16, body: &Value) -> Response<Body> {
    // Every value can be written; this is faster than its `Display`.
    let mut text = serde_json::to_string(body).unwrap_or_default();
    text.push('\n');
    respond_with(code, Body::from(text))
}

/// An answer whose JSON is written already.
pub(super) fn respond_with(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// One cause of a 422.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FieldError {
    /// `FieldValueRequired`, `FieldValueInvalid`, …
    pub reason: &'static str,
    /// Path, such as `spec.selector`.
    pub field: String,
    /// What is wrong, starting with the words that belong to the reason.
    pub message: String,
}

impl FieldError {
    /// A field that is missing.
    pub(super) fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {detail}")
        };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    /// A value that is wrong.
    pub(super) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self {
            reason: "FieldValueInvalid",
            field: field.into(),
            message: format!("Invalid value: {value}: {detail}"),
        }
    }

    /// A value that is not one of those allowed.
    pub(super) fn not_supported(field: impl Into<String>, value: &Value, allowed: &[&str]) -> Self {
        let allowed: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
        Self {
            reason: "FieldValueNotSupported",
            field: field.into(),
            message: format!(
                "Unsupported value: {value}: supported values: {}",
                allowed.join(", ")
            ),
        }
    }

    /// A field that may not be set or changed.
    pub(super) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self {
            reason: "FieldValueForbidden",
            field: field.into(),
            message: format!("Forbidden: {detail}"),
        }
    }

    /// A value that stands twice.
    pub(super) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            reason: "FieldValueDuplicate",
            field: field.into(),
            message: format!("Duplicate value: {value}"),
        }
    }
}
