//! `migrate rollback W`, and the same after a failed roll: exactly the fields that widentity changed
//! get back what they were, where they still hold our values. It is over when the old pods are back.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{super::Connected, Objects, Patience, Request, Shelf, Surveyed};
pub use crate::migrate::rollback::left;
use crate::{
    execute::{
        another_cluster,
        remote::{AccountRef, Remote as _},
    },
    kubernetes::{Client, KubeError, Place},
    migrate::rollback::{self, Pair},
    model::{
        FailureKind, Namespace, Project, RemoteFailure, names,
        pod_identity::Backup,
        snapshot::{Evidence, Observation},
    },
    plan,
};

/// How putting one workload back went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutBack {
    /// It is as it was, and so are its pods.
    Done,
    /// It is as it was, but for what others need.
    Kept(Vec<String>),
    /// Its pod templates are as they were, and not all of its pods yet. Its account stays as it is
    /// until then.
    Late(Vec<String>),
    /// A part of it is as it was.
    Partly(Vec<String>),
    /// Fields that are somebody else's now, or nothing that would answer; nothing was written.
    Hindered(Vec<String>),
    /// It failed, and nothing was written.
    Failed(RemoteFailure),
}

impl PutBack {
    /// Whether its pod templates are as they were.
    pub fn is_back(&self) -> bool {
        matches!(self, Self::Done | Self::Kept(_) | Self::Late(_))
    }
}

/// What is put back.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// The whole workload, with what answered it.
    Everything,
    /// The templates that this run rolled, `kind/name`: what answered them a moment ago still does.
    Rolls(&'a BTreeSet<String>),
}

/// What putting back is done with.
#[derive(Clone)]
pub struct Putting<'a> {
    /// The owner mark.
    pub project: &'a Project,
    /// Whether somebody knows that NMI runs, although none was found.
    pub served: bool,
    /// Whether it failed without a fault of its application: it is tried again.
    pub blameless: bool,
    /// How long old pods may take.
    pub patience: Patience,
    /// Told what is waited for.
    pub notes: &'a (dyn Fn(&str) + Send + Sync),
}

/// Puts one workload back as its backup says: templates first, for they decide what answers; the
/// account when no pod is made any more that needs it.
pub async fn put_back(
    client: &dyn Objects,
    read: &Surveyed,
    backup: &Backup,
    what: What<'_>,
    with: &Putting<'_>,
) -> PutBack {
    let mut written = false;
    let done = attempt(client, read, backup, what, with, &mut written).await;
    let name = backup.name();
    match done {
        Ok(PutBack::Hindered(what)) if written => PutBack::Partly(what),
        Ok(how) => how,
        Err(error) => {
            let failure = error.failure(format!("put {name} back"));
            if written {
                let go_on = format!("widentity migrate rollback {name} goes on");
                PutBack::Partly(vec![failure.to_string(), go_on])
            } else {
                PutBack::Failed(failure)
            }
        }
    }
}

async fn attempt(
    client: &dyn Objects,
    read: &Surveyed,
    backup: &Backup,
    what: What<'_>,
    with: &Putting<'_>,
    written: &mut bool,
) -> Result<PutBack, KubeError> {
    let manager = names::field_manager(with.project);
    let mut pairs = match rollback::templates(&read.estate, backup) {
        Ok(pairs) => pairs,
        Err(hindrances) => return Ok(PutBack::Hindered(hindrances)),
    };
    let all = pairs.len();
    match what {
        What::Rolls(rolled) => pairs.retain(|(_, kept)| rolled.contains(&kept.key)),
        What::Everything => {
            let hindrances = rollback::obstacles(&read.estate, backup, with.served);
            if !hindrances.is_empty() {
                return Ok(PutBack::Hindered(hindrances));
            }
            // What answers for the old label comes back before the label does.
            let hindrances = make_again(client, backup, &manager, written).await?;
            if !hindrances.is_empty() {
                return Ok(PutBack::Hindered(hindrances));
            }
        }
    }
    if pairs.len() == all {
        // From now on `apply` leaves it alone, however far this comes.
        let begun = rollback::noted(backup, &read.estate, with.blameless);
        client.write_backup(&begun, &manager).await?;
    }
    let mut hindrances = Vec::new();
    for (template, kept) in &pairs {
        let at = Place {
            kind: template.kind,
            api_version: &template.api_version,
            namespace: &template.namespace,
            name: &template.name,
            uid: &template.uid,
        };
        let found = client.restore_template(at, kept, &manager).await?;
        *written |= found.is_empty();
        hindrances.extend(found.into_iter().map(|what| format!("{}: {what}", kept.key)));
    }
    if !hindrances.is_empty() {
        return Ok(PutBack::Hindered(hindrances));
    }
    if let Some(late) = until_back(client, backup, &pairs, with).await {
        return Ok(PutBack::Late(late));
    }
    account(client, read, backup, &pairs, &manager).await
}

/// Makes what was removed again, and says where something else has its place.
async fn make_again(
    client: &dyn Objects,
    backup: &Backup,
    manager: &str,
    written: &mut bool,
) -> Result<Vec<String>, KubeError> {
    let mut hindrances = Vec::new();
    for object in backup.removed.iter().rev() {
        *written |= client.make_again(object, manager).await?;
        hindrances.extend(other_spec(client, object).await?);
    }
    Ok(hindrances)
}

/// Waits until the old pods are back and helps where a controller would not; what is still to come
/// when patience, or somebody's wish to wait, has ended.
async fn until_back(
    client: &dyn Objects,
    backup: &Backup,
    pairs: &[Pair<'_>],
    with: &Putting<'_>,
) -> Option<Vec<String>> {
    let name = backup.name();
    let tried = format!("see the old pods of {name} again");
    let left = async || {
        let seen = client.inhabitants(&backup.namespace).await;
        let (templates, pods) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                let failure = error.failure(tried.clone());
                // An API server may restart meanwhile.
                return if failure.kind.is_unanswered() {
                    Ok(Some(failure.message))
                } else {
                    Err(failure)
                };
            }
        };
        let late = |(_, kept): &Pair<'_>| rollback::late(&templates, &pods, kept);
        let late: Vec<_> = pairs.iter().filter_map(late).collect();
        for pod in late.iter().filter_map(|late| late.stuck.as_ref()) {
            let tried =
                format!("delete pod {}/{}, which its failed roll left", pod.namespace, pod.name);
            (with.notes)(&tried);
            match client.remove_pod(pod).await.map_err(|error| error.failure(tried)) {
                // It changed since it was seen: it is looked at again.
                Err(failure) if failure.kind == FailureKind::Conflict => {}
                Err(failure) if !failure.kind.is_unanswered() => {
                    let hint = format!("kubectl -n {} delete pod {}", pod.namespace, pod.name);
                    return Err(failure.with_hint(hint));
                }
                Err(_) | Ok(()) => {}
            }
        }
        let first = late.into_iter().next().map(|late| late.what);
        if let Some(first) = &first {
            (with.notes)(first);
        }
        Ok(first)
    };
    let look = format!("kubectl -n {} get pods", backup.namespace);
    let again = format!("then: widentity migrate rollback {name}");
    match with.patience.until(left, &tried, &look).await {
        Ok(true) => None,
        Ok(false) => Some(vec!["interrupted before its old pods were back".to_owned(), again]),
        Err(failure) => {
            let mut said = vec![format!("{} ({})", failure.message, failure.tried)];
            said.extend(failure.hint);
            said.push(again);
            Some(said)
        }
    }
}

/// Gives the account its annotations back, unless somebody else would miss them.
async fn account(
    client: &dyn Objects,
    read: &Surveyed,
    backup: &Backup,
    pairs: &[Pair<'_>],
    manager: &str,
) -> Result<PutBack, KubeError> {
    let (templates, pods) = client.inhabitants(&backup.namespace).await?;
    let needed = rollback::needed((&templates, &pods), &read.estate, backup, pairs);
    if !needed.is_empty() {
        let who = needed.join(", ");
        let keeps = format!("its service account keeps its annotations, which {who} needs");
        let then = format!("when that is gone: widentity migrate rollback {}", backup.name());
        return Ok(PutBack::Kept(vec![keeps, then]));
    }
    let found = client.restore_account(backup, manager).await?;
    if found.is_empty() {
        return Ok(PutBack::Done);
    }
    Ok(PutBack::Kept(found.into_iter().map(|what| format!("service account: {what}")).collect()))
}

/// Says so where another object has the place of one that was removed.
async fn other_spec(client: &dyn Objects, object: &Value) -> Result<Option<String>, KubeError> {
    let meta = &object["metadata"];
    let text = |key: &str| meta[key].as_str().unwrap_or_default();
    let (namespace, name) = (Namespace::from(text("namespace")), text("name"));
    let now = if object["kind"] == "AzureIdentity" {
        client.pod_identity(&namespace, name).await?
    } else {
        client.pod_identity_binding(&namespace, name).await?
    };
    let same = now.is_some_and(|now| now["spec"] == object["spec"]);
    let kind = object["kind"].as_str().unwrap_or_default();
    Ok((!same).then(|| format!("{kind} {namespace}/{name} was made again with another spec")))
}

/// Puts back one workload that somebody named, after the API server is shown to be its cluster.
pub async fn undo(
    read: &Surveyed,
    backup: &Backup,
    request: Request<'_>,
    connected: &Connected,
    with: &Putting<'_>,
) -> PutBack {
    let client = match confirmed(read, backup, request, connected).await {
        Ok(client) => client,
        Err(failure) => return PutBack::Failed(failure),
    };
    let how = put_back(&client, read, backup, What::Everything, with).await;
    shelved(how, read, &rollback::noted(backup, &read.estate, with.blameless), request.shelf)
}

/// A client of the workload's cluster, by the evidence that `apply` asks for.
pub(super) async fn confirmed(
    read: &Surveyed,
    backup: &Backup,
    request: Request<'_>,
    connected: &Connected,
) -> Result<Client, RemoteFailure> {
    let name = &read.survey.cluster;
    let not_reached = |message: &str| {
        RemoteFailure::new(FailureKind::NotReached, format!("connect to cluster {name}"), message)
    };
    let cluster = request.cluster(name)?;
    let client = connected.client(name).await?;
    let remotes = connected.remotes(request.desired);
    let arm = remotes.cluster(&cluster.id).await?;
    let arm = arm.ok_or_else(|| not_reached("it does not exist in Azure"))?;
    let issuer = match client.discovery_issuer().await {
        Ok(issuer) => Observation::Present(issuer),
        Err(error) => Observation::Unknown(error.failure(format!("read the issuer of {name}"))),
    };
    let evidence = Evidence { host: client.host().to_owned(), issuer };
    if plan::shown(cluster, &arm, &evidence)? == plan::Shown::ByToken {
        let Backup { namespace, account, .. } = backup;
        let at = AccountRef { cluster: name, namespace, account };
        let have = remotes.token_issuer(at, &cluster.audience).await?;
        let want = arm.issuer.ok_or_else(|| not_reached("its record in Azure has no issuer"))?;
        if have != want {
            return Err(another_cluster(name, &have, &want));
        }
    }
    Ok(client)
}

/// Notes beside the cluster, too, that a workload was put back.
pub(super) fn shelved(how: PutBack, read: &Surveyed, noted: &Backup, shelf: &dyn Shelf) -> PutBack {
    if !how.is_back() {
        return how;
    }
    match shelf.put(&read.survey.cluster, noted) {
        Ok(()) => how,
        Err(failure) => PutBack::Partly(vec![failure.to_string()]),
    }
}
