//! An in-memory Azure, Entra and clusters behind the executor's `Remote`, kept as a snapshot so
//! that the planner can look at it. It can fail, hang or change at any call.

use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::Notify;
use uuid::Uuid;
use widentity::{
    execute::remote::{
        AccountFields, AccountRef, Assigned, Assignment, Notes, PodRun, Proved, Proving, Remote,
    },
    kubernetes::TemplateChange,
    model::{
        AccountName, ArmId, Audience, ClientId, ClusterName, FailureKind, Issuer, Namespace,
        PrincipalId, Project, RemoteFailure, Subject, desired::Feature, names, snapshot::*,
    },
    plan::step::{Sidecar, TemplateRef},
    prove::Probed,
};

use super::worlds;

/// What happens to one call.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It fails and nothing was done.
    Before(FailureKind),
    /// It was done, and the answer is an error.
    After(FailureKind),
    /// It takes this long.
    Slow(Duration),
    /// It never answers.
    Hangs,
    /// The program ends here: before the call took effect, or after.
    Kill { after: bool },
}

/// How controllers take a changed template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rollouts {
    Instant,
    Never,
    Fail,
}

type Faults = Box<dyn Fn(usize, &str) -> Option<Fault> + Send + Sync>;
/// What is wrong with a world.
type Check = Box<dyn Fn(&Snapshot) -> Vec<String> + Send + Sync>;

pub(crate) struct Fake {
    world: Mutex<Snapshot>,
    project: Project,
    faults: Faults,
    pub(crate) rollouts: Rollouts,
    /// Issuers that API servers put into tokens, where it is not ARM's.
    pub(crate) other_issuers: BTreeMap<ClusterName, Issuer>,
    pub(crate) webhook_works: bool,
    /// Templates whose new pods never become ready.
    pub(crate) failing: Mutex<BTreeSet<String>>,
    /// Asked of every world that a call leaves.
    pub(crate) check: Option<Check>,
    /// What it found: the call, and what is wrong.
    pub(crate) wrong: Mutex<Vec<String>>,
    /// Told when the program is to end.
    pub(crate) killed: Notify,
    /// Every call as `name object`, in order.
    calls: Mutex<Vec<String>>,
    /// Who was proved: cluster, namespace, account, client.
    proved: Mutex<BTreeSet<(ClusterName, Namespace, AccountName, ClientId)>>,
}

const WRITES: [&str; 8] = [
    "enable_features",
    "create_identity",
    "set_identity_tags",
    "put_credential",
    "put_assignment",
    "create_account",
    "apply_account",
    "apply_template",
];

/// Calls that leave the world as it is.
const READS: [&str; 11] = [
    "cluster",
    "identity",
    "credentials",
    "assignments",
    "prove",
    "token_issuer",
    "account",
    "dry_run_pod",
    "template",
    "templates",
    "pods",
];

pub(crate) fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap()
}

impl Fake {
    pub(crate) fn new(world: Snapshot) -> Self {
        Self {
            world: Mutex::new(world),
            project: Project::from(worlds::PROJECT),
            faults: Box::new(|_, _| None),
            rollouts: Rollouts::Instant,
            other_issuers: BTreeMap::new(),
            webhook_works: true,
            failing: Mutex::default(),
            check: None,
            wrong: Mutex::default(),
            killed: Notify::new(),
            calls: Mutex::default(),
            proved: Mutex::default(),
        }
    }

    /// The same world with these faults: by the call's number and by `name object`.
    pub(crate) fn with_faults(
        mut self,
        faults: impl Fn(usize, &str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        self.faults = Box::new(faults);
        self
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, Snapshot> {
        locked(&self.world)
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        locked(&self.calls).clone()
    }

    pub(crate) fn writes(&self) -> Vec<String> {
        let is_write = |call: &String| WRITES.contains(&call.split(' ').next().unwrap());
        self.calls().into_iter().filter(is_write).collect()
    }

    /// Who was proved since [`Self::forget_proofs`].
    pub(crate) fn proved(&self, namespace: &Namespace, account: &AccountName) -> bool {
        locked(&self.proved).iter().any(|(_, n, a, _)| n == namespace && a == account)
    }

    /// A new run knows no proofs.
    pub(crate) fn forget_proofs(&self) {
        locked(&self.proved).clear();
    }

    fn look(&self, call: &str) {
        if READS.contains(&call.split(' ').next().unwrap()) {
            return;
        }
        if let Some(check) = &self.check {
            let found = check(&self.world());
            locked(&self.wrong).extend(found.iter().map(|what| format!("after {call}: {what}")));
        }
    }

    pub(crate) async fn call<T>(
        &self,
        name: &str,
        object: &str,
        act: impl FnOnce(&mut Snapshot) -> Result<T, RemoteFailure>,
    ) -> Result<T, RemoteFailure> {
        let call = format!("{name} {object}");
        let number = {
            let mut calls = locked(&self.calls);
            calls.push(call.clone());
            calls.len() - 1
        };
        // Other steps get their turn, as they would over a network.
        tokio::task::yield_now().await;
        let failure =
            |kind| Err(RemoteFailure::new(kind, call.clone(), format!("fault at call {number}")));
        let acted = || {
            let done = act(&mut self.world());
            self.look(&call);
            done
        };
        match (self.faults)(number, &call) {
            None => acted(),
            Some(Fault::Before(kind)) => failure(kind),
            Some(Fault::After(kind)) => {
                acted()?;
                failure(kind)
            }
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                acted()
            }
            Some(Fault::Hangs) => future::pending().await,
            Some(Fault::Kill { after }) => {
                if after {
                    drop(acted());
                }
                self.killed.notify_one();
                future::pending().await
            }
        }
    }
}

fn conflict(what: &str) -> RemoteFailure {
    RemoteFailure::new(FailureKind::Conflict, "write", what)
}

pub(crate) fn kubernetes<'a>(
    world: &'a mut Snapshot,
    cluster: &ClusterName,
) -> &'a mut KubernetesSnapshot {
    match &mut world.clusters.get_mut(cluster).unwrap().kubernetes {
        Observation::Present(kubernetes) => kubernetes,
        Observation::Absent | Observation::Unknown(_) => panic!("cluster {cluster} is not read"),
    }
}

pub(crate) fn present<T>(seen: &mut Observation<T>) -> &mut T {
    match seen {
        Observation::Present(value) => value,
        Observation::Absent | Observation::Unknown(_) => panic!("not present"),
    }
}

pub(crate) fn templates<'a>(
    world: &'a mut Snapshot,
    cluster: &ClusterName,
    namespace: &Namespace,
) -> &'a mut Vec<ObservedTemplate> {
    present(kubernetes(world, cluster).templates.get_mut(namespace).unwrap())
}

pub(crate) fn accounts<'a>(
    world: &'a mut Snapshot,
    at: AccountRef<'_>,
) -> &'a mut BTreeMap<AccountName, ObservedAccount> {
    present(kubernetes(world, at.cluster).accounts.get_mut(at.namespace).unwrap())
}

pub(crate) fn guid(of: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, of.as_bytes())
}

/// What Azure makes of a PUT.
fn invent_identity(
    id: &ArmId,
    location: &str,
    tags: &BTreeMap<String, String>,
) -> ObservedIdentity {
    ObservedIdentity {
        id: id.clone(),
        client_id: ClientId(guid(&format!("client {}", id.key()))),
        principal_id: PrincipalId(guid(&format!("principal {}", id.key()))),
        tenant_id: worlds::tenant(),
        location: location.to_owned(),
        tags: tags.clone(),
    }
}

/// Server-side apply of a complete set of annotations.
fn own_annotations(meta: &mut ObjectMeta, project: &Project, wanted: &BTreeMap<String, String>) {
    let name = names::field_manager(project);
    let ours = |owners: &BTreeSet<Manager>| owners.iter().any(|manager| manager.name == name);
    let dropped: Vec<OwnedField> = meta
        .owners
        .iter()
        .filter(|(field, owners)| match field {
            OwnedField::Annotation(key) => ours(owners) && !wanted.contains_key(key),
            OwnedField::TemplateLabel(_) | OwnedField::TemplateAnnotation(_) => false,
        })
        .map(|(field, _)| field.clone())
        .collect();
    for field in dropped {
        if let OwnedField::Annotation(key) = &field {
            meta.annotations.remove(key);
        }
        meta.owners.remove(&field);
    }
    for (key, value) in wanted {
        meta.annotations.insert(key.clone(), value.clone());
        let manager = Manager { name: name.clone(), operation: "Apply".to_owned() };
        let field = OwnedField::Annotation(key.clone());
        meta.owners.insert(field, BTreeSet::from([manager]));
    }
}

/// What a controller does whose template changed: all its pods are new, and ready.
pub(crate) fn replace_pods(
    world: &mut Snapshot,
    cluster: &ClusterName,
    namespace: &Namespace,
    template: &ObservedTemplate,
) {
    let at = AccountRef { cluster, namespace, account: &template.account };
    let account = accounts(world, at).get(&template.account).cloned();
    let annotations = account.map(|a| a.meta.annotations).unwrap_or_default();
    let proxied = template.annotations.contains_key(names::PROXY_ANNOTATION);
    let injected = if template.labelled() {
        Injected { proxied, ..worlds::inject(&annotations, &Audience::default()) }
    } else {
        Injected::default()
    };
    let pods = present(kubernetes(world, cluster).pods.get_mut(namespace).unwrap());
    let count = pods.iter().filter(|pod| pod.is_made_by(template)).count();
    pods.retain(|pod| !pod.is_made_by(template));
    pods.extend((0..count).map(|n| worlds::pod(template, n, &injected)));
}

/// A template as calls name it.
fn key(cluster: &ClusterName, target: &TemplateRef) -> String {
    format!("{cluster}/{}/{}", target.namespace, target.name)
}

#[async_trait]
impl Remote for Fake {
    fn project(&self) -> &Project {
        &self.project
    }

    fn kubectl(&self, cluster: &ClusterName) -> String {
        format!("kubectl --context {cluster}")
    }

    async fn cluster(&self, id: &ArmId) -> Result<Option<ObservedCluster>, RemoteFailure> {
        self.call("cluster", id.name(), |world| {
            let mut seen = world.clusters.values().filter_map(|c| c.arm.present());
            Ok(seen.find(|arm| arm.id == *id).cloned())
        })
        .await
    }

    async fn enable_features(
        &self,
        id: &ArmId,
        features: &BTreeSet<Feature>,
        _notes: Notes,
    ) -> Result<ObservedCluster, RemoteFailure> {
        self.call("enable_features", id.name(), |world| {
            let (name, cluster) = world
                .clusters
                .iter_mut()
                .find(|(_, c)| c.arm.present().is_some_and(|arm| arm.id == *id))
                .unwrap();
            let arm = present(&mut cluster.arm);
            if features.contains(&Feature::OidcIssuer) {
                arm.issuer = Some(worlds::issuer(name.as_str()));
            }
            arm.workload_identity |= features.contains(&Feature::WorkloadIdentity);
            Ok(arm.clone())
        })
        .await
    }

    async fn identity(&self, id: &ArmId) -> Result<Option<ObservedIdentity>, RemoteFailure> {
        self.call("identity", id.name(), |world| {
            Ok(world.identities.get(id).and_then(Observation::present).cloned())
        })
        .await
    }

    async fn create_identity(
        &self,
        id: &ArmId,
        location: &str,
        tags: &BTreeMap<String, String>,
        _notes: Notes,
    ) -> Result<ObservedIdentity, RemoteFailure> {
        self.call("create_identity", id.name(), |world| {
            assert!(
                world.identities.get(id).and_then(Observation::present).is_none(),
                "a PUT on an existing identity replaces its tags"
            );
            let made = invent_identity(id, location, tags);
            world.identities.insert(id.clone(), Observation::Present(made.clone()));
            world.credentials.insert(id.clone(), Observation::Present(Vec::new()));
            Ok(made)
        })
        .await
    }

    async fn set_identity_tags(
        &self,
        id: &ArmId,
        tags: &BTreeMap<String, String>,
        _notes: Notes,
    ) -> Result<(), RemoteFailure> {
        self.call("set_identity_tags", id.name(), |world| {
            present(world.identities.get_mut(id).unwrap()).tags.clone_from(tags);
            Ok(())
        })
        .await
    }

    async fn credentials(
        &self,
        identity: &ArmId,
    ) -> Result<Option<Vec<ObservedCredential>>, RemoteFailure> {
        self.call("credentials", identity.name(), |world| {
            Ok(world.credentials.get(identity).and_then(Observation::present).cloned())
        })
        .await
    }

    async fn put_credential(
        &self,
        identity: &ArmId,
        credential: &ObservedCredential,
        _notes: Notes,
    ) -> Result<(), RemoteFailure> {
        self.call("put_credential", identity.name(), |world| {
            let list = present(world.credentials.get_mut(identity).unwrap());
            list.retain(|seen| seen.name != credential.name);
            let taken = list
                .iter()
                .any(|c| c.issuer == credential.issuer && c.subject == credential.subject);
            assert!(!taken, "Azure refuses a second credential for one issuer and subject");
            list.push(credential.clone());
            Ok(())
        })
        .await
    }

    async fn assignments(
        &self,
        scope: &ArmId,
        principal: PrincipalId,
    ) -> Result<Vec<ObservedAssignment>, RemoteFailure> {
        self.call("assignments", scope.name(), |world| {
            let seen = world.assignments.seen.iter();
            Ok(seen.filter(|a| a.principal_id == principal).cloned().collect())
        })
        .await
    }

    async fn put_assignment(
        &self,
        assignment: &Assignment<'_>,
        _notes: Notes,
    ) -> Result<Assigned, RemoteFailure> {
        self.call("put_assignment", assignment.scope.name(), |world| {
            let name = assignment.name.to_string();
            let seen = &mut world.assignments.seen;
            let same = |a: &&ObservedAssignment| {
                a.principal_id == assignment.principal
                    && a.role == assignment.role
                    && a.scope == *assignment.scope
            };
            if let Some(other) = seen.iter().find(same).filter(|a| a.name != name) {
                return Ok(Assigned::Existed(Some(other.name.clone())));
            }
            seen.retain(|a| a.name != name);
            let kind = "providers/Microsoft.Authorization/roleAssignments";
            seen.push(ObservedAssignment {
                id: assignment.scope.child(kind, &name),
                name,
                principal_id: assignment.principal,
                role: assignment.role,
                scope: assignment.scope.clone(),
                condition: assignment.condition.map(str::to_owned),
                description: Some(assignment.description.to_owned()),
                created_on: Some(Timestamp::UNIX_EPOCH),
            });
            Ok(Assigned::Made)
        })
        .await
    }

    async fn prove(
        &self,
        cluster: &ClusterName,
        proving: &Proving<'_>,
        notes: Notes,
    ) -> Result<Proved, RemoteFailure> {
        notes("Entra to answer");
        let object = format!("{cluster}/{}/{}", proving.namespace, proving.account);
        let issuer = self.issuer(cluster);
        let subject = Subject::of(proving.namespace, proving.account);
        let proved = self
            .call("prove", &object, |world| {
                let refused = |why: &str| {
                    Err(RemoteFailure::new(FailureKind::NotProved, "prove", why.to_owned()))
                };
                if issuer != proving.issuer {
                    return refused("another issuer");
                }
                let at =
                    AccountRef { cluster, namespace: proving.namespace, account: proving.account };
                if !accounts(world, at).contains_key(proving.account) {
                    return refused("no account");
                }
                let list = present(world.credentials.get_mut(proving.identity).unwrap());
                let fits = list.iter().any(|c| {
                    c.issuer == issuer
                        && c.subject.as_ref() == Some(&subject)
                        && c.audiences == [proving.audience.clone()]
                });
                if fits { Ok(()) } else { refused("no credential") }
            })
            .await;
        proved?;
        let who =
            (cluster.clone(), proving.namespace.clone(), proving.account.clone(), proving.client);
        locked(&self.proved).insert(who);
        Ok(Proved {
            issuer,
            subject,
            audience: proving.audience.clone(),
            principal: proving.principal,
            attempts: 1,
            answers: 1,
            method: "token".to_owned(),
            probe: proving.probe.map(|_| Probed::Passed),
        })
    }

    async fn prove_by_pod(
        &self,
        cluster: &ClusterName,
        proving: &Proving<'_>,
        _: PodRun<'_>,
        _: BoxFuture<'_, ()>,
        notes: Notes,
    ) -> Result<Proved, RemoteFailure> {
        let proved = self.prove(cluster, proving, notes).await?;
        Ok(Proved { method: "job".to_owned(), probe: None, ..proved })
    }

    async fn token_issuer(
        &self,
        at: AccountRef<'_>,
        _audience: &Audience,
    ) -> Result<Issuer, RemoteFailure> {
        let issuer = self.issuer(at.cluster);
        self.call("token_issuer", &at.to_string(), |_| Ok(issuer)).await
    }

    async fn account(&self, at: AccountRef<'_>) -> Result<Option<ObservedAccount>, RemoteFailure> {
        self.call("account", &at.to_string(), |world| {
            Ok(accounts(world, at).get(at.account).cloned())
        })
        .await
    }

    async fn create_account(&self, at: AccountRef<'_>) -> Result<ObservedAccount, RemoteFailure> {
        self.call("create_account", &at.to_string(), |world| {
            if accounts(world, at).contains_key(at.account) {
                return Err(conflict("it exists"));
            }
            let uid = guid(&at.to_string()).to_string();
            let made = ObservedAccount { uid, meta: ObjectMeta::default() };
            accounts(world, at).insert(at.account.clone(), made.clone());
            Ok(made)
        })
        .await
    }

    async fn apply_account(
        &self,
        at: AccountRef<'_>,
        fields: &AccountFields<'_>,
    ) -> Result<(), RemoteFailure> {
        self.call("apply_account", &at.to_string(), |world| {
            let client = fields.annotations[names::CLIENT_ID_ANNOTATION].parse().unwrap();
            let who = (at.cluster.clone(), at.namespace.clone(), at.account.clone(), client);
            assert!(
                locked(&self.proved).contains(&who),
                "an account is pointed at an identity that was not proved"
            );
            let Some(account) = accounts(world, at).get_mut(at.account) else {
                return Err(conflict("it is gone"));
            };
            if account.uid != fields.uid {
                return Err(conflict("it was recreated"));
            }
            own_annotations(&mut account.meta, &self.project, fields.annotations);
            Ok(())
        })
        .await
    }

    async fn dry_run_pod(
        &self,
        at: AccountRef<'_>,
        like: &TemplateRef,
        proxy: bool,
    ) -> Result<Option<Injected>, RemoteFailure> {
        self.call("dry_run_pod", &at.to_string(), |world| {
            if !templates(world, at.cluster, &like.namespace).iter().any(|t| t.name == like.name) {
                return Ok(None);
            }
            let account = accounts(world, at).get(at.account).cloned();
            let annotations = account.map(|a| a.meta.annotations).unwrap_or_default();
            Ok(Some(if self.webhook_works {
                Injected { proxied: proxy, ..worlds::inject(&annotations, &Audience::default()) }
            } else {
                Injected::default()
            }))
        })
        .await
    }

    async fn template(
        &self,
        cluster: &ClusterName,
        target: &TemplateRef,
    ) -> Result<Option<ObservedTemplate>, RemoteFailure> {
        self.call("template", &key(cluster, target), |world| {
            let mut all = templates(world, cluster, &target.namespace).iter();
            Ok(all.find(|t| t.name == target.name).cloned())
        })
        .await
    }

    async fn apply_template(
        &self,
        cluster: &ClusterName,
        target: &TemplateRef,
        change: TemplateChange<'_>,
    ) -> Result<ObservedTemplate, RemoteFailure> {
        self.call("apply_template", &key(cluster, target), |world| {
            self.patch(world, cluster, target, |template| {
                for (have, removed) in [
                    (&mut template.labels, change.remove_labels),
                    (&mut template.annotations, change.remove_annotations),
                ] {
                    if removed.iter().any(|(key, value)| have.get(key).is_some_and(|v| v != value))
                    {
                        return Err(conflict("it has another value"));
                    }
                    have.retain(|key, _| !removed.contains_key(key));
                }
                own_annotations(&mut template.meta, &self.project, change.own);
                template.labels.extend(change.labels.clone());
                template.annotations.extend(change.annotations.clone());
                if let Some(value) = change.remove_annotations.get(names::PROXY_ANNOTATION) {
                    let dropped = Sidecar::Dropped { value: value.clone() };
                    worlds::sidecar(template, &dropped, &self.project);
                }
                if change.annotations.contains_key(names::PROXY_ANNOTATION) {
                    worlds::sidecar(template, &Sidecar::Set, &self.project);
                }
                Ok(())
            })
        })
        .await
    }

    async fn templates(
        &self,
        cluster: &ClusterName,
        namespace: &Namespace,
    ) -> Result<Vec<ObservedTemplate>, RemoteFailure> {
        self.call("templates", namespace.as_str(), |world| {
            Ok(templates(world, cluster, namespace).clone())
        })
        .await
    }

    async fn pods(
        &self,
        cluster: &ClusterName,
        namespace: &Namespace,
        account: &AccountName,
    ) -> Result<Vec<ObservedPod>, RemoteFailure> {
        self.call("pods", namespace.as_str(), |world| {
            let pods = present(kubernetes(world, cluster).pods.get_mut(namespace).unwrap());
            Ok(pods.iter().filter(|pod| pod.account == *account).cloned().collect())
        })
        .await
    }
}

impl Fake {
    /// One write of a pod template, and what its controller does about it.
    fn patch(
        &self,
        world: &mut Snapshot,
        cluster: &ClusterName,
        target: &TemplateRef,
        write: impl FnOnce(&mut ObservedTemplate) -> Result<(), RemoteFailure>,
    ) -> Result<ObservedTemplate, RemoteFailure> {
        let all = templates(world, cluster, &target.namespace);
        let Some(template) = all.iter_mut().find(|t| t.uid == target.uid) else {
            return Err(conflict("it was recreated"));
        };
        let mut written = template.clone();
        write(&mut written)?;
        let same =
            (&written.labels, &written.annotations) == (&template.labels, &template.annotations);
        *template = written;
        if same {
            return Ok(template.clone());
        }
        let fails = locked(&self.failing).contains(&template.name);
        let rollouts = if fails { Rollouts::Fail } else { self.rollouts };
        let progress = &mut template.progress;
        progress.generation += 1;
        progress.observed_generation = progress.generation;
        match rollouts {
            Rollouts::Instant => {}
            Rollouts::Never => {
                progress.updated = 1;
                progress.available = 1;
            }
            Rollouts::Fail => {
                progress.updated = 1;
                progress.failed = Some("ProgressDeadlineExceeded".to_owned());
            }
        }
        let template = template.clone();
        if rollouts == Rollouts::Instant {
            replace_pods(world, cluster, &target.namespace, &template);
        }
        Ok(template)
    }

    fn issuer(&self, cluster: &ClusterName) -> Issuer {
        let other = self.other_issuers.get(cluster).cloned();
        other.unwrap_or_else(|| worlds::issuer(cluster.as_str()))
    }
}
