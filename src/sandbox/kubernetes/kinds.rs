//! The kinds that a cluster serves: a table of the built-in ones, and those of definitions.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use serde_json::Value;

use super::schema::{Type, custom_type};

/// A kind in one version, with how it is stored and served.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a column of the table")]
#[expect(clippy::struct_field_names, reason = "`kind` is the word of the API")]
pub(super) struct Kind {
    /// API group; empty for the core group.
    pub group: String,
    /// Version in which this entry is served.
    pub version: String,
    /// CamelCase name.
    pub kind: String,
    /// Resource name in paths.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Abbreviations for kubectl.
    pub short: Vec<String>,
    /// kubectl categories such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether there is a status subresource.
    pub status: bool,
    /// Where the scale subresource finds replicas.
    pub scale: Option<Scale>,
    /// Other subresources: (name, group, version, kind, verbs).
    pub subresources: &'static [Subresource],
    /// The shape of objects.
    pub ty: Option<Type>,
    /// The version in which objects are stored.
    pub storage: String,
    /// Printer columns of a definition's version.
    pub columns: Vec<Value>,
    /// Whether it comes from a `CustomResourceDefinition`.
    pub custom: bool,
    /// Create-only review kinds that are never stored.
    pub review: bool,
}

/// Paths of the scale subresource.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    /// Path of the wanted number, such as `.spec.replicas`.
    pub spec: String,
    /// Path of the present number.
    pub status: String,
    /// Path of the selector as text, if there is one.
    pub selector: Option<String>,
}

/// A subresource beyond status and scale.
#[derive(Debug)]
pub(super) struct Subresource {
    /// Path segment.
    pub name: &'static str,
    /// `group/version` of its kind; empty where it is that of the parent.
    pub group_version: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// Its verbs.
    pub verbs: &'static [&'static str],
}

impl Kind {
    /// Only group and plural, for messages about kinds that may not exist.
    pub(super) fn reference(group: &str, plural: &str) -> Self {
        Self { group: group.to_owned(), plural: plural.to_owned(), ..Self::default() }
    }

    /// `plural.group`, or `plural` in the core group.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `group/version`, or `v1`.
    pub(super) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The version that stored objects carry.
    pub(super) fn storage_version(&self) -> String {
        api_version(&self.group, &self.storage)
    }

    /// The path below the cluster's prefix under which objects are stored, with a trailing slash.
    pub(super) fn stem(&self) -> String {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        format!("{group}/{}/", self.plural)
    }

    /// The shape of objects.
    pub(super) fn ty(&self) -> &Type {
        self.ty.as_ref().unwrap_or(&Type::Any)
    }

    /// Whether there is a subresource of this name beyond status and scale.
    pub(super) fn has_part(&self, name: &str) -> bool {
        self.subresources.iter().any(|sub| sub.name == name)
    }

    /// The verbs of the resource itself.
    pub(super) fn verbs(&self) -> &'static [&'static str] {
        if self.review {
            &["create"]
        } else {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
    }
}

/// `group/version`, or the version alone in the core group.
pub(super) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

const POD: &[Subresource] = &[
    Subresource {
        name: "eviction",
        group_version: "policy/v1",
        kind: "Eviction",
        verbs: &["create"],
    },
    Subresource { name: "log", group_version: "", kind: "Pod", verbs: &["get"] },
    Subresource {
        name: "ephemeralcontainers",
        group_version: "",
        kind: "Pod",
        verbs: &["get", "patch", "update"],
    },
];
const ACCOUNT: &[Subresource] = &[Subresource {
    name: "token",
    group_version: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    verbs: &["create"],
}];
const NAMESPACE: &[Subresource] =
    &[Subresource { name: "finalize", group_version: "", kind: "Namespace", verbs: &["update"] }];

/// One line for each kind: `group version Kind plural short,short flags`; flags: n namespaced,
/// s status, c scale, a category all, r review.
const TABLE: &str = "
- v1 ConfigMap configmaps cm n
- v1 Endpoints endpoints ep n
- v1 Event events ev n
- v1 LimitRange limitranges limits n
- v1 Namespace namespaces ns s
- v1 Node nodes no s
- v1 PersistentVolumeClaim persistentvolumeclaims pvc ns
- v1 PersistentVolume persistentvolumes pv s
- v1 Pod pods po nsa
- v1 PodTemplate podtemplates - n
- v1 ReplicationController replicationcontrollers rc nsca
- v1 ResourceQuota resourcequotas quota ns
- v1 Secret secrets - n
- v1 ServiceAccount serviceaccounts sa n
- v1 Service services svc nsa
apps v1 ControllerRevision controllerrevisions - n
apps v1 DaemonSet daemonsets ds nsa
apps v1 Deployment deployments deploy nsca
apps v1 ReplicaSet replicasets rs nsca
apps v1 StatefulSet statefulsets sts nsca
events.k8s.io v1 Event events ev n
authentication.k8s.io v1 TokenReview tokenreviews - r
authentication.k8s.io v1 SelfSubjectReview selfsubjectreviews - r
authorization.k8s.io v1 LocalSubjectAccessReview localsubjectaccessreviews - nr
authorization.k8s.io v1 SelfSubjectAccessReview selfsubjectaccessreviews - r
authorization.k8s.io v1 SelfSubjectRulesReview selfsubjectrulesreviews - r
authorization.k8s.io v1 SubjectAccessReview subjectaccessreviews - r
autoscaling v2 HorizontalPodAutoscaler horizontalpodautoscalers hpa nsa
batch v1 CronJob cronjobs cj nsa
batch v1beta1 CronJob cronjobs cj nsa
batch v1 Job jobs - nsa
networking.k8s.io v1 Ingress ingresses ing ns
networking.k8s.io v1 IngressClass ingressclasses - -
networking.k8s.io v1 NetworkPolicy networkpolicies netpol n
policy v1 PodDisruptionBudget poddisruptionbudgets pdb ns
rbac.authorization.k8s.io v1 ClusterRoleBinding clusterrolebindings - -
rbac.authorization.k8s.io v1 ClusterRole clusterroles - -
rbac.authorization.k8s.io v1 RoleBinding rolebindings - n
rbac.authorization.k8s.io v1 Role roles - n
storage.k8s.io v1 StorageClass storageclasses sc -
admissionregistration.k8s.io v1 MutatingWebhookConfiguration mutatingwebhookconfigurations - -
admissionregistration.k8s.io v1 ValidatingWebhookConfiguration validatingwebhookconfigurations - -
apiextensions.k8s.io v1 CustomResourceDefinition customresourcedefinitions crd,crds s
scheduling.k8s.io v1 PriorityClass priorityclasses pc -
coordination.k8s.io v1 Lease leases - n
discovery.k8s.io v1 EndpointSlice endpointslices - n
";

static BUILT_IN: LazyLock<Vec<Arc<Kind>>> = LazyLock::new(|| {
    TABLE.lines().filter(|l| !l.is_empty()).filter_map(built_in).map(Arc::new).collect()
});

fn built_in(line: &str) -> Option<Kind> {
    let mut words = line.split(' ');
    let group = words.next()?.trim_matches('-').to_owned();
    let version = words.next()?.to_owned();
    let kind = words.next()?.to_owned();
    let plural = words.next()?.to_owned();
    let short = words.next()?.split(',').filter(|s| *s != "-").map(str::to_owned).collect();
    let flags = words.next()?;
    let stem = group.split('.').next().unwrap_or_default();
    let folder = if stem.is_empty() { "core" } else { stem };
    // Both versions of CronJob have the same fields.
    let named = if version == "v1beta1" { "v1" } else { &version };
    let ty = Type::named(&format!("{folder}/{named}.{kind}"));
    Some(Kind {
        singular: kind.to_lowercase(),
        categories: if flags.contains('a') { vec!["all".to_owned()] } else { vec![] },
        namespaced: flags.contains('n'),
        status: flags.contains('s'),
        scale: flags.contains('c').then(|| Scale {
            spec: ".spec.replicas".to_owned(),
            status: ".status.replicas".to_owned(),
            selector: None,
        }),
        subresources: match plural.as_str() {
            "pods" => POD,
            "serviceaccounts" => ACCOUNT,
            "namespaces" => NAMESPACE,
            _ => &[],
        },
        ty: Some(ty),
        storage: if version == "v1beta1" { "v1".to_owned() } else { version.clone() },
        columns: Vec::new(),
        custom: false,
        review: flags.contains('r'),
        group,
        version,
        kind,
        plural,
        short,
    })
}

/// The kinds of one cluster, by group, version and plural.
#[derive(Debug, Clone, Default)]
pub(super) struct Kinds {
    by_path: BTreeMap<(String, String, String), Arc<Kind>>,
}

impl Kinds {
    /// The built-in kinds of a server of this minor version, plus those of `definitions`.
    pub(super) fn new<'a>(minor: u32, definitions: impl Iterator<Item = &'a Value>) -> Self {
        let mut out = Self::default();
        for kind in BUILT_IN.iter() {
            // CronJob: https://kubernetes.io/docs/reference/using-api/deprecation-guide/
            let served = match (kind.kind.as_str(), kind.version.as_str()) {
                ("CronJob", "v1") | ("PodDisruptionBudget" | "EndpointSlice", _) => minor >= 21,
                ("CronJob", "v1beta1") => minor < 25,
                ("SelfSubjectReview", _) => minor >= 28,
                ("HorizontalPodAutoscaler", _) => minor >= 23,
                _ => true,
            };
            if served {
                out.add(Arc::clone(kind));
            }
        }
        for definition in definitions {
            for kind in of_definition(definition) {
                out.add(Arc::new(kind));
            }
        }
        out
    }

    fn add(&mut self, kind: Arc<Kind>) {
        let key = (kind.group.clone(), kind.version.clone(), kind.plural.clone());
        self.by_path.insert(key, kind);
    }

    /// The kind at this path.
    pub(super) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The kind of this `apiVersion` and `kind`.
    pub(super) fn of(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.by_path.values().find(|k| k.kind == kind && k.group == group && k.version == version)
    }

    /// The kind in its stored version, whichever version `group` and `plural` are served in.
    pub(super) fn stored(&self, group: &str, plural: &str) -> Option<&Arc<Kind>> {
        let of: Vec<_> =
            self.by_path.values().filter(|k| k.group == group && k.plural == plural).collect();
        of.iter().find(|k| k.version == k.storage).or(of.first()).copied()
    }

    /// Whether anything is served in this group and version.
    pub(super) fn serves(&self, group: &str, version: &str) -> bool {
        self.by_path.keys().any(|(g, v, _)| g == group && v == version)
    }

    /// All kinds, ordered by group, version and plural.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.by_path.values()
    }
}

/// The kinds that a `CustomResourceDefinition` serves.
fn of_definition(definition: &Value) -> Vec<Kind> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(text).collect()
    };
    let names = &spec["names"];
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage = versions
        .iter()
        .find(|v| v["storage"] == true)
        .map(|v| text(&v["name"]))
        .unwrap_or_default();
    versions
        .iter()
        .filter(|v| v["served"] == true)
        .map(|version| {
            let scale = version["subresources"].get("scale").map(|scale| Scale {
                spec: text(&scale["specReplicasPath"]),
                status: text(&scale["statusReplicasPath"]),
                selector: scale["labelSelectorPath"].as_str().map(str::to_owned),
            });
            Kind {
                group: text(&spec["group"]),
                version: text(&version["name"]),
                kind: text(&names["kind"]),
                plural: text(&names["plural"]),
                singular: text(&names["singular"]),
                short: list(&names["shortNames"]),
                categories: list(&names["categories"]),
                namespaced: spec["scope"] == "Namespaced",
                status: version["subresources"].get("status").is_some(),
                scale,
                subresources: &[],
                ty: Some(custom_type(version["schema"].get("openAPIV3Schema"))),
                storage: storage.clone(),
                columns: version["additionalPrinterColumns"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default(),
                custom: true,
                review: false,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_kind_has_a_shape() {
        for kind in BUILT_IN.iter() {
            assert!(matches!(kind.ty(), Type::Named(_)), "{} has no type", kind.kind);
        }
    }

    #[test]
    fn old_servers_have_the_beta_cron_job_only() {
        let old = Kinds::new(20, [].into_iter());
        assert!(old.find("batch", "v1", "cronjobs").is_none());
        assert!(old.find("batch", "v1beta1", "cronjobs").is_some());
        assert!(Kinds::new(33, [].into_iter()).find("batch", "v1beta1", "cronjobs").is_none());
    }
}
