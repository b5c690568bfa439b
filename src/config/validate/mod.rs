//! Every problem of the files in one run, and the checked configuration if there is none.
//!
//! A part that has a problem becomes `None` and the checks that need it are left out; all others
//! go on, so that nobody mends a file one error at a time.

mod azure;
mod clusters;
mod estate;
mod grants;
mod ids;
mod names;
mod probe;
mod workloads;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::SignedDuration;

use self::{names::Refused, workloads::Surroundings};
use super::{
    checked::Config,
    code::Code,
    diagnostic::{Diagnostic, Diagnostics},
    load::Read,
    source::{Located, Sources, Span},
};
use crate::model::{ArmId, Project, names::DEFAULT_IDENTITY_NAME};

type Problems = Vec<Diagnostic>;

/// Checks what was read. `None` only if a problem was reported.
pub(super) fn validate(read: &Read, sources: &Sources, problems: &mut Problems) -> Option<Config> {
    let root = &read.root;
    version(root.version.as_ref(), problems);
    let project = root.project.as_ref().and_then(|text| {
        name(text, "project", names::project, Code::InvalidProject, problems).map(Project)
    });
    let azure = root
        .azure
        .as_ref()
        .map(|raw| azure::azure(raw, &read.directory, problems))
        .unwrap_or_default();
    let clusters = clusters::clusters(&root.clusters, &read.directory, sources, problems);
    let targets = targets(read, problems);
    let surroundings = Surroundings {
        sources,
        project: project.as_ref(),
        azure: &azure,
        clusters: &clusters,
        targets: &targets,
        defaults: workloads::defaults(&root.defaults, &clusters, problems),
        template: template(root.defaults.identity_name.as_ref(), problems),
    };
    let all = || std::iter::once(root).chain(&read.included).flat_map(|file| &file.workloads);
    let drafts: Vec<_> =
        all().map(|raw| workloads::workload(raw, &surroundings, problems)).collect();
    let whole = Span::new(read.id, 0..0);
    if drafts.is_empty() {
        problems
            .push(Diagnostic::at(Code::NoWorkloads, whole, "the file has no workloads").help(
                "add a [[workloads]] table with namespace, service_account, target and role",
            ));
    } else if clusters.is_empty() {
        problems.push(
            Diagnostic::at(Code::NoClusters, whole, "the file has workloads and no cluster")
                .help("add a [clusters.<name>] table with an `id`"),
        );
    }
    estate::check(&drafts, problems);
    let soak = soak(root.migrate.soak.as_ref(), problems);

    let mut workloads =
        drafts.into_iter().map(workloads::Draft::finish).collect::<Option<Vec<_>>>()?;
    workloads.sort_by(|a, b| (&a.namespace, &a.account).cmp(&(&b.namespace, &b.account)));
    let home = azure.home()?;
    Some(Config {
        project: project?,
        tenant: azure.tenant?,
        home,
        cloud: azure.cloud?,
        tags: azure.tags,
        source: read.source.clone(),
        clusters: clusters
            .into_iter()
            .map(|(name, cluster)| cluster.map(|cluster| (name, cluster)))
            .collect::<Option<_>>()?,
        workloads,
        soak: soak?,
        found: Diagnostics::default(),
    })
}

/// How long proved pods run before their binding may go, unless the file says so.
const SOAK: SignedDuration = SignedDuration::from_hours(24);

fn soak(text: Option<&Located<String>>, problems: &mut Problems) -> Option<SignedDuration> {
    let Some(text) = text else { return Some(SOAK) };
    let parsed: Option<SignedDuration> = text.value.parse().ok();
    let length = parsed.filter(|length| !length.is_negative());
    if length.is_none() {
        problems.push(
            Diagnostic::at(
                Code::InvalidValue,
                text.span,
                format!("`soak` cannot be `{}`", text.value),
            )
            .label("takes a duration such as 24h, 90m or 0s"),
        );
    }
    length
}

fn version(version: Option<&Located<i64>>, problems: &mut Problems) {
    if let Some(version) = version.filter(|version| version.value != 1) {
        problems.push(
            Diagnostic::at(
                Code::UnsupportedVersion,
                version.span,
                format!("version {} of the format is not known", version.value),
            )
            .label("takes 1")
            .help("a newer file needs a newer widentity"),
        );
    }
}

/// The targets by key; one with a problem is there without a value.
type Targets = BTreeMap<String, Option<ArmId>>;

const TARGET: &str = "it is the id of what the role is on, for example az keyvault show --query id";

fn targets(read: &Read, problems: &mut Problems) -> Targets {
    let mut targets = Targets::new();
    let mut places: BTreeMap<&str, Span> = BTreeMap::new();
    for file in std::iter::once(&read.root).chain(&read.included) {
        for (key, id) in &file.targets {
            if let Some(first) = places.get(key.value.as_str()) {
                problems.push(
                    Diagnostic::at(
                        Code::DuplicateTarget,
                        key.span,
                        format!("the target `{}` is there twice", key.value),
                    )
                    .also(*first, "first here"),
                );
                continue;
            }
            places.insert(&key.value, key.span);
            if key.value.is_empty() || key.value.starts_with('/') {
                problems.push(Diagnostic::at(
                    Code::InvalidName,
                    key.span,
                    "the key of a target is not empty and does not begin with `/`",
                ));
            }
            let checked = ids::checked(id, &key.value, TARGET, ids::scope, problems);
            targets.insert(key.value.clone(), checked);
        }
    }
    targets
}

/// The template of identity names; `None` if it has a problem.
fn template<'a>(text: Option<&'a Located<String>>, problems: &mut Problems) -> Option<&'a str> {
    let Some(text) = text else { return Some(DEFAULT_IDENTITY_NAME) };
    let plain = ["{project}", "{namespace}", "{service_account}"]
        .iter()
        .fold(text.value.clone(), |text, known| text.replace(known, ""));
    if !plain.contains(['{', '}']) {
        return Some(&text.value);
    }
    problems.push(
        Diagnostic::at(
            Code::InvalidIdentityTemplate,
            text.span,
            "`identity_name` has a placeholder that is not known",
        )
        .label("takes {project}, {namespace} and {service_account}"),
    );
    None
}

/// A name that somebody may refuse.
fn name(
    text: &Located<String>,
    key: &str,
    check: impl FnOnce(&str) -> Result<(), Refused>,
    code: Code,
    problems: &mut Problems,
) -> Option<String> {
    match check(&text.value) {
        Ok(()) => Some(text.value.clone()),
        Err(Refused { reason, instead }) => {
            let shown: String = text.value.chars().take(80).collect();
            let more = if shown.len() < text.value.len() { "…" } else { "" };
            let mut problem =
                Diagnostic::at(code, text.span, format!("{key} `{shown}{more}` {reason}"));
            if let Some(instead) = instead {
                problem = problem.help(format!("write `{instead}`"));
            }
            problems.push(problem);
            None
        }
    }
}

/// A path of the file, relative to the file's directory.
fn path(
    text: &Located<String>,
    directory: &Path,
    key: &str,
    problems: &mut Problems,
) -> Option<PathBuf> {
    let written = text.value.as_str();
    let fault = if written.is_empty() {
        "is empty"
    } else if written.starts_with('~') || written.contains('$') {
        "has `~` or `$`, which nothing expands here"
    } else {
        return Some(directory.join(written));
    };
    problems.push(
        Diagnostic::at(Code::InvalidValue, text.span, format!("`{key}` {fault}"))
            .help("write the path, from the root or from the directory of this file"),
    );
    None
}

/// The members of a list, once each; a second one is reported.
fn once<'a>(list: &'a [Located<String>], problems: &mut Problems) -> Vec<&'a Located<String>> {
    let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
    let mut kept: Vec<&Located<String>> = Vec::new();
    for item in list {
        if let Some(first) = seen.get(item.value.as_str()) {
            problems.push(
                Diagnostic::at(
                    Code::DuplicateValue,
                    item.span,
                    format!("`{}` is there twice", item.value),
                )
                .also(*first, "first here"),
            );
        } else {
            seen.insert(&item.value, item.span);
            kept.push(item);
        }
    }
    kept
}
