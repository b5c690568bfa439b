//! PRETEND: an Azure, an Entra and Kubernetes clusters on loopback, one world in one file.
//!
//! Imports nothing of ours: it shares no request or response code with the clients, or their
//! mistakes would cancel out.

pub mod clock;
pub mod context;
pub mod endpoints;
pub mod faults;
pub mod kubernetes;
pub mod store;
pub mod tokens;

pub use context::{ClusterRef, Context, Delays, Settings, WebhookLayout};
