//! Broken and healthy-but-odd set-ups, each from a thread or a document: the first cause must be
//! right on at least 95 % of the broken ones, and no healthy one may raise an alarm.
//!
//! An entry is `tests/corpus/base.json`, a healthy set-up, with some values changed: JSON pointers
//! to new values, `null` to take a value away.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;
use widentity::diagnose::{Diagnosis, Evidence, Fix, Verdict, chain};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    title: String,
    source: String,
    pub(crate) expect: Expect,
    /// Why the sandbox cannot show this world, or not repair it.
    #[serde(default)]
    pub(crate) not_emulated: Option<String>,
    change: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) verdict: String,
    pub(crate) code: Option<String>,
    fix: Option<String>,
    note: Option<String>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn read(path: PathBuf) -> Value {
    let bytes = std::fs::read(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// Sets the value at a JSON pointer, making objects on the way; `null` removes it.
fn set(world: &mut Value, pointer: &str, value: &Value) {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let last = last.replace("~1", "/").replace("~0", "~");
    if world.pointer(parent).is_none() {
        set(world, parent, &Value::Object(serde_json::Map::new()));
    }
    match world.pointer_mut(parent) {
        Some(Value::Object(members)) if value.is_null() => {
            members.remove(&last);
        }
        Some(Value::Object(members)) => {
            members.insert(last, value.clone());
        }
        Some(Value::Array(items)) => {
            let index: usize = last.parse().unwrap();
            if index == items.len() {
                items.push(value.clone());
            } else {
                items[index] = value.clone();
            }
        }
        _ => panic!("{pointer} leads nowhere"),
    }
}

pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) entry: Entry,
    pub(crate) world: Value,
    pub(crate) diagnosis: Diagnosis,
}

pub(crate) fn entries() -> Vec<Outcome> {
    let base = read(folder().join("base.json"));
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "base.json")
        .collect();
    names.sort();
    let outcome = |file: String| {
        let name = file.trim_end_matches(".json").to_owned();
        let entry: Entry = serde_json::from_value(read(folder().join(&file)))
            .unwrap_or_else(|why| panic!("{name}: {why}"));
        let mut world = base.clone();
        for (pointer, value) in &entry.change {
            set(&mut world, pointer, value);
        }
        let evidence: Evidence =
            serde_json::from_value(world.clone()).unwrap_or_else(|why| panic!("{name}: {why}"));
        Outcome { name, diagnosis: chain(&evidence), entry, world }
    };
    names.into_iter().map(outcome).collect()
}

pub(crate) fn verdict(diagnosis: &Diagnosis) -> &'static str {
    match diagnosis.verdict() {
        Verdict::Healthy => "healthy",
        Verdict::Broken => "broken",
        Verdict::NotSeen => "not-seen",
    }
}

fn found(outcome: &Outcome) -> &str {
    outcome.diagnosis.headline().map_or("", |(_, found)| found.code)
}

/// What becomes of the fix: `typed` where it is one that is run in the sandbox.
pub(crate) fn fixed(outcome: &Outcome) -> &str {
    let Some((_, found)) = outcome.diagnosis.headline() else { return "" };
    match (&found.fix, &outcome.entry.not_emulated) {
        (Fix::Command { .. } | Fix::Toml { .. }, None) => "typed",
        (Fix::Command { .. } | Fix::Toml { .. }, Some(why)) => why,
        (Fix::Look { .. }, _) => "somebody decides",
        (Fix::Advice { .. }, _) => "not a command",
    }
}

/// What is wrong with an outcome; none if it is as expected.
fn wrong(outcome: &Outcome) -> Option<String> {
    let Outcome { name, entry, diagnosis, .. } = outcome;
    let said = verdict(diagnosis);
    if said != entry.expect.verdict || found(outcome) != entry.expect.code.as_deref().unwrap_or("")
    {
        let message = diagnosis.headline().map_or("", |(_, found)| found.message.as_str());
        return Some(format!(
            "{name}: {said} {} ({message}), expected {} {}",
            found(outcome),
            entry.expect.verdict,
            entry.expect.code.as_deref().unwrap_or("")
        ));
    }
    if let Some(fix) = &entry.expect.fix {
        let (_, broken) = diagnosis.headline()?;
        let shown = serde_json::to_value(&broken.fix).unwrap();
        let strings = strings(&shown);
        if !strings.contains(fix.as_str()) {
            return Some(format!("{name}: the fix is {strings:?}, expected {fix:?}"));
        }
    }
    let note = entry.expect.note.as_deref()?;
    let noted = diagnosis.notes.iter().any(|seen| seen.code == note);
    (!noted).then(|| format!("{name}: no note {note} in {:?}", diagnosis.notes))
}

fn strings(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text}\n"),
        Value::Array(items) => items.iter().map(strings).collect(),
        Value::Object(members) => members.values().map(strings).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

#[test]
fn the_first_cause_is_named() {
    let outcomes = entries();
    let wrong_ones: Vec<String> = outcomes.iter().filter_map(wrong).collect();
    let broken = outcomes.iter().filter(|o| o.entry.expect.verdict == "broken").count();
    let odd = outcomes.iter().filter(|o| o.entry.expect.verdict == "healthy").count();
    assert!(broken >= 60 && odd >= 15, "{broken} broken, {odd} healthy");
    let alarms = outcomes
        .iter()
        .filter(|o| o.entry.expect.verdict != "broken" && verdict(&o.diagnosis) == "broken")
        .count();
    assert_eq!(alarms, 0, "false alarms:\n{}", wrong_ones.join("\n"));
    assert!(
        wrong_ones.len() * 20 <= broken,
        "{} wrong:\n{}",
        wrong_ones.len(),
        wrong_ones.join("\n")
    );
}

/// The table of `docs/corpus.md`.
fn table() -> String {
    let outcomes = entries();
    let right = outcomes.iter().filter(|outcome| wrong(outcome).is_none()).count();
    let broken = outcomes.iter().filter(|outcome| verdict(&outcome.diagnosis) == "broken");
    let (mut typed, mut commands, mut all) = (0, 0, 0);
    for outcome in broken {
        let how = fixed(outcome);
        all += 1;
        typed += usize::from(how == "typed");
        commands += usize::from(!["somebody decides", "not a command"].contains(&how));
    }
    let mut text = format!(
        "# Corpus of set-ups\n\n\
         Each file of `tests/corpus/` is a set-up that people had, from the thread or document \
         named. `doctor` must name its first cause. {right} of {} are as expected. Of the {all} \
         broken ones {commands} have a command or a line of the file as fix; {typed} of these are \
         loaded into a served sandbox, where `doctor` must find the same cause by really looking, \
         the fix is typed, and `doctor` must find the chain healthy (`corpus_fixes`). Why the \
         others are not typed stands in the column *fix*. This table is made by the test \
         `corpus::the_table_is_current`; `WIDENTITY_BLESS=1` rewrites it.\n\n\
         | set-up | verdict | first cause | what is printed | fix | result | source |\n\
         |---|---|---|---|---|---|---|\n",
        outcomes.len()
    );
    for outcome in &outcomes {
        let fix = outcome.diagnosis.headline().map(|(_, found)| &found.fix);
        let fix = fix.map_or_else(String::new, |fix| {
            let all = serde_json::to_value(fix).unwrap();
            let all: BTreeMap<String, Value> = serde_json::from_value(all).unwrap();
            let shown = all.iter().filter(|(key, _)| *key != "kind");
            let shown: String = shown.map(|(_, value)| strings(value)).collect();
            shown.trim().replace('\n', "; ").replace('|', "\\|")
        });
        let code =
            if fix.is_empty() { String::new() } else { format!("`{}`", fix.replace('`', "'")) };
        let result = if wrong(outcome).is_none() { "as expected" } else { "differs" };
        writeln!(
            text,
            "| {} | {} | {} | {code} | {} | {result} | {} |",
            outcome.entry.title.replace('|', "\\|"),
            verdict(&outcome.diagnosis),
            found(outcome),
            fixed(outcome),
            outcome.entry.source.replace('|', "\\|")
        )
        .unwrap();
    }
    text
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a person asks for the table to be rewritten")]
fn the_table_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/corpus.md");
    let made = table();
    if std::env::var_os("WIDENTITY_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = String::from_utf8(std::fs::read(&path).unwrap_or_default()).unwrap();
    assert!(kept == made, "docs/corpus.md is not what the corpus gives: WIDENTITY_BLESS=1");
}
