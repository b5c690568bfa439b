//! Azure Resource Manager and the providers behind it, as far as workload identity needs them.

mod agent_pools;
mod assignments;
mod call;
mod clusters;
mod created;
mod credentials;
mod definitions;
mod dispatch;
mod groups;
mod identities;
mod kubeconfig;
mod metadata;
mod scale_sets;
mod throttle;
mod versions;

pub(super) use call::percent_decoded;
pub use dispatch::router;
pub(super) use groups::group_doc;
pub use kubeconfig::{KubeconfigError, for_cluster as kubeconfig};
