//! The Kubernetes client against servers that answer from a script.

use std::{fs, path::Path, sync::Arc};

use hyper::Method;
use serde_json::{Value, json};
use widentity::{
    kubernetes::{Client, Connect, Connection, KubeError, Objects},
    model::{
        AccountName, FailureKind, Namespace, RemoteFailure, Token,
        pod_identity::Binding,
        snapshot::{Strategy, TemplateKind},
    },
};

use crate::support::scripted::{Reply, SECRET, Seen, Server, reply};

const MANAGER: &str = "widentity-p";

async fn client(server: &Server) -> Client {
    let token = Arc::new(|| -> futures::future::BoxFuture<'static, _> {
        Box::pin(async { Ok(Token::new(SECRET)) })
    });
    let server = server.url.clone();
    Client::connect(Connect::Direct { server, ca_pem: String::new(), token }).await.unwrap()
}

fn status(code: u16, reason: &str) -> Reply {
    let message = format!("the server says {reason}");
    reply(code, &json!({"kind": "Status", "reason": reason, "message": message}))
}

fn account(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "n", "uid": name}})
}

fn page(names: &[&str], next: &str) -> Reply {
    let items: Vec<Value> = names.iter().map(|name| account(name)).collect();
    reply(200, &json!({"metadata": {"continue": next}, "items": items}))
}

#[tokio::test]
async fn a_list_is_begun_anew_when_its_continue_token_expired() {
    let server = Server::start([
        page(&["gone-since", "a"], "t1"),
        status(410, "Expired"),
        page(&["a"], "t2"),
        page(&["b"], ""),
    ])
    .await;
    let found = client(&server).await.accounts(None).await.unwrap();
    let names: Vec<&str> = found[&Namespace::from("n")].keys().map(AccountName::as_str).collect();
    assert_eq!(names, ["a", "b"]);
    let seen = server.seen();
    assert_eq!(seen[0].target, "/api/v1/serviceaccounts?limit=500");
    assert_eq!(seen[1].target, "/api/v1/serviceaccounts?limit=500&continue=t1");
    assert_eq!(seen[2].target, "/api/v1/serviceaccounts?limit=500");
    assert!(seen[3].target.ends_with("continue=t2"));
}

#[tokio::test]
async fn a_list_that_repeats_its_page_ends() {
    let server = Server::start((0..5).map(|_| page(&["a"], "t1"))).await;
    let failure = client(&server).await.accounts(None).await.unwrap_err();
    assert!(matches!(failure, KubeError::Body { .. }), "{failure:?}");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn reads_and_patches_are_repeated_as_the_server_asks() {
    let busy = || status(429, "TooManyRequests").with("retry-after", "0");
    let down = || status(503, "ServiceUnavailable").with("retry-after", "0");
    let info = reply(200, &json!({"gitVersion": "v1.33.2"}));
    let server = Server::start([busy(), down(), info, down(), reply(200, &account("a"))]).await;
    let client = client(&server).await;
    assert_eq!(client.version().await.unwrap(), "v1.33.2");
    let (namespace, name) = (Namespace::from("n"), AccountName::from("a"));
    let set = std::collections::BTreeMap::new();
    client.apply_account(&namespace, &name, Some("a"), &set, MANAGER, false).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 5);
    let patch = &seen[4];
    assert_eq!(patch.method, Method::PATCH);
    assert_eq!(
        patch.target,
        "/api/v1/namespaces/n/serviceaccounts/a?fieldManager=widentity-p&fieldValidation=Strict&force=false"
    );
    assert_eq!(patch.headers["content-type"], "application/apply-patch+yaml");
    assert_eq!(patch.json()["metadata"]["uid"], "a");
    assert_eq!(patch.headers["authorization"], format!("Bearer {SECRET}"));
    let agent = patch.headers["user-agent"].to_str().unwrap();
    assert!(agent.starts_with("widentity/"), "{agent}");
}

#[tokio::test]
async fn retries_end() {
    let busy = || status(429, "TooManyRequests").with("retry-after", "0");
    let server = Server::start((0..20).map(|_| busy())).await;
    let failure = client(&server).await.version().await.unwrap_err().failure("t");
    assert_eq!(failure.kind, FailureKind::Unavailable);
    assert_eq!(server.seen().len(), 5);

    let patient = status(429, "TooManyRequests").with("retry-after", "3600");
    let server = Server::start([patient]).await;
    assert!(client(&server).await.version().await.is_err());
    assert_eq!(server.seen().len(), 1, "an hour is not waited for");
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again_and_a_webhook_that_is_down_is_not() {
    let info = || reply(200, &json!({"gitVersion": "v1.33.2"}));
    for code in [500, 502, 503, 504] {
        let server = Server::start([status(code, "InternalError"), info()]).await;
        assert!(client(&server).await.version().await.is_ok(), "{code}");
    }
    let message = "Internal error occurred: failed calling webhook \"w\"";
    let down = reply(500, &json!({"kind": "Status", "message": message}));
    let server = Server::start([down, info()]).await;
    assert!(client(&server).await.version().await.unwrap_err().is_webhook_down());
    assert_eq!(server.seen().len(), 1, "whoever asks knows how long it is worth waiting for");
}

#[tokio::test]
async fn a_dry_run_is_of_the_workloads_own_pod_made_small_where_a_quota_is_full() {
    let deployment = json!({"metadata": {"name": "api", "namespace": "n", "uid": "u"}, "spec": {
        "template": {"metadata": {"labels": {"app": "api", "cost-center": "4711"}}, "spec": {
            "serviceAccountName": "api", "containers": [{"name": "c",
                "image": "registry.corp.test/api:1", "resources": {"limits": {"cpu": "4"}}}]}}}});
    let full = "pods \"widentity-check-x\" is forbidden: exceeded quota: q, requested: cpu=4";
    let full = reply(403, &json!({"kind": "Status", "reason": "Forbidden", "message": full}));
    let admitted = reply(201, &json!({"metadata": {}, "spec": {"containers": []}}));
    let server = Server::start([reply(200, &deployment), full, admitted]).await;
    let namespace = Namespace::from("n");
    let kind = TemplateKind::Deployment;
    let client = client(&server).await;
    let found = client.dry_run_like(kind, "apps/v1", &namespace, "api", false, MANAGER).await;
    assert!(found.unwrap().is_some());
    let seen = server.seen();
    assert_eq!(seen[0].target, "/apis/apps/v1/namespaces/n/deployments/api");
    assert!(seen[1].target.contains("dryRun=All"), "{}", seen[1].target);
    let (own, small) = (seen[1].json(), seen[2].json());
    assert_eq!(own["metadata"]["labels"]["cost-center"], "4711");
    assert_eq!(own["metadata"]["labels"]["azure.workload.identity/use"], "true");
    assert_eq!(own["spec"]["containers"][0]["image"], "registry.corp.test/api:1");
    assert_eq!(own["spec"]["containers"][0]["resources"]["limits"]["cpu"], "4");
    assert_eq!(small["spec"]["containers"][0]["resources"]["limits"]["cpu"], "10m");
}

#[tokio::test]
async fn an_object_is_not_made_twice() {
    let server = Server::start([status(503, "ServiceUnavailable").with("retry-after", "0")]).await;
    let client = client(&server).await;
    let (namespace, name) = (Namespace::from("n"), AccountName::from("a"));
    let made = client.create_account(&namespace, &name, MANAGER).await;
    assert_eq!(made.unwrap_err().status(), Some(503));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_binding_is_removed_only_as_it_was_seen() {
    let server = Server::start([status(409, "Conflict")]).await;
    let binding = Binding {
        namespace: "n".into(),
        name: "b".to_owned(),
        uid: "u".to_owned(),
        resource_version: "7".to_owned(),
        ..Binding::default()
    };
    let objects: &dyn Objects = &client(&server).await;
    assert!(objects.remove_binding(&binding).await.unwrap_err().is_conflict());
    let seen = &server.seen()[0];
    let path = "/apis/aadpodidentity.k8s.io/v1/namespaces/n/azureidentitybindings/b";
    assert_eq!((&seen.method, seen.target.as_str()), (&Method::DELETE, path));
    assert_eq!(seen.json()["preconditions"], json!({"uid": "u", "resourceVersion": "7"}));
    // A finalizer holds it: it is there until somebody takes that away.
    let held = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["example.com/f"]}});
    let gone = json!({"kind": "Status", "status": "Success"});
    let server = Server::start([reply(200, &held), reply(200, &gone)]).await;
    let objects: &dyn Objects = &client(&server).await;
    assert_eq!(objects.remove_binding(&binding).await.unwrap(), ["example.com/f"]);
    assert_eq!(objects.remove_binding(&binding).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn another_uid_in_the_answer_is_a_conflict() {
    let server = Server::start([reply(200, &account("new"))]).await;
    let client = client(&server).await;
    let (namespace, name) = (Namespace::from("n"), AccountName::from("a"));
    let set = std::collections::BTreeMap::new();
    let written = client.apply_account(&namespace, &name, Some("old"), &set, MANAGER, false).await;
    assert!(matches!(written, Err(KubeError::Recreated { .. })));
}

#[tokio::test]
async fn no_answer_is_unreachable_and_our_own_token_keeps_its_failure() {
    let server = Server::start([]).await;
    let mut gone = server.url.clone();
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    gone.set_port(Some(port)).unwrap();
    let own = Arc::new(|| -> futures::future::BoxFuture<'static, _> {
        Box::pin(async { Ok(Token::new(SECRET)) })
    });
    let connect = Connect::Direct { server: gone, ca_pem: String::new(), token: own };
    let failure = Client::connect(connect).await.unwrap().version().await.unwrap_err().failure("t");
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.message.contains("127.0.0.1 does not answer"), "{failure:?}");
    assert!(failure.message.to_lowercase().contains("refused"), "{failure:?}");

    let none = Arc::new(|| -> futures::future::BoxFuture<'static, _> {
        let why = RemoteFailure::new(FailureKind::Unauthenticated, "get a token", "log in first");
        Box::pin(async { Err(why.with_hint("az login")) })
    });
    let connect =
        Connect::Direct { server: server.url.clone(), ca_pem: String::new(), token: none };
    let error = Client::connect(connect).await.unwrap().version().await.unwrap_err();
    let failure = error.failure("read the version");
    assert_eq!(failure.tried, "read the version");
    assert_eq!(failure.kind, FailureKind::Unauthenticated);
    assert_eq!(failure.hint.as_deref(), Some("az login"));
    assert!(server.seen().is_empty());
}

/// A kubeconfig for a server with an exec plugin that is a shell script.
fn kubeconfig(directory: &Path, server: &str, script: &str) -> Connect {
    let path = directory.join("kubeconfig");
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "sh",
        "args": ["-c", script], "interactiveMode": "Never"});
    let file = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"exec": exec}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]});
    fs::write(&path, file.to_string()).unwrap();
    Connect::Kubeconfig { path: Some(path), context: None }
}

#[tokio::test]
async fn an_exec_plugin_gives_the_token_or_says_why_not() {
    let directory = tempfile::tempdir().unwrap();
    let info = reply(200, &json!({"gitVersion": "v1.20.2"}));
    let server = Server::start([info]).await;
    let credential = json!({"apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential", "status": {"token": SECRET}});
    let script = format!("printf '%s' '{credential}'");
    let connect = kubeconfig(directory.path(), server.url.as_str(), &script);
    Client::connect(connect).await.unwrap().version().await.unwrap();
    assert_eq!(server.seen()[0].headers["authorization"], format!("Bearer {SECRET}"));

    let script = format!("echo {SECRET}; echo you must log in >&2; exit 3");
    let connect = kubeconfig(directory.path(), server.url.as_str(), &script);
    let connection = Connection::to(connect, "connect to cluster prod");
    let failure = connection.client().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unauthenticated);
    assert_eq!(failure.tried, "connect to cluster prod");
    assert!(failure.message.contains("exec plugin `sh`"), "{failure:?}");
    assert!(failure.message.contains("you must log in"), "{failure:?}");
    assert!(!format!("{failure:?}").contains(SECRET));
}

#[tokio::test]
async fn a_token_is_not_sent_in_the_clear() {
    let directory = tempfile::tempdir().unwrap();
    let connect = kubeconfig(directory.path(), "http://aks.example:80", "exit 1");
    let refused = Client::connect(connect).await.unwrap_err();
    assert!(matches!(refused, KubeError::PlainHttp { .. }), "{refused:?}");
}

/// What `/apis` answers.
fn groups(versions: &[&str]) -> Reply {
    let group = |v: &&str| json!({"name": v, "versions": [{"groupVersion": v}]});
    reply(200, &json!({"groups": versions.iter().map(group).collect::<Vec<_>>()}))
}

/// A 404 of something before the server is no word of the server's.
#[tokio::test]
async fn a_404_that_is_not_the_servers_hides_nothing() {
    let server = Server::routed(|seen| match seen.target.split('?').next()? {
        "/apis" => Some(groups(&["batch/v1"])),
        path if path.starts_with("/apis/apps") => Some(reply(200, &json!({"items": []}))),
        _ => Some(reply(404, &json!("no such page"))),
    })
    .await;
    let client = client(&server).await;
    assert!(client.templates(None).await.is_err(), "CronJobs may be there");
    assert!(client.account(&"n".into(), &"a".into()).await.is_err(), "so may the account");
}

/// A cluster with Argo Rollouts: a Rollout that refers to a Deployment.
fn argo(seen: &Seen) -> Option<Reply> {
    let list = |items: Value| Some(reply(200, &json!({"items": items})));
    let served = |names: &[&str]| {
        let names: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        Some(reply(200, &json!({"resources": names})))
    };
    let path = seen.target.split('?').next()?;
    match path {
        "/apis" => Some(groups(&["batch/v1", "batch/v1beta1", "argoproj.io/v1alpha1"])),
        "/apis/batch/v1" => served(&["jobs"]),
        "/apis/batch/v1beta1" => served(&["cronjobs", "cronjobs/status"]),
        "/apis/argoproj.io/v1alpha1" => served(&["rollouts"]),
        "/apis/apps/v1/deployments" => list(json!([{"metadata":
            {"name": "web", "namespace": "n", "generation": 3}, "spec": {"replicas": 0}}])),
        "/apis/argoproj.io/v1alpha1/rollouts"
        | "/apis/argoproj.io/v1alpha1/namespaces/n/rollouts" => list(json!([{"metadata":
            {"name": "canary", "namespace": "n", "generation": 1},
            "spec": {"replicas": 1, "workloadRef": {"kind": "Deployment", "name": "web"}},
            "status": {"observedGeneration": "1", "workloadObservedGeneration": "3",
                "phase": "Paused", "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}}])),
        "/api/v1/pods" | "/api/v1/namespaces/n/pods" => {
            list(json!([{"metadata": {"name": "canary-7d-x", "namespace": "n",
            "labels": {"rollouts-pod-template-hash": "7d"}, "ownerReferences":
                [{"kind": "ReplicaSet", "name": "canary-7d", "controller": true}]}}]))
        }
        "/apis/apps/v1/statefulsets"
        | "/apis/apps/v1/daemonsets"
        | "/apis/batch/v1beta1/cronjobs" => list(Value::Null),
        _ => None,
    }
}

#[tokio::test]
async fn a_rollout_lends_its_progress_and_pods_to_the_deployment_it_refers_to() {
    let server = Server::routed(argo).await;
    let client = client(&server).await;
    let namespace = Namespace::from("n");
    let templates = client.templates(None).await.unwrap();
    let [web] = templates[&namespace].as_slice() else { panic!("only the Deployment is written") };
    assert_eq!((web.kind, web.name.as_str()), (TemplateKind::Deployment, "web"));
    assert_eq!(web.strategy, Strategy::Paused);
    assert!(web.progress.complete());
    let pods = client.pods(None).await.unwrap();
    let controller = pods[&namespace][0].controller.clone();
    assert_eq!(controller, Some(("ReplicaSet".to_owned(), "web-7d".to_owned())));
    let own = client.pods_of_account(&namespace, &"web".into()).await.unwrap();
    assert_eq!(own[0].controller, controller);
    let targets: Vec<String> = server.seen().into_iter().map(|seen| seen.target).collect();
    assert!(!targets.iter().any(|t| t.contains("replicasets") || t.contains("/jobs")));
    let of_account =
        "/api/v1/namespaces/n/pods?limit=500&fieldSelector=spec.serviceAccountName%3Dweb";
    assert!(targets.iter().any(|t| t == of_account), "{targets:#?}");
}

#[tokio::test]
async fn the_estate_sees_pods_of_such_a_rollout_as_the_deployments() {
    let server = Server::routed(argo).await;
    let estate = client(&server).await.estate().await;
    let [web] = estate.templates.as_slice() else { panic!("{:#?}", estate.templates) };
    assert_eq!((web.kind, web.name.as_str()), (TemplateKind::Deployment, "web"));
    assert_eq!((web.replicas, web.strategy, web.complete), (Some(1), Strategy::Paused, true));
    assert!(web.stamps(&estate.pods[0]), "{:#?}", estate.pods);
    // A pod of another's `ReplicaSet` is not renamed: its hash is not the rest of the name.
    let server = Server::routed(|seen| {
        if !seen.target.starts_with("/api/v1/pods") {
            return argo(seen);
        }
        let pod = json!({"metadata": {"name": "canary-two-7d-x", "namespace": "n",
            "labels": {"rollouts-pod-template-hash": "7d"}, "ownerReferences":
                [{"kind": "ReplicaSet", "name": "canary-two-7d", "controller": true}]}});
        Some(reply(200, &json!({"items": [pod]})))
    });
    let estate = client(&server.await).await.estate().await;
    assert_eq!(estate.pods[0].controller.as_deref(), Some("replicaset/canary-two-7d"));
}

/// An NMI without a ready pod answers nobody, unless nothing is ready anywhere yet.
#[tokio::test]
async fn nmi_is_stuck_where_others_are_ready_on_nodes_and_it_is_not() {
    let stuck = async |ready: i64, node: Value, others: &'static str| {
        let nmi = json!({"metadata": {"name": "nmi", "namespace": "default"},
            "spec": {"template": {"spec": {"containers": []}}},
            "status": {"desiredNumberScheduled": 3, "numberReady": ready}});
        let pod = json!({"metadata": {"name": "web-1", "namespace": "n"},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": others}]}});
        let server = Server::routed(move |seen| {
            let items = match seen.target.split('?').next()? {
                "/apis/apps/v1/daemonsets" => json!([nmi]),
                "/api/v1/pods" => json!([pod]),
                _ => return argo(seen),
            };
            Some(reply(200, &json!({"items": items})))
        });
        client(&server.await).await.estate().await.installs[0].stuck
    };
    assert!(stuck(0, json!("node-1"), "True").await);
    assert!(!stuck(1, json!("node-1"), "True").await);
    assert!(!stuck(0, json!("node-1"), "False").await);
    assert!(!stuck(0, Value::Null, "True").await);
}
