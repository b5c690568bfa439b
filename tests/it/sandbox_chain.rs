//! The sandbox's services together: a cluster's token, Entra, ARM, and one world behind another.

use std::{path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use widentity::sandbox::{
    ClusterRef, Options, Place, Running, Sandbox, Seed, SeedCluster, SeedDeployment,
    external::External,
};

const SUB: &str = "00000000-0000-4000-8000-00000000000a";
const AUDIENCE: &str = "api://AzureADTokenExchange";

fn seed(name: &str, on: bool) -> Seed {
    Seed {
        clusters: vec![SeedCluster {
            cluster: ClusterRef { name: name.into(), id: cluster_id(name) },
            location: String::new(),
            oidc_issuer: on,
            workload_identity: on,
            entra: false,
            namespaces: vec!["empty".into()],
            deployments: vec![SeedDeployment {
                namespace: "shop".into(),
                name: "api".into(),
                service_account: "api".into(),
                replicas: 1,
                labels: std::collections::BTreeMap::new(),
            }],
            objects: vec![json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": "api", "namespace": "shop" },
            })],
        }],
        resource_groups: vec![format!("/subscriptions/{SUB}/resourceGroups/rg-id")],
        ..Seed::default()
    }
}

fn cluster_id(name: &str) -> String {
    format!(
        "/subscriptions/{SUB}/resourceGroups/rg-aks/providers/Microsoft.ContainerService/managedClusters/aks-{name}"
    )
}

async fn start(directory: &Path, seed: Seed, external: Vec<External>) -> Running {
    std::fs::create_dir_all(directory).unwrap();
    let mut options = Options::new(Place::Memory(directory.to_owned()), seed);
    options.settings.subscription = SUB.parse().unwrap();
    options.settings.delays.fic = Duration::ZERO;
    options.external = external;
    Sandbox::start(options).await.unwrap()
}

fn client(running: &Running) -> Client {
    let ca = std::fs::read(&running.ready().ca_file).unwrap();
    Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
        .no_proxy()
        .build()
        .unwrap()
}

/// A client of a cluster by the kubeconfig that the sandbox wrote.
async fn kubernetes(running: &Running, name: &str) -> kube::Client {
    let path = &running.ready().kubeconfigs[name];
    let file = kube::config::Kubeconfig::read_from(path).unwrap();
    let options =
        kube::config::KubeConfigOptions { context: Some(name.into()), ..Default::default() };
    let config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

async fn ask(client: &kube::Client, method: Method, path: &str, body: Value) -> Value {
    let request = hyper::Request::builder().method(method.as_str()).uri(path);
    let request = request.header("content-type", "application/json");
    client.request(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
}

async fn account_token(client: &kube::Client) -> String {
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": { "audiences": [AUDIENCE], "expirationSeconds": 600 },
    });
    let path = "/api/v1/namespaces/shop/serviceaccounts/api/token";
    let answer = ask(client, Method::POST, path, body).await;
    answer["status"]["token"].as_str().unwrap().to_owned()
}

async fn token(running: &Running, client: &Client, credential: &str) -> Value {
    let ready = running.ready();
    let url = format!("{}/{}/oauth2/v2.0/token", ready.authority, ready.tenant);
    let form = format!(
        "grant_type=client_credentials&scope=https://management.azure.com/.default&{credential}"
    );
    let kind = "application/x-www-form-urlencoded";
    let answer = client.post(url).header("content-type", kind).body(form).send().await.unwrap();
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

/// Makes an identity that trusts the cluster's account, and exchanges the account's token.
async fn exchange(running: &Running, cluster: &str, account_token: &str) -> Value {
    let http = client(running);
    let ready = running.ready();
    let secret = format!("client_id={}&client_secret={}", ready.client_id, ready.client_secret);
    let operator =
        token(running, &http, &secret).await["access_token"].as_str().unwrap().to_owned();
    let arm = async |method: Method, path: String, body: Value| -> Value {
        let url = format!("{}{path}", ready.resource_manager);
        let request = http.request(method, url).bearer_auth(&operator).body(body.to_string());
        serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap()
    };
    let path = format!("{}?api-version=2025-10-01", cluster_id(cluster));
    let shown = arm(Method::GET, path, Value::Null).await;
    let issuer = &shown["properties"]["oidcIssuerProfile"]["issuerURL"];
    assert_eq!(shown["properties"]["securityProfile"]["workloadIdentity"]["enabled"], true);
    let identity = format!(
        "/subscriptions/{SUB}/resourceGroups/rg-id/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-a"
    );
    let path = format!("{identity}?api-version=2023-01-31");
    let made = arm(Method::PUT, path, json!({ "location": "westeurope" })).await;
    let path = format!("{identity}/federatedIdentityCredentials/one?api-version=2023-01-31");
    arm(
        Method::PUT,
        path,
        json!({ "properties": {
            "issuer": issuer, "subject": "system:serviceaccount:shop:api", "audiences": [AUDIENCE],
        }}),
    )
    .await;
    let credential = format!(
        "client_id={}&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion={account_token}",
        made["properties"]["clientId"].as_str().unwrap()
    );
    token(running, &http, &credential).await
}

#[tokio::test]
async fn a_cluster_token_becomes_an_access_token() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), seed("one", true), Vec::new()).await;
    let cluster = kubernetes(&running, "one").await;
    let path = "/apis/apps/v1/namespaces/shop/deployments/api";
    let deployment = ask(&cluster, Method::GET, path, Value::Null).await;
    assert_eq!(deployment["spec"]["template"]["spec"]["serviceAccountName"], "api");
    let answer = exchange(&running, "one", &account_token(&cluster).await).await;
    assert!(answer["access_token"].is_string(), "{answer}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_real_api_server_stands_behind_a_cluster() {
    // The API server of one sandbox plays the real one: this side knows only its kubeconfig.
    let directory = tempfile::tempdir().unwrap();
    let inner = start(&directory.path().join("inner"), seed("inner", true), Vec::new()).await;
    let kubeconfig = inner.ready().kubeconfigs["inner"].clone();
    let external = External { name: "outer".into(), kubeconfig };
    let outer = start(&directory.path().join("outer"), seed("outer", false), vec![external]).await;
    let cluster = kubernetes(&inner, "inner").await;
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/azure-wi-webhook-mutating-webhook-configuration";
    let registered = ask(&cluster, Method::GET, path, Value::Null).await;
    let url = registered["webhooks"][0]["clientConfig"]["url"].as_str().unwrap();
    let http = client(&outer);
    let pod = json!({ "metadata": {}, "spec": { "serviceAccountName": "api", "containers": [{ "name": "a" }] } });
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": { "uid": "u", "namespace": "shop", "object": pod },
    });
    let request =
        http.post(url).header("content-type", "application/json").body(review.to_string());
    let answer: Value =
        serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(
        (&answer["response"]["allowed"], &answer["response"]["uid"]),
        (&json!(true), &json!("u"))
    );
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let answer = exchange(&outer, "outer", &account_token(&cluster).await).await;
    assert!(answer["access_token"].is_string(), "{answer}");
    outer.stop().await.unwrap();
    let request = hyper::Request::get(path).body(Vec::new()).unwrap();
    assert!(cluster.request::<Value>(request).await.is_err(), "the registration was taken back");
    inner.stop().await.unwrap();
}

#[tokio::test]
async fn a_cluster_made_by_a_client_has_an_api_server_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path(), seed("prod", true), Vec::new()).await;
    let ready = running.ready();
    let client = client(&running);
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}\
         &scope=https://management.azure.com/.default",
        ready.client_id, ready.client_secret
    );
    let token = client
        .post(format!("{}/{}/oauth2/v2.0/token", ready.authority, ready.tenant))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    let read = async |request: reqwest::RequestBuilder| -> Value {
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    };
    let token = read(token).await["access_token"].as_str().unwrap().to_owned();
    let arm = |method: Method, path: &str| {
        let url = format!("{}{path}?api-version=2025-05-01", ready.resource_manager);
        client.request(method, url).bearer_auth(&token).header("content-type", "application/json")
    };
    let body = json!({ "location": "westeurope", "properties": {
        "dnsPrefix": "late", "agentPoolProfiles": [{ "name": "one", "mode": "System" }] } });
    read(arm(Method::PUT, &cluster_id("late")).body(body.to_string())).await;
    let user = format!("{}/listClusterUserCredential", cluster_id("late"));
    let given = read(arm(Method::POST, &user)).await;
    let text = given["kubeconfigs"][0]["value"].as_str().unwrap();
    let text = String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap();
        line.trim().to_owned()
    };
    let url = format!("{}/api/v1/namespaces/default/serviceaccounts", value("server:"));
    let made = read(client.get(url).bearer_auth(value("token:"))).await;
    assert_eq!(made["items"][0]["metadata"]["name"], "default");
    running.stop().await.unwrap();
}
