//! What a request asks for: path, query, media types.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::{HeaderMap, Method, header};
use serde_json::Value;

use super::{
    error::{FieldError, Outcome, Status},
    kinds::{Kind, Kinds},
};

/// A resource path, resolved to a kind.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The kind in the requested version.
    pub kind: Arc<Kind>,
    /// Empty for all namespaces or a cluster-wide kind.
    pub namespace: String,
    /// Empty for a collection.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
}

impl Target {
    /// Resolves the part of a path after `/api` or `/apis`.
    pub(super) fn parse(kinds: &Kinds, path: &str) -> Outcome<Self> {
        let mut segments = path.trim_matches('/').split('/');
        let group = match segments.next() {
            Some("api") => "",
            Some("apis") => segments.next().ok_or_else(Status::no_such_path)?,
            _ => return Err(Status::no_such_path()),
        };
        let version = segments.next().ok_or_else(Status::no_such_path)?;
        if !kinds.serves(group, version) {
            return Err(Status::page_not_found());
        }
        let rest: Vec<String> = segments.map(decode).collect();
        let scoped = rest.len() >= 3
            && rest[0] == "namespaces"
            && !(group.is_empty() && matches!(rest[2].as_str(), "status" | "finalize"));
        let (namespace, rest) =
            if scoped { (rest[1].clone(), &rest[2..]) } else { (String::new(), &rest[..]) };
        let plural = rest.first().ok_or_else(Status::no_such_path)?;
        let kind = kinds.find(group, version, plural).ok_or_else(Status::no_such_path)?;
        if scoped && !kind.namespaced {
            return Err(Status::no_such_path());
        }
        let part = |index: usize| rest.get(index).cloned().unwrap_or_default();
        let target =
            Self { kind: Arc::clone(kind), namespace, name: part(1), subresource: part(2) };
        let orphan = kind.namespaced && target.namespace.is_empty() && !target.name.is_empty();
        if rest.len() > 3 || orphan {
            return Err(Status::no_such_path());
        }
        Ok(target)
    }
}

fn decode(segment: &str) -> String {
    url::form_urlencoded::parse(segment.replace('+', "%2B").as_bytes())
        .next()
        .map(|(key, _)| key.into_owned())
        .unwrap_or_default()
}

/// The query and the headers that matter.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    query: BTreeMap<String, String>,
    accept: String,
    content_type: String,
    agent: String,
}

/// In what form objects are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Object,
    /// As a `Table` of this version of `meta.k8s.io`.
    Table(&'static str),
    /// Metadata only.
    Metadata(&'static str),
}

impl Options {
    /// Reads query and headers.
    pub(super) fn new(query: &str, headers: &HeaderMap) -> Self {
        let text =
            |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let query = url::form_urlencoded::parse(query.as_bytes())
            .map(|(k, v)| (k.into_owned(), v.into_owned()))
            .collect();
        Self {
            query,
            accept: text(header::ACCEPT),
            content_type: text(header::CONTENT_TYPE),
            agent: text(header::USER_AGENT),
        }
    }

    /// A query parameter, empty if absent.
    pub(super) fn get(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Whether a query parameter stands there, with or without a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.query.contains_key(name)
    }

    /// A boolean query parameter.
    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1")
    }

    /// A number, refused if it is none.
    pub(super) fn number(&self, name: &str) -> Outcome<Option<i64>> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!(
                    "unable to decode query: strconv.ParseInt: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }

    /// The media type of the body without parameters.
    pub(super) fn content_type(&self) -> &str {
        self.content_type.split(';').next().unwrap_or_default().trim()
    }

    /// The accepted media types.
    pub(super) fn accept(&self) -> &str {
        &self.accept
    }

    /// Whether nothing is to be stored.
    pub(super) fn dry_run(&self, body: &Value, options_kind: &str) -> Outcome<bool> {
        let in_body = body["dryRun"].as_array().and_then(|l| l.first()).and_then(Value::as_str);
        match in_body.unwrap_or_else(|| self.get("dryRun")) {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(Status::invalid_named(
                "meta.k8s.io",
                options_kind,
                "",
                &[FieldError {
                    reason: "FieldValueNotSupported",
                    field: "dryRun".into(),
                    message: format!(
                        "Unsupported value: []string{{{other:?}}}: supported values: \"All\""
                    ),
                }],
            )),
        }
    }

    /// The field manager: as named, or the program's name from the `User-Agent`.
    pub(super) fn manager(&self) -> String {
        let named = self.get("fieldManager");
        if !named.is_empty() {
            return named.to_owned();
        }
        let agent = self.agent.split('/').next().unwrap_or_default();
        if agent.is_empty() { "unknown".to_owned() } else { agent.chars().take(128).collect() }
    }

    /// The form of the answer by the first accepted media type that is known.
    pub(super) fn form(&self) -> Outcome<Form> {
        if self.accept.is_empty() {
            return Ok(Form::Object);
        }
        for part in self.accept.split(',') {
            let mut words = part.split(';').map(str::trim);
            let media = words.next().unwrap_or_default();
            if !matches!(media, "application/json" | "*/*" | "application/*") {
                continue;
            }
            let parameters: BTreeMap<&str, &str> =
                words.filter_map(|w| w.split_once('=')).collect();
            let version = match parameters.get("v") {
                Some(&"v1") => Some("v1"),
                Some(&"v1beta1") => Some("v1beta1"),
                _ => None,
            };
            match (parameters.get("as"), version) {
                (None, _) => return Ok(Form::Object),
                (Some(&"Table"), Some(version)) => return Ok(Form::Table(version)),
                (Some(&("PartialObjectMetadata" | "PartialObjectMetadataList")), Some(version)) => {
                    return Ok(Form::Metadata(version));
                }
                _ => {}
            }
        }
        Err(Status::not_acceptable(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ))
    }
}

/// The verb of RBAC for a request.
pub(super) fn verb(method: &Method, target: &Target, options: &Options) -> &'static str {
    let collection = target.name.is_empty();
    match *method {
        Method::GET if collection && options.flag("watch") => "watch",
        Method::GET if collection => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if collection => "deletecollection",
        Method::DELETE => "delete",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let kinds = Kinds::new(33, [].into_iter());
        let at = |path: &str| Target::parse(&kinds, path);
        let pod = at("/api/v1/namespaces/a/pods/b/log").unwrap();
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("a", "b"));
        assert_eq!(pod.subresource, "log");
        let status = at("/api/v1/namespaces/a/status").unwrap();
        assert_eq!(
            (status.kind.kind.as_str(), status.subresource.as_str()),
            ("Namespace", "status")
        );
        let all = at("/apis/apps/v1/deployments").unwrap();
        assert!(all.namespace.is_empty() && all.name.is_empty());
        assert!(at("/apis/apps/v1/deployments/x").is_err());
        assert!(at("/apis/apps/v2/deployments").is_err());
        assert!(at("/api/v1/namespaces/a/nodes").is_err());
        let role = at("/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node%3Aa").unwrap();
        assert_eq!(role.name, "system:node:a");
    }

    #[test]
    fn forms() {
        let form = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Options::new("", &headers).form()
        };
        assert_eq!(
            form("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").unwrap(),
            Form::Table("v1")
        );
        assert_eq!(
            form("application/vnd.kubernetes.protobuf,application/json").unwrap(),
            Form::Object
        );
        assert_eq!(form("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
    }
}
