//! Whether a live pod carries today's values. Pods, not annotations, decide about rollouts.

use std::collections::BTreeSet;

use crate::model::{Audience, ClientId, TenantId, snapshot::ObservedPod};

/// What the webhook must have put into a pod. A client id that is known only after apply is in no
/// pod yet.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The client id, where it is known.
    pub client: Option<ClientId>,
    /// The tenant.
    pub tenant: TenantId,
    /// The audience of the projected token.
    pub audience: Audience,
    /// Its lifetime in seconds.
    pub expiration: u32,
    /// Whether the migration sidecar must be there.
    pub proxy: bool,
}

/// The first difference between a pod and what it should carry, in words; none if it is up to
/// date.
pub fn stale(pod: &ObservedPod, wanted: &Wanted) -> Option<String> {
    let injected = &pod.injected;
    if !injected.present {
        let label = if pod.labelled { "" } else { " and has no label for the webhook" };
        return Some(format!("pod {} has no injected identity{label}", pod.name));
    }
    // GUIDs are compared without case: an estate that works is not rolled for its spelling.
    // A value by reference is not seen: a new pod would get the same one, right or wrong.
    let only = |variable: &str, values: &BTreeSet<String>, want: &str| {
        let some = !values.is_empty() || injected.by_reference.contains(variable);
        some && values.iter().all(|value| value.eq_ignore_ascii_case(want))
    };
    let shown = |values: &BTreeSet<String>| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        if values.is_empty() { "nothing".to_owned() } else { values.join(" and ") }
    };
    let Some(client) = wanted.client else {
        return Some(format!(
            "pod {} has AZURE_CLIENT_ID {}, the identity is new",
            pod.name,
            shown(&injected.client_ids)
        ));
    };
    let differs = |what: &str, have: String, want: &str| {
        Some(format!("pod {} has {what} {have}, wanted {want}", pod.name))
    };
    if !only("AZURE_CLIENT_ID", &injected.client_ids, &client.to_string()) {
        return differs("AZURE_CLIENT_ID", shown(&injected.client_ids), &client.to_string());
    }
    let tenant = wanted.tenant.to_string();
    if !only("AZURE_TENANT_ID", &injected.tenant_ids, &tenant) {
        return differs("AZURE_TENANT_ID", shown(&injected.tenant_ids), &tenant);
    }
    if injected.audience.as_ref() != Some(&wanted.audience) {
        let have = injected.audience.as_ref().map_or("none", |audience| audience.as_str());
        return differs("token audience", have.to_owned(), wanted.audience.as_str());
    }
    if injected.expiration != Some(wanted.expiration) {
        let have = injected.expiration.map_or("none".to_owned(), |seconds| seconds.to_string());
        return differs("token lifetime", have, &wanted.expiration.to_string());
    }
    if wanted.proxy && !injected.proxied {
        return Some(format!("pod {} has no migration sidecar", pod.name));
    }
    None
}
