//! Opens the world that a command works on: the file, the credentials, the clients; or the
//! sandbox in their place.

use std::{collections::BTreeMap, sync::Arc};

use jiff::SignedDuration;

use super::{
    args::{Auth, Select},
    error::CliError,
    files,
    interrupt::Interrupt,
    main::Context,
    sandbox::{self, Attached},
    shelf::Folder,
};
use crate::{
    config::{self, Cloud, Config, Selection},
    execute::exit::ExitCode,
    model::{
        ClusterName,
        desired::{Access, DesiredState},
    },
    ops::{
        Connected,
        connect::{self, AuthKind, ConnectError, CredentialEnv, Endpoints, Target},
    },
    render::escape,
};

/// An open world.
pub(super) struct World {
    /// What the file asks for.
    pub(super) desired: DesiredState,
    /// The clients.
    pub(super) connected: Connected,
    /// The file as the user named it.
    pub(super) config: String,
    /// Backups of migrations beside those in the clusters.
    pub(super) shelf: Folder,
    /// How long proved pods run before their binding may go, as the file says.
    pub(super) soak: SignedDuration,
    /// The sandbox, where it is the world.
    sandbox: Option<Attached>,
}

/// Reads the configuration; every problem is in the error.
pub(super) fn load(context: &Context) -> Result<Config, CliError> {
    let path = &context.global.config;
    config::load(path, &config::Disk).map_err(|problems| {
        let shown = path.display().to_string();
        let rendered = problems.render(context.output.err.coloured);
        let text = format!("{rendered}error: {}: {problems}", escape::terminal(&shown));
        CliError::verbatim(ExitCode::Failed, text)
    })
}

/// Reads and compiles the configuration, reduced to what was chosen.
pub(super) fn desired(
    context: &Context,
    select: &Select,
) -> Result<(Config, DesiredState), CliError> {
    let config = load(context)?;
    let selection = Selection {
        only: select.only.clone(),
        namespaces: select.namespace.clone(),
        clusters: select.cluster.clone(),
    };
    let mut desired = config::compile(&config, &selection).map_err(|error| {
        CliError::usage(error.to_string())
            .hint("addresses look like `payments/payments-api@prod`; `*` stands for any text")
    })?;
    for (name, to) in &select.reach.context {
        let name = ClusterName::from(name.as_str());
        let Some(cluster) = desired.clusters.get_mut(&name) else {
            return Err(CliError::usage(format!("--context: the file has no cluster `{name}`")));
        };
        let kubeconfig = match &cluster.access {
            Access::Context { context: _, kubeconfig } => kubeconfig.clone(),
            Access::Azure | Access::None => None,
        };
        cluster.access = Access::Context { context: Some(to.clone()), kubeconfig };
    }
    Ok((config, desired))
}

impl World {
    /// Opens the world and says who acts in it.
    pub(super) async fn open(
        context: &Context,
        select: &Select,
        interrupt: &Interrupt,
    ) -> Result<Self, CliError> {
        tokio::select! {
            opened = Box::pin(Self::opened(context, select)) => opened,
            () = interrupt.asked() => Err(CliError::new(
                interrupt.exit(),
                format!("{} while signing in: nothing was read or written", interrupt.word()),
            )),
        }
    }

    async fn opened(context: &Context, select: &Select) -> Result<Self, CliError> {
        let (config, mut desired) = desired(context, select)?;
        let (target, sandbox) = if context.global.sandbox {
            let (target, attached) = sandbox::target(context, &mut desired).await?;
            (target, Some(attached))
        } else {
            (real(context, select, &config, &desired).await?, None)
        };
        let output = context.output;
        let waits = Arc::new(move |what: &str| {
            output.note(&format!("waiting for {}", escape::terminal(what)));
        });
        let connected = connect::connect(&desired, target, waits).await;
        let connected = connected.map_err(|error| connect_error(&error))?;
        let actor = connected.actor.to_string();
        let kind = if sandbox.is_some() { "sandbox" } else { connected.kind.as_str() };
        output.note(&format!("acting as {} ({kind})", escape::terminal(&actor)));
        if let Some(remark) = sandbox.as_ref().and_then(Attached::remark) {
            output.message(remark);
        }
        if config.warnings().warnings() > 0 {
            output.note(&config.warnings().render(output.err.coloured));
        }
        let soak = config.soak;
        let shelf = Folder::of(context, &desired);
        let config = context.global.config.display().to_string();
        Ok(Self { desired, connected, config, shelf, soak, sandbox })
    }

    /// Whether this is the sandbox.
    pub(super) fn is_sandbox(&self) -> bool {
        self.sandbox.is_some()
    }

    /// Ends it; a sandbox that this run started writes its world down.
    pub(super) async fn close(self) -> Result<(), CliError> {
        match self.sandbox {
            Some(attached) => attached.close().await,
            None => Ok(()),
        }
    }

    /// Ends it whatever came of what ran in it. A failure of that is told before one of the end.
    pub(super) async fn close_after<T>(self, result: Result<T, CliError>) -> Result<T, CliError> {
        let closed = self.close().await;
        let value = result?;
        closed?;
        Ok(value)
    }
}

async fn real(
    context: &Context,
    select: &Select,
    config: &Config,
    desired: &DesiredState,
) -> Result<Target, CliError> {
    let endpoints = match &config.cloud {
        Cloud::Public => Endpoints::public(),
        Cloud::UsGovernment => Endpoints::us_government(),
        Cloud::China => Endpoints::china(),
        Cloud::Custom { resource_manager, authority, ca_file } => {
            let ca_pem = ca_file.as_deref().map(files::read).transpose()?;
            let custom = Endpoints::custom(resource_manager.clone(), authority.clone(), ca_pem);
            custom.discover().await.map_err(|error| CliError::failed(error.to_string()))?
        }
    };
    Ok(Target {
        endpoints,
        credentials: CredentialEnv { variables: variables(context), tenant: Some(desired.tenant) },
        auth: select.reach.auth.map(auth_kind),
    })
}

/// Variables that credentials are made from.
fn variables(context: &Context) -> BTreeMap<String, String> {
    CredentialEnv::NAMES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), context.env.get(name)?.to_owned())))
        .collect()
}

/// The public cloud without a file.
pub(super) fn without_file(context: &Context, auth: Option<Auth>) -> Target {
    Target {
        endpoints: Endpoints::public(),
        credentials: CredentialEnv { variables: variables(context), tenant: None },
        auth: auth.map(auth_kind),
    }
}

fn auth_kind(auth: Auth) -> AuthKind {
    match auth {
        Auth::Environment => AuthKind::Environment,
        Auth::GithubActions => AuthKind::GithubActions,
        Auth::AzurePipelines => AuthKind::AzurePipelines,
        Auth::WorkloadIdentity => AuthKind::WorkloadIdentity,
        Auth::AzureCli => AuthKind::AzureCli,
        Auth::ManagedIdentity => AuthKind::ManagedIdentity,
    }
}

fn connect_error(error: &ConnectError) -> CliError {
    match error {
        ConnectError::Credential(error) => CliError::remote(&error.failure()),
        ConnectError::WrongTenant { actor, wanted } => CliError::new(
            ExitCode::Denied,
            format!("the credential acts as {actor}, the file is for tenant {wanted}"),
        )
        .hint(format!("az login --tenant {wanted}, or choose another credential with --auth")),
        ConnectError::Transport(error) => CliError::failed(error.to_string()),
    }
}
