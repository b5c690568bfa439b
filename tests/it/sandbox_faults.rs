//! Limits, delays and faults of the sandbox, over real HTTPS.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use widentity::sandbox::{ClusterRef, Seed, SeedCluster, chance::Chance};

use crate::support::arm::{Served, answered, json as with_body};

const SUB: &str = "00000000-0000-4000-8000-00000000000a";

fn seed() -> Seed {
    let id = format!(
        "/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks"
    );
    Seed {
        clusters: vec![SeedCluster {
            cluster: ClusterRef { name: "prod".into(), id },
            location: String::new(),
            oidc_issuer: true,
            workload_identity: true,
            entra: false,
            namespaces: vec!["shop".into()],
            deployments: Vec::new(),
            objects: Vec::new(),
        }],
        ..Seed::default()
    }
}

fn identities(name: &str) -> String {
    format!(
        "/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.ManagedIdentity/\
         userAssignedIdentities{name}?api-version=2023-01-31"
    )
}

async fn make(served: &Served, name: &str) -> reqwest::Result<(u16, Value)> {
    let body = json!({ "location": "westeurope" });
    answered(with_body(served.arm("PUT", &identities(name)), &body)).await
}

async fn fault(served: &Served, rule: Value) {
    let (status, _) = answered(with_body(served.own("POST", "faults"), &rule)).await.unwrap();
    assert_eq!(status, 204);
}

/// A request to the cluster as its operator.
fn kube(served: &Served, method: &str, path: &str) -> reqwest::RequestBuilder {
    let kubeconfig = fs::read_to_string(&served.running.ready().kubeconfigs["prod"]).unwrap();
    let value = |key: &str| {
        let line = kubeconfig.lines().find(|line| line.trim().starts_with(key)).unwrap();
        line.split_once(": ").unwrap().1.to_owned()
    };
    let url = format!("{}{path}", value("server:"));
    served.client.request(method.parse().unwrap(), url).bearer_auth(value("token:"))
}

#[tokio::test]
async fn lists_lag_behind_reads_where_the_world_says_so() {
    let served = Served::start(seed(), |options| {
        options.settings.delays.list = Duration::from_secs(20);
    })
    .await;
    assert_eq!(make(&served, "/id-one").await.unwrap().0, 201);
    let (status, _) = answered(served.arm("GET", &identities("/id-one"))).await.unwrap();
    assert_eq!(status, 200);
    let list = || async { answered(served.arm("GET", &identities(""))).await.unwrap().1 };
    assert_eq!(list().await["value"], json!([]));
    served.running.context().clock.advance(Duration::from_secs(20));
    assert_eq!(list().await["value"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_of_a_rule_speaks_as_the_service_does() {
    let served = Served::start(seed(), |_| {}).await;
    fault(
        &served,
        json!({ "service": "cluster/prod", "method": "WATCH",
                "action": { "answer": { "status": 410, "code": "Expired", "message": "too old" } } }),
    )
    .await;
    let pods = "/api/v1/namespaces/shop/pods";
    let (status, _) = answered(kube(&served, "GET", pods)).await.unwrap();
    assert_eq!(status, 200);
    let watch = kube(&served, "GET", &format!("{pods}?watch=true&timeoutSeconds=1"));
    let (status, body) = answered(watch).await.unwrap();
    assert_eq!(
        (status, &body["kind"], &body["reason"]),
        (410, &json!("Status"), &json!("Expired"))
    );
    let (_, rules) = answered(served.own("GET", "faults")).await.unwrap();
    assert_eq!(rules[0]["seen"], 1);
}

#[tokio::test]
async fn a_stale_watch_says_nothing_and_a_slow_body_comes_whole() {
    let served = Served::start(seed(), |_| {}).await;
    fault(&served, json!({ "method": "WATCH", "action": "stall" })).await;
    let watch = kube(&served, "GET", "/api/v1/namespaces?watch=true&timeoutSeconds=1");
    let mut answer = watch.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    // The sandbox would end this watch after a second: a stale one stays silent.
    let piece = tokio::time::timeout(Duration::from_millis(1500), answer.chunk()).await;
    assert!(piece.is_err(), "{piece:?}");

    make(&served, "/id-one").await.unwrap();
    fault(&served, json!({ "service": "arm", "action": { "slow": 1 } })).await;
    let (status, body) = answered(served.arm("GET", &identities("/id-one"))).await.unwrap();
    assert_eq!((status, &body["name"]), (200, &json!("id-one")));
}

#[tokio::test]
async fn a_lost_reply_was_done_and_a_reset_was_not() {
    let served = Served::start(seed(), |_| {}).await;
    fault(&served, json!({ "method": "PUT", "path": "*/id-lost", "action": "reply_lost" })).await;
    fault(&served, json!({ "method": "PUT", "path": "*/id-reset", "action": "reset" })).await;
    assert!(make(&served, "/id-lost").await.is_err());
    assert!(make(&served, "/id-reset").await.is_err());
    let there = |name| {
        let request = served.arm("GET", &identities(name));
        async { answered(request).await.unwrap().0 }
    };
    assert_eq!((there("/id-lost").await, there("/id-reset").await), (200, 404));
}

#[tokio::test]
async fn random_faults_follow_their_seed_and_end_when_cleared() {
    let mut runs = Vec::new();
    for seed_of_faults in [7, 7, 8] {
        let served = Served::start(seed(), |_| {}).await;
        let chance = Chance::new(0.5, seed_of_faults);
        served.running.context().faults.at_random(Some(chance));
        let mut seen = Vec::new();
        for _ in 0..12 {
            let answer = answered(served.arm("GET", &identities(""))).await;
            seen.push(answer.map(|(status, _)| status).map_err(|_| ()));
        }
        let (status, _) = answered(served.own("DELETE", "faults")).await.unwrap();
        assert_eq!(status, 204);
        for _ in 0..12 {
            assert_eq!(answered(served.arm("GET", &identities(""))).await.unwrap().0, 200);
        }
        runs.push(seen);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn a_webhook_that_is_down_keeps_its_pods_out() {
    let served = Served::start(seed(), |_| {}).await;
    let pod = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "azure.workload.identity/use": "true" } },
            "spec": { "containers": [{ "name": "app", "image": "registry.example/app:1" }] },
        })
    };
    let create = |name| {
        let request = kube(&served, "POST", "/api/v1/namespaces/shop/pods");
        let request = with_body(request, &pod(name));
        async { answered(request).await.unwrap() }
    };
    let switch = |down: bool| {
        let request = with_body(served.own("PUT", "webhooks/prod"), &json!({ "down": down }));
        async { answered(request).await.unwrap().0 }
    };
    assert_eq!(switch(true).await, 204);
    let (status, body) = create("one").await;
    assert_eq!(status, 500);
    assert!(body["message"].as_str().unwrap().contains("failed calling webhook"), "{body}");
    assert_eq!(switch(false).await, 204);
    assert_eq!(create("one").await.0, 201);
    let (status, _) =
        answered(with_body(served.own("PUT", "webhooks/other"), &json!({ "down": true })))
            .await
            .unwrap();
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_request_log_has_what_was_sent_to_arm_and_no_secret() {
    let served = Served::start(seed(), |_| {}).await;
    let path = served.directory().join("requests.jsonl");
    served.running.context().faults.log_to(fs::File::create(&path).unwrap());
    make(&served, "/id-one").await.unwrap();
    let ready = served.running.ready().clone();
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}&scope=x/.default",
        ready.client_id, ready.client_secret
    );
    let url = format!("{}/{}/oauth2/v2.0/token", ready.authority, ready.tenant);
    let kind = "application/x-www-form-urlencoded";
    drop(answered(served.client.post(url).header("content-type", kind).body(form)).await);
    let log = fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["body"], json!({ "location": "westeurope" }));
    assert_eq!((&lines[0]["method"], &lines[0]["status"]), (&json!("PUT"), &json!(201)));
    assert_eq!(lines[1]["body"], Value::Null);
    assert!(!log.contains(&ready.client_secret) && !log.contains("eyJ"));
}

#[tokio::test]
async fn the_world_is_told_with_what_hangs_together() {
    let served = Served::start(seed(), |_| {}).await;
    let (_, identity) = make(&served, "/id-one").await.unwrap();
    let credential = identities("/id-one/federatedIdentityCredentials/fic");
    let body = json!({ "properties": { "issuer": "https://issuer.example/", "subject": "s",
                                        "audiences": ["api://AzureADTokenExchange"] } });
    assert_eq!(answered(with_body(served.arm("PUT", &credential), &body)).await.unwrap().0, 201);
    let reader = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
    let path = format!(
        "/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Authorization/roleAssignments/\
         88888888-0000-4000-8000-000000000001?api-version=2022-04-01"
    );
    let body = json!({ "properties": {
        "roleDefinitionId": format!(
            "/subscriptions/{SUB}/providers/Microsoft.Authorization/roleDefinitions/{reader}"),
        "principalId": identity["properties"]["principalId"],
        "principalType": "ServicePrincipal" } });
    assert_eq!(answered(with_body(served.arm("PUT", &path), &body)).await.unwrap().0, 201);
    let (_, world) = answered(served.own("GET", "world")).await.unwrap();
    assert_eq!(world["clusters"][0]["name"], "prod");
    assert!(world["clusters"][0]["objects"]["namespaces"].as_u64().unwrap() >= 4, "{world}");
    let told = &world["identities"][0];
    assert_eq!(told["credentials"][0]["subject"], "s");
    assert_eq!(told["roles"][0]["role"], "Reader");
    assert_eq!(world["other_assignments"], 0);
}

#[tokio::test]
async fn an_operation_shows_its_id_in_the_other_byte_order() {
    let served = Served::start(seed(), |_| {}).await;
    let path = format!(
        "/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.ContainerService/\
         managedClusters/aks-new?api-version=2025-10-01"
    );
    let body = json!({ "location": "westeurope", "properties": {
        "agentPoolProfiles": [{ "name": "one", "osDiskSizeGB": 0, "vmSize": "Standard_D2s_v5" }] } });
    let answer = with_body(served.arm("PUT", &path), &body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let url = answer.headers()["azure-asyncoperation"].to_str().unwrap().to_owned();
    let cluster: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(cluster["properties"]["agentPoolProfiles"][0]["osDiskSizeGB"], 128);
    let id = url.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned();
    let request = served.client.get(&url).bearer_auth(&served.token);
    let (_, status) = answered(request).await.unwrap();
    let shown: uuid::Uuid = status["name"].as_str().unwrap().parse().unwrap();
    assert_eq!(uuid::Uuid::from_bytes(shown.to_bytes_le()).to_string(), id);
}

#[tokio::test]
async fn an_administrator_may_act_as_an_account_which_may_not_act_as_others() {
    let served = Served::start(seed(), |_| {}).await;
    let ask = |headers: &'static [(&'static str, &'static str)], method, path| {
        let request = kube(&served, method, path);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    };
    let account: &[_] = &[("impersonate-user", "system:serviceaccount:shop:api")];
    let pods = "/api/v1/namespaces/shop/pods";
    let (status, body) = answered(ask(account, "GET", pods)).await.unwrap();
    assert_eq!(status, 403, "{body}");
    let said = body["message"].as_str().unwrap();
    assert!(said.contains("User \"system:serviceaccount:shop:api\" cannot list"), "{said}");
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": { "verb": "list", "resource": "pods", "namespace": "shop" } },
    });
    let (status, review) = answered(with_body(ask(account, "POST", path), &body)).await.unwrap();
    assert_eq!((status, &review["status"]["allowed"]), (201, &json!(false)));
    let group: &[_] = &[("impersonate-group", "system:masters")];
    assert_eq!(answered(ask(group, "GET", pods)).await.unwrap().0, 400);
}
