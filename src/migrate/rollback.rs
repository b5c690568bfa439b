//! Putting a workload back: what stands in the way, and what is left behind on purpose.

use super::matching;
use crate::model::{
    ArmId, Subject,
    pod_identity::{AzureIdentityState, BINDING_LABEL, Backup, Estate},
};

/// What keeps Pod Identity from answering the workload again, so that it must not be put back.
/// The old path is gone where its definitions are, or where the add-on dropped the identity.
pub fn obstacles(estate: &Estate, backup: &Backup) -> Vec<String> {
    if !estate.installed {
        return vec![
            "Pod Identity is not installed in the cluster any more: nothing would answer its pods"
                .to_owned(),
        ];
    }
    // What could not be read is not taken for gone.
    let mut found = if estate.unseen.is_empty() { unanswered(estate, backup) } else { Vec::new() };
    for entry in &backup.add_on {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let there = |known: &String| *known == format!("{namespace}/{name}");
        if estate.add_on.iter().flatten().any(there) {
            continue;
        }
        let id = entry["identity"]["resourceId"].as_str().unwrap_or_default();
        let selector = entry["bindingSelector"].as_str().filter(|s| !s.is_empty());
        let selector = selector.map(|s| format!(" --binding-selector {s}")).unwrap_or_default();
        found.push(format!(
            "the AKS add-on has no identity {namespace}/{name} any more: az aks pod-identity add \
             --resource-group GROUP --cluster-name CLUSTER --namespace {namespace} --name {name} \
             --identity-resource-id {id}{selector}"
        ));
    }
    found
}

/// What should be looked at all the same.
pub fn doubts(estate: &Estate) -> Option<String> {
    let nmi = estate.installs.iter().any(|install| install.component == "nmi");
    (!nmi)
        .then(|| "no NMI was found in the cluster: see that something answers its pods".to_owned())
}

/// Federated credentials that trust the account and stay: they give nobody anything that the
/// service account's owner does not have, and the next attempt needs them.
pub fn left(estate: &Estate, backup: &Backup) -> Vec<(ArmId, String)> {
    let id = ArmId::new(backup.identity.clone());
    let subject = Subject::of(&backup.namespace, &backup.account);
    let Some(AzureIdentityState::Present(_, credentials)) = estate.azure.get(&id) else {
        return Vec::new();
    };
    let trusts = credentials.iter().filter(|credential| {
        Some(&credential.issuer) == estate.issuer.as_ref()
            && credential.subject.as_ref() == Some(&subject)
    });
    trusts.map(|credential| (id.clone(), credential.name.clone())).collect()
}

/// Label values that the workload gets back and that no binding selects.
fn unanswered(estate: &Estate, backup: &Backup) -> Vec<String> {
    let mut found = Vec::new();
    for template in &backup.templates {
        let Some(field) = template.labels.get(BINDING_LABEL) else {
            continue;
        };
        let Some(selector) = &field.before else { continue };
        let made = backup.removed.iter().any(|object| object["spec"]["selector"] == **selector);
        let made = made || backup.removed.iter().any(|o| o["spec"]["Selector"] == **selector);
        let add_on = !backup.add_on.is_empty();
        if !made && !add_on && matching::reached(estate, &backup.namespace, selector).is_empty() {
            found.push(format!("no binding selects aadpodidbinding={selector}"));
        }
    }
    found.sort();
    found.dedup();
    found
}
