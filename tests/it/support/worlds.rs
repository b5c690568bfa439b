//! Desired states and snapshots made by hand, and what a run would make of a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use widentity::{
    config,
    model::{
        AccountName, Address, ArmId, Audience, ClientId, ClusterName, Issuer, Namespace, Origin,
        PrincipalId, Project, RoleId, SubscriptionId, TenantId, address::Part, desired::*, names,
        snapshot::*,
    },
    plan::{Operation, Plan, Step, StepId, Value, step::Sidecar},
};

pub(crate) const PROJECT: &str = "shop";
const SUBSCRIPTION: &str = "00000000-0000-0000-0000-00000000000a";
const SECRETS_USER: &str = "4633458b-17de-408a-b874-0445c86b69e6";

pub(crate) fn tenant() -> TenantId {
    "11111111-1111-1111-1111-111111111111".parse().unwrap()
}

pub(crate) fn subscription() -> SubscriptionId {
    SUBSCRIPTION.parse().unwrap()
}

pub(crate) fn origin(line: u32) -> Origin {
    Origin { file: "workloads.toml".to_owned(), line, column: 1 }
}

/// A GUID that follows from a text: what the pure Azure invents.
fn guid(of: &str) -> Uuid {
    let digest = Sha256::digest(of.as_bytes());
    uuid::Builder::from_random_bytes(digest[..16].try_into().unwrap()).into_uuid()
}

pub(crate) fn cluster_id(name: &str) -> ArmId {
    ArmId::new(format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/\
         Microsoft.ContainerService/managedClusters/{name}"
    ))
}

pub(crate) fn vault(name: &str) -> ArmId {
    ArmId::new(format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/{name}"
    ))
}

pub(crate) fn issuer(cluster: &str) -> Issuer {
    Issuer(format!("https://westeurope.oic.prod-aks.azure.com/{}/{}/", tenant(), guid(cluster)))
}

/// A desired state without workloads.
pub(crate) fn desired(clusters: &[&str]) -> DesiredState {
    let clusters = clusters.iter().enumerate().map(|(n, name)| {
        let cluster = DesiredCluster {
            name: ClusterName::from(*name),
            id: cluster_id(name),
            enable: BTreeSet::new(),
            audience: Audience::default(),
            access: Access::Context { context: Some((*name).to_owned()), kubeconfig: None },
            origin: origin(u32::try_from(n).unwrap() + 10),
        };
        (cluster.name.clone(), cluster)
    });
    DesiredState {
        project: Project::from(PROJECT),
        tenant: tenant(),
        home: Home {
            subscription: subscription(),
            resource_group: "rg-identities".to_owned(),
            location: "westeurope".to_owned(),
        },
        clusters: clusters.collect(),
        identities: BTreeMap::new(),
        assignments: Vec::new(),
        workloads: Vec::new(),
    }
}

/// What the program makes of a file with the clusters of `base` and these tables; what it says
/// where it refuses them.
pub(crate) fn of_file(base: &DesiredState, tables: &str) -> Result<DesiredState, String> {
    let Home { subscription, resource_group, location } = &base.home;
    let head = format!(
        "version = 1\nproject = \"{}\"\n[azure]\ntenant = \"{}\"\nsubscription = \
         \"{subscription}\"\nresource_group = \"{resource_group}\"\nlocation = \"{location}\"\n",
        base.project, base.tenant
    );
    let cluster = |(name, cluster): (_, &DesiredCluster)| {
        format!("[clusters.{name}]\nid = \"{}\"\n", cluster.id)
    };
    let clusters: String = base.clusters.iter().map(cluster).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("workloads.toml");
    std::fs::write(&file, [&head, &clusters, tables].concat()).unwrap();
    let config = config::load(&file, &config::Disk).map_err(|found| found.render(false))?;
    let mut desired = config::compile(&config, &config::Selection::default()).unwrap();
    desired.clusters.clone_from(&base.clusters);
    Ok(desired)
}

/// Adds a workload with an identity of its own, or the named one, and a role on a vault each.
pub(crate) fn add_workload(
    desired: &mut DesiredState,
    namespace: &str,
    account: &str,
    clusters: &[&str],
    identity: Option<&str>,
    vaults: &[&str],
) {
    let (namespace, account) = (Namespace::from(namespace), AccountName::from(account));
    let own = names::identity(names::DEFAULT_IDENTITY_NAME, &desired.project, &namespace, &account);
    let name = identity.map_or(own, str::to_owned);
    let id = ArmId::of_identity(subscription(), "rg-identities", &name);
    let line = u32::try_from(desired.workloads.len()).unwrap() + 100;
    let tags = [
        (names::PROJECT_TAG, PROJECT.to_owned()),
        (names::SOURCE_TAG, "workloads.toml".to_owned()),
    ];
    desired.identities.entry(id.clone()).or_insert_with(|| DesiredIdentity {
        id: id.clone(),
        control: IdentityControl::Managed,
        tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        adopt: identity.is_some(),
        origin: origin(line),
    });
    let clusters: Vec<ClusterName> = clusters.iter().map(|name| ClusterName::from(*name)).collect();
    let index = desired.workloads.len();
    desired.workloads.push(DesiredWorkload {
        selected: clusters.iter().cloned().collect(),
        namespace: namespace.clone(),
        account: account.clone(),
        clusters,
        identity: id.clone(),
        tenant: tenant(),
        token_expiration: None,
        pods: PodSelection::All,
        rollout: RolloutMode::Auto,
        managed_by: ManagedBy::Auto,
        adopt: false,
        probe: None,
        proxy: false,
        chained: None,
        origin: origin(line),
    });
    for name in vaults {
        let (scope, role): (ArmId, RoleId) = (vault(name), SECRETS_USER.parse().unwrap());
        let known = desired.assignments.iter_mut().find(|a| a.identity == id && a.scope == scope);
        if let Some(known) = known {
            known.workloads.push(index);
            continue;
        }
        let key = format!("key-vault-secrets-user.{name}");
        desired.assignments.push(DesiredAssignment {
            identity: id.clone(),
            role: Role::Known { id: role, name: Some("Key Vault Secrets User".to_owned()) },
            scope,
            condition: None,
            workloads: vec![index],
            address: Address::workload(&namespace, &account).part(Part::RoleAssignment(key)),
            origin: origin(line),
        });
    }
}

/// A world in which the clusters run, with their issuers on, and nothing of the chain exists: each
/// workload has its namespace and an unlabelled Deployment with two pods.
pub(crate) fn bare_world(desired: &DesiredState) -> Snapshot {
    let mut snapshot = Snapshot {
        taken_at: Timestamp::UNIX_EPOCH,
        clusters: BTreeMap::new(),
        home: Observation::Present(()),
        identities: desired.identities.keys().map(|id| (id.clone(), Observation::Absent)).collect(),
        other_identities: Vec::new(),
        credentials: BTreeMap::new(),
        assignments: Assignments {
            seen: Vec::new(),
            looked: vec![(ArmId::of_subscription(subscription()), Observation::Present(()))],
        },
        roles: BTreeMap::new(),
        targets: BTreeMap::new(),
    };
    for (name, cluster) in &desired.clusters {
        let host = format!("{name}.example.test");
        let mut kubernetes = KubernetesSnapshot {
            evidence: Evidence {
                host: host.clone(),
                issuer: Observation::Present(issuer(name.as_str())),
            },
            version: "v1.33.1".to_owned(),
            namespaces: BTreeMap::new(),
            accounts: BTreeMap::new(),
            templates: BTreeMap::new(),
            pods: BTreeMap::new(),
            webhook: Observation::Present(ObservedWebhook {
                configurations: vec!["azure-wi-webhook-mutating-webhook-configuration".to_owned()],
                service_namespace: Some("kube-system".to_owned()),
            }),
            pod_security: BTreeMap::new(),
        };
        for workload in desired.workloads.iter().filter(|w| w.clusters.contains(name)) {
            let namespace = workload.namespace.clone();
            kubernetes.namespaces.insert(namespace.clone(), Observation::Present(()));
            kubernetes
                .accounts
                .entry(namespace.clone())
                .or_insert_with(|| Observation::Present(BTreeMap::new()));
            let template = template(workload.account.as_str(), &workload.account);
            let pods = (0..2).map(|n| pod(&template, n, &Injected::default())).collect::<Vec<_>>();
            push(&mut kubernetes.templates, &namespace, vec![template]);
            push(&mut kubernetes.pods, &namespace, pods);
        }
        let arm = ObservedCluster {
            id: cluster.id.clone(),
            location: "westeurope".to_owned(),
            provisioning_state: "Succeeded".to_owned(),
            power_state: Some("Running".to_owned()),
            issuer: Some(issuer(name.as_str())),
            workload_identity: true,
            fqdn: Some(host),
            private_fqdn: None,
            etag: None,
            kubernetes_version: Some("1.33.1".to_owned()),
            pod_identity: None,
        };
        let seen = ClusterSnapshot {
            arm: Observation::Present(arm),
            kubernetes: Observation::Present(kubernetes),
        };
        snapshot.clusters.insert(name.clone(), seen);
    }
    snapshot
}

fn push<T>(map: &mut BTreeMap<Namespace, Observation<Vec<T>>>, key: &Namespace, more: Vec<T>) {
    match map.entry(key.clone()).or_insert_with(|| Observation::Present(Vec::new())) {
        Observation::Present(list) => list.extend(more),
        Observation::Absent | Observation::Unknown(_) => {}
    }
}

/// An unlabelled Deployment.
pub(crate) fn template(name: &str, account: &AccountName) -> ObservedTemplate {
    ObservedTemplate {
        kind: TemplateKind::Deployment,
        api_version: "apps/v1".to_owned(),
        name: name.to_owned(),
        uid: guid(&format!("deployment {name}")).to_string(),
        meta: ObjectMeta::default(),
        owned_by: None,
        account: account.clone(),
        labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        annotations: BTreeMap::new(),
        literal_env: Vec::new(),
        host_network: false,
        windows: false,
        strategy: Strategy::RollingUpdate,
        progress: Progress {
            generation: 1,
            observed_generation: 1,
            desired: 2,
            updated: 2,
            total: 2,
            available: 2,
            ..Progress::default()
        },
    }
}

/// The hash of a template, which its pods carry.
pub(crate) fn revision(template: &ObservedTemplate) -> String {
    names::sha256_hex(&format!("{:?}{:?}", template.labels, template.annotations), 10)
}

/// A running pod of a template.
pub(crate) fn pod(template: &ObservedTemplate, n: usize, injected: &Injected) -> ObservedPod {
    let revision = revision(template);
    let name = format!("{}-{revision}-{n}", template.name);
    ObservedPod {
        uid: guid(&name).to_string(),
        name,
        account: template.account.clone(),
        controller: Some(match template.kind {
            TemplateKind::StatefulSet => ("StatefulSet".to_owned(), template.name.clone()),
            TemplateKind::DaemonSet => ("DaemonSet".to_owned(), template.name.clone()),
            _ => ("ReplicaSet".to_owned(), format!("{}-{revision}", template.name)),
        }),
        revision: Some(revision),
        labelled: template.labels.get(names::USE_LABEL).map(String::as_str) == Some("true"),
        phase: "Running".to_owned(),
        ready: true,
        deleting: false,
        created: Some(Timestamp::UNIX_EPOCH),
        injected: injected.clone(),
    }
}

/// What a run that did exactly `done` makes of the world.
pub(crate) fn apply(
    desired: &DesiredState,
    snapshot: &Snapshot,
    plan: &Plan,
    done: &BTreeSet<StepId>,
) -> Snapshot {
    let mut world = snapshot.clone();
    for step in plan.steps.iter().filter(|step| done.contains(&step.id)) {
        do_step(desired, &mut world, step);
    }
    world
}

/// All steps.
pub(crate) fn all(plan: &Plan) -> BTreeSet<StepId> {
    plan.steps.iter().map(|step| step.id).collect()
}

/// The steps that are done when `failing` fail: neither they nor what needs them.
pub(crate) fn without(plan: &Plan, failing: &BTreeSet<StepId>) -> BTreeSet<StepId> {
    let mut done = BTreeSet::new();
    for step in &plan.steps {
        if !failing.contains(&step.id) && step.needs.iter().all(|need| done.contains(need)) {
            done.insert(step.id);
        }
    }
    done
}

fn cluster_of(step: &Step) -> ClusterName {
    match &step.address {
        Address::Cluster(name) => name.clone(),
        Address::Workload { cluster: Some(name), .. } => name.clone(),
        other => panic!("{other} is in no cluster"),
    }
}

fn kubernetes<'a>(world: &'a mut Snapshot, cluster: &ClusterName) -> &'a mut KubernetesSnapshot {
    match &mut world.clusters.get_mut(cluster).unwrap().kubernetes {
        Observation::Present(kubernetes) => kubernetes,
        other => panic!("{other:?}"),
    }
}

fn present<T>(seen: &mut Observation<T>) -> &mut T {
    match seen {
        Observation::Present(value) => value,
        Observation::Absent => panic!("absent"),
        Observation::Unknown(failure) => panic!("{failure}"),
    }
}

fn identity<'a>(world: &'a Snapshot, name: &str) -> &'a ObservedIdentity {
    let found = world.identities.values().filter_map(Observation::present);
    found.into_iter().find(|identity| identity.id.name() == name).unwrap()
}

fn client(world: &Snapshot, value: &Value<ClientId>) -> ClientId {
    match value {
        Value::Known(client) => *client,
        Value::AfterApply(Address::Identity(name)) => identity(world, name).client_id,
        Value::AfterApply(other) => panic!("{other}"),
    }
}

fn do_step(desired: &DesiredState, world: &mut Snapshot, step: &Step) {
    let ours = names::field_manager(&desired.project);
    let owned = |key: &str| {
        let manager = Manager { name: ours.clone(), operation: "Apply".to_owned() };
        (OwnedField::Annotation(key.to_owned()), BTreeSet::from([manager]))
    };
    match &step.operation {
        Operation::EnableFeatures { id, features } => {
            let name = desired.clusters.values().find(|c| c.id == *id).unwrap().name.clone();
            let arm = present(&mut world.clusters.get_mut(&name).unwrap().arm);
            if features.contains(&Feature::OidcIssuer) {
                arm.issuer = Some(issuer(name.as_str()));
            }
            arm.workload_identity |= features.contains(&Feature::WorkloadIdentity);
        }
        Operation::CreateIdentity { id, location, tags } => {
            let made = ObservedIdentity {
                id: id.clone(),
                client_id: ClientId(guid(&format!("client {}", id.key()))),
                principal_id: PrincipalId(guid(&format!("principal {}", id.key()))),
                tenant_id: tenant(),
                location: location.clone(),
                tags: tags.clone(),
            };
            world.identities.insert(id.clone(), Observation::Present(made));
            world.credentials.insert(id.clone(), Observation::Present(Vec::new()));
        }
        Operation::TagIdentity { id, tags, .. } => {
            present(world.identities.get_mut(id).unwrap()).tags.extend(tags.clone());
        }
        Operation::PutCredential { identity, name, issuer, subject, audience, .. } => {
            let issuer = match issuer {
                Value::Known(issuer) => issuer.clone(),
                Value::AfterApply(_) => {
                    let arm = world.clusters[&cluster_of(step)].arm.present().unwrap();
                    arm.issuer.clone().unwrap()
                }
            };
            let list = present(world.credentials.get_mut(identity).unwrap());
            list.retain(|credential| credential.name != *name);
            assert!(
                !list.iter().any(|c| c.issuer == issuer && c.subject.as_ref() == Some(subject)),
                "Azure refuses a second credential for one issuer and subject"
            );
            list.push(ObservedCredential {
                name: name.clone(),
                issuer,
                subject: Some(subject.clone()),
                audiences: vec![audience.clone()],
            });
            assert!(list.len() <= 20, "Azure refuses more than twenty credentials");
        }
        Operation::PutAssignment {
            identity: id,
            principal,
            role,
            scope,
            name,
            condition,
            description,
            ..
        } => {
            let principal = match principal {
                Value::Known(principal) => *principal,
                Value::AfterApply(_) => identity(world, id.name()).principal_id,
            };
            let name = name.unwrap_or_else(|| {
                names::role_assignment(scope, principal, *role, &desired.project)
            });
            let seen = &mut world.assignments.seen;
            seen.retain(|assignment| assignment.name != name.to_string());
            seen.push(ObservedAssignment {
                id: scope
                    .child("providers/Microsoft.Authorization/roleAssignments", &name.to_string()),
                name: name.to_string(),
                principal_id: principal,
                role: *role,
                scope: scope.clone(),
                condition: condition.clone(),
                description: Some(description.clone()),
                created_on: None,
            });
        }
        Operation::CreateAccount { namespace, account } => {
            let cluster = cluster_of(step);
            let accounts = kubernetes(world, &cluster).accounts.get_mut(namespace).unwrap();
            let uid = guid(&format!("{cluster} {namespace} {account}")).to_string();
            let made = ObservedAccount { uid, meta: ObjectMeta::default() };
            assert!(present(accounts).insert(account.clone(), made).is_none(), "made twice");
        }
        Operation::AnnotateAccount {
            namespace, account, client: id, tenant, expiration, ..
        } => {
            let client = client(world, id);
            let accounts =
                kubernetes(world, &cluster_of(step)).accounts.get_mut(namespace).unwrap();
            let meta = &mut present(accounts).get_mut(account).unwrap().meta;
            let mut fields = vec![
                (names::CLIENT_ID_ANNOTATION, client.to_string()),
                (names::TENANT_ID_ANNOTATION, tenant.to_string()),
                (names::PROJECT_ANNOTATION, desired.project.to_string()),
            ];
            if let Some(seconds) = expiration {
                fields.push((names::EXPIRATION_ANNOTATION, seconds.to_string()));
            } else {
                let field = owned(names::EXPIRATION_ANNOTATION).0;
                if meta.owners.remove(&field).is_some() {
                    meta.annotations.remove(names::EXPIRATION_ANNOTATION);
                }
            }
            for (key, value) in fields {
                meta.annotations.insert(key.to_owned(), value);
                let (field, owners) = owned(key);
                meta.owners.insert(field, owners);
            }
        }
        Operation::RollTemplate {
            target,
            account,
            client: id,
            tenant,
            audience,
            expiration,
            round,
            wait,
            sidecar: proxy,
            ..
        } => {
            let client = client(world, id);
            let cluster = cluster_of(step);
            let annotations = {
                let accounts = kubernetes(world, &cluster).accounts[&target.namespace].clone();
                let accounts = accounts.present().unwrap();
                accounts.get(account).map(|a| a.meta.annotations.clone()).unwrap_or_default()
            };
            let chain = names::chain_value(client, *tenant, audience, *expiration, account, *round);
            let kubernetes = kubernetes(world, &cluster);
            let templates = present(kubernetes.templates.get_mut(&target.namespace).unwrap());
            let template = templates.iter_mut().find(|t| t.uid == target.uid).unwrap();
            template.labels.insert(names::USE_LABEL.to_owned(), "true".to_owned());
            template.annotations.insert(names::CHAIN_ANNOTATION.to_owned(), chain);
            sidecar(template, proxy, &desired.project);
            if *wait {
                let template = template.clone();
                let pods = present(kubernetes.pods.get_mut(&target.namespace).unwrap());
                let count = pods.iter().filter(|p| p.is_made_by(&template)).count();
                pods.retain(|p| !p.is_made_by(&template));
                let proxied = template.annotations.contains_key(names::PROXY_ANNOTATION);
                let injected = Injected { proxied, ..inject(&annotations, audience) };
                pods.extend((0..count).map(|n| pod(&template, n, &injected)));
            }
        }
        Operation::SettleRoles { .. }
        | Operation::ConfirmCluster { .. }
        | Operation::Prove { .. }
        | Operation::CheckInjection { .. }
        | Operation::AwaitRollout { .. }
        | Operation::ProvePods { .. } => {}
    }
}

/// What the webhook puts into a pod whose account has these annotations.
pub(crate) fn inject(account: &BTreeMap<String, String>, audience: &Audience) -> Injected {
    let values = |key: &str| account.get(key).cloned().into_iter().collect::<BTreeSet<String>>();
    let expiration = account.get(names::EXPIRATION_ANNOTATION).and_then(|text| text.parse().ok());
    Injected {
        present: true,
        client_ids: values(names::CLIENT_ID_ANNOTATION),
        tenant_ids: values(names::TENANT_ID_ANNOTATION),
        authority_hosts: BTreeSet::from(["https://login.microsoftonline.com/".to_owned()]),
        by_reference: BTreeSet::new(),
        audience: Some(audience.clone()),
        expiration: Some(expiration.unwrap_or(names::DEFAULT_EXPIRATION)),
        proxied: false,
    }
}

/// Does to a template what a roll says of the migration sidecar.
pub(crate) fn sidecar(template: &mut ObservedTemplate, sidecar: &Sidecar, project: &Project) {
    let key = names::PROXY_ANNOTATION.to_owned();
    let field = OwnedField::TemplateAnnotation(key.clone());
    match sidecar {
        Sidecar::NotOurs => {}
        Sidecar::Dropped { .. } => {
            template.annotations.remove(&key);
            template.meta.owners.remove(&field);
        }
        Sidecar::Set => {
            template.annotations.entry(key).or_insert_with(|| "true".to_owned());
            let name = names::field_manager(project);
            let manager = Manager { name, operation: "Apply".to_owned() };
            template.meta.owners.entry(field).or_default().insert(manager);
        }
    }
}
