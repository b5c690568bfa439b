//! The service account: that it exists, and, after the proof, its annotations.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, FieldChange, Lock, ObjectKind, Operation, Planned, Reason, StepId, Value,
    draft::{Draft, NewChange, NewStep, differs, finding, invented, known},
    identity::IdentityState,
    ownership,
    planner::{Place, World, not_read, take_over},
    report::Pending,
};
use crate::model::{
    Address,
    address::Part,
    desired::ManagedBy,
    names,
    snapshot::{KubernetesSnapshot, Observation, ObservedAccount, OwnedField},
};

/// What is to be done about one account.
pub(super) struct AccountPlan<'a> {
    /// The account as it is; none where this run makes it or Git must.
    pub(super) seen: Option<&'a ObservedAccount>,
    /// The step that makes it.
    pub(super) made: Option<StepId>,
    /// The change that annotates it; none where nothing differs or it is not ours to write.
    pub(super) annotate: Option<Annotate>,
    /// Whether a token can be asked for: it exists or this run makes it.
    pub(super) exists: bool,
    /// Whether its annotations are not as wanted and will not be after this run.
    pub(super) held: bool,
}

/// Annotations that are to be set after the proof.
pub(super) struct Annotate {
    change: usize,
    force: bool,
    expect: BTreeMap<String, Option<String>>,
}

/// The path of an annotation as a reader of the object would write it.
fn path(key: &str) -> String {
    format!("metadata.annotations[\"{key}\"]")
}

/// Plans existence and annotations of one account. `frozen`: its grants are held, or it is left to
/// `migrate`, so nothing is pointed at the identity anew. `Err`: it could not be seen or is refused.
pub(super) fn plan<'a>(
    world: &World<'a>,
    draft: &mut Draft,
    place: &Place<'a>,
    kubernetes: &'a KubernetesSnapshot,
    identity: &IdentityState<'_>,
    frozen: bool,
) -> Result<AccountPlan<'a>, ()> {
    let workload = place.workload;
    let address = place.address.clone().part(Part::ServiceAccount);
    let accounts = match kubernetes.accounts.get(&workload.namespace) {
        Some(Observation::Present(accounts)) => Some(accounts),
        Some(Observation::Absent) => None,
        Some(Observation::Unknown(failure)) => {
            draft.unseen(address, failure, &workload.origin);
            return Err(());
        }
        None => {
            draft.unseen(address, &not_read(&workload.namespace), &workload.origin);
            return Err(());
        }
    };
    let seen = accounts.and_then(|accounts| accounts.get(&workload.account));
    if let Some(seen) = seen {
        if let Some(other) = ownership::other_project(&seen.meta, &world.desired.project) {
            draft.report.refused.push(finding(
                address,
                "other-project",
                format!("service account {} belongs to project {other}", workload.account),
                "take it out of one of the two files".to_owned(),
                &workload.origin,
            ));
            return Err(());
        }
        if seen.meta.deleting {
            draft.report.blocked.push(finding(
                place.address.clone(),
                "account-being-deleted",
                format!("service account {} is being deleted", workload.account),
                "run again when it is gone".to_owned(),
                &workload.origin,
            ));
            return Err(());
        }
    }
    if let Some(text) = refused_expiration(place, seen) {
        draft.report.blocked.push(finding(
            place.address.clone(),
            "token-expiration-invalid",
            format!(
                "annotation {} of service account {} is {text}: the webhook refuses its pods",
                names::EXPIRATION_ANNOTATION,
                workload.account
            ),
            format!(
                "write `token_expiration` for this workload, or: {} annotate serviceaccount {} {}-",
                place.kubectl(),
                workload.account,
                names::EXPIRATION_ANNOTATION
            ),
            &workload.origin,
        ));
        return Err(());
    }
    let wanted = fields(world, place, identity, seen);
    let engine = match workload.managed_by {
        ManagedBy::Auto => seen.and_then(|seen| ownership::gitops(&seen.meta)),
        ManagedBy::Git => Some("Git (managed_by)".to_owned()),
        ManagedBy::Widentity => None,
    };
    if let Some(engine) = engine {
        return Ok(left_to_git(world, draft, place, seen, &wanted, &engine));
    }
    if wanted.is_empty() {
        return Ok(AccountPlan { seen, made: None, annotate: None, exists: true, held: false });
    }
    if frozen {
        return Ok(AccountPlan {
            seen,
            made: None,
            annotate: None,
            exists: seen.is_some(),
            held: true,
        });
    }
    let force = may_write(world, draft, place, &address, seen, &wanted)?;
    let change = draft.change(NewChange {
        address: address.clone(),
        kind: ObjectKind::KubernetesServiceAccount,
        action: if seen.is_some() { Action::Update } else { Action::Create },
        id: place.object("serviceaccount", workload.account.as_str()),
        fields: wanted.iter().map(|wanted| wanted.change.clone()).collect(),
        reasons: if seen.is_some() {
            wanted.iter().map(|wanted| wanted.reason.clone()).collect()
        } else {
            vec![Reason::Missing]
        },
        workloads: vec![place.address.clone()],
        origin: workload.origin.clone(),
    });
    let made = seen.is_none().then(|| {
        draft.step(NewStep {
            address,
            operation: Operation::CreateAccount {
                namespace: workload.namespace.clone(),
                account: workload.account.clone(),
            },
            needs: place.cluster.confirmed.clone(),
            locks: BTreeSet::from([lock(place)]),
            workloads: vec![place.address.clone()],
            origin: workload.origin.clone(),
            change: Some(change),
        })
    });
    let expect = wanted.iter().map(|wanted| (wanted.key.to_owned(), wanted.have.clone())).collect();
    let annotate = Some(Annotate { change, force, expect });
    Ok(AccountPlan { seen, made, annotate, exists: true, held: false })
}

/// Adds the step that annotates, after `needs`: the proof and the grants.
pub(super) fn annotate(
    draft: &mut Draft,
    place: &Place<'_>,
    plan: &AccountPlan<'_>,
    annotate: &Annotate,
    identity: &IdentityState<'_>,
    needs: Vec<StepId>,
) -> StepId {
    let workload = place.workload;
    draft.step(NewStep {
        address: place.address.clone().part(Part::ServiceAccount),
        operation: Operation::AnnotateAccount {
            namespace: workload.namespace.clone(),
            account: workload.account.clone(),
            uid: plan.seen.map(|seen| seen.uid.clone()),
            client: identity.client.clone(),
            tenant: workload.tenant,
            expiration: workload.token_expiration,
            force: annotate.force,
            expect: annotate.expect.clone(),
        },
        needs,
        locks: BTreeSet::from([lock(place)]),
        workloads: vec![place.address.clone()],
        origin: workload.origin.clone(),
        change: Some(annotate.change),
    })
}

fn lock(place: &Place<'_>) -> Lock {
    let workload = place.workload;
    Lock::Object(
        place.cluster.cluster.name.clone(),
        format!("serviceaccount/{}/{}", workload.namespace, workload.account),
    )
}

/// A field that differs.
struct Wanted {
    key: &'static str,
    have: Option<String>,
    change: FieldChange,
    reason: Reason,
}

/// The annotations that are not as wanted. The project's mark comes along with the others and,
/// where we may write, is wanted for itself.
fn fields(
    world: &World<'_>,
    place: &Place<'_>,
    identity: &IdentityState<'_>,
    seen: Option<&ObservedAccount>,
) -> Vec<Wanted> {
    let workload = place.workload;
    let have = |key: &str| seen.and_then(|seen| seen.meta.annotations.get(key)).cloned();
    let mut wanted = Vec::new();
    let key = names::CLIENT_ID_ANNOTATION;
    let before = have(key);
    let same = match &identity.client {
        Value::Known(client) => same_guid(before.as_deref(), &client.to_string()),
        Value::AfterApply(_) => false,
    };
    if !same {
        let formula = identity.client_formula();
        let want = match &identity.client {
            Value::Known(client) => client.to_string(),
            Value::AfterApply(_) => formula.clone(),
        };
        wanted.push(Wanted {
            key,
            change: invented(path(key), before.as_deref(), &identity.client, formula),
            reason: differs(&path(key), before.as_deref(), want),
            have: before,
        });
    }
    let mut text = |key: &'static str, want: String, same: fn(Option<&str>, &str) -> bool| {
        let before = have(key);
        if !same(before.as_deref(), &want) {
            wanted.push(Wanted {
                key,
                change: known(path(key), before.as_deref(), want.as_str()),
                reason: differs(&path(key), before.as_deref(), want),
                have: before,
            });
        }
    };
    text(names::TENANT_ID_ANNOTATION, workload.tenant.to_string(), same_guid);
    if let Some(seconds) = workload.token_expiration {
        let equal = |have: Option<&str>, want: &str| have == Some(want);
        text(names::EXPIRATION_ANNOTATION, seconds.to_string(), equal);
    }
    let mark = world.desired.project.to_string();
    let dropped = workload.token_expiration.is_none()
        && seen.is_some_and(|seen| expiration_is_ours(world, seen));
    text(names::PROJECT_ANNOTATION, mark, |have, want| have == Some(want));
    if dropped {
        let key = names::EXPIRATION_ANNOTATION;
        let before = have(key);
        wanted.push(Wanted {
            key,
            change: known(path(key), before.as_deref(), serde_json::Value::Null),
            reason: differs(&path(key), before.as_deref(), "not set"),
            have: before,
        });
    }
    wanted
}

/// Whether the account's token lifetime was annotated by us: then it goes when the file no longer
/// sets one.
fn expiration_is_ours(world: &World<'_>, seen: &ObservedAccount) -> bool {
    let field = OwnedField::Annotation(names::EXPIRATION_ANNOTATION.to_owned());
    let ours = names::field_manager(&world.desired.project);
    seen.meta.owners.get(&field).is_some_and(|owners| owners.iter().any(|o| o.name == ours))
}

/// The token lifetime that the account's pods will get, in seconds: the file's, else what
/// somebody else annotated, else the webhook's default.
pub(super) fn expiration(
    world: &World<'_>,
    place: &Place<'_>,
    seen: Option<&ObservedAccount>,
) -> u32 {
    if let Some(seconds) = place.workload.token_expiration {
        return seconds;
    }
    let foreign = seen
        .filter(|seen| !expiration_is_ours(world, seen))
        .and_then(|seen| seen.meta.annotations.get(names::EXPIRATION_ANNOTATION));
    foreign.and_then(|text| text.parse().ok()).unwrap_or(names::DEFAULT_EXPIRATION)
}

/// What somebody annotated as the lifetime where the file sets none, and no pod can be made with.
fn refused_expiration<'a>(place: &Place<'_>, seen: Option<&'a ObservedAccount>) -> Option<&'a str> {
    let text = seen?.meta.annotations.get(names::EXPIRATION_ANNOTATION)?;
    let taken = text.parse().is_ok_and(|seconds| names::EXPIRATIONS.contains(&seconds));
    (place.workload.token_expiration.is_none() && !taken).then_some(text)
}

/// GUIDs that differ only in case are one identity.
fn same_guid(have: Option<&str>, want: &str) -> bool {
    have.is_some_and(|have| have.eq_ignore_ascii_case(want))
}

/// An account that Git keeps: nothing is written; what Git must hold is said.
fn left_to_git<'a>(
    world: &World<'_>,
    draft: &mut Draft,
    place: &Place<'_>,
    seen: Option<&'a ObservedAccount>,
    wanted: &[Wanted],
    engine: &str,
) -> AccountPlan<'a> {
    let workload = place.workload;
    let lines: Vec<String> = wanted
        .iter()
        .filter(|wanted| wanted.key != names::PROJECT_ANNOTATION)
        .map(|wanted| {
            let value = match &wanted.change.after {
                Planned::Known(value) => value.as_str().unwrap_or_default().to_owned(),
                Planned::AfterApply(formula) => format!("({formula})"),
            };
            format!("{}: \"{value}\"", path(wanted.key))
        })
        .collect();
    let held = !lines.is_empty();
    if held {
        draft.report.pending_git.push(Pending {
            workload: place.address.clone(),
            object: place.object("serviceaccount", workload.account.as_str()),
            why: format!("kept by {engine}; project {} does not write it", world.desired.project),
            wanted: lines,
        });
    }
    AccountPlan { seen, made: None, annotate: None, exists: seen.is_some(), held }
}

/// Whether the differing fields may be written, and whether by force.
fn may_write(
    world: &World<'_>,
    draft: &mut Draft,
    place: &Place<'_>,
    address: &Address,
    seen: Option<&ObservedAccount>,
    wanted: &[Wanted],
) -> Result<bool, ()> {
    let Some(seen) = seen else { return Ok(false) };
    let fields: Vec<OwnedField> =
        wanted.iter().map(|wanted| OwnedField::Annotation(wanted.key.to_owned())).collect();
    let conflicts = ownership::conflicts(&seen.meta, &world.desired.project, &fields);
    take_over(draft, place, address, &conflicts)
}
