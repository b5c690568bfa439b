//! Federated assertions of build systems: the token that says which pipeline runs.

use std::fmt;

use azure_core::{
    credentials::Secret,
    error::ErrorKind,
    http::{
        ClientMethodOptions, Context, Method, Pipeline, PipelineSendOptions, Request, Url,
        headers::AUTHORIZATION,
    },
};
use azure_identity::ClientAssertion;
use serde::Deserialize;

/// The audience that Entra expects of assertions, where nothing else is configured.
const AUDIENCE: &str = "api://AzureADTokenExchange";

/// A build system that hands out assertions over HTTP.
pub(super) struct Assertion {
    url: Url,
    method: Method,
    secret: Secret,
    member: &'static str,
    pipeline: Pipeline,
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

impl Assertion {
    /// GitHub Actions.
    ///
    /// Source: GitHub documentation on OIDC in Actions, "Methods for requesting the OIDC
    /// token".
    pub(super) fn github(mut url: Url, request_token: &str, pipeline: Pipeline) -> Self {
        url.query_pairs_mut().append_pair("audience", AUDIENCE);
        let secret = Secret::new(request_token.to_owned());
        Self { url, method: Method::Get, secret, member: "value", pipeline }
    }

    /// Azure Pipelines.
    ///
    /// Source: Azure DevOps REST documentation, "Oidctoken - Create", version 7.1.
    pub(super) fn pipelines(
        mut url: Url,
        connection: &str,
        access_token: &str,
        pipeline: Pipeline,
    ) -> Self {
        url.query_pairs_mut()
            .append_pair("api-version", "7.1")
            .append_pair("serviceConnectionId", connection);
        let secret = Secret::new(access_token.to_owned());
        Self { url, method: Method::Post, secret, member: "oidcToken", pipeline }
    }
}

#[derive(Deserialize)]
struct Answer {
    value: Option<String>,
    #[serde(rename = "oidcToken")]
    oidc_token: Option<String>,
}

#[async_trait::async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let failed =
            |message: String| azure_core::Error::with_message(ErrorKind::Credential, message);
        let mut request = Request::new(self.url.clone(), self.method);
        request.insert_header(AUTHORIZATION, format!("Bearer {}", self.secret.secret()));
        request.insert_header("accept", "application/json");
        if self.method == Method::Post {
            request.insert_header("content-length", "0");
        }
        let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
        let response = self.pipeline.send(&Context::new(), &mut request, Some(options)).await?;
        let status = u16::from(response.status());
        let host = self.url.host_str().unwrap_or_default();
        if !(200..300).contains(&status) {
            return Err(failed(format!("{host} refused the assertion with status {status}")));
        }
        let answer: Option<Answer> = serde_json::from_slice(response.body().as_ref()).ok();
        let token = answer.and_then(|answer| match self.member {
            "value" => answer.value,
            _ => answer.oidc_token,
        });
        token.ok_or_else(|| failed(format!("{host} answered without `{}`", self.member)))
    }
}
