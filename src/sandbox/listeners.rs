//! Which services listen, and what answers behind each socket.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use tokio_rustls::TlsAcceptor;

use super::{
    admission::Webhook,
    arm, clusters,
    context::{ClusterRef, Context},
    control, dataplane, endpoints,
    entra::{self, Entra, Issuers},
    external::{External, Known},
    kubernetes::{Kubelet, Kubernetes},
    seed::Seed,
    server::{Bound, Servers},
    start::StartError,
    tls, tokens,
};

/// What [`Listeners::serve`] started.
pub(super) struct Served {
    pub(super) servers: Servers,
    /// The emulated clusters.
    pub(super) clusters: Vec<ClusterRef>,
    /// Where the webhook of each real cluster listens, in their order.
    pub(super) webhooks: Vec<SocketAddr>,
}

/// Bound sockets: all addresses are known before anything is served.
pub(super) struct Listeners {
    resource_manager: Bound,
    authority: Bound,
    graph: Bound,
    data_plane: Bound,
    issuers: Bound,
    clusters: Vec<(ClusterRef, Bound)>,
    /// One for each real cluster, in their order.
    webhooks: Vec<Bound>,
}

impl Listeners {
    /// Binds a socket for each service and makes the addresses known.
    pub(super) async fn bind(
        ctx: &Context,
        seed: &Seed,
        external: &[External],
    ) -> Result<Self, StartError> {
        let bind = async || Bound::new().await.map_err(StartError::Bind);
        let mut clusters = Vec::new();
        for cluster in emulated(ctx, seed, external) {
            clusters.push((cluster, bind().await?));
        }
        let mut webhooks = Vec::new();
        for _ in external {
            webhooks.push(bind().await?);
        }
        let listeners = Self {
            resource_manager: bind().await?,
            authority: bind().await?,
            graph: bind().await?,
            data_plane: bind().await?,
            issuers: bind().await?,
            clusters,
            webhooks,
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

    /// Serves everything. The real clusters' webhooks are registered by the caller.
    pub(super) fn serve(
        self,
        ctx: &Arc<Context>,
        real: &[(String, Known)],
        seed: &Seed,
    ) -> Result<Served, StartError> {
        let tls = TlsAcceptor::from(tls::server_config(ctx, &names(ctx))?);
        // Made before the first request, which would otherwise wait for a key.
        tokens::entra_key(ctx)?;
        let issuers = real.iter().map(|(_, known)| (known.issuer.clone(), known.client.clone()));
        let entra = Entra::new(Arc::clone(ctx), Issuers::new(ctx, issuers.collect())?);
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
        let (mut clusters, mut kubelets) = (Vec::new(), Vec::new());
        for (cluster, bound) in self.clusters {
            tokens::signing_key(ctx, &cluster.id)?;
            let server = api_server(ctx, &cluster, seed);
            kubelets.push(Kubelet::new(Arc::clone(&server))?);
            serve(bound, &format!("cluster/{}", cluster.name), server.router());
            clusters.push(cluster);
        }
        let mut webhooks = Vec::new();
        for (bound, (name, known)) in self.webhooks.into_iter().zip(real) {
            webhooks.push(bound.address);
            let webhook = Webhook::new(ctx, known.client.clone(), known.minor);
            serve(bound, &format!("webhook/{name}"), webhook.router());
        }
        for kubelet in kubelets {
            servers.run(|stop| kubelet.run(stop));
        }
        servers.attend(ctx, &tls, ctx.late.arrivals(), |ctx, cluster| {
            let server = Kubernetes::new(Arc::clone(ctx), cluster.clone());
            Ok((Arc::clone(&server).router(), Kubelet::new(server)?))
        });
        Ok(Served { servers, clusters, webhooks })
    }
}

/// The API server of an emulated cluster, with the seed's objects in it.
fn api_server(ctx: &Arc<Context>, cluster: &ClusterRef, seed: &Seed) -> Arc<Kubernetes> {
    let server = Kubernetes::new(Arc::clone(ctx), cluster.clone());
    for seeded in seed.clusters.iter().filter(|seeded| seeded.cluster.key() == cluster.key()) {
        for (object, message) in server.seed_objects(seeded.kubernetes_objects()) {
            let kind = object["kind"].as_str().unwrap_or_default();
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            tracing::warn!(cluster = cluster.name, kind, name, message, "seed object refused");
        }
    }
    server
}

/// Clusters that this process serves: all of the world but those behind which a real one stands.
fn emulated(ctx: &Context, seed: &Seed, external: &[External]) -> Vec<ClusterRef> {
    let mut found: BTreeMap<String, ClusterRef> = BTreeMap::new();
    let now = ctx.clock.now().as_millisecond();
    for (key, doc) in clusters::all(&ctx.store.lock()) {
        if !doc["external"].is_object() && !clusters::gone(&doc, now) {
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
    // The authority's is the name that pods know it by.
    let mut names: Vec<String> = [
        "*.vault.azure.net",
        "*.blob.core.windows.net",
        "*.azconfig.io",
        "login.microsoftonline.com",
    ]
    .map(str::to_owned)
    .to_vec();
    for (_, doc) in clusters::all(&ctx.store.lock()) {
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
