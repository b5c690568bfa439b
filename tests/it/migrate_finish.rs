//! `migrate finish` at the command line: what its proofs come to is told and decides the end, and
//! what was not chosen is not read.

use serde_json::Value;

use crate::{
    cli_verify::{Served, signal, spawn},
    support::cli::Desk,
};

const CLUSTER: &str = "/subscriptions/a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813/resourceGroups/rg/providers/\
                       Microsoft.ContainerService/managedClusters";
const IDENTITY: &str = "/subscriptions/a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813/resourceGroups/rg-id/\
                        providers/Microsoft.ManagedIdentity/userAssignedIdentities";
const ENDS: &str = "migrate finish --yes --soak 0s";

/// Two workloads that were moved off Pod Identity in the first of these clusters.
fn moved(clusters: &[&str]) -> Desk {
    let mut file = r#"
version = 1
project = "shop"

[azure]
tenant = "5d1f0c2e-7a44-4c1b-9e37-2f8a6b90c451"
subscription = "a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813"
resource_group = "rg-id"
location = "westeurope"
"#
    .to_owned();
    for name in clusters {
        let enable = r#"enable = ["oidc-issuer", "workload-identity"]"#;
        let table = format!("\n[clusters.{name}]\nid = \"{CLUSTER}/{name}\"\n{enable}\n");
        file.push_str(&table);
    }
    for name in ["cart", "search"] {
        let table = format!(
            "\n[[workloads]]\nnamespace = \"shop\"\nservice_account = \"{name}\"\n\
             clusters = [\"{}\"]\nidentity = \"{IDENTITY}/{name}\"\ngrants = []\n",
            clusters[0]
        );
        file.push_str(&table);
    }
    let desk = Desk::new();
    desk.write("workloads.toml", file);
    desk.run("sandbox reset --pod-identity").exits(0);
    desk.run("--sandbox migrate apply --yes").exits(0);
    desk
}

/// No token for this account.
fn no_token(account: &str, how: &str) -> String {
    format!(
        "sandbox fault add --service cluster/prod --method POST --path \
         */serviceaccounts/{account}/token {how} --times 0"
    )
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_proof_that_fails_is_told_and_is_the_exit_code() {
    let desk = moved(&["prod"]);
    let _served = Served::start(&desk);
    desk.run(&no_token("search", "--answer 403 --code Forbidden")).exits(0);
    let only = format!("--sandbox {ENDS} --only shop/search");
    let ran = desk.run(&only).exits(6).shows("Proof: 0 of 1 proved");
    assert!(ran.stdout.contains("Nothing to remove."), "{}", ran.stdout);
    assert!(ran.stdout.contains("shop/search was not proved again in this run"), "{}", ran.stdout);
    assert!(ran.stdout.contains("403"), "{}", ran.stdout);
    // A plan proves nothing, and says what would go.
    desk.run("--sandbox migrate finish --plan --soak 0s").exits(0).shows("- binding shop/search");

    let ran = desk.run(&format!("{only} -o json")).exits(6);
    let cluster = &parsed(&ran.stdout)["clusters"][0];
    assert_eq!(parsed(&ran.stdout)["exit_code"], 6);
    let proofs = &cluster["proofs"];
    assert_eq!((&proofs["proofs"]["proved"], &proofs["proofs"]["total"]), (&0.into(), &1.into()));
    assert_eq!(proofs["steps"][0]["failure"]["status"], 403);
    let why: Vec<&str> =
        cluster["kept"].as_array().unwrap().iter().filter_map(|k| k["why"].as_str()).collect();
    assert_eq!(why, ["shop/cart was not chosen", "shop/search was not proved again in this run"]);

    // What was proved goes, and the rest is not forgotten.
    let ran = desk.run(&format!("--sandbox {ENDS} -o json")).exits(3);
    let cluster = &parsed(&ran.stdout)["clusters"][0];
    let removed: Vec<&str> =
        cluster["removed"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(removed, ["binding shop/cart-binding", "identity shop/cart"]);
    assert_eq!(parsed(&ran.stdout)["exit_code"], 3);
    desk.run("sandbox fault clear").exits(0);
    desk.run(&format!("--sandbox {ENDS}")).exits(0).shows("Finish: 2 of 2 objects removed.");
}

#[test]
fn an_interrupt_during_the_proofs_removes_nothing_and_is_told() {
    let desk = moved(&["prod"]);
    let _served = Served::start(&desk);
    // Long enough to be met, short enough to end.
    desk.run(&no_token("search", "--answer 503 --retry-after 3")).exits(0);
    let child = spawn(&desk, &format!("--sandbox {ENDS} --only shop/search"));
    while !desk.run("sandbox fault list").exits(0).stdout.contains("\"seen\":1") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    let (told, said) = (output.stdout, output.stderr);
    let (told, said) = (String::from_utf8_lossy(&told), String::from_utf8_lossy(&said));
    assert_eq!(output.status.code(), Some(8), "{told}\n{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert!(!told.contains("removed binding"), "{told}");
    desk.run("sandbox fault clear").exits(0);
    desk.run("--sandbox migrate status").exits(0).shows("soaking");
}

#[test]
fn another_cluster_may_be_down() {
    let desk = moved(&["prod", "blue"]);
    let _served = Served::start(&desk);
    desk.run("sandbox fault add --service cluster/blue --reset --times 0").exits(0);
    desk.run(&format!("--sandbox {ENDS}")).exits(1).says("nothing is removed");
    let ran = desk.run(&format!("--sandbox {ENDS} --cluster prod")).exits(0);
    assert!(ran.stdout.contains("Finish: 4 of 4 objects removed."), "{}", ran.stdout);
    desk.run(&format!("--sandbox {ENDS} --cluster green")).exits(64).says("no cluster `green`");
}
