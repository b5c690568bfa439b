//! What a token says of itself. Read without checking the signature: this program never lets
//! anybody in because of a token, it only reports what one says.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::model::{Audience, ClientId, Issuer, PrincipalId, Subject, TenantId, Token};

/// The claims of a token that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TokenClaims {
    /// The issuer.
    pub iss: Option<Issuer>,
    /// The subject.
    pub sub: Option<Subject>,
    /// The audiences; a single one is written without brackets.
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<Audience>,
    /// The object id of the principal, in tokens of Entra.
    pub oid: Option<PrincipalId>,
    /// The tenant, in tokens of Entra.
    pub tid: Option<TenantId>,
    /// The application, in tokens of Entra's first version.
    pub appid: Option<ClientId>,
    /// The application, in tokens of Entra's second version.
    pub azp: Option<ClientId>,
    /// The user's name.
    pub upn: Option<String>,
    /// The user's name, where there is no `upn`.
    pub unique_name: Option<String>,
    /// When it ends, in seconds since 1970.
    pub exp: Option<i64>,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Audience>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(Audience),
        Many(Vec<Audience>),
    }
    Ok(match OneOrMany::deserialize(from)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

impl TokenClaims {
    /// Reads the claims; none if the token is no JSON Web Token.
    pub fn read(token: &Token) -> Option<Self> {
        let mut parts = token.expose().split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Who acts in which tenant, as an Azure Resource Manager token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user's name or the application's client id.
    pub name: String,
    /// The object id.
    pub object_id: Option<PrincipalId>,
    /// The tenant.
    pub tenant: Option<TenantId>,
}

impl Actor {
    /// Reads the actor out of a token.
    pub fn of(token: &Token) -> Self {
        let claims = TokenClaims::read(token).unwrap_or_default();
        let application = claims.appid.or(claims.azp).map(|id| format!("application {id}"));
        let name = claims.upn.or(claims.unique_name).or(application);
        Self {
            name: name.unwrap_or_else(|| "an unnamed credential".to_owned()),
            object_id: claims.oid,
            tenant: claims.tid,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(object_id) = self.object_id {
            write!(f, " (object {object_id})")?;
        }
        match self.tenant {
            Some(tenant) => write!(f, " in tenant {tenant}"),
            None => write!(f, " in an unknown tenant"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &serde_json::Value) -> Token {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
        Token::new(format!("e30.{payload}.c2ln"))
    }

    #[test]
    fn claims_are_read_with_one_audience_or_several() {
        let one = token(&serde_json::json!({"iss": "https://i/", "sub": "s", "aud": "a"}));
        assert_eq!(TokenClaims::read(&one).unwrap().aud, [Audience::from("a")]);
        let many = token(&serde_json::json!({"aud": ["a", "b"]}));
        assert_eq!(TokenClaims::read(&many).unwrap().aud.len(), 2);
        assert_eq!(TokenClaims::read(&Token::new("opaque")), None);
    }

    #[test]
    fn the_actor_is_a_user_or_an_application() {
        let tenant = "00000000-0000-0000-0000-000000000001";
        let id = "00000000-0000-0000-0000-000000000002";
        let user = Actor::of(&token(
            &serde_json::json!({"upn": "ada@contoso.com", "tid": tenant, "oid": id}),
        ));
        assert_eq!(user.to_string(), format!("ada@contoso.com (object {id}) in tenant {tenant}"));
        let app = Actor::of(&token(&serde_json::json!({"appid": id, "tid": tenant})));
        assert_eq!(app.to_string(), format!("application {id} in tenant {tenant}"));
    }
}
