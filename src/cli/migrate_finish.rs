//! `migrate finish`: prove again, ask, remove what nothing uses any more.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{self, Instant};

use super::{
    args::Format,
    error::CliError,
    interrupt::Interrupt,
    main::Context,
    migrate,
    migrate_args::MigrateFinish,
    progress::Progress,
    prompt::{Answer, ask},
    world::World,
};
use crate::{
    execute::{Event, RunOptions, exit::ExitCode},
    ops::migrate::{
        Overview, Patience, Removal, Surveyed, Workload,
        finish::{self, Finished, Finishing},
    },
    render::{
        findings::counted,
        migrate as render,
        removal::{self, Part},
    },
};

/// How long pods may take to end: twice the usual grace period.
const ENDING: Duration = Duration::from_mins(1);
/// Between two looks at them.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn run(
    context: &Context,
    args: MigrateFinish,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    if matches!(context.global.output, Format::Markdown | Format::Toml) {
        return Err(CliError::usage("migrate finish writes text or json"));
    }
    if !args.yes && !args.plan && !context.env.can_ask() {
        return Err(CliError::usage("there is no terminal to ask on").hint(
            "review with `widentity migrate finish --plan`, then `widentity migrate finish --yes`",
        ));
    }
    let world = migrate::open(context, &args.select, &interrupt).await?;
    let result = in_world(context, &args, &world, &interrupt).await;
    world.close_after(result).await
}

/// One cluster with what is decided for it.
struct Here<'a> {
    read: &'a Surveyed,
    proved: BTreeSet<String>,
    what: Removal,
}

async fn in_world(
    context: &Context,
    args: &MigrateFinish,
    world: &World,
    interrupt: &Interrupt,
) -> Result<ExitCode, CliError> {
    let output = context.output;
    let everything = tokio::select! {
        everything = settled(context, args, world) => everything?,
        () = interrupt.asked() => {
            output.message("interrupted while reading: nothing was removed");
            return Ok(ExitCode::Interrupted);
        }
    };
    if everything.unseen().next().is_some() {
        output.data(&match context.global.output {
            Format::Json => render::json(&everything),
            Format::Text | Format::Markdown | Format::Toml => {
                render::text(&everything, false, output.out)
            }
        });
        let seen = migrate::seen(&everything);
        return Err(CliError::new(seen, "nothing is removed while something cannot be seen"));
    }
    let chosen = migrate::narrow(&args.select.of, everything.clone())?;
    let mut here = Vec::new();
    for read in &everything.clusters {
        let names = names(&chosen, read);
        let proved = if args.plan {
            names
        } else {
            let options = RunOptions::new(context.env.now(), interrupt.receiver());
            let progress = Progress::new(output, context.env.stderr_is_terminal);
            let mut sink = |event: &Event| progress.on_event(event);
            let connected = &world.connected;
            finish::prove(&world.desired, read, &names, connected, options, &mut sink).await
        };
        let what = finish::decide(read, &proved, args.unassign);
        here.push(Here { read, proved, what });
    }
    let count: usize = here.iter().map(|here| here.what.count()).sum();
    let preview = removal::preview(&parts(&here, &[]), everything.sandbox);
    if args.plan || count == 0 {
        show(context, &everything, &here, &[], &preview, ExitCode::Done);
        return Ok(ExitCode::Done);
    }
    match context.global.output {
        Format::Text => output.data(&preview),
        Format::Json | Format::Markdown | Format::Toml if !args.yes => output.message(&preview),
        Format::Json | Format::Markdown | Format::Toml => {}
    }
    if !args.yes {
        let what = counted(count, "object");
        let question = format!("\nRemove {what} of Pod Identity? Only `yes` is accepted: ");
        if let Answer::End(exit) = ask(context, &question, "not removed", interrupt).await? {
            return Ok(exit);
        }
    }
    let mut done = Vec::new();
    for here in &here {
        let with = Finishing {
            request: migrate::request(context, world, &args.select),
            connected: &world.connected,
            proved: &here.proved,
            unassign: args.unassign,
            patience: Patience::new(interrupt.receiver()),
        };
        done.push(finish::finish(here.read, &here.what, &with).await);
    }
    let exit = exit(&done);
    show(context, &everything, &here, &done, "", exit);
    let failure = done.iter().find_map(|finished| finished.failure.as_ref());
    match failure {
        Some(failure) => Err(CliError::remote(failure).with_exit(exit)),
        None => Ok(exit),
    }
}

/// Reads everything: what was not chosen still counts, a binding may answer for both. Pods that
/// are ending are waited for, or what they use would stay behind for the sake of a moment.
async fn settled(
    context: &Context,
    args: &MigrateFinish,
    world: &World,
) -> Result<Overview, CliError> {
    let deadline = Instant::now() + ENDING;
    let mut said = false;
    loop {
        let everything = migrate::everything(context, world, &args.select).await?;
        let ending: usize = everything.clusters.iter().map(finish::ending).sum();
        if args.plan || ending == 0 || Instant::now() >= deadline {
            return Ok(everything);
        }
        if !said {
            context.output.message(&format!("waiting for {} to end ...", counted(ending, "pod")));
            said = true;
        }
        time::sleep(LOOK).await;
    }
}

/// The chosen workloads of a cluster.
fn names(chosen: &Overview, read: &Surveyed) -> BTreeSet<String> {
    let clusters = chosen.clusters.iter().filter(|c| c.survey.cluster == read.survey.cluster);
    clusters.flat_map(|cluster| &cluster.survey.workloads).map(Workload::name).collect()
}

fn exit(done: &[Finished]) -> ExitCode {
    let removed: usize = done.iter().map(|finished| finished.removed.len()).sum();
    if done.iter().any(|finished| finished.interrupted) {
        return ExitCode::Interrupted;
    }
    match done.iter().find_map(|finished| finished.failure.as_ref()) {
        None => ExitCode::Done,
        Some(_) if removed > 0 => ExitCode::Partial,
        Some(failure) => CliError::remote(failure).exit,
    }
}

fn parts<'a>(here: &'a [Here<'_>], done: &'a [Finished]) -> Vec<Part<'a>> {
    let each = here.iter().enumerate().map(|(at, here)| Part {
        cluster: here.read.survey.cluster.as_str(),
        what: &here.what,
        done: done.get(at),
    });
    each.collect()
}

fn show(
    context: &Context,
    everything: &Overview,
    here: &[Here<'_>],
    done: &[Finished],
    preview: &str,
    exit: ExitCode,
) {
    let parts = parts(here, done);
    context.output.data(&match context.global.output {
        Format::Json => removal::json(&parts, everything.sandbox, exit),
        Format::Text | Format::Markdown | Format::Toml => {
            format!("{preview}{}", removal::report(&parts, everything.sandbox))
        }
    });
}
