//! A server on loopback that answers from a script, in order, and remembers what it was asked.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, Uri},
};
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::OffsetDateTime,
};
use serde_json::{Value, json};
use url::Url;
use widentity::azure::{Arm, Endpoints, Jitter};

#[derive(Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn reply(status: u16, body: &Value) -> Reply {
    Reply { status, body: body.to_string().into_bytes(), ..Reply::default() }
}

pub(crate) fn error(status: u16, code: &str, message: &str) -> Reply {
    reply(status, &json!({"error": {"code": code, "message": message}}))
}

impl Reply {
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Answers by what was asked; none: a plain 404.
type Route = Box<dyn Fn(&Seen) -> Option<Reply> + Send + Sync>;

#[derive(Default)]
struct Script {
    replies: Mutex<VecDeque<Reply>>,
    route: Option<Route>,
    seen: Mutex<Vec<Seen>>,
}

/// A server that answers the requests it gets from a script, in order.
pub(crate) struct Server {
    pub(crate) url: Url,
    script: Arc<Script>,
}

async fn answer(
    State(script): State<Arc<Script>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let target = uri.to_string();
    let seen = Seen { method, target, headers, body };
    let reply = match &script.route {
        Some(route) => {
            Some(route(&seen).unwrap_or_else(|| reply(404, &json!({"reason": "NotFound"}))))
        }
        None => script.replies.lock().unwrap().pop_front(),
    };
    script.seen.lock().unwrap().push(seen);
    let reply = reply.unwrap_or_else(|| error(418, "ScriptEnded", "no more answers"));
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}

impl Server {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let script = Script::default();
        script.replies.lock().unwrap().extend(replies);
        Self::serve(script).await
    }

    /// A server for clients that ask several things at once.
    pub(crate) async fn routed(
        route: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Script { route: Some(Box::new(route)), ..Script::default() }).await
    }

    async fn serve(script: Script) -> Self {
        let script = Arc::new(script);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, script }
    }

    pub(crate) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.replies.lock().unwrap().extend(replies);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().unwrap().clone()
    }

    pub(crate) fn link(&self, path: &str) -> String {
        self.url.join(path).unwrap().to_string()
    }
}

/// What the client presents; no log may show it.
pub(crate) const SECRET: &str = "the-bearer-token-nobody-may-see";

#[derive(Debug)]
pub(crate) struct Fixed;

#[async_trait::async_trait]
impl TokenCredential for Fixed {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        // Never looked at again within a test.
        let expires = OffsetDateTime::from_unix_timestamp(4_000_000_000).unwrap();
        Ok(AccessToken::new(SECRET, expires))
    }
}

impl Server {
    pub(crate) fn endpoints(&self) -> Endpoints {
        Endpoints::custom(self.url.clone(), self.url.clone(), None)
    }

    pub(crate) fn arm(&self) -> Watched {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let slept: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let (tell, sleep) = (Arc::clone(&told), Arc::clone(&slept));
        let waits = Arc::new(move |what: &str| tell.lock().unwrap().push(what.to_owned()));
        let arm = Arm::new(&self.endpoints(), Arc::new(Fixed), waits).unwrap();
        let arm = arm.with_jitter(Jitter::seeded(1)).with_sleep(Arc::new(move |how_long| {
            sleep.lock().unwrap().push(how_long);
            Box::pin(async {})
        }));
        Watched { arm, told, slept }
    }
}

/// A client of a scripted server whose waits take no time and are remembered.
pub(crate) struct Watched {
    pub(crate) arm: Arm,
    told: Arc<Mutex<Vec<String>>>,
    slept: Arc<Mutex<Vec<Duration>>>,
}

impl Watched {
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    pub(crate) fn slept(&self) -> Vec<u64> {
        self.slept.lock().unwrap().iter().map(Duration::as_secs).collect()
    }
}
