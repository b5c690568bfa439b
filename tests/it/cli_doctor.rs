//! `doctor`, `explain` and `audit` as a person types them, against the sandbox.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Stdio},
};

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

/// A sandbox that is served from a file in another folder, until it is dropped.
struct Served(Child);

impl Served {
    fn start(desk: &Desk, config: &str) -> Self {
        let mut child = desk
            .command(&format!("-c {config} sandbox serve"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.find(|line| line.as_ref().unwrap().starts_with("other runs")).unwrap().unwrap();
        Self(child)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn an_object_of_a_cluster_is_diagnosed_without_a_file() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("theirs")).unwrap();
    let night = "[[workloads]]\nnamespace = \"payments\"\nservice_account = \"night\"\n\
                 pods = [\"cronjob/nightly\"]\ntarget = \"vault\"\nrole = \"Key Vault Secrets User\"\n";
    desk.write("theirs/workloads.toml", format!("{SMALL}{night}"));
    let served = Served::start(&desk, "theirs/workloads.toml");
    let run = |line: &str| {
        desk.run(&format!("--sandbox --sandbox-state theirs/.widentity/sandbox.json doctor {line}"))
    };
    // Nobody said which cluster of Azure this is: its nodes lead to it.
    let report = json(&run("deploy/api -n payments -o json").exits(7).stdout);
    let (code, commands) = headline(&report);
    assert!(["issuer-off", "add-on-off"].contains(&code.as_str()), "{code}");
    assert!(
        commands[0].starts_with("az aks update --subscription ")
            && commands[0].contains(" --resource-group rg --name aks --enable-oidc-issuer"),
        "{commands:?}"
    );
    run("cronjob/nightly -n payments").exits(7).shows("broken: OIDC issuer");

    desk.run("-c theirs/workloads.toml --sandbox apply --yes").exits(0);
    let target = "--target /subscriptions/a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv-small";
    for object in ["deploy/api", "sa/api", "cronjob/nightly", "sa/night"] {
        let ran = run(&format!("{object} -n payments {target}")).exits(0);
        ran.shows("1 healthy").shows("aks in westeurope").shows("kv-small");
    }
    let report = json(&run("deploy/api -n payments -o json").exits(0).stdout);
    assert_eq!(report["workloads"][0]["workload"], "payments/api");
    run("pod/gone-5f7d -n payments").exits(7).shows("pod-not-found").shows("kubectl");
    run("job/gone -n payments").exits(7).shows("template-not-found");
    run("sa/gone -n payments").exits(7).shows("account-missing");
    run("deploy/api -n nowhere").exits(7).shows("namespace-missing");
    run("deploy/api -n payments --context other").exits(64).says("prod");
    run("deploy/api -n payments --cluster-id aks").exits(64).says("/subscriptions/");
    drop(served);
    run("deploy/api -n payments").exits(1).says("no sandbox is being served");
}

/// A hundred megabytes, made as they are read.
struct Generated {
    left: usize,
    at: usize,
}

const LINE: &[u8] = b"2026-11-22T03:14:15Z INFO request served path=/api/v1/payments status=200\n";
const LAST: &[u8] =
    b"AADSTS700016: Application with identifier 'x' was not found in the directory\n";

impl std::io::Read for Generated {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let line = if self.left == 0 { LAST } else { LINE };
        if self.left == 0 && self.at == line.len() {
            return Ok(0);
        }
        let count = buffer.len().min(line.len() - self.at);
        buffer[..count].copy_from_slice(&line[self.at..self.at + count]);
        self.at += count;
        if self.left > 0 && self.at == line.len() {
            (self.left, self.at) = (self.left - 1, 0);
        }
        Ok(count)
    }
}

#[test]
fn a_log_of_a_hundred_megabytes_is_read_to_its_end() {
    let lines = 100_000_000 / LINE.len();
    let input = BufReader::with_capacity(1 << 20, Generated { left: lines, at: 0 });
    let found = widentity::ops::explain::log(input).unwrap();
    let (read, bytes) = found.read.unwrap();
    assert_eq!(read, lines as u64 + 1);
    assert_eq!(bytes, (lines * LINE.len() + LAST.len()) as u64);
    assert_eq!(found.answers.len(), 1);
    assert_eq!(found.answers[0].answer.code, "AADSTS700016");
}

#[test]
fn the_first_failure_of_a_log_comes_first_and_case_is_no_matter() {
    let log = "x\naadsts90061: Request to External OIDC endpoint failed.\nno client ID specified. \
               Check pod configuration\nAADSTS700016: Application with identifier 'a' was not found \
               in the directory 't'\n";
    let found = widentity::ops::explain::log(log.as_bytes()).unwrap();
    let codes: Vec<&str> = found.answers.iter().map(|one| one.answer.code.as_str()).collect();
    assert_eq!(codes, ["AADSTS90061", "sdk-no-client-id", "AADSTS700016"]);
    for text in ["aadsts700213", "AADSTS700213", "700213", "Issuer-Off", "issuer-off"] {
        assert_eq!(widentity::ops::explain::text(text).answers.len(), 1, "{text}");
    }
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
