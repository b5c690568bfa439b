//! Values that the API server fills in, by kind.
//!
//! As documented field by field in <https://kubernetes.io/docs/reference/kubernetes-api/> and seen
//! in the answers of a real server.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::kinds::Kind;

/// Sets `key` if it is absent or null.
fn default(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut() {
        let slot = fields.entry(key.to_owned()).or_insert(Value::Null);
        if slot.is_null() {
            *slot = value.into();
        }
    }
}

/// The object at `key`, made if it is absent.
fn section<'a>(object: &'a mut Value, key: &str) -> &'a mut Value {
    if !object[key].is_object() {
        object[key] = Value::Object(Map::new());
    }
    &mut object[key]
}

fn items<'a>(object: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Fills the defaults of `kind` on a server of this minor version.
pub(super) fn fill(kind: &Kind, object: &mut Value, minor: u32) {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => pod(section(object, "spec"), true),
        ("", "services") => service(object),
        ("", "secrets") => secret(object),
        ("", "namespaces") => namespace(object, minor),
        ("", "podtemplates") => template(section(object, "template")),
        ("", "replicationcontrollers") | ("apps", "replicasets") => {
            let spec = section(object, "spec");
            default(spec, "replicas", 1);
            if spec["template"].is_object() {
                template(&mut spec["template"]);
            }
        }
        ("", "persistentvolumeclaims") => claim(object),
        ("apps", "deployments") => deployment(object),
        ("apps", "statefulsets") => stateful_set(object, minor),
        ("apps", "daemonsets") => daemon_set(object, minor),
        ("batch", "jobs") => job(section(object, "spec"), minor),
        ("batch", "cronjobs") => cron_job(object),
        ("admissionregistration.k8s.io", _) => webhooks(object),
        ("apiextensions.k8s.io", _) => definition(object),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => binding(object),
        ("storage.k8s.io", "storageclasses") => {
            default(object, "reclaimPolicy", "Delete");
            default(object, "volumeBindingMode", "Immediate");
        }
        ("networking.k8s.io", "networkpolicies") => {
            let spec = section(object, "spec");
            let types = if spec.get("egress").is_some() {
                json!(["Ingress", "Egress"])
            } else {
                json!(["Ingress"])
            };
            default(spec, "policyTypes", types);
        }
        ("autoscaling", _) => default(section(object, "spec"), "minReplicas", 1),
        _ => {}
    }
}

fn deployment(object: &mut Value) {
    let spec = section(object, "spec");
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    let strategy = section(spec, "strategy");
    default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = section(strategy, "rollingUpdate");
        default(rolling, "maxSurge", "25%");
        default(rolling, "maxUnavailable", "25%");
    }
    template(section(spec, "template"));
}

fn stateful_set(object: &mut Value, minor: u32) {
    let spec = section(object, "spec");
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "podManagementPolicy", "OrderedReady");
    if minor >= 27 {
        let retention = section(spec, "persistentVolumeClaimRetentionPolicy");
        default(retention, "whenDeleted", "Retain");
        default(retention, "whenScaled", "Retain");
    }
    let strategy = section(spec, "updateStrategy");
    default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        default(section(strategy, "rollingUpdate"), "partition", 0);
    }
    for template in items(spec, "volumeClaimTemplates") {
        default(template, "apiVersion", "v1");
        default(template, "kind", "PersistentVolumeClaim");
        claim(template);
    }
    template(section(spec, "template"));
}

fn daemon_set(object: &mut Value, minor: u32) {
    let annotations = section(section(object, "metadata"), "annotations");
    default(annotations, "deprecated.daemonset.template.generation", "1");
    let spec = section(object, "spec");
    default(spec, "revisionHistoryLimit", 10);
    let strategy = section(spec, "updateStrategy");
    default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = section(strategy, "rollingUpdate");
        default(rolling, "maxUnavailable", 1);
        if minor >= 21 {
            default(rolling, "maxSurge", 0);
        }
    }
    template(section(spec, "template"));
}

fn job(spec: &mut Value, minor: u32) {
    if spec.get("completions").is_none_or(Value::is_null)
        && spec.get("parallelism").is_none_or(Value::is_null)
    {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    default(spec, "backoffLimit", 6);
    if minor >= 21 {
        default(spec, "completionMode", "NonIndexed");
        default(spec, "suspend", false);
    }
    if minor >= 29 {
        default(spec, "podReplacementPolicy", "TerminatingOrFailed");
    }
    template(section(spec, "template"));
}

fn cron_job(object: &mut Value) {
    let spec = section(object, "spec");
    default(spec, "concurrencyPolicy", "Allow");
    default(spec, "suspend", false);
    default(spec, "successfulJobsHistoryLimit", 3);
    default(spec, "failedJobsHistoryLimit", 1);
    template(section(section(section(spec, "jobTemplate"), "spec"), "template"));
}

fn template(template: &mut Value) {
    section(template, "metadata");
    pod(section(template, "spec"), false);
}

/// A pod's `spec`. What only a pod itself gets is left out of templates.
pub(super) fn pod(spec: &mut Value, alive: bool) {
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "restartPolicy", "Always");
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", 30);
    if alive {
        default(spec, "enableServiceLinks", true);
    }
    // The old name of the field is kept equal to the new one.
    match (spec["serviceAccountName"].as_str(), spec["serviceAccount"].as_str()) {
        (Some(name), _) if !name.is_empty() => spec["serviceAccount"] = name.to_owned().into(),
        (_, Some(name)) if !name.is_empty() => spec["serviceAccountName"] = name.to_owned().into(),
        _ => {}
    }
    if spec["serviceAccountName"].is_null()
        && let Some(fields) = spec.as_object_mut()
    {
        fields.remove("serviceAccountName");
        fields.remove("serviceAccount");
    }
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for item in items(spec, list) {
            container(item, alive, host_network);
        }
    }
    for item in items(spec, "volumes") {
        volume(item);
    }
}

fn container(container: &mut Value, alive: bool, host_network: bool) {
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    let image = container["image"].as_str().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    let pinned =
        image.contains('@') || last.split_once(':').is_some_and(|(_, tag)| tag != "latest");
    default(container, "imagePullPolicy", if pinned { "IfNotPresent" } else { "Always" });
    for port in items(container, "ports") {
        default(port, "protocol", "TCP");
        if host_network {
            let number = port["containerPort"].clone();
            default(port, "hostPort", number);
        }
    }
    for env in items(container, "env") {
        if env["valueFrom"]["fieldRef"].is_object() {
            default(&mut env["valueFrom"]["fieldRef"], "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) else { continue };
        default(probe, "timeoutSeconds", 1);
        default(probe, "periodSeconds", 10);
        default(probe, "successThreshold", 1);
        default(probe, "failureThreshold", 3);
        http_get(probe);
    }
    for hook in ["postStart", "preStop"] {
        if container["lifecycle"][hook].is_object() {
            http_get(&mut container["lifecycle"][hook]);
        }
    }
    if alive && let Some(limits) = container["resources"]["limits"].as_object().cloned() {
        let requests = section(section(container, "resources"), "requests");
        for (name, quantity) in limits {
            default(requests, &name, quantity);
        }
    }
}

fn http_get(handler: &mut Value) {
    if handler["httpGet"].is_object() {
        default(&mut handler["httpGet"], "path", "/");
        default(&mut handler["httpGet"], "scheme", "HTTP");
    }
    if handler["grpc"].is_object() {
        default(&mut handler["grpc"], "service", "");
    }
}

fn volume(volume: &mut Value) {
    let sources = volume.as_object().map_or(0, Map::len);
    if sources <= 1 {
        default(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if volume[source].is_object() {
            default(&mut volume[source], "defaultMode", 420);
        }
    }
    if volume["hostPath"].is_object() {
        default(&mut volume["hostPath"], "type", "");
    }
    for item in items(&mut volume["downwardAPI"], "items") {
        field_ref(item);
    }
    for source in items(&mut volume["projected"], "sources") {
        if source["serviceAccountToken"].is_object() {
            default(&mut source["serviceAccountToken"], "expirationSeconds", 3600);
        }
        for item in items(&mut source["downwardAPI"], "items") {
            field_ref(item);
        }
        drop_null(source, "downwardAPI");
        drop_null(source, "serviceAccountToken");
    }
    for source in ["secret", "configMap", "downwardAPI", "projected", "hostPath"] {
        drop_null(volume, source);
    }
}

fn drop_null(object: &mut Value, key: &str) {
    if object[key].is_null()
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove(key);
    }
}

fn field_ref(item: &mut Value) {
    if item["fieldRef"].is_object() {
        default(&mut item["fieldRef"], "apiVersion", "v1");
    }
    drop_null(item, "fieldRef");
}

fn service(object: &mut Value) {
    let spec = section(object, "spec");
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", "None");
    for port in items(spec, "ports") {
        default(port, "protocol", "TCP");
        let number = port["port"].clone();
        default(port, "targetPort", number);
    }
}

/// The address and ports of a service.
fn allocate_service(object: &mut Value, minor: u32) {
    let random = super::list::digest(&object["metadata"]["uid"].to_string());
    let spec = section(object, "spec");
    if spec["type"] == "ExternalName" {
        return;
    }
    // Taken from the service network by the object's uid, as an allocator would at random.
    let address = format!("10.0.{}.{}", random[0], random[1].max(2));
    default(spec, "clusterIP", address);
    if minor >= 20 {
        let address = spec["clusterIP"].clone();
        default(spec, "clusterIPs", json!([address]));
    }
    if minor >= 22 {
        default(spec, "ipFamilies", json!(["IPv4"]));
        default(spec, "ipFamilyPolicy", "SingleStack");
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if matches!(spec["type"].as_str(), Some("LoadBalancer" | "NodePort")) {
        default(spec, "externalTrafficPolicy", "Cluster");
        for (port, byte) in items(spec, "ports").zip(random.iter().skip(2)) {
            default(port, "nodePort", 30_000 + i64::from(*byte));
        }
        if spec["type"] == "LoadBalancer" && minor >= 24 {
            default(spec, "allocateLoadBalancerNodePorts", true);
        }
    }
}

fn secret(object: &mut Value) {
    default(object, "type", "Opaque");
    let Some(fields) = object.as_object_mut() else { return };
    // `stringData` is write-only and wins over `data`.
    if let Some(Value::Object(strings)) = fields.remove("stringData") {
        let data = section(object, "data");
        for (key, value) in strings {
            data[key.as_str()] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
        }
    }
}

fn namespace(object: &mut Value, minor: u32) {
    let name = object["metadata"]["name"].clone();
    default(section(object, "status"), "phase", "Active");
    if minor >= 21 {
        section(section(object, "metadata"), "labels")["kubernetes.io/metadata.name"] = name;
    }
}

fn claim(object: &mut Value) {
    default(section(object, "spec"), "volumeMode", "Filesystem");
    default(section(object, "status"), "phase", "Pending");
}

fn webhooks(object: &mut Value) {
    let mutating = object["kind"] == "MutatingWebhookConfiguration";
    for hook in items(object, "webhooks") {
        default(hook, "failurePolicy", "Fail");
        default(hook, "matchPolicy", "Equivalent");
        default(hook, "namespaceSelector", json!({}));
        default(hook, "objectSelector", json!({}));
        default(hook, "timeoutSeconds", 10);
        if mutating {
            default(hook, "reinvocationPolicy", "Never");
        }
        for rule in items(hook, "rules") {
            default(rule, "scope", "*");
        }
        if hook["clientConfig"]["service"].is_object() {
            default(&mut hook["clientConfig"]["service"], "port", 443);
        }
    }
}

fn definition(object: &mut Value) {
    let spec = section(object, "spec");
    default(section(spec, "conversion"), "strategy", "None");
    let names = section(spec, "names");
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    default(names, "singular", kind.to_lowercase());
    default(names, "listKind", format!("{kind}List"));
    let stored: Vec<Value> = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|v| v["storage"] == true)
        .map(|v| v["name"].clone())
        .collect();
    for version in items(spec, "versions") {
        for column in items(version, "additionalPrinterColumns") {
            default(column, "type", "string");
        }
    }
    default(section(object, "status"), "storedVersions", stored);
}

/// What the registry of a kind adds to a new object after ownership is settled.
pub(super) fn allocate(kind: &Kind, object: &mut Value, minor: u32) {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "services") => allocate_service(object, minor),
        ("", "namespaces") => {
            default(section(object, "spec"), "finalizers", json!(["kubernetes"]));
        }
        ("batch", "jobs") if object["spec"]["manualSelector"] != true => job_labels(object, minor),
        ("apiextensions.k8s.io", _) => {
            let names = section(section(object, "status"), "acceptedNames");
            default(names, "kind", "");
            default(names, "plural", "");
        }
        _ => {}
    }
}

/// The labels by which a Job finds its pods.
fn job_labels(object: &mut Value, minor: u32) {
    let uid = object["metadata"]["uid"].clone();
    let name = object["metadata"]["name"].clone();
    let mut labels = vec![("controller-uid", uid.clone()), ("job-name", name.clone())];
    if minor >= 27 {
        labels.push(("batch.kubernetes.io/controller-uid", uid.clone()));
        labels.push(("batch.kubernetes.io/job-name", name));
    }
    let key = if minor >= 27 { "batch.kubernetes.io/controller-uid" } else { "controller-uid" };
    for (label, value) in labels {
        section(section(object, "metadata"), "labels")[label] = value.clone();
        let template = section(section(object, "spec"), "template");
        section(section(template, "metadata"), "labels")[label] = value;
    }
    object["spec"]["selector"] = json!({"matchLabels": {key: uid}});
}

fn binding(object: &mut Value) {
    default(section(object, "roleRef"), "apiGroup", "rbac.authorization.k8s.io");
    for subject in items(object, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            default(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_pull_policy_follows_the_tag() {
        let policy = |image: &str| {
            let mut spec = json!({"containers": [{"name": "c", "image": image}]});
            pod(&mut spec, true);
            spec["containers"][0]["imagePullPolicy"].as_str().unwrap().to_owned()
        };
        assert_eq!(policy("nginx"), "Always");
        assert_eq!(policy("localhost:5000/nginx"), "Always");
        assert_eq!(policy("nginx:1.2"), "IfNotPresent");
        assert_eq!(policy("nginx@sha256:00"), "IfNotPresent");
    }

    #[test]
    fn volumes_keep_only_their_source() {
        let mut spec = json!({"containers": [], "volumes": [{"name": "a"},
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "p"}}]}}]});
        pod(&mut spec, true);
        assert_eq!(spec["volumes"][0], json!({"name": "a", "emptyDir": {}}));
        assert_eq!(
            spec["volumes"][1],
            json!({"name": "t", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "p", "expirationSeconds": 3600}}]}})
        );
    }
}
