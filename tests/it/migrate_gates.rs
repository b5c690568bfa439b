//! The gates of leaving Pod Identity, against the sandbox: what must not go yet, who must be waited
//! for, what an interrupted run leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;
use widentity::{
    execute::RunOptions,
    migrate::{Phase, Verdict, Workload, rollback as facts, transition::OldLabel},
    model::{
        ClusterName, RemoteFailure,
        desired::{DesiredWorkload, ManagedBy, PodSelection, RolloutMode},
        pod_identity::Backup,
    },
    ops::migrate::{
        Allowed, Patience, PutBack, Request, Shelf, apply,
        finish::{self, Finished, Finishing},
        overview,
    },
};

use crate::{
    migrate_sandbox::{LABEL, USE, World, allowed, definition, identity, names, template},
    support::worlds,
};

const MINUTES: Duration = Duration::from_mins(5);
const JSON: &str = "application/json";
const PATCH: &str = "application/merge-patch+json";

fn mic() -> Vec<Value> {
    let labels = json!({"component": "mic"});
    vec![
        definition("AzureAssignedIdentity", "azureassignedidentities"),
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "mic", "namespace": "default", "labels": labels},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [
                    {"name": "mic", "image": "registry.example/mic:1"}]}}}}),
    ]
}

async fn mics(world: &World, replicas: u32) {
    let path = "/apis/apps/v1/namespaces/default/deployments/mic";
    world.ask("PATCH", path, PATCH, &json!({"spec": {"replicas": replicas}})).await;
    loop {
        let mic = world.ask("GET", path, JSON, &Value::Null).await;
        let available = mic["status"]["availableReplicas"].as_u64().unwrap_or(0);
        if available == u64::from(replicas) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn assigned(world: &World) -> usize {
    world.overview().await.clusters[0].estate.assigned.len()
}

/// Waits until MIC has assigned so many.
async fn until_assigned(world: &World, wanted: usize) {
    while assigned(world).await != wanted {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Decides as if everybody were proved, and removes.
async fn finished(world: &World, at_most: Duration, unassign: bool) -> Finished {
    let over = world.overview_after(SignedDuration::ZERO).await;
    let read = &over.clusters[0];
    let proved: BTreeSet<String> = read.survey.workloads.iter().map(Workload::name).collect();
    let allowed = Allowed { unassign, ..allowed(&proved) };
    let what = finish::decide(read, allowed);
    let usual = world.finishing(&proved);
    let patience = Patience { at_most, ..usual.patience.clone() };
    finish::finish(read, &what, &Finishing { patience, allowed, ..usual }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mic_takes_back_what_it_assigned_or_is_waited_for() {
    let world = World::start_with(&names(2), mic()).await;
    mics(&world, 1).await;
    until_assigned(&world, 2).await;
    world.apply(MINUTES).await;
    until_assigned(&world, 0).await;
    // One goes back: MIC assigns again. The other one is not hindered by it.
    let overview = world.overview().await;
    let backup =
        overview.clusters[0].estate.backups.iter().find(|b| b.account.as_str() == "w001").unwrap();
    let request = world.request();
    let how = world.undo(&overview.clusters[0], backup, request).await;
    assert_eq!(how, PutBack::Done);
    until_assigned(&world, 1).await;
    let done = finished(&world, MINUTES, false).await;
    assert_eq!(done.failure, None);
    assert_eq!(done.removed, ["binding shop/w000", "identity shop/w000"]);
    assert_eq!(done.kept.len(), 1, "{:?}", done.kept);
    assert_eq!(assigned(&world).await, 1, "what others use stays assigned");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mic_that_is_down_is_waited_for_and_the_rest_goes_later() {
    let world = World::start_with(&names(1), mic()).await;
    mics(&world, 1).await;
    until_assigned(&world, 1).await;
    mics(&world, 0).await;
    world.apply(MINUTES).await;
    assert_eq!(world.phases().await, [Phase::Soaking]);
    assert_eq!(assigned(&world).await, 1, "nobody takes it back");
    let done = finished(&world, Duration::from_millis(300), false).await;
    assert_eq!(done.removed, ["binding shop/w000"], "not the identity");
    let failure = done.failure.unwrap();
    assert!(failure.message.contains("still there"), "{failure}");
    assert!(failure.hint.unwrap().contains("migrate finish again"));
    assert_eq!(world.phases().await, [Phase::BindingRemoved]);
    mics(&world, 1).await;
    until_assigned(&world, 0).await;
    let done = finished(&world, MINUTES, false).await;
    assert_eq!((done.removed, done.failure), (vec!["identity shop/w000".to_owned()], None));
    assert_eq!(world.phases().await, [Phase::Cleaned]);
    // Both objects are in the backup, though they went in two runs.
    let overview = world.overview().await;
    assert_eq!(overview.clusters[0].estate.backups[0].removed.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_a_pod_may_use_on_its_node_is_not_taken_without_a_decision() {
    let mut world = World::start_with(&names(1), mic()).await;
    mics(&world, 1).await;
    until_assigned(&world, 1).await;
    let agent = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "agent", "namespace": "shop"},
        "spec": {"hostNetwork": true,
            "containers": [{"name": "agent", "image": "registry.example/agent:1"}]}});
    world.ask("POST", "/api/v1/namespaces/shop/pods", JSON, &agent).await;
    world.apply(MINUTES).await;
    let overview = world.overview().await;
    let workload = &overview.clusters[0].survey.workloads[0];
    assert_eq!((workload.phase, workload.verdict), (Phase::Discovered, Verdict::NeedsDecision));
    assert_eq!(workload.reasons[0].code, "node-identity");
    assert!(workload.reasons[0].message.contains("pod shop/agent"), "{:?}", workload.reasons);
    assert_eq!(assigned(&world).await, 1, "the agent still has what it lives on");
    world.waived.nodes = true;
    world.apply(MINUTES).await;
    until_assigned(&world, 0).await;
    // It left with the switch: its binding holds nothing.
    let done = finished(&world, MINUTES, false).await;
    assert_eq!(done.removed.len(), 2, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_label_masks_and_a_later_run_takes_it_away() {
    let world = World::start(&names(1)).await;
    let (_, good) = world.apply_and(MINUTES, OldLabel::Keep).await;
    assert!(good);
    let labels = template(&world.deployment("w000").await)["labels"].clone();
    assert_eq!((&labels[USE], &labels[LABEL]), (&json!("true"), &json!("w000")));
    assert_eq!(world.phases().await, [Phase::Masked]);
    let done = finished(&world, MINUTES, false).await;
    assert_eq!(done.removed, Vec::<String>::new(), "a masked workload never ends in removal");
    assert!(done.kept[0].1.contains("masked"), "{:?}", done.kept);
    let generation = world.deployment("w000").await["metadata"]["generation"].clone();
    // Where the label is kept there is nothing more to do.
    world.apply_and(MINUTES, OldLabel::Keep).await;
    assert_eq!(world.deployment("w000").await["metadata"]["generation"], generation);
    world.apply(MINUTES).await;
    assert!(template(&world.deployment("w000").await)["labels"].get(LABEL).is_none());
    assert_eq!(world.phases().await, [Phase::Soaking]);
    // Both runs go back at once.
    let overview = world.overview().await;
    let backup = &overview.clusters[0].estate.backups[0];
    let request = world.request();
    let how = world.undo(&overview.clusters[0], backup, request).await;
    assert_eq!(how, PutBack::Done);
    let back = template(&world.deployment("w000").await)["labels"].clone();
    assert_eq!(back, json!({"app": "w000", LABEL: "w000"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_stays_while_any_pod_lives_by_it() {
    let world = World::start(&names(1)).await;
    world.apply(MINUTES).await;
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    world.ask("POST", "/api/v1/namespaces", JSON, &space).await;
    let pods = "/api/v1/namespaces/other/pods";
    let bare = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "debug", "namespace": "other", "labels": {LABEL: "w000"}},
        "spec": {"containers": [{"name": "c", "image": "registry.example/c:1"}]}});
    world.ask("POST", pods, JSON, &bare).await;
    let done = finished(&world, MINUTES, false).await;
    assert_eq!(done.removed, Vec::<String>::new());
    assert!(done.kept[0].1.contains("other/default is"), "{:?}", done.kept);
    // It appears after somebody confirmed: nothing goes either.
    let gone = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    world.ask("DELETE", &format!("{pods}/debug"), JSON, &gone).await;
    let over = world.overview_after(SignedDuration::ZERO).await;
    let proved: BTreeSet<String> = ["shop/w000".to_owned()].into();
    let what = finish::decide(&over.clusters[0], allowed(&proved));
    assert_eq!(what.bindings.len(), 1);
    let job = json!({"apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "nightly", "namespace": "other"},
        "spec": {"schedule": "0 3 * * *", "suspend": true, "jobTemplate": {"spec": {"template": {
            "metadata": {"labels": {LABEL: "w000"}},
            "spec": {"restartPolicy": "Never",
                "containers": [{"name": "c", "image": "registry.example/c:1"}]}}}}}});
    world.ask("POST", "/apis/batch/v1/namespaces/other/cronjobs", JSON, &job).await;
    let done = finish::finish(&over.clusters[0], &what, &world.finishing(&proved)).await;
    assert_eq!(done.removed, Vec::<String>::new(), "{:?}", done.kept);
    assert!(done.kept.iter().any(|(object, _)| object == "binding shop/w000"), "{:?}", done.kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_add_on_keeps_goes_through_arm_and_comes_back_through_arm() {
    let world = World::start(&names(2)).await;
    // The add-on keeps the first identity; its objects come from AKS.
    let at = "/apis/aadpodidentity.k8s.io/v1/namespaces/shop";
    for object in ["azureidentities/w000", "azureidentitybindings/w000"] {
        world.ask("DELETE", &format!("{at}/{object}"), JSON, &Value::Null).await;
    }
    let seen = world.connected.arm.identity(&identity("w000")).await.unwrap().unwrap();
    let entry = json!({"name": "w000", "namespace": "shop", "bindingSelector": "w000",
        "provisioningState": "Assigned", "identity": {"resourceId": seen.id.as_str(),
            "clientId": seen.client_id.to_string(), "objectId": seen.principal_id.to_string()}});
    let profile = json!({"enabled": true, "userAssignedIdentities": [entry],
        "userAssignedIdentityExceptions": [{"name": "e", "namespace": "shop", "podLabels": {}}]});
    world.profile(&profile);
    while world.overview().await.clusters[0].estate.bindings.len() != 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.apply(MINUTES).await;
    assert_eq!(world.phases().await, [Phase::Soaking; 2]);
    let done = finished(&world, MINUTES, false).await;
    assert_eq!(done.failure, None);
    let removed = ["binding shop/w001", "add-on identity shop/w000", "identity shop/w001"];
    assert_eq!(done.removed, removed);
    assert_eq!(world.phases().await, [Phase::Cleaned; 2]);
    let cluster = world.desired.clusters.values().next().unwrap();
    let wanted = [("shop".to_owned(), "w000".to_owned())];
    let left = world.connected.arm.pod_identities(&cluster.id, &wanted).await.unwrap();
    assert_eq!(left, Vec::<Value>::new());

    let overview = world.overview().await;
    let read = &overview.clusters[0];
    let backup = read.estate.backups.iter().find(|b| b.account.as_str() == "w000").unwrap();
    let how = world.undo(read, backup, world.request()).await;
    let PutBack::Hindered(why) = how else { panic!("{how:?}") };
    let command = "az aks pod-identity add --resource-group rg --cluster-name prod \
                   --namespace shop --name w000";
    assert!(why.iter().any(|why| why.contains(command)), "{why:?}");
    assert_eq!(world.phases().await, [Phase::Cleaned; 2], "nothing was written");
}

/// Backups in memory.
#[derive(Debug, Default)]
struct Memory(Mutex<BTreeMap<String, Backup>>);

impl Shelf for Memory {
    fn put(&self, cluster: &ClusterName, backup: &Backup) -> Result<(), RemoteFailure> {
        let name = format!("{cluster} {}/{}", backup.namespace, backup.account);
        self.0.lock().unwrap().insert(name, backup.clone());
        Ok(())
    }

    fn of(&self, cluster: &ClusterName) -> Vec<Backup> {
        let all = self.0.lock().unwrap();
        let here = all.iter().filter(|(name, _)| name.starts_with(cluster.as_str()));
        here.map(|(_, backup)| backup.clone()).collect()
    }

    fn keep(&self, _: &ClusterName, name: &str, _: &Value) -> Result<(), RemoteFailure> {
        panic!("{name} is removed by nobody here")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_backup_is_taken_from_beside_the_cluster() {
    let world = World::start(&names(1)).await;
    let before = template(&world.deployment("w000").await).clone();
    let shelf = Memory::default();
    let request = Request { shelf: &shelf, ..world.request() };
    let seen = overview(request, &world.connected).await;
    let now = Timestamp::now();
    let desired = &world.desired;
    let moves = apply::moves(desired, &seen, &world.connected, "w.toml", now, OldLabel::Drop).await;
    let (_never, interrupt) = watch::channel(false);
    let options = RunOptions::new(now, interrupt);
    apply::apply(&moves[0], &seen, request, &world.connected, options, &mut |_| {}).await.unwrap();
    // Somebody cleans up.
    let maps = "/api/v1/namespaces/shop/configmaps?labelSelector=widentity.dev/migrate";
    let found = world.ask("GET", maps, JSON, &Value::Null).await;
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    let name = found["items"][0]["metadata"]["name"].as_str().unwrap();
    let path = format!("/api/v1/namespaces/shop/configmaps/{name}");
    world.ask("DELETE", &path, JSON, &Value::Null).await;

    let without = world.overview().await;
    assert_eq!(without.clusters[0].estate.backups, []);
    let again = overview(request, &world.connected).await;
    let read = &again.clusters[0];
    let backup = &read.estate.backups[0];
    let left = facts::left(&read.estate, backup);
    assert_eq!(left.len(), 1, "the credential stays and is named");
    let how = world.undo(read, backup, request).await;
    assert_eq!(how, PutBack::Done);
    assert_eq!(template(&world.deployment("w000").await)["labels"], before["labels"]);
    assert!(shelf.of(&"prod".into())[0].rolled_back);
    // The cluster's own is there again, and says the same.
    assert_eq!(world.phases().await, [Phase::RolledBack]);
}

async fn schedulable(world: &World, yes: bool) {
    let nodes = world.ask("GET", "/api/v1/nodes", JSON, &Value::Null).await;
    for node in nodes["items"].as_array().unwrap() {
        let path = format!("/api/v1/nodes/{}", node["metadata"]["name"].as_str().unwrap());
        world.ask("PATCH", &path, PATCH, &json!({"spec": {"unschedulable": !yes}})).await;
    }
}

/// Begins a roll that cannot end, and interrupts it.
async fn interrupted(world: &World) {
    schedulable(world, false).await;
    let before = world.overview().await;
    let now = Timestamp::now();
    let moves =
        apply::moves(&world.desired, &before, &world.connected, "w", now, OldLabel::Drop).await;
    let (end, interrupt) = watch::channel(false);
    let options = RunOptions::new(now, interrupt);
    let mut stop = |event: &widentity::execute::Event| {
        if matches!(event, widentity::execute::Event::StepWaiting { what, .. } if what.contains("deployment"))
        {
            end.send_replace(true);
        }
    };
    let request = world.request();
    let done = apply::apply(&moves[0], &before, request, &world.connected, options, &mut stop);
    let done = done.await.unwrap();
    assert_eq!(done.put_back, [], "a controller goes on by itself: nothing has failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_roll_is_named_and_goes_on() {
    let world = World::start(&names(1)).await;
    interrupted(&world).await;
    let overview = world.overview().await;
    let workload = &overview.clusters[0].survey.workloads[0];
    assert_eq!(workload.phase, Phase::Switched);
    assert!(workload.next[0].ends_with("widentity migrate apply"), "{:?}", workload.next);
    assert!(workload.next[1].ends_with("widentity migrate rollback shop/w000"));
    schedulable(&world, true).await;
    let (put_back, good) = world.apply(MINUTES).await;
    assert!(good && put_back.is_empty(), "{put_back:?}");
    assert_eq!(world.phases().await, [Phase::Soaking]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_that_fails_after_an_interrupt_is_put_back_by_the_next_run() {
    let world = World::start(&names(1)).await;
    let path = "/apis/apps/v1/namespaces/shop/deployments/w000";
    let soon = json!({"spec": {"progressDeadlineSeconds": 1}});
    world.ask("PATCH", path, PATCH, &soon).await;
    interrupted(&world).await;
    loop {
        let object = world.deployment("w000").await;
        if object["status"]["conditions"].to_string().contains("ProgressDeadlineExceeded") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (put_back, _) = world.apply(MINUTES).await;
    assert_eq!(put_back, [("shop/w000".to_owned(), PutBack::Done)]);
    let labels = template(&world.deployment("w000").await)["labels"].clone();
    assert_eq!(labels, json!({"app": "w000", LABEL: "w000"}));
    assert_eq!(world.phases().await, [Phase::RolledBack]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_comes_with_the_roll_and_is_a_debt() {
    let mut world = World::start(&names(1)).await;
    world.desired.workloads.push(DesiredWorkload {
        namespace: "shop".into(),
        account: "w000".into(),
        clusters: vec!["prod".into()],
        identity: identity("w000"),
        tenant: worlds::tenant(),
        token_expiration: None,
        pods: PodSelection::All,
        rollout: RolloutMode::Auto,
        managed_by: ManagedBy::Auto,
        adopt: false,
        probe: None,
        proxy: true,
        chained: None,
        origin: worlds::origin(1),
        selected: ["prod".into()].into(),
    });
    let before = world.deployment("w000").await;
    let (_, good) = world.apply(MINUTES).await;
    assert!(good);
    let after = world.deployment("w000").await;
    let key = "azure.workload.identity/inject-proxy-sidecar";
    assert_eq!(template(&after)["annotations"][key], "true");
    let generation = |object: &Value| object["metadata"]["generation"].as_i64().unwrap();
    assert_eq!(generation(&after), generation(&before) + 1, "one roll");
    let overview = world.overview().await;
    let workload = &overview.clusters[0].survey.workloads[0];
    assert_eq!((workload.phase, workload.proxied), (Phase::Soaking, true));
    assert_eq!(workload.proved, 1);
    assert_eq!(world.as_printed().await, 1);
    let backup = &overview.clusters[0].estate.backups[0];
    let request = world.request();
    let how = world.undo(&overview.clusters[0], backup, request).await;
    assert_eq!(how, PutBack::Done);
    let back = world.deployment("w000").await;
    assert!(template(&back)["annotations"].as_object().is_none_or(|a| !a.contains_key(key)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_never_gives_a_label_back_that_nothing_answers() {
    let world = World::start(&names(1)).await;
    world.apply(MINUTES).await;
    let path = "/apis/aadpodidentity.k8s.io/v1/namespaces/shop/azureidentitybindings/w000";
    world.ask("DELETE", path, JSON, &Value::Null).await;
    let overview = world.overview().await;
    let read = &overview.clusters[0];
    let backup = &read.estate.backups[0];
    let how = world.undo(read, backup, world.request()).await;
    let PutBack::Hindered(why) = how else { panic!("{how:?}") };
    assert_eq!(why, ["no binding selects aadpodidbinding=w000"]);
    assert!(template(&world.deployment("w000").await)["labels"].get(LABEL).is_none());
}
