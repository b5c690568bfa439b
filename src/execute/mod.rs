//! DO: carries out the steps of a plan in their order and tells what happens as events.

mod context;
pub mod event;
mod executor;
pub mod exit;
pub mod journal;
mod lanes;
mod operations;
mod outputs;
mod queue;
pub mod remote;
mod remotes;
pub mod report;

pub use event::{Event, Outcome};
pub use executor::{RunOptions, run};
pub use lanes::{BrokenPlan, Limits};
pub use operations::another_cluster;
pub use remote::Remote;
pub use remotes::{RemoteCluster, Remotes};
pub use report::ApplyReport;
