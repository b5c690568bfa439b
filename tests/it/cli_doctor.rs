//! `doctor`, `explain` and `audit` as a person types them, against the sandbox.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::support::cli::Desk;

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
enable = ["oidc-issuer", "workload-identity"]

[targets]
vault = "/subscriptions/a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv-small"

[[workloads]]
namespace = "payments"
service_account = "api"
target = "vault"
role = "Key Vault Secrets User"
"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The headline of the only workload and the commands of its fix.
fn headline(report: &Value) -> (String, Vec<String>) {
    let found = &report["workloads"][0]["headline"]["break"];
    let commands = found["fix"]["commands"].as_array().cloned().unwrap_or_default();
    let commands = commands.iter().map(|c| c.as_str().unwrap().to_owned()).collect();
    (found["code"].as_str().unwrap_or_default().to_owned(), commands)
}

#[test]
fn a_broken_chain_is_named_the_fix_is_typed_and_the_chain_is_whole() {
    let desk = Desk::new();
    desk.write("workloads.toml", SMALL);
    let report = json(&desk.run("doctor --sandbox -o json").exits(7).stdout);
    let (code, commands) = headline(&report);
    assert!(["issuer-off", "add-on-off"].contains(&code.as_str()), "{code}");
    let fix = commands[0].strip_prefix("widentity ").unwrap();
    assert_eq!(fix, "--sandbox apply --only payments/api@prod");
    desk.run(&format!("{fix} --yes")).exits(0);

    let ran = desk.run("doctor --sandbox").exits(0);
    let ran = ran.shows("Doctor: 1 workload, 1 healthy, 0 broken, 0 not fully seen.");
    assert!(!ran.stdout.contains("eyJ") && !ran.stderr.contains("eyJ"), "a token is shown");
    let by_object = desk.run("doctor deploy/api -n payments --sandbox -o json").exits(0);
    let report = json(&by_object.stdout);
    assert_eq!(report["workloads"][0]["workload"], "payments/api@prod");
    assert_eq!(report["workloads"][0]["verdict"], "healthy");
    desk.run("doctor --sandbox --no-token").exits(0).shows("1 healthy");
    desk.run("doctor pod/nothing -n payments --sandbox").exits(7).shows("pod-not-found");
    desk.run("audit --sandbox --fail-on high").exits(0).shows("Audit: ");
}

#[test]
fn usage_is_explained() {
    let desk = Desk::new();
    desk.run("doctor deploy/api").exits(64).says("-n NAMESPACE");
    desk.run("doctor svc/api -n payments").exits(64).says("KIND/NAME");
    desk.run("doctor").exits(1).says("--context");
}

#[test]
fn codes_messages_and_logs_are_explained_offline() {
    let desk = Desk::new();
    desk.run("explain 700213").exits(0).shows("AADSTS700213");
    desk.run("explain issuer-off").exits(0).shows("OIDC issuer");
    desk.run("explain unknown-key").exits(0).shows("configuration");
    desk.run("explain nonsense").exits(1).shows("Not known");

    let mut log = vec![0_u8, 0xff, b'\n'];
    for _ in 0..50_000 {
        log.extend_from_slice(b"nothing of interest on this line, which is as long as lines are\n");
    }
    log.extend_from_slice(
        b"AADSTS700213: No matching federated identity record found for presented assertion \
          subject 'system:serviceaccount:payments:api'.\n",
    );
    let mut child = desk
        .command("explain - -o json")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&log));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let report = json(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(report["found"][0]["first_line"], 50_002);
    let next = report["found"][0]["answer"]["next"].as_str().unwrap();
    assert_eq!(next, "widentity doctor serviceaccount/api -n payments");
}
