//! Strategic merge patch: a merge patch that knows which lists are merged, and by which key.
//!
//! <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md>

use serde_json::{Map, Value};

use super::super::schema::{PatchList, Shape, Type};

/// The member that says what else to do with an object than to merge it.
const DIRECTIVE: &str = "$patch";

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
    if let Some(directive) = changes.get(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => {
                fields.clone_from(changes);
                fields.remove(DIRECTIVE);
            }
            Some("delete") => fields.clear(),
            _ => return Err(unknown_directive(directive, changes)),
        }
        return Ok(());
    }
    if let Some(keep) = changes.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|key, _| keep.iter().any(|k| k == key));
    }
    for (key, change) in changes {
        if key == "$retainKeys" || key.starts_with("$setElementOrder/") {
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
    match (fields.get_mut(key), change, ty.shape()) {
        (Some(Value::Object(live)), Value::Object(changes), _) => {
            return merge_object(live, changes, ty);
        }
        (Some(Value::Array(live)), Value::Array(items), Shape::List(list)) => match &list.patch {
            PatchList::Replace => live.clone_from(items),
            PatchList::Merge => {
                for item in items {
                    if !live.contains(item) {
                        live.push(item.clone());
                    }
                }
            }
            PatchList::MergeKey(merge_key) => {
                return merge_items(live, items, merge_key, &list.item);
            }
        },
        // What is new is taken as it is: no key and no directive in it is looked at.
        _ => match without_directives(change) {
            Some(value) => drop(fields.insert(key.to_owned(), value)),
            None => drop(fields.remove(key)),
        },
    }
    Ok(())
}

/// A copy without nulls, and without the objects that hold a directive: there is nothing that it
/// could apply to. Servers before 1.27 keep such objects.
fn without_directives(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => return None,
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .filter_map(|(key, value)| Some((key.clone(), without_directives(value)?)))
            .collect(),
        Value::Array(items) => items.iter().filter_map(without_directives).collect(),
        other => other.clone(),
    })
}

fn unknown_directive(directive: &Value, holder: &Map<String, Value>) -> String {
    format!("unknown patch type: {} in map: {}", go_text(directive), go_map(holder))
}

fn list_at(fields: &Map<String, Value>, key: &str) -> Vec<Value> {
    fields.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn merge_items(
    live: &mut Vec<Value>,
    changes: &[Value],
    merge_key: &str,
    ty: &Type,
) -> Result<(), String> {
    let mut plain = Vec::with_capacity(changes.len());
    let mut replace = false;
    for change in changes {
        let Value::Object(object) = change else {
            return Err("invalid map in list of maps".to_owned());
        };
        let Some(directive) = object.get(DIRECTIVE) else {
            plain.push(object);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let id = key_of(object, merge_key)?;
                live.retain(|item| &item[merge_key] != id);
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err("merging lists cannot yet be specified in the patch".to_owned());
            }
            _ => return Err(unknown_directive(directive, object)),
        }
    }
    if replace {
        *live = plain.into_iter().cloned().map(Value::Object).collect();
        return Ok(());
    }
    for object in plain {
        let id = key_of(object, merge_key)?;
        match live.iter_mut().find(|item| &item[merge_key] == id) {
            Some(Value::Object(fields)) => merge_object(fields, object, ty)?,
            _ => live.push(Value::Object(object.clone())),
        }
    }
    Ok(())
}

fn key_of<'a>(item: &'a Map<String, Value>, merge_key: &str) -> Result<&'a Value, String> {
    item.get(merge_key).ok_or_else(|| {
        format!("map: {} does not contain declared merge key: {merge_key}", go_map(item))
    })
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

/// A JSON value as Go prints it where text was meant.
fn go_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "%!s(<nil>)".to_owned(),
        Value::Bool(flag) => format!("%!s(bool={flag})"),
        Value::Number(number) if number.is_f64() => format!("%!s(float64={number})"),
        Value::Number(number) => format!("%!s(int64={number})"),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" "))
        }
        Value::Object(object) => {
            let mut parts: Vec<String> =
                object.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            parts.sort();
            format!("map[{}]", parts.join(" "))
        }
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
            json!({"containers": [{"name": "z"}], "nodeSelector": {"q": "1"}, "securityContext": {}})
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

    fn refused(mut target: Value, patch: &Value) -> String {
        strategic_merge(&mut target, patch, &Type::named("core/v1.PodSpec")).unwrap_err()
    }

    #[test]
    fn a_missing_merge_key_is_refused() {
        let patch = json!({"containers": [{"image": "x"}]});
        assert_eq!(
            refused(json!({"containers": []}), &patch),
            "map: map[image:x] does not contain declared merge key: name"
        );
    }

    #[test]
    fn unknown_directives_are_refused() {
        let target = json!({"containers": [{"name": "a", "resources": {}}]});
        for (directive, shown, told) in [
            (json!("nonsense"), "nonsense", "nonsense"),
            (json!(5), "5", "%!s(int64=5)"),
            (json!(null), "<nil>", "%!s(<nil>)"),
            (json!({"a": "b"}), "map[a:b]", "map[a:b]"),
        ] {
            let item = json!({"containers": [{"name": "a", "$patch": directive}]});
            let wanted = format!("unknown patch type: {told} in map: map[$patch:{shown} name:a]");
            assert_eq!(refused(target.clone(), &item), wanted);
            let map = json!({"containers": [{"name": "a", "resources": {"$patch": directive}}]});
            let wanted = format!("unknown patch type: {told} in map: map[$patch:{shown}]");
            assert_eq!(refused(target.clone(), &map), wanted);
        }
        assert_eq!(
            refused(target, &json!({"containers": [{"name": "a", "$patch": "merge"}]})),
            "merging lists cannot yet be specified in the patch"
        );
    }

    #[test]
    fn a_directive_in_what_is_new_leaves_nothing() {
        let target = json!({"containers": [{"name": "a"}]});
        let patch = json!({"securityContext": {"$patch": "nonsense", "runAsUser": 1},
            "volumes": [{"name": "v", "$patch": "delete"}, {"name": "w", "emptyDir": null}],
            "containers": [{"name": "a", "env": [{"$patch": "replace"}, {"name": "X"}]}]});
        assert_eq!(
            patched(target, &patch),
            json!({"containers": [{"name": "a", "env": [{"name": "X"}]}], "volumes": [{"name": "w"}]})
        );
    }
}
