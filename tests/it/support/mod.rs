//! What tests share.

pub(crate) mod cli;
pub(crate) mod plans;
pub(crate) mod worlds;
