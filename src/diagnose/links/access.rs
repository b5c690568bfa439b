//! What the identity may do: roles, whether the target asks for them, and its own answer.

use crate::{
    diagnose::{
        command::{Line, in_subscription},
        evidence::Grant,
        facts::Facts,
        link::{Fix, State},
    },
    model::{
        ArmId, PrincipalId, roles,
        snapshot::{Observation, ObservedAssignment, ObservedTarget},
        suggest,
    },
};

/// How long Azure says a role assignment takes to be honoured, in seconds.
///
/// Source: Microsoft documentation, "Troubleshoot Azure RBAC", up to ten minutes.
const PROPAGATION: i64 = 600;

fn principal(facts: &Facts<'_>) -> Option<PrincipalId> {
    let of_identity = facts.identity.map(|identity| identity.principal_id);
    of_identity.or_else(|| facts.evidence.granted(facts.client?)?)
}

/// The data plane of the target said yes.
fn answered(facts: &Facts<'_>) -> bool {
    facts.evidence.probe.present().is_some_and(|answer| (200..300).contains(&answer.status))
}

/// The vault (or other target) that a scope lies in, where its settings were read.
fn target_of<'a>(facts: &Facts<'a>, scope: &ArmId) -> Option<(&'a ArmId, &'a ObservedTarget)> {
    let found = facts.evidence.targets.iter().find(|(id, _)| scope.is_within(id))?;
    Some((found.0, found.1.present()?))
}

/// A vault that asks its access policies and not role assignments.
fn by_policies(facts: &Facts<'_>, scope: &ArmId) -> bool {
    target_of(facts, scope).is_some_and(|(_, target)| target.rbac == Some(false))
}

/// Judges the grants.
pub(in crate::diagnose) fn role(facts: &mut Facts<'_>) -> State {
    let Some(principal) = principal(facts) else {
        return State::unclear("the principal is not known", true);
    };
    let Some(grants) = facts.evidence.wanted.grants.clone() else { return any(facts, principal) };
    if grants.is_empty() {
        return State::holds("access is not by roles (grants = [])");
    }
    let mut unseen = None;
    for grant in &grants {
        if by_policies(facts, &grant.scope) {
            continue;
        }
        match one(facts, principal, grant) {
            State::Holds { .. } => {}
            State::CouldNotSee { why, hint, matters } => {
                unseen = Some(State::CouldNotSee { why, hint, matters });
            }
            other @ (State::Broken(_) | State::NotReached { .. }) => return other,
        }
    }
    unseen.unwrap_or_else(|| {
        let names: Vec<String> =
            grants.iter().map(|g| format!("{} on {}", g.name, g.scope.name())).collect();
        State::holds(names.join(", "))
    })
}

/// Nobody said what is wanted: any role at all.
fn any(facts: &mut Facts<'_>, principal: PrincipalId) -> State {
    let assignments = &facts.evidence.assignments;
    let held: Vec<String> = assignments
        .seen
        .iter()
        .filter(|assignment| assignment.principal_id == principal)
        .map(|a| format!("{} on {}", role_name(a), a.scope.name()))
        .collect();
    if !held.is_empty() {
        return State::holds(held.join(", "));
    }
    if answered(facts) {
        return State::holds("the target's data plane answers");
    }
    let looked = assignments.looked.iter().any(|(_, how)| how.failure().is_none());
    if !looked {
        let failure = assignments.looked.iter().find_map(|(_, how)| how.failure());
        return failure.map_or_else(
            || State::unclear("no role assignments were listed", false),
            State::unseen,
        );
    }
    // Access may lie in another subscription, in a group, in a database: nobody said what is needed.
    let name = facts.identity.map_or("the identity", |identity| identity.id.name());
    let places = assignments.looked.iter().filter(|(_, how)| how.failure().is_none());
    let places: Vec<&str> = places.map(|(scope, _)| scope.as_str()).collect();
    State::CouldNotSee {
        why: format!("{name} (principal {principal}) has no role in {}", places.join(", ")),
        hint: Some("--target ID [--role NAME] says what it needs".to_owned()),
        matters: false,
    }
}

/// Roles of a principal, wherever they are.
fn roles_of(principal: &str) -> Line {
    Line::new("az").words(&["role", "assignment", "list", "--all", "--assignee", principal])
}

fn role_name(assignment: &ObservedAssignment) -> String {
    roles::by_id(assignment.role)
        .map_or_else(|| format!("role {}", assignment.role), |role| role.name.to_owned())
}

fn fits(grant: &Grant, assignment: &ObservedAssignment) -> bool {
    match grant.role {
        Some(role) => assignment.role == role,
        None if !grant.name.is_empty() => false,
        // Any role that opens data, or one we do not know.
        None => roles::by_id(assignment.role)
            .is_none_or(|role| roles::misfit(role, &grant.scope).is_none()),
    }
}

fn one(facts: &mut Facts<'_>, principal: PrincipalId, grant: &Grant) -> State {
    let evidence = facts.evidence;
    if grant.role.is_none() && !grant.name.is_empty() && !answered(facts) {
        return undefined(grant);
    }
    let seen = &evidence.assignments.seen;
    let covering = |a: &&ObservedAssignment| grant.scope.is_within(&a.scope) && fits(grant, a);
    let held = seen.iter().filter(covering).find(|a| a.principal_id == principal);
    let what = if grant.name.is_empty() { "a data role" } else { grant.name.as_str() };
    if let Some(held) = held {
        return aged(facts, held, what);
    }
    if answered(facts) {
        facts.note(
            "role-not-seen",
            format!("{what} on {} was not found, and the target answers", grant.scope.name()),
            "access may come by a group or another role",
        );
        return State::holds("the target's data plane answers");
    }
    let looked = evidence.assignments.looked.iter();
    let looked = looked.filter(|(at, _)| grant.scope.is_within(at)).map(|(_, how)| how);
    if !looked.clone().any(|how| how.failure().is_none()) {
        let failure = looked.clone().find_map(Observation::failure);
        return failure.map_or_else(
            || State::unclear(format!("role assignments at {} were not listed", grant.scope), true),
            State::unseen,
        );
    }
    let (code, why) = absent(facts, principal, grant);
    let name = facts.identity.map_or("the identity", |identity| identity.id.name());
    let (who, scope) = (principal.to_string(), grant.scope.as_str());
    let az = Line::new("az").words(&["role", "assignment"]);
    let manual = if grant.name.is_empty() {
        Fix::look_at(
            "assign a role that opens its data; --role says which",
            az.words(&["list", "--scope", scope, "--assignee", &who, "-o", "table"]),
        )
    } else {
        let create = ["create", "--assignee-object-id", &who, "--assignee-principal-type"];
        let rest = ["ServicePrincipal", "--role", &grant.name, "--scope", scope];
        Fix::typed([az.words(&create).words(&rest)])
    };
    State::broken(
        code,
        format!("{name} has no {what} on {}{why}", grant.scope.name()),
        facts.azure(manual),
    )
}

/// A role whose definition is not known: no assignment can be said to be of it.
fn undefined(grant: &Grant) -> State {
    if let Some(failure) = &grant.unresolved {
        return State::unseen(failure);
    }
    let names = roles::BUILT_IN.iter().map(|role| role.name);
    let hint = suggest::nearest(&grant.name, names, 5).map(|near| format!("is {near} meant?"));
    State::CouldNotSee {
        why: format!("there is no one role named {:?} at {}", grant.name, grant.scope),
        hint,
        matters: true,
    }
}

/// It is there; is it old enough, and unconditional?
fn aged(facts: &mut Facts<'_>, held: &ObservedAssignment, what: &str) -> State {
    let now = facts.evidence.now;
    let fresh = held.created_on.filter(|made| now.as_second() - made.as_second() < PROPAGATION);
    let denied = facts.evidence.probe.present().is_some_and(|a| matches!(a.status, 401 | 403));
    if fresh.is_some() && denied {
        return State::broken(
            "role-propagating",
            format!("{what} was assigned less than ten minutes ago and is not honoured yet"),
            Fix::advice("wait: Azure takes up to ten minutes to honour a role assignment"),
        );
    }
    if fresh.is_some() && !answered(facts) {
        facts.note(
            "role-propagating",
            format!("{what} was assigned less than ten minutes ago"),
            "it may not be honoured yet",
        );
    }
    if held.condition.is_some() {
        facts.note(
            "role-condition",
            format!("{what} is assigned under a condition"),
            "the condition decides which requests it covers",
        );
    }
    State::holds(what)
}

/// Why a role that is not there was thought to be.
fn absent(facts: &Facts<'_>, principal: PrincipalId, grant: &Grant) -> (&'static str, String) {
    let seen = &facts.evidence.assignments.seen;
    let ours = |a: &&ObservedAssignment| a.principal_id == principal;
    let elsewhere = seen.iter().filter(ours).find(|a| fits(grant, a) && grant.role.is_some());
    if let Some(elsewhere) = elsewhere {
        return ("role-other-scope", format!("; it has it on {}", elsewhere.scope));
    }
    let covers = |a: &&ObservedAssignment| grant.scope.is_within(&a.scope);
    if let Some(other) = seen.iter().filter(covers).find(ours) {
        let why = roles::by_id(other.role).and_then(|role| roles::misfit(role, &grant.scope));
        return if why.is_some() {
            (
                "role-control-plane",
                format!("; it has {}, which does not open the data", role_name(other)),
            )
        } else {
            ("role-missing", format!("; it has {}", role_name(other)))
        };
    }
    let same = seen.iter().filter(covers).filter(|a| fits(grant, a));
    for held in same {
        let identities = facts.evidence.identities.present().map_or(&[][..], Vec::as_slice);
        let owner = identities.iter().find(|identity| identity.principal_id == held.principal_id);
        if let Some(owner) = owner {
            return ("role-other-principal", format!("; {} has it", owner.id.name()));
        }
        if facts.identity.is_some_and(|identity| identity.client_id.0 == held.principal_id.0) {
            return ("role-other-principal", "; it was assigned to the client id".to_owned());
        }
    }
    ("role-missing", String::new())
}

/// Judges whether the target asks for roles at all.
pub(in crate::diagnose) fn target(facts: &mut Facts<'_>) -> State {
    let Some(grants) = facts.evidence.wanted.grants.clone() else {
        let hint = Some("--target ID names it".to_owned());
        let why = "no target was named".to_owned();
        return State::CouldNotSee { why, hint, matters: false };
    };
    let principal = principal(facts);
    let mut shown = Vec::new();
    for grant in &grants {
        let Some((id, target)) = target_of(facts, &grant.scope) else {
            let unknown = facts.evidence.targets.iter().find(|(id, _)| grant.scope.is_within(id));
            match unknown {
                Some((_, Observation::Unknown(failure))) if !answered(facts) => {
                    return State::unseen(failure);
                }
                Some((id, Observation::Absent)) => {
                    return State::broken(
                        "target-not-found",
                        format!("target {id} does not exist"),
                        Fix::advice("correct the target's id"),
                    );
                }
                _ => continue,
            }
        };
        let listed = principal.is_some_and(|principal| target.policies.contains(&principal));
        if target.rbac == Some(false) && !listed && !answered(facts) {
            let name = id.name();
            return State::broken(
                "vault-access-policies",
                format!(
                    "vault {name} asks its access policies, not role assignments, and has none for \
                     this identity: the role does nothing"
                ),
                Fix::typed([in_subscription(&["keyvault", "update"], id).words(&[
                    "--name",
                    name,
                    "--enable-rbac-authorization",
                    "true",
                ])]),
            );
        }
        shown.push(if target.rbac == Some(false) {
            format!("{} by access policy", id.name())
        } else {
            id.name().to_owned()
        });
    }
    if shown.is_empty() {
        State::unclear("not a kind that is looked at", false)
    } else {
        State::holds(shown.join(", "))
    }
}

/// The first sentence of a service's answer.
fn short(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default().trim();
    line.split_inclusive(". ").next().unwrap_or(line).trim_end_matches([' ', '.'])
}

/// Judges the data plane's answer.
pub(in crate::diagnose) fn probe(facts: &mut Facts<'_>) -> State {
    let answer = match &facts.evidence.probe {
        Observation::Present(answer) => answer,
        Observation::Absent => return State::unclear("not asked", false),
        Observation::Unknown(failure) => {
            // The target may well be open to the pods only: it never decides.
            return match State::unseen(failure) {
                State::CouldNotSee { why, hint, matters: _ } => {
                    State::CouldNotSee { why, hint, matters: false }
                }
                other @ (State::Holds { .. } | State::Broken(_) | State::NotReached { .. }) => {
                    other
                }
            };
        }
    };
    let words = answer.message.to_ascii_lowercase();
    let network =
        ["firewall", "client address", "public network access", "private link", "privateendpoint"];
    match answer.status {
        200..=299 => State::holds(format!("{} answers", answer.url)),
        _ if network.iter().any(|word| words.contains(word)) => State::unclear(
            format!("{} refuses this network: {}", answer.url, answer.message),
            false,
        ),
        401 => State::broken(
            "probe-unauthenticated",
            format!("{} does not accept the token: {}", answer.url, answer.message),
            Fix::advice("the target belongs to another tenant, or wants another audience"),
        ),
        403 => {
            let who = principal(facts).map(|id| id.to_string());
            let list = match &who {
                Some(who) => roles_of(who),
                None => Line::new("az").words(&["role", "assignment", "list", "--all"]),
            };
            State::broken(
                "probe-denied",
                format!("{} denies it: {}", answer.url, short(&answer.message)),
                Fix::look_at(
                    "give it a role that covers this; one assigned minutes ago may not be honoured \
                     yet",
                    list.words(&["-o", "table"]),
                ),
            )
        }
        status => {
            State::unclear(format!("{} answered {status}: {}", answer.url, answer.message), false)
        }
    }
}
