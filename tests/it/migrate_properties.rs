//! What must hold of every migration, over random estates, whatever request fails and wherever the
//! program is killed: nobody is ever without a working path to a credential, nothing goes
//! unproved, and running again reaches the end.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use proptest::prelude::*;
use widentity::{
    migrate::{Phase, Workload, transition::OldLabel},
    model::{
        AccountName, ArmId, ClientId, FailureKind, Namespace, PrincipalId,
        desired::{DesiredState, PodSelection},
        pod_identity::{BINDING_LABEL, Binding, EstateTemplate, Install, PodIdentity},
        snapshot::{
            Injected, ObjectMeta, Observation, ObservedAccount, ObservedIdentity, Progress,
            Snapshot, Strategy as Rolling, TemplateKind,
        },
    },
    ops::migrate::PutBack,
};

use crate::support::{
    fake::{Fault, guid, locked},
    town::{self, CLUSTER, PodIdentities, Ran, Town},
    worlds,
};

/// A random estate and what happens to it, in small choices that shrink well.
#[derive(Debug, Clone)]
struct Case {
    namespaces: u8,
    workloads: Vec<Spec>,
    bindings: Vec<(u8, u8, u8)>,
    selectors: u8,
    confined: bool,
    add_on: bool,
    mic: bool,
    failing: Option<u8>,
    runs: Vec<Run>,
}

#[derive(Debug, Clone)]
struct Spec {
    namespace: u8,
    selector: u8,
    kind: u8,
    templates: u8,
    kept: u8,
    odd: u8,
    decided: bool,
}

/// One run of a command, and the fault that it meets.
#[derive(Debug, Clone)]
struct Run {
    command: u8,
    at: u16,
    fault: u8,
    who: u8,
}

fn spec() -> impl Strategy<Value = Spec> {
    let counts = (0u8..10, 0u8..12, 0u8..6);
    (counts, 0u8..8, 0u8..12, 0u8..14, proptest::bool::weighted(0.5)).prop_map(
        |((namespace, selector, kind), templates, kept, odd, decided)| Spec {
            namespace,
            selector,
            kind,
            templates,
            kept,
            odd,
            decided,
        },
    )
}

fn run() -> impl Strategy<Value = Run> {
    (0u8..6, 0u16..120, 0u8..7, 0u8..200).prop_map(|(command, at, fault, who)| Run {
        command,
        at,
        fault,
        who,
    })
}

fn case(workloads: std::ops::Range<usize>) -> impl Strategy<Value = Case> {
    let most = u8::try_from(workloads.end / 3 + 2).unwrap();
    (
        (1u8..5, 1u8..most),
        proptest::collection::vec(spec(), workloads),
        proptest::collection::vec((0u8..5, 0u8..most, 0u8..most), 0..3),
        (proptest::bool::weighted(0.4), proptest::bool::weighted(0.15), any::<bool>()),
        proptest::option::weighted(0.3, 0u8..200),
        proptest::collection::vec(run(), 0..5),
    )
        .prop_map(
            |(
                (namespaces, selectors),
                workloads,
                bindings,
                (confined, add_on, mic),
                failing,
                runs,
            )| {
                Case {
                    namespaces,
                    workloads,
                    bindings,
                    selectors,
                    confined,
                    add_on,
                    mic,
                    failing,
                    runs,
                }
            },
        )
}

fn identity(n: u8) -> ArmId {
    ArmId::of_identity(worlds::subscription(), "rg-identities", &format!("id-{n}"))
}

fn namespace(case: &Case, n: u8) -> Namespace {
    format!("ns-{}", n % case.namespaces).as_str().into()
}

/// The kind of each of a workload's templates.
fn kinds(spec: &Spec) -> Vec<TemplateKind> {
    let first = match spec.kind {
        0 => TemplateKind::StatefulSet,
        1 => TemplateKind::CronJob,
        _ => TemplateKind::Deployment,
    };
    let second = (spec.templates == 0).then_some(TemplateKind::Deployment);
    std::iter::once(first).chain(second).collect()
}

fn build(case: &Case) -> Town {
    let mut base = worlds::desired(&[CLUSTER]);
    let mut world = worlds::bare_world(&base);
    let mut have = PodIdentities::default();
    // Which binding answers for a selector: one in each namespace where matching is confined.
    let selectors = case.selectors.max(1);
    for selector in 0..selectors {
        let places = if case.confined { 0..case.namespaces } else { 0..1 };
        for place in places {
            bind(&mut have, &namespace(case, place), selector, selector);
        }
    }
    for (place, selector, identity) in &case.bindings {
        let place = namespace(case, *place);
        bind(&mut have, &place, selector % selectors, identity % selectors);
    }
    for n in 0..selectors {
        let id = identity(n);
        let seen = ObservedIdentity {
            id: id.clone(),
            client_id: ClientId(guid(&format!("client {n}"))),
            principal_id: PrincipalId(guid(&format!("principal {n}"))),
            tenant_id: worlds::tenant(),
            location: "westeurope".to_owned(),
            tags: BTreeMap::new(),
        };
        world.identities.insert(id.clone(), Observation::Present(seen));
        world.credentials.insert(id, Observation::Present(Vec::new()));
    }
    let component = |component: &str, namespaced: bool| Install {
        component: component.to_owned(),
        namespaced,
        ..Install::default()
    };
    have.installs.push(component("nmi", case.confined));
    if case.mic {
        have.installs.push(component("mic", case.confined));
    }
    let add_on = case.add_on && case.confined;
    have.add_on = add_on.then(|| {
        have.identities.iter().take(1).map(|i| format!("{}/{}", i.namespace, i.name)).collect()
    });
    populate(case, &mut base, &mut world, &mut have);
    Town::new(base, world, have)
}

fn bind(have: &mut PodIdentities, place: &Namespace, selector: u8, identity_of: u8) {
    let name = format!("id-{identity_of}");
    if !have.identities.iter().any(|i| i.namespace == *place && i.name == name) {
        have.identities.push(PodIdentity {
            namespace: place.clone(),
            name: name.clone(),
            uid: format!("identity-{}", have.identities.len()),
            resource_id: identity(identity_of).to_string(),
            client_id: guid(&format!("client {identity_of}")).to_string(),
            ..PodIdentity::default()
        });
    }
    have.bindings.push(Binding {
        namespace: place.clone(),
        name: format!("binding-{}", have.bindings.len()),
        uid: format!("binding-{}", have.bindings.len()),
        identity: name,
        selector: format!("sel-{selector}"),
        ..Binding::default()
    });
}

fn populate(case: &Case, base: &mut DesiredState, world: &mut Snapshot, have: &mut PodIdentities) {
    let clusters = world.clusters.values_mut().next().unwrap();
    let Observation::Present(kubernetes) = &mut clusters.kubernetes else { unreachable!() };
    for n in 0..case.namespaces {
        let place = namespace(case, n);
        kubernetes.namespaces.insert(place.clone(), Observation::Present(()));
        kubernetes.accounts.insert(place.clone(), Observation::Present(BTreeMap::new()));
        kubernetes.templates.insert(place.clone(), Observation::Present(Vec::new()));
        kubernetes.pods.insert(place, Observation::Present(Vec::new()));
    }
    for (n, spec) in case.workloads.iter().enumerate() {
        let place = namespace(case, spec.namespace);
        let account: AccountName =
            if spec.odd == 0 { "default".into() } else { format!("sa-{n}").as_str().into() };
        let Some(Observation::Present(accounts)) = kubernetes.accounts.get_mut(&place) else {
            unreachable!()
        };
        let own = accounts.entry(account.clone()).or_insert_with(|| ObservedAccount {
            uid: guid(&format!("account {place} {account}")).to_string(),
            meta: ObjectMeta::default(),
        });
        if matches!(spec.kept, 1 | 2) {
            town::keep_in_git(&mut own.meta);
        }
        let mut keys = BTreeSet::new();
        for (m, kind) in kinds(spec).into_iter().enumerate() {
            let mut template = worlds::template(&format!("w-{n}-{m}"), &account);
            template.uid = guid(&format!("template {place} {}", template.name)).to_string();
            template.kind = kind;
            let selector = format!("sel-{}", spec.selector % case.selectors.max(1));
            template.labels.insert(BINDING_LABEL.to_owned(), selector);
            match (kind, spec.odd) {
                (TemplateKind::CronJob, _) => {
                    template.strategy = Rolling::NextRun;
                    template.progress = Progress::default();
                }
                (_, 1) => template.strategy = Rolling::Recreate,
                (_, 2) => {
                    let unready = EstateTemplate { readiness: false, ..town::blank() };
                    have.traits.insert((place.clone(), template.key()), unready);
                }
                // Somebody began by hand: the new label beside the old one.
                (_, 3) => {
                    let used = widentity::model::names::USE_LABEL.to_owned();
                    template.labels.insert(used, "true".to_owned());
                }
                _ => {}
            }
            match spec.kept {
                0 | 1 => town::keep_in_git(&mut template.meta),
                3 => {
                    let by = ("app.kubernetes.io/managed-by".to_owned(), "Helm".to_owned());
                    template.meta.labels.extend([by]);
                }
                _ => {}
            }
            keys.insert(template.key());
            if kind != TemplateKind::CronJob {
                let Some(Observation::Present(pods)) = kubernetes.pods.get_mut(&place) else {
                    unreachable!()
                };
                let injected = Injected::default();
                pods.extend((0..2).map(|n| worlds::pod(&template, n, &injected)));
            }
            let Some(Observation::Present(templates)) = kubernetes.templates.get_mut(&place) else {
                unreachable!()
            };
            templates.push(template);
        }
        // The file decides: these templates, with this identity.
        if spec.decided && account.as_str() != "default" {
            worlds::add_workload(base, place.as_str(), account.as_str(), &[CLUSTER], None, &[]);
            let decided = base.workloads.last_mut().unwrap();
            decided.identity = identity(spec.selector % case.selectors.max(1));
            decided.pods = PodSelection::Named(keys);
        }
    }
    base.identities.clear();
}

fn fault(kind: u8) -> Fault {
    match kind {
        0 => Fault::Before(FailureKind::Unavailable),
        1 => Fault::Before(FailureKind::Conflict),
        2 => Fault::Before(FailureKind::Denied),
        3 => Fault::After(FailureKind::Unreachable),
        4 => Fault::After(FailureKind::TimedOut),
        5 => Fault::Kill { after: false },
        _ => Fault::Kill { after: true },
    }
}

fn in_git(workload: &Workload) -> bool {
    workload.kept_by.contains("Argo CD")
}

/// Who must arrive when nothing fails any more.
fn movers(town: &Town, git: bool) -> BTreeSet<String> {
    let workloads = town.workloads();
    let moving = workloads.iter().filter(|w| w.may_move() && w.identity.is_some());
    moving.filter(|w| !w.templates.is_empty() && in_git(w) == git).map(Workload::name).collect()
}

fn arrived(workload: &Workload) -> bool {
    matches!(workload.phase, Phase::Soaked | Phase::BindingRemoved | Phase::Cleaned)
}

async fn play(case: &Case) -> Result<(), TestCaseError> {
    let town = build(case);
    let before = town.labels();
    let (ours, gits) = (movers(&town, false), movers(&town, true));
    let failing = case.failing.and_then(|n| {
        let ours: Vec<&String> = ours.iter().collect();
        (!ours.is_empty()).then(|| ours[usize::from(n) % ours.len()].clone())
    });
    if let Some(name) = &failing {
        let workloads = town.workloads();
        let workload = workloads.iter().find(|w| w.name() == *name).unwrap();
        // A CronJob has no rollout that could fail.
        let rolled = workload.templates.iter().filter(|key| !key.starts_with("cronjob/"));
        let names = rolled.map(|key| key.split_once('/').unwrap().1.to_owned());
        locked(&town.fake.failing).extend(names);
    }
    for run in &case.runs {
        town.meet(usize::from(run.at), fault(run.fault));
        match run.command {
            0 | 1 => drop(town.apply(OldLabel::Drop).await),
            2 => drop(town.apply(OldLabel::Keep).await),
            3 | 4 => drop(town.finish(SignedDuration::ZERO).await),
            _ => drop(town.rollback(usize::from(run.who)).await),
        }
        town.meet_nothing();
        let wrong = locked(&town.fake.wrong).clone();
        prop_assert!(wrong.is_empty(), "{run:?}: {wrong:#?}\n{:#?}", town.fake.calls());
    }
    // An application that cannot sign in is put back, and stops the others.
    if let Some(name) = &failing {
        for _ in 0..4 {
            let Ran::Ended(_) = town.apply(OldLabel::Drop).await else { unreachable!() };
        }
        let workloads = town.workloads();
        let workload = workloads.iter().find(|w| w.name() == *name).unwrap();
        if !arrived(workload) {
            let cron = workload.templates.iter().all(|key| key.starts_with("cronjob/"));
            prop_assert!(cron || !workload.phase.is_switched(), "{workload:#?}");
        }
        locked(&town.fake.failing).clear();
    }
    settle(&town, &ours).await?;
    // What nobody decided is as it was, whatever happened.
    let stayed = |(key, labels): (&String, &BTreeMap<String, String>)| {
        let workloads = town.workloads();
        let of = |w: &&Workload| w.templates.iter().any(|t| format!("{}/{t}", w.namespace) == *key);
        let moved = workloads.iter().find(of).is_some_and(|w| ours.contains(&w.name()));
        (!moved && before[key] != *labels).then(|| key.clone())
    };
    let touched: Vec<String> = town.labels().iter().filter_map(stayed).collect();
    prop_assert!(touched.is_empty(), "{touched:?}");
    // Git arrives for those whose identity is federated, which `apply` saw to.
    for workload in town.workloads().iter().filter(|w| gits.contains(&w.name())) {
        prop_assert!(
            workload.phase >= Phase::IdentityFederated || arrived(workload),
            "Git cannot be merged yet: {workload:#?}"
        );
        let writes = town.fake.writes();
        let touched = workload.templates.iter().any(|key| {
            let name = key.split_once('/').unwrap().1;
            writes.iter().any(|call| call.ends_with(&format!("{}/{name}", workload.namespace)))
        });
        let all = workload.kept_by.len() == 1 && !matches!(kept(case, workload), Some(2));
        prop_assert!(!all || !touched, "{workload:#?}\n{writes:#?}");
        town.git_arrives(workload);
    }
    let everyone: BTreeSet<String> = ours.union(&gits).cloned().collect();
    settle(&town, &everyone).await?;
    finish(&town, &everyone, case).await?;
    let wrong = locked(&town.fake.wrong).clone();
    prop_assert!(wrong.is_empty(), "{wrong:#?}\n{:#?}", town.fake.calls());
    Ok(())
}

/// How the case says a workload is kept.
fn kept(case: &Case, workload: &Workload) -> Option<u8> {
    let number = workload.account.as_str().strip_prefix("sa-")?.parse::<usize>().ok()?;
    Some(case.workloads[number].kept)
}

/// Runs `apply` until it has nothing to do and looks whether these have arrived.
async fn settle(town: &Town, who: &BTreeSet<String>) -> Result<(), TestCaseError> {
    let mut last = None;
    for _ in 0..6 {
        let Ran::Ended(moved) = town.apply(OldLabel::Drop).await else { unreachable!() };
        let Some(moved) = moved else { break };
        let back: Vec<_> = moved.put_back.iter().filter(|(_, how)| !how.is_back()).collect();
        prop_assert!(back.is_empty(), "{back:?}");
        let again = moved.report.written || moved.report.counts.failed > 0;
        last = Some(moved);
        if !again {
            break;
        }
    }
    let read = town.read(SignedDuration::ZERO);
    let late: Vec<&Workload> =
        read.survey.workloads.iter().filter(|w| who.contains(&w.name()) && !arrived(w)).collect();
    prop_assert!(late.is_empty(), "{late:#?}\n{last:#?}");
    Ok(())
}

/// Runs `finish` until nothing goes any more and looks what is left.
async fn finish(town: &Town, moved: &BTreeSet<String>, case: &Case) -> Result<(), TestCaseError> {
    // Nothing goes before the soak is over.
    let bindings = town.pod_identities().bindings.len();
    let Ran::Ended(early) = town.finish(SignedDuration::from_hours(24)).await else {
        unreachable!()
    };
    let early_identities =
        early.is_some_and(|e| e.removed.iter().any(|r| r.starts_with("binding")));
    prop_assert!(!early_identities);
    prop_assert_eq!(town.pod_identities().bindings.len(), bindings);
    for _ in 0..4 {
        let Ran::Ended(done) = town.finish(SignedDuration::ZERO).await else { unreachable!() };
        let Some(done) = done else { break };
        prop_assert_eq!(done.failure, None);
    }
    let read = town.read(SignedDuration::ZERO);
    let stays = |binding: &Binding| {
        let at = format!("{}/{}", binding.namespace, binding.name);
        let mut users =
            read.survey.workloads.iter().filter(|w| w.bindings.contains(&at)).peekable();
        let kept = read.estate.add_on.as_ref().is_some_and(|kept| {
            kept.contains(&format!("{}/{}", binding.namespace, binding.identity))
        });
        kept || users.peek().is_none() || users.any(|w| !moved.contains(&w.name()))
    };
    let left: Vec<&Binding> = read.estate.bindings.iter().filter(|b| !stays(b)).collect();
    prop_assert!(left.is_empty(), "{left:#?}\n{case:#?}");
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_migration_survives_any_fault_and_any_kill(case in case(1..9)) {
        runtime().block_on(play(&case))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, max_shrink_iters: 8, ..ProptestConfig::default() })]

    #[test]
    fn so_does_a_large_one(case in case(100..201)) {
        runtime().block_on(play(&case))?;
    }
}

/// An estate of one workload that nobody keeps and nothing is odd about.
fn of_one(kind: u8, templates: u8, decided: bool) -> Case {
    let spec = Spec { namespace: 0, selector: 0, kind, templates, kept: 9, odd: 9, decided };
    Case {
        namespaces: 1,
        workloads: vec![spec],
        bindings: Vec::new(),
        selectors: 1,
        confined: false,
        add_on: false,
        mic: false,
        failing: None,
        runs: Vec::new(),
    }
}

/// A CronJob and a Deployment of one account: wherever the run that switched the first of them
/// ended, an application that cannot sign in gets both back.
#[test]
fn a_switch_that_never_came_to_its_end_goes_back_whole() {
    for at in 0..40 {
        for fault in [0, 5, 6] {
            let case = Case {
                failing: Some(0),
                runs: vec![Run { command: 0, at, fault, who: 0 }],
                ..of_one(1, 0, true)
            };
            let done = runtime().block_on(play(&case));
            done.unwrap_or_else(|error| panic!("call {at}, fault {fault}: {error}"));
        }
    }
}

/// Every call of one small migration in turn: lost before, refused, done and lost, and a kill on
/// either side of it. The number of calls is asserted, so that nothing is skipped in silence.
#[test]
fn every_call_of_a_small_migration_may_be_the_last() {
    let spec = |kind, templates, odd| Spec {
        namespace: kind,
        selector: kind,
        kind,
        templates,
        kept: 9,
        odd,
        decided: true,
    };
    let case = Case {
        namespaces: 2,
        workloads: vec![spec(0, 1, 9), spec(2, 0, 9), spec(1, 1, 9), spec(3, 1, 3)],
        bindings: vec![(1, 1, 1)],
        selectors: 2,
        confined: false,
        add_on: false,
        mic: true,
        failing: None,
        runs: Vec::new(),
    };
    let clean = runtime().block_on(async {
        let town = build(&case);
        assert!(matches!(town.apply(OldLabel::Drop).await, Ran::Ended(Some(_))));
        let applied = town.fake.calls().len();
        assert!(matches!(town.finish(SignedDuration::ZERO).await, Ran::Ended(Some(_))));
        let finished = town.fake.calls().len() - applied;
        assert!(matches!(town.rollback(0).await, Ran::Ended(Some(PutBack::Done))));
        [applied, finished, town.fake.calls().len() - applied - finished]
    });
    assert!(clean[0] > 40 && clean[1] > 20 && clean[2] > 4, "{clean:?}");
    for (stage, calls) in clean.into_iter().enumerate() {
        for at in 0..calls {
            for kind in [0, 1, 3, 5, 6] {
                runtime().block_on(async {
                    let town = build(&case);
                    if stage > 0 {
                        drop(town.apply(OldLabel::Drop).await);
                    }
                    if stage > 1 {
                        drop(town.finish(SignedDuration::ZERO).await);
                    }
                    town.meet(at, fault(kind));
                    match stage {
                        0 => drop(town.apply(OldLabel::Drop).await),
                        1 => drop(town.finish(SignedDuration::ZERO).await),
                        _ => drop(town.rollback(0).await),
                    }
                    town.meet_nothing();
                    let who = movers(&town, false);
                    assert_eq!(who.len(), 4, "stage {stage}, call {at}, fault {kind}");
                    let end = async {
                        settle(&town, &who).await?;
                        finish(&town, &who, &case).await
                    };
                    let wrong = locked(&town.fake.wrong).clone();
                    let context = format!("stage {stage}, call {at}, fault {kind}: {wrong:#?}");
                    end.await.unwrap_or_else(|error| panic!("{context}\n{error}"));
                    let wrong = locked(&town.fake.wrong).clone();
                    assert!(wrong.is_empty(), "stage {stage}, call {at}, fault {kind}: {wrong:#?}");
                    assert!(town.workloads().iter().all(|w| w.phase == Phase::Cleaned));
                });
            }
        }
    }
}

/// The property can fail: a path that is taken away is seen.
#[test]
fn a_lost_path_is_noticed() {
    let case = of_one(2, 1, false);
    let wrong = runtime().block_on(async {
        let town = build(&case);
        let binding = town.pod_identities().bindings[0].clone();
        let objects: &dyn widentity::ops::migrate::Objects = &town;
        objects.remove_binding(&binding).await.unwrap();
        locked(&town.fake.wrong).clone()
    });
    let pod = |what: &String| what.contains("has no path");
    assert_eq!(wrong.iter().filter(|what| pod(what)).count(), 2, "{wrong:#?}");
}
