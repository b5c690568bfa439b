//! Managed clusters: their record, their features, and where their API server is.

use std::collections::BTreeSet;

use azure_core::http::Method;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use kube::config::Kubeconfig;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{
    arm::{Arm, Call},
    disposition::{Asked, Context},
    error::ArmError,
    managed_cluster::{enabling, has, observe},
    update::Update,
};
use crate::model::{ArmId, SubscriptionId, desired::Feature, snapshot::ObservedCluster};

/// One generally available version for reading and writing: a write through an older one could
/// lose settings that it does not know.
///
/// Source: the `Microsoft.ContainerService` specifications in Azure/azure-rest-api-specs.
const API: (&str, &str) = ("api-version", "2025-10-01");

/// Where a cluster's API server is and what vouches for it. Azure's answer also names users; none
/// of those is taken, and a command it would have run is not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAndCa {
    /// The API server.
    pub server: Url,
    /// The certificate authority, PEM.
    pub ca_pem: String,
}

impl Arm {
    /// One cluster; none if it, or its group, is not there.
    pub async fn cluster(&self, id: &ArmId) -> Result<Option<ObservedCluster>, ArmError> {
        self.cluster_record(id).await?.as_ref().map(observed).transpose()
    }

    /// Every cluster of a subscription.
    pub async fn clusters_in(
        &self,
        subscription: SubscriptionId,
    ) -> Result<Vec<ObservedCluster>, ArmError> {
        let path = format!(
            "/subscriptions/{subscription}/providers/Microsoft.ContainerService/managedClusters"
        );
        let list: Vec<Value> = self.list(self.url(&path, &[API])?, Context::default()).await?;
        list.iter().map(observed).collect()
    }

    /// Switches features of a cluster on and waits until they are. Does nothing where they are on.
    /// Neither can be switched off again by Azure's rules (the issuer) or widentity (the add-on).
    pub async fn enable_features(
        &self,
        id: &ArmId,
        features: &BTreeSet<Feature>,
    ) -> Result<ObservedCluster, ArmError> {
        let done = |cluster: &Value| features.iter().all(|feature| has(cluster, *feature));
        let change = |cluster: Value| enabling(cluster, features);
        observed(&self.update_cluster(id, &done, &change, "the features are still off").await?)
    }

    /// Changes settings of a cluster and waits until they are changed: reads the record when
    /// nothing else is at work on it, sends back what `change` makes of it, under the eTag that
    /// was read. Sends nothing where `done` says so of what was read. `otherwise` says what is the
    /// case if the update succeeded and `done` still denies.
    pub(super) async fn update_cluster(
        &self,
        id: &ArmId,
        done: &(dyn Fn(&Value) -> bool + Sync),
        change: &(dyn Fn(Value) -> Value + Sync),
        otherwise: &str,
    ) -> Result<Value, ArmError> {
        let url = self.url(id.as_str(), &[API])?;
        let change = |read: &Value| (!done(read)).then(|| change(read.clone()));
        let update = Update {
            what: "cluster",
            method: Method::Put,
            asked: Asked::WriteCluster,
            change: &change,
            otherwise,
        };
        self.update(&url, &update).await.map(|(cluster, _)| cluster)
    }

    /// The record of a cluster as Azure sends it; none if it, or its group, is not there.
    pub(super) async fn cluster_record(&self, id: &ArmId) -> Result<Option<Value>, ArmError> {
        match self.send(&Call::get(self.url(id.as_str(), &[API])?)).await {
            Ok(answer) => answer.json().map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Server and certificate authority of a cluster, from the kubeconfig that Azure gives to
    /// users. Administrator credentials are never asked for.
    pub async fn cluster_server(&self, id: &ArmId) -> Result<ServerAndCa, ArmError> {
        #[derive(Deserialize)]
        struct Answer {
            kubeconfigs: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            value: String,
        }
        let url = self.url(&format!("{id}/listClusterUserCredential"), &[API])?;
        let call = Call {
            method: Method::Post,
            url,
            body: None,
            if_match: None,
            context: Context::default(),
        };
        let answer: Answer = self.send(&call).await?.json()?;
        let first = answer.kubeconfigs.first();
        first.and_then(|entry| server_and_ca(&entry.value)).ok_or_else(|| ArmError::Body {
            message: "Azure's kubeconfig names no https server with a certificate authority".into(),
        })
    }
}

fn observed(cluster: &Value) -> Result<ObservedCluster, ArmError> {
    observe(cluster)
        .ok_or_else(|| ArmError::Body { message: "the cluster's record has no id".to_owned() })
}

fn server_and_ca(encoded: &str) -> Option<ServerAndCa> {
    let decode = |text: &str| {
        let compact: String = text.split_whitespace().collect();
        String::from_utf8(BASE64_STANDARD.decode(compact).ok()?).ok()
    };
    let config = Kubeconfig::from_yaml(&decode(encoded)?).ok()?;
    let cluster = config.clusters.into_iter().next()?.cluster?;
    let server = Url::parse(&cluster.server?).ok().filter(|url| url.scheme() == "https")?;
    Some(ServerAndCa { server, ca_pem: decode(&cluster.certificate_authority_data?)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(server: &str) -> String {
        let ca = BASE64_STANDARD.encode("-----BEGIN CERTIFICATE-----\n");
        BASE64_STANDARD.encode(format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: aks\n  cluster:\n    \
             certificate-authority-data: {ca}\n    server: {server}\ncontexts: []\nusers:\n- name: u\n  \
             user:\n    exec:\n      apiVersion: client.authentication.k8s.io/v1beta1\n      \
             command: /bin/false\n"
        ))
    }

    #[test]
    fn server_and_ca_are_taken_and_nothing_else() {
        let found =
            server_and_ca(&kubeconfig("https://aks-x.hcp.westeurope.azmk8s.io:443")).unwrap();
        assert_eq!(found.server.as_str(), "https://aks-x.hcp.westeurope.azmk8s.io/");
        assert_eq!(found.ca_pem, "-----BEGIN CERTIFICATE-----\n");
    }

    #[test]
    fn a_kubeconfig_without_https_is_refused() {
        assert_eq!(server_and_ca(&kubeconfig("http://aks-x.example")), None);
        assert_eq!(server_and_ca("not base64!"), None);
    }
}
