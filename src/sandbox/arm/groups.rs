//! Tenants, subscriptions, providers, resource groups and resources that only stand there.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    assignments,
    call::{Call, Refusal, Reply, items, page},
    identities, scale_sets,
};
use crate::sandbox::{
    clusters, roles,
    store::{Guard, Write},
};

const PAGE: usize = 1000;
/// Types that the provider lists name, with the versions that clients choose from.
const TYPES: &[(&str, &str, &[&str])] = &[
    ("Microsoft.ManagedIdentity", "userAssignedIdentities", &["2024-11-30", "2023-01-31"]),
    (
        "Microsoft.ManagedIdentity",
        "userAssignedIdentities/federatedIdentityCredentials",
        &["2024-11-30", "2023-01-31"],
    ),
    ("Microsoft.Authorization", "roleAssignments", &["2022-04-01", "2015-07-01"]),
    ("Microsoft.Authorization", "roleDefinitions", &["2022-04-01", "2015-07-01"]),
    ("Microsoft.ContainerService", "managedClusters", &["2026-08-01", "2025-10-01", "2024-02-01"]),
    ("Microsoft.KeyVault", "vaults", &["2023-07-01", "2022-07-01"]),
    ("Microsoft.Storage", "storageAccounts", &["2024-01-01", "2023-05-01"]),
    ("Microsoft.ServiceBus", "namespaces", &["2024-01-01", "2021-11-01"]),
    ("Microsoft.EventHub", "namespaces", &["2024-01-01", "2021-11-01"]),
    ("Microsoft.ContainerRegistry", "registries", &["2023-07-01"]),
    ("Microsoft.Compute", "virtualMachineScaleSets", &["2024-11-01", "2024-07-01"]),
    ("Microsoft.AppConfiguration", "configurationStores", &["2024-05-01", "2023-03-01"]),
    ("Microsoft.DocumentDB", "databaseAccounts", &["2024-11-15"]),
    ("Microsoft.CognitiveServices", "accounts", &["2024-10-01"]),
    ("Microsoft.Resources", "resourceGroups", &["2024-11-01", "2022-09-01", "2021-04-01"]),
];
const LOCATIONS: &[(&str, &str)] = &[
    ("australiaeast", "Australia East"),
    ("centralus", "Central US"),
    ("eastus", "East US"),
    ("eastus2", "East US 2"),
    ("germanywestcentral", "Germany West Central"),
    ("northeurope", "North Europe"),
    ("swedencentral", "Sweden Central"),
    ("uksouth", "UK South"),
    ("westeurope", "West Europe"),
    ("westus2", "West US 2"),
    ("westus3", "West US 3"),
];

/// What ARM answers to a verb that a resource does not have.
pub(super) fn method_not_allowed(call: &Call) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "HttpMethodNotSupported",
        format!(
            "The HTTP method '{}' is not supported at scope '/{}'.",
            call.method,
            call.segments.join("/")
        ),
    )
}

/// `GET /tenants`.
pub(super) fn tenants(call: &Call) -> Reply {
    let id = call.ctx.settings.tenant;
    Reply::json(
        StatusCode::OK,
        json!({ "value": [{
            "id": format!("/tenants/{id}"), "tenantId": id, "countryCode": "US",
            "displayName": "Sandbox", "domains": ["sandbox.onmicrosoft.com"],
            "tenantCategory": "Home", "defaultDomain": "sandbox.onmicrosoft.com",
            "tenantType": "AAD",
        }]}),
    )
}

/// `GET /subscriptions`: those in which the caller has a role.
pub(super) fn subscriptions(call: &Call) -> Reply {
    let items = call
        .ctx
        .store
        .select("arm/subscriptions/", |key, _| key.matches('/').count() == 2)
        .into_iter()
        .filter(|(key, _)| {
            let scope = key.trim_start_matches("arm/");
            call.caller.operator || roles::holds_any(&call.ctx, &call.caller.oid, scope)
        });
    page(call, items, PAGE, |_, doc| render_subscription(call, &doc))
}

/// `GET /subscriptions/{s}`; the dispatcher has found it.
pub(super) fn subscription(call: &Call) -> Result<Reply, Refusal> {
    let doc = call.ctx.store.get(&format!("arm/subscriptions/{}", call.lower[1]));
    let doc = doc.ok_or_else(|| subscription_not_found(&call.segments[1]))?;
    Ok(Reply::json(StatusCode::OK, render_subscription(call, &doc)))
}

fn render_subscription(call: &Call, doc: &Value) -> Value {
    let id = doc["id"].as_str().unwrap_or_default();
    json!({
        "id": format!("/subscriptions/{id}"), "authorizationSource": "RoleBased",
        "managedByTenants": [], "subscriptionId": id, "tenantId": call.ctx.settings.tenant,
        "displayName": doc["name"], "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01", "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
    })
}

pub(super) fn subscription_not_found(id: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "SubscriptionNotFound",
        format!("The subscription '{id}' could not be found."),
    )
}

/// `GET /subscriptions/{s}/locations`.
pub(super) fn locations(call: &Call) -> Reply {
    let subscription = &call.segments[1];
    let value: Vec<Value> = LOCATIONS
        .iter()
        .map(|(name, shown)| {
            json!({
                "id": format!("/subscriptions/{subscription}/locations/{name}"),
                "name": name, "type": "Region", "displayName": shown,
                "regionalDisplayName": shown, "metadata": { "regionType": "Physical" },
            })
        })
        .collect();
    Reply::json(StatusCode::OK, json!({ "value": value }))
}

/// `/subscriptions/{s}/providers[/{namespace}[/register]]`: everything is registered.
pub(super) fn providers(call: &Call, namespace: Option<&str>) -> Result<Reply, Refusal> {
    let names: std::collections::BTreeSet<&str> = TYPES.iter().map(|(name, ..)| *name).collect();
    let render = |name: &str| {
        let shown: Vec<&str> = LOCATIONS.iter().map(|(_, shown)| *shown).collect();
        let types: Vec<Value> = TYPES
            .iter()
            .filter(|(of, ..)| *of == name)
            .map(|(_, kind, versions)| {
                json!({ "resourceType": kind, "locations": shown, "apiVersions": versions })
            })
            .collect();
        json!({
            "id": format!("/subscriptions/{}/providers/{name}", call.segments[1]),
            "namespace": name, "registrationState": "Registered",
            "registrationPolicy": "RegistrationRequired", "resourceTypes": types,
        })
    };
    let Some(wanted) = namespace else {
        let value: Vec<Value> = names.into_iter().map(render).collect();
        return Ok(Reply::json(StatusCode::OK, json!({ "value": value })));
    };
    names
        .into_iter()
        .find(|name| name.eq_ignore_ascii_case(wanted))
        .map(|name| Reply::json(StatusCode::OK, render(name)))
        .ok_or_else(|| {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "InvalidResourceNamespace",
                format!("The resource namespace '{wanted}' is invalid."),
            )
        })
}

/// `/subscriptions/{s}/resourceGroups/{g}`.
pub(super) fn group(call: &Call) -> Result<Reply, Refusal> {
    let (subscription, name) = (&call.segments[1], &call.segments[3]);
    let key = group_key(&call.lower);
    let doc = call.ctx.store.get(&key);
    match call.method {
        Method::HEAD => Ok(Reply::empty(if doc.is_some() {
            StatusCode::NO_CONTENT
        } else {
            StatusCode::NOT_FOUND
        })),
        Method::GET => {
            let doc = doc.ok_or_else(|| Refusal::group_not_found(name))?;
            Ok(Reply::json(StatusCode::OK, render_group(&doc)))
        }
        Method::PUT => {
            let body = call.object()?;
            let location = body.get("location").and_then(Value::as_str).unwrap_or_default();
            let location = location.to_lowercase().replace(' ', "");
            if location.is_empty() {
                return Err(Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "LocationRequired",
                    "The location property is required for this definition.",
                ));
            }
            valid_group(name)?;
            let tags = identities::tags(&body)?;
            let mut new = group_doc(subscription, name, &location);
            new["tags"] = tags;
            let status = match &doc {
                Some(old) if old["location"] != location.as_str() => {
                    return Err(Refusal::new(
                        StatusCode::CONFLICT,
                        "InvalidResourceGroupLocation",
                        format!(
                            "Invalid resource group location '{location}'. The Resource group \
                             already exists in location '{}'.",
                            old["location"].as_str().unwrap_or_default()
                        ),
                    ));
                }
                Some(old) => {
                    new["id"] = old["id"].clone();
                    new["name"] = old["name"].clone();
                    StatusCode::OK
                }
                None => StatusCode::CREATED,
            };
            let shown = render_group(&new);
            commit(call, vec![Write::put(key, new)])?;
            Ok(Reply::json(status, shown))
        }
        Method::PATCH => {
            let doc = doc.ok_or_else(|| Refusal::group_not_found(name))?;
            let mut new = (*doc).clone();
            new["tags"] = identities::tags(&call.object()?)?;
            let shown = render_group(&new);
            commit(call, vec![Write::put(key, new)])?;
            Ok(Reply::json(StatusCode::OK, shown))
        }
        Method::DELETE => delete_group(call, &key),
        _ => Err(method_not_allowed(call)),
    }
}

/// Removes the group, what is in it and the role assignments at and below it. It takes no time
/// here, but the client still has to ask the `location` it is given, as in Azure.
fn delete_group(call: &Call, key: &str) -> Result<Reply, Refusal> {
    let now = call.now_ms();
    let mut world = call.ctx.store.lock();
    let group = world.get(key).ok_or_else(|| Refusal::group_not_found(&call.segments[3]))?;
    let mut writes = vec![Write::remove(key)];
    for (child, doc) in world.list(&format!("{key}/")) {
        if doc.get("principalId").is_some() && doc.get("clientId").is_some() {
            writes.extend(identities::removal(&child, &doc));
        } else {
            writes.push(Write::remove(child));
        }
    }
    for (name, doc) in world.list(roles::ASSIGNMENTS) {
        let scope = doc["scope"].as_str().unwrap_or_default();
        if roles::within(scope, group["id"].as_str().unwrap_or_default()) {
            writes.extend(assignments::end(&name, &doc, now));
        }
    }
    world.commit(writes).map_err(|error| Refusal::storage(&error))?;
    drop(world);
    let job = call.ctx.ids.guid().simple();
    Ok(Reply::empty(StatusCode::ACCEPTED).with(
        "location",
        format!(
            "{}/subscriptions/{}/operationresults/{job}?api-version={}",
            call.base(),
            call.segments[1],
            call.api_version()
        ),
    ))
}

/// `GET /subscriptions/{s}/resourcegroups`.
pub(super) fn groups(call: &Call) -> Reply {
    let prefix = format!("arm/subscriptions/{}/resourcegroups/", call.lower[1]);
    let world = call.ctx.store.lock();
    let items = items(call, &world, &prefix, |key| key.matches('/').count() == 4);
    page(call, items, PAGE, |_, doc| render_group(&doc))
}

fn render_group(doc: &Value) -> Value {
    json!({
        "id": doc["id"], "name": doc["name"], "type": "Microsoft.Resources/resourceGroups",
        "location": doc["location"], "tags": doc["tags"],
        "properties": { "provisioningState": "Succeeded" },
    })
}

/// The stored form of a resource group.
pub(in crate::sandbox) fn group_doc(subscription: &str, name: &str, location: &str) -> Value {
    json!({
        "id": format!("/subscriptions/{subscription}/resourceGroups/{name}"),
        "name": name, "location": location, "tags": {},
    })
}

fn group_key(lower: &[String]) -> String {
    format!("arm/{}", lower[..4].join("/"))
}

/// 1 to 90 letters, digits, `.`, `-`, `_` and parentheses, not ending in a full stop (Microsoft
/// documentation on resource name rules).
fn valid_group(name: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_alphanumeric() || "._-()".contains(c);
    if name.chars().count() <= 90 && name.chars().all(allowed) && !name.ends_with('.') {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        "InvalidParameter",
        format!(
            "The provided resource group name '{name}' has these invalid characters or is too long."
        ),
    ))
}

/// Any other resource: the document that stands at its id.
pub(super) fn resource(call: &Call) -> Result<Reply, Refusal> {
    let key = format!("arm/{}", call.lower.join("/"));
    let kind = kind(&call.segments[4..]);
    let name = call.segments.last().map(String::as_str).unwrap_or_default();
    match call.method {
        Method::GET => {
            let doc = call.ctx.store.get(&key);
            let doc =
                doc.ok_or_else(|| Refusal::resource_not_found(&kind, name, &call.segments[3]))?;
            Ok(Reply::json(StatusCode::OK, render_resource(call, &doc)))
        }
        Method::PUT => {
            let mut doc = call.object()?;
            doc["id"] = format!("/{}", call.segments.join("/")).into();
            doc["name"] = name.into();
            doc["type"] = kind.into();
            let shown = render_resource(call, &doc);
            let status = if call.ctx.store.get(&key).is_some() {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            commit(call, vec![Write::put(key, doc)])?;
            Ok(Reply::json(status, shown))
        }
        Method::DELETE => {
            if call.ctx.store.get(&key).is_none() {
                return Ok(Reply::empty(StatusCode::NO_CONTENT));
            }
            commit(call, vec![Write::remove(key)])?;
            Ok(Reply::empty(StatusCode::OK))
        }
        _ => Err(method_not_allowed(call)),
    }
}

/// Lists of one resource type below a group or a subscription, and `/resources` of either.
pub(super) fn resources(call: &Call, kind: Option<&str>) -> Reply {
    let prefix = format!("arm/subscriptions/{}/resourcegroups/", call.lower[1]);
    let group = (call.lower.get(2).map(String::as_str) == Some("resourcegroups"))
        .then(|| call.lower[3].clone());
    let filter = call.query("$filter").unwrap_or_default();
    let [in_group, of_type, named] =
        ["resourceGroup", "resourceType", "name"].map(|member| wanted(filter, member));
    let world = call.ctx.store.lock();
    let items = items(call, &world, &prefix, |key| {
        let parts: Vec<&str> = key.split('/').collect();
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|w| w == value);
        parts.len() == 9
            && is(&group, parts[4])
            && is(&in_group, parts[4])
            && is(&of_type, &format!("{}/{}", parts[6], parts[7]))
            && is(&named, parts[8])
            && kind.is_none_or(|kind| format!("{}/{}", parts[6], parts[7]) == kind)
    });
    let now = call.now_ms();
    let items = items.filter(|(_, doc)| !clusters::gone(doc, now));
    page(call, items, PAGE, |key, doc| {
        if kind.is_some() {
            return render_resource(call, &doc);
        }
        let parts: Vec<&str> = key.split('/').collect();
        let lower = format!("{}/{}", parts[6], parts[7]);
        let mut spelt = TYPES.iter().map(|(namespace, kind, _)| format!("{namespace}/{kind}"));
        let spelt = spelt.find(|kind| kind.eq_ignore_ascii_case(&lower));
        let kind = doc.get("type").cloned();
        json!({
            "id": doc["id"], "name": doc["name"], "location": doc["location"], "tags": doc["tags"],
            "type": kind.unwrap_or_else(|| spelt.unwrap_or(lower).into()),
        })
    })
}

/// What `member eq 'value'` of a filter demands, in lower case. Other terms do not narrow the list.
fn wanted(filter: &str, member: &str) -> Option<String> {
    filter.split(" and ").find_map(|term| {
        let (name, value) = term.trim().split_once(" eq ")?;
        let value = value.trim().strip_prefix('\'')?.strip_suffix('\'')?;
        name.eq_ignore_ascii_case(member).then(|| value.to_lowercase())
    })
}

/// `Microsoft.KeyVault/vaults` from `providers/Microsoft.KeyVault/vaults/kv`.
fn kind(parts: &[String]) -> String {
    let mut kind = parts.get(1).cloned().unwrap_or_default();
    for part in parts.iter().skip(2).step_by(2) {
        kind.push('/');
        kind.push_str(part);
    }
    kind
}

/// Vaults and storage accounts show where this sandbox serves their data.
fn render_resource(call: &Call, doc: &Value) -> Value {
    if doc["type"] == scale_sets::KIND {
        return scale_sets::render(doc, call.now_ms());
    }
    let mut shown = doc.clone();
    let data = call.ctx.endpoints.url(|bound| bound.data_plane);
    let name = doc["name"].as_str().unwrap_or_default();
    match doc["type"].as_str().unwrap_or_default().to_lowercase().as_str() {
        "microsoft.keyvault/vaults" => {
            shown["properties"]["vaultUri"] = format!("{data}/keyvault/{name}/").into();
        }
        "microsoft.storage/storageaccounts" => {
            shown["properties"]["primaryEndpoints"] =
                json!({ "blob": format!("{data}/blob/{name}/") });
        }
        "microsoft.appconfiguration/configurationstores" => {
            shown["properties"]["endpoint"] = format!("{data}/appconfig/{name}").into();
        }
        _ => {}
    }
    shown
}

/// Whether the scope of a role assignment exists: a subscription, a group, a resource or
/// something inside a resource. Management groups and the root always do.
pub(super) fn scope_exists(
    world: &Guard<'_>,
    segments: &[String],
    scope: &str,
) -> Result<(), Refusal> {
    let lower = scope.to_lowercase();
    let parts: Vec<&str> = lower.split('/').collect();
    if parts.first() != Some(&"subscriptions") || parts.len() < 2 {
        return Ok(());
    }
    if world.get(&format!("arm/subscriptions/{}", parts[1])).is_none() {
        return Err(subscription_not_found(&segments[1]));
    }
    if parts.get(2) != Some(&"resourcegroups") || parts.len() < 4 {
        return Ok(());
    }
    if world.get(&format!("arm/{}", parts[..4].join("/"))).is_none() {
        return Err(Refusal::group_not_found(&segments[3]));
    }
    if parts.len() >= 8 && world.get(&format!("arm/{}", parts[..8].join("/"))).is_none() {
        return Err(Refusal::resource_not_found(
            &kind(&segments[4..8]),
            &segments[7],
            &segments[3],
        ));
    }
    Ok(())
}

fn commit(call: &Call, writes: Vec<Write>) -> Result<(), Refusal> {
    call.ctx.store.commit(writes).map_err(|error| Refusal::storage(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn filters_of_resources_narrow_by_group_and_type() {
        let filter = "resourceGroup eq 'RG-Data' and resourceType eq 'Microsoft.KeyVault/vaults'";
        assert_eq!(wanted(filter, "resourceGroup").as_deref(), Some("rg-data"));
        assert_eq!(wanted(filter, "resourceType").as_deref(), Some("microsoft.keyvault/vaults"));
        assert_eq!(wanted(filter, "name"), None);
        assert_eq!(wanted("tagName eq 'a", "tagName"), None);
    }
}
