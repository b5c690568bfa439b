//! What a migration reads and writes in a cluster beside the engine's own steps.

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    kubernetes::{Client, KubeError, Place},
    model::{
        Namespace,
        pod_identity::{Assigned, Backup, Named, TemplateBackup},
    },
};

/// Backups, and the objects of Pod Identity. The methods are those of [`Client`]; a test puts a
/// world in memory in its place and lets it fail anywhere.
#[async_trait]
pub trait Objects: Send + Sync {
    /// As [`Client::write_backup`].
    async fn write_backup(&self, backup: &Backup, manager: &str) -> Result<(), KubeError>;
    /// As [`Client::restore_template`].
    async fn restore_template(
        &self,
        at: Place<'_>,
        kept: &TemplateBackup,
        manager: &str,
    ) -> Result<Vec<String>, KubeError>;
    /// As [`Client::free_pods`].
    async fn free_pods(&self, at: Place<'_>) -> Result<(), KubeError>;
    /// As [`Client::restore_account`].
    async fn restore_account(
        &self,
        backup: &Backup,
        manager: &str,
    ) -> Result<Vec<String>, KubeError>;
    /// As [`Client::make_again`].
    async fn make_again(&self, object: &Value, manager: &str) -> Result<(), KubeError>;
    /// As [`Client::remove_binding`].
    async fn remove_binding(&self, object: &Named) -> Result<(), KubeError>;
    /// As [`Client::remove_identity`].
    async fn remove_identity(&self, object: &Named) -> Result<(), KubeError>;
    /// As [`Client::pod_identity_binding`].
    async fn pod_identity_binding(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError>;
    /// As [`Client::pod_identity`].
    async fn pod_identity(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError>;
    /// As [`Client::assigned`].
    async fn assigned(&self) -> Result<Vec<Assigned>, KubeError>;
}

#[async_trait]
impl Objects for Client {
    async fn write_backup(&self, backup: &Backup, manager: &str) -> Result<(), KubeError> {
        Self::write_backup(self, backup, manager).await
    }

    async fn restore_template(
        &self,
        at: Place<'_>,
        kept: &TemplateBackup,
        manager: &str,
    ) -> Result<Vec<String>, KubeError> {
        Self::restore_template(self, at, &kept.labels, &kept.annotations, manager).await
    }

    async fn free_pods(&self, at: Place<'_>) -> Result<(), KubeError> {
        Self::free_pods(self, at).await
    }

    async fn restore_account(
        &self,
        backup: &Backup,
        manager: &str,
    ) -> Result<Vec<String>, KubeError> {
        let Backup { namespace, account, annotations, .. } = backup;
        Self::restore_account(self, namespace, account.as_str(), annotations, manager).await
    }

    async fn make_again(&self, object: &Value, manager: &str) -> Result<(), KubeError> {
        Self::make_again(self, object, manager).await
    }

    async fn remove_binding(&self, object: &Named) -> Result<(), KubeError> {
        Self::remove_binding(self, object).await
    }

    async fn remove_identity(&self, object: &Named) -> Result<(), KubeError> {
        Self::remove_identity(self, object).await
    }

    async fn pod_identity_binding(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        Self::pod_identity_binding(self, namespace, name).await
    }

    async fn pod_identity(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<Value>, KubeError> {
        Self::pod_identity(self, namespace, name).await
    }

    async fn assigned(&self) -> Result<Vec<Assigned>, KubeError> {
        Self::assigned(self).await
    }
}
