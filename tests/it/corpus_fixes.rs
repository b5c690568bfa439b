//! The corpus in a served sandbox: the same first cause by really looking, the printed fix typed,
//! and a healthy chain after it.

use futures::{StreamExt as _, stream};
use widentity::diagnose::{Diagnosis, Fix};

use crate::{
    corpus::{Outcome, entries, fixed, verdict},
    support::{emulated::Emulated, typed::kubectl},
};

/// Worlds that are served at once: more starve each other on a busy machine until a handshake takes
/// longer than its server allows.
const AT_ONCE: usize = 2;

fn shown(diagnosis: &Diagnosis) -> String {
    let first = diagnosis.headline();
    let first =
        first.map_or(String::new(), |(_, found)| format!("{}: {}", found.code, found.message));
    let unseen = diagnosis.links.iter().filter(|checked| {
        matches!(checked.state, widentity::diagnose::State::CouldNotSee { matters: true, .. })
    });
    let unseen: Vec<String> = unseen.map(|checked| format!("{checked:?}")).collect();
    format!("{} {first} {}", verdict(diagnosis), unseen.join("; "))
}

/// What is wrong with one world; none if all is as it should be.
async fn wrong(outcome: &Outcome) -> Option<String> {
    let name = &outcome.name;
    let emulated = Emulated::start(&outcome.world).await;
    let before = emulated.doctor(true).await.diagnosis;
    let wrong = repaired(outcome, &emulated, &before).await;
    emulated.stop().await;
    wrong.map(|wrong| format!("{name}: {wrong}"))
}

async fn repaired(outcome: &Outcome, emulated: &Emulated, before: &Diagnosis) -> Option<String> {
    let expected = outcome.entry.expect.code.as_deref().unwrap_or_default();
    let Some((_, found)) = before.headline() else {
        let well = outcome.entry.expect.verdict == "healthy" && verdict(before) == "healthy";
        return (!well).then(|| format!("{}, expected {expected}", shown(before)));
    };
    if found.code != expected {
        return Some(format!("{}, expected {expected}", shown(before)));
    }
    // A set-up may have more than one fault: each is repaired as it becomes the first.
    let untouchable = emulated.untouchable();
    let mut now = before.clone();
    for _ in 0..3 {
        let Some((_, found)) = now.headline() else { break };
        if let Err(why) = typed(emulated, &found.fix).await {
            return Some(why);
        }
        emulated.settle().await;
        now = emulated.doctor(true).await.diagnosis;
    }
    let after = emulated.untouchable();
    let touched = untouchable.iter().find(|(key, doc)| after.get(*key) != Some(*doc));
    if let Some((key, _)) =
        touched.or_else(|| after.iter().find(|(k, _)| !untouchable.contains_key(*k)))
    {
        return Some(format!("the fix changed {key}, which is none of its business"));
    }
    (verdict(&now) != "healthy").then(|| format!("after the fix {}", shown(&now)))
}

/// Types a fix; what went wrong.
async fn typed(emulated: &Emulated, fix: &Fix) -> Result<(), String> {
    if let Fix::Toml { table, line, .. } = fix {
        let file = emulated.file().unwrap();
        let text = String::from_utf8(std::fs::read(&file).unwrap()).unwrap();
        let key = format!("{} =", line.split(' ').next().unwrap());
        let kept: Vec<&str> = text.lines().filter(|kept| !kept.starts_with(&key)).collect();
        let text = kept.join("\n").replace(table.as_str(), &format!("{table}\n{line}"));
        std::fs::write(&file, text).unwrap();
    }
    for command in fix.commands() {
        emulated.run(command).await.map_err(|why| format!("{command}\n{why}"))?;
    }
    Ok(())
}

async fn all(chosen: impl Fn(&Outcome) -> bool) {
    let outcomes: Vec<Outcome> = entries().into_iter().filter(chosen).collect();
    assert!(!outcomes.is_empty());
    let wrong: Vec<String> = stream::iter(outcomes.iter().map(wrong))
        .buffer_unordered(AT_ONCE)
        .filter_map(async |wrong| wrong)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), outcomes.len(), wrong.join("\n"));
}

/// Skipped where there is no kubectl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixes_are_typed_and_the_chain_is_healthy() {
    if kubectl().is_some() {
        all(|outcome| fixed(outcome) == "typed").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthy_worlds_raise_no_alarm() {
    all(|outcome| {
        outcome.entry.expect.verdict == "healthy" && outcome.entry.not_emulated.is_none()
    })
    .await;
}
