//! `Microsoft.ContainerService/managedClusters` and its operations.
//!
//! The container service writes flat errors and indented JSON, answers a write at once with
//! `provisioningState: Updating` and an `Azure-AsyncOperation` URL, and refuses a second write
//! meanwhile (recorded, and "AKS pending operation" in Microsoft's documentation).

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    call::{Call, Refusal, Reply, items, page, stamp},
    created, groups, identities, kubeconfig,
};
use crate::sandbox::{
    clusters::{self, NewCluster},
    context::ClusterRef,
    store::Write,
};

const KIND: &str = "Microsoft.ContainerService/managedClusters";
const PAGE: usize = 200;

/// `/subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.ContainerService/managedClusters/{c}`.
pub(super) fn one(call: &Call) -> Result<Reply, Refusal> {
    let key = key(call);
    let now = call.now_ms();
    let doc = call.ctx.store.get(&key).filter(|doc| !clusters::gone(doc, now));
    let found = || Refusal::resource_not_found(KIND, &call.segments[7], &call.segments[3]);
    match call.method {
        Method::GET => {
            let doc = doc.ok_or_else(found)?;
            Ok(Reply::pretty(StatusCode::OK, render(&doc, now)))
        }
        Method::PUT => put(call, &key),
        Method::PATCH => {
            let doc = doc.ok_or_else(found)?;
            if_match(call, Some(&doc))?;
            idle(&doc, now)?;
            let mut new = (*doc).clone();
            new["tags"] = identities::tags(&call.object()?)?;
            new["etag"] = call.ctx.ids.guid().to_string().into();
            let shown = render(&new, now);
            commit(call, vec![Write::put(key, new)])?;
            Ok(Reply::pretty(StatusCode::OK, shown))
        }
        Method::DELETE => {
            let Some(doc) = doc else { return Ok(Reply::empty(StatusCode::NO_CONTENT)) };
            if_match(call, Some(&doc))?;
            idle(&doc, now)?;
            let mut new = (*doc).clone();
            let operation = operation(call, "delete", now, &doc);
            let url = operation_url(call, &operation, &doc, "operations");
            let results = operation_url(call, &operation, &doc, "operationresults");
            let index = index(&operation, &doc);
            new["operation"] = operation;
            commit(call, vec![Write::put(key, new), index])?;
            Ok(Reply::empty(StatusCode::ACCEPTED)
                .with("azure-asyncoperation", url)
                .with("location", results))
        }
        _ => Err(groups::method_not_allowed(call)),
    }
}

/// The wire form of the cluster that a path names or begins with.
pub(super) fn shown(call: &Call) -> Result<Value, Refusal> {
    Ok(render(&*found(call)?, call.now_ms()))
}

/// The record of that cluster.
fn found(call: &Call) -> Result<Arc<Value>, Refusal> {
    let now = call.now_ms();
    let doc = call.ctx.store.get(&key(call)).filter(|doc| !clusters::gone(doc, now));
    doc.ok_or_else(|| Refusal::resource_not_found(KIND, &call.segments[7], &call.segments[3]))
}

/// The lists of a resource group or a whole subscription.
pub(super) fn list(call: &Call) -> Reply {
    let prefix = format!("arm/subscriptions/{}/resourcegroups/", call.lower[1]);
    let group = (call.lower[2] == "resourcegroups").then(|| call.lower[3].as_str());
    let now = call.now_ms();
    let world = call.ctx.store.lock();
    let items = items(call, &world, &prefix, |key| {
        let parts: Vec<&str> = key.split('/').collect();
        parts.len() == 9
            && parts[7] == "managedclusters"
            && group.is_none_or(|group| parts[4] == group)
    });
    let items = items.filter(|(_, doc)| !clusters::gone(doc, now));
    page(call, items, PAGE, |_, doc| render(&doc, now))
}

/// `POST …/listClusterUserCredential` and `…/listClusterAdminCredential`.
pub(super) fn credentials(call: &Call, admin: bool) -> Result<Reply, Refusal> {
    if call.method != Method::POST {
        return Err(groups::method_not_allowed(call));
    }
    let doc = found(call)?;
    let local = doc["properties"]["disableLocalAccounts"] != true;
    let entra = doc["properties"]["aadProfile"]["managed"] == true;
    if !local && (admin || !entra) {
        return Err(Refusal::flat(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "Getting static credential isn't allowed because this cluster is set to disable \
             local accounts.",
            "",
        ));
    }
    let text = kubeconfig::for_arm(&call.ctx, &doc, &call.segments[3], admin).map_err(|error| {
        Refusal::flat(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalOperationError",
            format!("The sandbox could not make a kubeconfig: {error}"),
            "",
        )
    })?;
    let name = if admin { "clusterAdmin" } else { "clusterUser" };
    Ok(Reply::pretty(
        StatusCode::OK,
        json!({ "kubeconfigs": [{ "name": name, "value": BASE64.encode(text) }] }),
    ))
}

/// `GET /subscriptions/{s}/providers/Microsoft.ContainerService/locations/{l}/operations/{id}`.
pub(super) fn operation_status(call: &Call, results: bool) -> Result<Reply, Refusal> {
    let id = &call.lower[7];
    let now = call.now_ms();
    let doc = call.ctx.store.get(&format!("operations/{id}"));
    let doc = doc.filter(|doc| doc["location"] == call.lower[5].as_str()).ok_or_else(|| {
        Refusal::flat(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("The operation '{id}' was not found."),
            "",
        )
    })?;
    let ended = doc["end_ms"].as_i64().unwrap_or(0) <= now;
    if results {
        let status = if ended { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED };
        return Ok(Reply::empty(status));
    }
    let mut body = json!({
        "name": shown_id(id), "status": if ended { "Succeeded" } else { "InProgress" },
        "startTime": stamp(doc["start_ms"].as_i64().unwrap_or(0)),
    });
    if ended {
        body["endTime"] = stamp(doc["end_ms"].as_i64().unwrap_or(0)).into();
    }
    Ok(Reply::pretty(StatusCode::OK, body))
}

/// The id of an operation as its status shows it: the service writes the first three groups of the
/// GUID in the other byte order (recorded).
fn shown_id(id: &str) -> String {
    Uuid::parse_str(id)
        .map_or_else(|_| id.to_owned(), |id| Uuid::from_bytes(id.to_bytes_le()).to_string())
}

fn key(call: &Call) -> String {
    format!("arm/{}", call.lower[..8].join("/"))
}

/// The wire form of a record at `now`.
fn render(doc: &Value, now: i64) -> Value {
    let mut properties = doc["properties"].clone();
    let state = clusters::under_way(doc, now).map_or("Succeeded", |operation| {
        match operation["kind"].as_str() {
            Some("create") => "Creating",
            Some("delete") => "Deleting",
            _ => "Updating",
        }
    });
    properties["provisioningState"] = state.into();
    for pool in pool_list(&mut properties) {
        pool["provisioningState"] = state.into();
    }
    let mut shown = json!({
        "id": doc["id"], "name": doc["name"],
        // The provider's own spelling, with a capital M (recorded).
        "type": "Microsoft.ContainerService/ManagedClusters",
        "location": doc["location"], "tags": doc["tags"], "properties": properties,
        "identity": doc["identity"], "sku": doc["sku"], "eTag": doc["etag"],
    });
    for name in ["kind", "extendedLocation", "zones", "plan"] {
        if let Some(value) = doc.get(name) {
            shown[name] = value.clone();
        }
    }
    shown
}

fn if_match(call: &Call, doc: Option<&Value>) -> Result<(), Refusal> {
    let tag = doc.and_then(|doc| doc["etag"].as_str());
    let named = |value: &str| tag.is_some_and(|tag| value.trim_matches('"') == tag);
    let fits = match (call.header("if-match"), call.header("if-none-match")) {
        (Some("*"), _) => tag.is_some(),
        (Some(value), _) => named(value),
        (None, Some("*")) => tag.is_none(),
        (None, Some(value)) => !named(value),
        (None, None) => true,
    };
    if fits {
        return Ok(());
    }
    Err(Refusal::flat(
        StatusCode::PRECONDITION_FAILED,
        "EtagMismatch",
        format!(
            "The etag provided in the request '{}' does not match the etag of the resource '{}'.",
            call.header("if-match").or(call.header("if-none-match")).unwrap_or_default(),
            tag.unwrap_or_default()
        ),
        "",
    ))
}

fn idle(doc: &Value, now: i64) -> Result<(), Refusal> {
    let Some(operation) = clusters::under_way(doc, now) else { return Ok(()) };
    let id = operation["id"].as_str().unwrap_or_default();
    let verb = match operation["kind"].as_str() {
        Some("create") => "create",
        Some("delete") => "delete",
        _ => "update",
    };
    let started = stamp(operation["start_ms"].as_i64().unwrap_or(0));
    Err(Refusal::flat(
        StatusCode::CONFLICT,
        "OperationNotAllowed",
        format!(
            "Operation is not allowed because there's an in progress {verb} managed cluster \
             operation (operation ID: {id}) on the managed cluster started on UTC {}Z. Please \
             wait for it to finish before starting a new operation. You can also use 'az aks \
             operation-abort --name {} --resource-group {}' to abort the ongoing operation.",
            &started[..19],
            doc["name"].as_str().unwrap_or_default(),
            doc["id"].as_str().and_then(|id| id.split('/').nth(4)).unwrap_or_default(),
        ),
        "",
    ))
}

fn put(call: &Call, key: &str) -> Result<Reply, Refusal> {
    let body = call.object()?;
    let now = call.now_ms();
    let ctx = &call.ctx;
    let location = body["location"].as_str().unwrap_or_default().to_lowercase().replace(' ', "");
    if location.is_empty() {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "LocationRequired",
            "The location property is required for this definition.",
        ));
    }
    let tags = identities::tags(&body)?;
    let mut world = ctx.store.lock();
    let old = world.get(key).filter(|doc| !clusters::gone(doc, now));
    if_match(call, old.as_deref())?;
    let (status, kind, mut doc) = if let Some(old) = &old {
        idle(old, now)?;
        (StatusCode::OK, "update", replaced(old, &body, &location, false)?)
    } else {
        let id = format!("/{}", call.segments[..8].join("/"));
        let cluster = ClusterRef { name: call.segments[7].clone(), id };
        let new = NewCluster {
            cluster: &cluster,
            location: &location,
            oidc_issuer: body["properties"]["oidcIssuerProfile"]["enabled"] == true,
            workload_identity: false,
            entra: false,
        };
        let fresh = clusters::record(ctx, &new);
        (StatusCode::CREATED, "create", replaced(&fresh, &body, &location, true)?)
    };
    doc["tags"] = tags;
    doc["etag"] = ctx.ids.guid().to_string().into();
    let operation = operation(call, kind, now, old.as_deref().unwrap_or(&Value::Null));
    let url = operation_url(call, &operation, &doc, "operations");
    let entry = index(&operation, &doc);
    doc["operation"] = operation;
    let shown = render(&doc, now);
    let issuer = clusters::issuer_entry(&doc);
    let text = |name: &str| doc[name].as_str().unwrap_or_default().to_owned();
    let cluster = ClusterRef { name: text("cluster"), id: text("id") };
    world
        .commit(vec![Write::put(key, doc), entry, issuer])
        .map_err(|error| Refusal::storage(&error))?;
    drop(world);
    let served = ctx.endpoints.get().is_none_or(|at| at.clusters.contains_key(&cluster.name));
    if old.is_none() && !served {
        ctx.late.arrive(cluster).map_err(|error| Refusal::storage(&error))?;
    }
    Ok(Reply::pretty(status, shown).with("azure-asyncoperation", url))
}

/// What a PUT leaves: the body as it came, with the members that only the provider writes taken
/// from the old record. A setting that the body does not name is gone, as on a full replace.
fn replaced(old: &Value, body: &Value, location: &str, fresh: bool) -> Result<Value, Refusal> {
    let bad = |code: &'static str, message: String, target: &str| {
        Refusal::flat(StatusCode::BAD_REQUEST, code, message, target)
    };
    if old["location"] != location {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            "InvalidResourceLocation",
            format!(
                "The resource '{}' already exists in location '{}'. A resource with the same name \
                 cannot be created in location '{location}'. Please select a new resource name.",
                old["name"].as_str().unwrap_or_default(),
                old["location"].as_str().unwrap_or_default()
            ),
        ));
    }
    let had = &old["properties"];
    let mut properties =
        body.get("properties").filter(|p| p.is_object()).cloned().ok_or_else(|| {
            bad(
                "InvalidParameter",
                "Required parameter properties is missing (null).".into(),
                "properties",
            )
        })?;
    if let Some(name) = misshapen(&properties) {
        // As the container service words what Go cannot decode; the code is a choice.
        let message =
            format!("Unmarshal encountered error: json: cannot unmarshal properties.{name}.");
        return Err(bad("UnmarshalError", message, &format!("properties.{name}")));
    }
    for name in ["dnsPrefix", "nodeResourceGroup"] {
        let changed = properties.get(name).is_some_and(|new| !new.is_null() && *new != had[name]);
        if changed && !fresh {
            return Err(bad(
                "PropertyChangeNotAllowed",
                format!("Changing property 'properties.{name}' is not allowed."),
                &format!("properties.{name}"),
            ));
        }
        if properties.get(name).is_none_or(Value::is_null) {
            properties[name] = had[name].clone();
        }
    }
    for name in [
        "provisioningState",
        "powerState",
        "maxAgentPools",
        "fqdn",
        "privateFQDN",
        "azurePortalFQDN",
        "resourceUID",
        "currentKubernetesVersion",
        "status",
    ] {
        restore(&mut properties, had, name);
    }
    // Kept when absent: Azure fills these in for the client.
    for name in ["identityProfile", "servicePrincipalProfile", "kubernetesVersion"] {
        let empty = matches!(properties.get(name), None | Some(Value::Null));
        if empty || properties[name] == "" {
            restore(&mut properties, had, name);
        }
    }
    if fresh {
        created::fill(&mut properties, had);
    } else {
        storage(&mut properties, had);
        pools(&mut properties, had);
    }
    issuer(&mut properties, old)?;
    let mut doc = old.clone();
    doc["properties"] = properties;
    if let Some(sku) = body.get("sku").filter(|sku| sku.is_object()) {
        doc["sku"] = sku.clone();
    } else if fresh {
        doc["sku"] = json!({ "name": "Base", "tier": "Free" });
    }
    for name in ["kind", "extendedLocation", "zones", "plan"] {
        match body.get(name) {
            Some(value) => doc[name] = value.clone(),
            None if name != "kind" => {
                doc.as_object_mut().map(|doc| doc.remove(name));
            }
            None => {}
        }
    }
    if let Some(identity) = body.get("identity").filter(|identity| identity.is_object()) {
        let mut identity = identity.clone();
        if identity["type"] == "SystemAssigned" {
            restore(&mut identity, &old["identity"], "principalId");
        }
        restore(&mut identity, &old["identity"], "tenantId");
        doc["identity"] = identity;
    }
    Ok(doc)
}

/// The first member that is filled in below and is no object, or no list of objects.
fn misshapen(properties: &Value) -> Option<&'static str> {
    let whole = [
        "storageProfile",
        "networkProfile",
        "securityProfile",
        "oidcIssuerProfile",
        "workloadAutoScalerProfile",
        "identityProfile",
        "servicePrincipalProfile",
    ];
    let object = |value: &Value| value.is_object() || value.is_null();
    let bad = |name: &&str| !properties.get(*name).is_none_or(object);
    whole.into_iter().find(bad).or_else(|| {
        let pools = properties.get("agentPoolProfiles").unwrap_or(&Value::Null);
        let list = pools.as_array().is_some_and(|pools| pools.iter().all(Value::is_object));
        (!list && !pools.is_null()).then_some("agentPoolProfiles")
    })
}

/// The agent pools, without making the member if it is absent.
fn pool_list(properties: &mut Value) -> impl Iterator<Item = &mut Value> {
    properties.get_mut("agentPoolProfiles").and_then(Value::as_array_mut).into_iter().flatten()
}

fn restore(new: &mut Value, old: &Value, name: &str) {
    match old.get(name) {
        Some(value) => new[name] = value.clone(),
        None => {
            new.as_object_mut().map(|new| new.remove(name));
        }
    }
}

/// Storage drivers that the body does not name stay as they are: `az aks update` always sends an
/// empty `storageProfile`, which does not switch them off.
fn storage(properties: &mut Value, had: &Value) {
    let Some(profile) = properties.get_mut("storageProfile").and_then(Value::as_object_mut) else {
        return;
    };
    for (name, driver) in had["storageProfile"].as_object().into_iter().flatten() {
        profile.entry(name.as_str()).or_insert_with(|| driver.clone());
    }
}

/// The members of agent pools that only the provider writes, matched by pool name.
fn pools(properties: &mut Value, had: &Value) {
    for pool in pool_list(properties) {
        let old = had["agentPoolProfiles"]
            .as_array()
            .and_then(|pools| pools.iter().find(|old| old["name"] == pool["name"]))
            .cloned()
            .unwrap_or(Value::Null);
        for name in [
            "provisioningState",
            "powerState",
            "currentOrchestratorVersion",
            "nodeImageVersion",
            "eTag",
        ] {
            restore(pool, &old, name);
        }
    }
}

/// The rules of the issuer and of the setting that needs it.
fn issuer(properties: &mut Value, old: &Value) -> Result<(), Refusal> {
    let had = &old["properties"];
    let on = had["oidcIssuerProfile"]["enabled"] == true;
    let wanted =
        properties.get("oidcIssuerProfile").and_then(|profile| profile["enabled"].as_bool());
    if on && wanted == Some(false) {
        return Err(Refusal::flat(
            StatusCode::BAD_REQUEST,
            "OIDCIssuerFeatureCannotBeDisabled",
            "OIDC issuer feature cannot be disabled.",
            "oidcIssuerProfile",
        ));
    }
    let enabled = on || wanted == Some(true);
    properties["oidcIssuerProfile"] = if enabled {
        json!({ "enabled": true, "issuerURL": old["issuer"] })
    } else {
        json!({ "enabled": false })
    };
    if !properties["securityProfile"].is_object() {
        properties["securityProfile"] = json!({});
    }
    if properties["securityProfile"]["workloadIdentity"]["enabled"] == true && !enabled {
        // The rule is documented, its code and text are a choice.
        return Err(Refusal::flat(
            StatusCode::BAD_REQUEST,
            "InvalidParameter",
            "Enabling workload identity requires enabling OIDC issuer.",
            "securityProfile.workloadIdentity",
        ));
    }
    Ok(())
}

fn operation(call: &Call, kind: &str, now: i64, old: &Value) -> Value {
    let takes = i64::try_from(call.ctx.settings.delays.cluster_update.as_millis());
    let webhook = old["properties"]["securityProfile"]["workloadIdentity"]["enabled"] == true;
    json!({
        "id": call.ctx.ids.guid(), "kind": kind, "start_ms": now,
        "end_ms": now.saturating_add(takes.unwrap_or(0)), "had_webhook": webhook,
    })
}

/// The entry by which the status URL finds the operation, also after the cluster is gone.
fn index(operation: &Value, doc: &Value) -> Write {
    let id = operation["id"].as_str().unwrap_or_default();
    Write::put(
        format!("operations/{id}"),
        json!({
            "location": doc["location"], "start_ms": operation["start_ms"],
            "end_ms": operation["end_ms"],
        }),
    )
}

/// The status URL: absolute, and with the long signed query that ARM appends since 2025, which a
/// client has to follow as it is.
fn operation_url(call: &Call, operation: &Value, doc: &Value, what: &str) -> String {
    let id = operation["id"].as_str().unwrap_or_default();
    let long = |salt: &str, blocks: usize| {
        (0..blocks).fold(String::new(), |mut text, block| {
            use base64::engine::general_purpose::URL_SAFE_NO_PAD;
            text.push_str(&URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{salt}{id}{block}"))));
            text
        })
    };
    // .NET ticks: 100 ns since the year 1.
    let ticks = operation["start_ms"].as_i64().unwrap_or(0) * 10_000 + 621_355_968_000_000_000;
    format!(
        "{}/subscriptions/{}/providers/Microsoft.ContainerService/locations/{}/{what}/{id}\
         ?api-version=2025-03-01&t={ticks}&c={}&s={}&h={}",
        call.base(),
        call.segments[1],
        doc["location"].as_str().unwrap_or_default(),
        long("c", 90),
        long("s", 8),
        long("h", 1),
    )
}

fn commit(call: &Call, writes: Vec<Write>) -> Result<(), Refusal> {
    call.ctx.store.commit(writes).map_err(|error| Refusal::storage(&error))?;
    Ok(())
}
