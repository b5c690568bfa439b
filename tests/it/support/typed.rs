//! Carries out the commands that a fix prints: `kubectl` and `widentity` as they are, `az` as the
//! requests that it would send.

use std::process::{Command, Stdio};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::emulated::Emulated;

/// Splits a line as a POSIX shell does, as far as fixes quote: words and single quotes.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut any) = (Vec::new(), String::new(), false);
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '\'' => {
                any = true;
                word.extend(characters.by_ref().take_while(|c| *c != '\''));
            }
            '\\' => word.extend(characters.next()),
            ' ' if any || !word.is_empty() => {
                words.push(std::mem::take(&mut word));
                any = false;
            }
            ' ' => {}
            c => word.push(c),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Where `kubectl` is; none where the machine has none.
pub(crate) fn kubectl() -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|file| file.exists())
}

fn option<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| word == name)?;
    words.get(at + 1).map(String::as_str)
}

impl Emulated {
    /// Runs one line; what went wrong.
    pub(crate) async fn run(&self, line: &str) -> Result<(), String> {
        let words = words(line);
        match words.first().map(String::as_str) {
            Some("kubectl") => {
                let mut command = Command::new(kubectl().ok_or("no kubectl")?);
                command.args(&words[1..]).env("KUBECONFIG", self.kubeconfig());
                self.finish(command).await
            }
            Some("widentity") => {
                let ready = self.running.ready();
                let mut command = Command::new(env!("CARGO_BIN_EXE_widentity"));
                command
                    .args(&words[1..])
                    .arg("--yes")
                    .env_clear()
                    .env("AZURE_TENANT_ID", ready.tenant.to_string())
                    .env("AZURE_CLIENT_ID", ready.client_id.to_string())
                    .env("AZURE_CLIENT_SECRET", &ready.client_secret);
                self.finish(command).await
            }
            Some("az") => self.az(&words[1..]).await,
            _ => Err(format!("`{line}` is no command of a fix")),
        }
    }

    async fn finish(&self, mut command: Command) -> Result<(), String> {
        command.current_dir(self.directory.path()).env("HOME", self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| error.to_string())?;
        let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap();
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        output.status.success().then_some(()).ok_or_else(|| {
            format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
        })
    }

    async fn az(&self, words: &[String]) -> Result<(), String> {
        let azure = Azure::sign_in(self).await;
        let get = |name: &str| option(words, name).ok_or_else(|| format!("no {name} in {words:?}"));
        let subscription = format!("/subscriptions/{}", self.running.ready().subscription);
        let kind: Vec<&str> =
            words.iter().map(String::as_str).take_while(|word| !word.starts_with('-')).collect();
        match kind[..] {
            ["identity", "federated-credential", verb @ ("create" | "update")] => {
                let path = format!(
                    "{subscription}/resourceGroups/{}/providers/Microsoft.ManagedIdentity/\
                     userAssignedIdentities/{}/federatedIdentityCredentials/{}?api-version=2024-11-30",
                    get("--resource-group")?,
                    get("--identity-name")?,
                    get("--name")?
                );
                let mut body = json!({"properties": {}});
                if verb == "update" {
                    body = azure.ask(Method::GET, &path, None).await?;
                }
                for (name, part) in [("--issuer", "issuer"), ("--subject", "subject")] {
                    body["properties"][part] = get(name)?.into();
                }
                body["properties"]["audiences"] = json!([get("--audiences")?]);
                azure.ask(Method::PUT, &path, Some(body)).await?;
            }
            ["role", "assignment", "create"] => {
                let scope = get("--scope")?;
                let role = get("--role")?.replace('\'', "''").replace(' ', "%20");
                let place = format!("{scope}/providers/Microsoft.Authorization");
                let path = format!(
                    "{place}/roleDefinitions?api-version=2022-04-01&$filter=roleName%20eq%20'{role}'"
                );
                let found = azure.ask(Method::GET, &path, None).await?;
                let body = json!({"properties": {
                    "roleDefinitionId": found["value"][0]["id"],
                    "principalId": get("--assignee-object-id")?,
                    "principalType": get("--assignee-principal-type")?,
                }});
                let name = "b1c2d3e4-0000-4000-8000-000000000001";
                let path = format!("{place}/roleAssignments/{name}?api-version=2022-04-01");
                azure.ask(Method::PUT, &path, Some(body)).await?;
            }
            ["aks", "update"] => {
                let path = format!(
                    "{subscription}/resourceGroups/{}/providers/Microsoft.ContainerService/\
                     managedClusters/{}?api-version=2025-10-01",
                    get("--resource-group")?,
                    get("--name")?
                );
                let mut body = azure.ask(Method::GET, &path, None).await?;
                let on = |flag: &str| words.iter().any(|word| word == flag);
                if on("--enable-oidc-issuer") {
                    body["properties"]["oidcIssuerProfile"] = json!({"enabled": true});
                }
                if on("--enable-workload-identity") {
                    body["properties"]["securityProfile"]["workloadIdentity"] =
                        json!({"enabled": true});
                }
                azure.ask(Method::PUT, &path, Some(body)).await?;
            }
            ["keyvault", "update"] => {
                let list = format!(
                    "{subscription}/providers/Microsoft.KeyVault/vaults?api-version=2023-07-01"
                );
                let all = azure.ask(Method::GET, &list, None).await?;
                let name = get("--name")?;
                let vaults = all["value"].as_array().into_iter().flatten();
                let mut vault = vaults.filter(|vault| vault["name"] == name);
                let mut vault = vault.next().ok_or("no such vault")?.clone();
                vault["properties"]["enableRbacAuthorization"] =
                    (get("--enable-rbac-authorization")? == "true").into();
                let path = format!("{}?api-version=2023-07-01", vault["id"].as_str().unwrap());
                azure.ask(Method::PUT, &path, Some(vault)).await?;
            }
            _ => return Err(format!("az {kind:?} is not understood")),
        }
        Ok(())
    }
}

/// Resource Manager as the sandbox's operator.
struct Azure {
    client: Client,
    base: String,
    token: String,
}

impl Azure {
    async fn sign_in(emulated: &Emulated) -> Self {
        let ready = emulated.running.ready();
        let ca = std::fs::read(&ready.ca_file).unwrap();
        let ca = reqwest::Certificate::from_pem(&ca).unwrap();
        let client = Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
        let url = format!("{}/{}/oauth2/v2.0/token", ready.authority, ready.tenant);
        let form = format!(
            "grant_type=client_credentials&scope=https://management.azure.com/.default&\
             client_id={}&client_secret={}",
            ready.client_id, ready.client_secret
        );
        let kind = "application/x-www-form-urlencoded";
        let sent = client.post(url).header("content-type", kind).body(form).send().await.unwrap();
        let answer: Value = serde_json::from_str(&sent.text().await.unwrap()).unwrap();
        let token = answer["access_token"].as_str().unwrap().to_owned();
        Self { client, base: ready.resource_manager.clone(), token }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, String> {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let sent = request.send().await.map_err(|error| error.to_string())?;
        let status = sent.status();
        let text = sent.text().await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(format!("{path}: {status} {text}"));
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

#[test]
fn lines_are_split_as_a_shell_splits_them() {
    assert_eq!(words("a 'b c' d"), ["a", "b c", "d"]);
    assert_eq!(words(r"a 'x'\''y' ''"), ["a", "x'y", ""]);
}
