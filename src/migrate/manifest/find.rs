//! Which manifest is whose: by kind, name and namespace, as an API server would tell them apart,
//! and by the value of the old label.

use std::collections::BTreeSet;

use super::{
    Fields, File,
    build::{Builds, Placement, Use},
    change::Edits,
    kustomize::Applies,
    layer::{Body, Said, What},
    tree::Node,
};
use crate::model::{Namespace, pod_identity::BINDING_LABEL, snapshot::TemplateKind};

/// What an object must say.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The kind in lower case.
    pub(super) kind: &'static str,
    pub(super) namespace: Namespace,
    pub(super) name: String,
    /// The map that changes.
    pub(super) path: Vec<&'static str>,
    pub(super) fields: Fields,
    /// The tool that keeps the live object.
    pub(super) kept_by: Option<String>,
    /// Whether the live template has the old label.
    pub(super) labelled: bool,
    /// The values of the old label that are this workload's; none where nothing tells.
    pub(super) values: Option<BTreeSet<String>>,
}

impl Wanted {
    /// Whether a value of the old label is another's.
    fn is_anothers(&self, what: &What) -> bool {
        let (What::Sets { value, .. }, Some(values)) = (what, &self.values) else { return false };
        !values.contains(value)
    }

    pub(super) fn object(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// Why the manifest of an object cannot be told, or changed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) why: String,
    pub(super) at: Vec<String>,
}

/// Where the labels of the pod template stand.
pub(super) fn labels(kind: TemplateKind) -> Vec<&'static str> {
    [kind.template_path(), &["metadata", "labels"]].concat()
}

/// The kinds that change, with the API group of each.
pub(super) const KINDS: [(&str, &str, &str); 6] = [
    ("ServiceAccount", "", "serviceaccount"),
    ("Deployment", "apps", "deployment"),
    ("StatefulSet", "apps", "statefulset"),
    ("DaemonSet", "apps", "daemonset"),
    ("CronJob", "batch", "cronjob"),
    ("Rollout", "argoproj.io", "rollout"),
];

/// What is built, with the files as they are by now.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) builds: &'a Builds,
    pub(super) files: &'a [File],
    pub(super) edits: &'a Edits,
}

/// The one object that is to change.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Its place among what is built; none where only loose patches of it are here.
    pub(super) placement: Option<usize>,
    /// All that has a say about it.
    pub(super) says: Vec<Use>,
    /// Whether its manifest is here.
    pub(super) whole: bool,
}

impl<'a> View<'a> {
    fn documents(self, file: usize) -> &'a [Node] {
        let read = &self.builds.documents[file];
        self.edits.get(&file).map_or(read, |edited| &edited.documents)
    }

    /// Who has the last word about a key, and what it is.
    pub(super) fn decides(self, says: &[Use], path: &[&str], key: &str) -> Option<(usize, Said)> {
        says.iter().rev().find_map(|one| {
            let layer = &self.builds.layers[one.layer];
            let mut said = layer.says(self.documents(layer.file), path, key)?;
            if one.perhaps {
                said.what = What::Unclear;
            }
            Some((one.layer, said))
        })
    }

    /// `path:line`.
    pub(super) fn at(self, layer: usize, line: usize) -> String {
        format!("{}:{line}", self.files[self.builds.layers[layer].file].path)
    }

    /// Where a layer begins.
    pub(super) fn start(self, layer: usize) -> String {
        self.at(layer, self.builds.layers[layer].line)
    }

    /// What builds an object, or its manifest where nothing does.
    fn builder(self, placement: &Placement) -> String {
        match (placement.root, placement.says.first()) {
            (Some(root), _) => self.files[root].path.clone(),
            (None, Some(first)) => self.start(first.layer),
            (None, None) => String::new(),
        }
    }

    /// How these are told apart: by what builds them, or by their names.
    pub(super) fn apart(self, all: &[&Placement]) -> String {
        let builders: BTreeSet<String> = all.iter().map(|one| self.builder(one)).collect();
        let name = |one: &&Placement| {
            let namespace = one.namespace.as_ref().map(|name| format!(" in {name}"));
            format!("{}/{}{}", one.kind, one.name(), namespace.unwrap_or_default())
        };
        let words = if builders.len() > 1 { builders } else { all.iter().map(name).collect() };
        words.into_iter().collect::<Vec<_>>().join(" and ")
    }

    /// The object that is to change; none where there is no manifest of it. `namespaces` are those
    /// in which the cluster has an object of this kind and name.
    pub(super) fn choose(
        self,
        want: &Wanted,
        namespaces: &[String],
    ) -> Result<Option<Chosen>, Refusal> {
        let here = self.named(want, namespaces)?;
        if here.is_empty() {
            let loose = self.loose(want, std::slice::from_ref(&want.name));
            let patch = |one: &Use| matches!(self.builds.layers[one.layer].body, Body::Object(_));
            let any = loose.iter().any(patch);
            return Ok(any.then_some(Chosen { placement: None, says: loose, whole: false }));
        }
        let with_loose = |n: usize| {
            let placement = &self.builds.placements[n];
            let loose = self.loose(want, &placement.names);
            let says = placement.says.iter().copied().chain(loose).collect();
            Chosen { placement: Some(n), says, whole: placement.whole }
        };
        let (mut own, mut anothers) = (Vec::new(), Vec::new());
        for n in here {
            let chosen = with_loose(n);
            match self.decides(&chosen.says, &want.path, BINDING_LABEL) {
                Some((layer, said)) if want.is_anothers(&said.what) => anothers.push((layer, said)),
                _ => own.push(chosen),
            }
        }
        if own.len() > 1 {
            return Err(self.several(&own));
        }
        if let (true, Some((layer, said))) = (own.is_empty(), anothers.first()) {
            let value = match &said.what {
                What::Sets { value, .. } => value.as_str(),
                What::Drops | What::Unclear => "",
            };
            let values = want.values.iter().flatten().map(String::as_str);
            let why = format!(
                "{} says {BINDING_LABEL}: {value}, and in the cluster it is {}: this makes another \
                 workload, or Git and the cluster differ",
                self.at(*layer, said.line),
                values.collect::<Vec<_>>().join(" or "),
            );
            let at = anothers.iter().map(|(layer, said)| self.at(*layer, said.line)).collect();
            return Err(Refusal { why, at });
        }
        Ok(own.pop())
    }

    /// What is built of this kind, name and namespace.
    fn named(self, want: &Wanted, namespaces: &[String]) -> Result<Vec<usize>, Refusal> {
        let placements = &self.builds.placements;
        let same =
            |n: &usize| placements[*n].kind == want.kind && placements[*n].name() == want.name;
        let (with, without): (Vec<usize>, Vec<usize>) =
            (0..placements.len()).filter(same).partition(|n| placements[*n].namespace.is_some());
        let own = Some(want.namespace.as_str());
        let mut here: Vec<usize> =
            with.into_iter().filter(|n| placements[*n].namespace.as_deref() == own).collect();
        if namespaces.len() < 2 {
            here.extend(without);
        } else if here.is_empty() && !without.is_empty() {
            let why = format!(
                "its manifest names no namespace, and there is one in each of {}",
                namespaces.join(", ")
            );
            let at = without.iter().filter_map(|n| placements[*n].says.first());
            return Err(Refusal { why, at: at.map(|one| self.start(one.layer)).collect() });
        }
        Ok(here)
    }

    /// The loose patches of this workload, which has, or had, one of these names.
    fn loose(self, want: &Wanted, names: &[String]) -> Vec<Use> {
        let namespace = Some(want.namespace.as_str());
        let units = self.builds.loose.iter().filter_map(|unit| {
            let applies = unit.select.applies(want.kind, names, namespace);
            let perhaps = applies == Applies::Perhaps;
            let one = Use { layer: unit.layer, perhaps };
            let anothers = || {
                let said = self.decides(&[one], &want.path, BINDING_LABEL);
                said.is_some_and(|(_, said)| want.is_anothers(&said.what))
            };
            (applies != Applies::No && !anothers()).then_some(one)
        });
        units.collect()
    }

    fn several(self, all: &[Chosen]) -> Refusal {
        let firsts: BTreeSet<usize> = all.iter().map(|one| one.says[0].layer).collect();
        let at: Vec<String> = firsts.iter().map(|layer| self.start(*layer)).collect();
        let why = if firsts.len() > 1 {
            "several manifests of it are under the directory: choose a narrower one".to_owned()
        } else {
            let all = all.iter().filter_map(|one| one.placement);
            let all: Vec<&Placement> = all.map(|n| &self.builds.placements[n]).collect();
            shared(&self.apart(&all))
        };
        Refusal { why, at }
    }
}

/// What to do where a change would reach more than this workload.
pub(super) fn shared(by: &str) -> String {
    format!(
        "it goes into {by}, and a change here changes all of them: write a patch where this \
         workload of this cluster is built (`null` takes a label away)"
    )
}
