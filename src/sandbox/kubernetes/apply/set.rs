//! Sets of field paths and their `FieldsV1` form.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Map, Value};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum PathElement {
    /// A field or map key.
    Field(String),
    /// An item of an associative list: canonical JSON of its key fields.
    Key(String),
    /// An item of a set: JSON of the value.
    Value(String),
    /// An item by position.
    Index(usize),
}

impl PathElement {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::Field(rest.to_owned())),
            "k" => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(rest).ok()?;
                Some(Self::Key(serde_json::to_string(&keys).ok()?))
            }
            "v" => {
                let value: Value = serde_json::from_str(rest).ok()?;
                Some(Self::Value(value.to_string()))
            }
            "i" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }

    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn show(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = match self {
            Self::Field(name) => write!(out, ".{name}"),
            Self::Key(keys) => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(out, "[{}]", parts.join(","))
            }
            Self::Value(value) => write!(out, "[={value}]"),
            Self::Index(index) => write!(out, "[{index}]"),
        };
    }
}

/// A set of paths: a tree whose nodes say whether the path that ends there is a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct FieldSet {
    pub(super) nodes: BTreeMap<PathElement, Node>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) member: bool,
    pub(super) below: FieldSet,
}

impl FieldSet {
    /// Whether no path is in it.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds one path.
    pub(in super::super) fn insert(&mut self, path: &[PathElement]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.nodes.entry(first.clone()).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.below.insert(rest);
        }
    }

    /// Whether exactly this one-element path is a member.
    pub(super) fn has(&self, element: &PathElement) -> bool {
        self.nodes.get(element).is_some_and(|n| n.member)
    }

    /// The paths below `element`.
    pub(super) fn below(&self, element: &PathElement) -> Option<&Self> {
        self.nodes.get(element).map(|n| &n.below).filter(|s| !s.is_empty())
    }

    /// Paths of either.
    pub(in super::super) fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        for (element, node) in &other.nodes {
            let mine = out.nodes.entry(element.clone()).or_default();
            mine.member |= node.member;
            mine.below = mine.below.union(&node.below);
        }
        out
    }

    /// Takes the paths of `other` out.
    pub(in super::super) fn subtract(&mut self, other: &Self) {
        for (element, theirs) in &other.nodes {
            let Some(mine) = self.nodes.get_mut(element) else { continue };
            mine.member &= !theirs.member;
            mine.below.subtract(&theirs.below);
            if !mine.member && mine.below.is_empty() {
                self.nodes.remove(element);
            }
        }
    }

    /// Paths of both.
    pub(in super::super) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && b)
    }

    /// Paths of this one that are not in `other`.
    pub(in super::super) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && !b)
    }

    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        let empty = Node::default();
        let mut out = Self::default();
        for (element, node) in &self.nodes {
            let theirs = other.nodes.get(element).unwrap_or(&empty);
            let member = keep(node.member, theirs.member);
            let below = node.below.combine(&theirs.below, keep);
            if member || !below.is_empty() {
                out.nodes.insert(element.clone(), Node { member, below });
            }
        }
        out
    }

    /// Every member as text such as `.spec.containers[name="c"].image`, in the order in which a
    /// server lists conflicts: members of a level before deeper ones.
    pub(in super::super) fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(&mut String::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut String, out: &mut Vec<String>) {
        let length = prefix.len();
        for (element, _) in self.nodes.iter().filter(|(_, n)| n.member) {
            element.show(prefix);
            out.push(prefix.clone());
            prefix.truncate(length);
        }
        for (element, node) in &self.nodes {
            element.show(prefix);
            node.below.collect(prefix, out);
            prefix.truncate(length);
        }
    }

    /// Reads a `fieldsV1` document; unknown elements are left out.
    pub(in super::super) fn from_json(doc: &Value) -> Self {
        let mut out = Self::default();
        for (name, below) in doc.as_object().into_iter().flatten() {
            if name == "." {
                continue;
            }
            let Some(element) = PathElement::parse(name) else { continue };
            let member = match below.as_object() {
                Some(object) => object.is_empty() || object.contains_key("."),
                None => true,
            };
            out.nodes.insert(element, Node { member, below: Self::from_json(below) });
        }
        out
    }

    /// Writes a `fieldsV1` document.
    pub(in super::super) fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (element, node) in &self.nodes {
            let mut below = match node.below.to_json() {
                Value::Object(object) => object,
                _ => Map::new(),
            };
            if node.member && !below.is_empty() {
                below.insert(".".into(), Value::Object(Map::new()));
            }
            out.insert(element.encode(), Value::Object(below));
        }
        Value::Object(out)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_v1_survives_a_round_trip() {
        let doc = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}},
                       "f:finalizers": {"v:\"x\"": {}}}});
        let set = FieldSet::from_json(&doc);
        assert_eq!(set.to_json(), doc);
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.finalizers[=\"x\"]",
                ".spec.ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.ports[containerPort=80,protocol=\"TCP\"].name",
            ]
        );
    }

    #[test]
    fn set_operations() {
        let a = FieldSet::from_json(&json!({"f:a": {".": {}, "f:x": {}}, "f:b": {}}));
        let b = FieldSet::from_json(&json!({"f:a": {"f:x": {}, "f:y": {}}}));
        assert_eq!(a.intersection(&b).paths(), [".a.x"]);
        assert_eq!(a.difference(&b).paths(), [".a", ".b"]);
        assert_eq!(a.union(&b).paths(), [".a", ".b", ".a.x", ".a.y"]);
        assert!(a.difference(&a).is_empty());
        let mut c = a.clone();
        c.subtract(&b);
        assert_eq!(c, a.difference(&b));
        c.subtract(&a);
        assert!(c.is_empty());
    }
}
