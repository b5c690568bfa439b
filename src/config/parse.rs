//! TOML text to [`raw`]: syntax errors, types, unknown and missing keys.

use toml::de::DeTable;

use super::{
    code::Code,
    diagnostic::Diagnostic,
    raw::{
        Azure, Cloud, Cluster, CustomCloud, Defaults, File, FullProbe, Grant, Migrate, Probe,
        Workload,
    },
    source::{FileId, Located, Span},
    table::{Table, Value, one_of},
};

/// Syntax errors shown of one file. Of a file that is not TOML at all every line is an error;
/// beyond this many they teach nothing and only their number is said.
const MOST_SYNTAX_ERRORS: usize = 100;

/// What a file may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Everything.
    Root,
    /// `[[workloads]]` and `[targets]`.
    Included,
}

/// Reads a file. `None` where the text is not TOML: what could be recovered of it would only give
/// follow-up problems.
pub(super) fn parse(
    text: &str,
    file: FileId,
    role: Role,
    problems: &mut Vec<Diagnostic>,
) -> Option<File> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if syntax(text, file, &errors, problems) {
        return None;
    }
    let table = Table::new(tree.get_ref(), Span::new(file, 0..0), "the file");
    Some(match role {
        Role::Root => root(table, problems),
        Role::Included => included(table, problems),
    })
}

/// Reports syntax errors; true if there are others than duplicate keys.
fn syntax(
    text: &str,
    file: FileId,
    errors: &[toml::de::Error],
    problems: &mut Vec<Diagnostic>,
) -> bool {
    let mut broken = false;
    for (n, error) in errors.iter().enumerate() {
        let span = error.span().unwrap_or_default();
        let mut span = Span::new(file, span.start.min(text.len())..span.end.min(text.len()));
        while !text.is_char_boundary(span.start) {
            span.start -= 1;
        }
        while !text.is_char_boundary(span.end) {
            span.end += 1;
        }
        let duplicate = error.message() == "duplicate key";
        broken |= !duplicate;
        if n == MOST_SYNTAX_ERRORS {
            let more = errors.len() - n;
            problems.push(
                Diagnostic::at(Code::Syntax, span, format!("and {more} more syntax errors"))
                    .help("is this a TOML file?"),
            );
        }
        if n >= MOST_SYNTAX_ERRORS {
            continue;
        }
        problems.push(if duplicate {
            let key = &text[span.start..span.end];
            Diagnostic::at(Code::DuplicateKey, span, format!("`{key}` is written twice"))
                .label("the second one")
        } else {
            Diagnostic::at(Code::Syntax, span, error.message().replace('\n', ", "))
        });
    }
    broken
}

/// Keys of `[azure]` and of workloads that people look for at the top, and the reverse.
const AT_THE_TOP: &[(&str, &str)] = &[
    ("tenant", "in [azure]"),
    ("subscription", "in [azure]"),
    ("resource_group", "in [azure]"),
    ("location", "in [azure]"),
    ("cloud", "in [azure]"),
    ("tags", "in [azure]"),
    ("namespace", "in [[workloads]]"),
    ("service_account", "in [[workloads]]"),
    ("identity_name", "in [defaults]"),
    ("soak", "in [migrate]"),
];

fn root(mut table: Table<'_, '_>, problems: &mut Vec<Diagnostic>) -> File {
    table.require("version", "`version = 1`");
    table.require("project", "`project = \"…\"`, the owner mark: a-z, 0-9 and `-`");
    table.require(
        "azure",
        "an [azure] table with tenant, subscription, resource_group and location",
    );
    let file = File {
        version: table.integer("version", problems),
        project: table.string("project", problems),
        include: table.strings("include", problems).map(|list| list.value).unwrap_or_default(),
        azure: table.table("azure", "[azure]", problems).map(|inner| azure(inner, problems)),
        clusters: clusters(&mut table, problems),
        targets: targets(&mut table, problems),
        defaults: table
            .table("defaults", "[defaults]", problems)
            .map(|inner| defaults(inner, problems))
            .unwrap_or_default(),
        migrate: table
            .table("migrate", "[migrate]", problems)
            .map(|inner| migrate(inner, problems))
            .unwrap_or_default(),
        workloads: workloads(&mut table, problems),
    };
    table.finish(AT_THE_TOP, problems);
    file
}

fn included(mut table: Table<'_, '_>, problems: &mut Vec<Diagnostic>) -> File {
    for key in ["version", "project", "azure", "clusters", "defaults", "migrate"] {
        if let Some(found) = table.value(key) {
            problems.push(
                Diagnostic::at(
                    Code::NotInInclude,
                    found.span,
                    format!("`{key}` in an included file"),
                )
                .help("an included file may hold only [[workloads]] and [targets]"),
            );
        }
    }
    if let Some(found) = table.value("include") {
        problems.push(
            Diagnostic::at(Code::IncludeLoop, found.span, "an included file includes others")
                .help("only the root file may include; list the files in its `include`"),
        );
    }
    let targets = targets(&mut table, problems);
    let workloads = workloads(&mut table, problems);
    table.finish(AT_THE_TOP, problems);
    File {
        version: None,
        project: None,
        include: Vec::new(),
        azure: None,
        clusters: Vec::new(),
        targets,
        defaults: Defaults::default(),
        migrate: Migrate::default(),
        workloads,
    }
}

fn azure(mut table: Table<'_, '_>, problems: &mut Vec<Diagnostic>) -> Azure {
    table.require("tenant", "`tenant = \"<GUID>\"`: az account show --query tenantId");
    table.require("subscription", "`subscription = \"<GUID>\"`: az account show --query id");
    table.require("resource_group", "`resource_group = \"…\"`; it must exist");
    table.require("location", "`location = \"…\"`: az account list-locations");
    let azure = Azure {
        tenant: table.string("tenant", problems),
        subscription: table.string("subscription", problems),
        resource_group: table.string("resource_group", problems),
        location: table.string("location", problems),
        cloud: table.value("cloud").and_then(|value| cloud(&value, problems)),
        tags: table
            .table("tags", "azure.tags", problems)
            .map(|inner| strings(inner, "a tag", problems))
            .unwrap_or_default(),
    };
    table.finish(&[], problems);
    azure
}

fn cloud(value: &Value<'_, '_>, problems: &mut Vec<Diagnostic>) -> Option<Cloud> {
    if value.as_str().is_some() {
        return value.word("cloud", problems).map(Cloud::Named);
    }
    let takes = "a name, or a table with resource_manager and authority";
    let mut table = value.table("cloud", takes, problems)?;
    let example = |key: &str| format!("`{key} = \"https://…\"`");
    table.require("resource_manager", &example("resource_manager"));
    table.require("authority", &example("authority"));
    let cloud = CustomCloud {
        resource_manager: table.string("resource_manager", problems),
        authority: table.string("authority", problems),
        ca_file: table.string("ca_file", problems),
    };
    table.finish(&[], problems);
    Some(Cloud::Custom(cloud))
}

fn strings(
    table: Table<'_, '_>,
    what: &str,
    problems: &mut Vec<Diagnostic>,
) -> Vec<(Located<String>, Located<String>)> {
    let entries = table.named().into_iter();
    entries
        .filter_map(|(name, value)| {
            let text = value.string(&name.value, &format!("a string ({what})"), problems)?;
            Some((name, text))
        })
        .collect()
}

fn targets(
    table: &mut Table<'_, '_>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<(Located<String>, Located<String>)> {
    let inner = table.table("targets", "[targets]", problems);
    inner.map(|inner| strings(inner, "an id", problems)).unwrap_or_default()
}

fn clusters(
    table: &mut Table<'_, '_>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<(Located<String>, Cluster)> {
    let Some(inner) = table.table("clusters", "[clusters]", problems) else { return Vec::new() };
    let mut all = Vec::new();
    for (name, value) in inner.named() {
        let title = format!("[clusters.{}]", name.value);
        let cluster = {
            let takes = "a table: [clusters.<name>] with an id";
            value.table(&title, takes, problems).map(|inner| cluster(inner, problems))
        };
        all.extend(cluster.map(|cluster| (name, cluster)));
    }
    all
}

fn cluster(mut table: Table<'_, '_>, problems: &mut Vec<Diagnostic>) -> Cluster {
    table.require("id", "`id = \"…\"`: az aks show --query id");
    let cluster = Cluster {
        span: table.span(),
        id: table.string("id", problems),
        context: table.string("context", problems),
        kubeconfig: table.string("kubeconfig", problems),
        access: table.word("access", problems),
        enable: table.list(
            "enable",
            &format!("a list of {}", one_of::<super::raw::Feature>()),
            problems,
            |item, problems| item.word("enable", problems),
        ),
        audience: table.string("audience", problems),
    };
    table.finish(&[], problems);
    cluster
}

fn defaults(mut table: Table<'_, '_>, problems: &mut Vec<Diagnostic>) -> Defaults {
    let defaults = Defaults {
        clusters: table.strings("clusters", problems),
        identity_name: table.string("identity_name", problems),
        rollout: table.word("rollout", problems),
        managed_by: table.word("managed_by", problems),
        token_expiration: table.integer("token_expiration", problems),
    };
    table.finish(&[], problems);
    defaults
}

fn migrate(mut table: Table<'_, '_>, problems: &mut Vec<Diagnostic>) -> Migrate {
    let migrate = Migrate { soak: table.string("soak", problems) };
    table.finish(&[], problems);
    migrate
}

fn workloads(table: &mut Table<'_, '_>, problems: &mut Vec<Diagnostic>) -> Vec<Workload> {
    let Some(found) = table.value("workloads") else { return Vec::new() };
    let takes = "a list of tables: one [[workloads]] for each";
    let Some(items) = found.list("workloads", takes, problems) else { return Vec::new() };
    let read = |item: &Value<'_, '_>| {
        let inner = item.table("[[workloads]]", takes, problems)?;
        Some(workload(inner, problems))
    };
    items.iter().filter_map(read).collect()
}

fn workload(mut table: Table<'_, '_>, problems: &mut Vec<Diagnostic>) -> Workload {
    table.require("namespace", "`namespace = \"…\"`");
    table.require("service_account", "`service_account = \"…\"`");
    let workload = Workload {
        span: table.span(),
        namespace: table.string("namespace", problems),
        service_account: table.string("service_account", problems),
        clusters: table.strings("clusters", problems),
        target: table.string("target", problems),
        role: table.string("role", problems),
        grants: table.list("grants", "a list of { role, target }", problems, grant),
        identity: table.string("identity", problems),
        pods: table.strings("pods", problems),
        tenant: table.string("tenant", problems),
        token_expiration: table.integer("token_expiration", problems),
        rollout: table.word("rollout", problems),
        managed_by: table.word("managed_by", problems),
        adopt: table.boolean("adopt", problems),
        probe: table.value("probe").and_then(|value| probe(&value, problems)),
        proxy: table.boolean("proxy", problems),
        chained: table.boolean("chained", problems),
        protect: table.boolean("protect", problems),
    };
    let elsewhere =
        [("condition", "in a member of `grants`"), ("audience", "in [clusters.<name>]")];
    table.finish(&elsewhere, problems);
    workload
}

fn grant(value: &Value<'_, '_>, problems: &mut Vec<Diagnostic>) -> Option<Grant> {
    let mut table = value.table("grants", "a list of { role, target }", problems)?;
    let grant = Grant {
        span: table.span(),
        role: table.string("role", problems),
        target: table.string("target", problems),
        condition: table.string("condition", problems),
    };
    table.finish(&[], problems);
    Some(grant)
}

fn probe(value: &Value<'_, '_>, problems: &mut Vec<Diagnostic>) -> Option<Probe> {
    if value.as_str().is_some() {
        return value.word("probe", problems).map(Probe::Kind);
    }
    let takes = "\"key-vault\", \"blob\", or a table with kind and url";
    let mut table = value.table("probe", takes, problems)?;
    table.require("kind", "`kind = \"key-vault\"` or `kind = \"blob\"`");
    table.require("url", "`url = \"https://…\"`");
    let probe = FullProbe {
        span: table.span(),
        kind: table.word("kind", problems),
        url: table.string("url", problems),
    };
    table.finish(&[], problems);
    Some(Probe::Full(probe))
}
