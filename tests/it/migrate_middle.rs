//! What happens in the middle of a migration in the emulated cluster, over HTTPS; what needs real
//! controllers is in `real_moments`.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use widentity::{
    execute::{Event, Outcome, RunOptions},
    migrate::{Phase, transition::OldLabel},
    ops::migrate::{Moved, PutBack, apply},
    sandbox::store::Write,
};

use crate::migrate_sandbox::{LABEL, World, identity, names, template};

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

/// Migrates what is ready, also what was put back, and tells `sink` what happens.
async fn migrate(world: &World, rollout: Duration, sink: &mut (dyn FnMut(&Event) + Send)) -> Moved {
    let mut before = world.overview().await;
    before.take_up();
    let now = Timestamp::now();
    let (old, connected) = (OldLabel::Drop, &world.connected);
    let moves = apply::moves(&world.desired, &before, connected, "w.toml", now, old).await;
    let (_never, interrupt) = watch::channel(false);
    let options = RunOptions {
        rollout_deadline: rollout,
        looks_apart: Duration::from_millis(200),
        ..RunOptions::new(now, interrupt)
    };
    apply::apply(&moves[0], &before, world.request(), connected, options, sink).await.unwrap()
}

async fn pods(world: &World) -> Vec<Value> {
    let list = world.ask("GET", "/api/v1/namespaces/shop/pods", JSON, &Value::Null).await;
    list["items"].as_array().unwrap().clone()
}

/// A webhook that may be left out is left out once it is gone: pods come without an identity, and
/// Pod Identity does not answer them either. The roll ends while old pods still serve.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_whose_pods_come_without_an_identity_ends_at_once() {
    let world = World::start(&names(1)).await;
    let scale = json!({"spec": {"replicas": 4}});
    let path = "/apis/apps/v1/namespaces/shop/deployments/w000";
    world.ask("PATCH", path, MERGE, &scale).await;
    while world.deployment("w000").await["status"]["availableReplicas"] != 4 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let hooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let list = world.ask("GET", hooks, JSON, &Value::Null).await;
    for hook in list["items"].as_array().unwrap() {
        let mut webhooks = hook["webhooks"].clone();
        webhooks[0]["failurePolicy"] = "Ignore".into();
        let path = format!("{hooks}/{}", hook["metadata"]["name"].as_str().unwrap());
        world.ask("PATCH", &path, MERGE, &json!({"webhooks": webhooks})).await;
    }
    let store = &world.running.context().store;
    let id = &world.desired.clusters.values().next().unwrap().id;
    let key = format!("kube/{}/~options", id.key().trim_start_matches('/'));
    let mut roll = None;
    let mut gone = |event: &Event| match event {
        Event::RunStarted { steps } => {
            roll = steps.iter().find(|step| step.verb == "roll").map(|step| step.id);
            assert!(roll.is_some(), "{steps:#?}");
        }
        Event::StepStarted { id } if Some(*id) == roll => {
            store.commit(vec![Write::put(key.clone(), json!({"webhook_down": true}))]).unwrap();
        }
        _ => {}
    };
    let moved = migrate(&world, Duration::from_mins(1), &mut gone).await;
    let failed: Vec<String> = moved
        .report
        .with(|outcome| matches!(outcome, Outcome::Failed { .. }))
        .map(|step| format!("{:?}", step.outcome))
        .collect();
    assert!(failed[0].contains("came without the injected identity"), "{failed:?}");
    // It is put back already: undoing that would bring the failed template again.
    assert!(!failed[0].contains("rollout undo"), "{failed:?}");
    assert!(failed[0].contains("-n shop get events"), "{failed:?}");
    assert_eq!(moved.put_back, [("shop/w000".to_owned(), PutBack::Done)]);
    // Some pods were never touched.
    let object = world.deployment("w000").await;
    assert_eq!(template(&object)["labels"][LABEL], "w000");
    assert_eq!(world.phases().await, [Phase::RolledBack]);
    // Its application is not at fault: the next run takes it up again by itself.
    let after = world.overview().await;
    assert!(!after.clusters[0].survey.workloads[0].left_alone, "{after:#?}");
    store.commit(vec![Write::put(key, json!({"webhook_down": false}))]).unwrap();
    let moved = migrate(&world, Duration::from_mins(1), &mut |_| {}).await;
    assert_eq!((moved.report.counts.failed, moved.put_back), (0, Vec::new()));
    assert_eq!(world.phases().await, [Phase::Soaking]);
}

async fn schedulable(world: &World, yes: bool) {
    let nodes = world.ask("GET", "/api/v1/nodes", JSON, &Value::Null).await;
    for node in nodes["items"].as_array().unwrap() {
        let path = format!("/api/v1/nodes/{}", node["metadata"]["name"].as_str().unwrap());
        world.ask("PATCH", &path, MERGE, &json!({"spec": {"unschedulable": !yes}})).await;
    }
}

/// The controller of a `StatefulSet` waits for a pod that never gets ready, also when the template
/// that made it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_that_is_put_back_gets_all_its_pods_back() {
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db", LABEL: "db"}}, "spec": {
                "serviceAccountName": "db",
                "containers": [{"name": "db", "image": "registry.example/db:1",
                    "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}]}}}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "db", "namespace": "shop"}});
    let world = World::start_with(&[], vec![account, set]).await;
    let id = identity("id-db");
    let tags = std::collections::BTreeMap::new();
    let made = world.connected.arm.create_identity(&id, "westeurope", &tags).await.unwrap();
    let at = "/apis/aadpodidentity.k8s.io/v1/namespaces/shop";
    let spec =
        json!({"type": 0, "resourceID": id.as_str(), "clientID": made.client_id.to_string()});
    world.make(at, "AzureIdentity", "azureidentities", "db", spec).await;
    let spec = json!({"azureIdentity": "db", "selector": "db"});
    world.make(at, "AzureIdentityBinding", "azureidentitybindings", "db", spec).await;
    let path = "/apis/apps/v1/namespaces/shop/statefulsets/db";
    while world.ask("GET", path, JSON, &Value::Null).await["status"]["readyReplicas"] != 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    schedulable(&world, false).await;
    let moved = migrate(&world, Duration::from_secs(2), &mut |_| {}).await;
    // Its successor finds no node yet, which is said.
    let [(name, PutBack::Late(_))] = moved.put_back.as_slice() else { panic!("{moved:?}") };
    assert_eq!(name, "shop/db");
    schedulable(&world, true).await;
    let whole = async {
        loop {
            let pods = pods(&world).await;
            let ready = |pod: &&Value| pod["metadata"]["labels"][LABEL] == "db";
            let set = world.ask("GET", path, JSON, &Value::Null).await;
            if pods.iter().filter(ready).count() == 2 && set["status"]["readyReplicas"] == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), whole).await.is_ok());
}
