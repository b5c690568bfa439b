//! Reading what an installation of Pod Identity consists of beside its custom objects, and taking
//! single objects of it away: always by uid, never a collection.
//!
//! Source: Azure/aad-pod-identity at v1.8.17, `deploy/infra/*.yaml`, `charts/aad-pod-identity` and
//! `cmd/mic/main.go`; the annotations of releases: Helm documentation, "Labels and Annotations".

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use serde_json::{Value, json};

use super::{
    Client, KubeError,
    client::{Ask, Repeat, segment},
    objects::bare,
    pod_identity::{GROUP, install, kept_by, map, named, pod, text},
    versions::collection,
};
use crate::model::{
    AccountName, Namespace, RemoteFailure,
    footprint::{
        Component, Definition, Footprint, MetadataUser, Owner, Part, PartKind, RoleBinding, Service,
    },
    keeper,
    pod_identity::{BINDING_LABEL, EstatePod, Named},
    snapshot::TemplateKind,
};

/// The group of Pod Identity's definitions.
const GROUP_NAME: &str = "aadpodidentity.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io/v1";
const DEFINITIONS: &str = "apiextensions.k8s.io/v1";
/// The chart's name, which is also its default name label.
const CHART: &str = "aad-pod-identity";
/// The names that the manifests of the project give.
const ACCOUNTS: [&str; 2] = ["aad-pod-id-mic-service-account", "aad-pod-id-nmi-service-account"];
/// `--config-map-name` of MIC.
const CONFIG_MAP: &str = "aad-pod-identity-config";
/// `--leader-election-name` of MIC.
const LEADER: &str = "aad-pod-identity-mic";
/// The four kinds of the group, with their plurals.
const KINDS: [(PartKind, &str); 4] = [
    (PartKind::Binding, "azureidentitybindings"),
    (PartKind::Identity, "azureidentities"),
    (PartKind::Assigned, "azureassignedidentities"),
    (PartKind::Exception, "azurepodidentityexceptions"),
];

/// Version and plural of a kind.
fn resource(kind: PartKind) -> (&'static str, &'static str) {
    match kind {
        PartKind::Binding => (GROUP, "azureidentitybindings"),
        PartKind::Identity => (GROUP, "azureidentities"),
        PartKind::Assigned => (GROUP, "azureassignedidentities"),
        PartKind::Exception => (GROUP, "azurepodidentityexceptions"),
        PartKind::Mic => ("apps/v1", "deployments"),
        PartKind::Nmi => ("apps/v1", "daemonsets"),
        PartKind::Service => ("v1", "services"),
        PartKind::ConfigMap => ("v1", "configmaps"),
        PartKind::Lease => ("coordination.k8s.io/v1", "leases"),
        PartKind::Endpoints => ("v1", "endpoints"),
        PartKind::ClusterRoleBinding => (RBAC, "clusterrolebindings"),
        PartKind::ClusterRole => (RBAC, "clusterroles"),
        PartKind::ServiceAccount => ("v1", "serviceaccounts"),
        PartKind::Definition => (DEFINITIONS, "customresourcedefinitions"),
    }
}

fn path(part: &Part) -> String {
    let (version, plural) = resource(part.kind);
    let namespace = part.namespace.as_ref().map(Namespace::as_str);
    format!("{}/{}", collection(version, namespace, plural), segment(&part.name))
}

/// Who puts the object back when it is deleted.
fn owner(meta: &Value) -> Owner {
    match kept_by(meta) {
        None => Owner::Nobody,
        Some(tool) if tool == keeper::HELM => {
            let or = |value: &Value, other: &Value| {
                let found = value.as_str().or(other.as_str());
                found.unwrap_or_default().to_owned()
            };
            let (labels, annotations) = (&meta["labels"], &meta["annotations"]);
            Owner::Helm {
                release: or(
                    &annotations["meta.helm.sh/release-name"],
                    &labels["app.kubernetes.io/instance"],
                ),
                namespace: or(&annotations["meta.helm.sh/release-namespace"], &meta["namespace"]),
            }
        }
        Some(tool) => Owner::Git { tool },
    }
}

fn part(kind: PartKind, object: &Value) -> Part {
    let Named { namespace, name, uid } = named(object);
    let meta = &object["metadata"];
    let labels = &meta["labels"];
    let chart = labels["helm.sh/chart"].as_str().unwrap_or_default();
    Part {
        kind,
        namespace: (!namespace.as_str().is_empty()).then_some(namespace),
        name,
        uid,
        charted: labels["app.kubernetes.io/name"] == CHART
            || chart.strip_prefix(CHART).is_some_and(|rest| rest.starts_with('-')),
        owner: owner(meta),
    }
}

/// MIC or NMI; none for anything else.
fn component(kind: TemplateKind, object: &Value) -> Option<Component> {
    let found = install(kind, object)?;
    let kind = if found.component == "mic" { PartKind::Mic } else { PartKind::Nmi };
    let template = &object["spec"]["template"];
    let account = template["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty());
    Some(Component {
        part: part(kind, object),
        account: AccountName::from(account.unwrap_or("default")),
        labels: map(&template["metadata"]["labels"]),
    })
}

/// A cluster role that names the group; none for those that the API server makes and aggregates.
fn role(object: &Value) -> Option<Part> {
    if object["metadata"]["labels"]["kubernetes.io/bootstrapping"] == "rbac-defaults" {
        return None;
    }
    let rules = object["rules"].as_array().into_iter().flatten();
    let mut groups = rules.flat_map(|rule| rule["apiGroups"].as_array().into_iter().flatten());
    let names = groups.any(|group| group == GROUP_NAME);
    names.then(|| part(PartKind::ClusterRole, object))
}

fn role_binding(object: &Value) -> Option<RoleBinding> {
    if object["roleRef"]["kind"] != "ClusterRole" {
        return None;
    }
    let part = part(PartKind::ClusterRoleBinding, object);
    let (mut accounts, mut others) = (Vec::new(), Vec::new());
    for subject in object["subjects"].as_array().into_iter().flatten() {
        let name = text(&subject["name"]);
        if subject["kind"] == "ServiceAccount" {
            accounts.push((Namespace(text(&subject["namespace"])), AccountName(name)));
        } else {
            others.push(format!("{} {name}", text(&subject["kind"]).to_lowercase()));
        }
    }
    Some(RoleBinding { part, role: text(&object["roleRef"]["name"]), accounts, others })
}

/// How a live pod says that it uses the metadata endpoint of its node.
fn metadata_use(object: &Value) -> Option<MetadataUser> {
    let EstatePod { namespace, name, gone, .. } = pod(object);
    if gone {
        return None;
    }
    let spec = &object["spec"];
    let all = |list: &str| spec[list].as_array().into_iter().flatten();
    let containers: Vec<&Value> = all("initContainers").chain(all("containers")).collect();
    let variables = || containers.iter().flat_map(|c| c["env"].as_array().into_iter().flatten());
    let has = |name: &str| variables().any(|variable| variable["name"] == name);
    let on = |name: &str| {
        variables().any(|variable| {
            let value = variable["value"].as_str().unwrap_or_default();
            variable["name"] == name && ["true", "1"].contains(&value.to_lowercase().as_str())
        })
    };
    let words = containers.iter().flat_map(|container| {
        let list = |key: &str| container[key].as_array().into_iter().flatten();
        list("args").chain(list("command"))
    });
    let mut values = words.chain(variables().map(|variable| &variable["value"]));
    let address =
        values.any(|value| value.as_str().unwrap_or_default().contains("169.254.169.254"));
    let secret = ["AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_PASSWORD"];
    let switch = ["AZURE_USE_MSI", "ARM_USE_MSI"].into_iter().find(|name| on(name));
    let why = if address {
        "it names 169.254.169.254".to_owned()
    } else if has("AZURE_FEDERATED_TOKEN_FILE") {
        return None;
    } else if let Some(switch) = switch {
        format!("{switch} is on")
    } else if has("AZURE_CLIENT_ID") && !secret.into_iter().any(has) {
        "AZURE_CLIENT_ID is set, with no secret and no workload identity".to_owned()
    } else {
        return None;
    };
    Some(MetadataUser { namespace, pod: name, why })
}

/// A definition as it is at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionNow {
    /// Its UID.
    pub uid: String,
    /// Its version, to be demanded of a delete.
    pub resource_version: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `namespace/name` of each of its objects.
    pub objects: Vec<String>,
}

impl Client {
    /// Deletes the object at a path if it still has this uid, and this version where one is given.
    /// Gone is gone; the answer is the finalizers that hold it.
    pub(super) async fn delete_exactly(
        &self,
        path: String,
        uid: &str,
        resource_version: Option<&str>,
    ) -> Result<Vec<String>, KubeError> {
        let mut preconditions = json!({"uid": uid});
        if let Some(version) = resource_version {
            preconditions["resourceVersion"] = version.into();
        }
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions",
            "propagationPolicy": "Background", "preconditions": preconditions});
        let asked: Result<Value, KubeError> = self
            .ask(&Ask {
                method: Method::DELETE,
                path,
                query: Vec::new(),
                body: Some(("application/json", body)),
                // Whoever made it again made another uid.
                repeat: Repeat::Safe,
            })
            .await;
        let object = match asked {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            asked => asked?,
        };
        let finalizers = object["metadata"]["finalizers"].as_array().into_iter().flatten();
        Ok(finalizers.map(text).collect())
    }

    /// An object of the installation as it can be made again; none where it is gone.
    pub async fn whole_part(&self, part: &Part) -> Result<Option<Value>, KubeError> {
        Ok(self.find(path(part)).await?.map(bare))
    }

    /// Deletes an object of the installation, unless it was made again since.
    pub async fn remove_part(&self, part: &Part) -> Result<(), KubeError> {
        self.delete_exactly(path(part), &part.uid, None).await.map(drop)
    }

    /// Deletes a definition as it was seen: whoever writes it in between makes this fail.
    pub async fn remove_definition(
        &self,
        part: &Part,
        seen: &DefinitionNow,
    ) -> Result<(), KubeError> {
        self.delete_exactly(path(part), &seen.uid, Some(&seen.resource_version)).await.map(drop)
    }

    /// Whether an object of the installation is still there, with this uid.
    pub async fn part_exists(&self, part: &Part) -> Result<bool, KubeError> {
        let found: Option<Value> = self.find(path(part)).await?;
        Ok(found.is_some_and(|object| object["metadata"]["uid"] == part.uid.as_str()))
    }

    /// A definition with what it holds at this moment; none where it is gone.
    pub async fn definition(&self, part: &Part) -> Result<Option<DefinitionNow>, KubeError> {
        let Some(object) = self.find::<Value>(path(part)).await? else { return Ok(None) };
        let meta = &object["metadata"];
        let deleting = meta["deletionTimestamp"].is_string();
        let plural = text(&object["spec"]["names"]["plural"]);
        let at = |o: &Value| Some(format!("{}/{}", named(o).namespace, named(o).name));
        let objects = match self.collect(GROUP, &plural, &[], at).await? {
            Some(objects) => objects,
            None if deleting => Vec::new(),
            None => {
                let message = format!("{} is there and its objects cannot be listed", part.name);
                return Err(KubeError::Body { message });
            }
        };
        Ok(Some(DefinitionNow {
            uid: text(&meta["uid"]),
            resource_version: text(&meta["resourceVersion"]),
            deleting,
            objects,
        }))
    }

    /// Pods of MIC or NMI that have not gone: `name` each.
    pub async fn pods_of(&self, part: &Part) -> Result<Vec<String>, KubeError> {
        let own = |controller: &str| match controller.split_once('/') {
            Some(("daemonset", name)) => part.kind == PartKind::Nmi && name == part.name,
            Some(("replicaset", name)) => {
                let stem = name.rsplit_once('-').map(|(stem, _)| stem);
                part.kind == PartKind::Mic && stem == Some(part.name.as_str())
            }
            _ => false,
        };
        let namespace = part.namespace.as_ref().map(Namespace::as_str);
        let fold = |found: &mut Vec<String>, object: Value| {
            let pod = pod(&object);
            if pod.controller.as_deref().is_some_and(own) {
                found.push(pod.name);
            }
        };
        self.list(&collection("v1", namespace, "pods"), fold).await
    }

    /// Live pods that carry Pod Identity's label at this moment.
    pub async fn label_users(&self) -> Result<Vec<String>, KubeError> {
        let query = [("labelSelector", BINDING_LABEL.to_owned())];
        let live = |o: &Value| {
            let pod = pod(o);
            let uses = !pod.gone && pod.selector().is_some();
            uses.then(|| format!("{}/{}", pod.namespace, pod.name))
        };
        Ok(self.collect("v1", "pods", &query, live).await?.unwrap_or_default())
    }

    /// Reads everything of an installation. What is refused is among [`Footprint::unseen`].
    pub async fn footprint(&self) -> Footprint {
        let mut found = Footprint { host: self.host().to_owned(), ..Footprint::default() };
        found.issuer = self.discovery_issuer().await.ok();
        let mut unseen = Vec::new();
        for (kind, plural) in
            [(TemplateKind::Deployment, "deployments"), (TemplateKind::DaemonSet, "daemonsets")]
        {
            let seen = self.collect("apps/v1", plural, &[], |o| component(kind, o)).await;
            found.components.extend(kept(seen, plural, &mut unseen));
        }
        for (kind, plural) in KINDS {
            if let Some(definition) = self.definition_of(kind, plural, &mut unseen).await {
                found.definitions.push(definition);
            }
        }
        let seen = self.collect(RBAC, "clusterroles", &[], role).await;
        found.roles = kept(seen, "cluster roles", &mut unseen);
        for plural in ["clusterrolebindings", "rolebindings"] {
            let seen = self.collect(RBAC, plural, &[], role_binding).await;
            found.role_bindings.extend(kept(seen, plural, &mut unseen));
        }
        found.role_bindings.retain(|b| found.roles.iter().any(|role| role.name == b.role));
        let seen =
            self.collect("v1", "serviceaccounts", &[], |o| Some(part(PartKind::ServiceAccount, o)));
        let accounts = kept(seen.await, "service accounts", &mut unseen);
        found.accounts = candidates(&found, accounts);
        let service = |o: &Value| {
            let part = part(PartKind::Service, o);
            Some(Service { part, selector: map(&o["spec"]["selector"]) })
        };
        let seen = self.collect("v1", "services", &[], service).await;
        found.services = kept(seen, "services", &mut unseen);
        let before = |service: &Service| service.part.charted || fronts(&found.components, service);
        found.services.retain(before);
        for (kind, name) in [
            (PartKind::ConfigMap, CONFIG_MAP),
            (PartKind::Lease, LEADER),
            (PartKind::Endpoints, LEADER),
        ] {
            let (version, plural) = resource(kind);
            let query = [("fieldSelector", format!("metadata.name={name}"))];
            let seen = self.collect(version, plural, &query, |o| Some(part(kind, o))).await;
            found.records.extend(kept(seen, plural, &mut unseen));
        }
        let seen = self.collect("v1", "pods", &[], metadata_use).await;
        found.metadata_users = kept(seen, "pods", &mut unseen);
        found.unseen = unseen;
        found
    }

    async fn definition_of(
        &self,
        kind: PartKind,
        plural: &str,
        unseen: &mut Vec<RemoteFailure>,
    ) -> Option<Definition> {
        let name = format!("{plural}.{GROUP_NAME}");
        let at = collection(DEFINITIONS, None, "customresourcedefinitions");
        let object = match self.find::<Value>(format!("{at}/{name}")).await {
            Ok(object) => object?,
            Err(error) => {
                unseen.push(error.failure(format!("read the definition {name}")));
                return None;
            }
        };
        let objects = match self.collect(GROUP, plural, &[], |o| Some(part(kind, o))).await {
            Ok(Some(objects)) => objects,
            Ok(None) if object["metadata"]["deletionTimestamp"].is_string() => Vec::new(),
            Ok(None) => {
                let message = "the definition is there and its objects cannot be listed";
                let error = KubeError::Body { message: message.to_owned() };
                unseen.push(error.failure(format!("list {plural}")));
                Vec::new()
            }
            Err(error) => {
                unseen.push(error.failure(format!("list {plural}")));
                Vec::new()
            }
        };
        Some(Definition { part: part(PartKind::Definition, &object), objects })
    }
}

/// What was read; a failure is noted, and a kind that is not served has no objects.
fn kept<T>(
    seen: Result<Option<Vec<T>>, KubeError>,
    what: &str,
    unseen: &mut Vec<RemoteFailure>,
) -> Vec<T> {
    match seen {
        Ok(found) => found.unwrap_or_default(),
        Err(error) => {
            unseen.push(error.failure(format!("list {what}")));
            Vec::new()
        }
    }
}

/// The accounts that could be the installation's.
fn candidates(found: &Footprint, accounts: Vec<Part>) -> Vec<Part> {
    let mut named: BTreeSet<(&str, &str)> = BTreeSet::new();
    for component in &found.components {
        let namespace = component.part.namespace.as_ref().map_or("", Namespace::as_str);
        named.insert((namespace, component.account.as_str()));
    }
    for (namespace, account) in found.role_bindings.iter().flat_map(|b| &b.accounts) {
        named.insert((namespace.as_str(), account.as_str()));
    }
    let could = |account: &Part| {
        let namespace = account.namespace.as_ref().map_or("", Namespace::as_str);
        account.charted
            || ACCOUNTS.contains(&account.name.as_str())
            || named.contains(&(namespace, account.name.as_str()))
    };
    accounts.into_iter().filter(could).collect()
}

/// Whether a service selects the pods of MIC or NMI.
fn fronts(components: &[Component], service: &Service) -> bool {
    let within = |labels: &BTreeMap<String, String>| {
        service.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    !service.selector.is_empty()
        && components
            .iter()
            .any(|c| c.part.namespace == service.part.namespace && within(&c.labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod_with(env: Value) -> Value {
        json!({"metadata": {"namespace": "n", "name": "p"},
            "spec": {"containers": [{"name": "c", "env": env}]}, "status": {"phase": "Running"}})
    }

    #[test]
    fn a_pod_that_uses_the_metadata_endpoint_says_so_in_its_environment() {
        let why = |env: Value| metadata_use(&pod_with(env)).map(|user| user.why);
        let client = json!({"name": "AZURE_CLIENT_ID", "value": "c"});
        assert!(why(json!([client])).unwrap().contains("AZURE_CLIENT_ID"));
        let from = json!({"name": "AZURE_CLIENT_ID", "valueFrom": {"secretKeyRef": {"key": "k"}}});
        assert!(why(json!([from])).is_some());
        // A service principal with a secret, and a pod with workload identity, do without it.
        assert_eq!(why(json!([client, {"name": "AZURE_CLIENT_SECRET", "valueFrom": {}}])), None);
        assert_eq!(
            why(json!([client, {"name": "AZURE_FEDERATED_TOKEN_FILE", "value": "/t"}])),
            None
        );
        assert_eq!(why(json!([{"name": "AZURE_USE_MSI", "value": "false"}])), None);
        let on = json!([{"name": "ARM_USE_MSI", "value": "True"}]);
        let found = metadata_use(&pod_with(on)).unwrap();
        assert_eq!((found.pod.as_str(), found.why.as_str()), ("p", "ARM_USE_MSI is on"));
        let url = "http://169.254.169.254/metadata";
        assert!(why(json!([{"name": "URL", "value": url}])).unwrap().contains("169.254"));
        let mut ended = pod_with(json!([client]));
        ended["status"]["phase"] = "Succeeded".into();
        assert_eq!(metadata_use(&ended), None);
    }

    #[test]
    fn an_owner_is_known_by_its_marks() {
        let of = |meta: Value| owner(&meta);
        assert_eq!(of(json!({"name": "mic"})), Owner::Nobody);
        let labels = json!({"app.kubernetes.io/managed-by": "Helm",
            "app.kubernetes.io/instance": "old"});
        let three = json!({"labels": labels, "namespace": "pi", "annotations": {
            "meta.helm.sh/release-name": "ids", "meta.helm.sh/release-namespace": "infra"}});
        let helm = |release: &str, namespace: &str| Owner::Helm {
            release: release.to_owned(),
            namespace: namespace.to_owned(),
        };
        assert_eq!(of(three), helm("ids", "infra"));
        // Helm 2 wrote no annotations.
        assert_eq!(of(json!({"labels": labels, "namespace": "pi"})), helm("old", "pi"));
        let argo = json!({"annotations": {"argocd.argoproj.io/tracking-id": "x"}});
        assert_eq!(of(argo), Owner::Git { tool: "Argo CD".to_owned() });
    }

    #[test]
    fn a_role_counts_that_names_the_group_and_is_not_the_servers_own() {
        let role_with = |labels: Value, group: &str| {
            role(&json!({"metadata": {"name": "r", "labels": labels},
                "rules": [{"apiGroups": [""]}, {"apiGroups": [group]}]}))
        };
        assert!(role_with(json!({}), GROUP_NAME).is_some());
        assert!(role_with(json!({}), "*").is_none(), "whoever may do everything");
        let own = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        assert!(role_with(own, GROUP_NAME).is_none(), "`edit` and `view` aggregate it");
        let charted = json!({"helm.sh/chart": "aad-pod-identity-4.1.18"});
        assert!(role_with(charted, GROUP_NAME).unwrap().charted);
        let other = json!({"helm.sh/chart": "aad-pod-identityx-1"});
        assert!(!role_with(other, GROUP_NAME).unwrap().charted);
    }
}
