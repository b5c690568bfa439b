//! Decoding against the table of types: unknown fields, wrong types, fields that are never absent.

use serde_json::{Map, Value};

use super::{
    apply::typed::zero_value,
    schema::{Scalar, Shape, Type},
};

/// Removes what the type does not have, as decoding into a Go struct does, and names it
/// (`spec.foo`, `spec.template.spec.containers[0].bar`).
pub(super) fn prune(value: &mut Value, ty: &Type) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_at(value, ty, "", &mut unknown);
    unknown
}

fn prune_at(value: &mut Value, ty: &Type, path: &str, unknown: &mut Vec<String>) {
    match (value, ty.shape()) {
        (Value::Object(object), Shape::Struct(_) | Shape::Map(..)) => {
            let closed = matches!(ty.shape(), Shape::Struct(s) if s.rest.is_none());
            let mut gone = Vec::new();
            for (key, item) in object.iter_mut() {
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match ty.field(key) {
                    Some(item_type) => prune_at(item, item_type, &at, unknown),
                    None if closed => {
                        unknown.push(at);
                        gone.push(key.clone());
                    }
                    None => {}
                }
            }
            for key in gone {
                object.remove(&key);
            }
        }
        (Value::Array(items), Shape::List(list)) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune_at(item, &list.item, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

/// The first value that does not fit its type, worded as Go's decoder words it.
pub(super) fn mistyped(value: &Value, ty: &Type) -> Option<String> {
    mistyped_at(value, ty, "")
}

fn mistyped_at(value: &Value, ty: &Type, path: &str) -> Option<String> {
    let wrong = |expected: &str| {
        let got = match value {
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            Value::Null => "null",
        };
        Some(format!("json: cannot unmarshal {got} into Go struct field {path} of type {expected}"))
    };
    if value.is_null() {
        return None;
    }
    let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match ty.shape() {
        Shape::Any => None,
        Shape::Scalar(scalar) => match scalar {
            Scalar::String | Scalar::Bytes | Scalar::Time | Scalar::MicroTime => {
                if value.is_string() { None } else { wrong("string") }
            }
            Scalar::Int32 if !value.is_i64() => wrong("int32"),
            Scalar::Int64 if !value.is_i64() => wrong("int64"),
            Scalar::Number if !value.is_number() => wrong("float64"),
            Scalar::Bool if !value.is_boolean() => wrong("bool"),
            _ => None,
        },
        Shape::List(list) => match value {
            Value::Array(items) => items.iter().find_map(|i| mistyped_at(i, &list.item, path)),
            _ => wrong("[]interface {}"),
        },
        Shape::Map(..) | Shape::Struct(_) => match value {
            Value::Object(object) => {
                object.iter().find_map(|(key, item)| mistyped_at(item, ty.field(key)?, &at(key)))
            }
            _ => wrong("map[string]interface {}"),
        },
    }
}

/// Adds what a server always writes: structs by value, required numbers and booleans; drops nulls
/// of fields that the type knows.
pub(super) fn complete(value: &mut Value, ty: &Type) {
    match (value, ty.shape()) {
        (Value::Object(object), Shape::Struct(shape)) => {
            let builtin = matches!(ty, Type::Named(_));
            if builtin {
                object.retain(|key, item| {
                    !item.is_null() || shape.fields.get(key).is_some_and(|f| f.by_value)
                });
                for (name, field) in &shape.fields {
                    if !object.contains_key(name)
                        && let Some(zero) = zero_value(field)
                        && !(zero.is_string() || zero.is_array())
                    {
                        object.insert(name.clone(), zero);
                    }
                }
            } else {
                for (name, field) in &shape.fields {
                    if !object.contains_key(name)
                        && let Some(default) = &field.default
                    {
                        object.insert(name.clone(), default.clone());
                    }
                }
            }
            for (key, item) in object.iter_mut() {
                if let Some(item_type) = ty.field(key) {
                    complete(item, item_type);
                }
            }
            if builtin {
                // Empty maps and lists of strings and scalars are written as absent.
                object.retain(|key, item| !omitted(ty, key, item));
            }
        }
        (Value::Object(object), Shape::Map(item_type, _)) => {
            for (_, item) in object.iter_mut() {
                complete(item, item_type);
            }
        }
        (Value::Array(items), Shape::List(list)) => {
            for item in items {
                complete(item, &list.item);
            }
        }
        _ => {}
    }
}

/// Whether Go's `omitempty` leaves this value out.
fn omitted(ty: &Type, key: &str, item: &Value) -> bool {
    let Shape::Struct(shape) = ty.shape() else { return false };
    let Some(field) = shape.fields.get(key) else { return false };
    match item {
        Value::Object(object) => {
            object.is_empty() && !field.by_value && matches!(field.ty.shape(), Shape::Map(..))
        }
        Value::Array(items) => items.is_empty() && !field.required,
        Value::String(text) => {
            // Texts that are pointers in Go are kept when empty; plain ones are not.
            let pointer = key == "storageClassName"
                || matches!(ty, Type::Named(name)
                    if name.ends_with("HostPathVolumeSource") || name.ends_with("GRPCAction"));
            text.is_empty() && !field.required && !pointer
        }
        Value::Bool(false) => matches!(
            key,
            "hostNetwork"
                | "hostPID"
                | "hostIPC"
                | "paused"
                | "stdin"
                | "stdinOnce"
                | "tty"
                | "unschedulable"
                | "publishNotReadyAddresses"
                | "readOnly"
        ),
        Value::Number(number) if number.as_i64() == Some(0) && !field.required => {
            let status = matches!(ty, Type::Named(name) if name.ends_with("Status"));
            // Numbers that are pointers in Go keep their zero.
            let pointer = matches!(key, "collisionCount" | "terminatingReplicas" | "ready");
            (status && !pointer)
                || matches!(
                    key,
                    "minReadySeconds" | "hostPort" | "nodePort" | "initialDelaySeconds"
                )
        }
        _ => false,
    }
}

/// Takes the value at a dotted path such as `.spec.replicas`.
pub(super) fn at_path<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = object;
    for step in path.split('.').filter(|s| !s.is_empty()) {
        value = value.get(step)?;
    }
    Some(value)
}

/// Sets the value at a dotted path, making objects on the way.
pub(super) fn set_path(object: &mut Value, path: &str, value: Value) {
    let mut at = object;
    for step in path.split('.').filter(|s| !s.is_empty()) {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[step];
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_are_named_and_removed() {
        let mut value = json!({"spec": {"replicas": 1, "nope": 2, "template": {"spec": {
            "containers": [{"name": "c", "imagee": "x"}]}}}});
        let unknown = prune(&mut value, &Type::named("apps/v1.Deployment"));
        assert_eq!(unknown, ["spec.nope", "spec.template.spec.containers[0].imagee"]);
        assert!(value["spec"].get("nope").is_none());
    }

    #[test]
    fn structs_by_value_are_never_absent() {
        let mut value = json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}});
        complete(&mut value, &Type::named("apps/v1.Deployment"));
        assert_eq!(value["status"], json!({}));
        assert_eq!(value["spec"]["strategy"], json!({}));
        assert_eq!(value["spec"]["template"]["spec"]["containers"][0]["resources"], json!({}));
    }

    #[test]
    fn wrong_types_are_worded() {
        let value = json!({"spec": {"replicas": "two"}});
        assert_eq!(
            mistyped(&value, &Type::named("apps/v1.Deployment")).unwrap(),
            "json: cannot unmarshal string into Go struct field spec.replicas of type int32"
        );
    }
}
