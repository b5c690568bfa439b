//! A cluster with Pod Identity in memory: the fake behind the executor, and behind it what
//! `migrate` reads and writes beside. Every world that a write leaves is looked at: whoever had a
//! working path to a credential must still have one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;
use widentity::{
    execute::RunOptions,
    kubernetes::{KubeError, Place},
    migrate::{
        self, Waived, Workload, matching, phase,
        removal::Removal,
        survey::{Given, Places},
        transition::{self, OldLabel},
    },
    model::{
        AccountName, ArmId, Audience, ClientId, ClusterName, Namespace, RemoteFailure, Subject,
        desired::DesiredState,
        names,
        pod_identity::{
            Assigned, AzureIdentityState, BINDING_LABEL, Backup, Binding, Estate, EstateAccount,
            EstatePod, EstateTemplate, Install, PodIdentity, TemplateBackup,
        },
        snapshot::*,
    },
    ops::{
        Scope,
        migrate::{
            Allowed, Moved, Objects, Patience, PutBack, Surveyed, apply, finish, proofs,
            rollback::{Putting, What, put_back},
        },
    },
};

use super::{
    fake::{self, Fake, Fault, locked},
    worlds,
};

pub(crate) const CLUSTER: &str = "aks-a";
const ARGO: &str = "argocd.argoproj.io/tracking-id";
const FLUX: &str = "kustomize.toolkit.fluxcd.io/name";

/// What the API server holds of Pod Identity, and MIC's part.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodIdentities {
    pub(crate) identities: Vec<PodIdentity>,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) installs: Vec<Install>,
    pub(crate) add_on: Option<Vec<String>>,
    pub(crate) backups: Vec<Backup>,
    /// What a snapshot does not say of a template, by its key.
    pub(crate) traits: BTreeMap<(Namespace, String), EstateTemplate>,
    /// What stays as it is: pods of nobody, exceptions, other objects.
    pub(crate) rest: Estate,
    /// Labels of pods by their revision: a pod keeps those it was made with.
    pub(crate) labels: BTreeMap<String, BTreeMap<String, String>>,
    /// How often MIC has been looked at since a binding went.
    pub(crate) looks: usize,
    /// Bindings that went.
    pub(crate) taken: Vec<(Namespace, String)>,
    /// How many objects were made again.
    pub(crate) uids: usize,
}

/// A workload that has a path at the beginning, and as whom.
#[derive(Debug, Clone)]
struct Served {
    namespace: Namespace,
    account: AccountName,
    identity: ArmId,
}

/// The cluster and everything around it.
pub(crate) struct Town {
    pub(crate) fake: Fake,
    pub(crate) base: DesiredState,
    pod_identities: Arc<Mutex<PodIdentities>>,
    fault: Arc<Mutex<Option<(usize, Fault)>>>,
}

fn cluster() -> ClusterName {
    CLUSTER.into()
}

fn kubernetes(world: &Snapshot) -> &KubernetesSnapshot {
    world.clusters[&cluster()].kubernetes.present().unwrap()
}

fn kept_by(meta: &ObjectMeta) -> Option<String> {
    if meta.annotations.contains_key(ARGO) {
        return Some("Argo CD".to_owned());
    }
    if meta.labels.contains_key(FLUX) {
        return Some("Flux".to_owned());
    }
    let helm = meta.labels.get("app.kubernetes.io/managed-by").is_some_and(|by| by == "Helm");
    helm.then(|| "Helm".to_owned())
}

/// Marks an object as kept by Argo CD.
pub(crate) fn keep_in_git(meta: &mut ObjectMeta) {
    meta.annotations.insert(ARGO.to_owned(), "shop:apps/Deployment:shop/api".to_owned());
}

/// Marks an object as kept by this tool.
pub(crate) fn keep(meta: &mut ObjectMeta, by: &str) {
    match by {
        "Argo CD" => keep_in_git(meta),
        "Flux" => drop(meta.labels.insert(FLUX.to_owned(), "apps".to_owned())),
        _ => drop(meta.labels.insert("app.kubernetes.io/managed-by".to_owned(), by.to_owned())),
    }
}

/// What `migrate` would read.
fn estate(world: &Snapshot, have: &PodIdentities) -> Estate {
    let arm = world.clusters[&cluster()].arm.present().unwrap();
    let kubernetes = kubernetes(world);
    let mut estate = Estate {
        cluster: cluster(),
        issuer: arm.issuer.clone(),
        workload_identity: arm.workload_identity,
        installed: true,
        identities: have.identities.clone(),
        bindings: have.bindings.clone(),
        installs: have.installs.clone(),
        add_on: have.add_on.clone(),
        backups: have.backups.clone(),
        ..have.rest.clone()
    };
    for (namespace, templates) in &kubernetes.templates {
        for t in templates.present().unwrap() {
            let counts = matches!(t.kind, TemplateKind::Deployment | TemplateKind::StatefulSet);
            let traits = have.traits.get(&(namespace.clone(), t.key())).cloned();
            estate.templates.push(EstateTemplate {
                namespace: namespace.clone(),
                kind: t.kind,
                api_version: t.api_version.clone(),
                name: t.name.clone(),
                uid: t.uid.clone(),
                account: t.account.clone(),
                labels: t.labels.clone(),
                annotations: t.annotations.clone(),
                kept_by: kept_by(&t.meta),
                replicas: counts.then_some(t.progress.desired),
                strategy: t.strategy,
                complete: t.progress.complete(),
                written: t
                    .meta
                    .annotations
                    .contains_key(names::PROJECT_ANNOTATION)
                    .then_some(Timestamp::UNIX_EPOCH),
                project: t.meta.annotations.get(names::PROJECT_ANNOTATION).cloned(),
                ..traits.unwrap_or_else(blank)
            });
        }
    }
    for (namespace, pods) in &kubernetes.pods {
        for pod in pods.present().unwrap() {
            let labels = pod.revision.as_ref().and_then(|revision| have.labels.get(revision));
            let client_ids = pod.injected.client_ids.clone();
            estate.pods.push(EstatePod {
                namespace: namespace.clone(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                account: pod.account.clone(),
                labels: labels.cloned().unwrap_or_default(),
                controller: pod
                    .controller
                    .as_ref()
                    .map(|(kind, name)| format!("{}/{name}", kind.to_lowercase())),
                gone: !pod.live(),
                ending: pod.deleting && !matches!(pod.phase.as_str(), "Succeeded" | "Failed"),
                succeeded: pod.phase == "Succeeded",
                ready: pod.ready,
                proxied: pod.injected.proxied,
                client_ids: if pod.injected.present { client_ids } else { BTreeSet::new() },
                created: pod.created,
                ..EstatePod::default()
            });
        }
    }
    for (namespace, accounts) in &kubernetes.accounts {
        for (name, account) in accounts.present().unwrap() {
            estate.accounts.push(EstateAccount {
                namespace: namespace.clone(),
                name: name.clone(),
                client_id: account.meta.annotations.get(names::CLIENT_ID_ANNOTATION).cloned(),
                kept_by: kept_by(&account.meta),
            });
        }
    }
    let named = estate.identities.iter().filter_map(matching::resource_id);
    let backed = estate.backups.iter().map(|backup| ArmId::new(backup.identity.clone()));
    for id in named.chain(backed).collect::<BTreeSet<_>>() {
        let seen = world.identities.get(&id).and_then(Observation::present);
        let list = world.credentials.get(&id).and_then(Observation::present);
        let state = match (seen, list) {
            (Some(seen), Some(list)) => AzureIdentityState::Present(seen.clone(), list.clone()),
            _ => match world.identities.get(&id) {
                Some(Observation::Unknown(why)) => AzureIdentityState::Unknown(why.clone()),
                _ => AzureIdentityState::Gone,
            },
        };
        estate.azure.insert(id, state);
    }
    estate
}

/// A template with nothing special about it.
pub(crate) fn blank() -> EstateTemplate {
    serde_json::from_value(json!({"namespace": "n", "kind": "deployment", "name": "n"})).unwrap()
}

/// Whether a pod with these labels and this environment gets a token of the identity.
fn has_path(
    estate: &Estate,
    served: &Served,
    labels: &BTreeMap<String, String>,
    clients: &BTreeSet<String>,
) -> bool {
    let Some(AzureIdentityState::Present(identity, credentials)) =
        estate.azure.get(&served.identity)
    else {
        return false;
    };
    let old = labels.get(BINDING_LABEL).is_some_and(|selector| {
        let reached = matching::reached(estate, &served.namespace, selector);
        let ids = reached.iter().filter_map(|r| r.identity.and_then(matching::resource_id));
        ids.into_iter().any(|id| id == served.identity)
    });
    let subject = Subject::of(&served.namespace, &served.account);
    let issuer = estate.issuer.as_ref();
    let new = labels.get(names::USE_LABEL).is_some_and(|value| value == "true")
        && estate.workload_identity
        && clients.iter().eq([&identity.client_id.to_string()])
        && phase::is_federated(credentials, issuer, &subject, &Audience::default());
    old || new
}

/// The pure property: every served workload has pods that serve, each of them has a path, and so
/// would a pod that is made now.
fn without_path(estate: &Estate, served: &[Served], accounts: &KubernetesSnapshot) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut templates: BTreeMap<_, Vec<&EstateTemplate>> = BTreeMap::new();
    for template in &estate.templates {
        templates.entry((&template.namespace, &template.account)).or_default().push(template);
    }
    let mut pods: BTreeMap<_, Vec<&EstatePod>> = BTreeMap::new();
    for pod in estate.pods.iter().filter(|pod| !pod.gone && pod.ready) {
        pods.entry((&pod.namespace, &pod.account)).or_default().push(pod);
    }
    for one in served {
        let name = format!("{}/{}", one.namespace, one.account);
        let key = (&one.namespace, &one.account);
        let annotations = accounts.accounts[&one.namespace]
            .present()
            .unwrap()
            .get(&one.account)
            .map(|account| account.meta.annotations.clone())
            .unwrap_or_default();
        for template in templates.get(&key).into_iter().flatten() {
            let injected = worlds::inject(&annotations, &Audience::default()).client_ids;
            if !has_path(estate, one, &template.labels, &injected) {
                wrong.push(format!("a new pod of {name} {} has no path", template.key()));
            }
            let own = pods.get(&key).into_iter().flatten();
            let mut pods = own.filter(|pod| template.stamps(pod));
            if template.replicas.is_some_and(|n| n > 0) && pods.clone().next().is_none() {
                wrong.push(format!("{name} {} has no pod that serves", template.key()));
            }
            if let Some(pod) = pods.find(|p| !has_path(estate, one, &p.labels, &p.client_ids)) {
                wrong.push(format!("pod {} of {name} has no path: {:?}", pod.name, pod.labels));
            }
        }
    }
    wrong
}

fn learn(have: &mut PodIdentities, world: &Snapshot) {
    for templates in kubernetes(world).templates.values() {
        for template in templates.present().unwrap() {
            let revision = worlds::revision(template);
            have.labels.entry(revision).or_insert_with(|| template.labels.clone());
        }
    }
}

/// How one run of a command went.
#[derive(Debug)]
pub(crate) enum Ran<T> {
    Ended(T),
    Killed,
}

impl Town {
    /// A town of this world. Whoever has a path now is watched.
    pub(crate) fn new(base: DesiredState, world: Snapshot, mut have: PodIdentities) -> Self {
        learn(&mut have, &world);
        let before = estate(&world, &have);
        let survey = survey(&before, &base, SignedDuration::ZERO);
        let served: Vec<Served> = survey
            .workloads
            .iter()
            .filter_map(|workload| {
                let identity = workload.identity.as_ref().map(|acts| acts.id.clone());
                Some(Served {
                    namespace: workload.namespace.clone(),
                    account: workload.account.clone(),
                    identity: identity.or_else(|| workload.reaches.first().cloned())?,
                })
            })
            .filter(|one| {
                without_path(&before, std::slice::from_ref(one), kubernetes(&world)).is_empty()
            })
            .collect();
        let pod_identities = Arc::new(Mutex::new(have));
        let fault: Arc<Mutex<Option<(usize, Fault)>>> = Arc::default();
        let due = Arc::clone(&fault);
        let mut fake = Fake::new(world).with_faults(move |number, _| {
            let fault = locked(&due);
            fault.as_ref().filter(|(at, _)| *at == number).map(|(_, fault)| fault.clone())
        });
        let have = Arc::clone(&pod_identities);
        fake.check = Some(Box::new(move |world| {
            let mut have = locked(&have);
            learn(&mut have, world);
            without_path(&estate(world, &have), &served, kubernetes(world))
        }));
        Self { fake, base, pod_identities, fault }
    }

    pub(crate) fn pod_identities(&self) -> PodIdentities {
        locked(&self.pod_identities).clone()
    }

    pub(crate) fn read(&self, soak: SignedDuration) -> Surveyed {
        let estate = estate(&self.fake.world(), &locked(&self.pod_identities));
        let survey = survey(&estate, &self.base, soak);
        Surveyed { estate, survey }
    }

    /// The workloads now, with the soak over at once.
    pub(crate) fn workloads(&self) -> Vec<Workload> {
        self.read(SignedDuration::ZERO).survey.workloads
    }

    /// The next run meets this fault at its call of this number, counted from 0.
    pub(crate) fn meet(&self, after: usize, fault: Fault) {
        *locked(&self.fault) = Some((self.fake.calls().len() + after, fault));
    }

    pub(crate) fn meet_nothing(&self) {
        *locked(&self.fault) = None;
    }

    /// One run of the program, which ends where it is killed.
    async fn run<T>(&self, command: impl Future<Output = T>) -> Ran<T> {
        self.fake.forget_proofs();
        tokio::select! {
            biased;
            () = self.fake.killed.notified() => Ran::Killed,
            done = command => Ran::Ended(done),
        }
    }

    /// `migrate apply`, with `--keep-old` or without; none where nothing is due.
    pub(crate) async fn apply(&self, old: OldLabel) -> Ran<Option<Moved>> {
        let mut read = self.read(SignedDuration::from_hours(24));
        // As with `--only`: what was put back is taken up again.
        read.survey.workloads.iter_mut().for_each(Workload::take_up);
        let due = apply::due(&read.survey, old);
        if due.is_empty() {
            return Ran::Ended(None);
        }
        let desired = transition::desired(&self.base, &cluster(), &due);
        let seen = self.fake.world().clone();
        let scope = Scope::of(&desired, "workloads.toml", true, Timestamp::UNIX_EPOCH);
        let (planned, backups) = apply::planned(&read, &desired, &seen, scope, old);
        let over: (&dyn Objects, &dyn widentity::execute::remote::Remote) = (self, &self.fake);
        let mut sink = |_: &_| {};
        let project = &self.base.project;
        let run = apply::carry_out(&planned, &backups, &read, project, over, options(), &mut sink);
        match self.run(run).await {
            Ran::Killed => Ran::Killed,
            Ran::Ended(moved) => Ran::Ended(moved.ok()),
        }
    }

    /// `migrate finish --soak` of everything.
    pub(crate) async fn finish(&self, soak: SignedDuration) -> Ran<Option<finish::Finished>> {
        let read = self.read(soak);
        let all: BTreeSet<String> = read.survey.workloads.iter().map(Workload::name).collect();
        let run = async {
            let mut proved = BTreeSet::new();
            if let Some(desired) = proofs::due(&self.base, &read, &all) {
                let seen = self.fake.world().clone();
                let mut sink = |_: &_| {};
                let scope = Scope::of(&desired, "workloads.toml", true, Timestamp::UNIX_EPOCH);
                let run = proofs::run(&desired, &seen, &self.fake, scope, options(), &mut sink);
                let proofs = run.await;
                proved = proofs.unwrap().passed;
            }
            let allowed = Allowed { chosen: &all, proved: &proved, unassign: false };
            let what: Removal = finish::decide(&read, allowed);
            if what.bindings.is_empty() && what.identities.is_empty() {
                return None;
            }
            let manager = names::field_manager(&self.base.project);
            let (_never, interrupt) = watch::channel(false);
            let patience = Patience::new(interrupt);
            let mut done = finish::Finished::default();
            for batch in finish::batches(&what) {
                // Entries of the add-on go through ARM, which is not here.
                let now = self.read(soak);
                let (still, _) = batch.still(&finish::decide(&now, allowed));
                let place =
                    finish::Place { client: self, shelf: &(), read: &now, manager: &manager };
                let gone = finish::remove(place, &still, &patience, &mut done).await;
                done.failure = done.failure.or(gone.err());
            }
            Some(done)
        };
        self.run(run).await
    }

    /// `migrate rollback` of one of the workloads that have a backup.
    pub(crate) async fn rollback(&self, which: usize) -> Ran<Option<PutBack>> {
        let read = self.read(SignedDuration::ZERO);
        let backups = &read.estate.backups;
        let Some(backup) = backups.get(which % backups.len().max(1)) else {
            return Ran::Ended(None);
        };
        let (_never, interrupt) = watch::channel(false);
        let patience = Patience {
            at_most: Duration::from_millis(60),
            look: Duration::from_millis(2),
            interrupt,
        };
        let project = &self.base.project;
        let with = Putting { project, served: false, blameless: false, patience, notes: &|_| {} };
        let run = put_back(self, &read, backup, What::Everything, &with);
        match self.run(run).await {
            Ran::Killed => Ran::Killed,
            Ran::Ended(how) => Ran::Ended(Some(how)),
        }
    }

    /// Git brings what it was told of one workload: the account's annotations, the new label in
    /// place of the old one, and new pods.
    pub(crate) fn git_arrives(&self, workload: &Workload) {
        let acts = workload.identity.as_ref().unwrap();
        let mut world = self.fake.world();
        let Observation::Present(seen) =
            &mut world.clusters.get_mut(&cluster()).unwrap().kubernetes
        else {
            unreachable!()
        };
        let Observation::Present(accounts) = seen.accounts.get_mut(&workload.namespace).unwrap()
        else {
            unreachable!()
        };
        let annotations = &mut accounts.get_mut(&workload.account).unwrap().meta.annotations;
        annotations.insert(names::CLIENT_ID_ANNOTATION.to_owned(), acts.client.to_string());
        annotations.insert(names::TENANT_ID_ANNOTATION.to_owned(), acts.tenant.to_string());
        let mut changed = Vec::new();
        let Observation::Present(templates) = seen.templates.get_mut(&workload.namespace).unwrap()
        else {
            unreachable!()
        };
        for template in templates.iter_mut().filter(|t| workload.templates.contains(&t.key())) {
            template.labels.remove(BINDING_LABEL);
            template.labels.insert(names::USE_LABEL.to_owned(), "true".to_owned());
            changed.push(template.clone());
        }
        for template in &changed {
            fake::replace_pods(&mut world, &cluster(), &workload.namespace, template);
        }
        learn(&mut locked(&self.pod_identities), &world);
    }

    /// Labels of every pod template, for comparing.
    pub(crate) fn labels(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let estate = self.read(SignedDuration::ZERO).estate;
        let key = |t: &EstateTemplate| format!("{}/{}", t.namespace, t.key());
        estate.templates.iter().map(|t| (key(t), t.labels.clone())).collect()
    }

    fn change<T>(&self, act: impl FnOnce(&mut PodIdentities) -> T) -> T {
        act(&mut locked(&self.pod_identities))
    }
}

fn survey(estate: &Estate, base: &DesiredState, soak: SignedDuration) -> migrate::Survey {
    migrate::survey(
        estate,
        Given {
            workloads: &base.workloads,
            may_enable: base.clusters.values().all(|cluster| cluster.enable.len() == 2),
            audience: &Audience::default(),
            now: Timestamp::UNIX_EPOCH,
            soak,
            // Nothing runs by itself here.
            waived: Waived { run: true, ..Waived::default() },
            places: &Places::new(),
        },
    )
}

/// Everything that waits is quick.
fn options() -> RunOptions {
    let (_, interrupt) = watch::channel(false);
    RunOptions {
        settle: Duration::from_millis(30),
        rollout_deadline: Duration::from_millis(60),
        pods_deadline: Duration::from_millis(20),
        looks_apart: Duration::from_millis(2),
        grace: Duration::from_millis(200),
        ..RunOptions::new(Timestamp::UNIX_EPOCH, interrupt)
    }
}

fn failed(failure: RemoteFailure) -> KubeError {
    KubeError::Body { message: failure.message }
}

fn gone(what: &str) -> RemoteFailure {
    RemoteFailure::new(widentity::model::FailureKind::Conflict, "write", what)
}

fn object(kind: &str, namespace: &Namespace, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "aadpodidentity.k8s.io/v1", "kind": kind,
        "metadata": {"namespace": namespace.as_str(), "name": name}, "spec": spec})
}

fn restore(
    have: &mut BTreeMap<String, String>,
    fields: &BTreeMap<String, widentity::model::pod_identity::Field>,
    found: &mut Vec<String>,
) {
    for (key, field) in fields {
        let now = have.get(key);
        if now != field.after.as_ref() && now != field.before.as_ref() {
            found.push(format!("{key} is {now:?} now"));
        }
    }
    if found.is_empty() {
        for (key, field) in fields {
            match &field.before {
                Some(before) => drop(have.insert(key.clone(), before.clone())),
                None => drop(have.remove(key)),
            }
        }
    }
}

#[async_trait]
impl Objects for Town {
    async fn write_backup(&self, backup: &Backup, _manager: &str) -> Result<(), KubeError> {
        let name = format!("{}/{}", backup.namespace, backup.account);
        let done = self.fake.call("write_backup", &name, |_| {
            self.change(|have| {
                let same =
                    |b: &Backup| b.namespace == backup.namespace && b.account == backup.account;
                have.backups.retain(|b| !same(b));
                have.backups.push(backup.clone());
            });
            Ok(())
        });
        done.await.map_err(failed)
    }

    async fn restore_template(
        &self,
        at: Place<'_>,
        kept: &TemplateBackup,
        _manager: &str,
    ) -> Result<Vec<String>, KubeError> {
        let name = format!("{}/{}", at.namespace, at.name);
        let done = self.fake.call("restore_template", &name, |world| {
            let all = fake::templates(world, &cluster(), at.namespace);
            let Some(template) = all.iter_mut().find(|t| t.uid == at.uid) else {
                return Err(gone("it was recreated"));
            };
            let mut found = Vec::new();
            let before = template.clone();
            restore(&mut template.labels, &kept.labels, &mut found);
            restore(&mut template.annotations, &kept.annotations, &mut found);
            if !found.is_empty() {
                *template = before;
                return Ok(found);
            }
            if kept.labels.get(names::USE_LABEL).is_some_and(|field| field.before.is_none()) {
                template.meta.annotations.remove(names::PROJECT_ANNOTATION);
                template.meta.owners.clear();
            }
            if (&before.labels, &before.annotations) != (&template.labels, &template.annotations) {
                let progress = &mut template.progress;
                progress.generation += 1;
                progress.observed_generation = progress.generation;
                progress.updated = progress.desired;
                progress.available = progress.desired;
                progress.total = progress.desired;
                progress.failed = None;
                let template = template.clone();
                fake::replace_pods(world, &cluster(), at.namespace, &template);
            }
            Ok(Vec::new())
        });
        done.await.map_err(failed)
    }

    async fn restore_account(
        &self,
        backup: &Backup,
        _manager: &str,
    ) -> Result<Vec<String>, KubeError> {
        let name = format!("{}/{}", backup.namespace, backup.account);
        let done = self.fake.call("restore_account", &name, |world| {
            let cluster = cluster();
            let at = widentity::execute::remote::AccountRef {
                cluster: &cluster,
                namespace: &backup.namespace,
                account: &backup.account,
            };
            let mut found = Vec::new();
            if let Some(account) = fake::accounts(world, at).get_mut(&backup.account) {
                let before = account.meta.annotations.clone();
                restore(&mut account.meta.annotations, &backup.annotations, &mut found);
                if !found.is_empty() {
                    account.meta.annotations = before;
                }
            }
            Ok(found)
        });
        done.await.map_err(failed)
    }

    async fn inhabitants(
        &self,
        namespace: &Namespace,
    ) -> Result<(Vec<ObservedTemplate>, Vec<EstatePod>), KubeError> {
        let done = self.fake.call("inhabitants", namespace.as_str(), |world| {
            let mut pods = self.change(|have| estate(world, have).pods);
            pods.retain(|pod| pod.namespace == *namespace);
            Ok((fake::templates(world, &cluster(), namespace).clone(), pods))
        });
        done.await.map_err(failed)
    }

    async fn remove_pod(&self, pod: &EstatePod) -> Result<(), KubeError> {
        let done = self.fake.call("remove_pod", &pod.name, |world| {
            let all = fake::kubernetes(world, &cluster()).pods.get_mut(&pod.namespace).unwrap();
            fake::present(all).retain(|other| other.uid != pod.uid);
            Ok(())
        });
        done.await.map_err(failed)
    }

    async fn make_again(&self, object: &Value, _manager: &str) -> Result<bool, KubeError> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let namespace = Namespace(text(&object["metadata"]["namespace"]));
        let name = text(&object["metadata"]["name"]);
        let spec = &object["spec"];
        let done = self.fake.call("make_again", &name, |_| {
            let made = self.change(|have| {
                have.uids += 1;
                let uid = format!("again-{}", have.uids);
                if object["kind"] == "AzureIdentity" {
                    let same = |i: &PodIdentity| i.namespace == namespace && i.name == name;
                    let absent = !have.identities.iter().any(same);
                    if absent {
                        have.identities.push(PodIdentity {
                            namespace: namespace.clone(),
                            name: name.clone(),
                            uid,
                            resource_id: text(&spec["resourceID"]),
                            client_id: text(&spec["clientID"]),
                            ..PodIdentity::default()
                        });
                    }
                    absent
                } else {
                    let same = |b: &Binding| b.namespace == namespace && b.name == name;
                    let absent = !have.bindings.iter().any(same);
                    if absent {
                        have.bindings.push(Binding {
                            namespace: namespace.clone(),
                            name: name.clone(),
                            uid,
                            identity: text(&spec["azureIdentity"]),
                            selector: text(&spec["selector"]),
                            ..Binding::default()
                        });
                    }
                    absent
                }
            });
            Ok(made)
        });
        done.await.map_err(failed)
    }

    async fn remove_binding(&self, object: &Binding) -> Result<Vec<String>, KubeError> {
        let name = format!("{}/{}", object.namespace, object.name);
        let done = self.fake.call("remove_binding", &name, |world| {
            self.change(|have| {
                let before = estate(world, have);
                let Some(at) = have.bindings.iter().position(|b| b.uid == object.uid) else {
                    return Ok(Vec::new());
                };
                // Nothing goes unproved: whoever was moved off this binding, in this very run.
                let bound = have.backups.iter().filter(|b| b.bindings.contains(&name));
                for backup in bound.filter(|b| !b.rolled_back) {
                    let Backup { namespace, account, client_id, .. } = backup;
                    let client: ClientId = client_id.parse().unwrap();
                    let live = before
                        .pods
                        .iter()
                        .filter(|p| !p.gone && p.namespace == *namespace && p.account == *account);
                    let mut live = live.filter(|p| !p.labels.is_empty());
                    if !self.fake.proved(namespace, account) {
                        locked(&self.fake.wrong)
                            .push(format!("{name} goes, {namespace}/{account} is not proved"));
                    }
                    if let Some(pod) = live.find(|p| !phase::is_proved(p, client)) {
                        locked(&self.fake.wrong)
                            .push(format!("{name} goes, pod {} is not proved", pod.name));
                    }
                }
                let gone = have.bindings.remove(at);
                have.taken.push((gone.namespace, gone.name));
                have.looks = 0;
                Ok(Vec::new())
            })
        });
        done.await.map_err(failed)
    }

    async fn remove_identity(&self, object: &PodIdentity) -> Result<Vec<String>, KubeError> {
        let name = format!("{}/{}", object.namespace, object.name);
        let done = self.fake.call("remove_identity", &name, |_| {
            self.change(|have| have.identities.retain(|i| i.uid != object.uid));
            Ok(Vec::new())
        });
        done.await.map_err(failed)
    }

    async fn pod_identity_binding(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        let done = self.fake.call("pod_identity_binding", name, |_| {
            Ok(self.change(|have| {
                let found =
                    have.bindings.iter().find(|b| b.namespace == *namespace && b.name == name);
                found.map(|b| {
                    let spec = json!({"azureIdentity": b.identity, "selector": b.selector});
                    object("AzureIdentityBinding", namespace, name, spec)
                })
            }))
        });
        done.await.map_err(failed)
    }

    async fn pod_identity(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        let done = self.fake.call("pod_identity", name, |_| {
            Ok(self.change(|have| {
                let found =
                    have.identities.iter().find(|i| i.namespace == *namespace && i.name == name);
                found.map(|i| {
                    let spec = json!({"type": 0, "resourceID": i.resource_id,
                        "clientID": i.client_id});
                    object("AzureIdentity", namespace, name, spec)
                })
            }))
        });
        done.await.map_err(failed)
    }

    async fn assigned(&self) -> Result<Vec<Assigned>, KubeError> {
        let done = self.fake.call("assigned", "", |_| {
            Ok(self.change(|have| {
                have.looks += 1;
                // MIC is slow: what it takes back is there for one more look.
                let gone = if have.looks < 2 { have.taken.clone() } else { Vec::new() };
                let names = have.bindings.iter().map(|b| (b.namespace.clone(), b.name.clone()));
                let assigned = names.chain(gone).map(|(namespace, name)| Assigned {
                    namespace: namespace.clone(),
                    name: format!("pod-{namespace}-id-0"),
                    uid: String::new(),
                    binding: Some(format!("{namespace}/{name}")),
                });
                assigned.collect()
            }))
        });
        done.await.map_err(failed)
    }
}
