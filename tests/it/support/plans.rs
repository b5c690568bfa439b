//! Plans made by hand, for the tests of rendering.

use serde_json::json;
use widentity::{
    model::{
        AccountName, Address, ClusterName, FailureKind, Namespace, Origin, Project, RemoteFailure,
        address::Part,
    },
    ops::{Planned, Scope},
    plan::{
        Action, Change, FieldChange, ObjectKind, Plan, PlanReport, Planned as Value, Reason,
        report::{Finding, LeftOver, Pending, Unseen},
    },
};

pub(crate) fn origin(line: u32) -> Origin {
    Origin { file: "workloads.toml".to_owned(), line, column: 1 }
}

pub(crate) fn workload(namespace: &str, account: &str) -> Address {
    Address::workload(&Namespace::from(namespace), &AccountName::from(account))
}

pub(crate) fn prod() -> ClusterName {
    ClusterName::from("prod")
}

fn field(name: &str, before: Option<serde_json::Value>, after: Value) -> FieldChange {
    FieldChange { field: name.to_owned(), before, after, formula: None }
}

fn known(value: serde_json::Value) -> Value {
    Value::Known(value)
}

pub(crate) fn empty() -> Planned {
    Planned {
        scope: Scope {
            config: "workloads.toml".to_owned(),
            project: Project::from("payments-prod"),
            tenant: "11111111-1111-1111-1111-111111111111".parse().unwrap(),
            clusters: vec![prod()],
            workloads: vec![workload("payments", "payments-api")],
            not_selected: 0,
            placements: 1,
            taken_at: "2026-11-21T10:14:00.5Z".parse().unwrap(),
            sandbox: false,
        },
        plan: Plan {
            changes: vec![],
            steps: vec![],
            digest: "wd1:0000".to_owned(),
            digests: vec![],
        },
        report: PlanReport::default(),
    }
}

/// A plan with a change of every kind and an entry in every list, some of it hostile.
pub(crate) fn full() -> Planned {
    let api = workload("payments", "payments-api");
    let at = api.clone().at(&prod());
    let worker = workload("payments", "worker");
    let mut planned = empty();
    planned.scope.sandbox = true;
    planned.scope.workloads = vec![api.clone(), worker.clone()];
    planned.scope.not_selected = 2;
    let change = |address: Address, kind, action, id: &str, fields, reasons, workloads| Change {
        digest: format!("wc1:{address}"),
        address,
        kind,
        action,
        id: id.to_owned(),
        fields,
        reasons,
        workloads,
        origin: origin(12),
    };
    let identity = "identity/wi_payments-prod_payments_payments-api";
    let mut changes = vec![
        change(
            Address::Cluster(prod()),
            ObjectKind::AzureKubernetesCluster,
            Action::Update,
            "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks-prod",
            vec![field("oidcIssuerProfile.enabled", Some(json!(false)), known(json!(true)))],
            vec![Reason::FeatureOff { feature: "oidc-issuer".to_owned() }],
            vec![api.clone(), worker.clone()],
        ),
        change(
            Address::Identity("wi_payments-prod_payments_payments-api".to_owned()),
            ObjectKind::AzureUserAssignedIdentity,
            Action::Create,
            "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/wi_payments-prod_payments_payments-api",
            vec![
                field("location", None, known(json!("westeurope"))),
                field(
                    "properties.clientId",
                    None,
                    Value::AfterApply(format!("client_id of {identity}")),
                ),
            ],
            vec![Reason::Missing],
            vec![at.clone()],
        ),
        change(
            at.clone().part(Part::FederatedCredential),
            ObjectKind::AzureFederatedIdentityCredential,
            Action::Update,
            "/subscriptions/s/.../federatedIdentityCredentials/wi-3f9ac1d2-0123456789abcdef",
            vec![field(
                "properties.issuer",
                Some(json!("https://westeurope.oic.prod-aks.azure.com/t/c")),
                known(json!("https://westeurope.oic.prod-aks.azure.com/t/c/")),
            )],
            vec![Reason::Differs {
                field: "properties.issuer".to_owned(),
                have: Some("https://westeurope.oic.prod-aks.azure.com/t/c".to_owned()),
                want: "https://westeurope.oic.prod-aks.azure.com/t/c/".to_owned(),
                near: None,
            }],
            vec![at.clone()],
        ),
        change(
            api.clone()
                .part(Part::RoleAssignment("Key Vault Secrets User on kv-payments".to_owned())),
            ObjectKind::AzureRoleAssignment,
            Action::Create,
            "/subscriptions/s/.../vaults/kv-payments/providers/Microsoft.Authorization/roleAssignments/(known after apply)",
            vec![
                field(
                    "properties.roleDefinitionId",
                    None,
                    known(json!("4633458b-17de-408a-b874-0445c86b69e6")),
                ),
                field(
                    "properties.principalId",
                    None,
                    Value::AfterApply(format!("principal_id of {identity}")),
                ),
            ],
            vec![Reason::Missing],
            vec![api.clone(), worker.clone()],
        ),
        change(
            at.clone().part(Part::ServiceAccount),
            ObjectKind::KubernetesServiceAccount,
            Action::Update,
            "prod: serviceaccount payments/payments-api",
            vec![field(
                "metadata.annotations[\"azure.workload.identity/client-id\"]",
                Some(json!("not\u{1b}[2Ja-guid")),
                Value::AfterApply(format!("client_id of {identity}")),
            )],
            vec![
                Reason::Differs {
                    field: "metadata.annotations[\"azure.workload.identity/tenant-id\"]".to_owned(),
                    have: None,
                    want: "11111111-1111-1111-1111-111111111111".to_owned(),
                    near: None,
                },
                Reason::Follows { of: Address::Identity("wi_x".to_owned()) },
            ],
            vec![at.clone()],
        ),
        change(
            at.clone().part(Part::Rollout("deployment/payments-api".to_owned())),
            ObjectKind::KubernetesRollout,
            Action::Update,
            "prod: deployment payments/payments-api",
            vec![],
            vec![Reason::PodsStale { pods: 14, why: "AZURE_CLIENT_ID is missing".to_owned() }],
            vec![at.clone()],
        ),
    ];
    changes.sort_by(|a, b| a.address.cmp(&b.address));
    planned.plan.digests = changes.iter().map(|change| change.digest.clone()).collect();
    planned.plan.changes = changes;
    "wd1:7c1f0a93".clone_into(&mut planned.plan.digest);
    let finding = |address: &Address, code: &str, message: &str, hint: Option<&str>| Finding {
        address: address.clone(),
        code: code.to_owned(),
        message: message.to_owned(),
        hint: hint.map(str::to_owned),
        origin: origin(9),
    };
    let report = &mut planned.report;
    report.risks = vec![finding(
        &at.clone().part(Part::ServiceAccount),
        "field-taken-over",
        "the annotation `azure.workload.identity/client-id` is taken over from kubectl-client-side-apply",
        None,
    )];
    report.refused = vec![finding(
        &worker.clone().at(&prod()),
        "foreign-manager",
        "the service account is managed by Helm `re\u{202e}lease`",
        Some("write `adopt = true` to take it over"),
    )];
    report.blocked = vec![finding(
        &worker.clone().at(&prod()),
        "namespace-missing",
        "namespace payments does not exist",
        Some("kubectl create namespace payments"),
    )];
    report.unknown = vec![Unseen {
        address: worker.clone().at(&prod()),
        failure: RemoteFailure {
            kind: FailureKind::Denied,
            tried: "list pods in namespace payments".to_owned(),
            message:
                "pods is forbidden\nNo changes. Your infrastructure matches the configuration."
                    .to_owned(),
            status: Some(403),
            code: Some("Forbidden".to_owned()),
            correlation_id: Some("0f0f".to_owned()),
            hint: Some("kubectl auth can-i list pods -n payments".to_owned()),
        },
        origin: origin(20),
    }];
    report.pending_git = vec![Pending {
        workload: worker.clone().at(&prod()),
        object: "serviceaccount payments/worker".to_owned(),
        why: "managed by Argo CD application `payments`".to_owned(),
        wanted: vec![
            "metadata.annotations:".to_owned(),
            "  azure.workload.identity/client-id: 22222222-2222-2222-2222-222222222222".to_owned(),
        ],
    }];
    report.pending_rollout = vec![Pending {
        workload: worker.clone().at(&prod()),
        object: "statefulset payments/worker".to_owned(),
        why: "updates only when pods are deleted (OnDelete)".to_owned(),
        wanted: vec!["kubectl -n payments delete pod worker-0".to_owned()],
    }];
    report.recreate = vec![Pending {
        workload: worker.clone().at(&prod()),
        object: "job payments/import".to_owned(),
        why: "a Job's template cannot be changed".to_owned(),
        wanted: vec![],
    }];
    report.left_over = vec![LeftOver {
        kind: "federated credential".to_owned(),
        id: Some("/subscriptions/s/.../wi-3f9ac1d2-ffff".into()),
        name: "wi-3f9ac1d2-ffff".to_owned(),
    }];
    report.not_proved = vec![finding(
        &worker.clone().at(&prod()),
        "pods-stale",
        "2 pods carry another client id",
        None,
    )];
    report.unmanaged = vec![workload("edge", "agent").at(&ClusterName::from("edge"))];
    planned
}
