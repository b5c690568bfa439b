//! The service account that the templates really use.

use std::collections::BTreeMap;

use crate::{
    diagnose::{
        difference::edits,
        evidence::Template,
        facts::Facts,
        keys,
        link::{Fix, State},
        links::template,
    },
    model::{
        AccountName, names,
        snapshot::{Observation, ObservedAccount},
    },
};

fn names_identity(account: &ObservedAccount) -> bool {
    let keys = account.meta.annotations.keys();
    account.meta.annotations.contains_key(names::CLIENT_ID_ANNOTATION)
        || keys::near(keys, names::CLIENT_ID_ANNOTATION).is_some()
}

/// Judges which account is used and whether it exists.
pub(in crate::diagnose) fn account(facts: &mut Facts<'_>) -> State {
    let evidence = facts.evidence;
    let namespace = &evidence.asked.namespace;
    if evidence.namespace == Observation::Absent {
        return template::namespace_missing(facts);
    }
    let accounts = match &*evidence.accounts {
        Observation::Present(accounts) => accounts,
        Observation::Absent => return template::namespace_missing(facts),
        Observation::Unknown(failure) => return State::unseen(failure),
    };
    let meant = evidence.asked.account.as_ref();
    let other = facts.templates.iter().find(|t| meant.is_some_and(|name| t.seen.account != *name));
    if let (Some(template), Some(meant)) = (other, meant) {
        return other_account(facts, &template::words(facts, template), &template.seen, meant, "");
    }
    let Some(seen) = accounts.get(&facts.account) else {
        if let Some((template, meant)) = meant_instead(facts, accounts) {
            return other_account(
                facts,
                &template::words(facts, template),
                &template.seen,
                &meant,
                " (which does not exist)",
            );
        }
        return State::broken(
            "account-missing",
            format!(
                "service account {namespace}/{} does not exist: pods that name it are refused",
                facts.account
            ),
            facts.kubernetes(created(facts)),
        );
    };
    if seen.meta.deleting {
        return State::broken(
            "account-being-deleted",
            format!("service account {namespace}/{} is being deleted", facts.account),
            Fix::advice("wait until it is gone and create it anew"),
        );
    }
    // Nobody says which account is meant: one that names an identity and runs nothing, beside one
    // that runs the pods and names none, is a slip in the template.
    if !names_identity(seen)
        && !facts.in_file()
        && let Some(template) = facts.templates.first()
    {
        let all = evidence.templates.present().map_or(&[][..], Vec::as_slice);
        let used = |name: &AccountName| all.iter().any(|t| t.seen.account == *name);
        let mut idle = accounts
            .iter()
            .filter(|(name, account)| names_identity(account) && !used(name))
            .map(|(name, _)| name);
        if let (Some(candidate), None) = (idle.next(), idle.next()) {
            return other_account(
                facts,
                &template::words(facts, template),
                &template.seen,
                candidate,
                "",
            );
        }
    }
    // The file names an account that nothing uses, and a labelled template runs as another.
    if facts.templates.is_empty() && facts.in_file() && evidence.asked.object.is_none() {
        let all = evidence.templates.present().map_or(&[][..], Vec::as_slice);
        let mut stray = all.iter().filter(|template| {
            let user = accounts.get(&template.seen.account);
            template.seen.labelled() && !user.is_some_and(names_identity)
        });
        if let (Some(template), None) = (stray.next(), stray.next()) {
            let words = template::words(facts, template);
            return other_account(facts, &words, &template.seen, &facts.account.clone(), "");
        }
    }
    State::holds(format!("{namespace}/{}", facts.account))
}

/// Makes the account and, where an identity trusts it already, names that.
fn created(facts: &Facts<'_>) -> Fix {
    let name = facts.account.as_str();
    let mut lines = vec![facts.kubectl(&["create", "serviceaccount", name])];
    if let Some(identity) = facts.identity.or_else(|| facts.trusting()) {
        let client = identity.client_id.to_string().into();
        lines.push(facts.annotation_line(&[(names::CLIENT_ID_ANNOTATION, client)]));
        lines.extend(facts.restart());
    }
    Fix::typed(lines)
}

/// The account that a template was meant to name where it names one that does not exist: the one
/// that its live pods from before still run as, or one that names an identity, runs nothing and is
/// spelt almost the same.
fn meant_instead<'a>(
    facts: &Facts<'a>,
    accounts: &BTreeMap<AccountName, ObservedAccount>,
) -> Option<(&'a Template, AccountName)> {
    let template = *facts.templates.first()?;
    let pods = facts.evidence.pods.present().map_or(&[][..], Vec::as_slice);
    let before = pods.iter().filter(|pod| pod.live() && pod.is_made_by(&template.seen));
    let mut before = before.map(|pod| &pod.account).filter(|name| accounts.contains_key(*name));
    if let Some(name) = before.next() {
        return Some((template, name.clone()));
    }
    let all = facts.evidence.templates.present().map_or(&[][..], Vec::as_slice);
    let near = |name: &AccountName| edits(name.as_str(), facts.account.as_str(), 2) <= 2;
    let idle = |name: &AccountName| all.iter().all(|other| other.seen.account != *name);
    let mut found = accounts
        .iter()
        .filter(|(name, account)| names_identity(account) && idle(name) && near(name));
    match (found.next(), found.next()) {
        (Some((name, _)), None) => Some((template, name.clone())),
        _ => None,
    }
}

fn other_account(
    facts: &Facts<'_>,
    object: &str,
    template: &crate::model::snapshot::ObservedTemplate,
    meant: &AccountName,
    aside: &str,
) -> State {
    let kind = template.kind;
    let writable = kind.writable() && kind.as_str() != "cronjob" && kind.as_str() != "rollout";
    let fix = if writable {
        Fix::typed([facts.kubectl(&["set", "serviceaccount", &template.key(), meant.as_str()])])
    } else {
        Fix::advice(format!("set serviceAccountName: {meant} in the pod template of {object}"))
    };
    State::broken(
        "template-uses-other-account",
        format!("{object} runs as service account {}{aside}, not as {meant}", template.account),
        fix,
    )
}
