//! Built-in roles that workloads are granted, and what they can do on which target.
//!
//! Role definition GUIDs of built-in roles are the same in every tenant and cloud. Source:
//! Microsoft documentation, "Azure built-in roles". Whether a role has data actions, and where,
//! decides if a grant can work at all: a workload that is `Contributor` on a vault can delete the
//! vault and cannot read one secret in it.

use uuid::Uuid;

use super::{ArmId, RoleId, suggest};

/// A built-in role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// The display name.
    pub name: &'static str,
    /// What it lets a workload do.
    pub kind: Kind,
    /// The resource type that it acts on, in lower case; none for roles on everything.
    pub on: Option<&'static str>,
    /// The GUID of its definition.
    pub id: RoleId,
}

/// What a role lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Use the service: read secrets, write blobs, pull images.
    DataPlane,
    /// Manage the resource, without access to what it holds.
    ControlPlane,
    /// Give out access: whoever holds it can get every other role at the scope.
    Privileged,
}

const VAULT: &str = "microsoft.keyvault/vaults";
const STORAGE: &str = "microsoft.storage/storageaccounts";
const SERVICE_BUS: &str = "microsoft.servicebus/namespaces";
const EVENT_HUBS: &str = "microsoft.eventhub/namespaces";
const APP_CONFIGURATION: &str = "microsoft.appconfiguration/configurationstores";
const REGISTRY: &str = "microsoft.containerregistry/registries";
const COSMOS: &str = "microsoft.documentdb/databaseaccounts";
const SQL: &str = "microsoft.sql/servers";
const REDIS: &str = "microsoft.cache/redis";
const COGNITIVE: &str = "microsoft.cognitiveservices/accounts";
const SEARCH: &str = "microsoft.search/searchservices";
const CLUSTER: &str = "microsoft.containerservice/managedclusters";
const IDENTITY: &str = "microsoft.managedidentity/userassignedidentities";

#[expect(clippy::panic, reason = "when it is compiled")]
const fn id(guid: &str) -> RoleId {
    match Uuid::try_parse(guid) {
        Ok(id) => RoleId(id),
        Err(_) => panic!("a role of the table has no GUID"),
    }
}

const fn data(name: &'static str, on: &'static str, guid: &'static str) -> BuiltIn {
    BuiltIn { name, kind: Kind::DataPlane, on: Some(on), id: id(guid) }
}

const fn control(name: &'static str, on: &'static str, guid: &'static str) -> BuiltIn {
    BuiltIn { name, kind: Kind::ControlPlane, on: Some(on), id: id(guid) }
}

const fn anywhere(name: &'static str, kind: Kind, guid: &'static str) -> BuiltIn {
    BuiltIn { name, kind, on: None, id: id(guid) }
}

/// The table. `AcrPull` and its kin and `Storage Blob Delegator` have management actions only by
/// the letter; they are what a workload needs to use the service, so they count as data plane.
pub const BUILT_IN: &[BuiltIn] = &[
    anywhere("Owner", Kind::Privileged, "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"),
    anywhere("Contributor", Kind::ControlPlane, "b24988ac-6180-42a0-ab88-20f7382dd24c"),
    anywhere("Reader", Kind::ControlPlane, "acdd72a7-3385-48ef-bd42-f606fba81ae7"),
    anywhere("User Access Administrator", Kind::Privileged, "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"),
    anywhere(
        "Role Based Access Control Administrator",
        Kind::Privileged,
        "f58310d9-a9f6-439a-9e8d-f62e7b41a168",
    ),
    anywhere(
        "Monitoring Metrics Publisher",
        Kind::DataPlane,
        "3913510d-42f4-4e42-8a64-420c390055eb",
    ),
    control("Key Vault Contributor", VAULT, "f25e0fa2-a7c8-4377-a976-54943a77a395"),
    data("Key Vault Administrator", VAULT, "00482a5a-887f-4fb3-b363-3b7fe8e74483"),
    data("Key Vault Reader", VAULT, "21090545-7ca7-4776-b22c-e363652d74d2"),
    BuiltIn {
        name: "Key Vault Data Access Administrator",
        kind: Kind::Privileged,
        on: Some(VAULT),
        id: id("8b54135c-b56d-4d72-a534-26097cfdc8d8"),
    },
    data("Key Vault Secrets User", VAULT, "4633458b-17de-408a-b874-0445c86b69e6"),
    data("Key Vault Secrets Officer", VAULT, "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"),
    data("Key Vault Crypto User", VAULT, "12338af0-0e69-4776-bea7-57ae8d297424"),
    data("Key Vault Crypto Officer", VAULT, "14b46e9e-c2b7-41b4-b07b-48a6ebf60603"),
    data("Key Vault Crypto Service Encryption User", VAULT, "e147488a-f6f5-4113-8e2d-b22465e65bf6"),
    data("Key Vault Crypto Service Release User", VAULT, "08bbd89e-9f13-488c-ac41-acfcb10c90ab"),
    data("Key Vault Certificate User", VAULT, "db79e9a7-68ee-4b58-9aeb-b90e7c24fcba"),
    data("Key Vault Certificates Officer", VAULT, "a4417e6f-fecd-4de8-b567-7b0420556985"),
    control("Storage Account Contributor", STORAGE, "17d1049b-9a84-46fb-8f53-869881c3d3ab"),
    data("Storage Blob Data Reader", STORAGE, "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"),
    data("Storage Blob Data Contributor", STORAGE, "ba92f5b4-2d11-453d-a403-e96b0029c9fe"),
    data("Storage Blob Data Owner", STORAGE, "b7e6dc6d-f1e8-4753-8033-0f276bb0955b"),
    data("Storage Blob Delegator", STORAGE, "db58b8e5-c6ad-4a2a-8342-4190687cbf4a"),
    data("Storage Queue Data Reader", STORAGE, "19e7f393-937e-4f77-808e-94535e297925"),
    data("Storage Queue Data Contributor", STORAGE, "974c5e8b-45b9-4653-ba55-5f855dd0fb88"),
    data("Storage Queue Data Message Processor", STORAGE, "8a0f0c08-91a1-4084-bc3d-661d67233fed"),
    data("Storage Queue Data Message Sender", STORAGE, "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a"),
    data("Storage Table Data Reader", STORAGE, "76199698-9eea-4c19-bc75-cec21354c6b6"),
    data("Storage Table Data Contributor", STORAGE, "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3"),
    data("Storage File Data SMB Share Reader", STORAGE, "aba4ae5f-2193-4029-9191-0cb91df5e314"),
    data(
        "Storage File Data SMB Share Contributor",
        STORAGE,
        "0c867c2a-1d8c-454a-a3db-ab2ea1bdc8bb",
    ),
    data("Storage File Data Privileged Reader", STORAGE, "b8eda974-7b85-4f76-af95-65846b26df6d"),
    data(
        "Storage File Data Privileged Contributor",
        STORAGE,
        "69566ab7-960f-475b-8e7c-b3118f30c6bd",
    ),
    data("Azure Service Bus Data Owner", SERVICE_BUS, "090c5cfd-751d-490a-894a-3ce6f1109419"),
    data("Azure Service Bus Data Receiver", SERVICE_BUS, "4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0"),
    data("Azure Service Bus Data Sender", SERVICE_BUS, "69a216fc-b8fb-44d8-bc22-1f3c2cd27a39"),
    data("Azure Event Hubs Data Owner", EVENT_HUBS, "f526a384-b230-433a-b45c-95f59c4a2dec"),
    data("Azure Event Hubs Data Receiver", EVENT_HUBS, "a638d3c7-ab3a-418d-83e6-5f17a39d4fde"),
    data("Azure Event Hubs Data Sender", EVENT_HUBS, "2b629674-e913-4c01-ae53-ef4638d8f975"),
    anywhere("EventGrid Data Sender", Kind::DataPlane, "d5a91429-5739-47e2-a06b-3470a27159e7"),
    data(
        "App Configuration Data Reader",
        APP_CONFIGURATION,
        "516239f1-63e1-4d78-a4de-a74fb236a071",
    ),
    data("App Configuration Data Owner", APP_CONFIGURATION, "5ae67dd6-50cb-40e7-96ff-dc2bfa4b606b"),
    data("AcrPull", REGISTRY, "7f951dda-4ed3-4680-a7ca-43fe172d538d"),
    data("AcrPush", REGISTRY, "8311e382-0749-4cb8-b61a-304f252e45ec"),
    data("AcrDelete", REGISTRY, "c2f4ef07-c644-48eb-af81-4b1b4947fb11"),
    data("Container Registry Repository Reader", REGISTRY, "b93aa761-3e63-49ed-ac28-beffa264f7ac"),
    data("Container Registry Repository Writer", REGISTRY, "2a1e307c-b015-4ebd-883e-5b7698a07328"),
    control("DocumentDB Account Contributor", COSMOS, "5bd9cd88-fe45-4216-938b-f97437e15450"),
    control("Cosmos DB Account Reader Role", COSMOS, "fbdf93bf-df7d-467e-a4d2-9458aa1360c8"),
    control("Cosmos DB Operator", COSMOS, "230815da-be43-4aae-9cb4-875f7bd000aa"),
    control("SQL Server Contributor", SQL, "6d8ee4ec-f05a-4a1d-8b00-a9b17e38b437"),
    control("SQL DB Contributor", SQL, "9b7fa17d-e63e-47b0-bb0a-15c516ac86ec"),
    control("Redis Cache Contributor", REDIS, "e0f68234-74aa-48ed-b826-c38b57376e17"),
    data("Cognitive Services OpenAI User", COGNITIVE, "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd"),
    data(
        "Cognitive Services OpenAI Contributor",
        COGNITIVE,
        "a001fd3d-188f-4b5d-821b-7da978bf7442",
    ),
    data("Cognitive Services User", COGNITIVE, "a97b65f3-24c7-4388-baec-2e87135dc908"),
    data("Search Index Data Reader", SEARCH, "1407120a-92aa-4202-b7e9-c0e197c71c8f"),
    data("Search Index Data Contributor", SEARCH, "8ebe5a00-799e-43f5-93ac-243d3dce84a7"),
    control("Managed Identity Contributor", IDENTITY, "e40ec5ca-96e0-45a2-b4ff-59039f2c2b59"),
    control("Managed Identity Operator", IDENTITY, "f1a07417-d97a-45cb-824c-7a7467783830"),
    control(
        "Azure Kubernetes Service Cluster User Role",
        CLUSTER,
        "4abbcc35-e782-43d8-92c5-2d3f1bd2253f",
    ),
    control(
        "Azure Kubernetes Service Cluster Admin Role",
        CLUSTER,
        "0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8",
    ),
    control(
        "Azure Kubernetes Service Contributor Role",
        CLUSTER,
        "ed7f3fbd-7b88-4dd4-9017-9adb7ce333f8",
    ),
    data("Azure Kubernetes Service RBAC Admin", CLUSTER, "3498e952-d568-435e-9b2c-8d77e338d7f7"),
    data(
        "Azure Kubernetes Service RBAC Cluster Admin",
        CLUSTER,
        "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b",
    ),
    data("Azure Kubernetes Service RBAC Reader", CLUSTER, "7f6c6a51-bcf8-42ba-9220-52d62157d7db"),
    data("Azure Kubernetes Service RBAC Writer", CLUSTER, "a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb"),
];

/// The built-in role of this display name; case does not count, as in Azure.
pub fn by_name(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|role| role.name.eq_ignore_ascii_case(name))
}

/// The built-in role with this GUID.
pub fn by_id(id: RoleId) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|role| role.id == id)
}

/// The built-in role that a name most likely meant: up to three letters wrong, the word `Data` or
/// `Azure` or `Role` left out or added, or the words written together. Stricter than for keys, since
/// a name that is near to none is taken as a custom role.
pub fn meant_by(name: &str) -> Option<&'static BuiltIn> {
    let plain = |text: &str| {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        let kept = words
            .map(str::to_ascii_lowercase)
            .filter(|word| !matches!(word.as_str(), "data" | "azure" | "role"));
        kept.collect::<String>()
    };
    let wanted = plain(name);
    let same = BUILT_IN.iter().find(|role| !wanted.is_empty() && plain(role.name) == wanted);
    // Short names are words of their own: `Writer` is not a misspelt `Reader`.
    let within = match name.chars().count() {
        0..=4 => 0,
        5..=12 => 1,
        13..=20 => 2,
        _ => 3,
    };
    let near = || suggest::nearest(name, BUILT_IN.iter().map(|role| role.name), within);
    same.or_else(|| near().and_then(by_name))
}

/// The resource type of a target, in lower case, without the types of children:
/// `microsoft.keyvault/vaults` for a secret in a vault.
fn root_type(target: &ArmId) -> Option<String> {
    let full = target.resource_type()?;
    let mut parts = full.split('/');
    Some(format!("{}/{}", parts.next()?, parts.next()?))
}

/// Why a role does nothing for a workload at a target, and what would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// The service keeps its own access lists; no ARM role gives access to its data.
    NotByRoles {
        /// The service, for example `Azure SQL`.
        service: &'static str,
        /// How access is given there.
        instead: &'static str,
    },
    /// The role manages the resource and does not open its data; these do.
    ControlPlaneOnly {
        /// The built-in data roles that are most likely meant, best first.
        instead: Vec<&'static str>,
    },
    /// The role acts on another kind of resource.
    OtherService {
        /// The resource type it acts on.
        acts_on: &'static str,
        /// Data roles of the target, best first; may be empty.
        instead: Vec<&'static str>,
    },
}

/// Services whose data plane does not ask ARM role assignments, by prefix of the resource type.
/// Sources: Microsoft documentation, "Use data plane role-based access control with Azure Cosmos
/// DB for `NoSQL`", "Microsoft Entra authentication for Azure SQL", the same for `PostgreSQL` and
/// `MySQL` flexible server, "Managed HSM local RBAC built-in roles", and "Use Microsoft Entra for
/// cache authentication".
const NOT_BY_ROLES: &[(&str, &str, &str)] = &[
    (
        COSMOS,
        "Cosmos DB",
        "its data plane has role assignments of its own: \
         `az cosmosdb sql role assignment create --role-definition-id \
         00000000-0000-0000-0000-000000000002 --principal-id …`",
    ),
    (
        "microsoft.sql/",
        "Azure SQL",
        "its users are made in the database: `CREATE USER [<identity>] FROM EXTERNAL PROVIDER`",
    ),
    (
        "microsoft.dbforpostgresql/",
        "Azure Database for PostgreSQL",
        "its users are made in the database: `select * from \
         pgaadauth_create_principal('<identity>', false, false)`",
    ),
    (
        "microsoft.dbformysql/",
        "Azure Database for MySQL",
        "its users are made in the database: `CREATE AADUSER '<identity>' IDENTIFIED BY \
         '<client id>'`",
    ),
    (
        "microsoft.keyvault/managedhsms",
        "Managed HSM",
        "it has role assignments of its own: `az keyvault role assignment create --hsm-name …`",
    ),
    (
        REDIS,
        "Azure Cache for Redis",
        "its users are access policy assignments of the cache: \
         `az redis access-policy-assignment create`",
    ),
];

/// Whether the target's service keeps its own access lists; its name and what to do instead.
pub fn not_by_roles(target: &ArmId) -> Option<(&'static str, &'static str)> {
    let kind = target.resource_type()?;
    let found = NOT_BY_ROLES.iter().find(|(prefix, _, _)| {
        let rest = kind.strip_prefix(prefix);
        rest.is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
    });
    found.map(|(_, service, instead)| (*service, *instead))
}

/// The data roles that a role most likely stands for at a target; empty where ARM knows no data
/// roles for it, or where management roles open the data too (a registry's images).
fn data_roles(role: &BuiltIn, target: &ArmId) -> Vec<&'static str> {
    let reads = role.name.contains("Reader");
    let kind = target.resource_type().unwrap_or_default();
    let (reader, writer): (&[&'static str], &[&'static str]) = match root_type(target).as_deref() {
        Some(VAULT) if kind.ends_with("/keys") => {
            (&["Key Vault Crypto User"], &["Key Vault Crypto User"])
        }
        Some(VAULT) => {
            (&["Key Vault Secrets User"], &["Key Vault Secrets User", "Key Vault Secrets Officer"])
        }
        Some(STORAGE) if kind.contains("/queueservices") => (
            &["Storage Queue Data Reader"],
            &["Storage Queue Data Contributor", "Storage Queue Data Message Sender"],
        ),
        Some(STORAGE) if kind.contains("/tableservices") => {
            (&["Storage Table Data Reader"], &["Storage Table Data Contributor"])
        }
        Some(STORAGE) => (&["Storage Blob Data Reader"], &["Storage Blob Data Contributor"]),
        Some(SERVICE_BUS) => (
            &["Azure Service Bus Data Receiver"],
            &["Azure Service Bus Data Sender", "Azure Service Bus Data Receiver"],
        ),
        Some(EVENT_HUBS) => (
            &["Azure Event Hubs Data Receiver"],
            &["Azure Event Hubs Data Sender", "Azure Event Hubs Data Receiver"],
        ),
        Some(APP_CONFIGURATION) => {
            (&["App Configuration Data Reader"], &["App Configuration Data Owner"])
        }
        Some(SEARCH) => (&["Search Index Data Reader"], &["Search Index Data Contributor"]),
        Some(COGNITIVE) => (
            &["Cognitive Services User", "Cognitive Services OpenAI User"],
            &["Cognitive Services User", "Cognitive Services OpenAI User"],
        ),
        _ => (&[], &[]),
    };
    if reads { reader.to_vec() } else { writer.to_vec() }
}

/// Whether a role opens the data of a target's service.
pub fn opens(role: &BuiltIn, target: &ArmId) -> bool {
    role.kind == Kind::DataPlane
        && role.on.is_none_or(|acts_on| root_type(target).as_deref() == Some(acts_on))
}

/// Whether a built-in role does nothing for a workload that wants to use the target. `None`: it
/// works, or nothing is known. Scopes above a resource (groups, subscriptions) always pass.
pub fn misfit(role: &BuiltIn, target: &ArmId) -> Option<Misfit> {
    let on = root_type(target)?;
    if let Some((service, instead)) = not_by_roles(target) {
        return Some(Misfit::NotByRoles { service, instead });
    }
    let instead = data_roles(role, target);
    if let Some(acts_on) = role.on.filter(|acts_on| *acts_on != on) {
        return Some(Misfit::OtherService { acts_on, instead });
    }
    let manages = matches!(role.kind, Kind::ControlPlane | Kind::Privileged);
    (manages && !instead.is_empty()).then_some(Misfit::ControlPlaneOnly { instead })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn target(kind: &str) -> ArmId {
        ArmId::new(format!(
            "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg/providers/{kind}"
        ))
    }

    fn role(name: &str) -> &'static BuiltIn {
        by_name(name).unwrap()
    }

    #[test]
    fn every_guid_and_name_is_unique() {
        let ids: BTreeSet<RoleId> = BUILT_IN.iter().map(|role| role.id).collect();
        let names: BTreeSet<&str> = BUILT_IN.iter().map(|role| role.name).collect();
        assert_eq!((ids.len(), names.len()), (BUILT_IN.len(), BUILT_IN.len()));
        assert!(BUILT_IN.iter().all(|role| by_id(role.id) == Some(role)));
    }

    #[test]
    fn names_are_found_without_case_and_nearly_so() {
        assert_eq!(role("key vault secrets user").name, "Key Vault Secrets User");
        for (written, meant) in [
            ("Key Vault Secret User", "Key Vault Secrets User"),
            ("KeyVaultSecretsUser", "Key Vault Secrets User"),
            ("Storage Blob Contributor", "Storage Blob Data Contributor"),
            ("Service Bus Data Sender", "Azure Service Bus Data Sender"),
            ("Cosmos DB Account Reader", "Cosmos DB Account Reader Role"),
            ("Contributer", "Contributor"),
        ] {
            assert_eq!(meant_by(written).map(|role| role.name), Some(meant), "{written}");
        }
        for custom in ["Contoso Billing Reader", "Cognitive Services Speech User", "Writer", ""] {
            assert_eq!(meant_by(custom), None, "{custom}");
        }
    }

    #[test]
    fn a_management_role_on_data_names_the_data_role() {
        let vault = target("Microsoft.KeyVault/vaults/kv");
        for name in ["Reader", "Contributor", "Owner", "Key Vault Contributor"] {
            let Some(Misfit::ControlPlaneOnly { instead }) = misfit(role(name), &vault) else {
                panic!("{name} passed");
            };
            assert_eq!(instead[0], "Key Vault Secrets User");
        }
        assert_eq!(misfit(role("Key Vault Secrets User"), &vault), None);
        let queue = target("Microsoft.Storage/storageAccounts/s/queueServices/default/queues/q");
        assert_eq!(
            misfit(role("Reader"), &queue),
            Some(Misfit::ControlPlaneOnly { instead: vec!["Storage Queue Data Reader"] })
        );
    }

    #[test]
    fn a_role_of_another_service_does_nothing() {
        let store = target("Microsoft.Storage/storageAccounts/s");
        assert!(matches!(
            misfit(role("Key Vault Secrets User"), &store),
            Some(Misfit::OtherService { acts_on: VAULT, .. })
        ));
    }

    #[test]
    fn databases_keep_their_own_lists() {
        for kind in [
            "Microsoft.DocumentDB/databaseAccounts/c",
            "Microsoft.Sql/servers/s/databases/d",
            "Microsoft.Sql/managedInstances/m",
            "Microsoft.DBforPostgreSQL/flexibleServers/p",
            "Microsoft.DBforMySQL/flexibleServers/m",
            "Microsoft.Cache/redis/r",
        ] {
            assert!(not_by_roles(&target(kind)).is_some(), "{kind}");
        }
        assert_eq!(not_by_roles(&target("Microsoft.Cache/redisEnterprise/r")), None);
    }

    #[test]
    fn a_scope_above_resources_passes() {
        let group =
            ArmId::new("/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg");
        assert_eq!(misfit(role("Contributor"), &group), None);
    }
}
