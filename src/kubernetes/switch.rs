//! Writes of pod templates beside those of [`super::write`]: fields that others own go or come back
//! by JSON patch with tests on what was seen, in one request and so in one roll.
//!
//! Source: Kubernetes documentation, "Update API Objects in Place Using kubectl patch".

use std::{collections::BTreeMap, time::Duration};

use hyper::Method;
use serde_json::{Value, json};
use tokio::time;

use super::{
    Client, KubeError,
    client::{Ask, Repeat, segment},
    versions::{collection, plural},
    write::strict,
};
use crate::model::{Namespace, pod_identity::Field, snapshot::TemplateKind};

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
    pub(super) fn path(&self) -> String {
        let path = collection(self.api_version, Some(self.namespace.as_str()), plural(self.kind));
        format!("{path}/{}", segment(self.name))
    }

    /// The pod template's metadata, as a JSON pointer.
    pub(super) fn template(&self) -> String {
        format!("{}/metadata", self.kind.template_pointer())
    }
}

/// The operations that bring a map of strings from what it is to what it is to be. `None` takes a
/// key away. An absent map is made whole.
pub(super) fn changes(
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
pub(super) fn foreign(what: &str, have: &Value, fields: &BTreeMap<String, Field>) -> Vec<String> {
    let mut found = Vec::new();
    for (key, field) in fields {
        let have = have.get(key).and_then(Value::as_str);
        if have != field.after.as_deref() && have != field.before.as_deref() {
            found.push(format!("{what} {key} is {} now", have.unwrap_or("not set")));
        }
    }
    found
}

pub(super) fn before(fields: &BTreeMap<String, Field>) -> BTreeMap<String, Option<String>> {
    fields.iter().map(|(key, field)| (key.clone(), field.before.clone())).collect()
}

/// What a reading leads to: the operations to send, or why nothing is sent.
pub(super) type Decided = Result<Vec<Value>, Vec<String>>;

impl Client {
    /// Reads an object, decides by it and sends the patch, in which tests make sure that it is
    /// still what was read. Where somebody wrote in between, and controllers write the status of
    /// what they roll all the time, it is read and decided anew. The answer says why nothing was
    /// sent; none where there is no such object.
    pub(super) async fn revise(
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
            let meta = object.pointer(&at.template()).cloned().unwrap_or_default();
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
