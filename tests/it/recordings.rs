//! Recorded exchanges with Azure, replayed as requests to the sandbox: status, headers and the
//! shape of bodies must be Azure's.
//!
//! The folder that `WIDENTITY_RECORDINGS` names holds JSON files with `exchanges` of `method`,
//! `uri`, `request_body`, `status`, `headers`, `response_body`. A body member `…` stands for what
//! was left out: in a request for the resource as it is now, in an answer for more members.

use std::{collections::BTreeMap, fs, path::PathBuf};

use reqwest::{Client, Method, header::HeaderMap};
use serde_json::Value;
use widentity::sandbox::{
    ClusterRef, Options, Place, Running, Sandbox, Seed, SeedCluster, clock::Clock,
};

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
];

#[tokio::test]
async fn recorded_exchanges_are_answered_as_azure_answered_them() {
    let test = "recorded_exchanges_are_answered_as_azure_answered_them";
    let folder = std::env::var_os("WIDENTITY_RECORDINGS").filter(|folder| !folder.is_empty());
    let Some(folder) = folder.map(PathBuf::from) else {
        // Past the capture of the test's output, so that a run says what it left out.
        drop(fs::write(
            "/dev/stderr",
            format!("skipped {test}: WIDENTITY_RECORDINGS is not set\n"),
        ));
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
    running: Running,
    client: Client,
    token: String,
    /// Identifiers and hosts of the recording to those of this world.
    ours: BTreeMap<String, String>,
    _directory: tempfile::TempDir,
}

impl Replay {
    async fn start(recording: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let seed = seed(recording);
        let mut options = Options::new(Place::Memory(directory.path().to_owned()), seed);
        options.clock = Clock::manual("2026-11-21T12:00:00Z".parse().unwrap());
        let running = Sandbox::start(options).await.unwrap();
        let ready = running.ready();
        let pem = fs::read(&ready.ca_file).unwrap();
        let client = Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
            .build()
            .unwrap();
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}\
             &scope=https://management.azure.com/.default",
            ready.client_id, ready.client_secret
        );
        let answer = client
            .post(format!("{}/{}/oauth2/v2.0/token", ready.authority, ready.tenant))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let token = answer["access_token"].as_str().unwrap().to_owned();
        let ours = BTreeMap::from([
            ("https://management.azure.com".to_owned(), ready.resource_manager.clone()),
            // What a recording left open.
            ("<v>".to_owned(), "2025-10-01".to_owned()),
            ("<user oid>".to_owned(), "6d97229a-391f-473a-893f-f0608b592d7c".to_owned()),
        ]);
        Self { running, client, token, ours, _directory: directory }
    }

    /// Sends each request and returns how many, with every difference that is not allowed.
    async fn play(mut self, recording: &Value) -> (usize, Vec<String>) {
        let mut found = Vec::new();
        let exchanges = recording["exchanges"].as_array().unwrap();
        for (at, exchange) in exchanges.iter().enumerate() {
            let place = format!("exchange {at} {}", exchange["method"].as_str().unwrap());
            let mut differences = Vec::new();
            self.exchange(exchange, &mut differences).await;
            differences.retain(|difference| !allowed(difference));
            found.extend(differences.into_iter().map(|text| format!("{place}: {text}")));
            // Recorded reads of a long-running operation lie apart; the last one finds it ended.
            let next = exchanges.get(at + 1).map(|next| &next["response_body"]);
            if next.is_some_and(|body| body["properties"]["provisioningState"] == "Succeeded") {
                self.running.context().clock.advance(std::time::Duration::from_secs(60));
            }
        }
        self.running.stop().await.unwrap();
        (exchanges.len(), found)
    }

    async fn exchange(&mut self, exchange: &Value, differences: &mut Vec<String>) {
        let method: Method = exchange["method"].as_str().unwrap().parse().unwrap();
        let url = self.substituted(exchange["uri"].as_str().unwrap());
        let mut request = self.client.request(method, &url).bearer_auth(&self.token);
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
            Ok(ours) => self.shape("$", recorded, &ours, differences),
            Err(error) => differences.push(format!("body is no JSON: {error}")),
        }
    }

    /// A request's body; `…` is filled from the resource as it is now.
    async fn body(&self, recorded: &Value, url: &str) -> Value {
        let mut text = self.substituted(&recorded.to_string());
        if recorded.get("…").is_some() {
            let now = self.client.get(url).bearer_auth(&self.token).send().await.unwrap();
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

    /// Compares names and types of members, and the values that a client reads as words.
    fn shape(&self, place: &str, recorded: &Value, ours: &Value, differences: &mut Vec<String>) {
        match (recorded, ours) {
            (Value::Object(recorded), Value::Object(ours)) => {
                let partly = recorded.contains_key("…");
                for (name, value) in recorded.iter().filter(|(name, _)| *name != "…") {
                    match ours.get(name) {
                        Some(ours) => {
                            self.shape(&format!("{place}.{name}"), value, ours, differences);
                        }
                        None => differences.push(format!("missing {place}.{name}")),
                    }
                }
                for name in ours.keys().filter(|name| !partly && !recorded.contains_key(*name)) {
                    differences.push(format!("extra {place}.{name}"));
                }
            }
            (Value::Array(recorded), Value::Array(ours)) => {
                // An excerpt names the elements it shows.
                let partly = recorded.iter().all(|item| {
                    item.as_object().is_some_and(|item| item.len() == 2 && place.contains("Pool"))
                });
                if recorded.len() != ours.len() && !partly {
                    let (ours, recorded) = (ours.len(), recorded.len());
                    differences.push(format!("length {place}: {ours}, recorded {recorded}"));
                }
                if !partly {
                    for (at, (recorded, ours)) in recorded.iter().zip(ours).enumerate() {
                        self.shape(&format!("{place}[{at}]"), recorded, ours, differences);
                    }
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
        if parts.len() >= 4 && parts[2].eq_ignore_ascii_case("resourceGroups") {
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
