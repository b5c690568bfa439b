//! Roles on targets, and grants that cannot do what they are there for.

use std::collections::BTreeMap;

use super::{Problems, ids, workloads::Surroundings};
use crate::{
    config::{
        checked::Grant,
        code::Code,
        diagnostic::Diagnostic,
        raw,
        source::{Located, Span},
    },
    model::{
        ArmId, RoleId,
        desired::Role,
        roles::{self, BuiltIn, Kind, Misfit},
        suggest,
    },
};

/// A grant as it is written, in either form.
struct Written<'a> {
    span: Span,
    role: Option<&'a Located<String>>,
    target: Option<&'a Located<String>>,
    condition: Option<&'a Located<String>>,
}

/// A grant with what its checks need.
struct Candidate<'a> {
    span: Span,
    grant: Grant,
    role: &'a Located<String>,
    target: &'a Located<String>,
    /// How the role was written decides how much is taken on trust.
    by_name: bool,
    built_in: Option<&'static BuiltIn>,
}

/// The grants of a workload, and whether that is all of them: false if one had a problem.
pub(super) fn grants(
    raw: &raw::Workload,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> (Vec<(Span, Grant)>, bool) {
    let short = raw.target.as_ref().or(raw.role.as_ref());
    if let (Some(list), Some(short)) = (&raw.grants, short) {
        problems.push(
            Diagnostic::at(
                Code::GrantAmbiguous,
                list.span,
                "a workload has `target` and `role`, or `grants`, and not both",
            )
            .also(short.span, "also here")
            .help("move the pair into the list: { role = \"…\", target = \"…\" }"),
        );
    }
    let mut written: Vec<Written<'_>> = Vec::new();
    if short.is_some() {
        let (role, target) = (raw.role.as_ref(), raw.target.as_ref());
        written.push(Written { span: raw.span, role, target, condition: None });
    }
    for grant in raw.grants.as_ref().map(|list| list.value.as_slice()).unwrap_or_default() {
        written.push(Written {
            span: grant.span,
            role: grant.role.as_ref(),
            target: grant.target.as_ref(),
            condition: grant.condition.as_ref(),
        });
    }
    if written.is_empty() && raw.grants.is_none() {
        problems.push(
            Diagnostic::at(Code::GrantMissing, raw.span, "the workload is granted nothing")
                .help("add `target` and `role`")
                .help("or `grants = []` if access is given elsewhere: in a database, by an access policy, by a group"),
        );
        return (Vec::new(), false);
    }
    let before = problems.len();
    let mut good: Vec<Candidate<'_>> = Vec::new();
    let mut seen: BTreeMap<(String, String), Span> = BTreeMap::new();
    for grant in written {
        if let Some(candidate) = candidate(&grant, around, problems) {
            if let Some(first) = seen.get(&candidate.grant.key()) {
                problems.push(
                    Diagnostic::at(
                        Code::GrantDuplicate,
                        candidate.role.span,
                        format!(
                            "`{}` on `{}` is granted twice",
                            candidate.role.value, candidate.target.value
                        ),
                    )
                    .also(*first, "first here"),
                );
                continue;
            }
            seen.insert(candidate.grant.key(), candidate.role.span);
            good.push(candidate);
        }
    }
    let whole = problems.len() == before && raw.grants.is_none() == short.is_some();
    for candidate in &good {
        judge(candidate, &good, problems);
    }
    (good.into_iter().map(|candidate| (candidate.span, candidate.grant)).collect(), whole)
}

fn candidate<'a>(
    written: &Written<'a>,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<Candidate<'a>> {
    let Written { span, role, target, condition } = *written;
    let missing = match (role, target) {
        (Some(_), None) => Some("target"),
        (None, Some(_)) => Some("role"),
        (None, None) => Some("role` and no `target"),
        (Some(_), Some(_)) => None,
    };
    if let Some(missing) = missing {
        let place = role.or(target).map_or(span, |text| text.span);
        problems.push(
            Diagnostic::at(Code::GrantIncomplete, place, format!("the grant has no `{missing}`"))
                .help("a grant is a role on a target: add the other one"),
        );
    }
    let scope = target.and_then(|text| scope(text, around, problems));
    let found = role.and_then(|text| resolve(text, problems));
    let condition = match condition {
        Some(text) if text.value.trim().is_empty() => {
            problems.push(
                Diagnostic::at(Code::InvalidValue, text.span, "`condition` is empty")
                    .help("leave it out for a grant without condition"),
            );
            return None;
        }
        other => other.map(|text| text.value.clone()),
    };
    let (role, target) = (role?, target?);
    let (resolved, by_name) = found?;
    let built_in = match &resolved {
        Role::Known { id, .. } => roles::by_id(*id),
        Role::Named { .. } => None,
    };
    let origin = around.sources.origin(role.span);
    let grant = Grant { role: resolved, scope: scope?, condition, origin };
    Some(Candidate { span: role.span, grant, role, target, by_name, built_in })
}

const SCOPE: &str = "an id begins with `/subscriptions/`; anything else is a key of [targets]";

fn scope(
    text: &Located<String>,
    around: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<ArmId> {
    let written = text.value.as_str();
    if let Some(target) = around.targets.get(written) {
        return target.clone();
    }
    // An id without its slash, or a URL: more likely than a key.
    if written.contains('/') {
        return ids::checked(text, "target", SCOPE, ids::scope, problems);
    }
    let known = around.targets.keys().map(String::as_str);
    let problem = Diagnostic::at(
        Code::UnknownTarget,
        text.span,
        format!("there is no target `{written}` in [targets]"),
    );
    problems.push(match suggest::similar(written, known.clone()) {
        Some(word) => problem.help(format!("did you mean `{word}`?")),
        None if around.targets.is_empty() => {
            problem.help(format!("add `{written} = \"/subscriptions/…\"` to [targets]"))
        }
        None => problem.help(format!("targets: {}", known.collect::<Vec<_>>().join(", "))),
    });
    None
}

/// The role that is meant, and whether it was written by name.
fn resolve(text: &Located<String>, problems: &mut Problems) -> Option<(Role, bool)> {
    let written = text.value.trim();
    if written.is_empty() {
        problems.push(Diagnostic::at(Code::UnknownRole, text.span, "`role` is empty"));
        return None;
    }
    let known =
        |id: RoleId| Role::Known { id, name: roles::by_id(id).map(|role| role.name.to_owned()) };
    if let Ok(id) = written.parse::<RoleId>() {
        return Some((known(id), false));
    }
    if written.starts_with('/') {
        let check = |text: &str| ids::scope(text).and_then(|id| definition(&id));
        let help = "it has the form /subscriptions/<GUID>/providers/Microsoft.Authorization/\
                    roleDefinitions/<GUID>; a GUID or a name will do";
        let id = ids::checked(text, "role", help, check, problems)?;
        return Some((known(id.name().parse().ok()?), false));
    }
    if let Some(role) = roles::by_name(written) {
        return Some((known(role.id), true));
    }
    // The names of Cosmos DB's own roles are handled where the target is known.
    if let Some(meant) = roles::meant_by(written)
        && !is_cosmos_data_role(written)
    {
        problems.push(
            Diagnostic::at(Code::UnknownRole, text.span, format!("there is no role `{written}`"))
                .help(format!("did you mean `{}`?", meant.name))
                .help("a custom role with a name so near to that is written by its GUID"),
        );
        return None;
    }
    Some((Role::Named { name: written.to_owned() }, true))
}

fn definition(id: &ArmId) -> Result<ArmId, String> {
    match id.resource_type().as_deref() {
        Some("microsoft.authorization/roledefinitions") if id.name().parse::<RoleId>().is_ok() => {
            Ok(id.clone())
        }
        Some("microsoft.authorization/roledefinitions") => {
            Err(format!("`{}` is not the GUID of a role definition", id.name()))
        }
        Some("microsoft.documentdb/databaseaccounts/sqlroledefinitions") => {
            Err("it is a role of Cosmos DB's own, which ARM role assignments do not take"
                .to_owned())
        }
        _ => Err("it is not the id of a role definition".to_owned()),
    }
}

fn is_cosmos_data_role(name: &str) -> bool {
    name.to_ascii_lowercase().starts_with("cosmos db built-in data")
}

/// Whether a grant does what a workload needs it for.
fn judge(candidate: &Candidate<'_>, all: &[Candidate<'_>], problems: &mut Problems) {
    let scope = &candidate.grant.scope;
    too_wide(candidate, problems);
    let target_is = |text: String| {
        if candidate.target.value.starts_with('/') {
            text
        } else {
            format!("{text} (`{}`)", candidate.target.value)
        }
    };
    let role = candidate.grant.role.label();
    let cosmos = is_cosmos_data_role(&role)
        // The two built-in roles of the Cosmos DB data plane.
        || role == "00000000-0000-0000-0000-000000000001"
        || role == "00000000-0000-0000-0000-000000000002";
    // By its GUID a role is taken as meant: some workloads do manage resources.
    if !candidate.by_name && !cosmos {
        return;
    }
    let problem = |message: String| {
        Diagnostic::at(Code::GrantCannotWork, candidate.role.span, message)
            .also(candidate.target.span, "on this target")
    };
    let by_guid = |diagnostic: Diagnostic| match candidate.built_in {
        Some(built_in) => diagnostic.help(format!(
            "if the workload is to manage the resource itself, write the role as its GUID: `{}`",
            built_in.id
        )),
        None => diagnostic,
    };
    let misfit = match (candidate.built_in, roles::not_by_roles(scope)) {
        (Some(built_in), _) => roles::misfit(built_in, scope),
        (None, Some((service, instead))) => Some(Misfit::NotByRoles { service, instead }),
        (None, None) if cosmos => {
            problems.push(
                problem(format!("`{role}` is a role of Cosmos DB's own, not one of ARM")).help(
                    "write `grants = []` and make it with `az cosmosdb sql role assignment create`",
                ),
            );
            return;
        }
        (None, None) => None,
    };
    match misfit {
        None => {}
        Some(Misfit::NotByRoles { service, instead }) => {
            let message = target_is(format!("no ARM role opens the data of {service}"));
            problems.push(by_guid(
                problem(message)
                    .label("would be assigned and give the workload no access to data")
                    .help(format!("write `grants = []`; {instead}")),
            ));
        }
        Some(Misfit::ControlPlaneOnly { instead }) => {
            // Together with a role that opens the data, a management role is an addition.
            let beside = |other: &Candidate<'_>| {
                let opens = other.built_in.is_some_and(|role| roles::opens(role, scope));
                let at = &other.grant.scope;
                opens && (at.is_within(scope) || scope.is_within(at))
            };
            if all.iter().any(beside) {
                return;
            }
            let message = format!("`{role}` manages the resource and does not open its data");
            problems.push(by_guid(problem(message).help(format!("write {}", either(&instead)))));
        }
        Some(Misfit::OtherService { acts_on, instead }) => {
            let found = scope.resource_type().unwrap_or_default();
            let mut diagnostic = problem(format!("`{role}` does nothing on a `{found}`"))
                .label(format!("acts on `{acts_on}`"));
            if !instead.is_empty() {
                diagnostic = diagnostic.help(format!("for this target write {}", either(&instead)));
            }
            problems.push(diagnostic);
        }
    }
}

/// `` `a` or `b` ``.
fn either(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}

fn too_wide(candidate: &Candidate<'_>, problems: &mut Problems) {
    if let Some(role) = candidate.built_in.filter(|role| role.kind == Kind::Privileged) {
        problems.push(
            Diagnostic::at(
                Code::PrivilegedRole,
                candidate.role.span,
                format!("`{}` lets the workload give itself every other role", role.name),
            )
            .help("grant the role that the workload uses"),
        );
    }
    let scope = &candidate.grant.scope;
    let wide = if scope.as_str() == "/" {
        Some("everything in the tenant")
    } else if scope.key().starts_with("/providers/microsoft.management/managementgroups/") {
        Some("a whole management group")
    } else if scope.resource_group().is_none() && scope.resource_type().is_none() {
        Some("a whole subscription")
    } else {
        None
    };
    if let Some(wide) = wide {
        problems.push(
            Diagnostic::at(
                Code::WideScope,
                candidate.target.span,
                format!("the grant is on {wide}"),
            )
            .help("grant on the resource that the workload uses, or on its resource group"),
        );
    }
}
