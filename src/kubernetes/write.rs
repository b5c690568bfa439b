//! Writing: a bare account by POST, its fields and those of templates by server-side apply of a
//! complete set of fields, never replaced.
//!
//! Source: Kubernetes documentation, "Server-Side Apply".

use std::collections::BTreeMap;

use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    Client, KubeError,
    client::{Ask, Repeat, segment},
    parse_meta,
    parse_template::{self, Parsed},
    versions::{collection, kind_name, plural},
    wire::{Bare, Controller, Meta},
};
use crate::model::{
    AccountName, Namespace,
    snapshot::{ObservedAccount, ObservedTemplate, TemplateKind},
};

/// What a patch by server-side apply is about.
struct Patch<'a> {
    version: &'a str,
    kind: TemplateKind,
    namespace: &'a Namespace,
    name: &'a str,
    uid: Option<&'a str>,
    manager: &'a str,
    force: bool,
}

impl Client {
    /// Makes a bare service account. One that exists is an error
    /// ([`KubeError::is_already_exists`]).
    pub async fn create_account(
        &self,
        namespace: &Namespace,
        name: &AccountName,
        manager: &str,
    ) -> Result<ObservedAccount, KubeError> {
        let body = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name.as_str(), "namespace": namespace.as_str()},
        });
        let made: Bare = self
            .ask(&Ask {
                method: Method::POST,
                path: collection("v1", Some(namespace.as_str()), "serviceaccounts"),
                query: strict(manager),
                body: Some(("application/json", body)),
                repeat: Repeat::Unsafe,
            })
            .await?;
        Ok(parse_meta::account(made))
    }

    /// Sets the annotations of an account by server-side apply. `annotations` is everything that
    /// `manager` is to own there: what it owned and is not among them goes. With `uid` nothing is
    /// written on an account that was recreated, or made where it is gone. A conflict lists
    /// fields and managers in [`KubeError::causes`].
    pub async fn apply_account(
        &self,
        namespace: &Namespace,
        name: &AccountName,
        uid: Option<&str>,
        annotations: &BTreeMap<String, String>,
        manager: &str,
        force: bool,
    ) -> Result<ObservedAccount, KubeError> {
        let path = collection("v1", Some(namespace.as_str()), "serviceaccounts");
        let path = format!("{path}/{}", segment(name.as_str()));
        let body = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(namespace, name.as_str(), uid, annotations),
        });
        let object = format!("service account {namespace}/{name}");
        let written: Bare = self.apply(path, body, manager, force).await?;
        same(&object, uid, &written.metadata)?;
        Ok(parse_meta::account(written))
    }

    /// Sets annotations of a controller and labels and annotations of its pod template by
    /// server-side apply. The three maps are everything that `manager` is to own there. Where the
    /// template's part changes its pods are rolled.
    #[expect(clippy::too_many_arguments, reason = "one request; the caller has these as they are")]
    pub async fn apply_template(
        &self,
        kind: TemplateKind,
        api_version: &str,
        namespace: &Namespace,
        name: &str,
        uid: Option<&str>,
        annotations: &BTreeMap<String, String>,
        template_labels: &BTreeMap<String, String>,
        template_annotations: &BTreeMap<String, String>,
        manager: &str,
        force: bool,
    ) -> Result<ObservedTemplate, KubeError> {
        let to = Patch { version: api_version, kind, namespace, name, uid, manager, force };
        self.patch_template(to, annotations, template_labels, template_annotations).await
    }

    async fn patch_template(
        &self,
        to: Patch<'_>,
        annotations: &BTreeMap<String, String>,
        template_labels: &BTreeMap<String, String>,
        template_annotations: &BTreeMap<String, String>,
    ) -> Result<ObservedTemplate, KubeError> {
        let Patch { version, kind, namespace, name, uid, manager, force } = to;
        let object = format!("{} {namespace}/{name}", kind.as_str());
        if !kind.writable() {
            let message = format!("{object} is not a kind whose template may be written");
            return Err(KubeError::Body { message });
        }
        let mut own = Map::new();
        if !template_labels.is_empty() {
            own.insert("labels".to_owned(), json!(template_labels));
        }
        if !template_annotations.is_empty() {
            own.insert("annotations".to_owned(), json!(template_annotations));
        }
        let mut body = json!({
            "apiVersion": version,
            "kind": kind_name(kind),
            "metadata": metadata(namespace, name, uid, annotations),
        });
        if !own.is_empty() {
            let template = json!({"template": {"metadata": own}});
            body["spec"] = if kind == TemplateKind::CronJob {
                json!({"jobTemplate": {"spec": template}})
            } else {
                template
            };
        }
        let path = collection(version, Some(namespace.as_str()), plural(kind));
        let path = format!("{path}/{}", segment(name));
        let written: Controller = self.apply(path, body, manager, force).await?;
        same(&object, uid, &written.metadata)?;
        match parse_template::controller(kind, version, written) {
            Parsed::Template(template) => Ok(*template),
            Parsed::Steers(_) => {
                let message = format!("the template of {object} stands in a Deployment");
                Err(KubeError::Body { message })
            }
        }
    }

    pub(super) async fn apply<T: DeserializeOwned>(
        &self,
        path: String,
        body: Value,
        manager: &str,
        force: bool,
    ) -> Result<T, KubeError> {
        let mut query = strict(manager);
        query.push(("force", force.to_string()));
        self.ask(&Ask {
            method: Method::PATCH,
            path,
            query,
            // JSON is YAML; servers before 1.34 know no other type for it.
            body: Some(("application/apply-patch+yaml", body)),
            repeat: Repeat::Safe,
        })
        .await
    }
}

/// Field validation is strict where the server knows it (1.25 and later); older ones ignore the
/// parameter.
pub(super) fn strict(manager: &str) -> Vec<(&'static str, String)> {
    vec![("fieldManager", manager.to_owned()), ("fieldValidation", "Strict".to_owned())]
}

fn metadata(
    namespace: &Namespace,
    name: &str,
    uid: Option<&str>,
    annotations: &BTreeMap<String, String>,
) -> Value {
    let mut metadata = json!({"name": name, "namespace": namespace.as_str()});
    if let Some(uid) = uid {
        metadata["uid"] = json!(uid);
    }
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    metadata
}

/// The server compares the uid in the body; a server that did not would have written elsewhere.
fn same(object: &str, expected: Option<&str>, found: &Meta) -> Result<(), KubeError> {
    match expected {
        Some(expected) if expected != found.uid => Err(KubeError::Recreated {
            object: object.to_owned(),
            expected: expected.to_owned(),
            found: found.uid.clone(),
        }),
        _ => Ok(()),
    }
}
