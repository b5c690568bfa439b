//! A gateway before a real API server: counts requests, and lets things happen at one of them.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderName, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::kube_apiserver::{Admin, ApiServer};

/// A request of somebody else: method, path, content type, body.
pub(crate) type Other = (Method, String, &'static str, Value);

/// What happens at a request.
pub(crate) enum Happens {
    /// It is passed on.
    Nothing,
    /// It never arrives, and nobody answers.
    Lost,
    /// It is carried out, and nobody answers.
    AnswerLost,
    /// Somebody else sends these first.
    First(Vec<Other>),
}

/// The number of the request, its method and path.
type Decide = Box<dyn FnMut(usize, &Method, &str) -> Happens + Send>;

struct Inner {
    upstream: Admin,
    seen: Mutex<usize>,
    decide: Mutex<Option<Decide>>,
    lost: Notify,
}

/// A gateway on loopback, without TLS, for whoever has its kubeconfig.
pub(crate) struct Gateway {
    pub(crate) kubeconfig: PathBuf,
    inner: Arc<Inner>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gateway {
    pub(crate) async fn start(server: &ApiServer, kubeconfig: &Path) -> Self {
        let inner = Arc::new(Inner {
            upstream: Admin::of(server).await,
            seen: Mutex::default(),
            decide: Mutex::default(),
            lost: Notify::new(),
        });
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(pass).with_state(Arc::clone(&inner));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "admin",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "u", "user": {"token": "of-the-gateway"}}],
            "contexts": [{"name": "admin", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(kubeconfig, text.to_string()).unwrap();
        Self { kubeconfig: kubeconfig.to_owned(), inner, task }
    }

    /// Begins to count at one, and asks at each request what happens.
    pub(crate) fn watch(
        &self,
        decide: impl FnMut(usize, &Method, &str) -> Happens + Send + 'static,
    ) {
        *self.inner.seen.lock().unwrap() = 0;
        *self.inner.decide.lock().unwrap() = Some(Box::new(decide));
    }

    /// Waits for a request that nobody answers.
    pub(crate) async fn lost(&self) {
        self.inner.lost.notified().await;
    }
}

async fn pass(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let nth = {
        let mut seen = inner.seen.lock().unwrap();
        *seen += 1;
        *seen
    };
    let happens = match &mut *inner.decide.lock().unwrap() {
        Some(decide) => decide(nth, &parts.method, parts.uri.path()),
        None => Happens::Nothing,
    };
    if matches!(happens, Happens::Lost) {
        inner.lost.notify_one();
        return std::future::pending().await;
    }
    if let Happens::First(writes) = &happens {
        for (method, path, kind, body) in writes {
            inner.upstream.send(method.clone(), path, kind, body).await;
        }
    }
    let hop: [HeaderName; 5] = [
        header::HOST,
        header::AUTHORIZATION,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::ACCEPT_ENCODING,
    ];
    for name in hop {
        parts.headers.remove(name);
    }
    let path = parts.uri.path_and_query().unwrap().as_str().parse().unwrap();
    parts.uri = path;
    let request = http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    let Ok(answer) = inner.upstream.kube().send(request).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    if matches!(happens, Happens::AnswerLost) {
        inner.lost.notify_one();
        return std::future::pending().await;
    }
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(header::TRANSFER_ENCODING);
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.version = http::Version::HTTP_11;
    let body = body.collect_bytes().await.unwrap();
    Response::from_parts(parts, Body::from(body))
}
