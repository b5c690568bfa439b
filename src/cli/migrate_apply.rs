//! `migrate apply`: survey, ask, move, prove, put back what failed, report.

use serde_json::{Value, json};

use super::{
    args::Format,
    error::CliError,
    interrupt::Interrupt,
    main::Context,
    migrate,
    migrate_args::MigrateApply,
    progress::Progress,
    prompt::{Answer, ask},
    world::World,
};
use crate::{
    execute::{
        Event, RunOptions,
        exit::{self, ExitCode},
    },
    model::Address,
    ops::migrate::{self as ops, Move, MoveError, Moved, OldLabel, Overview},
    render::{
        escape,
        findings::{self, counted},
        head::Head,
        json as documents,
        migrate::{self as render, Told},
        report::{self, Of},
        report_json,
    },
};

const COMMAND: &str = "migrate apply";

pub(super) async fn run(
    context: &Context,
    args: MigrateApply,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    if matches!(context.global.output, Format::Markdown | Format::Toml) {
        return Err(CliError::usage("migrate apply writes text or json"));
    }
    if !args.yes && !context.env.can_ask() {
        return Err(CliError::usage("there is no terminal to ask on")
            .hint("review with `widentity migrate plan`, then `widentity migrate apply --yes`"));
    }
    let reading = interrupt.within(args.timeout);
    let world = migrate::open(context, &args.select, &reading).await?;
    let result = in_world(context, &args, &world, (&reading, &interrupt)).await;
    world.close_after(result).await
}

async fn in_world(
    context: &Context,
    args: &MigrateApply,
    world: &World,
    (reading, interrupt): (&Interrupt, &Interrupt),
) -> Result<ExitCode, CliError> {
    let output = context.output;
    let before = tokio::select! {
        before = migrate::survey(context, world, &args.select) => before?,
        () = reading.asked() => {
            output.message(&format!("{} while reading: nothing was written", reading.word()));
            return Ok(reading.exit());
        }
    };
    let now = context.env.now();
    let old = if args.keep_old { OldLabel::Keep } else { OldLabel::Drop };
    let (desired, connected) = (&world.desired, &world.connected);
    let moves = ops::apply::moves(desired, &before, connected, &world.config, now, old).await;
    // A person may think as long as they like.
    let timeout = reading.left();
    let due: usize = moves.iter().map(|one| one.desired.workloads.len()).sum();
    let is_text = context.global.output == Format::Text;
    if due == 0 {
        let mut exit = left(args, &before, false);
        if exit == ExitCode::Done && before.is_busy() {
            exit = ExitCode::Failed;
        }
        output.data(&if is_text {
            render::text(&before, Told::Plan, output.out)
        } else {
            render::json(&before, COMMAND, exit)
        });
        if before.is_busy() {
            output.message(
                "nothing was done: an operation on the cluster is under way; run again when it \
                 has ended",
            );
        }
        return Ok(exit);
    }
    if is_text {
        output.data(&render::text(&before, Told::Question, output.out));
        for risks in moves.iter().filter_map(|one| findings::risks(&one.planned.report)) {
            output.data(&format!("\n{}", risks.text(output.out)));
        }
    }
    if !args.yes {
        let count = counted(due, "workload");
        let question =
            format!("\n{}Migrate {count}? Only `yes` is accepted: ", whole_clusters(&moves));
        if let Answer::End(exit) = ask(context, &question, "not migrated", interrupt).await? {
            return Ok(exit);
        }
    }
    let mut moved = Vec::new();
    let mut failure = None;
    for one in moves {
        let options = RunOptions {
            timeout,
            rollout_deadline: args.rollout_timeout,
            ..RunOptions::new(now, interrupt.receiver())
        };
        let progress = Progress::new(output, context.env.stderr_is_terminal);
        let mut sink = |event: &Event| progress.on_event(event);
        let request = migrate::request(context, world, &args.select);
        let connected = &world.connected;
        let done = ops::apply::apply(&one, &before, request, connected, options, &mut sink).await;
        drop(progress);
        // The first failure stops the other clusters, too.
        match done {
            Ok(done) => {
                let exit = exit::of_apply(&one.planned.report, &done.report);
                moved.push((one, done, exit));
                if exit != ExitCode::Done {
                    break;
                }
            }
            Err(error) => {
                failure = Some(broken(&error, &one));
                break;
            }
        }
    }
    let written = moved.iter().any(|(_, done, _)| done.report.written);
    let after = migrate::everything(context, world, &args.select).await;
    let after = migrate::chosen(&args.select.of, after);
    let mut found: Vec<ExitCode> = moved.iter().map(|(_, _, exit)| *exit).collect();
    found.extend(failure.iter().map(|failure| failure.exit));
    let mut exit = exit::of_runs(&found, written);
    if exit == ExitCode::Done {
        exit = left(args, &after, written);
    }
    show(context, &moved, &after, exit);
    failure.map_or(Ok(exit), |failure| Err(failure.with_exit(exit)))
}

/// What happens to whole clusters, such as what cannot be undone: it must be read right above the
/// question, however many risks of single workloads there are.
fn whole_clusters(moves: &[Move]) -> String {
    let risks = moves.iter().flat_map(|one| &one.planned.report.risks);
    let whole = risks.filter(|risk| matches!(risk.address, Address::Cluster(_)));
    let lines: Vec<_> =
        whole.map(|risk| format!("It {}.\n", escape::terminal(&risk.message))).collect();
    lines.concat()
}

/// The exit code where nothing failed. What is not ready is the normal state of an estate on its
/// way; but somebody who names a workload wants it moved.
fn left(args: &MigrateApply, overview: &Overview, written: bool) -> ExitCode {
    let unready = overview.not_ready();
    let mut found = vec![migrate::seen(overview)];
    if !args.select.of.only.is_empty() && unready > 0 {
        found.push(ExitCode::Failed);
    }
    exit::of_obstacles(&found, written)
}

fn show(context: &Context, moved: &[(Move, Moved, ExitCode)], after: &Overview, exit: ExitCode) {
    let output = context.output;
    if context.global.output == Format::Json {
        let clusters = moved.iter().map(|(one, done, exit)| {
            let report = report_json::report("migrate", &one.planned, &done.report, *exit);
            json!({
                "report": report,
                "put_back": done.put_back.iter().map(|(name, how)| {
                    json!({"workload": name, "how": render::put_back(how)})
                }).collect::<Vec<Value>>(),
            })
        });
        let (project, sandbox) = (after.project.as_str(), after.sandbox);
        let head = Head { command: COMMAND, project, sandbox, exit };
        let document = json!({
            "clusters": clusters.collect::<Vec<Value>>(),
            "status": render::document(after, "migrate status", migrate::seen(after)),
        });
        output.data(&documents::to_text(&head.over(render::last_line(after), document)));
        return;
    }
    for (one, done, exit) in moved {
        let report = report::apply(Of::Migrate, &one.planned, &done.report, *exit, output.out);
        output.data(&report);
        for (name, how) in &done.put_back {
            output.data(&format!(
                "Put back {}: {}\n",
                escape::terminal(name),
                render::put_back(how)
            ));
        }
    }
    output.data(&render::text(after, Told::Status, output.out));
}

fn broken(error: &MoveError, one: &Move) -> CliError {
    let clusters: Vec<_> = one.desired.clusters.keys().map(ToString::to_string).collect();
    match error {
        MoveError::Backup(failure) | MoveError::Connect(failure) => {
            let hint = format!("no workload of cluster {} was changed", clusters.join(", "));
            CliError::remote(failure).hint(&hint)
        }
        MoveError::Plan(_) => CliError::new(ExitCode::Internal, error.to_string())
            .hint("nothing was begun; this is a bug in widentity, please report it"),
    }
}
