//! Objects as they are, for diagnosis, which looks at fields that nothing else needs.

use serde_json::Value;

use super::{Client, KubeError, client::segment, versions::collection};

impl Client {
    /// Every object of a kind in one namespace, or of the cluster; none where the kind is not
    /// served. `version` is `v1` or `<group>/<version>`.
    pub async fn objects(
        &self,
        version: &str,
        namespace: Option<&str>,
        plural: &str,
    ) -> Result<Option<Vec<Value>>, KubeError> {
        let path = collection(version, namespace, plural);
        match self.list(&path, |found: &mut Vec<Value>, object| found.push(object)).await {
            Err(error) if error.is_not_served() => Ok(None),
            found => found.map(Some),
        }
    }

    /// One object; none where it, or its kind, is not there.
    pub async fn object(
        &self,
        version: &str,
        namespace: Option<&str>,
        plural: &str,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        let path = format!("{}/{}", collection(version, namespace, plural), segment(name));
        match self.find(path).await {
            Err(error) if error.is_not_served() => Ok(None),
            found => found,
        }
    }
}
