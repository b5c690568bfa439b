//! `migrate render DIR`: the manifests that Git holds.

use std::path::Path;

use super::{
    args::Format, error::CliError, files, interrupt::Interrupt, main::Context, migrate,
    migrate_args::MigrateRender, world::World,
};
use crate::{
    execute::exit::ExitCode,
    ops::migrate::render as ops,
    render::{
        head::Head,
        manifests::{self as render, Shown},
        migrate::FREE,
    },
};

pub(super) async fn run(
    context: &Context,
    args: MigrateRender,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    if context.global.output == Format::Toml {
        return Err(CliError::usage("migrate render writes text, json or markdown"));
    }
    if !args.directory.is_dir() {
        let path = args.directory.display();
        return Err(CliError::usage(format!("{path} is not a directory"))
            .hint("name the directory that holds the manifests"));
    }
    let world = migrate::open(context, &args.select, &interrupt).await?;
    let result = tokio::select! {
        result = in_world(context, &args, &world) => result,
        () = interrupt.asked() => {
            context.output.message("interrupted while reading: nothing was written");
            Ok(ExitCode::Interrupted)
        }
    };
    world.close_after(result).await
}

async fn in_world(
    context: &Context,
    args: &MigrateRender,
    world: &World,
) -> Result<ExitCode, CliError> {
    let overview = migrate::survey(context, world, &args.select).await?;
    let seen = migrate::seen(&overview);
    if seen != ExitCode::Done {
        let failures: Vec<String> = overview.unseen().map(ToString::to_string).collect();
        return Err(CliError::new(
            seen,
            format!("nothing is written while something cannot be seen: {}", failures.join("; ")),
        ));
    }
    if overview.is_free() && context.global.output == Format::Text {
        context.output.data(&format!("{FREE}\n"));
        return Ok(ExitCode::Done);
    }
    let rendering = ops::render(&world.desired, &overview, &args.directory);
    let rendering = rendering.map_err(|error| CliError::failed(error.to_string()))?;
    let written = !args.diff;
    if written {
        for changed in &rendering.files {
            files::write(Path::new(&changed.path), &changed.after)?;
        }
    }
    let exit = if !rendering.is_stuck() {
        ExitCode::Done
    } else if written && !rendering.files.is_empty() {
        ExitCode::Partial
    } else {
        ExitCode::Failed
    };
    let (project, sandbox) = (overview.project.as_str(), world.is_sandbox());
    let shown = Shown { sandbox, written };
    let head = Head { command: "migrate render", project, sandbox, exit };
    let text = match context.global.output {
        Format::Json => render::json(&rendering, shown, head),
        Format::Markdown => render::markdown(&rendering, shown),
        Format::Text | Format::Toml => render::text(&rendering, shown, context.output.out),
    };
    context.output.data(&text);
    Ok(exit)
}
