//! What tests share.

<<<<<<< HEAD
pub(crate) mod fake;
=======
pub(crate) mod kube_apiserver;
>>>>>>> kube-client
pub(crate) mod worlds;
