//! Writes that a migration makes beside those of [`super::write`]: fields that others own go or
//! come back by JSON patch with tests on what was seen, in one request and so in one roll; objects
//! go by uid.
//!
//! Source: Kubernetes documentation, "Update API Objects in Place Using kubectl patch" and
//! "Preconditions" of the delete options.

use std::{collections::BTreeMap, time::Duration};

use hyper::Method;
use serde_json::{Value, json};
use tokio::time;

use super::{
    Client, KubeError,
    client::{Ask, Repeat, segment},
    pod_identity::{self, BACKUP_KEY, BACKUP_LABEL, BACKUP_MARK},
    versions::{collection, plural},
    write::strict,
};
use crate::model::{
    Namespace, names,
    pod_identity::{BINDING_LABEL, Backup, Field, Named},
    snapshot::TemplateKind,
};

/// A controller that is written.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its kind.
    pub kind: TemplateKind,
    /// The version that the server serves.
    pub api_version: &'a str,
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// Its name.
    pub name: &'a str,
    /// The UID it must have.
    pub uid: &'a str,
}

/// What changes on a pod template at once.
#[derive(Debug, Clone, Copy)]
pub struct Switch<'a> {
    /// Labels that go, with the values they must have.
    pub remove_labels: &'a BTreeMap<String, String>,
    /// Annotations that go, with the values they must have.
    pub remove_annotations: &'a BTreeMap<String, String>,
    /// Labels that are set.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations that are set.
    pub annotations: &'a BTreeMap<String, String>,
}

/// How often an object is read and decided about anew where others write it meanwhile.
const TRIES: u32 = 8;
/// After the first time; each further one waits so much longer.
const APART: Duration = Duration::from_millis(50);

fn changed(path: &str, what: &str) -> KubeError {
    // `shop/deployments/web`
    let object = path.split_once("/namespaces/").map_or(path, |(_, object)| object);
    KubeError::Changed { object: object.to_owned(), what: what.to_owned() }
}

/// A path segment of a JSON pointer (RFC 6901).
fn pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl Place<'_> {
    fn path(&self) -> String {
        let path = collection(self.api_version, Some(self.namespace.as_str()), plural(self.kind));
        format!("{path}/{}", segment(self.name))
    }

    fn template(&self) -> &'static str {
        if self.kind == TemplateKind::CronJob {
            "/spec/jobTemplate/spec/template/metadata"
        } else {
            "/spec/template/metadata"
        }
    }
}

/// The operations that bring a map of strings from what it is to what it is to be. `None` takes a
/// key away. An absent map is made whole.
fn changes(
    at: &str,
    have: &Value,
    wanted: &BTreeMap<String, Option<String>>,
    patch: &mut Vec<Value>,
) {
    let mut fresh = serde_json::Map::new();
    for (key, value) in wanted {
        let path = format!("{at}/{}", pointer(key));
        let before = have.get(key);
        match (before, value) {
            (None, None) => {}
            (Some(before), None) => {
                patch.push(json!({"op": "test", "path": path, "value": before}));
                patch.push(json!({"op": "remove", "path": path}));
            }
            (Some(before), Some(value)) if before == value => {}
            (Some(before), Some(value)) => {
                patch.push(json!({"op": "test", "path": path, "value": before}));
                patch.push(json!({"op": "replace", "path": path, "value": value}));
            }
            (None, Some(value)) if have.is_object() => {
                patch.push(json!({"op": "add", "path": path, "value": value}));
            }
            (None, Some(value)) => {
                fresh.insert(key.clone(), json!(value));
            }
        }
    }
    if !fresh.is_empty() {
        patch.push(json!({"op": "add", "path": at, "value": fresh}));
    }
}

/// Fields whose present value is neither ours nor the one before: they are somebody else's now.
fn foreign(what: &str, have: &Value, fields: &BTreeMap<String, Field>) -> Vec<String> {
    let mut found = Vec::new();
    for (key, field) in fields {
        let have = have.get(key).and_then(Value::as_str);
        if have != field.after.as_deref() && have != field.before.as_deref() {
            found.push(format!("{what} {key} is {} now", have.unwrap_or("not set")));
        }
    }
    found
}

fn before(fields: &BTreeMap<String, Field>) -> BTreeMap<String, Option<String>> {
    fields.iter().map(|(key, field)| (key.clone(), field.before.clone())).collect()
}

/// What a reading leads to: the operations to send, or why nothing is sent.
type Decided = Result<Vec<Value>, Vec<String>>;

impl Client {
    /// Reads an object, decides by it and sends the patch, in which tests make sure that it is
    /// still what was read. Where somebody wrote in between, and controllers write the status of
    /// what they roll all the time, it is read and decided anew. The answer says why nothing was
    /// sent; none where there is no such object.
    async fn revise(
        &self,
        path: &str,
        manager: &str,
        decide: impl Fn(&Value) -> Decided,
    ) -> Result<Option<Vec<String>>, KubeError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let Some(object) = self.find::<Value>(path.to_owned()).await? else { return Ok(None) };
            let patch = match decide(&object) {
                Ok(patch) if patch.is_empty() => return Ok(Some(Vec::new())),
                Ok(patch) => patch,
                Err(found) => return Ok(Some(found)),
            };
            match self.json_patch(path.to_owned(), &object, patch, manager).await {
                Ok(()) => return Ok(Some(Vec::new())),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) if error.is_overtaken() && tries < TRIES => {
                    time::sleep(APART * tries).await;
                }
                Err(error) if error.is_overtaken() => {
                    return Err(changed(path, "others keep writing it"));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn json_patch(
        &self,
        path: String,
        object: &Value,
        mut patch: Vec<Value>,
        manager: &str,
    ) -> Result<(), KubeError> {
        let mut tests = Vec::new();
        for (path, key) in
            [("/metadata/uid", "uid"), ("/metadata/resourceVersion", "resourceVersion")]
        {
            let value = &object["metadata"][key];
            if value.is_string() {
                tests.push(json!({"op": "test", "path": path, "value": value}));
            }
        }
        tests.append(&mut patch);
        let _written: Value = self
            .ask(&Ask {
                method: Method::PATCH,
                path,
                query: strict(manager),
                body: Some(("application/json-patch+json", Value::Array(tests))),
                repeat: Repeat::Unsafe,
            })
            .await?;
        Ok(())
    }

    /// Sets and takes away fields of one pod template in one write, so that its pods are rolled
    /// once. Fails with a conflict where the controller was made again, or a label or annotation
    /// that is to go has another value by now.
    pub async fn switch_template(
        &self,
        at: Place<'_>,
        switch: Switch<'_>,
        manager: &str,
    ) -> Result<(), KubeError> {
        let path = at.path();
        let decide = |object: &Value| {
            let meta = object.pointer(at.template()).cloned().unwrap_or_default();
            let mut found = Vec::new();
            if object["metadata"]["uid"] != at.uid {
                found.push("it was made again".to_owned());
            }
            let mut patch = Vec::new();
            for (what, set, remove) in [
                ("label", switch.labels, switch.remove_labels),
                ("annotation", switch.annotations, switch.remove_annotations),
            ] {
                let have = &meta[format!("{what}s")];
                let mut wanted: BTreeMap<String, Option<String>> =
                    set.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
                for (key, value) in remove {
                    match have[key].as_str() {
                        Some(other) if other != value => {
                            found.push(format!("{what} {key} is {other}"));
                        }
                        Some(_) => drop(wanted.insert(key.clone(), None)),
                        None => {}
                    }
                }
                changes(&format!("{}/{what}s", at.template()), have, &wanted, &mut patch);
            }
            if found.is_empty() { Ok(patch) } else { Err(found) }
        };
        match self.revise(&path, manager, decide).await? {
            None => Err(changed(&path, "it does not exist any more")),
            Some(found) if found.is_empty() => Ok(()),
            Some(found) => Err(changed(&path, &found.join(", "))),
        }
    }

    /// Gives the fields of a pod template back what they were. Nothing is written where one of
    /// them has neither our value nor the one before: the answer says which. A controller that is
    /// gone has nothing to give back, nor has one that somebody made again as it was.
    pub async fn restore_template(
        &self,
        at: Place<'_>,
        labels: &BTreeMap<String, Field>,
        annotations: &BTreeMap<String, Field>,
        manager: &str,
    ) -> Result<Vec<String>, KubeError> {
        let decide = |object: &Value| {
            let meta = object.pointer(at.template()).cloned().unwrap_or_default();
            if object["metadata"]["uid"] != at.uid {
                let moved = meta["labels"][names::USE_LABEL] == "true";
                let again = || Err(vec!["it was made again, with the new label".to_owned()]);
                return if moved { again() } else { Ok(Vec::new()) };
            }
            let mut found = foreign("label", &meta["labels"], labels);
            found.extend(foreign("annotation", &meta["annotations"], annotations));
            if !found.is_empty() {
                return Err(found);
            }
            let mut patch = Vec::new();
            let path = format!("{}/labels", at.template());
            changes(&path, &meta["labels"], &before(labels), &mut patch);
            let path = format!("{}/annotations", at.template());
            changes(&path, &meta["annotations"], &before(annotations), &mut patch);
            // The mark came with the label; a template that had the label before had its mark, too.
            if labels.get(names::USE_LABEL).is_some_and(|field| field.before.is_none()) {
                let own = BTreeMap::from([(names::PROJECT_ANNOTATION.to_owned(), None)]);
                let have = &object["metadata"]["annotations"];
                changes("/metadata/annotations", have, &own, &mut patch);
            }
            Ok(patch)
        };
        Ok(self.revise(&at.path(), manager, decide).await?.unwrap_or_default())
    }

    /// Deletes the pods of a `StatefulSet` that lack the label of Pod Identity, which its template
    /// got back, and are not ready. Its controller waits for such a pod before it replaces any, and
    /// does so for ever: the pod was made by the template that is gone.
    ///
    /// Source: Kubernetes documentation, "`StatefulSets`: Forced rollback".
    pub async fn free_pods(&self, at: Place<'_>) -> Result<(), KubeError> {
        let path = collection("v1", Some(at.namespace.as_str()), "pods");
        let moved = [("labelSelector", format!("{}=true,!{BINDING_LABEL}", names::USE_LABEL))];
        let stuck = |found: &mut Vec<Named>, pod: Value| {
            let owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
            let made = owners.into_iter().any(|o| o["controller"] == true && o["uid"] == at.uid);
            let ending = pod["metadata"]["deletionTimestamp"].is_string();
            if made && !ending && !pod_identity::pod(&pod).ready {
                found.push(pod_identity::named(&pod));
            }
        };
        let stuck: Vec<Named> = self.list_where(&path, &moved, stuck).await?;
        for pod in stuck {
            self.delete_exactly(format!("{path}/{}", segment(&pod.name)), &pod.uid, None).await?;
        }
        Ok(())
    }

    /// Gives the annotations of an account back what they were, as [`Self::restore_template`].
    /// An account that is gone has nothing to give back.
    pub async fn restore_account(
        &self,
        namespace: &Namespace,
        name: &str,
        annotations: &BTreeMap<String, Field>,
        manager: &str,
    ) -> Result<Vec<String>, KubeError> {
        let path = collection("v1", Some(namespace.as_str()), "serviceaccounts");
        let path = format!("{path}/{}", segment(name));
        let decide = |object: &Value| {
            let have = &object["metadata"]["annotations"];
            let found = foreign("annotation", have, annotations);
            if !found.is_empty() {
                return Err(found);
            }
            let mut patch = Vec::new();
            changes("/metadata/annotations", have, &before(annotations), &mut patch);
            Ok(patch)
        };
        Ok(self.revise(&path, manager, decide).await?.unwrap_or_default())
    }

    /// Writes a backup into the workload's namespace, as a `ConfigMap` that holds no secret.
    pub async fn write_backup(&self, backup: &Backup, manager: &str) -> Result<(), KubeError> {
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

    /// The backup of a workload, read anew.
    pub async fn backup(&self, like: &Backup) -> Result<Option<Backup>, KubeError> {
        let path = collection("v1", Some(like.namespace.as_str()), "configmaps");
        let found: Option<Value> = self.find(format!("{path}/{}", backup_name(like))).await?;
        Ok(found.as_ref().and_then(pod_identity::backup))
    }
}

/// Objects of Pod Identity, removed by uid and made again.
impl Client {
    async fn remove(&self, plural: &str, object: &Named) -> Result<(), KubeError> {
        let path = collection(pod_identity::GROUP, Some(object.namespace.as_str()), plural);
        let path = format!("{path}/{}", segment(&object.name));
        self.delete_exactly(path, &object.uid, None).await
    }

    /// Removes an `AzureIdentityBinding`, unless it was made again since.
    pub async fn remove_binding(&self, object: &Named) -> Result<(), KubeError> {
        self.remove("azureidentitybindings", object).await
    }

    /// Removes an `AzureIdentity`, unless it was made again since.
    pub async fn remove_identity(&self, object: &Named) -> Result<(), KubeError> {
        self.remove("azureidentities", object).await
    }

    async fn whole(
        &self,
        plural: &str,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        let path = collection(pod_identity::GROUP, Some(namespace.as_str()), plural);
        let found: Option<Value> = self.find(format!("{path}/{}", segment(name))).await?;
        Ok(found.map(bare))
    }

    /// An `AzureIdentityBinding` as it can be made again.
    pub async fn pod_identity_binding(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        self.whole("azureidentitybindings", namespace, name).await
    }

    /// An `AzureIdentity` as it can be made again.
    pub async fn pod_identity(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        self.whole("azureidentities", namespace, name).await
    }

    /// Makes an object of Pod Identity again; one that is there stays as it is.
    pub async fn make_again(&self, object: &Value, manager: &str) -> Result<(), KubeError> {
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
            Err(error) if error.is_already_exists() => Ok(()),
            asked => asked.map(drop),
        }
    }
}

/// An object without what the server gave it.
fn bare(mut object: Value) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_patch_takes_one_label_and_sets_another() {
        let have = json!({"aadpodidbinding": "api", "app": "x"});
        let wanted = BTreeMap::from([
            ("aadpodidbinding".to_owned(), None),
            ("azure.workload.identity/use".to_owned(), Some("true".to_owned())),
        ]);
        let mut patch = Vec::new();
        changes("/l", &have, &wanted, &mut patch);
        assert_eq!(
            Value::Array(patch),
            json!([
                {"op": "test", "path": "/l/aadpodidbinding", "value": "api"},
                {"op": "remove", "path": "/l/aadpodidbinding"},
                {"op": "add", "path": "/l/azure.workload.identity~1use", "value": "true"},
            ])
        );
    }

    #[test]
    fn an_absent_map_is_made_and_a_foreign_value_is_named() {
        let wanted = BTreeMap::from([("k".to_owned(), Some("v".to_owned()))]);
        let mut patch = Vec::new();
        changes("/a", &Value::Null, &wanted, &mut patch);
        assert_eq!(patch, [json!({"op": "add", "path": "/a", "value": {"k": "v"}})]);
        let ours = Field { before: None, after: Some("v".to_owned()) };
        let fields = BTreeMap::from([("k".to_owned(), ours)]);
        assert_eq!(foreign("label", &json!({"k": "v"}), &fields), Vec::<String>::new());
        assert_eq!(foreign("label", &json!({}), &fields), Vec::<String>::new());
        assert_eq!(foreign("label", &json!({"k": "w"}), &fields), ["label k is w now"]);
    }
}
