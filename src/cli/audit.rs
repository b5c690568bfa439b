//! `audit`: what is stale, orphaned, duplicate, too wide or too shared.

use super::{
    args::{Audit, FailOn, Format},
    error::CliError,
    interrupt::Interrupt,
    main::Context,
    world::World,
};
use crate::{
    execute::exit::ExitCode,
    ops::audit::{self, Severity},
    render::{audit as shown, json, text::SANDBOX},
};

pub(super) async fn run(
    context: &Context,
    args: Audit,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    if matches!(context.global.output, Format::Markdown | Format::Toml) {
        return Err(CliError::usage("audit writes text or json"));
    }
    let world = World::open(context, &args.select, &interrupt).await?;
    let found = tokio::select! {
        found = Box::pin(audit::audit(&world.connected, &world.desired)) => found,
        () = interrupt.asked() => return Ok(ExitCode::Interrupted),
    };
    let sandbox = world.is_sandbox();
    world.close().await?;
    let text = match context.global.output {
        Format::Json => json::to_text(&shown::json(&found, sandbox)),
        Format::Text | Format::Markdown | Format::Toml => {
            let text = shown::text(&found, context.output.out);
            if sandbox { format!("{SANDBOX}\n\n{text}{SANDBOX}\n") } else { text }
        }
    };
    context.output.data(&text);
    let severity = args.fail_on.map(|severity| match severity {
        FailOn::Info => Severity::Info,
        FailOn::Low => Severity::Low,
        FailOn::Medium => Severity::Medium,
        FailOn::High => Severity::High,
    });
    Ok(match severity {
        Some(severity) if found.reaches(severity) => ExitCode::Changes,
        // What was not looked at may hold the worst.
        _ if !found.unseen.is_empty() => ExitCode::Denied,
        _ => ExitCode::Done,
    })
}
