//! The OpenAPI documents.

use axum::{body::Body, http::Response};

use super::{Kubernetes, error::Outcome, request::Options};

/// Answers `/openapi/…`.
pub(super) fn serve(
    _kube: &Kubernetes,
    _path: &str,
    _options: &Options,
) -> Outcome<Option<Response<Body>>> {
    Ok(None)
}
