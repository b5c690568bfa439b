//! The sandbox's own requests, beside ARM's: `sandbox show` and `sandbox fault` of another process.
//!
//! `GET /sandbox/world`; `GET`, `POST` and `DELETE /sandbox/faults`; `PUT /sandbox/webhooks/{cluster}`
//! with `{"down": bool}`: all on the ARM listener, with the operator's secret as bearer token.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, put},
};
use serde_json::{Value, json};

use super::{clusters, context::Context, entra, faults::Rule, store::Write, summary};

/// The router, to be merged with ARM's.
pub(super) fn router(ctx: Arc<Context>) -> Router {
    Router::new()
        .route("/sandbox/world", get(world))
        .route("/sandbox/faults", get(list).post(add).delete(clear))
        .route("/sandbox/webhooks/{cluster}", put(webhook))
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
    Json(summary::served(&ctx))
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
    ctx.faults.at_random(None);
    StatusCode::NO_CONTENT
}

/// Takes the workload identity webhook of an emulated cluster down, or up again. What else is
/// switched in the cluster stays.
async fn webhook(
    State(ctx): State<Arc<Context>>,
    Path(cluster): Path<String>,
    Json(body): Json<Value>,
) -> StatusCode {
    let Some(down) = body["down"].as_bool() else { return StatusCode::BAD_REQUEST };
    let mut world = ctx.store.lock();
    let found = clusters::all(&world)
        .into_iter()
        .find(|(_, doc)| doc["cluster"] == cluster.as_str() && !doc["external"].is_object());
    let Some((key, _)) = found else { return StatusCode::NOT_FOUND };
    let key = format!("kube/{}/~options", key.trim_start_matches("arm/"));
    let mut options = world.get(&key).map_or_else(|| json!({}), |doc| (*doc).clone());
    options["webhook_down"] = down.into();
    match world.commit(vec![Write::put(key, options)]) {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
