//! `verify`: the proof of every workload.

use super::{
    args::{Format, Verify},
    error::CliError,
    interrupt::Interrupt,
    main::Context,
    plan,
    progress::Progress,
    world::World,
};
use crate::{
    execute::{
        Event, RunOptions,
        exit::{self, ExitCode},
    },
    ops::{self, PlanOptions, verify::proofs_only},
    render::{json, report, report_json},
};

pub(super) async fn run(
    context: &Context,
    args: Verify,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    if matches!(context.global.output, Format::Markdown | Format::Toml) {
        return Err(CliError::usage("verify writes text or json"));
    }
    let world = World::open(context, &args.select).await?;
    let result = in_world(context, &args, &world, &interrupt).await;
    world.close_after(result).await
}

async fn in_world(
    context: &Context,
    args: &Verify,
    world: &World,
    interrupt: &Interrupt,
) -> Result<ExitCode, CliError> {
    let output = context.output;
    let planned = plan::read(context, world, interrupt, PlanOptions::default()).await;
    let Some(planned) = planned.map(proofs_only) else { return Ok(ExitCode::Interrupted) };
    let options = RunOptions {
        timeout: args.timeout,
        ..RunOptions::new(context.env.now(), interrupt.receiver())
    };
    let progress = Progress::new(output, context.env.stderr_is_terminal);
    let mut sink = |event: &Event| progress.on_event(event);
    let ran =
        ops::apply::apply(&planned, &world.desired, &world.connected, options, &mut sink).await;
    drop(progress);
    let ran = ran.map_err(|error| {
        CliError::new(ExitCode::Internal, format!("the proofs do not fit together: {error}"))
    })?;
    let exit = exit::of_apply(&planned.report, &ran);
    let shown = match context.global.output {
        Format::Json => json::to_text(&report_json::report("verify", &planned, &ran, exit)),
        Format::Text | Format::Markdown | Format::Toml => {
            report::verify(&planned, &ran, output.out)
        }
    };
    output.data(&shown);
    Ok(exit)
}
