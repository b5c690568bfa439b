//! Merging an applied configuration into a live object, and removing what is no longer applied.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    super::schema::{List, ListKind, Shape, Type},
    set::{FieldSet, PathElement},
    typed::item_element,
};

/// Merges `config` into `live`: leaves of the configuration win, everything else stays.
pub(in super::super) fn merge(live: &Value, config: &Value, ty: &Type) -> Value {
    merge_at(Some(live), Some(config), ty).unwrap_or(Value::Null)
}

fn merge_at(live: Option<&Value>, config: Option<&Value>, ty: &Type) -> Option<Value> {
    let (Some(left), Some(right)) = (live, config) else {
        return config.or(live).cloned();
    };
    match ty.shape() {
        Shape::Scalar(_) | Shape::Map(_, true) => Some(right.clone()),
        Shape::List(list) if list.kind == ListKind::Atomic => Some(right.clone()),
        Shape::Struct(object) if object.atomic => Some(right.clone()),
        Shape::List(list) => match (left, right) {
            (Value::Array(left), Value::Array(right)) => {
                Some(Value::Array(merge_items(left, right, list)))
            }
            _ => Some(right.clone()),
        },
        Shape::Any | Shape::Map(..) | Shape::Struct(_) => match (left, right) {
            (Value::Object(left), Value::Object(right))
                if !(left.is_empty() && right.is_empty()) =>
            {
                let mut out = Map::new();
                for (key, value) in left {
                    if !right.contains_key(key) {
                        out.insert(key.clone(), value.clone());
                    }
                }
                for (key, value) in right {
                    let item = ty.field(key).unwrap_or(&Type::Any);
                    if let Some(merged) = merge_at(left.get(key), Some(value), item) {
                        out.insert(key.clone(), merged);
                    }
                }
                Some(Value::Object(out))
            }
            _ => Some(right.clone()),
        },
    }
}

/// Items that both have come in the order of the configuration; items that only the live list has
/// keep their place before the next common one.
fn merge_items(left: &[Value], right: &[Value], list: &List) -> Vec<Value> {
    let elements = |items: &[Value]| -> Vec<Option<PathElement>> {
        items
            .iter()
            .enumerate()
            .map(|(i, item)| item_element(&list.kind, item, &list.item, i).ok())
            .collect()
    };
    let (left_keys, right_keys) = (elements(left), elements(right));
    let position = |keys: &[Option<PathElement>]| -> BTreeMap<PathElement, usize> {
        keys.iter().enumerate().filter_map(|(i, key)| Some((key.clone()?, i))).collect()
    };
    let (in_left, in_right) = (position(&left_keys), position(&right_keys));
    let mut shared = right_keys.iter().flatten().filter(|key| in_left.contains_key(key)).peekable();
    let mut out = Vec::new();
    let (mut l, mut r) = (0, 0);
    let both = |key: &PathElement| {
        merge_at(
            in_left.get(key).map(|i| &left[*i]),
            in_right.get(key).map(|i| &right[*i]),
            &list.item,
        )
    };
    let mut done = std::collections::BTreeSet::new();
    while l < left.len() || r < right.len() {
        if let (Some(Some(a)), Some(Some(b))) = (left_keys.get(l), right_keys.get(r)) {
            if a == b {
                out.extend(both(a));
                done.insert(a.clone());
                (l, r) = (l + 1, r + 1);
                shared.next();
                continue;
            }
            if in_right.contains_key(a) && shared.peek().is_some_and(|next| *next != a) {
                l += 1;
                continue;
            }
        }
        if let Some(key) = left_keys.get(l) {
            match key {
                Some(key) if in_right.contains_key(key) => {
                    if done.contains(key) {
                        l += 1;
                    }
                }
                _ => {
                    out.push(left[l].clone());
                    l += 1;
                    continue;
                }
            }
        }
        if let Some(key) = right_keys.get(r) {
            match key {
                Some(key) => {
                    out.extend(both(key));
                    done.insert(key.clone());
                    if shared.peek().is_some_and(|next| *next == key) {
                        shared.next();
                    }
                }
                None => out.push(right[r].clone()),
            }
            r += 1;
        }
    }
    out
}

/// `value` without the paths of `set`. `None` where nothing is left.
pub(in super::super) fn remove(value: &Value, set: &FieldSet, ty: &Type) -> Option<Value> {
    match (ty.shape(), value) {
        (Shape::List(list), Value::Array(items)) if list.kind != ListKind::Atomic => {
            let mut out = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let Ok(element) = item_element(&list.kind, item, &list.item, index) else {
                    out.push(item.clone());
                    continue;
                };
                if set.has(&element) {
                    continue;
                }
                match set.below(&element) {
                    Some(below) => out.extend(remove(item, below, &list.item)),
                    None => out.push(item.clone()),
                }
            }
            (!out.is_empty()).then_some(Value::Array(out))
        }
        (Shape::Map(_, false) | Shape::Struct(_) | Shape::Any, Value::Object(object)) => {
            let mut out = Map::new();
            for (key, item) in object {
                let element = PathElement::Field(key.clone());
                if set.has(&element) {
                    continue;
                }
                match set.below(&element) {
                    Some(below) => {
                        let item_type = ty.field(key).unwrap_or(&Type::Any);
                        if let Some(left) = remove(item, below, item_type) {
                            out.insert(key.clone(), left);
                        }
                    }
                    None => {
                        out.insert(key.clone(), item.clone());
                    }
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        _ => Some(value.clone()),
    }
}

/// `set` plus the named fields on the way to its paths: a struct field exists through its content.
pub(in super::super) fn with_named_fields(set: &FieldSet, ty: &Type) -> FieldSet {
    let mut out = set.clone();
    let fields = match ty.shape() {
        Shape::Struct(object) => Some(&object.fields),
        _ => None,
    };
    for (element, node) in &mut out.nodes {
        let item = match (element, ty.shape()) {
            (PathElement::Field(name), _) => ty.field(name).unwrap_or(&Type::Any),
            (_, Shape::List(list)) => &list.item,
            _ => &Type::Any,
        };
        if !node.below.is_empty() {
            if let PathElement::Field(name) = element
                && fields.is_some_and(|f| f.contains_key(name))
            {
                node.member = true;
            }
            node.below = with_named_fields(&node.below, item);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::typed::field_set, *};

    #[test]
    fn keyed_lists_merge_by_key_and_keep_order() {
        let ty = Type::named("core/v1.PodSpec");
        let live = json!({"containers": [{"name": "a", "image": "1"}, {"name": "side", "image": "s"}, {"name": "b"}]});
        let config =
            json!({"containers": [{"name": "a", "image": "2"}, {"name": "b"}, {"name": "c"}]});
        let merged = merge(&live, &config, &ty);
        let names: Vec<&str> = merged["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "side", "b", "c"]);
        assert_eq!(merged["containers"][0]["image"], "2");
        let swapped = json!({"containers": [{"name": "b"}, {"name": "a"}]});
        let merged = merge(&live, &swapped, &ty);
        let names: Vec<&str> = merged["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["side", "b", "a"]);
    }

    #[test]
    fn removing_paths_removes_empty_parents() {
        let ty = Type::named("apps/v1.Deployment");
        let value =
            json!({"metadata": {"labels": {"a": "1"}, "annotations": {"x": "y", "z": "w"}}});
        let gone =
            field_set(&json!({"metadata": {"labels": {"a": "1"}, "annotations": {"x": "y"}}}), &ty);
        let left = remove(&value, &gone, &ty).unwrap();
        assert_eq!(left, json!({"metadata": {"annotations": {"z": "w"}}}));
    }
}
