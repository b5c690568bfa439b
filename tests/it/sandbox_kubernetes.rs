//! The emulated Kubernetes API server: requests through its router, and the `kube` crate over HTTP.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, header},
};
use jsonwebtoken::{DecodingKey, jwk::Jwk};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use widentity::sandbox::{
    ClusterRef, Context, Settings, WebhookLayout,
    clock::{Clock, Ids},
    kubernetes::{Kubernetes, Options, Rule, TokenRules},
    store::{Store, Write},
    tokens,
};

/// An emulated cluster on a clock that moves only by hand.
struct World {
    ctx: Arc<Context>,
    kube: Arc<Kubernetes>,
    cluster: ClusterRef,
}

/// An answer: status, body, and headers where a test needs them.
struct Answer {
    code: u16,
    body: Value,
}

const APPLY: &str = "application/apply-patch+yaml";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

impl World {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let clock = Clock::manual("2026-01-01T00:00:00Z".parse().unwrap());
        let ctx = Arc::new(Context::new(Store::in_memory(), clock, Ids::new(1, 0), settings));
        let cluster = ClusterRef {
            name: "prod".into(),
            id: "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/prod".into(),
        };
        let kube = Kubernetes::new(Arc::clone(&ctx), cluster.clone());
        let admin = TokenRules {
            user: "admin".into(),
            groups: vec!["system:masters".into()],
            ..TokenRules::default()
        };
        kube.set_token("admin", &admin).unwrap();
        Self { ctx, kube, cluster }
    }

    /// What ARM says about the cluster from now on.
    fn set_arm(&self, issuer_on: bool, workload_identity: bool) {
        let record = json!({"issuer": "https://westeurope.oic.prod-aks.azure.com/t/u/", "properties": {
            "oidcIssuerProfile": {"enabled": issuer_on},
            "securityProfile": {"workloadIdentity": {"enabled": workload_identity}}}});
        let key = format!("arm/{}", self.cluster.key());
        self.ctx.store.commit(vec![Write::put(key, record)]).unwrap();
    }

    /// Lets time pass in small steps, as it passes for controllers.
    fn pass(&self, time: Duration) {
        let step = Duration::from_millis(100);
        let mut left = time;
        while left > Duration::ZERO {
            self.ctx.clock.advance(step.min(left));
            left = left.saturating_sub(step);
            self.kube.reconcile();
        }
    }

    async fn send(
        &self,
        token: &str,
        method: &str,
        path: &str,
        media: &str,
        body: Value,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, media)
            .header(header::USER_AGENT, "it/1.0")
            .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) })
            .unwrap();
        self.answer(request).await
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let response = Arc::clone(&self.kube).router().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Answer { code, body: serde_json::from_slice(&bytes).unwrap_or_default() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("admin", "GET", path, "application/json", Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("admin", "POST", path, "application/json", body).await
    }

    async fn patch(&self, path: &str, media: &str, body: Value) -> Answer {
        self.send("admin", "PATCH", path, media, body).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send("admin", "DELETE", path, "application/json", Value::Null).await
    }

    async fn deploy(&self, name: &str, replicas: i64) {
        let path = "/apis/apps/v1/namespaces/default/deployments";
        let answer = self.post(path, deployment(name, replicas)).await;
        assert_eq!(answer.code, 201, "{}", answer.body);
    }

    async fn pods(&self, selector: &str) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/default/pods?labelSelector={selector}");
        self.get(&path).await.body["items"].as_array().unwrap().clone()
    }
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "app:1"}]}}}})
}

#[expect(clippy::needless_pass_by_value, reason = "called with literals")]
fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": data})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

#[tokio::test]
async fn objects_live_and_die_with_the_statuses_of_a_server() {
    let world = World::new();
    let made = world.post(MAPS, config_map(json!({"a": "1"}))).await;
    assert_eq!(made.code, 201);
    assert_eq!(made.body["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert!(made.body["metadata"].get("selfLink").is_none());
    assert_eq!(
        made.body["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:data": {".": {}, "f:a": {}}})
    );
    let again = world.post(MAPS, config_map(json!({}))).await;
    assert_eq!((again.code, again.body["reason"].as_str()), (409, Some("AlreadyExists")));
    assert_eq!(again.body["message"], "configmaps \"cm\" already exists");

    let mut stale = made.body.clone();
    stale["data"]["a"] = "2".into();
    let path = format!("{MAPS}/cm");
    let put = |body: Value| world.send("admin", "PUT", &path, "application/json", body);
    assert_eq!(put(stale.clone()).await.code, 200);
    stale["data"]["a"] = "3".into();
    let refused = put(stale).await;
    assert_eq!(refused.code, 409);
    assert_eq!(
        refused.body["message"],
        "Operation cannot be fulfilled on configmaps \"cm\": the object has been modified; please apply your changes to the latest version and try again"
    );

    let missing = world.get(&format!("{MAPS}/none")).await;
    assert_eq!(missing.code, 404);
    assert_eq!(missing.body["details"], json!({"name": "none", "kind": "configmaps"}));
    let nowhere = world.post("/api/v1/namespaces/none/configmaps", config_map(json!({}))).await;
    assert_eq!(
        (nowhere.code, nowhere.body["message"].as_str()),
        (404, Some("namespaces \"none\" not found"))
    );

    let precondition = json!({"preconditions": {"uid": "other"}});
    let kept = world.send("admin", "DELETE", &path, "application/json", precondition).await;
    assert_eq!((kept.code, kept.body["reason"].as_str()), (409, Some("Conflict")));
    let gone = world.delete(&path).await;
    assert_eq!((gone.code, gone.body["status"].as_str()), (200, Some("Success")));
    assert_eq!(world.get(&path).await.code, 404);
}

#[tokio::test]
async fn generated_names_and_dry_runs() {
    let world = World::new();
    let body = json!({"metadata": {"generateName": "x-"}});
    let dry = world.post(&format!("{MAPS}?dryRun=All"), body.clone()).await;
    assert_eq!(dry.code, 201);
    assert!(dry.body["metadata"]["name"].as_str().unwrap().starts_with("x-"));
    assert!(dry.body["metadata"].get("resourceVersion").is_none());
    let name = dry.body["metadata"]["name"].as_str().unwrap();
    assert_eq!(world.get(&format!("{MAPS}/{name}")).await.code, 404);
    let wrong = world.post(&format!("{MAPS}?dryRun=Some"), body).await;
    assert_eq!((wrong.code, wrong.body["reason"].as_str()), (422, Some("Invalid")));
}

#[tokio::test]
async fn applies_conflict_share_and_withdraw() {
    let world = World::new();
    let apply = async |manager: &str, data: Value, more: &str| {
        let path = format!("{MAPS}/cm?fieldManager={manager}{more}");
        let mut body = config_map(data);
        body.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        world.patch(&path, APPLY, body).await
    };
    assert_eq!(apply("one", json!({"a": "1", "b": "1"}), "").await.code, 201);
    let conflict = apply("two", json!({"a": "2"}), "").await;
    assert_eq!(conflict.code, 409);
    assert_eq!(
        conflict.body["message"],
        "Apply failed with 1 conflict: conflict with \"one\": .data.a"
    );
    assert_eq!(
        conflict.body["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.a"}])
    );
    assert_eq!(apply("two", json!({"b": "1"}), "").await.code, 200);
    let withdrawn = apply("one", Value::Null, "").await.body;
    assert_eq!(withdrawn["data"], json!({"b": "1"}), "b is shared, a was owned alone");
    assert_eq!(apply("three", json!({"b": "3"}), "&force=true").await.body["data"]["b"], "3");
    let managers: Vec<Value> =
        world.get(&format!("{MAPS}/cm")).await.body["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| json!([m["manager"], m["operation"]]))
            .collect();
    assert_eq!(managers, [json!(["three", "Apply"])]);

    let before = world.get(&format!("{MAPS}/cm")).await.body;
    let same = apply("three", json!({"b": "3"}), "").await.body;
    assert_eq!(before, same, "an apply that changes nothing stores nothing");

    let mut foreign = config_map(json!({"b": "9"}));
    foreign["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    let path = format!("{MAPS}/cm?fieldManager=three");
    let refused = world.patch(&path, APPLY, foreign).await;
    assert_eq!((refused.code, refused.body["reason"].as_str()), (422, Some("Invalid")));
    assert!(refused.body["message"].as_str().unwrap().contains("metadata.uid: Invalid value"));
    let mut absent = config_map(json!({"b": "9"}));
    absent["metadata"] = json!({"name": "none", "uid": "00000000-0000-0000-0000-000000000000"});
    let path = format!("{MAPS}/none?fieldManager=three");
    let refused = world.patch(&path, APPLY, absent).await;
    assert_eq!((refused.code, refused.body["reason"].as_str()), (409, Some("Conflict")));
    let nameless = world.patch(&format!("{MAPS}/cm"), APPLY, config_map(json!({}))).await;
    assert_eq!(nameless.code, 422);
}

#[tokio::test]
async fn patches_of_every_kind() {
    let world = World::new();
    world.deploy("web", 1).await;
    let path = format!("{DEPLOYMENTS}/web");
    let merged = world.patch(&path, MERGE, json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!(merged.body["metadata"]["generation"], 1);
    let side =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s:1"}]}}}});
    let strategic = world.patch(&path, STRATEGIC, side).await;
    assert_eq!(strategic.body["metadata"]["generation"], 2);
    let containers =
        strategic.body["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone();
    assert_eq!(containers.len(), 2);
    let operations = json!([{"op": "test", "path": "/metadata/uid", "value": "wrong"},
        {"op": "remove", "path": "/metadata/labels/x"}]);
    let failed = world.patch(&path, JSON_PATCH, operations).await;
    assert_eq!((failed.code, failed.body["reason"].as_str()), (422, Some("Invalid")));
    assert_eq!(
        failed.body["message"],
        "the server rejected our request due to an error in our request"
    );
    let immutable = json!({"spec": {"selector": {"matchLabels": {"app": "other"}}}});
    let refused = world.patch(&path, MERGE, immutable).await;
    assert_eq!(refused.code, 422);
    let wrong = world.patch(&path, "application/x-unknown", json!({})).await;
    assert_eq!(wrong.code, 415);
    let unknown = format!("{path}?fieldValidation=Strict");
    let strict = world.patch(&unknown, MERGE, json!({"spec": {"nonsense": 1}})).await;
    assert_eq!(strict.code, 400);
}

#[tokio::test]
async fn lists_page_consistently_and_expire() {
    let world = World::new();
    for index in 0..5 {
        let body = json!({"metadata": {"name": format!("p{index}"), "labels": {"odd": (index % 2).to_string()}}});
        assert_eq!(world.post(MAPS, body).await.code, 201);
    }
    let first = world.get(&format!("{MAPS}?limit=2")).await.body;
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    world.delete(&format!("{MAPS}/p3")).await;
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = world.get(&format!("{MAPS}?limit=10&continue={token}")).await.body;
    let names: Vec<&str> = rest["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["p1", "p2", "p3", "p4"], "as it was when the list began");
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let odd = world.get(&format!("{MAPS}?labelSelector=odd%3D1")).await.body;
    assert_eq!(odd["items"].as_array().unwrap().len(), 1);
    let single = world.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dp4")).await.body;
    assert_eq!(single["items"].as_array().unwrap().len(), 1);
    let refused = world.get(&format!("{MAPS}?fieldSelector=data.x%3D1")).await;
    assert_eq!(refused.code, 400);
    // A server that forgot the past, as after a restart.
    let restarted = World {
        kube: Kubernetes::new(Arc::clone(&world.ctx), world.cluster.clone()),
        ctx: Arc::clone(&world.ctx),
        cluster: world.cluster.clone(),
    };
    let expired = restarted.get(&format!("{MAPS}?limit=10&continue={token}")).await;
    assert_eq!((expired.code, expired.body["reason"].as_str()), (410, Some("Expired")));
    let resume = expired.body["metadata"]["continue"].as_str().unwrap();
    let rest = restarted.get(&format!("{MAPS}?continue={resume}")).await.body;
    assert_eq!(rest["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn pages_over_all_namespaces_skip_none() {
    let world = World::new();
    // `a-b/` sorts before `a/`, though `a` sorts before `a-b`.
    for namespace in ["a", "a-b"] {
        let body = json!({"metadata": {"name": namespace}});
        assert_eq!(world.post("/api/v1/namespaces", body).await.code, 201);
        for index in 0..3 {
            let path = format!("/api/v1/namespaces/{namespace}/secrets");
            let body = json!({"metadata": {"name": format!("s{index}")}});
            assert_eq!(world.post(&path, body).await.code, 201);
        }
    }
    for limit in 1..=6 {
        let (mut seen, mut path) = (Vec::new(), format!("/api/v1/secrets?limit={limit}"));
        loop {
            let page = world.get(&path).await.body;
            for item in page["items"].as_array().unwrap() {
                assert!(item.get("kind").is_none() && item.get("apiVersion").is_none(), "{item}");
                let of = |field: &str| item["metadata"][field].as_str().unwrap().to_owned();
                seen.push(format!("{}/{}", of("namespace"), of("name")));
            }
            let Some(token) = page["metadata"]["continue"].as_str() else { break };
            path = format!("/api/v1/secrets?limit={limit}&continue={token}");
        }
        let all = ["a-b/s0", "a-b/s1", "a-b/s2", "a/s0", "a/s1", "a/s2"];
        assert_eq!(seen, all, "limit={limit}");
    }
}

#[tokio::test]
async fn a_long_list_comes_whole() {
    let world = World::new();
    let filler = "x".repeat(40_000);
    for index in 0..6 {
        let body = json!({"metadata": {"name": format!("p{index}")}, "data": {"x": filler}});
        assert_eq!(world.post(MAPS, body).await.code, 201);
    }
    let list = world.get(MAPS).await.body;
    assert_eq!(list["kind"], "ConfigMapList");
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.iter().filter(|item| item["data"]["x"] == filler.as_str()).count(), 6);
}

#[tokio::test]
async fn bodies_may_be_yaml() {
    let world = World::new();
    let send = |method: &str, path: &str, media: &str, text: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, "Bearer admin")
            .header(header::CONTENT_TYPE, media)
            .body(Body::from(text.to_owned()))
            .unwrap();
        world.answer(request)
    };
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: plain\ndata: {port: \"80\", open: 'yes'}\n";
    let made = send("POST", MAPS, "application/yaml", text).await;
    assert_eq!((made.code, &made.body["data"]), (201, &json!({"port": "80", "open": "yes"})));
    let path = format!("{MAPS}/plain?fieldManager=it");
    let applied = send("PATCH", &path, APPLY, &text.replace("'yes'", "'no'")).await;
    assert_eq!((applied.code, applied.body["reason"].as_str()), (409, Some("Conflict")));
    let forced = format!("{path}&force=true");
    let applied = send("PATCH", &forced, APPLY, &text.replace("'yes'", "'no'")).await;
    assert_eq!((applied.code, &applied.body["data"]["open"]), (200, &json!("no")));
    for (method, path, media) in [("POST", MAPS, "application/yaml"), ("PATCH", &path, APPLY)] {
        let refused = send(method, path, media, "a: [1\nb: }").await;
        assert_eq!((refused.code, refused.body["reason"].as_str()), (400, Some("BadRequest")));
    }
}

#[tokio::test]
async fn a_deployment_rolls_within_its_bounds_and_can_be_undone() {
    let world = World::new();
    world.deploy("web", 4).await;
    world.pass(Duration::from_secs(2));
    let path = format!("{DEPLOYMENTS}/web");
    let ready = world.get(&path).await.body;
    assert_eq!(ready["status"]["availableReplicas"], 4);
    assert_eq!(ready["status"]["observedGeneration"], 1);
    let progressing = |d: &Value| {
        let conditions = d["status"]["conditions"].as_array().unwrap().clone();
        conditions.iter().find(|c| c["type"] == "Progressing").unwrap()["reason"].clone()
    };
    assert_eq!(progressing(&ready), "NewReplicaSetAvailable");
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "app:2"}]}}}});
    world.patch(&path, STRATEGIC, image).await;
    let mut most = 0;
    let mut least = 4;
    for _ in 0..40 {
        world.pass(Duration::from_millis(100));
        let status = world.get(&path).await.body["status"].clone();
        most = most.max(status["replicas"].as_i64().unwrap());
        least = least.min(status["availableReplicas"].as_i64().unwrap_or(0));
    }
    assert_eq!((most, least), (5, 3), "25% of four above and below");
    let done = world.get(&path).await.body;
    assert_eq!(done["status"]["updatedReplicas"], 4);
    assert_eq!(done["status"]["replicas"], 4);
    assert_eq!(done["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    assert!(
        world
            .pods("app%3Dweb")
            .await
            .iter()
            .all(|p| p["spec"]["containers"][0]["image"] == "app:2")
    );
    let undo =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "app:1"}]}}}});
    world.patch(&path, STRATEGIC, undo).await;
    world.pass(Duration::from_secs(4));
    let sets = world.get("/apis/apps/v1/namespaces/default/replicasets").await.body;
    assert_eq!(sets["items"].as_array().unwrap().len(), 2, "the first ReplicaSet is used again");
    assert_eq!(
        world.get(&path).await.body["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "3"
    );
    world.delete(&path).await;
    world.pass(Duration::from_secs(1));
    assert!(world.pods("app%3Dweb").await.is_empty(), "collected with their owners");
}

#[tokio::test]
async fn a_deployment_that_recreates_has_its_new_pods_once_the_old_are_gone() {
    let world = World::new();
    let mut body = deployment("web", 2);
    body["spec"]["strategy"] = json!({"type": "Recreate"});
    assert_eq!(world.post(DEPLOYMENTS, body).await.code, 201);
    world.pass(Duration::from_secs(2));
    let path = format!("{DEPLOYMENTS}/web");
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "app:2"}]}}}});
    world.patch(&path, STRATEGIC, image).await;
    world.pass(Duration::from_secs(5));
    let status = world.get(&path).await.body["status"].clone();
    assert_eq!((&status["updatedReplicas"], &status["availableReplicas"]), (&json!(2), &json!(2)));
    let pods = world.pods("app%3Dweb").await;
    assert_eq!(pods.len(), 2);
    assert!(pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "app:2"));
}

#[tokio::test]
async fn a_rollout_that_fails_stops_and_passes_its_deadline() {
    let world = World::new();
    world.deploy("web", 2).await;
    world.pass(Duration::from_secs(2));
    let path = format!("{DEPLOYMENTS}/web");
    let broken = json!({"spec": {"progressDeadlineSeconds": 30, "template": {"metadata": {
        "annotations": {"sandbox.widentity.dev/fail": "crash"}}}}});
    world.patch(&path, MERGE, broken).await;
    world.pass(Duration::from_secs(10));
    let status = world.get(&path).await.body["status"].clone();
    assert_eq!(status["availableReplicas"], 2, "old pods stay");
    assert_eq!(status["updatedReplicas"], 1);
    world.pass(Duration::from_secs(30));
    let status = world.get(&path).await.body["status"].clone();
    let reasons: Vec<&Value> =
        status["conditions"].as_array().unwrap().iter().map(|c| &c["reason"]).collect();
    assert!(reasons.contains(&&json!("ProgressDeadlineExceeded")), "{reasons:?}");
}

#[tokio::test]
async fn stateful_sets_roll_backwards_to_the_partition() {
    let world = World::new();
    let set = |policy: Value, image: &str| {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
            "spec": {"serviceName": "db", "replicas": 3, "updateStrategy": policy,
                "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "c", "image": image}]}}}})
    };
    let path = "/apis/apps/v1/namespaces/default/statefulsets";
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    assert_eq!(world.post(path, set(rolling.clone(), "db:1")).await.code, 201);
    world.pass(Duration::from_millis(400));
    assert_eq!(world.pods("app%3Ddb").await.len(), 2, "the second starts when the first is ready");
    world.pass(Duration::from_secs(3));
    let apply = async |body: Value| {
        let at = format!("{path}/db?fieldManager=x&force=true");
        assert_eq!(world.patch(&at, APPLY, body).await.code, 200);
        world.pass(Duration::from_secs(6));
        let pods = world.pods("app%3Ddb").await;
        pods.iter()
            .map(|p| p["spec"]["containers"][0]["image"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(apply(set(rolling, "db:2")).await, ["db:1", "db:1", "db:2"]);
    let status = world.get(&format!("{path}/db")).await.body["status"].clone();
    assert_ne!(status["currentRevision"], status["updateRevision"]);
    assert_eq!(status["updatedReplicas"], 1);
    assert_eq!(
        apply(set(json!({"type": "RollingUpdate"}), "db:2")).await,
        ["db:1", "db:1", "db:2"],
        "the partition is still set by nobody's withdrawal"
    );
}

#[tokio::test]
async fn daemon_sets_wait_for_people_on_delete() {
    let world = World::new();
    let path = "/apis/apps/v1/namespaces/default/daemonsets";
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"},
        "spec": {"updateStrategy": {"type": "OnDelete"}, "selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}},
                "spec": {"containers": [{"name": "c", "image": "a:1"}]}}}});
    assert_eq!(world.post(path, set).await.code, 201);
    world.pass(Duration::from_secs(2));
    let status = world.get(&format!("{path}/agent")).await.body["status"].clone();
    assert_eq!(
        (status["desiredNumberScheduled"].as_i64(), status["numberReady"].as_i64()),
        (Some(2), Some(2))
    );
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "a:2"}]}}}});
    world.patch(&format!("{path}/agent"), STRATEGIC, image).await;
    world.pass(Duration::from_secs(3));
    let pods = world.pods("app%3Dagent").await;
    assert!(pods.iter().all(|p| p["spec"]["containers"][0]["image"] == "a:1"));
    let name = pods[0]["metadata"]["name"].as_str().unwrap();
    world.delete(&format!("/api/v1/namespaces/default/pods/{name}")).await;
    world.pass(Duration::from_secs(2));
    let images: Vec<Value> = world
        .pods("app%3Dagent")
        .await
        .iter()
        .map(|p| p["spec"]["containers"][0]["image"].clone())
        .collect();
    assert_eq!(images.len(), 2);
    assert!(images.contains(&json!("a:2")) && images.contains(&json!("a:1")));
}

#[tokio::test]
async fn tokens_follow_the_issuer_and_verify_with_the_published_keys() {
    let world = World::new();
    let account = json!({"metadata": {"name": "api"}});
    assert_eq!(world.post(ACCOUNTS, account).await.code, 201);
    let ask = async |spec: Value| {
        let body =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        world.post(&format!("{ACCOUNTS}/api/token"), body).await
    };
    let claims = async |answer: &Answer| {
        let jwks = world.get("/openid/v1/jwks").await.body;
        let jwk: Jwk = serde_json::from_value(jwks["keys"][0].clone()).unwrap();
        let token = answer.body["status"]["token"].as_str().unwrap();
        let key = DecodingKey::from_jwk(&jwk).unwrap();
        Value::Object(tokens::verify_rs256(token, &key).unwrap())
    };
    let inner = claims(&ask(json!({})).await).await;
    assert_eq!(inner["iss"], "https://kubernetes.default.svc.cluster.local");
    world.set_arm(true, false);
    let audiences = json!({"audiences": ["api://AzureADTokenExchange"], "expirationSeconds": 600});
    let answer = ask(audiences).await;
    assert_eq!(answer.code, 201);
    assert_eq!(answer.body["status"]["expirationTimestamp"], "2026-01-01T00:10:00Z");
    let outer = claims(&answer).await;
    assert_eq!(outer["iss"], "https://westeurope.oic.prod-aks.azure.com/t/u/");
    assert_eq!(outer["sub"], "system:serviceaccount:default:api");
    assert_eq!(outer["aud"], json!(["api://AzureADTokenExchange"]));
    assert_eq!(outer["exp"].as_i64().unwrap() - outer["iat"].as_i64().unwrap(), 600);
    let discovery = world.get("/.well-known/openid-configuration").await.body;
    assert_eq!(discovery["issuer"], outer["iss"]);
    let short = ask(json!({"expirationSeconds": 599})).await;
    assert_eq!(short.code, 422);
    assert_eq!(
        short.body["message"],
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"
    );
    let nobody = world.post(&format!("{ACCOUNTS}/none/token"), json!({"spec": {}})).await;
    assert_eq!(nobody.code, 404);
    // The token of an account is the account, until it is deleted.
    let own = ask(json!({})).await.body["status"]["token"].as_str().unwrap().to_owned();
    let who = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = world.send(&own, "POST", path, "application/json", who.clone()).await;
    assert_eq!(me.body["status"]["userInfo"]["username"], "system:serviceaccount:default:api");
    // One for Entra is none for the API server.
    let federated = answer.body["status"]["token"].as_str().unwrap();
    let sent = world.send(federated, "POST", path, "application/json", who.clone()).await;
    assert_eq!(sent.code, 401);
    world.delete(&format!("{ACCOUNTS}/api")).await;
    assert_eq!(world.send(&own, "POST", path, "application/json", who).await.code, 401);
}

#[tokio::test]
async fn rights_are_checked() {
    let world = World::new();
    let rules = TokenRules {
        user: "reader".into(),
        allow: vec![Rule { verbs: vec!["get".into(), "list".into()], ..Rule::default() }],
        deny: vec![Rule { resources: vec!["secrets".into()], ..Rule::default() }],
        ..TokenRules::default()
    };
    world.kube.set_token("reader", &rules).unwrap();
    let as_reader = async |method: &str, path: &str, body: Value| {
        world.send("reader", method, path, "application/json", body).await
    };
    assert_eq!(as_reader("GET", MAPS, Value::Null).await.code, 200);
    let secrets = as_reader("GET", "/api/v1/namespaces/default/secrets", Value::Null).await;
    assert_eq!(secrets.code, 403);
    assert_eq!(
        secrets.body["message"],
        "secrets is forbidden: User \"reader\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\""
    );
    let token = as_reader("POST", &format!("{ACCOUNTS}/default/token"), json!({"spec": {}})).await;
    assert_eq!(
        token.body["message"],
        "serviceaccounts \"default\" is forbidden: User \"reader\" cannot create resource \"serviceaccounts/token\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(world.send("wrong", "GET", MAPS, "", Value::Null).await.code, 401);
    let role = json!({"metadata": {"name": "tokens"}, "rules": [{"apiGroups": [""],
        "resources": ["serviceaccounts/token"], "verbs": ["create"], "resourceNames": ["default"]}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    assert_eq!(world.post(&format!("{rbac}/roles"), role).await.code, 201);
    let binding = json!({"metadata": {"name": "tokens"}, "roleRef": {"kind": "Role", "name": "tokens"},
        "subjects": [{"kind": "User", "name": "reader"}]});
    assert_eq!(world.post(&format!("{rbac}/rolebindings"), binding).await.code, 201);
    let token = as_reader("POST", &format!("{ACCOUNTS}/default/token"), json!({"spec": {}})).await;
    assert_eq!(token.code, 201, "{}", token.body);
}

#[tokio::test]
async fn the_webhook_injects_while_the_add_on_is_on() {
    let world = World::new();
    let labelled = |dry: &str| {
        let pod = json!({"metadata": {"name": format!("p{}", dry.len()), "labels": {"azure.workload.identity/use": "true"}},
            "spec": {"serviceAccountName": "api", "containers": [{"name": "c", "image": "app:1"}]}});
        (format!("/api/v1/namespaces/default/pods{dry}"), pod)
    };
    let account = json!({"metadata": {"name": "api", "annotations": {
        "azure.workload.identity/client-id": "11111111-1111-1111-1111-111111111111"}}});
    world.post(ACCOUNTS, account).await;
    let create = async |dry: &str| {
        let (path, pod) = labelled(dry);
        world.post(&path, pod).await
    };
    let environment = |pod: &Value| pod["spec"]["containers"][0]["env"].clone();
    assert!(environment(&create("?dryRun=All").await.body).is_null());
    world.set_arm(true, true);
    let dry = create("?dryRun=All").await.body;
    assert_eq!(environment(&dry)[0]["value"], "11111111-1111-1111-1111-111111111111");
    let names: Vec<&str> = dry["spec"]["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert!(names[0].starts_with("kube-api-access-"), "{names:?}");
    assert!(names[1].starts_with("azure-workload-identity-reserved-"), "{names:?}");
    let webhook = world.get("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/azure-wi-webhook-mutating-webhook-configuration").await;
    assert_eq!(webhook.body["webhooks"][0]["clientConfig"]["service"]["namespace"], "kube-system");
    world.kube.set_options(&Options { webhook_down: true, ..Options::default() }).unwrap();
    let down = create("").await;
    assert_eq!((down.code, down.body["reason"].as_str()), (500, Some("InternalError")));
    assert!(down.body["message"].as_str().unwrap().starts_with(
        "Internal error occurred: failed calling webhook \"mutation.azure-workload-identity.io\""
    ));
    world.set_arm(true, false);
    assert!(environment(&create("").await.body).is_null());
    let gone =
        world.get("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations").await;
    assert!(gone.body["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_missing_account_stops_pods_and_shows_on_the_deployment() {
    let settings = Settings { webhook_layout: WebhookLayout::V1_5, ..Settings::default() };
    let world = World::with(settings);
    let mut body = deployment("web", 1);
    body["spec"]["template"]["spec"]["serviceAccountName"] = "missing".into();
    world.post(DEPLOYMENTS, body).await;
    let status = world.get(&format!("{DEPLOYMENTS}/web")).await.body["status"].clone();
    let failure = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == "ReplicaFailure")
        .unwrap()
        .clone();
    assert_eq!(failure["reason"], "FailedCreate");
    assert!(failure["message"].as_str().unwrap().contains("serviceaccount \"missing\" not found"));
    world.pass(Duration::from_mins(10));
    let events = world.get("/api/v1/namespaces/default/events").await.body["items"].clone();
    let refused = |event: &&Value| event["reason"] == "FailedCreate";
    let event = events.as_array().unwrap().iter().find(refused).unwrap().clone();
    let tries = event["count"].as_i64().unwrap();
    assert!((70..=80).contains(&tries), "every 8 s at last: {tries}");
    world.post(ACCOUNTS, json!({"metadata": {"name": "missing"}})).await;
    world.pass(Duration::from_secs(3));
    let status = world.get(&format!("{DEPLOYMENTS}/web")).await.body["status"].clone();
    assert_eq!(status["availableReplicas"], 1);
}

#[tokio::test]
async fn a_rollout_without_a_status_subresource_comes_to_rest() {
    let world = World::new();
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "rollouts.argoproj.io"},
        "spec": {"group": "argoproj.io", "scope": "Namespaced",
            "names": {"kind": "Rollout", "plural": "rollouts"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(world.post(definitions, definition).await.code, 201);
    let rollouts = "/apis/argoproj.io/v1alpha1/namespaces/default/rollouts";
    let rollout = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "app:1"}]}}}});
    assert_eq!(world.post(rollouts, rollout).await.code, 201);
    world.pass(Duration::from_secs(5));
    let web = format!("{rollouts}/web");
    let rested = world.get(&web).await.body;
    assert_eq!(rested["status"]["phase"], "Healthy");
    let generation = rested["metadata"]["generation"].as_i64().unwrap();
    assert!(generation < 20, "{generation} generations");
    assert_eq!(rested["status"]["observedGeneration"], generation.to_string());
    world.pass(Duration::from_mins(1));
    assert_eq!(world.get(&web).await.body["metadata"], rested["metadata"], "it does not move");
}

#[tokio::test]
async fn definitions_serve_their_kinds_and_rollouts_roll() {
    let world = World::new();
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "rollouts.argoproj.io"},
        "spec": {"group": "argoproj.io", "scope": "Namespaced",
            "names": {"kind": "Rollout", "plural": "rollouts", "shortNames": ["ro"]},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas"}],
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let rollouts = "/apis/argoproj.io/v1alpha1/namespaces/default/rollouts";
    assert_eq!(world.get(rollouts).await.code, 404);
    assert_eq!(
        world
            .post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
            .await
            .code,
        201
    );
    let mut idle = deployment("web", 0);
    idle["spec"]["replicas"] = 0.into();
    world.post(DEPLOYMENTS, idle).await;
    let rollout = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    assert_eq!(world.post(rollouts, rollout).await.code, 201);
    world.pass(Duration::from_secs(2));
    let made = world.get(&format!("{rollouts}/web")).await.body;
    assert_eq!(made["status"]["phase"], "Healthy");
    assert_eq!(made["status"]["observedGeneration"], "1");
    assert_eq!(world.pods("app%3Dweb").await.len(), 2);
    let groups = world.get("/apis/argoproj.io/v1alpha1").await.body;
    assert_eq!(groups["resources"][0]["kind"], "Rollout");
    let refused = world.patch(&format!("{rollouts}/web"), STRATEGIC, json!({})).await;
    assert_eq!(refused.code, 415, "custom resources take no strategic merge patch");
}

#[tokio::test]
async fn an_old_server_has_the_beta_cron_job() {
    let settings = Settings { kubernetes_version: "1.20.2".into(), ..Settings::default() };
    let world = World::with(settings);
    assert_eq!(world.get("/apis/batch/v1/namespaces/default/cronjobs").await.code, 404);
    let path = "/apis/batch/v1beta1/namespaces/default/cronjobs";
    let job = json!({"apiVersion": "batch/v1beta1", "kind": "CronJob", "metadata": {"name": "n"},
        "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "j:1"}]}}}}}});
    assert_eq!(world.post(path, job).await.code, 201);
    let made = world.get(&format!("{path}/n")).await.body;
    assert_eq!(made["apiVersion"], "batch/v1beta1");
    assert_eq!(made["spec"]["concurrencyPolicy"], "Allow");
}

#[tokio::test]
async fn tables_and_metadata_are_negotiated() {
    let world = World::new();
    world.deploy("web", 1).await;
    world.pass(Duration::from_mins(1));
    let ask = async |accept: &str| {
        let request = Request::builder()
            .uri(DEPLOYMENTS)
            .header(header::AUTHORIZATION, "Bearer admin")
            .header(header::ACCEPT, accept)
            .body(Body::empty())
            .unwrap();
        world.answer(request).await.body
    };
    let table = ask("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    let names: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["Name", "Ready", "Up-to-date", "Available", "Age", "Containers", "Images", "Selector"]
    );
    assert_eq!(
        table["rows"][0]["cells"],
        json!(["web", "1/1", 1, 1, "60s", "c", "app:1", "app=web"])
    );
    let metadata = ask("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!(metadata["kind"], "PartialObjectMetadataList");
    assert!(metadata["items"][0].get("spec").is_none());
}

#[tokio::test]
async fn namespaces_take_everything_with_them() {
    let world = World::new();
    assert_eq!(
        world.post("/api/v1/namespaces", json!({"metadata": {"name": "x"}})).await.code,
        201
    );
    assert_eq!(world.get("/api/v1/namespaces/x/serviceaccounts/default").await.code, 200);
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    world.post("/api/v1/namespaces/x/configmaps", held).await;
    let dying = world.delete("/api/v1/namespaces/x").await.body;
    assert_eq!(dying["status"]["phase"], "Terminating");
    let refused =
        world.post("/api/v1/namespaces/x/configmaps", json!({"metadata": {"name": "new"}})).await;
    assert_eq!(refused.code, 403);
    let free = json!({"metadata": {"finalizers": null}});
    world.patch("/api/v1/namespaces/x/configmaps/held", MERGE, free).await;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.get("/api/v1/namespaces/x").await.code, 404);
}

/// The server on a loopback port, for clients that need a connection.
async fn serve(world: &World) -> kube::Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Arc::clone(&world.kube).router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
    config.auth_info.token = Some("admin".to_owned().into());
    kube::Client::try_from(config).unwrap()
}

#[tokio::test]
async fn the_kube_crate_watches_and_applies() {
    use futures::StreamExt as _;
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
    use kube::api::{Api, ListParams, Patch, PatchParams, WatchEvent, WatchParams};

    let world = World::new();
    let client = serve(&world).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut events =
        maps.watch(&WatchParams::default().labels("app=web"), &start).await.unwrap().boxed();
    let body = |app: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cm", "labels": {"app": app}}, "data": {"a": app}})
    };
    let parameters = PatchParams::apply("it");
    maps.patch("cm", &parameters, &Patch::Apply(body("web"))).await.unwrap();
    maps.patch("cm", &parameters, &Patch::Apply(body("other"))).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(match events.next().await.unwrap().unwrap() {
            WatchEvent::Added(o) => format!("added {}", o.data.unwrap()["a"]),
            WatchEvent::Deleted(o) => format!("deleted {}", o.data.unwrap()["a"]),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(seen, ["added web", "deleted web"], "it left the selection");

    let deployments: Api<Deployment> = Api::default_namespaced(client);
    deployments
        .patch("web", &PatchParams::apply("it"), &Patch::Apply(deployment("web", 3)))
        .await
        .unwrap();
    let scale = deployments.get_scale("web").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(3));
    let conflict = deployments
        .patch("web", &PatchParams::apply("other"), &Patch::Apply(deployment("web", 1)))
        .await
        .unwrap_err();
    let kube::Error::Api(status) = conflict else { panic!("{conflict}") };
    assert_eq!(status.code, 409);
    let expired = maps.watch(&WatchParams::default(), "1").await;
    // Version 1 is older than what a restarted server remembers, but not than a fresh one.
    assert!(expired.is_ok());
}
