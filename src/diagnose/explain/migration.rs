//! Codes of `migrate`: why a workload is not ready, where one stands, what stands in the way of an
//! uninstallation.

use super::{catalogue::Entry, own::own};
use crate::diagnose::link::Link;

#[rustfmt::skip]
pub(super) const ENTRIES: &[Entry] = &[
    // Why a workload is not ready.
    own("kept-by", "another tool keeps the object", "Argo CD, Flux or Helm applies it from elsewhere and would put the old label back.", "widentity migrate render DIR, for what Git holds; adopt = true, or a change of the chart's values, for Helm", Some(Link::Template)),
    own("binding-to-nothing", "a binding names an AzureIdentity that does not exist", "Pod Identity looks for the AzureIdentity in the binding's own namespace and answers nobody by this binding.", "delete the AzureIdentityBinding, or make the AzureIdentity again", Some(Link::Identity)),
    own("identity-without-id", "an AzureIdentity without a usable resourceID", "MIC ignores one whose resourceID is not the full id of a user-assigned managed identity.", "az identity show --query id, and correct spec.resourceID", Some(Link::Identity)),
    own("service-principal", "an AzureIdentity is a service principal", "Types 1 and 2 are applications. They need a federated credential of their own, made through Microsoft Graph, which widentity does not do.", "give the workload a managed identity, or az ad app federated-credential create", Some(Link::Identity)),
    own("no-binding", "no binding selects the label", "The pod template carries aadpodidbinding, and no AzureIdentityBinding has that selector.", "take the label away, or make the binding", Some(Link::Identity)),
    own("another-identity", "the file names another identity", "The workload answers as one managed identity today, the file gives it another: its roles would change with the switch.", "write the identity that it has today into [[workloads]], and change it afterwards", Some(Link::Identity)),
    own("several-identities", "the pods reach several identities", "Bindings give them more than one managed identity; a service account names one. A program that names further client ids itself needs a federated credential on each.", "identity = \"<the one to use by default>\" in [[workloads]]", Some(Link::Identity)),
    own("identity-recreated", "the managed identity was made again", "The AzureIdentity names a client id that the managed identity no longer has. Its roles went with the old one.", "check its roles, then correct spec.clientID of the AzureIdentity", Some(Link::Identity)),
    own("identity-without-client-id", "an AzureIdentity without a usable clientID", "NMI asks for tokens by that client id: nobody gets one.", "az identity show --query clientId, and correct spec.clientID", Some(Link::Identity)),
    own("identity-gone", "the managed identity does not exist", "An AzureIdentity names one that was deleted: pods that use it fail already.", "az identity create with its roles, then correct clientID of the AzureIdentity", Some(Link::Identity)),
    own("identity-unseen", "the managed identity could not be read", "Without its federated credentials nobody can tell where the workload stands; nothing is done for it.", "run again with Reader on the identity", Some(Link::Identity)),
    own("chained-federation", "the identity's token is a credential for something else", "Entra does not take a token that was got by federation as the assertion of another federation (AADSTS700231). With AAD Pod Identity the second hop works, with workload identity it fails.", "federate the application itself with the service account; chained = false in [[workloads]] where the workload makes no second hop", Some(Link::Exchange)),
    own("system-namespace", "a namespace that the webhook never mutates", "On AKS pods of kube-system and gatekeeper-system get no workload identity.", "move the workload to a namespace of its own", Some(Link::Webhook)),
    own("cluster-not-ready", "issuer or add-on are off", "Workload identity needs both, and enabling the issuer cannot be undone.", "enable = [\"oidc-issuer\", \"workload-identity\"] in [clusters.<name>]", Some(Link::Issuer)),
    own("default-account", "the workload runs as the default account", "Annotated, it would give the identity to every labelled pod of the namespace that names no account.", "pods = [\"deployment/<name>\"] in [[workloads]] accepts it; better: a service account of its own", Some(Link::Account)),
    own("shared-account", "others use the same account", "A service account names one identity for all that run as it; templates without Pod Identity, or with another selector, share it.", "pods = [\"deployment/<name>\"] in [[workloads]], or a service account of its own", Some(Link::Account)),
    own("selector-holds-label", "the controller selects by aadpodidbinding", "A selector cannot be changed, so that the label cannot be taken away.", "make the controller again with another selector", Some(Link::Template)),
    own("no-overlap", "old pods do not keep serving while it rolls", "The switch is an experiment that old pods cover: Recreate, OnDelete, one replica of a StatefulSet, no readiness probe and CronJobs leave a gap.", "pods = [\"deployment/<name>\"] in [[workloads]] accepts the gap", Some(Link::Template)),
    own("must-be-recreated", "whoever made it must make it again", "The template of a Job, a bare pod or an owned controller cannot be changed.", "in its manifest: label azure.workload.identity/use: \"true\", without aadpodidbinding", Some(Link::Template)),
    own("ended", "nothing runs any more", "The Job has ended, so that nothing can be switched.", "change its manifest before it is made again", Some(Link::Template)),
    own("account-acts-as", "the account acts as another identity", "A service account names one identity. This one is annotated with another, or its templates answer as several: switched, some pods would act as somebody else.", "identity = \"<id>\" in [[workloads]] where nobody uses the other; else a service account of its own for the template", Some(Link::Account)),
    own("falls-back-to-node", "Pod Identity does not stand between the pods and their node", "With the host's network, on Windows, or under an AzurePodIdentityException a program that cannot use workload identity goes on with the node's identities: its readiness proves nothing.", "look at its SDK, then pods = [\"deployment/<name>\"] in [[workloads]]", Some(Link::Template)),
    own("pods-not-ready", "pods of a StatefulSet are not ready", "Its controller replaces no pod before all others are ready: the switch would wait for ever, and so would the way back.", "mend the pods; pods = [\"statefulset/<name>\"] in [[workloads]] if you end them by hand", Some(Link::Pods)),
    own("label-lost", "running pods carry the label, their template does not", "A paused roll or a half-made edit: the next pods have no identity.", "put the label back, or let the roll end", Some(Link::Template)),
    // What else a survey notes.
    own("kept-object", "a tool keeps a binding or an AzureIdentity", "Argo CD, Flux or Helm makes it again when it is removed: finish leaves it.", "remove it where it is kept", None),
    own("left-behind", "a pod or Job carries a workload's label", "It cannot be changed, and holds the binding for as long as it is there.", "whoever made it must make it again", None),
    own("no-nmi", "no NMI runs", "Nothing answers as Pod Identity: labelled pods see the identities of their node.", "move the workloads, or run NMI again", None),
    own("secret-provider-class", "a SecretProviderClass uses Pod Identity", "Its volume gets its tokens through NMI.", "usePodIdentity: \"false\" and clientID in it", Some(Link::Pods)),
    own("keda-trigger", "KEDA uses Pod Identity", "A TriggerAuthentication names the provider azure, which KEDA dropped in 2.15.", "provider: azure-workload, and a federated credential for KEDA's own account", Some(Link::Pods)),
    own("binding-unused", "a binding selects nothing", "No template and no live pod carries its selector.", "widentity migrate uninstall takes it away with the rest", None),
    own("label-elsewhere", "a custom resource carries the label of a binding", "What an operator makes of it will be pods that ask Pod Identity for tokens, also where there are none now.", "change the label in the custom resource; its binding stays until then", None),
    own("label-unanswered", "a label that gives no identity, beside one that does", "The pod template shares its service account with a workload, and no binding gives its own label an identity: it has none today. `migrate` leaves it out, because it would be given the workload's.", "take the label away; or name it in `pods` and `widentity apply`, if it is to have that identity", Some(Link::Template)),
    own("not-looked", "some kinds were not looked through", "Bindings that select nothing may serve objects of kinds that could not be listed.", "grant the list of these kinds, or --allow-unseen-kinds", None),
    own("same-name", "one name in several namespaces", "MIC confuses AzureIdentity objects of one name.", "move one workload after the other and look at its tokens", None),
    own("node-identity", "pods may live on the node's identity", "Host network, an exception, or a plain request to 169.254.169.254 reach the identities of the node.", "give them workload identity, or name the identity they use", None),
    own("no-template", "a workload without pod template", "It was moved and its controller is gone.", "take it out of the file", None),
    // Where a workload stands.
    own("discovered", "it answers through Pod Identity", "Nothing was done for it yet.", "widentity migrate apply", None),
    own("identity-federated", "its identity trusts its account", "The federated credential is there; no token was proved.", "widentity migrate apply", None),
    own("token-proved", "its account is annotated", "A token was proved before; its pods were not switched.", "widentity migrate apply", None),
    own("switched", "its roll was begun", "Not every pod is proved yet.", "widentity migrate apply goes on, widentity migrate rollback puts it back", None),
    own("soaking", "its pods are proved and soak", "Bindings go only when they have run for a while: [migrate] soak.", "wait, then widentity migrate finish", None),
    own("soaked", "its pods have soaked", "Its bindings may go.", "widentity migrate finish", None),
    own("binding-removed", "its bindings are gone", "Its AzureIdentity is left.", "widentity migrate finish", None),
    own("cleaned", "nothing of Pod Identity is left of it", "It is through.", "nothing is to be done", None),
    own("masked", "it carries both labels", "What works may work through Pod Identity: its success proves nothing.", "widentity migrate apply without --keep-old", None),
    own("half-done", "both labels, and its workload identity is incomplete", "It answers through Pod Identity only: without the old label it would fail.", "widentity migrate apply", None),
    own("broken", "only the new label, and its workload identity is incomplete", "Nothing answers it.", "widentity migrate apply, or widentity migrate rollback", None),
    own("rolled-back", "it was put back", "It has the fields that it had before.", "widentity migrate plan says what stood in the way", None),
    // What stands in the way of an uninstallation.
    own("workload-not-cleaned", "a workload still needs Pod Identity", "Nothing of the installation goes before every workload has left it, has soaked and has lost its bindings.", "widentity migrate plan, then apply and finish", None),
    own("label-left", "something carries aadpodidbinding", "A template or a live pod would ask NMI, which is about to go.", "take the label away", Some(Link::Template)),
    own("assigned-without-mic", "AzureAssignedIdentity objects without MIC", "MIC was removed before it took them back. Their finalizers hold their namespaces for ever.", "kubectl patch azureassignedidentity <name> --type merge -p '{\"metadata\":{\"finalizers\":null}}', then kubectl delete", None),
    own("open-metadata", "the metadata endpoint would be open to every pod", "NMI stands before 169.254.169.254. Without it every pod gets tokens of every identity on its node.", "a NetworkPolicy on 169.254.169.254/32, or --allow-open-metadata", None),
    own("add-on-enabled", "the AKS add-on is on", "It is out of support since September 2025: once off it may not be possible to switch it on again.", "widentity migrate uninstall --disable-add-on", Some(Link::Cluster)),
    own("cluster-not-confirmed", "nothing shows that this is the cluster", "The host of the API server is not in ARM's record, and no two issuers can be compared. Nothing is removed there.", "az aks get-credentials, or correct context in [clusters.<name>]; where tokens may be requested, their issuer tells", Some(Link::Cluster)),
    own("not-seen", "something could not be read", "Nothing is changed or removed while something is not seen: what is missing may only be hidden.", "run again with the access that the message names", None),
];
