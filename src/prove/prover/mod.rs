//! The proof itself: ask, wait for what may be on its way, name the cause of what is not.

mod probe;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    IssuedToken, Method, Proof, ResolvedClaim, TokenSource,
    cause::{Match, compare, of_code},
    job::{Circumstances, PodHost, prove_by_pod},
    pod::Order,
    retry::{After, Age, LIMIT, Outlook, Steady, Window, outlook, pause},
};
use crate::{
    azure::{
        Arm, Entra, ExchangeError, Exchanged, Jitter, ProbeOutcome, Prober, Sleep, TransportError,
    },
    model::{
        FailureKind, PrincipalId, Project, RemoteFailure, Token, desired::Probe,
        names::SHORTEST_TOKEN, snapshot::ObservedCredential,
    },
};

/// A list that lacks the credential is believed after this many tries: one read may be stale.
const BELIEVE_AFTER: u32 = 2;
/// Against a write that Azure has just confirmed it is believed only after this long: ARM
/// replicates its lists in "seconds to minutes" (Azure documentation, "Resource Manager request
/// limits and consistency").
const LISTS_LAG: Duration = Duration::from_mins(1);

/// The code of a proof that met the API server of another cluster.
pub const CONTEXT_MISMATCH: &str = "cluster-context-mismatch";
/// The code of a proof to which Entra gave no answer.
pub const ENTRA_UNREACHABLE: &str = "entra-unreachable";

/// On what terms a proof is made.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// A data-plane request with the identity's token.
    pub probe: Option<&'a Probe>,
    /// How old the credential is.
    pub age: Age,
    /// Over how long Entra's answers must lie.
    pub window: Window,
    /// Until when may be asked; never later than [`LIMIT`] from now.
    pub deadline: Instant,
}

/// What a pod that proves is made of, and when.
#[derive(Debug, Clone, Copy)]
pub struct PodTerms<'a> {
    /// The owner mark.
    pub project: &'a Project,
    /// What the pod runs.
    pub image: &'a str,
    /// Over how long Entra's answers must lie.
    pub window: Window,
    /// The wall time.
    pub now: Timestamp,
    /// Until when the pod is waited for.
    pub deadline: Instant,
}

/// Makes proofs. Clones share connections.
#[derive(Clone)]
pub struct Prover {
    entra: Entra,
    prober: Prober,
    arm: Arm,
    jitter: Jitter,
    sleep: Sleep,
}

/// What a proof needs of the world; tests script it.
trait World: Sync {
    fn token(&self) -> impl Future<Output = Result<IssuedToken, RemoteFailure>> + Send;
    fn exchange(
        &self,
        assertion: &Token,
        scope: &str,
    ) -> impl Future<Output = Result<Exchanged, ExchangeError>> + Send;
    fn credentials(
        &self,
    ) -> impl Future<Output = Result<Option<Vec<ObservedCredential>>, RemoteFailure>> + Send;
    fn probe(&self, probe: &Probe, token: &Token) -> impl Future<Output = ProbeOutcome> + Send;
    /// The time since some moment.
    fn now(&self) -> Duration;
    fn sleep(&self, how_long: Duration) -> impl Future<Output = ()> + Send;
    fn arm_scope(&self) -> String;
    fn probe_scope(&self, probe: &Probe) -> String;
}

struct Real<'a, K> {
    prover: &'a Prover,
    source: &'a K,
    claim: &'a ResolvedClaim,
    began: Instant,
    slept: Mutex<Duration>,
}

impl<K: TokenSource> World for Real<'_, K> {
    async fn token(&self) -> Result<IssuedToken, RemoteFailure> {
        let claim = self.claim;
        self.source.token(&claim.namespace, &claim.account, &claim.audience, SHORTEST_TOKEN).await
    }

    async fn exchange(&self, assertion: &Token, scope: &str) -> Result<Exchanged, ExchangeError> {
        let ResolvedClaim { tenant, client, .. } = self.claim;
        self.prover.entra.exchange(*tenant, *client, assertion, scope).await
    }

    async fn credentials(&self) -> Result<Option<Vec<ObservedCredential>>, RemoteFailure> {
        let identity = &self.claim.identity;
        let list = self.prover.arm.credentials(identity).await;
        list.map_err(|error| {
            error.failure(format!("list federated credentials of identity {}", identity.name()))
        })
    }

    async fn probe(&self, probe: &Probe, token: &Token) -> ProbeOutcome {
        self.prover.prober.probe(probe, token).await
    }

    fn now(&self) -> Duration {
        // On a clock of tests, sleeping takes no real time and must count all the same.
        self.began.elapsed().max(*self.slept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn sleep(&self, how_long: Duration) {
        (self.prover.sleep)(how_long).await;
        *self.slept.lock().unwrap_or_else(PoisonError::into_inner) += how_long;
    }

    fn arm_scope(&self) -> String {
        self.prover.arm.endpoints().arm_scope.clone()
    }

    fn probe_scope(&self, probe: &Probe) -> String {
        self.prover.prober.scope(probe.kind)
    }
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover").field("arm", &self.arm).finish_non_exhaustive()
    }
}

impl Prover {
    /// A prover in the cloud of this client.
    pub fn new(arm: &Arm) -> Result<Self, TransportError> {
        let endpoints = arm.endpoints();
        Ok(Self {
            entra: Entra::new(endpoints)?,
            prober: Prober::new(endpoints)?,
            arm: arm.clone(),
            jitter: Jitter::random(),
            sleep: Arc::new(|how_long| Box::pin(tokio::time::sleep(how_long))),
        })
    }

    /// The same prover with a repeatable spread of waits.
    #[must_use]
    pub fn with_jitter(&self, jitter: Jitter) -> Self {
        Self { jitter, ..self.clone() }
    }

    /// The same prover on another clock.
    #[must_use]
    pub fn with_sleep(&self, sleep: Sleep) -> Self {
        Self { sleep, ..self.clone() }
    }

    /// Proves a claim, asking Entra again until it is proved, until it cannot be, for five minutes,
    /// or until the deadline. `progress` hears what every wait is for, as a fragment after "waiting
    /// for".
    ///
    /// A failure names the first cause: another issuer than ARM's record (code
    /// [`CONTEXT_MISMATCH`]), a credential that differs or is missing, an identity that answers as
    /// another, a probe that is refused.
    pub async fn prove<K: TokenSource>(
        &self,
        source: &K,
        claim: &ResolvedClaim,
        terms: Terms<'_>,
        progress: &mut (dyn FnMut(String) + Send + Sync),
    ) -> Result<Proof, RemoteFailure> {
        let Terms { probe, age, window, deadline } = terms;
        let began = Instant::now();
        let world = Real { prover: self, source, claim, began, slept: Mutex::default() };
        let deadline = deadline.saturating_duration_since(began).min(LIMIT);
        let steady = Steady::new(age, window);
        let jitter = &self.jitter;
        Attempt { world: &world, claim, jitter, deadline, age, steady, progress }.run(probe).await
    }

    /// Proves a claim by a pod that runs as the account, and removes the pod whatever happens, also
    /// when `stop` comes first.
    pub async fn prove_by_pod<H: PodHost>(
        &self,
        host: &H,
        claim: &ResolvedClaim,
        terms: PodTerms<'_>,
        progress: &mut (dyn FnMut(String) + Send + Sync),
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Proof, RemoteFailure> {
        let PodTerms { project, image, window, now, deadline } = terms;
        let scope = &self.arm.endpoints().arm_scope;
        let order = Order { claim, project, image, scope, window };
        let number = self.jitter.number();
        prove_by_pod(host, &order, Circumstances { now, number, deadline, progress }, stop).await
    }
}

struct Attempt<'a, W> {
    world: &'a W,
    claim: &'a ResolvedClaim,
    jitter: &'a Jitter,
    /// On the world's clock.
    deadline: Duration,
    age: Age,
    steady: Steady,
    progress: &'a mut (dyn FnMut(String) + Send + Sync),
}

impl<W: World> Attempt<'_, W> {
    fn tried(&self) -> String {
        format!("prove {}/{}", self.claim.namespace, self.claim.account)
    }

    fn not_proved(&self, message: impl Into<String>) -> RemoteFailure {
        RemoteFailure::new(FailureKind::NotProved, self.tried(), message)
    }

    /// Entra's refusal as a failure, with the cause that was found, if any.
    fn refused(&self, error: &ExchangeError, cause: Option<&str>) -> RemoteFailure {
        let message = match cause {
            Some(cause) => format!("{cause} ({error})"),
            None => error.to_string(),
        };
        let mut failure = self.not_proved(message);
        match error {
            ExchangeError::Refused(refusal) => {
                failure.status = Some(refusal.status);
                failure.kind = kind_of(refusal.status);
                failure.code = refusal.codes.first().map(|code| format!("AADSTS{code}"));
                failure.correlation_id =
                    refusal.correlation_id.clone().or_else(|| refusal.trace_id.clone());
            }
            ExchangeError::Unreachable { .. } => {
                failure.kind = FailureKind::Unreachable;
                failure.code = Some(ENTRA_UNREACHABLE.to_owned());
            }
            ExchangeError::Body { status } => {
                failure.status = Some(*status);
                failure.kind = kind_of(*status);
            }
        }
        let client = self.claim.client;
        failure.with_hint(match failure_code(error) {
            Some(code) => format!("widentity explain AADSTS{code}"),
            None => format!("az ad sp show --id {client}"),
        })
    }

    async fn run(mut self, probe: Option<&Probe>) -> Result<Proof, RemoteFailure> {
        let began = self.world.now();
        let mut issued = self.issue().await?;
        let scope = self.world.arm_scope();
        let mut attempts = 0;
        let mut clock_tried = false;
        let oid = loop {
            attempts += 1;
            // Entra refuses a token in its last moments; a new one costs little.
            if attempts > 1
                && self.since(began) > Duration::from_secs(u64::from(SHORTEST_TOKEN) / 2)
            {
                issued = self.issue().await?;
            }
            let error = match self.world.exchange(&issued.token, &scope).await {
                Ok(exchanged) => {
                    let oid = self
                        .check(&exchanged)
                        .map_err(|message| self.not_proved(message).with_hint("widentity plan"))?;
                    let After::Again(pause) = self.steady.answered(self.world.now()) else {
                        break oid;
                    };
                    self.again(pause, attempts).await?;
                    // Entra may remember its answer to the token before.
                    issued = self.issue().await?;
                    continue;
                }
                Err(error) => error,
            };
            let what = match outlook(&error) {
                Outlook::Final => {
                    let cause = self.cause(&issued, &error).await;
                    return Err(self.refused(&error, cause.as_deref()));
                }
                Outlook::Clock if clock_tried => {
                    let cause = "the clocks of the cluster and of Entra differ";
                    return Err(self.refused(&error, Some(cause)));
                }
                Outlook::Clock => {
                    clock_tried = true;
                    issued = self.issue().await?;
                    "a token that is valid by Entra's clock".to_owned()
                }
                Outlook::Transient => "Entra to answer".to_owned(),
                Outlook::MayPropagate => {
                    self.steady.refused(self.world.now());
                    let believed = match self.age {
                        Age::Written => self.since(began) >= LISTS_LAG,
                        Age::AtLeast(_) => attempts >= BELIEVE_AFTER,
                    };
                    self.still_on_its_way(&issued, &error, believed).await?
                }
            };
            let pause = pause(attempts, retry_after(&error), self.jitter);
            if !self.wait(pause, what).await {
                let seconds = self.since(began).as_secs();
                let cause = match self.compared(&issued).await {
                    Ok(Some(Match::Fits { name })) => format!(
                        "federated credential {name} fits the token, and Entra still refuses it \
                         after {attempts} tries in {seconds} s"
                    ),
                    Ok(Some(Match::Misses(miss))) => {
                        format!("still refused after {attempts} tries in {seconds} s: {miss}")
                    }
                    Ok(None) | Err(_) => {
                        format!("still refused after {attempts} tries in {seconds} s")
                    }
                };
                let code = failure_code(&error).unwrap_or_default();
                let cause = of_code(code, self.claim.tenant, &scope).unwrap_or(cause);
                return Err(self.refused(&error, Some(&cause)));
            }
        };
        let probe = match probe {
            Some(probe) => Some(self.probe(probe, &issued).await?),
            None => None,
        };
        Ok(Proof {
            iss: issued.iss,
            sub: issued.sub,
            aud: self.claim.audience.clone(),
            oid,
            attempts,
            answers: self.steady.answers(),
            elapsed: self.since(began),
            method: Method::Token,
            probe,
        })
    }

    /// What is waited for after a refusal that a credential just written explains; an error where
    /// the list of credentials says that nothing is on its way and is to be believed.
    async fn still_on_its_way(
        &self,
        issued: &IssuedToken,
        error: &ExchangeError,
        believed: bool,
    ) -> Result<String, RemoteFailure> {
        match self.compared(issued).await {
            Ok(Some(Match::Fits { name })) => {
                Ok(format!("Entra to know federated credential {name}"))
            }
            Ok(Some(Match::Misses(miss))) if believed => {
                Err(self.refused(error, Some(&miss.to_string())))
            }
            Ok(None) if believed => Err(self.refused(error, Some("the identity does not exist"))),
            Ok(_) | Err(_) => Ok("Entra to know the federated credential".to_owned()),
        }
    }

    /// Waits until Entra is to be asked for another answer of the row.
    async fn again(&mut self, pause: Duration, attempts: u32) -> Result<(), RemoteFailure> {
        if pause.is_zero() {
            return Ok(());
        }
        let answers = self.steady.answers();
        if self.wait(pause, "Entra to answer the same again".to_owned()).await {
            return Ok(());
        }
        let message = format!(
            "Entra answered {answers} of {attempts} tries, and the time is over before it could be \
             seen to do so steadily"
        );
        Err(self.not_proved(message).with_hint("widentity verify"))
    }

    /// Requests the account's token and checks what it says before anybody else sees it.
    async fn issue(&self) -> Result<IssuedToken, RemoteFailure> {
        let issued = self.world.token().await?;
        let claim = self.claim;
        if issued.iss != claim.issuer {
            let mut failure = self.not_proved(format!(
                "the API server issues tokens as `{}`, Azure's record of the cluster says `{}`",
                issued.iss, claim.issuer
            ));
            failure.code = Some(CONTEXT_MISMATCH.to_owned());
            return Err(failure.with_hint("kubectl config get-contexts"));
        }
        let subject = claim.subject();
        if issued.sub != subject {
            let message = format!("the token's subject is `{}`, not `{subject}`", issued.sub);
            return Err(self.not_proved(message));
        }
        if !issued.aud.contains(&claim.audience) {
            let message = format!("the token is not for audience `{}`", claim.audience);
            return Err(self.not_proved(message));
        }
        Ok(issued)
    }

    async fn compared(&self, issued: &IssuedToken) -> Result<Option<Match>, RemoteFailure> {
        let list = self.world.credentials().await?;
        let audience = &self.claim.audience;
        Ok(list.map(|list| compare(&issued.iss, &issued.sub, audience, &list)))
    }

    /// The first link that does not fit: as the code says, or the list where it can be read.
    async fn cause(&self, issued: &IssuedToken, error: &ExchangeError) -> Option<String> {
        let code = failure_code(error).unwrap_or_default();
        let said = of_code(code, self.claim.tenant, &self.world.arm_scope());
        if said.is_some() {
            return said;
        }
        match self.compared(issued).await {
            Ok(Some(Match::Misses(miss))) => Some(miss.to_string()),
            Ok(None) => Some("the identity does not exist".to_owned()),
            Ok(Some(Match::Fits { .. })) | Err(_) => None,
        }
    }

    fn since(&self, began: Duration) -> Duration {
        self.world.now().saturating_sub(began)
    }

    /// Waits, unless that would pass the deadline.
    async fn wait(&mut self, pause: Duration, what: String) -> bool {
        if self.world.now() + pause > self.deadline {
            return false;
        }
        (self.progress)(what);
        self.world.sleep(pause).await;
        true
    }

    /// The principal that Entra says the token is for, if it is the right one.
    fn check(&self, exchanged: &Exchanged) -> Result<PrincipalId, String> {
        let claim = self.claim;
        if let Some(tenant) = exchanged.tenant.filter(|tenant| *tenant != claim.tenant) {
            return Err(format!("Entra answered in tenant {tenant}, not {}", claim.tenant));
        }
        match exchanged.oid {
            Some(oid) if oid == claim.principal => Ok(oid),
            Some(oid) => Err(format!(
                "Entra answered as principal {oid}, the identity's is {}: was it made anew?",
                claim.principal
            )),
            None => Err("Entra's token does not say which principal it is for".to_owned()),
        }
    }
}

/// A server that has no time or is broken has refused nothing.
fn kind_of(status: u16) -> FailureKind {
    if status == 429 || status >= 500 { FailureKind::Unavailable } else { FailureKind::NotProved }
}

fn failure_code(error: &ExchangeError) -> Option<u32> {
    match error {
        ExchangeError::Refused(refusal) => refusal.codes.first().copied(),
        ExchangeError::Unreachable { .. } | ExchangeError::Body { .. } => None,
    }
}

fn retry_after(error: &ExchangeError) -> Option<u64> {
    match error {
        ExchangeError::Refused(refusal) => refusal.retry_after,
        ExchangeError::Unreachable { .. } | ExchangeError::Body { .. } => None,
    }
}

#[cfg(test)]
mod tests;
