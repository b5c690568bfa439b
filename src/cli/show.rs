//! `sandbox show`: what the world is, for people; with `--output json` for programs.

use std::fmt::Write as _;

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
    let mut text = behaviour(world);
    for cluster in list(world, "clusters") {
        text.push_str(&described_cluster(cluster));
    }
    for identity in list(world, "identities") {
        let client = word(&identity["client_id"]);
        let _ = writeln!(text, "identity {}  client {client}", word(&identity["name"]));
        for credential in list(identity, "credentials") {
            let subject = word(&credential["subject"]);
            let issuer = issuer(world, &credential["issuer"]);
            let _ = writeln!(text, "  trusts   {subject}  of {issuer}");
        }
        for role in list(identity, "roles") {
            let _ =
                writeln!(text, "  may      {} on {}", word(&role["role"]), word(&role["scope"]));
        }
        if list(identity, "credentials").is_empty() {
            text.push_str("  trusts   nobody\n");
        }
        if list(identity, "roles").is_empty() {
            text.push_str("  may      do nothing\n");
        }
    }
    for resource in list(world, "resources") {
        let _ = writeln!(text, "resource {}", word(resource));
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

/// The cluster that an issuer belongs to, or its URL.
fn issuer(world: &Value, url: &Value) -> String {
    let cluster = list(world, "clusters").iter().find(|cluster| cluster["oidc_issuer"] == *url);
    cluster.map_or_else(|| word(url), |cluster| format!("cluster {}", word(&cluster["name"])))
}

fn described_cluster(cluster: &Value) -> String {
    let mut text = String::new();
    let version = word(&cluster["kubernetes_version"]);
    let _ = writeln!(text, "cluster {}  Kubernetes {version}", word(&cluster["name"]));
    let _ = writeln!(text, "  id       {}", word(&cluster["id"]));
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
        objects.map(|(kind, count)| format!("{count} {}", escape::terminal(kind))).collect();
    if !objects.is_empty() {
        let _ = writeln!(text, "  objects  {}", objects.join(", "));
    }
    text
}
