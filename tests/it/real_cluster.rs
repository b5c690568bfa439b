//! The program against a real kube-apiserver, the sandbox being Azure: the same binary, a
//! kubeconfig context and a `cloud` table, as it would be run in delivery.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    cli::{Desk, Ran},
    kube_apiserver::{self, Admin, ApiServer},
    kubelet::{self, Authority},
    pod_identity::{GROUP, custom, left, make, manifests},
};

const SUBSCRIPTION: &str = "a3c9e5b7-1d24-4f68-8b0a-6e7d92f4c813";

/// The sandbox as Azure, before a real API server. It ends with its standard input and this value.
pub(crate) struct Azure {
    child: Child,
    ready: Value,
}

impl Azure {
    #[expect(clippy::zombie_processes, reason = "`Drop` ends it and waits for it")]
    pub(crate) fn serve(desk: &Desk, server: &ApiServer, options: &str) -> Self {
        let line = format!(
            "sandbox serve --ready-file ready.json --cluster prod={} {options}",
            server.kubeconfig.display()
        );
        let child =
            desk.command(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let ready = desk.path("ready.json");
        for _ in 0..600 {
            if let Ok(text) = std::fs::read_to_string(&ready)
                && let Ok(ready) = serde_json::from_str(&text)
            {
                return Self { child, ready };
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the sandbox did not come up within a minute");
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap()
    }

    /// The environment of a pipeline that signs in with a secret.
    pub(crate) fn sign_in<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("AZURE_CLIENT_ID", self.text("client_id"))
            .env("AZURE_TENANT_ID", self.text("tenant"))
            .env("AZURE_CLIENT_SECRET", self.text("client_secret"))
    }
}

impl Drop for Azure {
    fn drop(&mut self) {
        drop(Command::new("kill").arg(self.child.id().to_string()).status());
        drop(self.child.wait());
    }
}

/// The file for the sandbox: it seeds the cluster's record and the vault.
fn file(namespace: &str, cloud: &str, access: &str) -> String {
    format!(
        r#"
version = 1
project = "real"

[azure]
tenant = "5d1f0c2e-7a44-4c1b-9e37-2f8a6b90c451"
subscription = "{SUBSCRIPTION}"
resource_group = "rg-identities"
location = "westeurope"
{cloud}

[clusters.prod]
id = "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/aks-real"
{access}

[targets]
vault = "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv-real"

[[workloads]]
namespace = "{namespace}"
service_account = "api"
target = "vault"
role = "Key Vault Secrets User"
"#
    )
}

/// A cluster with a Deployment of two pods in a namespace of its own, and Azure before it.
struct Scene {
    desk: Desk,
    azure: Azure,
    admin: Admin,
    namespace: String,
}

impl Scene {
    async fn new(server: &ApiServer, hint: &str) -> Self {
        let admin = Admin::of(server).await;
        let namespace = admin.namespace(hint).await;
        let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
        admin.create(&deployments, &deployment()).await;
        let desk = Desk::new();
        desk.write("workloads.toml", file(&namespace, "", ""));
        let azure = Azure::serve(&desk, server, "");
        let cloud = format!(
            "cloud = {{ resource_manager = \"{}\", authority = \"{}\", ca_file = \"{}\" }}",
            azure.text("resource_manager"),
            azure.text("authority"),
            azure.text("ca_file"),
        );
        let access =
            format!("context = \"admin\"\nkubeconfig = \"{}\"", server.kubeconfig.display());
        desk.write("real.toml", file(&namespace, &cloud, &access));
        Self { desk, azure, admin, namespace }
    }

    /// Runs the program while pods are made to run, as a kubelet would.
    fn run(&self, line: &str) -> Ran {
        let mut command = self.desk.command(line);
        self.azure.sign_in(&mut command);
        let done = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&done);
        let program = async {
            let ran = tokio::task::block_in_place(|| self.desk.finish(&mut command));
            done.store(true, Ordering::SeqCst);
            ran
        };
        let kubelet = async {
            let authority = Authority {
                host: self.azure.text("authority").to_owned(),
                ca_file: self.azure.text("ca_file").to_owned(),
            };
            while !over.load(Ordering::SeqCst) {
                self.admin.run_pods(&self.namespace).await;
                self.admin.run_proofs(&self.namespace, &authority).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        // On threads of their own: the program blocks one of them.
        std::thread::scope(|scope| {
            let handle = tokio::runtime::Handle::current();
            let kubelet = scope.spawn(move || handle.block_on(kubelet));
            let ran =
                tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(program));
            kubelet.join().unwrap();
            ran
        })
    }
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "api"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "api"}},
            "template": {
                "metadata": {"labels": {"app": "api"}},
                "spec": {
                    "serviceAccountName": "api",
                    "containers": [{"name": "app", "image": "example.test/api:1"}],
                },
            },
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_goes_from_nothing_to_proved() {
    let name = "real_cluster::a_real_api_server_goes_from_nothing_to_proved";
    // A server of its own: each sandbox registers its webhook under the one name.
    let Some(assets) = kube_apiserver::assets(name) else { return };
    let server = kube_apiserver::start(&assets, "https://issuer.test/");
    let scene = Scene::new(&server, "tour").await;
    a_context_without_rights_sees_nothing_and_writes_nothing(&scene).await;
    scene
        .run("-c real.toml apply --yes --timeout 3m")
        .exits(0)
        .shows("Proof: 1 of 1 proved")
        .shows("Apply complete! Resources: 4 added, 1 changed, 0 destroyed.");

    let path = format!("/api/v1/namespaces/{}/serviceaccounts/api", scene.namespace);
    let account = scene.admin.get(&path).await;
    let annotations = &account["metadata"]["annotations"];
    assert_eq!(annotations["widentity.dev/project"], "real");
    let managers = account["metadata"]["managedFields"].as_array().unwrap();
    assert!(
        managers
            .iter()
            .any(|entry| { entry["manager"] == "widentity-real" && entry["operation"] == "Apply" })
    );
    let pods = scene.admin.get(&format!("/api/v1/namespaces/{}/pods", scene.namespace)).await;
    let pods = pods["items"].as_array().unwrap();
    let client = annotations["azure.workload.identity/client-id"].as_str().unwrap();
    for pod in pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()) {
        assert!(pod.to_string().contains(client), "{pod}");
    }

    scene.run("-c real.toml plan --detailed-exitcode").exits(0);
    scene
        .run("-c real.toml apply --yes")
        .exits(0)
        .shows("No changes. Your infrastructure matches the configuration.");
    scene.run("-c real.toml verify").exits(0).shows("Proof: 1 of 1 proved");
    if kubelet::can_run(name) {
        by_a_pod(&scene).await;
    }
    a_pod_that_never_ends_is_removed_with_the_run(&scene).await;
}

async fn proof_pods(scene: &Scene) -> usize {
    let path = format!("/api/v1/namespaces/{}/pods", scene.namespace);
    let pods = scene.admin.get(&format!("{path}?labelSelector=widentity.dev%2Fproof")).await;
    let pods = pods["items"].as_array().unwrap();
    pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).count()
}

/// The script runs for real: its curl asks Entra with the token that this API server issued.
async fn by_a_pod(scene: &Scene) {
    let ran = scene.run("-c real.toml verify --method job --timeout 2m").exits(0);
    ran.shows("proved by job");
    assert_eq!(proof_pods(scene).await, 0);
}

/// Without a kubelet the pod stays as it is until the run is interrupted.
async fn a_pod_that_never_ends_is_removed_with_the_run(scene: &Scene) {
    let mut command = scene.desk.command("-c real.toml verify --method job");
    scene.azure.sign_in(&mut command).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let made = async {
        while proof_pods(scene).await == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), made).await.unwrap();
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let code = tokio::task::block_in_place(|| child.wait().unwrap().code());
    assert_eq!(code, Some(8));
    assert_eq!(proof_pods(scene).await, 0);
}

async fn a_context_without_rights_sees_nothing_and_writes_nothing(scene: &Scene) {
    let text = scene.desk.read("real.toml").replace("\"admin\"", "\"nobody\"");
    scene.desk.write("nobody.toml", text);
    let ran = scene.run("-c nobody.toml apply --yes").exits(6);
    assert!(!ran.stdout.contains("No changes"), "{}", ran.stdout);
    let path = format!("/api/v1/namespaces/{}/serviceaccounts", scene.namespace);
    let accounts = scene.admin.get(&path).await;
    assert_eq!(accounts["items"].as_array().unwrap().len(), 1, "only `default`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_loses_pod_identity() {
    let name = "real_cluster::a_real_api_server_loses_pod_identity";
    let Some(assets) = kube_apiserver::assets(name) else { return };
    let server = kube_apiserver::start(&assets, "https://issuer.test/");
    let scene = Scene::new(&server, "shop").await;
    let objects = manifests("default");
    make(&scene.admin, &objects).await;
    let at = (scene.namespace.as_str(), "unused");
    let (collection, identity) =
        custom("AzureIdentity", "azureidentities", at, json!({"type": 0, "resourceID": "/x"}));
    scene.admin.create(&collection, &identity).await;
    while scene.admin.get("/api/v1/namespaces/default/pods").await["items"][1].is_null() {
        // MIC's pods are made; nothing runs them.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    scene.run("-c real.toml migrate uninstall").exits(64).says("no terminal");
    scene.run("-c real.toml migrate uninstall --yes").exits(5).shows("open-metadata");
    let allowed = "--allow-open-metadata";
    let ran =
        scene.run(&format!("-c real.toml -o json migrate uninstall --plan {allowed}")).exits(0);
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let steps = document["clusters"][0]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), objects.len() + 2, "{document:#}");
    assert_eq!(left(&scene.admin, &objects).await.len(), objects.len());

    scene
        .run(&format!("-c real.toml migrate uninstall --yes {allowed}"))
        .exits(0)
        .shows("removed AzureIdentity")
        .shows("removed DaemonSet default/nmi (NMI)")
        .shows("Uninstall complete: 16 steps done.");
    assert_eq!(left(&scene.admin, &objects).await, Vec::<String>::new());
    assert!(!scene.admin.exists(&format!("/apis/{GROUP}/v1/azureidentities")).await);
    scene
        .run("-c real.toml migrate uninstall --yes")
        .exits(0)
        .shows("No AAD Pod Identity: nothing to uninstall.");
}
