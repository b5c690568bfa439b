//! How an API server is reached: a context of a kubeconfig, exec plugins included, or a server and
//! CA that Azure gave with a token of our own.

use std::{fmt, io::IsTerminal as _, path::PathBuf, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use kube::config::{
    Cluster, Context, ExecInteractiveMode, KubeConfigOptions, Kubeconfig, KubeconfigError,
    NamedCluster, NamedContext,
};
use tokio::{sync::Mutex, time::Instant};
use url::{Host, Url};

use super::{Client, KubeError, Waits};
use crate::model::{RemoteFailure, Token};

/// Gives a bearer token for the API server. Asked before every request: it caches and refreshes.
pub type TokenSource =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Token, RemoteFailure>> + Send + Sync>;

/// How to reach an API server.
#[derive(Clone)]
pub enum Connect {
    /// By a context of a kubeconfig. Its user may be an exec plugin, as `kubelogin` is.
    Kubeconfig {
        /// The file; absent: `KUBECONFIG`, then `~/.kube/config`, as kubectl does.
        path: Option<PathBuf>,
        /// The context; absent: the kubeconfig's current one.
        context: Option<String>,
    },
    /// By address and CA, with a token of our own.
    Direct {
        /// The server.
        server: Url,
        /// Its CA, PEM. Empty: the system's roots.
        ca_pem: String,
        /// The token.
        token: TokenSource,
    },
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubeconfig { path, context } => {
                f.debug_struct("Kubeconfig").field("path", path).field("context", context).finish()
            }
            Self::Direct { server, .. } => {
                f.debug_struct("Direct").field("server", &server.as_str()).finish_non_exhaustive()
            }
        }
    }
}

type Connector = dyn Fn() -> BoxFuture<'static, Result<Client, RemoteFailure>> + Send + Sync;

/// How long a failure to connect stands: all of one read hear the same, and a watch tries again.
const FAILED_FOR: Duration = Duration::from_secs(20);

/// How connecting went, and when.
type Made = Option<(Result<Client, RemoteFailure>, Instant)>;

/// A connection that is made when it is first needed and then shared. A cluster that ARM proves
/// absent is never asked for, so its exec plugin never runs.
#[derive(Clone)]
pub struct Connection {
    made: Arc<Mutex<Made>>,
    connector: Arc<Connector>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection made by `connector` on first use; its failure is kept for a while.
    pub fn lazy(
        connector: impl Fn() -> BoxFuture<'static, Result<Client, RemoteFailure>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self { made: Arc::default(), connector: Arc::new(connector) }
    }

    /// A connection as `connect` says. `tried` names the cluster in the failure, for example
    /// `connect to cluster prod`.
    pub fn to(connect: Connect, tried: impl Into<String>) -> Self {
        let tried = tried.into();
        Self::lazy(move || {
            let (connect, tried) = (connect.clone(), tried.clone());
            Box::pin(async move { Client::connect(connect).await.map_err(|e| e.failure(tried)) })
        })
    }

    /// The same connection, telling once that the server takes long.
    #[must_use]
    pub fn telling(self, waits: Waits) -> Self {
        Self::lazy(move || {
            let (inner, waits) = (self.clone(), Arc::clone(&waits));
            Box::pin(async move { Ok(inner.client().await?.telling(waits)) })
        })
    }

    /// A connection that is there already.
    pub fn ready(client: Client) -> Self {
        Self::lazy(move || {
            let client = client.clone();
            Box::pin(async move { Ok(client) })
        })
    }

    /// The client, connecting first if need be.
    pub async fn client(&self) -> Result<Client, RemoteFailure> {
        // Held while connecting: a second caller waits for the first one's client.
        let mut made = self.made.lock().await;
        if let Some((known, since)) = made.as_ref()
            && (known.is_ok() || since.elapsed() < FAILED_FOR)
        {
            return known.clone();
        }
        let result = (self.connector)().await;
        *made = Some((result.clone(), Instant::now()));
        result
    }
}

/// Refuses plain http except to loopback: kube itself sends tokens to any http server.
fn checked_server(server: &str) -> Result<Url, KubeError> {
    let bad = |message: &str| KubeError::BadServer {
        server: server.to_owned(),
        message: message.to_owned(),
    };
    let url = Url::parse(server).map_err(|e| bad(&e.to_string()))?;
    match url.scheme() {
        "https" if url.has_host() => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(KubeError::PlainHttp { server: server.to_owned() }),
        _ => Err(bad("neither https nor http")),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The configuration that kube needs, and what is named when its credential fails.
pub(super) struct Settings {
    pub config: kube::Config,
    pub token: Option<TokenSource>,
    pub who: String,
    pub install: Option<String>,
}

pub(super) async fn settings(connect: Connect) -> Result<Settings, KubeError> {
    match connect {
        Connect::Kubeconfig { path, context } => kubeconfig(path, context).await,
        Connect::Direct { server, ca_pem, token } => direct(&server, &ca_pem, token).await,
    }
}

async fn direct(server: &Url, ca_pem: &str, token: TokenSource) -> Result<Settings, KubeError> {
    use base64::Engine as _;
    let bad = |message: String| KubeError::BadServer { server: server.to_string(), message };
    let ca = (!ca_pem.trim().is_empty())
        .then(|| base64::engine::general_purpose::STANDARD.encode(ca_pem));
    let name = String::from("direct");
    let cluster = Cluster {
        server: Some(server.to_string()),
        certificate_authority_data: ca,
        ..Cluster::default()
    };
    let context = Context { cluster: name.clone(), ..Context::default() };
    // As a kubeconfig without a user, so that `HTTPS_PROXY` counts for both ways.
    let file = Kubeconfig {
        clusters: vec![NamedCluster {
            name: name.clone(),
            cluster: Some(cluster),
            ..NamedCluster::default()
        }],
        contexts: vec![NamedContext {
            name: name.clone(),
            context: Some(context),
            ..NamedContext::default()
        }],
        ..Kubeconfig::default()
    };
    let config = configuration(file, name).await?.map_err(|e| bad(e.to_string()))?;
    if config.root_cert.as_ref().is_some_and(Vec::is_empty) {
        return Err(bad("its certificate authority is not PEM".to_owned()));
    }
    let who = "the Azure credential".to_owned();
    Ok(Settings { config, token: Some(token), who, install: None })
}

/// What kube makes of a context, after its server was checked.
async fn configuration(
    file: Kubeconfig,
    context: String,
) -> Result<Result<kube::Config, KubeconfigError>, KubeError> {
    let cluster_of = |named: &NamedContext| Some(named.context.as_ref()?.cluster.clone());
    let cluster = file.contexts.iter().find(|known| known.name == context).and_then(cluster_of);
    let cluster = file.clusters.iter().find(|known| Some(&known.name) == cluster.as_ref());
    let own_proxy = cluster.and_then(|known| known.cluster.as_ref()?.proxy_url.as_ref()).is_some();
    let options = KubeConfigOptions { context: Some(context), ..KubeConfigOptions::default() };
    let mut config = match kube::Config::from_custom_kubeconfig(file, &options).await {
        Ok(config) => config,
        Err(error) => return Ok(Err(error)),
    };
    let server = checked_server(&config.cluster_url.to_string())?;
    // kube takes `HTTPS_PROXY` where the cluster names no proxy; loopback must not go through it.
    if is_loopback(&server) && !own_proxy {
        config.proxy_url = None;
    }
    Ok(Ok(config))
}

async fn kubeconfig(path: Option<PathBuf>, context: Option<String>) -> Result<Settings, KubeError> {
    let shown = path
        .as_ref()
        .map_or_else(|| "(the default one)".to_owned(), |path| path.display().to_string());
    let file = match &path {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let mut file = file.map_err(|e| kubeconfig_error(&shown, &e))?;
    let name = context
        .or_else(|| file.current_context.clone())
        .filter(|name| !name.is_empty())
        .ok_or_else(|| KubeError::NoCurrentContext { path: shown.clone() })?;
    if !file.contexts.iter().any(|known| known.name == name) {
        let known = file.contexts.into_iter().map(|known| known.name).collect();
        return Err(KubeError::NoSuchContext { path: shown, context: name, known });
    }
    // A plugin must not ask for input where nobody can answer.
    let interactive = std::io::stdin().is_terminal();
    for exec in file.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()?.exec.as_mut())
    {
        if !interactive && !matches!(exec.interactive_mode, Some(ExecInteractiveMode::Always)) {
            exec.interactive_mode = Some(ExecInteractiveMode::Never);
        }
    }
    let config = configuration(file, name).await?.map_err(|e| kubeconfig_error(&shown, &e))?;
    let (who, install) = match &config.auth_info.exec {
        Some(exec) => {
            let command = exec.command.as_deref().unwrap_or("without a command");
            (format!("exec plugin `{command}`"), exec.install_hint.clone())
        }
        None => ("the kubeconfig's user".to_owned(), None),
    };
    Ok(Settings { config, token: None, who, install })
}

fn kubeconfig_error(shown: &str, error: &KubeconfigError) -> KubeError {
    if let KubeconfigError::ReadConfig(io, path) = error {
        return KubeError::KubeconfigUnreadable { path: path.clone(), message: io.to_string() };
    }
    // A YAML error may quote the file; its first line names the place and nothing else.
    let text = error.to_string();
    let message = text.lines().next().unwrap_or_default().to_owned();
    KubeError::KubeconfigInvalid { path: shown.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_to_connect_stands_for_a_while_and_not_for_ever() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        use crate::model::FailureKind;

        let tries = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tries);
        let connection = Connection::lazy(move || {
            count.fetch_add(1, Ordering::Relaxed);
            let failure = RemoteFailure::new(FailureKind::NotReached, "connect", "not now");
            Box::pin(async move { Err(failure) })
        });
        for _ in 0..3 {
            assert!(connection.client().await.is_err());
        }
        assert_eq!(tries.load(Ordering::Relaxed), 1);
        tokio::time::sleep(FAILED_FOR).await;
        assert!(connection.client().await.is_err());
        assert_eq!(tries.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for good in ["https://aks.example:443", "http://127.0.0.1:8080", "http://[::1]:1"] {
            assert!(checked_server(good).is_ok(), "{good}");
        }
        assert!(checked_server("http://localhost:1").is_ok());
        for bad in ["http://aks.example", "http://10.0.0.1", "http://localhost.example"] {
            assert!(matches!(checked_server(bad), Err(KubeError::PlainHttp { .. })), "{bad}");
        }
        assert!(matches!(checked_server("ftp://x"), Err(KubeError::BadServer { .. })));
    }

    #[tokio::test]
    async fn a_ca_is_pem_or_refused() {
        let ask = async |server: &str, ca: &str| {
            let token: TokenSource = Arc::new(|| Box::pin(async { Ok(Token::new("t")) }));
            let server = Url::parse(server).unwrap();
            settings(Connect::Direct { server, ca_pem: ca.to_owned(), token }).await.map(|_| ())
        };
        let good = "-----BEGIN CERTIFICATE-----\nAAE=\n-----END CERTIFICATE-----\n";
        assert!(ask("https://aks.example", good).await.is_ok());
        assert!(ask("https://aks.example", "").await.is_ok());
        for bad in ["nonsense", "-----BEGIN CERTIFICATE-----\nAAE=\n"] {
            let refused = ask("https://aks.example", bad).await;
            assert!(matches!(refused, Err(KubeError::BadServer { .. })), "{bad}: {refused:?}");
        }
        let clear = ask("http://aks.example", good).await;
        assert!(matches!(clear, Err(KubeError::PlainHttp { .. })), "{clear:?}");
    }

    #[tokio::test]
    async fn a_missing_context_names_the_ones_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(
            &path,
            r#"{"apiVersion":"v1","kind":"Config","clusters":[{"name":"c","cluster":{"server":"https://c"}}],
                "contexts":[{"name":"one","context":{"cluster":"c"}}]}"#,
        )
        .unwrap();
        let ask = |context: Option<&str>| {
            settings(Connect::Kubeconfig {
                path: Some(path.clone()),
                context: context.map(str::to_owned),
            })
        };
        let Err(error) = ask(Some("two")).await else { panic!("there is no context two") };
        assert_eq!(error.failure("t").hint.as_deref(), Some("choose one of: one"));
        assert!(matches!(ask(None).await, Err(KubeError::NoCurrentContext { .. })));
        assert!(ask(Some("one")).await.is_ok());
    }

    #[tokio::test]
    async fn an_unreadable_kubeconfig_is_named() {
        let path = PathBuf::from("/nonexistent/kubeconfig");
        let asked = settings(Connect::Kubeconfig { path: Some(path.clone()), context: None }).await;
        let Err(KubeError::KubeconfigUnreadable { path: named, .. }) = asked else {
            panic!("a missing file was read")
        };
        assert_eq!(named, path);
    }
}
