//! All integration tests, in one binary.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests say what they expect by failing, and read files"
)]

mod architecture;
mod azure_client;
mod azure_clusters;
mod azure_sandbox;
mod cli;
mod cli_sandbox;
mod config;
mod executor;
mod kubernetes_server;
mod kubernetes_wire;
mod observe;
mod planner;
mod corpus;
mod properties;
mod recordings;
mod render_plan;
mod sandbox_arm;
mod sandbox_chain;
mod schema;
mod support;
