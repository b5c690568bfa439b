//! Writes of pod templates, each in one request and so in one roll: by server-side apply, or by
//! JSON patch with tests on what was seen where fields that others own go or come back.
//!
//! Source: Kubernetes documentation, "Server-Side Apply" and "Update API Objects in Place Using
//! kubectl patch".

use std::{collections::BTreeMap, time::Duration};

use hyper::Method;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::time;

use super::{
    Client, KubeError,
    client::{Ask, Repeat, segment},
    parse_meta::only_ours,
    parse_template::{self, Parsed, template_path},
    versions::{collection, kind_name, plural},
    wire::{Controller, PodSpec},
    write::{metadata, same, strict},
};
use crate::model::{
    AccountName, Namespace, names,
    pod_identity::Field,
    snapshot::{ObservedTemplate, TemplateKind},
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

/// What changes on a controller and its pod template at once.
#[derive(Debug, Clone, Copy)]
pub struct TemplateChange<'a> {
    /// The account that its pods must run as.
    pub account: &'a AccountName,
    /// Whether fields of other managers are taken over.
    pub force: bool,
    /// Annotations of the controller that are set.
    pub own: &'a BTreeMap<String, String>,
    /// Labels of the template that are set.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations of the template that are set.
    pub annotations: &'a BTreeMap<String, String>,
    /// Labels of the template that go, with the values they must have.
    pub remove_labels: &'a BTreeMap<String, String>,
    /// Annotations of the template that go, with the values they must have.
    pub remove_annotations: &'a BTreeMap<String, String>,
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
/// `ours` says of a key that we wrote its value later.
pub(super) fn foreign(
    what: &str,
    have: &Value,
    fields: &BTreeMap<String, Field>,
    ours: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for (key, field) in fields {
        let have = have.get(key).and_then(Value::as_str);
        if have != field.after.as_deref() && have != field.before.as_deref() && !ours(key) {
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

/// What came of a revision.
pub(super) enum Revised {
    /// There is no such object.
    Gone,
    /// Nothing was sent, for these reasons.
    Refused(Vec<String>),
    /// The object as it is now.
    Done(Value),
}

impl Revised {
    /// Why nothing was sent; nothing stands in the way of an object that is gone.
    pub(super) fn refused(self) -> Vec<String> {
        if let Self::Refused(found) = self { found } else { Vec::new() }
    }
}

impl Client {
    /// Reads an object, decides by it and sends the patch, in which tests make sure that it is
    /// still what was read. Where somebody wrote in between, and controllers write the status of
    /// what they roll all the time, it is read and decided anew.
    pub(super) async fn revise(
        &self,
        path: &str,
        manager: &str,
        decide: impl Fn(&Value) -> Decided,
    ) -> Result<Revised, KubeError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let Some(object) = self.find::<Value>(path.to_owned()).await? else {
                return Ok(Revised::Gone);
            };
            let patch = match decide(&object) {
                Ok(patch) if patch.is_empty() => return Ok(Revised::Done(object)),
                Ok(patch) => patch,
                Err(found) => return Ok(Revised::Refused(found)),
            };
            match self.json_patch(path.to_owned(), &object, patch, manager).await {
                Ok(written) => return Ok(Revised::Done(written)),
                Err(error) if error.is_not_found() => return Ok(Revised::Gone),
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
    ) -> Result<Value, KubeError> {
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
        self.ask(&Ask {
            method: Method::PATCH,
            path,
            query: strict(manager),
            body: Some(("application/json-patch+json", Value::Array(tests))),
            repeat: Repeat::Unsafe,
        })
        .await
    }

    /// Changes a controller and its pod template in one write, so that its pods are rolled once and
    /// nothing overtakes its controller: a second write of a Deployment makes the status that begins
    /// the roll a conflict, and without it Kubernetes never says that the roll does not progress.
    ///
    /// Where nothing goes this is a server-side apply, and what is set is everything that `manager`
    /// is to own there. Else it is a JSON patch, which takes away also what others own. Fails with a
    /// conflict where the controller was made again, or what is to go has another value by now.
    pub async fn apply_template(
        &self,
        at: Place<'_>,
        change: TemplateChange<'_>,
        manager: &str,
    ) -> Result<ObservedTemplate, KubeError> {
        let object = format!("{} {}/{}", at.kind.as_str(), at.namespace, at.name);
        if !at.kind.writable() {
            let message = format!("{object} is not a kind whose template may be written");
            return Err(KubeError::Body { message });
        }
        let goes = !change.remove_labels.is_empty() || !change.remove_annotations.is_empty();
        let written: Controller = if goes {
            let written = self.switch(at, change, manager).await?;
            serde_json::from_value(written)
                .map_err(|error| KubeError::Body { message: error.to_string() })?
        } else {
            self.apply(at.path(), applied(at, change), manager, change.force).await?
        };
        same(&object, Some(at.uid), &written.metadata)?;
        match parse_template::controller(at.kind, at.api_version, written) {
            Parsed::Template(template) => Ok(*template),
            Parsed::Steers(_) => {
                let message = format!("the template of {object} stands in a Deployment");
                Err(KubeError::Body { message })
            }
        }
    }

    async fn switch(
        &self,
        at: Place<'_>,
        change: TemplateChange<'_>,
        manager: &str,
    ) -> Result<Value, KubeError> {
        let path = at.path();
        match self.revise(&path, manager, |object| switched(at, change, manager, object)).await? {
            Revised::Gone => Err(changed(&path, "it does not exist any more")),
            Revised::Refused(found) => Err(changed(&path, &found.join(", "))),
            Revised::Done(object) => Ok(object),
        }
    }
}

/// The body of a server-side apply.
fn applied(at: Place<'_>, change: TemplateChange<'_>) -> Value {
    let mut own = serde_json::Map::new();
    if !change.labels.is_empty() {
        own.insert("labels".to_owned(), json!(change.labels));
    }
    if !change.annotations.is_empty() {
        own.insert("annotations".to_owned(), json!(change.annotations));
    }
    let mut body = json!({
        "apiVersion": at.api_version,
        "kind": kind_name(at.kind),
        "metadata": metadata(at.namespace, at.name, Some(at.uid), change.own),
    });
    if !own.is_empty() {
        let template = json!({"template": {"metadata": own}});
        body["spec"] = if at.kind == TemplateKind::CronJob {
            json!({"jobTemplate": {"spec": template}})
        } else {
            template
        };
    }
    body
}

/// The operations that bring a controller as it was read to where it is to be.
fn switched(at: Place<'_>, change: TemplateChange<'_>, manager: &str, object: &Value) -> Decided {
    let meta = object.pointer(&at.template()).cloned().unwrap_or_default();
    let mut found = Vec::new();
    if object["metadata"]["uid"] != at.uid {
        found.push("it was made again".to_owned());
    }
    let have = &object["metadata"]["annotations"];
    let other = have[names::PROJECT_ANNOTATION].as_str();
    let other = other
        .filter(|other| change.own.get(names::PROJECT_ANNOTATION).is_some_and(|own| own != other));
    found.extend(other.map(|other| format!("it belongs to project {other}")));
    let account = account_of(object.pointer(&format!("{}/spec", at.kind.template_pointer())));
    if account != *change.account {
        found.push(format!("it runs as service account {account} now"));
    }
    let mut patch = Vec::new();
    changes("/metadata/annotations", have, &all_set(change.own), &mut patch);
    for (what, set, remove) in [
        ("label", change.labels, change.remove_labels),
        ("annotation", change.annotations, change.remove_annotations),
    ] {
        let have = &meta[format!("{what}s")];
        let mut wanted = all_set(set);
        let part = format!("f:{what}s");
        let path = [template_path(at.kind), &["f:metadata", part.as_str()]].concat();
        for (key, value) in set {
            let other = have[key].as_str().filter(|other| other != value);
            let ours = || only_ours(&object["metadata"], &path, key, manager);
            found.extend(
                other
                    .filter(|_| !change.force && !ours())
                    .map(|other| format!("{what} {key} is {other}")),
            );
        }
        for (key, value) in remove {
            match have[key].as_str() {
                Some(other) if other != value => found.push(format!("{what} {key} is {other}")),
                Some(_) => drop(wanted.insert(key.clone(), None)),
                None => {}
            }
        }
        changes(&format!("{}/{what}s", at.template()), have, &wanted, &mut patch);
    }
    if found.is_empty() { Ok(patch) } else { Err(found) }
}

fn account_of(spec: Option<&Value>) -> AccountName {
    let spec = spec.and_then(|spec| PodSpec::deserialize(spec).ok()).unwrap_or_default();
    parse_template::account_of(&spec)
}

fn all_set(set: &BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    set.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
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
        assert_eq!(foreign("label", &json!({"k": "v"}), &fields, |_| false), Vec::<String>::new());
        assert_eq!(foreign("label", &json!({}), &fields, |_| false), Vec::<String>::new());
        let other = json!({"k": "w"});
        assert_eq!(foreign("label", &other, &fields, |_| false), ["label k is w now"]);
        assert_eq!(foreign("label", &other, &fields, |key| key == "k"), Vec::<String>::new());
    }
}
