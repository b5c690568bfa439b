//! The pod, its last words, and the script itself against a curl that is scripted.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;
use crate::model::{ArmId, Audience, Issuer, snapshot::Injected};

const CLIENT: &str = "00000000-0000-0000-0000-000000000003";
const PRINCIPAL: &str = "00000000-0000-0000-0000-000000000002";
const TENANT: &str = "00000000-0000-0000-0000-000000000001";
const ISSUER: &str = "https://westeurope.oic.prod-aks.azure.com/t/u/";

fn claim() -> ResolvedClaim {
    ResolvedClaim {
        namespace: "payments".into(),
        account: "api".into(),
        identity: ArmId::new("/subscriptions/s/identity"),
        client: CLIENT.parse().unwrap(),
        principal: PRINCIPAL.parse().unwrap(),
        tenant: TENANT.parse().unwrap(),
        issuer: Issuer::from(ISSUER),
        audience: Audience::default(),
        grants: Vec::new(),
    }
}

fn with<T>(check: impl FnOnce(&Order<'_>) -> T) -> T {
    let (claim, project) = (claim(), Project::from("shop"));
    check(&Order {
        claim: &claim,
        project: &project,
        image: DEFAULT_IMAGE,
        scope: "https://management.azure.com/.default",
        window: Window::Observed,
    })
}

fn pod() -> ProofPod {
    ProofPod {
        name: "widentity-proof-1".into(),
        uid: "u".into(),
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

fn ended(exit_code: i64, message: &str) -> ProofPod {
    let ended = Ended { exit_code, reason: "x".into(), message: message.to_owned() };
    ProofPod { ended: Some(ended), ..pod() }
}

fn proved(change: impl FnOnce(&mut Value)) -> ProofPod {
    let mut report = json!({"version": 1, "proved": true, "tries": 2, "answers": 1, "iss": ISSUER,
        "sub": "system:serviceaccount:payments:api", "aud": "api://AzureADTokenExchange",
        "oid": PRINCIPAL, "tid": TENANT});
    change(&mut report);
    ended(0, &report.to_string())
}

fn judged(pod: &ProofPod) -> Result<Proof, RemoteFailure> {
    with(|order| order.judge(pod, Duration::from_secs(1)))
}

#[test]
fn the_pod_satisfies_the_restricted_standard_and_is_marked() {
    let body = with(|order| order.body(7));
    assert_eq!(body["metadata"]["name"], "widentity-proof-0000000000000007");
    assert_eq!(body["metadata"]["labels"][USE_LABEL], "true");
    assert_eq!(body["metadata"]["annotations"][PROJECT_ANNOTATION], "shop");
    assert_eq!(body["spec"]["automountServiceAccountToken"], false);
    assert_eq!(body["spec"]["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &body["spec"]["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"]["drop"][0], "ALL");
    assert_eq!(security["runAsNonRoot"], true);
    // What stands in the environment wins over the webhook; nothing of its names may be there.
    let env = container["env"].as_array().unwrap();
    assert!(env.iter().all(|v| v["name"].as_str().unwrap().starts_with("WIDENTITY_")));
}

#[test]
fn only_ours_and_only_what_is_over_is_left_over() {
    let now = |text: &str| text.parse().unwrap();
    let (soon, late) = ("2026-11-22T02:01:00Z", "2026-11-22T02:06:00Z");
    with(|order| {
        assert!(!order.is_left_over(&pod(), now(soon)), "another run may work with it");
        assert!(order.is_left_over(&pod(), now(late)));
        assert!(order.is_left_over(&ended(0, "{}"), now(soon)));
        let other = ProofPod { project: Some("other".into()), ..ended(0, "{}") };
        assert!(!order.is_left_over(&other, now(late)));
        let other = ProofPod { account: "worker".into(), ..ended(0, "{}") };
        assert!(!order.is_left_over(&other, now(late)));
    });
}

#[test]
fn what_the_webhook_did_is_checked_before_it_is_waited_for() {
    let check = |pod: &ProofPod| with(|order| order.check_injected(pod));
    check(&pod()).unwrap();
    let mut bare = pod();
    bare.injected.present = false;
    assert!(check(&bare).unwrap_err().message.contains("without the environment"));
    let mut stale = pod();
    stale.injected.client_ids = ["another".to_owned()].into();
    assert!(check(&stale).unwrap_err().message.contains("AZURE_CLIENT_ID another"));
    let mut none = pod();
    none.injected.client_ids.clear();
    assert!(check(&none).unwrap_err().message.contains("AZURE_CLIENT_ID none"));
    let mut other = pod();
    other.injected.audience = Some("api://other".into());
    assert!(check(&other).unwrap_err().message.contains("token audience api://other"));
}

#[test]
fn an_image_that_cannot_be_pulled_is_not_waited_for() {
    let waiting = |reason: &str| {
        let waiting = Some((reason.to_owned(), "no such host".to_owned()));
        with(|order| order.stuck(&ProofPod { waiting, ..pod() }))
    };
    let failure = waiting("ImagePullBackOff").unwrap();
    assert_eq!(failure.kind, FailureKind::Unavailable, "nothing was proved, nothing is broken");
    assert!(failure.hint.unwrap().contains("--image"));
    assert_eq!(waiting("ContainerCreating"), None);
}

#[test]
fn the_last_words_are_believed_only_where_they_fit_the_claim() {
    let proof = judged(&proved(|_| {})).unwrap();
    assert_eq!((proof.method, proof.attempts, proof.answers), (Method::Job, 2, 1));
    let refused = |member: &str, value: &str| {
        judged(&proved(|report| report[member] = value.into())).unwrap_err()
    };
    let other = refused("iss", "https://kubernetes.default.svc");
    assert_eq!(other.code.as_deref(), Some(CONTEXT_MISMATCH));
    assert!(refused("sub", "system:serviceaccount:a:b").message.contains("subject"));
    assert!(refused("oid", TENANT).message.contains("principal"));
    assert!(refused("tid", PRINCIPAL).message.contains("tenant"));
    assert!(refused("aud", "").message.contains("audience"));
    // A good word with a bad exit code is not believed.
    let mut liar = proved(|_| {});
    liar.ended.as_mut().unwrap().exit_code = 1;
    assert!(judged(&liar).is_err());
    let silent = judged(&ended(127, "sh: not found")).unwrap_err();
    assert!(silent.message.contains("exit code 127"), "{}", silent.message);
    assert!(judged(&ProofPod { phase: "Failed".into(), ..pod() }).is_err());
}

#[test]
fn refusals_keep_code_and_correlation_id() {
    let report = json!({"version": 1, "proved": false, "stage": "exchange", "tries": 1,
        "status": 401, "code": 700_213, "correlation": "c0ffee", "text": "AADSTS700213: no"});
    let failure = judged(&ended(1, &report.to_string())).unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotProved);
    assert_eq!(failure.code.as_deref(), Some("AADSTS700213"));
    assert_eq!(failure.correlation_id.as_deref(), Some("c0ffee"));
    let report = json!({"version": 1, "proved": false, "stage": "exchange", "tries": 9,
        "text": "curl: (6) Could not resolve host"});
    let failure = judged(&ended(1, &report.to_string())).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
}

fn jwt(claims: &Value) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"RS256"}"#), part(&claims.to_string()), part("sig"))
}

/// Runs the script with a curl that answers with each of these in turn, the last one repeating;
/// gives the exit code, the report, and what curl was called with.
fn script(answers: &[String], window: &str) -> (i32, Value, String) {
    let desk = tempfile::tempdir().unwrap();
    let at = |name: &str| desk.path().join(name);
    for (index, answer) in answers.iter().enumerate() {
        fs::write(at(&format!("answer{}", index + 1)), answer).unwrap();
    }
    let curl = "#!/bin/sh\necho \"$@\" >> \"$DESK/calls\"\nn=$(wc -l < \"$DESK/calls\")\n\
                while [ ! -f \"$DESK/answer$n\" ]; do n=$((n - 1)); done\ncat \"$DESK/answer$n\"\n";
    fs::write(at("curl"), curl).unwrap();
    fs::set_permissions(at("curl"), fs::Permissions::from_mode(0o755)).unwrap();
    let account = json!({"iss": ISSUER, "sub": "system:serviceaccount:payments:api",
        "aud": ["api://AzureADTokenExchange"]});
    fs::write(at("token"), jwt(&account)).unwrap();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", desk.path().display());
    let status = Command::new("/bin/sh")
        .args(["-c", SCRIPT])
        .env_clear()
        .env("PATH", path)
        .env("DESK", desk.path())
        .env("WIDENTITY_REPORT", at("report"))
        .env("WIDENTITY_SCOPE", "https://management.azure.com/.default")
        .env("WIDENTITY_WINDOW", window)
        .env("WIDENTITY_LIMIT", "0")
        .env("WIDENTITY_PAUSE", "0")
        .env("AZURE_CLIENT_ID", CLIENT)
        .env("AZURE_TENANT_ID", TENANT)
        .env("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/")
        .env("AZURE_FEDERATED_TOKEN_FILE", at("token"))
        .status()
        .unwrap();
    let read =
        |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let report = serde_json::from_str(&read(&at("report"))).expect("the report is JSON");
    (status.code().unwrap(), report, read(&at("calls")))
}

fn granted() -> String {
    let token = jwt(&json!({"oid": PRINCIPAL, "tid": TENANT, "appid": CLIENT}));
    format!("{{\"token_type\":\"Bearer\",\"expires_in\":86399,\"access_token\":\"{token}\"}}\n200")
}

fn refusal(code: u32) -> String {
    format!(
        "{{\"error\":\"invalid_client\",\"error_description\":\"AADSTS{code}: No \\\"match\\\" found. \
         Trace ID: t Correlation ID: c\",\"error_codes\":[{code}],\"correlation_id\":\"c\"}}\n401"
    )
}

#[test]
fn the_script_proves_and_shows_no_token() {
    let (code, report, calls) = script(&[granted()], "");
    assert_eq!(code, 0, "{report}");
    let pod = ended(0, &report.to_string());
    let proof = judged(&pod).unwrap();
    assert_eq!((proof.attempts, proof.answers), (1, 1));
    assert!(!report.to_string().contains("eyJ") && !calls.contains("eyJ"), "{calls}");
    let url = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token");
    assert!(calls.contains(&url), "{calls}");
}

#[test]
fn the_script_says_why_entra_refuses() {
    let (code, report, _) = script(&[refusal(7_002_138)], "");
    assert_eq!((code, &report["proved"]), (1, &json!(false)));
    assert_eq!((&report["status"], &report["code"]), (&json!(401), &json!(7_002_138)));
    let text = report["text"].as_str().unwrap();
    assert!(text.starts_with("AADSTS7002138: No"), "{text}");
    let (_, report, _) = script(&["curl: (6) Could not resolve host\n000".to_owned()], "");
    assert_eq!(report["text"], "curl: (6) Could not resolve host");
    assert_eq!(report["status"], Value::Null);
}

#[test]
fn the_script_ends_when_its_time_is_over() {
    // With no time at all a refusal that may pass is the last word, and so is one answer of a row.
    let (code, report, _) = script(&[refusal(700_213)], "");
    assert_eq!((code, &report["code"]), (1, &json!(700_213)));
    let (code, report, _) = script(&[granted()], "30");
    assert_eq!((code, &report["stage"]), (1, &json!("steady")));
}
