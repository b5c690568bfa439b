//! The environment that credentials are made from, as plain data: nothing here reads it.

use std::{collections::BTreeMap, fmt};

use crate::model::TenantId;

/// The environment variables that credentials are made from, as data.
#[derive(Clone, Default)]
pub struct CredentialEnv {
    /// Variables by name; only those of [`Self::NAMES`] are looked at.
    pub variables: BTreeMap<String, String>,
    /// The tenant to ask for, where a login serves several.
    pub tenant: Option<TenantId>,
}

impl fmt::Debug for CredentialEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialEnv")
            .field("variables", &self.variables.keys().collect::<Vec<_>>())
            .field("tenant", &self.tenant)
            .finish()
    }
}

pub(super) const CLIENT_ID: [&str; 2] = ["AZURE_CLIENT_ID", "ARM_CLIENT_ID"];
pub(super) const TENANT_ID: [&str; 2] = ["AZURE_TENANT_ID", "ARM_TENANT_ID"];
pub(super) const CLIENT_SECRET: [&str; 2] = ["AZURE_CLIENT_SECRET", "ARM_CLIENT_SECRET"];
pub(super) const CERTIFICATE: [&str; 2] =
    ["AZURE_CLIENT_CERTIFICATE_PATH", "ARM_CLIENT_CERTIFICATE_PATH"];
pub(super) const USE_OIDC: [&str; 1] = ["ARM_USE_OIDC"];
pub(super) const GITHUB_URL: [&str; 2] = ["ACTIONS_ID_TOKEN_REQUEST_URL", "ARM_OIDC_REQUEST_URL"];
pub(super) const GITHUB_TOKEN: [&str; 2] =
    ["ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ARM_OIDC_REQUEST_TOKEN"];
pub(super) const PIPELINES_URL: [&str; 1] = ["SYSTEM_OIDCREQUESTURI"];
pub(super) const PIPELINES_TOKEN: [&str; 1] = ["SYSTEM_ACCESSTOKEN"];
pub(super) const PIPELINES_CONNECTION: [&str; 3] = [
    "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID",
    "ARM_ADO_PIPELINE_SERVICE_CONNECTION_ID",
    "ARM_OIDC_AZURE_SERVICE_CONNECTION_ID",
];
pub(super) const PIPELINES_CLIENT: [&str; 3] =
    ["AZURESUBSCRIPTION_CLIENT_ID", "AZURE_CLIENT_ID", "ARM_CLIENT_ID"];
pub(super) const PIPELINES_TENANT: [&str; 3] =
    ["AZURESUBSCRIPTION_TENANT_ID", "AZURE_TENANT_ID", "ARM_TENANT_ID"];
pub(super) const TOKEN_FILE: [&str; 1] = ["AZURE_FEDERATED_TOKEN_FILE"];

impl CredentialEnv {
    /// Every variable that is looked at.
    pub const NAMES: &[&str] = &[
        "AZURE_CLIENT_ID",
        "ARM_CLIENT_ID",
        "AZURE_TENANT_ID",
        "ARM_TENANT_ID",
        "AZURE_CLIENT_SECRET",
        "ARM_CLIENT_SECRET",
        "AZURE_CLIENT_CERTIFICATE_PATH",
        "ARM_CLIENT_CERTIFICATE_PATH",
        "ARM_USE_OIDC",
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        "ARM_OIDC_REQUEST_URL",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "ARM_OIDC_REQUEST_TOKEN",
        "SYSTEM_OIDCREQUESTURI",
        "SYSTEM_ACCESSTOKEN",
        "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID",
        "ARM_ADO_PIPELINE_SERVICE_CONNECTION_ID",
        "ARM_OIDC_AZURE_SERVICE_CONNECTION_ID",
        "AZURESUBSCRIPTION_CLIENT_ID",
        "AZURESUBSCRIPTION_TENANT_ID",
        "AZURE_FEDERATED_TOKEN_FILE",
    ];

    pub(super) fn get(&self, names: &[&str]) -> Option<&str> {
        let mut values = names.iter().filter_map(|name| self.variables.get(*name));
        values.find(|value| !value.trim().is_empty()).map(|value| value.trim())
    }

    /// The value, or words that name the variables.
    pub(super) fn need(&self, names: &[&str]) -> Result<&str, String> {
        self.get(names).ok_or_else(|| format!("{} is not set", names.join(" or ")))
    }

    pub(super) fn wants_oidc(&self) -> bool {
        self.get(&USE_OIDC).is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("true"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_that_is_looked_at_is_listed_and_shown_by_name_only() {
        let groups: [&[&str]; 13] = [
            &CLIENT_ID,
            &TENANT_ID,
            &CLIENT_SECRET,
            &CERTIFICATE,
            &USE_OIDC,
            &GITHUB_URL,
            &GITHUB_TOKEN,
            &PIPELINES_URL,
            &PIPELINES_TOKEN,
            &PIPELINES_CONNECTION,
            &PIPELINES_CLIENT,
            &PIPELINES_TENANT,
            &TOKEN_FILE,
        ];
        for name in groups.into_iter().flatten() {
            assert!(CredentialEnv::NAMES.contains(name), "{name}");
        }
        let variables = BTreeMap::from([("AZURE_CLIENT_SECRET".into(), "hunter2".into())]);
        let secret = CredentialEnv { variables, tenant: None };
        let shown = format!("{secret:?}");
        assert!(shown.contains("AZURE_CLIENT_SECRET") && !shown.contains("hunter2"), "{shown}");
    }
}
