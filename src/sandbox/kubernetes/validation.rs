//! What the API server refuses about the content of objects.
//!
//! The checks that programs meet in practice; fields that nothing here looks at are accepted.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{error::FieldError, kinds::Kind, objects::meta, selectors::LabelSelector};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Problems of a new object.
pub(super) fn create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    name(kind, meta(object, "name"), &mut errors);
    common(kind, object, &mut errors);
    errors
}

/// Problems of a change.
pub(super) fn update(kind: &Kind, old: &Value, new: &Value, subresource: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    common(kind, new, &mut errors);
    if subresource.is_empty() {
        immutable(kind, old, new, &mut errors);
    }
    errors
}

fn common(kind: &Kind, object: &Value, errors: &mut Vec<FieldError>) {
    labels(&object["metadata"]["labels"], "metadata.labels", errors);
    let spec = &object["spec"];
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => {
            labels(&object["metadata"]["labels"], "metadata.labels", &mut Vec::new());
            pod(spec, "spec", true, errors);
        }
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => {
            replicas(spec, errors);
            selector(spec, errors);
            let mounts = kind.plural != "statefulsets";
            pod(&spec["template"]["spec"], "spec.template.spec", mounts, errors);
            let policy = &spec["template"]["spec"]["restartPolicy"];
            if policy != "Always" {
                errors.push(FieldError::not_supported(
                    "spec.template.spec.restartPolicy",
                    policy,
                    &["Always"],
                ));
            }
        }
        ("batch", "jobs") => job(spec, "spec", errors),
        ("batch", "cronjobs") => {
            let schedule = spec["schedule"].as_str().unwrap_or_default();
            if schedule.is_empty() {
                errors.push(FieldError::required("spec.schedule", ""));
            } else if !schedule.starts_with('@') && schedule.split_whitespace().count() != 5 {
                errors.push(FieldError::invalid(
                    "spec.schedule",
                    &spec["schedule"],
                    &format!(
                        "expected exactly 5 fields, found {}: [{schedule}]",
                        schedule.split_whitespace().count()
                    ),
                ));
            }
            job(&spec["jobTemplate"]["spec"], "spec.jobTemplate.spec", errors);
        }
        ("", "services")
            if spec["ports"].as_array().is_none_or(Vec::is_empty)
                && spec["type"] != "ExternalName"
                && spec["clusterIP"] != "None" =>
        {
            errors.push(FieldError::required("spec.ports", ""));
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings")
            if object["roleRef"]["name"].as_str().is_none_or(str::is_empty) =>
        {
            errors.push(FieldError::required("roleRef.name", ""));
        }
        ("apiextensions.k8s.io", _) => definition(object, errors),
        _ => {}
    }
}

fn definition(object: &Value, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    let wanted = format!(
        "{}.{}",
        spec["names"]["plural"].as_str().unwrap_or_default(),
        spec["group"].as_str().unwrap_or_default()
    );
    if meta(object, "name") != wanted {
        errors.push(FieldError::invalid(
            "metadata.name",
            &object["metadata"]["name"],
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    if !matches!(spec["scope"].as_str(), Some("Namespaced" | "Cluster")) {
        errors.push(FieldError::required("spec.scope", ""));
    }
}

fn name(kind: &Kind, name: &str, errors: &mut Vec<FieldError>) {
    let path_segment = matches!(kind.group.as_str(), "rbac.authorization.k8s.io");
    let label = |text: &str| {
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !text.is_empty() && text.chars().all(ok) && !text.starts_with('-') && !text.ends_with('-')
    };
    let value = Value::from(name);
    if path_segment {
        if name.contains('/') || name.contains('%') || name == "." || name == ".." {
            errors.push(FieldError::invalid("metadata.name", &value, "may not contain '/'"));
        }
    } else if matches!(kind.plural.as_str(), "namespaces" | "services") && !kind.custom {
        if !label(name) {
            errors.push(FieldError::invalid("metadata.name", &value, LABEL));
        } else if name.len() > 63 {
            errors.push(FieldError::invalid(
                "metadata.name",
                &value,
                "must be no more than 63 characters",
            ));
        }
    } else if !name.split('.').all(label) {
        errors.push(FieldError::invalid("metadata.name", &value, SUBDOMAIN));
    } else if name.len() > 253 {
        errors.push(FieldError::invalid(
            "metadata.name",
            &value,
            "must be no more than 253 characters",
        ));
    }
}

fn labels(labels: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for value in labels.as_object().into_iter().flat_map(serde_json::Map::values) {
        let text = value.as_str().unwrap_or_default();
        let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.len() > 63 {
            errors.push(FieldError::invalid(path, value, "must be no more than 63 characters"));
        } else if !(text.chars().all(inner)
            && edge(text.chars().next())
            && edge(text.chars().last()))
        {
            errors.push(FieldError::invalid(path, value, LABEL_VALUE));
        }
    }
}

fn replicas(spec: &Value, errors: &mut Vec<FieldError>) {
    if spec["replicas"].as_i64().is_some_and(|n| n < 0) {
        errors.push(FieldError::invalid(
            "spec.replicas",
            &spec["replicas"],
            "must be greater than or equal to 0",
        ));
    }
}

fn selector(spec: &Value, errors: &mut Vec<FieldError>) {
    let empty = |v: &Value| v.as_object().is_none_or(serde_json::Map::is_empty);
    if empty(&spec["selector"]) {
        if spec["selector"].is_null() {
            errors.push(FieldError::required("spec.selector", ""));
        } else {
            errors.push(FieldError::invalid(
                "spec.selector",
                &spec["selector"],
                "empty selector is invalid for deployment",
            ));
        }
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if !LabelSelector::from_object(&spec["selector"]).matches(labels) {
        let shown: Vec<String> =
            labels.as_object().into_iter().flatten().map(|(k, v)| format!("{k:?}:{v}")).collect();
        errors.push(FieldError {
            reason: "FieldValueInvalid",
            field: "spec.template.metadata.labels".into(),
            message: format!(
                "Invalid value: map[string]string{}: `selector` does not match template `labels`",
                if labels.is_null() {
                    "(nil)".to_owned()
                } else {
                    format!("{{{}}}", shown.join(", "))
                }
            ),
        });
    }
}

fn job(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    pod(&spec["template"]["spec"], &format!("{path}.template.spec"), true, errors);
    let policy = &spec["template"]["spec"]["restartPolicy"];
    if policy == "Always" {
        errors.push(FieldError::required(
            format!("{path}.template.spec.restartPolicy"),
            "valid values: \"OnFailure\", \"Never\"",
        ));
    }
}

/// `mounts`: whether volume mounts are checked; those of a `StatefulSet` may name claims.
fn pod(spec: &Value, path: &str, mounts: bool, errors: &mut Vec<FieldError>) {
    let volumes: BTreeSet<&str> = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v["name"].as_str())
        .collect();
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let mut names = BTreeSet::new();
    for list in ["containers", "initContainers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let at = format!("{path}.{list}[{index}]");
            let name = container["name"].as_str().unwrap_or_default();
            if name.is_empty() {
                errors.push(FieldError::required(format!("{at}.name"), ""));
            } else if !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), &container["name"]));
            }
            if container["image"].as_str().is_none_or(str::is_empty) {
                errors.push(FieldError::required(format!("{at}.image"), ""));
            }
            for (i, env) in container["env"].as_array().into_iter().flatten().enumerate() {
                if env["name"].as_str().is_none_or(str::is_empty) {
                    errors.push(FieldError::required(format!("{at}.env[{i}].name"), ""));
                }
            }
            for (i, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate()
            {
                let volume = mount["name"].as_str().unwrap_or_default();
                if mounts && !volumes.contains(volume) {
                    errors.push(FieldError {
                        reason: "FieldValueNotFound",
                        field: format!("{at}.volumeMounts[{i}].name"),
                        message: format!("Not found: {volume:?}"),
                    });
                }
            }
        }
    }
}

fn immutable(kind: &Kind, old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let (was, is) = (&old["spec"], &new["spec"]);
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("apps", "deployments" | "replicasets" | "daemonsets")
            if was["selector"] != is["selector"] =>
        {
            errors.push(FieldError {
                reason: "FieldValueInvalid",
                field: "spec.selector".into(),
                message: format!(
                    "Invalid value: {}: field is immutable",
                    go_selector(&is["selector"])
                ),
            });
        }
        ("apps", "statefulsets") => {
            let mut kept = is.clone();
            for field in [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
                "revisionHistoryLimit",
            ] {
                match was.get(field) {
                    Some(value) => kept[field] = value.clone(),
                    None => {
                        if let Some(fields) = kept.as_object_mut() {
                            fields.remove(field);
                        }
                    }
                }
            }
            if kept != *was {
                errors.push(FieldError::forbidden("spec", "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"));
            }
        }
        ("batch", "jobs") => {
            for field in ["selector", "template", "completionMode"] {
                if was[field] != is[field] {
                    errors.push(FieldError {
                        reason: "FieldValueInvalid",
                        field: format!("spec.{field}"),
                        message: format!("Invalid value: {}: field is immutable", is[field]),
                    });
                }
            }
        }
        ("", "pods") => pod_changes(was, is, errors),
        ("", "secrets") if old["type"] != new["type"] => {
            errors.push(FieldError::invalid("type", &new["type"], "field is immutable"));
        }
        ("", "services") => {
            let ip = &was["clusterIP"];
            if ip != &is["clusterIP"]
                && is["type"] != "ExternalName"
                && was["type"] != "ExternalName"
            {
                errors.push(FieldError {
                    reason: "FieldValueInvalid",
                    field: "spec.clusterIPs[0]".into(),
                    message: format!(
                        "Invalid value: []string{{{}}}: may not change once set",
                        is["clusterIP"]
                    ),
                });
            }
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings")
            if old["roleRef"] != new["roleRef"] =>
        {
            let role = &new["roleRef"];
            errors.push(FieldError {
                reason: "FieldValueInvalid",
                field: "roleRef".into(),
                message: format!(
                    "Invalid value: rbac.RoleRef{{APIGroup:{}, Kind:{}, Name:{}}}: cannot change roleRef",
                    role["apiGroup"], role["kind"], role["name"]
                ),
            });
        }
        _ => {}
    }
    if matches!(kind.plural.as_str(), "configmaps" | "secrets")
        && old["immutable"] == true
        && ["data", "binaryData", "immutable"].iter().any(|f| old[*f] != new[*f])
    {
        errors.push(FieldError::forbidden("data", "field is immutable when `immutable` is set"));
    }
}

fn pod_changes(was: &Value, is: &Value, errors: &mut Vec<FieldError>) {
    let mut kept = is.clone();
    for list in ["containers", "initContainers"] {
        let old = was[list].as_array().map(Vec::as_slice).unwrap_or_default();
        let new = kept.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (new, old) in new.zip(old) {
            new["image"] = old["image"].clone();
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
        match was.get(field) {
            Some(value) => kept[field] = value.clone(),
            None => {
                if let Some(fields) = kept.as_object_mut() {
                    fields.remove(field);
                }
            }
        }
    }
    if kept != *was {
        errors.push(FieldError::forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"));
    }
}

/// A label selector in Go syntax, as errors show it.
fn go_selector(selector: &Value) -> String {
    if selector.is_null() {
        return "\"null\"".to_owned();
    }
    let labels: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k:?}:{v}"))
        .collect();
    format!(
        "v1.LabelSelector{{MatchLabels:map[string]string{{{}}}, MatchExpressions:[]v1.LabelSelectorRequirement(nil)}}",
        labels.join(", ")
    )
}
