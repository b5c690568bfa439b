//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use super::output::Color;

/// AKS workload identity you declare, review, apply and prove.
#[derive(Debug, Parser)]
#[command(
    name = "widentity",
    version,
    max_term_width = 100,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 changes (plan --detailed-exitcode), 3 applied in \
                  part, 4 stale, 5 refused, 6 denied or not seen, 7 not proved, 8 interrupted, \
                  9 timeout, 64 usage, 70 internal error"
)]
pub(super) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(super) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// The configuration file
    #[arg(short, long, global = true, value_name = "FILE", default_value = "workloads.toml")]
    pub(super) config: PathBuf,
    /// Act on the embedded sandbox: emulated Azure, Entra and clusters on loopback
    #[arg(long, global = true)]
    pub(super) sandbox: bool,
    /// Keep the sandbox's world in FILE instead of `.widentity/sandbox.json` beside the config
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) sandbox_state: Option<PathBuf>,
    /// When to colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(super) color: Color,
    /// The format of what is written to standard output
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(super) output: Format,
    /// Say less on standard error
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// Log more on standard error: -v, -vv, -vvv
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

/// Formats of standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For pull requests (plan).
    Markdown,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a starting configuration; with --sandbox one that the sandbox can run
    Init(Init),
    /// Check the configuration offline: every problem at once, with its line
    Validate,
    /// Read, compare, show what apply would do
    Plan(Plan),
    /// Plan, ask, do, prove and report
    Apply(Apply),
    /// Prove each workload: its token is exchanged for its identity's
    Verify(Verify),
    /// The embedded Azure, Entra and clusters
    #[command(subcommand)]
    Sandbox(Sandbox),
    /// Print a JSON Schema
    Schema {
        /// Of what
        kind: SchemaKind,
    },
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// `init`.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// Overwrite the file if it exists
    #[arg(long)]
    pub(super) force: bool,
}

/// Which workloads, and how their world is reached.
#[derive(Debug, Default, Args)]
pub(super) struct Select {
    /// Only workloads whose address matches, for example `payments/*` (repeatable)
    #[arg(long, value_name = "ADDRESS-GLOB")]
    pub(super) only: Vec<String>,
    /// Only workloads of this namespace (repeatable)
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(super) namespace: Vec<String>,
    /// Only this cluster of the file (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: Vec<String>,
    /// Reach a cluster of the file by this kubeconfig context (repeatable)
    #[arg(long, value_name = "NAME=CONTEXT", value_parser = pair)]
    pub(super) context: Vec<(String, String)>,
    /// Use this credential and no other
    #[arg(long, value_name = "KIND")]
    pub(super) auth: Option<Auth>,
}

/// Kinds of credentials, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Auth {
    /// `AZURE_*` or `ARM_*` variables: a client secret.
    Environment,
    /// The OIDC token of a GitHub Actions job.
    GithubActions,
    /// The OIDC token of an Azure Pipelines job.
    AzurePipelines,
    /// The federated token of the pod this runs in.
    WorkloadIdentity,
    /// `az login`.
    AzureCli,
    /// The managed identity of the machine this runs on.
    ManagedIdentity,
}

/// `plan`.
#[derive(Debug, Args)]
pub(super) struct Plan {
    /// Which workloads.
    #[command(flatten)]
    pub(super) select: Select,
    /// Write a plan file for `apply PLANFILE`; not where something could not be seen
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Write the plan as JSON to FILE, whatever goes to standard output
    #[arg(long, value_name = "FILE")]
    pub(super) json_out: Option<PathBuf>,
    /// Exit 2 where there are changes
    #[arg(long)]
    pub(super) detailed_exitcode: bool,
}

/// `apply`.
#[derive(Debug, Args)]
pub(super) struct Apply {
    /// Which workloads.
    #[command(flatten)]
    pub(super) select: Select,
    /// A plan file of `plan --out`: do what it says or less, without asking
    #[arg(value_name = "PLANFILE", conflicts_with_all = ["approved", "expect_digest"])]
    pub(super) plan: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Do exactly the plan with this digest, without asking
    #[arg(long, value_name = "DIGEST")]
    pub(super) expect_digest: Option<String>,
    /// Do what this plan JSON says or less, without asking
    #[arg(long, value_name = "FILE")]
    pub(super) approved: Option<PathBuf>,
    /// Begin nothing new after this long, for example 30m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) timeout: Option<std::time::Duration>,
    /// Write every event as a JSON line to FILE
    #[arg(long, value_name = "FILE")]
    pub(super) journal: Option<PathBuf>,
    /// Leave the pods alone; report what waits for a rollout
    #[arg(long)]
    pub(super) no_rollout: bool,
    /// Write the report as JSON to FILE, whatever goes to standard output
    #[arg(long, value_name = "FILE")]
    pub(super) json_out: Option<PathBuf>,
}

/// `verify`.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Which workloads.
    #[command(flatten)]
    pub(super) select: Select,
    /// Give up after this long, for example 10m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) timeout: Option<std::time::Duration>,
}

/// `sandbox`.
#[derive(Debug, Subcommand)]
pub(super) enum Sandbox {
    /// Serve the sandbox until Ctrl-C; other runs with --sandbox attach to it
    Serve(Serve),
    /// Forget the sandbox's world
    Reset,
    /// Show what the sandbox's world is
    Show,
}

/// `sandbox serve`.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Write endpoints and credentials as JSON to FILE when it is up
    #[arg(long, value_name = "FILE")]
    pub(super) ready_file: Option<PathBuf>,
    /// Put a real API server behind a cluster (repeatable)
    #[arg(long, value_name = "NAME=KUBECONFIG", value_parser = pair)]
    pub(super) cluster: Vec<(String, String)>,
}

/// Documents that have a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SchemaKind {
    /// The configuration file.
    Workloads,
    /// The plan as JSON.
    Plan,
    /// The report of apply and verify as JSON.
    Report,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let parsed: SignedDuration =
        text.parse().map_err(|_| "expected a duration such as 90s, 30m or 1h30m".to_owned())?;
    std::time::Duration::try_from(parsed).map_err(|_| "a duration cannot be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_and_pairs() {
        assert_eq!(duration("30m"), Ok(std::time::Duration::from_mins(30)));
        assert!(duration("-1s").is_err() && duration("soon").is_err());
        assert_eq!(pair("prod=/tmp/k"), Ok(("prod".to_owned(), "/tmp/k".to_owned())));
        assert!(pair("prod").is_err() && pair("=x").is_err());
    }
}
