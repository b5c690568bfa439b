//! `migrate`: off AAD Pod Identity, one workload at a time.

pub mod read;

pub use read::{Overview, Request, Surveyed, overview};
