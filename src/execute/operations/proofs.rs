//! Guards, waits and proofs: nothing here writes, but for the pod that `--method job` makes and
//! removes.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    execute::{
        context::{Context, Good, Halt},
        event::Evidence,
        exit,
        remote::{AccountRef, PodRun, Proving},
    },
    model::{
        AccountName, Address, ArmId, Audience, ClusterName, FailureKind, Issuer, Namespace,
        PrincipalId, RemoteFailure, RoleId, desired::Probe,
    },
    plan::{
        Operation, Value,
        step::{Claim, TemplateRef},
    },
    prove::{How, Probed, retry::Age},
};

/// Role assignments that were written are visible within this time.
const VISIBLE_WITHIN: Duration = Duration::from_mins(5);
/// A webhook that does not answer is tried this often in sum.
const WEBHOOK_TRIES: u32 = 3;
/// A webhook that AKS has just installed may need this long to act.
const WEBHOOK_STARTS_WITHIN: Duration = Duration::from_mins(2);

pub(super) async fn confirm_cluster(
    context: &Context<'_>,
    issuer: &Value<Issuer>,
    namespace: &Namespace,
    account: &AccountName,
    audience: &Audience,
) -> Result<Good, Halt> {
    let cluster = context.cluster()?;
    let at = AccountRef { cluster, namespace, account };
    let want = context.resolve(issuer)?;
    let have = context.read(context.remote().token_issuer(at, audience)).await?;
    if have == want {
        return Ok(Good::done());
    }
    Err(Halt::failed(another_cluster(cluster, &have, &want)))
}

/// The failure where the tokens of an API server show that it is not the cluster of ARM's record.
pub fn another_cluster(cluster: &ClusterName, have: &Issuer, want: &Issuer) -> RemoteFailure {
    let tried = format!("confirm that the API server is cluster {cluster}");
    let message = format!("its tokens have issuer {have}, Azure's record says {want}");
    let mut failure = RemoteFailure::new(FailureKind::Refused, tried, message);
    failure.code = Some(exit::WRONG_CLUSTER.to_owned());
    failure.with_hint("kubectl config get-contexts")
}

pub(super) async fn prove(
    context: &Context<'_>,
    namespace: &Namespace,
    account: &AccountName,
    claim: &Claim,
    probe: Option<&Probe>,
) -> Result<Good, Halt> {
    let proving = Proving {
        identity: &claim.identity,
        namespace,
        account,
        client: context.resolve(&claim.client)?,
        principal: context.resolve(&claim.principal)?,
        tenant: claim.tenant,
        issuer: context.resolve(&claim.issuer)?,
        audience: &claim.audience,
        grants: &claim.grants,
        probe,
        age: age(context),
        window: context.run.options.window,
        deadline: context.run.options.proof_deadline,
    };
    let (remote, cluster) = (context.remote(), context.cluster()?);
    let (proved, detail) = match &context.run.options.how {
        How::Token => (context.read(remote.prove(cluster, &proving, context.notes())).await?, None),
        How::Pod { image } => {
            let pod = PodRun { image, now: context.now() };
            let left_out = "the probe is left out: the pod exchanges its token and no more";
            let detail = probe.map(|_| left_out.to_owned());
            let notes = context.notes();
            let call = |stop| remote.prove_by_pod(cluster, &proving, pod, stop, notes);
            (context.tidying(call).await?, detail)
        }
    };
    let (probed, probe_unseen) = match proved.probe {
        Some(Probed::Passed) => (true, None),
        Some(Probed::Unseen { why }) => (false, Some(why)),
        None => (false, None),
    };
    context.outputs(|outputs| outputs.probed(context.step.id, probed));
    let evidence = Evidence::Token {
        issuer: proved.issuer,
        subject: proved.subject,
        audience: proved.audience,
        principal: proved.principal,
        attempts: proved.attempts,
        answers: proved.answers,
        method: proved.method,
        probed,
        probe_unseen,
    };
    Ok(Good::Done { detail, evidence: Some(evidence) })
}

/// Whether this run writes what the proof rests on: identity or credential, or turns the issuer on.
fn age(context: &Context<'_>) -> Age {
    let plan = context.run.plan;
    let needed = context.step.needs.iter().filter_map(|need| plan.steps.get(need.0));
    let written = needed.into_iter().any(|step| {
        matches!(
            step.operation,
            Operation::PutCredential { .. }
                | Operation::CreateIdentity { .. }
                | Operation::EnableFeatures { .. }
        )
    });
    if written { Age::Written } else { Age::AtLeast(context.run.options.seen_for) }
}

/// Reads the assignments back until all are seen, then waits until the youngest is old enough.
pub(super) async fn settle_roles(
    context: &Context<'_>,
    principal: &Value<PrincipalId>,
    assignments: &[(RoleId, ArmId)],
) -> Result<Good, Halt> {
    let principal = context.resolve(principal)?;
    let deadline = Instant::now() + VISIBLE_WITHIN;
    let mut apart = context.run.options.looks_apart;
    let youngest = loop {
        let (seen, youngest) = look(context, principal, assignments).await?;
        if seen == assignments.len() {
            break youngest;
        }
        let missing = assignments.len() - seen;
        if Instant::now() >= deadline {
            let tried = format!("read the role assignments of principal {principal} back");
            let message = format!("{missing} of {} are not seen", assignments.len());
            return Err(Halt::failed(RemoteFailure::new(FailureKind::TimedOut, tried, message)));
        }
        context.waiting(&format!("{missing} of {} role assignments to be seen", assignments.len()));
        context.pause(apart).await?;
        apart = (apart * 2).min(context.run.options.looks_apart * 8);
    };
    if probe_has_passed(context) {
        let detail = Some("a probe has passed".to_owned());
        return Ok(Good::Done { detail, evidence: None });
    }
    let settle = context.run.options.settle;
    // An assignment whose age Azure does not tell, or from a clock ahead of ours, is new.
    let age = youngest.map_or(Duration::ZERO, |made| {
        Duration::try_from(context.now().duration_since(made)).unwrap_or_default()
    });
    let left = settle.saturating_sub(age);
    if left > Duration::ZERO {
        context.waiting(&format!("the roles to take effect, {} s", left.as_secs().max(1)));
        context.pause(left).await?;
    }
    Ok(Good::done())
}

/// How many of the assignments are seen, and when the last of them was made; none if one does not
/// say.
async fn look(
    context: &Context<'_>,
    principal: PrincipalId,
    assignments: &[(RoleId, ArmId)],
) -> Result<(usize, Option<Timestamp>), Halt> {
    let mut by_scope: BTreeMap<&ArmId, Vec<RoleId>> = BTreeMap::new();
    for (role, scope) in assignments {
        by_scope.entry(scope).or_default().push(*role);
    }
    let mut seen = 0;
    let mut youngest = Some(Timestamp::MIN);
    for (scope, roles) in by_scope {
        let there = context.read(context.remote().assignments(scope, principal)).await?;
        for role in roles {
            let found = there
                .iter()
                .find(|a| a.principal_id == principal && a.role == role && a.scope == *scope);
            if let Some(found) = found {
                seen += 1;
                youngest = youngest.zip(found.created_on).map(|(a, b)| a.max(b));
            }
        }
    }
    Ok((seen, youngest))
}

/// Whether this step comes after a proof that included a data-plane request which was answered.
fn probe_has_passed(context: &Context<'_>) -> bool {
    context.outputs(|outputs| context.step.needs.iter().any(|need| outputs.has_probed(*need)))
}

pub(super) async fn check_injection(
    context: &Context<'_>,
    namespace: &Namespace,
    account: &AccountName,
    like: &TemplateRef,
    audience: &Audience,
    proxy: bool,
) -> Result<Good, Halt> {
    let cluster = context.cluster()?;
    let at = AccountRef { cluster, namespace, account };
    let shared = Address::Cluster(cluster.clone());
    let installed_now = context.outputs(|outputs| outputs.is_made(&shared));
    let started = Instant::now();
    let mut tries = 0;
    loop {
        tries += 1;
        let failure = match context.read(context.remote().dry_run_pod(at, like, proxy)).await {
            Ok(None) => return Err(Halt::Stale(format!("{like} does not exist any more"))),
            Ok(Some(injected))
                if injected.present
                    && injected.audience.as_ref() == Some(audience)
                    && injected.proxied >= proxy =>
            {
                return Ok(Good::done());
            }
            Ok(Some(injected)) => {
                let have = match (&injected.present, &injected.audience) {
                    (true, Some(have)) if have == audience => {
                        "without the migration sidecar".to_owned()
                    }
                    (true, Some(audience)) => format!("with audience {audience}"),
                    (true, None) => "without an audience".to_owned(),
                    (false, _) => "without the environment of workload identity".to_owned(),
                };
                let failure = RemoteFailure::new(
                    FailureKind::NotProved,
                    format!("dry-run a labelled pod in namespace {namespace}"),
                    format!("the pod came back {have}, wanted audience {audience}"),
                );
                let kubectl = context.remote().kubectl(cluster);
                failure.with_hint(format!("{kubectl} get mutatingwebhookconfigurations"))
            }
            Err(Halt::Failed(failure)) => *failure,
            Err(halt) => return Err(halt),
        };
        let passes = match failure.kind {
            FailureKind::Unavailable | FailureKind::Unreachable | FailureKind::TimedOut => {
                tries < WEBHOOK_TRIES
            }
            FailureKind::NotProved => false,
            FailureKind::Unauthenticated
            | FailureKind::Denied
            | FailureKind::Conflict
            | FailureKind::Refused
            | FailureKind::Unfinished
            | FailureKind::Unmade
            | FailureKind::NotReached => return Err(Halt::failed(failure)),
        };
        let starts = installed_now && started.elapsed() < WEBHOOK_STARTS_WITHIN;
        if !passes && !starts {
            return Err(Halt::failed(failure));
        }
        context.waiting("the workload identity webhook");
        context.pause(context.run.options.looks_apart * tries.min(3)).await?;
    }
}
