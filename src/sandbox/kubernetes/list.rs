//! Lists: selectors, pages, consistency of continued lists.

use std::{collections::BTreeMap, sync::Arc};

use axum::{body::Body, http::Response};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Kubernetes,
    error::{FieldError, Outcome, Status, respond},
    http::{Call, versioned},
    kinds::Kind,
    request::Form,
    selectors::{FieldSelector, LabelSelector},
    storage::{Key, Tx},
    tables,
};

/// The two selectors of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Selectors {
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Selectors {
    /// Parses `labelSelector` and `fieldSelector`.
    pub(super) fn parse(call: &Call<'_>) -> Outcome<Self> {
        Ok(Self {
            labels: LabelSelector::parse(call.options.get("labelSelector"))?,
            fields: FieldSelector::parse(call.options.get("fieldSelector"), &call.target.kind)?,
        })
    }

    /// Whether an object matches both.
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.labels.matches(&object["metadata"]["labels"]) && self.fields.matches(object)
    }

    fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
}

/// What a continue token says.
struct Resume {
    revision: u64,
    after: (String, String),
}

fn encode(resume: &Resume) -> String {
    let doc = json!({"v": "meta.k8s.io/v1", "rv": resume.revision,
        "start": format!("{}/{}\u{0}", resume.after.0, resume.after.1)});
    URL_SAFE_NO_PAD.encode(doc.to_string())
}

fn decode(token: &str) -> Outcome<Resume> {
    let bad = || Status::bad_request("continue key is not valid: illegal base64 data");
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| bad())?;
    let doc: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let (namespace, name) = doc["start"]
        .as_str()
        .and_then(|s| s.trim_end_matches('\u{0}').split_once('/'))
        .ok_or_else(bad)?;
    // A token without a version resumes at the present, as after an expired one.
    let revision = doc["rv"].as_i64().and_then(|rv| u64::try_from(rv).ok()).unwrap_or(0);
    Ok(Resume { revision, after: (namespace.to_owned(), name.to_owned()) })
}

type Items = Vec<(Key, Arc<Value>)>;

/// The objects that a request's path and selectors name, and the version they are of.
pub(super) fn select(kube: &Kubernetes, call: &Call<'_>) -> Outcome<(Items, u64)> {
    let selectors = Selectors::parse(call)?;
    let tx = kube.begin();
    let mut items = present(&tx, call, &selectors);
    items.retain(|(_, object)| selectors.matches(object));
    Ok((items, tx.revision()))
}

/// What the path names, narrowed to one object where a field selector demands a name.
fn present(tx: &Tx<'_>, call: &Call<'_>, selectors: &Selectors) -> Items {
    let target = call.target;
    let stem = target.kind.stem();
    let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
    if let Some(name) = selectors.fields.name()
        && (namespace.is_some() || !target.kind.namespaced)
    {
        let key = Key::of(&stem, &target.namespace, name);
        return tx.get_key(&key).map(|object| (key, object)).into_iter().collect();
    }
    tx.list(&stem, namespace)
}

impl Tx<'_> {
    /// The version of a list at this moment.
    pub(super) fn revision(&self) -> u64 {
        self.state.revision.max(1)
    }

    /// Undoes what happened to the listed objects after `revision`.
    fn rewind(&self, items: &mut Items, call: &Call<'_>, revision: u64) -> Outcome<()> {
        if revision < self.state.forgotten {
            return Err(Status::expired("too old"));
        }
        let stem = call.target.kind.stem();
        let mut before: BTreeMap<&Key, &Option<Arc<Value>>> = BTreeMap::new();
        let later = self.state.events.partition_point(|e| e.revision <= revision);
        for event in self.state.events.iter().skip(later) {
            let here =
                call.target.namespace.is_empty() || event.key.namespace == call.target.namespace;
            if event.key.stem == stem && here {
                before.entry(&event.key).or_insert(&event.old);
            }
        }
        if before.is_empty() {
            return Ok(());
        }
        items.retain(|(key, _)| !before.contains_key(key));
        for (key, old) in before {
            if let Some(old) = old {
                items.push((key.clone(), Arc::clone(old)));
            }
        }
        items.sort_by(|(a, _), (b, _)| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(())
    }
}

/// Answers a list.
pub(super) fn answer(kube: &Kubernetes, call: &Call<'_>) -> Outcome<Response<Body>> {
    let selectors = Selectors::parse(call)?;
    let options = call.options;
    let form = options.form()?;
    let limit = options.number("limit")?.unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(0);
    let wanted = options.get("resourceVersion");
    check_version_match(options.get("resourceVersionMatch"), wanted, options.get("continue"))?;
    let tx = kube.begin();
    let mut revision = tx.revision();
    let mut items = present(&tx, call, &selectors);
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
                    tx.rewind(&mut items, call, least).map_err(|_| {
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
                if let Err(mut status) = tx.rewind(&mut items, call, resume.revision) {
                    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
.clone_into(&mut status.message);
                    status.resume = Some(encode(&Resume { revision: 0, after: resume.after }));
                    return Err(status);
                }
                revision = resume.revision;
            }
            items.retain(|(key, _)| {
                (key.namespace.as_str(), key.name.as_str())
                    > (resume.after.0.as_str(), resume.after.1.as_str())
            });
        }
    }
    drop(tx);
    if !selectors.is_everything() {
        items.retain(|(_, object)| selectors.matches(object));
    }
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), revision.to_string().into());
    if limit > 0 && items.len() > limit {
        let remaining = items.len() - limit;
        items.truncate(limit);
        if let Some((key, _)) = items.last() {
            let after = (key.namespace.clone(), key.name.clone());
            metadata.insert("continue".into(), encode(&Resume { revision, after }).into());
        }
        if selectors.is_everything() {
            metadata.insert("remainingItemCount".into(), remaining.into());
        }
    }
    let objects: Vec<&Value> = items.iter().map(|(_, object)| object.as_ref()).collect();
    Ok(respond(200, &body(kube, call, form, &objects, Value::Object(metadata))))
}

fn body(
    kube: &Kubernetes,
    call: &Call<'_>,
    form: Form,
    objects: &[&Value],
    metadata: Value,
) -> Value {
    let kind: &Kind = &call.target.kind;
    let version = kind.api_version();
    match form {
        Form::Object => {
            let items: Vec<Value> = objects.iter().map(|object| item(kind, object)).collect();
            let mut metadata = metadata;
            if kind.custom && metadata.get("continue").is_none() {
                metadata["continue"] = "".into();
            }
            json!({"kind": format!("{}List", kind.kind), "apiVersion": version,
                "metadata": metadata, "items": items})
        }
        Form::Table(table) => {
            let include = call.options.get("includeObject");
            tables::table(kind, table, objects, &metadata, include, kube.now())
        }
        Form::Metadata(table) => {
            let items: Vec<Value> =
                objects.iter().map(|o| tables::metadata_only(table, o)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{table}"),
                "metadata": metadata, "items": items})
        }
    }
}

/// An item of a list: those of built-in kinds carry no type, those of custom resources do.
pub(super) fn item(kind: &Kind, object: &Value) -> Value {
    let mut item = versioned(object, &kind.api_version()).into_owned();
    if !kind.custom
        && let Some(fields) = item.as_object_mut()
    {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    item
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

/// Fields that stand twice in one object of a JSON text, as `spec.replicas`.
pub(super) fn duplicate_fields(text: &[u8]) -> Vec<String> {
    use serde::de::{
        Deserialize as _, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor,
    };

    struct Walk<'a> {
        path: String,
        found: &'a mut Vec<String>,
    }
    impl<'de> DeserializeSeed<'de> for Walk<'_> {
        type Value = ();
        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_any(self)
        }
    }
    impl<'de> Visitor<'de> for Walk<'_> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("JSON")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut seen = std::collections::BTreeSet::new();
            while let Some(key) = map.next_key::<String>()? {
                let path =
                    if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
                if !seen.insert(key) {
                    self.found.push(path.clone());
                }
                map.next_value_seed(Walk { path, found: self.found })?;
            }
            Ok(())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            for index in 0_usize.. {
                let path = format!("{}[{index}]", self.path);
                if seq.next_element_seed(Walk { path, found: self.found })?.is_none() {
                    break;
                }
            }
            Ok(())
        }
        fn visit_bool<E>(self, _: bool) -> Result<(), E> {
            Ok(())
        }
        fn visit_i64<E>(self, _: i64) -> Result<(), E> {
            Ok(())
        }
        fn visit_u64<E>(self, _: u64) -> Result<(), E> {
            Ok(())
        }
        fn visit_f64<E>(self, _: f64) -> Result<(), E> {
            Ok(())
        }
        fn visit_str<E>(self, _: &str) -> Result<(), E> {
            Ok(())
        }
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
        fn visit_none<E>(self) -> Result<(), E> {
            Ok(())
        }
        fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
            d.deserialize_any(self)
        }
    }
    let mut found = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(text);
    // A text that is no JSON is refused by whoever parses it for its content.
    let walked = Walk { path: String::new(), found: &mut found }.deserialize(&mut reader);
    drop(walked.and_then(|()| serde::de::IgnoredAny::deserialize(&mut reader).map(drop)));
    found
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
    fn duplicates_are_found_at_any_depth() {
        let text = br#"{"a": 1, "b": {"c": 1, "c": 2}, "l": [{"x": 1, "x": null}], "a": true}"#;
        assert_eq!(duplicate_fields(text), ["b.c", "l[0].x", "a"]);
        assert!(duplicate_fields(b"{broken").is_empty());
    }

    #[test]
    fn continue_tokens_survive_a_round_trip() {
        let token = encode(&Resume { revision: 7, after: ("ns".into(), "web".into()) });
        let resume = decode(&token).unwrap_or(Resume { revision: 0, after: Default::default() });
        assert_eq!(resume.revision, 7);
        assert_eq!(resume.after, ("ns".to_owned(), "web".to_owned()));
        assert!(decode("###").is_err());
    }
}
