//! DO: carries out the steps of a plan in their order and tells what happens as events.

pub mod event;
pub mod exit;
pub mod journal;
mod outputs;
mod queue;
pub mod report;

pub use event::{Event, Outcome};
pub use queue::{BrokenPlan, Limits};
pub use report::ApplyReport;
