//! Signing keys and signed tokens, for Entra and for the token issuer of each cluster.
//!
//! Keys are RSA 2048, made on first use and kept in the store as
//! `keys/cluster/<lower-cased cluster id without leading slash>` and `keys/entra`, each
//! `{"private_pem", "kid"}`. They are secrets: nothing here prints them.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    jwk::{AlgorithmParameters, Jwk},
};
use rcgen::PublicKeyData as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{context::Context, store::Write};

/// The application id of the "Azure Kubernetes Service AAD Server", for which users of every
/// Entra-enabled cluster get their tokens.
pub const AKS_SERVER: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";

/// A signing key could not be made, stored or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Making or reading the RSA key.
    #[error("making or reading the signing key `{name}`")]
    Key {
        /// The store key.
        name: String,
        /// What the crypto library said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Signing a token.
    #[error("signing a token")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// Writing the key to the world's log.
    #[error("storing the signing key")]
    Store(#[source] std::io::Error),
}

/// An RSA key with the public parts that a key set shows.
pub struct SigningKey {
    /// The key id, as Kubernetes computes it.
    pub kid: String,
    encoding: EncodingKey,
    modulus: String,
    exponent: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl SigningKey {
    fn parse(pem: &str, kid: String) -> Result<Self, jsonwebtoken::errors::Error> {
        let encoding = EncodingKey::from_rsa_pem(pem.as_bytes())?;
        let jwk = Jwk::from_encoding_key(&encoding, Algorithm::RS256)?;
        let AlgorithmParameters::RSA(rsa) = jwk.algorithm else {
            return Err(jsonwebtoken::errors::ErrorKind::InvalidKeyFormat.into());
        };
        Ok(Self { kid, encoding, modulus: rsa.n, exponent: rsa.e })
    }

    /// The public key as a member of a JSON Web Key Set (RFC 7517).
    pub fn jwk(&self) -> Value {
        json!({
            "use": "sig", "kty": "RSA", "kid": self.kid, "alg": "RS256",
            "n": self.modulus, "e": self.exponent,
        })
    }
}

/// The key with which the token issuer of a cluster signs. Made on first use.
pub fn signing_key(ctx: &Context, cluster_id: &str) -> Result<Arc<SigningKey>, KeyError> {
    key(ctx, &format!("keys/cluster/{}", normal(cluster_id)))
}

/// The key with which Entra signs access tokens. Made on first use.
pub fn entra_key(ctx: &Context) -> Result<Arc<SigningKey>, KeyError> {
    key(ctx, "keys/entra")
}

/// Signs `claims` with RS256. The header is what kube-apiserver writes: `alg` and `kid`.
pub fn sign_jwt(key: &SigningKey, claims: &Value) -> Result<String, KeyError> {
    let mut header = Header::new(Algorithm::RS256);
    header.typ = None;
    header.kid = Some(key.kid.clone());
    jsonwebtoken::encode(&header, claims, &key.encoding).map_err(KeyError::Sign)
}

/// Signs `claims` with RS256 and the header of an Entra token: `typ`, `alg`, `x5t`, `kid`.
pub fn sign_entra(key: &SigningKey, claims: &Value) -> Result<String, KeyError> {
    let mut header = Header::new(Algorithm::RS256);
    header.x5t = Some(key.kid.clone());
    header.kid = Some(key.kid.clone());
    jsonwebtoken::encode(&header, claims, &key.encoding).map_err(KeyError::Sign)
}

/// The key set of a cluster's issuer, as `/openid/v1/jwks` serves it.
pub fn jwks(ctx: &Context, cluster_id: &str) -> Result<Value, KeyError> {
    Ok(json!({ "keys": [signing_key(ctx, cluster_id)?.jwk()] }))
}

/// The OIDC discovery document of an issuer, as kube-apiserver serves it.
pub fn discovery(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{}/openid/v1/jwks", issuer.trim_end_matches('/')),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    })
}

/// The issuer URL that tokens of a cluster carry: the one in its ARM record, fixed when the
/// cluster was made, whether or not the OIDC issuer is switched on. `None` for an unknown cluster.
pub fn issuer(ctx: &Context, cluster_id: &str) -> Option<String> {
    let record = ctx.store.get(&format!("arm/{}", normal(cluster_id)))?;
    Some(record.get("issuer")?.as_str()?.to_owned())
}

/// The bearer token that the kubeconfig of an emulated cluster carries; its holder is a member of
/// `system:masters`. Kept as `keys/operator/<cluster>`: `{"token"}`. Made on first use.
pub fn operator_token(ctx: &Context, cluster_id: &str) -> Result<String, KeyError> {
    secret(ctx, &format!("keys/operator/{}", normal(cluster_id)))
}

/// A random secret kept at a store key, made on first use.
pub(super) fn secret(ctx: &Context, name: &str) -> Result<String, KeyError> {
    let mut world = ctx.store.lock();
    if let Some(token) = world.get(name).and_then(|doc| Some(doc.get("token")?.as_str()?.into())) {
        return Ok(token);
    }
    let token = random_secret().map_err(|source| KeyError::Key { name: name.into(), source })?;
    world.commit(vec![Write::put(name, json!({ "token": token }))]).map_err(KeyError::Store)?;
    Ok(token)
}

/// 43 random characters: the digest of a fresh private key, which is the randomness at hand.
pub(super) fn random_secret() -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let key = rcgen::KeyPair::generate()?;
    Ok(URL_SAFE_NO_PAD.encode(Sha256::digest(key.serialized_der())))
}

fn key(ctx: &Context, name: &str) -> Result<Arc<SigningKey>, KeyError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| KeyError::Key {
        name: name.to_owned(),
        source,
    };
    // Lock order: keys, then store. Nothing takes them the other way round.
    let mut keys = ctx.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(key) = keys.get(name) {
        return Ok(Arc::clone(key));
    }
    let stored = ctx.store.get(name).and_then(|doc| {
        Some((doc.get("private_pem")?.as_str()?.to_owned(), doc.get("kid")?.as_str()?.to_owned()))
    });
    let (pem, kid) = if let Some(stored) = stored {
        stored
    } else {
        let pair =
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
                .map_err(|error| failed(error.into()))?;
        // kube-apiserver's key id: SHA-256 over the public key in PKIX DER, base64url, no padding.
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info()));
        let pem = pair.serialize_pem();
        ctx.store
            .commit(vec![Write::put(name, json!({ "private_pem": pem, "kid": kid }))])
            .map_err(KeyError::Store)?;
        (pem, kid)
    };
    let key = Arc::new(SigningKey::parse(&pem, kid).map_err(|error| failed(error.into()))?);
    keys.insert(name.to_owned(), Arc::clone(&key));
    Ok(key)
}

/// Why a token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT, wrong signature, wrong key or wrong issuer.
    #[error("the access token is invalid")]
    Invalid,
    /// `exp` has passed.
    #[error("the access token expired")]
    Expired {
        /// Seconds since the epoch.
        expiry: i64,
    },
    /// Issued for another resource.
    #[error("the access token is for another audience")]
    Audience,
}

/// Verifies an access token of this world's Entra: signature, issuer's tenant, expiry by the
/// world's clock, and an audience that is one of `audiences` (trailing slashes do not count).
pub fn verify_access_token(
    ctx: &Context,
    token: &str,
    audiences: &[&str],
) -> Result<Map<String, Value>, TokenError> {
    let key = entra_key(ctx).map_err(|_| TokenError::Invalid)?;
    let decoding = DecodingKey::from_rsa_components(&key.modulus, &key.exponent)
        .map_err(|_| TokenError::Invalid)?;
    let claims = verify_rs256(token, &decoding).ok_or(TokenError::Invalid)?;
    if claims.get("tid").and_then(Value::as_str) != Some(&ctx.settings.tenant.to_string()) {
        return Err(TokenError::Invalid);
    }
    let expiry = claims.get("exp").and_then(Value::as_i64).ok_or(TokenError::Invalid)?;
    if expiry <= ctx.clock.now().as_second() {
        return Err(TokenError::Expired { expiry });
    }
    let audience = claims.get("aud").and_then(Value::as_str).unwrap_or_default();
    let same = |a: &&str| a.trim_end_matches('/') == audience.trim_end_matches('/');
    if audiences.iter().any(same) { Ok(claims) } else { Err(TokenError::Audience) }
}

/// The claims of `token` if its RS256 signature is that of `key`. Times and audience are the
/// caller's business, because they follow the world's clock.
pub fn verify_rs256(token: &str, key: &DecodingKey) -> Option<Map<String, Value>> {
    let mut rules = Validation::new(Algorithm::RS256);
    rules.validate_exp = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    jsonwebtoken::decode(token, key, &rules).ok().map(|data| data.claims)
}

fn normal(id: &str) -> String {
    id.to_lowercase().trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{
        clock::{Clock, Ids},
        context::Settings,
        store::Store,
    };

    fn context() -> Context {
        let start = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::manual(start);
        Context::new(Store::in_memory(), clock, Ids::new(1, 0), Settings::default())
    }

    #[test]
    fn keys_are_made_once_and_read_back() {
        let ctx = context();
        let first = signing_key(&ctx, "/Subscriptions/S/x").unwrap();
        let again = signing_key(&ctx, "/subscriptions/s/X").unwrap();
        assert_eq!(first.kid, again.kid);
        ctx.keys.lock().unwrap().clear();
        assert_eq!(signing_key(&ctx, "/subscriptions/s/x").unwrap().kid, first.kid);
        assert_ne!(signing_key(&ctx, "/subscriptions/s/y").unwrap().kid, first.kid);
        assert_eq!(first.kid.len(), 43);
        assert!(!format!("{first:?}").contains("BEGIN"));
    }

    #[test]
    fn a_signed_token_verifies_only_with_its_key() {
        let ctx = context();
        let key = signing_key(&ctx, "a").unwrap();
        let token = sign_jwt(&key, &json!({ "iss": "x" })).unwrap();
        let jwk: Jwk = serde_json::from_value(key.jwk()).unwrap();
        let claims = verify_rs256(&token, &DecodingKey::from_jwk(&jwk).unwrap()).unwrap();
        assert_eq!(claims["iss"], "x");
        let other: Jwk = serde_json::from_value(signing_key(&ctx, "b").unwrap().jwk()).unwrap();
        assert!(verify_rs256(&token, &DecodingKey::from_jwk(&other).unwrap()).is_none());
    }

    #[test]
    fn access_tokens_are_checked_for_tenant_expiry_and_audience() {
        let ctx = context();
        let key = entra_key(&ctx).unwrap();
        let now = ctx.clock.now().as_second();
        let claims = json!({ "tid": ctx.settings.tenant, "aud": "https://x/", "exp": now + 10 });
        let token = sign_entra(&key, &claims).unwrap();
        assert!(verify_access_token(&ctx, &token, &["https://x"]).is_ok());
        assert_eq!(verify_access_token(&ctx, &token, &["https://y"]), Err(TokenError::Audience));
        ctx.clock.advance(std::time::Duration::from_secs(10));
        let expired = verify_access_token(&ctx, &token, &["https://x"]);
        assert_eq!(expired, Err(TokenError::Expired { expiry: now + 10 }));
        assert_eq!(verify_access_token(&ctx, "junk", &["https://x"]), Err(TokenError::Invalid));
    }
}
