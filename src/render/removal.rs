//! `migrate finish` and `migrate rollback` as text and JSON.

use serde_json::{Value, json};

use super::{
    escape,
    findings::counted,
    head::Head,
    json as documents, migrate,
    report::{self as proofs, Of},
    report_json,
    style::Palette,
    text::SANDBOX,
};
use crate::{
    execute::exit::ExitCode,
    migrate::removal::{Removal, binding_name, entry_name, identity_name},
    model::ArmId,
    ops::migrate::{PutBack, finish::Finished, proofs::Proofs},
};

/// More pods than this are counted and not named.
const NAMED: usize = 10;

/// One cluster: what was decided, and what was done.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Its name in the file.
    pub cluster: &'a str,
    /// The proofs of this run; none where nobody was due, or nobody was asked to prove.
    pub proofs: Option<&'a Proofs>,
    /// What was decided.
    pub what: &'a Removal,
    /// How far it came; none where it was not begun.
    pub done: Option<&'a Finished>,
}

fn objects(what: &Removal) -> Vec<String> {
    let bindings = what.bindings.iter().map(binding_name);
    let entries = what.add_on.iter().map(entry_name);
    bindings.chain(entries).chain(what.identities.iter().map(identity_name)).collect()
}

fn line(text: &mut String, line: impl AsRef<str>) {
    text.push_str(line.as_ref());
    text.push('\n');
}

/// What would be removed in each cluster, and what is kept with the reason.
pub fn preview(parts: &[Part<'_>], sandbox: bool, palette: Palette) -> String {
    let mut out = String::new();
    if sandbox {
        line(&mut out, SANDBOX);
    }
    for part in parts {
        line(&mut out, format!("# cluster {}", escape::terminal(part.cluster)));
        match part.proofs {
            Some(proofs) if proofs.exit() == ExitCode::Done => {
                line(&mut out, proofs::proof_line(&proofs.report));
            }
            Some(Proofs { planned, report, .. }) => {
                out.push_str(&proofs::verify(Of::Migrate, planned, report, palette));
            }
            None => {}
        }
        // What goes stands last, right above the question.
        let Removal { kept, not_chosen, .. } = part.what;
        let apart = |object: &String| not_chosen.contains(object);
        let others = kept.iter().filter(|(object, _)| apart(object)).count();
        if others > 0 {
            let others = counted(others, "object");
            line(&mut out, format!("  keeps {others} of workloads that were not chosen"));
        }
        for (object, why) in kept.iter().filter(|(object, _)| !apart(object)) {
            let why = escape::terminal(why);
            line(&mut out, format!("  keeps {}: {why}", escape::terminal(object)));
        }
        for object in objects(part.what) {
            line(&mut out, format!("  - {}", escape::terminal(&object)));
        }
        on_nodes(&mut out, part.what);
    }
    let count: usize = parts.iter().map(|part| part.what.count()).sum();
    if count == 0 {
        line(&mut out, "Nothing to remove.");
    }
    out
}

/// Which identities leave the nodes, and who may live on them there.
fn on_nodes(out: &mut String, what: &Removal) {
    if what.on_node.is_empty() || (what.unassigned.is_empty() && what.kept.is_empty()) {
        return;
    }
    let taken: Vec<&str> = what.unassigned.iter().map(ArmId::name).collect();
    if !taken.is_empty() {
        let taken = escape::terminal(&taken.join(", ")).into_owned();
        line(out, format!("  taken from the nodes with it: {taken}"));
    }
    line(out, "  these pods may live on an identity of their node:");
    for pod in what.on_node.iter().take(NAMED) {
        line(out, format!("    {}", escape::terminal(pod)));
    }
    let more = what.on_node.len().saturating_sub(NAMED);
    if more > 0 {
        line(out, format!("    and {more} more"));
    }
}

/// What was removed, after a preview.
pub fn report(parts: &[Part<'_>], sandbox: bool) -> String {
    let mut out = String::new();
    for part in parts {
        let Some(done) = part.done else { continue };
        for object in &done.removed {
            line(&mut out, format!("removed {}", escape::terminal(object)));
        }
        for (object, why) in done.kept.iter().filter(|kept| !part.what.kept.contains(kept)) {
            let why = escape::terminal(why);
            line(&mut out, format!("kept {}: {why}", escape::terminal(object)));
        }
        if done.interrupted {
            line(&mut out, "interrupted: `widentity migrate finish` goes on");
        }
    }
    line(&mut out, summary(parts));
    if sandbox {
        line(&mut out, SANDBOX);
    }
    out
}

/// The last line: what was removed of all that goes, or what would go.
pub fn summary(parts: &[Part<'_>]) -> String {
    let begun = parts.iter().any(|part| part.done.is_some());
    let counts = |count: &dyn Fn(&Part<'_>) -> usize| parts.iter().map(count).sum::<usize>();
    let all = counts(&|part| part.what.count());
    if begun {
        let removed = counts(&|part| part.done.map_or(0, |done| done.removed.len()));
        return format!("Finish: {removed} of {} removed.", counted(all, "object"));
    }
    let kept = counts(&|part| part.what.kept.len());
    format!("Finish: {} to remove, {kept} kept. Nothing was removed.", counted(all, "object"))
}

/// The same for programs.
pub fn json(parts: &[Part<'_>], head: Head<'_>) -> String {
    let clusters = parts.iter().map(|part| {
        let kept = part.done.map_or(&part.what.kept, |done| &done.kept);
        let kept = kept.iter().map(|(object, why)| json!({"object": object, "why": why}));
        json!({
            "cluster": part.cluster,
            "proofs": part.proofs.map(|proofs| {
                let Proofs { planned, report, .. } = proofs;
                report_json::report("migrate", planned, report, proofs.exit())
            }),
            "remove": objects(part.what),
            "removed": part.done.map(|done| done.removed.clone()).unwrap_or_default(),
            "kept": kept.collect::<Vec<Value>>(),
            "unassigned": part.what.unassigned,
            "on_node": part.what.on_node,
            "failure": part.done.and_then(|done| done.failure.as_ref()),
            "interrupted": part.done.is_some_and(|done| done.interrupted),
        })
    });
    let clusters = json!({"clusters": clusters.collect::<Vec<Value>>()});
    documents::to_text(&head.over(summary(parts), clusters))
}

/// How putting one workload back went, with what stays behind.
#[derive(Debug, Clone, Copy)]
pub struct Rollback<'a> {
    /// `namespace/account`.
    pub workload: &'a str,
    /// How it went.
    pub how: &'a PutBack,
    /// Federated credentials that stay: the identity and the credential's name.
    pub left: &'a [(ArmId, String)],
}

fn rollback_line(of: Rollback<'_>) -> String {
    format!("Rollback of {}: {}", escape::terminal(of.workload), migrate::put_back(of.how))
}

/// `migrate rollback` for people.
pub fn rollback(of: Rollback<'_>) -> String {
    let mut out = String::new();
    line(&mut out, rollback_line(of));
    if !of.how.is_back() {
        return out;
    }
    for (identity, credential) in of.left {
        line(
            &mut out,
            format!(
                "  stays: federated credential {} of identity {}, which harms nothing and serves \
                 the next attempt",
                escape::terminal(credential),
                escape::terminal(identity.name())
            ),
        );
    }
    out
}

/// `migrate rollback` for programs.
pub fn rollback_json(of: Rollback<'_>, head: Head<'_>) -> String {
    let (done, hindrances, failure) = match of.how {
        PutBack::Done => (true, Vec::new(), None),
        PutBack::Kept(what) => (true, what.clone(), None),
        PutBack::Late(what) | PutBack::Partly(what) | PutBack::Hindered(what) => {
            (false, what.clone(), None)
        }
        PutBack::Failed(failure) => (false, Vec::new(), Some(failure)),
    };
    let left = of.left.iter().map(|(identity, name)| json!({"identity": identity, "name": name}));
    let summary = rollback_line(of);
    let document = json!({
        "workload": of.workload,
        "how": match of.how {
            PutBack::Done => "done",
            PutBack::Kept(_) => "done-but",
            PutBack::Late(_) => "late",
            PutBack::Partly(_) => "partly",
            PutBack::Hindered(_) => "hindered",
            PutBack::Failed(_) => "failed",
        },
        "done": done,
        "hindrances": hindrances,
        "failure": failure,
        "federated_credentials_left": left.collect::<Vec<Value>>(),
    });
    documents::to_text(&head.over(summary, document))
}
