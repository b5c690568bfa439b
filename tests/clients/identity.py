"""@azure/identity for JavaScript: prepares a world, runs identity.mjs in it, reads its answers."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from harness import AUDIENCE, HERE, Report, Sandbox, claims

report = Report("identity")
with Sandbox() as sandbox:
    ready = sandbox.ready
    token = sandbox.account_token()
    (sandbox.directory / "token").write_text(token)
    modules = Path(os.environ["WIDENTITY_CLIENTS"], "js", "node_modules")
    (sandbox.directory / "node_modules").symlink_to(modules)
    script = shutil.copy(HERE / "identity.mjs", sandbox.directory)
    world = {"ready": ready, "token_file": str(sandbox.directory / "token"), "audience": AUDIENCE,
             "issuer": claims(token)["iss"], "subject": claims(token)["sub"]}
    ran = subprocess.run(["node", script], input=json.dumps(world), capture_output=True, text=True, timeout=120)
    if not report.check("the script ends", ran.returncode == 0, ran.stdout + ran.stderr):
        report.end()
    answer = json.loads(ran.stdout)
    report.equal("ClientSecretCredential", claims(answer["operator"])["appid"], ready["client_id"])
    report.equal("WorkloadIdentityCredential", claims(answer["workload"])["appid"], answer["client"])
    report.equal("its oid is the identity's principal", claims(answer["workload"])["oid"], answer["principal"])
    report.check("an identity without credential is refused", "AADSTS" in answer["refused"], answer["refused"])
    report.check("a wrong secret is refused", "AADSTS7000215" in answer["secret"], answer["secret"])
report.end()
