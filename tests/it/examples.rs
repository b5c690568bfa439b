//! Every example's README is a transcript: its commands run, in their order, and succeed, and what
//! it shows of their output is what they print. A line of `...` stands for lines that are not
//! shown.

use std::{fs, path::Path};

use crate::support::cli::Desk;

/// A command of a transcript and the lines shown below it.
struct Shown<'a> {
    command: &'a str,
    lines: Vec<&'a str>,
}

fn transcript(readme: &str) -> Vec<Shown<'_>> {
    let mut all: Vec<Shown<'_>> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ widentity ") {
            all.push(Shown { command, lines: Vec::new() });
        } else if inside && let Some(last) = all.last_mut() {
            last.lines.push(line);
        }
    }
    all
}

/// The first line that is shown and was not printed; between two shown lines others may stand only
/// where the transcript says so.
fn not_printed<'a>(shown: &[&'a str], printed: &str) -> Option<&'a str> {
    let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
    let mut rest = printed.as_slice();
    let mut anywhere = false;
    for line in shown {
        if *line == "..." {
            anywhere = true;
            continue;
        }
        let at = rest.iter().position(|printed| printed == line);
        match at {
            Some(at) if at == 0 || anywhere => rest = &rest[at + 1..],
            _ => return Some(line),
        }
        anywhere = false;
    }
    // What follows the last shown line is left out only where the transcript says so.
    if anywhere || rest.is_empty() || shown.is_empty() { None } else { Some("...") }
}

#[test]
fn every_command_of_every_example_prints_what_is_shown() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let (mut ran, mut compared) = (0, 0);
    for entry in fs::read_dir(examples).unwrap() {
        let example = entry.unwrap().path();
        let Ok(readme) = fs::read_to_string(example.join("README.md")) else { continue };
        let desk = Desk::new();
        desk.write("workloads.toml", fs::read(example.join("workloads.toml")).unwrap());
        for Shown { command, lines } in transcript(&readme) {
            let printed = desk.run(command).exits(0).stdout;
            let missing = not_printed(&lines, &printed);
            assert_eq!(missing, None, "`widentity {command}` printed:\n{printed}");
            ran += 1;
            compared += lines.len();
        }
    }
    assert!(ran >= 6 && compared >= 20, "{ran} commands, {compared} lines");
}

#[test]
fn a_line_that_is_not_printed_is_found() {
    let printed = "a\nb \nc\n";
    assert_eq!(not_printed(&["a", "b"], printed), Some("..."));
    assert_eq!(not_printed(&["a", "b", "..."], printed), None);
    assert_eq!(not_printed(&["a", "b", "c"], printed), None);
    assert_eq!(not_printed(&[], printed), None);
    assert_eq!(not_printed(&["a", "...", "c"], printed), None);
    assert_eq!(not_printed(&["...", "c"], printed), None);
    assert_eq!(not_printed(&["a", "c"], printed), Some("c"));
    assert_eq!(not_printed(&["...", "c", "...", "b"], printed), Some("b"));
}
