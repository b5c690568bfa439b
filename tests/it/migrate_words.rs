//! What `migrate` says at its ends: what was not seen is not absent, and what is printed can be
//! pasted.

use serde_json::Value;
use widentity::render::schema;

use crate::{
    cli_verify::Served,
    support::cli::{Desk, NO_GRANTS},
};

/// A world in which every workload of the file lives on Pod Identity.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("workloads.toml", NO_GRANTS);
    desk.run("sandbox reset --pod-identity").exits(0);
    desk
}

/// Pod Identity serves everything, and no request to the cluster is answered.
#[test]
fn what_cannot_be_read_is_never_absent() {
    let desk = desk();
    let _served = Served::start(&desk);
    desk.run("sandbox fault add --service cluster/* --times 0 --answer 403").exits(0);
    let ran = desk.run("--sandbox migrate uninstall --plan").exits(6).shows("not-seen");
    let text = &ran.stdout;
    assert!(!text.contains("nothing to uninstall"), "{text}");
    assert!(!text.contains("delete") && !text.contains("remove "), "{text}");
    let ran = desk.run("--sandbox -o json migrate uninstall --yes").exits(6);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["clusters"][0]["clean_up"], Value::Array(Vec::new()));
    desk.run("--sandbox migrate finish --plan").exits(6).says("cannot be seen");
    let ran = desk.run("--sandbox migrate rollback payments/api --yes").exits(6);
    assert!(!ran.stderr.contains("there is no"), "{}", ran.stderr);
    desk.run("--sandbox migrate render home").exits(6).says("cannot be seen");
}

#[test]
fn what_is_printed_leads_to_the_same_world() {
    let desk = Desk::new();
    desk.write("other.toml", NO_GRANTS);
    let world = "-c other.toml --sandbox-state x.json";
    desk.run(&format!("{world} sandbox reset --pod-identity"))
        .exits(0)
        .says(&format!("next: widentity {world} --sandbox migrate\n"));
    let uninstall = "migrate uninstall --plan";
    let ran = desk.run(&format!("{world} --sandbox {uninstall}")).exits(5);
    let printed = ran.stdout.matches("widentity ").count();
    let whole = ran.stdout.matches(&format!("widentity {world} --sandbox migrate ")).count();
    assert!(printed > 0 && printed == whole, "{}", ran.stdout);
    let ran = desk.run(&format!("{world} --sandbox -o json {uninstall}")).exits(5);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let fixes = document["clusters"][0]["obstacles"].to_string();
    assert!(fixes.contains(&format!("widentity {world} --sandbox migrate ")), "{fixes}");
    // What is no message stays as it is to the byte.
    let script = |line: &str| desk.run(line).exits(0).stdout;
    assert_eq!(script(&format!("{world} completions bash")), script("completions bash"));
    assert_eq!(script(&format!("{world} schema plan")), script("schema plan"));
}

#[test]
fn a_masked_workload_that_drops_its_label_is_a_change() {
    let desk = desk();
    desk.run("--sandbox migrate apply --yes --keep-old").exits(0).shows("masked");
    let ran = desk.run("--sandbox migrate apply --yes").exits(0).shows("soaking");
    assert!(!ran.stdout.contains("No changes"), "{}", ran.stdout);
    let ran = ran.shows("Migrate complete! ");
    assert!(!ran.stdout.contains("Apply complete"), "{}", ran.stdout);
}

#[test]
fn a_rollback_that_finds_nothing_says_which_of_three_it_is() {
    let desk = desk();
    let back = |who: &str| desk.run(&format!("--sandbox migrate rollback {who} --yes"));
    back("api").exits(64).says("NAMESPACE/SERVICE-ACCOUNT");
    back("payments/api@elsewhere").exits(64).says("no cluster `elsewhere`");
    back("payments/ap").exits(64).says("no workload payments/ap");
    back("payments/api").exits(1).says("never switched");
    back("payments/api@prod").exits(1).says("never switched");
    let only = |who: &str| desk.run(&format!("--sandbox migrate plan --only {who}"));
    only("api").exits(64).says("NAMESPACE/SERVICE-ACCOUNT");
    only("payments/api@elsewhere").exits(64).says("no cluster `elsewhere`");
    only("payments/ap").exits(64).says("is no workload");
    only("payments/api@prod").exits(0).shows("payments/api");
    desk.run("--sandbox migrate apply --yes").exits(0);
    back("payments/api@prod").exits(0).shows("it is as it was");
}

#[test]
fn every_command_writes_the_same_envelope() {
    let desk = desk();
    let schema: Value = serde_json::from_str(&schema::migrate()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (command, more, code) in [
        ("migrate status", "", 0),
        ("migrate plan", "", 0),
        ("migrate apply", "--yes", 0),
        ("migrate render", "home", 0),
        ("migrate finish", "--plan", 0),
        ("migrate rollback", "payments/api --yes", 0),
        ("migrate uninstall", "--plan", 5),
    ] {
        let ran = desk.run(&format!("--sandbox -o json {command} {more}")).exits(code);
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        let problems: Vec<String> =
            validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{command}: {problems:#?}");
        assert_eq!(document["command"], command);
        assert_eq!(document["exit_code"], code, "{command}");
        assert_eq!(document["sandbox"], true, "{command}");
        assert_eq!(document["project"], "small", "{command}");
    }
    assert!(!validator.is_valid(&serde_json::json!({ "format_version": "1.0" })));
}
