//! Configurations of mutating webhooks into [`ObservedWebhook`].
//!
//! Source: Azure/azure-workload-identity, `deploy/azure-wi-webhook.yaml`: the webhook is called
//! `mutation.azure-workload-identity.io` and selects pods by the label
//! `azure.workload.identity/use: "true"`. The AKS add-on installs the same objects in `kube-system`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::wire::Meta;
use crate::model::{names::USE_LABEL, snapshot::ObservedWebhook};

/// The name that add-on, chart and manifest give the configuration.
pub(super) const USUAL_NAME: &str = "azure-wi-webhook-mutating-webhook-configuration";
const WEBHOOK: &str = "mutation.azure-workload-identity.io";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Configuration {
    metadata: Meta,
    webhooks: Option<Vec<Webhook>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Webhook {
    name: String,
    object_selector: Option<Selector>,
    client_config: Option<ClientConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    match_labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClientConfig {
    service: Option<Service>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Service {
    namespace: Option<String>,
}

impl Configuration {
    fn webhook(&self) -> Option<&Webhook> {
        let selects = |webhook: &&Webhook| {
            let labels = webhook.object_selector.as_ref().and_then(|s| s.match_labels.as_ref());
            webhook.name == WEBHOOK || labels.is_some_and(|labels| labels.contains_key(USE_LABEL))
        };
        self.webhooks.iter().flatten().find(selects)
    }
}

/// The configurations that send labelled pods to a workload identity webhook; none: not installed.
pub(super) fn webhook(configurations: &[Configuration]) -> Option<ObservedWebhook> {
    let found = configurations.iter().filter_map(|c| Some((c, c.webhook()?)));
    let mut found: Vec<_> = found.map(|(c, webhook)| (c.metadata.name.clone(), webhook)).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let service = found.first()?.1.client_config.as_ref().and_then(|c| c.service.as_ref());
    Some(ObservedWebhook {
        service_namespace: service.and_then(|service| service.namespace.clone()),
        configurations: found.into_iter().map(|(name, _)| name).collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_webhook_is_found_by_name_or_selector_and_others_are_not() {
        let read = |objects| -> Vec<Configuration> { serde_json::from_value(objects).unwrap() };
        let own = json!({"metadata": {"name": USUAL_NAME}, "webhooks": [{"name": WEBHOOK,
            "clientConfig": {"service": {"namespace": "kube-system", "name": "s"}}}]});
        let second = json!({"metadata": {"name": "custom"}, "webhooks": [{"name": "x",
            "objectSelector": {"matchLabels": {"azure.workload.identity/use": "true"}},
            "clientConfig": {"url": "https://127.0.0.1:1"}}]});
        let other = json!({"metadata": {"name": "istio"}, "webhooks": [{"name": "i"}]});
        assert_eq!(webhook(&read(json!([other]))), None);
        let found = webhook(&read(json!([own.clone(), other]))).unwrap();
        assert_eq!(found.configurations, [USUAL_NAME]);
        assert_eq!(found.service_namespace.as_deref(), Some("kube-system"));
        let twice = webhook(&read(json!([own, second]))).unwrap();
        assert_eq!(twice.configurations, [USUAL_NAME, "custom"]);
    }
}
