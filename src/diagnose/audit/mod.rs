//! What is stale, orphaned, duplicate, too wide or too shared: federated credentials, live
//! clusters and role assignments, joined. Pure; every finding has a stable code and a severity.

mod cluster;
mod credentials;
pub mod estate;
mod roles;

use serde::{Deserialize, Serialize};

pub use estate::{AuditCluster, AuditIdentity, Estate, KubernetesFacts, PodIdentityObject};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Untidy, or a trap for later.
    Low,
    /// Something will break or is wider than it needs to be.
    Medium,
    /// Something is broken, or gives away far too much.
    High,
}

impl Severity {
    /// The word, as `--fail-on` takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditFinding {
    /// How bad it is.
    pub severity: Severity,
    /// The stable code.
    pub code: &'static str,
    /// The object, for example `id-payments/fic-1` or `payments/payments-api@prod`.
    pub object: String,
    /// What is the case, one sentence without a full stop.
    pub message: String,
    /// What to type or do.
    pub fix: String,
}

/// What an audit gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Findings, worst first.
    pub findings: Vec<AuditFinding>,
    /// What could not be seen, a sentence each: nothing is said about it.
    pub unseen: Vec<String>,
}

impl Audit {
    /// Whether a finding is at least this bad.
    pub fn reaches(&self, severity: Severity) -> bool {
        self.findings.iter().any(|finding| finding.severity >= severity)
    }

    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        object: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.findings.push(AuditFinding {
            severity,
            code,
            object: object.into(),
            message: message.into(),
            fix: fix.into(),
        });
    }
}

/// Audits an estate.
pub fn audit(estate: &Estate) -> Audit {
    let mut audit = Audit::default();
    credentials::look(estate, &mut audit);
    roles::look(estate, &mut audit);
    for cluster in &estate.clusters {
        cluster::look(estate, cluster, &mut audit);
    }
    audit.findings.sort_by(|a, b| {
        (b.severity, a.code, &a.object, &a.message)
            .cmp(&(a.severity, b.code, &b.object, &b.message))
    });
    audit.findings.dedup();
    audit.unseen.sort();
    audit.unseen.dedup();
    audit
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::model::{names, snapshot::Observation};

    const ISSUER: &str = "https://westeurope.oic.prod-aks.azure.com/t/c/";

    fn estate() -> Estate {
        let sub = "/subscriptions/11111111-1111-1111-1111-111111111111";
        let uami = format!(
            "{sub}/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
        );
        let fic = |name: &str, issuer: &str, subject: &str| json!({"name": name, "issuer": issuer, "subject": subject, "audiences": ["api://AzureADTokenExchange"]});
        let identity = |name: &str, digit: u8, credentials: serde_json::Value| {
            json!({
                "identity": {
                    "id": format!("{uami}/{name}"),
                    "client_id": format!("c11e0000-0000-4000-8000-00000000000{digit}"),
                    "principal_id": format!("0b1ec700-0000-4000-8000-00000000000{digit}"),
                    "tenant_id": "7e0c4f52-0000-4000-8000-00000000000a",
                    "location": "westeurope", "tags": {}
                },
                "credentials": {"present": credentials}
            })
        };
        let role = |name: &str, principal: &str, role: &str, scope: String| {
            json!({"id": format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"),
                "name": name, "principal_id": principal, "role": role, "scope": scope,
                "description": "managed by widentity; project=p"})
        };
        let old = format!("{sub}/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/old");
        let vault = format!("{sub}/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv");
        let pod_template = |name: &str, account: &str, labelled: bool| {
            let labels =
                if labelled { json!({"azure.workload.identity/use": "true"}) } else { json!({}) };
            json!({"kind": "deployment", "api_version": "apps/v1", "name": name, "uid": name, "meta": {},
                "owned_by": null, "account": account, "labels": labels, "annotations": {},
                "literal_env": [], "strategy": "rolling-update", "progress": {}})
        };
        let many: Vec<_> = (0..20)
            .map(|i| fic(&format!("f{i}"), ISSUER, &format!("system:serviceaccount:shop:s{i}")))
            .collect();
        serde_json::from_value(json!({
            "project": "p",
            "all_clusters": true,
            "clusters": [{
                "name": "prod", "issuer": ISSUER,
                "kubernetes": {"present": {
                    "namespaces": ["shop"],
                    "accounts": {"shop": {
                        "web": {"uid": "1", "meta": {"annotations": {"azure.workload.identity/client-id": "c11e0000-0000-4000-8000-000000000001"}}},
                        "idle": {"uid": "2", "meta": {
                            "labels": {"azure.workload.identity/use": "true"},
                            "annotations": {"azure.workload-identity/client-id": "x"}}}
                    }},
                    "templates": {"shop": [pod_template("web", "web", true), pod_template("bare", "idle", true)]},
                    "pod_identity": [{"kind": "AzureIdentity", "namespace": "shop", "name": "old"}],
                    "keda_pod_identity": [{"namespace": "shop", "name": "auth"}]
                }}
            }],
            "identities": [
                identity("id-web", 1, json!([
                    fic("good", ISSUER, "system:serviceaccount:shop:web"),
                    fic("slash", ISSUER.trim_end_matches('/'), "system:serviceaccount:shop:web"),
                    fic("gone", ISSUER, "system:serviceaccount:shop:gone"),
                    fic("nowhere", ISSUER, "system:serviceaccount:deleted:web"),
                    fic("foreign", "https://westeurope.oic.prod-aks.azure.com/t/old/", "system:serviceaccount:shop:web"),
                    fic("idle", ISSUER, "system:serviceaccount:shop:idle")
                ])),
                identity("id-pair", 4, json!([
                    fic("bad", ISSUER.trim_end_matches('/'), "system:serviceaccount:shop:web"),
                    fic("right", ISSUER, "system:serviceaccount:shop:web")
                ])),
                identity("id-full", 2, json!(many)),
                identity("id-unused", 3, json!([]))
            ],
            "assignments": {
                "seen": [
                    role("a1", "0b1ec700-0000-4000-8000-000000000001", "8e3af657-a8ff-443c-a75c-2fe8c4bcb635", sub.to_owned()),
                    role("a2", "0b1ec700-0000-4000-8000-0000000000ff", "4633458b-17de-408a-b874-0445c86b69e6", vault.clone()),
                    role("a3", "0b1ec700-0000-4000-8000-000000000002", "4633458b-17de-408a-b874-0445c86b69e6", format!("{sub}/resourceGroups/rg")),
                    role("a4", "0b1ec700-0000-4000-8000-000000000002", "21090545-7ca7-4776-b22c-e363652d74d2", vault),
                    role("a5", "0b1ec700-0000-4000-8000-000000000001", "4633458b-17de-408a-b874-0445c86b69e6", old)
                ],
                "looked": [[sub, {"present": null}]]
            },
            "all_identities": true,
            "targets": [format!("{sub}/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv")],
            "vaults": {(format!("{sub}/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/old")):
                {"rbac": false, "policies": []},
                (format!("{sub}/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv")):
                {"rbac": true, "policies": ["0b1ec700-0000-4000-8000-000000000002"]}},
            "counted": {"11111111-1111-1111-1111-111111111111": 3990}
        }))
        .unwrap()
    }

    #[test]
    fn findings_join_credentials_clusters_and_roles() {
        let audit = audit(&estate());
        let codes: BTreeSet<&str> = audit.findings.iter().map(|finding| finding.code).collect();
        for code in [
            "credential-slash",
            "credential-variant",
            "credential-account-gone",
            "credential-namespace-gone",
            "credential-issuer-unknown",
            "credentials-nearly-full",
            "identity-unused",
            "identity-shared",
            "ownership-missing",
            "assignment-orphaned",
            "assignment-principal-unknown",
            "role-without-effect",
            "policy-without-effect",
            "assignments-nearly-full",
            "role-privileged",
            "scope-too-wide",
            "account-label-without-effect",
            "annotation-key-misspelt",
            "label-without-annotation",
            "pod-identity-object",
            "keda-pod-identity",
        ] {
            assert!(codes.contains(code), "{code} is not in {codes:?}");
        }
        assert!(audit.findings.is_sorted_by(|a, b| a.severity >= b.severity));
        assert!(audit.reaches(Severity::High) && audit.unseen.is_empty());
    }

    #[test]
    fn an_issuer_of_a_cluster_elsewhere_is_not_unknown() {
        let mut estate = estate();
        let codes = |estate: &Estate| -> BTreeSet<&'static str> {
            audit(estate).findings.iter().map(|finding| finding.code).collect()
        };
        assert!(codes(&estate).contains("credential-issuer-unknown"));
        let old = "https://westeurope.oic.prod-aks.azure.com/t/old/";
        estate.other_issuers.insert(crate::model::Issuer::from(old));
        assert!(!codes(&estate).contains("credential-issuer-unknown"));
    }

    #[test]
    fn an_identity_that_somebody_names_is_not_unused() {
        let unused = |estate: &Estate| {
            let found = audit(estate).findings.into_iter().find(|f| f.code == "identity-unused");
            found.map(|found| found.fix)
        };
        // What else may have it was not looked at: nothing to paste.
        assert!(!unused(&estate()).unwrap().contains("az "));
        let id = estate().identities[3].identity.id.clone();
        let mut by_file = estate();
        by_file.wanted.insert(id.clone());
        assert_eq!(unused(&by_file), None);
        let mut by_pod_identity = estate();
        let Observation::Present(facts) = &mut by_pod_identity.clusters[0].kubernetes else {
            panic!()
        };
        facts.pod_identity[0].identity = Some(id);
        assert_eq!(unused(&by_pod_identity), None);
        let mut by_account = estate();
        let Observation::Present(facts) = &mut by_account.clusters[0].kubernetes else { panic!() };
        let web = facts.accounts.values_mut().next().unwrap().get_mut(&"web".into()).unwrap();
        let client = "C11E0000-0000-4000-8000-000000000003".to_owned();
        web.meta.annotations.insert(names::CLIENT_ID_ANNOTATION.to_owned(), client);
        assert_eq!(unused(&by_account), None);
    }

    #[test]
    fn commands_of_a_cluster_are_aimed_at_it() {
        let mut estate = estate();
        estate.clusters[0].kubectl.context = Some("prod".to_owned());
        for finding in audit(&estate).findings {
            let aimed = finding.fix.contains("--context prod") || !finding.fix.contains("kubectl ");
            assert!(aimed, "{finding:?}");
        }
    }

    #[test]
    fn a_sound_credential_is_not_a_finding() {
        let audit = audit(&estate());
        let of = |object: &'static str| {
            audit.findings.iter().filter(move |found| found.object == object)
        };
        assert_eq!(of("id-web/good").count(), 0);
        assert!(of("id-web/slash").count() > 0, "objects are named like this");
        // Which of a pair is listed first says nothing.
        assert!(
            of("id-pair/right").all(|found| !found.fix.contains("federated-credential delete"))
        );
        assert!(of("id-pair/bad").count() > 0);
        assert!(
            of("id-pair/bad").all(|found| found.fix.contains("federated-credential delete")),
            "it cannot be updated"
        );
    }
}
