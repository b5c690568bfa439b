//! Types of custom resources, read from the structural schema of their definition.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Field, List, ListKind, PatchList, Scalar, Struct, Type, type_meta};

/// The type of a custom resource whose version has this `schema.openAPIV3Schema` (absent: anything).
pub(in super::super) fn custom_type(schema: Option<&Value>) -> Type {
    let mut root = match schema.map(structural) {
        Some(Type::Inline(object)) => {
            // Freshly built and not shared yet, so this never falls back.
            Arc::try_unwrap(object).unwrap_or_default()
        }
        _ => Struct { rest: Some(Type::Any), ..Struct::default() },
    };
    type_meta(&mut root.fields);
    root.fields
        .insert("metadata".into(), Field::optional(Type::Named("meta/v1.ObjectMeta".into())));
    Type::Inline(Arc::new(root))
}

/// Reads one node of a structural schema
/// (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>).
pub(in super::super) fn structural(node: &Value) -> Type {
    let preserve = node["x-kubernetes-preserve-unknown-fields"] == true;
    if node["x-kubernetes-int-or-string"] == true {
        return Type::Scalar(Scalar::IntOrString);
    }
    match node["type"].as_str() {
        Some("string") => Type::STRING,
        Some("integer") => Type::Scalar(Scalar::Int64),
        Some("number") => Type::Scalar(Scalar::Number),
        Some("boolean") => Type::Scalar(Scalar::Bool),
        Some("array") => {
            let kind = match node["x-kubernetes-list-type"].as_str() {
                Some("set") => ListKind::Set,
                Some("map") => ListKind::Map(
                    node["x-kubernetes-list-map-keys"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|k| Some(k.as_str()?.to_owned()))
                        .collect(),
                ),
                _ => ListKind::Atomic,
            };
            let item = node.get("items").map_or(Type::Any, structural);
            // The API server refuses strategic merge patches of custom resources.
            Type::List(Arc::new(List { item, kind, patch: PatchList::Replace }))
        }
        Some("object") => object(node, preserve),
        _ if node.get("properties").is_some() => object(node, preserve),
        _ => Type::Any,
    }
}

fn object(node: &Value, preserve: bool) -> Type {
    let atomic = node["x-kubernetes-map-type"] == "atomic";
    let mut fields = BTreeMap::new();
    for (name, property) in node["properties"].as_object().into_iter().flatten() {
        let field = Field {
            default: property.get("default").cloned(),
            ..Field::optional(structural(property))
        };
        fields.insert(name.clone(), field);
    }
    if node["x-kubernetes-embedded-resource"] == true {
        type_meta(&mut fields);
        fields
            .entry("metadata".into())
            .or_insert_with(|| Field::optional(Type::Named("meta/v1.ObjectMeta".into())));
    }
    let rest = match &node["additionalProperties"] {
        Value::Object(values) => Some(structural(&Value::Object(values.clone()))),
        Value::Bool(true) => Some(Type::Any),
        _ if preserve => Some(Type::Any),
        _ => None,
    };
    match rest {
        Some(item) if fields.is_empty() && !preserve => Type::Map { item: Box::new(item), atomic },
        rest => Type::Inline(Arc::new(Struct { fields, atomic, rest })),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn structural_schemas_become_types() {
        let ty = custom_type(Some(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "items": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}}})));
        let spec = ty.field("spec").unwrap();
        let Some(Type::List(items)) = spec.field("items") else { panic!("items") };
        assert_eq!(items.kind, ListKind::Map(vec!["name".into()]));
        assert!(matches!(spec.field("labels"), Some(Type::Map { .. })));
        assert_eq!(spec.field("free").unwrap().field("x"), Some(&Type::Any));
        assert!(spec.field("nonsense").is_none());
        assert!(ty.field("metadata").unwrap().field("labels").is_some());
    }
}
