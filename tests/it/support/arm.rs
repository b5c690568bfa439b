//! A sandbox in memory with the operator's token and a client that trusts it.

use std::fs;

use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use widentity::sandbox::{Options, Place, Running, Sandbox, Seed, clock::Clock};

/// A running sandbox whose clock stands still.
pub(crate) struct Served {
    pub(crate) running: Running,
    pub(crate) client: Client,
    pub(crate) token: String,
    directory: tempfile::TempDir,
}

impl Served {
    pub(crate) async fn start(seed: Seed, change: impl FnOnce(&mut Options)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = Options::new(Place::Memory(directory.path().to_owned()), seed);
        options.clock = Clock::manual("2026-11-21T12:00:00Z".parse().unwrap());
        change(&mut options);
        let running = Sandbox::start(options).await.unwrap();
        let ready = running.ready();
        let pem = fs::read(&ready.ca_file).unwrap();
        let client = Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
            .build()
            .unwrap();
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}\
             &scope=https://management.azure.com/.default",
            ready.client_id, ready.client_secret
        );
        let request = client
            .post(format!("{}/{}/oauth2/v2.0/token", ready.authority, ready.tenant))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let (_, answer) = answered(request).await.unwrap();
        let token = answer["access_token"].as_str().unwrap().to_owned();
        Self { running, client, token, directory }
    }

    /// A request to Azure Resource Manager as the operator.
    pub(crate) fn arm(&self, method: &str, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.running.ready().resource_manager);
        self.client.request(method.parse().unwrap(), url).bearer_auth(&self.token)
    }

    /// One of the sandbox's own requests.
    pub(crate) fn own(&self, method: &str, path: &str) -> RequestBuilder {
        let ready = self.running.ready();
        let url = format!("{}/sandbox/{path}", ready.resource_manager);
        self.client.request(method.parse().unwrap(), url).bearer_auth(&ready.client_secret)
    }

    /// Where the sandbox's files are.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

/// A request with a JSON body.
pub(crate) fn json(request: RequestBuilder, body: &Value) -> RequestBuilder {
    request.header("content-type", "application/json").body(body.to_string())
}

/// Status and JSON body of an answer; `null` where it is empty.
pub(crate) async fn answered(request: RequestBuilder) -> reqwest::Result<(u16, Value)> {
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let bytes = answer.bytes().await?;
    Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}
