//! The links, a judgement each: evidence and facts in, state out.

pub(super) mod access;
pub(super) mod account;
pub(super) mod annotations;
mod authority;
pub(super) mod client;
pub(super) mod cluster;
pub(super) mod credential;
pub(super) mod exchange;
pub(super) mod identity;
mod manifest;
pub(super) mod pods;
pub(super) mod template;
pub(super) mod webhook;
