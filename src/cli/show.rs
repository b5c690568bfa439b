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
    let mut text = String::new();
    let list = |name: &str| world[name].as_array().map_or(&[][..], Vec::as_slice);
    let word = |value: &Value| escape::terminal(value.as_str().unwrap_or_default()).into_owned();
    for cluster in list("clusters") {
        let _ = writeln!(text, "cluster {}", word(&cluster["name"]));
        let _ = writeln!(text, "  id       {}", word(&cluster["id"]));
        let issuer = if cluster["oidc_issuer"].is_string() {
            word(&cluster["oidc_issuer"])
        } else {
            "off".to_owned()
        };
        let _ = writeln!(text, "  issuer   {issuer}");
        let webhook = if cluster["workload_identity"] == true { "on" } else { "off" };
        let _ = writeln!(text, "  webhook  {webhook}");
        let objects = cluster["objects"].as_object().into_iter().flatten();
        let objects: Vec<String> =
            objects.map(|(kind, count)| format!("{count} {}", escape::terminal(kind))).collect();
        if !objects.is_empty() {
            let _ = writeln!(text, "  objects  {}", objects.join(", "));
        }
    }
    for identity in list("identities") {
        let client = word(&identity["client_id"]);
        let _ = writeln!(text, "identity {}  client {client}", word(&identity["name"]));
        for credential in identity["credentials"].as_array().into_iter().flatten() {
            let subject = word(&credential["subject"]);
            let _ = writeln!(text, "  trusts   {subject}  of {}", word(&credential["issuer"]));
        }
        for role in identity["roles"].as_array().into_iter().flatten() {
            let _ =
                writeln!(text, "  may      {} on {}", word(&role["role"]), word(&role["scope"]));
        }
    }
    for resource in list("resources") {
        let _ = writeln!(text, "resource {}", word(resource));
    }
    if let Some(other) = world["other_assignments"].as_u64().filter(|other| *other > 0) {
        let other = counted(usize::try_from(other).unwrap_or(usize::MAX), "role assignment");
        let _ = writeln!(text, "{other} of other principals");
    }
    text
}
