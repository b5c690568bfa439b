//! `GET /metadata/endpoints`: where the other services of this cloud are.

use axum::http::StatusCode;
use serde_json::json;

use super::call::Reply;
use crate::sandbox::context::Context;

/// The document that `az cloud register --endpoint-resource-manager` and other tools read. It
/// needs no token. Members as the public cloud returns them for api-version 2022-09-01.
pub(super) fn endpoints(ctx: &Context) -> Reply {
    let resource_manager = ctx.endpoints.url(|bound| bound.resource_manager);
    let authority = ctx.endpoints.url(|bound| bound.authority);
    let graph = ctx.endpoints.url(|bound| bound.graph);
    Reply::json(
        StatusCode::OK,
        json!({
            "name": "WidentitySandbox",
            "portal": resource_manager,
            "authentication": {
                "loginEndpoint": authority,
                "audiences": [
                    "https://management.core.windows.net/",
                    "https://management.azure.com/",
                ],
                "tenant": "common",
                "identityProvider": "AAD",
            },
            "media": "https://rest.media.azure.net",
            "graphAudience": "https://graph.windows.net/",
            "graph": "https://graph.windows.net/",
            "suffixes": {
                "azureDataLakeStoreFileSystem": "azuredatalakestore.net",
                "acrLoginServer": "azurecr.io",
                "sqlServerHostname": "database.windows.net",
                "azureDataLakeAnalyticsCatalogAndJob": "azuredatalakeanalytics.net",
                "keyVaultDns": "vault.azure.net",
                "storage": "core.windows.net",
                "azureFrontDoorEndpointSuffix": "azurefd.net",
                "storageSyncEndpointSuffix": "afs.azure.net",
                "mhsmDns": "managedhsm.azure.net",
                "mysqlServerEndpoint": "mysql.database.azure.com",
                "postgresqlServerEndpoint": "postgres.database.azure.com",
                "mariadbServerEndpoint": "mariadb.database.azure.com",
                "synapseAnalytics": "dev.azuresynapse.net",
                "attestationEndpoint": "attest.azure.net",
            },
            "batch": "https://batch.core.windows.net/",
            "resourceManager": resource_manager,
            "vmImageAliasDoc":
                "https://raw.githubusercontent.com/Azure/azure-rest-api-specs/master/arm-compute/quickstart-templates/aliases.json",
            "activeDirectoryDataLake": "https://datalake.azure.net/",
            "sqlManagement": "https://management.core.windows.net:8443/",
            "microsoftGraphResourceId": format!("{graph}/"),
            "appInsightsResourceId": "https://api.applicationinsights.io",
            "appInsightsTelemetryChannelResourceId": "https://dc.applicationinsights.azure.com/v2/track",
            "attestationResourceId": "https://attest.azure.net",
            "synapseAnalyticsResourceId": "https://dev.azuresynapse.net",
            "logAnalyticsResourceId": "https://api.loganalytics.io",
            "ossrDbmsResourceId": "https://ossrdbms-aad.database.windows.net",
            "gallery": "https://gallery.azure.com/",
        }),
    )
}
