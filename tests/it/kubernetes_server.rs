//! The Kubernetes client against a real API server.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::time;
use widentity::{
    kubernetes::{Client, KubeError, Within},
    model::{
        AccountName, Audience, FailureKind, Issuer, Namespace, Subject,
        names::{
            CHAIN_ANNOTATION, CLIENT_ID_ANNOTATION, PROJECT_ANNOTATION, TENANT_ID_ANNOTATION,
            USE_LABEL,
        },
        snapshot::{ObservedPod, ObservedTemplate, OwnedField, Strategy, TemplateKind},
    },
};

use super::support::kube_apiserver::{Admin, ApiServer, shared};

const MANAGER: &str = "widentity-p";

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The shared server, our client as administrator, raw access, and a namespace of its own.
async fn world(test: &str) -> Option<(&'static ApiServer, Client, Admin, Namespace)> {
    let server = shared(test)?;
    let admin = Admin::of(server).await;
    let namespace = Namespace(admin.namespace("client").await);
    Some((server, server.client("admin").await, admin, namespace))
}

#[tokio::test]
async fn an_account_is_made_bare_and_annotated_with_a_complete_set() {
    let Some((_, client, _, namespace)) =
        world("an_account_is_made_bare_and_annotated_with_a_complete_set").await
    else {
        return;
    };
    let name = AccountName::from("api");
    assert_eq!(client.account(&namespace, &name).await.unwrap(), None);
    let made = client.create_account(&namespace, &name, MANAGER).await.unwrap();
    assert!(made.meta.annotations.is_empty());
    let again = client.create_account(&namespace, &name, MANAGER).await.unwrap_err();
    assert!(again.is_already_exists() && !again.is_conflict());

    let both = map(&[(CLIENT_ID_ANNOTATION, "c"), (PROJECT_ANNOTATION, "p")]);
    let uid = Some(made.uid.as_str());
    let set = client.apply_account(&namespace, &name, uid, &both, MANAGER, false).await.unwrap();
    assert_eq!(set.meta.annotations, both);
    let owners = &set.meta.owners[&OwnedField::Annotation(CLIENT_ID_ANNOTATION.to_owned())];
    assert_eq!(owners.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), [MANAGER]);

    // What is not in the set any more goes.
    let one = map(&[(PROJECT_ANNOTATION, "p")]);
    let set = client.apply_account(&namespace, &name, uid, &one, MANAGER, false).await.unwrap();
    assert_eq!(set.meta.annotations, one);
    assert_eq!(client.account(&namespace, &name).await.unwrap().unwrap(), set);
}

#[tokio::test]
async fn a_conflict_lists_field_and_manager_and_can_be_forced() {
    let Some((_, client, admin, namespace)) =
        world("a_conflict_lists_field_and_manager_and_can_be_forced").await
    else {
        return;
    };
    let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
        "name": "api", "annotations": {CLIENT_ID_ANNOTATION: "old", "other": "kept"}}});
    admin.create(&format!("{accounts}?fieldManager=azwi"), &object).await;
    let name = AccountName::from("api");
    let set = map(&[(CLIENT_ID_ANNOTATION, "new"), (TENANT_ID_ANNOTATION, "t")]);
    let apply = |force| {
        let (client, namespace, name, set) = (&client, &namespace, &name, &set);
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

#[tokio::test]
async fn a_recreated_or_absent_object_is_not_written() {
    let Some((_, client, admin, namespace)) =
        world("a_recreated_or_absent_object_is_not_written").await
    else {
        return;
    };
    let name = AccountName::from("api");
    let old = client.create_account(&namespace, &name, MANAGER).await.unwrap();
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/api");
    admin.delete(&path).await;
    let set = map(&[(CLIENT_ID_ANNOTATION, "c")]);
    let apply = |uid: String| {
        let (client, namespace, name, set) = (&client, &namespace, &name, &set);
        async move { client.apply_account(namespace, name, Some(&uid), set, MANAGER, true).await }
    };
    let absent = apply(old.uid.clone()).await.unwrap_err();
    assert!(absent.is_conflict() || absent.is_not_found(), "{absent:?}");
    assert_eq!(client.account(&namespace, &name).await.unwrap(), None);
    client.create_account(&namespace, &name, MANAGER).await.unwrap();
    let recreated = apply(old.uid).await.unwrap_err();
    assert!(recreated.is_conflict(), "{recreated:?}");
    let now = client.account(&namespace, &name).await.unwrap().unwrap();
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

#[tokio::test]
async fn templates_of_every_kind_are_read_and_written_where_they_stand() {
    let Some((_, client, admin, namespace)) =
        world("templates_of_every_kind_are_read_and_written_where_they_stand").await
    else {
        return;
    };
    make_workloads(&client, &admin, &namespace).await;
    let version = cron_version(&admin).await;
    make_cron_job(&admin, &namespace, version).await;
    let read = client.templates(Some(&namespace)).await.unwrap().remove(&namespace).unwrap();
    let keys: Vec<String> = read.iter().map(ObservedTemplate::key).collect();
    assert_eq!(keys, ["deployment/web", "statefulset/web", "daemonset/web", "cronjob/night"]);
    assert_eq!(read[1].strategy, Strategy::OnDelete);
    assert_eq!(read[3].api_version, version);
    for template in read {
        assert_eq!(template.account.as_str(), "api");
        assert!(!template.labels.contains_key(USE_LABEL));
        let (label, chain) = (map(&[(USE_LABEL, "true")]), map(&[(CHAIN_ANNOTATION, "x")]));
        let own = map(&[(PROJECT_ANNOTATION, "p")]);
        let written = client
            .apply_template(
                template.kind,
                &template.api_version,
                &namespace,
                &template.name,
                Some(&template.uid),
                &own,
                &label,
                &chain,
                MANAGER,
                false,
            )
            .await
            .unwrap();
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
            .template(template.kind, &template.api_version, &namespace, &template.name)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reread.annotations, written.annotations);
        assert_eq!(reread.account, template.account);
    }
}

#[tokio::test]
async fn a_rollout_is_complete_when_only_new_pods_are_left_and_ready() {
    let Some((_, client, admin, namespace)) =
        world("a_rollout_is_complete_when_only_new_pods_are_left_and_ready").await
    else {
        return;
    };
    make_workloads(&client, &admin, &namespace).await;
    let kind = TemplateKind::Deployment;
    let read = async || client.template(kind, "apps/v1", &namespace, "web").await.unwrap().unwrap();
    let finish = async || {
        while !read().await.progress.complete() {
            admin.run_pods(namespace.as_str()).await;
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(Duration::from_mins(1), finish()).await.unwrap();
    let before = client.pods(Some(&namespace)).await.unwrap().remove(&namespace).unwrap();
    assert_eq!(before.len(), 2);
    let chain = map(&[(CHAIN_ANNOTATION, "x")]);
    let none = BTreeMap::new();
    let written = client
        .apply_template(
            kind, "apps/v1", &namespace, "web", None, &none, &none, &chain, MANAGER, false,
        )
        .await
        .unwrap();
    assert!(!written.progress.complete(), "the controller cannot have seen it yet");
    time::timeout(Duration::from_mins(1), finish()).await.unwrap();
    let revisions = async || {
        let pods = client.pods(Some(&namespace)).await.unwrap().remove(&namespace).unwrap();
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

#[tokio::test]
async fn a_token_says_who_issued_it_for_whom() {
    let Some((server, client, _, namespace)) = world("a_token_says_who_issued_it_for_whom").await
    else {
        return;
    };
    let name = AccountName::from("default");
    let audience = Audience::default();
    let issued = client.token(&namespace, &name, &audience, 600).await.unwrap();
    assert_eq!(issued.iss, Issuer::from(server.issuer.as_str()));
    assert_eq!(issued.sub, Subject::of(&namespace, &name));
    assert_eq!(issued.aud, std::slice::from_ref(&audience));
    assert_eq!(client.discovery_issuer().await.unwrap(), issued.iss);
    let absent = client.token(&namespace, &AccountName::from("gone"), &audience, 600).await;
    assert!(absent.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_dry_run_shows_that_no_webhook_injects_and_makes_nothing() {
    let Some((_, client, _, namespace)) =
        world("a_dry_run_shows_that_no_webhook_injects_and_makes_nothing").await
    else {
        return;
    };
    let account = AccountName::from("default");
    let injected = client.dry_run_pod(&namespace, &account, MANAGER).await.unwrap();
    assert!(!injected.present);
    assert!(client.pods(Some(&namespace)).await.unwrap().is_empty());
    let gone = AccountName::from("gone");
    let refused = client.dry_run_pod(&namespace, &gone, MANAGER).await.unwrap_err();
    assert_eq!(refused.failure("t").kind, FailureKind::Denied, "{refused:?}");
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_is_told_from_one_that_is_absent() {
    let Some((_, client, admin, namespace)) =
        world("a_webhook_that_does_not_answer_is_told_from_one_that_is_absent").await
    else {
        return;
    };
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
            if let Err(error) = client.dry_run_pod(&namespace, &account, MANAGER).await {
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

#[tokio::test]
async fn long_lists_come_in_pages_and_other_namespaces_only_with_a_mark() {
    let Some((_, client, admin, namespace)) =
        world("long_lists_come_in_pages_and_other_namespaces_only_with_a_mark").await
    else {
        return;
    };
    let other = Namespace(admin.namespace("other").await);
    let accounts =
        |namespace: &Namespace| format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    let path = accounts(&namespace);
    let make = |i: usize| {
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": format!("a{i}")}});
        let (admin, path) = (&admin, &path);
        async move { admin.create(path, &object).await }
    };
    futures::future::join_all((0..520).map(make)).await;
    let marked = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata":
        {"name": "left", "annotations": {PROJECT_ANNOTATION: "p"}}});
    admin.create(&accounts(&other), &marked).await;

    let one = client.accounts(Some(&namespace)).await.unwrap();
    assert_eq!(one[&namespace].len(), 521);
    let these = [namespace.clone()].into();
    let among = client.accounts(Within::Among(&these)).await.unwrap();
    assert_eq!(among[&namespace].len(), 521);
    assert_eq!(among[&other].keys().map(AccountName::as_str).collect::<Vec<_>>(), ["left"]);
}

#[tokio::test]
async fn who_may_nothing_is_told_so_and_asked_for_nothing_twice() {
    let Some((server, ..)) = world("who_may_nothing_is_told_so_and_asked_for_nothing_twice").await
    else {
        return;
    };
    let client = server.client("nobody").await;
    assert!(client.version().await.unwrap().starts_with('v'));
    let refused: KubeError = client.accounts(None).await.unwrap_err();
    let failure = refused.failure("list service accounts");
    assert_eq!(failure.kind, FailureKind::Denied);
    assert_eq!(failure.status, Some(403));
    assert!(failure.message.contains("serviceaccounts is forbidden"), "{failure:?}");
    assert!(client.templates(None).await.unwrap_err().is_denied());
    assert!(client.webhook().await.unwrap_err().is_denied());
}
