//! Labels, annotations and managed fields into [`ObjectMeta`], and who owns what widentity sets.

use std::collections::BTreeSet;

use serde_json::Value;

use super::wire::{Bare, Meta};
use crate::model::{
    names::{CHAIN_ANNOTATION, PROJECT_ANNOTATION, PROXY_ANNOTATION, USE_LABEL},
    snapshot::{FieldOwners, Manager, ObjectMeta, ObservedAccount, OwnedField},
};

/// Written by `kubectl apply`: the whole object once more, secrets of its author included.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A service account.
pub(super) fn account(object: Bare) -> ObservedAccount {
    ObservedAccount { uid: object.metadata.uid.clone(), meta: meta(object.metadata, None) }
}

/// The metadata of an object. `template` is where its pod template's metadata stands in its
/// managed fields, with that metadata, for objects that have one.
pub(super) fn meta(of: Meta, template: Option<(&[&str], &Meta)>) -> ObjectMeta {
    let mut owners = FieldOwners::new();
    if of.managed_fields.is_empty() {
        // The first server-side apply gives every field that is there to this manager.
        // Source: Kubernetes documentation, "Server-Side Apply: Upgrading from client-side apply".
        let nobody = || {
            let (name, operation) = ("before-first-apply".to_owned(), "Update".to_owned());
            BTreeSet::from([Manager { name, operation }])
        };
        let own = of.annotations.keys().filter(|key| is_ours(key)).cloned();
        owners.extend(own.map(|key| (OwnedField::Annotation(key), nobody())));
        if let Some((_, template)) = template {
            let labels = template.labels.keys().filter(|key| *key == USE_LABEL).cloned();
            owners.extend(labels.map(|key| (OwnedField::TemplateLabel(key), nobody())));
            let annotations = template.annotations.keys();
            let annotations = annotations
                .filter(|key| [CHAIN_ANNOTATION, PROXY_ANNOTATION].contains(&key.as_str()))
                .cloned();
            owners.extend(annotations.map(|key| (OwnedField::TemplateAnnotation(key), nobody())));
        }
    }
    for entry in &of.managed_fields {
        let manager = Manager { name: entry.manager.clone(), operation: entry.operation.clone() };
        let mut own = |path: &[&str], keys: Vec<&str>, field: fn(String) -> OwnedField| {
            for key in owned(&entry.fields, path, keys) {
                owners.entry(field(key)).or_default().insert(manager.clone());
            }
        };
        let keys = of.annotations.keys().map(String::as_str).filter(|key| is_ours(key)).collect();
        own(&["f:metadata", "f:annotations"], keys, OwnedField::Annotation);
        if let Some((path, template)) = template {
            let path = |last| [path, &["f:metadata", last]].concat();
            let labels = template.labels.keys().map(String::as_str).filter(|key| *key == USE_LABEL);
            own(&path("f:labels"), labels.collect(), OwnedField::TemplateLabel);
            let annotations = template.annotations.keys().map(String::as_str);
            let annotations = annotations
                .filter(|key| [CHAIN_ANNOTATION, PROXY_ANNOTATION].contains(key))
                .collect();
            own(&path("f:annotations"), annotations, OwnedField::TemplateAnnotation);
        }
    }
    let managers: BTreeSet<String> =
        of.managed_fields.into_iter().map(|entry| entry.manager).collect();
    let mut annotations = of.annotations;
    annotations.remove(LAST_APPLIED);
    ObjectMeta {
        labels: of.labels,
        annotations,
        managers,
        owners,
        deleting: of.deletion_timestamp.is_some(),
    }
}

/// Whether the field `key` below `path` of managed fields is this manager's and nobody else's.
pub(super) fn only_ours(meta: &Value, path: &[&str], key: &str, manager: &str) -> bool {
    let entries = meta["managedFields"].as_array().into_iter().flatten();
    let mut owners =
        entries.filter(|entry| !owned(&entry["fieldsV1"], path, vec![key]).is_empty()).peekable();
    owners.peek().is_some() && owners.all(|entry| entry["manager"] == manager)
}

/// Whether widentity may set this annotation on an object.
fn is_ours(key: &str) -> bool {
    key == PROJECT_ANNOTATION || key.starts_with("azure.workload.identity/")
}

/// Those of `keys` that an entry of managed fields owns below `path`.
fn owned(fields: &Value, path: &[&str], keys: Vec<&str>) -> Vec<String> {
    let below = path.iter().try_fold(fields, |node, step| node.get(step));
    let Some(below) = below else { return Vec::new() };
    let owns = |key: &&str| below.get(format!("f:{key}")).is_some();
    keys.into_iter().filter(owns).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::names::CLIENT_ID_ANNOTATION;

    #[test]
    fn owners_are_read_from_managed_fields() {
        let observed = account(
            serde_json::from_value(json!({"metadata": {
            "name": "api", "namespace": "payments", "uid": "u1",
            "labels": {"app.kubernetes.io/managed-by": "Helm"},
            "annotations": {
                CLIENT_ID_ANNOTATION: "c", PROJECT_ANNOTATION: "p", "other": "x",
                LAST_APPLIED: "{}",
            },
            "managedFields": [
                {"manager": "helm", "operation": "Update", "apiVersion": "v1",
                 "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {
                    "f:annotations": {".": {}, (format!("f:{CLIENT_ID_ANNOTATION}")): {}},
                    "f:labels": {".": {}}}}},
                {"manager": "widentity-p", "operation": "Apply", "fieldsV1": {"f:metadata": {
                    "f:annotations": {(format!("f:{CLIENT_ID_ANNOTATION}")): {},
                                      (format!("f:{PROJECT_ANNOTATION}")): {}}}}},
                {"manager": "old", "operation": "Update"},
            ]}}))
            .unwrap(),
        );
        assert_eq!(observed.uid, "u1");
        assert!(!observed.meta.annotations.contains_key(LAST_APPLIED));
        assert_eq!(
            observed.meta.managers.iter().collect::<Vec<_>>(),
            ["helm", "old", "widentity-p"]
        );
        let owners = |field: &str| -> Vec<&str> {
            let field = OwnedField::try_from(field.to_owned()).unwrap();
            let owners = observed.meta.owners.get(&field).into_iter().flatten();
            owners.map(|manager| manager.name.as_str()).collect()
        };
        assert_eq!(owners("annotation:azure.workload.identity/client-id"), ["helm", "widentity-p"]);
        assert_eq!(owners("annotation:widentity.dev/project"), ["widentity-p"]);
        assert_eq!(observed.meta.owners.len(), 2);
    }

    #[test]
    fn fields_that_were_there_before_any_manager_belong_to_one_that_a_person_may_overrule() {
        let observed = account(
            serde_json::from_value(json!({"metadata": {"uid": "u",
                "annotations": {CLIENT_ID_ANNOTATION: "c", "other": "x"}}}))
            .unwrap(),
        );
        let field = OwnedField::Annotation(CLIENT_ID_ANNOTATION.to_owned());
        let owners: Vec<&str> =
            observed.meta.owners[&field].iter().map(|manager| manager.name.as_str()).collect();
        assert_eq!(owners, ["before-first-apply"]);
        assert_eq!(observed.meta.owners.len(), 1);
    }

    #[test]
    fn a_bare_account_has_nothing() {
        let observed = account(serde_json::from_value(json!({"metadata": {"uid": "u"}})).unwrap());
        assert_eq!(observed.meta, ObjectMeta::default());
    }
}
