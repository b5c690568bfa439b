//! What must be known before a token can be asked for.

use super::{
    evidence::{Evidence, Template},
    facts::Facts,
    links::annotations,
};
use crate::model::{AccountName, Audience, ClientId, TenantId, names, snapshot::ObservedIdentity};

/// Who asks for what, as far as cluster and Azure were read.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The account that the pods run as.
    pub account: AccountName,
    /// Whether the account was seen.
    pub exists: bool,
    /// The client id that tokens are asked for.
    pub client: Option<ClientId>,
    /// The tenant that is asked.
    pub tenant: Option<TenantId>,
    /// The audience of the federated token.
    pub audience: Audience,
    /// The identity behind the client id, where it was read.
    pub identity: Option<ObservedIdentity>,
}

/// The templates that were asked about.
pub fn meant(evidence: &Evidence) -> Vec<&Template> {
    Facts::of(evidence).templates
}

/// Resolves a workload from what was read of it.
pub fn resolve(evidence: &Evidence) -> Resolved {
    let mut facts = Facts::of(evidence);
    annotations::annotations(&mut facts);
    let annotated = facts.annotation(names::TENANT_ID_ANNOTATION);
    let tenant =
        annotated.or(annotations::written_tenant(&facts)).and_then(|text| text.parse().ok());
    Resolved {
        exists: facts.seen_account().is_some(),
        client: facts.client,
        tenant: tenant.or_else(|| facts.tenant()),
        audience: facts.audience(),
        identity: facts.identity.cloned(),
        account: facts.account,
    }
}
