//! The executor against an in-memory world: order, preconditions, faults at every call, early ends.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};
use widentity::{
    execute::{
        self, ApplyReport, Event, Limits, Outcome, RunOptions,
        event::{Cancelled, Evidence},
        exit,
        remote::AccountRef,
    },
    model::{
        Address, ClusterName, FailureKind, Issuer, Namespace,
        desired::{DesiredState, Feature},
        names,
        snapshot::*,
    },
    plan::{Operation, Plan, PlanOptions, PlanReport, StepId, plan},
    prove::How,
};

use crate::support::{
    fake::{Fake, Fault, Rollouts, accounts, kubernetes, present, templates},
    worlds::{self, add_workload, bare_world, desired},
};

/// Everything that waits is quick, and nobody interrupts.
fn options() -> RunOptions {
    let (_, interrupt) = watch::channel(false);
    RunOptions {
        settle: Duration::from_millis(30),
        rollout_deadline: Duration::from_millis(60),
        pods_deadline: Duration::from_millis(20),
        looks_apart: Duration::from_millis(2),
        grace: Duration::from_millis(200),
        ..RunOptions::new(Timestamp::UNIX_EPOCH, interrupt)
    }
}

fn planned(desired: &DesiredState, fake: &Fake) -> (Plan, PlanReport) {
    plan(desired, &fake.world(), PlanOptions::default())
}

struct Ran {
    report: ApplyReport,
    events: Vec<Event>,
}

async fn run_with(plan: &Plan, fake: &Fake, options: RunOptions) -> Ran {
    let mut events = Vec::new();
    let report = execute::run(plan, fake, options, &mut |event| events.push(event.clone())).await;
    let report = report.unwrap();
    assert_eq!(report, ApplyReport::fold(&events), "the report is the sum of the events");
    let mut ended = BTreeSet::new();
    for event in &events {
        if let Event::StepFinished { id, .. } = event {
            assert!(ended.insert(*id), "{id:?} ended twice");
        }
    }
    assert_eq!(ended.len(), plan.steps.len(), "every step ends");
    Ran { report, events }
}

async fn run(plan: &Plan, fake: &Fake) -> Ran {
    run_with(plan, fake, options()).await
}

/// Two workloads in two clusters, one of which they share.
fn two() -> DesiredState {
    let mut desired = desired(&["east", "west"]);
    add_workload(&mut desired, "shop", "cart", &["east", "west"], None, &["kv-cart"]);
    add_workload(&mut desired, "shop-b", "pay", &["east"], None, &["kv-pay"]);
    desired
}

fn one() -> DesiredState {
    let mut desired = desired(&["east"]);
    add_workload(&mut desired, "shop", "cart", &["east"], None, &["kv-cart"]);
    desired
}

fn code(plan: &PlanReport, report: &ApplyReport) -> u8 {
    exit::of_apply(plan, report).code()
}

fn find(plan: &Plan, which: impl Fn(&Operation) -> bool) -> StepId {
    plan.steps.iter().find(|step| which(&step.operation)).unwrap().id
}

fn outcome(report: &ApplyReport, id: StepId) -> &Outcome {
    report.step(id).unwrap().outcome.as_ref().unwrap()
}

/// Nothing is left to do and live pods carry today's values.
fn assert_converged(desired: &DesiredState, fake: &Fake, context: &str) {
    let (plan, report) = planned(desired, fake);
    assert_eq!(plan.changes, [], "{context}");
    assert!(report.is_clear(), "{context}: {report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_whole_plan_is_carried_out_in_order_and_a_second_one_is_empty() {
    let desired = two();
    let fake = Fake::new(bare_world(&desired));
    let (plan, seen) = planned(&desired, &fake);
    let Ran { report, events } = run(&plan, &fake).await;
    assert_eq!(report.counts.done, plan.steps.len(), "{report:#?}");
    assert_eq!((report.objects.added, report.objects.changed), plan.counts());
    assert_eq!((report.proofs.good, report.proofs.of), (3, 3));
    assert_eq!(report.pods_proved, 6);
    assert_eq!(code(&seen, &report), 0);
    assert!(matches!(events.first(), Some(Event::RunStarted { .. })));
    assert_converged(&desired, &fake, "after a whole run");

    // Principals of a moment ago have no assignments or credentials to look for.
    let calls = fake.calls();
    assert!(!calls.iter().any(|call| call.starts_with("credentials ")), "{calls:?}");

    let (again, seen) = planned(&desired, &fake);
    let before = fake.writes().len();
    let Ran { report, .. } = run(&again, &fake).await;
    assert_eq!(fake.writes().len(), before, "nothing is written again");
    assert_eq!((report.proofs.good, report.proofs.of), (3, 3));
    assert!(!report.written);
    assert_eq!(code(&seen, &report), 0);
}

#[tokio::test(start_paused = true)]
async fn the_same_plan_run_again_finds_everything_done() {
    let desired = two();
    let fake = Fake::new(bare_world(&desired));
    let (plan, _) = planned(&desired, &fake);
    let _first = run(&plan, &fake).await;
    let writes = fake.writes().len();
    let Ran { report, .. } = run(&plan, &fake).await;
    assert_eq!(fake.writes().len(), writes, "nothing is written twice");
    assert_eq!(report.counts.failed + report.counts.stale + report.counts.skipped, 0);
    assert_eq!((report.objects.added, report.objects.changed), (0, 0));
    assert!(!report.written);
}

/// Any one call fails, before or after it took effect: the run tells, and running again repairs.
#[tokio::test(start_paused = true)]
async fn a_fault_at_any_call_is_repaired_by_running_again() {
    let desired = two();
    let clean = Fake::new(bare_world(&desired));
    let (plan, _) = planned(&desired, &clean);
    let _clean = run(&plan, &clean).await;
    let calls = clean.calls().len();
    assert!(calls > 40, "{calls}");
    let faults = [
        Fault::Before(FailureKind::Unavailable),
        Fault::After(FailureKind::Unavailable),
        Fault::Before(FailureKind::Denied),
        Fault::Before(FailureKind::Conflict),
    ];
    for fault in faults {
        for at in 0..calls {
            let context = format!("{fault:?} at call {at}");
            let once = fault.clone();
            let fake = Fake::new(bare_world(&desired))
                .with_faults(move |number, _| (number == at).then(|| once.clone()));
            let (plan, seen) = planned(&desired, &fake);
            let Ran { report, .. } = run(&plan, &fake).await;
            let counts = report.counts;
            // Looks at a rollout and at the webhook are repeated: such a fault may pass unseen.
            let hurt = counts.failed + counts.stale;
            assert!(hurt <= 1, "{context}: {counts:?}");
            assert_eq!(code(&seen, &report) == 0, hurt == 0, "{context}");
            if counts.failed == 1 && matches!(fault, Fault::After(_)) {
                let write = fake.calls()[at].clone();
                if fake.writes().contains(&write) {
                    assert!(report.written, "{context}: {write}");
                }
            }
            let (again, _) = planned(&desired, &fake);
            let Ran { report, .. } = run(&again, &fake).await;
            assert_eq!(report.counts.failed + report.counts.stale, 0, "{context}: {report:#?}");
            assert_converged(&desired, &fake, &context);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_workload_does_not_hold_another_one() {
    let desired = two();
    let fake = Fake::new(bare_world(&desired)).with_faults(|_, call| {
        call.starts_with("prove west/shop/cart").then_some(Fault::Before(FailureKind::NotProved))
    });
    let (plan, seen) = planned(&desired, &fake);
    let Ran { report, .. } = run(&plan, &fake).await;
    assert_eq!(report.counts.failed, 1);
    assert_eq!((report.proofs.good, report.proofs.of), (2, 3));
    let west = ClusterName::from("west");
    for step in &report.steps {
        let here = step.info.workloads.iter().all(|workload| {
            matches!(workload, Address::Workload { cluster: Some(name), .. } if *name == west)
        });
        match step.outcome.as_ref().unwrap() {
            Outcome::Done { .. } => {}
            Outcome::Failed { .. } | Outcome::Skipped { .. } => {
                assert!(here, "{}", step.info.address);
            }
            Outcome::Unchanged { .. } | Outcome::Cancelled { .. } | Outcome::Stale { .. } => {
                panic!("{}", step.info.address);
            }
        }
    }
    let annotated = fake.writes().iter().filter(|w| w.starts_with("apply_account")).count();
    assert_eq!(annotated, 2, "the account without a proof is left alone");
    assert_eq!(code(&seen, &report), 7, "only a proof failed");
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_appeared_meanwhile_is_never_put() {
    let desired = one();
    let fake = Fake::new(bare_world(&desired));
    let (plan, seen) = planned(&desired, &fake);
    let id = desired.identities.keys().next().unwrap().clone();
    let other = ObservedIdentity {
        client_id: "00000000-0000-0000-0000-0000000000c1".parse().unwrap(),
        principal_id: "00000000-0000-0000-0000-0000000000d1".parse().unwrap(),
        tenant_id: worlds::tenant(),
        location: "westeurope".to_owned(),
        tags: [(names::PROJECT_TAG.to_owned(), "theirs".to_owned())].into(),
        id: id.clone(),
    };
    fake.world().identities.insert(id, Observation::Present(other));
    let Ran { report, .. } = run(&plan, &fake).await;
    assert!(!fake.writes().iter().any(|w| w.starts_with("create_identity")));
    let made = find(&plan, |o| matches!(o, Operation::CreateIdentity { .. }));
    let Outcome::Stale { what, written: false } = outcome(&report, made) else {
        panic!("{report:#?}")
    };
    assert!(what.contains("project theirs"), "{what}");
    // The bare account does not need the identity; all else does.
    assert!(report.with(|o| *o == Outcome::Skipped { because: made }).count() >= 4);
    assert_eq!(code(&seen, &report), 3);
}

#[tokio::test(start_paused = true)]
async fn tags_of_others_are_kept_and_changed_ones_are_stale() {
    let desired = one();
    let mut world = bare_world(&desired);
    let (id, wanted) = desired.identities.iter().next().unwrap();
    let mut tags = wanted.tags.clone();
    tags.remove(names::SOURCE_TAG);
    tags.insert("CostCenter".to_owned(), "4711".to_owned());
    let seen = ObservedIdentity {
        client_id: "00000000-0000-0000-0000-0000000000c1".parse().unwrap(),
        principal_id: "00000000-0000-0000-0000-0000000000d1".parse().unwrap(),
        tenant_id: worlds::tenant(),
        location: "westeurope".to_owned(),
        tags,
        id: id.clone(),
    };
    world.identities.insert(id.clone(), Observation::Present(seen));
    world.credentials.insert(id.clone(), Observation::Present(Vec::new()));

    let fake = Fake::new(world.clone());
    let (plan, _) = planned(&desired, &fake);
    // A tag that nobody planned for appears between plan and apply.
    let late = ("Owner".to_owned(), "team".to_owned());
    match fake.world().identities.get_mut(id).unwrap() {
        Observation::Present(identity) => identity.tags.extend([late]),
        Observation::Absent | Observation::Unknown(_) => panic!("absent"),
    }
    let Ran { report, .. } = run(&plan, &fake).await;
    assert_eq!(report.counts.done, plan.steps.len());
    let tags = fake.world().identities[id].present().unwrap().tags.clone();
    assert_eq!(tags.get("CostCenter").map(String::as_str), Some("4711"));
    assert_eq!(tags.get("Owner").map(String::as_str), Some("team"));
    assert!(tags.contains_key(names::SOURCE_TAG));

    let fake = Fake::new(world);
    match fake.world().identities.get_mut(id).unwrap() {
        Observation::Present(identity) => {
            identity.tags.insert(names::SOURCE_TAG.to_owned(), "elsewhere".to_owned());
        }
        Observation::Absent | Observation::Unknown(_) => panic!("absent"),
    }
    let Ran { report, .. } = run(&plan, &fake).await;
    let tag = find(&plan, |o| matches!(o, Operation::TagIdentity { .. }));
    assert!(matches!(outcome(&report, tag), Outcome::Stale { .. }));
}

/// Azure does not tell tag names apart by case, and keeps the case of the first writer.
#[tokio::test(start_paused = true)]
async fn tags_are_written_under_the_name_that_is_there() {
    let mut desired = one();
    let fake = Fake::new(bare_world(&desired));
    let (plan, _) = planned(&desired, &fake);
    run(&plan, &fake).await;
    let id = desired.identities.keys().next().unwrap().clone();
    let tags = &mut desired.identities.get_mut(&id).unwrap().tags;
    tags.insert("costcenter".to_owned(), "2".to_owned());
    present(fake.world().identities.get_mut(&id).unwrap())
        .tags
        .insert("CostCenter".to_owned(), "1".to_owned());
    let (plan, _) = planned(&desired, &fake);
    let Ran { report, .. } = run(&plan, &fake).await;
    assert_eq!(report.objects.changed, 1);
    let tags = fake.world().identities[&id].present().unwrap().tags.clone();
    assert_eq!(tags.get("CostCenter").map(String::as_str), Some("2"));
    assert_eq!(tags.get("costcenter"), None);
    assert_converged(&desired, &fake, "after the tag was changed");
}

/// Another spelling of the same client id would be a conflict with whoever wrote it.
#[tokio::test(start_paused = true)]
async fn a_client_id_keeps_the_spelling_it_has() {
    let desired = one();
    let fake = Fake::new(bare_world(&desired));
    let (plan, _) = planned(&desired, &fake);
    run(&plan, &fake).await;
    let (cluster, namespace) = (ClusterName::from("east"), Namespace::from("shop"));
    let account = "cart".into();
    let at = AccountRef { cluster: &cluster, namespace: &namespace, account: &account };
    let loud = {
        let mut world = fake.world();
        let meta = &mut accounts(&mut world, at).get_mut(&account).unwrap().meta;
        meta.annotations.remove(names::TENANT_ID_ANNOTATION);
        let client = meta.annotations.get_mut(names::CLIENT_ID_ANNOTATION).unwrap();
        client.make_ascii_uppercase();
        client.clone()
    };
    let (plan, _) = planned(&desired, &fake);
    run(&plan, &fake).await;
    let mut world = fake.world();
    let annotations = &accounts(&mut world, at)[&account].meta.annotations;
    assert_eq!(annotations[names::CLIENT_ID_ANNOTATION], loud);
    assert!(annotations.contains_key(names::TENANT_ID_ANNOTATION));
}

/// A POST without an answer is looked after: the account is there, or it is made once more.
#[tokio::test(start_paused = true)]
async fn an_account_whose_making_got_no_answer_is_looked_for() {
    let desired = one();
    for fault in [Fault::After(FailureKind::Unavailable), Fault::Before(FailureKind::Unreachable)] {
        let mut world = bare_world(&desired);
        let (cluster, namespace) = (ClusterName::from("east"), Namespace::from("shop"));
        present(kubernetes(&mut world, &cluster).accounts.get_mut(&namespace).unwrap()).clear();
        let clean = Fake::new(world.clone());
        let (plan, seen) = planned(&desired, &clean);
        run(&plan, &clean).await;
        let calls = clean.calls();
        let at = calls.iter().position(|call| call.starts_with("create_account ")).unwrap();
        let once = fault.clone();
        let fake =
            Fake::new(world).with_faults(move |number, _| (number == at).then(|| once.clone()));
        let Ran { report, .. } = run(&plan, &fake).await;
        assert_eq!(code(&seen, &report), 0, "{fault:?}: {report:#?}");
        assert_converged(&desired, &fake, "after the account was made");
    }
}

#[tokio::test(start_paused = true)]
async fn a_template_that_was_recreated_or_changed_is_stale() {
    let desired = one();
    let east = ClusterName::from("east");
    let changes: [fn(&mut ObservedTemplate); 3] = [
        |template| template.uid = "another".to_owned(),
        |template| {
            template.labels.insert(names::USE_LABEL.to_owned(), "false".to_owned());
        },
        |template| template.account = "somebody".into(),
    ];
    for change in changes {
        let fake = Fake::new(bare_world(&desired));
        let (plan, seen) = planned(&desired, &fake);
        {
            let mut world = fake.world();
            let cluster = world.clusters.get_mut(&east).unwrap();
            let Observation::Present(kubernetes) = &mut cluster.kubernetes else { panic!() };
            let templates = kubernetes.templates.get_mut(&Namespace::from("shop")).unwrap();
            let Observation::Present(templates) = templates else { panic!() };
            change(&mut templates[0]);
        }
        let Ran { report, .. } = run(&plan, &fake).await;
        let roll = find(&plan, Operation::rolls);
        assert!(matches!(outcome(&report, roll), Outcome::Stale { written: false, .. }));
        assert!(!fake.writes().iter().any(|w| w.starts_with("apply_template")));
        assert_eq!(report.breaker, None, "a stale rollout says nothing about the others");
        assert_eq!(code(&seen, &report), 3);
    }
}

/// Somebody takes the label away while the pods roll: the template was written all the same.
#[tokio::test(start_paused = true)]
async fn a_rollout_that_goes_stale_after_its_write_has_written() {
    let desired = two();
    let mut fake = Fake::new(bare_world(&desired));
    fake.rollouts = Rollouts::Never;
    let (plan, seen) = planned(&desired, &fake);
    let taken = async {
        let patched = || fake.writes().iter().find(|w| w.starts_with("apply_template")).cloned();
        let write = loop {
            match patched() {
                Some(write) => break write,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut parts = write.split_once(' ').unwrap().1.split('/');
        let (cluster, namespace) = (parts.next().unwrap().into(), parts.next().unwrap().into());
        for template in templates(&mut fake.world(), &cluster, &namespace) {
            template.labels.remove(names::USE_LABEL);
            template.progress.generation += 1;
            template.progress.observed_generation += 1;
        }
    };
    let (Ran { report, .. }, ()) = tokio::join!(run(&plan, &fake), taken);
    let stale = report.with(|o| matches!(o, Outcome::Stale { written: true, .. })).next().unwrap();
    assert_eq!((report.counts.stale, report.breaker), (1, Some(stale.info.id)));
    assert!(report.objects.changed >= 1, "its template was patched");
    assert_eq!(code(&seen, &report), 3);
}

/// Nobody answers for the write of a template: it is looked at, and written again if need be.
#[tokio::test(start_paused = true)]
async fn a_write_of_a_template_without_an_answer_is_looked_at_and_made_again() {
    let desired = one();
    for (fault, times, writes, ends_well) in [
        (Fault::After(FailureKind::Unreachable), 1, 1, true),
        (Fault::Before(FailureKind::Unavailable), 1, 2, true),
        (Fault::Before(FailureKind::Unreachable), 2, 3, true),
        (Fault::Before(FailureKind::Unreachable), 9, 3, false),
        (Fault::Before(FailureKind::Refused), 1, 1, false),
    ] {
        let seen = std::sync::atomic::AtomicUsize::new(0);
        let met = fault.clone();
        let fake = Fake::new(bare_world(&desired)).with_faults(move |_, call| {
            let hit = call.starts_with("apply_template")
                && seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < times;
            hit.then(|| met.clone())
        });
        let (plan, _) = planned(&desired, &fake);
        let Ran { report, .. } = run(&plan, &fake).await;
        let patched = fake.writes().iter().filter(|w| w.starts_with("apply_template")).count();
        let roll = find(&plan, Operation::rolls);
        let done = matches!(outcome(&report, roll), Outcome::Done { .. });
        assert_eq!((patched, done), (writes, ends_well), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_rollout_stops_the_others_and_says_how_to_take_it_back() {
    let desired = two();
    let mut fake = Fake::new(bare_world(&desired));
    fake.rollouts = Rollouts::Fail;
    let (plan, seen) = planned(&desired, &fake);
    let Ran { report, events } = run(&plan, &fake).await;
    let patched = fake.writes().iter().filter(|w| w.starts_with("apply_template")).count();
    assert_eq!(patched, 1, "one rollout first");
    let failed = report.with(|o| matches!(o, Outcome::Failed { .. })).next().unwrap();
    let Some(Outcome::Failed { failure, written }) = &failed.outcome else { panic!() };
    assert!(written);
    assert!(failure.message.starts_with("ProgressDeadlineExceeded: "), "{}", failure.message);
    let hint = failure.hint.as_ref().unwrap();
    assert!(hint.starts_with("kubectl --context ") && hint.contains(" rollout undo deployment/"));
    let held =
        |o: &Outcome| matches!(o, Outcome::Cancelled { why: Cancelled::Breaker, written: false });
    assert_eq!(report.with(held).count(), 2);
    assert_eq!(report.breaker, Some(failed.info.id));
    assert!(events.iter().any(|event| matches!(event, Event::BreakerOpen { .. })));
    assert_eq!(code(&seen, &report), 7, "only a rollout failed");
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_not_proved_after_a_rollout_stop_the_others() {
    let desired = two();
    let clean = Fake::new(bare_world(&desired));
    let (plan, _) = planned(&desired, &clean);
    // One at a time, so that some are left while the pods of the first are looked at.
    let one_by_one = || {
        let limits = Limits { rollouts: 1, ..Limits::default() };
        RunOptions { limits, ..options() }
    };
    let _clean = run_with(&plan, &clean, one_by_one()).await;
    let mut seen_one = false;
    for (at, call) in clean.calls().iter().enumerate() {
        if !call.starts_with("pods ") {
            continue;
        }
        // As if its pods had other values.
        let fault = Fault::Before(FailureKind::NotProved);
        let fake = Fake::new(bare_world(&desired))
            .with_faults(move |number, _| (number == at).then(|| fault.clone()));
        let Ran { report, events } = run_with(&plan, &fake, one_by_one()).await;
        // A look at a rollout is repeated: such a fault passes.
        let Some(failed) = report.with(|o| matches!(o, Outcome::Failed { .. })).next() else {
            continue;
        };
        let held = |o: &Outcome| matches!(o, Outcome::Cancelled { why: Cancelled::Breaker, .. });
        let held = report.with(held).count();
        let proves = matches!(plan.steps[failed.info.id.0].operation, Operation::ProvePods { .. });
        if !proves || held == 0 {
            continue;
        }
        seen_one = true;
        assert_eq!(report.breaker, Some(failed.info.id));
        assert!(events.iter().any(|event| matches!(event, Event::BreakerOpen { .. })));
    }
    assert!(seen_one, "a proof of pods fails while rollouts are left");
}

/// A call that is refused before a template was written says nothing about other rollouts.
#[tokio::test(start_paused = true)]
async fn a_rollout_that_could_not_begin_stops_no_other() {
    let desired = two();
    let clean = Fake::new(bare_world(&desired));
    let (plan, seen) = planned(&desired, &clean);
    let _clean = run(&plan, &clean).await;
    let at = clean.calls().iter().position(|call| call.starts_with("template ")).unwrap();
    for kind in [FailureKind::Unavailable, FailureKind::Unreachable, FailureKind::Denied] {
        let fake = Fake::new(bare_world(&desired))
            .with_faults(move |number, _| (number == at).then_some(Fault::Before(kind)));
        let Ran { report, .. } = run(&plan, &fake).await;
        assert_eq!((report.counts.failed, report.breaker), (1, None), "{kind:?}");
        let patched = fake.writes().iter().filter(|w| w.starts_with("apply_template")).count();
        assert_eq!(patched, 2, "{kind:?}");
        assert_ne!(code(&seen, &report), 0);
    }
}

/// Looks at pods are repeated: an API server may restart meanwhile.
#[tokio::test(start_paused = true)]
async fn a_look_at_pods_without_an_answer_is_repeated() {
    let desired = one();
    let clean = Fake::new(bare_world(&desired));
    let (plan, seen) = planned(&desired, &clean);
    let _clean = run(&plan, &clean).await;
    for what in ["templates ", "pods "] {
        let at = clean.calls().iter().rposition(|call| call.starts_with(what)).unwrap();
        let fake = Fake::new(bare_world(&desired)).with_faults(move |number, _| {
            (number == at).then_some(Fault::Before(FailureKind::Unavailable))
        });
        let Ran { report, .. } = run(&plan, &fake).await;
        assert_eq!(code(&seen, &report), 0, "{what}: {report:#?}");
    }
}

/// A controller that can make no pod is given a minute, and the failure says why it cannot.
#[tokio::test(start_paused = true)]
async fn pods_that_are_refused_end_the_rollout_with_the_reason() {
    let desired = one();
    let fake = Fake::new(bare_world(&desired));
    let (plan, _) = planned(&desired, &fake);
    run(&plan, &fake).await;
    let cluster = ClusterName::from("east");
    {
        let mut world = fake.world();
        let all = templates(&mut world, &cluster, &Namespace::from("shop"));
        let progress = &mut all[0].progress;
        (progress.updated, progress.total, progress.available) = (0, 0, 0);
        progress.hindered = Some("admission webhook \"w\" denied the request".to_owned());
        present(kubernetes(&mut world, &cluster).pods.get_mut(&Namespace::from("shop")).unwrap())
            .clear();
    }
    let (again, seen) = planned(&desired, &fake);
    let began = Instant::now();
    let patient = RunOptions { rollout_deadline: Duration::from_mins(10), ..options() };
    let Ran { report, .. } = run_with(&again, &fake, patient).await;
    let awaited = find(&again, |o| matches!(o, Operation::AwaitRollout { .. }));
    let Outcome::Failed { failure, .. } = outcome(&report, awaited) else { panic!("{report:#?}") };
    assert!(failure.message.contains("denied the request"), "{}", failure.message);
    assert!((60..70).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(code(&seen, &report), 7);
}

#[tokio::test(start_paused = true)]
async fn proofs_by_a_pod_are_what_was_asked_for_and_say_so() {
    let desired = one();
    let fake = Fake::new(bare_world(&desired));
    let (plan, _) = planned(&desired, &fake);
    let how = How::Pod { image: "example.test/curl".to_owned() };
    let Ran { report, .. } = run_with(&plan, &fake, RunOptions { how, ..options() }).await;
    let proof = find(&plan, |o| matches!(o, Operation::Prove { .. }));
    let Outcome::Done { evidence: Some(Evidence::Token { method, .. }), .. } =
        outcome(&report, proof)
    else {
        panic!("{report:#?}")
    };
    assert_eq!(method, "job");
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_does_not_finish_runs_into_its_deadline() {
    let desired = one();
    let mut fake = Fake::new(bare_world(&desired));
    fake.rollouts = Rollouts::Never;
    let (plan, seen) = planned(&desired, &fake);
    let Ran { report, events } = run(&plan, &fake).await;
    let roll = find(&plan, Operation::rolls);
    let Outcome::Failed { failure, written: true } = outcome(&report, roll) else {
        panic!("{report:#?}");
    };
    assert_eq!(failure.kind, FailureKind::TimedOut);
    assert!(failure.message.contains("1 of 2 pods"), "{}", failure.message);
    let waits = events.iter().any(|event| {
        matches!(event, Event::StepWaiting { id, what } if *id == roll && what.contains("1 of 2"))
    });
    assert!(waits, "{events:?}");
    assert_eq!(code(&seen, &report), 7);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_does_not_act_costs_no_pod() {
    let desired = one();
    let mut fake = Fake::new(bare_world(&desired));
    fake.webhook_works = false;
    let (plan, seen) = planned(&desired, &fake);
    let Ran { report, .. } = run(&plan, &fake).await;
    assert!(!fake.writes().iter().any(|w| w.starts_with("apply_template")));
    let check = find(&plan, |o| matches!(o, Operation::CheckInjection { .. }));
    assert!(matches!(outcome(&report, check), Outcome::Failed { written: false, .. }));
    assert_eq!(code(&seen, &report), 7);
}

#[tokio::test(start_paused = true)]
async fn a_role_that_is_assigned_already_is_used() {
    let desired = one();
    let fake = Fake::new(bare_world(&desired));
    let (plan, _) = planned(&desired, &fake);
    let _first = run(&plan, &fake).await;
    // Somebody else made the same assignment under a GUID of their own.
    {
        let mut world = fake.world();
        let theirs = &mut world.assignments.seen[0];
        theirs.name = "00000000-0000-0000-0000-00000000beef".to_owned();
    }
    let Ran { report, .. } = run(&plan, &fake).await;
    let assign = find(&plan, |o| matches!(o, Operation::PutAssignment { .. }));
    let Outcome::Unchanged { detail: Some(detail) } = outcome(&report, assign) else {
        panic!("{report:#?}");
    };
    assert!(detail.contains("beef"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn roles_settle_before_pods_move_to_another_identity() {
    let mut desired = one();
    let fake = Fake::new(bare_world(&desired));
    let (plan, _) = planned(&desired, &fake);
    let _first = run(&plan, &fake).await;
    // The file names another identity: its pods use the first one meanwhile.
    let mut other = worlds::desired(&["east"]);
    add_workload(&mut other, "shop", "cart", &["east"], Some("cart-2"), &["kv-cart"]);
    desired = other;
    let id = desired.identities.keys().next().unwrap().clone();
    fake.world().identities.insert(id, Observation::Absent);
    let (plan, _) = planned(&desired, &fake);
    let settle = find(&plan, |o| matches!(o, Operation::SettleRoles { .. }));
    let began = Instant::now();
    let Ran { report, .. } = run(&plan, &fake).await;
    assert!(began.elapsed() >= Duration::from_millis(30), "{:?}", began.elapsed());
    assert!(matches!(outcome(&report, settle), Outcome::Done { .. }));
    assert_eq!(report.counts.done, plan.steps.len(), "{report:#?}");
    let pods = report.steps.iter().find_map(|step| match &step.outcome {
        Some(Outcome::Done { evidence: Some(Evidence::Pods { pods }), .. }) => Some(*pods),
        _ => None,
    });
    assert_eq!(pods, Some(2));
    assert_converged(&desired, &fake, "after the identity was replaced");
}

/// A workload in a cluster whose features are off and may be switched on.
fn switched_off() -> (DesiredState, Fake) {
    let mut desired = one();
    let east = ClusterName::from("east");
    let cluster = desired.clusters.get_mut(&east).unwrap();
    cluster.enable = BTreeSet::from([Feature::OidcIssuer, Feature::WorkloadIdentity]);
    let mut world = bare_world(&desired);
    let seen = world.clusters.get_mut(&east).unwrap();
    let Observation::Present(arm) = &mut seen.arm else { panic!() };
    (arm.issuer, arm.workload_identity) = (None, false);
    let Observation::Present(kubernetes) = &mut seen.kubernetes else { panic!() };
    kubernetes.webhook = Observation::Absent;
    (desired, Fake::new(world))
}

/// Azure took the update of the cluster and failed later: its record may say otherwise than before.
#[tokio::test(start_paused = true)]
async fn an_update_that_was_accepted_and_failed_may_have_changed_something() {
    let (desired, fake) = switched_off();
    let fake = fake.with_faults(|_, call| {
        call.starts_with("enable_features").then_some(Fault::Before(FailureKind::Unfinished))
    });
    let (plan, _) = planned(&desired, &fake);
    let enable = find(&plan, |o| matches!(o, Operation::EnableFeatures { .. }));
    let Ran { report, .. } = run(&plan, &fake).await;
    assert!(matches!(outcome(&report, enable), Outcome::Failed { written: true, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_switched_on_issuer_reaches_the_credential_and_the_proof() {
    let (desired, fake) = switched_off();
    let (plan, seen) = planned(&desired, &fake);
    let Ran { report, .. } = run(&plan, &fake).await;
    assert_eq!(report.counts.done, plan.steps.len(), "{report:#?}");
    assert_eq!(code(&seen, &report), 0);
    let writes = fake.writes();
    assert!(writes[0].starts_with("create_identity") || writes[0].starts_with("enable_features"));
    let world = fake.world();
    let credentials = world.credentials.values().next().unwrap().present().unwrap();
    assert_eq!(credentials[0].issuer, worlds::issuer("east"));
}

#[tokio::test(start_paused = true)]
async fn another_cluster_behind_the_context_is_refused_before_the_first_write_there() {
    let desired = one();
    let east = ClusterName::from("east");
    let mut world = bare_world(&desired);
    let seen = world.clusters.get_mut(&east).unwrap();
    let Observation::Present(kubernetes) = &mut seen.kubernetes else { panic!() };
    // Neither the discovery document nor the host tells.
    kubernetes.evidence.host = "proxy.example.test".to_owned();
    kubernetes.evidence.issuer = Observation::Absent;
    let default = ObservedAccount { uid: "d".to_owned(), meta: ObjectMeta::default() };
    let accounts = kubernetes.accounts.get_mut(&Namespace::from("shop")).unwrap();
    let Observation::Present(accounts) = accounts else { panic!() };
    accounts.insert("default".into(), default);
    let mut fake = Fake::new(world);
    fake.other_issuers.insert(east, Issuer::from("https://another.example.test/"));
    let (plan, seen) = planned(&desired, &fake);
    let confirm = find(&plan, |o| matches!(o, Operation::ConfirmCluster { .. }));
    let Ran { report, .. } = run(&plan, &fake).await;
    let Outcome::Failed { failure, .. } = outcome(&report, confirm) else {
        panic!("{report:#?}");
    };
    assert_eq!(failure.code.as_deref(), Some("cluster-context-mismatch"));
    let kubernetes = ["create_account", "apply_account", "apply_template"];
    let writes = fake.writes();
    assert!(!writes.iter().any(|w| kubernetes.iter().any(|k| w.starts_with(k))), "{writes:?}");
    assert_eq!(code(&seen, &report), 3, "Azure was written, this cluster was not");
}

#[tokio::test(start_paused = true)]
async fn rollouts_can_be_left_to_later() {
    let desired = one();
    let fake = Fake::new(bare_world(&desired));
    let (plan, seen) = planned(&desired, &fake);
    let options = RunOptions { no_rollout: true, ..options() };
    let Ran { report, .. } = run_with(&plan, &fake, options).await;
    assert!(!fake.writes().iter().any(|w| w.starts_with("apply_template")));
    assert_eq!(report.counts.withheld, 2, "the rollout and the proof of its pods");
    assert_eq!(report.counts.cancelled + report.counts.skipped, 0);
    assert_eq!(code(&seen, &report), 0);
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_lets_a_write_in_flight_finish_and_begins_nothing() {
    let desired = two();
    let (interrupt, interrupted) = watch::channel(false);
    let fake = Fake::new(bare_world(&desired)).with_faults(move |_, call| {
        // The interrupt comes while the identities are being made.
        let making = call.starts_with("create_identity");
        making.then(|| {
            interrupt.send_replace(true);
            Fault::Slow(Duration::from_millis(20))
        })
    });
    let (plan, seen) = planned(&desired, &fake);
    let options = RunOptions { interrupt: interrupted, ..options() };
    let Ran { report, events } = run_with(&plan, &fake, options).await;
    assert!(events.contains(&Event::Interrupted));
    assert!(report.counts.done >= 1, "{report:#?}");
    assert_eq!(report.counts.failed + report.counts.skipped + report.counts.stale, 0);
    assert!(report.counts.cancelled > 0);
    assert!(!fake.writes().iter().any(|w| w.starts_with("put_")), "{:?}", fake.writes());
    assert_eq!(report.stopped, Some(Cancelled::Interrupted));
    assert_eq!(code(&seen, &report), 8);
    // What was begun is not lost.
    let fake = Fake::new(fake.world().clone());
    let (again, _) = planned(&desired, &fake);
    let Ran { report, .. } = run(&again, &fake).await;
    assert_eq!(report.counts.failed + report.counts.stale, 0);
    assert_converged(&desired, &fake, "after an interrupt");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_does_not_end_is_given_up_after_the_grace() {
    let desired = one();
    let fake = Fake::new(bare_world(&desired))
        .with_faults(|_, call| call.starts_with("put_credential").then_some(Fault::Hangs));
    let (plan, seen) = planned(&desired, &fake);
    let timeout = Some(Duration::from_millis(30));
    let options = RunOptions { timeout, grace: Duration::from_millis(50), ..options() };
    let began = Instant::now();
    let Ran { report, events } = run_with(&plan, &fake, options).await;
    assert!(began.elapsed() >= Duration::from_millis(80));
    assert!(events.contains(&Event::TimedOut));
    let put = find(&plan, |o| matches!(o, Operation::PutCredential { .. }));
    let given_up = Outcome::Cancelled { why: Cancelled::TimedOut, written: true };
    assert_eq!(*outcome(&report, put), given_up);
    assert_eq!(code(&seen, &report), 9);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_rollout_is_left_to_its_controller() {
    let desired = one();
    let (interrupt, interrupted) = watch::channel(false);
    let mut fake = Fake::new(bare_world(&desired));
    fake.rollouts = Rollouts::Never;
    let (plan, seen) = planned(&desired, &fake);
    let roll = find(&plan, Operation::rolls);
    let limit = Duration::from_mins(1);
    let options = RunOptions { interrupt: interrupted, rollout_deadline: limit, ..options() };
    let mut events = Vec::new();
    let mut sink = |event: &Event| {
        if matches!(event, Event::StepWaiting { id, .. } if *id == roll) {
            interrupt.send_replace(true);
        }
        events.push(event.clone());
    };
    let report = execute::run(&plan, &fake, options, &mut sink).await.unwrap();
    let left = Outcome::Cancelled { why: Cancelled::Interrupted, written: true };
    assert_eq!(*outcome(&report, roll), left);
    assert_eq!(code(&seen, &report), 8);
    // The template counts: it was patched.
    assert_eq!((report.objects.added, report.objects.changed), plan.counts());
}

#[tokio::test(start_paused = true)]
async fn a_plan_whose_steps_do_not_fit_together_is_refused_as_a_whole() {
    let desired = one();
    let fake = Fake::new(bare_world(&desired));
    let (mut plan, _) = planned(&desired, &fake);
    plan.steps[0].needs = vec![StepId(1)];
    let broken = execute::run(&plan, &fake, options(), &mut |_| {}).await;
    assert!(matches!(broken, Err(execute::BrokenPlan::Order { .. })));
    assert_eq!(fake.calls(), Vec::<String>::new());
}
