//! The sandbox's own requests, beside ARM's: `sandbox show` and `sandbox fault` of another process.
//!
//! `GET /sandbox/world`, `GET`, `POST` and `DELETE /sandbox/faults` on the ARM listener, with the
//! operator's secret as bearer token.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::{context::Context, entra, faults::Rule, start::summary};

/// The router, to be merged with ARM's.
pub(super) fn router(ctx: Arc<Context>) -> Router {
    Router::new()
        .route("/sandbox/world", get(world))
        .route("/sandbox/faults", get(list).post(add).delete(clear))
        .layer(middleware::from_fn_with_state(Arc::clone(&ctx), owner))
        .with_state(ctx)
}

async fn owner(State(ctx): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = bearer.and_then(|value| value.strip_prefix("Bearer "));
    if entra::operator_secret(&ctx).is_ok_and(|secret| given == Some(secret.as_str())) {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

async fn world(State(ctx): State<Arc<Context>>) -> Json<Value> {
    Json(summary(&ctx))
}

async fn list(State(ctx): State<Arc<Context>>) -> Json<Value> {
    let rules = ctx.faults.list().into_iter();
    Json(rules.map(|(rule, seen)| json!({ "rule": rule, "seen": seen })).collect())
}

async fn add(State(ctx): State<Arc<Context>>, Json(rule): Json<Rule>) -> StatusCode {
    ctx.faults.add(rule);
    StatusCode::NO_CONTENT
}

async fn clear(State(ctx): State<Arc<Context>>) -> StatusCode {
    ctx.faults.clear();
    StatusCode::NO_CONTENT
}
