//! What steps found out that was not known when planning: client ids, principal ids, issuers and
//! the UIDs of accounts, by the address of the step.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{Address, ClientId, Issuer, PrincipalId},
    plan::{StepId, Value},
};

/// Outputs of the steps that have ended well.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outputs {
    clients: BTreeMap<Address, ClientId>,
    principals: BTreeMap<Address, PrincipalId>,
    issuers: BTreeMap<Address, Issuer>,
    accounts: BTreeMap<Address, String>,
    made: BTreeSet<Address>,
    probed: BTreeSet<StepId>,
}

/// A value that a step can give to later ones.
pub(crate) trait Output: Clone {
    /// What it is called in messages.
    const NAME: &'static str;
    /// Where values of this type are kept.
    fn of(outputs: &Outputs) -> &BTreeMap<Address, Self>;
}

impl Output for ClientId {
    const NAME: &'static str = "client id";
    fn of(outputs: &Outputs) -> &BTreeMap<Address, Self> {
        &outputs.clients
    }
}

impl Output for PrincipalId {
    const NAME: &'static str = "principal id";
    fn of(outputs: &Outputs) -> &BTreeMap<Address, Self> {
        &outputs.principals
    }
}

impl Output for Issuer {
    const NAME: &'static str = "issuer";
    fn of(outputs: &Outputs) -> &BTreeMap<Address, Self> {
        &outputs.issuers
    }
}

impl Outputs {
    /// An identity's ids.
    pub(crate) fn identity(&mut self, at: &Address, client: ClientId, principal: PrincipalId) {
        self.clients.insert(at.clone(), client);
        self.principals.insert(at.clone(), principal);
    }

    /// A cluster's issuer.
    pub(crate) fn issuer(&mut self, at: &Address, issuer: Issuer) {
        self.issuers.insert(at.clone(), issuer);
    }

    /// The UID of an account that a step made.
    pub(crate) fn account(&mut self, at: &Address, uid: String) {
        self.accounts.insert(at.clone(), uid);
    }

    /// The object at this address was made by this run, a moment ago.
    pub(crate) fn made(&mut self, at: &Address) {
        self.made.insert(at.clone());
    }

    /// Whether the probe of a proof passed.
    pub(crate) fn probed(&mut self, step: StepId, passed: bool) {
        if passed {
            self.probed.insert(step);
        }
    }

    /// Whether this step is a proof whose probe passed.
    pub(crate) fn has_probed(&self, step: StepId) -> bool {
        self.probed.contains(&step)
    }

    /// Whether this run made it.
    pub(crate) fn is_made(&self, at: &Address) -> bool {
        self.made.contains(at)
    }

    /// The UID of an account that this run made.
    pub(crate) fn account_uid(&self, at: &Address) -> Option<String> {
        self.accounts.get(at).cloned()
    }

    /// The value, or the address of the step that should have given it: a plan in which a step
    /// does not need the one whose output it takes.
    pub(crate) fn resolve<'a, T: Output>(&self, value: &'a Value<T>) -> Result<T, &'a Address> {
        match value {
            Value::Known(known) => Ok(known.clone()),
            Value::AfterApply(at) => T::of(self).get(at).cloned().ok_or(at),
        }
    }
}
