//! `apply`: plan, ask, do, prove, report.

use std::{fs::File, path::PathBuf};

use super::{
    args::{Apply, Format},
    error::CliError,
    files,
    interrupt::Interrupt,
    main::Context,
    plan,
    progress::Progress,
    prompt::{Answer, ask},
    world::World,
};
use crate::{
    execute::{
        Event, RunOptions,
        exit::{self, ExitCode},
        journal::Journal,
    },
    ops::{
        self, PlanOptions, Planned,
        apply::Gate,
        approval::{Approval, NotApproved},
    },
    render::{escape, json, report, report_json, text},
};

pub(super) async fn run(
    context: &Context,
    args: Apply,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    if matches!(context.global.output, Format::Markdown | Format::Toml) {
        return Err(CliError::usage("apply writes text or json"));
    }
    let gate = gate(context, &args)?;
    let journal = args.journal.as_ref().map(|path| open_journal(context, path)).transpose()?;
    let reading = interrupt.within(args.timeout);
    let world = World::open(context, &args.select, &reading).await?;
    let result = in_world(context, &args, &gate, &world, (&reading, &interrupt), journal).await;
    world.close_after(result).await
}

/// Who approves, found out before anything is read.
fn gate(context: &Context, args: &Apply) -> Result<Gate, CliError> {
    if let Some(path) = args.plan.as_ref().or(args.approved.as_ref()) {
        let shown = path.display();
        let approval = Approval::parse(&files::read(path)?).map_err(|error| {
            CliError::failed(format!("{shown}: {error}"))
                .hint("make one with `widentity plan --out FILE`")
        })?;
        return Ok(Gate::Approved(approval));
    }
    if let Some(digest) = &args.expect_digest {
        return Ok(Gate::Digest(digest.clone()));
    }
    if args.yes {
        return Ok(Gate::Yes);
    }
    if context.env.can_ask() {
        return Ok(Gate::Ask);
    }
    Err(CliError::usage("there is no terminal to ask on").hint(
        "review with `widentity plan`, then `widentity apply --yes`, or name what was reviewed: \
         --expect-digest DIGEST, --approved FILE or a plan file",
    ))
}

fn open_journal(context: &Context, path: &PathBuf) -> Result<Journal<File>, CliError> {
    let file = File::create(path);
    let file = file
        .map_err(|error| CliError::failed(format!("cannot write {}: {error}", path.display())))?;
    Ok(Journal::new(file, context.env.now()))
}

async fn in_world(
    context: &Context,
    args: &Apply,
    gate: &Gate,
    world: &World,
    (reading, interrupt): (&Interrupt, &Interrupt),
    mut journal: Option<Journal<File>>,
) -> Result<ExitCode, CliError> {
    let output = context.output;
    let options = PlanOptions { no_rollout: args.no_rollout, ..PlanOptions::default() };
    let Some(planned) = plan::read(context, world, reading, options).await else {
        return Ok(reading.exit());
    };
    // A person may think as long as they like.
    let timeout = reading.left();
    let asks = gate.admit(&planned);
    match (context.global.output, &asks) {
        (Format::Text, _) => output.data(&text::preview(&planned, output.out)),
        // Standard output is the report alone; who is asked or refused sees the plan elsewhere.
        (_, Ok(true) | Err(_)) => output.message(&text::preview(&planned, output.err)),
        (_, Ok(false)) => {}
    }
    if asks.map_err(|error| not_approved(&error, &planned))? {
        let project = escape::terminal(planned.scope.project.as_str()).into_owned();
        let question = format!("\nApply this to project {project}? Only `yes` is accepted: ");
        if let Answer::End(exit) = ask(context, &question, "not applied", interrupt).await? {
            return Ok(exit);
        }
    }
    let now = context.env.now();
    let options = RunOptions {
        timeout,
        no_rollout: args.no_rollout,
        ..RunOptions::new(now, interrupt.receiver())
    };
    let progress = Progress::new(output, context.env.stderr_is_terminal);
    let mut sink = |event: &Event| {
        progress.on_event(event);
        if let Some(journal) = &mut journal {
            journal.record(event);
        }
    };
    let ran =
        ops::apply::apply(&planned, &world.desired, &world.connected, options, &mut sink).await;
    drop(progress);
    let ran = ran.map_err(|error| {
        CliError::new(ExitCode::Internal, format!("the plan does not fit together: {error}"))
            .hint("nothing was begun; this is a bug in widentity, please report it")
    })?;
    let exit = exit::of_apply(&planned.report, &ran);
    let document = || json::to_text(&report_json::report("apply", &planned, &ran, exit));
    // The report is shown before anything about writing it to a file can fail.
    match context.global.output {
        Format::Json => output.data(&document()),
        Format::Text | Format::Markdown | Format::Toml => {
            output.data(&report::apply(&planned, &ran, exit, output.out));
        }
    }
    if let Some(path) = &args.json_out {
        files::write(path, &document())?;
    }
    if let Some(Err(error)) = journal.map(Journal::finish) {
        output.message(&format!("the journal is not complete: {error}"));
    }
    Ok(exit)
}

fn not_approved(error: &NotApproved, planned: &Planned) -> CliError {
    let digest = &planned.plan.digest;
    match error {
        NotApproved::Digest { .. } => CliError::new(ExitCode::Stale, error.to_string())
            .hint(format!("what is left is shown above; review it, then --expect-digest {digest}")),
        NotApproved::More { .. } => CliError::new(ExitCode::Stale, error.to_string())
            .hint("the world or the file changed since; plan and review again"),
        NotApproved::Project { .. } | NotApproved::Sandbox => {
            CliError::new(ExitCode::Refused, error.to_string())
        }
    }
}
