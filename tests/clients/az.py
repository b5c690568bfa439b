"""The real `az`, unmodified, against the sandbox: a table of commands and what each must answer."""

import json
import os
import subprocess
import time
from pathlib import Path

from harness import AUDIENCE, Report, Sandbox

AZ = Path(os.environ["WIDENTITY_CLIENTS"], "az", "bin", "az")
report = Report("az")


def az(*args, fails=None, timeout=240):
    """Runs one command: its JSON, its text if it is none, or with `fails` its message."""
    ran = subprocess.run([AZ, *args], capture_output=True, text=True, timeout=timeout)
    if fails is None:
        if ran.returncode != 0:
            raise AssertionError(ran.stderr.strip() or f"exit {ran.returncode}")
        try:
            return json.loads(ran.stdout) if ran.stdout.strip() else None
        except ValueError:
            return ran.stdout
    if ran.returncode == 0:
        raise AssertionError("it succeeded: " + ran.stdout)
    return ran.stderr


def expect(command, wanted=lambda _: True, fails=None):
    """One row: `wanted` is a predicate, or a value that must be equal; `fails` is in the message."""
    args = command.split() if isinstance(command, str) else command
    shown = "az " + " ".join(arg if len(arg) < 80 else arg[:40] + "…" for arg in args)
    try:
        answer = az(*args, fails=fails)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        report.check(shown, False, error)
        return None
    if fails is not None:
        report.check(f"{shown}  (refused)", fails in answer, answer)
    elif callable(wanted):
        good = False
        try:
            good = wanted(answer)
        except (KeyError, TypeError, IndexError):
            pass
        report.check(shown, good, answer)
    else:
        report.equal(shown, answer, wanted)
    return answer


def names(answer):
    return sorted(item["name"] for item in answer)


def account_basics(ready):
    tenant, subscription = ready["tenant"], ready["subscription"]
    expect(["cloud", "register", "-n", "sandbox", "--endpoint-resource-manager", ready["resource_manager"]])
    expect("cloud set -n sandbox")
    login = ["login", "--service-principal", "-u", ready["client_id"], "--tenant", tenant, "-p"]
    expect([*login, "wrong-secret"], fails="AADSTS7000215")
    expect([*login, ready["client_secret"]], lambda a: a[0]["id"] == subscription)
    expect("account show", lambda a: a["tenantId"] == tenant and a["user"]["type"] == "servicePrincipal")
    expect("account list", lambda a: [s["id"] for s in a] == [subscription])
    expect("account get-access-token", lambda a: a["tokenType"] == "Bearer" and a["tenant"] == tenant)
    expect("group list", lambda a: names(a) == ["rg-aks", "rg-data", "rg-id"])
    expect("group show -n rg-id", lambda a: a["properties"]["provisioningState"] == "Succeeded")
    expect("group exists -n rg-id", True)
    expect("group exists -n rg-none", False)
    expect("group show -n rg-none", fails="(ResourceGroupNotFound) Resource group 'rg-none' could not be found.")
    expect("group create -n rg-new -l westeurope --tags a=b", lambda a: a["tags"] == {"a": "b"})
    expect("group delete -n rg-new -y")
    expect("group exists -n rg-new", False)


def identities():
    expect("identity create -g rg-id -n id-a", lambda a: a["location"] == "westeurope" and a["clientId"])
    expect("identity create -g rg-id -n id-b --tags team=shop", lambda a: a["tags"] == {"team": "shop"})
    shown = expect("identity show -g rg-id -n id-a", lambda a: a["principalId"] != a["clientId"])
    expect("identity list", lambda a: names(a) == ["id-a", "id-b"])
    expect("identity list -g rg-id", lambda a: names(a) == ["id-a", "id-b"])
    expect("identity list -g rg-none", fails="(ResourceGroupNotFound)")
    expect("identity update -g rg-id -n id-a --tags a=1 b=2", lambda a: a["tags"] == {"a": "1", "b": "2"})
    expect("identity create -g rg-id -n id-a --tags c=3",
           lambda a: a["clientId"] == shown["clientId"] and a["tags"] == {"c": "3"})
    expect("identity show -g rg-id -n nope",
           fails="(ResourceNotFound) The Resource 'Microsoft.ManagedIdentity/userAssignedIdentities/nope' "
                 "under resource group 'rg-id' was not found.")
    expect("identity show -g rg-none -n id-a", fails="(ResourceGroupNotFound)")
    expect("identity create -g rg-none -n id-a -l westeurope", fails="(ResourceGroupNotFound)")
    expect("identity create -g rg-id -n x", fails="must be between 3 and 128 characters")
    expect("identity delete -g rg-id -n id-b")
    expect("identity delete -g rg-id -n id-b")
    expect("identity list -g rg-id", lambda a: names(a) == ["id-a"])
    return shown


def credentials(issuer):
    of = ["identity", "federated-credential"]
    at = ["-g", "rg-id", "--identity-name", "id-a"]
    subject = "system:serviceaccount:shop:api"
    body = ["--issuer", issuer, "--audiences", AUDIENCE, "--subject"]
    expect([*of, "create", *at, "-n", "fic-one", *body, subject],
           lambda a: a["subject"] == subject and a["audiences"] == [AUDIENCE] and a["issuer"] == issuer)
    expect([*of, "create", *at, "-n", "fic-two", *body, "system:serviceaccount:shop:two"])
    expect([*of, "show", *at, "-n", "fic-one", "--query", "subject"], subject)
    expect([*of, "list", *at], lambda a: names(a) == ["fic-one", "fic-two"])
    expect([*of, "update", *at, "-n", "fic-two", *body, "system:serviceaccount:shop:three"],
           lambda a: a["subject"] == "system:serviceaccount:shop:three")
    expect([*of, "create", *at, "-n", "fic-three", *body, subject],
           fails="Issuer and subject combination already exists for this Managed Identity.")
    expect([*of, "create", *at, "-n", "f", *body, "system:serviceaccount:shop:x"],
           fails="Federated Identity Credential name 'f' is invalid.")
    expect([*of, "create", *at, "-n", "fic-four", "--issuer", issuer, "--subject", "s:x",
            "--audiences", "a", "b"], fails="must have exactly one audience")
    expect([*of, "create", "-g", "rg-id", "--identity-name", "nope", "-n", "fic-five", *body, "s:y"],
           fails="could not be found")
    expect([*of, "show", *at, "-n", "nope"], fails="was not found")
    expect([*of, "delete", *at, "-n", "fic-two", "-y"])
    expect([*of, "delete", *at, "-n", "fic-two", "-y"])
    expect([*of, "list", *at], lambda a: names(a) == ["fic-one"])


def roles(identity, vault, subscription):
    principal, client = identity["principalId"], identity["clientId"]
    role = "Key Vault Secrets User"
    expect(["role", "definition", "list", "-n", role],
           lambda a: a[0]["name"] == "4633458b-17de-408a-b874-0445c86b69e6"
           and a[0]["permissions"][0]["dataActions"])
    expect(["role", "definition", "list", "-n", "Reader"], lambda a: [d["roleName"] for d in a] == ["Reader"])
    expect(["role", "definition", "list", "-n", "No Such Role"], [])
    expect("role definition list --query length(@)", lambda count: count > 60)
    create = ["role", "assignment", "create", "--scope", vault]
    by_object = ["--assignee-object-id", principal, "--assignee-principal-type", "ServicePrincipal"]
    first = expect([*create, *by_object, "--role", role],
                   lambda a: a["principalId"] == principal and a["scope"] == vault)
    expect([*create, *by_object, "--role", role], lambda a: a["name"] == first["name"])
    expect([*create, "--assignee", client, "--role", "Reader"], lambda a: a["principalId"] == principal)
    group = f"/subscriptions/{subscription}/resourceGroups/rg-data"
    expect(["role", "assignment", "create", "--assignee", principal, "--role", "Reader", "--scope", group],
           lambda a: a["scope"] == group)
    expect("resource list -g rg-data", lambda a: [(r["name"], r["type"]) for r in a]
           == [("kv-data", "Microsoft.KeyVault/vaults")])
    count = lambda number: lambda a: len(a) == number
    expect(["role", "assignment", "list", "--assignee", principal, "--all", "--include-groups"], count(3))
    expect(["role", "assignment", "list", "--assignee", principal, "--all", "--include-inherited"], count(3))
    # A vault's list without --include-inherited shows only what is assigned at the vault.
    expect(["role", "assignment", "list", "--scope", vault], count(2))
    expect(["role", "assignment", "list", "--scope", vault, "--include-inherited"], count(3))
    expect(["role", "assignment", "list", "--assignee", client, "--all"],
           lambda a: sorted({x["roleDefinitionName"] for x in a}) == [role, "Reader"] and len(a) == 3)
    expect(["role", "assignment", "list", "--assignee", principal, "--scope", vault], count(2))
    expect(["role", "assignment", "list", "--role", "Reader", "--scope", vault], count(1))
    expect("role assignment list --all", count(3))
    expect("role assignment list -g rg-data", count(1))
    expect("role assignment list", count(0))
    expect([*create, *by_object, "--role", "No Such Role"], fails="Role 'No Such Role' doesn't exist")
    expect([*create, "--assignee", "00000000-0000-4000-8000-00000000dead", "--role", "Reader"],
           fails="Cannot find user or service principal in graph database")
    expect(["role", "assignment", "create", "--assignee-object-id", principal, "--role", "Reader",
            "--assignee-principal-type", "User", "--scope", vault], fails="UnmatchedPrincipalType")
    expect(["role", "assignment", "create", "--assignee-object-id", principal, "--role", "Owner", "--scope",
            vault + "-none", "--assignee-principal-type", "ServicePrincipal"], fails="was not found")
    expect(["role", "assignment", "delete", "--assignee", client, "--role", "Reader", "--scope", vault])
    expect("role assignment list --all", count(2))
    expect(["role", "assignment", "delete", "--ids", first["id"]])
    expect("role assignment list --all", count(1))


def clusters(sandbox):
    at = "-g rg-aks -n aks-prod"
    expect("aks list", lambda a: names(a) == ["aks-on", "aks-prod"])
    expect("aks list -g rg-aks", lambda a: names(a) == ["aks-on", "aks-prod"])
    before = expect(f"aks show {at}", lambda a: a["oidcIssuerProfile"]["enabled"] is False
                    and a["provisioningState"] == "Succeeded")
    expect("aks show -g rg-aks -n nope", fails="(ResourceNotFound)")
    pools = "aks nodepool"
    names_of = expect(f"{pools} list -g rg-aks --cluster-name aks-on", lambda a: [p["mode"] for p in a] == ["System", "User"])
    name = names_of[0]["name"]
    expect(f"{pools} show -g rg-aks --cluster-name aks-on -n {name}", lambda a: a["count"] == 3 and a["resourceGroup"] == "rg-aks")
    expect(f"{pools} show -g rg-aks --cluster-name aks-on -n nope", fails="(ResourceNotFound)")
    expect(f"aks update {at} --enable-workload-identity", fails="OIDC")
    after = expect(f"aks update {at} --enable-oidc-issuer --enable-workload-identity",
                   lambda a: a["oidcIssuerProfile"]["issuerUrl"].startswith("https://")
                   and a["securityProfile"]["workloadIdentity"]["enabled"] is True
                   and a["provisioningState"] == "Succeeded")
    changed = sorted(key for key in before or {} if before[key] != (after or {}).get(key))
    report.check("aks update changed nothing else",
                 set(changed) <= {"oidcIssuerProfile", "securityProfile", "eTag", "systemData"}, changed)
    target = sandbox.directory / "kubeconfig"
    get = ["aks", "get-credentials", "-g", "rg-aks", "-n", "aks-on", "-f", str(target), "--overwrite-existing"]
    expect(get)
    report.check("the kubeconfig names the cluster", "aks-on" in target.read_text() if target.exists() else False)
    expect([*get, "--admin"])
    report.check("the admin's context too", "aks-on-admin" in target.read_text() if target.exists() else False)


def federated_login(sandbox, identity):
    """`az login` with a token that the sandbox's cluster issued."""
    token = sandbox.account_token()
    login = ["login", "--service-principal", "-u", identity["clientId"], "--tenant",
             sandbox.ready["tenant"], "--allow-no-subscriptions", "--federated-token"]
    other = sandbox.account_token(account="other")
    expect([*login, other], fails="AADSTS700213")
    # Entra honours a new credential after a moment; role assignments too.
    deadline = time.monotonic() + 30
    while True:
        try:
            answer = az(*login, token)
            break
        except AssertionError as error:
            if time.monotonic() > deadline:
                report.check("az login --federated-token", False, error)
                return
            time.sleep(1)
    report.check("az login --federated-token", isinstance(answer, list), answer)
    expect("account show", lambda a: a["user"]["name"] == identity["clientId"])
    expect("identity create -g rg-id -n id-c -l westeurope", fails="(AuthorizationFailed)")


with Sandbox() as sandbox:
    os.environ.update(
        AZURE_CONFIG_DIR=str(sandbox.directory / "az"), AZURE_CORE_COLLECT_TELEMETRY="no",
        AZURE_CORE_NO_COLOR="1", AZURE_CORE_ONLY_SHOW_ERRORS="1", AZURE_CORE_INSTANCE_DISCOVERY="0",
        AZURE_CORE_LOGIN_EXPERIENCE_V2="off")
    account_basics(sandbox.ready)
    identity = identities()
    on = expect("aks show -g rg-aks -n aks-on", lambda a: a["oidcIssuerProfile"]["enabled"])
    credentials(on["oidcIssuerProfile"]["issuerUrl"])
    roles(identity, sandbox.vault, sandbox.ready["subscription"])
    clusters(sandbox)
    federated_login(sandbox, identity)
report.end()
