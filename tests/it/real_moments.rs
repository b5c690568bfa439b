//! What goes wrong in the middle of a migration, on a real kube-apiserver with its controllers:
//! each in a namespace of its own, through a gateway that knows when the middle is.

use std::{collections::BTreeMap, process::Stdio, sync::Arc, time::Duration};

use hyper::Method;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::support::{
    cli::Ran,
    gateway::{Gateway, Happens, Other},
    kube_apiserver::{self, ApiServer},
    pod_identity::{make, old_definition},
    scene::{Scene, bare, collection, controller, decided, deployment},
};

/// Moments at once.
const AT_ONCE: usize = 4;
const MERGE: &str = "application/merge-patch+json";
const USE: &str = "azure.workload.identity/use";

/// A workload of two pods in a namespace of its own, and the gateway before it.
struct Moment {
    scene: Arc<Scene>,
    gateway: Gateway,
    name: String,
    namespace: String,
    path: String,
    before: Value,
}

impl Moment {
    /// Makes a controller and waits for its pods. Its account and selector have its name.
    async fn of(scene: &Arc<Scene>, server: &ApiServer, object: Value) -> Self {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let namespace = scene.admin.namespace(&name).await;
        // The spelling of manifests before 1.6.
        scene.bind(&namespace, &name, true).await;
        scene.controller(&namespace, &object).await;
        scene.settled(&namespace).await;
        let path = format!("{}/{name}", collection(&namespace, &object));
        let before = scene.admin.get(&path).await;
        let gateway = Gateway::start(server, &scene.desk.path(&format!("{name}.kubeconfig"))).await;
        let moment = Self { scene: Arc::clone(scene), gateway, name, namespace, path, before };
        moment.decide("");
        moment
    }

    fn decide(&self, workloads: &str) {
        let kubeconfig = self.gateway.kubeconfig.display().to_string();
        let text = self.scene.file_by(&kubeconfig, workloads);
        self.scene.desk.write(&format!("{}.toml", self.name), text);
    }

    fn workload(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn run(&self, line: &str) -> Ran {
        self.scene.run_by(&format!("{}.toml", self.name), line)
    }

    /// Migrates it, and nothing else.
    fn apply(&self, timeout: &str) -> Ran {
        let n = &self.namespace;
        self.run(&format!("migrate apply --yes -n {n} --rollout-timeout {timeout}"))
    }

    /// Migrates it once more, after it was put back: then it is named.
    fn again(&self) -> Ran {
        let only = self.workload();
        self.run(&format!("migrate apply --yes --only {only} --rollout-timeout 3m"))
    }

    fn rollback(&self) -> Ran {
        self.run(&format!("migrate rollback {} --yes", self.workload()))
    }

    fn phase(&self) -> String {
        self.scene.phase(&self.namespace, &self.name)
    }

    async fn now(&self) -> Value {
        self.scene.admin.get(&self.path).await
    }

    /// The revisions of its pods, with how many there are of each. A Deployment's `ReplicaSet`
    /// counts also when it is empty.
    async fn revisions(&self) -> BTreeMap<String, i64> {
        let mut all = BTreeMap::new();
        let sets = format!("/apis/apps/v1/namespaces/{}/replicasets", self.namespace);
        for set in self.scene.admin.get(&sets).await["items"].as_array().unwrap() {
            let hash = set["metadata"]["labels"]["pod-template-hash"].as_str().unwrap();
            all.insert(hash.to_owned(), set["status"]["replicas"].as_i64().unwrap());
        }
        all
    }

    /// The switch failed: the fields, the pods and the account are what they were, and the only
    /// trace is one empty `ReplicaSet`.
    async fn was_put_back(&self, ran: &Ran, revisions: &BTreeMap<String, i64>) {
        let line = format!("Put back {}: it is as it was", self.workload());
        let said = format!("{}\n{}", ran.stdout, ran.stderr);
        assert!(said.contains(&line) && !said.contains("rollout undo"), "{said}");
        self.scene.settled(&self.namespace).await;
        assert_eq!(bare(self.now().await), bare(self.before.clone()));
        let mut now = self.revisions().await;
        assert!(now.len() <= revisions.len() + 1, "{now:?}");
        now.retain(|_, pods| *pods > 0);
        assert_eq!(now, *revisions);
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}", self.namespace, self.name);
        assert_eq!(self.scene.admin.get(&path).await["metadata"]["annotations"], Value::Null);
        assert_eq!(self.phase(), "rolled-back");
    }

    /// At the `nth` read of the controller after it was switched, somebody sends this.
    fn in_the_roll(&self, nth: usize, writes: Vec<Other>) {
        let (path, mut writes) = (self.path.clone(), Some(writes));
        let (mut switched, mut reads) = (false, 0);
        self.gateway.watch(move |_, method, at| {
            if at != path {
                return Happens::Nothing;
            }
            switched |= *method == Method::PATCH;
            reads += usize::from(switched && *method == Method::GET);
            let now = switched && reads >= nth;
            now.then(|| writes.take()).flatten().map_or(Happens::Nothing, Happens::First)
        });
    }

    /// Before each of the first `times` writes of the controller somebody else writes it.
    fn overtaken(&self, times: usize) {
        let (path, mut seen) = (self.path.clone(), 0);
        self.gateway.watch(move |_, method, at| {
            if at != path || *method != Method::PATCH {
                return Happens::Nothing;
            }
            seen += 1;
            if seen > times {
                return Happens::Nothing;
            }
            let team = json!({"metadata": {"annotations": {"team": format!("t{seen}")}}});
            Happens::First(vec![(Method::PATCH, path.clone(), MERGE, team)])
        });
    }

    fn held(&self, held: bool) {
        let mut habits = self.scene.kubelet.habits.lock().unwrap();
        if held {
            habits.held.insert(self.namespace.clone());
        } else {
            habits.held.remove(&self.namespace);
        }
    }
}

/// What a lap does, how far it is to come, and how many objects of Pod Identity there are then.
const STAGES: [(&str, &str, usize); 3] = [
    ("apply --yes -n {n} --rollout-timeout 3m", "soaking", 2),
    ("finish --soak 0s --yes -n {n}", "cleaned", 0),
    ("rollback {n}/{name} --yes", "rolled-back", 2),
];

/// There and back with a `kill -9` in each stage, at its `nth` write or later in the shorter ones:
/// before the write arrives, or before its answer does. Run again, each reaches its end.
async fn is_killed((scene, server): Given<'_>, nth: usize) {
    let moment = Moment::of(scene, server, deployment(&format!("killed{nth}"), 2)).await;
    for (at, (line, phase, left)) in STAGES.into_iter().enumerate() {
        let line = line.replace("{n}", &moment.namespace).replace("{name}", &moment.name);
        let line = format!("migrate {line}");
        let nth = (nth - 1) % [8, 5, 5][at] + 1;
        let mut writes = 0;
        moment.gateway.watch(move |_, method, _| {
            writes += usize::from(*method != Method::GET);
            match writes == nth && *method != Method::GET {
                true if nth % 2 == 1 => Happens::Lost,
                true => Happens::AnswerLost,
                false => Happens::Nothing,
            }
        });
        let mut command = scene.command(&format!("-c {}.toml {line}", moment.name));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lost = tokio::time::timeout(Duration::from_secs(60), moment.gateway.lost()).await;
        assert!(lost.is_ok(), "`{line}` makes no {nth} writes");
        child.kill().unwrap();
        child.wait().unwrap();
        moment.gateway.watch(|_, _, _| Happens::Nothing);
        moment.run(&line).exits(0);
        assert_eq!(moment.phase(), phase, "`{line}` after write {nth}");
        let mut objects = scene.everything(&moment.namespace).await;
        objects.retain(|path, _| path.starts_with("azureidentit"));
        assert_eq!(objects.len(), left, "`{line}` after write {nth}");
    }
    assert_eq!(moment.now().await["spec"], moment.before["spec"]);
    assert!(moment.revisions().await.len() <= 2);
}

type Given<'a> = (&'a Arc<Scene>, &'a ApiServer);

/// An SDK that knows Pod Identity only: its new pods are never ready, and Kubernetes gives up.
async fn cannot_sign_in((scene, server): Given<'_>) {
    scene.kubelet.habits.lock().unwrap().old_sdk.insert("old-sdk".to_owned());
    let mut object = deployment("old-sdk", 2);
    object["spec"]["progressDeadlineSeconds"] = 2.into();
    let moment = Moment::of(scene, server, object).await;
    let revisions = moment.revisions().await;
    let ran = moment.apply("3m").exits(7).shows("ProgressDeadlineExceeded");
    moment.was_put_back(&ran, &revisions).await;
}

/// The same in a `StatefulSet`, whose controller waits for the broken pod also when its template
/// is put back.
async fn cannot_sign_in_one_after_the_other((scene, server): Given<'_>) {
    scene.kubelet.habits.lock().unwrap().old_sdk.insert("old-set".to_owned());
    let spec = json!({"replicas": 2, "serviceName": "x"});
    let object = controller("apps/v1", "StatefulSet", "old-set", spec);
    let moment = Moment::of(scene, server, object).await;
    // Its old pods have as long to come back.
    let ran = moment.apply("15s").exits(7).shows("not finished after 15 s");
    moment.was_put_back(&ran, &BTreeMap::new()).await;
    let pods = scene.admin.get(&format!("/api/v1/namespaces/{}/pods", moment.namespace)).await;
    for pod in pods["items"].as_array().unwrap() {
        assert_eq!(pod["metadata"]["labels"]["aadpodidbinding"], "old-set", "{pod}");
    }
}

async fn others_write_it_too((scene, server): Given<'_>) {
    let moment = Moment::of(scene, server, deployment("busy", 2)).await;
    moment.overtaken(3);
    moment.apply("3m").exits(0).shows("Migrate complete!");
    assert_eq!(moment.phase(), "soaking");
    assert_eq!(moment.now().await["metadata"]["annotations"]["team"], "t3");
    moment.overtaken(2);
    moment.rollback().exits(0).shows("it is as it was");
    assert_eq!(moment.now().await["metadata"]["annotations"]["team"], "t2");
    assert_eq!(moment.now().await["spec"], moment.before["spec"]);
}

async fn it_is_scaled((scene, server): Given<'_>) {
    let mut object = deployment("scaled", 2);
    object["spec"]["minReadySeconds"] = 1.into();
    let moment = Moment::of(scene, server, object).await;
    let scale = format!("{}/scale", moment.path);
    let four = json!({"spec": {"replicas": 4}});
    moment.in_the_roll(2, vec![(Method::PATCH, scale, MERGE, four)]);
    moment.apply("3m").exits(0).shows("Migrate complete!");
    assert_eq!(moment.phase(), "soaking");
    moment.rollback().exits(0);
    let now = moment.now().await;
    assert_eq!(now["spec"]["replicas"], 4, "the scale is somebody else's");
    assert_eq!(now["spec"]["template"], moment.before["spec"]["template"]);
}

async fn its_pods_are_evicted((scene, server): Given<'_>) {
    let moment = Moment::of(scene, server, deployment("evicted", 2)).await;
    let pods = format!("/api/v1/namespaces/{}/pods", moment.namespace);
    moment.in_the_roll(2, vec![(Method::DELETE, pods, "application/json", json!({}))]);
    moment.apply("3m").exits(0).shows("Migrate complete!");
    // The last of them may have gone as the roll ended.
    scene.settled(&moment.namespace).await;
    assert_eq!(moment.phase(), "soaking");
}

/// Somebody deletes it while it rolls. What is left of it is its account.
async fn it_is_deleted((scene, server): Given<'_>) {
    let moment = Moment::of(scene, server, deployment("deleted", 2)).await;
    moment.held(true);
    let gone = json!({"propagationPolicy": "Background"});
    moment.in_the_roll(2, vec![(Method::DELETE, moment.path.clone(), "application/json", gone)]);
    let ran = moment.apply("3m").exits(7).shows("it was deleted or recreated meanwhile");
    ran.shows("Migrate incomplete!").shows("it is as it was");
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/deleted", moment.namespace);
    assert_eq!(scene.admin.get(&path).await["metadata"]["annotations"], Value::Null);
    moment.rollback().exits(0).shows("it is as it was");
}

/// `kubectl apply` of the old manifest, in the middle: the run must not call this done.
async fn somebody_takes_the_label_away((scene, server): Given<'_>) {
    let moment = Moment::of(scene, server, deployment("taken", 2)).await;
    moment.held(true);
    let labels = json!({USE: null, "aadpodidbinding": "taken"});
    let old = json!({"spec": {"template": {"metadata": {"labels": labels}}}});
    moment.in_the_roll(2, vec![(Method::PATCH, moment.path.clone(), MERGE, old)]);
    let ran = moment.apply("3m").exits(3).shows("somebody took label");
    assert!(!ran.stdout.contains("Migrate complete!"), "{}", ran.stdout);
    moment.held(false);
    // What this run wrote is put back; its application is not at fault, and the next run goes on.
    assert_eq!(moment.phase(), "rolled-back");
    moment.apply("3m").exits(0).shows("Migrate complete!");
    assert_eq!(moment.phase(), "soaking");
}

async fn it_is_paused((scene, server): Given<'_>) {
    let moment = Moment::of(scene, server, deployment("paused", 2)).await;
    let revisions = moment.revisions().await;
    scene.admin.merge(&moment.path, &json!({"spec": {"paused": true}})).await;
    moment.apply("3m").exits(0).shows("deployment/paused is paused");
    assert_eq!(moment.phase(), "discovered");
    moment.decide(&decided(&moment.namespace, "paused", "\"deployment/paused\""));
    moment.apply("3m").exits(0);
    // Its pods are the old ones, and Pod Identity answers them.
    assert_eq!((moment.phase().as_str(), moment.revisions().await), ("switched", revisions));
    scene.admin.merge(&moment.path, &json!({"spec": {"paused": null}})).await;
    scene.settled(&moment.namespace).await;
    moment.apply("3m").exits(0);
    assert_eq!(moment.phase(), "soaking");
}

async fn it_has_a_partition((scene, server): Given<'_>) {
    let partition = |n: i64| json!({"rollingUpdate": {"partition": n}});
    let spec = json!({"replicas": 2, "serviceName": "x", "updateStrategy": partition(1)});
    let object = controller("apps/v1", "StatefulSet", "parted", spec);
    let moment = Moment::of(scene, server, object).await;
    moment.decide(&decided(&moment.namespace, "parted", "\"statefulset/parted\""));
    moment.apply("3m").exits(0);
    assert_eq!(moment.phase(), "switched");
    moment.rollback().exits(0).shows("it is as it was");
    assert_eq!(moment.now().await["spec"], moment.before["spec"]);
    moment.again().exits(0);
    let whole = json!({"spec": {"updateStrategy": partition(0)}});
    scene.admin.merge(&moment.path, &whole).await;
    scene.settled(&moment.namespace).await;
    moment.apply("3m").exits(0);
    assert_eq!(moment.phase(), "soaking");
}

async fn its_namespace_ends((scene, server): Given<'_>) {
    let moment = Moment::of(scene, server, deployment("ending", 2)).await;
    let path = format!("/api/v1/namespaces/{}", moment.namespace);
    moment.in_the_roll(1, vec![(Method::DELETE, path, "application/json", json!({}))]);
    moment.held(true);
    let ran = moment.apply("3m").exits(7);
    ran.shows("Migrate incomplete!");
}

const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations\
                     /azure-wi-webhook-mutating-webhook-configuration";

/// The webhook answers no more from the first write of a template on.
async fn the_webhook_goes(
    (scene, server): Given<'_>,
    name: &str,
    policy: &str,
) -> (Moment, Ran, BTreeMap<String, i64>) {
    let moment = Moment::of(scene, server, deployment(name, 2)).await;
    let revisions = moment.revisions().await;
    let before = scene.admin.get(HOOKS).await["webhooks"].clone();
    let mut down = before.clone();
    down[0]["failurePolicy"] = policy.into();
    down[0]["clientConfig"]["url"] = "https://127.0.0.1:9/gone".into();
    let write = (Method::PATCH, HOOKS.to_owned(), MERGE, json!({"webhooks": down}));
    // The API server takes up another configuration when it hears of it: nothing starts until
    // then, and the first new pod is not the last.
    moment.held(true);
    moment.in_the_roll(1, vec![write]);
    let freed = {
        let (scene, before) = (Arc::clone(scene), before.clone());
        let namespace = moment.namespace.clone();
        tokio::spawn(async move {
            while scene.admin.get(HOOKS).await["webhooks"] == before {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            scene.kubelet.habits.lock().unwrap().held.remove(&namespace);
        })
    };
    let ran = moment.apply("6s");
    freed.await.unwrap();
    scene.admin.merge(HOOKS, &json!({"webhooks": before})).await;
    (moment, ran, revisions)
}

/// A server with the definitions of Pod Identity before 1.6.
async fn old_cluster(name: &str) -> Option<(Arc<Scene>, Arc<ApiServer>)> {
    let assets = kube_apiserver::assets(name)?;
    let server = kube_apiserver::start(&assets, "https://issuer.test/");
    let scene = Scene::new(&server).await;
    let definitions = [
        old_definition("AzureAssignedIdentity", "azureassignedidentities"),
        old_definition("AzureIdentityBinding", "azureidentitybindings"),
        old_definition("AzureIdentity", "azureidentities"),
        old_definition("AzurePodIdentityException", "azurepodidentityexceptions"),
    ];
    make(&scene.admin, &definitions).await;
    // Without an NMI nobody would answer what is put back, and nothing is.
    let labels = json!({"component": "nmi"});
    let nmi = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "nmi", "namespace": "default", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "nmi", "image": "nmi"}]}}}});
    let at = "/apis/apps/v1/namespaces/default/daemonsets".to_owned();
    make(&scene.admin, &[(at, nmi)]).await;
    Some((Arc::new(scene), Arc::new(server)))
}

/// Waits for all, also where one has failed: the server ends with the test, and without it the
/// others would look as if they had failed too.
async fn all_pass(mut all: JoinSet<()>) {
    let mut failed = Vec::new();
    while let Some(ended) = all.join_next().await {
        failed.extend(ended.err());
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Runs moments, a few at once.
macro_rules! moments {
    ($scene:ident, $server:ident, $few:ident, $all:ident: $($what:ident $(($nth:ident))?),*) => {$({
        let (scene, server, few) = (Arc::clone(&$scene), Arc::clone(&$server), Arc::clone(&$few));
        $all.spawn(async move {
            let _turn = few.acquire().await;
            $what((&scene, &server), $($nth)?).await;
        });
    })*};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 16)]
async fn a_migration_survives_its_hard_moments_on_a_real_api_server() {
    let name = "real_moments::a_migration_survives_its_hard_moments_on_a_real_api_server";
    let Some((scene, server)) = old_cluster(name).await else { return };
    let (few, mut all) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    moments!(scene, server, few, all:
        cannot_sign_in,
        cannot_sign_in_one_after_the_other,
        others_write_it_too,
        it_is_scaled,
        its_pods_are_evicted,
        it_is_deleted,
        somebody_takes_the_label_away,
        it_is_paused,
        it_has_a_partition,
        its_namespace_ends
    );
    for nth in [4, 7] {
        moments!(scene, server, few, all: is_killed(nth));
    }
    all_pass(all).await;
    // These change what all others need.
    let (moment, ran, revisions) = the_webhook_goes((&scene, &server), "refusing", "Fail").await;
    let ran = ran.exits(7).shows("no pod can be made").shows("failed calling webhook");
    moment.was_put_back(&ran, &revisions).await;
    scene.kubelet.habits.lock().unwrap().blind.insert("ignoring".to_owned());
    let (moment, ran, revisions) = the_webhook_goes((&scene, &server), "ignoring", "Ignore").await;
    let ran = ran.exits(7).shows("came without the injected identity");
    moment.was_put_back(&ran, &revisions).await;
    moment.again().exits(0).shows("Migrate complete!");
}

/// `cargo test --test it real_moments -- --ignored`.
#[tokio::test(flavor = "multi_thread", worker_threads = 16)]
#[ignore = "some 50 runs of the program: minutes"]
async fn a_migration_survives_a_kill_at_any_write_on_a_real_api_server() {
    let name = "real_moments::a_migration_survives_a_kill_at_any_write_on_a_real_api_server";
    let Some((scene, server)) = old_cluster(name).await else { return };
    let (few, mut all) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for nth in 1..=8 {
        moments!(scene, server, few, all: is_killed(nth));
    }
    all_pass(all).await;
}
