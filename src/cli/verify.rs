//! `verify`: the proof of every workload, once or again and again.

use std::time::Duration;

use super::{
    args::{Format, Verify, VerifyMethod},
    error::CliError,
    interrupt::Interrupt,
    main::Context,
    plan,
    progress::Progress,
    watch,
    world::World,
};
use crate::{
    execute::{
        ApplyReport, Event, RunOptions,
        exit::{self, ExitCode},
    },
    ops::{
        self, PlanOptions, Planned,
        verify::{ProofMethod, ProofWindow, proofs_only},
    },
    render::{json, report, report_json},
};

/// From one round of `--watch` to the next.
const INTERVAL: Duration = Duration::from_mins(1);
/// Proofs more often than this are load on Entra and the API server without being news.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// One pass over every workload.
pub(super) struct Round {
    /// What was planned, reduced to proofs.
    pub(super) planned: Planned,
    /// What came of it.
    pub(super) report: ApplyReport,
    /// The verdict.
    pub(super) exit: ExitCode,
}

pub(super) async fn run(
    context: &Context,
    args: Verify,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    if matches!(context.global.output, Format::Markdown | Format::Toml) {
        return Err(CliError::usage("verify writes text or json"));
    }
    if args.image.is_some() && args.method != VerifyMethod::Job {
        return Err(CliError::usage("--image is what a pod runs: add --method job"));
    }
    let interval = args.interval.unwrap_or(INTERVAL);
    if interval < SHORTEST_INTERVAL {
        return Err(CliError::usage("--interval must be at least 1s"));
    }
    // Of a watch it is the time of a round.
    let reading = interrupt.within(args.timeout.filter(|_| !args.watch));
    let world = World::open(context, &args.select, &reading).await?;
    let result = if args.watch {
        watch::run(context, &args, interval, &world, &interrupt).await
    } else {
        once(context, &args, &world, &reading).await
    };
    world.close_after(result).await
}

/// The proofs of what was read.
pub(super) async fn prove(
    args: &Verify,
    world: &World,
    planned: Planned,
    options: RunOptions,
    sink: &mut (dyn FnMut(&Event) + Send),
) -> Result<Round, CliError> {
    let planned = proofs_only(planned);
    let how = match args.method {
        VerifyMethod::Token => ProofMethod::Token,
        VerifyMethod::Job => {
            let default = || ops::verify::DEFAULT_IMAGE.to_owned();
            ProofMethod::Pod { image: args.image.clone().unwrap_or_else(default) }
        }
    };
    let window = args.window.map_or(ProofWindow::Observed, ProofWindow::Fixed);
    let options = RunOptions { how, window, ..options };
    let ran = ops::apply::apply(&planned, &world.desired, &world.connected, options, sink).await;
    let report = ran.map_err(|error| {
        CliError::new(ExitCode::Internal, format!("the proofs do not fit together: {error}"))
    })?;
    let exit = exit::of_apply(&planned.report, &report);
    Ok(Round { planned, report, exit })
}

async fn once(
    context: &Context,
    args: &Verify,
    world: &World,
    interrupt: &Interrupt,
) -> Result<ExitCode, CliError> {
    let output = context.output;
    let planned = plan::read(context, world, interrupt, PlanOptions::default()).await;
    let Some(planned) = planned else { return Ok(interrupt.exit()) };
    let options = RunOptions {
        timeout: interrupt.left(),
        ..RunOptions::new(context.env.now(), interrupt.receiver())
    };
    let progress = Progress::new(output, context.env.stderr_is_terminal);
    let mut sink = |event: &Event| progress.on_event(event);
    let round = prove(args, world, planned, options, &mut sink).await;
    drop(progress);
    let Round { planned, report: ran, exit } = round?;
    let shown = match context.global.output {
        Format::Json => json::to_text(&report_json::report("verify", &planned, &ran, exit)),
        Format::Text | Format::Markdown | Format::Toml => {
            report::verify(report::Of::Apply, &planned, &ran, output.out)
        }
    };
    output.data(&shown);
    Ok(exit)
}
