//! Codes of doctor, audit and plan.

use super::catalogue::{Entry, Family};
use crate::diagnose::link::Link;

pub(super) const fn own(
    code: &'static str,
    title: &'static str,
    cause: &'static str,
    next: &'static str,
    link: Option<Link>,
) -> Entry {
    Entry { code, family: Family::Widentity, phrases: &[], title, cause, next, link }
}

#[rustfmt::skip]
pub(super) const ENTRIES: &[Entry] = &[
    own("cluster-not-found", "the cluster does not exist", "The cluster id names no cluster, or one that was deleted.", "az aks list --query \"[].id\" -o tsv", Some(Link::Cluster)),
    own("cluster-stopped", "the cluster is stopped", "A stopped cluster issues no tokens.", "az aks start --resource-group <group> --name <cluster>", Some(Link::Cluster)),
    own("cluster-context-mismatch", "the context belongs to another cluster", "The API server that is talked to is not the cluster of ARM's record: neither its issuer nor its host is the one on record. Commands that write stop here.", "az aks get-credentials, or correct context in [clusters.<name>]", Some(Link::Cluster)),
    own("entra-unreachable", "Entra gave no answer", "The token endpoint could not be reached, from here or from the pod that proves: name resolution, a proxy, a firewall, or another cloud's authority. It says nothing about the chain.", "curl -sS https://login.microsoftonline.com/common/discovery/instance", Some(Link::Exchange)),
    own("cluster-id-unknown", "the cluster's resource in Azure is not known", "No node that may be read leads to it, so ARM's record of the cluster was not compared.", "widentity doctor … --cluster-id /subscriptions/…/managedClusters/NAME", Some(Link::Cluster)),
    own("issuer-off", "the OIDC issuer is off", "Without an issuer Entra has nobody to trust: no pod of the cluster can get a token. Enabling it cannot be undone.", "enable = [\"oidc-issuer\", \"workload-identity\"] in [clusters.<name>], then widentity apply", Some(Link::Issuer)),
    own("issuer-not-used", "the issuer is on and not used yet", "ARM has an issuer, and the API server still issues tokens with its internal name: the update has not finished or went wrong.", "az aks update --resource-group <group> --name <cluster> --yes (without another flag it reconciles the cluster)", Some(Link::Issuer)),
    own("discovery-missing", "the discovery document is not served", "Entra reads <issuer>/.well-known/openid-configuration; it is not there.", "az aks update --resource-group <group> --name <cluster> --yes (without another flag it reconciles the cluster)", Some(Link::Discovery)),
    own("discovery-issuer-differs", "the discovery document names another issuer", "The document and the cluster's record must agree to the byte.", "az aks update --resource-group <group> --name <cluster> --yes (without another flag it reconciles the cluster)", Some(Link::Discovery)),
    own("keys-unreachable", "the key set cannot be fetched", "Entra needs <issuer>/openid/v1/jwks.", "az aks update --resource-group <group> --name <cluster> --yes (without another flag it reconciles the cluster)", Some(Link::Discovery)),
    own("key-not-published", "the token's key is not published", "Keys were rotated a moment ago, or the issuer serves those of another cluster.", "try again; then az aks update --resource-group <group> --name <cluster> --yes", Some(Link::Discovery)),
    own("add-on-off", "the workload identity add-on is off", "No webhook is installed: labelled pods get no token and no environment.", "enable = [\"oidc-issuer\", \"workload-identity\"] in [clusters.<name>], then widentity apply", Some(Link::Webhook)),
    own("webhook-missing", "the add-on is on, its webhook is gone", "The webhook's configuration was deleted from the cluster.", "az aks update --resource-group <group> --name <cluster> --enable-workload-identity", Some(Link::Webhook)),
    own("webhook-installed-twice", "the webhook is installed twice", "Add-on and Helm chart answer for the same pods and overwrite each other's certificates and permissions.", "helm uninstall workload-identity-webhook -n <namespace of the chart>", Some(Link::Webhook)),
    own("webhook-not-ready", "no replica of the webhook is ready", "While it is away labelled pods are refused, or start without an identity where failurePolicy is Ignore.", "kubectl get pods -A -l azure-workload-identity.io/system=true", Some(Link::Webhook)),
    own("webhook-not-answering", "the API server cannot call the webhook", "Its pods are down, a firewall blocks port 9443, or its certificate is not trusted.", "kubectl get pods -A -l azure-workload-identity.io/system=true", Some(Link::Webhook)),
    own("webhook-no-ca-bundle", "the webhook's configuration has no CA bundle", "The API server trusts none of its answers.", "kubectl rollout restart deployment/azure-wi-webhook-controller-manager -n kube-system", Some(Link::Webhook)),
    own("webhook-excludes-namespace", "the webhook does not see the namespace", "Its namespace selector leaves the namespace out, or AKS keeps self-installed webhooks away from it.", "kubectl get mutatingwebhookconfigurations -o yaml", Some(Link::Webhook)),
    own("webhook-selects-otherwise", "the webhook selects other pods", "Its object selector wants labels that the pods do not have.", "kubectl get mutatingwebhookconfigurations -o yaml", Some(Link::Webhook)),
    own("webhook-does-not-inject", "a labelled pod comes back without identity", "A server-side dry run passed the webhook by.", "kubectl get pods -A -l azure-workload-identity.io/system=true", Some(Link::Webhook)),
    own("webhook-tenant-differs", "the webhook writes another tenant", "The account names no tenant, and the webhook's own is not the identity's.", "annotate the account with azure.workload.identity/tenant-id", Some(Link::Annotations)),
    own("webhook-failure-policy", "failurePolicy is Ignore", "While the webhook is away pods start without an identity and nobody notices.", "upgrade the webhook: since 1.0 it is Fail", Some(Link::Webhook)),
    own("webhook-not-used", "the webhook is not used", "The manifest projects the token and sets the environment itself.", "nothing is to be done", Some(Link::Webhook)),
    own("dry-run-denied", "the dry run was refused", "Admission refused the labelled pod of the dry run for a reason of its own.", "read the reason; it may hold for real pods too", Some(Link::Webhook)),
    own("dry-run-not-made", "no dry run was possible", "The permission to create pods (as a dry run) is missing.", "allow create on pods in the namespace: a dry run needs it and makes nothing", Some(Link::Webhook)),
    own("namespace-missing", "the namespace does not exist", "widentity creates no namespaces.", "kubectl create namespace <namespace>", Some(Link::Template)),
    own("template-not-found", "the template does not exist", "The named controller is not in the namespace.", "kubectl get deploy,sts,ds,cronjob -n <namespace>", Some(Link::Template)),
    own("template-not-labelled", "another template of the account is not labelled", "Its pods get no token; that is right if they do not call Azure.", "label it if it calls Azure", Some(Link::Template)),
    own("label-missing", "the pod template has no label", "The webhook sees only pods with azure.workload.identity/use: \"true\".", "add the label to spec.template.metadata.labels", Some(Link::Template)),
    own("label-value-wrong", "the label has another value", "Only exactly \"true\" is matched; \"True\" and true without quotes are not.", "write azure.workload.identity/use: \"true\"", Some(Link::Template)),
    own("label-key-misspelt", "the label's key is misspelt", "The key is azure.workload.identity/use, with dots.", "correct the key in the pod template", Some(Link::Template)),
    own("label-on-controller", "the label is on the controller", "Labels of a Deployment are not those of its pods.", "move it to spec.template.metadata.labels", Some(Link::Template)),
    own("label-on-account", "the label is on the service account", "Webhooks before 1.0 read it there; today only the pod's label counts.", "add the label to spec.template.metadata.labels", Some(Link::Template)),
    own("label-is-annotation", "the label is an annotation", "The webhook selects pods by label.", "move it from annotations to labels", Some(Link::Template)),
    own("label-by-admission", "something adds the label at admission", "The template has none, its pods have.", "nothing is to be done", Some(Link::Template)),
    own("migration-unfinished", "the workload is still on AAD Pod Identity", "The template carries aadpodidbinding and not the workload identity label.", "widentity migrate", Some(Link::Template)),
    own("pod-identity-left-over", "the label of AAD Pod Identity is still there", "While it is, pod identity can hide a broken link.", "take aadpodidbinding off when the new path is proved", Some(Link::Template)),
    own("windows-without-os", "Windows pods without spec.os.name", "Their token volume fails with chown … not supported by windows.", "set spec.os.name: windows", Some(Link::Template)),
    own("virtual-node", "virtual nodes", "Virtual nodes do not support workload identity.", "run the pods on a node pool", Some(Link::Template)),
    own("container-skipped", "no container that calls Azure is injected", "skip-containers lists all but helpers such as proxies.", "take the container out of the list", Some(Link::Template)),
    own("container-left-out", "a container is left out", "skip-containers leaves it without a token; that is right if it does not call Azure.", "take it out of the list if it calls Azure", Some(Link::Template)),
    own("skip-list-separator", "skip-containers is separated by commas", "Names are separated by semicolons.", "write a;b", Some(Link::Template)),
    own("proxy-by-presence", "the proxy annotation counts by its key", "inject-proxy-sidecar: \"false\" injects the sidecar all the same.", "take the annotation away", Some(Link::Template)),
    own("proxy-with-host-network", "proxy and the host's network", "The webhook refuses the sidecar there.", "use a current Azure Identity library", Some(Link::Template)),
    own("proxy-forbidden", "pod security refuses the proxy", "The sidecar's init container is privileged.", "use a current Azure Identity library", Some(Link::Template)),
    own("proxy-on-windows", "the proxy is for Linux only", "Its images have no Windows variant.", "use a current Azure Identity library", Some(Link::Template)),
    own("proxy-in-job", "a job with the proxy sidecar", "Before Kubernetes 1.32 the sidecar keeps it from completing.", "use a current Azure Identity library", Some(Link::Template)),
    own("account-missing", "the service account does not exist", "Pods that name it are refused.", "kubectl create serviceaccount <name> -n <namespace>", Some(Link::Account)),
    own("account-being-deleted", "the service account is being deleted", "Its tokens end with it.", "wait until it is gone", Some(Link::Account)),
    own("account-not-used", "nothing runs as the account", "No template and no pod uses it.", "check serviceAccountName of the template", Some(Link::Account)),
    own("template-uses-other-account", "the template uses another account", "Pods run as an account that names no identity, beside one that does.", "set serviceAccountName in the pod template", Some(Link::Account)),
    own("client-id-missing", "the account names no identity", "Without azure.workload.identity/client-id pods get a token and no client id.", "kubectl annotate serviceaccount <name> azure.workload.identity/client-id=<client id>", Some(Link::Annotations)),
    own("annotation-key-misspelt", "the annotation's key is misspelt", "The key is azure.workload.identity/client-id: dots, and a hyphen before id. Public guides print others.", "kubectl annotate serviceaccount <name> azure.workload.identity/client-id=<client id>", Some(Link::Annotations)),
    own("annotation-is-label", "the annotation is a label", "The webhook reads annotations of the account.", "kubectl annotate serviceaccount <name> azure.workload.identity/client-id=<client id>", Some(Link::Annotations)),
    own("annotation-on-template", "the annotation is on the template", "The webhook reads it from the service account only.", "kubectl annotate serviceaccount <name> azure.workload.identity/client-id=<client id>", Some(Link::Annotations)),
    own("annotation-unknown", "an annotation that nothing reads", "Its key looks like one of workload identity and is none.", "take it away or correct the key", Some(Link::Annotations)),
    own("client-id-empty", "the client id is empty", "The annotation is there without a value.", "az identity show --query clientId", Some(Link::Annotations)),
    own("client-id-padded", "blanks or quotes around the client id", "A line break or quote was pasted with it.", "annotate the bare GUID", Some(Link::Annotations)),
    own("client-id-placeholder", "the client id is a placeholder", "A template was applied without its value.", "az identity show --query clientId", Some(Link::Annotations)),
    own("client-id-is-resource-id", "a resource id instead of the client id", "Entra answers AADSTS700016.", "az identity show --ids <id> --query clientId", Some(Link::Annotations)),
    own("client-id-is-principal-id", "the principal id instead of the client id", "Roles take the principal id, the annotation takes the client id.", "az identity show --query clientId", Some(Link::Annotations)),
    own("client-id-is-tenant-id", "the tenant's id instead of the client id", "The annotation takes the client id of the identity.", "az identity show --query clientId", Some(Link::Annotations)),
    own("client-id-is-subscription-id", "a subscription's id instead of the client id", "The annotation takes the client id of the identity.", "az identity show --query clientId", Some(Link::Annotations)),
    own("client-id-not-a-guid", "the client id is no GUID", "The annotation takes the client id, not a name.", "az identity show --query clientId", Some(Link::Annotations)),
    own("client-id-of-other-identity", "the client id is of another identity", "The file wants another one.", "widentity apply", Some(Link::Annotations)),
    own("client-id-out-of-date", "the client id is out of date", "The identity was deleted and made anew under its name; it has a new client id.", "widentity apply", Some(Link::Annotations)),
    own("client-id-misspelt", "the client id differs by a few characters", "No identity has the client id of the annotation, and one has almost the same.", "kubectl annotate serviceaccount <name> azure.workload.identity/client-id=<client id> --overwrite", Some(Link::Annotations)),
    own("client-id-in-manifest", "the manifest names the client id", "AZURE_CLIENT_ID is set in the manifest; the account names none.", "nothing is to be done", Some(Link::Annotations)),
    own("client-id-unknown", "a client id of no identity that was read", "It may be an application's, or of another subscription, or gone.", "widentity doctor serviceaccount/<name> -n <namespace>", Some(Link::Annotations)),
    own("tenant-id-empty", "the tenant annotation is empty", "Pods get no AZURE_TENANT_ID then.", "take the annotation away or write the tenant", Some(Link::Annotations)),
    own("tenant-id-padded", "blanks around the tenant", "A line break was pasted with it; the webhook writes it into pods as it is, and nothing trims it.", "annotate the bare GUID", Some(Link::Annotations)),
    own("tenant-id-not-a-guid", "the tenant annotation is no GUID", "It takes the tenant's GUID.", "az account show --query tenantId", Some(Link::Annotations)),
    own("tenant-id-differs", "the tenant annotation names another tenant", "Tokens are asked for in a tenant where the identity does not live.", "annotate the identity's tenant", Some(Link::Annotations)),
    own("token-expiration-invalid", "the token lifetime is out of range", "The webhook refuses pods unless it is 3600 to 86400 seconds.", "annotate 3600", Some(Link::Annotations)),
    own("account-label-without-effect", "a label on the account that nothing reads", "Webhooks since 1.0 read the label of the pod only.", "it may be taken off", Some(Link::Annotations)),
    own("pod-not-found", "the pod is gone", "There is no pod of that name (any more).", "kubectl get pods -n <namespace>", Some(Link::Template)),
    own("pod-not-injected", "a labelled pod without identity", "It was made while the webhook was away or before it was installed; running pods are never changed.", "kubectl rollout restart", Some(Link::Pods)),
    own("pod-older-than-label", "the pod is older than the label", "Labels of the template reach pods when they are made.", "kubectl rollout restart", Some(Link::Pods)),
    own("pod-stale", "the pod has old values", "Annotations are read when a pod is made.", "kubectl rollout restart", Some(Link::Pods)),
    own("pod-audience", "the pod's token has another audience", "Its projected token is not for what the credential names.", "use api://AzureADTokenExchange on both sides", Some(Link::Pods)),
    own("pods-refused", "pods cannot be created", "Admission or a quota refuses them.", "kubectl describe replicaset", Some(Link::Pods)),
    own("literal-client-id", "the manifest sets another client id", "The webhook never changes a variable that is set.", "kubectl set env deployment/<name> AZURE_CLIENT_ID-", Some(Link::Pods)),
    own("literal-tenant-id", "the manifest sets another tenant", "The webhook never changes a variable that is set.", "kubectl set env deployment/<name> AZURE_TENANT_ID-", Some(Link::Pods)),
    own("second-identity", "a container acts as another identity", "Its manifest sets AZURE_CLIENT_ID to an identity that trusts the account, too.", "nothing is to be done", Some(Link::Pods)),
    own("authority-other-cloud", "tokens are asked of another cloud", "AZURE_AUTHORITY_HOST of the pods belongs to another cloud of Azure than the cluster: its tenants are not known there.", "take AZURE_AUTHORITY_HOST out of the manifest, or correct AZURE_ENVIRONMENT of the webhook", Some(Link::Pods)),
    own("hard-coded-token-path", "the token's path is written out", "Webhook 1.6 moved the path; the variable always names the right one.", "read AZURE_FEDERATED_TOKEN_FILE", Some(Link::Pods)),
    own("token-path-written-out", "the token's path is written out", "It works until the webhook is 1.6 or later.", "read AZURE_FEDERATED_TOKEN_FILE", Some(Link::Pods)),
    own("secret-beside-federation", "a client secret beside federation", "DefaultAzureCredential tries AZURE_CLIENT_SECRET before the federated token.", "take the secret out when the federated path is proved", Some(Link::Pods)),
    own("provider-class-pod-identity", "SecretProviderClass with usePodIdentity", "Its volume cannot mount without AAD Pod Identity.", "usePodIdentity: \"false\" and clientID", Some(Link::Pods)),
    own("provider-class-no-client-id", "SecretProviderClass without clientID", "The account's annotation is not read there.", "write clientID", Some(Link::Pods)),
    own("provider-class-other-client-id", "SecretProviderClass with another client id", "It asks for an identity that the account does not name.", "write the identity's client id", Some(Link::Pods)),
    own("token-issuer-differs", "tokens have another issuer", "The cluster issues tokens with another name than its record says.", "finish the cluster update, restart pods", Some(Link::Token)),
    own("token-subject-differs", "the token is of another account", "It was asked for another account than the pods use.", "ask for the account that the pods use", Some(Link::Token)),
    own("clock-skew", "a clock is wrong", "Entra refuses tokens from the future or the past.", "set the clock of the nodes", Some(Link::Token)),
    own("identity-not-found", "the identity does not exist", "It was deleted, made anew, or lives elsewhere.", "widentity apply, or az identity list", Some(Link::Identity)),
    own("identity-in-other-tenant", "the identity lives in another tenant", "Tokens are asked for in a tenant where it does not live.", "write tenant for this workload", Some(Link::Identity)),
    own("identity-binding-missing", "the identity has no identity binding", "The pods ask tokens through one.", "az aks identity-binding create", Some(Link::Credential)),
    own("credential-missing", "no credential is for this account", "The identity has federated credentials for others, or none.", "widentity apply, or az identity federated-credential create", Some(Link::Credential)),
    own("credential-issuer-trailing-slash", "the slash at the end of the issuer", "The credential's issuer and the cluster's differ in the last character. Entra compares to the byte.", "widentity apply, or az identity federated-credential update", Some(Link::Credential)),
    own("credential-issuer-case", "the issuer's upper and lower case", "Entra compares with case.", "widentity apply, or az identity federated-credential update", Some(Link::Credential)),
    own("credential-issuer-white-space", "blanks in the issuer", "Blanks or characters that cannot be seen were pasted.", "widentity apply, or az identity federated-credential update", Some(Link::Credential)),
    own("credential-issuer-is-api-server", "the API server's address as issuer", "The issuer is oidcIssuerProfile.issuerUrl, not the address kubectl uses.", "widentity apply, or az identity federated-credential update", Some(Link::Credential)),
    own("credential-issuer-is-document", "a document's address as issuer", "The issuer is what stands before /.well-known.", "widentity apply, or az identity federated-credential update", Some(Link::Credential)),
    own("credential-issuer-is-internal", "the internal name as issuer", "kubernetes.default.svc is nobody Entra can reach.", "widentity apply, or az identity federated-credential update", Some(Link::Credential)),
    own("credential-issuer-other-cluster", "the issuer of another cluster", "Each cluster has its own issuer; a rebuilt one has a new issuer.", "widentity apply, or az identity federated-credential create", Some(Link::Credential)),
    own("credential-issuer-differs", "another issuer", "The credential names an issuer that is not the cluster's.", "widentity apply, or az identity federated-credential update", Some(Link::Credential)),
    own("credential-subject-case", "the subject's upper and lower case", "Entra compares with case since August 2024.", "widentity apply, or az identity federated-credential update", Some(Link::Credential)),
    own("credential-subject-white-space", "blanks in the subject", "Blanks or characters that cannot be seen were pasted.", "widentity apply, or az identity federated-credential update", Some(Link::Credential)),
    own("credential-subject-malformed", "the subject is malformed", "It must be system:serviceaccount:<namespace>:<name>.", "widentity apply, or az identity federated-credential update", Some(Link::Credential)),
    own("credential-subject-account", "another account in the subject", "The account was renamed, or mistyped.", "widentity apply, or az identity federated-credential update", Some(Link::Credential)),
    own("credential-subject-namespace", "another namespace in the subject", "A credential is for one namespace; each needs its own.", "widentity apply, or az identity federated-credential create", Some(Link::Credential)),
    own("credential-subject-differs", "another subject", "The credential is for another account.", "widentity apply, or az identity federated-credential create", Some(Link::Credential)),
    own("credential-audience-differs", "another audience", "Token and credential must name the same.", "widentity apply, or az identity federated-credential update", Some(Link::Credential)),
    own("credential-on-other-identity", "the credential is on another identity", "It matches, and the account names another identity.", "annotate the account with that identity's client id, or move the credential", Some(Link::Credential)),
    own("credential-works-though-it-differs", "Entra accepts a credential that differs", "It forgives less every year.", "correct it", Some(Link::Credential)),
    own("exchange-not-matched", "everything matches and Entra refuses", "New credentials take minutes, and Entra remembers refusals; rarely a record is broken.", "wait; then delete the credential and create it anew", Some(Link::Exchange)),
    own("exchange-other-principal", "the token is for another principal", "The identity was made anew.", "look it up again", Some(Link::Exchange)),
    own("exchange-refused", "Entra refuses the token", "The code says why.", "widentity explain AADSTS<code>", Some(Link::Exchange)),
    own("identity-unknown-to-entra", "Entra does not know the identity", "Wrong tenant, or minutes old.", "check the tenant", Some(Link::Exchange)),
    own("issuer-unreachable-from-entra", "Entra cannot reach the issuer", "It could not read the discovery document or the keys.", "try again; then az aks update", Some(Link::Exchange)),
    own("token-signature", "the signature does not fit", "Keys were rotated, or are another cluster's.", "try again", Some(Link::Exchange)),
    own("tenant-wrong", "tenant or cloud are wrong", "The authority does not know the tenant.", "az account show", Some(Link::Exchange)),
    own("tenant-policy", "a policy of the tenant refuses", "Conditional Access or an app policy.", "ask who manages it", Some(Link::Exchange)),
    own("role-missing", "the role is not assigned", "Federation proves who the workload is; it gives no access.", "widentity apply, or az role assignment create", Some(Link::Role)),
    own("role-other-scope", "the role is assigned elsewhere", "The scope does not cover the target.", "widentity apply, or az role assignment create", Some(Link::Role)),
    own("role-other-principal", "another principal has the role", "It was assigned to another identity, to one that is gone, or to the client id.", "widentity apply, or az role assignment create", Some(Link::Role)),
    own("role-control-plane", "the role does not open data", "Contributor, Reader and Owner manage a resource; its data takes a data role.", "widentity apply, or az role assignment create", Some(Link::Role)),
    own("role-propagating", "the role is minutes old", "Azure takes up to ten minutes to honour it.", "wait", Some(Link::Role)),
    own("role-condition", "the role has a condition", "It covers only some requests.", "az role assignment list", Some(Link::Role)),
    own("role-not-seen", "access without a role that was seen", "It may come by a group.", "nothing is to be done", Some(Link::Role)),
    own("vault-access-policies", "the vault asks access policies", "In this mode role assignments do nothing.", "az keyvault update --enable-rbac-authorization true", Some(Link::Target)),
    own("target-not-found", "the target does not exist", "Its id names nothing.", "correct the id", Some(Link::Target)),
    own("probe-denied", "the data plane denies it", "The role does not cover the operation, or is minutes old.", "az role assignment list", Some(Link::Probe)),
    own("probe-unauthenticated", "the data plane does not accept the token", "Another tenant, or another audience.", "check the target's tenant", Some(Link::Probe)),
    own("credential-issuer-unknown", "issuer of no cluster", "The cluster was rebuilt or deleted, or is foreign.", "az identity federated-credential delete", None),
    own("credential-issuer-variant", "issuer that is almost a cluster's", "It differs in case or blanks.", "az identity federated-credential update", None),
    own("credential-slash", "issuer without its slash", "Entra compares to the byte.", "az identity federated-credential update", None),
    own("credential-variant", "two credentials that differ in case or slash", "At most one of them works.", "az identity federated-credential delete", None),
    own("credential-duplicate", "one account, several identities", "The same subject is trusted by several identities.", "delete all but one", None),
    own("credential-account-gone", "credential of an account that is gone", "Nobody can use it until somebody makes the account.", "az identity federated-credential delete", None),
    own("credential-namespace-gone", "credential of a namespace that is gone", "Whoever makes the namespace gets the identity.", "az identity federated-credential delete", None),
    own("credential-unused", "credential of an account that runs nothing", "No pod and no template uses the account.", "az identity federated-credential delete", None),
    own("credential-not-annotated", "credential beside the annotation", "Its account names another identity.", "delete it unless the program names the client id", None),
    own("credential-audience-unusual", "an unusual audience", "It is not api://AzureADTokenExchange.", "check that the webhook asks for the same", None),
    own("credentials-nearly-full", "an identity is nearly full", "Azure allows 20 federated credentials.", "give workloads identities of their own", None),
    own("identity-unused", "an identity that nothing uses", "It has neither credential nor role, and neither the file, an account nor AAD Pod Identity names it. Virtual machines, scale sets and apps that may have it are not looked at.", "az identity delete, if nothing else has it", None),
    own("identity-shared", "one identity for several namespaces", "What one workload may do all may do, and logs cannot tell them apart.", "give each an identity of its own", None),
    own("ownership-missing", "not managed by widentity", "The identity carries no mark of a project.", "adopt = true in a workload, if widentity should manage it", None),
    own("assignment-orphaned", "a role of nobody", "Its principal was deleted; it counts to the 4,000.", "az role assignment delete", None),
    own("assignment-principal-unknown", "role assignments of unknown principals", "They are of no identity that was read: people, groups, applications, or nobody any more. Only the directory knows, and it is not asked.", "az role assignment list --scope <target> --query \"[?principalName=='']\"", Some(Link::Role)),
    own("role-without-effect", "a role on a vault that asks no roles", "The vault is in access-policy mode: role assignments for its data do nothing.", "az keyvault update --name <vault> --enable-rbac-authorization true", Some(Link::Target)),
    own("policy-without-effect", "an access policy on a vault that asks none", "The vault asks role assignments: its access policies do nothing.", "az keyvault delete-policy --name <vault> --object-id <principal>", Some(Link::Target)),
    own("assignments-nearly-full", "a subscription is nearly full", "Azure allows 4,000 role assignments.", "delete orphaned assignments", None),
    own("role-privileged", "a role that gives out access", "Owner, User Access Administrator and the like.", "assign the data role that is needed", None),
    own("role-too-wide", "Contributor", "It can change and delete resources.", "assign the data role that is needed", None),
    own("role-control-plane-only", "a role that does not open data", "It manages the resource.", "assign a data role", None),
    own("scope-too-wide", "a role on a wide scope", "It covers more than the resource that is used.", "assign it on the resource", None),
    own("annotated-without-label", "annotated account, unlabelled templates", "Its pods get no token.", "label the pod template", None),
    own("label-without-annotation", "labelled template, account without annotation", "Its pods get a token and no client id.", "annotate the account", None),
    own("default-account-annotated", "the default account names an identity", "Every labelled pod without an account of its own gets it.", "make a service account for the workload", None),
    own("token-lifetime-long", "long-lived federated tokens", "A stolen one lives as long.", "leave it at 3600", None),
    own("pod-identity-add-on", "the AAD Pod Identity add-on is on", "Out of support since September 2025.", "widentity migrate", None),
    own("pod-identity-label", "the label of AAD Pod Identity", "A template still carries it.", "widentity migrate", None),
    own("pod-identity-object", "an object of AAD Pod Identity", "Left over.", "widentity migrate", None),
    own("keda-pod-identity", "KEDA with pod identity", "Removed in KEDA 2.15.", "provider: azure-workload", None),
    own("other-project", "another project's object", "It bears the mark of another project.", "take it out of one of the two files", None),
    own("unknown-role", "no such role", "No role of that name exists at the scope.", "az role definition list --query \"[].roleName\"", None),
    own("ambiguous-role", "several roles of that name", "Custom roles may share a name.", "write the role's GUID", None),
    own("wide-scope", "a wide scope", "The grant covers a resource group or more.", "name the resource", None),
    own("privileged-role", "a role that gives out access", "Owner, User Access Administrator and the like.", "use a data role", None),
    own("twenty-credentials", "the identity is full", "Azure allows 20 federated credentials on one identity.", "give the workload an identity of its own", None),
    own("tenant-mismatch", "another tenant", "The identity lives in another tenant than the file's.", "write tenant for the workload", None),
    own("rollout-failed", "the last rollout failed", "The controller gave up; its pods are not all of the present template.", "kubectl rollout status", None),
    own("restarts-with-downtime", "a restart with downtime", "The strategy is Recreate.", "plan for it", None),
    own("migration-sidecar", "pods get the migration sidecar", "With `proxy = true` the webhook adds a sidecar that answers requests to the metadata endpoint. Its init container is privileged, and Microsoft does not support it in production.", "take `proxy` out of the file as soon as the application uses a current SDK", None),
    own("restarts-pods", "pods are restarted", "The change reaches pods only when they are made anew.", "plan for it", None),
    own("resource-group-missing", "the resource group is missing", "Identities need it, and widentity does not make it.", "az group create", None),
    own("look-alike-credential", "a credential that almost matches", "It differs in case, slash or a few letters.", "widentity doctor", None),
    own("literal-environment", "the manifest sets AZURE_ variables", "The webhook never changes a variable that is set.", "take them out of the manifest", None),
    own("identity-taken-over", "an identity is taken over", "It had no mark of ours; adopt = true.", "read the plan", None),
    own("identity-not-ours", "an identity that is not ours", "It exists without our mark.", "adopt = true, or another name", None),
    own("foreign-credential-changed", "a foreign credential is changed", "One under another name is corrected.", "read the plan", None),
    own("foreign-assignment-condition", "a foreign role assignment has a condition", "It exists under another name with another condition.", "delete it or write the same condition", None),
    own("grants-contradict", "two grants are one object", "One role by name and by GUID, with two conditions.", "write one condition", None),
    own("field-taken-over", "a field is taken over", "Another manager set it.", "read the plan", None),
    own("field-manager-conflict", "another manager owns the field", "Helm, Argo CD, Flux or an unknown manager sets it.", "adopt = true, or managed_by = \"git\"", None),
    own("enables-cluster-feature", "a cluster feature is switched on", "It cannot be undone and restarts the control plane.", "read the plan", None),
];

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        path::{Path, PathBuf},
    };

    use crate::diagnose::explain::catalogue;

    fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, into);
            } else {
                into.push(path);
            }
        }
    }

    /// Words in kebab case that are no codes: names of things in the world.
    const NAMES: [&str; 23] = [
        "aad-pod-id-mic-role",
        "aad-pod-id-mic-service-account",
        "aad-pod-id-nmi-role",
        "aad-pod-id-nmi-service-account",
        "add-on",
        "aks-command",
        "argocd-application-controller",
        "argocd-controller",
        "azure-wi-webhook",
        "azure-workload-identity",
        "delete-policy",
        "gatekeeper-system",
        "get-credentials",
        "helm-controller",
        "identity-binding",
        "kebab-case",
        "keda-operator",
        "kube-system",
        "kustomize-controller",
        "oidc-issuer",
        "self-installed",
        "workload-identity",
        "workload-identity-webhook",
    ];

    /// Every code that doctor, audit, plan and migrate can print has an explanation.
    #[test]
    fn every_code_is_explained() {
        let known: BTreeSet<&str> = catalogue::all().map(|entry| entry.code).collect();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        for folder in ["diagnose/links", "diagnose/audit", "plan", "migrate"] {
            sources(&root.join(folder), &mut files);
        }
        let mut missing = BTreeSet::new();
        for file in files {
            let text = String::from_utf8(std::fs::read(&file).unwrap()).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            // Outside quotes every second piece is not a string; kebab-case words give it away.
            for word in text.split('"') {
                let kebab = word.contains('-')
                    && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
                    && !word.starts_with('-')
                    && !word.ends_with('-')
                    && word != "client-id"
                    && word != "virtual-kubelet";
                if kebab && !known.contains(word) && !NAMES.contains(&word) {
                    missing.insert(word.to_owned());
                }
            }
        }
        assert!(missing.is_empty(), "no explanation for {missing:?}");
    }
}
