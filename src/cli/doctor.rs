//! `doctor`: why a pod cannot authenticate.

use std::sync::Arc;

use super::{
    args::{Doctor, Format, Reach, Select},
    error::CliError,
    interrupt::Interrupt,
    main::Context,
    sandbox,
    world::{self, World},
};
use crate::{
    execute::exit::ExitCode,
    model::{ArmId, ClusterName, Namespace},
    ops::{
        connect,
        doctor::{self, Bare, Examined, Object, Options, Questions},
    },
    render::{doctor as shown, escape, json, text::SANDBOX},
};

pub(super) async fn run(
    context: &Context,
    args: Doctor,
    interrupt: Interrupt,
) -> Result<ExitCode, CliError> {
    if matches!(context.global.output, Format::Markdown | Format::Toml) {
        return Err(CliError::usage("doctor writes text or json"));
    }
    let about = about(&args)?;
    let options = Options { token: !args.no_token, now: context.env.now() };
    let with_file = with_file(context);
    let bare =
        [("--kubeconfig", args.kubeconfig.is_some()), ("--cluster-id", args.cluster_id.is_some())];
    if let Some((option, _)) = bare.iter().find(|(_, given)| *given && with_file) {
        let file = context.global.config.display();
        return Err(CliError::usage(format!("{option} is for use without a file; {file} says it")));
    }
    let examined = tokio::select! {
        examined = Box::pin(examine(context, &args, about, options, &interrupt)) => examined?,
        () = interrupt.asked() => return Ok(ExitCode::Interrupted),
    };
    Ok(show(context, &examined))
}

fn with_file(context: &Context) -> bool {
    context.global.config.exists()
}

/// The object on the command line and its namespace.
fn about(args: &Doctor) -> Result<Option<(Namespace, Object)>, CliError> {
    let Some(text) = &args.object else { return Ok(None) };
    let object = doctor::object(text).ok_or_else(|| {
        CliError::usage(format!("`{text}` is not KIND/NAME of something that has pods")).hint(
            "deploy/NAME, sts/NAME, ds/NAME, cronjob/NAME, job/NAME, pod/NAME or \
             serviceaccount/NAME",
        )
    })?;
    match args.namespace.as_slice() {
        [namespace] => Ok(Some((Namespace::from(namespace.as_str()), object))),
        [] => Err(CliError::usage("an object needs its namespace").hint("-n NAMESPACE")),
        _ => Err(CliError::usage("an object has one namespace")),
    }
}

async fn examine(
    context: &Context,
    args: &Doctor,
    about: Option<(Namespace, Object)>,
    options: Options,
    interrupt: &Interrupt,
) -> Result<Vec<Examined>, CliError> {
    if with_file(context) {
        return Box::pin(in_world(context, args, about, options, interrupt)).await;
    }
    let Some((namespace, object)) = about else {
        let file = context.global.config.display().to_string();
        return Err(CliError::failed(format!("{file} does not exist"))
            .hint("without a file: widentity doctor deploy/NAME -n NAMESPACE --context CONTEXT"));
    };
    let said = Bare {
        kubeconfig: args.kubeconfig.clone(),
        context: args.context.first().cloned(),
        cluster_id: id("--cluster-id", args.cluster_id.as_deref())?,
        target: id("--target", args.target.as_deref())?,
        role: args.role.clone(),
    };
    let (target, said) = if context.global.sandbox {
        sandbox::without_file(context, said)?
    } else {
        (world::without_file(context, args.auth), said)
    };
    let output = context.output;
    let waits = Arc::new(move |what: &str| {
        output.note(&format!("waiting for {}", escape::terminal(what)));
    });
    let reach = connect::without_file(target, waits).await;
    let questions = doctor::bare(namespace, &object, said);
    finish(Box::pin(doctor::doctor(reach, questions, None, options)).await)
}

/// An ARM id of the command line.
fn id(option: &str, text: Option<&str>) -> Result<Option<ArmId>, CliError> {
    let Some(text) = text else { return Ok(None) };
    let id = ArmId::new(text);
    if id.subscription().is_none() {
        return Err(CliError::usage(format!("{option}: `{text}` is no id of a resource"))
            .hint("it begins with /subscriptions/"));
    }
    Ok(Some(id))
}

async fn in_world(
    context: &Context,
    args: &Doctor,
    about: Option<(Namespace, Object)>,
    options: Options,
    interrupt: &Interrupt,
) -> Result<Vec<Examined>, CliError> {
    let mut pairs = Vec::new();
    for word in &args.context {
        let pair = word.split_once('=').ok_or_else(|| {
            CliError::usage("with a configuration file --context is NAME=CONTEXT")
        })?;
        pairs.push((pair.0.to_owned(), pair.1.to_owned()));
    }
    // An object may be in a namespace, and in a cluster, that no workload of the file names.
    let (namespace, cluster) = match &about {
        Some(_) => (Vec::new(), Vec::new()),
        None => (args.namespace.clone(), args.cluster.clone()),
    };
    let target = id("--target", args.target.as_deref())?;
    if target.is_some() && about.is_none() {
        return Err(CliError::usage("--target is about one object").hint("KIND/NAME -n NAMESPACE"));
    }
    let reach = Reach { context: pairs, auth: args.auth };
    let select = Select { only: args.only.clone(), namespace, cluster, reach };
    let world = World::open(context, &select, interrupt).await?;
    let unknown = args
        .cluster
        .iter()
        .find(|name| !world.connected.clusters.keys().any(|known| known.as_str() == name.as_str()));
    if let Some(name) = unknown {
        let known: Vec<&str> = world.connected.clusters.keys().map(ClusterName::as_str).collect();
        let error = CliError::usage(format!("--cluster: the file has no cluster `{name}`"))
            .hint(format!("it has {}", known.join(", ")));
        return world.close_after(Err(error)).await;
    }
    let questions = questions(&world, about, &args.cluster);
    let questions = match target {
        Some(target) => questions.needing(target, args.role.as_deref()),
        None => questions,
    };
    let reach = world.connected.reach();
    let examined = Box::pin(doctor::doctor(reach, questions, Some(&world.desired), options)).await;
    world.close().await?;
    finish(examined)
}

/// What is asked about in an open world.
pub(super) fn questions(
    world: &World,
    about: Option<(Namespace, Object)>,
    clusters: &[String],
) -> Questions {
    let mut connections = world.connected.clusters.clone();
    if !clusters.is_empty() {
        connections.retain(|name, _| clusters.iter().any(|cluster| cluster == name.as_str()));
    }
    doctor::of_file(&world.desired, &connections, about)
}

fn finish<E: std::fmt::Display>(
    examined: Result<Vec<Examined>, E>,
) -> Result<Vec<Examined>, CliError> {
    examined.map_err(|error| CliError::failed(error.to_string()))
}

fn show(context: &Context, examined: &[Examined]) -> ExitCode {
    let diagnoses: Vec<_> = examined.iter().map(|one| one.diagnosis.clone()).collect();
    let sandbox = context.global.sandbox;
    let text = match context.global.output {
        Format::Json => json::to_text(&shown::json(&diagnoses, sandbox)),
        Format::Text | Format::Markdown | Format::Toml => {
            let text = shown::text(&diagnoses, context.output.out);
            if sandbox { format!("{SANDBOX}\n\n{text}{SANDBOX}\n") } else { text }
        }
    };
    context.output.data(&text);
    doctor::exit(examined)
}
