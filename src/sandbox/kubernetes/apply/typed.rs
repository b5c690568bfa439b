//! Field sets of values: which paths a value has, and which differ between two values.

use serde_json::{Map, Value};

use super::{
    super::schema::{Field, ListKind, Scalar, Shape, Type},
    set::{FieldSet, PathElement},
};

/// A value that does not have the shape of its type, as the API server words it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub(in super::super) struct TypeError {
    path: String,
    problem: String,
}

type Path = Vec<PathElement>;

fn problem(path: &Path, problem: impl Into<String>) -> TypeError {
    let mut set = FieldSet::default();
    set.insert(path);
    let path = set.paths().into_iter().last().unwrap_or_default();
    TypeError { path, problem: problem.into() }
}

/// The identity of a list item under `kind`; for a set or a keyed list.
pub(super) fn item_element(
    kind: &ListKind,
    item: &Value,
    item_type: &Type,
    index: usize,
) -> Result<PathElement, String> {
    match kind {
        ListKind::Atomic => Ok(PathElement::Index(index)),
        ListKind::Set => match item {
            Value::Array(_) | Value::Object(_) => {
                Err("associative list with keys may not have non-map elements".to_owned())
            }
            scalar => Ok(PathElement::Value(scalar.to_string())),
        },
        ListKind::Map(keys) => {
            let object = item
                .as_object()
                .ok_or("associative list with keys has an element that is not a map")?;
            let mut found = Map::new();
            for key in keys {
                match object.get(key) {
                    Some(value) if !value.is_null() => {
                        found.insert(key.clone(), value.clone());
                    }
                    // The only defaulted key field of the built-in kinds.
                    _ if key == "protocol" => {
                        found.insert(key.clone(), "TCP".into());
                    }
                    _ => {
                        if let Shape::Struct(shape) = item_type.shape()
                            && let Some(Field { default: Some(value), .. }) = shape.fields.get(key)
                        {
                            found.insert(key.clone(), value.clone());
                        }
                    }
                }
            }
            if found.is_empty() {
                let missing: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
                return Err(format!(
                    "associative list with keys has an element that omits key field {} (and doesn't have default value)",
                    missing.join(", ")
                ));
            }
            Ok(PathElement::Key(Value::Object(found).sorted()))
        }
    }
}

trait Sorted {
    fn sorted(&self) -> String;
}

impl Sorted for Value {
    fn sorted(&self) -> String {
        let fields: std::collections::BTreeMap<_, _> =
            self.as_object().into_iter().flatten().collect();
        serde_json::to_string(&fields).unwrap_or_default()
    }
}

/// Checks `value` against its type: unknown fields, wrong types, duplicate list keys.
pub(in super::super) fn validate(value: &Value, ty: &Type) -> Result<(), TypeError> {
    walk(value, ty, &mut Vec::new(), &mut |_| ())
}

/// The paths that an applied configuration claims.
pub(in super::super) fn field_set(value: &Value, ty: &Type) -> FieldSet {
    let mut set = FieldSet::default();
    // An invalid value was refused before; what could be walked counts.
    drop(walk(value, ty, &mut Vec::new(), &mut |path| set.insert(path)));
    set
}

fn walk(
    value: &Value,
    ty: &Type,
    path: &mut Path,
    leaf: &mut dyn FnMut(&Path),
) -> Result<(), TypeError> {
    match ty.shape() {
        Shape::Scalar(scalar) => {
            check_scalar(value, scalar).map_err(|text| problem(path, text))?;
            leaf(path);
            Ok(())
        }
        Shape::Any => {
            if let Value::Object(object) = value {
                walk_map(object, ty, path, leaf)
            } else {
                leaf(path);
                Ok(())
            }
        }
        Shape::List(list) => {
            let items = match value {
                Value::Array(items) => items.as_slice(),
                Value::Null => &[],
                other => {
                    return Err(problem(path, format!("expected list, got &{{{}}}", show(other))));
                }
            };
            if list.kind == ListKind::Atomic {
                leaf(path);
                for (index, item) in items.iter().enumerate() {
                    path.push(PathElement::Index(index));
                    walk(item, &list.item, path, &mut |_| ())?;
                    path.pop();
                }
                return Ok(());
            }
            let mut seen = std::collections::BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let element = item_element(&list.kind, item, &list.item, index)
                    .map_err(|text| problem(path, format!("element {index}: {text}")))?;
                if !seen.insert(element.clone()) {
                    let mut set = FieldSet::default();
                    set.insert(&[element]);
                    let key = set.paths().into_iter().last().unwrap_or_default();
                    return Err(problem(path, format!("duplicate entries for key {key}")));
                }
                path.push(element);
                walk(item, &list.item, path, leaf)?;
                leaf(path);
                path.pop();
            }
            Ok(())
        }
        Shape::Map(_, true) => {
            leaf(path);
            Ok(())
        }
        Shape::Struct(object) if object.atomic => {
            if let Value::Object(fields) = value {
                walk_map(fields, ty, path, &mut |_| ())?;
            }
            leaf(path);
            Ok(())
        }
        Shape::Map(..) | Shape::Struct(_) => match value {
            Value::Object(object) => walk_map(object, ty, path, leaf),
            Value::Null => Ok(()),
            other => Err(problem(path, format!("expected map, got &{{{}}}", show(other)))),
        },
    }
}

fn walk_map(
    object: &Map<String, Value>,
    ty: &Type,
    path: &mut Path,
    leaf: &mut dyn FnMut(&Path),
) -> Result<(), TypeError> {
    let known = |key: &str| matches!(ty.shape(), Shape::Struct(s) if s.fields.contains_key(key));
    for (key, value) in object {
        path.push(PathElement::Field(key.clone()));
        let Some(item) = ty.field(key) else {
            return Err(problem(path, "field not declared in schema"));
        };
        walk(value, item, path, leaf)?;
        if value.is_null() || value.as_object().is_some_and(Map::is_empty) || !known(key) {
            leaf(path);
        }
        path.pop();
    }
    Ok(())
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn check_scalar(value: &Value, scalar: Scalar) -> Result<(), String> {
    let (ok, expected) = match scalar {
        Scalar::String | Scalar::Bytes | Scalar::Time | Scalar::MicroTime => {
            (value.is_string(), "string")
        }
        Scalar::Int32 | Scalar::Int64 => {
            (value.is_i64() || value.is_u64(), "numeric (int or float)")
        }
        Scalar::Number => (value.is_number(), "numeric (int or float)"),
        Scalar::Bool => (value.is_boolean(), "boolean"),
        Scalar::Quantity | Scalar::IntOrString => {
            (value.is_string() || value.is_number(), "untyped")
        }
    };
    if ok || value.is_null() {
        Ok(())
    } else {
        Err(format!("expected {expected}, got &value.valueUnstructured{{Value:{value}}}"))
    }
}

/// What changed from one value to another.
#[derive(Debug, Default)]
pub(in super::super) struct Comparison {
    /// Paths that only the old value has.
    pub removed: FieldSet,
    /// Paths whose value differs.
    pub modified: FieldSet,
    /// Paths that only the new value has.
    pub added: FieldSet,
}

impl Comparison {
    /// Whether nothing changed.
    pub(in super::super) fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }
}

/// Compares two values of one type. A struct that the Go type holds by value is never absent, and a
/// required scalar that is absent counts as its zero value, because that is how the server sees them.
pub(in super::super) fn compare(old: &Value, new: &Value, ty: &Type) -> Comparison {
    let mut out = Comparison::default();
    compare_at(Some(old), Some(new), ty, &mut Vec::new(), &mut out);
    out
}

fn compare_at(
    old: Option<&Value>,
    new: Option<&Value>,
    ty: &Type,
    path: &mut Path,
    out: &mut Comparison,
) {
    // The null of a time held by value is a value.
    let old = old.filter(|v| !v.is_null() || is_time(ty));
    let new = new.filter(|v| !v.is_null() || is_time(ty));
    if old == new {
        return;
    }
    let empty = |value: Option<&Value>| match value {
        None => true,
        Some(Value::Object(object)) => object.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    };
    let leaf = match ty.shape() {
        Shape::Scalar(_) | Shape::Map(_, true) => true,
        Shape::Any => !(old.is_none_or(Value::is_object) && new.is_none_or(Value::is_object)),
        Shape::List(list) => list.kind == ListKind::Atomic,
        Shape::Struct(object) => object.atomic,
        Shape::Map(_, false) => false,
    };
    if leaf || (empty(old) && empty(new)) {
        match (old, new) {
            (None, _) => out.added.insert(path),
            (_, None) => out.removed.insert(path),
            _ => out.modified.insert(path),
        }
        return;
    }
    if let Shape::List(list) = ty.shape() {
        compare_items(old, new, list, path, out);
    } else {
        compare_fields(old, new, ty, path, out);
    }
    // A map or list that appears or disappears as a whole is itself a change.
    match (old, new) {
        (None, _) => out.added.insert(path),
        (_, None) => out.removed.insert(path),
        _ => {}
    }
}

fn compare_items(
    old: Option<&Value>,
    new: Option<&Value>,
    list: &super::super::schema::List,
    path: &mut Path,
    out: &mut Comparison,
) {
    let keyed = |value: Option<&'_ Value>| -> std::collections::BTreeMap<PathElement, Value> {
        value
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
            .filter_map(|(i, item)| {
                Some((item_element(&list.kind, item, &list.item, i).ok()?, item.clone()))
            })
            .collect()
    };
    let (old, new) = (keyed(old), keyed(new));
    let elements: std::collections::BTreeSet<&PathElement> = old.keys().chain(new.keys()).collect();
    for element in elements {
        path.push(element.clone());
        compare_at(old.get(element), new.get(element), &list.item, path, out);
        path.pop();
    }
}

fn compare_fields(
    old: Option<&Value>,
    new: Option<&Value>,
    ty: &Type,
    path: &mut Path,
    out: &mut Comparison,
) {
    let none = Map::new();
    let old_fields = old.and_then(Value::as_object).unwrap_or(&none);
    let new_fields = new.and_then(Value::as_object).unwrap_or(&none);
    let keys: std::collections::BTreeSet<&String> =
        old_fields.keys().chain(new_fields.keys()).collect();
    for key in keys {
        let Some(field_type) = ty.field(key) else { continue };
        let (mut a, mut b) = (old_fields.get(key), new_fields.get(key));
        let zero = match ty.shape() {
            Shape::Struct(object) => object.fields.get(key).and_then(zero_value),
            _ => None,
        };
        // Only where the parent exists on that side; else everything in it is new.
        if old.is_some() && a.is_none() {
            a = zero.as_ref();
        }
        if new.is_some() && b.is_none() {
            b = zero.as_ref();
        }
        path.push(PathElement::Field(key.clone()));
        compare_at(a, b, field_type, path, out);
        path.pop();
    }
}

fn is_time(ty: &Type) -> bool {
    matches!(ty, Type::Scalar(Scalar::Time | Scalar::MicroTime))
}

/// What the server holds where JSON has no such field.
pub(in super::super) fn zero_value(field: &Field) -> Option<Value> {
    if field.by_value {
        // The zero time is written as null.
        return Some(if is_time(&field.ty) { Value::Null } else { Value::Object(Map::new()) });
    }
    if !field.required {
        return None;
    }
    match field.ty {
        Type::List(_) => Some(Value::Array(Vec::new())),
        Type::Scalar(Scalar::String) => Some(Value::String(String::new())),
        Type::Scalar(Scalar::Int32 | Scalar::Int64) => Some(0.into()),
        Type::Scalar(Scalar::Bool) => Some(false.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment() -> Type {
        Type::named("apps/v1.Deployment")
    }

    #[test]
    fn applied_paths_have_no_parents_except_list_items() {
        let set = field_set(
            &json!({"metadata": {"labels": {"app": "web"}}, "spec": {"selector": {"matchLabels": {"app": "web"}},
                "template": {"spec": {"containers": [{"name": "c", "args": ["x"], "resources": {}}]}}}}),
            &deployment(),
        );
        assert_eq!(
            set.to_json(),
            json!({"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:selector": {},
                "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:name": {}, "f:args": {}, "f:resources": {}}}}}}})
        );
    }

    #[test]
    fn additions_name_the_maps_that_are_new() {
        let old = json!({"metadata": {"name": "x"}});
        let new = json!({"metadata": {"name": "x", "labels": {"app": "web"}},
            "spec": {"replicas": 1, "strategy": {"type": "Recreate"}}});
        let change = compare(&old, &new, &deployment());
        assert_eq!(
            change.added.to_json(),
            json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:replicas": {}, "f:strategy": {"f:type": {}}}})
        );
        assert!(change.modified.is_empty() && change.removed.is_empty());
    }

    #[test]
    fn unknown_fields_and_duplicates_are_refused() {
        let error = validate(&json!({"spec": {"nonsense": 1}}), &deployment()).unwrap_err();
        assert_eq!(error.to_string(), ".spec.nonsense: field not declared in schema");
        let twice = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "c", "env": [{"name": "A"}, {"name": "A"}]}]}}}});
        let error = validate(&twice, &deployment()).unwrap_err();
        assert_eq!(
            error.to_string(),
            ".spec.template.spec.containers[name=\"c\"].env: duplicate entries for key [name=\"A\"]"
        );
    }
}
