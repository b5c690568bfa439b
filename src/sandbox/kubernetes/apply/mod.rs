//! Server-side apply and field ownership: who set which field of an object.
//!
//! Written after the description in
//! <https://kubernetes.io/docs/reference/using-api/server-side-apply/> and checked against a real
//! API server. [`FieldSet`] is a set of paths, [`typed`] computes sets from values, [`merge`] merges
//! and removes, [`managed`] keeps `metadata.managedFields`.

pub(super) mod managed;
pub(super) mod merge;
mod set;
pub(super) mod typed;

pub(super) use set::FieldSet;
