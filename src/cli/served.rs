//! Requests to a sandbox that another process serves.

use reqwest::{Certificate, Client, Method, redirect};
use serde_json::Value;

use super::{
    error::CliError,
    files,
    main::Context,
    sandbox::{start_error, state_file},
};
use crate::sandbox::{
    Ready,
    files::{FileError, Files},
};

/// How the sandbox of this configuration is reached, if it is being served.
pub(super) fn find(context: &Context) -> Result<Option<Ready>, CliError> {
    let path = state_file(context);
    if !path.exists() {
        return Ok(None);
    }
    match Files::open(&path) {
        Err(FileError::Locked { path: _, ready: Some(ready) }) => Ok(Some(*ready)),
        Ok(_) => Ok(None),
        Err(error) => Err(start_error(&error.into())),
    }
}

/// Sends one of the sandbox's own requests. Its answer is JSON or empty.
pub(super) async fn send(
    ready: &Ready,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, CliError> {
    let failed = |error: reqwest::Error| {
        CliError::failed(format!("the sandbox does not answer: {}", error.without_url()))
            .hint("it may have been killed: serve it again")
    };
    let ca = Certificate::from_pem(files::read(&ready.ca_file)?.as_bytes()).map_err(failed)?;
    let client = Client::builder()
        .tls_certs_only([ca])
        .redirect(redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(failed)?;
    let url = format!("{}{path}", ready.resource_manager);
    let mut request = client.request(method, url).bearer_auth(&ready.client_secret);
    if let Some(body) = body {
        let kind = "application/json";
        request = request.header("content-type", kind).body(body.to_string());
    }
    let answer = request.send().await.map_err(failed)?;
    let status = answer.status();
    let bytes = answer.bytes().await.map_err(failed)?;
    if !status.is_success() {
        let text = String::from_utf8_lossy(&bytes);
        return Err(CliError::failed(format!("the sandbox refused: {status} {text}")));
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| CliError::failed(format!("the sandbox answers no JSON: {error}")))
}
