//! Requests that nobody would write, against ARM, Entra and Kubernetes: no panic, no 500 that the
//! service does not document, always an error in the service's own shape.
//!
//! Each round takes a good request and damages it; the damage follows from a fixed seed.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;
use widentity::sandbox::{
    ClusterRef, Context, Seed, SeedCluster, Settings, arm,
    clock::{Clock, Ids},
    kubernetes::{Kubernetes, TokenRules},
    store::Store,
};

use crate::support::arm::Served;

const SUB: &str = "00000000-0000-4000-8000-00000000000a";
const GUID: &str = "6f9619ff-8b86-4011-b42d-00c04fc964ff";
const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";

/// `SplitMix64`: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.roll(from.len())]
    }
}

#[derive(Clone, Debug)]
struct Shot {
    method: String,
    path: String,
    media: String,
    body: Vec<u8>,
}

impl Shot {
    fn new(method: &str, path: impl Into<String>, media: &str, body: &Value) -> Self {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        Self { method: method.into(), path: path.into(), media: media.into(), body }
    }
}

const WORDS: &[&str] = &[
    "",
    ".",
    "..",
    "%00",
    "%ff",
    "%2F",
    "%",
    "%zz",
    "a%20b",
    "%F0%9F%92%A9",
    "~options",
    "-",
    "watch",
    "status",
    "subscriptions",
    "providers",
    "namespaces",
    "*",
    "$skiptoken",
    "'",
    "\"",
    "0123456789012345678901234567890123456789012345678901234567890123456789",
];
const QUERIES: &[&str] = &[
    "limit=-1",
    "limit=x",
    "limit=1",
    "limit=99999999999999999999",
    "continue=x",
    "continue=e30",
    "resourceVersion=x",
    "resourceVersion=0",
    "resourceVersion=1",
    "resourceVersionMatch=Exact",
    "resourceVersionMatch=x",
    "labelSelector=a%20in%20(",
    "labelSelector=%3D",
    "labelSelector=!a",
    "fieldSelector=a%3Db",
    "fieldSelector=metadata.name%3Dx",
    "fieldValidation=Strict",
    "dryRun=All",
    "dryRun=x",
    "force=true",
    "fieldManager=it",
    "fieldManager=",
    "gracePeriodSeconds=x",
    "pretty=true",
    "propagationPolicy=Foreground",
    "propagationPolicy=x",
    "api-version=",
    "api-version=x",
    "api-version=2023-01-31",
    "%24filter=x",
    "%24filter=principalId%20eq%20'",
    "%24skiptoken=x",
    "%24skiptoken=%FF",
    "%24top=0",
    "%24top=-1",
    "%24top=99999999999999999999",
    "=",
    "&&",
    "a=%FF",
    "timeoutSeconds=x",
    "includeObject=x",
    "container=x",
];
const METHODS: &[&str] = &["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "X"];
const MEDIA: &[&str] = &[
    "",
    "application/json",
    "application/yaml",
    "text/plain",
    "application/octet-stream",
    "x",
    "a/b;c",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/x-www-form-urlencoded",
];

fn odd(dice: &mut Dice) -> Value {
    let deep = (0..100).fold(Value::Null, |inner, _| json!([inner]));
    let odds = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(i64::MAX),
        json!(1e300),
        json!(""),
        json!("\u{0}\u{1f4a9}"),
        json!("x".repeat(300)),
        json!("99999999999999999999%"),
        json!([]),
        json!({}),
        json!([null]),
        json!([{}, {}]),
        json!({"": {"a": [1, "b"]}}),
        json!({"$patch": "delete", "$retainKeys": [1]}),
        deep,
    ];
    odds[dice.roll(odds.len())].clone()
}

/// Replaces, removes, adds or renames something somewhere in a document.
fn damage(dice: &mut Dice, value: &mut Value) {
    let deeper = dice.roll(4) > 0;
    match value {
        Value::Object(fields) if !fields.is_empty() && deeper => {
            let key = fields.keys().nth(dice.roll(fields.len())).unwrap().clone();
            match dice.roll(8) {
                0 => drop(fields.remove(&key)),
                1 => {
                    let moved = fields.remove(&key).unwrap();
                    fields.insert(dice.pick(WORDS).to_owned(), moved);
                }
                2 => drop(fields.insert(dice.pick(WORDS).to_owned(), odd(dice))),
                _ => damage(dice, &mut fields[&key]),
            }
        }
        Value::Array(items) if !items.is_empty() && deeper => {
            let at = dice.roll(items.len());
            match dice.roll(4) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => damage(dice, &mut items[at]),
            }
        }
        other => *other = odd(dice),
    }
}

fn damaged(dice: &mut Dice, good: &Shot) -> Shot {
    let mut shot = good.clone();
    for _ in 0..=dice.roll(3) {
        match dice.roll(8) {
            0 => shot.method = dice.pick(METHODS).into(),
            1 => shot.media = dice.pick(MEDIA).into(),
            2 => {
                let (path, query) = shot.path.split_once('?').unwrap_or((&shot.path, ""));
                let mut segments: Vec<&str> = path.split('/').collect();
                let at = 1 + dice.roll(segments.len() - 1);
                match dice.roll(3) {
                    0 => drop(segments.remove(at)),
                    1 => segments.insert(at, dice.pick(WORDS)),
                    _ => segments[at] = dice.pick(WORDS),
                }
                shot.path = format!("/{}?{query}", segments.join("/").trim_start_matches('/'));
            }
            3 => {
                let joint = if shot.path.contains('?') { '&' } else { '?' };
                shot.path = format!("{}{joint}{}", shot.path, dice.pick(QUERIES));
            }
            4 if !shot.body.is_empty() => {
                let at = dice.roll(shot.body.len());
                match dice.roll(3) {
                    0 => shot.body.truncate(at),
                    1 => shot.body[at] = u8::try_from(dice.roll(256)).unwrap(),
                    _ => shot.body.insert(at, b'{'),
                }
            }
            _ => {
                if let Ok(mut value) = serde_json::from_slice(&shot.body) {
                    damage(dice, &mut value);
                    shot.body = value.to_string().into_bytes();
                }
            }
        }
    }
    shot
}

struct Answer {
    status: u16,
    /// `None` for a stream that does not end by itself.
    body: Option<Vec<u8>>,
}

/// Sends a request to a router of its own task, so that a panic is an answer too. `None` where HTTP
/// itself has no such request.
async fn send(router: &Router, token: &str, shot: &Shot) -> Option<Result<Answer, String>> {
    let request = Request::builder()
        .method(shot.method.as_str())
        .uri(&shot.path)
        .header(header::HOST, "localhost")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, &shot.media)
        .header(header::USER_AGENT, "it/1.0")
        .body(Body::from(shot.body.clone()))
        .ok()?;
    let router = router.clone();
    let response = tokio::spawn(async move { router.oneshot(request).await.unwrap() });
    let response = match response.await {
        Ok(response) => response,
        Err(panic) => return Some(Err(panic.to_string())),
    };
    let status = response.status().as_u16();
    let stream = shot.path.contains("watch") && status == 200;
    let body = if stream {
        None
    } else {
        Some(axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec())
    };
    Some(Ok(Answer { status, body }))
}

/// Plays good requests and damaged ones, and has `fits` judge every answer.
async fn play(
    router: &Router,
    token: &str,
    seed: u64,
    rounds: usize,
    good: &[Shot],
    fits: impl Fn(&Shot, u16, &Value, &str) -> bool,
) {
    let mut dice = Dice(seed);
    let mut refused = 0;
    // One request for each way to fail: a run tells all that is wrong.
    let mut failed: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..rounds {
        let shot = &good[round % good.len()];
        let shot = if dice.roll(6) == 0 { shot.clone() } else { damaged(&mut dice, shot) };
        let body = String::from_utf8_lossy(&shot.body);
        let shown = format!("{} {} ({}) {body}", shot.method, shot.path, shot.media);
        let answer = match send(router, token, &shot).await {
            None => continue,
            Some(Ok(answer)) => answer,
            Some(Err(panic)) => {
                let way = panic.split_once("message").map_or("", |(_, message)| message);
                failed.entry(way.to_owned()).or_insert(shown);
                continue;
            }
        };
        let Some(bytes) = answer.body else { continue };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        let head = shot.method == "HEAD";
        if !head && answer.status >= 400 && !fits(&shot, answer.status, &body, &text) {
            let way = format!("{} {}", answer.status, text.chars().take(60).collect::<String>());
            failed.entry(way).or_insert(shown);
        }
        refused += usize::from(answer.status >= 400);
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(refused > rounds / 4 && refused < rounds, "{refused} of {rounds} refused");
}

fn cluster(name: &str) -> ClusterRef {
    let id = format!(
        "/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/{name}"
    );
    ClusterRef { name: name.into(), id }
}

#[tokio::test]
async fn arm_answers_damaged_requests_as_azure_does() {
    let seed = Seed {
        clusters: vec![SeedCluster {
            cluster: cluster("prod"),
            location: String::new(),
            oidc_issuer: false,
            workload_identity: false,
            entra: false,
            namespaces: Vec::new(),
            deployments: Vec::new(),
            objects: Vec::new(),
        }],
        resource_groups: vec![format!("/subscriptions/{SUB}/resourceGroups/rg")],
        ..Seed::default()
    };
    let world = Served::start(seed, |options| {
        options.settings.subscription = SUB.parse().unwrap();
        options.settings.delays.fic_write = std::time::Duration::ZERO;
    })
    .await;
    let group = format!("/subscriptions/{SUB}/resourceGroups/rg");
    let identity =
        format!("{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-a");
    let fic = format!("{identity}/federatedIdentityCredentials");
    let msi = "api-version=2023-01-31";
    let roles = format!("{group}/providers/Microsoft.Authorization");
    let auth = "api-version=2022-04-01";
    let aks = format!("{}?api-version=2025-05-01", cluster("prod").id);
    let definition =
        format!("/subscriptions/{SUB}/providers/Microsoft.Authorization/roleDefinitions/{READER}");
    let json_body = "application/json";
    let shot = |method: &str, path: String, body: Value| Shot::new(method, path, json_body, &body);
    let good = [
        shot(
            "PUT",
            format!("{identity}?{msi}"),
            json!({"location": "westeurope", "tags": {"a": "b"}}),
        ),
        shot("GET", format!("{identity}?{msi}"), Value::Null),
        shot("PATCH", format!("{identity}?{msi}"), json!({"tags": {"a": "c"}})),
        shot(
            "PUT",
            format!("{fic}/fic-a?{msi}"),
            json!({"properties": {"issuer": "https://i/",
            "subject": "system:serviceaccount:a:b", "audiences": ["api://AzureADTokenExchange"]}}),
        ),
        shot("GET", format!("{fic}?{msi}&%24top=1"), Value::Null),
        shot(
            "PUT",
            format!("{roles}/roleAssignments/{GUID}?{auth}"),
            json!({"properties": {
            "roleDefinitionId": definition, "principalId": GUID, "principalType": "ServicePrincipal"}}),
        ),
        shot("GET", format!("{roles}/roleAssignments?{auth}&%24filter=atScope()"), Value::Null),
        shot(
            "GET",
            format!("{roles}/roleDefinitions?{auth}&%24filter=roleName%20eq%20'Reader'"),
            Value::Null,
        ),
        shot(
            "PUT",
            format!("{roles}/roleDefinitions/{GUID}?{auth}"),
            json!({"properties": {
            "roleName": "Mine", "assignableScopes": [group], "permissions": [{"actions": ["*/read"]}]}}),
        ),
        shot("GET", aks.clone(), Value::Null),
        shot(
            "PUT",
            aks.clone(),
            json!({"location": "westeurope", "properties": {
            "oidcIssuerProfile": {"enabled": true}, "agentPoolProfiles": [{"name": "a", "mode": "System"}],
            "securityProfile": {"workloadIdentity": {"enabled": true}}}}),
        ),
        shot("PATCH", aks, json!({"tags": {"a": "b"}})),
        shot(
            "POST",
            format!("{}/listClusterUserCredential?api-version=2025-05-01", cluster("prod").id),
            Value::Null,
        ),
        shot("PUT", format!("{group}?api-version=2021-04-01"), json!({"location": "westeurope"})),
        shot("GET", format!("/subscriptions/{SUB}/resources?api-version=2021-04-01"), Value::Null),
        shot(
            "PUT",
            format!("{group}/providers/Microsoft.KeyVault/vaults/kv?api-version=2023-07-01"),
            json!({"location": "westeurope", "properties": {"a": 1}}),
        ),
    ];
    let router = arm::router(Arc::clone(world.running.context()));
    let fits = |_: &Shot, status: u16, body: &Value, _: &str| {
        // The container service writes its own errors without the envelope.
        let error = body.get("error").unwrap_or(body);
        let text = |name: &str| error[name].as_str().is_some_and(|text| !text.is_empty());
        status < 500 && text("code") && text("message")
    };
    play(&router, &world.token, 1, 4000, &good, fits).await;
}

#[tokio::test]
async fn entra_answers_damaged_requests_as_entra_does() {
    let world = Served::start(Seed::default(), |_| {}).await;
    let ready = world.running.ready();
    let path = format!("/{}/oauth2/v2.0/token", ready.tenant);
    let form = |fields: &[(&str, &str)]| {
        let body =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        Shot {
            method: "POST".into(),
            path: path.clone(),
            media: "application/x-www-form-urlencoded".into(),
            body: body.into_bytes(),
        }
    };
    let client = ready.client_id.to_string();
    let scope = ("scope", "https://management.azure.com/.default");
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let good = [
        form(&[
            ("grant_type", "client_credentials"),
            ("client_id", &client),
            scope,
            ("client_secret", &ready.client_secret),
        ]),
        form(&[
            ("grant_type", "client_credentials"),
            ("client_id", &client),
            scope,
            ("client_assertion_type", kind),
            ("client_assertion", "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"),
        ]),
        form(&[
            ("grant_type", "client_credentials"),
            ("client_id", &client),
            scope,
            ("client_assertion_type", kind),
            ("client_assertion", &format!("{}.{}.{}", "e30", "eyJpc3MiOiJodHRwczovL3gvIn0", "x")),
        ]),
        form(&[("grant_type", "password"), ("client_id", "x"), ("scope", "x y")]),
    ];
    let tenant = ready.tenant.to_string();
    for mut shot in (0..1500).map({
        let mut dice = Dice(2);
        move |round: usize| {
            let good: &Shot = &good[round % good.len()];
            if dice.roll(6) == 0 { good.clone() } else { damaged(&mut dice, good) }
        }
    }) {
        // The path's own damage is the router's: the token endpoint is what is asked here.
        shot.path = path.clone();
        shot.method = "POST".into();
        let url = format!("{}{}", ready.authority, shot.path);
        let request = world.client.post(url).header("content-type", &shot.media);
        let answer = request.body(shot.body.clone()).send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let good = if status == 200 {
            body["access_token"].is_string()
        } else {
            matches!(status, 400 | 401)
                && body["error"].is_string()
                && body["error_codes"][0].as_u64().is_some_and(|code| {
                    let text = body["error_description"].as_str().unwrap_or_default();
                    text.starts_with(&format!("AADSTS{code}: "))
                })
                && body["trace_id"].is_string()
        };
        assert!(good, "{tenant}: {shot:?}\n-> {status} {body}");
    }
}

fn pod_spec() -> Value {
    json!({"serviceAccountName": "default", "containers": [{"name": "c", "image": "a:1",
        "env": [{"name": "A", "value": "b"}], "ports": [{"containerPort": 80}],
        "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}}]})
}

fn kubernetes_requests() -> Vec<Shot> {
    let core = "/api/v1/namespaces/default";
    let apps = "/apis/apps/v1/namespaces/default";
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()});
    let spec =
        json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    let object = |version: &str, kind: &str, name: &str, rest: Value| {
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name,
            "labels": {"app": "web"}, "annotations": {"a": "b"}}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap_or(&Map::new()).clone());
        object
    };
    let map = object("v1", "ConfigMap", "web", json!({"data": {"a": "b"}}));
    let deployment = object("apps/v1", "Deployment", "web", json!({"spec": spec}));
    let crd = object(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "things.example.com",
        json!({
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "size": {"type": "integer", "default": 1}, "names": {"type": "array",
                        "items": {"type": "string"}, "x-kubernetes-list-type": "set"}}}}}}}]}}),
    );
    let thing =
        object("example.com/v1", "Thing", "one", json!({"spec": {"size": 2, "names": ["a"]}}));
    let json_body = "application/json";
    let json_patch = "application/json-patch+json";
    let merge = "application/merge-patch+json";
    let strategic = "application/strategic-merge-patch+json";
    let apply = "application/apply-patch+yaml";
    let web = format!("{apps}/deployments/web");
    let things = "/apis/example.com/v1/namespaces/default/things";
    vec![
        Shot::new("POST", format!("{core}/configmaps"), json_body, &map),
        Shot::new("PUT", format!("{core}/configmaps/web"), json_body, &map),
        Shot::new("POST", format!("{apps}/deployments"), json_body, &deployment),
        Shot::new(
            "PATCH",
            &web,
            json_patch,
            &json!([{"op": "replace", "path": "/spec/replicas", "value": 2},
            {"op": "add", "path": "/metadata/annotations/x~1y", "value": "z"},
            {"op": "copy", "from": "/metadata/labels", "path": "/spec/template/metadata/labels"}]),
        ),
        Shot::new(
            "PATCH",
            &web,
            merge,
            &json!({"spec": {"template": {"metadata": {"annotations": {"a": null}}}}}),
        ),
        Shot::new(
            "PATCH",
            &web,
            strategic,
            &json!({"spec": {"template": {"spec": {"containers": [
            {"name": "c", "env": [{"name": "B", "value": "c"}, {"$patch": "delete", "name": "A"}]}],
            "$setElementOrder/containers": [{"name": "c"}]}}}}),
        ),
        Shot::new("PATCH", format!("{web}?fieldManager=one"), apply, &deployment),
        Shot::new("PATCH", format!("{web}?fieldManager=two&force=true"), apply, &deployment),
        Shot::new("PATCH", format!("{web}/status"), merge, &json!({"status": {"replicas": 3}})),
        Shot::new("PATCH", format!("{web}/scale"), merge, &json!({"spec": {"replicas": 1}})),
        Shot::new(
            "GET",
            format!("{apps}/deployments?limit=1&labelSelector=app%3Dweb"),
            json_body,
            &Value::Null,
        ),
        Shot::new(
            "POST",
            format!("{core}/pods"),
            json_body,
            &object("v1", "Pod", "web", json!({"spec": pod_spec()})),
        ),
        Shot::new(
            "DELETE",
            format!("{core}/pods/web"),
            json_body,
            &json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "x"}, "propagationPolicy": "Background"}),
        ),
        Shot::new(
            "POST",
            format!("{core}/pods/web/eviction"),
            json_body,
            &object("policy/v1", "Eviction", "web", Value::Null),
        ),
        Shot::new(
            "POST",
            format!("{core}/serviceaccounts"),
            json_body,
            &object("v1", "ServiceAccount", "web", Value::Null),
        ),
        Shot::new(
            "POST",
            format!("{core}/serviceaccounts/web/token"),
            json_body,
            &object(
                "authentication.k8s.io/v1",
                "TokenRequest",
                "web",
                json!({"spec": {"audiences": ["a"],
                "expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"}}}),
            ),
        ),
        Shot::new(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            json_body,
            &json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}),
        ),
        Shot::new(
            "POST",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json_body,
            &crd,
        ),
        Shot::new("POST", things, json_body, &thing),
        Shot::new("PATCH", format!("{things}/one?fieldManager=one"), apply, &thing),
        Shot::new("PATCH", format!("{things}/one"), merge, &json!({"spec": {"names": ["b", "c"]}})),
        Shot::new("GET", things, json_body, &Value::Null),
        Shot::new(
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
            json_body,
            &object(
                "rbac.authorization.k8s.io/v1",
                "Role",
                "web",
                json!({"rules": [{"apiGroups": [""], "verbs": ["get"],
                "resources": ["pods"]}]}),
            ),
        ),
        Shot::new(
            "POST",
            format!("{core}/services"),
            json_body,
            &object(
                "v1",
                "Service",
                "web",
                json!({"spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}}),
            ),
        ),
        Shot::new(
            "POST",
            "/apis/batch/v1/namespaces/default/cronjobs",
            json_body,
            &object(
                "batch/v1",
                "CronJob",
                "web",
                json!({"spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": {"spec": pod_spec()}}}}}),
            ),
        ),
        Shot::new(
            "POST",
            "/api/v1/namespaces",
            json_body,
            &object("v1", "Namespace", "other", Value::Null),
        ),
        Shot::new("DELETE", "/api/v1/namespaces/other", json_body, &Value::Null),
        Shot::new("GET", "/openapi/v3/apis/apps/v1", json_body, &Value::Null),
        Shot::new("DELETE", format!("{core}/configmaps"), json_body, &Value::Null),
    ]
}

#[tokio::test]
async fn kubernetes_answers_damaged_requests_as_a_server_does() {
    let clock = Clock::manual("2026-01-01T00:00:00Z".parse().unwrap());
    let settings = Settings::default();
    let ctx = Arc::new(Context::new(Store::in_memory(), clock, Ids::new(1, 0), settings));
    let kube = Kubernetes::new(Arc::clone(&ctx), cluster("prod"));
    let masters = vec!["system:masters".into()];
    let admin = TokenRules { user: "admin".into(), groups: masters, ..TokenRules::default() };
    kube.set_token("admin", &admin).unwrap();
    let router = kube.router();
    let fits = |shot: &Shot, status: u16, body: &Value, text: &str| {
        let message = body["message"].as_str().unwrap_or_default();
        // What a server answers with these codes, and nothing else.
        let documented = status < 500
            || (status == 504 && message.starts_with("Too large resource version"))
            // A directive that it does not know, or an item without its merge key.
            || (shot.media.starts_with("application/strategic-merge-patch") && status == 500
                && (message.starts_with("unknown patch type: ")
                    || message == "merging lists cannot yet be specified in the patch"
                    || message.contains("does not contain declared merge key")))
            || message == "resourceVersion should not be set on objects to be created"
            || message.starts_with("failed to create typed patch object");
        let shaped = body["kind"] == "Status"
            && body["apiVersion"] == "v1"
            && body["status"] == "Failure"
            && body["code"] == status;
        documented && (shaped || (status == 404 && text.starts_with("404 page not found")))
    };
    play(&router, "admin", 3, 6000, &kubernetes_requests(), fits).await;
}
