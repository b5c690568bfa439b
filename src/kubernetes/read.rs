//! Reading: lists page by page into snapshot types.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Client, KubeError,
    client::{Ask, Within, segment},
    parse_meta, parse_pod,
    parse_template::{self, Parsed, Steering},
    parse_webhook::{self, Configuration, USUAL_NAME},
    versions::{collection, plural},
    wire::{Bare, Controller, Pod},
};
use crate::model::{
    AccountName, Issuer, Namespace,
    names::PROJECT_ANNOTATION,
    snapshot::{
        ObjectMeta, ObservedAccount, ObservedPod, ObservedTemplate, ObservedWebhook, TemplateKind,
    },
};

/// Accounts by namespace and name.
pub(super) type Accounts = BTreeMap<Namespace, BTreeMap<AccountName, ObservedAccount>>;

/// A controller and all that the server sent of it.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Whole {
    controller: Controller,
    object: Value,
}

impl TryFrom<Value> for Whole {
    type Error = serde_json::Error;

    fn try_from(object: Value) -> Result<Self, Self::Error> {
        Ok(Self { controller: Controller::deserialize(&object)?, object })
    }
}

impl Within<'_> {
    fn path(self, version: &str, plural: &str) -> String {
        let namespace = match self {
            Self::Everywhere | Self::Among(_) => None,
            Self::Namespace(namespace) => Some(namespace.as_str()),
        };
        collection(version, namespace, plural)
    }

    /// Whether an object is kept: one that bears a project's mark may be left over.
    fn keeps_object(self, namespace: &Namespace, meta: &ObjectMeta) -> bool {
        self.keeps(namespace) || meta.annotations.contains_key(PROJECT_ANNOTATION)
    }
}

impl Client {
    /// The issuer of the server's discovery document. Not every user may read it.
    ///
    /// Source: Kubernetes documentation, "Configure Service Accounts for Pods: Service account
    /// issuer discovery".
    pub async fn discovery_issuer(&self) -> Result<Issuer, KubeError> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: Issuer,
        }
        let found: Discovery = self.ask(&Ask::get("/.well-known/openid-configuration")).await?;
        Ok(found.issuer)
    }

    /// Every namespace, with the Pod Security level that its label enforces.
    pub async fn namespaces(&self) -> Result<BTreeMap<Namespace, Option<String>>, KubeError> {
        let each = |found: &mut BTreeMap<Namespace, Option<String>>, object: Bare| {
            let level = enforced(&object);
            found.insert(Namespace(object.metadata.name), level);
        };
        self.list("/api/v1/namespaces", each).await
    }

    /// A namespace's enforced Pod Security level, or none where the namespace does not exist.
    pub async fn namespace(
        &self,
        namespace: &Namespace,
    ) -> Result<Option<Option<String>>, KubeError> {
        let path = format!("/api/v1/namespaces/{}", segment(namespace.as_str()));
        Ok(self.find::<Bare>(path).await?.as_ref().map(enforced))
    }

    /// Service accounts by namespace; a namespace without any is not in the map.
    pub async fn accounts(
        &self,
        within: impl Into<Within<'_>>,
    ) -> Result<BTreeMap<Namespace, BTreeMap<AccountName, ObservedAccount>>, KubeError> {
        let within = within.into();
        let each = |found: &mut Accounts, mut object: Bare| {
            let name = AccountName(std::mem::take(&mut object.metadata.name));
            let namespace = Namespace(std::mem::take(&mut object.metadata.namespace));
            let account = parse_meta::account(object);
            if within.keeps_object(&namespace, &account.meta) {
                found.entry(namespace).or_default().insert(name, account);
            }
        };
        self.list(&within.path("v1", "serviceaccounts"), each).await
    }

    /// A service account, or none where it does not exist.
    pub async fn account(
        &self,
        namespace: &Namespace,
        name: &AccountName,
    ) -> Result<Option<ObservedAccount>, KubeError> {
        let path = collection("v1", Some(namespace.as_str()), "serviceaccounts");
        let found: Option<Bare> = self.find(format!("{path}/{}", segment(name.as_str()))).await?;
        Ok(found.map(parse_meta::account))
    }

    /// Pod templates of every kind that widentity may write, by namespace, ordered by kind and name.
    /// A Rollout with a `workloadRef` is not among them: it lends its
    /// progress to the Deployment, whose template is the one to write.
    pub async fn templates(
        &self,
        within: impl Into<Within<'_>>,
    ) -> Result<BTreeMap<Namespace, Vec<ObservedTemplate>>, KubeError> {
        let found = self.templates_as(within.into(), |_, object: Controller| (object, ())).await?;
        let plain = |(namespace, templates): (_, Vec<(ObservedTemplate, ())>)| {
            (namespace, templates.into_iter().map(|(template, ())| template).collect())
        };
        Ok(found.into_iter().map(plain).collect())
    }

    /// The same, each with what `details` takes out of the controller as the server sent it:
    /// fields that only diagnosis looks at.
    pub async fn templates_with<T>(
        &self,
        within: impl Into<Within<'_>>,
        details: impl Fn(TemplateKind, &Value) -> T,
    ) -> Result<BTreeMap<Namespace, Vec<(ObservedTemplate, T)>>, KubeError> {
        let open = |kind, Whole { controller, object }| (controller, details(kind, &object));
        self.templates_as(within.into(), open).await
    }

    async fn templates_as<W: DeserializeOwned, T>(
        &self,
        within: Within<'_>,
        open: impl Fn(TemplateKind, W) -> (Controller, T),
    ) -> Result<BTreeMap<Namespace, Vec<(ObservedTemplate, T)>>, KubeError> {
        let kinds = self.versions().await?.kinds();
        let lists =
            kinds.into_iter().map(|(kind, version)| self.controllers(within, kind, version, &open));
        let mut by_namespace: BTreeMap<Namespace, Vec<(ObservedTemplate, T)>> = BTreeMap::new();
        let mut steerings = Vec::new();
        for (namespace, parsed, details) in
            futures::future::try_join_all(lists).await?.into_iter().flatten()
        {
            match parsed {
                Parsed::Template(template) => {
                    by_namespace.entry(namespace).or_default().push((*template, details));
                }
                Parsed::Steers(steering) => steerings.push((namespace, steering)),
            }
        }
        for (namespace, steering) in steerings {
            let templates = by_namespace.entry(namespace).or_default().iter_mut();
            steer(&steering, templates.map(|(template, _)| template));
        }
        for templates in by_namespace.values_mut() {
            templates.sort_by(|(a, _), (b, _)| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        }
        Ok(by_namespace)
    }

    async fn controllers<W: DeserializeOwned, T>(
        &self,
        within: Within<'_>,
        kind: TemplateKind,
        version: &str,
        open: &impl Fn(TemplateKind, W) -> (Controller, T),
    ) -> Result<Vec<(Namespace, Parsed, T)>, KubeError> {
        let each = |found: &mut Vec<(Namespace, Parsed, T)>, object: W| {
            let (mut object, details) = open(kind, object);
            let namespace = Namespace(std::mem::take(&mut object.metadata.namespace));
            let parsed = parse_template::controller(kind, version, object);
            let kept = match &parsed {
                Parsed::Template(template) => within.keeps_object(&namespace, &template.meta),
                Parsed::Steers(_) => within.keeps(&namespace),
            };
            if kept {
                found.push((namespace, parsed, details));
            }
        };
        self.list(&within.path(version, plural(kind)), each).await
    }

    /// The template of one controller, or none where it does not exist.
    pub async fn template(
        &self,
        kind: TemplateKind,
        api_version: &str,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<ObservedTemplate>, KubeError> {
        let path = collection(api_version, Some(namespace.as_str()), plural(kind));
        let found: Option<Controller> = self.find(format!("{path}/{}", segment(name))).await?;
        let Some(object) = found else { return Ok(None) };
        let Parsed::Template(mut template) = parse_template::controller(kind, api_version, object)
        else {
            return Ok(None);
        };
        if kind == TemplateKind::Deployment {
            for (_, steering) in self.steerings(Within::Namespace(namespace)).await? {
                steer(&steering, std::iter::once(&mut *template));
            }
        }
        Ok(Some(*template))
    }

    /// Pods by namespace, finished ones included. Each page is parsed and dropped before the next.
    /// Pods of a Rollout with a `workloadRef` show a `ReplicaSet` of its Deployment as controller.
    pub async fn pods(
        &self,
        within: impl Into<Within<'_>>,
    ) -> Result<BTreeMap<Namespace, Vec<ObservedPod>>, KubeError> {
        let within = within.into();
        let each = |found: &mut BTreeMap<Namespace, Vec<ObservedPod>>, mut object: Pod| {
            let namespace = Namespace(std::mem::take(&mut object.metadata.namespace));
            if within.keeps(&namespace) {
                found.entry(namespace).or_default().push(parse_pod::pod(object));
            }
        };
        let path = within.path("v1", "pods");
        let (mut found, steerings) =
            futures::try_join!(self.list(&path, each), self.steerings(within))?;
        for (namespace, steering) in steerings {
            for pod in found.get_mut(&namespace).into_iter().flatten() {
                steering.claim(pod);
            }
        }
        Ok(found)
    }

    /// Those of one account, live or not: the server leaves out the rest of the namespace.
    ///
    /// Source: Kubernetes documentation, "Field Selectors".
    pub async fn pods_of_account(
        &self,
        namespace: &Namespace,
        account: &AccountName,
    ) -> Result<Vec<ObservedPod>, KubeError> {
        let within = Within::Namespace(namespace);
        let path = within.path("v1", "pods");
        let query = [("fieldSelector", format!("spec.serviceAccountName={account}"))];
        let each = |found: &mut Vec<ObservedPod>, object: Pod| found.push(parse_pod::pod(object));
        let (mut found, steerings) =
            futures::try_join!(self.list_where(&path, &query, each), self.steerings(within))?;
        for (_, steering) in steerings {
            for pod in &mut found {
                steering.claim(pod);
            }
        }
        Ok(found)
    }

    /// The Rollouts that refer to a Deployment; none where Argo Rollouts is not installed.
    pub(super) async fn steerings(
        &self,
        within: Within<'_>,
    ) -> Result<Vec<(Namespace, Steering)>, KubeError> {
        let Some(version) = self.versions().await?.rollout else { return Ok(Vec::new()) };
        let open = |_, object: Controller| (object, ());
        let rollouts = self.controllers(within, TemplateKind::Rollout, version, &open).await?;
        let steers = |(namespace, parsed, ())| match parsed {
            Parsed::Steers(steering) => Some((namespace, *steering)),
            Parsed::Template(_) => None,
        };
        Ok(rollouts.into_iter().filter_map(steers).collect())
    }

    /// The workload identity webhook, or none where it is not installed.
    pub async fn webhook(&self) -> Result<Option<ObservedWebhook>, KubeError> {
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        match self.list(path, |found: &mut Vec<_>, object| found.push(object)).await {
            Ok(found) => Ok(parse_webhook::webhook(&found)),
            Err(denied) if denied.is_denied() => {
                // Some roles grant the one object by name.
                match self.find::<Configuration>(format!("{path}/{USUAL_NAME}")).await {
                    Ok(Some(one)) => Ok(parse_webhook::webhook(&[one])),
                    // That one is absent, but another may be installed under its own name.
                    Ok(None) | Err(_) => Err(denied),
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// Source: Kubernetes documentation, "Pod Security Admission".
fn enforced(namespace: &Bare) -> Option<String> {
    namespace.metadata.labels.get("pod-security.kubernetes.io/enforce").cloned()
}

fn steer<'a>(steering: &Steering, templates: impl Iterator<Item = &'a mut ObservedTemplate>) {
    for template in templates {
        if template.kind == TemplateKind::Deployment && template.name == steering.deployment {
            steering.steer(template);
        }
    }
}
