//! What a kustomization says, as far as it can change labels and annotations or tell which object
//! of the cluster a manifest becomes.
//!
//! Source: kubernetes-sigs/kustomize, `api/types/kustomization.go` and `api/types/selector.go`.

use super::tree::{Node, Value};

/// A kustomization.
#[derive(Debug, Default)]
pub(super) struct Kustomization {
    /// The position of its file.
    pub(super) file: usize,
    /// The directory that its paths begin at.
    pub(super) directory: String,
    pub(super) namespace: Option<String>,
    pub(super) prefix: String,
    pub(super) suffix: String,
    /// Files and directories that it builds from, in full.
    pub(super) resources: Vec<String>,
    /// Directories of components, which change what the kustomization has.
    pub(super) components: Vec<String>,
    /// Patches that come before names and labels.
    pub(super) patches: Vec<Patch>,
    /// `patchesJson6902`, which come after them.
    pub(super) late: Vec<Patch>,
    pub(super) pairs: Vec<Pairs>,
    /// What else it says: where, and the text.
    pub(super) rest: Vec<(usize, String)>,
}

/// Labels or annotations that go on everything, pod templates too.
#[derive(Debug)]
pub(super) struct Pairs {
    pub(super) annotations: bool,
    pub(super) pairs: Node,
}

/// A patch.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) from: From,
    pub(super) target: Option<Target>,
}

/// Where a patch stands.
#[derive(Debug)]
pub(super) enum From {
    /// In a file: its path, in full.
    File(String),
    /// In the kustomization: the text, its line, and how many lines stand before it.
    Here { text: String, line: usize, shift: usize },
}

/// What a patch applies to.
#[derive(Debug, Clone, Default)]
pub(super) struct Target {
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    /// Whether it selects by labels or annotations too.
    pub(super) selects: bool,
}

/// Whether a patch applies to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applies {
    Yes,
    No,
    /// It depends on what is not looked at.
    Perhaps,
}

/// The names that kustomize reads.
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Whether a file is a kustomization by its name.
pub(super) fn is_named(path: &str) -> bool {
    NAMES.contains(&path.rsplit('/').next().unwrap_or(path))
}

/// A path below a directory, without `.` and `..`, as far as that goes.
pub(super) fn join(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(path.split('/')) {
        match part {
            "." => {}
            "" if !parts.is_empty() => {}
            ".." if parts.last().is_some_and(|last| *last != ".." && !last.is_empty()) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    // The empty directory is where the program runs.
    if parts.first() == Some(&"") && !directory.starts_with('/') {
        parts.remove(0);
    }
    parts.join("/")
}

/// The directory of a path.
pub(super) fn parent(path: &str) -> String {
    path.rsplit_once('/').map_or(String::new(), |(directory, _)| directory.to_owned())
}

fn strings(node: Option<&Node>) -> impl Iterator<Item = &str> {
    node.into_iter().flat_map(Node::items).filter_map(Node::text)
}

/// The maps of a root that hold what a kustomization does: the root of a kustomization, or what
/// Flux and Argo CD take of it into their own objects.
pub(super) fn embedded(root: &Node) -> Vec<&Node> {
    let (Some(version), Some(kind)) = (root.text_at(&["apiVersion"]), root.text_at(&["kind"]))
    else {
        return Vec::new();
    };
    let argo = |spec: &'_ [&str]| -> Vec<&Node> {
        let Some(spec) = root.at(spec) else { return Vec::new() };
        let sources = spec.get("sources").map(Node::items).unwrap_or_default();
        let sources = sources.iter().chain(spec.get("source"));
        sources.filter_map(|source| source.get("kustomize")).collect()
    };
    match kind {
        "Kustomization" if version.starts_with("kustomize.toolkit.fluxcd.io/") => {
            root.get("spec").into_iter().collect()
        }
        "Application" if version.starts_with("argoproj.io/") => argo(&["spec"]),
        "ApplicationSet" if version.starts_with("argoproj.io/") => {
            argo(&["spec", "template", "spec"])
        }
        _ => Vec::new(),
    }
}

/// Whether a document is a kustomization: by its kind, or by the name of its file where it says no
/// kind.
pub(super) fn is_one(path: &str, root: &Node) -> bool {
    match (root.text_at(&["kind"]), root.text_at(&["apiVersion"])) {
        (Some("Kustomization" | "Component"), version) => {
            version.is_none_or(|version| version.starts_with("kustomize.config.k8s.io/"))
        }
        (None, _) => is_named(path),
        (Some(_), _) => false,
    }
}

/// Reads a kustomization.
pub(super) fn read(file: usize, directory: &str, root: &Node) -> Kustomization {
    let text = |key: &str| root.text_at(&[key]).map(str::to_owned);
    let full = |path: &str| join(directory, path);
    let mut found = Kustomization {
        file,
        directory: directory.to_owned(),
        namespace: text("namespace").filter(|name| !name.is_empty()),
        prefix: text("namePrefix").unwrap_or_default(),
        suffix: text("nameSuffix").unwrap_or_default(),
        components: strings(root.get("components")).map(full).collect(),
        ..Kustomization::default()
    };
    let sources = strings(root.get("resources")).chain(strings(root.get("bases")));
    found.resources = sources.map(full).collect();
    found.resources.sort();
    found.resources.dedup();
    let Value::Map { entries, .. } = &root.value else { return found };
    for (name, value) in entries {
        match name.text().unwrap_or_default() {
            "patches" => found.patches.extend(patches(value, directory)),
            "patchesJson6902" => found.late.extend(patches(value, directory)),
            "patchesStrategicMerge" => {
                found.patches.extend(value.items().iter().filter_map(|item| {
                    let from = if item.text()?.contains('\n') {
                        here(item)?
                    } else {
                        From::File(full(item.text()?))
                    };
                    Some(Patch { from, target: None })
                }));
            }
            "commonLabels" => {
                found.pairs.push(Pairs { annotations: false, pairs: value.clone() });
            }
            "commonAnnotations" => {
                found.pairs.push(Pairs { annotations: true, pairs: value.clone() });
            }
            "labels" => {
                let reaches = |item: &&Node| {
                    let yes = |key| item.text_at(&[key]) == Some("true");
                    yes("includeSelectors")
                        || yes("includeTemplates")
                        || item.get("fields").is_some()
                };
                let pairs = value.items().iter().filter(reaches);
                found.pairs.extend(pairs.filter_map(|item| {
                    let pairs = item.get("pairs")?.clone();
                    Some(Pairs { annotations: false, pairs })
                }));
            }
            "resources" | "bases" | "components" => {}
            _ => {
                let mut text = String::new();
                gather(value, &mut text);
                found.rest.push((name.line, text));
            }
        }
    }
    found
}

/// All scalars below a node.
pub(super) fn gather(node: &Node, into: &mut String) {
    match &node.value {
        Value::Scalar { text, .. } => {
            into.push_str(text);
            into.push('\n');
        }
        Value::Map { entries, .. } => {
            for (key, value) in entries {
                gather(key, into);
                gather(value, into);
            }
        }
        Value::List(items) => items.iter().for_each(|item| gather(item, into)),
        Value::Alias(_) => {}
    }
}

fn patches(list: &Node, directory: &str) -> Vec<Patch> {
    let patch = |item: &Node| {
        let from = match item.text_at(&["path"]) {
            Some(path) => From::File(join(directory, path)),
            None => here(item.get("patch")?)?,
        };
        let target = item.get("target").map(|target| {
            let text = |key: &str| target.text_at(&[key]).map(str::to_owned);
            Target {
                kind: text("kind"),
                name: text("name"),
                namespace: text("namespace"),
                selects: ["labelSelector", "annotationSelector"]
                    .iter()
                    .any(|key| target.get(key).is_some()),
            }
        });
        Some(Patch { from, target })
    };
    list.items().iter().filter_map(patch).collect()
}

fn here(node: &Node) -> Option<From> {
    // The place of a block begins with its first line, below the `|`.
    Some(From::Here { text: node.text()?.to_owned(), line: node.line, shift: node.line - 1 })
}

impl Target {
    /// Whether it selects an object that has, or had, one of these names.
    pub(super) fn applies(&self, kind: &str, names: &[String], namespace: Option<&str>) -> Applies {
        let of = |pattern: &Option<String>, have: &[&str]| {
            let Some(pattern) = pattern.as_deref().filter(|p| !p.is_empty() && *p != ".*") else {
                return Applies::Yes;
            };
            if have.iter().any(|have| have.eq_ignore_ascii_case(pattern)) {
                Applies::Yes
            } else if pattern.contains(|c| "*+?()[]{}|\\^$".contains(c)) {
                Applies::Perhaps
            } else {
                Applies::No
            }
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let in_namespace = match namespace {
            Some(namespace) => of(&self.namespace, &[namespace]),
            None if self.namespace.is_some() => Applies::Perhaps,
            None => Applies::Yes,
        };
        let all = [of(&self.kind, &[kind]), of(&self.name, &names), in_namespace];
        if all.contains(&Applies::No) {
            Applies::No
        } else if self.selects || all.contains(&Applies::Perhaps) {
            Applies::Perhaps
        } else {
            Applies::Yes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_the_directory_of_the_kustomization() {
        for (directory, path, full) in [
            ("k/overlays/dev", "../../base", "k/base"),
            ("", "a.yaml", "a.yaml"),
            (".", "./a.yaml", "a.yaml"),
            ("/srv/k", "../base/", "/srv/base"),
            ("..", "../base", "../../base"),
        ] {
            assert_eq!(join(directory, path), full, "{directory} {path}");
        }
    }

    #[test]
    fn a_target_that_cannot_be_worked_out_may_apply() {
        let target = |name: &str| Target {
            kind: Some("Deployment".to_owned()),
            name: Some(name.to_owned()),
            ..Target::default()
        };
        let names = ["api".to_owned()];
        let applies = |target: Target| target.applies("deployment", &names, Some("shop"));
        assert_eq!(applies(target("api")), Applies::Yes);
        assert_eq!(applies(target(".*")), Applies::Yes);
        assert_eq!(applies(target("web")), Applies::No);
        assert_eq!(applies(target("a.*|web")), Applies::Perhaps);
        assert_eq!(applies(Target { selects: true, ..target("api") }), Applies::Perhaps);
        let elsewhere = Target { namespace: Some("other".to_owned()), ..target("api") };
        assert_eq!(applies(elsewhere), Applies::No);
    }
}
