//! A JSON document as the world keeps it: compact text, shared by whoever looks at it.
//!
//! A pod parsed into a tree takes ten times the memory of its text, and most requests only pass
//! the text on.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, value::RawValue};

/// An immutable JSON document. Cloning shares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doc(Arc<str>);

impl Doc {
    /// The document that holds `value`.
    pub fn new(value: &Value) -> Self {
        // Every value can be written; this is faster than its `Display`.
        Self(serde_json::to_string(value).unwrap_or_default().into())
    }

    /// The document as compact JSON.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The document, parsed.
    pub fn value(&self) -> Value {
        // The text was written from a value of the same library.
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// The part of the document that `T` describes; the rest is only skipped. `None` where the
    /// document does not have that shape.
    pub fn part<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_str(&self.0).ok()
    }

    /// Whether both are the same document in memory.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Whether a value from a client is nested deeper than anything real, and too deep to be read back
/// from the world's files.
pub(super) fn is_too_deep(value: &Value) -> bool {
    fn deeper(value: &Value, left: usize) -> bool {
        let Some(left) = left.checked_sub(1) else { return true };
        match value {
            Value::Array(items) => items.iter().any(|item| deeper(item, left)),
            Value::Object(fields) => fields.values().any(|item| deeper(item, left)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
    deeper(value, DEEPEST)
}

/// JSON is read to a depth of 128; the files add some levels.
const DEEPEST: usize = 100;

impl Serialize for Doc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Doc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Through a value: what is kept can be parsed, whatever the file said.
        Value::deserialize(deserializer).map(|value| Self::new(&value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn depth_is_counted() {
        let nested =
            |depth: usize| (1..depth).fold(json!(1), |inner, _| json!({"a": [], "b": inner}));
        assert!(!is_too_deep(&nested(DEEPEST)));
        assert!(is_too_deep(&nested(DEEPEST + 1)));
    }

    #[test]
    fn a_document_survives_files_and_shows_its_parts() {
        #[derive(Deserialize, PartialEq, Debug)]
        struct Part<'a> {
            #[serde(borrow)]
            b: Vec<&'a str>,
        }
        let value = json!({"a": {"x": 1.5}, "b": ["c", "d"], "e": null});
        let doc = Doc::new(&value);
        assert_eq!(doc.value(), value);
        assert_eq!(doc.part(), Some(Part { b: vec!["c", "d"] }));
        let text = serde_json::to_string(&vec![&doc]).unwrap();
        assert_eq!(text, format!("[{value}]"));
        let again: Vec<Doc> = serde_json::from_str(&text).unwrap();
        assert_eq!(again.len(), 1);
        assert_eq!(again[0], doc);
        assert!(doc.is(&doc.clone()) && !doc.is(&again[0]));
    }
}
