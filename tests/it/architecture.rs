//! The arrows of the house: which stage may import which. A stage that reaches further makes this
//! fail, with the place.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What each stage may import of ours. `types of X` in the design is written as `X` here; what
/// that means is in [`TYPES_ONLY`].
const ARROWS: [(&str, &[&str]); 15] = [
    ("model", &[]),
    ("config", &["model"]),
    ("plan", &["model"]),
    ("diagnose", &["model"]),
    ("azure", &["model"]),
    ("kubernetes", &["model"]),
    ("observe", &["model", "azure", "kubernetes"]),
    ("prove", &["model", "azure", "kubernetes"]),
    ("execute", &["model", "plan", "observe", "prove", "azure", "kubernetes"]),
    ("migrate", &["model", "plan"]),
    (
        "ops",
        &[
            "model",
            "config",
            "plan",
            "diagnose",
            "azure",
            "kubernetes",
            "observe",
            "prove",
            "execute",
            "migrate",
        ],
    ),
    ("render", &["model", "config", "plan", "diagnose", "execute", "migrate", "ops"]),
    ("cli", &["model", "ops", "render", "config", "sandbox", "execute"]),
    ("sandbox", &[]),
    ("main", &["cli"]),
];

/// Stages that may use another only for its types: these functions of it may not be named.
const TYPES_ONLY: [(&str, &str, &[&str]); 4] = [
    ("render", "plan", &["plan::plan(", "planner::"]),
    ("render", "execute", &["execute::run(", "execute::run,", "executor::"]),
    ("cli", "execute", &["execute::run(", "execute::run,", "executor::"]),
    ("render", "ops", &["ops::connect", "ops::apply::", "ops::verify::"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The part of a file that is built into the program, without comments.
fn code(text: &str) -> String {
    let shipped = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let lines = shipped.lines().map(|line| if is_comment(line) { "" } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// The stages that `crate::...` names in a text, with the line. Understands `crate::{a, b::{c}}`.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = text[..at].lines().count().max(1);
        let rest = &text[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            // Only the first word of each path at the top of the list is a stage.
            let (mut depth, mut word, mut first) = (1, String::new(), true);
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 1 && first && (c.is_alphanumeric() || c == '_') {
                    word.push(c);
                    continue;
                }
                if !word.is_empty() {
                    found.push((line, std::mem::take(&mut word)));
                    first = false;
                }
                first |= depth == 1 && c == ',';
                if depth == 0 {
                    break;
                }
            }
        } else {
            let word = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_');
            found.push((line, word.collect()));
        }
    }
    found
}

fn stage_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    // lib.rs is the list of stages.
    (first != "lib.rs").then(|| first.trim_end_matches(".rs").to_owned())
}

#[test]
fn no_stage_imports_what_the_design_forbids() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        let Some(stage) = stage_of(&path) else { continue };
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        let Some(allowed) = arrows.get(stage.as_str()) else {
            wrong.push(format!("{shown}: stage `{stage}` is not in the table"));
            continue;
        };
        let text = code(&fs::read_to_string(&path).unwrap());
        for (line, word) in imports(&text) {
            let is_stage = arrows.contains_key(word.as_str());
            if is_stage && word != stage && !allowed.contains(&word.as_str()) {
                wrong.push(format!("{shown}:{line}: {stage} -> {word}"));
            }
        }
        // A path that climbs to the root and down into another stage is an arrow, too.
        for word in arrows.keys().filter(|word| **word != stage) {
            if text.contains(&format!("super::super::{word}::")) && stage != "sandbox" {
                wrong.push(format!("{shown}: {stage} climbs to {word}, name it by `crate::`"));
            }
        }
        if stage != "main" && text.contains("widentity::") {
            wrong.push(format!("{shown}: names its own crate"));
        }
        for (from, to, words) in TYPES_ONLY {
            for word in words.iter().filter(|word| from == stage && text.contains(**word)) {
                wrong.push(format!("{shown}: {from} may use only types of {to}, found `{word}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that the design does not have:\n{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_in_every_form() {
    let words =
        |text: &str| -> Vec<String> { imports(text).into_iter().map(|(_, word)| word).collect() };
    assert_eq!(words("use crate::model::Address;"), ["model"]);
    assert_eq!(words("pub(crate) fn x(a: crate::plan::Plan) {}"), ["plan"]);
    let nested = words("use crate::{\n    model::{Address, plan_b},\n    execute,\n};");
    assert!(nested.contains(&"model".to_owned()) && nested.contains(&"execute".to_owned()));
    assert!(!nested.contains(&"plan_b".to_owned()), "{nested:?}");
    assert_eq!(words("// nothing"), Vec::<String>::new());
}

#[test]
fn no_test_file_is_forgotten() {
    let main = fs::read_to_string(root().join("tests/it/main.rs")).unwrap();
    for entry in fs::read_dir(root().join("tests/it")).unwrap() {
        let path = entry.unwrap().path();
        let is_module = path.extension().is_some_and(|extension| extension == "rs")
            || path.join("mod.rs").exists();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if is_module && name != "main" {
            let line = format!("mod {name};");
            assert!(main.lines().any(|l| l == line), "tests/it/main.rs has no `{line}`");
        }
    }
}

#[test]
fn only_the_terminal_touches_terminal_environment_and_clock() {
    // The lints of Cargo.toml say the same; this names the words that lints cannot see.
    let words = ["println!", "eprintln!", "std::env::", "env::vars", "io::stdin", "io::stdout"];
    let mut wrong = BTreeSet::new();
    for path in rust_files(&root().join("src")) {
        if stage_of(&path).is_some_and(|stage| stage == "cli") {
            continue;
        }
        let text = code(&fs::read_to_string(&path).unwrap());
        // Whether a credential plugin of a kubeconfig may ask is decided where it is started.
        let plugin = path.ends_with("kubernetes/connect.rs");
        for word in words.iter().filter(|word| text.contains(**word)) {
            if plugin && *word == "io::stdin" {
                continue;
            }
            wrong.insert(format!("{}: {word}", path.strip_prefix(root()).unwrap().display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
