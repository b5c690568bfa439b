//! What a code, a message or a log says about the chain. Works offline: everything is in
//! [`catalogue`]; a diagnosis, where there is one, adds what this workload's chain shows.
//!
//! Entra's codes and texts "are subject to change at any time" (Microsoft documentation, "Error
//! codes in Microsoft Entra ID"): they choose an explanation here and decide nothing anywhere.

mod answer;
mod arm;
pub mod catalogue;
mod entra;
mod messages;
mod migration;
mod own;
pub mod scan;
pub mod values;

pub use answer::{Answer, Context, answer, relate};
pub use catalogue::{Entry, Family, lookup};
pub use scan::{Found, Scan, Scanner};
pub use values::{Kind, Values};
