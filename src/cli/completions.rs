//! `completions`.

use clap::CommandFactory as _;

use super::{args::Cli, main::Context};
use crate::execute::exit::ExitCode;

pub(super) fn run(context: &Context, shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "widentity", &mut script);
    context.output.verbatim(&String::from_utf8_lossy(&script));
    ExitCode::Done
}
