//! How a running sandbox is reached.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What `sandbox serve --ready-file` writes and what other runs attach by. It holds the
/// operator's secret, so its file is readable by its owner only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Format of this object: 1.
    pub version: u32,
    /// `https://localhost:<port>` of Azure Resource Manager.
    pub resource_manager: String,
    /// Base URL of Entra.
    pub authority: String,
    /// Base URL of Microsoft Graph.
    pub graph: String,
    /// Base URL of the data plane: `<base>/keyvault/<vault>/` and `<base>/blob/<account>/`.
    #[serde(default)]
    pub data_plane: String,
    /// `127.0.0.1:<port>` where the hosts of emulated issuers are served over HTTPS.
    #[serde(default)]
    pub issuers: String,
    /// The certificate authority of all of these, in PEM.
    pub ca_file: PathBuf,
    /// The tenant.
    pub tenant: Uuid,
    /// The default subscription.
    pub subscription: Uuid,
    /// Application id of the operator.
    pub client_id: Uuid,
    /// Secret of the operator.
    pub client_secret: String,
    /// Cluster name to kubeconfig.
    pub kubeconfigs: BTreeMap<String, PathBuf>,
}

impl Ready {
    /// The object as indented JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Reads the object back; `None` if it is not one.
    pub fn from_json(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("resource_manager", &self.resource_manager)
            .field("authority", &self.authority)
            .field("tenant", &self.tenant)
            .field("kubeconfigs", &self.kubeconfigs)
            .finish_non_exhaustive()
    }
}
