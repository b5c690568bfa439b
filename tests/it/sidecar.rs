//! `proxy = true`: the migration sidecar planned, refused where it cannot work, rolled, taken away.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use widentity::{
    execute::{self, RunOptions},
    model::{
        ClusterName, Namespace,
        desired::{DesiredState, ManagedBy},
        names,
        snapshot::{
            KubernetesSnapshot, Manager, Observation, ObservedTemplate, OwnedField, Snapshot,
            TemplateKind,
        },
    },
    plan::{self, ObjectKind, Operation, Plan, PlanOptions, PlanReport},
};

use crate::support::{
    fake::Fake,
    worlds::{self, add_workload, bare_world},
};

const PATH: &str =
    "spec.template.metadata.annotations[\"azure.workload.identity/inject-proxy-sidecar\"]";

fn desired(proxy: bool) -> DesiredState {
    let mut desired = worlds::desired(&["prod"]);
    add_workload(&mut desired, "shop", "cart", &["prod"], None, &[]);
    desired.workloads[0].proxy = proxy;
    desired
}

fn planned(desired: &DesiredState, world: &Snapshot) -> (Plan, PlanReport) {
    plan::plan(desired, world, PlanOptions::default())
}

fn applied(desired: &DesiredState, world: &Snapshot) -> Snapshot {
    let (plan, _) = planned(desired, world);
    worlds::apply(desired, world, &plan, &worlds::all(&plan))
}

fn prod(world: &mut Snapshot) -> &mut KubernetesSnapshot {
    let cluster = world.clusters.get_mut(&ClusterName::from("prod")).unwrap();
    let Observation::Present(kubernetes) = &mut cluster.kubernetes else { panic!() };
    kubernetes
}

fn template(world: &mut Snapshot) -> &mut ObservedTemplate {
    let templates = prod(world).templates.get_mut(&Namespace::from("shop")).unwrap();
    let Observation::Present(templates) = templates else { panic!() };
    &mut templates[0]
}

fn codes(report: &PlanReport) -> Vec<&str> {
    report.refused.iter().map(|finding| finding.code.as_str()).collect()
}

#[test]
fn it_is_a_field_of_the_pod_template_a_risk_and_digested() {
    let (without, _) = planned(&desired(false), &bare_world(&desired(false)));
    let desired = desired(true);
    let world = bare_world(&desired);
    let (plan, report) = planned(&desired, &world);
    let change = plan.changes.iter().find(|c| c.kind == ObjectKind::KubernetesPodTemplate).unwrap();
    assert!(change.fields.iter().any(|field| field.field == PATH), "{:#?}", change.fields);
    assert!(report.risks.iter().any(|risk| risk.code == "migration-sidecar"));
    assert_ne!(plan.digest, without.digest);
    let asks = |o: &Operation| matches!(o, Operation::CheckInjection { proxy: true, .. });
    assert!(plan.steps.iter().any(|step| asks(&step.operation)));

    let after = applied(&desired, &world);
    let (again, report) = planned(&desired, &after);
    assert_eq!(again.changes, []);
    assert!(report.is_clear() && report.risks.is_empty(), "{report:#?}");
}

#[test]
fn on_a_labelled_template_it_is_a_change_and_its_removal_is_one() {
    let after = applied(&desired(false), &bare_world(&desired(false)));
    let (plan, _) = planned(&desired(true), &after);
    assert_eq!(plan.counts(), (0, 1), "{:#?}", plan.changes);
    let fields: Vec<&str> = plan.changes[0].fields.iter().map(|f| f.field.as_str()).collect();
    assert_eq!(fields, [PATH], "the chain stays as it is");
    let with = worlds::apply(&desired(true), &after, &plan, &worlds::all(&plan));
    assert_eq!(planned(&desired(true), &with).0.changes, []);

    let (plan, report) = planned(&desired(false), &with);
    assert_eq!(plan.counts(), (0, 1));
    assert!(!report.risks.iter().any(|risk| risk.code == "migration-sidecar"));
    let mut gone = worlds::apply(&desired(false), &with, &plan, &worlds::all(&plan));
    assert!(!template(&mut gone).annotations.contains_key(names::PROXY_ANNOTATION));
    assert_eq!(planned(&desired(false), &gone).0.changes, []);
}

#[test]
fn what_others_ask_for_stays_theirs() {
    let mut world = applied(&desired(false), &bare_world(&desired(false)));
    let key = names::PROXY_ANNOTATION.to_owned();
    let theirs = Manager { name: "helm".to_owned(), operation: "Update".to_owned() };
    let seen = template(&mut world);
    seen.annotations.insert(key.clone(), "yes".to_owned());
    seen.meta.owners.insert(OwnedField::TemplateAnnotation(key), [theirs].into());
    for pod in match prod(&mut world).pods.get_mut(&Namespace::from("shop")).unwrap() {
        Observation::Present(pods) => pods,
        _ => panic!(),
    } {
        pod.injected.proxied = true;
    }
    for wanted in [true, false] {
        assert_eq!(planned(&desired(wanted), &world).0.changes, [], "{wanted}");
    }
}

#[test]
fn it_is_refused_where_it_cannot_work() {
    type Bend = fn(&mut Snapshot);
    let cases: [(&str, Bend); 5] = [
        ("proxy-with-host-network", |world| template(world).host_network = true),
        ("proxy-on-windows", |world| template(world).windows = true),
        ("proxy-forbidden", |world| {
            prod(world).pod_security.insert("shop".into(), "restricted".to_owned());
        }),
        ("proxy-forbidden", |world| {
            prod(world).pod_security.insert("shop".into(), "baseline".to_owned());
        }),
        ("proxy-in-job", |world| {
            template(world).kind = TemplateKind::CronJob;
            prod(world).version = "v1.31.9".to_owned();
        }),
    ];
    let desired = desired(true);
    for (code, bend) in cases {
        let mut world = bare_world(&desired);
        bend(&mut world);
        let (plan, report) = planned(&desired, &world);
        assert_eq!(codes(&report), [code]);
        assert!(!plan.steps.iter().any(|step| step.operation.rolls()), "{code}");
    }
    // With native sidecars a Job completes.
    let mut world = bare_world(&desired);
    template(&mut world).kind = TemplateKind::CronJob;
    let (plan, report) = planned(&desired, &world);
    assert!(report.is_clear() && plan.steps.iter().any(|step| step.operation.rolls()));
}

#[test]
fn what_git_keeps_is_told_to_git() {
    let world = applied(&desired(false), &bare_world(&desired(false)));
    let mut desired = desired(true);
    desired.workloads[0].managed_by = ManagedBy::Git;
    let (plan, report) = planned(&desired, &world);
    assert_eq!(plan.changes, []);
    assert_eq!(report.pending_git.len(), 1, "{report:#?}");
    assert_eq!(report.pending_git[0].wanted, [format!("{PATH}: \"true\"")]);
}

#[tokio::test(start_paused = true)]
async fn the_executor_sets_it_proves_it_and_takes_it_away() {
    let fake = Fake::new(bare_world(&desired(true)));
    for proxy in [true, false] {
        let desired = desired(proxy);
        let (plan, _) = planned(&desired, &fake.world());
        assert!(plan.steps.iter().any(|step| step.operation.rolls()));
        let (_never, interrupt) = watch::channel(false);
        let options = RunOptions {
            settle: Duration::ZERO,
            ..RunOptions::new(Timestamp::UNIX_EPOCH, interrupt)
        };
        let report = execute::run(&plan, &fake, options, &mut |_| {}).await.unwrap();
        assert_eq!(report.counts.done, plan.steps.len(), "{report:#?}");
        let mut world = fake.world().clone();
        let seen = template(&mut world);
        assert_eq!(seen.annotations.contains_key(names::PROXY_ANNOTATION), proxy);
        let pods = prod(&mut world).pods[&Namespace::from("shop")].present().unwrap();
        assert!(pods.iter().all(|pod| pod.injected.proxied == proxy));
        assert_eq!(planned(&desired, &world).0.changes, []);
    }
}
