//! The identity that the client id belongs to.

use crate::{
    diagnose::{
        command::{CLIENT_ID, named},
        facts::Facts,
        link::{Fix, Link, State},
    },
    model::{ArmId, names, snapshot::Observation},
};

/// Entra knows no application with the client id.
pub(super) const UNKNOWN_APPLICATION: [u32; 3] = [700_016, 700_011, 70_001];

/// Judges whether the identity exists, in the right tenant.
pub(in crate::diagnose) fn identity(facts: &mut Facts<'_>) -> State {
    let evidence = facts.evidence;
    if let Some(identity) = facts.identity {
        let tenant = evidence.wanted.tenant.filter(|tenant| *tenant != identity.tenant_id);
        if let Some(tenant) = tenant.filter(|_| !facts.proved()) {
            return State::broken(
                "identity-in-other-tenant",
                format!(
                    "identity {} lives in tenant {}, tokens are asked in {tenant}",
                    identity.id.name(),
                    identity.tenant_id
                ),
                Fix::advice(format!("write tenant = \"{}\" for this workload", identity.tenant_id)),
            );
        }
        return State::holds(format!(
            "{}, principal {}",
            identity.id.name(),
            identity.principal_id
        ));
    }
    if let Some(client) = facts.client.filter(|_| facts.proved()) {
        return State::holds(format!("{client}: Entra gives it tokens; not among what was listed"));
    }
    if let Some(id) = &evidence.wanted.identity {
        return match (&evidence.identities, &evidence.identities_unseen) {
            (Observation::Unknown(failure), _) | (_, Some(failure)) => State::unseen(failure),
            (Observation::Present(_) | Observation::Absent, None) => State::broken(
                "identity-not-found",
                format!("identity {} does not exist", id.name()),
                facts.azure(create(id)),
            ),
        };
    }
    let Some(client) = facts.client else {
        return State::NotReached { because: Link::Annotations };
    };
    let refused = evidence.refused(client).map(|(codes, _)| codes);
    let unknown = |codes: &[u32]| codes.iter().any(|code| UNKNOWN_APPLICATION.contains(code));
    match (&evidence.identities, refused) {
        (_, Some(codes)) if unknown(codes) => not_found(facts, &client.to_string()),
        (_, Some(_)) => State::unclear(
            format!(
                "Entra knows client id {client}, and it is of no identity that was listed: an \
                 application, or in another subscription"
            ),
            true,
        ),
        (Observation::Unknown(failure), None) => State::unseen(failure),
        // Only Entra knows every client id: this may be an application's, or of an identity that
        // nobody here may list.
        (Observation::Present(_) | Observation::Absent, None) => State::unclear(
            format!(
                "client id {client} is of no identity that was listed, and Entra was not asked"
            ),
            true,
        ),
    }
}

fn not_found(facts: &Facts<'_>, client: &str) -> State {
    let listed = facts.evidence.identities.present().map_or(0, Vec::len);
    let message = format!(
        "no identity has client id {client} ({listed} were listed): deleted, made anew, or of \
         another tenant"
    );
    if let Some(identity) = facts.trusting() {
        let client = identity.client_id.to_string();
        return State::broken(
            "identity-not-found",
            format!("{message}; {} trusts this account and has {client}", identity.id.name()),
            facts.annotate(names::CLIENT_ID_ANNOTATION, client),
        );
    }
    State::broken(
        "identity-not-found",
        message,
        facts.annotate_by_hand(&[(names::CLIENT_ID_ANNOTATION, CLIENT_ID.into())]),
    )
}

fn create(id: &ArmId) -> Fix {
    Fix::typed([named(&["identity", "create"], id)])
}
