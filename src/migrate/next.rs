//! What comes next: the steps of one workload, and what to type for a whole estate.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    Phase, Survey, Verdict, Workload,
    survey::{Acts, Given},
};
use crate::model::{
    keeper,
    names::{CLIENT_ID_ANNOTATION, USE_LABEL},
    pod_identity::{Estate, EstateTemplate},
};

/// What the workload identity of a half-done or broken workload lacks.
pub(super) enum Lack {
    Credential,
    /// Its account names no client id, or another one: account, that one, and whose it should be.
    Annotation(Option<(String, String, Acts)>),
    Webhook,
    /// The pod templates that carry neither label.
    Label(Vec<String>),
}

impl Lack {
    pub(super) fn what(&self) -> String {
        match self {
            Self::Credential => {
                "no federated credential of its identity trusts its account".to_owned()
            }
            Self::Annotation(None) => "its account does not name its client id".to_owned(),
            Self::Annotation(Some((_, have, acts))) => {
                format!("its account names client {have}, {} is {}", acts.id.name(), acts.client)
            }
            Self::Webhook => "the cluster has no workload identity webhook".to_owned(),
            Self::Label(bare) => format!("{} carries neither label", bare.join(", ")),
        }
    }
}

/// What is missing, in the order in which it is made.
pub(super) fn lacks(
    workload: &Workload,
    federated: bool,
    annotated: Option<&str>,
    webhook: bool,
    templates: &[&EstateTemplate],
) -> Vec<Lack> {
    let mut lacks = Vec::new();
    if !webhook {
        lacks.push(Lack::Webhook);
    }
    if !federated {
        lacks.push(Lack::Credential);
    }
    let acts = workload.identity.as_ref();
    let points = |have: &str| acts.is_some_and(|a| a.client.to_string().eq_ignore_ascii_case(have));
    if !annotated.is_some_and(points) {
        let other = annotated.filter(|have| !have.trim().is_empty()).zip(acts);
        lacks.push(Lack::Annotation(
            other.map(|(have, acts)| (workload.account.to_string(), have.to_owned(), acts.clone())),
        ));
    }
    let bare: Vec<String> = templates.iter().filter(|t| t.is_bare()).map(|t| t.key()).collect();
    if !bare.is_empty() {
        lacks.push(Lack::Label(bare));
    }
    lacks
}

/// The steps of a workload that nothing stands in the way of.
pub(super) fn steps(
    workload: &Workload,
    lacks: &[Lack],
    federated: bool,
    given: Given<'_>,
) -> Vec<String> {
    let name = workload.name();
    let sidecar = given
        .workloads
        .iter()
        .any(|w| w.proxy && (&w.namespace, &w.account) == (&workload.namespace, &workload.account));
    let switch = format!(
        "switch {} in one roll (label added, aadpodidbinding dropped{})",
        workload.templates.iter().cloned().collect::<Vec<_>>().join(", "),
        if sidecar && !workload.proxied {
            ", migration sidecar added: its init container is privileged"
        } else {
            ""
        }
    );
    let (federate, prove) = ("federate the identity".to_owned(), "prove a token".to_owned());
    match workload.phase {
        Phase::Discovered | Phase::RolledBack => {
            let rest = [prove, "annotate the account".to_owned(), switch];
            // The credential of what was put back is still there.
            (!federated).then_some(federate).into_iter().chain(rest).collect()
        }
        Phase::IdentityFederated => vec![prove, "annotate the account".to_owned(), switch],
        Phase::TokenProved => vec![prove, switch],
        Phase::HalfDone | Phase::Masked | Phase::Broken => {
            let mut steps = completed(lacks, federate, prove);
            if workload.phase != Phase::Broken {
                steps.push("drop aadpodidbinding in one roll".to_owned());
            }
            steps
        }
        Phase::Switched => vec![
            "wait for its pods and prove them: widentity migrate apply".to_owned(),
            format!("or put it back: widentity migrate rollback {name}"),
        ],
        Phase::Soaking => {
            let soak = match workload.soaked_at {
                Some(until) if until <= given.now => None,
                Some(until) => {
                    Some(format!("soak until {until:.0}, then: widentity migrate finish"))
                }
                None => Some(format!("soak for {:#}, then: widentity migrate finish", given.soak)),
            };
            let run = (!workload.unrun.is_empty()).then(|| {
                let what = workload.unrun.join(", ");
                format!("let {what} run once, or waive it: widentity migrate finish --allow-unrun")
            });
            soak.into_iter().chain(run).collect()
        }
        Phase::Soaked => {
            let bindings: Vec<&str> = workload.bindings.iter().map(String::as_str).collect();
            let bindings = bindings.join(", ");
            vec![format!("remove its bindings ({bindings}): widentity migrate finish")]
        }
        Phase::BindingRemoved => {
            vec![format!("remove the AzureIdentity of {name}: widentity migrate finish")]
        }
        Phase::Cleaned => Vec::new(),
    }
}

/// The steps that complete a workload identity.
fn completed(lacks: &[Lack], federate: String, prove: String) -> Vec<String> {
    let mut steps = Vec::new();
    if lacks.iter().any(|lack| matches!(lack, Lack::Credential)) {
        steps.push(federate);
    }
    steps.push(prove);
    for lack in lacks {
        match lack {
            Lack::Annotation(None) => steps.push("annotate the account".to_owned()),
            Lack::Annotation(Some((account, have, acts))) => steps.push(format!(
                "correct annotation {CLIENT_ID_ANNOTATION} of serviceaccount/{account}: it is \
                 {have}, {} is {}",
                acts.id.name(),
                acts.client
            )),
            Lack::Label(bare) => {
                steps.push(format!("put label {USE_LABEL} back on {}", bare.join(", ")));
            }
            // Whether the cluster is on is told of every workload alike.
            Lack::Credential | Lack::Webhook => {}
        }
    }
    steps
}

/// How a workload that `apply` leaves alone is taken up again.
pub(super) fn again(workload: &Workload) -> String {
    let name = workload.name();
    let again = format!("widentity migrate apply --only {name}");
    if workload.phase == Phase::Switched {
        return format!(
            "finish putting it back: widentity migrate rollback {name}; or move it after all: {again}"
        );
    }
    format!(
        "change its pod template, its image for one, and `apply` tries again; or as it is: {again}"
    )
}

/// A command to type next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Command {
    /// What to type.
    pub command: String,
    /// What it does, without a full stop.
    pub why: String,
}

/// What to type next for an estate, in this order; empty where nothing is left to do, or where only
/// somebody's decision about single workloads helps, which is told with them.
pub fn commands(estates: &[(&Estate, &Survey)], now: Timestamp) -> Vec<Command> {
    let seen = || estates.iter().filter(|(_, survey)| survey.unseen.is_empty());
    let all: Vec<&Workload> = seen().flat_map(|(_, survey)| &survey.workloads).collect();
    let mut found = Vec::new();
    let mut tell = |command: &str, why: String| {
        found.push(Command { command: command.to_owned(), why });
    };
    let count = |of: &dyn Fn(&Workload) -> bool| all.iter().filter(|w| of(w)).count();
    let held = |w: &Workload| !w.reasons.is_empty() && w.may_move();
    let free = |w: &Workload| w.reasons.is_empty() && !w.left_alone;
    let apply: Vec<String> = [
        ("completes", count(&|w| w.verdict == Verdict::ToMend)),
        ("goes on with", count(&|w| free(w) && w.phase == Phase::Switched)),
        ("moves", count(&|w| w.verdict == Verdict::Ready)),
        ("federates, for Git,", count(&|w| held(w) && w.phase == Phase::Discovered)),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(does, count)| format!("{does} {}", workloads(count)))
    .collect();
    if !apply.is_empty() {
        tell("widentity migrate apply", apply.join(", "));
    }
    let federated = [Phase::IdentityFederated, Phase::TokenProved];
    let in_git = |w: &Workload| w.kept_by.iter().any(|by| keeper::puts_back(by));
    let render = count(&|w| held(w) && in_git(w) && federated.contains(&w.phase));
    if render > 0 {
        tell(
            "widentity migrate render DIR",
            format!("changes the manifests of {}", workloads(render)),
        );
    }
    let over = count(&|w| free(w) && matches!(w.phase, Phase::Soaked | Phase::BindingRemoved));
    // What has not run yet does not end its soak by time.
    let soaks = |w: &Workload| free(w) && w.phase == Phase::Soaking && w.unrun.is_empty();
    let soaking = all.iter().filter(|w| soaks(w));
    let ends = soaking.filter_map(|w| w.soaked_at).filter(|end| *end > now);
    let ends: BTreeSet<Timestamp> = ends.collect();
    if over > 0 {
        tell("widentity migrate finish", format!("removes the bindings of {}", workloads(over)));
    } else if let Some(first) = ends.first() {
        tell(
            "widentity migrate finish",
            format!("from {first:.0} on, {} from now", left(*first, now)),
        );
    }
    let here = |(estate, survey): &&(&Estate, &Survey)| {
        let done = survey.workloads.iter().all(|w| w.phase == Phase::Cleaned);
        done && (estate.installed || estate.add_on.is_some() || !estate.installs.is_empty())
    };
    let done: Vec<_> = seen().filter(here).map(|(_, survey)| survey.cluster.as_str()).collect();
    if done.len() == estates.len() && !done.is_empty() {
        tell(
            "widentity migrate uninstall",
            "takes the installation of Pod Identity away".to_owned(),
        );
    } else {
        for cluster in done {
            let command = format!("widentity migrate uninstall --cluster {cluster}");
            tell(&command, "takes the installation of Pod Identity away there".to_owned());
        }
    }
    found
}

fn workloads(count: usize) -> String {
    if count == 1 { "1 workload".to_owned() } else { format!("{count} workloads") }
}

/// The time until `end`, in minutes where it is longer than one: `23h 59m`.
pub fn left(end: Timestamp, now: Timestamp) -> String {
    let left = end.duration_since(now);
    let minutes = SignedDuration::from_mins(left.as_mins());
    let left = if minutes.is_zero() { SignedDuration::from_secs(left.as_secs()) } else { minutes };
    format!("{left:#}")
}
