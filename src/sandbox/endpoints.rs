//! Where the services of a running sandbox listen.

use std::{collections::BTreeMap, net::SocketAddr, sync::OnceLock};

/// The addresses of a running sandbox, set once when all listeners are bound.
#[derive(Debug, Default)]
pub struct Endpoints {
    bound: OnceLock<Bound>,
}

/// One address for each service. All are on 127.0.0.1 and speak HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Azure Resource Manager.
    pub resource_manager: SocketAddr,
    /// Entra's authority.
    pub authority: SocketAddr,
    /// Microsoft Graph, as far as `az` needs it.
    pub graph: SocketAddr,
    /// Key Vault and Blob storage.
    pub data_plane: SocketAddr,
    /// The public discovery documents and key sets of all emulated clusters' issuers.
    pub issuers: SocketAddr,
    /// Each cluster's Kubernetes API server by cluster name.
    pub clusters: BTreeMap<String, SocketAddr>,
}

impl Endpoints {
    /// The addresses; `None` before the listeners are bound.
    pub fn get(&self) -> Option<&Bound> {
        self.bound.get()
    }

    /// Sets the addresses. A second call changes nothing.
    pub fn set(&self, bound: Bound) {
        drop(self.bound.set(bound));
    }

    /// `https://localhost:<port>` of one of the services, for documents that name it; without a
    /// port before the listeners are bound.
    pub fn url(&self, of: impl FnOnce(&Bound) -> SocketAddr) -> String {
        self.get().map_or_else(
            || "https://localhost".into(),
            |b| format!("https://localhost:{}", of(b).port()),
        )
    }
}
