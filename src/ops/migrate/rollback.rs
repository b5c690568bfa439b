//! `migrate rollback W`, and the same after a failed proof: exactly the fields that widentity
//! changed get back what they were, where they still hold our values.

use serde_json::Value;

use super::{super::Connected, Objects, Request, Shelf, Surveyed};
pub use crate::migrate::rollback::{doubts, left};
use crate::{
    kubernetes::{KubeError, Place},
    migrate::rollback,
    model::{
        FailureKind, Namespace, Project, RemoteFailure, names,
        pod_identity::{BINDING_LABEL, Backup},
        snapshot::TemplateKind,
    },
};

/// How putting one workload back went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutBack {
    /// It is as it was.
    Done,
    /// Fields that are somebody else's now; nothing was written on those objects.
    Hindered(Vec<String>),
    /// It failed.
    Failed(RemoteFailure),
}

/// Puts one workload back as its backup says: templates first, for they decide what answers.
pub async fn put_back(
    client: &dyn Objects,
    read: &Surveyed,
    backup: &Backup,
    project: &Project,
) -> PutBack {
    match attempt(client, read, backup, project).await {
        Ok(hindrances) if hindrances.is_empty() => PutBack::Done,
        Ok(hindrances) => PutBack::Hindered(hindrances),
        Err(error) => {
            let tried = format!("put {}/{} back", backup.namespace, backup.account);
            PutBack::Failed(error.failure(tried))
        }
    }
}

async fn attempt(
    client: &dyn Objects,
    read: &Surveyed,
    backup: &Backup,
    project: &Project,
) -> Result<Vec<String>, KubeError> {
    let manager = names::field_manager(project);
    let mut hindrances = rollback::obstacles(&read.estate, backup);
    if !hindrances.is_empty() {
        return Ok(hindrances);
    }
    // What answers for the old label comes back before the label does.
    for object in backup.removed.iter().rev() {
        client.make_again(object, &manager).await?;
        hindrances.extend(other_spec(client, object).await?);
    }
    if !hindrances.is_empty() {
        return Ok(hindrances);
    }
    for kept in &backup.templates {
        let found =
            read.estate.templates.iter().find(|template| {
                template.namespace == backup.namespace && template.key() == kept.key
            });
        // What is gone has nothing to give back.
        let Some(template) = found else { continue };
        let at = Place {
            kind: template.kind,
            api_version: &template.api_version,
            namespace: &template.namespace,
            name: &template.name,
            uid: &kept.uid,
        };
        let found = client.restore_template(at, kept, &manager).await?;
        let old_label = kept.labels.get(BINDING_LABEL).is_some_and(|field| field.before.is_some());
        if found.is_empty() && old_label && template.kind == TemplateKind::StatefulSet {
            client.free_pods(at).await?;
        }
        hindrances.extend(found.into_iter().map(|what| format!("{}: {what}", kept.key)));
    }
    // An account that pods still use by the new path keeps its annotations.
    if hindrances.is_empty() {
        let found = client.restore_account(backup, &manager).await?;
        hindrances.extend(found.into_iter().map(|what| format!("service account: {what}")));
    }
    if hindrances.is_empty() {
        let done = Backup { rolled_back: true, ..backup.clone() };
        client.write_backup(&done, &manager).await?;
    }
    Ok(hindrances)
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

/// The same for one workload that somebody named.
pub async fn undo(
    read: &Surveyed,
    backup: &Backup,
    request: Request<'_>,
    connected: &Connected,
) -> PutBack {
    let Some(connection) = connected.clusters.get(&read.survey.cluster) else {
        return PutBack::Failed(RemoteFailure::new(
            FailureKind::NotReached,
            format!("connect to cluster {}", read.survey.cluster),
            "no way to reach it was given",
        ));
    };
    match connection.client().await {
        Ok(client) => {
            let how = put_back(&client, read, backup, &request.desired.project).await;
            shelved(how, read, backup, request.shelf)
        }
        Err(failure) => PutBack::Failed(failure),
    }
}

/// Notes beside the cluster, too, that a workload was put back.
pub(super) fn shelved(
    how: PutBack,
    read: &Surveyed,
    backup: &Backup,
    shelf: &dyn Shelf,
) -> PutBack {
    if how != PutBack::Done {
        return how;
    }
    let done = Backup { rolled_back: true, ..backup.clone() };
    match shelf.put(&read.survey.cluster, &done) {
        Ok(()) => PutBack::Done,
        Err(failure) => PutBack::Failed(failure),
    }
}
