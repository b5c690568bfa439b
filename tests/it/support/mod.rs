//! What tests share.

pub(crate) mod scripted;
pub(crate) mod worlds;
