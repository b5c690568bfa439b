//! The proof by a pod: made, waited for, heard, and always removed.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{self, Instant};

use super::{Proof, pod::Order};
use crate::{
    kubernetes::ProofPod,
    model::{FailureKind, Namespace, RemoteFailure},
};

/// Looks at the pod are this far apart.
const LOOKS_APART: Duration = Duration::from_secs(1);
/// Removing it may take this long, also when the run is being ended.
const REMOVAL: Duration = Duration::from_secs(10);

/// Where proof pods run: an API server.
pub trait PodHost: Sync {
    /// Makes a pod.
    fn create(
        &self,
        namespace: &Namespace,
        body: &Value,
    ) -> impl Future<Output = Result<ProofPod, RemoteFailure>> + Send;
    /// Looks at a pod; none where it is gone.
    fn look(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> impl Future<Output = Result<Option<ProofPod>, RemoteFailure>> + Send;
    /// The pods of a mark.
    fn marked(
        &self,
        namespace: &Namespace,
        mark: &str,
    ) -> impl Future<Output = Result<Vec<ProofPod>, RemoteFailure>> + Send;
    /// Removes a pod by its uid; one that is gone is well.
    fn remove(
        &self,
        namespace: &Namespace,
        pod: &ProofPod,
    ) -> impl Future<Output = Result<(), RemoteFailure>> + Send;
}

/// When a proof by a pod is made and how it is told.
pub struct Circumstances<'a> {
    /// The wall time.
    pub now: Timestamp,
    /// A number that no other pod's name has.
    pub number: u64,
    /// Until when is waited.
    pub deadline: Instant,
    /// Hears what every wait is for, as a fragment after "waiting for".
    pub progress: &'a mut (dyn FnMut(String) + Send + Sync),
}

/// Proves a claim by a pod that runs as the account. When `stop` comes, or the deadline, the pod
/// is removed and nothing is proved. Pods that a killed run left behind are removed first.
pub async fn prove_by_pod<H: PodHost>(
    host: &H,
    order: &Order<'_>,
    circumstances: Circumstances<'_>,
    stop: impl Future<Output = ()> + Send,
) -> Result<Proof, RemoteFailure> {
    let Circumstances { now, number, deadline, progress } = circumstances;
    let namespace = &order.claim.namespace;
    for old in host.marked(namespace, &order.mark()).await? {
        if order.is_left_over(&old, now) {
            host.remove(namespace, &old).await?;
        }
    }
    let body = order.body(number);
    let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let made = match host.create(namespace, &body).await {
        Ok(made) => made,
        Err(failure) => {
            // It may have been made although no answer came.
            if let Ok(Some(pod)) = host.look(namespace, &name).await
                && order.is_ours(&pod)
            {
                remove(host, order, &pod).await?;
            }
            return Err(failure);
        }
    };
    let watched = watch(host, order, &made, deadline, progress);
    let proved = tokio::select! {
        biased;
        () = stop => Err(order.not_proved("the run was ended before the pod had spoken")),
        proved = watched => proved,
    };
    // What is left behind is told before anything else: only a person can remove it.
    remove(host, order, &made).await?;
    proved
}

/// Waits for the pod's last words.
async fn watch<H: PodHost>(
    host: &H,
    order: &Order<'_>,
    made: &ProofPod,
    deadline: Instant,
    progress: &mut (dyn FnMut(String) + Send + Sync),
) -> Result<Proof, RemoteFailure> {
    order.check_injected(made)?;
    let began = Instant::now();
    loop {
        let Some(pod) = host.look(&order.claim.namespace, &made.name).await? else {
            return Err(order.not_proved("somebody removed the pod before it had spoken"));
        };
        if pod.is_over() {
            return order.judge(&pod, began.elapsed());
        }
        if let Some(failure) = order.stuck(&pod) {
            return Err(failure);
        }
        if Instant::now() + LOOKS_APART > deadline {
            let mut failure = order.not_proved(match &pod.waiting {
                Some((reason, message)) => format!("the pod did not start: {reason}: {message}"),
                None => "the pod did not end in time".to_owned(),
            });
            failure.kind = FailureKind::TimedOut;
            return Err(failure);
        }
        progress(match &pod.waiting {
            Some((reason, _)) => format!("pod {} to start ({reason})", pod.name),
            None => format!("pod {} to end", pod.name),
        });
        time::sleep(LOOKS_APART).await;
    }
}

/// Removes the pod; where that fails, says what is left and how to remove it.
async fn remove<H: PodHost>(
    host: &H,
    order: &Order<'_>,
    pod: &ProofPod,
) -> Result<(), RemoteFailure> {
    let namespace = &order.claim.namespace;
    let hint = format!("kubectl delete pod {} -n {namespace}", pod.name);
    match time::timeout(REMOVAL, host.remove(namespace, pod)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(failure.with_hint(hint)),
        Err(_) => {
            let tried = format!("remove pod {namespace}/{}", pod.name);
            let message = "the API server does not answer";
            Err(RemoteFailure::new(FailureKind::TimedOut, tried, message).with_hint(hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        kubernetes::Ended,
        model::{ArmId, Audience, Project, snapshot::Injected},
        prove::{ResolvedClaim, retry::Window},
    };

    const CLIENT: &str = "00000000-0000-0000-0000-000000000003";
    const TENANT: &str = "00000000-0000-0000-0000-000000000001";

    fn claim() -> ResolvedClaim {
        ResolvedClaim {
            namespace: "payments".into(),
            account: "api".into(),
            identity: ArmId::new("/subscriptions/s/identity"),
            client: CLIENT.parse().unwrap(),
            principal: CLIENT.parse().unwrap(),
            tenant: TENANT.parse().unwrap(),
            issuer: "https://issuer/".into(),
            audience: Audience::default(),
            grants: Vec::new(),
        }
    }

    fn pod(name: &str) -> ProofPod {
        ProofPod {
            name: name.to_owned(),
            uid: format!("uid of {name}"),
            account: "api".into(),
            project: Some("shop".into()),
            created: Some("2026-11-22T02:00:00Z".parse().unwrap()),
            phase: "Running".into(),
            injected: Injected {
                present: true,
                client_ids: [CLIENT.to_owned()].into(),
                tenant_ids: [TENANT.to_owned()].into(),
                audience: Some(Audience::default()),
                ..Injected::default()
            },
            waiting: None,
            ended: None,
        }
    }

    /// Pods that end with `says` once they were looked at twice; never, if it is none.
    #[derive(Default)]
    struct Host {
        pods: Mutex<Vec<ProofPod>>,
        removed: Mutex<Vec<String>>,
        looks: Mutex<u32>,
        says: Option<String>,
        /// The answer to the request that makes the pod is lost.
        lost: bool,
        /// Pods cannot be removed.
        stuck: bool,
    }

    impl PodHost for Host {
        async fn create(&self, _: &Namespace, body: &Value) -> Result<ProofPod, RemoteFailure> {
            let made = pod(body["metadata"]["name"].as_str().unwrap());
            self.pods.lock().unwrap().push(made.clone());
            let lost = RemoteFailure::new(FailureKind::Unreachable, "create", "reset");
            if self.lost { Err(lost) } else { Ok(made) }
        }

        async fn look(&self, _: &Namespace, name: &str) -> Result<Option<ProofPod>, RemoteFailure> {
            let mut looks = self.looks.lock().unwrap();
            *looks += 1;
            let found = self.pods.lock().unwrap().iter().find(|pod| pod.name == name).cloned();
            Ok(found.map(|pod| match &self.says {
                Some(says) if *looks > 2 => {
                    let (reason, message) = ("Completed".to_owned(), says.clone());
                    ProofPod { ended: Some(Ended { exit_code: 0, reason, message }), ..pod }
                }
                _ => pod,
            }))
        }

        async fn marked(&self, _: &Namespace, _: &str) -> Result<Vec<ProofPod>, RemoteFailure> {
            Ok(self.pods.lock().unwrap().clone())
        }

        async fn remove(&self, _: &Namespace, gone: &ProofPod) -> Result<(), RemoteFailure> {
            if self.stuck {
                return Err(RemoteFailure::new(FailureKind::Denied, "delete", "forbidden"));
            }
            self.pods.lock().unwrap().retain(|pod| pod.uid != gone.uid);
            self.removed.lock().unwrap().push(gone.name.clone());
            Ok(())
        }
    }

    fn good() -> String {
        let report = serde_json::json!({"proved": true, "tries": 1, "answers": 1,
            "iss": "https://issuer/", "sub": "system:serviceaccount:payments:api",
            "aud": "api://AzureADTokenExchange", "oid": CLIENT, "tid": TENANT});
        report.to_string()
    }

    async fn run(
        host: &Host,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Proof, RemoteFailure> {
        let (claim, project) = (claim(), Project::from("shop"));
        let order = Order {
            claim: &claim,
            project: &project,
            image: "image",
            scope: "scope",
            window: Window::Observed,
        };
        let mut silent = |_: String| {};
        let circumstances = Circumstances {
            now: "2026-11-22T02:10:00Z".parse().unwrap(),
            number: 1,
            deadline: Instant::now() + Duration::from_mins(1),
            progress: &mut silent,
        };
        prove_by_pod(host, &order, circumstances, stop).await
    }

    fn names(list: &Mutex<Vec<ProofPod>>) -> Vec<String> {
        list.lock().unwrap().iter().map(|pod| pod.name.clone()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_pod_is_heard_and_removed() {
        let host = Host { says: Some(good()), ..Host::default() };
        run(&host, std::future::pending()).await.unwrap();
        assert_eq!(names(&host.pods), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_removed_when_it_fails_when_time_is_over_and_when_the_run_is_ended() {
        let bad = Host { says: Some("nonsense".to_owned()), ..Host::default() };
        assert!(run(&bad, std::future::pending()).await.is_err());
        let slow = Host::default();
        let late = run(&slow, std::future::pending()).await.unwrap_err();
        assert_eq!(late.kind, FailureKind::TimedOut);
        let ended = Host::default();
        let stopped = time::sleep(Duration::from_secs(3));
        assert!(run(&ended, stopped).await.unwrap_err().message.contains("run was ended"));
        let lost = Host { lost: true, ..Host::default() };
        let failure = run(&lost, std::future::pending()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable);
        for host in [bad, slow, ended, lost] {
            assert_eq!(names(&host.pods), Vec::<String>::new());
            assert_eq!(host.removed.lock().unwrap().len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_killed_run_left_is_removed_first_and_nothing_else() {
        let host = Host { says: Some(good()), ..Host::default() };
        let other = ProofPod { project: Some("other".into()), ..pod("foreign") };
        host.pods.lock().unwrap().extend([pod("left"), other]);
        run(&host, std::future::pending()).await.unwrap();
        assert_eq!(names(&host.pods), ["foreign"]);
        assert_eq!(host.removed.lock().unwrap()[0], "left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_cannot_be_removed_is_told() {
        let host = Host { says: Some(good()), stuck: true, ..Host::default() };
        let failure = run(&host, std::future::pending()).await.unwrap_err();
        let name = &names(&host.pods)[0];
        assert_eq!(failure.hint.unwrap(), format!("kubectl delete pod {name} -n payments"));
    }
}
