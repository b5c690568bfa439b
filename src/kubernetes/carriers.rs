//! Objects of kinds that are not read themselves and in which pods carry the label of Pod Identity:
//! what an operator makes pods of stands in a custom resource, also while there are no pods.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::Value;

use super::{
    Client,
    client::Ask,
    pod_identity::named,
    versions::{ResourceList, collection},
};
use crate::model::{
    RemoteFailure,
    pod_identity::{BINDING_LABEL, Carrier, Named},
};

/// What was found in the objects of one kind, or of one group where its kinds could not be told.
type Looked = Result<Vec<Carrier>, RemoteFailure>;

impl Client {
    /// Looks through the custom resources of the cluster for label values that Pod Identity selects
    /// pods by. What could not be looked through is the second part.
    pub(super) async fn carriers(
        &self,
        selectors: &BTreeSet<&str>,
    ) -> (Vec<Carrier>, Vec<RemoteFailure>) {
        if selectors.is_empty() {
            return Default::default();
        }
        let groups = match self.versions().await {
            Ok(versions) => &versions.custom,
            Err(error) => return (Vec::new(), vec![error.failure("discover custom resources")]),
        };
        let looked = join_all(groups.iter().map(|version| self.of_group(version, selectors))).await;
        let mut found = Vec::new();
        let mut unlooked = Vec::new();
        for looked in looked.into_iter().flatten() {
            match looked {
                Ok(carriers) => found.extend(carriers),
                Err(failure) => unlooked.push(failure),
            }
        }
        found.sort();
        (found, unlooked)
    }

    async fn of_group(&self, version: &str, selectors: &BTreeSet<&str>) -> Vec<Looked> {
        let (group, _) = version.split_once('/').unwrap_or((version, ""));
        let listed = self.ask::<ResourceList>(&Ask::get(format!("/apis/{version}"))).await;
        let listed = match listed {
            Ok(listed) => listed.resources,
            Err(error) => {
                return vec![Err(error.failure(format!("discover the kinds of {group}")))];
            }
        };
        let lists = |verbs: &[String]| verbs.iter().any(|verb| verb == "list");
        let kinds =
            listed.into_iter().filter(|kind| lists(&kind.verbs) && !kind.name.contains('/'));
        // Rollouts are read as what they are.
        let kinds = kinds.filter(|kind| (group, kind.name.as_str()) != ("argoproj.io", "rollouts"));
        let each = kinds.map(async |kind| {
            let path = collection(version, None, &kind.name);
            let fold = |found: &mut Vec<Carrier>, object: Value| {
                let Named { namespace, name, .. } = named(&object);
                let what = format!("{}.{group}/{name}", kind.name);
                found.extend(labels(&object, selectors).into_iter().map(|(at, selector)| {
                    Carrier { namespace: namespace.clone(), what: what.clone(), at, selector }
                }));
            };
            let found = self.list(&path, fold).await;
            found.map_err(|error| error.failure(format!("list {}.{group}", kind.name)))
        });
        join_all(each).await
    }
}

/// Where in an object's spec labels for pods have one of these values, as a path with dots. A
/// selector (`matchLabels`) stamps nothing; neither do the object's own labels or its status.
fn labels(object: &Value, selectors: &BTreeSet<&str>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let parts = object.as_object().into_iter().flatten();
    for (key, value) in parts.filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status")) {
        within(value, key, selectors, &mut found);
    }
    found
}

fn within(value: &Value, at: &str, selectors: &BTreeSet<&str>, found: &mut Vec<(String, String)>) {
    let key = at.rsplit('.').next().unwrap_or(at);
    if (key == "labels" || key.ends_with("Labels"))
        && key != "matchLabels"
        && let Some(selector) = value[BINDING_LABEL].as_str().filter(|s| selectors.contains(s))
    {
        found.push((at.to_owned(), selector.to_owned()));
    }
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                within(value, &format!("{at}.{key}"), selectors, found);
            }
        }
        Value::Array(items) => {
            for (n, value) in items.iter().enumerate() {
                within(value, &format!("{at}[{n}]"), selectors, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_for_pods_are_found_wherever_an_operator_keeps_them() {
        let object = json!({
            "metadata": {"labels": {"aadpodidbinding": "cart"}},
            "spec": {
                "selector": {"matchLabels": {"aadpodidbinding": "cart"}},
                "template": {"metadata": {"labels": {"aadpodidbinding": "cart"}}},
                "nodeSets": [{"podTemplate": {"metadata": {"labels": {"aadpodidbinding": "es"}}}}],
                "values": {"podLabels": {"aadpodidbinding": "cart"}},
                "other": {"labels": {"aadpodidbinding": "unknown"}},
            },
            "status": {"labels": {"aadpodidbinding": "cart"}},
        });
        let found = labels(&object, &["cart", "es"].into());
        let at = |path: &str, value: &str| (path.to_owned(), value.to_owned());
        assert_eq!(
            found,
            [
                at("spec.nodeSets[0].podTemplate.metadata.labels", "es"),
                at("spec.template.metadata.labels", "cart"),
                at("spec.values.podLabels", "cart"),
            ]
        );
    }
}
