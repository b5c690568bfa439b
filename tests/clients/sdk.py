"""The Azure SDKs for Python against the sandbox, with their own retries, paging and polling."""

import logging
import time
import uuid

from azure.core.exceptions import (
    ClientAuthenticationError, HttpResponseError, ResourceExistsError, ResourceNotFoundError)
from azure.identity import ClientSecretCredential, WorkloadIdentityCredential
from azure.keyvault.secrets import SecretClient
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.containerservice import ContainerServiceClient
from azure.mgmt.msi import ManagedServiceIdentityClient

from harness import AUDIENCE, Report, Sandbox

logging.getLogger("azure").setLevel(logging.CRITICAL)
report = Report("sdk")
SECRETS_USER = "4633458b-17de-408a-b874-0445c86b69e6"
SUBJECT = "system:serviceaccount:shop:api"


def refused(what, kind, code, call):
    """`call` must raise `kind` with Azure's error code."""
    try:
        answer = call()
    except kind as error:
        seen = error.error.code if getattr(error, "error", None) else str(error)
        report.check(what, code in f"{seen}", f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001: another kind is what this looks for
        report.check(what, False, f"{type(error).__name__}: {error}")
    else:
        report.check(what, False, answer)


def identities(msi):
    groups = msi.user_assigned_identities
    made = groups.create_or_update("rg-id", "id-py", {"location": "westeurope", "tags": {"x": "y"}})
    report.check("an identity is made", uuid.UUID(made.client_id) != uuid.UUID(made.principal_id))
    report.equal("its tags", made.tags, {"x": "y"})
    report.equal("get", groups.get("rg-id", "id-py").client_id, made.client_id)
    report.equal("patch replaces the tags", groups.update("rg-id", "id-py", {"tags": {"z": "1"}}).tags, {"z": "1"})
    refused("a missing one is a 404", ResourceNotFoundError, "ResourceNotFound",
            lambda: groups.get("rg-id", "nope"))
    refused("a missing group is a 404", ResourceNotFoundError, "ResourceGroupNotFound",
            lambda: groups.create_or_update("rg-none", "id-x", {"location": "westeurope"}))
    for number in range(5):
        groups.create_or_update("rg-id", f"id-{number}", {"location": "westeurope"})
    report.equal("list in a group", len(list(groups.list_by_resource_group("rg-id"))), 6)
    report.equal("list in the subscription", len(list(groups.list_by_subscription())), 6)
    return made


def credentials(msi, issuer):
    fics = msi.federated_identity_credentials
    at = ("rg-id", "id-py")
    body = lambda subject: {"issuer": issuer, "subject": subject, "audiences": [AUDIENCE]}
    made = fics.create_or_update(*at, "fic-py", body(SUBJECT))
    report.equal("a credential is made", (made.subject, made.audiences, made.issuer), (SUBJECT, [AUDIENCE], issuer))
    refused("issuer and subject are unique", ResourceExistsError, "Conflict",
            lambda: fics.create_or_update(*at, "fic-two", body(SUBJECT)))
    for number in range(4):
        fics.create_or_update(*at, f"fic-{number}", body(f"system:serviceaccount:shop:s{number}"))
    pages = [len(list(page)) for page in fics.list(*at, top=2).by_page()]
    report.equal("lists come in pages of $top", pages, [2, 2, 1])
    report.equal("an update is a full replacement", fics.create_or_update(*at, "fic-0", body("s:new")).subject, "s:new")
    fics.delete(*at, "fic-0")
    report.equal("deleted ones are gone", sorted(f.name for f in fics.list(*at)), ["fic-1", "fic-2", "fic-3", "fic-py"])
    report.equal("deleting again is no error", fics.delete(*at, "fic-0"), None)


def roles(auth, vault, principal):
    found = list(auth.role_definitions.list(vault, filter="roleName eq 'Key Vault Secrets User'"))
    report.equal("the role by name", [role.name for role in found], [SECRETS_USER])
    report.check("all roles", len(list(auth.role_definitions.list(vault))) > 60)
    body = {"properties": {"roleDefinitionId": found[0].id, "principalId": principal,
                           "principalType": "ServicePrincipal"}}
    name = str(uuid.uuid4())
    made = auth.role_assignments.create(vault, name, body)
    report.equal("an assignment is made", (made.name, made.principal_id), (name, principal))
    report.equal("the same again is no error", auth.role_assignments.create(vault, name, body).id, made.id)
    refused("the same under another name", ResourceExistsError, "RoleAssignmentExists",
            lambda: auth.role_assignments.create(vault, str(uuid.uuid4()), body))
    ours = f"principalId eq '{principal}'"
    report.equal("by principal", len(list(auth.role_assignments.list_for_subscription(filter=ours))), 1)
    report.equal("at scope", len(list(auth.role_assignments.list_for_scope(vault, filter="atScope()"))), 1)
    report.equal("of a group", len(list(auth.role_assignments.list_for_resource_group("rg-data"))), 1)
    report.equal("by id", auth.role_assignments.get_by_id(made.id).name, name)
    unknown = {"properties": {**body["properties"], "principalId": str(uuid.uuid4())}}
    del unknown["properties"]["principalType"]
    refused("an unknown principal", HttpResponseError, "PrincipalNotFound",
            lambda: auth.role_assignments.create(vault, str(uuid.uuid4()), unknown))
    return name


def clusters(aks):
    group = aks.managed_clusters
    report.equal("clusters of the subscription", sorted(c.name for c in group.list()), ["aks-on", "aks-prod"])
    report.equal("clusters of the group", sorted(c.name for c in group.list_by_resource_group("rg-aks")),
                 ["aks-on", "aks-prod"])
    cluster = group.get("rg-aks", "aks-prod")
    report.equal("off at first", cluster.oidc_issuer_profile.enabled, False)
    cluster.oidc_issuer_profile = {"enabled": True}
    cluster.security_profile = {"workloadIdentity": {"enabled": True}}
    poller = group.begin_create_or_update("rg-aks", "aks-prod", cluster, polling_interval=1)
    # Waits on its own thread: another write meanwhile is refused as AKS refuses it.
    refused("one operation at a time", HttpResponseError, "OperationNotAllowed",
            lambda: group.begin_create_or_update("rg-aks", "aks-prod", cluster, polling_interval=1).result())
    updated = poller.result(timeout=60)
    report.equal("the operation ends", updated.provisioning_state, "Succeeded")
    report.check("with an issuer", updated.oidc_issuer_profile.issuer_url.endswith("/"))
    refused("If-Match is honoured", HttpResponseError, "",
            lambda: group.begin_create_or_update("rg-aks", "aks-prod", updated, etag="\"x\"",
                                                 match_condition=match(), polling_interval=1).result())
    tags = group.begin_update_tags("rg-aks", "aks-prod", {"tags": {"t": "1"}}, polling_interval=1).result().tags
    report.equal("tags by PATCH", tags, {"t": "1"})
    kubeconfig = group.list_cluster_user_credentials("rg-aks", "aks-on").kubeconfigs[0]
    report.equal("user credentials", kubeconfig.name, "clusterUser")
    report.check("are a kubeconfig", b"kind: Config" in bytes(kubeconfig.value))
    refused("a missing cluster", ResourceNotFoundError, "ResourceNotFound", lambda: group.get("rg-aks", "nope"))


def match():
    from azure.core import MatchConditions
    return MatchConditions.IfNotModified


def exchange(sandbox, trust, identity, vault, auth, assignment):
    ready = sandbox.ready
    file = sandbox.directory / "token"
    file.write_text(sandbox.account_token())
    workload = lambda client: WorkloadIdentityCredential(
        tenant_id=ready["tenant"], client_id=client, token_file_path=str(file),
        authority=ready["authority"], disable_instance_discovery=True, **trust)
    credential = workload(identity.client_id)
    secrets = SecretClient(vault_url=ready["data_plane"] + "/keyvault/kv-data", credential=credential,
                           verify_challenge_resource=False, **trust)
    names, last = None, None
    deadline = time.monotonic() + 30
    while names is None and time.monotonic() < deadline:
        try:
            names = [secret.name for secret in secrets.list_properties_of_secrets()]
        except (ClientAuthenticationError, HttpResponseError) as error:  # propagating
            last = error
            time.sleep(1)
    report.check("a workload's token opens the vault", names is not None, last)
    lifetime = credential.get_token("https://management.azure.com/.default").expires_on - time.time()
    report.check("its token lives a day at most", 60 < lifetime <= 86400, lifetime)
    refused("another client id is refused", ClientAuthenticationError, "AADSTS700016",
            lambda: workload(str(uuid.uuid4())).get_token("https://vault.azure.net/.default"))
    file.write_text(sandbox.account_token(account="other"))
    refused("another subject is refused", ClientAuthenticationError, "AADSTS700213",
            lambda: workload(identity.client_id).get_token("https://vault.azure.net/.default"))
    auth.role_assignments.delete(vault, assignment)


def retries(sandbox, msi):
    """The SDK's own policy gets over what the sandbox plays."""
    ready = sandbox.ready

    def fault(action, **rule):
        status, _ = sandbox.request("POST", ready["resource_manager"] + "/sandbox/faults", ready["client_secret"],
                                    {"service": "arm", "method": "GET", "action": action, **rule})
        assert status == 204, status

    get = lambda: msi.user_assigned_identities.get("rg-id", "id-py").name
    fault({"answer": {"status": 429, "code": "TooManyRequests", "message": "slow down", "retry_after": 2}})
    begun = time.monotonic()
    report.equal("a 429 is retried", get(), "id-py")
    report.check("after Retry-After", time.monotonic() - begun >= 2)
    fault({"answer": {"status": 503, "code": "ServerBusy", "message": "busy"}}, times=2)
    report.equal("503 twice is retried", get(), "id-py")
    fault("reset")
    report.equal("a reset is retried", get(), "id-py")


with Sandbox() as sandbox:
    ready = sandbox.ready
    trust = {"connection_verify": ready["ca_file"]}
    credential = ClientSecretCredential(
        ready["tenant"], ready["client_id"], ready["client_secret"],
        authority=ready["authority"], disable_instance_discovery=True, **trust)
    arm = {"base_url": ready["resource_manager"],
           "credential_scopes": [ready["resource_manager"] + "/.default"], **trust}
    msi = ManagedServiceIdentityClient(credential, ready["subscription"], **arm)
    auth = AuthorizationManagementClient(credential, ready["subscription"], **arm)
    aks = ContainerServiceClient(credential, ready["subscription"], **arm)
    identity = identities(msi)
    credentials(msi, aks.managed_clusters.get("rg-aks", "aks-on").oidc_issuer_profile.issuer_url)
    assignment = roles(auth, sandbox.vault, identity.principal_id)
    clusters(aks)
    exchange(sandbox, trust, identity, sandbox.vault, auth, assignment)
    retries(sandbox, msi)
    msi.federated_identity_credentials.delete("rg-id", "id-py", "fic-py")
    report.equal("the identity is deleted", msi.user_assigned_identities.delete("rg-id", "id-py"), None)
report.end()
