//! What a migration reads and writes in a cluster beside the engine's own steps: backups, the fields
//! that come back, objects of Pod Identity. Objects go by uid.
//!
//! Source: Kubernetes documentation, "Preconditions" of the delete options.

use std::collections::BTreeMap;

use async_trait::async_trait;
use hyper::Method;
use serde_json::{Value, json};

use super::{
    Client, KubeError, Place, Within,
    client::{Ask, Repeat, segment},
    estate::claim,
    parse_meta::only_ours,
    parse_template::template_path,
    pod_identity::{self, BACKUP_KEY, BACKUP_LABEL, BACKUP_MARK},
    switch::{before, changes, foreign},
    versions::collection,
};
use crate::model::{
    Namespace, names,
    pod_identity::{Assigned, Backup, Binding, EstatePod, Field, PodIdentity, TemplateBackup},
    snapshot::ObservedTemplate,
};

/// Backups, what they give back, and the objects of Pod Identity. [`Client`] is the real thing; a
/// test puts a world in memory in its place and lets it fail anywhere.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Writes a backup into the workload's namespace, as a `ConfigMap` that holds no secret.
    async fn write_backup(&self, backup: &Backup, manager: &str) -> Result<(), KubeError>;
    /// Gives the fields of a pod template back what they were. Nothing is written where one of
    /// them has neither our value nor the one before: the answer says which. A controller that is
    /// gone has nothing to give back, nor has one that somebody made again as it was.
    async fn restore_template(
        &self,
        at: Place<'_>,
        kept: &TemplateBackup,
        manager: &str,
    ) -> Result<Vec<String>, KubeError>;
    /// Gives the annotations of an account back what they were, as [`Self::restore_template`].
    /// An account that is gone has nothing to give back; one that was made again holds what
    /// somebody else wrote, and the answer says so.
    async fn restore_account(
        &self,
        backup: &Backup,
        manager: &str,
    ) -> Result<Vec<String>, KubeError>;
    /// Makes an object of Pod Identity again; whether it was not there. One that is stays as it is.
    async fn make_again(&self, object: &Value, manager: &str) -> Result<bool, KubeError>;
    /// The pod templates of a namespace that may be written, and its pods, at this moment.
    async fn inhabitants(
        &self,
        namespace: &Namespace,
    ) -> Result<(Vec<ObservedTemplate>, Vec<EstatePod>), KubeError>;
    /// Deletes a pod as it was seen: one that changed since, by becoming ready for one, stays, and
    /// the answer is a conflict.
    async fn remove_pod(&self, pod: &EstatePod) -> Result<(), KubeError>;
    /// Removes an `AzureIdentityBinding` as it was seen: one that changed since stays, and the
    /// answer is a conflict. What comes back are the finalizers that hold it.
    async fn remove_binding(&self, binding: &Binding) -> Result<Vec<String>, KubeError>;
    /// Removes an `AzureIdentity`, as [`Self::remove_binding`].
    async fn remove_identity(&self, identity: &PodIdentity) -> Result<Vec<String>, KubeError>;
    /// An `AzureIdentityBinding` as it can be made again.
    async fn pod_identity_binding(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError>;
    /// An `AzureIdentity` as it can be made again.
    async fn pod_identity(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError>;
    /// What MIC has assigned and not taken back.
    async fn assigned(&self) -> Result<Vec<Assigned>, KubeError>;
}

#[async_trait]
impl Objects for Client {
    async fn write_backup(&self, backup: &Backup, manager: &str) -> Result<(), KubeError> {
        let text = serde_json::to_string(backup)
            .map_err(|error| KubeError::Body { message: error.to_string() })?;
        let name = backup_name(backup);
        let body = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": backup.namespace.as_str(),
                "labels": {BACKUP_LABEL: BACKUP_MARK}},
            "data": {BACKUP_KEY: text},
        });
        let path = collection("v1", Some(backup.namespace.as_str()), "configmaps");
        let path = format!("{path}/{name}");
        let _written: Value = self.apply(path, body, manager, true).await?;
        Ok(())
    }

    async fn restore_template(
        &self,
        at: Place<'_>,
        kept: &TemplateBackup,
        manager: &str,
    ) -> Result<Vec<String>, KubeError> {
        let TemplateBackup { labels, annotations, mark, .. } = kept;
        let decide = |object: &Value| {
            let meta = object.pointer(&at.template()).cloned().unwrap_or_default();
            if object["metadata"]["uid"] != at.uid {
                let moved = meta["labels"][names::USE_LABEL] == "true";
                let again = || Err(vec!["it was made again, with the new label".to_owned()]);
                return if moved { again() } else { Ok(Vec::new()) };
            }
            let ours = |part: &'static str| {
                let path = [template_path(at.kind), &["f:metadata", part]].concat();
                move |key: &str| only_ours(&object["metadata"], &path, key, manager)
            };
            let mut found = foreign("label", &meta["labels"], labels, ours("f:labels"));
            let annotated = &meta["annotations"];
            found.extend(foreign("annotation", annotated, annotations, ours("f:annotations")));
            if !found.is_empty() {
                return Err(found);
            }
            let mut patch = Vec::new();
            let path = format!("{}/labels", at.template());
            changes(&path, &meta["labels"], &before(labels), &mut patch);
            let path = format!("{}/annotations", at.template());
            changes(&path, &meta["annotations"], &before(annotations), &mut patch);
            // A backup that did not note the mark: it came with the label.
            let came = labels.get(names::USE_LABEL).is_some_and(|field| field.before.is_none());
            let mark = mark.clone().or_else(|| came.then(Field::default));
            let have = &object["metadata"]["annotations"];
            let now = have[names::PROJECT_ANNOTATION].as_str();
            // Another project's mark stays.
            if let Some(Field { before, .. }) =
                mark.filter(|mark| mark.after.is_none() || mark.after.as_deref() == now)
            {
                let own = BTreeMap::from([(names::PROJECT_ANNOTATION.to_owned(), before)]);
                changes("/metadata/annotations", have, &own, &mut patch);
            }
            Ok(patch)
        };
        Ok(self.revise(&at.path(), manager, decide).await?.refused())
    }

    async fn restore_account(
        &self,
        backup: &Backup,
        manager: &str,
    ) -> Result<Vec<String>, KubeError> {
        let Backup { namespace, account, annotations, account_uid, .. } = backup;
        let path = collection("v1", Some(namespace.as_str()), "serviceaccounts");
        let path = format!("{path}/{}", segment(account.as_str()));
        let decide = |object: &Value| {
            let have = &object["metadata"]["annotations"];
            let path = ["f:metadata", "f:annotations"];
            let ours = |key: &str| only_ours(&object["metadata"], &path, key, manager);
            let found = foreign("annotation", have, annotations, ours);
            if !found.is_empty() {
                return Err(found);
            }
            let mut patch = Vec::new();
            changes("/metadata/annotations", have, &before(annotations), &mut patch);
            let uid = object["metadata"]["uid"].as_str();
            let again = account_uid.is_some() && account_uid.as_deref() != uid;
            if again && !patch.is_empty() {
                return Err(vec!["it was made again, with these annotations".to_owned()]);
            }
            Ok(patch)
        };
        Ok(self.revise(&path, manager, decide).await?.refused())
    }

    async fn make_again(&self, object: &Value, manager: &str) -> Result<bool, KubeError> {
        let plural = match object["kind"].as_str() {
            Some("AzureIdentity") => "azureidentities",
            Some("AzureIdentityBinding") => "azureidentitybindings",
            kind => {
                let message =
                    format!("a backup holds an object of kind {}", kind.unwrap_or("none"));
                return Err(KubeError::Body { message });
            }
        };
        let namespace = object["metadata"]["namespace"].as_str();
        let asked: Result<Value, KubeError> = self
            .ask(&Ask {
                method: Method::POST,
                path: collection(pod_identity::GROUP, namespace, plural),
                query: vec![("fieldManager", manager.to_owned())],
                body: Some(("application/json", object.clone())),
                repeat: Repeat::Unsafe,
            })
            .await;
        match asked {
            Err(error) if error.is_already_exists() => Ok(false),
            asked => asked.map(|_| true),
        }
    }

    async fn inhabitants(
        &self,
        namespace: &Namespace,
    ) -> Result<(Vec<ObservedTemplate>, Vec<EstatePod>), KubeError> {
        let path = collection("v1", Some(namespace.as_str()), "pods");
        let fold = |found: &mut Vec<EstatePod>, object: Value| {
            found.push(pod_identity::pod(&object));
        };
        let within = Within::Namespace(namespace);
        let (mut templates, mut pods, steerings) = futures::try_join!(
            self.templates(within),
            self.list(&path, fold),
            self.steerings(within)
        )?;
        for pod in &mut pods {
            claim(&steerings, pod);
        }
        Ok((templates.remove(namespace).unwrap_or_default(), pods))
    }

    async fn remove_pod(&self, pod: &EstatePod) -> Result<(), KubeError> {
        let path = collection("v1", Some(pod.namespace.as_str()), "pods");
        let path = format!("{path}/{}", segment(&pod.name));
        self.delete_exactly(path, &pod.uid, Some(&pod.resource_version)).await.map(drop)
    }

    async fn remove_binding(&self, binding: &Binding) -> Result<Vec<String>, KubeError> {
        let Binding { namespace, name, uid, resource_version, .. } = binding;
        let path = at("azureidentitybindings", namespace, name);
        self.delete_exactly(path, uid, Some(resource_version)).await
    }

    async fn remove_identity(&self, identity: &PodIdentity) -> Result<Vec<String>, KubeError> {
        let PodIdentity { namespace, name, uid, resource_version, .. } = identity;
        let path = at("azureidentities", namespace, name);
        self.delete_exactly(path, uid, Some(resource_version)).await
    }

    async fn pod_identity_binding(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        self.whole("azureidentitybindings", namespace, name).await
    }

    async fn pod_identity(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        self.whole("azureidentities", namespace, name).await
    }

    async fn assigned(&self) -> Result<Vec<Assigned>, KubeError> {
        let each = |o: &Value| Some(pod_identity::assigned(o));
        let found = self.collect(pod_identity::GROUP, "azureassignedidentities", &[], each).await?;
        Ok(found.unwrap_or_default())
    }
}

impl Client {
    async fn whole(
        &self,
        plural: &str,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        let found: Option<Value> = self.find(at(plural, namespace, name)).await?;
        Ok(found.map(bare))
    }
}

/// The path of an object of Pod Identity.
fn at(plural: &str, namespace: &Namespace, name: &str) -> String {
    let path = collection(pod_identity::GROUP, Some(namespace.as_str()), plural);
    format!("{path}/{}", segment(name))
}

/// An object without what the server gave it, its status included.
pub(super) fn bare(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let Some(meta) = object["metadata"].as_object() else { return object };
    let keep = ["name", "namespace", "labels", "annotations"];
    let meta: serde_json::Map<String, Value> = meta
        .iter()
        .filter(|(k, _)| keep.contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    object["metadata"] = Value::Object(meta);
    object
}

/// The name of a backup: an account's name may be longer than a `ConfigMap`'s allows with a prefix.
fn backup_name(backup: &Backup) -> String {
    format!("widentity-migrate-{}", names::sha256_hex(backup.account.as_str(), 16))
}
