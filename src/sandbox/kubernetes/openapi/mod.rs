//! The `OpenAPI` documents, made from the table of types.
//!
//! Version 2 as JSON and as protobuf, version 3 as JSON for each group and version. Descriptions are
//! left out; shapes, merge keys, kinds and the query parameters that clients look for are there.

mod proto;

use std::collections::BTreeMap;

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use serde_json::{Map, Value, json};

use super::{
    Kubernetes,
    error::{Outcome, Status, respond},
    kinds::{Kind, Kinds, api_version},
    list::{digest, hex},
    request::Options,
    schema::{self, Field, ListKind, PatchList, Scalar, Shape, Struct, Type},
};

/// Answers `/openapi/v2`, `/openapi/v3` and `/openapi/v3/<group version>`.
pub(super) fn serve(
    kube: &Kubernetes,
    path: &str,
    options: &Options,
) -> Outcome<Option<Response<Body>>> {
    let Some(rest) = path.strip_prefix("/openapi/") else { return Ok(None) };
    let kinds = kube.kinds();
    let version = kube.facts().version;
    if rest == "v2" {
        let document = version_2(&kinds, &version);
        if options.accept().contains("proto-openapi.spec.v2") {
            let mut response = Response::new(Body::from(proto::document(&document)));
            // The media type itself has a character that Go refuses to parse; older clients parse it.
            let media = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(header::CONTENT_TYPE, media);
            return Ok(Some(response));
        }
        return Ok(Some(respond(200, &document)));
    }
    if kube.facts().minor < 24 {
        return Err(Status::no_such_path());
    }
    if options.accept().contains("proto-openapi.spec.v3") && !options.accept().contains("json") {
        return Err(Status::not_acceptable("application/json"));
    }
    if rest == "v3" {
        let mut paths = Map::new();
        for kind in kinds.all() {
            let place = place(&kind.group, &kind.version);
            let hash = hex(&digest(&format!("{version}{place}"))[..16]).to_uppercase();
            paths.insert(
                place.clone(),
                json!({"serverRelativeURL": format!("/openapi/v3/{place}?hash={hash}")}),
            );
        }
        return Ok(Some(respond(200, &json!({"paths": paths}))));
    }
    let Some(place) = rest.strip_prefix("v3/") else { return Err(Status::no_such_path()) };
    version_3(&kinds, &version, place)
        .map(|document| Some(respond(200, &document)))
        .ok_or_else(Status::no_such_path)
}

fn place(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The published name of a type of the table.
fn published(name: &str) -> String {
    let (group, kind) = name.rsplit_once('.').unwrap_or(("", name));
    let dotted = group.replace('/', ".");
    match group.split('/').next() {
        Some("meta") => format!("io.k8s.apimachinery.pkg.apis.{dotted}.{kind}"),
        Some("apiextensions") => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.{dotted}.{kind}")
        }
        _ => format!("io.k8s.api.{dotted}.{kind}"),
    }
}

/// The published name of a kind.
fn published_kind(kind: &Kind) -> String {
    if let Type::Named(name) = kind.ty() {
        // Both versions of CronJob share a type but not its published name.
        return published(name).replace(
            &format!(".{}.{}", kind.storage, kind.kind),
            &format!(".{}.{}", kind.version, kind.kind),
        );
    }
    let mut parts: Vec<&str> = kind.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), kind.version, kind.kind)
}

/// How references are written in a version of `OpenAPI`.
#[derive(Clone, Copy)]
struct Dialect {
    references: &'static str,
    /// Version 3 knows alternatives, which version 2 replaces by a format.
    alternatives: bool,
}

const V2: Dialect = Dialect { references: "#/definitions/", alternatives: false };
const V3: Dialect = Dialect { references: "#/components/schemas/", alternatives: true };

impl Dialect {
    fn reference(self, name: &str) -> Value {
        let target = format!("{}{name}", self.references);
        if self.alternatives {
            json!({"allOf": [{"$ref": target}], "default": {}})
        } else {
            json!({"$ref": target})
        }
    }

    fn ty(self, ty: &Type) -> Value {
        match ty {
            Type::Named(name) => self.reference(&published(name)),
            Type::Inline(object) => self.object(object),
            Type::Any => json!({}),
            Type::Scalar(scalar) => self.scalar(*scalar),
            Type::Map { item, atomic } => {
                let mut out = json!({"type": "object", "additionalProperties": self.ty(item)});
                if *atomic {
                    out["x-kubernetes-map-type"] = "atomic".into();
                }
                out
            }
            Type::List(list) => {
                let mut out = json!({"type": "array", "items": self.ty(&list.item)});
                match &list.kind {
                    ListKind::Atomic => out["x-kubernetes-list-type"] = "atomic".into(),
                    ListKind::Set => out["x-kubernetes-list-type"] = "set".into(),
                    ListKind::Map(keys) => {
                        out["x-kubernetes-list-type"] = "map".into();
                        out["x-kubernetes-list-map-keys"] = keys.clone().into();
                    }
                }
                match &list.patch {
                    PatchList::Replace => {}
                    PatchList::Merge => out["x-kubernetes-patch-strategy"] = "merge".into(),
                    PatchList::MergeKey(key) => {
                        out["x-kubernetes-patch-strategy"] = "merge".into();
                        out["x-kubernetes-patch-merge-key"] = key.clone().into();
                    }
                }
                out
            }
        }
    }

    fn scalar(self, scalar: Scalar) -> Value {
        match scalar {
            Scalar::String => json!({"type": "string"}),
            Scalar::Int32 => json!({"type": "integer", "format": "int32"}),
            Scalar::Int64 => json!({"type": "integer", "format": "int64"}),
            Scalar::Bool => json!({"type": "boolean"}),
            Scalar::Number => json!({"type": "number", "format": "double"}),
            Scalar::Bytes => json!({"type": "string", "format": "byte"}),
            Scalar::Time => self.reference("io.k8s.apimachinery.pkg.apis.meta.v1.Time"),
            Scalar::MicroTime => self.reference("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"),
            Scalar::Quantity => self.reference("io.k8s.apimachinery.pkg.api.resource.Quantity"),
            Scalar::IntOrString => {
                self.reference("io.k8s.apimachinery.pkg.util.intstr.IntOrString")
            }
        }
    }

    fn field(self, field: &Field) -> Value {
        let mut out = self.ty(&field.ty);
        if field.retain_keys {
            let merges = out.get("x-kubernetes-patch-merge-key").is_some();
            out["x-kubernetes-patch-strategy"] =
                if merges { "merge,retainKeys" } else { "retainKeys" }.into();
        }
        if let Some(default) = &field.default {
            out["default"] = default.clone();
        }
        out
    }

    fn object(self, object: &Struct) -> Value {
        let mut out = json!({"type": "object"});
        let properties: Map<String, Value> =
            object.fields.iter().map(|(name, f)| (name.clone(), self.field(f))).collect();
        let required: Vec<&String> =
            object.fields.iter().filter(|(_, f)| f.required).map(|(name, _)| name).collect();
        if !required.is_empty() {
            out["required"] = json!(required);
        }
        if !properties.is_empty() {
            out["properties"] = Value::Object(properties);
        }
        if object.rest.is_some() {
            out["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
        if object.atomic {
            out["x-kubernetes-map-type"] = "atomic".into();
        }
        out
    }

    /// Definitions of all types that the kinds use.
    fn definitions<'a>(self, kinds: impl Iterator<Item = &'a Kind>) -> BTreeMap<String, Value> {
        let mut out = BTreeMap::new();
        let string = |format: &str| json!({"type": "string", "format": format});
        let time = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
        out.insert(time.to_owned(), string("date-time"));
        out.insert(time.replace("Time", "MicroTime"), string("date-time"));
        let (quantity, either) = if self.alternatives {
            (
                json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
                json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}),
            )
        } else {
            (json!({"type": "string"}), string("int-or-string"))
        };
        out.insert("io.k8s.apimachinery.pkg.api.resource.Quantity".into(), quantity);
        out.insert("io.k8s.apimachinery.pkg.util.intstr.IntOrString".into(), either);
        self.visit("meta/v1.DeleteOptions", &mut out);
        for kind in kinds {
            let name = published_kind(kind);
            match kind.ty().shape() {
                Shape::Struct(object) => {
                    for field in object.fields.values() {
                        self.visit_type(&field.ty, &mut out);
                    }
                    let definition = self.object(object);
                    out.entry(name.clone()).or_insert(definition);
                }
                _ => {
                    out.insert(name.clone(), json!({"type": "object"}));
                }
            }
            let marks = out.entry(name).or_insert_with(|| json!({}));
            let mark = json!({"group": kind.group, "kind": kind.kind, "version": kind.version});
            marks["x-kubernetes-group-version-kind"] = json!([mark]);
        }
        out
    }

    fn visit(self, name: &str, out: &mut BTreeMap<String, Value>) {
        let Some(object) = schema::lookup(name) else { return };
        let key = published(name);
        if out.contains_key(&key) {
            return;
        }
        out.insert(key, self.object(object));
        for field in object.fields.values() {
            self.visit_type(&field.ty, out);
        }
    }

    fn visit_type(self, ty: &Type, out: &mut BTreeMap<String, Value>) {
        match ty {
            Type::Named(name) => self.visit(name, out),
            Type::Map { item, .. } => self.visit_type(item, out),
            Type::List(list) => self.visit_type(&list.item, out),
            Type::Inline(object) => {
                for field in object.fields.values() {
                    self.visit_type(&field.ty, out);
                }
            }
            Type::Any | Type::Scalar(_) => {}
        }
    }
}

/// Query parameters by operation that clients look for before they use them.
fn parameters(action: &str) -> Vec<&'static str> {
    match action {
        "patch" => vec!["dryRun", "fieldManager", "fieldValidation", "force"],
        "post" | "put" => vec!["dryRun", "fieldManager", "fieldValidation"],
        "delete" => vec!["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"],
        _ => vec![],
    }
}

/// The paths of the kinds with their operations.
fn paths<'a>(
    kinds: impl Iterator<Item = &'a Kind>,
    dialect: Dialect,
    minor: u32,
) -> Map<String, Value> {
    let mut out = Map::new();
    for kind in kinds {
        let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let base = format!("/{}{scope}/{}", place(&kind.group, &kind.version), kind.plural);
        let collection: &[&str] = if kind.review { &["post"] } else { &["get", "post", "delete"] };
        out.insert(base.clone(), item(kind, collection, dialect, minor));
        if !kind.review {
            let one = ["get", "put", "patch", "delete"];
            out.insert(format!("{base}/{{name}}"), item(kind, &one, dialect, minor));
        }
    }
    out
}

fn item(kind: &Kind, verbs: &[&str], dialect: Dialect, minor: u32) -> Value {
    let mut out = Map::new();
    for verb in verbs {
        let parameters: Vec<Value> = parameters(verb)
            .into_iter()
            .filter(|name| *name != "fieldValidation" || minor >= 25)
            .map(|name| {
                if dialect.alternatives {
                    json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}})
                } else {
                    json!({"name": name, "in": "query", "type": "string", "uniqueItems": true})
                }
            })
            .collect();
        let reference = format!("{}{}", dialect.references, published_kind(kind));
        let ok = if dialect.alternatives {
            json!({"description": "OK", "content": {"application/json": {"schema": {"$ref": reference}}}})
        } else {
            json!({"description": "OK", "schema": {"$ref": reference}})
        };
        let action = match *verb {
            "get" => "get",
            "post" => "post",
            "put" => "put",
            "patch" => "patch",
            _ => "delete",
        };
        out.insert(
            (*verb).to_owned(),
            json!({"operationId": format!("{verb}{}{}", kind.version, kind.kind), "parameters": parameters,
                "responses": {"200": ok}, "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind":
                    {"group": kind.group, "kind": kind.kind, "version": kind.version}}),
        );
    }
    Value::Object(out)
}

fn minor(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|m| m.parse().ok()).unwrap_or(0)
}

fn version_2(kinds: &Kinds, version: &str) -> Value {
    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": format!("v{version}")},
        "paths": paths(kinds.all().map(AsRef::as_ref), V2, minor(version)),
        "definitions": V2.definitions(kinds.all().map(AsRef::as_ref))})
}

fn version_3(kinds: &Kinds, version: &str, wanted: &str) -> Option<Value> {
    let here =
        || kinds.all().map(AsRef::as_ref).filter(|k: &&Kind| place(&k.group, &k.version) == wanted);
    here().next()?;
    let title = format!("Kubernetes {}", here().next().map(|k| api_version(&k.group, &k.version))?);
    Some(json!({"openapi": "3.0.0", "info": {"title": title, "version": format!("v{version}")},
        "paths": paths(here(), V3, minor(version)),
        "components": {"schemas": V3.definitions(here())}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_is_defined() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    for (key, value) in fields {
                        match value.as_str() {
                            Some(text) if key == "$ref" => found.push(text.to_owned()),
                            _ => references(value, found),
                        }
                    }
                }
                Value::Array(items) => items.iter().for_each(|i| references(i, found)),
                _ => {}
            }
        }
        let document = version_2(&Kinds::new(24, [].into_iter()), "1.24.0");
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 500);
        for reference in found {
            let name = reference.strip_prefix("#/definitions/").unwrap();
            assert!(document["definitions"].get(name).is_some(), "{name}");
        }
        let names = &document["definitions"];
        assert!(names.get("io.k8s.api.batch.v1beta1.CronJob").is_some());
        assert!(names.get("io.k8s.api.core.v1.PodSpec").is_some());
    }
}
