//! Leaving Pod Identity against the sandbox, over HTTPS: moved, put back, rolled back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;
use widentity::{
    execute::RunOptions,
    migrate::{Phase, Verdict, toml, transition::OldLabel},
    model::{
        ArmId,
        desired::{Access, DesiredState},
        pod_identity::Backup,
    },
    observe::observe,
    ops::{
        Connected,
        connect::connect,
        migrate::{
            Allowed, Overview, Patience, PutBack, Request, Surveyed, Waived, apply,
            finish::{self, Finishing},
            overview, proofs,
            rollback::{self, Putting},
        },
    },
    plan::{self, PlanOptions},
    sandbox::{ClusterRef, Options, Place, Running, Sandbox, Seed, SeedCluster, store::Write},
};

use crate::support::{
    cli::{Desk, NO_GRANTS},
    signed_in, worlds,
};

pub(crate) const LABEL: &str = "aadpodidbinding";
pub(crate) const USE: &str = "azure.workload.identity/use";

pub(crate) struct World {
    pub(crate) desired: DesiredState,
    pub(crate) connected: Connected,
    pub(crate) waived: Waived,
    kubernetes: kube::Client,
    pub(crate) running: Running,
    _directory: tempfile::TempDir,
}

pub(crate) fn definition(kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.aadpodidentity.k8s.io")},
        "spec": {
            "group": "aadpodidentity.k8s.io", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(),
                "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema":
                {"openAPIV3Schema": {"type": "object",
                    "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    })
}

/// NMI, without which nobody answers.
fn nmi() -> Value {
    let labels = json!({"component": "nmi"});
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "nmi", "namespace": "default", "labels": labels},
        "spec": {"selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [
                {"name": "nmi", "image": "registry.example/nmi:1"}]}}}})
}

fn deployment(name: &str) -> Value {
    let labels = json!({"app": name, LABEL: name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": name,
                "containers": [{"name": "app", "image": "registry.example/app:1",
                    "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}],
            }},
        },
    })
}

pub(crate) fn identity(name: &str) -> ArmId {
    let group = ArmId::of_subscription(worlds::subscription()).child("resourceGroups", "rg-id");
    ArmId::new(format!("{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"))
}

impl World {
    /// A cluster with a Deployment of its own, an identity and a binding for each name.
    pub(crate) async fn start(names: &[String]) -> Self {
        Self::start_with(names, Vec::new()).await
    }

    /// The same, with more objects.
    pub(crate) async fn start_with(names: &[String], more: Vec<Value>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut desired = worlds::desired(&["prod"]);
        let cluster = desired.clusters.values_mut().next().unwrap();
        let mut objects = vec![
            definition("AzureIdentity", "azureidentities"),
            definition("AzureIdentityBinding", "azureidentitybindings"),
        ];
        for name in names {
            objects.push(json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": name, "namespace": "shop"}}));
            objects.push(deployment(name));
        }
        objects.push(nmi());
        objects.extend(more);
        let seed = Seed {
            clusters: vec![SeedCluster {
                cluster: ClusterRef { name: "prod".to_owned(), id: cluster.id.to_string() },
                location: String::new(),
                oidc_issuer: true,
                workload_identity: true,
                entra: false,
                namespaces: vec!["shop".to_owned()],
                deployments: Vec::new(),
                objects,
            }],
            resource_groups: vec![
                identity("x").as_str().split("/providers").next().unwrap().into(),
            ],
            ..Seed::default()
        };
        let mut options = Options::new(Place::Memory(directory.path().to_owned()), seed);
        options.settings.tenant = worlds::tenant().0;
        options.settings.subscription = worlds::subscription().0;
        options.settings.delays.fic = Duration::ZERO;
        options.settings.delays.fic_write = Duration::ZERO;
        options.settings.delays.parent = Duration::ZERO;
        options.settings.delays.negative_cache = Duration::ZERO;
        let running = Sandbox::start(options).await.unwrap();
        let ready = running.ready();
        let path = &ready.kubeconfigs["prod"];
        cluster.access =
            Access::Context { context: None, kubeconfig: Some(path.display().to_string()) };
        let target = signed_in::target(ready, Some(desired.tenant));
        let connected = connect(&desired, target, Arc::new(|_: &str| {})).await.unwrap();
        let file = kube::config::Kubeconfig::read_from(path).unwrap();
        let config = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &config).await.unwrap();
        let kubernetes = kube::Client::try_from(config).unwrap();
        let waived = Waived::default();
        let world = Self { desired, connected, waived, kubernetes, running, _directory: directory };
        for name in names {
            world.bind(name).await;
        }
        world.settled(names).await;
        world
    }

    /// A managed identity, its `AzureIdentity` and a binding of this name.
    pub(crate) async fn bind(&self, name: &str) {
        let id = identity(name);
        let tags = BTreeMap::new();
        let made = self.connected.arm.create_identity(&id, "westeurope", &tags).await.unwrap();
        let at = "/apis/aadpodidentity.k8s.io/v1/namespaces/shop";
        let spec = json!({"type": 0, "resourceID": id.as_str(),
            "clientID": made.client_id.to_string()});
        self.make(at, "AzureIdentity", "azureidentities", name, spec).await;
        let spec = json!({"azureIdentity": name, "selector": name});
        self.make(at, "AzureIdentityBinding", "azureidentitybindings", name, spec).await;
    }

    /// What the Pod Identity add-on is told in ARM's record.
    pub(crate) fn profile(&self, profile: &Value) {
        let store = &self.running.context().store;
        let cluster = &self.desired.clusters.values().next().unwrap().id;
        let key = format!("arm/{}", cluster.key().trim_start_matches('/'));
        let mut record = (*store.get(&key).unwrap()).clone();
        record["properties"]["podIdentityProfile"] = profile.clone();
        store.commit(vec![Write::put(key, record)]).unwrap();
    }

    /// Waits until every Deployment has its pod.
    pub(crate) async fn settled(&self, names: &[String]) {
        for name in names {
            while self.deployment(name).await["status"]["availableReplicas"] != 1 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    pub(crate) async fn make(&self, at: &str, kind: &str, plural: &str, name: &str, spec: Value) {
        let object = json!({"apiVersion": "aadpodidentity.k8s.io/v1", "kind": kind,
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        self.ask("POST", &format!("{at}/{plural}"), "application/json", &object).await;
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, kind: &str, body: &Value) -> Value {
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header("content-type", kind);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.kubernetes.request(request.body(body).unwrap()).await.unwrap()
    }

    pub(crate) async fn deployment(&self, name: &str) -> Value {
        let path = format!("/apis/apps/v1/namespaces/shop/deployments/{name}");
        self.ask("GET", &path, "application/json", &Value::Null).await
    }

    pub(crate) async fn overview(&self) -> Overview {
        self.overview_after(SignedDuration::from_hours(24)).await
    }

    pub(crate) async fn overview_after(&self, soak: SignedDuration) -> Overview {
        overview(Request { soak, ..self.request() }, &self.connected).await
    }

    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            desired: &self.desired,
            sandbox: true,
            now: Timestamp::now(),
            soak: SignedDuration::from_hours(24),
            waived: self.waived,
            shelf: &(),
        }
    }

    pub(crate) fn finishing<'a>(&'a self, proved: &'a BTreeSet<String>) -> Finishing<'a> {
        let (_never, interrupt) = watch::channel(false);
        Finishing {
            request: Request { soak: SignedDuration::ZERO, ..self.request() },
            connected: &self.connected,
            allowed: allowed(proved),
            patience: Patience { look: Duration::from_millis(100), ..Patience::new(interrupt) },
        }
    }

    /// `migrate rollback`.
    pub(crate) async fn undo(
        &self,
        read: &Surveyed,
        backup: &Backup,
        request: Request<'_>,
    ) -> PutBack {
        self.undo_within(read, backup, request, Duration::from_mins(5), false).await
    }

    pub(crate) async fn undo_within(
        &self,
        read: &Surveyed,
        backup: &Backup,
        request: Request<'_>,
        at_most: Duration,
        served: bool,
    ) -> PutBack {
        let (_never, interrupt) = watch::channel(false);
        let patience = Patience { at_most, look: Duration::from_millis(100), interrupt };
        let project = &self.desired.project;
        let with = Putting { project, served, blameless: false, patience, notes: &|_| {} };
        rollback::undo(read, backup, request, &self.connected, &with).await
    }

    pub(crate) async fn apply(&self, rollout: Duration) -> (Vec<(String, PutBack)>, bool) {
        self.apply_and(rollout, OldLabel::Drop).await
    }

    pub(crate) async fn apply_and(
        &self,
        rollout: Duration,
        old: OldLabel,
    ) -> (Vec<(String, PutBack)>, bool) {
        let before = self.overview().await;
        let now = Timestamp::now();
        let moves = apply::moves(&self.desired, &before, &self.connected, "w.toml", now, old).await;
        let (_never, interrupt) = watch::channel(false);
        let (mut put_back, mut good) = (Vec::new(), true);
        for one in &moves {
            assert!(one.planned.report.is_clear(), "{:#?}", one.planned.report);
            let options = RunOptions {
                rollout_deadline: rollout,
                looks_apart: Duration::from_millis(200),
                ..RunOptions::new(now, interrupt.clone())
            };
            let mut quiet = |_: &_| {};
            let done =
                apply::apply(one, &before, self.request(), &self.connected, options, &mut quiet)
                    .await
                    .unwrap();
            good &= done.report.counts.failed == 0;
            put_back.extend(done.put_back);
        }
        (put_back, good)
    }

    /// Reads what `migrate plan -o toml` prints as a file: the engine finds all of it done. How many
    /// workloads there are.
    pub(crate) async fn as_printed(&self) -> usize {
        let empty = DesiredState { workloads: Vec::new(), ..self.desired.clone() };
        let text = toml::workloads(&self.overview().await.surveys(), &empty);
        let wanted = worlds::of_file(&empty, &text).unwrap_or_else(|told| panic!("{told}"));
        let now = Timestamp::now();
        let Connected { arm, clusters, .. } = &self.connected;
        let seen = observe(&wanted, arm, clusters, now).await;
        let (plan, report) = plan::plan(&wanted, &seen, PlanOptions::default());
        assert!(plan.changes.is_empty(), "{text}{:#?}", plan.changes);
        assert!(report.is_clear() && report.not_proved.is_empty(), "{text}{report:#?}");
        wanted.workloads.len()
    }

    pub(crate) async fn phases(&self) -> Vec<Phase> {
        let overview = self.overview().await;
        assert_eq!(overview.unseen().count(), 0, "{:#?}", overview.unseen().collect::<Vec<_>>());
        overview.clusters[0].survey.workloads.iter().map(|w| w.phase).collect()
    }
}

/// Whoever was proved was chosen, and nobody else.
pub(crate) fn allowed(proved: &BTreeSet<String>) -> Allowed<'_> {
    Allowed { chosen: proved, proved, unassign: false }
}

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("w{n:03}")).collect()
}

pub(crate) fn template(object: &Value) -> &Value {
    &object["spec"]["template"]["metadata"]
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_move_in_one_roll_the_engine_agrees_and_one_goes_back() {
    let world = World::start(&names(3)).await;
    assert_eq!(world.phases().await, [Phase::Discovered; 3]);
    let before = world.deployment("w001").await;

    let (put_back, good) = world.apply(Duration::from_mins(5)).await;
    assert!(good && put_back.is_empty(), "{put_back:?}");
    assert_eq!(world.phases().await, [Phase::Soaking; 3]);
    let after = world.deployment("w001").await;
    assert_eq!(template(&after)["labels"][USE], "true");
    assert!(template(&after)["labels"].get(LABEL).is_none());
    // One write of the template, so one roll: the label never went without the other.
    let generation = |object: &Value| object["metadata"]["generation"].as_i64().unwrap();
    assert_eq!(generation(&after), generation(&before) + 1);

    assert_eq!(world.as_printed().await, 3);
    let overview = world.overview().await;

    let backups = &overview.clusters[0].estate.backups;
    assert!(backups.iter().all(|backup| backup.arrived.is_some()), "{backups:#?}");

    // A second apply does nothing.
    assert_eq!(world.apply(Duration::from_mins(5)).await, (Vec::new(), true));

    let read = &overview.clusters[0];
    let backup = read.estate.backups.iter().find(|b| b.account.as_str() == "w001").unwrap();
    let how = world.undo(read, backup, world.request()).await;
    assert_eq!(how, PutBack::Done);
    let back = world.deployment("w001").await;
    assert_eq!(template(&back)["labels"], template(&before)["labels"]);
    assert!(template(&back)["annotations"].as_object().is_none_or(serde_json::Map::is_empty));
    let path = "/api/v1/namespaces/shop/serviceaccounts/w001";
    let account = world.ask("GET", path, "application/json", &Value::Null).await;
    assert!(account["metadata"]["annotations"].as_object().is_none_or(serde_json::Map::is_empty));
    let phases: BTreeSet<Phase> = world.phases().await.into_iter().collect();
    assert_eq!(phases, BTreeSet::from([Phase::Soaking, Phase::RolledBack]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_that_fails_stops_the_others_and_is_put_back() {
    let world = World::start(&names(3)).await;
    // The Deployments have their pods; no new pod finds a node.
    let nodes = world.ask("GET", "/api/v1/nodes", "application/json", &Value::Null).await;
    for node in nodes["items"].as_array().unwrap() {
        let path = format!("/api/v1/nodes/{}", node["metadata"]["name"].as_str().unwrap());
        let body = json!({"spec": {"unschedulable": true}});
        world.ask("PATCH", &path, "application/merge-patch+json", &body).await;
    }
    let before = world.deployment("w000").await;
    let (put_back, good) = world.apply(Duration::from_secs(3)).await;
    assert!(!good);
    assert_eq!(put_back.len(), 1, "the first roll stops the others: {put_back:?}");
    assert_eq!(put_back[0].1, PutBack::Done, "{put_back:?}");
    for name in names(3) {
        let object = world.deployment(&name).await;
        assert_eq!(template(&object)["labels"][LABEL], name.as_str());
        assert!(template(&object)["labels"].get(USE).is_none());
    }
    assert_eq!(template(&before)["labels"], template(&world.deployment("w000").await)["labels"]);
    let phases = world.phases().await;
    assert_eq!(phases.iter().filter(|phase| **phase == Phase::RolledBack).count(), 1);
    let after = world.overview().await;
    let counts = after.counts();
    assert_eq!((counts.ready, counts.left_alone), (2, 1), "{counts:?}");
    assert_eq!(after.count(Verdict::LeftAlone), 1);
    // The same experiment is not made again by itself, but with another application it is.
    let back = after.clusters[0].survey.workloads.iter().find(|w| w.left_alone).unwrap();
    assert_eq!(back.phase, Phase::RolledBack);
    let (name, account) = (put_back[0].0.clone(), back.account.clone());
    assert!(back.next[0].contains(&format!("migrate apply --only {name}")), "{:?}", back.next);
    let path = format!("/apis/apps/v1/namespaces/shop/deployments/{account}");
    let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image",
        "value": "registry.example/app:2"}]);
    world.ask("PATCH", &path, "application/json-patch+json", &image).await;
    let again = world.overview().await;
    assert!(again.clusters[0].survey.workloads.iter().all(|w| !w.left_alone));
}

#[test]
fn a_cluster_without_pod_identity_says_so_and_exits_0() {
    let desk = Desk::new();
    desk.write("workloads.toml", NO_GRANTS);
    let free = "No AAD Pod Identity: nothing to migrate.";
    desk.run("--sandbox migrate").exits(0).shows(free);
    desk.run("--sandbox migrate plan -o markdown").exits(0).shows(free);
    let ran = desk.run("--sandbox migrate status -o json").exits(0);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["found"], false);
    assert_eq!(desk.run("--sandbox migrate plan -o toml").exits(0).stdout, "");
    desk.run("--sandbox migrate apply --yes").exits(0).shows(free);
    desk.run("--sandbox migrate apply").exits(64).says("no terminal");
    desk.run("--sandbox migrate rollback payments/api --yes").exits(1).says("no backup");
    desk.run("--sandbox migrate status -o toml").exits(64);
}

/// What is not ready is the normal state of an estate on its way; whoever names a workload wants
/// it moved.
#[test]
fn a_named_workload_that_is_not_ready_is_no_success() {
    let desk = Desk::new();
    let text = include_str!("../../examples/pod-identity/workloads.toml");
    desk.write("workloads.toml", text);
    desk.run("--sandbox sandbox reset --pod-identity").exits(0);
    desk.write("workloads.toml", text.replace("pods = [\"cronjob/nightly\"]", ""));
    desk.run("--sandbox migrate apply --yes --only reports/nightly").exits(1).shows("no-overlap");
    desk.run("--sandbox migrate apply --yes").exits(0).shows("2 of 3 workloads moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_soaked_is_removed_and_can_be_made_again() {
    let world = World::start(&names(2)).await;
    world.apply(Duration::from_mins(5)).await;
    let (_never, interrupt) = watch::channel(false);
    let all: BTreeSet<String> = ["shop/w000".to_owned(), "shop/w001".to_owned()].into();
    let prove = async |overview: &Overview| {
        let options = RunOptions::new(Timestamp::now(), interrupt.clone());
        let read = &overview.clusters[0];
        let mut quiet = |_: &_| {};
        let (request, connected) = (world.request(), &world.connected);
        let proofs =
            proofs::prove(request, "w.toml", read, &all, connected, options, &mut quiet).await;
        proofs.unwrap().map(|proofs| {
            let scope = proofs.planned.scope;
            assert_eq!((scope.config.as_str(), scope.sandbox), ("w.toml", true));
            proofs.passed
        })
    };
    // Nothing goes before the soak is over.
    let early = world.overview().await;
    let proved = prove(&early).await;
    assert_eq!(proved, None);
    let what = finish::decide(&early.clusters[0], allowed(&all));
    assert!(what.bindings.is_empty() && what.identities.is_empty(), "{what:?}");
    assert_eq!(what.kept.len(), 2, "{what:?}");

    let over = world.overview_after(SignedDuration::ZERO).await;
    let proved = prove(&over).await.unwrap();
    assert_eq!(proved, all);
    // One that was not proved keeps its binding.
    let one: BTreeSet<String> = ["shop/w001".to_owned()].into();
    let what = finish::decide(&over.clusters[0], Allowed { proved: &one, ..allowed(&all) });
    assert_eq!((what.bindings.len(), what.identities.len(), what.kept.len()), (1, 1, 1));
    let again = "shop/w000 was not proved again in this run".to_owned();
    assert_eq!(what.kept, [("binding shop/w000".to_owned(), again)]);
    let what = finish::decide(&over.clusters[0], allowed(&proved));
    let finishing = world.finishing(&proved);
    let done = finish::finish(&over.clusters[0], &what, &finishing).await;
    assert_eq!(done.failure, None);
    assert_eq!(done.removed.len(), 4, "{:?}", done.removed);
    assert_eq!(world.phases().await, [Phase::Cleaned; 2]);

    let after = world.overview().await;
    let read = &after.clusters[0];
    let backup = read.estate.backups.iter().find(|b| b.account.as_str() == "w001").unwrap();
    let how = world.undo(read, backup, world.request()).await;
    assert_eq!(how, PutBack::Done);
    let again = world.overview().await;
    let estate = &again.clusters[0].estate;
    assert_eq!((estate.bindings.len(), estate.identities.len()), (1, 1));
    assert_eq!(estate.bindings[0].selector, "w001");
    assert_eq!(world.phases().await, [Phase::Cleaned, Phase::RolledBack]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_without_the_label_is_not_mutated_and_our_template_is() {
    let world = World::start(&names(1)).await;
    world.apply(Duration::from_mins(5)).await;
    let ours = world.deployment("w000").await["spec"]["template"].clone();
    // What `azwi podidentity detect` writes: proxy containers, and no label on the pod.
    let mut theirs = ours.clone();
    theirs["metadata"]["labels"] = json!({"app": "w000"});
    theirs["spec"]["initContainers"] =
        json!([{"name": "azwi-proxy-init", "image": "mcr.microsoft.com/proxy-init:v1.5.1"}]);
    theirs["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "azwi-proxy", "image": "mcr.microsoft.com/proxy:v1.5.1"}));
    for (template, mutated) in [(ours, true), (theirs, false)] {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": template["metadata"], "spec": template["spec"]});
        pod["metadata"]["name"] = "check".into();
        let path = "/api/v1/namespaces/shop/pods?dryRun=All";
        let made = world.ask("POST", path, "application/json", &pod).await;
        let text = made.to_string();
        assert_eq!(text.contains("AZURE_FEDERATED_TOKEN_FILE"), mutated, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: run it alone on a quiet machine"]
async fn two_hundred_workloads_move_within_a_minute() {
    let world = World::start(&names(200)).await;
    let started = std::time::Instant::now();
    let (put_back, good) = world.apply(Duration::from_mins(5)).await;
    let took = started.elapsed();
    assert!(good && put_back.is_empty(), "{put_back:?}");
    assert_eq!(world.phases().await, vec![Phase::Soaking; 200]);
    assert!(took < Duration::from_mins(1), "{took:?}");
}
