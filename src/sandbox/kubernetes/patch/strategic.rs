//! Strategic merge patch: a merge patch that knows which lists are merged, and by which key.
//!
//! <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md>

use serde_json::{Map, Value};

use super::super::schema::{PatchList, Shape, Type};

/// Applies `patch` to `target`; the error is the server's text.
pub(in super::super) fn strategic_merge(
    target: &mut Value,
    patch: &Value,
    ty: &Type,
) -> Result<(), String> {
    let Value::Object(changes) = patch else {
        return Err("cannot unmarshal patch into an object".to_owned());
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return Ok(()) };
    merge_object(fields, changes, ty)
}

fn merge_object(
    fields: &mut Map<String, Value>,
    changes: &Map<String, Value>,
    ty: &Type,
) -> Result<(), String> {
    match changes.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            fields.clone_from(changes);
            fields.remove("$patch");
            return Ok(());
        }
        Some("delete") => {
            fields.clear();
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(format!("Unknown patch type found: {other}")),
    }
    if let Some(keep) = changes.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|key, _| keep.iter().any(|k| k == key));
    }
    for (key, change) in changes {
        if key == "$patch" || key == "$retainKeys" || key.starts_with("$setElementOrder/") {
            continue;
        }
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            delete_scalars(fields, list, change);
            continue;
        }
        if change.is_null() {
            fields.remove(key);
            continue;
        }
        let item_type = ty.field(key).unwrap_or(&Type::Any);
        let before = list_at(fields, key);
        merge_value(fields, key, change, item_type)?;
        let wanted = changes.get(&format!("$setElementOrder/{key}")).unwrap_or(change);
        if let Some(wanted) = wanted.as_array() {
            order(fields, key, &before, wanted, item_type);
        }
    }
    // An order may come for a list that the patch does not touch otherwise.
    for (name, wanted) in changes {
        if let Some(key) = name.strip_prefix("$setElementOrder/")
            && !changes.contains_key(key)
            && let Some(wanted) = wanted.as_array()
        {
            let before = list_at(fields, key);
            order(fields, key, &before, wanted, ty.field(key).unwrap_or(&Type::Any));
        }
    }
    Ok(())
}

fn merge_value(
    fields: &mut Map<String, Value>,
    key: &str,
    change: &Value,
    ty: &Type,
) -> Result<(), String> {
    match (change, ty.shape()) {
        (Value::Object(change), _) => {
            let place = fields.entry(key.to_owned()).or_insert_with(|| Value::Object(Map::new()));
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            if let Value::Object(inner) = place {
                merge_object(inner, change, ty)?;
            }
            if change.get("$patch").is_some_and(|p| p == "delete") {
                fields.remove(key);
            }
            Ok(())
        }
        (Value::Array(items), Shape::List(list)) => {
            match &list.patch {
                PatchList::Replace => {
                    fields.insert(key.to_owned(), change.clone());
                }
                PatchList::Merge => {
                    let place = array(fields, key);
                    for item in items {
                        if !place.contains(item) {
                            place.push(item.clone());
                        }
                    }
                }
                PatchList::MergeKey(merge_key) => {
                    merge_items(array(fields, key), items, merge_key, &list.item)?;
                }
            }
            Ok(())
        }
        _ => {
            fields.insert(key.to_owned(), change.clone());
            Ok(())
        }
    }
}

fn list_at(fields: &Map<String, Value>, key: &str) -> Vec<Value> {
    fields.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn array<'a>(fields: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let place = fields.entry(key.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
    if !place.is_array() {
        *place = Value::Array(Vec::new());
    }
    match place {
        Value::Array(items) => items,
        // Made an array above.
        _ => unreachable!("a list"),
    }
}

fn merge_items(
    live: &mut Vec<Value>,
    changes: &[Value],
    merge_key: &str,
    ty: &Type,
) -> Result<(), String> {
    let replaces = |item: &&Value| {
        item["$patch"] == "replace" && item.as_object().is_some_and(|o| o.len() == 1)
    };
    if changes.iter().any(|item| replaces(&item)) {
        *live = changes.iter().filter(|item| !replaces(item)).cloned().collect();
        return Ok(());
    }
    for change in changes {
        let Value::Object(object) = change else {
            return Err("invalid map in list of maps".to_owned());
        };
        let Some(id) = object.get(merge_key) else {
            return Err(format!(
                "map: {} does not contain declared merge key: {merge_key}",
                go_map(object)
            ));
        };
        let found = live.iter().position(|item| &item[merge_key] == id);
        if object.get("$patch").is_some_and(|p| p == "delete") {
            live.retain(|item| &item[merge_key] != id);
            continue;
        }
        if let Some(index) = found {
            if let Value::Object(fields) = &mut live[index] {
                merge_object(fields, object, ty)?;
            }
        } else {
            let mut fresh = Map::new();
            merge_object(&mut fresh, object, ty)?;
            live.push(Value::Object(fresh));
        }
    }
    Ok(())
}

fn delete_scalars(fields: &mut Map<String, Value>, list: &str, gone: &Value) {
    let gone = gone.as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(Value::Array(items)) = fields.get_mut(list) {
        items.retain(|item| !gone.contains(item));
    }
}

/// What identifies an item of a list in a patch.
fn identity<'a>(item: &'a Value, patch: &PatchList) -> &'a Value {
    match patch {
        PatchList::MergeKey(key) => &item[key.as_str()],
        PatchList::Merge | PatchList::Replace => item,
    }
}

/// Brings a merged list into the server's order: what `wanted` names in its order, interleaved with
/// the rest in the order of the list before the patch.
fn order(
    fields: &mut Map<String, Value>,
    key: &str,
    before: &[Value],
    wanted: &[Value],
    ty: &Type,
) {
    let Shape::List(list) = ty.shape() else { return };
    if list.patch == PatchList::Replace {
        return;
    }
    let Some(Value::Array(items)) = fields.get_mut(key) else { return };
    let place = |item: &Value, order: &[Value]| {
        let id = identity(item, &list.patch);
        order.iter().position(|other| identity(other, &list.patch) == id)
    };
    let (mut named, mut rest): (Vec<Value>, Vec<Value>) =
        items.drain(..).partition(|item| place(item, wanted).is_some());
    named.sort_by_key(|item| place(item, wanted));
    rest.sort_by_key(|item| place(item, before));
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let rest_first = match (rest.peek(), named.peek()) {
            (Some(a), Some(b)) => match (place(a, before), place(b, before)) {
                (Some(a), Some(b)) => a < b,
                _ => false,
            },
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => break,
        };
        items.extend(if rest_first { rest.next() } else { named.next() });
    }
}

/// A JSON object as Go prints a map.
fn go_map(object: &Map<String, Value>) -> String {
    let mut parts: Vec<String> =
        object.iter().map(|(key, value)| format!("{key}:{}", go_value(value))).collect();
    parts.sort();
    format!("map[{}]", parts.join(" "))
}

fn go_value(value: &Value) -> String {
    match value {
        Value::Object(object) => go_map(object),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" "))
        }
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(mut target: Value, patch: &Value) -> Value {
        strategic_merge(&mut target, patch, &Type::named("core/v1.PodSpec")).unwrap();
        target
    }

    #[test]
    fn lists_merge_by_key() {
        let target = json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]});
        let patch = json!({"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]},
            {"name": "b", "$patch": "delete"}, {"name": "c"}]});
        assert_eq!(
            patched(target, &patch),
            json!({"containers": [{"name": "a", "image": "2", "env": [
                {"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}, {"name": "c"}]})
        );
    }

    #[test]
    fn directives() {
        let target = json!({"containers": [{"name": "a"}], "nodeSelector": {"x": "1", "y": "2"},
            "securityContext": {"runAsUser": 1}});
        let patch = json!({"containers": [{"$patch": "replace"}, {"name": "z"}],
            "nodeSelector": {"$patch": "replace", "q": "1"}, "securityContext": {"$patch": "delete"}});
        assert_eq!(
            patched(target, &patch),
            json!({"containers": [{"name": "z"}], "nodeSelector": {"q": "1"}})
        );
        let volumes = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
        let patch = json!({"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]});
        assert_eq!(
            patched(volumes, &patch),
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]})
        );
    }

    #[test]
    fn order_is_obeyed() {
        let target = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "side"}]});
        let patch = json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
            "containers": [{"name": "c"}]});
        let names: Vec<String> = patched(target, &patch)["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["c", "b", "a", "side"]);
    }

    #[test]
    fn a_missing_merge_key_is_refused() {
        let error = strategic_merge(
            &mut json!({}),
            &json!({"containers": [{"image": "x"}]}),
            &Type::named("core/v1.PodSpec"),
        );
        assert!(error.unwrap_err().contains("does not contain declared merge key: name"));
    }
}
