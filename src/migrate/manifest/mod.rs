//! What Git holds: the manifests of workloads that move, changed in place with comments and order
//! kept. Pure: files in, files out.
//!
//! A workload is written whole or not at all: a pod template that is labelled without its account
//! being annotated would start pods that cannot sign in. What cannot be changed without touching
//! anything else is refused, with the lines to write by hand.

mod build;
mod change;
mod edit;
mod find;
mod kustomize;
mod layer;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use build::Builds;
use change::Edits;
pub use edit::Fields;
use edit::Spot;
use find::{View, Wanted};

use super::{
    Survey, Workload, matching, phase,
    survey::{Acts, account_of},
};
use crate::model::{
    Audience, Subject,
    desired::DesiredWorkload,
    names,
    pod_identity::{AzureIdentityState, BINDING_LABEL, Binding, Estate, EstateTemplate},
};

/// A file under the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The path, as it is shown.
    pub path: String,
    /// What it holds.
    pub text: String,
}

/// One cluster, read and judged.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    /// What was read.
    pub estate: &'a Estate,
    /// What it means.
    pub survey: &'a Survey,
    /// The audience of the cluster's webhook.
    pub audience: &'a Audience,
}

/// A file that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The path.
    pub path: String,
    /// What it held.
    pub before: String,
    /// What it holds.
    pub after: String,
}

/// What becomes of a workload, or of one of its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Its manifest was changed.
    Rendered,
    /// Its manifest says so already.
    AsWanted,
    /// No manifest under the directory, and nobody keeps the object: `migrate apply` writes it, if it
    /// does not leave the workload alone.
    NotHere,
    /// It waits for `migrate apply`, or for a decision.
    NotYet,
    /// It cannot be done here.
    Cannot,
}

impl Outcome {
    /// The words in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rendered => "rendered",
            Self::AsWanted => "as wanted",
            Self::NotHere => "not here",
            Self::NotYet => "not yet",
            Self::Cannot => "cannot",
        }
    }
}

/// One object of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// `kind/name`.
    pub object: String,
    /// What becomes of it.
    pub outcome: Outcome,
    /// Where its manifests stand, `path:line`.
    pub at: Vec<String>,
    /// Why it cannot be done.
    pub why: Option<String>,
    /// What to write by hand.
    pub write: Vec<String>,
}

/// One workload of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rendered {
    /// The cluster.
    pub cluster: String,
    /// `namespace/account`.
    pub workload: String,
    /// What becomes of it.
    pub outcome: Outcome,
    /// Why it is not yet its turn.
    pub why: Option<String>,
    /// Its objects.
    pub objects: Vec<Piece>,
}

/// What is to be written, and what becomes of each workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendering {
    /// Files that change.
    pub files: Vec<Changed>,
    /// Every workload.
    pub workloads: Vec<Rendered>,
    /// Files that could not be read as manifests: the path, and why.
    pub unread: Vec<(String, String)>,
}

impl Rendering {
    /// Whether a workload that may move could not be rendered.
    pub fn is_stuck(&self) -> bool {
        self.workloads.iter().any(|workload| workload.outcome == Outcome::Cannot)
    }
}

/// Changes the manifests of every workload that may move. `have` is what the file decides in.
pub fn render(clusters: &[Cluster<'_>], have: &[DesiredWorkload], files: &[File]) -> Rendering {
    let mut rendering = Rendering::default();
    let builds = build::read(files, &mut rendering.unread);
    let mut edits = Edits::new();
    for cluster in clusters {
        for workload in &cluster.survey.workloads {
            let done = one(*cluster, clusters, workload, have, &builds, files, &mut edits);
            rendering.workloads.push(done);
        }
    }
    rendering.files = edits
        .into_iter()
        .map(|(n, edited)| Changed {
            path: files[n].path.clone(),
            before: files[n].text.clone(),
            after: edited.text.clone(),
        })
        .filter(|changed| changed.before != changed.after)
        .collect();
    rendering
}

fn one(
    cluster: Cluster<'_>,
    clusters: &[Cluster<'_>],
    workload: &Workload,
    have: &[DesiredWorkload],
    builds: &Builds,
    files: &[File],
    edits: &mut Edits,
) -> Rendered {
    let mut rendered = Rendered {
        cluster: cluster.survey.cluster.to_string(),
        workload: workload.name(),
        outcome: Outcome::NotYet,
        why: None,
        objects: Vec::new(),
    };
    rendered.why = not_yet(cluster, workload);
    if rendered.why.is_some() {
        return rendered;
    }
    // Other clusters may run the same manifest: theirs must want the same of it.
    let others = clusters.iter().filter(|other| other.survey.cluster != cluster.survey.cluster);
    let others: Vec<Wanted> = others
        .flat_map(|other| {
            let same = |w: &&Workload| w.name() == workload.name() && not_yet(*other, w).is_none();
            other.survey.workloads.iter().filter(same).map(|w| (*other, w))
        })
        .flat_map(|(other, w)| wanted(other, w, have))
        .collect();
    let mut tried = edits.clone();
    for want in wanted(cluster, workload, have) {
        let conflict = others.iter().any(|other| {
            other.kind == want.kind
                && other.name == want.name
                && other.fields.set != want.fields.set
        });
        let piece = if conflict {
            let why = "another cluster wants other values of it: choose one with --cluster";
            refused(&want, why.to_owned(), Vec::new())
        } else {
            piece(&want, clusters, builds, files, &mut tried)
        };
        rendered.objects.push(piece);
    }
    if workload.left_alone {
        for piece in rendered.objects.iter_mut().filter(|p| p.outcome == Outcome::NotHere) {
            piece.why = Some("`migrate apply` leaves it alone since it was put back".to_owned());
        }
    }
    let has = |outcome| rendered.objects.iter().any(|piece| piece.outcome == outcome);
    if has(Outcome::Cannot) {
        rendered.outcome = Outcome::Cannot;
        for piece in rendered.objects.iter_mut().filter(|p| p.outcome == Outcome::Rendered) {
            piece.outcome = Outcome::NotYet;
            piece.why = Some("not written: the workload changes whole or not at all".to_owned());
        }
        return rendered;
    }
    if has(Outcome::Rendered)
        && let Some(why) = half(cluster, workload, &rendered.objects)
    {
        for piece in rendered.objects.iter_mut().filter(|p| p.outcome == Outcome::Rendered) {
            piece.outcome = Outcome::NotYet;
        }
        rendered.why = Some(why);
        return rendered;
    }
    rendered.outcome = if has(Outcome::Rendered) {
        Outcome::Rendered
    } else if has(Outcome::AsWanted) {
        Outcome::AsWanted
    } else {
        Outcome::NotHere
    };
    *edits = tried;
    rendered
}

/// Why the half of a workload that is under the directory must not be changed alone: nobody writes the
/// other half, or not before new pods need it.
fn half(cluster: Cluster<'_>, workload: &Workload, objects: &[Piece]) -> Option<String> {
    let missing: Vec<&str> = objects
        .iter()
        .filter(|piece| piece.outcome == Outcome::NotHere)
        .map(|piece| piece.object.as_str())
        .collect();
    if missing.is_empty() {
        return None;
    }
    let missing = missing.join(", ");
    let take_up = format!("widentity migrate apply --only {}", workload.name());
    if workload.left_alone {
        return Some(format!(
            "it was put back, and `migrate apply` leaves it alone: nobody would write {missing}; \
             first: {take_up}"
        ));
    }
    let client = account_of(cluster.estate, (&workload.namespace, &workload.account))
        .and_then(|account| account.client_id.as_deref());
    let acts = workload.identity.as_ref()?;
    let named = client.is_some_and(|have| have.eq_ignore_ascii_case(&acts.client.to_string()));
    let account = objects.iter().any(|piece| {
        piece.outcome == Outcome::NotHere && piece.object.starts_with("serviceaccount/")
    });
    (account && !named).then(|| {
        format!(
            "{missing} is not under the directory and does not name the identity yet: pods with the \
             new label would have none; first: {take_up}"
        )
    })
}

/// Why a workload's manifests are left alone for now.
fn not_yet(cluster: Cluster<'_>, workload: &Workload) -> Option<String> {
    if !workload.may_move() {
        let codes: Vec<&str> = workload.reasons.iter().map(|reason| reason.code.as_str()).collect();
        return Some(format!("{}: {}", workload.verdict.as_str(), codes.join(", ")));
    }
    let credentials =
        workload.identity.as_ref().and_then(|acts| match cluster.estate.azure.get(&acts.id)? {
            AzureIdentityState::Present(_, credentials) => Some(credentials),
            AzureIdentityState::Gone | AzureIdentityState::Unknown(_) => None,
        });
    let subject = Subject::of(&workload.namespace, &workload.account);
    let issuer = cluster.estate.issuer.as_ref();
    let federated = credentials
        .is_some_and(|list| phase::is_federated(list, issuer, &subject, cluster.audience));
    // Git may be merged at once: the new pods must find their credential.
    (!federated).then(|| {
        "its identity is not federated: run `widentity migrate apply` first, which leaves alone \
         what Git holds"
            .to_owned()
    })
}

/// The account and the pod templates of a workload, with what they must say.
fn wanted(cluster: Cluster<'_>, workload: &Workload, have: &[DesiredWorkload]) -> Vec<Wanted> {
    let Some(acts) = &workload.identity else { return Vec::new() };
    let of =
        |d: &&DesiredWorkload| d.namespace == workload.namespace && d.account == workload.account;
    let expiration = have.iter().find(of).and_then(|decided| decided.token_expiration);
    let mut set = BTreeMap::from([
        (names::CLIENT_ID_ANNOTATION.to_owned(), acts.client.to_string()),
        (names::TENANT_ID_ANNOTATION.to_owned(), acts.tenant.to_string()),
    ]);
    set.extend(expiration.map(|s| (names::EXPIRATION_ANNOTATION.to_owned(), s.to_string())));
    let account = cluster
        .estate
        .accounts
        .iter()
        .find(|a| a.namespace == workload.namespace && a.name == workload.account);
    let mut all = vec![Wanted {
        kind: "serviceaccount",
        namespace: workload.namespace.clone(),
        name: workload.account.to_string(),
        path: vec!["metadata", "annotations"],
        fields: Fields { set, remove: Vec::new() },
        kept_by: account.and_then(|account| account.kept_by.clone()),
        labelled: false,
        values: None,
    }];
    let templates = cluster.estate.templates.iter().filter(|template| {
        template.namespace == workload.namespace && workload.templates.contains(&template.key())
    });
    all.extend(templates.map(|one| template(one, cluster.estate, acts)));
    all
}

fn template(template: &EstateTemplate, estate: &Estate, acts: &Acts) -> Wanted {
    let live = template.labels.get(BINDING_LABEL);
    // Of a template that was switched already the bindings of its identity tell.
    let bound = || {
        let own = |binding: &&Binding| {
            let identity = matching::identity_of(estate, binding);
            identity.and_then(matching::resource_id).is_some_and(|id| id == acts.id)
        };
        estate.bindings.iter().filter(own).map(|binding| binding.selector.clone()).collect()
    };
    let values: BTreeSet<String> = live.map_or_else(bound, |value| BTreeSet::from([value.clone()]));
    Wanted {
        kind: template.kind.as_str(),
        namespace: template.namespace.clone(),
        name: template.name.clone(),
        path: find::labels(template.kind),
        fields: Fields {
            set: BTreeMap::from([(names::USE_LABEL.to_owned(), "true".to_owned())]),
            remove: vec![BINDING_LABEL.to_owned()],
        },
        kept_by: template.kept_by.clone(),
        labelled: live.is_some(),
        values: Some(values).filter(|values| !values.is_empty()),
    }
}

fn refused(want: &Wanted, why: String, at: Vec<String>) -> Piece {
    let place = want.path.join(".");
    let mut write = Vec::new();
    write.extend(want.fields.remove.iter().map(|key| format!("{place}: without {key}")));
    let set = want.fields.set.iter();
    write.extend(set.map(|(key, value)| format!("{place}: {}", edit::entry(key, value))));
    let object = want.object();
    Piece { object, outcome: Outcome::Cannot, at, why: Some(why), write }
}

/// Changes the manifests of one object.
fn piece(
    want: &Wanted,
    clusters: &[Cluster<'_>],
    builds: &Builds,
    files: &[File],
    edits: &mut Edits,
) -> Piece {
    let view = View { builds, files, edits };
    let chosen = match view.choose(want, &namespaces(want, clusters)) {
        Ok(chosen) => chosen,
        Err(refusal) => return refused(want, refusal.why, refusal.at),
    };
    let Some(chosen) = chosen else {
        if let Some(by) = &want.kept_by {
            let why = format!("{by} keeps it, and its manifest is not under the directory");
            return refused(want, why, Vec::new());
        }
        let object = want.object();
        let at = Vec::new();
        return Piece { object, outcome: Outcome::NotHere, at, why: None, write: Vec::new() };
    };
    match change::change(want, &chosen, builds, files, edits) {
        Ok(changed) => {
            let view = View { builds, files, edits };
            let outcome = if changed.is_empty() { Outcome::AsWanted } else { Outcome::Rendered };
            let shown = if changed.is_empty() { vec![chosen.says[0].layer] } else { changed };
            let at = shown.into_iter().map(|layer| view.start(layer)).collect();
            Piece { object: want.object(), outcome, at, why: None, write: Vec::new() }
        }
        Err(refusal) => refused(want, refusal.why, refusal.at),
    }
}

/// The namespaces in which an object of this kind and name is: a manifest without a namespace can
/// be told only if there is one.
fn namespaces(want: &Wanted, clusters: &[Cluster<'_>]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for cluster in clusters {
        let templates = cluster.estate.templates.iter();
        let templates = templates
            .filter(|t| t.kind.as_str() == want.kind && t.name == want.name)
            .map(|t| t.namespace.to_string());
        let accounts = cluster.estate.accounts.iter();
        let accounts = accounts
            .filter(|a| want.kind == "serviceaccount" && a.name.as_str() == want.name)
            .map(|a| a.namespace.to_string());
        all.extend(templates.chain(accounts));
    }
    all.sort();
    all.dedup();
    all
}
