//! Starting and stopping a sandbox.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;

use super::{
    admission,
    arm::{self, KubeconfigError},
    chance::Chance,
    clock::{Clock, Ids},
    context::{ClusterRef, Context, Settings},
    endpoints, entra,
    external::{External, ExternalError},
    faults::Rule,
    files::{self, FileError, Files},
    listeners::{Listeners, Served},
    ready::Ready,
    seed::Seed,
    server::Servers,
    store::{Store, Write},
    tls::{self, TlsError},
    tokens::KeyError,
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
    /// Faults at random from the start.
    pub random: Option<Chance>,
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
            random: None,
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
        ctx.faults.at_random(options.random);
        if let Some(path) = options.request_log {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            ctx.faults.log_to(file.map_err(|source| StartError::Log { path, source })?);
        }
        let mut real = Vec::new();
        for external in &options.external {
            let failed = |source| StartError::External { cluster: external.name.clone(), source };
            real.push((external.name.clone(), external.adopt(&ctx).await.map_err(failed)?));
        }
        let running = Listeners::bind(&ctx, &options.seed, &options.external).await?;
        let Served { servers, clusters, webhooks } = running.serve(&ctx, &real, &options.seed)?;
        let mut clients = Vec::new();
        for ((cluster, known), address) in real.into_iter().zip(webhooks) {
            let registered = admission::register(&ctx, &known.client, address).await;
            registered.map_err(|error| StartError::External { cluster, source: error.into() })?;
            clients.push(known.client);
        }
        let ready = ready(&ctx, &directory, &clusters, &options.external)?;
        if let Some(files) = &files {
            files.write_ready(&ready)?;
        }
        Ok(Running { ctx, servers, files, ready, torn, clients })
    }
}

/// A sandbox that is up.
pub struct Running {
    ctx: Arc<Context>,
    servers: Servers,
    files: Option<Files>,
    ready: Ready,
    torn: bool,
    /// Real clusters in which the webhook is registered.
    clients: Vec<kube::Client>,
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
        for client in &self.clients {
            admission::withdraw(client).await;
        }
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
