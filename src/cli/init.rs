//! `init`: a starting configuration.

use std::{fs::OpenOptions, io::Write as _};

use super::{args::Init, error::CliError, main::Context};
use crate::{config, execute::exit::ExitCode};

/// A configuration with blanks to fill in.
const STARTING: &str = include_str!("starting.toml");
/// A configuration that the sandbox can run as it is.
const SAMPLE: &str = config::sample::WORKLOADS;

pub(super) fn run(context: &Context, args: &Init) -> Result<ExitCode, CliError> {
    let path = &context.global.config;
    let (text, next) = if context.global.sandbox {
        (SAMPLE, "widentity --sandbox apply")
    } else {
        (STARTING, "widentity validate")
    };
    let mut options = OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        let failed = CliError::failed(format!("cannot write {}: {error}", path.display()));
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            failed.hint("name another file with -c, or overwrite it with --force")
        } else {
            failed
        }
    })?;
    context.output.note(&format!("wrote {}; next: {next}", path.display()));
    Ok(ExitCode::Done)
}
