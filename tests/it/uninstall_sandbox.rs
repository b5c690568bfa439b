//! Taking Pod Identity's installation away over HTTPS, in the sandbox: to the end, through ARM,
//! and stopped at every single request.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use widentity::{
    migrate::uninstall::{Class, Step, Wishes},
    ops::migrate::{
        Shelf,
        uninstall::{self, End, Event, Pace},
    },
};

use crate::support::{
    cli::{Desk, NO_GRANTS},
    kube_apiserver::Admin,
    pod_identity::{self, GROUP, assigned, custom, left, make, manifests},
    uninstall::{BOTH, World},
};

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
    // All of it but the definitions can be made again.
    let kept = std::mem::take(&mut *world.backups.1.lock().unwrap());
    assert_eq!(kept.len(), objects.len() - 4, "{:?}", kept.keys());
    let nmi = &kept["DaemonSet_default_nmi"];
    assert!(nmi["spec"].is_object() && nmi["status"].is_null(), "{nmi}");
    assert!(nmi["metadata"]["uid"].is_null() && nmi["metadata"]["labels"].is_object(), "{nmi}");
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
    let sites = uninstall::sites(&world.desired, &overview, &world.connected, |_| true).await;
    let what = sites[0].decide(BOTH);
    world.admin.create("/api/v1/namespaces/shop/pods", &pod).await;
    let (_never, interrupt) = watch::channel(false);
    let mut quiet = |_: Event<'_>| {};
    let (pace, connected) = (Pace::default(), &world.connected);
    let with = (connected, &() as &dyn Shelf);
    let ran = uninstall::run(&sites[0], &what, with, pace, &interrupt, &mut quiet).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn where_the_discovery_document_cannot_be_read_a_token_tells_the_cluster() {
    let world = World::installed().await;
    let refused = json!({"answer": {"status": 403, "code": "Forbidden", "message": "no"}});
    let rule = |method: &str, path: &str| {
        json!({"service": "cluster/prod", "method": method, "path": path, "times": 0,
            "action": refused})
    };
    world.fault(rule("*", "*openid-configuration")).await;
    // `--plan` never asks for a token.
    let (what, ran) = world.uninstall(BOTH).await;
    let codes: Vec<&str> = what.obstacles.iter().map(|o| o.code.as_str()).collect();
    assert_eq!((codes, ran), (vec!["cluster-not-confirmed"], None));

    let overview = world.overview().await;
    let mut sites = uninstall::sites(&world.desired, &overview, &world.connected, |_| true).await;
    uninstall::confirm(&mut sites, &world.desired, &world.connected).await;
    assert_eq!(sites[0].footprint.token_issuer, sites[0].read.estate.issuer);
    assert_eq!(sites[0].decide(BOTH).obstacles, Vec::new());

    sites[0].footprint.token_issuer = None;
    world.fault(rule("POST", "*/token")).await;
    uninstall::confirm(&mut sites, &world.desired, &world.connected).await;
    let what = sites[0].decide(BOTH);
    let obstacle = &what.obstacles[0];
    assert_eq!((obstacle.class, obstacle.code.as_str()), (Class::Denied, "cluster-not-confirmed"));
    assert!(obstacle.message.contains("no token tells it"), "{}", obstacle.message);
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
    desk.run("--sandbox migrate uninstall --plan --remove-roles --remove-node-identities")
        .exits(0)
        .shows(free);
    desk.run("--sandbox migrate uninstall --plan --cluster x").exits(64).says("no cluster `x`");
}
