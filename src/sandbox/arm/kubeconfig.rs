//! The kubeconfigs that ARM hands out and that the sandbox writes beside its world.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value;

use crate::sandbox::{
    context::{ClusterRef, Context},
    tls,
    tokens::{self, KeyError},
};

/// A kubeconfig could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// The token of its user.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate authority of its server.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// Where a cluster's API server is and which authority signed its certificate, both as text.
fn server(ctx: &Context, doc: &Value) -> Result<(String, String), KubeconfigError> {
    if let Some(external) = doc.get("external").filter(|external| external.is_object()) {
        let text = |name: &str| external[name].as_str().unwrap_or_default().to_owned();
        return Ok((text("server"), text("ca_data")));
    }
    let text = |name: &str| doc[name].as_str().unwrap_or_default().to_owned();
    let (name, id) = (text("cluster"), text("id"));
    let key = ClusterRef { name: name.clone(), id }.key();
    let bound = ctx.endpoints.get().and_then(|bound| bound.clusters.get(&name).copied());
    let server = ctx.late.address(&key).or(bound).map_or_else(
        || format!("https://{}:443", doc["properties"]["fqdn"].as_str().unwrap_or_default()),
        |address| format!("https://{address}"),
    );
    Ok((server, BASE64.encode(tls::ca_pem(ctx)?)))
}

/// The kubeconfig that `listClusterUserCredential` or `listClusterAdminCredential` returns.
///
/// A cluster with Entra sign-in gives users an exec block for kubelogin, as AKS does.
pub(super) fn for_arm(
    ctx: &Context,
    doc: &Value,
    group: &str,
    admin: bool,
) -> Result<String, KubeconfigError> {
    let (server, ca) = server(ctx, doc)?;
    let name = doc["name"].as_str().unwrap_or_default();
    let kind = if admin { "clusterAdmin" } else { "clusterUser" };
    let user = format!("{kind}_{group}_{name}");
    let context = if admin { format!("{name}-admin") } else { name.to_owned() };
    let entra = doc["properties"]["aadProfile"]["managed"] == true;
    let credential = if entra && !admin {
        let tenant = ctx.settings.tenant;
        format!(
            "    exec:\n      apiVersion: client.authentication.k8s.io/v1beta1\n      args:\n      \
             - get-token\n      - --environment\n      - AzurePublicCloud\n      - --server-id\n      \
             - {}\n      - --client-id\n      - 80faf920-1908-4b52-b5ef-a8e7bedfc67a\n      \
             - --tenant-id\n      - {tenant}\n      - --login\n      - devicecode\n      \
             command: kubelogin\n      env: null\n      installHint: Please install kubelogin\n      \
             provideClusterInfo: false\n",
            tokens::AKS_SERVER
        )
    } else if let Some(user) = doc["external"].get("user_yaml").and_then(Value::as_str) {
        user.to_owned()
    } else {
        let id = doc["id"].as_str().unwrap_or_default();
        format!("    token: {}\n", tokens::operator_token(ctx, id)?)
    };
    Ok(text(&server, &ca, name, &context, &user, &credential))
}

/// The kubeconfig that the sandbox writes for one of its emulated clusters: its context has the
/// configuration's name of the cluster.
pub fn for_cluster(ctx: &Context, cluster: &ClusterRef) -> Result<String, KubeconfigError> {
    let doc = ctx.store.get(&format!("arm/{}", cluster.key()));
    let (server, ca) = server(ctx, doc.as_deref().unwrap_or(&Value::Null))?;
    let credential = format!("    token: {}\n", tokens::operator_token(ctx, &cluster.id)?);
    let user = format!("sandbox-{}", cluster.name);
    Ok(text(&server, &ca, &cluster.name, &cluster.name, &user, &credential))
}

fn text(
    server: &str,
    ca: &str,
    cluster: &str,
    context: &str,
    user: &str,
    credential: &str,
) -> String {
    // JSON strings are YAML strings, whatever the name holds.
    let quote = |text: &str| Value::from(text).to_string();
    let mut out = String::from("apiVersion: v1\nclusters:\n- cluster:\n");
    // Writing to a string cannot fail.
    _ = write!(
        out,
        "    certificate-authority-data: {ca}\n    server: {server}\n  name: {0}\ncontexts:\n\
         - context:\n    cluster: {0}\n    user: {1}\n  name: {2}\ncurrent-context: {2}\n\
         kind: Config\npreferences: {{}}\nusers:\n- name: {1}\n  user:\n{credential}",
        quote(cluster),
        quote(user),
        quote(context),
    );
    out
}
