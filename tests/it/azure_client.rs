//! The ARM client and the Entra client against servers that answer from a script.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, Uri},
};
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::OffsetDateTime,
};
use serde_json::{Value, json};
use tracing::instrument::WithSubscriber as _;
use url::Url;
use widentity::{
    azure::{Arm, ArmError, Endpoints, Entra, ExchangeError, Jitter, NewAssignment, PutAssignment},
    model::{
        ArmId, FailureKind, SubscriptionId, Token, desired::Feature, snapshot::ObservedCredential,
    },
};

const SECRET: &str = "the-bearer-token-nobody-may-see";
const SUB: &str = "00000000-0000-0000-0000-000000000001";

#[derive(Debug)]
struct Fixed;

#[async_trait::async_trait]
impl TokenCredential for Fixed {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        // Never looked at again within a test.
        let expires = OffsetDateTime::from_unix_timestamp(4_000_000_000).unwrap();
        Ok(AccessToken::new(SECRET, expires))
    }
}

#[derive(Clone, Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn reply(status: u16, body: &Value) -> Reply {
    Reply { status, body: body.to_string().into_bytes(), ..Reply::default() }
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    reply(status, &json!({"error": {"code": code, "message": message}}))
}

impl Reply {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

#[derive(Debug, Clone)]
struct Seen {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Default)]
struct Script {
    replies: Mutex<VecDeque<Reply>>,
    seen: Mutex<Vec<Seen>>,
}

/// A server that answers the requests it gets from a script, in order.
struct Server {
    url: Url,
    script: Arc<Script>,
}

async fn answer(
    State(script): State<Arc<Script>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let target = uri.to_string();
    script.seen.lock().unwrap().push(Seen { method, target, headers, body });
    let reply = script.replies.lock().unwrap().pop_front();
    let reply = reply.unwrap_or_else(|| error(418, "ScriptEnded", "no more answers"));
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}

impl Server {
    async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let script = Arc::new(Script::default());
        script.replies.lock().unwrap().extend(replies);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, script }
    }

    fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.replies.lock().unwrap().extend(replies);
    }

    fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().unwrap().clone()
    }

    fn link(&self, path: &str) -> String {
        self.url.join(path).unwrap().to_string()
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints::custom(self.url.clone(), self.url.clone(), None)
    }

    fn arm(&self) -> Watched {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let slept: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let (tell, sleep) = (Arc::clone(&told), Arc::clone(&slept));
        let waits = Arc::new(move |what: &str| tell.lock().unwrap().push(what.to_owned()));
        let arm = Arm::new(&self.endpoints(), Arc::new(Fixed), waits).unwrap();
        let arm = arm.with_jitter(Jitter::seeded(1)).with_sleep(Arc::new(move |how_long| {
            sleep.lock().unwrap().push(how_long);
            Box::pin(async {})
        }));
        Watched { arm, told, slept }
    }
}

struct Watched {
    arm: Arm,
    told: Arc<Mutex<Vec<String>>>,
    slept: Arc<Mutex<Vec<Duration>>>,
}

impl Watched {
    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    fn slept(&self) -> Vec<u64> {
        self.slept.lock().unwrap().iter().map(Duration::as_secs).collect()
    }
}

fn subscription() -> SubscriptionId {
    SUB.parse().unwrap()
}

fn identity_id(name: &str) -> ArmId {
    ArmId::of_identity(subscription(), "rg", name)
}

fn identity(name: &str) -> Value {
    json!({
        "location": "westeurope", "tags": {"owner": "a"},
        "id": identity_id(name).as_str().replace("resourceGroups", "resourcegroups"),
        "name": name, "type": "Microsoft.ManagedIdentity/userAssignedIdentities",
        "properties": {
            "tenantId": "00000000-0000-0000-0000-00000000000a",
            "principalId": "00000000-0000-0000-0000-00000000000b",
            "clientId": "00000000-0000-0000-0000-00000000000c",
        },
    })
}

fn credential() -> ObservedCredential {
    ObservedCredential {
        name: "wi-1".into(),
        issuer: "https://issuer/".into(),
        subject: Some("system:serviceaccount:a:b".into()),
        audiences: vec!["api://AzureADTokenExchange".into()],
    }
}

fn credential_json() -> Value {
    json!({"name": "wi-1", "properties": {
        "issuer": "https://issuer/", "subject": "system:serviceaccount:a:b",
        "audiences": ["api://AzureADTokenExchange"],
    }})
}

#[tokio::test]
async fn a_list_is_read_to_its_last_page() {
    let server = Server::start([]).await;
    let next = server.link("/subscriptions/x?page=2&$skiptoken=abc");
    server.script([
        reply(200, &json!({"value": [identity("a")], "nextLink": next})),
        reply(200, &json!({"value": [identity("b")], "nextLink": ""})),
    ]);
    let list = server.arm().arm.identities_in_group(subscription(), "rg").await.unwrap().unwrap();
    assert_eq!(list.iter().map(|one| one.id.name()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(list[0].id, identity_id("A"), "ids compare without case");
    assert!(server.seen()[1].target.ends_with("?page=2&$skiptoken=abc"));
}

#[tokio::test]
async fn a_next_link_to_another_host_is_not_followed() {
    let other = Server::start([reply(200, &json!({"value": []}))]).await;
    let page = json!({"value": [], "nextLink": other.link("/steal")});
    let server = Server::start([reply(200, &page)]).await;
    let failed = server.arm().arm.identities_in_group(subscription(), "rg").await.unwrap_err();
    assert!(matches!(failed, ArmError::ForeignLink { .. }), "{failed}");
    assert!(other.seen().is_empty(), "no token reached it");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Server::start([]).await;
    let moved = Reply { status: 307, ..Reply::default() }.with("location", other.link("/x"));
    let server = Server::start([moved]).await;
    let failed = server.arm().arm.identity(&identity_id("a")).await.unwrap_err();
    assert!(failed.to_string().contains("redirects"), "{failed}");
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn an_operation_address_on_another_host_is_not_followed() {
    let other = Server::start([]).await;
    let server = Server::start([
        reply(200, &cluster("Succeeded", false)),
        reply(200, &cluster("Updating", true)).with("azure-asyncoperation", other.link("/op")),
    ])
    .await;
    let features = BTreeSet::from([Feature::OidcIssuer]);
    let failed = server.arm().arm.enable_features(&cluster_id(), &features).await.unwrap_err();
    assert!(matches!(failed, ArmError::ForeignLink { .. }), "{failed}");
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn absence_is_believed_only_where_the_code_proves_it() {
    let not_found = |code| error(404, code, "not found");
    let server = Server::start([
        not_found("ResourceNotFound"),
        not_found("ResourceGroupNotFound"),
        not_found("SubscriptionNotFound"),
        Reply { status: 404, body: b"<html>proxy</html>".to_vec(), ..Reply::default() },
        not_found("ResourceGroupNotFound"),
        not_found("ParentResourceNotFound"),
    ])
    .await;
    let Watched { arm, .. } = server.arm();
    assert_eq!(arm.identity(&identity_id("a")).await.unwrap(), None);
    assert_eq!(arm.identity(&identity_id("a")).await.unwrap(), None);
    assert!(arm.identity(&identity_id("a")).await.is_err());
    assert!(arm.identity(&identity_id("a")).await.is_err());
    assert!(!arm.resource_group_exists(subscription(), "rg").await.unwrap());
    assert_eq!(arm.credentials(&identity_id("a")).await.unwrap(), None);
}

#[tokio::test]
async fn throttling_waits_as_long_as_the_server_says_and_says_so() {
    let server = Server::start([
        error(429, "SubscriptionRequestsThrottled", "exceeded").with("retry-after", "17"),
        reply(200, &identity("a")),
    ])
    .await;
    let watched = server.arm();
    assert!(watched.arm.identity(&identity_id("a")).await.unwrap().is_some());
    assert_eq!(watched.slept(), [17]);
    assert_eq!(watched.told(), ["Azure's request limits"]);
}

#[tokio::test]
async fn a_server_that_stays_down_is_given_up_with_its_words_and_ids() {
    let down = error(503, "ServiceUnavailable", "try later")
        .with("retry-after", "120")
        .with("x-ms-correlation-request-id", "corr-1");
    let server = Server::start(vec![down; 9]).await;
    let watched = server.arm();
    let failed = watched.arm.identity(&identity_id("a")).await.unwrap_err();
    let failure = failed.failure("read identity a");
    assert_eq!(failure.kind, FailureKind::Unavailable);
    assert_eq!(failure.correlation_id.as_deref(), Some("corr-1"));
    assert_eq!(failure.to_string(), "read identity a: try later");
    assert_eq!(watched.slept(), [120, 120], "five minutes in sum");
}

#[tokio::test]
async fn a_request_without_an_answer_is_repeated_a_few_times() {
    let server = Server::start([]).await;
    let mut endpoints = server.endpoints();
    // A port that nobody listens on: bound here and closed at once.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    endpoints.resource_manager = Url::parse(&format!("http://{free}/")).unwrap();
    let waits: Arc<Mutex<usize>> = Arc::default();
    let count = Arc::clone(&waits);
    let waited = Arc::new(move |_: &str| *count.lock().unwrap() += 1);
    let arm = Arm::new(&endpoints, Arc::new(Fixed), waited).unwrap();
    let arm = arm.with_sleep(Arc::new(|_| Box::pin(async {})));
    let failed = arm.identity(&identity_id("a")).await.unwrap_err();
    assert_eq!(failed.failure("x").kind, FailureKind::Unreachable);
    assert_eq!(*waits.lock().unwrap(), 3);
}

#[tokio::test]
async fn a_403_is_not_repeated_and_hints_at_the_missing_role() {
    let message = "The client 'ci' with object id '0b' does not have authorization to perform \
                   action 'Microsoft.ManagedIdentity/userAssignedIdentities/write' over scope \
                   '/subscriptions/s/resourceGroups/rg' or the scope is invalid.";
    let server = Server::start([error(403, "AuthorizationFailed", message)]).await;
    let Watched { arm, .. } = server.arm();
    let failed = arm.create_identity(&identity_id("a"), "westeurope", &BTreeMap::new()).await;
    let failure = failed.unwrap_err().failure("create identity a");
    assert_eq!((failure.kind, failure.status), (FailureKind::Denied, Some(403)));
    assert!(failure.hint.unwrap().contains("--role \"Managed Identity Contributor\""));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_identity_is_made_and_its_tags_are_patched_whole() {
    let server = Server::start([reply(201, &identity("a")), reply(200, &identity("a"))]).await;
    let Watched { arm, .. } = server.arm();
    let tags = BTreeMap::from([("team".to_owned(), "x".to_owned())]);
    arm.create_identity(&identity_id("a"), "westeurope", &tags).await.unwrap();
    arm.set_identity_tags(&identity_id("a"), &tags).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].method, Method::PUT);
    assert_eq!(seen[0].json(), json!({"location": "westeurope", "tags": {"team": "x"}}));
    assert_eq!(seen[1].method, Method::PATCH);
    assert_eq!(seen[1].json(), json!({"tags": {"team": "x"}}));
    assert!(seen[1].target.ends_with("?api-version=2023-01-31"));
}

#[tokio::test]
async fn a_name_is_escaped_into_one_segment() {
    let server = Server::start([reply(200, &identity("a"))]).await;
    let Watched { arm, .. } = server.arm();
    drop(arm.identity(&identity_id("a?b#c%d")).await);
    assert!(server.seen()[0].target.contains("/userAssignedIdentities/a%3Fb%23c%25d?api-version="));
    let climbing = arm.identity(&identity_id("..")).await.unwrap_err();
    assert!(matches!(climbing, ArmError::BadPath { .. }));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn concurrent_writes_of_credentials_are_waited_out() {
    let code = "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity";
    let busy = error(409, code, "Too many");
    let server = Server::start([busy.clone(), busy, reply(201, &credential_json())]).await;
    let watched = server.arm();
    let made = watched.arm.put_credential(&identity_id("a"), &credential()).await.unwrap();
    assert_eq!(made, credential());
    assert!(watched.slept().iter().all(|seconds| (1..=10).contains(seconds)));
    assert_eq!(
        server.seen()[2].json()["properties"]["audiences"],
        json!(["api://AzureADTokenExchange"])
    );
}

#[tokio::test]
async fn a_missing_parent_is_waited_for_only_after_this_run_made_it() {
    let missing = error(404, "ParentResourceNotFound", "could not be found");
    let server = Server::start([missing.clone()]).await;
    let watched = server.arm();
    let failed = watched.arm.put_credential(&identity_id("a"), &credential()).await.unwrap_err();
    assert_eq!(failed.disposition(), widentity::azure::disposition::Disposition::Stale);
    assert!(watched.slept().is_empty());

    server.script([
        reply(201, &identity("A")),
        missing.clone(),
        missing,
        reply(201, &credential_json()),
    ]);
    watched.arm.create_identity(&identity_id("A"), "x", &BTreeMap::new()).await.unwrap();
    watched.arm.put_credential(&identity_id("a"), &credential()).await.unwrap();
    assert_eq!(watched.slept(), [10, 10]);
    assert_eq!(watched.told()[0], "the new identity to be known everywhere");
}

fn assignment() -> NewAssignment {
    NewAssignment {
        scope: ArmId::new(format!("/subscriptions/{SUB}/resourceGroups/rg")),
        name: "00000000-0000-0000-0000-00000000000d".parse().unwrap(),
        principal: "00000000-0000-0000-0000-00000000000b".parse().unwrap(),
        role: "4633458b-17de-408a-b874-0445c86b69e6".parse().unwrap(),
        description: "managed by widentity; project=p".into(),
        condition: None,
    }
}

#[tokio::test]
async fn an_existing_role_assignment_is_no_error() {
    let message = "The role assignment already exists. The ID of the existing role assignment is \
                   716c4d159bc8476da3c16ccb70082517.";
    let server = Server::start([error(409, "RoleAssignmentExists", message)]).await;
    let PutAssignment::Existed(Some(guid)) =
        server.arm().arm.put_assignment(&assignment()).await.unwrap()
    else {
        panic!("not recognised");
    };
    assert_eq!(guid.to_string(), "716c4d15-9bc8-476d-a3c1-6ccb70082517");
}

#[tokio::test]
async fn an_unknown_principal_is_waited_for_only_after_this_run_made_it() {
    let unknown = error(400, "PrincipalNotFound", "does not exist in the directory");
    let server = Server::start([unknown.clone()]).await;
    let watched = server.arm();
    assert!(watched.arm.put_assignment(&assignment()).await.is_err());
    assert!(watched.slept().is_empty());

    let new = assignment();
    let made = json!({"id": format!("{}/providers/Microsoft.Authorization/roleAssignments/{}", new.scope, new.name),
    "name": new.name, "properties": {
        "roleDefinitionId": format!("/subscriptions/{SUB}/providers/Microsoft.Authorization/roleDefinitions/{}", new.role),
        "principalId": new.principal, "scope": new.scope.as_str(), "description": new.description,
    }});
    server.script([reply(201, &identity("a")), unknown, reply(201, &made)]);
    watched.arm.create_identity(&identity_id("a"), "x", &BTreeMap::new()).await.unwrap();
    let PutAssignment::Made(seen) = watched.arm.put_assignment(&new).await.unwrap() else {
        panic!("not made");
    };
    assert_eq!((seen.role, seen.scope), (new.role, new.scope));
    assert_eq!(watched.slept(), [10]);
}

#[tokio::test]
async fn assignments_are_asked_for_by_principal_and_roles_by_name() {
    let empty = || reply(200, &json!({"value": []}));
    let definition = json!({"name": "4633458b-17de-408a-b874-0445c86b69e6",
        "properties": {"roleName": "Bob's Role"}});
    let server =
        Server::start([empty(), empty(), reply(200, &json!({"value": [definition]}))]).await;
    let Watched { arm, .. } = server.arm();
    let scope = ArmId::of_subscription(subscription());
    arm.assignments_at(&scope, None).await.unwrap();
    arm.assignments_at(&scope, Some(assignment().principal)).await.unwrap();
    let roles = arm.role_definitions(&scope, "bob's role").await.unwrap();
    assert_eq!(roles, [assignment().role]);
    let seen = server.seen();
    assert!(!seen[0].target.contains("filter"));
    assert!(
        seen[1]
            .target
            .ends_with("&$filter=principalId%20eq%20%2700000000-0000-0000-0000-00000000000b%27")
    );
    assert!(seen[2].target.ends_with("&$filter=roleName%20eq%20%27bob%27%27s%20role%27"));
}

fn cluster_id() -> ArmId {
    ArmId::new(format!(
        "/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks"
    ))
}

fn cluster(state: &str, enabled: bool) -> Value {
    let mut cluster = json!({
        "id": cluster_id().as_str(), "name": "aks", "location": "westeurope", "eTag": "tag-1",
        "properties": {
            "provisioningState": state, "fqdn": "aks.example", "unknown": {"kept": [1, null]},
            "oidcIssuerProfile": {"enabled": enabled}, "securityProfile": {},
        },
    });
    if enabled {
        cluster["properties"]["oidcIssuerProfile"]["issuerURL"] = json!("https://issuer/t/u/");
        cluster["properties"]["securityProfile"] = json!({"workloadIdentity": {"enabled": true}});
    }
    cluster
}

fn both() -> BTreeSet<Feature> {
    BTreeSet::from([Feature::OidcIssuer, Feature::WorkloadIdentity])
}

#[tokio::test]
async fn features_are_enabled_under_the_etag_and_the_operation_is_waited_for() {
    let server = Server::start([]).await;
    let operation = server.link("/op?api-version=2025-03-01&t=638&c=MII&s=a%2Bb");
    server.script([
        reply(200, &cluster("Succeeded", false)),
        reply(200, &cluster("Updating", true)).with("azure-asyncoperation", operation),
        reply(200, &json!({"status": "InProgress"})),
        reply(200, &json!({"status": "InProgress"})).with("retry-after", "20"),
        reply(200, &json!({"status": "Succeeded"})),
        reply(200, &cluster("Succeeded", true)),
    ]);
    let watched = server.arm();
    let done = watched.arm.enable_features(&cluster_id(), &both()).await.unwrap();
    assert_eq!(done.issuer.unwrap().as_str(), "https://issuer/t/u/");
    assert_eq!(watched.slept(), [1, 2, 20]);
    assert_eq!(watched.told()[0], "the cluster's update");
    let seen = server.seen();
    assert_eq!(seen[1].headers["if-match"], "tag-1");
    assert_eq!(seen[1].json()["properties"]["unknown"], json!({"kept": [1, null]}));
    assert!(seen[2].target.ends_with("/op?api-version=2025-03-01&t=638&c=MII&s=a%2Bb"));
}

#[tokio::test]
async fn features_that_are_on_write_nothing() {
    let server = Server::start([reply(200, &cluster("Succeeded", true))]).await;
    server.arm().arm.enable_features(&cluster_id(), &both()).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_busy_cluster_is_waited_for_and_read_again_before_the_write() {
    let message = "Operation is not allowed because there's an in progress update managed cluster \
                   operation (operation ID: e375d315) on the managed cluster";
    let busy = reply(409, &json!({"code": "OperationNotAllowed", "message": message}));
    let mut later = cluster("Succeeded", false);
    later["eTag"] = json!("tag-2");
    let server = Server::start([
        reply(200, &cluster("Succeeded", false)),
        busy,
        reply(200, &cluster("Updating", false)),
        reply(200, &later),
        reply(200, &cluster("Succeeded", true)),
        reply(200, &cluster("Succeeded", true)),
        reply(200, &cluster("Succeeded", true)),
    ])
    .await;
    let watched = server.arm();
    watched.arm.enable_features(&cluster_id(), &both()).await.unwrap();
    assert_eq!(server.seen()[4].headers["if-match"], "tag-2");
    assert_eq!(watched.told()[0], "another operation on the cluster");
}

#[tokio::test]
async fn an_operation_that_fails_says_why() {
    let server = Server::start([]).await;
    let failed = json!({"status": "Failed", "error": {"code": "InternalError", "message": "boom"}});
    server.script([
        reply(200, &cluster("Succeeded", false)),
        reply(200, &cluster("Updating", false)).with("azure-asyncoperation", server.link("/op")),
        reply(200, &failed),
    ]);
    let error = server.arm().arm.enable_features(&cluster_id(), &both()).await.unwrap_err();
    assert_eq!(error.to_string(), "the operation ended as Failed: boom");
    assert_eq!(error.code(), Some("InternalError"));
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let endless = Reply { status: 200, body: vec![b' '; 17 << 20], ..Reply::default() };
    let server = Server::start([endless]).await;
    let failed = server.arm().arm.identity(&identity_id("a")).await.unwrap_err();
    assert!(matches!(failed, ArmError::Body { .. }), "{failed}");
}

#[tokio::test]
async fn plain_http_is_not_spoken_beyond_loopback() {
    let mut endpoints = Endpoints::public();
    endpoints.resource_manager = Url::parse("http://management.example.invalid/").unwrap();
    let arm = Arm::new(&endpoints, Arc::new(Fixed), widentity::azure::silent()).unwrap();
    let failed = arm.identity(&identity_id("a")).await.unwrap_err();
    assert!(failed.to_string().contains("only to loopback"), "{failed}");
}

#[tokio::test]
async fn a_custom_cloud_describes_itself() {
    let metadata = json!({"authentication": {"audiences": ["https://arm.contoso.com/"],
        "loginEndpoint": "https://evil.example/"}});
    let server = Server::start([reply(200, &metadata)]).await;
    let endpoints = server.endpoints().discover().await.unwrap();
    assert_eq!(endpoints.arm_scope, "https://arm.contoso.com/.default");
    assert_eq!(endpoints.authority, server.url);
    assert!(server.seen()[0].headers.get("authorization").is_none());
}

#[tokio::test]
async fn entra_is_asked_with_the_assertion_and_answers_with_codes() {
    let refusal = json!({"error": "invalid_client", "error_codes": [700_213],
        "error_description": "AADSTS700213: No matching record. Trace ID: t", "trace_id": "t"});
    let server = Server::start([reply(401, &refusal)]).await;
    let entra = Entra::new(&server.endpoints()).unwrap();
    let (tenant, client) = (
        "00000000-0000-0000-0000-00000000000a".parse().unwrap(),
        "00000000-0000-0000-0000-00000000000c".parse().unwrap(),
    );
    let assertion = Token::new("a.b.c");
    let scope = "https://management.azure.com/.default";
    let failed = entra.exchange(tenant, client, &assertion, scope).await.unwrap_err();
    let ExchangeError::Refused(refusal) = failed else { panic!("not refused") };
    assert_eq!(refusal.codes, [700_213]);
    let seen = &server.seen()[0];
    assert_eq!(seen.target, "/00000000-0000-0000-0000-00000000000a/oauth2/v2.0/token");
    assert!(std::str::from_utf8(&seen.body).unwrap().ends_with("&client_assertion=a.b.c"));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Which log lines are wanted is remembered per process, and tests beside this one would decide
/// it too: so it runs alone.
#[test]
fn no_log_line_at_any_level_shows_a_token_or_an_assertion() {
    let alone = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "azure_client::the_log_of_a_process_of_its_own"])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && output.contains("1 passed"), "{output}");
}

#[tokio::test]
#[ignore = "run in a process of its own by the test above"]
async fn the_log_of_a_process_of_its_own() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    async {
        let server = Server::start([]).await;
        let link = server.link("/next?$skiptoken=the-skip-token");
        server.script([
            reply(200, &json!({"value": [], "nextLink": link})),
            reply(200, &json!({"value": []})),
            reply(200, &json!({"access_token": "x.the-access-token.y", "expires_in": 1})),
        ]);
        server.arm().arm.identities_in_group(subscription(), "rg").await.unwrap();
        let entra = Entra::new(&server.endpoints()).unwrap();
        let guid = "00000000-0000-0000-0000-00000000000a";
        let assertion = Token::new("x.the-assertion.y");
        let scope = "https://management.azure.com/.default";
        entra
            .exchange(guid.parse().unwrap(), guid.parse().unwrap(), &assertion, scope)
            .await
            .unwrap();
    }
    .with_subscriber(subscriber)
    .await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("userAssignedIdentities"), "the log was captured: {log}");
    for secret in [SECRET, "the-skip-token", "the-access-token", "the-assertion"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
