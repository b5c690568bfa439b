//! What a custom cloud says of itself: the audience of its tokens and the names of its data plane.

use azure_core::http::{Context, Method, PipelineSendOptions, Request};
use serde::Deserialize;

use super::{
    address::address,
    endpoints::Endpoints,
    error::ArmError,
    http::{self, TransportError},
};

/// Source: Azure CLI and Terraform, which read `/metadata/endpoints` of the resource manager.
const API: (&str, &str) = ("api-version", "2022-09-01");

#[derive(Deserialize)]
struct Metadata {
    authentication: Authentication,
    #[serde(default)]
    suffixes: Suffixes,
}

#[derive(Deserialize)]
struct Authentication {
    #[serde(default)]
    audiences: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Suffixes {
    #[serde(rename = "keyVaultDns")]
    key_vault: Option<String>,
    storage: Option<String>,
}

fn learn(endpoints: &mut Endpoints, metadata: &Metadata) {
    let plain = |audience: &String| audience.trim_end_matches('/').to_owned();
    let audiences: Vec<String> = metadata.authentication.audiences.iter().map(plain).collect();
    let known = audiences.iter().any(|audience| endpoints.arm_scope == scope(audience));
    // A cloud that also takes the public audience is asked for that one.
    if let Some(first) = audiences.first().filter(|first| !known && !first.is_empty()) {
        endpoints.arm_scope = scope(first);
    }
    let suffix = |text: &Option<String>| {
        let text = text.as_deref()?.trim_matches('.');
        (!text.is_empty()).then(|| text.to_ascii_lowercase())
    };
    if let Some(suffix) = suffix(&metadata.suffixes.key_vault) {
        endpoints.key_vault_suffix = suffix;
    }
    if let Some(suffix) = suffix(&metadata.suffixes.storage) {
        endpoints.blob_suffix = format!("blob.{suffix}");
    }
}

fn scope(audience: &str) -> String {
    format!("{audience}/.default")
}

impl Endpoints {
    /// Asks a custom cloud's resource manager for the audience of its tokens and the suffixes of
    /// its data plane. A cloud that does not answer keeps those of the public one. Where to log in
    /// is never taken from the answer: the file names it.
    pub async fn discover(mut self) -> Result<Self, TransportError> {
        let transport = http::transport(&self)?;
        let pipeline = http::pipeline(&self, &transport, None);
        match ask(&self, &pipeline).await {
            Ok(metadata) => learn(&mut self, &metadata),
            Err(why) => tracing::debug!(why, "the cloud does not describe itself"),
        }
        Ok(self)
    }
}

async fn ask(
    endpoints: &Endpoints,
    pipeline: &azure_core::http::Pipeline,
) -> Result<Metadata, String> {
    let url = address(&endpoints.resource_manager, "metadata/endpoints", &[API])
        .map_err(|error: ArmError| error.to_string())?;
    let mut request = Request::new(url, Method::Get);
    let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
    let sent = pipeline.send(&Context::new(), &mut request, Some(options)).await;
    let response = sent.map_err(|error| http::innermost(&error))?;
    let status = u16::from(response.status());
    if status != 200 {
        return Err(format!("status {status}"));
    }
    serde_json::from_slice(response.body().as_ref()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn learned(metadata: serde_json::Value) -> Endpoints {
        let mut endpoints = Endpoints::public();
        learn(&mut endpoints, &serde_json::from_value(metadata).unwrap());
        endpoints
    }

    #[test]
    fn a_cloud_of_its_own_is_asked_for_its_own_audience() {
        let cloud = learned(json!({
            "authentication": {"audiences": ["https://management.local.contoso.com/"]},
            "suffixes": {"keyVaultDns": ".vault.local.contoso.com", "storage": "local.contoso.com"},
        }));
        assert_eq!(cloud.arm_scope, "https://management.local.contoso.com/.default");
        assert_eq!(cloud.key_vault_suffix, "vault.local.contoso.com");
        assert_eq!(cloud.blob_suffix, "blob.local.contoso.com");
    }

    #[test]
    fn a_cloud_that_takes_the_public_audience_is_asked_for_that_one() {
        let audiences = ["https://management.core.windows.net/", "https://management.azure.com/"];
        let cloud = learned(json!({"authentication": {"audiences": audiences}}));
        assert_eq!(cloud.arm_scope, Endpoints::public().arm_scope);
        assert_eq!(cloud.key_vault_suffix, "vault.azure.net");
    }
}
