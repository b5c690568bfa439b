//! Configuration files: what is taken, what is refused, in which words; and what they compile to.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use insta::{assert_json_snapshot, assert_snapshot};
use proptest::prelude::*;
use widentity::{
    config::{
        Code, Config, Diagnostics, Disk, Entry, ReadFailure, ReadFiles, Selection, SelectionError,
        compile, load, sample, schema,
    },
    model::desired::DesiredState,
};

/// Files in a directory of their own. Paths in messages are relative to it.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        Self(root)
    }

    fn load(&self, name: &str) -> Result<Config, Diagnostics> {
        load(&self.0.path().join(name), &Disk)
    }

    /// The rendered problems, with paths as if the directory were the current one.
    fn refused(&self, name: &str) -> String {
        let found = self.load(name).unwrap_err();
        let root = format!("{}/", self.0.path().display());
        found.render(false).replace(&root, "")
    }
}

fn path(name: &str) -> PathBuf {
    // Tests run in the root of the package; the path is relative so that messages are.
    Path::new("tests/config").join(name)
}

fn refused(name: &str) -> Diagnostics {
    load(&path(name), &Disk).expect_err(name)
}

fn taken(name: &str) -> Config {
    match load(&path(name), &Disk) {
        Ok(config) => config,
        Err(found) => panic!("{name} is refused:\n{}", found.render(false)),
    }
}

fn desired(config: &Config) -> DesiredState {
    compile(config, &Selection::default()).unwrap()
}

macro_rules! refusals {
    ($($name:ident = $file:literal;)*) => {$(
        #[test]
        fn $name() {
            let found = refused($file);
            assert_snapshot!(found.render(false));
        }
    )*};
}

refusals! {
    refuses_keys_and_types = "invalid/keys.toml";
    refuses_broken_syntax = "invalid/syntax.toml";
    refuses_duplicates = "invalid/duplicates.toml";
    refuses_ids_and_names = "invalid/ids.toml";
    refuses_grants_that_do_nothing = "invalid/grants.toml";
    refuses_identities_shared_silently = "invalid/shared.toml";
    refuses_more_than_twenty_credentials = "invalid/too-many.toml";
    refuses_an_unknown_placeholder = "invalid/template.toml";
    refuses_includes_that_loop = "invalid/loop/workloads.toml";
}

#[test]
fn refuses_two_clusters_without_a_choice() {
    let text = fs::read(path("invalid/shared.toml")).unwrap();
    let text = String::from_utf8(text).unwrap().replace("clusters = [\"prod\"]\n", "");
    let files = Files::new(&[("w.toml", text.as_bytes())]);
    let found = files.load("w.toml").unwrap_err();
    let codes = found.list.iter().filter(|found| found.code == Code::ClustersNotChosen).count();
    assert_eq!(codes, 4);
}

#[test]
fn warns_and_goes_on() {
    let config = taken("valid/warnings.toml");
    assert_snapshot!(config.warnings().render(false));
    assert_eq!(config.warnings().to_string(), "8 warnings");
    assert_eq!(taken("valid/nothing.toml").warnings().to_string(), "2 warnings");
}

#[test]
fn problems_are_data_too() {
    let records = refused("invalid/too-many.toml").records();
    assert_json_snapshot!(records[0]);
}

#[test]
fn colour_is_on_request() {
    let found = refused("invalid/template.toml");
    assert!(found.render(true).contains("\u{1b}["));
    assert!(!found.render(false).contains("\u{1b}["));
}

#[test]
fn files_that_cannot_be_read_are_said_so() {
    let long = b"# \n".repeat(2_000_000);
    let files = Files::new(&[
        ("latin1.toml", b"version = 1\nproject = \"caf\xe9\"\n"),
        ("utf16.toml", b"\xff\xfev\0e\0"),
        ("empty.toml", b""),
        ("bom.toml", b"\xef\xbb\xbfversion = 1\nproject = 5\n"),
        ("long.toml", &long),
        ("nul.toml", b"version = 1\0\n"),
        ("binary.toml", &[0x7f; 64]),
        ("dir/x", b""),
    ]);
    let names = ["none", "dir", "latin1", "utf16", "empty", "bom", "long", "nul", "binary"];
    let mut all = String::new();
    for name in names {
        let file = if name == "dir" { "dir".to_owned() } else { format!("{name}.toml") };
        all.push_str(&files.refused(&file));
    }
    assert_snapshot!(all);
}

#[test]
fn a_file_that_is_not_toml_gives_a_bounded_answer() {
    let files = Files::new(&[("w.toml", "what is this\n".repeat(100_000).as_bytes())]);
    let found = files.load("w.toml").unwrap_err();
    assert!(found.list.len() <= 101, "{}", found.list.len());
    assert!(found.list.last().unwrap().message.contains("more syntax errors"));
}

#[test]
fn many_problems_in_a_long_file_are_all_shown_and_soon() {
    let mut text = String::from_utf8(fs::read(path("valid/minimal.toml")).unwrap()).unwrap();
    let bare = |n| format!("[[workloads]]\nnamespace = \"a\"\nservice_account = \"w{n}\"\n");
    text.extend((0..2000).map(bare));
    let files = Files::new(&[("w.toml", text.as_bytes())]);
    let found = files.load("w.toml").unwrap_err();
    assert_eq!(found.errors(), 2000);
    assert_eq!(found.render(false).matches("granted nothing").count(), 2000);
}

#[test]
fn compiles_to_the_desired_state() {
    assert_json_snapshot!("minimal", desired(&taken("valid/minimal.toml")));
    assert_json_snapshot!("full", desired(&taken("valid/full.toml")));
}

#[test]
fn the_example_is_good_and_the_same_everywhere() {
    let files = Files::new(&[("workloads.toml", sample::WORKLOADS.as_bytes())]);
    let config = files.load("workloads.toml").unwrap();
    assert_eq!(config.warnings().to_string(), "0 errors");
    assert_eq!(config.source, "workloads.toml");
    assert_eq!((config.workloads.len(), config.clusters.len()), (8, 2));
    let state = desired(&config);
    assert_eq!(state.placements().count(), 14);
    assert_eq!(state.assignments.len(), 9);
}

#[test]
fn equal_names_of_assignments_are_told_apart() {
    let mut text = String::from_utf8(fs::read(path("valid/minimal.toml")).unwrap()).unwrap();
    text.push_str(
        "[[workloads]]\nnamespace = \"a\"\nservice_account = \"b\"\ngrants = [\n\
         { role = \"AcrPull\", target = \"/subscriptions/11111111-1111-1111-1111-111111111111/\
         resourceGroups/one/providers/Microsoft.ContainerRegistry/registries/r\" },\n\
         { role = \"AcrPull\", target = \"/subscriptions/11111111-1111-1111-1111-111111111111/\
         resourceGroups/two/providers/Microsoft.ContainerRegistry/registries/R\" },\n]\n",
    );
    let files = Files::new(&[("w.toml", text.as_bytes())]);
    let state = desired(&files.load("w.toml").unwrap());
    let addresses: Vec<String> =
        state.assignments.iter().map(|assignment| assignment.address.to_string()).collect();
    assert_snapshot!(addresses.join("\n"));
}

/// A file that is kept in memory, alone in its directory.
struct Memory(String);

impl ReadFiles for Memory {
    fn read(&self, path: &Path, _limit: u64) -> Result<Vec<u8>, ReadFailure> {
        if path == Path::new("w.toml") {
            Ok(self.0.clone().into_bytes())
        } else {
            Err(ReadFailure::NotFound)
        }
    }

    fn list(&self, _directory: &Path) -> io::Result<Vec<Entry>> {
        Ok(vec![Entry { name: "w.toml".to_owned(), directory: false }])
    }

    fn canonical(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn in_repository(&self, path: &Path) -> Option<PathBuf> {
        Some(Path::new("deploy").join(path))
    }
}

proptest! {
    /// Whatever becomes of a good file, the answer is a configuration or problems that can be
    /// shown: no panic, and every place within the text.
    #[test]
    fn no_text_is_too_broken(
        sample in 0..5_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..6_usize, 0..12_usize), 0..6),
    ) {
        let mut text = match sample {
            0 => sample::WORKLOADS.to_owned(),
            n => {
                let name = ["keys", "ids", "grants", "shared"][n - 1];
                String::from_utf8(fs::read(path(&format!("invalid/{name}.toml"))).unwrap()).unwrap()
            }
        };
        for (at, removed, added) in edits {
            let added = [
                "", "\"", "[", "]", "\n", "=", "ä\u{301}", "\r\n", "{", "\u{0}", "[[workloads]]\n", "''''",
            ][added];
            let mut start = at.index(text.len() + 1);
            while !text.is_char_boundary(start) {
                start -= 1;
            }
            let end = text[start..].char_indices().nth(removed).map_or(text.len(), |(n, _)| start + n);
            text.replace_range(start..end, added);
        }
        match load(Path::new("w.toml"), &Memory(text)) {
            Ok(config) => {
                prop_assert_eq!(&config.source, "deploy/w.toml");
                desired(&config);
            }
            Err(found) => {
                prop_assert!(found.errors() > 0);
                let shown = found.render(false);
                prop_assert_eq!(shown.matches("\n\n").count() >= found.list.len(), true);
                prop_assert_eq!(found.records().len(), found.list.len());
            }
        }
    }
}

fn select(only: &[&str], namespaces: &[&str], clusters: &[&str]) -> Selection {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Selection { only: owned(only), namespaces: owned(namespaces), clusters: owned(clusters) }
}

#[test]
fn a_selection_marks_workloads_and_their_clusters() {
    let config = taken("valid/full.toml");
    let chosen = |selection: Selection| -> Vec<String> {
        let state = compile(&config, &selection).unwrap();
        assert_eq!(state.workloads.len(), 5);
        let at = |(workload, cluster): (
            &widentity::model::desired::DesiredWorkload,
            &widentity::model::desired::DesiredCluster,
        )| workload.address().at(&cluster.name).to_string();
        state.placements().map(at).collect()
    };
    assert_eq!(chosen(select(&[], &[], &[])).len(), 6);
    assert_eq!(chosen(select(&["shop/api*"], &[], &[])), ["shop/api.v2@prod", "shop/api.v2@test"]);
    assert_eq!(chosen(select(&["*@test"], &[], &[])), ["shop/api.v2@test"]);
    assert_eq!(chosen(select(&[], &["search"], &[])), ["search/indexer@prod"]);
    assert_eq!(
        chosen(select(&["*/m*", "*/p*"], &["shop"], &["prod"])),
        ["shop/mail@prod", "shop/print@prod"]
    );
}

#[test]
fn a_selection_of_nothing_is_an_error() {
    let config = taken("valid/full.toml");
    let error = |selection: Selection| compile(&config, &selection).unwrap_err();
    assert_eq!(
        error(select(&[], &[], &["prdo"])),
        SelectionError::UnknownCluster { name: "prdo".into(), similar: Some("prod".into()) }
    );
    assert_eq!(
        error(select(&["shop/mial"], &[], &[])).to_string(),
        "`shop/mial` matches no workload of the file; did you mean `shop/mail`?"
    );
    assert_eq!(
        error(select(&["shop/mail@prod:proof"], &[], &[])).to_string(),
        "`shop/mail@prod:proof` names a part of a workload; choose the workload: `shop/mail@prod`"
    );
    assert_eq!(
        error(select(&[], &["shopp"], &[])).to_string(),
        "no workload of the file is in namespace `shopp`; did you mean `shop`?"
    );
    assert_eq!(error(select(&["shop/mail"], &["search"], &[])), SelectionError::Nothing);
}

#[test]
fn the_schema_is_the_one_that_is_checked_in() {
    let mut generated = serde_json::to_string_pretty(&schema::workloads()).unwrap();
    generated.push('\n');
    let stored = Path::new("schema/workloads.schema.json");
    if std::option_env!("WIDENTITY_UPDATE_SCHEMA").is_some() {
        fs::write(stored, &generated).unwrap();
    }
    let stored = String::from_utf8(fs::read(stored).unwrap()).unwrap();
    assert!(
        stored == generated,
        "schema/workloads.schema.json is not what the types give; write it with \
         WIDENTITY_UPDATE_SCHEMA=1 cargo test --test it config::the_schema"
    );
}

fn agrees(validator: &jsonschema::Validator, text: &str) -> bool {
    let value: serde_json::Value = toml::from_str(text).unwrap();
    validator.is_valid(&value)
}

#[test]
fn the_schema_and_the_parser_agree() {
    let schema = schema::workloads();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    assert!(!schema.to_string().contains("$defs"));
    let validator = jsonschema::draft7::new(&schema).unwrap();
    let read = |name: &str| String::from_utf8(fs::read(path(name)).unwrap()).unwrap();
    for name in ["minimal", "full", "warnings", "nothing"] {
        let value: serde_json::Value =
            toml::from_str(&read(&format!("valid/{name}.toml"))).unwrap();
        let problems: Vec<String> =
            validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{name}: {problems:?}");
    }
    assert!(agrees(&validator, sample::WORKLOADS));
    assert!(agrees(&validator, &read("valid/teams/search.toml")));
    assert!(!agrees(&validator, &read("invalid/keys.toml")));
    assert!(!agrees(&validator, &read("invalid/ids.toml")));

    // One fault at a time, so that each is found by itself.
    let good = read("valid/minimal.toml");
    for (from, to) in [
        ("version = 1", "version = 2"),
        ("version = 1\n", ""),
        ("project = \"shop\"", "project = \"Shop\""),
        ("[azure]", "[azur]"),
        ("tenant = \"22", "tenant = \"2"),
        ("[clusters.prod]", "[clusters.prod]\naccess = \"some\""),
        ("namespace = \"shop\"", "namespace = \"shop\"\nproxies = true"),
        ("[azure]", "[migrate]\nsoak = \"soon\"\n[azure]"),
        ("[azure]", "[migrate]\nsoak = \"-1h\"\n[azure]"),
        ("[azure]", "[migrate]\nsok = \"1h\"\n[azure]"),
        ("namespace = \"shop\"", "namespace = \"shop\"\ntoken_expiration = 10"),
        ("namespace = \"shop\"", "namespace = \"shop\"\nprobe = \"redis\""),
        ("namespace = \"shop\"", "namespace = \"Shop\""),
        ("location = \"westeurope\"", "location = \"westeurope\"\ncloud = { authority = \"x\" }"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        assert!(!agrees(&validator, &bad), "the schema takes {to}");
        let files = Files::new(&[("w.toml", bad.as_bytes())]);
        assert!(files.load("w.toml").is_err(), "the parser takes {to}");
    }
}

#[test]
fn the_audience_is_the_same_in_every_cloud_unless_a_cluster_names_another() {
    let good = fs::read_to_string(path("valid/minimal.toml")).unwrap();
    let audiences = |text: &str| {
        let files = Files::new(&[("w.toml", text.as_bytes())]);
        let config = files.load("w.toml").map_err(|found| found.render(false)).unwrap();
        let desired = desired(&config);
        let clusters = desired.clusters.into_values();
        clusters.map(|cluster| cluster.audience.to_string()).collect::<Vec<_>>()
    };
    let location = "location = \"westeurope\"";
    for cloud in ["public", "usgov", "china"] {
        let text = good.replacen(location, &format!("{location}\ncloud = \"{cloud}\""), 1);
        assert_eq!(audiences(&text), ["api://AzureADTokenExchange"], "{cloud}");
    }
    let own = "[clusters.prod]\naudience = \"api://AzureADTokenExchangeChina\"";
    let text = good.replacen("[clusters.prod]", own, 1);
    assert_eq!(audiences(&text), ["api://AzureADTokenExchangeChina"]);
}

#[test]
fn a_probe_finds_its_address_by_the_grant_and_the_cloud() {
    let text = |cloud: &str, target: &str, role: &str, probe: &str| {
        format!(
            "version = 1\nproject = \"p\"\n[azure]\n\
             tenant = \"22222222-2222-4222-8222-222222222222\"\n\
             subscription = \"11111111-1111-4111-8111-111111111111\"\n\
             resource_group = \"rg\"\nlocation = \"westeurope\"\ncloud = \"{cloud}\"\n\
             [clusters.prod]\nid = \"{SUBSCRIPTION}/resourceGroups/rg/providers/\
             Microsoft.ContainerService/managedClusters/aks\"\n\
             [[workloads]]\nnamespace = \"shop\"\nservice_account = \"api\"\n\
             target = \"{target}\"\nrole = \"{role}\"\nprobe = {probe}\n"
        )
    };
    let probe = |text: &str| {
        let files = Files::new(&[("w.toml", text.as_bytes())]);
        let config = files.load("w.toml").map_err(|found| found.render(false))?;
        Ok::<_, String>(desired(&config).workloads[0].probe.clone().unwrap().url)
    };
    let store = format!(
        "{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.AppConfiguration/\
         configurationStores/appcs"
    );
    let reader = "App Configuration Data Reader";
    for (cloud, host) in [
        ("public", "https://appcs.azconfig.io"),
        ("usgov", "https://appcs.azconfig.azure.us"),
        ("china", "https://appcs.azconfig.azure.cn"),
    ] {
        let text = text(cloud, &store, reader, "\"app-configuration\"");
        assert_eq!(probe(&text).unwrap(), host);
    }
    let by_id = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
    let arm = text("china", &store, by_id, "\"resource-manager\"");
    assert_eq!(probe(&arm).unwrap().to_lowercase(), store.to_lowercase());
    let group = format!("{SUBSCRIPTION}/resourceGroups/rg");
    let full = format!("{{ kind = \"resource-manager\", url = \"{group}\" }}");
    assert_eq!(probe(&text("public", &store, by_id, &full)).unwrap(), group);
    for (given, words) in [
        ("\"key-vault\"", "no grant on a vault"),
        ("{ kind = \"resource-manager\", url = \"https://appcs.azconfig.io\" }", "url"),
    ] {
        let refused = probe(&text("public", &store, by_id, given)).unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
}

const SUBSCRIPTION: &str = "/subscriptions/11111111-1111-4111-8111-111111111111";
