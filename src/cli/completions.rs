//! `completions`.

use clap::CommandFactory as _;

use super::{args::Cli, error::CliError, main::Context};
use crate::execute::exit::ExitCode;

pub(super) fn run(context: &Context, shell: clap_complete::Shell) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "widentity", &mut script);
    context.output.data(&String::from_utf8_lossy(&script));
    Ok(ExitCode::Done)
}
