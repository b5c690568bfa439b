//! Reading everything of a cluster that matters for leaving AAD Pod Identity: its objects, the pod
//! templates of all controllers, pods, and what else refers to it. The lists are read side by side.

use std::collections::BTreeSet;

use futures::{future::join_all, join};
use serde_json::Value;

use super::{
    Client, KubeError, Within,
    client::segment,
    parse_stamp::{steered, template},
    parse_template::Steering,
    pod_identity::{
        BACKUP_LABEL, BACKUP_MARK, GROUP, account, assigned, backup, binding, exception, identity,
        install, pod, secret_class, trigger,
    },
    versions::{collection, plural},
};
use crate::model::{
    Namespace, RemoteFailure,
    pod_identity::{Estate, EstatePod, EstateTemplate, Install, Named},
    snapshot::TemplateKind,
};

/// Drivers before 1.0 serve the second alone.
const SECRETS_STORE: [&str; 2] =
    ["secrets-store.csi.x-k8s.io/v1", "secrets-store.csi.x-k8s.io/v1alpha1"];
const KEDA: &str = "keda.sh/v1alpha1";

/// One list: none where the kind is not served.
type Part<T> = Result<Option<Vec<T>>, RemoteFailure>;

/// The Rollouts with a `workloadRef`, and where they are.
pub(super) type Steerings = Vec<(Namespace, Steering)>;

/// Names the controller of a pod of a Rollout as if the Deployment that it refers to had made it.
pub(super) fn claim(steerings: &Steerings, pod: &mut EstatePod) {
    let Some(set) = pod.controller.as_deref().and_then(|c| c.strip_prefix("replicaset/")) else {
        return;
    };
    let revision = pod.labels.get("rollouts-pod-template-hash").map(String::as_str);
    let mut here = steerings.iter().filter(|(namespace, _)| *namespace == pod.namespace);
    let renamed = here.find_map(|(_, by)| by.renamed(set, revision));
    if let Some(name) = renamed {
        pod.controller = Some(format!("replicaset/{name}"));
    }
}

/// What was refused. Refused is not absent.
#[derive(Default)]
struct Unseen(Vec<RemoteFailure>);

impl Unseen {
    fn of<T>(&mut self, part: Part<T>) -> Option<Vec<T>> {
        match part {
            Ok(found) => found,
            Err(failure) => {
                self.0.push(failure);
                Some(Vec::new())
            }
        }
    }

    fn all<T>(&mut self, part: Part<T>) -> Vec<T> {
        self.of(part).unwrap_or_default()
    }

    /// Those that could be read; the others are not absent.
    fn readable<T>(&mut self, part: Part<Result<T, RemoteFailure>>) -> Vec<T> {
        let all = self.all(part).into_iter();
        all.filter_map(|one| one.map_err(|failure| self.0.push(failure)).ok()).collect()
    }
}

impl Client {
    /// Every object of a collection, reduced by `each`; none where the kind is not served.
    pub(super) async fn collect<T>(
        &self,
        version: &str,
        plural: &str,
        query: &[(&'static str, String)],
        each: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, KubeError> {
        let path = collection(version, None, plural);
        let fold = |found: &mut Vec<T>, object: Value| found.extend(each(&object));
        match self.list_where(&path, query, fold).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_served() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn part<T>(
        &self,
        what: &str,
        version: &str,
        plural: &str,
        each: impl Fn(&Value) -> Option<T>,
    ) -> Part<T> {
        let found = self.collect(version, plural, &[], each).await;
        found.map_err(|error| error.failure(format!("list {what}")))
    }

    /// Whether a pod of this name is being deleted and has not ended.
    pub async fn pod_is_ending(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<bool, KubeError> {
        let path = collection("v1", Some(namespace.as_str()), "pods");
        let found: Option<Value> = self.find(format!("{path}/{}", segment(name))).await?;
        Ok(found.is_some_and(|object| pod(&object).ending))
    }

    /// `SecretProviderClass` objects that use Pod Identity, in whichever version is served.
    async fn secret_classes(&self) -> Part<Named> {
        let mut found = Ok(None);
        for version in SECRETS_STORE {
            let plural = "secretproviderclasses";
            found = self.part("SecretProviderClass objects", version, plural, secret_class).await;
            if !matches!(found, Ok(None)) {
                break;
            }
        }
        found
    }

    /// Controllers that are not stamped by one of these themselves, and the parts of Pod Identity
    /// among them; and the Rollouts that refer to a Deployment's template.
    async fn stamping(&self) -> (Vec<Part<(EstateTemplate, Option<Install>)>>, Steerings) {
        let mut failures = Vec::new();
        let mut kinds = Vec::new();
        let mut steerings = Vec::new();
        match self.versions().await {
            Ok(versions) => {
                kinds = versions.kinds();
                match self.steerings(Within::Everywhere).await {
                    Ok(found) => steerings = found,
                    Err(error) => failures.push(Err(error.failure("list rollouts"))),
                }
            }
            Err(error) => failures.push(Err(error.failure("discover the kinds of controllers"))),
        }
        kinds.push((TemplateKind::ReplicaSet, "apps/v1"));
        kinds.push((TemplateKind::ReplicationController, "v1"));
        kinds.push((TemplateKind::Job, "batch/v1"));
        let each = kinds.into_iter().map(async |(kind, version)| {
            let each = |o: &Value| {
                let mut template = template(kind, version, o)?;
                let of = |(namespace, by): &&(Namespace, Steering)| {
                    (&template.namespace, &template.name) == (namespace, &by.deployment)
                };
                if kind == TemplateKind::Deployment
                    && let Some((_, by)) = steerings.iter().find(of)
                {
                    steered(&mut template, o, by);
                }
                Some((template, install(kind, o)))
            };
            self.part(plural(kind), version, plural(kind), each).await
        });
        let mut found = join_all(each).await;
        found.extend(failures);
        (found, steerings)
    }

    /// Reads everything of Pod Identity that this cluster's API server knows. What is refused is
    /// among [`Estate::unseen`], and the rest is read all the same.
    pub async fn estate(&self) -> Estate {
        let ours = [("labelSelector", format!("{BACKUP_LABEL}={BACKUP_MARK}"))];
        let backups = async {
            let found = self.collect("v1", "configmaps", &ours, |o| Some(backup(o))).await;
            found.map_err(|error| error.failure("list backups of widentity"))
        };
        let identities =
            self.part("AzureIdentity objects", GROUP, "azureidentities", |o| Some(identity(o)));
        let bindings =
            self.part("AzureIdentityBinding objects", GROUP, "azureidentitybindings", |o| {
                Some(binding(o))
            });
        let exceptions = self.part(
            "AzurePodIdentityException objects",
            GROUP,
            "azurepodidentityexceptions",
            |o| Some(exception(o)),
        );
        let assigned =
            self.part("AzureAssignedIdentity objects", GROUP, "azureassignedidentities", |o| {
                Some(assigned(o))
            });
        let pods = self.part("pods", "v1", "pods", |o| {
            let on_node = o["spec"]["nodeName"].is_string();
            Some((pod(o), template(TemplateKind::Pod, "v1", o), on_node))
        });
        let accounts = self.part("service accounts", "v1", "serviceaccounts", |o| Some(account(o)));
        let classes = self.secret_classes();
        let triggers =
            self.part("TriggerAuthentication objects", KEDA, "triggerauthentications", trigger);
        let wide = self.part(
            "ClusterTriggerAuthentication objects",
            KEDA,
            "clustertriggerauthentications",
            trigger,
        );
        // Who may use an object is read after the object: whatever came between them is seen.
        let (identities, bindings, exceptions, assigned) =
            join!(identities, bindings, exceptions, assigned);
        let ((stamping, steerings), pods, accounts, classes, triggers, wide, backups) =
            join!(self.stamping(), pods, accounts, classes, triggers, wide, backups);
        let (version, namespaces, webhook) =
            join!(self.version(), self.namespaces(), self.webhook());

        let mut unseen = Unseen::default();
        let identities = unseen.of(identities);
        let bindings = unseen.of(bindings);
        let exceptions = unseen.of(exceptions);
        let assigned = unseen.of(assigned);
        let installed = identities.is_some()
            || bindings.is_some()
            || exceptions.is_some()
            || assigned.is_some();
        let stamping: Vec<_> = stamping.into_iter().flat_map(|part| unseen.all(part)).collect();
        let (mut templates, installs): (Vec<_>, Vec<_>) = stamping.into_iter().unzip();
        let mut live: Vec<EstatePod> = Vec::new();
        let mut on_nodes = false;
        for (mut pod, bare, on_node) in unseen.all(pods) {
            on_nodes |= on_node && !pod.gone && pod.ready;
            templates.extend(bare.filter(|_| !pod.gone));
            claim(&steerings, &mut pod);
            live.push(pod);
        }
        let mut installs: Vec<Install> = installs.into_iter().flatten().collect();
        for nmi in installs.iter_mut().filter(|install| install.component == "nmi") {
            // Where nothing is ready on any node, in a cluster that has just started for one, its
            // own pods are no sign.
            nmi.stuck &= on_nodes;
        }
        let bindings = bindings.unwrap_or_default();
        let in_templates = templates.iter().filter_map(EstateTemplate::selector);
        let in_pods = live.iter().filter(|pod| !pod.gone).filter_map(EstatePod::selector);
        let used: BTreeSet<&str> = in_templates.chain(in_pods).collect();
        let selectors = bindings.iter().map(|binding| binding.selector.as_str());
        let idle = selectors.filter(|selector| !selector.is_empty() && !used.contains(selector));
        let (carriers, unlooked) = self.carriers(&idle.collect()).await;
        Estate {
            installed,
            identities: identities.unwrap_or_default(),
            bindings,
            carriers,
            unlooked,
            exceptions: exceptions.unwrap_or_default(),
            assigned: assigned.unwrap_or_default(),
            // None of these is worth stopping for: the dry run before the first roll knows better.
            workload_identity: matches!(webhook, Ok(Some(_))),
            version: version.unwrap_or_default(),
            pod_security: namespaces
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(name, level)| Some((name, level?)))
                .collect(),
            templates,
            installs,
            pods: live,
            accounts: unseen.all(accounts),
            secret_classes: unseen.all(classes),
            triggers: unseen.all(triggers).into_iter().chain(unseen.all(wide)).collect(),
            backups: unseen.readable(backups),
            unseen: unseen.0,
            ..Estate::default()
        }
    }
}
