//! The sandbox from the command line: starting it for one run, attaching to one that is served,
//! and `sandbox serve`, `reset`, `show`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use url::Url;

use super::{
    args::{self, Select, Serve},
    error::CliError,
    files,
    interrupt::Interrupt,
    main::Context,
    pod_identity_seed, seed, served, shelf, world,
};
use crate::{
    execute::exit::ExitCode,
    model::{
        TenantId,
        desired::{Access, DesiredState},
    },
    ops::{
        connect::{AuthKind, CredentialEnv, Endpoints, Target},
        doctor::Bare,
    },
    render::{escape, text::SANDBOX},
    sandbox::{
        Options, Place, Ready, Running, Sandbox, Settings, StartError,
        chance::Chance,
        context::Delays,
        external::External,
        files::{FileError, Files},
    },
};

/// What is said of a log whose last line an earlier run could not finish.
const TORN: &str = "the sandbox's log was cut short: its last line is dropped, run again if \
                    something is missing";

/// The hosts of the issuers of emulated clusters.
const ISSUERS: &str = ".oic.prod-aks.azure.com";

/// The sandbox that a run uses.
pub(super) enum Attached {
    /// Started by this run, which writes its world down at the end.
    Own(Box<Running>),
    /// Served by another process.
    Served,
}

impl Attached {
    /// What is worth saying about how it was opened.
    pub(super) fn remark(&self) -> Option<&'static str> {
        match self {
            Self::Own(running) if running.dropped_torn_write() => Some(TORN),
            Self::Own(_) => None,
            Self::Served => Some("attached to the sandbox that is being served"),
        }
    }

    /// Ends a sandbox of our own.
    pub(super) async fn close(self) -> Result<(), CliError> {
        match self {
            Self::Own(running) => running.stop().await.map_err(|error| start_error(&error)),
            Self::Served => Ok(()),
        }
    }
}

/// Where the world's snapshot is: beside the configuration, or as `--sandbox-state` says.
pub(super) fn state_file(context: &Context) -> PathBuf {
    if let Some(path) = &context.global.sandbox_state {
        return path.clone();
    }
    let beside = context.global.config.parent().unwrap_or(Path::new(""));
    beside.join(".widentity").join("sandbox.json")
}

fn options(context: &Context, desired: &DesiredState) -> Result<Options, CliError> {
    let path = state_file(context);
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(|error| {
            CliError::failed(format!("cannot make {}: {error}", directory.display()))
        })?;
    }
    let settings = Settings {
        tenant: desired.tenant.0,
        subscription: desired.home.subscription.0,
        ..Settings::default()
    };
    Ok(Options { settings, ..Options::new(Place::File(path), seed::of(desired)) })
}

/// Starts or finds the sandbox and points every client at it. Nothing outside loopback is used:
/// no credential, kubeconfig, proxy or `cloud` of the user.
pub(super) async fn target(
    context: &Context,
    desired: &mut DesiredState,
) -> Result<(Target, Attached), CliError> {
    let (ready, attached) = match Sandbox::start(options(context, desired)?).await {
        Ok(running) => (running.ready().clone(), Attached::Own(Box::new(running))),
        Err(StartError::Files(FileError::Locked { path: _, ready: Some(ready) })) => {
            (*ready, Attached::Served)
        }
        Err(error) => return Err(start_error(&error)),
    };
    for cluster in desired.clusters.values_mut() {
        if cluster.access == Access::None {
            continue;
        }
        let Some(kubeconfig) = ready.kubeconfigs.get(cluster.name.as_str()) else {
            return Err(CliError::failed(format!("the sandbox has no cluster `{}`", cluster.name))
                .hint("it was served for another file: stop it and serve this one"));
        };
        let kubeconfig = Some(kubeconfig.display().to_string());
        cluster.access = Access::Context { context: None, kubeconfig };
    }
    Ok((clients(&ready)?, attached))
}

/// The sandbox that is being served, for a question without a file.
pub(super) fn without_file(context: &Context, said: Bare) -> Result<(Target, Bare), CliError> {
    let Some(ready) = served::find(context)? else {
        return Err(CliError::failed("no sandbox is being served here, and there is no file")
            .hint("widentity sandbox serve, or -c FILE"));
    };
    let names: Vec<&str> = ready.kubeconfigs.keys().map(String::as_str).collect();
    let name = match (said.context.as_deref(), names.as_slice()) {
        (Some(name), _) => name,
        (None, [name]) => *name,
        (None, _) => {
            let list = names.join(", ");
            return Err(CliError::usage("the sandbox has several clusters")
                .hint(format!("--context NAME, one of {list}")));
        }
    };
    let Some(kubeconfig) = ready.kubeconfigs.get(name) else {
        return Err(CliError::usage(format!("the sandbox has no cluster `{name}`"))
            .hint(format!("it has {}", names.join(", "))));
    };
    let context = Some(name.to_owned());
    let kubeconfig = Some(kubeconfig.clone());
    Ok((clients(&ready)?, Bare { kubeconfig, context, ..said }))
}

fn clients(ready: &Ready) -> Result<Target, CliError> {
    let broken = |what: &str| CliError::failed(format!("the sandbox gives no usable {what}"));
    let url = |text: &str, what| Url::parse(text).map_err(|_| broken(what));
    let ca_pem = files::read(&ready.ca_file)?;
    let data_plane = Url::parse(&ready.data_plane).ok().and_then(|url| url.port());
    let data_plane = data_plane.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut endpoints = Endpoints::sandbox(
        url(&ready.resource_manager, "Azure Resource Manager")?,
        url(&ready.authority, "Entra")?,
        ca_pem,
        data_plane,
    );
    // A world that an older version serves has no such socket.
    if let Ok(issuers) = ready.issuers.parse() {
        endpoints.resolve.push((ISSUERS.to_owned(), issuers));
    }
    let variables = BTreeMap::from([
        ("AZURE_TENANT_ID".to_owned(), ready.tenant.to_string()),
        ("AZURE_CLIENT_ID".to_owned(), ready.client_id.to_string()),
        ("AZURE_CLIENT_SECRET".to_owned(), ready.client_secret.clone()),
    ]);
    Ok(Target {
        endpoints,
        credentials: CredentialEnv { variables, tenant: Some(TenantId(ready.tenant)) },
        auth: Some(AuthKind::Environment),
    })
}

/// An error of the sandbox with what to do; every level of its causes in one line.
pub(super) fn start_error(error: &StartError) -> CliError {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        // A transparent level repeats the words of the one below.
        let words = next.to_string();
        if !message.ends_with(&words) {
            // Writing to a string cannot fail.
            let _ = write!(message, ": {words}");
        }
        cause = next.source();
    }
    let failed = CliError::failed(message);
    match error {
        StartError::Files(FileError::Locked { .. }) => {
            failed.hint("wait for the other run, or stop it")
        }
        StartError::Files(FileError::Damaged { .. }) => {
            failed.hint("widentity sandbox reset begins a new world")
        }
        StartError::OtherTenant { .. } => failed
            .hint("widentity sandbox reset, or keep several worlds apart with --sandbox-state"),
        StartError::External { .. } => failed
            .hint("give --cluster NAME=KUBECONFIG a cluster of the file and a server that is up"),
        StartError::Files(FileError::Io { .. })
        | StartError::Bind(_)
        | StartError::Store(_)
        | StartError::Log { .. }
        | StartError::Key(_)
        | StartError::Tls(_)
        | StartError::Kubeconfig { .. } => failed,
    }
}

/// `sandbox serve`.
pub(super) async fn serve(
    context: &Context,
    args: Serve,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    let (_, desired) = world::desired(context, &Select::default())?;
    let external = args.cluster.into_iter();
    let external = external.map(|(name, path)| External { name, kubeconfig: path.into() });
    let mut options = Options { external: external.collect(), ..options(context, &desired)? };
    options.settings.limits = args.limits;
    for (name, value) in &args.delay {
        *delay(&mut options.settings.delays, name)? =
            args::duration(value).map_err(CliError::usage)?;
    }
    options.random = args.fault_rate.map(|rate| Chance::new(rate, args.fault_seed));
    options.request_log = args.request_log;
    let running = Sandbox::start(options).await.map_err(|error| start_error(&error))?;
    if running.dropped_torn_write() {
        context.output.message(TORN);
    }
    if let Some(path) = &args.ready_file {
        running.write_ready_file(path).map_err(|error| start_error(&error.into()))?;
    }
    context.output.data(&format!("{SANDBOX}\n{}{SANDBOX}\n", served(running.ready())));
    interrupt.asked().await;
    running.stop().await.map_err(|error| start_error(&error))?;
    context.output.note("stopped; the world is written down");
    Ok(ExitCode::Done)
}

/// The delay that the command line calls `name`.
fn delay<'a>(delays: &'a mut Delays, name: &str) -> Result<&'a mut Duration, CliError> {
    Ok(match name {
        "fic" => &mut delays.fic,
        "fic-write" => &mut delays.fic_write,
        "role" => &mut delays.role,
        "cluster-update" => &mut delays.cluster_update,
        "principal" => &mut delays.principal,
        "parent" => &mut delays.parent,
        "list" => &mut delays.list,
        "negative-cache" => &mut delays.negative_cache,
        _ => return Err(CliError::usage(format!("there is no delay `{name}`"))),
    })
}

/// How a served sandbox is reached, in lines.
pub(super) fn served(ready: &Ready) -> String {
    let mut text = String::new();
    let lines = [
        ("resource manager", ready.resource_manager.clone()),
        ("authority", ready.authority.clone()),
        ("graph", ready.graph.clone()),
        ("ca file", ready.ca_file.display().to_string()),
        ("tenant", ready.tenant.to_string()),
        ("subscription", ready.subscription.to_string()),
        ("client id", ready.client_id.to_string()),
    ];
    for (name, value) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<17} {}", escape::terminal(&value));
    }
    for (name, path) in &ready.kubeconfigs {
        let name = format!("cluster {}", escape::terminal(name));
        let path = path.display().to_string();
        let _ = writeln!(text, "  {name:<17} KUBECONFIG={}", escape::terminal(&path));
    }
    text.push_str("other runs with --sandbox attach to it; Ctrl-C stops it\n");
    text
}

/// `sandbox reset`.
pub(super) async fn reset(context: &Context, args: args::Reset) -> Result<ExitCode, CliError> {
    if !args.pod_identity {
        return forget(context);
    }
    // Read first: a file with a problem costs nobody the old world.
    let (_, desired) = world::desired(context, &Select::default())?;
    forget(context)?;
    let seed = pod_identity_seed::of(&desired);
    let options = Options { seed, ..options(context, &desired)? };
    let running = Sandbox::start(options).await.map_err(|error| start_error(&error))?;
    running.stop().await.map_err(|error| start_error(&error))?;
    context.output.note(
        "a new world: every workload of the file lives on AAD Pod Identity; next: widentity \
         --sandbox migrate",
    );
    Ok(ExitCode::Done)
}

fn forget(context: &Context) -> Result<ExitCode, CliError> {
    let path = state_file(context);
    if !path.exists() {
        context.output.note(&format!("{}: there was no world", path.display()));
        return Ok(ExitCode::Done);
    }
    // Held until the files are gone. A damaged world may be forgotten like any other.
    let held = match Files::open(&path) {
        Ok(opened) => Some(opened),
        Err(FileError::Damaged { .. }) => None,
        Err(error) => return Err(start_error(&error.into())),
    };
    for extension in ["json", "log", "ready.json"] {
        let file = path.with_extension(extension);
        match fs::remove_file(&file) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(CliError::failed(format!("cannot remove {}: {error}", file.display())));
            }
        }
    }
    let backups = shelf::of_sandbox(context);
    if backups.exists() {
        fs::remove_dir_all(&backups).map_err(|error| {
            CliError::failed(format!("cannot remove {}: {error}", backups.display()))
        })?;
    }
    drop(held);
    context.output.note(&format!("{}: the world is forgotten", path.display()));
    Ok(ExitCode::Done)
}
