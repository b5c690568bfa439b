//! `verify --watch`: again and again until Ctrl-C, and only what changes is printed.

use std::{collections::BTreeMap, time::Duration};

use super::{
    args::{Format, Verify},
    error::CliError,
    interrupt::Interrupt,
    main::Context,
    plan,
    verify::{Round, prove},
    world::World,
};
use crate::{
    execute::{Event, RunOptions, exit::ExitCode},
    ops::{
        PlanOptions,
        watch::{changes, standings},
    },
    render::{findings::counted, text::SANDBOX, watch as shown},
};

/// A proof is given up after a round's interval, but not before this long: a refusal that is
/// passing should not be told as one that stays.
const PATIENCE: Duration = Duration::from_secs(15);
/// Nor after more than this, which is how long a single `verify` tries.
const LONGEST: Duration = Duration::from_mins(5);

/// Proves until it is interrupted; the exit code is the last verdict's.
pub(super) async fn run(
    context: &Context,
    args: &Verify,
    interval: Duration,
    world: &World,
    interrupt: &Interrupt,
) -> Result<ExitCode, CliError> {
    let output = context.output;
    let text = context.global.output != Format::Json;
    let sandbox = world.is_sandbox();
    let banner = || {
        if sandbox && text {
            output.data(&format!("{SANDBOX}\n"));
        }
    };
    output.note(&format!(
        "proving {} every {} s; Ctrl-C ends it",
        counted(world.desired.placements().count(), "chain"),
        interval.as_secs()
    ));
    banner();
    let began = context.env.now();
    let mut verdict = ExitCode::Interrupted;
    let mut before = BTreeMap::new();
    loop {
        let now = context.env.now();
        let planned = plan::look(context, world, interrupt, PlanOptions::default()).await;
        let Some(planned) = planned else { break };
        let options = RunOptions {
            proof_deadline: interval.clamp(PATIENCE, LONGEST),
            // What an earlier round has seen is that old.
            seen_for: Duration::try_from(now.duration_since(began)).unwrap_or_default(),
            timeout: args.timeout,
            ..RunOptions::new(now, interrupt.receiver())
        };
        let mut sink = |_: &Event| {};
        let Round { planned, report, exit } =
            prove(args, world, planned, options, &mut sink).await?;
        // A round that was cut short has no verdict.
        if exit == ExitCode::Interrupted {
            break;
        }
        verdict = exit;
        let after = standings(&planned, &report);
        let at = context.env.now();
        for change in changes(&before, &after) {
            output.data(&if text {
                shown::line(&change, at, output.out)
            } else {
                shown::json(&change, at, sandbox)
            });
        }
        before = after;
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = interrupt.asked() => break,
        }
    }
    banner();
    Ok(verdict)
}
