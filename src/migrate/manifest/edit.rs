//! Changing a map of strings in a YAML file where it stands: whole lines come and go, nothing else
//! moves. What was written is read again and compared with what was wanted.

use std::{collections::BTreeMap, ops::Range};

use super::tree::{self, Data, Node, Value};

/// What a map of strings is to hold and not to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Entries it must have.
    pub set: BTreeMap<String, String>,
    /// Keys it must not have.
    pub remove: Vec<String>,
}

/// Where an object stands in a file: its document, and its item where that is a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) document: usize,
    pub(super) item: Option<usize>,
}

impl Spot {
    pub(super) fn find(self, documents: &[Node]) -> Option<&Node> {
        let root = documents.get(self.document)?;
        let Some(item) = self.item else { return Some(root) };
        match &root.get("items")?.value {
            Value::List(items) => items.get(item),
            Value::Scalar { .. } | Value::Map { .. } | Value::Alias(_) => None,
        }
    }

    fn find_data(self, documents: &mut [Data]) -> Option<&mut Data> {
        let root = documents.get_mut(self.document)?;
        let Some(item) = self.item else { return Some(root) };
        let Data::Map(entries) = root else { return None };
        match entries.iter_mut().find(|(key, _)| is(key, "items"))?.1 {
            Data::List(items) => items.get_mut(item),
            Data::Scalar(..) | Data::Map(_) | Data::Alias(_) => None,
        }
    }
}

fn is(key: &Data, text: &str) -> bool {
    matches!(key, Data::Scalar(have, ..) if have == text)
}

/// One replacement of bytes.
#[derive(Debug)]
struct Patch {
    range: Range<usize>,
    text: String,
}

/// The file with the map at `path` of the object at `spot` as wanted; none where it is so already.
/// An error says why this cannot be done without touching anything else.
pub(super) fn apply(
    text: &str,
    spot: Spot,
    path: &[&str],
    fields: &Fields,
) -> Result<Option<String>, String> {
    let before = tree::documents(text).map_err(|error| error.to_string())?;
    let object = spot.find(&before).ok_or("it is not there any more")?;
    let patches = patches(text, object, path, fields)?;
    if patches.is_empty() {
        return Ok(None);
    }
    let mut after = text.to_owned();
    for patch in patches.iter().rev() {
        after.replace_range(patch.range.clone(), &patch.text);
    }
    let mut wanted: Vec<Data> = before.iter().map(Node::data).collect();
    let object = spot.find_data(&mut wanted).ok_or("it is not there any more")?;
    expect(object, path, fields)?;
    let read = tree::documents(&after).map_err(|error| format!("the result is broken: {error}"))?;
    let have: Vec<Data> = read.iter().map(Node::data).collect();
    if have != wanted {
        return Err("the result would say something else too".to_owned());
    }
    Ok(Some(after))
}

/// What the data must be afterwards.
fn expect(object: &mut Data, path: &[&str], fields: &Fields) -> Result<(), String> {
    let not_a_map = || "it is not a map".to_owned();
    let mut at = object;
    for key in path {
        let Data::Map(entries) = at else { return Err(not_a_map()) };
        let known = entries.keys().find(|have| is(have, key)).cloned();
        let known = known.unwrap_or_else(|| Data::plain(key));
        at = entries.entry(known).or_insert_with(|| Data::Map(BTreeMap::new()));
        if matches!(at, Data::Scalar(text, true, None) if text.is_empty()) {
            *at = Data::Map(BTreeMap::new());
        }
    }
    let Data::Map(entries) = at else { return Err(not_a_map()) };
    for key in &fields.remove {
        entries.retain(|have, _| !is(have, key));
    }
    for (key, value) in &fields.set {
        let known = entries.keys().find(|have| is(have, key)).cloned();
        let known = known.unwrap_or_else(|| Data::plain(key));
        match entries.get(&known) {
            // As it is to be, in whatever quotes.
            Some(Data::Scalar(have, false, None)) if have == value => {}
            Some(Data::Scalar(have, true, None)) if have == value && stays_text(value) => {}
            _ => {
                entries.insert(known, Data::quoted(value));
            }
        }
    }
    Ok(())
}

/// Whether a plain scalar of this text is a string for every reader: a GUID with its hyphens is,
/// `true` and `1e3` are not.
pub(super) fn stays_text(text: &str) -> bool {
    text.contains('-') && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() == 36
}

fn patches(
    text: &str,
    object: &Node,
    path: &[&str],
    fields: &Fields,
) -> Result<Vec<Patch>, String> {
    let mut at = object;
    for (depth, key) in path.iter().enumerate() {
        let Value::Map { flow, entries } = &at.value else {
            return Err(unfit(at, &path[..depth]));
        };
        if *flow || at.anchor.is_some() {
            return Err(unfit(at, &path[..depth]));
        }
        let Some((name, value)) = entries.iter().find(|(have, _)| have.text() == Some(*key)) else {
            let lines = nested(&path[depth..], fields);
            let shown = path[..depth].join(".");
            return if lines.is_empty() {
                Ok(Vec::new())
            } else {
                insert(text, entries, &shown, &lines, None).map(|patch| vec![patch])
            };
        };
        if is_empty(value) {
            let lines = nested(&path[depth + 1..], fields);
            return fill(text, name, value, &lines);
        }
        at = value;
    }
    let Value::Map { flow: false, entries } = &at.value else { return Err(unfit(at, path)) };
    if at.anchor.is_some() || entries.iter().any(|(key, _)| key.text() == Some("<<")) {
        return Err(unfit(at, path));
    }
    within(text, entries, path, fields)
}

/// Nothing at all, or `{}`.
fn is_empty(node: &Node) -> bool {
    node.anchor.is_none()
        && match &node.value {
            Value::Scalar { text, tag, .. } => text.is_empty() && tag.is_none(),
            Value::Map { flow, entries } => *flow && entries.is_empty(),
            Value::List(_) | Value::Alias(_) => false,
        }
}

/// Why a node on the way cannot be changed in place.
fn unfit(node: &Node, path: &[&str]) -> String {
    let path = if path.is_empty() { "the object".to_owned() } else { path.join(".") };
    let why = match &node.value {
        _ if node.anchor.is_some() => "has an anchor: a change would show elsewhere, too",
        Value::Map { flow: true, .. } => "is in flow style, `{...}`",
        Value::Map { .. } => "takes entries from elsewhere (`<<`)",
        Value::Alias(_) => "is an alias: what it repeats stands elsewhere",
        Value::Scalar { .. } | Value::List(_) => "is not a map",
    };
    format!("line {}: {path} {why}", node.line)
}

/// The entries as lines, inside maps of these names, each level two columns further in.
fn nested(names: &[&str], fields: &Fields) -> Vec<String> {
    if fields.set.is_empty() {
        return Vec::new();
    }
    let mut lines: Vec<String> =
        names.iter().enumerate().map(|(n, name)| format!("{}{name}:", " ".repeat(2 * n))).collect();
    let inner = " ".repeat(2 * names.len());
    lines.extend(fields.set.iter().map(|(key, value)| format!("{inner}{}", entry(key, value))));
    lines
}

/// An entry as it is written.
pub(super) fn entry(key: &str, value: &str) -> String {
    format!("{key}: {}", quoted(value))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The line that holds a byte: where it begins, and where the next one does.
fn line_of(text: &str, at: usize) -> Range<usize> {
    let start = text[..at].rfind('\n').map_or(0, |n| n + 1);
    let end = text[at..].find('\n').map_or(text.len(), |n| at + n + 1);
    start..end
}

/// The line break that a line has; of a last line without one, that of the first line.
fn line_break(text: &str, line: &Range<usize>) -> &'static str {
    let first = || text.split_inclusive('\n').next().unwrap_or_default();
    let line = &text[line.clone()];
    let like = if line.ends_with('\n') { line } else { first() };
    if like.ends_with("\r\n") { "\r\n" } else { "\n" }
}

/// Whether an entry fills exactly the line its key is on.
fn on_one_line(text: &str, (key, value): &(Node, Node)) -> bool {
    let line = line_of(text, key.span.start);
    matches!(value.value, Value::Scalar { .. } | Value::Alias(_))
        && value.span.end <= line.end
        && text[line.start..key.span.start].chars().all(|c| c == ' ')
        && {
            let rest = text[value.span.end.max(key.span.end)..line.end].trim();
            let rest = rest.strip_prefix(':').unwrap_or(rest).trim();
            rest.is_empty() || rest.starts_with('#')
        }
}

fn whole_lines(lines: &[String], indent: &str, end: &str) -> String {
    lines.iter().flat_map(|line| [indent, line.as_str(), end]).collect()
}

/// Puts lines into a map: after `after`, or its last entry that fills a line, or before the first.
fn insert(
    text: &str,
    entries: &[(Node, Node)],
    path: &str,
    lines: &[String],
    after: Option<&(Node, Node)>,
) -> Result<Patch, String> {
    let Some((first, _)) = entries.first() else { return Err(format!("{path} is empty")) };
    let line = line_of(text, first.span.start);
    let indent = text[line.start..first.span.start].chars().count();
    let indent = " ".repeat(indent);
    let last = || entries.last().filter(|entry| on_one_line(text, entry));
    if let Some((key, _)) = after.or_else(last) {
        let line = line_of(text, key.span.start);
        let end = line_break(text, &line);
        let lines: Vec<String> = lines.iter().map(|line| format!("{indent}{line}")).collect();
        let mut new = lines.join(end);
        if text[line.clone()].ends_with('\n') {
            new.push_str(end);
        } else if after.is_none() {
            // The last line of the file, which has no end and stays.
            new.insert_str(0, end);
        }
        return Ok(Patch { range: line.end..line.end, text: new });
    }
    if text[line.start..first.span.start].chars().any(|c| c != ' ') {
        return Err(format!("line {}: {path} begins in the middle of a line", first.line));
    }
    let end = line_break(text, &line);
    Ok(Patch { range: line.start..line.start, text: whole_lines(lines, &indent, end) })
}

/// Gives a key that has nothing, or `{}`, these lines.
fn fill(text: &str, name: &Node, value: &Node, lines: &[String]) -> Result<Vec<Patch>, String> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let line = line_of(text, name.span.start);
    let shown = name.text().unwrap_or_default();
    let refused = || format!("line {}: {shown} is not on a line of its own", name.line);
    if text[line.start..name.span.start].chars().any(|c| c != ' ') || value.span.end > line.end {
        return Err(refused());
    }
    let rest = &text[name.span.end..line.end];
    let after = rest.trim_start().strip_prefix(':').ok_or_else(refused)?;
    let flow = matches!(value.value, Value::Map { .. });
    let comment =
        if flow { after.trim_start().strip_prefix("{}").ok_or_else(refused)? } else { after };
    let comment = comment.trim_end();
    if !comment.trim().is_empty() && !comment.trim_start().starts_with('#') {
        return Err(refused());
    }
    let indent = " ".repeat(name.span.start - line.start + 2);
    let end = line_break(text, &line);
    let mut new = format!(":{comment}{end}");
    new.push_str(&whole_lines(lines, &indent, end));
    if !rest.ends_with('\n') {
        new.truncate(new.len() - end.len());
    }
    Ok(vec![Patch { range: name.span.end..line.end, text: new }])
}

/// Changes the entries of a map that is there.
fn within(
    text: &str,
    entries: &[(Node, Node)],
    path: &[&str],
    fields: &Fields,
) -> Result<Vec<Patch>, String> {
    let shown = path.join(".");
    let mut patches = Vec::new();
    let mut gone = None;
    for key in &fields.remove {
        let Some(found) = entries.iter().find(|(have, _)| have.text() == Some(key)) else {
            continue;
        };
        if !on_one_line(text, found) || found.0.anchor.is_some() || found.1.anchor.is_some() {
            return Err(format!("line {}: {key} is not on a line of its own", found.0.line));
        }
        gone = Some(found);
        patches.push(Patch { range: line_of(text, found.0.span.start), text: String::new() });
    }
    let mut lines = Vec::new();
    for (key, value) in &fields.set {
        let found = entries.iter().find(|(have, _)| have.text() == Some(key));
        let Some(found @ (name, have)) = found else {
            lines.push(entry(key, value));
            continue;
        };
        let plain = matches!(have.data(), Data::Scalar(_, true, _));
        let tagged = matches!(have.data(), Data::Scalar(_, _, Some(_)));
        if have.text() == Some(value) && !tagged && (!plain || stays_text(value)) {
            continue;
        }
        if !on_one_line(text, found) || have.anchor.is_some() || tagged {
            return Err(format!("line {}: {key} is not on a line of its own", name.line));
        }
        if is_empty(have) {
            return Err(format!("line {}: {key} is empty", name.line));
        }
        patches.push(Patch { range: have.span.clone(), text: quoted(value) });
    }
    if !lines.is_empty() {
        patches.push(insert(text, entries, &shown, &lines, gone)?);
    }
    // What goes stands before what comes after it.
    patches.sort_by_key(|patch| (patch.range.start, patch.range.end));
    Ok(patches)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: &[&str] = &["spec", "template", "metadata", "labels"];
    const ANNOTATIONS: &[&str] = &["metadata", "annotations"];

    fn switch() -> Fields {
        let label = ("azure.workload.identity/use".to_owned(), "true".to_owned());
        Fields { set: BTreeMap::from([label]), remove: vec!["aadpodidbinding".to_owned()] }
    }

    fn point() -> Fields {
        Fields { set: BTreeMap::from([("c".to_owned(), "1".to_owned())]), remove: Vec::new() }
    }

    const TOP: Spot = Spot { document: 0, item: None };

    fn labels(text: &str) -> Result<Option<String>, String> {
        apply(text, TOP, LABELS, &switch())
    }

    #[test]
    fn one_label_takes_the_line_of_the_other_and_nothing_else_moves() {
        let text = "# app\nspec:\n  template:\n    metadata:\n      labels:  # all\n        # old\n\
                    \x20       aadpodidbinding: api # gone\n        app: x # kept\n    spec: {}\n";
        let after = labels(text).unwrap().unwrap();
        let line = "        aadpodidbinding: api # gone\n";
        let new = "        azure.workload.identity/use: \"true\"\n";
        assert_eq!(after, text.replace(line, new));
        assert_eq!(labels(&after).unwrap(), None, "a second time there is nothing to do");
    }

    #[test]
    fn line_breaks_and_a_missing_last_one_stay_as_they_are() {
        let text = "spec:\r\n  template:\r\n    metadata:\r\n      labels:\r\n        app: x\r\n\
                    \x20       aadpodidbinding: api";
        let after = labels(text).unwrap().unwrap();
        let new = "azure.workload.identity/use: \"true\"";
        assert_eq!(after, text.replace("aadpodidbinding: api", new));
    }

    #[test]
    fn maps_that_are_missing_or_empty_are_made() {
        let with = |rest: &str| format!("kind: ServiceAccount\nmetadata:\n  name: api{rest}");
        let made = "\n  annotations:\n    c: \"1\"\n";
        for (before, after) in [
            (with("\n"), with(made)),
            (with(""), with(made.trim_end())),
            (with("\n  annotations: {}\n"), with(made)),
            (with("\n  annotations:\n"), with(made)),
            (
                with("\n  annotations: {} # none\n  x: y\n"),
                with("\n  annotations: # none\n    c: \"1\"\n  x: y\n"),
            ),
            (
                with("\n  annotations:\n    c: 1 # number\n"),
                with("\n  annotations:\n    c: \"1\" # number\n"),
            ),
            (
                with("\n  annotations:\n    text: |\n      a\n      b\n  x: y\n"),
                with("\n  annotations:\n    c: \"1\"\n    text: |\n      a\n      b\n  x: y\n"),
            ),
        ] {
            assert_eq!(apply(&before, TOP, ANNOTATIONS, &point()), Ok(Some(after)), "{before}");
        }
    }

    #[test]
    fn an_item_of_a_list_and_a_later_document_are_found() {
        let text =
            "a: b\n---\nkind: List\nitems:\n- metadata:\n    name: x\n- metadata:\n    name: y\n";
        let spot = Spot { document: 1, item: Some(1) };
        let after = apply(text, spot, ANNOTATIONS, &point()).unwrap().unwrap();
        assert_eq!(after, format!("{text}    annotations:\n      c: \"1\"\n"));
    }

    #[test]
    fn what_cannot_be_changed_alone_is_refused_with_its_line() {
        let spec = |labels: &str| format!("spec:\n  template:\n    metadata:\n      {labels}\n");
        for (text, why) in [
            (
                spec("labels: {app: x, aadpodidbinding: y}"),
                "line 4: spec.template.metadata.labels is in flow style",
            ),
            (spec("labels: &l\n        app: x"), "has an anchor"),
            (format!("x: &l\n  a: b\n{}", spec("labels: *l")), "is an alias"),
            (
                format!("x: &l\n  a: b\n{}", spec("labels:\n        <<: *l")),
                "takes entries from elsewhere",
            ),
            (
                spec("labels:\n        aadpodidbinding: >-\n          y"),
                "line 5: aadpodidbinding is not on a line of its own",
            ),
            ("spec: {template: {}}\n".to_owned(), "line 1: spec is in flow style"),
            (spec("labels: text"), "is not a map"),
        ] {
            let refused = labels(&text).unwrap_err();
            assert!(refused.contains(why), "{refused}\n{text}");
        }
    }
}
