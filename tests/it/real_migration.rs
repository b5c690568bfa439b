//! `migrate` against a real kube-apiserver with its real controllers, the sandbox being Azure: the
//! program as a whole, from the first status to an empty plan after the uninstall.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    kube_apiserver::{self, Admin},
    pod_identity::{FINALIZER, GROUP, custom, left, make, manifests},
    scene::{Scene, controller, decided, deployment, owned, template},
};

fn cron_job(name: &str, suspended: bool) -> Value {
    let mut template = template(name);
    template["spec"]["restartPolicy"] = "Never".into();
    json!({"apiVersion": "batch/v1beta1", "kind": "CronJob", "metadata": {"name": name},
        "spec": {"schedule": "0 0 1 1 *", "suspend": suspended,
            "jobTemplate": {"spec": {"template": template}}}})
}

/// MIC: takes back what it assigned for bindings that are gone, and lets go of it.
async fn mic(admin: &Admin) {
    for one in admin.items(&format!("/apis/{GROUP}/v1/azureassignedidentities")).await {
        let of = &one["spec"]["azureBindingRef"]["metadata"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let group = format!("/apis/{GROUP}/v1/namespaces");
        let binding = text(&of["namespace"]);
        let binding = format!("{group}/{binding}/azureidentitybindings/{}", text(&of["name"]));
        if admin.exists(&binding).await {
            continue;
        }
        let meta = &one["metadata"];
        let path = text(&meta["namespace"]);
        let path = format!("{group}/{path}/azureassignedidentities/{}", text(&meta["name"]));
        admin.merge(&path, &json!({"metadata": {"finalizers": null}})).await;
        admin.delete(&path).await;
    }
}

/// MIC for as long as a test runs.
struct Mic(tokio::task::JoinHandle<()>);

impl Drop for Mic {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Mic {
    fn start(admin: Admin) -> Self {
        Self(tokio::spawn(async move {
            loop {
                mic(&admin).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }))
    }
}

/// What MIC made of a binding for a pod.
async fn assign(admin: &Admin, namespace: &str, name: &str) {
    let (at, mut object) = custom(
        "AzureAssignedIdentity",
        "azureassignedidentities",
        ("default", &format!("pod-{namespace}-{name}")),
        json!({"pod": "pod", "podNamespace": namespace,
            "azureIdentityRef": {"apiVersion": format!("{GROUP}/v1"), "kind": "AzureIdentity",
                "metadata": {"name": name, "namespace": namespace}},
            "azureBindingRef": {"apiVersion": format!("{GROUP}/v1"), "kind": "AzureIdentityBinding",
                "metadata": {"name": name, "namespace": namespace}}}),
    );
    object["metadata"]["finalizers"] = json!([FINALIZER]);
    admin.create(&at, &object).await;
}

/// The estate before and after, without what a switch changes.
fn unswitched(everything: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let mut all = everything.clone();
    all.retain(|path, _| !path.starts_with("configmaps/widentity-migrate-"));
    for object in all.values_mut() {
        for template in ["/spec/template/metadata", "/spec/jobTemplate/spec/template/metadata"] {
            let Some(meta) = object.pointer_mut(template) else { continue };
            for map in ["labels", "annotations"] {
                if let Some(map) = meta.get_mut(map).and_then(Value::as_object_mut) {
                    map.remove("azure.workload.identity/use");
                    map.remove("aadpodidbinding");
                    map.remove("widentity.dev/chain");
                }
            }
            if meta["annotations"] == json!({}) {
                meta.as_object_mut().unwrap().remove("annotations");
            }
        }
        let meta = object["metadata"].as_object_mut().unwrap();
        if let Some(map) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            map.retain(|key, _| {
                !key.starts_with("azure.workload.identity/") && key != "widentity.dev/project"
            });
            if map.is_empty() {
                meta.remove("annotations");
            }
        }
    }
    all
}

async fn estate(scene: &Scene, shop: &str, pay: &str) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    scene.admin.create("/api/v1/nodes", &node).await;
    let apps = |kind, name, spec| controller("apps/v1", kind, name, spec);
    let mut job = cron_job("once", false)["spec"]["jobTemplate"].clone();
    job["apiVersion"] = "batch/v1".into();
    job["kind"] = "Job".into();
    job["metadata"] = json!({"name": "once"});
    for (namespace, object) in [
        (shop, deployment("web", 2)),
        (shop, apps("StatefulSet", "db", json!({"replicas": 2, "serviceName": "db"}))),
        (shop, apps("DaemonSet", "agent", json!({}))),
        (shop, cron_job("nightly", false)),
        (shop, cron_job("asleep", true)),
        (shop, job),
        (shop, apps("ReplicaSet", "bare", json!({"replicas": 2}))),
        (pay, deployment("till", 2)),
    ] {
        let name = object["metadata"]["name"].as_str().unwrap();
        scene.bind(namespace, name, false).await;
        scene.controller(namespace, &object).await;
    }
    let mut other = deployment("other", 1);
    other["spec"]["template"] = template("other");
    let labels = &mut other["spec"]["template"]["metadata"]["labels"];
    labels.as_object_mut().unwrap().remove("aadpodidbinding");
    scene.controller(pay, &other).await;
    assign(&scene.admin, shop, "web").await;
    assign(&scene.admin, pay, "till").await;
    scene.settled(shop).await;
    scene.settled(pay).await;
}

const MOVED: [&str; 6] = ["agent", "asleep", "db", "nightly", "till", "web"];

fn phases(scene: &Scene, more: &str) -> BTreeMap<String, String> {
    let standing = scene.standing(more).into_iter();
    let name = |name: String| name.split_once('/').unwrap().1.to_owned();
    standing.map(|(workload, (phase, _))| (name(workload), phase)).collect()
}

fn all(phase: &str) -> BTreeMap<String, String> {
    let rest = ["bare", "once"].map(|name| (name.to_owned(), "discovered".to_owned()));
    MOVED.iter().map(|name| ((*name).to_owned(), phase.to_owned())).chain(rest).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_estate_leaves_pod_identity_on_a_real_api_server() {
    let name = "real_migration::an_estate_leaves_pod_identity_on_a_real_api_server";
    let Some(assets) = kube_apiserver::assets(name) else { return };
    let server = kube_apiserver::start(&assets, "https://issuer.test/");
    let scene = Scene::new(&server).await;
    let installation = manifests("default");
    make(&scene.admin, &installation).await;
    let (shop, pay) = (scene.admin.namespace("shop").await, scene.admin.namespace("pay").await);
    estate(&scene, &shop, &pay).await;
    let mic = Mic::start(Admin::of(&server).await);
    let before = (scene.everything(&shop).await, scene.everything(&pay).await);

    // What cannot keep serving while it rolls, and what nobody can roll.
    let standing = scene.standing("");
    let verdict = |name: &str| standing[&format!("{shop}/{name}")].1.clone();
    let needs = ["agent", "asleep", "nightly"].map(verdict);
    assert_eq!(needs, ["needs-decision"; 3]);
    assert_eq!(["bare", "once"].map(verdict), ["cannot"; 2]);
    assert_eq!(["db", "web"].map(verdict), ["ready"; 2]);
    assert_eq!(phases(&scene, ""), all("discovered"));
    let on = |name: &str, kind: &str| decided(&shop, name, &format!("\"{kind}/{name}\""));
    let decisions = on("agent", "daemonset") + &on("nightly", "cronjob") + &on("asleep", "cronjob");
    scene.decide(&decisions);
    let plan = scene.run("migrate plan").exits(0);
    plan.shows("switch cronjob/nightly in one roll").shows("6 ready, 0 to decide, 2 cannot");
    assert_eq!((scene.everything(&shop).await, scene.everything(&pay).await), before);

    let switch = || scene.run("migrate apply --yes --rollout-timeout 3m").exits(0);
    switch().shows("Proof: 6 of 6 proved").shows("Migration: 6 of 8 workloads moved");
    assert_eq!(phases(&scene, ""), all("soaking"));
    nothing_else_is_ours(&scene, &shop).await;
    let after = (scene.everything(&shop).await, scene.everything(&pay).await);
    assert_eq!(unswitched(&after.0), unswitched(&before.0));
    assert_eq!(unswitched(&after.1), unswitched(&before.1));

    // There and back again: what is put back is what was there.
    for name in MOVED {
        let namespace = if name == "till" { &pay } else { &shop };
        let line = format!("migrate rollback {namespace}/{name} --yes");
        scene.run(&line).exits(0).shows("it is as it was");
    }
    let back = async |namespace: &str| {
        let mut all = scene.everything(namespace).await;
        all.retain(|path, _| !path.starts_with("configmaps/widentity-migrate-"));
        all
    };
    assert_eq!((back(&shop).await, back(&pay).await), before);
    assert_eq!(phases(&scene, ""), all("rolled-back"));
    scene.settled(&shop).await;
    scene.settled(&pay).await;
    // What was put back is left alone until somebody names it.
    switch();
    assert_eq!(phases(&scene, ""), all("rolled-back"));
    let named = MOVED.map(|name| {
        let namespace = if name == "till" { &pay } else { &shop };
        format!(" --only {namespace}/{name}")
    });
    let named = named.concat();
    scene.run(&format!("migrate apply --yes --rollout-timeout 3m{named}")).exits(0);
    assert_eq!(phases(&scene, ""), all("soaking"));

    scene.run("migrate finish --yes").exits(0).shows("Nothing to remove.");
    let toml = scene.run("migrate plan -o toml").exits(0).stdout;
    let ran = scene.run("migrate finish --soak 0s --allow-unrun --yes").exits(0);
    ran.shows("Finish: 12 of 12 objects removed.");
    assert_eq!(phases(&scene, ""), all("cleaned"));
    let uninstall = "migrate uninstall --yes --allow-open-metadata";
    scene.run(uninstall).exits(1).shows("workload-not-cleaned");
    for path in ["batch/v1/namespaces/{}/jobs/once", "apps/v1/namespaces/{}/replicasets/bare"] {
        let path = format!("/apis/{}", path.replace("{}", &shop));
        let background = json!({"propagationPolicy": "Background"});
        let json = "application/json";
        scene.admin.send(hyper::Method::DELETE, &path, json, &background).await;
    }
    while scene.admin.get("/api/v1/pods?labelSelector=aadpodidbinding").await["items"][0]
        .is_object()
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(mic);
    scene.run(uninstall).exits(0).shows("Uninstall complete");
    assert_eq!(left(&scene.admin, &installation).await, Vec::<String>::new());
    // The workloads that are left are in the file, and nothing is to be done for them.
    let moved: Vec<&str> = toml.split("\n\n").filter(|w| !gone(w)).collect();
    let decided_first = decisions.clone();
    scene.decide(&(decisions + "\n" + &moved.join("\n\n")));
    scene.run("plan --detailed-exitcode").exits(0).shows("No changes.");
    scene.run("migrate").exits(0).shows("Phases: 6 cleaned");
    // What the switch wrote is ours: it changes like what `apply` wrote.
    let web = "service_account = \"web\"";
    let longer = moved.join("\n\n").replace(web, &format!("{web}\ntoken_expiration = 7200"));
    scene.decide(&(decided_first + "\n" + &longer));
    scene.run("apply --yes").exits(0).shows("Apply complete!");
    scene.run("plan --detailed-exitcode").exits(0).shows("No changes.");
}

/// Whether a table is that of a workload which this test has deleted.
fn gone(table: &str) -> bool {
    ["bare", "once"].iter().any(|name| table.contains(&format!("service_account = \"{name}\"")))
}

async fn nothing_else_is_ours(scene: &Scene, shop: &str) {
    let set = |paths: &[&str]| -> BTreeSet<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    };
    let template = |at: &str| {
        let own = |path: &str| format!("{at}{path}");
        BTreeSet::from([
            "/metadata/annotations/widentity.dev/project".to_owned(),
            own("/annotations/widentity.dev/chain"),
            own("/labels/azure.workload.identity/use"),
        ])
    };
    for path in ["deployments/web", "statefulsets/db", "daemonsets/agent"] {
        let object = scene.admin.get(&format!("/apis/apps/v1/namespaces/{shop}/{path}")).await;
        assert_eq!(owned(&object), template("/spec/template/metadata"), "{path}");
    }
    let path = format!("/apis/batch/v1beta1/namespaces/{shop}/cronjobs/nightly");
    let object = scene.admin.get(&path).await;
    assert_eq!(owned(&object), template("/spec/jobTemplate/spec/template/metadata"));
    let path = format!("/api/v1/namespaces/{shop}/serviceaccounts/web");
    let annotations = [
        "/metadata/annotations/azure.workload.identity/client-id",
        "/metadata/annotations/azure.workload.identity/tenant-id",
        "/metadata/annotations/widentity.dev/project",
    ];
    assert_eq!(owned(&scene.admin.get(&path).await), set(&annotations));
}
