//! Every shape of `tests/migrate` to its end: what is ready ends proved and then without Pod
//! Identity, or, where its application cannot sign in, with the fields it had; what is not ready is
//! as it was.

use jiff::SignedDuration;
use widentity::{
    migrate::{Phase, Verdict, Workload, removal::Allowed, transition::OldLabel},
    ops::migrate::{PutBack, finish},
};

use crate::{
    migrate::{Fixture, fixtures},
    support::{
        fake::locked,
        moving_in,
        town::{Ran, Town},
    },
};

/// The fixtures in which everything could be seen, each with a town of its own.
fn towns() -> Vec<(String, Fixture, Town)> {
    let seen = fixtures().into_iter().filter(|(_, fixture)| fixture.estate.unseen.is_empty());
    let town = |fixture: &Fixture| {
        moving_in::town(&fixture.estate, &fixture.workloads(), fixture.may_enable)
    };
    seen.map(|(name, fixture)| (name, town(&fixture), fixture)).map(|(n, t, f)| (n, f, t)).collect()
}

fn ready(workload: &Workload) -> bool {
    workload.verdict == Verdict::Ready && !workload.phase.is_switched()
}

fn named<'a>(workloads: &'a [Workload], name: &str) -> Option<&'a Workload> {
    workloads.iter().find(|workload| workload.name() == name)
}

/// Runs `apply` until it has nothing to do; what failed or was not begun, for messages.
async fn applied(town: &Town) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..3 {
        let Ran::Ended(moved) = town.apply(OldLabel::Drop).await else { unreachable!() };
        let steps = moved.into_iter().flat_map(|moved| moved.report.steps);
        let outcomes = steps.map(|step| format!("{}: {:?}", step.info.address, step.outcome));
        told.extend(outcomes.filter(|told| !told.contains("Done") && !told.contains("Unchanged")));
    }
    told
}

fn nothing_wrong(name: &str, town: &Town) {
    let wrong = locked(&town.fake.wrong).clone();
    assert!(wrong.is_empty(), "{name}: {wrong:#?}\n{:#?}", town.fake.calls());
}

/// A town is what its fixture says, or the tests below say nothing.
#[test]
fn a_town_is_what_was_recorded() {
    for (name, fixture, town) in towns() {
        let workloads = town.workloads();
        assert_eq!(workloads.len(), fixture.expect.len(), "{name}");
        for workload in &workloads {
            let expected = &fixture.expect[&workload.name()];
            let reasons: Vec<&str> = workload.reasons.iter().map(|r| r.code.as_str()).collect();
            assert_eq!(reasons, expected.reasons, "{name}");
            // Here no soak is asked for.
            let phase = match expected.phase {
                Phase::Soaking => Phase::Soaked,
                phase => phase,
            };
            assert_eq!(workload.phase, phase, "{name}: {workload:#?}");
        }
    }
}

#[tokio::test]
async fn every_shape_ends_proved_or_is_left_alone() {
    let mut proved = 0;
    for (name, _, town) in towns() {
        let (before, labels) = (town.workloads(), town.labels());
        let told = applied(&town).await;
        nothing_wrong(&name, &town);
        let after = town.workloads();
        for workload in &before {
            let now = named(&after, &workload.name()).unwrap();
            if ready(workload) {
                assert_eq!(now.phase, Phase::Soaked, "{name}: {told:#?}\n{now:#?}");
                assert_eq!((now.pods, now.proved), (workload.pods, workload.pods), "{name}");
                proved += 1;
            } else if !workload.may_move() {
                for template in &workload.templates {
                    let key = format!("{}/{template}", workload.namespace);
                    assert_eq!(town.labels()[&key], labels[&key], "{name}: {key}");
                }
            }
        }
        for _ in 0..2 {
            let Ran::Ended(_) = town.finish(SignedDuration::ZERO).await else { unreachable!() };
        }
        nothing_wrong(&name, &town);
        let read = town.read(SignedDuration::ZERO);
        let all = read.survey.workloads.iter().map(Workload::name).collect();
        let allowed = Allowed { chosen: &all, proved: &all, unassign: false };
        let kept = finish::decide(&read, allowed).kept;
        for workload in before.iter().filter(|workload| ready(workload)) {
            let now = named(&read.survey.workloads, &workload.name()).unwrap();
            let held = now.bindings.iter().any(|b| kept.iter().any(|(k, _)| k.ends_with(b)));
            let add_on = read.estate.add_on.is_some();
            assert!(now.phase == Phase::Cleaned || held || add_on, "{name}: {now:#?}\n{kept:#?}");
        }
    }
    assert!(proved >= 29, "{proved}");
}

#[tokio::test]
async fn every_shape_whose_application_cannot_sign_in_ends_with_the_fields_it_had() {
    let mut back = 0;
    for (name, fixture, town) in towns() {
        let before = town.workloads();
        let rolls = |w: &&Workload| {
            ready(w)
                && w.pods > 0
                && !w.selectors.is_empty()
                && w.templates.iter().any(|t| !t.starts_with("cronjob/"))
        };
        let Some(workload) = before.iter().find(rolls) else { continue };
        let labels = town.labels();
        let accounts = town.read(SignedDuration::ZERO).estate.accounts;
        let failing =
            workload.templates.iter().map(|key| key.split_once('/').unwrap().1.to_owned());
        locked(&town.fake.failing).extend(failing);
        let Ran::Ended(moved) = town.apply(OldLabel::Drop).await else { unreachable!() };
        let moved = moved.unwrap_or_else(|| panic!("{name}: nothing was due"));
        assert!(!moved.put_back.is_empty(), "{name}: {moved:#?}");
        nothing_wrong(&name, &town);
        // Where no NMI runs nobody would answer the old label: the old pods serve on, and somebody
        // decides.
        let nmi =
            town.read(SignedDuration::ZERO).estate.installs.iter().any(|i| i.component == "nmi");
        if !nmi && fixture.estate.add_on.is_none() {
            let hindered = |(_, how): &(String, PutBack)| matches!(how, PutBack::Hindered(_));
            if moved.put_back.iter().all(hindered) {
                continue;
            }
        }
        for template in &workload.templates {
            let key = format!("{}/{template}", workload.namespace);
            assert_eq!(town.labels()[&key], labels[&key], "{name}: {key}");
        }
        let now = town.read(SignedDuration::ZERO);
        let same = now.estate.accounts.iter().filter(|a| a.name == workload.account);
        for account in same {
            let had = accounts
                .iter()
                .find(|a| (&a.namespace, &a.name) == (&account.namespace, &account.name));
            assert_eq!(
                had.and_then(|a| a.client_id.as_ref()),
                account.client_id.as_ref(),
                "{name}"
            );
        }
        let phase = named(&now.survey.workloads, &workload.name()).unwrap().phase;
        assert_eq!(phase, Phase::RolledBack, "{name}");
        back += 1;
    }
    assert!(back >= 22, "{back}");
}
