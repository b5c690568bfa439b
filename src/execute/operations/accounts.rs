//! Service accounts: making a bare one, and the annotations that point it at an identity.

use std::collections::BTreeMap;

use crate::{
    execute::{
        context::{Context, Good, Halt},
        remote::{AccountFields, AccountRef},
    },
    model::{
        AccountName, ClientId, FailureKind, Namespace, RemoteFailure, TenantId, names,
        snapshot::ObservedAccount,
    },
    plan::Value,
};

pub(super) async fn create(
    context: &Context<'_>,
    namespace: &Namespace,
    account: &AccountName,
) -> Result<Good, Halt> {
    let remote = context.remote();
    let at = AccountRef { cluster: context.cluster()?, namespace, account };
    let keep = |seen: &ObservedAccount| {
        context.outputs(|outputs| outputs.account(&context.step.address, seen.uid.clone()));
    };
    let use_found = |seen: &ObservedAccount| {
        // One that carries nothing is what this step makes, whoever made it, and one with our mark
        // is what an earlier run of this plan made of it. Any other belongs to somebody who was
        // not there when the plan looked for owners.
        let meta = &seen.meta;
        let bare = meta.annotations.is_empty() && meta.labels.is_empty();
        let mark = meta.annotations.get(names::PROJECT_ANNOTATION);
        let ours = mark.is_some_and(|mark| *mark == remote.project().0);
        if !(bare || ours) || meta.deleting {
            return Err(Halt::Stale(format!("service account {namespace}/{account} exists now")));
        }
        keep(seen);
        Ok(())
    };
    if let Some(seen) = context.read(remote.account(at)).await? {
        use_found(&seen)?;
        return Ok(Good::unchanged());
    }
    let made = match context.write(remote.create_account(at)).await {
        // A POST that got no answer may have been carried out: the server knows.
        Err(Halt::Failed(failure)) if failure.kind.is_unanswered() => {
            match context.read(remote.account(at)).await? {
                Some(seen) => {
                    use_found(&seen)?;
                    return Ok(Good::done());
                }
                None => context.write(remote.create_account(at)).await?,
            }
        }
        made => made?,
    };
    keep(&made);
    Ok(Good::done())
}

/// What an account is to be annotated with, as the plan has it.
pub(super) struct Pointing<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) account: &'a AccountName,
    pub(super) uid: Option<&'a str>,
    pub(super) client: &'a Value<ClientId>,
    pub(super) tenant: TenantId,
    pub(super) expiration: Option<u32>,
    pub(super) force: bool,
    pub(super) expect: &'a BTreeMap<String, Option<String>>,
}

pub(super) async fn annotate(context: &Context<'_>, pointing: Pointing<'_>) -> Result<Good, Halt> {
    let Pointing { namespace, account, uid, client, tenant, expiration, force, expect } = pointing;
    let remote = context.remote();
    let at = AccountRef { cluster: context.cluster()?, namespace, account };
    let name = format!("service account {namespace}/{account}");
    let made = || context.outputs(|outputs| outputs.account_uid(&context.step.address));
    let Some(uid) = uid.map(str::to_owned).or_else(made) else {
        let tried = format!("take the UID of {name}");
        let message = "no step before this one made it";
        return Err(Halt::failed(RemoteFailure::new(FailureKind::NotReached, tried, message)));
    };
    let Some(seen) = context.read(remote.account(at)).await? else {
        return Err(Halt::Stale(format!("{name} does not exist any more")));
    };
    if seen.uid != uid || seen.meta.deleting {
        return Err(Halt::Stale(format!("{name} was deleted or recreated")));
    }
    let mut wanted = BTreeMap::from([
        (names::CLIENT_ID_ANNOTATION.to_owned(), context.resolve(client)?.to_string()),
        (names::TENANT_ID_ANNOTATION.to_owned(), tenant.to_string()),
        (names::PROJECT_ANNOTATION.to_owned(), remote.project().to_string()),
    ]);
    if let Some(seconds) = expiration {
        wanted.insert(names::EXPIRATION_ANNOTATION.to_owned(), seconds.to_string());
    }
    // A GUID in another case is as wanted, and whoever wrote it so may own it: another spelling of
    // ours would be a conflict about nothing.
    for key in [names::CLIENT_ID_ANNOTATION, names::TENANT_ID_ANNOTATION] {
        if let (Some(have), Some(want)) = (seen.meta.annotations.get(key), wanted.get_mut(key))
            && have.eq_ignore_ascii_case(want)
        {
            want.clone_from(have);
        }
    }
    if is_as_wanted(&name, &seen, &wanted, expect)? {
        return Ok(Good::unchanged());
    }
    let fields = AccountFields { uid: &uid, annotations: &wanted, force };
    context.write(remote.apply_account(at, &fields)).await?;
    Ok(Good::done())
}

/// Whether nothing is left to do. Stale where an annotation has neither the value of the plan nor
/// the wanted one; those that the plan does not expect to change had the wanted value.
fn is_as_wanted(
    name: &str,
    seen: &ObservedAccount,
    wanted: &BTreeMap<String, String>,
    expect: &BTreeMap<String, Option<String>>,
) -> Result<bool, Halt> {
    // GUIDs are compared without case, as the planner does.
    let same = |have: Option<&String>, want: Option<&String>| match (have, want) {
        (Some(have), Some(want)) => have.eq_ignore_ascii_case(want),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    let mut as_wanted = true;
    for key in wanted.keys().chain(expect.keys().filter(|key| !wanted.contains_key(*key))) {
        let (have, want) = (seen.meta.annotations.get(key), wanted.get(key));
        if same(have, want) {
            continue;
        }
        as_wanted = false;
        let planned = expect.get(key).is_some_and(|planned| planned.as_ref() == have);
        if !planned {
            let have = have.map_or("not set", String::as_str);
            return Err(Halt::Stale(format!("annotation {key} of {name} is {have}")));
        }
    }
    Ok(as_wanted)
}
