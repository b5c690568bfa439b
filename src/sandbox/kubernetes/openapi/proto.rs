//! The protobuf form of an `OpenAPI` 2 document, which kubectl asks for.
//!
//! Messages and field numbers are those of gnostic's `openapiv2` package
//! (<https://github.com/google/gnostic-models>). Only what our documents contain is encoded.

use serde_json::Value;

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.0.push(low);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    fn bytes(&mut self, number: u64, bytes: &[u8]) {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, number: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(number, text.as_bytes());
        }
    }

    fn message(&mut self, number: u64, inner: &Self) {
        self.bytes(number, &inner.0);
    }

    fn flag(&mut self, number: u64, value: bool) {
        if value {
            self.varint(number << 3);
            self.varint(1);
        }
    }
}

fn named(name: &str, value: &Message) -> Message {
    let mut out = Message::default();
    out.bytes(1, name.as_bytes());
    out.message(2, value);
    out
}

/// The document as `openapi.v2.Document`.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    let mut info = Message::default();
    info.text(1, &document["info"]["title"]);
    info.text(2, &document["info"]["version"]);
    out.message(2, &info);
    let mut paths = Message::default();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        paths.message(2, &named(path, &path_item(item)));
    }
    out.message(8, &paths);
    let mut definitions = Message::default();
    for (name, definition) in document["definitions"].as_object().into_iter().flatten() {
        definitions.message(1, &named(name, &schema(definition)));
    }
    out.message(9, &definitions);
    out.0
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (verb, number) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if item[verb].is_object() {
            out.message(number, &operation(&item[verb]));
        }
    }
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.text(5, &operation["operationId"]);
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let mut query = Message::default();
        query.text(2, &parameter["in"]);
        query.text(4, &parameter["name"]);
        query.text(6, &parameter["type"]);
        query.flag(20, parameter["uniqueItems"] == true);
        let mut non_body = Message::default();
        non_body.message(3, &query);
        let mut either = Message::default();
        either.message(2, &non_body);
        let mut item = Message::default();
        item.message(1, &either);
        out.message(8, &item);
    }
    extensions(&mut out, 13, operation);
    out
}

fn schema(definition: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &definition["$ref"]);
    out.text(2, &definition["format"]);
    for name in definition["required"].as_array().into_iter().flatten() {
        out.text(19, name);
    }
    if definition["additionalProperties"].is_object() {
        let mut either = Message::default();
        either.message(1, &schema(&definition["additionalProperties"]));
        out.message(21, &either);
    }
    if definition["type"].is_string() {
        let mut ty = Message::default();
        ty.text(1, &definition["type"]);
        out.message(22, &ty);
    }
    if definition["items"].is_object() {
        let mut items = Message::default();
        items.message(1, &schema(&definition["items"]));
        out.message(23, &items);
    }
    if let Some(fields) = definition["properties"].as_object() {
        let mut properties = Message::default();
        for (name, property) in fields {
            properties.message(1, &named(name, &schema(property)));
        }
        out.message(25, &properties);
    }
    extensions(&mut out, 31, definition);
    out
}

/// Vendor extensions are YAML texts; JSON is YAML.
fn extensions(out: &mut Message, number: u64, object: &Value) {
    for (name, value) in object.as_object().into_iter().flatten() {
        if name.starts_with("x-") {
            let mut any = Message::default();
            any.bytes(2, format!("{value}\n").as_bytes());
            out.message(number, &named(name, &any));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_encoded() {
        let bytes = document(&json!({"swagger": "2.0", "info": {"title": "t", "version": "v"},
            "paths": {}, "definitions": {"A": {"type": "object"}}}));
        assert_eq!(
            bytes,
            b"\x0a\x032.0\x12\x06\x0a\x01t\x12\x01v\x42\x00\x4a\x12\x0a\x10\x0a\x01A\x12\x0b\xb2\x01\x08\x0a\x06object"
                .to_vec()
        );
    }
}
