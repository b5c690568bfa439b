//! How a test reaches a sandbox of its own, as the sandbox's own client.

use std::{collections::BTreeMap, fs};

use url::Url;
use widentity::{
    model::TenantId,
    ops::connect::{AuthKind, CredentialEnv, Endpoints, Target},
    sandbox::Ready,
};

/// The sandbox behind a ready file, its data planes included. Its issuers keep their real names,
/// which nothing here resolves.
pub(crate) fn target(ready: &Ready, tenant: Option<TenantId>) -> Target {
    let url = |text: &str| Url::parse(text).unwrap();
    let data_plane = url(&ready.data_plane).port().map(|port| ([127, 0, 0, 1], port).into());
    let endpoints = Endpoints::sandbox(
        url(&ready.resource_manager),
        url(&ready.authority),
        fs::read_to_string(&ready.ca_file).unwrap(),
        data_plane,
    );
    let variables = BTreeMap::from([
        ("AZURE_TENANT_ID".to_owned(), ready.tenant.to_string()),
        ("AZURE_CLIENT_ID".to_owned(), ready.client_id.to_string()),
        ("AZURE_CLIENT_SECRET".to_owned(), ready.client_secret.clone()),
    ]);
    let credentials = CredentialEnv { variables, tenant };
    Target { endpoints, credentials, auth: Some(AuthKind::Environment) }
}

/// The same, with the issuers of its clusters.
pub(crate) fn with_issuers(ready: &Ready) -> Target {
    let mut target = target(ready, None);
    let issuers = ready.issuers.parse().unwrap();
    target.endpoints.resolve.push((".oic.prod-aks.azure.com".to_owned(), issuers));
    target
}
