//! Lists: selectors, pages, consistency of continued lists.

use std::{borrow::Cow, collections::BTreeMap, convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::Response,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::stream;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use sha2::{Digest as _, Sha256};

use super::{
    super::doc::Doc,
    Kubernetes,
    error::{FieldError, Outcome, Status, respond, respond_with},
    http::{Call, as_stored, versioned},
    kinds::Kind,
    request::Form,
    selectors::{FieldSelector, LabelSelector},
    storage::{Key, Tx},
    tables,
};

/// Larger lists are sent in pieces of about this size, so that a list of everything is never whole
/// in memory.
const PIECE: usize = 64 << 10;

/// The two selectors of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Selectors {
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
}

/// What a label selector looks at.
#[derive(Deserialize)]
struct Labelled {
    metadata: Labels,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(default)]
    labels: Value,
}

impl Selectors {
    /// Parses `labelSelector` and `fieldSelector`.
    pub(super) fn parse(call: &Call<'_>) -> Outcome<Self> {
        Ok(Self {
            labels: LabelSelector::parse(call.options.get("labelSelector"))?,
            fields: FieldSelector::parse(call.options.get("fieldSelector"), &call.target.kind)?,
        })
    }

    /// Whether a stored object matches both.
    pub(super) fn matches(&self, doc: &Doc) -> bool {
        let labels = || doc.part::<Labelled>().map_or(Value::Null, |part| part.metadata.labels);
        (self.labels.is_everything() || self.labels.matches(&labels()))
            && (self.fields.is_everything() || self.fields.matches(&doc.value()))
    }

    fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
}

/// What a continue token says.
struct Resume {
    revision: u64,
    /// `namespace/name` of the last object, as the world keeps it.
    after: String,
}

fn encode(resume: &Resume) -> String {
    let doc = json!({"v": "meta.k8s.io/v1", "rv": resume.revision,
        "start": format!("{}\u{0}", resume.after)});
    URL_SAFE_NO_PAD.encode(doc.to_string())
}

fn decode(token: &str) -> Outcome<Resume> {
    let bad = || Status::bad_request("continue key is not valid: illegal base64 data");
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| bad())?;
    let doc: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let after = doc["start"].as_str().map(|start| start.trim_end_matches('\u{0}'));
    let after = after.filter(|start| start.contains('/')).ok_or_else(bad)?.to_owned();
    // A token without a version resumes at the present, as after an expired one.
    let revision = doc["rv"].as_i64().and_then(|rv| u64::try_from(rv).ok()).unwrap_or(0);
    Ok(Resume { revision, after })
}

/// Objects with where the world keeps them, in that order.
type Items = Vec<(String, Doc)>;

/// What listed objects were at an earlier version, where it differs from the present; `None` for
/// what was not there.
type Past = BTreeMap<String, Option<Doc>>;

/// The objects that a request's path and selectors name, and the version they are of.
pub(super) fn select(kube: &Kubernetes, call: &Call<'_>) -> Outcome<(Items, u64)> {
    let selectors = Selectors::parse(call)?;
    let tx = kube.begin();
    let (items, _) = tx.page(call, &selectors, &Past::new(), "", usize::MAX);
    Ok((items, tx.revision()))
}

impl Tx<'_> {
    /// The version of a list at this moment.
    pub(super) fn revision(&self) -> u64 {
        self.state.revision.max(1)
    }

    /// The first `limit` objects after the one kept at `after`, and how many follow them.
    fn page(
        &self,
        call: &Call<'_>,
        selectors: &Selectors,
        past: &Past,
        after: &str,
        limit: usize,
    ) -> (Items, usize) {
        let target = call.target;
        let stem = target.kind.stem();
        let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
        let one =
            selectors.fields.name().filter(|_| namespace.is_some() || !target.kind.namespaced);
        let place = match one {
            Some(name) => Key::of(&stem, &target.namespace, name).path(&self.kube.prefix),
            None => self.place(&stem, namespace),
        };
        let present = self.range(&place, after);
        let all: Box<dyn Iterator<Item = (&str, &Doc)>> = if past.is_empty() {
            Box::new(present)
        } else {
            let mut then: BTreeMap<&str, &Doc> = present.collect();
            for (path, doc) in past.iter().filter(|(path, _)| path.as_str() > after) {
                match doc {
                    Some(doc) => then.insert(path, doc),
                    None => then.remove(path.as_str()),
                };
            }
            Box::new(then.into_iter())
        };
        let mut all =
            all.filter(|(path, doc)| one.is_none_or(|_| *path == place) && selectors.matches(doc));
        let items =
            all.by_ref().take(limit).map(|(path, doc)| (path.to_owned(), doc.clone())).collect();
        // Only whether more follow is ever told where a selector narrows the list.
        let most = if selectors.is_everything() { usize::MAX } else { 1 };
        (items, all.take(most).count())
    }

    /// What the listed objects were at `revision`.
    fn past(&self, call: &Call<'_>, revision: u64) -> Outcome<Past> {
        if revision < self.state.forgotten {
            return Err(Status::expired("too old"));
        }
        let stem = call.target.kind.stem();
        let mut past = Past::new();
        let later = self.state.events.partition_point(|e| e.revision <= revision);
        for event in self.state.events.iter().skip(later) {
            let here =
                call.target.namespace.is_empty() || event.key.namespace == call.target.namespace;
            if event.key.stem == stem && here {
                let path = event.key.path(&self.kube.prefix);
                past.entry(path).or_insert_with(|| event.old.clone());
            }
        }
        Ok(past)
    }
}

/// Answers a list.
pub(super) fn answer(kube: &Kubernetes, call: &Call<'_>) -> Outcome<Response<Body>> {
    let selectors = Selectors::parse(call)?;
    let options = call.options;
    let form = options.form()?;
    let limit = options.number("limit")?.unwrap_or(0);
    let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let wanted = options.get("resourceVersion");
    check_version_match(options.get("resourceVersionMatch"), wanted, options.get("continue"))?;
    let tx = kube.begin();
    let mut revision = tx.revision();
    let mut past = Past::new();
    let mut after = String::new();
    let stem = tx.place(&call.target.kind.stem(), None);
    match options.get("continue") {
        "" => {
            if let Ok(least) = wanted.parse::<u64>() {
                if least > tx.next_revision() {
                    let mut status = Status::plain(
                        504,
                        format!("Too large resource version: {least}, current: {revision}"),
                    );
                    status.reason = "Timeout";
                    status.details = json!({"causes": [{"reason": "ResourceVersionTooLarge",
                        "message": "Too large resource version"}], "retryAfterSeconds": 1});
                    return Err(status);
                }
                if options.get("resourceVersionMatch") == "Exact" && least > 0 {
                    past = tx.past(call, least).map_err(|_| {
                        Status::expired(
                            "The resourceVersion for the provided list is too old.".to_string(),
                        )
                    })?;
                    revision = least;
                }
            } else if !wanted.is_empty() {
                return Err(Status::invalid_version(wanted));
            }
        }
        token => {
            let resume = decode(token)?;
            if resume.revision > 0 {
                match tx.past(call, resume.revision) {
                    Ok(then) => past = then,
                    Err(mut status) => {
                        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
.clone_into(&mut status.message);
                        status.resume = Some(encode(&Resume { revision: 0, ..resume }));
                        return Err(status);
                    }
                }
                revision = resume.revision;
            }
            after = format!("{stem}{}", resume.after);
        }
    }
    let (items, remaining) = tx.page(call, &selectors, &past, &after, limit);
    drop(tx);
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), revision.to_string().into());
    if remaining > 0 {
        let last = items.last().and_then(|(path, _)| path.strip_prefix(&stem));
        let resume = Resume { revision, after: last.unwrap_or_default().to_owned() };
        metadata.insert("continue".into(), encode(&resume).into());
        if selectors.is_everything() {
            metadata.insert("remainingItemCount".into(), remaining.into());
        }
    }
    let docs: Vec<Doc> = items.into_iter().map(|(_, doc)| doc).collect();
    let metadata = Value::Object(metadata);
    let kind = &call.target.kind;
    match form {
        Form::Object => Ok(objects(Arc::clone(kind), docs, metadata)),
        Form::Table(table) => {
            let values: Vec<Value> = docs.iter().map(Doc::value).collect();
            let values: Vec<&Value> = values.iter().collect();
            let include = call.options.get("includeObject");
            let now = kube.now();
            Ok(respond(200, &tables::table(kind, table, &values, &metadata, include, now)))
        }
        Form::Metadata(table) => {
            let items: Vec<Value> =
                docs.iter().map(|doc| tables::metadata_only(table, &doc.value())).collect();
            Ok(respond(
                200,
                &json!({"kind": "PartialObjectMetadataList",
                "apiVersion": format!("meta.k8s.io/{table}"), "metadata": metadata,
                "items": items}),
            ))
        }
    }
}

/// A list of whole objects.
pub(super) fn objects(kind: Arc<Kind>, docs: Vec<Doc>, mut metadata: Value) -> Response<Body> {
    if kind.custom && metadata.get("continue").is_none() {
        metadata["continue"] = "".into();
    }
    let mut pieces = Pieces {
        text: format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            kind.kind,
            kind.api_version()
        ),
        kind,
        docs: docs.into_iter(),
        over: false,
    };
    let first = pieces.next().unwrap_or_default();
    let body = if pieces.over {
        Body::from(first)
    } else {
        let pieces = std::iter::once(first).chain(pieces);
        Body::from_stream(stream::iter(pieces.map(|piece| Ok::<Bytes, Infallible>(piece.into()))))
    };
    respond_with(200, body)
}

/// The text of a list, written as it is sent.
struct Pieces {
    /// What is written and not sent yet.
    text: String,
    kind: Arc<Kind>,
    docs: std::vec::IntoIter<Doc>,
    over: bool,
}

impl Iterator for Pieces {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        while !self.over && self.text.len() < PIECE {
            if let Some(doc) = self.docs.next() {
                self.text.push_str(&item(&self.kind, &doc));
                if self.docs.len() > 0 {
                    self.text.push(',');
                }
            } else {
                self.text.push_str("]}\n");
                self.over = true;
            }
        }
        let text = std::mem::take(&mut self.text);
        (!text.is_empty()).then_some(text)
    }
}

/// An item of a list: those of built-in kinds carry no type, those of custom resources do.
fn item<'a>(kind: &Kind, doc: &'a Doc) -> Cow<'a, str> {
    if kind.custom {
        return match as_stored(doc, &kind.api_version()) {
            Some(text) => text.into(),
            None => versioned(&doc.value(), &kind.api_version()).to_string().into(),
        };
    }
    let head =
        format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\",", kind.storage_version(), kind.kind);
    if let Some(rest) = doc.text().strip_prefix(&head) {
        return format!("{{{rest}").into();
    }
    // A field whose name sorts before `kind` stands between.
    let mut fields: BTreeMap<Cow<'_, str>, &RawValue> = doc.part().unwrap_or_default();
    fields.remove("apiVersion");
    fields.remove("kind");
    // Texts as keys and JSON as values can always be written.
    serde_json::to_string(&fields).unwrap_or_default().into()
}

fn check_version_match(rule: &str, version: &str, resume: &str) -> Outcome<()> {
    let refused = |detail: &str| {
        Err(Status::invalid_named(
            "meta.k8s.io",
            "ListOptions",
            "",
            &[FieldError::forbidden("resourceVersionMatch", detail)],
        ))
    };
    if rule.is_empty() {
        return Ok(());
    }
    if !resume.is_empty() {
        return refused("resourceVersionMatch is forbidden when continue is provided");
    }
    if version.is_empty() {
        return refused("resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if rule == "Exact" && version == "0" {
        return refused("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
    }
    if !matches!(rule, "Exact" | "NotOlderThan") {
        return Err(Status::invalid_named(
            "meta.k8s.io",
            "ListOptions",
            "",
            &[FieldError::not_supported(
                "resourceVersionMatch",
                &rule.into(),
                &["Exact", "NotOlderThan", ""],
            )],
        ));
    }
    Ok(())
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// SHA-256 of a text.
pub(super) fn digest(text: &str) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_survive_a_round_trip() {
        let token = encode(&Resume { revision: 7, after: "ns/web".into() });
        let resume = decode(&token).unwrap_or(Resume { revision: 0, after: String::new() });
        assert_eq!(resume.revision, 7);
        assert_eq!(resume.after, "ns/web");
        assert!(decode("###").is_err());
    }
}
