//! Target resources, as far as their settings decide whether a role means anything.

use serde::Deserialize;

use super::{
    arm::{Arm, Call},
    error::ArmError,
};
use crate::model::{ArmId, snapshot::ObservedTarget};

/// Source: the `Microsoft.KeyVault` specifications in Azure/azure-rest-api-specs.
const API: (&str, &str) = ("api-version", "2023-07-01");

#[derive(Deserialize)]
struct Vault {
    properties: VaultProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VaultProperties {
    enable_rbac_authorization: Option<bool>,
}

impl Arm {
    /// A Key Vault's settings; none if it is not there. An id of any other type is refused.
    pub async fn target(&self, id: &ArmId) -> Result<Option<ObservedTarget>, ArmError> {
        if id.resource_type().as_deref() != Some("microsoft.keyvault/vaults") {
            return Err(ArmError::Refused { message: format!("{id} is not a Key Vault") });
        }
        let answer = match self.send(&Call::get(self.url(id.as_str(), &[API])?)).await {
            Ok(answer) => answer,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let vault: Vault = answer.json()?;
        // Absent means access policies in this version of the API.
        let rbac = vault.properties.enable_rbac_authorization.unwrap_or(false);
        Ok(Some(ObservedTarget { rbac: Some(rbac) }))
    }
}
