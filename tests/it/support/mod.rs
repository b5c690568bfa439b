//! What tests share.

pub(crate) mod plans;
pub(crate) mod worlds;
