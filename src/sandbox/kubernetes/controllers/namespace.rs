//! Namespaces: what each has from the start, and how they end.

use serde_json::json;

use super::{
    super::{
        delete::Deletion,
        error::Outcome,
        storage::{Key, Tx},
    },
    rolling::manager,
};

/// Fills a new namespace, empties one that ends.
pub(super) fn sync(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let Some(namespace) = tx.get_key(key) else { return Ok(()) };
    if !namespace["metadata"]["deletionTimestamp"].is_string() {
        return fill(tx, &key.name);
    }
    let stems: Vec<String> = tx
        .state
        .kinds
        .all()
        .filter(|k| k.namespaced && !k.review)
        .map(|k| k.stem())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut left = false;
    for stem in stems {
        for (child, object) in tx.list(&stem, Some(&key.name)) {
            if object["metadata"]["deletionTimestamp"].is_string() {
                left = true;
            } else {
                let now = Deletion { grace: Some(0), ..Deletion::default() };
                tx.delete(&child, &now)?;
                left |= tx.get_key(&child).is_some();
            }
        }
    }
    if left {
        // What is held by finalizers is looked at again a moment later.
        let again = tx.now.checked_add(jiff::SignedDuration::from_millis(500)).unwrap_or(tx.now);
        tx.enqueue_at(again, key.clone());
        return Ok(());
    }
    let mut emptied = (*namespace).clone();
    emptied["spec"]["finalizers"] = json!([]);
    if emptied["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
        tx.erase(key).map(drop)
    } else if emptied != *namespace {
        tx.store(key, emptied).map(drop)
    } else {
        Ok(())
    }
}

/// The account `default` and the certificate of the API server.
fn fill(tx: &mut Tx<'_>, namespace: &str) -> Outcome<()> {
    let wanted = [
        (
            "serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
        ),
        (
            "configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "kube-root-ca.crt",
                "annotations": {"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."}},
            "data": {"ca.crt": ""}}),
        ),
    ];
    for (plural, object) in wanted {
        let Some(kind) = tx.state.kinds.find("", "v1", plural).cloned() else { continue };
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if tx.get_key(&Key::new(&kind, namespace, &name)).is_none() {
            tx.create(&kind, namespace, object, &manager())?;
        }
    }
    Ok(())
}

/// Makes the account `default` again after it was deleted.
pub(super) fn ensure_defaults(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let namespace = tx.get_key(&Key::of("core/namespaces/", "", &key.namespace));
    match namespace {
        Some(found) if !found["metadata"]["deletionTimestamp"].is_string() => {
            fill(tx, &key.namespace)
        }
        _ => Ok(()),
    }
}
