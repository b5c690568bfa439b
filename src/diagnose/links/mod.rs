//! The links, a judgement each: evidence and facts in, state out.

pub(super) mod access;
pub(super) mod account;
pub(super) mod annotations;
pub(super) mod client;
pub(super) mod cluster;
pub(super) mod credential;
pub(super) mod exchange;
pub(super) mod identity;
pub(super) mod pods;
pub(super) mod template;
pub(super) mod webhook;
