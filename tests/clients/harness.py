"""Starts a sandbox for a client test and counts what it found. Python's own library only."""

import base64
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
AUDIENCE = "api://AzureADTokenExchange"


class Sandbox:
    """`widentity sandbox serve` over world.toml, in a directory of its own."""

    def __init__(self, *options):
        self.options = options

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="widentity-clients-"))
        shutil.copy(HERE / "world.toml", self.directory / "workloads.toml")
        binary = os.environ.get("WIDENTITY", HERE.parents[1] / "target" / "debug" / "widentity")
        self.log = open(self.directory / "serve.log", "w")
        self.process = subprocess.Popen(
            [binary, "sandbox", "serve", "--ready-file", "ready.json", *self.options],
            cwd=self.directory, stdout=self.log, stderr=subprocess.STDOUT)
        ready = self.directory / "ready.json"
        deadline = time.monotonic() + 60
        while not ready.exists() or not ready.read_text().endswith("}"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                sys.exit("the sandbox did not start:\n" + (self.directory / "serve.log").read_text())
            time.sleep(0.05)
        self.ready = json.loads(ready.read_text())
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
            os.environ.pop(name, None)
            os.environ.pop(name.lower(), None)
        os.environ["NO_PROXY"] = "localhost,127.0.0.1"
        for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE"):
            os.environ[name] = self.ready["ca_file"]
        return self

    def __exit__(self, *_):
        self.process.terminate()
        code = self.process.wait(timeout=30)
        self.log.close()
        if code != 0:
            print(f"FAILED: the sandbox left with {code} at SIGTERM")
            print((self.directory / "serve.log").read_text())
            sys.exit(1)
        shutil.rmtree(self.directory)

    def request(self, method, url, token=None, body=None):
        """Status and JSON of one request."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        request = urllib.request.Request(url, data=data, headers=headers, method=method)
        context = ssl.create_default_context(cafile=self.ready["ca_file"])
        try:
            with urllib.request.urlopen(request, context=context) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        return status, json.loads(text) if text else None

    def kubernetes(self, cluster, method, path, body=None):
        """One request to a cluster's API server as its operator."""
        lines = Path(self.ready["kubeconfigs"][cluster]).read_text().splitlines()
        value = lambda key: next(l.split(": ", 1)[1] for l in lines if l.strip().startswith(key + ":"))
        return self.request(method, value("server") + path, value("token"), body)

    def account_token(self, cluster="on", namespace="shop", account="api"):
        """A service account token for Entra, of the cluster's TokenRequest API."""
        base = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self.kubernetes(cluster, "POST", base, {
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
        status, answer = self.kubernetes(cluster, "POST", f"{base}/{account}/token", {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [AUDIENCE], "expirationSeconds": 3600}})
        if status != 201:
            sys.exit(f"TokenRequest: {status} {answer}")
        return answer["status"]["token"]

    @property
    def vault(self):
        return (f"/subscriptions/{self.ready['subscription']}/resourceGroups/rg-data"
                "/providers/Microsoft.KeyVault/vaults/kv-data")


def claims(token):
    """The claims of a JWT; its signature is not looked at."""
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


class Report:
    """Counts checks and says each one that fails."""

    def __init__(self, name):
        self.name, self.passed, self.failed = name, 0, []

    def check(self, what, good, seen=""):
        if good:
            self.passed += 1
            print(f"ok    {what}", flush=True)
        else:
            self.failed.append(what)
            print(f"FAIL  {what}\n      {str(seen)[:1500]}", flush=True)
        return good

    def equal(self, what, seen, wanted):
        return self.check(what, seen == wanted, f"{seen!r}, expected {wanted!r}")

    def end(self):
        print(f"{self.name}: {self.passed} passed, {len(self.failed)} failed")
        sys.exit(1 if self.failed else 0)
