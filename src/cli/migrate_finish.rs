//! `migrate finish`: prove again, ask, remove what nothing uses any more.

use std::collections::BTreeSet;

use super::{
    apply::{Answer, ask},
    args::{Format, MigrateFinish},
    error::CliError,
    interrupt::Interrupt,
    main::Context,
    migrate,
    progress::Progress,
    world::World,
};
use crate::{
    execute::{Event, RunOptions, exit::ExitCode},
    ops::migrate::finish,
    render::{escape, findings::counted, migrate as render},
};

pub(super) async fn run(
    context: &Context,
    args: MigrateFinish,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    if context.global.output != Format::Text {
        return Err(CliError::usage("migrate finish writes text"));
    }
    if !args.yes && !context.env.can_ask() {
        return Err(CliError::usage("there is no terminal to ask on").hint(
            "review with `widentity migrate status`, then `widentity migrate finish --yes`",
        ));
    }
    let world = migrate::open(context, &args.select).await?;
    let result = in_world(context, &args, &world, &interrupt).await;
    world.close_after(result).await
}

async fn in_world(
    context: &Context,
    args: &MigrateFinish,
    world: &World,
    interrupt: &Interrupt,
) -> Result<ExitCode, CliError> {
    let output = context.output;
    // What was not chosen still counts: a binding may answer for both.
    let everything = migrate::everything(context, world, &args.select).await;
    if everything.unseen().next().is_some() {
        output.data(&render::text(&everything, false, output.out));
        let seen = migrate::seen(&everything);
        return Err(CliError::new(seen, "nothing is removed while something cannot be seen"));
    }
    let chosen = migrate::survey(context, world, &args.select).await?;
    let mut decided = Vec::new();
    for read in &everything.clusters {
        let mut names = BTreeSet::new();
        for of in chosen.clusters.iter().filter(|c| c.survey.cluster == read.survey.cluster) {
            for workload in &of.survey.workloads {
                names.insert(workload.name());
            }
        }
        let options = RunOptions::new(context.env.now(), interrupt.receiver());
        let progress = Progress::new(output, context.env.stderr_is_terminal);
        let mut sink = |event: &Event| progress.on_event(event);
        let proved =
            finish::prove(&world.desired, read, &names, &world.connected, options, &mut sink).await;
        drop(progress);
        decided.push((read, finish::decide(read, &proved, args.unassign)));
    }
    let mut count = 0;
    for (read, what) in &decided {
        output.data(&render::removal(read.survey.cluster.as_str(), what));
        count += what.bindings.len() + what.identities.len();
    }
    if count == 0 {
        output.data("Nothing to remove.\n");
        return Ok(ExitCode::Done);
    }
    if !args.yes {
        let what = counted(count, "object");
        let question = format!("\nRemove {what} of Pod Identity? Only `yes` is accepted: ");
        match ask(context, &question, interrupt).await? {
            Answer::Yes => {}
            Answer::No => {
                output.message("not removed: only `yes` is taken for an answer");
                return Ok(ExitCode::Failed);
            }
            Answer::Interrupted => return Ok(ExitCode::Interrupted),
        }
    }
    let mut removed = 0;
    let mut failed = None;
    for (read, what) in &decided {
        let done = finish::finish(read, what, &everything, &world.connected).await;
        for object in &done.removed {
            output.data(&format!("removed {}\n", escape::terminal(object)));
        }
        removed += done.removed.len();
        failed = failed.or(done.failure);
    }
    output.data(&format!("Finish: {} of {} removed.\n", removed, counted(count, "object")));
    match failed {
        None => Ok(ExitCode::Done),
        Some(failure) => {
            let error = CliError::remote(&failure);
            Err(if removed > 0 { error.with_exit(ExitCode::Partial) } else { error })
        }
    }
}
