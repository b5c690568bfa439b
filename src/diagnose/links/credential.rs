//! The federated credential: issuer, subject and audience, to the byte.

use crate::{
    diagnose::{
        command::{CLUSTER, CLUSTER_GROUP, Line},
        difference::{Difference, Slip},
        facts::Facts,
        fix,
        link::{Fix, State},
    },
    model::{
        ArmId, Audience, Issuer, Subject,
        names::{self, MOST_CREDENTIALS},
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

    /// As options of `az`.
    fn fields(&self) -> [(&str, &str); 3] {
        [
            ("--issuer", self.issuer.as_str()),
            ("--subject", self.subject.as_str()),
            ("--audiences", self.audience.as_str()),
        ]
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
    /// Whether to correct it: only one that can work for nobody. Any other stays, and one is added.
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
        return binding(facts, identity, listed);
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
    if !slip && let Some(found) = elsewhere(facts, identity, listed, &presented) {
        return found;
    }
    let Some(near) = near else { return missing(facts, identity, listed, &presented) };
    let fix = if near.correct {
        let fields = presented.fields();
        let line = fix::credential("update", identity, &near.credential.name, &fields);
        facts.azure(Fix::typed([line]))
    } else {
        create(facts, identity, listed, &presented)
    };
    let message =
        format!("credential {} of {}: {}", near.credential.name, identity.id.name(), near.what);
    match near.difference {
        Some(difference) => State::differs(near.code, message, difference, fix),
        None => State::broken(near.code, message, fix),
    }
}

fn binding(facts: &Facts<'_>, identity: &ObservedIdentity, listed: &[ObservedCredential]) -> State {
    let bound = listed.iter().any(|found| found.name == names::IDENTITY_BINDING_CREDENTIAL);
    if bound {
        return State::holds("through an AKS identity binding");
    }
    State::broken(
        "identity-binding-missing",
        format!("pods ask tokens through an identity binding, and {} has none", identity.id.name()),
        Fix::typed([bind(facts, identity)]),
    )
}

fn bind(facts: &Facts<'_>, identity: &ObservedIdentity) -> Line {
    let line = Line::new("az").words(&[
        "aks",
        "identity-binding",
        "create",
        "--managed-identity-resource-id",
        identity.id.as_str(),
        "--name",
        identity.id.name(),
    ]);
    let asked = facts.evidence.asked.cluster_id.as_ref();
    let known = facts.evidence.cluster.present().map(|arm| &arm.id).or(asked);
    match known.and_then(|id| Some((id.resource_group()?, id.name()))) {
        Some((group, name)) => line.words(&["--resource-group", group, "--cluster-name", name]),
        None => line
            .words(&["--resource-group"])
            .value("", &CLUSTER_GROUP.into())
            .words(&["--cluster-name"])
            .value("", &CLUSTER.into()),
    }
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
    // The GUIDs of two issuers of AKS are never almost equal; other issuers may well be numbered.
    let aks = have.contains("oic.prod-aks.azure.com") || have.contains("oidc.prod-aks.azure.com");
    if difference.slip == Slip::Typo {
        let what = format!("its issuer is {have}, the cluster's is {want}");
        return field(2, "credential-issuer-differs", what, aks);
    }
    if aks {
        let what = match &facts.evidence.clusters_unseen {
            None => format!("its issuer {have} is of no cluster that was listed (rebuilt?)"),
            Some(failure) => format!(
                "its issuer {have} is of another cluster, rebuilt or not to be seen: {failure}"
            ),
        };
        // Even where every list was answered: the cluster may be in a subscription that nobody
        // named here.
        return field(3, "credential-issuer-other-cluster", what, false);
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
        return field(2, "credential-subject-malformed", what, false);
    }
    let typo = difference.slip == Slip::Typo;
    if namespace == ours {
        let free = match other_account(facts, account) {
            Other::InUse => return field(7, "credential-missing", String::new(), false),
            Other::Absent => true,
            Other::Idle => false,
        };
        let what = format!("its subject names account {account}, the pods run as {ourselves}");
        return field(if typo { 2 } else { 3 }, "credential-subject-account", what, free);
    }
    if account == ourselves {
        let what = format!("its subject names namespace {namespace}, the pods run in {ours}");
        return field(if typo { 2 } else { 3 }, "credential-subject-namespace", what, false);
    }
    let what = format!("its subject is {have}, the token's is {want}");
    field(if typo { 2 } else { 7 }, "credential-subject-differs", what, false)
}

/// Another account of the namespace, as far as the credential for it is concerned.
enum Other {
    /// Something acts as it, or may: pods of operators and jobs have templates that nobody lists.
    InUse,
    /// It is there, or may be, and nothing was seen to use it.
    Idle,
    /// It is not there: its credential can work for nobody.
    Absent,
}

fn other_account(facts: &Facts<'_>, account: &str) -> Other {
    let evidence = facts.evidence;
    let pods = evidence.pods.present().map_or(&[][..], Vec::as_slice);
    let templates = evidence.templates.present().map_or(&[][..], Vec::as_slice);
    let runs = pods.iter().any(|pod| pod.live() && pod.account.as_str() == account)
        || templates.iter().any(|template| template.seen.account.as_str() == account);
    let Some(accounts) = evidence.accounts.present() else {
        return if runs { Other::InUse } else { Other::Idle };
    };
    match accounts.iter().find(|(name, _)| name.as_str() == account) {
        None => Other::Absent,
        Some((_, seen)) => {
            let client = facts.identity.map(|identity| identity.client_id.to_string());
            let named = seen.meta.annotations.get(names::CLIENT_ID_ANNOTATION);
            let ours = client.zip(named).is_some_and(|(a, b)| b.trim().eq_ignore_ascii_case(&a));
            if runs || ours { Other::InUse } else { Other::Idle }
        }
    }
}

/// A credential that matches, on another identity.
fn elsewhere(
    facts: &Facts<'_>,
    identity: &ObservedIdentity,
    listed: &[ObservedCredential],
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
        Some(right) => facts.annotate(names::CLIENT_ID_ANNOTATION, right.client_id.to_string()),
        None => create(facts, identity, listed, presented),
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
    listed: &[ObservedCredential],
    presented: &Presented,
) -> State {
    let message = if listed.is_empty() {
        format!("identity {} has no federated credential", identity.id.name())
    } else {
        format!(
            "none of the {} federated credentials of {} is for {}",
            listed.len(),
            identity.id.name(),
            presented.subject
        )
    };
    State::broken("credential-missing", message, create(facts, identity, listed, presented))
}

/// Adds a credential. Azure's PUT replaces one of the same name without a word, so the name must be
/// free: whose it is, another cluster's pods may depend on it.
fn create(
    facts: &Facts<'_>,
    identity: &ObservedIdentity,
    listed: &[ObservedCredential],
    presented: &Presented,
) -> Fix {
    if listed.len() >= MOST_CREDENTIALS {
        return Fix::advice(format!(
            "{} has the {MOST_CREDENTIALS} credentials Azure allows: give this workload an identity of its own",
            identity.id.name()
        ));
    }
    let name = free_name(facts, listed, presented);
    facts.azure(Fix::typed([fix::credential("create", identity, &name, &presented.fields())]))
}

/// A name that no credential of the identity has: `<namespace>-<account>-<8 hex digits of the
/// issuer's hash>`, as names have 3 to 120 letters, digits, `-` and `_`.
fn free_name(facts: &Facts<'_>, listed: &[ObservedCredential], presented: &Presented) -> String {
    let stem: String = format!("{}-{}", facts.evidence.asked.namespace, facts.account)
        .replace('.', "-")
        .chars()
        .take(100)
        .collect();
    let first = format!("{stem}-{}", names::sha256_hex(presented.issuer.as_str(), 8));
    let taken = |name: &str| listed.iter().any(|found| found.name.eq_ignore_ascii_case(name));
    let mut name = first.clone();
    let mut count = 1;
    while taken(&name) {
        count += 1;
        name = format!("{first}-{count}");
    }
    name
}
