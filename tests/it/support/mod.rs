//! What tests share.

pub(crate) mod kube_apiserver;
pub(crate) mod scripted;
pub(crate) mod worlds;
