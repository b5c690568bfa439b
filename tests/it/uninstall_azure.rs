//! What Pod Identity leaves in Azure, taken away on request over HTTPS, in the sandbox: to the end,
//! stopped at every single request, and refused by locks.

use std::sync::Arc;

use serde_json::{Value, json};
use widentity::{
    migrate::uninstall::{AzureWishes, CleanUp, Flag, Step, Uninstall, Wishes},
    model::{ArmId, ClusterName, FailureKind, desired::DesiredCluster, pod_identity::Backup},
    ops::{
        connect::connect,
        migrate::{
            Request, overview,
            uninstall::{End, Event, Ran, sites},
        },
    },
};

use crate::support::{
    arm::{answered, json as with_body},
    pod_identity::{custom, left, make, manifests},
    signed_in,
    uninstall::{ALL, BOTH, World},
    worlds,
};

const COMPUTE: &str = "2024-07-01";
const ROLES: &str = "2022-04-01";
const OPERATOR: &str = "f1a07417-d97a-45cb-824c-7a7467783830";
const CONTRIBUTOR: &str = "9980e02c-c2be-4d73-94e8-173b1dc7cf3c";
const ACR_PULL: &str = "7f951dda-4ed3-4680-a7ca-43fe172d538d";

/// A world in which somebody followed the documentation of Pod Identity.
struct SetUp {
    world: World,
    /// The scale set.
    set: String,
    /// The identity of Pod Identity, and that of the nodes.
    app: String,
    kubelet: String,
    principal: String,
    /// The role assignments by which Pod Identity acts, and one by which the nodes pull images.
    roles: Vec<String>,
    pull: String,
}

impl SetUp {
    /// `finish` wrote down which identity a workload had.
    async fn told_by_a_backup() -> Self {
        let mut it = Self::new().await;
        it.world.backups.0.push(Backup {
            namespace: "shop".into(),
            account: "api".into(),
            identity: it.app.clone(),
            ..Backup::default()
        });
        it
    }

    /// An `AzureIdentity` that nothing uses names it.
    async fn told_by_an_object() -> Self {
        let it = Self::new().await;
        let spec = json!({"type": 0, "resourceID": it.app, "clientID": "c"});
        let object = custom("AzureIdentity", "azureidentities", ("shop", "api"), spec);
        make(&it.world.admin, std::slice::from_ref(&object)).await;
        it
    }

    async fn new() -> Self {
        let world = World::installed().await;
        let group = world.cluster.split("/providers").next().unwrap().to_owned();
        let mut record = world.record().await;
        let nodes = record["properties"]["nodeResourceGroup"].as_str().unwrap();
        let nodes = format!("/subscriptions/{}/resourceGroups/{nodes}", worlds::subscription());
        let place = json!({"location": "westeurope"});
        let identity = |group: &str, name: &str| {
            format!("{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}")
        };
        put(&world, &nodes, "2021-04-01", &place).await;
        let (app, kubelet) = (identity(&group, "id-api"), identity(&nodes, "agentpool"));
        put(&world, &app, "2023-01-31", &place).await;
        let made = put(&world, &kubelet, "2023-01-31", &place).await;
        // The nodes act as a principal that Entra knows.
        let principal = made["properties"]["principalId"].as_str().unwrap().to_owned();
        record["properties"]["identityProfile"]["kubeletidentity"] = json!({
            "resourceId": kubelet, "objectId": principal,
            "clientId": made["properties"]["clientId"]});
        put(&world, &world.cluster, "2025-10-01", &record).await;
        while world.record().await["properties"]["provisioningState"] != "Succeeded" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let set = format!("{nodes}/providers/Microsoft.Compute/virtualMachineScaleSets/aks-vmss");
        let assignment = |scope: &str, last: u32| {
            format!(
                "{scope}/providers/Microsoft.Authorization/roleAssignments/\
                 7d8d0f5e-2f0b-4b7e-9d43-{last:012}"
            )
        };
        let roles = vec![assignment(&app, 1), assignment(&nodes, 2), assignment(&nodes, 3)];
        let pull = assignment(&group, 4);
        let it = Self { world, set, app, kubelet, principal, roles, pull };
        it.fill().await;
        let grant = it.grant(ACR_PULL);
        put(&it.world, &it.pull, ROLES, &grant).await;
        it
    }

    fn grant(&self, role: &str) -> Value {
        let definition = format!(
            "/subscriptions/{}/providers/Microsoft.Authorization/roleDefinitions/{role}",
            worlds::subscription()
        );
        json!({"properties": {"roleDefinitionId": definition, "principalId": self.principal,
            "principalType": "ServicePrincipal"}})
    }

    /// Everything in Azure that goes is there (again).
    async fn fill(&self) {
        let on = json!({self.app.clone(): {}, self.kubelet.clone(): {}});
        let body = json!({"location": "westeurope",
            "identity": {"type": "UserAssigned", "userAssignedIdentities": on},
            "properties": {"upgradePolicy": {"mode": "Manual"}}});
        put(&self.world, &self.set, COMPUTE, &body).await;
        for (id, role) in self.roles.iter().zip([OPERATOR, OPERATOR, CONTRIBUTOR]) {
            put(&self.world, id, ROLES, &self.grant(role)).await;
        }
    }

    async fn get(&self, id: &str, version: &str) -> (u16, Value) {
        let path = format!("{id}?api-version={version}");
        answered(self.world.served.arm("GET", &path)).await.unwrap()
    }

    /// The names of the identities on the scale set.
    async fn on_nodes(&self) -> Vec<String> {
        let (_, set) = self.get(&self.set, COMPUTE).await;
        let on = set["identity"]["userAssignedIdentities"].as_object().unwrap();
        on.keys().map(|id| id.rsplit('/').next().unwrap().to_owned()).collect()
    }

    /// How many of the roles are left.
    async fn roles_left(&self) -> usize {
        let mut there = 0;
        for id in &self.roles {
            there += usize::from(self.get(id, ROLES).await.0 == 200);
        }
        there
    }

    /// What must hold at any time: what AKS needs is there, and no role is gone before MIC is.
    async fn holds(&self, at: &str) {
        assert!(self.on_nodes().await.contains(&"agentpool".to_owned()), "{at}");
        assert_eq!(self.get(&self.pull, ROLES).await.0, 200, "{at}");
        let mic = "/apis/apps/v1/namespaces/default/deployments/mic";
        if self.world.admin.exists(mic).await {
            assert_eq!(self.roles_left().await, self.roles.len(), "{at}");
            assert_eq!(self.on_nodes().await.len(), 2, "{at}");
        }
    }

    async fn all_gone(&self, at: &str) {
        assert_eq!((self.on_nodes().await.len(), self.roles_left().await), (1, 0), "{at}");
        self.holds(at).await;
    }
}

async fn put(world: &World, path: &str, version: &str, body: &Value) -> Value {
    let path = format!("{path}?api-version={version}");
    // A scale set may still be at the write before.
    for _ in 0..200 {
        let (status, made) =
            answered(with_body(world.served.arm("PUT", &path), body)).await.unwrap();
        if status != 409 {
            assert!(status < 300, "{path}: {made}");
            return made;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{path} stays busy");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_azure_still_holds_is_listed_and_left() {
    let it = SetUp::told_by_an_object().await;
    let (what, ran) = it.world.uninstall(BOTH).await;
    assert_eq!(ran.unwrap().end, End::Complete, "{what:#?}");
    assert_eq!(what.not_seen, Vec::<String>::new());
    let exposed = what.exposed.unwrap();
    assert_eq!(exposed.identities, ["agentpool", "id-api"]);
    let flags: Vec<Option<Flag>> = what.clean_up.iter().map(|left| left.flag).collect();
    let role = Some(Flag::RemoveRoles);
    assert_eq!(flags, [Some(Flag::RemoveNodeIdentities), role, role, role], "{:#?}", what.clean_up);
    let first = &what.clean_up[0].command;
    assert!(first.starts_with("az vmss identity remove") && first.ends_with(&it.app), "{first}");
    for (left, id) in what.clean_up[1..].iter().zip([&it.roles[1], &it.roles[0], &it.roles[2]]) {
        assert_eq!(left.command, format!("az role assignment delete --ids {id}"));
    }
    // Nothing of it was touched.
    assert_eq!((it.on_nodes().await.len(), it.roles_left().await), (2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_up_goes_on_request_last_and_nothing_else() {
    let it = SetUp::told_by_an_object().await;
    let (mut done, objects) = (Vec::new(), manifests("default"));
    let mut sink = |event: Event<'_>| {
        if let Event::Done(step) = event {
            done.push(step.is_clean_up());
        }
    };
    let (what, ran) = it.world.uninstall_with(ALL, &mut sink).await;
    let ran = ran.unwrap();
    assert_eq!((&ran.end, &ran.failed), (&End::Complete, &Vec::new()), "{what:#?}");
    assert_eq!((ran.done, ran.written), (what.steps.len(), what.steps.len() - 1));
    assert!(done.is_sorted() && done.iter().filter(|clean_up| **clean_up).count() == 4);
    assert_eq!((what.risks.len(), what.clean_up.len()), (4, 0), "{what:#?}");
    assert_eq!(left(&it.world.admin, &objects).await, Vec::<String>::new());
    it.all_gone("at the end").await;
    let (_, set) = it.get(&it.set, COMPUTE).await;
    assert_eq!(set["identity"]["type"], "UserAssigned");

    let (what, ran) = it.world.uninstall(ALL).await;
    assert!(what.steps.is_empty() && what.clean_up.is_empty(), "{what:#?}");
    assert_eq!(ran.unwrap().end, End::Complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_flag_takes_its_own() {
    let it = SetUp::told_by_an_object().await;
    let wishes = Wishes { azure: AzureWishes { roles: true, node_identities: false }, ..BOTH };
    let (what, ran) = it.world.uninstall(wishes).await;
    assert_eq!(ran.unwrap().end, End::Complete, "{what:#?}");
    assert_eq!((it.on_nodes().await.len(), it.roles_left().await), (2, 0));
    // The AzureIdentity is gone, and with it the word that Pod Identity used the identity.
    let (what, _) = it.world.uninstall(ALL).await;
    assert!(what.steps.is_empty() && what.clean_up.is_empty(), "{what:#?}");
    assert_eq!(it.on_nodes().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_another_assignment_stays() {
    let it = SetUp::told_by_a_backup().await;
    let overview = it.world.overview().await;
    let connected = &it.world.connected;
    let sites = sites(&it.world.desired, &overview, connected, |_| true).await;
    let what = sites[0].decide(ALL);
    // Somebody deletes one and makes another one under its id; a second one is simply gone.
    for id in &it.roles[..2] {
        let path = format!("{id}?api-version={ROLES}");
        assert_eq!(answered(it.world.served.arm("DELETE", &path)).await.unwrap().0, 200);
    }
    put(&it.world, &it.roles[0], ROLES, &it.grant(ACR_PULL)).await;
    let ran = it.world.run(&sites[0], &what).await;
    assert_eq!(ran.end, End::Complete, "{ran:#?}");
    let [(at, failure)] = &ran.failed[..] else { panic!("{ran:#?}") };
    let Step::RemoveRole { assignment, .. } = &what.steps[*at] else { panic!("{what:#?}") };
    assert_eq!(assignment.id.as_str().to_lowercase(), it.roles[0].to_lowercase());
    assert_eq!(failure.kind, FailureKind::Conflict);
    assert!(failure.message.contains("so that it stays"), "{failure}");
    assert_eq!(it.get(&it.roles[0], ROLES).await.0, 200);
    assert_eq!(it.roles_left().await, 1);
    let (what, _) = it.world.uninstall(ALL).await;
    assert!(what.steps.is_empty(), "{what:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_azure_goes_while_mic_has_come_again() {
    let it = SetUp::told_by_a_backup().await;
    let objects = manifests("default");
    let (_, mic) = objects.iter().find(|(_, object)| object["kind"] == "Deployment").unwrap();
    let (admin, handle) = (&it.world.admin, tokio::runtime::Handle::current());
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let mut sink = |event: Event<'_>| {
        let last = |step: &Step| matches!(step, Step::Remove { part } if part.name.starts_with("azurepodidentityexceptions"));
        if matches!(event, Event::Done(step) if last(step)) {
            tokio::task::block_in_place(|| handle.block_on(admin.create(path, mic)));
        }
    };
    let (what, ran) = it.world.uninstall_with(ALL, &mut sink).await;
    let End::Failed(failure) = ran.unwrap().end else { panic!("{what:#?}") };
    assert!(failure.message.contains("Deployment default/mic is there"), "{failure}");
    assert_eq!((it.on_nodes().await.len(), it.roles_left().await), (2, 3));
}

/// The nodes of another cluster of the file act as the same identity, and Pod Identity is there:
/// whether somebody chose that cluster does not matter.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_a_cluster_shares_with_one_that_was_not_chosen_stays() {
    let it = SetUp::told_by_a_backup().await;
    let (desired, ready) = (&it.world.desired, it.world.served.running.ready());
    let chosen = desired.clusters.values().next().unwrap().clone();
    let mut other = DesiredCluster { name: "other".into(), ..chosen.clone() };
    other.id = ArmId::new(format!("{}-other", chosen.id));
    put(&it.world, other.id.as_str(), "2025-10-01", &it.world.record().await).await;
    let mut desired = desired.clone();
    desired.clusters.insert(other.name.clone(), other);
    let target = signed_in::target(ready, Some(desired.tenant));
    let connected = connect(&desired, target, Arc::new(|_: &str| {})).await.unwrap();

    let request = it.world.request();
    let overview = overview(Request { desired: &desired, ..request }, &connected).await;
    assert!(overview.clusters.iter().all(|read| read.survey.found), "{overview:#?}");
    let only = |name: &ClusterName| *name == chosen.name;
    let sites = sites(&desired, &overview, &connected, only).await;
    let [site] = &sites[..] else { panic!("{sites:#?}") };
    let what = site.decide(ALL);
    assert!(!what.steps.iter().any(|step| matches!(step, Step::RemoveRole { .. })), "{what:#?}");
    let left: Vec<&CleanUp> =
        what.clean_up.iter().filter(|left| left.command.starts_with("az role")).collect();
    assert_eq!(left.len(), it.roles.len(), "{what:#?}");
    assert!(left.iter().all(|left| left.note.contains("other")), "{left:#?}");
}

/// A lock, a missing right, a deny assignment: told, and the others go all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_azure_refuses_stays_is_told_and_does_not_hold_the_others() {
    let it = SetUp::told_by_a_backup().await;
    let refusals = [
        ("PATCH", "*virtualmachinescalesets*", 409, "ScopeLocked", "az lock list"),
        ("DELETE", "*roleassignments*", 403, "AuthorizationFailed", ""),
        (
            "PATCH",
            "*virtualmachinescalesets*",
            403,
            "DenyAssignmentAuthorizationFailed",
            "lockdown",
        ),
        ("DELETE", "*roleassignments*", 409, "ScopeLocked", "az lock list"),
        ("DELETE", "*roleassignments*", 412, "PreconditionFailed", ""),
        ("GET", "*roleassignments/*", 403, "AuthorizationFailed", ""),
    ];
    for (method, path, status, code, hint) in refusals {
        let at = format!("{method} {status} {code}");
        it.fill().await;
        let rule = json!({"service": "arm", "method": method, "path": path,
            "action": {"answer": {"status": status, "code": code, "message": "no"}}});
        it.world.fault(rule).await;
        let (what, ran) = it.world.uninstall(ALL).await;
        let ran = ran.unwrap_or_else(|| panic!("{at}: {what:#?}"));
        assert_eq!(it.world.mended().await, if method == "PATCH" { 1 } else { 3 }, "{at}");
        let [(_, failure)] = &ran.failed[..] else { panic!("{at}: {ran:#?}") };
        assert_eq!((failure.status, failure.code.as_deref()), (Some(status), Some(code)), "{at}");
        assert!(failure.hint.as_deref().unwrap_or_default().contains(hint), "{at}: {failure}");
        assert_eq!((&ran.end, ran.done), (&End::Complete, what.steps.len() - 1), "{at}");
        it.holds(&at).await;
        let (_, ran) = it.world.uninstall(ALL).await;
        assert_eq!(ran.map(|ran| ran.failed), Some(Vec::new()), "{at}");
        it.all_gone(&at).await;
    }
}

/// Each request to Azure fails in turn, before it is carried out or after; the next run goes on.
#[tokio::test(flavor = "multi_thread")]
async fn stopped_at_any_request_to_azure_it_goes_on_from_there() {
    let broken = json!({"answer": {"status": 400, "code": "Broken", "message": "broken"}});
    let (lost, reset) = (json!("reply_lost"), json!("reset"));
    let (all, lost, reset) = tokio::join!(
        futures::future::join_all((1..=3).map(|first| stopped_at_each("*", &broken, first, 3))),
        stopped_at_each("DELETE", &lost, 1, 1),
        stopped_at_each("PATCH", &reset, 1, 1),
    );
    assert!(all.iter().sum::<usize>() > 15, "{all:?}");
    assert_eq!((lost, reset), (3, 1));
}

async fn stopped_at_each(method: &str, action: &Value, first: u64, apart: usize) -> usize {
    let it = SetUp::told_by_a_backup().await;
    let objects = manifests("default");
    let mut gone = false;
    for (met, nth) in (first..).step_by(apart).enumerate() {
        if gone {
            make(&it.world.admin, &objects).await;
            it.fill().await;
        }
        let rule = json!({"service": "arm", "method": method, "nth": nth, "action": action});
        it.world.fault(rule).await;
        let at = format!("{method} {nth} {action}");
        let (what, ran) = it.world.uninstall(ALL).await;
        let over = it.world.mended().await < nth;
        it.holds(&at).await;
        // What failed is told: as an obstacle, as unseen, or in the end of the run.
        let complete = |what: &Uninstall, ran: &Option<Ran>| {
            let clean = |ran: &Ran| ran.end == End::Complete && ran.failed.is_empty();
            ran.as_ref().is_some_and(clean) && what.incomplete.is_none()
        };
        if complete(&what, &ran) {
            it.all_gone(&at).await;
        }
        if over {
            assert!(complete(&what, &ran), "{at}: {what:#?} {ran:#?}");
            return met;
        }
        gone = ran.is_some();
        if gone {
            let (what, ran) = it.world.uninstall(ALL).await;
            assert!(complete(&what, &ran), "{at}: {what:#?} {ran:#?}");
            it.all_gone(&at).await;
        }
    }
    0
}

/// What the client relies on, and what it must bear.
#[tokio::test(flavor = "multi_thread")]
async fn a_scale_set_in_the_sandbox_answers_as_compute_does() {
    let it = SetUp::new().await;
    let path = format!("{}?api-version={COMPUTE}", it.set);
    let patch = async |body: &Value, if_match: Option<&str>| {
        let mut asked = with_body(it.world.served.arm("PATCH", &path), body);
        if let Some(tag) = if_match {
            asked = asked.header("if-match", tag);
        }
        answered(asked).await.unwrap()
    };
    let on = |value: Value| json!({"identity": {"type": "UserAssigned", "userAssignedIdentities": value}});
    let code = |(status, body): (u16, Value)| {
        (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    while it.get(&it.set, COMPUTE).await.1["properties"]["provisioningState"] != "Succeeded" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let without = on(json!({it.app.clone(): null}));
    let stale = code(patch(&without, Some("\"stale\"")).await);
    assert_eq!(stale, (412, "PreconditionFailed".to_owned()));
    let none = on(json!({it.app.clone(): null, it.kubelet.clone(): null}));
    assert_eq!(code(patch(&none, None).await), (400, "InvalidIdentityValues".to_owned()));
    let unknown = on(json!({format!("{}x", it.app): {}}));
    assert_eq!(code(patch(&unknown, None).await), (400, "FailedIdentityOperation".to_owned()));

    let (_, read) = it.get(&it.set, COMPUTE).await;
    let (status, updated) = patch(&without, read["etag"].as_str()).await;
    assert_eq!((status, &updated["properties"]["provisioningState"]), (200, &"Updating".into()));
    // The others stay, and the next one has to wait.
    assert_eq!(it.on_nodes().await, ["agentpool"]);
    assert_eq!(code(patch(&without, None).await), (409, "Conflict".to_owned()));
    assert_eq!(read["properties"]["upgradePolicy"]["mode"], "Manual");
}
