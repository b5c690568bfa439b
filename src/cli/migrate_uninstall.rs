//! `migrate uninstall`: show, ask, take the installation of Pod Identity away.

use super::{
    args::{Format, Select},
    error::CliError,
    interrupt::Interrupt,
    main::Context,
    migrate_args::MigrateUninstall,
    prompt::{Answer, ask},
    world::World,
};
use crate::{
    execute::exit::{self, ExitCode},
    model::ClusterName,
    ops::migrate::{
        self as ops, Overview, Request, Shelf, Waived,
        uninstall::{self, AzureWishes, Class, End, Event, Pace, Ran, Site, Uninstall, Wishes},
    },
    render::{
        findings::counted,
        head::Head,
        uninstall::{self as render, Shown},
    },
};

pub(super) async fn run(
    context: &Context,
    args: MigrateUninstall,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    if context.global.output == Format::Toml {
        return Err(CliError::usage("migrate uninstall writes text, json or markdown"));
    }
    if !args.yes && !args.plan && !context.env.can_ask() {
        return Err(CliError::usage("there is no terminal to ask on").hint(
            "review with `widentity migrate uninstall --plan`, then `widentity migrate uninstall \
             --yes`",
        ));
    }
    let select = Select { reach: args.reach.clone(), ..Select::default() };
    let world = World::open(context, &select, &interrupt).await?;
    let result = in_world(context, &args, &world, &interrupt).await;
    world.close_after(result).await
}

/// Everything that was read, or nothing where somebody interrupted.
async fn overview(
    context: &Context,
    args: &MigrateUninstall,
    world: &World,
    interrupt: &Interrupt,
) -> Result<Option<Overview>, CliError> {
    for name in &args.cluster {
        if !world.desired.clusters.keys().any(|known| known.as_str() == name) {
            return Err(CliError::usage(format!("--cluster: the file has no cluster `{name}`")));
        }
    }
    context.output.note("reading Azure and the clusters ...");
    let request = Request {
        desired: &world.desired,
        sandbox: world.is_sandbox(),
        now: context.env.now(),
        soak: world.soak,
        waived: Waived { kinds: args.allow_unseen_kinds, ..Waived::default() },
        shelf: &world.shelf,
    };
    tokio::select! {
        overview = ops::overview(request, &world.connected) => Ok(Some(overview)),
        () = interrupt.asked() => {
            context.output.message("interrupted while reading: nothing was written");
            Ok(None)
        }
    }
}

async fn in_world(
    context: &Context,
    args: &MigrateUninstall,
    world: &World,
    interrupt: &Interrupt,
) -> Result<ExitCode, CliError> {
    let Some(overview) = overview(context, args, world, interrupt).await? else {
        return Ok(ExitCode::Interrupted);
    };
    let wishes = Wishes {
        open_metadata: args.allow_open_metadata,
        disable_add_on: args.disable_add_on,
        azure: AzureWishes {
            roles: args.remove_roles,
            node_identities: args.remove_node_identities,
        },
    };
    let asked = &args.cluster;
    let chosen = |name: &ClusterName| asked.is_empty() || asked.iter().any(|c| c == name.as_str());
    let connected = &world.connected;
    let mut sites = uninstall::sites(&world.desired, &overview, connected, chosen).await;
    if !args.plan {
        uninstall::confirm(&mut sites, &world.desired, &world.connected).await;
    }
    let decided: Vec<(Site<'_>, Uninstall)> = sites
        .into_iter()
        .map(|site| {
            let what = site.decide(wishes);
            (site, what)
        })
        .collect();
    let none: Vec<Option<Ran>> = vec![None; decided.len()];
    let due = |what: &Uninstall| what.obstacles.is_empty() && !what.steps.is_empty();
    let any = decided.iter().any(|(_, what)| due(what));
    if args.plan || !any {
        let exit = exit(&decided, &none);
        report(context, &overview, &shown(&decided, &none), exit);
        return Ok(exit);
    }
    let output = context.output;
    let preview = |palette| render::preview(&shown(&decided, &none), overview.sandbox, palette);
    match context.global.output {
        Format::Text => output.data(&preview(output.out)),
        // Standard output is the report alone; who is asked sees the plan elsewhere.
        Format::Json | Format::Markdown | Format::Toml if !args.yes => {
            output.message(&preview(output.err));
        }
        Format::Json | Format::Markdown | Format::Toml => {}
    }
    if !args.yes {
        let here = decided.iter().filter(|(_, what)| due(what));
        let steps: usize = here.clone().map(|(_, what)| what.steps.len()).sum();
        let names: Vec<&str> = here.map(|(site, _)| site.read.survey.cluster.as_str()).collect();
        let question = format!(
            "Do {} in {}? It cannot be undone by widentity. Only `yes` is accepted: ",
            counted(steps, "step"),
            names.join(", ")
        );
        if let Answer::End(exit) = ask(context, &question, "nothing was done", interrupt).await? {
            return Ok(exit);
        }
    }
    let mut ran = Vec::new();
    for (site, what) in &decided {
        if !due(what) {
            ran.push(None);
            continue;
        }
        let text = context.global.output == Format::Text;
        let mut sink = |event: Event<'_>| match event {
            Event::Waiting(step) => output.note(&format!("{} ...", render::step(step))),
            Event::Done(step) if text => output.data(&format!("{}\n", render::done(step))),
            Event::Done(step) => output.note(&render::done(step)),
        };
        let (pace, asked) = (Pace::default(), interrupt.receiver());
        let with = (connected, &world.shelf as &dyn Shelf);
        let one = uninstall::run(site, what, with, pace, &asked, &mut sink).await;
        ran.push(Some(one));
    }
    let shown = shown(&decided, &ran);
    let exit = exit(&decided, &ran);
    if context.global.output == Format::Text {
        for stopped in shown.iter().flat_map(|shown| render::stopped(*shown)) {
            output.data(&format!("{stopped}\n"));
        }
        output.data(&render::ending(&shown, overview.sandbox));
    } else {
        report(context, &overview, &shown, exit);
    }
    Ok(exit)
}

fn shown<'a>(decided: &'a [(Site<'_>, Uninstall)], ran: &'a [Option<Ran>]) -> Vec<Shown<'a>> {
    let each = decided.iter().zip(ran).map(|((site, what), ran)| Shown {
        cluster: site.read.survey.cluster.as_str(),
        what,
        ran: ran.as_ref(),
    });
    each.collect()
}

fn report(context: &Context, overview: &Overview, shown: &[Shown<'_>], exit: ExitCode) {
    let (project, sandbox) = (overview.project.as_str(), overview.sandbox);
    let text = match context.global.output {
        Format::Json => {
            render::json(Head { command: "migrate uninstall", project, sandbox, exit }, shown)
        }
        Format::Markdown => render::markdown(project, sandbox, shown),
        Format::Text | Format::Toml => {
            let preview = render::preview(shown, sandbox, context.output.out);
            preview + &render::ending(shown, sandbox)
        }
    };
    context.output.data(&text);
}

fn exit(decided: &[(Site<'_>, Uninstall)], ran: &[Option<Ran>]) -> ExitCode {
    let mut found = Vec::new();
    let obstacles = decided.iter().flat_map(|(_, what)| &what.obstacles);
    let incomplete = decided.iter().filter_map(|(_, what)| what.incomplete);
    for class in obstacles.map(|obstacle| obstacle.class).chain(incomplete) {
        found.push(match class {
            Class::Refused => ExitCode::Refused,
            Class::Denied => ExitCode::Denied,
            Class::Unseen | Class::Blocked => ExitCode::Failed,
        });
    }
    for one in ran.iter().flatten() {
        found.extend(one.failed.iter().map(|(_, failure)| exit::of_failure(failure)));
        found.push(match &one.end {
            End::Complete => continue,
            End::Interrupted => return ExitCode::Interrupted,
            End::HandedOver => ExitCode::Failed,
            End::Failed(failure) => exit::of_failure(failure),
        });
    }
    let written = ran.iter().flatten().any(|one| one.written > 0);
    exit::of_obstacles(&found, written)
}
