//! What `audit` says of the kinds that may not be there: absent, found or refused.

use serde_json::json;
use widentity::ops::audit::audit;

use crate::support::{pod_identity::make, uninstall::World};

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_refused_is_not_an_empty_one() {
    let world = World::start().await;
    let found = audit(&world.connected, &world.desired).await;
    // Nothing of Pod Identity, of the secrets store or of KEDA is installed: their kinds are absent.
    assert_eq!(found.unseen, Vec::<String>::new());
    let refused = json!({"answer": {"status": 403, "code": "Forbidden", "message": "no"}});
    for plural in [
        "azureidentities",
        "azureidentitybindings",
        "azurepodidentityexceptions",
        "secretproviderclasses",
        "/triggerauthentications",
        "clustertriggerauthentications",
        "mutatingwebhookconfigurations",
        "serviceaccounts",
    ] {
        let path = format!("*{plural}");
        world
            .fault(json!({"service": "cluster/prod", "method": "GET", "path": path, "times": 0,
                "action": refused}))
            .await;
        let found = audit(&world.connected, &world.desired).await;
        assert!(world.mended().await > 0, "{plural} was not asked for");
        let [unseen] = &found.unseen[..] else { panic!("{plural}: {:#?}", found.unseen) };
        assert!(unseen.starts_with("cluster prod: list "), "{plural}: {unseen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_for_the_whole_cluster_is_found() {
    let world = World::start().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "clustertriggerauthentications.keda.sh"},
        "spec": {
            "group": "keda.sh", "scope": "Cluster",
            "names": {"kind": "ClusterTriggerAuthentication",
                "plural": "clustertriggerauthentications",
                "singular": "clustertriggerauthentication",
                "listKind": "ClusterTriggerAuthenticationList"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object",
                    "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    let trigger = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ClusterTriggerAuthentication",
        "metadata": {"name": "queue"}, "spec": {"podIdentity": {"provider": "azure"}}});
    let objects = [
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions".to_owned(), definition),
        ("/apis/keda.sh/v1alpha1/clustertriggerauthentications".to_owned(), trigger),
    ];
    make(&world.admin, &objects).await;
    let found = audit(&world.connected, &world.desired).await;
    let found = found.findings.iter().find(|finding| finding.code == "keda-pod-identity");
    let object = found.map(|finding| finding.object.as_str());
    assert_eq!(object, Some("ClusterTriggerAuthentication queue@prod"));
}
