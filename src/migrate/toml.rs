//! The resulting `[[workloads]]`: what the file must hold so that `plan` is empty afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{Survey, Workload};
use crate::model::{
    AccountName, ClusterName, Namespace,
    desired::{DesiredState, DesiredWorkload},
};

/// TOML for every workload that the file does not have. A table takes decisions: it names an
/// identity and templates. So one whose workload cannot move, or needs somebody to decide, stands in
/// comments, with the reasons, and pasting the text changes no verdict.
pub fn workloads(surveys: &[Survey], file: &DesiredState) -> String {
    let mut found: BTreeMap<(&Namespace, &AccountName), Vec<Here<'_>>> = BTreeMap::new();
    for survey in surveys {
        for workload in &survey.workloads {
            let key = (&workload.namespace, &workload.account);
            found.entry(key).or_default().push((&survey.cluster, workload));
        }
    }
    let mut tables = Vec::new();
    for ((namespace, account), mut here) in found {
        let known = |w: &&DesiredWorkload| w.namespace == *namespace && w.account == *account;
        if let Some(entry) = file.workloads.iter().find(known) {
            here.retain(|(cluster, _)| !entry.clusters.contains(cluster));
            tables.extend(extended(entry, &here));
        } else {
            tables.push(table(&here, file));
        }
    }
    tables.join("\n")
}

/// A workload in one cluster.
type Here<'a> = (&'a ClusterName, &'a Workload);

/// An account has one table in a file: the clusters that it lacks are named.
fn extended(entry: &DesiredWorkload, here: &[Here<'_>]) -> Option<String> {
    let clusters: Vec<String> = here.iter().map(|(name, _)| quoted(name.as_str())).collect();
    if clusters.is_empty() {
        return None;
    }
    let mut text = String::new();
    comment(
        &mut text,
        &format!(
            "{}/{} is in the file ({}): add {} to its `clusters`",
            entry.namespace,
            entry.account,
            entry.origin,
            clusters.join(", ")
        ),
    );
    for (cluster, workload) in here {
        let id = workload.identity.as_ref().map(|acts| &acts.id);
        if let Some(id) = id.filter(|id| **id != entry.identity) {
            elsewhere(&mut text, cluster, workload, id.as_str());
        }
    }
    Some(text)
}

fn comment(text: &mut String, line: &str) {
    let _ = writeln!(text, "# {}", line.replace(['\n', '\r'], " "));
}

/// A workload has one identity in all its clusters.
fn elsewhere(text: &mut String, cluster: &ClusterName, workload: &Workload, id: &str) {
    comment(
        text,
        &format!(
            "in {cluster} {} answers as {id}: one workload is one identity in all its clusters, so \
             there it needs another account, or a file of its own",
            workload.name()
        ),
    );
}

// Writing to a string cannot fail: the results are dropped on purpose.
fn table(here: &[Here<'_>], file: &DesiredState) -> String {
    let mut text = String::new();
    let id = |w: &Workload| w.identity.as_ref().map(|acts| acts.id.clone());
    let acts = here.iter().find_map(|(_, workload)| workload.identity.as_ref());
    let same =
        |workload: &Workload| id(workload).is_none() || id(workload) == acts.map(|a| a.id.clone());
    let told: BTreeSet<_> = here.iter().flat_map(|(_, workload)| &workload.reasons).collect();
    for reason in told {
        comment(&mut text, &format!("{}: {}", reason.code, reason.message));
        comment(&mut text, &format!("  {}: {}", reason.remedy(), reason.decide));
    }
    for (cluster, workload) in here.iter().filter(|(_, workload)| !same(workload)) {
        if let Some(id) = id(workload) {
            elsewhere(&mut text, cluster, workload, id.as_str());
        }
    }
    let here: Vec<&Here<'_>> = here.iter().filter(|(_, workload)| same(workload)).collect();
    let Some((_, first)) = here.first() else { return text };
    let open = here.iter().any(|(_, workload)| !workload.may_move());
    let mark = if acts.is_none() || open { "# " } else { "" };
    let _ = writeln!(text, "{mark}[[workloads]]");
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{mark}{key} = {value}");
    };
    line("namespace", quoted(first.namespace.as_str()));
    line("service_account", quoted(first.account.as_str()));
    if file.clusters.len() > 1 {
        line("clusters", list(here.iter().map(|(cluster, _)| cluster.as_str())));
    }
    if let Some(acts) = acts {
        line("identity", quoted(acts.id.as_str()));
    } else {
        // Each that it may be, and none of them chosen: also without its mark this decides nothing.
        let known: BTreeSet<_> = here.iter().flat_map(|(_, w)| &w.reaches).collect();
        for id in known {
            line("# identity", quoted(id.as_str()));
        }
    }
    if let Some(tenant) = acts.map(|acts| acts.tenant).filter(|tenant| *tenant != file.tenant) {
        line("tenant", quoted(&tenant.to_string()));
    }
    line("grants", "[]".to_owned());
    if here.iter().any(|(_, w)| !w.whole || w.account.as_str() == "default") {
        let keys: BTreeSet<&str> =
            here.iter().flat_map(|(_, w)| &w.templates).map(String::as_str).collect();
        line("pods", list(keys));
    }
    if here.iter().any(|(_, workload)| workload.proxied) {
        line("proxy", "true".to_owned());
    }
    text
}

fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<String> = items.into_iter().map(quoted).collect();
    format!("[{}]", items.join(", "))
}

/// A basic string: control characters, quotes and backslashes are escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
