//! From the command line to the exit code.

use std::{ffi::OsString, panic, process::ExitCode as ProcessCode, time::Duration};

use clap::{Parser as _, error::ErrorKind};

use super::{
    apply,
    args::{Cli, Command, Global, Sandbox},
    audit,
    carried::Carried,
    completions, doctor,
    env::Environment,
    error::CliError,
    explain, fault, init,
    interrupt::Interrupt,
    logging, migrate,
    migrate_args::Migrate,
    output::{Color, Output},
    plan, sandbox, schema, show, slips, validate, verify,
};
use crate::{
    execute::exit::ExitCode,
    render::{escape, report},
};

/// What every command is given.
pub(super) struct Context {
    /// Options of every command.
    pub(super) global: Global,
    /// The environment.
    pub(super) env: Environment,
    /// The streams.
    pub(super) output: Output,
}

/// The program. It prints everything itself.
pub fn main() -> ProcessCode {
    panic::set_hook(Box::new(internal_error));
    let env = Environment::read();
    ProcessCode::from(run(env, Environment::arguments()).code())
}

/// A panic is a bug of ours: one line, and the process ends before anything else is done.
fn internal_error(info: &panic::PanicHookInfo<'_>) {
    let env = Environment::of([]);
    let output = Output::new(Color::Never, false, &env);
    let message = info.payload_as_str().unwrap_or("no message");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    output.message(&format!(
        "internal error: {} ({place}); this is a bug in widentity, please report it",
        escape::terminal(message)
    ));
    leave(ExitCode::Internal);
}

#[expect(clippy::exit, reason = "a panic in any thread ends the process with its own code")]
fn leave(exit: ExitCode) -> ! {
    std::process::exit(i32::from(exit.code()))
}

fn run(env: Environment, arguments: Vec<OsString>) -> ExitCode {
    // Before the arguments are understood nothing can be known about colour but the environment.
    let plain = Output::new(Color::Auto, false, &env);
    let words: Vec<String> =
        arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    if let Some(answer) = slips::answer(&words) {
        plain.message(&CliError::usage(answer).render(plain.err));
        return ExitCode::Usage;
    }
    let Cli { global, command } = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return parse_error(&error, plain),
    };
    let output = Output::new(global.color, global.quiet, &env);
    logging::start(global.verbose, output.err.coloured);
    let output = output.carrying(Carried::of(&global));
    let context = Context { global, env, output };
    let exit = dispatch(&context, command);
    match exit {
        Ok(exit) => {
            if exit != ExitCode::Done && exit != ExitCode::Changes {
                let words = report::exit_words(exit);
                output.message(&format!("exit {}: {words}", exit.code()));
            }
            exit
        }
        Err(error) => {
            output.message(&error.render(output.err));
            error.exit
        }
    }
}

fn parse_error(error: &clap::Error, output: Output) -> ExitCode {
    let coloured = |on: bool| {
        let text = error.render();
        if on { text.ansi().to_string() } else { text.to_string() }
    };
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        output.data(&coloured(output.out.coloured));
        return ExitCode::Done;
    }
    output.message(&coloured(output.err.coloured));
    ExitCode::Usage
}

fn dispatch(context: &Context, command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Init(args) => init::run(context, &args),
        Command::Validate => validate::run(context),
        Command::Schema { kind } => Ok(schema::run(context, kind)),
        Command::Completions { shell } => Ok(completions::run(context, shell)),
        Command::Sandbox(Sandbox::Reset(args)) => {
            block_on(context, |_| sandbox::reset(context, args))
        }
        Command::Plan(args) => block_on(context, |interrupt| plan::run(context, args, interrupt)),
        Command::Apply(args) => block_on(context, |interrupt| apply::run(context, args, interrupt)),
        Command::Verify(args) => {
            block_on(context, |interrupt| verify::run(context, args, interrupt))
        }
        Command::Doctor(args) => {
            block_on(context, |interrupt| doctor::run(context, args, interrupt))
        }
        Command::Explain(args) if args.with_chain => {
            block_on(context, |interrupt| explain::with_chain(context, args, interrupt))
        }
        Command::Explain(args) => explain::run(context, &args),
        Command::Audit(args) => block_on(context, |interrupt| audit::run(context, args, interrupt)),
        Command::Migrate(args) => {
            let command = args.command.unwrap_or(Migrate::Status(args.select));
            block_on(context, |interrupt| migrate::run(context, command, interrupt))
        }
        Command::Sandbox(Sandbox::Serve(args)) => {
            block_on(context, |interrupt| sandbox::serve(context, args, interrupt))
        }
        Command::Sandbox(Sandbox::Show) => block_on(context, |_| show::run(context)),
        Command::Sandbox(Sandbox::Fault(args)) => block_on(context, |_| fault::run(context, args)),
    }
}

/// Runs a command that talks to the network. Commands that do not never pay for a runtime.
fn block_on<F>(
    context: &Context,
    command: impl FnOnce(Interrupt) -> F,
) -> Result<ExitCode, CliError>
where
    F: Future<Output = Result<ExitCode, CliError>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(async {
        let interrupt = Interrupt::listen(context.output);
        command(interrupt).await
    });
    // A thread that still waits for a prompt's answer must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}
