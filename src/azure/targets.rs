//! Target resources, as far as their settings decide whether a role means anything.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    arm::{Arm, Call},
    disposition::Context,
    error::ArmError,
};
use crate::model::{ArmId, PrincipalId, SubscriptionId, snapshot::ObservedTarget};

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
    #[serde(default)]
    access_policies: Option<Vec<AccessPolicy>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccessPolicy {
    object_id: String,
}

impl Vault {
    fn observe(&self) -> ObservedTarget {
        let policies = self.properties.access_policies.iter().flatten();
        ObservedTarget {
            // Absent means access policies in this version of the API.
            rbac: Some(self.properties.enable_rbac_authorization.unwrap_or(false)),
            policies: policies
                .filter_map(|policy| policy.object_id.parse().ok())
                .collect::<Vec<PrincipalId>>(),
        }
    }
}

impl Arm {
    /// The settings of every Key Vault of a subscription.
    pub async fn targets_in(
        &self,
        subscription: SubscriptionId,
    ) -> Result<BTreeMap<ArmId, ObservedTarget>, ArmError> {
        #[derive(Deserialize)]
        struct Listed {
            id: ArmId,
            #[serde(flatten)]
            vault: Vault,
        }
        let path = format!("/subscriptions/{subscription}/providers/Microsoft.KeyVault/vaults");
        let list: Vec<Listed> = self.list(self.url(&path, &[API])?, Context::default()).await?;
        Ok(list.into_iter().map(|listed| (listed.id, listed.vault.observe())).collect())
    }

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
        Ok(Some(answer.json::<Vault>()?.observe()))
    }
}
