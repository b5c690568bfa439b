//! A fault at the requests of a small migration, over HTTPS: the request is lost, its answer is
//! lost, the server fails or refuses, the program is killed. Running again reaches the end.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use widentity::{
    execute::RunOptions,
    migrate::{Phase, transition::OldLabel},
    ops::migrate::{apply, finish, proofs},
    sandbox::faults::{Action, Rule},
};

use crate::migrate_sandbox::{World, allowed, names};

/// What is done with one workload, in order.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Apply,
    Finish,
    Rollback,
}

const STAGES: [Stage; 3] = [Stage::Apply, Stage::Finish, Stage::Rollback];

/// What happens to one request.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Lost,
    AnswerLost,
    ServerError,
    Conflict,
    Kill,
}

const KINDS: [Kind; 5] =
    [Kind::Lost, Kind::AnswerLost, Kind::ServerError, Kind::Conflict, Kind::Kill];

fn rule(nth: u64, kind: Kind) -> Rule {
    let status = |status| Action::Answer {
        status,
        code: "Conflict".to_owned(),
        message: "a fault of the test".to_owned(),
        retry_after: None,
    };
    let any = || "*".to_owned();
    let action = match kind {
        Kind::Lost => Action::Reset,
        Kind::AnswerLost => Action::ReplyLost,
        Kind::ServerError => status(500),
        Kind::Conflict => status(409),
        Kind::Kill => Action::Stall,
    };
    Rule { service: any(), method: any(), path: any(), nth, times: 1, action }
}

/// One run of a command for one workload. What it answers is not asked: it may have failed.
async fn run(world: &World, stage: Stage, account: &str) {
    let name = format!("shop/{account}");
    let now = Timestamp::now();
    let (_never, interrupt) = watch::channel(false);
    let options = || RunOptions {
        rollout_deadline: Duration::from_secs(20),
        looks_apart: Duration::from_millis(200),
        ..RunOptions::new(now, interrupt.clone())
    };
    let mut quiet = |_: &_| {};
    match stage {
        Stage::Apply => {
            let mut read = world.overview().await;
            read.retain(|_, workload| workload.name() == name);
            read.take_up();
            let old = OldLabel::Drop;
            let desired = &world.desired;
            let moves = apply::moves(desired, &read, &world.connected, "w.toml", now, old).await;
            for one in &moves {
                let (request, connected) = (world.request(), &world.connected);
                let done = apply::apply(one, &read, request, connected, options(), &mut quiet);
                drop(done.await);
            }
        }
        Stage::Finish => {
            let read = world.overview_after(SignedDuration::ZERO).await;
            let chosen = BTreeSet::from([name]);
            let (request, connected, config) = (world.request(), &world.connected, "w.toml");
            let cluster = &read.clusters[0];
            let (options, quiet) = (options(), &mut quiet);
            let proofs =
                proofs::prove(request, config, cluster, &chosen, connected, options, quiet).await;
            let proved = proofs.unwrap().map(|proofs| proofs.passed).unwrap_or_default();
            let what = finish::decide(cluster, allowed(&proved));
            drop(finish::finish(cluster, &what, &world.finishing(&proved)).await);
        }
        Stage::Rollback => {
            let read = world.overview().await;
            let cluster = &read.clusters[0];
            let backup = cluster.estate.backups.iter().find(|b| b.account.as_str() == account);
            if let Some(backup) = backup {
                drop(world.undo(cluster, backup, world.request()).await);
            }
        }
    }
}

/// The phase of a workload, and how many Pod Identity objects there are for it.
async fn standing(world: &World, account: &str) -> (Option<Phase>, usize) {
    let read = world.overview().await;
    let cluster = &read.clusters[0];
    assert_eq!(read.unseen().count(), 0);
    let workload = cluster.survey.workloads.iter().find(|w| w.account.as_str() == account);
    let bindings = cluster.estate.bindings.iter().filter(|b| b.name == account).count();
    let identities = cluster.estate.identities.iter().filter(|i| i.name == account).count();
    (workload.map(|w| w.phase), bindings + identities)
}

/// Takes one workload there and back with at most one fault; how many requests each stage made
/// until the fault, and whether it was met.
async fn lap(world: &World, account: &str, fault: Option<(Stage, u64, Kind)>) -> ([u64; 3], bool) {
    let faults = &world.running.context().faults;
    let mut counts = [0; 3];
    let mut met = false;
    for (n, stage) in STAGES.into_iter().enumerate() {
        let here = fault.filter(|(of, ..)| *of == stage);
        faults.clear();
        let (nth, kind) = here.map_or((u64::MAX, Kind::Lost), |(_, nth, kind)| (nth, kind));
        faults.add(rule(nth, kind));
        let seen = || faults.list().first().map_or(0, |(_, seen)| *seen);
        let killed = async {
            // The request is under way and never answered: the program ends here.
            while !matches!(kind, Kind::Kill) || seen() < nth {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = Box::pin(run(world, stage, account)) => {}
            () = killed => {}
        }
        counts[n] = seen();
        met |= here.is_some() && seen() >= nth;
        faults.clear();
        let wanted = match stage {
            Stage::Apply => (Some(Phase::Soaking), 2),
            Stage::Finish => (Some(Phase::Cleaned), 0),
            Stage::Rollback => (Some(Phase::RolledBack), 2),
        };
        let mut now = standing(world, account).await;
        for _ in 0..3 {
            if now == wanted {
                break;
            }
            Box::pin(run(world, stage, account)).await;
            now = standing(world, account).await;
        }
        assert_eq!(now, wanted, "{account}: {stage:?} after {fault:?}");
    }
    (counts, met)
}

/// Workloads of one world.
const SHARE: usize = 16;
/// Worlds at once.
const WORLDS: usize = 3;

/// Laps for these faults, each with a workload of its own, a few worlds side by side. The answer
/// is how many faults were met.
async fn laps(faults: &[(Stage, u64, Kind)]) -> usize {
    let tasks = faults.chunks(SHARE).map(|part| async move {
        let accounts = names(part.len());
        let world = World::start(&accounts).await;
        let mut met = 0;
        for (account, fault) in accounts.iter().zip(part) {
            met += usize::from(lap(&world, account, Some(*fault)).await.1);
        }
        met
    });
    stream::iter(tasks).buffer_unordered(WORLDS).fold(0, async |sum, met| sum + met).await
}

/// Every request of each stage, as it goes when nothing fails.
async fn requests() -> Vec<(Stage, u64)> {
    let world = World::start(&names(1)).await;
    let (counts, _) = lap(&world, "w000", None).await;
    assert!(counts[0] > 30 && counts[1] > 20 && counts[2] > 10, "{counts:?}");
    let all = STAGES.into_iter().zip(counts);
    all.flat_map(|(stage, count)| (1..=count).map(move |n| (stage, n))).collect()
}

/// Every eleventh request, each with another fault than its neighbours.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_on_the_way_is_repaired_by_running_again() {
    let all = requests().await;
    let some = all.iter().step_by(11).enumerate();
    let some: Vec<_> = some.map(|(n, (stage, nth))| (*stage, *nth, KINDS[n % 5])).collect();
    let met = laps(&some).await;
    // A stage that polls makes a few requests more or less.
    assert!(met + 3 >= some.len(), "{met} of {}", some.len());
}

/// Every request in turn. `cargo test --test it every_request -- --ignored --test-threads 1`.
async fn every_request(kind: Kind) {
    let all = requests().await;
    let all: Vec<_> = all.into_iter().map(|(stage, nth)| (stage, nth, kind)).collect();
    let met = laps(&all).await;
    assert!(met + all.len() / 10 >= all.len(), "{met} of {}", all.len());
    let covered = format!("{kind:?}: {met} of {} requests\n", all.len());
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(folder.join(format!("migrate-{kind:?}")), covered).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some 150 laps: minutes"]
async fn every_request_may_be_lost() {
    every_request(Kind::Lost).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some 150 laps: minutes"]
async fn every_request_may_lose_its_answer() {
    every_request(Kind::AnswerLost).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some 150 laps: minutes"]
async fn every_request_may_meet_a_broken_server() {
    every_request(Kind::ServerError).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some 150 laps: minutes"]
async fn every_request_may_be_refused() {
    every_request(Kind::Conflict).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "some 150 laps: minutes"]
async fn every_request_may_be_the_last() {
    every_request(Kind::Kill).await;
}
