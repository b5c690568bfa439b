//! What only all workloads together show: duplicates, shared identities, limits.

use std::collections::BTreeMap;

use super::{Problems, workloads::Draft};
use crate::{
    config::{checked::Grant, code::Code, diagnostic::Diagnostic, source::Span},
    model::{ArmId, desired::IdentityControl, names::MOST_CREDENTIALS},
};

/// Places shown of one problem: more would hide the others.
const MOST_PLACES: usize = 6;

pub(super) fn check(drafts: &[Draft], problems: &mut Problems) {
    duplicates(drafts, problems);
    let mut by_identity: BTreeMap<&ArmId, Vec<&Draft>> = BTreeMap::new();
    for draft in drafts {
        if let Some(identity) = &draft.identity {
            by_identity.entry(&identity.id).or_default().push(draft);
        }
    }
    for (id, drafts) in by_identity {
        shared(id, &drafts, problems);
        control(id, &drafts, problems);
        credentials(id, &drafts, problems);
        conditions(&drafts, problems);
    }
}

fn duplicates(drafts: &[Draft], problems: &mut Problems) {
    let mut seen: BTreeMap<_, &Draft> = BTreeMap::new();
    for draft in drafts {
        let (Some(namespace), Some(account)) = (&draft.namespace, &draft.account) else { continue };
        if let Some(first) = seen.get(&(namespace, account)) {
            problems.push(
                Diagnostic::at(
                    Code::DuplicateWorkload,
                    draft.name_span,
                    format!("the workload `{namespace}/{account}` is there twice"),
                )
                .also(first.name_span, "first here")
                .help("one workload takes several clusters and several grants"),
            );
        } else {
            seen.insert((namespace, account), draft);
        }
    }
}

fn name(draft: &Draft) -> Option<String> {
    Some(format!("{}/{}", draft.namespace.as_ref()?, draft.account.as_ref()?))
}

fn place(draft: &Draft) -> Span {
    draft.identity_span.unwrap_or(draft.span)
}

fn shared(id: &ArmId, drafts: &[&Draft], problems: &mut Problems) {
    // The same workload twice is another problem, reported as such.
    let mut names: Vec<String> = drafts.iter().filter_map(|draft| name(draft)).collect();
    names.sort();
    names.dedup();
    let unwritten = drafts.iter().find(|draft| draft.identity_span.is_none());
    let Some(unwritten) = unwritten.filter(|_| names.len() > 1) else { return };
    let mut problem = Diagnostic::at(
        Code::IdentityShared,
        unwritten.span,
        format!("workloads {} share the identity `{}`", list(&names), id.name()),
    )
    .label("does not say so");
    let others = drafts.iter().filter(|draft| draft.span != unwritten.span);
    for draft in others.take(MOST_PLACES) {
        problem = problem.also(place(draft), "uses it too");
    }
    problems.push(
        problem.help(format!("if that is meant, write `identity = \"{}\"` on each", id.name())),
    );
}

fn list(names: &[String]) -> String {
    let shown: Vec<String> =
        names.iter().take(MOST_PLACES).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(MOST_PLACES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn control(id: &ArmId, drafts: &[&Draft], problems: &mut Problems) {
    let of = |control: IdentityControl| {
        drafts.iter().find(|draft| {
            draft.identity.as_ref().is_some_and(|identity| identity.control == control)
        })
    };
    if let (Some(managed), Some(external)) =
        (of(IdentityControl::Managed), of(IdentityControl::External))
    {
        problems.push(
            Diagnostic::at(
                Code::IdentityControlConflict,
                place(external),
                format!("`{}` is named by its id here and by its name elsewhere", id.name()),
            )
            .label("by its id: must exist, is never made or tagged")
            .also(place(managed), "by its name: is made and tagged")
            .help("write it the same way everywhere"),
        );
    }
}

fn credentials(id: &ArmId, drafts: &[&Draft], problems: &mut Problems) {
    let of = |draft: &Draft| draft.clusters.as_ref().map_or(0, Vec::len);
    let count: usize = drafts.iter().map(|draft| of(draft)).sum();
    let Some(first) = drafts.first().filter(|_| count > MOST_CREDENTIALS) else { return };
    let label = |draft: &Draft| match of(draft) {
        1 => "1 of them".to_owned(),
        n => format!("{n} of them, one for each cluster"),
    };
    let mut problem = Diagnostic::at(
        Code::TooManyCredentials,
        place(first),
        format!(
            "the identity `{}` of {} would have {count} federated credentials; Azure allows \
             {MOST_CREDENTIALS}",
            id.name(),
            if drafts.len() == 1 {
                "1 workload".to_owned()
            } else {
                format!("{} workloads", drafts.len())
            }
        ),
    )
    .label(label(first));
    for draft in drafts.iter().skip(1).take(MOST_PLACES) {
        problem = problem.also(place(draft), label(draft));
    }
    problems.push(
        problem.help(
            "use several identities: one for each workload, or one for each group of clusters",
        ),
    );
}

fn conditions(drafts: &[&Draft], problems: &mut Problems) {
    let mut seen: BTreeMap<(String, String), (Span, &Grant)> = BTreeMap::new();
    for (span, grant) in drafts.iter().flat_map(|draft| &draft.grants) {
        let Some((first, other)) = seen.get(&grant.key()) else {
            seen.insert(grant.key(), (*span, grant));
            continue;
        };
        if other.condition != grant.condition {
            problems.push(
                Diagnostic::at(
                    Code::GrantConditionConflict,
                    *span,
                    format!(
                        "`{}` on `{}` is granted to one identity with two conditions",
                        grant.role.label(),
                        grant.scope.name()
                    ),
                )
                .label(described(grant))
                .also(*first, described(other))
                .help("Azure keeps one: write the same condition, or give the workloads their own identities"),
            );
        }
    }
}

fn described(grant: &Grant) -> &'static str {
    if grant.condition.is_some() { "with one condition here" } else { "without condition here" }
}
