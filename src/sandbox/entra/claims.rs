//! What stands in an access token.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::sandbox::{
    context::Context,
    tokens::{self, KeyError},
};

/// A signed access token for `app` and `resource`, with the claims of an app-only v1 token.
pub(super) fn access_token(
    ctx: &Context,
    client: &str,
    app: &Value,
    resource: &str,
    by_assertion: bool,
    lifetime: i64,
) -> Result<String, KeyError> {
    let now = ctx.clock.now().as_second();
    let tenant = ctx.settings.tenant;
    let sts = format!("https://sts.windows.net/{tenant}/");
    let unique = URL_SAFE_NO_PAD.encode(ctx.ids.guid().as_bytes());
    let mut claims = json!({
        "aud": audience(resource),
        "iss": sts,
        "iat": now - 300,
        "nbf": now - 300,
        // Entra's tokens live one second longer than `expires_in` says at the moment of issue.
        "exp": now + lifetime + 1,
        "aio": unique,
        "appid": client,
        // 1: a secret, 2: a certificate or assertion.
        "appidacr": if by_assertion { "2" } else { "1" },
        "idp": sts,
        "idtyp": "app",
        "oid": app["principal"],
        "sub": app["principal"],
        "tid": tenant,
        "uti": unique,
        "ver": "1.0",
    });
    if let Some(identity) = app["identity"].as_str() {
        claims["xms_mirid"] = identity.into();
    }
    tokens::sign_entra(&*tokens::entra_key(ctx)?, &claims)
}

/// Some resources may be asked for by application id; the token names their URI.
fn audience(resource: &str) -> &str {
    match resource {
        "797f4846-ba00-4fd7-ba43-dac1f8f63013" => "https://management.azure.com/",
        other => other,
    }
}
