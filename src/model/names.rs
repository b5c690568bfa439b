//! Deterministic names: what a thing is called follows from what it is, so that no state file is
//! needed to find it again.

use std::{collections::BTreeMap, ops::RangeInclusive};

use sha2::{Digest as _, Sha256};
use uuid::{Uuid, uuid};

use super::{
    AccountName, ArmId, Audience, ClientId, Namespace, PrincipalId, Project, RoleId, TenantId,
};

/// The UUIDv5 namespace of role assignment names. Changing it would orphan every assignment made.
const ROLE_ASSIGNMENTS: Uuid = uuid!("5b6a1f0e-8d3c-4f5a-9a57-77696465746e");

/// The annotation on an object's own metadata that says which project manages fields on it.
pub const PROJECT_ANNOTATION: &str = "widentity.dev/project";
/// The label of a pod that is made to prove a chain and removed again; its value stands for the
/// project and the account.
pub const PROOF_LABEL: &str = "widentity.dev/proof";
/// The pod-template annotation whose change starts a rollout.
pub const CHAIN_ANNOTATION: &str = "widentity.dev/chain";
/// The tag on an identity that names its project.
pub const PROJECT_TAG: &str = "widentity-project";
/// The tag on an identity that names the configuration it came from.
pub const SOURCE_TAG: &str = "widentity-source";
/// The tag that protects an identity from deletion even when the file forgot it.
pub const PROTECT_TAG: &str = "widentity-protect";
/// The pod label that the workload identity webhook selects by; only the value `true` counts.
pub const USE_LABEL: &str = "azure.workload.identity/use";

/// Whether the webhook mutates a pod with these labels.
pub fn asks_for_injection(labels: &BTreeMap<String, String>) -> bool {
    labels.get(USE_LABEL).is_some_and(|value| value == "true")
}
/// Service-account annotation: the identity's client id.
pub const CLIENT_ID_ANNOTATION: &str = "azure.workload.identity/client-id";
/// Service-account annotation: the identity's tenant.
pub const TENANT_ID_ANNOTATION: &str = "azure.workload.identity/tenant-id";
/// Service-account or pod annotation: the federated token's lifetime in seconds.
pub const EXPIRATION_ANNOTATION: &str = "azure.workload.identity/service-account-token-expiration";
/// Pod annotation: the webhook adds the migration sidecar, which answers requests for the metadata
/// endpoint inside the pod. Its presence counts, whatever the value.
pub const PROXY_ANNOTATION: &str = "azure.workload.identity/inject-proxy-sidecar";
/// The container that the webhook adds for [`PROXY_ANNOTATION`].
pub const PROXY_CONTAINER: &str = "azwi-proxy";
/// The lifetime the webhook uses when nothing is annotated, in seconds.
pub const DEFAULT_EXPIRATION: u32 = 3600;
/// The lifetimes the webhook takes, in seconds; it refuses pods with any other.
pub const EXPIRATIONS: RangeInclusive<u32> = 3600..=86_400;
/// The shortest lifetime that Kubernetes gives a token, in seconds.
///
/// Source: Kubernetes API reference, `TokenRequest` v1.
pub const SHORTEST_TOKEN: u32 = 600;
/// Azure takes no more federated credentials on one identity.
///
/// Source: Microsoft Entra documentation, "Important considerations and restrictions for federated
/// identity credentials".
pub const MOST_CREDENTIALS: usize = 20;
/// The credential that AKS identity bindings keep on an identity; never ours to touch.
pub const IDENTITY_BINDING_CREDENTIAL: &str = "aks-identity-binding";
/// The default template of identity names.
pub const DEFAULT_IDENTITY_NAME: &str = "wi_{project}_{namespace}_{service_account}";
/// Azure takes 3 to 128 characters for an identity's name.
const MAX_IDENTITY_NAME: usize = 128;

fn hex(bytes: &[u8], digits: usize) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.truncate(digits);
    text
}

/// The first `digits` hex digits of the SHA-256 of `text`.
pub fn sha256_hex(text: &str, digits: usize) -> String {
    hex(&Sha256::digest(text.as_bytes()), digits)
}

/// The value of [`PROOF_LABEL`] on pods that prove an account for a project: label values are short
/// and begin with a letter or digit, which neither part needs to.
pub fn proof_mark(project: &Project, namespace: &Namespace, account: &AccountName) -> String {
    sha256_hex(&format!("{project}\0{namespace}\0{account}"), 16)
}

/// The Kubernetes field manager of a project.
pub fn field_manager(project: &Project) -> String {
    format!("widentity-{project}")
}

/// The name of the federated credential of an account in a cluster. The issuer is not part of it:
/// a rebuilt cluster updates the credential in place.
pub fn federated_credential(
    project: &Project,
    cluster: &ArmId,
    namespace: &Namespace,
    account: &AccountName,
) -> String {
    let whose = sha256_hex(project.as_str(), 8);
    let what = sha256_hex(&format!("{}\0{namespace}\0{account}", cluster.key()), 16);
    format!("wi-{whose}-{what}")
}

/// The prefix of every federated credential name of a project.
pub fn federated_credential_prefix(project: &Project) -> String {
    format!("wi-{}-", sha256_hex(project.as_str(), 8))
}

/// The name of a role assignment: UUIDv5 over the lower-cased
/// `scope|principal id|role GUID|project`.
pub fn role_assignment(
    scope: &ArmId,
    principal: PrincipalId,
    role: RoleId,
    project: &Project,
) -> Uuid {
    let text = format!("{}|{principal}|{role}|{project}", scope.key()).to_lowercase();
    Uuid::new_v5(&ROLE_ASSIGNMENTS, text.as_bytes())
}

/// The description that marks a role assignment as a project's.
pub fn role_assignment_description(project: &Project) -> String {
    format!("managed by widentity; project={project}")
}

/// The default name of an identity. `{project}`, `{namespace}` and `{service_account}` are
/// replaced; characters that Azure refuses become `-`; a name that was changed so, or that is
/// longer than 128, ends in 16 hex digits of the SHA-256 of the name as it would have been.
pub fn identity(
    template: &str,
    project: &Project,
    namespace: &Namespace,
    account: &AccountName,
) -> String {
    let wanted = template
        .replace("{project}", project.as_str())
        .replace("{namespace}", namespace.as_str())
        .replace("{service_account}", account.as_str());
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let cleaned: String = wanted.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    if cleaned == wanted && cleaned.len() <= MAX_IDENTITY_NAME {
        return cleaned;
    }
    let head: String = cleaned.chars().take(111).collect();
    format!("{head}-{}", sha256_hex(&wanted, 16))
}

/// The chain value: what a pod template carries so that a change of identity rolls its pods.
/// `round` above zero is appended when the same chain must roll again.
pub fn chain_value(
    client: ClientId,
    tenant: TenantId,
    audience: &Audience,
    expiration: u32,
    account: &AccountName,
    round: u32,
) -> String {
    let text = format!("{client}\0{tenant}\0{audience}\0{expiration}\0{account}");
    let hash = sha256_hex(&text, 16);
    if round == 0 { hash } else { format!("{hash}-{round}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_frozen() {
        let project = Project::from("payments-prod");
        let (namespace, account) = (Namespace::from("payments"), AccountName::from("payments-api"));
        let cluster = ArmId::new("/subscriptions/S/resourceGroups/R/providers/P/managedClusters/C");
        let name = federated_credential(&project, &cluster, &namespace, &account);
        // Computed elsewhere by the definition: what is out there was made with these.
        assert_eq!(name, "wi-3af9dcdb-c8be6de1e68a68db");
        assert!(name.starts_with(&federated_credential_prefix(&project)));
        let upper = ArmId::new(cluster.as_str().to_uppercase());
        assert_eq!(name, federated_credential(&project, &upper, &namespace, &account));
        assert_eq!(
            identity(DEFAULT_IDENTITY_NAME, &project, &namespace, &account),
            "wi_payments-prod_payments_payments-api"
        );
    }

    #[test]
    fn the_chain_value_is_frozen() {
        let client: ClientId = "11111111-1111-1111-1111-111111111111".parse().unwrap();
        let tenant: TenantId = "22222222-2222-2222-2222-222222222222".parse().unwrap();
        let account = AccountName::from("payments-api");
        let value =
            |round| chain_value(client, tenant, &Audience::default(), 3600, &account, round);
        // Another one would roll every pod of every user.
        assert_eq!(value(0), "9bdf3b727f3f480f");
        assert_ne!(value(0), value(1));
    }

    #[test]
    fn a_cleaned_or_long_identity_name_keeps_a_hash_of_the_wanted_one() {
        let project = Project::from("p");
        let dotted = |a: &str| {
            identity(DEFAULT_IDENTITY_NAME, &project, &Namespace::from("n"), &AccountName::from(a))
        };
        assert_ne!(dotted("a.b"), dotted("a-b"));
        assert_eq!(dotted("a-b"), "wi_p_n_a-b");
        let long = dotted(&"x".repeat(253));
        assert_eq!(long.len(), 128);
    }

    #[test]
    fn a_role_assignment_is_named_without_regard_to_case() {
        let principal: PrincipalId = "11111111-1111-1111-1111-111111111111".parse().unwrap();
        let role: RoleId = "4633458b-17de-408a-b874-0445c86b69e6".parse().unwrap();
        let project = Project::from("p");
        let name = |scope: &str| role_assignment(&ArmId::new(scope), principal, role, &project);
        assert_eq!(name("/subscriptions/A").to_string(), "0c70efd3-657b-5e9f-8040-3f1dd22aabf6");
        assert_eq!(name("/subscriptions/A"), name("/SUBSCRIPTIONS/a"));
        assert_ne!(name("/subscriptions/A"), name("/subscriptions/B"));
    }
}
