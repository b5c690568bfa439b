//! All integration tests, in one binary.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by failing")]

mod azure_client;
mod azure_clusters;
mod azure_sandbox;
mod config;
mod kubernetes_server;
mod kubernetes_wire;
mod observe;
mod planner;
mod properties;
mod sandbox_arm;
mod support;
