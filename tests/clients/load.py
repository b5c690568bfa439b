"""How much the sandbox takes: requests for each second of its processor time, and memory.

Fills a world with 10,000 identities and 10,000 pods (`load.py N` for another number), then asks
for single objects and pages. Processor time is the sandbox's own, so the number is what one core
gives, whatever else the machine does. Use a release build: WIDENTITY=target/release/widentity.
"""

import json
import os
import ssl
import socket
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from harness import Report, Sandbox

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
report = Report("load")


class Connection:
    """One kept-alive connection, with as little work on this side as can be."""

    def __init__(self, base, ca_file, token):
        self.parts = parts = urlsplit(base)
        self.context = ssl.create_default_context(cafile=ca_file)
        self.head = f" HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer {token}\r\n"
        self.connect()

    def connect(self):
        """Before each series: a connection that was idle for long is closed."""
        plain = socket.create_connection((self.parts.hostname, self.parts.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = self.context.wrap_socket(plain, server_hostname=self.parts.hostname)
        self.rest = b""

    def ask(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else b""
        kind = f"content-type: application/json\r\ncontent-length: {len(data)}\r\n" if data else ""
        self.socket.sendall(f"{method} {path}{self.head}{kind}\r\n".encode() + data)
        while b"\r\n\r\n" not in self.rest:
            self.rest += self.receive()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        status = int(head[9:12])
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            return status, self.chunks()
        length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        while len(self.rest) < length:
            self.rest += self.receive()
        answer, self.rest = self.rest[:length], self.rest[length:]
        return status, answer

    def chunks(self):
        answer = b""
        while True:
            while b"\r\n" not in self.rest:
                self.rest += self.receive()
            size, _, self.rest = self.rest.partition(b"\r\n")
            length = int(size, 16)
            while len(self.rest) < length + 2:
                self.rest += self.receive()
            answer, self.rest = answer + self.rest[:length], self.rest[length + 2:]
            if length == 0:
                return answer

    def receive(self):
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the sandbox closed the connection")
        return data


def used(pid):
    """Processor time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    """Resident memory in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return 0


def measure(pid, what, count, ask, wanted):
    """Asks `count` times; says requests for each second of processor time and of the clock."""
    for connection in connections:
        connection.connect()
    before, begun = used(pid), time.monotonic()
    for number in range(count):
        status, answer = ask(number)
        if status not in wanted:
            report.check(what, False, f"{status} {answer[:300]}")
            return 0
    rate = count / max(used(pid) - before, 0.01)
    clock = count / (time.monotonic() - begun)
    print(f"      {what:32} {rate:8.0f} a CPU second {clock:8.0f} a second  {memory(pid):6.1f} MB", flush=True)
    return rate


with Sandbox() as sandbox:
    ready, pid = sandbox.ready, sandbox.process.pid
    form = (f"grant_type=client_credentials&client_id={ready['client_id']}"
            f"&client_secret={ready['client_secret']}&scope=https://management.azure.com/.default")
    request = urllib.request.Request(f"{ready['authority']}/{ready['tenant']}/oauth2/v2.0/token", form.encode())
    context = ssl.create_default_context(cafile=ready["ca_file"])
    token = json.loads(urllib.request.urlopen(request, context=context).read())["access_token"]
    arm = Connection(ready["resource_manager"], ready["ca_file"], token)
    lines = Path(ready["kubeconfigs"]["on"]).read_text().splitlines()
    value = lambda key: next(l.split(": ", 1)[1] for l in lines if l.strip().startswith(key + ":"))
    kube = Connection(value("server"), ready["ca_file"], value("token"))
    connections = [arm, kube]

    group = f"/subscriptions/{ready['subscription']}/resourceGroups/rg-id/providers"
    identity = group + "/Microsoft.ManagedIdentity/userAssignedIdentities/id-{}?api-version=2023-01-31"
    pods = "/api/v1/namespaces/shop/pods"
    pod = lambda number: {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"},
                          "spec": {"containers": [{"name": "app", "image": "registry.example/app:1"}]}}
    made = {200, 201}
    print(f"      {'empty':32} {memory(pid):53.1f} MB")
    put = lambda n: arm.ask("PUT", identity.format(n), {"location": "westeurope"})
    rates = {"make identities": measure(pid, "make identities", COUNT, put, made)}
    rates["make pods"] = measure(pid, "make pods", COUNT, lambda n: kube.ask("POST", pods, pod(n)), made)
    rates["one identity"] = measure(pid, "one identity", COUNT, lambda n: arm.ask("GET", identity.format(n)), {200})
    rates["one pod"] = measure(pid, "one pod", COUNT, lambda n: kube.ask("GET", f"{pods}/pod-{n}"), {200})
    tagged = lambda n: arm.ask("PATCH", identity.format(n), {"tags": {"n": str(n)}})
    rates["tag identities"] = measure(pid, "tag identities", COUNT // 10, tagged, {200})
    measure(pid, "pages of 500 pods", 20, lambda n: kube.ask("GET", f"{pods}?limit=500"), {200})
    whole = group.replace("/resourceGroups/rg-id", "") + "/Microsoft.ManagedIdentity/userAssignedIdentities"
    measure(pid, "pages of identities", 20, lambda n: arm.ask("GET", whole + "?api-version=2023-01-31"), {200})
    for what, rate in rates.items():
        report.check(f"{what}: 2,000 requests a second on one core", rate >= 2000, f"{rate:.0f}")
    report.check("200 MB", memory(pid) <= 200, f"{memory(pid):.1f} MB")
report.end()
