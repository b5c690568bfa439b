//! USE CASES: one file a verb. Arguments in, outcome out; nothing is printed here, and nothing is
//! read from the environment.

pub mod approval;
pub mod planned;

pub use planned::{Planned, Scope, Tally};
