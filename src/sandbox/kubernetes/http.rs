//! The HTTP face: reading bodies, choosing the verb, writing answers.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Method, Request, Response, header},
};
use serde_json::Value;

use super::{
    super::doc::{Doc, is_too_deep},
    Kubernetes,
    auth::{Attributes, User},
    discovery,
    error::{Outcome, Status, respond},
    list, openapi, patch, pods,
    request::{Form, Options, Target, verb},
    review, scale, tables, token_request, verbs, watch,
};

/// Larger bodies are refused, as etcd's limit makes the API server refuse them.
const LARGEST_BODY: usize = 3 * 1024 * 1024;

/// A request without its body's transport.
pub(super) struct Call<'a> {
    /// Who asks.
    pub user: &'a User,
    /// For what.
    pub target: &'a Target,
    /// How.
    pub options: &'a Options,
    /// The body as sent.
    pub body: &'a Bytes,
}

impl Kubernetes {
    /// The API server as an axum service; every path is handled.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(move |request: Request<Body>| {
            let kube = Arc::clone(&self);
            async move { kube.serve(request).await }
        })
    }

    async fn serve(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Ok(body) = axum::body::to_bytes(body, LARGEST_BODY).await else {
            let message = format!("Request entity too large: limit is {LARGEST_BODY}");
            return Status::plain(413, message).response();
        };
        self.reconcile();
        let path = head.uri.path();
        let options = Options::new(head.uri.query().unwrap_or_default(), &head.headers);
        let result = self.answer(&head.method, path, &options, &head.headers, &body);
        let mut response = result.unwrap_or_else(|status| status.response());
        self.reconcile();
        let id = self.ctx.ids.guid().to_string();
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("audit-id", id);
        }
        response
            .headers_mut()
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-cache, private"));
        response
    }

    fn answer(
        self: &Arc<Self>,
        method: &Method,
        path: &str,
        options: &Options,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Outcome<Response<Body>> {
        if let Some(response) = discovery::public(self, path, options)? {
            return Ok(response);
        }
        let user = self.authenticate(headers)?;
        if let Some(response) = discovery::private(self, path, options)? {
            return Ok(response);
        }
        if let Some(response) = openapi::serve(self, path, options)? {
            return Ok(response);
        }
        let kinds = self.kinds();
        let target = match Target::parse(&kinds, path) {
            Ok(target) => target,
            Err(status) if path.starts_with("/api") => return Err(status),
            Err(_) => {
                // Paths that are no resources need a rule for non-resource URLs, which only
                // administrators have here.
                if user.groups.iter().any(|g| g == "system:masters") {
                    return Err(Status::page_not_found());
                }
                return Err(Status::forbidden_path(format!(
                    "forbidden: User \"{}\" cannot {} path \"{path}\"",
                    user.name,
                    method.as_str().to_lowercase()
                )));
            }
        };
        let verb = verb(method, &target, options);
        let resource = if target.subresource.is_empty() {
            target.kind.plural.clone()
        } else {
            format!("{}/{}", target.kind.plural, target.subresource)
        };
        // A watch of one name may be allowed by name.
        let namespaces = target.kind.plural == "namespaces" && target.kind.group.is_empty();
        self.begin().authorize(
            &user,
            &Attributes {
                verb,
                group: &target.kind.group,
                resource: &resource,
                namespace: if namespaces { &target.name } else { &target.namespace },
                name: &target.name,
            },
        )?;
        let call = Call { user: &user, target: &target, options, body };
        self.dispatch(verb, &call)
    }

    fn dispatch(self: &Arc<Self>, verb: &str, call: &Call<'_>) -> Outcome<Response<Body>> {
        let target = call.target;
        if target.kind.review {
            if verb != "create" {
                return Err(Status::method_not_allowed());
            }
            let answer = review::answer(self, call, &Self::json_body(call)?)?;
            return Ok(respond(201, &answer));
        }
        match target.subresource.as_str() {
            "" => {}
            "status" if target.kind.status => {
                if !matches!(verb, "get" | "update" | "patch") {
                    return Err(Status::method_not_allowed());
                }
            }
            "scale" if target.kind.scale.is_some() => return scale::answer(self, verb, call),
            "token" | "eviction"
                if verb != "create" && target.kind.has_part(&target.subresource) =>
            {
                return Err(Status::method_not_allowed());
            }
            "token" if target.kind.plural == "serviceaccounts" => {
                let body = Self::json_body(call)?;
                let dry_run = call.options.dry_run(&Value::Null, "CreateOptions")?;
                let answer = token_request::issue(
                    self,
                    &target.namespace,
                    &target.name,
                    body,
                    &call.options.manager(),
                    dry_run,
                )?;
                return Ok(respond(201, &answer));
            }
            "eviction" if target.kind.plural == "pods" => {
                return pods::evict(self, call, &Self::json_body(call)?);
            }
            "log" if target.kind.plural == "pods" && verb == "get" => {
                return pods::log(self, call);
            }
            "ephemeralcontainers" if target.kind.plural == "pods" => {}
            "finalize" if target.kind.plural == "namespaces" && verb == "update" => {}
            _ => return Err(Status::no_such_path()),
        }
        match verb {
            "get" => verbs::get(self, call),
            "list" => list::answer(self, call),
            "watch" => watch::answer(self, call),
            "create" if target.name.is_empty() => verbs::create(self, call),
            "update" => verbs::update(self, call),
            "patch" => verbs::patch(self, call),
            "delete" | "deletecollection" => {
                let options =
                    if call.body.is_empty() { Value::Null } else { Self::json_body(call)? };
                if verb == "delete" {
                    verbs::delete(self, call, &options)
                } else {
                    verbs::delete_collection(self, call, &options)
                }
            }
            _ => Err(Status::method_not_allowed()),
        }
    }

    /// The body as JSON.
    pub(super) fn json_body(call: &Call<'_>) -> Outcome<Value> {
        let media = call.options.content_type();
        if media == "application/vnd.kubernetes.protobuf" {
            return super::protobuf::decode(call.body).map_err(Status::bad_request);
        }
        if media == "application/yaml" {
            return yaml(call.body).map_err(Status::bad_request).and_then(object);
        }
        if !matches!(media, "" | "application/json" | "text/plain") && !call.body.is_empty() {
            return Err(Status::unsupported_media(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf".to_owned(),
            ));
        }
        let value = serde_json::from_slice(call.body).map_err(|error| {
            Status::bad_request(format!("the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {error}", call.target.kind.kind))
        })?;
        object(value)
    }
}

/// Refuses what is no object, or nested beyond what is stored.
pub(super) fn object(value: Value) -> Outcome<Value> {
    if is_too_deep(&value) {
        return Err(Status::bad_request("json: exceeded max depth"));
    }
    if value.is_object() {
        return Ok(value);
    }
    Err(Status::bad_request("the object provided is unrecognized"))
}

/// A YAML body as JSON; JSON is YAML, and faster to read.
pub(super) fn yaml(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).or_else(|_| {
        serde_saphyr::from_slice(body).map_err(|error| format!("error decoding YAML: {error}"))
    })
}

/// One object in the form and version that was asked for.
pub(super) fn show(
    kube: &Kubernetes,
    call: &Call<'_>,
    code: u16,
    object: &Value,
) -> Outcome<Response<Body>> {
    let kind = &call.target.kind;
    match call.options.form()? {
        Form::Object => Ok(respond(code, &versioned(object, &kind.api_version()))),
        Form::Table(version) => {
            let now = kube.now();
            let rows = [object];
            let include = call.options.get("includeObject");
            Ok(respond(code, &tables::table(kind, version, &rows, &Value::Null, include, now)))
        }
        Form::Metadata(version) => Ok(respond(code, &tables::metadata_only(version, object))),
    }
}

/// The text of a stored object where it can be answered as it is. Fields are kept sorted, so the
/// version comes first; the few objects that have a field before it are parsed.
pub(super) fn as_stored<'a>(doc: &'a Doc, api_version: &str) -> Option<&'a str> {
    let rest = doc.text().strip_prefix("{\"apiVersion\":\"")?;
    rest.strip_prefix(api_version)?.starts_with('"').then(|| doc.text())
}

/// The object with the version of the request; stored versions differ only in name.
pub(super) fn versioned<'a>(object: &'a Value, api_version: &str) -> std::borrow::Cow<'a, Value> {
    if object["apiVersion"] == api_version {
        return std::borrow::Cow::Borrowed(object);
    }
    let mut copy = object.clone();
    copy["apiVersion"] = api_version.into();
    std::borrow::Cow::Owned(copy)
}

/// Applies a patch body of the request's media type to `object`.
pub(super) fn patched(call: &Call<'_>, object: &mut Value) -> Outcome<()> {
    let kind = &call.target.kind;
    let body: Value = serde_json::from_slice(call.body)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    match call.options.content_type() {
        "application/json-patch+json" => {
            if !body.is_array() {
                return Err(Status::bad_request(
                    "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch",
                ));
            }
            patch::json_patch(object, &body).map_err(|_| Status::patch_failed())
        }
        "application/merge-patch+json" => {
            patch::merge_patch(object, &body);
            Ok(())
        }
        "application/strategic-merge-patch+json" if !kind.custom => {
            patch::strategic_merge(object, &body, kind.ty())
                .map_err(|text| Status::plain(500, text))
        }
        "application/strategic-merge-patch+json" => Err(Status::unsupported_media(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        )),
        _ => {
            let mut status = Status::unsupported_media("415: Unsupported Media Type");
            status.details = serde_json::json!({});
            Err(status)
        }
    }
}

/// JSON with sorted keys, for hashing.
pub(super) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut parts: Vec<String> =
                fields.iter().map(|(key, value)| format!("{key:?}:{}", canonical(value))).collect();
            parts.sort();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}
