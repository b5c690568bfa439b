//! `metadata.managedFields`: decoding, the bookkeeping of updates and applies, encoding.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::{
    super::schema::Type,
    merge::{merge, remove, with_named_fields},
    set::FieldSet,
    typed::{compare, field_set},
};

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Manager {
    /// Its name.
    pub name: String,
    /// Whether it applied (else: updated).
    pub applied: bool,
    /// The version its fields are named in.
    pub api_version: String,
    /// The subresource that it wrote through, or empty.
    pub subresource: String,
    /// When its set or the object changed by it.
    pub time: Option<String>,
    /// What it owns.
    pub set: FieldSet,
}

impl Manager {
    /// Appliers have one entry however they call the version; updaters one for each version.
    fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.applied == other.applied
            && self.subresource == other.subresource
            && (self.applied || self.api_version == other.api_version)
    }

    fn show(&self) -> String {
        let subresource = match self.subresource.as_str() {
            "" => String::new(),
            name => format!(" with subresource {name:?}"),
        };
        let version =
            if self.applied { String::new() } else { format!(" using {}", self.api_version) };
        format!("{:?}{subresource}{version}", self.name)
    }
}

/// Who writes, for the bookkeeping.
#[derive(Debug, Clone)]
pub(in super::super) struct Author<'a> {
    /// Field manager.
    pub manager: &'a str,
    /// Version of the request.
    pub api_version: &'a str,
    /// Subresource of the request, or empty.
    pub subresource: &'a str,
    /// The present, RFC 3339 in seconds.
    pub now: &'a str,
    /// Minor version of the server: some rules of the bookkeeping changed.
    pub minor: u32,
}

impl Author<'_> {
    fn entry(&self, applied: bool, set: FieldSet) -> Manager {
        Manager {
            name: self.manager.to_owned(),
            applied,
            api_version: self.api_version.to_owned(),
            // Entries name the subresource since 1.22.
            subresource: if self.minor < 22 { String::new() } else { self.subresource.to_owned() },
            time: Some(self.now.to_owned()),
            set,
        }
    }
}

/// Fields that an apply would take from others.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Conflicts(Vec<(String, String)>);

impl Conflicts {
    /// The message of the 409.
    pub(in super::super) fn message(&self) -> String {
        if let [(manager, path)] = self.0.as_slice() {
            return format!("Apply failed with 1 conflict: conflict with {manager}: {path}");
        }
        let mut lines = Vec::new();
        let mut last = None;
        for (manager, path) in &self.0 {
            if last != Some(manager) {
                lines.push(format!("conflicts with {manager}:"));
                last = Some(manager);
            }
            lines.push(format!("- {path}"));
        }
        format!("Apply failed with {} conflicts: {}", self.0.len(), lines.join("\n"))
    }

    /// `details.causes` of the 409.
    pub(in super::super) fn causes(&self) -> Vec<Value> {
        self.0
            .iter()
            .map(|(manager, path)| {
                json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": path})
            })
            .collect()
    }
}

impl Conflicts {
    /// Whether every field in conflict is one of `set`.
    pub(in super::super) fn are_within(&self, set: &FieldSet) -> bool {
        let paths = set.paths();
        self.0.iter().all(|(_, path)| paths.contains(path))
    }
}

/// Takes `managedFields` off the object and reads it.
pub(in super::super) fn take(object: &mut Value) -> Vec<Manager> {
    let list = object
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .and_then(|m| m.remove("managedFields"));
    decode(list.as_ref())
}

/// Reads a `managedFields` list.
pub(in super::super) fn decode(list: Option<&Value>) -> Vec<Manager> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    list.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|entry| Manager {
            name: text(entry, "manager"),
            applied: entry["operation"] == "Apply",
            api_version: text(entry, "apiVersion"),
            subresource: text(entry, "subresource"),
            time: entry["time"].as_str().map(str::to_owned),
            set: FieldSet::from_json(&entry["fieldsV1"]),
        })
        .collect()
}

/// The bookkeeping of a write that changed nothing but the status: entries that own nothing of it
/// stay as they are.
pub(in super::super) fn update_status(
    list: &mut Value,
    live: &Value,
    new: &Value,
    author: &Author<'_>,
    ty: &Type,
) {
    let entries = list.as_array_mut().map(std::mem::take).unwrap_or_default();
    // More entries than this are folded by [`cap`], which must see all of them.
    let few = entries.len() < MOST;
    let (theirs, others): (Vec<Value>, Vec<Value>) =
        entries.into_iter().partition(|e| !few || e["fieldsV1"].get("f:status").is_some());
    let managers = update(live, new, decode(Some(&Value::Array(theirs))), author, ty);
    let mut entries = others;
    entries.extend(encode_all(&managers));
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    entries.sort_by_cached_key(|e| {
        let keys = ["time", "manager", "apiVersion", "subresource"];
        (e["operation"] != "Apply", keys.map(|key| text(e, key)))
    });
    *list = Value::Array(entries);
}

/// Writes the list: appliers first, then by time and name.
pub(in super::super) fn encode(managers: &[Manager]) -> Option<Value> {
    let mut managers: Vec<&Manager> = managers.iter().filter(|m| !m.set.is_empty()).collect();
    if managers.is_empty() {
        return None;
    }
    let rank = |m: &Manager| {
        (!m.applied, m.time.clone(), m.name.clone(), m.api_version.clone(), m.subresource.clone())
    };
    managers.sort_by_key(|m| rank(m));
    Some(Value::Array(encode_all(managers)))
}

fn encode_all<'a>(managers: impl IntoIterator<Item = &'a Manager>) -> Vec<Value> {
    managers
        .into_iter()
        .map(|m| {
            let mut entry = Map::new();
            entry.insert("manager".into(), m.name.clone().into());
            entry.insert("operation".into(), if m.applied { "Apply" } else { "Update" }.into());
            entry.insert("apiVersion".into(), m.api_version.clone().into());
            if let Some(time) = &m.time {
                entry.insert("time".into(), time.clone().into());
            }
            entry.insert("fieldsType".into(), "FieldsV1".into());
            entry.insert("fieldsV1".into(), m.set.to_json());
            if !m.subresource.is_empty() {
                entry.insert("subresource".into(), m.subresource.clone().into());
            }
            Value::Object(entry)
        })
        .collect()
}

/// Fields that nobody owns: identity and what the server sets.
static UNOWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::from_json(&json!({"f:apiVersion": {}, "f:kind": {}, "f:metadata": {".": {},
        "f:name": {}, "f:namespace": {}, "f:creationTimestamp": {}, "f:selfLink": {}, "f:uid": {},
        "f:clusterName": {}, "f:generation": {}, "f:managedFields": {}, "f:resourceVersion": {}}}))
});

/// The bookkeeping of a write that is not an apply: what it changed is its own from now on.
pub(in super::super) fn update(
    live: &Value,
    new: &Value,
    mut managers: Vec<Manager>,
    author: &Author<'_>,
    ty: &Type,
) -> Vec<Manager> {
    let change = compare(live, new, ty);
    if change.is_same() {
        return managers;
    }
    let taken = change.modified.union(&change.added);
    for manager in &mut managers {
        manager.set.subtract(&taken);
        manager.set.subtract(&change.removed);
    }
    let own = taken.difference(&UNOWNED);
    let entry = author.entry(false, own);
    if !entry.set.is_empty() {
        if let Some(mine) = managers.iter_mut().find(|m| m.is(&entry)) {
            mine.set = mine.set.union(&entry.set);
            mine.time = entry.time;
        } else {
            managers.push(entry);
        }
    }
    managers.retain(|m| !m.set.is_empty());
    cap(&mut managers);
    managers
}

/// The entry of an answer that is computed and never stored.
pub(in super::super) fn computed(answer: &Value, author: &Author<'_>, ty: &Type) -> Option<Value> {
    encode(&update(&json!({"metadata": {}}), answer, Vec::new(), author, ty))
}

/// As many updaters have an entry of their own.
const MOST: usize = 10;

/// Beyond ten updaters the oldest are folded into one, as the server does.
fn cap(managers: &mut Vec<Manager>) {
    while managers.iter().filter(|m| !m.applied).count() > MOST {
        let mut updaters: Vec<usize> = (0..managers.len())
            .filter(|i| !managers[*i].applied && managers[*i].name != "ancient-changes")
            .collect();
        updaters.sort_by(|a, b| managers[*a].time.cmp(&managers[*b].time));
        let Some(oldest) = updaters.first() else { return };
        let mut oldest = managers.remove(*oldest);
        "ancient-changes".clone_into(&mut oldest.name);
        oldest.subresource.clear();
        if let Some(folded) = managers.iter_mut().find(|m| m.is(&oldest)) {
            folded.set = folded.set.union(&oldest.set);
            folded.time = oldest.time;
        } else {
            managers.push(oldest);
            if managers.iter().filter(|m| !m.applied).count() > MOST && updaters.len() == 1 {
                return;
            }
        }
    }
}

/// The result of an apply.
pub(in super::super) struct Applied {
    /// The merged object, without `managedFields`.
    pub object: Value,
    /// Who owns what now.
    pub managers: Vec<Manager>,
}

/// Applies `config` to `live` (both without `managedFields`).
pub(in super::super) fn apply(
    live: &Value,
    config: &Value,
    managers: Vec<Manager>,
    author: &Author<'_>,
    ty: &Type,
    force: bool,
) -> Result<Applied, Conflicts> {
    let mut managers = managers;
    // Before 1.21 an empty map was not owned.
    let set = if author.minor < 21 {
        field_set(&without_empty(config), ty)
    } else {
        field_set(config, ty)
    };
    let mut entry = author.entry(true, set);
    let last = managers.iter().position(|m| m.is(&entry)).map(|i| managers.remove(i));
    let merged = merge(live, config, ty);
    let object = match &last {
        Some(last) if !last.set.is_empty() => prune(&merged, &managers, &entry, last, ty),
        _ => merged,
    };
    let change = compare(live, &object, ty);
    let taken = change.modified.union(&change.added);
    let mut conflicts = Vec::new();
    let mut others: Vec<&Manager> = managers.iter().collect();
    others.sort_by_key(|m| m.show());
    for manager in others {
        for path in manager.set.intersection(&taken).paths() {
            conflicts.push((manager.show(), path));
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(Conflicts(conflicts));
    }
    for manager in &mut managers {
        manager.set.subtract(&taken);
        manager.set.subtract(&change.removed);
    }
    managers.retain(|m| !m.set.is_empty());
    entry.set = entry.set.difference(&UNOWNED);
    if let Some(last) = last
        && change.is_same()
        && last.set == entry.set
    {
        // Nothing happened: a new time alone must not look like a change.
        entry.time = last.time;
    }
    if !entry.set.is_empty() {
        managers.push(entry);
    }
    Ok(Applied { object, managers })
}

/// Removes what the applier owned and no longer names, unless somebody else owns it too.
fn prune(merged: &Value, others: &[Manager], now: &Manager, last: &Manager, ty: &Type) -> Value {
    let none = || Value::Object(Map::new());
    let pruned = remove(merged, &with_named_fields(&last.set, ty), ty).unwrap_or_else(none);
    let owned = others.iter().fold(now.set.clone(), |all, m| all.union(&m.set));
    let everything = with_named_fields(&field_set(merged, ty), ty);
    let keep = with_named_fields(&field_set(&pruned, ty), ty).union(&with_named_fields(&owned, ty));
    let pruned = remove(merged, &everything.difference(&keep), ty).unwrap_or_else(none);
    // Items that the last configuration did not have stay: a parent's removal must not take them.
    let keep = with_named_fields(&field_set(&pruned, ty), ty);
    let gone = everything.difference(&keep).intersection(&with_named_fields(&last.set, ty));
    remove(merged, &gone, ty).unwrap_or_else(none)
}

/// Everything that an object without bookkeeping has, as owned by whoever came before.
pub(in super::super) fn before_first_apply(
    live: &Value,
    author: &Author<'_>,
    ty: &Type,
) -> Manager {
    let author = Author { manager: "before-first-apply", subresource: "", ..author.clone() };
    let empty = json!({"metadata": {}});
    author.entry(false, compare(&empty, live, ty).added.difference(&UNOWNED))
}

/// The configuration without empty and null maps.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields
                .iter()
                .filter(|(_, v)| !v.is_null() && !v.as_object().is_some_and(Map::is_empty))
                .map(|(k, v)| (k.clone(), without_empty(v)))
                .collect();
            Value::Object(kept)
        }
        Value::Array(items) => Value::Array(items.iter().map(without_empty).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty() -> Type {
        Type::named("core/v1.ConfigMap")
    }

    fn author(manager: &str) -> Author<'_> {
        Author {
            manager,
            api_version: "v1",
            subresource: "",
            now: "2026-01-01T00:00:00Z",
            minor: 33,
        }
    }

    fn data(pairs: &[(&str, &str)]) -> Value {
        json!({"data": pairs.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect::<Map<_, _>>()})
    }

    #[test]
    fn another_applier_conflicts_until_forced() {
        let first = apply(&json!({}), &data(&[("a", "1")]), vec![], &author("one"), &ty(), false)
            .ok()
            .unwrap();
        let conflict = apply(
            &first.object,
            &data(&[("a", "2")]),
            first.managers.clone(),
            &author("two"),
            &ty(),
            false,
        )
        .err()
        .unwrap();
        assert_eq!(
            conflict.message(),
            "Apply failed with 1 conflict: conflict with \"one\": .data.a"
        );
        let forced =
            apply(&first.object, &data(&[("a", "2")]), first.managers, &author("two"), &ty(), true)
                .ok()
                .unwrap();
        assert_eq!(forced.object, data(&[("a", "2")]));
        assert_eq!(forced.managers.len(), 1);
        assert_eq!(forced.managers[0].name, "two");
    }

    #[test]
    fn dropped_fields_go_unless_shared() {
        let one = apply(
            &json!({}),
            &data(&[("a", "1"), ("b", "2"), ("c", "3")]),
            vec![],
            &author("one"),
            &ty(),
            false,
        )
        .ok()
        .unwrap();
        let two =
            apply(&one.object, &data(&[("b", "2")]), one.managers, &author("two"), &ty(), false)
                .ok()
                .unwrap();
        let after =
            apply(&two.object, &data(&[("a", "1")]), two.managers, &author("one"), &ty(), false)
                .ok()
                .unwrap();
        assert_eq!(after.object, data(&[("a", "1"), ("b", "2")]));
    }

    #[test]
    fn an_update_takes_what_it_changes() {
        let one = apply(&json!({}), &data(&[("a", "1")]), vec![], &author("one"), &ty(), false)
            .ok()
            .unwrap();
        let managers = update(
            &one.object,
            &data(&[("a", "2"), ("z", "9")]),
            one.managers,
            &author("edit"),
            &ty(),
        );
        assert_eq!(managers.len(), 1);
        assert!(!managers[0].applied);
        assert_eq!(managers[0].set.to_json(), json!({"f:data": {"f:a": {}, "f:z": {}}}));
        let conflict = apply(
            &data(&[("a", "2"), ("z", "9")]),
            &data(&[("a", "1"), ("z", "1")]),
            managers,
            &author("one"),
            &ty(),
            false,
        )
        .err()
        .unwrap();
        assert_eq!(
            conflict.message(),
            "Apply failed with 2 conflicts: conflicts with \"edit\" using v1:\n- .data.a\n- .data.z"
        );
    }
}
