//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use super::{migrate_args::MigrateArgs, output::Color};

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
    /// For pull requests (plan, migrate status, plan, render and uninstall).
    Markdown,
    /// As configuration (migrate plan).
    Toml,
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
    /// Why a pod cannot authenticate: the chain in order, the first broken link, the fix
    Doctor(Doctor),
    /// Explain an AADSTS code, a message, a log on standard input, or a code of widentity
    Explain(Explain),
    /// What is stale, orphaned, duplicate, too wide or too shared
    Audit(Audit),
    /// Leave AAD Pod Identity, one workload at a time
    Migrate(MigrateArgs),
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
#[derive(Debug, Default, Clone, Args)]
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
    /// How their world is reached.
    #[command(flatten)]
    pub(super) reach: Reach,
}

/// How the world is reached.
#[derive(Debug, Default, Clone, Args)]
pub(super) struct Reach {
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
#[command(
    after_help = "A proof by token shows issuer, keys, subject, audience, identity and credential \
                  without touching a pod. A proof by job shows the webhook and the cluster's way \
                  to Entra as well. Neither shows what the application's SDK does."
)]
pub(super) struct Verify {
    /// Which workloads.
    #[command(flatten)]
    pub(super) select: Select,
    /// What makes the exchange
    #[arg(long, value_name = "METHOD", default_value = "token")]
    pub(super) method: VerifyMethod,
    /// With --method job: what the pod runs; it needs sh, curl, sed and base64 (default:
    /// docker.io/curlimages/curl)
    #[arg(long, value_name = "IMAGE")]
    pub(super) image: Option<String>,
    /// Entra must answer the same for this long; 0s takes the first answer. By default as long as
    /// it was seen to refuse, if it was
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) window: Option<std::time::Duration>,
    /// Give up after this long, for example 10m; with --watch each round
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) timeout: Option<std::time::Duration>,
    /// Prove again and again until Ctrl-C, and print what changes
    #[arg(long)]
    pub(super) watch: bool,
    /// With --watch: how long from one round to the next (default: 1m)
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "watch")]
    pub(super) interval: Option<std::time::Duration>,
}

/// What makes the exchange of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum VerifyMethod {
    /// A token that is requested for the account.
    Token,
    /// A pod that runs as the account; it is removed again.
    Job,
}

/// `doctor`.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// A service account, controller or pod, for example deploy/payments-api; without one every
    /// workload of the file
    #[arg(value_name = "KIND/NAME")]
    pub(super) object: Option<String>,
    /// Only workloads whose address matches, for example `payments/*` (repeatable)
    #[arg(long, value_name = "ADDRESS-GLOB", conflicts_with = "object")]
    pub(super) only: Vec<String>,
    /// The namespace of the object, or of the workloads (repeatable)
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(super) namespace: Vec<String>,
    /// Only this cluster of the file (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: Vec<String>,
    /// Reach the cluster by this kubeconfig context; with a file NAME=CONTEXT (repeatable)
    #[arg(long, value_name = "CONTEXT")]
    pub(super) context: Vec<String>,
    /// The kubeconfig, where there is no configuration file
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// The cluster's ARM id, where there is no configuration file and no node leads to it
    #[arg(long, value_name = "ID")]
    pub(super) cluster_id: Option<String>,
    /// The id of the resource that the workload needs, where there is no configuration file
    #[arg(long, value_name = "ID")]
    pub(super) target: Option<String>,
    /// The role it needs there; any that opens data if left out
    #[arg(long, value_name = "NAME", requires = "target")]
    pub(super) role: Option<String>,
    /// Leave token and exchange out
    #[arg(long)]
    pub(super) no_token: bool,
    /// Use this credential and no other
    #[arg(long, value_name = "KIND")]
    pub(super) auth: Option<Auth>,
}

/// `explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A code, a message in quotes, or `-` for a log on standard input (the default in a pipe)
    #[arg(value_name = "CODE")]
    pub(super) text: Vec<String>,
    /// Look at the chains of the configuration file, too
    #[arg(long)]
    pub(super) with_chain: bool,
    /// With --with-chain: which workloads
    #[command(flatten)]
    pub(super) select: Select,
}

/// `audit`.
#[derive(Debug, Args)]
pub(super) struct Audit {
    /// Exit 2 if a finding is at least this bad
    #[arg(long, value_name = "SEVERITY")]
    pub(super) fail_on: Option<FailOn>,
    /// Which workloads' clusters.
    #[command(flatten)]
    pub(super) select: Select,
}

/// Severities of `audit --fail-on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FailOn {
    /// Anything at all.
    Info,
    /// Untidy, or worse.
    Low,
    /// Something will break or is wider than it needs to be, or worse.
    Medium,
    /// Something is broken, or gives away far too much.
    High,
}

/// `sandbox`.
#[derive(Debug, Subcommand)]
pub(super) enum Sandbox {
    /// Serve the sandbox until Ctrl-C; other runs with --sandbox attach to it
    Serve(Serve),
    /// Forget the sandbox's world
    Reset(Reset),
    /// Show what the sandbox's world is
    Show,
    /// Make the sandbox that is being served fail in ways that Azure and Kubernetes fail
    #[command(subcommand)]
    Fault(Fault),
}

/// `sandbox reset`.
#[derive(Debug, Args)]
pub(super) struct Reset {
    /// Begin a new world at once, in which every workload of the file lives on AAD Pod Identity:
    /// to try `migrate`
    #[arg(long)]
    pub(super) pod_identity: bool,
}

/// `sandbox fault`.
#[derive(Debug, Subcommand)]
pub(super) enum Fault {
    /// Add a rule; of several that fit a request the first that is due plays
    Add(FaultRule),
    /// Print the rules as JSON lines, with how many requests each has fitted
    List,
    /// Remove all rules and end random faults
    Clear,
    /// Take the workload identity webhook of an emulated cluster down, or up again
    Webhook {
        /// The cluster's name in the file
        cluster: String,
        /// Whether it answers
        state: WebhookState,
    },
}

/// Whether a webhook answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum WebhookState {
    /// It answers.
    Up,
    /// Pods that need it are refused.
    Down,
}

/// `sandbox fault add`.
#[derive(Debug, Args)]
pub(super) struct FaultRule {
    /// arm, entra, graph, data, issuers, cluster/NAME or webhook/NAME; * stands for any text
    #[arg(long, value_name = "GLOB", default_value = "*")]
    pub(super) service: String,
    /// The HTTP method, or WATCH for a cluster's watches
    #[arg(long, value_name = "GLOB", default_value = "*")]
    pub(super) method: String,
    /// The path without its query, compared without case
    #[arg(long, value_name = "GLOB", default_value = "*")]
    pub(super) path: String,
    /// The first request that is met, counted from 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) nth: u64,
    /// How many requests are met from there on; 0 for all
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) times: u64,
    /// What happens.
    #[command(flatten)]
    pub(super) action: FaultAction,
    /// The error code, or reason, of --answer
    #[arg(long, default_value = "")]
    pub(super) code: String,
    /// The message of --answer
    #[arg(long, default_value = "")]
    pub(super) message: String,
    /// The Retry-After of --answer in seconds
    #[arg(long, value_name = "SECONDS")]
    pub(super) retry_after: Option<u64>,
}

/// What a rule does to a request.
#[expect(clippy::struct_excessive_bools, reason = "one switch for each fault without a value")]
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct FaultAction {
    /// Answer with this status instead of serving it
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(400..=599))]
    pub(super) answer: Option<u16>,
    /// Serve it after this long, for example 500ms
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) delay: Option<std::time::Duration>,
    /// Close the connection before it is served
    #[arg(long)]
    pub(super) reset: bool,
    /// Serve it, then close the connection without the answer
    #[arg(long)]
    pub(super) reply_lost: bool,
    /// End the answer's body in the middle
    #[arg(long)]
    pub(super) cut: bool,
    /// Send the answer's body in small pieces, each after this long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) slow: Option<std::time::Duration>,
    /// Send the answer's head and never its body, as a watch that has gone stale
    #[arg(long)]
    pub(super) stall: bool,
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
    /// Enforce the published throttles with 429 answers
    #[arg(long)]
    pub(super) limits: bool,
    /// How long something takes to be seen (repeatable); NAME is one of fic, fic-write, role,
    /// cluster-update, principal, parent, list, negative-cache
    #[arg(long, value_name = "NAME=DURATION", value_parser = pair)]
    pub(super) delay: Vec<(String, String)>,
    /// Let this share of all requests fail at random, for example 0.1
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(super) fault_rate: Option<f64>,
    /// Which sequence of random faults
    #[arg(long, value_name = "N", default_value_t = 1, requires = "fault_rate")]
    pub(super) fault_seed: u64,
    /// Append every request as a JSON line to FILE
    #[arg(long, value_name = "FILE")]
    pub(super) request_log: Option<PathBuf>,
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
    /// What every command of migrate writes as JSON.
    Migrate,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

pub(super) fn signed_duration(text: &str) -> Result<SignedDuration, String> {
    let length = duration(text)?;
    SignedDuration::try_from(length).map_err(|_| "that is too long".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
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
        assert!(share("0.1") == Ok(0.1) && share("1.1").is_err() && share("NaN").is_err());
        assert!(pair("prod").is_err() && pair("=x").is_err());
    }
}
