//! A YAML file as trees with places, one for each document, so that a file can be changed at a
//! place and nowhere else.

use std::{collections::BTreeMap, ops::Range};

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, StructureStyle};

/// A file that is not YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub(super) struct NotYaml {
    /// The line, from 1.
    pub(super) line: usize,
    /// What is wrong with it.
    pub(super) message: String,
}

/// A node and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Bytes of the file: of a scalar or an alias all of it, of a collection where it begins.
    pub(super) span: Range<usize>,
    /// The line, from 1.
    pub(super) line: usize,
    /// Its anchor, by which other places may repeat it.
    pub(super) anchor: Option<usize>,
    pub(super) value: Value,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A scalar; its tag, if it has one.
    Scalar { text: String, style: ScalarStyle, tag: Option<String> },
    /// A mapping; `flow` is `{...}`.
    Map { flow: bool, entries: Vec<(Node, Node)> },
    /// A sequence.
    List(Vec<Node>),
    /// A repetition of the node with this anchor.
    Alias(usize),
}

/// What a node says, without where and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Data {
    /// A scalar: its text, whether it is plain, which decides about its type, and its tag.
    Scalar(String, bool, Option<String>),
    Map(BTreeMap<Self, Self>),
    List(Vec<Self>),
    Alias(usize),
}

impl Data {
    /// A string that cannot be taken for anything else.
    pub(super) fn quoted(text: &str) -> Self {
        Self::Scalar(text.to_owned(), false, None)
    }

    /// A key as people write it.
    pub(super) fn plain(text: &str) -> Self {
        Self::Scalar(text.to_owned(), true, None)
    }
}

impl Node {
    pub(super) fn data(&self) -> Data {
        match &self.value {
            Value::Scalar { text, style, tag } => {
                Data::Scalar(text.clone(), *style == ScalarStyle::Plain, tag.clone())
            }
            Value::Map { entries, .. } => {
                Data::Map(entries.iter().map(|(key, value)| (key.data(), value.data())).collect())
            }
            Value::List(items) => Data::List(items.iter().map(Self::data).collect()),
            Value::Alias(id) => Data::Alias(*id),
        }
    }

    /// Whether it says nothing at all, or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, style: ScalarStyle::Plain, tag: None }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The items of a sequence; none of anything else.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            Value::Scalar { .. } | Value::Map { .. } | Value::Alias(_) => &[],
        }
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Map { .. } | Value::List(_) | Value::Alias(_) => None,
        }
    }

    /// The value of a key of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map { entries, .. } = &self.value else { return None };
        entries.iter().find(|(have, _)| have.text() == Some(key)).map(|(_, value)| value)
    }

    /// The node at the end of a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text at the end of a path.
    pub(super) fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.text()
    }
}

/// A document as its readers take it: aliases are followed and `<<` is merged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a Node);

impl<'a> Reader<'a> {
    /// The node that an alias repeats.
    fn resolved(self, node: &'a Node) -> &'a Node {
        let Value::Alias(id) = node.value else { return node };
        anchored(self.0, id).unwrap_or(node)
    }

    /// The value of a key of a mapping.
    pub(super) fn get(self, node: &'a Node, key: &str) -> Option<&'a Node> {
        let node = self.resolved(node);
        let merged = || {
            let from = self.resolved(node.get("<<")?);
            let listed = from.items().iter().find_map(|one| self.resolved(one).get(key));
            from.get(key).or(listed)
        };
        node.get(key).or_else(merged).map(|value| self.resolved(value))
    }
}

fn anchored(node: &Node, id: usize) -> Option<&Node> {
    if node.anchor == Some(id) {
        return Some(node);
    }
    match &node.value {
        Value::Map { entries, .. } => entries
            .iter()
            .find_map(|(key, value)| anchored(key, id).or_else(|| anchored(value, id))),
        Value::List(items) => items.iter().find_map(|item| anchored(item, id)),
        Value::Scalar { .. } | Value::Alias(_) => None,
    }
}

type Events<'a> = Parser<'a, StrInput<'a>>;

/// The documents of a file. A mapping with a key that stands twice is refused: readers differ in
/// which one they take.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, NotYaml> {
    let mut events = Parser::new_from_str(text);
    let mut found = Vec::new();
    loop {
        match next(&mut events)? {
            (Event::StreamEnd, _) => return Ok(found),
            (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
            (event, span) => found.push(node(&mut events, &event, span)?),
        }
    }
}

fn next<'a>(events: &mut Events<'a>) -> Result<(Event<'a>, Span), NotYaml> {
    loop {
        match events.next_event() {
            Some(Ok((Event::Comment(..), _))) => {}
            Some(Ok(next)) => return Ok(next),
            Some(Err(error)) => {
                let line = error.marker().line().max(1);
                return Err(NotYaml { line, message: error.info() });
            }
            None => {
                return Err(NotYaml { line: 1, message: "it ends in the middle".to_owned() });
            }
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser's events are open-ended, and the rest are no nodes"
)]
fn node(events: &mut Events<'_>, event: &Event<'_>, span: Span) -> Result<Node, NotYaml> {
    let line = span.start.line().max(1);
    let broken = |message: &str| NotYaml { line, message: message.to_owned() };
    let range = span.byte_range().ok_or_else(|| broken("it has no place in the file"))?;
    let anchor = event.anchor_id().filter(|id| *id > 0);
    let tag = event.tag().map(ToString::to_string);
    let value = match event {
        Event::Scalar(text, style, ..) => {
            // The parser gives what is not written at all as `~`.
            let text = if range.is_empty() { String::new() } else { text.to_string() };
            Value::Scalar { text, style: *style, tag }
        }
        Event::Alias(id) => Value::Alias(*id),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match next(events)? {
                    (Event::SequenceEnd, _) => break Value::List(items),
                    (event, span) => items.push(node(events, &event, span)?),
                }
            }
        }
        Event::MappingStart(style, ..) => {
            let flow = *style == StructureStyle::Flow;
            let mut entries: Vec<(Node, Node)> = Vec::new();
            loop {
                let key = match next(events)? {
                    (Event::MappingEnd, _) => break Value::Map { flow, entries },
                    (event, span) => node(events, &event, span)?,
                };
                let twice = |known: &(Node, Node)| known.0.text() == key.text();
                if let Some(text) = key.text().filter(|_| entries.iter().any(twice)) {
                    let message = format!("key `{text}` stands twice");
                    return Err(NotYaml { line: key.line, message });
                }
                let (event, span) = next(events)?;
                let value = node(events, &event, span)?;
                entries.push((key, value));
            }
        }
        _ => return Err(broken("it is not a node")),
    };
    Ok(Node { span: range, line, anchor, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_know_their_places_whatever_stands_around_them() {
        let text = "# ü\r\na:\r\n  b: \"x y\" # why\r\n---\n- {k: v}\n- &n z\n- *n\n";
        let found = documents(text).unwrap();
        assert_eq!(found.len(), 2);
        let value = found[0].at(&["a", "b"]).unwrap();
        assert_eq!((&text[value.span.clone()], value.line), ("\"x y\"", 3));
        let Value::List(items) = &found[1].value else { panic!("{:?}", found[1]) };
        assert_eq!(&text[items[0].get("k").unwrap().span.clone()], "v");
        assert!(items[1].anchor.is_some() && matches!(items[2].value, Value::Alias(_)));
    }

    #[test]
    fn what_is_not_yaml_is_told_with_its_line() {
        let template = "metadata:\n  labels:\n    {{- include \"x\" . | nindent 4 }}\n";
        assert_eq!(documents(template).unwrap_err().line, 3);
        let twice = documents("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(twice.to_string(), "line 3: key `a` stands twice");
    }
}
