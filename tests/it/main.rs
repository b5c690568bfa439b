//! All integration tests, in one binary.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "tests say what they expect by failing, and read files"
)]

mod architecture;
mod audit_reads;
mod azure_client;
mod azure_clusters;
mod azure_sandbox;
mod cli;
mod cli_doctor;
mod cli_sandbox;
mod cli_verify;
mod config;
mod corpus;
mod corpus_fixes;
mod doctor_reads;
mod examples;
mod executor;
mod kubernetes_server;
mod kubernetes_wire;
mod label_elsewhere;
mod migrate;
mod migrate_back;
mod migrate_faults;
mod migrate_finish;
mod migrate_gates;
mod migrate_judged;
mod migrate_middle;
mod migrate_properties;
mod migrate_render;
mod migrate_sandbox;
mod migrate_shapes;
mod migrate_words;
mod observe;
mod plan_cases;
mod planner;
mod properties;
mod real_cluster;
mod real_migration;
mod real_moments;
mod recordings;
mod render_plan;
mod render_report;
mod sandbox_arm;
mod sandbox_chain;
mod sandbox_faults;
mod sandbox_fuzz;
mod sandbox_kubernetes;
mod schema;
mod sidecar;
mod support;
mod uninstall;
mod uninstall_azure;
mod uninstall_sandbox;
