//! User-assigned identities and their federated credentials.

use std::collections::BTreeMap;

use azure_core::http::Method;
use serde::Deserialize;
use serde_json::json;

use super::{
    arm::{Arm, Call},
    disposition::{Asked, Context},
    error::ArmError,
};
use crate::model::{
    ArmId, Audience, ClientId, Issuer, PrincipalId, Subject, SubscriptionId, TenantId,
    snapshot::{ObservedCredential, ObservedIdentity},
};

/// Generally available since 2023, the first with federated credentials outside previews. Newer
/// ones add properties that widentity neither reads nor writes; PATCH leaves them alone.
///
/// Source: the `Microsoft.ManagedIdentity` specifications in Azure/azure-rest-api-specs.
const API: (&str, &str) = ("api-version", "2023-01-31");
/// Source: the `Microsoft.Resources` specifications in Azure/azure-rest-api-specs.
const RESOURCES_API: (&str, &str) = ("api-version", "2021-04-01");

const KIND: &str = "providers/Microsoft.ManagedIdentity/userAssignedIdentities";

#[derive(Deserialize)]
struct Identity {
    id: String,
    #[serde(default)]
    location: String,
    tags: Option<BTreeMap<String, String>>,
    properties: IdentityProperties,
}

#[derive(Deserialize)]
struct IdentityProperties {
    #[serde(rename = "tenantId")]
    tenant: TenantId,
    #[serde(rename = "principalId")]
    principal: PrincipalId,
    #[serde(rename = "clientId")]
    client: ClientId,
}

impl From<Identity> for ObservedIdentity {
    fn from(identity: Identity) -> Self {
        Self {
            id: ArmId::new(identity.id),
            client_id: identity.properties.client,
            principal_id: identity.properties.principal,
            tenant_id: identity.properties.tenant,
            location: identity.location,
            tags: identity.tags.unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
struct Credential {
    name: String,
    #[serde(default)]
    properties: CredentialProperties,
}

/// A flexible credential, a preview, has an expression in place of the subject.
#[derive(Deserialize, Default)]
#[serde(default)]
struct CredentialProperties {
    issuer: Option<String>,
    subject: Option<String>,
    audiences: Option<Vec<String>>,
}

impl From<Credential> for ObservedCredential {
    fn from(credential: Credential) -> Self {
        let properties = credential.properties;
        Self {
            name: credential.name,
            issuer: Issuer(properties.issuer.unwrap_or_default()),
            subject: properties.subject.map(Subject),
            audiences: properties.audiences.unwrap_or_default().into_iter().map(Audience).collect(),
        }
    }
}

/// Absence that the server proves is none; everything else stays an error.
fn present<T>(result: Result<T, ArmError>) -> Result<Option<T>, ArmError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Arm {
    /// Whether the resource group is there.
    pub async fn resource_group_exists(
        &self,
        subscription: SubscriptionId,
        name: &str,
    ) -> Result<bool, ArmError> {
        // HEAD would do, but its 404 has no body, and only the code proves absence.
        let path = format!("subscriptions/{subscription}/resourceGroups/{name}");
        let url = self.url(&path, &[RESOURCES_API])?;
        Ok(present(self.send(&Call::get(url)).await)?.is_some())
    }

    /// Every subscription that may be read.
    ///
    /// Source: the `Microsoft.Resources` specifications in Azure/azure-rest-api-specs.
    pub async fn subscriptions(&self) -> Result<Vec<SubscriptionId>, ArmError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Subscription {
            subscription_id: SubscriptionId,
        }
        let url = self.url("subscriptions", &[("api-version", "2022-12-01")])?;
        let list = self.list::<Subscription>(url, Context::default()).await?;
        Ok(list.into_iter().map(|found| found.subscription_id).collect())
    }

    /// Every identity of a resource group; none if the group is not there.
    pub async fn identities_in_group(
        &self,
        subscription: SubscriptionId,
        group: &str,
    ) -> Result<Option<Vec<ObservedIdentity>>, ArmError> {
        let path = format!("subscriptions/{subscription}/resourceGroups/{group}/{KIND}");
        let url = self.url(&path, &[API])?;
        let list = present(self.list::<Identity>(url, Context::default()).await)?;
        Ok(list.map(|list| list.into_iter().map(Into::into).collect()))
    }

    /// Every identity of a subscription.
    pub async fn identities_in(
        &self,
        subscription: SubscriptionId,
    ) -> Result<Vec<ObservedIdentity>, ArmError> {
        let url = self.url(&format!("subscriptions/{subscription}/{KIND}"), &[API])?;
        let list = self.list::<Identity>(url, Context::default()).await?;
        Ok(list.into_iter().map(Into::into).collect())
    }

    /// One identity; none if it, or its group, is not there.
    pub async fn identity(&self, id: &ArmId) -> Result<Option<ObservedIdentity>, ArmError> {
        let call = Call { context: self.read_of(id), ..Call::get(self.url(id.as_str(), &[API])?) };
        let Some(answer) = present(self.send(&call).await)? else {
            return Ok(None);
        };
        Ok(Some(answer.json::<Identity>()?.into()))
    }

    fn read_of(&self, identity: &ArmId) -> Context {
        let asked = if self.made_identity(identity) { Asked::ReadBack } else { Asked::Read };
        Context { asked, ..Context::default() }
    }

    /// Makes an identity. For the rest of the run its id and principal count as new: Entra and
    /// other parts of Azure may need minutes to know them.
    pub async fn create_identity(
        &self,
        id: &ArmId,
        location: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<ObservedIdentity, ArmError> {
        let url = self.url(id.as_str(), &[API])?;
        let body = json!({ "location": location, "tags": tags });
        let answer = self.send(&Call::write(Method::Put, url, body, Asked::WriteIdentity)).await?;
        let identity: ObservedIdentity = answer.json::<Identity>()?.into();
        self.remember(id, identity.principal_id);
        Ok(identity)
    }

    /// Sets an identity's tags to exactly these and leaves every other property alone. The caller
    /// merges: `tags` holds those of others too.
    pub async fn set_identity_tags(
        &self,
        id: &ArmId,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), ArmError> {
        let url = self.url(id.as_str(), &[API])?;
        let body = json!({ "tags": tags });
        self.send(&Call::write(Method::Patch, url, body, Asked::WriteIdentity)).await.map(drop)
    }

    /// The federated credentials of an identity; none if the identity is not there.
    pub async fn credentials(
        &self,
        identity: &ArmId,
    ) -> Result<Option<Vec<ObservedCredential>>, ArmError> {
        let path = format!("{identity}/federatedIdentityCredentials");
        let url = self.url(&path, &[API])?;
        let list = present(self.list::<Credential>(url, self.read_of(identity)).await)?;
        Ok(list.map(|list| list.into_iter().map(Into::into).collect()))
    }

    /// Makes or replaces a federated credential. Two writes on one identity at once are refused by
    /// Azure: the caller holds a lock, and what other programs cause is waited out.
    pub async fn put_credential(
        &self,
        identity: &ArmId,
        credential: &ObservedCredential,
    ) -> Result<(), ArmError> {
        let Some(subject) = &credential.subject else {
            return Err(ArmError::Refused {
                message: "a federated credential without a subject is not written".to_owned(),
            });
        };
        let id = identity.child("federatedIdentityCredentials", &credential.name);
        let url = self.url(id.as_str(), &[API])?;
        let body = json!({ "properties": {
            "issuer": credential.issuer,
            "subject": subject,
            "audiences": credential.audiences,
        }});
        let mut call = Call::write(Method::Put, url, body, Asked::WriteCredential);
        call.context.parent_is_fresh = self.made_identity(identity);
        self.send(&call).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_whatever_else_it_carries() {
        let identity: Identity = serde_json::from_value(json!({
            "location": "westeurope", "tags": null,
            "id": "/subscriptions/s/resourcegroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n",
            "name": "n", "type": "x", "systemData": {},
            "properties": {
                "isolationScope": "Regional",
                "tenantId": "00000000-0000-0000-0000-000000000001",
                "principalId": "00000000-0000-0000-0000-000000000002",
                "clientId": "00000000-0000-0000-0000-000000000003",
            },
        }))
        .unwrap();
        let observed = ObservedIdentity::from(identity);
        assert!(observed.tags.is_empty());
        assert_eq!(observed.client_id.to_string(), "00000000-0000-0000-0000-000000000003");
    }

    #[test]
    fn a_flexible_credential_has_no_subject() {
        let credential: Credential = serde_json::from_value(json!({
            "name": "flex",
            "properties": {
                "issuer": "https://token.actions.githubusercontent.com",
                "claimsMatchingExpression": {"value": "claims['sub'] matches 'x'", "languageVersion": 1},
                "audiences": ["api://AzureADTokenExchange"],
            },
        }))
        .unwrap();
        assert_eq!(ObservedCredential::from(credential).subject, None);
    }
}
