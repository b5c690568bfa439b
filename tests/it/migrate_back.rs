//! Putting back never makes it worse, against the sandbox: what has arrived stays, nobody else loses
//! anything, old pods are seen again, and what was there a moment ago is what comes back.

use std::time::Duration;

use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use widentity::{
    execute::RunOptions,
    kubernetes::{Client, Connect, Objects as _, Place},
    migrate::{
        Phase, rollback as back,
        transition::{self, OldLabel},
    },
    model::{
        FailureKind, Namespace,
        pod_identity::{EstatePod, Field, TemplateBackup},
        snapshot::TemplateKind,
    },
    ops::migrate::{Overview, PutBack, apply},
    plan::Plan,
    sandbox::store::Write,
};

use crate::{
    migrate::fixtures,
    migrate_sandbox::{LABEL, USE, World, names, template},
    support::{
        kube_apiserver::{self, Admin},
        moving_in,
        town::Ran,
    },
};

const MINUTES: Duration = Duration::from_mins(5);
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/shop/statefulsets";
const ACCOUNTS: &str = "/api/v1/namespaces/shop/serviceaccounts";
const CLIENT: &str = "azure.workload.identity/client-id";
const TENANT: &str = "azure.workload.identity/tenant-id";

async fn delete(world: &World, path: &str) {
    let now = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    world.ask("DELETE", path, JSON, &now).await;
}

async fn schedulable(world: &World, yes: bool) {
    let nodes = world.ask("GET", "/api/v1/nodes", JSON, &Value::Null).await;
    for node in nodes["items"].as_array().unwrap() {
        let path = format!("/api/v1/nodes/{}", node["metadata"]["name"].as_str().unwrap());
        world.ask("PATCH", &path, MERGE, &json!({"spec": {"unschedulable": !yes}})).await;
    }
}

/// An image that never gets ready, long after a workload has arrived.
async fn bad_image(world: &World) {
    schedulable(world, false).await;
    let path = format!("{DEPLOYMENTS}/w000");
    let soon = json!({"spec": {"progressDeadlineSeconds": 1}});
    world.ask("PATCH", &path, MERGE, &soon).await;
    let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image",
        "value": "registry.example/app:2"}]);
    world.ask("PATCH", &path, "application/json-patch+json", &image).await;
    loop {
        let object = world.deployment("w000").await;
        if object["status"]["conditions"].to_string().contains("ProgressDeadlineExceeded") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn client_of(world: &World, account: &str) -> Value {
    annotation(world, account, CLIENT).await
}

async fn annotation(world: &World, account: &str, key: &str) -> Value {
    let path = format!("{ACCOUNTS}/{account}");
    let account = world.ask("GET", &path, JSON, &Value::Null).await;
    account["metadata"]["annotations"][key].clone()
}

async fn undone(world: &World, at_most: Duration, served: bool) -> PutBack {
    let overview = world.overview().await;
    let read = &overview.clusters[0];
    let backup = &read.estate.backups[0];
    world.undo_within(read, backup, world.request(), at_most, served).await
}

async fn labels(world: &World) -> Value {
    template(&world.deployment("w000").await)["labels"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_stays_where_it_is_whatever_becomes_of_its_pods() {
    let world = World::start(&names(1)).await;
    world.apply(MINUTES).await;
    bad_image(&world).await;
    let switched = json!({"app": "w000", USE: "true"});
    // Pod Identity would still answer; but this is not the roll that moved it.
    let (put_back, _) = world.apply(Duration::from_secs(3)).await;
    assert_eq!(put_back, []);
    assert_eq!(labels(&world).await, switched);

    // Now it would not.
    let at = "/apis/aadpodidentity.k8s.io/v1/namespaces/shop";
    for object in ["azureidentitybindings/w000", "azureidentities/w000"] {
        delete(&world, &format!("{at}/{object}")).await;
    }
    assert_eq!(world.phases().await, [Phase::Cleaned], "pods are no phase");
    let (put_back, _) = world.apply(Duration::from_secs(3)).await;
    assert_eq!(put_back, []);
    assert_eq!(labels(&world).await, switched);
    assert!(client_of(&world, "w000").await.is_string());
}

/// Somebody deployed while it soaked, and then put it back: that release was looked at, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_put_back_is_left_alone_whatever_was_deployed_before() {
    let world = World::start(&names(1)).await;
    world.apply(MINUTES).await;
    let path = format!("{DEPLOYMENTS}/w000");
    let image = |tag: u8| {
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image",
            "value": format!("registry.example/app:{tag}")}])
    };
    world.ask("PATCH", &path, "application/json-patch+json", &image(2)).await;
    assert_eq!(undone(&world, MINUTES, false).await, PutBack::Done);
    let workload = |overview: Overview| overview.clusters[0].survey.workloads[0].clone();
    let after = workload(world.overview().await);
    assert_eq!((after.phase, after.left_alone), (Phase::RolledBack, true));
    world.ask("PATCH", &path, "application/json-patch+json", &image(3)).await;
    assert!(!workload(world.overview().await).left_alone);
    // A plan that changes nothing of it keeps the mark: nothing took it up again.
    let read = &world.overview().await.clusters[0];
    let empty = Plan { changes: vec![], steps: vec![], digest: String::new(), digests: vec![] };
    let project = &world.desired.project;
    let of = &read.survey.workloads[0];
    assert_eq!(transition::backup(&empty, project, &read.estate, of), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_back_to_where_nobody_answers() {
    let world = World::start(&names(1)).await;
    world.apply(MINUTES).await;
    delete(&world, "/apis/apps/v1/namespaces/default/daemonsets/nmi").await;
    let how = undone(&world, MINUTES, false).await;
    let PutBack::Hindered(why) = how else { panic!("{how:?}") };
    assert!(why[0].contains("no NMI was found") && why[0].contains("--nmi-runs"), "{why:?}");
    assert_eq!(world.phases().await, [Phase::Soaking]);
    // Somebody knows better.
    assert_eq!(undone(&world, MINUTES, true).await, PutBack::Done);
    assert_eq!(world.phases().await, [Phase::RolledBack]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_else_uses_the_account_by_the_new_path_keeps_its_annotations() {
    let world = World::start(&names(1)).await;
    world.apply(MINUTES).await;
    // Somebody who never had Pod Identity uses the account since.
    let mut worker = world.deployment("w000").await;
    worker["metadata"] = json!({"name": "worker", "namespace": "shop"});
    worker["spec"]["selector"] = json!({"matchLabels": {"app": "worker"}});
    worker["spec"]["template"]["metadata"] = json!({"labels": {"app": "worker", USE: "true"}});
    world.ask("POST", DEPLOYMENTS, JSON, &worker).await;
    world.settled(&["worker".to_owned()]).await;

    let how = undone(&world, MINUTES, false).await;
    let PutBack::Kept(what) = how else { panic!("{how:?}") };
    assert!(what[0].contains("deployment/worker"), "{what:?}");
    assert_eq!(labels(&world).await, json!({"app": "w000", LABEL: "w000"}));
    assert!(client_of(&world, "w000").await.is_string());
    let overview = world.overview().await;
    let workload = &overview.clusters[0].survey.workloads[0];
    assert_eq!((workload.phase, workload.left_alone), (Phase::RolledBack, true));

    delete(&world, &format!("{DEPLOYMENTS}/worker")).await;
    while !world.overview().await.clusters[0].estate.pods.iter().all(|p| p.client_ids.is_empty()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(undone(&world, MINUTES, false).await, PutBack::Done);
    assert_eq!(client_of(&world, "w000").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_gets_the_pod_of_its_failed_roll_replaced() {
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {
            "replicas": 2, "serviceName": "cart",
            "selector": {"matchLabels": {"app": "cart"}},
            "template": {"metadata": {"labels": {"app": "cart", LABEL: "cart"}}, "spec": {
                "serviceAccountName": "cart",
                "containers": [{"name": "app", "image": "registry.example/app:1",
                    "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}]}},
        },
    });
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "cart", "namespace": "shop"}});
    let world = World::start_with(&[], vec![account, set]).await;
    world.bind("cart").await;
    let ready = async |wanted: u64| {
        let path = format!("{SETS}/cart");
        world.ask("GET", &path, JSON, &Value::Null).await["status"]["readyReplicas"] == wanted
    };
    while !ready(2).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Ordinal 1 is replaced first and finds no node.
    schedulable(&world, false).await;
    let (put_back, _) = world.apply(Duration::from_secs(3)).await;
    let [(name, PutBack::Late(what))] = put_back.as_slice() else { panic!("{put_back:?}") };
    assert_eq!(name, "shop/cart");
    assert!(what.iter().any(|w| w.contains("migrate rollback shop/cart")), "{what:?}");
    // The stuck pod went all the same: its successor is of the old template.
    let pod =
        async || world.ask("GET", "/api/v1/namespaces/shop/pods/cart-1", JSON, &Value::Null).await;
    assert_eq!(pod().await["metadata"]["labels"][LABEL], "cart");
    assert!(client_of(&world, "cart").await.is_string(), "its pods are not back yet");
    assert_eq!(world.phases().await, [Phase::RolledBack]);

    schedulable(&world, true).await;
    assert_eq!(undone(&world, MINUTES, false).await, PutBack::Done);
    assert!(ready(2).await);
    assert_eq!(pod().await["metadata"]["labels"][LABEL], "cart");
    assert_eq!(client_of(&world, "cart").await, Value::Null);
}

/// A run that writes its backups and is interrupted before it does anything.
async fn begun(world: &World) {
    let before = world.overview().await;
    let now = Timestamp::now();
    let moves =
        apply::moves(&world.desired, &before, &world.connected, "w", now, OldLabel::Drop).await;
    let (_end, interrupt) = watch::channel(true);
    let options = RunOptions::new(now, interrupt);
    let (request, connected) = (world.request(), &world.connected);
    let mut quiet = |_: &_| {};
    let done = apply::apply(&moves[0], &before, request, connected, options, &mut quiet).await;
    assert!(!done.unwrap().report.written);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_is_what_was_there_last_and_not_what_an_earlier_run_saw() {
    let world = World::start(&names(1)).await;
    begun(&world).await;
    // Since then somebody made the account again, with a tenant of their own.
    let other = "88888888-8888-8888-8888-888888888888";
    delete(&world, &format!("{ACCOUNTS}/w000")).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "w000", "namespace": "shop", "annotations": {TENANT: other}}});
    let path = format!("{ACCOUNTS}?fieldManager=kubectl-create");
    world.ask("POST", &path, JSON, &account).await;
    schedulable(&world, false).await;
    let (put_back, _) = world.apply(Duration::from_secs(3)).await;
    assert_eq!(put_back, [("shop/w000".to_owned(), PutBack::Done)]);
    assert_eq!(annotation(&world, "w000", TENANT).await, other);
    assert_eq!(client_of(&world, "w000").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_was_made_again_goes_back_like_any_other() {
    let world = World::start(&names(1)).await;
    let mut object = world.deployment("w000").await;
    world.apply(MINUTES).await;
    let path = format!("{DEPLOYMENTS}/w000");
    delete(&world, &path).await;
    while world.overview().await.clusters[0].estate.pods.iter().any(|p| !p.client_ids.is_empty()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    object["metadata"] = json!({"name": "w000", "namespace": "shop"});
    world.ask("POST", DEPLOYMENTS, JSON, &object).await;
    world.settled(&names(1)).await;
    // As it is, there is nothing to give back but the account's annotations.
    let (_, good) = world.apply(MINUTES).await;
    assert!(good);
    assert_eq!(world.phases().await, [Phase::Soaking]);
    assert_eq!(undone(&world, MINUTES, false).await, PutBack::Done);
    assert_eq!(labels(&world).await, json!({"app": "w000", LABEL: "w000"}));
    assert_eq!(client_of(&world, "w000").await, Value::Null);
    // One that is gone hinders nothing.
    world.ask("DELETE", &path, JSON, &Value::Null).await;
    assert_eq!(undone(&world, MINUTES, false).await, PutBack::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_put_back_in_another_cluster() {
    let world = World::start(&names(1)).await;
    world.apply(MINUTES).await;
    let overview = world.overview().await;
    let store = &world.running.context().store;
    let cluster = &world.desired.clusters.values().next().unwrap().id;
    let key = format!("arm/{}", cluster.key().trim_start_matches('/'));
    let mut record = (*store.get(&key).unwrap()).clone();
    record["properties"]["oidcIssuerProfile"]["issuerURL"] = "https://other.example/".into();
    record["properties"]["fqdn"] = "other.example".into();
    record["properties"]["privateFQDN"] = Value::Null;
    store.commit(vec![Write::put(key, record)]).unwrap();
    let read = &overview.clusters[0];
    let how = world.undo(read, &read.estate.backups[0], world.request()).await;
    let PutBack::Failed(failure) = how else { panic!("{how:?}") };
    assert_eq!(failure.kind, FailureKind::Refused);
    assert_eq!(failure.code.as_deref(), Some("cluster-context-mismatch"));
    assert_eq!(labels(&world).await, json!({"app": "w000", USE: "true"}));
}

/// A webhook that is down stops the roll that drops the old label, too.
#[tokio::test]
async fn a_masked_workload_keeps_its_label_while_the_webhook_is_down() {
    let (_, fixture) = fixtures().into_iter().find(|(name, _)| name == "masked").unwrap();
    let mut town = moving_in::town(&fixture.estate, &fixture.workloads(), fixture.may_enable);
    let before = town.labels();
    town.fake.webhook_works = false;
    let Ran::Ended(Some(moved)) = town.apply(OldLabel::Drop).await else { panic!("not due") };
    assert_eq!(moved.put_back, []);
    assert_eq!(town.labels(), before);
    town.fake.webhook_works = true;
    let Ran::Ended(Some(_)) = town.apply(OldLabel::Drop).await else { panic!("not due") };
    assert_ne!(town.labels(), before);
}

/// The controller that the sandbox imitates, and what helps against it.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_stateful_set_controller_needs_the_same_help() {
    let name = "migrate_back::a_real_stateful_set_controller_needs_the_same_help";
    let Some(server) = kube_apiserver::shared(name) else { return };
    let admin = Admin::of(server).await;
    let namespace = admin.namespace("cart").await;
    let sets = format!("/apis/apps/v1/namespaces/{namespace}/statefulsets");
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "cart"},
        "spec": {
            "replicas": 2, "serviceName": "cart",
            "selector": {"matchLabels": {"app": "cart"}},
            "template": {"metadata": {"labels": {"app": "cart", LABEL: "cart"}}, "spec": {
                "containers": [{"name": "app", "image": "registry.example/app:1"}]}},
        },
    });
    let uid = admin.create(&sets, &set).await["metadata"]["uid"].as_str().unwrap().to_owned();
    let path = format!("{sets}/cart");
    let pod = format!("/api/v1/namespaces/{namespace}/pods/cart-1");
    let pause = || tokio::time::sleep(Duration::from_millis(100));
    while admin.get(&path).await["status"]["readyReplicas"] != 2 {
        admin.run_pods(&namespace).await;
        pause().await;
    }
    let switched = json!([
        {"op": "remove", "path": format!("/spec/template/metadata/labels/{LABEL}")},
        {"op": "add", "path": "/spec/template/metadata/labels/azure.workload.identity~1use",
            "value": "true"}]);
    let patch = "application/json-patch+json";
    admin.send(Method::PATCH, &path, patch, &switched).await;
    // The new pod never gets ready.
    let has_moved = |pod: Value| pod["metadata"]["labels"][USE] == "true";
    while !admin.find(&pod).await.is_some_and(has_moved) {
        pause().await;
    }
    let connect = Connect::Kubeconfig { path: Some(server.kubeconfig.clone()), context: None };
    let client = Client::connect(connect).await.unwrap();
    let namespace = Namespace::from(namespace.as_str());
    let at = Place {
        kind: TemplateKind::StatefulSet,
        api_version: "apps/v1",
        namespace: &namespace,
        name: "cart",
        uid: &uid,
    };
    let field = |before: Option<&str>, after: Option<&str>| Field {
        before: before.map(str::to_owned),
        after: after.map(str::to_owned),
    };
    let kept = TemplateBackup {
        key: "statefulset/cart".to_owned(),
        uid: uid.clone(),
        labels: [
            (USE.to_owned(), field(None, Some("true"))),
            (LABEL.to_owned(), field(Some("cart"), None)),
        ]
        .into(),
        ..TemplateBackup::default()
    };
    assert_eq!(client.restore_template(at, &kept, "widentity-test").await.unwrap(), [""; 0]);
    let late = async || {
        let (templates, pods) = client.inhabitants(&namespace).await.unwrap();
        back::late(&templates, &pods, &kept)
    };
    let stuck = loop {
        if let Some(stuck) = late().await.and_then(|late| late.stuck) {
            break stuck;
        }
        pause().await;
    };
    assert_eq!(stuck.name, "cart-1");
    // It has seen the template and does nothing.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(admin.get(&pod).await["metadata"]["uid"], stuck.uid.as_str());
    // A pod that changed since it was seen stays.
    let old = EstatePod { resource_version: "1".to_owned(), ..stuck.clone() };
    assert!(client.remove_pod(&old).await.unwrap_err().is_conflict());
    client.remove_pod(&stuck).await.unwrap();
    while late().await.is_some() {
        admin.run_pods(namespace.as_str()).await;
        pause().await;
    }
    assert_eq!(admin.get(&pod).await["metadata"]["labels"][LABEL], "cart");
}

/// What another version wrote down is not taken for nothing, and stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_backup_that_cannot_be_read_nothing_is_changed() {
    let world = World::start(&names(1)).await;
    let path = "/api/v1/namespaces/shop/configmaps";
    let newer = json!({"namespace": "shop", "account": "w000", "of_a_later_version": true});
    let kept = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "widentity-migrate-later", "namespace": "shop",
            "labels": {"widentity.dev/migrate": "backup"}},
        "data": {"backup.json": newer.to_string()}});
    world.ask("POST", path, JSON, &kept).await;
    let before = world.deployment("w000").await;

    let overview = world.overview().await;
    let unseen: Vec<String> = overview.unseen().map(ToString::to_string).collect();
    let [unseen] = &unseen[..] else { panic!("{unseen:#?}") };
    assert!(unseen.contains("shop/widentity-migrate-later"), "{unseen}");
    assert!(unseen.contains("of_a_later_version"), "{unseen}");
    let (put_back, good) = world.apply(MINUTES).await;
    assert!(put_back.is_empty() && good, "{put_back:#?}");
    assert_eq!(world.deployment("w000").await["spec"], before["spec"]);
    let all = world.ask("GET", path, JSON, &Value::Null).await;
    let ours = all["items"].as_array().unwrap().iter();
    let ours: Vec<&Value> =
        ours.filter(|map| map["metadata"]["labels"]["widentity.dev/migrate"] == "backup").collect();
    assert_eq!(ours.len(), 1, "{ours:#?}");
    assert_eq!(ours[0]["data"], kept["data"]);
}
