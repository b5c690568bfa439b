//! tmp
pub mod webhook;
