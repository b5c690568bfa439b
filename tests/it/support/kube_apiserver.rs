//! A real Kubernetes API server: etcd, kube-apiserver and kube-controller-manager on free ports of
//! loopback, from the folder that `KUBEBUILDER_ASSETS` names.
//!
//! There is no scheduler and no kubelet: pods stay Pending until [`Admin::run_pods`] says that
//! they run. Everything ends with the test process, however that ends.

use std::{
    env,
    fmt::Write as _,
    fs,
    hash::{BuildHasher as _, RandomState},
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use hyper::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256,
};
use serde_json::{Value, json};
use tokio::time;

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// Authenticates as a member of `system:masters`.
const ADMIN: &str = "admin-token";
/// Authenticates as a user who may do nothing.
const NOBODY: &str = "nobody-token";

/// A running server. Dropping it, and the end of the process, stop it and remove its files.
pub(crate) struct ApiServer {
    /// A kubeconfig with the contexts `admin` (current) and `nobody`.
    pub kubeconfig: PathBuf,
    /// The issuer of its tokens, which is only a name here.
    pub issuer: String,
    /// The address, `https://127.0.0.1:<port>`.
    pub server: String,
    programs: Vec<Child>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // The API server first: without etcd it would only complain.
        for program in self.programs.iter_mut().rev() {
            drop(program.stdin.take());
            drop(program.wait());
        }
    }
}

/// The server that tests share, started by the first that needs it; none where
/// `KUBEBUILDER_ASSETS` is not set, which is said with the test's name.
pub(crate) fn shared(test: &str) -> Option<&'static ApiServer> {
    static SERVER: OnceLock<ApiServer> = OnceLock::new();
    let assets = assets(test)?;
    Some(SERVER.get_or_init(|| start(&assets, "https://issuer.test/")))
}

/// The folder with the three programs, or none, and then says which test is skipped.
pub(crate) fn assets(test: &str) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "the convention of setup-envtest")]
    let folder = env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty());
    if folder.is_none() {
        // Not `eprintln`: the test harness hides what passing tests print through it.
        let line = format!("skipped {test}: KUBEBUILDER_ASSETS is not set\n");
        drop(std::io::stderr().write_all(line.as_bytes()));
    }
    folder.map(PathBuf::from)
}

/// Starts a server and waits until it is ready and has made the account `default/default`.
pub(crate) fn start(assets: &Path, issuer: &str) -> ApiServer {
    let (assets, issuer) = (assets.to_owned(), issuer.to_owned());
    // On a thread and runtime of its own: callers may be inside one.
    let started = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(start_async(&assets, &issuer))
    });
    started.join().unwrap()
}

async fn start_async(assets: &Path, issuer: &str) -> ApiServer {
    let dir = tempfile::Builder::new().prefix("widentity-kube-").tempdir().unwrap().keep();
    let [etcd_port, peer_port, api_port, manager_port] = free_ports();
    let files = write_files(&dir, api_port);
    let etcd = format!("http://127.0.0.1:{etcd_port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    let pki = |name: &str| dir.join(name).display().to_string();
    let mut server = ApiServer {
        kubeconfig: files.kubeconfig,
        issuer: issuer.to_owned(),
        server: format!("https://127.0.0.1:{api_port}"),
        programs: Vec::new(),
    };
    let program = |name: &str, arguments: &[String]| run(&dir, &assets.join(name), arguments);
    server.programs.push(program(
        "etcd",
        &[
            "--name=test".to_owned(),
            format!("--data-dir={}", pki("etcd")),
            format!("--listen-client-urls={etcd}"),
            format!("--advertise-client-urls={etcd}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=test={peer}"),
            "--unsafe-no-fsync=true".to_owned(),
        ],
    ));
    server.programs.push(program(
        "kube-apiserver",
        &[
            format!("--etcd-servers={etcd}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={api_port}"),
            "--endpoint-reconciler-type=none".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            format!("--tls-cert-file={}", pki("server.crt")),
            format!("--tls-private-key-file={}", pki("server.key")),
            format!("--token-auth-file={}", pki("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            format!("--service-account-issuer={issuer}"),
            format!("--service-account-jwks-uri={}/openid/v1/jwks", server.server),
            format!("--service-account-signing-key-file={}", pki("accounts.key")),
            format!("--service-account-key-file={}", pki("accounts.pub")),
            format!("--api-audiences={issuer}"),
        ],
    ));
    let admin = Admin::of(&server).await;
    let ready = async {
        while admin.text("/readyz").await.as_deref() != Ok("ok") {
            time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ready = time::timeout(PATIENCE, ready).await;
    assert!(ready.is_ok(), "kube-apiserver is not ready:\n{}", logs(&dir));
    let mut manager = vec![
        format!("--kubeconfig={}", server.kubeconfig.display()),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={manager_port}"),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-account-private-key-file={}", pki("accounts.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cert-dir={}", pki("manager")),
    ];
    if minor_version(&assets.join("kube-controller-manager")) < 24 {
        // These also listen on a fixed port without TLS, unless told not to.
        manager.push("--port=0".to_owned());
    }
    server.programs.push(program("kube-controller-manager", &manager));
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    let accounts = async {
        while admin.text(account).await.is_err() {
            time::sleep(Duration::from_millis(100)).await;
        }
    };
    let accounts = time::timeout(PATIENCE, accounts).await;
    assert!(accounts.is_ok(), "kube-controller-manager makes no accounts:\n{}", logs(&dir));
    server
}

/// Runs a program until its standard input ends: that is when this process lets go of it or is
/// gone itself. The folder goes with the last program.
fn run(dir: &Path, program: &Path, arguments: &[String]) -> Child {
    const SCRIPT: &str = r#"dir=$1 log=$2; shift 2
        "$@" >"$log" 2>&1 </dev/null & p=$!
        cat >/dev/null
        kill "$p"; wait "$p"
        case $log in */etcd.log) rm -rf "$dir";; esac"#;
    let name = program.file_name().unwrap().to_string_lossy();
    let log = dir.join(format!("{name}.log"));
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh"]).arg(dir).arg(log).arg(program).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// The `20` of `Kubernetes v1.20.2`.
fn minor_version(program: &Path) -> u32 {
    let said = Command::new(program).arg("--version").output().unwrap().stdout;
    let said = String::from_utf8_lossy(&said);
    said.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(u32::MAX)
}

fn logs(dir: &Path) -> String {
    let mut text = String::new();
    for name in ["etcd", "kube-apiserver", "kube-controller-manager"] {
        let log = fs::read(dir.join(format!("{name}.log"))).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let tail: Vec<&str> = log.lines().rev().take(8).collect();
        write!(text, "--- {name}\n{}\n", tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
            .unwrap();
    }
    text
}

/// Ports that were free a moment ago, all different: they are held while the others are chosen.
///
/// They are drawn from below those that systems give to outgoing connections (32768 and up on
/// Linux, 49152 elsewhere): one of those may be taken by a request of another test before the
/// program that it is meant for has it.
fn free_ports<const N: usize>() -> [u16; N] {
    let draw = || {
        let drawn = RandomState::new().hash_one(()) % (32_768 - 10_000) + 10_000;
        u16::try_from(drawn).unwrap()
    };
    let held: [TcpListener; N] = std::array::from_fn(|_| {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, draw())).ok();
        std::iter::repeat_with(bind).flatten().next().unwrap()
    });
    held.map(|listener| listener.local_addr().unwrap().port())
}

struct Files {
    kubeconfig: PathBuf,
}

/// Certificates, keys, tokens and the kubeconfig.
fn write_files(dir: &Path, port: u16) -> Files {
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let hosts = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned);
    let mut leaf = CertificateParams::new(hosts).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key)).unwrap();
    write("ca.crt", &ca_pem);
    write("server.crt", &leaf.pem());
    write("server.key", &leaf_key.serialize_pem());
    // Entra takes RS256 only, and so do its stand-ins.
    let accounts = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    write("accounts.key", &accounts.serialize_pem());
    write("accounts.pub", &accounts.public_key_pem());
    write(
        "tokens.csv",
        &format!("{ADMIN},admin,admin,system:masters\n{NOBODY},nobody,nobody,testers\n"),
    );
    let named = |name: &str, what: &str, value: Value| json!({"name": name, what: value});
    let user = |name: &str, token: &str| named(name, "user", json!({"token": token}));
    let context = |name: &str| named(name, "context", json!({"cluster": "c", "user": name}));
    let cluster = json!({
        "server": format!("https://127.0.0.1:{port}"),
        "certificate-authority": dir.join("ca.crt"),
    });
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [named("c", "cluster", cluster)],
        "users": [user("admin", ADMIN), user("nobody", NOBODY)],
        "contexts": [context("admin"), context("nobody")],
        "current-context": "admin",
    });
    write("kubeconfig", &kubeconfig.to_string());
    Files { kubeconfig: dir.join("kubeconfig") }
}

/// What a test does beside the code under test: raw requests as `admin`.
pub(crate) struct Admin {
    kube: kube::Client,
}

impl Admin {
    /// An administrator of this server, for one test: connections belong to its runtime.
    pub(crate) async fn of(server: &ApiServer) -> Self {
        Self::by(&server.kubeconfig).await
    }

    /// The current context of a kubeconfig.
    pub(crate) async fn by(kubeconfig: &Path) -> Self {
        let file = Kubeconfig::read_from(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
        config.proxy_url = None;
        config.default_retry = false;
        Self { kube: kube::Client::try_from(config).unwrap() }
    }

    async fn text(&self, path: &str) -> Result<String, String> {
        let request = Request::get(path).body(Vec::new()).unwrap();
        self.kube.request_text(request).await.map_err(|error| error.to_string())
    }

    /// Sends a request with a JSON body; panics where it is refused.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> Value {
        match self.attempt(method.clone(), path, content_type, body).await {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// The same where a refusal is an answer, too.
    pub(crate) async fn attempt(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Value, kube::Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .body(body.to_string().into_bytes())
            .unwrap();
        self.kube.request(request).await
    }

    /// Reads a list, with nothing in it where the server does not answer or does not know the kind.
    pub(crate) async fn items(&self, path: &str) -> Vec<Value> {
        let text = self.text(path).await.unwrap_or_default();
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// The client.
    pub(crate) fn kube(&self) -> kube::Client {
        self.kube.clone()
    }

    /// Merges a change into an object.
    pub(crate) async fn merge(&self, path: &str, change: &Value) -> Value {
        self.send(Method::PATCH, path, "application/merge-patch+json", change).await
    }

    /// Reads an object or list.
    pub(crate) async fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await.unwrap()).unwrap()
    }

    /// Reads what may not be there, in one request: between two, a controller may delete it.
    pub(crate) async fn find(&self, path: &str) -> Option<Value> {
        Some(serde_json::from_str(&self.text(path).await.ok()?).unwrap())
    }

    /// Whether there is something at a path.
    pub(crate) async fn exists(&self, path: &str) -> bool {
        self.find(path).await.is_some()
    }

    /// Makes an object in a collection.
    pub(crate) async fn create(&self, collection: &str, object: &Value) -> Value {
        self.send(Method::POST, collection, "application/json", object).await
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, path: &str) {
        self.send(Method::DELETE, path, "application/json", &json!({})).await;
    }

    /// Makes a namespace that no other test has, and waits for its default account.
    pub(crate) async fn namespace(&self, hint: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{hint}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.create("/api/v1/namespaces", &object).await;
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        let there = async {
            while self.text(&account).await.is_err() {
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        time::timeout(PATIENCE, there).await.unwrap();
        name
    }

    /// Says of every waiting pod of a namespace that it runs and is ready, as a kubelet would, and
    /// how many there were.
    pub(crate) async fn run_pods(&self, namespace: &str) -> usize {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let pods = self.get(&path).await;
        let mut found = 0;
        for pod in pods["items"].as_array().unwrap() {
            if pod["status"]["phase"] != "Pending"
                || !pod["metadata"]["deletionTimestamp"].is_null()
            {
                continue;
            }
            let status = json!({"status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True"}]}});
            let name = pod["metadata"]["name"].as_str().unwrap();
            let request = Request::patch(format!("{path}/{name}/status"))
                .header("content-type", "application/strategic-merge-patch+json")
                .body(status.to_string().into_bytes())
                .unwrap();
            // Its controller may have deleted it meanwhile.
            let patched: Result<Value, _> = self.kube.request(request).await;
            found += usize::from(patched.is_ok());
        }
        found
    }
}
