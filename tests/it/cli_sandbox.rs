//! The program against its sandbox, as the README shows it: from nothing to proved.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use widentity::render::schema;

use crate::support::cli::{Desk, NO_GRANTS, Ran};

/// Two workloads in one cluster whose issuer and webhook are on.
const SMALL: &str = r#"
version = 1
project = "small"

[azure]
tenant = "5d1f0c2e-7a44-4c1b-9e37-2f8a6b90c451"
subscription = "a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813"
resource_group = "rg-identities"
location = "westeurope"

[clusters.prod]
id = "/subscriptions/a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks"

[targets]
vault = "/subscriptions/a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv-small"

[[workloads]]
namespace = "payments"
service_account = "api"
target = "vault"
role = "Key Vault Secrets User"
"#;

const WORKER: &str = r#"
[[workloads]]
namespace = "payments"
service_account = "worker"
grants = []
"#;

const NO_CHANGES: &str = "No changes. Your infrastructure matches the configuration.";

fn small() -> Desk {
    let desk = Desk::new();
    desk.write("workloads.toml", format!("{SMALL}{WORKER}"));
    desk
}

#[track_caller]
fn conforms(document: &str, schema: &str) -> Value {
    let schema: Value = serde_json::from_str(schema).unwrap();
    let document: Value = serde_json::from_str(document).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let problems: Vec<String> =
        validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{problems:#?}");
    document
}

/// The line before the last, which says SANDBOX, as does the first.
#[track_caller]
fn verdict(ran: &Ran) -> &str {
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("SANDBOX"), "{}", ran.stdout);
    assert!(lines[lines.len() - 1].starts_with("SANDBOX"), "{}", ran.stdout);
    lines[lines.len() - 2]
}

#[track_caller]
fn shows_no_token(ran: &Ran) {
    assert!(!ran.stdout.contains("eyJ") && !ran.stderr.contains("eyJ"), "a token is shown");
}

#[test]
fn the_tour_goes_from_nothing_to_proved_and_a_second_plan_is_empty() {
    let desk = Desk::new();
    desk.run("init --sandbox").exits(0);
    let planned = desk.run("--sandbox plan --out plan.json --detailed-exitcode").exits(2);
    let counted = verdict(&planned).to_owned();
    assert!(counted.starts_with("Plan: ") && counted.ends_with(" 0 to destroy."), "{counted}");
    assert!(planned.stderr.starts_with("acting as "), "{}", planned.stderr);
    let document = conforms(&desk.read("plan.json"), &schema::plan());
    assert_eq!(document["widentity"]["sandbox"], true);
    assert_eq!(document["errored"], false);

    let applied = desk.run("--sandbox apply plan.json").exits(0);
    let done = verdict(&applied).to_owned();
    let words = ["to add", "added", "to change", "changed", "to destroy", "destroyed"];
    let expected = words.chunks(2).fold(counted, |text, pair| text.replace(pair[0], pair[1]));
    assert_eq!(done, expected.replace("Plan:", "Apply complete! Resources:"));
    shows_no_token(&applied);

    let again = desk.run("--sandbox plan --detailed-exitcode").exits(0);
    assert_eq!(verdict(&again), NO_CHANGES);
    let again = desk.run("--sandbox apply --yes").exits(0).shows("Proof: 14 of 14 proved");
    assert_eq!(verdict(&again), NO_CHANGES);
    let verified = desk.run("--sandbox -vvv verify -o json").exits(0);
    shows_no_token(&verified);
    let report = conforms(&verified.stdout, &schema::report());
    assert_eq!(report["proofs"]["proved"], 14);
    assert_eq!(report["written"], false);
}

#[test]
fn what_was_not_approved_is_not_done() {
    let desk = small();
    let plan = desk.run("--sandbox plan -o json --only payments/api --out api.json").exits(0);
    let plan = conforms(&plan.stdout, &schema::plan());
    let digest = plan["widentity"]["digest"].as_str().unwrap().to_owned();
    let refused = desk.run("--sandbox apply --expect-digest wd1:0").exits(4);
    let refused = refused.says("expected wd1:0").says("--expect-digest wd1:");
    assert!(refused.stdout.contains("Plan: "), "what is left is shown");
    // The approved plan knows nothing of the worker.
    desk.run("--sandbox apply --approved api.json").exits(4).says("payments/worker");
    let other = desk.read("workloads.toml").replace("\"small\"", "\"other\"");
    desk.write("other.toml", other);
    desk.run("--sandbox -c other.toml apply api.json").exits(5).says("project");
    let real = desk.read("api.json").replace("\"sandbox\": true", "\"sandbox\": false");
    desk.write("real.json", real);
    desk.run("--sandbox apply real.json --only payments/api").exits(5).says("sandbox");
    // None of these wrote anything: the plan is what it was.
    let line = format!("--sandbox apply --only payments/api --expect-digest {digest} -o json");
    let applied = desk.run(&line).exits(0);
    let report = conforms(&applied.stdout, &schema::report());
    assert_eq!(report["digest"], digest.as_str());
    assert_eq!(report["proofs"]["proved"], 1);
    // A bare digest of a plan that was carried out is another plan's.
    desk.run(&line).exits(4);
}

#[test]
fn an_unfinished_chain_is_not_proved() {
    let desk = small();
    let ran = desk.run("--sandbox verify").exits(7).shows("Proof: 0 of 2 proved");
    let ran = ran.shows("Not proved: 2 workloads").says("exit 7");
    assert!(ran.stdout.contains("the identity does not exist"), "{}", ran.stdout);
}

#[test]
fn what_left_the_file_is_listed_and_never_hidden() {
    let desk = small();
    desk.run("--sandbox apply -y --journal run.jsonl --json-out report.json").exits(0);
    let lines = desk.read("run.jsonl");
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{lines}");
    conforms(&desk.read("report.json"), &schema::report());
    desk.write("workloads.toml", SMALL);
    let ran = desk.run("--sandbox plan").exits(0).shows("Left over: ");
    assert!(!ran.stdout.contains("No changes."), "{}", ran.stdout);
    assert!(ran.stdout.contains("wi_small_payments_worker"), "{}", ran.stdout);
    assert!(verdict(&ran).starts_with("Plan: 0 to add, 0 to change, 0 to destroy."));
}

#[test]
fn markdown_for_a_pull_request_begins_with_its_marker() {
    let ran = small().run("--sandbox plan -o markdown -q").exits(0);
    assert!(ran.stdout.starts_with("<!-- widentity:plan small -->\n"), "{}", ran.stdout);
    assert_eq!(ran.stderr, "");
    ran.shows("SANDBOX").shows("```diff").shows("| `payments/api` |");
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
    assert!(sent.unwrap().success());
}

fn spawn(desk: &Desk, line: &str) -> Child {
    desk.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn ctrl_c_finishes_what_was_begun_reports_and_the_next_run_ends_it() {
    let desk = small();
    let mut child = spawn(&desk, "--sandbox apply --yes");
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    // The first finished step: there are many to come, and a proof waits for propagation.
    stderr.find(|line| line.as_ref().unwrap().starts_with("[  1/")).unwrap().unwrap();
    signal(&child, "INT");
    let rest: Vec<String> = stderr.map(Result::unwrap).collect();
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(8), "{stdout}\n{rest:#?}");
    assert!(stdout.contains("Apply incomplete! Resources: "), "{stdout}");
    assert!(stdout.contains("Not begun: "), "{stdout}");
    assert!(rest.iter().any(|line| line.starts_with("exit 8: interrupted")), "{rest:#?}");
    let again = desk.run("--sandbox apply --yes").exits(0);
    assert!(verdict(&again).starts_with("Apply complete!"), "{}", again.stdout);
    assert_eq!(verdict(&desk.run("--sandbox plan").exits(0)), NO_CHANGES);
}

/// An authority that takes the connection and never answers, and the command in the world of
/// `real.toml`, which is its.
fn silent(desk: &Desk, line: &str) -> (TcpListener, Command) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = format!("http://{}", silent.local_addr().unwrap());
    let cloud =
        format!("[azure]\ncloud = {{ resource_manager = \"{here}\", authority = \"{here}\" }}");
    desk.write("real.toml", NO_GRANTS.replace("[azure]", &cloud));
    let mut command = desk.command(&format!("-c real.toml {line}"));
    command.env("AZURE_CLIENT_ID", "5d1f0c2e-7a44-4c1b-9e37-2f8a6b90c451");
    command.env("AZURE_CLIENT_SECRET", "s");
    (silent, command)
}

#[test]
fn ctrl_c_is_heard_while_signing_in() {
    let desk = Desk::new();
    let (silent, mut command) = silent(&desk, "plan");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (_held, _) = silent.accept().unwrap();
    signal(&child, "TERM");
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(8), "{told}");
    assert!(told.contains("nothing was read or written"), "{told}");
}

/// The time of a run is also that of what it reads first.
#[test]
fn a_time_out_is_heard_while_signing_in_and_while_reading() {
    let desk = Desk::new();
    desk.write("workloads.toml", NO_GRANTS);
    let (_silent, mut command) = silent(&desk, "apply --yes --timeout 1s");
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(9), "{told}");
    assert!(told.contains("timed out while signing in: nothing was read or written"), "{told}");

    let mut child = spawn(&desk, "--sandbox sandbox serve --ready-file ready.json");
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    stdout.find(|line| line.as_ref().unwrap().starts_with("other runs")).unwrap().unwrap();
    desk.run("sandbox fault add --service arm --path *managedClusters* --times 0 --answer 503")
        .exits(0);
    for line in ["apply --yes", "verify", "migrate apply --yes"] {
        desk.run(&format!("--sandbox {line} --timeout 2s"))
            .exits(9)
            .says("timed out while reading: nothing was written");
    }
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn other_runs_attach_to_a_served_sandbox() {
    let desk = small();
    let mut child = spawn(&desk, "--sandbox sandbox serve --ready-file ready.json");
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    // Its last words when it is up; the ready file is there by then.
    stdout.find(|line| line.as_ref().unwrap().starts_with("other runs")).unwrap().unwrap();
    let ready: Value = serde_json::from_str(&desk.read("ready.json")).unwrap();
    for key in ["version", "resource_manager", "authority", "graph", "ca_file", "tenant"] {
        assert!(!ready[key].is_null(), "{key}");
    }
    assert!(ready["kubeconfigs"]["prod"].is_string());
    desk.run("--sandbox plan").exits(0).says("attached");
    desk.run("sandbox show").exits(0).shows("resource manager");
    desk.run("sandbox fault add --service arm --times 2 --answer 503 --retry-after 1").exits(0);
    desk.run("sandbox fault list").exits(0).shows("503");
    // Its client gets over them.
    desk.run("--sandbox plan").exits(0);
    desk.run("sandbox fault list").exits(0).shows("\"seen\"");
    desk.run("sandbox fault webhook prod down").exits(0);
    desk.run("sandbox fault webhook other down").exits(64);
    desk.run("sandbox fault clear").exits(0);
    desk.run("sandbox fault list").exits(0);
    desk.run("sandbox reset").exits(1).says("in use");
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    desk.run("sandbox fault list").exits(1).says("no sandbox is being served");
    // The lock is free again.
    desk.run("sandbox show").exits(0).shows("cluster prod");
}

#[test]
fn a_timeout_ends_a_run_with_its_own_code() {
    let desk = small();
    let began = std::time::Instant::now();
    let ran = desk.run("--sandbox apply --yes --timeout 1s").exits(9);
    assert!(began.elapsed() < Duration::from_mins(1));
    assert!(verdict(&ran).starts_with("Apply incomplete!"), "{}", ran.stdout);
}

#[test]
fn the_sandbox_uses_nothing_of_its_users_environment() {
    let desk = small();
    let nowhere = "http://127.0.0.1:1";
    let mut command = desk.command("--sandbox plan");
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        command.env(name, nowhere);
    }
    command
        .env("KUBECONFIG", "/nonexistent/kubeconfig")
        .env("AZURE_TENANT_ID", "11111111-1111-1111-1111-111111111111")
        .env("AZURE_CLIENT_ID", "22222222-2222-2222-2222-222222222222")
        .env("AZURE_CLIENT_SECRET", "not-this-one");
    let ran = desk.finish(&mut command).exits(0).says("in tenant 5d1f0c2e");
    assert!(verdict(&ran).starts_with("Plan: "), "{}", ran.stdout);
}

#[test]
fn a_world_of_another_tenant_is_refused() {
    let desk = small();
    desk.run("--sandbox plan -q").exits(0);
    let other = desk.read("workloads.toml").replace("5d1f0c2e", "6d1f0c2e");
    desk.write("workloads.toml", other);
    desk.run("--sandbox plan").exits(1).says("tenant").says("--sandbox-state");
    desk.run("--sandbox --sandbox-state other.json plan").exits(0);
}
