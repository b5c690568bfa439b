//! Pods that are ending when `finish` begins are waited for: otherwise their bindings would be kept
//! for pods that are gone a moment later.

use super::{Overview, Patience};
use crate::{
    migrate::matching,
    model::{ClusterName, RemoteFailure, pod_identity::EstatePod},
    ops::Connected,
};

/// The pods that are ending and that a binding still selects, by cluster.
pub fn ending(over: &Overview) -> Vec<(&ClusterName, &EstatePod)> {
    let mut found = Vec::new();
    for read in &over.clusters {
        let estate = &read.estate;
        let selected = |pod: &&EstatePod| {
            pod.selector().is_some_and(|selector| {
                let mut bindings = estate.bindings.iter();
                bindings.any(|b| matching::selects(estate, b, &pod.namespace, selector))
            })
        };
        let pods = estate.pods.iter().filter(|pod| pod.ending).filter(selected);
        found.extend(pods.map(|pod| (&read.survey.cluster, pod)));
    }
    found
}

/// Waits until these pods have ended; only they are looked at. An error where it takes too long or
/// they cannot be seen.
pub async fn ended(
    pods: &[(&ClusterName, &EstatePod)],
    connected: &Connected,
    patience: &Patience,
) -> Result<(), RemoteFailure> {
    let mut watched = Vec::new();
    for (cluster, pod) in pods {
        watched.push((connected.client(cluster).await?, *pod));
    }
    let tried = "wait for pods to end";
    let left = async || {
        for (client, EstatePod { namespace, name, .. }) in &watched {
            let ending = client.pod_is_ending(namespace, name).await;
            if ending.map_err(|error| error.failure(tried))? {
                return Ok(Some(format!("pod {namespace}/{name} is still ending")));
            }
        }
        Ok(None)
    };
    patience.until(left, tried, "what they use stays until then").await?;
    Ok(())
}
