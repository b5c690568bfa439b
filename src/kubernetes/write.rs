//! Writing: a bare account by POST, its fields by server-side apply of a complete set of fields,
//! never replaced.
//!
//! Source: Kubernetes documentation, "Server-Side Apply".

use std::collections::BTreeMap;

use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    Client, KubeError,
    client::{Ask, Repeat, segment},
    parse_meta,
    versions::collection,
    wire::{Bare, Meta},
};
use crate::model::{AccountName, Namespace, snapshot::ObservedAccount};

/// How often a version is looked at that somebody else writes meanwhile.
const TRIES: usize = 8;

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

    /// Server-side apply. What the same manager wrote by JSON patch ([`Self::apply_template`]) is
    /// its own and is taken over.
    pub(super) async fn apply<T: DeserializeOwned>(
        &self,
        path: String,
        body: Value,
        manager: &str,
        force: bool,
    ) -> Result<T, KubeError> {
        let ask = async |body: &Value, force: bool, repeat| {
            let mut query = strict(manager);
            query.push(("force", force.to_string()));
            self.ask(&Ask {
                method: Method::PATCH,
                path: path.clone(),
                query,
                // JSON is YAML; servers before 1.34 know no other type for it.
                body: Some(("application/apply-patch+yaml", body.clone())),
                repeat,
            })
            .await
        };
        let mut conflict = match ask(&body, force, Repeat::Safe).await {
            Err(error) if !force && error.is_with_itself(manager) => error,
            answer => return answer,
        };
        // Forced only on the version of which the server said that nobody else is concerned.
        for _ in 0..TRIES {
            let Some(seen) = self.find::<Value>(path.clone()).await? else { return Err(conflict) };
            let mut body = body.clone();
            body["metadata"]["resourceVersion"] = seen["metadata"]["resourceVersion"].clone();
            match ask(&body, false, Repeat::Safe).await {
                Err(error) if error.is_with_itself(manager) => {}
                Err(error) if error.is_modified() => {
                    conflict = error;
                    continue;
                }
                answer => return answer,
            }
            match ask(&body, true, Repeat::Unsafe).await {
                Err(error) if error.is_modified() => conflict = error,
                answer => return answer,
            }
        }
        Err(conflict)
    }
}

/// Field validation is strict where the server knows it (1.25 and later); older ones ignore the
/// parameter.
pub(super) fn strict(manager: &str) -> Vec<(&'static str, String)> {
    vec![("fieldManager", manager.to_owned()), ("fieldValidation", "Strict".to_owned())]
}

pub(super) fn metadata(
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
pub(super) fn same(object: &str, expected: Option<&str>, found: &Meta) -> Result<(), KubeError> {
    match expected {
        Some(expected) if expected != found.uid => Err(KubeError::Recreated {
            object: object.to_owned(),
            expected: expected.to_owned(),
            found: found.uid.clone(),
        }),
        _ => Ok(()),
    }
}
