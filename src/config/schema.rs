//! The JSON Schema of the file, for editors. Generated from [`raw`](super::raw).

use schemars::{Schema, generate::SchemaSettings, transform::transform_subschemas};
use serde_json::Value;

use super::raw::File;

/// The schema of `workloads.toml`, as in `schema/workloads.schema.json`: JSON Schema draft 7,
/// which is what taplo and the editors built on it read.
pub fn workloads() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<File>();
    without_null(&mut schema);
    schema.insert("title".to_owned(), Value::from("widentity workloads"));
    // An included file holds workloads and targets only. One schema serves both: what a root file
    // must have is asked for as soon as it has anything that an included file may not.
    if let Some(required) = schema.remove("required") {
        let keys = ["version", "project", "include", "azure", "clusters", "defaults"];
        let any: Vec<Value> =
            keys.iter().map(|key| serde_json::json!({ "required": [key] })).collect();
        schema.insert("if".to_owned(), serde_json::json!({ "anyOf": any }));
        schema.insert("then".to_owned(), serde_json::json!({ "required": required }));
    }
    schema.to_value()
}

/// Optional keys may be left out; TOML has no null to write instead.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    let null = serde_json::json!({ "type": "null" });
    let mut only = None;
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| *choice != null);
        if let [choice] = choices.as_slice() {
            only = Some(choice.clone());
        }
    }
    if let Some(choice) = only {
        schema.remove("anyOf");
        // Draft 7 ignores what stands beside `$ref`, so the reference goes into `allOf`.
        schema.insert("allOf".to_owned(), Value::Array(vec![choice]));
    }
    transform_subschemas(&mut without_null, schema);
}
