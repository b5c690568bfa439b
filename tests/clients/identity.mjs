// @azure/identity against the sandbox. Reads how to reach it on standard input, prints what it got.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { ClientSecretCredential, WorkloadIdentityCredential } from "@azure/identity";

const { ready, token_file, audience, issuer, subject } = JSON.parse(readFileSync(0, "utf8"));
const options = { authorityHost: ready.authority, disableInstanceDiscovery: true };
const scope = "https://management.azure.com/.default";
const message = async (promise) => promise.then(() => "no error", (error) => error.message);

const secret = new ClientSecretCredential(ready.tenant, ready.client_id, ready.client_secret, options);
const operator = (await secret.getToken(scope)).token;

const put = async (path, body) => {
  const base = `${ready.resource_manager}/subscriptions/${ready.subscription}/resourceGroups/rg-id/providers`;
  const url = `${base}/Microsoft.ManagedIdentity/userAssignedIdentities/${path}?api-version=2023-01-31`;
  const headers = { authorization: `Bearer ${operator}`, "content-type": "application/json" };
  const answer = await fetch(url, { method: "PUT", headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
};
const identity = await put("id-js", { location: "westeurope" });
const other = await put("id-other", { location: "westeurope" });
await put("id-js/federatedIdentityCredentials/fic-js", {
  properties: { issuer, subject, audiences: [audience] },
});

const workload = (clientId) =>
  new WorkloadIdentityCredential({ tenantId: ready.tenant, clientId, tokenFilePath: token_file, ...options });
// Entra honours a new credential after a moment.
let got;
for (let left = 30; !got; left -= 1) {
  try {
    got = (await workload(identity.properties.clientId).getToken(scope)).token;
  } catch (error) {
    if (left === 0) throw error;
    await sleep(1000);
  }
}
const wrong = new ClientSecretCredential(ready.tenant, ready.client_id, "wrong", options);
console.log(JSON.stringify({
  operator,
  workload: got,
  client: identity.properties.clientId,
  principal: identity.properties.principalId,
  refused: await message(workload(other.properties.clientId).getToken(scope)),
  secret: await message(wrong.getToken(scope)),
}));
