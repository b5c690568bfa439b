//! What tests share.

pub(crate) mod worlds;
