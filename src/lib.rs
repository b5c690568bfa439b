//! widentity makes AKS workload identity a thing you declare, review, apply and prove.
//!
//! This page is the architecture document.
//!
//! # One idea
//!
//! **The chain is data.** A pod gets an Entra token only if a chain of links agrees to the byte:
//! cluster issuer, webhook, managed identity, federated credential, service account annotation,
//! role assignment, pod label, and pods made after all that. A workload is four words in a TOML
//! file; everything else on its chain is computed, compared with what is there, applied in order,
//! and proved by a real token exchange.
//!
//! # Stages
//!
//! ```text
//! workloads.toml -> raw -> Config -> DesiredState --+
//!                                                   +-> planner -> Plan + PlanReport -> text | json | markdown
//! ARM, Kubernetes -> observe -> Snapshot (partial) -+                |
//!                                              executor <- approval -+
//! Plan -> queue -> executor -> Event* -> terminal | JSON lines | journal -> Report -> exit code
//! ```
//!
//! Data stands between the stages, verbs at their borders. Each stage is a folder, and may import
//! only what this table says; a test reads `src/` and fails on any other arrow.
//!
//! | stage | does | may import |
//! |---|---|---|
//! | [`model`] | says what things are | nothing |
//! | [`config`] | reads TOML, reports every problem at once | `model` |
//! | [`plan`] | decides: pure, no clock, no IO | `model` |
//! | [`diagnose`] | explains: the chain link by link, audit, codes | `model` |
//! | [`azure`] | talks to ARM and Entra | `model` |
//! | [`kubernetes`] | talks to API servers | `model` |
//! | [`observe`] | decides what to read and how much at once | `model`, `azure`, `kubernetes` |
//! | [`prove`] | proves a chain by a token exchange | `model`, `azure`, `kubernetes` |
//! | [`execute`] | carries out a plan and tells what happens | `model`, `plan`, `observe`, `prove`, `azure`, `kubernetes` |
//! | [`migrate`] | surveys AAD Pod Identity: where each workload stands, what moves it | `model`, `plan` |
//! | [`ops`] | one use case a file: arguments in, report out | all above |
//! | [`render`] | shows plans and reports | `model` and types of the stages |
//! | [`cli`] | terminal, environment, exit codes | `model`, `ops`, `render`, `config`, `sandbox`, types of `execute` |
//! | [`sandbox`] | pretends to be Azure, Entra and Kubernetes | nothing of ours |
//!
//! # What the engine promises
//!
//! - **A failed read is unknown, never absent** ([`model::snapshot::Observation`]). Nothing is
//!   created or changed because of it, and such a plan never says "No changes".
//! - **Plan decides, execute obeys.** Names, order, locks and preconditions stand in the plan
//!   ([`plan::Step`]). Only ids that Azure invents arrive later, as typed references
//!   ([`plan::Value`]).
//! - **Each step has a precondition** on the fields that we own. If it no longer holds the step is
//!   stale, and the answer is to plan again.
//! - **No state file.** The truth is ARM and Kubernetes, read each time. A dry run is not calling
//!   [`execute`]. A run killed anywhere is repaired by running again.
//! - **Proof before pods.** No live pod is pointed at an identity that was not proved for its
//!   exact subject ([`prove`]).
//! - **Only patches.** Fields are set by server-side apply as manager `widentity-<project>`;
//!   identities and scale sets are patched; a cluster is put back as it was read, with nothing
//!   changed but the features enabled or the entries of the Pod Identity add-on, and `If-Match`.
//! - **The engine deletes nothing.** What the file no longer explains is listed as left over.
//!   `migrate finish` and `migrate uninstall` delete what belongs to AAD Pod Identity, by uid and
//!   after their own gates, and in Azure only what a flag names. A rollback deletes a pod that its
//!   controller would never replace; `--method job` deletes the pod that it made.
//! - **Secrets are not shown**: tokens live in [`model::Token`], whose `Debug` is redacted.
//!
//! # Files on disk
//!
//! `workloads.toml` and its includes are read; `init` writes the first one. `.widentity/` beside it
//! holds the backups of a migration and, with `--sandbox`, the sandbox's world. `migrate render
//! DIR` changes manifests in DIR. Plans, journals and reports are written where an option says so.

// Data.
pub mod model;

// Pure.
pub mod config;
pub mod diagnose;
pub mod migrate;
pub mod plan;

// Talking.
pub mod azure;
pub mod execute;
pub mod kubernetes;
pub mod observe;
pub mod prove;

// Using and showing.
pub mod cli;
pub mod ops;
pub mod render;

// Pretending.
pub mod sandbox;
