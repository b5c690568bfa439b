//! What tests share.

pub(crate) mod kube_apiserver;
pub(crate) mod worlds;
