//! JSON Schemas of what this program writes, generated from the types.

use schemars::{JsonSchema, generate::SchemaSettings};

use super::{
    head::{Any, Headed},
    json,
    json::PlanDocument,
    report_json::ReportDocument,
};

/// The schema of the plan document.
pub fn plan() -> String {
    of::<PlanDocument>()
}

/// The schema of the report of `apply` and `verify`.
pub fn report() -> String {
    of::<ReportDocument>()
}

/// The schema of what all commands of `migrate` write.
pub fn migrate() -> String {
    of::<Headed<Any>>()
}

fn of<T: JsonSchema>() -> String {
    // Serialize: what is written, where a key that may be left out is not required.
    let settings = SchemaSettings::draft07().for_serialize();
    let schema = settings.into_generator().into_root_schema_for::<T>();
    json::to_text(&schema)
}
