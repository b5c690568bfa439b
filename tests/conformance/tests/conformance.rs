//! widentity's requests and its sandbox's answers, read by the `azure_mgmt_*` crates.
//!
//! `WIDENTITY` names the program; without it `target/debug/widentity` of the repository is used.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use azure_mgmt_authorization::models::{RoleAssignmentCreateParameters, RoleAssignmentListResult};
use azure_mgmt_containerservice::models::ManagedCluster;
use azure_mgmt_msi::models::{FederatedIdentityCredential, Identity};
use conformance::{Bridge, Clients};
use futures::StreamExt as _;
use serde_json::{Value, json};

const WORLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/world.toml");
const SECRETS_USER: &str = "4633458b-17de-408a-b874-0445c86b69e6";

/// A served sandbox in a directory of its own.
struct Sandbox {
    directory: tempfile::TempDir,
    process: Child,
    ready: Value,
}

fn program() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/debug/widentity");
    let path = env::var_os("WIDENTITY").map_or_else(|| default.into(), PathBuf::from);
    path.canonicalize().unwrap_or_else(|_| panic!("{} is not built", path.display()))
}

impl Sandbox {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::copy(WORLD, directory.path().join("workloads.toml")).unwrap();
        let process = Command::new(program())
            .args(["sandbox", "serve", "--ready-file", "ready.json"])
            .args(["--request-log", "requests.jsonl"])
            .current_dir(&directory)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let ready = loop {
            let text = fs::read(directory.path().join("ready.json")).unwrap_or_default();
            if let Ok(ready) = serde_json::from_slice(&text) {
                break ready;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the sandbox did not start");
            thread::sleep(Duration::from_millis(50));
        };
        Self { directory, process, ready }
    }

    fn text(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap()
    }

    fn bridge(&self) -> Bridge {
        Bridge::new(&fs::read(self.text("ca_file")).unwrap()).unwrap()
    }

    async fn clients(&self) -> Clients {
        let bridge = self.bridge();
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}\
             &scope=https://management.azure.com/.default",
            self.text("client_id"),
            self.text("client_secret")
        );
        let answer = bridge
            .client()
            .post(format!("{}/{}/oauth2/v2.0/token", self.text("authority"), self.text("tenant")))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let token = answer["access_token"].as_str().unwrap();
        Clients::new(self.text("resource_manager"), token, &bridge).unwrap()
    }

    fn run(&self, arguments: &[&str]) {
        let ran = Command::new(program())
            .args(arguments)
            .current_dir(&self.directory)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{arguments:?}: {}\n{said}", ran.status);
    }

    /// Bodies of the writes of one kind that the sandbox was sent, by the last part but one of
    /// the path.
    fn sent(&self, kind: &str) -> Vec<Value> {
        let log = fs::read_to_string(self.directory.path().join("requests.jsonl")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let ours = lines.filter(|line| {
            let path = line["path"].as_str().unwrap().to_lowercase();
            let parent = Path::new(&path).parent().and_then(Path::file_name);
            line["method"] == "PUT" && parent.is_some_and(|name| name == kind)
        });
        ours.map(|line| line["body"].clone()).collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn their_models_parse_what_widentity_sends() {
    let sandbox = Sandbox::start();
    sandbox.run(&["--sandbox", "apply", "--yes"]);

    let identities = sandbox.sent("userassignedidentities");
    assert!(!identities.is_empty());
    for body in identities {
        let parsed: Identity = serde_json::from_value(body.clone()).unwrap();
        assert_eq!(parsed.tracked_resource.location, "westeurope");
        assert_eq!(parsed.tracked_resource.tags, Some(body["tags"].clone()));
    }
    let credentials = sandbox.sent("federatedidentitycredentials");
    assert_eq!(credentials.len(), 2, "one for each cluster");
    for body in credentials {
        let parsed: FederatedIdentityCredential = serde_json::from_value(body.clone()).unwrap();
        let properties = parsed.properties.unwrap();
        assert_eq!(properties.subject, "system:serviceaccount:shop:api");
        assert_eq!(properties.audiences, ["api://AzureADTokenExchange"]);
        // Nothing that their model does not know is sent.
        let known = json!({ "properties": properties });
        assert_eq!(body, known);
    }
    let assignments = sandbox.sent("roleassignments");
    assert_eq!(assignments.len(), 1);
    for body in assignments {
        let parsed: RoleAssignmentCreateParameters = serde_json::from_value(body).unwrap();
        assert!(parsed.properties.role_definition_id.ends_with(SECRETS_USER));
    }
    let clusters = sandbox.sent("managedclusters");
    assert_eq!(clusters.len(), 1, "issuer and webhook of the second cluster");
    for body in clusters {
        let parsed: ManagedCluster = serde_json::from_value(body).unwrap();
        let properties = parsed.properties.unwrap();
        assert_eq!(properties.oidc_issuer_profile.unwrap().enabled, Some(true));
        let security = properties.security_profile.unwrap();
        assert_eq!(security.workload_identity.unwrap().enabled, Some(true));
    }

    // And what the sandbox answers about it.
    let clients = sandbox.clients().await;
    let subscription = sandbox.text("subscription");
    let found = identities_of(&clients, subscription).await;
    let [identity] = found.as_slice() else { panic!("{found:?}") };
    let name = identity.tracked_resource.resource.name.as_deref().unwrap();
    let list = clients.msi.federated_identity_credentials_client();
    let mut pages = list.list(subscription, "rg-id", name).into_stream();
    let page = pages.next().await.unwrap().unwrap();
    assert_eq!(page.value.len(), 2);
    let principal = identity.properties.as_ref().unwrap().principal_id.as_deref().unwrap();
    let roles = assignments_of(&clients, subscription, principal).await;
    assert_eq!(roles.value.len(), 1);
}

async fn identities_of(clients: &Clients, subscription: &str) -> Vec<Identity> {
    let client = clients.msi.user_assigned_identities_client();
    let mut pages = client.list_by_subscription(subscription).into_stream();
    let mut all = Vec::new();
    while let Some(page) = pages.next().await {
        all.extend(page.unwrap().value);
    }
    all
}

async fn assignments_of(
    clients: &Clients,
    subscription: &str,
    principal: &str,
) -> RoleAssignmentListResult {
    let client = clients.authorization.role_assignments_client();
    let list = client
        .list_for_subscription(subscription)
        .filter(format!("principalId eq '{principal}'"));
    list.into_stream().next().await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn their_clients_drive_identities_and_roles() {
    let sandbox = Sandbox::start();
    let clients = sandbox.clients().await;
    let subscription = sandbox.text("subscription");
    let identities = clients.msi.user_assigned_identities_client();
    let new: Identity =
        serde_json::from_value(json!({ "location": "westeurope", "tags": { "a": "b" } })).unwrap();
    let made = identities.create_or_update(subscription, "rg-id", "id-old", new).await.unwrap();
    let principal = made.properties.unwrap().principal_id.unwrap();
    let again = identities.get(subscription, "rg-id", "id-old").await.unwrap();
    assert_eq!(again.tracked_resource.tags, Some(json!({ "a": "b" })));

    let credentials = clients.msi.federated_identity_credentials_client();
    let issuer = "https://issuer.example/tenant/";
    let properties = json!({
        "issuer": issuer, "subject": "system:serviceaccount:shop:api",
        "audiences": ["api://AzureADTokenExchange"],
    });
    let credential = |properties: &Value| -> FederatedIdentityCredential {
        serde_json::from_value(json!({ "properties": properties })).unwrap()
    };
    let at = (subscription, "rg-id", "id-old");
    let made = credentials
        .create_or_update(at.0, at.1, at.2, "fic-one", credential(&properties))
        .await
        .unwrap();
    assert_eq!(made.properties.unwrap().issuer, issuer);
    let twice = credentials
        .create_or_update(at.0, at.1, at.2, "fic-two", credential(&properties))
        .await
        .unwrap_err();
    let refused = twice.as_http_error().unwrap();
    assert_eq!((u16::from(refused.status()), refused.error_code()), (409, Some("Conflict")));

    let vault = format!(
        "subscriptions/{subscription}/resourceGroups/rg-data/providers/Microsoft.KeyVault/vaults/kv-data"
    );
    let roles = clients.authorization.role_definitions_client();
    let mut found = roles
        .list(&vault)
        .filter("roleName eq 'Key Vault Secrets User'")
        .into_stream();
    let role = found.next().await.unwrap().unwrap().value.remove(0);
    assert_eq!(role.name.as_deref(), Some(SECRETS_USER));
    let body: RoleAssignmentCreateParameters = serde_json::from_value(json!({ "properties": {
        "roleDefinitionId": role.id, "principalId": principal, "principalType": "ServicePrincipal",
    }}))
    .unwrap();
    let name = "3c9b8f1e-0000-4000-8000-000000000001";
    let assignments = clients.authorization.role_assignments_client();
    let made = assignments.create(&vault, name, body).await.unwrap();
    assert_eq!(made.name.as_deref(), Some(name));
    let listed = assignments_of(&clients, subscription, &principal).await;
    assert_eq!(listed.value.len(), 1);
    let gone = assignments.delete(&vault, name).send().await.unwrap();
    assert_eq!(u16::from(gone.into_raw_response().status()), 200);

    credentials.delete(at.0, at.1, at.2, "fic-one").send().await.unwrap();
    identities.delete(at.0, at.1, at.2).send().await.unwrap();
    let missing = identities.get(at.0, at.1, at.2).await.unwrap_err();
    let missing = missing.as_http_error().unwrap();
    assert_eq!(missing.error_code(), Some("ResourceNotFound"));
}

#[tokio::test(flavor = "multi_thread")]
async fn their_cluster_client_drives_the_sandbox_but_not_with_its_own_api_version() {
    let sandbox = Sandbox::start();
    let clients = sandbox.clients().await;
    let subscription = sandbox.text("subscription");
    let retired = clients.retired.managed_clusters_client();
    let error = retired.get(subscription, "rg-aks", "aks-on").await.unwrap_err();
    let refused = error.as_http_error().unwrap();
    let seen = (u16::from(refused.status()), refused.error_code());
    assert_eq!(seen, (400, Some("NoRegisteredProviderFound")));

    let clusters = clients.clusters.managed_clusters_client();
    let on = clusters.get(subscription, "rg-aks", "aks-on").await.unwrap();
    let issuer = on.properties.unwrap().oidc_issuer_profile.unwrap().issuer_url.unwrap();
    assert!(issuer.starts_with("https://") && issuer.ends_with('/'), "{issuer}");
    let mut pages = clusters.list(subscription).into_stream();
    assert_eq!(pages.next().await.unwrap().unwrap().value.len(), 2);

    let mut off = clusters.get(subscription, "rg-aks", "aks-prod").await.unwrap();
    let profile = json!({ "enabled": true });
    off.properties.as_mut().unwrap().oidc_issuer_profile =
        Some(serde_json::from_value(profile).unwrap());
    let updating =
        clusters.create_or_update(subscription, "rg-aks", "aks-prod", off).await.unwrap();
    let properties = updating.properties.unwrap();
    assert_eq!(properties.provisioning_state.as_deref(), Some("Updating"));
    assert!(properties.oidc_issuer_profile.unwrap().issuer_url.is_some());

    let credentials = clusters.list_cluster_user_credentials(subscription, "rg-aks", "aks-on");
    let kubeconfigs = credentials.await.unwrap().kubeconfigs;
    assert_eq!(kubeconfigs[0].name.as_deref(), Some("clusterUser"));
}
