//! What tests share.

pub(crate) mod arm;
pub(crate) mod cli;
pub(crate) mod emulated;
pub(crate) mod fake;
pub(crate) mod gateway;
pub(crate) mod kube_apiserver;
pub(crate) mod kubelet;
pub(crate) mod moving_in;
pub(crate) mod plans;
pub(crate) mod pod_identity;
pub(crate) mod scene;
pub(crate) mod scripted;
pub(crate) mod signed_in;
pub(crate) mod town;
pub(crate) mod typed;
pub(crate) mod uninstall;
pub(crate) mod worlds;
