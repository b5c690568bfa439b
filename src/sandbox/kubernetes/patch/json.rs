//! RFC 6902, with the error texts of the library that the API server uses.

use serde_json::Value;

/// Applies the operations in order; the error is the server's text.
pub(in super::super) fn json_patch(target: &mut Value, patch: &Value) -> Result<(), String> {
    let operations = patch.as_array().ok_or("not a list of operations")?;
    for operation in operations {
        apply(target, operation)?;
    }
    Ok(())
}

fn apply(target: &mut Value, operation: &Value) -> Result<(), String> {
    let text = |name: &str| operation[name].as_str();
    let path = text("path").ok_or("missing path")?;
    match text("op") {
        Some("add") => {
            let value = operation.get("value").cloned().unwrap_or(Value::Null);
            add(target, path, value)
        }
        Some("remove") => remove(target, path, "remove").map(drop),
        Some("replace") => {
            let value = operation.get("value").cloned().unwrap_or(Value::Null);
            if path.is_empty() {
                *target = value;
                return Ok(());
            }
            // The server's library replaces a member of an object that is not there, too.
            if let Some((Value::Object(fields), last)) = parent(target, path) {
                fields.insert(last, value);
                return Ok(());
            }
            match target.pointer_mut(path) {
                Some(place) => {
                    *place = value;
                    Ok(())
                }
                None => Err(format!(
                    "replace operation does not apply: doc is missing key: {path}: missing value"
                )),
            }
        }
        Some("move") => {
            let from = text("from").ok_or("missing from")?;
            let value = remove(target, from, "move")?;
            add(target, path, value)
        }
        Some("copy") => {
            let from = text("from").ok_or("missing from")?;
            let value = target.pointer(from).cloned().ok_or_else(|| {
                format!(
                    "copy operation does not apply: doc is missing from path: {from}: missing value"
                )
            })?;
            add(target, path, value)
        }
        Some("test") => {
            let wanted = operation.get("value").unwrap_or(&Value::Null);
            if !path.is_empty() && parent(target, path).is_none() {
                return Err(format!("test operation for path {path}: missing value"));
            }
            let found = target.pointer(path).unwrap_or(&Value::Null);
            if found == wanted {
                Ok(())
            } else {
                Err(format!("testing value {path} failed: test failed"))
            }
        }
        Some(other) => Err(format!("Unexpected kind: {other}")),
        None => Err("missing op".to_owned()),
    }
}

fn parent<'a>(target: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    let last = last.replace("~1", "/").replace("~0", "~");
    Some((target.pointer_mut(parent)?, last))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let missing =
        || format!("add operation does not apply: doc is missing path: \"{path}\": missing value");
    let (parent, last) = parent(target, path).ok_or_else(missing)?;
    match parent {
        Value::Object(fields) => {
            fields.insert(last, value);
            Ok(())
        }
        Value::Array(items) => {
            let index = if last == "-" { Some(items.len()) } else { last.parse().ok() };
            match index {
                Some(index) if index <= items.len() => {
                    items.insert(index, value);
                    Ok(())
                }
                _ => Err(format!(
                    "add operation does not apply: doc is missing path: \"{path}\": Unable to access invalid index: {last}: invalid index referenced"
                )),
            }
        }
        _ => Err(missing()),
    }
}

fn remove(target: &mut Value, path: &str, operation: &str) -> Result<Value, String> {
    let missing = || {
        if operation == "remove" {
            format!(
                "remove operation does not apply: doc is missing path: \"{path}\": missing value"
            )
        } else {
            format!(
                "{operation} operation does not apply: doc is missing from path: {path}: missing value"
            )
        }
    };
    let (parent, last) = parent(target, path).ok_or_else(missing)?;
    match parent {
        Value::Object(fields) => fields.remove(&last).ok_or_else(|| {
            format!(
                "{operation} operation does not apply: doc is missing key: {path}: missing value"
            )
        }),
        Value::Array(items) => match last.parse::<usize>() {
            Ok(index) if index < items.len() => Ok(items.remove(index)),
            _ => Err(missing()),
        },
        _ => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations() {
        let mut value = json!({"a": {"b/c": 1}, "l": [1, 2]});
        let patch = json!([
            {"op": "test", "path": "/a/b~1c", "value": 1},
            {"op": "add", "path": "/l/-", "value": 3},
            {"op": "remove", "path": "/l/0"},
            {"op": "replace", "path": "/a/b~1c", "value": 2},
            {"op": "copy", "from": "/a", "path": "/z"},
            {"op": "move", "from": "/l", "path": "/m"},
        ]);
        json_patch(&mut value, &patch).unwrap();
        assert_eq!(value, json!({"a": {"b/c": 2}, "z": {"b/c": 2}, "m": [2, 3]}));
    }

    #[test]
    fn failures_are_worded() {
        let fails = |patch: Value| json_patch(&mut json!({"a": 1}), &patch).unwrap_err();
        assert_eq!(
            fails(json!([{"op": "test", "path": "/a", "value": 2}])),
            "testing value /a failed: test failed"
        );
        assert_eq!(
            fails(json!([{"op": "add", "path": "/x/y", "value": 2}])),
            "add operation does not apply: doc is missing path: \"/x/y\": missing value"
        );
    }

    #[test]
    fn a_test_against_nothing_matches_null() {
        assert!(
            json_patch(&mut json!({}), &json!([{"op": "test", "path": "/x", "value": null}]))
                .is_ok()
        );
    }
}
