//! The federated credential: issuer, subject and audience, to the byte.

use crate::{
    diagnose::{
        difference::{Difference, Slip},
        facts::Facts,
        fix,
        link::{Fix, State},
    },
    model::{
        ArmId, Audience, Issuer, Subject, names,
        snapshot::{Observation, ObservedCredential, ObservedIdentity},
    },
};

/// What a token says and a credential must match.
struct Presented {
    issuer: Issuer,
    subject: Subject,
    audience: Audience,
}

impl Presented {
    fn matches(&self, credential: &ObservedCredential) -> bool {
        credential.issuer == self.issuer
            && credential.subject.as_ref() == Some(&self.subject)
            && credential.audiences.contains(&self.audience)
    }
}

/// A credential that almost matches: how far off, why, and whether it was made for this workload.
struct Near<'a> {
    credential: &'a ObservedCredential,
    /// 0 would be equal; up to 2 is a slip, above 6 has nothing to do with it.
    distance: u32,
    code: &'static str,
    what: String,
    difference: Option<Difference>,
    /// Whether to correct it (or to leave it and add one).
    correct: bool,
}

/// Judges the credentials of the identity.
pub(in crate::diagnose) fn credential(facts: &mut Facts<'_>) -> State {
    let evidence = facts.evidence;
    let Some(identity) = facts.identity else {
        if facts.proved() {
            return State::holds("Entra found one that matches");
        }
        return State::unclear("credentials of an identity that was not read", true);
    };
    let none = Vec::new();
    let listed = match evidence.credentials.get(&identity.id) {
        Some(Observation::Present(listed)) => listed,
        Some(Observation::Absent) => &none,
        Some(Observation::Unknown(_)) | None if facts.proved() => {
            return State::holds("Entra found one that matches");
        }
        Some(Observation::Unknown(failure)) => return State::unseen(failure),
        None => return State::unclear("the credentials were not listed", true),
    };
    if facts.identity_binding() {
        return binding(identity, listed);
    }
    let Some(issuer) = facts.issuer.clone() else {
        return State::unclear("the issuer is not known", true);
    };
    let presented = Presented { issuer, subject: facts.subject(), audience: facts.audience() };
    if let Some(found) = listed.iter().find(|credential| presented.matches(credential)) {
        return State::holds(found.name.clone());
    }
    let near = nearest(facts, &presented, listed);
    if facts.proved() {
        if let Some(near) = near {
            facts.note(
                "credential-works-though-it-differs",
                format!("Entra accepts credential {} although {}", near.credential.name, near.what),
                "correct it: Entra stopped forgiving this for others without notice",
            );
        }
        return State::holds("Entra found one that matches");
    }
    let slip = near.as_ref().is_some_and(|near| near.distance <= 2);
    if !slip && let Some(found) = elsewhere(facts, identity, &presented) {
        return found;
    }
    let Some(near) = near else { return missing(facts, identity, listed.len(), &presented) };
    let fix = facts.azure(repair(identity, &near, &presented));
    let message =
        format!("credential {} of {}: {}", near.credential.name, identity.id.name(), near.what);
    match near.difference {
        Some(difference) => State::differs(near.code, message, difference, fix),
        None => State::broken(near.code, message, fix),
    }
}

fn binding(identity: &ObservedIdentity, listed: &[ObservedCredential]) -> State {
    let bound = listed.iter().any(|found| found.name == names::IDENTITY_BINDING_CREDENTIAL);
    if bound {
        return State::holds("through an AKS identity binding");
    }
    State::broken(
        "identity-binding-missing",
        format!("pods ask tokens through an identity binding, and {} has none", identity.id.name()),
        Fix::command(format!(
            "az aks identity-binding create --managed-identity-resource-id {} --name <name> \
             --resource-group <resource group> --cluster-name <cluster>",
            fix::quoted(identity.id.as_str())
        )),
    )
}

/// The nearest credential that could have been meant for this workload.
fn nearest<'a>(
    facts: &Facts<'_>,
    presented: &Presented,
    listed: &'a [ObservedCredential],
) -> Option<Near<'a>> {
    let all = listed.iter().filter(|found| found.name != names::IDENTITY_BINDING_CREDENTIAL);
    all.filter_map(|credential| compare(facts, presented, credential))
        .filter(|near| near.distance <= 6)
        .min_by_key(|near| near.distance)
}

fn compare<'a>(
    facts: &Facts<'_>,
    presented: &Presented,
    credential: &'a ObservedCredential,
) -> Option<Near<'a>> {
    let subject = credential.subject.as_ref()?;
    let near = |distance, code, what, difference, correct| {
        Some(Near { credential, distance, code, what, difference, correct })
    };
    let issuer = issuer_slip(facts, credential.issuer.as_str(), &presented.issuer);
    let subjects = subject_slip(facts, subject.as_str(), &presented.subject);
    let audience = credential.audiences.contains(&presented.audience);
    match (issuer, subjects) {
        (None, None) => {
            let have = credential.audiences.first().map_or("", |audience| audience.as_str());
            let difference = Difference::between("audience", have, presented.audience.as_str());
            let what = format!("its audience is {have:?}, the token's is {}", presented.audience);
            near(1, "credential-audience-differs", what, difference, true)
        }
        (Some(found), None) | (None, Some(found)) => {
            let extra = u32::from(!audience);
            near(
                found.distance + extra,
                found.code,
                found.what,
                Some(found.difference),
                found.correct,
            )
        }
        (Some(issuer), Some(subject)) => {
            let distance = issuer.distance + subject.distance + 1;
            let what = format!("{}; and {}", issuer.what, subject.what);
            near(
                distance,
                issuer.code,
                what,
                Some(issuer.difference),
                issuer.correct && subject.correct,
            )
        }
    }
}

/// One field that differs.
struct Field {
    distance: u32,
    code: &'static str,
    what: String,
    difference: Difference,
    correct: bool,
}

fn issuer_slip(facts: &Facts<'_>, have: &str, want: &Issuer) -> Option<Field> {
    let difference = Difference::between("issuer", have, want.as_str())?;
    let field = |distance, code, what: String, correct| {
        Some(Field { distance, code, what, difference: difference.clone(), correct })
    };
    match difference.slip {
        Slip::TrailingSlash => {
            let what = if want.as_str().ends_with('/') { "lacks" } else { "has" };
            let what = format!("its issuer {what} the `/` at the end");
            return field(1, "credential-issuer-trailing-slash", what, true);
        }
        Slip::Case => {
            let what = "its issuer differs in upper and lower case".to_owned();
            return field(1, "credential-issuer-case", what, true);
        }
        Slip::WhiteSpace => {
            let what = "its issuer has blanks or invisible characters".to_owned();
            return field(1, "credential-issuer-white-space", what, true);
        }
        Slip::Typo | Slip::Other => {}
    }
    if have.contains("/.well-known/") || have.contains("/openid/v1/jwks") {
        let what = format!("its issuer is the address of a document, {have}");
        return field(2, "credential-issuer-is-document", what, true);
    }
    if have.contains(".azmk8s.io") || have.contains(".hcp.") {
        let what = format!("its issuer is the API server's address, {have}");
        return field(2, "credential-issuer-is-api-server", what, true);
    }
    if have.contains("kubernetes.default") {
        let what = format!("its issuer is the cluster's internal name, {have}");
        return field(2, "credential-issuer-is-internal", what, true);
    }
    let swap = |from: &str, to: &str| {
        have.strip_prefix(from).is_some_and(|rest| want.as_str() == format!("{to}{rest}"))
    };
    if swap("http://", "https://") || want.as_str() == format!("https://{have}") {
        let what = format!("its issuer is {have}, without https");
        return field(1, "credential-issuer-differs", what, true);
    }
    let other = facts.evidence.other_issuers.iter().find(|(_, issuer)| issuer.as_str() == have);
    if let Some((name, _)) = other {
        let what = format!("its issuer is that of cluster {name}");
        return field(3, "credential-issuer-other-cluster", what, false);
    }
    if difference.slip == Slip::Typo {
        let what = format!("its issuer is {have}, the cluster's is {want}");
        return field(2, "credential-issuer-differs", what, true);
    }
    let aks = have.contains("oic.prod-aks.azure.com") || have.contains("oidc.prod-aks.azure.com");
    if aks {
        let what = format!("its issuer {have} is of no cluster that is known (rebuilt?)");
        return field(3, "credential-issuer-other-cluster", what, true);
    }
    let what = format!("its issuer is {have}, the cluster's is {want}");
    field(4, "credential-issuer-differs", what, false)
}

fn subject_slip(facts: &Facts<'_>, have: &str, want: &Subject) -> Option<Field> {
    let difference = Difference::between("subject", have, want.as_str())?;
    let field = |distance, code, what: String, correct| {
        Some(Field { distance, code, what, difference: difference.clone(), correct })
    };
    match difference.slip {
        Slip::Case => {
            let what = "its subject differs in upper and lower case (AADSTS7002138)".to_owned();
            return field(1, "credential-subject-case", what, true);
        }
        Slip::WhiteSpace => {
            let what = "its subject has blanks or invisible characters".to_owned();
            return field(1, "credential-subject-white-space", what, true);
        }
        Slip::TrailingSlash => {
            let what = "its subject ends in `/`".to_owned();
            return field(1, "credential-subject-malformed", what, true);
        }
        Slip::Typo | Slip::Other => {}
    }
    let asked = &facts.evidence.asked;
    let parts: Vec<&str> = have.split(':').collect();
    let ["system", "serviceaccount", namespace, account] = parts[..] else {
        let about = have.contains(facts.account.as_str());
        let what = format!("its subject {have:?} is not system:serviceaccount:<namespace>:<name>");
        return field(if about { 2 } else { 6 }, "credential-subject-malformed", what, about);
    };
    let (ours, ourselves) = (asked.namespace.as_str(), facts.account.as_str());
    if (namespace, account) == (ourselves, ours) {
        let what = "its subject has namespace and account swapped".to_owned();
        return field(2, "credential-subject-malformed", what, true);
    }
    let others = facts.evidence.accounts.present();
    let in_use = |account: &str| {
        let exists = others.is_some_and(|all| all.keys().any(|name| name.as_str() == account));
        let templates = facts.evidence.templates.present().map_or(&[][..], Vec::as_slice);
        exists && templates.iter().any(|template| template.seen.account.as_str() == account)
    };
    let typo = difference.slip == Slip::Typo;
    if namespace == ours {
        if in_use(account) {
            return field(7, "credential-missing", String::new(), false);
        }
        let what = format!("its subject names account {account}, the pods run as {ourselves}");
        return field(if typo { 2 } else { 3 }, "credential-subject-account", what, true);
    }
    if account == ourselves {
        let what = format!("its subject names namespace {namespace}, the pods run in {ours}");
        return field(if typo { 2 } else { 3 }, "credential-subject-namespace", what, false);
    }
    let what = format!("its subject is {have}, the token's is {want}");
    field(if typo { 2 } else { 7 }, "credential-subject-differs", what, typo)
}

/// A credential that matches, on another identity.
fn elsewhere(
    facts: &Facts<'_>,
    identity: &ObservedIdentity,
    presented: &Presented,
) -> Option<State> {
    let others = facts.evidence.credentials.iter().filter(|(id, _)| **id != identity.id);
    let (owner, found) = others.into_iter().find_map(|(id, listed)| {
        let found = listed.present()?.iter().find(|found| presented.matches(found))?;
        Some((id, found))
    })?;
    let right = facts.evidence.identity_at(owner);
    let holds = |identity: &ObservedIdentity| {
        let mut seen = facts.evidence.assignments.seen.iter();
        seen.any(|assignment| assignment.principal_id == identity.principal_id)
    };
    // The account follows the credential only to the identity that may do something.
    let moved = right.filter(|right| !facts.in_file() && holds(right) && !holds(identity));
    let manual = match moved {
        Some(right) => facts.annotate(names::CLIENT_ID_ANNOTATION, &right.client_id.to_string()),
        None => facts.azure(Fix::command(create(identity, presented))),
    };
    let place = |id: &ArmId| {
        let group = id.resource_group().filter(|_| owner.name() == identity.id.name());
        group.map_or_else(|| id.name().to_owned(), |group| format!("{} in {group}", id.name()))
    };
    Some(State::broken(
        "credential-on-other-identity",
        format!(
            "the credential that matches ({}) is on {}, the account names {}",
            found.name,
            place(owner),
            place(&identity.id)
        ),
        manual,
    ))
}

fn missing(
    facts: &Facts<'_>,
    identity: &ObservedIdentity,
    listed: usize,
    presented: &Presented,
) -> State {
    let message = if listed == 0 {
        format!("identity {} has no federated credential", identity.id.name())
    } else {
        format!(
            "none of the {listed} federated credentials of {} is for {}",
            identity.id.name(),
            presented.subject
        )
    };
    let fix = if listed >= 20 {
        Fix::advice(format!(
            "{} has the 20 credentials Azure allows: give this workload an identity of its own",
            identity.id.name()
        ))
    } else {
        facts.azure(Fix::command(create(identity, presented)))
    };
    State::broken("credential-missing", message, fix)
}

fn create(identity: &ObservedIdentity, presented: &Presented) -> String {
    let words: Vec<&str> = presented.subject.as_str().rsplitn(3, ':').collect();
    let name: String = [words.get(1), words.first()]
        .into_iter()
        .flatten()
        .map(|word| word.replace('.', "-"))
        .collect::<Vec<_>>()
        .join("-");
    fix::credential(
        "create",
        identity,
        &name,
        &[
            ("issuer", presented.issuer.as_str()),
            ("subject", presented.subject.as_str()),
            ("audiences", presented.audience.as_str()),
        ],
    )
}

fn repair(identity: &ObservedIdentity, near: &Near<'_>, presented: &Presented) -> Fix {
    if !near.correct {
        return Fix::command(create(identity, presented));
    }
    Fix::command(fix::credential(
        "update",
        identity,
        &near.credential.name,
        &[
            ("issuer", presented.issuer.as_str()),
            ("subject", presented.subject.as_str()),
            ("audiences", presented.audience.as_str()),
        ],
    ))
}
