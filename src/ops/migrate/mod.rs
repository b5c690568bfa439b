//! `migrate`: off AAD Pod Identity, one workload at a time.

mod add_on;
pub mod apply;
pub mod ending;
pub mod finish;
pub mod patience;
pub mod proofs;
pub mod read;
pub mod render;
pub mod rollback;
pub mod shelf;
mod site;
pub mod uninstall;

pub use apply::{Move, MoveError, Moved};
pub use patience::Patience;
pub use read::{Counts, Overview, Request, Surveyed, overview};
pub use rollback::PutBack;
pub use shelf::Shelf;

// What is read and written beside the engine's own steps.
pub use crate::kubernetes::Objects;
// What the terminal hands in and gets back.
pub use crate::migrate::{
    Waived, Workload,
    removal::{Allowed, Removal},
    transition::OldLabel,
};
