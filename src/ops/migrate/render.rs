//! `migrate render DIR`: reads the manifests under a directory and says how they change.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Overview;
use crate::{
    migrate::manifest::{self, Cluster, File, Rendering},
    model::desired::DesiredState,
};

/// A manifest is smaller; what is larger is not one.
const LARGEST: u64 = 8 << 20;
/// A directory with more files than this is not one of manifests.
const MOST: usize = 50_000;

/// The directory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Too much.
    #[error("{} holds more than {MOST} manifests", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
}

/// Says how the manifests under `directory` must change for the workloads of the overview. Nothing
/// is written. Links are not followed, and names that begin with a dot are passed over.
pub fn render(
    desired: &DesiredState,
    overview: &Overview,
    directory: &Path,
) -> Result<Rendering, ReadError> {
    let mut paths = Vec::new();
    collect(directory, &mut paths)?;
    if paths.len() > MOST {
        return Err(ReadError::TooMany { path: directory.to_owned() });
    }
    paths.sort();
    let (mut files, mut unread) = (Vec::new(), Vec::new());
    for path in paths {
        let shown = path.display().to_string();
        match text(&path) {
            Ok(text) if is_manifest(&path, &text) => files.push(File { path: shown, text }),
            Ok(_) => {}
            Err(why) => unread.push((shown, why)),
        }
    }
    let clusters: Vec<Cluster<'_>> = overview
        .clusters
        .iter()
        .filter_map(|read| {
            let cluster = desired.clusters.get(&read.survey.cluster)?;
            let (estate, survey) = (&read.estate, &read.survey);
            Some(Cluster { estate, survey, audience: &cluster.audience })
        })
        .collect();
    let mut rendering = manifest::render(&clusters, &desired.workloads, &files);
    rendering.unread.extend(unread);
    rendering.unread.sort();
    Ok(rendering)
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) -> Result<(), ReadError> {
    let failed = |source| ReadError::Io { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') || found.len() > MOST {
            continue;
        }
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
            || entry.file_name() == "Kustomization";
        if kind.is_dir() {
            collect(&path, found)?;
        } else if kind.is_file() && yaml {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether a file is to be looked into: JSON serves for much else, and a patch of kustomize is but
/// a list of operations.
fn is_manifest(path: &Path, text: &str) -> bool {
    path.extension().is_none_or(|e| e != "json")
        || ["\"apiVersion\"", "\"op\""].iter().any(|key| text.contains(key))
}

fn text(path: &Path) -> Result<String, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > LARGEST {
        return Err(format!("it is larger than {} MB", LARGEST >> 20));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}
