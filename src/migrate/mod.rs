//! MOVE: off AAD Pod Identity. Pure: an [`Estate`](crate::model::pod_identity::Estate) and what
//! the file decides in, a [`Survey`] out: which workloads answer through Pod Identity, where each
//! stands, what stands in its way and what to write to decide.
//!
//! The phase of a workload is derived from the observed world each time and never stored. The law
//! of a migration: the new path is proved before the old one goes, and at no moment is a workload
//! without a working path to its credential.

mod chained;
mod environment;
mod groups;
pub mod manifest;
pub mod matching;
pub mod next;
mod notes;
pub mod phase;
mod reasons;
pub mod removal;
pub mod rollback;
mod surroundings;
pub mod survey;
pub mod toml;
pub mod transition;
pub mod uninstall;
pub mod verdict;

pub use phase::Phase;
pub use survey::{Note, Survey, Waived, Workload, survey};
pub use verdict::{Reason, Verdict};
