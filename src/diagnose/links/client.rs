//! What a value that should be a client id really is.

use crate::{
    diagnose::facts::Facts,
    model::{
        ArmId, ClientId,
        snapshot::{Observation, ObservedIdentity},
    },
};

/// What a value that stands where a client id belongs turned out to be.
pub(super) enum Meaning<'a> {
    /// Nothing, or blanks.
    Empty,
    /// A client id in blanks or other characters that cannot be seen.
    Padded,
    /// A placeholder that nobody replaced.
    Placeholder,
    /// The resource id of an identity.
    ResourceId(ArmId),
    /// The principal (object) id of an identity.
    Principal(&'a ObservedIdentity),
    /// The tenant.
    Tenant,
    /// A subscription.
    Subscription,
    /// The name of an identity.
    Name(&'a ObservedIdentity),
    /// No GUID.
    NotAGuid,
    /// The client id of an identity that was read.
    Identity(&'a ObservedIdentity),
    /// A GUID of nothing that was read.
    Unknown(ClientId),
}

/// Says what `value` is.
pub(super) fn meaning<'a>(facts: &Facts<'a>, value: &str) -> Meaning<'a> {
    let hidden = |c: char| c.is_whitespace() || c.is_control() || !c.is_ascii();
    let bare: String =
        value.chars().filter(|c| !hidden(*c) && !matches!(c, '"' | '\'' | '{' | '}')).collect();
    if bare.is_empty() {
        return if value.trim().is_empty() { Meaning::Empty } else { Meaning::Placeholder };
    }
    let identities = match &facts.evidence.identities {
        Observation::Present(identities) => identities.as_slice(),
        Observation::Absent | Observation::Unknown(_) => &[],
    };
    let Ok(guid) = value.parse::<ClientId>() else {
        if bare.parse::<ClientId>().is_ok() {
            return Meaning::Padded;
        }
        if bare.to_ascii_lowercase().starts_with("/subscriptions/") {
            return Meaning::ResourceId(ArmId::new(bare));
        }
        let marks = ['<', '>', '$', '{', '}'];
        let words = ["replace", "changeme", "your-", "your_", "client-id", "client_id", "todo"];
        let lower = value.to_ascii_lowercase();
        if value.contains(marks) || words.iter().any(|word| lower.contains(word)) {
            return Meaning::Placeholder;
        }
        let named = identities.iter().find(|identity| identity.id.name() == value);
        return named.map_or(Meaning::NotAGuid, Meaning::Name);
    };
    if guid.0.is_nil() {
        return Meaning::Placeholder;
    }
    if let Some(identity) = identities.iter().find(|identity| identity.client_id == guid) {
        return Meaning::Identity(identity);
    }
    if let Some(identity) = identities.iter().find(|identity| identity.principal_id.0 == guid.0) {
        return Meaning::Principal(identity);
    }
    let wanted = &facts.evidence.wanted;
    let tenants = identities.iter().map(|identity| identity.tenant_id).chain(wanted.tenant);
    if tenants.into_iter().any(|tenant| tenant.0 == guid.0) {
        return Meaning::Tenant;
    }
    let ids = identities.iter().map(|identity| &identity.id);
    let ids = ids.chain(facts.evidence.asked.cluster_id.as_ref());
    if ids.filter_map(ArmId::subscription).any(|subscription| subscription.0 == guid.0) {
        return Meaning::Subscription;
    }
    Meaning::Unknown(guid)
}
