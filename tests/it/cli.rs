//! The command line: what it says and how it exits, without any world behind it.

use std::{io::Read as _, process::Stdio};

use crate::support::cli::{Desk, names};

#[test]
fn the_version_is_one_line() {
    let ran = Desk::new().run("--version").exits(0);
    assert_eq!(ran.stdout, format!("widentity {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(ran.stderr, "");
}

#[test]
fn wrong_usage_is_64_and_never_looks_like_changes() {
    let desk = Desk::new();
    for line in ["", "frobnicate", "plan --frobnicate", "plan -o yaml", "apply --timeout soon"] {
        let ran = desk.run(line).exits(64);
        assert_eq!(ran.stdout, "", "{line}");
    }
}

#[test]
fn habits_from_other_tools_are_answered_with_the_right_flag() {
    let desk = Desk::new();
    desk.run("plan -out=tfplan").exits(64).says("`--out tfplan`");
    desk.run("plan -json").exits(64).says("`-o json`");
    desk.run("apply -auto-approve").exits(64).says("`--yes`");
    desk.run("apply --auto-approve").exits(64).says("`--yes`");
}

#[test]
fn help_names_every_exit_code_and_no_command_that_is_missing() {
    let ran = Desk::new().run("--help").exits(0);
    for absent in ["destroy", "import", "unlock", "permissions", "graph"] {
        assert!(!ran.stdout.contains(absent), "{absent}");
    }
    ran.shows("Exit codes: 0 done").shows("64 usage").shows("validate").shows("sandbox");
}

#[test]
fn a_starting_file_is_written_once_and_the_sample_is_valid() {
    let desk = Desk::new();
    desk.run("init --sandbox").exits(0).says("next: widentity --sandbox apply");
    desk.run("init --sandbox").exits(1).says("--force");
    desk.run("validate").exits(0).shows("workloads.toml: valid: 8 workloads, 2 clusters");
    desk.run("init --force").exits(0).says("next: widentity validate");
    // The blanks are reported, every one of them.
    let ran = desk.run("validate").exits(1).shows("<tenant id>").shows("<cluster id>");
    assert_eq!(ran.stderr.trim(), "exit 1: failed, nothing was changed");
}

#[test]
fn every_bad_file_gets_one_clear_message() {
    let desk = Desk::new();
    desk.run("validate").exits(1).shows("workloads.toml");
    desk.run("--sandbox plan").exits(1).says("workloads.toml");
    desk.run("-c home validate").exits(1).shows("directory");
    desk.write("latin1.toml", b"project = \"\xe9\"\n");
    desk.run("-c latin1.toml validate").exits(1).shows("UTF-8");
    desk.write("large.toml", vec![b'#'; 10 << 20]);
    desk.run("-c large.toml validate").exits(1).shows("large");
    desk.write("loop.toml", "version = 1\nproject = \"p\"\ninclude = [\"loop.toml\"]\n");
    desk.run("-c loop.toml validate").exits(1).shows("loop.toml:3");
    desk.write("broken.toml", "version = = 1\n");
    desk.run("-c broken.toml --sandbox plan").exits(1).says("broken.toml:1");
    desk.write("escape.toml", "version = 1\nproject = \"\\u001b[2J\\u202e\"\n");
    let ran = desk.run("-c escape.toml validate").exits(1);
    assert!(!ran.stdout.contains('\u{1b}') && !ran.stdout.contains('\u{202e}'), "{}", ran.stdout);
    // Nothing of this began a world.
    assert!(!names(&desk.path("")).contains(&".widentity".to_owned()));
}

#[test]
fn validate_speaks_json() {
    let desk = Desk::new();
    desk.write("bad.toml", "version = 1\nprojekt = \"p\"\n");
    let ran = desk.run("-c bad.toml validate -o json").exits(1);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["valid"], false);
    assert!(document["errors"].as_u64().unwrap() >= 1);
    assert!(document["diagnostics"].as_array().unwrap().iter().any(|problem| {
        problem["place"]["line"] == 2 && problem["message"].as_str().unwrap().contains("projekt")
    }));
}

#[test]
fn apply_never_asks_where_nobody_can_answer() {
    let desk = Desk::new();
    desk.run("init --sandbox").exits(0);
    let ran = desk.run("--sandbox apply").exits(64).says("--yes").says("--expect-digest");
    assert_eq!(ran.stdout, "");
    // It is found out before anything is read or begun.
    assert!(!names(&desk.path("")).contains(&".widentity".to_owned()));
}

#[test]
fn what_is_not_a_plan_is_refused_as_one() {
    let desk = Desk::new();
    desk.run("init --sandbox").exits(0);
    desk.run("--sandbox apply missing.json").exits(1).says("missing.json");
    desk.write("no.json", "{}");
    desk.run("--sandbox apply no.json").exits(1).says("not a plan file");
    desk.write("errored.json", plan_file(true));
    desk.run("--sandbox apply errored.json").exits(1).says("could not see the whole world");
    desk.run("--sandbox apply --approved no.json").exits(1).says("not a plan file");
}

fn plan_file(errored: bool) -> String {
    serde_json::json!({
        "format_version": "1.2",
        "errored": errored,
        "widentity": { "digest": "wd1:0", "project": "p", "sandbox": true, "digests": [] },
    })
    .to_string()
}

#[test]
fn without_a_credential_every_refusal_is_explained() {
    let desk = Desk::new();
    desk.run("init --sandbox").exits(0);
    let ran = desk.run("plan --auth environment").exits(6);
    assert_eq!(ran.stdout, "");
    ran.says("AZURE_CLIENT_SECRET").says("hint: az login");
}

#[test]
fn a_damaged_sandbox_is_refused_and_can_be_reset() {
    let desk = Desk::new();
    desk.run("init --sandbox").exits(0);
    std::fs::create_dir(desk.path(".widentity")).unwrap();
    desk.write(".widentity/sandbox.json", "{\"version\": 1, \"revi");
    desk.run("--sandbox plan").exits(1).says("damaged").says("widentity sandbox reset");
    assert!(desk.read(".widentity/sandbox.json").ends_with("revi"), "it is left as it is");
    desk.run("sandbox reset").exits(0).says("forgotten");
    desk.run("sandbox reset").exits(0).says("there was no world");
    desk.run("sandbox show").exits(1).says("there is no sandbox");
}

#[test]
fn a_selection_that_matches_nothing_is_a_usage_error() {
    let desk = Desk::new();
    desk.run("init --sandbox").exits(0);
    for line in ["plan --only no/such", "plan -n nowhere", "verify --cluster none"] {
        desk.run(&format!("--sandbox {line}")).exits(64);
    }
}

#[test]
fn schemas_and_completions_are_data() {
    let desk = Desk::new();
    for kind in ["workloads", "plan", "report"] {
        let ran = desk.run(&format!("schema {kind}")).exits(0);
        let schema: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert!(schema["$schema"].is_string());
        assert_eq!(ran.stderr, "");
    }
    desk.run("completions bash").exits(0).shows("widentity");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let desk = Desk::new();
    let mut child =
        desk.command("schema plan").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(stderr, "");
}

#[test]
fn colour_is_asked_for_by_option_and_forbidden_by_environment() {
    let desk = Desk::new();
    let coloured =
        |command: &mut std::process::Command| desk.finish(command).stdout.contains('\u{1b}');
    assert!(!coloured(&mut desk.command("--help")));
    assert!(coloured(desk.command("--help").env("CLICOLOR_FORCE", "1")));
    let both = desk.command("--help").env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1").output();
    assert!(!String::from_utf8(both.unwrap().stdout).unwrap().contains('\u{1b}'));
}
