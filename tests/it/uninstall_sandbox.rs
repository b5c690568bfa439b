//! Taking Pod Identity's installation away over HTTPS, in the sandbox: to the end, through ARM,
//! and stopped at every single request.

use std::{collections::BTreeMap, fs, net::SocketAddr, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;
use url::Url;
use widentity::{
    migrate::uninstall::{Step, Uninstall, Wishes},
    model::desired::{Access, DesiredState},
    ops::{
        Connected,
        connect::{AuthKind, CredentialEnv, Endpoints, Target, connect},
        migrate::{
            Overview, Request, Waived, overview,
            uninstall::{self, End, Event, Pace, Ran},
        },
    },
    sandbox::{ClusterRef, Seed, SeedCluster, clock::Clock},
};

use crate::support::{
    arm::{Served, answered, json as with_body},
    cli::{Desk, NO_GRANTS},
    kube_apiserver::Admin,
    pod_identity::{self, GROUP, assigned, custom, left, make, manifests},
    worlds,
};

const API: &str = "?api-version=2025-10-01";
const BOTH: Wishes = Wishes { open_metadata: true, disable_add_on: true };

struct World {
    desired: DesiredState,
    connected: Connected,
    served: Served,
    admin: Admin,
    /// The path of the cluster's record.
    cluster: String,
    /// How long MIC is waited for.
    patience: Duration,
}

impl World {
    async fn start() -> Self {
        let mut desired = worlds::desired(&["prod"]);
        let cluster = desired.clusters.values_mut().next().unwrap();
        let id = cluster.id.to_string();
        let seed = Seed {
            clusters: vec![SeedCluster {
                cluster: ClusterRef { name: "prod".to_owned(), id: id.clone() },
                location: String::new(),
                oidc_issuer: true,
                workload_identity: true,
                entra: false,
                namespaces: vec!["shop".to_owned()],
                deployments: Vec::new(),
                objects: Vec::new(),
            }],
            ..Seed::default()
        };
        let served = Served::start(seed, |options| {
            options.clock = Clock::Real;
            options.settings.tenant = worlds::tenant().0;
            options.settings.subscription = worlds::subscription().0;
            options.settings.delays.cluster_update = Duration::from_millis(100);
        })
        .await;
        let ready = served.running.ready();
        let path = &ready.kubeconfigs["prod"];
        cluster.access =
            Access::Context { context: None, kubeconfig: Some(path.display().to_string()) };
        let url = |text: &str| Url::parse(text).unwrap();
        let port = url(&ready.data_plane).port();
        let endpoints = Endpoints::sandbox(
            url(&ready.resource_manager),
            url(&ready.authority),
            fs::read_to_string(&ready.ca_file).unwrap(),
            port.map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
        );
        let variables = BTreeMap::from([
            ("AZURE_TENANT_ID".to_owned(), ready.tenant.to_string()),
            ("AZURE_CLIENT_ID".to_owned(), ready.client_id.to_string()),
            ("AZURE_CLIENT_SECRET".to_owned(), ready.client_secret.clone()),
        ]);
        let target = Target {
            endpoints,
            credentials: CredentialEnv { variables, tenant: Some(desired.tenant) },
            auth: Some(AuthKind::Environment),
        };
        let connected = connect(&desired, target, Arc::new(|_: &str| {})).await.unwrap();
        let admin = Admin::by(path).await;
        Self { desired, connected, served, admin, cluster: id, patience: Duration::from_mins(2) }
    }

    async fn installed() -> Self {
        let world = Self::start().await;
        make(&world.admin, &manifests("default")).await;
        world
    }

    async fn overview(&self) -> Overview {
        let request = Request {
            desired: &self.desired,
            sandbox: true,
            now: Timestamp::now(),
            soak: SignedDuration::from_hours(24),
            waived: Waived::default(),
            shelf: &(),
        };
        overview(request, &self.connected).await
    }

    /// Reads, decides, and does it where nothing is in the way.
    async fn uninstall(&self, wishes: Wishes) -> (Uninstall, Option<Ran>) {
        let mut quiet = |_: Event<'_>| {};
        self.uninstall_with(wishes, &mut quiet).await
    }

    async fn uninstall_with(
        &self,
        wishes: Wishes,
        sink: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> (Uninstall, Option<Ran>) {
        let overview = self.overview().await;
        let sites = uninstall::sites(&self.desired, &overview, &self.connected).await;
        let what = sites[0].decide(wishes);
        if !what.obstacles.is_empty() {
            return (what, None);
        }
        let pace = Pace {
            look: Duration::from_millis(20),
            unassigned: self.patience,
            gone: Duration::from_mins(2),
        };
        let (_never, interrupt) = watch::channel(false);
        let connected = &self.connected;
        let ran = uninstall::run(&sites[0], &what, connected, pace, &interrupt, sink).await;
        (what, Some(ran))
    }

    async fn fault(&self, rule: Value) {
        let asked = with_body(self.served.own("POST", "faults"), &rule);
        assert_eq!(answered(asked).await.unwrap().0, 204);
    }

    /// Takes the faults back; how many requests the first rule has matched.
    async fn mended(&self) -> u64 {
        let (_, rules) = answered(self.served.own("GET", "faults")).await.unwrap();
        let seen = rules[0]["seen"].as_u64().unwrap_or_else(|| panic!("{rules}"));
        assert_eq!(answered(self.served.own("DELETE", "faults")).await.unwrap().0, 204);
        seen
    }

    async fn scale_mic(&self, replicas: u32) {
        let path = "/apis/apps/v1/namespaces/default/deployments/mic";
        let body = json!({"spec": {"replicas": replicas}});
        let kind = "application/merge-patch+json";
        self.admin.send(http::Method::PATCH, path, kind, &body).await;
        // MIC runs as long as one of its pods is available.
        let settled = async {
            let available = |object: &Value| object["status"]["availableReplicas"].as_u64();
            while available(&self.admin.get(path).await).unwrap_or(0) != u64::from(replicas) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_mins(1), settled).await.is_ok());
    }

    async fn record(&self) -> Value {
        let path = format!("{}{API}", self.cluster);
        answered(self.served.arm("GET", &path)).await.unwrap().1
    }

    /// What `az aks pod-identity` leaves in the record.
    async fn profile(&self, profile: Value) {
        let mut record = self.record().await;
        record["properties"]["podIdentityProfile"] = profile;
        let path = format!("{}{API}", self.cluster);
        let (status, _) =
            answered(with_body(self.served.arm("PUT", &path), &record)).await.unwrap();
        assert_eq!(status, 200);
        while self.record().await["properties"]["provisioningState"] != "Succeeded" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_goes_and_a_second_run_finds_nothing() {
    let world = World::installed().await;
    let objects = manifests("default");
    // Not without a word about the endpoint.
    let (what, ran) = world.uninstall(Wishes::default()).await;
    assert_eq!(what.obstacles[0].code, "open-metadata", "{what:#?}");
    assert_eq!((what.obstacles.len(), ran), (1, None));
    assert_eq!(left(&world.admin, &objects).await.len(), objects.len());

    let mut done = Vec::new();
    let mut sink = |event: Event<'_>| {
        if let Event::Done(step) = event {
            done.push(widentity::render::uninstall::done(step));
        }
    };
    let (what, ran) = world.uninstall_with(BOTH, &mut sink).await;
    let ran = ran.unwrap();
    assert_eq!(ran.end, End::Complete, "{what:#?}");
    // Everything but the wait is a write.
    assert_eq!((ran.done, ran.written), (what.steps.len(), what.steps.len() - 1));
    assert_eq!(done.len(), what.steps.len());
    assert_eq!(what.steps.len(), objects.len() + 1);
    assert!(done[1].contains("Deployment default/mic"), "{done:#?}");
    assert_eq!(left(&world.admin, &objects).await, Vec::<String>::new());
    // With a definition its endpoint goes, too.
    assert!(!world.admin.exists(&format!("/apis/{GROUP}/v1/azureidentities")).await);
    assert!(!world.admin.exists(&format!("/apis/{GROUP}/v1")).await);

    let (what, ran) = world.uninstall(Wishes::default()).await;
    assert!(what.steps.is_empty() && what.obstacles.is_empty(), "{what:#?}");
    assert_eq!(ran.unwrap().done, 0);
    assert!(world.overview().await.is_free());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_assigned_is_waited_for_and_never_deleted() {
    let mut world = World::installed().await;
    world.patience = Duration::from_millis(100);
    // MIC does not run.
    world.scale_mic(0).await;
    let one = assigned("default", "p-shop-id");
    make(&world.admin, std::slice::from_ref(&one)).await;
    let (what, ran) = world.uninstall(BOTH).await;
    let End::Failed(failure) = ran.unwrap().end else { panic!("{what:#?}") };
    assert!(failure.message.contains("default/p-shop-id is still there"), "{failure}");
    let objects = manifests("default");
    assert_eq!(left(&world.admin, &objects).await.len(), objects.len(), "nothing went");

    // Running again, it takes it back while it is waited for.
    world.patience = Duration::from_mins(2);
    world.scale_mic(2).await;
    let (_, ran) = world.uninstall(BOTH).await;
    assert_eq!(ran.unwrap().end, End::Complete);
    assert_eq!(left(&world.admin, &objects).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_got_an_object_meanwhile_stays_with_it() {
    let world = World::installed().await;
    let (at, object) =
        custom("AzureIdentity", "azureidentities", ("shop", "late"), json!({"type": 0}));
    let admin = &world.admin;
    let (handle, mut made) = (tokio::runtime::Handle::current(), false);
    let mut sink = |event: Event<'_>| {
        // Somebody makes it right before the definitions are taken away.
        if matches!(event, Event::Done(Step::Remove { part }) if part.name.ends_with("nmi-service-account"))
        {
            tokio::task::block_in_place(|| handle.block_on(admin.create(&at, &object)));
            made = true;
        }
    };
    let (what, ran) = world.uninstall_with(BOTH, &mut sink).await;
    assert!(made, "{what:#?}");
    let ran = ran.unwrap();
    let End::Failed(failure) = ran.end else { panic!("{what:#?}") };
    assert!(failure.message.contains("it holds shop/late"), "{failure}");
    assert!(world.admin.exists(&format!("{at}/late")).await, "the object is still there");
    // It selects nothing and is named in the next plan.
    let (what, ran) = world.uninstall(BOTH).await;
    assert!(matches!(&what.steps[0], Step::Remove { part } if part.name == "late"), "{what:#?}");
    assert_eq!(ran.unwrap().end, End::Complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_comes_with_the_label_stops_it_before_mic_goes() {
    let world = World::installed().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "late", "namespace": "shop", "labels": {"aadpodidbinding": "x"}},
        "spec": {"containers": [{"name": "c", "image": "registry.example/c:1"}]}});
    let overview = world.overview().await;
    let sites = uninstall::sites(&world.desired, &overview, &world.connected).await;
    let what = sites[0].decide(BOTH);
    world.admin.create("/api/v1/namespaces/shop/pods", &pod).await;
    let (_never, interrupt) = watch::channel(false);
    let mut quiet = |_: Event<'_>| {};
    let (pace, connected) = (Pace::default(), &world.connected);
    let ran = uninstall::run(&sites[0], &what, connected, pace, &interrupt, &mut quiet).await;
    let End::Failed(failure) = &ran.end else { panic!("{ran:#?}") };
    assert!(failure.message.contains("pod shop/late has come"), "{failure}");
    assert_eq!(ran.written, 0);
    // Read again, it stands in the way by name.
    let (what, _) = world.uninstall(BOTH).await;
    assert_eq!(what.obstacles[0].message, "shop/default is discovered");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_add_on_goes_through_azure_and_takes_its_objects_along() {
    let world = World::start().await;
    let before = world.record().await;
    world
        .profile(json!({"enabled": true, "allowNetworkPluginKubenet": false,
            "userAssignedIdentities": [{"name": "api", "namespace": "shop",
                "bindingSelector": "api", "identity": {"resourceId": "/subscriptions/s/x",
                    "clientId": "c", "objectId": "o"}}],
            "userAssignedIdentityExceptions": []}))
        .await;
    let nmi = "/apis/apps/v1/namespaces/kube-system/daemonsets/nmi";
    let identity = format!("/apis/{GROUP}/v1/namespaces/shop/azureidentities/api");
    assert!(world.admin.exists(nmi).await && world.admin.exists(&identity).await);

    let (what, ran) = world.uninstall(Wishes::default()).await;
    let codes: Vec<&str> = what.obstacles.iter().map(|o| o.code.as_str()).collect();
    assert_eq!((codes, ran), (vec!["add-on-enabled", "open-metadata"], None));

    let (what, ran) = world.uninstall(BOTH).await;
    assert_eq!(ran.unwrap().end, End::Complete, "{what:#?}");
    assert!(!world.admin.exists(nmi).await && !world.admin.exists(&identity).await);
    let after = world.record().await;
    assert_eq!(after["properties"]["podIdentityProfile"], json!({"enabled": false}));
    // Nothing else of the cluster was changed.
    let (mut before, mut after) = (before, after);
    for record in [&mut before, &mut after] {
        record["properties"].as_object_mut().unwrap().remove("podIdentityProfile");
        record["eTag"] = Value::Null;
        for pool in record["properties"]["agentPoolProfiles"].as_array_mut().unwrap() {
            pool["eTag"] = Value::Null;
        }
    }
    assert_eq!(before, after);
    let (what, _) = world.uninstall(BOTH).await;
    assert!(what.steps.is_empty(), "{what:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_azure_still_holds_is_listed_and_left() {
    let world = World::installed().await;
    let put = async |path: &str, version: &str, body: Value| {
        let path = format!("{path}?api-version={version}");
        let (status, made) =
            answered(with_body(world.served.arm("PUT", &path), &body)).await.unwrap();
        assert!(status < 300, "{path}: {made}");
        made
    };
    let place = json!({"location": "westeurope"});
    let group = world.cluster.split("/providers").next().unwrap();
    let id = format!("{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-api");
    let identity = put(&id, "2023-01-31", place.clone()).await;
    let principal = &identity["properties"]["principalId"];
    // The nodes act as a principal that Entra knows.
    let mut record = world.record().await;
    record["properties"]["identityProfile"]["kubeletidentity"]["objectId"] = principal.clone();
    put(&world.cluster, "2025-10-01", record.clone()).await;
    while world.record().await["properties"]["provisioningState"] != "Succeeded" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let nodes = record["properties"]["nodeResourceGroup"].as_str().unwrap();
    let nodes = format!("/subscriptions/{}/resourceGroups/{nodes}", worlds::subscription());
    put(&nodes, "2021-04-01", place).await;
    let set = format!("{nodes}/providers/Microsoft.Compute/virtualMachineScaleSets/aks-vmss");
    let on = json!({"type": "UserAssigned", "userAssignedIdentities": {id.clone(): {}}});
    put(&set, "2024-07-01", json!({"location": "westeurope", "identity": on})).await;
    let role = "f1a07417-d97a-45cb-824c-7a7467783830";
    let name = "7d8d0f5e-2f0b-4b7e-9d43-1b6a0a3f3c11";
    let assignment = format!("{id}/providers/Microsoft.Authorization/roleAssignments/{name}");
    let definition = format!(
        "/subscriptions/{}/providers/Microsoft.Authorization/roleDefinitions/{role}",
        worlds::subscription()
    );
    put(
        &assignment,
        "2022-04-01",
        json!({"properties": {"roleDefinitionId": definition, "principalId": principal,
            "principalType": "ServicePrincipal"}}),
    )
    .await;
    let spec = json!({"type": 0, "resourceID": id, "clientID": identity["properties"]["clientId"]});
    let left_over = custom("AzureIdentity", "azureidentities", ("shop", "api"), spec);
    make(&world.admin, std::slice::from_ref(&left_over)).await;

    let (what, ran) = world.uninstall(BOTH).await;
    assert_eq!(ran.unwrap().end, End::Complete, "{what:#?}");
    assert_eq!(what.not_seen, Vec::<String>::new());
    let exposed = what.exposed.unwrap();
    assert!(exposed.identities.contains(&"id-api".to_owned()), "{exposed:?}");
    let commands: Vec<&str> = what.clean_up.iter().map(|left| left.command.as_str()).collect();
    let [first, second] = commands[..] else { panic!("{commands:?}") };
    assert!(first.starts_with("az vmss identity remove") && first.ends_with(&id), "{first}");
    assert!(second.starts_with("az role assignment delete --ids") && second.contains(name));
    // Nothing of it was touched.
    for (path, version) in [(&set, "2024-07-01"), (&assignment, "2022-04-01")] {
        let path = format!("{path}?api-version={version}");
        assert_eq!(answered(world.served.arm("GET", &path)).await.unwrap().0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_helm_keeps_is_left_to_helm() {
    let world = World::start().await;
    let mut objects = manifests("pi");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "pi"}});
    world.admin.create("/api/v1/namespaces", &namespace).await;
    for (collection, object) in &mut objects {
        if !collection.contains("customresourcedefinitions") && !collection.contains("configmaps") {
            object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm".into();
            object["metadata"]["annotations"] = json!({"meta.helm.sh/release-name": "ids",
                "meta.helm.sh/release-namespace": "pi"});
        }
    }
    make(&world.admin, &objects).await;
    let (what, ran) = world.uninstall(BOTH).await;
    let ran = ran.unwrap();
    assert_eq!((ran.done, ran.written, &ran.end), (1, 0, &End::HandedOver), "{what:#?}");
    let Step::HandOver { command, parts, .. } = &what.steps[1] else { panic!("{what:#?}") };
    assert_eq!(command, "helm uninstall ids --namespace pi");
    assert_eq!(parts.len(), 9);
    assert_eq!(left(&world.admin, &objects).await.len(), objects.len());

    // What `helm uninstall` does.
    for (collection, object) in objects.iter().rev() {
        if object["metadata"]["annotations"]["meta.helm.sh/release-name"] == "ids" {
            let name = object["metadata"]["name"].as_str().unwrap();
            world.admin.delete(&format!("{collection}/{name}")).await;
        }
    }
    let (what, ran) = world.uninstall(Wishes::default()).await;
    assert_eq!(ran.unwrap().end, End::Complete, "{what:#?}");
    assert_eq!(left(&world.admin, &objects).await, Vec::<String>::new());
}

/// What must hold in every world on the way: an earlier thing of the order is gone before a later
/// one goes.
async fn in_order(admin: &Admin, at: &str) {
    let there = async |path: &str| admin.exists(path).await;
    let mic = there("/apis/apps/v1/namespaces/default/deployments/mic").await;
    let nmi = there("/apis/apps/v1/namespaces/default/daemonsets/nmi").await;
    let exceptions = format!("/apis/{GROUP}/v1/namespaces/default/azurepodidentityexceptions");
    let exception = there(&format!("{exceptions}/mic-exception")).await;
    let account = "/api/v1/namespaces/default/serviceaccounts/aad-pod-id-nmi-service-account";
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let first = there(&format!("{definitions}/azureassignedidentities.{GROUP}")).await;
    let stages = [mic, nmi, exception, there(account).await, first];
    assert!(stages.is_sorted(), "{at}: {stages:?}");
}

/// Each request of a run fails in turn, before it is carried out or after; the next run goes on
/// from there, whatever it was, and ends where an undisturbed one does.
#[tokio::test(flavor = "multi_thread")]
async fn stopped_at_any_request_it_goes_on_from_there() {
    let broken = json!({"answer": {"status": 500, "code": "Broken", "message": "broken"}});
    let (lost, reset) = (json!("reply_lost"), json!("reset"));
    let (all, removed) = tokio::join!(
        // Four worlds side by side, each with every fourth request.
        futures::future::join_all((1..=4).map(|first| stopped_at_each("*", &broken, first, 4))),
        futures::future::join(
            stopped_at_each("DELETE", &lost, 1, 1),
            stopped_at_each("DELETE", &reset, 1, 1),
        ),
    );
    let objects = manifests("default").len();
    assert!(all.iter().sum::<usize>() > 3 * objects, "{all:?}");
    assert_eq!(removed, (objects, objects));
}

/// How many requests there were to fail, of those that begin with `first` and lie `apart`.
async fn stopped_at_each(method: &str, action: &Value, first: u64, apart: usize) -> usize {
    let objects = manifests("default");
    let world = World::start().await;
    let mut gone = true;
    for (met, nth) in (first..).step_by(apart).enumerate() {
        if gone {
            make(&world.admin, &objects).await;
        }
        let rule = json!({"service": "cluster/prod", "method": method, "path": "*",
            "nth": nth, "action": action});
        world.fault(rule).await;
        let at = format!("{method} {nth} {action}");
        let (what, ran) = world.uninstall(BOTH).await;
        let over = world.mended().await < nth;
        in_order(&world.admin, &at).await;
        let ended = ran.as_ref().is_some_and(|ran| ran.end == End::Complete);
        // What failed is told: as an obstacle, or as the end of the run.
        let told = !what.obstacles.is_empty()
            || ran.as_ref().is_some_and(|ran| matches!(ran.end, End::Failed(_)));
        assert!(ended || told, "{at}: {what:#?} {ran:#?}");
        if over {
            assert!(ended, "{at}: {what:#?} {ran:#?}");
            return met;
        }
        gone = ran.is_some();
        if !gone {
            // It failed while it read, and nothing was touched.
            assert_eq!(left(&world.admin, &objects).await.len(), objects.len(), "{at}");
            continue;
        }
        let (what, ran) = world.uninstall(BOTH).await;
        assert_eq!(ran.map(|ran| ran.end), Some(End::Complete), "{at}: {what:#?}");
        assert_eq!(left(&world.admin, &objects).await, Vec::<String>::new(), "{at}");
    }
    0
}

/// The same for the requests to Azure that switch the add-on off.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_the_cluster_that_fails_is_made_again() {
    for action in [
        json!({"answer": {"status": 400, "code": "BadRequest", "message": "no"}}),
        json!("reply_lost"),
    ] {
        for nth in 1..=2 {
            let world = World::start().await;
            world
                .profile(json!({"enabled": true, "userAssignedIdentities":
                    [{"name": "api", "namespace": "shop", "identity": {"clientId": "c"}}]}))
                .await;
            world
                .fault(json!({"service": "arm", "method": "PUT", "path": "*managedclusters*",
                    "nth": nth, "action": action}))
                .await;
            let (_, ran) = world.uninstall(BOTH).await;
            assert!(ran.is_some(), "{action} {nth}");
            assert!(world.mended().await >= nth);
            let (what, ran) = world.uninstall(BOTH).await;
            assert_eq!(ran.map(|ran| ran.end), Some(End::Complete), "{action} {nth}: {what:#?}");
            let (what, _) = world.uninstall(BOTH).await;
            assert!(what.steps.is_empty() && what.obstacles.is_empty(), "{what:#?}");
            let profile = &world.record().await["properties"]["podIdentityProfile"];
            assert_eq!(profile, &json!({"enabled": false}));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_takes_its_objects_along_in_the_sandbox_as_in_kubernetes() {
    let world = World::start().await;
    let definition = pod_identity::definition("AzureAssignedIdentity", "azureassignedidentities");
    let one = assigned("default", "held");
    make(&world.admin, &[definition.clone(), one.clone()]).await;
    let path = format!("{}/azureassignedidentities.{GROUP}", definition.0);
    world.admin.delete(&path).await;
    // Its finalizer holds the object, and the object holds the definition.
    let held = world.admin.get(&path).await;
    assert!(held["metadata"]["deletionTimestamp"].is_string(), "{held}");
    let body = json!({"metadata": {"finalizers": null}});
    let object = format!("{}/held", one.0);
    let kind = "application/merge-patch+json";
    world.admin.send(http::Method::PATCH, &object, kind, &body).await;
    let gone = async {
        while world.admin.exists(&path).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_mins(1), gone).await.is_ok());
    // Made again, it holds nothing of what was.
    make(&world.admin, std::slice::from_ref(&definition)).await;
    assert!(!world.admin.exists(&object).await);
}

#[test]
fn where_nothing_is_left_it_says_so_and_wrong_words_are_answered() {
    let desk = Desk::new();
    desk.write("workloads.toml", NO_GRANTS);
    let free = "No AAD Pod Identity: nothing to uninstall.";
    desk.run("--sandbox migrate uninstall --plan").exits(0).shows(free);
    desk.run("--sandbox migrate uninstall --yes").exits(0).shows(free);
    desk.run("--sandbox -o markdown migrate uninstall --plan").exits(0).shows(free);
    let ran = desk.run("--sandbox -o json migrate uninstall --plan").exits(0);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["clusters"][0]["steps"], json!([]));
    assert_eq!(document["sandbox"], true);
    desk.run("--sandbox migrate uninstall").exits(64).says("migrate uninstall --plan");
    desk.run("--sandbox migrate uninstall --plan --yes").exits(64);
    desk.run("--sandbox migrate uninstall --dry-run").exits(64).says("the flag is `--plan`");
    desk.run("--sandbox -o toml migrate uninstall --plan").exits(64);
    desk.run("--sandbox migrate uninstall --plan --cluster x").exits(64).says("no cluster `x`");
}
