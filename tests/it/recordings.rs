//! Recorded exchanges with Azure, replayed as requests to the sandbox: status, headers and the
//! shape of bodies must be Azure's.
//!
//! The folder that `WIDENTITY_RECORDINGS` names holds JSON files with `exchanges` of `method`,
//! `uri`, `request_body`, `status`, `headers`, `response_body`. A body member `…` stands for what
//! was left out: in a request for the resource as it is now, in an answer for more members.

use std::{collections::BTreeMap, fs, io::Write as _, path::PathBuf};

use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use widentity::sandbox::{ClusterRef, Seed, SeedCluster};

use crate::support::arm::{Served, answered, json as with_body};

/// Where the sandbox may differ, as `kind place`, where `*` stands for any text, and why.
const ALLOWED: &[(&str, &str)] = &[
    ("header server", "names the software of a front end"),
    ("header set-cookie", "a gateway's cookie that no client sends back"),
    ("header content-length", "bodies may differ in length"),
    // One build of the sandbox answers every api-version that it knows with one shape.
    ("extra $.eTag", "managed clusters have an eTag since 2024"),
    ("extra *.eTag", "agent pools have an eTag since 2024"),
    ("extra $.tags", "null where a cluster has none: shown since 2024"),
    ("extra $.properties.resourceUID", "shown since 2023-10"),
    ("extra $.kind", "shown since 2024"),
    ("extra $.identity.delegatedResources", "shown since 2024"),
    ("extra $.properties.identityProfile", "shown when the nodes are there, here at once"),
];

#[tokio::test]
async fn recorded_exchanges_are_answered_as_azure_answered_them() {
    let test = "recorded_exchanges_are_answered_as_azure_answered_them";
    let folder = std::env::var_os("WIDENTITY_RECORDINGS").filter(|folder| !folder.is_empty());
    let Some(folder) = folder.map(PathBuf::from) else {
        // Past the capture of the test's output, so that a run says what it left out.
        let line = format!("skipped {test}: WIDENTITY_RECORDINGS is not set\n");
        drop(std::io::stderr().write_all(line.as_bytes()));
        return;
    };
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(!files.is_empty(), "no recording in {}", folder.display());
    let mut differences = Vec::new();
    let mut exchanges = 0;
    for path in &files {
        let recording: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let (played, found) = Replay::start(&recording).await.play(&recording).await;
        exchanges += played;
        let name = path.file_stem().unwrap_or_default().display();
        differences.extend(found.into_iter().map(|difference| format!("{name}: {difference}")));
    }
    assert!(exchanges > 0);
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// A sandbox in which one recording is played.
struct Replay {
    served: Served,
    /// Identifiers and hosts of the recording to those of this world.
    ours: BTreeMap<String, String>,
}

impl Replay {
    async fn start(recording: &Value) -> Self {
        let first = recording["exchanges"][0]["uri"].as_str().unwrap();
        let subscription = first.split('/').nth(4).unwrap().parse().unwrap();
        let served = Served::start(seed(recording), |options| {
            options.settings.subscription = subscription;
        })
        .await;
        let ours = BTreeMap::from([
            (
                "https://management.azure.com".to_owned(),
                served.running.ready().resource_manager.clone(),
            ),
            // What a recording left open.
            ("<v>".to_owned(), "2025-10-01".to_owned()),
            ("<user oid>".to_owned(), "6d97229a-391f-473a-893f-f0608b592d7c".to_owned()),
        ]);
        Self { served, ours }
    }

    /// Sends each request and returns how many, with every difference that is not allowed.
    async fn play(mut self, recording: &Value) -> (usize, Vec<String>) {
        let mut found = Vec::new();
        let exchanges = recording["exchanges"].as_array().unwrap();
        self.prepare(exchanges).await;
        for (at, exchange) in exchanges.iter().enumerate() {
            let place = format!("exchange {at} {}", exchange["method"].as_str().unwrap());
            let mut differences = Vec::new();
            self.exchange(exchange, &mut differences).await;
            differences.retain(|difference| !allowed(difference));
            found.extend(differences.into_iter().map(|text| format!("{place}: {text}")));
            // Recorded reads of a long-running operation lie apart; the last one finds it ended.
            let next = exchanges.get(at + 1).map(|next| &next["response_body"]);
            if next.is_some_and(|body| body["properties"]["provisioningState"] == "Succeeded") {
                self.served.running.context().clock.advance(std::time::Duration::from_secs(60));
            }
        }
        self.served.running.stop().await.unwrap();
        (exchanges.len(), found)
    }

    /// Makes what a recording takes for granted: the resource groups that it reads as it shows
    /// them, and the identities of whose credentials it is about.
    async fn prepare(&self, exchanges: &[Value]) {
        for exchange in exchanges {
            let url = url::Url::parse(exchange["uri"].as_str().unwrap()).unwrap();
            let parts: Vec<&str> = url.path().trim_matches('/').split('/').collect();
            let (path, version, body) = match parts.as_slice() {
                [_, _, _, _] if exchange["status"] == 200 => {
                    let shown = &exchange["response_body"];
                    let body = json!({ "location": shown["location"], "tags": shown["tags"] });
                    (url.path().to_owned(), "2021-04-01", body)
                }
                [.., "userAssignedIdentities", _, "federatedIdentityCredentials"]
                | [.., "userAssignedIdentities", _, "federatedIdentityCredentials", _] => {
                    let path = format!("/{}", parts[..8].join("/"));
                    (path, "2023-01-31", json!({ "location": "westus2" }))
                }
                _ => continue,
            };
            let request = self.served.arm("PUT", &format!("{path}?api-version={version}"));
            let (status, answer) = answered(with_body(request, &body)).await.unwrap();
            assert!(matches!(status, 200 | 201), "{status} {answer}");
        }
    }

    async fn exchange(&mut self, exchange: &Value, differences: &mut Vec<String>) {
        let method: Method = exchange["method"].as_str().unwrap().parse().unwrap();
        let url = self.substituted(exchange["uri"].as_str().unwrap());
        let mut request = self.served.client.request(method, &url).bearer_auth(&self.served.token);
        if let Some(body) = Some(&exchange["request_body"]).filter(|body| !body.is_null()) {
            let body = self.body(body, &url).await;
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.bytes().await.unwrap();
        if exchange["status"] != status {
            let text = String::from_utf8_lossy(&bytes);
            differences.push(format!("status {status}, recorded {}: {text}", exchange["status"]));
            return;
        }
        self.headers(&exchange["headers"], &headers, differences);
        let recorded = &exchange["response_body"];
        if recorded == "" {
            if !bytes.is_empty() {
                differences.push("body where there was none".to_owned());
            }
            return;
        }
        match serde_json::from_slice(&bytes) {
            Ok(ours) => {
                let excerpt = recorded.get("…").is_some();
                self.shape("$", recorded, &ours, excerpt, differences);
            }
            Err(error) => differences.push(format!("body is no JSON: {error}")),
        }
    }

    /// A request's body; `…` is filled from the resource as it is now.
    async fn body(&self, recorded: &Value, url: &str) -> Value {
        let mut text = self.substituted(&recorded.to_string());
        if recorded.get("…").is_some() {
            let now =
                self.served.client.get(url).bearer_auth(&self.served.token).send().await.unwrap();
            let mut now: Value = serde_json::from_slice(&now.bytes().await.unwrap()).unwrap();
            merge(&mut now, &serde_json::from_str(&text).unwrap());
            now.as_object_mut().unwrap().remove("…");
            text = now.to_string();
        }
        serde_json::from_str(&text).unwrap()
    }

    fn headers(&mut self, recorded: &Value, ours: &HeaderMap, differences: &mut Vec<String>) {
        for (name, value) in recorded.as_object().into_iter().flatten() {
            let value = value.as_str().unwrap();
            let Some(found) = ours.get(name).map(|found| found.to_str().unwrap()) else {
                differences.push(format!("header {name} is missing"));
                continue;
            };
            let same = match name.as_str() {
                // What is left depends on what went before.
                _ if name.starts_with("x-ms-ratelimit-remaining-") => found.parse::<u32>().is_ok(),
                // Its query is opaque to clients; the operation's id is the world's own.
                "azure-asyncoperation" => {
                    let ours = found.split('?').next().unwrap_or_default();
                    let recorded = value.split('?').next().unwrap_or_default();
                    let tail = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
                    self.ours.insert(tail(recorded), tail(ours));
                    ours == self.substituted(recorded)
                }
                _ => found == self.substituted(value),
            };
            if !same {
                differences.push(format!("header {name}: {found}, recorded {value}"));
            }
        }
    }

    /// Compares names and types of members, and the values that a client reads as words. Of an
    /// excerpt only what it shows is compared.
    fn shape(
        &self,
        place: &str,
        recorded: &Value,
        ours: &Value,
        excerpt: bool,
        differences: &mut Vec<String>,
    ) {
        match (recorded, ours) {
            (Value::Object(recorded), Value::Object(ours)) => {
                for (name, value) in recorded.iter().filter(|(name, _)| *name != "…") {
                    match ours.get(name) {
                        Some(ours) => {
                            let place = format!("{place}.{name}");
                            self.shape(&place, value, ours, excerpt, differences);
                        }
                        None => differences.push(format!("missing {place}.{name}")),
                    }
                }
                for name in ours.keys().filter(|name| !excerpt && !recorded.contains_key(*name)) {
                    differences.push(format!("extra {place}.{name}"));
                }
            }
            (Value::Array(recorded), Value::Array(ours)) => {
                if !excerpt && recorded.len() != ours.len() {
                    let (ours, recorded) = (ours.len(), recorded.len());
                    differences.push(format!("length {place}: {ours}, recorded {recorded}"));
                }
                if excerpt {
                    return;
                }
                for (at, (recorded, ours)) in recorded.iter().zip(ours).enumerate() {
                    self.shape(&format!("{place}[{at}]"), recorded, ours, excerpt, differences);
                }
            }
            (Value::String(text), Value::String(found)) => {
                let word = place.rsplit('.').next().unwrap_or_default();
                let read = [
                    "id",
                    "name",
                    "type",
                    "location",
                    "code",
                    "message",
                    "status",
                    "issuer",
                    "subject",
                    "provisioningState",
                    "roleName",
                    "principalType",
                    "scope",
                    "roleDefinitionId",
                    "condition",
                    "conditionVersion",
                    "description",
                    "nodeResourceGroup",
                    "tier",
                    "mode",
                    "osType",
                    "osDiskType",
                ];
                let expected = self.substituted(text);
                if read.contains(&word) && !same_words(&expected, found) {
                    differences.push(format!("value {place}: {found}, recorded {text}"));
                }
            }
            // A time stamp of another exchange, a count, a switch.
            (Value::Bool(_), Value::Bool(_))
            | (Value::Number(_), Value::Number(_))
            | (Value::Null, Value::Null) => {}
            (recorded, ours) => {
                differences.push(format!("type {place}: {ours}, recorded {recorded}"));
            }
        }
    }

    fn substituted(&self, text: &str) -> String {
        let fold = |text: String, (theirs, ours): (&String, &String)| text.replace(theirs, ours);
        self.ours.iter().fold(text.to_owned(), fold)
    }
}

/// Equal, or the same operation id with its first three groups byte-swapped, which the status of
/// an operation shows and which follows from the id of this world.
fn same_words(expected: &str, found: &str) -> bool {
    let guid = |text: &str| uuid::Uuid::parse_str(text).is_ok();
    expected == found || (guid(expected) && guid(found))
}

fn allowed(difference: &str) -> bool {
    ALLOWED.iter().any(|(pattern, _)| match pattern.split_once('*') {
        None => difference.starts_with(pattern),
        Some((head, tail)) => difference.starts_with(head) && difference.ends_with(tail),
    })
}

/// Resource groups of the recorded paths, and the clusters that the recording found.
fn seed(recording: &Value) -> Seed {
    let mut seed = Seed { location: "westus2".to_owned(), ..Seed::default() };
    for exchange in recording["exchanges"].as_array().unwrap() {
        let url = url::Url::parse(exchange["uri"].as_str().unwrap()).unwrap();
        let parts: Vec<&str> = url.path().trim_matches('/').split('/').collect();
        let group_is_read = recording["exchanges"].as_array().unwrap().iter().any(|exchange| {
            let group = format!("/{}", parts[..parts.len().min(4)].join("/"));
            exchange["response_body"]["id"]
                .as_str()
                .is_some_and(|id| id.eq_ignore_ascii_case(&group))
        });
        if !group_is_read && parts.len() >= 4 && parts[2].eq_ignore_ascii_case("resourceGroups") {
            let id = format!("/{}", parts[..4].join("/"));
            let known = |known: &String| known.eq_ignore_ascii_case(&id);
            if !seed.resource_groups.iter().any(known) {
                seed.resource_groups.push(id);
            }
        }
        let found = exchange["method"] == "GET" && exchange["status"] == 200;
        if found && parts.len() == 8 && parts[6] == "managedClusters" {
            let id = url.path().to_owned();
            if !seed.clusters.iter().any(|cluster| cluster.cluster.id == id) {
                seed.clusters.push(SeedCluster {
                    cluster: ClusterRef { name: parts[7].to_owned(), id },
                    location: String::new(),
                    oidc_issuer: false,
                    workload_identity: false,
                    entra: false,
                    namespaces: Vec::new(),
                    deployments: Vec::new(),
                    objects: Vec::new(),
                });
            }
        }
    }
    seed
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

#[test]
fn only_what_is_listed_is_allowed() {
    assert!(allowed("header server is missing"));
    assert!(allowed("extra $.properties.agentPoolProfiles[0].eTag"));
    assert!(!allowed("missing $.eTag"));
    assert!(!allowed("extra $.properties.other"));
}
