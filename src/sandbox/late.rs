//! Clusters that clients make while the world is served: each gets its API server at once.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Mutex, PoisonError},
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::context::ClusterRef;

/// A new cluster and the socket on which its API server is to answer.
pub(super) type Arrival = (ClusterRef, TcpListener);

/// The API servers that were started after the others.
#[derive(Debug, Default)]
pub(super) struct Late {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By [`ClusterRef::key`].
    addresses: BTreeMap<String, SocketAddr>,
    /// To whoever serves; absent before anybody does.
    arrivals: Option<UnboundedSender<Arrival>>,
}

impl Late {
    /// Where the arrivals from now on are to be served.
    pub(super) fn arrivals(&self) -> UnboundedReceiver<Arrival> {
        let (sender, receiver) = unbounded_channel();
        self.lock().arrivals = Some(sender);
        receiver
    }

    /// Has an API server started for `cluster`, unless it has one or nobody serves. The socket is
    /// bound on return: who connects waits until the server is up.
    pub(super) fn arrive(&self, cluster: ClusterRef) -> io::Result<()> {
        let mut inner = self.lock();
        let Some(arrivals) = inner.arrivals.clone() else { return Ok(()) };
        let key = cluster.key();
        if inner.addresses.contains_key(&key) {
            return Ok(());
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        // A receiver that is gone has stopped serving, as the other servers have.
        if arrivals.send((cluster, listener)).is_ok() {
            inner.addresses.insert(key, address);
        }
        Ok(())
    }

    /// Where the API server of the cluster with this key answers, if it came late.
    pub(super) fn address(&self, key: &str) -> Option<SocketAddr> {
        self.lock().addresses.get(key).copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Nothing panics between two changes that belong together.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
