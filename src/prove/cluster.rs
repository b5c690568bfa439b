//! An API server as the issuer of tokens to prove with, and as the host of pods that prove.

use serde_json::Value;

use super::{IssuedToken, TokenSource, job::PodHost};
use crate::{
    kubernetes::{Client, ProofPod},
    model::{AccountName, Audience, FailureKind, Namespace, RemoteFailure},
};

/// The field manager of proof pods; they are never written again.
const MANAGER: &str = "widentity";

impl PodHost for Client {
    async fn create(&self, namespace: &Namespace, body: &Value) -> Result<ProofPod, RemoteFailure> {
        let made = self.create_proof_pod(namespace, body, MANAGER).await;
        made.map_err(|error| error.failure(format!("make a pod in namespace {namespace}")))
    }

    async fn look(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<ProofPod>, RemoteFailure> {
        let found = self.proof_pod(namespace, name).await;
        found.map_err(|error| error.failure(format!("read pod {namespace}/{name}")))
    }

    async fn marked(
        &self,
        namespace: &Namespace,
        mark: &str,
    ) -> Result<Vec<ProofPod>, RemoteFailure> {
        let found = self.proof_pods(namespace, mark).await;
        found.map_err(|error| error.failure(format!("list pods of namespace {namespace}")))
    }

    async fn remove(&self, namespace: &Namespace, pod: &ProofPod) -> Result<(), RemoteFailure> {
        let removed = self.delete_proof_pod(namespace, pod).await;
        removed.map_err(|error| error.failure(format!("remove pod {namespace}/{}", pod.name)))
    }
}

impl TokenSource for Client {
    async fn token(
        &self,
        namespace: &Namespace,
        account: &AccountName,
        audience: &Audience,
        seconds: u32,
    ) -> Result<IssuedToken, RemoteFailure> {
        let issued = Self::token(self, namespace, account, audience, seconds).await;
        let issued = issued.map_err(|error| {
            let tried = format!("request a token of service account {namespace}/{account}");
            let failure = error.failure(tried);
            if failure.kind != FailureKind::Denied {
                return failure;
            }
            failure.with_hint(
                "allow `create` on serviceaccounts/token, or prove by a pod: widentity verify \
                 --method job",
            )
        })?;
        Ok(IssuedToken { token: issued.token, iss: issued.iss, sub: issued.sub, aud: issued.aud })
    }
}
