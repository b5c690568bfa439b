//! `migrate finish`: prove again, ask, remove what nothing uses any more.

use std::{collections::BTreeSet, time::Duration};

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
    execute::{
        Event, RunOptions,
        exit::{self, ExitCode},
    },
    ops::migrate::{
        Allowed, Overview, Patience, Removal, Surveyed, Workload,
        ending::{ended, ending},
        finish::{self, Finished, Finishing},
        proofs::{self, Proofs},
    },
    render::{
        findings::counted,
        head::Head,
        migrate::{self as render, Told},
        removal::{self, Part},
        style::Palette,
    },
};

const COMMAND: &str = "migrate finish";
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
    chosen: BTreeSet<String>,
    /// None where nothing was due, or only the plan was asked for.
    proofs: Option<Proofs>,
    what: Removal,
}

impl<'a> Here<'a> {
    fn new(
        read: &'a Surveyed,
        chosen: BTreeSet<String>,
        proofs: Option<Proofs>,
        args: &MigrateFinish,
    ) -> Self {
        let mut here = Self { read, chosen, proofs, what: Removal::default() };
        here.what = finish::decide(read, here.allowed(args));
        here
    }

    /// A plan shows what would go if the proofs passed.
    fn allowed(&self, args: &MigrateFinish) -> Allowed<'_> {
        const NOBODY: &BTreeSet<String> = &BTreeSet::new();
        let proved = if args.plan {
            &self.chosen
        } else {
            self.proofs.as_ref().map_or(NOBODY, |proofs| &proofs.passed)
        };
        Allowed { chosen: &self.chosen, proved, unassign: args.select.unassign }
    }

    fn proved(&self) -> ExitCode {
        self.proofs.as_ref().map_or(ExitCode::Done, Proofs::exit)
    }
}

async fn in_world(
    context: &Context,
    args: &MigrateFinish,
    world: &World,
    interrupt: &Interrupt,
) -> Result<ExitCode, CliError> {
    let output = context.output;
    let everything = tokio::select! {
        everything = settled(context, args, world, interrupt) => everything,
        () = interrupt.asked() => {
            output.message("interrupted while reading: nothing was removed");
            return Ok(ExitCode::Interrupted);
        }
    };
    if everything.unseen().next().is_some() {
        let seen = migrate::seen(&everything);
        output.data(&match context.global.output {
            Format::Json => render::json(&everything, COMMAND, seen),
            Format::Text | Format::Markdown | Format::Toml => {
                render::text(&everything, Told::Status, output.out)
            }
        });
        return Err(CliError::new(seen, "nothing is removed while something cannot be seen"));
    }
    let chosen = migrate::narrow(&args.select.of, everything.clone())?;
    let mut here = Vec::new();
    for read in &everything.clusters {
        let names = names(&chosen, read);
        let proofs = if args.plan {
            None
        } else {
            proved(context, args, world, read, &names, interrupt).await?
        };
        here.push(Here::new(read, names, proofs, args));
        if *interrupt.receiver().borrow() {
            show(context, &everything, &here, &[], ExitCode::Interrupted);
            output.message("interrupted: nothing was removed");
            return Ok(ExitCode::Interrupted);
        }
    }
    let count: usize = here.iter().map(|here| here.what.count()).sum();
    if args.plan || count == 0 {
        let exit = exit(&here, &[]);
        show(context, &everything, &here, &[], exit);
        return Ok(exit);
    }
    let preview =
        |palette: Palette| removal::preview(&parts(&here, &[]), everything.sandbox, palette);
    match context.global.output {
        Format::Text => output.data(&preview(output.out)),
        Format::Json | Format::Markdown | Format::Toml if !args.yes => {
            output.message(&preview(output.err));
        }
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
            allowed: here.allowed(args),
            patience: Patience::new(interrupt.receiver()),
        };
        done.push(finish::finish(here.read, &here.what, &with).await);
    }
    let exit = exit(&here, &done);
    show(context, &everything, &here, &done, exit);
    let failure = done.iter().find_map(|finished| finished.failure.as_ref());
    match failure {
        Some(failure) => Err(CliError::remote(failure).with_exit(exit)),
        None => Ok(exit),
    }
}

async fn proved(
    context: &Context,
    args: &MigrateFinish,
    world: &World,
    read: &Surveyed,
    chosen: &BTreeSet<String>,
    interrupt: &Interrupt,
) -> Result<Option<Proofs>, CliError> {
    let request = migrate::request(context, world, &args.select);
    let options = RunOptions::new(request.now, interrupt.receiver());
    let progress = Progress::new(context.output, context.env.stderr_is_terminal);
    let mut sink = |event: &Event| progress.on_event(event);
    let (config, connected) = (&world.config, &world.connected);
    let proofs = proofs::prove(request, config, read, chosen, connected, options, &mut sink).await;
    proofs.map_err(|error| {
        CliError::new(ExitCode::Internal, format!("the proofs do not fit together: {error}"))
    })
}

/// Reads everything of the chosen clusters: what was not chosen still counts, a binding may answer
/// for both. Pods that are ending are waited for.
async fn settled(
    context: &Context,
    args: &MigrateFinish,
    world: &World,
    interrupt: &Interrupt,
) -> Overview {
    let everything = migrate::everything(context, world, &args.select).await;
    let pods = ending(&everything);
    if args.plan || pods.is_empty() {
        return everything;
    }
    context.output.message(&format!("waiting for {} to end ...", counted(pods.len(), "pod")));
    let patience = Patience { at_most: ENDING, look: LOOK, ..Patience::new(interrupt.receiver()) };
    if let Err(failure) = ended(&pods, &world.connected, &patience).await {
        // What they use is kept then, with that reason.
        context.output.note(&failure.to_string());
    }
    migrate::everything(context, world, &args.select).await
}

/// The chosen workloads of a cluster.
fn names(chosen: &Overview, read: &Surveyed) -> BTreeSet<String> {
    let clusters = chosen.clusters.iter().filter(|c| c.survey.cluster == read.survey.cluster);
    clusters.flat_map(|cluster| &cluster.survey.workloads).map(Workload::name).collect()
}

fn exit(here: &[Here<'_>], done: &[Finished]) -> ExitCode {
    if done.iter().any(|finished| finished.interrupted) {
        return ExitCode::Interrupted;
    }
    let failures = done.iter().filter_map(|finished| finished.failure.as_ref());
    let found = failures.map(exit::of_failure);
    let found: Vec<ExitCode> = here.iter().map(Here::proved).chain(found).collect();
    let removed = done.iter().any(|finished| !finished.removed.is_empty());
    exit::of_obstacles(&found, removed)
}

fn parts<'a>(here: &'a [Here<'_>], done: &'a [Finished]) -> Vec<Part<'a>> {
    let each = here.iter().enumerate().map(|(at, here)| Part {
        cluster: here.read.survey.cluster.as_str(),
        proofs: here.proofs.as_ref(),
        what: &here.what,
        done: done.get(at),
    });
    each.collect()
}

/// The report; before anything was done, with the preview.
fn show(
    context: &Context,
    everything: &Overview,
    here: &[Here<'_>],
    done: &[Finished],
    exit: ExitCode,
) {
    let (output, sandbox) = (context.output, everything.sandbox);
    let parts = parts(here, done);
    output.data(&match context.global.output {
        Format::Json => {
            let project = everything.project.as_str();
            removal::json(&parts, Head { command: COMMAND, project, sandbox, exit })
        }
        Format::Text | Format::Markdown | Format::Toml => {
            let before = match done {
                [] => removal::preview(&parts, sandbox, output.out),
                [_, ..] => String::new(),
            };
            before + &removal::report(&parts, sandbox)
        }
    });
}
