//! `sandbox fault`: rules for the sandbox that is being served.

use std::fmt::Write as _;

use reqwest::Method;
use serde_json::json;

use super::{
    args::{Fault, FaultAction, FaultRule, WebhookState},
    error::CliError,
    main::Context,
    served,
};
use crate::{
    execute::exit::ExitCode,
    sandbox::faults::{Action, Rule},
};

/// Runs the command.
pub(super) async fn run(context: &Context, fault: Fault) -> Result<ExitCode, CliError> {
    let ready = served::find(context)?.ok_or_else(|| {
        CliError::failed("no sandbox is being served for this configuration")
            .hint("widentity sandbox serve, in another terminal")
    })?;
    match fault {
        Fault::Add(args) => {
            let rule = serde_json::to_value(rule(args)?)
                .map_err(|error| CliError::failed(format!("the rule is no JSON: {error}")))?;
            served::send(&ready, Method::POST, "/sandbox/faults", Some(&rule)).await?;
        }
        Fault::List => {
            let rules = served::send(&ready, Method::GET, "/sandbox/faults", None).await?;
            let mut text = String::new();
            for rule in rules.as_array().into_iter().flatten() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{rule}");
            }
            context.output.data(&text);
        }
        Fault::Clear => {
            served::send(&ready, Method::DELETE, "/sandbox/faults", None).await?;
        }
        Fault::Webhook { cluster, state } => {
            if !ready.kubeconfigs.contains_key(&cluster) {
                return Err(CliError::usage(format!("the sandbox has no cluster `{cluster}`")));
            }
            let mut path = String::from("/sandbox/webhooks/");
            path.extend(url::form_urlencoded::byte_serialize(cluster.as_bytes()));
            let body = json!({ "down": state == WebhookState::Down });
            served::send(&ready, Method::PUT, &path, Some(&body)).await?;
        }
    }
    Ok(ExitCode::Done)
}

fn rule(args: FaultRule) -> Result<Rule, CliError> {
    let FaultRule { service, method, path, nth, times, action, code, message, retry_after } = args;
    let millis =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let FaultAction { answer, delay, reset, reply_lost, cut, slow, stall } = action;
    let worded = !code.is_empty() || !message.is_empty() || retry_after.is_some();
    if answer.is_none() && worded {
        return Err(CliError::usage("--code, --message and --retry-after go with --answer"));
    }
    let action = match (answer, delay, slow) {
        (Some(status), _, _) => Action::Answer { status, code, message, retry_after },
        (_, Some(delay), _) => Action::Delay(millis(delay)),
        (_, _, Some(pause)) => Action::Slow(millis(pause)),
        _ if reset => Action::Reset,
        _ if reply_lost => Action::ReplyLost,
        _ if cut => Action::Cut,
        _ if stall => Action::Stall,
        // The command line demands one of them.
        _ => return Err(CliError::usage("say what happens, for example --reset")),
    };
    Ok(Rule { service, method, path, nth, times, action })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::Value;

    use super::*;
    use crate::cli::args::{Cli, Command, Sandbox};

    fn parsed(arguments: &[&str]) -> Result<Value, String> {
        let all = [&["widentity", "sandbox", "fault", "add"], arguments].concat();
        let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
        let Command::Sandbox(Sandbox::Fault(Fault::Add(args))) = cli.command else {
            return Err("another command".to_owned());
        };
        Ok(serde_json::to_value(rule(args).map_err(|error| format!("{error:?}"))?).unwrap())
    }

    #[test]
    fn a_command_line_becomes_a_rule() {
        let rule = parsed(&[
            "--service",
            "arm",
            "--method",
            "PUT",
            "--path",
            "*/roleAssignments/*",
            "--times",
            "2",
            "--answer",
            "400",
            "--code",
            "PrincipalNotFound",
            "--message",
            "not yet",
        ]);
        let wanted = json!({
            "service": "arm", "method": "PUT", "path": "*/roleAssignments/*", "nth": 1, "times": 2,
            "action": { "answer": { "status": 400, "code": "PrincipalNotFound",
                                     "message": "not yet", "retry_after": null } },
        });
        assert_eq!(rule, Ok(wanted));
        let slow = parsed(&["--slow", "200ms"]).unwrap();
        assert_eq!(slow["action"], json!({ "slow": 200 }));
    }

    #[test]
    fn a_rule_does_exactly_one_thing() {
        assert!(parsed(&[]).is_err());
        assert!(parsed(&["--reset", "--cut"]).is_err());
        assert!(parsed(&["--reset", "--code", "X"]).is_err());
    }
}
