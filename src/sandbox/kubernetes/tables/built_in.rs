//! The columns of built-in kinds, as the API server's printers make them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    super::{kinds::Kind, objects::meta, selectors::LabelSelector},
    columns::{age, column, human_duration, since},
};

/// Columns (`Name:type` with `+` for wide ones) and a row for each object.
pub(super) fn rows(
    kind: &Kind,
    objects: &[&Value],
    now: Timestamp,
) -> (Vec<Value>, Vec<Vec<Value>>) {
    type Row = fn(&Value, Timestamp) -> Vec<Value>;
    let (columns, row): (&str, Row) = match kind.plural.as_str() {
        "pods" => {
            ("Name Ready Status Restarts Age IP+ Node+ Nominated_Node+ Readiness_Gates+", pod)
        }
        "deployments" => (
            "Name Ready Up-to-date:integer Available:integer Age Containers+ Images+ Selector+",
            deployment,
        ),
        "replicasets" | "replicationcontrollers" => (
            "Name Desired:integer Current:integer Ready:integer Age Containers+ Images+ Selector+",
            replica_set,
        ),
        "statefulsets" => ("Name Ready Age Containers+ Images+", stateful_set),
        "daemonsets" => (
            "Name Desired:integer Current:integer Ready:integer Up-to-date:integer Available:integer Node_Selector Age Containers+ Images+ Selector+",
            daemon_set,
        ),
        "jobs" => ("Name Status Completions Duration Age Containers+ Images+ Selector+", job),
        "cronjobs" => (
            "Name Schedule Timezone Suspend:boolean Active:integer Last_Schedule Age Containers+ Images+ Selector+",
            cron_job,
        ),
        "services" => ("Name Type Cluster-IP External-IP Port(s) Age Selector+", service),
        "serviceaccounts" => ("Name Secrets:integer Age", service_account),
        "secrets" => ("Name Type Data:integer Age", secret),
        "configmaps" => ("Name Data:integer Age", config_map),
        "namespaces" => ("Name Status Age", namespace),
        "nodes" => (
            "Name Status Roles Age Version Internal-IP+ External-IP+ OS-Image+ Kernel-Version+ Container-Runtime+",
            node,
        ),
        "leases" => ("Name Holder Age", lease),
        "events" => (
            "Last_Seen Type Reason Object Subobject+ Source+ Message First_Seen+ Count+ Name+",
            event,
        ),
        "controllerrevisions" => ("Name Controller Revision:integer Age", controller_revision),
        "poddisruptionbudgets" => {
            ("Name Min_Available Max_Unavailable Allowed_Disruptions:integer Age", budget)
        }
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
            ("Name Webhooks:integer Age", webhooks)
        }
        "customresourcedefinitions" => ("Name Created_At:dateTime", definition),
        "rolebindings" | "clusterrolebindings" => {
            ("Name Role Age Users+ Groups+ ServiceAccounts+", binding)
        }
        "roles" | "clusterroles" => ("Name Created_At", |o, _| {
            vec![meta(o, "name").into(), meta(o, "creationTimestamp").into()]
        }),
        _ => ("Name Age", |o, now| vec![meta(o, "name").into(), age(o, now)]),
    };
    let columns = columns
        .split(' ')
        .map(|word| {
            let wide = word.ends_with('+');
            let word = word.trim_end_matches('+');
            let (name, ty) = word.split_once(':').unwrap_or((word, "string"));
            column(&name.replace('_', " "), ty, wide)
        })
        .collect();
    (columns, objects.iter().map(|object| row(object, now)).collect())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn containers(template: &Value) -> (Value, Value) {
    let all = list(&template["spec"]["containers"]);
    let joined = |field: &str| {
        let names: Vec<&str> = all.iter().filter_map(|c| c[field].as_str()).collect();
        Value::from(names.join(","))
    };
    (joined("name"), joined("image"))
}

fn selector(object: &Value) -> Value {
    or_none(&LabelSelector::from_object(&object["spec"]["selector"]).show())
}

fn pod(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let total = list(&spec["containers"]).len();
    let statuses = list(&status["containerStatuses"]);
    let ready = statuses.iter().filter(|s| s["ready"] == true).count();
    let restarts: i64 = statuses.iter().map(|s| number(&s["restartCount"])).sum();
    let mut reason =
        status["reason"].as_str().or(status["phase"].as_str()).unwrap_or_default().to_owned();
    for container in statuses {
        let state = &container["state"];
        if let Some(why) =
            state["waiting"]["reason"].as_str().or(state["terminated"]["reason"].as_str())
        {
            why.clone_into(&mut reason);
        }
    }
    if o["metadata"]["deletionTimestamp"].is_string() {
        "Terminating".clone_into(&mut reason);
    }
    let last = statuses
        .iter()
        .filter_map(|s| s["lastState"]["terminated"]["finishedAt"].as_str())
        .max()
        .and_then(|at| at.parse::<Timestamp>().ok());
    let restarts = match last {
        Some(at) if restarts > 0 => {
            format!("{restarts} ({} ago)", human_duration(now.as_second() - at.as_second()))
        }
        _ => restarts.to_string(),
    };
    let text = |v: &Value| or_none(v.as_str().unwrap_or_default());
    vec![
        meta(o, "name").into(),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.into(),
        age(o, now),
        text(&status["podIP"]),
        text(&spec["nodeName"]),
        text(&status["nominatedNodeName"]),
        "<none>".into(),
    ]
}

fn deployment(o: &Value, now: Timestamp) -> Vec<Value> {
    let status = &o["status"];
    let (names, images) = containers(&o["spec"]["template"]);
    vec![
        meta(o, "name").into(),
        format!("{}/{}", number(&status["readyReplicas"]), number(&o["spec"]["replicas"])).into(),
        number(&status["updatedReplicas"]).into(),
        number(&status["availableReplicas"]).into(),
        age(o, now),
        names,
        images,
        selector(o),
    ]
}

fn replica_set(o: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(&o["spec"]["template"]);
    vec![
        meta(o, "name").into(),
        number(&o["spec"]["replicas"]).into(),
        number(&o["status"]["replicas"]).into(),
        number(&o["status"]["readyReplicas"]).into(),
        age(o, now),
        names,
        images,
        selector(o),
    ]
}

fn stateful_set(o: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(&o["spec"]["template"]);
    let ready = number(&o["status"]["readyReplicas"]);
    vec![
        meta(o, "name").into(),
        format!("{ready}/{}", number(&o["spec"]["replicas"])).into(),
        age(o, now),
        names,
        images,
    ]
}

fn daemon_set(o: &Value, now: Timestamp) -> Vec<Value> {
    let status = &o["status"];
    let (names, images) = containers(&o["spec"]["template"]);
    let wanted: Vec<String> = o["spec"]["template"]["spec"]["nodeSelector"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    vec![
        meta(o, "name").into(),
        number(&status["desiredNumberScheduled"]).into(),
        number(&status["currentNumberScheduled"]).into(),
        number(&status["numberReady"]).into(),
        number(&status["updatedNumberScheduled"]).into(),
        number(&status["numberAvailable"]).into(),
        or_none(&wanted.join(",")),
        age(o, now),
        names,
        images,
        selector(o),
    ]
}

fn job(o: &Value, now: Timestamp) -> Vec<Value> {
    let status = &o["status"];
    let has = |ty: &str| {
        list(&status["conditions"]).iter().any(|c| c["type"] == ty && c["status"] == "True")
    };
    let state = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if o["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else {
        "Running"
    };
    let started = status["startTime"].as_str().and_then(|t| t.parse::<Timestamp>().ok());
    let ended = status["completionTime"].as_str().and_then(|t| t.parse::<Timestamp>().ok());
    let duration = started.map_or(String::new(), |from| {
        human_duration(ended.unwrap_or(now).as_second() - from.as_second())
    });
    let completions = match o["spec"]["completions"].as_i64() {
        Some(wanted) => format!("{}/{wanted}", number(&status["succeeded"])),
        None => {
            format!("{}/1 of {}", number(&status["succeeded"]), number(&o["spec"]["parallelism"]))
        }
    };
    let (names, images) = containers(&o["spec"]["template"]);
    vec![
        meta(o, "name").into(),
        state.into(),
        completions.into(),
        duration.into(),
        age(o, now),
        names,
        images,
        selector(o),
    ]
}

fn cron_job(o: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let (names, images) = containers(&spec["jobTemplate"]["spec"]["template"]);
    let last = match status["lastScheduleTime"].as_str() {
        Some(at) => since(at, now),
        None => "<none>".into(),
    };
    let suspended = if spec["suspend"] == true { "True" } else { "False" };
    vec![
        meta(o, "name").into(),
        spec["schedule"].clone(),
        or_none(spec["timeZone"].as_str().unwrap_or_default()),
        suspended.into(),
        list(&status["active"]).len().into(),
        last,
        age(o, now),
        names,
        images,
        "<none>".into(),
    ]
}

fn service(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &o["spec"];
    let ports: Vec<String> = list(&spec["ports"])
        .iter()
        .map(|p| {
            let protocol = p["protocol"].as_str().unwrap_or("TCP");
            match p["nodePort"].as_i64() {
                Some(node) if node != 0 => format!("{}:{node}/{protocol}", p["port"]),
                _ => format!("{}/{protocol}", p["port"]),
            }
        })
        .collect();
    let external: Vec<&str> = list(&spec["externalIPs"]).iter().filter_map(Value::as_str).collect();
    let external = match spec["type"].as_str() {
        Some("ExternalName") => spec["externalName"].as_str().unwrap_or_default().to_owned(),
        Some("LoadBalancer") if external.is_empty() => "<pending>".to_owned(),
        _ => external.join(","),
    };
    vec![
        meta(o, "name").into(),
        spec["type"].clone(),
        or_none(spec["clusterIP"].as_str().unwrap_or_default()),
        or_none(&external),
        or_none(&ports.join(",")),
        age(o, now),
        or_none(&LabelSelector::from_object(&json!({"matchLabels": spec["selector"]})).show()),
    ]
}

fn service_account(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![meta(o, "name").into(), list(&o["secrets"]).len().into(), age(o, now)]
}

fn size(object: &Value) -> usize {
    object.as_object().map_or(0, serde_json::Map::len)
}

fn secret(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![meta(o, "name").into(), o["type"].clone(), size(&o["data"]).into(), age(o, now)]
}

fn config_map(o: &Value, now: Timestamp) -> Vec<Value> {
    let entries = size(&o["data"]) + size(&o["binaryData"]);
    vec![meta(o, "name").into(), entries.into(), age(o, now)]
}

fn namespace(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![meta(o, "name").into(), o["status"]["phase"].clone(), age(o, now)]
}

fn node(o: &Value, now: Timestamp) -> Vec<Value> {
    let status = &o["status"];
    let ready = list(&status["conditions"])
        .iter()
        .find(|c| c["type"] == "Ready")
        .map_or("Unknown", |c| if c["status"] == "True" { "Ready" } else { "NotReady" });
    let ready = if o["spec"]["unschedulable"] == true {
        format!("{ready},SchedulingDisabled")
    } else {
        ready.to_owned()
    };
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in o["metadata"]["labels"].as_object().into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/") {
            roles.push(role);
        } else if key == "kubernetes.io/role" {
            roles.extend(value.as_str());
        }
    }
    let address = |ty: &str| {
        list(&status["addresses"])
            .iter()
            .find(|a| a["type"] == ty)
            .and_then(|a| a["address"].as_str())
            .unwrap_or_default()
    };
    let info = &status["nodeInfo"];
    vec![
        meta(o, "name").into(),
        ready.into(),
        or_none(&roles.join(",")),
        age(o, now),
        info["kubeletVersion"].clone(),
        or_none(address("InternalIP")),
        or_none(address("ExternalIP")),
        info["osImage"].clone(),
        info["kernelVersion"].clone(),
        info["containerRuntimeVersion"].clone(),
    ]
}

fn lease(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        meta(o, "name").into(),
        o["spec"]["holderIdentity"].as_str().unwrap_or_default().into(),
        age(o, now),
    ]
}

fn event(o: &Value, now: Timestamp) -> Vec<Value> {
    let about = &o["involvedObject"];
    let kind = about["kind"].as_str().unwrap_or_default().to_lowercase();
    vec![
        since(o["lastTimestamp"].as_str().unwrap_or_default(), now),
        o["type"].clone(),
        o["reason"].clone(),
        format!("{kind}/{}", about["name"].as_str().unwrap_or_default()).into(),
        about["fieldPath"].as_str().unwrap_or_default().into(),
        o["source"]["component"].as_str().unwrap_or_default().into(),
        o["message"].as_str().unwrap_or_default().into(),
        since(o["firstTimestamp"].as_str().unwrap_or_default(), now),
        number(&o["count"]).into(),
        meta(o, "name").into(),
    ]
}

fn controller_revision(o: &Value, now: Timestamp) -> Vec<Value> {
    let owner = list(&o["metadata"]["ownerReferences"]).iter().find(|r| r["controller"] == true);
    let owner = owner.map_or("<none>".to_owned(), |r| {
        let version = r["apiVersion"].as_str().unwrap_or_default();
        let group = version.split_once('/').map_or(String::new(), |(g, _)| format!(".{g}"));
        let kind = r["kind"].as_str().unwrap_or_default().to_lowercase();
        format!("{kind}{group}/{}", r["name"].as_str().unwrap_or_default())
    });
    vec![meta(o, "name").into(), owner.into(), o["revision"].clone(), age(o, now)]
}

fn budget(o: &Value, now: Timestamp) -> Vec<Value> {
    let bound = |v: &Value| match v {
        Value::Null => Value::from("N/A"),
        Value::String(text) => text.clone().into(),
        other => other.to_string().into(),
    };
    vec![
        meta(o, "name").into(),
        bound(&o["spec"]["minAvailable"]),
        bound(&o["spec"]["maxUnavailable"]),
        number(&o["status"]["disruptionsAllowed"]).into(),
        age(o, now),
    ]
}

fn webhooks(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![meta(o, "name").into(), list(&o["webhooks"]).len().into(), age(o, now)]
}

fn definition(o: &Value, _: Timestamp) -> Vec<Value> {
    vec![meta(o, "name").into(), meta(o, "creationTimestamp").into()]
}

fn binding(o: &Value, now: Timestamp) -> Vec<Value> {
    let role = &o["roleRef"];
    let of = |kind: &str| {
        let names: Vec<String> = list(&o["subjects"])
            .iter()
            .filter(|s| s["kind"] == kind)
            .map(|s| match s["namespace"].as_str() {
                Some(ns) => format!("{ns}/{}", s["name"].as_str().unwrap_or_default()),
                None => s["name"].as_str().unwrap_or_default().to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![
        meta(o, "name").into(),
        format!(
            "{}/{}",
            role["kind"].as_str().unwrap_or_default(),
            role["name"].as_str().unwrap_or_default()
        )
        .into(),
        age(o, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}
