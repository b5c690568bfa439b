//! What has a say about an object: its manifest, and everything of a kustomization that changes
//! it on the way into the cluster.

use super::{
    Spot,
    edit::stays_text,
    tree::{Node, Reader, Value},
};

/// One voice.
#[derive(Debug)]
pub(super) struct Layer {
    /// The position of its file.
    pub(super) file: usize,
    /// The line where it begins.
    pub(super) line: usize,
    /// How many lines stand before its text, where that is a text in the file.
    pub(super) shift: usize,
    pub(super) body: Body,
}

/// What kind of voice it is.
#[derive(Debug)]
pub(super) enum Body {
    /// An object in a file, a manifest or a strategic merge patch: the one kind that can change.
    Object(Spot),
    /// A strategic merge patch inside a kustomization.
    Inline(Node),
    /// The operations of a JSON patch (RFC 6902).
    Operations(Node),
    /// `commonLabels`, `labels` or `commonAnnotations` of a kustomization.
    Pairs { annotations: bool, pairs: Node },
    /// A text that is not understood: what it mentions it may change.
    Opaque(String),
}

impl Body {
    /// The words for it.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Object(_) => "a manifest",
            Self::Inline(_) => "an inline patch",
            Self::Operations(_) => "a JSON patch",
            Self::Pairs { annotations: false, .. } => "labels of a kustomization",
            Self::Pairs { annotations: true, .. } => "annotations of a kustomization",
            Self::Opaque(_) => "not understood",
        }
    }
}

/// What a layer says about a key of a map of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) what: What,
    /// The line of its file.
    pub(super) line: usize,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// The key goes.
    Drops,
    /// It has this value; whether every reader takes that for a string.
    Sets { value: String, text: bool },
    /// Something that cannot be told.
    Unclear,
}

impl What {
    pub(super) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Sets { value, text: true } if value == wanted)
    }

    fn of(node: &Node) -> Self {
        match &node.value {
            _ if node.is_null() => Self::Drops,
            Value::Scalar { text, style, tag } => {
                let quoted = *style != granit_parser::ScalarStyle::Plain;
                let text_for_all = tag.is_none() && (quoted || stays_text(text));
                Self::Sets { value: text.clone(), text: text_for_all }
            }
            Value::Map { .. } | Value::List(_) | Value::Alias(_) => Self::Unclear,
        }
    }
}

impl Layer {
    /// What it says about `key` of the map at `path`; none where it says nothing. `documents` are
    /// those of its file.
    pub(super) fn says(&self, documents: &[Node], path: &[&str], key: &str) -> Option<Said> {
        let mut said = match &self.body {
            Body::Object(spot) => {
                let root = documents.get(spot.document)?;
                merged(Reader(root), spot.find(documents)?, path, key)
            }
            Body::Inline(root) => merged(Reader(root), root, path, key),
            Body::Operations(list) => operated(list, path, key),
            Body::Pairs { annotations, pairs } => {
                let theirs = if *annotations { "annotations" } else { "labels" };
                let value = pairs.get(key).filter(|_| path.last() == Some(&theirs))?;
                Some(Said { what: What::of(value), line: value.line })
            }
            Body::Opaque(text) => (text.contains(key) || text.contains(&key.replace('/', "~1")))
                .then_some(Said { what: What::Unclear, line: self.line }),
        }?;
        said.line += self.shift;
        Some(said)
    }
}

/// What a manifest, or a strategic merge patch, makes of a key: `null` and `$patch` take away.
fn merged(reader: Reader<'_>, object: &Node, path: &[&str], key: &str) -> Option<Said> {
    let drops = |node: &Node| Said { what: What::Drops, line: node.line };
    let mut at = object;
    let mut so_far = None;
    for step in path.iter().copied().chain([key]) {
        if reader.get(at, "$patch").is_some() {
            so_far = Some(drops(at));
        }
        let Some(next) = reader.get(at, step) else { return so_far };
        if next.is_null() {
            return Some(drops(next));
        }
        at = next;
    }
    // An alias repeats what stands elsewhere, and it is here that it counts.
    Some(Said { what: What::of(at), line: at.line })
}

/// What the operations of a JSON patch make of a key; the last one decides.
fn operated(list: &Node, path: &[&str], key: &str) -> Option<Said> {
    let full: Vec<&str> = path.iter().copied().chain([key]).collect();
    list.items().iter().filter_map(|item| operation(item, &full)).next_back()
}

fn operation(item: &Node, full: &[&str]) -> Option<Said> {
    let said = |what| Some(Said { what, line: item.line });
    let tokens = |field: &str| -> Option<Vec<String>> {
        let text = item.get(field)?.text()?;
        let text = text.strip_prefix('/').unwrap_or(text);
        Some(text.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
    };
    // Whether a place is the key or one of the maps that it is in.
    let rest = |place: &[String]| -> Option<&[&str]> {
        let (head, rest) = full.split_at_checked(place.len())?;
        place.iter().map(String::as_str).eq(head.iter().copied()).then_some(rest)
    };
    let op = item.get("op").and_then(Node::text)?;
    let from = tokens("from").is_some_and(|from| rest(&from).is_some());
    if from && matches!(op, "move" | "copy") {
        return said(What::Unclear);
    }
    let place = tokens("path")?;
    let rest = rest(&place)?;
    match (op, item.get("value")) {
        ("add" | "replace", Some(value)) => match value.at(rest) {
            Some(value) => said(What::of(value)),
            None => said(What::Drops),
        },
        ("remove", _) => said(What::Drops),
        // What is moved here, or tested: the patch may fail once the place has changed.
        _ => said(What::Unclear),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::manifest::tree;

    const LABELS: &[&str] = &["spec", "template", "metadata", "labels"];

    fn said(text: &str, operations: bool) -> Option<What> {
        let documents = tree::documents(text).unwrap();
        let body = if operations {
            Body::Operations(documents[0].clone())
        } else {
            Body::Object(Spot { document: 0, item: None })
        };
        let layer = Layer { file: 0, line: 1, shift: 0, body };
        layer.says(&documents, LABELS, "a/b").map(|said| said.what)
    }

    fn sets(value: &str) -> What {
        What::Sets { value: value.to_owned(), text: true }
    }

    #[test]
    fn a_patch_sets_drops_or_says_nothing() {
        let labels = |text: &str| format!("spec:\n  template:\n    metadata:\n      {text}\n");
        for (text, what) in [
            (labels("labels: {a/b: \"x\"}"), Some(sets("x"))),
            (labels("labels: {a/b: null}"), Some(What::Drops)),
            (labels("labels: null"), Some(What::Drops)),
            (labels("labels: {c: d}"), None),
            (labels("labels: {$patch: replace, c: d}"), Some(What::Drops)),
            (format!("x: &l {{a/b: \"x\"}}\n{}", labels("labels: *l")), Some(sets("x"))),
            (format!("x: &l {{a/b: \"x\"}}\n{}", labels("labels: {<<: *l}")), Some(sets("x"))),
            ("spec: {replicas: 1}\n".to_owned(), None),
        ] {
            assert_eq!(said(&text, false), what, "{text}");
        }
        // A boolean is no label.
        let plain = said(&labels("labels: {a/b: true}"), false).unwrap();
        assert!(!plain.is("true"), "{plain:?}");
    }

    #[test]
    fn an_operation_counts_for_every_key_below_its_place() {
        let at = "/spec/template/metadata/labels";
        for (text, what) in [
            (format!("- {{op: add, path: {at}/a~1b, value: \"x\"}}"), Some(sets("x"))),
            (format!("- {{op: add, path: {at}, value: {{a/b: \"x\"}}}}"), Some(sets("x"))),
            (format!("- {{op: replace, path: {at}, value: {{c: d}}}}"), Some(What::Drops)),
            (format!("- {{op: remove, path: {at}/a~1b}}"), Some(What::Drops)),
            (format!("- {{op: copy, from: /x, path: {at}/a~1b}}"), Some(What::Unclear)),
            (format!("- {{op: add, path: {at}/c, value: d}}"), None),
            ("- {op: replace, path: /spec/replicas, value: 3}".to_owned(), None),
        ] {
            assert_eq!(said(&text, true), what, "{text}");
        }
    }
}
