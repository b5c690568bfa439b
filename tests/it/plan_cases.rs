//! Planner cases as files: `tests/plan/NAME.toml` and the world `NAME.json` (a serialized
//! [`Snapshot`]) give the plan in `NAME.snap`. Each is carried out by a pure apply and planned
//! again: what is left then is what no run of ours can do.
//!
//! A new case: write the file, run with `WIDENTITY_BLESS=1` to get a world with nothing of the
//! chain in it, edit that, and accept the snapshot with `INSTA_UPDATE=always`.

use std::{env, fs, path::Path};

use widentity::{
    config::{Disk, Selection, compile, load},
    model::{desired::DesiredState, snapshot::Snapshot},
    ops::{Planned, Scope},
    plan::{self, PlanOptions, Step},
    render::{style::Palette, text},
};

use crate::support::worlds;

fn planned(desired: &DesiredState, world: &Snapshot, config: &str) -> Planned {
    let (plan, report) = plan::plan(desired, world, PlanOptions::default());
    Planned { scope: Scope::of(desired, config, false, world.taken_at), plan, report }
}

#[test]
fn every_case_gives_its_plan_and_then_none() {
    let folder = Path::new("tests/plan");
    let names = fs::read_dir(folder).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_stem()?.to_str()?.to_owned();
        (path.extension()? == "toml").then_some(name)
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert!(names.len() >= 15, "{names:?}");
    for name in names {
        let config = load(&folder.join(format!("{name}.toml")), &Disk).unwrap();
        let desired = compile(&config, &Selection::default()).unwrap();
        let world = folder.join(format!("{name}.json"));
        if !world.exists() && env::var_os("WIDENTITY_BLESS").is_some() {
            let bare = serde_json::to_string_pretty(&worlds::bare_world(&desired)).unwrap();
            fs::write(&world, bare + "\n").unwrap();
        }
        let world: Snapshot = serde_json::from_str(&fs::read_to_string(world).unwrap()).unwrap();

        let file = format!("{name}.toml");
        let first = planned(&desired, &world, &file);
        let after = worlds::apply(&desired, &world, &first.plan, &worlds::all(&first.plan));
        let second = planned(&desired, &after, &file);
        assert!(second.plan.changes.is_empty(), "{name}: {:#?}", second.plan.changes);
        let step = |step: &Step| {
            let needs: Vec<String> = step.needs.iter().map(|need| need.0.to_string()).collect();
            let verb = step.operation.verb();
            format!("{}: {verb} {} after [{}]", step.id.0, step.address, needs.join(" "))
        };
        let steps: Vec<String> = first.plan.steps.iter().map(step).collect();
        let shown = format!(
            "{}\nSteps:\n  {}\n\nAfterwards: {}",
            text::plan(&first, Palette::PLAIN),
            steps.join("\n  "),
            text::last_line(&second),
        );
        insta::with_settings!({
            snapshot_path => Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!(name, shown) });
    }
}
