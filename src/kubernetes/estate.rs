//! Reading everything of a cluster that matters for leaving AAD Pod Identity: its objects, the pod
//! templates of all controllers, pods, and what else refers to it. The lists are read side by side.

use futures::{future::join_all, join};
use serde_json::Value;

use super::{
    Client, KubeError,
    client::segment,
    pod_identity::{
        BACKUP_LABEL, BACKUP_MARK, GROUP, account, assigned, backup, binding, exception, identity,
        install, pod, secret_class, template, trigger,
    },
    versions::{collection, plural},
};
use crate::model::{
    Namespace, RemoteFailure,
    pod_identity::{Estate, EstateTemplate, Install},
    snapshot::TemplateKind,
};

const SECRETS_STORE: &str = "secrets-store.csi.x-k8s.io/v1";
const KEDA: &str = "keda.sh/v1alpha1";

/// One list: none where the kind is not served.
type Part<T> = Result<Option<Vec<T>>, RemoteFailure>;

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

    /// Controllers that no other controller owns, and the parts of Pod Identity among them.
    async fn stamping(&self) -> Vec<Part<(EstateTemplate, Option<Install>)>> {
        let (mut kinds, failure) = match self.versions().await {
            Ok(versions) => (versions.kinds(), None),
            Err(error) => (Vec::new(), Some(error.failure("discover the kinds of controllers"))),
        };
        kinds.push((TemplateKind::ReplicaSet, "apps/v1"));
        kinds.push((TemplateKind::Job, "batch/v1"));
        let each = kinds.into_iter().map(async |(kind, version)| {
            let each = |o: &Value| Some((template(kind, version, o)?, install(kind, o)));
            self.part(plural(kind), version, plural(kind), each).await
        });
        let mut found = join_all(each).await;
        found.extend(failure.map(Err));
        found
    }

    /// Reads everything of Pod Identity that this cluster's API server knows. What is refused is
    /// among [`Estate::unseen`], and the rest is read all the same.
    pub async fn estate(&self) -> Estate {
        let ours = [("labelSelector", format!("{BACKUP_LABEL}={BACKUP_MARK}"))];
        let backups = async {
            let found = self.collect("v1", "configmaps", &ours, backup).await;
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
        let pods = self
            .part("pods", "v1", "pods", |o| Some((pod(o), template(TemplateKind::Pod, "v1", o))));
        let accounts = self.part("service accounts", "v1", "serviceaccounts", |o| Some(account(o)));
        let classes = self.part(
            "SecretProviderClass objects",
            SECRETS_STORE,
            "secretproviderclasses",
            secret_class,
        );
        let triggers =
            self.part("TriggerAuthentication objects", KEDA, "triggerauthentications", trigger);
        // Who may use an object is read after the object: whatever came between them is seen.
        let (identities, bindings, exceptions, assigned) =
            join!(identities, bindings, exceptions, assigned);
        let (stamping, pods, accounts, classes, triggers, backups, version, namespaces) = join!(
            self.stamping(),
            pods,
            accounts,
            classes,
            triggers,
            backups,
            self.version(),
            self.namespaces()
        );

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
        let mut live = Vec::new();
        for (pod, bare) in unseen.all(pods) {
            templates.extend(bare.filter(|_| !pod.gone));
            live.push(pod);
        }
        Estate {
            installed,
            identities: identities.unwrap_or_default(),
            bindings: bindings.unwrap_or_default(),
            exceptions: exceptions.unwrap_or_default(),
            assigned: assigned.unwrap_or_default(),
            // Neither is worth stopping for: the dry run before the first roll knows better.
            version: version.unwrap_or_default(),
            pod_security: namespaces
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(name, level)| Some((name, level?)))
                .collect(),
            templates,
            installs: installs.into_iter().flatten().collect(),
            pods: live,
            accounts: unseen.all(accounts),
            secret_classes: unseen.all(classes),
            triggers: unseen.all(triggers),
            backups: unseen.all(backups),
            unseen: unseen.0,
            ..Estate::default()
        }
    }
}
