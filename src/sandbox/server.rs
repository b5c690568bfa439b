//! HTTPS listeners on loopback: TLS, HTTP/1.1, faults, the request log, a clean stop.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{Method, Request},
    response::Response,
};
use futures::StreamExt as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc::UnboundedReceiver, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::{
    context::{ClusterRef, Context},
    faults::{Action, Entry},
    kubernetes::Kubelet,
    late::Arrival,
    scripted,
    tls::TlsError,
};

/// How long a client may take over the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// ARM refuses bodies above this size anyway.
const LOGGED: usize = 4 << 20;
/// How long requests under way get at a stop.
const DRAIN: Duration = Duration::from_secs(3);

/// What answers for a cluster, and what runs its proof pods.
type ApiServer = (Router, Kubelet);

/// A bound socket that is not served yet.
pub(super) struct Bound {
    listener: TcpListener,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl Bound {
    /// Binds a socket on 127.0.0.1 with a port of the system's choice.
    pub(super) async fn new() -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }
}

/// The listeners of one sandbox.
pub(super) struct Servers {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Servers {
    pub(super) fn new() -> Self {
        Self { tasks: JoinSet::new(), stop: watch::channel(false).0 }
    }

    /// Serves `router` on `bound` under the name `service`, which fault rules and the log use.
    pub(super) fn serve(
        &mut self,
        ctx: &Arc<Context>,
        bound: Bound,
        tls: &TlsAcceptor,
        service: &str,
        router: Router,
    ) {
        let site = Arc::new(Site { ctx: Arc::clone(ctx), service: service.to_owned(), router });
        let (tls, stop) = (tls.clone(), self.stop.subscribe());
        self.tasks.spawn(accept(bound.listener, tls, site, stop));
    }

    /// Runs a task beside the listeners; it is told to stop with them.
    pub(super) fn run<F>(&mut self, task: impl FnOnce(watch::Receiver<bool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task(self.stop.subscribe()));
    }

    /// Stops accepting, lets requests under way finish for a moment, then drops them.
    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

impl Servers {
    /// Serves the clusters that come by `arrivals` until the servers stop.
    pub(super) fn attend(
        &mut self,
        ctx: &Arc<Context>,
        tls: &TlsAcceptor,
        mut arrivals: UnboundedReceiver<Arrival>,
        api_server: fn(&Arc<Context>, &ClusterRef) -> Result<ApiServer, TlsError>,
    ) {
        let (ctx, tls, mut stop) = (Arc::clone(ctx), tls.clone(), self.stop.subscribe());
        self.tasks.spawn(async move {
            let mut servers = JoinSet::new();
            let server_stop = stop.clone();
            loop {
                let (cluster, listener) = tokio::select! {
                    () = stopped(&mut stop) => break,
                    Some(arrival) = arrivals.recv() => arrival,
                };
                // The socket was bound for this and is not blocking.
                let Ok(listener) = TcpListener::from_std(listener) else { continue };
                let (router, kubelet) = match api_server(&ctx, &cluster) {
                    Ok(served) => served,
                    Err(error) => {
                        tracing::warn!(cluster = cluster.name, %error, "not served");
                        continue;
                    }
                };
                servers.spawn(kubelet.run(server_stop.clone()));
                let service = format!("cluster/{}", cluster.name);
                let site = Arc::new(Site { ctx: Arc::clone(&ctx), service, router });
                servers.spawn(accept(listener, tls.clone(), site, server_stop.clone()));
            }
            while servers.join_next().await.is_some() {}
        });
    }
}

struct Site {
    ctx: Arc<Context>,
    service: String,
    router: Router,
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    site: Arc<Site>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(connection(socket, tls.clone(), Arc::clone(&site), stop.clone()));
                }
                // Out of descriptors: wait for some to close instead of spinning.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(
    socket: TcpStream,
    tls: TlsAcceptor,
    site: Arc<Site>,
    mut stop: watch::Receiver<bool>,
) {
    // Small answers in both directions: without this each request waits for a delayed ack.
    drop(socket.set_nodelay(true));
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await else { return };
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let site = Arc::clone(&site);
        async move { site.respond(request.map(Body::new)).await }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new());
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // An error is the client's going away or a fault that was asked for.
        _ = serving.as_mut() => {}
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            drop(serving.await);
        }
    }
}

/// Waits for the stop signal; a sender that is gone is one.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Makes hyper close the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection closed by a fault rule")]
struct Closed;

impl Site {
    async fn respond(&self, request: Request<Body>) -> Result<Response, Closed> {
        let started = Instant::now();
        let time = self.ctx.clock.now();
        let method = request.method().as_str().to_owned();
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let watch = self.service.starts_with("cluster/")
            && url::form_urlencoded::parse(query.as_bytes())
                .any(|(name, value)| name == "watch" && matches!(&*value, "1" | "true"));
        let fault = self.ctx.faults.meet(&self.service, &method, &path, watch);
        let (request, body) = self.noted(request).await;
        let answer = self.play(request, fault.as_ref()).await;
        let response = answer.as_ref().ok();
        let request_id = response
            .and_then(|response| response.headers().get("x-ms-request-id"))
            .and_then(|id| id.to_str().ok());
        self.ctx.faults.record(&Entry {
            time,
            service: &self.service,
            method: &method,
            path: &path,
            query: &query,
            status: response.map(|response| response.status().as_u16()),
            fault: fault.as_ref(),
            took: started.elapsed(),
            request_id,
            body,
        });
        answer
    }

    /// The request with what its log line shows of its body.
    async fn noted(&self, request: Request<Body>) -> (Request<Body>, Option<Value>) {
        if self.service != "arm" || request.method() == Method::GET || !self.ctx.faults.logs() {
            return (request, None);
        }
        let (parts, body) = request.into_parts();
        // A body that breaks off is the service's to refuse.
        let bytes = to_bytes(body, LOGGED).await.unwrap_or_default();
        let value = serde_json::from_slice(&bytes).ok();
        (Request::from_parts(parts, Body::from(bytes)), value)
    }

    async fn play(
        &self,
        request: Request<Body>,
        fault: Option<&Action>,
    ) -> Result<Response, Closed> {
        match fault {
            None => Ok(self.serve(request).await),
            Some(Action::Answer { status, code, message, retry_after }) => {
                let path = request.uri().path();
                let service = &self.service;
                Ok(scripted::response(service, path, *status, code, message, *retry_after))
            }
            Some(Action::Delay(millis)) => {
                tokio::time::sleep(Duration::from_millis(*millis)).await;
                Ok(self.serve(request).await)
            }
            Some(Action::Reset) => Err(Closed),
            Some(Action::ReplyLost) => {
                drop(self.serve(request).await);
                Err(Closed)
            }
            Some(Action::Cut) => Ok(cut(self.serve(request).await)),
            Some(Action::Slow(millis)) => {
                Ok(slow(self.serve(request).await, Duration::from_millis(*millis)))
            }
            Some(Action::Stall) => Ok(stalled(self.serve(request).await)),
        }
    }

    async fn serve(&self, request: Request<Body>) -> Response {
        let answer: Result<Response, Infallible> = self.router.clone().oneshot(request).await;
        answer.unwrap_or_else(|never| match never {})
    }
}

/// Sends half of the first piece of the body under its full length, then fails.
fn cut(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let pieces = body.into_data_stream().take(1).map(|piece| {
        let piece = piece.unwrap_or_default();
        Ok(piece.slice(..piece.len() / 2))
    });
    let end = futures::stream::once(async { Err::<Bytes, _>(io::Error::other("cut")) });
    Response::from_parts(parts, Body::from_stream(pieces.chain(end)))
}

/// Sends the body in pieces of at most 64 bytes with a pause before each.
fn slow(response: Response, pause: Duration) -> Response {
    let (parts, body) = response.into_parts();
    let pieces = body.into_data_stream().flat_map(|piece| {
        let piece = piece.unwrap_or_default();
        let starts = (0..piece.len()).step_by(64);
        let pieces: Vec<Bytes> =
            starts.map(|at| piece.slice(at..piece.len().min(at + 64))).collect();
        futures::stream::iter(pieces)
    });
    let pieces = pieces.then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok::<Bytes, io::Error>(piece)
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// Sends the head only; the connection stays open until the client leaves it or the sandbox stops.
fn stalled(response: Response) -> Response {
    let (parts, _) = response.into_parts();
    let nothing = futures::stream::pending::<Result<Bytes, io::Error>>();
    Response::from_parts(parts, Body::from_stream(nothing))
}
