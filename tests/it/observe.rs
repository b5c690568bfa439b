//! What is read, what is asked for it, and what a refusal leaves unknown.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};
use widentity::{
    kubernetes::{Connect, Connection},
    model::{
        ArmId, ClusterName, FailureKind, Namespace, Token,
        desired::{Access, DesiredState, IdentityControl, Role},
        names,
        snapshot::{Observation, Snapshot},
    },
    observe::observe,
};

use crate::support::{
    scripted::{Reply, SECRET, Seen, Server, error, reply},
    worlds::{self, add_workload, desired, subscription},
};

const ROLE: &str = "4633458b-17de-408a-b874-0445c86b69e6";

/// A file of `count` workloads in one cluster, each with its identity, its vault and its own one
/// of `namespaces`.
fn file(count: usize, namespaces: usize) -> DesiredState {
    let mut desired = desired(&["prod"]);
    for i in 0..count {
        let (namespace, account) = (format!("ns{}", i % namespaces), format!("a{i}"));
        let vault = format!("kv{i}");
        add_workload(&mut desired, &namespace, &account, &["prod"], None, &[&vault]);
    }
    desired
}

fn guid(prefix: char, name: &str) -> String {
    format!("{}-0000-0000-0000-{}", prefix.to_string().repeat(8), names::sha256_hex(name, 12))
}

fn identity(id: &ArmId) -> Value {
    json!({"id": id, "name": id.name(), "location": "westeurope",
        "tags": {names::PROJECT_TAG: worlds::PROJECT},
        "properties": {"tenantId": worlds::tenant(), "clientId": guid('c', id.name()),
            "principalId": guid('b', id.name())}})
}

fn assignment(identity: &ArmId, scope: &ArmId) -> Value {
    let name = guid('a', identity.name());
    json!({"id": format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"),
        "name": name, "properties": {"principalId": guid('b', identity.name()), "scope": scope,
            "roleDefinitionId": format!("/providers/Microsoft.Authorization/roleDefinitions/{ROLE}")}})
}

fn cluster() -> Value {
    json!({"id": worlds::cluster_id("prod"), "location": "westeurope", "properties": {
        "provisioningState": "Succeeded", "powerState": {"code": "Running"},
        "oidcIssuerProfile": {"enabled": true, "issuerURL": worlds::issuer("prod")},
        "securityProfile": {"workloadIdentity": {"enabled": true}}}})
}

fn list(items: impl IntoIterator<Item = Value>) -> Reply {
    reply(200, &json!({"value": items.into_iter().collect::<Vec<_>>()}))
}

/// An Azure in which everything of the file exists.
fn azure(desired: &DesiredState, seen: &Seen) -> Option<Reply> {
    let path = seen.target.split('?').next()?.to_lowercase();
    let ids = desired.identities.keys();
    if path.ends_with("/userassignedidentities") {
        return Some(list(ids.map(identity)));
    }
    if path.ends_with("/federatedidentitycredentials") {
        return Some(list([]));
    }
    if path.ends_with("/vaults") {
        let vaults = desired.assignments.iter().map(|a| &a.scope);
        return Some(list(
            vaults.map(|id| json!({"id": id, "properties": {"enableRbacAuthorization": true}})),
        ));
    }
    if path.ends_with("/roleassignments") {
        let at = ArmId::new(path.split("/providers/microsoft.authorization").next()?);
        let below = desired.assignments.iter().filter(|a| a.scope.is_within(&at));
        let below = below.filter(|a| {
            let only = seen.target.split("principalId").nth(1);
            only.is_none_or(|only| only.contains(&guid('b', a.identity.name())))
        });
        return Some(list(below.map(|a| assignment(&a.identity, &a.scope))));
    }
    if path.ends_with("/roledefinitions") {
        let definition = json!({"name": ROLE, "properties": {"roleName": "Custom Reader"}});
        return Some(list([definition]));
    }
    if path.ends_with("/managedclusters/prod") {
        return Some(reply(200, &cluster()));
    }
    if path.contains("/vaults/") {
        return Some(reply(200, &json!({"properties": {"enableRbacAuthorization": false}})));
    }
    let one = ids.into_iter().find(|id| id.key() == path)?;
    Some(reply(200, &identity(one)))
}

/// An API server with an account and a pod in every namespace of the file.
fn kubernetes(seen: &Seen) -> Option<Reply> {
    let path = seen.target.split('?').next()?;
    let items = |items: Vec<Value>| Some(reply(200, &json!({"items": items})));
    let objects = |names: Vec<String>| {
        let metadata = |n: String| json!({"metadata": {"name": "x", "namespace": n, "uid": "u"}});
        items(names.into_iter().map(metadata).collect())
    };
    let all = || (0..20).map(|i| format!("ns{i}")).collect::<Vec<_>>();
    let own = || {
        let namespace = path.split("/namespaces/").nth(1)?.split('/').next()?;
        Some(vec![namespace.to_owned()])
    };
    match path {
        "/version" => Some(reply(200, &json!({"gitVersion": "v1.33.2"}))),
        "/.well-known/openid-configuration" => {
            Some(reply(200, &json!({"issuer": worlds::issuer("prod")})))
        }
        "/apis" => Some(reply(
            200,
            &json!({"groups": [{"name": "batch", "versions": [{"groupVersion": "batch/v1"}]}]}),
        )),
        "/apis/batch/v1" => Some(reply(200, &json!({"resources": [{"name": "cronjobs"}]}))),
        "/api/v1/namespaces" => {
            items(all().into_iter().map(|n| json!({"metadata": {"name": n}})).collect())
        }
        "/api/v1/serviceaccounts" | "/api/v1/pods" | "/apis/apps/v1/deployments" => objects(all()),
        _ if path.ends_with("/serviceaccounts")
            || path.ends_with("/pods")
            || path.ends_with("/deployments") =>
        {
            objects(own()?)
        }
        _ if path.starts_with("/api/v1/namespaces/") => {
            Some(reply(200, &json!({"metadata": {"name": own()?[0]}})))
        }
        _ if path.ends_with("sets")
            || path.ends_with("jobs")
            || path.ends_with("configurations") =>
        {
            items(Vec::new())
        }
        _ => None,
    }
}

fn forbidden(seen: &Seen) -> Reply {
    if seen.target.starts_with("/subscriptions") {
        return error(403, "AuthorizationFailed", "may not");
    }
    reply(403, &json!({"kind": "Status", "reason": "Forbidden", "message": "may not"}))
}

struct Run {
    snapshot: Snapshot,
    asked: Vec<String>,
}

impl Run {
    fn asked(&self, part: &str) -> usize {
        self.asked.iter().filter(|target| target.contains(part)).count()
    }

    fn arm(&self) -> usize {
        self.asked("/subscriptions/")
    }

    fn kubernetes(&self) -> &widentity::model::snapshot::KubernetesSnapshot {
        self.snapshot.clusters[&ClusterName::from("prod")].kubernetes.present().unwrap()
    }
}

/// Observes a world that refuses what `denied` says.
async fn run(
    file: &DesiredState,
    denied: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static,
) -> Run {
    let world = file.clone();
    let server = Server::routed(move |seen| {
        if let Some(refusal) = denied(&seen.target) {
            return Some(if refusal.status == 403 { forbidden(seen) } else { refusal });
        }
        let arm = seen.target.starts_with("/subscriptions");
        if arm { azure(&world, seen) } else { kubernetes(seen) }
    })
    .await;
    let token = Arc::new(|| -> futures::future::BoxFuture<'static, _> {
        Box::pin(async { Ok(Token::new(SECRET)) })
    });
    let connect = Connect::Direct { server: server.url.clone(), ca_pem: String::new(), token };
    let connections =
        BTreeMap::from([(ClusterName::from("prod"), Connection::to(connect, "connect"))]);
    let arm = server.arm().arm;
    let snapshot = observe(file, &arm, &connections, Timestamp::UNIX_EPOCH).await;
    Run { snapshot, asked: server.seen().into_iter().map(|seen| seen.target).collect() }
}

fn nothing(_: &str) -> Option<Reply> {
    None
}

fn deny(parts: &'static [&'static str]) -> impl Fn(&str) -> Option<Reply> + Send + Sync {
    move |target: &str| {
        let path = target.split('?').next().unwrap_or_default();
        parts.iter().any(|part| path.ends_with(part)).then(|| reply(403, &Value::Null))
    }
}

#[tokio::test]
async fn a_hundred_workloads_cost_a_list_each_and_a_handful_more() {
    let file = file(100, 12);
    let run = run(&file, nothing).await;
    assert!(run.arm() <= 110, "{} requests to ARM", run.arm());
    assert_eq!(run.asked("federatedIdentityCredentials"), 100);
    assert_eq!(run.snapshot.assignments.seen.len(), 100);
    assert!(run.snapshot.identities.values().all(|seen| seen.present().is_some()));
    assert_eq!(run.snapshot.targets.len(), 100);
    assert!(run.snapshot.targets.values().all(|t| t.present().unwrap().rbac == Some(true)));
    let kubernetes = run.kubernetes();
    assert_eq!(kubernetes.namespaces.len(), 12);
    assert_eq!(kubernetes.pods.len(), 12, "other namespaces' pods are dropped");
    assert!(kubernetes.pods.values().all(|pods| pods.present().unwrap().len() == 1));
    assert_eq!(kubernetes.evidence.issuer, Observation::Present(worlds::issuer("prod")));
    assert_eq!(run.asked("/pods"), 1);
    assert_eq!(run.asked("replicasets") + run.asked("/jobs"), 0);
}

#[tokio::test]
async fn pods_of_few_namespaces_are_asked_for_there() {
    let run = run(&file(6, 3), nothing).await;
    assert_eq!(run.asked("/api/v1/pods"), 0);
    assert_eq!(run.asked("/pods?"), 3);
    assert_eq!(run.kubernetes().templates[&Namespace::from("ns2")].present().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_not_chosen_is_not_read() {
    let mut file = file(6, 3);
    for workload in &mut file.workloads[1..] {
        workload.selected.clear();
    }
    let run = run(&file, nothing).await;
    assert_eq!(run.asked("/vaults/"), 1);
    assert_eq!(run.kubernetes().namespaces.len(), 1);
    // Credentials with our mark may be left over on any identity of ours.
    assert_eq!(run.asked("federatedIdentityCredentials"), 6);
}

#[tokio::test]
async fn an_absent_cluster_is_not_asked_and_neither_is_one_without_access() {
    let gone = |target: &str| {
        target.contains("managedClusters").then(|| error(404, "ResourceNotFound", "none"))
    };
    let absent = run(&file(1, 1), gone).await;
    let cluster = &absent.snapshot.clusters[&ClusterName::from("prod")];
    assert_eq!(cluster.arm, Observation::Absent);
    assert_eq!(cluster.kubernetes, Observation::Absent);
    assert_eq!(absent.asked.len(), absent.arm());

    let mut file = file(1, 1);
    file.clusters.get_mut(&ClusterName::from("prod")).unwrap().access = Access::None;
    let untouched = run(&file, nothing).await;
    assert_eq!(untouched.asked.len(), untouched.arm());
    let cluster = &untouched.snapshot.clusters[&ClusterName::from("prod")];
    assert_eq!(cluster.kubernetes, Observation::Absent);

    // A subscription that cannot be seen proves nothing: the API server is asked.
    let lost = |target: &str| {
        target.contains("managedClusters").then(|| error(404, "SubscriptionNotFound", "none"))
    };
    let unknown = run(&self::file(1, 1), lost).await;
    let cluster = &unknown.snapshot.clusters[&ClusterName::from("prod")];
    assert!(cluster.arm.failure().is_some());
    assert!(cluster.kubernetes.present().is_some());
}

#[tokio::test]
async fn what_a_list_forgets_is_asked_for_by_id() {
    let forgetful = |target: &str| {
        target.split('?').next()?.ends_with("/userAssignedIdentities").then(|| list([]))
    };
    let run = run(&file(3, 1), forgetful).await;
    assert!(run.snapshot.identities.values().all(|seen| seen.present().is_some()));
}

#[tokio::test]
async fn who_may_not_list_identities_reads_them_one_by_one() {
    let denied = deny(&["/userAssignedIdentities", "/resourceGroups/rg-identities"]);
    let run = run(&file(3, 1), denied).await;
    assert!(run.snapshot.identities.values().all(|seen| seen.present().is_some()));
    assert_eq!(run.snapshot.home.failure().unwrap().kind, FailureKind::Denied);
    assert_eq!(run.snapshot.credentials.len(), 3);
}

#[tokio::test]
async fn who_may_not_list_assignments_asks_scope_by_scope() {
    let file = file(3, 1);
    let listing = format!(
        "/subscriptions/{}/providers/Microsoft.Authorization/roleAssignments",
        subscription()
    );
    let denied = move |target: &str| target.starts_with(&listing).then(|| reply(403, &Value::Null));
    let run = run(&file, denied).await;
    assert_eq!(run.snapshot.assignments.seen.len(), 3);
    for wanted in &file.assignments {
        let principal = run.snapshot.identities[&wanted.identity].present().unwrap().principal_id;
        let found = run.snapshot.assignments.find(principal, ROLE.parse().unwrap(), &wanted.scope);
        assert!(found.present().is_some());
    }
    // Elsewhere in the subscription nothing was seen, and nothing is absent.
    let anyone = guid('b', file.assignments[0].identity.name()).parse().unwrap();
    let elsewhere = worlds::vault("unheard-of");
    let found = run.snapshot.assignments.find(anyone, ROLE.parse().unwrap(), &elsewhere);
    assert_eq!(found.failure().unwrap().kind, FailureKind::Denied);
}

#[tokio::test]
async fn what_may_not_be_listed_in_a_cluster_is_listed_by_namespace() {
    let denied = deny(&[
        "/api/v1/namespaces",
        "/api/v1/serviceaccounts",
        "/apis/apps/v1/deployments",
        "/namespaces/ns1/serviceaccounts",
        "configurations",
    ]);
    let run = run(&file(2, 2), denied).await;
    let (open, shut) = (Namespace::from("ns0"), Namespace::from("ns1"));
    let kubernetes = run.kubernetes();
    assert_eq!(kubernetes.namespaces[&shut], Observation::Present(()));
    assert_eq!(kubernetes.accounts[&open].present().unwrap().len(), 1);
    let failure = kubernetes.accounts[&shut].failure().unwrap();
    assert_eq!(failure.tried, "list service accounts in namespace ns1 of cluster prod");
    assert_eq!(failure.kind, FailureKind::Denied);
    assert_eq!(kubernetes.templates[&shut].present().unwrap().len(), 1);
    assert!(kubernetes.webhook.failure().is_some());
}

#[tokio::test]
async fn custom_roles_and_external_identities_are_looked_up() {
    let mut file = file(3, 1);
    for (n, group) in [(1, "rg-one"), (2, "rg-two")] {
        let id = ArmId::of_identity(subscription(), group, "shared");
        let old = file.workloads[n].identity.clone();
        let mut identity = file.identities.remove(&old).unwrap();
        (identity.id, identity.control) = (id.clone(), IdentityControl::External);
        file.identities.insert(id.clone(), identity);
        file.workloads[n].identity = id.clone();
        file.assignments[n].identity = id;
    }
    file.assignments[1].role = Role::Named { name: "Custom Reader".to_owned() };
    let run = run(&file, nothing).await;
    assert!(run.snapshot.identities.values().all(|seen| seen.present().is_some()));
    assert_eq!(run.asked("userAssignedIdentities?"), 1);
    assert_eq!(run.snapshot.roles["custom reader"].present().unwrap().len(), 1);
}
