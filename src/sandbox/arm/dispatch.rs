//! From an HTTP request to the provider that answers it: token, path, api-version, permission,
//! throttles, and the headers that every answer carries.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header, request},
    response::Response,
};
use jiff::Timestamp;

use super::{
    agent_pools, assignments,
    call::{Call, Caller, Refusal, Reply, percent_decoded},
    clusters, credentials, definitions, groups, identities, metadata, scale_sets,
    throttle::{Levels, throttle},
    versions,
};
use crate::sandbox::{
    context::Context,
    roles,
    tokens::{self, TokenError},
};

/// Requests above this size are refused (Azure's limit is 4 MB).
const BODY: usize = 4 << 20;

/// The whole of ARM as one axum router.
pub fn router(ctx: Arc<Context>) -> Router {
    Router::new().fallback(handle).with_state(ctx)
}

async fn handle(State(ctx): State<Arc<Context>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let mut levels = Levels::default();
    let answer = match to_bytes(body, BODY).await {
        Err(_) => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            "The request body exceeds 4194304 bytes.",
        )),
        Ok(body) => answer(&ctx, &parts, body, &mut levels).await,
    };
    let head = parts.method == Method::HEAD;
    let mut response = answer.map_or_else(Refusal::into_response, Reply::into_response);
    if head {
        *response.body_mut() = Body::empty();
    }
    stamp_headers(&ctx, &parts.headers, response.headers_mut(), &levels);
    response
}

async fn answer(
    ctx: &Arc<Context>,
    parts: &request::Parts,
    body: axum::body::Bytes,
    levels: &mut Levels,
) -> Result<Reply, Refusal> {
    let segments: Vec<String> = parts
        .uri
        .path()
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(percent_decoded)
        .collect();
    let lower: Vec<String> = segments.iter().map(|segment| segment.to_lowercase()).collect();
    let path: Vec<&str> = lower.iter().map(String::as_str).collect();
    if let ["metadata", "endpoints"] = path.as_slice() {
        return Ok(metadata::endpoints(ctx));
    }
    let caller = authenticate(ctx, &parts.headers)?;
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
        .into_owned()
        .collect();
    let call = Call {
        ctx: Arc::clone(ctx),
        method: parts.method.clone(),
        segments,
        lower: lower.clone(),
        query,
        headers: parts.headers.clone(),
        body,
        caller,
    };
    route(&call, &path, levels).await
}

/// Every path that is served. ARM's own errors come first, as on Azure: version, throttle,
/// subscription, permission, resource group; then the provider's.
async fn route(call: &Call, path: &[&str], levels: &mut Levels) -> Result<Reply, Refusal> {
    let authorization =
        path.windows(2).rposition(|pair| pair == ["providers", "microsoft.authorization"]);
    let (namespace, kind, shown) = type_of(path, authorization);
    versions::check(&namespace, &kind, &shown, call.query("api-version"), &location(call))?;
    throttle(call, levels)?;
    if let ["subscriptions", id, ..] = path
        && call.ctx.store.get(&format!("arm/subscriptions/{id}")).is_none()
    {
        return Err(groups::subscription_not_found(&call.segments[1]));
    }
    authorize(call, path, authorization, &namespace, &kind)?;
    if let ["subscriptions", _, "resourcegroups", group, _, ..] = path
        && call.ctx.store.get(&format!("arm/{}", path[..4].join("/"))).is_none()
        && authorization.is_none_or(|at| at >= 4 && call.method != Method::GET)
    {
        return Err(Refusal::group_not_found(if group.is_empty() {
            ""
        } else {
            &call.segments[3]
        }));
    }
    if let Some(at) = authorization {
        return match &path[at + 2..] {
            ["roleassignments"] => assignments::list(call, at),
            ["roleassignments", _] => assignments::one(call, at),
            ["roledefinitions"] => definitions::list(call),
            ["roledefinitions", _] => definitions::one(call, at),
            _ => Err(unknown_path(call)),
        };
    }
    match path {
        ["tenants"] => Ok(groups::tenants(call)),
        ["subscriptions"] => Ok(groups::subscriptions(call)),
        ["subscriptions", _] => groups::subscription(call),
        ["subscriptions", _, "locations"] => Ok(groups::locations(call)),
        ["subscriptions", _, "operationresults", _] => Ok(Reply::empty(StatusCode::OK)),
        ["subscriptions", _, "providers"] => groups::providers(call, None),
        ["subscriptions", _, "providers", name]
        | ["subscriptions", _, "providers", name, "register"] => {
            groups::providers(call, Some(name))
        }
        ["subscriptions", _, "resourcegroups"] => Ok(groups::groups(call)),
        ["subscriptions", _, "resourcegroups", _] => groups::group(call),
        ["subscriptions", _, "resources"]
        | ["subscriptions", _, "resourcegroups", _, "resources"] => {
            Ok(groups::resources(call, None))
        }
        [
            "subscriptions",
            _,
            "providers",
            "microsoft.managedidentity",
            "userassignedidentities",
        ]
        | [
            "subscriptions",
            _,
            "resourcegroups",
            _,
            "providers",
            "microsoft.managedidentity",
            "userassignedidentities",
        ] => Ok(identities::list(call)),
        ["subscriptions", _, "providers", "microsoft.containerservice", "managedclusters"]
        | [
            "subscriptions",
            _,
            "resourcegroups",
            _,
            "providers",
            "microsoft.containerservice",
            "managedclusters",
        ] => Ok(clusters::list(call)),
        [
            "subscriptions",
            _,
            "providers",
            "microsoft.containerservice",
            "locations",
            _,
            what,
            _,
        ] if ["operations", "operationresults"].contains(what) => {
            clusters::operation_status(call, *what == "operationresults")
        }
        ["subscriptions", _, "providers", "microsoft.compute", "locations", _, "operations", _] => {
            scale_sets::operation(call)
        }
        ["subscriptions", _, "providers", namespace, kind] => {
            Ok(groups::resources(call, Some(&format!("{namespace}/{kind}"))))
        }
        ["subscriptions", _, "resourcegroups", _, "providers", rest @ ..] => {
            in_group(call, rest).await
        }
        _ => Err(unknown_path(call)),
    }
}

async fn in_group(call: &Call, rest: &[&str]) -> Result<Reply, Refusal> {
    match rest {
        ["microsoft.managedidentity", "userassignedidentities", _] => identities::one(call),
        ["microsoft.managedidentity", "userassignedidentities", _, "listassociatedresources"] => {
            identities::associated(call)
        }
        [
            "microsoft.managedidentity",
            "userassignedidentities",
            _,
            "federatedidentitycredentials",
        ] => credentials::list(call),
        [
            "microsoft.managedidentity",
            "userassignedidentities",
            _,
            "federatedidentitycredentials",
            _,
        ] => credentials::one(call).await,
        ["microsoft.containerservice", "managedclusters", _] => clusters::one(call),
        ["microsoft.containerservice", "managedclusters", _, "agentpools"] => {
            agent_pools::list(call)
        }
        ["microsoft.containerservice", "managedclusters", _, "agentpools", _] => {
            agent_pools::one(call)
        }
        ["microsoft.containerservice", "managedclusters", _, "listclusterusercredential"] => {
            clusters::credentials(call, false)
        }
        ["microsoft.containerservice", "managedclusters", _, "listclusteradmincredential"] => {
            clusters::credentials(call, true)
        }
        ["microsoft.compute", "virtualmachinescalesets", _] => scale_sets::one(call),
        [namespace, kind] => Ok(groups::resources(call, Some(&format!("{namespace}/{kind}")))),
        // Type and name alternate, so a resource has an odd number of parts.
        [_, _, _, ..] if rest.len() % 2 == 1 => groups::resource(call),
        _ => Err(unknown_path(call)),
    }
}

fn unknown_path(call: &Call) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "InvalidResourceType",
        format!("The resource type of '/{}' could not be found.", call.segments.join("/")),
    )
}

/// Namespace, type (both lower case) and the type as messages name it.
fn type_of(path: &[&str], authorization: Option<usize>) -> (String, String, String) {
    let at = authorization.or_else(|| path.iter().rposition(|segment| *segment == "providers"));
    let Some(at) = at.filter(|at| path.len() > at + 2) else {
        return Default::default();
    };
    let namespace = path[at + 1].to_owned();
    let kind = path[at + 2..].iter().step_by(2).copied().collect::<Vec<_>>().join("/");
    if namespace == "microsoft.containerservice" && kind.starts_with("managedclusters") {
        return (namespace, "managedclusters".into(), "managedClusters".into());
    }
    let shown = match kind.as_str() {
        "userassignedidentities" => "userAssignedIdentities".to_owned(),
        "userassignedidentities/federatedidentitycredentials" => {
            "userAssignedIdentities/federatedIdentityCredentials".to_owned()
        }
        "roleassignments" => "roleAssignments".to_owned(),
        "roledefinitions" => "roleDefinitions".to_owned(),
        _ => kind.clone(),
    };
    (namespace, kind, shown)
}

/// The region that messages about versions name: the resource group's.
fn location(call: &Call) -> String {
    let group = call.lower.get(..4).map(|parts| format!("arm/{}", parts.join("/")));
    group
        .and_then(|key| Some(call.ctx.store.get(&key)?["location"].as_str()?.to_owned()))
        .unwrap_or_else(|| "westeurope".to_owned())
}

fn authenticate(ctx: &Context, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let tenant = ctx.settings.tenant;
    let authority = ctx.endpoints.url(|bound| bound.authority);
    let challenge = |error: &str, text: &str| {
        format!(
            "Bearer authorization_uri=\"{authority}/{tenant}\", error=\"{error}\", \
             error_description=\"{text}\""
        )
    };
    let refuse = |code: &'static str, text: String| {
        let header = challenge("invalid_token", &text);
        Refusal::new(StatusCode::UNAUTHORIZED, code, text).with("www-authenticate", header)
    };
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = bearer.and_then(|value| value.split_once(' ')).map(|(_, token)| token) else {
        return Err(refuse(
            "AuthenticationFailed",
            "Authentication failed. The 'Authorization' header is missing.".into(),
        ));
    };
    let own = ctx.endpoints.url(|bound| bound.resource_manager);
    let by_address = own.replace("localhost", "127.0.0.1");
    let audiences = [
        "https://management.azure.com/",
        "https://management.core.windows.net/",
        own.as_str(),
        by_address.as_str(),
    ];
    let claims = tokens::verify_access_token(ctx, token.trim(), &audiences).map_err(|error| {
        match error {
            TokenError::Invalid => {
                refuse("InvalidAuthenticationToken", "The access token is invalid.".into())
            }
            TokenError::Expired { expiry } => refuse(
                "ExpiredAuthenticationToken",
                format!(
                    "The access token expiry UTC time '{}' is earlier than current UTC time '{}'.",
                    us_time(expiry),
                    us_time(ctx.clock.now().as_second())
                ),
            ),
            TokenError::Audience => refuse(
                "InvalidAuthenticationTokenAudience",
                "The access token has been obtained for wrong audience or resource. It should \
                 exactly match with one of the allowed audiences \
                 'https://management.core.windows.net/','https://management.core.windows.net',\
                 'https://management.azure.com/','https://management.azure.com'."
                    .into(),
            ),
        }
    })?;
    let text =
        |name: &str| claims.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let appid = text("appid");
    let operator = appid == ctx.settings.operator.to_string();
    Ok(Caller { oid: text("oid"), appid, operator })
}

fn us_time(second: i64) -> String {
    let at = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%-m/%-d/%Y %-I:%M:%S %p").to_string()
}

/// Whether the caller may do it: the operator may; anybody else needs a role that has propagated.
fn authorize(
    call: &Call,
    path: &[&str],
    authorization: Option<usize>,
    namespace: &str,
    kind: &str,
) -> Result<(), Refusal> {
    if call.caller.operator || matches!(path, ["subscriptions" | "tenants"]) {
        return Ok(());
    }
    let verb = match call.method {
        Method::GET | Method::HEAD => "read",
        Method::DELETE => "delete",
        Method::POST => "action",
        _ => "write",
    };
    let (action, scope) = if let Some(at) = authorization {
        (format!("Microsoft.Authorization/{kind}/{verb}"), path[..at].join("/"))
    } else if namespace.is_empty() {
        let what = match path {
            ["subscriptions", _, "resourcegroups", ..] => "subscriptions/resourceGroups",
            _ => "subscriptions",
        };
        (format!("Microsoft.Resources/{what}/{verb}"), path.join("/"))
    } else {
        (format!("{namespace}/{kind}/{verb}"), path.join("/"))
    };
    if let ["subscriptions", _] = path
        && roles::holds_any(&call.ctx, &call.caller.oid, &scope)
    {
        return Ok(());
    }
    if roles::allowed(&call.ctx, &call.caller.oid, &action, &scope, false) {
        return Ok(());
    }
    let scope = call.segments[..scope.split('/').count().min(call.segments.len())].join("/");
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "AuthorizationFailed",
        format!(
            "The client '{}' with object id '{}' does not have authorization to perform action \
             '{action}' over scope '/{scope}' or the scope is invalid. If access was recently \
             granted, please refresh your credentials.",
            call.caller.appid, call.caller.oid
        ),
    ))
}

/// The headers that ARM's front door adds to every answer.
fn stamp_headers(ctx: &Context, request: &HeaderMap, response: &mut HeaderMap, levels: &Levels) {
    let id = ctx.ids.guid().to_string();
    let echo = |name: &str| request.get(name).and_then(|value| value.to_str().ok());
    let correlation = echo("x-ms-correlation-request-id").unwrap_or(&id).to_owned();
    let now = ctx.clock.now();
    let routing = format!("WESTEUROPE:{}:{id}", now.strftime("%Y%m%dT%H%M%SZ"));
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.insert(HeaderName::from_static(name), value);
        }
    };
    put("x-ms-request-id", &id);
    put("x-ms-correlation-request-id", &correlation);
    put("x-ms-routing-request-id", &routing);
    put("cache-control", "no-cache");
    put("pragma", "no-cache");
    put("expires", "-1");
    put("strict-transport-security", "max-age=31536000; includeSubDomains");
    put("x-content-type-options", "nosniff");
    put("x-cache", "CONFIG_NOCACHE");
    for (name, left) in &levels.0 {
        put(name, &left.to_string());
    }
    if let Some(client) = echo("x-ms-client-request-id")
        && echo("x-ms-return-client-request-id") == Some("true")
    {
        put("x-ms-client-request-id", client);
    }
}
