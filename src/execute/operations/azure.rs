//! Cluster features, identities, federated credentials, role assignments.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::{
    execute::{
        context::{Context, Good, Halt},
        remote::{Assigned, Assignment},
    },
    model::{
        ArmId, Audience, FailureKind, Issuer, PrincipalId, RemoteFailure, RoleId, Subject,
        desired::Feature,
        names,
        snapshot::{ObservedCluster, ObservedCredential},
    },
    plan::{Operation, Value},
};

fn has(cluster: &ObservedCluster, feature: Feature) -> bool {
    match feature {
        Feature::OidcIssuer => cluster.issuer.is_some(),
        Feature::WorkloadIdentity => cluster.workload_identity,
    }
}

pub(super) async fn enable_features(
    context: &Context<'_>,
    id: &ArmId,
    features: &BTreeSet<Feature>,
) -> Result<Good, Halt> {
    let remote = context.remote();
    let Some(seen) = context.read(remote.cluster(id)).await? else {
        return Err(Halt::Stale(format!("cluster {} does not exist any more", id.name())));
    };
    if features.iter().all(|feature| has(&seen, *feature)) {
        keep_issuer(context, seen.issuer);
        return Ok(Good::unchanged());
    }
    let cluster = context.write(remote.enable_features(id, features, context.notes())).await?;
    if let Some(missing) = features.iter().find(|feature| !has(&cluster, **feature)) {
        let tried = format!("enable {} on cluster {}", missing.as_str(), id.name());
        let message = "the cluster's record does not show it after the update";
        return Err(Halt::failed(RemoteFailure::new(FailureKind::Refused, tried, message)));
    }
    let detail = cluster.issuer.as_ref().map(|issuer| format!("issuer {issuer}"));
    keep_issuer(context, cluster.issuer);
    context.outputs(|outputs| outputs.made(&context.step.address));
    Ok(Good::Done { detail, evidence: None })
}

fn keep_issuer(context: &Context<'_>, issuer: Option<Issuer>) {
    if let Some(issuer) = issuer {
        context.outputs(|outputs| outputs.issuer(&context.step.address, issuer));
    }
}

pub(super) async fn create_identity(
    context: &Context<'_>,
    id: &ArmId,
    location: &str,
    tags: &BTreeMap<String, String>,
) -> Result<Good, Halt> {
    let remote = context.remote();
    let at = &context.step.address;
    if let Some(seen) = context.read(remote.identity(id)).await? {
        // A PUT would replace its tags. It is ours only if an earlier run of this plan made it.
        if tags.iter().all(|(key, value)| seen.tag(key).is_some_and(|(_, have)| have == value)) {
            context.outputs(|outputs| outputs.identity(at, seen.client_id, seen.principal_id));
            return Ok(Good::unchanged());
        }
        let owner = seen.tag(names::PROJECT_TAG).map_or_else(
            || "without this project's tags".to_owned(),
            |(_, project)| format!("with the tags of project {project}"),
        );
        return Err(Halt::Stale(format!("identity {} exists now, {owner}", id.name())));
    }
    let made = context.write(remote.create_identity(id, location, tags, context.notes())).await?;
    context.outputs(|outputs| {
        outputs.identity(at, made.client_id, made.principal_id);
        outputs.made(at);
    });
    Ok(Good::Done { detail: Some(format!("client id {}", made.client_id)), evidence: None })
}

pub(super) async fn tag_identity(
    context: &Context<'_>,
    id: &ArmId,
    tags: &BTreeMap<String, String>,
    expect: &BTreeMap<String, Option<String>>,
    principal: PrincipalId,
) -> Result<Good, Halt> {
    let remote = context.remote();
    let Some(seen) = context.read(remote.identity(id)).await? else {
        return Err(Halt::Stale(format!("identity {} does not exist any more", id.name())));
    };
    if seen.principal_id != principal {
        return Err(Halt::Stale(format!(
            "identity {} was recreated: its principal is {}, not {principal}",
            id.name(),
            seen.principal_id
        )));
    }
    let at = &context.step.address;
    context.outputs(|outputs| outputs.identity(at, seen.client_id, seen.principal_id));
    // A PATCH replaces the whole map of tags.
    let mut complete = seen.tags.clone();
    for (key, want) in tags {
        let there = seen.tag(key);
        let have = there.map(|(_, value)| value);
        let planned = expect.get(key).and_then(Option::as_deref);
        if have != Some(want) && have != planned {
            let have = have.unwrap_or("not set");
            return Err(Halt::Stale(format!("tag {key} of identity {} is {have}", id.name())));
        }
        let name = there.map_or(key.as_str(), |(name, _)| name);
        complete.insert(name.to_owned(), want.clone());
    }
    if complete == seen.tags {
        return Ok(Good::unchanged());
    }
    context.write(remote.set_identity_tags(id, &complete, context.notes())).await?;
    Ok(Good::done())
}

/// Whether the principal or client id comes from an identity that this run made a moment ago:
/// nobody else has written to it, and Azure may not know it everywhere.
fn is_fresh<T>(context: &Context<'_>, value: &Value<T>) -> bool {
    match value {
        Value::Known(_) => false,
        Value::AfterApply(at) => context.outputs(|outputs| outputs.is_made(at)),
    }
}

/// Whether the identity of this id was made by a step that this one needs.
fn identity_is_fresh(context: &Context<'_>, id: &ArmId) -> bool {
    let plan = context.run.plan;
    context.step.needs.iter().filter_map(|need| plan.steps.get(need.0)).any(|step| {
        let makes =
            matches!(&step.operation, Operation::CreateIdentity { id: made, .. } if made == id);
        makes && context.outputs(|outputs| outputs.is_made(&step.address))
    })
}

pub(super) async fn put_credential(
    context: &Context<'_>,
    identity: &ArmId,
    name: &str,
    issuer: &Value<Issuer>,
    subject: &Subject,
    audience: &Audience,
    expect: Option<&ObservedCredential>,
) -> Result<Good, Halt> {
    let remote = context.remote();
    let wanted = ObservedCredential {
        name: name.to_owned(),
        issuer: context.resolve(issuer)?,
        subject: Some(subject.clone()),
        audiences: vec![audience.clone()],
    };
    let fresh = identity_is_fresh(context, identity);
    if !fresh {
        let Some(seen) = context.read(remote.credentials(identity)).await? else {
            let name = identity.name();
            return Err(Halt::Stale(format!("identity {name} does not exist any more")));
        };
        if let Some(unchanged) = compare_credential(&seen, &wanted, expect)? {
            return Ok(unchanged);
        }
    }
    context.write(remote.put_credential(identity, &wanted, context.notes())).await?;
    Ok(Good::done())
}

/// Azure allows a pair of issuer and subject once for each identity, under any name. None: the
/// credential is as planned and may be written.
fn compare_credential(
    seen: &[ObservedCredential],
    wanted: &ObservedCredential,
    expect: Option<&ObservedCredential>,
) -> Result<Option<Good>, Halt> {
    let named = seen.iter().find(|credential| credential.name == wanted.name);
    let same_pair =
        |c: &&ObservedCredential| c.issuer == wanted.issuer && c.subject == wanted.subject;
    if let Some(other) = seen.iter().find(same_pair).filter(|pair| pair.name != wanted.name) {
        return if other.audiences == wanted.audiences {
            let detail = format!("found as federated credential {}", other.name);
            Ok(Some(Good::Unchanged { detail: Some(detail) }))
        } else {
            Err(Halt::Stale(format!(
                "federated credential {} has this issuer and subject now",
                other.name
            )))
        };
    }
    match (named, expect) {
        (Some(named), _) if named == wanted => Ok(Some(Good::unchanged())),
        (None, None) => Ok(None),
        (Some(named), Some(expect)) if named == expect => Ok(None),
        (Some(named), _) => Err(Halt::Stale(format!(
            "federated credential {} has issuer {}, subject {} and audience {} now",
            named.name,
            named.issuer,
            named.subject.as_ref().map_or("none", Subject::as_str),
            named.audiences.iter().map(Audience::as_str).collect::<Vec<_>>().join(" and "),
        ))),
        (None, Some(expect)) => Err(Halt::Stale(format!(
            "federated credential {} does not exist any more",
            expect.name
        ))),
    }
}

/// A grant as the plan has it.
pub(super) struct Grant<'a> {
    pub(super) principal: &'a Value<PrincipalId>,
    pub(super) role: RoleId,
    pub(super) role_label: &'a str,
    pub(super) scope: &'a ArmId,
    pub(super) name: Option<Uuid>,
    pub(super) condition: Option<&'a str>,
    pub(super) description: &'a str,
    pub(super) exists: bool,
}

pub(super) async fn put_assignment(context: &Context<'_>, grant: Grant<'_>) -> Result<Good, Halt> {
    let Grant { principal, role, role_label, scope, name, condition, description, exists } = grant;
    let remote = context.remote();
    let fresh = is_fresh(context, principal);
    let principal = context.resolve(principal)?;
    let name =
        name.unwrap_or_else(|| names::role_assignment(scope, principal, role, remote.project()));
    // A principal of a moment ago has no assignments.
    if !fresh {
        let seen = context.read(remote.assignments(scope, principal)).await?;
        let same = seen.into_iter().find(|seen| {
            seen.principal_id == principal && seen.role == role && seen.scope == *scope
        });
        match same {
            None if exists => {
                return Err(Halt::Stale(format!(
                    "role assignment {name} ({role_label}) does not exist any more"
                )));
            }
            None => {}
            Some(seen) => {
                let ours = seen.name.eq_ignore_ascii_case(&name.to_string());
                if seen.condition.as_deref() == condition {
                    let detail = (!ours).then(|| format!("assigned already as {}", seen.name));
                    return Ok(Good::Unchanged { detail });
                }
                if !ours || !exists {
                    return Err(Halt::Stale(format!(
                        "role assignment {} of {role_label} has another condition",
                        seen.name
                    )));
                }
            }
        }
    }
    let assignment = Assignment { scope, name, principal, role, condition, description };
    match context.write(remote.put_assignment(&assignment, context.notes())).await? {
        Assigned::Made => Ok(Good::done()),
        Assigned::Existed(other) => {
            let detail = other.map(|other| format!("assigned already as {other}"));
            Ok(Good::Unchanged { detail })
        }
    }
}
