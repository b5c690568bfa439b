//! Service account tokens: issuing through the `token` subresource, and checking them.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/>;
//! the claims are those of bound tokens.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value, json};

use super::{
    super::tokens,
    Kubernetes,
    apply::managed::{self, Author},
    error::{FieldError, Outcome, Status},
    fields,
    kinds::Kind,
    objects::stamp,
    schema::Type,
    storage::Key,
};

/// Answers `POST …/serviceaccounts/<name>/token`.
pub(super) fn issue(
    kube: &Kubernetes,
    namespace: &str,
    name: &str,
    mut request: Value,
    manager: &str,
    dry_run: bool,
) -> Outcome<Value> {
    const VERSION: &str = "authentication.k8s.io/v1";
    let minor = kube.facts().minor;
    let version = request["apiVersion"].as_str().unwrap_or(VERSION);
    if version != VERSION || !matches!(request["kind"].as_str(), Some("TokenRequest") | None) {
        return Err(Status::bad_request(format!(
            "no kind \"{}\" is registered for version \"{version}\"",
            request["kind"].as_str().unwrap_or_default()
        )));
    }
    let author = Author {
        manager,
        api_version: VERSION,
        subresource: "token",
        now: &stamp(kube.now()),
        minor,
    };
    let ty = Type::named("authentication/v1.TokenRequest");
    if let Some(text) = fields::mistyped(&request, &ty) {
        return Err(Status::bad_request(format!(
            "TokenRequest in version \"v1\" cannot be handled as a TokenRequest: {text}"
        )));
    }
    let given = json!({"metadata": {}, "spec": request["spec"]});
    let entry = managed::computed(&given, &author, &ty);
    let (claims, expires) = {
        let tx = kube.begin();
        let accounts = Kind::reference("", "serviceaccounts");
        let account = tx
            .get_key(&Key::of("core/serviceaccounts/", namespace, name))
            .ok_or_else(|| Status::not_found(&accounts, name))?;
        let spec = &mut request["spec"];
        if !spec.is_object() {
            *spec = json!({});
        }
        if spec["audiences"].as_array().is_none_or(Vec::is_empty) {
            spec["audiences"] = json!([tx.facts.issuer]);
        }
        if spec["expirationSeconds"].is_null() {
            spec["expirationSeconds"] = 3600.into();
        }
        let seconds = spec["expirationSeconds"].as_i64().unwrap_or(0);
        check_expiration(seconds, &spec["expirationSeconds"])?;
        // AKS caps tokens at a day; a longer wish is shortened, as the server does with a limit.
        let seconds = seconds.min(86_400);
        spec["expirationSeconds"] = seconds.into();
        let pod = bound_pod(&tx, namespace, spec)?;
        let issued = tx.now.as_second();
        let mut bound = Map::new();
        bound.insert("namespace".into(), namespace.into());
        bound.insert(
            "serviceaccount".into(),
            json!({"name": name, "uid": account["metadata"]["uid"]}),
        );
        if let Some(pod) = pod {
            if tx.facts.minor >= 30
                && let Some(node) = pod["spec"]["nodeName"].as_str()
                && let Some(live) = tx.get_key(&Key::of("core/nodes/", "", node))
            {
                bound.insert("node".into(), json!({"name": node, "uid": live["metadata"]["uid"]}));
            }
            bound.insert(
                "pod".into(),
                json!({"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}),
            );
        }
        let mut claims = json!({
            "aud": spec["audiences"], "exp": issued + seconds, "iat": issued, "nbf": issued,
            "iss": tx.facts.issuer, "kubernetes.io": bound,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
        });
        // Tokens carry an id since 1.30.
        if tx.facts.minor >= 30 {
            claims["jti"] = kube.ctx.ids.guid().to_string().into();
        }
        (claims, issued + seconds)
    };
    let mut status = json!({"token": "", "expirationTimestamp": Value::Null});
    if !dry_run {
        let key = tokens::signing_key(&kube.ctx, &kube.cluster.id)
            .map_err(|error| Status::internal(error.to_string()))?;
        let token =
            tokens::sign_jwt(&key, &claims).map_err(|error| Status::internal(error.to_string()))?;
        status["token"] = token.into();
        let expires = Timestamp::from_second(expires).unwrap_or(Timestamp::MAX);
        status["expirationTimestamp"] = stamp(expires).into();
    }
    let mut spec = request["spec"].take();
    if spec.get("boundObjectRef").is_none() {
        spec["boundObjectRef"] = Value::Null;
    }
    let mut metadata = Map::new();
    // Older servers answer with the metadata of the request.
    if minor >= 22 {
        metadata.insert("creationTimestamp".into(), stamp(kube.now()).into());
        metadata.insert("name".into(), name.into());
        metadata.insert("namespace".into(), namespace.into());
    } else {
        metadata.insert("creationTimestamp".into(), Value::Null);
    }
    if let Some(entry) = entry {
        metadata.insert("managedFields".into(), entry);
    }
    Ok(json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": metadata, "spec": spec, "status": status}))
}

fn check_expiration(seconds: i64, shown: &Value) -> Outcome<()> {
    const FIELD: &str = "spec.expirationSeconds";
    let error = if seconds < 600 {
        FieldError::invalid(FIELD, shown, "may not specify a duration less than 10 minutes")
    } else if seconds > 1 << 32 {
        FieldError::invalid(FIELD, shown, "may not specify a duration larger than 2^32 seconds")
    } else {
        return Ok(());
    };
    Err(Status::invalid_named("authentication.k8s.io", "TokenRequest", "", &[error]))
}

/// The pod that the token is bound to; other kinds are refused.
fn bound_pod(
    tx: &super::storage::Tx<'_>,
    namespace: &str,
    spec: &Value,
) -> Outcome<Option<std::sync::Arc<Value>>> {
    let bound = &spec["boundObjectRef"];
    if bound.is_null() {
        return Ok(None);
    }
    let name = bound["name"].as_str().unwrap_or_default();
    if bound["kind"] != "Pod" {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount to object of type {}",
            bound["kind"].as_str().unwrap_or_default()
        )));
    }
    let pods = Kind::reference("", "pods");
    let pod = tx
        .get_key(&Key::of("core/pods/", namespace, name))
        .ok_or_else(|| Status::not_found(&pods, name))?;
    if let Some(uid) = bound["uid"].as_str().filter(|uid| !uid.is_empty())
        && pod["metadata"]["uid"] != uid
    {
        return Err(Status::conflict(
            &pods,
            name,
            &format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    Ok(Some(pod))
}

/// The claims of a token of this cluster that is valid now, whatever its audience.
pub(super) fn verify(kube: &Kubernetes, token: &str) -> Option<Value> {
    // Parsing the payload first spares the signature check for tokens of somebody else.
    let payload = token.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    claims.get("kubernetes.io")?;
    let key = tokens::signing_key(&kube.ctx, &kube.cluster.id).ok()?;
    let jwk = serde_json::from_value(key.jwk()).ok()?;
    let verified = tokens::verify_rs256(token, &DecodingKey::from_jwk(&jwk).ok()?)?;
    let now = kube.now().as_second();
    let expires = verified.get("exp").and_then(Value::as_i64)?;
    (expires > now).then_some(Value::Object(verified))
}
