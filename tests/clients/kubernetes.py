#!/usr/bin/env python3
"""kubernetes_differences.py between a real kube-apiserver and the sandbox's.

KUBEBUILDER_ASSETS names the folder of etcd, kube-apiserver and kube-controller-manager.
"""

import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from harness import HERE, Sandbox

ADMIN = "admin-token"
PATIENCE = 120


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports


class Real:
    """etcd, kube-apiserver and kube-controller-manager, without scheduler and kubelets."""

    def __init__(self, assets):
        self.assets, self.programs = Path(assets), []

    def run(self, name, *options):
        with open(self.directory / f"{name}.log", "w") as log:
            self.programs.append(subprocess.Popen(
                [self.assets / name, *options], stdout=log, stderr=subprocess.STDOUT))

    def answers(self, path):
        request = urllib.request.Request(self.url + path, headers={"authorization": f"Bearer {ADMIN}"})
        try:
            with urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def wait(self, path, name):
        deadline = time.monotonic() + PATIENCE
        while not self.answers(path):
            if time.monotonic() > deadline:
                log = (self.directory / f"{name}.log").read_text().splitlines()
                sys.exit(f"{name} does not start:\n" + "\n".join(log[-10:]))
            time.sleep(0.1)

    def __enter__(self):
        self.kept = tempfile.TemporaryDirectory(prefix="widentity-kube-")
        here = self.directory = Path(self.kept.name)
        etcd, peer, api, manager = free_ports(4)
        self.url = f"https://127.0.0.1:{api}"
        openssl = lambda *options: subprocess.run(["openssl", *options], check=True, capture_output=True, cwd=here)
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.crt",
                "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
        openssl("genrsa", "-out", "accounts.key", "2048")
        openssl("rsa", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")
        (here / "tokens.csv").write_text(f"{ADMIN},admin,admin,system:masters\n")
        (here / "kubeconfig").write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
            f"clusters: [{{name: c, cluster: {{server: '{self.url}', certificate-authority: server.crt}}}}]\n"
            f"users: [{{name: u, user: {{token: {ADMIN}}}}}]\n"
            "contexts: [{name: c, context: {cluster: c, user: u}}]\n")
        try:
            self.start(here, etcd, peer, api, manager)
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, here, etcd, peer, api, manager):
        self.run("etcd", "--name=t", f"--data-dir={here}/etcd", "--unsafe-no-fsync=true",
                 f"--listen-client-urls=http://127.0.0.1:{etcd}", f"--advertise-client-urls=http://127.0.0.1:{etcd}",
                 f"--listen-peer-urls=http://127.0.0.1:{peer}",
                 f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                 f"--initial-cluster=t=http://127.0.0.1:{peer}")
        self.run("kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", "--bind-address=127.0.0.1",
                 "--advertise-address=127.0.0.1", f"--secure-port={api}", "--endpoint-reconciler-type=none",
                 "--service-cluster-ip-range=10.0.0.0/24", f"--tls-cert-file={here}/server.crt",
                 f"--tls-private-key-file={here}/server.key", f"--token-auth-file={here}/tokens.csv",
                 "--authorization-mode=RBAC", "--service-account-issuer=https://issuer.test/",
                 f"--service-account-jwks-uri={self.url}/openid/v1/jwks",
                 f"--service-account-signing-key-file={here}/accounts.key",
                 f"--service-account-key-file={here}/accounts.pub", "--api-audiences=https://issuer.test/")
        self.wait("/readyz", "kube-apiserver")
        name = "kube-controller-manager"
        options = [f"--kubeconfig={here}/kubeconfig", "--bind-address=127.0.0.1", f"--secure-port={manager}",
                   "--leader-elect=false", "--use-service-account-credentials=true",
                   f"--service-account-private-key-file={here}/accounts.key",
                   f"--root-ca-file={here}/server.crt", f"--cert-dir={here}/manager"]
        version = subprocess.run([self.assets / name, "--version"], capture_output=True, text=True).stdout
        if int(re.search(r"v1\.(\d+)", version).group(1)) < 24:
            options.append("--port=0")  # or it also listens on a fixed port without TLS
        self.run(name, *options)
        self.wait("/api/v1/namespaces/default/serviceaccounts/default", name)
        print("real:", version.strip())

    def __exit__(self, *_):
        for program in reversed(self.programs):
            program.terminate()
            program.wait(timeout=60)
        self.kept.cleanup()


def main():
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        sys.exit("KUBEBUILDER_ASSETS is not set: setup-envtest makes such a folder")
    with Real(assets) as real, Sandbox() as sandbox:
        kubeconfig = Path(sandbox.ready["kubeconfigs"]["on"]).read_text()
        value = lambda key: re.search(rf"^\s*{key}: (.*)$", kubeconfig, re.MULTILINE).group(1)
        compared = subprocess.run([sys.executable, HERE / "kubernetes_differences.py",
                                   real.url, ADMIN, value("server"), value("token")])
    return compared.returncode


if __name__ == "__main__":
    sys.exit(main())
