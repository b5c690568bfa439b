//! The sandbox's Azure side over real HTTPS.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use widentity::sandbox::{
    ClusterRef, Context, Options, Place, Running, Sandbox, Seed, SeedCluster, StartError,
    clock::Clock, faults::Rule, files::FileError, tokens,
};

const SUB: &str = "00000000-0000-4000-8000-00000000000a";
const ARM: &str = "https://management.azure.com/.default";
const SECRETS_USER: &str = "4633458b-17de-408a-b874-0445c86b69e6";

fn cluster_id(name: &str) -> String {
    format!(
        "/subscriptions/{SUB}/resourceGroups/rg-aks/providers/Microsoft.ContainerService/managedClusters/{name}"
    )
}

fn seed() -> Seed {
    let cluster = |name: &str, on: bool| SeedCluster {
        cluster: ClusterRef { name: name.into(), id: cluster_id(&format!("aks-{name}")) },
        location: String::new(),
        oidc_issuer: on,
        workload_identity: on,
        entra: false,
        namespaces: Vec::new(),
        deployments: Vec::new(),
        objects: Vec::new(),
    };
    Seed {
        clusters: vec![cluster("prod", false), cluster("on", true)],
        resource_groups: vec![format!("/subscriptions/{SUB}/resourceGroups/rg-id")],
        targets: vec![
            vault(),
            format!(
                "/subscriptions/{SUB}/resourceGroups/rg-data/providers/Microsoft.Storage/storageAccounts/stdata"
            ),
        ],
        ..Seed::default()
    }
}

fn vault() -> String {
    format!(
        "/subscriptions/{SUB}/resourceGroups/rg-data/providers/Microsoft.KeyVault/vaults/kv-data"
    )
}

fn options(directory: &tempfile::TempDir) -> Options {
    let mut options = Options::new(Place::Memory(directory.path().to_owned()), seed());
    options.clock = Clock::manual("2026-11-21T12:00:00Z".parse().unwrap());
    options.settings.subscription = SUB.parse().unwrap();
    options
}

/// A running sandbox, its operator's token, and a client that trusts it.
struct World {
    running: Running,
    client: Client,
    token: String,
    _directory: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    body: Value,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn code(&self) -> &str {
        let error = if self.body["error"].is_object() { &self.body["error"] } else { &self.body };
        error["code"].as_str().unwrap_or_default()
    }

    fn aadsts(&self) -> u64 {
        self.body["error_codes"][0].as_u64().unwrap_or(0)
    }
}

impl World {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = options(&directory);
        change(&mut options);
        let running = Sandbox::start(options).await.unwrap();
        let client = client(&running);
        let mut world = Self { running, client, token: String::new(), _directory: directory };
        world.token = world.operator_token(ARM).await;
        world
    }

    fn ctx(&self) -> &Arc<Context> {
        self.running.context()
    }

    fn pass(&self, seconds: u64) {
        self.ctx().clock.advance(Duration::from_secs(seconds));
    }

    async fn operator_token(&self, scope: &str) -> String {
        let ready = self.running.ready();
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope={scope}",
            ready.client_id, ready.client_secret
        );
        let answer = self.form(&ready.tenant.to_string(), form).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.body["access_token"].as_str().unwrap().to_owned()
    }

    async fn form(&self, tenant: &str, form: String) -> Answer {
        let url = format!("{}/{tenant}/oauth2/v2.0/token", self.running.ready().authority);
        let kind = "application/x-www-form-urlencoded";
        let request = self.client.post(url).header("content-type", kind).body(form);
        read(request).await
    }

    /// A federated exchange of `assertion` for a token of ARM.
    async fn exchange(&self, client_id: &str, assertion: &str, scope: &str) -> Answer {
        let form = format!(
            "grant_type=client_credentials&client_id={client_id}&scope={scope}\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
             &client_assertion={assertion}"
        );
        self.form(&self.running.ready().tenant.to_string(), form).await
    }

    async fn arm_as(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let url = if path.starts_with("https://") {
            path.to_owned()
        } else {
            format!("{}{path}", self.running.ready().resource_manager)
        };
        let mut request = self.client.request(method, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        read(request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.arm_as(&self.token, Method::GET, path, None).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.arm_as(&self.token, Method::PUT, path, Some(body)).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.arm_as(&self.token, Method::DELETE, path, None).await
    }

    /// An identity with its client and principal ids.
    async fn identity(&self, name: &str) -> (String, String) {
        let made = self.put(&identity(name), json!({ "location": "westeurope" })).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let id = |member: &str| made.body["properties"][member].as_str().unwrap().to_owned();
        (id("clientId"), id("principalId"))
    }

    /// A service account token of a cluster, as its API server would sign it.
    fn account_token(&self, cluster: &str, subject: &str, audience: &str) -> String {
        let ctx = self.ctx();
        let id = cluster_id(cluster);
        let now = ctx.clock.now().as_second();
        let claims = json!({
            "iss": tokens::issuer(ctx, &id).unwrap(), "sub": subject, "aud": [audience],
            "iat": now, "nbf": now, "exp": now + 3600,
        });
        tokens::sign_jwt(&tokens::signing_key(ctx, &id).unwrap(), &claims).unwrap()
    }
}

fn client(running: &Running) -> Client {
    let ca = std::fs::read(&running.ready().ca_file).unwrap();
    Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
        .no_proxy()
        .build()
        .unwrap()
}

async fn read(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status, headers, body, text }
}

fn identity(name: &str) -> String {
    format!(
        "/subscriptions/{SUB}/resourceGroups/rg-id/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}?api-version=2023-01-31"
    )
}

fn fic(identity: &str, name: &str) -> String {
    format!(
        "/subscriptions/{SUB}/resourceGroups/rg-id/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{identity}/federatedIdentityCredentials/{name}?api-version=2023-01-31"
    )
}

fn fic_body(issuer: &str, subject: &str) -> Value {
    json!({ "properties": {
        "issuer": issuer, "subject": subject, "audiences": ["api://AzureADTokenExchange"],
    }})
}

fn role(scope: &str, name: &str) -> String {
    format!(
        "{scope}/providers/Microsoft.Authorization/roleAssignments/{name}?api-version=2022-04-01"
    )
}

fn role_body(principal: &str, role: &str) -> Value {
    json!({ "properties": {
        "roleDefinitionId": format!(
            "/subscriptions/{SUB}/providers/Microsoft.Authorization/roleDefinitions/{role}"
        ),
        "principalId": principal, "principalType": "ServicePrincipal",
    }})
}

#[tokio::test]
async fn a_request_without_a_good_token_is_refused() {
    let world = World::start().await;
    let url =
        format!("{}/subscriptions?api-version=2022-12-01", world.running.ready().resource_manager);
    let none = read(world.client.get(&url)).await;
    assert_eq!((none.status.as_u16(), none.code()), (401, "AuthenticationFailed"));
    assert!(none.header("www-authenticate").contains("authorization_uri"));
    let junk = read(world.client.get(&url).bearer_auth("a.b.c")).await;
    assert_eq!((junk.status.as_u16(), junk.code()), (401, "InvalidAuthenticationToken"));
    let other = world.operator_token("https://vault.azure.net/.default").await;
    let other = read(world.client.get(&url).bearer_auth(other)).await;
    assert_eq!(other.code(), "InvalidAuthenticationTokenAudience");
    world.pass(3601);
    let old = world.get("/subscriptions?api-version=2022-12-01").await;
    assert_eq!((old.status.as_u16(), old.code()), (401, "ExpiredAuthenticationToken"));
}

#[tokio::test]
async fn identities_look_as_on_azure() {
    let world = World::start().await;
    let path = identity("wi_a");
    let missing = world.get(&path).await;
    assert_eq!((missing.status.as_u16(), missing.code()), (404, "ResourceNotFound"));
    assert_eq!(missing.header("x-ms-failure-cause"), "gateway");
    let made = world.put(&path, json!({ "location": "West Europe", "tags": { "a": "1" } })).await;
    assert_eq!(made.status, 201);
    let id = made.body["id"].as_str().unwrap();
    assert!(id.contains("/resourcegroups/rg-id/"), "{id}");
    assert_eq!(made.header("location"), id);
    assert_eq!(made.header("content-type"), "application/json; charset=utf-8");
    assert!(!made.header("x-ms-request-id").is_empty());
    assert!(!made.header("x-ms-ratelimit-remaining-subscription-writes").is_empty());
    assert_eq!(made.body["location"], "westeurope");
    let again = world.put(&path, json!({ "location": "westeurope" })).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.body["properties"], made.body["properties"]);
    assert_eq!(again.body["tags"], json!({}));
    let patched = world
        .arm_as(&world.token, Method::PATCH, &path, Some(json!({ "tags": { "b": "2" } })))
        .await;
    assert_eq!((patched.status.as_u16(), &patched.body["tags"]), (200, &json!({ "b": "2" })));
    // Paths are compared without case.
    let shouted = world.get(&path.replace("rg-id", "RG-ID").replace("wi_a", "WI_A")).await;
    assert_eq!(shouted.body["id"], made.body["id"]);
    let gone = world.delete(&path).await;
    assert_eq!(
        (gone.status.as_u16(), gone.header("content-length"), gone.text.as_str()),
        (200, "0", "")
    );
    assert_eq!(world.delete(&path).await.status, 204);
    let nowhere = world.put(&path.replace("rg-id", "rg-none"), json!({ "location": "x" })).await;
    assert_eq!(nowhere.code(), "ResourceGroupNotFound");
    let unknown = world.get(&path.replace(SUB, "00000000-0000-4000-8000-00000000000f")).await;
    assert_eq!(unknown.code(), "SubscriptionNotFound");
    let versionless = world.get(path.split('?').next().unwrap()).await;
    assert_eq!(versionless.code(), "MissingApiVersionParameter");
}

#[tokio::test]
async fn lists_come_in_pages_with_absolute_links() {
    let world = World::start().await;
    for name in ["id-a", "id-b", "id-c"] {
        world.identity(name).await;
    }
    let list = format!(
        "/subscriptions/{SUB}/providers/Microsoft.ManagedIdentity/userAssignedIdentities?api-version=2023-01-31&$top=2"
    );
    let first = world.get(&list).await;
    assert_eq!(first.body["value"].as_array().unwrap().len(), 2);
    let next = first.body["nextLink"].as_str().unwrap();
    assert!(next.starts_with(&world.running.ready().resource_manager), "{next}");
    let second = world.get(next).await;
    assert_eq!(second.body["value"][0]["name"], "id-c");
    assert!(second.body.get("nextLink").is_none());
}

#[tokio::test]
async fn federated_credentials_obey_the_documented_rules() {
    let world = World::start().await;
    let orphan = world.put(&fic("id-a", "one"), fic_body("https://x/", "s")).await;
    assert_eq!((orphan.status.as_u16(), orphan.code()), (404, "ParentResourceNotFound"));
    world.identity("id-a").await;
    let made = world.put(&fic("id-a", "one"), fic_body("https://x/", "s")).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.header("location"), made.body["id"].as_str().unwrap());
    let same = world.put(&fic("id-a", "two"), fic_body("https://x/", "s")).await;
    assert_eq!((same.status.as_u16(), same.code()), (409, "Conflict"));
    let changed = world.put(&fic("id-a", "one"), fic_body("https://x/", "t")).await;
    assert_eq!((changed.status.as_u16(), changed.header("location")), (200, ""));
    let bad = world.put(&fic("id-a", "no"), fic_body("https://x/", "u")).await;
    assert_eq!(bad.code(), "BadRequest");
    let two = json!({ "properties": { "issuer": "https://x/", "subject": "v", "audiences": ["a", "b"] } });
    let two = world.put(&fic("id-a", "two"), two).await;
    assert!(two.text.contains("exactly one audience"), "{}", two.text);
    for n in 1..20 {
        let made = world
            .put(&fic("id-a", &format!("fic-{n}")), fic_body("https://x/", &n.to_string()))
            .await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    assert_eq!(world.put(&fic("id-a", "fic-20"), fic_body("https://x/", "20")).await.status, 400);
    assert_eq!(world.delete(&fic("id-a", "one")).await.status, 200);
    assert_eq!(world.delete(&fic("id-a", "one")).await.status, 204);
    let list = fic("id-a", "").replace("/?", "?");
    assert_eq!(world.get(&list).await.body["value"].as_array().unwrap().len(), 19);
}

#[tokio::test]
async fn one_federated_credential_is_written_at_a_time() {
    // Long enough to overlap on a busy machine.
    let long = Duration::from_secs(2);
    let world = World::with(|options| options.settings.delays.fic_write = long).await;
    world.identity("id-a").await;
    let (left, right) = (fic("id-a", "left"), fic("id-a", "right"));
    let (left, right) = tokio::join!(
        world.put(&left, fic_body("https://x/", "left")),
        world.put(&right, fic_body("https://x/", "right")),
    );
    let (refused, done) = if left.status == 409 { (left, right) } else { (right, left) };
    assert_eq!(done.status, 201);
    assert_eq!(
        refused.code(),
        "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity"
    );
}

#[tokio::test]
async fn role_assignments_have_global_names_and_unique_triples() {
    let world = World::start().await;
    let (_, principal) = world.identity("id-a").await;
    let (_, other) = world.identity("id-b").await;
    let name = "11111111-0000-4000-8000-000000000001";
    let scope = vault();
    let made = world.put(&role(&scope, name), role_body(&principal, SECRETS_USER)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.body["properties"]["scope"], scope.as_str());
    assert!(made.body["properties"]["createdBy"].is_null());
    assert!(made.body["properties"].as_object().unwrap().contains_key("condition"));
    assert_eq!(
        world.put(&role(&scope, name), role_body(&principal, SECRETS_USER)).await.status,
        200
    );
    let stolen = world.put(&role(&scope, name), role_body(&other, SECRETS_USER)).await;
    assert_eq!(stolen.code(), "RoleAssignmentUpdateNotPermitted");
    let twin = "11111111-0000-4000-8000-000000000002";
    let twin = world.put(&role(&scope, twin), role_body(&principal, SECRETS_USER)).await;
    assert_eq!((twin.status.as_u16(), twin.code()), (409, "RoleAssignmentExists"));
    assert!(twin.text.contains(&name.replace('-', "")), "{}", twin.text);
    let unknown = role_body(&principal, "00000000-0000-4000-8000-0000000000ff");
    let unknown = world.put(&role(&scope, "11111111-0000-4000-8000-000000000003"), unknown).await;
    assert_eq!(unknown.code(), "RoleDefinitionDoesNotExist");
    let list = |scope: &str, filter: &str| {
        format!(
            "{scope}/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter={filter}"
        )
    };
    let count = |answer: &Answer| answer.body["value"].as_array().map(Vec::len);
    let sub = format!("/subscriptions/{SUB}");
    let below = world.get(&list(&sub, &format!("principalId%20eq%20'{principal}'"))).await;
    assert_eq!(count(&below), Some(1), "{}", below.text);
    assert_eq!(below.body["value"][0]["properties"]["createdBy"].as_str().map(str::len), Some(36));
    assert_eq!(count(&world.get(&list(&sub, "atScope()")).await), Some(0));
    assert_eq!(count(&world.get(&list(&scope, "atScope()")).await), Some(1));
    let both = world
        .get(&list(&sub, &format!("atScope()%20and%20principalId%20eq%20'{principal}'")))
        .await;
    assert_eq!(both.status, 400);
    let gone = world.delete(&role(&scope, name)).await;
    assert_eq!((gone.status.as_u16(), &gone.body["name"]), (200, &json!(name)));
    assert_eq!(world.delete(&role(&scope, name)).await.status, 204);
    assert_eq!(world.get(&role(&scope, name)).await.status, 404);
}

#[tokio::test]
async fn role_definitions_are_found_by_name_in_any_case() {
    let world = World::start().await;
    let found = world
        .get(&format!("/subscriptions/{SUB}/resourceGroups/rg-id/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName%20eq%20'key%20vault%20secrets%20user'&api-version=2022-04-01"))
        .await;
    let found = found.body["value"].as_array().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["name"], SECRETS_USER);
    let id = found[0]["id"].as_str().unwrap();
    assert!(id.starts_with(&format!("/subscriptions/{SUB}/providers/")), "{id}");
    let one = world.get(&format!("{id}?api-version=2022-04-01")).await;
    assert_eq!(one.body["properties"]["roleName"], "Key Vault Secrets User");
}

#[tokio::test]
async fn a_new_principal_and_parent_may_take_time_to_be_seen() {
    let world = World::with(|options| {
        options.settings.delays.principal = Duration::from_secs(20);
        options.settings.delays.parent = Duration::from_secs(5);
    })
    .await;
    let (_, principal) = world.identity("id-a").await;
    let mut body = role_body(&principal, SECRETS_USER);
    body["properties"].as_object_mut().unwrap().remove("principalType");
    let path = role(&vault(), "11111111-0000-4000-8000-000000000001");
    let early = world.put(&path, body.clone()).await;
    assert_eq!((early.status.as_u16(), early.code()), (400, "PrincipalNotFound"));
    assert!(early.text.contains("replication delay"));
    let orphan = world.put(&fic("id-a", "one"), fic_body("https://x/", "s")).await;
    assert_eq!(orphan.code(), "ParentResourceNotFound");
    world.pass(20);
    assert_eq!(world.put(&path, body).await.status, 201);
    assert_eq!(world.put(&fic("id-a", "one"), fic_body("https://x/", "s")).await.status, 201);
}

#[tokio::test]
async fn the_pools_of_a_cluster_can_be_read() {
    let world = World::start().await;
    let at = format!("{}/agentPools", cluster_id("aks-prod"));
    let version = "?api-version=2025-10-01";
    let cluster = world.get(&format!("{}{version}", cluster_id("aks-prod"))).await.body;
    let listed = world.get(&format!("{at}{version}")).await.body;
    let pools = listed["value"].as_array().unwrap();
    assert_eq!(pools.len(), cluster["properties"]["agentPoolProfiles"].as_array().unwrap().len());
    let first = &pools[0];
    assert_eq!(first["type"], "Microsoft.ContainerService/managedClusters/agentPools");
    assert_eq!(first["id"], format!("{}/agentPools/system", cluster["id"].as_str().unwrap()));
    assert_eq!(
        (&first["name"], &first["properties"]["mode"]),
        (&json!("system"), &json!("System"))
    );
    assert_eq!(first["properties"].get("name"), None);
    assert_eq!(&world.get(&format!("{at}/SYSTEM{version}")).await.body, first);
    let missing = world.get(&format!("{at}/none{version}")).await;
    assert_eq!((missing.status.as_u16(), missing.code()), (404, "ResourceNotFound"));
    let written = world.put(&format!("{at}/more{version}"), json!({})).await;
    assert_eq!(written.status, 405);
    let other = format!("{}/agentPools{version}", cluster_id("aks-none"));
    assert_eq!(world.get(&other).await.status, 404);
}

#[tokio::test]
async fn a_cluster_update_takes_time_and_keeps_everything_else() {
    let world = World::start().await;
    let path = format!("{}?api-version=2025-10-01", cluster_id("aks-prod"));
    let before = world.get(&path).await;
    assert_eq!(before.header("content-type"), "application/json");
    assert_eq!(before.body["type"], "Microsoft.ContainerService/ManagedClusters");
    assert_eq!(before.body["properties"]["oidcIssuerProfile"], json!({ "enabled": false }));
    let mut wanted = before.body.clone();
    wanted["properties"]["securityProfile"]["workloadIdentity"] = json!({ "enabled": true });
    let without = world.put(&path, wanted.clone()).await;
    assert_eq!(
        (without.status.as_u16(), without.body["code"].as_str()),
        (400, Some("InvalidParameter"))
    );
    wanted["properties"]["oidcIssuerProfile"] = json!({ "enabled": true });
    let stale = world.client.put(format!("{}{path}", world.running.ready().resource_manager));
    let stale =
        stale.bearer_auth(&world.token).header("if-match", "\"old\"").body(wanted.to_string());
    let stale = read(stale).await;
    assert_eq!((stale.status.as_u16(), stale.code()), (412, "EtagMismatch"));
    let put = world.put(&path, wanted.clone()).await;
    assert_eq!(put.status, 200, "{}", put.text);
    let properties = &put.body["properties"];
    assert_eq!(properties["provisioningState"], "Updating");
    let issuer = properties["oidcIssuerProfile"]["issuerURL"].as_str().unwrap();
    assert!(issuer.ends_with('/') && issuer.starts_with("https://westeurope.oic."), "{issuer}");
    let operation = put.header("azure-asyncoperation").to_owned();
    assert!(operation.len() > 4000);
    assert_eq!(world.get(&operation).await.body["status"], "InProgress");
    let busy = world.put(&path, wanted.clone()).await;
    assert_eq!(
        (busy.status.as_u16(), busy.body["code"].as_str()),
        (409, Some("OperationNotAllowed"))
    );
    world.pass(3);
    assert_eq!(world.get(&operation).await.body["status"], "Succeeded");
    let after = world.get(&path).await;
    let mut expected = before.body.clone();
    expected["properties"]["oidcIssuerProfile"] = properties["oidcIssuerProfile"].clone();
    expected["properties"]["securityProfile"]["workloadIdentity"] = json!({ "enabled": true });
    expected["eTag"] = after.body["eTag"].clone();
    assert_eq!(after.body, expected);
    assert_ne!(after.body["eTag"], before.body["eTag"]);
    let mut off = after.body.clone();
    off["properties"]["oidcIssuerProfile"]["enabled"] = false.into();
    assert_eq!(world.put(&path, off).await.code(), "OIDCIssuerFeatureCannotBeDisabled");
    let mut partial = after.body.clone();
    partial["properties"].as_object_mut().unwrap().remove("nodeProvisioningProfile");
    world.put(&path, partial).await;
    assert!(world.get(&path).await.body["properties"].get("nodeProvisioningProfile").is_none());
}

#[tokio::test]
async fn preview_versions_that_azure_dropped_are_dropped_here() {
    let world = World::start().await;
    let old =
        world.get(&format!("{}?api-version=2023-01-02-preview", cluster_id("aks-prod"))).await;
    assert_eq!((old.status.as_u16(), old.code()), (400, "NoRegisteredProviderFound"));
    assert!(old.text.contains("location 'westeurope' and API version '2023-01-02-preview'"));
}

#[tokio::test]
async fn credentials_are_kubeconfigs_for_loopback() {
    use base64::engine::general_purpose::STANDARD;
    let world = World::start().await;
    let path = format!("{}/listClusterUserCredential?api-version=2025-10-01", cluster_id("aks-on"));
    let answer = world.arm_as(&world.token, Method::POST, &path, None).await;
    let value = answer.body["kubeconfigs"][0]["value"].as_str().unwrap();
    let text = String::from_utf8(STANDARD.decode(value).unwrap()).unwrap();
    let port = world.ctx().endpoints.get().unwrap().clusters["on"].port();
    assert!(text.contains(&format!("server: https://127.0.0.1:{port}")), "{text}");
    assert!(text.contains("clusterUser_rg-aks_aks-on"));
    assert!(world.running.ready().kubeconfigs["on"].exists());
}

#[tokio::test]
async fn entra_answers_each_mismatch_with_its_own_code() {
    let world = World::start().await;
    let (client, _) = world.identity("id-a").await;
    let good = "system:serviceaccount:shop:api";
    let audience = "api://AzureADTokenExchange";
    let token = world.account_token("aks-on", good, audience);
    let none = world.exchange(&client, &token, ARM).await;
    assert_eq!((none.status.as_u16(), none.aadsts()), (401, 70_025));
    let issuer = tokens::issuer(world.ctx(), &cluster_id("aks-on")).unwrap();
    world.put(&fic("id-a", "one"), fic_body(&issuer, good)).await;
    // Not yet propagated.
    assert_eq!(world.exchange(&client, &token, ARM).await.aadsts(), 70_025);
    world.pass(2);
    let ok = world.exchange(&client, &token, ARM).await;
    assert_eq!(ok.status, 200, "{}", ok.text);
    assert_eq!(ok.body["expires_in"], 86_399);
    let claims = ok.body["access_token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let shown = world.get(&identity("id-a")).await;
    assert_eq!(claims["oid"], shown.body["properties"]["principalId"]);
    assert_eq!(claims["xms_mirid"], shown.body["id"]);
    let subject = world.account_token("aks-on", "system:serviceaccount:shop:other", audience);
    let subject = world.exchange(&client, &subject, ARM).await;
    assert_eq!((subject.status.as_u16(), subject.aadsts()), (401, 700_213));
    assert_eq!(subject.body["error"], "invalid_client");
    assert!(
        subject.body["error_description"].as_str().unwrap().contains("assertion subject 'system:")
    );
    let case = world.account_token("aks-on", "system:serviceaccount:SHOP:api", audience);
    assert_eq!(world.exchange(&client, &case, ARM).await.aadsts(), 7_002_138);
    let other = world.account_token("aks-on", good, "api://other");
    assert_eq!(world.exchange(&client, &other, ARM).await.aadsts(), 700_212);
    let other = world.account_token("aks-prod", good, audience);
    assert_eq!(world.exchange(&client, &other, ARM).await.aadsts(), 700_211);
    let mut forged = token.clone();
    forged.truncate(forged.len() - 8);
    forged.push_str("AAAAAAAA");
    assert_eq!(world.exchange(&client, &forged, ARM).await.aadsts(), 700_027);
    assert_eq!(
        world.exchange("00000000-0000-4000-8000-0000000000ee", &token, ARM).await.aadsts(),
        700_016
    );
    assert_eq!(
        world.exchange(&client, &token, "https://management.azure.com/read").await.aadsts(),
        70_011
    );
    assert_eq!(
        world.exchange(&client, &token, "https://nobody.example/.default").await.aadsts(),
        500_011
    );
    let tenant = world.form("00000000-0000-4000-8000-0000000000ee", String::new()).await;
    assert_eq!(tenant.aadsts(), 90_002);
    for malformed in ["not-a-tenant", "00000000-0000-4000-8000-0000000000ee%0A"] {
        assert_eq!(world.form(malformed, String::new()).await.aadsts(), 900_023, "{malformed}");
    }
    let wrong = format!(
        "grant_type=client_credentials&client_id={}&client_secret=x&scope={ARM}",
        world.running.ready().client_id
    );
    let wrong = world.form(&world.running.ready().tenant.to_string(), wrong).await;
    assert_eq!((wrong.status.as_u16(), wrong.aadsts()), (401, 7_000_215));
    world.pass(4000);
    assert_eq!(world.exchange(&client, &token, ARM).await.aadsts(), 700_024);
}

#[tokio::test]
async fn an_issuer_that_cannot_be_fetched_says_so() {
    let world = World::start().await;
    let (client, _) = world.identity("id-a").await;
    let issuer = "https://issuer.example/";
    let subject = "system:serviceaccount:shop:api";
    world.put(&fic("id-a", "one"), fic_body(issuer, subject)).await;
    world.pass(2);
    let claims = json!({ "iss": issuer, "sub": subject, "aud": "api://AzureADTokenExchange", "exp": 4_000_000_000_u64 });
    let key = tokens::signing_key(world.ctx(), "x").unwrap();
    let token = tokens::sign_jwt(&key, &claims).unwrap();
    let answer = world.exchange(&client, &token, ARM).await;
    assert_eq!((answer.status.as_u16(), answer.aadsts()), (400, 90_061));
}

#[tokio::test]
async fn roles_are_honoured_once_they_have_propagated() {
    let world = World::start().await;
    let (client, principal) = world.identity("id-a").await;
    let subject = "system:serviceaccount:shop:api";
    let issuer = tokens::issuer(world.ctx(), &cluster_id("aks-on")).unwrap();
    world.put(&fic("id-a", "one"), fic_body(&issuer, subject)).await;
    world.pass(2);
    let assertion = world.account_token("aks-on", subject, "api://AzureADTokenExchange");
    let token = async |scope: &str| {
        let answer = world.exchange(&client, &assertion, scope).await;
        answer.body["access_token"].as_str().unwrap().to_owned()
    };
    let kv = token("https://vault.azure.net/.default").await;
    let shown = world.get(&format!("{}?api-version=2023-07-01", vault())).await;
    let uri = shown.body["properties"]["vaultUri"].as_str().unwrap().to_owned();
    let secrets = async || {
        read(world.client.get(format!("{uri}secrets?api-version=7.4")).bearer_auth(&kv)).await
    };
    let refused = secrets().await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.body["error"]["innererror"]["code"], "ForbiddenByRbac");
    let name = "11111111-0000-4000-8000-000000000001";
    world.put(&role(&vault(), name), role_body(&principal, SECRETS_USER)).await;
    assert_eq!(secrets().await.status, 403);
    world.pass(3);
    let seen = secrets().await;
    assert_eq!(seen.status, 200, "{}", seen.text);
    // The same token at ARM: no role there.
    let arm = token(ARM).await;
    let denied = world
        .arm_as(
            &arm,
            Method::GET,
            &format!("{}?api-version=2025-10-01", cluster_id("aks-on")),
            None,
        )
        .await;
    assert_eq!((denied.status.as_u16(), denied.code()), (403, "AuthorizationFailed"));
    // Removal takes as long.
    world.delete(&role(&vault(), name)).await;
    assert_eq!(secrets().await.status, 200);
    world.pass(3);
    assert_eq!(secrets().await.status, 403);
    // Without a token the vault says where to get one.
    let challenged = read(world.client.get(format!("{uri}secrets?api-version=7.4"))).await;
    assert!(challenged.header("www-authenticate").contains("resource=\"https://vault.azure.net\""));
    // A vault with access policies does not look at roles.
    let mut policy = shown.body.clone();
    policy["properties"]["enableRbacAuthorization"] = false.into();
    world.put(&format!("{}?api-version=2023-07-01", vault()), policy).await;
    assert_eq!(secrets().await.body["error"]["innererror"]["code"], "ForbiddenByPolicy");
    // Blob storage with its own role.
    let blob = token("https://storage.azure.com/.default").await;
    let url = format!("{}/blob/stdata/?comp=list", world.running.ready().data_plane);
    let list = async || {
        let request =
            world.client.get(&url).bearer_auth(&blob).header("x-ms-version", "2023-11-03");
        read(request).await
    };
    assert!(list().await.text.contains("AuthorizationPermissionMismatch"));
    let account = format!(
        "/subscriptions/{SUB}/resourceGroups/rg-data/providers/Microsoft.Storage/storageAccounts/stdata"
    );
    let reader = role_body(&principal, "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1");
    world.put(&role(&account, "11111111-0000-4000-8000-000000000002"), reader).await;
    world.pass(3);
    assert!(list().await.text.contains("<Name>example</Name>"));
}

#[tokio::test]
async fn a_world_on_disk_continues_and_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(".widentity/sandbox.json");
    let start = || {
        let mut options = options(&directory);
        options.place = Place::File(file.clone());
        Sandbox::start(options)
    };
    let first = start().await.unwrap();
    let secret = first.ready().client_secret.clone();
    let issuer = tokens::issuer(first.context(), &cluster_id("aks-on")).unwrap();
    let ca = std::fs::read(&first.ready().ca_file).unwrap();
    let Err(StartError::Files(FileError::Locked { ready: Some(ready), .. })) = start().await else {
        panic!("the world was not locked");
    };
    assert_eq!(ready.resource_manager, first.ready().resource_manager);
    first.stop().await.unwrap();
    let second = start().await.unwrap();
    assert_eq!(second.ready().client_secret, secret);
    assert_eq!(tokens::issuer(second.context(), &cluster_id("aks-on")).unwrap(), issuer);
    assert_eq!(std::fs::read(&second.ready().ca_file).unwrap(), ca);
    second.stop().await.unwrap();
    let mut other = options(&directory);
    other.place = Place::File(file.clone());
    other.settings.tenant = "00000000-0000-4000-8000-0000000000ee".parse().unwrap();
    assert!(matches!(Sandbox::start(other).await, Err(StartError::OtherTenant { .. })));
}

#[tokio::test]
async fn faults_and_the_log_work_on_every_listener() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("requests.jsonl");
    let rules = json!([
        { "path": "*/wi_lost", "method": "PUT", "action": "reply_lost" },
        { "path": "*/wi_reset", "action": "reset" },
        { "path": "*/wi_busy", "action": { "answer": { "status": 429, "code": "TooManyRequests", "retry_after": 7 } } },
    ]);
    let rules: Vec<Rule> = serde_json::from_value(rules).unwrap();
    let world = World::with(|options| {
        options.rules = rules;
        options.request_log = Some(log.clone());
    })
    .await;
    let send = |method, name: &str| {
        let url = format!("{}{}", world.running.ready().resource_manager, identity(name));
        let body = r#"{"location":"westeurope"}"#;
        world.client.request(method, url).bearer_auth(&world.token).body(body).send()
    };
    assert!(send(Method::PUT, "wi_lost").await.is_err());
    assert_eq!(world.get(&identity("wi_lost")).await.status, 200);
    assert!(send(Method::PUT, "wi_reset").await.is_err());
    assert_eq!(world.get(&identity("wi_reset")).await.status, 404);
    let busy = world.get(&identity("wi_busy")).await;
    assert_eq!((busy.status.as_u16(), busy.header("retry-after")), (429, "7"));
    let text = String::from_utf8(std::fs::read(&log).unwrap()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["service"], "entra");
    assert!(lines.iter().any(|line| line["fault"] == "reply_lost" && line["status"].is_null()));
    assert!(!text.contains(&world.running.ready().client_secret) && !text.contains(&world.token));
}

#[tokio::test]
async fn another_process_may_add_faults_with_the_operators_secret() {
    let world = World::start().await;
    let ready = world.running.ready();
    let url = format!("{}/sandbox/faults", ready.resource_manager);
    let rule = json!({ "path": "/subscriptions", "action": { "answer": { "status": 503 } } });
    let post = |secret: &str| {
        let request = world.client.post(&url).bearer_auth(secret);
        read(request.header("content-type", "application/json").body(rule.to_string()))
    };
    assert_eq!(post("guess").await.status, 401);
    assert_eq!(post(&ready.client_secret).await.status, 204);
    assert_eq!(world.get("/subscriptions?api-version=2022-12-01").await.status, 503);
    assert_eq!(world.get("/subscriptions?api-version=2022-12-01").await.status, 200);
    let seen = read(world.client.get(&url).bearer_auth(&ready.client_secret)).await;
    assert_eq!(seen.body[0]["seen"], 2);
}

#[tokio::test]
async fn published_limits_answer_429_when_they_are_on() {
    let world = World::with(|options| options.settings.limits = true).await;
    world.identity("id-a").await;
    let mut throttled = None;
    for n in 0..8 {
        let answer = world
            .put(&fic("id-a", &format!("fic-{n}")), fic_body("https://x/", &n.to_string()))
            .await;
        if answer.status == 429 {
            throttled = Some(answer);
            break;
        }
    }
    let throttled = throttled.expect("four writes fill the bucket of one identity");
    assert_eq!(throttled.header("retry-after"), "4");
    world.pass(4);
    assert_eq!(world.put(&fic("id-a", "later"), fic_body("https://x/", "later")).await.status, 201);
}

#[tokio::test]
async fn metadata_names_the_other_endpoints() {
    let world = World::start().await;
    let ready = world.running.ready();
    let url = format!("{}/metadata/endpoints?api-version=2022-09-01", ready.resource_manager);
    let cloud = read(world.client.get(url)).await;
    assert_eq!(cloud.body["authentication"]["loginEndpoint"], ready.authority.as_str());
    let url = format!("{}/{}/v2.0/.well-known/openid-configuration", ready.authority, ready.tenant);
    let discovery = read(world.client.get(url)).await;
    let keys = read(world.client.get(discovery.body["jwks_uri"].as_str().unwrap())).await;
    assert_eq!(keys.body["keys"][0]["kty"], "RSA");
    let token = world.operator_token(&format!("{}/.default", ready.graph)).await;
    let (client, principal) = world.identity("id-a").await;
    let url = format!(
        "{}/v1.0/servicePrincipals?$filter=servicePrincipalNames/any(c:c%20eq%20'{client}')",
        ready.graph
    );
    let found = read(world.client.get(url).bearer_auth(token)).await;
    assert_eq!(found.body["value"][0]["id"], principal.as_str());
}
