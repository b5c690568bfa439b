//! EXPLAIN: why a pod cannot authenticate. Pure: evidence in, diagnosis out.
//!
//! [`chain`] walks the links of one workload in the order in which they must be built and says of
//! each whether it holds, is broken, was not reached or could not be seen. [`evidence::Evidence`]
//! is everything it looks at, as plain data, so that a diagnosis can be repeated from a file.

pub mod audit;
mod chain;
mod command;
pub mod difference;
pub mod evidence;
pub mod explain;
mod facts;
mod fix;
mod keys;
pub mod link;
mod links;
mod resolve;
mod selector;

pub use chain::chain;
pub use command::Kubectl;
pub use evidence::Evidence;
pub use link::{Break, Checked, Diagnosis, Fix, Link, Note, State, Verdict};
pub use resolve::{Resolved, meant, resolve};
