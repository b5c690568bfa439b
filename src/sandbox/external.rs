//! A real API server behind a cluster of the world.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde_json::{Value, json};

use super::{
    admission::RegistrationError, clusters, context::Context, entra::http_get, store::Write,
};

/// `--cluster NAME=KUBECONFIG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The name of a cluster of the seed.
    pub name: String,
    /// The kubeconfig; its current context is used.
    pub kubeconfig: PathBuf,
}

/// A real API server could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// The seed has no such cluster.
    #[error("the configuration has no cluster of this name")]
    Unknown,
    /// The kubeconfig.
    #[error("reading the kubeconfig `{}`", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: KubeconfigError,
    },
    /// A request to the server.
    #[error("asking the API server for `{path}`")]
    Request {
        /// The path.
        path: &'static str,
        /// What went wrong.
        #[source]
        source: Box<kube::Error>,
    },
    /// Its discovery document.
    #[error("its discovery document names no issuer")]
    NoIssuer,
    /// Writing to the world.
    #[error("writing the world")]
    Store(#[from] std::io::Error),
    /// Its webhook.
    #[error(transparent)]
    Webhook(#[from] RegistrationError),
}

/// What is known of a real cluster.
pub(super) struct Known {
    /// The issuer of its tokens, byte for byte.
    pub(super) issuer: String,
    /// A client of its API server.
    pub(super) client: kube::Client,
    /// Minor version of its API server.
    pub(super) minor: u32,
}

impl External {
    /// Reads the server's issuer and version and writes them into the cluster's ARM record, with
    /// issuer and add-on on.
    pub(super) async fn adopt(&self, ctx: &Context) -> Result<Known, ExternalError> {
        let failed = |source| ExternalError::Kubeconfig { path: self.kubeconfig.clone(), source };
        let file = Kubeconfig::read_from(&self.kubeconfig).map_err(failed)?;
        let options = KubeConfigOptions::default();
        let config =
            kube::Config::from_custom_kubeconfig(file.clone(), &options).await.map_err(failed)?;
        let host = config.cluster_url.host().unwrap_or_default().to_owned();
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let ca: String = config.root_cert.iter().flatten().map(|der| pem(der)).collect();
        let client = kube::Client::try_from(config)
            .map_err(|source| ExternalError::Request { path: "/", source: Box::new(source) })?;
        let discovery = get(&client, "/.well-known/openid-configuration").await?;
        let issuer = discovery["issuer"].as_str().filter(|issuer| !issuer.is_empty());
        let issuer = issuer.ok_or(ExternalError::NoIssuer)?.to_owned();
        let version = get(&client, "/version").await?["gitVersion"].clone();
        let version = version.as_str().unwrap_or_default().trim_start_matches('v').to_owned();
        let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(33);
        let mut world = ctx.store.lock();
        let (key, record) = clusters::all(&world)
            .into_iter()
            .find(|(_, doc)| doc["cluster"] == self.name.as_str())
            .ok_or(ExternalError::Unknown)?;
        let mut doc = (*record).clone();
        doc["issuer"] = issuer.clone().into();
        doc["external"] = json!({
            "server": server, "ca_data": BASE64.encode(ca), "user_yaml": user(&file),
        });
        let properties = &mut doc["properties"];
        properties["fqdn"] = host.into();
        properties["oidcIssuerProfile"] = json!({ "enabled": true, "issuerURL": issuer });
        properties["securityProfile"]["workloadIdentity"] = json!({ "enabled": true });
        if !version.is_empty() {
            properties["kubernetesVersion"] = version.clone().into();
            properties["currentKubernetesVersion"] = version.into();
        }
        world.commit(vec![Write::put(key, doc)])?;
        Ok(Known { issuer, client, minor })
    }
}

async fn get(client: &kube::Client, path: &'static str) -> Result<Value, ExternalError> {
    let failed = |source| ExternalError::Request { path, source: Box::new(source) };
    let request = http_get(path).unwrap_or_default();
    client.request::<Value>(request).await.map_err(failed)
}

/// A certificate in PEM.
fn pem(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// The user of the kubeconfig's current context, indented as the member of a YAML list, for the
/// kubeconfig that ARM hands out. JSON is YAML.
fn user(file: &Kubeconfig) -> String {
    let context = file.current_context.as_deref().unwrap_or_default();
    let user = file
        .contexts
        .iter()
        .find(|named| named.name == context)
        .and_then(|named| named.context.as_ref()?.user.clone())
        .unwrap_or_default();
    let info = file.auth_infos.iter().find(|named| named.name == user);
    let value = info.and_then(|named| serde_json::to_value(named.auth_info.as_ref()?).ok());
    let mut text = String::new();
    for (name, value) in value.as_ref().and_then(Value::as_object).into_iter().flatten() {
        if !value.is_null() {
            use std::fmt::Write as _;
            // Writing to a string cannot fail.
            _ = writeln!(text, "    {name}: {value}");
        }
    }
    text
}
