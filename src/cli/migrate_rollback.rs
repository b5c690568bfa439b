//! `migrate rollback WORKLOAD`.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    args::Format,
    error::CliError,
    interrupt::Interrupt,
    main::Context,
    migrate,
    migrate_args::MigrateRollback,
    prompt::{Answer, ask},
    world::World,
};
use crate::{
    execute::exit::{self, ExitCode},
    model::ClusterName,
    ops::migrate::{
        Overview, Patience, PutBack, Surveyed,
        rollback::{self, Putting},
    },
    render::{
        escape,
        head::Head,
        removal::{self as render, Rollback},
    },
};

pub(super) async fn run(
    context: &Context,
    args: MigrateRollback,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    if matches!(context.global.output, Format::Markdown | Format::Toml) {
        return Err(CliError::usage("migrate rollback writes text or json"));
    }
    if !args.yes && !context.env.can_ask() {
        return Err(CliError::usage("there is no terminal to ask on").hint("add --yes"));
    }
    let world = migrate::open(context, &args.select, &interrupt).await?;
    let result = in_world(context, &args, &world, &interrupt).await;
    world.close_after(result).await
}

async fn in_world(
    context: &Context,
    args: &MigrateRollback,
    world: &World,
    interrupt: &Interrupt,
) -> Result<ExitCode, CliError> {
    let clusters: Vec<&str> = world.desired.clusters.keys().map(ClusterName::as_str).collect();
    let (asked, cluster) = migrate::well_formed("rollback", &args.workload, &clusters)?;
    // Its templates may be gone, and with them the workload: what is chosen is its backup.
    let overview = migrate::everything(context, world, &args.select).await;
    let here = |read: &&Surveyed| cluster.is_none_or(|name| name == read.survey.cluster.as_str());
    let found: Vec<_> = overview
        .clusters
        .iter()
        .filter(here)
        .flat_map(|read| read.estate.backups.iter().map(move |backup| (read, backup)))
        .filter(|(_, backup)| backup.name() == asked)
        .collect();
    let name = escape::terminal(asked).into_owned();
    let (read, backup) = match found.as_slice() {
        [one] => *one,
        [] => return Err(nothing(&overview, here, asked)),
        _ => {
            return Err(CliError::usage(format!("{name} is in several clusters"))
                .hint(format!("name one: {name}@CLUSTER")));
        }
    };
    if !args.yes {
        let question = format!("Put {name} back to Pod Identity? Only `yes` is accepted: ");
        if let Answer::End(exit) = ask(context, &question, "", interrupt).await? {
            return Ok(exit);
        }
    }
    let request = migrate::request(context, world, &args.select);
    let last = Mutex::new(String::new());
    let notes = |what: &str| {
        // Said once, however often it is looked at.
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != what {
            context.output.note(&format!("waiting: {}", escape::terminal(what)));
            what.clone_into(&mut last);
        }
    };
    let patience = Patience {
        at_most: args.rollout_timeout,
        look: Duration::from_secs(1),
        ..Patience::new(interrupt.receiver())
    };
    let project = &world.desired.project;
    let with =
        Putting { project, served: args.nmi_runs, blameless: false, patience, notes: &notes };
    let how = rollback::undo(read, backup, request, &world.connected, &with).await;
    let exit = match &how {
        PutBack::Done | PutBack::Kept(_) => ExitCode::Done,
        PutBack::Late(_) if *interrupt.receiver().borrow() => ExitCode::Interrupted,
        PutBack::Late(_) => ExitCode::NotProved,
        PutBack::Partly(_) => ExitCode::Partial,
        PutBack::Hindered(_) => ExitCode::Stale,
        PutBack::Failed(failure) => exit::of_failure(failure),
    };
    let left = rollback::left(&read.estate, backup);
    let shown = Rollback { workload: &backup.name(), how: &how, left: &left };
    let (project, sandbox) = (overview.project.as_str(), overview.sandbox);
    let head = Head { command: "migrate rollback", project, sandbox, exit };
    context.output.data(&match context.global.output {
        Format::Json => render::rollback_json(shown, head),
        Format::Text | Format::Markdown | Format::Toml => render::rollback(shown),
    });
    match &how {
        PutBack::Failed(failure) => Err(CliError::remote(failure)),
        PutBack::Done
        | PutBack::Kept(_)
        | PutBack::Late(_)
        | PutBack::Partly(_)
        | PutBack::Hindered(_) => Ok(exit),
    }
}

/// Why there is nothing to put back: it cannot be known, there is no such workload, or nothing of
/// it was changed.
fn nothing(overview: &Overview, here: impl Fn(&&Surveyed) -> bool, name: &str) -> CliError {
    let unseen: Vec<String> = overview.unseen().map(ToString::to_string).collect();
    if let Some(first) = unseen.first() {
        let what = format!("whether {name} was ever switched cannot be seen: {first}");
        return CliError::new(migrate::seen(overview), what)
            .hint("`widentity migrate status` shows everything that is not seen");
    }
    if overview.is_free() {
        return CliError::failed(format!("there is no AAD Pod Identity, and no backup of {name}"));
    }
    let mut all = overview.clusters.iter().filter(here).flat_map(|read| &read.survey.workloads);
    if all.any(|workload| workload.name() == name) {
        CliError::failed(format!("{name} was never switched: there is nothing to put back"))
            .hint("`widentity migrate status` says where it stands")
    } else {
        CliError::usage(format!(
            "there is no workload {name} of Pod Identity, and no backup of one"
        ))
        .hint("`widentity migrate status` lists the workloads")
    }
}
