//! The ARM client and the Entra client against servers that answer from a script.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::Method;
use serde_json::{Value, json};
use tracing::instrument::WithSubscriber as _;
use url::Url;
use widentity::{
    azure::{
        Arm, ArmError, AuthKind, CredentialEnv, Endpoints, Entra, ExchangeError, NewAssignment,
        PutAssignment, choose, silent,
    },
    model::{ArmId, FailureKind, SubscriptionId, Token, snapshot::ObservedCredential},
};

use crate::support::scripted::{Fixed, Reply, SECRET, Server, Watched, error, reply};

const SUB: &str = "00000000-0000-0000-0000-000000000001";

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
async fn a_server_that_says_0_for_ever_is_given_up() {
    let busy = error(429, "TooManyRequests", "again").with("retry-after", "0");
    let server = Server::start(vec![busy; 400]).await;
    let watched = server.arm();
    let failed = watched.arm.identity(&identity_id("a")).await.unwrap_err();
    assert_eq!(failed.failure("x").kind, FailureKind::Unavailable);
    assert_eq!(watched.slept(), vec![1; 300]);
}

#[tokio::test]
async fn throttling_does_not_use_up_the_tries_without_an_answer() {
    let mut script = vec![error(429, "TooManyRequests", "again").with("retry-after", "1"); 4];
    // A length that is never reached: the connection ends in the middle.
    script.push(reply(200, &identity("a")).with("content-length", "9999"));
    script.push(reply(200, &identity("a")));
    let server = Server::start(script).await;
    assert!(server.arm().arm.identity(&identity_id("a")).await.unwrap().is_some());
}

/// A lock, a quota or a target that is gone is no plan gone stale: planning again shows the same.
#[tokio::test]
async fn what_planning_again_does_not_change_is_not_stale() {
    for refused in [
        error(409, "ScopeLocked", "cannot perform write operation because of locks"),
        error(409, "RoleAssignmentLimitExceeded", "no more than 4000"),
        error(404, "ResourceNotFound", "the vault was not found"),
    ] {
        let server = Server::start([refused]).await;
        let failed = server.arm().arm.put_assignment(&assignment()).await.unwrap_err();
        assert_eq!(failed.failure("x").kind, FailureKind::Refused, "{failed}");
    }
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
    watched.arm.put_credential(&identity_id("a"), &credential()).await.unwrap();
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
    // What a write answers beside its status is not needed, so nothing depends on it.
    server.script([reply(201, &identity("a")), unknown, reply(201, &Value::Null)]);
    watched.arm.create_identity(&identity_id("a"), "x", &BTreeMap::new()).await.unwrap();
    assert_eq!(watched.arm.put_assignment(&new).await.unwrap(), PutAssignment::Made);
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
    let arm = Arm::new(&endpoints, Arc::new(Fixed), silent()).unwrap();
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

/// Plain http to this machine is allowed everywhere, also to log in.
#[tokio::test]
async fn a_credential_logs_in_at_an_authority_on_this_machine() {
    let token = json!({"token_type": "Bearer", "expires_in": 3600, "access_token": "t"});
    let server = Server::start([reply(200, &token)]).await;
    let variables = [
        ("AZURE_TENANT_ID", "00000000-0000-0000-0000-00000000000a"),
        ("AZURE_CLIENT_ID", "00000000-0000-0000-0000-00000000000c"),
        ("AZURE_CLIENT_SECRET", "s"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let env = CredentialEnv { variables: variables.into(), tenant: None };
    let chosen = choose(&env, &server.endpoints(), None, &silent()).await.unwrap();
    assert_eq!(chosen.kind, AuthKind::Environment);
    assert!(server.seen()[0].target.ends_with("/oauth2/v2.0/token"), "{:?}", server.seen());
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
