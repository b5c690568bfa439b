//! `migrate rollback WORKLOAD`.

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
    execute::exit::ExitCode,
    model::pod_identity::Backup,
    ops::migrate::{Overview, PutBack, Surveyed, rollback},
    render::{
        escape,
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
    // Its templates may be gone, and with them the workload: what is chosen is its backup.
    let overview = migrate::everything(context, world, &args.select).await;
    let asked = &args.select.of.cluster;
    let found: Vec<_> = overview
        .clusters
        .iter()
        .filter(|read| asked.is_empty() || asked.iter().any(|c| c == read.survey.cluster.as_str()))
        .flat_map(|read| read.estate.backups.iter().map(move |backup| (read, backup)))
        .filter(|(_, b)| format!("{}/{}", b.namespace, b.account) == args.workload)
        .collect();
    let name = escape::terminal(&args.workload).into_owned();
    let (read, backup) = match found.as_slice() {
        [one] => *one,
        [] => {
            let exit = migrate::seen(&overview);
            let exit = if exit == ExitCode::Done { ExitCode::Failed } else { exit };
            return Err(CliError::new(exit, format!("there is no backup of {name}"))
                .hint("`widentity migrate status` lists the workloads"));
        }
        _ => return Err(CliError::usage(format!("{name} is in several clusters: --cluster"))),
    };
    if backup.rolled_back {
        context.output.note(&format!("{name} was put back already"));
        show(context, &overview, read, backup, &PutBack::Done);
        return Ok(ExitCode::Done);
    }
    if !args.yes {
        let question = format!("Put {name} back to Pod Identity? Only `yes` is accepted: ");
        if let Answer::End(exit) = ask(context, &question, "", interrupt).await? {
            return Ok(exit);
        }
    }
    let request = migrate::request(context, world, &args.select);
    let how = rollback::undo(read, backup, request, &world.connected).await;
    show(context, &overview, read, backup, &how);
    match how {
        PutBack::Done => Ok(ExitCode::Done),
        PutBack::Hindered(_) => Ok(ExitCode::Stale),
        PutBack::Failed(failure) => Err(CliError::remote(&failure)),
    }
}

fn show(context: &Context, overview: &Overview, read: &Surveyed, backup: &Backup, how: &PutBack) {
    let left = rollback::left(&read.estate, backup);
    let doubt = rollback::doubts(&read.estate);
    let shown = Rollback {
        workload: &format!("{}/{}", backup.namespace, backup.account),
        how,
        left: &left,
        doubt: doubt.as_deref(),
    };
    context.output.data(&match context.global.output {
        Format::Json => render::rollback_json(shown, overview.sandbox),
        Format::Text | Format::Markdown | Format::Toml => render::rollback(shown),
    });
}
