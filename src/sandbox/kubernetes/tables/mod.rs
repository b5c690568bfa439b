//! Answers as tables: the columns that `kubectl get` prints.

mod built_in;
mod columns;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{kinds::Kind, objects::meta};

/// A `Table` of `meta.k8s.io/<version>` over `objects`.
pub(super) fn table(
    kind: &Kind,
    version: &str,
    objects: &[&Value],
    metadata: &Value,
    include: &str,
    now: Timestamp,
) -> Value {
    let (columns, cells): (Vec<Value>, Vec<Vec<Value>>) = if kind.custom {
        columns::custom(kind, objects, now)
    } else {
        built_in::rows(kind, objects, now)
    };
    let rows: Vec<Value> = objects
        .iter()
        .zip(cells)
        .map(|(object, cells)| {
            let shown = match include {
                "None" => Value::Null,
                "Object" => (*object).clone(),
                _ => metadata_only(version, object),
            };
            json!({"cells": cells, "object": shown})
        })
        .collect();
    let metadata = if metadata.is_null() {
        match objects {
            [one] => json!({"resourceVersion": meta(one, "resourceVersion")}),
            _ => json!({}),
        }
    } else {
        metadata.clone()
    };
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": columns, "rows": rows})
}

/// The metadata of an object alone.
pub(super) fn metadata_only(version: &str, object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"]})
}
