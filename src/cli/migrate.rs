//! `migrate`: off AAD Pod Identity.

use super::{
    args::{Format, Select},
    error::CliError,
    interrupt::Interrupt,
    main::Context,
    migrate_apply,
    migrate_args::{Migrate, MigrateSelect},
    migrate_finish, migrate_render, migrate_rollback, migrate_uninstall,
    world::World,
};
use crate::{
    config::glob_matches,
    execute::exit::{self, ExitCode},
    model::ClusterName,
    ops::migrate::{self as ops, Overview, Request, Waived},
    render::migrate::{self as render, Told},
};

pub(super) async fn run(
    context: &Context,
    command: Migrate,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    match command {
        Migrate::Status(select) => show(context, &select, Told::Status, &interrupt).await,
        Migrate::Plan(select) => show(context, &select, Told::Plan, &interrupt).await,
        Migrate::Apply(args) => migrate_apply::run(context, args, interrupt).await,
        Migrate::Rollback(args) => migrate_rollback::run(context, args, interrupt).await,
        Migrate::Finish(args) => migrate_finish::run(context, args, interrupt).await,
        Migrate::Uninstall(args) => migrate_uninstall::run(context, args, interrupt).await,
        Migrate::Render(args) => migrate_render::run(context, args, interrupt).await,
    }
}

async fn show(
    context: &Context,
    select: &MigrateSelect,
    told: Told,
    interrupt: &Interrupt,
) -> Result<ExitCode, CliError> {
    if context.global.output == Format::Toml && told != Told::Plan {
        return Err(CliError::usage("only `migrate plan` writes toml"));
    }
    let world = open(context, select, interrupt).await?;
    let overview = tokio::select! {
        overview = survey(context, &world, select) => Some(overview),
        () = interrupt.asked() => None,
    };
    let exit = match overview {
        Some(Ok(overview)) => {
            let seen = seen(&overview);
            let command = match told {
                Told::Plan => "migrate plan",
                Told::Status | Told::Question => "migrate status",
            };
            let shown = match context.global.output {
                Format::Text => render::text(&overview, told, context.output.out),
                Format::Json => render::json(&overview, command, seen),
                Format::Markdown => render::markdown(&overview),
                Format::Toml => render::workloads_toml(&overview, &world.desired),
            };
            context.output.data(&shown);
            Ok(seen)
        }
        Some(Err(error)) => Err(error),
        None => {
            context.output.message("interrupted while reading: nothing was written");
            Ok(ExitCode::Interrupted)
        }
    };
    world.close_after(exit).await
}

/// What was not seen decides the exit code; workloads that wait for a decision do not.
pub(super) fn seen(overview: &Overview) -> ExitCode {
    exit::of_unseen(overview.unseen())
}

/// The workloads to be migrated need not be in the file, so nothing is chosen from it. Clusters are:
/// of those that were not chosen nothing is read.
pub(super) async fn open(
    context: &Context,
    select: &MigrateSelect,
    interrupt: &Interrupt,
) -> Result<World, CliError> {
    let everything = Select { reach: select.of.reach.clone(), ..Select::default() };
    let mut world = World::open(context, &everything, interrupt).await?;
    let chosen = &select.of.cluster;
    let clusters = &mut world.desired.clusters;
    let unknown =
        chosen.iter().find(|name| !clusters.contains_key(&ClusterName::from(name.as_str())));
    if let Some(name) = unknown {
        let error = CliError::usage(format!("--cluster: the file has no cluster `{name}`"));
        return world.close_after(Err(error)).await;
    }
    clusters.retain(|name, _| chosen.is_empty() || chosen.iter().any(|c| c == name.as_str()));
    Ok(world)
}

/// Every workload that was chosen.
pub(super) async fn survey(
    context: &Context,
    world: &World,
    select: &MigrateSelect,
) -> Result<Overview, CliError> {
    narrow(&select.of, everything(context, world, select).await)
}

/// Keeps what was chosen, which must be something.
pub(super) fn narrow(select: &Select, overview: Overview) -> Result<Overview, CliError> {
    let overview = chosen(select, overview);
    let count = overview.clusters.iter().map(|c| c.survey.workloads.len()).sum::<usize>();
    let narrowed = !select.only.is_empty() || !select.namespace.is_empty();
    if narrowed && count == 0 && overview.unseen().next().is_none() && !overview.is_free() {
        let clusters: Vec<&str> =
            overview.clusters.iter().map(|read| read.survey.cluster.as_str()).collect();
        for pattern in &select.only {
            well_formed("--only", pattern, &clusters)?;
        }
        let chosen = select.only.iter().chain(&select.namespace).map(String::as_str);
        let chosen = chosen.collect::<Vec<_>>().join(", ");
        return Err(CliError::usage(format!("{chosen} is no workload of Pod Identity"))
            .hint("`widentity migrate status` lists the workloads"));
    }
    Ok(overview)
}

/// `NAMESPACE/SERVICE-ACCOUNT[@CLUSTER]`: its parts. Where it is that, its cluster must be one.
pub(super) fn well_formed<'a>(
    option: &str,
    address: &'a str,
    clusters: &[&str],
) -> Result<(&'a str, Option<&'a str>), CliError> {
    let (name, cluster) = match address.split_once('@') {
        Some((name, cluster)) => (name, Some(cluster)),
        None => (address, None),
    };
    if !address.contains(['/', '*']) {
        let form = "NAMESPACE/SERVICE-ACCOUNT[@CLUSTER]";
        return Err(CliError::usage(format!("{option}: `{address}` is no address"))
            .hint(format!("it is {form}; `widentity migrate status` lists the workloads")));
    }
    let unknown = |cluster: &&str| !cluster.contains('*') && !clusters.contains(cluster);
    match cluster.filter(unknown) {
        Some(cluster) => Err(CliError::usage(format!("{option}: there is no cluster `{cluster}`"))
            .hint(format!("it has {}", clusters.join(", ")))),
        None => Ok((name, cluster)),
    }
}

/// Keeps what was chosen, and be it nothing: what a run began with may be gone when it ends.
pub(super) fn chosen(select: &Select, mut overview: Overview) -> Overview {
    let any = |list: &[String], matches: &dyn Fn(&str) -> bool| {
        list.is_empty() || list.iter().any(|text| matches(text))
    };
    overview.retain(|cluster, workload| {
        let name = workload.name();
        let at = format!("{name}@{cluster}");
        any(&select.namespace, &|n| workload.namespace.as_str() == n)
            && any(&select.only, &|p| glob_matches(p, &name) || glob_matches(p, &at))
    });
    if !select.only.is_empty() {
        overview.take_up();
    }
    overview
}

/// What a survey is made of.
pub(super) fn request<'a>(
    context: &Context,
    world: &'a World,
    select: &MigrateSelect,
) -> Request<'a> {
    Request {
        desired: &world.desired,
        sandbox: world.is_sandbox(),
        now: context.env.now(),
        soak: select.soak.unwrap_or(world.soak),
        waived: Waived {
            nodes: select.unassign,
            run: select.allow_unrun,
            kinds: select.allow_unseen_kinds,
        },
        shelf: &world.shelf,
    }
}

/// Every workload of the chosen clusters, chosen or not.
pub(super) async fn everything(
    context: &Context,
    world: &World,
    select: &MigrateSelect,
) -> Overview {
    context.output.note("reading Azure and the clusters ...");
    ops::overview(request(context, world, select), &world.connected).await
}
