//! USE CASES: one file a verb. Arguments in, outcome out; nothing is printed here, and nothing is
//! read from the environment.

pub mod apply;
pub mod approval;
pub mod audit;
pub mod connect;
pub mod doctor;
pub mod explain;
pub mod migrate;
pub mod plan;
pub mod planned;
pub mod verify;
pub mod watch;

pub use connect::{ConnectError, Connected};
pub use planned::{Planned, Scope, Tally};

pub use crate::plan::PlanOptions;
