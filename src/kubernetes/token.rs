//! Tokens of service accounts, with the claims that decide whether Entra takes them.

use base64::Engine as _;
use hyper::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{
    Client, KubeError,
    client::{Ask, Repeat, segment},
    versions::collection,
};
use crate::model::{AccountName, Audience, Issuer, Namespace, Subject, Token};

/// A token that the API server issued for an account. Its claims are as the token says; nothing
/// here verifies the signature, which is Entra's business.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The token.
    pub token: Token,
    /// `iss`, byte for byte.
    pub iss: Issuer,
    /// `sub`.
    pub sub: Subject,
    /// `aud`; one for the audience that was asked for.
    pub aud: Vec<Audience>,
    /// `exp`. The server may shorten what was asked for.
    pub expires_at: Timestamp,
}

#[derive(Deserialize)]
struct Claims {
    iss: Issuer,
    sub: Subject,
    aud: Audiences,
    exp: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(Audience),
    Several(Vec<Audience>),
}

impl IssuedToken {
    fn decode(token: &str) -> Result<Self, KubeError> {
        let bad = |message: &str| KubeError::Body { message: format!("the token {message}") };
        let claims = token.split('.').nth(1).ok_or_else(|| bad("is not a JWT"))?;
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(claims.trim_end_matches('='))
            .map_err(|_| bad("has claims that are not base64"))?;
        // The parser's words could quote claims; they name people at worst, but are not needed.
        let claims: Claims =
            serde_json::from_slice(&claims).map_err(|_| bad("lacks one of iss, sub, aud, exp"))?;
        let expires_at = Timestamp::from_second(claims.exp);
        Ok(Self {
            token: Token::new(token),
            iss: claims.iss,
            sub: claims.sub,
            aud: match claims.aud {
                Audiences::One(one) => vec![one],
                Audiences::Several(several) => several,
            },
            expires_at: expires_at.map_err(|_| bad("has an expiry out of range"))?,
        })
    }
}

impl Client {
    /// Asks for a token of an account. Creating tokens is impersonation: planning never does it.
    /// `seconds` is at least 600.
    ///
    /// Source: Kubernetes API reference, `TokenRequest` v1.
    pub async fn token(
        &self,
        namespace: &Namespace,
        account: &AccountName,
        audience: &Audience,
        seconds: u32,
    ) -> Result<IssuedToken, KubeError> {
        #[derive(Deserialize)]
        struct Answer {
            status: Status,
        }
        #[derive(Deserialize)]
        struct Status {
            token: String,
        }
        let path = collection("v1", Some(namespace.as_str()), "serviceaccounts");
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience.as_str()], "expirationSeconds": seconds},
        });
        let answer: Answer = self
            .ask(&Ask {
                method: Method::POST,
                path: format!("{path}/{}/token", segment(account.as_str())),
                query: Vec::new(),
                body: Some(("application/json", body)),
                repeat: Repeat::Safe,
            })
            .await?;
        IssuedToken::decode(&answer.status.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &serde_json::Value) -> String {
        let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(r#"{"alg":"RS256"}"#), part(&claims.to_string()), part("sig"))
    }

    #[test]
    fn claims_are_decoded_whether_aud_is_text_or_a_list() {
        for aud in [json!("api://x"), json!(["api://x"])] {
            let token = jwt(&json!({"iss": "https://i/", "sub": "system:serviceaccount:n:a",
                "aud": aud, "exp": 1_700_000_000}));
            let issued = IssuedToken::decode(&token).unwrap();
            assert_eq!(issued.iss, Issuer::from("https://i/"));
            assert_eq!(issued.sub, Subject::of(&Namespace::from("n"), &AccountName::from("a")));
            assert_eq!(issued.aud, [Audience::from("api://x")]);
            assert_eq!(issued.expires_at.as_second(), 1_700_000_000);
            assert!(!format!("{issued:?}").contains(&token));
        }
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        for token in ["", "a", "a.b.c", &jwt(&json!({"iss": "i"}))] {
            assert!(IssuedToken::decode(token).is_err(), "{token}");
        }
    }
}
