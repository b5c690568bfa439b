//! The Kubernetes client against a real API server and against the emulated one: each test runs
//! against both and must not tell them apart.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time;
use widentity::{
    kubernetes::{self, Client, Connect, KubeError, Objects as _, TemplateChange, Within},
    model::{
        AccountName, Audience, FailureKind, Issuer, Namespace, Subject,
        names::{
            CHAIN_ANNOTATION, CLIENT_ID_ANNOTATION, EXPIRATION_ANNOTATION, PROJECT_ANNOTATION,
            TENANT_ID_ANNOTATION, USE_LABEL,
        },
        pod_identity::{Field, TemplateBackup},
        snapshot::{ObservedPod, ObservedTemplate, OwnedField, Strategy, TemplateKind},
    },
    sandbox::{ClusterRef, Options, Place, Running, Sandbox, Seed, SeedCluster, tokens},
};

use crate::support::{
    kube_apiserver::{Admin, shared},
    worlds,
};

const MANAGER: &str = "widentity-p";

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A server, our client of it as administrator, raw access, and a namespace of its own.
struct World {
    client: Client,
    admin: Admin,
    namespace: Namespace,
    issuer: Issuer,
    /// The emulated server, which ends with the test; none: the real one.
    sandbox: Option<(Running, TempDir)>,
}

async fn client(kubeconfig: &Path, context: Option<&str>) -> Client {
    let (path, context) = (Some(kubeconfig.to_owned()), context.map(str::to_owned));
    Client::connect(Connect::Kubeconfig { path, context }).await.unwrap()
}

impl World {
    async fn of(kubeconfig: &Path, issuer: Issuer, sandbox: Option<(Running, TempDir)>) -> Self {
        let admin = Admin::by(kubeconfig).await;
        let namespace = Namespace(admin.namespace("client").await);
        let client = client(kubeconfig, None).await;
        Self { client, admin, namespace, issuer, sandbox }
    }

    async fn real(test: &str) -> Option<Self> {
        let server = shared(test)?;
        Some(Self::of(&server.kubeconfig, Issuer(server.issuer.clone()), None).await)
    }

    async fn emulated() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let id = worlds::cluster_id("prod").to_string();
        let seed = Seed {
            clusters: vec![SeedCluster {
                cluster: ClusterRef { name: "prod".to_owned(), id: id.clone() },
                location: String::new(),
                oidc_issuer: true,
                workload_identity: true,
                entra: false,
                namespaces: Vec::new(),
                deployments: Vec::new(),
                objects: Vec::new(),
            }],
            ..Seed::default()
        };
        let mut options = Options::new(Place::Memory(directory.path().to_owned()), seed);
        options.settings.subscription = worlds::subscription().to_string().parse().unwrap();
        let running = Sandbox::start(options).await.unwrap();
        let issuer = Issuer(tokens::issuer(running.context(), &id).unwrap());
        let kubeconfig = running.ready().kubeconfigs["prod"].clone();
        Self::of(&kubeconfig, issuer, Some((running, directory))).await
    }
}

/// Runs a test against both servers.
macro_rules! on_both {
    ($($name:ident)*) => { $(
        mod $name {
            use super::World;

            #[tokio::test]
            async fn real() {
                if let Some(world) = World::real(stringify!($name)).await {
                    super::$name(world).await;
                }
            }

            #[tokio::test]
            async fn emulated() {
                super::$name(World::emulated().await).await;
            }
        }
    )* };
}

on_both! {
    an_account_is_made_bare_and_annotated_with_a_complete_set
    a_conflict_lists_field_and_manager_and_can_be_forced
    a_recreated_or_absent_object_is_not_written
    templates_of_every_kind_are_read_and_written_where_they_stand
    a_rollout_is_complete_when_only_new_pods_are_left_and_ready
    a_token_says_who_issued_it_for_whom
    a_dry_run_makes_nothing
    long_lists_come_in_pages_and_other_namespaces_only_with_a_mark
}

async fn an_account_is_made_bare_and_annotated_with_a_complete_set(world: World) {
    let World { client, namespace, .. } = &world;
    let name = AccountName::from("api");
    assert_eq!(client.account(namespace, &name).await.unwrap(), None);
    let made = client.create_account(namespace, &name, MANAGER).await.unwrap();
    assert!(made.meta.annotations.is_empty());
    let again = client.create_account(namespace, &name, MANAGER).await.unwrap_err();
    assert!(again.is_already_exists() && !again.is_conflict());

    let both = map(&[(CLIENT_ID_ANNOTATION, "c"), (PROJECT_ANNOTATION, "p")]);
    let uid = Some(made.uid.as_str());
    let set = client.apply_account(namespace, &name, uid, &both, MANAGER, false).await.unwrap();
    assert_eq!(set.meta.annotations, both);
    let owners = &set.meta.owners[&OwnedField::Annotation(CLIENT_ID_ANNOTATION.to_owned())];
    assert_eq!(owners.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), [MANAGER]);

    // What is not in the set any more goes.
    let one = map(&[(PROJECT_ANNOTATION, "p")]);
    let set = client.apply_account(namespace, &name, uid, &one, MANAGER, false).await.unwrap();
    assert_eq!(set.meta.annotations, one);
    assert_eq!(client.account(namespace, &name).await.unwrap().unwrap(), set);
}

async fn a_conflict_lists_field_and_manager_and_can_be_forced(world: World) {
    let World { client, admin, namespace, .. } = &world;
    let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
        "name": "api", "annotations": {CLIENT_ID_ANNOTATION: "old", "other": "kept"}}});
    admin.create(&format!("{accounts}?fieldManager=azwi"), &object).await;
    let name = AccountName::from("api");
    let set = map(&[(CLIENT_ID_ANNOTATION, "new"), (TENANT_ID_ANNOTATION, "t")]);
    let apply = |force| {
        let (client, namespace, name, set) = (client, namespace, &name, &set);
        async move { client.apply_account(namespace, name, None, set, MANAGER, force).await }
    };
    let refused = apply(false).await.unwrap_err();
    assert!(refused.is_conflict());
    assert_eq!(refused.causes().len(), 1);
    assert_eq!(refused.causes()[0].manager(), Some("azwi"));
    assert!(refused.causes()[0].field.contains("client-id"), "{refused:?}");
    assert_eq!(refused.failure("t").kind, FailureKind::Conflict);
    let taken = apply(true).await.unwrap();
    assert_eq!(taken.meta.annotations[CLIENT_ID_ANNOTATION], "new");
    assert_eq!(taken.meta.annotations["other"], "kept");
}

async fn a_recreated_or_absent_object_is_not_written(world: World) {
    let World { client, admin, namespace, .. } = &world;
    let name = AccountName::from("api");
    let old = client.create_account(namespace, &name, MANAGER).await.unwrap();
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/api");
    admin.delete(&path).await;
    let set = map(&[(CLIENT_ID_ANNOTATION, "c")]);
    let apply = |uid: String| {
        let (client, namespace, name, set) = (client, namespace, &name, &set);
        async move { client.apply_account(namespace, name, Some(&uid), set, MANAGER, true).await }
    };
    let absent = apply(old.uid.clone()).await.unwrap_err();
    assert!(absent.is_conflict() || absent.is_not_found(), "{absent:?}");
    assert_eq!(client.account(namespace, &name).await.unwrap(), None);
    client.create_account(namespace, &name, MANAGER).await.unwrap();
    let recreated = apply(old.uid).await.unwrap_err();
    assert!(recreated.is_conflict(), "{recreated:?}");
    let now = client.account(namespace, &name).await.unwrap().unwrap();
    assert!(now.meta.annotations.is_empty());
}

fn pod_spec() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"serviceAccountName": "api",
        "restartPolicy": "Always", "containers": [{"name": "c", "image": "registry.k8s.io/pause"}]}})
}

async fn make_workloads(client: &Client, admin: &Admin, namespace: &Namespace) {
    client.create_account(namespace, &AccountName::from("api"), MANAGER).await.unwrap();
    let selector = json!({"matchLabels": {"app": "web"}});
    let apps = |kind: &str, extra: Value| {
        let mut spec = json!({"selector": selector, "template": pod_spec()});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"}, "spec": spec})
    };
    let at = |plural: &str| format!("/apis/apps/v1/namespaces/{namespace}/{plural}");
    admin.create(&at("deployments"), &apps("Deployment", json!({"replicas": 2}))).await;
    let update = json!({"updateStrategy": {"type": "OnDelete"}, "replicas": 0,
        "serviceName": "web"});
    admin.create(&at("statefulsets"), &apps("StatefulSet", update)).await;
    admin.create(&at("daemonsets"), &apps("DaemonSet", json!({}))).await;
}

async fn make_cron_job(admin: &Admin, namespace: &Namespace, version: &str) {
    let mut pod = pod_spec();
    pod["spec"]["restartPolicy"] = json!("Never");
    let cron = json!({"apiVersion": version, "kind": "CronJob", "metadata": {"name": "night"},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": pod}}}});
    admin.create(&format!("/apis/{version}/namespaces/{namespace}/cronjobs"), &cron).await;
}

/// The version that the server serves `CronJob` at.
async fn cron_version(admin: &Admin) -> &'static str {
    let list = admin.get("/apis/batch/v1").await;
    let resources = list["resources"].as_array().unwrap();
    if resources.iter().any(|r| r["name"] == "cronjobs") { "batch/v1" } else { "batch/v1beta1" }
}

/// A change that takes nothing away.
fn setting<'a>(
    account: &'a AccountName,
    [own, labels, annotations, none]: [&'a BTreeMap<String, String>; 4],
) -> TemplateChange<'a> {
    TemplateChange {
        account,
        force: false,
        own,
        labels,
        annotations,
        remove_labels: none,
        remove_annotations: none,
    }
}

async fn templates_of_every_kind_are_read_and_written_where_they_stand(world: World) {
    let World { client, admin, namespace, .. } = &world;
    make_workloads(client, admin, namespace).await;
    let version = cron_version(admin).await;
    make_cron_job(admin, namespace, version).await;
    let read = client.templates(Some(namespace)).await.unwrap().remove(namespace).unwrap();
    let keys: Vec<String> = read.iter().map(ObservedTemplate::key).collect();
    assert_eq!(keys, ["deployment/web", "statefulset/web", "daemonset/web", "cronjob/night"]);
    assert_eq!(read[1].strategy, Strategy::OnDelete);
    assert_eq!(read[3].api_version, version);
    for template in read {
        assert_eq!(template.account.as_str(), "api");
        assert!(!template.labels.contains_key(USE_LABEL));
        let (label, chain) = (map(&[(USE_LABEL, "true")]), map(&[(CHAIN_ANNOTATION, "x")]));
        let own = map(&[(PROJECT_ANNOTATION, "p")]);
        let none = BTreeMap::new();
        let api = AccountName::from("api");
        let change = setting(&api, [&own, &label, &chain, &none]);
        let (kind, api_version) = (template.kind, template.api_version.as_str());
        let (name, uid) = (template.name.as_str(), template.uid.as_str());
        let at = kubernetes::Place { kind, api_version, namespace, name, uid };
        let written = client.apply_template(at, change, MANAGER).await.unwrap();
        assert_eq!(written.labels[USE_LABEL], "true", "{}", template.key());
        assert_eq!(written.annotations[CHAIN_ANNOTATION], "x");
        assert_eq!(written.meta.annotations[PROJECT_ANNOTATION], "p");
        for field in [
            OwnedField::TemplateLabel(USE_LABEL.to_owned()),
            OwnedField::TemplateAnnotation(CHAIN_ANNOTATION.to_owned()),
            OwnedField::Annotation(PROJECT_ANNOTATION.to_owned()),
        ] {
            assert_eq!(written.meta.owners[&field].len(), 1, "{} {field:?}", template.key());
        }
        let reread = client
            .template(template.kind, &template.api_version, namespace, &template.name)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reread.annotations, written.annotations);
        assert_eq!(reread.account, template.account);
        // What goes, goes in one write with what is set, whoever owns it; what it wrote is ours.
        let after = map(&[(CHAIN_ANNOTATION, "y")]);
        let switch =
            TemplateChange { remove_labels: &label, labels: &none, annotations: &after, ..change };
        let switched = client.apply_template(at, switch, MANAGER).await.unwrap();
        let (label, chain) =
            (switched.labels.get(USE_LABEL), &switched.annotations[CHAIN_ANNOTATION]);
        assert_eq!((label, chain.as_str()), (None, "y"), "{}", template.key());
        let again = client.apply_template(at, change, MANAGER).await.unwrap();
        assert_eq!(again.annotations[CHAIN_ANNOTATION], "x", "{}", template.key());
        let foreign = TemplateChange { own: &map(&[(PROJECT_ANNOTATION, "q")]), ..switch };
        let refused = client.apply_template(at, foreign, MANAGER).await.unwrap_err();
        assert!(refused.to_string().contains("it belongs to project p"), "{refused}");
        let other = AccountName::from("other");
        let moved = TemplateChange { account: &other, ..switch };
        let refused = client.apply_template(at, moved, MANAGER).await.unwrap_err();
        assert!(refused.to_string().contains("runs as service account api now"), "{refused}");
        what_was_written_later_is_ours(&world, at, &template).await;
    }
}

/// A value that the same project wrote after the switch goes back too, another's does not.
async fn what_was_written_later_is_ours(
    World { client, admin, .. }: &World,
    at: kubernetes::Place<'_>,
    before: &ObservedTemplate,
) {
    let gave = |after: &str| Field { before: None, after: Some(after.to_owned()) };
    let kept = TemplateBackup {
        key: before.key(),
        uid: before.uid.clone(),
        labels: BTreeMap::from([(USE_LABEL.to_owned(), gave("true"))]),
        annotations: BTreeMap::from([(CHAIN_ANNOTATION.to_owned(), gave("of the switch"))]),
        ..TemplateBackup::default()
    };
    let path = format!(
        "/apis/{}/namespaces/{}/{}s/{}",
        at.api_version,
        at.namespace,
        at.kind.as_str(),
        at.name
    );
    let mut change = json!({"template": {"metadata": {"annotations": {CHAIN_ANNOTATION: "z"}}}});
    if at.kind == TemplateKind::CronJob {
        change = json!({"jobTemplate": {"spec": change}});
    }
    admin.merge(&path, &json!({"spec": change})).await;
    let found = client.restore_template(at, &kept, MANAGER).await.unwrap();
    assert_eq!(found, ["annotation widentity.dev/chain is z now"], "{}", kept.key);
    let (own, label) = (map(&[(PROJECT_ANNOTATION, "p")]), map(&[(USE_LABEL, "true")]));
    let (chain, none) = (map(&[(CHAIN_ANNOTATION, "later")]), BTreeMap::new());
    let change = setting(&before.account, [&own, &label, &chain, &none]);
    client.apply_template(at, TemplateChange { force: true, ..change }, MANAGER).await.unwrap();
    assert_eq!(client.restore_template(at, &kept, MANAGER).await.unwrap(), [""; 0], "{}", kept.key);
    let now = client.template(at.kind, at.api_version, at.namespace, at.name).await;
    let now = now.unwrap().unwrap();
    assert_eq!((now.labels, now.annotations), (before.labels.clone(), before.annotations.clone()));
}

async fn a_rollout_is_complete_when_only_new_pods_are_left_and_ready(world: World) {
    let World { client, admin, namespace, .. } = &world;
    make_workloads(client, admin, namespace).await;
    let kind = TemplateKind::Deployment;
    let read = async || client.template(kind, "apps/v1", namespace, "web").await.unwrap().unwrap();
    let finish = async || {
        while !read().await.progress.complete() {
            admin.run_pods(namespace.as_str()).await;
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(Duration::from_mins(1), finish()).await.unwrap();
    let before = client.pods(Some(namespace)).await.unwrap().remove(namespace).unwrap();
    assert_eq!(before.len(), 2);
    let chain = map(&[(CHAIN_ANNOTATION, "x")]);
    let none = BTreeMap::new();
    let api = AccountName::from("api");
    let change = setting(&api, [&none, &none, &chain, &none]);
    let uid = read().await.uid;
    let at = kubernetes::Place { kind, api_version: "apps/v1", namespace, name: "web", uid: &uid };
    let written = client.apply_template(at, change, MANAGER).await.unwrap();
    assert!(!written.progress.complete(), "the controller cannot have seen it yet");
    time::timeout(Duration::from_mins(1), finish()).await.unwrap();
    let revisions = async || {
        let pods = client.pods(Some(namespace)).await.unwrap().remove(namespace).unwrap();
        let live = pods.into_iter().filter(ObservedPod::live);
        live.map(|pod| (pod.revision.unwrap(), pod.controller.unwrap().1)).collect::<Vec<_>>()
    };
    let after = revisions().await;
    assert_eq!(after.len(), 2);
    for (revision, replica_set) in after {
        assert_ne!(Some(&revision), before[0].revision.as_ref());
        assert_eq!(replica_set, format!("web-{revision}"));
    }
}

async fn a_token_says_who_issued_it_for_whom(world: World) {
    let World { client, namespace, issuer, .. } = &world;
    let name = AccountName::from("default");
    let audience = Audience::default();
    let issued = client.token(namespace, &name, &audience, 600).await.unwrap();
    assert_eq!(issued.iss, *issuer);
    assert_eq!(issued.sub, Subject::of(namespace, &name));
    assert_eq!(issued.aud, std::slice::from_ref(&audience));
    assert_eq!(client.discovery_issuer().await.unwrap(), issued.iss);
    let absent = client.token(namespace, &AccountName::from("gone"), &audience, 600).await;
    assert!(absent.unwrap_err().is_not_found());
}

async fn a_dry_run_makes_nothing(world: World) {
    let World { client, namespace, .. } = &world;
    let account = AccountName::from("default");
    let injected = client.dry_run_pod(namespace, &account, false, MANAGER).await.unwrap();
    assert_eq!(injected.present, world.sandbox.is_some(), "only the sandbox has a webhook");
    assert!(client.pods(Some(namespace)).await.unwrap().is_empty());
    let gone = AccountName::from("gone");
    let refused = client.dry_run_pod(namespace, &gone, false, MANAGER).await.unwrap_err();
    assert_eq!(refused.failure("t").kind, FailureKind::Refused, "{refused:?}");
}

/// The emulated server calls its own webhook only, so this one is for the real server.
#[tokio::test]
async fn a_webhook_that_does_not_answer_is_told_from_one_that_is_absent() {
    let test = "a_webhook_that_does_not_answer_is_told_from_one_that_is_absent";
    let Some(world) = World::real(test).await else { return };
    let World { client, admin, namespace, .. } = &world;
    let name = namespace.as_str();
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let label = json!({"metadata": {"labels": {"scope": name}}});
    let merge = "application/merge-patch+json";
    admin.send(hyper::Method::PATCH, &format!("/api/v1/namespaces/{name}"), merge, &label).await;
    // Nothing listens on the discard port of loopback.
    let webhook = json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration", "metadata": {"name": name}, "webhooks": [{
            "name": "mutation.azure-workload-identity.io", "failurePolicy": "Fail",
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://127.0.0.1:9/mutate"},
            "namespaceSelector": {"matchLabels": {"scope": name}},
            "objectSelector": {"matchLabels": {USE_LABEL: "true"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["pods"]}]}]});
    admin.create(path, &webhook).await;
    let seen = client.webhook().await.unwrap().unwrap();
    assert!(seen.configurations.contains(&name.to_owned()));
    // The server needs a moment to take a new webhook into use.
    let account = AccountName::from("default");
    let refused = async {
        loop {
            if let Err(error) = client.dry_run_pod(namespace, &account, false, MANAGER).await {
                return error;
            }
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    let refused = time::timeout(Duration::from_secs(30), refused).await.unwrap();
    assert!(refused.is_webhook_down(), "{refused:?}");
    let failure = refused.failure("create a pod as a dry run");
    assert_eq!(failure.kind, FailureKind::Unavailable);
    assert!(failure.hint.unwrap().contains("azure-workload-identity"));
    admin.delete(&format!("{path}/{name}")).await;
}

async fn long_lists_come_in_pages_and_other_namespaces_only_with_a_mark(world: World) {
    let World { client, admin, namespace, .. } = &world;
    let other = Namespace(admin.namespace("other").await);
    let accounts =
        |namespace: &Namespace| format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    let path = accounts(namespace);
    let make = |i: usize| {
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": format!("a{i}")}});
        let (admin, path) = (admin, &path);
        async move { admin.create(path, &object).await }
    };
    futures::future::join_all((0..520).map(make)).await;
    let marked = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata":
        {"name": "left", "annotations": {PROJECT_ANNOTATION: "p"}}});
    admin.create(&accounts(&other), &marked).await;

    let one = client.accounts(Some(namespace)).await.unwrap();
    assert_eq!(one[namespace].len(), 521);
    let these = [namespace.clone()].into();
    let among = client.accounts(Within::Among(&these)).await.unwrap();
    assert_eq!(among[namespace].len(), 521);
    assert_eq!(among[&other].keys().map(AccountName::as_str).collect::<Vec<_>>(), ["left"]);
}

#[tokio::test]
async fn who_may_nothing_is_told_so_and_asked_for_nothing_twice() {
    let test = "who_may_nothing_is_told_so_and_asked_for_nothing_twice";
    let Some(server) = shared(test) else { return };
    let client = client(&server.kubeconfig, Some("nobody")).await;
    assert!(client.version().await.unwrap().starts_with('v'));
    let refused: KubeError = client.accounts(None).await.unwrap_err();
    let failure = refused.failure("list service accounts");
    assert_eq!(failure.kind, FailureKind::Denied);
    assert_eq!(failure.status, Some(403));
    assert!(failure.message.contains("serviceaccounts is forbidden"), "{failure:?}");
    assert!(client.templates(None).await.unwrap_err().is_denied());
    assert!(client.webhook().await.unwrap_err().is_denied());
}

#[tokio::test]
async fn a_dry_run_shows_what_the_webhook_would_inject() {
    let World { client, namespace, .. } = &World::emulated().await;
    let name = AccountName::from("api");
    client.create_account(namespace, &name, MANAGER).await.unwrap();
    let (id, tenant) = ("00000000-0000-0000-0000-00000000000c", worlds::tenant().to_string());
    let set = map(&[
        (CLIENT_ID_ANNOTATION, id),
        (TENANT_ID_ANNOTATION, &tenant),
        (EXPIRATION_ANNOTATION, "7200"),
    ]);
    client.apply_account(namespace, &name, None, &set, MANAGER, false).await.unwrap();
    let injected = client.dry_run_pod(namespace, &name, false, MANAGER).await.unwrap();
    assert!(injected.present);
    assert_eq!(injected.client_ids, [id.to_owned()].into());
    assert_eq!(injected.tenant_ids, [tenant].into());
    assert_eq!(injected.audience, Some(Audience::default()));
    assert_eq!(injected.expiration, Some(7200));
    let webhook = client.webhook().await.unwrap().unwrap();
    assert_eq!(webhook.service_namespace.as_deref(), Some("kube-system"));
}
