//! Schemas are generated from the types and checked in; what is written validates against them.
//! After a change: `UPDATE_SCHEMAS=1 cargo test --test it schema`.

use std::{fs, path::PathBuf};

use serde_json::Value;
use widentity::render::{json, schema};

use crate::support::plans;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schema").join(name)
}

fn compare(name: &str, generated: &str) {
    let path = file(name);
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        fs::write(&path, generated).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == generated,
        "schema/{name} is not what the types say; UPDATE_SCHEMAS=1 cargo test --test it schema"
    );
}

#[test]
fn the_schema_of_plans_is_checked_in() {
    compare("plan.schema.json", &schema::plan());
}

#[test]
fn the_schema_of_reports_is_checked_in() {
    compare("report.schema.json", &schema::report());
}

#[test]
fn the_schema_of_migrate_is_checked_in() {
    compare("migrate.schema.json", &schema::migrate());
}

#[test]
fn a_plan_validates_against_its_schema() {
    let schema: Value = serde_json::from_str(&schema::plan()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for planned in [plans::full(), plans::empty()] {
        let document = serde_json::to_value(json::plan(&planned)).unwrap();
        let problems: Vec<String> =
            validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{problems:#?}");
    }
    let wrong = serde_json::json!({ "format_version": 1 });
    assert!(!validator.is_valid(&wrong));
}
