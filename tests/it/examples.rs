//! Every example's README is a transcript: its commands run, in their order, and succeed.

use std::{fs, path::Path};

use crate::support::cli::Desk;

#[test]
fn every_command_of_every_example_succeeds() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut ran = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let example = entry.unwrap().path();
        let Ok(readme) = fs::read_to_string(example.join("README.md")) else { continue };
        let desk = Desk::new();
        desk.write("workloads.toml", fs::read(example.join("workloads.toml")).unwrap());
        for line in readme.lines().filter_map(|line| line.strip_prefix("$ widentity ")) {
            desk.run(line).exits(0);
            ran += 1;
        }
    }
    assert!(ran >= 6, "the quickstart alone has six commands");
}
