"""The real kubectl, Debian's 1.20 and a current one, against the sandbox's API server."""

import json
import os
import subprocess
from pathlib import Path

from harness import AUDIENCE, Report, Sandbox, claims

HOME = Path(os.environ["WIDENTITY_CLIENTS"])
OLD = HOME / "kubectl-debian/usr/bin/kubectl"
NEW = HOME / "kubectl/bin/kubectl"
report = Report("kubectl")

MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {color: COLOR}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "registry.example/web:COLOR", env: [{name: A, value: b}]}]
"""


class Kubectl:
    """One binary against one kubeconfig, with a cache of its own."""

    def __init__(self, name, binary, kubeconfig, directory):
        self.name, self.binary, self.directory = name, binary, directory
        self.base = [binary, "--kubeconfig", kubeconfig, "--cache-dir", str(directory / f"cache-{name}")]

    def run(self, *args, stdin=None, timeout=60):
        return subprocess.run([*self.base, *args], input=stdin, capture_output=True, text=True, timeout=timeout)

    def expect(self, args, *shows, fails=None, code=0, stdin=None, wanted=None):
        """Every text of `shows` is in the output; `fails` is in the message and the code is 1."""
        args = args.split() if isinstance(args, str) else args
        what = f"{self.name} {' '.join(args)}"[:110]
        try:
            ran = self.run(*args, stdin=stdin)
        except subprocess.TimeoutExpired:
            report.check(what, False, "timed out")
            return ""
        if fails is not None:
            report.check(f"{what}  (refused)", ran.returncode != 0 and fails in ran.stderr, ran)
            return ran.stderr
        good = ran.returncode == code and all(text in ran.stdout for text in shows)
        if good and wanted:
            good = wanted(ran.stdout)
        report.check(what, good, f"exit {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
        return ran.stdout


def columns(text):
    """The heading of a printed table as words."""
    return text.splitlines()[0].split() if text.strip() else []


def drive(kubectl, modern):
    expect = kubectl.expect
    shop = ["-n", "shop"]
    expect("version", "Server Version")
    expect("api-resources", "deployments", "serviceaccounts")
    expect("cluster-info", "is running at")
    expect("get namespaces", wanted=lambda t: columns(t) == ["NAME", "STATUS", "AGE"] and "shop" in t)
    expect("get nodes", wanted=lambda t: columns(t) == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"])

    red, blue = MANIFEST.replace("COLOR", "red"), MANIFEST.replace("COLOR", "blue")
    expect("apply -f -", "configmap/settings created", "deployment.apps/web created", stdin=red)
    expect("apply -f -", "configmap/settings unchanged", "deployment.apps/web unchanged", stdin=red)
    expect("diff -f -", "-  color: red", "+  color: blue", code=1, stdin=blue)
    expect("apply -f - --dry-run=server", "(server dry run)", stdin=blue)
    expect([*shop, "get", "configmap", "settings", "-o", "jsonpath={.data.color}"], "red")
    expect("apply -f -", "configmap/settings configured", stdin=blue)
    expect([*shop, "rollout", "status", "deployment/web", "--timeout=60s"], "successfully rolled out")
    expect([*shop, "get", "deployments"],
           wanted=lambda t: columns(t) == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"] and "2/2" in t)
    expect([*shop, "get", "deployment", "web", "-o", "wide"], "CONTAINERS", "registry.example/web:blue", "app=web")
    expect([*shop, "get", "pods", "-l", "app=web"],
           wanted=lambda t: columns(t) == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"] and t.count("Running") == 2)
    expect([*shop, "get", "replicasets"],
           wanted=lambda t: columns(t) == ["NAME", "DESIRED", "CURRENT", "READY", "AGE"])
    expect([*shop, "get", "pods", "--field-selector", "status.phase=Running", "-o", "name"], "pod/web-")
    expect([*shop, "get", "all"], "deployment.apps/web")
    expect([*shop, "get", "deployment", "nope"], fails='deployments.apps "nope" not found')
    expect([*shop, "get", "nonsense"], fails="the server doesn't have a resource type")
    expect([*shop, "describe", "deployment", "web"], "Name:", "RollingUpdate", "registry.example/web:blue")
    expect([*shop, "describe", "configmap", "settings"], "color:", "blue")

    patch = [*shop, "patch", "deployment", "web", "--type"]
    expect([*patch, "strategic", "-p", '{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"C","value":"d"}]}]}}}}'],
           "patched")
    expect([*shop, "get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].env[*].name}"],
           wanted=lambda t: sorted(t.split()) == ["A", "C"])
    expect([*patch, "merge", "-p", '{"metadata":{"annotations":{"a":"1"}}}'], "patched")
    expect([*patch, "json", "-p", '[{"op":"replace","path":"/metadata/annotations/a","value":"2"}]'], "patched")
    expect([*shop, "get", "deployment", "web", "-o", "jsonpath={.metadata.annotations.a}"],
           wanted=lambda t: t == "2")
    expect([*patch, "json", "-p", '[{"op":"test","path":"/metadata/annotations/a","value":"9"}]'], fails="")
    expect([*shop, "annotate", "deployment", "web", "b=3"], "annotated")
    expect([*shop, "label", "deployment", "web", "tier=front"], "labeled")
    expect([*shop, "set", "image", "deployment/web", "web=registry.example/web:green"], "image updated")
    expect([*shop, "rollout", "status", "deployment/web", "--timeout=60s"], "successfully rolled out")
    expect([*shop, "rollout", "history", "deployment/web"], "REVISION")
    expect([*shop, "rollout", "restart", "deployment/web"], "restarted")
    expect([*shop, "rollout", "status", "deployment/web", "--timeout=60s"], "successfully rolled out")
    expect([*shop, "rollout", "undo", "deployment/web"], "rolled back")
    expect([*shop, "rollout", "status", "deployment/web", "--timeout=60s"], "successfully rolled out")
    expect([*shop, "scale", "deployment/web", "--replicas=3"], "scaled")
    expect([*shop, "wait", "deployment/web", "--for=condition=Available", "--timeout=60s"], "condition met")
    expect([*shop, "rollout", "status", "deployment/web", "--timeout=60s"], "successfully rolled out")
    expect([*shop, "get", "pods", "-l", "app=web", "--no-headers"], wanted=lambda t: len(t.splitlines()) == 3)

    account = json.dumps({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
        "name": "kubectl", "namespace": "shop", "annotations": {"x": "1"}}})
    applied = ["apply", "--server-side", "--field-manager", "one", "-f", "-"]
    expect(applied, "serverside-applied", stdin=account)
    other = account.replace('"x": "1"', '"x": "2"')
    second = ["apply", "--server-side", "--field-manager", "two", "-f", "-"]
    expect(second, fails="conflict", stdin=other)
    expect([*second, "--force-conflicts"], "serverside-applied", stdin=other)
    expect([*shop, "get", "serviceaccount", "kubectl", "-o", "jsonpath={.metadata.annotations.x}"], "2")
    expect([*shop, "create", "serviceaccount", "kubectl"], fails='serviceaccounts "kubectl" already exists')
    if modern:
        token = expect([*shop, "create", "token", "kubectl", "--audience", AUDIENCE, "--duration", "1h"])
        said = claims(token) if token.count(".") == 2 else {}
        report.check("its token names the account",
                     said.get("sub") == "system:serviceaccount:shop:kubectl" and said.get("aud") == [AUDIENCE], said)
    expect("auth can-i create deployments", "yes")
    expect("auth can-i list pods --as system:serviceaccount:shop:kubectl", code=1, wanted=lambda t: "no" in t)
    expect("explain deployment.spec.replicas", "replicas")
    expect("explain pod.spec.serviceAccountName", "serviceAccountName")

    pod = expect([*shop, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]).strip()
    expect([*shop, "get", "pods", "-o", "custom-columns=N:.metadata.name,S:.status.phase"], pod)
    # 1.20 does not show the account.
    account = ["Service Account"] if modern else []
    expect([*shop, "describe", "pod", pod], "Node:", *account, wanted=lambda t: "ContainersReady" in t)
    expect([*shop, "logs", pod], "widentity sandbox")
    for refused in (["exec", pod, "--", "ls"], ["port-forward", pod, "8080:80"], ["attach", pod]):
        expect([*shop, *refused], fails="runs no containers")
    expect("describe node", "Conditions:")
    expect("describe namespace shop", "Active")
    expect("auth can-i --list", "Resources")
    expect([*shop, "get", "events"], "ScalingReplicaSet")
    if modern:
        expect("auth whoami", "Username")
        expect([*shop, "wait", f"pod/{pod}", "--for=jsonpath={.status.phase}=Running", "--timeout=30s"], "condition met")

    expect([*shop, "create", "deployment", "wi", "--image=registry.example/wi:1"], "created")
    expect([*shop, "expose", "deployment", "web", "--port=80"], "exposed")
    expect([*shop, "get", "services"], "web")
    watching = subprocess.Popen([*kubectl.base, *shop, "get", "configmaps", "--watch", "-o", "name"],
                                stdout=subprocess.PIPE, text=True)
    watching.stdout.readline()
    expect([*shop, "create", "configmap", "seen", "--from-literal=a=b"], "created")
    seen = False
    for _ in range(20):
        if "seen" in watching.stdout.readline():
            seen = True
            break
    report.check(f"{kubectl.name} a watch shows a new object", seen)
    watching.terminate()
    watching.wait()
    expect([*shop, "delete", "configmap", "seen", "settings"], "deleted")
    expect([*shop, "delete", "deployment,service", "web"], "deleted")
    expect([*shop, "delete", "deployment", "wi"], "deleted")
    expect([*shop, "delete", "serviceaccount", "kubectl"], "deleted")
    # Before 1.24 a wait for what is gone already is an error: its code says nothing here.
    kubectl.run(*shop, "wait", "--for=delete", "pod", "-l", "app=web", "--timeout=60s")
    expect([*shop, "get", "pods", "-l", "app=web"], wanted=lambda t: t == "")
    expect("create namespace temporary", "created")
    expect("delete namespace temporary --timeout=60s", "deleted")
    expect("get namespace temporary", fails='namespaces "temporary" not found')


with Sandbox() as sandbox:
    kubeconfig = sandbox.ready["kubeconfigs"]["on"]
    for name, binary, modern in (("1.20", OLD, False), ("new", NEW, True)):
        kubectl = Kubectl(name, binary, kubeconfig, sandbox.directory)
        print(kubectl.run("version", "--client").stdout.strip(), flush=True)
        drive(kubectl, modern)
report.end()
