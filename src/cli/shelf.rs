//! Backups of migrations on disk, readable by their owner only: one file a workload, beside the
//! configuration; those of the sandbox beside its world.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{main::Context, sandbox::state_file};
use crate::{
    model::{
        ArmId, ClusterName, FailureKind, RemoteFailure, desired::DesiredState, pod_identity::Backup,
    },
    ops::migrate::Shelf,
    render::json,
};

/// A folder of backups.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The ids of the clusters: a rebuilt cluster, or another file's, has other workloads.
    clusters: BTreeMap<ClusterName, ArmId>,
}

/// What a file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    cluster: ArmId,
    backup: Backup,
}

/// The folder of the sandbox's world.
pub(super) fn of_sandbox(context: &Context) -> PathBuf {
    state_file(context).with_extension("migrate")
}

impl Folder {
    /// The folder that belongs to the configuration, or to the sandbox.
    pub(super) fn of(context: &Context, desired: &DesiredState) -> Self {
        let path = if context.global.sandbox {
            of_sandbox(context)
        } else {
            let beside = context.global.config.parent().unwrap_or(Path::new(""));
            beside.join(".widentity").join("migrate")
        };
        let clusters = desired.clusters.values();
        Self { path, clusters: clusters.map(|c| (c.name.clone(), c.id.clone())).collect() }
    }

    /// What was removed, beside the backups: one file an object.
    fn removed(&self) -> PathBuf {
        self.path.join("removed")
    }
}

/// Writes a whole file or none, which only its owner may read.
fn write(folder: &Path, name: &str, document: &impl Serialize) -> Result<(), RemoteFailure> {
    let written = || -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let beside = folder.join(format!(".{name}.tmp"));
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(json::to_text(document).as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, folder.join(format!("{name}.json")))
    };
    written().map_err(|error| {
        let tried = format!("write a backup to {}", folder.display());
        RemoteFailure::new(FailureKind::Refused, tried, error.to_string())
    })
}

impl Shelf for Folder {
    fn put(&self, cluster: &ClusterName, backup: &Backup) -> Result<(), RemoteFailure> {
        let kept = Kept {
            cluster: self.clusters.get(cluster).cloned().unwrap_or_else(|| ArmId::new("")),
            backup: backup.clone(),
        };
        let name = format!("{cluster}_{}_{}", backup.namespace, backup.account);
        write(&self.path, &name, &kept)
    }

    fn keep(&self, cluster: &ClusterName, name: &str, object: &Value) -> Result<(), RemoteFailure> {
        write(&self.removed(), &format!("{cluster}_{name}"), object)
    }

    fn of(&self, cluster: &ClusterName) -> Vec<Backup> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        let id = self.clusters.get(cluster);
        let read =
            |path: &PathBuf| -> io::Result<Kept> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
        let kept = paths.iter().filter_map(|path| match read(path) {
            Ok(kept) => (Some(&kept.cluster) == id).then_some(kept.backup),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a backup cannot be read");
                None
            }
        });
        kept.collect()
    }
}
