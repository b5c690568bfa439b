//! The Azure client, its credentials and the proof against the sandbox over HTTPS.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use url::Url;
use widentity::{
    azure::{
        Arm, AuthKind, CredentialEnv, CredentialError, Endpoints, Jitter, NewAssignment,
        PutAssignment, Sleep, choose, silent,
    },
    model::{
        AccountName, ArmId, Audience, FailureKind, Issuer, Namespace, Origin, RemoteFailure,
        Subject, SubscriptionId, Token,
        desired::{Feature, Probe, ProbeKind},
        snapshot::{ObservedCredential, ObservedIdentity},
    },
    ops::connect::Target,
    prove::{
        IssuedToken, Probed, Prover, ResolvedClaim, Terms, TokenSource,
        retry::{Age, Window},
    },
    sandbox::{
        ClusterRef, Context, Options, Place, Running, Sandbox, Seed, SeedCluster, clock::Clock,
        tokens,
    },
};

use crate::support::{
    scripted::{Server, reply},
    signed_in,
};

const SUB: &str = "00000000-0000-4000-8000-00000000000a";
const SECRETS_USER: &str = "4633458b-17de-408a-b874-0445c86b69e6";

fn cluster_id() -> ArmId {
    ArmId::new(format!(
        "/subscriptions/{SUB}/resourceGroups/rg-aks/providers/Microsoft.ContainerService/managedClusters/aks-prod"
    ))
}

fn vault() -> ArmId {
    ArmId::new(format!(
        "/subscriptions/{SUB}/resourceGroups/rg-data/providers/Microsoft.KeyVault/vaults/kv-data"
    ))
}

fn subscription() -> SubscriptionId {
    SUB.parse().unwrap()
}

struct World {
    running: Running,
    endpoints: Endpoints,
    env: CredentialEnv,
    directory: tempfile::TempDir,
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

impl World {
    async fn start(change: impl FnOnce(&mut Options)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let seed = Seed {
            clusters: vec![SeedCluster {
                cluster: ClusterRef { name: "prod".into(), id: cluster_id().to_string() },
                location: String::new(),
                oidc_issuer: false,
                workload_identity: false,
                entra: true,
                namespaces: Vec::new(),
                deployments: Vec::new(),
                objects: Vec::new(),
            }],
            resource_groups: vec![format!("/subscriptions/{SUB}/resourceGroups/rg-id")],
            targets: vec![vault().to_string()],
            ..Seed::default()
        };
        let mut options = Options::new(Place::Memory(directory.path().to_owned()), seed);
        options.clock = Clock::manual("2026-11-21T12:00:00Z".parse().unwrap());
        options.settings.subscription = SUB.parse().unwrap();
        change(&mut options);
        let running = Sandbox::start(options).await.unwrap();
        let Target { endpoints, credentials: env, .. } = signed_in::target(running.ready(), None);
        Self { running, endpoints, env, directory }
    }

    fn ctx(&self) -> &Arc<Context> {
        self.running.context()
    }

    /// Waiting moves the sandbox's clock, so that nothing takes real time.
    fn sleep(&self) -> Sleep {
        let ctx = Arc::clone(self.ctx());
        Arc::new(move |how_long| {
            ctx.clock.advance(how_long);
            Box::pin(async {})
        })
    }

    async fn arm(&self) -> (Arm, Arc<Mutex<Vec<String>>>) {
        let chosen = choose(&self.env, &self.endpoints, Some(AuthKind::Environment), &silent())
            .await
            .unwrap();
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let tell = Arc::clone(&told);
        let waits = Arc::new(move |what: &str| tell.lock().unwrap().push(what.to_owned()));
        let arm = Arm::new(&self.endpoints, chosen.credential, waits).unwrap();
        (arm.with_sleep(self.sleep()).with_jitter(Jitter::seeded(1)), told)
    }

    fn prover(&self, arm: &Arm) -> Prover {
        Prover::new(arm).unwrap().with_sleep(self.sleep()).with_jitter(Jitter::seeded(1))
    }
}

/// Signs tokens of service accounts as the cluster's API server does.
struct Cluster<'a>(&'a Context);

impl TokenSource for Cluster<'_> {
    async fn token(
        &self,
        namespace: &Namespace,
        account: &AccountName,
        audience: &Audience,
        seconds: u32,
    ) -> Result<IssuedToken, RemoteFailure> {
        let id = cluster_id();
        let now = self.0.clock.now().as_second();
        let iss = tokens::issuer(self.0, id.as_str()).unwrap();
        let sub = Subject::of(namespace, account);
        let claims = json!({"iss": iss, "sub": sub, "aud": [audience], "iat": now, "nbf": now,
            "exp": now + i64::from(seconds)});
        let key = tokens::signing_key(self.0, id.as_str()).unwrap();
        let token = Token::new(tokens::sign_jwt(&key, &claims).unwrap());
        Ok(IssuedToken { token, iss: Issuer(iss), sub, aud: vec![audience.clone()] })
    }
}

fn identity_id() -> ArmId {
    ArmId::of_identity(subscription(), "rg-id", "wi_p_payments_api")
}

fn claim(identity: &ObservedIdentity, issuer: &Issuer) -> ResolvedClaim {
    ResolvedClaim {
        namespace: "payments".into(),
        account: "api".into(),
        identity: identity.id.clone(),
        client: identity.client_id,
        principal: identity.principal_id,
        tenant: identity.tenant_id,
        issuer: issuer.clone(),
        audience: Audience::default(),
        grants: vec![format!("Key Vault Secrets User on {}", vault())],
    }
}

fn credential(issuer: &Issuer) -> ObservedCredential {
    ObservedCredential {
        name: "wi-1".into(),
        issuer: issuer.clone(),
        subject: Some(Subject::of(&"payments".into(), &"api".into())),
        audiences: vec![Audience::default()],
    }
}

fn probe() -> Probe {
    Probe {
        kind: ProbeKind::KeyVault,
        url: "https://kv-data.vault.azure.net/".into(),
        origin: Origin { file: "workloads.toml".into(), line: 1, column: 1 },
    }
}

fn terms(probe: Option<&Probe>) -> Terms<'_> {
    Terms {
        probe,
        age: Age::AtLeast(Duration::ZERO),
        window: Window::Observed,
        deadline: tokio::time::Instant::now() + Duration::from_hours(1),
    }
}

#[tokio::test]
async fn a_chain_is_made_link_by_link_and_proved() {
    let world = World::start(|_| {}).await;
    let (arm, told) = world.arm().await;

    let both = BTreeSet::from([Feature::OidcIssuer, Feature::WorkloadIdentity]);
    assert_eq!(arm.cluster(&cluster_id()).await.unwrap().unwrap().issuer, None);
    let cluster = arm.enable_features(&cluster_id(), &both).await.unwrap();
    assert!(cluster.workload_identity);
    let issuer = cluster.issuer.unwrap();
    assert!(issuer.as_str().ends_with('/'));
    assert!(told.lock().unwrap().contains(&"the cluster's update".to_owned()));

    assert_eq!(arm.identity(&identity_id()).await.unwrap(), None);
    let tags = BTreeMap::from([("widentity-project".to_owned(), "p".to_owned())]);
    let identity = arm.create_identity(&identity_id(), "westeurope", &tags).await.unwrap();
    assert_eq!(identity.tags, tags);
    let group = arm.identities_in_group(subscription(), "RG-ID").await.unwrap().unwrap();
    assert_eq!(group, std::slice::from_ref(&identity));

    arm.put_credential(&identity_id(), &credential(&issuer)).await.unwrap();
    let list = arm.credentials(&identity_id()).await.unwrap().unwrap();
    assert_eq!(list, [credential(&issuer)]);

    let new = NewAssignment {
        scope: vault(),
        name: "00000000-0000-4000-8000-00000000000d".parse().unwrap(),
        principal: identity.principal_id,
        role: SECRETS_USER.parse().unwrap(),
        description: "managed by widentity; project=p".into(),
        condition: None,
    };
    assert_eq!(arm.put_assignment(&new).await.unwrap(), PutAssignment::Made);
    let scope = ArmId::of_subscription(subscription());
    let seen = arm.assignments_at(&scope, Some(identity.principal_id)).await.unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].role, &seen[0].scope), (new.role, &vault()));
    let other = NewAssignment {
        name: "00000000-0000-4000-8000-00000000000e".parse().unwrap(),
        ..new.clone()
    };
    let existed = arm.put_assignment(&other).await.unwrap();
    assert_eq!(existed, PutAssignment::Existed(Some(new.name)));
    let roles = arm.role_definitions(&scope, "key vault secrets user").await.unwrap();
    assert_eq!(roles, [new.role]);
    assert_eq!(arm.target(&vault()).await.unwrap().unwrap().rbac, Some(true));

    let claim = claim(&identity, &issuer);
    let mut waits = Vec::new();
    let mut progress = |what: String| waits.push(what);
    let source = Cluster(world.ctx());
    let prover = world.prover(&arm);
    let proof = prover.prove(&source, &claim, terms(Some(&probe())), &mut progress).await.unwrap();
    assert_eq!(proof.oid, identity.principal_id);
    assert_eq!(proof.probe, Some(Probed::Passed));
    assert_eq!(proof.answers, 3, "refused at first, so one answer is not enough");
    assert!(proof.attempts > 1, "the credential had to propagate");
    assert_eq!(waits[0], "Entra to know federated credential wi-1");
}

#[tokio::test]
async fn a_credential_with_another_subject_is_named_as_the_cause() {
    let world = World::start(|_| {}).await;
    let (arm, _) = world.arm().await;
    let features = BTreeSet::from([Feature::OidcIssuer]);
    let issuer = arm.enable_features(&cluster_id(), &features).await.unwrap().issuer.unwrap();
    let identity =
        arm.create_identity(&identity_id(), "westeurope", &BTreeMap::new()).await.unwrap();
    let mut wrong = credential(&issuer);
    wrong.subject = Some("system:serviceaccount:payments:other".into());
    arm.put_credential(&identity_id(), &wrong).await.unwrap();

    let source = Cluster(world.ctx());
    let claim = claim(&identity, &issuer);
    let mut silent = |_: String| {};
    let prover = world.prover(&arm);
    let failure = prover.prove(&source, &claim, terms(None), &mut silent).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotProved);
    assert!(failure.message.starts_with("credential `wi-1` has subject"), "{}", failure.message);
    assert!(failure.code.unwrap().starts_with("AADSTS"));
}

#[tokio::test]
async fn a_probe_without_the_role_is_denied() {
    let world = World::start(|_| {}).await;
    let (arm, _) = world.arm().await;
    let features = BTreeSet::from([Feature::OidcIssuer]);
    let issuer = arm.enable_features(&cluster_id(), &features).await.unwrap().issuer.unwrap();
    let identity =
        arm.create_identity(&identity_id(), "westeurope", &BTreeMap::new()).await.unwrap();
    arm.put_credential(&identity_id(), &credential(&issuer)).await.unwrap();
    let source = Cluster(world.ctx());
    let claim = claim(&identity, &issuer);
    let mut silent = |_: String| {};
    let prover = world.prover(&arm);
    let failure =
        prover.prove(&source, &claim, terms(Some(&probe())), &mut silent).await.unwrap_err();
    assert_eq!((failure.kind, failure.status), (FailureKind::NotProved, Some(403)), "{failure:?}");
    let lacks = format!("it should hold Key Vault Secrets User on {}", vault());
    assert!(failure.message.contains(&lacks), "{}", failure.message);
}

#[tokio::test]
async fn new_identities_are_waited_for_where_azure_lags() {
    let lag = |options: &mut Options| {
        options.settings.delays.parent = Duration::from_secs(25);
    };
    let world = World::start(lag).await;
    let (arm, told) = world.arm().await;
    arm.create_identity(&identity_id(), "westeurope", &BTreeMap::new()).await.unwrap();
    arm.put_credential(&identity_id(), &credential(&"https://issuer.example/".into()))
        .await
        .unwrap();
    assert_eq!(told.lock().unwrap().len(), 3, "10 s apart");
}

#[tokio::test]
async fn who_acts_is_read_from_the_token_and_a_wrong_secret_is_not_passed_over() {
    let world = World::start(|_| {}).await;
    let chosen = choose(&world.env, &world.endpoints, None, &silent()).await.unwrap();
    assert_eq!(chosen.kind, AuthKind::Environment);
    let actor = chosen.actor();
    let ready = world.running.ready();
    assert_eq!(actor.tenant.unwrap().0, ready.tenant);
    assert!(actor.to_string().contains(&ready.client_id.to_string()), "{actor}");

    let mut env = world.env.clone();
    env.variables.insert("AZURE_CLIENT_SECRET".into(), "hunter2".into());
    let failed = choose(&env, &world.endpoints, None, &silent()).await.unwrap_err();
    assert!(matches!(failed, CredentialError::Failed { kind: AuthKind::Environment, .. }));
    let text = format!("{failed} {failed:?} {:?}", failed.failure());
    assert!(text.contains("7000215") && !text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn the_sandbox_takes_no_credential_from_outside_and_reaches_nothing_but_loopback() {
    let world = World::start(|_| {}).await;
    let none = CredentialEnv::default();
    let Err(CredentialError::None { refused }) =
        choose(&none, &world.endpoints, None, &silent()).await
    else {
        panic!("some credential applied");
    };
    assert_eq!(refused.len(), AuthKind::ALL.len());
    assert!(refused[5].1.contains("sandbox"), "{refused:?}");

    let chosen = choose(&world.env, &world.endpoints, None, &silent()).await.unwrap();
    let mut endpoints = world.endpoints.clone();
    endpoints.resource_manager = url("https://management.azure.com/");
    let arm = Arm::new(&endpoints, chosen.credential, silent()).unwrap();
    let failed = arm.identity(&identity_id()).await.unwrap_err();
    assert!(failed.to_string().contains("only loopback"), "{failed}");
}

#[tokio::test]
async fn server_and_ca_of_a_cluster_come_without_credentials() {
    let world = World::start(|_| {}).await;
    let (arm, _) = world.arm().await;
    let found = arm.cluster_server(&cluster_id()).await.unwrap();
    assert_eq!(found.server.scheme(), "https");
    assert!(found.ca_pem.starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(!format!("{:?}", arm.kubernetes_token().await.unwrap()).contains("ey"));
}

/// Hands out a federated token of the cluster as a build system would.
async fn build_system(world: &World, member: &str) -> Server {
    let source = Cluster(world.ctx());
    let issued =
        source.token(&"payments".into(), &"api".into(), &Audience::default(), 600).await.unwrap();
    Server::start([reply(200, &json!({ member: issued.token.expose() }))]).await
}

#[tokio::test]
async fn federated_credentials_of_build_systems_and_pods_act_as_the_identity() {
    let world = World::start(|_| {}).await;
    let (arm, _) = world.arm().await;
    let features = BTreeSet::from([Feature::OidcIssuer]);
    let issuer = arm.enable_features(&cluster_id(), &features).await.unwrap().issuer.unwrap();
    let identity =
        arm.create_identity(&identity_id(), "westeurope", &BTreeMap::new()).await.unwrap();
    arm.put_credential(&identity_id(), &credential(&issuer)).await.unwrap();
    world.ctx().clock.advance(Duration::from_mins(1));

    // Not the sandbox's own endpoints: those take no credential from outside.
    let ready = world.running.ready();
    let ca = String::from_utf8(std::fs::read(&ready.ca_file).unwrap()).unwrap();
    let endpoints =
        Endpoints::custom(url(&ready.resource_manager), url(&ready.authority), Some(ca));
    let acts = async |variables: &[(&str, &str)]| {
        let mut env = CredentialEnv::default();
        let ids = [
            ("AZURE_CLIENT_ID", identity.client_id.to_string()),
            ("ARM_TENANT_ID", identity.tenant_id.to_string()),
        ];
        env.variables.extend(ids.map(|(name, value)| (name.to_owned(), value)));
        let given = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        env.variables.extend(given);
        let chosen = choose(&env, &endpoints, None, &silent()).await.unwrap();
        assert_eq!(chosen.actor().object_id, Some(identity.principal_id));
        chosen.kind
    };

    let github = build_system(&world, "value").await;
    let kind = acts(&[
        ("ACTIONS_ID_TOKEN_REQUEST_URL", &github.link("/token?run=1")),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request-token"),
    ])
    .await;
    assert_eq!(kind, AuthKind::GithubActions);
    let asked = &github.seen()[0];
    assert_eq!(asked.target, "/token?run=1&audience=api%3A%2F%2FAzureADTokenExchange");
    assert_eq!(asked.headers["authorization"], "Bearer request-token");

    let pipelines = build_system(&world, "oidcToken").await;
    let kind = acts(&[
        ("SYSTEM_OIDCREQUESTURI", &pipelines.link("/oidc")),
        ("SYSTEM_ACCESSTOKEN", "access-token"),
        ("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", "connection"),
    ])
    .await;
    assert_eq!(kind, AuthKind::AzurePipelines);
    assert_eq!(pipelines.seen()[0].target, "/oidc?api-version=7.1&serviceConnectionId=connection");

    let cluster = Cluster(world.ctx());
    let mounted =
        cluster.token(&"payments".into(), &"api".into(), &Audience::default(), 600).await.unwrap();
    let file = world.directory.path().join("token");
    std::fs::write(&file, mounted.token.expose()).unwrap();
    let kind = acts(&[("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap())]).await;
    assert_eq!(kind, AuthKind::WorkloadIdentity);
}
