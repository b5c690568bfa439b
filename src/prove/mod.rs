//! PROVE: a federated token exchange that Entra really answers for the exact subject.
//!
//! A token is requested for the service account and its issuer checked; Entra exchanges it for a
//! token of the identity; the object id in that is the principal's; a probe, where the file has
//! one, shows that the role works. Nothing of it touches a pod. It proves issuer, keys, subject,
//! audience, identity and credential; it does not prove the application's SDK.
//!
//! Where nobody may request tokens of accounts, a pod that runs as the account can do the exchange
//! instead ([`job`], [`pod`]): only when it is asked for, and it is always removed.
//!
//! A change is not known everywhere at once, and Entra remembers refusals for a while: [`retry`]
//! says what may still be on its way, [`cause`] names the first link that does not fit.

pub mod cause;
mod cluster;
pub mod job;
pub mod pod;
mod prover;
pub mod retry;

use std::time::Duration;

pub use prover::{CONTEXT_MISMATCH, ENTRA_UNREACHABLE, PodTerms, Prover, Terms};

use crate::model::{
    AccountName, ArmId, Audience, ClientId, Issuer, Namespace, PrincipalId, RemoteFailure, Subject,
    TenantId, Token,
};

/// A token that Kubernetes issued for a service account, with what it says of itself.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The token.
    pub token: Token,
    /// Its issuer.
    pub iss: Issuer,
    /// Its subject.
    pub sub: Subject,
    /// Its audiences.
    pub aud: Vec<Audience>,
}

/// Who issues tokens of service accounts: an API server.
pub trait TokenSource: Sync {
    /// Requests a token of `account` for `audience` that lives `seconds`.
    fn token(
        &self,
        namespace: &Namespace,
        account: &AccountName,
        audience: &Audience,
        seconds: u32,
    ) -> impl Future<Output = Result<IssuedToken, RemoteFailure>> + Send;
}

/// What is to be proved, with every value known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedClaim {
    /// The namespace.
    pub namespace: Namespace,
    /// The account.
    pub account: AccountName,
    /// The identity, whose credentials are read when Entra refuses.
    pub identity: ArmId,
    /// The client id that asks for the token.
    pub client: ClientId,
    /// The principal that the token must be for.
    pub principal: PrincipalId,
    /// The tenant.
    pub tenant: TenantId,
    /// The issuer of ARM's record, which the account's token must carry.
    pub issuer: Issuer,
    /// The audience to ask for.
    pub audience: Audience,
    /// What the file grants the identity, in words: what a probe that is refused lacks.
    pub grants: Vec<String>,
}

impl ResolvedClaim {
    /// The subject of the account's tokens.
    pub fn subject(&self) -> Subject {
        Subject::of(&self.namespace, &self.account)
    }
}

/// What was proved, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The issuer of the account's token.
    pub iss: Issuer,
    /// Its subject.
    pub sub: Subject,
    /// Its audience.
    pub aud: Audience,
    /// The object id that Entra put into the identity's token.
    pub oid: PrincipalId,
    /// How often Entra was asked.
    pub attempts: u32,
    /// How many answers in a row it gave at the end.
    pub answers: u32,
    /// How long it took.
    pub elapsed: Duration,
    /// How it was proved.
    pub method: Method,
    /// What came of the probe; none where there was none.
    pub probe: Option<Probed>,
}

/// What came of a probe that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// The service answered as one who may.
    Passed,
    /// The service cannot be reached from here, which says nothing about the role.
    Unseen {
        /// Why.
        why: String,
    },
}

/// How a proof was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// With a token that was requested for the account.
    Token,
    /// By a pod that ran as the account.
    Job,
}

/// How proofs are to be made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum How {
    /// With a token that is requested for the account.
    #[default]
    Token,
    /// By a pod that runs as the account.
    Pod {
        /// What it runs.
        image: String,
    },
}

impl Method {
    /// The word used on the command line and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Job => "job",
        }
    }
}
