//! `--only`, `-n` and `--cluster`: which workloads, in which clusters.

use std::collections::BTreeSet;

use super::{Config, checked::Workload, glob};
use crate::model::{ClusterName, suggest};

/// What the command line chooses. Members of one list are alternatives; the lists together are
/// conditions. Empty lists choose everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Patterns over `<namespace>/<service account>`, or with `@<cluster>` over that.
    pub only: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
    /// Clusters, by their names in the file.
    pub clusters: Vec<String>,
}

/// A selection that chooses nothing, or not what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// A cluster that is not in the file.
    #[error("there is no cluster `{name}` in the file{}", hint(similar.as_deref()))]
    UnknownCluster {
        /// What was asked for.
        name: String,
        /// A cluster with a similar name.
        similar: Option<String>,
    },
    /// No workload is in this namespace.
    #[error("no workload of the file is in namespace `{name}`{}", hint(similar.as_deref()))]
    UnknownNamespace {
        /// What was asked for.
        name: String,
        /// A namespace with a similar name.
        similar: Option<String>,
    },
    /// A pattern that no workload matches.
    #[error("`{pattern}` matches no workload of the file{}", hint(similar.as_deref()))]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// A workload with a similar address.
        similar: Option<String>,
    },
    /// A pattern for a part of a workload: parts cannot be chosen, they depend on each other.
    #[error("`{pattern}` names a part of a workload; choose the workload: `{workload}`")]
    Part {
        /// The pattern.
        pattern: String,
        /// The pattern without the part.
        workload: String,
    },
    /// Each option matches something, and all together nothing.
    #[error("no workload matches all of --only, -n and --cluster")]
    Nothing,
}

fn hint(similar: Option<&str>) -> String {
    similar.map(|similar| format!("; did you mean `{similar}`?")).unwrap_or_default()
}

impl Selection {
    /// Whether everything is chosen.
    pub fn is_everything(&self) -> bool {
        self.only.is_empty() && self.namespaces.is_empty() && self.clusters.is_empty()
    }

    /// The chosen clusters of each workload, in the order of [`Config::workloads`].
    pub(super) fn choose(
        &self,
        config: &Config,
    ) -> Result<Vec<BTreeSet<ClusterName>>, SelectionError> {
        self.check(config)?;
        let chosen: Vec<BTreeSet<ClusterName>> = config
            .workloads
            .iter()
            .map(|workload| {
                let clusters = workload.clusters.iter();
                clusters.filter(|cluster| self.takes(workload, cluster)).cloned().collect()
            })
            .collect();
        if !self.is_everything() && chosen.iter().all(BTreeSet::is_empty) {
            return Err(SelectionError::Nothing);
        }
        Ok(chosen)
    }

    fn takes(&self, workload: &Workload, cluster: &ClusterName) -> bool {
        let any = |list: &[String], test: &dyn Fn(&String) -> bool| {
            list.is_empty() || list.iter().any(test)
        };
        any(&self.namespaces, &|name| *name == workload.namespace.0)
            && any(&self.clusters, &|name| *name == cluster.0)
            && any(&self.only, &|pattern| matches(pattern, workload, cluster))
    }

    /// Each option must choose something by itself: a typo beside a good one is a typo.
    fn check(&self, config: &Config) -> Result<(), SelectionError> {
        for name in &self.clusters {
            if !config.clusters.contains_key(&ClusterName::from(name.as_str())) {
                let known = config.clusters.keys().map(ClusterName::as_str);
                let similar = suggest::similar(name, known).map(str::to_owned);
                return Err(SelectionError::UnknownCluster { name: name.clone(), similar });
            }
        }
        for name in &self.namespaces {
            let known = config.workloads.iter().map(|workload| workload.namespace.as_str());
            if !known.clone().any(|known| known == name) {
                let similar = suggest::similar(name, known).map(str::to_owned);
                return Err(SelectionError::UnknownNamespace { name: name.clone(), similar });
            }
        }
        for pattern in &self.only {
            let hit = |workload: &Workload| {
                workload.clusters.iter().any(|cluster| matches(pattern, workload, cluster))
            };
            if config.workloads.iter().any(hit) {
                continue;
            }
            if let Some((workload, _)) = pattern.split_once(':') {
                let (pattern, workload) = (pattern.clone(), workload.to_owned());
                return Err(SelectionError::Part { pattern, workload });
            }
            let known: Vec<String> = config.workloads.iter().map(address).collect();
            let similar = suggest::similar(pattern, known.iter().map(String::as_str));
            let similar = similar.map(str::to_owned);
            return Err(SelectionError::NoMatch { pattern: pattern.clone(), similar });
        }
        Ok(())
    }
}

fn address(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.account)
}

fn matches(pattern: &str, workload: &Workload, cluster: &ClusterName) -> bool {
    let address = address(workload);
    if pattern.contains('@') {
        glob::matches(pattern, &format!("{address}@{cluster}"))
    } else {
        glob::matches(pattern, &address)
    }
}
