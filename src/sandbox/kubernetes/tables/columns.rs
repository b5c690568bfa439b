//! Column definitions, ages, and the columns of custom resources.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::{fields::at_path, kinds::Kind, objects::meta};

/// A column definition; wide ones have priority 1.
pub(super) fn column(name: &str, ty: &str, wide: bool) -> Value {
    let format = if name == "Name" { "name" } else { "" };
    json!({"name": name, "type": ty, "format": format, "description": "", "priority": i32::from(wide)})
}

/// The age of an object as kubectl prints it.
pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    since(meta(object, "creationTimestamp"), now)
}

/// The time since a time stamp as kubectl prints it.
pub(super) fn since(stamp: &str, now: Timestamp) -> Value {
    match stamp.parse::<Timestamp>() {
        Ok(then) => human_duration(now.as_second() - then.as_second()).into(),
        Err(_) => "<unknown>".into(),
    }
}

/// Seconds as `5s`, `3m20s`, `2d3h`, `400d`.
pub(in super::super) fn human_duration(seconds: i64) -> String {
    let two = |a: i64, x: &str, b: i64, y: &str| {
        if b == 0 { format!("{a}{x}") } else { format!("{a}{x}{b}{y}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// The columns of a custom resource: the definition's, or name and age.
pub(super) fn custom(
    kind: &Kind,
    objects: &[&Value],
    now: Timestamp,
) -> (Vec<Value>, Vec<Vec<Value>>) {
    let mut columns = vec![column("Name", "string", false)];
    if kind.columns.is_empty() {
        columns.push(column("Age", "date", false));
        let rows = objects.iter().map(|o| vec![meta(o, "name").into(), age(o, now)]).collect();
        return (columns, rows);
    }
    for spec in &kind.columns {
        let mut made = json!({"format": "", "description": "", "priority": 0});
        for field in ["name", "type", "format", "description", "priority"] {
            if let Some(value) = spec.get(field) {
                made[field] = value.clone();
            }
        }
        columns.push(made);
    }
    let rows = objects
        .iter()
        .map(|object| {
            let mut cells: Vec<Value> = vec![meta(object, "name").into()];
            for spec in &kind.columns {
                let value = json_path(object, spec["jsonPath"].as_str().unwrap_or_default());
                cells.push(match (spec["type"].as_str(), value) {
                    (Some("date"), value) => {
                        value.and_then(|v| v.as_str().map(|s| since(s, now))).unwrap_or(Value::Null)
                    }
                    (_, None) => Value::Null,
                    (Some("string"), Some(Value::String(text))) => text.clone().into(),
                    (Some("string"), Some(other)) => other.to_string().into(),
                    (_, Some(other)) => other.clone(),
                });
            }
            cells
        })
        .collect();
    (columns, rows)
}

/// The `JSONPath` subset of printer columns: dotted names, `[0]`, quoted names in brackets,
/// `[?(@.type=="Ready")]`.
fn json_path<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    if !path.contains('[') && !path.contains('\\') {
        return at_path(object, path);
    }
    let mut value = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (inside, after) = inner.split_once(']')?;
            rest = after;
            if let Some(filter) = inside.strip_prefix("?(@.") {
                let (field, wanted) = filter.trim_end_matches(')').split_once("==")?;
                let wanted = wanted.trim_matches(['"', '\'']);
                value = value.as_array()?.iter().find(|item| item[field] == wanted)?;
            } else if let Ok(index) = inside.parse::<usize>() {
                value = value.get(index)?;
            } else {
                value = value.get(inside.trim_matches(['"', '\'']))?;
            }
        } else {
            let name = rest.trim_start_matches('.');
            let end = name
                .char_indices()
                .find(|(i, c)| matches!(c, '.' | '[') && !name[..*i].ends_with('\\'))
                .map_or(name.len(), |(i, _)| i);
            if end == 0 {
                return None;
            }
            value = value.get(name[..end].replace("\\.", "."))?;
            rest = &name[end..];
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_as_kubectl_shows_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (3600, "60m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (10 * 3600, "10h"),
            (49 * 3600, "2d1h"),
            (9 * 86_400, "9d"),
            (800 * 86_400, "2y70d"),
            (9 * 365 * 86_400, "9y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn json_paths_of_columns() {
        let object = json!({"spec": {"a": [{"b": 1}]}, "status": {"conditions": [
            {"type": "Ready", "status": "True"}]}, "metadata": {"labels": {"x.y/z": "v"}}});
        assert_eq!(json_path(&object, ".spec.a[0].b").unwrap(), 1);
        assert_eq!(
            json_path(&object, ".status.conditions[?(@.type==\"Ready\")].status").unwrap(),
            "True"
        );
        assert_eq!(json_path(&object, ".metadata.labels.x\\.y/z").unwrap(), "v");
        assert!(json_path(&object, ".spec.none").is_none());
    }
}
