//! PRETEND: an Azure, an Entra and Kubernetes clusters on loopback, one world in one file.
//!
//! Imports nothing of ours: it shares no request or response code with the clients, or their
//! mistakes would cancel out.

mod admission;
pub mod arm;
pub mod chance;
pub mod clock;
pub mod clusters;
pub mod context;
mod control;
pub mod dataplane;
pub mod doc;
pub mod endpoints;
pub mod entra;
pub mod external;
pub mod faults;
pub mod files;
pub mod kubernetes;
mod late;
pub mod limits;
mod listeners;
pub mod ready;
pub mod roles;
mod scripted;
pub mod seed;
mod server;
pub mod start;
pub mod store;
pub mod summary;
pub mod tls;
pub mod tokens;

pub use context::{ClusterRef, Context, Delays, Settings, WebhookLayout};
pub use ready::Ready;
pub use seed::{Seed, SeedCluster, SeedDeployment, SeedIdentity, SeedPodIdentity};
pub use start::{Options, Place, Running, Sandbox, StartError};
