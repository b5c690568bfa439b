//! Shapes of the built-in kinds and of custom resources: field types, list semantics, merge keys.
//!
//! One table serves pruning of unknown fields, strict field validation, server-side apply,
//! strategic merge patches and the `OpenAPI` documents. It is written in a small notation, one type
//! a line, in the text files beside this one:
//!
//! ```text
//! %group/version                 types that follow belong here; a name without a dot is local
//! Name[@] field[*]:TYPE …        `@` after a name: the whole object is one atomic value
//! s i l b n B t m q x any        string, int32, int64, bool, number, bytes, time, micro time,
//!                                quantity, int-or-string, anything
//! {T}  {T}@                      map, atomic map
//! [T]  [T|set]  [T|a,b]          atomic list, set, associative list with its keys
//! [T|a,b|p]  [T||p]  [T|a|-]     strategic merge key `p` where it differs, or none
//! ^T   T!                        a Go struct by value (never absent) · patch strategy retainKeys
//! ```
//!
//! Types and fields are those of Kubernetes 1.33
//! (<https://kubernetes.io/docs/reference/kubernetes-api/>).

mod custom;

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

pub(super) use custom::custom_type;

/// The type of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    /// A single value.
    Scalar(Scalar),
    /// Anything: maps are granular, lists atomic.
    Any,
    /// A map with arbitrary keys.
    Map {
        /// Type of the values.
        item: Box<Self>,
        /// Owned as a whole.
        atomic: bool,
    },
    /// A list.
    List(Arc<List>),
    /// A type of the table, `group/version.Name`.
    Named(Arc<str>),
    /// A type defined in place (custom resources).
    Inline(Arc<Struct>),
}

/// Leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    String,
    Int32,
    Int64,
    Bool,
    Number,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
}

/// A list with its two merge semantics.
#[derive(Debug, PartialEq)]
pub(super) struct List {
    /// Type of the items.
    pub item: Type,
    /// How server-side apply sees it.
    pub kind: ListKind,
    /// How a strategic merge patch sees it.
    pub patch: PatchList,
}

/// Server-side apply semantics of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListKind {
    /// Owned as a whole.
    Atomic,
    /// Scalars, each owned by its value.
    Set,
    /// Objects, each owned by these keys.
    Map(Vec<String>),
}

/// Strategic merge patch semantics of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PatchList {
    /// Replaced as a whole.
    Replace,
    /// Scalars are added.
    Merge,
    /// Objects are merged by this key.
    MergeKey(String),
}

/// A field of a struct.
#[derive(Debug, PartialEq)]
pub(super) struct Field {
    /// Its type.
    pub ty: Type,
    /// A value without `omitempty` in the Go type.
    pub required: bool,
    /// A struct by value in the Go type: written even when empty.
    pub by_value: bool,
    /// Strategic merge strategy `retainKeys`.
    pub retain_keys: bool,
    /// Default of a custom resource schema.
    pub default: Option<serde_json::Value>,
}

/// A struct.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Struct {
    /// Fields by JSON name.
    pub fields: BTreeMap<String, Field>,
    /// Owned as a whole.
    pub atomic: bool,
    /// What other keys hold; `None` means that other keys do not exist.
    pub rest: Option<Type>,
}

/// What a type is after names are resolved.
pub(super) enum Shape<'a> {
    /// A leaf.
    Scalar(Scalar),
    /// Anything.
    Any,
    /// A map.
    Map(&'a Type, bool),
    /// A list.
    List(&'a List),
    /// A struct.
    Struct(&'a Struct),
}

const TABLES: [&str; 3] =
    [include_str!("core.txt"), include_str!("workloads.txt"), include_str!("other.txt")];

static TYPES: LazyLock<BTreeMap<String, Struct>> = LazyLock::new(|| {
    let mut types = BTreeMap::new();
    for table in TABLES {
        parse(table, &mut types);
    }
    types
});

/// The type named `group/version.Name`, if the table has it.
pub(super) fn lookup(name: &str) -> Option<&'static Struct> {
    TYPES.get(name)
}

impl Type {
    /// The built-in type of this name, or anything.
    pub(super) fn named(name: &str) -> Self {
        if TYPES.contains_key(name) { Self::Named(name.into()) } else { Self::Any }
    }

    /// Resolves names.
    pub(super) fn shape(&self) -> Shape<'_> {
        match self {
            Self::Scalar(scalar) => Shape::Scalar(*scalar),
            Self::Any => Shape::Any,
            Self::Map { item, atomic } => Shape::Map(item, *atomic),
            Self::List(list) => Shape::List(list),
            Self::Named(name) => TYPES.get(&**name).map_or(Shape::Any, Shape::Struct),
            Self::Inline(object) => Shape::Struct(object),
        }
    }

    /// The type of the field or map value `key`; `None` if there is no such field.
    pub(super) fn field(&self, key: &str) -> Option<&Self> {
        match self.shape() {
            Shape::Struct(object) => object.fields.get(key).map(|f| &f.ty).or(object.rest.as_ref()),
            Shape::Map(item, _) => Some(item),
            Shape::Any => Some(&Self::Any),
            Shape::Scalar(_) | Shape::List(_) => None,
        }
    }
}

/// `apiVersion` and `kind` stand on every root and on embedded objects; the table leaves them out.
fn type_meta(fields: &mut BTreeMap<String, Field>) {
    for name in ["apiVersion", "kind"] {
        fields.entry(name.to_owned()).or_insert_with(|| Field::optional(Type::STRING));
    }
}

impl Type {
    /// A string.
    pub(super) const STRING: Self = Self::Scalar(Scalar::String);
}

impl Field {
    /// A field that may be absent.
    pub(super) fn optional(ty: Type) -> Self {
        Self { ty, required: false, by_value: false, retain_keys: false, default: None }
    }
}

fn parse(table: &str, types: &mut BTreeMap<String, Struct>) {
    let mut group = "";
    let mut current = String::new();
    for line in table.lines() {
        if let Some(name) = line.strip_prefix('%') {
            group = name;
            continue;
        }
        let mut words = line.split_whitespace();
        if !line.starts_with(' ') {
            let head = words.next().unwrap_or_default();
            let name = head.trim_end_matches('@');
            current = format!("{group}.{name}");
            types.insert(current.clone(), Struct { atomic: name != head, ..Struct::default() });
        }
        let Some(object) = types.get_mut(&current) else { continue };
        for word in words {
            let Some((name, ty)) = word.split_once(':') else { continue };
            let by_value = ty.starts_with('^');
            let retain_keys = ty.ends_with('!');
            let ty = ty.trim_start_matches('^').trim_end_matches('!');
            object.fields.insert(
                name.trim_end_matches('*').to_owned(),
                Field {
                    ty: parse_type(ty, group),
                    required: name.ends_with('*'),
                    by_value,
                    retain_keys,
                    default: None,
                },
            );
        }
        // A template has metadata and is not an object by itself.
        let template = current.ends_with("TemplateSpec") || current.ends_with("ClaimTemplate");
        if object.fields.contains_key("metadata") && !template {
            type_meta(&mut object.fields);
        }
    }
}

fn parse_type(text: &str, group: &str) -> Type {
    if let Some(inner) = text.strip_prefix('{') {
        let atomic = inner.ends_with('@');
        let inner = inner.trim_end_matches('@').trim_end_matches('}');
        return Type::Map { item: Box::new(parse_type(inner, group)), atomic };
    }
    if let Some(inner) = text.strip_prefix('[') {
        let mut parts = inner.trim_end_matches(']').split('|');
        let item = parse_type(parts.next().unwrap_or_default(), group);
        let kind = match parts.next() {
            None | Some("") => ListKind::Atomic,
            Some("set") => ListKind::Set,
            Some(keys) => ListKind::Map(keys.split(',').map(str::to_owned).collect()),
        };
        let patch = match (parts.next(), &kind) {
            (Some("-"), _) | (None, ListKind::Atomic) => PatchList::Replace,
            (Some(key), _) => PatchList::MergeKey(key.to_owned()),
            (None, ListKind::Set) => PatchList::Merge,
            (None, ListKind::Map(keys)) => PatchList::MergeKey(keys[0].clone()),
        };
        return Type::List(Arc::new(List { item, kind, patch }));
    }
    match text {
        "s" => Type::STRING,
        "i" => Type::Scalar(Scalar::Int32),
        "l" => Type::Scalar(Scalar::Int64),
        "b" => Type::Scalar(Scalar::Bool),
        "n" => Type::Scalar(Scalar::Number),
        "B" => Type::Scalar(Scalar::Bytes),
        "t" => Type::Scalar(Scalar::Time),
        "m" => Type::Scalar(Scalar::MicroTime),
        "q" => Type::Scalar(Scalar::Quantity),
        "x" => Type::Scalar(Scalar::IntOrString),
        "any" => Type::Any,
        name if name.contains('.') => Type::Named(name.into()),
        name => Type::Named(format!("{group}.{name}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_type_exists() {
        fn check(ty: &Type, at: &str) {
            match ty {
                Type::Named(name) => assert!(lookup(name).is_some(), "{at} names {name}"),
                Type::Map { item, .. } => check(item, at),
                Type::List(list) => check(&list.item, at),
                Type::Scalar(_) | Type::Any | Type::Inline(_) => {}
            }
        }
        assert!(TYPES.len() > 300);
        for (name, object) in TYPES.iter() {
            for (field, spec) in &object.fields {
                check(&spec.ty, &format!("{name}.{field}"));
            }
        }
    }

    #[test]
    fn list_semantics_are_read() {
        let container = lookup("core/v1.Container").unwrap();
        let Type::List(ports) = &container.fields["ports"].ty else { panic!("ports") };
        assert_eq!(ports.kind, ListKind::Map(vec!["containerPort".into(), "protocol".into()]));
        assert_eq!(ports.patch, PatchList::MergeKey("containerPort".into()));
        assert!(container.fields["resources"].by_value);
        assert!(container.fields["name"].required);
        assert!(lookup("meta/v1.LabelSelector").unwrap().atomic);
        let pod = lookup("core/v1.PodSpec").unwrap();
        assert!(pod.fields["volumes"].retain_keys);
        assert_eq!(
            pod.fields["nodeSelector"].ty,
            Type::Map { item: Box::new(Type::STRING), atomic: true }
        );
    }
}
