//! The pod that proves a chain from inside: what it is, when one is left over, and what its last
//! words mean. Pure.
//!
//! A bare pod, not a Job: it needs `create`, `get`, `list` and `delete` on pods alone, runs once,
//! and leaves nothing that would make another.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{CONTEXT_MISMATCH, ENTRA_UNREACHABLE, Method, Proof, ResolvedClaim, retry::Window};
use crate::{
    kubernetes::{Ended, ProofPod},
    model::{
        FailureKind, Project, RemoteFailure,
        names::{PROJECT_ANNOTATION, PROOF_LABEL, USE_LABEL, proof_mark},
    },
};

/// What the pod runs where nothing else is asked for: an image with a shell, curl and the public
/// certificate authorities. `mcr.microsoft.com/azure-cli` has them, too, and is larger.
pub const DEFAULT_IMAGE: &str = "docker.io/curlimages/curl:8.11.1";
/// What the container does.
const SCRIPT: &str = include_str!("proof.sh");
/// The script gives up by itself after this many seconds; the pod is ended a little later.
const LIMIT: u64 = 240;
const DEADLINE: u64 = 290;

/// A pod to be made.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// What it proves.
    pub claim: &'a ResolvedClaim,
    /// The owner mark.
    pub project: &'a Project,
    /// What it runs.
    pub image: &'a str,
    /// The scope of the token that it asks for.
    pub scope: &'a str,
    /// Over how long the answers must lie.
    pub window: Window,
}

impl Order<'_> {
    /// The value of the pod's label.
    pub fn mark(&self) -> String {
        proof_mark(self.project, &self.claim.namespace, &self.claim.account)
    }

    /// The pod, with a name that nobody else has. It satisfies the `restricted` Pod Security
    /// Standard, asks for little, and mounts no token for the API server.
    pub fn body(&self, number: u64) -> Value {
        let window = match self.window {
            Window::Observed => String::new(),
            Window::Fixed(window) => window.as_secs().to_string(),
        };
        let variable = |name: &str, value: &str| json!({"name": name, "value": value});
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": format!("widentity-proof-{number:016x}"),
                "namespace": self.claim.namespace.as_str(),
                "labels": {USE_LABEL: "true", PROOF_LABEL: self.mark()},
                "annotations": {PROJECT_ANNOTATION: self.project.as_str()},
            },
            "spec": {
                "serviceAccountName": self.claim.account.as_str(),
                "automountServiceAccountToken": false,
                "restartPolicy": "Never",
                "activeDeadlineSeconds": DEADLINE,
                "terminationGracePeriodSeconds": 1,
                "enableServiceLinks": false,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "proof",
                    "image": self.image,
                    "command": ["/bin/sh", "-c", SCRIPT],
                    "env": [
                        variable("WIDENTITY_SCOPE", self.scope),
                        variable("WIDENTITY_WINDOW", &window),
                        variable("WIDENTITY_LIMIT", &LIMIT.to_string()),
                    ],
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "32Mi"},
                        "limits": {"cpu": "100m", "memory": "64Mi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": true,
                        "runAsNonRoot": true,
                    },
                }],
            },
        })
    }

    /// Whether this pod was left by a run that was killed: ours by mark and project, and either
    /// over or older than any run lets one become. A pod that another run of the project works
    /// with at the moment is neither.
    pub fn is_left_over(&self, pod: &ProofPod, now: Timestamp) -> bool {
        let oldest = SignedDuration::try_from(Duration::from_secs(DEADLINE)).unwrap_or_default();
        let old = pod.created.is_some_and(|made| now.duration_since(made) > oldest);
        self.is_ours(pod) && (pod.is_over() || old)
    }

    /// Whether a pod is one that this order makes.
    pub fn is_ours(&self, pod: &ProofPod) -> bool {
        pod.project.as_deref() == Some(self.project.as_str()) && pod.account == self.claim.account
    }

    fn tried(&self) -> String {
        format!("prove {}/{} by a pod", self.claim.namespace, self.claim.account)
    }

    /// A failure of the proof.
    pub fn not_proved(&self, message: impl Into<String>) -> RemoteFailure {
        RemoteFailure::new(FailureKind::NotProved, self.tried(), message)
    }

    /// Whether the webhook gave the pod what its workload needs; checked before it is waited for.
    pub fn check_injected(&self, pod: &ProofPod) -> Result<(), RemoteFailure> {
        let differs = |name: &str, have: &mut dyn Iterator<Item = &String>, want: String| {
            let have: Vec<&str> = have.map(String::as_str).collect();
            let same = have.iter().all(|have| have.eq_ignore_ascii_case(&want));
            if !have.is_empty() && same {
                return Ok(());
            }
            let have = if have.is_empty() { "none".to_owned() } else { have.join(" and ") };
            let message = format!("the webhook gave the pod {name} {have}, wanted {want}");
            Err(self.not_proved(message).with_hint("widentity doctor"))
        };
        if !pod.injected.present {
            let message = "the pod came back without the environment of workload identity";
            let hint = "kubectl get mutatingwebhookconfigurations";
            return Err(self.not_proved(message).with_hint(hint));
        }
        let injected = &pod.injected;
        let (client, tenant) = (self.claim.client.to_string(), self.claim.tenant.to_string());
        differs("AZURE_CLIENT_ID", &mut injected.client_ids.iter(), client)?;
        differs("AZURE_TENANT_ID", &mut injected.tenant_ids.iter(), tenant)?;
        let audience = injected.audience.as_ref().map(|audience| audience.as_str().to_owned());
        differs("token audience", &mut audience.iter(), self.claim.audience.to_string())
    }

    /// Why it is of no use to wait for this pod any longer.
    pub fn stuck(&self, pod: &ProofPod) -> Option<RemoteFailure> {
        let (reason, message) = pod.waiting.as_ref()?;
        let for_good = matches!(
            reason.as_str(),
            "ImagePullBackOff"
                | "InvalidImageName"
                | "ErrImageNeverPull"
                | "CreateContainerConfigError"
                | "CreateContainerError"
                | "RunContainerError"
        );
        let text = format!("the pod cannot run: {reason}: {message}");
        let hint = "choose an image that the cluster can pull: --image";
        for_good.then(|| {
            let mut failure = self.not_proved(text).with_hint(hint);
            failure.kind = FailureKind::Unavailable;
            failure
        })
    }

    /// What a pod that is over has shown.
    pub fn judge(&self, pod: &ProofPod, elapsed: Duration) -> Result<Proof, RemoteFailure> {
        let Some(Ended { exit_code, reason, message }) = &pod.ended else {
            return Err(self.not_proved(format!("the pod ended as {} before it spoke", pod.phase)));
        };
        let Ok(report) = serde_json::from_str::<Report>(message) else {
            let said: String = message.trim().chars().take(200).collect();
            let text = format!(
                "the pod ended with exit code {exit_code} ({reason}) and no report: `{said}`"
            );
            let hint = "--image must name an image with sh, curl, sed and base64";
            return Err(self.not_proved(text).with_hint(hint));
        };
        let said = match report {
            Report { proved: true, .. } if *exit_code == 0 => report,
            report => return Err(self.refused(&report)),
        };
        let claim = self.claim;
        if said.iss != claim.issuer.as_str() {
            let mut failure = self.not_proved(format!(
                "the API server issues tokens as `{}`, Azure's record of the cluster says `{}`",
                said.iss, claim.issuer
            ));
            failure.code = Some(CONTEXT_MISMATCH.to_owned());
            return Err(failure.with_hint("kubectl config get-contexts"));
        }
        let wanted = [
            ("the pod's subject is", &said.sub, claim.subject().to_string()),
            ("the pod's token is for audience", &said.aud, claim.audience.to_string()),
            ("Entra answered in tenant", &said.tid, claim.tenant.to_string()),
            ("Entra answered as principal", &said.oid, claim.principal.to_string()),
        ];
        for (what, have, want) in &wanted {
            if *have != want {
                let message = format!("{what} `{have}`, not `{want}`");
                return Err(self.not_proved(message).with_hint("widentity plan"));
            }
        }
        Ok(Proof {
            iss: claim.issuer.clone(),
            sub: claim.subject(),
            aud: claim.audience.clone(),
            oid: claim.principal,
            attempts: said.tries,
            answers: said.answers,
            elapsed,
            method: Method::Job,
            probe: None,
        })
    }

    fn refused(&self, report: &Report) -> RemoteFailure {
        let text = report.text.trim();
        let mut failure = match report.stage.as_str() {
            "exchange" | "steady" => self.not_proved(text),
            "image" => {
                let hint = "--image must name an image with sh, curl, sed and base64";
                self.not_proved(text).with_hint(hint)
            }
            _ => self.not_proved(format!("the pod says: {text}")).with_hint("widentity doctor"),
        };
        if report.status > 0 {
            failure.status = Some(report.status);
        } else if report.stage == "exchange" {
            failure.kind = FailureKind::Unreachable;
            failure.code = Some(ENTRA_UNREACHABLE.to_owned());
            failure.hint = Some("the cluster's egress must reach Entra's authority".to_owned());
        }
        if report.code > 0 {
            failure.code = Some(format!("AADSTS{}", report.code));
            failure.hint = Some(format!("widentity explain AADSTS{}", report.code));
        }
        failure.correlation_id =
            Some(report.correlation.clone()).filter(|correlation| !correlation.is_empty());
        failure
    }
}

/// The pod's last words.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    proved: bool,
    stage: String,
    tries: u32,
    answers: u32,
    text: String,
    status: u16,
    code: u32,
    correlation: String,
    iss: String,
    sub: String,
    aud: String,
    oid: String,
    tid: String,
}

#[cfg(test)]
mod tests;
