//! `sandbox show`: what the world is, for people; with `--output json` for programs.

use std::{collections::BTreeMap, fmt::Write as _};

use reqwest::Method;
use serde_json::Value;

use super::{
    args::Format,
    error::CliError,
    main::Context,
    sandbox::{start_error, state_file},
    served,
};
use crate::{
    execute::exit::ExitCode,
    render::{escape, findings::counted, text::SANDBOX},
    sandbox::{files::Files, summary},
};

/// Runs the command.
pub(super) async fn run(context: &Context) -> Result<ExitCode, CliError> {
    let path = state_file(context);
    if !path.exists() {
        return Err(CliError::failed(format!("there is no sandbox at {}", path.display()))
            .hint("widentity --sandbox plan begins one"));
    }
    let ready = served::find(context)?;
    let world = if let Some(ready) = &ready {
        served::send(ready, Method::GET, "/sandbox/world", None).await?
    } else {
        let opened = Files::open(&path).map_err(|error| start_error(&error.into()))?;
        summary::of(&opened.store)
    };
    if context.global.output == Format::Json {
        context.output.data(&format!("{world:#}\n"));
        return Ok(ExitCode::Done);
    }
    let mut text = format!("{SANDBOX}\n{}\n", escape::terminal(&path.display().to_string()));
    if let Some(ready) = &ready {
        text.push_str(&super::sandbox::served(ready));
    }
    text.push_str(&described(&world));
    let _ = writeln!(text, "{SANDBOX}");
    context.output.data(&text);
    Ok(ExitCode::Done)
}

/// The world in lines. Writing to a string cannot fail.
fn described(world: &Value) -> String {
    let mut text = String::new();
    let home = home(world);
    if !home.is_empty() {
        let _ = writeln!(text, "subscription {home}");
    }
    text.push_str(&behaviour(world));
    for cluster in list(world, "clusters") {
        text.push_str(&described_cluster(cluster, &home));
    }
    for identity in list(world, "identities") {
        let client = word(&identity["client_id"]);
        let _ = writeln!(text, "identity {}  client {client}", word(&identity["name"]));
        // One line for each subject: the same account is often trusted in several clusters.
        let mut trusted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for credential in list(identity, "credentials") {
            let issuers = trusted.entry(word(&credential["subject"])).or_default();
            issuers.push(issuer(world, &credential["issuer"]));
        }
        for (subject, mut issuers) in trusted {
            issuers.sort();
            let _ = writeln!(text, "  trusts   {subject}  of {}", issuers.join(", "));
        }
        for role in list(identity, "roles") {
            let (role, scope) = (word(&role["role"]), place(&role["scope"], &home));
            let _ = writeln!(text, "  may      {role}  on {scope}");
        }
        if list(identity, "credentials").is_empty() {
            text.push_str("  trusts   nobody\n");
        }
        if list(identity, "roles").is_empty() {
            text.push_str("  may      do nothing\n");
        }
    }
    for resource in list(world, "resources") {
        let _ = writeln!(text, "resource {}", place(resource, &home));
    }
    if let Some(other) = world["other_assignments"].as_u64().filter(|other| *other > 0) {
        let other = counted(usize::try_from(other).unwrap_or(usize::MAX), "role assignment");
        let _ = writeln!(text, "{other} of other principals");
    }
    text
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> String {
    escape::terminal(value.as_str().unwrap_or_default()).into_owned()
}

/// The subscription of the world's first cluster, or resource. What is in it is named without it.
fn home(world: &Value) -> String {
    let cluster = list(world, "clusters").first().map(|cluster| &cluster["id"]);
    let id = cluster.or_else(|| list(world, "resources").first());
    id.and_then(subscription).map(escape::terminal).unwrap_or_default().into_owned()
}

fn subscription(id: &Value) -> Option<&str> {
    id.as_str()?.strip_prefix("/subscriptions/")?.split('/').next()
}

/// A scope as people name it, `Microsoft.KeyVault/vaults/kv in rg-data`; one of another
/// subscription than `home` stays an identifier.
fn place(id: &Value, home: &str) -> String {
    let full = word(id);
    if subscription(id).is_none_or(|subscription| !subscription.eq_ignore_ascii_case(home)) {
        return full;
    }
    let parts: Vec<&str> = full.trim_matches('/').splitn(6, '/').collect();
    match parts.as_slice() {
        [_, _] => "the subscription".to_owned(),
        [_, _, groups, group] if groups.eq_ignore_ascii_case("resourceGroups") => {
            format!("resource group {group}")
        }
        [_, _, groups, group, providers, resource]
            if groups.eq_ignore_ascii_case("resourceGroups")
                && providers.eq_ignore_ascii_case("providers") =>
        {
            format!("{resource} in {group}")
        }
        _ => full,
    }
}

/// Throttles and faults, where the world is being served and some are on.
fn behaviour(world: &Value) -> String {
    let mut text = String::new();
    if world["limits"] == true {
        text.push_str("limits   the published throttles answer 429\n");
    }
    if world["random_faults"] == true {
        text.push_str("faults   some requests fail at random\n");
    }
    for fault in list(world, "faults") {
        let rule = &fault["rule"];
        let (service, method, path) =
            (word(&rule["service"]), word(&rule["method"]), word(&rule["path"]));
        let how = rule["action"].as_object().into_iter().flatten();
        let how: Vec<String> = how.map(|(name, how)| format!("{name} {how}")).collect();
        let action = if how.is_empty() { word(&rule["action"]) } else { how.join(" ") };
        let (seen, action) = (&fault["seen"], escape::terminal(&action));
        let _ = writeln!(text, "fault    {service} {method} {path}: {action}; {seen} seen");
    }
    text
}

/// The name of the cluster that an issuer belongs to, or its URL.
fn issuer(world: &Value, url: &Value) -> String {
    let cluster = list(world, "clusters").iter().find(|cluster| cluster["oidc_issuer"] == *url);
    cluster.map_or_else(|| word(url), |cluster| word(&cluster["name"]))
}

fn described_cluster(cluster: &Value, home: &str) -> String {
    let mut text = String::new();
    let version = word(&cluster["kubernetes_version"]);
    let _ = writeln!(text, "cluster {}  Kubernetes {version}", word(&cluster["name"]));
    let _ = writeln!(text, "  is       {}", place(&cluster["id"], home));
    let issuer = if cluster["oidc_issuer"].is_string() {
        word(&cluster["oidc_issuer"])
    } else {
        "off".to_owned()
    };
    let _ = writeln!(text, "  issuer   {issuer}");
    let webhook = match (&cluster["workload_identity"], &cluster["webhook_down"]) {
        (Value::Bool(true), Value::Bool(true)) => "installed, and does not answer",
        (Value::Bool(true), _) => "on",
        _ => "off",
    };
    let _ = writeln!(text, "  webhook  {webhook}");
    let mut quiet = Vec::new();
    for namespace in list(cluster, "namespaces") {
        let name = word(&namespace["name"]);
        let workloads = list(namespace, "workloads");
        if workloads.is_empty() || name.starts_with("kube-") {
            quiet.push(name);
            continue;
        }
        let _ = writeln!(text, "  namespace {name}");
        for workload in workloads {
            let kind = word(&workload["kind"]).to_lowercase();
            let ready = match workload["replicas"].as_u64() {
                Some(replicas) => format!("  {}/{replicas} ready", workload["ready"]),
                None => String::new(),
            };
            let (name, account) = (word(&workload["name"]), word(&workload["service_account"]));
            let _ = writeln!(text, "    {kind}/{name}  as {account}{ready}");
        }
    }
    if !quiet.is_empty() {
        let _ = writeln!(text, "  and      {}", quiet.join(", "));
    }
    let objects = cluster["objects"].as_object().into_iter().flatten();
    let objects: Vec<String> =
        objects.map(|(kind, count)| format!("{} {count}", escape::terminal(kind))).collect();
    if !objects.is_empty() {
        let _ = writeln!(text, "  objects  {}", objects.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_at_home_is_named_shortly() {
        let short = |id: &str| place(&json!(id), "s");
        let vault = "providers/Microsoft.KeyVault/vaults/kv";
        for (id, shown) in [
            (
                format!("/subscriptions/S/resourcegroups/g/{vault}"),
                "Microsoft.KeyVault/vaults/kv in g",
            ),
            ("/subscriptions/s/resourceGroups/g".into(), "resource group g"),
            ("/subscriptions/s".into(), "the subscription"),
            ("/subscriptions/t/resourceGroups/g".into(), "/subscriptions/t/resourceGroups/g"),
            ("/".into(), "/"),
        ] {
            assert_eq!(short(&id), shown);
        }
    }

    #[test]
    fn a_subject_of_two_clusters_is_one_line() {
        let trust =
            |issuer: &str| json!({ "subject": "system:serviceaccount:n:a", "issuer": issuer });
        let world = json!({
            "clusters": [{ "name": "west", "id": "/subscriptions/s/resourceGroups/g", "oidc_issuer": "https://w/" }],
            "identities": [{ "name": "id", "client_id": "c", "roles": [],
                "credentials": [trust("https://w/"), trust("https://other/")] }],
        });
        let text = described(&world);
        assert!(
            text.contains("  trusts   system:serviceaccount:n:a  of https://other/, west\n"),
            "{text}"
        );
    }
}
