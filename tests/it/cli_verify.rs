//! `verify` as a person runs it: by token, by a pod, again and again; and what it says when it cannot.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use widentity::render::schema;

use crate::support::cli::Desk;

const FILE: &str = r#"
version = 1
project = "proofs"

[azure]
tenant = "5d1f0c2e-7a44-4c1b-9e37-2f8a6b90c451"
subscription = "a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813"
resource_group = "rg-identities"
location = "westeurope"

[clusters.prod]
id = "/subscriptions/a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks"

[targets]
store = "/subscriptions/a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813/resourceGroups/rg/providers/Microsoft.AppConfiguration/configurationStores/appcs-shop"

[[workloads]]
namespace = "shop"
service_account = "api"
target = "store"
role = "App Configuration Data Reader"
probe = "app-configuration"

[[workloads]]
namespace = "shop"
service_account = "reader"
target = "store"
role = "acdd72a7-3385-48ef-bd42-f606fba81ae7" # Reader: it reads the store's record
probe = "resource-manager"
"#;

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("workloads.toml", FILE);
    desk
}

fn report(text: &str) -> Value {
    let schema: Value = serde_json::from_str(&schema::report()).unwrap();
    let document: Value = serde_json::from_str(text).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let problems: Vec<String> =
        validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{problems:#?}");
    document
}

fn proofs(report: &Value) -> Vec<Value> {
    let steps = report["steps"].as_array().unwrap().iter();
    steps.filter(|step| step["verb"] == "prove").cloned().collect()
}

#[test]
fn token_and_job_prove_the_same_chain_and_say_which_was_which() {
    let desk = desk();
    let applied = desk.run("--sandbox apply --yes -o json").exits(0);
    // Entra refuses at first: one answer is not enough, and the probes are answered.
    for proof in proofs(&report(&applied.stdout)) {
        let evidence = &proof["evidence"];
        assert!(evidence["attempts"].as_u64() >= Some(3), "{proof}");
        assert_eq!((&evidence["answers"], &evidence["probed"]), (&3.into(), &true.into()));
    }
    let ran = desk.run("--sandbox verify").exits(0).shows("proved by token (1 attempt, probe");
    assert_eq!(ran.stdout.matches("probe answered").count(), 2, "{}", ran.stdout);

    let ran = desk.run("--sandbox verify --method job -o json").exits(0);
    assert!(!ran.stdout.contains("eyJ") && !ran.stderr.contains("eyJ"), "a token is shown");
    let proofs = proofs(&report(&ran.stdout));
    assert_eq!(proofs.len(), 2);
    for proof in proofs {
        assert_eq!(proof["evidence"]["method"], "job", "{proof}");
        assert!(proof["detail"].as_str().unwrap().contains("probe is left out"), "{proof}");
    }
    desk.run("--sandbox verify --method job").exits(0).shows("proved by job");
    let world = desk.read(".widentity/sandbox.json");
    assert!(!world.contains("widentity-proof-"), "a pod was left behind");
    // Neither method leaves anything that a plan would see.
    desk.run("--sandbox plan --detailed-exitcode").exits(0).shows("No changes.");
}

#[test]
fn a_window_of_ones_own_is_waited_for() {
    let desk = desk();
    desk.run("--sandbox apply --yes").exits(0);
    let ran = desk.run("--sandbox verify --window 2s -o json --only shop/api").exits(0);
    let proof = &proofs(&report(&ran.stdout))[0];
    assert_eq!(proof["evidence"]["answers"], 3, "{proof}");
    assert!(proof["elapsed_ms"].as_u64() >= Some(2000), "{proof}");
    let ran = desk.run("--sandbox verify --window 0s -o json").exits(0);
    assert_eq!(proofs(&report(&ran.stdout))[0]["evidence"]["attempts"], 1);
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let desk = desk();
    desk.run("--sandbox verify --image example.test/curl").exits(64).says("--method job");
    desk.run("--sandbox verify --interval 5s").exits(64).says("--watch");
    desk.run("--sandbox verify --watch --interval 0s").exits(64).says("--interval");
    desk.run("--sandbox verify --method pod").exits(64).says("token, job");
    desk.run("verify --help").exits(0).shows("--method").shows("Neither shows what");
}

pub(crate) struct Served {
    child: Child,
}

impl Served {
    pub(crate) fn start(desk: &Desk) -> Self {
        let mut child = spawn(desk, "--sandbox sandbox serve");
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        stdout.find(|line| line.as_ref().unwrap().starts_with("other runs")).unwrap().unwrap();
        Self { child }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        signal(&self.child, "TERM");
        drop(self.child.wait());
    }
}

pub(crate) fn spawn(desk: &Desk, line: &str) -> Child {
    desk.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
    assert!(sent.unwrap().success());
}

const NO_TOKENS: &str = "sandbox fault add --service cluster/prod --method POST --path */token \
                         --answer 403 --code Forbidden --times 0";

#[test]
fn a_refused_token_names_the_flag_and_the_job_does_without() {
    let desk = desk();
    desk.run("--sandbox apply --yes").exits(0);
    let _served = Served::start(&desk);
    desk.run(NO_TOKENS).exits(0);
    let ran =
        desk.run("--sandbox verify").exits(6).shows("widentity --sandbox verify --method job");
    // One cause, told once for both.
    assert_eq!(ran.stdout.matches("serviceaccounts/token").count(), 1, "{}", ran.stdout);
    assert!(ran.stdout.contains("2 steps failed alike"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("by job"), "no pod is started silently: {}", ran.stdout);
    desk.run("--sandbox verify --method job").exits(0).shows("Proof: 2 of 2 proved");
}

#[test]
fn what_cannot_be_reached_is_not_seen_and_what_does_not_answer_is_a_failure() {
    let desk = desk();
    desk.run("--sandbox apply --yes").exits(0);
    let _served = Served::start(&desk);
    desk.run("sandbox fault add --service data --reset --times 0").exits(0);
    let ran = desk.run("--sandbox verify --only shop/api").exits(6).shows("probe not seen");
    assert!(ran.stdout.contains("Proof: 1 of 1 proved"), "{}", ran.stdout);
    desk.run("sandbox fault clear").exits(0);
    // Nobody signs in, so nothing is said about the chain; nobody was turned away either.
    desk.run("sandbox fault add --service entra --path */token --reset --times 0").exits(0);
    desk.run("--sandbox verify").exits(1).says("check the way there");
    desk.run("sandbox fault clear").exits(0);
    // Azure itself cannot be reached: nothing was seen, and nobody was turned away.
    desk.run("sandbox fault add --service arm --reset --times 0").exits(0);
    desk.run("--sandbox verify --only shop/api").exits(1).shows("Not seen");
}

#[test]
fn a_watch_tells_what_changes_and_ends_with_the_last_verdict() {
    let desk = desk();
    desk.run("--sandbox apply --yes").exits(0);
    let _served = Served::start(&desk);
    let mut child = spawn(&desk, "--sandbox verify --watch --interval 1s -o json");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    for address in ["shop/api@prod", "shop/reader@prod"] {
        let first = next();
        assert_eq!((&first["address"], &first["to"]), (&address.into(), &"proved".into()));
        assert_eq!((&first["from"], &first["sandbox"]), (&Value::Null, &true.into()));
    }
    desk.run(NO_TOKENS).exits(0);
    for _ in 0..2 {
        let change = next();
        assert_eq!((&change["from"], &change["to"]), (&"proved".into(), &"not seen".into()));
        assert_eq!(change["code"], "Forbidden", "{change}");
    }
    signal(&child, "INT");
    // Nothing more: what stays as it is is no news.
    assert!(lines.next().is_none());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(6), "{said}");
}
