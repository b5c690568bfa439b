//! The corner of Microsoft Graph in which `az role assignment` looks principals up.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Query, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{json, text};
use crate::sandbox::{context::Context, tokens};

/// Graph as an axum router.
pub fn router(ctx: Arc<Context>) -> Router {
    Router::new()
        .route("/v1.0/servicePrincipals", get(service_principals))
        .route("/v1.0/servicePrincipals/{id}", get(service_principal))
        .route("/v1.0/users", get(nobody))
        .route("/v1.0/users/{id}", get(not_found))
        .route("/v1.0/groups", get(nobody))
        .route("/v1.0/groups/{id}", get(not_found))
        .route("/v1.0/me", get(not_found))
        .route("/v1.0/directoryObjects/getByIds", post(by_ids))
        .layer(middleware::from_fn_with_state(Arc::clone(&ctx), authenticated))
        .with_state(ctx)
}

async fn authenticated(State(ctx): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let own = ctx.endpoints.url(|bound| bound.graph);
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let audiences =
        [own.as_str(), "https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000"];
    match tokens::verify_access_token(&ctx, token, &audiences) {
        Ok(_) => next.run(request).await,
        Err(_) => error(
            StatusCode::UNAUTHORIZED,
            "InvalidAuthenticationToken",
            "Access token validation failure.",
        ),
    }
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    json(status, &json!({ "error": { "code": code, "message": message } }))
}

async fn not_found(Path(id): Path<String>) -> Response {
    missing(&id)
}

fn missing(id: &str) -> Response {
    error(
        StatusCode::NOT_FOUND,
        "Request_ResourceNotFound",
        &format!(
            "Resource '{id}' does not exist or one of its queried reference-property objects are \
             not present."
        ),
    )
}

async fn nobody() -> Response {
    json(StatusCode::OK, &json!({ "value": [] }))
}

fn render(id: &str, doc: &Value) -> Value {
    json!({
        "@odata.type": "#microsoft.graph.servicePrincipal",
        "id": id, "appId": doc["client_id"], "displayName": doc["name"],
        "servicePrincipalType": if doc["identity"].is_string() { "ManagedIdentity" } else { "Application" },
        "servicePrincipalNames": [doc["client_id"]], "accountEnabled": true,
        "alternativeNames": doc["identity"].as_str().map(|id| vec!["isExplicit=True", id]),
    })
}

#[derive(Deserialize)]
struct Filter {
    #[serde(rename = "$filter")]
    filter: Option<String>,
}

/// Filters that `az` sends: `servicePrincipalNames/any(c:c eq '…')`, `appId eq '…'`,
/// `displayName eq '…'` and `startswith(displayName,'…')`.
async fn service_principals(
    State(ctx): State<Arc<Context>>,
    Query(query): Query<Filter>,
) -> Response {
    let filter = query.filter.unwrap_or_default();
    let value = filter.split('\'').nth(1).unwrap_or_default().to_lowercase();
    let fits = |doc: &Value| {
        let text = |name: &str| doc[name].as_str().unwrap_or_default().to_lowercase();
        if filter.is_empty() {
            Some(true)
        } else if filter.starts_with("servicePrincipalNames/any(")
            || filter.starts_with("appId eq ")
        {
            Some(text("client_id") == value)
        } else if filter.starts_with("displayName eq ") {
            Some(text("name") == value)
        } else if filter.starts_with("startswith(displayName,") {
            Some(text("name").starts_with(&value))
        } else {
            None
        }
    };
    let mut found = Vec::new();
    for (key, doc) in ctx.store.list("principals/") {
        match fits(&doc) {
            Some(true) => found.push(render(key.trim_start_matches("principals/"), &doc)),
            Some(false) => {}
            None => {
                return error(
                    StatusCode::BAD_REQUEST,
                    "Request_UnsupportedQuery",
                    "Unsupported or invalid query filter clause specified.",
                );
            }
        }
    }
    json(StatusCode::OK, &json!({ "value": found }))
}

async fn service_principal(State(ctx): State<Arc<Context>>, Path(id): Path<String>) -> Response {
    match ctx.store.get(&format!("principals/{}", id.to_lowercase())) {
        Some(doc) => json(StatusCode::OK, &render(&id.to_lowercase(), &doc)),
        None => missing(&id),
    }
}

async fn by_ids(State(ctx): State<Arc<Context>>, request: Request) -> Response {
    let body: Value = serde_json::from_str(&text(request).await).unwrap_or_default();
    let found: Vec<Value> = body["ids"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|id| {
            let id = id.as_str()?.to_lowercase();
            Some(render(&id, &*ctx.store.get(&format!("principals/{id}"))?))
        })
        .collect();
    json(StatusCode::OK, &json!({ "value": found }))
}
