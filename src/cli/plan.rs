//! `plan`.

use super::{
    args::{Format, Plan},
    error::CliError,
    files,
    interrupt::Interrupt,
    main::Context,
    world::World,
};
use crate::{
    execute::exit::{self, ExitCode},
    ops::{self, PlanOptions, Planned, Scope, plan::Request},
    render::{escape, findings::counted, json, markdown, text},
};

pub(super) async fn run(
    context: &Context,
    args: Plan,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    if context.global.output == Format::Toml {
        return Err(CliError::usage("plan writes text, json or markdown"));
    }
    let world = World::open(context, &args.select, &interrupt).await?;
    let planned = read(context, &world, &interrupt, PlanOptions::default()).await;
    let closed = world.close().await;
    let Some(planned) = planned else { return Ok(interrupt.exit()) };
    write_files(context, &args, &planned)?;
    show(context, &planned);
    closed?;
    Ok(exit::of_plan(&planned.report, planned.has_changes(), args.detailed_exitcode))
}

/// Reads and compares; nothing if the run was asked to stop meanwhile.
pub(super) async fn read(
    context: &Context,
    world: &World,
    interrupt: &Interrupt,
    options: PlanOptions,
) -> Option<Planned> {
    let scope = Scope::of(&world.desired, &world.config, world.is_sandbox(), context.env.now());
    context.output.note(&format!(
        "reading Azure and {} for {} ...",
        counted(scope.clusters.len(), "cluster"),
        counted(scope.workloads.len(), "workload"),
    ));
    let planned = look(context, world, interrupt, options).await;
    if planned.is_none() {
        let why = interrupt.word();
        context.output.message(&format!("{why} while reading: nothing was written"));
    }
    planned
}

/// The same without a word.
pub(super) async fn look(
    context: &Context,
    world: &World,
    interrupt: &Interrupt,
    options: PlanOptions,
) -> Option<Planned> {
    let request = Request {
        desired: &world.desired,
        config: &world.config,
        sandbox: world.is_sandbox(),
        now: context.env.now(),
        options,
    };
    tokio::select! {
        planned = ops::plan::plan(request, &world.connected) => Some(planned),
        () = interrupt.asked() => None,
    }
}

fn show(context: &Context, planned: &Planned) {
    let shown = match context.global.output {
        Format::Text | Format::Toml => text::plan(planned, context.output.out),
        Format::Json => json::to_text(&json::plan(planned)),
        Format::Markdown => markdown::plan(planned),
    };
    context.output.data(&shown);
}

fn write_files(context: &Context, args: &Plan, planned: &Planned) -> Result<(), CliError> {
    let document = || json::to_text(&json::plan(planned));
    if let Some(path) = &args.json_out {
        files::write(path, &document())?;
    }
    if let Some(path) = &args.out {
        let shown = path.display().to_string();
        let shown = escape::terminal(&shown);
        if planned.report.unknown.is_empty() {
            files::write(path, &document())?;
            context.output.note(&format!("wrote {shown}; next: widentity apply {shown}"));
        } else {
            context.output.message(&format!(
                "{shown} is not written: a plan that could not see everything is not a plan file"
            ));
        }
    }
    Ok(())
}
