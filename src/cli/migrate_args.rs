//! The command line of `migrate`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::SignedDuration;

use super::args::{Reach, Select, duration, signed_duration};

/// `migrate`; without a command it is `status`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct MigrateArgs {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Option<Migrate>,
    /// Which workloads, for the bare command.
    #[command(flatten)]
    pub(super) select: MigrateSelect,
}

/// The commands of `migrate`.
#[derive(Debug, Subcommand)]
pub(super) enum Migrate {
    /// Where each workload stands
    Status(MigrateSelect),
    /// Where each workload stands and what comes next; -o toml prints `[[workloads]]`
    Plan(MigrateSelect),
    /// Take every ready workload as far as its gates allow; nothing of Pod Identity is removed
    Apply(MigrateApply),
    /// Give a workload back exactly what widentity changed
    Rollback(MigrateRollback),
    /// Prove again, then remove bindings and identities of workloads that have soaked
    Finish(MigrateFinish),
    /// Take MIC, NMI and the rest of the installation away, once nothing uses them
    Uninstall(MigrateUninstall),
    /// Change the manifests under a directory, comments and order kept, instead of the cluster
    Render(MigrateRender),
}

/// `migrate uninstall`.
#[derive(Debug, Args)]
pub(super) struct MigrateUninstall {
    /// Only this cluster of the file (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: Vec<String>,
    /// How the world is reached.
    #[command(flatten)]
    pub(super) reach: Reach,
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with = "yes")]
    pub(super) plan: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Without NMI every pod may reach the metadata endpoint of its node
    #[arg(long)]
    pub(super) allow_open_metadata: bool,
    /// Bindings may go although some kinds of custom resources could not be looked through for
    /// their label
    #[arg(long)]
    pub(super) allow_unseen_kinds: bool,
    /// Switch the AKS add-on off, with an update of the cluster
    #[arg(long)]
    pub(super) disable_add_on: bool,
    /// Delete the role assignments in Azure that Pod Identity's documentation asks for, those that
    /// the plan shows and nothing else
    #[arg(long)]
    pub(super) remove_roles: bool,
    /// Take identities of Pod Identity from the scale sets of the nodes, those that the plan shows;
    /// instances are not touched
    #[arg(long)]
    pub(super) remove_node_identities: bool,
}

/// `migrate render`.
#[derive(Debug, Args)]
pub(super) struct MigrateRender {
    /// The directory with the manifests; they are changed in place, `git diff` is the review
    #[arg(value_name = "DIR")]
    pub(super) directory: PathBuf,
    /// Write nothing, show the difference
    #[arg(long)]
    pub(super) diff: bool,
    /// Which workloads.
    #[command(flatten)]
    pub(super) select: MigrateSelect,
}

/// `migrate finish`.
#[derive(Debug, Args)]
pub(super) struct MigrateFinish {
    /// Which workloads.
    #[command(flatten)]
    pub(super) select: MigrateSelect,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Only show what would be removed; no token is proved
    #[arg(long, conflicts_with = "yes")]
    pub(super) plan: bool,
}

/// `migrate apply`.
#[derive(Debug, Args)]
pub(super) struct MigrateApply {
    /// Which workloads.
    #[command(flatten)]
    pub(super) select: MigrateSelect,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Begin nothing new after this long, for example 30m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) timeout: Option<std::time::Duration>,
    /// A rollout that takes longer has failed
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub(super) rollout_timeout: std::time::Duration,
    /// Keep the label aadpodidbinding beside the new one: such workloads are masked, and nothing
    /// is proved by their working, until a run without this drops it
    #[arg(long)]
    pub(super) keep_old: bool,
}

/// `migrate rollback`.
#[derive(Debug, Args)]
pub(super) struct MigrateRollback {
    /// The workload as NAMESPACE/SERVICE-ACCOUNT[@CLUSTER]
    #[arg(value_name = "WORKLOAD")]
    pub(super) workload: String,
    /// Pod Identity serves the cluster although it does not look so: NMI under another name, or
    /// MIC that only seems not to run
    #[arg(long)]
    pub(super) nmi_runs: bool,
    /// How long its old pods may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub(super) rollout_timeout: std::time::Duration,
    /// Which cluster, and how it is reached.
    #[command(flatten)]
    pub(super) select: MigrateSelect,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
}

/// Which workloads of Pod Identity, and how their world is reached.
#[derive(Debug, Args)]
pub(super) struct MigrateSelect {
    /// Which workloads, and how their world is reached.
    #[command(flatten)]
    pub(super) of: Select,
    /// How long proved pods run before their binding may go, instead of `[migrate] soak`
    #[arg(long, value_name = "DURATION", value_parser = signed_duration)]
    pub(super) soak: Option<SignedDuration>,
    /// Identities may be taken from the nodes although other pods may live on them there
    #[arg(long)]
    pub(super) unassign: bool,
    /// A pod template that has not run since its switch may soak all the same: nothing has shown
    /// that it works
    #[arg(long)]
    pub(super) allow_unrun: bool,
    /// Bindings may go although some kinds of custom resources could not be looked through for
    /// their label
    #[arg(long)]
    pub(super) allow_unseen_kinds: bool,
}
