//! `explain`: a code, a message or a log.

use std::io;

use super::{
    args::{Explain, Format},
    doctor,
    error::CliError,
    interrupt::Interrupt,
    main::Context,
    world::World,
};
use crate::{
    execute::exit::ExitCode,
    ops::{
        doctor::{self as ops_doctor, Options},
        explain::{self, Explained},
    },
    render::{explain as shown, json},
};

/// Explains offline.
pub(super) fn run(context: &Context, args: &Explain) -> Result<ExitCode, CliError> {
    let explained = read(context, args)?;
    show(context, &explained)
}

/// Explains beside what the chains of the file show.
pub(super) async fn with_chain(
    context: &Context,
    args: Explain,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    let mut explained = read(context, &args)?;
    let world = World::open(context, &args.select, &interrupt).await?;
    let questions = doctor::questions(&world, None, &args.select.cluster);
    let options = Options { token: true, now: context.env.now() };
    let examined = tokio::select! {
        examined = Box::pin(ops_doctor::doctor(
            world.connected.reach(), questions, Some(&world.desired), options,
        )) => examined,
        () = interrupt.asked() => return Ok(ExitCode::Interrupted),
    };
    world.close().await?;
    let examined = examined.map_err(|error| CliError::failed(error.to_string()))?;
    let diagnoses: Vec<_> = examined.into_iter().map(|one| one.diagnosis).collect();
    explain::with_context(&mut explained, &diagnoses);
    show(context, &explained)
}

fn read(context: &Context, args: &Explain) -> Result<Explained, CliError> {
    let words = args.text.join(" ");
    if words == "-" || (words.is_empty() && !context.env.stdin_is_terminal) {
        return explain::log(io::stdin().lock())
            .map_err(|error| CliError::failed(format!("cannot read standard input: {error}")));
    }
    if words.is_empty() {
        return Err(CliError::usage("explain needs a code, a message or a log")
            .hint("widentity explain AADSTS700213, or: kubectl logs POD | widentity explain -"));
    }
    Ok(explain::text(&words))
}

/// Nothing known is exit 1, so that a script can tell.
fn show(context: &Context, explained: &Explained) -> Result<ExitCode, CliError> {
    let text = match context.global.output {
        Format::Json => json::to_text(&shown::json(explained)),
        Format::Text => shown::text(explained, context.output.out),
        Format::Markdown | Format::Toml => {
            return Err(CliError::usage("explain writes text or json"));
        }
    };
    context.output.data(&text);
    Ok(if explained.answers.is_empty() { ExitCode::Failed } else { ExitCode::Done })
}
