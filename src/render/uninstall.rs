//! `migrate uninstall` as text, JSON and Markdown.

use serde::Serialize;

use super::{
    Palette, escape,
    findings::{counted, failure_line},
    head::Head,
    json::to_text,
    style::Style,
    text::SANDBOX,
};
use crate::{
    migrate::uninstall::{CleanUp, Exposed, NOT_SEEN, Step, Uninstall},
    model::{
        ArmId,
        footprint::{Part, PartKind},
    },
    ops::migrate::uninstall::{End, Ran},
};

/// What is said where nothing of Pod Identity is left.
pub const FREE: &str = "No AAD Pod Identity: nothing to uninstall.";

/// One cluster: what is to be done, and what was.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its name in the file.
    pub cluster: &'a str,
    /// What was decided.
    pub what: &'a Uninstall,
    /// How far it came; none where it was not begun.
    pub ran: Option<&'a Ran>,
}

fn part(part: &Part) -> String {
    let at = format!("{} {}", part.kind.as_str(), part.at());
    part.kind.component().map_or_else(|| at.clone(), |name| format!("{at} ({name})"))
}

fn removal(of: &Part) -> String {
    let tail = if of.kind.component().is_some() {
        ", and wait until its pods have ended"
    } else if of.kind == PartKind::Definition {
        ", unless it holds objects by then"
    } else {
        ""
    };
    format!("remove {}{tail}", part(of))
}

/// A step as something to be done.
pub fn step(step: &Step) -> String {
    let text = match step {
        Step::AwaitUnassigned => "wait until MIC has taken back what it assigned".to_owned(),
        Step::Remove { part } => removal(part),
        Step::DropAddOnIdentities { identities } => format!(
            "AKS add-on: take {} out of it, through ARM ({})",
            if identities.len() == 1 {
                "1 identity".to_owned()
            } else {
                format!("{} identities", identities.len())
            },
            identities.join(", ")
        ),
        Step::DisableAddOn { nmi: Some(_) } => {
            "AKS add-on: switch it off, through ARM, and wait until its NMI is gone".to_owned()
        }
        Step::DisableAddOn { nmi: None } => "AKS add-on: switch it off, through ARM".to_owned(),
        Step::HandOver { tool, command, parts } => {
            let kept = counted(parts.len(), "object");
            format!("you, since {tool} keeps {kept} of it: {command}; then run this again")
        }
        Step::Unassign { set, identities } => {
            format!("Azure: take {} from scale set {}", names(identities), set.name())
        }
        Step::RemoveRole { what, .. } => format!("Azure: remove {what}"),
    };
    escape::terminal(&text).into_owned()
}

fn names(ids: &[ArmId]) -> String {
    let names: Vec<String> = ids.iter().map(|id| format!("identity {}", id.name())).collect();
    names.join(", ")
}

/// What is said beside something that is left: the flag and what may be lost, or why there is none.
fn beside(left: &CleanUp, commanded: bool) -> String {
    let or = if commanded { "or" } else { "with" };
    match left.flag {
        Some(flag) => format!("{or} {}; then {}", flag.as_str(), left.note),
        None => format!("no flag for it: {}", left.note),
    }
}

fn line(text: &mut String, line: impl AsRef<str>) {
    text.push_str(line.as_ref());
    text.push('\n');
}

/// What would be done, with what stands in the way and what it means.
pub fn preview(clusters: &[Shown<'_>], sandbox: bool, palette: Palette) -> String {
    let mut out = String::new();
    if sandbox {
        line(&mut out, SANDBOX);
    }
    for shown in clusters {
        one(&mut out, *shown, palette);
    }
    out
}

fn one(out: &mut String, shown: Shown<'_>, palette: Palette) {
    let Uninstall { obstacles, steps, kept, exposed, risks, clean_up, not_seen, incomplete: _ } =
        shown.what;
    let nothing = steps.is_empty() && kept.is_empty() && clean_up.is_empty();
    if nothing && obstacles.is_empty() && not_seen.is_empty() {
        return;
    }
    let heading = |text: &str| palette.paint(Style::Heading, text);
    line(out, heading(&format!("# cluster {}", escape::terminal(shown.cluster))));
    if !obstacles.is_empty() {
        line(out, palette.paint(Style::Alarm, "In the way, so that nothing is begun:"));
    }
    for obstacle in obstacles {
        line(out, format!("  {}: {}", obstacle.code, escape::terminal(&obstacle.message)));
        line(out, format!("    do: {}", escape::terminal(&obstacle.fix)));
    }
    if let Some(exposed) = exposed {
        metadata(out, exposed, palette);
    }
    if !risks.is_empty() {
        line(out, palette.paint(Style::Alarm, "What may be lost with what goes in Azure:"));
    }
    for risk in risks {
        line(out, format!("  {}", escape::terminal(risk)));
    }
    if !kept.is_empty() {
        line(out, heading("Stays, look whether you need it:"));
    }
    for kept in kept {
        let (what, why) = (escape::terminal(&kept.what), escape::terminal(&kept.why));
        line(out, format!("  {what}: {why}"));
    }
    if !clean_up.is_empty() || !not_seen.is_empty() {
        line(
            out,
            heading(if is_gone(shown.what) {
                "Left in Azure; if nothing else needs it:"
            } else {
                "Left in Azure, for when Pod Identity is gone (this command shows how, then):"
            }),
        );
    }
    for left in clean_up {
        line(out, format!("  {}", escape::terminal(&left.what)));
        // Nobody is told how to take away what Pod Identity still needs.
        if is_gone(shown.what) {
            line(out, format!("    {}", escape::terminal(&left.command)));
        }
        let beside = beside(left, is_gone(shown.what));
        line(out, format!("    {}", escape::terminal(&beside)));
    }
    for failure in not_seen {
        line(out, format!("  not seen: {}", escape::terminal(failure)));
    }
    // Last, so that a question about them stands right below.
    if !steps.is_empty() {
        line(out, heading("In this order:"));
    }
    for (at, each) in steps.iter().enumerate() {
        line(out, format!("  {}. {}", at + 1, planned(shown, each)));
    }
    line(out, "");
}

/// Whether nothing of Pod Identity is left but what Azure holds for it.
fn is_gone(what: &Uninstall) -> bool {
    what.steps.iter().all(Step::is_clean_up) && what.obstacles.is_empty()
}

/// A step as something to be done. What another tool keeps is taken away by hand: while something
/// is in the way nobody is told how.
fn planned(shown: Shown<'_>, each: &Step) -> String {
    match each {
        Step::HandOver { tool, parts, .. } if !shown.what.obstacles.is_empty() => {
            let kept = counted(parts.len(), "object");
            let text = format!("you, when nothing is in the way: {tool} keeps {kept} of it");
            escape::terminal(&text).into_owned()
        }
        Step::HandOver { .. }
        | Step::AwaitUnassigned
        | Step::Remove { .. }
        | Step::DropAddOnIdentities { .. }
        | Step::DisableAddOn { .. }
        | Step::Unassign { .. }
        | Step::RemoveRole { .. } => step(each),
    }
}

fn metadata(out: &mut String, exposed: &Exposed, palette: Palette) {
    let alarm = "Without NMI every pod reaches the metadata endpoint of its node:";
    line(out, palette.paint(Style::Alarm, alarm));
    let on = if exposed.identities.is_empty() {
        "its node's identities".to_owned()
    } else {
        format!("its node's identities ({})", exposed.identities.join(", "))
    };
    let pods = counted(exposed.pods, "live pod");
    line(out, format!("  {pods} could then ask for tokens of {}", escape::terminal(&on)));
    if !exposed.users.is_empty() {
        line(out, "  these may live on the node's identity already:");
    }
    for user in &exposed.users {
        let text = format!(
            "{} in {} ({}): {}",
            user.who,
            user.namespace,
            counted(user.pods, "pod"),
            user.why
        );
        line(out, format!("    {}", escape::terminal(&text)));
    }
    line(
        out,
        "  nodes are not touched: NMI takes its iptables rules away when it ends in order; where \
         it was killed,\n  `iptables -t nat -D PREROUTING -j aad-metadata`, then `-F aad-metadata` \
         and `-X aad-metadata`, never a bare `-F`",
    );
}

/// The last line of text, with the mark of the sandbox after it.
pub fn ending(clusters: &[Shown<'_>], sandbox: bool) -> String {
    let mark = if sandbox { format!("{SANDBOX}\n") } else { String::new() };
    format!("{}\n{mark}", summary(clusters))
}

/// A step that is done, in one line.
pub fn done(each: &Step) -> String {
    match each {
        Step::Remove { part: of } => format!("removed {}", escape::terminal(&part(of))),
        Step::AwaitUnassigned => "MIC has taken back what it assigned".to_owned(),
        Step::DropAddOnIdentities { identities } => {
            let names = identities.join(", ");
            format!("took out of the AKS add-on: {}", escape::terminal(&names))
        }
        Step::DisableAddOn { .. } => "switched the AKS add-on off".to_owned(),
        Step::HandOver { tool, .. } => format!("left to {}", escape::terminal(tool)),
        Step::Unassign { set, identities } => {
            let (names, set) = (names(identities), set.name());
            format!(
                "not on scale set {} any more: {}",
                escape::terminal(set),
                escape::terminal(&names)
            )
        }
        Step::RemoveRole { what, .. } => format!("gone: {}", escape::terminal(what)),
    }
}

/// Why a cluster did not come to its end, and which steps in Azure failed; nothing where all is
/// done.
pub fn stopped(shown: Shown<'_>) -> Vec<String> {
    let Some(ran) = shown.ran else { return Vec::new() };
    let next = shown.what.steps.get(ran.reached()).map(step).unwrap_or_default();
    let name = escape::terminal(shown.cluster);
    let failed = |why| format!("cluster {name}: {}", failure_line(why));
    let mut lines: Vec<String> = ran.failed.iter().map(|(_, why)| failed(why)).collect();
    lines.extend(match &ran.end {
        End::Complete => None,
        End::HandedOver => Some(format!("cluster {name} waits for {next}")),
        End::Interrupted => Some(format!("cluster {name}: interrupted before or in: {next}")),
        End::Failed(why) => Some(failed(why)),
    });
    lines
}

/// The last line.
pub fn summary(clusters: &[Shown<'_>]) -> String {
    format!("{}{}", came_to(clusters), in_azure(clusters))
}

fn came_to(clusters: &[Shown<'_>]) -> String {
    let steps: usize = clusters.iter().map(|shown| shown.what.steps.len()).sum();
    let done: usize = clusters.iter().filter_map(|shown| Some(shown.ran?.done)).sum();
    let begun = clusters.iter().any(|shown| shown.ran.is_some());
    let obstacles = || clusters.iter().flat_map(|shown| &shown.what.obstacles);
    let unseen = obstacles().any(|obstacle| obstacle.code == NOT_SEEN);
    if steps == 0 && !unseen {
        return FREE.to_owned();
    }
    if begun && done == steps && !unseen {
        return format!("Uninstall complete: {} done.", counted(steps, "step"));
    }
    if begun {
        let tail = if unseen { " Not everything was seen." } else { "" };
        return format!("Uninstall: {done} of {} done.{tail}", counted(steps, "step"));
    }
    let tail = if unseen {
        "; not everything was seen"
    } else if obstacles().next().is_some() {
        "; something is in the way"
    } else {
        ""
    };
    format!("Uninstall: {} to do{tail}. Nothing was done.", counted(steps, "step"))
}

/// What stays in Azure; nothing where nothing does.
fn in_azure(clusters: &[Shown<'_>]) -> String {
    let left: usize = clusters.iter().map(|shown| shown.what.clean_up.len()).sum();
    let unseen = clusters.iter().any(|shown| !shown.what.not_seen.is_empty());
    match (left, unseen) {
        (0, false) => String::new(),
        (0, true) => " What Azure holds was not seen whole.".to_owned(),
        (_, unseen) => {
            let more = if unseen { ", perhaps more" } else { "" };
            let begun = clusters.iter().any(|shown| shown.ran.is_some());
            let list = if begun { "; `widentity migrate uninstall --plan` lists it" } else { "" };
            format!(" Left in Azure: {}{more}{list}.", counted(left, "thing"))
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    clusters: Vec<Cluster<'a>>,
}

#[derive(Serialize)]
struct Cluster<'a> {
    cluster: &'a str,
    #[serde(flatten)]
    what: &'a Uninstall,
    /// How many of `steps` were done; none where it was not begun.
    done: Option<usize>,
    /// Why not all of them were.
    stopped: Vec<String>,
}

/// The same for programs.
pub fn json(head: Head<'_>, clusters: &[Shown<'_>]) -> String {
    let document = Document {
        clusters: clusters
            .iter()
            .map(|shown| Cluster {
                cluster: shown.cluster,
                what: shown.what,
                done: shown.ran.map(|ran| ran.done),
                stopped: stopped(*shown),
            })
            .collect(),
    };
    to_text(&head.over(summary(clusters), document))
}

/// The same for a pull request or an issue.
pub fn markdown(project: &str, sandbox: bool, clusters: &[Shown<'_>]) -> String {
    let mut out = format!("<!-- widentity:uninstall {} -->\n", escape::markdown(project));
    if sandbox {
        line(&mut out, "**SANDBOX**\n");
    }
    line(&mut out, format!("**{}**\n", escape::markdown(&summary(clusters))));
    for shown in clusters {
        let Uninstall { obstacles, steps, kept, exposed, risks, clean_up, not_seen, .. } =
            shown.what;
        line(&mut out, format!("### cluster {}\n", escape::markdown(shown.cluster)));
        for obstacle in obstacles {
            let (message, fix) =
                (escape::markdown(&obstacle.message), escape::markdown(&obstacle.fix));
            line(&mut out, format!("- **in the way**: {message}; {fix}"));
        }
        let is_done = |at: usize| {
            let failed = |ran: &Ran| ran.failed.iter().any(|(failed, _)| *failed == at);
            shown.ran.is_some_and(|ran| at < ran.reached() && !failed(ran))
        };
        for (at, each) in steps.iter().enumerate() {
            let mark = if is_done(at) { "x" } else { " " };
            line(&mut out, format!("- [{mark}] {}", escape::markdown(&planned(*shown, each))));
        }
        for stopped in stopped(*shown) {
            line(&mut out, format!("- **stopped**: {}", escape::markdown(&stopped)));
        }
        if let Some(exposed) = exposed {
            let pods = counted(exposed.pods, "live pod");
            line(&mut out, format!("- without NMI {pods} can reach the metadata endpoint"));
        }
        for user in exposed.iter().flat_map(|exposed| &exposed.users) {
            let who = escape::code(&format!("{}/{}", user.namespace, user.who));
            let why = escape::markdown(&user.why);
            line(&mut out, format!("  - {who} may live on the node's identity: {why}"));
        }
        for risk in risks {
            line(&mut out, format!("- **may be lost**: {}", escape::markdown(risk)));
        }
        for kept in kept {
            let why = escape::markdown(&kept.why);
            line(&mut out, format!("- stays: {}: {why}", escape::code(&kept.what)));
        }
        for left in clean_up {
            let (what, beside) = (escape::markdown(&left.what), beside(left, true));
            let command = escape::code(&left.command);
            let beside = escape::markdown(&beside);
            line(&mut out, format!("- left in Azure: {what}: {command}, {beside}"));
        }
        for failure in not_seen {
            line(&mut out, format!("- not seen: {}", escape::markdown(failure)));
        }
        line(&mut out, "");
    }
    out
}
