//! Which credential is used: the first that applies, or the one that was asked for. Everything
//! that did not apply says why.

use std::{collections::BTreeMap, fmt, pin::pin, str::FromStr, sync::Arc, time::Duration};

use azure_core::{
    cloud::{CloudConfiguration, CustomConfiguration},
    credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions},
    http::{ClientOptions, ExponentialRetryOptions, RetryOptions, Transport},
};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertionCredential,
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use url::Url;

use super::{
    arm::Waits,
    assertion::Assertion,
    claims::Actor,
    credential_env::{
        CERTIFICATE, CLIENT_ID, CLIENT_SECRET, CredentialEnv, GITHUB_TOKEN, GITHUB_URL,
        PIPELINES_CLIENT, PIPELINES_CONNECTION, PIPELINES_TENANT, PIPELINES_TOKEN, PIPELINES_URL,
        TENANT_ID, TOKEN_FILE,
    },
    endpoints::Endpoints,
    hint,
    http::{self, TransportError, innermost, of_credential},
};
use crate::model::{FailureKind, RemoteFailure, Token};

/// The kinds of credential, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthKind {
    /// A client secret in environment variables.
    Environment,
    /// The OIDC token of a GitHub Actions job.
    GithubActions,
    /// A service connection of Azure Pipelines.
    AzurePipelines,
    /// Workload identity of the pod this runs in.
    WorkloadIdentity,
    /// The Azure CLI's login.
    AzureCli,
    /// A managed identity of the machine.
    ManagedIdentity,
}

impl AuthKind {
    /// All kinds, in the order in which they are tried.
    pub const ALL: [Self; 6] = [
        Self::Environment,
        Self::GithubActions,
        Self::AzurePipelines,
        Self::WorkloadIdentity,
        Self::AzureCli,
        Self::ManagedIdentity,
    ];

    /// The word that `--auth` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::GithubActions => "github-actions",
            Self::AzurePipelines => "azure-pipelines",
            Self::WorkloadIdentity => "workload-identity",
            Self::AzureCli => "azure-cli",
            Self::ManagedIdentity => "managed-identity",
        }
    }
}

impl fmt::Display for AuthKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuthKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| {
            format!("`{text}` is none of {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// The credential that is used.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The credential.
    pub credential: Arc<dyn TokenCredential>,
    /// Its kind.
    pub kind: AuthKind,
    /// Why those before it did not apply.
    pub refused: Vec<(AuthKind, String)>,
    actor: Actor,
}

impl Chosen {
    /// Who acts in which tenant, as the first token says.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }
}

/// No credential could be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// None applies.
    #[error("no credential applies: {}", list(refused))]
    None {
        /// Why not, one by one.
        refused: Vec<(AuthKind, String)>,
    },
    /// One applies and does not work. The next ones are not tried: they would act as somebody else.
    #[error("the credential `{kind}` does not work: {message}")]
    Failed {
        /// Which.
        kind: AuthKind,
        /// The credential's words.
        message: String,
        /// Whether it was refused, or nobody answered.
        why: FailureKind,
    },
    /// No HTTPS client.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

fn list(refused: &[(AuthKind, String)]) -> String {
    refused.iter().map(|(kind, why)| format!("{kind}: {why}")).collect::<Vec<_>>().join("; ")
}

impl CredentialError {
    /// The same as data.
    pub fn failure(&self) -> RemoteFailure {
        let (kind, hint) = match self {
            Self::Failed { why: FailureKind::Unavailable, .. } => {
                (FailureKind::Unavailable, hint::NOT_NOW)
            }
            Self::Failed { why, .. } if why.is_unanswered() => (*why, hint::THE_WAY),
            Self::None { .. } | Self::Failed { .. } | Self::Transport(_) => (
                FailureKind::Unauthenticated,
                "az login, or set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
            ),
        };
        RemoteFailure::new(kind, "sign in", self.to_string()).with_hint(hint)
    }
}

/// Takes the first credential that applies, or the one of `kind`, and asks it for a token, so that
/// what does not work is known before anything is read. `waits` hears of one that takes long.
pub async fn choose(
    env: &CredentialEnv,
    endpoints: &Endpoints,
    kind: Option<AuthKind>,
    waits: &Waits,
) -> Result<Chosen, CredentialError> {
    let transport = http::transport(endpoints)?;
    let mut refused = Vec::new();
    for candidate in AuthKind::ALL.into_iter().filter(|one| kind.is_none_or(|kind| kind == *one)) {
        let credential = match build(candidate, env, endpoints, &transport) {
            Ok(credential) => credential,
            Err(Refused::DoesNotApply(why)) => {
                tracing::debug!(kind = candidate.as_str(), why, "credential does not apply");
                refused.push((candidate, why));
                continue;
            }
            Err(Refused::Broken(message)) => {
                let why = FailureKind::Unauthenticated;
                return Err(CredentialError::Failed { kind: candidate, message, why });
            }
        };
        let scopes = [endpoints.arm_scope.as_str()];
        let asked = timeout(patience(candidate), credential.get_token(&scopes, None));
        let slow = || waits(&format!("a token of credential `{candidate}`: no answer yet"));
        let token = match saying(asked, slow).await {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(error)) => Err((one_line(&innermost(&error)), of_credential(&error))),
            Err(_) => Err(("no answer in time".to_owned(), FailureKind::TimedOut)),
        };
        match token {
            Ok(token) => {
                let actor = Actor::of(&Token::new(token.token.secret()));
                return Ok(Chosen { credential, kind: candidate, refused, actor });
            }
            // Whether these apply is known only by asking.
            Err((message, _))
                if kind.is_none()
                    && matches!(candidate, AuthKind::AzureCli | AuthKind::ManagedIdentity) =>
            {
                refused.push((candidate, message));
            }
            Err((message, why)) => {
                return Err(CredentialError::Failed { kind: candidate, message, why });
            }
        }
    }
    Err(CredentialError::None { refused })
}

/// From here on somebody who looks at a terminal wonders.
const LONG: Duration = Duration::from_secs(4);

/// Waits for `asked`, and says so once if it takes long: the libraries below try again in silence.
async fn saying<T>(asked: impl Future<Output = T>, say: impl FnOnce()) -> T {
    let mut asked = pin!(asked);
    if let Ok(answer) = timeout(LONG, &mut asked).await {
        return answer;
    }
    say();
    asked.await
}

fn patience(kind: AuthKind) -> Duration {
    match kind {
        // The address of a machine's identity service leads nowhere outside Azure.
        AuthKind::ManagedIdentity => Duration::from_secs(8),
        AuthKind::Environment
        | AuthKind::GithubActions
        | AuthKind::AzurePipelines
        | AuthKind::WorkloadIdentity
        | AuthKind::AzureCli => Duration::from_mins(2),
    }
}

fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with("To troubleshoot")).collect::<Vec<_>>().join(" ")
}

enum Refused {
    DoesNotApply(String),
    Broken(String),
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self::DoesNotApply(why)
    }
}

impl From<azure_core::Error> for Refused {
    fn from(error: azure_core::Error) -> Self {
        Self::Broken(one_line(&innermost(&error)))
    }
}

fn build(
    kind: AuthKind,
    env: &CredentialEnv,
    endpoints: &Endpoints,
    transport: &Transport,
) -> Result<Arc<dyn TokenCredential>, Refused> {
    let client_options = ClientOptions {
        // Given in full, so that azure_identity does not look for one in the environment.
        cloud: Some(Arc::new(cloud(endpoints))),
        // The library's own minute is long for somebody who looks at a terminal.
        retry: RetryOptions::exponential(ExponentialRetryOptions {
            max_total_elapsed: azure_core::time::Duration::seconds(15),
            ..ExponentialRetryOptions::default()
        }),
        ..http::options(transport)
    };
    let assertion_options =
        || ClientAssertionCredentialOptions { client_options: client_options.clone() };
    let outside = || {
        if endpoints.loopback_only {
            Err("the sandbox has credentials of its own".to_owned())
        } else {
            Ok(())
        }
    };
    let credential: Arc<dyn TokenCredential> = match kind {
        AuthKind::Environment => {
            if env.wants_oidc() {
                return Err("ARM_USE_OIDC asks for a federated credential".to_owned().into());
            }
            let secret =
                env.need(&CLIENT_SECRET).map_err(|missing| match env.get(&CERTIFICATE) {
                    Some(_) => {
                        "client certificates are not supported: use a client secret, or better \
                            a federated credential"
                            .to_owned()
                    }
                    None => missing,
                })?;
            let (tenant, client) = (env.need(&TENANT_ID)?, env.need(&CLIENT_ID)?);
            let options = ClientSecretCredentialOptions { client_options };
            let secret = Secret::new(secret.to_owned());
            ClientSecretCredential::new(tenant, client.to_owned(), secret, Some(options))?
        }
        AuthKind::GithubActions => {
            outside()?;
            let url = env.need(&GITHUB_URL).map_err(|missing| {
                format!(
                    "{missing} (in GitHub Actions the job needs `permissions: id-token: write`)"
                )
            })?;
            let token = env.need(&GITHUB_TOKEN)?;
            let (tenant, client) = (env.need(&TENANT_ID)?, env.need(&CLIENT_ID)?);
            let pipeline = http::pipeline(endpoints, transport, None);
            let assertion = Assertion::github(parsed(url)?, token, pipeline);
            let (tenant, client) = (tenant.to_owned(), client.to_owned());
            ClientAssertionCredential::new(tenant, client, assertion, Some(assertion_options()))?
        }
        AuthKind::AzurePipelines => {
            outside()?;
            let url = env.need(&PIPELINES_URL)?;
            let token = env.need(&PIPELINES_TOKEN).map_err(|missing| {
                format!("{missing} (map it: `SYSTEM_ACCESSTOKEN: $(System.AccessToken)`)")
            })?;
            let connection = env.need(&PIPELINES_CONNECTION)?;
            let (tenant, client) = (env.need(&PIPELINES_TENANT)?, env.need(&PIPELINES_CLIENT)?);
            let pipeline = http::pipeline(endpoints, transport, None);
            let assertion = Assertion::pipelines(parsed(url)?, connection, token, pipeline);
            let (tenant, client) = (tenant.to_owned(), client.to_owned());
            ClientAssertionCredential::new(tenant, client, assertion, Some(assertion_options()))?
        }
        AuthKind::WorkloadIdentity => {
            outside()?;
            let file = env.need(&TOKEN_FILE)?;
            let (tenant, client) = (env.need(&TENANT_ID)?, env.need(&CLIENT_ID)?);
            WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
                credential_options: assertion_options(),
                client_id: Some(client.to_owned()),
                tenant_id: Some(tenant.to_owned()),
                token_file_path: Some(file.into()),
            }))?
        }
        AuthKind::AzureCli => {
            outside()?;
            AzureCliCredential::new(Some(AzureCliCredentialOptions {
                tenant_id: env.tenant.map(|tenant| tenant.to_string()),
                ..AzureCliCredentialOptions::default()
            }))?
        }
        AuthKind::ManagedIdentity => {
            outside()?;
            let id = env.get(&CLIENT_ID).map(|id| UserAssignedId::ClientId(id.to_owned()));
            // The identity service of a machine speaks plain http on a link-local address, which
            // the guarded transport refuses; this one is used for nothing else.
            let client = reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(Duration::from_secs(2))
                .build()
                .map_err(|error| error.to_string())?;
            let client_options = ClientOptions {
                transport: Some(Transport::new(Arc::new(client))),
                ..ClientOptions::default()
            };
            ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                user_assigned_id: id,
                client_options,
            }))?
        }
    };
    Ok(Arc::new(Remembering { inner: credential, tokens: Mutex::default() }))
}

fn parsed(url: &str) -> Result<Url, String> {
    Url::parse(url).map_err(|_| "the address of the token service is not a URL".to_owned())
}

fn cloud(endpoints: &Endpoints) -> CloudConfiguration {
    let mut custom = CustomConfiguration::default();
    let authority = endpoints.authority.as_str().trim_end_matches('/');
    // azure_identity takes no other scheme; the transport speaks the one of the file.
    custom.authority_host = match authority.strip_prefix("http://") {
        Some(rest) => format!("https://{rest}"),
        None => authority.to_owned(),
    };
    custom.into()
}

/// Keeps tokens for a few minutes: the Azure CLI takes about a second for each, and every step of
/// a run would start one. Shorter than the five minutes that every token has left when it is
/// handed out.
const REMEMBER: Duration = Duration::from_mins(4);

#[derive(Debug)]
struct Remembering {
    inner: Arc<dyn TokenCredential>,
    tokens: Mutex<BTreeMap<Vec<String>, (AccessToken, Instant)>>,
}

#[async_trait::async_trait]
impl TokenCredential for Remembering {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let key: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        // Held while asking: a second caller waits for the first one's token.
        let mut tokens = self.tokens.lock().await;
        if let Some((token, since)) = tokens.get(&key)
            && since.elapsed() < REMEMBER
        {
            return Ok(token.clone());
        }
        let token = self.inner.get_token(scopes, options).await?;
        tokens.insert(key, (token.clone(), Instant::now()));
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> CredentialEnv {
        let variables = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        CredentialEnv { variables, tenant: None }
    }

    fn why(kind: AuthKind, env: &CredentialEnv) -> String {
        let endpoints = Endpoints::public();
        let transport = http::transport(&endpoints).unwrap();
        match build(kind, env, &endpoints, &transport) {
            Ok(_) => "applies".to_owned(),
            Err(Refused::DoesNotApply(why)) => why,
            Err(Refused::Broken(why)) => format!("broken: {why}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_said_once_and_waited_for() {
        let after = async |seconds| {
            let said = std::cell::Cell::new(0);
            let asked = tokio::time::sleep(Duration::from_secs(seconds));
            saying(asked, || said.set(said.get() + 1)).await;
            said.get()
        };
        assert_eq!((after(1).await, after(60).await), (0, 1));
    }

    const TENANT: (&str, &str) = ("AZURE_TENANT_ID", "00000000-0000-0000-0000-000000000001");
    const CLIENT: (&str, &str) = ("ARM_CLIENT_ID", "00000000-0000-0000-0000-000000000002");

    #[test]
    fn a_secret_applies_under_either_prefix() {
        let env = env(&[TENANT, CLIENT, ("ARM_CLIENT_SECRET", "s")]);
        assert_eq!(why(AuthKind::Environment, &env), "applies");
    }

    #[test]
    fn what_does_not_apply_says_why() {
        let none = env(&[]);
        assert_eq!(
            why(AuthKind::Environment, &none),
            "AZURE_CLIENT_SECRET or ARM_CLIENT_SECRET is not set"
        );
        assert!(why(AuthKind::GithubActions, &none).contains("id-token: write"));
        assert!(why(AuthKind::AzurePipelines, &none).contains("SYSTEM_OIDCREQUESTURI"));
        assert!(why(AuthKind::WorkloadIdentity, &none).contains("AZURE_FEDERATED_TOKEN_FILE"));
        let certificate = env(&[TENANT, CLIENT, ("AZURE_CLIENT_CERTIFICATE_PATH", "/x.pem")]);
        assert!(
            why(AuthKind::Environment, &certificate).contains("certificates are not supported")
        );
    }

    #[test]
    fn oidc_asked_for_passes_a_secret_over() {
        let env = env(&[
            TENANT,
            CLIENT,
            ("ARM_CLIENT_SECRET", "s"),
            ("ARM_USE_OIDC", "true"),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://token.example/?x=y"),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t"),
        ]);
        assert!(why(AuthKind::Environment, &env).contains("ARM_USE_OIDC"));
        assert_eq!(why(AuthKind::GithubActions, &env), "applies");
    }

    #[test]
    fn a_pipelines_connection_applies() {
        let env = env(&[
            ("AZURESUBSCRIPTION_TENANT_ID", TENANT.1),
            ("AZURESUBSCRIPTION_CLIENT_ID", CLIENT.1),
            ("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", "c"),
            ("SYSTEM_OIDCREQUESTURI", "https://vstoken.example/"),
            ("SYSTEM_ACCESSTOKEN", "t"),
        ]);
        assert_eq!(why(AuthKind::AzurePipelines, &env), "applies");
    }
}
