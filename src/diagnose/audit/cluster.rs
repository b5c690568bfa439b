//! What is left over, misspelt or without effect in a cluster.

use super::{
    Audit, Severity,
    estate::{AuditCluster, Estate, KubernetesFacts},
};
use crate::{
    diagnose::{
        command::{CLIENT_ID, Line},
        evidence::Template,
        keys,
        links::webhook::ADD_ON,
    },
    model::{
        AccountName, Namespace, names,
        pod_identity::BINDING_LABEL,
        snapshot::{Observation, ObservedAccount},
    },
};

pub(super) fn look(estate: &Estate, cluster: &AuditCluster, audit: &mut Audit) {
    if cluster.pod_identity_add_on {
        audit.add(
            Severity::Medium,
            "pod-identity-add-on",
            format!("cluster {}", cluster.name),
            "the AAD Pod Identity add-on is on; it is out of support since September 2025",
            "widentity migrate",
        );
    }
    let kubernetes = match &cluster.kubernetes {
        Observation::Present(kubernetes) => kubernetes,
        Observation::Absent => return,
        Observation::Unknown(failure) => {
            audit.unseen.push(format!("cluster {}: {failure}", cluster.name));
            return;
        }
    };
    for (namespace, accounts) in &kubernetes.accounts {
        for (name, account) in accounts {
            let place = format!("{namespace}/{name}@{}", cluster.name);
            let owner = (estate, cluster, kubernetes);
            self::account(owner, audit, &place, (namespace, name, account));
        }
    }
    for (namespace, templates) in &kubernetes.templates {
        for template in templates.iter().filter(|template| template.seen.owned_by.is_none()) {
            self::template(kubernetes, audit, cluster, namespace, template);
        }
    }
    left_over(cluster, kubernetes, audit);
    webhook(cluster, kubernetes, audit);
}

/// `doctor` about one object.
fn doctor(cluster: &AuditCluster, object: &str, namespace: &Namespace) -> String {
    let words = ["doctor", object, "-n", namespace.as_str(), "--cluster", &cluster.name];
    Line::new("widentity").words(&words).text()
}

fn account(
    (estate, cluster, kubernetes): (&Estate, &AuditCluster, &KubernetesFacts),
    audit: &mut Audit,
    place: &str,
    (namespace, name, account): (&Namespace, &AccountName, &ObservedAccount),
) {
    let annotations = &account.meta.annotations;
    let client = annotations.get(names::CLIENT_ID_ANNOTATION);
    if account.meta.labels.contains_key(names::USE_LABEL) {
        audit.add(
            Severity::Low,
            "account-label-without-effect",
            place,
            format!("has the label {}, which webhooks since 1.0 do not read", names::USE_LABEL),
            cluster
                .kubectl
                .line(&["label", "serviceaccount", name.as_str()])
                .words(&[&format!("{}-", names::USE_LABEL), "-n", namespace.as_str()])
                .text(),
        );
    }
    if client.is_none()
        && let Some(key) = keys::near(annotations.keys(), names::CLIENT_ID_ANNOTATION)
    {
        audit.add(
            Severity::High,
            "annotation-key-misspelt",
            place,
            format!("is annotated {key}; the key is {}", names::CLIENT_ID_ANNOTATION),
            cluster
                .kubectl
                .line(&["annotate", "serviceaccount", name.as_str()])
                .value(&format!("{}=", names::CLIENT_ID_ANNOTATION), &CLIENT_ID.into())
                .words(&["-n", namespace.as_str()])
                .text(),
        );
    }
    let lifetime = annotations.get(names::EXPIRATION_ANNOTATION);
    if let Some(seconds) = lifetime.and_then(|text| text.parse::<u32>().ok())
        && seconds > 4 * names::DEFAULT_EXPIRATION
    {
        audit.add(
            Severity::Low,
            "token-lifetime-long",
            place,
            format!("its federated tokens live {seconds} seconds"),
            format!("{} is enough: Kubernetes renews them", names::DEFAULT_EXPIRATION),
        );
    }
    let Some(client) = client else { return };
    let known = estate
        .identities
        .iter()
        .find(|owner| owner.identity.client_id.to_string().eq_ignore_ascii_case(client.trim()));
    if known.is_none() && !estate.identities.is_empty() {
        let principal = estate.identities.iter().find(|owner| {
            owner.identity.principal_id.to_string().eq_ignore_ascii_case(client.trim())
        });
        let (code, message) = match principal {
            Some(owner) => (
                "client-id-is-principal-id",
                format!("is annotated with the principal id of {}", owner.identity.id.name()),
            ),
            None => (
                "client-id-unknown",
                format!("is annotated with client id {client}, of no identity that was read"),
            ),
        };
        audit.add(
            Severity::Medium,
            code,
            place,
            message,
            doctor(cluster, &format!("serviceaccount/{name}"), namespace),
        );
    }
    if name.as_str() == "default" {
        audit.add(
            Severity::Medium,
            "default-account-annotated",
            place,
            "is the namespace's default account: every labelled pod without an account of its own gets the identity",
            "make a service account for the workload",
        );
    }
    let templates = kubernetes.templates.get(namespace).map_or(&[][..], Vec::as_slice);
    let mut users = templates.iter().filter(|template| template.seen.account == *name).peekable();
    if users.peek().is_some() && !users.any(|template| template.seen.labelled()) {
        audit.add(
            Severity::Medium,
            "annotated-without-label",
            place,
            "names an identity, and no template that uses it has the label: its pods get no token",
            doctor(cluster, &format!("serviceaccount/{name}"), namespace),
        );
    }
}

fn template(
    kubernetes: &KubernetesFacts,
    audit: &mut Audit,
    cluster: &AuditCluster,
    namespace: &Namespace,
    template: &Template,
) {
    let object = format!("{namespace}/{}@{}", template.seen.key(), cluster.name);
    let account =
        kubernetes.accounts.get(namespace).and_then(|all| all.get(&template.seen.account));
    let annotated = account
        .is_some_and(|account| account.meta.annotations.contains_key(names::CLIENT_ID_ANNOTATION));
    if template.seen.labelled() && !annotated {
        audit.add(
            Severity::Medium,
            "label-without-annotation",
            object.clone(),
            format!(
                "is labelled, and its service account {} names no identity",
                template.seen.account
            ),
            doctor(cluster, &template.seen.key(), namespace),
        );
    }
    if template.seen.labels.contains_key(BINDING_LABEL) {
        audit.add(
            Severity::Medium,
            "pod-identity-label",
            object.clone(),
            "still carries the label of AAD Pod Identity",
            "widentity migrate",
        );
    }
    if let Some(path) = template.token_paths.first() {
        audit.add(
            Severity::Low,
            "token-path-written-out",
            object.clone(),
            format!("writes the token path out: {path}; webhook 1.6 moved it"),
            "read AZURE_FEDERATED_TOKEN_FILE",
        );
    }
    let secret =
        template.seen.literal_env.iter().find(|(_, name, _)| name == "AZURE_CLIENT_SECRET");
    if secret.is_some() {
        audit.add(
            Severity::Medium,
            "secret-beside-federation",
            object,
            "sets AZURE_CLIENT_SECRET, which DefaultAzureCredential tries before the federated token",
            "take the secret out when the federated path is proved",
        );
    }
}

fn left_over(cluster: &AuditCluster, kubernetes: &KubernetesFacts, audit: &mut Audit) {
    for object in &kubernetes.pod_identity {
        audit.add(
            Severity::Low,
            "pod-identity-object",
            format!("{} {}/{}@{}", object.kind, object.namespace, object.name, cluster.name),
            "is an object of AAD Pod Identity, which is out of support",
            "widentity migrate",
        );
    }
    for (name, _) in kubernetes.provider_classes.iter().filter(|(_, c)| c.use_pod_identity) {
        audit.add(
            Severity::Medium,
            "provider-class-pod-identity",
            format!("SecretProviderClass {name}@{}", cluster.name),
            "has usePodIdentity",
            "set usePodIdentity to false and clientID to the identity's client id",
        );
    }
    for trigger in &kubernetes.keda_pod_identity {
        audit.add(
            Severity::Medium,
            "keda-pod-identity",
            format!("{}@{}", trigger.trigger(), cluster.name),
            "uses podIdentity provider azure, which KEDA 2.15 no longer has",
            "set provider to azure-workload; the subject is that of KEDA's operator",
        );
    }
}

fn webhook(cluster: &AuditCluster, kubernetes: &KubernetesFacts, audit: &mut Audit) {
    let Some(webhook) = &kubernetes.webhook else { return };
    let homes = webhook.homes();
    if homes.len() > 1 {
        let own = homes.iter().copied().find(|home| *home != ADD_ON).unwrap_or_default();
        audit.add(
            Severity::High,
            "webhook-installed-twice",
            format!("cluster {}", cluster.name),
            format!("the webhook is installed in {}", homes.join(" and in ")),
            cluster.kubectl.helm(&["uninstall", "workload-identity-webhook", "-n", own]).text(),
        );
    }
    if webhook.configurations.iter().any(|c| c.failure_policy.as_deref() == Some("Ignore")) {
        audit.add(
            Severity::Medium,
            "webhook-failure-policy",
            format!("cluster {}", cluster.name),
            "failurePolicy is Ignore: while the webhook is away pods start without an identity",
            "upgrade the webhook: since 1.0 it is Fail",
        );
    }
}
