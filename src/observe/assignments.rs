//! Role assignments: one unfiltered list for a subscription; where that may not be had, a list per
//! scope and principal.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;

use super::{
    arm::{Identities, Reader},
    need::{Need, listing},
};
use crate::model::{
    ArmId, FailureKind, RemoteFailure,
    snapshot::{Assignments, Observation, ObservedAssignment},
};

/// A whole list of one place.
type Listed = (ArmId, Result<Vec<ObservedAssignment>, RemoteFailure>);

/// Lists every place that holds scopes of the file.
pub(super) async fn lists(reader: &Reader<'_>, need: &Need) -> Vec<Listed> {
    let each = need.listed.iter().map(|at| async move {
        let tried = format!("list role assignments at {at}");
        (at.clone(), reader.ask(tried, reader.arm.assignments_at(at, None)).await)
    });
    join_all(each).await
}

/// Adds what only a list per scope and principal shows, and keeps the assignments of the
/// identities that were seen: nobody else's matter.
pub(super) async fn complete(
    reader: &Reader<'_>,
    need: &Need,
    identities: &Identities,
    listed: Vec<Listed>,
) -> Assignments {
    let present = identities.seen.values().filter_map(Observation::present);
    let known: BTreeSet<_> =
        present.chain(&identities.others).map(|identity| identity.principal_id).collect();
    let mut seen: BTreeMap<ArmId, ObservedAssignment> = BTreeMap::new();
    let mut keep = |list: Vec<ObservedAssignment>| {
        // A list shows inherited assignments again.
        for assignment in list.into_iter().filter(|a| known.contains(&a.principal_id)) {
            seen.insert(assignment.id.clone(), assignment);
        }
    };
    let mut looked = Vec::new();
    let mut denied = Vec::new();
    for (at, answer) in listed {
        match answer {
            Ok(list) => {
                keep(list);
                looked.push((at, Observation::Present(())));
            }
            Err(failure) => {
                if failure.kind == FailureKind::Denied {
                    denied.extend(need.scopes.keys().filter(|scope| listing(scope) == at));
                }
                looked.push((at, Observation::Unknown(failure)));
            }
        }
    }
    let narrow = denied.into_iter().map(|scope| at_scope(reader, need, identities, scope));
    for (scope, list, how) in join_all(narrow).await {
        keep(list);
        looked.push((scope, how));
    }
    Assignments { seen: seen.into_values().collect(), looked }
}

/// The assignments at one scope of every principal that wants one there or below it: then the
/// scope counts as looked at for everything below it, too.
async fn at_scope(
    reader: &Reader<'_>,
    need: &Need,
    identities: &Identities,
    scope: &ArmId,
) -> (ArmId, Vec<ObservedAssignment>, Observation<()>) {
    let below = need.scopes.iter().filter(|(other, _)| other.is_within(scope));
    let principals = identities.principals(below.flat_map(|(_, identities)| identities));
    let each = principals.into_iter().map(|principal| async move {
        let tried = format!("list role assignments of principal {principal} at {scope}");
        reader.ask(tried, reader.arm.assignments_at(scope, Some(principal))).await
    });
    let mut found = Vec::new();
    let mut how = Observation::Present(());
    for answer in join_all(each).await {
        match answer {
            Ok(list) => found.extend(list),
            Err(failure) => how = Observation::Unknown(failure),
        }
    }
    (scope.clone(), found, how)
}
