//! Starting and stopping a sandbox.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::{
    arm::{self, KubeconfigError},
    clock::{Clock, Ids},
    context::{ClusterRef, Context, Settings},
    control, dataplane, endpoints,
    entra::{self, Entra, Issuers},
    external::{External, ExternalError},
    faults::Rule,
    files::{self, FileError, Files},
    ready::Ready,
    seed::Seed,
    server::{Bound, Servers},
    store::{Store, Write},
    tls::{self, TlsError},
    tokens::{self, KeyError},
};

/// Where a world lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In memory. The directory takes the certificate and kubeconfigs that clients need as files.
    Memory(PathBuf),
    /// In this snapshot and the files beside it.
    File(PathBuf),
}

/// How a sandbox is started.
pub struct Options {
    /// Where the world lives.
    pub place: Place,
    /// The rules of this run. The tenant must be the one with which the world was made.
    pub settings: Settings,
    /// The time.
    pub clock: Clock,
    /// What the world has at least.
    pub seed: Seed,
    /// Real API servers behind clusters of the seed.
    pub external: Vec<External>,
    /// Faults from the start.
    pub rules: Vec<Rule>,
    /// A file that takes one JSON line for each request.
    pub request_log: Option<PathBuf>,
}

impl Options {
    /// A sandbox at `place` with `seed`, default rules and the real time.
    pub fn new(place: Place, seed: Seed) -> Self {
        Self {
            place,
            settings: Settings::default(),
            clock: Clock::Real,
            seed,
            external: Vec::new(),
            rules: Vec::new(),
            request_log: None,
        }
    }
}

/// A sandbox could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The world's files.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The world belongs to another tenant or operator than the settings say.
    #[error("the world was made for tenant {found}, the configuration says {wanted}")]
    OtherTenant {
        /// The world's tenant.
        found: String,
        /// The tenant of the settings.
        wanted: String,
    },
    /// Binding a listener.
    #[error("binding a socket on loopback")]
    Bind(#[source] io::Error),
    /// Writing to the world.
    #[error("writing the world")]
    Store(#[source] io::Error),
    /// The request log.
    #[error("opening the request log `{}`", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Signing keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A kubeconfig of an emulated cluster.
    #[error("writing the kubeconfig of `{cluster}`")]
    Kubeconfig {
        /// The cluster's name.
        cluster: String,
        /// What went wrong.
        #[source]
        source: KubeconfigError,
    },
    /// A real API server behind a cluster.
    #[error("using the real cluster `{cluster}`")]
    External {
        /// The cluster's name.
        cluster: String,
        /// What went wrong.
        #[source]
        source: ExternalError,
    },
}

/// The embedded Azure.
pub struct Sandbox;

impl Sandbox {
    /// Opens or begins the world, seeds it, and serves it on loopback.
    ///
    /// # Errors
    /// [`FileError::Locked`] inside [`StartError::Files`] carries how to reach the run that owns
    /// the world.
    pub async fn start(options: Options) -> Result<Running, StartError> {
        let (files, store, torn, directory) = open(&options.place)?;
        let starts = greet(&store, &options.settings)?;
        // Each start draws from another sequence, so that nothing is given out twice even if the
        // last run was killed.
        let ctx = Context::new(store, options.clock, Ids::new(starts, 0), options.settings);
        let ctx = Arc::new(ctx);
        operator(&ctx)?;
        options.seed.apply(&ctx).map_err(StartError::Store)?;
        for rule in options.rules {
            ctx.faults.add(rule);
        }
        if let Some(path) = options.request_log {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            ctx.faults.log_to(file.map_err(|source| StartError::Log { path, source })?);
        }
        let mut issuers = BTreeMap::new();
        for external in &options.external {
            let failed = |source| StartError::External { cluster: external.name.clone(), source };
            let known = external.adopt(&ctx).await.map_err(failed)?;
            issuers.insert(known.issuer, known.client);
        }
        let running = Listeners::bind(&ctx, &options.seed, &options.external).await?;
        let (servers, clusters) = running.serve(&ctx, issuers, &options.seed)?;
        let ready = ready(&ctx, &directory, &clusters, &options.external)?;
        if let Some(files) = &files {
            files.write_ready(&ready)?;
        }
        Ok(Running { ctx, servers, files, ready, torn })
    }
}

/// A sandbox that is up.
pub struct Running {
    ctx: Arc<Context>,
    servers: Servers,
    files: Option<Files>,
    ready: Ready,
    torn: bool,
}

impl Running {
    /// How to reach it.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Its world, for tests and for adding faults.
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// Whether the last write of an earlier run was cut short and dropped.
    pub fn dropped_torn_write(&self) -> bool {
        self.torn
    }

    /// Writes the ready object for others to wait for, readable by its owner only.
    pub fn write_ready_file(&self, path: &Path) -> Result<(), FileError> {
        files::write_private(path, self.ready.to_json().as_bytes())
    }

    /// Ends the listeners and folds the world into its snapshot.
    pub async fn stop(self) -> Result<(), StartError> {
        self.servers.stop().await;
        if let Some(files) = self.files {
            files.remove_ready();
            files.fold(&self.ctx.store)?;
        }
        Ok(())
    }
}

fn open(place: &Place) -> Result<(Option<Files>, Store, bool, PathBuf), StartError> {
    match place {
        Place::Memory(directory) => Ok((None, Store::in_memory(), false, directory.clone())),
        Place::File(path) => {
            let opened = Files::open(path)?;
            let directory = opened.files.directory().to_owned();
            Ok((Some(opened.files), opened.store, opened.torn, directory))
        }
    }
}

/// Writes who the world belongs to, or checks it, and returns how often it was started.
fn greet(store: &Store, settings: &Settings) -> Result<u64, StartError> {
    let mut world = store.lock();
    let mut starts = 1;
    if let Some(doc) = world.get("world") {
        starts = doc["starts"].as_u64().unwrap_or(0) + 1;
        let found = doc["tenant"].as_str().unwrap_or_default().to_owned();
        let wanted = settings.tenant.to_string();
        if found != wanted {
            return Err(StartError::OtherTenant { found, wanted });
        }
    }
    let doc = json!({ "tenant": settings.tenant, "starts": starts });
    world.commit(vec![Write::put("world", doc)]).map_err(StartError::Store)?;
    Ok(starts)
}

/// The principal that may do everything.
fn operator(ctx: &Context) -> Result<(), StartError> {
    entra::operator_secret(ctx)?;
    let client = ctx.settings.operator;
    let key = format!("apps/{client}");
    let mut world = ctx.store.lock();
    if world.get(&key).is_some() {
        return Ok(());
    }
    let principal = ctx.ids.guid();
    let name = "sandbox-operator";
    let writes = vec![
        Write::put(key, json!({ "principal": principal, "name": name, "operator": true })),
        Write::put(
            format!("principals/{principal}"),
            json!({
                "type": "ServicePrincipal", "name": name, "client_id": client, "created_ms": 0,
            }),
        ),
    ];
    world.commit(writes).map_err(StartError::Store)?;
    Ok(())
}

/// Bound sockets: all addresses are known before anything is served.
struct Listeners {
    resource_manager: Bound,
    authority: Bound,
    graph: Bound,
    data_plane: Bound,
    issuers: Bound,
    clusters: Vec<(ClusterRef, Bound)>,
}

impl Listeners {
    async fn bind(ctx: &Context, seed: &Seed, external: &[External]) -> Result<Self, StartError> {
        let bind = async || Bound::new().await.map_err(StartError::Bind);
        let mut clusters = Vec::new();
        for cluster in emulated(ctx, seed, external) {
            clusters.push((cluster, bind().await?));
        }
        let listeners = Self {
            resource_manager: bind().await?,
            authority: bind().await?,
            graph: bind().await?,
            data_plane: bind().await?,
            issuers: bind().await?,
            clusters,
        };
        ctx.endpoints.set(endpoints::Bound {
            resource_manager: listeners.resource_manager.address,
            authority: listeners.authority.address,
            graph: listeners.graph.address,
            data_plane: listeners.data_plane.address,
            issuers: listeners.issuers.address,
            clusters: listeners
                .clusters
                .iter()
                .map(|(cluster, bound)| (cluster.name.clone(), bound.address))
                .collect(),
        });
        Ok(listeners)
    }

    fn serve(
        self,
        ctx: &Arc<Context>,
        external: BTreeMap<String, kube::Client>,
        seed: &Seed,
    ) -> Result<(Servers, Vec<ClusterRef>), StartError> {
        let tls = TlsAcceptor::from(tls::server_config(ctx, &names(ctx))?);
        // Made before the first request, which would otherwise wait for a key.
        tokens::entra_key(ctx)?;
        let entra = Entra::new(Arc::clone(ctx), Issuers::new(ctx, external)?);
        let mut servers = Servers::new();
        let mut serve = |bound, service: &str, router| {
            servers.serve(ctx, bound, &tls, service, router);
        };
        serve(
            self.resource_manager,
            "arm",
            arm::router(Arc::clone(ctx)).merge(control::router(Arc::clone(ctx))),
        );
        serve(self.authority, "entra", entra.router());
        serve(self.graph, "graph", entra::graph_router(Arc::clone(ctx)));
        serve(self.data_plane, "data", dataplane::router(Arc::clone(ctx)));
        serve(self.issuers, "issuers", entra::issuer_router(Arc::clone(ctx)));
        let mut clusters = Vec::new();
        for (cluster, bound) in self.clusters {
            tokens::signing_key(ctx, &cluster.id)?;
            let router = api_server(ctx, &cluster, seed);
            serve(bound, &format!("cluster/{}", cluster.name), router);
            clusters.push(cluster);
        }
        Ok((servers, clusters))
    }
}

/// The API server of an emulated cluster, with the seed's objects in it.
fn api_server(ctx: &Arc<Context>, cluster: &ClusterRef, seed: &Seed) -> axum::Router {
    let _ = (cluster, seed);
    entra::issuer_router(Arc::clone(ctx))
}

/// Clusters that this process serves: all of the world but those behind which a real one stands.
fn emulated(ctx: &Context, seed: &Seed, external: &[External]) -> Vec<ClusterRef> {
    let mut found: BTreeMap<String, ClusterRef> = BTreeMap::new();
    for (key, doc) in ctx.store.list("arm/subscriptions/") {
        let parts: Vec<&str> = key.split('/').collect();
        if parts.len() == 9 && parts[7] == "managedclusters" && !doc["external"].is_object() {
            let text = |name: &str| doc[name].as_str().unwrap_or_default().to_owned();
            found.insert(key, ClusterRef { name: text("cluster"), id: text("id") });
        }
    }
    // The seed's names win: a configuration may rename a cluster.
    for cluster in &seed.clusters {
        let key = format!("arm/{}", cluster.cluster.key());
        if let Some(entry) = found.get_mut(&key) {
            entry.name.clone_from(&cluster.cluster.name);
        }
    }
    found.into_values().filter(|c| !external.iter().any(|e| e.name == c.name)).collect()
}

/// Names besides loopback for which the listeners' certificate is good.
fn names(ctx: &Context) -> Vec<String> {
    let mut names = vec!["*.vault.azure.net".to_owned(), "*.blob.core.windows.net".to_owned()];
    for (_, doc) in ctx.store.list("arm/subscriptions/") {
        if let Some(host) = doc["issuer"]
            .as_str()
            .and_then(|issuer| Some(url::Url::parse(issuer).ok()?.host_str()?.to_owned()))
        {
            names.push(host);
        }
        if let Some(host) = doc["properties"]["fqdn"].as_str().filter(|_| doc["issuer"].is_string())
        {
            names.push(host.to_owned());
        }
    }
    // Clusters that clients make later are in regions that are not known yet.
    for region in ["westeurope", "northeurope", "eastus", "eastus2", "westus2", "uksouth"] {
        names.push(format!("{region}.oic.prod-aks.azure.com"));
    }
    names.sort_unstable();
    names.dedup();
    names
}

fn ready(
    ctx: &Context,
    directory: &Path,
    clusters: &[ClusterRef],
    external: &[External],
) -> Result<Ready, StartError> {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let ca_file = directory.join("sandbox-ca.pem");
    files::write_private(&ca_file, tls::ca_pem(ctx)?.as_bytes())?;
    let mut kubeconfigs = BTreeMap::new();
    for cluster in clusters {
        let name = &cluster.name;
        let failed = |source| StartError::Kubeconfig { cluster: name.clone(), source };
        let text = arm::kubeconfig(ctx, cluster).map_err(failed)?;
        let path = directory.join(format!("{}.kubeconfig", file_name(name)));
        files::write_private(&path, text.as_bytes())?;
        kubeconfigs.insert(name.clone(), path);
    }
    for external in external {
        kubeconfigs.insert(external.name.clone(), external.kubeconfig.clone());
    }
    let url = |of: fn(&endpoints::Bound) -> std::net::SocketAddr| ctx.endpoints.url(of);
    Ok(Ready {
        version: 1,
        resource_manager: url(|bound| bound.resource_manager),
        authority: url(|bound| bound.authority),
        graph: url(|bound| bound.graph),
        data_plane: url(|bound| bound.data_plane),
        issuers: ctx.endpoints.get().map(|bound| bound.issuers.to_string()).unwrap_or_default(),
        ca_file,
        tenant: ctx.settings.tenant,
        subscription: ctx.settings.subscription,
        client_id: ctx.settings.operator,
        client_secret: entra::operator_secret(ctx)?,
        kubeconfigs,
    })
}

/// A cluster's name as part of a file name.
fn file_name(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect()
}

/// How the world of a run is described in its output: a plain object for `sandbox show`.
pub fn summary(ctx: &Context) -> Value {
    let count = |prefix: &str, part: &str| {
        ctx.store
            .list(prefix)
            .iter()
            .filter(|(key, _)| key.split('/').rev().nth(1) == Some(part))
            .count()
    };
    json!({
        "tenant": ctx.settings.tenant,
        "clusters": count("arm/", "managedclusters"),
        "identities": count("arm/", "userassignedidentities"),
        "federated_credentials": count("arm/", "federatedidentitycredentials"),
        "role_assignments": ctx.store.list(super::roles::ASSIGNMENTS).len(),
        "revision": ctx.store.lock().revision(),
    })
}
