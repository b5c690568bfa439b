//! What comes of the files: every object that a kustomization builds from them, or that is applied
//! as it stands, with all that has a say about it, in the order in which it is applied.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    File, Spot,
    find::KINDS,
    kustomize::{self, Applies, From, Kustomization, Patch, Target},
    layer::{Body, Layer},
    tree::{self, Node},
};

/// An object as it goes into a cluster.
#[derive(Debug, Clone)]
pub(super) struct Placement {
    /// The kind in lower case.
    pub(super) kind: String,
    /// The names that it has on its way, the one in the cluster last.
    pub(super) names: Vec<String>,
    pub(super) namespace: Option<String>,
    /// Whether its manifest is here, and not patches of it only.
    pub(super) whole: bool,
    /// Everything that has a say, the last word last.
    pub(super) says: Vec<Use>,
    /// The file of the kustomization that is built, where one is.
    pub(super) root: Option<usize>,
}

impl Placement {
    pub(super) fn name(&self) -> &str {
        self.names.last().map_or("", String::as_str)
    }
}

/// A layer in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) layer: usize,
    /// Whether it cannot be told if it applies.
    pub(super) perhaps: bool,
}

/// What a patch applies to.
#[derive(Debug, Clone)]
pub(super) enum Select {
    Everything,
    Target(Target),
    Named { kind: String, name: String, namespace: Option<String> },
}

impl Select {
    pub(super) fn applies(&self, kind: &str, names: &[String], namespace: Option<&str>) -> Applies {
        match self {
            Self::Everything => Applies::Yes,
            Self::Target(target) => target.applies(kind, names, namespace),
            Self::Named { kind: its, name, namespace: own } => {
                let apart = own.as_deref().zip(namespace).is_some_and(|(a, b)| a != b);
                if its == kind && names.contains(name) && !apart {
                    Applies::Yes
                } else {
                    Applies::No
                }
            }
        }
    }
}

/// A layer with what it applies to.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) layer: usize,
    pub(super) select: Select,
}

/// Everything under the directory.
#[derive(Debug, Default)]
pub(super) struct Builds {
    /// The documents of each file; none of what could not be read.
    pub(super) documents: Vec<Vec<Node>>,
    pub(super) layers: Vec<Layer>,
    pub(super) placements: Vec<Placement>,
    /// Patches of which it cannot be told what builds with them.
    pub(super) loose: Vec<Unit>,
}

/// A manifest or a patch in a file.
#[derive(Debug)]
struct Object {
    spot: Spot,
    line: usize,
    kind: &'static str,
    name: String,
    namespace: Option<String>,
    /// Whether it stands for itself: a pod template without containers is a patch.
    whole: bool,
}

/// A kustomization with its patches as layers.
struct Ready<'a> {
    says: &'a Kustomization,
    patches: Vec<Unit>,
    late: Vec<Unit>,
    pairs: Vec<usize>,
}

/// The files, on the way to what is built from them.
#[derive(Default)]
struct Reading<'a> {
    builds: Builds,
    files: &'a [File],
    by_path: BTreeMap<String, usize>,
    objects: Vec<Vec<Object>>,
    broken: BTreeSet<usize>,
    known: BTreeMap<(usize, Spot), usize>,
}

/// Reads every file. What is not YAML is named: a Helm template is not guessed at.
pub(super) fn read(files: &[File], unread: &mut Vec<(String, String)>) -> Builds {
    let paths: Vec<String> = files.iter().map(|file| full(&file.path)).collect();
    let by_path = paths.iter().cloned().enumerate().map(|(n, path)| (path, n)).collect();
    let mut reading = Reading { files, by_path, ..Reading::default() };
    let mut kustomizations = Vec::new();
    let mut embedded = Vec::new();
    for (n, file) in files.iter().enumerate() {
        reading.objects.push(Vec::new());
        let documents = tree::documents(&file.text).unwrap_or_else(|error| {
            let why = if file.text.contains("{{") {
                format!("a template, not YAML ({error})")
            } else {
                format!("not YAML: {error}")
            };
            unread.push((file.path.clone(), why));
            reading.broken.insert(n);
            Vec::new()
        });
        let directory = kustomize::parent(&paths[n]);
        for (document, root) in documents.iter().enumerate() {
            if kustomize::is_one(&paths[n], root) {
                kustomizations.push(kustomize::read(n, &directory, root));
                continue;
            }
            let inner = kustomize::embedded(root);
            embedded.extend(inner.into_iter().map(|node| kustomize::read(n, &directory, node)));
            if root.text_at(&["apiVersion"]) == Some("builtin") {
                // A transformer of kustomize.
                let mut text = String::new();
                kustomize::gather(root, &mut text);
                reading.anywhere(n, root.line, text);
            }
            let spot = |item| Spot { document, item };
            let items = root.get("items").map(Node::items).unwrap_or_default().iter().enumerate();
            let all = std::iter::once((spot(None), root))
                .chain(items.map(|(i, item)| (spot(Some(i)), item)));
            reading.objects[n].extend(all.filter_map(|(spot, node)| object(spot, node)));
        }
        if reading.broken.contains(&n) && kustomize::is_named(&paths[n]) {
            reading.anywhere(n, 1, file.text.clone());
        }
        reading.builds.documents.push(documents);
    }
    reading.place(&kustomizations, &embedded);
    reading.builds
}

/// A path as kustomizations are followed by it.
fn full(path: &str) -> String {
    let path = path.replace(std::path::MAIN_SEPARATOR, "/");
    kustomize::join(if path.starts_with('/') { "/" } else { "" }, &path)
}

fn object(spot: Spot, root: &Node) -> Option<Object> {
    let version = root.text_at(&["apiVersion"])?;
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let written = root.text_at(&["kind"])?;
    let (_, _, kind) = KINDS.iter().find(|(kind, of, _)| *kind == written && *of == group)?;
    let containers: &[&str] = match *kind {
        "cronjob" => &["spec", "jobTemplate", "spec", "template", "spec", "containers"],
        _ => &["spec", "template", "spec", "containers"],
    };
    Some(Object {
        spot,
        line: root.line,
        kind,
        name: root.text_at(&["metadata", "name"])?.to_owned(),
        namespace: root.text_at(&["metadata", "namespace"]).map(str::to_owned),
        whole: *kind == "serviceaccount" || root.at(containers).is_some(),
    })
}

impl Reading<'_> {
    fn layer(&mut self, file: usize, line: usize, shift: usize, body: Body) -> usize {
        self.builds.layers.push(Layer { file, line, shift, body });
        self.builds.layers.len() - 1
    }

    /// The layer of an object or of a list of operations in a file: there is one, however many
    /// builds it is in.
    fn in_file(&mut self, file: usize, spot: Spot, line: usize, body: Body) -> usize {
        if let Some(known) = self.known.get(&(file, spot)) {
            return *known;
        }
        let layer = self.layer(file, line, 0, body);
        self.known.insert((file, spot), layer);
        layer
    }

    fn anywhere(&mut self, file: usize, line: usize, text: String) {
        let layer = self.layer(file, line, 0, Body::Opaque(text));
        self.builds.loose.push(Unit { layer, select: Select::Everything });
    }

    fn place(&mut self, kustomizations: &[Kustomization], embedded: &[Kustomization]) {
        let ready: Vec<Ready<'_>> = kustomizations.iter().map(|one| self.ready(one)).collect();
        for one in embedded {
            let Ready { patches, late, pairs, .. } = self.ready(one);
            let pairs = pairs.into_iter().map(|layer| Unit { layer, select: Select::Everything });
            self.builds.loose.extend(patches.into_iter().chain(late).chain(pairs));
        }
        let at =
            |directory: &String| kustomizations.iter().position(|one| one.directory == *directory);
        let used =
            kustomizations.iter().flat_map(|one| one.resources.iter().chain(&one.components));
        let used: BTreeSet<&String> = used.collect();
        let inner: BTreeSet<usize> = used.iter().filter_map(|path| at(path)).collect();
        for (n, root) in kustomizations.iter().enumerate() {
            if inner.contains(&n) {
                continue;
            }
            let mut placed = Vec::new();
            self.build(&ready, n, &mut Vec::new(), &mut placed);
            for one in &mut placed {
                one.root = Some(root.file);
            }
            self.builds.placements.append(&mut placed);
        }
        // What no kustomization takes is applied as it stands.
        let patches = kustomizations.iter().flat_map(|one| one.patches.iter().chain(&one.late));
        let patches = patches.filter_map(|patch| match &patch.from {
            From::File(path) => Some(path),
            From::Here { .. } => None,
        });
        let taken: BTreeSet<&String> = patches.chain(used).collect();
        let free: Vec<usize> = self
            .by_path
            .iter()
            .filter(|(path, _)| !taken.contains(path))
            .map(|(_, file)| *file)
            .collect();
        for file in free {
            for placement in self.manifests(file) {
                if placement.whole {
                    self.builds.placements.push(placement);
                    continue;
                }
                let Placement { kind, mut names, namespace, says, .. } = placement;
                let name = names.remove(0);
                let select = Select::Named { kind, name, namespace };
                self.builds.loose.push(Unit { layer: says[0].layer, select });
            }
        }
    }

    /// The objects of a file, as they stand there.
    fn manifests(&mut self, file: usize) -> Vec<Placement> {
        let objects = std::mem::take(&mut self.objects[file]);
        let placed = objects.iter().map(|object| {
            let layer = self.in_file(file, object.spot, object.line, Body::Object(object.spot));
            Placement {
                kind: object.kind.to_owned(),
                names: vec![object.name.clone()],
                namespace: object.namespace.clone(),
                whole: object.whole,
                says: vec![Use { layer, perhaps: false }],
                root: None,
            }
        });
        let placed = placed.collect();
        self.objects[file] = objects;
        placed
    }

    fn ready<'k>(&mut self, one: &'k Kustomization) -> Ready<'k> {
        let mut units = |patches: &[Patch]| -> Vec<Unit> {
            patches.iter().flat_map(|patch| self.units(one.file, patch)).collect()
        };
        let (patches, mut late) = (units(&one.patches), units(&one.late));
        let mut pairs = Vec::new();
        for each in &one.pairs {
            let body = Body::Pairs { annotations: each.annotations, pairs: each.pairs.clone() };
            pairs.push(self.layer(one.file, each.pairs.line, 0, body));
        }
        for (line, text) in &one.rest {
            let layer = self.layer(one.file, *line, 0, Body::Opaque(text.clone()));
            late.push(Unit { layer, select: Select::Everything });
        }
        Ready { says: one, patches, late, pairs }
    }

    /// What a patch consists of.
    fn units(&mut self, kustomization: usize, patch: &Patch) -> Vec<Unit> {
        let select = |object: Option<Object>| match (&patch.target, object) {
            (Some(target), _) => Some(Select::Target(target.clone())),
            (None, Some(object)) => Some(Select::Named {
                kind: object.kind.to_owned(),
                name: object.name,
                namespace: object.namespace,
            }),
            // A patch of a kind that is not looked at.
            (None, None) => None,
        };
        let unknown = || Select::Target(patch.target.clone().unwrap_or_default());
        let spot = |document| Spot { document, item: None };
        match &patch.from {
            From::File(path) => {
                let Some(&file) = self.by_path.get(path) else { return Vec::new() };
                if self.broken.contains(&file) {
                    let text = self.files[file].text.clone();
                    let layer = self.layer(file, 1, 0, Body::Opaque(text));
                    return vec![Unit { layer, select: unknown() }];
                }
                let roots: Vec<Node> = self.builds.documents[file].clone();
                let units = roots.into_iter().enumerate().filter_map(|(n, root)| {
                    let (line, operations) = (root.line, !root.items().is_empty());
                    let select =
                        if operations { Some(unknown()) } else { select(object(spot(n), &root)) }?;
                    let body =
                        if operations { Body::Operations(root) } else { Body::Object(spot(n)) };
                    Some(Unit { layer: self.in_file(file, spot(n), line, body), select })
                });
                units.collect()
            }
            From::Here { text, line, shift } => {
                let Ok(roots) = tree::documents(text) else {
                    let body = Body::Opaque(text.clone());
                    let layer = self.layer(kustomization, *line, 0, body);
                    return vec![Unit { layer, select: unknown() }];
                };
                let units = roots.into_iter().enumerate().filter_map(|(n, root)| {
                    let operations = !root.items().is_empty();
                    let select =
                        if operations { Some(unknown()) } else { select(object(spot(n), &root)) }?;
                    let body = if operations { Body::Operations(root) } else { Body::Inline(root) };
                    Some(Unit { layer: self.layer(kustomization, *line, *shift, body), select })
                });
                units.collect()
            }
        }
    }

    /// Builds a kustomization onto what is there: a component changes that too.
    fn build(
        &mut self,
        ready: &[Ready<'_>],
        n: usize,
        within: &mut Vec<usize>,
        placed: &mut Vec<Placement>,
    ) {
        if within.contains(&n) {
            return;
        }
        within.push(n);
        let Ready { says, patches, late, pairs } = &ready[n];
        let at = |path: &String| ready.iter().position(|one| one.says.directory == *path);
        for path in &says.resources {
            if let Some(&file) = self.by_path.get(path) {
                placed.extend(self.manifests(file));
            } else if let Some(inner) = at(path) {
                let mut own = Vec::new();
                self.build(ready, inner, within, &mut own);
                placed.append(&mut own);
            }
        }
        for path in &says.components {
            if let Some(inner) = at(path) {
                self.build(ready, inner, within, placed);
            }
        }
        patch(patches, placed);
        for one in placed.iter_mut() {
            if let Some(namespace) = &says.namespace {
                one.namespace = Some(namespace.clone());
            }
            if !(says.prefix.is_empty() && says.suffix.is_empty()) {
                one.names.push(format!("{}{}{}", says.prefix, one.name(), says.suffix));
            }
            one.says.extend(pairs.iter().map(|&layer| Use { layer, perhaps: false }));
        }
        patch(late, placed);
        within.pop();
    }
}

/// Gives each patch a say about what it applies to. One that applies to nothing that is here
/// stands for an object whose manifest is elsewhere.
fn patch(units: &[Unit], placed: &mut Vec<Placement>) {
    for Unit { layer, select } in units {
        let mut alone = true;
        for one in placed.iter_mut() {
            let applies = select.applies(&one.kind, &one.names, one.namespace.as_deref());
            if applies != Applies::No {
                alone = false;
                one.says.push(Use { layer: *layer, perhaps: applies == Applies::Perhaps });
            }
        }
        let (kind, name, namespace) = match select {
            Select::Named { kind, name, namespace } => (kind.clone(), name, namespace.clone()),
            Select::Target(Target { kind: Some(kind), name: Some(name), namespace, .. }) => {
                (kind.to_lowercase(), name, namespace.clone())
            }
            Select::Target(_) | Select::Everything => continue,
        };
        if alone {
            placed.push(Placement {
                kind,
                names: vec![name.clone()],
                namespace,
                whole: false,
                says: vec![Use { layer: *layer, perhaps: false }],
                root: None,
            });
        }
    }
}
