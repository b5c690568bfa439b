//! Who uses a binding although no pod template that widentity reads and no live pod has its label:
//! an operator's custom resource, a controller without pods.

use serde_json::{Value, json};
use widentity::{
    migrate::{Survey, uninstall::Wishes},
    ops::migrate::Overview,
};

use crate::support::{
    pod_identity::{Made, custom, make},
    uninstall::{BOTH, World},
};

/// A binding in namespace `shop` that selects `cart`, and its identity.
fn bound() -> [Made; 2] {
    [
        custom(
            "AzureIdentity",
            "azureidentities",
            ("shop", "cart"),
            json!({"type": 0, "resourceID": "/subscriptions/s/resourceGroups/rg/providers/\
                Microsoft.ManagedIdentity/userAssignedIdentities/cart",
                "clientID": "c0000000-0000-4000-8000-000000000001"}),
        ),
        custom(
            "AzureIdentityBinding",
            "azureidentitybindings",
            ("shop", "cart"),
            json!({"azureIdentity": "cart", "selector": "cart"}),
        ),
    ]
}

/// A kind of an operator, and one object of it that will make pods with this label.
fn operated(selector: &str) -> [Made; 2] {
    let group = "apps.kruise.io";
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("clonesets.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": "CloneSet", "plural": "clonesets", "singular": "cloneset",
                "listKind": "CloneSetList"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema":
                    {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    let object = json!({
        "apiVersion": format!("{group}/v1alpha1"), "kind": "CloneSet",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"replicas": 0, "template": pods(selector)},
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let objects = format!("/apis/{group}/v1alpha1/namespaces/shop/clonesets");
    [(definitions.to_owned(), definition), (objects, object)]
}

fn pods(selector: &str) -> Value {
    json!({"metadata": {"labels": {"app": "cart", "aadpodidbinding": selector}},
        "spec": {"containers": [{"name": "c", "image": "registry.example/c:1"}]}})
}

/// Nobody may list the operator's kind.
fn refusal() -> Value {
    json!({"service": "cluster/prod", "method": "GET", "path": "*/clonesets*", "times": 0,
        "action": {"answer": {"status": 403, "code": "Forbidden", "message": "no"}}})
}

fn notes<'a>(overview: &'a Overview, code: &str) -> Vec<&'a str> {
    let survey: &Survey = &overview.clusters[0].survey;
    let notes = survey.notes.iter().filter(|note| note.code == code);
    notes.map(|note| note.message.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_resource_with_the_label_keeps_its_binding() {
    let world = World::installed().await;
    make(&world.admin, &bound()).await;
    make(&world.admin, &operated("cart")).await;
    let overview = world.overview().await;
    let [note] = notes(&overview, "label-elsewhere")[..] else { panic!("{overview:#?}") };
    assert_eq!(
        note,
        "clonesets.apps.kruise.io/cart in shop carries the label of binding shop/cart \
         (spec.template.metadata.labels): change it there, widentity does not write its kind"
    );
    assert_eq!(notes(&overview, "binding-unused"), [""; 0]);
    let (what, ran) = world.uninstall(BOTH).await;
    let [obstacle] = what.obstacles.as_slice() else { panic!("{what:#?}") };
    assert_eq!((obstacle.code.as_str(), ran), ("label-left", None));
    assert!(obstacle.message.starts_with("clonesets.apps.kruise.io/cart in shop"), "{obstacle:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_label_does_not_and_nobody_looks_where_no_binding_is_idle() {
    let world = World::installed().await;
    make(&world.admin, &operated("another")).await;
    assert_eq!(notes(&world.overview().await, "label-elsewhere"), [""; 0]);
    world.fault(refusal()).await;
    let free = world.overview().await;
    assert_eq!(notes(&free, "not-looked"), [""; 0]);
    assert_eq!(world.mended().await, 0, "without a binding there is nothing to look for");
    make(&world.admin, &bound()).await;
    let overview = world.overview().await;
    assert_eq!(notes(&overview, "binding-unused").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_may_not_be_listed_keep_it_too() {
    let world = World::installed().await;
    make(&world.admin, &bound()).await;
    make(&world.admin, &operated("another")).await;
    world.fault(refusal()).await;
    let overview = world.overview().await;
    let [note] = notes(&overview, "not-looked")[..] else { panic!("{overview:#?}") };
    assert!(note.contains("list clonesets.apps.kruise.io"), "{note}");
    let (what, ran) = world.uninstall(BOTH).await;
    let codes: Vec<&str> = what.obstacles.iter().map(|o| o.code.as_str()).collect();
    assert_eq!((codes, ran), (vec!["not-seen"], None), "{what:#?}");
    assert!(what.obstacles[0].fix.contains("--allow-unseen-kinds"), "{what:#?}");
}

/// It is no kind that widentity writes, and no operator's.
#[tokio::test(flavor = "multi_thread")]
async fn a_replication_controller_without_pods_is_a_workload() {
    let world = World::installed().await;
    make(&world.admin, &bound()).await;
    let object = json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "old", "namespace": "shop"},
        "spec": {"replicas": 0, "selector": {"app": "cart"}, "template": pods("cart")}});
    let at = "/api/v1/namespaces/shop/replicationcontrollers".to_owned();
    make(&world.admin, &[(at, object)]).await;
    let overview = world.overview().await;
    let workloads = &overview.clusters[0].survey.workloads;
    let codes: Vec<&str> = workloads[0].reasons.iter().map(|r| r.code.as_str()).collect();
    assert!(codes.contains(&"must-be-recreated"), "{workloads:#?}");
    let (what, _) = world.uninstall(Wishes::default()).await;
    assert!(what.obstacles.iter().any(|o| o.message == "shop/default is discovered"), "{what:#?}");
}
