//! `migrate render`: which manifest is whose, what becomes of it, and what is refused.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use widentity::{
    migrate::{
        self, Phase, Survey, Waived,
        manifest::{Cluster, File, Outcome, Rendered, Rendering, render},
        survey::{Given, Places},
        transition::{self, OldLabel},
    },
    model::{
        ArmId, Audience,
        desired::DesiredState,
        pod_identity::{AzureIdentityState, Estate},
        snapshot::Observation::Present,
    },
    plan::{self, Operation, PlanOptions},
    render::{
        Palette,
        head::Head,
        manifests::{self as shown, Shown},
    },
};

use crate::{
    migrate_sandbox::World,
    support::{
        cli::{Desk, NO_GRANTS},
        worlds,
    },
};

const CLIENT: &str = "c0000000-0000-4000-8000-000000000001";
const TENANT: &str = "11111111-1111-1111-1111-111111111111";

/// A cluster with a Deployment of Argo CD in it, whose identity is federated or not.
fn estate(federated: bool) -> Estate {
    let id = ArmId::of_identity(worlds::subscription(), "rg", "api");
    let credentials = if federated {
        json!([{"name": "wi", "issuer": worlds::issuer("prod"),
            "subject": "system:serviceaccount:shop:api",
            "audiences": ["api://AzureADTokenExchange"]}])
    } else {
        json!([])
    };
    let mut estate: Estate = serde_json::from_value(json!({
        "cluster": "prod", "issuer": worlds::issuer("prod"), "workload_identity": true,
        "installed": true,
        "identities": [{"namespace": "shop", "name": "api", "resource_id": id.as_str(),
            "client_id": CLIENT}],
        "bindings": [{"namespace": "shop", "name": "api", "identity": "api", "selector": "api"}],
        "templates": [{"namespace": "shop", "kind": "deployment", "name": "api", "account": "api",
            "labels": {"aadpodidbinding": "api"}, "replicas": 2, "kept_by": "Argo CD"}],
        "accounts": [{"namespace": "shop", "name": "api",
            "client_id": federated.then_some(CLIENT)}],
    }))
    .unwrap();
    let state: AzureIdentityState = serde_json::from_value(json!({"present": [
        {"id": id.as_str(), "client_id": CLIENT,
            "principal_id": "b0000000-0000-4000-8000-000000000001",
            "tenant_id": TENANT, "location": "westeurope", "tags": {}},
        credentials]}))
    .unwrap();
    estate.azure.insert(id, state);
    estate
}

fn survey(estate: &Estate) -> Survey {
    migrate::survey(
        estate,
        Given {
            workloads: &[],
            may_enable: false,
            audience: &Audience::default(),
            now: Timestamp::UNIX_EPOCH,
            soak: SignedDuration::ZERO,
            waived: Waived::default(),
            places: &Places::new(),
        },
    )
}

fn rendered(estate: &Estate, files: &[(&str, &str)]) -> Rendering {
    let survey = survey(estate);
    let audience = Audience::default();
    let cluster = Cluster { estate, survey: &survey, audience: &audience };
    let files: Vec<File> = files
        .iter()
        .map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() })
        .collect();
    render(&[cluster], &[], &files)
}

fn only(rendering: &Rendering) -> &Rendered {
    let [one] = rendering.workloads.as_slice() else { panic!("{rendering:#?}") };
    one
}

const DEPLOYMENT: &str = "\
# The API.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: api
  namespace: shop
spec:
  selector:
    matchLabels: {app: api}
  template:
    metadata:
      labels:
        app: api # ours
        aadpodidbinding: api
    spec:
      serviceAccountName: api
      containers:
        - name: api
";

const ACCOUNT: &str = "\
apiVersion: v1
kind: ServiceAccount
metadata: # no namespace: the application has one
  name: api
";

#[test]
fn label_and_annotations_come_in_one_change_with_comments_kept() {
    let file = format!("{ACCOUNT}---\n{DEPLOYMENT}");
    let rendering = rendered(&estate(true), &[("app.yaml", &file)]);
    assert_eq!(only(&rendering).outcome, Outcome::Rendered, "{rendering:#?}");
    let after = &rendering.files[0].after;
    let account = format!(
        "{ACCOUNT}  annotations:\n    azure.workload.identity/client-id: \"{CLIENT}\"\n    \
         azure.workload.identity/tenant-id: \"{TENANT}\"\n"
    );
    let label = "azure.workload.identity/use: \"true\"";
    let deployment = DEPLOYMENT.replace("aadpodidbinding: api", label);
    assert_eq!(*after, format!("{account}---\n{deployment}"));
    // Once Git holds it there is nothing to do.
    let again = rendered(&estate(true), &[("app.yaml", after)]);
    assert_eq!(only(&again).outcome, Outcome::AsWanted);
    assert!(again.files.is_empty());
}

#[test]
fn nothing_is_rendered_before_the_identity_is_federated() {
    let rendering = rendered(&estate(false), &[("a.yaml", DEPLOYMENT), ("b.yml", ACCOUNT)]);
    let one = only(&rendering);
    assert_eq!(one.outcome, Outcome::NotYet);
    assert!(one.why.as_ref().unwrap().contains("migrate apply"), "{one:?}");
    assert!(rendering.files.is_empty() && !rendering.is_stuck());
}

#[test]
fn a_workload_is_written_whole_or_not_at_all() {
    let flow = DEPLOYMENT.replace(
        "      labels:\n        app: api # ours\n        aadpodidbinding: api\n",
        "      labels: {app: api, aadpodidbinding: api}\n",
    );
    let rendering = rendered(&estate(true), &[("a.yaml", &flow), ("sa.yaml", ACCOUNT)]);
    let one = only(&rendering);
    assert_eq!(one.outcome, Outcome::Cannot);
    assert!(rendering.files.is_empty() && rendering.is_stuck());
    let outcomes: Vec<(&str, Outcome)> =
        one.objects.iter().map(|piece| (piece.object.as_str(), piece.outcome)).collect();
    assert_eq!(
        outcomes,
        [("serviceaccount/api", Outcome::NotYet), ("deployment/api", Outcome::Cannot)]
    );
    let piece = &one.objects[1];
    assert!(piece.why.as_ref().unwrap().contains("a.yaml: line 12"), "{piece:?}");
    assert_eq!(
        piece.write,
        [
            "spec.template.metadata.labels: without aadpodidbinding",
            "spec.template.metadata.labels: azure.workload.identity/use: \"true\"",
        ]
    );
    let text = shown::text(&rendering, Shown { sandbox: false, written: true }, Palette::PLAIN);
    assert!(text.contains("api@prod: cannot"), "{text}");
    assert!(text.ends_with("Render: 0 of 1 workload rendered, 1 cannot.\n"), "{text}");
}

/// Where nobody would write the other half, or not in time, Git gets no half of it.
#[test]
fn what_is_not_here_must_be_written_before() {
    let mut estate = estate(true);
    let files = [("app.yaml", DEPLOYMENT)];
    assert_eq!(only(&rendered(&estate, &files)).outcome, Outcome::Rendered);
    // Its account is nobody's, and names nobody.
    estate.accounts[0].client_id = None;
    let early = rendered(&estate, &files);
    assert_eq!((only(&early).outcome, early.files.len()), (Outcome::NotYet, 0), "{early:#?}");
    let said = only(&early).why.clone().unwrap();
    assert!(said.contains("serviceaccount/api is not under the directory"), "{said}");
    assert!(said.ends_with("first: widentity migrate apply --only shop/api"), "{said}");
    assert!(only(&early).objects.iter().all(|piece| piece.outcome != Outcome::Rendered));
    // With the account beside it, it is whole.
    let file = format!("{ACCOUNT}---\n{DEPLOYMENT}");
    assert_eq!(only(&rendered(&estate, &[("app.yaml", &file)])).outcome, Outcome::Rendered);
    // What was put back is left alone by whoever would write it.
    estate.templates[0].kept_by = None;
    estate.backups = serde_json::from_value(json!([{"namespace": "shop", "account": "api",
        "rolled_back": true, "templates": [{"key": "deployment/api"}]}]))
    .unwrap();
    let left = rendered(&estate, &files);
    assert_eq!((only(&left).outcome, left.files.len()), (Outcome::NotYet, 0), "{left:#?}");
    let said = only(&left).why.clone().unwrap();
    assert!(said.starts_with("it was put back, and `migrate apply` leaves it alone"), "{said}");
    let text = shown::text(&left, Shown { sandbox: false, written: true }, Palette::PLAIN);
    assert!(!text.contains("`migrate apply` writes it"), "{text}");
}

#[test]
fn every_way_in_which_git_may_hold_it_is_named() {
    let elsewhere = DEPLOYMENT.replace("namespace: shop", "namespace: other");
    let patch =
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: api}\nspec:\n  replicas: 3\n";
    let unlabelled = DEPLOYMENT.replace("        aadpodidbinding: api\n", "");
    let common = "resources: [a.yaml]\ncommonLabels: {aadpodidbinding: api}\n";
    let none: &[(&str, &str)] = &[];
    let cases = [
        ("nothing", none, Outcome::Cannot, "Argo CD keeps it, and its manifest is not under"),
        ("another namespace", &[("a.yaml", &elsewhere)], Outcome::Cannot, "is not under"),
        ("twice", &[("a.yaml", DEPLOYMENT), ("b.yaml", DEPLOYMENT)], Outcome::Cannot, "several"),
        ("a patch", &[("a.yaml", patch)], Outcome::Cannot, "only patches"),
        (
            "a kustomization",
            &[("a.yaml", &unlabelled), ("kustomization.yaml", common)],
            Outcome::Cannot,
            "kustomization.yaml:2 (labels of a kustomization) decides about aadpodidbinding",
        ),
        ("base and patch", &[("a.yaml", DEPLOYMENT), ("p.yaml", patch)], Outcome::Rendered, ""),
    ];
    for (what, files, outcome, why) in cases {
        let rendering = rendered(&estate(true), files);
        let one = only(&rendering);
        assert_eq!(one.outcome, outcome, "{what}: {one:#?}");
        let found = one.objects[1].why.clone().unwrap_or_default();
        assert!(found.contains(why), "{what}: {found}");
        // Nobody keeps the account: what is not in Git `apply` writes.
        assert_eq!(one.objects[0].outcome, Outcome::NotHere, "{what}");
    }
}

/// The Deployment as a base has it, with the label or without.
fn base(labelled: bool) -> String {
    let text = DEPLOYMENT.replace("  namespace: shop\n", "");
    if labelled { text } else { text.replace("        aadpodidbinding: api\n", "") }
}

/// A strategic merge patch of the pod template's labels.
fn patch(label: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: api # ours\nspec:\n  template:\n    \
         metadata:\n      labels:\n        {label}\n"
    )
}

/// The text as a block inside a kustomization.
fn indented(text: &str, by: usize) -> String {
    let indent = " ".repeat(by);
    text.split_inclusive('\n').flat_map(|line| [indent.as_str(), line]).collect()
}

fn why(rendered: &Rendered, object: &str) -> String {
    let piece = rendered.objects.iter().find(|piece| piece.object == object).unwrap();
    piece.why.clone().unwrap_or_default()
}

/// What a change of a base would do to another environment is not this workload's to decide.
#[test]
fn a_base_of_several_overlays_is_not_written() {
    let manifests = format!("{ACCOUNT}---\n{}", base(true));
    let files = [
        ("k/base/a.yaml", manifests.as_str()),
        ("k/base/kustomization.yaml", "resources: [a.yaml]\n"),
        ("k/overlays/dev/kustomization.yaml", "namespace: shop-dev\nresources: [../../base]\n"),
        ("k/overlays/prod/kustomization.yaml", "namespace: shop\nresources:\n- ../../base\n"),
    ];
    let rendering = rendered(&estate(true), &files);
    let one = only(&rendering);
    assert_eq!(one.outcome, Outcome::Cannot);
    assert!(rendering.files.is_empty());
    for object in ["serviceaccount/api", "deployment/api"] {
        let why = why(one, object);
        let both = "k/overlays/dev/kustomization.yaml and k/overlays/prod/kustomization.yaml";
        assert!(why.contains(both) && why.contains("write a patch"), "{why}");
    }
    // With one overlay the base is its own.
    let rendering = rendered(&estate(true), &[files[0], files[1], files[3]]);
    assert_eq!(only(&rendering).outcome, Outcome::Rendered, "{rendering:#?}");
    assert_eq!(rendering.files[0].path, "k/base/a.yaml");
    // And one for another namespace is another workload's.
    let rendering = rendered(&estate(true), &files[..3]);
    assert!(why(only(&rendering), "deployment/api").contains("is not under the directory"));
    // What was asked for: a patch by hand where this cluster is built.
    let by_hand = format!(
        "{}        azure.workload.identity/use: \"true\"\n---\n{ACCOUNT}  annotations:\n    \
         azure.workload.identity/client-id: {CLIENT}\n    \
         azure.workload.identity/tenant-id: {TENANT}\n",
        patch("aadpodidbinding: null"),
    );
    let prod = "namespace: shop\nresources: [../../base]\npatches: [{path: p.yaml}]\n";
    let files = [
        files[0],
        files[1],
        files[2],
        ("k/overlays/prod/kustomization.yaml", prod),
        ("k/overlays/prod/p.yaml", by_hand.as_str()),
    ];
    let rendering = rendered(&estate(true), &files);
    assert_eq!(only(&rendering).outcome, Outcome::AsWanted, "{rendering:#?}");
}

#[test]
fn the_value_of_the_label_tells_whose_patch_it_is() {
    let (base, prod, dev) =
        (base(false), patch("aadpodidbinding: api"), patch("aadpodidbinding: api-dev"));
    let overlay = "namespace: shop\nresources: [../../base]\npatches:\n- path: p.yaml\n";
    let files = [
        ("k/base/a.yaml", base.as_str()),
        ("k/base/kustomization.yaml", "resources: [a.yaml]\n"),
        ("k/overlays/dev/kustomization.yaml", overlay),
        ("k/overlays/dev/p.yaml", dev.as_str()),
        ("k/overlays/prod/kustomization.yaml", overlay),
        ("k/overlays/prod/p.yaml", prod.as_str()),
    ];
    let rendering = rendered(&estate(true), &files);
    assert_eq!(only(&rendering).outcome, Outcome::Rendered, "{rendering:#?}");
    let [file] = rendering.files.as_slice() else { panic!("{rendering:#?}") };
    assert_eq!(file.path, "k/overlays/prod/p.yaml");
    assert_eq!(file.after, patch("azure.workload.identity/use: \"true\""));
    // An account in the base is of both, so nothing is written.
    let with_account = format!("{ACCOUNT}---\n{base}");
    let mut all = files;
    all[0].1 = &with_account;
    let rendering = rendered(&estate(true), &all);
    assert_eq!(only(&rendering).outcome, Outcome::Cannot);
    assert!(rendering.files.is_empty());
    assert!(why(only(&rendering), "serviceaccount/api").contains("write a patch"));

    let other = DEPLOYMENT.replace("aadpodidbinding: api", "aadpodidbinding: other");
    let rendering = rendered(&estate(true), &[("a.yaml", &other)]);
    assert_eq!(only(&rendering).outcome, Outcome::Cannot);
    let why = why(only(&rendering), "deployment/api");
    assert!(why.starts_with("a.yaml:14 says aadpodidbinding: other, and in the cluster it is api"));
    assert!(rendering.files.is_empty());
    // A patch that nobody is seen to build with, of another value, is another's as well.
    let rendering = rendered(&estate(true), &[("a.yaml", DEPLOYMENT), ("p.yaml", &dev)]);
    let [file] = rendering.files.as_slice() else { panic!("{rendering:#?}") };
    assert_eq!(file.path, "a.yaml");
}

/// Whatever in a kustomization puts the old label back, or takes the new one away, is named with
/// its line.
#[test]
fn what_undoes_the_change_on_the_way_is_named() {
    let at = "/spec/template/metadata/labels";
    let target = "target: {kind: Deployment, name: api}";
    let op = format!("- op: add\n  path: {at}/aadpodidbinding\n  value: api\n");
    let replaced =
        format!("- op: add\n  path: {at}/azure.workload.identity~1use\n  value: \"false\"\n");
    let inline = |text: &str| format!("- {target}\n  patch: |-\n{}", indented(text, 4));
    let old = patch("aadpodidbinding: api");
    let drops = patch("azure.workload.identity/use: null");
    let label = "aadpodidbinding";
    let new = "azure.workload.identity/use";
    let cases = [
        (format!("patches:\n{}", inline(&old)), "k/kustomization.yaml:13", label),
        (format!("patches:\n- patch: |\n{}", indented(&old, 4)), "k/kustomization.yaml:12", label),
        (format!("patchesStrategicMerge:\n- |-\n{}", indented(&old, 4)), "zation.yaml:12", label),
        (format!("patches:\n{}", inline(&op)), "k/kustomization.yaml:5", label),
        (format!("patchesJson6902:\n{}", inline(&op)), "k/kustomization.yaml:5", label),
        (format!("patches:\n- path: j.yaml\n  {target}\n"), "k/j.yaml:1", label),
        (format!("patchesJson6902:\n- path: j.yaml\n  {target}\n"), "k/j.yaml:1", label),
        (format!("commonLabels:\n  {label}: api\n"), "k/kustomization.yaml:3", label),
        (
            format!("labels:\n- includeTemplates: true\n  pairs:\n    {label}: api\n"),
            "k/kustomization.yaml:5",
            label,
        ),
        (format!("transformers:\n- |-\n  labels: {{{label}: api}}\n"), "zation.yaml:2", label),
        (format!("patches:\n{}", inline(&replaced)), "k/kustomization.yaml:5", new),
        (format!("patches:\n{}", inline(&drops)), "k/kustomization.yaml:13", new),
    ];
    for (rest, place, key) in cases {
        for labelled in [true, false] {
            if !labelled && key == new {
                continue;
            }
            let kustomization = format!("resources: [a.yaml]\n{rest}");
            let manifest = base(labelled);
            let files = [
                ("k/a.yaml", manifest.as_str()),
                ("k/j.yaml", op.as_str()),
                ("k/kustomization.yaml", kustomization.as_str()),
            ];
            let rendering = rendered(&estate(true), &files);
            let one = only(&rendering);
            assert_eq!(one.outcome, Outcome::Cannot, "{kustomization}{one:#?}");
            assert!(rendering.files.is_empty());
            let why = why(one, "deployment/api");
            assert!(why.contains(&format!("{place} (")), "{kustomization}{why}");
            assert!(why.contains(&format!("about {key}: change it by hand")), "{why}");
            assert!(one.objects[1].at[0].contains(place), "{one:#?}");
        }
    }
}

/// What Flux and Argo CD are told to patch, and what cannot be read.
#[test]
fn patches_outside_of_kustomizations_count_too() {
    let old = patch("aadpodidbinding: api");
    let flux = format!(
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {{name: x}}\nspec:\n  \
         path: ./k\n  patches:\n  - patch: |\n{}",
        indented(&old, 6)
    );
    let argo = "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: x}\nspec:\n  \
                source:\n    kustomize:\n      commonLabels:\n        aadpodidbinding: api\n";
    let builtin = "apiVersion: builtin\nkind: LabelTransformer\nmetadata: {name: x}\nlabels:\n  \
                   aadpodidbinding: api\n";
    let broken = "aadpodidbinding: [\n";
    let cases = [
        ("flux.yaml", flux.as_str(), "flux.yaml:16 (an inline patch) decides"),
        ("argo.yaml", argo, "argo.yaml:8 (labels of a kustomization) decides"),
        ("labels.yaml", builtin, "labels.yaml:1 (not understood) may decide"),
        ("x/kustomization.yaml", broken, "x/kustomization.yaml:1 (not understood) may decide"),
    ];
    for (path, text, found) in cases {
        let rendering = rendered(&estate(true), &[("a.yaml", DEPLOYMENT), (path, text)]);
        assert_eq!(only(&rendering).outcome, Outcome::Cannot, "{path}");
        let why = why(only(&rendering), "deployment/api");
        assert!(why.contains(found), "{why}");
        assert!(rendering.files.is_empty());
    }
    // Of another value, it is another cluster's.
    let other = flux.replace("aadpodidbinding: api", "aadpodidbinding: other");
    let rendering = rendered(&estate(true), &[("a.yaml", DEPLOYMENT), ("flux.yaml", &other)]);
    assert_eq!(only(&rendering).outcome, Outcome::Rendered, "{rendering:#?}");
}

#[test]
fn what_a_kustomization_does_to_others_is_no_obstacle() {
    let manifest = base(true);
    for rest in [
        "patches:\n- target: {kind: Deployment, name: web}\n  patch: |-\n    - op: add\n      \
         path: /spec/template/metadata/labels/aadpodidbinding\n      value: web\n",
        "patches:\n- target: {kind: Deployment}\n  patch: |-\n    - op: replace\n      \
         path: /spec/replicas\n      value: 3\n",
        "labels:\n- pairs: {aadpodidbinding: api}\n",
        "commonLabels: {team: x}\n",
    ] {
        let kustomization = format!("resources: [a.yaml]\n{rest}");
        let files = [("a.yaml", manifest.as_str()), ("kustomization.yaml", &kustomization)];
        let rendering = rendered(&estate(true), &files);
        assert_eq!(only(&rendering).outcome, Outcome::Rendered, "{rest}{rendering:#?}");
        assert_eq!(rendering.files.len(), 1);
    }
}

/// A manifest is told by what becomes of it, a patch by what it is applied to.
#[test]
fn names_and_namespaces_are_those_of_the_build() {
    let manifest = base(true).replace("  name: api\n", "  name: pi\n");
    let kustomization = "resources: [base]\nnamespace: shop\nnamePrefix: a\ncomponents: [c]\n";
    let component = "kind: Component\npatches: [{path: p.yaml}]\n";
    let drops =
        patch("azure.workload.identity/use: null # not yet").replace("name: api", "name: pi");
    let files = [
        ("./base/a.yaml", manifest.as_str()),
        ("./base/kustomization.yml", "resources:\n- a.yaml\n"),
        ("./c/kustomization.yaml", component),
        ("./c/p.yaml", drops.as_str()),
        ("./Kustomization", kustomization),
    ];
    let rendering = rendered(&estate(true), &files);
    assert_eq!(only(&rendering).outcome, Outcome::Rendered, "{rendering:#?}");
    let changed: Vec<&str> = rendering.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(changed, ["./base/a.yaml", "./c/p.yaml"]);
    // The patch took the new label away: it gives it now, and its comment stays.
    let kept = "azure.workload.identity/use: \"true\" # not yet";
    assert!(rendering.files[1].after.contains(kept), "{rendering:#?}");
    // A name that the build changes is another object's.
    let other = kustomization.replace("namePrefix: a", "namePrefix: b");
    let mut files = files;
    files[4].1 = &other;
    let rendering = rendered(&estate(true), &files);
    assert!(why(only(&rendering), "deployment/api").contains("is not under the directory"));
}

/// The cluster has the label and no manifest gives it: it would come back with the next sync.
#[test]
fn a_label_that_comes_from_somewhere_else_is_refused() {
    let rendering = rendered(&estate(true), &[("a.yaml", &base(false)), ("sa.yaml", ACCOUNT)]);
    assert_eq!(only(&rendering).outcome, Outcome::Cannot);
    assert!(why(only(&rendering), "deployment/api").contains("comes from somewhere else"));
    assert!(rendering.files.is_empty());
    // In the cluster it is gone: what Git lacks is the new one.
    let mut switched = estate(true);
    switched.templates[0].labels =
        BTreeMap::from([("azure.workload.identity/use".to_owned(), "true".to_owned())]);
    switched.accounts[0].client_id = Some(CLIENT.to_owned());
    let rendering = rendered(&switched, &[("a.yaml", &base(false))]);
    assert_eq!(only(&rendering).outcome, Outcome::Rendered, "{rendering:#?}");
}

#[test]
fn templates_and_broken_files_are_named_and_never_guessed_at() {
    let chart = "metadata:\n  labels:\n    {{- include \"x\" . | nindent 4 }}\n";
    let files = [("app.yaml", DEPLOYMENT), ("chart.yaml", chart), ("bad.yaml", "a: [1\nb: 2\n")];
    let rendering = rendered(&estate(true), &files);
    assert_eq!(only(&rendering).outcome, Outcome::Rendered);
    let unread: Vec<&str> = rendering.unread.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(unread, ["chart.yaml", "bad.yaml"]);
    assert!(rendering.unread[0].1.contains("a template, not YAML (line 3"), "{rendering:?}");
    for written in [true, false] {
        let shown = shown::markdown(&rendering, Shown { sandbox: true, written });
        assert!(shown.contains("+        azure.workload.identity/use: \"true\""), "{shown}");
        assert!(shown.contains("chart.yaml"), "{shown}");
    }
    let head = Head {
        command: "migrate render",
        project: "p",
        sandbox: false,
        exit: widentity::execute::exit::ExitCode::Failed,
    };
    let json = shown::json(&rendering, Shown { sandbox: false, written: false }, head);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["workloads"][0]["outcome"], "rendered");
    assert_eq!(json["files"][0]["path"], "app.yaml");
}

/// What Git keeps is due all the same: its identity is federated and proved, nothing of Git's is
/// written, and when Git has arrived it goes on.
#[test]
fn apply_federates_what_git_keeps_and_goes_on_when_git_has_arrived() {
    let mut desired = worlds::desired(&["prod"]);
    worlds::add_workload(&mut desired, "shop", "api", &["prod"], Some("api"), &[]);
    let mut world = worlds::bare_world(&desired);
    desired.workloads.clear();
    let id = ArmId::of_identity(worlds::subscription(), "rg", "api");
    let estate_now = estate(false);
    let AzureIdentityState::Present(seen, _) = &estate_now.azure[&id] else { panic!() };
    world.identities = BTreeMap::from([(id.clone(), Present(seen.clone()))]);
    world.credentials = BTreeMap::from([(id, Present(Vec::new()))]);
    let Present(kubernetes) = &mut world.clusters.values_mut().next().unwrap().kubernetes else {
        panic!()
    };
    let Present(templates) = kubernetes.templates.values_mut().next().unwrap() else { panic!() };
    let mark = "argocd.argoproj.io/tracking-id".to_owned();
    templates[0].meta.annotations.insert(mark, "shop".to_owned());
    templates[0].labels.insert("aadpodidbinding".to_owned(), "api".to_owned());

    let found = survey(&estate_now);
    let [workload] = found.workloads.as_slice() else { panic!("{found:#?}") };
    assert!(transition::is_due(workload, OldLabel::Drop), "{workload:#?}");
    let plan_of = |estate: &Estate, desired: &DesiredState, world: &_| {
        let found = survey(estate);
        let due: Vec<_> =
            found.workloads.iter().filter(|w| transition::is_due(w, OldLabel::Drop)).collect();
        let wanted = transition::desired(desired, &found.cluster, &due);
        let (mut plan, report) = plan::plan(&wanted, world, PlanOptions::default());
        transition::drop_old_labels(&mut plan, estate, &found.cluster, &wanted);
        (plan, report)
    };
    let (plan, report) = plan_of(&estate_now, &desired, &world);
    let has = |which: fn(&Operation) -> bool| plan.steps.iter().any(|s| which(&s.operation));
    assert!(has(|o| matches!(o, Operation::PutCredential { .. })));
    assert!(has(|o| matches!(o, Operation::Prove { .. })));
    assert!(!has(|o| matches!(o, Operation::RollTemplate { .. })), "{:#?}", plan.steps);
    assert_eq!(report.pending_git.len() + report.pending_rollout.len(), 1, "{report:#?}");

    // Git has arrived before anybody federated the identity: nothing answers, and `apply` is due.
    let mut late = estate(false);
    late.templates[0].labels =
        BTreeMap::from([("azure.workload.identity/use".to_owned(), "true".to_owned())]);
    late.accounts[0].client_id = Some(CLIENT.to_owned());
    let found = survey(&late);
    assert_eq!(found.workloads[0].phase, Phase::Broken);
    assert!(transition::is_due(&found.workloads[0], OldLabel::Drop), "{:#?}", found.workloads[0]);

    // And after: it is proved and soaks, without a write.
    let mut arrived = estate(true);
    arrived.templates[0].labels = late.templates[0].labels.clone();
    arrived.accounts[0].client_id = Some(CLIENT.to_owned());
    let found = survey(&arrived);
    assert_eq!(found.workloads[0].phase, Phase::Soaking, "{:#?}", found.workloads[0]);
}

#[test]
fn the_command_says_what_is_wrong_with_its_directory() {
    let desk = Desk::new();
    desk.write("workloads.toml", NO_GRANTS);
    std::fs::create_dir(desk.path("k8s")).unwrap();
    desk.run("--sandbox migrate render k8s").exits(0).shows("nothing to migrate");
    desk.run("--sandbox migrate render").exits(64);
    desk.run("--sandbox migrate render missing").exits(64).says("missing is not a directory");
    desk.run("--sandbox migrate render k8s -o toml").exits(64).says("text, json or markdown");
    let ran = desk.run("--sandbox migrate render k8s -o json").exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["workloads"], json!([]));
}

/// What was switched in the cluster and still says the old thing in Git.
#[tokio::test(flavor = "multi_thread")]
async fn the_manifests_of_a_live_workload_follow_it() {
    let world = World::start(&["api".to_owned()]).await;
    let folder = tempfile::tempdir().unwrap();
    let nested = folder.path().join("base");
    std::fs::create_dir_all(folder.path().join(".git")).unwrap();
    std::fs::create_dir(&nested).unwrap();
    let manifest = DEPLOYMENT.replace("app: api # ours", "app: api");
    std::fs::write(nested.join("api.yml"), &manifest).unwrap();
    std::fs::write(folder.path().join(".git/api.yaml"), &manifest).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "kind: Deployment").unwrap();
    let rendered = async || {
        let overview = world.overview().await;
        widentity::ops::migrate::render::render(&world.desired, &overview, folder.path()).unwrap()
    };
    assert_eq!(only(&rendered().await).outcome, Outcome::NotYet);
    let (put_back, good) = world.apply(std::time::Duration::from_mins(2)).await;
    assert!(good && put_back.is_empty());
    let rendering = rendered().await;
    assert_eq!(only(&rendering).outcome, Outcome::Rendered, "{rendering:#?}");
    let [file] = rendering.files.as_slice() else { panic!("{rendering:#?}") };
    assert!(file.path.ends_with("base/api.yml"));
    let label = "azure.workload.identity/use: \"true\"";
    assert_eq!(file.after, manifest.replace("aadpodidbinding: api", label));
    // The account is nobody's: widentity annotated it, and Git need not.
    assert_eq!(only(&rendering).objects[0].outcome, Outcome::NotHere);
}
