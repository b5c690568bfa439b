//! Switching features of a cluster on, against a server that answers from a script.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use widentity::{
    azure::ArmError,
    model::{ArmId, FailureKind, desired::Feature},
};

use crate::support::scripted::{Server, reply};

const SUB: &str = "00000000-0000-0000-0000-000000000001";

fn cluster_id() -> ArmId {
    ArmId::new(format!(
        "/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks"
    ))
}

fn cluster(state: &str, enabled: bool) -> Value {
    let mut cluster = json!({
        "id": cluster_id().as_str(), "name": "aks", "location": "westeurope", "eTag": "tag-1",
        "properties": {
            "provisioningState": state, "fqdn": "aks.example", "unknown": {"kept": [1, null]},
            "oidcIssuerProfile": {"enabled": enabled}, "securityProfile": {},
        },
    });
    if enabled {
        cluster["properties"]["oidcIssuerProfile"]["issuerURL"] = json!("https://issuer/t/u/");
        cluster["properties"]["securityProfile"] = json!({"workloadIdentity": {"enabled": true}});
    }
    cluster
}

fn both() -> BTreeSet<Feature> {
    BTreeSet::from([Feature::OidcIssuer, Feature::WorkloadIdentity])
}

#[tokio::test]
async fn features_are_enabled_under_the_etag_and_the_operation_is_waited_for() {
    let server = Server::start([]).await;
    let operation = server.link("/op?api-version=2025-03-01&t=638&c=MII&s=a%2Bb");
    server.script([
        reply(200, &cluster("Succeeded", false)),
        reply(200, &cluster("Updating", true)).with("azure-asyncoperation", operation),
        reply(200, &json!({"status": "InProgress"})),
        reply(200, &json!({"status": "InProgress"})).with("retry-after", "20"),
        reply(200, &json!({"status": "Succeeded"})),
        reply(200, &cluster("Succeeded", true)),
    ]);
    let watched = server.arm();
    let done = watched.arm.enable_features(&cluster_id(), &both()).await.unwrap();
    assert_eq!(done.issuer.unwrap().as_str(), "https://issuer/t/u/");
    assert_eq!(watched.slept(), [1, 2, 20]);
    assert_eq!(watched.told()[0], "the cluster's update");
    let seen = server.seen();
    assert_eq!(seen[1].headers["if-match"], "tag-1");
    assert_eq!(seen[1].json()["properties"]["unknown"], json!({"kept": [1, null]}));
    assert!(seen[2].target.ends_with("/op?api-version=2025-03-01&t=638&c=MII&s=a%2Bb"));
}

#[tokio::test]
async fn features_that_are_on_write_nothing() {
    let server = Server::start([reply(200, &cluster("Succeeded", true))]).await;
    server.arm().arm.enable_features(&cluster_id(), &both()).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_busy_cluster_is_waited_for_and_read_again_before_the_write() {
    let message = "Operation is not allowed because there's an in progress update managed cluster \
                   operation (operation ID: e375d315) on the managed cluster";
    let busy = reply(409, &json!({"code": "OperationNotAllowed", "message": message}));
    let mut later = cluster("Succeeded", false);
    later["eTag"] = json!("tag-2");
    let server = Server::start([
        reply(200, &cluster("Succeeded", false)),
        busy,
        reply(200, &cluster("Updating", false)),
        reply(200, &later),
        reply(200, &cluster("Succeeded", true)),
        reply(200, &cluster("Succeeded", true)),
        reply(200, &cluster("Succeeded", true)),
    ])
    .await;
    let watched = server.arm();
    watched.arm.enable_features(&cluster_id(), &both()).await.unwrap();
    assert_eq!(server.seen()[4].headers["if-match"], "tag-2");
    assert_eq!(watched.told()[0], "another operation on the cluster");
}

#[tokio::test]
async fn a_read_that_lags_behind_the_update_is_repeated() {
    let server = Server::start([]).await;
    server.script([
        reply(200, &cluster("Succeeded", false)),
        reply(200, &cluster("Updating", false)),
        reply(200, &cluster("Succeeded", false)),
        reply(200, &cluster("Succeeded", false)),
        reply(200, &cluster("Succeeded", true)),
    ]);
    let watched = server.arm();
    watched.arm.enable_features(&cluster_id(), &both()).await.unwrap();
    assert_eq!(watched.told().last().unwrap(), "Azure to show what was just written");
}

#[tokio::test]
async fn an_operation_that_fails_says_why() {
    let server = Server::start([]).await;
    let failed = json!({"status": "Failed", "error": {"code": "InternalError", "message": "boom"}});
    server.script([
        reply(200, &cluster("Succeeded", false)),
        reply(200, &cluster("Updating", false)).with("azure-asyncoperation", server.link("/op")),
        reply(200, &failed),
    ]);
    let error = server.arm().arm.enable_features(&cluster_id(), &both()).await.unwrap_err();
    assert_eq!(error.to_string(), "the operation ended as Failed: boom");
    assert_eq!(error.code(), Some("InternalError"));
    assert_eq!(error.failure("enable").kind, FailureKind::Unfinished);
}

#[tokio::test]
async fn an_operation_address_on_another_host_is_not_followed() {
    let other = Server::start([]).await;
    let server = Server::start([
        reply(200, &cluster("Succeeded", false)),
        reply(200, &cluster("Updating", true)).with("azure-asyncoperation", other.link("/op")),
    ])
    .await;
    let features = BTreeSet::from([Feature::OidcIssuer]);
    let failed = server.arm().arm.enable_features(&cluster_id(), &features).await.unwrap_err();
    let ArmError::Followed { error } = &failed else { panic!("{failed}") };
    assert!(matches!(**error, ArmError::ForeignLink { .. }), "{failed}");
    // The update was accepted all the same.
    assert_eq!(failed.failure("enable").kind, FailureKind::Unfinished);
    assert!(other.seen().is_empty());
}
