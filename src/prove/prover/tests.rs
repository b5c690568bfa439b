//! Proofs against scripted outcomes, on a clock of their own.

use std::{collections::VecDeque, fmt::Debug, str::FromStr};

use super::*;
use crate::prove::Probed;
use crate::{
    azure::Refusal,
    model::{ArmId, Audience, Issuer, Origin, TenantId, desired::ProbeKind},
};

const ISSUER: &str = "https://westeurope.oic.prod-aks.azure.com/t/u/";

fn guid<T: FromStr<Err: Debug>>(last: u8) -> T {
    format!("00000000-0000-0000-0000-{last:012}").parse().unwrap()
}

fn claim() -> ResolvedClaim {
    ResolvedClaim {
        namespace: "payments".into(),
        account: "api".into(),
        identity: ArmId::new("/subscriptions/s/identity"),
        client: guid(3),
        principal: guid(2),
        tenant: guid(1),
        issuer: ISSUER.into(),
        audience: Audience::default(),
        grants: vec!["Key Vault Secrets User on /subscriptions/s/vault".into()],
    }
}

fn fitting() -> ObservedCredential {
    ObservedCredential {
        name: "wi-x".into(),
        issuer: ISSUER.into(),
        subject: Some(claim().subject()),
        audiences: vec![Audience::default()],
    }
}

fn refused(code: u32) -> Result<Exchanged, ExchangeError> {
    Err(ExchangeError::Refused(Box::new(Refusal {
        status: 401,
        error: "invalid_client".into(),
        codes: vec![code],
        description: format!("AADSTS{code}: no"),
        correlation_id: Some("corr".into()),
        ..Refusal::default()
    })))
}

#[expect(clippy::unnecessary_wraps, reason = "a scripted outcome, beside the refusals")]
fn answered(principal: u8) -> Result<Exchanged, ExchangeError> {
    Ok(Exchanged {
        token: Token::new("identity-token"),
        oid: Some(guid(principal)),
        tenant: Some(guid::<TenantId>(1)),
        expires_in: 3600,
    })
}

struct Script {
    iss: Issuer,
    /// The last one repeats.
    exchanges: Mutex<VecDeque<Result<Exchanged, ExchangeError>>>,
    credentials: Result<Option<Vec<ObservedCredential>>, RemoteFailure>,
    /// How long the list shows none of them.
    list_lags: Duration,
    probes: Mutex<VecDeque<ProbeOutcome>>,
    exchanged: Mutex<u32>,
    clock: Mutex<Duration>,
}

impl Script {
    fn new(exchanges: impl IntoIterator<Item = Result<Exchanged, ExchangeError>>) -> Self {
        Self {
            iss: ISSUER.into(),
            exchanges: Mutex::new(exchanges.into_iter().collect()),
            credentials: Ok(Some(vec![fitting()])),
            list_lags: Duration::ZERO,
            probes: Mutex::default(),
            exchanged: Mutex::default(),
            clock: Mutex::default(),
        }
    }
}

fn next<T: Clone>(queue: &Mutex<VecDeque<T>>) -> T {
    let mut queue = queue.lock().unwrap();
    let first = queue.pop_front().unwrap();
    if queue.is_empty() {
        queue.push_back(first.clone());
    }
    first
}

impl World for Script {
    async fn token(&self) -> Result<IssuedToken, RemoteFailure> {
        Ok(IssuedToken {
            token: Token::new("account-token"),
            iss: self.iss.clone(),
            sub: claim().subject(),
            aud: vec![Audience::default()],
        })
    }

    async fn exchange(&self, assertion: &Token, _: &str) -> Result<Exchanged, ExchangeError> {
        assert_eq!(assertion.expose(), "account-token");
        *self.exchanged.lock().unwrap() += 1;
        next(&self.exchanges)
    }

    async fn credentials(&self) -> Result<Option<Vec<ObservedCredential>>, RemoteFailure> {
        if self.now() < self.list_lags {
            return Ok(Some(Vec::new()));
        }
        self.credentials.clone()
    }

    async fn probe(&self, _: &Probe, token: &Token) -> ProbeOutcome {
        assert_eq!(token.expose(), "identity-token");
        next(&self.probes)
    }

    fn now(&self) -> Duration {
        *self.clock.lock().unwrap()
    }

    async fn sleep(&self, how_long: Duration) {
        *self.clock.lock().unwrap() += how_long;
    }

    fn arm_scope(&self) -> String {
        "https://management.azure.com/.default".into()
    }

    fn probe_scope(&self, _: &Probe) -> String {
        "https://vault.azure.net/.default".into()
    }
}

struct Ran {
    result: Result<Proof, RemoteFailure>,
    waits: Vec<String>,
    seconds: u64,
}

async fn run_with(script: &Script, probe: Option<&Probe>) -> Ran {
    run_at(script, probe, Age::AtLeast(Duration::ZERO)).await
}

async fn run_at(script: &Script, probe: Option<&Probe>, age: Age) -> Ran {
    let claim = claim();
    let mut waits = Vec::new();
    let mut progress = |what: String| waits.push(what);
    let attempt = Attempt {
        world: script,
        claim: &claim,
        jitter: &Jitter::seeded(1),
        deadline: LIMIT,
        age,
        steady: Steady::new(age, Window::Observed),
        progress: &mut progress,
    };
    let result = attempt.run(probe).await;
    Ran { result, seconds: script.now().as_secs(), waits }
}

async fn run(script: &Script) -> Ran {
    run_with(script, None).await
}

fn probe() -> Probe {
    Probe {
        kind: ProbeKind::KeyVault,
        url: "https://kv.vault.azure.net".into(),
        origin: Origin { file: "workloads.toml".into(), line: 1, column: 1 },
    }
}

#[tokio::test]
async fn a_good_chain_is_proved_at_once() {
    let ran = run(&Script::new([answered(2)])).await;
    let proof = ran.result.unwrap();
    assert_eq!((proof.attempts, proof.oid, proof.probe), (1, guid(2), None));
    assert_eq!((ran.seconds, ran.waits.len()), (0, 0));
}

#[tokio::test]
async fn propagation_is_waited_for_by_asking_again() {
    let ran = run(&Script::new([refused(70_025), refused(700_211), answered(2)])).await;
    let proof = ran.result.unwrap();
    assert_eq!((proof.attempts, proof.answers), (5, 3));
    assert_eq!(ran.waits[..2], ["Entra to know federated credential wi-x"; 2]);
    assert_eq!(ran.waits[2..], ["Entra to answer the same again"; 2]);
    // As long again as it was refused: 2 and 3 s with their spread, twice.
    assert!((10..=20).contains(&ran.seconds), "{}", ran.seconds);
}

#[tokio::test]
async fn one_answer_of_many_servers_does_not_count() {
    let answers = [refused(700_213), answered(2), refused(700_213), answered(2)];
    let ran = run(&Script::new(answers)).await;
    let proof = ran.result.unwrap();
    assert_eq!((proof.attempts, proof.answers), (6, 3));
}

#[tokio::test]
async fn what_was_just_written_is_asked_three_times_and_not_waited_for() {
    let ran = run_at(&Script::new([answered(2)]), None, Age::Written).await;
    let proof = ran.result.unwrap();
    assert_eq!((proof.attempts, proof.answers, ran.seconds), (3, 3, 0));
}

#[tokio::test]
async fn an_answer_too_late_to_be_repeated_is_not_enough() {
    let mut late = 0;
    // Which number of refusals ends just before the deadline depends on the spread of pauses.
    for refusals in 15..30 {
        let refused = std::iter::repeat_with(|| refused(700_213)).take(refusals);
        let ran = run(&Script::new(refused.chain([answered(2)]))).await;
        assert!(ran.seconds <= LIMIT.as_secs(), "{}", ran.seconds);
        if let Err(failure) = ran.result {
            assert_eq!(failure.kind, FailureKind::NotProved);
            late += usize::from(failure.message.contains("steadily"));
        }
    }
    assert!(late > 0);
}

#[tokio::test]
async fn a_credential_that_does_not_fit_fails_early_and_is_named() {
    let mut script = Script::new([refused(700_211)]);
    let mut other = fitting();
    other.issuer = ISSUER.trim_end_matches('/').into();
    script.credentials = Ok(Some(vec![other]));
    let ran = run(&script).await;
    let failure = ran.result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotProved);
    assert!(failure.message.contains("trailing slash"), "{}", failure.message);
    assert_eq!(failure.code.as_deref(), Some("AADSTS700211"));
    assert_eq!(failure.correlation_id.as_deref(), Some("corr"));
    assert_eq!(failure.hint.as_deref(), Some("widentity explain AADSTS700211"));
    assert_eq!(*script.exchanged.lock().unwrap(), 2, "one list may be stale, two are believed");
}

#[tokio::test]
async fn a_list_that_lags_behind_a_write_of_this_run_ends_nothing() {
    let answers = || (0..5).map(|_| refused(70_025)).chain([answered(2)]);
    let mut script = Script::new(answers());
    script.list_lags = Duration::from_secs(20);
    let ran = run_at(&script, None, Age::Written).await;
    assert_eq!(ran.result.unwrap().attempts, 8);

    let mut script = Script::new(answers());
    script.list_lags = Duration::from_secs(20);
    let failure = run(&script).await.result.unwrap_err();
    assert_eq!(script.now().as_secs(), 2, "what was there before is in the list: {failure:?}");

    let mut script = Script::new([refused(70_025)]);
    script.list_lags = Duration::MAX;
    let ran = run_at(&script, None, Age::Written).await;
    let failure = ran.result.unwrap_err();
    assert!(failure.message.contains("no federated credentials"), "{}", failure.message);
    assert!((60..=80).contains(&ran.seconds), "a list lags no longer: {} s", ran.seconds);
}

#[tokio::test]
async fn what_is_never_known_ends_after_five_minutes() {
    let script = Script::new([refused(70_021)]);
    let ran = run(&script).await;
    let failure = ran.result.unwrap_err();
    assert!(failure.message.contains("wi-x fits the token"), "{}", failure.message);
    assert!((285..=300).contains(&ran.seconds), "{}", ran.seconds);
}

#[tokio::test]
async fn an_unreadable_list_does_not_end_the_waiting() {
    let mut script =
        Script::new([refused(700_213), refused(700_213), refused(700_213), answered(2)]);
    script.credentials = Err(RemoteFailure::new(FailureKind::Denied, "list", "403"));
    assert_eq!(run(&script).await.result.unwrap().attempts, 6);
}

#[tokio::test]
async fn another_issuer_ends_it_before_entra_is_asked() {
    let mut script = Script::new([answered(2)]);
    script.iss = "https://kubernetes.default.svc".into();
    let ran = run(&script).await;
    let failure = ran.result.unwrap_err();
    assert_eq!(failure.code.as_deref(), Some(CONTEXT_MISMATCH));
    assert_eq!(*script.exchanged.lock().unwrap(), 0);
}

#[tokio::test]
async fn an_identity_that_answers_as_another_is_not_proved() {
    let failure = run(&Script::new([answered(9)])).await.result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotProved);
    assert!(failure.message.contains("was it made anew"), "{}", failure.message);
}

#[tokio::test]
async fn an_answer_of_another_tenant_is_not_proved() {
    let mut elsewhere = answered(2).unwrap();
    elsewhere.tenant = Some(guid::<TenantId>(7));
    let failure = run(&Script::new([Ok(elsewhere)])).await.result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotProved);
    assert!(failure.message.contains("answered in tenant"), "{}", failure.message);
}

#[tokio::test]
async fn a_cloud_that_the_tenant_does_not_know_is_named() {
    let failure = run(&Script::new([refused(500_011)])).await.result.unwrap_err();
    assert!(failure.message.contains("`cloud`"), "{}", failure.message);
    assert_eq!(failure.code.as_deref(), Some("AADSTS500011"));
}

#[tokio::test]
async fn a_refusal_that_is_final_is_not_repeated() {
    let script = Script::new([refused(7_002_138)]);
    let ran = run(&script).await;
    assert!(ran.result.is_err());
    assert_eq!((*script.exchanged.lock().unwrap(), ran.seconds), (1, 0));
}

#[tokio::test]
async fn clocks_that_differ_get_one_new_token() {
    let script = Script::new([refused(700_024)]);
    let failure = run(&script).await.result.unwrap_err();
    assert!(failure.message.contains("clocks"), "{}", failure.message);
    assert_eq!(*script.exchanged.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_probe_waits_for_the_role_and_then_passes() {
    let script = Script::new([answered(2)]);
    let denied = ProbeOutcome::Denied { status: 403, message: "ForbiddenByRbac".into() };
    script.probes.lock().unwrap().extend([denied.clone(), denied, ProbeOutcome::Passed]);
    let ran = run_with(&script, Some(&probe())).await;
    assert_eq!(ran.result.unwrap().probe, Some(Probed::Passed));
    assert_eq!(ran.waits, vec!["the role to take effect"; 2]);
}

#[tokio::test]
async fn a_probe_that_cannot_be_reached_is_told_from_one_that_is_denied() {
    let script = Script::new([answered(2)]);
    let far = ProbeOutcome::Unreachable { message: "ForbiddenByFirewall".into() };
    script.probes.lock().unwrap().push_back(far);
    let proof = run_with(&script, Some(&probe())).await.result.unwrap();
    let Some(Probed::Unseen { why }) = proof.probe else { panic!("{proof:?}") };
    assert!(why.contains("unreachable from here: ForbiddenByFirewall"), "{why}");
}

#[tokio::test]
async fn a_probe_that_is_denied_names_role_and_scope() {
    let script = Script::new([answered(2)]);
    let denied = ProbeOutcome::Denied { status: 403, message: "ForbiddenByRbac".into() };
    script.probes.lock().unwrap().push_back(denied);
    let failure = run_with(&script, Some(&probe())).await.result.unwrap_err();
    assert_eq!((failure.kind, failure.status), (FailureKind::NotProved, Some(403)));
    let wanted = "should hold Key Vault Secrets User on /subscriptions/s/vault";
    assert!(failure.message.contains(wanted), "{}", failure.message);
}

#[tokio::test]
async fn an_entra_that_has_no_time_has_refused_nothing() {
    let busy = ExchangeError::Body { status: 503 };
    let failure = run(&Script::new([Err(busy)])).await.result.unwrap_err();
    assert_eq!((failure.kind, failure.status), (FailureKind::Unavailable, Some(503)));
}

#[tokio::test]
async fn no_failure_shows_a_token() {
    for script in [Script::new([refused(1)]), Script::new([answered(9)])] {
        let failure = format!("{:?}", run(&script).await.result.unwrap_err());
        assert!(!failure.contains("-token\""), "{failure}");
    }
}
