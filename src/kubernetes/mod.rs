//! TALK: the Kubernetes API of one cluster. Requests are few and explicit, responses are read into
//! [`crate::model::snapshot`] types by pure functions.
//!
//! What is never done here: typed `replace` (it drops unknown fields), writes to `spec.selector`,
//! deletes (but by uid, of Pod Identity's own objects, of our proof pods and of pods whose roll
//! failed and is put back), unbounded retries, plain http to anything but loopback. Waiting for
//! rollouts is the executor's business; [`Client::template`] gives it
//! [`crate::model::snapshot::Progress`].

mod carriers;
mod client;
mod connect;
mod dry_run;
mod error;
mod estate;
mod footprint;
mod objects;
mod parse_meta;
mod parse_pod;
mod parse_stamp;
mod parse_template;
mod parse_webhook;
mod patience;
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
pub use objects::Objects;
pub use patience::Waits;
pub use proof_pod::{Ended, ProofPod};
pub use switch::{Place, TemplateChange};
pub use token::IssuedToken;
