//! Changing what makes an object until what is built of it is as wanted: whoever has the last word
//! about a key is changed, and then whoever has it next, as far as these are manifests or patches of
//! this object alone.

use std::{collections::BTreeMap, rc::Rc};

use super::{
    File,
    build::Builds,
    edit,
    find::{Chosen, Refusal, View, Wanted, shared},
    layer::{Body, Said, What},
    tree::{self, Node},
};
use crate::model::pod_identity::BINDING_LABEL;

/// A file that changed, with what it says now.
#[derive(Debug)]
pub(super) struct Edited {
    pub(super) text: String,
    pub(super) documents: Vec<Node>,
}

/// The files that changed, by position.
pub(super) type Edits = BTreeMap<usize, Rc<Edited>>;

/// Where the changes are; nowhere if all is as wanted.
pub(super) fn change(
    want: &Wanted,
    chosen: &Chosen,
    builds: &Builds,
    files: &[File],
    edits: &mut Edits,
) -> Result<Vec<usize>, Refusal> {
    let mut changed: Vec<usize> = Vec::new();
    loop {
        let view = View { builds, files, edits };
        let Some((key, decided)) = wrong(view, want, chosen) else { return Ok(changed) };
        let refuse = |why: String, layer: usize| Refusal { why, at: vec![view.start(layer)] };
        let first = chosen.says[0].layer;
        let template = !want.fields.remove.is_empty();
        if template && changed.is_empty() && !is_labelled(view, want, chosen) {
            if !chosen.whole {
                return Err(refuse("only patches of it are under the directory".to_owned(), first));
            }
            if want.labelled {
                let why = format!(
                    "the template in the cluster has {BINDING_LABEL}, and nothing under the \
                     directory gives it: the label comes from somewhere else"
                );
                return Err(refuse(why, first));
            }
        }
        let layer = match &decided {
            Some((layer, said)) => {
                let body = &builds.layers[*layer].body;
                let sure = said.what != What::Unclear;
                if !sure || !matches!(body, Body::Object(_)) || changed.contains(layer) {
                    let does = if sure { "decides about" } else { "may decide about" };
                    let at = view.at(*layer, said.line);
                    let why = format!("{at} ({}) {does} {key}: change it by hand", body.as_str());
                    return Err(Refusal { why, at: vec![at] });
                }
                *layer
            }
            None => first,
        };
        if let Some(why) = others(view, chosen, layer) {
            return Err(refuse(why, layer));
        }
        let Body::Object(spot) = builds.layers[layer].body else {
            return Err(refuse("it stands in no manifest".to_owned(), layer));
        };
        let file = builds.layers[layer].file;
        let before = edits.get(&file).map_or(files[file].text.as_str(), |edited| &edited.text);
        let start = view.start(layer);
        let failed = |why: String| Refusal {
            why: format!("{}: {why}", files[file].path),
            at: vec![start.clone()],
        };
        match edit::apply(before, spot, &want.path, &want.fields) {
            Ok(Some(after)) => {
                let documents = tree::documents(&after).map_err(|e| failed(e.to_string()))?;
                edits.insert(file, Rc::new(Edited { text: after, documents }));
                changed.push(layer);
            }
            Ok(None) => return Err(failed(format!("{key} cannot be changed alone"))),
            Err(why) => return Err(failed(why)),
        }
    }
}

/// The first key that is not as wanted, and who decides about it.
fn wrong<'a>(
    view: View<'_>,
    want: &'a Wanted,
    chosen: &Chosen,
) -> Option<(&'a str, Option<(usize, Said)>)> {
    let decides = |key: &str| view.decides(&chosen.says, &want.path, key);
    let stays = want.fields.remove.iter().find_map(|key| {
        let decided = decides(key).filter(|(_, said)| said.what != What::Drops)?;
        Some((key.as_str(), Some(decided)))
    });
    stays.or_else(|| {
        want.fields.set.iter().find_map(|(key, value)| {
            let decided = decides(key);
            let done = decided.as_ref().is_some_and(|(_, said)| said.what.is(value));
            (!done).then_some((key.as_str(), decided))
        })
    })
}

/// Whether what is built has a label that is to go.
fn is_labelled(view: View<'_>, want: &Wanted, chosen: &Chosen) -> bool {
    want.fields.remove.iter().any(|key| {
        let decided = view.decides(&chosen.says, &want.path, key);
        decided.is_some_and(|(_, said)| said.what != What::Drops)
    })
}

/// What stands in the way where a layer goes into something else too.
fn others(view: View<'_>, chosen: &Chosen, layer: usize) -> Option<String> {
    let all = &view.builds.placements;
    let has = |n: usize| all[n].says.iter().any(|one| one.layer == layer);
    let others = (0..all.len()).filter(|n| Some(*n) != chosen.placement && has(*n));
    let others: Vec<usize> = others.collect();
    (!others.is_empty()).then(|| {
        let all = others.iter().chain(&chosen.placement).map(|n| &all[*n]);
        shared(&view.apart(&all.collect::<Vec<_>>()))
    })
}
