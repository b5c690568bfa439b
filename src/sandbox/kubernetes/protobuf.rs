//! Decoding of request bodies in Kubernetes' protobuf encoding, which newer kubectl sends for the
//! objects that it builds itself.
//!
//! The envelope is `k8s\0` and a `runtime.Unknown`
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>). The field
//! numbers are in `schema/wire.txt`: for each message its fields in the order of their numbers, `-`
//! for a number that is not used, `~Message` for one whose fields stand in the parent in JSON.

use std::{collections::BTreeMap, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    objects::stamp,
    schema::{Scalar, Shape, Type},
};

static MESSAGES: LazyLock<BTreeMap<String, Vec<&'static str>>> = LazyLock::new(|| {
    let mut messages: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    let (mut group, mut current) = ("", String::new());
    for line in include_str!("schema/wire.txt").lines() {
        if let Some(name) = line.strip_prefix('%') {
            group = name;
            continue;
        }
        let mut words = line.split_whitespace();
        if !line.starts_with(' ') {
            current = format!("{group}.{}", words.next().unwrap_or_default());
        }
        messages.entry(current.clone()).or_default().extend(words);
    }
    messages
});

/// A field as it stands on the wire.
enum Field<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    /// The next field, `Ok(None)` at the end.
    fn field(&mut self) -> Result<Option<(usize, Field<'a>)>, ()> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint().ok_or(())?;
        let number = usize::try_from(tag >> 3).map_err(|_| ())?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint().ok_or(())?),
            1 => Field::Fixed(little(self.take(8).ok_or(())?)),
            2 => {
                let length = self.varint().and_then(|l| usize::try_from(l).ok()).ok_or(())?;
                Field::Bytes(self.take(length).ok_or(())?)
            }
            5 => Field::Fixed(little(self.take(4).ok_or(())?)),
            _ => return Err(()),
        };
        Ok(Some((number, field)))
    }
}

fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

/// Decodes an enveloped object; `group/version.Kind` to shape by the table of types.
pub(super) fn decode(body: &[u8]) -> Result<Value, String> {
    let bad = || "the protobuf body is damaged".to_owned();
    let envelope = body.strip_prefix(b"k8s\0").ok_or_else(bad)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader { rest: envelope };
    while let Some((number, field)) = reader.field().map_err(|()| bad())? {
        match (number, field) {
            (1, Field::Bytes(meta)) => {
                let mut reader = Reader { rest: meta };
                while let Some((number, field)) = reader.field().map_err(|()| bad())? {
                    match (number, field) {
                        (1, Field::Bytes(text)) => api_version = utf8(text),
                        (2, Field::Bytes(text)) => kind = utf8(text),
                        _ => {}
                    }
                }
            }
            (2, Field::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let name = type_name(&api_version, &kind);
    if !MESSAGES.contains_key(&name) {
        return Err(format!(
            "no kind \"{kind}\" is registered for version \"{api_version}\" in protobuf"
        ));
    }
    let mut object = message(raw, &name, &Type::named(&name)).ok_or_else(bad)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `rbac.authorization.k8s.io/v1` and `Role` to `rbac/v1.Role`.
fn type_name(api_version: &str, kind: &str) -> String {
    if kind == "DeleteOptions" {
        return "meta/v1.DeleteOptions".to_owned();
    }
    match api_version.split_once('/') {
        None => format!("core/{api_version}.{kind}"),
        Some((group, version)) => {
            let folder = group.split('.').next().unwrap_or_default();
            format!("{folder}/{}.{kind}", version.replace("v1beta1", "v1"))
        }
    }
}

/// The fields of one message; `ty` is the shape of the JSON object that they become part of.
fn message(bytes: &[u8], name: &str, ty: &Type) -> Option<Map<String, Value>> {
    let names = MESSAGES.get(name)?;
    let group = name.split('.').next().unwrap_or_default();
    let mut out = Map::new();
    let mut reader = Reader { rest: bytes };
    while let Some((number, field)) = reader.field().ok()? {
        let Some(json_name) = number.checked_sub(1).and_then(|i| names.get(i)) else { continue };
        if *json_name == "-" {
            continue;
        }
        if let Some(inline) = json_name.strip_prefix('~') {
            if let Field::Bytes(bytes) = field {
                out.extend(message(bytes, &format!("{group}.{inline}"), ty)?);
            }
            continue;
        }
        let Some(field_type) = ty.field(json_name) else { continue };
        match field_type.shape() {
            Shape::List(list) => {
                let item = value(&field, &list.item)?;
                match out.entry((*json_name).to_owned()).or_insert_with(|| json!([])) {
                    Value::Array(items) => items.push(item),
                    _ => return None,
                }
            }
            Shape::Map(item, _) => {
                let Field::Bytes(entry) = field else { return None };
                let (key, item) = map_entry(entry, item)?;
                out.entry((*json_name).to_owned()).or_insert_with(|| json!({}))[key] = item;
            }
            _ => {
                let decoded = value(&field, field_type)?;
                let empty = match &decoded {
                    Value::String(text) => text.is_empty(),
                    Value::Null => true,
                    _ => false,
                };
                if !empty {
                    out.insert((*json_name).to_owned(), decoded);
                }
            }
        }
    }
    Some(out)
}

fn map_entry(entry: &[u8], item: &Type) -> Option<(String, Value)> {
    let (mut key, mut decoded) = (String::new(), Value::Null);
    let mut reader = Reader { rest: entry };
    while let Some((number, field)) = reader.field().ok()? {
        match (number, &field) {
            (1, Field::Bytes(text)) => key = utf8(text),
            (2, field) => decoded = value(field, item)?,
            _ => {}
        }
    }
    if decoded.is_null() && matches!(item, Type::Scalar(Scalar::String | Scalar::Bytes)) {
        decoded = "".into();
    }
    Some((key, decoded))
}

fn value(field: &Field<'_>, ty: &Type) -> Option<Value> {
    let signed = |v: u64| Value::from(v.cast_signed());
    match (ty.shape(), field) {
        (Shape::Scalar(Scalar::String), Field::Bytes(text)) => Some(utf8(text).into()),
        (Shape::Scalar(Scalar::Bytes), Field::Bytes(bytes)) => Some(STANDARD.encode(bytes).into()),
        (Shape::Scalar(Scalar::Int32 | Scalar::Int64), Field::Varint(v)) => Some(signed(*v)),
        (Shape::Scalar(Scalar::Bool), Field::Varint(v)) => Some((*v != 0).into()),
        (Shape::Scalar(Scalar::Number), Field::Fixed(v)) => Some(f64::from_bits(*v).into()),
        (Shape::Scalar(Scalar::Time | Scalar::MicroTime), Field::Bytes(bytes)) => Some(time(bytes)),
        (Shape::Scalar(Scalar::Quantity), Field::Bytes(bytes)) => {
            let mut reader = Reader { rest: bytes };
            match reader.field().ok()? {
                Some((1, Field::Bytes(text))) => Some(utf8(text).into()),
                _ => Some("0".into()),
            }
        }
        (Shape::Scalar(Scalar::IntOrString), Field::Bytes(bytes)) => int_or_string(bytes),
        (Shape::Any, Field::Bytes(bytes)) => {
            let mut reader = Reader { rest: bytes };
            match reader.field().ok()? {
                Some((1, Field::Bytes(raw))) => serde_json::from_slice(raw).ok(),
                _ => Some(Value::Null),
            }
        }
        (Shape::List(list), Field::Bytes(bytes)) => {
            // A list inside a list or a map has a message of its own, its items are field 1.
            let mut items = Vec::new();
            let mut reader = Reader { rest: bytes };
            while let Some((_, field)) = reader.field().ok()? {
                items.push(value(&field, &list.item)?);
            }
            Some(items.into())
        }
        (Shape::Struct(_), Field::Bytes(bytes)) => {
            let Type::Named(name) = ty else { return None };
            // A message that the table does not number is read as empty.
            if !MESSAGES.contains_key(&**name) {
                return Some(json!({}));
            }
            message(bytes, name, ty).map(Value::Object)
        }
        _ => None,
    }
}

fn time(bytes: &[u8]) -> Value {
    let mut reader = Reader { rest: bytes };
    let mut seconds = None;
    while let Ok(Some((number, field))) = reader.field() {
        if let (1, Field::Varint(v)) = (number, field) {
            seconds = Some(v.cast_signed());
        }
    }
    match seconds.and_then(|s| Timestamp::from_second(s).ok()) {
        Some(at) => stamp(at).into(),
        None => Value::Null,
    }
}

fn int_or_string(bytes: &[u8]) -> Option<Value> {
    let mut reader = Reader { rest: bytes };
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    while let Some((field_number, field)) = reader.field().ok()? {
        match (field_number, field) {
            (1, Field::Varint(v)) => is_text = v == 1,
            (2, Field::Varint(v)) => number = v.cast_signed(),
            (3, Field::Bytes(t)) => text = utf8(t),
            _ => {}
        }
    }
    Some(if is_text { text.into() } else { number.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![(number << 3) | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend(bytes);
        out
    }

    #[test]
    fn a_namespace_is_read() {
        let type_meta = [field(1, b"v1"), field(2, b"Namespace")].concat();
        let labels = field(11, &[field(1, b"a"), field(2, b"b")].concat());
        let metadata = field(1, &[field(1, b"x"), labels, field(8, b"")].concat());
        let body = [b"k8s\0".to_vec(), field(1, &type_meta), field(2, &metadata)].concat();
        assert_eq!(
            decode(&body).unwrap(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"a": "b"}}})
        );
        assert!(decode(&body[..body.len() - 1]).is_err());
        assert!(decode(b"nonsense").is_err());
    }

    #[test]
    fn inlined_messages_and_numbers_are_read() {
        let type_meta = [field(1, b"v1"), field(2, b"Pod")].concat();
        let secret = field(6, &field(1, b"s"));
        let volume = field(1, &[field(1, b"v"), field(2, &secret)].concat());
        let spec = [volume, vec![4 << 3, 30]].concat();
        let body = [b"k8s\0".to_vec(), field(1, &type_meta), field(2, &field(2, &spec))].concat();
        assert_eq!(
            decode(&body).unwrap()["spec"],
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}], "terminationGracePeriodSeconds": 30})
        );
    }

    #[test]
    fn every_field_of_the_wire_table_is_a_field_of_the_type() {
        for (name, fields) in MESSAGES.iter() {
            let Some(shape) = super::super::schema::lookup(name) else { continue };
            for field in fields.iter().filter(|f| **f != "-" && !f.starts_with('~')) {
                assert!(shape.fields.contains_key(*field), "{name}.{field}");
            }
        }
    }
}
