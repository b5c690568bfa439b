//! The one program that emulated kubelets run: a proof container.
//!
//! No image is pulled and no command executed here; pods start and stay. A container whose command
//! is a shell script that begins with `# widentity-proof 1` is different: what that script does is
//! done in its place, with what the pod really has. The environment is the container's, the token is
//! requested for the pod's account with the audience and lifetime of the projected volume that
//! `AZURE_FEDERATED_TOKEN_FILE` lies in, and it is exchanged over HTTPS at the authority that the
//! environment names. A pod that the webhook has not changed therefore fails, as it would.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    super::tls::{self, TlsError},
    Kubernetes,
    error::Outcome,
    objects::{Writer, meta, stamp},
    storage::Key,
    token_request,
};

/// The first line of a script that is done here.
const MARK: &str = "# widentity-proof 1";
/// The authority that the webhook writes into pods; it is served on loopback.
const AUTHORITY: &str = "login.microsoftonline.com";
const PAUSE: Duration = Duration::from_secs(1);
/// Refusals that may pass: nothing matched, or the issuer could not be reached.
const MAY_PASS: [u64; 9] =
    [70_021, 70_025, 700_211, 700_212, 700_213, 700_016, 90_061, 50_166, 501_661];

/// Whether a pod is one that [`Kubelet`] has work for.
pub(super) fn is_proof(pod: &Value) -> bool {
    let command = &pod["spec"]["containers"][0]["command"];
    command[2].as_str().and_then(|script| script.lines().next()) == Some(MARK)
}

/// Runs the proof containers of one cluster.
pub(in crate::sandbox) struct Kubelet {
    kube: Arc<Kubernetes>,
    http: reqwest::Client,
}

struct Authority(SocketAddr);

/// A host that is neither the authority nor this machine.
#[derive(Debug, thiserror::Error)]
#[error("could not resolve host: {0}")]
struct Unresolved(String);

impl Resolve for Authority {
    fn resolve(&self, name: Name) -> Resolving {
        let found = match name.as_str() {
            AUTHORITY => Ok(self.0),
            "localhost" => Ok(SocketAddr::from(([127, 0, 0, 1], 0))),
            other => Err(Unresolved(other.to_owned())),
        };
        Box::pin(async move {
            let address = found?;
            Ok(Box::new(std::iter::once(address)) as Addrs)
        })
    }
}

/// A report of the script: its exit code and what it writes.
type Ended = (i64, Value);

fn failed(stage: &str, tries: u32, text: &str) -> Ended {
    (1, json!({"version": 1, "proved": false, "stage": stage, "tries": tries, "text": text}))
}

/// What a container knows when it starts.
struct Started {
    environment: BTreeMap<String, String>,
    /// The account's token, as its file has it.
    token: String,
}

impl Kubelet {
    /// The kubelets of `kube`.
    ///
    /// # Errors
    /// When the sandbox's authority cannot be made or trusted.
    pub(in crate::sandbox) fn new(kube: Arc<Kubernetes>) -> Result<Self, TlsError> {
        let ca = tls::ca_pem(&kube.ctx)?;
        let address =
            kube.ctx.endpoints.get().map_or_else(|| ([127, 0, 0, 1], 0).into(), |b| b.authority);
        let broken = |_| TlsError::Setup(rustls::Error::General("the kubelet's client".to_owned()));
        let ca = reqwest::Certificate::from_pem(ca.as_bytes()).map_err(broken)?;
        let http = reqwest::Client::builder()
            .tls_certs_only([ca])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .dns_resolver(Arc::new(Authority(address)))
            .build()
            .map_err(broken)?;
        Ok(Self { kube, http })
    }

    /// Runs what starts, until `stop` becomes true.
    pub(in crate::sandbox) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut bell = self.kube.bell.subscribe();
        let this = Arc::new(self);
        let mut running = JoinSet::new();
        loop {
            let started = std::mem::take(&mut this.kube.lock_state().proofs);
            for key in started {
                let this = Arc::clone(&this);
                running.spawn(async move { this.proof(&key).await });
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                rung = bell.changed() => if rung.is_err() { return },
                Some(_) = running.join_next() => {}
            }
        }
    }

    async fn proof(&self, key: &Key) {
        let (code, report) = match self.start(key) {
            Ok(started) => self.exchange(started).await,
            Err(text) => failed("environment", 0, &text),
        };
        // A pod that is gone has nobody to tell.
        drop(self.end(key, code, &report));
    }

    /// Environment and token of the container; an error is what the script says.
    fn start(&self, key: &Key) -> Result<Started, String> {
        let pod = self.kube.begin().get_key(key).ok_or_else(|| "the pod is gone".to_owned())?;
        let container = &pod["spec"]["containers"][0];
        let variables = container["env"].as_array().into_iter().flatten();
        let environment: BTreeMap<String, String> = variables
            .filter_map(|v| Some((v["name"].as_str()?.to_owned(), v["value"].as_str()?.to_owned())))
            .collect();
        for name in [
            "AZURE_FEDERATED_TOKEN_FILE",
            "AZURE_CLIENT_ID",
            "AZURE_TENANT_ID",
            "AZURE_AUTHORITY_HOST",
        ] {
            if environment.get(name).is_none_or(String::is_empty) {
                return Err(format!("{name} is not set"));
            }
        }
        let file = &environment["AZURE_FEDERATED_TOKEN_FILE"];
        let source = projected(&pod, file).ok_or_else(|| format!("{file} cannot be read"))?;
        let request = json!({"spec": {
            "audiences": [source["audience"]],
            "expirationSeconds": source["expirationSeconds"].as_i64().unwrap_or(3600),
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": meta(&pod, "name"),
                "uid": meta(&pod, "uid")},
        }});
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
        let issued =
            token_request::issue(&self.kube, &key.namespace, account, request, "kubelet", false);
        let issued =
            issued.map_err(|status| format!("{file} cannot be read: {}", status.message))?;
        let token = issued["status"]["token"].as_str().unwrap_or_default().to_owned();
        Ok(Started { environment, token })
    }

    async fn exchange(&self, started: Started) -> Ended {
        let Started { environment, token } = started;
        let get = |name: &str| environment.get(name).map_or("", String::as_str);
        let seconds = |name: &str| get(name).parse().ok().map(Duration::from_secs);
        let url = format!(
            "{}/{}/oauth2/v2.0/token",
            get("AZURE_AUTHORITY_HOST").trim_end_matches('/'),
            get("AZURE_TENANT_ID")
        );
        if !near(&url) {
            let host = get("AZURE_AUTHORITY_HOST");
            return failed("exchange", 1, &format!("could not resolve host: {host}"));
        }
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", get("AZURE_CLIENT_ID"))
            .append_pair("scope", get("WIDENTITY_SCOPE"))
            .append_pair(
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            )
            .append_pair("client_assertion", &token)
            .finish();
        let limit = seconds("WIDENTITY_LIMIT").unwrap_or(Duration::from_mins(4));
        let fixed = seconds("WIDENTITY_WINDOW");
        let began = Instant::now();
        let (mut tries, mut answers) = (0, 0);
        let (mut refused, mut first): (Option<Instant>, Instant) = (None, began);
        loop {
            tries += 1;
            let (status, answer) = self.ask(&url, &form).await;
            if status == 200 {
                answers += 1;
                if answers == 1 {
                    first = Instant::now();
                }
                let observed = refused.map_or(Duration::ZERO, |since| {
                    first
                        .duration_since(since)
                        .clamp(Duration::from_secs(2), Duration::from_secs(30))
                });
                let over = fixed.unwrap_or(observed);
                if over.is_zero() || (answers >= 3 && first.elapsed() >= over) {
                    return (0, proved(tries, answers, &token, &answer));
                }
                tokio::time::sleep(over / 2).await;
            } else {
                answers = 0;
                let code = answer["error_codes"][0].as_u64().unwrap_or(0);
                let passes =
                    MAY_PASS.contains(&code) || status == 0 || status == 429 || status >= 500;
                if !passes || began.elapsed() >= limit {
                    return refusal(tries, status, code, &answer);
                }
                refused.get_or_insert_with(Instant::now);
                tokio::time::sleep(PAUSE).await;
            }
            if began.elapsed() >= limit {
                let text = "Entra answered, and the time was over before it did so steadily";
                return failed("steady", tries, text);
            }
        }
    }

    /// One request: status and body; status 0 and the transport's words where no answer came.
    async fn ask(&self, url: &str, form: &str) -> (u16, Value) {
        let request = self
            .http
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.to_owned());
        match request.send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                let body = answer.bytes().await.unwrap_or_default();
                (status, serde_json::from_slice(&body).unwrap_or_default())
            }
            Err(error) => (0, json!({"error_description": error.without_url().to_string()})),
        }
    }

    /// The container has ended.
    fn end(&self, key: &Key, code: i64, report: &Value) -> Outcome<()> {
        let mut tx = self.kube.begin();
        let (Some(pod), Some(kind)) =
            (tx.get_key(key), tx.state.kinds.find("", "v1", "pods").cloned())
        else {
            return Ok(());
        };
        let now = stamp(tx.now);
        let (phase, reason) =
            if code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
        tx.modify(&kind, &pod, &Writer::system("kubelet").through("status"), |pod| {
            let status = &mut pod["status"];
            status["phase"] = phase.into();
            let container = &mut status["containerStatuses"][0];
            let started = container["state"]["running"]["startedAt"].take();
            container["ready"] = false.into();
            container["started"] = false.into();
            container["state"] = json!({"terminated": {"exitCode": code, "reason": reason,
                "message": report.to_string(), "startedAt": started, "finishedAt": now}});
        })
        .map(drop)
    }
}

/// The source of the projected volume in which a file of the first container lies.
fn projected<'a>(pod: &'a Value, file: &str) -> Option<&'a Value> {
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array()?;
    let (volume, below) = mounts.iter().find_map(|mount| {
        let at = mount["mountPath"].as_str()?.trim_end_matches('/');
        Some((&mount["name"], file.strip_prefix(at)?.strip_prefix('/')?))
    })?;
    let volumes = pod["spec"]["volumes"].as_array()?;
    let volume = volumes.iter().find(|candidate| candidate["name"] == *volume)?;
    let sources = volume["projected"]["sources"].as_array()?;
    let tokens = sources.iter().map(|source| &source["serviceAccountToken"]);
    tokens.into_iter().find(|token| token["path"] == below)
}

/// Whether a URL leads to the served authority or to loopback: a sandbox reaches nothing else.
fn near(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let loopback = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == AUTHORITY || host == "localhost" || loopback.is_ok_and(|ip| ip.is_loopback())
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn proved(tries: u32, answers: u32, mine: &str, answer: &Value) -> Value {
    let mine = claims(mine);
    let theirs = claims(answer["access_token"].as_str().unwrap_or_default());
    json!({"version": 1, "proved": true, "tries": tries, "answers": answers, "iss": mine["iss"],
        "sub": mine["sub"], "aud": mine["aud"][0], "oid": theirs["oid"], "tid": theirs["tid"]})
}

fn refusal(tries: u32, status: u16, code: u64, answer: &Value) -> Ended {
    let text = answer["error_description"].as_str().unwrap_or_default();
    let text = text.split(" Trace ID:").next().unwrap_or_default();
    let mut ended = failed("exchange", tries, text);
    if status > 0 {
        ended.1["status"] = status.into();
        ended.1["code"] = code.into();
        ended.1["correlation"] = answer["correlation_id"].as_str().unwrap_or_default().into();
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(script: &str) -> Value {
        json!({"spec": {
            "containers": [{"command": ["/bin/sh", "-c", script], "volumeMounts": [
                {"name": "w", "mountPath": "/var/run/secrets/azure/wi"}]}],
            "volumes": [{"name": "w", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token/t", "audience": "api://a"}}]}}],
        }})
    }

    #[test]
    fn only_the_known_script_is_done() {
        assert!(is_proof(&pod("# widentity-proof 1\ncurl …")));
        assert!(!is_proof(&pod("# widentity-proof 2\ncurl …")));
        assert!(!is_proof(&pod("sleep infinity")));
        assert!(!is_proof(&json!({"spec": {"containers": [{"image": "widentity-proof"}]}})));
    }

    #[test]
    fn a_token_comes_only_from_the_volume_that_the_file_lies_in() {
        let pod = pod("");
        let found = projected(&pod, "/var/run/secrets/azure/wi/token/t").unwrap();
        assert_eq!(found["audience"], "api://a");
        assert_eq!(projected(&pod, "/var/run/secrets/azure/wi/token/other"), None);
        assert_eq!(projected(&pod, "/var/run/secrets/azure/wi2/token/t"), None);
    }

    #[test]
    fn nothing_but_loopback_is_reached() {
        assert!(near("https://login.microsoftonline.com/t") && near("https://127.0.0.1:1/t"));
        assert!(!near("https://10.0.0.1/t") && !near("https://evil.example/t"));
    }
}
