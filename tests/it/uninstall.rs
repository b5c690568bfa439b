//! Taking Pod Identity's installation away, decided: each file of `tests/uninstall` is a world and
//! what must be done in it, in which order, or what must stand in the way.

use std::{fs, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use widentity::{
    execute::exit::ExitCode,
    migrate::{
        self, Waived,
        survey::{Given as Surveyed, Places},
        uninstall::{
            AzureWishes, CleanUp, Flag, Given, Step, Uninstall, Wishes, asked_for, decide,
        },
    },
    model::{
        ArmId, Audience,
        footprint::{AzureSide, Footprint, PartKind},
        pod_identity::Estate,
    },
    render::{Palette, head::Head, uninstall as render},
};

const HEAD: Head<'_> =
    Head { command: "migrate uninstall", project: "p", sandbox: false, exit: ExitCode::Done };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    #[serde(default)]
    estate: Estate,
    /// The world of a workload in `tests/migrate`, instead.
    estate_of: Option<String>,
    footprint: Footprint,
    azure: AzureSide,
    wishes: Wishes,
    expect: Expected,
}

/// What the decision comes to, in words.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Expected {
    obstacles: Vec<String>,
    steps: Vec<String>,
    kept: Vec<String>,
    exposed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    risks: Vec<String>,
    clean_up: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<String>,
}

fn left(left: &CleanUp) -> String {
    let CleanUp { what, command, flag, note } = left;
    format!("{what}: {command}: {}: {note}", flag.map_or("no flag", Flag::as_str))
}

impl Expected {
    fn of(what: &Uninstall) -> Self {
        let class = |class| serde_json::to_value(class).unwrap();
        let obstacles = what
            .obstacles
            .iter()
            .map(|o| format!("{} {}: {}", class(o.class).as_str().unwrap(), o.code, o.message));
        let users = what.exposed.iter().flat_map(|exposed| &exposed.users);
        let users = users.map(|u| format!("{} {} ({}): {}", u.namespace, u.who, u.pods, u.why));
        let pods = what.exposed.iter().map(|exposed| format!("{} live pods", exposed.pods));
        Self {
            obstacles: obstacles.collect(),
            steps: what.steps.iter().map(render::step).collect(),
            kept: what.kept.iter().map(|kept| format!("{}: {}", kept.what, kept.why)).collect(),
            exposed: pods.chain(users).collect(),
            risks: what.risks.clone(),
            clean_up: what.clean_up.iter().map(left).collect(),
            incomplete: what.incomplete.map(|c| class(c).as_str().unwrap().to_owned()),
        }
    }
}

impl Fixture {
    fn decide(&self) -> Uninstall {
        let later = "2026-02-01T00:00:00Z".parse().unwrap();
        let (estate, now) = match &self.estate_of {
            None => (self.estate.clone(), later),
            Some(name) => estate_of(name, later),
        };
        let audience = Audience::default();
        let survey = migrate::survey(
            &estate,
            Surveyed {
                workloads: &[],
                may_enable: false,
                audience: &audience,
                now,
                soak: SignedDuration::from_hours(24),
                waived: Waived::default(),
                places: &Places::new(),
            },
        );
        decide(Given {
            estate: &estate,
            survey: &survey,
            footprint: &self.footprint,
            azure: &self.azure,
            wishes: self.wishes,
        })
    }
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn estate_of(name: &str, later: Timestamp) -> (Estate, Timestamp) {
    let text = fs::read_to_string(folder("migrate").join(format!("{name}.json"))).unwrap();
    let fixture: Value = serde_json::from_str(&text).unwrap();
    let now = fixture["now"].as_str().map_or(later, |text| text.parse().unwrap());
    (serde_json::from_value(fixture["estate"].clone()).unwrap(), now)
}

fn fixtures() -> Vec<(PathBuf, Fixture)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder("uninstall")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let fixture =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        found.push((path, fixture));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// `WIDENTITY_BLESS=1` writes what is decided into the files, to be read in the diff.
#[test]
fn every_installation_is_taken_away_in_order_or_something_stands_in_the_way() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 12, "{} fixtures", fixtures.len());
    let mut wrong = Vec::new();
    for (path, fixture) in &fixtures {
        let have = Expected::of(&fixture.decide());
        if std::env::var_os("WIDENTITY_BLESS").is_some() {
            let text = fs::read_to_string(path).unwrap();
            let mut whole: Value = serde_json::from_str(&text).unwrap();
            whole["expect"] = serde_json::to_value(&have).unwrap();
            fs::write(path, format!("{}\n", serde_json::to_string_pretty(&whole).unwrap()))
                .unwrap();
        } else if have != fixture.expect {
            let name = path.file_stem().unwrap().display();
            wrong.push(format!("{name}: have {have:#?}, want {:#?}", fixture.expect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whatever the world: the order, and that nothing but the installation goes.
#[test]
fn the_safe_order_holds_in_every_world() {
    for (path, fixture) in fixtures() {
        let name = path.display();
        let what = fixture.decide();
        let rank = |step: &Step| match step {
            Step::Remove { part } => Some(part.kind),
            Step::AwaitUnassigned
            | Step::DropAddOnIdentities { .. }
            | Step::DisableAddOn { .. }
            | Step::HandOver { .. }
            | Step::Unassign { .. }
            | Step::RemoveRole { .. } => None,
        };
        let at = |wanted: PartKind| what.steps.iter().position(|step| rank(step) == Some(wanted));
        let ranks: Vec<PartKind> = what.steps.iter().filter_map(rank).collect();
        assert!(ranks.is_sorted(), "{name}: {ranks:?}");
        let waited = what.steps.iter().position(|step| *step == Step::AwaitUnassigned);
        if let Some(mic) = at(PartKind::Mic) {
            assert!(
                waited.is_some_and(|waited| waited < mic),
                "{name}: MIC goes before it is done"
            );
        }
        let off = |step: &Step| matches!(step, Step::DisableAddOn { .. });
        if let (Some(off), Some(crd)) = (what.steps.iter().position(off), at(PartKind::Definition))
        {
            assert!(off < crd, "{name}: a definition goes before the add-on");
        }
        // What MIC assigned is never deleted by us, and no object of the add-on is.
        assert!(at(PartKind::Assigned).is_none(), "{name}");
        if fixture.estate.add_on.is_some() {
            assert!(at(PartKind::Nmi).is_none() && at(PartKind::Identity).is_none(), "{name}");
        }
        // Each step once, and each obstacle with something to do.
        for (index, step) in what.steps.iter().enumerate() {
            assert!(!what.steps[..index].contains(step), "{name}: {step:?} twice");
        }
        assert!(what.obstacles.iter().all(|o| !o.fix.is_empty()), "{name}");
        // NMI never goes without a word about the endpoint.
        let nmi = |s: &Step| s_takes_nmi(s);
        assert_eq!(what.steps.iter().any(nmi), what.exposed.is_some(), "{name}");
    }
}

fn s_takes_nmi(step: &Step) -> bool {
    match step {
        Step::Remove { part } => part.kind == PartKind::Nmi,
        Step::HandOver { parts, .. } => parts.iter().any(|part| part.kind == PartKind::Nmi),
        Step::DisableAddOn { .. } => true,
        Step::AwaitUnassigned
        | Step::DropAddOnIdentities { .. }
        | Step::Unassign { .. }
        | Step::RemoveRole { .. } => false,
    }
}

/// Whatever the world, with everything asked for: nothing that AKS needs goes, and nothing in Azure
/// goes before the rest.
#[test]
fn nothing_that_aks_needs_ever_goes() {
    let mut gone = 0;
    for (path, mut fixture) in fixtures() {
        let name = path.display();
        fixture.wishes.azure = AzureWishes { roles: true, node_identities: true };
        let what = fixture.decide();
        let azure = &fixture.azure;
        let needed =
            |id: &ArmId| azure.kubelet.as_ref() == Some(id) || azure.placed.contains_key(id);
        let clean_up: Vec<bool> = what.steps.iter().map(Step::is_clean_up).collect();
        assert!(clean_up.is_sorted(), "{name}: {:#?}", what.steps);
        let count = clean_up.iter().filter(|clean_up| **clean_up).count();
        assert_eq!(what.risks.len(), count, "{name}: each says what may be lost");
        gone += count;
        for step in &what.steps {
            match step {
                Step::RemoveRole { assignment, .. } => {
                    assert!(!needed(&assignment.scope), "{name}: {assignment:?}");
                    assert!(azure.principals.contains_key(&assignment.principal_id), "{name}");
                    assert!(!azure.elsewhere.contains_key(&assignment.principal_id), "{name}");
                    assert!(asked_for().any(|role| role == assignment.role), "{name}");
                    assert!(assignment.scope.resource_group().is_some(), "{name}: too wide");
                }
                Step::Unassign { identities, .. } => {
                    assert!(!identities.iter().any(needed), "{name}: {identities:?}");
                    assert!(identities.iter().all(|id| fixture.estate.azure.contains_key(id)));
                }
                Step::AwaitUnassigned
                | Step::Remove { .. }
                | Step::DropAddOnIdentities { .. }
                | Step::DisableAddOn { .. }
                | Step::HandOver { .. } => {}
            }
        }
    }
    assert!(gone > 10, "{gone}");
}

#[test]
fn the_decision_does_not_depend_on_the_order_of_what_was_read() {
    for (path, mut fixture) in fixtures() {
        let first = fixture.decide();
        let footprint = &mut fixture.footprint;
        footprint.components.reverse();
        footprint.definitions.reverse();
        footprint.accounts.reverse();
        footprint.roles.reverse();
        footprint.role_bindings.reverse();
        footprint.records.reverse();
        footprint.metadata_users.reverse();
        fixture.estate.templates.reverse();
        fixture.estate.pods.reverse();
        fixture.azure.assignments.reverse();
        fixture.azure.scale_sets.reverse();
        assert_eq!(first, fixture.decide(), "{}", path.display());
    }
}

#[test]
fn every_world_can_be_shown_and_nothing_in_it_reaches_the_terminal_raw() {
    for (path, mut fixture) in fixtures() {
        let name = path.display();
        fixture.footprint.roles.push(
            serde_json::from_value(serde_json::json!({
            "kind": "cluster_role", "name": "r\u{1b}[31m|`x`"}))
            .unwrap(),
        );
        let what = fixture.decide();
        let shown = [render::Shown { cluster: "prod", what: &what, ran: None }];
        let text = render::preview(&shown, false, Palette::PLAIN);
        assert!(!text.contains('\u{1b}'), "{name}");
        assert!(text.contains("ClusterRole r"), "{name}\n{text}");
        let markdown = render::markdown("p", false, &shown);
        assert!(!markdown.contains('\u{1b}'), "{name}");
        let document: Value = serde_json::from_str(&render::json(HEAD, &shown)).unwrap();
        let steps = document["clusters"][0]["steps"].as_array().unwrap();
        assert_eq!(steps.len(), what.steps.len(), "{name}");
    }
}
