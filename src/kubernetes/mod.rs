//! TALK: the Kubernetes API of one cluster. Requests are few and explicit, responses are read into
//! [`crate::model::snapshot`] types by pure functions.
//!
//! What is never done here: typed `replace` (it drops unknown fields), writes to `spec.selector`,
//! deletes (but of Pod Identity's own objects and our proof pods, by uid), unbounded retries, plain http to anything
//! but loopback. Waiting for rollouts is the executor's business; [`Client::template`] gives it
//! [`crate::model::snapshot::Progress`].

mod client;
mod connect;
mod dry_run;
mod error;
mod estate;
mod footprint;
mod parse_meta;
mod parse_pod;
mod parse_template;
mod parse_webhook;
pub mod pod_identity;
mod proof_pod;
mod raw;
mod read;
mod switch;
mod token;
mod versions;
mod wire;
mod write;

pub use client::{Client, Within};
pub use connect::{Connect, Connection, TokenSource};
pub use error::{Cause, KubeError};
pub use footprint::DefinitionNow;
pub use proof_pod::{Ended, ProofPod};
pub use switch::{Place, Switch};
pub use token::IssuedToken;
