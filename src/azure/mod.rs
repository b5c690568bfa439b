//! TALK to Azure: a small client of Azure Resource Manager and Entra, on the pipeline of
//! `azure_core` and the credentials of `azure_identity`.
//!
//! Every answer that is not a success goes through one table, [`disposition`]: it says whether to
//! ask again, to wait for somebody else, or to give up and why. Every wait is announced through
//! [`Waits`]. Tokens leave this module only inside [`crate::model::Token`], which shows nothing.
//!
//! Links and operation addresses that a server hands out are followed only on the endpoint's own
//! scheme, host and port; redirects are never followed. Plain http is spoken only to loopback.

mod address;
mod arm;
mod assertion;
mod claims;
mod clusters;
mod credential;
mod credential_env;
mod discovery;
pub mod disposition;
mod endpoints;
mod entra;
mod error;
mod hint;
mod http;
mod identities;
mod issuer;
mod managed_cluster;
mod operation;
mod pace;
mod pod_identity;
mod probe;
mod roles;
mod scale_sets;
mod targets;
mod update;

pub use arm::{Arm, Waits, silent};
pub use claims::{Actor, TokenClaims};
pub use clusters::ServerAndCa;
pub use credential::{AuthKind, Chosen, CredentialError, choose};
pub use credential_env::CredentialEnv;
pub use endpoints::{Endpoints, Trust};
pub use entra::{Entra, ExchangeError, Exchanged, Refusal};
pub use error::{ArmError, Detail, ServerError};
pub use http::TransportError;
pub use issuer::{IssuerDocuments, Issuers};
pub use operation::is_terminal;
pub use pace::{Jitter, Sleep};
pub use probe::{ProbeOutcome, Prober};
pub use roles::{NewAssignment, PutAssignment};
