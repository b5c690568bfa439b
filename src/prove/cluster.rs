//! An API server as the issuer of tokens to prove with.

use super::{IssuedToken, TokenSource};
use crate::{
    kubernetes::Client,
    model::{AccountName, Audience, Namespace, RemoteFailure},
};

impl TokenSource for Client {
    async fn token(
        &self,
        namespace: &Namespace,
        account: &AccountName,
        audience: &Audience,
        seconds: u32,
    ) -> Result<IssuedToken, RemoteFailure> {
        let issued = Self::token(self, namespace, account, audience, seconds).await;
        let issued = issued.map_err(|error| {
            error.failure(format!("request a token of service account {namespace}/{account}"))
        })?;
        Ok(IssuedToken { token: issued.token, iss: issued.iss, sub: issued.sub, aud: issued.aud })
    }
}
